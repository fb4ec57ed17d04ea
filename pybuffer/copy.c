/* copy.c: elements from one place to another: strided, cast, overlapping; and the walk over memory that everything here is made of.
 *
 * Relies on: cast.c for elements of another dtype. Elements are moved by memcpy of a fixed size, so nothing needs alignment.
 *
 * Invariant: every element of a walk is visited exactly once, whatever the strides.
 */
#include "dtype.h"

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

void move_items(char *to, Py_ssize_t to_stride, const char *from, Py_ssize_t from_stride, Py_ssize_t itemsize, size_t n) {
    move_plane((plane){to, from, to_stride, from_stride, 0, 0, n, 1}, itemsize);
}

void gather(char *to, const char *from, Py_ssize_t stride, Py_ssize_t itemsize, size_t n) {
    move_items(to, itemsize, from, stride, itemsize, n);
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

static int cast_walk(walk *w, const DTypeObject *to, const DTypeObject *from) {
    int lost = 0;
    do
        lost |= cast_numbers(w->at[0], w->inner[0], to, w->at[1], w->inner[1], from, w->n);
    while (walk_next(w));
    return lost;
}

static int convert_walk(walk *w, const DTypeObject *to, const DTypeObject *from) {
    int lost = 0;
    do {
        for (size_t i = 0; i < w->n; i++) {
            int result = convert_element(to, w->at[0] + (Py_ssize_t)i * w->inner[0], from, w->at[1] + (Py_ssize_t)i * w->inner[1]);
            if (result < 0)
                return -1;
            lost |= result;
        }
    } while (walk_next(w));
    return lost;
}

/* What was lost, or -1. The GIL is dropped for large ones, if no Python is needed. */
static int copy_walk(walk *w, const DTypeObject *to, const DTypeObject *from, size_t nbytes, bool whole) {
    const bool same = is_run(to, from, whole);
    if (!same && !(dtype_is_number(to) && dtype_is_number(from)))
        return convert_walk(w, to, from);
    PyThreadState *saved = nbytes >= WITHOUT_GIL_BYTES ? PyEval_SaveThread() : NULL;
    int lost = 0;
    if (same)
        move_walk(w, to->itemsize);
    else
        lost = cast_walk(w, to, from);
    if (saved != NULL)
        PyEval_RestoreThread(saved);
    return lost;
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
    if (result >= 0)
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

static int copy_and_tell(const strided *to, const strided *from, bool whole) {
    int lost = copy(to, from, whole);
    return lost > 0 ? warn_of_loss(lost) : lost;
}

int copy_values(const strided *to, const strided *from) { return copy_and_tell(to, from, false); }
int copy_items(const strided *to, const strided *from) { return copy_and_tell(to, from, true); }

void put_item(const DTypeObject *dtype, char *to, const char *item) {
    if (dtype->gaps)
        convert_element(dtype, to, dtype, item);
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
        move_items(to, stride, item, 0, itemsize, n);
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
