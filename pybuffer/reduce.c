/* reduce.c: sum min max mean argmin argmax any all count_nonzero, over all elements, since a worker interpreter has no numpy.
 *
 * Relies on: kernels.c for runs of elements side by side, the walk of copy.c for everything that isn't.
 * Result types are numpy's; so are NaNs: any NaN is the minimum and the maximum, and the first is argmin and argmax. Floats are summed by
 * many partial sums, and those in pairs, so that the error grows with the logarithm of the size; integers exactly, then wrapped.
 * Large arrays are gone through without the GIL, standing on the hold.
 */
#include "array.h"
#include "half.h"
#include "kernels.h"

/* What a kernel sees at once, fewer than kernels.c's limits. Few floats, so that partial sums stay short; many integers, since putting
 * the lanes of a block together costs as much as hundreds of them. */
#define BLOCK_FLOATS 1024
#define BLOCK_BYTES (BLOCK_FLOATS * 16)

static size_t block_length(const DTypeObject *dtype) {
    bool inexact = dtype->kind == 'f' || dtype->kind == 'c';
    return inexact ? BLOCK_FLOATS : (size_t)(BLOCK_BYTES / dtype->itemsize);
}

static const kernels *active_kernels(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return &kernels_avx2;
#endif
    return &kernels_baseline;
}

/* ---- going through the elements -------------------------------------------------------------------------------------------------- */

typedef struct reduction reduction;
/* Takes n > 0 elements of r->code in a row; false: enough seen. */
typedef bool step_function(reduction *r, const char *p, size_t n);

struct reduction {
    const kernels *k;
    step_function *step;
    bool in_order;       /* the elements' order matters */
    ist_type_code code;  /* of what step sees: float16 comes as float32 */
    size_t itemsize;     /* of that */
    size_t seen;         /* elements before this block */
    /* results */
    int128 integer;
    double levels[2][64]; /* pending partial sums: level i stands for 2**i blocks */
    uint64_t blocks;
    size_t count, index;
    bool nan, started, greatest;
    char best[16];
};

static bool step_block(reduction *r, const DTypeObject *dtype, const char *p, Py_ssize_t stride, size_t n, char *room) {
    if (stride != dtype->itemsize) {
        gather(room, p, stride, dtype->itemsize, n);
        p = room;
    }
    float widened[BLOCK_FLOATS];
    if (dtype->code == IST_F2 && r->code == IST_F4) {
        for (size_t i = 0; i < n; i++) {
            uint16_t half;
            memcpy(&half, p + 2 * i, sizeof half);
            widened[i] = (float)half_to_double(half);
        }
        p = (const char *)widened;
    }
    bool more = r->step(r, p, n);
    r->seen += n;
    return more;
}

static void go_through(reduction *r, const strided *s) {
    char room[BLOCK_BYTES];
    walk w;
    walk_begin(&w, s, NULL, r->in_order);
    if (w.n == 0)
        return;
    size_t block = block_length(s->dtype);
    do {
        for (size_t done = 0; done < w.n; done += block) {
            size_t some = w.n - done < block ? w.n - done : block;
            if (!step_block(r, s->dtype, w.at[0] + (Py_ssize_t)done * w.inner[0], w.inner[0], some, room))
                return;
        }
    } while (walk_next(&w));
}

/* -1 with an exception if the array can't be used. */
static int reduce(SharedArrayObject *a, reduction *r, step_function *step, bool in_order, bool widen) {
    if (hold_enter(a, HOLD_SHARED) < 0)
        return -1;
    strided s = strided_of(a);
    r->k = active_kernels();
    r->step = step;
    r->in_order = in_order;
    r->code = widen && a->dtype->code == IST_F2 ? IST_F4 : a->dtype->code;
    r->itemsize = widen && a->dtype->code == IST_F2 ? 4 : (size_t)a->dtype->itemsize;
    if (a->nbytes >= WITHOUT_GIL_BYTES) {
        Py_BEGIN_ALLOW_THREADS
        go_through(r, &s);
        Py_END_ALLOW_THREADS
    } else {
        go_through(r, &s);
    }
    hold_leave(a, HOLD_SHARED);
    return 0;
}

/* ---- sum and mean ---------------------------------------------------------------------------------------------------------------- */

/* Adds a block's sum as a binary counter adds 1: each level is added to the next when it is there twice. */
static void add_partial(reduction *r, const double *sum) {
    double re = sum[0], im = sum[1];
    int level = 0;
    for (; r->blocks >> level & 1; level++) {
        re += r->levels[0][level];
        im += r->levels[1][level];
    }
    r->levels[0][level] = re;
    r->levels[1][level] = im;
    r->blocks++;
}

