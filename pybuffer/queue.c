/* queue.c: isthmus.Queue: the standard library's queue over a queue of libisthmus (<isthmus/queue.h>).
 *
 * Relies on: shareable.c for the handle, queue_item.c for what objects look like in there, isthmus._queue for asyncio.
 *
 * Invariants (README.md, Q1 to Q3)
 *   A put has put its object, or nothing has happened: handles that move along are as they were. A get that raises Empty, ShutDown or what a
 *   signal handler raised has taken nothing.
 *   Whoever waits has no GIL, is within handle_enter, and is in the handle's list of waiters.
 *   What can be done at once is done under the GIL: no call into libisthmus needs one, so nobody waits for us meanwhile.
 */
#include "queue.h"

#include <math.h>
#include <pthread.h>
#include <stddef.h>

/* What a small message doesn't need; inlined, its registers and memory would be saved and restored by every call. */
#define APART __attribute__((noinline))

static ist_queue *queue_of(SharedHandle *h) { return h->own; }

int queue_open(SharedHandle *h, ist_segment segment, const unsigned char *Py_UNUSED(note), size_t size) {
    ist_queue *q;
    int error = size != 0 ? -EINVAL : ist_queue_open(segment, &q);
    if (error == 0)
        h->own = q;
    return error;
}

void queue_drop(SharedHandle *h) { ist_queue_release(queue_of(h)); }

/* ---- errors ------------------------------------------------------------------------------------------------------------------------- */

/* A class or function of isthmus._queue, new. */
static PyObject *helper(core_state *state, const char *name) {
    if (state->queue_helpers == NULL)
        state->queue_helpers = PyImport_ImportModule("isthmus._queue");
    return state->queue_helpers == NULL ? NULL : PyObject_GetAttrString(state->queue_helpers, name);
}

static PyObject *raise_helper(core_state *state, const char *class_name) {
    PyObject *class = helper(state, class_name);
    if (class != NULL)
        PyErr_SetNone(class);
    Py_XDECREF(class);
    return NULL;
}

/* `empty`: Empty or Full, whatever nothing could be done for. */
APART static PyObject *raise_queue_error(SharedHandle *h, int error, const char *empty, const char *function) {
    core_state *state = state_of_queue((PyObject *)h);
    ist_queue_info info;
    switch (error) {
    case -EINTR: return NULL; /* an exception is set */
    case -EAGAIN:
    case -ETIMEDOUT: return raise_helper(state, empty);
    case -ESHUTDOWN: return raise_helper(state, "ShutDown");
    case -ECANCELED: handle_raise_detached(h); return NULL;
    case -ENOSPC:
        ist_queue_read_info(queue_of(h), &info);
        if (info.size >= info.capacity)
            return raise_helper(state, "Full");
        break;
    case -EXDEV:
        PyErr_SetString(PyExc_BufferError,
                        "the queue belongs to another group of processes than this one's memory (see ISTHMUS_DOMAIN): numbers, "
                        "short text and bytes can be put there, nothing larger, and no arrays, queues or locks");
        return NULL;
    case -EBADMSG:
        PyErr_Format(state->CloneError, "%s: the message made no sense, and is gone: some process wrote into the queue's memory", function);
        return NULL;
    default: break;
    }
    return raise_error(state, error, "isthmus.Queue.%s", function);
}

/* ---- waiting ------------------------------------------------------------------------------------------------------------------------ */

typedef int (*blocking_call)(ist_queue *q, void *argument, uint64_t deadline, ist_waiter *waiter);

/* Calls without the GIL until it is done, stopping now and then for what Python has to do. -EINTR: with an exception. */
APART static int wait_for(SharedHandle *h, blocking_call call, void *argument, uint64_t deadline) {
    handle_waiter waiter;
    int error;
    handle_wait_begin(h, &waiter);
    for (;;) {
        Py_BEGIN_ALLOW_THREADS
        const uint64_t patience = monotonic_ns() + PATIENCE_NS;
        error = call(queue_of(h), argument, deadline < patience ? deadline : patience, &waiter.stop);
        Py_END_ALLOW_THREADS
        const bool over = error == -ETIMEDOUT && deadline != UINT64_MAX && monotonic_ns() >= deadline;
        if ((error != -ETIMEDOUT && error != -EINTR) || over)
            break;
        if (let_python_run() < 0) {
            error = -EINTR;
            break;
        }
    }
    handle_wait_end(h, &waiter);
    return error;
}

