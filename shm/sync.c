/* sync.c: handles of locks and the like, and how all of them wait.
 *
 *   a waiter   tries · sets the eventcount's flag · tries again · sleeps · tries
 *   a waker    changes the word by a seq_cst exchange · looks at the flag · wakes
 *
 * Each try's first load of the word is seq_cst, so one of the two sees the other (eventcount.h). Whoever has slept tries before it leaves,
 * for whatever reason it does: it may have been woken for what it finds, and then has it; what it doesn't find somebody has, who wakes the
 * next.
 *
 * Whoever has waited for ISTI_STARVED_NS says so in the word (ISTI_STARVING in locks and semaphores). From then on only those who have
 * slept take it, as they are woken in the order in which they came, and newcomers queue behind them, until one takes it that hasn't waited
 * so long. A newcomer that finds it free, and isn't to take it, sleeps for a millisecond at most: whoever was to have it may be dead.
 * tests/models/lock.pml.
 */
#include "sync.h"

#include "eventcount.h"
#include "os.h"
#include "point.h"
#include "segment.h"
#include "stop.h"

#include <errno.h>

#define SPIN_FIRST 100u
#define SPIN_MOST 1000u
#define ASIDE_NS ISTI_STARVED_NS /* for so long a newcomer lets others go first */

/* ---- handles */

struct isti_sync_memory *isti_sync_memory_of(void *data, size_t size) {
    struct isti_sync_memory *memory = data;
    if (size < sizeof *memory)
        return NULL;
    const volatile struct isti_sync_memory *untrusted = memory; /* each is read once */
    const uint32_t type = untrusted->type;
    if (untrusted->magic != ISTI_SYNC_MAGIC || type < IST_LOCK || type > IST_BARRIER ||
        (type == IST_BARRIER && size < sizeof(struct isti_barrier_memory)))
        return NULL;
    return memory;
}

static uint64_t most_of(ist_sync_type type) {
    return type == IST_SEMAPHORE ? IST_SEMAPHORE_MOST : type == IST_BARRIER ? IST_BARRIER_MOST : 0;
}

static int make(ist_sync_type type, uint64_t value, uint64_t limit, ist_segment *out) {
    const size_t size = type == IST_BARRIER ? sizeof(struct isti_barrier_memory) : sizeof(struct isti_sync_memory);
    ist_segment s;
    int error = ist_segment_create(size, IST_ZERO, &s);
    if (error != 0)
        return error;
    struct isti_sync_memory *memory = ist_segment_data(s);
    memory->magic = ISTI_SYNC_MAGIC;
    memory->type = (uint32_t)type;
    memory->limit = limit;
    atomic_store_explicit(&memory->word, type == IST_SEMAPHORE ? value : 0,
                          memory_order_relaxed); /* relaxed: nobody else has the segment */
    error = isti_publish_as(s, ISTI_SLOT_LOCK, ISTI_PUBLISHED_LOCK);
    if (error == 0)
        *out = s;
    else
        ist_segment_release(s);
    return error;
}

static bool is_ready(const struct isti_listener *l) {
    const struct ist_sync *s = (const struct ist_sync *)(const void *)((const char *)l - offsetof(struct ist_sync, listener));
    const uint64_t word = atomic_load_explicit(&s->memory->word, memory_order_seq_cst); /* seq_cst: a listener's second look */
    switch (s->type) {
    case IST_LOCK:
    case IST_RLOCK: return (word & ~(ISTI_STARVING | ISTI_ABANDONED)) == 0;
    case IST_SEMAPHORE: return (word & INT64_MAX) != 0;
    case IST_EVENT: return (word & 1) != 0;
    default: return true;
    }
}

