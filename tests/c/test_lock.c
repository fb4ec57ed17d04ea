/* test_lock.c: locks (K1 to K5): results, other processes, the dead, holders, fork, who goes first. */
#include "locks.h"

#include <criterion/criterion.h>
#include <stdlib.h>

TestSuite(lock, .init = board_begin, .timeout = 60);

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

static ist_sync *also; /* a Lock that the same thread takes */
static int lock_and_end(ist_sync *s) { return lock_now(s) | lock_now(also); }

Test(lock, a_thread_that_ends_abandons_its_rlock_and_not_its_lock) {
    ist_sync *r = make(IST_RLOCK, 0, 0), *l = make(IST_LOCK, 0, 0);
    also = l;
    CHECK_EQ(elsewhere(lock_and_end, r), 0);
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

/* ---- time */

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

/* Where nobody sweeps, a waiter finds out by itself; also one whose calls are all shorter than the time after which it looks. */
Test(lock, killed_owner_of_one_who_waits_in_short_calls) {
    ist_options options = {.struct_size = sizeof options, .flags = IST_OPTION_NO_HOUSEKEEPER};
    CHECK_EQ(ist_configure(&options), 0);
    peer p = partner(IST_LOCK);
    CHECK_EQ(peer_call(&p, lock_it, NULL), 0);
    peer_kill(&p);
    ist_waiting w = {.deadline = UINT64_MAX, .patience = 5000000};
    int error;
    unsigned calls = 0;
    while ((error = ist_lock_lock(held_sync, 0, &w)) == -EINTR)
        CHECK(++calls < 400, "nobody has noticed for two seconds");
    CHECK_EQ(error, -EOWNERDEAD);
    CHECK(calls > 0);
    CHECK_EQ(detach(NULL), 0);
}

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
