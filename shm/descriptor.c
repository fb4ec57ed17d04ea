/* descriptor.c: published segments: which processes hold them, and who frees them.
 *
 * A descriptor has a bit per process and one sequenced state word S (control.h). All shared facts are elements of a set with an identity,
 * so writing one twice is harmless and no count can drift. One rule makes it exact (README.md, D1 to D4):
 *
 *   adding a holder    set the bit, then move S on
 *   freeing            read S, look at all bits, compare-exchange S; if anybody was added meanwhile that fails
 *   removing a holder  clear the bit, full fence, then try to free: whoever removed, for whatever reason, has that duty
 *
 * Inside the process one slot at most stands for a descriptor: entry (d) names it, under d's stripe lock, and the slot's count of owners
 * is the only one:   entry d names a slot  <=>  our bit is set   (outside the lock)
 *
 * tests/models/hold.pml and slot.pml are the models; the litmus tests have the pairs of orders.
 */
#include "domain.h"
#include "fork.h"
#include "heap.h"
#include "os.h"
#include "point.h"
#include "sanitizer.h"
#include "segment.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>

#define STRIPES 64u
#define LARGE (UINT64_C(1) << 20) /* from here on a remote freer gives the pages back at once */
#define NEAR 32u                  /* rows looked at before that */
#define BATCH 16u                 /* rows claimed at a time from the unused end of the table */

static pthread_mutex_t publish_locks[STRIPES], stripe_locks[STRIPES];

__attribute__((constructor)) static void make_locks(void) {
    for (uint32_t i = 0; i < STRIPES; i++) {
        pthread_mutex_init(&publish_locks[i], NULL);
        pthread_mutex_init(&stripe_locks[i], NULL);
    }
}

static pthread_mutex_t *stripe_of(const struct isti_domain *d, uint32_t index) { return &stripe_locks[(index + d->number * 7) % STRIPES]; }
static pthread_mutex_t *publish_lock_of(const struct ist_slot *slot) { return &publish_locks[slot->index % STRIPES]; }

void isti_descriptor_fork_lock(void) {
    for (uint32_t i = 0; i < STRIPES; i++)
        pthread_mutex_lock(&publish_locks[i]);
    for (uint32_t i = 0; i < STRIPES; i++)
        pthread_mutex_lock(&stripe_locks[i]);
}

void isti_descriptor_fork_unlock(void) {
    for (uint32_t i = 0; i < STRIPES; i++) {
        pthread_mutex_unlock(&stripe_locks[i]);
        pthread_mutex_unlock(&publish_locks[i]);
    }
}

uint32_t isti_descriptors_high(struct isti_domain *d) { return isti_marked(&d->marks->descriptors, d->descriptors); }

/* ---- bits */

static uint64_t bit_of(uint32_t m) { return UINT64_C(1) << m % 64; }

/* Words of the holders that may be set: those of members below the mark. Read after S, see try_free. */
static uint32_t holder_words(struct isti_domain *d) { return (isti_members_high(d) + 63) / 64; }

/* Others than `without` (d->members: nobody is left out). */
static bool anybody_holds(struct isti_domain *d, struct isti_descriptor *row, uint32_t without) {
    for (uint32_t w = 0, words = holder_words(d); w < words; w++) {
        /* acquire: pairs with the release in unhold: who is gone has done its last access */
        uint64_t word = atomic_load_explicit(&row->holders[w], memory_order_acquire);
        if (without / 64 == w)
            word &= ~bit_of(without);
        if (word != 0)
            return true;
    }
    return false;
}

_Atomic(uint64_t) *isti_length_word(uint64_t desc) {
    const struct isti_domain *d = desc == 0 ? NULL : isti_domain_by_number(isti_desc_domain(desc));
    return d == NULL ? NULL : &d->descriptor_rows[isti_desc_index(desc)].current;
}

uint32_t isti_holders(struct isti_domain *d, uint32_t index) {
    uint32_t n = 0;
    for (uint32_t w = 0; w < ISTI_WORDS; w++) /* relaxed: a snapshot for display */
        n += (uint32_t)__builtin_popcountll(atomic_load_explicit(&d->descriptor_rows[index].holders[w], memory_order_relaxed));
    return n;
}

/* If not, all that hold it are dead, and it goes with the last of them that is swept. */
bool isti_held_by_living(struct isti_domain *d, uint32_t index) {
    for (uint32_t w = 0; w < holder_words(d); w++) {
        /* relaxed: a look; whoever acts on it sweeps, or acquires */
        uint64_t word = atomic_load_explicit(&d->descriptor_rows[index].holders[w], memory_order_relaxed);
        for (; word != 0; word &= word - 1) {
            uint32_t m = w * 64 + (uint32_t)__builtin_ctzll(word);
            if (m < d->members && !isti_member_gone(d, m))
                return true;
        }
    }
    return false;
}

