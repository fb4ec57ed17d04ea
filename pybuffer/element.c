/* element.c: one element's way to Python and back.
 *
 * An element becomes what numpy's item() makes of it: bool, int, float, complex, bytes and str without the zeros they are filled up with, raw
 * bytes, datetime's objects (or an int where those can't hold it, None for NaT), a tuple of its fields, nested lists of a sub-array. Long
 * doubles become floats.
 *
 * dtype_set may run Python code (__index__, __float__, __str__) and may fail when it has written half an element; so it writes into memory
 * nobody else sees.
 */
#include "dtype.h"
#include "half.h"

#include <limits.h>

/* ---- byte order ------------------------------------------------------------------------------------------------------------------------- */

static void swap_units(char *p, size_t unit, size_t n) {
    for (; n > 0; n--, p += unit)
        for (size_t i = 0; i < unit / 2; i++) {
            char c = p[i];
            p[i] = p[unit - 1 - i];
            p[unit - 1 - i] = c;
        }
}

size_t swap_unit(const DTypeObject *d) {
    if (d->code == IST_TEXT)
        return 4;
    return (size_t)(d->kind == 'c' ? d->itemsize / 2 : d->itemsize);
}

void swap_elements(const DTypeObject *d, char *p, size_t n) {
    size_t unit = swap_unit(d), count = n * ((size_t)d->itemsize / (unit == 0 ? 1 : unit));
    switch (unit) { /* constant sizes are vectorised */
    case 2: swap_units(p, 2, count); break;
    case 4: swap_units(p, 4, count); break;
    case 8: swap_units(p, 8, count); break;
    default: swap_units(p, unit, count);
    }
}

/* ---- to Python -------------------------------------------------------------------------------------------------------------------------- */

#define LOAD(type, variable)                                                                                                               \
    type variable;                                                                                                                         \
    memcpy(&variable, item, sizeof variable)

static PyObject *get_number(ist_type_code code, const char *item) {
    switch (code) {
    case IST_BOOL: return PyBool_FromLong(*item != 0);
    case IST_I1: return PyLong_FromLong(*(const signed char *)item);
    case IST_U1: return PyLong_FromLong(*(const unsigned char *)item);
    case IST_I2: {
        LOAD(int16_t, x);
        return PyLong_FromLong(x);
    }
    case IST_U2: {
        LOAD(uint16_t, x);
        return PyLong_FromLong(x);
    }
    case IST_I4: {
        LOAD(int32_t, x);
        return PyLong_FromLong(x);
    }
    case IST_U4: {
        LOAD(uint32_t, x);
        return PyLong_FromUnsignedLong(x);
    }
    case IST_I8: {
        LOAD(int64_t, x);
        return PyLong_FromLongLong(x);
    }
    case IST_U8: {
        LOAD(uint64_t, x);
        return PyLong_FromUnsignedLongLong(x);
    }
    case IST_F2: {
        LOAD(uint16_t, x);
        return PyFloat_FromDouble(half_to_double(x));
    }
    case IST_F4: {
        LOAD(float, x);
        return PyFloat_FromDouble((double)x);
    }
    case IST_F8: {
        LOAD(double, x);
        return PyFloat_FromDouble(x);
    }
    case IST_LONG: {
        LOAD(long double, x);
        return PyFloat_FromDouble((double)x);
    }
    case IST_C8: {
        float x[2];
        memcpy(x, item, sizeof x);
        return PyComplex_FromDoubles((double)x[0], (double)x[1]);
    }
    case IST_C16: {
        double x[2];
        memcpy(x, item, sizeof x);
        return PyComplex_FromDoubles(x[0], x[1]);
    }
    case IST_CLONG: {
        long double x[2];
        memcpy(x, item, sizeof x);
        return PyComplex_FromDoubles((double)x[0], (double)x[1]);
    }
    default: break;
    }
    Py_UNREACHABLE();
}

