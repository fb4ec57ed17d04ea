/* grow.c: growable arrays: max_length, grow(n), and handles that track the length of their segment.
 *
 * A handle's dims never change (README.md, A4): that is what keys, buffers and everything that drops the GIL rely on. So a tracking handle
 * does nothing with its elements itself. Each operation begins by making a view of what is there now, an ordinary view with dims of its
 * own, and is carried out by that: it sees one length from its beginning to its end, whoever grows the array meanwhile, and what it makes
 * (slices, buffers, exports) keeps that length.
 *
 * Relies on: ist_segment_length, which is bounded by what is reserved, so that a view made from it lies inside the mapping (shm/README.md, G2).
 *
 * Invariants (README.md, V1 to V4)
 *   a tracking handle is C-contiguous, begins at the segment's first byte, and its rows have at least one byte
 *   its own dims are right but for the first, which says nothing
 *   ARRAY_TRACKS is set at a handle's birth and never changes
 */
#include "array.h"

/* ---- the length, now ----------------------------------------------------------------------------------------------------------------- */

/* `a` is held. Bytes of a row: C order's first stride, as no axis but the first is empty. */
static Py_ssize_t rows_in(SharedArrayObject *a, size_t bytes) { return (Py_ssize_t)(bytes / (size_t)ARRAY_STRIDES(a)[0]); }
static Py_ssize_t rows_now(SharedArrayObject *a) { return rows_in(a, ist_segment_length(array_root(a)->segment)); }
static Py_ssize_t rows_reserved(SharedArrayObject *a) { return rows_in(a, ist_segment_size(array_root(a)->segment)); }

static Py_ssize_t held(SharedArrayObject *a, Py_ssize_t (*rows)(SharedArrayObject *)) {
    if (hold_enter(a, HOLD_SHARED) < 0)
        return -1;
    Py_ssize_t n = rows(a);
    hold_leave(a, HOLD_SHARED);
    return n;
}

Py_ssize_t tracked_length(SharedArrayObject *a) { return held(a, rows_now); }
Py_ssize_t tracked_max_length(SharedArrayObject *a) { return held(a, rows_reserved); }

/* `a` is held. A view of the first n rows; flags: ARRAY_READONLY, ARRAY_TRACKS. */
static SharedArrayObject *first_rows(SharedArrayObject *a, Py_ssize_t n, uint32_t flags) {
    Py_ssize_t shape[IST_MAX_NDIM];
    memcpy(shape, ARRAY_SHAPE(a), (size_t)a->ndim * sizeof *shape);
    shape[0] = n;
    return array_new_view(a, a->dtype, a->ndim, shape, ARRAY_STRIDES(a), a->data, flags);
}

static SharedArrayObject *rows_of_now(SharedArrayObject *a, uint32_t flags) {
    if (hold_enter(a, HOLD_SHARED) < 0) /* a release() in another thread can't take the segment away meanwhile */
        return NULL;
    SharedArrayObject *view = first_rows(a, rows_now(a), flags);
    hold_leave(a, HOLD_SHARED);
    return view;
}

SharedArrayObject *array_now(SharedArrayObject *a) { return rows_of_now(a, 0); }
SharedArrayObject *array_tracking_view(SharedArrayObject *a, uint32_t flags) { return rows_of_now(a, flags | ARRAY_TRACKS); }

PyObject *now_call(PyCFunction method, PyObject *self, PyObject *argument) {
    PyObject *now = (PyObject *)array_now((SharedArrayObject *)self);
    PyObject *result = now == NULL ? NULL : method(now, argument);
    Py_XDECREF(now);
    return result;
}

PyObject *now_call_keywords(keyword_method method, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *now = (PyObject *)array_now((SharedArrayObject *)self);
    PyObject *result = now == NULL ? NULL : method(now, args, nargs, kwnames);
    Py_XDECREF(now);
    return result;
}

PyObject *now_get(getter get, PyObject *self) {
    PyObject *now = (PyObject *)array_now((SharedArrayObject *)self);
    PyObject *result = now == NULL ? NULL : get(now, NULL);
    Py_XDECREF(now);
    return result;
}

/* ---- making ------------------------------------------------------------------------------------------------------------------------ */

/* Takes `segment`; its length is a whole number of rows, or what another process wrote there. */
static SharedArrayObject *new_tracking(core_state *state, ist_segment segment, DTypeObject *dtype, int ndim, const Py_ssize_t *shape,
                                       uint32_t flags) {
    Py_ssize_t dims[IST_MAX_NDIM];
    memcpy(dims, shape, (size_t)ndim * sizeof *dims);
    dims[0] = 1;
    const Py_ssize_t row = shape_bytes(ndim, dims, dtype->itemsize);
    dims[0] = row <= 0 ? 0 : (Py_ssize_t)(ist_segment_length(segment) / (size_t)row);
    return array_new_root(state, segment, dtype, ndim, dims, NULL, 0, flags | ARRAY_TRACKS);
}

SharedArrayObject *array_new_tracking(core_state *state, ist_segment segment, DTypeObject *dtype, int ndim, const Py_ssize_t *shape,
                                      uint32_t flags) {
    bool fits = ndim > 0 && ndim <= IST_MAX_NDIM && ist_segment_is_growable(segment);
    Py_ssize_t row = dtype->itemsize;
    for (int i = 1; fits && i < ndim; i++)
        fits = shape[i] > 0 && !__builtin_mul_overflow(row, shape[i], &row);
    if (fits)
        return new_tracking(state, segment, dtype, ndim, shape, flags);
    PyErr_Format(PyExc_ValueError, "not an array token: it describes no growable array of its segment of %zu bytes",
                 ist_segment_size(segment));
    ist_segment_release(segment);
    return NULL;
}

