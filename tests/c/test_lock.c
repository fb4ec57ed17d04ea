/* test_lock.c: locks, semaphores, events, barriers, conditions (K1 to K9): results, other processes, the dead, holders, fork, failures, garbage. */
#include "domain.h"
#include "os.h"
#include "peer.h"
#include "sync.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECONDS UINT64_C(1000000000)

TestSuite(lock, .init = board_begin, .timeout = 60);

static ist_sync *make(ist_sync_type type, uint64_t value, uint64_t limit) {
    ist_sync *s;
    CHECK_EQ(ist_sync_create(type, value, limit, &s), 0);
    return s;
}

static ist_waiting within(double seconds) {
    return (ist_waiting){.deadline = test_now() + (uint64_t)(seconds * 1e9), .patience = UINT64_MAX};
}
static ist_waiting at_once(void) { return (ist_waiting){.deadline = 0}; }

static int lock_now(ist_sync *s) {
    ist_waiting w = at_once();
    return ist_lock_lock(s, 0, &w);
}
static int lock_soon(ist_sync *s) {
    ist_waiting w = within(20);
    return ist_lock_lock(s, 0, &w);
}
static ist_sync_info info_of(ist_sync *s) {
    ist_sync_info info;
    ist_sync_read_info(s, &info);
    return info;
}

static void nothing_left(void) { CHECK_EQ(test_stats().segments, 0); }

/* In another thread: what it returns. */
struct call {
    int (*function)(ist_sync *);
    ist_sync *s;
    int result;
};
static void *run_call(void *given) {
    struct call *c = given;
    c->result = c->function(c->s);
    return NULL;
}
static int elsewhere(int (*function)(ist_sync *), ist_sync *s) {
    struct call c = {function, s, 0};
    test_join(test_thread(run_call, &c));
    return c.result;
}

/* ---- locks */

Test(lock, taken_and_given_back) {
    ist_sync *s = make(IST_LOCK, 0, 0);
    CHECK_EQ(ist_lock_unlock(s), -EPERM);
    CHECK_EQ(ist_lock_lock(s, 0, NULL), 0);
    CHECK_EQ(info_of(s).value, 1);
    CHECK(info_of(s).mine);
    CHECK_EQ(ist_lock_lock(s, 0, NULL), -EAGAIN);
    CHECK_EQ(lock_now(s), -EAGAIN);
    ist_waiting w = within(0.02);
    CHECK_EQ(ist_lock_lock(s, 0, &w), -ETIMEDOUT);
    CHECK_EQ(elsewhere(ist_lock_unlock, s), 0); /* anybody may */
    CHECK_EQ(info_of(s).value, 0);
    CHECK_EQ(ist_lock_unlock(s), -EPERM);
    CHECK_EQ(test_stats().locks, 1);
    ist_sync_close(s);
    nothing_left();
}

Test(lock, an_rlock_is_its_thread_s) {
    ist_sync *s = make(IST_RLOCK, 0, 0);
    uint32_t count = 0;
    CHECK_EQ(ist_lock_unlock(s), -EPERM);
    CHECK_EQ(ist_lock_unlock_all(s, &count), -EPERM);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(lock_now(s), 0);
    CHECK_EQ(info_of(s).value, 3);
    CHECK(info_of(s).mine);
    CHECK_EQ(elsewhere(lock_now, s), -EAGAIN);
    CHECK_EQ(elsewhere(ist_lock_unlock, s), -EPERM);
    CHECK_EQ(ist_lock_unlock(s), 0);
    CHECK_EQ(ist_lock_unlock_all(s, &count), 0);
    CHECK_EQ(count, 2);
    CHECK(!info_of(s).mine);
    CHECK_EQ(ist_lock_lock_count(s, 0, count, NULL), 0);
    CHECK_EQ(ist_lock_unlock(s), 0);
    CHECK_EQ(ist_lock_unlock(s), 0);
    CHECK_EQ(ist_lock_unlock(s), -EPERM);
    CHECK_EQ(lock_now(s), 0);
    atomic_store_explicit(&s->memory->count, UINT32_MAX, memory_order_relaxed);
    CHECK_EQ(lock_now(s), -EOVERFLOW);
    ist_sync_close(s);
    nothing_left();
}

static int lock_and_end(ist_sync *s) { return lock_now(s); }

Test(lock, a_thread_that_ends_abandons_its_rlock_and_not_its_lock) {
    ist_sync *r = make(IST_RLOCK, 0, 0), *l = make(IST_LOCK, 0, 0);
    CHECK_EQ(elsewhere(lock_and_end, r), 0);
    CHECK_EQ(elsewhere(lock_and_end, l), 0);
    CHECK_EQ(lock_now(l), -EAGAIN);
    CHECK_EQ(lock_now(r), -EOWNERDEAD);
    CHECK_EQ(lock_now(r), 0); /* told once */
    ist_sync_close(r);
    ist_sync_close(l);
    nothing_left();
}

