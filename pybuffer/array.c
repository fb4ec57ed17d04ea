/* array.c: SharedArray, its life: made, viewed, held, released, swept; and the type's table.
 *
 * Relies on: ist_segment_* counting owners across interpreters; interp.c's list of root owners for the sweep.
 *
 * Invariants (numbers as in README.md)
 *   A1  root->segment.slot != NULL  <=>  the root owns exactly one counted reference
 *   A2  hold's counts == live views + exports + pins that stand on the root; views <= hold's shared half
 *   A3  hold == {released} alone is final: nobody enters from it; the step that leads there drops the reference, and no other
 *   A4  memory is touched only by who stands on the hold, or holds the GIL without running Python code in between
 *   A5  a view owns its root; a Py_buffer owns the handle that exported it; so the root outlives everything that is counted on it
 *   A6  epoch differs from ist_epoch() => nothing of the segment is touched, not even to release it
 *   A12 start is in a read-only mapping => the root is read-only
 */
#include "array.h"

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <structmember.h>

/* ---- flags and hold ------------------------------------------------------------------------------------------------------------ */

uint32_t array_set_flags(SharedArrayObject *a, uint32_t flags) {
#ifdef Py_GIL_DISABLED
    return atomic_fetch_or_explicit(&a->flags, flags, memory_order_relaxed); /* relaxed: the hold orders what a flag is about */
#else
    uint32_t before = a->flags;
    a->flags = before | flags;
    return before;
#endif
}

static void count_view(SharedArrayObject *root, bool one_more) {
#ifdef Py_GIL_DISABLED
    /* relaxed: read by the sweep only, when no other thread of the interpreter is left */
    atomic_fetch_add_explicit(&root->views, one_more ? 1u : UINT32_MAX, memory_order_relaxed);
#else
    root->views += one_more ? 1u : UINT32_MAX;
#endif
}

int array_raise_detached(SharedArrayObject *a) {
    core_state *state = state_of(a);
    PyObject *class = state != NULL && state->DetachedError != NULL ? state->DetachedError : PyExc_ValueError;
    uint32_t epoch = array_root(a)->epoch;
    if (array_flags(a) & ARRAY_RELEASED || epoch == ist_epoch())
        PyErr_SetString(class, "this SharedArray was released and can't be used any more");
    else if (epoch == 0)
        PyErr_SetString(class, "this SharedArray was let go of: its interpreter is being ended");
    else
        PyErr_SetString(
            class, "this SharedArray belongs to the parent process: it was inherited through a fork that couldn't make it the child's, too "
                   "(no /proc, or as many processes or published segments as isthmus.configure() allows)");
    return -1;
}

static int raise_count_full(void) {
    PyErr_SetString(PyExc_BufferError, "too many views or exports of one SharedArray");
    return -1;
}

int hold_enter_slow(SharedArrayObject *a, uint64_t unit) {
    SharedArrayObject *root = array_root(a);
    if (array_check(a) < 0)
        return -1;
    for (;;) {
        uint64_t hold = hold_read(root);
        if (hold & HOLD_EXCLUSIVE) {
#ifdef Py_GIL_DISABLED
            sched_yield();
            continue;
#else
            PyErr_SetString(PyExc_BufferError, "the array is being moved or frozen");
            return -1;
#endif
        }
        /* a view keeps its root's memory after the root's own handle ended; from {released} alone nobody enters (A3) */
        if ((hold & HOLD_RELEASED) && (a == root || !(hold & HOLD_COUNTS)))
            return array_raise_detached(a);
        if (hold & (HOLD_RARE & HOLD_COUNTS))
            return raise_count_full();
#ifdef Py_GIL_DISABLED
        /* acquire: pairs with the release in hold_end_exclusive; a freeze that is over is seen in the flags. relaxed on failure: read again */
        if (atomic_compare_exchange_weak_explicit(&root->hold, &hold, hold + unit, memory_order_acquire, memory_order_relaxed))
            return 0;
#else
        root->hold = hold + unit;
        return 0;
#endif
    }
}

int hold_begin_exclusive(SharedArrayObject *root, uint64_t forbidden, uint64_t *seen) {
    for (;;) {
        uint64_t hold = hold_read(root);
        *seen = hold;
        if (hold == HOLD_RELEASED || (hold & (forbidden | HOLD_EXCLUSIVE)))
            return -1;
#ifdef Py_GIL_DISABLED
        /* acquire: pairs with hold_leave; what the last writer did is done before the memory is frozen or moved */
        if (atomic_compare_exchange_weak_explicit(&root->hold, &hold, hold | HOLD_EXCLUSIVE, memory_order_acquire, memory_order_relaxed))
            return 0;
#else
        root->hold = hold | HOLD_EXCLUSIVE;
        return 0;
#endif
    }
}

