/* values.c: an array's values as Python objects and bytes: tolist, tobytes, copy, fill, repr; and the ways numpy has in besides the buffer
 * protocol.
 *
 * Relies on: copy.c. Everything here stands on the hold while it looks at memory.
 */
#include "dtype.h"
#include "half.h"

/* ---- tolist -------------------------------------------------------------------------------------------------------------------- */

#define ITEMS(type, convert)                                                                                                               \
    for (; i < n; i++, data += stride) {                                                                                                   \
        type x;                                                                                                                            \
        memcpy(&x, data, sizeof x);                                                                                                        \
        PyObject *item = convert;                                                                                                          \
        if (item == NULL)                                                                                                                  \
            break;                                                                                                                         \
        PyList_SET_ITEM(list, i, item);                                                                                                    \
    }                                                                                                                                      \
    break

/* One loop per kind of element, so that it is as fast as array.array's. */
static PyObject *list_of_run(const DTypeObject *dtype, const char *data, Py_ssize_t stride, Py_ssize_t n) {
    PyObject *list = PyList_New(n);
    if (list == NULL)
        return NULL;
    Py_ssize_t i = 0;
    if (n == 1)
        stride = 0; /* it may be any: nothing may be computed from it */
    switch (dtype->swapped ? IST_TYPE_CODES : dtype->code) {
    case IST_I1: ITEMS(int8_t, PyLong_FromLong(x));
    case IST_U1: ITEMS(uint8_t, PyLong_FromLong(x));
    case IST_I2: ITEMS(int16_t, PyLong_FromLong(x));
    case IST_U2: ITEMS(uint16_t, PyLong_FromLong(x));
    case IST_I4: ITEMS(int32_t, PyLong_FromLong(x));
    case IST_U4: ITEMS(uint32_t, PyLong_FromUnsignedLong(x));
    case IST_I8: ITEMS(int64_t, PyLong_FromLongLong(x));
    case IST_U8: ITEMS(uint64_t, PyLong_FromUnsignedLongLong(x));
    case IST_F2: ITEMS(uint16_t, PyFloat_FromDouble(half_to_double(x)));
    case IST_F4: ITEMS(float, PyFloat_FromDouble((double)x));
    case IST_F8: ITEMS(double, PyFloat_FromDouble(x));
    case IST_BOOL: ITEMS(uint8_t, PyBool_FromLong(x != 0));
    default:
        for (; i < n; i++, data += stride) {
            PyObject *item = dtype_get(dtype, data);
            if (item == NULL)
                break;
            PyList_SET_ITEM(list, i, item);
        }
    }
    if (i < n)
        Py_CLEAR(list);
    return list;
}

static PyObject *list_of(const strided *s, int axis, const char *data) {
    if (axis == s->ndim - 1)
        return list_of_run(s->dtype, data, s->strides[axis], s->shape[axis]);
    PyObject *list = PyList_New(s->shape[axis]);
    const Py_ssize_t stride = s->shape[axis] == 1 ? 0 : s->strides[axis];
    for (Py_ssize_t i = 0; list != NULL && i < s->shape[axis]; i++, data += stride) {
        PyObject *row = list_of(s, axis + 1, data);
        if (row == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, row);
    }
    return list;
}

PyObject *array_tolist(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return now_call(array_tolist, self, NULL);
    if (hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    strided s = strided_of(a);
    PyObject *result = a->ndim == 0 ? dtype_get(a->dtype, a->data) : list_of(&s, 0, a->data);
    hold_leave(a, HOLD_SHARED);
    return result;
}

/* ---- one number ----------------------------------------------------------------------------------------------------------------- */

/* The element of an array without axes; as numpy has it, one of a single element with axes isn't a number. New reference. */
static PyObject *only_element(PyObject *self) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_check(a) < 0)
        return NULL;
    if (a->ndim == 0)
        return array_tolist(self, NULL);
    return PyErr_Format(PyExc_TypeError, "only an array without axes is a number; this one has %d: use a[0], or another index",
                        (int)a->ndim);
}