int ist_sync_open(ist_segment s, ist_sync **out) {
    if (ist_segment_is_null(s) || out == NULL ||
        (atomic_load_explicit(&s.slot->meta, memory_order_relaxed) >> 8 & ISTI_SLOT_LOCK) == 0) /* relaxed: an owner asks */
        return -EINVAL;
    const uint64_t desc = atomic_load_explicit(&s.slot->desc, memory_order_acquire); /* acquire: pairs with publish */
    struct isti_domain *d = isti_domain_by_number(isti_desc_domain(desc));
    if (desc == 0 || d == NULL)
        return -ENOTRECOVERABLE;
    struct isti_sync_memory *memory = isti_sync_memory_of(ist_segment_data(s), ist_segment_size(s));
    if (memory == NULL)
        return -EBADMSG;
    const ist_sync_type type = (ist_sync_type)((const volatile struct isti_sync_memory *)memory)->type;
    const uint64_t limit = ((const volatile struct isti_sync_memory *)memory)->limit;
    if (type < IST_LOCK || type > IST_BARRIER || limit > most_of(type) || (type == IST_BARRIER && limit == 0))
        return -EBADMSG;
    struct ist_sync *sync = isti_os.calloc(1, sizeof *sync);
    if (sync == NULL)
        return -ENOMEM;
    sync->segment = s;
    sync->d = d;
    sync->memory = memory;
    sync->type = type;
    sync->limit = limit;
    sync->epoch = ist_epoch();
    sync->member = d->me;
    sync->index = isti_desc_index(desc);
    sync->generation = isti_desc_generation(desc);
    atomic_store_explicit(&sync->spin, SPIN_FIRST, memory_order_relaxed); /* relaxed: nobody else has it */
    sync->listener = (struct isti_listener){
        .d = d, .index = sync->index, .epoch = sync->epoch, .armed = memory->armed, .listened = &memory->listened, .is_ready = is_ready};
    isti_listener_begin(&sync->listener);
    *out = sync;
    return 0;
}

/* Takes the reference, also if it fails. */
static int open_or_release(ist_segment s, ist_sync **out) {
    int error = ist_sync_open(s, out);
    if (error != 0)
        ist_segment_release(s);
    return error;
}

int ist_sync_create(ist_sync_type type, uint64_t value, uint64_t limit, ist_sync **out) {
    if (out == NULL || type < IST_LOCK || type > IST_BARRIER)
        return -EINVAL;
    if (type == IST_BARRIER)
        limit = value;
    else if (type == IST_SEMAPHORE && limit == 0)
        limit = IST_SEMAPHORE_MOST;
    if (limit > most_of(type) || value > limit || (type == IST_BARRIER && value == 0))
        return -EINVAL;
    ist_segment s;
    int error;
    do
        error = make(type, value, limit, &s);
    while (error == -EAGAIN); /* a fork of another thread published it as what it was then */
    return error != 0 ? error : open_or_release(s, out);
}

int ist_sync_attach(const ist_token *token, ist_sync **out) {
    ist_segment s;
    int error = ist_segment_acquire(token, &s);
    return error != 0 ? error : open_or_release(s, out);
}

void ist_sync_close(ist_sync *s) {
    if (s == NULL)
        return;
    if (isti_sync_usable(s))
        isti_listener_end(&s->listener);
    ist_segment_release(s->segment);
    isti_os.free(s);
}

ist_segment ist_sync_segment(const ist_sync *s) { return s->segment; }

ist_sync_type ist_sync_type_of(const ist_sync *s) { return s->type; }

int ist_sync_fileno(ist_sync *s, int *out) {
    if (s == NULL || out == NULL || s->type > IST_EVENT)
        return -EINVAL;
    return isti_listener_fileno(&s->listener, out);
}

void ist_sync_clear(ist_sync *s) { isti_listener_clear(&s->listener); }

void ist_sync_tell(ist_sync *s) {
    if (isti_sync_usable(s) && is_ready(&s->listener))
        isti_listen_tell(s->d, s->index, &s->memory->listened, s->memory->armed);
}

void ist_sync_read_info(ist_sync *s, ist_sync_info *out) {
    *out = (ist_sync_info){.type = s->type, .limit = s->limit};
    if (!isti_sync_usable(s))
        return;
    const uint64_t word = atomic_load_explicit(&s->memory->word, memory_order_relaxed); /* relaxed: a snapshot */
    switch (s->type) {
    case IST_LOCK:
    case IST_RLOCK: isti_lock_read_info(s, word, out); break;
    case IST_SEMAPHORE: out->value = word & INT64_MAX; break;
    case IST_EVENT: out->value = word & 1; break;
    case IST_BARRIER: isti_barrier_read_info(s, word, out); break;
    }
}

/* ---- waking */

void isti_sync_wake_one(struct ist_sync *s) {
    isti_event_wake_one(&s->memory->event);
    isti_listen_tell(s->d, s->index, &s->memory->listened, s->memory->armed);
}

