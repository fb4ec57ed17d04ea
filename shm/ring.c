/* ring.c: what a queue's ring does by itself: its making, claiming, skipping, emptying, giving back. Sending and receiving are in queue.c.
 *
 *   head <= position of every message that wasn't received < tail (+ 1 while a claimer has only just claimed)
 *   a position is claimed by one exchange that also names the claimer; RSV → FULL by it, or → SKIP by who sweeps it (README.md, Q1 to Q6)
 *   head moves over FULL by whoever received it, over SKIP by anybody: one exchange, which is the reception
 *
 * Nothing is written to a slot when it is received: one whose position lies behind head is free. A sparse ring's slots become zero again
 * when their pages are punched; then a sender that stood still since it read the word can claim a position long past. It sees so by head,
 * before it writes the body, and gives the slot up; a word of a position behind head is as good as none.
 *
 * Pages go back in steps of 256 slots. Slot 56 of a ring begins a page, so those steps do. Only one process does it at a time, named in
 * `puncher`, and a slot is used again only when `floor` has moved over it: so whoever is stopped in the middle punches nobody's message.
 */
#include "ring.h"

#include "eventcount.h"
#include "listen.h"
#include "os.h"
#include "point.h"
#include "sanitizer.h"
#include "segment.h"

#include <errno.h>
#include <isthmus/heap.h>
#include <string.h>

#define NEAR 32u /* rows looked at before the table is used further */
#define MOST_SLOTS (UINT64_C(1) << 24)
#define FEWEST_SLOTS (UINT64_C(1) << 12) /* of a queue without a limit */

/* ---- rows of the table of queues */

static uint32_t queues_high(struct isti_domain *d) { return isti_marked(&d->marks->queues, d->queues); }

/* Once over, for ever: a descriptor's generation ends in DEAD or FREE. */
static bool owner_is_over(struct isti_domain *d, uint64_t owner) {
    const uint32_t index = (uint32_t)owner - 1;
    if (owner == 0 || index >= d->descriptors)
        return true;
    /* acquire: pairs with the last step of whoever emptied it */
    uint64_t s = atomic_load_explicit(&d->descriptor_rows[index].state, memory_order_acquire);
    return isti_s_generation(s) != owner >> 32 || !(isti_s_live(s) || isti_s_phase(s) == ISTI_RESV || isti_s_phase(s) == ISTI_DRAIN);
}

static bool claim_row(struct isti_domain *d, uint32_t q, uint64_t owner) {
    struct isti_queue_row *row = &d->queue_rows[q];
    uint64_t now = atomic_load_explicit(&row->owner, memory_order_relaxed); /* relaxed: the exchange checks it */
    return owner_is_over(d, now) &&
           atomic_compare_exchange_strong_explicit(&row->owner, &now, owner, memory_order_acq_rel, memory_order_relaxed);
}

static int find_row(struct isti_domain *d, uint64_t owner, uint32_t *q) {
    uint32_t high = queues_high(d);
    for (uint32_t i = 0; i < NEAR && i < high; i++) {
        /* relaxed: where to begin */
        *q = atomic_fetch_add_explicit(&d->cursor_queues, 1, memory_order_relaxed) % high;
        if (claim_row(d, *q, owner))
            return 0;
    }
    while (high < d->queues) {
        /* acq_rel: the mark is raised before the row is used */
        if (!atomic_compare_exchange_weak_explicit(&d->marks->queues, &high, high + 1, memory_order_acq_rel, memory_order_relaxed))
            continue;
        *q = high;
        if (claim_row(d, high, owner))
            return 0;
        high = queues_high(d);
    }
    for (*q = 0; *q < d->queues; ++*q)
        if (claim_row(d, *q, owner))
            return 0;
    return -ENOSPC;
}

int isti_queue_row_claim(struct isti_domain *d, uint32_t index, uint32_t generation, void *ring, uint32_t *q) {
    int error = find_row(d, (uint64_t)generation << 32 | (index + 1), q);
    if (error != 0)
        return error;
    struct isti_queue_row *row = &d->queue_rows[*q];
    /* relaxed, all: the row is ours, S's release orders it. They are equal but where somebody wrote garbage */
    uint64_t head = atomic_load_explicit(&row->head, memory_order_relaxed), tail = atomic_load_explicit(&row->tail, memory_order_relaxed);
    const uint64_t base = head > tail ? head : tail;
    if (head != tail) {
        atomic_store_explicit(&row->head, base, memory_order_relaxed);
        atomic_store_explicit(&row->tail, base, memory_order_relaxed);
    }
    struct isti_ring *r = ring;
    r->base = base;
    atomic_store_explicit(&r->skips, base << 16, memory_order_relaxed);
    atomic_store_explicit(&r->floor, base, memory_order_relaxed);
    return 0;
}

