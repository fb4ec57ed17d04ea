/* ticket.c: leases across processes. A pickle carries a ticket's number; whoever loads it holds the segment first and strikes the ticket
 * out afterwards, by one compare-exchange, which at most one wins.
 *
 *   ticket LIVE  =>  its process's bit is set in its descriptor: while that process lives, by its own count of owners (lease.c); when it is
 *                    dead, because a sweep leaves the bit until the ticket is struck or has run out (its *estate*)
 *
 * The number is (sequence + 1) << 20 | row, so it is never 0 and never used twice. tests/models/ticket.pml is the model.
 */
#include "domain.h"
#include "os.h"
#include "point.h"

#include <errno.h>
#include <stdlib.h>

#define NEAR 32u /* rows looked at before the table is used further */

static uint64_t word_of(uint64_t sequence, isti_ticket_state state, uint32_t member) {
    return sequence << 24 | (uint64_t)state << 16 | (member & 0xffff);
}
static uint64_t sequence_of(uint64_t word) { return word >> 24; }
static isti_ticket_state state_of(uint64_t word) { return (isti_ticket_state)(word >> 16 & 0xff); }
static uint32_t member_of(uint64_t word) { return (uint32_t)(word & 0xffff); }

static uint32_t tickets_high(struct isti_domain *d) { return isti_marked(&d->marks->tickets, d->tickets); }

/* RESV of ours, or false. */
static bool claim(struct isti_domain *d, uint32_t t, uint64_t *sequence) {
    struct isti_ticket *row = &d->ticket_rows[t];
    uint64_t word = atomic_load_explicit(&row->word, memory_order_relaxed); /* relaxed: the exchange checks it */
    if (state_of(word) != ISTI_TICKET_FREE)
        return false;
    *sequence = sequence_of(word);
    /* acquire: pairs with the release of whoever freed it: its reads of the fields are over */
    return atomic_compare_exchange_strong_explicit(&row->word, &word, word_of(*sequence, ISTI_TICKET_RESV, d->me), memory_order_acq_rel,
                                                   memory_order_relaxed);
}

static int find(struct isti_domain *d, uint32_t *t, uint64_t *sequence) {
    uint32_t high = tickets_high(d);
    uint32_t look = high < d->tickets && high > NEAR ? NEAR : high;
    for (uint32_t i = 0; i < look; i++) {
        *t = d->cursor_tickets++ % high;
        if (claim(d, *t, sequence))
            return 0;
    }
    while (high < d->tickets) {
        /* acq_rel: the mark is raised before the row is used, so that a sweep sees every one that is */
        if (!atomic_compare_exchange_weak_explicit(&d->marks->tickets, &high, high + 1, memory_order_acq_rel, memory_order_relaxed))
            continue;
        IST_POINT(TICKET_RAISED);
        if (claim(d, high, sequence)) {
            *t = high;
            return 0;
        }
        high = tickets_high(d);
    }
    return -ENOSPC;
}

int isti_ticket_take(struct isti_domain *d, uint32_t index, uint32_t generation, uint64_t deadline, uint64_t *number) {
    uint32_t t;
    uint64_t sequence;
    pthread_mutex_lock(&d->claim);
    int error = find(d, &t, &sequence);
    pthread_mutex_unlock(&d->claim);
    if (error != 0)
        return error;
    IST_POINT(TICKET_RESERVED);
    struct isti_ticket *row = &d->ticket_rows[t];
    /* relaxed, all: ordered by the word's release */
    atomic_store_explicit(&row->descriptor, index, memory_order_relaxed);
    atomic_store_explicit(&row->generation, generation, memory_order_relaxed);
    atomic_store_explicit(&row->deadline, deadline, memory_order_relaxed);
    IST_POINT(TICKET_WRITTEN);
    /* release: pairs with the acquire in strike and in a sweep */
    atomic_store_explicit(&row->word, word_of(sequence, ISTI_TICKET_LIVE, d->me), memory_order_release);
    IST_POINT(TICKET_LIVE);
    *number = (sequence + 1) << 20 | t;
    return 0;
}

