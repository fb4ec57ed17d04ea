/* clone.c: structured clone as Python sees it: clone, dumps, loads, register_type; whole messages; and what both directions ask the
 * interpreter.
 *
 * Relies on: clone_write.c and clone_rare.c for the way into bytes, clone_read.c and clone_make.c for the way out.
 */
#include "clone.h"

#include "shareable.h"

/* ---- what the interpreter has -------------------------------------------------------------------------------------------------------- */

PyObject *clone_dict_item(PyObject *dict, const char *name) { /* PyDict_GetItemString loses MemoryError */
    PyObject *key = PyUnicode_FromString(name), *value = key == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(dict, key));
    Py_XDECREF(key);
    return value;
}

PyObject *clone_loaded(const char *module, const char *name) {
    PyObject *key = PyUnicode_FromString(module), *found = key == NULL ? NULL : PyImport_GetModule(key), *value = NULL;
    if (found != NULL && PyModule_Check(found))
        value = clone_dict_item(PyModule_GetDict(found), name);
    Py_XDECREF(found);
    Py_XDECREF(key);
    return value;
}

PyDateTime_CAPI *clone_datetime(core_state *state) {
    if (state->clone.datetime == NULL)
        state->clone.datetime = clone_loaded("datetime", "datetime_CAPI");
    if (state->clone.datetime == NULL)
        return NULL;
    return PyCapsule_GetPointer(state->clone.datetime, PyDateTime_CAPSULE_NAME);
}

PyObject *clone_helper(core_state *state, const char *name) {
    if (state->clone.helpers == NULL)
        state->clone.helpers = PyImport_ImportModule("isthmus._clone");
    return state->clone.helpers == NULL ? NULL : PyObject_GetAttrString(state->clone.helpers, name);
}

/* An attribute of a module or a class as its dict has it: nothing runs. New; NULL without an exception: none. */
static PyObject *plain_attribute(PyObject *of, PyObject *name) {
    if (PyModule_Check(of))
        return Py_XNewRef(PyDict_GetItemWithError(PyModule_GetDict(of), name));
    if (!PyType_Check(of))
        return NULL;
    PyObject *found = Py_XNewRef(_PyType_Lookup((PyTypeObject *)of, name));
    if (found != NULL && Py_IS_TYPE(found, &PyStaticMethod_Type))
        Py_SETREF(found, PyObject_GetAttrString(found, "__func__"));
    return found;
}

PyObject *clone_find_global(PyObject *module, PyObject *name) {
    PyObject *at = PyImport_GetModule(module);
    const Py_ssize_t found = at == NULL ? -1 : PyUnicode_FindChar(name, '.', 0, PyUnicode_GET_LENGTH(name), 1);
    if (found == -1 && at != NULL) { /* no dot in it */
        Py_SETREF(at, plain_attribute(at, name));
        return at;
    }
    PyObject *dot = at == NULL ? NULL : PyUnicode_FromString("."), *parts = dot == NULL ? NULL : PyUnicode_Split(name, dot, -1);
    Py_XDECREF(dot);
    if (parts == NULL) {
        Py_XDECREF(at);
        return NULL;
    }
    for (Py_ssize_t i = 0; at != NULL && i < PyList_GET_SIZE(parts); i++)
        Py_SETREF(at, plain_attribute(at, PyList_GET_ITEM(parts, i)));
    Py_DECREF(parts);
    return at;
}

/* ---- types that say how they are cloned -------------------------------------------------------------------------------------------------- */

PyObject *clone_registered_type(core_state *state, PyTypeObject *type, bool ask) {
    if (!ask)
        return PyDict_GetItemWithError(state->clone.types, (PyObject *)type);
    PyObject *helper = clone_helper(state, "of_type");
    PyObject *entry = helper == NULL ? NULL : PyObject_CallOneArg(helper, (PyObject *)type);
    Py_XDECREF(helper);
    if (entry == NULL || entry == Py_None || PyDict_SetItem(state->clone.types, (PyObject *)type, entry) < 0) {
        Py_XDECREF(entry);
        return NULL;
    }
    Py_DECREF(entry);
    return entry; /* the dict has it */
}

