/* control_check.c: see control_check.h. Reads everything by itself rather than through the functions it checks; the two parts of a ticket's
 * word stand here once more for that reason. */
#include "control_check.h"

#include "harness.h"
#include "os.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)

struct range {
    uint64_t begin, end;
    uint32_t index;
};

struct look {
    struct isti_domain *d;
    unsigned asked;
    char *text;
    size_t room;
    uint32_t members, descriptors, windows, tickets, names; /* marks */
    bool alive[ISTI_MEMBERS], owned[ISTI_WINDOWS];
    unsigned live_in[ISTI_WINDOWS];
    struct range *ranges;
    size_t range_count;
};

#define FAIL(l, ...) (snprintf((l)->text, (l)->room, __VA_ARGS__), false)

/* Relaxed, all loads here: the checks come at a quiet moment, or ask only for what can't change any more. */
static uint32_t get32(const _Atomic(uint32_t) *word) { return atomic_load_explicit(word, memory_order_relaxed); }
static uint64_t get64(const _Atomic(uint64_t) *word) { return atomic_load_explicit(word, memory_order_relaxed); }

static bool locked(struct isti_domain *d, int64_t byte) { return isti_os.lock_test(d->control_fd, byte) == 1; }

static bool marks_fit(struct look *l) {
    struct isti_domain *d = l->d;
    l->members = get32(&d->marks->members);
    l->descriptors = get32(&d->marks->descriptors);
    l->windows = get32(&d->marks->windows);
    l->tickets = get32(&d->marks->tickets);
    l->names = get32(&d->marks->names);
    if (l->members > d->members || l->descriptors > d->descriptors || l->windows > d->windows || l->tickets > d->tickets ||
        l->names > d->names)
        return FAIL(l, "a mark lies beyond its table");
    for (uint32_t m = l->members; m < d->members; m++)
        if (get32(&d->member_rows[m].dirty) != 0)
            return FAIL(l, "member %u is dirty beyond the mark", m);
    for (uint32_t w = l->windows; w < d->windows; w++)
        if (get32(&d->window_rows[w].used) != 0)
            return FAIL(l, "window %u is used beyond the mark", w);
    for (uint32_t i = l->descriptors; i < d->descriptors && i < l->descriptors + 16; i++)
        if (get64(&d->descriptor_rows[i].state) != 0)
            return FAIL(l, "descriptor %u is used beyond the mark", i);
    for (uint32_t t = l->tickets; t < d->tickets && t < l->tickets + 128; t++)
        if (get64(&d->ticket_rows[t].word) != 0)
            return FAIL(l, "ticket %u is used beyond the mark", t);
    return true;
}

/* The ticket t waits for whoever loads it; *member took it. */
static bool ticket_waits(struct isti_domain *d, uint32_t t, uint32_t *member) {
    uint64_t word = get64(&d->ticket_rows[t].word);
    *member = (uint32_t)(word & 0xffff);
    return (word >> 16 & 0xff) == ISTI_TICKET_LIVE;
}

static bool in_estate(struct look *l, uint32_t m, uint32_t index) {
    for (uint32_t t = 0; t < l->tickets; t++) {
        uint32_t member;
        if (ticket_waits(l->d, t, &member) && member == m && get32(&l->d->ticket_rows[t].descriptor) == index)
            return true;
    }
    return false;
}

static bool has_estate(struct look *l, uint32_t m) {
    for (uint32_t t = 0; t < l->tickets; t++) {
        uint32_t member;
        if (ticket_waits(l->d, t, &member) && member == m)
            return true;
    }
    return false;
}

static bool members_make_sense(struct look *l) {
    for (uint32_t m = 0; m < l->members; m++) {
        l->alive[m] = locked(l->d, ISTI_LOCK_MEMBER + (int64_t)m);
        bool dirty = get32(&l->d->member_rows[m].dirty) != 0;
        if (l->alive[m] && !dirty && (l->asked & CONTROL_QUIET) != 0)
            return FAIL(l, "member %u lives and isn't dirty", m);
        if (!l->alive[m] && dirty && !has_estate(l, m))
            return FAIL(l, "member %u is dead and wasn't swept", m);
    }
    return true;
}

/* Those that hold row `index` make sense; *count of them. */
static bool holders_make_sense(struct look *l, uint32_t index, unsigned *count) {
    *count = 0;
    for (uint32_t m = 0; m < ISTI_MEMBERS; m++) {
        if ((get64(&l->d->descriptor_rows[index].holders[m / 64]) >> m % 64 & 1) == 0)
            continue;
        ++*count;
        if (m >= l->members)
            return FAIL(l, "descriptor %u is held by %u, beyond the mark", index, m);
        if (!l->alive[m] && !in_estate(l, m, index) && !locked(l->d, ISTI_LOCK_MEMBER + (int64_t)m))
            return FAIL(l, "descriptor %u is held by the dead %u, which has no ticket for it", index, m);
    }
    return true;
}

