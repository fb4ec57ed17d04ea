/* sweep.c: striking out the dead.
 *
 * A process may be struck out by whoever holds its byte lock: the kernel gives it only when the process is gone, and while it is held the
 * place can't be had by a new one. Never "look whether it lives, then clear": between the two it may have been swept by another and taken
 * by a new process. Every step is idempotent, so a sweeper that is killed is followed by the next. Bits of the living are never touched.
 */
#include "os.h"
#include "point.h"
#include "segment.h"
#include "sync.h"

#include <errno.h>
#include <stdlib.h>

static bool is_in(uint32_t index, const uint32_t *sorted, int64_t n) {
    int64_t low = 0;
    while (low < n) {
        int64_t middle = low + (n - low) / 2;
        if (sorted[middle] == index)
            return true;
        if (sorted[middle] < index)
            low = middle + 1;
        else
            n = middle;
    }
    return false;
}

static int sweep_lock(struct isti_domain *d, uint32_t m, uint32_t index) {
    void *data, *alone;
    size_t size, alone_size;
    int error = isti_window_reach_row(d, index, &data, &size, &alone, &alone_size);
    if (error != 0)
        return error == -EBADMSG ? 0 : error;
    struct isti_sync_memory *memory = isti_sync_memory_of(data, size);
    if (memory != NULL) {
        isti_barrier_sweep(memory, size, m);
        isti_lock_sweep(d, index, memory, m);
        /* relaxed: nobody is there to hear */
        atomic_fetch_and_explicit(&memory->armed[m / 64], ~(UINT64_C(1) << m % 64), memory_order_relaxed);
    }
    if (alone != NULL)
        isti_os.munmap(alone, alone_size);
    return 0;
}

/* What the dead m was doing with descriptor `index` is ended; false: it couldn't be, and m's bit stays. */
static bool sweep_row(struct isti_domain *d, uint32_t m, uint32_t index, bool keep_bit) {
    struct isti_descriptor *row = &d->descriptor_rows[index];
    /* acquire: pairs with m's last steps */
    uint64_t s = atomic_load_explicit(&row->state, memory_order_acquire);
    const isti_phase phase = isti_s_phase(s);
    const uint32_t window = atomic_load_explicit(&row->window, memory_order_relaxed);
    if (phase == ISTI_RESV && isti_s_x(s) == m) {
        isti_row_end(d, index, s);
        IST_POINT(SWEEP_RESV);
    } else if (phase == ISTI_PUNCH && isti_s_x(s) == m) {
        /* what isn't punched is the owner's to use as it is */
        atomic_compare_exchange_strong_explicit(&row->state, &s, isti_s(isti_s_generation(s), ISTI_DEAD, 0), memory_order_acq_rel,
                                                memory_order_relaxed);
        IST_POINT(SWEEP_PUNCH);
    }
    const bool held = (atomic_load_explicit(&row->holders[m / 64], memory_order_relaxed) & UINT64_C(1) << m % 64) != 0;
    if (phase == ISTI_FLIGHTS)
        isti_flights_sweep(d, index);
    else if (phase == ISTI_DRAIN && isti_s_x(s) == m) {
        /* acquire: pairs with m's last steps */
        if (atomic_compare_exchange_strong_explicit(&row->state, &s, isti_s(isti_s_generation(s), ISTI_DRAIN, d->me), memory_order_acq_rel,
                                                    memory_order_relaxed)) {
            IST_POINT(SWEEP_DRAIN);
            isti_ring_end(d, index, isti_s_generation(s));
        }
    }
    /* relaxed: constant while S is LIVE */
    else if (held && isti_s_live(s) && (atomic_load_explicit(&row->flags, memory_order_relaxed) & ISTI_PUBLISHED_QUEUE) != 0 &&
             isti_ring_sweep(d, index, m) != 0)
        return false; /* before the bit goes: whoever empties a queue that nobody holds takes what is half written for a dead one's */
    /* relaxed: as above. Whether or not it holds it: its last reference may have been a message's */
    else if (isti_s_live(s) && (atomic_load_explicit(&row->flags, memory_order_relaxed) & ISTI_PUBLISHED_LOCK) != 0 &&
             sweep_lock(d, m, index) != 0)
        return false;
    if (!keep_bit && held) {
        isti_unhold(d, index, m);
        IST_POINT(SWEEP_CLEARED);
    } else
        isti_try_free(d, index); /* it may have cleared its bit and died before it could free */
    IST_POINT(SWEEP_FREED);
    s = atomic_load_explicit(&row->state, memory_order_acquire);
    if (isti_s_phase(s) != ISTI_DEAD)
        return true;
    if (atomic_load_explicit(&row->flags, memory_order_relaxed) & ISTI_PUBLISHED_LOCAL)
        isti_row_end(d, index, s);
    else if (window < d->windows)
        isti_hint(d, window, index); /* it may have died before it could tell */
    return true;
}

