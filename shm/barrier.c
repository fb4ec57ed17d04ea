/* barrier.c: barriers: one word that says which round it is, how many have come, and whether it is broken.
 *
 *   arrive    (g, n) → (g, n + 1), n < parties      the one that makes it `parties` is the last
 *   release   (g, parties) → (g + 1, 0)             by the last: outcome 0
 *   reset     (g, n) → (g + 1, 0)                   outcome 1: who waits in g is told so
 *   abort     (g, n) → (g, n, broken)               also whose time is up, and the sweep of somebody who is inside
 *   withdraw  (g, n) → (g, n - 1), n < parties
 *
 * `inside` counts the threads of each process that are between arriving and leaving; it is raised before the word and lowered after it. So
 * whoever is killed in between is seen by its sweep, wherever it was; one that was killed just before it came, or just behind the release,
 * breaks the next round, which would have waited for it in vain. tests/models/barrier.pml.
 *
 * Whoever looks late, when more rounds have begun, finds its own outcome among the last eight; later than that it was let go.
 */
#include "eventcount.h"
#include "point.h"
#include "sync.h"

#include <errno.h>

#define BROKEN (UINT64_C(1) << 23)
#define COUNT_MASK (BROKEN - 1)

static uint32_t generation_of(uint64_t word) { return (uint32_t)(word >> 32); }
static uint32_t count_of(uint64_t word) { return (uint32_t)(word & COUNT_MASK); }
static uint64_t next_round(uint64_t word, bool reset) {
    const uint64_t outcomes = (word >> 24 & 0x7f) << 1 | reset;
    return (uint64_t)(generation_of(word) + 1) << 32 | outcomes << 24;
}

static uint64_t look(const struct ist_sync *s) {
    return atomic_load_explicit(&s->memory->word, memory_order_seq_cst); /* seq_cst: see sync.c */
}

static bool change(struct ist_sync *s, uint64_t *word, uint64_t next) {
    /* seq_cst: before the look at who waits; release and acquire: what was done before the barrier is seen behind it */
    return atomic_compare_exchange_weak_explicit(&s->memory->word, word, next, memory_order_seq_cst, memory_order_seq_cst);
}

static _Atomic(uint32_t) *inside_of(struct isti_sync_memory *memory, uint32_t m) {
    return &((struct isti_barrier_memory *)(void *)memory)->inside[m];
}

static void enter(struct ist_sync *s) {
    /* acq_rel: before the word's exchange; the sweep has the byte lock of who did it */
    atomic_fetch_add_explicit(inside_of(s->memory, s->d->me), 1, memory_order_acq_rel);
    IST_POINT(BARRIER_INSIDE);
}

static void leave(struct ist_sync *s) {
    atomic_fetch_sub_explicit(inside_of(s->memory, s->d->me), 1, memory_order_acq_rel); /* behind it */
    IST_POINT(BARRIER_LEFT);
}

/* ---- arriving */

static int try_arrive(struct ist_sync *s, void *ctx, isti_seniority seniority) {
    (void)seniority;
    ist_arrival *a = ctx;
    enter(s);
    for (uint64_t word = look(s);;) {
        const uint32_t count = count_of(word);
        int error = (word & BROKEN) != 0 ? -EPIPE : count > s->limit ? -EBADMSG : count == s->limit ? -EAGAIN : 0;
        if (error == 0 && !change(s, &word, word + 1))
            continue;
        if (error != 0) {
            leave(s);
            return error;
        }
        IST_POINT(BARRIER_ARRIVED);
        *a = (ist_arrival){.generation = generation_of(word), .index = count, .last = count + 1 == s->limit};
        return 0;
    }
}

int ist_barrier_arrive(ist_sync *s, ist_waiting *w, ist_arrival *out) {
    int error = isti_sync_check(s, IST_BARRIER);
    return error != 0 ? error : isti_sync_wait(s, try_arrive, out, w);
}

/* How round g ended, if it has: 0, -EPIPE; -EAGAIN. */
static int outcome(uint64_t word, uint32_t g) {
    const uint32_t rounds = generation_of(word) - g;
    if (rounds == 0)
        return (word & BROKEN) != 0 ? -EPIPE : -EAGAIN;
    return rounds <= 8 && (word >> 24 >> (rounds - 1) & 1) != 0 ? -EPIPE : 0;
}

