/* discover.c: nested sequences of values (and of arrays): their shape and common dtype, and their elements one by one.
 *
 * Two passes, because memory is asked for once. Python code runs in both (__len__, __getitem__, __index__, __float__, getbuffer), and may
 * change the lists between and during them: so every item is owned while it is looked at, and lengths are compared again when filling.
 */
#include "dtype.h"

static int discover_at(core_state *state, PyObject *object, int depth, discovery *found);

/* ---- items --------------------------------------------------------------------------------------------------------------------- */

static bool is_number(PyObject *object) { return PyFloat_Check(object) || PyLong_Check(object) || PyComplex_Check(object); }

static bool is_sequence(PyObject *object) {
    return PyList_Check(object) || PyTuple_Check(object) ||
           (PySequence_Check(object) && !PyUnicode_Check(object) && !PyDict_Check(object) && !PyType_Check(object));
}

/* bytes are values where they can't be meant as a buffer of numbers: for S, U and V, and inside of sequences. */
static bool is_element(const DTypeObject *target, bool nested, PyObject *object) {
    if (is_number(object) || PyUnicode_Check(object))
        return true;
    if (PyBytes_Check(object))
        return nested || (target != NULL && target->code >= IST_BYTES && target->code <= IST_VOID);
    if (PyTuple_Check(object))
        return target != NULL && target->code == IST_STRUCT;
    return (!PyObject_CheckBuffer(object) && !is_sequence(object)) || numpy_kind(object) != NULL;
}

bool is_scalar(const DTypeObject *dtype, PyObject *object) { return is_element(dtype, false, object); }

/* A list or a tuple with the items of a sequence: itself, or a new one. */
static PyObject *items_of(PyObject *object) {
    return PyList_Check(object) || PyTuple_Check(object) ? Py_NewRef(object) : PySequence_List(object);
}

static Py_ssize_t items_length(PyObject *items) { return PyList_Check(items) ? PyList_GET_SIZE(items) : PyTuple_GET_SIZE(items); }

static PyObject *raise_changed(void) {
    PyErr_SetString(PyExc_ValueError, "a sequence changed its length while it was converted");
    return NULL;
}

/* New reference: Python code that runs on the item's behalf may take it out of its list. */
static PyObject *item_at(PyObject *items, Py_ssize_t i) {
    if (PyTuple_Check(items))
        return Py_NewRef(PyTuple_GET_ITEM(items, i));
#if PY_VERSION_HEX >= 0x030d0000
    PyObject *item = PyList_GetItemRef(items, i);
    if (item != NULL)
        return item;
    PyErr_Clear();
#else
    if (i < PyList_GET_SIZE(items))
        return Py_NewRef(PyList_GET_ITEM(items, i));
#endif
    return raise_changed();
}

/* ---- first pass: shape and dtype ----------------------------------------------------------------------------------------------- */

static int raise_inhomogeneous(int depth) {
    PyErr_Format(PyExc_ValueError,
                 "setting an array element with a sequence: the nested sequences have an inhomogeneous shape after %d dimensions", depth);
    return -1;
}

static int too_deep(void) {
    PyErr_Format(PyExc_ValueError, "sequences are nested deeper than the %d dimensions an array can have", IST_MAX_NDIM);
    return -1;
}

static int see_length(discovery *found, int depth, Py_ssize_t length) {
    if (depth >= IST_MAX_NDIM)
        return too_deep();
    if (found->ndim >= 0 && depth >= found->ndim)
        return raise_inhomogeneous(found->ndim);
    if (found->shape[depth] < 0)
        found->shape[depth] = length;
    return found->shape[depth] == length ? 0 : raise_inhomogeneous(depth);
}

static int see_end(discovery *found, int ndim) {
    if (found->ndim < 0 && (ndim >= IST_MAX_NDIM || found->shape[ndim] < 0))
        found->ndim = ndim;
    return found->ndim == ndim ? 0 : raise_inhomogeneous(ndim);
}

/* Takes the reference; NULL: -1. */
static int see_dtype(core_state *state, discovery *found, DTypeObject *dtype) {
    if (dtype == NULL)
        return -1;
    if (found->dtype == NULL) {
        found->dtype = dtype;
        return 0;
    }
    DTypeObject *both = found->dtype == dtype ? dtype_ref(dtype) : promote(state, found->dtype, dtype);
    Py_DECREF((PyObject *)dtype);
    if (both == NULL)
        return -1;
    Py_SETREF(found->dtype, both);
    return 0;
}