Test(lock, holders) {
    ist_sync *s = make(IST_LOCK, 0, 0), *other = make(IST_LOCK, 0, 0), *r = make(IST_RLOCK, 0, 0);
    uint32_t a, b;
    CHECK_EQ(ist_holder_begin(&a), 0);
    CHECK_EQ(ist_holder_begin(&b), 0);
    CHECK(a != b && a != 0 && b != 0);
    CHECK_EQ(ist_lock_lock(s, a, NULL), 0);
    CHECK_EQ(ist_lock_lock(r, a, NULL), 0);
    CHECK_EQ(ist_lock_lock(other, b, NULL), 0);
    ist_holder_end(a);
    ist_holder_end(a);
    CHECK_EQ(ist_lock_lock(other, 0, NULL), -EAGAIN);
    CHECK_EQ(info_of(s).value, 0);
    CHECK(info_of(s).broken);
    CHECK_EQ(ist_lock_unlock(s), -EPERM);
    CHECK_EQ(ist_lock_lock(s, b, NULL), -EOWNERDEAD);
    CHECK_EQ(ist_lock_lock(s, b, NULL), 0);
    CHECK_EQ(ist_lock_lock(r, b, NULL), -EOWNERDEAD);
    ist_holder_end(b);
    CHECK_EQ(lock_now(s), -EOWNERDEAD);
    CHECK_EQ(lock_now(other), -EOWNERDEAD);
    CHECK_EQ(ist_lock_lock(s, IST_HOLDERS, NULL), -EINVAL);
    ist_sync_close(s);
    ist_sync_close(other);
    ist_sync_close(r);
    nothing_left();
}

Test(lock, as_many_holders_as_can_be) {
    static uint32_t all[IST_HOLDERS];
    for (uint32_t i = 1; i < IST_HOLDERS; i++)
        CHECK_EQ(ist_holder_begin(&all[i]), 0);
    uint32_t more;
    CHECK_EQ(ist_holder_begin(&more), -ENOSPC);
    ist_holder_end(all[77]);
    CHECK_EQ(ist_holder_begin(&more), 0);
    CHECK_EQ(more, all[77]);
}

Test(lock, who_waits_gets_it) {
    ist_sync *s = make(IST_LOCK, 0, 0);
    CHECK_EQ(lock_now(s), 0);
    struct call c = {lock_soon, s, -1};
    pthread_t thread = test_thread(run_call, &c);
    while ((atomic_load_explicit(&s->memory->event, memory_order_seq_cst) & 1) == 0) {}
    CHECK_EQ(ist_lock_unlock(s), 0);
    test_join(thread);
    CHECK_EQ(c.result, 0);
    CHECK_EQ(lock_now(s), -EAGAIN);
    ist_sync_close(s);
    nothing_left();
}

static ist_waiter waiter;
static int lock_until_stopped(ist_sync *s) {
    ist_waiting w = within(20);
    w.waiter = &waiter;
    return ist_lock_lock(s, 0, &w);
}

Test(lock, called_off) {
    ist_sync *s = make(IST_LOCK, 0, 0);
    CHECK_EQ(lock_now(s), 0);
    struct call c = {lock_until_stopped, s, -1};
    pthread_t thread = test_thread(run_call, &c);
    while ((atomic_load_explicit(&s->memory->event, memory_order_seq_cst) & 1) == 0) {}
    ist_waiter_stop(&waiter);
    test_join(thread);
    CHECK_EQ(c.result, -ECANCELED);
    CHECK_EQ(ist_lock_unlock(s), 0);
    CHECK_EQ(lock_until_stopped(s), 0); /* nothing to wait for */
    ist_sync_close(s);
    nothing_left();
}

/* ---- time, as the tests turn it */

static uint64_t time_now = 1000 * SECONDS;
static unsigned sleeps;
static int sleep_answer;
static uint64_t slept_until;
static uint64_t f_now(void) { return time_now; }
static int f_wait(_Atomic(uint32_t) *word, uint32_t expected, uint64_t deadline) {
    (void)word, (void)expected;
    sleeps++;
    slept_until = deadline;
    time_now = deadline == UINT64_MAX ? time_now + SECONDS : deadline;
    return sleep_answer;
}

static int f_wake(_Atomic(uint32_t) *word, int waiters) {
    (void)word, (void)waiters;
    return 1; /* there is somebody, as far as anybody knows */
}

static void turn_time(int answer) {
    isti_os.now = f_now;
    isti_os.futex_wait = f_wait;
    isti_os.futex_wake = f_wake;
    sleep_answer = answer;
    sleeps = 0;
}