void isti_sync_wake_all(struct ist_sync *s) {
    if (isti_event_awaited(&s->memory->event))
        isti_event_wake_all(&s->memory->event);
    isti_listen_tell(s->d, s->index, &s->memory->listened, s->memory->armed);
}

/* ---- waiting */

/* Tries for a while, twice as long as it took the last times; where that doesn't help, less and less, in the end one time in 32. */
static int spin(struct ist_sync *s, isti_try_fn attempt, void *ctx) {
    uint32_t limit = atomic_load_explicit(&s->spin, memory_order_relaxed); /* relaxed, all: a guess */
    if (limit < 8 && atomic_fetch_add_explicit(&s->sleeps, 1, memory_order_relaxed) % 32 != 0)
        return -EAGAIN;
    limit = limit < 8 ? SPIN_FIRST : limit;
    int error = -EAGAIN;
    uint32_t i = 0;
    for (; i < limit && error == -EAGAIN; i++) {
        isti_relax();
        error = attempt(s, ctx, ISTI_FRESH);
    }
    const uint32_t twice = 2 * i + 64 < SPIN_MOST ? 2 * i + 64 : SPIN_MOST;
    const uint32_t aim = error == 0 ? twice / 4 : 0;
    atomic_store_explicit(&s->spin, limit - limit / 4 + aim, memory_order_relaxed);
    return error;
}

static isti_seniority seniority(const ist_waiting *w, uint64_t now) {
    return !w->slept ? ISTI_FRESH : now - w->since >= ISTI_STARVED_NS ? ISTI_STARVED : ISTI_WAITED;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

static void suspect(struct ist_sync *s) {
    if (s->type == IST_BARRIER)
        isti_barrier_suspect(s);
    else if (s->type == IST_LOCK || s->type == IST_RLOCK)
        isti_lock_suspect(s);
}

/* One sleep, at most until `until` and the deadline, with a try before and a try behind it. */
static int turn(struct ist_sync *s, isti_try_fn attempt, void *ctx, ist_waiting *w, uint64_t until) {
    _Atomic(uint32_t) *event = &s->memory->event;
    const uint32_t value = isti_event_prepare(event);
    isti_stop_announce(w->waiter, event);
    IST_POINT(WAIT_ANNOUNCED);
    const uint64_t now = isti_os.now();
    int error = attempt(s, ctx, seniority(w, now));
    const bool aside = error == -EBUSY;
    bool slept = false, interrupted = false, in_vain = false;
    if (error == -EAGAIN || aside) {
        if (isti_stop_is_set(w->waiter))
            error = -ECANCELED;
        else if (now >= w->deadline)
            error = -ETIMEDOUT;
        else if (now >= until)
            error = -EINTR;
        else {
            const uint64_t backstop = now + (aside ? ASIDE_NS : ISTI_BACKSTOP_NS);
            const int why = isti_os.futex_wait(event, value, least(least(w->deadline, until), backstop));
            interrupted = why == EINTR;
            in_vain = why == EINTR || why == ETIMEDOUT;
            slept = true;
        }
    }
    isti_stop_leave(w->waiter, event);
    if (!slept)
        return error;
    IST_POINT(WAIT_SLEPT);
    w->slept = true;
    const uint64_t then = isti_os.now();
    if (in_vain && then - w->since >= ISTI_BACKSTOP_NS) /* all in all: a caller's patience may end each sleep sooner */
        suspect(s);
    error = attempt(s, ctx, seniority(w, then));
    return error == -EAGAIN && interrupted ? -EINTR : error;
}

int isti_sync_wait(struct ist_sync *s, isti_try_fn attempt, void *ctx, ist_waiting *w) {
    if (w == NULL || w->deadline == 0) {
        int error = attempt(s, ctx, w == NULL ? ISTI_FRESH : ISTI_PASSING);
        return error == -EBUSY ? -EAGAIN : error;
    }
    int error = attempt(s, ctx, w->slept ? seniority(w, isti_os.now()) : ISTI_FRESH);
    if (error == -EAGAIN && !w->slept)
        error = spin(s, attempt, ctx);
    if (error != -EAGAIN && error != -EBUSY)
        return error;
    const uint64_t begun = isti_os.now();
    if (w->since == 0)
        w->since = begun;
    const uint64_t until = w->patience < UINT64_MAX - begun ? begun + w->patience : UINT64_MAX;
    do
        error = turn(s, attempt, ctx, w, until);
    while (error == -EAGAIN || error == -EBUSY);
    return error;
}
