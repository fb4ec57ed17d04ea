/* test_segment.c: counts, tokens, addresses, ends (shm/README.md S1 to S8), one thread at a time. plain_counts and plain_exclusive have the
 * races, test_generations.c the end of a slot's generations. */
#include "control.h"
#include "harness.h"
#include "slab.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static void store_owners(ist_segment s, uint32_t owners) {
    /* relaxed, here and below: one thread */
    uint64_t state = atomic_load_explicit(&s.slot->state, memory_order_relaxed);
    atomic_store_explicit(&s.slot->state, (uint64_t)owners << 32 | (uint32_t)state, memory_order_relaxed);
}

static uint64_t state_of(ist_segment s) { return atomic_load_explicit(&s.slot->state, memory_order_relaxed); }

static ist_token edited(ist_token token, uint32_t index, uint32_t generation) {
    memcpy(token.bytes + 16, &index, 4);
    memcpy(token.bytes + 20, &generation, 4);
    return token;
}

static int acquire_fails(const ist_token *token) {
    ist_segment untouched = {.generation = 77}, out = untouched;
    int error = ist_segment_acquire(token, &out);
    CHECK(memcmp(&out, &untouched, sizeof out) == 0, "*out was written");
    return error;
}

static int address_fails(const void *data) {
    ist_segment untouched = {.generation = 77}, out = untouched;
    int error = ist_segment_acquire_address(data, &out);
    CHECK(memcmp(&out, &untouched, sizeof out) == 0, "*out was written");
    return error;
}

Test(segment, sizes_are_exact_and_aligned) {
    uint64_t random = test_seed();
    for (int i = 0; i < 4000; i++) {
        size_t size = i < 300 ? (size_t)i : (size_t)(test_random(&random) >> (44 + test_random(&random) % 16));
        ist_segment s = test_create(size, 0);
        CHECK_EQ(ist_segment_size(s), size);
        uintptr_t data = (uintptr_t)ist_segment_data(s);
        CHECK(data != 0 && data % 64 == 0, "%zu bytes at %#zx", size, (size_t)data);
        CHECK(size < 16384 || data % 4096 == 0, "%zu bytes at %#zx", size, (size_t)data);
        test_fill(ist_segment_data(s), size, (uint64_t)i);
        CHECK(test_filled(ist_segment_data(s), size, (uint64_t)i));
        ist_segment_release(s);
    }
    for (size_t size = 16384; size <= 64u << 20; size *= 2)
        for (int more = -1; more <= 1; more++) {
            ist_segment s = test_create(size + (size_t)more, IST_ZERO);
            CHECK_EQ(ist_segment_size(s), size + (size_t)more);
            CHECK_EQ((uintptr_t)ist_segment_data(s) % (size + (size_t)more < 16384 ? 64 : 4096), 0);
            ist_segment_release(s);
        }
    CHECK_EQ(test_stats().segments, 0);
    CHECK_EQ(test_stats().allocated, 0);
}

Test(segment, size_zero_has_a_unique_address) {
    enum { COUNT = 100 };
    ist_segment s[COUNT];
    for (int i = 0; i < COUNT; i++) {
        s[i] = test_create(0, i % 2 ? IST_ZERO | IST_PREFAULT : 0);
        for (int k = 0; k < i; k++)
            CHECK(ist_segment_data(s[i]) != ist_segment_data(s[k]));
        ist_segment found;
        CHECK_EQ(ist_segment_acquire_address(ist_segment_data(s[i]), &found), 0);
        CHECK_EQ(found.index, s[i].index);
        ist_segment_release(found);
    }
    for (int i = 0; i < COUNT; i++)
        ist_segment_release(s[i]);
    CHECK_EQ(test_stats().segments, 0);
}

Test(segment, bad_arguments) {
    ist_segment untouched = {.generation = 77}, s = untouched;
    char byte;
    cr_assert_eq(ist_segment_create((size_t)PTRDIFF_MAX + 1, 0, &s), -EINVAL);
    cr_assert_eq(ist_segment_create(SIZE_MAX, 0, &s), -EINVAL);
    cr_assert_eq(ist_segment_create(1, IST_READONLY, &s), -EINVAL);
    cr_assert_eq(ist_segment_create(1, 1u << 31, &s), -EINVAL);
    cr_assert_eq(ist_segment_create(1, 0, NULL), -EINVAL);
    cr_assert_eq(ist_segment_create(PTRDIFF_MAX, 0, &s), -ENOMEM);
    cr_assert_eq(ist_segment_create(ist_heap_size() + 1, 0, &s), -ENOMEM);
    cr_assert_eq(ist_segment_wrap(NULL, 1, NULL, NULL, 0, &s), -EINVAL);
    cr_assert_eq(ist_segment_wrap(&byte, SIZE_MAX, NULL, NULL, 0, &s), -EINVAL);
    cr_assert_eq(ist_segment_wrap(&byte, 1, NULL, NULL, IST_ZERO, &s), -EINVAL);
    cr_assert_eq(ist_segment_wrap(&byte, 1, NULL, NULL, 0, NULL), -EINVAL);
    cr_assert_eq(memcmp(&s, &untouched, sizeof s), 0, "*out was written on failure");
    cr_assert_eq(test_stats().segments, 0);
    cr_assert_eq(ist_segment_wrap(NULL, 0, NULL, NULL, 0, &s), 0);
    ist_segment_release(s);
    ist_segment_release((ist_segment){0}); /* no segment: nothing */
    cr_assert_eq(test_stats().misuses + test_stats().saturated, 0);
}

