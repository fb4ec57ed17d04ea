/* waiter.c: waiting on an element of a segment, and notifying: a table of waiters in the control memfd.
 *
 * A row's word is ticket 48 | state 4 | member 12. The ticket is drawn once a wait, so a word never comes back (an exchange that was meant
 * for one wait can't hit the next in that row), and it says who came first.
 *
 *   FREE     → CLAIMED   by the waiter, which then writes what it waits on
 *   CLAIMED  → PENDING   by the waiter, which then looks at the element: another value → FREE
 *   PENDING  → RECHECK   by a notifier: the waiter isn't asleep yet, and may have looked before the element was stored; it looks again
 *   PENDING  → WAITING   by the waiter: asleep from here on
 *   WAITING  → NOTIFIED  by a notifier; NOTIFIED → FREE by the waiter
 *   WAITING  → FREE      by the waiter, whose time is up
 *   any      → FREE      by the sweep of a dead waiter
 *
 * The element's store and the look at the words on one side, the word and the look at the element on the other, have a full fence between
 * them: one of the two sees the other. tests/models/waiter.pml and litmus/waiter_* are the model.
 *
 * A wait without a thread (async) is a row like any other, but that nobody sleeps on its word: it is in a list of this process, with a
 * descriptor to write to. Whoever notifies it looks through that list, or rings the doorbell of its process, whose housekeeper looks.
 * Behind its move to WAITING the waiter enters the list and looks at its row once more, so one of the two finds the other. A notifier that
 * dies before it rings is made up for by the housekeeper's look every two seconds.
 *
 * Rows are in buckets, by what is waited on. A full bucket spills into the next ones; `spilled` says how far a notifier has to look.
 */
#include "domain.h"
#include "os.h"
#include "point.h"
#include "sanitizer.h"
#include "segment.h"

#include "fork.h"
#include "housekeeper.h"

#include <isthmus/atomic.h>
#include <pthread.h>

typedef enum waiter_state { FREE = 0, CLAIMED = 1, PENDING = 2, RECHECK = 3, WAITING = 4, NOTIFIED = 5 } waiter_state;

static uint64_t word_of(uint64_t ticket, waiter_state state, uint32_t member) {
    return ticket << 16 | (uint64_t)state << 12 | (member & 0xfff);
}
static waiter_state state_of(uint64_t word) { return (waiter_state)(word >> 12 & 15); }
static uint32_t member_of(uint64_t word) { return (uint32_t)(word & 0xfff); }
static uint64_t with_state(uint64_t word, waiter_state state) { return (word & ~UINT64_C(0xf000)) | (uint64_t)state << 12; }

/* What is waited on. */
struct element {
    uint32_t descriptor, generation;
    uint64_t offset;
};

static uint32_t bucket_of(const struct isti_domain *d, const struct element *e) {
    uint64_t h =
        (e->offset >> 2) * UINT64_C(0x9e3779b97f4a7c15) ^ ((uint64_t)e->generation << 32 | e->descriptor) * UINT64_C(0xc2b2ae3d27d4eb4f);
    return (uint32_t)(h >> 40) & (d->waiter_buckets - 1);
}

static struct isti_waiter *row_of(struct isti_domain *d, uint32_t row) {
    return &d->waiter_rows[row / ISTI_WAITERS].rows[row % ISTI_WAITERS];
}