PyObject *clone_registered_name(core_state *state, PyObject *name, bool trusted) {
    PyObject *entry = Py_XNewRef(PyDict_GetItemWithError(state->clone.names, name));
    if (entry != NULL || PyErr_Occurred())
        return entry;
    PyObject *helper = clone_helper(state, "of_name");
    entry = helper == NULL ? NULL : PyObject_CallFunctionObjArgs(helper, name, trusted ? Py_True : Py_False, NULL);
    Py_XDECREF(helper);
    if (entry != NULL && PyType_Check(entry)) /* it was imported, and is registered now; or it is known here by another name */
        Py_XSETREF(entry, Py_XNewRef(PyDict_GetItemWithError(state->clone.types, entry)));
    if (entry == Py_None)
        Py_CLEAR(entry);
    return entry;
}

static bool is_known_type(const core_state *state, PyTypeObject *type) {
    PyTypeObject *const known[] = {
        Py_TYPE(Py_None),
        &PyBool_Type,
        &PyLong_Type,
        &PyFloat_Type,
        &PyComplex_Type,
        &PyUnicode_Type,
        &PyBytes_Type,
        &PyTuple_Type,
        &PyByteArray_Type,
        &PyList_Type,
        &PyDict_Type,
        &PySet_Type,
        &PyFrozenSet_Type,
        &PyRange_Type,
        &PySlice_Type,
        &PyType_Type,
        &PyFunction_Type,
        &PyCFunction_Type,
        state->array_type,
        state->transfer_type,
        &PyMemoryView_Type,
        Py_TYPE(Py_Ellipsis),
        Py_TYPE(Py_NotImplemented),
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (type == known[i])
            return true;
    return share_kind_of(state, type) >= 0;
}

int clone_register_type(core_state *state, PyObject *class, PyObject *encode, PyObject *decode) {
    if (!PyType_Check(class))
        PyErr_Format(PyExc_TypeError, "register_type() needs a class, not %R", class);
    else if (!PyCallable_Check(encode))
        PyErr_Format(PyExc_TypeError, "encode must be callable, not %R", encode);
    else if (!PyCallable_Check(decode))
        PyErr_Format(PyExc_TypeError, "decode must be callable, not %R", decode);
    else if (is_known_type(state, (PyTypeObject *)class))
        PyErr_Format(PyExc_ValueError, "%R is cloned by isthmus itself", class);
    if (PyErr_Occurred())
        return -1;
    PyObject *home = PyObject_GetAttr(class, state->clone.module);
    PyObject *called = home == NULL ? NULL : PyObject_GetAttr(class, state->clone.qualname);
    PyObject *name = called == NULL ? NULL : PyUnicode_FromFormat("%S:%S", home, called);
    PyObject *entry = name == NULL ? NULL : PyTuple_Pack(3, name, encode, decode);
    int result =
        entry == NULL || PyDict_SetItem(state->clone.types, class, entry) < 0 ? -1 : PyDict_SetItem(state->clone.names, name, entry);
    Py_XDECREF(home);
    Py_XDECREF(called);
    Py_XDECREF(name);
    Py_XDECREF(entry);
    return result;
}

static PyObject *core_register_type(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"cls", "encode", "decode"};
    static const signature parameters = {"register_type", 3, 3, 3, names};
    PyObject *given[3];
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 ||
        clone_register_type(state_of_module(module), given[0], given[1], given[2]) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- whole messages ------------------------------------------------------------------------------------------------------------------------ */

/* A tuple of SharedArrays, each once and movable; NULL with an exception. */
static PyObject *transferred(core_state *state, PyObject *transfer) {
    PyObject *handles = PySequence_Tuple(transfer);
    for (Py_ssize_t i = 0; handles != NULL && i < PyTuple_GET_SIZE(handles); i++) {
        PyObject *handle = PyTuple_GET_ITEM(handles, i);
        bool twice = false;
        for (Py_ssize_t j = 0; j < i; j++)
            twice |= PyTuple_GET_ITEM(handles, j) == handle;
        if (!Py_IS_TYPE(handle, state->array_type))
            PyErr_Format(PyExc_TypeError, "transfer[%zd] must be a SharedArray, not %.200s", i, Py_TYPE(handle)->tp_name);
        else if (twice)
            PyErr_Format(PyExc_ValueError, "transfer[%zd] is in transfer twice: %R", i, handle);
        if (PyErr_Occurred() || transfer_check((SharedArrayObject *)handle) < 0)
            Py_CLEAR(handles);
    }
    return handles;
}

static void begin_encoding(clone_encoded *out) {
    memset(out, 0, offsetof(clone_encoded, few));
    out->bytes = out->few;
    out->room = sizeof out->few;
}

static void clear_keeping_error(clone_encoded *e) {
    PyObject *raised = PyErr_GetRaisedException();
    clone_clear(e);
    PyErr_SetRaisedException(raised);
}

int clone_encode(core_state *state, PyObject *object, PyObject *transfer, unsigned flags, clone_encoded *out) {
    begin_encoding(out);
    if (transfer != NULL && (out->transfer = transferred(state, transfer)) == NULL)
        return -1;
    if (clone_write(state, object, flags, out) == 0)
        return 0;
    clear_keeping_error(out);
    return -1;
}

int clone_encode_call(core_state *state, PyObject *object, const clone_call *call, clone_encoded *out) {
    begin_encoding(out);
    out->call = call;
    const int result = clone_write(state, object, CLONE_PICKLE, out);
    out->call = NULL;
    if (result < 0)
        clear_keeping_error(out);
    return result;
}

void clone_copy(const clone_encoded *e, unsigned char *to) {
    size_t from = 0;
    for (size_t i = 0; i < e->npieces; i++) {
        const clone_piece *piece = &e->pieces[i];
        memcpy(to, e->bytes + from, piece->at - from);
        to += piece->at - from;
        from = piece->at;
        memcpy(to, piece->data, piece->size);
        to += piece->size;
    }
    memcpy(to, e->bytes + from, e->used - from);
}

int clone_check_transfer(core_state *state, const clone_encoded *e) {
    for (Py_ssize_t i = 0; e->transfer != NULL && i < PyTuple_GET_SIZE(e->transfer); i++)
        if (transfer_check((SharedArrayObject *)PyTuple_GET_ITEM(e->transfer, i)) < 0)
            return -1;
    for (Py_ssize_t i = 0; e->transfers != NULL && i < PyList_GET_SIZE(e->transfers); i++) {
        if (!transfer_pending(PyList_GET_ITEM(e->transfers, i))) {
            PyErr_SetString(state->DetachedError, "a transfer in the message was sent, or released, meanwhile: it can be used once");
            return -1;
        }
    }
    return 0;
}

void clone_sent(clone_encoded *e) {
    for (Py_ssize_t i = 0; e->transfer != NULL && i < PyTuple_GET_SIZE(e->transfer); i++)
        array_release((SharedArrayObject *)PyTuple_GET_ITEM(e->transfer, i));
    for (Py_ssize_t i = 0; e->transfers != NULL && i < PyList_GET_SIZE(e->transfers); i++) {
        if (transfer_pending(PyList_GET_ITEM(e->transfers, i)))
            message_free(transfer_send(PyList_GET_ITEM(e->transfers, i)));
    }
    Py_CLEAR(e->transfer);
    Py_CLEAR(e->transfers);
}

void clone_clear(clone_encoded *e) {
    for (size_t i = 0; i < e->npieces; i++) {
        Py_XDECREF(e->pieces[i].owner);
        if (e->pieces[i].view != NULL)
            PyBuffer_Release(e->pieces[i].view);
        PyMem_Free(e->pieces[i].view);
    }
    PyMem_Free(e->pieces);
    for (Py_ssize_t i = 0; i < e->narrays; i++)
        if (e->messages[i] != NULL)
            message_free(e->messages[i]);
    PyMem_Free(e->messages);
    if (e->bytes != e->few)
        PyMem_Free(e->bytes);
    Py_XDECREF(e->transfer);
    Py_XDECREF(e->transfers);
    memset(e, 0, offsetof(clone_encoded, few));
}

/* ---- functions -------------------------------------------------------------------------------------------------------------------------------- */

int clone_parse_fallback(PyObject *fallback, unsigned *flags) {
    if (fallback == NULL || fallback == Py_None)
        return 0;
    if (PyUnicode_Check(fallback) && PyUnicode_CompareWithASCIIString(fallback, "pickle") == 0) {
        *flags |= CLONE_PICKLE;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "fallback must be None or \"pickle\", not %R", fallback);
    return -1;
}

/* The object of a message that was just made. */
static PyObject *decode_encoded(core_state *state, clone_encoded *e) {
    if (e->npieces == 0)
        return clone_decode(state, e->bytes, e->used, e->messages, e->narrays, CLONE_TRUSTED);
    unsigned char *whole = PyMem_Malloc(clone_size(e));
    if (whole == NULL)
        return PyErr_NoMemory();
    clone_copy(e, whole);
    PyObject *result = clone_decode(state, whole, clone_size(e), e->messages, e->narrays, CLONE_TRUSTED);
    PyMem_Free(whole);
    return result;
}

static PyObject *core_clone(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"obj", "transfer", "fallback"};
    static const signature parameters = {"clone", 3, 3, 1, names};
    core_state *state = state_of_module(module);
    PyObject *given[3];
    unsigned flags = 0;
    clone_encoded e;
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 || clone_parse_fallback(given[2], &flags) < 0 ||
        clone_encode(state, given[0], given[1], flags, &e) < 0)
        return NULL;
    PyObject *result = decode_encoded(state, &e);
    if (result != NULL && clone_check_transfer(state, &e) < 0)
        Py_CLEAR(result);
    if (result != NULL)
        clone_sent(&e);
    clear_keeping_error(&e);
    return result;
}

