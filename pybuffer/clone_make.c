/* clone_make.c: single items become objects: bytes, dates, arrays, and what is made of other items.
 *
 * Data of an item may be changed by somebody else while it is looked at: it is copied first, then checked.
 */
#include "clone_decoder.h"

/* ---- dates and times ------------------------------------------------------------------------------------------------------------------ */

/* Of the datetime module; *out is NULL if that is written in Python (3.12's interpreters with a GIL of their own). -1 with an exception. */
static int datetime_of(decoder *d, const PyDateTime_CAPI **out) {
    *out = clone_datetime(d->state);
    if (*out != NULL)
        return 0;
    PyObject *is_there = PyErr_Occurred() ? NULL : clone_loaded("datetime", "datetime");
    if (is_there == NULL && !PyErr_Occurred() && (d->flags & CLONE_TRUSTED)) {
        is_there = PyImport_ImportModule("datetime");
        *out = is_there == NULL ? NULL : clone_datetime(d->state);
    } else if (is_there == NULL && !PyErr_Occurred()) {
        PyErr_SetString(d->state->CloneError, "a date or time, and datetime isn't loaded: import it before, or say import_classes=True");
    }
    Py_XDECREF(is_there);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *make_delta(const PyDateTime_CAPI *datetime, const unsigned char *at) {
    return datetime->Delta_FromDelta((int32_t)ist_clone_get32(at), (int32_t)ist_clone_get32(at + 4), (int32_t)ist_clone_get32(at + 8), 1,
                                     datetime->DeltaType);
}

static PyObject *make_clock(const PyDateTime_CAPI *datetime, const unsigned char *at, PyObject *zone) {
    return datetime->Time_FromTimeAndFold(at[0], at[1], at[2], (int32_t)ist_clone_get32(at + 4), zone, at[3], datetime->TimeType);
}

static PyObject *make_moment(const PyDateTime_CAPI *datetime, const unsigned char *at, PyObject *zone) {
    return datetime->DateTime_FromDateAndTimeAndFold(ist_clone_get16(at), at[2], at[3], at[4], at[5], at[6],
                                                     (int32_t)ist_clone_get32(at + 8), zone, at[7], datetime->DateTimeType);
}

static PyObject *make_timezone(const PyDateTime_CAPI *datetime, const unsigned char *at, PyObject *name) {
    PyObject *offset = make_delta(datetime, at);
    PyObject *zone = offset == NULL ? NULL : datetime->TimeZone_FromTimeZone(offset, name == Py_None ? NULL : name);
    Py_XDECREF(offset);
    return zone;
}

static PyObject *make_time(decoder *d, unsigned kind, const unsigned char *at, PyObject *of) {
    const PyDateTime_CAPI *datetime;
    if (datetime_of(d, &datetime) < 0)
        return NULL;
    if (kind == IST_CLONE_TIMEZONE && of != Py_None && !PyUnicode_CheckExact(of))
        return decode_refuse(d, "a time zone whose name isn't text");
    if (datetime == NULL) {
        PyObject *helper = clone_helper(d->state, "make_time");
        const Py_ssize_t size = kind == IST_CLONE_UTC ? 0 : 12;
        PyObject *made = helper == NULL ? NULL : PyObject_CallFunction(helper, "iy#O", (int)kind - IST_CLONE_DATE, at, size, of);
        Py_XDECREF(helper);
        return make_sensible(d, made);
    }
    switch (kind) {
    case IST_CLONE_DATE: return make_sensible(d, datetime->Date_FromDate(ist_clone_get16(at), at[2], at[3], datetime->DateType));
    case IST_CLONE_TIME:
    case IST_CLONE_ZONED_TIME: return make_sensible(d, make_clock(datetime, at, of));
    case IST_CLONE_DATETIME:
    case IST_CLONE_ZONED_DATETIME: return make_sensible(d, make_moment(datetime, at, of));
    case IST_CLONE_TIMEDELTA: return make_sensible(d, make_delta(datetime, at));
    case IST_CLONE_UTC: return Py_NewRef(datetime->TimeZone_UTC);
    default: return make_sensible(d, make_timezone(datetime, at, of));
    }
}

/* ---- arrays --------------------------------------------------------------------------------------------------------------------------- */

static PyObject *make_array(decoder *d, uint64_t number) {
    if (number >= (uint64_t)d->narrays)
        return decode_refuse(d, "array %llu, and %zd came along", (unsigned long long)number, d->narrays);
    ist_message *message = d->messages[number];
    if (message == NULL)
        return decode_refuse(d, "array %llu twice", (unsigned long long)number);
    d->messages[number] = NULL; /* taken, whatever comes */
    return message_receive(d->state, message);
}

/* The dtype that a copy of these bytes describes; new. */
static DTypeObject *contents_dtype(decoder *d, const unsigned char *at, size_t size) {
    char *spec = PyMem_Malloc(size + 1);
    if (spec == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(spec, at, size);
    spec[size] = '\0';
    DTypeObject *dtype = strlen(spec) == size ? dtype_from_spec(d->state, spec, (Py_ssize_t)size) : NULL;
    PyMem_Free(spec);
    if (dtype != NULL && dtype->itemsize > 0 && dtype->code != IST_SUBARRAY)
        return dtype;
    Py_XDECREF((PyObject *)dtype);
    if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear();
        decode_refuse(d, "an array of an unknown dtype");
    }
    return NULL;
}

/* docs/clone.md: bytes of the dtype's spec 2, dimensions 1, 0, lengths 8 each, spec, elements. */
static PyObject *make_contents(decoder *d, const ist_clone_item *item) {
    const unsigned char *at = item->data;
    size_t left = (size_t)item->n;
    if (left < 4)
        return decode_refuse(d, "an array without a description");
    const size_t spec = ist_clone_get16(at), dims = at[2];
    if (dims > IST_MAX_NDIM || left < 4 + 8 * dims + spec)
        return decode_refuse(d, "an array whose description is cut off");
    Py_ssize_t shape[IST_MAX_NDIM], n = 1, nbytes;
    for (size_t i = 0; i < dims; i++) {
        shape[i] = (Py_ssize_t)ist_clone_get64(at + 4 + 8 * i);
        if (shape[i] < 0 || (shape[i] > 0 && __builtin_mul_overflow(n, shape[i], &n)))
            return decode_refuse(d, "an array of an impossible shape");
    }
    for (size_t i = 0; i < dims; i++)
        n = shape[i] == 0 ? 0 : n;
    at += 4 + 8 * dims;
    left -= 4 + 8 * dims + spec;
    DTypeObject *dtype = contents_dtype(d, at, spec);
    if (dtype == NULL)
        return NULL;
    SharedArrayObject *a = NULL;
    if (__builtin_mul_overflow(n, dtype->itemsize, &nbytes) || (size_t)nbytes != left)
        decode_refuse(d, "an array with %zu bytes of contents, which isn't its shape's number", left);
    else
        a = array_create(d->state, dtype, (int)dims, shape, 0);
    if (a != NULL) {
        memcpy(a->data, at + spec, left);
        ist_count_copied(left);
    }
    Py_DECREF((PyObject *)dtype);
    return (PyObject *)a;
}

/* Whether numpy is here, or can be imported: 1, 0, -1. */
static int has_numpy(decoder *d) {
    PyObject *ndarray = clone_loaded("numpy", "ndarray");
    if (ndarray != NULL) {
        Py_DECREF(ndarray);
        return 1;
    }
    if (PyErr_Occurred())
        return -1;
    if (!(d->flags & CLONE_TRUSTED) || d->state->clone.no_numpy)
        return 0;
    PyObject *numpy = PyImport_ImportModule("numpy");
    if (numpy != NULL) {
        Py_DECREF(numpy);
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_ImportError))
        return -1;
    PyErr_Clear();
    d->state->clone.no_numpy = true;
    return 0;
}