static int try_pass(struct ist_sync *s, void *ctx, isti_seniority seniority) {
    (void)seniority;
    return outcome(look(s), ((const ist_arrival *)ctx)->generation);
}

/* (g, …) becomes broken. */
static void break_round(struct ist_sync *s, uint32_t g) {
    for (uint64_t word = look(s); generation_of(word) == g && (word & BROKEN) == 0;)
        if (change(s, &word, word | BROKEN)) {
            IST_POINT(BARRIER_MOVED);
            isti_sync_wake_all(s);
            return;
        }
}

int ist_barrier_wait(ist_sync *s, const ist_arrival *a, ist_waiting *w) {
    int error = isti_sync_check(s, IST_BARRIER);
    if (error != 0)
        return error;
    ist_arrival copy = *a;
    error = isti_sync_wait(s, try_pass, &copy, w);
    if (error == -EAGAIN)
        error = -ETIMEDOUT; /* with deadline 0 */
    if (error == -EINTR)
        return error;
    if (error == -ETIMEDOUT || error == -ECANCELED) {
        break_round(s, a->generation);
        if (outcome(look(s), a->generation) == 0)
            error = 0; /* just in time */
    }
    leave(s);
    return error;
}

void ist_barrier_withdraw(ist_sync *s, const ist_arrival *a) {
    if (isti_sync_check(s, IST_BARRIER) != 0)
        return;
    if (a->last)
        break_round(s, a->generation);
    else
        for (uint64_t word = look(s);
             generation_of(word) == a->generation && (word & BROKEN) == 0 && count_of(word) > 0 && count_of(word) < s->limit;)
            if (change(s, &word, word - 1))
                break;
    leave(s);
}

int ist_barrier_release(ist_sync *s, const ist_arrival *a) {
    int error = isti_sync_check(s, IST_BARRIER);
    if (error != 0)
        return error;
    error = -EPIPE;
    for (uint64_t word = look(s); error != 0 && generation_of(word) == a->generation && (word & BROKEN) == 0;)
        if (change(s, &word, next_round(word, false)))
            error = 0;
    if (error == 0) {
        IST_POINT(BARRIER_MOVED);
        isti_sync_wake_all(s);
    }
    leave(s);
    return error;
}

int ist_barrier_abort(ist_sync *s) {
    int error = isti_sync_check(s, IST_BARRIER);
    if (error != 0)
        return error;
    uint64_t word;
    do /* the round may be over meanwhile: then the next one */
        break_round(s, generation_of(word = look(s)));
    while ((look(s) & BROKEN) == 0 && generation_of(word) != generation_of(look(s)));
    return 0;
}

int ist_barrier_reset(ist_sync *s) {
    int error = isti_sync_check(s, IST_BARRIER);
    if (error != 0)
        return error;
    for (uint64_t word = look(s); count_of(word) > 0 || (word & BROKEN) != 0;)
        if (change(s, &word, next_round(word, true))) {
            IST_POINT(BARRIER_MOVED);
            isti_sync_wake_all(s);
            break;
        }
    return 0;
}

void isti_barrier_read_info(const struct ist_sync *s, uint64_t word, ist_sync_info *out) {
    out->broken = (word & BROKEN) != 0;
    out->value = out->broken || count_of(word) >= s->limit ? 0 : count_of(word);
}

/* ---- the dead */

void isti_barrier_sweep(struct isti_sync_memory *memory, size_t size, uint32_t m) {
    /* acquire: pairs with its last steps */
    if (((const volatile struct isti_sync_memory *)memory)->type != IST_BARRIER || size < sizeof(struct isti_barrier_memory) ||
        atomic_load_explicit(inside_of(memory, m), memory_order_acquire) == 0)
        return;
    /* seq_cst: before the look at who waits. First this, then the count: a sweeper that is killed is followed by the next */
    atomic_fetch_or_explicit(&memory->word, BROKEN, memory_order_seq_cst);
    IST_POINT(SWEEP_BARRIER);
    atomic_store_explicit(inside_of(memory, m), 0, memory_order_release); /* pairs with the place's next process */
}

void isti_barrier_suspect(struct ist_sync *s) {
    for (uint32_t m = 0; m < s->d->members; m++)
        if (m != s->d->me && atomic_load_explicit(inside_of(s->memory, m), memory_order_relaxed) != 0) /* relaxed: a hint */
            isti_sweep_member(s->d, m);
}
