/* convert.c: values from outside into arrays: other people's buffers, casting, broadcasting, assignment.
 *
 * Relies on: copy.c for the elements, discover.c for nested sequences.
 * Invariants
 *   What is read is held while it is read (source), what is written is pinned while it is written; Python code runs only before the pin.
 *   Everything that can fail for a reason of the value's fails before the first element is written.
 */
#include "array.h"

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

DTypeObject *promote(core_state *state, const DTypeObject *a, const DTypeObject *b) {
    int code;
    if (a == b || b->kind == 'b') {
        code = (int)a->code;
    } else if (a->kind == 'b') {
        code = (int)b->code;
    } else if ((a->kind == 'i' || a->kind == 'u') && (b->kind == 'i' || b->kind == 'u')) {
        code = promote_integers(a, b);
    } else {
        Py_ssize_t bytes = Py_MAX(float_bytes(a), float_bytes(b));
        if (a->kind == 'c' || b->kind == 'c')
            code = bytes == 8 ? IST_C16 : IST_C8;
        else
            code = bytes == 8 ? IST_F8 : bytes == 4 ? IST_F4 : IST_F2;
    }
    return state->dtypes[code];
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

static int open_buffer(core_state *state, PyObject *object, source *s) {
    if (PyObject_GetBuffer(object, &s->view, PyBUF_FULL_RO) < 0)
        return -1;
    int ndim = s->view.ndim;
    if (ndim > IST_MAX_NDIM || ndim < 0) {
        PyErr_Format(PyExc_ValueError, "maximum supported dimension for an array is %d, found %d", IST_MAX_NDIM, ndim);
        return -1;
    }
    s->dtype = dtype_from_format(state, s->view.format, s->view.itemsize);
    if (s->dtype == NULL)
        return -1;
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
    SharedArrayObject *a = (SharedArrayObject *)object;
    if (hold_enter(a, HOLD_SHARED) < 0)
        return -1;
    s->pinned = (SharedArrayObject *)Py_NewRef(object);
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

static int assign_scalar(SharedArrayObject *owner, const strided *to, PyObject *value) {
    char item[16];
    if (dtype_set(to->dtype, item, value) < 0 || pin_for_writing(owner) < 0)
        return -1;
    fill_values(to, item);
    unpin(owner);
    return 0;
}

static int assign_values(SharedArrayObject *owner, const strided *to, const strided *from) {
    if (!castable(from->dtype, to->dtype))
        return raise_not_castable(from->dtype, to->dtype);
    Py_ssize_t strides[IST_MAX_NDIM];
    if (broadcast_strides(from, to->ndim, to->shape, strides) < 0 || pin_for_writing(owner) < 0)
        return -1;
    strided stretched = {from->dtype, from->data, to->ndim, to->shape, strides};
    int result = copy_values(to, &stretched);
    unpin(owner);
    return result;
}

static int assign_buffer(core_state *state, SharedArrayObject *owner, const strided *to, PyObject *value) {
    source s;
    if (source_open(state, value, &s) < 0)
        return -1;
    int result = assign_values(owner, to, &s.values);
    source_close(&s);
    return result;
}

static int assign_sequence(core_state *state, SharedArrayObject *owner, const strided *to, PyObject *value) {
    discovery found;
    if (discover(state, value, false, &found) < 0)
        return -1;
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
        result = assign_values(owner, to, &from);
    if (room != few)
        PyMem_RawFree(room);
    return result;
}

int assign(core_state *state, SharedArrayObject *owner, const strided *to, PyObject *value) {
    if (is_scalar(value))
        return assign_scalar(owner, to, value);
    if (PyObject_CheckBuffer(value))
        return assign_buffer(state, owner, to, value);
    return assign_sequence(state, owner, to, value);
}

/* ---- new arrays ------------------------------------------------------------------------------------------------------------------ */

SharedArrayObject *array_copy_of(core_state *state, const strided *from, DTypeObject *dtype) {
    if (!castable(from->dtype, dtype)) {
        raise_not_castable(from->dtype, dtype);
        return NULL;
    }
    SharedArrayObject *copy = array_create(state, dtype, from->ndim, from->shape, 0);
    if (copy == NULL)
        return NULL;
    strided to = strided_of(copy);
    if (copy_values(&to, from) < 0) {
        Py_DECREF((PyObject *)copy);
        return NULL;
    }
    ist_count_copied((size_t)copy->nbytes);
    return copy;
}

static SharedArrayObject *array_from_buffer(core_state *state, PyObject *object, DTypeObject *dtype) {
    source s;
    if (source_open(state, object, &s) < 0)
        return NULL;
    SharedArrayObject *copy = array_copy_of(state, &s.values, dtype != NULL ? dtype : state->dtypes[s.values.dtype->code]);
    source_close(&s);
    return copy;
}

SharedArrayObject *array_from_object(core_state *state, PyObject *object, DTypeObject *dtype) {
    if (!is_scalar(object) && PyObject_CheckBuffer(object))
        return array_from_buffer(state, object, dtype);
    discovery found;
    if (discover(state, object, dtype == NULL, &found) < 0)
        return NULL;
    if (dtype == NULL)
        dtype = found.dtype != NULL ? found.dtype : state->dtypes[IST_F8];
    SharedArrayObject *a = array_create(state, dtype, found.ndim, found.shape, 0);
    if (a == NULL)
        return NULL;
    if (fill_discovered(state, object, &found, dtype, a->data) < 0) { /* nobody else has it yet */
        Py_DECREF((PyObject *)a);
        return NULL;
    }
    ist_count_copied((size_t)a->nbytes);
    return a;
}
