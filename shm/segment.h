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

/* What kinds file and foreign need for their end, and published segments whose window couldn't be mapped whole. */
struct isti_wrap {
    ist_free_fn free; /* NULL: none */
    void *ctx;
    void *mapping; /* NULL: none */
    size_t mapping_size;
    uint32_t epoch; /* process's, of its making: a child doesn't run its parent's destructors */
    struct ist_slot *pending; /* next of the segments this thread is going to free */
};

/* Steps of making and ending that segment.c and descriptor.c share. */
void isti_slot_begin(struct ist_slot *slot, void *data, size_t size, ist_kind kind, uint32_t flags);
ist_segment isti_slot_open(struct ist_slot *slot, uint64_t desc, uint64_t flags);
void isti_slot_end(struct ist_slot *slot, struct isti_thread *t, uint32_t generation);
/* Adds an owner if the slot lives in `generation`; `state` was acquired from it. -ESTALE, -EOVERFLOW. */
int isti_slot_add_owner(struct ist_slot *slot, uint64_t state, uint32_t generation, ist_segment *out);

/* fork: publishes what is live and isn't, pinned until unpin; false: something couldn't be. Every lock is held. */
bool isti_segment_fork_publish(void);
void isti_segment_fork_unpin(void);
int isti_publish_locked(struct isti_domain *d, struct ist_slot *slot);
void isti_descriptor_fork_lock(void);
void isti_descriptor_fork_unlock(void);

void isti_member_begin(struct isti_domain *d, uint32_t m);
void isti_member_sign(struct isti_domain *d);

#endif
