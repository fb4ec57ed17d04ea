/* slab.c: free slots: a magazine per thread, a global stack of chains behind, fresh ones behind that.
 *
 * Slots are never unmapped, so a stale token or a losing popper may always look at one. A chain is up to a magazine full of free slots
 * linked by `link`; whole chains are pushed and popped, so the stack is touched once in 32 or more operations. Its head is tagged (a
 * Treiber stack with a version number, R. K. Treiber 1986): a popper that slept while the chain was popped and pushed again fails. A popped
 * chain is one thread's `rest`, which it uses up from the front.
 *
 *   every slot below `high` is live, in one magazine, in one chain, in one thread's rest, in one thread's hand, or retired for ever
 *   (in a forked child also: lost, as other threads had it in magazines or chains)
 */
#include "slab.h"

#include "os.h"

#include <sys/mman.h>

static _Atomic(struct ist_slot *) chunks[ISTI_CHUNKS];
static _Atomic(uint32_t) high;
static _Atomic(uint64_t) stack; /* tag 32 | index + 1 of the first chain's first slot */

struct ist_slot *isti_slab_slot(uint32_t index) {
    if (index >= ISTI_SLOTS)
        return NULL;
    /* acquire: pairs with the release of whoever installed the chunk; its indices are then readable */
    struct ist_slot *chunk = atomic_load_explicit(&chunks[index >> ISTI_CHUNK_BITS], memory_order_acquire);
    return chunk == NULL ? NULL : chunk + (index & (ISTI_CHUNK - 1));
}

uint32_t isti_slab_high(void) {
    /* relaxed: a bound for a walk; isti_slab_slot checks each */
    return atomic_load_explicit(&high, memory_order_relaxed);
}

static void push_chain(struct ist_slot *first) {
    /* relaxed: the compare-exchange checks it */
    uint64_t head = atomic_load_explicit(&stack, memory_order_relaxed);
    uint64_t next;
    do {
        atomic_store_explicit(&first->chain, (uint32_t)head, memory_order_relaxed);
        next = ((head >> 32) + 1) << 32 | (first->index + 1u);
        /* release: pairs with pop_chain's acquire; the links and the states of the slots are then seen */
    } while (!atomic_compare_exchange_weak_explicit(&stack, &head, next, memory_order_release, memory_order_relaxed));
}

static struct ist_slot *pop_chain(void) {
    /* acquire: pairs with push_chain's release, here and in the exchange */
    uint64_t head = atomic_load_explicit(&stack, memory_order_acquire);
    while ((uint32_t)head != 0) {
        struct ist_slot *first = isti_slab_slot((uint32_t)head - 1);
        /* relaxed: may be another owner's by now; then the tag has moved and the exchange fails */
        uint32_t second = atomic_load_explicit(&first->chain, memory_order_relaxed);
        uint64_t next = ((head >> 32) + 1) << 32 | second;
        if (atomic_compare_exchange_weak_explicit(&stack, &head, next, memory_order_acquire, memory_order_acquire))
            return first;
    }
    return NULL;
}

/* Makes sure that the chunk of `index` is there. */
static bool grow(uint32_t index) {
    _Atomic(struct ist_slot *) *place = &chunks[index >> ISTI_CHUNK_BITS];
    /* acquire: pairs with the exchange below in another thread */
    if (atomic_load_explicit(place, memory_order_acquire) != NULL)
        return true;
    size_t size = sizeof(struct ist_slot) * ISTI_CHUNK;
    struct ist_slot *chunk = isti_os.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (chunk == MAP_FAILED)
        return false;
    uint32_t base = index & ~(ISTI_CHUNK - 1);
    for (uint32_t i = 0; i < ISTI_CHUNK; i++)
        chunk[i].index = base + i;
    struct ist_slot *none = NULL;
    /* release: publishes the indices to isti_slab_slot; acquire if another thread was first */
    if (!atomic_compare_exchange_strong_explicit(place, &none, chunk, memory_order_acq_rel, memory_order_acquire))
        isti_os.munmap(chunk, size);
    return true;
}

/* Slots nobody has used yet, half a magazine of them; false: no memory or no slots left. */
static bool take_fresh(struct isti_thread *t) {
    const uint32_t want = ISTI_MAGAZINE / 2; /* divides ISTI_CHUNK: a batch lies in one chunk */
    /* relaxed: only the numbers are handed out here; the chunk is published by its own word */
    uint32_t first = atomic_load_explicit(&high, memory_order_relaxed);
    do {
        if (first > ISTI_SLOTS - want || !grow(first))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&high, &first, first + want, memory_order_relaxed, memory_order_relaxed));
    struct ist_slot *slot = isti_slab_slot(first);
    for (uint32_t i = 0; i < want; i++)
        t->magazine[i] = slot + (want - 1 - i); /* the lowest is taken first */
    t->free_count = want;
    return true;
}

struct ist_slot *isti_slab_take_slow(struct isti_thread *t) {
    struct ist_slot *slot = t->rest != NULL ? t->rest : pop_chain();
    if (slot == NULL)
        return take_fresh(t) ? t->magazine[--t->free_count] : NULL;
    /* relaxed: the chain is ours since pop_chain's acquire */
    uint32_t next = atomic_load_explicit(&slot->link, memory_order_relaxed);
    t->rest = next == 0 ? NULL : isti_slab_slot(next - 1);
    /* Slots of a chain were last touched long ago. Walking it at once would wait for one after the other; so each comes while the segment
     * before it is made. */
    __builtin_prefetch(t->rest, 1);
    return slot;
}

/* The upper `count` slots of the magazine become a chain. */
static void flush(struct isti_thread *t, uint32_t count) {
    struct ist_slot *first = NULL;
    while (count-- > 0) {
        struct ist_slot *slot = t->magazine[--t->free_count];
        /* relaxed: push_chain's release publishes it */
        atomic_store_explicit(&slot->link, first == NULL ? 0 : first->index + 1u, memory_order_relaxed);
        first = slot;
    }
    if (first != NULL)
        push_chain(first);
}

void isti_slab_put_slow(struct isti_thread *t, struct ist_slot *slot) {
    if (t == NULL) {
        atomic_store_explicit(&slot->link, 0, memory_order_relaxed); /* relaxed: as in flush */
        push_chain(slot);
        return;
    }
    flush(t, ISTI_MAGAZINE / 2);
    t->magazine[t->free_count++] = slot;
}

void isti_slab_return(struct isti_thread *t) {
    flush(t, t->free_count);
    if (t->rest != NULL)
        push_chain(t->rest);
    t->rest = NULL;
}

void isti_slab_fork_child(void) {
    /* relaxed: the child has one thread */
    uint64_t head = atomic_load_explicit(&stack, memory_order_relaxed);
    atomic_store_explicit(&stack, ((head >> 32) + 1) << 32, memory_order_relaxed);
}