static struct isti_ticket *row_of(struct isti_domain *d, uint64_t number, uint64_t *sequence) {
    uint32_t t = (uint32_t)(number & (ISTI_TICKETS - 1));
    *sequence = (number >> 20) - 1;
    return t < d->tickets ? &d->ticket_rows[t] : NULL;
}

static bool end(struct isti_ticket *row, uint64_t word) {
    /* acq_rel: release, as the fields were read; acquire: pairs with take */
    return atomic_compare_exchange_strong_explicit(&row->word, &word, word_of(sequence_of(word) + 1, ISTI_TICKET_FREE, 0),
                                                   memory_order_acq_rel, memory_order_relaxed);
}

bool isti_ticket_strike(struct isti_domain *d, uint64_t number, uint32_t index, uint32_t generation, uint32_t *member) {
    uint64_t sequence;
    struct isti_ticket *row = row_of(d, number, &sequence);
    if (row == NULL)
        return false;
    uint64_t word = atomic_load_explicit(&row->word, memory_order_acquire); /* acquire: pairs with take's release */
    /* the number came from outside: it counts only together with its segment */
    if (state_of(word) != ISTI_TICKET_LIVE || sequence_of(word) != sequence ||
        atomic_load_explicit(&row->descriptor, memory_order_relaxed) != index ||
        atomic_load_explicit(&row->generation, memory_order_relaxed) != generation || !end(row, word))
        return false;
    IST_POINT(TICKET_STRUCK);
    *member = member_of(word);
    return true;
}

void isti_ticket_tell(struct isti_domain *d, uint32_t member) {
    if (member >= d->members)
        return;
    atomic_fetch_add_explicit(&d->member_rows[member].struck, 1, memory_order_release); /* pairs with poll's acquire, in lease.c */
    isti_member_ring(d, member);
}

bool isti_ticket_lives(struct isti_domain *d, uint64_t number) {
    uint64_t sequence;
    struct isti_ticket *row = row_of(d, number, &sequence);
    if (row == NULL)
        return false;
    uint64_t word = atomic_load_explicit(&row->word, memory_order_relaxed); /* relaxed: nothing is read because of it */
    return state_of(word) == ISTI_TICKET_LIVE && sequence_of(word) == sequence;
}

void isti_ticket_drop(struct isti_domain *d, uint64_t number) {
    uint64_t sequence;
    struct isti_ticket *row = row_of(d, number, &sequence);
    if (row == NULL)
        return;
    uint64_t word = atomic_load_explicit(&row->word, memory_order_relaxed); /* relaxed: the exchange checks it */
    if (state_of(word) == ISTI_TICKET_LIVE && sequence_of(word) == sequence && member_of(word) == d->me)
        end(row, word);
    IST_POINT(TICKET_DROPPED);
}

static int compare_indices(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int64_t isti_ticket_estate(struct isti_domain *d, uint32_t m, uint64_t now, uint32_t **estate) {
    uint32_t high = tickets_high(d), room = 0, n = 0;
    uint32_t *out = NULL;
    for (uint32_t t = 0; t < high; t++) {
        struct isti_ticket *row = &d->ticket_rows[t];
        uint64_t word = atomic_load_explicit(&row->word, memory_order_acquire); /* acquire: pairs with take's release */
        if (member_of(word) != m || state_of(word) == ISTI_TICKET_FREE)
            continue;
        if (state_of(word) != ISTI_TICKET_LIVE || atomic_load_explicit(&row->deadline, memory_order_relaxed) <= now) {
            end(row, word);
            IST_POINT(SWEEP_TICKETS);
            continue;
        }
        if (n == room) {
            uint32_t more = room == 0 ? 64 : 2 * room;
            uint32_t *bigger = isti_os.calloc(more, sizeof *bigger);
            if (bigger == NULL) {
                isti_os.free(out);
                return -ENOMEM;
            }
            for (uint32_t i = 0; i < n; i++)
                bigger[i] = out[i];
            isti_os.free(out);
            out = bigger;
            room = more;
        }
        out[n++] = atomic_load_explicit(&row->descriptor, memory_order_relaxed);
    }
    if (n > 0)
        qsort(out, n, sizeof *out, compare_indices);
    *estate = out;
    return n;
}