static double total(const reduction *r, int part) {
    double sum = 0;
    for (int level = 0; level < 64; level++)
        if (r->blocks >> level & 1)
            sum += r->levels[part][level];
    return sum;
}

static bool step_sum(reduction *r, const char *p, size_t n) {
    if (r->code == IST_BOOL) {
        r->integer += (int128)r->k->nonzero[IST_BOOL](p, n);
    } else if (r->k->sum_integer[r->code] != NULL) {
        r->integer += r->k->sum_integer[r->code](p, n);
    } else {
        double sum[2] = {0, 0};
        r->k->sum_inexact[r->code](p, n, sum);
        add_partial(r, sum);
    }
    return true;
}

/* Rounded to what numpy's result would be, as a Python number. */
static PyObject *rounded(const DTypeObject *dtype, double re, double im) {
    switch (dtype->code) {
    case IST_F2: return PyFloat_FromDouble(half_to_double(half_from_double(re)));
    case IST_F4: return PyFloat_FromDouble((double)(float)re);
    case IST_C8: return PyComplex_FromDoubles((double)(float)re, (double)(float)im);
    case IST_C16: return PyComplex_FromDoubles(re, im);
    default: return PyFloat_FromDouble(re);
    }
}

static PyObject *array_sum(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    reduction r = {.blocks = 0};
    if (reduce(a, &r, step_sum, false, true) < 0)
        return NULL;
    switch (a->dtype->kind) {
    case 'b':
    case 'i': return PyLong_FromLongLong((int64_t)(uint64_t)r.integer);
    case 'u': return PyLong_FromUnsignedLongLong((uint64_t)r.integer);
    default: return rounded(a->dtype, total(&r, 0), total(&r, 1));
    }
}

static PyObject *array_mean(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    reduction r = {.blocks = 0};
    if (reduce(a, &r, step_sum, false, true) < 0)
        return NULL;
    if (a->nbytes == 0 && PyErr_WarnEx(PyExc_RuntimeWarning, "mean of an empty array", 1) < 0)
        return NULL;
    double n = (double)array_size(a);
    bool exact = a->dtype->kind == 'b' || a->dtype->kind == 'i' || a->dtype->kind == 'u';
    return rounded(a->dtype, (exact ? (double)r.integer : total(&r, 0)) / n, total(&r, 1) / n);
}

/* ---- least and greatest ---------------------------------------------------------------------------------------------------------- */

#define LESS(type)                                                                                                                         \
    do {                                                                                                                                   \
        type x, y;                                                                                                                         \
        memcpy(&x, p, sizeof x);                                                                                                           \
        memcpy(&y, q, sizeof y);                                                                                                           \
        return x < y;                                                                                                                      \
    } while (0)
#define LESS_COMPLEX(type)                                                                                                                 \
    do {                                                                                                                                   \
        type x[2], y[2];                                                                                                                   \
        memcpy(x, p, sizeof x);                                                                                                            \
        memcpy(y, q, sizeof y);                                                                                                            \
        return x[0] < y[0] || (!(x[0] > y[0]) && x[1] < y[1]);                                                                             \
    } while (0)

/* Neither is a NaN. Complex numbers: by the real part, then the imaginary one, as numpy has it. */
static bool less(ist_type_code code, const char *p, const char *q) {
    switch (code) {
    case IST_BOOL: return !*p && *q;
    case IST_I1: LESS(int8_t);
    case IST_U1: LESS(uint8_t);
    case IST_I2: LESS(int16_t);
    case IST_U2: LESS(uint16_t);
    case IST_I4: LESS(int32_t);
    case IST_U4: LESS(uint32_t);
    case IST_I8: LESS(int64_t);
    case IST_U8: LESS(uint64_t);
    case IST_F4: LESS(float);
    case IST_F8: LESS(double);
    case IST_C8: LESS_COMPLEX(float);
    case IST_C16: LESS_COMPLEX(double);
    default: return false;
    }
}

static bool better(const reduction *r, const char *p, const char *q) { return r->greatest ? less(r->code, q, p) : less(r->code, p, q); }

static bool step_extreme(reduction *r, const char *p, size_t n) {
    char best[16];
    r->nan = (r->greatest ? r->k->greatest : r->k->least)[r->code](p, n, best);
    if (!r->nan && r->started && !better(r, best, r->best))
        return true;
    size_t at = 0;
    if (r->nan)
        at = r->k->find_nan[r->code](p, n, best);
    else if (r->in_order)
        at = r->k->find[r->code](p, n, best);
    r->index = r->seen + at;
    r->started = true;
    memcpy(r->best, r->nan ? p + at * r->itemsize : best, r->itemsize);
    return !r->nan && !(r->code == IST_BOOL && (*best != 0) == r->greatest); /* nothing can be better than these */
}

