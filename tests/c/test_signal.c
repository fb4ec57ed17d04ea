/* test_signal.c: semaphores, events, barriers, conditions (K6 to K8), descriptors; and of locks, too: garbage, failures. */
#include "locks.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

TestSuite(signal, .init = board_begin, .timeout = 60);

/* ---- semaphores, events */

Test(signal, semaphore) {
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

Test(signal, a_permit_for_each_that_waits) {
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

Test(signal, as_many_are_woken_as_there_are_permits) {
    ist_sync *s = make(IST_SEMAPHORE, 0, 0);
    turn_time(ETIMEDOUT);
    ist_waiting w = {.deadline = UINT64_MAX, .patience = 100};
    CHECK_EQ(ist_semaphore_take(s, &w), -EINTR); /* somebody waits, as far as anybody knows */
    CHECK_EQ(ist_semaphore_post(s, 1), 0);
    CHECK_EQ(last_woken, 1);
    CHECK_EQ(ist_semaphore_post(s, 5), 0);
    CHECK(last_woken >= 5, "%d", last_woken);
    ist_sync_close(s);
    nothing_left();
}

Test(signal, event) {
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

Test(signal, an_event_that_was_set_and_cleared_wakes_who_waited) {
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

Test(signal, barrier_rounds) {
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

Test(signal, barrier_outcomes) {
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

Test(signal, a_late_look_finds_its_own_outcome) {
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

Test(signal, a_killed_waiter_breaks_the_barrier) {
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

Test(signal, a_process_that_left_doesn_t_break_it) {
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

Test(signal, condition) {
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

Test(signal, descriptor) {
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

Test(signal, descriptor_hears_of_other_processes) {
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

Test(signal, bad_arguments) {
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

Test(signal, garbage_is_never_waited_for) {
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

Test(signal, an_owner_that_can_t_be_is_dead) {
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

Test(signal, memory_that_makes_no_sense) {
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

Test(signal, without_memory) {
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