static int see_number(core_state *state, discovery *found, ist_type_code code) {
    if (found->dtype == state->dtypes[code])
        return 0;
    return see_dtype(state, found, dtype_ref(state->dtypes[code]));
}

/* An int that int64 doesn't hold is uint64 if that does, as for numpy. */
static int see_integer(core_state *state, discovery *found, PyObject *integer) {
    int overflow;
    long long x = PyLong_AsLongLongAndOverflow(integer, &overflow);
    if (x == -1 && overflow == 0 && PyErr_Occurred())
        return -1;
    if (overflow != 0) {
        if (PyLong_AsUnsignedLongLong(integer) == (unsigned long long)-1 && PyErr_Occurred()) {
            if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
                PyErr_Clear();
                PyErr_SetString(PyExc_OverflowError, "Python integer out of bounds for int64 and uint64; name a floating-point dtype");
            }
            return -1;
        }
    }
    return see_number(state, found, overflow != 0 ? IST_U8 : IST_I8);
}

/* What text a value becomes says how long the elements are. */
static int see_written(core_state *state, discovery *found, PyObject *object) {
    PyObject *text = PyObject_Str(object);
    int result = text == NULL ? -1 : see_dtype(state, found, dtype_of_length(state, IST_TEXT, PyUnicode_GET_LENGTH(text), false));
    Py_XDECREF(text);
    return result;
}

/* The unit of what becomes a time; none of numbers and None. */
static int see_unit(core_state *state, discovery *found, PyObject *object) {
    bool is_time;
    if (PyLong_Check(object) || object == Py_None)
        return 0;
    DTypeObject *time = times_dtype_of_text(state, found->target, object);
    if (time != NULL || PyErr_Occurred())
        return see_dtype(state, found, time);
    time = times_dtype_of(state, object, &is_time);
    return is_time ? see_dtype(state, found, time) : 0;
}

static int see_scalar(core_state *state, discovery *found, PyObject *object) {
    const ist_type_code target = found->target == NULL ? IST_TYPE_CODES : found->target->code;
    if (target == IST_DATETIME || target == IST_TIMEDELTA)
        return see_unit(state, found, object);
    if ((target == IST_BYTES || target == IST_TEXT) && !PyUnicode_Check(object) && !PyBytes_Check(object))
        return see_written(state, found, object);
    if (PyFloat_Check(object))
        return see_number(state, found, IST_F8);
    if (PyBool_Check(object))
        return see_number(state, found, IST_BOOL);
    if (PyLong_Check(object))
        return see_integer(state, found, object);
    if (PyComplex_Check(object))
        return see_number(state, found, IST_C16);
    if (PyUnicode_Check(object))
        return see_dtype(state, found, dtype_of_length(state, IST_TEXT, PyUnicode_GET_LENGTH(object), false));
    if (PyBytes_Check(object))
        return see_dtype(state, found, dtype_of_length(state, IST_BYTES, PyBytes_GET_SIZE(object), false));
    bool is_time;
    DTypeObject *time = times_dtype_of(state, object, &is_time);
    if (is_time)
        return see_dtype(state, found, time);
    PyNumberMethods *number = Py_TYPE(object)->tp_as_number;
    if (PyIndex_Check(object)) {
        PyObject *integer = PyNumber_Index(object);
        int result = integer == NULL ? -1 : see_integer(state, found, integer);
        Py_XDECREF(integer);
        return result;
    }
    if (number != NULL && number->nb_float != NULL)
        return see_number(state, found, IST_F8);
    PyErr_Format(PyExc_TypeError, "an array element must be a number, text, bytes or a time, not %.200s: %R", Py_TYPE(object)->tp_name,
                 object);
    return -1;
}

static int discover_buffer(core_state *state, PyObject *object, int depth, discovery *found) {
    source s;
    if (source_open(state, object, &s) < 0)
        return -1;
    int result = 0;
    for (int i = 0; i < s.values.ndim && result == 0; i++)
        result = see_length(found, depth + i, s.values.shape[i]);
    if (result == 0)
        result = see_end(found, depth + s.values.ndim);
    if (result == 0 && found->infer)
        result = see_dtype(state, found, dtype_ref(s.values.dtype));
    source_close(&s);
    return result;
}

