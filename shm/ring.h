/* ring.h: the memory of a queue: a head and a ring of slots, one message each.
 *
 * Lies in a segment that all processes of the domain may map, so every word is untrusted, as in control.h. Where the next message is to be
 * sent and received stands in the queue's row there (isti_queue_row), as marks refer to it after the ring is gone.
 *
 *   slot word   position 48 | state 4 | member 12. Zero: never used, or punched since; at any position
 *   position t  is in slot t mod slots; claimed by exchanging the word of an earlier position (or zero) for (t, RSV, member)
 *   body        header: tag 8 | size 8 | references 8 | listed 1; then the references; then the bytes
 *   reference   generation 32 | descriptor 32. Listed: there is one, to a segment that holds a list of them: count 64, references
 */
#ifndef ISTI_RING_H
#define ISTI_RING_H

#include "domain.h"

#define ISTI_RING_MAGIC UINT64_C(0x676e697273697301)
#define ISTI_RING_SPARSE 1024u /* from so many slots on, what lies behind head is given back to the system */
#define ISTI_RING_LAG 1024u    /* and so many positions may be waiting for that */

typedef enum isti_slot_state { ISTI_SLOT_RSV = 1, ISTI_SLOT_FULL = 2, ISTI_SLOT_SKIP = 3 } isti_slot_state;

enum { ISTI_BODY = 7, ISTI_BODY_REFS = 6, ISTI_BODY_BYTES = 48 };

struct isti_ring_slot {
    _Alignas(64) _Atomic(uint64_t) word;
    _Atomic(uint64_t) body[ISTI_BODY];
};
static_assert(sizeof(struct isti_ring_slot) == 64, "a message is a cache line");

struct isti_ring {
    /* constant once it is published */
    _Alignas(64) uint64_t magic;
    uint64_t maxsize; /* messages; 0: as many as there is room for */
    uint64_t slots;   /* a power of two */
    uint64_t base;    /* the first position */
    /* who waits, each on a line of its own */
    _Alignas(64) _Atomic(uint32_t) not_empty;
    _Atomic(uint32_t) listened; /* 1: somebody has listened for messages, ever: put looks at `armed` */
    _Alignas(64) _Atomic(uint32_t) not_full;
    _Atomic(uint32_t) room_listened; /* the same for room, and get */
    _Alignas(64) _Atomic(uint32_t) all_done;
    _Atomic(uint32_t) shutdown; /* bit 0: nothing is put any more */
    /* how much of what was put needn't be waited for by join: put = tail - base */
    _Atomic(uint64_t) done;     /* task_done was called so often */
    _Atomic(uint64_t) skips;    /* position 48 of the next one to be looked at | skipped so far 16 */
    _Atomic(uint32_t) done_listened; /* as room_listened, for all tasks being done */
    /* sparse: slots of positions below floor + slots may be claimed; who holds `puncher` (member + 1) gives memory back and moves it on */
    _Alignas(64) _Atomic(uint64_t) floor;
    _Atomic(uint32_t) puncher;
    _Alignas(64) _Atomic(uint64_t) armed[ISTI_WORDS]; /* bit m: member m listens to something by a descriptor (listen.c) */
    uint64_t unused[8];
};
static_assert(sizeof(struct isti_ring) == 512, "slot 56 begins a page, see ring.c");

/* A ring as a process has it mapped: private memory; its numbers were copied and bounded once. */
struct isti_ring_view {
    struct isti_domain *d;
    struct isti_queue_row *row;
    struct isti_ring *ring;
    struct isti_ring_slot *slots;
    uint64_t mask, maxsize, base;
    uint32_t q, index, generation;
    bool sparse;
};

static inline uint64_t isti_slot_word(uint64_t position, isti_slot_state state, uint32_t member) {
    return position << 16 | (uint64_t)state << 12 | (member & 0xfff);
}
static inline uint64_t isti_slot_position(uint64_t word) { return word >> 16; }
static inline isti_slot_state isti_slot_state_of(uint64_t word) { return (isti_slot_state)(word >> 12 & 15); }
static inline uint32_t isti_slot_member(uint64_t word) { return (uint32_t)(word & 0xfff); }
static inline struct isti_ring_slot *isti_slot_at(const struct isti_ring_view *v, uint64_t position) {
    return &v->slots[position & v->mask];
}

static inline uint64_t isti_ref(uint32_t index, uint32_t generation) { return (uint64_t)generation << 32 | index; }
static inline uint32_t isti_ref_index(uint64_t ref) { return (uint32_t)ref; }
static inline uint32_t isti_ref_generation(uint64_t ref) { return (uint32_t)(ref >> 32); }

/* A body's header, taken apart and bounded; false: it makes no sense. */
struct isti_header {
    uint8_t tag, size, refs;
    bool listed;
};
static inline uint64_t isti_header_word(struct isti_header h) {
    return (uint64_t)h.tag | (uint64_t)h.size << 8 | (uint64_t)h.refs << 16 | (uint64_t)h.listed << 24;
}
static inline bool isti_header_read(uint64_t word, struct isti_header *out) {
    *out = (struct isti_header){(uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16), (word >> 24 & 1) != 0};
    return out->refs <= ISTI_BODY_REFS && (out->size + 7u) / 8 + out->refs <= ISTI_BODY_REFS && (!out->listed || out->refs == 1);
}

/* A list of references; see the head. The words may be anything. */
struct isti_list {
    ist_segment segment; /* ours */
    const _Atomic(uint64_t) *refs;
    uint64_t count;
};
/* Acquires the list that `ref` refers to. -ESTALE, -EBADMSG (not a list), those of ist_segment_acquire. */
int isti_list_open(struct isti_domain *d, uint64_t ref, struct isti_list *out);

/* A published ring for `maxsize` messages; 0, or more than one can have: for as many as there is room for. There is a heap. Ownership: *out
 * is one reference. Errors: -ENOMEM, -ENOSPC, those of ist_segment_token. */
int isti_ring_make(struct isti_domain *d, uint64_t maxsize, ist_segment *out);

/* `data` and `size` are where row `index` of d is mapped. -EBADMSG: not a ring. */
int isti_ring_view(struct isti_domain *d, uint32_t index, uint32_t generation, void *data, uint64_t size, struct isti_ring_view *out);

/* Position h, whose slot says `word`, is passed without being received. 1: by us; 0: somebody was faster, or received it; or an error, and
 * nothing was done. */
int isti_ring_pass(const struct isti_ring_view *v, uint64_t h, uint64_t word);

/* Passes what was skipped at head. 1: there was something; 0; or an error. */
int isti_ring_tidy(const struct isti_ring_view *v);

/* Claims the next position. -EAGAIN: full; -ENOSPC: as full as a ring can be; -EBADMSG. */
int isti_ring_claim(const struct isti_ring_view *v, uint64_t *position);

/* Head has come to `position`: what lies behind is given back, now and then. */
void isti_ring_punch_slow(const struct isti_ring_view *v);
static inline void isti_ring_punch(const struct isti_ring_view *v, uint64_t position) {
    if (v->sparse && position % 256 == 64)
        isti_ring_punch_slow(v);
}

/* put - done: what join waits for. */
uint64_t isti_ring_unfinished(const struct isti_ring_view *v);

#endif