static PyObject *core_dumps(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"obj", "fallback"};
    static const signature parameters = {"dumps", 2, 1, 1, names};
    core_state *state = state_of_module(module);
    PyObject *given[2];
    unsigned flags = CLONE_BY_VALUE;
    clone_encoded e;
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 || clone_parse_fallback(given[1], &flags) < 0 ||
        clone_encode(state, given[0], NULL, flags, &e) < 0)
        return NULL;
    const Py_ssize_t size = (Py_ssize_t)clone_size(&e);
    SharedArrayObject *bytes = array_create(state, state->dtypes[IST_U1], 1, &size, 0);
    if (bytes != NULL)
        clone_copy(&e, (unsigned char *)bytes->data); /* nobody else has it yet */
    clear_keeping_error(&e);
    return (PyObject *)bytes;
}

static PyObject *core_loads(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"data", "import_classes"};
    static const signature parameters = {"loads", 2, 1, 1, names};
    PyObject *given[2];
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    const int trusted = given[1] == NULL ? 0 : PyObject_IsTrue(given[1]);
    Py_buffer view;
    if (trusted < 0 || PyObject_GetBuffer(given[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *result = clone_decode(state_of_module(module), view.buf, (size_t)view.len, NULL, 0, trusted > 0 ? CLONE_TRUSTED : 0);
    PyBuffer_Release(&view);
    return result;
}

/* ---- calls of workers ------------------------------------------------------------------------------------------------------------------ */

#define IN_SEGMENT_FROM (64 * 1024) /* bytes: longer messages travel as an array, by reference; to copy shorter ones takes less time */

/* A message as bytes and a tuple of arrays; if it is long the bytes are empty and it is the first of the arrays. */
static PyObject *split_message(core_state *state, clone_encoded *e) {
    const Py_ssize_t size = (Py_ssize_t)clone_size(e), first = size >= IN_SEGMENT_FROM;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, first ? 0 : size), *arrays = bytes == NULL ? NULL : PyTuple_New(first + e->narrays);
    PyObject *array = arrays;
    if (arrays != NULL && first) {
        SharedArrayObject *segment = array_create(state, state->dtypes[IST_U1], 1, &size, 0);
        if (segment != NULL) {
            clone_copy(e, (unsigned char *)segment->data); /* nobody else has it yet */
            PyTuple_SET_ITEM(arrays, 0, (PyObject *)segment);
        }
        array = (PyObject *)segment;
    } else if (arrays != NULL) {
        clone_copy(e, (unsigned char *)PyBytes_AS_STRING(bytes));
    }
    for (Py_ssize_t i = 0; array != NULL && i < e->narrays; i++) {
        ist_message *message = e->messages[i];
        e->messages[i] = NULL; /* taken, whatever comes */
        array = (PyObject *)message_receive(state, message);
        if (array != NULL)
            PyTuple_SET_ITEM(arrays, first + i, array);
    }
    if (array == NULL || clone_check_transfer(state, e) < 0) {
        Py_XDECREF(arrays);
        Py_XDECREF(bytes);
        return NULL;
    }
    clone_sent(e);
    return Py_BuildValue("NN", bytes, arrays);
}

PyDoc_STRVAR(
    encode_doc,
    "_encode($module, obj, names, main_by_value, shared_from, lent, /)\n--\n\n"
    "(payload, arrays) of a tuple for a worker, or from one: a structured clone, and what travels beside it.\n\n"
    "names: what errors call its items. main_by_value: what __main__ defines can't be found by its name there. shared_from: ndarrays\n"
    "from this many bytes on travel as arrays. lent: SharedArrays that ndarrays in obj may lie in without being copied, or None.");

static PyObject *core_encode(PyObject *module, PyObject *arguments) {
    core_state *state = state_of_module(module);
    PyObject *object, *lent;
    int main_by_value;
    clone_call call;
    clone_encoded e;
    if (!PyArg_ParseTuple(arguments, "OO!pnO:_encode", &object, &PyTuple_Type, &call.names, &main_by_value, &call.shared_from, &lent))
        return NULL;
    call.main_by_value = main_by_value != 0;
    call.lent = PyList_Check(lent) && PyList_GET_SIZE(lent) > 0 ? lent : NULL;
    if (clone_encode_call(state, object, &call, &e) < 0)
        return NULL;
    PyObject *result = split_message(state, &e);
    clear_keeping_error(&e);
    return result;
}

PyDoc_STRVAR(decode_doc, "_decode($module, payload, arrays, lent, /)\n--\n\n"
                         "The object of what _encode() returned. lent: a list to which goes what becomes an ndarray, or None.");

static PyObject *core_decode(PyObject *module, PyObject *arguments) {
    core_state *state = state_of_module(module);
    PyObject *payload, *arrays, *lent;
    if (!PyArg_ParseTuple(arguments, "OO!O:_decode", &payload, &PyTuple_Type, &arrays, &lent))
        return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *others = NULL, *result = NULL;
    if (view.len == 0 && PyTuple_GET_SIZE(arrays) > 0) {
        PyBuffer_Release(&view);
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(arrays, 0), &view, PyBUF_SIMPLE) < 0)
            return NULL;
        others = PyTuple_GetSlice(arrays, 1, PyTuple_GET_SIZE(arrays));
    } else {
        others = Py_NewRef(arrays);
    }
    if (others != NULL)
        result = clone_decode_call(state, view.buf, (size_t)view.len, others, PyList_Check(lent) ? lent : NULL);
    Py_XDECREF(others);
    PyBuffer_Release(&view);
    return result;
}

