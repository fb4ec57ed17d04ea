/* ownership.c: who has the memory and how it is let go of: release, with, freeze, toreadonly, make_writable, address, owners, segment.
 *
 * Relies on: array.c's hold. Exclusive is two steps, each in one go: here the hold goes from "no writer" to the exclusive mark, in the
 * library the count goes from one owner to its own; whoever comes first wins, and a step that failed leaves nothing behind.
 */
#include "array.h"

/* ---- release ------------------------------------------------------------------------------------------------------------------- */

static PyObject *array_method_release(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    array_release((SharedArrayObject *)self);
    Py_RETURN_NONE;
}

static PyObject *array_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return array_check((SharedArrayObject *)self) < 0 ? NULL : Py_NewRef(self);
}

static PyObject *array_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs)) {
    array_release((SharedArrayObject *)self);
    Py_RETURN_NONE;
}

/* ---- freeze -------------------------------------------------------------------------------------------------------------------- */

static PyObject *plural(uint64_t n, const char *noun) {
    return PyUnicode_FromFormat("%llu %s%s", (unsigned long long)n, noun, n == 1 ? "" : "s");
}

/* Who, in this interpreter, can still write. */
static PyObject *raise_writers(SharedArrayObject *root, uint64_t seen, const char *what) {
    uint64_t writers = (seen & HOLD_WRITERS) >> 32;
    bool lent = (array_flags(root) & ARRAY_LENT) != 0 && writers > 0;
    PyObject *exports = plural(writers - lent, "writable export");
    if (exports != NULL) {
        if (writers == lent)
            PyErr_Format(PyExc_BufferError, "%s: the address was given out (.address), and who has it may write", what);
        else
            PyErr_Format(PyExc_BufferError, "%s: %U in this interpreter%s", what, exports, lent ? ", and the address was given out" : "");
        Py_DECREF(exports);
    }
    return NULL;
}

static PyObject *raise_owners(const ist_segment_info *info, const char *what) {
    const uint32_t elsewhere = info->processes > 1 ? info->processes - 1u : 0;
    if (info->owners <= 1 && elsewhere == 0)
        return PyErr_Format(PyExc_BufferError, "%s: a message in a queue refers to it", what);
    if (info->owners <= 1)
        return PyErr_Format(PyExc_BufferError, "%s: %u other process%s it", what, elsewhere, elsewhere == 1 ? " has" : "es have");
    PyObject *owners = plural(info->owners - 1u, "other owner");
    if (owners != NULL) {
        PyErr_Format(PyExc_BufferError,
                     "%s: %U (arrays in other interpreters, DLPack and Arrow exports, messages and pickles under way count)", what, owners);
        Py_DECREF(owners);
    }
    return NULL;
}

static PyObject *array_freeze(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    static const char what[] = "can't freeze";
    SharedArrayObject *a = (SharedArrayObject *)self, *root = array_root(a);
    if (array_check(a) < 0)
        return NULL;
    if (array_flags(root) & ARRAY_FROZEN)
        return Py_NewRef(self);
    if (a != root && (array_flags(a) & ARRAY_READONLY)) {
        PyErr_Format(PyExc_BufferError, "%s through a read-only view: its owner can still write", what);
        return NULL;
    }
    uint64_t seen;
    while (hold_begin_exclusive(root, HOLD_WRITERS, &seen) < 0) {
        if (seen == HOLD_RELEASED) {
            array_raise_detached(a);
            return NULL;
        }
        if (seen & HOLD_WRITERS)
            return raise_writers(root, seen, what);
        /* another thread is between the two steps, which takes a few instructions: look again */
    }
    int error = (array_flags(root) & ARRAY_FROZEN) ? 0 : ist_segment_freeze(root->segment);
    ist_segment_info info;
    ist_segment_read_info(root->segment, &info); /* while the mark keeps the segment */
    if (error == 0)
        array_set_flags(root, ARRAY_READONLY | ARRAY_FROZEN);
    hold_end_exclusive(root);
    if (error == 0)
        return Py_NewRef(self);
    return error == -EBUSY ? raise_owners(&info, what) : raise_error(state_of(a), error, "%s", what);
}

/* ---- read-only handles, and the way back ------------------------------------------------------------------------------------------- */

static PyObject *array_toreadonly(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return (PyObject *)array_tracking_view(a, ARRAY_READONLY);
    return (PyObject *)array_new_view(a, a->dtype, a->ndim, ARRAY_SHAPE(a), ARRAY_STRIDES(a), a->data, ARRAY_READONLY);
}

static void clear_flags(SharedArrayObject *a, uint32_t flags) {
#ifdef Py_GIL_DISABLED
    atomic_fetch_and_explicit(&a->flags, ~flags, memory_order_relaxed); /* relaxed: under the exclusive mark, whose end releases */
#else
    a->flags &= ~flags;
#endif
}

/* In place only for a frozen root that nothing stands on, and that is the segment's only owner: a reader who was promised that the memory
 * stays as it is would see it change. */
