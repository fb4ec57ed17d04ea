/* exchange.c: <isthmus/exchange.h>, both ways: SharedArray.__isthmus_segment__(), and the adoption of what other objects offer by that name.
 *
 * Out: the capsule owns a malloc'd block with the structure and all that it points to, and one counted reference of the segment.
 * In: a handle of this process's libisthmus is checked against its table and becomes a root; memory behind functions of somebody else's is
 * wrapped, and its last owner, wherever that is, calls release.
 *
 * Invariants (README.md, E1 and E4)
 *   what a structure says is checked before it is retained; a copy that was retained is released once, on every path
 *   nothing that a structure points to is used after the capsule that it came in
 */
#include "array.h"

#include <stdlib.h>

/* ---- out -------------------------------------------------------------------------------------------------------------------------- */

typedef struct export_block {
    ist_exchange x;
    int64_t dims[]; /* shape, strides; behind them the texts */
} export_block;

static void retain_segment(const ist_exchange *x) { ist_segment_retain(x->segment); }
static void release_segment(const ist_exchange *x) { ist_segment_release(x->segment); }

static void capsule_end(PyObject *capsule) {
    export_block *block = PyCapsule_IsValid(capsule, IST_EXCHANGE_CAPSULE) ? PyCapsule_GetPointer(capsule, IST_EXCHANGE_CAPSULE) : NULL;
    if (block == NULL)
        return; /* renamed by somebody who knows why */
    release_segment(&block->x);
    free(block);
}

/* `a` is held. format NULL: there is none. */
static export_block *describe(SharedArrayObject *a, const char *format) {
    SharedArrayObject *root = array_root(a);
    const size_t dims = 2 * (size_t)a->ndim, spec = strlen(a->dtype->spec) + 1, form = format == NULL ? 0 : strlen(format) + 1;
    export_block *block = malloc(sizeof *block + dims * sizeof *block->dims + spec + form);
    if (block == NULL)
        return NULL;
    for (size_t i = 0; i < dims; i++)
        block->dims[i] = a->dims[i];
    char *text = (char *)(block->dims + dims);
    memcpy(text, a->dtype->spec, spec);
    if (format != NULL)
        memcpy(text + spec, format, form);
    const bool frozen = (array_flags(root) & ARRAY_FROZEN) != 0;
    block->x = (ist_exchange){
        .version = IST_EXCHANGE_VERSION,
        .bytes = sizeof block->x,
        .flags = (array_readonly(a) ? IST_EXCHANGE_READONLY : 0) | (frozen ? IST_EXCHANGE_FROZEN : 0),
        .epoch = root->epoch,
        .segment = root->segment,
        .data = root->start,
        .size = ist_segment_size(root->segment),
        .offset = (size_t)(a->data - root->start),
        .itemsize = (size_t)a->dtype->itemsize,
        .dtype = text,
        .format = format == NULL ? NULL : text + spec,
        .shape = block->dims,
        .strides = block->dims + a->ndim,
        .ndim = a->ndim,
        .retain = retain_segment,
        .release = release_segment,
    };
    ist_segment_retain_inline(root->segment);
    return block;
}