Test(lock, deadline_patience_signals) {
    ist_sync *s = make(IST_LOCK, 0, 0);
    CHECK_EQ(lock_now(s), 0);
    turn_time(ETIMEDOUT);
    ist_waiting w = {.deadline = time_now + SECONDS, .patience = UINT64_MAX};
    CHECK_EQ(ist_lock_lock(s, 0, &w), -ETIMEDOUT);
    CHECK_EQ(sleeps, 10); /* the backstop is a tenth of it */
    w = (ist_waiting){.deadline = time_now + SECONDS, .patience = SECONDS / 5 * 2};
    const uint64_t begun = time_now;
    CHECK_EQ(ist_lock_lock(s, 0, &w), -EINTR);
    CHECK_EQ(w.since, begun);
    CHECK_EQ(ist_lock_lock(s, 0, &w), -EINTR);
    CHECK_EQ(w.since, begun); /* its seniority */
    CHECK_EQ(ist_lock_lock(s, 0, &w), -ETIMEDOUT);
    sleep_answer = EINTR;
    w = (ist_waiting){.deadline = UINT64_MAX, .patience = UINT64_MAX};
    CHECK_EQ(ist_lock_lock(s, 0, &w), -EINTR);
    CHECK_EQ(ist_lock_unlock(s), 0);
    CHECK_EQ(ist_lock_lock(s, 0, &w), 0);
    ist_sync_close(s);
    nothing_left();
}

/* K5: whoever has waited for a millisecond goes first. */
static void starves(ist_sync_type type, int (*take)(ist_sync *, ist_waiting *), int (*give)(ist_sync *)) {
    ist_sync *s = make(type, type == IST_SEMAPHORE, 0);
    ist_waiting passing = at_once();
    CHECK_EQ(take(s, &passing), 0);
    turn_time(ETIMEDOUT);
    ist_waiting old = {.deadline = UINT64_MAX, .patience = 2000000};
    CHECK_EQ(take(s, &old), -EINTR);
    CHECK_EQ(give(s), 0);
    /* somebody sleeps, as far as anybody knows: a newcomer leaves it to that one, for a millisecond */
    ist_waiting fresh = {.deadline = UINT64_MAX, .patience = UINT64_MAX};
    const uint64_t begun = time_now;
    sleeps = 0;
    CHECK_EQ(take(s, NULL), -EAGAIN);
    CHECK_EQ(take(s, &fresh), 0);
    CHECK_EQ(sleeps, 1);
    CHECK_EQ(time_now - begun, 1000000);
    /* a newcomer that isn't made to wait so long, and somebody who doesn't wait at all, take it; the former ends it */
    ist_waiting young = {.deadline = UINT64_MAX, .patience = 100};
    CHECK_EQ(take(s, &young), -EINTR);
    CHECK_EQ(give(s), 0);
    CHECK_EQ(take(s, NULL), -EAGAIN);
    CHECK_EQ(take(s, &young), 0);
    CHECK_EQ(give(s), 0);
    CHECK_EQ(take(s, NULL), 0);
    old = (ist_waiting){.deadline = UINT64_MAX, .patience = 2000000};
    CHECK_EQ(take(s, &old), -EINTR);
    CHECK_EQ(give(s), 0);
    CHECK_EQ(take(s, &passing), 0);
    CHECK_EQ(give(s), 0);
    CHECK_EQ(take(s, &old), 0); /* old enough: it stays so */
    ist_waiting other = {.deadline = UINT64_MAX, .patience = 100};
    CHECK_EQ(take(s, &other), -EINTR);
    CHECK_EQ(give(s), 0);
    CHECK_EQ(take(s, NULL), -EAGAIN);
    ist_sync_close(s);
    nothing_left();
}
static int take_lock(ist_sync *s, ist_waiting *w) { return ist_lock_lock(s, 0, w); }
static int post_one(ist_sync *s) { return ist_semaphore_post(s, 1); }
Test(lock, nobody_starves) { starves(IST_LOCK, take_lock, ist_lock_unlock); }
Test(lock, nobody_starves_for_a_permit) { starves(IST_SEMAPHORE, ist_semaphore_take, post_one); }

/* ---- other processes. held_sync: each process's handle of the one on the board */

static ist_sync *held_sync;

static long offer(void *type) {
    board_tell_home();
    held_sync = make(*(ist_sync_type *)type, *(ist_sync_type *)type == IST_BARRIER ? 3 : 0, 0);
    board->token = test_token(ist_sync_segment(held_sync));
    return 0;
}
static long attach(void *unused) {
    (void)unused;
    return ist_sync_attach(&board->token, &held_sync);
}
static long detach(void *unused) {
    (void)unused;
    ist_sync_close(held_sync);
    return (long)test_stats().segments;
}
static long lock_it(void *unused) {
    (void)unused;
    return lock_now(held_sync);
}
static long lock_it_soon(void *unused) {
    (void)unused;
    return lock_soon(held_sync);
}
static long unlock_it(void *unused) {
    (void)unused;
    return ist_lock_unlock(held_sync);
}