/* ---- making one */

/* Rings of this process have half of its heap, and each of those without a limit a sixteenth of what is left of that. */
static uint64_t slots_without_limit(struct isti_domain *d) {
    uint64_t used = 0, room = ist_heap_size() / 2, slots = MOST_SLOTS;
    for (uint32_t q = 0; q < d->queues && q < atomic_load_explicit(&d->marks->queues, memory_order_relaxed); q++) {
        /* relaxed, all: a guess about address space */
        const uint32_t index = (uint32_t)atomic_load_explicit(&d->queue_rows[q].owner, memory_order_relaxed) - 1;
        if (index >= d->descriptors)
            continue;
        struct isti_descriptor *row = &d->descriptor_rows[index];
        if (isti_s_live(atomic_load_explicit(&row->state, memory_order_relaxed)) &&
            atomic_load_explicit(&row->window, memory_order_relaxed) == d->window &&
            atomic_load_explicit(&row->queue, memory_order_relaxed) == q)
            used += atomic_load_explicit(&row->length, memory_order_relaxed);
    }
    room = used < room ? (room - used) / 16 : 0;
#if ISTI_POISONS
    room = room < (1 << 24) ? room : 1 << 24; /* its shadow is memory */
#endif
    while (slots > FEWEST_SLOTS && slots * sizeof(struct isti_ring_slot) > room)
        slots /= 2;
    return slots;
}

/* 0: as many as without a limit. */
static uint64_t slots_for(struct isti_domain *d, uint64_t maxsize) {
    if (maxsize == 0 || maxsize > MOST_SLOTS - ISTI_RING_LAG)
        return 0;
    const uint64_t wanted = maxsize > ISTI_RING_SPARSE ? maxsize + ISTI_RING_LAG : maxsize;
    uint64_t slots = 1;
    while (slots < wanted)
        slots *= 2;
    return slots <= ISTI_RING_SPARSE || slots <= slots_without_limit(d) ? slots : 0;
}

/* Bytes without a page behind them: a ring is much larger than what is in it. */
static int clear(struct isti_domain *d, ist_segment s) {
    char *data = ist_segment_data(s);
    const size_t size = ist_segment_size(s), page = isti_page_size();
    const uint64_t begin = d->window * d->window_size + (uint64_t)(data - isti_window_base(d));
    const size_t lead = (size_t)(-begin % page), tail = (size_t)((begin + size) % page);
    if (size < lead + tail || isti_window_punch(d, begin, begin + size) != 0)
        return -ENOMEM;
    memset(data, 0, lead);
    memset(data + size - tail, 0, tail);
    return 0;
}

static int make(struct isti_domain *d, uint64_t slots, uint64_t maxsize, ist_segment *out) {
    const bool sparse = slots > ISTI_RING_SPARSE;
    const size_t page = sparse ? isti_page_size() : 1; /* so that clear() touches no page */
    const size_t size = sizeof(struct isti_ring) + (size_t)slots * sizeof(struct isti_ring_slot);
    ist_segment s;
    int error = ist_segment_create((size + page - 1) / page * page, sparse ? 0 : IST_ZERO, &s);
    if (error == 0 && sparse && (error = clear(d, s)) != 0)
        ist_segment_release(s);
    if (error != 0)
        return error;
    struct isti_ring *ring = ist_segment_data(s);
    ring->magic = ISTI_RING_MAGIC;
    ring->slots = slots;
    ring->maxsize = maxsize;
    error = isti_publish_as(s, ISTI_SLOT_QUEUE, ISTI_PUBLISHED_QUEUE);
    if (error == 0)
        *out = s;
    else
        ist_segment_release(s);
    return error;
}

int isti_ring_make(struct isti_domain *d, uint64_t maxsize, ist_segment *out) {
    uint64_t slots = slots_for(d, maxsize);
    if (slots == 0) {
        slots = slots_without_limit(d);
        maxsize = 0;
    }
    int error;
    do /* -EAGAIN: a fork of another thread published it as what it was then */
        error = make(d, slots, maxsize, out);
    while (error == -EAGAIN || (error == -ENOMEM && maxsize == 0 && (slots /= 2) >= FEWEST_SLOTS));
    return error;
}