static bool make_writable_in_place(SharedArrayObject *a) {
    uint64_t seen;
    if (a->root != NULL || !(array_flags(a) & ARRAY_FROZEN) || hold_begin_exclusive(a, HOLD_COUNTS, &seen) < 0)
        return false;
    bool done = ist_segment_make_writable(&a->segment) == 0;
    if (done) {
        clear_flags(a, ARRAY_READONLY | ARRAY_FROZEN);
        char *start = ist_segment_data(a->segment); /* nobody stands on the one that can't be written */
        a->data = start + (a->data - a->start);
        a->start = start;
    }
    hold_end_exclusive(a);
    return done;
}

static PyObject *array_make_writable(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_check(a) < 0)
        return NULL;
    if (!array_readonly(a) || make_writable_in_place(a))
        return Py_NewRef(self);
    if (array_tracks(a))
        return now_call(array_make_writable, self, NULL);
    if (hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    strided from = strided_of(a);
    PyObject *copy = (PyObject *)array_copy_of(state_of(a), &from, a->dtype);
    hold_leave(a, HOLD_SHARED);
    return copy;
}

/* ---- looking ------------------------------------------------------------------------------------------------------------------- */

/* The pin is the root's from then on: nobody tells us when an address isn't used any more. */
static PyObject *get_address(PyObject *self, void *Py_UNUSED(closure)) {
    SharedArrayObject *a = (SharedArrayObject *)self, *root = array_root(a);
    uint64_t unit = array_flags(root) & ARRAY_READONLY ? HOLD_SHARED : HOLD_WRITER;
    if (hold_enter(a, unit) < 0)
        return NULL;
    PyObject *address = PyLong_FromVoidPtr(a->data);
    if (address == NULL || (array_set_flags(root, ARRAY_LENT) & ARRAY_LENT))
        hold_leave(a, unit);
    return address;
}

static int read_info(SharedArrayObject *a, ist_segment_info *info) {
    if (hold_enter(a, HOLD_SHARED) < 0)
        return -1;
    ist_segment_read_info(array_root(a)->segment, info);
    hold_leave(a, HOLD_SHARED);
    return 0;
}

static PyObject *get_owners(PyObject *self, void *Py_UNUSED(closure)) {
    ist_segment_info info;
    return read_info((SharedArrayObject *)self, &info) < 0 ? NULL : PyLong_FromUnsignedLong(info.owners);
}

static PyObject *get_segment(PyObject *self, void *Py_UNUSED(closure)) {
    SharedArrayObject *a = (SharedArrayObject *)self, *root = array_root(a);
    ist_segment_info info;
    if (read_info(a, &info) < 0)
        return NULL;
    uint64_t hold = hold_read(root) & HOLD_COUNTS;
    int64_t exports = (int64_t)((hold >> 32) + (hold & UINT32_MAX)) - root_views(root);
    return segment_info_new(state_of(a), &info, exports);
}

static PyObject *get_detached(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(!array_usable((SharedArrayObject *)self));
}

PyGetSetDef ownership_attributes[] = {
    {"address", get_address, NULL,
     PyDoc_STR("Address of the first element, as an int. Reading it keeps the memory until this interpreter's owner object goes away."),
     NULL},
    {"owners", get_owners, NULL,
     PyDoc_STR("How many counted references the segment has: one per interpreter's owner, message and lease. A snapshot."), NULL},
    {"segment", get_segment, NULL, PyDoc_STR("What the library knows of the segment: a SegmentInfo. A snapshot."), NULL},
    {"detached", get_detached, NULL,
     PyDoc_STR("Whether this handle was released, or belongs to the parent process; any use raises DetachedError."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMethodDef ownership_methods[] = {
    {"release", array_method_release, METH_NOARGS,
     PyDoc_STR(
         "release($self, /)\n--\n\nEnds this handle; always succeeds, also twice. Memory that views, memoryviews or ndarrays still look at\n"
         "stays until they are gone. Any later use of the handle raises DetachedError.")},
    {"freeze", array_freeze, METH_NOARGS,
     PyDoc_STR(
         "freeze($self, /)\n--\n\nMakes the segment read-only for everybody, one way; returns self. BufferError, saying who, while anybody else\n"
         "could write: writable exports in this interpreter, other owners anywhere.")},
    {"toreadonly", array_toreadonly, METH_NOARGS,
     PyDoc_STR("toreadonly($self, /)\n--\n\nA view from which nothing writable can be made; the owner goes on writing.")},
    {"make_writable", array_make_writable, METH_NOARGS,
     PyDoc_STR(
         "make_writable($self, /)\n--\n\nThe array, writable: itself if it is, or if it is frozen and provably nobody else's (tokens given out before\n"
         "are void then); else a copy.")},
    {"transfer", array_transfer, METH_NOARGS,
     PyDoc_STR(
         "transfer($self, /)\n--\n\nMoves this handle's reference into a one-shot object, which any carrier of arrays takes in the array's stead; the\n"
         "handle is detached then. Other owners keep theirs. BufferError while memoryviews, ndarrays or a lent address look at the memory.")},
    {"__enter__", array_enter, METH_NOARGS, NULL},
    {"__exit__", FAST(array_exit), NULL},
    {NULL, NULL, 0, NULL},
};
