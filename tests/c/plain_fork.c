/* plain_fork.c: fork at any moment of other threads' work (F1, H2): the child holds no lock, hands out no slot twice, and disturbs
 * nobody. */
#include "harness.h"
#include "slab.h"

#include <isthmus/lease.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { THREADS = 2, POOL = 64 };

static _Atomic(bool) over;

/* Segments that live in the parent at any moment: index + 1 and generation, each with one owner that is the pool. Threads swap new ones
 * in. */
static _Atomic(uint64_t) pool[POOL];
static _Atomic(uint64_t) steps;

static uint64_t name_of(ist_segment s) { return (uint64_t)s.generation << 32 | (s.index + 1u); }

static ist_segment handle_of(uint64_t name) {
    uint32_t index = (uint32_t)name - 1;
    return (ist_segment){.slot = isti_slab_slot(index), .generation = (uint32_t)(name >> 32), .index = index};
}

static void destroy(void *ctx, void *data, size_t size) {
    (void)ctx, (void)size;
    free(data);
}

/* What asks malloc is left out under AddressSanitizer: its locks aren't told of a fork, so a child would wait for one that another thread
 * held. */
static void *hammer(void *argument) {
    uint64_t random = test_seed() * (2 * (uintptr_t)argument + 3) | 1;
    /* relaxed, here and below: told when to stop, no data with it */
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        ist_segment s[8];
        size_t n = 1 + test_random(&random) % 8;
        for (size_t i = 0; i < n; i++) {
            if (test_random(&random) % 16 == 0 && !TEST_ASAN)
                CHECK_EQ(ist_segment_wrap(malloc(32), 32, destroy, NULL, 0, &s[i]), 0);
            else
                s[i] = test_create(test_random(&random) % 5000, 0);
        }
        uint64_t what = test_random(&random);
        if (what % 4 == 0 && !TEST_ASAN) {
            uint64_t number;
            CHECK_EQ(ist_lease_take(s[0], &number), 0);
            ist_token token = test_token(s[0]);
            ist_segment t;
            CHECK_EQ(ist_lease_load(&token, number, &t), 0);
            ist_segment_release(t);
        }
        if (what % 64 == 1)
            test_stats();
        if (what % 256 == 2)
            ist_collect();
        /* acq_rel: hands one segment over, takes another */
        uint64_t other = atomic_exchange_explicit(&pool[what / 256 % POOL], name_of(s[n - 1]), memory_order_acq_rel);
        s[n - 1] = handle_of(other);
        for (size_t i = 0; i < n; i++)
            ist_segment_release(s[i]);
        atomic_fetch_add_explicit(&steps, 1, memory_order_relaxed);
    }
    return NULL;
}

/* ---- a child of fork, other threads having been anywhere */

static ist_segment kept[200];

static void child(void *unused) {
    (void)unused;
    enum { COUNT = 400 }; /* more than all magazines together */
    static ist_segment s[COUNT];
    static bool taken[1 << 20];
    for (int i = 0; i < POOL; i++) {
        ist_segment live = handle_of(atomic_load_explicit(&pool[i], memory_order_relaxed));
        CHECK(live.index < 1 << 20);
        if (test_owners(live) == 1 &&
            (uint32_t)(atomic_load_explicit(&live.slot->state, memory_order_relaxed) & IST_GENERATION_MASK) == live.generation)
            taken[live.index] = true; /* lives in this child's copy, too */
    }
    CHECK_EQ(test_stats().leases, 0);
    for (int i = 0; i < COUNT; i++) {
        size_t size = (size_t)i * 4096 / COUNT + 1;
        s[i] = test_create(size, i % 2 ? IST_ZERO : 0);
        CHECK(s[i].index < 1 << 20 && !taken[s[i].index], "slot %u was handed out twice", s[i].index);
        taken[s[i].index] = true;
        test_fill(ist_segment_data(s[i]), size, (uint64_t)i);
    }
    uint64_t number;
    ist_token token = test_token(s[0]);
    CHECK_EQ(ist_lease_take(s[0], &number), 0);
    ist_segment t;
    CHECK_EQ(ist_lease_load(&token, number, &t), 0);
    ist_segment_release(t);
    for (int i = 0; i < 200; i++)
        ist_segment_release(kept[i]);
    ist_collect();
    for (int i = 0; i < COUNT; i++) {
        CHECK(test_filled(ist_segment_data(s[i]), (size_t)i * 4096 / COUNT + 1, (uint64_t)i));
        CHECK_EQ(test_owners(s[i]), 1);
        ist_segment_release(s[i]);
    }
    CHECK_EQ(test_stats().misuses + test_stats().saturated, 0);
}

