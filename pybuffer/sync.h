/* sync.h: what the types over <isthmus/lock.h> share: Lock, RLock, Condition (lock.c, condition.c), Semaphore, BoundedSemaphore, Event (signal.c),
 * Barrier (barrier.c). */
#ifndef ISTHMUS_SYNC_INTERNAL_H
#define ISTHMUS_SYNC_INTERNAL_H

#include "shareable.h"

#include <isthmus/lock.h>

static inline ist_sync *sync_of(SharedHandle *h) { return h->own; }
static inline core_state *state_of_sync(PyObject *self) { return (core_state *)PyType_GetModuleState(Py_TYPE(self)); }

int sync_init(PyObject *module, core_state *state); /* all types */

/* ---- for the table of kinds (shareable.c) */
int lock_open(SharedHandle *h, ist_segment segment, const unsigned char *note, size_t size);
int rlock_open(SharedHandle *h, ist_segment segment, const unsigned char *note, size_t size);
int semaphore_open(SharedHandle *h, ist_segment segment, const unsigned char *note, size_t size);
int event_open(SharedHandle *h, ist_segment segment, const unsigned char *note, size_t size);
int condition_open(SharedHandle *h, ist_segment segment, const unsigned char *note, size_t size);
size_t condition_note(const SharedHandle *h, unsigned char note[SHARE_NOTE]);
int barrier_open(SharedHandle *h, ist_segment segment, const unsigned char *note, size_t size);
size_t barrier_note(const SharedHandle *h, unsigned char note[SHARE_NOTE]);
int barrier_may_cross(SharedHandle *h);
void sync_drop(SharedHandle *h);

/* ---- sync.c */

/* h->own of a segment that is one of `type`, or (rlocks too) a lock of either; what open has to do. */
int sync_open(SharedHandle *h, ist_segment segment, ist_sync_type type);
/* A new handle of a new one. NULL with an exception. */
PyObject *sync_new(core_state *state, share_kind kind, ist_sync_type type, uint64_t value, uint64_t limit, const unsigned char *note,
                   size_t size);
/* The methods of a type: those by which it crosses, and its own. Not release() and `with`, which mean something else here. */
void sync_merge_methods(PyMethodDef *out, size_t room, const PyMethodDef *own);
/* The same with `async with`, and what that stands on: for those that are acquired. */
void sync_merge_acquired(PyMethodDef *out, size_t room, const PyMethodDef *own);
/* Type and its place in the state. */
int sync_add_type(PyObject *module, core_state *state, share_kind kind, PyType_Spec *spec);

typedef int (*sync_call)(ist_sync *s, void *argument, ist_waiting *w);
/* Calls until it is done, without the GIL, stopping now and then for what Python has to do. The caller has entered the handle. Returns what
 * the call does; -EINTR: an exception is set. `begun`: what earlier calls have waited. */
int sync_wait(SharedHandle *h, sync_call call, void *argument, uint64_t deadline, ist_waiting *begun);

/* (blocking, timeout) of _thread.lock's acquire: timeout -1 is none. *deadline 0: doesn't wait. -1 with an exception. */
int acquire_deadline(PyObject *blocking, PyObject *timeout, uint64_t *deadline);
/* timeout of threading's own classes: None is none, and what isn't above 0 doesn't wait. */
int wait_deadline(PyObject *timeout, uint64_t *deadline);

/* A snapshot; -1 with DetachedError. */
int sync_read_info(PyObject *self, ist_sync_info *info);
/* A call that has no arguments and doesn't wait, as a method: None. */
PyObject *sync_call_plain(PyObject *self, int (*call)(ist_sync *), const char *function);

/* A negative errno as an exception; -EINTR: one is set. Always NULL. */
PyObject *raise_sync_error(SharedHandle *h, int error, const char *function);
void raise_abandoned(SharedHandle *h);

/* ---- lock.c */

/* Takes a lock so often, if it is an RLock that this thread hasn't: a sync_call. */
typedef struct lock_taking {
    uint32_t holder, count;
} lock_taking;
int lock_take(ist_sync *s, void *taking, ist_waiting *w);
/* A negative errno of giving a lock back as an exception. */
void raise_unlock_error(SharedHandle *h, int error, const char *function);
PyObject *lock_method_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *lock_method_release(PyObject *self, PyObject *ignored);
PyObject *lock_method_locked(PyObject *self, PyObject *ignored);
PyObject *lock_method_enter(PyObject *self, PyObject *ignored);
PyObject *lock_method_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
int locks_init(PyObject *module, core_state *state);
int condition_init(PyObject *module, core_state *state);
int signals_init(PyObject *module, core_state *state);
int barrier_init(PyObject *module, core_state *state);

#endif
