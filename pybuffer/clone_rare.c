/* clone_rare.c: the less common types become items: what is looked up by name, what consists of other objects, arrays and buffers.
 *
 * Python code may run here (attributes of classes, encode functions, pickle): clone_write.c holds the object and what leads to it.
 * Every function returns what put_rare returns.
 */
#include "clone_encoder.h"
#include "shareable.h"

#define CHILDREN(...) PyTuple_Pack(sizeof((PyObject *[]){__VA_ARGS__}) / sizeof(PyObject *), __VA_ARGS__)

/* A tag, and the items of a new tuple, which is taken. */
static int put_children(encoder *e, unsigned tag, PyObject *children, put_label label) {
    if (children != NULL && put_tag(e, tag) < 0)
        Py_CLEAR(children);
    return push_children(e, children, label, NULL, 0);
}

/* ---- builtins -------------------------------------------------------------------------------------------------------------------------- */

static int put_complex(encoder *e, PyObject *number) {
    const Py_complex value = PyComplex_AsCComplex(number);
    uint64_t real, imaginary;
    memcpy(&real, &value.real, sizeof real);
    memcpy(&imaginary, &value.imag, sizeof imaginary);
    unsigned char *at = room_for(e, 17);
    if (at == NULL)
        return -1;
    wrote(e, ist_clone_put64(ist_clone_put64(ist_clone_put_tag(at, IST_CLONE_COMPLEX), real), imaginary));
    return 0;
}

static int put_range(encoder *e, PyObject *range) {
    PyObject *start = PyObject_GetAttrString(range, "start"), *stop = PyObject_GetAttrString(range, "stop");
    PyObject *step = PyObject_GetAttrString(range, "step"), *children = NULL;
    if (start != NULL && stop != NULL && step != NULL)
        children = CHILDREN(start, stop, step);
    Py_XDECREF(start);
    Py_XDECREF(stop);
    Py_XDECREF(step);
    return put_children(e, IST_CLONE_RANGE, children, LABEL_NONE);
}

static int put_slice(encoder *e, PyObject *object) {
    const PySliceObject *slice = (PySliceObject *)object;
    return put_children(e, IST_CLONE_SLICE, CHILDREN(slice->start, slice->stop, slice->step), LABEL_ROUGH);
}

/* ---- by name --------------------------------------------------------------------------------------------------------------------------- */

static int put_global(encoder *e, PyObject *object) {
    PyObject *module = PyObject_GetAttrString(object, "__module__"), *found = NULL;
    PyObject *name = module == NULL ? NULL : PyObject_GetAttrString(object, "__qualname__");
    int result = -1;
    if (name == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        result = refuse(e, "a %.200s without a name", Py_TYPE(object)->tp_name);
    } else if (name == NULL) {
        result = -1;
    } else if (!PyUnicode_CheckExact(module) || !PyUnicode_CheckExact(name)) {
        result = refuse(e, "%R isn't of a module, so it can't be found by its name", object);
    } else if ((found = clone_find_global(e->state, module, name, false)) != object) {
        if (found != NULL || !PyErr_Occurred())
            result = refuse(e, "%R isn't what %U.%U is, where it would be looked for", object, module, name);
    } else if (put_tag(e, IST_CLONE_GLOBAL) == 0 && put_text(e, module) == 0) {
        result = put_text(e, name);
    }
    Py_XDECREF(found);
    Py_XDECREF(module);
    Py_XDECREF(name);
    return result;
}

static int put_enum(encoder *e, PyObject *member) {
    PyObject *class = (PyObject *)Py_TYPE(member), *map = PyObject_GetAttrString(class, "_member_map_");
    PyObject *name = map == NULL ? NULL : PyObject_GetAttrString(member, "_name_"), *found = NULL;
    if (name != NULL && PyDict_CheckExact(map) && PyUnicode_CheckExact(name)) {
        found = Py_XNewRef(PyDict_GetItemWithError(map, name));
    }
    PyObject *children = NULL;
    if (found == member) {
        children = CHILDREN(class, name);
    } else if (name != NULL && !PyErr_Occurred()) { /* several flags at once */
        PyObject *value = PyObject_GetAttrString(member, "_value_");
        if (value != NULL && PyLong_CheckExact(value))
            children = CHILDREN(class, value);
        else if (value != NULL)
            refuse(e, "%R isn't a member of its class", member);
        Py_XDECREF(value);
    }
    Py_XDECREF(found);
    Py_XDECREF(name);
    Py_XDECREF(map);
    return put_children(e, IST_CLONE_ENUM, children, LABEL_CLASS);
}