Test(segment, counts) {
    ist_segment s = test_create(1000, 0);
    for (unsigned i = 1; i < 50; i++) {
        CHECK_EQ(test_owners(s), i);
        CHECK_EQ(test_stats().owners, i);
        ist_segment_retain(s);
    }
    CHECK_EQ(test_stats().segments, 1);
    CHECK_EQ(test_stats().allocated, 1000);
    for (unsigned i = 50; i > 1; i--) {
        ist_segment_release(s);
        CHECK_EQ(test_owners(s), i - 1);
    }
    ist_token token = test_token(s);
    ist_segment_release(s);
    CHECK_EQ(test_stats().segments, 0);
    CHECK_EQ(test_stats().owners, 0);
    CHECK_EQ(acquire_fails(&token), -ESTALE);
    CHECK_EQ(test_stats().misuses + test_stats().saturated, 0);
}

Test(segment, info_and_list) {
    enum { COUNT = 300 };
    static ist_segment s[COUNT];
    static bool seen[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        s[i] = test_create(i, 0);
        ist_segment_set_creator(s[i], 1000 + i);
    }
    ist_segment_retain(s[7]);
    CHECK_EQ(ist_segment_freeze(s[8]), 0);
    ist_segment_info info[32];
    size_t got, total = 0;
    for (uint32_t cursor = 0; (got = ist_segments(&cursor, info, 1 + total % 32)) != 0; total += got)
        for (size_t k = 0; k < got; k++) {
            unsigned i = (unsigned)info[k].created_by - 1000;
            CHECK(i < COUNT && !seen[i]);
            seen[i] = true;
            CHECK_EQ(info[k].index, s[i].index);
            CHECK_EQ(info[k].generation, s[i].generation);
            CHECK_EQ(info[k].size, i);
            CHECK_EQ(info[k].kind, IST_KIND_HEAP);
            CHECK_EQ(info[k].owners, i == 7 ? 2 : 1);
            CHECK_EQ(info[k].frozen, i == 8);
            CHECK_EQ(info[k].readonly, i == 8);
            CHECK_EQ(info[k].saturated, 0);
        }
    CHECK_EQ(total, COUNT);
    ist_segment_release(s[7]);
    for (unsigned i = 0; i < COUNT; i++)
        ist_segment_release(s[i]);
    uint32_t cursor = 0;
    CHECK_EQ(ist_segments(&cursor, info, 32), 0);
    /* the creator of a slot's next segment is nobody's */
    ist_segment next = test_create(1, 0);
    ist_segment_read_info(next, &info[0]);
    CHECK_EQ(info[0].created_by, 0);
    ist_segment_release(next);
}

Test(segment, stats_of_another_version) {
    ist_stats stats = {.struct_size = sizeof stats - 1, .segments = 99};
    cr_assert_eq(ist_stats_read(&stats), -EINVAL);
    cr_assert_eq(stats.segments, 99);
    stats.struct_size = sizeof stats + 8; /* a later version's: this one couldn't fill it */
    cr_assert_eq(ist_stats_read(&stats), -EINVAL);
    stats.struct_size = 0;
    cr_assert_eq(ist_stats_read(&stats), -EINVAL);
    cr_assert_eq(ist_stats_read(NULL), -EINVAL);
    ist_count_copied(1000);
    ist_count_copied(24);
    ist_count_in_flight(3);
    ist_count_in_flight(-1);
    cr_assert_eq(test_stats().bytes_copied, 1024);
    cr_assert_eq(test_stats().in_flight, 2);
}

/* ---- tokens (S3, S4) */

Test(segment, token_finds_the_segment) {
    ist_segment s = test_create(100, 0), t;
    ist_token token = test_token(s);
    CHECK_EQ(ist_segment_acquire(&token, &t), 0);
    CHECK_EQ(ist_segment_data(t) == ist_segment_data(s), 1);
    CHECK_EQ(memcmp(&s, &t, sizeof s), 0);
    CHECK_EQ(test_owners(s), 2);
    ist_segment_release(s);
    CHECK_EQ(ist_segment_size(t), 100);
    ist_segment_release(t);
    CHECK_EQ(acquire_fails(&token), -ESTALE);
}

