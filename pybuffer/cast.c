/* cast.c: what becomes what: numpy's rules of casting, and elements converted from one dtype to another.
 *
 * Numbers are cast through the widest type of a class, a few hundred at a time: 16 loads and some 50 stores instead of 250 loops; plain C,
 * no GIL needed. Everything else is converted one by one, under the GIL, into memory that is the caller's.
 *
 * Relies on: text.c and times.c for what is written out or read; element.c for values that Python has to understand.
 * Invariant: what castable() allows convert_element() converts, or says why not. (It may convert more: a rule is checked once, for a dtype.)
 */
#include "dtype.h"
#include "half.h"

/* ---- numbers ------------------------------------------------------------------------------------------------------------------- */

enum { WIDE_INT, WIDE_UINT, WIDE_FLOAT, WIDE_COMPLEX, WIDE_LONG, WIDE_CLONG, WIDE_CLASSES };
#define CHUNK 512

typedef union wide {
    int64_t i[CHUNK];
    uint64_t u[CHUNK];
    double f[CHUNK];
    double c[CHUNK][2];
    long double g[CHUNK];
    long double h[CHUNK][2];
} wide;

typedef void load_function(const char *from, Py_ssize_t stride, wide *w, size_t n);
typedef void store_function(char *to, Py_ssize_t stride, const wide *w, size_t n);

#define LOAD(code, type, result)                                                                                                           \
    static void load_##code(const char *from, Py_ssize_t stride, wide *w, size_t n) {                                                      \
        for (size_t k = 0; k < n; k++, from += stride) {                                                                                   \
            type x;                                                                                                                        \
            memcpy(&x, from, sizeof x);                                                                                                    \
            result;                                                                                                                        \
        }                                                                                                                                  \
    }
LOAD(bool, unsigned char, w->i[k] = x != 0)
LOAD(i1, int8_t, w->i[k] = x)
LOAD(i2, int16_t, w->i[k] = x)
LOAD(i4, int32_t, w->i[k] = x)
LOAD(i8, int64_t, w->i[k] = x)
LOAD(u1, uint8_t, w->u[k] = x)
LOAD(u2, uint16_t, w->u[k] = x)
LOAD(u4, uint32_t, w->u[k] = x)
LOAD(u8, uint64_t, w->u[k] = x)
LOAD(f2, uint16_t, w->f[k] = half_to_double(x))
LOAD(f4, float, w->f[k] = (double)x)
LOAD(f8, double, w->f[k] = x)
typedef struct complex8 {
    float re, im;
} complex8;
typedef struct complex16 {
    double re, im;
} complex16;
typedef struct complex32 {
    long double re, im;
} complex32;
LOAD(g, long double, w->g[k] = x)
LOAD(h, complex32, (w->h[k][0] = x.re, w->h[k][1] = x.im))
LOAD(c8, complex8, (w->c[k][0] = (double)x.re, w->c[k][1] = (double)x.im))
LOAD(c16, complex16, (w->c[k][0] = x.re, w->c[k][1] = x.im))

static const struct {
    load_function *load;
    int wide;
} loads[IST_TYPE_CODES] = {
    [IST_BOOL] = {load_bool, WIDE_INT}, [IST_I1] = {load_i1, WIDE_INT},       [IST_I2] = {load_i2, WIDE_INT},
    [IST_I4] = {load_i4, WIDE_INT},     [IST_I8] = {load_i8, WIDE_INT},       [IST_U1] = {load_u1, WIDE_UINT},
    [IST_U2] = {load_u2, WIDE_UINT},    [IST_U4] = {load_u4, WIDE_UINT},      [IST_U8] = {load_u8, WIDE_UINT},
    [IST_F2] = {load_f2, WIDE_FLOAT},   [IST_F4] = {load_f4, WIDE_FLOAT},     [IST_F8] = {load_f8, WIDE_FLOAT},
    [IST_C8] = {load_c8, WIDE_COMPLEX}, [IST_C16] = {load_c16, WIDE_COMPLEX}, [IST_LONG] = {load_g, WIDE_LONG},
    [IST_CLONG] = {load_h, WIDE_CLONG},
};

#define STORE(from, code, type, ...)                                                                                                       \
    static void store_##from##_##code(char *to, Py_ssize_t stride, const wide *w, size_t n) {                                              \
        for (size_t k = 0; k < n; k++, to += stride) {                                                                                     \
            type x = __VA_ARGS__;                                                                                                          \
            memcpy(to, &x, sizeof x);                                                                                                      \
        }                                                                                                                                  \
    }
