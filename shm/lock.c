/* lock.c: locks: the word that says who has one, and what becomes of it when that one is gone.
 *
 *   nobody's · nobody's | STARVING → mine [| STARVING]      by the exchange of whoever takes it
 *   mine [| STARVING]              → nobody's [| STARVING]  by whoever gives it back
 *   a dead one's                   → ABANDONED              by its sweep, which holds its byte lock (isti_lock_sweep, isti_sweep_word);
 *                                                           of this process, by the end of its holder, its thread, or the last reference
 *   ABANDONED                      → nobody's               by the one taker that is told
 *
 * So owner and claim are one word: who is killed just behind the exchange has the lock, and before it hasn't. No re-use hazard: place m is
 * given out only when it was swept, holders only when what they had is abandoned, and threads' numbers never.
 *
 * A sweep repeats its exchange until the word names somebody else: a waiter may make it STARVING meanwhile (lock.pml, SWEEP_ONCE).
 */
#include "eventcount.h"
#include "os.h"
#include "point.h"
#include "segment.h"
#include "sync.h"

#include <errno.h>

#define OWNER_MASK (~UINT64_C(0xf))
#define PROCESS_MASK UINT64_C(0xfff0)
#define HOLDER_MASK (PROCESS_MASK | UINT64_C(0xffff0000))
#define THREAD_MASK (PROCESS_MASK | UINT64_C(0xffffffff00000000))

static uint64_t process_of(uint32_t member) { return (uint64_t)(member + 1) << 4; }
static uint32_t holder_of(uint64_t word) { return (uint32_t)(word >> 16 & 0xffff); }
static uint32_t member_of(uint64_t word) { return (uint32_t)(word >> 4 & 0xfff) - 1; } /* UINT32_MAX: nobody's */
static uint64_t thread_bits(uint32_t number) { return (uint64_t)number << 32; }
static bool is_free(uint64_t word) { return (word & PROCESS_MASK) == 0; }

/* ---- holders: bits of this process. used: the number can't be had; alive: it hasn't ended */

static _Atomic(uint64_t) used[IST_HOLDERS / 64] = {1}, alive[IST_HOLDERS / 64] = {1};
static _Atomic(uint32_t) cursor;

static bool holder_is_alive(uint32_t holder) {
    /* relaxed: once it is over, for as long as a word names it */
    return (atomic_load_explicit(&alive[holder / 64], memory_order_relaxed) & UINT64_C(1) << holder % 64) != 0;
}

int ist_holder_begin(uint32_t *out) {
    if (out == NULL)
        return -EINVAL;
    /* relaxed: where to begin; not the one that was given back just now */
    const uint32_t from = atomic_fetch_add_explicit(&cursor, 1, memory_order_relaxed);
    for (uint32_t i = 1; i <= IST_HOLDERS; i++) {
        const uint32_t holder = (from + i) % IST_HOLDERS;
        const uint64_t bit = UINT64_C(1) << holder % 64;
        /* acquire: pairs with the release of ist_holder_end: nothing names it any more */
        if ((atomic_fetch_or_explicit(&used[holder / 64], bit, memory_order_acquire) & bit) != 0)
            continue;
        atomic_fetch_or_explicit(&alive[holder / 64], bit, memory_order_relaxed); /* relaxed: words name it after this returns */
        *out = holder;
        return 0;
    }
    return -ENOSPC;
}

/* ---- abandoning */

static void tell_all(struct isti_domain *d, uint32_t index, struct isti_sync_memory *memory) {
    isti_event_wake_all(&memory->event);
    isti_listen_tell(d, index, &memory->listened, memory->armed);
}

/* The word becomes ABANDONED if it names `owner` under `mask`. True: it did. */
static bool abandon(struct isti_sync_memory *memory, uint64_t mask, uint64_t owner) {
    uint64_t word = atomic_load_explicit(&memory->word, memory_order_acquire); /* acquire: pairs with the owner's exchange */
    while ((word & mask) == owner)
        /* seq_cst: before the look at who waits. Again if a waiter has just made it STARVING */
        if (atomic_compare_exchange_weak_explicit(&memory->word, &word, ISTI_ABANDONED, memory_order_seq_cst, memory_order_acquire)) {
            IST_POINT(LOCK_ABANDONED);
            return true;
        }
    return false;
}

