/* window.c: windows of a domain's one sparse data memfd: taking one, reaching others', and giving memory back.
 *
 *   window w is somebody's  <=>  the byte lock ISTI_LOCK_WINDOW + w is held; used[w] = 0 <=> it is all holes and can be had
 *
 * Memory goes back through its window's owner alone (isti_give_back). Whoever frees somebody else's leaves a hint: two levels of bits and
 * a flag; DEAD in the descriptor is the truth, a hint only saves looking, and a sweep raises those that got lost. A window whose owner
 * died is an orphan: it stays while anything in it is held, and whoever gets its lock for a moment gives the rest back.
 */
#include "domain.h"
#include "heap.h"
#include "layout.h"
#include "os.h"
#include "point.h"
#include "segment.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/mman.h>

/* ---- taking one */

uint32_t isti_windows_high(struct isti_domain *d) { return isti_marked(&d->marks->windows, d->windows); }

static int take(struct isti_domain *d, uint32_t w) {
    struct isti_window_row *row = &d->window_rows[w];
    if (atomic_load_explicit(&row->used, memory_order_relaxed) != 0) /* relaxed: a hint, looked at again under the lock */
        return -EAGAIN;
    if (!d->solo) {
        int error = isti_anchor_take(d, ISTI_LOCK_WINDOW + (int64_t)w, false, &d->window_anchor);
        if (error != 0)
            return error;
        IST_POINT(WINDOW_LOCKED);
    }
    /* acquire: pairs with the release in reclaim: the window is punched */
    if (atomic_load_explicit(&row->used, memory_order_acquire) != 0) {
        isti_anchor_drop(d->window_anchor);
        d->window_anchor = NULL;
        return -EAGAIN;
    }
    isti_raise(&d->marks->windows, w + 1);
    IST_POINT(WINDOW_RAISED);
    atomic_store_explicit(&row->attended, 0, memory_order_relaxed); /* relaxed: a hint, of the one before us */
    atomic_store_explicit(&row->used, 1, memory_order_release);     /* pairs with reclaim's acquire */
    IST_POINT(WINDOW_TAKEN);
    d->window = w;
    return 0;
}

static int take_any(struct isti_domain *d) {
    int error = -EAGAIN;
    pthread_mutex_lock(&isti_sweep_mutex); /* for isti_domain_open_again */
    for (uint32_t w = 0; w < d->windows && error == -EAGAIN; w++)
        error = take(d, w);
    pthread_mutex_unlock(&isti_sweep_mutex);
    return error;
}

int isti_window_take(struct isti_domain *d) {
    int error = take_any(d);
    if (error == -EAGAIN) {
        isti_sweep_domain(d); /* the dead may have one */
        error = take_any(d);
    }
    return error == -EAGAIN ? -ENOMEM : error;
}

/* ---- reaching others' */

static char *map_window(struct isti_domain *d, uint32_t w, bool readonly) {
    const int protection = readonly ? PROT_READ : PROT_READ | PROT_WRITE;
    char *base = isti_os.mmap(NULL, d->window_size, protection, MAP_SHARED | MAP_NORESERVE, d->data_fd, (off_t)(w * d->window_size));
    if (base == MAP_FAILED)
        return NULL;
    isti_os.madvise(base, d->window_size, MADV_DONTDUMP); /* as our own: see heap.c */
    char *none = NULL;
    /* acq_rel: a pointer alone, but the loser uses the winner's */
    if (!atomic_compare_exchange_strong_explicit(&d->mapped[readonly][w], &none, base, memory_order_acq_rel, memory_order_acquire)) {
        isti_os.munmap(base, d->window_size);
        base = none;
    } else if (!readonly) /* what is acquired has its address in the writable mapping */
        isti_window_list_others(base, d->window_size);
    return base;
}

int isti_window_reach(struct isti_domain *d, uint64_t offset, uint64_t length, bool readonly, void **out, void **alone,
                      size_t *alone_size) {
    const uint32_t w = (uint32_t)(offset / d->window_size);
    const uint64_t in = offset % d->window_size;
    *alone = NULL;
    char *base = isti_window_base(d);
    if (base != NULL && w == d->window && length <= d->window_mapped && in <= d->window_mapped - length) {
        *out = base + in;
        return 0;
    }
    base = atomic_load_explicit(&d->mapped[readonly][w], memory_order_acquire); /* acquire: pairs with map_window */
    if (base == NULL) {
        if (!isti_domain_has_data(d))
            return -EBADF;
        base = map_window(d, w, readonly);
    }
    if (base != NULL) {
        *out = base + in;
        return 0;
    }
    const uint64_t lead = offset % isti_page_size();
    const size_t size = (size_t)(length + lead + (length == 0));
    void *p = isti_os.mmap(NULL, size, readonly ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, d->data_fd, (off_t)(offset - lead));
    if (p == MAP_FAILED)
        return -ENOMEM;
    *out = (char *)p + lead;
    *alone = p;
    *alone_size = size;
    return 0;
}