static peer partner(ist_sync_type type) {
    peer p = peer_start();
    offer(&type);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, attach, NULL), 0);
    return p;
}

Test(lock, another_process) {
    peer p = partner(IST_LOCK);
    CHECK_EQ(peer_call(&p, lock_it, NULL), 0);
    CHECK_EQ(lock_now(held_sync), -EAGAIN);
    CHECK(!info_of(held_sync).mine && info_of(held_sync).value == 1);
    CHECK_EQ(peer_call(&p, unlock_it, NULL), 0);
    CHECK_EQ(lock_now(held_sync), 0);
    peer_begin(&p, lock_it_soon, NULL);
    CHECK_EQ(ist_lock_unlock(held_sync), 0);
    CHECK_EQ(peer_finish(&p), 0);
    CHECK_EQ(ist_lock_unlock(held_sync), 0); /* as multiprocessing.Lock's: anybody may */
    CHECK_EQ(peer_call(&p, detach, NULL), 0);
    peer_end(&p);
    CHECK_EQ(detach(NULL), 0);
}

static void killed_owner(ist_sync_type type, bool waits) {
    peer p = partner(type);
    CHECK_EQ(peer_call(&p, lock_it, NULL), 0);
    struct call c = {lock_soon, held_sync, -1};
    pthread_t thread;
    if (waits)
        thread = test_thread(run_call, &c);
    peer_kill(&p);
    if (waits) { /* finds out by itself, or hears of the sweep */
        test_join(thread);
        CHECK_EQ(c.result, -EOWNERDEAD);
    } else {
        CHECK_EQ(ist_sweep(), 1);
        CHECK_EQ(info_of(held_sync).value, 0);
        CHECK_EQ(ist_lock_unlock(held_sync), -EPERM);
        CHECK_EQ(lock_now(held_sync), -EOWNERDEAD);
    }
    CHECK_EQ(lock_now(held_sync), 0);
    CHECK_EQ(ist_lock_unlock(held_sync), 0);
    ist_sweep();
    CHECK_EQ(detach(NULL), 0);
}
Test(lock, killed_owner) { killed_owner(IST_LOCK, false); }
Test(lock, killed_owner_of_an_rlock) { killed_owner(IST_RLOCK, false); }
Test(lock, killed_owner_while_somebody_waits) { killed_owner(IST_LOCK, true); }

Test(lock, let_go_of_by_its_owner) {
    peer p = partner(IST_LOCK);
    CHECK_EQ(peer_call(&p, lock_it, NULL), 0);
    CHECK_EQ(peer_call(&p, detach, NULL), 0);
    CHECK_EQ(lock_now(held_sync), -EOWNERDEAD);
    CHECK_EQ(lock_now(held_sync), 0);
    CHECK_EQ(peer_call(&p, attach, NULL), 0);
    CHECK_EQ(peer_call(&p, detach, NULL), 0); /* not its own: stays */
    CHECK_EQ(lock_now(held_sync), -EAGAIN);
    peer_end(&p);
    CHECK_EQ(detach(NULL), 0);
}

static void in_child(void *unused) {
    (void)unused;
    CHECK_EQ(lock_now(held_sync), -EAGAIN);
    CHECK_EQ(ist_lock_unlock(held_sync), held_sync->type == IST_LOCK ? -EACCES : -EPERM);
    ist_sync *own;
    CHECK_EQ(ist_sync_create(IST_LOCK, 0, 0, &own), 0);
    CHECK_EQ(lock_now(own), 0);
    CHECK_EQ(ist_lock_unlock(own), 0);
    ist_sync_close(own);
}
Test(lock, fork) {
    ist_sync_type types[] = {IST_LOCK, IST_RLOCK};
    for (int i = 0; i < 2; i++) {
        offer(&types[i]);
        CHECK_EQ(lock_now(held_sync), 0);
        CHECK_CHILD(in_child, NULL, 20);
        ist_sweep();
        CHECK_EQ(ist_lock_unlock(held_sync), 0);
        CHECK_EQ(detach(NULL), 0);
    }
}

/* ---- semaphores, events */