STORE(int, bool, unsigned char, w->i[k] != 0)
STORE(int, i1, int8_t, (int8_t)w->i[k])
STORE(int, i2, int16_t, (int16_t)w->i[k])
STORE(int, i4, int32_t, (int32_t)w->i[k])
STORE(int, i8, int64_t, w->i[k])
#define FROM_NUMBER(from, member)                                                                                                          \
    STORE(from, f2, uint16_t, half_from_double((double)(float)w->member[k]))                                                               \
    STORE(from, f4, float, (float)w->member[k])                                                                                            \
    STORE(from, f8, double, (double)w->member[k])                                                                                          \
    STORE(from, c8, complex8, {(float)w->member[k], 0})                                                                                    \
    STORE(from, c16, complex16, {(double)w->member[k], 0})                                                                                 \
    STORE(from, g, long double, (long double)w->member[k])                                                                                 \
    STORE(from, h, complex32, {(long double)w->member[k], 0})
FROM_NUMBER(int, i)
FROM_NUMBER(uint, u)
STORE(float, f2, uint16_t, half_from_double(w->f[k])) /* not by way of float, which would round twice */
STORE(float, f4, float, (float)w->f[k])
STORE(float, f8, double, w->f[k])
STORE(float, c8, complex8, {(float)w->f[k], 0})
STORE(float, c16, complex16, {w->f[k], 0})
STORE(float, g, long double, (long double)w->f[k])
STORE(float, h, complex32, {(long double)w->f[k], 0})
FROM_NUMBER(long, g)
STORE(complex, h, complex32, {(long double)w->c[k][0], (long double)w->c[k][1]})
STORE(clong, c8, complex8, {(float)w->h[k][0], (float)w->h[k][1]})
STORE(clong, c16, complex16, {(double)w->h[k][0], (double)w->h[k][1]})
STORE(clong, h, complex32, {w->h[k][0], w->h[k][1]})
STORE(complex, c8, complex8, {(float)w->c[k][0], (float)w->c[k][1]})
STORE(complex, c16, complex16, {w->c[k][0], w->c[k][1]})

/* unsigned from bool, and any integer from unsigned: the same bits, cut off at the same place */
#define INTEGERS                                                                                                                           \
    [IST_I1] = store_int_i1, [IST_U1] = store_int_i1, [IST_I2] = store_int_i2, [IST_U2] = store_int_i2, [IST_I4] = store_int_i4,           \
    [IST_U4] = store_int_i4, [IST_I8] = store_int_i8, [IST_U8] = store_int_i8
#define INEXACT(from)                                                                                                                      \
    [IST_F2] = store_##from##_f2, [IST_F4] = store_##from##_f4, [IST_F8] = store_##from##_f8, [IST_C8] = store_##from##_c8,                \
    [IST_C16] = store_##from##_c16, [IST_LONG] = store_##from##_g, [IST_CLONG] = store_##from##_h

static store_function *const stores[WIDE_CLASSES][IST_TYPE_CODES] = {
    [WIDE_INT] = {[IST_BOOL] = store_int_bool, INTEGERS, INEXACT(int)},
    [WIDE_UINT] = {[IST_BOOL] = store_int_bool, INTEGERS, INEXACT(uint)},
    [WIDE_FLOAT] = {INEXACT(float)},
    [WIDE_COMPLEX] = {[IST_C8] = store_complex_c8, [IST_C16] = store_complex_c16, [IST_CLONG] = store_complex_h},
    [WIDE_LONG] = {INEXACT(long)},
    [WIDE_CLONG] = {[IST_C8] = store_clong_c8, [IST_C16] = store_clong_c16, [IST_CLONG] = store_clong_h},
};

/* A float as an integer that the wider of 32 and 64 bits hold: cut off at the point. Others (NaN too) become its least, which is what
 * x86-64 makes of them, and numpy there. true: there was one. */
static bool to_integer(double x, bool narrow, bool is_unsigned, int64_t *out) {
    if (is_unsigned && x >= 0x1p63 && x < 0x1p64) {
        *out = (int64_t)(uint64_t)x;
        return false;
    }
    const bool fits = narrow ? x > -0x1p31 - 1 && x < 0x1p31 : x >= -0x1p63 && x < 0x1p63;
    *out = fits ? (int64_t)x : narrow ? INT32_MIN : INT64_MIN;
    return !fits;
}

