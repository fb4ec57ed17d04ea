/* plain_memory.c: freed memory returns to the system with nobody calling (H5), and the housekeeper that sees to it ends by itself. */
#include "harness.h"

#include <isthmus/lease.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((size_t)1 << 20)
#define TOTAL ((TEST_TSAN || TEST_ASAN ? 64 : 512) * MIB)

static unsigned threads_before;
static uint64_t target;

static bool returned(void *unused) {
    (void)unused;
    return test_stats().mapped <= target;
}

static bool housekeeper_ended(void *unused) {
    (void)unused;
    return test_threads() == threads_before;
}

static void touch_and_free(size_t size) {
    const size_t total = size == 64 << 10 ? TOTAL / 4 : TOTAL;
    size_t count = total / size;
    ist_segment *s = malloc(count * sizeof *s);
    CHECK(s != NULL);
    for (size_t i = 0; i < count; i++) {
        s[i] = test_create(size, 0);
        memset(ist_segment_data(s[i]), 1, size);
    }
    CHECK(test_stats().mapped >= total, "%llu mapped", (unsigned long long)test_stats().mapped);
    for (size_t i = 0; i < count; i++)
        ist_segment_release(s[(i * 7919) % count]); /* out of order; 7919 is a prime */
    free(s);
    uint64_t begin = test_now();
    /* what stays is this thread's own cache of free blocks: four of the size at most, see shm/README.md */
    target = size >= MIB ? 5 * MIB : 2 * MIB;
    bool there = test_until(returned, NULL, 3);
    printf("%zu MiB in blocks of %zu: %llu KiB left after %.2f s\n", total / MIB, size, (unsigned long long)test_stats().mapped / 1024,
           (double)(test_now() - begin) / 1e9);
    CHECK(there, "%llu of %zu bytes stay mapped", (unsigned long long)test_stats().mapped, total);
    CHECK(test_until(housekeeper_ended, NULL, 20), "%u threads, %u before", test_threads(), threads_before);
    printf("the housekeeper ended after %.2f s\n", (double)(test_now() - begin) / 1e9);
}

/* Another thread frees, and ends; nobody calls afterwards. */
static void *freer(void *argument) {
    ist_segment *s = argument;
    for (int i = 0; i < 32; i++)
        ist_segment_release(s[i]);
    return NULL;
}

static void freed_by_a_thread_that_ends(void) {
    ist_segment s[32];
    for (int i = 0; i < 32; i++) {
        s[i] = test_create(MIB, 0);
        memset(ist_segment_data(s[i]), 1, MIB);
    }
    test_join(test_thread(freer, s));
    target = 6 * MIB;
    CHECK(test_until(returned, NULL, 3), "%llu bytes stay mapped", (unsigned long long)test_stats().mapped);
    CHECK(test_until(housekeeper_ended, NULL, 10));
}

static bool lease_ended(void *unused) {
    (void)unused;
    return test_stats().leases == 0;
}

static void lease_ends_by_itself(void) {
    ist_lease_set_duration(50000000);
    ist_segment s = test_create(MIB, 0);
    uint64_t number;
    CHECK_EQ(ist_lease_take(s, &number), 0);
    ist_segment_release(s);
    CHECK_EQ(test_stats().segments, 1);
    CHECK(test_until(lease_ended, NULL, 5));
    CHECK_EQ(test_stats().segments, 0);
    CHECK_EQ(test_stats().leases_expired, 1); /* and the housekeeper stays: other processes may come */
}

static void *nothing(void *unused) { return unused; }

int main(void) {
    test_join(test_thread(nothing, NULL)); /* a sanitizer starts a thread of its own with the first */
    threads_before = test_threads();
    touch_and_free(MIB);
    touch_and_free(4096);
    touch_and_free(64 << 10);
    freed_by_a_thread_that_ends();
    lease_ends_by_itself();
    return 0;
}
