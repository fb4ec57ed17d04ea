/* decimals.c: an extension module of somebody else with a type that shares memory by <isthmus/python.h>: a column of decimal numbers.
 *
 * The payload is int64 values, each a number times 10 to the power of scale: in isthmus's heap, or malloc'd and wrapped, with a destructor that
 * counts. A Column owns one reference of it. It isn't linked to isthmus. test_python_h.py tests it; docs/extensions.md shows it.
 */
#include <isthmus/python.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct module_state {
    const ist_python *ist;
    PyTypeObject *column_type;
} module_state;

typedef struct column {
    PyObject_HEAD
    ist_segment payload; /* owned */
    int64_t *values;     /* in it */
    Py_ssize_t count;
    int scale;
} column;

static _Atomic(long) made, destroyed; /* wrapped payloads of the process; relaxed: counts for the tests */

static const ist_python *ist_of(PyTypeObject *type) { return ((module_state *)PyType_GetModuleState(type))->ist; }

/* ---- payloads ------------------------------------------------------------------------------------------------------------------------ */

/* In whatever thread lets go last, without a GIL. */
static void destroy(void *context, void *data, size_t size) {
    (void)context;
    (void)size;
    free(data);
    atomic_fetch_add_explicit(&destroyed, 1, memory_order_relaxed);
}

static int wrap(const ist_python *ist, size_t size, ist_segment *out) {
    void *data = malloc(size > 0 ? size : 1);
    int error = data == NULL ? -ENOMEM : ist->segment_wrap(data, size, destroy, NULL, 0, out);
    if (error != 0)
        free(data);
    else
        atomic_fetch_add_explicit(&made, 1, memory_order_relaxed);
    return error;
}

/* Takes the payload, on failure too. */
static PyObject *new_column(PyTypeObject *type, ist_segment payload, int scale) {
    const ist_python *ist = ist_of(type);
    column *self = (column *)type->tp_alloc(type, 0);
    if (self == NULL) {
        ist->segment_release(payload);
        return NULL;
    }
    self->payload = payload;
    self->values = ist->segment_data(payload);
    self->count = (Py_ssize_t)(ist->segment_size(payload) / sizeof *self->values);
    self->scale = scale;
    return (PyObject *)self;
}

static PyObject *column_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"values", "scale", "heap", NULL};
    const ist_python *ist = ist_of(type);
    PyObject *given;
    int scale, heap = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "Oi|p:Column", names, &given, &scale, &heap))
        return NULL;
    PyObject *values = PySequence_Tuple(given);
    if (values == NULL)
        return NULL;
    const size_t size = (size_t)PyTuple_GET_SIZE(values) * sizeof(int64_t);
    ist_segment payload;
    const int error = heap ? ist->segment_create(size, 0, &payload) : wrap(ist, size, &payload);
    PyObject *self = error != 0 ? ist->raise_error(error, "a column of decimals") : new_column(type, payload, scale);
    for (Py_ssize_t i = 0; self != NULL && i < PyTuple_GET_SIZE(values); i++) {
        const long long value = PyLong_AsLongLong(PyTuple_GET_ITEM(values, i));
        if (value == -1 && PyErr_Occurred())
            Py_CLEAR(self);
        else
            ((column *)self)->values[i] = value;
    }
    Py_DECREF(values);
    return self;
}

static void column_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    ist_of(type)->segment_release(((column *)object)->payload); /* a NULL handle does nothing */
    type->tp_free(object);
    Py_DECREF(type);
}

/* ---- structured clone, arrays, pickle ------------------------------------------------------------------------------------------------- */

static int column_encode(PyObject *object, ist_writer *w) {
    const column *self = (column *)object;
    const ist_python *ist = ist_of(Py_TYPE(object));
    return ist->put_segment(w, self->payload) < 0 ? -1 : ist->put_bytes(w, &self->scale, sizeof self->scale);
}

static PyObject *column_decode(PyTypeObject *type, ist_reader *r) {
    const ist_python *ist = ist_of(type);
    ist_segment payload;
    const void *bytes;
    size_t size;
    int scale;
    if (ist->get_segment(r, &payload) < 0)
        return NULL;
    if (ist->get_bytes(r, &bytes, &size) < 0 || size != sizeof scale || ist->segment_size(payload) % sizeof(int64_t) != 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "not a column of decimals");
        ist->segment_release(payload);
        return NULL;
    }
    memcpy(&scale, bytes, sizeof scale);
    return new_column(type, payload, scale);
}

/* A SharedArray of the values, the same memory. */
static PyObject *column_array(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    const column *self = (column *)object;
    const ist_python *ist = ist_of(Py_TYPE(object));
    ist->segment_retain(self->payload);
    return ist->array_from_segment(self->payload, "i8", 1, &self->count, false);
}