static int extreme(SharedArrayObject *a, reduction *r, bool greatest, bool index) {
    r->greatest = greatest;
    if (reduce(a, r, step_extreme, index, true) < 0)
        return -1;
    if (r->started)
        return 0;
    if (index)
        PyErr_Format(PyExc_ValueError, "attempt to get %s of an empty sequence", greatest ? "argmax" : "argmin");
    else
        PyErr_Format(PyExc_ValueError, "zero-size array to reduction operation %s which has no identity", greatest ? "maximum" : "minimum");
    return -1;
}

static PyObject *extreme_value(PyObject *self, bool greatest) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    reduction r = {.blocks = 0};
    if (extreme(a, &r, greatest, false) < 0)
        return NULL;
    return dtype_get(state_of(a)->dtypes[r.code], r.best);
}

static PyObject *extreme_index(PyObject *self, bool greatest) {
    reduction r = {.blocks = 0};
    return extreme((SharedArrayObject *)self, &r, greatest, true) < 0 ? NULL : PyLong_FromSize_t(r.index);
}

static PyObject *array_min(PyObject *self, PyObject *Py_UNUSED(ignored)) { return extreme_value(self, false); }
static PyObject *array_max(PyObject *self, PyObject *Py_UNUSED(ignored)) { return extreme_value(self, true); }
static PyObject *array_argmin(PyObject *self, PyObject *Py_UNUSED(ignored)) { return extreme_index(self, false); }
static PyObject *array_argmax(PyObject *self, PyObject *Py_UNUSED(ignored)) { return extreme_index(self, true); }

/* ---- truth ----------------------------------------------------------------------------------------------------------------------- */

static bool step_count(reduction *r, const char *p, size_t n) {
    r->count += r->k->nonzero[r->code](p, n);
    return true;
}

static bool step_any(reduction *r, const char *p, size_t n) {
    step_count(r, p, n);
    return r->count == 0;
}

static bool step_all(reduction *r, const char *p, size_t n) {
    step_count(r, p, n);
    return r->count == r->seen + n;
}

static PyObject *array_any(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    reduction r = {.blocks = 0};
    return reduce((SharedArrayObject *)self, &r, step_any, false, false) < 0 ? NULL : PyBool_FromLong(r.count > 0);
}

static PyObject *array_all(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    reduction r = {.blocks = 0};
    return reduce((SharedArrayObject *)self, &r, step_all, false, false) < 0 ? NULL : PyBool_FromLong(r.count == r.seen);
}

static PyObject *array_count_nonzero(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    reduction r = {.blocks = 0};
    return reduce((SharedArrayObject *)self, &r, step_count, false, false) < 0 ? NULL : PyLong_FromSize_t(r.count);
}

PyMethodDef reduce_methods[] = {
    {"sum", array_sum, METH_NOARGS,
     PyDoc_STR(
         "sum($self, /)\n--\n\nThe sum of all elements: int64 or uint64 (wrapping) for integers and bool, else the dtype's own precision.")},
    {"min", array_min, METH_NOARGS,
     PyDoc_STR("min($self, /)\n--\n\nThe least element; NaN if there is one. ValueError for an empty array.")},
    {"max", array_max, METH_NOARGS,
     PyDoc_STR("max($self, /)\n--\n\nThe greatest element; NaN if there is one. ValueError for an empty array.")},
    {"mean", array_mean, METH_NOARGS,
     PyDoc_STR("mean($self, /)\n--\n\nThe arithmetic mean, as a float64 for integers and bool. Of nothing: NaN, with a RuntimeWarning.")},
    {"argmin", array_argmin, METH_NOARGS,
     PyDoc_STR(
         "argmin($self, /)\n--\n\nPosition, in C order, of the first least element, or of the first NaN. ValueError for an empty array.")},
    {"argmax", array_argmax, METH_NOARGS,
     PyDoc_STR(
         "argmax($self, /)\n--\n\nPosition, in C order, of the first greatest element, or of the first NaN. ValueError for an empty array.")},
    {"any", array_any, METH_NOARGS, PyDoc_STR("any($self, /)\n--\n\nWhether any element isn't zero.")},
    {"all", array_all, METH_NOARGS, PyDoc_STR("all($self, /)\n--\n\nWhether no element is zero.")},
    {"count_nonzero", array_count_nonzero, METH_NOARGS, PyDoc_STR("count_nonzero($self, /)\n--\n\nHow many elements aren't zero.")},
    {NULL, NULL, 0, NULL},
};
