/* grow.c: growable segments: bytes that are reserved for good, and a length that grows among them.
 *
 * Everything about such a segment is constant but one word, the length, which lies in its descriptor: that is why it is published as soon
 * as it is made, and why there is one length however many processes hold it. A reader bounds the word by what is reserved, as it knows that
 * from its own slot; so it reads inside of its mapping whatever the word says (README.md, D6 and G1 to G3).
 */
#include "heap.h"
#include "point.h"
#include "segment.h"

#define FLAGS_CREATE (IST_ZERO | IST_PREFAULT)

int ist_segment_create_growable(size_t size, size_t reserved, uint32_t flags, ist_segment *out) {
    if (reserved > PTRDIFF_MAX || size > reserved || (flags & ~FLAGS_CREATE) != 0 || out == NULL)
        return -EINVAL;
    struct isti_thread *t = isti_thread();
    if (t == NULL)
        return ist_process_epoch() == 0 ? -ENOTRECOVERABLE : -ENOMEM;
    ist_slot *slot = isti_slab_take(t);
    if (slot == NULL)
        return -ENOMEM;
    int error;
    void *data = isti_heap_alloc_sparse(t, reserved, (flags & IST_PREFAULT) != 0 ? size : 0, slot->index, &error);
    if (data == NULL) {
        isti_slab_put(t, slot);
        return error;
    }
    isti_slot_begin(slot, data, reserved, IST_KIND_HEAP, ISTI_SLOT_GROWABLE);
    isti_housekeeper_poll(&t->creates_unattended);
    ist_segment s = isti_slot_open(slot, 0, 0);
    error = isti_publish(s);
    if (error == 0)
        error = ist_segment_grow(s, size);
    if (error == 0)
        *out = s;
    else
        ist_segment_release(s);
    return error;
}

size_t isti_length(uint64_t desc, uint64_t reserved) {
    _Atomic(uint64_t) *word = isti_length_word(desc);
    if (word == NULL)
        return 0;
    /* acquire: pairs with ist_segment_grow */
    uint64_t length = atomic_load_explicit(word, memory_order_acquire);
    return (size_t)(length < reserved ? length : reserved);
}

bool ist_segment_is_growable(ist_segment s) { return isti_slot_is_growable(s.slot); }

size_t ist_segment_length(ist_segment s) {
    /* relaxed: the caller owns a reference, so it was published before, or by this thread */
    return isti_slot_is_growable(s.slot) ? isti_length(atomic_load_explicit(&s.slot->desc, memory_order_relaxed), ist_segment_size(s))
                                         : ist_segment_size(s);
}

int ist_segment_grow(ist_segment s, size_t size) {
    if (!isti_slot_is_growable(s.slot))
        return -EINVAL;
    _Atomic(uint64_t) *word = isti_length_word(atomic_load_explicit(&s.slot->desc, memory_order_relaxed)); /* relaxed: as above */
    if (word == NULL)
        return -ENOTRECOVERABLE;
    if (ist_segment_is_frozen(s))
        return -EROFS;
    if (size > ist_segment_size(s))
        return -ENOSPC;
    uint64_t length = atomic_load_explicit(word, memory_order_acquire); /* acquire: the caller relies on it if it is enough already */
    IST_POINT(GROW_READ);
    /* acq_rel. release: pairs with the acquire of whoever reads the length; acquire: one grower sees what the one before wrote */
    while (length < size && !atomic_compare_exchange_weak_explicit(word, &length, size, memory_order_acq_rel, memory_order_acquire))
        ;
    IST_POINT(GROW_DONE);
    return 0;
}
