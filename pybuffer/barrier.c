/* barrier.c: isthmus.Barrier: threading's, between threads, interpreters and processes.
 *
 * Its default timeout travels as the note. Its action is an object of this interpreter, so a Barrier that has one doesn't cross: another handle wouldn't
 * run it when it came last.
 */
#include "sync.h"

#include <pthread.h>
#include <string.h>

typedef struct BarrierObject {
    SharedHandle handle;
    PyObject *action; /* strong; NULL: none */
    double timeout;   /* seconds; below 0: none */
} BarrierObject;

static BarrierObject *barrier_of(const SharedHandle *h) { return (BarrierObject *)(void *)(uintptr_t)h; }

int barrier_open(SharedHandle *h, ist_segment segment, const unsigned char *note, size_t size) {
    double timeout;
    if (size != sizeof timeout)
        return -EINVAL;
    memcpy(&timeout, note, sizeof timeout);
    int error = sync_open(h, segment, IST_BARRIER);
    if (error == 0)
        barrier_of(h)->timeout = timeout >= 0 && timeout < 9e9 ? timeout : -1;
    return error;
}

size_t barrier_note(const SharedHandle *h, unsigned char note[SHARE_NOTE]) {
    memcpy(note, &barrier_of(h)->timeout, sizeof(double));
    return sizeof(double);
}

int barrier_may_cross(SharedHandle *h) {
    if (barrier_of(h)->action == NULL)
        return 0;
    PyErr_Format(PyExc_TypeError, "a Barrier with an action can't cross: %R belongs to this interpreter", barrier_of(h)->action);
    return -1;
}

/* ---- waiting ------------------------------------------------------------------------------------------------------------------------------ */

static PyObject *raise_broken(void) {
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *class = threading == NULL ? NULL : PyObject_GetAttrString(threading, "BrokenBarrierError");
    if (class != NULL)
        PyErr_SetNone(class);
    Py_XDECREF(class);
    Py_XDECREF(threading);
    return NULL;
}

static PyObject *raise_barrier_error(SharedHandle *h, int error) {
    return error == -EPIPE || error == -ETIMEDOUT || error == -EAGAIN ? raise_broken() : raise_sync_error(h, error, "wait");
}

static int call_arrive(ist_sync *s, void *argument, ist_waiting *w) { return ist_barrier_arrive(s, w, argument); }
static int call_wait(ist_sync *s, void *argument, ist_waiting *w) { return ist_barrier_wait(s, argument, w); }

/* The last one: the action, then all go on. */
static int let_go(SharedHandle *h, const ist_arrival *a) {
    PyObject *action = barrier_of(h)->action, *result = action == NULL ? NULL : PyObject_CallNoArgs(action);
    if (action != NULL && result == NULL) {
        PyObject *raised = PyErr_GetRaisedException();
        ist_barrier_withdraw(sync_of(h), a); /* breaks it */
        PyErr_SetRaisedException(raised);
        return -EINTR;
    }
    Py_XDECREF(result);
    return ist_barrier_release(sync_of(h), a);
}

/* The handle is entered. 0, or a negative errno; -EINTR: an exception is set. */
static int meet(SharedHandle *h, uint64_t deadline, ist_arrival *a) {
    ist_waiting at_once = {0};
    int error = ist_barrier_arrive(sync_of(h), &at_once, a);
    if (error == -EAGAIN && deadline != 0)
        error = sync_wait(h, call_arrive, a, deadline, NULL);
    if (error == -EAGAIN || error == -ETIMEDOUT)
        (void)!ist_barrier_abort(sync_of(h));
    if (error != 0)
        return error;
    if (a->last)
        return let_go(h, a);
    error = sync_wait(h, call_wait, a, deadline, NULL);
    if (error == -EINTR)
        ist_barrier_withdraw(sync_of(h), a);
    return error;
}

static PyObject *barrier_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"timeout"};
    static const signature parameters = {"wait", 1, 1, 0, names};
    SharedHandle *h = (SharedHandle *)self;
    const double usual = barrier_of(h)->timeout;
    PyObject *given[1];
    uint64_t deadline;
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 || wait_deadline(given[0], &deadline) < 0)
        return NULL;
    if ((given[0] == NULL || given[0] == Py_None) && usual >= 0)
        deadline = usual == 0 ? 0 : deadline_after(usual);
    if (handle_enter(h) < 0)
        return NULL;
    ist_arrival a;
    const int error = meet(h, deadline, &a);
    if (error != 0)
        raise_barrier_error(h, error);
    handle_leave(h);
    return error != 0 ? NULL : PyLong_FromUnsignedLong(a.index);
}

static PyObject *barrier_reset(PyObject *self, PyObject *Py_UNUSED(ignored)) { return sync_call_plain(self, ist_barrier_reset, "reset"); }
static PyObject *barrier_abort(PyObject *self, PyObject *Py_UNUSED(ignored)) { return sync_call_plain(self, ist_barrier_abort, "abort"); }

/* ---- the type ------------------------------------------------------------------------------------------------------------------------------- */

