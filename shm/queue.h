/* queue.h: a handle of a queue, and what is told to whoever listens by a descriptor (listen.c). */
#ifndef ISTI_QUEUE_H
#define ISTI_QUEUE_H

#include "ring.h"

#include <isthmus/queue.h>

struct ist_queue {
    ist_segment segment;
    struct isti_ring_view view;
    uint32_t epoch;            /* ist_epoch() for which it is good */
    _Atomic(uint32_t) spin[3]; /* how often a look is worth it before sleeping: get, put, join; relaxed, guesses */
    _Atomic(uint32_t) sleeps;
    /* listen.c */
    _Atomic(int) fd;           /* an eventfd; -1: none */
    _Atomic(uint32_t) told;    /* it is readable, or about to be */
    ist_queue *next, **link;   /* of those of this process that have one; guarded by its mutex */
};

/* A message is at head, or the queue is shut. */
bool isti_queue_is_waiting(const struct isti_ring_view *v);

/* After a put, or shutdown: tells who listens, in whatever process. One load where nobody does. */
void isti_listen_tell(const struct isti_ring_view *v);
static inline void isti_listen_put(const struct isti_ring_view *v) {
    /* seq_cst: behind FULL; who arms sets the bit and looks at the slot */
    if (__builtin_expect(atomic_load_explicit(&v->ring->listened, memory_order_seq_cst) != 0, 0))
        isti_listen_tell(v);
}

/* q was found empty: its descriptor isn't readable any more; look once more. false: it has none. */
bool isti_listen_clear(ist_queue *q);
void isti_listen_end(ist_queue *q); /* q goes */

/* For the housekeeper, whose doorbell was rung. */
void isti_listen_poll(void);

#endif
