/* core.h: what the files of isthmus._core share: the objects, who guards which field, and each file's face to the others.
 *
 * Layer 2 of the design (README.md beside this file has the numbered invariants): one SharedArray that is a *root owner* owns one
 * counted reference of a segment; every further view and buffer inside the interpreter hangs on the root by ordinary Python references
 * and is counted in the root's `hold`, without an atomic operation. Crossing makes a new root with a counted reference of its own.
 */
#ifndef ISTHMUS_CORE_H
#define ISTHMUS_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <isthmus/isthmus.h>
#include <isthmus/segment_inline.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define IST_MAX_NDIM 64

/* ---- dtype.c: kinds of element ------------------------------------------------------------------------------------------------- */

/* Up to IST_NUMBERS: what the loops over elements are made for, in native byte order. The order is part of no file format. */
typedef enum ist_type_code {
    IST_BOOL,
    IST_I1,
    IST_U1,
    IST_I2,
    IST_U2,
    IST_I4,
    IST_U4,
    IST_I8,
    IST_U8,
    IST_F2,
    IST_F4,
    IST_F8,
    IST_C8,
    IST_C16,
    IST_NUMBERS,
    IST_LONG = IST_NUMBERS, /* long double */
    IST_CLONG,              /* complex of two */
    IST_BYTES,              /* S: bytes, filled up with zeros */
    IST_TEXT,               /* U: code points of 4 bytes, filled up with zeros */
    IST_VOID,               /* V: bytes as they are */
    IST_DATETIME,           /* M: int64, a number of units since 1970 */
    IST_TIMEDELTA,          /* m: int64, a number of units */
    IST_STRUCT,             /* V with fields */
    IST_SUBARRAY,           /* several of another: a field's dtype, never an array's */
    IST_TYPE_CODES
} ist_type_code;

typedef struct DTypeObject DTypeObject;
typedef struct ist_field {
    PyObject *name; /* str */
    DTypeObject *dtype;
    Py_ssize_t offset;
} ist_field;

/* isthmus.dtype: immutable. The native numbers are one object per interpreter; of the others equal ones may be several: dtype_same(). */
struct DTypeObject {
    PyObject_HEAD
    ist_type_code code;
    char kind;            /* numpy's: b i u f c S U V M m */
    bool swapped;         /* numbers, text and times in the other byte order */
    bool aligned;         /* a struct made with align=True */
    bool gaps;            /* bytes that are no field's, also inside of fields */
    unsigned char unit;   /* times: enum ist_unit (times.h) and how many of it */
    int32_t count;
    int depth;            /* of nesting: 0 without fields */
    Py_ssize_t itemsize;  /* bytes; 0 only for S, U and V without a length */
    Py_ssize_t alignment; /* as a C compiler would have it */
    const char *str;      /* numpy's string, "<f8"; "|V16" for a struct */
    const char *spec;     /* all of it in one text. For those without fields it is str */
    const char *layout;   /* the same without saying which structs were made with align=True: equal dtypes have equal ones */
    char *own[2];         /* where these lie, if they aren't static */
    const char *plain;    /* native numbers: PEP 3118's format for aligned memory */
    _Atomic(char *) formats[5]; /* PEP 3118's, for memory aligned to 1, 2, 4, 8, 16 bytes; made when asked for, owned */
    Py_ssize_t nfields;   /* structs */
    ist_field *fields;
    DTypeObject *base;    /* sub-arrays: of what, and how many */
    int sub_ndim;
    Py_ssize_t *sub_shape;
};

/* A number whose elements the loops can take as they are. */
static inline bool dtype_is_native(const DTypeObject *d) { return d->code < IST_NUMBERS && !d->swapped; }
static inline bool dtype_same(const DTypeObject *a, const DTypeObject *b) {
    return a == b || (!(dtype_is_native(a) && dtype_is_native(b)) && strcmp(a->layout, b->layout) == 0);
}
static inline DTypeObject *dtype_ref(const DTypeObject *d) { return (DTypeObject *)Py_NewRef((PyObject *)(uintptr_t)d); }

/* ---- interp.c: one block per interpreter --------------------------------------------------------------------------------------- */

typedef struct SharedArrayObject SharedArrayObject;

/* Counted; held by the capsule in the interpreter's dict, by each module state and by every root owner in its list. Its memory is
 * never given back, only claimed by a later interpreter once nobody holds it; so a stale pointer reads a block, if not its own. */