/* Takes `clear` out of the hold, puts `set` in, and drops the reference if that left {released}. */
static void hold_change(SharedArrayObject *root, uint64_t clear, uint64_t set) {
#ifdef Py_GIL_DISABLED
    uint64_t before = hold_read(root);
    /* release: pairs with hold_enter_slow's acquire, which sees the flags changed under the mark; acquire: as in hold_leave */
    while (
        !atomic_compare_exchange_weak_explicit(&root->hold, &before, (before & ~clear) | set, memory_order_acq_rel, memory_order_relaxed))
        ;
#else
    uint64_t before = root->hold;
    root->hold = (before & ~clear) | set;
#endif
    uint64_t after = (before & ~clear) | set;
    if (after == HOLD_RELEASED && before != after)
        array_drop(root);
}

void hold_end_exclusive(SharedArrayObject *root) { hold_change(root, HOLD_EXCLUSIVE, 0); }

/* The end of the root's counted reference (A1). Who calls has brought the hold to {released}, or is the root's dealloc or sweep. */
void array_drop(SharedArrayObject *root) {
    ist_segment segment = root->segment;
    root->segment.slot = NULL;
    block_remove(root);
    if (segment.slot != NULL && root->epoch == ist_epoch())
        ist_segment_release_inline(segment);
}

int array_release(SharedArrayObject *a) {
    if (array_set_flags(a, ARRAY_RELEASED) & ARRAY_RELEASED)
        return 0;
    if (a->root == NULL) {
        hold_change(a, 0, HOLD_RELEASED);
    } else {
        count_view(a->root, false);
        hold_leave(a, HOLD_SHARED);
    }
    return 0;
}

void array_detach(SharedArrayObject *root) {
    array_set_flags(root, ARRAY_RELEASED);
    array_drop(root);
    root->epoch = 0; /* for its views, which leave their units of the hold as ever */
}

/* ---- making -------------------------------------------------------------------------------------------------------------------- */

void fill_c_strides(int ndim, const Py_ssize_t *shape, Py_ssize_t itemsize, Py_ssize_t *strides) {
    for (int i = ndim - 1; i >= 0; i--) {
        strides[i] = itemsize;
        if (shape[i] > 1)
            itemsize *= shape[i];
    }
}

/* An axis of at most one element is never stepped along, so its stride doesn't count; no elements at all: contiguous in every way. */
static uint32_t contiguity(int ndim, const Py_ssize_t *shape, const Py_ssize_t *strides, Py_ssize_t itemsize) {
    Py_ssize_t c = itemsize, f = itemsize;
    uint32_t flags = ARRAY_C_CONTIGUOUS | ARRAY_F_CONTIGUOUS;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] == 0)
            return ARRAY_C_CONTIGUOUS | ARRAY_F_CONTIGUOUS;
        if (shape[i] > 1 && strides[i] != f)
            flags &= ~ARRAY_F_CONTIGUOUS;
        f *= shape[i];
    }
    for (int i = ndim - 1; i >= 0; i--) {
        if (shape[i] > 1 && strides[i] != c)
            flags &= ~ARRAY_C_CONTIGUOUS;
        c *= shape[i];
    }
    return flags;
}

static uint32_t contiguity_1d(Py_ssize_t n, Py_ssize_t stride, Py_ssize_t itemsize) {
    return n <= 1 || stride == itemsize ? ARRAY_C_CONTIGUOUS | ARRAY_F_CONTIGUOUS : 0;
}

/* A handle with nothing in it that its dealloc would have to give back, but for the dtype. */
static SharedArrayObject *array_allocate(PyTypeObject *type, DTypeObject *dtype, int ndim, const Py_ssize_t *shape,
                                         const Py_ssize_t *strides, uint32_t flags) {
    SharedArrayObject *a = PyObject_NewVar(SharedArrayObject, type, 2 * ndim);
    if (a == NULL)
        return NULL;
    a->root = NULL;
    a->weakrefs = NULL;
    a->dtype = (DTypeObject *)Py_NewRef((PyObject *)dtype);
    a->ndim = ndim;
    Py_ssize_t n = 1;
    for (int i = 0; i < ndim; i++) {
        a->dims[i] = shape[i];
        n *= shape[i];
    }
    if (strides != NULL)
        memcpy(ARRAY_STRIDES(a), strides, (size_t)ndim * sizeof *strides);
    else
        fill_c_strides(ndim, shape, dtype->itemsize, ARRAY_STRIDES(a));
    a->nbytes = n * dtype->itemsize;
    if (ndim == 1)
        flags |= contiguity_1d(n, a->dims[1], dtype->itemsize);
    else
        flags |= contiguity(ndim, shape, ARRAY_STRIDES(a), dtype->itemsize);
#ifdef Py_GIL_DISABLED
    atomic_init(&a->flags, flags);
#else
    a->flags = flags;
#endif
    return a;
}

