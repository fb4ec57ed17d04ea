/* clone_class.c: objects of classes that are written in Python: which of them are cloned by their parts, and how they are made again.
 *
 * What a message names is untrusted: only a dataclass, a named tuple, an enum or an exception is made into something, without __new__ or
 * __init__ of its own; attributes are set as the object's own, past properties and __setattr__.
 */
#include "clone_decoder.h"

#include <structmember.h>

static int refuse_class(decoder *d, PyObject *class, const char *what) {
    PyErr_Format(d->state->CloneError, "%R isn't %s", class, what);
    return -1;
}

/* ---- which they are ------------------------------------------------------------------------------------------------------------------ */

/* The first base that isn't written in Python. */
static PyTypeObject *builtin_base(PyTypeObject *type) {
    while (type->tp_flags & Py_TPFLAGS_HEAPTYPE)
        type = type->tp_base;
    return type;
}

int clone_is_enum(PyTypeObject *type) {
    if (Py_IS_TYPE((PyObject *)type, &PyType_Type)) /* no metaclass */
        return 0;
    PyObject *meta = clone_loaded("enum", "EnumMeta");
    if (meta == NULL)
        return PyErr_Occurred() ? -1 : 0;
    const bool is = PyType_Check(meta) && PyType_IsSubtype(Py_TYPE((PyObject *)type), (PyTypeObject *)meta);
    Py_DECREF(meta);
    return is;
}

/* Its fields, borrowed; NULL with or without an exception. */
static PyObject *fields_of_namedtuple(PyTypeObject *type) {
    if (!PyType_IsSubtype(type, &PyTuple_Type) || type == &PyTuple_Type)
        return NULL;
    PyObject *name = PyUnicode_InternFromString("_fields");
    PyObject *fields = name == NULL ? NULL : _PyType_Lookup(type, name);
    Py_XDECREF(name);
    return fields != NULL && PyTuple_CheckExact(fields) && builtin_base(type) == &PyTuple_Type ? fields : NULL;
}

int clone_is_namedtuple(PyTypeObject *type) { return fields_of_namedtuple(type) != NULL ? 1 : PyErr_Occurred() ? -1 : 0; }

int clone_is_dataclass(core_state *state, PyTypeObject *type) {
    return (type->tp_flags & Py_TPFLAGS_HEAPTYPE) != 0 && _PyType_Lookup(type, state->clone.fields) != NULL &&
           builtin_base(type) == &PyBaseObject_Type;
}

/* ---- exceptions ------------------------------------------------------------------------------------------------------------------------ */

PyTypeObject *clone_builtin_exception(PyTypeObject *type) { return builtin_base(type); }

bool clone_exception_is_late(PyTypeObject *builtin) {
    return PyType_IsSubtype(builtin, (PyTypeObject *)PyExc_OSError) || PyType_IsSubtype(builtin, (PyTypeObject *)PyExc_BaseExceptionGroup);
}

const char *clone_exception_attribute(size_t i, PyObject **class) {
    switch (i) {
    case 0: *class = PyExc_ImportError; return "name";
    case 1: *class = PyExc_ImportError; return "path";
    case 2: *class = PyExc_NameError; return "name";
    case 3: *class = PyExc_AttributeError; return "name";
    default: return NULL;
    }
}

PyObject *clone_builtin_descriptor(PyObject *class, const char *name) {
    PyObject *dict = PyType_GetDict((PyTypeObject *)class);
    PyObject *descriptor = dict == NULL ? NULL : clone_dict_item(dict, name);
    Py_XDECREF(dict);
    if (descriptor == NULL && !PyErr_Occurred())
        PyErr_Format(PyExc_SystemError, "%R has no %s", class, name);
    return descriptor;
}

static int set_exception_attributes(decoder *d, PyObject *exception, PyObject *attributes) {
    if (!PyDict_CheckExact(attributes))
        return attributes == Py_None ? 0 : decode_failed(d, "an exception whose attributes aren't in a dict");
    PyObject *class;
    const char *name;
    Py_ssize_t left = PyDict_GET_SIZE(attributes);
    for (size_t i = 0; (name = clone_exception_attribute(i, &class)) != NULL; i++) {
        PyObject *value = PyObject_TypeCheck(exception, (PyTypeObject *)class) ? clone_dict_item(attributes, name) : NULL;
        PyObject *descriptor = value == NULL ? NULL : clone_builtin_descriptor(class, name);
        const int result = descriptor == NULL ? -1 : Py_TYPE(descriptor)->tp_descr_set(descriptor, exception, value);
        const bool there = value != NULL;
        Py_XDECREF(value);
        Py_XDECREF(descriptor);
        if (result < 0 && PyErr_Occurred())
            return -1;
        left -= there;
    }
    return left == 0 ? 0 : decode_failed(d, "an exception with an attribute that its class hasn't");
}

