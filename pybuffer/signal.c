/* signal.c: isthmus.Semaphore, BoundedSemaphore and Event: threading's, between threads, interpreters and processes. */
#include "sync.h"

#include <pthread.h>

int semaphore_open(SharedHandle *h, ist_segment segment, const unsigned char *Py_UNUSED(note), size_t size) {
    return size != 0 ? -EINVAL : sync_open(h, segment, IST_SEMAPHORE);
}

int event_open(SharedHandle *h, ist_segment segment, const unsigned char *Py_UNUSED(note), size_t size) {
    return size != 0 ? -EINVAL : sync_open(h, segment, IST_EVENT);
}

/* True, or False if it wasn't to be had in time. */
static PyObject *wait_for(PyObject *self, sync_call call, uint64_t deadline, const char *function) {
    SharedHandle *h = (SharedHandle *)self;
    ist_waiting w = {0};
    if (handle_enter(h) < 0)
        return NULL;
    int error = call(sync_of(h), NULL, &w);
    if (error == -EAGAIN && deadline != 0)
        error = sync_wait(h, call, NULL, deadline, NULL);
    if (error != 0 && error != -EAGAIN && error != -ETIMEDOUT) {
        raise_sync_error(h, error, function);
        handle_leave(h);
        return NULL;
    }
    handle_leave(h);
    return PyBool_FromLong(error == 0);
}

/* ---- semaphores --------------------------------------------------------------------------------------------------------------------------- */

static int call_take(ist_sync *s, void *Py_UNUSED(none), ist_waiting *w) { return ist_semaphore_take(s, w); }

static PyObject *semaphore_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"blocking", "timeout"};
    static const signature parameters = {"acquire", 2, 2, 0, names};
    PyObject *given[2];
    uint64_t deadline;
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    const int waits = given[0] == NULL ? 1 : PyObject_IsTrue(given[0]);
    if (waits < 0 || wait_deadline(given[1], &deadline) < 0)
        return NULL;
    if (!waits && given[1] != NULL && given[1] != Py_None) {
        PyErr_SetString(PyExc_ValueError, "can't specify timeout for non-blocking acquire");
        return NULL;
    }
    return wait_for(self, call_take, waits ? deadline : 0, "acquire");
}

static PyObject *semaphore_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) { return wait_for(self, call_take, UINT64_MAX, "acquire"); }

static PyObject *post(PyObject *self, PyObject *object) {
    SharedHandle *h = (SharedHandle *)self;
    const Py_ssize_t n = object == NULL ? 1 : PyNumber_AsSsize_t(object, NULL); /* clipped */
    if (n == -1 && PyErr_Occurred())
        return NULL;
    if (n < 1)
        return PyErr_Format(PyExc_ValueError, "n must be one or more, not %R", object);
    if (handle_enter(h) < 0)
        return NULL;
    const int error = ist_semaphore_post(sync_of(h), (uint64_t)n);
    if (error == -ERANGE && h->kind == SHARE_BOUNDED_SEMAPHORE)
        PyErr_SetString(PyExc_ValueError, "Semaphore released too many times");
    else if (error == -ERANGE)
        PyErr_Format(PyExc_OverflowError, "a Semaphore has at most %d permits: %zd more don't fit", IST_SEMAPHORE_MOST, n);
    else if (error != 0)
        raise_sync_error(h, error, "release");
    handle_leave(h);
    return error != 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *semaphore_release(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"n"};
    static const signature parameters = {"release", 1, 1, 0, names};
    PyObject *given[1];
    return bind_arguments(&parameters, args, nargs, kwnames, given) < 0 ? NULL : post(self, given[0]);
}

static PyObject *semaphore_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs)) { return post(self, NULL); }

static PyObject *semaphore_get_value(PyObject *self, void *Py_UNUSED(closure)) {
    ist_sync_info info;
    return sync_read_info(self, &info) < 0 ? NULL : PyLong_FromUnsignedLongLong(info.value);
}

static PyObject *semaphore_repr(PyObject *self) {
    SharedHandle *h = (SharedHandle *)self;
    const char *name = shareables[h->kind].name;
    ist_sync_info info;
    if (!handle_is_usable(h))
        return PyUnicode_FromFormat("<isthmus.%s, detached>", name);
    if (sync_read_info(self, &info) < 0)
        return NULL;
    PyObject *limit =
        h->kind == SHARE_BOUNDED_SEMAPHORE ? PyUnicode_FromFormat("/%llu", (unsigned long long)info.limit) : PyUnicode_FromString("");
    PyObject *text = limit == NULL ? NULL
                                   : PyUnicode_FromFormat("<isthmus.%s %u.%u: value=%llu%U>", name, h->segment.index, h->segment.generation,
                                                          (unsigned long long)info.value, limit);
    Py_XDECREF(limit);
    return text;
}

