/* convert.c: values from outside into arrays: other people's buffers, casting, broadcasting, assignment.
 *
 * Relies on: copy.c for the elements, discover.c for nested sequences.
 * Invariants
 *   What is read is held while it is read (source), what is written is pinned while it is written; Python code runs only before the pin.
 *   Everything that can fail for a reason of the value's fails before the first element is written.
 */
#include "dtype.h"

/* ---- dtypes --------------------------------------------------------------------------------------------------------------------- */

static int promote_integers(const DTypeObject *a, const DTypeObject *b) {
    static const ist_type_code signed_of[] = {[1] = IST_I1, [2] = IST_I2, [4] = IST_I4, [8] = IST_I8};
    if (a->kind == b->kind)
        return a->itemsize > b->itemsize ? (int)a->code : (int)b->code;
    const DTypeObject *i = a->kind == 'i' ? a : b, *u = a->kind == 'i' ? b : a;
    if (i->itemsize > u->itemsize)
        return (int)i->code;
    return u->itemsize == 8 ? (int)IST_F8 : (int)signed_of[2 * u->itemsize];
}

/* Bytes of the float that holds every value of the dtype, more or less: numpy's table. */
static Py_ssize_t float_bytes(const DTypeObject *dtype) {
    switch (dtype->kind) {
    case 'b': return 2;
    case 'i':
    case 'u': return dtype->itemsize >= 4 ? 8 : 2 * dtype->itemsize;
    case 'f': return dtype->itemsize;
    default: return dtype->itemsize / 2;
    }
}

static DTypeObject *promote_numbers(core_state *state, const DTypeObject *a, const DTypeObject *b) {
    int code;
    if (a->code == b->code || b->kind == 'b') {
        code = (int)a->code;
    } else if (a->kind == 'b') {
        code = (int)b->code;
    } else if ((a->kind == 'i' || a->kind == 'u') && (b->kind == 'i' || b->kind == 'u')) {
        code = promote_integers(a, b);
    } else {
        Py_ssize_t bytes = Py_MAX(float_bytes(a), float_bytes(b));
        bool is_complex = a->kind == 'c' || b->kind == 'c';
        code = code_of_size(is_complex ? 'c' : 'f', (size_t)(is_complex ? 2 * Py_MAX(bytes, 4) : bytes));
    }
    return dtype_of_code(state, (ist_type_code)code, false);
}

static bool is_integer(const DTypeObject *d) { return d->kind == 'b' || d->kind == 'i' || d->kind == 'u'; }

DTypeObject *promote(core_state *state, const DTypeObject *a, const DTypeObject *b) {
    int unit;
    int32_t count;
    if (a->code <= IST_CLONG && b->code <= IST_CLONG)
        return promote_numbers(state, a, b);
    if (dtype_same(a, b))
        return dtype_in_order(state, a, NATIVE_ORDER);
    if ((a->code == IST_BYTES || a->code == IST_TEXT) && (b->code == IST_BYTES || b->code == IST_TEXT)) {
        Py_ssize_t a_length = a->code == IST_TEXT ? a->itemsize / 4 : a->itemsize,
                   b_length = b->code == IST_TEXT ? b->itemsize / 4 : b->itemsize;
        ist_type_code code = a->code == IST_TEXT || b->code == IST_TEXT ? IST_TEXT : IST_BYTES;
        return dtype_of_length(state, code, Py_MAX(a_length, b_length), false);
    }
    if (a->code == b->code && (a->code == IST_DATETIME || a->code == IST_TIMEDELTA) && times_common(a, b, &unit, &count))
        return dtype_of_time(state, a->code, unit, count, false);
    if (a->code == IST_TIMEDELTA && is_integer(b))
        return dtype_in_order(state, a, NATIVE_ORDER);
    if (b->code == IST_TIMEDELTA && is_integer(a))
        return dtype_in_order(state, b, NATIVE_ORDER);
    PyObject *first = dtype_description(a), *second = first == NULL ? NULL : dtype_description(b);
    if (second != NULL)
        PyErr_Format(PyExc_TypeError, "%R and %R have no common dtype", first, second);
    Py_XDECREF(first);
    Py_XDECREF(second);
    return NULL;
}

