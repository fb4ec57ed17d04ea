/* test_slab.c: free slots: each is in one place. plain_slab has the race. */
#include "harness.h"
#include "os.h"
#include "slab.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/mman.h>

static struct isti_thread *thread_block(void) {
    struct isti_thread *t = isti_thread();
    CHECK(t != NULL);
    return t;
}

Test(slab, slots_are_distinct_and_come_back) {
    enum { COUNT = 20000 };
    struct isti_thread *t = thread_block();
    static struct ist_slot *slots[COUNT];
    static bool taken[4 * COUNT];
    for (int i = 0; i < COUNT; i++) {
        slots[i] = isti_slab_take(t);
        CHECK(slots[i] != NULL && slots[i]->index < isti_slab_high());
        CHECK(slots[i]->index < 4 * COUNT && !taken[slots[i]->index]);
        CHECK_EQ((uintptr_t)slots[i] % 64, 0);
        CHECK_EQ(isti_slab_slot(slots[i]->index) == slots[i], 1);
        taken[slots[i]->index] = true;
    }
    uint32_t high = isti_slab_high();
    CHECK(high < COUNT + ISTI_MAGAZINE);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < COUNT; i++) {
            taken[slots[i]->index] = false;
            isti_slab_put(round % 2 ? NULL : t, slots[i]); /* a thread without a block puts them on the stack one by one */
        }
        for (int i = 0; i < COUNT; i++) {
            slots[i] = isti_slab_take(t);
            CHECK(slots[i] != NULL && !taken[slots[i]->index], "slot %u twice", slots[i]->index);
            taken[slots[i]->index] = true;
        }
        CHECK_EQ(isti_slab_high(), high); /* nothing was lost */
    }
}

static struct ist_slot *given[500];

static void *take_and_end(void *unused) {
    (void)unused;
    struct isti_thread *t = thread_block();
    for (int i = 0; i < 500; i++)
        given[i] = isti_slab_take(t);
    for (int i = 0; i < 500; i++)
        isti_slab_put(t, given[i]);
    return NULL;
}

Test(slab, magazine_of_an_ended_thread_comes_back) {
    test_join(test_thread(take_and_end, NULL));
    uint32_t high = isti_slab_high();
    struct isti_thread *t = thread_block();
    static bool taken[4096];
    for (uint32_t i = 0; i < high; i++) {
        struct ist_slot *slot = isti_slab_take(t);
        CHECK(slot != NULL && !taken[slot->index]);
        taken[slot->index] = true;
    }
    CHECK_EQ(isti_slab_high(), high);
}

Test(slab, index_of_no_slot) {
    CHECK_EQ(isti_slab_slot(ISTI_SLOTS) == NULL, 1);
    CHECK_EQ(isti_slab_slot(UINT32_MAX) == NULL, 1);
    CHECK_EQ(isti_slab_slot(ISTI_SLOTS - 1) == NULL, 1); /* its chunk doesn't exist */
    CHECK_EQ(isti_slab_slot(0) == NULL, 1);
    struct ist_slot *slot = isti_slab_take(thread_block());
    CHECK_EQ(isti_slab_slot(slot->index) == slot, 1);
    CHECK_EQ(isti_slab_slot(ISTI_CHUNK) == NULL, 1);
}

static void *no_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    (void)address, (void)size, (void)protection, (void)flags, (void)fd, (void)offset;
    errno = ENOMEM;
    return MAP_FAILED;
}

Test(slab, no_memory_for_a_chunk) {
    struct isti_thread *t = thread_block();
    isti_os.mmap = no_mmap;
    CHECK_EQ(isti_slab_take(t) == NULL, 1);
    CHECK_EQ(isti_slab_high(), 0);
    isti_os.mmap = mmap;
    for (uint32_t i = 0; i < ISTI_CHUNK; i++)
        CHECK(isti_slab_take(t) != NULL);
    isti_os.mmap = no_mmap;
    CHECK_EQ(isti_slab_take(t) == NULL, 1);
    isti_os.mmap = mmap;
    CHECK(isti_slab_take(t) != NULL);
}

static void *no_block(size_t size, int flags) {
    (void)size, (void)flags;
    return NULL;
}

Test(slab, failed_creates_give_their_slot_back) {
    ist_segment s = test_create(1, 0), out;
    void *(*real)(size_t, int) = isti_os.mallocx;
    isti_os.mallocx = no_block;
    for (int i = 0; i < 1000; i++)
        CHECK_EQ(ist_segment_create(1, 0, &out), -ENOMEM);
    isti_os.mallocx = real;
    for (int i = 0; i < 10; i++)
        CHECK_EQ(ist_segment_create((size_t)1 << 60, 0, &out), -ENOMEM);
    CHECK(isti_slab_high() <= ISTI_MAGAZINE, "%u slots", isti_slab_high());
    ist_segment_release(s);
}