static bool is_lock(const struct isti_sync_memory *memory) {
    const uint32_t type = ((const volatile struct isti_sync_memory *)memory)->type;
    return type == IST_LOCK || type == IST_RLOCK;
}

void isti_lock_sweep(struct isti_domain *d, uint32_t index, struct isti_sync_memory *memory, uint32_t m) {
    if (is_lock(memory))
        abandon(memory, PROCESS_MASK, process_of(m));
    tell_all(d, index, memory); /* also for who was woken and killed before it looked */
    IST_POINT(SWEEP_LOCK);
}

void isti_lock_let_go(struct isti_domain *d, struct ist_slot *slot) {
    struct isti_sync_memory *memory = isti_sync_memory_of(atomic_load_explicit(&slot->data, memory_order_relaxed), /* relaxed: we end it */
                                                          atomic_load_explicit(&slot->size, memory_order_relaxed));
    if (memory != NULL && is_lock(memory) && abandon(memory, PROCESS_MASK, process_of(d->me)))
        tell_all(d, isti_desc_index(atomic_load_explicit(&slot->desc, memory_order_relaxed)), memory);
}

/* What this process has of all locks whose words say `bits` under `mask`, besides its own member. */
static void abandon_everywhere(uint64_t mask, uint64_t bits, bool rlocks_only) {
    for (uint32_t i = 0, high = isti_slab_high(); i < high; i++) {
        struct ist_slot *slot = isti_slab_slot(i);
        /* relaxed: a hint, looked at again as an owner */
        if (slot == NULL || (atomic_load_explicit(&slot->meta, memory_order_relaxed) >> 8 & ISTI_SLOT_LOCK) == 0)
            continue;
        ist_segment s;
        const uint64_t state = atomic_load_explicit(&slot->state, memory_order_acquire); /* acquire: pairs with its opening */
        if (isti_slot_add_owner(slot, state, isti_generation(state), &s) != 0)
            continue; /* its last reference is going, which abandons it as well */
        const uint64_t desc = atomic_load_explicit(&slot->desc, memory_order_acquire); /* acquire: pairs with publish */
        struct isti_domain *d = desc == 0 ? NULL : isti_domain_by_number(isti_desc_domain(desc));
        struct isti_sync_memory *memory = NULL;
        if (d != NULL && (atomic_load_explicit(&slot->meta, memory_order_relaxed) >> 8 & ISTI_SLOT_LOCK) != 0)
            memory = isti_sync_memory_of(ist_segment_data(s), ist_segment_size(s));
        if (memory != NULL && is_lock(memory) && (!rlocks_only || ((const volatile struct isti_sync_memory *)memory)->type == IST_RLOCK) &&
            abandon(memory, mask, bits | process_of(d->me)))
            tell_all(d, isti_desc_index(desc), memory);
        ist_segment_release(s);
    }
}

void ist_holder_end(uint32_t holder) {
    if (holder == 0 || holder >= IST_HOLDERS || ist_process_epoch() == 0)
        return;
    const uint64_t bit = UINT64_C(1) << holder % 64;
    /* relaxed: from here on those who wait see by themselves that it is over; the walk is so that they needn't look */
    if ((atomic_fetch_and_explicit(&alive[holder / 64], ~bit, memory_order_relaxed) & bit) == 0)
        return;
    abandon_everywhere(HOLDER_MASK, (uint64_t)holder << 16, false);
    atomic_fetch_and_explicit(&used[holder / 64], ~bit, memory_order_release); /* pairs with ist_holder_begin's acquire */
}

void isti_lock_thread_end(uint32_t thread) { abandon_everywhere(THREAD_MASK, thread_bits(thread), true); }