static int put_registered(encoder *e, PyObject *object, PyObject *entry) {
    if (put_tag(e, IST_CLONE_REGISTERED) < 0)
        return -1;
    Py_INCREF(entry);
    PyObject *value = PyObject_CallOneArg(PyTuple_GET_ITEM(entry, 1), object), *children = NULL;
    if (value != NULL) {
        children = CHILDREN(PyTuple_GET_ITEM(entry, 0), value);
        Py_DECREF(value);
    }
    Py_DECREF(entry);
    return push_children(e, children, LABEL_REGISTERED, object, 2);
}

/* ---- by their parts ---------------------------------------------------------------------------------------------------------------------- */

static int put_namedtuple(encoder *e, PyObject *tuple) {
    const Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    if (clone_has_dict(Py_TYPE(tuple))) {
        PyObject *attributes = PyObject_GenericGetDict(tuple, NULL);
        if (attributes == NULL)
            return -1;
        const bool some = PyDict_GET_SIZE(attributes) > 0;
        Py_DECREF(attributes);
        if (some)
            return refuse(e, "a %.200s that has attributes besides its fields", Py_TYPE(tuple)->tp_name);
    }
    unsigned char *at = room_for(e, IST_CLONE_ROOM);
    PyObject *children = at == NULL ? NULL : PyTuple_New(n + 1);
    if (children == NULL)
        return -1;
    wrote(e, ist_clone_put_counted(at, IST_CLONE_NAMEDTUPLE, (uint64_t)n + 1));
    PyTuple_SET_ITEM(children, 0, Py_NewRef((PyObject *)Py_TYPE(tuple)));
    for (Py_ssize_t i = 0; i < n; i++)
        PyTuple_SET_ITEM(children, i + 1, Py_NewRef(PyTuple_GET_ITEM(tuple, i)));
    return push_children(e, children, LABEL_FIELDS, NULL, 0);
}

/* Names and values into children from `at` on; -1: a name that isn't a str. Both are dicts or None. */
static int list_attributes(encoder *e, PyObject *children, Py_ssize_t at, PyObject *attributes) {
    PyObject *name, *value;
    Py_ssize_t position = 0;
    while (attributes != Py_None && PyDict_Next(attributes, &position, &name, &value)) {
        if (!PyUnicode_CheckExact(name))
            return refuse(e, "an attribute whose name is a %.200s", Py_TYPE(name)->tp_name);
        PyTuple_SET_ITEM(children, at++, Py_NewRef(name));
        PyTuple_SET_ITEM(children, at++, Py_NewRef(value));
    }
    return 0;
}

static int put_attributes(encoder *e, PyObject *object, PyObject *attributes, PyObject *slots) {
    const Py_ssize_t n = attributes == Py_None ? 0 : PyDict_GET_SIZE(attributes), m = slots == Py_None ? 0 : PyDict_GET_SIZE(slots);
    PyObject *children = PyTuple_New(1 + 2 * (n + m));
    if (children == NULL)
        return -1;
    PyTuple_SET_ITEM(children, 0, Py_NewRef((PyObject *)Py_TYPE(object)));
    unsigned char *at = room_for(e, IST_CLONE_ROOM);
    if (at == NULL || list_attributes(e, children, 1, attributes) < 0 || list_attributes(e, children, 1 + 2 * n, slots) < 0) {
        Py_DECREF(children);
        return -1;
    }
    wrote(e, ist_clone_put_counted(at, IST_CLONE_INSTANCE, (uint64_t)(n + m)));
    return push_children(e, children, LABEL_NAMES, NULL, 0);
}

