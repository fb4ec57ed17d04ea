/* compare.c: ==, hash, bool and `in`: an array as a value among others, the way memoryview is.
 *
 * Invariant: what compares equal hashes equal, bytes and memoryviews of bytes included: == goes by values, whatever the dtypes.
 */
#include "dtype.h"

#include <math.h>

#define BLOCK_BYTES 4096

/* ---- equality -------------------------------------------------------------------------------------------------------------------- */

static bool equal_bits(const char *x, const char *y, size_t n, Py_ssize_t itemsize) { return memcmp(x, y, n * (size_t)itemsize) == 0; }

#define EQUAL(name, type, different)                                                                                                       \
    static bool name(const char *x, const char *y, size_t n) {                                                                             \
        bool equal = true;                                                                                                                 \
        for (size_t i = 0; i < n; i++) {                                                                                                   \
            type p, q;                                                                                                                     \
            memcpy(&p, x + i * sizeof p, sizeof p);                                                                                        \
            memcpy(&q, y + i * sizeof q, sizeof q);                                                                                        \
            equal &= !(different);                                                                                                         \
        }                                                                                                                                  \
        return equal;                                                                                                                      \
    }
EQUAL(equal_bools, unsigned char, (p != 0) != (q != 0))
EQUAL(equal_floats, float, p != q)
EQUAL(equal_doubles, double, p != q)
#define HALF_NAN(h) (((h) & 0x7fff) > 0x7c00)
EQUAL(equal_halves, uint16_t, HALF_NAN(p) || HALF_NAN(q) || (p != q && ((p | q) & 0x7fff) != 0))

EQUAL(equal_longs, long double, p != q)
EQUAL(equal_times, int64_t, p != q || p == NAT)

/* n elements of one dtype, side by side, in native order. */
static bool equal_run(const DTypeObject *dtype, const char *x, const char *y, size_t n) {
    switch (dtype->code) {
    case IST_BOOL: return equal_bools(x, y, n);
    case IST_F2: return equal_halves(x, y, n);
    case IST_F4: return equal_floats(x, y, n);
    case IST_F8: return equal_doubles(x, y, n);
    case IST_C8: return equal_floats(x, y, 2 * n);
    case IST_C16: return equal_doubles(x, y, 2 * n);
    case IST_LONG: return equal_longs(x, y, n);
    case IST_CLONG: return equal_longs(x, y, 2 * n);
    case IST_DATETIME:
    case IST_TIMEDELTA: return equal_times(x, y, n);
    default: return equal_bits(x, y, n, dtype->itemsize);
    }
}

/* Of elements without fields and of at most BLOCK_BYTES. */
static bool equal_walk(walk *w, const DTypeObject *dtype) {
    char rooms[2][BLOCK_BYTES];
    const Py_ssize_t itemsize = dtype->itemsize;
    const size_t block = (size_t)(BLOCK_BYTES / itemsize);
    do {
        for (size_t done = 0; done < w->n; done += block) {
            size_t some = w->n - done < block ? w->n - done : block;
            const char *at[2];
            for (int k = 0; k < 2; k++) {
                at[k] = w->at[k] + (Py_ssize_t)done * w->inner[k];
                if (w->inner[k] != itemsize || dtype->swapped) {
                    gather(rooms[k], at[k], w->inner[k], itemsize, some);
                    at[k] = rooms[k];
                }
                if (dtype->swapped)
                    swap_elements(dtype, rooms[k], some);
            }
            if (!equal_run(dtype, at[0], at[1], some))
                return false;
        }
    } while (walk_next(w));
    return true;
}

/* Different dtypes, and fields: as Python compares their values, which is exact. */
static int equal_objects(walk *w, const DTypeObject *x_dtype, const DTypeObject *y_dtype) {
    do {
        for (size_t i = 0; i < w->n; i++) {
            PyObject *x = dtype_get(x_dtype, w->at[0] + (Py_ssize_t)i * w->inner[0]);
            PyObject *y = x == NULL ? NULL : dtype_get(y_dtype, w->at[1] + (Py_ssize_t)i * w->inner[1]);
            int equal = y == NULL ? -1 : x == Py_None ? 0 : PyObject_RichCompareBool(x, y, Py_EQ); /* None: NaT, equal to nothing */
            Py_XDECREF(x);
            Py_XDECREF(y);
            if (equal <= 0)
                return equal;
        }
    } while (walk_next(w));
    return 1;
}