/* For tests that register a class of others. */
static PyObject *core_forget_type(PyObject *module, PyObject *type) {
    core_state *state = state_of_module(module);
    PyObject *entry = PyDict_GetItemWithError(state->clone.types, type);
    if (entry == NULL || PyDict_DelItem(state->clone.names, PyTuple_GET_ITEM(entry, 0)) < 0 || PyDict_DelItem(state->clone.types, type) < 0)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_KeyError, "%R", type);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(clone_doc,
             "clone($module, /, obj, transfer=(), fallback=None)\n--\n\n"
             "A copy of obj and of everything it consists of, as if it had been sent to another interpreter.\n\n"
             "Builtin types, dates, numbers, paths, enum members, dataclasses, named tuples, exceptions, arrays; classes and functions by\n"
             "their names; what register_type() was told of. Objects that are met twice are one object in the copy, and cycles stay. A\n"
             "SharedArray arrives as another owner of the same memory, an ndarray as an ndarray over shared memory of its own.\n"
             "transfer: SharedArrays in obj whose references move along: those handles are detached then, unless it fails.\n"
             "fallback=\"pickle\": whatever else there is, is pickled. CloneError says where in obj stands what can't be cloned.");

PyDoc_STRVAR(dumps_doc,
             "dumps($module, /, obj, *, fallback=None)\n--\n\n"
             "The bytes that clone() makes its copy of, as a SharedArray of dtype 'u1' and exactly their size.\n\n"
             "They hold no references: a SharedArray in obj raises CloneError; an ndarray's contents are among them. The format has a\n"
             "version and is the same on every machine.");