/* block and timeout as queue.Queue has them; *deadline 0: don't wait. -1 with an exception. */
static int deadline_of(PyObject *block, PyObject *timeout, uint64_t *deadline) {
    const int waits = block == NULL ? 1 : PyObject_IsTrue(block);
    *deadline = waits > 0 ? UINT64_MAX : 0;
    if (waits <= 0 || timeout == NULL || timeout == Py_None)
        return waits < 0 ? -1 : 0;
    const double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds >= 0)) {
        PyErr_Format(PyExc_ValueError, "'timeout' must be a non-negative number, not %R", timeout);
        return -1;
    }
    *deadline = seconds == 0 ? 0 : deadline_after(seconds);
    return 0;
}

/* ---- put ---------------------------------------------------------------------------------------------------------------------------- */

static int call_put(ist_queue *q, void *message, uint64_t deadline, ist_waiter *waiter) {
    return ist_queue_put(q, message, deadline, waiter);
}

static int call_await_room(ist_queue *q, void *Py_UNUSED(none), uint64_t deadline, ist_waiter *waiter) {
    return ist_queue_await_room(q, deadline, waiter);
}

/* What moves along may have got exports while we waited, so the last look and the put are one step under the GIL. */
static int put_moving(core_state *state, SharedHandle *h, queue_item *item, uint64_t deadline) {
    for (;;) {
        if (clone_check_transfer(state, &item->clone) < 0)
            return -EINTR;
        int error = ist_queue_put(queue_of(h), &item->message, 0, NULL);
        if (error == 0 || error != -EAGAIN || deadline == 0)
            return error;
        error = wait_for(h, call_await_room, NULL, deadline);
        if (error != 0)
            return error;
    }
}

static int put_message(SharedHandle *h, ist_queue_message *message, uint64_t deadline) {
    const int error = ist_queue_put(queue_of(h), message, 0, NULL);
    return error == -EAGAIN && deadline != 0 ? wait_for(h, call_put, message, deadline) : error;
}

static PyObject *put_small(SharedHandle *h, ist_queue_message *message, uint64_t deadline, const char *function) {
    if (handle_enter(h) < 0)
        return NULL;
    const int error = put_message(h, message, deadline);
    if (error != 0)
        raise_queue_error(h, error, "Full", function);
    handle_leave(h);
    return error != 0 ? NULL : Py_NewRef(Py_None);
}

APART static PyObject *put_large(PyObject *self, PyObject *object, uint64_t deadline, PyObject *transfer, unsigned flags,
                                 const char *function) {
    SharedHandle *h = (SharedHandle *)self;
    queue_item item;
    if (handle_enter(h) < 0)
        return NULL;
    core_state *state = state_of_queue(self);
    PyObject *result = NULL;
    if (queue_item_encode(state, h, object, transfer, flags, &item) == 0) {
        const int error = queue_item_moves(&item) ? put_moving(state, h, &item, deadline) : put_message(h, &item.message, deadline);
        if (error == 0) {
            queue_item_sent(&item);
            result = Py_NewRef(Py_None);
        } else {
            raise_queue_error(h, error, "Full", function);
        }
        PyObject *raised = result != NULL ? NULL : PyErr_GetRaisedException();
        queue_item_clear(&item); /* may run destructors */
        if (raised != NULL)
            PyErr_SetRaisedException(raised);
    }
    handle_leave(h);
    return result;
}

static inline PyObject *put(PyObject *self, PyObject *object, uint64_t deadline, PyObject *transfer, unsigned flags, const char *function) {
    ist_queue_message message;
    if (transfer == NULL && queue_item_encode_small(object, &message))
        return put_small((SharedHandle *)self, &message, deadline, function);
    return put_large(self, object, deadline, transfer, flags, function);
}

/* transfer=() is what most who name it mean by it. */
static PyObject *given_transfer(PyObject *transfer) {
    return transfer == NULL || (PyTuple_CheckExact(transfer) && PyTuple_GET_SIZE(transfer) == 0) ? NULL : transfer;
}