/* Takes `element`, which may be NULL with an exception. */
static PyObject *converted(PyObject *element, PyObject *(*convert)(PyObject *)) {
    PyObject *number = element == NULL ? NULL : convert(element);
    Py_XDECREF(element);
    return number;
}

PyObject *array_int(PyObject *self) { return converted(only_element(self), PyNumber_Long); }

PyObject *array_float(PyObject *self) { return converted(only_element(self), PyNumber_Float); }

static PyObject *complex_of(PyObject *element) {
    if (PyComplex_CheckExact(element))
        return Py_NewRef(element);
    if (!PyFloat_Check(element) && !PyLong_Check(element))
        return PyErr_Format(PyExc_TypeError, "the array's element isn't a number, but %.200s: %R", Py_TYPE(element)->tp_name, element);
    double real = PyFloat_AsDouble(element);
    return real == -1 && PyErr_Occurred() ? NULL : PyComplex_FromDoubles(real, 0);
}

static PyObject *array_complex(PyObject *self, PyObject *Py_UNUSED(ignored)) { return converted(only_element(self), complex_of); }

/* ---- repr ---------------------------------------------------------------------------------------------------------------------- */

#define REPR_ALL 60  /* elements; larger arrays show */
#define REPR_EDGE 3  /* that many at each end of an axis */

static int append(PyObject *parts, PyObject *text) {
    int result = text == NULL ? -1 : PyList_Append(parts, text);
    Py_XDECREF(text);
    return result;
}

static int append_element(PyObject *parts, const strided *s, const char *data) {
    PyObject *item = dtype_get(s->dtype, data);
    int result = item == NULL ? -1 : append(parts, PyObject_Repr(item));
    Py_XDECREF(item);
    return result;
}

static int append_axis(PyObject *parts, const strided *s, int axis, const char *data, bool all) {
    if (axis == s->ndim)
        return append_element(parts, s, data);
    if (append(parts, PyUnicode_FromString("[")) < 0)
        return -1;
    Py_ssize_t n = s->shape[axis];
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!all && i == REPR_EDGE && n > 2 * REPR_EDGE) {
            i = n - REPR_EDGE;
            if (append(parts, PyUnicode_FromString(", ...")) < 0)
                return -1;
        }
        if ((i > 0 && append(parts, PyUnicode_FromString(", ")) < 0) ||
            append_axis(parts, s, axis + 1, data + i * s->strides[axis], all) < 0)
            return -1;
    }
    return append(parts, PyUnicode_FromString("]"));
}

static PyObject *text_of_values(SharedArrayObject *a) {
    if (array_size(a) == 0)
        return PyUnicode_FromString("[]");
    PyObject *parts = PyList_New(0), *empty = PyUnicode_FromString(""), *text = NULL;
    strided s = strided_of(a);
    if (parts != NULL && empty != NULL && append_axis(parts, &s, 0, a->data, array_size(a) <= REPR_ALL) == 0)
        text = PyUnicode_Join(empty, parts);
    Py_XDECREF(parts);
    Py_XDECREF(empty);
    return text;
}