PyDoc_STRVAR(loads_doc,
             "loads($module, /, data, *, import_classes=False)\n--\n\n"
             "The object that dumps() made these bytes of: from any buffer.\n\n"
             "Bytes from anywhere are safe: CloneError for what isn't a clone. Classes are found in modules that are loaded, nothing is\n"
             "imported, no __init__ runs, no pickle is loaded; import_classes=True does both, so only for bytes that you trust.\n"
             "What runs in either case: __hash__ and __eq__ of the keys' classes, and functions given to register_type().");

PyDoc_STRVAR(
    register_type_doc,
    "register_type($module, /, cls, encode, decode)\n--\n\n"
    "How instances of exactly this class are cloned: encode(instance) returns something that can be cloned, decode(it) an instance.\n\n"
    "For this interpreter; others that shall receive such objects register it, too. Workers of a pool, and whoever gets a message from a\n"
    "queue, import the class's module, so its top level is the place. Goes before isthmus's own way for dataclasses and the like.\n"
    "ValueError for builtin types.");

PyMethodDef clone_functions[] = {
    {"clone", KEYWORDS(core_clone), clone_doc},         {"dumps", KEYWORDS(core_dumps), dumps_doc},
    {"loads", KEYWORDS(core_loads), loads_doc},         {"register_type", KEYWORDS(core_register_type), register_type_doc},
    {"_encode", core_encode, METH_VARARGS, encode_doc}, {"_decode", core_decode, METH_VARARGS, decode_doc},
    {"_forget_type", core_forget_type, METH_O, NULL},   {NULL, NULL, 0, NULL},
};