static PyObject *get_parties(PyObject *self, void *Py_UNUSED(closure)) {
    ist_sync_info info;
    return sync_read_info(self, &info) < 0 ? NULL : PyLong_FromUnsignedLongLong(info.limit);
}
static PyObject *get_n_waiting(PyObject *self, void *Py_UNUSED(closure)) {
    ist_sync_info info;
    return sync_read_info(self, &info) < 0 ? NULL : PyLong_FromUnsignedLongLong(info.value);
}
static PyObject *get_broken(PyObject *self, void *Py_UNUSED(closure)) {
    ist_sync_info info;
    return sync_read_info(self, &info) < 0 ? NULL : PyBool_FromLong(info.broken);
}

static PyObject *barrier_repr(PyObject *self) {
    SharedHandle *h = (SharedHandle *)self;
    ist_sync_info info;
    if (!handle_is_usable(h))
        return PyUnicode_FromString("<isthmus.Barrier, detached>");
    if (sync_read_info(self, &info) < 0)
        return NULL;
    if (info.broken)
        return PyUnicode_FromFormat("<isthmus.Barrier %u.%u: broken>", h->segment.index, h->segment.generation);
    return PyUnicode_FromFormat("<isthmus.Barrier %u.%u: waiters=%llu/%llu>", h->segment.index, h->segment.generation,
                                (unsigned long long)info.value, (unsigned long long)info.limit);
}

static PyObject *barrier_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"parties", "action", "timeout", NULL};
    core_state *state = (core_state *)PyType_GetModuleState(type);
    PyObject *given, *action = Py_None, *timeout = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO:Barrier", names, &given, &action, &timeout))
        return NULL;
    const Py_ssize_t parties = PyNumber_AsSsize_t(given, NULL); /* clipped */
    if (parties == -1 && PyErr_Occurred())
        return NULL;
    if (parties < 1 || parties > (Py_ssize_t)IST_BARRIER_MOST)
        return PyErr_Format(PyExc_ValueError, "parties must be from 1 to %u, not %R", IST_BARRIER_MOST, given);
    double seconds = -1;
    if (timeout != Py_None) {
        uint64_t unused;
        seconds = PyFloat_AsDouble(timeout);
        if ((seconds == -1.0 && PyErr_Occurred()) || wait_deadline(timeout, &unused) < 0)
            return NULL;
        seconds = seconds > 0 ? seconds : 0;
    }
    PyObject *self = sync_new(state, SHARE_BARRIER, IST_BARRIER, (uint64_t)parties, 0, (const unsigned char *)&seconds, sizeof seconds);
    if (self != NULL && action != Py_None)
        barrier_of((SharedHandle *)self)->action = Py_NewRef(action);
    return self;
}

static int barrier_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(barrier_of((SharedHandle *)self)->action);
    return 0;
}

static int barrier_clear(PyObject *self) {
    Py_CLEAR(barrier_of((SharedHandle *)self)->action);
    return 0;
}

static void barrier_dealloc(PyObject *self) {
    PyObject_GC_UnTrack(self);
    barrier_clear(self);
    handle_dealloc(self);
}

static const PyMethodDef own_methods[] = {
    {"wait", KEYWORDS(barrier_wait),
     PyDoc_STR(
         "wait($self, /, timeout=None)\n--\n\n"
         "Waits until all parties have called it. How many came before. threading.BrokenBarrierError if the barrier is broken or reset\n"
         "meanwhile, as by a timeout, abort(), or the death of a process that waits.")},
    {"reset", barrier_reset, METH_NOARGS, PyDoc_STR("reset($self, /)\n--\n\nMakes it as new; whoever waits gets BrokenBarrierError.")},
    {"abort", barrier_abort, METH_NOARGS,
     PyDoc_STR("abort($self, /)\n--\n\nBreaks it: whoever waits, or comes until reset(), gets BrokenBarrierError.")},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef methods[32];
static PyGetSetDef attributes[12] = {
    {"parties", get_parties, NULL, PyDoc_STR("How many have to come."), NULL},
    {"n_waiting", get_n_waiting, NULL, PyDoc_STR("How many have come, as of a moment."), NULL},
    {"broken", get_broken, NULL, PyDoc_STR("Whether it is broken."), NULL},
};
static pthread_once_t merged = PTHREAD_ONCE_INIT;

static void merge(void) {
    sync_merge_methods(methods, sizeof methods / sizeof *methods, own_methods);
    for (size_t i = 0; handle_attributes[i].name != NULL; i++)
        attributes[3 + i] = handle_attributes[i];
}

PyDoc_STRVAR(barrier_doc,
             "Barrier(parties, action=None, timeout=None)\n--\n\n"
             "threading.Barrier between threads, interpreters and processes: whatever carries an array carries a barrier, with its\n"
             "timeout. One with an action stays in its interpreter. A process that is killed inside wait() breaks it, within seconds.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)barrier_doc},
    {Py_tp_new, barrier_new},
    {Py_tp_dealloc, barrier_dealloc},
    {Py_tp_traverse, barrier_traverse},
    {Py_tp_clear, barrier_clear},
    {Py_tp_repr, barrier_repr},
    {Py_tp_richcompare, handle_richcompare},
    {Py_tp_hash, handle_hash},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {Py_tp_members, handle_members},
    {0, NULL},
};

/* GC: the action may refer to the barrier. */
static PyType_Spec spec = {
    .name = "isthmus.Barrier",
    .basicsize = sizeof(BarrierObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

int barrier_init(PyObject *module, core_state *state) {
    pthread_once(&merged, merge);
    return sync_add_type(module, state, SHARE_BARRIER, &spec);
}
