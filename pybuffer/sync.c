/* sync.c: what all types over <isthmus/lock.h> share: their handles, waiting, timeouts, errors, asyncio.
 *
 * Relies on: shareable.c for the handle; isthmus._lock for asyncio.
 *
 * Invariants (README.md, L1 to L3)
 *   Whoever waits has no GIL, is within handle_enter, and is in the handle's list of waiters.
 *   A call that raises hasn't acquired anything; but for Condition.wait, which has its lock again whatever it raises.
 *   What can be had at once is had under the GIL: no call into libisthmus needs one, so nobody waits for us meanwhile.
 */
#include "sync.h"

#include <math.h>

/* ---- handles ------------------------------------------------------------------------------------------------------------------------ */

int sync_open(SharedHandle *h, ist_segment segment, ist_sync_type type) {
    ist_sync *s;
    int error = ist_sync_open(segment, &s);
    if (error != 0)
        return error;
    if (ist_sync_type_of(s) != type) {
        ist_segment_retain(segment); /* the caller's reference isn't taken */
        ist_sync_close(s);
        return -EINVAL;
    }
    h->own = s;
    return 0;
}

void sync_drop(SharedHandle *h) { ist_sync_close(sync_of(h)); }

PyObject *sync_new(core_state *state, share_kind kind, ist_sync_type type, uint64_t value, uint64_t limit, const unsigned char *note,
                   size_t size) {
    ist_sync *s;
    int error = ist_sync_create(type, value, limit, &s);
    if (error != 0)
        return raise_error(state, error, "isthmus.%s", shareables[kind].name);
    ist_segment segment = ist_sync_segment(s);
    ist_segment_set_creator(segment, (uint64_t)state->interpreter);
    ist_segment_retain(segment);
    ist_sync_close(s);
    return handle_new(state, kind, segment, note, size);
}

int sync_add_type(PyObject *module, core_state *state, share_kind kind, PyType_Spec *spec) {
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    state->handle_types[kind] = type;
    return type == NULL ? -1 : PyModule_AddType(module, type);
}

int sync_init(PyObject *module, core_state *state) {
    return locks_init(module, state) < 0 || condition_init(module, state) < 0 || signals_init(module, state) < 0 ||
                   barrier_init(module, state) < 0
               ? -1
               : 0;
}

/* ---- errors ------------------------------------------------------------------------------------------------------------------------- */

void raise_abandoned(SharedHandle *h) {
    PyErr_Format(
        state_of_sync((PyObject *)h)->LockAbandonedError,
        "whoever held this %s is gone: its process was killed, its interpreter or thread ended, or its last handle went. What the lock "
        "protects may be half done",
        shareables[h->kind].name);
}

PyObject *raise_sync_error(SharedHandle *h, int error, const char *function) {
    switch (error) {
    case -EINTR: break; /* an exception is set */
    case -EOWNERDEAD: raise_abandoned(h); break;
    case -ECANCELED: handle_raise_detached(h); break;
    default: raise_error(state_of_sync((PyObject *)h), error, "isthmus.%s.%s", shareables[h->kind].name, function);
    }
    return NULL;
}

/* ---- waiting ------------------------------------------------------------------------------------------------------------------------ */

int sync_wait(SharedHandle *h, sync_call call, void *argument, uint64_t deadline, ist_waiting *begun) {
    handle_waiter waiter;
    ist_waiting own = {0}, *w = begun != NULL ? begun : &own;
    int error;
    handle_wait_begin(h, &waiter);
    w->deadline = deadline;
    w->patience = PATIENCE_NS;
    w->waiter = &waiter.stop;
    do {
        Py_BEGIN_ALLOW_THREADS
        error = call(sync_of(h), argument, w);
        Py_END_ALLOW_THREADS
    } while (error == -EINTR && let_python_run() == 0);
    handle_wait_end(h, &waiter);
    w->waiter = NULL;
    return error;
}

#define TIMEOUT_MOST 9223372036.0 /* threading.TIMEOUT_MAX, about */

/* seconds > 0. */
static int deadline_in(double seconds, uint64_t *deadline) {
    if (seconds > TIMEOUT_MOST) {
        PyErr_SetString(PyExc_OverflowError, "timeout value is too large");
        return -1;
    }
    *deadline = deadline_after(seconds);
    return 0;
}

