/* lease.c: the process's table of the leases it has taken.
 *
 *   a lease  : one counted reference of a segment, and the tickets not yet struck nor run out
 *   a ticket : the number in one pickle, with its deadline; its other half is in the domain (ticket.c), where any process strikes it
 *
 *   a *carried* ticket : stands in a message that lies in another segment, its carrier; it lasts as long as that is published by the same
 *              descriptor, which is looked at whenever its deadline comes, a second ahead each time
 *
 *   a lease is in the table iff it has at least one ticket
 *   a ticket is in the table if it lives in the domain; one that another process struck stays until isti_lease_poll
 *   by_time lists all tickets in the order of their deadlines, by_age all leases in the order of their first ticket
 *
 * One mutex guards it all. References are released after the mutex is left, as that may run destructors; a lease that goes is taken out of
 * the table first, so nobody else can release it. Whoever is short of memory then waits a moment for it (isti_lease_settle).
 */
#include <isthmus/lease.h>

#include "fork.h"
#include "heap.h"
#include "housekeeper.h"
#include "os.h"
#include "point.h"
#include "segment.h"

#include <isthmus/segment_inline.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>

#define DEFAULT_NS UINT64_C(300000000000)
#define MINIMUM_NS UINT64_C(1000000)
#define SETTLE_NS UINT64_C(20000000) /* a destructor may take longer, and may even wait for whoever waits here */
#define LOOK_NS UINT64_C(1000000000) /* between two looks at a carrier */
#define MAXIMUM_NS (UINT64_C(100) * 365 * 24 * 3600 * 1000000000u)

struct lease;

struct ticket {
    uint64_t number, deadline;
    uint64_t carrier; /* its desc (segment.h); 0: none */
    struct lease *lease;
    struct ticket *next_hash;
    struct ticket *earlier, *later;          /* by_time */
    struct ticket *lease_previous, *lease_next; /* of the same lease */
};

struct lease {
    ist_segment segment;
    size_t size;
    struct lease *next_hash;
    struct lease *older, *younger; /* by_age */
    struct ticket *tickets;
    struct lease *next_gone; /* taken out, to be released */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
    struct ticket **tickets; /* hash by number; `buckets` each, a power of two */
    struct lease **leases;   /* hash by slot index */
    size_t buckets, ticket_count, lease_count;
    _Atomic(size_t) carried; /* tickets; written under the mutex */
    struct ticket *earliest, *latest;
    struct lease *oldest, *youngest;
    uint64_t bytes;
    bool inherited; /* in the child of a fork, while it throws away its copy of the parent's */
} table;
static _Atomic(uint32_t) releasing; /* futex: threads that took leases out and haven't released them all */
static _Atomic(uint64_t) expired; /* relaxed: a statistic, written under the mutex, read by anybody */
static _Atomic(uint64_t) duration = DEFAULT_NS; /* relaxed: a setting */

static size_t bucket_of_number(uint64_t number, size_t buckets) { return (size_t)number & (buckets - 1); }
static size_t bucket_of_segment(ist_segment s, size_t buckets) { return s.index & (buckets - 1); }

/* ---- the two hashes */

static int grow(void) {
    if (table.ticket_count < table.buckets)
        return 0;
    size_t buckets = table.buckets == 0 ? 64 : table.buckets * 2;
    struct ticket **tickets = isti_os.calloc(buckets, sizeof *tickets);
    struct lease **leases = isti_os.calloc(buckets, sizeof *leases);
    if (tickets == NULL || leases == NULL) {
        isti_os.free(tickets);
        isti_os.free(leases);
        return table.buckets == 0 ? -ENOMEM : 0; /* longer chains will do */
    }
    for (struct ticket *t = table.earliest; t != NULL; t = t->later) {
        struct ticket **bucket = &tickets[bucket_of_number(t->number, buckets)];
        t->next_hash = *bucket;
        *bucket = t;
    }
    for (struct lease *l = table.oldest; l != NULL; l = l->younger) {
        struct lease **bucket = &leases[bucket_of_segment(l->segment, buckets)];
        l->next_hash = *bucket;
        *bucket = l;
    }
    isti_os.free(table.tickets);
    isti_os.free(table.leases);
    table.tickets = tickets;
    table.leases = leases;
    table.buckets = buckets;
    return 0;
}

static struct lease *find_lease(ist_segment s) {
    struct lease *l = table.leases[bucket_of_segment(s, table.buckets)];
    while (l != NULL && (l->segment.index != s.index || l->segment.generation != s.generation))
        l = l->next_hash;
    return l;
}

static uint64_t desc_of(const struct lease *l) {
    return atomic_load_explicit(&l->segment.slot->desc, memory_order_relaxed); /* relaxed: constant while it has more than one owner */
}

