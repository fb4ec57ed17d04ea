/* condition.c: isthmus.Condition: threading's, over a number of a lock of libisthmus.
 *
 * A Condition is a handle of its lock's segment and the condition's number there, which travels as its note: so it brings its lock along, and there is
 * nothing that could be gone without it.
 *
 * Relies on: lock.c; <isthmus/atomic.h> for the wait, which begins while the lock is held. So whoever notifies, having the lock, finds it.
 *
 * Invariant (README.md, L3): wait() has the lock when it returns or raises, but for DetachedError.
 */
#include "sync.h"

#include <pthread.h>
#include <string.h>

typedef struct ConditionObject {
    SharedHandle handle;
    uint64_t number;
} ConditionObject;

static uint64_t number_of(const SharedHandle *h) { return ((const ConditionObject *)(const void *)h)->number; }

int condition_open(SharedHandle *h, ist_segment segment, const unsigned char *note, size_t size) {
    uint64_t number;
    if (size != sizeof number)
        return -EINVAL;
    memcpy(&number, note, sizeof number);
    int error = sync_open(h, segment, IST_RLOCK);
    if (error == -EINVAL)
        error = sync_open(h, segment, IST_LOCK);
    if (error == 0)
        ((ConditionObject *)(void *)h)->number = number & INT64_MAX;
    return error;
}

size_t condition_note(const SharedHandle *h, unsigned char note[SHARE_NOTE]) {
    const uint64_t number = number_of(h);
    memcpy(note, &number, sizeof number);
    return sizeof number;
}

/* ---- waiting ------------------------------------------------------------------------------------------------------------------------------ */

/* As threading has it: a Lock is anybody's. */
static int check_owned(SharedHandle *h, const char *what) {
    ist_sync_info info;
    ist_sync_read_info(sync_of(h), &info);
    if (info.type == IST_RLOCK ? info.mine : info.value != 0)
        return 0;
    PyErr_Format(PyExc_RuntimeError, "cannot %s on un-acquired lock", what);
    return -1;
}

/* Takes the lock again, whatever comes in between: an exception that is raised meanwhile stands when it is taken. false: released. */
static bool lock_again(SharedHandle *h, lock_taking *taking) {
    ist_waiting begun = {0};
    PyObject *raised = PyErr_GetRaisedException();
    for (;;) {
        int error = lock_take(sync_of(h), taking, NULL);
        if (error == -EAGAIN)
            error = sync_wait(h, lock_take, taking, UINT64_MAX, &begun);
        if (error == -EOWNERDEAD) {
            raise_abandoned(h);
        } else if (error != -EINTR) {
            if (error != 0)
                raise_sync_error(h, error, "wait");
            else if (raised != NULL && !PyErr_Occurred())
                PyErr_SetRaisedException(raised), raised = NULL;
            Py_XDECREF(raised);
            return error == 0;
        }
        /* what a signal handler raised, or that the lock was abandoned, is kept; the first one stays */
        PyObject *also = PyErr_GetRaisedException();
        if (raised == NULL)
            raised = also;
        else if (also != NULL)
            PyException_SetContext(raised, also);
    }
}

/* 1: notified, 0: not in time; -1 with an exception. */
static int sleep_until_notified(ist_wait *w, uint64_t deadline) {
    for (;;) {
        int error;
        Py_BEGIN_ALLOW_THREADS
        error = ist_wait_on(w, deadline, PATIENCE_NS);
        Py_END_ALLOW_THREADS
        if (error == 0 || error == -ETIMEDOUT)
            return error == 0;
        if (error != -EINTR || let_python_run() < 0) {
            ist_wait_cancel(w); /* what it was given goes to the next */
            return -1;
        }
    }
}

