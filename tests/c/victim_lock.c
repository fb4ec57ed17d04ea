/* victim_lock.c: the part of plain_killpoints that is about locks and the like: see victim.h.
 *
 * The supervisor's lock guards two counters that are equal whenever nobody has it, but where its owner died: then it is told so, and
 * repairs them.
 */
#include "harness.h"
#include "victim.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

static ist_sync *make(ist_sync_type type, uint64_t value) {
    ist_sync *s;
    CHECK_EQ(ist_sync_create(type, value, 0, &s), 0);
    return s;
}

static ist_waiting until(uint64_t ns) { return (ist_waiting){.deadline = test_now() + ns, .patience = UINT64_MAX}; }

/* Takes it, counts, and gives it back. Somebody who stands still may have it. */
bool victim_count(struct victim_counters *c, ist_sync *s, uint64_t ns) {
    ist_waiting w = until(ns);
    const int error = ist_lock_lock(s, 0, ns == 0 ? NULL : &w);
    if (error == -EOWNERDEAD)
        atomic_fetch_add_explicit(&c->told, 1, memory_order_relaxed); /* relaxed: a statistic */
    CHECK(error == 0 || error == -EOWNERDEAD || error == -EAGAIN || error == -ETIMEDOUT, "%s", ist_strerror(error));
    if (error != 0)
        return false;
    if (c->first != c->second) { /* half done by somebody who died; who was told so may have died as well */
        CHECK(atomic_load_explicit(&c->told, memory_order_relaxed) > 0);
        c->second = c->first;
    }
    c->first++;
    c->second++;
    CHECK_EQ(ist_lock_unlock(s), 0);
    return true;
}

static void locks(void) {
    ist_sync *s = make(IST_LOCK, 0);
    uint32_t holder;
    CHECK_EQ(ist_lock_lock(s, 0, NULL), 0);
    ist_waiting w = until(4000000);
    CHECK_EQ(ist_lock_lock(s, 0, &w), -ETIMEDOUT);
    CHECK_EQ(ist_lock_unlock(s), 0);
    CHECK_EQ(ist_holder_begin(&holder), 0);
    w = until(4000000);
    CHECK_EQ(ist_lock_lock(s, holder, &w), 0);
    ist_holder_end(holder);
    CHECK_EQ(ist_lock_lock(s, 0, &w), -EOWNERDEAD);
    CHECK_EQ(ist_lock_lock(s, 0, &w), 0);
    ist_sync_close(s); /* and nobody could give it back */
    s = make(IST_SEMAPHORE, 1);
    CHECK_EQ(ist_semaphore_take(s, NULL), 0);
    CHECK_EQ(ist_semaphore_post(s, 1), 0);
    ist_sync_close(s);
    s = make(IST_EVENT, 0);
    CHECK_EQ(ist_event_set(s), 0);
    CHECK_EQ(ist_event_clear(s), 0);
    ist_sync_close(s);
}

static void barriers(void) {
    ist_sync *s = make(IST_BARRIER, 2);
    ist_arrival a, b;
    ist_waiting w = until(UINT64_C(10000000000));
    CHECK_EQ(ist_barrier_arrive(s, &w, &a), 0);
    CHECK_EQ(ist_barrier_arrive(s, &w, &b), 0);
    CHECK_EQ(ist_barrier_release(s, &b), 0);
    CHECK_EQ(ist_barrier_wait(s, &a, &w), 0);
    ist_sync_close(s);
}

static bool is_broken(void *barrier) {
    ist_sync_info info;
    ist_sync_read_info(barrier, &info);
    return info.broken;
}

/* A helper dies inside a barrier, with a lock, about to wake somebody. */
static void swept(void) {
    ist_sync *lock = make(IST_RLOCK, 0), *barrier = make(IST_BARRIER, 3);
    pid_t helper = victim_fork();
    if (helper == 0) {
        ist_arrival a;
        CHECK_EQ(ist_lock_lock(lock, 0, NULL), 0);
        CHECK_EQ(ist_barrier_arrive(barrier, NULL, &a), 0);
        kill(getpid(), SIGKILL);
    }
    victim_end_of(helper, true);
    ist_sweep(); /* by us, or by another just before */
    ist_waiting w = until(UINT64_C(10000000000));
    CHECK_EQ(ist_lock_lock(lock, 0, &w), -EOWNERDEAD);
    CHECK_EQ(ist_lock_lock(lock, 0, &w), 0);
    CHECK_EQ(ist_lock_unlock(lock), 0);
    CHECK(test_until(is_broken, barrier, 10)); /* another may be at it */
    ist_sync_close(lock);
    ist_sync_close(barrier);
}

void victim_locks(struct victim_counters *counters, const ist_token *token) {
    ist_sync *s;
    CHECK_EQ(ist_sync_attach(token, &s), 0);
    for (int i = 0; i < 3; i++)
        victim_count(counters, s, 1000000);
    ist_sync_close(s);
    locks();
    barriers();
    swept();
}
