/* copy.c: elements from one place to another: strided, cast, overlapping; and the walk over memory that everything here is made of.
 *
 * Relies on: nothing of Python but for the GIL and raw memory. Elements are moved by memcpy of a fixed size, so nothing needs alignment.
 * Numbers are cast through the widest type of a class, a few hundred at a time: 16 loads and some 50 stores instead of 200 loops. Everything
 * else is converted one by one, under the GIL.
 *
 * Invariant: every element of a walk is visited exactly once, whatever the strides.
 */
#include "dtype.h"
#include "half.h"

#include <stdint.h>

/* ---- the walk ------------------------------------------------------------------------------------------------------------------ */

/* Backwards axes are walked forwards, and outer axes get the longer strides. */
static void order_axes(walk *w, int ndim) {
    for (int i = 0; i < ndim; i++) {
        if (w->steps[0][i] < 0) {
            for (int k = 0; k < 2; k++) {
                w->at[k] += w->steps[k][i] * (w->shape[i] - 1);
                w->steps[k][i] = -w->steps[k][i];
            }
        }
    }
    for (int i = 1; i < ndim; i++) {
        for (int j = i; j > 0 && w->steps[0][j - 1] < w->steps[0][j]; j--) {
            Py_ssize_t length = w->shape[j], first = w->steps[0][j], second = w->steps[1][j];
            w->shape[j] = w->shape[j - 1], w->steps[0][j] = w->steps[0][j - 1], w->steps[1][j] = w->steps[1][j - 1];
            w->shape[j - 1] = length, w->steps[0][j - 1] = first, w->steps[1][j - 1] = second;
        }
    }
}

/* Neighbouring axes whose elements lie at one distance throughout become one. */
static int join_axes(walk *w, int ndim) {
    int n = 0;
    for (int i = 0; i < ndim; i++) {
        bool joins = n > 0;
        for (int k = 0; joins && k < 2; k++)
            joins = w->steps[k][n - 1] == w->steps[k][i] * w->shape[i];
        if (joins)
            w->shape[n - 1] *= w->shape[i];
        else
            w->shape[n++] = w->shape[i];
        w->steps[0][n - 1] = w->steps[0][i];
        w->steps[1][n - 1] = w->steps[1][i];
    }
    return n;
}

void walk_begin(walk *w, const strided *first, const strided *second, bool keep_order) {
    int ndim = 0;
    w->at[0] = first->data;
    w->at[1] = second != NULL ? second->data : first->data; /* unused, and never moved */
    w->ndim = 0;
    w->n = 0;
    for (int i = 0; i < first->ndim; i++) {
        if (first->shape[i] == 0)
            return;
        if (first->shape[i] == 1)
            continue;
        w->shape[ndim] = first->shape[i];
        w->steps[0][ndim] = first->strides[i];
        w->steps[1][ndim++] = second != NULL ? second->strides[i] : 0;
    }
    if (!keep_order)
        order_axes(w, ndim);
    ndim = join_axes(w, ndim);
    if (ndim == 0) {
        w->n = 1;
        w->inner[0] = first->dtype->itemsize;
        w->inner[1] = second != NULL ? second->dtype->itemsize : 0;
        return;
    }
    w->ndim = ndim - 1;
    w->n = (size_t)w->shape[ndim - 1];
    w->inner[0] = w->steps[0][ndim - 1];
    w->inner[1] = w->steps[1][ndim - 1];
    for (int i = 0; i < w->ndim; i++)
        w->index[i] = 0;
}

bool walk_next(walk *w) {
    for (int i = w->ndim - 1; i >= 0; i--) {
        w->at[0] += w->steps[0][i];
        w->at[1] += w->steps[1][i];
        if (++w->index[i] < w->shape[i])
            return true;
        w->at[0] -= w->steps[0][i] * w->shape[i];
        w->at[1] -= w->steps[1][i] * w->shape[i];
        w->index[i] = 0;
    }
    return false;
}

/* ---- moving -------------------------------------------------------------------------------------------------------------------- */

/* `rows` times n elements. */
typedef struct plane {
    char *to;
    const char *from;
    Py_ssize_t to_stride, from_stride, to_row, from_row;
    size_t n, rows;
} plane;

