/* pickle.c: arrays and handles in pickles: a reference under a lease, or an array's contents.
 *
 * Relies on: message.c for tokens; libisthmus's leases. Invariants (README.md, M4 and M5).
 */
#include "token.h"

/* Contents instead of a reference: inside isthmus.pickle_by_value(). 1, 0, or -1 with an exception. */
static int by_value(PyObject *module) {
    PyObject *variable = PyObject_GetAttrString(module, "_by_value");
    if (variable == NULL)
        return -1;
    PyObject *value = NULL;
    int error = PyContextVar_Get(variable, Py_False, &value);
    Py_DECREF(variable);
    if (error < 0)
        return -1;
    int yes = PyObject_IsTrue(value);
    Py_DECREF(value);
    return yes;
}

static PyObject *reduce_contents(PyObject *module, SharedArrayObject *a) {
    if (array_tracks(a)) {
        SharedArrayObject *now = array_now(a);
        PyObject *result = now == NULL ? NULL : reduce_contents(module, now);
        Py_XDECREF((PyObject *)now);
        return result;
    }
    PyObject *rebuild = PyObject_GetAttrString(module, "_rebuild_contents");
    PyObject *shape = PyTuple_New(a->ndim);
    PyObject *contents = PyObject_CallMethod((PyObject *)a, "tobytes", NULL); /* counts what it copies */
    if (rebuild == NULL || shape == NULL || contents == NULL)
        goto fail;
    for (int i = 0; i < a->ndim; i++) {
        PyObject *length = PyLong_FromSsize_t(ARRAY_SHAPE(a)[i]);
        if (length == NULL)
            goto fail;
        PyTuple_SET_ITEM(shape, i, length);
    }
    return Py_BuildValue("N(sNN)", rebuild, a->dtype->spec, shape, contents);
fail:
    Py_XDECREF(rebuild);
    Py_XDECREF(shape);
    Py_XDECREF(contents);
    return NULL;
}

/* Every call takes a number of its own, since CPython converts a message as often as it likes and may never read the result. */
static PyObject *reduce_lease(core_state *state, PyObject *self) {
    described d;
    if (describe_begin(state, self, &d) < 0)
        return NULL;
    ist_token token;
    PyObject *result = NULL;
    uint64_t number;
    int error = ist_segment_token(d.segment, &token);
    if (error == 0)
        error = ist_lease_take(d.segment, &number);
    if (error < 0) {
        raise_error(state, error, "pickling %R", (PyObject *)Py_TYPE(self));
    } else {
        PyObject *bytes = token_encode(state, &d, &token);
        if (bytes != NULL)
            result = Py_BuildValue("O(NK)", state->rebuild, bytes, (unsigned long long)number);
        if (result == NULL)
            ist_lease_strike(&token, number);
    }
    describe_end(&d);
    return result;
}

PyDoc_STRVAR(reduce_doc, "__reduce__($self, /)\n--\n\n"
                         "Pickles a reference under a lease, or the contents inside isthmus.pickle_by_value().");

static PyObject *method_reduce(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    PyObject *module = PyType_GetModule(Py_TYPE(self)); /* borrowed from the type */
    core_state *state = module == NULL ? NULL : state_of_module(module);
    if (state == NULL || (Py_IS_TYPE(self, state->array_type) && array_check((SharedArrayObject *)self) < 0))
        return NULL;
    int value = Py_IS_TYPE(self, state->array_type) ? by_value(module) : 0; /* a queue has no contents of its own */
    if (value < 0)
        return NULL;
    report_leases_sometimes();
    return value ? reduce_contents(module, (SharedArrayObject *)self) : reduce_lease(state, self);
}

PyDoc_STRVAR(rebuild_doc, "_rebuild($module, token, number, /)\n--\n\n"
                          "What a pickled array calls: the array that token describes; ends the lease of that number.");

static PyObject *core_rebuild(PyObject *module, PyObject *arguments) {
    core_state *state = state_of_module(module);
    PyObject *bytes;
    unsigned long long given;
    if (!PyArg_ParseTuple(arguments, "OK:_rebuild", &bytes, &given))
        return NULL;
    parsed_token token;
    if (token_from_object(state, bytes, &token) < 0)
        return NULL;
    ist_segment segment;
    const uint64_t number = given;
    if (segment_of(state, &token, &number, &segment) < 0) {
        token_clear(&token);
        message_report_leases(); /* says in the log what the exception is about */
        return NULL;
    }
    return token_receive(state, segment, &token);
}

