/* lock.c: isthmus.Lock and isthmus.RLock: threading's, between threads, interpreters and processes.
 *
 * Relies on: sync.c; the interpreter's block for the holder, whose end abandons what this interpreter has.
 */
#include "sync.h"

#include <pthread.h>

int lock_open(SharedHandle *h, ist_segment segment, const unsigned char *Py_UNUSED(note), size_t size) {
    return size != 0 ? -EINVAL : sync_open(h, segment, IST_LOCK);
}

int rlock_open(SharedHandle *h, ist_segment segment, const unsigned char *Py_UNUSED(note), size_t size) {
    return size != 0 ? -EINVAL : sync_open(h, segment, IST_RLOCK);
}

/* ---- taking and giving back ----------------------------------------------------------------------------------------------------------- */

int lock_take(ist_sync *s, void *argument, ist_waiting *w) {
    const lock_taking *taking = argument;
    return ist_lock_lock_count(s, taking->holder, taking->count, w);
}

/* By whatever handle of it: 1, 0 (not in time), -1 with an exception. The handle is entered. */
static int acquire_count(SharedHandle *h, uint32_t count, uint64_t deadline) {
    lock_taking taking = {block_holder(state_of_sync((PyObject *)h)->block), count};
    ist_waiting at_once = {0};
    int error = lock_take(sync_of(h), &taking, deadline == 0 ? &at_once : NULL);
    if (error == -EAGAIN && deadline != 0)
        error = sync_wait(h, lock_take, &taking, deadline, NULL);
    switch (error) {
    case 0: return 1;
    case -EAGAIN:
    case -ETIMEDOUT: return 0;
    case -EOVERFLOW: PyErr_SetString(PyExc_OverflowError, "Internal lock count overflowed"); return -1;
    default: raise_sync_error(h, error, "acquire"); return -1;
    }
}

void raise_unlock_error(SharedHandle *h, int error, const char *function) {
    if (error == -EPERM)
        PyErr_SetString(PyExc_RuntimeError,
                        ist_sync_type_of(sync_of(h)) == IST_LOCK ? "release unlocked lock" : "cannot release un-acquired lock");
    else if (error == -EACCES)
        PyErr_SetString(PyExc_RuntimeError, "the lock is held by the parent process: a forked child can't release it");
    else
        raise_sync_error(h, error, function);
}

static PyObject *acquire(PyObject *self, uint64_t deadline) {
    SharedHandle *h = (SharedHandle *)self;
    if (handle_enter(h) < 0)
        return NULL;
    const int taken = acquire_count(h, 1, deadline);
    handle_leave(h);
    return taken < 0 ? NULL : PyBool_FromLong(taken);
}

PyObject *lock_method_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"blocking", "timeout"};
    static const signature parameters = {"acquire", 2, 2, 0, names};
    PyObject *given[2];
    uint64_t deadline = UINT64_MAX;
    if ((nargs > 0 || kwnames != NULL) &&
        (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 || acquire_deadline(given[0], given[1], &deadline) < 0))
        return NULL;
    return acquire(self, deadline);
}

PyObject *lock_method_release(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedHandle *h = (SharedHandle *)self;
    if (handle_enter(h) < 0)
        return NULL;
    const int error = ist_lock_unlock(sync_of(h));
    if (error != 0)
        raise_unlock_error(h, error, "release");
    handle_leave(h);
    return error != 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *lock_method_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) { return acquire(self, UINT64_MAX); }

PyObject *lock_method_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs)) {
    return lock_method_release(self, NULL);
}

PyObject *lock_method_locked(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    ist_sync_info info;
    return sync_read_info(self, &info) < 0 ? NULL : PyBool_FromLong(info.value != 0);
}

/* ---- RLock: what threading's has for Condition ------------------------------------------------------------------------------------------ */

static PyObject *rlock_is_owned(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    ist_sync_info info;
    return sync_read_info(self, &info) < 0 ? NULL : PyBool_FromLong(info.mine);
}

static PyObject *rlock_recursion_count(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    ist_sync_info info;
    return sync_read_info(self, &info) < 0 ? NULL : PyLong_FromUnsignedLongLong(info.mine ? info.value : 0);
}

static PyObject *rlock_release_save(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedHandle *h = (SharedHandle *)self;
    uint32_t count;
    if (handle_enter(h) < 0)
        return NULL;
    const int error = ist_lock_unlock_all(sync_of(h), &count);
    if (error != 0)
        raise_unlock_error(h, error, "_release_save");
    handle_leave(h);
    return error != 0 ? NULL : PyLong_FromUnsignedLong(count);
}