static PyObject *get_text(const DTypeObject *d, const char *item) {
    Py_ssize_t n = d->itemsize / 4;
    uint32_t few[64], *points = n <= (Py_ssize_t)(sizeof few / sizeof *few) ? few : PyMem_Malloc((size_t)d->itemsize);
    if (points == NULL)
        return PyErr_NoMemory();
    memcpy(points, item, (size_t)d->itemsize);
    if (d->swapped)
        swap_units((char *)points, 4, (size_t)n);
    while (n > 0 && points[n - 1] == 0)
        n--;
    PyObject *text = NULL;
    Py_ssize_t bad = 0;
    while (bad < n && points[bad] <= 0x10ffff)
        bad++;
    if (bad < n)
        PyErr_Format(PyExc_ValueError, "an element of dtype '%s' has a code point of 0x%lx, beyond Unicode's", d->str,
                     (unsigned long)points[bad]);
    else
        text = PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, points, n);
    if (points != few)
        PyMem_Free(points);
    return text;
}

static PyObject *get_fields(const DTypeObject *d, const char *item) {
    PyObject *values = PyTuple_New(d->nfields);
    for (Py_ssize_t i = 0; values != NULL && i < d->nfields; i++) {
        PyObject *value = dtype_get(d->fields[i].dtype, item + d->fields[i].offset);
        if (value == NULL)
            Py_CLEAR(values);
        else
            PyTuple_SET_ITEM(values, i, value);
    }
    return values;
}

static PyObject *get_axis(const DTypeObject *d, int axis, const char **item) {
    if (axis == d->sub_ndim) {
        PyObject *value = dtype_get(d->base, *item);
        *item += d->base->itemsize;
        return value;
    }
    PyObject *list = PyList_New(d->sub_shape[axis]);
    for (Py_ssize_t i = 0; list != NULL && i < d->sub_shape[axis]; i++) {
        PyObject *value = get_axis(d, axis + 1, item);
        if (value == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, value);
    }
    return list;
}

PyObject *dtype_get(const DTypeObject *d, const char *item) {
    char turned[32];
    if (dtype_is_native(d))
        return get_number(d->code, item);
    if (d->swapped && d->code != IST_TEXT) {
        memcpy(turned, item, (size_t)d->itemsize);
        swap_elements(d, turned, 1);
        item = turned;
    }
    switch (d->code) {
    case IST_BYTES: {
        Py_ssize_t n = d->itemsize;
        while (n > 0 && item[n - 1] == '\0')
            n--;
        return PyBytes_FromStringAndSize(item, n);
    }
    case IST_TEXT: return get_text(d, item);
    case IST_VOID: return PyBytes_FromStringAndSize(item, d->itemsize);
    case IST_DATETIME:
    case IST_TIMEDELTA: {
        LOAD(int64_t, x);
        return times_get(d, x);
    }
    case IST_STRUCT: return get_fields(d, item);
    case IST_SUBARRAY: return get_axis(d, 0, &item);
    default: return get_number(d->code, item);
    }
}

/* ---- numbers from Python ---------------------------------------------------------------------------------------------------------------- */

static int out_of_bounds(const DTypeObject *d, PyObject *integer) {
    PyErr_Clear();
    PyErr_Format(PyExc_OverflowError, "Python integer %S out of bounds for %s", integer, dtype_name(d->code));
    if (!PyErr_ExceptionMatches(PyExc_OverflowError)) { /* too long to be written out */
        PyErr_Clear();
        PyErr_Format(PyExc_OverflowError, "Python integer out of bounds for %s", dtype_name(d->code));
    }
    return -1;
}

static int set_signed(const DTypeObject *d, char *item, PyObject *integer) {
    int overflow;
    long long x = PyLong_AsLongLongAndOverflow(integer, &overflow);
    if (x == -1 && overflow == 0 && PyErr_Occurred())
        return -1;
    long long limit = d->itemsize == 8 ? LLONG_MAX : (1LL << (8 * d->itemsize - 1)) - 1;
    if (overflow != 0 || x > limit || x < -limit - 1)
        return out_of_bounds(d, integer);
    switch (d->itemsize) {
    case 1: *(signed char *)item = (signed char)x; break;
    case 2: memcpy(item, &(int16_t){(int16_t)x}, 2); break;
    case 4: memcpy(item, &(int32_t){(int32_t)x}, 4); break;
    default: memcpy(item, &(int64_t){(int64_t)x}, 8); break;
    }
    return 0;
}