int parse_max_length(PyObject *object, int ndim, const Py_ssize_t *shape, Py_ssize_t *max) {
    if (!PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "max_length is None or a length along the first axis, an int, not %R", object);
        return -1;
    }
    *max = PyNumber_AsSsize_t(object, NULL); /* what doesn't fit is cut off */
    if (*max == -1 && PyErr_Occurred())
        return -1;
    if (*max == PY_SSIZE_T_MAX) {
        PyErr_Format(PyExc_ValueError, "max_length=%R is beyond what an array can have", object);
        return -1;
    }
    if (ndim == 0) {
        PyErr_Format(PyExc_ValueError, "max_length=%R, but an array of shape () has no first axis to grow along", object);
        return -1;
    }
    for (int i = 1; i < ndim; i++) {
        if (shape[i] == 0) {
            PyErr_Format(PyExc_ValueError, "max_length=%R, but axis %d has length 0: rows without bytes don't tell how many they are",
                         object, i);
            return -1;
        }
    }
    if (*max >= shape[0])
        return 0;
    PyErr_Format(PyExc_ValueError, "max_length=%R is less than the length %zd that the array has from the start", object, shape[0]);
    return -1;
}

SharedArrayObject *array_create_growable(core_state *state, DTypeObject *dtype, int ndim, const Py_ssize_t *shape, Py_ssize_t max,
                                         uint32_t flags) {
    Py_ssize_t most[IST_MAX_NDIM];
    memcpy(most, shape, (size_t)ndim * sizeof *most);
    most[0] = max;
    const Py_ssize_t reserved = shape_bytes(ndim, most, dtype->itemsize);
    if (reserved < 0)
        return NULL;
    ist_segment segment;
    int error = ist_segment_create_growable((size_t)shape_bytes(ndim, shape, dtype->itemsize), (size_t)reserved, flags, &segment);
    if (error != 0) {
        raise_error(state, error, "%zd bytes reserved for a growable SharedArray", reserved);
        return NULL;
    }
    ist_segment_set_creator(segment, (uint64_t)state->interpreter);
    return new_tracking(state, segment, dtype, ndim, shape, 0);
}

/* ---- methods and attributes -------------------------------------------------------------------------------------------------------- */

static const char *why_not(SharedArrayObject *a) {
    if (!array_tracks(a))
        return a->root != NULL ? "it is a view, which keeps its length (and only arrays made with max_length grow)"
                               : "it was made without max_length";
    if (array_flags(array_root(a)) & ARRAY_FROZEN)
        return "it is frozen";
    return array_readonly(a) ? "it is read-only" : NULL;
}

/* `a` is held as a writer. -1 with an exception. */
static int grow(SharedArrayObject *a, Py_ssize_t n, PyObject *length) {
    const char *why = why_not(a);
    if (why != NULL) {
        PyErr_Format(PyExc_ValueError, "can't grow to %R: %s", length, why);
        return -1;
    }
    const Py_ssize_t now = rows_now(a), max = rows_reserved(a);
    if (n > max) {
        PyErr_Format(PyExc_ValueError, "can't grow to %R: max_length is %zd", length, max);
        return -1;
    }
    if (n < now) {
        PyErr_Format(PyExc_ValueError, "can't grow to %R: the length is %zd already, and an array never shrinks", length, now);
        return -1;
    }
    int error = ist_segment_grow(array_root(a)->segment, (size_t)(n * ARRAY_STRIDES(a)[0]));
    if (error == 0)
        return 0;
    raise_error(state_of(a), error, "growing an array from %zd to %zd", now, n);
    return -1;
}

static PyObject *array_grow(PyObject *self, PyObject *length) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (!PyIndex_Check(length))
        return PyErr_Format(PyExc_TypeError, "grow() needs a length along the first axis, an int, not %R", length);
    Py_ssize_t n = PyNumber_AsSsize_t(length, NULL); /* what doesn't fit is cut off: beyond every max_length, or negative */
    if ((n == -1 && PyErr_Occurred()) || hold_enter(a, HOLD_WRITER) < 0)
        return NULL;
    int error = grow(a, n, length);
    hold_leave(a, HOLD_WRITER);
    return error < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *array_handle(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return (PyObject *)array_tracking_view(a, 0);
    return (PyObject *)array_new_view(a, a->dtype, a->ndim, ARRAY_SHAPE(a), ARRAY_STRIDES(a), a->data, 0);
}

static PyObject *get_max_length(PyObject *self, void *Py_UNUSED(closure)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_check(a) < 0)
        return NULL;
    if (!array_tracks(a))
        Py_RETURN_NONE;
    Py_ssize_t max = tracked_max_length(a);
    return max < 0 ? NULL : PyLong_FromSsize_t(max);
}

PyGetSetDef grow_attributes[] = {
    {"max_length", get_max_length, NULL,
     PyDoc_STR("How far grow() can go along the first axis; None if the array isn't growable, as no view is."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMethodDef grow_methods[] = {
    {"grow", array_grow, METH_O,
     PyDoc_STR("grow($self, length, /)\n--\n\nMakes an array that was made with max_length that long along its first axis, in place.\n\n"
               "Everybody who has the array sees the new length, in whatever interpreter and process; new elements are zero bytes. Views,\n"
               "memoryviews and ndarrays keep the length they had. Of several at once the largest wins. ValueError for less than the\n"
               "present length, more than max_length, and for views, read-only and frozen arrays.")},
    {"_handle", array_handle, METH_NOARGS,
     PyDoc_STR("_handle($self, /)\n--\n\nAnother handle in all respects like this one: unlike a[...] growable if it is.")},
    {NULL, NULL, 0, NULL},
};
