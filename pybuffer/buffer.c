/* buffer.c: the buffer protocol (PEP 3118): memoryview(a), numpy.asarray(a) and everybody else who asks for memory.
 *
 * Invariants
 *   One export is one unit of the root's hold, a writer's unless the buffer is read-only; view->internal says which, so that it is given
 *   back as it was taken, whatever the handle has become meanwhile.
 *   The buffer's shape and strides are the handle's own: the consumer owns the handle (view->obj), and a handle's dims never change.
 *   No atomic operation and no line shared with another interpreter is touched here (under a GIL).
 */
#include "array.h"

static char writer; /* its address, in view->internal, means HOLD_WRITER */

static int refuse(const char *why) {
    PyErr_SetString(PyExc_BufferError, why);
    return -1;
}

/* What memoryview refuses, for the same reasons. */
static int check_request(SharedArrayObject *a, int flags) {
    uint32_t has = array_flags(a);
    if ((flags & PyBUF_C_CONTIGUOUS) == PyBUF_C_CONTIGUOUS && !(has & ARRAY_C_CONTIGUOUS))
        return refuse("SharedArray: the memory is not C-contiguous");
    if ((flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS && !(has & ARRAY_F_CONTIGUOUS))
        return refuse("SharedArray: the memory is not Fortran-contiguous");
    if ((flags & PyBUF_ANY_CONTIGUOUS) == PyBUF_ANY_CONTIGUOUS && !(has & (ARRAY_C_CONTIGUOUS | ARRAY_F_CONTIGUOUS)))
        return refuse("SharedArray: the memory is not contiguous");
    if ((flags & PyBUF_STRIDES) != PyBUF_STRIDES && !(has & ARRAY_C_CONTIGUOUS))
        return refuse("SharedArray: a buffer without strides needs C-contiguous memory");
    if ((flags & PyBUF_ND) != PyBUF_ND && (flags & PyBUF_FORMAT))
        return refuse("SharedArray: a buffer without a shape is plain bytes and can't have a format");
    return 0;
}

/* To what the elements are aligned, where they are: the greatest power of two, up to 16, that their addresses have in common. */
static Py_ssize_t alignment_of(SharedArrayObject *a) {
    uintptr_t bits = (uintptr_t)a->data | 16;
    for (int i = 0; i < a->ndim; i++) {
        if (ARRAY_SHAPE(a)[i] == 0)
            return 16;
        if (ARRAY_SHAPE(a)[i] > 1)
            bits |= (uintptr_t)ARRAY_STRIDES(a)[i];
    }
    /* one structure alone, too: a reader pads it to its alignment otherwise */
    bits |= a->dtype->code == IST_STRUCT ? (uintptr_t)a->dtype->itemsize : 0;
    return (Py_ssize_t)(bits & -bits);
}

const char *array_format(SharedArrayObject *a) { return dtype_format(a->dtype, alignment_of(a)); }

static void fill_view(SharedArrayObject *a, Py_buffer *view, int flags, bool readonly, const char *format) {
    view->buf = a->data;
    view->len = a->nbytes;
    view->itemsize = a->dtype->itemsize;
    view->readonly = readonly;
    view->format = (char *)(uintptr_t)format; /* the dtype's, which lives as long as the handle */
    bool shaped = (flags & PyBUF_ND) == PyBUF_ND;
    view->ndim = shaped ? a->ndim : 1;
    view->shape = shaped && a->ndim > 0 ? ARRAY_SHAPE(a) : NULL;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES && a->ndim > 0 ? ARRAY_STRIDES(a) : NULL;
    view->suboffsets = NULL;
}

static int getbuffer_now(SharedArrayObject *a, Py_buffer *view, int flags) {
    PyObject *now = (PyObject *)array_now(a);
    int result = now == NULL ? -1 : array_getbuffer(now, view, flags); /* which owns it then: the buffer's dims are that view's */
    Py_XDECREF(now);
    return result;
}

int array_getbuffer(PyObject *self, Py_buffer *view, int flags) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    view->obj = NULL;
    if (array_tracks(a))
        return getbuffer_now(a, view, flags);
    /* PyBUF_FULL and PyBUF_FULL_RO, what memoryview asks for, can be met by every array */
    if ((flags | PyBUF_WRITABLE) != PyBUF_FULL && check_request(a, flags) < 0)
        return -1;
    const char *format = NULL;
    if (flags & PyBUF_FORMAT) {
        const DTypeObject *d = a->dtype;
        if (d->plain != NULL && a->ndim == 1 && (((uintptr_t)a->data | (uintptr_t)a->dims[1]) & (uintptr_t)(d->alignment - 1)) == 0)
            format = d->plain; /* most of them */
        else if (array_check(a) < 0 || (format = array_format(a)) == NULL)
            return -1;
    }
    bool readonly = array_readonly(a);
    uint64_t unit = readonly ? HOLD_SHARED : HOLD_WRITER;
    if (hold_enter(a, unit) < 0)
        return -1;
#ifdef Py_GIL_DISABLED
    if (!readonly && array_readonly(a)) { /* frozen before we entered: what we hold is more than we may have */
        hold_leave(a, HOLD_WRITER);
        if (hold_enter(a, unit = HOLD_SHARED) < 0)
            return -1;
        readonly = true;
    }
#endif
    if (readonly && (flags & PyBUF_WRITABLE)) {
        hold_leave(a, unit);
        return refuse("SharedArray: the underlying buffer is read-only");
    }
    block_count_export(array_root(a), 1);
    fill_view(a, view, flags, readonly, format);
    view->internal = readonly ? NULL : &writer;
    view->obj = Py_NewRef(self);
    return 0;
}

void array_releasebuffer(PyObject *self, Py_buffer *view) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    block_count_export(array_root(a), -1);
    hold_leave(a, view->internal == &writer ? HOLD_WRITER : HOLD_SHARED);
}