/* max_length: what a tracking handle adds; 0: it isn't one. */
static PyObject *repr_of(SharedArrayObject *a, Py_ssize_t max_length) {
    PyObject *shape = shape_tuple(a->ndim, ARRAY_SHAPE(a)), *values = NULL, *description = NULL, *result = NULL;
    if (shape == NULL)
        return NULL;
    if (!array_usable(a)) {
        description = dtype_description(a->dtype);
        if (description != NULL)
            result = PyUnicode_FromFormat("<SharedArray detached, shape=%R, dtype=%R>", shape, description);
        goto done;
    }
    if (hold_enter(a, HOLD_SHARED) < 0)
        goto done;
    values = text_of_values(a);
    const char *state = array_flags(array_root(a)) & ARRAY_FROZEN ? ", frozen" : array_readonly(a) ? ", readonly" : "";
    hold_leave(a, HOLD_SHARED);
    description = values == NULL ? NULL : dtype_description(a->dtype);
    char growable[40] = "";
    if (max_length > 0)
        PyOS_snprintf(growable, sizeof growable, ", max_length=%zd", max_length);
    if (description != NULL)
        result = PyUnicode_FromFormat("SharedArray(%U, shape=%R, dtype=%R%s%s)", values, shape, description, growable, state);
done:
    Py_XDECREF(description);
    Py_XDECREF(values);
    Py_DECREF(shape);
    return result;
}

PyObject *array_repr(PyObject *self) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (!array_tracks(a) || !array_usable(a))
        return repr_of(a, 0);
    const Py_ssize_t max_length = tracked_max_length(a);
    SharedArrayObject *now = max_length < 0 ? NULL : array_now(a);
    PyObject *result = now == NULL ? NULL : repr_of(now, max_length);
    Py_XDECREF((PyObject *)now);
    return result;
}

/* ---- bytes and copies ------------------------------------------------------------------------------------------------------------ */

/* 'C', 'F' or 'A' as memoryview.tobytes has them; 0 with an exception. */
static char parse_order(SharedArrayObject *a, PyObject *order) {
    if (order == NULL || order == Py_None)
        return 'C';
    if (PyUnicode_Check(order)) {
        if (PyUnicode_CompareWithASCIIString(order, "C") == 0)
            return 'C';
        if (PyUnicode_CompareWithASCIIString(order, "F") == 0)
            return 'F';
        if (PyUnicode_CompareWithASCIIString(order, "A") == 0)
            return array_flags(a) & ARRAY_F_CONTIGUOUS && !(array_flags(a) & ARRAY_C_CONTIGUOUS) ? 'F' : 'C';
    }
    PyErr_Format(PyExc_ValueError, "order must be 'C', 'F' or 'A', not %R", order);
    return 0;
}

static PyObject *array_tobytes(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"order"};
    static const signature parameters = {"tobytes", 1, 1, 0, names};
    SharedArrayObject *a = (SharedArrayObject *)self;
    PyObject *order_object;
    if (array_tracks(a))
        return now_call_keywords(array_tobytes, self, args, nargs, kwnames);
    if (bind_arguments(&parameters, args, nargs, kwnames, &order_object) < 0)
        return NULL;
    char order = parse_order(a, order_object);
    if (order == 0 || hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, a->nbytes);
    if (bytes != NULL) {
        Py_ssize_t strides[IST_MAX_NDIM], step = a->dtype->itemsize;
        if (order == 'C')
            fill_c_strides(a->ndim, ARRAY_SHAPE(a), a->dtype->itemsize, strides);
        for (int i = 0; order == 'F' && i < a->ndim; i++) {
            strides[i] = step;
            step *= ARRAY_SHAPE(a)[i];
        }
        strided from = strided_of(a), to = {a->dtype, PyBytes_AS_STRING(bytes), a->ndim, ARRAY_SHAPE(a), strides};
        if (copy_items(&to, &from) < 0)
            Py_CLEAR(bytes);
        else
            ist_count_copied((size_t)a->nbytes);
    }
    hold_leave(a, HOLD_SHARED);
    return bytes;
}