static SharedArrayObject *root_make(core_state *state, ist_segment segment, char *start, DTypeObject *dtype, int ndim,
                                    const Py_ssize_t *shape, const Py_ssize_t *strides, Py_ssize_t offset, uint32_t flags) {
    SharedArrayObject *a = array_allocate(state->array_type, dtype, ndim, shape, strides, flags);
    if (a == NULL) {
        ist_segment_release_inline(segment);
        return NULL;
    }
    a->start = start;
    a->data = start + offset;
#ifdef Py_GIL_DISABLED
    atomic_init(&a->hold, 0);
    atomic_init(&a->views, 0);
#else
    a->hold = 0;
    a->views = 0;
#endif
    a->segment = segment;
    a->epoch = ist_epoch();
    a->block = NULL;
    a->previous = a->next = NULL;
    if (block_add(state->block, a) < 0) {
        Py_DECREF((PyObject *)a);
        return NULL;
    }
    return a;
}

SharedArrayObject *array_new_root(core_state *state, ist_segment segment, DTypeObject *dtype, int ndim, const Py_ssize_t *shape,
                                  const Py_ssize_t *strides, Py_ssize_t offset, uint32_t flags) {
    if (ist_segment_is_readonly(segment))
        flags |= ARRAY_READONLY;
    if (ist_segment_is_frozen(segment))
        flags |= ARRAY_FROZEN;
    const void *start = ist_segment_data(segment);
    int error = (flags & ARRAY_READONLY) ? ist_segment_data_readonly(segment, &start) : 0;
    if (error != 0) {
        raise_error(state, error, "mapping a segment of %zu bytes read-only", ist_segment_size(segment));
        ist_segment_release_inline(segment);
        return NULL;
    }
    return root_make(state, segment, (char *)start, dtype, ndim, shape, strides, offset, flags);
}

SharedArrayObject *array_create(core_state *state, DTypeObject *dtype, int ndim, const Py_ssize_t *shape, uint32_t flags) {
    Py_ssize_t nbytes = shape_bytes(ndim, shape, dtype->itemsize);
    if (nbytes < 0)
        return NULL;
    ist_segment segment;
    int error = ist_segment_create((size_t)nbytes, flags, &segment);
    if (error != 0) {
        raise_error(state, error, "%zd bytes for a SharedArray", nbytes);
        return NULL;
    }
    ist_segment_set_creator(segment, (uint64_t)state->interpreter);
    return root_make(state, segment, ist_segment_data(segment), dtype, ndim, shape, NULL, 0, 0);
}

SharedArrayObject *array_new_view(SharedArrayObject *base, DTypeObject *dtype, int ndim, const Py_ssize_t *shape, const Py_ssize_t *strides,
                                  char *data, uint32_t flags) {
    if (hold_enter(base, HOLD_SHARED) < 0)
        return NULL;
    SharedArrayObject *root = array_root(base);
    /* only the base's own read-only-ness: the root's is looked at where it matters, so that freeze reaches every view */
    if (base->root != NULL)
        flags |= array_flags(base) & ARRAY_READONLY;
    SharedArrayObject *a = array_allocate(Py_TYPE(base), dtype, ndim, shape, strides, flags);
    if (a == NULL) {
        hold_leave(base, HOLD_SHARED);
        return NULL;
    }
    a->data = data;
    a->root = (SharedArrayObject *)Py_NewRef((PyObject *)root);
    count_view(root, true);
    return a;
}