static PyObject *queue_put(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"obj", "block", "timeout", "transfer", "fallback"};
    static const signature parameters = {"put", 5, 3, 1, names};
    if (nargs == 1 && kwnames == NULL)
        return put(self, args[0], UINT64_MAX, NULL, 0, "put");
    PyObject *given[5];
    unsigned flags = 0;
    uint64_t deadline;
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 || clone_parse_fallback(given[4], &flags) < 0 ||
        deadline_of(given[1], given[2], &deadline) < 0)
        return NULL;
    return put(self, given[0], deadline, given_transfer(given[3]), flags, "put");
}

static PyObject *queue_put_nowait(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"obj", "transfer", "fallback"};
    static const signature parameters = {"put_nowait", 3, 1, 1, names};
    PyObject *given[3];
    unsigned flags = 0;
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 || clone_parse_fallback(given[2], &flags) < 0)
        return NULL;
    return put(self, given[0], 0, given_transfer(given[1]), flags, "put_nowait");
}

/* ---- get ---------------------------------------------------------------------------------------------------------------------------- */

static int call_get(ist_queue *q, void *message, uint64_t deadline, ist_waiter *waiter) {
    return ist_queue_get(q, message, deadline, waiter);
}

static PyObject *get(PyObject *self, uint64_t deadline, const char *function) {
    SharedHandle *h = (SharedHandle *)self;
    ist_queue_message message;
    PyObject *object = NULL;
    if (handle_enter(h) < 0)
        return NULL;
    int error = ist_queue_get(queue_of(h), &message, 0, NULL);
    if (error == -EAGAIN && deadline != 0)
        error = wait_for(h, call_get, &message, deadline);
    if (error != 0) {
        raise_queue_error(h, error, "Empty", function);
    } else {
        object = queue_item_decode(self, &message);
        if (message.count > 0)
            ist_queue_message_clear(&message);
    }
    handle_leave(h);
    return object;
}

static PyObject *queue_get(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"block", "timeout"};
    static const signature parameters = {"get", 2, 2, 0, names};
    PyObject *given[2];
    uint64_t deadline = UINT64_MAX;
    if ((nargs > 0 || kwnames != NULL) &&
        (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 || deadline_of(given[0], given[1], &deadline) < 0))
        return NULL;
    return get(self, deadline, "get");
}

static PyObject *queue_get_nowait(PyObject *self, PyObject *Py_UNUSED(ignored)) { return get(self, 0, "get_nowait"); }

static PyObject *queue_next(PyObject *self) {
    PyObject *item = get(self, UINT64_MAX, "__next__");
    if (item != NULL)
        return item;
    PyObject *raised = PyErr_GetRaisedException(), *over = helper(state_of_queue(self), "ShutDown");
    if (over != NULL && PyErr_GivenExceptionMatches(raised, over))
        Py_DECREF(raised); /* StopIteration */
    else
        PyErr_SetRaisedException(raised);
    Py_XDECREF(over);
    return NULL;
}

/* ---- tasks, shutdown, looking ------------------------------------------------------------------------------------------------------- */

static PyObject *queue_task_done(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedHandle *h = (SharedHandle *)self;
    if (handle_enter(h) < 0)
        return NULL;
    const int error = ist_queue_task_done(queue_of(h));
    if (error == -ERANGE)
        PyErr_SetString(PyExc_ValueError, "task_done() called too many times");
    else if (error != 0)
        raise_queue_error(h, error, "Empty", "task_done");
    handle_leave(h);
    return error != 0 ? NULL : Py_NewRef(Py_None);
}

static int call_join(ist_queue *q, void *Py_UNUSED(none), uint64_t deadline, ist_waiter *waiter) {
    return ist_queue_join(q, deadline, waiter);
}

static PyObject *queue_join(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedHandle *h = (SharedHandle *)self;
    if (handle_enter(h) < 0)
        return NULL;
    int error = ist_queue_join(queue_of(h), 0, NULL);
    if (error == -EAGAIN)
        error = wait_for(h, call_join, NULL, UINT64_MAX);
    if (error != 0)
        raise_queue_error(h, error, "Empty", "join");
    handle_leave(h);
    return error != 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *queue_shutdown(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"immediate"};
    static const signature parameters = {"shutdown", 1, 1, 0, names};
    SharedHandle *h = (SharedHandle *)self;
    PyObject *given[1];
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    const int immediate = given[0] == NULL ? 0 : PyObject_IsTrue(given[0]);
    if (immediate < 0 || handle_enter(h) < 0)
        return NULL;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = ist_queue_shutdown(queue_of(h), immediate != 0);
    Py_END_ALLOW_THREADS
    if (error != 0)
        raise_queue_error(h, error, "Empty", "shutdown");
    handle_leave(h);
    return error != 0 ? NULL : Py_NewRef(Py_None);
}