static int hold(struct isti_domain *d, uint32_t index, uint32_t generation, uint64_t *state) {
    struct isti_descriptor *row = &d->descriptor_rows[index];
    atomic_fetch_or_explicit(&row->holders[d->me / 64], bit_of(d->me), memory_order_relaxed); /* relaxed: S's release below orders it */
    IST_POINT(HOLD_SET);
    uint64_t s = atomic_load_explicit(&row->state, memory_order_acquire);
    while (isti_s_live(s) && isti_s_generation(s) == generation) {
        /* acq_rel. release: whoever reads this S sees our bit; acquire: pairs with publish's release, the fields are there */
        uint64_t next = isti_s(generation, isti_s_phase(s), isti_s_x(s) + 1);
        if (atomic_compare_exchange_weak_explicit(&row->state, &s, next, memory_order_acq_rel, memory_order_acquire)) {
            IST_POINT(HOLD_MOVED);
            *state = next;
            return 0;
        }
    }
    IST_POINT(HOLD_REFUSED);
    return -ESTALE;
}

/* Half of unhold, under the stripe lock; after_unhold() has to follow behind it, as freeing may come back for the lock. */
static void clear_bit(struct isti_domain *d, uint32_t index, uint32_t member) {
    /* seq_cst with the fence: of two that clear their bits and then look at each other's, one sees both clear; release: our accesses are
     * done */
    atomic_fetch_and_explicit(&d->descriptor_rows[index].holders[member / 64], ~bit_of(member), memory_order_seq_cst);
    IST_POINT(UNHOLD_CLEARED);
}

static void after_unhold(struct isti_domain *d, uint32_t index) {
    atomic_thread_fence(memory_order_seq_cst);
    IST_POINT(UNHOLD_FENCED);
    isti_try_free(d, index);
}

void isti_unhold(struct isti_domain *d, uint32_t index, uint32_t member) {
    clear_bit(d, index, member);
    after_unhold(d, index);
}

/* ---- freeing */

void isti_row_free(struct isti_domain *d, uint32_t index) {
    pthread_mutex_lock(&d->claim);
    if (d->free_count < d->descriptors) /* a row may be in it twice, if another process had it in between */
        d->free_rows[d->free_count++] = index;
    pthread_mutex_unlock(&d->claim);
}

static bool end_row(struct isti_domain *d, uint32_t index, uint64_t s) {
    /* release: pairs with claim's acquire */
    return atomic_compare_exchange_strong_explicit(&d->descriptor_rows[index].state, &s, isti_s(isti_s_generation(s) + 1, ISTI_FREE, 0),
                                                   memory_order_acq_rel, memory_order_relaxed);
}

bool isti_row_end(struct isti_domain *d, uint32_t index, uint64_t s) {
    bool ours = end_row(d, index, s);
    if (ours)
        isti_row_free(d, index);
    return ours;
}

bool isti_descriptor_lives(struct isti_domain *d, uint32_t index, uint32_t generation) {
    /* relaxed: nothing that belongs to it is read */
    const uint64_t s = index < d->descriptors ? atomic_load_explicit(&d->descriptor_rows[index].state, memory_order_relaxed) : 0;
    return isti_s_live(s) && isti_s_generation(s) == generation;
}

static bool is_our_window(const struct isti_domain *d, uint32_t window) { return isti_window_base(d) != NULL && d->window == window; }

void isti_give_back(struct isti_domain *d, uint32_t index) {
    struct isti_descriptor *row = &d->descriptor_rows[index];
    pthread_mutex_lock(stripe_of(d, index));
    struct isti_given given = d->given[index];
    /* acquire: pairs with try_free's exchange: all holders' accesses are over */
    uint64_t s = atomic_load_explicit(&row->state, memory_order_acquire);
    bool ours = given.block != 0 && isti_s_phase(s) == ISTI_DEAD && d->entries[index].slot == 0;
    if (ours) {
        d->given[index] = (struct isti_given){0};
        /* FREE first, the block afterwards: in the other order whoever finds DEAD could take the memory for this segment's when it is the
         * next one's already */
        ours = end_row(d, index, s);
    }
    pthread_mutex_unlock(stripe_of(d, index));
    if (!ours)
        return;
    IST_POINT(GIVE_FREE);
    isti_row_free(d, index);
    isti_heap_give_back(isti_window_base(d) + (given.block - 1), given.size);
    IST_POINT(GIVE_DONE);
}

/* s → DEAD; s is LIVE with nobody there, or DRAIN of an empty queue. false: somebody was faster. By way of PUNCH where the owner wouldn't
 * see to a large one's pages for long; where it does they are given out again as they are, or decay. */