/* ---- looking at one */

int isti_ring_view(struct isti_domain *d, uint32_t index, uint32_t generation, void *data, uint64_t size, struct isti_ring_view *out) {
    struct isti_ring *ring = data;
    /* relaxed: constant while S is LIVE or DRAIN */
    const uint64_t q = atomic_load_explicit(&d->descriptor_rows[index].queue, memory_order_relaxed);
    if (size < sizeof *ring + sizeof *out->slots || q >= d->queues)
        return -EBADMSG;
    const volatile struct isti_ring *untrusted = ring; /* each is read once */
    const uint64_t magic = untrusted->magic, slots = untrusted->slots, maxsize = untrusted->maxsize, base = untrusted->base;
    if (magic != ISTI_RING_MAGIC || slots == 0 || (slots & (slots - 1)) != 0 || slots > (size - sizeof *ring) / sizeof *out->slots ||
        maxsize > slots || (maxsize == 0 && slots <= ISTI_RING_SPARSE)) /* without a limit there is always a floor, see is_full() */
        return -EBADMSG;
    *out = (struct isti_ring_view){
        .d = d,
        .row = &d->queue_rows[q],
        .ring = ring,
        .slots = (struct isti_ring_slot *)(void *)(ring + 1),
        .mask = slots - 1,
        .maxsize = maxsize,
        .base = base,
        .q = (uint32_t)q,
        .index = index,
        .generation = generation,
        .sparse = slots > ISTI_RING_SPARSE,
    };
    return 0;
}

/* The same for a process that needn't hold it; what is mapped for it alone is to be unmapped. -ENOMEM, -EBADMSG. */
static int view_row(struct isti_domain *d, uint32_t index, uint32_t generation, struct isti_ring_view *out, void **alone,
                    size_t *alone_size) {
    void *data;
    size_t size;
    int error = isti_window_reach_row(d, index, &data, &size, alone, alone_size);
    if (error != 0)
        return error;
    error = isti_ring_view(d, index, generation, data, size, out);
    if (error != 0 && *alone != NULL) {
        isti_os.munmap(*alone, *alone_size);
        *alone = NULL;
    }
    return error;
}

uint64_t isti_ring_unfinished(const struct isti_ring_view *v) {
    /* seq_cst: join's look and task_done's exchange, see eventcount.h. `done` first: it is never ahead of what was put */
    const uint64_t done = atomic_load_explicit(&v->ring->done, memory_order_seq_cst);
    const uint64_t skipped = atomic_load_explicit(&v->ring->skips, memory_order_seq_cst) & 0xffff;
    const uint64_t put = atomic_load_explicit(&v->row->tail, memory_order_seq_cst) - v->base;
    return put > done + skipped ? put - done - skipped : 0;
}

/* ---- claiming */

static bool is_full(const struct isti_ring_view *v, uint64_t t, int *error) {
    if (v->sparse) { /* acquire: pairs with the puncher's release: what it punched is zero */
        const uint64_t floor = atomic_load_explicit(&v->ring->floor, memory_order_acquire);
        /* acquire: pairs with the receiver's exchange: it has read the slot */
        const uint64_t head = atomic_load_explicit(&v->row->head, memory_order_acquire);
        *error = v->maxsize == 0 && t - head >= v->mask + 1 - ISTI_RING_LAG ? -ENOSPC : -EAGAIN;
        return t - floor > v->mask || (v->maxsize != 0 && t - head >= v->maxsize);
    }
    *error = -EAGAIN;
    return t - atomic_load_explicit(&v->row->head, memory_order_seq_cst) >= v->maxsize; /* seq_cst: a waiter's second look */
}