static PyObject *new_semaphore(PyTypeObject *type, PyObject *args, PyObject *kwargs, share_kind kind, const char *format) {
    static char *names[] = {"value", NULL};
    core_state *state = (core_state *)PyType_GetModuleState(type);
    PyObject *given = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &given))
        return NULL;
    const Py_ssize_t value = given == NULL ? 1 : PyNumber_AsSsize_t(given, NULL); /* clipped */
    if (value == -1 && PyErr_Occurred())
        return NULL;
    if (value < 0)
        return PyErr_Format(PyExc_ValueError, "semaphore initial value must be >= 0, not %R", given);
    if (value > IST_SEMAPHORE_MOST)
        return PyErr_Format(PyExc_OverflowError, "a %s has at most %d permits, not %R", shareables[kind].name, IST_SEMAPHORE_MOST, given);
    if (kind == SHARE_BOUNDED_SEMAPHORE && value == 0) /* limit 0 is none to the library */
        return PyErr_Format(PyExc_ValueError, "a BoundedSemaphore of 0 permits could never be acquired or released");
    return sync_new(state, kind, IST_SEMAPHORE, (uint64_t)value, kind == SHARE_BOUNDED_SEMAPHORE ? (uint64_t)value : 0, NULL, 0);
}
static PyObject *semaphore_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    return new_semaphore(type, args, kwargs, SHARE_SEMAPHORE, "|O:Semaphore");
}
static PyObject *bounded_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    return new_semaphore(type, args, kwargs, SHARE_BOUNDED_SEMAPHORE, "|O:BoundedSemaphore");
}

/* ---- events ------------------------------------------------------------------------------------------------------------------------------- */

static int call_wait(ist_sync *s, void *Py_UNUSED(none), ist_waiting *w) { return ist_event_wait(s, w); }

static PyObject *event_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"timeout"};
    static const signature parameters = {"wait", 1, 1, 0, names};
    PyObject *given[1];
    uint64_t deadline;
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 || wait_deadline(given[0], &deadline) < 0)
        return NULL;
    return wait_for(self, call_wait, deadline, "wait");
}

static PyObject *event_set(PyObject *self, PyObject *Py_UNUSED(ignored)) { return sync_call_plain(self, ist_event_set, "set"); }
static PyObject *event_clear(PyObject *self, PyObject *Py_UNUSED(ignored)) { return sync_call_plain(self, ist_event_clear, "clear"); }

static PyObject *event_is_set(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    ist_sync_info info;
    return sync_read_info(self, &info) < 0 ? NULL : PyBool_FromLong(info.value != 0);
}

static PyObject *event_repr(PyObject *self) {
    SharedHandle *h = (SharedHandle *)self;
    ist_sync_info info;
    if (!handle_is_usable(h))
        return PyUnicode_FromString("<isthmus.Event, detached>");
    if (sync_read_info(self, &info) < 0)
        return NULL;
    return PyUnicode_FromFormat("<isthmus.Event %u.%u: %s>", h->segment.index, h->segment.generation, info.value != 0 ? "set" : "unset");
}

static PyObject *event_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    if (PyTuple_GET_SIZE(args) > 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)) {
        PyErr_SetString(PyExc_TypeError, "Event() takes no arguments");
        return NULL;
    }
    return sync_new((core_state *)PyType_GetModuleState(type), SHARE_EVENT, IST_EVENT, 0, 0, NULL, 0);
}

/* ---- the types ---------------------------------------------------------------------------------------------------------------------------- */

#define RELEASE_DOC "release($self, /, n=1)\n--\n\nAdds n permits, and wakes as many of those that wait. "

#define SEMAPHORE_METHODS(release_doc)                                                                                                     \
    {"acquire", KEYWORDS(semaphore_acquire),                                                                                               \
     PyDoc_STR("acquire($self, /, blocking=True, timeout=None)\n--\n\n"                                                                    \
               "Takes a permit; waits for one, unless blocking is false, at most timeout seconds. Whether it got one.")},                  \
        {"release", KEYWORDS(semaphore_release), PyDoc_STR(release_doc)}, {"__enter__", semaphore_enter, METH_NOARGS, NULL},               \
        {"__exit__", FAST(semaphore_exit), NULL},