/* ---- a child of a raw clone: nobody has unlocked anything for it */

static void raw_child(void) {
    ist_token token = {{0}};
    ist_segment s;
    uint64_t number;
    ist_stats stats = {.struct_size = sizeof stats};
    ist_options options = {.struct_size = sizeof options};
    uint8_t id[16];
    int wrong = 0;
    wrong |= ist_epoch() != 0 ? 1 : 0;
    wrong |= ist_segment_create(100, 0, &s) != -ENOTRECOVERABLE ? 2 : 0;
    wrong |= ist_segment_acquire(&token, &s) != -ENOTRECOVERABLE ? 4 : 0;
    wrong |= ist_lease_take(kept[0], &number) != -ENOTRECOVERABLE ? 8 : 0;
    wrong |= ist_domain_id(id) != -ENOTRECOVERABLE ? 16 : 0;
    wrong |= ist_stats_read(&stats) != -ENOTRECOVERABLE || ist_configure(&options) != -ENOTRECOVERABLE ? 32 : 0;
    wrong |= ist_collect() != 0 || ist_lease_expire() != 0 ? 64 : 0;
    ist_lease_strike(&token, 1);
    for (int i = 0; i < 200; i++)
        ist_segment_release(kept[i]);
    _exit(wrong);
}

int main(void) {
    const int forks = TEST_TSAN ? 40 : TEST_ASAN ? 100 : 300;
    for (int i = 0; i < 200; i++) {
        kept[i] = test_create((size_t)i * 20 + 1, 0);
        test_fill(ist_segment_data(kept[i]), (size_t)i * 20 + 1, (uint64_t)i);
    }
    for (int i = 0; i < POOL; i++)
        atomic_store_explicit(&pool[i], name_of(test_create(100, 0)), memory_order_relaxed);
    test_seed();
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        threads[i] = test_thread(hammer, (void *)i);
    while (atomic_load_explicit(&steps, memory_order_relaxed) < 100) /* relaxed: a count. Then both have what they allocate at first */
        sched_yield();
    uint64_t end = test_storm_end(0);
    int done = 0;
    for (; done < forks || test_now() < end; done++) {
        int status = test_in_child(child, NULL, 60);
        CHECK(status == 0, "fork %d: wait status %#x", done, status);
        for (int k = 0; k < 200; k++)
            CHECK(test_filled(ist_segment_data(kept[k]), (size_t)k * 20 + 1, (uint64_t)k), "the child wrote to block %d", k);
    }
    int raw = 0;
    for (; !TEST_TSAN && !TEST_ASAN && raw < forks; raw++) { /* a sanitizer's own locks aren't told of a raw clone */
        pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
        if (pid == 0)
            raw_child();
        int status = test_wait(pid, 20);
        CHECK(status == 0, "raw clone %d: wait status %#x", raw, status);
    }
    atomic_store_explicit(&over, true, memory_order_relaxed);
    for (int i = 0; i < THREADS; i++)
        test_join(threads[i]);
    printf("%d forks and %d raw clones during %llu steps\n", done, raw, (unsigned long long)steps);
    for (int i = 0; i < POOL; i++)
        ist_segment_release(handle_of(pool[i]));
    for (int i = 0; i < 200; i++)
        ist_segment_release(kept[i]);
    CHECK_EQ(test_stats().segments + test_stats().misuses + test_stats().saturated, 0);
    CHECK(steps > 100);
    return 0;
}