static PyObject *rlock_acquire_restore(PyObject *self, PyObject *saved) {
    SharedHandle *h = (SharedHandle *)self;
    const unsigned long count = PyLong_AsUnsignedLong(saved);
    if (count == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    if (count < 1 || count > UINT32_MAX)
        return PyErr_Format(PyExc_ValueError, "an RLock isn't acquired %R times", saved);
    if (handle_enter(h) < 0)
        return NULL;
    const int taken = acquire_count(h, (uint32_t)count, UINT64_MAX);
    handle_leave(h);
    return taken < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *lock_repr(PyObject *self) {
    SharedHandle *h = (SharedHandle *)self;
    const char *name = shareables[h->kind].name;
    ist_sync_info info;
    if (!handle_is_usable(h))
        return PyUnicode_FromFormat("<isthmus.%s, detached>", name);
    if (sync_read_info(self, &info) < 0)
        return NULL;
    if (info.value != 0)
        return PyUnicode_FromFormat("<isthmus.%s %u.%u: locked%s>", name, h->segment.index, h->segment.generation,
                                    info.mine ? " here" : "");
    return PyUnicode_FromFormat("<isthmus.%s %u.%u: %s>", name, h->segment.index, h->segment.generation,
                                info.broken ? "abandoned" : "unlocked");
}

/* ---- the types -------------------------------------------------------------------------------------------------------------------------- */

static PyObject *new_of(PyTypeObject *type, PyObject *args, PyObject *kwargs, share_kind kind, ist_sync_type which) {
    core_state *state = (core_state *)PyType_GetModuleState(type);
    if (PyTuple_GET_SIZE(args) > 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0))
        return PyErr_Format(PyExc_TypeError, "%s() takes no arguments", shareables[kind].name);
    return sync_new(state, kind, which, 0, 0, NULL, 0);
}
static PyObject *lock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) { return new_of(type, args, kwargs, SHARE_LOCK, IST_LOCK); }
static PyObject *rlock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    return new_of(type, args, kwargs, SHARE_RLOCK, IST_RLOCK);
}

#define ACQUIRE_DOC                                                                                                                        \
    "acquire($self, /, blocking=True, timeout=-1)\n--\n\n"                                                                                 \
    "Takes the lock; waits for it, unless blocking is false, at most timeout seconds (-1: no limit). Whether it was taken.\n"              \
    "LockAbandonedError, once, if whoever held it died: it isn't held then, and free again."

static const PyMethodDef lock_methods[] = {
    {"acquire", KEYWORDS(lock_method_acquire), PyDoc_STR(ACQUIRE_DOC)},
    {"release", lock_method_release, METH_NOARGS,
     PyDoc_STR("release($self, /)\n--\n\nGives the lock back, whoever took it. RuntimeError if nobody has it.")},
    {"locked", lock_method_locked, METH_NOARGS, PyDoc_STR("locked($self, /)\n--\n\nWhether somebody has it, as of a moment.")},
    {"__enter__", lock_method_enter, METH_NOARGS, NULL},
    {"__exit__", FAST(lock_method_exit), NULL},
    {NULL, NULL, 0, NULL},
};

static const PyMethodDef rlock_methods[] = {
    {"acquire", KEYWORDS(lock_method_acquire), PyDoc_STR(ACQUIRE_DOC " The thread that has it takes it once more.")},
    {"release", lock_method_release, METH_NOARGS,
     PyDoc_STR("release($self, /)\n--\n\nGives it back once. RuntimeError if this thread hasn't it.")},
    {"locked", lock_method_locked, METH_NOARGS, PyDoc_STR("locked($self, /)\n--\n\nWhether somebody has it, as of a moment.")},
    {"__enter__", lock_method_enter, METH_NOARGS, NULL},
    {"__exit__", FAST(lock_method_exit), NULL},
    {"_is_owned", rlock_is_owned, METH_NOARGS, NULL},
    {"_release_save", rlock_release_save, METH_NOARGS, NULL},
    {"_acquire_restore", rlock_acquire_restore, METH_O, NULL},
    {"_recursion_count", rlock_recursion_count, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef lock_all[40], rlock_all[40];
static pthread_once_t merged = PTHREAD_ONCE_INIT;

static void merge(void) {
    sync_merge_acquired(lock_all, sizeof lock_all / sizeof *lock_all, lock_methods);
    sync_merge_acquired(rlock_all, sizeof rlock_all / sizeof *rlock_all, rlock_methods);
}

PyDoc_STRVAR(lock_doc,
             "Lock()\n--\n\n"
             "threading.Lock between threads, interpreters and processes: whatever carries an array carries a lock.\n\n"
             "An owner is an interpreter of a process: when it is killed, ends, or lets go of its last handle, the next one to take the\n"
             "lock gets LockAbandonedError, once. After a fork what the parent held is the parent's. Nobody starves: who has waited for\n"
             "a millisecond goes first. Two handles of one lock are equal.");
PyDoc_STRVAR(rlock_doc,
             "RLock()\n--\n\n"
             "threading.RLock between threads, interpreters and processes; see Lock. Its owner is a thread, and it is abandoned also\n"
             "when that ends. Tasks of one asyncio loop are one thread, so they aren't kept apart by it.");

#define SLOTS(prefix, table)                                                                                                               \
    {Py_tp_doc, (void *)prefix##_doc}, {Py_tp_new, prefix##_new}, {Py_tp_dealloc, handle_dealloc}, {Py_tp_repr, lock_repr},                \
        {Py_tp_richcompare, handle_richcompare}, {Py_tp_hash, handle_hash}, {Py_tp_methods, table}, {Py_tp_getset, handle_attributes},     \
        {Py_tp_members, handle_members}, {                                                                                                 \
        0, NULL                                                                                                                            \
    }
static PyType_Slot lock_slots[] = {SLOTS(lock, lock_all)};
static PyType_Slot rlock_slots[] = {SLOTS(rlock, rlock_all)};

static PyType_Spec lock_spec = {
    .name = "isthmus.Lock", .basicsize = sizeof(SharedHandle), .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, .slots = lock_slots};
static PyType_Spec rlock_spec = {.name = "isthmus.RLock",
                                 .basicsize = sizeof(SharedHandle),
                                 .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                                 .slots = rlock_slots};

int locks_init(PyObject *module, core_state *state) {
    pthread_once(&merged, merge);
    return sync_add_type(module, state, SHARE_LOCK, &lock_spec) < 0 || sync_add_type(module, state, SHARE_RLOCK, &rlock_spec) < 0 ? -1 : 0;
}
