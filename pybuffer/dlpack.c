/* dlpack.c: DLPack, both ways: SharedArray.__dlpack__ and __dlpack_device__, isthmus.from_dlpack.
 *
 * Out: without a copy. What is in the capsule is malloc'd and owns one counted reference of the segment; its deleter is plain C, so whoever has
 * it may call it in any thread, with or without a GIL, after the end of the interpreter.
 * In: by a copy. A producer's deleter may need its interpreter's GIL, which the last owner of a segment needn't have.
 *
 * Invariants (README.md, E1 and E2)
 *   an export owns exactly one reference of the segment, from its making to the one call of its deleter
 *   the capsule's destructor calls the deleter <=> nobody has renamed the capsule
 *   what came in is bounded and checked before the capsule is renamed; from then on its deleter is called on every path, once
 */
#include "dlpack.h"
#include "array.h"

#include <stdlib.h>

#define PLAIN "dltensor"
#define VERSIONED "dltensor_versioned"

/* ---- out: the tensor ----------------------------------------------------------------------------------------------------------------- */

typedef struct dl_export {
    union {
        dl_managed plain;
        dl_managed_versioned versioned;
    } as;
    ist_segment segment; /* one counted reference */
    int64_t dims[];      /* shape, then strides */
} dl_export;

static void export_end(dl_export *e) {
    ist_segment_release(e->segment);
    free(e);
}

static void delete_plain(dl_managed *self) { export_end(self->ctx); }
static void delete_versioned(dl_managed_versioned *self) { export_end(self->ctx); }

static void capsule_end(PyObject *capsule) {
    if (PyCapsule_IsValid(capsule, VERSIONED))
        delete_versioned(PyCapsule_GetPointer(capsule, VERSIONED));
    else if (PyCapsule_IsValid(capsule, PLAIN))
        delete_plain(PyCapsule_GetPointer(capsule, PLAIN));
}

static int raise_no_type(const DTypeObject *dtype) {
    PyErr_Format(PyExc_BufferError,
                 "DLPack has bool, integers, floats of 16 to 64 and complex numbers of 64 and 128 bits in native byte order, not '%s'",
                 dtype->str);
    return -1;
}

static int type_of(const DTypeObject *dtype, dl_type *out) {
    if (!dtype_is_native(dtype))
        return raise_no_type(dtype);
    const uint8_t code = dtype->kind == 'b'   ? DL_BOOL
                         : dtype->kind == 'i' ? DL_INT
                         : dtype->kind == 'u' ? DL_UINT
                         : dtype->kind == 'f' ? DL_FLOAT
                                              : DL_COMPLEX;
    *out = (dl_type){code, (uint8_t)(8 * dtype->itemsize), 1};
    return 0;
}

/* In elements; an axis that is never stepped along gets what it has in C order. -1 with BufferError. */
static int fill_dims(SharedArrayObject *a, int64_t *dims) {
    const Py_ssize_t itemsize = a->dtype->itemsize;
    int64_t c = 1;
    for (int i = a->ndim - 1; i >= 0; i--) {
        const Py_ssize_t length = ARRAY_SHAPE(a)[i], stride = ARRAY_STRIDES(a)[i];
        const bool used = length > 1 && a->nbytes > 0;
        if (used && stride % itemsize != 0) {
            PyErr_Format(PyExc_BufferError, "DLPack has strides in elements: %zd bytes on axis %d aren't a multiple of %zd", stride, i,
                         itemsize);
            return -1;
        }
        dims[i] = length;
        dims[a->ndim + i] = used ? stride / itemsize : c;
        c *= length > 1 ? length : 1;
    }
    return 0;
}

/* What a caller asked for. */
typedef struct request {
    bool versioned;
    uint32_t minor; /* of the version it gets */
    bool copy;
} request;