void isti_lock_suspect(struct ist_sync *s) {
    const uint64_t word = atomic_load_explicit(&s->memory->word, memory_order_acquire); /* acquire: as in abandon */
    const uint32_t m = member_of(word);
    if (is_free(word) || m == s->d->me)
        return;
    isti_sweep_member(s->d, m);
    /* A word that names a place which is nobody's and was swept: garbage, or it would wait for ever */
    if (isti_sweep_word(s->d, m, &s->memory->word, word, ISTI_ABANDONED))
        isti_sync_wake_all(s);
}

/* ---- taking */

struct taker {
    uint64_t owner;
};

int isti_lock_try(struct ist_sync *s, void *ctx, isti_seniority seniority) {
    const struct taker *me = ctx;
    _Atomic(uint64_t) *at = &s->memory->word;
    uint64_t word = atomic_load_explicit(at, memory_order_seq_cst); /* seq_cst: see sync.c */
    for (;;) {
        if ((word & ISTI_ABANDONED) != 0) {
            /* seq_cst: it is free: as in unlock. acquire: what the dead one did is seen */
            if (!atomic_compare_exchange_weak_explicit(at, &word, 0, memory_order_seq_cst, memory_order_seq_cst))
                continue;
            IST_POINT(LOCK_TOLD);
            isti_sync_wake_one(s);
            return -EOWNERDEAD;
        }
        if (is_free(word)) {
            if ((word & ISTI_STARVING) != 0 && seniority == ISTI_FRESH && isti_event_awaited(&s->memory->event))
                return -EBUSY;
            const uint64_t keep = seniority == ISTI_WAITED ? 0 : word & ISTI_STARVING;
            /* acquire: pairs with unlock's release. seq_cst on failure: the next look; and so on success */
            if (!atomic_compare_exchange_weak_explicit(at, &word, me->owner | keep, memory_order_seq_cst, memory_order_seq_cst))
                continue;
            IST_POINT(LOCK_TAKEN);
            return 0;
        }
        if (member_of(word) == s->d->me && !holder_is_alive(holder_of(word))) {
            abandon(s->memory, OWNER_MASK, word & OWNER_MASK);
            word = atomic_load_explicit(at, memory_order_seq_cst);
            continue;
        }
        if (seniority != ISTI_STARVED || (word & ISTI_STARVING) != 0)
            return -EAGAIN;
        /* seq_cst: the next look, if it fails; a hint to others otherwise */
        if (atomic_compare_exchange_weak_explicit(at, &word, word | ISTI_STARVING, memory_order_seq_cst, memory_order_seq_cst)) {
            IST_POINT(LOCK_STARVES);
            return -EAGAIN;
        }
    }
}

static bool is_mine(const struct ist_sync *s, uint64_t word, uint32_t thread) {
    return (word & THREAD_MASK) == (process_of(s->d->me) | thread_bits(thread));
}

static bool is_either(const struct ist_sync *s) { return s != NULL && (s->type == IST_LOCK || s->type == IST_RLOCK); }

static int lock(ist_sync *s, uint32_t holder, uint32_t count, ist_waiting *w) {
    if (!is_either(s) || holder >= IST_HOLDERS || count == 0)
        return -EINVAL;
    if (!isti_sync_usable(s))
        return -ENOTRECOVERABLE;
    struct isti_thread *t = isti_thread();
    if (t == NULL)
        return -ENOMEM;
    const bool recursive = s->type == IST_RLOCK;
    /* relaxed: only this thread makes it its own */
    if (recursive && is_mine(s, atomic_load_explicit(&s->memory->word, memory_order_relaxed), t->number)) {
        const uint32_t now = atomic_load_explicit(&s->memory->count, memory_order_relaxed); /* relaxed, here and below: the owner's */
        if (now == UINT32_MAX)
            return -EOVERFLOW;
        atomic_store_explicit(&s->memory->count, now + 1, memory_order_relaxed);
        return 0;
    }
    struct taker me = {.owner = process_of(s->d->me) | (uint64_t)holder << 16 | thread_bits(t->number)};
    int error = isti_sync_wait(s, isti_lock_try, &me, w);
    if (error == 0 && recursive) {
        atomic_store_explicit(&s->memory->count, count, memory_order_relaxed);
        t->rlocks++;
    }
    return error;
}