Test(segment, token_of_a_reused_slot) {
    ist_segment s = test_create(100, 0);
    ist_token token = test_token(s);
    for (int i = 0; i < 1000; i++) {
        uint32_t index = s.index, generation = s.generation;
        ist_segment_release(s);
        s = test_create(100, 0);
        CHECK_EQ(s.index, index); /* else this test checks nothing */
        CHECK_EQ(s.generation, generation + 1);
        CHECK_EQ(acquire_fails(&token), -ESTALE);
        CHECK_EQ(test_owners(s), 1);
    }
    ist_segment_release(s);
}

Test(segment, token_of_another_domain) {
    ist_segment s = test_create(1, 0);
    for (int bit = 0; bit < 128; bit++) {
        ist_token token = test_token(s);
        token.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_EQ(acquire_fails(&token), -EXDEV);
    }
    ist_token zeros = {{0}};
    CHECK_EQ(acquire_fails(&zeros), -EXDEV);
    ist_segment_release(s);
}

Test(segment, token_of_garbage) {
    ist_segment s = test_create(1, 0);
    const ist_token good = test_token(s);
    ist_segment_info info;
    ist_segment_read_info(s, &info);
    const uint32_t out_of_range[] = {ISTI_DESCRIPTORS, ISTI_DESCRIPTORS + 1, UINT32_MAX, UINT32_MAX - 1, ISTI_SLOTS};
    for (size_t i = 0; i < sizeof out_of_range / sizeof *out_of_range; i++) {
        ist_token token = edited(good, out_of_range[i], info.descriptor_generation);
        CHECK_EQ(acquire_fails(&token), -EINVAL);
    }
    ist_token never_used = edited(good, ISTI_DESCRIPTORS - 1, 0);
    CHECK_EQ(acquire_fails(&never_used), -ESTALE);
    ist_token later = edited(good, info.descriptor, info.descriptor_generation + 1);
    CHECK_EQ(acquire_fails(&later), -ESTALE);
    ist_token latest = edited(good, info.descriptor, ISTI_DESCRIPTOR_GENERATIONS);
    CHECK_EQ(acquire_fails(&latest), -ESTALE);
    ist_token too_large = edited(good, info.descriptor, ISTI_DESCRIPTOR_GENERATIONS + 1 + info.descriptor_generation);
    CHECK_EQ(acquire_fails(&too_large), -EINVAL);
    uint64_t random = test_seed();
    for (int i = 0; i < 100000; i++) {
        ist_token token = edited(good, (uint32_t)test_random(&random), (uint32_t)test_random(&random));
        uint32_t index;
        memcpy(&index, token.bytes + 16, 4);
        int error = acquire_fails(&token);
        CHECK(error == -EINVAL || (error == -ESTALE && index < ISTI_DESCRIPTORS), "%d for index %u", error, index);
    }
    CHECK_EQ(test_owners(s), 1);
    ist_segment_release(s);
}

Test(segment, domain_id_is_constant) {
    uint8_t a[16], b[16], zeros[16] = {0};
    cr_assert_eq(ist_domain_id(a), 0);
    cr_assert_eq(ist_domain_id(b), 0);
    cr_assert_eq(memcmp(a, b, 16), 0);
    cr_assert_neq(memcmp(a, zeros, 16), 0);
}

/* ---- addresses */

Test(segment, address_finds_the_first_byte_only) {
    const size_t sizes[] = {0, 1, 64, 65, 200, 4096, 5000, 16384, 70000, 1u << 20};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        ist_segment s = test_create(sizes[k], 0), t;
        char *data = ist_segment_data(s);
        CHECK_EQ(ist_segment_acquire_address(data, &t), 0);
        CHECK_EQ(memcmp(&s, &t, sizeof s), 0);
        CHECK_EQ(test_owners(s), 2);
        ist_segment_release(t);
        for (size_t i = 1; i < sizes[k]; i += sizes[k] > 5000 ? 509 : 1)
            CHECK_EQ(address_fails(data + i), -ESTALE);
        for (size_t i = 64; i < sizes[k]; i += 64)
            CHECK_EQ(address_fails(data + i), -ESTALE);
        ist_segment_release(s);
        CHECK_EQ(address_fails(data), -ESTALE);
    }
    char local;
    CHECK_EQ(address_fails(NULL), -ESTALE);
    CHECK_EQ(address_fails(&local), -ESTALE);
    CHECK_EQ(address_fails((void *)UINTPTR_MAX), -ESTALE);
    CHECK_EQ(address_fails((void *)64), -ESTALE);
}

