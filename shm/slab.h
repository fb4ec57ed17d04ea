/* slab.h: slots, the type-stable places where counts live. */
#ifndef ISTI_SLAB_H
#define ISTI_SLAB_H

#include "thread.h"

#include <assert.h>
#include <isthmus/segment_inline.h>

/* One cache line. Who may touch what:
 *   state                     everybody, by atomic operations only
 *   data … meta               written by the creator before its release store of state; afterwards constant while the generation lasts
 *                             (atomic, as a stale reader may look at any time; relaxed, as state orders them)
 *   wrap                      creator, then whoever frees
 *   desc                      0 from the creator; whoever publishes it, and make_writable, under the slot's publish lock
 *   link, chain               whoever has the free slot in its hand; `chain` of a slot on the global stack may be read by a popper that
 *                             loses
 */
struct ist_slot {
    _Atomic(uint64_t) state;   /* see segment_inline.h */
    _Atomic(void *) data;      /* first byte */
    _Atomic(uint64_t) size;    /* bytes, exactly as asked for */
    _Atomic(uint64_t) creator;
    struct isti_wrap *wrap;    /* kinds file and foreign, and what is mapped for this segment alone; NULL: none */
    _Atomic(uint64_t) desc;    /* domain, descriptor, its generation: see segment.h; 0: not published. Moves on under the publish lock */
    _Atomic(uint32_t) link;    /* free: index + 1 of the next slot of the same chain */
    _Atomic(uint32_t) chain;   /* free, first of a chain: index + 1 of the next chain */
    uint32_t index;            /* constant */
    _Atomic(uint32_t) meta;    /* kind | flags << 8 */
};
static_assert(sizeof(struct ist_slot) == 64, "a slot is one cache line");
static_assert(offsetof(struct ist_slot, state) == 0, "segment_inline.h reaches the state as the first member");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "counts must be lock-free");

#define ISTI_CHUNK_BITS 12 /* slots per chunk: 4,096, 256 KiB */
#define ISTI_CHUNK (1u << ISTI_CHUNK_BITS)
#define ISTI_CHUNKS 4096u
#define ISTI_SLOTS ((uint32_t)(ISTI_CHUNK * ISTI_CHUNKS)) /* live segments of a process, at most */

/* The slot of an index that may be anything; NULL if there is none. */
struct ist_slot *isti_slab_slot(uint32_t index);

/* The uncommon ends: an empty magazine (NULL: no memory, or all slots in use); a full one, or no t. */
struct ist_slot *isti_slab_take_slow(struct isti_thread *t);
void isti_slab_put_slow(struct isti_thread *t, struct ist_slot *slot);

/* A free slot for this thread, in its hand until it is put back; NULL: no memory, or all slots in use. */
static inline struct ist_slot *isti_slab_take(struct isti_thread *t) {
    if (__builtin_expect(t->free_count == 0, 0))
        return isti_slab_take_slow(t);
    return t->magazine[--t->free_count];
}

/* Gives a free slot back. t may be NULL. */
static inline void isti_slab_put(struct isti_thread *t, struct ist_slot *slot) {
    if (__builtin_expect(t == NULL || t->free_count == ISTI_MAGAZINE, 0))
        isti_slab_put_slow(t, slot);
    else
        t->magazine[t->free_count++] = slot;
}

/* All slots of a thread go to the global stack: it ends. */
void isti_slab_return(struct isti_thread *t);

/* Forgets the free slots that other threads had or may have been pushing: what they were about to store isn't in the child's copy. Address
 * space is all that this costs, and only in the child. */
void isti_slab_fork_child(void);

/* One past the highest index ever handed out. */
uint32_t isti_slab_high(void);

#endif
