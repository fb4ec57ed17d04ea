/* signal.c: semaphores, events, conditions: one word each, or none; see sync.h. */
#include "eventcount.h"
#include "point.h"
#include "sync.h"

#include <errno.h>

/* ---- semaphores */

#define STARVING (UINT64_C(1) << 63)

static int try_take(struct ist_sync *s, void *ctx, isti_seniority seniority) {
    (void)ctx;
    _Atomic(uint64_t) *at = &s->memory->word;
    uint64_t word = atomic_load_explicit(at, memory_order_seq_cst); /* seq_cst: see sync.c */
    for (;;) {
        if ((word & ~STARVING) != 0) {
            if ((word & STARVING) != 0 && seniority == ISTI_FRESH && isti_event_awaited(&s->memory->event))
                return -EBUSY;
            const uint64_t next = (word - 1) & (seniority == ISTI_WAITED ? ~STARVING : UINT64_MAX);
            /* acquire: pairs with post's release. seq_cst on failure: the next look; and so on success */
            if (!atomic_compare_exchange_weak_explicit(at, &word, next, memory_order_seq_cst, memory_order_seq_cst))
                continue;
            IST_POINT(SEMAPHORE_TAKEN);
            return 0;
        }
        if (seniority != ISTI_STARVED || (word & STARVING) != 0)
            return -EAGAIN;
        /* seq_cst: the next look, if it fails; a hint to others otherwise */
        if (atomic_compare_exchange_weak_explicit(at, &word, word | STARVING, memory_order_seq_cst, memory_order_seq_cst))
            return -EAGAIN;
    }
}

int ist_semaphore_take(ist_sync *s, ist_waiting *w) {
    int error = isti_sync_check(s, IST_SEMAPHORE);
    return error != 0 ? error : isti_sync_wait(s, try_take, NULL, w);
}

int ist_semaphore_post(ist_sync *s, uint64_t n) {
    int error = isti_sync_check(s, IST_SEMAPHORE);
    if (error != 0 || n == 0)
        return error != 0 ? error : -EINVAL;
    _Atomic(uint64_t) *at = &s->memory->word;
    uint64_t word = atomic_load_explicit(at, memory_order_relaxed), next; /* relaxed: the exchange checks it */
    do {
        const uint64_t permits = word & ~STARVING;
        if (permits > s->limit || n > s->limit - permits)
            return -ERANGE;
        /* as in unlock (lock.c) */
        next = (permits + n) | ((word & STARVING) != 0 && isti_event_awaited(&s->memory->event) ? STARVING : 0);
        /* seq_cst: before the look at who waits; its release pairs with the taker's acquire */
    } while (!atomic_compare_exchange_weak_explicit(at, &word, next, memory_order_seq_cst, memory_order_relaxed));
    IST_POINT(SEMAPHORE_POSTED);
    if (n > 4)
        isti_sync_wake_all(s);
    else
        while (n-- > 0)
            isti_sync_wake_one(s);
    return 0;
}

/* ---- events. Who waits remembers how often it was set: it has happened also if it is clear again when that one looks */

static int try_event(struct ist_sync *s, void *ctx, isti_seniority seniority) {
    (void)seniority;
    const uint64_t word = atomic_load_explicit(&s->memory->word, memory_order_seq_cst); /* seq_cst: see sync.c */
    return (word & 1) != 0 || word >> 1 != *(const uint64_t *)ctx ? 0 : -EAGAIN;
}

int ist_event_wait(ist_sync *s, ist_waiting *w) {
    int error = isti_sync_check(s, IST_EVENT);
    if (error != 0)
        return error;
    if (w->times == 0) /* relaxed: whichever it is, a later one counts. After -EINTR it is the first call's */
        w->times = (atomic_load_explicit(&s->memory->word, memory_order_relaxed) >> 1) + 1;
    uint64_t times = w->times - 1;
    return isti_sync_wait(s, try_event, &times, w);
}

int ist_event_set(ist_sync *s) {
    int error = isti_sync_check(s, IST_EVENT);
    if (error != 0)
        return error;
    uint64_t word = atomic_load_explicit(&s->memory->word, memory_order_relaxed); /* relaxed: the exchange checks it */
    uint64_t next;
    do /* if it is set already it stays as it is: whoever looks from now on sees what the caller did before, too */
        next = (word & 1) != 0 ? word : ((word >> 1) + 1) << 1 | 1;
    /* seq_cst: before the look at who waits; its release pairs with their look */
    while (!atomic_compare_exchange_weak_explicit(&s->memory->word, &word, next, memory_order_seq_cst, memory_order_relaxed));
    if (next == word)
        return 0;
    IST_POINT(EVENT_SET);
    isti_sync_wake_all(s);
    return 0;
}

int ist_event_clear(ist_sync *s) {
    int error = isti_sync_check(s, IST_EVENT);
    if (error == 0) /* acq_rel: who clears it has seen what was set */
        atomic_fetch_and_explicit(&s->memory->word, ~UINT64_C(1), memory_order_acq_rel);
    return error;
}

/* ---- conditions: rows of waiter.c, about a number */

static int check_lock(const ist_sync *s) {
    return s == NULL || (s->type != IST_LOCK && s->type != IST_RLOCK) ? -EINVAL : isti_sync_usable(s) ? 0 : -ENOTRECOVERABLE;
}

int ist_condition_create(ist_sync *lock, uint64_t *out) {
    int error = check_lock(lock);
    if (error == 0) /* relaxed: only that it is nobody else's */
        *out = (atomic_fetch_add_explicit(&lock->memory->conditions, 1, memory_order_relaxed) + 1) & INT64_MAX;
    return error;
}

int ist_condition_begin(ist_sync *lock, uint64_t condition, ist_wait *out) {
    int error = check_lock(lock);
    return error != 0 ? error : isti_wait_begin_key(lock->segment, condition, out);
}

int ist_condition_notify(ist_sync *lock, uint64_t condition, uint64_t count, uint64_t *woken) {
    int error = check_lock(lock);
    return error != 0 ? error : isti_notify_key(lock->segment, condition, count, woken);
}