static int at_fails(const void *address) {
    ist_segment untouched = {.generation = 77}, out = untouched;
    int error = ist_segment_at_address(address, &out);
    CHECK(memcmp(&out, &untouched, sizeof out) == 0, "*out was written");
    return error;
}

static void check_at(ist_segment s, size_t i) {
    ist_segment t;
    CHECK_EQ(ist_segment_at_address((char *)ist_segment_data(s) + i, &t), 0);
    CHECK(memcmp(&s, &t, sizeof s) == 0, "byte %zu", i);
    CHECK_EQ(test_owners(s), 2);
    ist_segment_release(t);
}

Test(segment, any_address_finds_the_segment_around_it) {
    const size_t sizes[] = {0, 1, 63, 64, 65, 200, 4095, 4096, 4097, 8192, 14336, 16383, 16384, 16385, 70000, 1u << 20, (40u << 20) + 3};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    ist_segment s[3][SIZES]; /* neighbours of each size */
    for (int n = 0; n < 3; n++)
        for (size_t k = 0; k < SIZES; k++)
            s[n][k] = test_create(sizes[k], 0);
    for (size_t k = 0; k < SIZES; k++)
        ist_segment_release(s[1][k]); /* and a gap between them */
    for (int n = 0; n < 3; n += 2)
        for (size_t k = 0; k < SIZES; k++) {
            check_at(s[n][k], 0);
            for (size_t i = 0; i < sizes[k]; i += sizes[k] > 70000 ? sizes[k] / 101 : sizes[k] > 5000 ? 31 : 1)
                check_at(s[n][k], i);
            if (sizes[k] > 0)
                check_at(s[n][k], sizes[k] - 1);
            /* behind the last byte is nothing, or a neighbour's first */
            ist_segment t;
            if (ist_segment_at_address((char *)ist_segment_data(s[n][k]) + sizes[k] + (sizes[k] == 0), &t) == 0) {
                CHECK(ist_segment_data(t) == (char *)ist_segment_data(s[n][k]) + sizes[k]);
                ist_segment_release(t);
            }
        }
    for (int n = 0; n < 3; n += 2)
        for (size_t k = 0; k < SIZES; k++) {
            char *data = ist_segment_data(s[n][k]);
            CHECK_EQ(test_owners(s[n][k]), 1);
            ist_segment_release(s[n][k]);
            CHECK_EQ(at_fails(data), -ESTALE);
            CHECK_EQ(at_fails(data + sizes[k] / 2), -ESTALE);
        }
    static char wrapped[128] __attribute__((aligned(64)));
    ist_segment w;
    CHECK_EQ(ist_segment_wrap(wrapped, sizeof wrapped, NULL, NULL, 0, &w), 0);
    CHECK_EQ(at_fails(wrapped + 5), -ESTALE);
    ist_segment_release(w);
    CHECK_EQ(at_fails(NULL), -ESTALE);
    CHECK_EQ(at_fails((void *)UINTPTR_MAX), -ESTALE);
}

/* ---- other sizes */

Test(segment, resize_keeps_place_and_content) {
    for (size_t size = 1; size <= 1u << 20; size = size * 3 + 1) {
        ist_segment s = test_create(size, 0), found;
        unsigned char *data = ist_segment_data(s);
        test_fill(data, size, 7);
        int grown = ist_segment_resize(s, size + 1); /* in its block, or there is none behind it yet */
        CHECK(grown == 0 || grown == -ENOSPC);
        CHECK_EQ(ist_segment_size(s), size + (grown == 0));
        CHECK(ist_segment_data(s) == data && test_filled(data, size, 7));
        if (grown == 0) {
            data[size] = 1;
            CHECK_EQ(ist_segment_at_address(data + size, &found), 0);
            ist_segment_release(found);
        } else
            CHECK_EQ(at_fails(data + size), -ESTALE);
        int shrunk = ist_segment_resize(s, size);
        CHECK(shrunk == 0 || (shrunk == -ENOSPC && TEST_ASAN));
        CHECK(test_filled(data, size, 7));
        CHECK_EQ(ist_segment_resize(s, SIZE_MAX), -EINVAL);
        CHECK_EQ(ist_segment_resize(s, PTRDIFF_MAX), -ENOSPC);
        CHECK(test_filled(data, size, 7));
        CHECK_EQ(test_owners(s), 1);
        ist_segment_release(s);
    }
    CHECK_EQ(test_stats().segments, 0);
}