/* With the strides in registers, and what is next known before the element before it is written. */
#define MOVE(bytes)                                                                                                                        \
    for (size_t r = 0; r < p.rows; r++, p.to += p.to_row, p.from += p.from_row) {                                                          \
        char *to = p.to;                                                                                                                   \
        const char *from = p.from;                                                                                                         \
        const Py_ssize_t to_stride = p.to_stride, from_stride = p.from_stride;                                                             \
        size_t i = 0;                                                                                                                      \
        for (; i + 4 <= p.n; i += 4, to += 4 * to_stride, from += 4 * from_stride) {                                                       \
            memcpy(to, from, bytes);                                                                                                       \
            memcpy(to + to_stride, from + from_stride, bytes);                                                                             \
            memcpy(to + 2 * to_stride, from + 2 * from_stride, bytes);                                                                     \
            memcpy(to + 3 * to_stride, from + 3 * from_stride, bytes);                                                                     \
        }                                                                                                                                  \
        for (; i < p.n; i++, to += to_stride, from += from_stride)                                                                         \
            memcpy(to, from, bytes);                                                                                                       \
    }                                                                                                                                      \
    break

static void move_plane(plane p, Py_ssize_t itemsize) {
    if (p.to_stride == itemsize && p.from_stride == itemsize) {
        for (size_t r = 0; r < p.rows; r++, p.to += p.to_row, p.from += p.from_row)
            memcpy(p.to, p.from, p.n * (size_t)itemsize);
        return;
    }
    switch (itemsize) {
    case 1: MOVE(1);
    case 2: MOVE(2);
    case 4: MOVE(4);
    case 8: MOVE(8);
    case 16: MOVE(16);
    default: MOVE((size_t)itemsize);
    }
}

static void move(char *to, Py_ssize_t to_stride, const char *from, Py_ssize_t from_stride, Py_ssize_t itemsize, size_t n) {
    move_plane((plane){to, from, to_stride, from_stride, 0, 0, n, 1}, itemsize);
}

void gather(char *to, const char *from, Py_ssize_t stride, Py_ssize_t itemsize, size_t n) { move(to, itemsize, from, stride, itemsize, n); }

/* ---- casting ------------------------------------------------------------------------------------------------------------------- */

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
    [WIDE_UINT] = {INTEGERS, INEXACT(uint)},
    [WIDE_FLOAT] = {INEXACT(float)},
    [WIDE_COMPLEX] = {[IST_C8] = store_complex_c8, [IST_C16] = store_complex_c16, [IST_CLONG] = store_complex_h},
    [WIDE_LONG] = {INEXACT(long)},
    [WIDE_CLONG] = {[IST_C8] = store_clong_c8, [IST_C16] = store_clong_c16, [IST_CLONG] = store_clong_h},
};

static int rank(const DTypeObject *dtype) {
    switch (dtype->kind) {
    case 'b': return 0;
    case 'u': return 1;
    case 'i': return 2;
    case 'f': return 3;
    default: return 4;
    }
}

static bool is_number(const DTypeObject *d) { return d->code <= IST_CLONG; }

static bool castable_fields(const DTypeObject *from, const DTypeObject *to) {
    bool all = from->nfields == to->nfields;
    for (Py_ssize_t i = 0; all && i < from->nfields; i++)
        all = castable(from->fields[i].dtype, to->fields[i].dtype);
    return all;
}

static bool same_shape(const DTypeObject *a, const DTypeObject *b) {
    return a->sub_ndim == b->sub_ndim && memcmp(a->sub_shape, b->sub_shape, (size_t)a->sub_ndim * sizeof *a->sub_shape) == 0;
}

bool castable(const DTypeObject *from, const DTypeObject *to) {
    if (is_number(from) && is_number(to))
        return rank(from) <= rank(to);
    if (dtype_same(from, to))
        return true;
    switch (to->code) {
    case IST_BYTES:
    case IST_VOID: return from->code == to->code;
    case IST_TEXT: return from->code == IST_TEXT || from->code == IST_BYTES;
    case IST_DATETIME: return from->code == IST_DATETIME && times_convertible(from, to);
    case IST_TIMEDELTA: return from->code == IST_TIMEDELTA ? times_convertible(from, to) : is_number(from) && rank(from) <= 2;
    case IST_STRUCT: return from->code == IST_STRUCT && castable_fields(from, to);
    case IST_SUBARRAY: return from->code == IST_SUBARRAY && same_shape(from, to) && castable(from->base, to->base);
    default: return false;
    }
}