/* The handle is entered. As sleep_until_notified. */
static int wait_until(SharedHandle *h, uint64_t deadline) {
    lock_taking taking = {block_holder(state_of_sync((PyObject *)h)->block), 1};
    ist_sync *s = sync_of(h);
    ist_wait w;
    if (check_owned(h, "wait") < 0)
        return -1;
    int error = ist_condition_begin(s, number_of(h), &w);
    if (error != 0) {
        if (error == -ENOSPC)
            PyErr_SetString(PyExc_MemoryError, "Condition.wait(): as many threads of the domain wait as can (16,128)");
        else
            raise_sync_error(h, error, "wait");
        return -1;
    }
    error = ist_sync_type_of(s) == IST_RLOCK ? ist_lock_unlock_all(s, &taking.count) : ist_lock_unlock(s);
    if (error != 0) { /* the parent's, or given back by another thread meanwhile */
        ist_wait_cancel(&w);
        raise_unlock_error(h, error, "wait");
        return -1;
    }
    const int notified = sleep_until_notified(&w, deadline);
    return lock_again(h, &taking) && !PyErr_Occurred() ? notified : -1;
}

static PyObject *condition_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"timeout"};
    static const signature parameters = {"wait", 1, 1, 0, names};
    SharedHandle *h = (SharedHandle *)self;
    PyObject *given[1];
    uint64_t deadline;
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 || wait_deadline(given[0], &deadline) < 0 || handle_enter(h) < 0)
        return NULL;
    const int notified = wait_until(h, deadline);
    handle_leave(h);
    return notified < 0 ? NULL : PyBool_FromLong(notified);
}

static PyObject *condition_wait_for(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"predicate", "timeout"};
    static const signature parameters = {"wait_for", 2, 2, 1, names};
    SharedHandle *h = (SharedHandle *)self;
    PyObject *given[2];
    uint64_t deadline;
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 || wait_deadline(given[1], &deadline) < 0 || handle_enter(h) < 0)
        return NULL;
    PyObject *result;
    for (;;) {
        result = PyObject_CallNoArgs(given[0]);
        const int holds = result == NULL ? -1 : PyObject_IsTrue(result);
        if (holds < 0)
            Py_CLEAR(result);
        if (holds != 0 || deadline == 0 || monotonic_ns() >= deadline)
            break;
        Py_CLEAR(result);
        if (wait_until(h, deadline) < 0)
            break;
    }
    handle_leave(h);
    return result;
}

/* ---- notifying ---------------------------------------------------------------------------------------------------------------------------- */

static PyObject *notify(PyObject *self, uint64_t count) {
    SharedHandle *h = (SharedHandle *)self;
    uint64_t woken;
    if (handle_enter(h) < 0)
        return NULL;
    int error = check_owned(h, "notify") < 0 ? -EINTR : ist_condition_notify(sync_of(h), number_of(h), count, &woken);
    if (error != 0)
        raise_sync_error(h, error, "notify");
    handle_leave(h);
    return error != 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *condition_notify(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"n"};
    static const signature parameters = {"notify", 1, 1, 0, names};
    PyObject *given[1];
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    const Py_ssize_t n = given[0] == NULL ? 1 : PyNumber_AsSsize_t(given[0], NULL); /* clipped */
    return n == -1 && PyErr_Occurred() ? NULL : notify(self, n > 0 ? (uint64_t)n : 0);
}

static PyObject *condition_notify_all(PyObject *self, PyObject *Py_UNUSED(ignored)) { return notify(self, UINT64_MAX); }

/* ---- the type ------------------------------------------------------------------------------------------------------------------------------- */

static PyObject *condition_of(core_state *state, ist_sync *lock, ist_segment segment) {
    uint64_t number;
    int error = ist_condition_create(lock, &number);
    if (error != 0)
        return raise_error(state, error, "isthmus.Condition");
    ist_segment_retain(segment);
    return handle_new(state, SHARE_CONDITION, segment, (const unsigned char *)&number, sizeof number);
}

static PyObject *condition_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"lock", NULL};
    core_state *state = (core_state *)PyType_GetModuleState(type);
    PyObject *given = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Condition", names, &given))
        return NULL;
    PyObject *lock = given == Py_None ? sync_new(state, SHARE_RLOCK, IST_RLOCK, 0, 0, NULL, 0) : Py_NewRef(given);
    if (lock == NULL)
        return NULL;
    const int kind = share_kind_of(state, Py_TYPE(lock));
    PyObject *condition = NULL;
    if (kind != SHARE_LOCK && kind != SHARE_RLOCK)
        PyErr_Format(PyExc_TypeError, "Condition() needs an isthmus.Lock or RLock, not %.200s", Py_TYPE(lock)->tp_name);
    else if (handle_enter((SharedHandle *)lock) == 0) {
        condition = condition_of(state, sync_of((SharedHandle *)lock), ((SharedHandle *)lock)->segment);
        handle_leave((SharedHandle *)lock);
    }
    Py_DECREF(lock);
    return condition;
}