/* ---- room for an element ---------------------------------------------------------------------------------------------------------- */

char *item_room(const DTypeObject *dtype, char *few) {
    char *room = dtype->itemsize <= ITEM_FEW ? few : PyMem_RawMalloc((size_t)dtype->itemsize);
    if (room == NULL)
        PyErr_NoMemory();
    return room;
}

void item_free(char *room, const char *few) {
    if (room != few)
        PyMem_RawFree(room);
}

/* ---- sources -------------------------------------------------------------------------------------------------------------------- */

/* A buffer with pointers in it (PIL's) becomes a plain copy of itself. */
static int straighten(source *s) {
    bool plain = true;
    for (int i = 0; s->view.suboffsets != NULL && i < s->view.ndim; i++)
        plain &= s->view.suboffsets[i] < 0;
    if (plain)
        return 0;
    s->straightened = PyMem_RawMalloc((size_t)s->view.len + 1);
    if (s->straightened == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (PyBuffer_ToContiguous(s->straightened, &s->view, s->view.len, 'C') < 0)
        return -1;
    s->values.data = s->straightened;
    fill_c_strides(s->view.ndim, s->dims, s->view.itemsize, s->dims + s->view.ndim);
    return 0;
}

/* As PyObject_GetBuffer, which after a failure must leave nothing to release: numpy's structured scalars do. */
static int get_buffer(PyObject *object, source *s) {
    int result = PyObject_GetBuffer(object, &s->view, PyBUF_FULL_RO);
    if (result < 0)
        s->view.obj = NULL;
    return result;
}

/* An ndarray: itself, or what a scalar of numpy makes of itself; new reference. NULL without an exception: it is neither. */
static PyObject *as_ndarray(PyObject *object) {
    if (numpy_is_array(object))
        return Py_NewRef(object);
    return numpy_is_scalar(object) ? PyObject_CallMethod(object, "__array__", NULL) : NULL;
}

/* numpy has no format for times and fields out of order: such an ndarray shows its elements as raw bytes, and its dtype beside it. */
static int open_as_bytes(core_state *state, PyObject *object, source *s) {
    PyObject *raised = PyErr_GetRaisedException(), *ndarray = as_ndarray(object), *theirs = NULL, *bytes = NULL;
    int result = -1;
    if (ndarray == NULL) {
        PyErr_SetRaisedException(raised); /* in place of any other */
        return -1;
    }
    Py_XDECREF(raised);
    theirs = PyObject_GetAttrString(ndarray, "dtype");
    s->dtype = theirs == NULL ? NULL : dtype_from_object(state, theirs);
    if (s->dtype != NULL) {
        char raw[32];
        PyOS_snprintf(raw, sizeof raw, "V%zd", s->dtype->itemsize);
        bytes = PyObject_CallMethod(ndarray, "view", "s", raw);
        result = bytes == NULL ? -1 : get_buffer(bytes, s);
    }
    Py_XDECREF(bytes);
    Py_XDECREF(theirs);
    Py_DECREF(ndarray);
    return result;
}

/* numpy leaves padding out of the formats of structures, so that some can't be read, or would be read as something else: its own dtype is
 * asked, also behind a memoryview. 0: it isn't numpy's, or there is none. */
static int ask_numpy(core_state *state, PyObject *object, source *s) {
    if (s->dtype != NULL || s->view.format == NULL || s->view.format[0] != 'T')
        return 0;
    PyObject *exporter = PyMemoryView_Check(object) ? PyMemoryView_GET_BUFFER(object)->obj : object;
    if (exporter == NULL || (!numpy_is_array(exporter) && !numpy_is_scalar(exporter)))
        return 0;
    PyObject *theirs = PyObject_GetAttrString(exporter, "dtype");
    DTypeObject *dtype = theirs == NULL ? NULL : dtype_from_object(state, theirs);
    Py_XDECREF(theirs);
    if (dtype == NULL)
        return -1;
    if (dtype->itemsize == s->view.itemsize)
        s->dtype = dtype;
    else
        Py_DECREF((PyObject *)dtype);
    return 0;
}

static int open_buffer(core_state *state, PyObject *object, source *s) {
    if (get_buffer(object, s) < 0 && (!PyErr_ExceptionMatches(PyExc_ValueError) || open_as_bytes(state, object, s) < 0))
        return -1;
    int ndim = s->view.ndim;
    if (ndim > IST_MAX_NDIM || ndim < 0) {
        PyErr_Format(PyExc_ValueError, "maximum supported dimension for an array is %d, found %d", IST_MAX_NDIM, ndim);
        return -1;
    }
    if (ask_numpy(state, object, s) < 0)
        return -1;
    if (s->dtype == NULL)
        s->dtype = dtype_from_format(state, s->view.format, s->view.itemsize);
    if (s->dtype == NULL)
        return -1;
    if (s->dtype->itemsize == 0 || s->dtype->code == IST_SUBARRAY || s->dtype->itemsize != s->view.itemsize) {
        PyErr_Format(PyExc_TypeError, "buffer format '%s' isn't supported: its elements have %zd bytes%s", s->view.format, s->view.itemsize,
                     s->dtype->code == IST_SUBARRAY ? " of several values" : "");
        return -1;
    }
    for (int i = 0; i < ndim; i++)
        s->dims[i] = s->view.shape != NULL ? s->view.shape[i] : s->view.len / s->view.itemsize;
    if (s->view.strides != NULL)
        memcpy(s->dims + ndim, s->view.strides, (size_t)ndim * sizeof *s->dims);
    else
        fill_c_strides(ndim, s->dims, s->view.itemsize, s->dims + ndim);
    s->values = (strided){s->dtype, s->view.buf, ndim, s->dims, s->dims + ndim};
    s->readonly = s->view.readonly != 0;
    return straighten(s);
}

int source_open(core_state *state, PyObject *object, source *s) {
    s->pinned = NULL;
    s->dtype = NULL;
    s->straightened = NULL;
    s->view.obj = NULL;
    if (!Py_IS_TYPE(object, state->array_type)) {
        if (open_buffer(state, object, s) == 0)
            return 0;
        source_close(s);
        return -1;
    }
    SharedArrayObject *a =
        array_tracks((SharedArrayObject *)object) ? array_now((SharedArrayObject *)object) : (SharedArrayObject *)Py_NewRef(object);
    if (a == NULL || hold_enter(a, HOLD_SHARED) < 0) {
        Py_XDECREF((PyObject *)a);
        return -1;
    }
    s->pinned = a;
    s->values = strided_of(a);
    s->readonly = array_readonly(a);
    return 0;
}

void source_close(source *s) {
    if (s->pinned != NULL) {
        hold_leave(s->pinned, HOLD_SHARED);
        Py_DECREF((PyObject *)s->pinned);
        return;
    }
    PyMem_RawFree(s->straightened);
    Py_XDECREF((PyObject *)s->dtype);
    PyBuffer_Release(&s->view);
}

/* ---- broadcasting --------------------------------------------------------------------------------------------------------------- */

static int raise_broadcast(const strided *from, int ndim, const Py_ssize_t *shape) {
    PyObject *source_shape = shape_tuple(from->ndim, from->shape), *target_shape = shape_tuple(ndim, shape);
    if (source_shape != NULL && target_shape != NULL)
        PyErr_Format(PyExc_ValueError, "could not broadcast input array from shape %R into shape %R", source_shape, target_shape);
    Py_XDECREF(source_shape);
    Py_XDECREF(target_shape);
    return -1;
}

int broadcast_strides(const strided *from, int ndim, const Py_ssize_t *shape, Py_ssize_t *strides) {
    int surplus = from->ndim - ndim; /* leading axes of length 1 may go */
    for (int i = 0; i < surplus; i++)
        if (from->shape[i] != 1)
            return raise_broadcast(from, ndim, shape);
    for (int i = 0; i < ndim; i++) {
        int j = i + surplus;
        if (j < 0 || (from->shape[j] == 1 && shape[i] != 1))
            strides[i] = 0;
        else if (from->shape[j] == shape[i])
            strides[i] = from->strides[j];
        else
            return raise_broadcast(from, ndim, shape);
    }
    return 0;
}

/* ---- assignment ------------------------------------------------------------------------------------------------------------------ */

/* Everything that ran Python code is behind us, and may have released or frozen the array. */
static int pin_for_writing(SharedArrayObject *owner) {
    if (owner == NULL)
        return 0;
    if (hold_enter(owner, HOLD_WRITER) < 0)
        return -1;
    if (!array_readonly(owner))
        return 0;
    hold_leave(owner, HOLD_WRITER);
    PyErr_SetString(PyExc_ValueError, "assignment destination is read-only");
    return -1;
}

static void unpin(SharedArrayObject *owner) {
    if (owner != NULL)
        hold_leave(owner, HOLD_WRITER);
}

static int assign_scalar(SharedArrayObject *owner, const strided *to, PyObject *value, ist_casting how) {
    char few[ITEM_FEW], *item = item_room(to->dtype, few);
    int result = item == NULL || dtype_put(to->dtype, item, value, how) < 0 || pin_for_writing(owner) < 0 ? -1 : 0;
    if (result == 0) {
        fill_values(to, item);
        unpin(owner);
    }
    item_free(item, few);
    return result;
}

static int assign_values(SharedArrayObject *owner, const strided *to, const strided *from, ist_casting how) {
    if (!castable(from->dtype, to->dtype, how))
        return raise_not_castable(from->dtype, to->dtype, how);
    Py_ssize_t strides[IST_MAX_NDIM];
    if (broadcast_strides(from, to->ndim, to->shape, strides) < 0 || pin_for_writing(owner) < 0)
        return -1;
    strided stretched = {from->dtype, from->data, to->ndim, to->shape, strides};
    int result = copy_values(to, &stretched);
    unpin(owner);
    return result;
}

static int assign_buffer(core_state *state, SharedArrayObject *owner, const strided *to, PyObject *value, ist_casting how) {
    source s;
    if (source_open(state, value, &s) < 0)
        return -1;
    int result = assign_values(owner, to, &s.values, how);
    source_close(&s);
    return result;
}

static int assign_sequence(core_state *state, SharedArrayObject *owner, const strided *to, PyObject *value, ist_casting how) {
    discovery found;
    if (discover(state, value, to->dtype, how, &found) < 0)
        return -1;
    discovery_clear(&found); /* what the values are by themselves: the target's dtype counts */
    Py_ssize_t nbytes = shape_bytes(found.ndim, found.shape, to->dtype->itemsize);
    if (nbytes < 0)
        return -1;
    char few[512], *room = nbytes <= (Py_ssize_t)sizeof few ? few : PyMem_RawMalloc((size_t)nbytes);
    if (room == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t strides[IST_MAX_NDIM];
    fill_c_strides(found.ndim, found.shape, to->dtype->itemsize, strides);
    strided from = {to->dtype, room, found.ndim, found.shape, strides};
    int result = fill_discovered(state, value, &found, to->dtype, room);
    if (result == 0)
        result = assign_values(owner, to, &from, how);
    if (room != few)
        PyMem_RawFree(room);
    return result;
}

int assign(core_state *state, SharedArrayObject *owner, const strided *to, PyObject *value, ist_casting how) {
    if (is_scalar(to->dtype, value))
        return assign_scalar(owner, to, value, how);
    if (PyObject_CheckBuffer(value))
        return assign_buffer(state, owner, to, value, how);
    return assign_sequence(state, owner, to, value, how);
}

/* ---- new arrays ------------------------------------------------------------------------------------------------------------------ */

SharedArrayObject *array_copy_of(core_state *state, const strided *from, DTypeObject *dtype) {
    if (!castable(from->dtype, dtype, CAST_UNSAFE)) {
        raise_not_castable(from->dtype, dtype, CAST_UNSAFE);
        return NULL;
    }
    /* what lies between fields comes along, or is nothing: not what the memory held before */
    const uint32_t flags = dtype->gaps && !dtype_same(from->dtype, dtype) ? IST_ZERO : 0;
    SharedArrayObject *copy = array_create(state, dtype, from->ndim, from->shape, flags);
    if (copy == NULL)
        return NULL;
    strided to = strided_of(copy);
    if (copy_items(&to, from) < 0) {
        Py_DECREF((PyObject *)copy);
        return NULL;
    }
    ist_count_copied((size_t)copy->nbytes);
    return copy;
}

/* What is asked for, in the length or unit that was found; new reference. `asked` NULL: what was found, float64 if nothing was. */
static DTypeObject *with_length(core_state *state, const DTypeObject *asked, const DTypeObject *found) {
    if (asked == NULL && (found == NULL || found->itemsize > 0))
        return found == NULL ? dtype_ref(state->dtypes[IST_F8]) : dtype_ref(found);
    const DTypeObject *kind = asked != NULL ? asked : found;
    const bool swapped = found != NULL && found->code == kind->code ? found->swapped : kind->swapped; /* as numpy does it */
    if (kind->code == IST_DATETIME || kind->code == IST_TIMEDELTA) {
        const bool time = found != NULL && (found->code == IST_DATETIME || found->code == IST_TIMEDELTA);
        return time ? dtype_of_time(state, kind->code, found->unit, found->count, swapped) : dtype_ref(kind);
    }
    Py_ssize_t length = 0;
    if (found != NULL && kind->code != IST_VOID && found->code < IST_BYTES)
        length = text_length(found);
    else if (found != NULL && kind->code != IST_VOID && (found->code == IST_DATETIME || found->code == IST_TIMEDELTA))
        length = text_length(found);
    else if (found != NULL && found->code < IST_STRUCT)
        length = found->code == IST_TEXT && kind->code != IST_VOID ? found->itemsize / 4 : found->itemsize;
    else if (found != NULL) {
        PyErr_Format(PyExc_TypeError, "'%s' elements as '%s': how long they may become has to be said, as in '%c24'", found->str, kind->str,
                     kind->kind);
        return NULL;
    }
    return dtype_of_length(state, kind->code, Py_MAX(length, 1), swapped);
}

static SharedArrayObject *array_from_buffer(core_state *state, PyObject *object, DTypeObject *dtype) {
    source s;
    if (source_open(state, object, &s) < 0)
        return NULL;
    DTypeObject *wanted = dtype == NULL || !dtype_is_open(dtype) ? dtype_ref(dtype != NULL ? dtype : s.values.dtype)
                                                                 : with_length(state, dtype, s.values.dtype);
    SharedArrayObject *copy = wanted == NULL ? NULL : array_copy_of(state, &s.values, wanted);
    Py_XDECREF((PyObject *)wanted);
    source_close(&s);
    return copy;
}

SharedArrayObject *array_from_object(core_state *state, PyObject *object, DTypeObject *dtype) {
    SharedArrayObject *adopted = NULL;
    if (!Py_IS_TYPE(object, state->array_type) && exchange_adopt(state, object, &adopted) < 0)
        return NULL;
    if (adopted != NULL) {
        SharedArrayObject *copy = array_from_buffer(state, (PyObject *)adopted, dtype);
        Py_DECREF((PyObject *)adopted);
        return copy;
    }
    if (!is_scalar(dtype, object) && PyObject_CheckBuffer(object))
        return array_from_buffer(state, object, dtype);
    discovery found;
    if (discover(state, object, dtype, CAST_UNSAFE, &found) < 0)
        return NULL;
    DTypeObject *elements = found.infer ? with_length(state, dtype, found.dtype) : dtype_ref(dtype);
    SharedArrayObject *a = elements == NULL ? NULL : array_create(state, elements, found.ndim, found.shape, elements->gaps ? IST_ZERO : 0);
    if (a != NULL && fill_discovered(state, object, &found, elements, a->data) < 0) /* nobody else has it yet */
        Py_CLEAR(a);
    if (a != NULL)
        ist_count_copied((size_t)a->nbytes);
    Py_XDECREF((PyObject *)elements);
    discovery_clear(&found);
    return a;
}