static PyObject *array_exchange(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return now_call(array_exchange, self, NULL);
    if (array_check(a) < 0)
        return NULL;
    const char *format = array_format(a);
    if (format == NULL && !PyErr_ExceptionMatches(PyExc_ValueError))
        return NULL;
    PyErr_Clear();
    if (hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    export_block *block = describe(a, format);
    hold_leave(a, HOLD_SHARED);
    if (block == NULL)
        return PyErr_NoMemory();
    PyObject *capsule = PyCapsule_New(block, IST_EXCHANGE_CAPSULE, capsule_end);
    if (capsule == NULL) {
        release_segment(&block->x);
        free(block);
    }
    return capsule;
}

PyMethodDef exchange_methods[] = {
    {IST_EXCHANGE_METHOD, array_exchange, METH_NOARGS,
     PyDoc_STR("__isthmus_segment__($self, /)\n--\n\n"
               "A capsule named \"isthmus_segment\" with the structure of <isthmus/exchange.h>: segment, elements, shape and strides, and\n"
               "functions that count owners. By it another extension uses this memory without linking to libisthmus, and without the GIL.\n"
               "Ownership: the capsule is one owner until it is destroyed; freeze() raises meanwhile. ValueError never; MemoryError.")},
    {NULL, NULL, 0, NULL},
};

/* ---- in --------------------------------------------------------------------------------------------------------------------------- */

/* What a structure says of its elements, copied and checked. */
typedef struct offer {
    const ist_exchange *x; /* in the capsule */
    DTypeObject *dtype; /* owned */
    Py_ssize_t offset, shape[IST_MAX_NDIM], strides[IST_MAX_NDIM];
} offer;

static int impossible(PyObject *object, const char *what) {
    PyErr_Format(PyExc_BufferError, IST_EXCHANGE_METHOD "() of a %.200s makes no sense: %s", Py_TYPE(object)->tp_name, what);
    return -1;
}

static const ist_exchange *open_capsule(PyObject *object, PyObject *capsule) {
    if (!PyCapsule_IsValid(capsule, IST_EXCHANGE_CAPSULE)) {
        PyErr_Format(PyExc_TypeError, IST_EXCHANGE_METHOD "() of a %.200s must return a capsule named \"" IST_EXCHANGE_CAPSULE "\", not %R",
                     Py_TYPE(object)->tp_name, capsule);
        return NULL;
    }
    const ist_exchange *x = PyCapsule_GetPointer(capsule, IST_EXCHANGE_CAPSULE);
    if (x != NULL && !ist_exchange_readable(x)) {
        PyErr_Format(PyExc_BufferError,
                     IST_EXCHANGE_METHOD "() of a %.200s has version %u.%u in %u bytes; this isthmus reads %u.%u in %zu and more",
                     Py_TYPE(object)->tp_name, x->version >> 16, x->version & 0xffff, x->bytes, IST_EXCHANGE_VERSION >> 16,
                     IST_EXCHANGE_VERSION & 0xffff, sizeof *x);
        return NULL;
    }
    return x;
}

/* New reference. */
static DTypeObject *offered_dtype(core_state *state, PyObject *object, const ist_exchange *x) {
    if (x->dtype == NULL && x->format == NULL) {
        impossible(object, "it doesn't say what its elements are");
        return NULL;
    }
    if (x->itemsize == 0 || x->itemsize > INT32_MAX) {
        impossible(object, "elements of a size that can't be");
        return NULL;
    }
    DTypeObject *dtype = x->dtype != NULL ? dtype_from_spec(state, x->dtype, (Py_ssize_t)strlen(x->dtype))
                                          : dtype_from_format(state, x->format, (Py_ssize_t)x->itemsize);
    if (dtype != NULL && ((size_t)dtype->itemsize != x->itemsize || dtype->code == IST_SUBARRAY)) {
        PyErr_Format(PyExc_BufferError, IST_EXCHANGE_METHOD "() of a %.200s makes no sense: elements '%s' of %zu bytes",
                     Py_TYPE(object)->tp_name, x->dtype != NULL ? x->dtype : x->format, x->itemsize);
        Py_CLEAR(dtype);
    }
    return dtype;
}

static int check_offer(core_state *state, PyObject *object, offer *o) {
    const ist_exchange *x = o->x;
    if (x->retain == NULL || x->release == NULL)
        return impossible(object, "it has no retain and release");
    if (x->ndim < 0 || x->ndim > IST_MAX_NDIM || (x->shape == NULL && x->ndim > 0))
        return impossible(object, "a shape that can't be");
    if (x->size > PY_SSIZE_T_MAX || x->offset > x->size || (x->data == NULL && x->size > 0))
        return impossible(object, "memory that can't be");
    if (x->segment.slot != NULL && x->epoch != ist_epoch()) {
        PyErr_Format(state->DetachedError, "this %.200s has memory of the parent process, which a fork couldn't make this one's",
                     Py_TYPE(object)->tp_name);
        return -1;
    }
    o->offset = (Py_ssize_t)x->offset;
    for (int i = 0; i < x->ndim; i++)
        if ((o->shape[i] = (Py_ssize_t)x->shape[i]) < 0)
            return impossible(object, "a shape that can't be");
    if ((o->dtype = offered_dtype(state, object, x)) == NULL || shape_bytes(x->ndim, o->shape, o->dtype->itemsize) < 0)
        return -1;
    if (x->strides == NULL)
        fill_c_strides(x->ndim, o->shape, o->dtype->itemsize, o->strides);
    for (int i = 0; x->strides != NULL && i < x->ndim; i++)
        o->strides[i] = (Py_ssize_t)x->strides[i];
    if (!array_fits(x->size, o->dtype->itemsize, x->ndim, o->shape, o->strides, o->offset))
        return impossible(object, "its elements don't lie inside its memory");
    return 0;
}

/* The last owner of memory that isn't this library's. */
static void let_go(void *context, void *Py_UNUSED(data), size_t Py_UNUSED(size)) {
    ist_exchange *kept = context;
    kept->release(kept);
    free(kept);
}

static int wrap(const ist_exchange *x, ist_segment *out) {
    static const char nothing[1]; /* an address for what has no elements */
    ist_exchange *kept = malloc(sizeof *kept);
    if (kept == NULL)
        return -ENOMEM;
    *kept = *x;
    kept->bytes = sizeof *kept;
    kept->dtype = kept->format = NULL; /* these are the capsule's */
    kept->shape = kept->strides = NULL;
    kept->retain(kept);
    int error = ist_segment_wrap(x->data == NULL ? (void *)(uintptr_t)nothing : x->data, x->size, let_go, kept,
                                 x->flags & (IST_EXCHANGE_READONLY | IST_EXCHANGE_FROZEN) ? IST_READONLY : 0, out);
    if (error != 0) {
        kept->release(kept);
        free(kept);
    }
    return error;
}

static SharedArrayObject *adopt(core_state *state, PyObject *object, const offer *o) {
    const ist_exchange *x = o->x;
    ist_segment segment;
    int error = x->segment.slot == NULL ? -EINVAL : ist_segment_acquire_handle(x->segment, &segment);
    if (error == 0 && !array_fits(ist_segment_size(segment), o->dtype->itemsize, x->ndim, o->shape, o->strides, o->offset)) {
        ist_segment_release_inline(segment);
        impossible(object, "its elements don't lie inside its segment");
        return NULL;
    }
    if (error == -EINVAL) /* none of this library's: of another copy of it, or of something else */
        error = wrap(x, &segment);
    if (error != 0)
        return (SharedArrayObject *)raise_error(state, error, "the segment of a %.200s", Py_TYPE(object)->tp_name);
    return array_new_root(state, segment, o->dtype, x->ndim, o->shape, o->strides, o->offset,
                          x->flags & IST_EXCHANGE_READONLY ? ARRAY_READONLY : 0);
}

/* The method of an object that could have one; new reference, NULL without an exception if it has none. */
static int find_method(PyObject *object, PyObject **method) {
    *method = NULL;
    if (PyList_CheckExact(object) || PyTuple_CheckExact(object) || PyMemoryView_Check(object) || PyLong_Check(object) ||
        PyFloat_CheckExact(object) || PyUnicode_Check(object) || PyBytes_CheckExact(object) || PyType_Check(object))
        return 0;
#if PY_VERSION_HEX >= 0x030d0000
    return PyObject_GetOptionalAttrString(object, IST_EXCHANGE_METHOD, method);
#else
    *method = PyObject_GetAttrString(object, IST_EXCHANGE_METHOD);
    if (*method != NULL)
        return 1;
    if (!PyErr_ExceptionMatches(PyExc_AttributeError))
        return -1;
    PyErr_Clear();
    return 0;
#endif
}

int exchange_adopt(core_state *state, PyObject *object, SharedArrayObject **out) {
    PyObject *method;
    *out = NULL;
    int found = find_method(object, &method);
    if (found <= 0)
        return found;
    PyObject *capsule = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    offer o = {.x = capsule == NULL ? NULL : open_capsule(object, capsule)};
    if (o.x != NULL && check_offer(state, object, &o) == 0)
        *out = adopt(state, object, &o);
    Py_XDECREF((PyObject *)o.dtype);
    Py_XDECREF(capsule);
    return *out == NULL ? -1 : 1;
}