/* Numbers are unique in a domain. */
static struct ticket *find_ticket(uint64_t number, uint64_t desc) {
    if (table.buckets == 0)
        return NULL;
    struct ticket *t = table.tickets[bucket_of_number(number, table.buckets)];
    while (t != NULL && (t->number != number || desc_of(t->lease) != desc))
        t = t->next_hash;
    return t;
}

/* ---- leases and tickets in and out; the mutex is held */

static void add_lease(struct lease *l) {
    struct lease **bucket = &table.leases[bucket_of_segment(l->segment, table.buckets)];
    l->next_hash = *bucket;
    *bucket = l;
    l->older = table.youngest;
    *(l->older != NULL ? &l->older->younger : &table.oldest) = l;
    table.youngest = l;
    table.lease_count++;
    table.bytes += l->size;
}

static void take_out_lease(struct lease *l, struct lease **gone) {
    struct lease **link = &table.leases[bucket_of_segment(l->segment, table.buckets)];
    while (*link != l)
        link = &(*link)->next_hash;
    *link = l->next_hash;
    *(l->older != NULL ? &l->older->younger : &table.oldest) = l->younger;
    *(l->younger != NULL ? &l->younger->older : &table.youngest) = l->older;
    table.lease_count--;
    table.bytes -= l->size;
    l->next_gone = *gone;
    *gone = l;
}

static void enter_by_time(struct ticket *t) {
    /* nearly always the latest, as durations rarely change */
    struct ticket *before = table.latest;
    while (before != NULL && before->deadline > t->deadline)
        before = before->earlier;
    t->earlier = before;
    t->later = before != NULL ? before->later : table.earliest;
    *(before != NULL ? &before->later : &table.earliest) = t;
    *(t->later != NULL ? &t->later->earlier : &table.latest) = t;
}

static void leave_by_time(struct ticket *t) {
    *(t->earlier != NULL ? &t->earlier->later : &table.earliest) = t->later;
    *(t->later != NULL ? &t->later->earlier : &table.latest) = t->earlier;
}

/* relaxed: the mutex orders it for all but isti_lease_uncarry's first look */
static void count_carried(size_t by) { atomic_fetch_add_explicit(&table.carried, by, memory_order_relaxed); }

static void add_ticket(struct ticket *t, struct lease *l) {
    struct ticket **bucket = &table.tickets[bucket_of_number(t->number, table.buckets)];
    t->next_hash = *bucket;
    *bucket = t;
    t->lease = l;
    t->lease_next = l->tickets;
    if (l->tickets != NULL)
        l->tickets->lease_previous = t;
    l->tickets = t;
    enter_by_time(t);
    table.ticket_count++;
    count_carried(t->carrier != 0);
}

/* Takes a ticket out, here and in the domain, and frees it; its lease follows if it was the last one. */
static void strike(struct ticket *t, struct lease **gone) {
    struct lease *l = t->lease;
    struct isti_domain *d = isti_domain_by_number(isti_desc_domain(desc_of(l)));
    if (d != NULL && !table.inherited)
        isti_ticket_drop(d, t->number);
    struct ticket **link = &table.tickets[bucket_of_number(t->number, table.buckets)];
    while (*link != t)
        link = &(*link)->next_hash;
    *link = t->next_hash;
    leave_by_time(t);
    count_carried((size_t)0 - (t->carrier != 0));
    *(t->lease_previous != NULL ? &t->lease_previous->lease_next : &l->tickets) = t->lease_next;
    if (t->lease_next != NULL)
        t->lease_next->lease_previous = t->lease_previous;
    table.ticket_count--;
    isti_os.free(t);
    if (l->tickets == NULL)
        take_out_lease(l, gone);
}

static void count_expired(size_t count) { atomic_fetch_add_explicit(&expired, count, memory_order_relaxed); }

static bool is_under_way(const struct ticket *t) {
    struct isti_domain *d = isti_domain_by_number(isti_desc_domain(t->carrier));
    return d != NULL && isti_descriptor_lives(d, isti_desc_index(t->carrier), isti_desc_generation(t->carrier));
}

static size_t strike_until(uint64_t now, struct lease **gone) {
    size_t count = 0;
    for (struct ticket *t; (t = table.earliest) != NULL && t->deadline <= now;)
        if (t->carrier == 0) {
            strike(t, gone);
            count++;
        } else if (is_under_way(t)) {
            leave_by_time(t);
            t->deadline = now + LOOK_NS;
            enter_by_time(t);
        } else
            strike(t, gone);
    count_expired(count);
    return count;
}

/* What only leases hold stays below a quarter of the heap: the oldest go. Whether another owner is left is only looked at, which is enough
 * here: a lease too many or too few that ends early is a bound kept too well or too badly for a moment, never memory freed too early. */
static bool is_carried(const struct lease *l) {
    const struct ticket *t = l->tickets;
    while (t != NULL && t->carrier == 0)
        t = t->lease_next;
    return t != NULL;
}