typedef struct ist_block ist_block;

/* The head of a block, for the inline function below. Written by the interpreter's own threads only, read by stats() of any. */
struct ist_block_counts {
    _Atomic(int64_t) exports;
};

/* ---- array.c: SharedArray ------------------------------------------------------------------------------------------------------ */

/* hold: who stands on a root, besides the root's own handle.
 *   63 released (the handle's own reference is given up) | 62 exclusive (freeze, make_writable under way)
 *   | 61…32 writable exports + writing pins | 31…0 views + read-only exports + reading pins
 * The step that leaves exactly {released} drops the segment reference, once. Plain under a GIL, atomic when free-threaded.
 * The top bit of either count is never reached: it makes hold_enter fail instead of overflowing. */
#ifdef Py_GIL_DISABLED
typedef _Atomic(uint64_t) ist_hold;
typedef _Atomic(uint32_t) ist_flags;
#else
typedef uint64_t ist_hold;
typedef uint32_t ist_flags;
#endif
#define HOLD_SHARED UINT64_C(1)
#define HOLD_WRITER (UINT64_C(1) << 32)
#define HOLD_EXCLUSIVE (UINT64_C(1) << 62)
#define HOLD_RELEASED (UINT64_C(1) << 63)
#define HOLD_COUNTS (HOLD_EXCLUSIVE - 1)
#define HOLD_WRITERS (HOLD_COUNTS & ~(HOLD_WRITER - 1))
/* what hold_enter doesn't settle inline: no common entry has one of these bits */
#define HOLD_RARE (HOLD_RELEASED | HOLD_EXCLUSIVE | (HOLD_EXCLUSIVE >> 1) | (HOLD_WRITER >> 1))

/* flags of a handle */
/* READONLY: this handle and everything derived from it; a handle of a frozen or read-only segment has it from birth, and is also read-only
 * as soon as its root is */
#define ARRAY_READONLY 1u
#define ARRAY_C_CONTIGUOUS 2u
#define ARRAY_F_CONTIGUOUS 4u
#define ARRAY_RELEASED 8u  /* release(), or the end of the interpreter: any further use raises DetachedError */
#define ARRAY_FROZEN 16u   /* root only: its segment is frozen */
#define ARRAY_TRACKS 64u   /* its length along the first axis is the segment's, whatever dims says: see grow.c */
#define ARRAY_LENT 32u     /* root only: a raw address was given out; its pin stays until the root's dealloc */

struct SharedArrayObject {
    PyObject_VAR_HEAD           /* ob_size = 2 * ndim: shape, then strides, inline in dims */
    SharedArrayObject *root;    /* strong; NULL: this is a root owner */
    char *data;                 /* first element (not the lowest address: strides may be negative) */
    DTypeObject *dtype;         /* strong */
    Py_ssize_t nbytes;          /* elements * itemsize */
    ist_flags flags;            /* see array_flags, array_set_flags */
    int32_t ndim;
    PyObject *weakrefs;
    /* root owners only */
    ist_hold hold;
    ist_segment segment;        /* one counted reference, until dropped: then slot = NULL */
    char *start;                /* the segment's first byte, in a mapping that can't be written if the root came read-only from another
                                 * process: what the root's data and all offsets count from */
    uint32_t epoch;             /* ist_epoch() of its making: another value now means a forked child that doesn't own it; 0: array_detach
                                 * was here */
    ist_flags views;            /* how many of hold's shared units are live handles, not exports or pins: the sweep may detach those */
    ist_block *block;           /* counted; NULL: not in a block (any more) */
    SharedArrayObject *previous, *next; /* the block's list of root owners */
    Py_ssize_t dims[];
};

#define ARRAY_SHAPE(a) ((a)->dims)
#define ARRAY_STRIDES(a) ((a)->dims + (a)->ndim)
static inline SharedArrayObject *array_root(SharedArrayObject *a) { return a->root != NULL ? a->root : a; }

/* ---- shareable.c: what crosses ------------------------------------------------------------------------------------------------- */

/* Kinds of objects that cross. Part of tokens, pickles and messages, so a number keeps its meaning. */
typedef enum share_kind {
    SHARE_ARRAY,
    SHARE_QUEUE,
    SHARE_LOCK,
    SHARE_RLOCK,
    SHARE_CONDITION,
    SHARE_SEMAPHORE,
    SHARE_BOUNDED_SEMAPHORE,
    SHARE_EVENT,
    SHARE_BARRIER,
    SHARE_KINDS
} share_kind;