static bool bury(struct isti_domain *d, uint32_t index, uint64_t s) {
    struct isti_descriptor *row = &d->descriptor_rows[index];
    /* relaxed: constant while S is LIVE, which the exchange checks */
    const uint32_t window = atomic_load_explicit(&row->window, memory_order_relaxed);
    const uint64_t begin = atomic_load_explicit(&row->offset, memory_order_relaxed);
    const uint64_t length = atomic_load_explicit(&row->length, memory_order_relaxed);
    const bool local = (atomic_load_explicit(&row->flags, memory_order_relaxed) & ISTI_PUBLISHED_LOCAL) != 0;
    const bool inside = window < d->windows && begin / d->window_size == window && length <= d->window_size - begin % d->window_size;
    const uint32_t generation = isti_s_generation(s);
    const bool punch = inside && !local && length >= LARGE && !is_our_window(d, window) && !isti_window_attended(d, window);
    const uint64_t dead = isti_s(generation, ISTI_DEAD, 0);
    /* acq_rel. acquire: pairs with every holder's last steps; release: pairs with give_back */
    if (!atomic_compare_exchange_strong_explicit(&row->state, &s, punch ? isti_s(generation, ISTI_PUNCH, d->me) : dead,
                                                 memory_order_acq_rel, memory_order_relaxed))
        return false; /* whoever moved it has the duty now */
    if (local) { /* no memory of the domain: nothing to give back */
        IST_POINT(FREE_LOCAL);
        isti_row_end(d, index, dead);
        return true;
    }
    if (punch) {
        /* Before DEAD: afterwards the pages can be the owner's next segment's. */
        IST_POINT(FREE_PUNCHING);
        isti_window_punch(d, begin, begin + length);
        IST_POINT(FREE_PUNCHED);
        uint64_t was = isti_s(generation, ISTI_PUNCH, d->me);
        /* release: pairs with give_back's acquire: the pages are gone before the block is anybody's */
        if (!atomic_compare_exchange_strong_explicit(&row->state, &was, dead, memory_order_acq_rel, memory_order_relaxed))
            return true;
    }
    IST_POINT(FREE_DEAD);
    if (is_our_window(d, window))
        isti_give_back(d, index);
    else if (window < d->windows)
        isti_hint(d, window, index);
    return true;
}

void isti_row_drained(struct isti_domain *d, uint32_t index, uint32_t generation) { bury(d, index, isti_s(generation, ISTI_DRAIN, d->me)); }

void isti_try_free(struct isti_domain *d, uint32_t index) {
    struct isti_descriptor *row = &d->descriptor_rows[index];
    /* acquire: pairs with the move of S in hold and in isti_flight_mark: a holder or a mark added before this S is seen by the looks
     * below, and with it the mark of members; one added after it makes the exchange fail */
    uint64_t s = atomic_load_explicit(&row->state, memory_order_acquire);
    if (!isti_s_live(s) || anybody_holds(d, row, d->members) || isti_in_flight(d, row))
        return;
    IST_POINT(FREE_SCANNED);
    const uint32_t generation = isti_s_generation(s);
    /* relaxed, both: constant while S is LIVE and nobody is there; the exchange checks it */
    const uint64_t more = atomic_load_explicit(&row->flights[7], memory_order_relaxed);
    const bool queue = (atomic_load_explicit(&row->flags, memory_order_relaxed) & ISTI_PUBLISHED_QUEUE) != 0;
    /* acq_rel: as in bury */
    bool ours = queue ? atomic_compare_exchange_strong_explicit(&row->state, &s, isti_s(generation, ISTI_DRAIN, d->me),
                                                                memory_order_acq_rel, memory_order_relaxed)
                      : bury(d, index, s);
    if (ours && more != 0)
        isti_flights_end(d, index, generation, more);
    if (ours && queue) {
        IST_POINT(DRAIN_BEGUN);
        isti_ring_end(d, index, generation);
    }
}

/* ---- publishing */

/* Rows that processes which are gone knew to be free: a few are looked at before the table is used further. The claim lock is held. */
static void look_for_free(struct isti_domain *d) {
    const uint32_t high = isti_descriptors_high(d);
    for (uint32_t i = 0; i < NEAR && i < high; i++) {
        uint32_t at = d->cursor++ % high;
        if (isti_s_phase(atomic_load_explicit(&d->descriptor_rows[at].state, memory_order_relaxed)) == ISTI_FREE && /* relaxed: a hint */
            d->free_count < d->descriptors)
            d->free_rows[d->free_count++] = at;
    }
}