static PyObject *condition_richcompare(PyObject *self, PyObject *other, int op) {
    PyObject *result = handle_richcompare(self, other, op);
    if (result == Py_NotImplemented || result == NULL || number_of((SharedHandle *)self) == number_of((SharedHandle *)other))
        return result;
    Py_DECREF(result); /* two of one lock */
    return PyBool_FromLong(op == Py_NE);
}

static PyObject *condition_repr(PyObject *self) {
    SharedHandle *h = (SharedHandle *)self;
    if (!handle_is_usable(h))
        return PyUnicode_FromString("<isthmus.Condition, detached>");
    return PyUnicode_FromFormat("<isthmus.Condition %llu of lock %u.%u>", (unsigned long long)number_of(h), h->segment.index,
                                h->segment.generation);
}

static const PyMethodDef own_methods[] = {
    {"acquire", KEYWORDS(lock_method_acquire),
     PyDoc_STR("acquire($self, /, blocking=True, timeout=-1)\n--\n\nTakes the lock, as its own acquire() does.")},
    {"release", lock_method_release, METH_NOARGS, PyDoc_STR("release($self, /)\n--\n\nGives the lock back.")},
    {"locked", lock_method_locked, METH_NOARGS, PyDoc_STR("locked($self, /)\n--\n\nWhether somebody has the lock, as of a moment.")},
    {"wait", KEYWORDS(condition_wait),
     PyDoc_STR("wait($self, /, timeout=None)\n--\n\n"
               "Gives the lock back, waits until notified, at most timeout seconds, and takes the lock again. Whether it was notified.\n"
               "If whoever had the lock then died, LockAbandonedError is raised with the lock held, as `with` demands.")},
    {"wait_for", KEYWORDS(condition_wait_for),
     PyDoc_STR(
         "wait_for($self, /, predicate, timeout=None)\n--\n\nWaits until predicate() is true, at most timeout seconds. Its last result.")},
    {"notify", KEYWORDS(condition_notify),
     PyDoc_STR(
         "notify($self, /, n=1)\n--\n\nWakes n of those that wait, the longest waiting first. RuntimeError without the lock. One that is\n"
         "killed before it has heard of it passes it on.")},
    {"notify_all", condition_notify_all, METH_NOARGS, PyDoc_STR("notify_all($self, /)\n--\n\nWakes all that wait.")},
    {"notifyAll", condition_notify_all, METH_NOARGS, NULL},
    {"__enter__", lock_method_enter, METH_NOARGS, NULL},
    {"__exit__", FAST(lock_method_exit), NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef methods[48];
static pthread_once_t merged = PTHREAD_ONCE_INIT;
static void merge(void) { sync_merge_acquired(methods, sizeof methods / sizeof *methods, own_methods); }

PyDoc_STRVAR(condition_doc,
             "Condition(lock=None)\n--\n\n"
             "threading.Condition between threads, interpreters and processes: whatever carries an array carries a condition, with\n"
             "its lock: an isthmus.Lock or RLock; None: a new RLock. Two handles of one condition are equal.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)condition_doc},
    {Py_tp_new, condition_new},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_repr, condition_repr},
    {Py_tp_richcompare, condition_richcompare},
    {Py_tp_hash, handle_hash},
    {Py_tp_methods, methods},
    {Py_tp_getset, handle_attributes},
    {Py_tp_members, handle_members},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "isthmus.Condition",
    .basicsize = sizeof(ConditionObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int condition_init(PyObject *module, core_state *state) {
    pthread_once(&merged, merge);
    return sync_add_type(module, state, SHARE_CONDITION, &spec);
}