static int set_unsigned(const DTypeObject *d, char *item, PyObject *integer) {
    unsigned long long x = PyLong_AsUnsignedLongLong(integer);
    if (x == (unsigned long long)-1 && PyErr_Occurred())
        return PyErr_ExceptionMatches(PyExc_OverflowError) ? out_of_bounds(d, integer) : -1;
    unsigned long long limit = d->itemsize == 8 ? ULLONG_MAX : (1ULL << (8 * d->itemsize)) - 1;
    if (x > limit)
        return out_of_bounds(d, integer);
    switch (d->itemsize) {
    case 1: *(unsigned char *)item = (unsigned char)x; break;
    case 2: memcpy(item, &(uint16_t){(uint16_t)x}, 2); break;
    case 4: memcpy(item, &(uint32_t){(uint32_t)x}, 4); break;
    default: memcpy(item, &(uint64_t){(uint64_t)x}, 8); break;
    }
    return 0;
}

static int set_integer(const DTypeObject *d, char *item, PyObject *value) {
    if (PyLong_Check(value))
        return d->kind == 'i' ? set_signed(d, item, value) : set_unsigned(d, item, value);
    PyObject *integer = PyNumber_Index(value);
    if (integer == NULL)
        return -1;
    int result = d->kind == 'i' ? set_signed(d, item, integer) : set_unsigned(d, item, integer);
    Py_DECREF(integer);
    return result;
}

static int set_float(const DTypeObject *d, char *item, PyObject *value) {
    double x = PyFloat_AsDouble(value);
    if (x == -1.0 && PyErr_Occurred())
        return -1;
    switch (d->itemsize) {
    case 2: memcpy(item, &(uint16_t){half_from_double(x)}, 2); break;
    case 4: memcpy(item, &(float){(float)x}, 4); break;
    case 8: memcpy(item, &x, 8); break;
    default: memcpy(item, &(long double){(long double)x}, sizeof(long double)); break;
    }
    return 0;
}

static int set_complex(const DTypeObject *d, char *item, PyObject *value) {
    Py_complex x = PyComplex_AsCComplex(value);
    if (x.real == -1.0 && PyErr_Occurred())
        return -1;
    switch (d->itemsize) {
    case 8: memcpy(item, &(float[2]){(float)x.real, (float)x.imag}, 8); break;
    case 16: memcpy(item, &(double[2]){x.real, x.imag}, 16); break;
    default: memcpy(item, &(long double[2]){(long double)x.real, (long double)x.imag}, 2 * sizeof(long double)); break;
    }
    return 0;
}

static int set_bool(char *item, PyObject *value) {
    if (!PyNumber_Check(value)) {
        PyErr_Format(PyExc_TypeError, "must be a bool or a number, not %.200s: %R", Py_TYPE(value)->tp_name, value);
        return -1;
    }
    int truth = PyObject_IsTrue(value);
    if (truth < 0)
        return -1;
    *item = (char)truth;
    return 0;
}

/* ---- bytes and text --------------------------------------------------------------------------------------------------------------------- */

static int refuse_value(const DTypeObject *d, PyObject *value) {
    PyErr_Format(PyExc_TypeError, "%R of type %.200s doesn't become a '%s'", value, Py_TYPE(value)->tp_name, d->str);
    return -1;
}

/* A str or bytes as it is; a number as it is written, and anything where all casts are allowed; new reference. */
static PyObject *text_of(const DTypeObject *d, PyObject *value, ist_casting how) {
    if (PyUnicode_Check(value) || PyBytes_Check(value))
        return Py_NewRef(value);
    if (how == CAST_UNSAFE || PyLong_Check(value) || PyFloat_Check(value) || PyComplex_Check(value))
        return PyObject_Str(value);
    refuse_value(d, value);
    return NULL;
}

/* What is too long is cut off, as numpy does; the rest is filled up with zeros. */
static int set_bytes(const DTypeObject *d, char *item, PyObject *value, ist_casting how) {
    PyObject *text = text_of(d, value, how);
    if (text != NULL && PyUnicode_Check(text))
        Py_SETREF(text, PyUnicode_AsASCIIString(text));
    if (text == NULL)
        return -1;
    size_t n = (size_t)Py_MIN(PyBytes_GET_SIZE(text), d->itemsize);
    memcpy(item, PyBytes_AS_STRING(text), n);
    memset(item + n, 0, (size_t)d->itemsize - n);
    Py_DECREF(text);
    return 0;
}