int raise_not_castable(const DTypeObject *from, const DTypeObject *to) {
    PyObject *theirs = dtype_description(from), *ours = theirs == NULL ? NULL : dtype_description(to);
    if (ours != NULL)
        PyErr_Format(PyExc_TypeError, "Cannot cast array data from %R to %R according to the rule 'same_kind'", theirs, ours);
    Py_XDECREF(theirs);
    Py_XDECREF(ours);
    return -1;
}

static void cast_native(char *to, Py_ssize_t to_stride, ist_type_code to_code, const char *from, Py_ssize_t from_stride,
                        ist_type_code from_code, size_t n) {
    wide w;
    load_function *load = loads[from_code].load;
    store_function *store = stores[loads[from_code].wide][to_code];
    while (n > 0) {
        size_t some = n < CHUNK ? n : CHUNK;
        load(from, from_stride, &w, some);
        store(to, to_stride, &w, some);
        from += (Py_ssize_t)some * from_stride;
        to += (Py_ssize_t)some * to_stride;
        n -= some;
    }
}

/* The same with either in the other byte order. */
static void cast_swapped(char *to, Py_ssize_t to_stride, const DTypeObject *to_dtype, const char *from, Py_ssize_t from_stride,
                         const DTypeObject *from_dtype, size_t n) {
    enum { SOME = 64 };
    char room[2][SOME * 2 * sizeof(long double)];
    while (n > 0) {
        size_t some = n < SOME ? n : SOME;
        move(room[0], from_dtype->itemsize, from, from_stride, from_dtype->itemsize, some);
        if (from_dtype->swapped)
            swap_elements(from_dtype, room[0], some);
        cast_native(room[1], to_dtype->itemsize, to_dtype->code, room[0], from_dtype->itemsize, from_dtype->code, some);
        if (to_dtype->swapped)
            swap_elements(to_dtype, room[1], some);
        move(to, to_stride, room[1], to_dtype->itemsize, to_dtype->itemsize, some);
        from += (Py_ssize_t)some * from_stride;
        to += (Py_ssize_t)some * to_stride;
        n -= some;
    }
}

static void cast(char *to, Py_ssize_t to_stride, const DTypeObject *to_dtype, const char *from, Py_ssize_t from_stride,
                 const DTypeObject *from_dtype, size_t n) {
    if (to_dtype->swapped || from_dtype->swapped)
        cast_swapped(to, to_stride, to_dtype, from, from_stride, from_dtype, n);
    else
        cast_native(to, to_stride, to_dtype->code, from, from_stride, from_dtype->code, n);
}

/* ---- converting one element of any castable kind -------------------------------------------------------------------------------- */

static int64_t time_at(const DTypeObject *d, const char *item) {
    int64_t value;
    memcpy(&value, item, sizeof value);
    if (d->swapped)
        swap_elements(d, (char *)&value, 1);
    return value;
}

static int convert_time(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    int64_t value;
    if (from->code != to->code) { /* an integer as so many units */
        static const DTypeObject i8 = {.code = IST_I8, .kind = 'i', .itemsize = 8};
        cast((char *)&value, 8, &i8, in, 0, from, 1);
    } else if (!times_convert(time_at(from, in), from, to, &value)) {
        PyErr_Format(PyExc_OverflowError, "%lld as '%s' is outside what '%s' can express", (long long)time_at(from, in), from->str,
                     to->str);
        return -1;
    }
    if (to->swapped)
        swap_elements(to, (char *)&value, 1);
    memcpy(out, &value, sizeof value);
    return 0;
}

