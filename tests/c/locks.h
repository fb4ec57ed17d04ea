/* locks.h: what the tests of locks and the like share: short calls, threads, another process with a handle of the same, time that is
 * turned. */
#ifndef TEST_LOCKS_H
#define TEST_LOCKS_H

#include "domain.h"
#include "os.h"
#include "peer.h"
#include "sync.h"

#include <errno.h>
#include <string.h>

#define SECONDS UINT64_C(1000000000)

static inline ist_sync *make(ist_sync_type type, uint64_t value, uint64_t limit) {
    ist_sync *s;
    CHECK_EQ(ist_sync_create(type, value, limit, &s), 0);
    return s;
}

static inline ist_waiting within(double seconds) {
    return (ist_waiting){.deadline = test_now() + (uint64_t)(seconds * 1e9), .patience = UINT64_MAX};
}
static inline ist_waiting at_once(void) { return (ist_waiting){.deadline = 0}; }

static inline int lock_now(ist_sync *s) {
    ist_waiting w = at_once();
    return ist_lock_lock(s, 0, &w);
}
static inline int lock_soon(ist_sync *s) {
    ist_waiting w = within(20);
    return ist_lock_lock(s, 0, &w);
}
static inline ist_sync_info info_of(ist_sync *s) {
    ist_sync_info info;
    ist_sync_read_info(s, &info);
    return info;
}

static inline void nothing_left(void) { CHECK_EQ(test_stats().segments, 0); }

/* In another thread: what it returns. */
struct call {
    int (*function)(ist_sync *);
    ist_sync *s;
    int result;
};
static inline void *run_call(void *given) {
    struct call *c = given;
    c->result = c->function(c->s);
    return NULL;
}
static inline int elsewhere(int (*function)(ist_sync *), ist_sync *s) {
    struct call c = {function, s, 0};
    test_join(test_thread(run_call, &c));
    return c.result;
}

/* ---- time, as the tests turn it */

static uint64_t time_now = 1000 * SECONDS;
static unsigned sleeps;
static int sleep_answer;
static int last_woken; /* how many were to be woken, the last time */
static inline uint64_t f_now(void) { return time_now; }
static inline int f_wait(_Atomic(uint32_t) *word, uint32_t expected, uint64_t deadline) {
    (void)word, (void)expected;
    sleeps++;
    time_now = deadline == UINT64_MAX ? time_now + SECONDS : deadline;
    return sleep_answer;
}

static inline int f_wake(_Atomic(uint32_t) *word, int waiters) {
    (void)word;
    last_woken = waiters;
    return 1; /* there is somebody, as far as anybody knows */
}

static inline void turn_time(int answer) {
    isti_os.now = f_now;
    isti_os.futex_wait = f_wait;
    isti_os.futex_wake = f_wake;
    sleep_answer = answer;
    sleeps = 0;
}

/* ---- other processes. held_sync: each process's handle of the one on the board */

static ist_sync *held_sync;

static inline long offer(void *type) {
    board_tell_home();
    held_sync = make(*(ist_sync_type *)type, *(ist_sync_type *)type == IST_BARRIER ? 3 : 0, 0);
    board->token = test_token(ist_sync_segment(held_sync));
    return 0;
}
static inline long attach(void *unused) {
    (void)unused;
    return ist_sync_attach(&board->token, &held_sync);
}
static inline long detach(void *unused) {
    (void)unused;
    ist_sync_close(held_sync);
    return (long)test_stats().segments;
}
static inline long lock_it(void *unused) {
    (void)unused;
    return lock_now(held_sync);
}
static inline long lock_it_soon(void *unused) {
    (void)unused;
    return lock_soon(held_sync);
}
static inline long unlock_it(void *unused) {
    (void)unused;
    return ist_lock_unlock(held_sync);
}

static inline peer partner(ist_sync_type type) {
    peer p = peer_start();
    offer(&type);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, attach, NULL), 0);
    return p;
}

#endif