static const PyMethodDef semaphore_methods[] = {
    SEMAPHORE_METHODS(RELEASE_DOC "OverflowError above 2,147,483,647."){NULL, NULL, 0, NULL},
};
static const PyMethodDef bounded_methods[] = {
    SEMAPHORE_METHODS(RELEASE_DOC "ValueError if that were more than at first."){NULL, NULL, 0, NULL},
};
static const PyMethodDef event_methods[] = {
    {"set", event_set, METH_NOARGS, PyDoc_STR("set($self, /)\n--\n\nSets it, and wakes all that wait.")},
    {"clear", event_clear, METH_NOARGS, PyDoc_STR("clear($self, /)\n--\n\nFrom now on whoever waits waits.")},
    {"is_set", event_is_set, METH_NOARGS, PyDoc_STR("is_set($self, /)\n--\n\nWhether it is set, as of a moment.")},
    {"isSet", event_is_set, METH_NOARGS, NULL},
    {"wait", KEYWORDS(event_wait),
     PyDoc_STR("wait($self, /, timeout=None)\n--\n\n"
               "Waits until it is set, at most timeout seconds. Whether it is, or was meanwhile.")},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef semaphore_all[40], bounded_all[40], event_all[32];
static PyGetSetDef semaphore_attributes[8] = {
    {"value", semaphore_get_value, NULL, PyDoc_STR("How many permits there are, as of a moment."), NULL},
};
static pthread_once_t merged = PTHREAD_ONCE_INIT;

static void merge(void) {
    sync_merge_acquired(semaphore_all, sizeof semaphore_all / sizeof *semaphore_all, semaphore_methods);
    sync_merge_acquired(bounded_all, sizeof bounded_all / sizeof *bounded_all, bounded_methods);
    sync_merge_methods(event_all, sizeof event_all / sizeof *event_all, event_methods);
    for (size_t i = 0; handle_attributes[i].name != NULL; i++)
        semaphore_attributes[1 + i] = handle_attributes[i];
}

PyDoc_STRVAR(semaphore_doc,
             "Semaphore(value=1)\n--\n\n"
             "threading.Semaphore between threads, interpreters and processes: whatever carries an array carries a semaphore.\n\n"
             "Permits aren't anybody's: what a killed process had acquired is gone until somebody releases it.");
PyDoc_STRVAR(bounded_doc, "BoundedSemaphore(value=1)\n--\n\nA Semaphore that never has more permits than at first.");
PyDoc_STRVAR(event_doc, "Event()\n--\n\n"
                        "threading.Event between threads, interpreters and processes: whatever carries an array carries an event.");

#define SLOTS(prefix, repr, table, attributes)                                                                                             \
    {Py_tp_doc, (void *)prefix##_doc}, {Py_tp_new, prefix##_new}, {Py_tp_dealloc, handle_dealloc}, {Py_tp_repr, repr},                     \
        {Py_tp_richcompare, handle_richcompare}, {Py_tp_hash, handle_hash}, {Py_tp_methods, table}, {Py_tp_getset, attributes},            \
        {Py_tp_members, handle_members}, {                                                                                                 \
        0, NULL                                                                                                                            \
    }
static PyType_Slot semaphore_slots[] = {SLOTS(semaphore, semaphore_repr, semaphore_all, semaphore_attributes)};
static PyType_Slot bounded_slots[] = {SLOTS(bounded, semaphore_repr, bounded_all, semaphore_attributes)};
static PyType_Slot event_slots[] = {SLOTS(event, event_repr, event_all, handle_attributes)};

#define SPEC(text, which)                                                                                                                  \
    {.name = text, .basicsize = sizeof(SharedHandle), .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, .slots = which}
static PyType_Spec semaphore_spec = SPEC("isthmus.Semaphore", semaphore_slots);
static PyType_Spec bounded_spec = SPEC("isthmus.BoundedSemaphore", bounded_slots);
static PyType_Spec event_spec = SPEC("isthmus.Event", event_slots);

int signals_init(PyObject *module, core_state *state) {
    pthread_once(&merged, merge);
    return sync_add_type(module, state, SHARE_SEMAPHORE, &semaphore_spec) < 0 ||
                   sync_add_type(module, state, SHARE_BOUNDED_SEMAPHORE, &bounded_spec) < 0 ||
                   sync_add_type(module, state, SHARE_EVENT, &event_spec) < 0
               ? -1
               : 0;
}
