/* queues.h: what the tests of queues share: messages that are numbers, and another process with a handle of the same queue. */
#ifndef TEST_QUEUES_H
#define TEST_QUEUES_H

#include "peer.h"
#include "ring.h"

#include <isthmus/queue.h>
#include <string.h>

#define FOREVER UINT64_MAX

static inline ist_queue *create(uint64_t maxsize) {
    ist_queue *q = NULL;
    int error = ist_queue_create(maxsize, &q);
    CHECK(error == 0, "create(%llu): %s", (unsigned long long)maxsize, ist_strerror(error));
    return q;
}

static inline int put_number(ist_queue *q, uint64_t n) {
    ist_queue_message m = {.tag = 1, .size = sizeof n};
    memcpy(m.bytes, &n, sizeof n);
    return ist_queue_put(q, &m, 0, NULL);
}

/* -errno, or the number. */
static inline int64_t get_number(ist_queue *q, uint64_t deadline) {
    ist_queue_message m;
    int error = ist_queue_get(q, &m, deadline, NULL);
    if (error != 0)
        return error;
    uint64_t n;
    CHECK(m.tag == 1 && m.size == sizeof n && m.count == 0);
    memcpy(&n, m.bytes, sizeof n);
    return (int64_t)n;
}

/* ---- other processes */

static ist_queue *q_here; /* in each process */

static inline void begin(void) {
    board_begin();
    board->size = 100;
    board->tag = 77;
}

static inline void offer_queue(uint64_t maxsize) {
    q_here = create(maxsize);
    board_tell_home();
    board->token = test_token(ist_queue_segment(q_here));
}

static inline long attach_queue(void *unused) {
    (void)unused;
    return ist_queue_attach(&board->token, &q_here);
}

static inline long put_seven(void *unused) {
    (void)unused;
    return put_number(q_here, 7);
}

static inline long get_one(void *unused) {
    (void)unused;
    return (long)get_number(q_here, FOREVER);
}

static inline struct isti_ring_view view_here(void) {
    struct isti_ring_view v;
    ist_segment_info of;
    ist_segment s = ist_queue_segment(q_here);
    ist_segment_read_info(s, &of);
    CHECK_EQ(isti_ring_view(isti_domain_home_now(), of.descriptor, of.descriptor_generation, ist_segment_data(s), ist_segment_size(s), &v),
             0);
    return v;
}

/* As a sender that stands still, or dies, between its claim and its message. */
static inline long claim_only(void *unused) {
    (void)unused;
    struct isti_ring_view v = view_here();
    uint64_t t;
    return isti_ring_claim(&v, &t);
}

static inline long release_queue(void *unused) {
    (void)unused;
    ist_queue_release(q_here);
    return (long)test_stats().segments;
}

#endif