static int equal_values(const strided *x, const strided *y) {
    if (x->ndim != y->ndim || (x->ndim > 0 && memcmp(x->shape, y->shape, (size_t)x->ndim * sizeof *x->shape) != 0))
        return 0;
    walk w;
    walk_begin(&w, x, y, false);
    if (w.n == 0)
        return 1;
    if (!dtype_same(x->dtype, y->dtype) || x->dtype->code == IST_STRUCT || x->dtype->itemsize > BLOCK_BYTES)
        return equal_objects(&w, x->dtype, y->dtype);
    bool equal;
    Py_ssize_t nbytes = x->dtype->itemsize;
    for (int i = 0; i < x->ndim; i++)
        nbytes *= x->shape[i];
    if (nbytes < WITHOUT_GIL_BYTES)
        return equal_walk(&w, x->dtype);
    Py_BEGIN_ALLOW_THREADS
    equal = equal_walk(&w, x->dtype);
    Py_END_ALLOW_THREADS
    return equal;
}

/* ndarrays and their like compare element by element: they are asked. */
static int has_array_ufunc(PyObject *other) {
    PyObject *found = PyObject_GetAttrString((PyObject *)Py_TYPE(other), "__array_ufunc__");
    if (found == NULL) {
        PyErr_Clear();
        return false;
    }
    Py_DECREF(found);
    return true;
}

PyObject *array_richcompare(PyObject *self, PyObject *other, int op) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    bool same_type = Py_IS_TYPE(other, Py_TYPE(self));
    if ((op != Py_EQ && op != Py_NE) || (!same_type && (!PyObject_CheckBuffer(other) || has_array_ufunc(other))))
        Py_RETURN_NOTIMPLEMENTED;
    if (!array_usable(a) || (same_type && !array_usable((SharedArrayObject *)other))) /* as a released memoryview */
        return PyBool_FromLong((self == other) == (op == Py_EQ));
    if (array_tracks(a)) {
        PyObject *now = (PyObject *)array_now(a);
        PyObject *result = now == NULL ? NULL : array_richcompare(now, other == self ? now : other, op); /* itself is equal to itself */
        Py_XDECREF(now);
        return result;
    }
    source s;
    if (source_open(state_of(a), other, &s) < 0) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError))
            return NULL;
        PyErr_Clear(); /* no elements of ours */
        Py_RETURN_NOTIMPLEMENTED;
    }
    int equal = -1;
    if (hold_enter(a, HOLD_SHARED) == 0) {
        strided x = strided_of(a);
        equal = equal_values(&x, &s.values);
        hold_leave(a, HOLD_SHARED);
    }
    source_close(&s);
    return equal < 0 ? NULL : PyBool_FromLong(equal == (op == Py_EQ));
}

/* ---- hash ------------------------------------------------------------------------------------------------------------------------ */

/* -128 … 255 as a byte, so that one-dimensional arrays of small integers hash like the bytes they may be equal to; else -1. */
static int byte_of(PyObject *value) {
    if (PyComplex_Check(value)) {
        Py_complex c = PyComplex_AsCComplex(value);
        return c.imag == 0 && c.real >= -128 && c.real <= 255 && c.real == (double)(int)c.real ? (int)c.real & 0xff : -1;
    }
    if (PyLong_Check(value)) {
        int overflow;
        long i = PyLong_AsLongAndOverflow(value, &overflow);
        return overflow == 0 && i >= -128 && i <= 255 ? (int)(i & 0xff) : -1;
    }
    double x = PyFloat_Check(value) ? PyFloat_AS_DOUBLE(value) : NAN;
    return x >= -128 && x <= 255 && x == (double)(int)x ? (int)x & 0xff : -1;
}

/* A NaN's own hash is its object's address, and our objects are made anew each time. */
static bool is_nan(PyObject *value) {
    if (PyFloat_Check(value))
        return isnan(PyFloat_AS_DOUBLE(value));
    if (!PyComplex_Check(value))
        return false;
    Py_complex c = PyComplex_AsCComplex(value);
    return isnan(c.real) || isnan(c.imag);
}

static Py_uhash_t mix(Py_uhash_t hash, Py_uhash_t more) {
    hash ^= more + (Py_uhash_t)UINT64_C(0x9e3779b97f4a7c15) + (hash << 6) + (hash >> 2);
    return hash * (Py_uhash_t)UINT64_C(0xff51afd7ed558ccd);
}

/* A sub-array's lists as tuples, which hash; takes the value. */
static PyObject *hashable(PyObject *value) {
    if (value == NULL || (!PyList_Check(value) && !PyTuple_Check(value)))
        return value;
    PyObject *tuple = PySequence_Tuple(value);
    Py_DECREF(value);
    if (tuple == NULL)
        return NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    PyObject *result = PyTuple_New(n);
    for (Py_ssize_t i = 0; result != NULL && i < n; i++) {
        PyObject *part = hashable(Py_NewRef(PyTuple_GET_ITEM(tuple, i)));
        if (part != NULL && is_nan(part))
            Py_SETREF(part, PyLong_FromLong(0));
        if (part == NULL)
            Py_CLEAR(result);
        else
            PyTuple_SET_ITEM(result, i, part);
    }
    Py_DECREF(tuple);
    return result;
}