int isti_window_reach_row(struct isti_domain *d, uint32_t index, void **out, size_t *size, void **alone, size_t *alone_size) {
    struct isti_descriptor *row = &d->descriptor_rows[index];
    /* relaxed, both: constant while S is LIVE or DRAIN */
    const uint64_t offset = atomic_load_explicit(&row->offset, memory_order_relaxed);
    const uint64_t length = atomic_load_explicit(&row->length, memory_order_relaxed);
    if (offset / d->window_size >= d->windows || length > d->window_size - offset % d->window_size || offset % 64 != 0)
        return -EBADMSG;
    *size = length;
    return isti_window_reach(d, offset, length, false, out, alone, alone_size) == 0
               ? 0
               : -ENOMEM; /* whatever was missing may be there another time */
}

/* ---- hints */

static _Atomic(uint64_t) *summary_of(struct isti_domain *d, uint32_t w) { return d->hints + w * isti_hint_words(d->descriptors); }
static _Atomic(uint64_t) *bits_of(struct isti_domain *d, uint32_t w) { return summary_of(d, w) + d->descriptors / 4096; }

void isti_hint(struct isti_domain *d, uint32_t w, uint32_t index) {
    /* release, all three, from the bits to the flag: who takes the flag finds the summary, who takes that the bit */
    atomic_fetch_or_explicit(&bits_of(d, w)[index / 64], UINT64_C(1) << index % 64, memory_order_release);
    IST_POINT(HINT_BIT);
    atomic_fetch_or_explicit(&summary_of(d, w)[index / 4096], UINT64_C(1) << index / 64 % 64, memory_order_release);
    IST_POINT(HINT_SUMMARY);
    /* an exchange, not a store: that would end the release sequence of somebody else's hint, which its taker then needn't see */
    atomic_exchange_explicit(&d->window_rows[w].hinted, 1, memory_order_release);
    IST_POINT(HINT_DONE);
}

void isti_window_take_hints(struct isti_domain *d) {
    if (isti_window_base(d) == NULL)
        return;
    struct isti_window_row *row = &d->window_rows[d->window];
    /* relaxed: a hint about hints */
    if (atomic_load_explicit(&row->hinted, memory_order_relaxed) == 0 ||
        atomic_exchange_explicit(&row->hinted, 0, memory_order_acquire) == 0) /* acquire, here and below: pairs with isti_hint */
        return;
    _Atomic(uint64_t) *summary = summary_of(d, d->window), *bits = bits_of(d, d->window);
    for (uint32_t i = 0; i < d->descriptors / 4096; i++) {
        if (atomic_load_explicit(&summary[i], memory_order_relaxed) == 0)
            continue;
        for (uint64_t words = atomic_exchange_explicit(&summary[i], 0, memory_order_acquire); words != 0; words &= words - 1) {
            uint32_t word = i * 64 + (uint32_t)__builtin_ctzll(words);
            for (uint64_t left = atomic_exchange_explicit(&bits[word], 0, memory_order_acquire); left != 0; left &= left - 1) {
                IST_POINT(HINTS_TAKEN);
                isti_give_back(d, word * 64 + (uint32_t)__builtin_ctzll(left));
            }
        }
    }
}

void isti_window_attend(struct isti_domain *d, bool yes) {
    if (isti_window_base(d) == NULL)
        return;
    _Atomic(uint32_t) *attended = &d->window_rows[d->window].attended;
    if (atomic_load_explicit(attended, memory_order_relaxed) != yes) /* relaxed, both: a hint */
        atomic_store_explicit(attended, yes, memory_order_relaxed);
}

bool isti_window_attended(struct isti_domain *d, uint32_t w) {
    /* relaxed: a hint. If it is wrong, memory waits for the owner, or for whoever finds it dead */
    return atomic_load_explicit(&d->window_rows[w].attended, memory_order_relaxed) != 0;
}

/* ---- back to the system */

int isti_window_punch(struct isti_domain *d, uint64_t begin, uint64_t end) {
    const uint64_t page = isti_page_size();
    begin = (begin + page - 1) / page * page;
    end = end / page * page;
    if (begin >= end)
        return 0;
    if (!isti_domain_has_data(d))
        return -EBADF;
    return isti_os.fallocate(d->data_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)begin, (off_t)(end - begin)) == 0 ? 0 : -errno;
}

struct range {
    uint64_t begin, end;
};