/* A row in RESV of ours; -ENOSPC. The claim lock is held. */
static int claim_row(struct isti_domain *d, uint32_t *index, uint32_t *generation) {
    if (d->free_count == 0 && d->fresh == d->fresh_end)
        look_for_free(d);
    for (uint32_t looked = 0; looked <= d->descriptors;) {
        uint32_t i;
        if (d->free_count > 0)
            i = d->free_rows[--d->free_count];
        else if (d->fresh < d->fresh_end)
            i = d->fresh++;
        else {
            uint32_t high = isti_descriptors_high(d);
            if (high < d->descriptors) {
                uint32_t end = high + BATCH < d->descriptors ? high + BATCH : d->descriptors;
                /* acq_rel: the mark is raised before any row below it is used, so that a sweep sees every one that is */
                if (atomic_compare_exchange_strong_explicit(&d->marks->descriptors, &high, end, memory_order_acq_rel,
                                                            memory_order_relaxed)) {
                    d->fresh = high;
                    d->fresh_end = end;
                    IST_POINT(PUBLISH_RAISED);
                }
                continue;
            }
            i = d->cursor++ % d->descriptors;
            looked++;
        }
        struct isti_descriptor *row = &d->descriptor_rows[i];
        uint64_t s = atomic_load_explicit(&row->state, memory_order_relaxed); /* relaxed: the exchange checks it */
        if (isti_s_phase(s) != ISTI_FREE || isti_s_generation(s) >= ISTI_DESCRIPTOR_GENERATIONS)
            continue;
        /* acquire: pairs with the release of whoever freed it */
        if (atomic_compare_exchange_strong_explicit(&row->state, &s, isti_s(isti_s_generation(s), ISTI_RESV, d->me), memory_order_acq_rel,
                                                    memory_order_relaxed)) {
            *index = i;
            *generation = isti_s_generation(s);
            return 0;
        }
    }
    return -ENOSPC;
}

int isti_row_claim(struct isti_domain *d, uint32_t *index, uint32_t *generation) {
    pthread_mutex_lock(&d->claim);
    int error = claim_row(d, index, generation);
    pthread_mutex_unlock(&d->claim);
    return error;
}

void isti_row_unclaim(struct isti_domain *d, uint32_t index, uint32_t generation) {
    isti_row_end(d, index, isti_s(generation, ISTI_RESV, d->me));
}

static bool slot_is(const struct ist_slot *slot, uint32_t kind) {
    return (atomic_load_explicit(&slot->meta, memory_order_relaxed) >> 8 & kind) != 0; /* relaxed: constant for an owner */
}

