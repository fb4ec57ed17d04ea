/* asarray.c: isthmus.asarray and is_shared: is this somebody's memory, or one of our segments?
 *
 * Memory is ours if its owner chain (memoryview.obj, .base as ndarrays have it) ends in a SharedArray inside whose segment it lies, or if it
 * lies in a live segment: an ndarray's that was allocated under numpy_allocator(), for one. The buffer is held meanwhile, so that what was
 * found can't be freed before it has a new owner.
 * Invariant: what is shared from a read-only buffer is read-only.
 */
#include "array.h"

#define LONGEST_CHAIN 64

/* ---- finding the segment ------------------------------------------------------------------------------------------------------------ */

/* One step towards the owner of a buffer's memory; new reference, or NULL without an exception. Whatever a `base` says, the memory is
 * compared with the segment in the end. */
static PyObject *base_of(PyObject *object) {
    if (PyMemoryView_Check(object))
        return Py_XNewRef(PyMemoryView_GET_BUFFER(object)->obj);
    PyObject *base = PyObject_GetAttrString(object, "base"); /* ndarrays and their like */
    if (base == NULL)
        PyErr_Clear();
    return base;
}

static SharedArrayObject *owner_of(core_state *state, PyObject *object) {
    PyObject *at = Py_NewRef(object);
    for (int i = 0; i < LONGEST_CHAIN && at != NULL && at != Py_None; i++) {
        if (Py_IS_TYPE(at, state->array_type))
            return (SharedArrayObject *)at;
        PyObject *base = base_of(at);
        Py_DECREF(at);
        at = base;
    }
    Py_XDECREF(at);
    return NULL;
}

static bool lies_in(ist_segment segment, const char *start, const strided *s, Py_ssize_t *offset) {
    uintptr_t begin = (uintptr_t)start, at = (uintptr_t)s->data;
    size_t size = ist_segment_size(segment);
    if (at < begin || at - begin > size)
        return false;
    *offset = (Py_ssize_t)(at - begin);
    return array_fits(size, s->dtype->itemsize, s->ndim, s->shape, s->strides, *offset);
}

/* 1 and *out (NULL with an exception), or 0: not this one's. */
static int share_with_owner(core_state *state, SharedArrayObject *owner, const source *s, PyObject **out) {
    SharedArrayObject *root = array_root(owner);
    if (root->epoch != ist_epoch())
        return 0;
    /* The buffer at hand goes back to an export of this owner, which keeps the segment, be the handle released or not. Should the chain
     * have lied, the owner's own hold decides. */
    bool usable = array_usable(owner);
    if (usable && hold_enter(owner, HOLD_SHARED) < 0) {
        PyErr_Clear();
        return 0;
    }
    Py_ssize_t offset;
    int result = 0;
    DTypeObject *dtype = s->values.dtype;
    uint32_t flags = s->readonly ? ARRAY_READONLY : 0;
    if (root->segment.slot != NULL && lies_in(root->segment, root->start, &s->values, &offset)) {
        result = 1;
        if (usable) {
            *out = (PyObject *)array_new_view(owner, dtype, s->values.ndim, s->values.shape, s->values.strides, s->values.data, flags);
        } else {
            ist_segment_retain_inline(root->segment);
            *out =
                (PyObject *)array_new_root(state, root->segment, dtype, s->values.ndim, s->values.shape, s->values.strides, offset, flags);
        }
    }
    if (usable)
        hold_leave(owner, HOLD_SHARED);
    return result;
}

/* The segment where the memory at the end of the owner chain begins. */
static bool acquire_last_owners(PyObject *object, ist_segment *out) {
    PyObject *at = Py_NewRef(object);
    for (int i = 0; i < LONGEST_CHAIN; i++) {
        PyObject *base = base_of(at);
        if (base == NULL || base == Py_None) {
            Py_XDECREF(base);
            break;
        }
        Py_SETREF(at, base);
    }
    Py_buffer view;
    bool found = false;
    if (PyObject_GetBuffer(at, &view, PyBUF_STRIDED_RO) == 0) {
        found = ist_segment_acquire_address(view.buf, out) == 0;
        PyBuffer_Release(&view);
    } else
        PyErr_Clear();
    Py_DECREF(at);
    return found;
}

/* 1 and *out (NULL with an exception), or 0: this memory is no segment's. */
static int share_by_address(core_state *state, PyObject *object, const source *s, PyObject **out) {
    const char *low = s->values.data;
    bool empty = false;
    for (int i = 0; i < s->values.ndim; i++) {
        empty |= s->values.shape[i] == 0;
        if (s->values.shape[i] > 0 && s->values.strides[i] < 0)
            low += (s->values.shape[i] - 1) * s->values.strides[i];
    }
    ist_segment segment;
    /* what has no elements may point behind its memory, where a neighbour begins */
    if (empty ? !acquire_last_owners(object, &segment) : ist_segment_at_address(low, &segment) != 0)
        return 0;
    Py_ssize_t offset;
    if (!lies_in(segment, ist_segment_data(segment), &s->values, &offset)) {
        ist_segment_release_inline(segment);
        return 0;
    }
    *out = (PyObject *)array_new_root(state, segment, s->values.dtype, s->values.ndim, s->values.shape, s->values.strides, offset,
                                      s->readonly ? ARRAY_READONLY : 0);
    return 1;
}

static int share(core_state *state, PyObject *object, const source *s, PyObject **out) {
    if (s->straightened != NULL)
        return 0;
    SharedArrayObject *owner = owner_of(state, object);
    int result = owner == NULL ? 0 : share_with_owner(state, owner, s, out);
    Py_XDECREF((PyObject *)owner);
    return result != 0 ? result : share_by_address(state, object, s, out);
}