bool array_fits(size_t segment_size, Py_ssize_t itemsize, int ndim, const Py_ssize_t *shape, const Py_ssize_t *strides, Py_ssize_t offset) {
    if (ndim < 0 || ndim > IST_MAX_NDIM || itemsize <= 0 || offset < 0 || (size_t)offset > segment_size)
        return false;
    Py_ssize_t elements = 1, low = offset, high = offset; /* first bytes of the lowest and the highest element */
    bool empty = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0)
            return false;
        empty |= shape[i] == 0;
    }
    for (int i = 0; i < ndim; i++) {
        Py_ssize_t extent;
        if (shape[i] != 0 && __builtin_mul_overflow(elements, shape[i], &elements))
            return false;
        if (empty)
            continue;
        if (__builtin_mul_overflow(shape[i] - 1, strides[i], &extent))
            return false;
        if (__builtin_add_overflow(extent < 0 ? low : high, extent, extent < 0 ? &low : &high))
            return false;
    }
    if (__builtin_mul_overflow(elements, itemsize, &elements)) /* so that nbytes and C strides of the shape can be had */
        return false;
    return empty || (low >= 0 && (size_t)high <= segment_size && (size_t)itemsize <= segment_size - (size_t)high);
}

static void array_dealloc(PyObject *self) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (a->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    if (a->root != NULL) {
        if (!(array_flags(a) & ARRAY_RELEASED)) {
            count_view(a->root, false);
            hold_leave(a, HOLD_SHARED);
        }
        Py_DECREF((PyObject *)a->root);
    } else if (a->segment.slot != NULL) {
        array_drop(a); /* nothing stands on it any more, lent addresses apart, whose time is over (A5) */
    }
    Py_DECREF((PyObject *)a->dtype);
    PyObject_Free(a);
    Py_DECREF((PyObject *)type);
}

/* ---- attributes ---------------------------------------------------------------------------------------------------------------- */

#define GETTER(name, expression)                                                                                                           \
    static PyObject *get_##name(PyObject *self, void *Py_UNUSED(closure)) {                                                                \
        SharedArrayObject *a = (SharedArrayObject *)self;                                                                                  \
        return array_check(a) < 0 ? NULL : (expression);                                                                                   \
    }

/* One that looks at the length, which a tracking handle has only for the moment. */
#define GETTER_NOW(name, expression)                                                                                                       \
    static PyObject *get_##name(PyObject *self, void *Py_UNUSED(closure)) {                                                                \
        SharedArrayObject *a = (SharedArrayObject *)self;                                                                                  \
        if (array_tracks(a))                                                                                                               \
            return now_get(get_##name, self);                                                                                              \
        return array_check(a) < 0 ? NULL : (expression);                                                                                   \
    }

GETTER_NOW(shape, shape_tuple(a->ndim, ARRAY_SHAPE(a)))
GETTER(strides, shape_tuple(a->ndim, ARRAY_STRIDES(a)))
GETTER(ndim, PyLong_FromLong(a->ndim))
GETTER_NOW(size, PyLong_FromSsize_t(array_size(a)))
GETTER(itemsize, PyLong_FromSsize_t(a->dtype->itemsize))
GETTER_NOW(nbytes, PyLong_FromSsize_t(a->nbytes))
GETTER(dtype, Py_NewRef((PyObject *)a->dtype))
static PyObject *get_format(PyObject *self, void *Py_UNUSED(closure)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    const char *format = array_check(a) < 0 ? NULL : array_format(a);
    return format == NULL ? NULL : PyUnicode_FromString(format);
}

GETTER(readonly, PyBool_FromLong(array_readonly(a)))
GETTER(frozen, PyBool_FromLong((array_flags(array_root(a)) & ARRAY_FROZEN) != 0))
GETTER_NOW(c_contiguous, PyBool_FromLong((array_flags(a) & ARRAY_C_CONTIGUOUS) != 0))
GETTER_NOW(f_contiguous, PyBool_FromLong((array_flags(a) & ARRAY_F_CONTIGUOUS) != 0))
GETTER_NOW(T, array_transposed(a))
GETTER(data, PyMemoryView_FromObject(self))