static int set_text(const DTypeObject *d, char *item, PyObject *value, ist_casting how) {
    PyObject *text = text_of(d, value, how);
    if (text != NULL && PyBytes_Check(text))
        Py_SETREF(text, PyUnicode_DecodeASCII(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), NULL));
    if (text == NULL)
        return -1;
    Py_ssize_t n = Py_MIN(PyUnicode_GET_LENGTH(text), d->itemsize / 4);
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t point = PyUnicode_READ_CHAR(text, i);
        memcpy(item + 4 * i, &point, 4);
    }
    if (d->swapped)
        swap_units(item, 4, (size_t)n);
    memset(item + 4 * n, 0, (size_t)(d->itemsize - 4 * n));
    Py_DECREF(text);
    return 0;
}

static int set_void(const DTypeObject *d, char *item, PyObject *value) {
    Py_buffer view;
    if (!PyObject_CheckBuffer(value))
        return refuse_value(d, value);
    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0)
        return -1;
    size_t n = (size_t)Py_MIN(view.len, d->itemsize);
    memcpy(item, view.buf, n);
    memset(item + n, 0, (size_t)d->itemsize - n);
    PyBuffer_Release(&view);
    return 0;
}

/* ---- fields ------------------------------------------------------------------------------------------------------------------------------- */

static int set_axis(const DTypeObject *d, int axis, char **item, PyObject *value, ist_casting how) {
    if (axis == d->sub_ndim || is_scalar(d->base, value) ||
        (!PyList_Check(value) && !PyTuple_Check(value))) { /* one value for all that is left */
        Py_ssize_t n = 1;
        for (int i = axis; i < d->sub_ndim; i++)
            n *= d->sub_shape[i];
        char *first = *item;
        if (n > 0 && dtype_put(d->base, first, value, how) < 0)
            return -1;
        for (Py_ssize_t i = 1; i < n; i++)
            memcpy(first + i * d->base->itemsize, first, (size_t)d->base->itemsize);
        *item += n * d->base->itemsize;
        return 0;
    }
    PyObject *values = PySequence_Tuple(value);
    if (values == NULL)
        return -1;
    int result = 0;
    if (PyTuple_GET_SIZE(values) != d->sub_shape[axis]) {
        PyErr_Format(PyExc_ValueError, "could not broadcast %zd values into the %zd of a sub-array's axis", PyTuple_GET_SIZE(values),
                     d->sub_shape[axis]);
        result = -1;
    }
    for (Py_ssize_t i = 0; i < d->sub_shape[axis] && result == 0; i++)
        result = set_axis(d, axis + 1, item, PyTuple_GET_ITEM(values, i), how);
    Py_DECREF(values);
    return result;
}

/* A buffer (an ndarray) into a sub-array, by numpy's rules of casting and broadcasting. */
static int set_from_buffer(const DTypeObject *d, char *item, PyObject *value, ist_casting how) {
    source s;
    Py_ssize_t own[IST_MAX_NDIM], strides[IST_MAX_NDIM];
    if (source_open((core_state *)PyType_GetModuleState(Py_TYPE((PyObject *)(uintptr_t)d)), value, &s) < 0)
        return -1;
    int result = castable(s.values.dtype, d->base, how) ? 0 : raise_not_castable(s.values.dtype, d->base, how);
    if (result == 0)
        result = broadcast_strides(&s.values, d->sub_ndim, d->sub_shape, strides);
    if (result == 0) {
        fill_c_strides(d->sub_ndim, d->sub_shape, d->base->itemsize, own);
        const strided to = {d->base, item, d->sub_ndim, d->sub_shape, own};
        const strided from = {s.values.dtype, s.values.data, d->sub_ndim, d->sub_shape, strides};
        result = copy_values(&to, &from);
    }
    source_close(&s);
    return result;
}

static int set_subarray(const DTypeObject *d, char *item, PyObject *value, ist_casting how) {
    if (PyObject_CheckBuffer(value) && !is_scalar(d->base, value))
        return set_from_buffer(d, item, value, how);
    return set_axis(d, 0, &item, value, how);
}

