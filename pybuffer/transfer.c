/* transfer.c: a.transfer(), a handle's reference on its way: a one-shot object that any carrier takes, and whoever gets it has an array.
 *
 * It is a message (message.c) in an object's clothes: it owns one counted reference until it is sent, taken or dropped.
 * Invariant: the message leaves the object once, by an exchange under the GIL (or its lock); afterwards every use raises DetachedError.
 */
#include "array.h"

typedef struct TransferObject {
    PyObject_HEAD
    ist_message *message; /* NULL: sent, or released */
} TransferObject;

static const char sent_before[] = "this transfer was sent, or released, before: it can be used once";

static core_state *state_of_transfer(PyObject *self) { return (core_state *)PyType_GetModuleState(Py_TYPE(self)); }

/* The message, which is the caller's then; NULL: it was taken before. */
static ist_message *take(PyObject *self) {
    TransferObject *t = (TransferObject *)self;
    ist_message *message;
#if PY_VERSION_HEX >= 0x030d0000
    Py_BEGIN_CRITICAL_SECTION(self);
#endif
    message = t->message;
    t->message = NULL;
#if PY_VERSION_HEX >= 0x030d0000
    Py_END_CRITICAL_SECTION();
#endif
    return message;
}

static ist_message *take_or_raise(PyObject *self) {
    ist_message *message = take(self);
    if (message == NULL)
        PyErr_SetString(state_of_transfer(self)->DetachedError, sent_before);
    return message;
}

ist_message *transfer_send(PyObject *self) { return take_or_raise(self); }

bool transfer_pending(PyObject *self) { return ((TransferObject *)self)->message != NULL; }

ist_message *transfer_peek(PyObject *self) {
    const ist_message *message = ((TransferObject *)self)->message;
    if (message != NULL)
        return message_copy(message);
    PyErr_SetString(state_of_transfer(self)->DetachedError, sent_before);
    return NULL;
}

static void transfer_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    ist_message *message = ((TransferObject *)self)->message;
    if (message != NULL)
        message_free(message);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyObject *transfer_take(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    ist_message *message = take_or_raise(self);
    return message == NULL ? NULL : message_receive(state_of_transfer(self), message);
}

static PyObject *transfer_release(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    ist_message *message = take(self);
    if (message != NULL)
        message_free(message);
    Py_RETURN_NONE;
}

/* As the array itself: under a lease, or by its contents. A failure leaves it as it was. */
static PyObject *transfer_reduce(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    ist_message *message = transfer_peek(self);
    PyObject *a = message == NULL ? NULL : message_receive(state_of_transfer(self), message);
    PyObject *reduced = a == NULL ? NULL : PyObject_CallMethod(a, "__reduce__", NULL);
    Py_XDECREF(a);
    if (reduced == NULL)
        return NULL;
    message = take_or_raise(self); /* NULL: somebody else was faster; the lease runs out */
    if (message == NULL)
        Py_CLEAR(reduced);
    else
        message_free(message);
    return reduced;
}

static PyObject *transfer_repr(PyObject *self) {
    return PyUnicode_FromString(((TransferObject *)self)->message != NULL ? "<isthmus.Transfer of an array>" : "<isthmus.Transfer, sent>");
}

static PyObject *transfer_get_detached(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((TransferObject *)self)->message == NULL);
}

int transfer_check(SharedArrayObject *a) {
    SharedArrayObject *root = array_root(a);
    if (array_check(a) < 0)
        return -1;
    const uint64_t counts = hold_read(root) & HOLD_COUNTS;
    const uint64_t exports = (counts >> 32) + (counts & UINT32_MAX) - root_views(root);
    if (exports == 0)
        return 0;
    PyErr_Format(PyExc_BufferError, "can't transfer: %llu export%s (memoryviews, ndarrays, a lent address) in this interpreter",
                 (unsigned long long)exports, exports == 1 ? "" : "s");
    return -1;
}

PyObject *array_transfer(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    core_state *state = state_of(a);
    if (transfer_check(a) < 0)
        return NULL;
    TransferObject *t = PyObject_New(TransferObject, state->transfer_type);
    if (t == NULL)
        return NULL;
    t->message = message_from_array(a);
    if (t->message == NULL) {
        Py_DECREF((PyObject *)t);
        return NULL;
    }
    array_release(a);
    return (PyObject *)t;
}

static PyMethodDef transfer_methods[] = {
    {"release", transfer_release, METH_NOARGS,
     PyDoc_STR("release($self, /)\n--\n\nGives the reference up, unsent; as dropping the last reference to this object does.")},
    {"_take", transfer_take, METH_NOARGS, NULL},
    {"__reduce__", transfer_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef transfer_getset[] = {
    {"detached", transfer_get_detached, NULL, PyDoc_STR("Whether it was sent or released: it can't be used any more."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(transfer_doc,
             "What SharedArray.transfer() returns: an array's reference on its way. Sent by whatever carries an array, in whatever way\n"
             "(once), it arrives as the array; dropped unsent it releases.");

static PyType_Slot transfer_slots[] = {
    {Py_tp_doc, (void *)transfer_doc}, {Py_tp_dealloc, transfer_dealloc}, {Py_tp_repr, transfer_repr},
    {Py_tp_methods, transfer_methods}, {Py_tp_getset, transfer_getset},   {0, NULL},
};

/* Not a base type, as CPython looks up who may cross by the exact type. */
static PyType_Spec transfer_spec = {
    .name = "isthmus.Transfer",
    .basicsize = sizeof(TransferObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = transfer_slots,
};

int transfer_init(PyObject *module, core_state *state) {
    state->transfer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &transfer_spec, NULL);
    return state->transfer_type == NULL ? -1 : PyModule_AddType(module, state->transfer_type);
}