static PyGetSetDef array_attributes[] = {
    {"shape", get_shape, NULL, PyDoc_STR("Lengths of the axes."), NULL},
    {"strides", get_strides, NULL, PyDoc_STR("Bytes from one element to the next, for each axis."), NULL},
    {"ndim", get_ndim, NULL, PyDoc_STR("Number of axes, 0 to 64."), NULL},
    {"size", get_size, NULL, PyDoc_STR("Number of elements."), NULL},
    {"itemsize", get_itemsize, NULL, PyDoc_STR("Bytes of one element."), NULL},
    {"nbytes", get_nbytes, NULL, PyDoc_STR("Bytes of all elements: size * itemsize."), NULL},
    {"dtype", get_dtype, NULL, PyDoc_STR("What the elements are: an isthmus.dtype."), NULL},
    {"format", get_format, NULL, PyDoc_STR("The elements' format as the struct module and PEP 3118 write it."), NULL},
    {"readonly", get_readonly, NULL, PyDoc_STR("Whether this handle, and everything made from it, can't write."), NULL},
    {"frozen", get_frozen, NULL, PyDoc_STR("Whether the segment is frozen: nobody can write, in any interpreter."), NULL},
    {"c_contiguous", get_c_contiguous, NULL, PyDoc_STR("Whether the elements are one run of memory in C order."), NULL},
    {"f_contiguous", get_f_contiguous, NULL, PyDoc_STR("Whether the elements are one run of memory in Fortran order."), NULL},
    {"T", get_T, NULL, PyDoc_STR("The view with the axes in reverse order."), NULL},
    {"data", get_data, NULL, PyDoc_STR("A memoryview of the array; it keeps the memory until it is released."), NULL},
};

static PyMemberDef array_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(SharedArrayObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- the type ------------------------------------------------------------------------------------------------------------------ */

/* The methods and attributes of all the files, put together once per process: a type's tables must outlive the type. */
static pthread_once_t merged = PTHREAD_ONCE_INIT;
static PyMethodDef methods[96];
static PyGetSetDef attributes[32];

static size_t append_methods(size_t at, const PyMethodDef *more) {
    for (; more->ml_name != NULL && at < sizeof methods / sizeof *methods - 1; more++)
        methods[at++] = *more;
    return at;
}

static void merge(void) {
    size_t n = append_methods(0, values_methods);
    n = append_methods(n, shape_methods);
    n = append_methods(n, reduce_methods);
    n = append_methods(n, ownership_methods);
    n = append_methods(n, grow_methods);
    n = append_methods(n, dlpack_methods);
    n = append_methods(n, arrow_methods);
    n = append_methods(n, exchange_methods);
    n = append_methods(n, memmap_methods);
    n = append_methods(n, message_methods);
    append_methods(n, pickle_methods);
    n = 0;
    for (size_t i = 0; i < sizeof array_attributes / sizeof *array_attributes; i++)
        attributes[n++] = array_attributes[i];
    for (const PyGetSetDef *more = ownership_attributes; more->name != NULL; more++)
        attributes[n++] = *more;
    for (const PyGetSetDef *more = grow_attributes; more->name != NULL; more++)
        attributes[n++] = *more;
    for (const PyGetSetDef *more = values_attributes; more->name != NULL; more++)
        attributes[n++] = *more;
}

PyDoc_STRVAR(array_doc,
             "Memory that no interpreter owns, seen as an array of numbers.\n\n"
             "Made by isthmus.empty, zeros, full, array, asarray, buffer, memmap and attach, and by receiving one. Each handle owns or\n"
             "shares one counted reference; the memory goes when the last handle, export, message and lease everywhere is gone.\n"
             "Supports the buffer protocol: memoryview(a) and numpy.asarray(a) see the same memory, without a copy.\n"
             "Any use after release() raises DetachedError.");

static PyType_Slot array_slots[] = {
    {Py_tp_doc, (void *)array_doc},
    {Py_tp_dealloc, array_dealloc},
    {Py_tp_repr, array_repr},
    {Py_tp_richcompare, array_richcompare},
    {Py_tp_hash, array_hash},
    {Py_tp_iter, array_iter},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {Py_tp_members, array_members},
    {Py_nb_bool, array_bool},
    {Py_mp_length, array_length},
    {Py_mp_subscript, array_subscript},
    {Py_mp_ass_subscript, array_ass_subscript},
    {Py_sq_length, array_length},
    {Py_sq_item, array_item},
    {Py_sq_contains, array_contains},
    {Py_bf_getbuffer, array_getbuffer},
    {Py_bf_releasebuffer, array_releasebuffer},
    {0, NULL},
};

/* Not a base type: CPython looks up who may cross interpreters by the exact type. No GC flag: an array refers to nothing that could
 * refer back to it. */
static PyType_Spec array_spec = {
    .name = "isthmus.SharedArray",
    .basicsize = offsetof(SharedArrayObject, dims),
    .itemsize = sizeof(Py_ssize_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_SEQUENCE,
    .slots = array_slots,
};

int array_init(PyObject *module, core_state *state) {
    pthread_once(&merged, merge);
    state->array_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &array_spec, NULL);
    if (state->array_type == NULL)
        return -1;
    return PyModule_AddType(module, state->array_type);
}
