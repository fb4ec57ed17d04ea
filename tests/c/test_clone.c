/* test_clone.c: the bytes of a structured clone: what a writer writes is what a reader reads, and nothing reaches outside. */
#include "harness.h"

#include <criterion/criterion.h>
#include <isthmus/clone.h>
#include <stdlib.h>

static unsigned char room[4096];

static ist_clone_summary good(const unsigned char *end) {
    ist_clone_summary summary;
    CHECK_EQ(ist_clone_check(room, (size_t)(end - room), &summary), 0);
    return summary;
}

static void bad(const unsigned char *end) {
    ist_clone_summary summary = {7, 7, 7, 7};
    CHECK_EQ(ist_clone_check(room, (size_t)(end - room), &summary), -EBADMSG);
    CHECK(summary.items == 7 && summary.kept == 7 && summary.arrays == 7 && summary.data == 7);
}

static ist_clone_item only(const unsigned char *end) {
    ist_clone_reader r;
    ist_clone_item item;
    CHECK_EQ(ist_clone_open(&r, room, (size_t)(end - room)), 0);
    CHECK_EQ(ist_clone_next(&r, &item), 0);
    return item;
}

Test(clone, integers_take_as_few_bytes_as_they_can) {
    static const struct {
        int64_t n;
        int bytes;
    } rows[] = {{0, 1},
                {63, 1},
                {64, 2},
                {-1, 2},
                {127, 2},
                {-128, 2},
                {128, 3},
                {-129, 3},
                {32767, 3},
                {-32768, 3},
                {32768, 5},
                {-32769, 5},
                {INT32_MAX, 5},
                {INT32_MIN, 5},
                {INT64_C(1) << 31, 9},
                {-(INT64_C(1) << 31) - 1, 9},
                {INT64_MAX, 9},
                {INT64_MIN, 9}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned char *begin = ist_clone_put_head(room), *end = ist_clone_put_integer(begin, rows[i].n);
        CHECK_EQ(end - begin, rows[i].bytes);
        CHECK_EQ(good(end).items, 1);
        ist_clone_item item = only(end);
        CHECK_EQ(item.kind, IST_CLONE_INT64);
        CHECK_EQ(item.integer, rows[i].n);
        for (int cut = 1; cut <= rows[i].bytes; cut++)
            bad(end - cut);
        bad(end + 1);
    }
}

Test(clone, counts) {
    static const uint64_t counts[] = {0, 1, 253, 254, 255, 65536, UINT32_MAX, (uint64_t)UINT32_MAX + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        ist_clone_reader r = {.at = room, .end = ist_clone_put_count(room, counts[i])};
        const unsigned char *end = r.end;
        uint64_t n;
        CHECK_EQ(ist_clone_count(&r, &n), 0);
        CHECK(n == counts[i] && r.at == end);
        for (r.end = room; r.end < end; r.end++) {
            r.at = room;
            CHECK_EQ(ist_clone_count(&r, &n), -EBADMSG);
        }
        /* as the length of anything, in a message that ends there */
        for (unsigned kind = IST_CLONE_INT; kind <= IST_CLONE_FROZENSET; kind++) {
            if (kind == IST_CLONE_FLOAT || kind == IST_CLONE_COMPLEX)
                continue;
            unsigned char *at = ist_clone_put_counted(ist_clone_put_head(room), kind, counts[i]);
            if (counts[i] == 0)
                good(at);
            else
                bad(at);
        }
    }
}