typedef struct SharedHandle SharedHandle; /* shareable.h: what is none of an array: a handle of one segment */

/* ---- module.c ------------------------------------------------------------------------------------------------------------------ */

typedef struct core_state {
    PyTypeObject *array_type, *dtype_type, *worker_type, *transfer_type, *wait_type;
    PyTypeObject *handle_types[SHARE_KINDS]; /* those of SharedHandles; [SHARE_ARRAY] is NULL */
    PyObject *Error, *SegmentGoneError, *DetachedError, *WorkerError, *CloneError, *LockAbandonedError; /* made in module exec */
    DTypeObject *dtypes[IST_NUMBERS]; /* the native numbers */
    PyObject *known;                  /* dict: spec -> dtype, some of the others */
    ist_block *block;    /* counted */
    PyObject *rebuild;   /* isthmus._core._rebuild, what a pickled array calls */
    PyTypeObject *info_type; /* SegmentInfo */
    struct {                 /* clone.c */
        PyObject *types;     /* dict: type -> (name in messages, encode, decode) */
        PyObject *names;     /* dict: name -> the same */
        PyObject *getstate;  /* object.__getstate__ */
        PyObject *create;    /* object.__new__ */
        PyObject *fields;    /* "__dataclass_fields__" */
        PyObject *module, *qualname; /* "__module__", "__qualname__" */
#define CLONE_PICKLING_NAMES 4
        PyObject *pickling[CLONE_PICKLING_NAMES]; /* "__reduce__" and others, by which a class says how it is pickled */
        PyObject *helpers;   /* isthmus._clone; NULL until it is needed */
        PyObject *datetime;  /* the datetime module's capsule; NULL until that is loaded */
        bool no_numpy;       /* it was looked for in vain: it refuses this interpreter, or isn't installed */
    } clone;
    PyObject *queue_helpers; /* isthmus._queue; NULL until it is needed */
    PyObject *lock_helpers;  /* isthmus._lock; the same */
    int64_t interpreter;     /* id: what ist_segment_set_creator gets */
} core_state;

extern struct PyModuleDef core_module;
static inline core_state *state_of_module(PyObject *module) { return (core_state *)PyModule_GetState(module); }
static inline core_state *state_of(SharedArrayObject *a) { return (core_state *)PyType_GetModuleState(Py_TYPE(a)); }
/* isthmus._core of the current interpreter, imported if need be: a new reference, or NULL with an exception. */
PyObject *module_of_interpreter(void);
/* Its state, which lives as long as the module does: for callers that hold the module, a type or an array of it anyway. */
core_state *state_of_interpreter(void);

/* module.c: a SegmentInfo; exports < 0: not known. */
PyObject *segment_info_new(core_state *state, const ist_segment_info *info, int64_t exports);

/* errors.c: the one table that turns a negative errno into an exception; always returns NULL. `what` names the operation and the value
 * for the text, e.g. "isthmus.empty(1099511627776 bytes)". */
PyObject *raise_error(core_state *state, int error, const char *what_format, ...);

/* dtype.c */
int dtype_init(PyObject *module, core_state *state); /* makes type and native numbers */
/* The dtype a spec text describes, which may come from anywhere: ValueError if it isn't one. */
DTypeObject *dtype_from_spec(core_state *state, const char *spec, Py_ssize_t length);
/* PEP 3118's format of elements in memory with that alignment, as numpy writes it; lives as long as the dtype. NULL with ValueError if
 * there is none. */
const char *dtype_format(DTypeObject *dtype, Py_ssize_t alignment);
/* numpy's grammar, numpy dtypes and scalar types, Python types; new reference */
DTypeObject *dtype_from_object(core_state *state, PyObject *spec);
/* PEP 3118; new reference; TypeError names it. itemsize < 0: not known */
DTypeObject *dtype_from_format(core_state *state, const char *format, Py_ssize_t itemsize);
PyObject *dtype_get(const DTypeObject *dtype, const char *item);        /* a Python scalar; item may be unaligned */
int dtype_set(const DTypeObject *dtype, char *item, PyObject *value); /* may run Python code, and fail half-way: not into shared memory */

