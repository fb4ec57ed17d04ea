/* plain_slab.c: free slots under contention: each is in one hand at a time, none is lost. */
#include "harness.h"
#include "slab.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { THREADS = 4, ROOM = 300, INDICES = 1 << 16 };
static _Atomic(unsigned) holder[INDICES]; /* which thread has the slot, 0: none */
static uint64_t end;

static void *storm(void *argument) {
    unsigned me = (unsigned)(uintptr_t)argument + 1;
    uint64_t random = test_seed() * (me + 1) | 1, steps = 0;
    struct isti_thread *t = isti_thread();
    struct ist_slot *own[ROOM];
    size_t count = 0;
    do {
        size_t target = test_random(&random) % ROOM; /* far up and down, so that chains are pushed and popped */
        for (; count < target; count++, steps++) {
            struct ist_slot *slot = isti_slab_take(t);
            CHECK(slot != NULL && slot->index < INDICES);
            /* relaxed, here and below: the slab itself orders its users */
            unsigned before = atomic_exchange_explicit(&holder[slot->index], me, memory_order_relaxed);
            CHECK(before == 0, "slot %u is in the hands of thread %u and %u", slot->index, before, me);
            slot->creator = me; /* only whoever has it may write */
            slot->wrap = NULL;  /* a plain member: a race here is seen by ThreadSanitizer */
            own[count] = slot;
        }
        for (; count > target; steps++) {
            struct ist_slot *slot = own[--count];
            CHECK(slot->creator == me && slot->wrap == NULL);
            unsigned before = atomic_exchange_explicit(&holder[slot->index], 0, memory_order_relaxed);
            CHECK_EQ(before, me);
            isti_slab_put(test_random(&random) % 8 == 0 ? NULL : t, slot);
        }
    } while (test_now() < end);
    while (count > 0) {
        struct ist_slot *slot = own[--count];
        atomic_store_explicit(&holder[slot->index], 0, memory_order_relaxed);
        isti_slab_put(t, slot);
    }
    return (void *)(uintptr_t)steps;
}

int main(void) {
    test_seed();
    end = test_storm_end(2);
    pthread_t threads[THREADS];
    uint64_t steps = 0;
    for (uintptr_t i = 0; i < THREADS; i++)
        threads[i] = test_thread(storm, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        CHECK_EQ(pthread_join(threads[i], &result), 0);
        steps += (uintptr_t)result;
    }
    /* all threads are gone, and their magazines with them: every slot can be had again, without a fresh one */
    uint32_t high = isti_slab_high();
    for (uint32_t i = 0; i < high; i++) {
        struct ist_slot *slot = isti_slab_take(isti_thread());
        CHECK(slot != NULL && slot->index < high, "a slot was lost");
        CHECK_EQ(holder[slot->index], 0);
        holder[slot->index] = 1;
    }
    CHECK(high <= THREADS * (ROOM + 3 * ISTI_MAGAZINE), "%u slots for %d in use", high, THREADS * ROOM);
    printf("%llu steps, %u slots\n", (unsigned long long)steps, high);
    CHECK(steps > 1000);
    return 0;
}