static bool place_makes_sense(struct look *l, uint32_t index, isti_phase phase) {
    struct isti_descriptor *row = &l->d->descriptor_rows[index];
    uint32_t w = get32(&row->window);
    uint64_t offset = get64(&row->offset), length = get64(&row->length), size = l->d->window_size;
    if (w >= l->windows || offset / size != w || length > size - offset % size || offset % 64 != 0)
        return FAIL(l, "descriptor %u has no place: window %u, offset %#llx, length %#llx", index, w, (unsigned long long)offset,
                    (unsigned long long)length);
    if (get32(&l->d->window_rows[w].used) == 0)
        return FAIL(l, "descriptor %u (phase %d) lies in the free window %u", index, (int)phase, w);
    l->live_in[w]++;
    l->ranges[l->range_count++] = (struct range){offset, offset + (length == 0 ? 1 : length), index};
    return true;
}

/* A mark of (index, generation) that hasn't been passed: a message refers to it. */
static bool message_waits(struct look *l, uint32_t index, uint32_t generation) {
    struct isti_descriptor *row = &l->d->descriptor_rows[index];
    for (unsigned n = 0; n < 1000; n++) {
        for (size_t i = 0; i < 7; i++) {
            uint64_t mark = get64(&row->flights[i]);
            if (mark != 0 && mark >> 48 < l->d->queues && get64(&l->d->queue_rows[mark >> 48].head) < (mark & ((UINT64_C(1) << 48) - 1)))
                return true;
        }
        uint64_t word = get64(&row->flights[7]);
        if (word == 0 || (uint32_t)word - 1 >= l->descriptors)
            return false;
        row = &l->d->descriptor_rows[(uint32_t)word - 1];
        if (get64(&row->state) != isti_s((uint32_t)(word >> 32), ISTI_FLIGHTS, 0) ||
            get64(&row->offset) != ((uint64_t)generation << 32 | (index + 1)))
            return false;
    }
    return false;
}

static bool extension_makes_sense(struct look *l, uint32_t index) {
    const uint64_t target = get64(&l->d->descriptor_rows[index].offset);
    const uint32_t of = (uint32_t)target - 1;
    const uint64_t s = of < l->descriptors ? get64(&l->d->descriptor_rows[of].state) : 0;
    if (!isti_s_live(s) || isti_s_generation(s) != target >> 32)
        return FAIL(l, "descriptor %u is an extension of %u, which is %#llx", index, of, (unsigned long long)s);
    return true;
}

static bool row_makes_sense(struct look *l, uint32_t index) {
    struct isti_descriptor *row = &l->d->descriptor_rows[index];
    const uint64_t s = get64(&row->state);
    const isti_phase phase = isti_s_phase(s);
    const bool quiet = (l->asked & CONTROL_QUIET) != 0;
    unsigned holders;
    if (phase > ISTI_FLIGHTS)
        return FAIL(l, "descriptor %u has no phase: %#llx", index, (unsigned long long)s);
    if ((phase == ISTI_RESV || phase == ISTI_PUNCH || phase == ISTI_DRAIN) &&
        (isti_s_x(s) >= l->members || !l->alive[isti_s_x(s)] || quiet) && !locked(l->d, ISTI_LOCK_MEMBER + (int64_t)isti_s_x(s)))
        return FAIL(l, "descriptor %u is left in phase %d by the dead %u", index, (int)phase, isti_s_x(s));
    if (!holders_make_sense(l, index, &holders))
        return false;
    if (!quiet)
        return true;
    if (phase == ISTI_RESV || phase == ISTI_PUNCH)
        return FAIL(l, "descriptor %u is left in phase %d of %u, which lives and does nothing", index, (int)phase, isti_s_x(s));
    if (phase == ISTI_DEAD)
        return FAIL(l, "descriptor %u is dead and wasn't given back to window %u (used %u, hinted %u, with%s an owner)", index,
                    get32(&row->window), get32(&l->d->window_rows[get32(&row->window) % l->d->windows].used),
                    get32(&l->d->window_rows[get32(&row->window) % l->d->windows].hinted),
                    locked(l->d, ISTI_LOCK_WINDOW + (int64_t)(get32(&row->window))) ? "" : "out");
    if (phase != ISTI_FLIGHTS && phase != ISTI_DRAIN && (phase == ISTI_FREE) != (holders == 0) &&
        (phase == ISTI_FREE || !message_waits(l, index, isti_s_generation(s))))
        return FAIL(l, "descriptor %u in phase %d has %u holders", index, (int)phase, holders);
    if (row->unused != 0)
        return FAIL(l, "descriptor %u has something in a reserved field", index);
    if (phase == ISTI_DRAIN)
        return FAIL(l, "queue %u is held by nobody and isn't empty yet", index);
    if (phase == ISTI_FLIGHTS)
        return extension_makes_sense(l, index);
    const bool growable = (get32(&row->flags) & ISTI_PUBLISHED_GROWABLE) != 0;
    if (phase != ISTI_FREE && get64(&row->current) > (growable ? get64(&row->length) : 0))
        return FAIL(l, "descriptor %u is %llu long of %llu", index, (unsigned long long)get64(&row->current),
                    (unsigned long long)get64(&row->length));
    if (phase == ISTI_FREE || get32(&row->flags) == ISTI_PUBLISHED_LOCAL)
        return true;
    if (get32(&row->flags) != 0 && get32(&row->flags) != ISTI_PUBLISHED_GROWABLE && get32(&row->flags) != ISTI_PUBLISHED_QUEUE &&
        get32(&row->flags) != ISTI_PUBLISHED_LOCK)
        return FAIL(l, "descriptor %u has flags %#x", index, get32(&row->flags));
    return place_makes_sense(l, index, phase);
}

