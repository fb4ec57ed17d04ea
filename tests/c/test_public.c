/* test_public.c: the installed face: a program that links the shared library and sees the public headers only. */
#include "harness.h"

#include <criterion/criterion.h>
#include <isthmus/isthmus.h>
#include <isthmus/segment_inline.h>
#include <string.h>

static int freed;
static void on_free(void *ctx, void *data, size_t size) {
    (void)ctx, (void)data, (void)size;
    freed++;
}

Test(public, a_cycle) {
    ist_segment s = test_create(100, IST_ZERO), t;
    ist_token token = test_token(s);
    cr_assert_eq(ist_segment_acquire(&token, &t), 0);
    ist_segment_retain_inline(t);
    ist_segment_release_inline(t);
    ist_segment_release_inline(t);
    cr_assert_eq(test_owners(s), 1);
    uint64_t number;
    cr_assert_eq(ist_lease_take(s, &number), 0);
    ist_segment_release_inline(s);
    cr_assert_eq(ist_lease_load(&token, number, &s), 0);
    cr_assert_eq(ist_segment_freeze(s), 0);
    ist_segment_release_inline(s); /* the last one, inline */
    cr_assert_eq(ist_segment_acquire(&token, &s), -ESTALE);
    ist_segment_release_inline((ist_segment){0});
    cr_assert_eq(test_stats().segments, 0);
    cr_assert_eq(ist_segment_wrap(&freed, sizeof freed, on_free, NULL, 0, &s), 0);
    ist_segment_retain_inline(s);
    ist_segment_release_inline(s);
    cr_assert_eq(freed, 0);
    ist_segment_release_inline(s);
    cr_assert_eq(freed, 1);
}

#ifndef IST_DEBUG
Test(public, inline_misuse_is_detected) {
    ist_segment s = test_create(100, 0);
    ist_segment_release_inline(s);
    ist_segment_release_inline(s);
    ist_segment_retain_inline(s);
    cr_assert_eq(test_stats().misuses, 2);
    ist_segment t = test_create(100, 0);
    cr_assert_eq(t.index, s.index);
    cr_assert_eq(test_owners(t), 1);
    ist_segment_release(t);
}
#endif

static void child(void *parents_epoch) {
    const uint32_t *parents = parents_epoch;
    CHECK(ist_epoch() == parents[0] && ist_process_epoch() != 0 && ist_process_epoch() != parents[1]);
    ist_segment s = test_create(10, 0);
    ist_segment_release(s);
}

Test(public, the_epoch_is_seen_through_the_library_boundary) {
    uint32_t epochs[] = {ist_epoch(), ist_process_epoch()};
    cr_assert(epochs[0] != 0 && epochs[1] != 0);
    CHECK_CHILD(child, epochs, 20);
    cr_assert(ist_epoch() == epochs[0] && ist_process_epoch() == epochs[1]);
}