static int put_dataclass(encoder *e, PyObject *object) {
    /* object's own: its dict, or (dict, slots), or None; a class's __getstate__ isn't asked */
    PyObject *state = PyObject_CallOneArg(e->state->clone.getstate, object), *attributes = state, *slots = Py_None;
    if (state == NULL)
        return -1;
    if (PyTuple_CheckExact(state) && PyTuple_GET_SIZE(state) == 2) {
        attributes = PyTuple_GET_ITEM(state, 0);
        slots = PyTuple_GET_ITEM(state, 1);
    }
    int result = (attributes != Py_None && !PyDict_CheckExact(attributes)) || (slots != Py_None && !PyDict_CheckExact(slots))
                     ? refuse(e, "a %.200s whose attributes aren't in a dict", Py_TYPE(object)->tp_name)
                     : put_attributes(e, object, attributes, slots);
    Py_DECREF(state);
    return result;
}

/* OSError keeps file names apart from its args, which are then what its constructor would say again. */
static PyObject *exception_arguments(PyBaseExceptionObject *exception) {
    PyObject *args = exception->args;
    if (!PyObject_TypeCheck((PyObject *)exception, (PyTypeObject *)PyExc_OSError) || !PyTuple_CheckExact(args) ||
        PyTuple_GET_SIZE(args) != 2)
        return args == NULL ? PyTuple_New(0) : Py_NewRef(args);
    const PyOSErrorObject *error = (PyOSErrorObject *)exception;
    PyObject *number = PyTuple_GET_ITEM(args, 0), *text = PyTuple_GET_ITEM(args, 1);
    if (error->filename == NULL)
        return Py_NewRef(args);
    return error->filename2 == NULL ? CHILDREN(number, text, error->filename)
                                    : CHILDREN(number, text, error->filename, Py_None, error->filename2);
}

/* What isn't among its arguments, of what the builtin classes know: a dict, or None. */
static PyObject *exception_attributes(PyObject *exception) {
    PyObject *found = NULL, *class;
    const char *name;
    for (size_t i = 0; (name = clone_exception_attribute(i, &class)) != NULL; i++) {
        if (!PyObject_TypeCheck(exception, (PyTypeObject *)class))
            continue;
        PyObject *descriptor = clone_builtin_descriptor(class, name);
        PyObject *value = descriptor == NULL ? NULL : Py_TYPE(descriptor)->tp_descr_get(descriptor, exception, class);
        Py_XDECREF(descriptor);
        int result = value == NULL ? -1 : 0;
        if (result == 0 && value != Py_None)
            result = found == NULL && (found = PyDict_New()) == NULL ? -1 : PyDict_SetItemString(found, name, value);
        Py_XDECREF(value);
        if (result < 0) {
            Py_XDECREF(found);
            return NULL;
        }
    }
    return found != NULL ? found : Py_NewRef(Py_None);
}

static PyObject *or_none(PyObject *object) { return object != NULL ? object : Py_None; }

static bool is_late(PyObject *object) {
    return PyExceptionInstance_Check(object) && clone_exception_is_late(clone_builtin_exception(Py_TYPE(object)));
}

static int put_exception(encoder *e, PyObject *object) {
    PyBaseExceptionObject *exception = (PyBaseExceptionObject *)object;
    unsigned char *at = room_for(e, 2);
    if (at == NULL)
        return -1;
    *at++ = IST_CLONE_EXCEPTION;
    *at++ = exception->suppress_context != 0;
    wrote(e, at);
    PyObject *args = exception_arguments(exception), *attributes = args == NULL ? NULL : exception_attributes(object), *children = NULL;
    if (attributes != NULL)
        children = CHILDREN((PyObject *)Py_TYPE(object), args, attributes, or_none(exception->dict), or_none(exception->cause),
                            or_none(exception->context));
    Py_XDECREF(args);
    Py_XDECREF(attributes);
    return push_children(e, children, LABEL_EXCEPTION, is_late(object) ? object : NULL, 2);
}

/* ---- dates and times -------------------------------------------------------------------------------------------------------------------- */

static unsigned char *put_date(unsigned char *at, PyObject *date) {
    at = ist_clone_put16(at, (uint16_t)PyDateTime_GET_YEAR(date));
    *at++ = (unsigned char)PyDateTime_GET_MONTH(date);
    *at++ = (unsigned char)PyDateTime_GET_DAY(date);
    return at;
}

static unsigned char *put_clock(unsigned char *at, int hour, int minute, int second, int fold, int microsecond) {
    *at++ = (unsigned char)hour;
    *at++ = (unsigned char)minute;
    *at++ = (unsigned char)second;
    *at++ = (unsigned char)fold;
    return ist_clone_put32(at, (uint32_t)microsecond);
}

