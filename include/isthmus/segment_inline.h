/* <isthmus/segment_inline.h>: retain and release without a call, for C11 code on a hot path (a binding).
 *
 * Same contract as ist_segment_retain and ist_segment_release. Only what stands here may be relied on: the state word is the first
 * member of a slot, and its bits are
 *
 *     63 … 32  owners       31  frozen       30  exclusive       29 … 0  generation
 *
 * The owners are the high half, so that neither overflow nor underflow of the count can reach flags or generation.
 */
#ifndef ISTHMUS_SEGMENT_INLINE_H
#define ISTHMUS_SEGMENT_INLINE_H

#include <isthmus/segment.h>
#include <stdatomic.h>

#ifndef IST_GENERATION_BITS
#  define IST_GENERATION_BITS 30 /* the library's tests build everything with 4, to reach the end of a slot's generations */
#endif
#define IST_ONE_OWNER (UINT64_C(1) << 32)
#define IST_FROZEN (UINT64_C(1) << 31)
#define IST_EXCLUSIVE (UINT64_C(1) << 30)
#define IST_GENERATION_MASK ((UINT64_C(1) << IST_GENERATION_BITS) - 1)
#define IST_OWNERS_LIMIT UINT32_C(0x7fffffff)     /* owners from here on are misuse */
#define IST_OWNERS_SATURATED UINT32_C(0xC0000000) /* what a count that went wrong is set to: too far from both ends to get back */

/* The part of a slot that inline code may touch. */
struct ist_slot_state {
    _Atomic(uint64_t) state;
};

/* The uncommon ends: `old` is what the add or subtract returned. */
IST_API void ist_segment_retain_slow(ist_segment s, uint64_t old);
IST_API void ist_segment_release_slow(ist_segment s, uint64_t old);

static inline void ist_segment_retain_inline(ist_segment s) {
#ifdef IST_DEBUG
    ist_segment_retain(s);
#else
    struct ist_slot_state *slot = (struct ist_slot_state *)(void *)s.slot;
    /* relaxed: the caller's own reference keeps the segment; nothing is published by counting one more */
    uint64_t old = atomic_fetch_add_explicit(&slot->state, IST_ONE_OWNER, memory_order_relaxed);
    if (__builtin_expect((old & IST_GENERATION_MASK) != s.generation || (uint32_t)(old >> 32) - 1u >= IST_OWNERS_LIMIT - 1u, 0))
        ist_segment_retain_slow(s, old);
#endif
}

static inline void ist_segment_release_inline(ist_segment s) {
#ifdef IST_DEBUG
    ist_segment_release(s);
#else
    if (s.slot == NULL)
        return;
    struct ist_slot_state *slot = (struct ist_slot_state *)(void *)s.slot;
    /* release: pairs with the acquire fence of whoever frees, which then sees this owner's last writes and reads as done */
    uint64_t old = atomic_fetch_sub_explicit(&slot->state, IST_ONE_OWNER, memory_order_release);
    if (__builtin_expect((old & IST_GENERATION_MASK) != s.generation || (uint32_t)(old >> 32) - 2u >= IST_OWNERS_LIMIT - 2u, 0))
        ist_segment_release_slow(s, old);
#endif
}

#endif