/* Lengths of a tuple into shape, which has room. */
static int lengths_from_tuple(PyObject *tuple, Py_ssize_t *shape) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++) {
        shape[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(tuple, i));
        if (shape[i] == -1 && PyErr_Occurred())
            return -1;
        if (shape[i] < 0) {
            PyErr_Format(PyExc_ValueError, "a pickled array with a length of %zd", shape[i]);
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(rebuild_contents_doc, "_rebuild_contents($module, spec, shape, contents, /)\n--\n\n"
                                   "What an array calls that was pickled by value: a new array with these contents.");

static PyObject *core_rebuild_contents(PyObject *module, PyObject *arguments) {
    core_state *state = state_of_module(module);
    PyObject *lengths, *result = NULL;
    const char *spec;
    Py_ssize_t spec_length;
    Py_buffer contents;
    if (!PyArg_ParseTuple(arguments, "s#O!y*:_rebuild_contents", &spec, &spec_length, &PyTuple_Type, &lengths, &contents))
        return NULL;
    Py_ssize_t shape[IST_MAX_NDIM], bytes;
    ist_segment segment;
    DTypeObject *dtype = dtype_from_spec(state, spec, spec_length);
    if (dtype == NULL)
        goto done;
    if (dtype->itemsize == 0 || refuse_subarray(dtype) < 0) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "a pickled array with elements of no bytes: '%s'", spec);
        goto done;
    }
    if (PyTuple_GET_SIZE(lengths) > IST_MAX_NDIM) {
        PyErr_Format(PyExc_ValueError, "a pickled array with %zd dimensions; at most %d", PyTuple_GET_SIZE(lengths), IST_MAX_NDIM);
        goto done;
    }
    const int ndim = (int)PyTuple_GET_SIZE(lengths);
    if (lengths_from_tuple(lengths, shape) < 0 || (bytes = shape_bytes(ndim, shape, dtype->itemsize)) < 0)
        goto done;
    if (bytes != contents.len) {
        PyErr_Format(PyExc_ValueError, "a pickled array of shape %R and dtype %s with %zd bytes of contents", lengths, dtype->str,
                     contents.len);
        goto done;
    }
    int error = ist_segment_create((size_t)bytes, 0, &segment);
    if (error < 0) {
        raise_error(state, error, "unpickling an array of %zd bytes", bytes);
        goto done;
    }
    if (bytes > 0)
        memcpy(ist_segment_data(segment), contents.buf, (size_t)bytes);
    ist_count_copied((size_t)bytes);
    ist_segment_set_creator(segment, (uint64_t)state->interpreter);
    result = (PyObject *)array_new_root(state, segment, dtype, ndim, shape, NULL, 0, 0);
done:
    Py_XDECREF(dtype);
    PyBuffer_Release(&contents);
    return result;
}

/* ---- into the module ---------------------------------------------------------------------------------------------------------------- */

PyMethodDef pickle_methods[] = {
    {"__reduce__", method_reduce, METH_NOARGS, reduce_doc},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef module_methods[] = {
    {"set_pickle_lease", core_set_pickle_lease, METH_O, set_pickle_lease_doc},
    {"_rebuild", core_rebuild, METH_VARARGS, rebuild_doc},
    {"_rebuild_contents", core_rebuild_contents, METH_VARARGS, rebuild_contents_doc},
    {NULL, NULL, 0, NULL},
};

int pickle_init(PyObject *module, core_state *state) {
    if (PyModule_AddFunctions(module, module_methods) < 0)
        return -1;
    state->rebuild = PyObject_GetAttrString(module, "_rebuild");
    if (state->rebuild == NULL)
        return -1;
    PyObject *variable = PyContextVar_New("isthmus.pickle_by_value", Py_False);
    int error = PyModule_AddObjectRef(module, "_by_value", variable); /* variable may be NULL: then the exception stays */
    Py_XDECREF(variable);
    return error;
}