/* What a block was resized to is what it is freed as: whatever follows must not overlap. */
Test(segment, resize_leaves_the_heap_in_order) {
    enum { COUNT = 64 };
    uint64_t random = test_seed();
    ist_segment s[COUNT];
    size_t resized = 0;
    for (int i = 0; i < COUNT; i++) {
        s[i] = test_create(1, 0);
        test_fill(ist_segment_data(s[i]), 1, (uint64_t)i);
    }
    for (int step = 0; step < 20000; step++) {
        int i = (int)(test_random(&random) % COUNT);
        size_t old = ist_segment_size(s[i]), size = (size_t)(test_random(&random) >> (44 + test_random(&random) % 16));
        CHECK(test_filled(ist_segment_data(s[i]), old < size ? old : size, (uint64_t)i));
        if (test_random(&random) % 4 != 0)
            size = old + size % (old / 8 + 2); /* by a little, as arrays grow */
        if (size > 4u << 20 || ist_segment_resize(s[i], size) != 0) {
            ist_segment_release(s[i]);
            size = size > 4u << 20 ? 100 : size;
            s[i] = test_create(size, 0);
        } else
            resized++;
        CHECK_EQ(ist_segment_size(s[i]), size);
        test_fill(ist_segment_data(s[i]), size, (uint64_t)i);
    }
    CHECK(resized > 1000, "only %zu in place", resized);
    for (int i = 0; i < COUNT; i++) {
        CHECK(test_filled(ist_segment_data(s[i]), ist_segment_size(s[i]), (uint64_t)i));
        ist_segment_release(s[i]);
    }
    CHECK_EQ(test_stats().segments, 0);
}

Test(segment, resize_is_for_a_sole_owner) {
    ist_segment s = test_create(100, 0);
    ist_segment_retain(s);
    CHECK_EQ(ist_segment_resize(s, 90), -EBUSY);
    ist_segment_release(s);
    CHECK_EQ(ist_segment_resize(s, 101), 0);
    CHECK_EQ(ist_segment_freeze(s), 0);
    CHECK_EQ(ist_segment_resize(s, 102), -EBUSY);
    CHECK(ist_segment_is_frozen(s));
    ist_segment_release(s);
    CHECK_EQ(ist_segment_resize(s, 100), -ESTALE);
    s = test_create(100, 0);
    ist_token token = test_token(s);
    CHECK_EQ(ist_segment_resize(s, 101), -EBUSY); /* published: other processes were told its length */
    CHECK_EQ(ist_segment_size(s), 100);
    ist_segment_release(s);
    CHECK_EQ(ist_segment_acquire(&token, &s), -ESTALE);
    static char block[128];
    CHECK_EQ(ist_segment_wrap(block, sizeof block, NULL, NULL, 0, &s), 0);
    CHECK_EQ(ist_segment_resize(s, 100), -EINVAL);
    ist_segment_release(s);
}

Test(segment, address_of_a_reused_block_is_the_new_segments) {
    for (size_t size = 64; size <= 65536; size *= 4) {
        ist_segment old = test_create(size, 0), hold[3], t;
        void *data = ist_segment_data(old);
        hold[0] = test_create(1 << 20, 0); /* so that another slot is on top when the block is reused */
        ist_segment_release(old);
        hold[1] = test_create(1 << 20, 0);
        ist_segment s = test_create(size - 1, 0);
        CHECK_EQ(ist_segment_data(s) == data, 1); /* the thread's cache gives the last block first */
        CHECK(s.index != old.index);
        CHECK_EQ(ist_segment_acquire_address(data, &t), 0);
        CHECK_EQ(t.index, s.index);
        CHECK_EQ(ist_segment_size(t), size - 1);
        ist_segment_release(t);
        ist_segment_release(s);
        ist_segment_release(hold[0]);
        ist_segment_release(hold[1]);
        CHECK_EQ(address_fails(data), -ESTALE);
    }
}

Test(segment, address_of_wrapped_memory_finds_nothing) {
    static char block[128] __attribute__((aligned(64)));
    ist_segment s;
    CHECK_EQ(ist_segment_wrap(block, sizeof block, NULL, NULL, 0, &s), 0);
    CHECK_EQ(address_fails(block), -ESTALE);
    ist_segment_release(s);
}

/* ---- freeze and make_writable (S6) */