/* Everything about a slot that isn't published and can't change meanwhile: an owner of it is the caller's, or pinned. */
static void fill_row(struct isti_domain *d, struct isti_descriptor *row, struct ist_slot *slot, bool local) {
    char *data = atomic_load_explicit(&slot->data, memory_order_relaxed); /* relaxed, all: ordered by S's release */
    uint64_t offset = local ? 0 : d->window * d->window_size + (uint64_t)(data - isti_window_base(d));
    atomic_store_explicit(&row->offset, offset, memory_order_relaxed);
    atomic_store_explicit(&row->length, atomic_load_explicit(&slot->size, memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(&row->window, local ? d->me : d->window, memory_order_relaxed);
    atomic_store_explicit(&row->current, 0, memory_order_relaxed); /* whoever makes it grows it to its first length */
    const uint32_t kind = isti_slot_is_growable(slot)      ? ISTI_PUBLISHED_GROWABLE
                          : slot_is(slot, ISTI_SLOT_QUEUE) ? ISTI_PUBLISHED_QUEUE
                          : slot_is(slot, ISTI_SLOT_LOCK)  ? ISTI_PUBLISHED_LOCK
                                                           : 0;
    atomic_store_explicit(&row->flags, local ? ISTI_PUBLISHED_LOCAL : kind, memory_order_relaxed);
    isti_flights_clear(row);
    atomic_store_explicit(&row->creator, atomic_load_explicit(&slot->creator, memory_order_relaxed), memory_order_relaxed);
}

/* With the slot's publish lock, the claim lock and all stripe locks (`locked`), or the slot's publish lock alone. */
static int publish(struct isti_domain *d, struct ist_slot *slot, bool locked) {
    /* relaxed: the caller owns a reference; the kind is constant */
    const bool local = (atomic_load_explicit(&slot->meta, memory_order_relaxed) & 0xff) != IST_KIND_HEAP;
    char *data = atomic_load_explicit(&slot->data, memory_order_relaxed);
    char *base = isti_window_base(d);
    if (!local && (base == NULL || (size_t)(data - base) >= d->window_mapped))
        return -ENOTRECOVERABLE; /* of a heap that isn't this process's */
    uint32_t index, generation;
    int error = locked ? claim_row(d, &index, &generation) : isti_row_claim(d, &index, &generation);
    if (error != 0)
        return error;
    IST_POINT(PUBLISH_RESERVED);
    struct isti_descriptor *row = &d->descriptor_rows[index];
    if (!local)
        slot->wrap = NULL; /* nothing is mapped for it alone; create leaves this to whom it matters */
    fill_row(d, row, slot, local);
    IST_POINT(PUBLISH_WRITTEN);
    if (slot_is(slot, ISTI_SLOT_QUEUE)) {
        uint32_t q;
        error = isti_queue_row_claim(d, index, generation, data, &q);
        if (error != 0) {
            if (end_row(d, index, isti_s(generation, ISTI_RESV, d->me)) && !locked)
                isti_row_free(d, index);
            return error;
        }
        atomic_store_explicit(&row->queue, q, memory_order_relaxed); /* relaxed: as in fill_row */
        IST_POINT(QUEUE_ROW_CLAIMED);
    }
    if (!locked)
        pthread_mutex_lock(stripe_of(d, index));
    /* Not a store of the word: a process with a stale token may have its bit there for a moment. relaxed: S's release orders it */
    atomic_fetch_or_explicit(&row->holders[d->me / 64], bit_of(d->me), memory_order_relaxed);
    IST_POINT(PUBLISH_HELD);
    bool frozen = (atomic_load_explicit(&slot->state, memory_order_relaxed) & IST_FROZEN) != 0; /* constant: the publish lock is held */
    uint64_t was = isti_s(generation, ISTI_RESV, d->me);
    /* release: pairs with the acquire in hold: fields and content are there. An exchange, as a peer may have written garbage */
    if (!atomic_compare_exchange_strong_explicit(&row->state, &was, isti_s(generation, frozen ? ISTI_FROZEN : ISTI_LIVE, 0),
                                                 memory_order_acq_rel, memory_order_relaxed))
        error = -EBADMSG;
    else {
        d->entries[index] = (struct isti_entry){.generation = generation, .slot = slot->index + 1};
        if (!local)
            d->given[index] =
                (struct isti_given){.block = (uint64_t)(data - base) + 1, .size = atomic_load_explicit(&slot->size, memory_order_relaxed)};
    }
    IST_POINT(PUBLISH_LIVE);
    if (!locked)
        pthread_mutex_unlock(stripe_of(d, index));
    if (error != 0)
        return error;
    /* release: pairs with the acquire of whoever makes a token without the publish lock */
    atomic_store_explicit(&slot->desc, isti_desc(d->number, index, generation), memory_order_release);
    IST_POINT(PUBLISH_DONE);
    return 0;
}

int isti_publish_locked(struct isti_domain *d, struct ist_slot *slot) { return publish(d, slot, true); }

int isti_publish_as(ist_segment s, uint32_t slot_flag, uint32_t row_flag) {
    /* relaxed, all: nobody else has the segment */
    atomic_fetch_or_explicit(&s.slot->meta, slot_flag << 8, memory_order_relaxed);
    int error = isti_publish(s);
    if (error != 0)
        return error;
    const uint64_t desc = atomic_load_explicit(&s.slot->desc, memory_order_relaxed);
    struct isti_domain *d = isti_domain_by_number(isti_desc_domain(desc));
    if (d == NULL)
        return -ENOTRECOVERABLE;
    return (atomic_load_explicit(&d->descriptor_rows[isti_desc_index(desc)].flags, memory_order_relaxed) & row_flag) != 0 ? 0 : -EAGAIN;
}

int isti_publish(ist_segment s) {
    /* acquire: pairs with publish's store */
    if (atomic_load_explicit(&s.slot->desc, memory_order_acquire) != 0)
        return 0;
    struct isti_domain *d;
    int error = isti_domain_home(&d);
    for (int attempt = 0; error == 0; attempt++) {
        pthread_mutex_lock(publish_lock_of(s.slot));
        if (atomic_load_explicit(&s.slot->desc, memory_order_relaxed) == 0) /* relaxed: under the lock */
            error = publish(d, s.slot, false);
        pthread_mutex_unlock(publish_lock_of(s.slot));
        if (error != -ENOSPC || attempt > 0)
            break;
        isti_sweep_all(); /* the dead may have what is missing */
        isti_window_take_hints(d);
        error = 0;
    }
    if (error == 0) {
        isti_window_take_hints(d);
        isti_housekeeper_watch();
    }
    return error;
}

uint64_t isti_processes_count(void) {
    uint64_t n = 0;
    uint32_t at = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&at)) != NULL;)
        for (uint32_t m = 0, high = isti_members_high(d); m < high; m++) /* relaxed: a snapshot for display */
            n += m == d->me || (atomic_load_explicit(&d->member_rows[m].dirty, memory_order_relaxed) != 0 && isti_member_alive(d, m));
    return n;
}

/* ---- attaching */

struct arrival { /* a slot and a mapping, made outside the locks */
    struct ist_slot *slot;
    struct isti_wrap *wrap;
    void *data;
};

static void drop_arrival(struct arrival *a) {
    if (a->wrap != NULL) {
        isti_os.munmap(a->wrap->mapping, a->wrap->mapping_size);
        isti_os.free(a->wrap);
    }
    if (a->slot != NULL)
        isti_slab_put(isti_thread(), a->slot);
    *a = (struct arrival){0};
}

/* What the row says, copied and bounded; S must be looked at again afterwards. */
static int read_row(struct isti_domain *d, uint32_t index, uint64_t *offset, uint64_t *length) {
    struct isti_descriptor *row = &d->descriptor_rows[index];
    /* relaxed, all: the caller has acquired S, or checks it afterwards */
    if (atomic_load_explicit(&row->flags, memory_order_relaxed) & ISTI_PUBLISHED_LOCAL) /* ours without an entry is about to end */
        return atomic_load_explicit(&row->window, memory_order_relaxed) == d->me ? -ESTALE : -EXDEV;
    uint64_t at = atomic_load_explicit(&row->offset, memory_order_relaxed), n = atomic_load_explicit(&row->length, memory_order_relaxed);
    if (at / d->window_size >= d->windows || n > d->window_size - at % d->window_size || at % ISTI_GRANULE != 0)
        return -EBADMSG;
    *offset = at;
    *length = n;
    return 0;
}

