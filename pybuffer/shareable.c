/* shareable.c: handles of segments that aren't arrays: the table of kinds, a handle's life, and what all of them have in common.
 *
 * Relies on: message.c for the ways they travel; interp.c's list for the sweep. A release by another thread finds `uses` and leaves the drop
 * to the last one inside, which it wakes.
 */
#include "shareable.h"

#include "queue.h"
#include "sync.h"

#include <stddef.h>
#include <structmember.h>
#include <time.h>

const shareable shareables[SHARE_KINDS] = {
    [SHARE_QUEUE] = {"Queue", queue_open, queue_drop, NULL, NULL},
    [SHARE_LOCK] = {"Lock", lock_open, sync_drop, NULL, NULL},
    [SHARE_RLOCK] = {"RLock", rlock_open, sync_drop, NULL, NULL},
    [SHARE_CONDITION] = {"Condition", condition_open, sync_drop, condition_note, NULL},
    [SHARE_SEMAPHORE] = {"Semaphore", semaphore_open, sync_drop, NULL, NULL},
    [SHARE_BOUNDED_SEMAPHORE] = {"BoundedSemaphore", semaphore_open, sync_drop, NULL, NULL},
    [SHARE_EVENT] = {"Event", event_open, sync_drop, NULL, NULL},
    [SHARE_BARRIER] = {"Barrier", barrier_open, sync_drop, barrier_note, barrier_may_cross},
};

static core_state *state_of_handle(SharedHandle *h) { return (core_state *)PyType_GetModuleState(Py_TYPE(h)); }

static const shareable *kind_of(SharedHandle *h) { return &shareables[h->kind]; }

/* The object's lock where there is no GIL. */
#ifdef Py_GIL_DISABLED
#  define LOCK(h) Py_BEGIN_CRITICAL_SECTION(h)
#  define UNLOCK() Py_END_CRITICAL_SECTION()
#else
#  define LOCK(h) (void)(h)
#  define UNLOCK() (void)0
#endif

/* ---- life -------------------------------------------------------------------------------------------------------------------------- */

PyObject *handle_new(core_state *state, share_kind kind, ist_segment segment, const unsigned char *note, size_t size) {
    PyTypeObject *type = state->handle_types[kind];
    SharedHandle *h = (SharedHandle *)type->tp_alloc(type, 0); /* zeroed */
    int error = h == NULL ? -ENOMEM : 0;
    if (h != NULL) {
        h->kind = (uint8_t)kind;
        error = shareables[kind].open(h, segment, note, size);
    }
    if (error != 0) {
        ist_segment_release(segment);
        if (h == NULL)
            return NULL;
        Py_DECREF((PyObject *)h);
        if (error == -EINVAL)
            return PyErr_Format(PyExc_ValueError, "not a token of a %s: its segment is something else", shareables[kind].name);
        return raise_error(state, error, "receiving a %s", shareables[kind].name);
    }
    h->segment = segment;
    h->epoch = ist_epoch();
    if (block_add_handle(state->block, h) < 0) {
        Py_DECREF((PyObject *)h);
        return NULL;
    }
    return (PyObject *)h;
}

void handle_drop(SharedHandle *h) {
    void *own = h->own;
    if (own == NULL)
        return;
    if (h->epoch == ist_epoch())
        kind_of(h)->drop(h);
    h->own = NULL;
}

