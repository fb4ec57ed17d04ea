/* test_heap.c: size, limits, exhaustion, zeros and options of the heap (H1, H3, H4). plain_memory has the return of memory by itself. */
#include "harness.h"
#include "housekeeper.h"
#include "os.h"

#include <criterion/criterion.h>
#include <isthmus/lease.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

static void configure(size_t heap_size) {
    ist_options options = {.struct_size = sizeof options, .heap_size = heap_size};
    CHECK_EQ(ist_configure(&options), 0);
}

/* ---- limits */

struct limit {
    int resource;
    size_t bytes;
    size_t expected; /* of the heap; 0: none can be made */
};

static void run_limited(void *argument) {
    const struct limit *l = argument;
    struct rlimit limit = {.rlim_cur = l->bytes, .rlim_max = l->bytes};
    CHECK_EQ(setrlimit((unsigned)l->resource, &limit), 0);
    ist_segment s;
    int error = ist_segment_create(1000, IST_ZERO, &s);
    if (l->expected == 0) {
        CHECK_EQ(error, -ENOMEM);
        CHECK_EQ(ist_heap_size(), 0);
        CHECK_EQ(test_stats().segments, 0);
        CHECK_EQ(ist_segment_create(1000, IST_ZERO, &s), -ENOMEM);
        return;
    }
    CHECK(error == 0, "%s", ist_strerror(error));
    CHECK_EQ(ist_heap_size(), l->expected);
    size_t size = l->expected / 4 < 8 * MIB ? l->expected / 4 : 8 * MIB;
    ist_segment more = test_create(size, IST_PREFAULT);
    memset(ist_segment_data(more), 1, size);
    ist_segment_release(more);
    ist_segment_release(s);
}