Test(lock, semaphore) {
    ist_sync *s = make(IST_SEMAPHORE, 2, 3);
    ist_waiting w = at_once();
    CHECK_EQ(ist_semaphore_take(s, &w), 0);
    CHECK_EQ(ist_semaphore_take(s, NULL), 0);
    CHECK_EQ(ist_semaphore_take(s, &w), -EAGAIN);
    CHECK_EQ(ist_semaphore_post(s, 4), -ERANGE);
    CHECK_EQ(ist_semaphore_post(s, 0), -EINVAL);
    CHECK_EQ(ist_semaphore_post(s, UINT64_MAX), -ERANGE);
    CHECK_EQ(info_of(s).value, 0);
    CHECK_EQ(ist_semaphore_post(s, 3), 0);
    CHECK_EQ(info_of(s).value, 3);
    CHECK_EQ(info_of(s).limit, 3);
    ist_sync_close(s);
    s = make(IST_SEMAPHORE, IST_SEMAPHORE_MOST, 0);
    CHECK_EQ(ist_semaphore_post(s, 1), -ERANGE);
    ist_sync_close(s);
    nothing_left();
}

static int wait_soon(ist_sync *s) {
    ist_waiting w = within(20);
    return s->type == IST_EVENT ? ist_event_wait(s, &w) : ist_semaphore_take(s, &w);
}

Test(lock, a_permit_for_each_that_waits) {
    ist_sync *s = make(IST_SEMAPHORE, 0, 0);
    struct call c[6];
    pthread_t threads[6];
    for (int i = 0; i < 6; i++) {
        c[i] = (struct call){wait_soon, s, -1};
        threads[i] = test_thread(run_call, &c[i]);
    }
    CHECK_EQ(ist_semaphore_post(s, 5), 0);
    CHECK_EQ(ist_semaphore_post(s, 1), 0);
    for (int i = 0; i < 6; i++) {
        test_join(threads[i]);
        CHECK_EQ(c[i].result, 0);
    }
    CHECK_EQ(info_of(s).value, 0);
    ist_sync_close(s);
    nothing_left();
}

Test(lock, event) {
    ist_sync *s = make(IST_EVENT, 0, 0);
    ist_waiting w = at_once();
    CHECK_EQ(ist_event_wait(s, &w), -EAGAIN);
    CHECK_EQ(ist_event_set(s), 0);
    CHECK_EQ(ist_event_set(s), 0);
    CHECK_EQ(info_of(s).value, 1);
    w = at_once();
    CHECK_EQ(ist_event_wait(s, &w), 0);
    CHECK_EQ(ist_event_clear(s), 0);
    CHECK_EQ(info_of(s).value, 0);
    ist_sync_close(s);
    nothing_left();
}

Test(lock, an_event_that_was_set_and_cleared_wakes_who_waited) {
    ist_sync *s = make(IST_EVENT, 0, 0);
    turn_time(EINTR);
    ist_waiting w = {.deadline = UINT64_MAX, .patience = UINT64_MAX};
    CHECK_EQ(ist_event_wait(s, &w), -EINTR);
    CHECK_EQ(ist_event_set(s), 0);
    CHECK_EQ(ist_event_clear(s), 0);
    CHECK_EQ(ist_event_wait(s, &w), 0);
    ist_sync_close(s);
    nothing_left();
}

/* ---- barriers */

static int meet(ist_sync *s) {
    ist_waiting w = within(20);
    ist_arrival a;
    int error = ist_barrier_arrive(s, &w, &a);
    if (error != 0)
        return error;
    if (a.last)
        error = ist_barrier_release(s, &a);
    else
        while ((error = ist_barrier_wait(s, &a, &w)) == -EINTR)
            ;
    return error == 0 ? (int)a.index : error;
}

static ist_arrival arrive(ist_sync *s) {
    ist_waiting w = at_once();
    ist_arrival a;
    CHECK_EQ(ist_barrier_arrive(s, &w, &a), 0);
    return a;
}
static int passes(ist_sync *s, const ist_arrival *a) {
    ist_waiting w = {.deadline = UINT64_MAX, .patience = 0};
    return ist_barrier_wait(s, a, &w);
}

Test(lock, barrier_rounds) {
    enum { PARTIES = 4 };
    ist_sync *s = make(IST_BARRIER, PARTIES, 0);
    for (int round = 0; round < 50; round++) {
        struct call c[PARTIES];
        pthread_t threads[PARTIES];
        unsigned seen = 0;
        for (int i = 0; i < PARTIES; i++) {
            c[i] = (struct call){meet, s, -1};
            threads[i] = test_thread(run_call, &c[i]);
        }
        for (int i = 0; i < PARTIES; i++) {
            test_join(threads[i]);
            CHECK(c[i].result >= 0, "%s", ist_strerror(c[i].result));
            seen |= 1u << c[i].result;
        }
        CHECK_EQ(seen, (1u << PARTIES) - 1);
    }
    CHECK_EQ(info_of(s).value, 0);
    CHECK_EQ(atomic_load_explicit(&((struct isti_barrier_memory *)s->memory)->inside[s->d->me], memory_order_relaxed), 0);
    ist_sync_close(s);
    nothing_left();
}