static int set_fields(const DTypeObject *d, char *item, PyObject *value, ist_casting how) {
    const bool each = PyTuple_Check(value);
    if (each && PyTuple_GET_SIZE(value) != d->nfields) {
        PyErr_Format(PyExc_ValueError, "could not assign tuple of length %zd to structure with %zd fields", PyTuple_GET_SIZE(value),
                     d->nfields);
        return -1;
    }
    if (PyList_Check(value))
        return refuse_value(d, value);
    memset(item, 0, (size_t)d->itemsize); /* the padding, too */
    for (Py_ssize_t i = 0; i < d->nfields; i++) /* one value goes into all of them */
        if (dtype_put(d->fields[i].dtype, item + d->fields[i].offset, each ? PyTuple_GET_ITEM(value, i) : value, how) < 0)
            return -1;
    return 0;
}

/* ---- any value as a number -------------------------------------------------------------------------------------------------------------- */

static PyObject *complex_of_text(PyObject *text) {
    PyObject *decoded =
        PyUnicode_Check(text) ? Py_NewRef(text) : PyUnicode_DecodeASCII(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), NULL);
    PyObject *result = decoded == NULL ? NULL : PyObject_CallOneArg((PyObject *)&PyComplex_Type, decoded);
    Py_XDECREF(decoded);
    return result;
}

/* What dtype_set takes for such a number; new reference. Text is read as int(), float() and complex() read it, None is NaN. */
static PyObject *as_number(const DTypeObject *d, PyObject *value) {
    const bool text = PyUnicode_Check(value) || PyBytes_Check(value);
    switch (d->kind) {
    case 'b':
        if (text)
            return PyBool_FromLong(PyObject_Length(value) > 0);
        return value == Py_None ? Py_NewRef(Py_False) : Py_NewRef(value);
    case 'i':
    case 'u': return PyIndex_Check(value) ? Py_NewRef(value) : PyNumber_Long(value);
    default:
        if (value == Py_None)
            return d->kind == 'f' ? PyFloat_FromDouble(Py_NAN) : PyComplex_FromDoubles(Py_NAN, Py_NAN);
        if (!text)
            return Py_NewRef(value);
        return d->kind == 'f' ? PyFloat_FromString(value) : complex_of_text(value);
    }
}

static int put_number(const DTypeObject *d, char *item, PyObject *value) {
    long double x;
    if (d->code == IST_LONG && (PyUnicode_Check(value) || PyBytes_Check(value))) { /* more digits than a float has */
        if (read_long_double(value, &x) < 0)
            return -1;
        memcpy(item, &x, sizeof x);
        if (d->swapped)
            swap_elements(d, item, 1);
        return 0;
    }
    PyObject *number = as_number(d, value);
    int result = number == NULL ? -1 : dtype_set(d, item, number);
    Py_XDECREF(number);
    return result;
}

/* ---- any ---------------------------------------------------------------------------------------------------------------------------------- */

int dtype_set(const DTypeObject *d, char *item, PyObject *value) { return dtype_put(d, item, value, CAST_SAME_KIND); }

int dtype_put(const DTypeObject *d, char *item, PyObject *value, ist_casting how) {
    int result;
    if (how == CAST_UNSAFE && dtype_is_number(d) && !PyFloat_CheckExact(value) && !PyLong_Check(value))
        return put_number(d, item, value);
    if (how == CAST_UNSAFE && (d->kind == 'i' || d->kind == 'u') && PyFloat_CheckExact(value))
        return put_number(d, item, value);
    switch (d->code) {
    case IST_BYTES: return set_bytes(d, item, value, how);
    case IST_TEXT: return set_text(d, item, value, how);
    case IST_VOID: return set_void(d, item, value);
    case IST_STRUCT: return set_fields(d, item, value, how);
    case IST_SUBARRAY: return set_subarray(d, item, value, how);
    case IST_DATETIME:
    case IST_TIMEDELTA: {
        int64_t x;
        result = times_set(d, &x, value);
        memcpy(item, &x, sizeof x);
        break;
    }
    default:
        switch (d->kind) {
        case 'b': return set_bool(item, value);
        case 'i':
        case 'u': result = set_integer(d, item, value); break;
        case 'f': result = set_float(d, item, value); break;
        default: result = set_complex(d, item, value);
        }
    }
    if (result == 0 && d->swapped)
        swap_elements(d, item, 1);
    return result;
}