bool isti_sweep_held(struct isti_domain *d, uint32_t m) {
    IST_POINT(SWEEP_LOCKED);
    isti_waiter_sweep(d, m);
    uint32_t *estate = NULL;
    int64_t left = isti_ticket_estate(d, m, isti_os.now(), &estate);
    if (left < 0)
        return false;
    bool all = true;
    for (uint32_t i = 0, high = isti_descriptors_high(d); i < high; i++)
        all = sweep_row(d, m, i, is_in(i, estate, left)) && all;
    isti_os.free(estate);
    IST_POINT(SWEEP_DESCRIPTORS);
    if (left != 0 || !all)
        return false;
    /* It may have struck somebody's ticket and died before it could tell: everybody looks, whoever's that was. */
    for (uint32_t other = 0; other < isti_members_high(d); other++)
        if (other != m && atomic_load_explicit(&d->member_rows[other].dirty, memory_order_relaxed) != 0) /* relaxed: a hint */
            isti_ticket_tell(d, other);
    IST_POINT(SWEEP_TOLD);
    atomic_store_explicit(&d->member_rows[m].dirty, 0, memory_order_release); /* pairs with join's acquire */
    IST_POINT(SWEEP_CLEAN);
    return true;
}

/* isti_sweep_mutex is held. */
static bool sweep_locked(struct isti_domain *d, uint32_t m) {
    if (m == d->me || atomic_load_explicit(&d->member_rows[m].dirty, memory_order_acquire) == 0 || /* acquire: pairs with begin */
        isti_probe_lock(d, ISTI_LOCK_MEMBER + (int64_t)m) != 0)
        return false;
    bool gone = atomic_load_explicit(&d->member_rows[m].dirty, memory_order_acquire) != 0 && isti_sweep_held(d, m);
    isti_probe_unlock(d, ISTI_LOCK_MEMBER + (int64_t)m);
    return gone;
}

bool isti_sweep_word(struct isti_domain *d, uint32_t m, _Atomic(uint64_t) *word, uint64_t from, uint64_t to) {
    if (m == d->me)
        return false;
    bool done = false;
    pthread_mutex_lock(&isti_sweep_mutex);
    const bool nowhere = m >= d->members || d->solo;
    if (nowhere || isti_probe_lock(d, ISTI_LOCK_MEMBER + (int64_t)m) == 0) {
        /* seq_cst: as the exchanges of those who live */
        done = atomic_compare_exchange_strong_explicit(word, &from, to, memory_order_seq_cst, memory_order_relaxed);
        if (!nowhere)
            isti_probe_unlock(d, ISTI_LOCK_MEMBER + (int64_t)m);
    }
    pthread_mutex_unlock(&isti_sweep_mutex);
    return done;
}

bool isti_sweep_member(struct isti_domain *d, uint32_t m) {
    if (d->solo || m >= d->members)
        return false;
    pthread_mutex_lock(&isti_sweep_mutex);
    bool gone = sweep_locked(d, m);
    pthread_mutex_unlock(&isti_sweep_mutex);
    return gone;
}

size_t isti_sweep_domain(struct isti_domain *d) {
    size_t gone = 0;
    if (d->solo)
        return 0;
    pthread_mutex_lock(&isti_sweep_mutex);
    for (uint32_t m = 0, high = isti_members_high(d); m < high; m++)
        gone += sweep_locked(d, m);
    for (uint32_t w = 0, high = isti_windows_high(d); w < high; w++)
        isti_window_reclaim(d, w);
    pthread_mutex_unlock(&isti_sweep_mutex);
    return gone;
}

size_t isti_sweep_all(void) {
    size_t gone = 0;
    uint32_t at = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&at)) != NULL;) {
        gone += isti_sweep_domain(d);
        isti_rings_drain(d);
        isti_window_take_hints(d);
    }
    return gone;
}

bool isti_sweep_needed(void) {
    uint32_t at = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&at)) != NULL;) {
        for (uint32_t m = 0, high = isti_members_high(d); m < high; m++) /* relaxed: whoever joins rings */
            if (m != d->me && atomic_load_explicit(&d->member_rows[m].dirty, memory_order_relaxed) != 0)
                return true;
        for (uint32_t w = 0, high = isti_windows_high(d); w < high; w++)
            if (atomic_load_explicit(&d->window_rows[w].used, memory_order_relaxed) != 0 && (isti_window_base(d) == NULL || w != d->window))
                return true;
    }
    return false;
}

size_t ist_sweep(void) { return ist_process_epoch() == 0 ? 0 : isti_sweep_all(); }