static int read_info(PyObject *self, ist_queue_info *info) {
    SharedHandle *h = (SharedHandle *)self;
    if (handle_enter(h) < 0)
        return -1;
    ist_queue_read_info(queue_of(h), info);
    handle_leave(h);
    return 0;
}

static PyObject *queue_qsize(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    ist_queue_info info;
    return read_info(self, &info) < 0 ? NULL : PyLong_FromUnsignedLongLong(info.size);
}

static PyObject *queue_empty(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    ist_queue_info info;
    return read_info(self, &info) < 0 ? NULL : PyBool_FromLong(info.size == 0);
}

static PyObject *queue_full(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    ist_queue_info info;
    return read_info(self, &info) < 0 ? NULL : PyBool_FromLong(info.size >= info.capacity);
}

static PyObject *queue_get_maxsize(PyObject *self, void *Py_UNUSED(closure)) {
    ist_queue_info info;
    return read_info(self, &info) < 0 ? NULL : PyLong_FromUnsignedLongLong(info.maxsize);
}

static PyObject *queue_get_is_shutdown(PyObject *self, void *Py_UNUSED(closure)) {
    ist_queue_info info;
    return read_info(self, &info) < 0 ? NULL : PyBool_FromLong(info.shutdown);
}

static PyObject *queue_get_unfinished(PyObject *self, void *Py_UNUSED(closure)) {
    ist_queue_info info;
    return read_info(self, &info) < 0 ? NULL : PyLong_FromUnsignedLongLong(info.unfinished);
}

static PyObject *queue_repr(PyObject *self) {
    ist_queue_info info;
    if (!handle_is_usable((SharedHandle *)self))
        return PyUnicode_FromString("<isthmus.Queue, released>");
    if (read_info(self, &info) < 0)
        return NULL;
    const ist_segment segment = ((SharedHandle *)self)->segment;
    PyObject *limit =
        info.maxsize == 0 ? PyUnicode_FromString("") : PyUnicode_FromFormat(", maxsize %llu", (unsigned long long)info.maxsize);
    PyObject *text = limit == NULL ? NULL
                                   : PyUnicode_FromFormat("<isthmus.Queue %u.%u, qsize %llu%U%s>", segment.index, segment.generation,
                                                          (unsigned long long)info.size, limit, info.shutdown ? ", shut down" : "");
    Py_XDECREF(limit);
    return text;
}

/* ---- asyncio ------------------------------------------------------------------------------------------------------------------------ */

/* A descriptor for one side of the queue; see ist_queue_fileno. */
static PyObject *fileno_of(PyObject *self, ist_queue_side side) {
    SharedHandle *h = (SharedHandle *)self;
    int fd = -1;
    if (handle_enter(h) < 0)
        return NULL;
    const int error = ist_queue_fileno_of(queue_of(h), side, &fd);
    if (error != 0)
        raise_queue_error(h, error, "Empty", "fileno");
    handle_leave(h);
    return error != 0 ? NULL : PyLong_FromLong(fd);
}

static PyObject *queue_fileno(PyObject *self, PyObject *Py_UNUSED(ignored)) { return fileno_of(self, IST_QUEUE_MESSAGES); }

static PyObject *queue_room_fileno(PyObject *self, PyObject *Py_UNUSED(ignored)) { return fileno_of(self, IST_QUEUE_ROOM); }

static PyObject *queue_done_fileno(PyObject *self, PyObject *Py_UNUSED(ignored)) { return fileno_of(self, IST_QUEUE_DONE); }

/* Whether there is room or all tasks are done; if not, that descriptor isn't readable from now on until there is. */
static PyObject *look(PyObject *self, ist_queue_side side) {
    SharedHandle *h = (SharedHandle *)self;
    if (handle_enter(h) < 0)
        return NULL;
    const int error = side == IST_QUEUE_ROOM ? ist_queue_await_room(queue_of(h), 0, NULL) : ist_queue_join(queue_of(h), 0, NULL);
    if (error != 0 && error != -EAGAIN)
        raise_queue_error(h, error, "Full", side == IST_QUEUE_ROOM ? "aput" : "ajoin");
    handle_leave(h);
    return error != 0 && error != -EAGAIN ? NULL : PyBool_FromLong(error == 0);
}