/* And back. */
static PyObject *column_of(PyObject *type, PyObject *arguments) {
    const ist_python *ist = ist_of((PyTypeObject *)type);
    PyObject *array;
    ist_array_view view;
    ist_segment payload;
    int scale;
    if (!PyArg_ParseTuple(arguments, "Oi:of", &array, &scale) || ist->array_view(array, &view) < 0)
        return NULL;
    if (strcmp(view.dtype, "<i8") != 0 || view.ndim != 1 || view.strides[0] != 8 || view.data != ist->segment_data(view.segment) ||
        (size_t)view.nbytes != ist->segment_size(view.segment))
        return PyErr_Format(PyExc_ValueError, "a column is a whole segment of i8, not a part of it or %s", view.dtype);
    return ist->array_retain(array, &payload) < 0 ? NULL : new_column((PyTypeObject *)type, payload, scale);
}

static PyObject *column_reduce(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    PyObject *of = PyObject_GetAttrString((PyObject *)Py_TYPE(object), "of"), *array = of == NULL ? NULL : column_array(object, NULL);
    PyObject *result = array == NULL ? NULL : Py_BuildValue("O(Oi)", of, array, ((column *)object)->scale);
    Py_XDECREF(array);
    Py_XDECREF(of);
    return result;
}

/* ---- as a sequence of ints ------------------------------------------------------------------------------------------------------------ */

static Py_ssize_t column_length(PyObject *self) { return ((column *)self)->count; }

static PyObject *column_item(PyObject *object, Py_ssize_t i) {
    const column *self = (column *)object;
    if (i < 0 || i >= self->count)
        return PyErr_Format(PyExc_IndexError, "a column of %zd has no number %zd", self->count, i);
    return PyLong_FromLongLong(self->values[i]);
}

static int column_set(PyObject *object, Py_ssize_t i, PyObject *value) {
    column *self = (column *)object;
    const long long number = value == NULL ? -1 : PyLong_AsLongLong(value);
    if (value == NULL || i < 0 || i >= self->count)
        PyErr_Format(PyExc_IndexError, "a column of %zd has no number %zd that can be set", self->count, i);
    if (PyErr_Occurred())
        return -1;
    self->values[i] = number;
    return 0;
}

static PyObject *column_scale(PyObject *self, void *Py_UNUSED(closure)) { return PyLong_FromLong(((column *)self)->scale); }

static PyMethodDef column_methods[] = {
    {"array", column_array, METH_NOARGS, "A SharedArray of the values."},
    {"of", column_of, METH_VARARGS | METH_CLASS, "A column over the memory of a SharedArray."},
    {"__reduce__", column_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef column_attributes[] = {{"scale", column_scale, NULL, NULL, NULL}, {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot column_slots[] = {
    {Py_tp_new, (void *)column_new},       {Py_tp_dealloc, (void *)column_dealloc},
    {Py_tp_methods, column_methods},       {Py_tp_getset, column_attributes},
    {Py_sq_length, (void *)column_length}, {Py_sq_item, (void *)column_item},
    {Py_sq_ass_item, (void *)column_set},  {0, NULL},
};
static PyType_Spec column_spec = {
    .name = "decimals.Column",
    .basicsize = sizeof(column),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = column_slots,
};

/* ---- the module ----------------------------------------------------------------------------------------------------------------------- */

static PyObject *count_payloads(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    return Py_BuildValue("ll", atomic_load_explicit(&made, memory_order_relaxed), atomic_load_explicit(&destroyed, memory_order_relaxed));
}

static PyObject *register_again(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    const module_state *state = PyModule_GetState(module);
    return state->ist->register_type(state->column_type, column_encode, column_decode) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef functions[] = {
    {"register_again", register_again, METH_NOARGS, "What the module does when it is imported."},
    {"count_payloads", count_payloads, METH_NOARGS, "Wrapped payloads: how many were made and destroyed in this process."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    module_state *state = PyModule_GetState(module);
    state->ist = ist_python_import();
    if (state->ist == NULL)
        return -1;
    state->column_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &column_spec, NULL);
    if (state->column_type == NULL || PyModule_AddType(module, state->column_type) < 0)
        return -1;
    return state->ist->register_type(state->column_type, column_encode, column_decode);
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    Py_VISIT(((module_state *)PyModule_GetState(module))->column_type);
    return 0;
}

static int clear(PyObject *module) {
    Py_CLEAR(((module_state *)PyModule_GetState(module))->column_type);
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)execute},
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,  .m_name = "decimals", .m_size = sizeof(module_state), .m_methods = functions, .m_slots = slots,
    .m_traverse = traverse, .m_clear = clear,
};

PyMODINIT_FUNC PyInit_decimals(void);
PyMODINIT_FUNC PyInit_decimals(void) { return PyModuleDef_Init(&definition); }