Test(segment, acquire_by_handle) {
    ist_segment s = test_create(100, 0), t = {0}, other = test_create(100, 0), wrapped;
    CHECK_EQ(ist_segment_acquire_handle(s, &t), 0);
    CHECK_EQ(test_owners(s), 2);
    CHECK(t.slot == s.slot && t.generation == s.generation && t.index == s.index);
    ist_segment_release(t);
    static char memory[8];
    CHECK_EQ(ist_segment_wrap(memory, sizeof memory, NULL, NULL, 0, &wrapped), 0); /* of any kind */
    CHECK_EQ(ist_segment_acquire_handle(wrapped, &t), 0);
    ist_segment_release(t);
    ist_segment_release(wrapped);
    const ist_segment none[] = {
        {.slot = (ist_slot *)16, .generation = s.generation, .index = s.index}, /* nothing is there to be looked at */
        {.slot = other.slot, .generation = s.generation, .index = s.index},
        {.slot = s.slot, .generation = s.generation, .index = UINT32_MAX},
        {0},
    };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        CHECK_EQ(ist_segment_acquire_handle(none[i], &t), -EINVAL);
    ist_segment old = s;
    old.generation++;
    CHECK_EQ(ist_segment_acquire_handle(old, &t), -ESTALE);
    ist_segment_release(s);
    CHECK_EQ(ist_segment_acquire_handle(s, &t), -ESTALE);
    CHECK_EQ(test_owners(other), 1);
    ist_segment_release(other);
}

Test(segment, freeze) {
    ist_segment s = test_create(10, 0), t;
    ist_token token = test_token(s);
    CHECK(!ist_segment_is_frozen(s) && !ist_segment_is_readonly(s));
    ist_segment_retain(s);
    CHECK_EQ(ist_segment_freeze(s), -EBUSY);
    CHECK(!ist_segment_is_frozen(s));
    ist_segment_release(s);
    CHECK_EQ(ist_segment_freeze(s), 0);
    CHECK(ist_segment_is_frozen(s) && ist_segment_is_readonly(s));
    CHECK_EQ(ist_segment_freeze(s), 0);
    CHECK_EQ(ist_segment_acquire(&token, &t), 0); /* tokens stay good */
    CHECK(ist_segment_is_frozen(t));
    CHECK_EQ(ist_segment_freeze(t), 0); /* frozen already, whoever owns it */
    ist_segment_release(s);
    CHECK_EQ(ist_segment_acquire_address(ist_segment_data(t), &s), 0);
    CHECK(ist_segment_is_frozen(s));
    ist_segment_release(s);
    ist_segment_release(t);
    CHECK_EQ(acquire_fails(&token), -ESTALE);
    s = test_create(10, 0); /* the next segment of the slot begins unfrozen */
    CHECK(!ist_segment_is_frozen(s) && !ist_segment_is_readonly(s));
    ist_segment_release(s);
    CHECK_EQ(ist_segment_freeze(s), -ESTALE);
}

Test(segment, make_writable) {
    ist_segment s = test_create(10, 0), t;
    void *data = ist_segment_data(s);
    ist_token token = test_token(s);
    CHECK_EQ(ist_segment_freeze(s), 0);
    ist_segment before = s;
    ist_segment_retain(s);
    CHECK_EQ(ist_segment_make_writable(&s), -EBUSY);
    CHECK_EQ(memcmp(&s, &before, sizeof s), 0);
    CHECK(ist_segment_is_frozen(s));
    ist_segment_release(s);
    CHECK_EQ(ist_segment_make_writable(&s), 0);
    CHECK(!ist_segment_is_frozen(s) && ist_segment_data(s) == data);
    CHECK_EQ(s.generation, before.generation + 1);
    CHECK_EQ(acquire_fails(&token), -ESTALE); /* void */
    token = test_token(s);
    CHECK_EQ(ist_segment_acquire(&token, &t), 0);
    ist_segment_release(t);
    CHECK_EQ(ist_segment_acquire_address(data, &t), 0);
    ist_segment_release(t);
    CHECK_EQ(ist_segment_make_writable(&before), -ESTALE);
    CHECK_EQ(ist_segment_make_writable(&s), 0); /* it is */
    ist_segment_release(s);
    CHECK_EQ(test_stats().segments, 0);
    s = test_create(10, 0); /* and one that was never published */
    CHECK_EQ(ist_segment_freeze(s), 0);
    CHECK_EQ(ist_segment_make_writable(&s), 0);
    CHECK(!ist_segment_is_frozen(s));
    ist_segment_release(s);
    static const char constant[8];
    CHECK_EQ(ist_segment_wrap((void *)(uintptr_t)constant, 8, NULL, NULL, IST_READONLY, &s), 0);
    CHECK(ist_segment_is_readonly(s) && !ist_segment_is_frozen(s));
    CHECK_EQ(ist_segment_make_writable(&s), -EROFS);
    ist_segment_release(s);
}

/* ---- wrap and the list of releases (S8) */

struct wrapped {
    int freed;
    void *data;
    size_t size;
    ist_segment next[2];
    int depth, deepest;
};
static int depth;

static void on_free(void *ctx, void *data, size_t size) {
    struct wrapped *w = ctx;
    w->freed++;
    w->data = data;
    w->size = size;
    w->deepest = ++depth;
    ist_segment_release(w->next[0]);
    ist_segment_release(w->next[1]);
    depth--;
}