Test(lock, barrier_outcomes) {
    ist_sync *s = make(IST_BARRIER, 2, 0);
    ist_arrival a = arrive(s), b;
    CHECK_EQ(info_of(s).value, 1);
    CHECK_EQ(passes(s, &a), -EINTR);
    ist_barrier_withdraw(s, &a);
    CHECK_EQ(info_of(s).value, 0);
    a = arrive(s);
    CHECK_EQ(ist_barrier_reset(s), 0); /* who waits is told, others aren't */
    b = arrive(s);
    CHECK_EQ(passes(s, &a), -EPIPE);
    a = arrive(s);
    CHECK(a.last && !b.last && a.index == 1);
    ist_waiting w = at_once();
    ist_arrival c;
    CHECK_EQ(ist_barrier_arrive(s, &w, &c), -EAGAIN); /* those two first */
    CHECK_EQ(ist_barrier_release(s, &a), 0);
    CHECK_EQ(passes(s, &b), 0);
    a = arrive(s);
    CHECK_EQ(ist_barrier_abort(s), 0);
    CHECK(info_of(s).broken);
    CHECK_EQ(passes(s, &a), -EPIPE);
    CHECK_EQ(ist_barrier_arrive(s, &w, &c), -EPIPE);
    CHECK_EQ(ist_barrier_reset(s), 0);
    CHECK(!info_of(s).broken);
    a = arrive(s);
    b = arrive(s);
    ist_barrier_withdraw(s, &b); /* the last: nobody would let a go */
    CHECK_EQ(passes(s, &a), -EPIPE);
    CHECK_EQ(ist_barrier_reset(s), 0);
    a = arrive(s);
    w = within(0.01);
    CHECK_EQ(ist_barrier_wait(s, &a, &w), -ETIMEDOUT);
    CHECK(info_of(s).broken);
    ist_sync_close(s);
    nothing_left();
}

Test(lock, a_late_look_finds_its_own_outcome) {
    ist_sync *s = make(IST_BARRIER, 2, 0);
    for (int late = 0; late < 10; late++) {
        ist_arrival a = arrive(s), b;
        if (late % 2 == 0)
            CHECK_EQ(ist_barrier_reset(s), 0);
        else {
            b = arrive(s);
            CHECK_EQ(ist_barrier_release(s, &b), 0);
        }
        for (int i = 0; i < late; i++) { /* rounds that end otherwise */
            b = arrive(s);
            ist_arrival c = arrive(s);
            if (late % 2 == 0)
                CHECK_EQ(ist_barrier_release(s, &c), 0);
            else {
                CHECK_EQ(ist_barrier_reset(s), 0);
                CHECK_EQ(ist_barrier_release(s, &c), -EPIPE);
            }
            CHECK_EQ(passes(s, &b), late % 2 == 0 ? 0 : -EPIPE);
        }
        CHECK_EQ(passes(s, &a), late % 2 == 0 && late < 8 ? -EPIPE : 0);
    }
    ist_sync_close(s);
    nothing_left();
}

static ist_arrival theirs;
static long arrive_it(void *unused) {
    (void)unused;
    theirs = arrive(held_sync);
    return theirs.last;
}
static long pass_it(void *unused) {
    (void)unused;
    return passes(held_sync, &theirs);
}

Test(lock, a_killed_waiter_breaks_the_barrier) {
    peer p = partner(IST_BARRIER);
    CHECK_EQ(peer_call(&p, arrive_it, NULL), 0);
    struct call c = {meet, held_sync, -1};
    pthread_t thread = test_thread(run_call, &c);
    while (info_of(held_sync).value != 2) {}
    peer_kill(&p);
    test_join(thread);
    CHECK_EQ(c.result, -EPIPE);
    CHECK(info_of(held_sync).broken);
    CHECK_EQ(ist_barrier_reset(held_sync), 0);
    ist_sweep();
    CHECK(!info_of(held_sync).broken); /* once */
    CHECK_EQ(detach(NULL), 0);
}

Test(lock, a_process_that_left_doesn_t_break_it) {
    peer p = partner(IST_BARRIER);
    CHECK_EQ(peer_call(&p, arrive_it, NULL), 0);
    ist_arrival a = arrive(held_sync), b = arrive(held_sync);
    CHECK_EQ(ist_barrier_release(held_sync, &b), 0);
    CHECK_EQ(passes(held_sync, &a), 0);
    CHECK_EQ(peer_call(&p, pass_it, NULL), 0);
    peer_kill(&p);
    CHECK_EQ(ist_sweep(), 1);
    CHECK(!info_of(held_sync).broken);
    CHECK_EQ(detach(NULL), 0);
}

/* ---- conditions */

static ist_wait their_wait;
static long begin_it(void *unused) {
    (void)unused;
    return ist_condition_begin(held_sync, board->number, &their_wait);
}