static PyObject *make_ndarray(decoder *d, PyObject *array, bool transposed) {
    if (!Py_IS_TYPE(array, d->state->array_type))
        return decode_refuse(d, "an ndarray without an array");
    const int numpy = has_numpy(d);
    PyObject *result = numpy < 0 ? NULL : numpy ? PyObject_CallMethod(array, "__array__", NULL) : Py_NewRef(array);
    if (result != NULL && transposed)
        Py_SETREF(result, PyObject_GetAttrString(result, "T"));
    return result;
}

static PyObject *make_memoryview(decoder *d, PyObject *array, bool readonly) {
    if (!Py_IS_TYPE(array, d->state->array_type))
        return decode_refuse(d, "a memoryview without an array");
    PyObject *view = PyMemoryView_FromObject(array);
    if (view != NULL && readonly)
        Py_SETREF(view, PyObject_CallMethod(view, "toreadonly", NULL));
    return view;
}

static PyObject *make_array_array(decoder *d, const ist_clone_item *item) {
    PyObject *type = clone_loaded("array", "array");
    if (type == NULL && !PyErr_Occurred() && (d->flags & CLONE_TRUSTED)) {
        PyObject *module = PyImport_ImportModule("array");
        type = module == NULL ? NULL : PyObject_GetAttrString(module, "array");
        Py_XDECREF(module);
    }
    if (type == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(d->state->CloneError, "an array.array, and array isn't loaded: import it before, or say import_classes=True");
        return NULL;
    }
    PyObject *array = PyObject_CallFunction(type, "C", (int)item->integer), *view = NULL, *done = NULL;
    if (array != NULL)
        view = PyMemoryView_FromMemory((char *)(uintptr_t)item->data, (Py_ssize_t)item->n, PyBUF_READ);
    if (view != NULL)
        done = PyObject_CallMethod(array, "frombytes", "O", view);
    if (done == NULL)
        Py_CLEAR(array);
    else
        ist_count_copied((size_t)item->n);
    Py_XDECREF(done);
    Py_XDECREF(view);
    Py_DECREF(type);
    return make_sensible(d, array);
}