static unsigned char *put_delta(unsigned char *at, PyObject *delta) {
    at = ist_clone_put32(at, (uint32_t)PyDateTime_DELTA_GET_DAYS(delta));
    at = ist_clone_put32(at, (uint32_t)PyDateTime_DELTA_GET_SECONDS(delta));
    return ist_clone_put32(at, (uint32_t)PyDateTime_DELTA_GET_MICROSECONDS(delta));
}

static int put_timezone(encoder *e, PyObject *zone, const PyDateTime_CAPI *datetime) {
    if (zone == datetime->TimeZone_UTC)
        return put_tag(e, IST_CLONE_UTC);
    PyObject *arguments = PyObject_CallMethod(zone, "__getinitargs__", NULL); /* (offset,) or (offset, name) */
    unsigned char *at = arguments == NULL ? NULL : room_for(e, 13);
    PyObject *children = NULL;
    if (at != NULL) {
        wrote(e, put_delta(ist_clone_put_tag(at, IST_CLONE_TIMEZONE), PyTuple_GET_ITEM(arguments, 0)));
        children = CHILDREN(PyTuple_GET_SIZE(arguments) > 1 ? PyTuple_GET_ITEM(arguments, 1) : Py_None);
    }
    Py_XDECREF(arguments);
    return push_children(e, children, LABEL_NONE, NULL, 0);
}

/* The datetime module in Python, which 3.12's interpreters with a GIL of their own have: isthmus._clone takes the object to pieces. */
static int put_python_time(encoder *e, PyObject *o) {
    PyObject *is_there = clone_loaded("datetime", "datetime"), *helper = NULL, *parts = NULL;
    if (is_there == NULL)
        return PyErr_Occurred() ? -1 : 2;
    Py_DECREF(is_there);
    helper = clone_helper(e->state, "time_parts");
    if (helper != NULL)
        parts = PyObject_CallOneArg(helper, o); /* (kind, counted from IST_CLONE_DATE; bytes; an item, or nothing), or None */
    Py_XDECREF(helper);
    int kind, result = parts == NULL ? -1 : 2;
    const char *data;
    Py_ssize_t size;
    PyObject *zone = NULL;
    if (parts != NULL && parts != Py_None) {
        unsigned char *at = PyArg_ParseTuple(parts, "iy#|O", &kind, &data, &size, &zone) ? room_for(e, IST_CLONE_ROOM) : NULL;
        if (at != NULL) {
            at = ist_clone_put_tag(at, IST_CLONE_DATE + (unsigned)kind);
            memcpy(at, data, (size_t)size);
            wrote(e, at + size);
        }
        result = at == NULL ? -1 : zone == NULL ? 0 : push_children(e, CHILDREN(zone), LABEL_NONE, NULL, 0);
    }
    Py_XDECREF(parts);
    return result;
}

/* 2: it is none of them. */
static int put_time(encoder *e, PyObject *o) {
    const PyDateTime_CAPI *datetime = clone_datetime(e->state);
    if (datetime == NULL)
        return PyErr_Occurred() ? -1 : put_python_time(e, o);
    const PyTypeObject *type = Py_TYPE(o);
    if (type == Py_TYPE(datetime->TimeZone_UTC))
        return put_timezone(e, o, datetime);
    const bool is_moment = type == datetime->DateTimeType, is_time = type == datetime->TimeType;
    if (!is_moment && !is_time && type != datetime->DateType && type != datetime->DeltaType)
        return 2;
    unsigned char *at = room_for(e, IST_CLONE_ROOM);
    if (at == NULL)
        return -1;
    PyObject *zone = Py_None;
    if (is_moment) {
        zone = PyDateTime_DATE_GET_TZINFO(o);
        at = put_date(ist_clone_put_tag(at, zone == Py_None ? IST_CLONE_DATETIME : IST_CLONE_ZONED_DATETIME), o);
        at = put_clock(at, PyDateTime_DATE_GET_HOUR(o), PyDateTime_DATE_GET_MINUTE(o), PyDateTime_DATE_GET_SECOND(o),
                       PyDateTime_DATE_GET_FOLD(o), PyDateTime_DATE_GET_MICROSECOND(o));
    } else if (is_time) {
        zone = PyDateTime_TIME_GET_TZINFO(o);
        at = put_clock(ist_clone_put_tag(at, zone == Py_None ? IST_CLONE_TIME : IST_CLONE_ZONED_TIME), PyDateTime_TIME_GET_HOUR(o),
                       PyDateTime_TIME_GET_MINUTE(o), PyDateTime_TIME_GET_SECOND(o), PyDateTime_TIME_GET_FOLD(o),
                       PyDateTime_TIME_GET_MICROSECOND(o));
    } else if (type == datetime->DateType) {
        at = put_date(ist_clone_put_tag(at, IST_CLONE_DATE), o);
    } else {
        at = put_delta(ist_clone_put_tag(at, IST_CLONE_TIMEDELTA), o);
    }
    wrote(e, at);
    return zone == Py_None ? 0 : push_children(e, CHILDREN(zone), LABEL_NONE, NULL, 0);
}