void handle_dealloc(PyObject *self) {
    SharedHandle *h = (SharedHandle *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (h->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    block_remove_handle(h);
    handle_drop(h);
    type->tp_free(self);
    Py_DECREF((PyObject *)type);
}

int handle_raise_detached(SharedHandle *h) {
    core_state *state = state_of_handle(h);
    PyObject *class = state != NULL && state->DetachedError != NULL ? state->DetachedError : PyExc_ValueError;
    const char *name = kind_of(h)->name;
    if (h->released || h->epoch == ist_epoch())
        PyErr_Format(class, "this %s was released and can't be used any more", name);
    else
        PyErr_Format(class, "this %s belongs to the parent process: it was inherited through a fork that couldn't make it the child's, too",
                     name);
    return -1;
}

int handle_enter_slow(SharedHandle *h) {
    bool usable;
    LOCK(h);
    usable = handle_is_usable(h);
    h->uses += usable;
    UNLOCK();
    return usable ? 0 : handle_raise_detached(h);
}

void handle_leave_slow(SharedHandle *h) {
    bool last;
    LOCK(h);
    last = --h->uses == 0 && h->released;
    UNLOCK();
    if (last) { /* nobody enters any more */
        block_remove_handle(h);
        handle_drop(h);
    }
}

void handle_wait_begin(SharedHandle *h, handle_waiter *waiter) {
    waiter->stop = (ist_waiter){{0, 0}};
    LOCK(h);
    waiter->next = h->waiters;
    waiter->link = &h->waiters;
    if (h->waiters != NULL)
        h->waiters->link = &waiter->next;
    h->waiters = waiter;
    if (h->released)
        ist_waiter_stop(&waiter->stop);
    UNLOCK();
}

void handle_wait_end(SharedHandle *h, handle_waiter *waiter) {
    LOCK(h);
    *waiter->link = waiter->next;
    if (waiter->next != NULL)
        waiter->next->link = waiter->link;
    UNLOCK();
}

void handle_release(SharedHandle *h) {
    bool last;
    LOCK(h);
    last = !h->released && h->uses == 0;
    h->released = true;
    for (handle_waiter *w = h->waiters; w != NULL; w = w->next)
        ist_waiter_stop(&w->stop);
    UNLOCK();
    if (last) {
        block_remove_handle(h);
        handle_drop(h);
    }
}

/* ---- methods of all kinds ---------------------------------------------------------------------------------------------------------- */

PyObject *handle_richcompare(PyObject *self, PyObject *other, int op) {
    if ((op != Py_EQ && op != Py_NE) || !Py_IS_TYPE(other, Py_TYPE(self)))
        Py_RETURN_NOTIMPLEMENTED;
    const ist_segment a = ((SharedHandle *)self)->segment, b = ((SharedHandle *)other)->segment;
    return PyBool_FromLong((a.slot == b.slot && a.generation == b.generation) == (op == Py_EQ));
}

Py_hash_t handle_hash(PyObject *self) {
    const ist_segment s = ((SharedHandle *)self)->segment; /* a generation is never used again */
    return (Py_hash_t)(((uint64_t)s.index << 32 | s.generation) % ((UINT64_C(1) << 61) - 1));
}

static PyObject *method_release(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    handle_release((SharedHandle *)self);
    Py_RETURN_NONE;
}

static PyObject *method_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return handle_is_usable((SharedHandle *)self) ? Py_NewRef(self) : (handle_raise_detached((SharedHandle *)self), NULL);
}

static PyObject *method_exit(PyObject *self, PyObject *Py_UNUSED(arguments)) {
    handle_release((SharedHandle *)self);
    Py_RETURN_NONE;
}

/* Another handle of the same: what a message takes along, so that the sender may release its own. */
static PyObject *method_handle(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    core_state *state = state_of_handle((SharedHandle *)self);
    ist_message *message = message_from_object(state, self);
    return message == NULL ? NULL : message_receive(state, message);
}

static PyObject *method_deepcopy(PyObject *self, PyObject *Py_UNUSED(memo)) { return method_handle(self, NULL); }

static const PyMethodDef handle_methods[] = {
    {"release", method_release, METH_NOARGS,
     PyDoc_STR(
         "release($self, /)\n--\n\nEnds this handle; any later use raises DetachedError, also for whoever waits in one of its methods.")},
    {"__enter__", method_enter, METH_NOARGS, NULL},
    {"__exit__", method_exit, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

const PyMethodDef handle_copy_methods[] = {
    {"_handle", method_handle, METH_NOARGS, NULL},
    {"__copy__", method_handle, METH_NOARGS, NULL},
    {"__deepcopy__", method_deepcopy, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

void merge_methods(PyMethodDef *out, size_t room, const PyMethodDef *const *tables) {
    size_t n = 0;
    for (; *tables != NULL; tables++)
        for (const PyMethodDef *m = *tables; m->ml_name != NULL && n < room - 1; m++)
            out[n++] = *m;
    out[n] = (PyMethodDef){NULL, NULL, 0, NULL};
}

void handle_merge_methods(PyMethodDef *out, size_t room, const PyMethodDef *own) {
    merge_methods(out, room, (const PyMethodDef *const[]){handle_methods, handle_copy_methods, message_methods, pickle_methods, own, NULL});
}

static PyObject *get_detached(PyObject *self, void *Py_UNUSED(closure)) { return PyBool_FromLong(!handle_is_usable((SharedHandle *)self)); }

static PyObject *get_segment(PyObject *self, void *Py_UNUSED(closure)) {
    SharedHandle *h = (SharedHandle *)self;
    ist_segment_info info;
    if (handle_enter(h) < 0)
        return NULL;
    ist_segment_read_info(h->segment, &info);
    handle_leave(h);
    return segment_info_new(state_of_handle(h), &info, -1);
}

PyGetSetDef handle_attributes[] = {
    {"detached", get_detached, NULL, PyDoc_STR("Whether this handle was released: it can't be used any more."), NULL},
    {"segment", get_segment, NULL, PyDoc_STR("What the library knows of its segment: a SegmentInfo."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMemberDef handle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(SharedHandle, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- waiting ----------------------------------------------------------------------------------------------------------------------- */

uint64_t monotonic_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t deadline_after(double seconds) {
    return seconds < 9e9 ? monotonic_ns() + (uint64_t)(seconds * 1e9) : UINT64_MAX; /* beyond that: 285 years, which is no limit */
}

int let_python_run(void) {
    if (PyErr_CheckSignals() < 0)
        return -1;
    /* only the evaluation loop raises what was sent, so it gets something to evaluate */
    PyObject *nothing = Py_CompileString("None", "<isthmus>", Py_eval_input), *globals = PyDict_New(), *result = NULL;
    if (nothing != NULL && globals != NULL)
        result = PyEval_EvalCode(nothing, globals, globals);
    Py_XDECREF(nothing);
    Py_XDECREF(globals);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
