/* queue.h: a handle of a queue, and what is told to whoever listens by a descriptor (listen.c). */
#ifndef ISTI_QUEUE_H
#define ISTI_QUEUE_H

#include "ring.h"

#include <isthmus/queue.h>

#define ISTI_SIDES 3 /* of enum ist_queue_side */

struct ist_queue {
    ist_segment segment;
    struct isti_ring_view view;
    uint32_t epoch;            /* ist_epoch() for which it is good */
    _Atomic(uint32_t) spin[3]; /* how often a look is worth it before sleeping: get, put, join; relaxed, guesses */
    _Atomic(uint32_t) sleeps;
    /* listen.c */
    struct isti_listener {
        _Atomic(int) fd;        /* an eventfd; -1: none */
        _Atomic(uint32_t) told; /* it is readable, or about to be */
    } sides[ISTI_SIDES];
    ist_queue *next, **link;   /* of those of this process that have one; guarded by its mutex. link == NULL: has none */
};

/* A message is at head, or the queue is shut. */
bool isti_queue_is_waiting(const struct isti_ring_view *v);
/* What a descriptor of that side tells is so. */
bool isti_queue_has_happened(const struct isti_ring_view *v, ist_queue_side side);

/* After it has happened: tells who listens, in whatever process. One load where nobody does. */
void isti_listen_tell(const struct isti_ring_view *v, ist_queue_side side);
static inline _Atomic(uint32_t) *isti_listened(const struct isti_ring_view *v, ist_queue_side side) {
    return side == IST_QUEUE_MESSAGES ? &v->ring->listened : side == IST_QUEUE_ROOM ? &v->ring->room_listened : &v->ring->done_listened;
}
static inline void isti_listen_happened(const struct isti_ring_view *v, ist_queue_side side) {
    /* seq_cst: behind what happened (FULL, head, done); who arms sets the bit and looks at that */
    if (__builtin_expect(atomic_load_explicit(isti_listened(v, side), memory_order_seq_cst) != 0, 0))
        isti_listen_tell(v, side);
}

/* Nothing was found: the side's descriptor isn't readable any more; look once more. false: it has none. */
bool isti_listen_clear(ist_queue *q, ist_queue_side side);
void isti_listen_end(ist_queue *q); /* q goes */

/* For the housekeeper, whose doorbell was rung. */
void isti_listen_poll(void);

#endif