/* ---- arrays and buffers ------------------------------------------------------------------------------------------------------------------ */

/* By a copy that is the message's own. */
static int put_copy(encoder *e, PyObject *object) {
    SharedArrayObject *copy = array_from_object(e->state, object, NULL);
    if (copy == NULL)
        return -1;
    int result = put_array(e, copy);
    Py_DECREF((PyObject *)copy);
    return result;
}

static int put_memoryview(encoder *e, PyObject *view) {
    unsigned char *at = room_for(e, 2);
    if (at == NULL)
        return -1;
    *at++ = IST_CLONE_MEMORYVIEW;
    *at++ = PyMemoryView_GET_BUFFER(view)->readonly != 0;
    wrote(e, at);
    return put_copy(e, view);
}

/* Fortran order, and not C order as well: it arrives as it was. */
static bool is_transposed(PyObject *ndarray) {
    Py_buffer view;
    if (PyObject_GetBuffer(ndarray, &view, PyBUF_STRIDES) < 0) { /* as it never fails for an ndarray of a plain dtype: C order then */
        PyErr_Clear();
        return false;
    }
    const bool transposed = PyBuffer_IsContiguous(&view, 'F') && !PyBuffer_IsContiguous(&view, 'C');
    PyBuffer_Release(&view);
    return transposed;
}

static int put_ndarray(encoder *e, PyObject *ndarray) {
    PyObject *is_plain = clone_helper(e->state, "is_plain");
    PyObject *plain = is_plain == NULL ? NULL : PyObject_CallOneArg(is_plain, ndarray);
    Py_XDECREF(is_plain);
    const int fine = plain == NULL ? -1 : PyObject_IsTrue(plain);
    Py_XDECREF(plain);
    if (fine <= 0)
        return fine < 0 ? -1 : 2;
    const bool transposed = is_transposed(ndarray);
    if (put_tag(e, transposed ? IST_CLONE_NDARRAY_F : IST_CLONE_NDARRAY) < 0)
        return -1;
    if (!transposed)
        return put_copy(e, ndarray);
    PyObject *other = PyObject_GetAttrString(ndarray, "T");
    int result = other == NULL ? -1 : put_copy(e, other);
    Py_XDECREF(other);
    return result;
}

static int put_array_array(encoder *e, PyObject *array) {
    PyObject *code = PyObject_GetAttrString(array, "typecode");
    if (code == NULL)
        return -1;
    const unsigned char head[2] = {IST_CLONE_ARRAY_ARRAY, (unsigned char)PyUnicode_READ_CHAR(code, 0)};
    Py_DECREF(code);
    return put_view(e, head, sizeof head, array);
}

/* -1 with an exception. */
static int is_named(PyObject *object, const char *full, const char *module, const char *name) {
    if (strcmp(Py_TYPE(object)->tp_name, full) != 0)
        return 0;
    PyObject *type = clone_loaded(module, name);
    Py_XDECREF(type);
    return type == NULL && PyErr_Occurred() ? -1 : type == (PyObject *)Py_TYPE(object);
}

/* ---- the rest ------------------------------------------------------------------------------------------------------------------------------ */

