/* test_generations.c: the end of a slot's generations (S3), with the library built for 4 bits of them. */
#include "harness.h"
#include "slab.h"

#include <criterion/criterion.h>
#include <string.h>

#define GENERATIONS ((uint32_t)IST_GENERATION_MASK + 1)

Test(generations, a_slot_serves_each_once_and_is_retired) {
    CHECK_EQ(GENERATIONS, 16);
    ist_segment s = test_create(8, 0);
    const uint32_t index = s.index;
    ist_token tokens[16];
    for (uint32_t g = 0; g < GENERATIONS; g++) {
        CHECK_EQ(s.index, index);
        CHECK_EQ(s.generation, g);
        tokens[g] = test_token(s);
        CHECK_EQ(test_stats().retired, 0);
        if (g + 1 == GENERATIONS)
            break;
        ist_segment_release(s);
        s = test_create(8, 0);
    }
    ist_segment_release(s);
    CHECK_EQ(test_stats().retired, 1);
    CHECK_EQ(test_stats().segments, 0);
    for (int i = 0; i < 100000; i++) {
        s = test_create(8, 0);
        CHECK(s.index != index, "a retired slot was handed out again, in generation %u", s.generation);
        ist_segment out;
        CHECK_EQ(ist_segment_acquire(&tokens[i % 16], &out), -ESTALE);
        ist_segment_release(s);
    }
    CHECK_EQ(test_stats().retired, 1 + 100000 / 16);
}

Test(generations, no_identity_is_used_twice) {
    static uint16_t used[1u << 20];
    uint64_t random = test_seed();
    enum { LIVE = 200 };
    static ist_segment live[LIVE];
    uint32_t highest = 0;
    for (int i = 0; i < 300000; i++) {
        size_t k = test_random(&random) % LIVE;
        ist_segment_release(live[k]);
        live[k] = test_create(8, 0);
        if (test_random(&random) % 4 == 0 && live[k].generation < IST_GENERATION_MASK) { /* it moves on here as well */
            CHECK(live[k].index < 1u << 20);
            CHECK_EQ(used[live[k].index] >> live[k].generation & 1, 0);
            used[live[k].index] |= (uint16_t)(1u << live[k].generation);
            CHECK_EQ(ist_segment_make_writable(&live[k]), 0);
        }
        CHECK(live[k].index < 1u << 20);
        CHECK_EQ(used[live[k].index] >> live[k].generation & 1, 0);
        used[live[k].index] |= (uint16_t)(1u << live[k].generation);
        highest = live[k].index > highest ? live[k].index : highest;
    }
    for (size_t k = 0; k < LIVE; k++)
        ist_segment_release(live[k]);
    ist_stats stats = test_stats();
    CHECK_EQ(stats.segments, 0);
    CHECK(stats.retired > 300000 / 20, "%llu", (unsigned long long)stats.retired);
    CHECK(highest < 300000 / 16 * 2, "%u slots for 300,000 segments", highest);
}

Test(generations, make_writable_of_the_last_one_fails) {
    ist_segment s = test_create(8, 0), before;
    while (s.generation < IST_GENERATION_MASK)
        CHECK_EQ(ist_segment_make_writable(&s), 0);
    CHECK_EQ(ist_segment_freeze(s), 0);
    before = s;
    CHECK_EQ(ist_segment_make_writable(&s), -EOVERFLOW);
    CHECK_EQ(memcmp(&s, &before, sizeof s), 0);
    CHECK(ist_segment_is_frozen(s));
    ist_segment_release(s);
    CHECK_EQ(test_stats().retired, 1);
    CHECK_EQ(test_stats().segments, 0);
}

Test(generations, token_of_a_larger_generation_is_no_token) {
    ist_segment s = test_create(8, 0), out;
    ist_token token = test_token(s);
    uint32_t generation = GENERATIONS;
    memcpy(token.bytes + 20, &generation, 4);
    CHECK_EQ(ist_segment_acquire(&token, &out), -EINVAL);
    ist_segment_release(s);
}

#ifndef IST_DEBUG
/* The generation can't tell here: the handle's is the slot's for ever. */
Test(generations, double_release_of_a_retired_slot_frees_nothing) {
    ist_segment s = test_create(8, 0);
    while (s.generation < IST_GENERATION_MASK)
        CHECK_EQ(ist_segment_make_writable(&s), 0);
    ist_token token = test_token(s);
    ist_segment_release(s);
    for (int i = 0; i < 3; i++)
        ist_segment_release(s);
    ist_stats stats = test_stats();
    CHECK_EQ(stats.saturated, 1);
    CHECK_EQ(stats.retired, 1);
    CHECK_EQ(stats.segments, 0);
    CHECK_EQ(stats.allocated, 0);
    ist_segment out;
    int error = ist_segment_acquire(&token, &out);
    CHECK(error == -ESTALE || error == -EOVERFLOW);
}
#endif