/* The row still says what the mapping was made for. */
static int same_row(struct isti_domain *d, uint32_t index, uint64_t offset, uint64_t length) {
    uint64_t now_offset, now_length;
    int error = read_row(d, index, &now_offset, &now_length);
    return error != 0 ? error : now_offset == offset && now_length == length ? 0 : -ESTALE;
}

static int make_arrival(struct isti_domain *d, uint64_t offset, uint64_t length, struct arrival *a) {
    struct isti_thread *t = isti_thread();
    a->slot = t == NULL ? NULL : isti_slab_take(t);
    if (a->slot == NULL)
        return -ENOMEM;
    void *alone;
    size_t alone_size;
    int error = isti_window_reach(d, offset, length, false, &a->data, &alone, &alone_size);
    if (error == 0 && alone != NULL) {
        a->wrap = isti_os.calloc(1, sizeof *a->wrap);
        if (a->wrap == NULL) {
            isti_os.munmap(alone, alone_size);
            error = -ENOMEM;
        } else
            *a->wrap = (struct isti_wrap){.mapping = alone, .mapping_size = alone_size, .epoch = ist_process_epoch()};
    }
    if (error != 0)
        drop_arrival(a);
    return error;
}

/* The stripe lock is held; our bit is set and (d, generation) is live: the arrival becomes our one slot for it. Takes the arrival. */
static void settle(struct isti_domain *d, uint32_t index, uint32_t generation, uint64_t s, uint64_t length, struct arrival *a,
                   ist_segment *out) {
    struct isti_descriptor *row = &d->descriptor_rows[index];
    a->slot->wrap = a->wrap;
    /* relaxed: constant while LIVE. False flags make the length another, never more than is mapped */
    const uint32_t flags = atomic_load_explicit(&row->flags, memory_order_relaxed);
    isti_slot_begin(a->slot, a->data, length, IST_KIND_HEAP,
                    ((flags & ISTI_PUBLISHED_GROWABLE) != 0 ? ISTI_SLOT_GROWABLE : 0) |
                        ((flags & ISTI_PUBLISHED_QUEUE) != 0 ? ISTI_SLOT_QUEUE : 0) |
                        ((flags & ISTI_PUBLISHED_LOCK) != 0 ? ISTI_SLOT_LOCK : 0));
    /* relaxed: for display */
    atomic_store_explicit(&a->slot->creator, atomic_load_explicit(&row->creator, memory_order_relaxed), memory_order_relaxed);
    d->entries[index] = (struct isti_entry){.generation = generation, .slot = a->slot->index + 1};
    isti_address_replace(a->data, a->slot->index);
    isti_unpoison(a->data, length); /* a child may have inherited the mapping, and a shadow that says what was free at the fork */
    *out = isti_slot_open(a->slot, isti_desc(d->number, index, generation), isti_s_phase(s) == ISTI_FROZEN ? IST_FROZEN : 0);
    *a = (struct arrival){0};
    IST_POINT(ATTACH_DONE);
}

/* The process's own slot, if it has one for (d, g). 1: added; 0: there is none, or it has come to its end; else an error. */
static int acquire_entry(struct isti_domain *d, uint32_t index, uint32_t generation, ist_segment *out, bool *bit_is_set) {
    struct isti_entry entry = d->entries[index];
    *bit_is_set = entry.slot != 0;
    if (entry.slot == 0)
        return 0;
    if (entry.generation != generation)
        return -ESTALE; /* without touching shared memory: the bit there is another segment's */
    struct ist_slot *slot = isti_slab_slot(entry.slot - 1);
    /* acquire: pairs with the slot's opening */
    uint64_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
    int error = isti_slot_add_owner(slot, state, isti_generation(state), out);
    if (error == 0)
        return 1;
    if (error == -ESTALE && (atomic_load_explicit(&slot->meta, memory_order_relaxed) & 0xff) != IST_KIND_HEAP)
        return -ESTALE; /* wrapped memory doesn't come back from its last release, which is ending it */
    return error == -ESTALE ? 0 : error;
}