static int compare_ranges(const void *a, const void *b) {
    const struct range *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static bool in_window(struct isti_domain *d, uint32_t index, uint32_t w) {
    /* relaxed: constant while the row isn't FREE or RESV; the caller has acquired S */
    return atomic_load_explicit(&d->descriptor_rows[index].window, memory_order_relaxed) == w &&
           (atomic_load_explicit(&d->descriptor_rows[index].flags, memory_order_relaxed) & ISTI_PUBLISHED_LOCAL) == 0;
}

/* DEAD → FREE for all of window w; returns how many rows may be holding on to memory there. */
static size_t free_dead(struct isti_domain *d, uint32_t w) {
    size_t held = 0;
    for (uint32_t i = 0, high = isti_descriptors_high(d); i < high; i++) {
        struct isti_descriptor *row = &d->descriptor_rows[i];
        /* acquire: pairs with publish's release */
        uint64_t s = atomic_load_explicit(&row->state, memory_order_acquire);
        isti_phase phase = isti_s_phase(s);
        if (phase == ISTI_FREE || phase == ISTI_RESV || !in_window(d, i, w))
            continue;
        if (phase != ISTI_DEAD)
            held++;
        else if (isti_row_end(d, i, s))
            IST_POINT(RECLAIM_FREED);
    }
    return held;
}

/* What of window w is covered by `held` rows at most, into ranges; rows only go meanwhile, as nobody can publish there. */
static size_t cover(struct isti_domain *d, uint32_t w, struct range *ranges, size_t room) {
    size_t n = 0;
    const uint64_t first = w * d->window_size;
    for (uint32_t i = 0, high = isti_descriptors_high(d); i < high && n < room; i++) {
        struct isti_descriptor *row = &d->descriptor_rows[i];
        uint64_t s = atomic_load_explicit(&row->state, memory_order_acquire); /* acquire: as above */
        isti_phase phase = isti_s_phase(s);
        if (phase == ISTI_FREE || phase == ISTI_RESV || !in_window(d, i, w))
            continue;
        uint64_t begin = atomic_load_explicit(&row->offset, memory_order_relaxed);
        uint64_t length = atomic_load_explicit(&row->length, memory_order_relaxed);
        if (begin < first || begin - first > d->window_size || length > d->window_size - (begin - first))
            continue;
        ranges[n++] = (struct range){begin, begin + length};
    }
    qsort(ranges, n, sizeof *ranges, compare_ranges);
    return n;
}

static void punch_gaps(struct isti_domain *d, uint32_t w, const struct range *ranges, size_t n) {
    uint64_t at = w * d->window_size;
    const uint64_t end = at + d->window_size;
    for (size_t i = 0; i < n; i++) {
        if (ranges[i].begin > at)
            isti_window_punch(d, at, ranges[i].begin);
        at = ranges[i].end > at ? ranges[i].end : at;
    }
    isti_window_punch(d, at, end);
}

/* isti_sweep_mutex is held. */
void isti_window_reclaim(struct isti_domain *d, uint32_t w) {
    struct isti_window_row *row = &d->window_rows[w];
    /* relaxed: looked at again under the lock */
    if (w >= d->windows || (isti_window_base(d) != NULL && w == d->window) || atomic_load_explicit(&row->used, memory_order_relaxed) == 0 ||
        isti_probe_lock(d, ISTI_LOCK_WINDOW + (int64_t)w) != 0)
        return;
    IST_POINT(RECLAIM_LOCKED);
    uint32_t used = atomic_load_explicit(&row->used, memory_order_acquire); /* acquire: pairs with take and the store below */
    if (used == 2 && atomic_load_explicit(&row->hinted, memory_order_relaxed) != 0) /* relaxed: a hint; the next one is seen next time */
        used = 1;
    if (used == 1) {
        /* Before a row is freed: we may die before its memory is punched, and then all of it has to be looked through again. relaxed: the
         * lock orders it */
        atomic_store_explicit(&row->used, 1, memory_order_relaxed);
        atomic_store_explicit(&row->attended, 0, memory_order_relaxed); /* relaxed: a hint */
        atomic_exchange_explicit(&row->hinted, 0, memory_order_acquire); /* acquire: pairs with isti_hint */
        size_t held = free_dead(d, w);
        struct range *ranges = isti_os.calloc(held + 1, sizeof *ranges);
        if (ranges != NULL) {
            size_t n = cover(d, w, ranges, held);
            punch_gaps(d, w, ranges, n);
            IST_POINT(RECLAIM_PUNCHED);
            isti_os.free(ranges);
            atomic_store_explicit(&row->used, held == 0 ? 0 : 2, memory_order_release); /* pairs with take's acquire */
        } else
            atomic_store_explicit(&row->hinted, 1, memory_order_relaxed); /* another time */
        IST_POINT(RECLAIM_DONE);
    }
    isti_probe_unlock(d, ISTI_LOCK_WINDOW + (int64_t)w);
}