int ist_lock_lock(ist_sync *s, uint32_t holder, ist_waiting *w) { return lock(s, holder, 1, w); }

int ist_lock_lock_count(ist_sync *s, uint32_t holder, uint32_t count, ist_waiting *w) {
    return s != NULL && s->type == IST_LOCK && count != 1 ? -EINVAL : lock(s, holder, count, w);
}

/* ---- giving back */

static int unlock(ist_sync *s) {
    _Atomic(uint64_t) *at = &s->memory->word;
    uint64_t word = atomic_load_explicit(at, memory_order_relaxed), next; /* relaxed: the exchange checks it */
    do {
        if (is_free(word))
            return -EPERM;
        const uint32_t m = member_of(word);
        if (m != s->d->me && s->member != s->d->me && m == s->member)
            return -EACCES;
        /* Nobody asleep: nobody starves. A guess: who is about to sleep will say so again */
        next = (word & ISTI_STARVING) != 0 && isti_event_awaited(&s->memory->event) ? ISTI_STARVING : 0;
        /* seq_cst: before the look at who waits; its release pairs with the taker's acquire */
    } while (!atomic_compare_exchange_weak_explicit(at, &word, next, memory_order_seq_cst, memory_order_relaxed));
    IST_POINT(LOCK_FREED);
    isti_sync_wake_one(s);
    IST_POINT(LOCK_WOKEN);
    return 0;
}

/* 0: it is this thread's. */
static int check_mine(const ist_sync *s, struct isti_thread **t) {
    int error = isti_sync_check(s, IST_RLOCK);
    if (error != 0)
        return error;
    *t = isti_thread();
    /* relaxed: only this thread makes it its own */
    return *t != NULL && is_mine(s, atomic_load_explicit(&s->memory->word, memory_order_relaxed), (*t)->number) ? 0 : -EPERM;
}

/* It was this thread's until just now, all of it. */
static int unlock_mine(ist_sync *s, struct isti_thread *t) {
    t->rlocks -= t->rlocks > 0; /* 0 in a forked child */
    return unlock(s);
}

int ist_lock_unlock(ist_sync *s) {
    if (s != NULL && s->type == IST_LOCK)
        return isti_sync_usable(s) ? unlock(s) : -ENOTRECOVERABLE;
    struct isti_thread *t;
    int error = check_mine(s, &t);
    if (error != 0)
        return error;
    const uint32_t count = atomic_load_explicit(&s->memory->count, memory_order_relaxed); /* relaxed: the owner's */
    if (count <= 1) /* 0: garbage */
        return unlock_mine(s, t);
    atomic_store_explicit(&s->memory->count, count - 1, memory_order_relaxed);
    return 0;
}

int ist_lock_unlock_all(ist_sync *s, uint32_t *count) {
    struct isti_thread *t;
    int error = check_mine(s, &t);
    if (error != 0)
        return error;
    const uint32_t was = atomic_load_explicit(&s->memory->count, memory_order_relaxed); /* relaxed: the owner's */
    error = unlock_mine(s, t);
    if (error == 0)
        *count = was == 0 ? 1 : was;
    return error;
}

void isti_lock_read_info(const struct ist_sync *s, uint64_t word, ist_sync_info *out) {
    struct isti_thread *t = isti_thread();
    const bool here = member_of(word) == s->d->me;
    out->value = !is_free(word) && !(here && !holder_is_alive(holder_of(word)));
    out->broken = (word & ISTI_ABANDONED) != 0 || out->value != !is_free(word);
    out->member = out->value ? member_of(word) : UINT32_MAX;
    out->mine = out->value && here && (s->type == IST_LOCK || (t != NULL && is_mine(s, word, t->number)));
    if (s->type == IST_RLOCK && out->mine)
        out->value = atomic_load_explicit(&s->memory->count, memory_order_relaxed); /* relaxed: the owner's */
}