int isti_ring_claim(const struct isti_ring_view *v, uint64_t *position) {
    for (unsigned stuck = 0; stuck < 1000;) {
        uint64_t t = atomic_load_explicit(&v->row->tail, memory_order_acquire); /* acquire: pairs with the exchanges of tail */
        struct isti_ring_slot *slot = isti_slot_at(v, t);
        uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire); /* acquire: pairs with its last writer */
        if (word != 0 && isti_slot_position(word) >= t) {
            if (isti_slot_position(word) == t) /* claimed; its claimer may be dead or stopped */
                atomic_compare_exchange_strong_explicit(&v->row->tail, &t, t + 1, memory_order_seq_cst, memory_order_relaxed);
            else /* of the next round already: tail has moved. Or it is garbage, and never does */
                stuck += t == atomic_load_explicit(&v->row->tail, memory_order_acquire);
            continue;
        }
        int error;
        if (is_full(v, t, &error)) {
            if (t == atomic_load_explicit(&v->row->tail, memory_order_acquire))
                return error;
            continue;
        }
        /* seq_cst: before the look at `shutdown`, see queue.c */
        if (!atomic_compare_exchange_strong_explicit(&slot->word, &word, isti_slot_word(t, ISTI_SLOT_RSV, v->d->me), memory_order_seq_cst,
                                                     memory_order_relaxed))
            continue;
        IST_POINT(PUT_CLAIMED);
        uint64_t now = t;
        if (!atomic_compare_exchange_strong_explicit(&v->row->tail, &now, t + 1, memory_order_seq_cst, memory_order_acquire) &&
            /* acquire: pairs with the receiver of t, if somebody had it */
            atomic_load_explicit(&v->row->head, memory_order_acquire) > t) {
            uint64_t mine = isti_slot_word(t, ISTI_SLOT_RSV, v->d->me); /* long past: the page was punched since tail was read */
            atomic_compare_exchange_strong_explicit(&slot->word, &mine, 0, memory_order_release, memory_order_relaxed);
            continue;
        }
        IST_POINT(PUT_TAIL);
        *position = t;
        return 0;
    }
    return -EBADMSG;
}

/* ---- passing */

int isti_list_open(struct isti_domain *d, uint64_t ref, struct isti_list *out) {
    int error = isti_descriptor_acquire(d, isti_ref_index(ref), isti_ref_generation(ref), &out->segment);
    if (error != 0)
        return error;
    const size_t size = ist_segment_size(out->segment);
    const _Atomic(uint64_t) *words = ist_segment_data(out->segment);
    out->refs = words + 1;
    out->count = size < 8 ? 0 : atomic_load_explicit(words, memory_order_relaxed); /* relaxed: acquired with the segment */
    if (size >= 8 && out->count <= size / 8 - 1)
        return 0;
    ist_segment_release(out->segment);
    out->segment = (ist_segment){0};
    out->count = 0;
    return -EBADMSG;
}

/* A position counts as skipped once, whoever comes to pass it and dies there. */
static void count_skip(const struct isti_ring_view *v, uint64_t h) {
    uint64_t now = atomic_load_explicit(&v->ring->skips, memory_order_relaxed); /* relaxed: the exchange checks it */
    while (now >> 16 <= h) {                                                     /* the next one that would be counted */
        uint64_t next = (h + 1) << 16 | ((now & 0xffff) + ((now & 0xffff) != 0xffff));
        /* seq_cst: join's look */
        if (atomic_compare_exchange_weak_explicit(&v->ring->skips, &now, next, memory_order_seq_cst, memory_order_relaxed))
            return;
    }
}

static void try_free_ref(struct isti_domain *d, uint64_t ref) {
    if (isti_ref_index(ref) < d->descriptors)
        isti_try_free(d, isti_ref_index(ref));
}

int isti_ring_pass(const struct isti_ring_view *v, uint64_t h, uint64_t word) {
    struct isti_ring_slot *slot = isti_slot_at(v, h);
    uint64_t refs[ISTI_BODY_REFS];
    struct isti_header header;
    struct isti_list list = {.count = 0};
    /* relaxed, all of the body: the caller acquired the word. Half written is as good: what has a mark stands there, see queue.c */
    bool sense = isti_header_read(atomic_load_explicit(&slot->body[0], memory_order_relaxed), &header);
    unsigned n = sense ? header.refs : 0;
    for (unsigned i = 0; i < n; i++)
        refs[i] = atomic_load_explicit(&slot->body[1 + i], memory_order_relaxed);
    if (n > 0 && header.listed) { /* while head hasn't passed, the list's own mark keeps it; afterwards we do */
        int error = isti_list_open(v->d, refs[0], &list);
        if (error != 0 && error != -ESTALE && error != -EBADMSG && error != -EXDEV && error != -EINVAL)
            return error;
    }
    IST_POINT(PASS_HELD);
    if (isti_slot_state_of(word) == ISTI_SLOT_SKIP)
        count_skip(v, h);
    IST_POINT(PASS_COUNTED);
    uint64_t now = h;
    /* seq_cst: a waiter for room; acquire and release as in the reception */
    bool passed = atomic_compare_exchange_strong_explicit(&v->row->head, &now, h + 1, memory_order_seq_cst, memory_order_relaxed);
    if (passed) {
        IST_POINT(PASS_PASSED);
        /* seq_cst: of one that moves head and looks at the bits, and one that clears its bit and looks at head, one sees the other */
        atomic_thread_fence(memory_order_seq_cst);
        for (uint64_t i = 0; i < list.count; i++)
            try_free_ref(v->d, atomic_load_explicit(&list.refs[i], memory_order_relaxed));
        for (unsigned i = 0; i < n; i++)
            try_free_ref(v->d, refs[i]);
        IST_POINT(PASS_FREED);
    }
    ist_segment_release(list.segment);
    return passed;
}

