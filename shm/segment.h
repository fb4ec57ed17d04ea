/* segment.h: what descriptors and leases need of segments and of fork. */
#ifndef ISTI_SEGMENT_H
#define ISTI_SEGMENT_H

#include "domain.h"
#include "housekeeper.h"
#include "slab.h"

static inline uint32_t isti_owners(uint64_t state) { return (uint32_t)(state >> 32); }
static inline uint32_t isti_generation(uint64_t state) { return (uint32_t)(state & IST_GENERATION_MASK); }
static inline uint64_t isti_state(uint32_t owners, uint64_t flags, uint32_t generation) {
    return (uint64_t)owners << 32 | flags | generation;
}

/* A slot's word `desc`: domain 6 | descriptor + 1, 26 | its generation 32; 0: not published. */
static inline uint64_t isti_desc(uint32_t domain, uint32_t index, uint32_t generation) {
    return (uint64_t)domain << 58 | (uint64_t)(index + 1) << 32 | generation;
}
static inline uint32_t isti_desc_domain(uint64_t desc) { return (uint32_t)(desc >> 58); }
static inline uint32_t isti_desc_index(uint64_t desc) { return (uint32_t)(desc >> 32 & 0x3ffffff) - 1; }
static inline uint32_t isti_desc_generation(uint64_t desc) { return (uint32_t)desc; }

/* Which file a mapping is of: what ist_segment_file tells. */
struct isti_file {
    struct isti_file *next, **link; /* of all of this process, and who points here; under files_lock (segment.c) */
    uint64_t device, inode, born, offset, end;
    uint32_t flags; /* ist_segment_map's */
    char path[];    /* "": not known */
};

/* What kinds file and foreign need for their end, and published segments whose window couldn't be mapped whole. */
struct isti_wrap {
    ist_free_fn free; /* NULL: none */
    void *ctx;
    void *mapping; /* NULL: none */
    size_t mapping_size;
    struct isti_file *file; /* kind file; owned */
    uint32_t epoch; /* process's, of its making: a child doesn't run its parent's destructors */
    struct ist_slot *pending; /* next of the segments this thread is going to free */
};

/* In a slot's meta, beside the flags of create, wrap and map. */
#define ISTI_SLOT_GROWABLE 16u /* its length is its descriptor's word `current`, and its size what is reserved for it */
#define ISTI_SLOT_LOCK 32u     /* the data is a lock's, or the like (sync.h) */
#define ISTI_SLOT_QUEUE 128u   /* the data is a queue's ring */

extern _Atomic(uint64_t) isti_retired; /* slots; a statistic */

/* ---- steps of making and ending that segment.c and descriptor.c share; inline, as create and release are made of them */

static inline ist_segment isti_handle(struct ist_slot *slot, uint64_t state) {
    return (ist_segment){.slot = slot, .generation = isti_generation(state), .index = slot->index};
}

static inline void isti_slot_begin(struct ist_slot *slot, void *data, size_t size, ist_kind kind, uint32_t flags) {
    /* release: pairs with read_info's acquire loads; whoever reads a field written here finds the generation moved on in its second look.
     * Else a listing could show this segment's size under the number of the one before. Owners get them by the store of the state */
    atomic_store_explicit(&slot->data, data, memory_order_release);
    atomic_store_explicit(&slot->size, size, memory_order_release);
    atomic_store_explicit(&slot->creator, 0, memory_order_release);
    atomic_store_explicit(&slot->meta, (uint32_t)kind | flags << 8, memory_order_release);
}

static inline ist_segment isti_slot_open(struct ist_slot *slot, uint64_t desc, uint64_t flags) {
    /* relaxed: the slot is in this thread's hand, only its generation is needed; desc is published by the state */
    uint32_t generation = isti_generation(atomic_load_explicit(&slot->state, memory_order_relaxed));
    atomic_store_explicit(&slot->desc, desc, memory_order_relaxed);
    uint64_t state = isti_state(1, flags, generation);
    /* release: pairs with the acquire of ist_segment_acquire and _acquire_address, which see the fields and the first content */
    atomic_store_explicit(&slot->state, state, memory_order_release);
    return isti_handle(slot, state);
}

/* The slot of a segment whose memory is gone. t may be NULL. */
static inline void isti_slot_end(struct ist_slot *slot, struct isti_thread *t, uint32_t generation) {
    if (__builtin_expect(generation == IST_GENERATION_MASK, 0)) { /* used up: the slot is nobody's for ever, at owners 0 */
        /* relaxed: no kind, so that it isn't listed whatever a misused handle still does to its count */
        atomic_store_explicit(&slot->meta, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&isti_retired, 1, memory_order_relaxed); /* relaxed: a statistic */
        return;
    }
    /* release: whoever pops the slot or reads this state finds the old segment's end done; pairs with acquire loads of the state. Nobody
     * adds owners at owners = 0; a misused handle's add in between is lost with its generation */
    atomic_store_explicit(&slot->state, isti_state(0, 0, generation + 1), memory_order_release);
    isti_slab_put(t, slot);
}

/* relaxed, both: constant; the caller owns the segment, or has acquired its state and looks at that once more */
static inline bool isti_slot_is_growable(struct ist_slot *slot) {
    return (atomic_load_explicit(&slot->meta, memory_order_relaxed) >> 8 & ISTI_SLOT_GROWABLE) != 0;
}

/* grow.c: the length, now, of a growable segment that is published as `desc` and has `reserved` bytes. */
size_t isti_length(uint64_t desc, uint64_t reserved);

/* Adds an owner if the slot lives in `generation`; `state` was acquired from it. -ESTALE, -EOVERFLOW. */
int isti_slot_add_owner(struct ist_slot *slot, uint64_t state, uint32_t generation, ist_segment *out);

static inline bool isti_slot_is_owned(uint32_t index) {
    struct ist_slot *slot = isti_slab_slot(index);
    return slot != NULL && isti_owners(atomic_load_explicit(&slot->state, memory_order_relaxed)) != 0; /* relaxed: in fork, or a snapshot */
}

/* fork: publishes what is live and isn't, pinned until unpin; false: something couldn't be. Every lock is held. */
bool isti_segment_fork_publish(void);
void isti_segment_fork_unpin(void);
void isti_segment_fork_lock(void); /* of the list of files; a lock behind all others */
void isti_segment_fork_unlock(void);
int isti_publish_locked(struct isti_domain *d, struct ist_slot *slot);
void isti_descriptor_fork_lock(void);
void isti_descriptor_fork_unlock(void);

void isti_member_begin(struct isti_domain *d, uint32_t m);
void isti_member_sign(struct isti_domain *d);

#endif