static int by_begin(const void *a, const void *b) {
    const struct range *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static bool ranges_are_apart(struct look *l) {
    if (l->range_count > 0)
        qsort(l->ranges, l->range_count, sizeof *l->ranges, by_begin);
    for (size_t i = 1; i < l->range_count; i++)
        if (l->ranges[i].begin < l->ranges[i - 1].end)
            return FAIL(l, "descriptors %u and %u share memory", l->ranges[i - 1].index, l->ranges[i].index);
    return true;
}

/* A window without an owner has data only where something live is. */
static bool data_is_covered(struct look *l, uint32_t w) {
    const uint64_t begin = w * l->d->window_size, end = begin + l->d->window_size;
    uint64_t at = begin;
    for (size_t i = 0;;) {
        off_t data = isti_os.lseek(l->d->data_fd, (off_t)at, SEEK_DATA);
        if (data < 0 || (uint64_t)data >= end)
            return true;
        at = (uint64_t)data;
        while (i < l->range_count && (l->ranges[i].end + PAGE - 1) / PAGE * PAGE <= at)
            i++;
        if (i == l->range_count || l->ranges[i].begin / PAGE * PAGE > at)
            return FAIL(l, "window %u has no owner, and data at %#llx where nothing lives", w, (unsigned long long)(at - begin));
        at = (l->ranges[i].end + PAGE - 1) / PAGE * PAGE;
    }
}

static bool windows_make_sense(struct look *l) {
    for (uint32_t w = 0; w < l->windows; w++) {
        uint32_t used = get32(&l->d->window_rows[w].used);
        bool owned = locked(l->d, ISTI_LOCK_WINDOW + (int64_t)w);
        if (owned ? used != 1 : used != (l->live_in[w] > 0 ? 2u : 0u))
            return FAIL(l, "window %u is %u, with%s an owner and %u segments", w, used, owned ? "" : "out", l->live_in[w]);
        if (!owned && !data_is_covered(l, w))
            return false;
    }
    return true;
}

static bool tickets_make_sense(struct look *l) {
    for (uint32_t t = 0; t < l->tickets; t++) {
        struct isti_ticket *row = &l->d->ticket_rows[t];
        uint64_t word = get64(&row->word);
        uint32_t state = (uint32_t)(word >> 16 & 0xff), m = (uint32_t)(word & 0xffff), index = get32(&row->descriptor);
        if (state > ISTI_TICKET_LIVE || (state == ISTI_TICKET_FREE && m != 0) || m >= l->members)
            return FAIL(l, "ticket %u is %#llx", t, (unsigned long long)word);
        if (state == ISTI_TICKET_RESV && (!l->alive[m] || (l->asked & CONTROL_QUIET) != 0))
            return FAIL(l, "ticket %u is left half made by %u", t, m);
        if (state != ISTI_TICKET_LIVE || (l->asked & CONTROL_QUIET) == 0)
            continue;
        uint64_t s = index < l->descriptors ? get64(&l->d->descriptor_rows[index].state) : 0;
        if (!isti_s_live(s) || isti_s_generation(s) != get32(&row->generation))
            return FAIL(l, "ticket %u waits for descriptor %u, which is %#llx", t, index, (unsigned long long)s);
        if ((get64(&l->d->descriptor_rows[index].holders[m / 64]) >> m % 64 & 1) == 0)
            return FAIL(l, "ticket %u waits, and its process %u doesn't hold descriptor %u", t, m, index);
    }
    return true;
}

static bool names_make_sense(struct look *l) {
    for (uint32_t i = 0; i < l->names; i++) {
        struct isti_name *row = &l->d->name_rows[i];
        if (get32(&row->version) % 2 == 0 && (get32(&row->length) > ISTI_NAME_LENGTH || get32(&row->size) > sizeof row->bytes))
            return FAIL(l, "name %u has length %u and %u bytes", i, get32(&row->length), get32(&row->size));
    }
    return true;
}

/* In a row's word, see shm/waiter.c. */
static bool waiters_make_sense(struct look *l) {
    for (uint32_t b = 0; b < l->d->waiter_buckets; b++) {
        struct isti_waiter_bucket *bucket = &l->d->waiter_rows[b];
        if ((get64(&l->d->marks->waiter_buckets[b / 64]) >> b % 64 & 1) == 0)
            continue; /* never touched: its page isn't there */
        for (uint32_t r = 0; r < ISTI_WAITERS; r++) {
            uint64_t word = get64(&bucket->rows[r].word);
            uint32_t state = word >> 12 & 15, m = word & 0xfff;
            if (word != 0 && (r >= get32(&bucket->high) || state > 5 || m >= l->members || word >> 16 > get64(&l->d->marks->waits)))
                return FAIL(l, "waiter %u of bucket %u is %#llx", r, b, (unsigned long long)word);
            if (state != 0 && (l->asked & CONTROL_QUIET) != 0 && (!l->alive[m] || (l->asked & CONTROL_EMPTY) != 0))
                return FAIL(l, "waiter %u of bucket %u is left by %u", r, b, m);
        }
    }
    return true;
}

static bool is_empty(struct look *l) {
    if (l->range_count > 0)
        return FAIL(l, "descriptor %u is left", l->ranges[0].index);
    for (uint32_t t = 0; t < l->tickets; t++) {
        uint32_t member;
        if (ticket_waits(l->d, t, &member))
            return FAIL(l, "ticket %u of %u is left", t, member);
    }
    for (uint32_t m = 0; m < l->members; m++)
        if (m != l->d->me && get32(&l->d->member_rows[m].dirty) != 0)
            return FAIL(l, "member %u is left", m);
    struct stat st;
    if (isti_os.fstat(l->d->data_fd, &st) != 0 || st.st_blocks != 0)
        return FAIL(l, "%lld blocks of data are left", (long long)st.st_blocks);
    return true;
}

static bool look(struct look *l) {
    if (!marks_fit(l))
        return false;
    l->ranges = calloc(l->descriptors + 1, sizeof *l->ranges);
    if (l->ranges == NULL || !members_make_sense(l))
        return false;
    for (uint32_t i = 0; i < l->descriptors; i++)
        if (!row_makes_sense(l, i))
            return false;
    if (!tickets_make_sense(l) || !names_make_sense(l) || !waiters_make_sense(l))
        return false;
    if ((l->asked & CONTROL_QUIET) != 0 && (!ranges_are_apart(l) || !windows_make_sense(l)))
        return false;
    return (l->asked & CONTROL_EMPTY) == 0 || is_empty(l);
}

bool control_look(struct isti_domain *d, unsigned asked, char *text, size_t room) {
    struct look *l = calloc(1, sizeof *l);
    snprintf(text, room, "no memory for looking");
    if (l == NULL)
        return false;
    l->d = d;
    l->asked = asked;
    l->text = text;
    l->room = room;
    bool good = look(l);
    free(l->ranges);
    free(l);
    return good;
}

bool control_check(struct isti_domain *d, unsigned asked, char *text, size_t room) {
    for (uint64_t end = test_now() + UINT64_C(1000000000);;) {
        if (control_look(d, asked, text, room))
            return true;
        if (test_now() >= end)
            return false;
        poll(NULL, 0, 2);
    }
}

unsigned control_alive(struct isti_domain *d) {
    unsigned n = 0;
    for (uint32_t m = 0; m < d->members; m++)
        n += locked(d, ISTI_LOCK_MEMBER + (int64_t)m);
    return n;
}

void control_tickets(struct isti_domain *d, void (*each)(uint32_t member, const ist_token *, uint64_t number, void *), void *argument) {
    for (uint32_t t = 0, high = get32(&d->marks->tickets); t < high && t < d->tickets; t++) {
        uint32_t member, descriptor = get32(&d->ticket_rows[t].descriptor), generation = get32(&d->ticket_rows[t].generation);
        uint64_t word = get64(&d->ticket_rows[t].word);
        if (!ticket_waits(d, t, &member))
            continue;
        ist_token token;
        memcpy(token.bytes, d->id, 16);
        memcpy(token.bytes + 16, &descriptor, 4);
        memcpy(token.bytes + 20, &generation, 4);
        each(member, &token, ((word >> 24) + 1) << 20 | t, argument);
    }
}