/* ---- asarray ----------------------------------------------------------------------------------------------------------------------- */

enum { COPY_IF_NEEDED, COPY_ALWAYS, COPY_NEVER };

static int parse_copy(PyObject *copy) {
    if (copy == NULL || copy == Py_None)
        return COPY_IF_NEEDED;
    int truth = PyObject_IsTrue(copy);
    return truth < 0 ? -1 : truth ? COPY_ALWAYS : COPY_NEVER;
}

static PyObject *refuse_dtype(const DTypeObject *from, const DTypeObject *to) {
    PyErr_Format(PyExc_ValueError, "copy=False, but %S elements as %S would be a copy", from, to);
    return NULL;
}

static PyObject *as_other_memory(core_state *state, PyObject *object, DTypeObject *dtype, int copy) {
    source s;
    if (source_open(state, object, &s) < 0)
        return NULL;
    PyObject *result = NULL;
    bool same = dtype == NULL || dtype_same(dtype, s.values.dtype);
    if (copy == COPY_NEVER && !same)
        refuse_dtype(s.values.dtype, dtype);
    else if (copy != COPY_ALWAYS && same && share(state, object, &s, &result) != 0)
        ; /* result, or its exception */
    else if (copy == COPY_NEVER)
        PyErr_Format(PyExc_ValueError, "copy=False, but the memory of this %.200s belongs to no segment: sharing it would copy",
                     Py_TYPE(object)->tp_name);
    else
        result = (PyObject *)array_from_object(state, object, dtype);
    source_close(&s);
    return result;
}

static PyObject *as_array(core_state *state, PyObject *object, DTypeObject *dtype, int copy) {
    SharedArrayObject *adopted = NULL;
    if (!Py_IS_TYPE(object, state->array_type) && exchange_adopt(state, object, &adopted) < 0)
        return NULL;
    if (adopted != NULL) {
        PyObject *result = as_array(state, (PyObject *)adopted, dtype, copy);
        Py_DECREF((PyObject *)adopted);
        return result;
    }
    if (Py_IS_TYPE(object, state->array_type)) {
        SharedArrayObject *a = (SharedArrayObject *)object;
        if (array_check(a) < 0)
            return NULL;
        bool same = dtype == NULL || dtype_same(dtype, a->dtype);
        if (same && copy != COPY_ALWAYS)
            return Py_NewRef(object);
        if (copy == COPY_NEVER)
            return refuse_dtype(a->dtype, dtype);
    } else if (!is_scalar(dtype, object) && PyObject_CheckBuffer(object)) {
        return as_other_memory(state, object, dtype, copy);
    } else if (copy == COPY_NEVER) {
        PyErr_Format(PyExc_ValueError, "copy=False, but %.200s has no buffer to share: it would be a copy", Py_TYPE(object)->tp_name);
        return NULL;
    }
    return (PyObject *)array_from_object(state, object, dtype);
}

static PyObject *core_asarray(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"obj", "dtype", "copy"};
    static const signature parameters = {"asarray", 3, 2, 1, names};
    core_state *state = state_of_module(module);
    PyObject *given[3];
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    int copy = parse_copy(given[2]);
    if (copy < 0)
        return NULL;
    DTypeObject *dtype = NULL;
    if (given[1] != NULL && given[1] != Py_None && (dtype = dtype_from_object(state, given[1])) == NULL)
        return NULL;
    PyObject *result = dtype != NULL && refuse_subarray(dtype) < 0 ? NULL : as_array(state, given[0], dtype, copy);
    Py_XDECREF((PyObject *)dtype);
    return result;
}

static PyObject *core_is_shared(PyObject *module, PyObject *object) {
    core_state *state = state_of_module(module);
    if (Py_IS_TYPE(object, state->array_type))
        return PyBool_FromLong(array_usable((SharedArrayObject *)object));
    source s;
    SharedArrayObject *adopted;
    if (exchange_adopt(state, object, &adopted) < 0) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError))
            return NULL;
        PyErr_Clear(); /* asarray would raise it */
        Py_RETURN_FALSE;
    }
    if (adopted != NULL) {
        Py_DECREF((PyObject *)adopted);
        Py_RETURN_TRUE;
    }
    if (!PyObject_CheckBuffer(object))
        Py_RETURN_FALSE;
    if (source_open(state, object, &s) < 0) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError))
            return NULL;
        PyErr_Clear(); /* elements we don't have */
        Py_RETURN_FALSE;
    }
    PyObject *shared = NULL;
    int found = share(state, object, &s, &shared);
    source_close(&s);
    if (found != 0 && shared == NULL)
        return NULL;
    Py_XDECREF(shared);
    return PyBool_FromLong(found);
}

PyMethodDef asarray_functions[] = {
    {"asarray", KEYWORDS(core_asarray),
     PyDoc_STR(
         "asarray($module, /, obj, dtype=None, *, copy=None)\n--\n\n"
         "obj as a SharedArray: itself if it is one; without a copy if it is a memoryview, ndarray or other buffer of a segment's\n"
         "memory (read-only if that is), or has __isthmus_segment__(); else a copy. copy=True always copies; copy=False raises ValueError, saying why, instead of\n"
         "copying. A dtype is cast to as array() does.")},
    {"is_shared", core_is_shared, METH_O,
     PyDoc_STR(
         "is_shared($module, obj, /)\n--\n\nWhether asarray(obj, copy=False) would work: obj is a SharedArray, or its memory is a segment's.")},
    {NULL, NULL, 0, NULL},
};
