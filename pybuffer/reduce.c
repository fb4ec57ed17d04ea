/* reduce.c: sum min max mean argmin argmax any all count_nonzero, over all elements, since a worker interpreter has no numpy.
 *
 * Relies on: kernels.c for runs of elements side by side, the walk of copy.c for everything that isn't.
 * Result types are numpy's; so are NaNs: any NaN is the minimum and the maximum, and the first is argmin and argmax. Floats are summed by
 * many partial sums, and those in pairs, so that the error grows with the logarithm of the size; integers exactly, then wrapped.
 * Large arrays are gone through without the GIL, standing on the hold.
 * Times are compared as the integers they are, NaT as NaN. Long doubles are rare: one plain loop finds everything about them. Text, bytes
 * and structures have no reductions.
 */
#include "dtype.h"
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
    bool nat; /* the least int64 is NaT */
    char best[16];
};

static bool step_block(reduction *r, const DTypeObject *dtype, const char *p, Py_ssize_t stride, size_t n, char *room) {
    if (stride != dtype->itemsize || dtype->swapped) {
        gather(room, p, stride, dtype->itemsize, n);
        if (dtype->swapped)
            swap_elements(dtype, room, n);
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

static bool is_time(const DTypeObject *d) { return d->code == IST_DATETIME || d->code == IST_TIMEDELTA; }

/* Long doubles: everything at once, in C order. */
typedef struct long_summary {
    long double sum[2], least[2], greatest[2], nan[2];
    size_t n, nonzero, least_at, greatest_at, nan_at; /* nan_at: SIZE_MAX if there is none */
} long_summary;

static void look_at_long(long_summary *all, const long double *x, bool is_complex) {
    const bool nan = x[0] != x[0] || (is_complex && x[1] != x[1]);
    const long double im = is_complex ? x[1] : 0;
    if (all->n == 0 || x[0] < all->least[0] || (x[0] == all->least[0] && im < all->least[1]))
        all->least[0] = x[0], all->least[1] = im, all->least_at = all->n;
    if (all->n == 0 || x[0] > all->greatest[0] || (x[0] == all->greatest[0] && im > all->greatest[1]))
        all->greatest[0] = x[0], all->greatest[1] = im, all->greatest_at = all->n;
    if (nan && all->nan_at == SIZE_MAX)
        all->nan_at = all->n, all->nan[0] = x[0], all->nan[1] = im;
    all->sum[0] += x[0];
    all->sum[1] += im;
    all->nonzero += x[0] != 0 || im != 0;
    all->n++;
}

static int summarize_long(SharedArrayObject *a, long_summary *all) {
    *all = (long_summary){.nan_at = SIZE_MAX};
    if (hold_enter(a, HOLD_SHARED) < 0)
        return -1;
    strided s = strided_of(a);
    walk w;
    walk_begin(&w, &s, NULL, true);
    for (bool more = w.n > 0; more; more = walk_next(&w))
        for (size_t i = 0; i < w.n; i++) {
            long double x[2];
            memcpy(x, w.at[0] + (Py_ssize_t)i * w.inner[0], (size_t)a->dtype->itemsize);
            if (a->dtype->swapped)
                swap_elements(a->dtype, (char *)x, 1);
            look_at_long(all, x, a->dtype->code == IST_CLONG);
        }
    hold_leave(a, HOLD_SHARED);
    return 0;
}

static bool is_long(SharedArrayObject *a) { return a->dtype->code == IST_LONG || a->dtype->code == IST_CLONG; }

static PyObject *long_object(SharedArrayObject *a, const long double *x) {
    if (a->dtype->code == IST_LONG)
        return PyFloat_FromDouble((double)x[0]);
    return PyComplex_FromDoubles((double)x[0], (double)x[1]);
}

static int refuse_reduction(SharedArrayObject *a, const char *name) {
    PyObject *description = dtype_description(a->dtype);
    if (description != NULL)
        PyErr_Format(PyExc_TypeError, "%s() isn't defined for elements of dtype %R", name, description);
    Py_XDECREF(description);
    return -1;
}

/* Numbers can be summed and averaged; these and times compared; neither anything else. */
static int check_summable(SharedArrayObject *a, const char *name) { return a->dtype->code <= IST_CLONG ? 0 : refuse_reduction(a, name); }
static int check_comparable(SharedArrayObject *a, const char *name) {
    return a->dtype->code <= IST_CLONG || is_time(a->dtype) ? 0 : refuse_reduction(a, name);
}

/* -1 with an exception if the array can't be used. */
static int reduce(SharedArrayObject *a, reduction *r, step_function *step, bool in_order, bool widen) {
    if (hold_enter(a, HOLD_SHARED) < 0)
        return -1;
    strided s = strided_of(a);
    r->k = active_kernels();
    r->step = step;
    r->in_order = in_order;
    r->code = widen && a->dtype->code == IST_F2 ? IST_F4 : is_time(a->dtype) ? IST_I8 : a->dtype->code;
    r->nat = is_time(a->dtype);
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
    if (array_tracks(a))
        return now_call(array_sum, self, NULL);
    reduction r = {.blocks = 0};
    if (is_long(a)) {
        long_summary all;
        return summarize_long(a, &all) < 0 ? NULL : long_object(a, all.sum);
    }
    if (check_summable(a, "sum") < 0 || reduce(a, &r, step_sum, false, true) < 0)
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
    if (array_tracks(a))
        return now_call(array_mean, self, NULL);
    reduction r = {.blocks = 0};
    long_summary all;
    if (is_long(a) ? summarize_long(a, &all) < 0 : check_summable(a, "mean") < 0 || reduce(a, &r, step_sum, false, true) < 0)
        return NULL;
    if (a->nbytes == 0 && PyErr_WarnEx(PyExc_RuntimeWarning, "mean of an empty array", 1) < 0)
        return NULL;
    double n = (double)array_size(a);
    if (is_long(a))
        return long_object(a, (long double[2]){all.sum[0] / (long double)n, all.sum[1] / (long double)n});
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

/* Where what a kernel has just seen lies among n elements; anywhere, if it is gone since somebody has written there meanwhile. */
static size_t position(size_t (*find)(const char *, size_t, const char *), const char *p, size_t n, const char *item) {
    size_t at = find(p, n, item);
    return at < n ? at : 0;
}

static bool step_extreme(reduction *r, const char *p, size_t n) {
    char best[16];
    r->nan = (r->greatest ? r->k->greatest : r->k->least)[r->code](p, n, best);
    if (r->nat) { /* NaT is the least of all integers */
        char nat[16];
        r->k->least[IST_I8](p, n, nat);
        int64_t least;
        memcpy(&least, nat, sizeof least);
        if ((r->nan = least == NAT)) {
            memcpy(best, nat, sizeof nat);
            r->index = r->seen + position(r->k->find[IST_I8], p, n, best);
            r->started = true;
            memcpy(r->best, best, 8);
            return false;
        }
    }
    if (!r->nan && r->started && !better(r, best, r->best))
        return true;
    size_t at = 0;
    if (r->nan)
        at = position(r->k->find_nan[r->code], p, n, best);
    else if (r->in_order)
        at = position(r->k->find[r->code], p, n, best);
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
    if (array_tracks(a)) {
        PyObject *now = (PyObject *)array_now(a), *value = now == NULL ? NULL : extreme_value(now, greatest);
        Py_XDECREF(now);
        return value;
    }
    reduction r = {.blocks = 0};
    if (is_long(a) && a->nbytes > 0) {
        long_summary all;
        if (summarize_long(a, &all) < 0)
            return NULL;
        return all.nan_at != SIZE_MAX ? long_object(a, all.nan) : long_object(a, greatest ? all.greatest : all.least);
    }
    if (check_comparable(a, greatest ? "max" : "min") < 0 || extreme(a, &r, greatest, false) < 0)
        return NULL;
    if (is_time(a->dtype)) {
        int64_t value;
        memcpy(&value, r.best, sizeof value);
        return times_get(a->dtype, value);
    }
    return dtype_get(state_of(a)->dtypes[r.code], r.best);
}

static PyObject *extreme_index(PyObject *self, bool greatest) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a)) {
        PyObject *now = (PyObject *)array_now(a), *index = now == NULL ? NULL : extreme_index(now, greatest);
        Py_XDECREF(now);
        return index;
    }
    reduction r = {.blocks = 0};
    if (is_long(a) && a->nbytes > 0) {
        long_summary all;
        if (summarize_long(a, &all) < 0)
            return NULL;
        return PyLong_FromSize_t(all.nan_at != SIZE_MAX ? all.nan_at : greatest ? all.greatest_at : all.least_at);
    }
    if (check_comparable(a, greatest ? "argmax" : "argmin") < 0 || extreme(a, &r, greatest, true) < 0)
        return NULL;
    return PyLong_FromSize_t(r.index);
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

/* How many of *n elements aren't zero, or as many as the step wants to know. -1 with an exception. */
static Py_ssize_t count(PyObject *self, step_function *step, const char *name, size_t *n) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a)) {
        PyObject *now = (PyObject *)array_now(a);
        Py_ssize_t counted = now == NULL ? -1 : count(now, step, name, n);
        Py_XDECREF(now);
        return counted;
    }
    reduction r = {.blocks = 0};
    if (is_long(a)) {
        long_summary all;
        if (summarize_long(a, &all) < 0)
            return -1;
        *n = all.n;
        return (Py_ssize_t)all.nonzero;
    }
    if (check_comparable(a, name) < 0 || reduce(a, &r, step, false, false) < 0)
        return -1;
    *n = r.seen;
    return (Py_ssize_t)r.count;
}

static PyObject *array_any(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    size_t n;
    Py_ssize_t nonzero = count(self, step_any, "any", &n);
    return nonzero < 0 ? NULL : PyBool_FromLong(nonzero > 0);
}

static PyObject *array_all(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    size_t n;
    Py_ssize_t nonzero = count(self, step_all, "all", &n);
    return nonzero < 0 ? NULL : PyBool_FromLong((size_t)nonzero == n);
}

static PyObject *array_count_nonzero(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    size_t n;
    Py_ssize_t nonzero = count(self, step_count, "count_nonzero", &n);
    return nonzero < 0 ? NULL : PyLong_FromSsize_t(nonzero);
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