Test(segment, wrap_calls_the_destructor_once) {
    char block[40];
    struct wrapped w = {0};
    ist_segment s;
    CHECK_EQ(ist_segment_wrap(block, sizeof block, on_free, &w, 0, &s), 0);
    CHECK_EQ(ist_segment_data(s) == block, 1);
    CHECK_EQ(ist_segment_size(s), sizeof block);
    ist_segment_info info;
    ist_segment_read_info(s, &info);
    CHECK_EQ(info.kind, IST_KIND_FOREIGN);
    ist_token token = test_token(s);
    ist_segment_retain(s);
    ist_segment_release(s);
    CHECK_EQ(w.freed, 0);
    ist_segment_release(s);
    CHECK_EQ(w.freed, 1);
    CHECK_EQ(w.data == block && w.size == sizeof block, 1);
    CHECK_EQ(acquire_fails(&token), -ESTALE);
    CHECK_EQ(test_stats().segments, 0);
    CHECK_EQ(ist_segment_wrap(block, 1, on_free, &w, IST_ZERO, &s), -EINVAL);
    CHECK_EQ(w.freed, 1); /* on failure nothing is taken */
}

Test(segment, releases_in_destructors_do_not_recurse) {
    enum { COUNT = 100 };
    static struct wrapped w[COUNT];
    ist_segment s[COUNT], heap[COUNT];
    for (int i = COUNT - 1; i >= 0; i--) { /* a binary tree, each with a heap segment at its leaves */
        heap[i] = test_create(64, 0);
        w[i].next[0] = 2 * i + 1 < COUNT ? s[2 * i + 1] : heap[i];
        w[i].next[1] = 2 * i + 2 < COUNT ? s[2 * i + 2] : (ist_segment){0};
        if (2 * i + 1 < COUNT)
            ist_segment_release(heap[i]);
        CHECK_EQ(ist_segment_wrap(w, 1, on_free, &w[i], 0, &s[i]), 0);
    }
    ist_segment_release(s[0]);
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ(w[i].freed, 1);
        CHECK_EQ(w[i].deepest, 1);
    }
    CHECK_EQ(test_stats().segments, 0);
}

static void creating_free(void *ctx, void *data, size_t size) {
    (void)data, (void)size;
    ist_segment s = test_create(100, IST_ZERO);
    test_fill(ist_segment_data(s), 100, 1);
    ist_segment_release(s);
    ++*(int *)ctx;
}

Test(segment, destructor_may_use_the_library) {
    ist_segment s;
    int calls = 0;
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(ist_segment_wrap(&calls, sizeof calls, creating_free, &calls, 0, &s), 0);
        ist_segment_release(s);
    }
    CHECK_EQ(calls, 1000);
    CHECK_EQ(test_stats().segments, 0);
}

/* ---- misuse (S5); a debug build aborts instead: plain_misuse */

#ifndef IST_DEBUG

Test(misuse, release_of_a_free_slot_is_put_back) {
    ist_segment s = test_create(100, 0);
    ist_segment_release(s);
    uint64_t state = state_of(s);
    ist_segment_release(s);
    CHECK_EQ(state_of(s), state);
    ist_segment_retain(s);
    CHECK_EQ(state_of(s), state);
    CHECK_EQ(test_stats().misuses, 2);
    CHECK_EQ(test_stats().saturated, 0);
    ist_segment t = test_create(100, 0);
    CHECK_EQ(t.index, s.index);
    CHECK_EQ(test_owners(t), 1);
    ist_segment_release(t);
    CHECK_EQ(test_stats().segments, 0);
}

Test(misuse, double_release_after_reuse_is_put_back) {
    ist_segment old = test_create(100, 0);
    ist_segment_release(old);
    ist_segment s = test_create(100, 0);
    CHECK_EQ(s.index, old.index);
    test_fill(ist_segment_data(s), 100, 5);
    ist_segment_retain(s); /* two owners: one too few in between frees nothing */
    for (int i = 1; i <= 100; i++) {
        ist_segment_release(old);
        CHECK_EQ(test_owners(s), 2);
        ist_segment_retain(old);
        CHECK_EQ(test_owners(s), 2);
        CHECK_EQ(test_stats().misuses, 2 * i);
    }
    CHECK(test_filled(ist_segment_data(s), 100, 5));
    ist_segment_release(s);
    ist_segment_release(old); /* also of the only one */
    CHECK_EQ(test_owners(s), 1);
    CHECK(test_filled(ist_segment_data(s), 100, 5));
    ist_segment_release(s);
    CHECK_EQ(test_stats().segments, 0);
    CHECK_EQ(test_stats().saturated, 0);
}