static bool long_to_integer(long double x, bool narrow, bool is_unsigned, int64_t *out) {
    if (!narrow && x >= -0x1p63L && x < 0x1p63L) { /* a double might not hold it */
        *out = (int64_t)x;
        return false;
    }
    if (is_unsigned && x >= 0x1p63L && x < 0x1p64L) {
        *out = (int64_t)(uint64_t)x;
        return false;
    }
    return to_integer((double)x, narrow, is_unsigned, out);
}

/* Towards a kind that comes before: in place, since no element becomes wider. Returns the class it then is of. */
static int step_down(wide *w, int class, const DTypeObject *to, size_t n, int *lost) {
    if (to->kind == 'b') {
        for (size_t k = 0; k < n; k++)
            w->i[k] = class == WIDE_FLOAT     ? w->f[k] != 0
                      : class == WIDE_LONG    ? w->g[k] != 0
                      : class == WIDE_COMPLEX ? w->c[k][0] != 0 || w->c[k][1] != 0
                                              : w->h[k][0] != 0 || w->h[k][1] != 0;
        return WIDE_INT;
    }
    if (class == WIDE_COMPLEX || class == WIDE_CLONG) {
        *lost |= CAST_IMAGINARY;
        for (size_t k = 0; k < n && class == WIDE_COMPLEX; k++)
            w->f[k] = w->c[k][0];
        for (size_t k = 0; k < n && class == WIDE_CLONG; k++)
            w->g[k] = w->h[k][0];
        class = class == WIDE_COMPLEX ? WIDE_FLOAT : WIDE_LONG;
    }
    if (to->kind == 'f')
        return class;
    const bool narrow = to->itemsize < 4 || to->code == IST_I4, is_unsigned = to->code == IST_U8;
    bool beyond = false;
    for (size_t k = 0; k < n; k++)
        beyond |= class == WIDE_FLOAT ? to_integer(w->f[k], narrow, is_unsigned, &w->i[k])
                                      : long_to_integer(w->g[k], narrow, is_unsigned, &w->i[k]);
    *lost |= beyond ? CAST_BEYOND : 0;
    return WIDE_INT;
}

static int cast_native(char *to, Py_ssize_t to_stride, const DTypeObject *to_dtype, const char *from, Py_ssize_t from_stride,
                       ist_type_code from_code, size_t n) {
    wide w;
    load_function *load = loads[from_code].load;
    int class = loads[from_code].wide, lost = 0;
    store_function *store = stores[class][to_dtype->code];
    while (n > 0) {
        size_t some = n < CHUNK ? n : CHUNK;
        load(from, from_stride, &w, some);
        if (store == NULL)
            stores[step_down(&w, class, to_dtype, some, &lost)][to_dtype->code](to, to_stride, &w, some);
        else
            store(to, to_stride, &w, some);
        from += (Py_ssize_t)some * from_stride;
        to += (Py_ssize_t)some * to_stride;
        n -= some;
    }
    return lost;
}

/* The same with either in the other byte order. */
static int cast_swapped(char *to, Py_ssize_t to_stride, const DTypeObject *to_dtype, const char *from, Py_ssize_t from_stride,
                        const DTypeObject *from_dtype, size_t n) {
    enum { SOME = 64 };
    char room[2][SOME * 2 * sizeof(long double)];
    int lost = 0;
    while (n > 0) {
        size_t some = n < SOME ? n : SOME;
        move_items(room[0], from_dtype->itemsize, from, from_stride, from_dtype->itemsize, some);
        if (from_dtype->swapped)
            swap_elements(from_dtype, room[0], some);
        lost |= cast_native(room[1], to_dtype->itemsize, to_dtype, room[0], from_dtype->itemsize, from_dtype->code, some);
        if (to_dtype->swapped)
            swap_elements(to_dtype, room[1], some);
        move_items(to, to_stride, room[1], to_dtype->itemsize, to_dtype->itemsize, some);
        from += (Py_ssize_t)some * from_stride;
        to += (Py_ssize_t)some * to_stride;
        n -= some;
    }
    return lost;
}

int cast_numbers(char *to, Py_ssize_t to_stride, const DTypeObject *to_dtype, const char *from, Py_ssize_t from_stride,
                 const DTypeObject *from_dtype, size_t n) {
    if (to_dtype->swapped || from_dtype->swapped)
        return cast_swapped(to, to_stride, to_dtype, from, from_stride, from_dtype, n);
    return cast_native(to, to_stride, to_dtype, from, from_stride, from_dtype->code, n);
}

