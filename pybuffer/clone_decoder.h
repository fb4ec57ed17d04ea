/* clone_decoder.h: what clone_read.c and clone_make.c share: a message on its way to become objects. */
#ifndef ISTHMUS_CLONE_DECODER_H
#define ISTHMUS_CLONE_DECODER_H

#include "clone.h"

/* What hashing or comparing an object costs at most, if it can be hashed at all: how deep that goes, and how many objects it visits. */
typedef struct weight {
    uint32_t height, nodes;
} weight;

/* An item whose items are being read. */
typedef struct open_item {
    unsigned kind;       /* enum ist_clone_kind */
    bool late;           /* pairs or items of it wait in `later`; so do all that follow, as their order counts */
    uint64_t next, n;    /* items */
    PyObject *into;      /* strong: the object, or a tuple of what it will be made of */
    PyObject *key;       /* strong: of a pair whose value is next; of an exception: itself */
    weight is, key_is;
    size_t number;       /* 1 + its number; 0: it has none */
    size_t passable;     /* 1 + index of the topmost item, down from this one, that a cycle may pass through */
    uint64_t hashes;     /* size of `seen` - 1 */
    unsigned char *seen; /* PyMem; how many of its keys have about the same hash */
    int64_t integer;
    unsigned char data[12]; /* a copy of what came with it */
} open_item;

typedef struct kept_item {
    PyObject *object; /* strong; NULL: it isn't made yet */
    size_t open;      /* 1 + its index among the open items; 0: it is complete */
    weight is;
} kept_item;

/* What can only be done when a cycle is complete, because it hashes: a pair for a dict, an item for a set (no value), or the set is to become
 * a frozenset (no key). All strong. */
typedef struct later_item {
    PyObject *into, *key, *value;
} later_item;

typedef struct decoder {
    core_state *state;
    ist_clone_reader r;
    unsigned flags;
    ist_message **messages;
    Py_ssize_t narrays;
    PyObject *arrays;      /* or these: a tuple; NULL: messages */
    PyObject *lent;        /* list of what becomes an ndarray; NULL: nobody asks */
    PyObject *unpickling;  /* strong: loads the pickles of this message; NULL until there is one */
    open_item *open;
    size_t depth, open_room;
    kept_item *kept;
    size_t nkept, kept_room;
    later_item *later;
    size_t nlater, later_room;
    size_t unsettled;      /* the lowest open item that something complete refers to; SIZE_MAX: none */
    uint64_t budget;       /* objects that keys may still consist of, together */
    int rough;             /* open items that CPython frees by recursion */
    PyTypeObject *checked; /* strong: the class looked at last is a dataclass that can be made */
} decoder;

/* NULL with CloneError: these bytes aren't a message. */
PyObject *decode_refuse(decoder *d, const char *format, ...);
#define decode_failed(...) (decode_refuse(__VA_ARGS__), -1)

/* Passes on what was made, or its exception: as CloneError if it says that the message made no sense. */
PyObject *make_sensible(decoder *d, PyObject *object);

/* clone_class.c: of untrusted items; new, NULL with an exception. */
PyObject *make_global(decoder *d, PyObject *module, PyObject *name);
PyObject *make_member(decoder *d, PyObject *class, PyObject *of);
PyObject *make_registered(decoder *d, PyObject *name, PyObject *value);

/* clone_make.c: of an item that is complete and whose items, if it has any, are in the tuple `items`; new, NULL with an exception. */
PyObject *make_leaf(decoder *d, const ist_clone_item *item);
PyObject *make_of_items(decoder *d, const open_item *f);
/* A new instance of a class that comes from a message. */
PyObject *make_instance(decoder *d, PyObject *class);
PyObject *make_namedtuple(decoder *d, PyObject *class, Py_ssize_t n);
int set_instance_attribute(decoder *d, PyObject *instance, PyObject *name, PyObject *value);
/* Item `i` of an exception is there (f->into has it and those before); f->key becomes the exception as soon as it can be made. */
int exception_item(decoder *d, open_item *f, Py_ssize_t i);

#endif