static PyObject *queue_has_room(PyObject *self, PyObject *Py_UNUSED(ignored)) { return look(self, IST_QUEUE_ROOM); }

static PyObject *queue_is_done(PyObject *self, PyObject *Py_UNUSED(ignored)) { return look(self, IST_QUEUE_DONE); }

/* What isthmus._queue makes of (self, …). */
static PyObject *call_helper(PyObject *self, const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *few[8] = {self};
    const Py_ssize_t all = nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
    if (all > 7)
        return PyErr_Format(PyExc_TypeError, "%s() takes fewer arguments (%zd given)", name, all);
    for (Py_ssize_t i = 0; i < all; i++)
        few[1 + i] = args[i];
    PyObject *function = helper(state_of_queue(self), name);
    PyObject *result = function == NULL ? NULL : PyObject_Vectorcall(function, few, (size_t)(1 + nargs), kwnames);
    Py_XDECREF(function);
    return result;
}

static PyObject *queue_aput(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    return call_helper(self, "aput", args, nargs, kwnames);
}

static PyObject *queue_aget(PyObject *self, PyObject *Py_UNUSED(ignored)) { return call_helper(self, "aget", NULL, 0, NULL); }

static PyObject *queue_ajoin(PyObject *self, PyObject *Py_UNUSED(ignored)) { return call_helper(self, "ajoin", NULL, 0, NULL); }

static PyObject *queue_aiter(PyObject *self) { return call_helper(self, "items", NULL, 0, NULL); }

/* ---- the type ----------------------------------------------------------------------------------------------------------------------- */

static PyObject *queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"maxsize", NULL};
    core_state *state = (core_state *)PyType_GetModuleState(type);
    PyObject *maxsize = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Queue", names, &maxsize))
        return NULL;
    Py_ssize_t limit = 0;
    if (maxsize != NULL) {
        limit = PyNumber_AsSsize_t(maxsize, NULL); /* clipped */
        if (limit == -1 && PyErr_Occurred())
            return NULL;
    }
    ist_queue *q;
    int error = ist_queue_create(limit < 0 ? 0 : (uint64_t)limit, &q);
    if (error != 0)
        return raise_error(state, error, "isthmus.Queue(%zd)", limit);
    ist_segment segment = ist_queue_segment(q);
    ist_segment_set_creator(segment, (uint64_t)state->interpreter);
    ist_segment_retain(segment);
    ist_queue_release(q);
    return handle_new(state, SHARE_QUEUE, segment, NULL, 0);
}

