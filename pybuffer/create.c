/* create.c: isthmus.empty zeros full buffer array empty_like zeros_like: new memory.
 *
 * Relies on: array_create. empty(n) is measured against numpy.empty: its common form parses an int and makes one segment and one object.
 */
#include "array.h"

/* ---- arguments ------------------------------------------------------------------------------------------------------------------- */

/* New reference; NULL given means float64. */
static DTypeObject *parse_dtype(core_state *state, PyObject *spec) {
    if (spec == NULL)
        return (DTypeObject *)Py_NewRef((PyObject *)state->dtypes[IST_F8]);
    return dtype_from_object(state, spec);
}

/* IST_PREFAULT or 0; -1 with an exception. */
static int64_t parse_prefault(PyObject *prefault) {
    int truth = prefault == NULL ? 0 : PyObject_IsTrue(prefault);
    return truth < 0 ? -1 : truth ? (int64_t)IST_PREFAULT : 0;
}

/* New memory; of a growable one ARRAY_TRACKS comes with it. */
static SharedArrayObject *create_of(core_state *state, DTypeObject *dtype, int ndim, const Py_ssize_t *shape, PyObject *max_object,
                                    uint32_t flags) {
    Py_ssize_t max;
    if (max_object == NULL || max_object == Py_None)
        return array_create(state, dtype, ndim, shape, flags);
    return parse_max_length(max_object, ndim, shape, &max) < 0 ? NULL : array_create_growable(state, dtype, ndim, shape, max, flags);
}

static PyObject *create(core_state *state, PyObject *shape_object, PyObject *spec, PyObject *max_object, PyObject *prefault_object,
                        uint32_t flags) {
    Py_ssize_t shape[IST_MAX_NDIM];
    int ndim = parse_shape(shape_object, shape, false);
    int64_t prefault = ndim < 0 ? -1 : parse_prefault(prefault_object);
    if (prefault < 0)
        return NULL;
    DTypeObject *dtype = parse_dtype(state, spec);
    if (dtype == NULL)
        return NULL;
    PyObject *a = spread(state, &dtype, &ndim, shape) < 0
                      ? NULL
                      : (PyObject *)create_of(state, dtype, ndim, shape, max_object, flags | (uint32_t)prefault);
    Py_XDECREF((PyObject *)dtype);
    return a;
}

/* ---- empty, zeros, buffer -------------------------------------------------------------------------------------------------------- */

static const char *const create_names[] = {"shape", "dtype", "max_length", "prefault"};
static const signature empty_signature = {"empty", 4, 2, 1, create_names}, zeros_signature = {"zeros", 4, 2, 1, create_names};

static PyObject *core_empty(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *given[4];
    if (bind_arguments(&empty_signature, args, nargs, kwnames, given) < 0)
        return NULL;
    return create(state_of_module(module), given[0], given[1], given[2], given[3], 0);
}

static PyObject *core_zeros(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *given[4];
    if (bind_arguments(&zeros_signature, args, nargs, kwnames, given) < 0)
        return NULL;
    return create(state_of_module(module), given[0], given[1], given[2], given[3], IST_ZERO);
}

static PyObject *core_buffer(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"max_length"};
    static const signature keywords = {"buffer", 1, 0, 0, names};
    core_state *state = state_of_module(module);
    Py_ssize_t shape[IST_MAX_NDIM];
    PyObject *max_object;
    if (bind_arguments(&keywords, args + nargs, 0, kwnames, &max_object) < 0)
        return NULL;
    if (nargs != 1)
        return PyErr_Format(PyExc_TypeError, "buffer() takes exactly one positional argument (%zd given)", nargs);
    if (!PyIndex_Check(args[0]))
        return PyErr_Format(PyExc_TypeError, "buffer() needs a number of bytes, not %R", args[0]);
    if (parse_shape(args[0], shape, false) < 0)
        return NULL;
    return (PyObject *)create_of(state, state->dtypes[IST_U1], 1, shape, max_object, 0);
}

/* ---- full, array ----------------------------------------------------------------------------------------------------------------- */

/* The dtype a value has by itself; new reference. */
static PyObject *dtype_of_value(core_state *state, PyObject *value) {
    discovery found;
    if (discover(state, value, NULL, CAST_UNSAFE, &found) < 0)
        return NULL;
    return (PyObject *)(found.dtype != NULL ? found.dtype : dtype_ref(state->dtypes[IST_F8]));
}

static PyObject *core_full(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"shape", "fill_value", "dtype", "max_length", "prefault"};
    static const signature parameters = {"full", 5, 3, 2, names};
    core_state *state = state_of_module(module);
    PyObject *given[5];
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    PyObject *spec = given[2] == NULL || given[2] == Py_None ? dtype_of_value(state, given[1]) : Py_NewRef(given[2]);
    SharedArrayObject *a = spec == NULL ? NULL : (SharedArrayObject *)create(state, given[0], spec, given[3], given[4], 0);
    Py_XDECREF(spec);
    if (a == NULL)
        return NULL;
    strided to = strided_of(a); /* also if it grows: nobody else has it yet */
    if (assign(state, a, &to, given[1], CAST_UNSAFE) < 0)
        Py_CLEAR(a);
    return (PyObject *)a;
}