static int put_unknown(encoder *e, PyObject *object) {
    if ((e->flags & CLONE_PICKLE) == 0)
        return refuse(e, "%.200s objects can't be cloned: %s", Py_TYPE(object)->tp_name,
                      PyTuple_Check(object) || PyList_Check(object) || PyDict_Check(object) || PyUnicode_Check(object) ||
                              PyLong_Check(object) || PyFloat_Check(object) || PyBytes_Check(object) || PyAnySet_Check(object)
                          ? "its class isn't the builtin one, and would be lost (isthmus.register_type, or fallback=\"pickle\")"
                          : "isthmus.register_type says how, or fallback=\"pickle\" pickles it");
    PyObject *pickle = clone_helper(e->state, "pickled");
    PyObject *parts = pickle == NULL ? NULL : PyObject_CallOneArg(pickle, object); /* (bytes, array, array …) */
    PyObject *children = parts == NULL ? NULL : CHILDREN(parts);
    Py_XDECREF(parts);
    Py_XDECREF(pickle);
    return put_children(e, IST_CLONE_PICKLE, children, LABEL_NONE);
}

/* 2: it is none of those that are known by their exact type. */
static int put_exact(encoder *e, PyObject *o) {
    const core_state *state = e->state;
    const PyTypeObject *type = Py_TYPE(o);
    static const unsigned char bytearray_head[] = {IST_CLONE_BYTEARRAY};
    if (type == &PyComplex_Type)
        return put_complex(e, o);
    if (type == &PyByteArray_Type)
        return put_view(e, bytearray_head, 1, o);
    if (type == &PyRange_Type)
        return put_range(e, o);
    if (type == &PySlice_Type)
        return put_slice(e, o);
    if (type == state->array_type) {
        if (e->flags & CLONE_BY_VALUE)
            return refuse(e, "a SharedArray goes by reference, and what dumps() returns holds none: use isthmus.clone() or a queue, or "
                             "a.tobytes(), or numpy.asarray(a)");
        return put_array(e, (SharedArrayObject *)o);
    }
    if (share_kind_of(state, type) > SHARE_ARRAY) {
        if (e->flags & CLONE_BY_VALUE)
            return refuse(e, "a %.200s goes by reference, and what dumps() returns holds none: use isthmus.clone() or a queue",
                          type->tp_name);
        return put_handle(e, o);
    }
    if (type == state->transfer_type) {
        if (e->flags & CLONE_BY_VALUE)
            return refuse(e, "a Transfer goes by reference, and what dumps() returns holds none");
        return put_transfer(e, o);
    }
    if (type == &PyMemoryView_Type)
        return put_memoryview(e, o);
    if (PyType_Check(o) || type == &PyFunction_Type || type == &PyCFunction_Type)
        return put_global(e, o);
    int is = is_named(o, "array.array", "array", "array");
    if (is != 0)
        return is < 0 ? -1 : put_array_array(e, o);
    is = is_named(o, "numpy.ndarray", "numpy", "ndarray");
    return is < 0 ? -1 : is ? put_ndarray(e, o) : put_time(e, o);
}

/* 2: neither, -1. */
static int put_by_class(encoder *e, PyObject *o) {
    PyTypeObject *type = Py_TYPE(o);
    int is = clone_is_enum(type);
    if (is != 0)
        return is < 0 ? -1 : put_enum(e, o);
    if (PyExceptionInstance_Check(o))
        return put_exception(e, o);
    is = clone_is_namedtuple(type);
    if (is != 0)
        return is < 0 ? -1 : put_namedtuple(e, o);
    is = clone_is_dataclass(e->state, type);
    return is == 0 ? 2 : is < 0 ? -1 : put_dataclass(e, o);
}

int put_rare(encoder *e, PyObject *object) {
    core_state *state = e->state;
    PyObject *entry = clone_registered_type(state, Py_TYPE(object), false);
    if (entry == NULL && PyErr_Occurred())
        return -1;
    /* what has numbers only has no identity that anybody could miss */
    int seen = PyComplex_CheckExact(object) ? 0 : put_begin(e, object, entry != NULL || is_late(object));
    if (seen != 0)
        return seen < 0 ? -1 : 0;
    if (entry != NULL)
        return put_registered(e, object, entry);
    int done = put_exact(e, object);
    if (done == 2)
        done = put_by_class(e, object);
    if (done != 2)
        return done;
    entry = clone_registered_type(state, Py_TYPE(object), true);
    if (entry != NULL)
        return put_registered(e, object, entry);
    return PyErr_Occurred() ? -1 : put_unknown(e, object);
}