/* The half of the word that changes with the state: what futexes are about. */
static _Atomic(uint32_t) *futex_of(struct isti_waiter *row) {
    return (_Atomic(uint32_t) *)(void *)&row->word + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

static bool move(struct isti_waiter *row, uint64_t from, waiter_state to) {
    /* seq_cst: see the head. acquire: pairs with the release of the move before */
    return atomic_compare_exchange_strong_explicit(&row->word, &from, with_state(from, to), memory_order_seq_cst, memory_order_relaxed);
}

/* The rows of a bucket that were ever used. */
static uint32_t rows_used(struct isti_waiter_bucket *bucket) { return isti_marked(&bucket->high, ISTI_WAITERS); }

/* Buckets that were never used aren't touched: that would commit their pages. */
static bool bucket_used(struct isti_domain *d, uint32_t b) {
    /* acquire: pairs with use_bucket */
    return (atomic_load_explicit(&d->marks->waiter_buckets[b / 64], memory_order_acquire) & UINT64_C(1) << b % 64) != 0;
}

/* ---- waiting */

static bool claim_in(struct isti_domain *d, uint32_t b, uint64_t ticket, uint32_t *row) {
    if (!bucket_used(d, b))
        atomic_fetch_or_explicit(&d->marks->waiter_buckets[b / 64], UINT64_C(1) << b % 64, memory_order_acq_rel); /* as in isti_raise */
    for (uint32_t i = 0; i < ISTI_WAITERS; i++) {
        struct isti_waiter *r = &d->waiter_rows[b].rows[i];
        uint64_t word = atomic_load_explicit(&r->word, memory_order_relaxed); /* relaxed: the exchange checks it */
        if (state_of(word) != FREE)
            continue;
        isti_raise(&d->waiter_rows[b].high, i + 1);
        IST_POINT(WAIT_RAISED);
        /* acquire: pairs with the release of whoever freed it */
        if (atomic_compare_exchange_strong_explicit(&r->word, &word, word_of(ticket, CLAIMED, d->me), memory_order_acq_rel,
                                                    memory_order_relaxed)) {
            *row = b * ISTI_WAITERS + i;
            return true;
        }
    }
    return false;
}

static int claim(struct isti_domain *d, const struct element *e, uint64_t ticket, uint32_t *row) {
    const uint32_t home = bucket_of(d, e);
    for (uint32_t away = 0; away < d->waiter_buckets; away++) {
        if (away > 0)
            isti_raise(&d->waiter_rows[home].spilled, away);
        if (claim_in(d, (home + away) % d->waiter_buckets, ticket, row))
            return 0;
    }
    return -ENOSPC;
}

static uint64_t load(const void *at, size_t size) {
    /* seq_cst: see the head */
    if (size == 4)
        return atomic_load_explicit((const _Atomic(uint32_t) *)at, memory_order_seq_cst);
    return atomic_load_explicit((const _Atomic(uint64_t) *)at, memory_order_seq_cst);
}

/* at NULL: nothing is looked at. */
static int begin(ist_segment s, uint64_t offset, const void *at, size_t size, uint64_t expected, int fd, ist_wait *out) {
    int error = isti_publish(s);
    if (error != 0)
        return error;
    const uint64_t desc = atomic_load_explicit(&s.slot->desc, memory_order_acquire); /* acquire: pairs with publish's store */
    struct isti_domain *d = isti_domain_by_number(isti_desc_domain(desc));
    if (d == NULL)
        return -ENOTRECOVERABLE;
    const struct element e = {.descriptor = isti_desc_index(desc), .generation = isti_desc_generation(desc), .offset = offset};
    /* relaxed: only that it is nobody else's, and greater than those drawn before this call */
    const uint64_t ticket = atomic_fetch_add_explicit(&d->marks->waits, 1, memory_order_relaxed) + 1;
    uint32_t index = 0;
    error = claim(d, &e, ticket, &index);
    if (error != 0 && isti_sweep_domain(d) != 0) /* the dead may have held rows */
        error = claim(d, &e, ticket, &index);
    if (error != 0)
        return error;
    IST_POINT(WAIT_CLAIMED);
    struct isti_waiter *row = row_of(d, index);
    /* relaxed, all: ordered by the word's move */
    atomic_store_explicit(&row->descriptor, e.descriptor, memory_order_relaxed);
    atomic_store_explicit(&row->generation, e.generation, memory_order_relaxed);
    atomic_store_explicit(&row->offset, e.offset, memory_order_relaxed);
    atomic_store_explicit(&row->async, fd >= 0, memory_order_relaxed);
    IST_POINT(WAIT_WRITTEN);
    uint64_t word = word_of(ticket, CLAIMED, d->me);
    for (;;) {
        const uint64_t pending = with_state(word, PENDING);
        if (!move(row, word, PENDING))
            return -EBADMSG; /* nobody else moves it here: a peer wrote garbage */
        IST_POINT(WAIT_PENDING);
        atomic_thread_fence(memory_order_seq_cst);
        if (at != NULL && load(at, size) != expected) {
            if (!move(row, pending, FREE))
                move(row, with_state(word, RECHECK), FREE);
            IST_POINT(WAIT_UNEQUAL);
            return -EAGAIN;
        }
        IST_POINT(WAIT_LOOKED);
        if (move(row, pending, WAITING))
            break;
        word = with_state(word, RECHECK);
    }
    IST_POINT(WAIT_ASLEEP);
    *out = (ist_wait){.word = with_state(word, WAITING),
                      .offset = offset,
                      .domain = d->number,
                      .row = index,
                      .descriptor = e.descriptor,
                      .generation = e.generation,
                      .fd = fd};
    return 0;
}

/* element NULL: the segment's own bytes at `offset`. */
static int begin_on(ist_segment s, size_t offset, const void *element, size_t size, uint64_t expected, int fd, ist_wait *out) {
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE;
    const size_t end = ist_segment_size(s);
    if ((size != 4 && size != 8) || offset > end || end - offset < size)
        return -EINVAL;
    const void *at = element != NULL ? element : (const char *)ist_segment_data(s) + offset;
    if ((uintptr_t)at % size != 0)
        return -EINVAL;
    return begin(s, offset, at, size, expected, fd, out);
}

int ist_wait_begin(ist_segment s, size_t offset, const void *element, size_t size, uint64_t expected, ist_wait *out) {
    return begin_on(s, offset, element, size, expected, -1, out);
}

int isti_wait_begin_key(ist_segment s, uint64_t key, ist_wait *out) { return begin(s, ISTI_WAIT_KEY | key, NULL, 0, 0, -1, out); }

static struct isti_waiter *registered(const ist_wait *w, struct isti_domain **d) {
    *d = isti_domain_by_number(w->domain);
    if (*d == NULL || member_of(w->word) != (*d)->me || w->row >= (*d)->waiter_buckets * ISTI_WAITERS)
        return NULL; /* a child's copy of its parent's wait, for one */
    return row_of(*d, w->row);
}

/* ---- waiting without a thread: the waits of this process. The list, and `told` and the links in it, are guarded by the mutex, under which
 * no other lock is taken */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static ist_wait *first;

/* The mutex is held. */
static void tell(ist_wait *w) {
    const uint64_t one = 1;
    struct isti_domain *d;
    struct isti_waiter *row = registered(w, &d);
    /* seq_cst: behind the notifier's move, or before it, see the head. A row that has gone on counts as notified, as in ist_wait_on */
    if (!w->told && row != NULL && atomic_load_explicit(&row->word, memory_order_seq_cst) != w->word) {
        w->told = true;
        (void)!isti_os.write(w->fd, &one, sizeof one); /* a full eventfd is readable as well */
    }
}

void isti_waiters_tell(void) {
    pthread_mutex_lock(&mutex);
    for (ist_wait *w = first; w != NULL; w = w->next)
        tell(w);
    pthread_mutex_unlock(&mutex);
}

int ist_wait_begin_async(ist_segment s, size_t offset, const void *element, size_t size, uint64_t expected, int fd, ist_wait *out) {
    if (fd < 0)
        return -EBADF;
    const int error = begin_on(s, offset, element, size, expected, fd, out);
    if (error != 0)
        return error;
    pthread_mutex_lock(&mutex);
    out->next = first;
    out->link = &first;
    if (first != NULL)
        first->link = &out->next;
    first = out;
    IST_POINT(WAIT_LISTED);
    tell(out); /* it may have been notified before it was there to be found */
    pthread_mutex_unlock(&mutex);
    isti_housekeeper_watch(); /* it hears of other processes' notifications */
    return 0;
}

static void unlist(ist_wait *w) {
    if (w->fd < 0)
        return;
    pthread_mutex_lock(&mutex);
    if (w->link != NULL) {
        *w->link = w->next;
        if (w->next != NULL)
            w->next->link = w->link;
        w->link = NULL;
    }
    pthread_mutex_unlock(&mutex);
}

void isti_waiters_fork_prepare(void) { pthread_mutex_lock(&mutex); }

void isti_waiters_fork_parent(void) { pthread_mutex_unlock(&mutex); }

/* The waits are the parent's. */
void isti_waiters_fork_child(void) {
    while (first != NULL) {
        first->link = NULL;
        first = first->next;
    }
    pthread_mutex_unlock(&mutex); /* the forking thread locked it, and is this one */
}

/* A row that was notified. `async`: as it was before the exchange, which shows that it was of that wait. */
static void wake(struct isti_domain *d, struct isti_waiter *row, uint64_t word, bool async, bool *here) {
    if (!async)
        isti_os.futex_wake(futex_of(row), 1);
    else if (member_of(word) == d->me)
        *here = true;
    else if (member_of(word) < d->members)
        isti_member_ring(d, member_of(word));
}

int ist_wait_on(ist_wait *w, uint64_t deadline, uint64_t patience) {
    struct isti_domain *d;
    struct isti_waiter *row = registered(w, &d);
    if (row == NULL)
        return -ENOTRECOVERABLE;
    const uint64_t begun = isti_os.now(), until = patience < deadline - begun && begun < deadline ? begun + patience : deadline;
    for (bool slept = false;; slept = true) {
        /* acquire: pairs with the notifier's move: what it did before is seen */
        const uint64_t word = atomic_load_explicit(&row->word, memory_order_acquire);
        if (word != w->word) {
            /* NOTIFIED → FREE. Should a peer have written garbage, it counts as a notification: waiting for what can't come is worse */
            move(row, with_state(w->word, NOTIFIED), FREE);
            IST_POINT(WAIT_HEARD);
            unlist(w);
            return 0;
        }
        if (isti_os.now() >= deadline) {
            if (move(row, w->word, FREE)) {
                IST_POINT(WAIT_GIVEN_UP);
                unlist(w);
                return -ETIMEDOUT;
            }
            continue;
        }
        if (slept || w->fd >= 0)
            return -EINTR;
        isti_os.futex_wait(futex_of(row), (uint32_t)w->word, until);
    }
}

/* ---- notifying */

#define BATCH 64 /* waiters that one look at the table finds */

/* Those found asleep, the longest waiting first. */
struct found {
    uint32_t n;
    uint64_t words[BATCH];
    struct isti_waiter *rows[BATCH];
};

static void add(struct found *f, uint64_t word, struct isti_waiter *row) {
    uint32_t i = f->n;
    if (i < BATCH)
        f->n++;
    else if (f->words[--i] < word)
        return; /* it comes after those that fit */
    for (; i > 0 && f->words[i - 1] > word; i--) {
        f->words[i] = f->words[i - 1];
        f->rows[i] = f->rows[i - 1];
    }
    f->words[i] = word;
    f->rows[i] = row;
}

static bool waits_on(struct isti_waiter *row, const struct element *e) {
    /* relaxed: of the wait whose word was read before or a later one; the exchange of the word tells */
    return atomic_load_explicit(&row->descriptor, memory_order_relaxed) == e->descriptor &&
           atomic_load_explicit(&row->generation, memory_order_relaxed) == e->generation &&
           atomic_load_explicit(&row->offset, memory_order_relaxed) == e->offset;
}

/* The word of a row that is asleep on e; 0: it isn't. One that is about to look at the element is told to look again. */
static uint64_t asleep(struct isti_waiter *row, const struct element *e) {
    for (;;) {
        const uint64_t word = atomic_load_explicit(&row->word, memory_order_seq_cst); /* see the head; acquire: the fields */
        if ((state_of(word) != PENDING && state_of(word) != WAITING) || !waits_on(row, e))
            return 0;
        if (state_of(word) == WAITING)
            return word;
        if (move(row, word, RECHECK)) {
            IST_POINT(NOTIFY_RECHECK);
            return 0;
        }
    }
}

/* The longest waiting of those on e whose words are within (after, last]. */
static void look(struct isti_domain *d, const struct element *e, uint64_t after, uint64_t last, struct found *f) {
    const uint32_t home = bucket_of(d, e);
    f->n = 0;
    if (!bucket_used(d, home))
        return;
    uint32_t away = atomic_load_explicit(&d->waiter_rows[home].spilled, memory_order_acquire); /* pairs with claim's raise */
    away = away < d->waiter_buckets ? away : d->waiter_buckets - 1;
    for (uint32_t i = 0; i <= away; i++) {
        const uint32_t b = (home + i) % d->waiter_buckets;
        if (!bucket_used(d, b))
            continue;
        for (uint32_t r = 0, high = rows_used(&d->waiter_rows[b]); r < high; r++) {
            struct isti_waiter *row = &d->waiter_rows[b].rows[r];
            const uint64_t word = asleep(row, e);
            if (word > after && word <= last)
                add(f, word, row);
        }
    }
}

static uint64_t notify(struct isti_domain *d, const struct element *e, uint64_t count) {
    uint64_t woken = 0, after = 0;
    bool here = false; /* some of this process's that don't sleep */
    /* A wait that begins from here on has a greater ticket, and needn't be seen: this ends. The state's and the member's bits are all set:
     * words with that ticket are within. relaxed: behind the fence, as the looks */
    const uint64_t last = atomic_load_explicit(&d->marks->waits, memory_order_relaxed) << 16 | 0xffff;
    struct found f;
    do {
        look(d, e, after, last, &f);
        for (uint32_t i = 0; i < f.n && woken < count; i++) {
            IST_POINT(NOTIFY_LOOKED);
            const bool async = atomic_load_explicit(&f.rows[i]->async, memory_order_relaxed) != 0; /* relaxed: as in waits_on */
            if (!move(f.rows[i], f.words[i], NOTIFIED))
                continue; /* it has given up */
            IST_POINT(NOTIFY_MOVED);
            woken++;
            wake(d, f.rows[i], f.words[i], async, &here);
            IST_POINT(NOTIFY_WOKEN);
        }
        if (f.n > 0)
            after = f.words[f.n - 1];
    } while (f.n == BATCH && woken < count);
    if (here)
        isti_waiters_tell();
    return woken;
}

static int notify_segment(ist_segment s, uint64_t offset, uint64_t count, uint64_t *woken) {
    *woken = 0;
    atomic_thread_fence(memory_order_seq_cst); /* behind the element's store, see the head */
    const uint64_t desc = atomic_load_explicit(&s.slot->desc, memory_order_acquire); /* acquire: pairs with publish's store */
    struct isti_domain *d = desc == 0 ? NULL : isti_domain_by_number(isti_desc_domain(desc));
    if (d == NULL) /* never published, so nobody has waited on it */
        return 0;
    const struct element e = {.descriptor = isti_desc_index(desc), .generation = isti_desc_generation(desc), .offset = offset};
    *woken = notify(d, &e, count);
    return 0;
}

int isti_notify_key(ist_segment s, uint64_t key, uint64_t count, uint64_t *woken) {
    return notify_segment(s, ISTI_WAIT_KEY | key, count, woken);
}

int ist_notify(ist_segment s, size_t offset, uint64_t count, uint64_t *woken) {
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE;
    return offset >= ist_segment_size(s) ? -EINVAL : notify_segment(s, offset, count, woken);
}

/* ---- ends that weren't asked for */

static struct element element_of(struct isti_waiter *row) {
    /* relaxed, all: of this thread's own wait, or behind the acquire of its word */
    return (struct element){.descriptor = atomic_load_explicit(&row->descriptor, memory_order_relaxed),
                            .generation = atomic_load_explicit(&row->generation, memory_order_relaxed),
                            .offset = atomic_load_explicit(&row->offset, memory_order_relaxed)};
}

void ist_wait_cancel(ist_wait *w) {
    struct isti_domain *d;
    struct isti_waiter *row = registered(w, &d);
    if (ist_process_epoch() == 0)
        return; /* a child without handlers: the mutex may be held by a thread that isn't here */
    unlist(w);
    if (row == NULL || move(row, w->word, FREE))
        return;
    IST_POINT(CANCEL_NOTIFIED);
    const struct element e = {.descriptor = w->descriptor, .generation = w->generation, .offset = w->offset};
    notify(d, &e, 1);
    IST_POINT(CANCEL_PASSED);
    move(row, with_state(w->word, NOTIFIED), FREE);
}

void isti_waiter_sweep(struct isti_domain *d, uint32_t m) {
    for (uint32_t b = 0; b < d->waiter_buckets; b++) {
        if (!bucket_used(d, b))
            continue;
        for (uint32_t r = 0, high = rows_used(&d->waiter_rows[b]); r < high; r++) {
            struct isti_waiter *row = &d->waiter_rows[b].rows[r];
            uint64_t word;
            /* acquire: pairs with the moves. Not for ever, should a peer write garbage there all the time */
            for (int tries = 0; tries < 8 && (word = atomic_load_explicit(&row->word, memory_order_acquire), state_of(word) != FREE) &&
                                member_of(word) == m;
                 tries++) {
                if (state_of(word) == NOTIFIED) { /* first this, then the row: a sweeper that is killed leaves it to the next */
                    const struct element e = element_of(row);
                    notify(d, &e, 1);
                    IST_POINT(SWEEP_PASSED);
                }
                if (move(row, word, FREE))
                    break; /* else a notifier was faster */
            }
        }
    }
    IST_POINT(SWEEP_WAITERS);
}

uint64_t isti_waiters_count(void) {
    uint64_t n = 0;
    uint32_t at = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&at)) != NULL;)
        for (uint32_t b = 0; b < d->waiter_buckets; b++)
            for (uint32_t r = 0, high = bucket_used(d, b) ? rows_used(&d->waiter_rows[b]) : 0; r < high; r++) {
                uint64_t word = atomic_load_explicit(&d->waiter_rows[b].rows[r].word, memory_order_relaxed); /* relaxed: a snapshot */
                n += state_of(word) == WAITING && member_of(word) == d->me;
            }
    return n;
}
