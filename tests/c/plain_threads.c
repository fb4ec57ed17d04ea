/* plain_threads.c: threads come and go: their blocks and slots come back, and the counters they leave behind are right. */
#include "harness.h"
#include "os.h"
#include "slab.h"

#include <isthmus/lease.h>
#include <isthmus/process.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static _Atomic(long) blocks;
static struct isti_os real;

static void *counted_calloc(size_t count, size_t size) {
    void *block = real.calloc(count, size);
    atomic_fetch_add_explicit(&blocks, block != NULL, memory_order_relaxed); /* relaxed: a statistic */
    return block;
}
static void counted_free(void *block) {
    atomic_fetch_sub_explicit(&blocks, block != NULL, memory_order_relaxed);
    real.free(block);
}

static void *short_life(void *argument) {
    uintptr_t i = (uintptr_t)argument;
    ist_segment s[5];
    for (int k = 0; k < 5; k++) {
        s[k] = test_create(i * 7 % 5000, 0);
        test_fill(ist_segment_data(s[k]), i * 7 % 5000, i);
    }
    ist_count_copied(3);
    ist_count_in_flight(1);
    ist_count_in_flight(-1);
    for (int k = 0; k < 5; k++)
        ist_segment_release(s[k]);
    return NULL;
}

static void many(int count) {
    for (int i = 0; i < count; i += 4) {
        pthread_t threads[4];
        for (int k = 0; k < 4; k++)
            threads[k] = test_thread(short_life, (void *)(uintptr_t)(i + k));
        for (int k = 0; k < 4; k++)
            test_join(threads[k]);
    }
}

static void short_lived_threads(void) {
    const int count = TEST_TSAN ? 4000 : 20000;
    many(1000);
    long blocks_before = blocks;
    size_t resident = test_resident();
    uint32_t high = isti_slab_high();
    many(count);
    ist_stats stats = test_stats();
    CHECK_EQ(blocks, blocks_before);
    CHECK_EQ(stats.segments + stats.allocated + stats.in_flight, 0);
    CHECK_EQ(stats.bytes_copied, 3 * (count + 1000));
    CHECK(isti_slab_high() <= high + 4 * ISTI_MAGAZINE, "%u slots, %u before", isti_slab_high(), high);
    size_t now = test_resident();
    printf("%d threads: %+ld KiB, %u slots\n", count, ((long)now - (long)resident) / 1024, isti_slab_high());
    CHECK(TEST_ASAN || TEST_TSAN || now < resident + (8 << 20), "%zu bytes, %zu before", now, resident);
}

/* ---- destructors of others that run after ours */

static pthread_key_t early, late, again, wrapped_late; /* made before and after the library's key */
static _Atomic(int) released;

static void release_late(void *argument) {
    ist_segment *s = argument;
    CHECK(test_filled(ist_segment_data(*s), 100, 5));
    ist_segment_release(*s);
    free(s);
    atomic_fetch_add_explicit(&released, 1, memory_order_relaxed);
}

/* Creates, too, and lets go in another round of destructors. jemalloc's own destructor has run by now, and the allocator serves such a
 * thread from an arena that isn't the heap's: a block of the heap, or none. */
static _Atomic(int) created, refused;
static void release_in_two_rounds(void *argument) {
    ist_segment *s = argument;
    ist_segment_release(*s);
    atomic_fetch_add_explicit(&released, 1, memory_order_relaxed);
    for (int i = 0; i < 3; i++) {
        int error = ist_segment_create(i == 1 ? 100000 : 100, i == 2 ? IST_ZERO : 0, s);
        CHECK(error == 0 || error == -ENOMEM, "%s", ist_strerror(error));
        atomic_fetch_add_explicit(error == 0 ? &created : &refused, 1, memory_order_relaxed);
        if (error != 0)
            continue;
        ist_segment found;
        CHECK_EQ(ist_segment_acquire_address(ist_segment_data(*s), &found), 0);
        ist_segment_release(found);
        ist_segment_release(*s);
    }
    ist_segment other = {0};
    CHECK_EQ(ist_segment_wrap(s, sizeof *s, NULL, NULL, 0, &other), 0); /* needs no heap */
    ist_segment *boxed_again = malloc(sizeof *boxed_again);
    *boxed_again = other;
    CHECK_EQ(pthread_setspecific(wrapped_late, boxed_again), 0);
    free(s);
}