int isti_ring_tidy(const struct isti_ring_view *v) {
    int did = 0;
    for (;;) {
        uint64_t h = atomic_load_explicit(&v->row->head, memory_order_acquire); /* acquire, both: as in a reception */
        uint64_t word = atomic_load_explicit(&isti_slot_at(v, h)->word, memory_order_acquire);
        if (word == 0 || isti_slot_position(word) != h || isti_slot_state_of(word) != ISTI_SLOT_SKIP)
            return did;
        int passed = isti_ring_pass(v, h, word);
        if (passed < 0)
            return passed;
        did = 1;
        if (passed > 0)
            isti_ring_punch(v, h + 1);
    }
}

/* ---- giving back */

static void punch_slots(const struct isti_ring_view *v, uint64_t from, uint64_t to) {
    struct isti_domain *d = v->d;
    /* relaxed: constant, we hold it */
    const uint64_t at = atomic_load_explicit(&d->descriptor_rows[v->index].offset, memory_order_relaxed) + sizeof *v->ring;
    const uint64_t first = from & v->mask, count = to - from;
    const uint64_t until_end = v->mask + 1 - first < count ? v->mask + 1 - first : count;
    isti_window_punch(d, at + first * 64, at + (first + until_end) * 64); /* a failure costs memory alone: a used slot can be used again */
    isti_window_punch(d, at, at + (count - until_end) * 64);
}

void isti_ring_punch_slow(const struct isti_ring_view *v) {
    uint32_t nobody = 0;
    /* acquire: pairs with the release below */
    if (!atomic_compare_exchange_strong_explicit(&v->ring->puncher, &nobody, v->d->me + 1, memory_order_acquire, memory_order_relaxed))
        return;
    IST_POINT(PUNCH_CLAIMED);
    /* acquire: pairs with receivers' exchanges: they have read what is behind it */
    const uint64_t head = atomic_load_explicit(&v->row->head, memory_order_acquire);
    const uint64_t floor = atomic_load_explicit(&v->ring->floor, memory_order_relaxed); /* relaxed: ours alone to move */
    const uint64_t to = ((head - 56) & ~UINT64_C(63)) + 56; /* the slot that begins the page where head is */
    if (head - floor <= v->mask + 1 && to > floor && to <= head) {
        punch_slots(v, floor, to);
        IST_POINT(PUNCH_PUNCHED);
        atomic_store_explicit(&v->ring->floor, to, memory_order_release); /* pairs with is_full's acquire */
    }
    IST_POINT(PUNCH_MOVED);
    atomic_store_explicit(&v->ring->puncher, 0, memory_order_release); /* pairs with the next one's acquire */
}

/* ---- sweeping */

int isti_ring_sweep(struct isti_domain *d, uint32_t index, uint32_t m) {
    struct isti_ring_view v;
    void *alone;
    size_t alone_size;
    int error = view_row(d, index, 0, &v, &alone, &alone_size);
    if (error != 0)
        return error == -EBADMSG ? 0 : error;
    /* acquire, all: pairs with the dead one's last steps. The slot at tail too: it may have claimed that and died */
    const uint64_t head = atomic_load_explicit(&v.row->head, memory_order_acquire);
    const uint64_t tail = atomic_load_explicit(&v.row->tail, memory_order_acquire);
    const uint64_t count = tail - head > v.mask ? v.mask + 1 : tail - head + 1;
    for (uint64_t p = head; p - head < count; p++) {
        _Atomic(uint64_t) *slot = &isti_slot_at(&v, p)->word;
        uint64_t word = atomic_load_explicit(slot, memory_order_acquire);
        if (isti_slot_state_of(word) == ISTI_SLOT_RSV && isti_slot_member(word) == m) {
            /* acq_rel: whoever passes it sees what was written of the body */
            atomic_compare_exchange_strong_explicit(slot, &word, isti_slot_word(isti_slot_position(word), ISTI_SLOT_SKIP, 0),
                                                    memory_order_acq_rel, memory_order_relaxed);
            IST_POINT(SWEEP_SKIPPED);
        }
    }
    uint32_t puncher = m + 1;
    atomic_compare_exchange_strong_explicit(&v.ring->puncher, &puncher, 0, memory_order_acq_rel, memory_order_relaxed);
    atomic_fetch_and_explicit(&v.ring->armed[m / 64], ~(UINT64_C(1) << m % 64),
                              memory_order_relaxed); /* relaxed: nobody is there to hear */
    /* So that whoever looks because it was told finds room, and no task left. What can't be passed now is by whoever comes there; m's other
     * things don't wait for it */
    (void)isti_ring_tidy(&v);
    /* also who was woken and killed before it looked */
    isti_event_wake_all(&v.ring->not_empty);
    isti_event_wake_all(&v.ring->not_full);
    isti_event_wake_all(&v.ring->all_done);
    isti_listen_tell(d, index, &v.ring->listened, v.ring->armed);
    isti_listen_tell(d, index, &v.ring->room_listened, v.ring->armed);
    isti_listen_tell(d, index, &v.ring->done_listened, v.ring->armed);
    if (alone != NULL)
        isti_os.munmap(alone, alone_size);
    return 0;
}