/* With its arguments, or for the time being without any. */
static PyObject *make_exception(decoder *d, PyObject *class, PyObject *arguments) {
    PyObject *exception = make_sensible(d, builtin_base((PyTypeObject *)class)->tp_new((PyTypeObject *)class, arguments, NULL));
    if (exception == NULL || PyExceptionInstance_Check(exception))
        return exception;
    Py_DECREF(exception);
    return decode_refuse(d, "an exception that isn't one");
}

static int give_arguments(decoder *d, open_item *f, PyObject *class, PyObject *arguments) {
    if (!PyTuple_CheckExact(arguments))
        return decode_failed(d, "an exception whose arguments aren't a tuple");
    if (f->key == NULL && (f->key = make_exception(d, class, arguments)) != NULL && f->number > 0)
        d->kept[f->number - 1].object = Py_NewRef(f->key);
    if (f->key == NULL)
        return -1;
    const bool done = builtin_base((PyTypeObject *)class)->tp_init(f->key, arguments, NULL) == 0;
    return make_sensible(d, done ? f->key : NULL) == NULL ? -1 : 0;
}

int exception_item(decoder *d, open_item *f, Py_ssize_t i) {
    PyObject *class = PyTuple_GET_ITEM(f->into, 0), *item = PyTuple_GET_ITEM(f->into, i);
    switch (i) {
    case 0:
        if (!PyExceptionClass_Check(class))
            return refuse_class(d, class, "an exception");
        if (clone_exception_is_late(builtin_base((PyTypeObject *)class)))
            return 0;
        PyObject *none = PyTuple_New(0);
        f->key = none == NULL ? NULL : make_exception(d, class, none);
        Py_XDECREF(none);
        if (f->key != NULL && f->number > 0)
            d->kept[f->number - 1].object = Py_NewRef(f->key);
        return f->key == NULL ? -1 : 0;
    case 1: return give_arguments(d, f, class, item);
    case 2: return set_exception_attributes(d, f->key, item);
    case 3:
        if (item == Py_None)
            return 0;
        if (!PyDict_CheckExact(item))
            return decode_failed(d, "an exception whose __dict__ isn't a dict");
        Py_XSETREF(((PyBaseExceptionObject *)f->key)->dict, Py_NewRef(item));
        return 0;
    default:
        if (item != Py_None && !PyExceptionInstance_Check(item))
            return decode_failed(d, "an exception whose cause or context isn't one");
        if (item != Py_None)
            (i == 4 ? PyException_SetCause : PyException_SetContext)(f->key, Py_NewRef(item));
        if (i == 5)
            ((PyBaseExceptionObject *)f->key)->suppress_context = f->integer != 0;
        return 0;
    }
}

/* ---- instances ------------------------------------------------------------------------------------------------------------------------- */

static PyObject *without_arguments(PyObject *class) {
    PyObject *none = PyTuple_New(0);
    PyObject *instance = none == NULL ? NULL : PyBaseObject_Type.tp_new((PyTypeObject *)class, none, NULL);
    Py_XDECREF(none);
    return instance;
}

PyObject *make_instance(decoder *d, PyObject *class) {
    if (class == (PyObject *)d->checked)
        return without_arguments(class);
    if (!PyType_Check(class) || clone_is_dataclass(d->state, (PyTypeObject *)class) == 0) {
        refuse_class(d, class, "a dataclass");
        return NULL;
    }
    PyObject *instance =
        make_sensible(d, PyObject_CallOneArg(d->state->clone.create, class)); /* object.__new__, which sees whether it may be */
    if (instance != NULL)
        Py_XSETREF(d->checked, (PyTypeObject *)Py_NewRef(class));
    return instance;
}

PyObject *make_namedtuple(decoder *d, PyObject *class, Py_ssize_t n) {
    PyObject *fields = PyType_Check(class) ? fields_of_namedtuple((PyTypeObject *)class) : NULL;
    if (fields == NULL) {
        if (!PyErr_Occurred())
            refuse_class(d, class, "a named tuple");
        return NULL;
    }
    if (PyTuple_GET_SIZE(fields) != n)
        return PyErr_Format(d->state->CloneError, "%R has %zd fields here, and had %zd where it comes from", class,
                            PyTuple_GET_SIZE(fields), n);
    PyObject *tuple = ((PyTypeObject *)class)->tp_alloc((PyTypeObject *)class, n);
    for (Py_ssize_t i = 0; tuple != NULL && i < n; i++)
        PyTuple_SET_ITEM(tuple, i, Py_None); /* immortal */
    return tuple;
}