static void release_wrapped(void *argument) {
    ist_segment *s = argument;
    ist_segment_release(*s);
    free(s);
    atomic_fetch_add_explicit(&released, 1, memory_order_relaxed);
}

static ist_segment *boxed(void) {
    ist_segment *s = malloc(sizeof *s);
    *s = test_create(100, 0);
    test_fill(ist_segment_data(*s), 100, 5);
    return s;
}

static void *with_keys(void *unused) {
    (void)unused;
    CHECK_EQ(pthread_setspecific(early, boxed()), 0);
    CHECK_EQ(pthread_setspecific(late, boxed()), 0);
    CHECK_EQ(pthread_setspecific(again, boxed()), 0);
    return NULL;
}

static void destructors_after_ours(void) {
    long blocks_before = blocks;
    const int count = 500;
    for (int i = 0; i < count; i++)
        test_join(test_thread(with_keys, NULL));
    CHECK_EQ(released, 4 * count);
    CHECK_EQ(created + refused, 3 * count);
    printf("%d creates in destructors, %d refused\n", created, refused);
    ist_stats stats = test_stats();
    CHECK_EQ(stats.segments + stats.allocated + stats.owners + stats.misuses, 0);
    CHECK_EQ(blocks, blocks_before);
}

/* A thread that only releases: what another one made. */
static void *only_releases(void *argument) {
    ist_segment_release(*(ist_segment *)argument);
    return NULL;
}

static void released_by_others(void) {
    for (int i = 0; i < 1000; i++) {
        ist_segment s = test_create(1000, 0);
        test_join(test_thread(only_releases, &s));
    }
    CHECK_EQ(test_stats().segments, 0);
    CHECK_EQ(test_stats().allocated, 0);
}

/* The same without memory for a block of the thread's own. */
static void *no_calloc(size_t count, size_t size) {
    (void)count, (void)size;
    return NULL;
}

static void released_without_a_block(void) {
    ist_segment s[50];
    for (int i = 0; i < 50; i++)
        s[i] = test_create(1000, 0);
    isti_os.calloc = no_calloc;
    for (int i = 0; i < 50; i++)
        test_join(test_thread(only_releases, &s[i]));
    isti_os.calloc = counted_calloc;
    CHECK_EQ(test_stats().segments, 0);
    CHECK_EQ(test_stats().allocated, 0);
    uint32_t high = isti_slab_high();
    for (int i = 0; i < 50; i++)
        s[i] = test_create(1000, 0);
    CHECK_EQ(isti_slab_high(), high); /* the slots came back as well */
    for (int i = 0; i < 50; i++)
        ist_segment_release(s[i]);
}

static void count_call(void *ctx, void *data, size_t size) {
    (void)data, (void)size;
    ++*(int *)ctx;
}

/* The heap is opened by the first thread that allocates, while others use the domain already: for memory that isn't the heap's. */
static pthread_barrier_t together;

static void *publishes_foreign_memory(void *destroyed) {
    static char outside[64];
    pthread_barrier_wait(&together);
    ist_segment s;
    CHECK_EQ(ist_segment_wrap(outside, sizeof outside, count_call, destroyed, 0, &s), 0);
    test_token(s);
    ist_segment_release(s);
    return NULL;
}

static void *opens_the_heap(void *unused) {
    (void)unused;
    pthread_barrier_wait(&together);
    ist_segment_release(test_create(1, 0));
    return NULL;
}

static void heap_opened_meanwhile(void) {
    int destroyed = 0;
    CHECK_EQ(ist_domain_join(), 0);
    CHECK_EQ(pthread_barrier_init(&together, NULL, 2), 0);
    pthread_t first = test_thread(publishes_foreign_memory, &destroyed), second = test_thread(opens_the_heap, NULL);
    test_join(first);
    test_join(second);
    CHECK_EQ(destroyed, 1);
}

int main(void) {
    heap_opened_meanwhile();
    real = isti_os;
    isti_os.calloc = counted_calloc;
    isti_os.free = counted_free;
    CHECK_EQ(pthread_key_create(&early, release_late), 0);
    ist_segment_release(test_create(1, 0));
    CHECK_EQ(pthread_key_create(&late, release_late), 0);
    CHECK_EQ(pthread_key_create(&again, release_in_two_rounds), 0);
    CHECK_EQ(pthread_key_create(&wrapped_late, release_wrapped), 0);
    short_lived_threads();
    destructors_after_ours();
    released_by_others();
    released_without_a_block();
    return 0;
}