static bool is_alone(const struct lease *l) {
    ist_segment_info info;
    ist_segment_read_info(l->segment, &info);
    return info.owners == 1 && !is_carried(l);
}

static void keep_bound(struct lease **gone) {
    uint64_t size = ist_heap_size(), bound = size / 4, alone = 0;
    if (size == 0 || table.bytes <= bound)
        return; /* no heap yet: what is leased is wrapped memory */
    for (struct lease *l = table.oldest; l != NULL; l = l->younger)
        alone += is_alone(l) ? l->size : 0;
    for (struct lease *l = table.oldest, *next; l != NULL && alone > bound; l = next) {
        next = l->younger;
        if (!is_alone(l))
            continue;
        alone -= l->size;
        size_t count = 1;
        for (; l->tickets->lease_next != NULL; count++)
            strike(l->tickets, gone);
        strike(l->tickets, gone); /* and the lease with it */
        count_expired(count);
    }
}

/* What other processes struck out. The walk is over all tickets, but only when somebody has told that there is one. */
static void poll(struct lease **gone) {
    uint32_t at = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&at)) != NULL;) {
        /* acquire: pairs with the release in isti_ticket_tell; the tickets are struck by then */
        uint32_t struck = atomic_load_explicit(&d->member_rows[d->me].struck, memory_order_acquire);
        if (struck == d->struck_seen)
            continue;
        d->struck_seen = struck;
        for (struct ticket *t = table.earliest, *next; t != NULL; t = next) {
            next = t->later;
            if (isti_desc_domain(desc_of(t->lease)) == d->number && !isti_ticket_lives(d, t->number))
                strike(t, gone);
        }
    }
}

/* Leaves the mutex, and releases what was taken out. */
static void leave(struct lease *gone) {
    const bool any = gone != NULL;
    if (any)
        atomic_fetch_add_explicit(&releasing, 1, memory_order_relaxed); /* relaxed: the mutex orders it for whoever finds no lease then */
    pthread_mutex_unlock(&mutex);
    while (gone != NULL) {
        struct lease *next = gone->next_gone;
        ist_segment_release(gone->segment);
        isti_os.free(gone);
        gone = next;
    }
    if (any) {
        atomic_fetch_sub_explicit(&releasing, 1, memory_order_release); /* pairs with settle's acquire: the memory is free by then */
        isti_os.futex_wake(&releasing, INT_MAX);
    }
}

/* ---- public */

/* The mutex is held. Makes what is missing of: room in the hashes, a lease for s, a ticket. Nothing is left behind on failure. */
static int take(ist_segment s, uint64_t carrier, uint64_t now, uint64_t deadline, uint64_t *number, struct lease **gone) {
    if (grow() != 0)
        return -ENOMEM;
    const uint64_t desc = atomic_load_explicit(&s.slot->desc, memory_order_relaxed); /* relaxed: published by the caller, who owns it */
    struct isti_domain *d = isti_domain_by_number(isti_desc_domain(desc));
    if (d == NULL)
        return -ENOTRECOVERABLE;
    struct ticket *t = isti_os.calloc(1, sizeof *t);
    struct lease *l = find_lease(s);
    const bool fresh = l == NULL;
    if (t != NULL && l == NULL) {
        l = isti_os.calloc(1, sizeof *l);
        if (l != NULL) {
            l->segment = s;
            ist_file file; /* what a file has isn't the heap's memory */
            l->size = ist_segment_file(s, &file) == 0 ? 0 : ist_segment_size(s);
            ist_segment_retain(s);
            add_lease(l);
        }
    }
    if (t == NULL || l == NULL) {
        isti_os.free(t);
        return -ENOMEM;
    }
    t->carrier = carrier;
    t->deadline = carrier == 0 ? deadline : now + LOOK_NS;
    int error = isti_ticket_take(d, isti_desc_index(desc), isti_desc_generation(desc), deadline, &t->number);
    if (error == 0) {
        add_ticket(t, l);
        *number = t->number;
        return 0;
    }
    isti_os.free(t);
    if (fresh)
        take_out_lease(l, gone);
    return error;
}

static int take_carried(ist_segment s, uint64_t carrier, uint64_t *number) {
    int error = isti_publish(s);
    if (error != 0)
        return error;
    struct lease *gone = NULL;
    uint64_t now = isti_os.now();
    uint64_t deadline = now + atomic_load_explicit(&duration, memory_order_relaxed); /* relaxed: a setting */
    pthread_mutex_lock(&mutex);
    strike_until(now, &gone);
    poll(&gone);
    error = take(s, carrier, now, deadline, number, &gone);
    keep_bound(&gone);
    leave(gone);
    if (error == 0)
        isti_housekeeper_lease(carrier == 0 ? deadline : now + LOOK_NS);
    return error;
}