/* array.c */
int array_init(PyObject *module, core_state *state);
/* A new root owner. Takes `segment` (on failure too: it is then released). strides NULL: C order. `offset`: bytes from the segment's start
 * to the first element. Bounds are the caller's business (validated by array_fits for anything that came from outside). */
SharedArrayObject *array_new_root(core_state *state, ist_segment segment, DTypeObject *dtype, int ndim, const Py_ssize_t *shape,
                                  const Py_ssize_t *strides, Py_ssize_t offset, uint32_t flags);
/* A further handle of the same root; adds itself to the root's hold. */
SharedArrayObject *array_new_view(SharedArrayObject *base, DTypeObject *dtype, int ndim, const Py_ssize_t *shape, const Py_ssize_t *strides,
                                  char *data, uint32_t flags);
bool array_fits(size_t segment_size, Py_ssize_t itemsize, int ndim, const Py_ssize_t *shape, const Py_ssize_t *strides, Py_ssize_t offset);
int array_raise_detached(SharedArrayObject *a); /* -1 with DetachedError */
static inline uint32_t array_flags(SharedArrayObject *a) {
#ifdef Py_GIL_DISABLED
    return atomic_load_explicit(&a->flags, memory_order_relaxed); /* relaxed: who needs more reads them inside a hold_enter */
#else
    return a->flags;
#endif
}
/* Not released, not detached, not inherited by a child that doesn't own it. */
static inline bool array_usable(SharedArrayObject *a) { return !(array_flags(a) & ARRAY_RELEASED) && array_root(a)->epoch == ist_epoch(); }
static inline int array_check(SharedArrayObject *a) { return __builtin_expect(array_usable(a), 1) ? 0 : array_raise_detached(a); }
static inline bool array_readonly(SharedArrayObject *a) { return ((array_flags(a) | array_flags(array_root(a))) & ARRAY_READONLY) != 0; }

/* hold: enter one export, view or pin (HOLD_WRITER: may write meanwhile; HOLD_SHARED: won't). While it stands the segment's memory stays,
 * whatever anybody releases. -1 with DetachedError if the handle is released, BufferError if a count is full. An exclusive mark is
 * waited for: it is only ever held over a few instructions, and never while Python code runs. */
int hold_enter_slow(SharedArrayObject *a, uint64_t unit);
static inline int hold_enter(SharedArrayObject *a, uint64_t unit) {
#ifndef Py_GIL_DISABLED
    SharedArrayObject *root = array_root(a);
    if (__builtin_expect(array_usable(a) && !(root->hold & HOLD_RARE), 1)) {
        root->hold += unit;
        return 0;
    }
#endif
    return hold_enter_slow(a, unit);
}
/* and leave it; drops the segment reference if that was the last and the handle is released. Never fails, never runs Python code. */
void array_drop(SharedArrayObject *root);
static inline void hold_leave(SharedArrayObject *a, uint64_t unit) {
    SharedArrayObject *root = array_root(a);
#ifdef Py_GIL_DISABLED
    /* release: what this holder did to the memory is done before; acquire: whoever drops sees what all the others did */
    if (atomic_fetch_sub_explicit(&root->hold, unit, memory_order_acq_rel) - unit == HOLD_RELEASED)
        array_drop(root);
#else
    if (__builtin_expect((root->hold -= unit) == HOLD_RELEASED, 0))
        array_drop(root);
#endif
}
/* Takes the exclusive mark if the counts named by `forbidden` (HOLD_WRITERS or HOLD_COUNTS) are nobody's and the handle isn't released,
 * in one step; 0, else -1 without an exception and with the hold it saw in *seen. Not for code that can run Python. */
int hold_begin_exclusive(SharedArrayObject *root, uint64_t forbidden, uint64_t *seen);
void hold_end_exclusive(SharedArrayObject *root);
static inline uint64_t hold_read(SharedArrayObject *root) {
#ifdef Py_GIL_DISABLED
    return atomic_load_explicit(&root->hold, memory_order_relaxed); /* relaxed: a snapshot for texts and reports */
#else
    return root->hold;
#endif
}
static inline uint32_t root_views(SharedArrayObject *root) {
#ifdef Py_GIL_DISABLED
    return atomic_load_explicit(&root->views, memory_order_relaxed); /* relaxed: a snapshot, or nobody else is left */
#else
    return root->views;
#endif
}
/* For the sweep at an interpreter's end: nobody but handles stands on this root, so it may be detached. */
static inline bool root_is_idle(SharedArrayObject *root) { return (hold_read(root) & HOLD_COUNTS) == root_views(root); }
int array_release(SharedArrayObject *a); /* this handle's end; idempotent; always succeeds */