/* ---- into the module -------------------------------------------------------------------------------------------------------------------------- */

int clone_init(PyObject *module, core_state *state) {
    state->clone.types = PyDict_New();
    state->clone.names = PyDict_New();
    state->clone.getstate = PyObject_GetAttrString((PyObject *)&PyBaseObject_Type, "__getstate__");
    state->clone.create = PyObject_GetAttrString((PyObject *)&PyBaseObject_Type, "__new__");
    state->clone.fields = PyUnicode_InternFromString("__dataclass_fields__");
    state->clone.module = PyUnicode_InternFromString("__module__");
    state->clone.qualname = PyUnicode_InternFromString("__qualname__");
    static const char *const pickling[CLONE_PICKLING_NAMES] = {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"};
    for (size_t i = 0; i < CLONE_PICKLING_NAMES; i++)
        if ((state->clone.pickling[i] = PyUnicode_InternFromString(pickling[i])) == NULL)
            return -1;
    if (state->clone.module == NULL || state->clone.qualname == NULL || state->clone.fields == NULL || state->clone.types == NULL ||
        state->clone.names == NULL || state->clone.getstate == NULL || state->clone.create == NULL)
        return -1;
    return PyModule_AddFunctions(module, clone_functions);
}

int clone_traverse(core_state *state, visitproc visit, void *arg) {
    Py_VISIT(state->clone.types);
    Py_VISIT(state->clone.names);
    Py_VISIT(state->clone.getstate);
    Py_VISIT(state->clone.create);
    Py_VISIT(state->clone.fields);
    Py_VISIT(state->clone.module);
    Py_VISIT(state->clone.qualname);
    for (size_t i = 0; i < CLONE_PICKLING_NAMES; i++)
        Py_VISIT(state->clone.pickling[i]);
    Py_VISIT(state->clone.helpers);
    Py_VISIT(state->clone.datetime);
    return 0;
}

void clone_fini(core_state *state) {
    Py_CLEAR(state->clone.types);
    Py_CLEAR(state->clone.names);
    Py_CLEAR(state->clone.getstate);
    Py_CLEAR(state->clone.create);
    Py_CLEAR(state->clone.fields);
    Py_CLEAR(state->clone.module);
    Py_CLEAR(state->clone.qualname);
    for (size_t i = 0; i < CLONE_PICKLING_NAMES; i++)
        Py_CLEAR(state->clone.pickling[i]);
    Py_CLEAR(state->clone.helpers);
    Py_CLEAR(state->clone.datetime);
}