Test(heap, fits_the_file_size_limit) {
    struct limit limits[] = {
        {RLIMIT_FSIZE, 100 * MIB, 64 * MIB}, {RLIMIT_FSIZE, 64 * MIB, 64 * MIB}, {RLIMIT_FSIZE, 64 * MIB - 1, 32 * MIB},
        {RLIMIT_FSIZE, 9 * MIB, 8 * MIB},    {RLIMIT_FSIZE, MIB - 1, 0},         {RLIMIT_FSIZE, 0, 0},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        CHECK_CHILD(run_limited, &limits[i], 30);
}

Test(heap, fits_the_address_space_limit) {
    if (TEST_ASAN)
        cr_skip("AddressSanitizer's shadow doesn't fit into a limited address space");
    struct limit limits[] = {
        {RLIMIT_AS, 100 * GIB, 64 * GIB}, {RLIMIT_AS, 66 * GIB, 32 * GIB}, {RLIMIT_AS, 3 * GIB, 2 * GIB}, {RLIMIT_AS, GIB, 512 * MIB}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        CHECK_CHILD(run_limited, &limits[i], 30);
}

/* ---- options */

struct environment {
    const char *text;
    size_t expected;
};

static void run_environment(void *argument) {
    const struct environment *e = argument;
    CHECK_EQ(setenv("ISTHMUS_HEAP_SIZE", e->text, 1), 0);
    ist_segment s;
    int error = ist_segment_create(100, 0, &s);
    CHECK(error == 0, "ISTHMUS_HEAP_SIZE='%s': %s", e->text, ist_strerror(error));
    CHECK(ist_heap_size() == e->expected, "ISTHMUS_HEAP_SIZE='%s' gives %zu, not %zu", e->text, ist_heap_size(), e->expected);
    ist_segment_release(s);
}

Test(heap, size_from_the_environment) {
    const size_t usual = 64 * GIB;
    struct environment cases[] = {
        {"1048576", MIB},
        {"64M", 64 * MIB},
        {"64m", 64 * MIB},
        {"2G", 2 * GIB},
        {"2048K", 2 * MIB},
        {"1T", 1024 * GIB},
        {"1048577", MIB + 65536},
        /* what makes no sense is as if it weren't there */
        {"", usual},
        {"0", usual},
        {"1", usual},
        {"1023K", usual},
        {"-5", usual},
        {" -5", usual},
        {"-1G", usual},
        {"5X", usual},
        {"5GG", usual},
        {"5GB", usual},
        {"G", usual},
        {"garbage", usual},
        {"0x10000000", usual},
        {"1 ", usual},
        {"5 G", usual},
        {"\t", usual},
        {"1e9", usual},
        {"99999999999999999999999", usual},
        {"18446744073709551615", usual},
        {"16777216T", usual},
        {"18446744073709551615T", usual},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_CHILD(run_environment, &cases[i], 30);
}

static void run_configure_beats_environment(void *unused) {
    (void)unused;
    setenv("ISTHMUS_HEAP_SIZE", "8M", 1);
    configure(32 * MIB);
    ist_segment_release(test_create(1, 0));
    CHECK_EQ(ist_heap_size(), 32 * MIB);
}

Test(heap, configure) {
    ist_options options = {.struct_size = sizeof options};
    cr_assert_eq(ist_configure(NULL), -EINVAL);
    cr_assert_eq(ist_configure(&(ist_options){.struct_size = 0}), -EINVAL);
    cr_assert_eq(ist_configure(&(ist_options){.struct_size = sizeof options - 8}), -EINVAL);
    options.heap_size = MIB - 1;
    cr_assert_eq(ist_configure(&options), -EINVAL);
    options.heap_size = SIZE_MAX;
    cr_assert_eq(ist_configure(&options), -EINVAL);
    options.heap_size = MIB;
    options.flags = 1u << 7;
    cr_assert_eq(ist_configure(&options), -EINVAL);
    cr_assert_eq(ist_heap_size(), 0);
    CHECK_CHILD(run_configure_beats_environment, NULL, 30);
    options.flags = 0;
    options.lease_ns = 7000000;
    cr_assert_eq(ist_configure(&options), 0);
    options.heap_size = 3 * MIB; /* the last one counts */
    cr_assert_eq(ist_configure(&options), 0);
    cr_assert_eq(ist_lease_set_duration(0), 7000000);
    ist_segment s = test_create(1, 0);
    cr_assert_eq(ist_heap_size(), 3 * MIB);
    cr_assert_eq(ist_configure(&options), -EBUSY);
    ist_segment_release(s);
    cr_assert_eq(ist_configure(&options), -EBUSY);
    cr_assert_eq(ist_heap_size(), 3 * MIB);
}

Test(heap, the_smallest_works) {
    configure(MIB);
    for (int round = 0; round < 100; round++) {
        ist_segment a = test_create(1000, IST_ZERO), b = test_create(200000, IST_ZERO);
        ist_segment_release(a);
        ist_segment_release(b);
    }
    ist_segment s;
    CHECK_EQ(ist_segment_create(2 * MIB, 0, &s), -ENOMEM);
    CHECK_EQ(ist_heap_size(), MIB);
}

/* ---- exhaustion */

static size_t fill_up(ist_segment *s, size_t room, size_t size) {
    size_t n = 0;
    int error = 0;
    while (n < room && (error = ist_segment_create(size, 0, &s[n])) == 0) {
        test_fill(ist_segment_data(s[n]), size < 256 ? size : 256, n);
        n++;
    }
    CHECK_EQ(error, -ENOMEM);
    for (size_t i = 0; i < n; i++)
        CHECK(test_filled(ist_segment_data(s[i]), size < 256 ? size : 256, i), "block %zu overlaps another", i);
    return n;
}

Test(heap, exhaustion_and_recovery) {
    enum { ROOM = 280000 };
    static ist_segment s[ROOM];
    configure(16 * MIB);
    const size_t sizes[] = {64, 1000, 4096, 65536, MIB, 64, 16384};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        size_t first = 0;
        for (int round = 0; round < 3; round++) {
            size_t n = fill_up(s, ROOM, sizes[k]);
            CHECK(n * sizes[k] > 6 * MIB, "%zu blocks of %zu bytes fit into 16 MiB", n, sizes[k]);
            CHECK(round == 0 || n + n / 4 >= first, "%zu of %zu blocks the next time", n, first);
            first = round == 0 ? n : first;
            CHECK_EQ(test_stats().segments, n);
            for (size_t i = 0; i < n; i++)
                ist_segment_release(s[i]);
            CHECK_EQ(test_stats().segments, 0);
        }
    }
}

Test(heap, leases_whose_time_is_up_make_room) {
    configure(16 * MIB);
    ist_lease_set_duration(1000000);
    ist_segment s = test_create(10 * MIB, 0), t;
    uint64_t number;
    CHECK_EQ(ist_lease_take(s, &number), 0);
    ist_segment_release(s);
    for (uint64_t end = test_now() + 2000000; test_now() < end;) {}
    CHECK_EQ(ist_segment_create(10 * MIB, 0, &t), 0);
    ist_segment_release(t);
}

/* Another thread is at it: nothing is left in the table, and nothing is free yet. */
static _Atomic(int) destroying;
static _Atomic(uint64_t) ahead;
static uint64_t (*real_now)(void);
static uint64_t later(void) { return real_now() + atomic_load_explicit(&ahead, memory_order_relaxed); /* relaxed: a number */ }

static void slowly(void *unused, void *data, size_t size) {
    (void)unused, (void)data, (void)size;
    atomic_store_explicit(&destroying, 1, memory_order_release); /* pairs with the test's acquire */
    for (uint64_t end = test_now() + 5000000; test_now() < end;) {}
}

static void *expire(void *unused) {
    ist_lease_expire();
    return unused;
}

Test(heap, a_lease_that_is_just_ending_makes_room) {
    static char outside[100];
    configure(16 * MIB);
    ist_segment s = test_create(10 * MIB, 0), t, last;
    uint64_t number;
    CHECK_EQ(ist_lease_take(s, &number), 0);
    CHECK_EQ(ist_segment_wrap(outside, sizeof outside, slowly, NULL, 0, &last), 0);
    CHECK_EQ(ist_lease_take(last, &number), 0);
    ist_segment_release(last); /* what is taken out last is released first */
    ist_segment_release(s);
    real_now = isti_os.now;
    isti_os.now = later;
    atomic_store_explicit(&ahead, UINT64_C(3600000000000), memory_order_relaxed);
    pthread_t thread = test_thread(expire, NULL);
    while (!atomic_load_explicit(&destroying, memory_order_acquire)) {} /* acquire: pairs with slowly */
    CHECK_EQ(ist_segment_create(10 * MIB, 0, &t), 0);
    ist_segment_release(t);
    test_join(thread);
}

/* ---- content */

Test(heap, zeros_are_zero_in_recycled_memory) {
    enum { LIVE = 64, ROUNDS = 20000 };
    static ist_segment live[LIVE];
    uint64_t random = test_seed();
    size_t zeroed = 0, collected = 0;
    configure(GIB);
    for (int i = 0; i < ROUNDS; i++) {
        size_t k = test_random(&random) % LIVE;
        ist_segment_release(live[k]);
        if (test_random(&random) % 16 == 0) {
            ist_collect();
            collected++;
        }
        size_t size = test_random(&random) % 8 == 0 ? test_random(&random) % (600 << 10) : test_random(&random) % 20000;
        live[k] = test_create(size, test_random(&random) % 4 != 0 ? IST_ZERO : 0);
        unsigned char *data = ist_segment_data(live[k]);
        ist_segment_info info;
        ist_segment_read_info(live[k], &info);
        if (test_random(&random) % 4 != 0) { /* another one, that is looked at */
            ist_segment_release(live[k]);
            live[k] = test_create(size, IST_ZERO);
            data = ist_segment_data(live[k]);
            for (size_t b = 0; b < size; b++)
                CHECK(data[b] == 0, "byte %zu of %zu is %d", b, size, data[b]);
            zeroed++;
        }
        memset(data, 0xA5, size);
    }
    for (int k = 0; k < LIVE; k++)
        ist_segment_release(live[k]);
    printf("%zu zeroed blocks looked at, %zu purges\n", zeroed, collected);
    CHECK(zeroed > ROUNDS / 2 && collected > ROUNDS / 32);
}

static int refuses(void *address, size_t size, int advice) {
    (void)address, (void)size, (void)advice;
    errno = ENOMEM;
    return -1;
}

Test(heap, zeros_are_zero_when_purges_fail) {
    configure(64 * MIB);
    ist_segment s = test_create(1000, 0);
    isti_os.madvise = refuses;
    for (int i = 0; i < 200; i++) {
        size_t size = 4096u << (i % 11);
        ist_segment a = test_create(size, 0), b;
        memset(ist_segment_data(a), 0xA5, size);
        ist_segment_release(a);
        ist_collect();
        b = test_create(size, IST_ZERO);
        for (size_t k = 0; k < size; k++)
            CHECK(((char *)ist_segment_data(b))[k] == 0, "byte %zu of %zu", k, size);
        memset(ist_segment_data(b), 0xA5, size);
        ist_segment_release(b);
    }
    ist_segment_release(s);
}

Test(heap, prefault_means_that_the_memory_is_there) {
    ist_segment warm = test_create(1, 0);
    uint64_t before = test_stats().mapped;
    ist_segment s = test_create(40 * MIB + 1, IST_PREFAULT);
    CHECK(test_stats().mapped >= before + 40 * MIB, "%llu", (unsigned long long)test_stats().mapped);
    ist_segment t = test_create(40 * MIB + 1, 0);
    CHECK(test_stats().mapped < before + 44 * MIB, "memory that nobody touched is there");
    ist_segment_release(s);
    ist_segment_release(t);
    ist_segment_release(warm);
    ist_collect();
    CHECK(test_stats().mapped < before + 4 * MIB, "%llu stay", (unsigned long long)test_stats().mapped);
}

Test(heap, prefault_that_fails_gives_nothing) {
    ist_segment warm = test_create(1, 0), s;
    isti_os.madvise = refuses;
    CHECK_EQ(ist_segment_create(MIB, IST_PREFAULT, &s), -ENOMEM);
    CHECK_EQ(test_stats().segments, 1);
    CHECK_EQ(test_stats().allocated, 1);
    ist_segment_release(warm);
}

/* ---- without a housekeeper */

static void run_without_housekeeper(void *by_option) {
    real_now = isti_os.now;
    isti_os.now = later;
    if (by_option != NULL) {
        ist_options options = {.struct_size = sizeof options, .flags = IST_OPTION_NO_HOUSEKEEPER};
        CHECK_EQ(ist_configure(&options), 0);
    } else
        CHECK_EQ(setenv("ISTHMUS_HOUSEKEEPER", "0", 1), 0);
    ist_segment s[64];
    for (int i = 0; i < 64; i++) {
        s[i] = test_create(MIB, 0);
        memset(ist_segment_data(s[i]), 1, MIB);
    }
    ist_segment leased = test_create(100, 0);
    uint64_t number;
    CHECK_EQ(ist_lease_take(leased, &number), 0);
    ist_segment_release(leased);
    CHECK(test_stats().mapped >= 64 * MIB);
    for (int i = 0; i < 64; i++)
        ist_segment_release(s[i]);
    CHECK_EQ(test_threads(), 1);
    CHECK_EQ(test_stats().leases, 1);
    atomic_store_explicit(&ahead, UINT64_C(301000000000), memory_order_relaxed);
    for (int i = 0; i < 200; i++) /* create looks after it now and then */
        ist_segment_release(test_create(64, 0));
    CHECK_EQ(test_stats().leases, 0);
    ist_collect();
    CHECK(test_stats().mapped < 4 * MIB, "%llu", (unsigned long long)test_stats().mapped);
    CHECK_EQ(test_threads(), 1);
}

static _Atomic(unsigned) punched;
static int count_punches(void *address, size_t size, int advice) {
    if (advice == MADV_REMOVE)
        atomic_fetch_add_explicit(&punched, 1, memory_order_relaxed); /* relaxed: a count */
    return madvise(address, size, advice);
}

/* What is freed waits a second for being used again, however large it is. */
Test(heap, large_blocks_are_used_again) {
    ist_segment_release(test_create(64, 0));
    isti_housekeeper_disable();
    isti_os.madvise = count_punches;
    for (int i = 0; i < 20; i++) {
        ist_segment s = test_create((size_t)32 << 20, 0);
        *(volatile char *)ist_segment_data(s) = 1;
        ist_segment_release(s);
    }
    CHECK_EQ(atomic_load_explicit(&punched, memory_order_relaxed), 0);
    ist_collect();
    CHECK(atomic_load_explicit(&punched, memory_order_relaxed) > 0);
}

Test(heap, works_without_a_housekeeper) {
    if (TEST_ASAN)
        cr_skip("counts threads, of which sanitizers may have their own");
    CHECK_CHILD(run_without_housekeeper, NULL, 30);
    CHECK_CHILD(run_without_housekeeper, (void *)1, 30);
}