int set_instance_attribute(decoder *d, PyObject *instance, PyObject *name, PyObject *value) {
    PyTypeObject *type = Py_TYPE(instance);
    PyObject *descriptor = _PyType_Lookup(type, name); /* borrowed from the class, which nothing here changes */
    if (descriptor == NULL || Py_TYPE(descriptor)->tp_descr_set == NULL || Py_IS_TYPE(descriptor, &PyMemberDescr_Type))
        return make_sensible(d, PyObject_GenericSetAttr(instance, name, value) == 0 ? instance : NULL) == NULL ? -1 : 0;
    /* a property or the like: the attribute stands in the dict, behind it */
    PyObject *dict = clone_has_dict(type) ? PyObject_GenericGetDict(instance, NULL) : NULL;
    if (dict == NULL)
        return PyErr_Occurred() ? -1 : refuse_class(d, (PyObject *)type, "a class whose instances have that attribute");
    const int result = PyDict_SetItem(dict, name, value);
    Py_DECREF(dict);
    return result;
}

/* ---- what has a name --------------------------------------------------------------------------------------------------------------------- */

PyObject *make_global(decoder *d, PyObject *module, PyObject *name) {
    if (!PyUnicode_CheckExact(module) || !PyUnicode_CheckExact(name))
        return decode_refuse(d, "a class whose name isn't text");
    const bool trusted = (d->flags & CLONE_TRUSTED) != 0;
    PyObject *found = clone_find_global(module, name);
    if (found == NULL && trusted && !PyErr_Occurred()) { /* it has to be imported, or its module has a __getattr__ */
        PyObject *helper = clone_helper(d->state, "find_global");
        found = helper == NULL ? NULL : PyObject_CallFunctionObjArgs(helper, module, name, NULL);
        Py_XDECREF(helper);
        if (found == Py_None)
            Py_CLEAR(found);
    }
    if (found == NULL && !PyErr_Occurred())
        return PyErr_Format(d->state->CloneError, "%U.%U isn't there%s", module, name,
                            trusted ? "" : ", in none of the modules that are loaded: import it before, or say import_classes=True");
    /* trusted: what stands for a function of a module that can't be imported here, or what a decorator made of it */
    if (found == NULL || trusted || PyType_Check(found) || Py_IS_TYPE(found, &PyFunction_Type) || Py_IS_TYPE(found, &PyCFunction_Type))
        return found;
    Py_DECREF(found);
    return PyErr_Format(d->state->CloneError, "%U.%U is neither a class nor a function", module, name);
}

PyObject *make_member(decoder *d, PyObject *class, PyObject *of) {
    const int is_enum = PyType_Check(class) ? clone_is_enum((PyTypeObject *)class) : 0;
    if (is_enum <= 0) {
        if (is_enum == 0)
            refuse_class(d, class, "an enum");
        return NULL;
    }
    PyObject *member = NULL;
    if (PyUnicode_CheckExact(of)) {
        PyObject *dict = PyType_GetDict((PyTypeObject *)class);
        PyObject *members = dict == NULL ? NULL : clone_dict_item(dict, "_member_map_");
        if (members != NULL && PyDict_CheckExact(members))
            member = Py_XNewRef(PyDict_GetItemWithError(members, of));
        Py_XDECREF(members);
        Py_XDECREF(dict);
    } else if (PyLong_CheckExact(of)) {
        PyObject *helper = clone_helper(d->state, "flags");
        member = helper == NULL ? NULL : PyObject_CallFunctionObjArgs(helper, class, of, NULL);
        Py_XDECREF(helper);
        if (member == Py_None)
            Py_CLEAR(member);
    }
    if (member != NULL && !Py_IS_TYPE(member, (PyTypeObject *)class))
        Py_CLEAR(member);
    if (member == NULL && !PyErr_Occurred())
        PyErr_Format(d->state->CloneError, "%R has no member %R", class, of);
    return member;
}

PyObject *make_registered(decoder *d, PyObject *name, PyObject *value) {
    if (!PyUnicode_CheckExact(name))
        return decode_refuse(d, "a registered type whose name isn't text");
    PyObject *entry = clone_registered_name(d->state, name, (d->flags & CLONE_TRUSTED) != 0);
    if (entry == NULL) {
        if (!PyErr_Occurred())
            PyErr_Format(d->state->CloneError, "nobody has told this interpreter how to make a %U (isthmus.register_type)%s", name,
                         d->flags & CLONE_TRUSTED ? "" : ", or its module isn't loaded");
        return NULL;
    }
    const int theirs = PyDict_Contains(d->state->clone.names, PyTuple_GET_ITEM(entry, 0)); /* then its exceptions are, too */
    PyObject *object = theirs < 0 ? NULL : PyObject_CallOneArg(PyTuple_GET_ITEM(entry, 2), value);
    Py_DECREF(entry);
    return theirs != 0 ? object : make_sensible(d, object);
}