int isti_descriptor_acquire(struct isti_domain *d, uint32_t index, uint32_t generation, ist_segment *out) {
    if (index >= d->descriptors || generation > ISTI_DESCRIPTOR_GENERATIONS)
        return -EINVAL;
    struct isti_descriptor *row = &d->descriptor_rows[index];
    struct arrival arrival = {0};
    uint64_t offset = 0, length = 0, s;
    int error;
    bool cleared = false;
    for (;;) {
        bool bit_is_set;
        pthread_mutex_lock(stripe_of(d, index));
        int found = acquire_entry(d, index, generation, out, &bit_is_set);
        if (found != 0) {
            error = found < 0 ? found : 0;
            break;
        }
        if (arrival.slot != NULL) {
            error = 0;
            if (bit_is_set) /* our last owner has gone, its release waits for this lock: it will find its slot replaced */
                s = atomic_load_explicit(&row->state, memory_order_acquire); /* acquire: frozen or not, with the content */
            else
                error = hold(d, index, generation, &s);
            if (error == 0)
                error = same_row(d, index, offset, length);
            if (error == 0)
                settle(d, index, generation, s, length, &arrival, out);
            else if (!bit_is_set) { /* the bit may be what kept somebody from freeing */
                clear_bit(d, index, d->me);
                cleared = true;
            }
            break;
        }
        pthread_mutex_unlock(stripe_of(d, index));
        /* acquire: pairs with publish, so that the row read next is of this S or a later one */
        s = atomic_load_explicit(&row->state, memory_order_acquire);
        if (!isti_s_live(s) || isti_s_generation(s) != generation)
            return -ESTALE;
        error = read_row(d, index, &offset, &length);
        if (error == 0)
            error = make_arrival(d, offset, length, &arrival);
        if (error != 0)
            return error;
    }
    pthread_mutex_unlock(stripe_of(d, index));
    drop_arrival(&arrival);
    if (cleared)
        after_unhold(d, index);
    if (error == 0)
        isti_housekeeper_watch();
    return error;
}

int isti_descriptor_readonly(struct isti_domain *d, uint32_t index, size_t size, const void **out) {
    uint64_t offset, length;
    int error = read_row(d, index, &offset, &length);
    if (error != 0 || length != size)
        return error != 0 ? error : -EBADMSG;
    void *data, *alone;
    size_t alone_size;
    error = isti_window_reach(d, offset, length, true, &data, &alone, &alone_size);
    if (error == 0 && alone != NULL) { /* nobody would unmap it */
        isti_os.munmap(alone, alone_size);
        error = -ENOMEM;
    }
    if (error == 0)
        *out = data;
    return error;
}

/* ---- the end */

void isti_descriptor_release(struct ist_slot *slot, uint32_t generation) {
    /* relaxed: behind the acquire fence of the last release */
    const uint64_t desc = atomic_load_explicit(&slot->desc, memory_order_relaxed);
    const uint32_t index = isti_desc_index(desc);
    struct isti_domain *d = isti_domain_by_number(isti_desc_domain(desc));
    bool last = false;
    IST_POINT(RELEASE_COUNTED);
    if (d != NULL) { /* NULL: a child that wasn't handed over; the bit is the parent's */
        pthread_mutex_lock(stripe_of(d, index));
        isti_address_forget(atomic_load_explicit(&slot->data, memory_order_relaxed), slot->index);
        if (d->entries[index].slot == slot->index + 1) {
            d->entries[index] = (struct isti_entry){0};
            last = true;
            if (slot_is(slot, ISTI_SLOT_LOCK)) /* nobody in this process has it any more */
                isti_lock_let_go(d, slot);
            IST_POINT(RELEASE_FORGOTTEN);
            clear_bit(d, index, d->me);
        }
        pthread_mutex_unlock(stripe_of(d, index));
    }
    struct isti_wrap *wrap = slot->wrap;
    slot->wrap = NULL;
    isti_slot_end(slot, isti_thread(), generation);
    if (wrap != NULL) {
        isti_os.munmap(wrap->mapping, wrap->mapping_size);
        isti_os.free(wrap);
    }
    if (last)
        after_unhold(d, index);
}

/* ---- exclusive: decisions that only a sole owner may take. Each is one compare-exchange of owners = 1; for a published segment it comes
 * with a look at the other processes, during which IST_EXCLUSIVE is set. The publish lock is held: it can't become published meanwhile. */

/* owners 1 → `to`. 1: done, and *was is the state before; 0: nothing to do, it is frozen already; else an error. */
static int take_sole(ist_segment s, bool freeze, uint64_t to, uint64_t *was) {
    /* relaxed: the exchange checks it */
    uint64_t sole = atomic_load_explicit(&s.slot->state, memory_order_relaxed);
    if (isti_generation(sole) != s.generation || isti_owners(sole) == 0)
        return -ESTALE;
    if (freeze && (sole & IST_FROZEN) != 0)
        return 0;
    if (isti_owners(sole) != 1)
        return -EBUSY;
    *was = sole;
    /* acquire: pairs with former owners' release decrements, whose writes are then over; release: with later acquires, which see a frozen
     * segment's content. It fails if somebody was faster to become an owner */
    return atomic_compare_exchange_strong_explicit(&s.slot->state, &sole, to, memory_order_acq_rel, memory_order_relaxed) ? 1 : -EBUSY;
}

/* What the state is when it is done: frozen, or writable in the next generation, so that old handles are told apart. */
static uint64_t state_when_done(ist_segment s, bool freeze) {
    return freeze ? isti_state(1, IST_FROZEN, s.generation) : isti_state(1, 0, s.generation + 1);
}

