/* plain_wait.c: wait and notify by threads of several processes at once.
 *
 * A ring of counters: who is at `turn` moves it on and notifies the next, and everybody sleeps for its own turn; and a store of tokens,
 * from which some take and to which others give, one notification each, while others come and go with timeouts. A wake-up that is lost
 * stops either for ever, which the deadline turns into a failure.
 */
#include "harness.h"

#include <isthmus/atomic.h>
#include <isthmus/process.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { RING = 3, TAKERS = 4, PROCESSES = 2, PATIENCE = 60 };

struct shared {
    _Atomic(uint32_t) turn;    /* of the ring; each waits on it for its number */
    _Atomic(uint32_t) tokens;  /* waited on while it is 0 */
    _Atomic(uint32_t) over;
    _Atomic(uint64_t) rounds, taken, given, timeouts, waits;
};

static ist_segment segment;
static struct shared *shared;
static uint64_t end_of_storm;

static uint64_t count(_Atomic(uint64_t) *n) { return atomic_fetch_add_explicit(n, 1, memory_order_relaxed); }
static uint32_t load(_Atomic(uint32_t) *word) { return atomic_load_explicit(word, memory_order_seq_cst); }

/* 0, -EAGAIN or -ETIMEDOUT */
static int wait_while(_Atomic(uint32_t) *word, uint32_t value, uint64_t deadline) {
    ist_wait w;
    int error = ist_wait_begin(segment, (size_t)((char *)word - (char *)shared), NULL, 4, value, &w);
    if (error != 0) {
        CHECK_EQ(error, -EAGAIN);
        return error;
    }
    count(&shared->waits);
    while ((error = ist_wait_on(&w, deadline, UINT64_MAX)) == -EINTR)
        ;
    return error;
}

static void wake(_Atomic(uint32_t) *word, uint64_t n) {
    uint64_t woken;
    CHECK_EQ(ist_notify(segment, (size_t)((char *)word - (char *)shared), n, &woken), 0);
    CHECK(woken <= n);
}

static void *ring(void *argument) {
    const uint32_t me = (uint32_t)(uintptr_t)argument;
    for (;;) {
        uint32_t turn;
        while ((turn = load(&shared->turn)) % (RING * PROCESSES) != me && load(&shared->over) == 0)
            CHECK(wait_while(&shared->turn, turn, test_now() + PATIENCE * UINT64_C(1000000000)) != -ETIMEDOUT, "the ring stands still");
        if (load(&shared->over) != 0)
            return NULL;
        if (me == 0 && test_now() >= end_of_storm)
            atomic_store_explicit(&shared->over, 1, memory_order_seq_cst);
        count(&shared->rounds);
        atomic_fetch_add_explicit(&shared->turn, 1, memory_order_seq_cst);
        wake(&shared->turn, UINT64_MAX);
    }
}

static bool take(void) {
    uint32_t n = load(&shared->tokens);
    while (n > 0)
        if (atomic_compare_exchange_weak_explicit(&shared->tokens, &n, n - 1, memory_order_seq_cst, memory_order_seq_cst))
            return true;
    return false;
}

/* Takes until there is nothing more to come; sleeps without a limit, or for a moment. */
static void *taker(void *argument) {
    uint64_t random = (uint64_t)(uintptr_t)argument * UINT64_C(0x9e3779b97f4a7c15) | 1;
    for (;;) {
        if (take()) {
            count(&shared->taken);
            continue;
        }
        if (load(&shared->over) == 2)
            return NULL;
        const bool hasty = (uintptr_t)argument % 2 == 0;
        uint64_t limit = hasty ? test_random(&random) % 200000 : PATIENCE * UINT64_C(1000000000);
        if (wait_while(&shared->tokens, 0, test_now() + limit) == -ETIMEDOUT) {
            CHECK(hasty, "tokens are there or the end has come, and nobody woke us");
            count(&shared->timeouts);
        }
    }
}

static void give(void) {
    uint64_t random = test_seed();
    while (load(&shared->over) == 0) {
        atomic_fetch_add_explicit(&shared->tokens, 1, memory_order_seq_cst);
        count(&shared->given);
        wake(&shared->tokens, 1);
        for (uint64_t n = test_random(&random) % 2000; n > 0; n--)
            atomic_signal_fence(memory_order_seq_cst);
    }
}

/* `first`: the number of its first thread in the ring. */
static void play(uint32_t first, bool gives) {
    pthread_t threads[RING + TAKERS];
    for (uintptr_t i = 0; i < RING; i++)
        threads[i] = test_thread(ring, (void *)(first + i));
    for (uintptr_t i = 0; i < TAKERS; i++)
        threads[RING + i] = test_thread(taker, (void *)(first + i));
    if (gives) {
        give();
        /* all tokens are taken before anybody is told that there are no more: else who sleeps on 0 wouldn't be wrong to */
        while (load(&shared->tokens) != 0)
            wake(&shared->tokens, 1);
        atomic_store_explicit(&shared->over, 2, memory_order_seq_cst);
        atomic_fetch_add_explicit(&shared->tokens, TAKERS * PROCESSES, memory_order_seq_cst); /* another value: nobody sleeps on */
        wake(&shared->tokens, UINT64_MAX);
    }
    for (int i = 0; i < RING + TAKERS; i++)
        test_join(threads[i]);
}

static void child(void *unused) {
    (void)unused;
    play(RING, false);
}

static void *beside(void *unused) {
    child(unused);
    return NULL;
}

int main(void) {
    end_of_storm = test_storm_end(1.5);
    segment = test_create(sizeof(struct shared), IST_ZERO);
    shared = ist_segment_data(segment);
    ist_token token = test_token(segment);
    (void)token;
    /* ThreadSanitizer doesn't follow what several processes do: there the second process is threads of this one. Forked before there are
     * threads: AddressSanitizer's allocator has no fork handlers. */
    pthread_t other;
    pid_t pid = -1;
    if (TEST_TSAN)
        other = test_thread(beside, NULL);
    else
        pid = test_child(child, NULL);
    play(0, true);
    if (TEST_TSAN)
        test_join(other);
    else
        CHECK_EQ(test_wait(pid, PATIENCE * 2), 0);
    printf("%llu rounds of a ring of %d; %llu tokens given, %llu taken; %llu waits, %llu timeouts\n", (unsigned long long)shared->rounds,
           RING * PROCESSES, (unsigned long long)shared->given, (unsigned long long)shared->taken, (unsigned long long)shared->waits,
           (unsigned long long)shared->timeouts);
    CHECK_EQ(shared->given + TAKERS * PROCESSES - shared->tokens, shared->taken);
    CHECK(shared->waits > 100 && shared->rounds > 100);
    ist_segment_release(segment);
    ist_sweep();
    CHECK_EQ(test_stats().segments, 0);
    return 0;
}