/* ---- rules --------------------------------------------------------------------------------------------------------------------- */

static int rank(const DTypeObject *dtype) {
    switch (dtype->kind) {
    case 'b': return 0;
    case 'u': return 1;
    case 'i': return 2;
    case 'f': return 3;
    default: return 4;
    }
}

static bool is_text(const DTypeObject *d) { return d->code == IST_BYTES || d->code == IST_TEXT; }
static bool is_time(const DTypeObject *d) { return d->code == IST_DATETIME || d->code == IST_TIMEDELTA; }
static bool is_compound(const DTypeObject *d) { return d->code == IST_STRUCT || d->code == IST_SUBARRAY; }

static bool castable_fields(const DTypeObject *from, const DTypeObject *to, ist_casting how) {
    bool all = from->nfields == to->nfields;
    for (Py_ssize_t i = 0; all && i < from->nfields; i++)
        all = castable(from->fields[i].dtype, to->fields[i].dtype, how);
    return all;
}

static bool same_shape(const DTypeObject *a, const DTypeObject *b) {
    return a->sub_ndim == b->sub_ndim && memcmp(a->sub_shape, b->sub_shape, (size_t)a->sub_ndim * sizeof *a->sub_shape) == 0;
}

/* One or both have fields or a shape. Fields are taken apart first. Any shape becomes any other only where all casts are allowed. */
static bool castable_compound(const DTypeObject *from, const DTypeObject *to, ist_casting how) {
    const bool any = how == CAST_UNSAFE;
    if (from->code == IST_STRUCT && to->code == IST_STRUCT)
        return castable_fields(from, to, how);
    if (to->code == IST_STRUCT) {
        bool all = any;
        for (Py_ssize_t i = 0; all && i < to->nfields; i++)
            all = castable(from, to->fields[i].dtype, how);
        return all;
    }
    if (from->code == IST_STRUCT)
        return any && from->nfields == 1 && castable(from->fields[0].dtype, to, how);
    if (from->code == IST_SUBARRAY && to->code == IST_SUBARRAY)
        return (any || same_shape(from, to)) && castable(from->base, to->base, how);
    if (to->code == IST_SUBARRAY)
        return (any || from->code != IST_VOID) && castable(from, to->base, how);
    return any && castable(from->base, to, how);
}

bool castable(const DTypeObject *from, const DTypeObject *to, ist_casting how) {
    if (dtype_is_number(from) && dtype_is_number(to))
        return how == CAST_UNSAFE || rank(from) <= rank(to);
    if (dtype_same(from, to))
        return true;
    if (is_compound(from) || is_compound(to))
        return castable_compound(from, to, how);
    if (how == CAST_UNSAFE)
        return true;
    switch (to->code) {
    case IST_BYTES: return dtype_is_number(from) || from->code == IST_BYTES;
    case IST_TEXT: return dtype_is_number(from) || is_text(from);
    case IST_VOID: return from->code == IST_VOID || from->itemsize <= to->itemsize;
    case IST_DATETIME: return from->code == IST_DATETIME && times_convertible(from, to);
    case IST_TIMEDELTA: return from->code == IST_TIMEDELTA ? times_convertible(from, to) : dtype_is_number(from) && rank(from) <= 2;
    default: return false;
    }
}

int raise_not_castable(const DTypeObject *from, const DTypeObject *to, ist_casting how) {
    PyObject *theirs = dtype_description(from), *ours = theirs == NULL ? NULL : dtype_description(to);
    if (ours != NULL)
        PyErr_Format(PyExc_TypeError, "Cannot cast array data from %R to %R according to the rule '%s'", theirs, ours,
                     how == CAST_UNSAFE ? "unsafe" : "same_kind");
    Py_XDECREF(theirs);
    Py_XDECREF(ours);
    return -1;
}

int warn_of_loss(int lost) {
    if ((lost & CAST_IMAGINARY) && PyErr_WarnEx(PyExc_RuntimeWarning, "casting complex values to real discards the imaginary part", 1) < 0)
        return -1;
    if (lost & CAST_BEYOND)
        return PyErr_WarnEx(PyExc_RuntimeWarning, "invalid value encountered in cast: NaN, or beyond what the integers can hold", 1);
    return 0;
}

