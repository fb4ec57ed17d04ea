/* clone_encoder.h: what clone_write.c, clone_rare.c and clone_output.c share: an object on its way to become a message. */
#ifndef ISTHMUS_CLONE_ENCODER_H
#define ISTHMUS_CLONE_ENCODER_H

#include "clone.h"

#define MEMO_FEW 64

typedef enum put_label {
    LABEL_ITEM,
    LABEL_NAMES,
    LABEL_CLASS,
    LABEL_REGISTERED,
    LABEL_EXCEPTION,
    LABEL_FIELDS,
    LABEL_ROUGH,
    LABEL_NONE
} put_label;
typedef enum frame_kind { FRAME_LIST, FRAME_TUPLE, FRAME_DICT, FRAME_SET } frame_kind;

typedef struct frame {
    frame_kind kind;
    put_label label;
    bool holds_key;
    PyObject *container; /* strong; FRAME_SET: its iterator */
    Py_ssize_t next, count;
    Py_ssize_t position; /* FRAME_DICT: PyDict_Next's */
    PyObject *key;       /* FRAME_DICT: the one being written, or its value is; FRAME_SET: the item, strong */
    PyObject *value;     /* FRAME_DICT: strong, while its key is being written; else NULL */
    PyObject *opened;    /* in the memo; becomes referable after `until` items */
    Py_ssize_t until;
} frame;

typedef struct memo_entry {
    PyObject *object; /* strong; NULL: free */
    size_t number;    /* << 1 | open */
} memo_entry;

typedef struct encoder {
    clone_encoded *out;
    core_state *state;
    unsigned flags;
    Py_ssize_t rough; /* frames that are LABEL_EXCEPTION, LABEL_REGISTERED or LABEL_ROUGH */
    frame *frames;
    size_t depth, frame_room;
    memo_entry *memo;
    size_t memo_mask, memo_count;
    frame few_frames[8];
    memo_entry few_memo[MEMO_FEW];
} encoder;

/* ---- clone_output.c: where the bytes go ---------------------------------------------------------------------------------------------- */

/* Twice as large, at least n more; NULL with MemoryError. `few` is where a growing array begins, which isn't PyMem's. */
void *encoder_grown(void *items, const void *few, size_t count, size_t *room, size_t n, size_t size);
unsigned char *encoder_make_room(encoder *e, size_t n);
/* Where n bytes can be written; NULL with MemoryError. What was written is told by wrote(). */
static inline unsigned char *room_for(encoder *e, size_t n) {
    clone_encoded *out = e->out;
    return __builtin_expect(out->room - out->used >= n, 1) ? out->bytes + out->used : encoder_make_room(e, n);
}
static inline void wrote(encoder *e, const unsigned char *end) { e->out->used = (size_t)(end - e->out->bytes); }
static inline int put_tag(encoder *e, unsigned tag) {
    unsigned char *at = room_for(e, 1);
    if (at == NULL)
        return -1;
    wrote(e, ist_clone_put_tag(at, tag));
    return 0;
}
/* A tag, how many units there are, and their bytes. `owner` (NULL: copied at once) keeps them as they are while the message is being made. */
int put_units(encoder *e, unsigned tag, size_t count, const char *data, size_t size, PyObject *owner);
/* `head`, and how many bytes a buffer has, and these; it is held until the end. */
int put_view(encoder *e, const unsigned char *head, size_t head_size, PyObject *exporter);
int put_array(encoder *e, SharedArrayObject *array); /* by reference, or by value */
int put_handle(encoder *e, PyObject *handle);        /* a queue and the like, by reference */
int put_transfer(encoder *e, PyObject *transfer);    /* a Transfer, as the array it is */

/* ---- clone_write.c ------------------------------------------------------------------------------------------------------------------ */

#define PUT_PUSHED 1 /* its items follow */
/* Whether the object was written before: 1, then a reference to it is written now; 0: it begins now, and has a number if anybody else could
 * meet it again; -1. `open`: until its frame ends, or put_children_of's `until`, a reference to it is an error. */
int put_begin(encoder *e, PyObject *object, bool open);
int put_text(encoder *e, PyObject *text);
/* The items of a tuple follow, which is taken (NULL: an exception is set). `opened` (NULL: nothing): becomes referable after `until` items. */
int push_children(encoder *e, PyObject *children, put_label label, PyObject *opened, Py_ssize_t until);
int refuse(encoder *e, const char *format, ...); /* -1 with CloneError, to which the path is added */

/* clone_rare.c: what isn't one of the common types: 0, PUT_PUSHED, -1. */
int put_rare(encoder *e, PyObject *object);

#endif