/* Hash of all elements in C order; `bytes` is filled as long as they are bytes, else *is_bytes turns false. */
static int hash_elements(SharedArrayObject *a, char *bytes, bool *is_bytes, Py_uhash_t *hash) {
    strided s = strided_of(a);
    walk w;
    walk_begin(&w, &s, NULL, true);
    if (w.n == 0)
        return 0;
    do {
        for (size_t i = 0; i < w.n; i++) {
            PyObject *value = hashable(dtype_get(a->dtype, w.at[0] + (Py_ssize_t)i * w.inner[0]));
            if (value == NULL)
                return -1;
            int byte = *is_bytes ? byte_of(value) : -1;
            if (byte < 0)
                *is_bytes = false;
            else
                *bytes++ = (char)byte;
            Py_hash_t one = is_nan(value) ? 0 : PyObject_Hash(value);
            Py_DECREF(value);
            if (one == -1)
                return -1;
            *hash = mix(*hash, (Py_uhash_t)one);
        }
    } while (walk_next(&w));
    return 0;
}

static Py_hash_t hash_values(SharedArrayObject *a) {
    bool is_bytes = a->ndim == 1;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, is_bytes ? array_size(a) : 0);
    if (bytes == NULL)
        return -1;
    Py_uhash_t hash = (Py_uhash_t)a->ndim;
    for (int i = 0; i < a->ndim; i++)
        hash = mix(hash, (Py_uhash_t)ARRAY_SHAPE(a)[i]);
    Py_hash_t result = -1;
    if (hash_elements(a, PyBytes_AS_STRING(bytes), &is_bytes, &hash) == 0) {
        if (is_bytes)
            result = PyObject_Hash(bytes);
        else
            result = hash == (Py_uhash_t)-1 ? -2 : (Py_hash_t)hash;
    }
    Py_DECREF(bytes);
    return result;
}

Py_hash_t array_hash(PyObject *self) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a)) {
        PyObject *now = (PyObject *)array_now(a);
        Py_hash_t result = now == NULL ? -1 : array_hash(now);
        Py_XDECREF(now);
        return result;
    }
    if (hold_enter(a, HOLD_SHARED) < 0)
        return -1;
    Py_hash_t hash = -1;
    if (array_flags(array_root(a)) & ARRAY_FROZEN)
        hash = hash_values(a);
    else
        PyErr_SetString(PyExc_TypeError, "unhashable: the SharedArray isn't frozen, its values can change");
    hold_leave(a, HOLD_SHARED);
    return hash;
}

/* ---- truth and membership -------------------------------------------------------------------------------------------------------- */

int array_bool(PyObject *self) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a)) {
        PyObject *now = (PyObject *)array_now(a);
        int result = now == NULL ? -1 : array_bool(now);
        Py_XDECREF(now);
        return result;
    }
    if (hold_enter(a, HOLD_SHARED) < 0)
        return -1;
    int truth = -1;
    if (array_size(a) == 1) {
        PyObject *value = dtype_get(a->dtype, a->data);
        truth = value == NULL ? -1 : PyObject_IsTrue(value);
        Py_XDECREF(value);
    } else {
        PyErr_Format(PyExc_ValueError, "the truth value of an array with %zd elements is ambiguous: use a.any(), a.all() or len(a)",
                     array_size(a));
    }
    hold_leave(a, HOLD_SHARED);
    return truth;
}

/* Whether any element equals the value, as numpy has it. */
int array_contains(PyObject *self, PyObject *value) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a)) {
        PyObject *now = (PyObject *)array_now(a);
        int result = now == NULL ? -1 : array_contains(now, value);
        Py_XDECREF(now);
        return result;
    }
    if (hold_enter(a, HOLD_SHARED) < 0)
        return -1;
    strided s = strided_of(a);
    walk w;
    walk_begin(&w, &s, NULL, true);
    int found = 0;
    for (bool more = w.n > 0; more && found == 0; more = walk_next(&w)) {
        for (size_t i = 0; i < w.n && found == 0; i++) {
            PyObject *element = dtype_get(a->dtype, w.at[0] + (Py_ssize_t)i * w.inner[0]);
            found = element == NULL ? -1 : PyObject_RichCompareBool(element, value, Py_EQ);
            Py_XDECREF(element);
        }
    }
    hold_leave(a, HOLD_SHARED);
    return found;
}
