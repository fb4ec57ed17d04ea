/* python.c: <isthmus/python.h>: what other extension modules call, behind the capsule isthmus._core._C_API.
 *
 * Relies on: clone.c's registry. A type that is registered from C has the same entry there as one from Python: its encode and decode are
 * callables, here builtin functions around the C ones, and what encode puts is a tuple: so messages look alike, and the other end may be
 * in Python.
 */
#include <isthmus/python.h> /* first: it stands by itself */

#include "clone.h"

/* ---- arrays -------------------------------------------------------------------------------------------------------------------------- */

/* Bounds are checked here: elements in C order from the first byte on. Takes `segment`. */
static PyObject *make_array(core_state *state, ist_segment segment, DTypeObject *dtype, int ndim, const Py_ssize_t *shape, bool readonly) {
    const size_t size = ist_segment_length(segment);
    Py_ssize_t whole = dtype->itemsize > 0 ? (Py_ssize_t)(size / (size_t)dtype->itemsize) : 0, strides[IST_MAX_NDIM];
    if (dtype->itemsize == 0 || dtype->code == IST_SUBARRAY || (shape == NULL && size % (size_t)dtype->itemsize != 0)) {
        PyErr_Format(PyExc_ValueError, "a segment of %zu bytes doesn't consist of elements of %zd bytes (%s)", size, dtype->itemsize,
                     dtype->str);
    } else if (shape != NULL && (ndim < 0 || ndim > IST_MAX_NDIM)) {
        PyErr_Format(PyExc_ValueError, "an array has 0 to %d axes, not %d", IST_MAX_NDIM, ndim);
    } else {
        ndim = shape == NULL ? 1 : ndim;
        shape = shape == NULL ? &whole : shape;
        Py_ssize_t stride = dtype->itemsize;
        bool fits = true;
        for (int i = ndim - 1; i >= 0; i--) {
            strides[i] = stride;
            fits = fits && shape[i] >= 0 && !__builtin_mul_overflow(stride, shape[i] > 0 ? shape[i] : 1, &stride);
        }
        if (fits && array_fits(size, dtype->itemsize, ndim, shape, strides, 0))
            return (PyObject *)array_new_root(state, segment, dtype, ndim, shape, NULL, 0,
                                              readonly || ist_segment_is_readonly(segment) ? ARRAY_READONLY : 0);
        PyErr_Format(PyExc_ValueError, "a segment of %zu bytes is too short for that shape, or a length is negative", size);
    }
    ist_segment_release(segment);
    return NULL;
}

static PyObject *array_from_segment(ist_segment segment, const char *spec, int ndim, const Py_ssize_t *shape, bool readonly) {
    core_state *state = state_of_interpreter();
    PyObject *text = state == NULL ? NULL : PyUnicode_FromString(spec != NULL ? spec : "u1");
    DTypeObject *dtype = text == NULL ? NULL : dtype_from_object(state, text);
    Py_XDECREF(text);
    if (dtype == NULL) {
        ist_segment_release(segment);
        return NULL;
    }
    PyObject *array = make_array(state, segment, dtype, ndim, shape, readonly);
    Py_DECREF((PyObject *)dtype);
    return array;
}

static int is_array(PyObject *object) {
    PyObject *raised = PyErr_GetRaisedException();
    const core_state *state = state_of_interpreter();
    PyErr_SetRaisedException(raised);
    return state != NULL && Py_IS_TYPE(object, state->array_type);
}

/* It as an array that can be used; NULL with an exception. Borrowed. */
static SharedArrayObject *usable_array(PyObject *object) {
    const core_state *state = state_of_interpreter();
    if (state == NULL)
        return NULL;
    if (!Py_IS_TYPE(object, state->array_type)) {
        PyErr_Format(PyExc_TypeError, "a SharedArray is needed, not %.200s", Py_TYPE(object)->tp_name);
        return NULL;
    }
    return array_check((SharedArrayObject *)object) < 0 ? NULL : (SharedArrayObject *)object;
}

