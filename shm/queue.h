/* queue.h: a handle of a queue. */
#ifndef ISTI_QUEUE_H
#define ISTI_QUEUE_H

#include "listen.h"
#include "ring.h"

#include <isthmus/queue.h>

#define ISTI_SIDES 3 /* of enum ist_queue_side */

struct ist_queue {
    ist_segment segment;
    struct isti_ring_view view;
    uint32_t epoch;            /* ist_epoch() for which it is good */
    _Atomic(uint32_t) spin[3]; /* how often a look is worth it before sleeping: get, put, join; relaxed, guesses */
    _Atomic(uint32_t) sleeps;
    struct isti_listener sides[ISTI_SIDES]; /* by enum ist_queue_side */
};

/* A message is at head, or the queue is shut. */
bool isti_queue_is_waiting(const struct isti_ring_view *v);

#endif