static PyObject *array_copy(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return now_call(array_copy, self, NULL);
    if (hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    strided from = strided_of(a);
    PyObject *copy = (PyObject *)array_copy_of(state_of(a), &from, a->dtype);
    hold_leave(a, HOLD_SHARED);
    return copy;
}

static PyObject *array_fill(PyObject *self, PyObject *value) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return now_call(array_fill, self, value);
    if (array_check(a) < 0)
        return NULL;
    strided to = strided_of(a);
    if (array_readonly(a)) {
        PyErr_SetString(PyExc_ValueError, "assignment destination is read-only");
        return NULL;
    }
    if (assign(state_of(a), a, &to, value, CAST_SAME_KIND) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *array_sizeof(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromSsize_t(Py_TYPE(self)->tp_basicsize + Py_SIZE(self) * Py_TYPE(self)->tp_itemsize);
}

/* ---- numpy's other doors ----------------------------------------------------------------------------------------------------------- */

static PyObject *cast_ndarray(PyObject *ndarray, PyObject *dtype, PyObject *copy) {
    PyObject *have = PyObject_GetAttrString(ndarray, "dtype");
    if (have == NULL)
        return NULL;
    int same = dtype == NULL || dtype == Py_None ? 1 : PyObject_RichCompareBool(have, dtype, Py_EQ);
    int must = copy == NULL || copy == Py_None ? 0 : PyObject_IsTrue(copy), must_not = must == 0 && copy != NULL && copy != Py_None;
    PyObject *result = NULL;
    if (same < 0 || must < 0)
        result = NULL;
    else if (same && !must)
        result = Py_NewRef(ndarray);
    else if (same)
        result = PyObject_CallMethod(ndarray, "copy", NULL);
    else if (must_not)
        PyErr_Format(PyExc_ValueError, "copy=False, but as dtype %R the array has to be copied", dtype);
    else
        result = PyObject_CallMethod(ndarray, "astype", "O", dtype);
    Py_DECREF(have);
    return result;
}

/* By a memoryview; fields, and what has no format, by way of raw bytes, which numpy then sees as what they are. */
static PyObject *ndarray_of(SharedArrayObject *a) {
    PyObject *numpy = PyImport_ImportModule("numpy"), *ndarray = NULL;
    if (numpy == NULL || array_check(a) < 0) {
        Py_XDECREF(numpy);
        return NULL;
    }
    PyObject *raw = array_format(a) != NULL && a->dtype->code != IST_STRUCT && a->dtype->code != IST_VOID ? Py_NewRef((PyObject *)a) : NULL;
    const bool as_raw = raw == NULL;
    if (as_raw) {
        PyErr_Clear();
        DTypeObject *bytes = dtype_of_length(state_of(a), IST_VOID, a->dtype->itemsize, false);
        if (bytes != NULL)
            raw = (PyObject *)array_new_view(a, bytes, a->ndim, ARRAY_SHAPE(a), ARRAY_STRIDES(a), a->data, 0);
        Py_XDECREF((PyObject *)bytes);
    }
    PyObject *view = raw == NULL ? NULL : PyMemoryView_FromObject(raw);
    if (view != NULL)
        ndarray = PyObject_CallMethod(numpy, "asarray", "O", view);
    if (ndarray != NULL && as_raw) {
        PyObject *theirs = PyObject_GetAttrString((PyObject *)a->dtype, "__numpy_dtype__");
        PyObject *seen = theirs == NULL ? NULL : PyObject_CallMethod(ndarray, "view", "O", theirs);
        Py_XDECREF(theirs);
        Py_SETREF(ndarray, seen);
    }
    Py_XDECREF(view);
    Py_XDECREF(raw);
    Py_DECREF(numpy);
    return ndarray;
}

static PyObject *array_as_ndarray(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"dtype", "copy"};
    static const signature parameters = {"__array__", 2, 2, 0, names};
    PyObject *given[2];
    if (array_tracks((SharedArrayObject *)self))
        return now_call_keywords(array_as_ndarray, self, args, nargs, kwnames);
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    PyObject *ndarray = ndarray_of((SharedArrayObject *)self);
    PyObject *result = ndarray == NULL ? NULL : cast_ndarray(ndarray, given[0], given[1]);
    Py_XDECREF(ndarray);
    return result;
}

/* All bytes from the lowest to the highest element as one run, which is what __array_interface__ wants of `data`. */
static PyObject *run_of_bytes(SharedArrayObject *a, Py_ssize_t *offset) {
    Py_ssize_t low = 0, length = a->nbytes == 0 ? 0 : a->dtype->itemsize;
    for (int i = 0; i < a->ndim && a->nbytes != 0; i++) {
        Py_ssize_t reach = (ARRAY_SHAPE(a)[i] - 1) * ARRAY_STRIDES(a)[i];
        low += reach < 0 ? reach : 0;
        length += reach < 0 ? -reach : reach;
    }
    *offset = -low;
    DTypeObject *u1 = state_of(a)->dtypes[IST_U1];
    PyObject *bytes = (PyObject *)array_new_view(a, u1, 1, &length, &u1->itemsize, a->data + low, 0);
    PyObject *view = bytes == NULL ? NULL : PyMemoryView_FromObject(bytes);
    Py_XDECREF(bytes);
    return view;
}

static PyObject *get_array_interface(PyObject *self, void *Py_UNUSED(closure)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return now_get(get_array_interface, self);
    if (array_check(a) < 0)
        return NULL;
    Py_ssize_t offset;
    if (a->dtype->code == IST_STRUCT && array_format(a) == NULL) { /* numpy would make fields of the padding */
        PyErr_SetString(PyExc_AttributeError, "__array_interface__ can't describe these fields: use __array__()");
        return NULL;
    }
    PyObject *view = run_of_bytes(a, &offset);
    if (view == NULL)
        return NULL;
    PyObject *descr = NULL;
    if (a->dtype->code == IST_STRUCT && (descr = dtype_descr(a->dtype)) == NULL)
        PyErr_Clear(); /* fields that no list can describe: raw bytes */
    if (descr == NULL && (descr = Py_BuildValue("[(ss)]", "", a->dtype->str)) == NULL) {
        Py_DECREF(view);
        return NULL;
    }
    return Py_BuildValue("{s:i, s:N, s:s, s:N, s:N, s:N, s:n}", "version", 3, "shape", shape_tuple(a->ndim, ARRAY_SHAPE(a)), "typestr",
                         a->dtype->str, "descr", descr, "strides", shape_tuple(a->ndim, ARRAY_STRIDES(a)), "data", view, "offset", offset);
}

PyGetSetDef values_attributes[] = {
    {"__array_interface__", get_array_interface, NULL,
     PyDoc_STR("numpy's array interface, version 3; its data is a memoryview, which keeps the memory, never an address."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMethodDef values_methods[] = {
    {"tolist", array_tolist, METH_NOARGS,
     PyDoc_STR("tolist($self, /)\n--\n\nThe elements as Python objects, in lists nested like the axes.")},
    {"tobytes", KEYWORDS(array_tobytes),
     PyDoc_STR(
         "tobytes($self, /, order='C')\n--\n\nThe elements' bytes in C or Fortran order; 'A': Fortran order if that is how they lie.")},
    {"copy", array_copy, METH_NOARGS, PyDoc_STR("copy($self, /)\n--\n\nA new array, C-contiguous and writable, with the same values.")},
    {"__copy__", array_copy, METH_NOARGS, NULL},
    {"__deepcopy__", array_copy, METH_O, NULL},
    {"fill", array_fill, METH_O, PyDoc_STR("fill($self, value, /)\n--\n\nSets every element to the value.")},
    {"__sizeof__", array_sizeof, METH_NOARGS, PyDoc_STR("Bytes of the handle; the memory it looks at belongs to no interpreter.")},
    {"__complex__", array_complex, METH_NOARGS, NULL},
    {"__array__", KEYWORDS(array_as_ndarray),
     PyDoc_STR(
         "__array__($self, /, dtype=None, copy=None)\n--\n\nAn ndarray of the same memory, which it keeps; a copy where dtype or copy ask for one.")},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};
