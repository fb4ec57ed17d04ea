/* flight.c: flight marks: which descriptors the messages under way refer to.
 *
 * A message owns nothing by a count. Its position in a queue is its identity: the mark (q, position + 1) in a descriptor says "a message
 * of q up to this position may refer to me", and it has *passed* when q's head is beyond it. Heads only grow, so a mark that has passed
 * has for ever, and one of the same queue may be raised instead of adding another. README.md, D1 and Q3:
 *
 *   adding    write the mark, then move S on, as for a holder
 *   freeing   read S, look at all marks, compare-exchange S
 *   removing  nobody does: whoever moves a head over a position without holding what is there tries to free it
 *
 * A descriptor has seven cells. A segment that waits in more queues at once gets *extensions*: rows of the same table in phase FLIGHTS,
 * each with seven more and the next one. An extension belongs to (descriptor, generation), written in it, and is over when that is:
 *
 *   RESV (m), filled  →  linked by one exchange of the last cell before it  →  FLIGHTS, by m or anybody who finds it linked  →  FREE, by
 *   whoever ended its segment, or by a sweep
 *
 * A link to a row that was swept in RESV is no link, and is replaced. tests/models/ring.pml has the marks, flight.pml the extensions.
 */
#include "domain.h"
#include "point.h"

#include <errno.h>

#define CELLS 7u
#define CHAIN (ISTI_QUEUES / CELLS + 2) /* extensions that a segment in every queue has: more is garbage */
#define POSITION ((UINT64_C(1) << 48) - 1)

static uint64_t target_of(uint32_t index, uint32_t generation) { return (uint64_t)generation << 32 | (index + 1); }

void isti_flights_clear(struct isti_descriptor *row) {
    for (unsigned i = 0; i <= CELLS;
         i++) /* relaxed, both: in RESV, ordered by the release of S; the line stays clean if nothing is there */
        if (atomic_load_explicit(&row->flights[i], memory_order_relaxed) != 0)
            atomic_store_explicit(&row->flights[i], 0, memory_order_relaxed);
}

static bool passed(struct isti_domain *d, uint64_t mark) {
    const uint64_t q = mark >> 48;
    /* acquire: pairs with the receiver's exchange of head: its bit is seen by the look at S's exchange */
    return mark == 0 || q >= d->queues || atomic_load_explicit(&d->queue_rows[q].head, memory_order_acquire) >= (mark & POSITION);
}

/* The row that `word` links to, which is RESV or FLIGHTS by *s; NULL: there is none, or not any more. */
static struct isti_descriptor *linked(struct isti_domain *d, uint64_t word, uint64_t *s) {
    const uint32_t index = (uint32_t)word - 1;
    if (word == 0 || index >= d->descriptors)
        return NULL;
    struct isti_descriptor *row = &d->descriptor_rows[index];
    *s = atomic_load_explicit(&row->state, memory_order_acquire); /* acquire: pairs with FLIGHTS' release: its cells are cleared */
    const isti_phase phase = isti_s_phase(*s);
    return isti_s_generation(*s) == word >> 32 && (phase == ISTI_RESV || phase == ISTI_FLIGHTS) ? row : NULL;
}

bool isti_in_flight(struct isti_domain *d, struct isti_descriptor *row) {
    for (unsigned n = 0; n < CHAIN; n++) {
        for (unsigned i = 0; i < CELLS; i++) /* acquire, both: pairs with isti_flight_mark by way of S */
            if (!passed(d, atomic_load_explicit(&row->flights[i], memory_order_acquire)))
                return true;
        uint64_t s;
        row = linked(d, atomic_load_explicit(&row->flights[CELLS], memory_order_acquire), &s);
        if (row == NULL || isti_s_phase(s) == ISTI_RESV) /* nothing is marked there before it is FLIGHTS */
            return false;
    }
    return true; /* garbage: it leaks */
}

/* ---- marking */

/* Raises q's own mark in this row, or takes a cell that is free. relaxed, all: the move of S behind it orders them. */
static bool mark_here(struct isti_domain *d, struct isti_descriptor *row, uint64_t mark) {
    for (unsigned i = 0; i < CELLS; i++) {
        uint64_t now = atomic_load_explicit(&row->flights[i], memory_order_relaxed);
        while (now != 0 && now >> 48 == mark >> 48) {
            if (now >= mark ||
                atomic_compare_exchange_weak_explicit(&row->flights[i], &now, mark, memory_order_relaxed, memory_order_relaxed))
                return true;
        }
    }
    for (unsigned i = 0; i < CELLS; i++) {
        uint64_t now = atomic_load_explicit(&row->flights[i], memory_order_relaxed);
        if (passed(d, now) &&
            atomic_compare_exchange_strong_explicit(&row->flights[i], &now, mark, memory_order_relaxed, memory_order_relaxed))
            return true;
    }
    return false;
}