Test(lock, condition) {
    peer p = partner(IST_RLOCK);
    ist_wait a, b, other;
    uint64_t woken, another;
    CHECK_EQ(ist_condition_create(held_sync, &board->number), 0);
    CHECK_EQ(ist_condition_create(held_sync, &another), 0);
    CHECK_EQ(ist_condition_begin(held_sync, another, &other), 0); /* of the same lock: isn't meant */
    CHECK_EQ(peer_call(&p, begin_it, NULL), 0);
    CHECK_EQ(ist_condition_begin(held_sync, board->number, &a), 0);
    CHECK_EQ(ist_condition_begin(held_sync, board->number, &b), 0);
    CHECK_EQ(ist_condition_notify(held_sync, board->number, 1, &woken), 0); /* theirs, which came first */
    CHECK_EQ(woken, 1);
    peer_kill(&p);
    CHECK_EQ(ist_sweep(), 1); /* passed on */
    CHECK_EQ(ist_wait_on(&a, 0, UINT64_MAX), 0);
    CHECK_EQ(ist_condition_notify(held_sync, board->number, 5, &woken), 0);
    CHECK_EQ(woken, 1);
    CHECK_EQ(ist_wait_on(&b, 0, UINT64_MAX), 0);
    CHECK_EQ(ist_condition_notify(held_sync, board->number, 1, &woken), 0);
    CHECK_EQ(woken, 0);
    CHECK_EQ(ist_wait_on(&other, 0, UINT64_MAX), -ETIMEDOUT);
    CHECK_EQ(detach(NULL), 0);
}

/* ---- listening */

static bool readable(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}
static bool fd_is_readable(void *fd) { return readable(*(int *)fd); }

Test(lock, descriptor) {
    ist_sync *s = make(IST_LOCK, 0, 0);
    int fd, again;
    CHECK_EQ(lock_now(s), 0);
    CHECK_EQ(ist_sync_fileno(s, &fd), 0);
    CHECK_EQ(ist_sync_fileno(s, &again), 0);
    CHECK_EQ(fd, again);
    CHECK(!readable(fd));
    CHECK_EQ(ist_lock_unlock(s), 0);
    CHECK(readable(fd));
    ist_sync_clear(s);
    CHECK(!readable(fd));
    ist_sync_tell(s); /* it is free */
    CHECK(readable(fd));
    CHECK_EQ(lock_now(s), 0);
    ist_sync_clear(s);
    ist_sync_tell(s);
    CHECK(!readable(fd));
    ist_sync_close(s);
    s = make(IST_BARRIER, 2, 0);
    CHECK_EQ(ist_sync_fileno(s, &fd), -EINVAL);
    ist_sync_close(s);
    nothing_left();
}

Test(lock, descriptor_hears_of_other_processes) {
    peer p = partner(IST_LOCK);
    int fd;
    CHECK_EQ(peer_call(&p, lock_it, NULL), 0);
    CHECK_EQ(ist_sync_fileno(held_sync, &fd), 0);
    CHECK(!readable(fd));
    CHECK_EQ(peer_call(&p, unlock_it, NULL), 0);
    CHECK(test_until(fd_is_readable, &fd, 10));
    CHECK_EQ(peer_call(&p, lock_it, NULL), 0);
    ist_sync_clear(held_sync);
    peer_kill(&p);
    CHECK_EQ(ist_sweep(), 1); /* abandoned: somebody has to be told */
    CHECK(test_until(fd_is_readable, &fd, 10));
    CHECK_EQ(lock_now(held_sync), -EOWNERDEAD);
    CHECK_EQ(detach(NULL), 0);
}

/* ---- wrong use, garbage, failures */

Test(lock, bad_arguments) {
    ist_sync *s;
    CHECK_EQ(ist_sync_create((ist_sync_type)0, 0, 0, &s), -EINVAL);
    CHECK_EQ(ist_sync_create((ist_sync_type)6, 0, 0, &s), -EINVAL);
    CHECK_EQ(ist_sync_create(IST_SEMAPHORE, 3, 2, &s), -EINVAL);
    CHECK_EQ(ist_sync_create(IST_SEMAPHORE, 0, (uint64_t)IST_SEMAPHORE_MOST + 1, &s), -EINVAL);
    CHECK_EQ(ist_sync_create(IST_BARRIER, 0, 0, &s), -EINVAL);
    CHECK_EQ(ist_sync_create(IST_BARRIER, IST_BARRIER_MOST + 1, 0, &s), -EINVAL);
    CHECK_EQ(ist_sync_create(IST_LOCK, 1, 0, &s), -EINVAL);
    ist_segment memory = test_create(4096, IST_ZERO);
    CHECK_EQ(ist_sync_open(memory, &s), -EINVAL);
    ist_token token = test_token(memory);
    CHECK_EQ(ist_sync_attach(&token, &s), -EINVAL);
    CHECK_EQ(test_owners(memory), 1);
    ist_segment_release(memory);
    s = make(IST_EVENT, 0, 0);
    ist_waiting w = at_once();
    CHECK_EQ(ist_lock_lock(s, 0, &w), -EINVAL);
    CHECK_EQ(ist_lock_unlock(s), -EINVAL);
    CHECK_EQ(ist_semaphore_take(s, &w), -EINVAL);
    CHECK_EQ(ist_barrier_reset(s), -EINVAL);
    CHECK_EQ(ist_condition_begin(s, 1, NULL), -EINVAL);
    CHECK_EQ(ist_segment_freeze(ist_sync_segment(s)), -EINVAL);
    ist_sync_close(s);
    nothing_left();
}