/* Saturated: whatever follows, memory and flags stay, and it is reported once. */
static void stays_for_ever(ist_segment s, const ist_token *token, uint64_t tag) {
    uint32_t low = (uint32_t)state_of(s);
    CHECK_EQ(test_stats().saturated, 1);
    for (int i = 0; i < 2000; i++) {
        if (i % 3 == 0)
            ist_segment_retain(s);
        else
            ist_segment_release(s);
    }
    CHECK_EQ(test_stats().saturated, 1);
    CHECK_EQ((uint32_t)state_of(s), low);
    CHECK_EQ(acquire_fails(token), -EOVERFLOW);
    CHECK_EQ(ist_segment_make_writable(&s), -EBUSY);
    ist_segment_info info;
    ist_segment_read_info(s, &info);
    CHECK(info.saturated);
    for (int i = 0; i < 1000; i++) {
        ist_segment other = test_create(100, 0);
        CHECK(ist_segment_data(other) != ist_segment_data(s) && other.index != s.index);
        test_fill(ist_segment_data(other), 100, ~tag);
        if (i % 2)
            ist_segment_release(other);
    }
    CHECK(test_filled(ist_segment_data(s), 100, tag));
    CHECK_EQ(test_stats().misuses, 0);
}

Test(misuse, underflow_saturates) {
    ist_segment s = test_create(100, 0);
    ist_token token = test_token(s);
    test_fill(ist_segment_data(s), 100, 9);
    CHECK_EQ(ist_segment_freeze(s), 0);
    store_owners(s, 0); /* as a lost race would leave it: live, but nobody's */
    ist_segment_release(s);
    CHECK(ist_segment_is_frozen(s));
    stays_for_ever(s, &token, 9);
}

Test(misuse, overflow_saturates) {
    ist_segment s = test_create(100, 0), t;
    ist_token token = test_token(s);
    test_fill(ist_segment_data(s), 100, 11);
    store_owners(s, IST_OWNERS_LIMIT - 2);
    CHECK_EQ(ist_segment_acquire(&token, &t), 0);
    CHECK_EQ(acquire_fails(&token), -EOVERFLOW);
    CHECK_EQ(address_fails(ist_segment_data(s)), -EOVERFLOW);
    CHECK_EQ(test_owners(s), IST_OWNERS_LIMIT - 1);
    ist_segment_release(s); /* within the range: nothing happened yet */
    ist_segment_retain(s);
    CHECK_EQ(test_stats().saturated, 0);
    ist_segment_retain(s); /* the limit itself */
    ist_segment_retain(s); /* beyond */
    stays_for_ever(s, &token, 11);
}

Test(misuse, retain_of_a_dead_generation_saturates_nothing_live) {
    ist_segment s = test_create(100, 0);
    store_owners(s, UINT32_MAX); /* both ends of the count wrap inside the high half: the low half never changes */
    uint32_t low = (uint32_t)state_of(s);
    ist_segment_retain(s);
    CHECK_EQ((uint32_t)state_of(s), low);
    CHECK_EQ(test_owners(s), IST_OWNERS_SATURATED);
}

/* Two adds beyond the limit, both done before either is noticed: one segment went wrong, whoever says so. */
Test(misuse, saturation_is_counted_once_however_many_notice) {
    ist_segment s = test_create(100, 0);
    store_owners(s, IST_OWNERS_LIMIT + 2);
    ist_segment_retain_slow(s, (uint64_t)IST_OWNERS_LIMIT << 32 | s.generation);
    ist_segment_retain_slow(s, (uint64_t)(IST_OWNERS_LIMIT + 1) << 32 | s.generation);
    CHECK_EQ(test_stats().saturated, 1);
    s = test_create(100, 0);
    store_owners(s, UINT32_MAX - 1); /* two releases below 0 */
    ist_segment_release_slow(s, s.generation);
    ist_segment_release_slow(s, (uint64_t)UINT32_MAX << 32 | s.generation);
    CHECK_EQ(test_stats().saturated, 2);
}

#endif

Test(error, every_error_has_a_text) {
    const int known[] = {0, -EINVAL, -ENOMEM, -ESTALE, -EXDEV, -EBUSY, -EROFS, -EOVERFLOW, -ENOTRECOVERABLE};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        cr_assert(strlen(ist_strerror(known[i])) > 5);
        cr_assert_str_neq(ist_strerror(known[i]), "unknown error");
        for (size_t k = 0; k < i; k++)
            cr_assert_str_neq(ist_strerror(known[i]), ist_strerror(known[k]));
    }
    cr_assert_str_eq(ist_strerror(-123456), "unknown error");
    cr_assert_str_eq(ist_strerror(1), "unknown error");
    cr_assert_eq(ist_version(), IST_VERSION_MAJOR << 16 | IST_VERSION_MINOR << 8 | IST_VERSION_PATCH);
}