/* Holding both locks: owners 1 → exclusive, then the look at other processes, then one exchange of S. */
static int exclude(struct isti_domain *d, ist_segment s, uint32_t index, uint32_t generation, bool freeze) {
    struct isti_descriptor *row = &d->descriptor_rows[index];
    uint64_t before;
    int taken = take_sole(s, freeze, isti_state(1, IST_EXCLUSIVE, s.generation), &before);
    if (taken != 1)
        return taken;
    IST_POINT(FREEZE_EXCLUSIVE);
    /* acquire: as in try_free */
    uint64_t state = atomic_load_explicit(&row->state, memory_order_acquire);
    int error = !isti_s_live(state) || isti_s_generation(state) != generation ? -EBADMSG
                : anybody_holds(d, row, d->me) || isti_in_flight(d, row)      ? -EBUSY
                                                                              : 0;
    IST_POINT(FREEZE_SCANNED);
    if (error == 0) {
        uint64_t next = freeze ? isti_s(generation, ISTI_FROZEN, isti_s_x(state) + 1) : isti_s(generation + 1, ISTI_LIVE, 0);
        /* acq_rel: as in try_free; a process that attached meanwhile has moved S */
        if (!atomic_compare_exchange_strong_explicit(&row->state, &state, next, memory_order_acq_rel, memory_order_relaxed))
            error = -EBUSY;
    }
    if (error == 0 && !freeze) { /* tokens given out before are void */
        d->entries[index].generation = generation + 1;
        atomic_store_explicit(&s.slot->desc, isti_desc(d->number, index, generation + 1),
                              memory_order_release); /* pairs with isti_publish */
    }
    /* release: pairs with the acquire of later acquires */
    atomic_store_explicit(&s.slot->state, error == 0 ? state_when_done(s, freeze) : before, memory_order_release);
    IST_POINT(FREEZE_DONE);
    return error == 0 ? 1 : error;
}

static int exclude_published(ist_segment s, uint64_t desc, bool freeze) {
    const uint32_t index = isti_desc_index(desc), generation = isti_desc_generation(desc);
    struct isti_domain *d = isti_domain_by_number(isti_desc_domain(desc));
    if (d == NULL)
        return -ENOTRECOVERABLE;
    if (!freeze && generation >= ISTI_DESCRIPTOR_GENERATIONS - 1)
        return -EOVERFLOW;
    pthread_mutex_lock(stripe_of(d, index));
    int error = exclude(d, s, index, generation, freeze);
    pthread_mutex_unlock(stripe_of(d, index));
    return error;
}

int isti_segment_exclusive(ist_segment *s, bool freeze) {
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE; /* a child without handlers: the locks may be held by threads that aren't here. Also below */
    if (slot_is(s->slot, ISTI_SLOT_QUEUE | ISTI_SLOT_LOCK))
        return -EINVAL;
    if (!freeze && s->generation == IST_GENERATION_MASK)
        return -EOVERFLOW;
    pthread_mutex_lock(publish_lock_of(s->slot));
    const uint64_t desc = atomic_load_explicit(&s->slot->desc, memory_order_relaxed); /* relaxed: under the lock */
    uint64_t before;
    int done = desc != 0 ? exclude_published(*s, desc, freeze) : take_sole(*s, freeze, state_when_done(*s, freeze), &before);
    pthread_mutex_unlock(publish_lock_of(s->slot));
    s->generation += done == 1 && !freeze;
    return done > 0 ? 0 : done;
}

int isti_segment_resize(ist_segment s, size_t size) {
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE;
    /* relaxed: constant, the caller owns it */
    if ((atomic_load_explicit(&s.slot->meta, memory_order_relaxed) & 0xff) != IST_KIND_HEAP)
        return -EINVAL;
    pthread_mutex_lock(publish_lock_of(s.slot));
    uint64_t before;
    int error = -EBUSY; /* as its row says how long it is */
    if (atomic_load_explicit(&s.slot->desc, memory_order_relaxed) == 0) { /* relaxed: under the lock */
        int taken = take_sole(s, false, isti_state(1, IST_EXCLUSIVE, s.generation), &before);
        error = taken == 1 ? 0 : taken;
    }
    if (error == 0) {
        if ((before & IST_FROZEN) != 0)
            error = -EBUSY;
        /* relaxed, both: only the owner reads it, and whoever becomes one acquires the state stored below; else it is a snapshot */
        else if (isti_heap_resize(atomic_load_explicit(&s.slot->data, memory_order_relaxed),
                                  (size_t)atomic_load_explicit(&s.slot->size, memory_order_relaxed), size))
            atomic_store_explicit(&s.slot->size, size, memory_order_relaxed);
        else
            error = -ENOSPC;
        /* release: pairs with the acquire of later acquires */
        atomic_store_explicit(&s.slot->state, before, memory_order_release);
    }
    pthread_mutex_unlock(publish_lock_of(s.slot));
    return error;
}