int acquire_deadline(PyObject *blocking, PyObject *timeout, uint64_t *deadline) {
    const int waits = blocking == NULL ? 1 : PyObject_IsTrue(blocking);
    const double seconds = waits < 0 || timeout == NULL ? -1 : PyFloat_AsDouble(timeout);
    *deadline = UINT64_MAX;
    if (waits < 0 || (seconds == -1.0 && PyErr_Occurred()))
        return -1;
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "Invalid value NaN (not a number)");
        return -1;
    }
    if (!waits) {
        *deadline = 0;
        if (seconds == -1)
            return 0;
        PyErr_SetString(PyExc_ValueError, "can't specify a timeout for a non-blocking call");
        return -1;
    }
    if (seconds == -1)
        return 0;
    if (seconds < 0) {
        PyErr_Format(PyExc_ValueError, "timeout value must be a non-negative number, not %R", timeout);
        return -1;
    }
    if (seconds > 0)
        return deadline_in(seconds, deadline);
    *deadline = 0;
    return 0;
}

int wait_deadline(PyObject *timeout, uint64_t *deadline) {
    *deadline = UINT64_MAX;
    if (timeout == NULL || timeout == Py_None)
        return 0;
    const double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (seconds > 0)
        return deadline_in(seconds, deadline);
    *deadline = 0;
    return 0;
}

/* ---- calls that don't wait ----------------------------------------------------------------------------------------------------------- */

int sync_read_info(PyObject *self, ist_sync_info *info) {
    SharedHandle *h = (SharedHandle *)self;
    if (handle_enter(h) < 0)
        return -1;
    ist_sync_read_info(sync_of(h), info);
    handle_leave(h);
    return 0;
}

PyObject *sync_call_plain(PyObject *self, int (*call)(ist_sync *), const char *function) {
    SharedHandle *h = (SharedHandle *)self;
    if (handle_enter(h) < 0)
        return NULL;
    const int error = call(sync_of(h));
    if (error != 0)
        raise_sync_error(h, error, function);
    handle_leave(h);
    return error != 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- asyncio ------------------------------------------------------------------------------------------------------------------------ */

/* What isthmus._lock makes of it. */
static PyObject *call_helper(PyObject *self, const char *name) {
    core_state *state = state_of_sync(self);
    if (state->lock_helpers == NULL)
        state->lock_helpers = PyImport_ImportModule("isthmus._lock");
    return state->lock_helpers == NULL ? NULL : PyObject_CallMethod(state->lock_helpers, name, "O", self);
}

static PyObject *method_aenter(PyObject *self, PyObject *Py_UNUSED(ignored)) { return call_helper(self, "enter"); }

static PyObject *method_aexit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs)) {
    return call_helper(self, "leave");
}

static PyObject *method_fileno(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedHandle *h = (SharedHandle *)self;
    int fd = -1;
    if (handle_enter(h) < 0)
        return NULL;
    const int error = ist_sync_fileno(sync_of(h), &fd);
    if (error != 0)
        raise_sync_error(h, error, "_fileno");
    handle_leave(h);
    return error != 0 ? NULL : PyLong_FromLong(fd);
}

/* Its descriptor isn't readable any more: look once more. */
static PyObject *method_clear(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedHandle *h = (SharedHandle *)self;
    if (handle_enter(h) < 0)
        return NULL;
    ist_sync_clear(sync_of(h));
    handle_leave(h);
    Py_RETURN_NONE;
}

/* It is again, if there is something: for others that wait. */
static PyObject *method_tell(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedHandle *h = (SharedHandle *)self;
    if (handle_enter(h) < 0)
        return NULL;
    ist_sync_tell(sync_of(h));
    handle_leave(h);
    Py_RETURN_NONE;
}

static const PyMethodDef async_methods[] = {
    {"__aenter__", method_aenter, METH_NOARGS, NULL}, {"__aexit__", FAST(method_aexit), NULL},
    {"_fileno", method_fileno, METH_NOARGS, NULL},    {"_clear", method_clear, METH_NOARGS, NULL},
    {"_tell", method_tell, METH_NOARGS, NULL},        {NULL, NULL, 0, NULL},
};

/* ---- tables of methods ------------------------------------------------------------------------------------------------------------------ */

void sync_merge_methods(PyMethodDef *out, size_t room, const PyMethodDef *own) {
    merge_methods(out, room, (const PyMethodDef *const[]){handle_copy_methods, message_methods, pickle_methods, own, NULL});
}

void sync_merge_acquired(PyMethodDef *out, size_t room, const PyMethodDef *own) {
    merge_methods(out, room, (const PyMethodDef *const[]){handle_copy_methods, message_methods, pickle_methods, async_methods, own, NULL});
}