/* ---- emptying a queue that nobody holds. DRAIN names the one process that does it, so the row and the memory stay its until it is done */

/* false: something was missing; another time. */
static bool drain(struct isti_domain *d, uint32_t index, uint32_t generation) {
    struct isti_ring_view v;
    void *alone = NULL;
    size_t alone_size;
    int error = view_row(d, index, generation, &v, &alone, &alone_size);
    for (uint64_t n = 0; error == 0 && n <= v.mask; n++) {
        uint64_t h = atomic_load_explicit(&v.row->head, memory_order_acquire); /* acquire, both: as in a reception */
        uint64_t word = atomic_load_explicit(&isti_slot_at(&v, h)->word, memory_order_acquire), now = h;
        if (word == 0 || isti_slot_position(word) != h)
            break;
        /* RSV is a dead one's: nobody holds the queue. It may have died before it moved tail */
        atomic_compare_exchange_strong_explicit(&v.row->tail, &now, h + 1, memory_order_acq_rel, memory_order_relaxed);
        int passed = isti_ring_pass(&v, h, word);
        error = passed < 0 ? passed : 0;
    }
    if (alone != NULL)
        isti_os.munmap(alone, alone_size);
    if (error != 0 && error != -EBADMSG)
        return false;
    IST_POINT(DRAIN_EMPTY);
    isti_row_drained(d, index, generation);
    return true;
}

/* The lock is held, and left while it works. */
static void drain_all(struct isti_domain *d) {
    d->draining = true;
    while (d->drain_first != 0) {
        const uint32_t q = d->drain_first - 1;
        const struct isti_drain next = d->drain_rows[q];
        d->drain_first = next.next;
        d->drain_rows[q] = (struct isti_drain){0};
        if (next.descriptor == 0)
            continue;
        pthread_mutex_unlock(&d->drains);
        bool done = drain(d, next.descriptor - 1, next.generation);
        pthread_mutex_lock(&d->drains);
        if (!done && d->drain_rows[q].descriptor == 0) { /* the row is still its own; else it says so of two, which is garbage */
            d->drain_rows[q] = (struct isti_drain){next.descriptor, next.generation, d->drain_first};
            d->drain_first = q + 1;
            break;
        }
    }
    d->draining = false;
}

void isti_ring_end(struct isti_domain *d, uint32_t index, uint32_t generation) {
    /* relaxed: constant while S is DRAIN */
    const uint64_t q = atomic_load_explicit(&d->descriptor_rows[index].queue, memory_order_relaxed);
    pthread_mutex_lock(&d->drains);
    const bool sense = q < d->queues && d->drain_rows[q].descriptor == 0;
    if (sense) {
        d->drain_rows[q] = (struct isti_drain){index + 1, generation, d->drain_first};
        d->drain_first = (uint32_t)q + 1;
        if (!d->draining) /* else whoever is at it comes to it: maybe we, in one that this one was in */
            drain_all(d);
    }
    pthread_mutex_unlock(&d->drains);
    if (!sense) /* garbage: its messages are lost */
        isti_row_drained(d, index, generation);
}

void isti_rings_drain(struct isti_domain *d) {
    pthread_mutex_lock(&d->drains);
    if (!d->draining)
        drain_all(d);
    pthread_mutex_unlock(&d->drains);
}