static int array_view(PyObject *object, ist_array_view *out) {
    SharedArrayObject *a = usable_array(object);
    if (a == NULL)
        return -1;
    const SharedArrayObject *root = array_root(a);
    out->segment = root->segment;
    out->data = a->data;
    out->dtype = a->dtype->spec;
    out->itemsize = a->dtype->itemsize;
    out->nbytes = a->nbytes;
    out->ndim = a->ndim;
    out->readonly = array_readonly(a);
    memcpy(out->shape, ARRAY_SHAPE(a), (size_t)a->ndim * sizeof *out->shape);
    memcpy(out->strides, ARRAY_STRIDES(a), (size_t)a->ndim * sizeof *out->strides);
    if (array_tracks(a)) { /* as long as it is now, in whole rows, which have at least one byte (V1) */
        out->shape[0] = (Py_ssize_t)ist_segment_length(root->segment) / out->strides[0];
        out->nbytes = out->shape[0] * out->strides[0];
    }
    return 0;
}

static int array_retain(PyObject *object, ist_segment *out) {
    SharedArrayObject *a = usable_array(object);
    if (a == NULL || hold_enter(a, HOLD_SHARED) < 0)
        return -1;
    *out = array_root(a)->segment;
    ist_segment_retain_inline(*out);
    hold_leave(a, HOLD_SHARED);
    return 0;
}

static PyObject *raise_for(int error, const char *what) {
    core_state *state = state_of_interpreter();
    return state == NULL ? NULL : raise_error(state, error, "%s", what);
}

/* ---- structured clone ---------------------------------------------------------------------------------------------------------------- */

struct ist_writer {
    core_state *state;
    PyObject *items; /* a list */
};

struct ist_reader {
    core_state *state;
    PyObject *items; /* a tuple: borrowed, as are its items until decode returns */
    Py_ssize_t next;
};

/* Takes the item, NULL with an exception included. */
static int put(ist_writer *w, PyObject *item) {
    const int result = item == NULL ? -1 : PyList_Append(w->items, item);
    Py_XDECREF(item);
    return result;
}

static int put_bytes(ist_writer *w, const void *data, size_t size) {
    if (size > (size_t)PY_SSIZE_T_MAX)
        return put(w, PyErr_NoMemory());
    return put(w, PyBytes_FromStringAndSize(data, (Py_ssize_t)size));
}

static int put_segment(ist_writer *w, ist_segment segment) {
    ist_segment_retain_inline(segment);
    return put(w, make_array(w->state, segment, w->state->dtypes[IST_U1], 1, NULL, false));
}

static int put_object(ist_writer *w, PyObject *object) { return put(w, Py_NewRef(object)); }

/* Borrowed. */
static PyObject *get(ist_reader *r, const char *what) {
    if (r->next < PyTuple_GET_SIZE(r->items))
        return PyTuple_GET_ITEM(r->items, r->next++);
    PyErr_Format(r->state->CloneError, "item %zd of %zd, which should be %s", r->next, PyTuple_GET_SIZE(r->items), what);
    return NULL;
}

static int get_bytes(ist_reader *r, const void **data, size_t *size) {
    PyObject *item = get(r, "bytes");
    if (item == NULL)
        return -1;
    if (!PyBytes_CheckExact(item)) {
        PyErr_Format(r->state->CloneError, "item %zd should be bytes, not %.200s", r->next - 1, Py_TYPE(item)->tp_name);
        return -1;
    }
    *data = PyBytes_AS_STRING(item);
    *size = (size_t)PyBytes_GET_SIZE(item);
    return 0;
}

static int get_segment(ist_reader *r, ist_segment *out) {
    PyObject *item = get(r, "a segment");
    if (item == NULL)
        return -1;
    if (!Py_IS_TYPE(item, r->state->array_type)) {
        PyErr_Format(r->state->CloneError, "item %zd should be a segment, not %.200s", r->next - 1, Py_TYPE(item)->tp_name);
        return -1;
    }
    return array_retain(item, out);
}

static PyObject *get_object(ist_reader *r) { return Py_XNewRef(get(r, "an object")); }

/* What encode and decode of a registered type are bound to: (type, capsule of one of these). */
typedef struct functions {
    ist_encode_fn encode;
    ist_decode_fn decode;
} functions;

#define FUNCTIONS "isthmus.functions"

static const functions *functions_of(PyObject *bound) { return PyCapsule_GetPointer(PyTuple_GET_ITEM(bound, 1), FUNCTIONS); }

