/* fuzz_clone.c: any bytes as a structured clone, for libFuzzer (tools/fuzz.sh) and for plain_fuzz_clone, which needs none.
 *
 * What must hold of bytes that ist_clone_check takes: every item lies inside; the room that open items may ask for never exceeds the bytes
 * that are left; written anew, item by item, they are a message with the same summary, and not a longer one; with a byte less or more they
 * are none.
 */
#include <isthmus/clone.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* harness.h's CHECK would bring the whole library along. */
#define MUST(condition) ((condition) ? (void)0 : failed(#condition, __LINE__))

static _Noreturn void failed(const char *condition, int line) {
    fprintf(stderr, "fuzz_clone.c:%d: not so: %s\n", line, condition);
    abort();
}

/* The item as a writer would write it, its own items apart. */
static unsigned char *write_item(unsigned char *at, const ist_clone_item *item, size_t unit) {
    if (item->keep && !(item->kind == IST_CLONE_TEXT_ASCII && item->n < 32))
        at = ist_clone_put_tag(at, IST_CLONE_KEEP);
    switch (item->kind) {
    case IST_CLONE_INT64: return ist_clone_put_integer(at, item->integer);
    case IST_CLONE_SAME: return ist_clone_put_same(at, item->n);
    case IST_CLONE_TEXT_ASCII:
        at = item->n < 32 ? ist_clone_put_tag(at, (item->keep ? IST_CLONE_TEXT_KEPT : IST_CLONE_TEXT) + (unsigned)item->n)
                          : ist_clone_put_counted(at, item->kind, item->n);
        break;
    case IST_CLONE_LIST:
        return item->n < 16 ? ist_clone_put_tag(at, IST_CLONE_FEW_LIST + (unsigned)item->n)
                            : ist_clone_put_counted(at, item->kind, item->n);
    case IST_CLONE_DICT:
        return item->n < 16 ? ist_clone_put_tag(at, IST_CLONE_FEW_DICT + (unsigned)item->n)
                            : ist_clone_put_counted(at, item->kind, item->n);
    case IST_CLONE_TUPLE:
        return item->n < 8 ? ist_clone_put_tag(at, IST_CLONE_FEW_TUPLE + (unsigned)item->n)
                           : ist_clone_put_counted(at, item->kind, item->n);
    case IST_CLONE_SET:
    case IST_CLONE_FROZENSET:
    case IST_CLONE_NAMEDTUPLE:
    case IST_CLONE_INSTANCE:
    case IST_CLONE_ARRAY: return ist_clone_put_counted(at, item->kind, item->n);
    case IST_CLONE_INT:
    case IST_CLONE_BYTES:
    case IST_CLONE_BYTEARRAY:
    case IST_CLONE_CONTENTS:
    case IST_CLONE_TEXT_1:
    case IST_CLONE_TEXT_2:
    case IST_CLONE_TEXT_4: at = ist_clone_put_counted(at, item->kind, item->n); break;
    case IST_CLONE_ARRAY_ARRAY:
        at = ist_clone_put_tag(ist_clone_put_tag(at, item->kind), (unsigned)item->integer);
        at = ist_clone_put_count(at, item->n);
        break;
    case IST_CLONE_EXCEPTION:
    case IST_CLONE_MEMORYVIEW: return ist_clone_put_tag(ist_clone_put_tag(at, item->kind), (unsigned)item->integer);
    default: at = ist_clone_put_tag(at, item->kind); break;
    }
    if (unit > 0)
        memcpy(at, item->data, unit);
    return at + unit;
}

/* Bytes of data that came with an item. */
static size_t data_of(const ist_clone_item *item) {
    switch (item->kind) {
    case IST_CLONE_TEXT_ASCII:
    case IST_CLONE_TEXT_1:
    case IST_CLONE_INT:
    case IST_CLONE_BYTES:
    case IST_CLONE_BYTEARRAY:
    case IST_CLONE_CONTENTS:
    case IST_CLONE_ARRAY_ARRAY: return (size_t)item->n;
    case IST_CLONE_TEXT_2: return 2 * (size_t)item->n;
    case IST_CLONE_TEXT_4: return 4 * (size_t)item->n;
    case IST_CLONE_FLOAT:
    case IST_CLONE_TIME:
    case IST_CLONE_ZONED_TIME: return 8;
    case IST_CLONE_COMPLEX: return 16;
    case IST_CLONE_DATE: return 4;
    case IST_CLONE_DATETIME:
    case IST_CLONE_ZONED_DATETIME:
    case IST_CLONE_TIMEDELTA:
    case IST_CLONE_TIMEZONE: return 12;
    default: return 0;
    }
}

static void check_good(const uint8_t *bytes, size_t size, const ist_clone_summary *summary) {
    unsigned char *again = malloc(size + IST_CLONE_ROOM), *to = ist_clone_put_head(again);
    MUST(again != NULL);
    ist_clone_reader r;
    MUST(ist_clone_open(&r, bytes, size) == 0);
    uint64_t items = 0;
    for (; r.due > 0; items++) {
        ist_clone_item item = {0};
        MUST(ist_clone_next(&r, &item) == 0);
        MUST(r.at > bytes && r.at <= r.end && r.end == bytes + size);
        MUST(r.due <= ist_clone_left(&r));
        const size_t data = data_of(&item);
        MUST(data == 0 || (item.data >= bytes + IST_CLONE_HEAD && item.data + data <= r.at));
        to = write_item(to, &item, data);
        MUST(to <= again + size); /* else it became longer */
    }
    MUST(ist_clone_close(&r) == 0);
    MUST(items == summary->items);
    ist_clone_summary other;
    MUST(ist_clone_check(again, (size_t)(to - again), &other) == 0);
    MUST(memcmp(&other, summary, sizeof other) == 0);
    MUST(ist_clone_check(bytes, size - 1, &other) == -EBADMSG);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    ist_clone_summary summary = {1, 2, 3, 4};
    const int error = ist_clone_check(bytes, size, &summary);
    if (error == 0)
        check_good(bytes, size, &summary);
    else
        MUST(error == -EBADMSG && summary.items == 1 && summary.data == 4);
    return 0;
}