static int discover_sequence(core_state *state, PyObject *object, int depth, discovery *found) {
    if (depth >= IST_MAX_NDIM)
        return too_deep(); /* a list inside itself, too */
    PyObject *items = items_of(object);
    if (items == NULL)
        return -1;
    Py_ssize_t length = items_length(items);
    int result = see_length(found, depth, length);
    if (result == 0 && length == 0)
        result = see_end(found, depth + 1);
    for (Py_ssize_t i = 0; i < length && result == 0; i++) {
        PyObject *item = item_at(items, i);
        result = item == NULL ? -1 : discover_at(state, item, depth + 1, found);
        Py_XDECREF(item);
    }
    Py_DECREF(items);
    return result;
}

static int discover_at(core_state *state, PyObject *object, int depth, discovery *found) {
    if (!is_element(found->target, depth > 0, object))
        return PyObject_CheckBuffer(object) ? discover_buffer(state, object, depth, found) : discover_sequence(state, object, depth, found);
    if (see_end(found, depth) < 0)
        return -1;
    return found->infer ? see_scalar(state, found, object) : 0;
}

int discover(core_state *state, PyObject *object, const DTypeObject *target, ist_casting how, discovery *found) {
    found->how = how;
    found->target = target;
    found->infer = target == NULL || dtype_is_open(target);
    found->ndim = -1;
    found->dtype = NULL;
    for (int i = 0; i < IST_MAX_NDIM; i++)
        found->shape[i] = -1;
    int result = discover_at(state, object, 0, found);
    if (result < 0)
        discovery_clear(found);
    return result;
}

void discovery_clear(discovery *found) { Py_CLEAR(found->dtype); }

/* ---- second pass: elements ------------------------------------------------------------------------------------------------------ */

/* An array inside the sequence, or a numpy scalar: `depth` axes are behind us. */
static int fill_buffer(core_state *state, PyObject *object, int depth, const discovery *found, DTypeObject *dtype, char *to) {
    source s;
    if (source_open(state, object, &s) < 0)
        return -1;
    int result = 0, ndim = found->ndim - depth;
    if (s.values.ndim != ndim || memcmp(s.values.shape, found->shape + depth, (size_t)ndim * sizeof *s.values.shape) != 0) {
        raise_changed();
        result = -1;
    } else if (!castable(s.values.dtype, dtype, found->how)) {
        result = raise_not_castable(s.values.dtype, dtype, found->how);
    } else {
        Py_ssize_t strides[IST_MAX_NDIM];
        fill_c_strides(ndim, s.values.shape, dtype->itemsize, strides);
        strided target = {dtype, to, ndim, s.values.shape, strides};
        result = copy_items(&target, &s.values);
    }
    source_close(&s);
    return result;
}

static int fill_at(core_state *state, PyObject *object, int depth, const discovery *found, DTypeObject *dtype, char *to) {
    if (is_element(found->target, depth > 0, object)) {
        if (depth != found->ndim) {
            raise_changed();
            return -1;
        }
        return dtype_put(dtype, to, object, found->how);
    }
    if (PyObject_CheckBuffer(object))
        return fill_buffer(state, object, depth, found, dtype, to);
    PyObject *items = items_of(object);
    if (items == NULL)
        return -1;
    Py_ssize_t step = dtype->itemsize;
    for (int i = depth + 1; i < found->ndim; i++)
        step *= found->shape[i];
    int result = 0;
    if (depth >= found->ndim || items_length(items) != found->shape[depth]) {
        raise_changed();
        result = -1;
    }
    for (Py_ssize_t i = 0; result == 0 && i < found->shape[depth]; i++, to += step) {
        PyObject *item = item_at(items, i);
        result = item == NULL ? -1 : fill_at(state, item, depth + 1, found, dtype, to);
        Py_XDECREF(item);
    }
    if (result == 0 && items_length(items) != found->shape[depth]) {
        raise_changed();
        result = -1;
    }
    Py_DECREF(items);
    return result;
}

int fill_discovered(core_state *state, PyObject *object, const discovery *found, DTypeObject *dtype, char *to) {
    return fill_at(state, object, 0, found, dtype, to);
}