/* ---- the rest ---------------------------------------------------------------------------------------------------------------------------- */

PyObject *make_leaf(decoder *d, const ist_clone_item *item) {
    unsigned char data[12] = {0};
    double parts[2];
    switch (item->kind) {
    case IST_CLONE_ELLIPSIS: return Py_Ellipsis;
    case IST_CLONE_NOT_IMPLEMENTED: return Py_NotImplemented;
    case IST_CLONE_COMPLEX: memcpy(parts, item->data, sizeof parts); return PyComplex_FromDoubles(parts[0], parts[1]);
    case IST_CLONE_BYTES: return PyBytes_FromStringAndSize((const char *)item->data, (Py_ssize_t)item->n);
    case IST_CLONE_BYTEARRAY: return PyByteArray_FromStringAndSize((const char *)item->data, (Py_ssize_t)item->n);
    case IST_CLONE_DATE:
    case IST_CLONE_TIME:
    case IST_CLONE_DATETIME:
    case IST_CLONE_TIMEDELTA: memcpy(data, item->data, item->n); return make_time(d, item->kind, data, Py_None);
    case IST_CLONE_UTC: return make_time(d, item->kind, data, Py_None);
    case IST_CLONE_ARRAY: return make_array(d, item->n);
    case IST_CLONE_CONTENTS: return make_contents(d, item);
    case IST_CLONE_ARRAY_ARRAY: return make_array_array(d, item);
    default: return decode_refuse(d, "an item of kind %u", item->kind);
    }
}

static PyObject *make_range(decoder *d, PyObject *start, PyObject *stop, PyObject *step) {
    if (!PyLong_CheckExact(start) || !PyLong_CheckExact(stop) || !PyLong_CheckExact(step))
        return decode_refuse(d, "a range of what isn't integers");
    return make_sensible(d, PyObject_CallFunctionObjArgs((PyObject *)&PyRange_Type, start, stop, step, NULL));
}

/* A pickle runs what it says. */
static PyObject *make_pickled(decoder *d, PyObject *parts) {
    if (!(d->flags & CLONE_TRUSTED)) {
        PyErr_SetString(d->state->CloneError,
                        "a pickle is among it, which may run anything: say import_classes=True if you trust these bytes");
        return NULL;
    }
    if (!PyTuple_CheckExact(parts) || PyTuple_GET_SIZE(parts) < 1 || !PyBytes_CheckExact(PyTuple_GET_ITEM(parts, 0)))
        return decode_refuse(d, "a pickle without bytes");
    PyObject *helper = clone_helper(d->state, "unpickled");
    PyObject *object = helper == NULL ? NULL : PyObject_CallOneArg(helper, parts);
    Py_XDECREF(helper);
    return object;
}

PyObject *make_of_items(decoder *d, const open_item *f) {
    PyObject *first = PyTuple_GET_ITEM(f->into, 0), *second = PyTuple_GET_SIZE(f->into) > 1 ? PyTuple_GET_ITEM(f->into, 1) : NULL;
    switch (f->kind) {
    case IST_CLONE_RANGE: return make_range(d, first, second, PyTuple_GET_ITEM(f->into, 2));
    case IST_CLONE_ZONED_TIME:
    case IST_CLONE_ZONED_DATETIME:
    case IST_CLONE_TIMEZONE: return make_time(d, f->kind, f->data, first);
    case IST_CLONE_GLOBAL: return make_global(d, first, second);
    case IST_CLONE_ENUM: return make_member(d, first, second);
    case IST_CLONE_REGISTERED: return make_registered(d, first, second);
    case IST_CLONE_PICKLE: return make_pickled(d, first);
    case IST_CLONE_NDARRAY:
    case IST_CLONE_NDARRAY_F: return make_ndarray(d, first, f->kind == IST_CLONE_NDARRAY_F);
    case IST_CLONE_MEMORYVIEW: return make_memoryview(d, first, f->integer != 0);
    default: return decode_refuse(d, "an item of kind %u", f->kind);
    }
}