/* Cut off, or filled up with zeros. */
static void convert_bytes(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    size_t n = (size_t)Py_MIN(to->itemsize, from->itemsize);
    memmove(out, in, n);
    memset(out + n, 0, (size_t)to->itemsize - n);
    if (to->swapped != from->swapped)
        swap_elements(to, out, 1);
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

static int convert(const DTypeObject *to, char *out, const DTypeObject *from, const char *in) {
    if (is_number(to)) {
        cast(out, 0, to, in, 0, from, 1);
        return 0;
    }
    switch (to->code) {
    case IST_DATETIME:
    case IST_TIMEDELTA: return convert_time(to, out, from, in);
    case IST_TEXT:
        if (from->code == IST_BYTES)
            return convert_bytes_to_text(to, out, from, in);
        convert_bytes(to, out, from, in);
        return 0;
    case IST_STRUCT:
        for (Py_ssize_t i = 0; i < to->nfields; i++)
            if (convert(to->fields[i].dtype, out + to->fields[i].offset, from->fields[i].dtype, in + from->fields[i].offset) < 0)
                return -1;
        return 0;
    case IST_SUBARRAY:
        for (Py_ssize_t i = 0; to->base->itemsize > 0 && i < to->itemsize / to->base->itemsize; i++)
            if (convert(to->base, out + i * to->base->itemsize, from->base, in + i * from->base->itemsize) < 0)
                return -1;
        return 0;
    default: convert_bytes(to, out, from, in); return 0;
    }
}

static int convert_walk(walk *w, const DTypeObject *to, const DTypeObject *from) {
    do {
        for (size_t i = 0; i < w->n; i++)
            if (convert(to, w->at[0] + (Py_ssize_t)i * w->inner[0], from, w->at[1] + (Py_ssize_t)i * w->inner[1]) < 0)
                return -1;
    } while (walk_next(w));
    return 0;
}

/* ---- copying ------------------------------------------------------------------------------------------------------------------- */

/* The bytes from the lowest to beyond the highest element. There is at least one. */
static void extent(const strided *s, uintptr_t *low, uintptr_t *high) {
    *low = *high = (uintptr_t)s->data;
    for (int i = 0; i < s->ndim; i++) {
        Py_ssize_t reach = (s->shape[i] - 1) * s->strides[i];
        if (reach < 0)
            *low -= (uintptr_t)-reach;
        else
            *high += (uintptr_t)reach;
    }
    *high += (uintptr_t)s->dtype->itemsize;
}

static bool overlap(const strided *a, const strided *b) {
    uintptr_t a_low, a_high, b_low, b_high;
    extent(a, &a_low, &a_high);
    extent(b, &b_low, &b_high);
    return a_low < b_high && b_low < a_high;
}

/* Bytes can be moved as they are. Between fields there may lie what is nobody's, or in a view of some fields the others: these are left
 * alone, but where `whole` items go into memory that is nobody else's yet. */
static bool is_run(const DTypeObject *to, const DTypeObject *from, bool whole) { return dtype_same(to, from) && (whole || !to->gaps); }

/* Two axes at a time. */
static void move_walk(walk *w, Py_ssize_t itemsize) {
    size_t rows = 1;
    Py_ssize_t to_row = 0, from_row = 0;
    if (w->ndim > 0) {
        w->ndim--;
        rows = (size_t)w->shape[w->ndim];
        to_row = w->steps[0][w->ndim];
        from_row = w->steps[1][w->ndim];
    }
    do
        move_plane((plane){w->at[0], w->at[1], w->inner[0], w->inner[1], to_row, from_row, w->n, rows}, itemsize);
    while (walk_next(w));
}

static void cast_walk(walk *w, const DTypeObject *to, const DTypeObject *from) {
    do
        cast(w->at[0], w->inner[0], to, w->at[1], w->inner[1], from, w->n);
    while (walk_next(w));
}

/* The GIL is dropped for large ones, if no Python is needed. */
static int copy_walk(walk *w, const DTypeObject *to, const DTypeObject *from, size_t nbytes, bool whole) {
    const bool same = is_run(to, from, whole);
    if (!same && !(is_number(to) && is_number(from)))
        return convert_walk(w, to, from);
    PyThreadState *saved = nbytes >= WITHOUT_GIL_BYTES ? PyEval_SaveThread() : NULL;
    if (same)
        move_walk(w, to->itemsize);
    else
        cast_walk(w, to, from);
    if (saved != NULL)
        PyEval_RestoreThread(saved);
    return 0;
}

static int copy_apart(const strided *to, const strided *from, bool whole) {
    walk w;
    walk_begin(&w, to, from, false);
    return copy_walk(&w, to->dtype, from->dtype, 0, whole);
}

static size_t count_elements(const strided *s) {
    size_t n = 1;
    for (int i = 0; i < s->ndim; i++)
        n *= (size_t)s->shape[i];
    return n;
}

/* The source is read whole before the first element is written. */
static int copy_overlapping(const strided *to, const strided *from, bool whole) {
    char *room = PyMem_RawMalloc(count_elements(from) * (size_t)from->dtype->itemsize);
    if (room == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t strides[IST_MAX_NDIM];
    fill_c_strides(from->ndim, from->shape, from->dtype->itemsize, strides);
    strided middle = {from->dtype, room, from->ndim, from->shape, strides};
    int result = copy_apart(&middle, from, true);
    if (result == 0)
        result = copy_apart(to, &middle, whole);
    PyMem_RawFree(room);
    return result;
}

static int copy(const strided *to, const strided *from, bool whole) {
    walk w;
    walk_begin(&w, to, from, false);
    if (w.n == 0)
        return 0;
    size_t itemsize = (size_t)to->dtype->itemsize, nbytes = count_elements(to) * itemsize;
    bool one_run = is_run(to->dtype, from->dtype, whole) && w.ndim == 0 && w.inner[0] == w.inner[1] && (size_t)w.inner[0] == itemsize;
    if (!one_run) {
        if (overlap(to, from))
            return copy_overlapping(to, from, whole);
        return copy_walk(&w, to->dtype, from->dtype, nbytes, whole);
    }
    PyThreadState *saved = nbytes >= WITHOUT_GIL_BYTES ? PyEval_SaveThread() : NULL;
    memmove(w.at[0], w.at[1], nbytes);
    if (saved != NULL)
        PyEval_RestoreThread(saved);
    return 0;
}

int copy_values(const strided *to, const strided *from) { return copy(to, from, false); }
int copy_items(const strided *to, const strided *from) { return copy(to, from, true); }

void put_item(const DTypeObject *dtype, char *to, const char *item) {
    if (dtype->gaps)
        convert(dtype, to, dtype, item);
    else
        memcpy(to, item, (size_t)dtype->itemsize);
}

/* ---- filling ------------------------------------------------------------------------------------------------------------------- */

static void fill_run(char *to, Py_ssize_t stride, const char *item, Py_ssize_t itemsize, size_t n) {
    static const char zeros[16];
    if (stride == itemsize && (itemsize == 1 || (itemsize <= (Py_ssize_t)sizeof zeros && memcmp(item, zeros, (size_t)itemsize) == 0)))
        memset(to, item[0], n * (size_t)itemsize);
    else if (stride == itemsize && itemsize == 8) { /* constant strides and values, so that they are vectorised */
        uint64_t value;
        memcpy(&value, item, sizeof value);
        for (size_t i = 0; i < n; i++)
            memcpy(to + 8 * i, &value, 8);
    } else if (stride == itemsize && itemsize == 4) {
        uint32_t value;
        memcpy(&value, item, sizeof value);
        for (size_t i = 0; i < n; i++)
            memcpy(to + 4 * i, &value, 4);
    } else
        move(to, stride, item, 0, itemsize, n);
}

void fill_values(const strided *to, const char *item) {
    walk w;
    walk_begin(&w, to, NULL, false);
    if (w.n == 0)
        return;
    size_t nbytes = count_elements(to) * (size_t)to->dtype->itemsize;
    PyThreadState *saved = nbytes >= WITHOUT_GIL_BYTES ? PyEval_SaveThread() : NULL;
    do {
        if (!to->dtype->gaps)
            fill_run(w.at[0], w.inner[0], item, to->dtype->itemsize, w.n);
        for (size_t i = 0; to->dtype->gaps && i < w.n; i++)
            put_item(to->dtype, w.at[0] + (Py_ssize_t)i * w.inner[0], item);
    } while (walk_next(&w));
    if (saved != NULL)
        PyEval_RestoreThread(saved);
}
