/* listen.h: file descriptors that are readable when there is something: for loops that wait for many things. See listen.c. */
#ifndef ISTI_LISTEN_H
#define ISTI_LISTEN_H

#include "domain.h"

/* What can be listened to of a handle: a queue's messages, its room, a lock. Lies in it. */
struct isti_listener {
    _Atomic(int) fd;        /* an eventfd; -1: none */
    _Atomic(uint32_t) told; /* it is readable, or about to be */
    struct isti_domain *d;
    uint32_t index; /* of its descriptor */
    uint32_t epoch; /* ist_epoch() for which it is good */
    /* of its segment: bit m % 64 of word m / 64: member m listens to something; 1: somebody has listened to this, ever */
    _Atomic(uint64_t) *armed;
    _Atomic(uint32_t) *listened;
    bool (*is_ready)(const struct isti_listener *); /* its loads are seq_cst */
    struct isti_listener *next, **link;             /* of those of this process that have a descriptor; guarded by listen.c's mutex */
};

/* Everything else is set. */
static inline void isti_listener_begin(struct isti_listener *l) {
    atomic_store_explicit(&l->fd, -1, memory_order_relaxed); /* relaxed: nobody else has it */
}
void isti_listener_end(struct isti_listener *l);
int isti_listener_fileno(struct isti_listener *l, int *out);

/* It isn't readable any more; look once more. false: it has no descriptor. */
bool isti_listener_clear(struct isti_listener *l);

/* Something has happened: tells who listens, in whatever process. One load where nobody ever has. */
void isti_listen_tell_slow(struct isti_domain *d, uint32_t index, const _Atomic(uint32_t) *listened, _Atomic(uint64_t) *armed);
static inline void isti_listen_tell(struct isti_domain *d, uint32_t index, _Atomic(uint32_t) *listened, _Atomic(uint64_t) *armed) {
    /* seq_cst: behind what happened; who arms sets the bit and looks */
    if (__builtin_expect(atomic_load_explicit(listened, memory_order_seq_cst) != 0, 0))
        isti_listen_tell_slow(d, index, listened, armed);
}

/* For the housekeeper, whose doorbell was rung. */
void isti_listen_poll(void);

#endif