/* How many items and bytes each kind has is told in three places: the header's comments, ist_clone_next_other, and here. */
Test(clone, items_inside) {
    static const struct {
        unsigned kind;
        int data, inside;
    } rows[] = {
        {IST_CLONE_RANGE, 0, 3},
        {IST_CLONE_SLICE, 0, 3},
        {IST_CLONE_DATE, 4, 0},
        {IST_CLONE_TIME, 8, 0},
        {IST_CLONE_DATETIME, 12, 0},
        {IST_CLONE_ZONED_TIME, 8, 1},
        {IST_CLONE_ZONED_DATETIME, 12, 1},
        {IST_CLONE_TIMEDELTA, 12, 0},
        {IST_CLONE_UTC, 0, 0},
        {IST_CLONE_TIMEZONE, 12, 1},
        {IST_CLONE_GLOBAL, 0, 2},
        {IST_CLONE_ENUM, 0, 2},
        {IST_CLONE_EXCEPTION, 1, 6},
        {IST_CLONE_REGISTERED, 0, 2},
        {IST_CLONE_PICKLE, 0, 1},
        {IST_CLONE_NDARRAY, 0, 1},
        {IST_CLONE_NDARRAY_F, 0, 1},
        {IST_CLONE_MEMORYVIEW, 1, 1},
        {IST_CLONE_FLOAT, 8, 0},
        {IST_CLONE_COMPLEX, 16, 0},
        {IST_CLONE_NONE, 0, 0},
        {IST_CLONE_ELLIPSIS, 0, 0},
        {IST_CLONE_INT8, 1, 0},
        {IST_CLONE_INT64, 8, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned char *at = ist_clone_put_tag(ist_clone_put_head(room), rows[i].kind);
        memset(at, 1, 64); /* data, then small integers */
        unsigned char *end = at + rows[i].data + rows[i].inside;
        CHECK_EQ(good(end).items, 1 + rows[i].inside);
        bad(end + 1);
        bad(end - 1);
    }
    unsigned char *at = ist_clone_put_counted(ist_clone_put_head(room), IST_CLONE_INSTANCE, 2);
    CHECK_EQ(good(at + 5).items, 6);
    bad(at + 4);
    at = ist_clone_put_counted(ist_clone_put_head(room), IST_CLONE_DICT, 20);
    memset(at, 1, 64);
    CHECK_EQ(good(at + 40).items, 41);
}

Test(clone, numbers_of_items) {
    unsigned char *at = ist_clone_put_head(room);
    at = ist_clone_put_tag(at, IST_CLONE_KEEP);
    at = ist_clone_put_counted(at, IST_CLONE_LIST, 3);
    *at++ = IST_CLONE_TEXT_KEPT + 1;
    *at++ = 'a';
    unsigned char *last = ist_clone_put_same(at, 0);
    CHECK_EQ(good(ist_clone_put_same(last, 1)).kept, 2);
    bad(ist_clone_put_same(last, 2));
    bad(ist_clone_put_counted(last, IST_CLONE_SAME, 2));
    bad(ist_clone_put_counted(last, IST_CLONE_SAME, UINT64_MAX));
    at = ist_clone_put_head(room);
    bad(ist_clone_put_tag(at, IST_CLONE_KEEP));
    at = ist_clone_put_tag(at, IST_CLONE_KEEP);
    bad(ist_clone_put_tag(ist_clone_put_tag(at, IST_CLONE_KEEP), IST_CLONE_NONE)); /* two numbers for one */
    bad(ist_clone_put_tag(at, IST_CLONE_TEXT_KEPT));
    bad(ist_clone_put_same(at, 0));
}

Test(clone, arrays_beside_it) {
    unsigned char *at = ist_clone_put_counted(ist_clone_put_head(room), IST_CLONE_LIST, 2);
    at = ist_clone_put_counted(at, IST_CLONE_ARRAY, 3);
    CHECK_EQ(good(ist_clone_put_counted(at, IST_CLONE_ARRAY, 0)).arrays, 4);
    bad(ist_clone_put_counted(at, IST_CLONE_ARRAY, UINT64_MAX));
}

Test(clone, heads) {
    unsigned char *end = ist_clone_put_tag(ist_clone_put_head(room), IST_CLONE_NONE);
    for (int i = 0; i < IST_CLONE_HEAD; i++) {
        room[i] ^= 0x80;
        bad(end);
        room[i] ^= 0x80;
        bad(room + i);
    }
    good(end);
    bad(room + IST_CLONE_HEAD);
}

Test(clone, unknown_tags) {
    for (unsigned tag = IST_CLONE_TAGS_END; tag < 256; tag++)
        bad(ist_clone_put_tag(ist_clone_put_head(room), tag));
}

/* Containers in containers that each promise as many items as there are bytes left. */
Test(clone, promises_add_up) {
    unsigned char *at = ist_clone_put_head(room);
    for (int i = 0; i < 8; i++)
        at = ist_clone_put_counted(at, IST_CLONE_LIST, 200);
    memset(at, 1, 8 * 200);
    bad(at + 200);
    bad(at + 8 * 199);
    good(at + 8 * 199 + 1);
    ist_clone_reader r;
    ist_clone_item item;
    CHECK_EQ(ist_clone_open(&r, room, (size_t)(at + 300 - room)), 0);
    CHECK_EQ(ist_clone_next(&r, &item), 0);
    CHECK_EQ(ist_clone_next(&r, &item), -EBADMSG); /* the second has no room any more, though it alone would fit */
}

Test(clone, a_million_deep_takes_no_stack) {
    const size_t depth = 1000000;
    unsigned char *bytes = malloc(IST_CLONE_HEAD + depth + 1);
    CHECK(bytes != NULL);
    memset(ist_clone_put_head(bytes), IST_CLONE_FEW_LIST + 1, depth);
    bytes[IST_CLONE_HEAD + depth] = IST_CLONE_NONE;
    ist_clone_summary summary;
    CHECK_EQ(ist_clone_check(bytes, IST_CLONE_HEAD + depth + 1, &summary), 0);
    CHECK_EQ(summary.items, depth + 1);
    CHECK_EQ(ist_clone_check(bytes, IST_CLONE_HEAD + depth, &summary), -EBADMSG);
    free(bytes);
}