static const PyMethodDef own_methods[] = {
    {"put", KEYWORDS(queue_put),
     PyDoc_STR(
         "put($self, /, obj, block=True, timeout=None, *, transfer=(), fallback=None)\n--\n\n"
         "Puts a structured clone of obj at the end; arrays, queues and the like in it go by reference. Waits while the queue is\n"
         "full, at most timeout seconds (queue.Full then; None: no limit). ShutDown after shutdown(). transfer: arrays in obj whose references move along:\n"
         "these handles are detached then, and untouched if it fails. fallback=\"pickle\": what can't be cloned is pickled.")},
    {"get", KEYWORDS(queue_get),
     PyDoc_STR(
         "get($self, /, block=True, timeout=None)\n--\n\n"
         "Takes the first message. Waits while there is none, at most timeout seconds (queue.Empty then; None: no limit).\n"
         "ShutDown when the queue is shut down and empty. A message that can't be decoded here is gone, and the exception says why.")},
    {"put_nowait", KEYWORDS(queue_put_nowait),
     PyDoc_STR("put_nowait($self, /, obj, *, transfer=(), fallback=None)\n--\n\nput() that raises Full rather than wait.")},
    {"get_nowait", queue_get_nowait, METH_NOARGS, PyDoc_STR("get_nowait($self, /)\n--\n\nget() that raises Empty rather than wait.")},
    {"qsize", queue_qsize, METH_NOARGS, PyDoc_STR("qsize($self, /)\n--\n\nHow many messages there are, as of a moment.")},
    {"empty", queue_empty, METH_NOARGS, PyDoc_STR("empty($self, /)\n--\n\nqsize() == 0, as of a moment.")},
    {"full", queue_full, METH_NOARGS, PyDoc_STR("full($self, /)\n--\n\nWhether a put would wait, as of a moment.")},
    {"task_done", queue_task_done, METH_NOARGS,
     PyDoc_STR("task_done($self, /)\n--\n\nSays that a message that was got is dealt with; see join(). ValueError if called too often.")},
    {"join", queue_join, METH_NOARGS,
     PyDoc_STR("join($self, /)\n--\n\nWaits until task_done() was called for every message that was put.")},
    {"shutdown", KEYWORDS(queue_shutdown),
     PyDoc_STR(
         "shutdown($self, /, immediate=False)\n--\n\nFrom now on put() raises ShutDown, in whatever interpreter or process, and get()\n"
         "when the queue is empty; immediate: what is in it is dropped, each as a task done. Wakes whoever waits.")},
    {"fileno", queue_fileno, METH_NOARGS,
     PyDoc_STR(
         "fileno($self, /)\n--\n\nA descriptor that is readable while get_nowait() may succeed, now and then in vain. For select and\n"
         "loops; it isn't to be read or closed, and is closed with this handle.")},
    {"aput", KEYWORDS(queue_aput),
     PyDoc_STR("aput($self, /, obj, *, transfer=(), fallback=None)\n--\n\nput() for asyncio: to be awaited.")},
    {"aget", queue_aget, METH_NOARGS,
     PyDoc_STR("aget($self, /)\n--\n\nget() for asyncio: to be awaited. One that is cancelled has taken nothing.")},
    {"ajoin", queue_ajoin, METH_NOARGS, PyDoc_STR("ajoin($self, /)\n--\n\njoin() for asyncio: to be awaited.")},
    {"_room_fileno", queue_room_fileno, METH_NOARGS, NULL},
    {"_done_fileno", queue_done_fileno, METH_NOARGS, NULL},
    {"_has_room", queue_has_room, METH_NOARGS, NULL},
    {"_is_done", queue_is_done, METH_NOARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef methods[48];
static pthread_once_t merged = PTHREAD_ONCE_INIT;
static PyGetSetDef attributes[8] = {
    {"maxsize", queue_get_maxsize, NULL, PyDoc_STR("How many messages fit; 0: as many as there is room for."), NULL},
    {"is_shutdown", queue_get_is_shutdown, NULL, PyDoc_STR("Whether shutdown() was called."), NULL},
    {"unfinished_tasks", queue_get_unfinished, NULL, PyDoc_STR("How often task_done() has yet to be called, as of a moment."), NULL},
};

static void merge(void) {
    handle_merge_methods(methods, sizeof methods / sizeof *methods, own_methods);
    for (size_t i = 0; handle_attributes[i].name != NULL; i++)
        attributes[3 + i] = handle_attributes[i];
}

PyDoc_STRVAR(
    queue_doc,
    "Queue(maxsize=0)\n--\n\n"
    "queue.Queue between threads, interpreters and processes: whatever carries an array carries a queue.\n\n"
    "What is put arrives as a structured clone (isthmus.clone), with arrays, queues and locks by reference. Messages of one sender\n"
    "arrive in order, each once; they outlive their sender. maxsize <= 0: as many as there is room for, up to 16,777,216.\n"
    "The queue is there as long as any handle of it is; two handles of one queue are equal. Iteration ends with shutdown().");

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, (void *)queue_doc},
    {Py_tp_new, queue_new},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_repr, queue_repr},
    {Py_tp_richcompare, handle_richcompare},
    {Py_tp_hash, handle_hash},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, queue_next},
    {Py_am_aiter, queue_aiter},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {Py_tp_members, handle_members},
    {0, NULL},
};

/* Not a base type, as CPython looks up who may cross by the exact type. No GC flag: a handle refers to no object. */
static PyType_Spec queue_spec = {
    .name = "isthmus.Queue",
    .basicsize = sizeof(SharedHandle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = queue_slots,
};

int queue_init(PyObject *module, core_state *state) {
    pthread_once(&merged, merge);
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &queue_spec, NULL);
    state->handle_types[SHARE_QUEUE] = type;
    return type == NULL ? -1 : PyModule_AddType(module, type);
}