static int without_exception(PyObject *type, const char *what) {
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_SystemError, "the %s function of %R failed without an exception", what, type);
    return -1;
}

static PyObject *call_encode(PyObject *bound, PyObject *object) {
    core_state *state = state_of_interpreter();
    ist_writer w = {.state = state, .items = state == NULL ? NULL : PyList_New(0)};
    PyObject *result = NULL;
    if (w.items != NULL && (functions_of(bound)->encode(object, &w) == 0 || without_exception(PyTuple_GET_ITEM(bound, 0), "encode") == 0))
        result = PyList_AsTuple(w.items);
    Py_XDECREF(w.items);
    return result;
}

static PyObject *call_decode(PyObject *bound, PyObject *items) {
    core_state *state = state_of_interpreter();
    PyObject *type = PyTuple_GET_ITEM(bound, 0);
    if (state == NULL)
        return NULL;
    if (!PyTuple_CheckExact(items))
        return PyErr_Format(state->CloneError, "%R is made of a tuple, not of %.200s", type, Py_TYPE(items)->tp_name);
    ist_reader r = {.state = state, .items = items};
    PyObject *object = functions_of(bound)->decode((PyTypeObject *)type, &r);
    if (object == NULL)
        without_exception(type, "decode");
    else if (r.next < PyTuple_GET_SIZE(items))
        Py_SETREF(object,
                  PyErr_Format(state->CloneError, "%R is made of %zd items, and %zd are there", type, r.next, PyTuple_GET_SIZE(items)));
    return object;
}

static void free_functions(PyObject *capsule) { PyMem_Free(PyCapsule_GetPointer(capsule, FUNCTIONS)); }

/* (type, capsule); NULL with an exception. */
static PyObject *bind_functions(PyTypeObject *type, ist_encode_fn encode, ist_decode_fn decode) {
    functions *f = PyMem_Malloc(sizeof *f);
    if (f == NULL)
        return PyErr_NoMemory();
    *f = (functions){encode, decode};
    PyObject *capsule = PyCapsule_New(f, FUNCTIONS, free_functions);
    if (capsule == NULL) {
        PyMem_Free(f);
        return NULL;
    }
    PyObject *bound = PyTuple_Pack(2, type, capsule);
    Py_DECREF(capsule);
    return bound;
}

static int register_type(PyTypeObject *type, ist_encode_fn encode, ist_decode_fn decode) {
    static PyMethodDef methods[] = {{"encode", call_encode, METH_O, NULL}, {"decode", call_decode, METH_O, NULL}};
    core_state *state = state_of_interpreter();
    PyObject *bound = state == NULL ? NULL : bind_functions(type, encode, decode);
    PyObject *encoder = bound == NULL ? NULL : PyCFunction_New(&methods[0], bound);
    PyObject *decoder = encoder == NULL ? NULL : PyCFunction_New(&methods[1], bound);
    const int result = decoder == NULL ? -1 : clone_register_type(state, (PyObject *)type, encoder, decoder);
    Py_XDECREF(decoder);
    Py_XDECREF(encoder);
    Py_XDECREF(bound);
    return result;
}

/* ---- into the module ----------------------------------------------------------------------------------------------------------------- */

static const ist_python table = {
    .version = IST_PYTHON_VERSION,
    .bytes = sizeof table,
    .segment_create = ist_segment_create,
    .segment_wrap = ist_segment_wrap,
    .segment_retain = ist_segment_retain,
    .segment_release = ist_segment_release,
    .segment_data = ist_segment_data,
    .segment_size = ist_segment_size,
    .raise_error = raise_for,
    .array_from_segment = array_from_segment,
    .is_array = is_array,
    .array_view = array_view,
    .array_retain = array_retain,
    .register_type = register_type,
    .put_bytes = put_bytes,
    .put_segment = put_segment,
    .put_object = put_object,
    .get_bytes = get_bytes,
    .get_segment = get_segment,
    .get_object = get_object,
};

int python_init(PyObject *module) {
    PyObject *capsule = PyCapsule_New((void *)(uintptr_t)&table, IST_PYTHON_CAPSULE, NULL);
    const int result = PyModule_AddObjectRef(module, "_C_API", capsule); /* NULL: the exception stays */
    Py_XDECREF(capsule);
    return result;
}
