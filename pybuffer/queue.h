/* queue.h: what queue.c, the type isthmus.Queue, and queue_item.c, objects as messages of <isthmus/queue.h>, share. */
#ifndef ISTHMUS_QUEUE_INTERNAL_H
#define ISTHMUS_QUEUE_INTERNAL_H

#include "clone.h"
#include "shareable.h"

/* ---- queue.c ------------------------------------------------------------------------------------------------------------------------ */

/* Looked up by who needs it: numbers and short text go without. */
static inline core_state *state_of_queue(PyObject *queue) { return (core_state *)PyType_GetModuleState(Py_TYPE(queue)); }

int queue_init(PyObject *module, core_state *state);
int queue_open(SharedHandle *h, ist_segment segment, const unsigned char *note, size_t size); /* see struct shareable */
void queue_drop(SharedHandle *h);

/* ---- queue_item.c ------------------------------------------------------------------------------------------------------------------- */

/* A number under which memory that isn't the domain's is kept while its message is in the queue; see queue_item.c. */
typedef struct queue_lease {
    ist_token token;
    uint64_t number;
} queue_lease;

/* An object on its way into a queue. On the stack of whoever puts it; queue_item_clear ends it. */
typedef struct queue_item {
    ist_queue_message message; /* its segments are views of what is owned below */
    ist_segment own;           /* an array that goes by itself, or the bytes of a clone */
    ist_segment *many;         /* PyMem */
    queue_lease *leases;       /* PyMem */
    size_t nleases;
    bool sent;
    bool encoded;              /* `clone` is in use */
    clone_encoded clone;
} queue_item;

/* Makes the message if the object is a number, short text and the like, which nothing can prevent; else false. */
bool queue_item_encode_small(PyObject *object, ist_queue_message *m);
/* Encodes any other; runs Python code. `transfer` and `flags` as clone_encode's. -1 with an exception: nothing is left to clear, nothing happened. */
int queue_item_encode(core_state *state, SharedHandle *q, PyObject *object, PyObject *transfer, unsigned flags, queue_item *item);
/* Handles move with it: it may only be put under the GIL, right after clone_check_transfer. */
static inline bool queue_item_moves(const queue_item *item) {
    return item->encoded && (item->clone.transfer != NULL || item->clone.transfers != NULL);
}
void queue_item_sent(queue_item *item); /* the message was put. Never fails */
void queue_item_clear(queue_item *item);

/* The object of a message that was got. Segments that it uses are taken and set {NULL}: the caller clears the message, on failure too.
 * NULL with an exception: CloneError for bytes that aren't a message of ours. */
PyObject *queue_item_decode(PyObject *queue, ist_queue_message *message);

#endif