/* buffer.c, index.c, convert.c, reduce.c: see the top of each */
int array_getbuffer(PyObject *self, Py_buffer *view, int flags);
void array_releasebuffer(PyObject *self, Py_buffer *view);

/* interp.c */
ist_block *block_join(void); /* new counted reference of this interpreter's block, made on first use; NULL with an exception */
void block_release(ist_block *block);
int block_add(ist_block *block, SharedArrayObject *root); /* sets root->block, a counted reference; -1: closed, with an exception */
/* Unlinks, gives up the root's count of the block, block = NULL; at the root's drop, dealloc or detach; idempotent (block is NULL). */
void block_remove(SharedArrayObject *root);
int block_add_handle(ist_block *block, SharedHandle *h); /* the same three for what isn't an array */
void block_remove_handle(SharedHandle *h);
uint32_t block_holder(const ist_block *block); /* by which its interpreter takes locks: see lock.h */
void block_sweep_current(void); /* this interpreter's block, now: for an interpreter that can't be ended */
int64_t block_exports(void); /* over all interpreters */
int64_t block_orphaned(void); /* roots that outlived the sweep of their interpreter */
/* One export more or less of a root that is in a block: before hold_leave, which may take it out. */
static inline void block_count_export(SharedArrayObject *root, int delta) {
    struct ist_block_counts *counts = (struct ist_block_counts *)(void *)root->block;
#ifdef Py_GIL_DISABLED
    atomic_fetch_add_explicit(&counts->exports, delta, memory_order_relaxed); /* relaxed: a statistic */
#else
    /* relaxed, and not one operation: only this interpreter writes, under its GIL; others read a whole value of some moment */
    int64_t exports = atomic_load_explicit(&counts->exports, memory_order_relaxed);
    atomic_store_explicit(&counts->exports, exports + delta, memory_order_relaxed);
#endif
}
void block_fork_child(void); /* plain C, in the child of a fork: what other interpreters than the forking one owned is theirs alone */
/* Called by the sweep for a root_is_idle: gives up its segment reference; it and its views raise DetachedError from then on (array.c). */
void array_detach(SharedArrayObject *root);

/* message.c: an array or a handle on its way. malloc'd, owns one counted reference of its segment; no Python object in it. */
typedef struct ist_message ist_message;
ist_message *message_from_array(SharedArrayObject *a); /* NULL with an exception */
/* Of anything that crosses by reference: an array, a handle, a Transfer, whose message is taken. TypeError if it is none of them. */
ist_message *message_from_object(core_state *state, PyObject *object);
PyObject *message_receive(core_state *state, ist_message *message); /* takes the message, on failure too */
void message_free(ist_message *message); /* plain C: no GIL needed */
ist_message *message_copy(const ist_message *message); /* another with a reference of its own; NULL with MemoryError */
int message_init(PyObject *module, core_state *state); /* attach(), unpublish() */
int pickle_init(PyObject *module, core_state *state); /* pickle.c: _rebuild, set_pickle_lease … */
void message_report_leases(void); /* logs leases that ran out unloaded since the last time; keeps the exception that is set */
extern PyMethodDef message_methods[], pickle_methods[]; /* token(), publish(), __reduce__: merged into SharedArray's by array.c */

/* transfer.c */
int transfer_init(PyObject *module, core_state *state);
ist_message *transfer_send(PyObject *transfer); /* its message, once; NULL with an exception */
ist_message *transfer_peek(PyObject *transfer); /* a copy of it, which doesn't use it up; NULL with an exception */
bool transfer_pending(PyObject *transfer); /* whether it has its message still */
int transfer_check(SharedArrayObject *a); /* -1 with DetachedError or BufferError: its reference can't be moved */

/* xid.c: CPython's cross-interpreter data, one small file per signature family */
int xid_register(core_state *state);
const char *xid_describe(void); /* whether it is registered, and why not; a static text */

/* python.c: the capsule of <isthmus/python.h> */
int python_init(PyObject *module);

/* worker.c: isthmus._core._Interpreter */
int worker_init(PyObject *module, core_state *state);

#endif