/* The extension behind `row`, linked and FLIGHTS; made if there is none. -ENOSPC, -EBADMSG. */
static int extend(struct isti_domain *d, uint32_t index, uint32_t generation, struct isti_descriptor *row, struct isti_descriptor **out) {
    for (unsigned tries = 0; tries < CHAIN; tries++) {
        /* acquire: pairs with the link's release */
        uint64_t word = atomic_load_explicit(&row->flights[CELLS], memory_order_acquire), s;
        struct isti_descriptor *next = linked(d, word, &s);
        if (next != NULL && isti_s_phase(s) == ISTI_RESV) { /* filled, as it is linked: its maker may be stopped, or dead */
            atomic_compare_exchange_strong_explicit(&next->state, &s, isti_s(isti_s_generation(s), ISTI_FLIGHTS, 0), memory_order_acq_rel,
                                                    memory_order_relaxed);
            continue;
        }
        if (next != NULL) {
            *out = next;
            return 0;
        }
        uint32_t at, its;
        int error = isti_row_claim(d, &at, &its);
        if (error != 0)
            return error;
        next = &d->descriptor_rows[at];
        /* relaxed, all: ordered by the link's release. No window has that number: it holds no memory */
        atomic_store_explicit(&next->offset, target_of(index, generation), memory_order_relaxed);
        atomic_store_explicit(&next->length, 0, memory_order_relaxed);
        atomic_store_explicit(&next->window, UINT32_MAX, memory_order_relaxed);
        atomic_store_explicit(&next->flags, 0, memory_order_relaxed);
        isti_flights_clear(next);
        IST_POINT(FLIGHTS_FILLED);
        if (!atomic_compare_exchange_strong_explicit(&row->flights[CELLS], &word, target_of(at, its), memory_order_acq_rel,
                                                     memory_order_relaxed))
            isti_row_unclaim(d, at, its); /* somebody else's is there */
        IST_POINT(FLIGHTS_LINKED);
    }
    return -EBADMSG;
}

int isti_flight_mark(struct isti_domain *d, uint32_t index, uint32_t generation, uint32_t q, uint64_t position) {
    if (index >= d->descriptors)
        return -EBADMSG; /* of a list, which lies in shared memory */
    struct isti_descriptor *const row = &d->descriptor_rows[index];
    const uint64_t mark = (uint64_t)q << 48 | ((position + 1) & POSITION);
    struct isti_descriptor *at = row;
    for (unsigned n = 0; !mark_here(d, at, mark); n++) {
        int error = n == CHAIN ? -EBADMSG : extend(d, index, generation, at, &at);
        if (error != 0)
            return error;
    }
    IST_POINT(FLIGHT_MARKED);
    uint64_t s = atomic_load_explicit(&row->state, memory_order_relaxed); /* relaxed: the exchange checks it */
    while (isti_s_live(s) && isti_s_generation(s) == generation) {
        /* acq_rel: as in hold: whoever frees has read S before, or sees the mark */
        if (atomic_compare_exchange_weak_explicit(&row->state, &s, isti_s(generation, isti_s_phase(s), isti_s_x(s) + 1),
                                                  memory_order_acq_rel, memory_order_relaxed)) {
            IST_POINT(FLIGHT_MOVED);
            return 0;
        }
    }
    return -EBADMSG; /* the caller holds it */
}

/* ---- the end of extensions */

/* FLIGHTS → FREE, if it is of (index, generation), which is over. *next: what it linked to. */
static bool end(struct isti_domain *d, struct isti_descriptor *row, uint64_t s, uint64_t target, uint64_t *next) {
    if (isti_s_phase(s) != ISTI_FLIGHTS || atomic_load_explicit(&row->offset, memory_order_relaxed) != target) /* relaxed: acquired by s */
        return false;
    *next = atomic_load_explicit(&row->flights[CELLS], memory_order_relaxed); /* relaxed: its segment is over, nobody adds any more */
    if (!isti_row_end(d, (uint32_t)(row - d->descriptor_rows), s))
        return false;
    IST_POINT(FLIGHTS_ENDED);
    return true;
}

void isti_flights_end(struct isti_domain *d, uint32_t index, uint32_t generation, uint64_t word) {
    uint64_t s;
    struct isti_descriptor *row;
    while ((row = linked(d, word, &s)) != NULL && end(d, row, s, target_of(index, generation), &word))
        ;
}

void isti_flights_sweep(struct isti_domain *d, uint32_t index) {
    struct isti_descriptor *row = &d->descriptor_rows[index];
    uint64_t s = atomic_load_explicit(&row->state, memory_order_acquire), next; /* acquire: as in linked */
    const uint64_t target = atomic_load_explicit(&row->offset, memory_order_relaxed); /* relaxed: acquired by s */
    const uint32_t of = (uint32_t)target - 1;
    /* acquire: its end came before */
    uint64_t its = of < d->descriptors ? atomic_load_explicit(&d->descriptor_rows[of].state, memory_order_acquire) : 0;
    if (!isti_s_live(its) || isti_s_generation(its) != target >> 32)
        end(d, row, s, target, &next);
}
