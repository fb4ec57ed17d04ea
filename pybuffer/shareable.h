/* shareable.h: objects that cross interpreters and processes by reference and aren't arrays: each a handle of one segment, with nothing to
 * describe it but its kind and a few bytes (a *note*). Queue is one.
 *
 * A further kind needs
 *   a number: share_kind (core.h)            a type: its objects begin with SharedHandle; its _init sets state->handle_types[kind]
 *   a line in the table `shareables` (shareable.c): how a segment becomes such a handle's, how it is given up
 * and then goes by CPython's carriers, pickle, tokens and names, structured clone, queues and workers as an array does, is swept with its
 * interpreter and inherited through fork.
 *
 * Invariants (README.md, H1 to H3)
 *   h->own != NULL  <=>  the handle owns exactly one counted reference of its segment; it is given up once, by handle_drop
 *   uses > 0  =>  own stays, whatever anybody releases; whoever leaves last drops it if the handle was released meanwhile
 */
#ifndef ISTHMUS_SHAREABLE_H
#define ISTHMUS_SHAREABLE_H

#include "array.h"

#include <isthmus/queue.h>

#define SHARE_NOTE 16 /* bytes at most */

/* Somebody who waits without the GIL in a call on the handle: release() calls it off. On the stack of its thread. */
typedef struct handle_waiter {
    ist_waiter stop;
    struct handle_waiter *next, **link;
} handle_waiter;

struct SharedHandle {
    PyObject_HEAD
    PyObject *weakrefs;
    void *own;             /* the kind's: what owns the reference; NULL: dropped */
    ist_segment segment;   /* view; kept after the drop, as it says which it was: for == and hash() */
    uint32_t epoch;        /* ist_epoch() of its making, as an array's */
    uint32_t uses;         /* calls that are inside. Guarded, as all below, by the GIL or the object's critical section */
    uint8_t kind;          /* share_kind */
    bool released;
    handle_waiter *waiters;
    ist_block *block;      /* counted; NULL: not in a block (any more) */
    SharedHandle *previous, *next; /* the block's list; guarded by the block's */
};

/* What a kind does. */
typedef struct shareable {
    const char *name; /* the type's */
    /* Makes h->own of a reference of a segment, which it takes on success alone; segment and note may be anything. 0 or a negative errno
     * (-EINVAL: that is none of this kind). Runs no Python code. */
    int (*open)(SharedHandle *h, ist_segment segment, const unsigned char *note, size_t size);
    /* Gives h->own up. Plain C: also in the sweep and in the child of a fork. */
    void (*drop)(SharedHandle *h);
    /* Writes at most SHARE_NOTE bytes that the receiver's open gets; how many. NULL: none. */
    size_t (*note)(const SharedHandle *h, unsigned char note[SHARE_NOTE]);
    /* -1 with an exception: this one can't cross. NULL: all can. */
    int (*may_cross)(SharedHandle *h);
} shareable;

extern const shareable shareables[SHARE_KINDS]; /* [SHARE_ARRAY] is empty: arrays have their own way */

/* The kind of an object that crosses by reference (SHARE_ARRAY: an array); -1: it is none. */
static inline int share_kind_of(const core_state *state, const PyTypeObject *type) {
    if (type == state->array_type)
        return SHARE_ARRAY;
    for (int kind = SHARE_ARRAY + 1; kind < SHARE_KINDS; kind++)
        if (type == state->handle_types[kind])
            return kind;
    return -1;
}

/* A new handle of that kind. Takes `segment`, on failure too. NULL with an exception. */
PyObject *handle_new(core_state *state, share_kind kind, ist_segment segment, const unsigned char *note, size_t size);

static inline bool handle_is_usable(const SharedHandle *h) { return !h->released && h->own != NULL && h->epoch == ist_epoch(); }

/* Begins a call on the handle: its `own` stays until handle_leave. -1 with DetachedError. */
int handle_enter_slow(SharedHandle *h);
void handle_leave_slow(SharedHandle *h);
static inline int handle_enter(SharedHandle *h) {
#ifndef Py_GIL_DISABLED
    if (__builtin_expect(handle_is_usable(h), 1)) {
        h->uses++;
        return 0;
    }
#endif
    return handle_enter_slow(h);
}
static inline void handle_leave(SharedHandle *h) {
#ifndef Py_GIL_DISABLED
    if (__builtin_expect(!h->released, 1)) {
        h->uses--;
        return;
    }
#endif
    handle_leave_slow(h);
}
/* Around a wait without the GIL, within enter and leave: release() of the handle stops the waiter (-ECANCELED). */
void handle_wait_begin(SharedHandle *h, handle_waiter *waiter);
void handle_wait_end(SharedHandle *h, handle_waiter *waiter);
int handle_raise_detached(SharedHandle *h); /* -1 with DetachedError, which says why */

/* Ends the handle; idempotent, always succeeds. Whoever is inside keeps what it uses, and waits no longer. */
void handle_release(SharedHandle *h);
void handle_drop(SharedHandle *h); /* gives `own` up, if it is there and this process's */

/* For the types' slots and methods. */
void handle_dealloc(PyObject *self);
PyObject *handle_richcompare(PyObject *self, PyObject *other, int op); /* == : of the same segment */
Py_hash_t handle_hash(PyObject *self);
/* Tables of methods, NULL behind the last, one after the other: a type's own. Once per process, as it outlives the types. */
void merge_methods(PyMethodDef *out, size_t room, const PyMethodDef *const *tables);
/* What all kinds have (release, with, token, publish, __reduce__, copies), then its own. */
void handle_merge_methods(PyMethodDef *out, size_t room, const PyMethodDef *own);
extern const PyMethodDef handle_copy_methods[]; /* of those: copies alone, for kinds whose release() and `with` are others */
extern PyMemberDef handle_members[];
extern PyGetSetDef handle_attributes[];

/* ---- waiting ----------------------------------------------------------------------------------------------------------------------- */

/* How long a wait may go on before Python code that is due runs: an exception that another thread has sent to a sleeper, for instance. */
#define PATIENCE_NS UINT64_C(100000000)

uint64_t monotonic_ns(void);
/* The deadline that is `seconds` from now, for what libisthmus waits for; UINT64_MAX if that is beyond its clock. seconds >= 0. */
uint64_t deadline_after(double seconds);
/* Signal handlers run, and an exception that another thread has sent (PyThreadState_SetAsyncExc) is raised. -1 with an exception. */
int let_python_run(void);

#endif
