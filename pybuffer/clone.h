/* clone.h: structured clone of Python objects: what Queue, Worker and isthmus.clone share, and below it what the files clone*.c share.
 *
 * A message is bytes (<isthmus/clone.h>) and arrays that travel beside them, each as an ist_message with a counted reference of its own.
 * Whoever carries it encodes, takes bytes and arrays, says whether they were sent, and clears; or receives both and decodes.
 */
#ifndef ISTHMUS_CLONE_INTERNAL_H
#define ISTHMUS_CLONE_INTERNAL_H

#include "array.h"

#include <isthmus/clone.h>

/* flags of clone_encode */
#define CLONE_PICKLE 1u   /* what has no way of its own is pickled */
#define CLONE_BY_VALUE 2u /* nothing travels beside the bytes: a SharedArray raises CloneError, an ndarray is written into them */
/* flags of clone_decode */
#define CLONE_TRUSTED 4u  /* the bytes come from this program: they may import modules and contain pickles */

/* Bytes that are copied late, as they are many: they belong where bytes[at] is. */
typedef struct clone_piece {
    size_t at, size;
    const char *data;
    PyObject *owner; /* strong: an immutable object, or one that nobody else has; NULL: view */
    Py_buffer *view; /* PyMem; held */
} clone_piece;

/* An encoded message. Owned by whoever called clone_encode, on the stack, under the GIL; clone_clear() ends it. */
typedef struct clone_encoded {
    unsigned char *bytes; /* without the pieces; `few` as long as it fits */
    size_t used, room;
    clone_piece *pieces;
    size_t npieces, piece_room, piece_bytes;
    ist_message **messages; /* owned: whoever takes one leaves NULL */
    Py_ssize_t narrays, array_room;
    PyObject *transfers; /* list of the Transfers in the object, each once; NULL: none */
    PyObject *transfer;  /* tuple of distinct SharedArrays; NULL: none */
    unsigned char few[1024];
} clone_encoded;

/* Encodes into *out, which needn't be initialised. `transfer`: NULL, or a sequence of handles which the message takes along.
 * 0, or -1 with an exception (CloneError with the path to what can't be cloned; BufferError for live exports of a handle in `transfer`;
 * ValueError for one that isn't in the object; whatever encode functions raised); then nothing is left to clear, and nothing happened.
 * Runs Python code (encode functions). Neither arrays nor object are changed before clone_sent. */
int clone_encode(core_state *state, PyObject *object, PyObject *transfer, unsigned flags, clone_encoded *out);
static inline size_t clone_size(const clone_encoded *e) { return e->used + e->piece_bytes; }
/* Exactly clone_size bytes. Runs no Python code. */
void clone_copy(const clone_encoded *e, unsigned char *to);
/* Whether clone_sent may follow: BufferError if a handle of `transfer` has got exports meanwhile, DetachedError if it is released. The last
 * thing that can fail before a message is sent. */
int clone_check_transfer(core_state *state, const clone_encoded *e);
/* The message is on its way: handles of `transfer` are detached, and Transfers in the object are used up. Never fails. */
void clone_sent(clone_encoded *e);
/* Frees what it has, messages that nobody took as well; Transfers that weren't sent have theirs back. */
void clone_clear(clone_encoded *e);

/* The object of a message. Takes those messages[i] that it uses and sets them NULL: the caller frees the rest, on failure too.
 * `bytes` may be memory that others write to. NULL with an exception: CloneError for bytes that aren't a message, or name what isn't there.
 * Without CLONE_TRUSTED no module is imported and no code runs but __hash__ and __eq__ of keys' classes, and registered decode functions. */
PyObject *clone_decode(core_state *state, const void *bytes, size_t size, ist_message **messages, Py_ssize_t count, unsigned flags);

/* What fallback= says, into flags; NULL: it wasn't given. -1 with ValueError. */
int clone_parse_fallback(PyObject *fallback, unsigned *flags);

int clone_init(PyObject *module, core_state *state);
int clone_traverse(core_state *state, visitproc visit, void *arg);
void clone_fini(core_state *state);
extern PyMethodDef clone_functions[];

/* ---- among the files ----------------------------------------------------------------------------------------------------------------- */

/* Nested slices, exceptions and registered objects: what CPython frees by recursion on the C stack. */
#define CLONE_ROUGH_DEPTH 1000

/* clone.c: what both directions ask of the interpreter; borrowed unless said otherwise. */
#include <datetime.h>
PyDateTime_CAPI *clone_datetime(core_state *state); /* of the datetime module, if it is loaded; NULL without an exception: it isn't */
PyObject *clone_dict_item(PyObject *dict, const char *name); /* new; NULL, with or without an exception */
PyObject *clone_loaded(const char *module, const char *name); /* an attribute of a loaded module, new; NULL, with or without an exception */
PyObject *clone_helper(core_state *state, const char *name); /* of isthmus._clone; new */
/* What register_type was told of a type: (name, encode, decode). `ask`: or what isthmus._clone says, which knows some of the standard
 * library. NULL without an exception: nothing. */
PyObject *clone_registered_type(core_state *state, PyTypeObject *type, bool ask);
PyObject *clone_registered_name(core_state *state, PyObject *name, bool trusted); /* the same by its name in a message; new */
/* The class or function of that name, new. Not trusted: in loaded modules only, and without running anything. NULL without an exception: it
 * isn't there. */
PyObject *clone_find_global(core_state *state, PyObject *module, PyObject *name, bool trusted);
/* Whether instances of a class are cloned by their attributes, as tuples with names, as members. -1 with an exception. */
int clone_is_dataclass(core_state *state, PyTypeObject *type);
int clone_is_namedtuple(PyTypeObject *type);
int clone_is_enum(PyTypeObject *type);
PyTypeObject *clone_builtin_exception(PyTypeObject *type); /* the nearest base that isn't written in Python */
bool clone_exception_is_late(PyTypeObject *builtin); /* it can only be made of its arguments */
/* The i-th attribute of a builtin exception that isn't among its arguments, and its class (borrowed); NULL: there are no more. */
const char *clone_exception_attribute(size_t i, PyObject **class);
PyObject *clone_builtin_descriptor(PyObject *class, const char *name); /* new; NULL with an exception */
static inline bool clone_has_dict(const PyTypeObject *type) {
    return type->tp_dictoffset != 0 || (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) != 0;
}

/* clone_write.c: encodes into *out, which is empty; -1 with an exception: the caller clears it. */
int clone_write(core_state *state, PyObject *object, unsigned flags, clone_encoded *out);

#endif