int ist_lease_take(ist_segment s, uint64_t *number) { return ist_process_epoch() == 0 ? -ENOTRECOVERABLE : take_carried(s, 0, number); }

int ist_lease_take_carried(ist_segment s, ist_segment carrier, uint64_t *number) {
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE;
    int error = isti_publish(carrier);
    if (error != 0)
        return error;
    /* relaxed: constant, the caller owns it */
    return take_carried(s, atomic_load_explicit(&carrier.slot->desc, memory_order_relaxed), number);
}

void ist_lease_strike(const ist_token *token, uint64_t number) {
    uint32_t index, generation, member;
    struct isti_domain *d = ist_process_epoch() == 0 ? NULL : isti_domain_by_id(token->bytes);
    if (d == NULL)
        return; /* numbers are small: another domain's may well be one of ours */
    memcpy(&index, token->bytes + 16, 4);
    memcpy(&generation, token->bytes + 20, 4);
    if (index >= d->descriptors || !isti_ticket_strike(d, number, index, generation, &member))
        return;
    if (member != d->me) {
        isti_ticket_tell(d, member);
        IST_POINT(TICKET_TOLD);
        return;
    }
    struct lease *gone = NULL;
    pthread_mutex_lock(&mutex);
    struct ticket *t = find_ticket(number, isti_desc(d->number, index, generation));
    if (t != NULL) /* else the child of the fork that took it: its copy is gone */
        strike(t, &gone);
    leave(gone);
}

int ist_lease_load(const ist_token *token, uint64_t number, ist_segment *out) {
    int error = ist_segment_acquire(token, out);
    if (error == 0)
        ist_lease_strike(token, number); /* after the acquire: the lease may hold the last reference */
    return error;
}

size_t ist_lease_expire(void) {
    if (ist_process_epoch() == 0)
        return 0; /* a child without handlers: the mutex may be held by a thread that isn't here */
    struct lease *gone = NULL;
    pthread_mutex_lock(&mutex);
    poll(&gone);
    size_t count = strike_until(isti_os.now(), &gone);
    leave(gone);
    return count;
}

void isti_lease_settle(void) {
    const uint64_t deadline = isti_os.now() + SETTLE_NS;
    for (uint32_t n; (n = atomic_load_explicit(&releasing, memory_order_acquire)) != 0 && isti_os.now() < deadline;)
        isti_os.futex_wait(&releasing, n, deadline);
}

void isti_lease_poll(void) {
    struct lease *gone = NULL;
    pthread_mutex_lock(&mutex);
    poll(&gone);
    leave(gone);
}

void isti_lease_uncarry(void) {
    if (ist_process_epoch() == 0 ||
        atomic_load_explicit(&table.carried, memory_order_relaxed) == 0) /* relaxed: what it is about we counted */
        return;
    struct lease *gone = NULL;
    pthread_mutex_lock(&mutex);
    for (struct ticket *t = table.earliest, *next; t != NULL; t = next) {
        next = t->later;
        if (t->carrier != 0 && !is_under_way(t))
            strike(t, &gone);
    }
    leave(gone);
}

uint64_t ist_lease_set_duration(uint64_t ns) {
    ns = ns < MINIMUM_NS ? MINIMUM_NS : ns > MAXIMUM_NS ? MAXIMUM_NS : ns;
    return atomic_exchange_explicit(&duration, ns, memory_order_relaxed); /* relaxed: a setting */
}

uint64_t ist_lease_expired(void) { return atomic_load_explicit(&expired, memory_order_relaxed); }

uint64_t isti_lease_next_deadline(void) {
    pthread_mutex_lock(&mutex);
    uint64_t deadline = table.earliest != NULL ? table.earliest->deadline : 0;
    pthread_mutex_unlock(&mutex);
    return deadline;
}

void isti_lease_stats(ist_stats *stats) {
    pthread_mutex_lock(&mutex);
    stats->leases = table.lease_count;
    stats->lease_bytes = table.bytes;
    pthread_mutex_unlock(&mutex);
    stats->leases_expired = ist_lease_expired();
}

void isti_lease_fork_prepare(void) { pthread_mutex_lock(&mutex); }

void isti_lease_fork_parent(void) { pthread_mutex_unlock(&mutex); }

/* The parent's leases are the parent's: the child's copies go, and with them only the child's private counts. */
void isti_lease_fork_child(void) {
    struct lease *gone = NULL; /* the forking thread locked the mutex, and is this one */
    table.inherited = true;
    while (table.earliest != NULL)
        strike(table.earliest, &gone);
    table.inherited = false;
    atomic_store_explicit(&releasing, 0, memory_order_relaxed);
    leave(gone);
    atomic_store_explicit(&expired, 0, memory_order_relaxed);
}