/* ---- one element ----------------------------------------------------------------------------------------------------------------- */

static const DTypeObject i8 = {.code = IST_I8, .kind = 'i', .itemsize = 8};

static int64_t time_at(const DTypeObject *d, const char *item) {
    int64_t value;
    memcpy(&value, item, sizeof value);
    if (d->swapped)
        swap_elements(d, (char *)&value, 1);
    return value;
}

static int put_time(const DTypeObject *to, char *out, int64_t value) {
    if (to->swapped)
        swap_elements(to, (char *)&value, 1);
    memcpy(out, &value, sizeof value);
    return 0;
}

static int refuse_raw(const DTypeObject *to, const DTypeObject *from) {
    PyErr_Format(PyExc_ValueError, "raw bytes ('%s') don't become '%s': view(dtype) looks at them as something else", from->str, to->str);
    return -1;
}

/* Only what stands before the first zero, if there is one: as numpy reads a datetime64 from an element, though not from a str. Takes it. */
static PyObject *until_zero(PyObject *text) {
    PyObject *before;
    if (PyBytes_Check(text)) {
        const size_t n = strlen(PyBytes_AS_STRING(text));
        if (n == (size_t)PyBytes_GET_SIZE(text))
            return text;
        before = PyBytes_FromStringAndSize(PyBytes_AS_STRING(text), (Py_ssize_t)n);
    } else {
        const Py_ssize_t n = PyUnicode_FindChar(text, 0, 0, PyUnicode_GET_LENGTH(text), 1);
        if (n == -1)
            return text;
        before = n < 0 ? NULL : PyUnicode_Substring(text, 0, n);
    }
    Py_DECREF(text);
    return before;
}

/* As Python reads it. */
static int convert_text(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    PyObject *text = dtype_get(from, in);
    if (text != NULL && to->code == IST_DATETIME)
        text = until_zero(text);
    int result = text == NULL ? -1 : dtype_put(to, out, text, CAST_UNSAFE);
    Py_XDECREF(text);
    return result;
}

static int convert_to_number(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    if (dtype_is_number(from))
        return cast_numbers(out, 0, to, in, 0, from, 1);
    if (is_time(from)) {
        int64_t value = time_at(from, in);
        return cast_numbers(out, 0, to, (const char *)&value, 0, &i8, 1);
    }
    if (is_text(from))
        return convert_text(to, out, from, in);
    if (to->kind != 'b')
        return refuse_raw(to, from);
    *out = 0;
    for (Py_ssize_t i = 0; i < from->itemsize; i++)
        *out |= in[i] != 0;
    return 0;
}

static int convert_to_time(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    int64_t value;
    if (dtype_is_number(from)) { /* so many units; what no integer holds, NaN, is no time either */
        cast_numbers((char *)&value, 0, &i8, in, 0, from, 1);
    } else if (from->code == to->code) {
        if (!times_convert_any(time_at(from, in), from, to, &value)) {
            PyErr_Format(PyExc_OverflowError, "%lld as '%s' is outside what '%s' can express", (long long)time_at(from, in), from->str,
                         to->str);
            return -1;
        }
    } else if (is_time(from)) {
        value = time_at(from, in); /* the number of units, as numpy does it */
    } else {
        return is_text(from) ? convert_text(to, out, from, in) : refuse_raw(to, from);
    }
    return put_time(to, out, value);
}

/* Cut off, or filled up with zeros. */
static int convert_bytes(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    size_t n = (size_t)Py_MIN(to->itemsize, from->itemsize);
    memmove(out, in, n);
    memset(out + n, 0, (size_t)to->itemsize - n);
    return 0;
}

/* In this machine's byte order. */
static int convert_to_raw(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    const Py_ssize_t n = Py_MIN(to->itemsize, from->itemsize), unit = (Py_ssize_t)swap_unit(from);
    convert_bytes(to, out, from, in);
    for (Py_ssize_t i = 0; from->swapped && i < n; i++)
        out[i] = in[i - i % unit + unit - 1 - i % unit];
    return 0;
}

static int convert_bytes_to_text(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    Py_ssize_t n = Py_MIN(to->itemsize / 4, from->itemsize);
    memset(out, 0, (size_t)to->itemsize);
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t point = (unsigned char)in[i];
        if (point > 127) {
            PyErr_Format(PyExc_ValueError, "byte 0x%02x at place %zd of a '%s' element isn't ASCII, which text is read from", (int)point, i,
                         from->str);
            return -1;
        }
        memcpy(out + 4 * i, &point, 4);
    }
    if (to->swapped)
        swap_elements(to, out, 1);
    return 0;
}