int refuse_subarray(const DTypeObject *dtype) {
    if (dtype->code != IST_SUBARRAY)
        return 0;
    PyErr_Format(PyExc_TypeError, "%R isn't what elements are: name its base, and reshape", dtype);
    return -1;
}

static PyObject *core_array(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"obj", "dtype"};
    static const signature parameters = {"array", 2, 2, 1, names};
    core_state *state = state_of_module(module);
    PyObject *given[2];
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    DTypeObject *dtype = NULL;
    if (given[1] != NULL && given[1] != Py_None && (dtype = dtype_from_object(state, given[1])) == NULL)
        return NULL;
    PyObject *a = dtype != NULL && refuse_subarray(dtype) < 0 ? NULL : (PyObject *)array_from_object(state, given[0], dtype);
    Py_XDECREF((PyObject *)dtype);
    return a;
}

/* ---- like another ---------------------------------------------------------------------------------------------------------------- */

static PyObject *create_like(core_state *state, const signature *parameters, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                             uint32_t flags) {
    PyObject *given[2];
    if (bind_arguments(parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    bool infer = given[1] == NULL || given[1] == Py_None;
    discovery found;
    DTypeObject *dtype = infer ? NULL : parse_dtype(state, given[1]);
    if ((dtype == NULL && !infer) || discover(state, given[0], dtype, CAST_UNSAFE, &found) < 0) {
        Py_XDECREF((PyObject *)dtype);
        return NULL;
    }
    if (infer)
        dtype = found.dtype != NULL ? dtype_ref(found.dtype) : dtype_ref(state->dtypes[IST_F8]);
    discovery_clear(&found);
    PyObject *a =
        spread(state, &dtype, &found.ndim, found.shape) < 0 ? NULL : (PyObject *)array_create(state, dtype, found.ndim, found.shape, flags);
    Py_XDECREF((PyObject *)dtype);
    return a;
}

static const char *const like_names[] = {"a", "dtype"};
static const signature empty_like_signature = {"empty_like", 2, 2, 1, like_names};
static const signature zeros_like_signature = {"zeros_like", 2, 2, 1, like_names};

static PyObject *core_empty_like(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    return create_like(state_of_module(module), &empty_like_signature, args, nargs, kwnames, 0);
}

static PyObject *core_zeros_like(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    return create_like(state_of_module(module), &zeros_like_signature, args, nargs, kwnames, IST_ZERO);
}

PyMethodDef create_functions[] = {
    {"empty", KEYWORDS(core_empty),
     PyDoc_STR(
         "empty($module, /, shape, dtype='f8', *, max_length=None, prefault=False)\n--\n\n"
         "A new SharedArray with whatever the memory holds.\n\n"
         "shape: an int or a sequence of at most 64 ints. max_length: a.grow(n) can make the first axis that long, in place; the\n"
         "memory for it is reserved, not used, and reads as 0. prefault: the memory is really there when this returns (else MemoryError),\n"
         "and the first touch costs nothing. The memory belongs to the process and is freed with its last owner, in whatever\n"
         "interpreter. MemoryError beyond the heap's limit, ValueError for a shape that can't be, TypeError for an unknown dtype.")},
    {"zeros", KEYWORDS(core_zeros),
     PyDoc_STR(
         "zeros($module, /, shape, dtype='f8', *, max_length=None, prefault=False)\n--\n\nA new SharedArray whose elements are 0; else like empty.")},
    {"full", KEYWORDS(core_full),
     PyDoc_STR("full($module, /, shape, fill_value, dtype=None, *, max_length=None, prefault=False)\n--\n\n"
               "A new SharedArray filled with a value (a scalar, or anything that broadcasts to the shape). dtype None: the value's;\n"
               "else the value is cast as array() casts. "
               "max_length: as empty has it; what it grows by is 0.")},
    {"buffer", KEYWORDS(core_buffer),
     PyDoc_STR(
         "buffer($module, nbytes, /, *, max_length=None)\n--\n\n"
         "A new SharedArray of that many bytes, dtype 'u1', with whatever the memory holds; with max_length growable, as empty has it.")},
    {"array", KEYWORDS(core_array),
     PyDoc_STR(
         "array($module, /, obj, dtype=None)\n--\n\n"
         "A new SharedArray with the values of obj: any buffer, a nested sequence, a scalar. Always copies, in C order.\n\n"
         "dtype None: obj's own, or for sequences the narrowest of bool, int64, float64 and complex128 that holds all. A dtype that is\n"
         "named takes nearly everything, as numpy's `casting='unsafe'`: floats are cut off at the point, numbers become text and text\n"
         "numbers. An integer that doesn't fit raises OverflowError, text that isn't a number ValueError, and what loses more than\n"
         "precision (imaginary parts, NaN as an integer) warns by RuntimeWarning.")},
    {"empty_like", KEYWORDS(core_empty_like),
     PyDoc_STR(
         "empty_like($module, /, a, dtype=None)\n--\n\nempty() with the shape and dtype of another array, buffer or nested sequence; in C order.")},
    {"zeros_like", KEYWORDS(core_zeros_like),
     PyDoc_STR(
         "zeros_like($module, /, a, dtype=None)\n--\n\nzeros() with the shape and dtype of another array, buffer or nested sequence; in C order.")},
    {NULL, NULL, 0, NULL},
};