Test(lock, garbage_is_never_waited_for) {
    uint64_t seed = test_seed();
    for (int i = 0; i < 3000; i++) {
        const ist_sync_type type = (ist_sync_type)(1 + i % 5);
        ist_sync *s = make(type, type == IST_BARRIER ? 2 : 0, 0);
        const uint64_t word = i < 600 ? UINT64_MAX << i / 10 : test_random(&seed) >> test_random(&seed) % 64;
        atomic_store_explicit(&s->memory->word, word, memory_order_relaxed);
        atomic_store_explicit(&s->memory->event, (uint32_t)test_random(&seed), memory_order_relaxed);
        atomic_store_explicit(&s->memory->count, (uint32_t)test_random(&seed), memory_order_relaxed);
        ist_waiting w = within(0.0001);
        ist_arrival a;
        switch (type) {
        case IST_LOCK:
        case IST_RLOCK:
            (void)!ist_lock_lock(s, 0, &w);
            (void)!ist_lock_unlock(s);
            break;
        case IST_SEMAPHORE:
            (void)!ist_semaphore_take(s, &w);
            (void)!ist_semaphore_post(s, 1);
            break;
        case IST_EVENT:
            (void)!ist_event_wait(s, &w);
            (void)!ist_event_set(s);
            break;
        case IST_BARRIER:
            if (ist_barrier_arrive(s, &w, &a) == 0)
                (void)!ist_barrier_wait(s, &a, &w);
            (void)!ist_barrier_abort(s);
            (void)!ist_barrier_reset(s);
            break;
        }
        ist_sync_close(s);
    }
    nothing_left();
}

Test(lock, an_owner_that_can_t_be_is_dead) {
    ist_sync *s = make(IST_LOCK, 0, 0);
    const uint32_t nobody[] = {s->d->me + 5, s->d->members + 3, 4000};
    for (int i = 0; i < 3; i++) {
        atomic_store_explicit(&s->memory->word, (uint64_t)(nobody[i] + 1) << 4 | UINT64_C(7) << 32, memory_order_relaxed);
        CHECK_EQ(lock_now(s), -EAGAIN);
        CHECK_EQ(lock_soon(s), -EOWNERDEAD);
        CHECK_EQ(lock_now(s), 0);
    }
    ist_sync_close(s);
    nothing_left();
}

Test(lock, memory_that_makes_no_sense) {
    ist_sync *s = make(IST_BARRIER, 3, 0), *again;
    ist_segment segment = ist_sync_segment(s);
    struct isti_sync_memory good = {.magic = s->memory->magic, .type = s->memory->type, .limit = s->memory->limit};
    ist_segment_retain(segment);
    s->memory->magic++;
    CHECK_EQ(ist_sync_open(segment, &again), -EBADMSG);
    s->memory->magic = good.magic;
    s->memory->type = 9;
    CHECK_EQ(ist_sync_open(segment, &again), -EBADMSG);
    s->memory->type = good.type;
    s->memory->limit = 0;
    CHECK_EQ(ist_sync_open(segment, &again), -EBADMSG);
    s->memory->limit = UINT64_MAX;
    CHECK_EQ(ist_sync_open(segment, &again), -EBADMSG);
    s->memory->limit = good.limit;
    CHECK_EQ(ist_sync_open(segment, &again), 0);
    ist_sync_close(again);
    ist_sync_close(s);
    nothing_left();
}

static int failing_at;
static void *f_calloc(size_t count, size_t size) { return --failing_at == 0 ? NULL : calloc(count, size); }

Test(lock, without_memory) {
    ist_sync *s = make(IST_LOCK, 0, 0); /* so that the heap is there */
    isti_os.calloc = f_calloc;
    int failures = 0, error = -1;
    for (int n = 1; error != 0; n++) {
        ist_sync *other;
        failing_at = n;
        error = ist_sync_create(IST_BARRIER, 2, 0, &other);
        if (error == 0)
            ist_sync_close(other);
        else {
            CHECK_EQ(error, -ENOMEM);
            failures++;
        }
        CHECK(n < 100);
    }
    CHECK(failures > 0);
    ist_sync_close(s);
    nothing_left();
}