/* `a` is held. `flags`: the versioned one's. */
static dl_export *export_new(SharedArrayObject *a, const request *r, dl_type type, uint64_t flags) {
    dl_export *e = malloc(sizeof *e + 2 * (size_t)a->ndim * sizeof *e->dims);
    if (e == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (fill_dims(a, e->dims) < 0) {
        free(e);
        return NULL;
    }
    const dl_tensor tensor = {
        .data = a->nbytes == 0 ? NULL : a->data, /* as the specification wants it */
        .device = {DL_CPU, 0},
        .ndim = a->ndim,
        .type = type,
        .shape = e->dims,
        .strides = e->dims + a->ndim,
    };
    if (r->versioned)
        e->as.versioned = (dl_managed_versioned){{DL_MAJOR, r->minor}, e, delete_versioned, flags, tensor};
    else
        e->as.plain = (dl_managed){tensor, e, delete_plain};
    e->segment = array_root(a)->segment;
    ist_segment_retain_inline(e->segment);
    return e;
}

static PyObject *capsule_of(SharedArrayObject *a, const request *r, dl_type type, uint64_t flags) {
    dl_export *e = export_new(a, r, type, flags);
    if (e == NULL)
        return NULL;
    PyObject *capsule = PyCapsule_New(&e->as, r->versioned ? VERSIONED : PLAIN, capsule_end);
    if (capsule == NULL)
        export_end(e);
    return capsule;
}

/* A writable export is made while a writer's unit stands, so that a freeze comes before it, and is seen, or finds the reference. */
static PyObject *export_memory(SharedArrayObject *a, const request *r, dl_type type) {
    bool readonly = array_readonly(a);
    uint64_t unit = readonly ? HOLD_SHARED : HOLD_WRITER;
    if (hold_enter(a, unit) < 0)
        return NULL;
    readonly = array_readonly(a);
    PyObject *capsule = NULL;
    if (readonly && !r->versioned)
        PyErr_SetString(PyExc_BufferError, "the array is read-only, which an unversioned DLPack can't say: ask with max_version=(1, 0) or "
                                           "later, or copy=True");
    else
        capsule = capsule_of(a, r, type, readonly ? DL_READ_ONLY : 0);
    hold_leave(a, unit);
    return capsule;
}

static PyObject *export_copy(SharedArrayObject *a, const request *r, dl_type type) {
    if (hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    strided from = strided_of(a);
    SharedArrayObject *copy = array_copy_of(state_of(a), &from, a->dtype);
    hold_leave(a, HOLD_SHARED);
    PyObject *capsule = copy == NULL ? NULL : capsule_of(copy, r, type, DL_IS_COPIED);
    Py_XDECREF((PyObject *)copy);
    return capsule;
}

/* ---- out: the request ---------------------------------------------------------------------------------------------------------------- */

/* A tuple of two ints, which fit in a long. */
static int parse_pair(PyObject *object, const char *name, long out[2]) {
    if (PyTuple_Check(object) && PyTuple_GET_SIZE(object) == 2) {
        for (int i = 0; i < 2; i++) {
            out[i] = PyLong_AsLong(PyTuple_GET_ITEM(object, i));
            if (out[i] == -1 && PyErr_Occurred())
                return -1;
        }
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s must be None or a tuple of two ints, not %R", name, object);
    return -1;
}

static int parse_version(PyObject *object, request *r) {
    long version[2];
    if (object == NULL || object == Py_None)
        return 0;
    if (parse_pair(object, "max_version", version) < 0)
        return -1;
    r->versioned = version[0] >= (long)DL_MAJOR;
    r->minor = version[0] > (long)DL_MAJOR || version[1] > (long)DL_MINOR ? DL_MINOR : version[1] < 0 ? 0 : (uint32_t)version[1];
    return 0;
}

static int check_device(PyObject *object) {
    long device[2];
    if (object == NULL || object == Py_None)
        return 0;
    if (parse_pair(object, "dl_device", device) < 0)
        return -1;
    if (device[0] == DL_CPU && device[1] == 0)
        return 0;
    PyErr_Format(PyExc_BufferError, "dl_device: the memory is the CPU's, (1, 0), and can't be exported to %R", object);
    return -1;
}

static PyObject *array_dlpack(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"stream", "max_version", "dl_device", "copy"};
    static const signature parameters = {"__dlpack__", 4, 0, 0, names};
    SharedArrayObject *a = (SharedArrayObject *)self;
    PyObject *given[4];
    if (array_tracks(a))
        return now_call_keywords(array_dlpack, self, args, nargs, kwnames);
    request r = {0};
    dl_type type;
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    if (given[0] != NULL && given[0] != Py_None)
        return PyErr_Format(PyExc_ValueError, "the CPU has no streams: stream must be None, not %R", given[0]);
    if (parse_version(given[1], &r) < 0 || check_device(given[2]) < 0)
        return NULL;
    int copy = given[3] == NULL || given[3] == Py_None ? 0 : PyObject_IsTrue(given[3]);
    if (copy < 0 || array_check(a) < 0 || type_of(a->dtype, &type) < 0)
        return NULL;
    return copy ? export_copy(a, &r, type) : export_memory(a, &r, type);
}

static PyObject *array_dlpack_device(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return array_check((SharedArrayObject *)self) < 0 ? NULL : Py_BuildValue("(ii)", DL_CPU, 0);
}

PyMethodDef dlpack_methods[] = {
    {"__dlpack__", KEYWORDS(array_dlpack),
     PyDoc_STR(
         "__dlpack__($self, /, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"
         "A DLPack capsule of this memory, without a copy: what other libraries' from_dlpack() asks for.\n\n"
         "Ownership: it counts as an owner until its deleter was called, which may happen in any thread and after the end of this\n"
         "interpreter; freeze() raises meanwhile. max_version (1, 0) or later: a versioned one, the only kind that can say read-only.\n"
         "copy=True: of a copy. BufferError for elements, strides, or a device that DLPack or this memory doesn't have, ValueError\n"
         "for a stream.")},
    {"__dlpack_device__", array_dlpack_device, METH_NOARGS,
     PyDoc_STR("__dlpack_device__($self, /)\n--\n\nDLPack's number of the device: (1, 0), the CPU.")},
    {NULL, NULL, 0, NULL},
};

/* ---- in ------------------------------------------------------------------------------------------------------------------------------ */

static DTypeObject *dtype_of(core_state *state, dl_type type) {
    if (type.lanes == 1 && type.bits % 8 == 0) {
        const char kind = type.code == DL_BOOL      ? 'b'
                          : type.code == DL_INT     ? 'i'
                          : type.code == DL_UINT    ? 'u'
                          : type.code == DL_FLOAT   ? 'f'
                          : type.code == DL_COMPLEX ? 'c'
                                                    : 0;
        for (int i = 0; i < IST_NUMBERS; i++)
            if (state->dtypes[i]->kind == kind && 8 * state->dtypes[i]->itemsize == type.bits)
                return state->dtypes[i];
    }
    PyErr_Format(PyExc_BufferError, "from_dlpack(): there is no dtype for DLPack's type code %d with %d bits and %d lanes", type.code,
                 type.bits, type.lanes);
    return NULL;
}

/* A tensor as an array, which may lie anywhere. Its numbers are somebody else's. */
typedef struct incoming {
    strided values;
    Py_ssize_t dims[2 * IST_MAX_NDIM];
} incoming;

static int raise_impossible(const char *what) {
    PyErr_Format(PyExc_BufferError, "from_dlpack(): the tensor makes no sense: %s", what);
    return -1;
}

static int read_dims(const dl_tensor *t, Py_ssize_t itemsize, incoming *in) {
    for (int i = 0; i < t->ndim; i++) {
        in->dims[i] = t->shape[i];
        if (in->dims[i] < 0)
            return raise_impossible("a negative length");
        if (t->strides != NULL && __builtin_mul_overflow(t->strides[i], itemsize, &in->dims[t->ndim + i]))
            return raise_impossible("a stride beyond all memory");
    }
    if (shape_bytes(t->ndim, in->dims, itemsize) < 0)
        return -1;
    if (t->strides == NULL)
        fill_c_strides(t->ndim, in->dims, itemsize, in->dims + t->ndim);
    return 0;
}

static int read_tensor(core_state *state, const dl_tensor *t, incoming *in) {
    if (t->device.type != DL_CPU) {
        PyErr_Format(
            PyExc_BufferError,
            "from_dlpack(): the memory is on device (%d, %d), not the CPU's (1, 0); device='cpu' asks its library for a copy there",
            t->device.type, t->device.id);
        return -1;
    }
    if (t->ndim < 0 || t->ndim > IST_MAX_NDIM) {
        PyErr_Format(PyExc_BufferError, "from_dlpack(): %d axes; an array has at most %d", t->ndim, IST_MAX_NDIM);
        return -1;
    }
    DTypeObject *dtype = dtype_of(state, t->type);
    if (dtype == NULL)
        return -1;
    if (t->ndim > 0 && t->shape == NULL)
        return raise_impossible("axes without a shape");
    if (read_dims(t, dtype->itemsize, in) < 0)
        return -1;
    bool empty = false;
    for (int i = 0; i < t->ndim; i++)
        empty |= in->dims[i] == 0;
    uintptr_t at;
    if (!empty && t->data == NULL)
        return raise_impossible("elements, but no memory");
    if (__builtin_add_overflow((uintptr_t)t->data, t->byte_offset, &at) || at > PTRDIFF_MAX)
        return raise_impossible("an offset beyond all memory");
    in->values = (strided){dtype, (char *)at, t->ndim, in->dims, in->dims + t->ndim};
    /* from the first to the last byte of the address space */
    if (!empty && !array_fits(PTRDIFF_MAX, dtype->itemsize, t->ndim, in->values.shape, in->values.strides, (Py_ssize_t)at))
        return raise_impossible("it reaches beyond all memory");
    return 0;
}

/* With whatever exception is set: a deleter may run Python code. */
static void call_deleter(void *managed, bool versioned) {
    PyObject *raised = PyErr_GetRaisedException();
    dl_managed *plain = managed;
    dl_managed_versioned *other = managed;
    if (versioned && other->deleter != NULL)
        other->deleter(other);
    else if (!versioned && plain->deleter != NULL)
        plain->deleter(plain);
    PyErr_SetRaisedException(raised);
}

static PyObject *copy_capsule(core_state *state, PyObject *capsule) {
    const bool versioned = PyCapsule_IsValid(capsule, VERSIONED);
    if (!versioned && !PyCapsule_IsValid(capsule, PLAIN))
        return PyErr_Format(PyExc_BufferError, "from_dlpack(): __dlpack__() gave %R, not a DLPack capsule that nobody has taken yet",
                            capsule);
    void *managed = PyCapsule_GetPointer(capsule, versioned ? VERSIONED : PLAIN);
    const dl_tensor *tensor = &((dl_managed *)managed)->tensor;
    if (versioned) {
        const dl_managed_versioned *m = managed;
        if (m->version.major != DL_MAJOR)
            return PyErr_Format(PyExc_BufferError, "from_dlpack(): a tensor of DLPack %u.%u, and only 1.x can be read", m->version.major,
                                m->version.minor);
        tensor = &m->tensor;
    }
    incoming in;
    if (read_tensor(state, tensor, &in) < 0 || PyCapsule_SetName(capsule, versioned ? "used_" VERSIONED : "used_" PLAIN) < 0)
        return NULL;
    PyObject *copy = (PyObject *)array_copy_of(state, &in.values, in.values.dtype);
    call_deleter(managed, versioned);
    return copy;
}

/* None: what it has. "cpu" or (1, 0): there. */
static int parse_target(PyObject *object, bool *cpu) {
    *cpu = false;
    if (object == NULL || object == Py_None)
        return 0;
    long device[2];
    *cpu = true;
    if (PyUnicode_Check(object) && PyUnicode_CompareWithASCIIString(object, "cpu") == 0)
        return 0;
    if (PyTuple_Check(object) && parse_pair(object, "device", device) < 0)
        return -1;
    if (PyTuple_Check(object) && device[0] == DL_CPU && device[1] == 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "from_dlpack(): device must be None, 'cpu' or (1, 0), not %R", object);
    return -1;
}

/* Its own idea of where it is, before it is asked: elsewhere a library may have to wait for the device first, or not export at all. */
static int check_source(PyObject *object) {
    PyObject *device = PyObject_CallMethod(object, "__dlpack_device__", NULL);
    if (device == NULL)
        return -1;
    /* the type may be of an IntEnum, which is an int */
    PyObject *type = PySequence_GetItem(device, 0);
    long number = type == NULL ? -1 : PyLong_AsLong(type);
    if (type != NULL && !PyErr_Occurred() && number != DL_CPU)
        PyErr_Format(PyExc_BufferError,
                     "from_dlpack(): the memory is on device %R, not the CPU's (1, 0); device='cpu' asks its library for a copy there",
                     device);
    Py_XDECREF(type);
    Py_DECREF(device);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *ask(PyObject *object, bool cpu) {
    PyObject *method = PyObject_GetAttrString(object, "__dlpack__");
    PyObject *none = method == NULL ? NULL : PyTuple_New(0);
    PyObject *words = none == NULL ? NULL : Py_BuildValue("{s:(II)}", "max_version", DL_MAJOR, DL_MINOR);
    PyObject *device = words == NULL || !cpu ? NULL : Py_BuildValue("(ii)", DL_CPU, 0), *capsule = NULL;
    if (device != NULL && PyDict_SetItemString(words, "dl_device", device) < 0)
        Py_CLEAR(words);
    if (words != NULL && (device != NULL || !cpu)) {
        capsule = PyObject_Call(method, none, words);
        if (capsule == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) { /* from before these were asked */
            PyErr_Clear();
            capsule = PyObject_Call(method, none, NULL);
        }
    }
    Py_XDECREF(device);
    Py_XDECREF(words);
    Py_XDECREF(none);
    Py_XDECREF(method);
    return capsule;
}

static PyObject *core_from_dlpack(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"x", "device", "copy"};
    static const signature parameters = {"from_dlpack", 3, 1, 1, names};
    PyObject *given[3];
    bool cpu;
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 || parse_target(given[1], &cpu) < 0)
        return NULL;
    int copy = given[2] == NULL || given[2] == Py_None ? 1 : PyObject_IsTrue(given[2]);
    if (copy < 0)
        return NULL;
    if (copy == 0) {
        PyErr_SetString(PyExc_ValueError,
                        "copy=False, but from_dlpack() always copies: what gives the memory back may need an interpreter's GIL. "
                        "asarray() shares what is a segment's");
        return NULL;
    }
    if (!cpu && check_source(given[0]) < 0)
        return NULL;
    PyObject *capsule = ask(given[0], cpu);
    PyObject *result = capsule == NULL ? NULL : copy_capsule(state_of_module(module), capsule);
    Py_XDECREF(capsule);
    return result;
}

PyMethodDef dlpack_functions[] = {
    {"from_dlpack", KEYWORDS(core_from_dlpack),
     PyDoc_STR(
         "from_dlpack($module, x, /, *, device=None, copy=None)\n--\n\n"
         "A new SharedArray with the values of any object with __dlpack__().\n\n"
         "Always copies, in C order: a DLPack deleter may need its interpreter's GIL, and the last owner of an array may be anywhere.\n"
         "x's memory is given back before this returns. device: None, or 'cpu' to ask x's library for a copy there. ValueError for\n"
         "copy=False; BufferError for what can't be read: another device, elements there is no dtype for, an impossible tensor.")},
    {NULL, NULL, 0, NULL},
};