static int convert_to_text(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    if (from->code == to->code) {
        convert_bytes(to, out, from, in);
        if (to->swapped != from->swapped)
            swap_elements(to, out, 1);
        return 0;
    }
    if (from->code == IST_BYTES)
        return convert_bytes_to_text(to, out, from, in);
    if (from->code == IST_TEXT)
        return convert_text(to, out, from, in);
    if (from->code == IST_VOID)
        return refuse_raw(to, from);
    char text[TEXT_ROOM];
    const Py_ssize_t n = dtype_is_number(from) ? text_of_number(from, in, text) : times_write(from, time_at(from, in), text);
    if (n < 0)
        return -1;
    if (from->code == IST_DATETIME && n > (to->code == IST_TEXT ? to->itemsize / 4 : to->itemsize)) { /* half a date is another one */
        PyErr_Format(PyExc_RuntimeError, "'%s' is too short for the time '%s'", to->str, text);
        return -1;
    }
    return put_ascii(to, out, text, n);
}

static Py_ssize_t places_of(const DTypeObject *d) {
    Py_ssize_t n = 1;
    for (int i = 0; d->code == IST_SUBARRAY && i < d->sub_ndim; i++)
        n *= d->sub_shape[i];
    return n;
}

/* Which of `from`'s elements is for the place `n` of `to`, in C order: the last axes belong together, one of length 1 is repeated; -1: none. */
static Py_ssize_t place_in(const DTypeObject *from, const DTypeObject *to, Py_ssize_t n) {
    Py_ssize_t place = 0, step = 1;
    for (int k = 1; k <= from->sub_ndim; k++) {
        const Py_ssize_t length = from->sub_shape[from->sub_ndim - k];
        Py_ssize_t at = 0;
        if (k <= to->sub_ndim) {
            at = n % to->sub_shape[to->sub_ndim - k];
            n /= to->sub_shape[to->sub_ndim - k];
        }
        if (length != 1) {
            if (at >= length)
                return -1;
            place += at * step;
        }
        step *= length;
    }
    return place;
}

static int convert_subarray(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    const bool one = from->code != IST_SUBARRAY, whole = !one && to->code == IST_SUBARRAY && same_shape(from, to);
    const DTypeObject *out_base = to->code == IST_SUBARRAY ? to->base : to, *in_base = one ? from : from->base;
    const Py_ssize_t n = places_of(to), given = places_of(from);
    int lost = 0;
    for (Py_ssize_t i = 0; i < n; i++, out += out_base->itemsize) {
        Py_ssize_t place = whole ? i : one || given == 1 || n == 1 ? 0 : place_in(from, to, i);
        if (place < 0 || given == 0) {
            memset(out, 0, (size_t)out_base->itemsize);
            continue;
        }
        int result = convert_element(out_base, out, in_base, in + place * in_base->itemsize);
        if (result < 0)
            return -1;
        lost |= result;
    }
    return lost;
}

/* Field by field in their order, whatever their names; what has no fields goes into all of them. */
static int convert_to_fields(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    int lost = 0;
    const bool each = from->code == IST_STRUCT && from->nfields == to->nfields;
    for (Py_ssize_t i = 0; i < to->nfields; i++) {
        const ist_field *f = &to->fields[i];
        int result = each ? convert_element(f->dtype, out + f->offset, from->fields[i].dtype, in + from->fields[i].offset)
                          : convert_element(f->dtype, out + f->offset, from, in);
        if (result < 0)
            return -1;
        lost |= result;
    }
    return lost;
}

int convert_element(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    if (to->code == IST_STRUCT)
        return convert_to_fields(to, out, from, in);
    if (from->code == IST_STRUCT)
        return convert_element(to, out, from->fields[0].dtype, in + from->fields[0].offset);
    if (to->code == IST_SUBARRAY || from->code == IST_SUBARRAY)
        return convert_subarray(to, out, from, in);
    switch (to->code) {
    case IST_DATETIME:
    case IST_TIMEDELTA: return convert_to_time(to, out, from, in);
    case IST_BYTES:
    case IST_TEXT: return convert_to_text(to, out, from, in);
    case IST_VOID: return convert_to_raw(to, out, from, in);
    default: return convert_to_number(to, out, from, in);
    }
}
