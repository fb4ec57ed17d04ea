/* test_fork.c: what a child of fork inherits (H2, F1), while no other thread runs. plain_fork has the storms. */
#include "harness.h"
#include "os.h"
#include "slab.h"

#include <criterion/criterion.h>
#include <isthmus/lease.h>
#include <jemalloc/jemalloc.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SMALL = 4096, LARGE = 64, ALL = SMALL + LARGE };
static ist_segment held[ALL];
static uint64_t tags[ALL];

static size_t size_of(int i) { return i < SMALL ? (size_t)i + 1 : (1u << 20) + (size_t)i; }

static void make(int i, uint64_t tag) {
    held[i] = test_create(size_of(i), 0);
    tags[i] = tag;
    test_fill(ist_segment_data(held[i]), size_of(i), tag);
}

static void check_all(const char *when) {
    for (int i = 0; i < ALL; i++)
        if (!ist_segment_is_null(held[i]))
            CHECK(test_filled(ist_segment_data(held[i]), size_of(i), tags[i]), "block %d (%zu bytes) changed %s", i, size_of(i), when);
}

static _Atomic(int) *stage; /* shared; counts the steps that the two sides wait for */

static void wait_for(int value) {
    for (uint64_t deadline = test_now() + 30000000000u; atomic_load_explicit(stage, memory_order_acquire) < value; sched_yield())
        CHECK(test_now() < deadline);
}

/* The child lets go of everything, gives pages back, and allocates 1 to 4096 bytes, several times; then in new generations again. */
static void child_uses_its_own(void *generations) {
    for (int round = 0; round < 3; round++) {
        enum { OWN = 3000 };
        static ist_segment own[OWN];
        for (int half = 0; half < 2; half++) { /* the second half with a heap of the child's own */
            for (int i = 0; i < ALL; i++)
                if (i % 4 / 2 == half) {
                    ist_segment_release(held[i]);
                    held[i] = (ist_segment){0};
                }
            CHECK(round > 0 || half > 0 || ist_heap_size() == 0, "a release has made a heap");
            for (int i = 0; half == 0 && i < OWN; i++) {
                own[i] = test_create(4096, 0);
                test_fill(ist_segment_data(own[i]), 4096, (uint64_t)i);
            }
        }
        for (int i = 0; i < OWN; i++) {
            ist_segment found;
            CHECK(test_filled(ist_segment_data(own[i]), 4096, (uint64_t)i), "releasing the parent's wrote to the child's block %d", i);
            CHECK_EQ(ist_segment_acquire_address(ist_segment_data(own[i]), &found), 0);
            CHECK_EQ(found.index, own[i].index);
            ist_segment_release(found);
            ist_segment_release(own[i]);
        }
        CHECK_EQ(test_stats().segments, 0);
        ist_collect();
        for (int i = 0; i < ALL; i++)
            make(i, 0xC0FFEE0000000000u + (uint64_t)i);
        ist_collect();
        check_all("in the child");
        atomic_fetch_add_explicit(stage, 1, memory_order_release);
    }
    CHECK(ist_heap_size() >= 1 << 20);
    CHECK_EQ(test_stats().segments, ALL);
    if ((intptr_t)generations > 1) {
        CHECK_CHILD(child_uses_its_own, (void *)((intptr_t)generations - 1), 60);
        check_all("by the grandchild");
    }
}

Test(fork, neither_side_disturbs_the_other, .timeout = 120) {
    stage = test_shared(4096);
    uint64_t random = test_seed();
    for (int i = 0; i < ALL; i++)
        make(i, test_random(&random));
    for (int i = 0; i < ALL; i += 2) { /* so that thread cache, slabs and dirty pages have something to give */
        ist_segment_release(held[i]);
        held[i] = (ist_segment){0};
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        child_uses_its_own((void *)2);
        _exit(0);
    }
    for (int round = 0; round < 3; round++) {
        for (int k = 0; k < 3; k++)
            for (int i = 0; i < ALL; i += 2) {
                ist_segment_release(held[i]);
                make(i, test_random(&random));
            }
        check_all("while the child allocated");
        wait_for(round + 1);
        check_all("by the child");
        ist_collect();
    }
    CHECK_EQ(test_wait(child, 60), 0);
    check_all("by the child");
    for (int i = 0; i < ALL; i++) {
        ist_segment found;
        CHECK_EQ(ist_segment_acquire_address(ist_segment_data(held[i]), &found), 0);
        CHECK_EQ(found.index, held[i].index);
        ist_segment_release(found);
        ist_segment_release(held[i]);
    }
    CHECK_EQ(test_stats().segments, 0);
}

/* Whatever makes the child's copy of jemalloc purge (its decay, say, which looks at the clock): the hooks refuse. */
static void child_purges(void *unused) {
    (void)unused;
    wait_for(1); /* the parent uses again what was free at the fork */
    CHECK_EQ(ist_je_mallctl("thread.tcache.flush", NULL, NULL, NULL, 0), 0);
    CHECK_EQ(ist_je_mallctl("arena.4096.purge", NULL, NULL, NULL, 0), 0); /* 4096: all arenas */
}

Test(fork, purges_in_the_child_reach_nothing, .timeout = 60) {
    stage = test_shared(4096);
    for (int i = SMALL; i < ALL; i++)
        make(i, (uint64_t)i);
    for (int i = SMALL; i < ALL; i++) {
        ist_segment_release(held[i]);
        held[i] = (ist_segment){0};
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        child_purges(NULL);
        _exit(0);
    }
    for (int i = SMALL; i < ALL; i++)
        make(i, (uint64_t)i + 1000);
    atomic_store_explicit(stage, 1, memory_order_release);
    CHECK_EQ(test_wait(child, 30), 0);
    check_all("by the child's purge");
    for (int i = SMALL; i < ALL; i++)
        ist_segment_release(held[i]);
}

/* ---- what the child sees */

struct inherited {
    ist_segment plain, wrapped, leased, quiet; /* quiet: nobody has taken its token */
    ist_token token, leased_token, wrapped_token;
    uint64_t number;
    uint8_t domain[16];
    uint32_t epoch, process_epoch;
    int *destroyed;
};

static void destroy(void *ctx, void *data, size_t size) {
    (void)data, (void)size;
    ++*(int *)ctx;
}

static struct inherited inherit(void) {
    struct inherited in = {.destroyed = test_shared(4096)};
    in.plain = test_create(1000, 0);
    in.leased = test_create(2000, 0);
    in.quiet = test_create(3000, 0);
    test_fill(ist_segment_data(in.quiet), 3000, 7);
    static char outside[64];
    CHECK_EQ(ist_segment_wrap(outside, sizeof outside, destroy, in.destroyed, 0, &in.wrapped), 0);
    in.token = test_token(in.plain);
    in.leased_token = test_token(in.leased);
    in.wrapped_token = test_token(in.wrapped);
    CHECK_EQ(ist_lease_take(in.leased, &in.number), 0);
    uint64_t number;
    CHECK_EQ(ist_lease_take(in.wrapped, &number), 0);
    ist_count_in_flight(5);
    CHECK_EQ(ist_domain_id(in.domain), 0);
    in.epoch = ist_epoch();
    in.process_epoch = ist_process_epoch();
    return in;
}

/* The child owns what its parent owned, in the same domain, as a member of its own. */
static void child_looks(void *argument) {
    struct inherited *in = argument;
    CHECK_EQ(ist_epoch(), in->epoch);
    CHECK(ist_process_epoch() != in->process_epoch);
    ist_segment s;
    CHECK_EQ(ist_segment_acquire(&in->token, &s), 0);
    CHECK_EQ(test_owners(in->plain), 2);
    ist_segment_release(s);
    CHECK_EQ(ist_segment_acquire_address(ist_segment_data(in->plain), &s), 0); /* by what is left of the parent's table */
    CHECK_EQ(s.index, in->plain.index);
    CHECK_EQ(ist_segment_resize(s, ist_segment_size(s)), -EBUSY);
    ist_segment_release(s);
    uint8_t domain[16];
    CHECK_EQ(ist_domain_id(domain), 0);
    CHECK_EQ(memcmp(domain, in->domain, 16), 0);
    ist_stats stats = test_stats();
    CHECK_EQ(stats.segments, 4);
    CHECK_EQ(stats.owners, 4); /* the leases' are gone */
    CHECK_EQ(stats.leases + stats.lease_bytes + stats.leases_expired, 0);
    CHECK_EQ(stats.in_flight, 0);
    CHECK_EQ(stats.mapped, 0);
    CHECK_EQ(ist_lease_expire(), 0);
    ist_segment_info info;
    ist_segment_read_info(in->quiet, &info);
    CHECK(info.published && info.processes == 2);
    CHECK(test_filled(ist_segment_data(in->quiet), 3000, 7));
    test_fill(ist_segment_data(in->quiet), 3000, 8);

    s = test_create(100, IST_ZERO);
    ist_token token = test_token(s);
    CHECK_EQ(memcmp(token.bytes, domain, 16), 0);
    uint64_t number;
    CHECK_EQ(ist_lease_take(s, &number), 0);
    ist_segment_release(s);
    CHECK_EQ(ist_lease_load(&token, number, &s), 0);
    ist_segment_release(s);

    ist_segment_release(in->plain);
    ist_segment_release(in->leased);
    ist_segment_release(in->quiet);
    ist_segment_release(in->wrapped);
    CHECK_EQ(*in->destroyed, 0);
    stats = test_stats();
    CHECK_EQ(stats.segments + stats.owners + stats.allocated + stats.leases + stats.misuses + stats.saturated, 0);
    CHECK_EQ(ist_segment_acquire(&in->token, &s), 0); /* the parent holds it */
    ist_segment_release(s);
    CHECK_EQ(ist_segment_acquire(&in->wrapped_token, &s), -EXDEV); /* its memory can't leave the parent */

    int own = 0; /* the child's own destructors do run */
    CHECK_EQ(ist_segment_wrap(&own, sizeof own, destroy, &own, 0, &s), 0);
    ist_segment_release(s);
    CHECK_EQ(own, 1);
}

Test(fork, the_child_owns_what_its_parent_owned) {
    struct inherited in = inherit();
    CHECK_CHILD(child_looks, &in, 30);
    CHECK(test_filled(ist_segment_data(in.quiet), 3000, 8), "what the child wrote isn't here");
    test_fill(ist_segment_data(in.quiet), 3000, 7);
    CHECK_CHILD(child_looks, &in, 30);
    CHECK_EQ(ist_epoch(), in.epoch);
    CHECK_EQ(ist_process_epoch(), in.process_epoch);
    CHECK_EQ(*in.destroyed, 0);
    CHECK_EQ(test_stats().leases, 2);
    CHECK_EQ(test_owners(in.leased), 2);
    ist_sweep();
    ist_segment_info info;
    ist_segment_read_info(in.quiet, &info);
    CHECK_EQ(info.processes, 1);
    ist_segment s;
    CHECK_EQ(ist_lease_load(&in.leased_token, in.number, &s), 0);
    ist_segment_release(s);
    ist_segment_release(in.leased);
    CHECK_EQ(ist_segment_acquire(&in.leased_token, &s), -ESTALE);
    CHECK_EQ(ist_segment_acquire(&in.token, &s), 0);
    ist_segment_release(s);
    ist_segment_release(in.plain);
    ist_segment_release(in.quiet);
}

/* The parent lets go first: the memory stays the child's, until it has let go too. */
static void child_keeps(void *argument) {
    struct inherited *in = argument;
    wait_for(1); /* the parent has released */
    ist_segment_info info;
    ist_segment_read_info(in->quiet, &info);
    CHECK_EQ(info.processes, 1);
    CHECK(test_filled(ist_segment_data(in->quiet), 3000, 7));
    ist_token token = test_token(in->quiet);
    ist_segment_release(in->quiet);
    ist_segment s;
    CHECK_EQ(ist_segment_acquire(&token, &s), -ESTALE);
}

Test(fork, the_child_keeps_what_its_parent_lets_go_of) {
    stage = test_shared(4096);
    struct inherited in = inherit();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        child_keeps(&in);
        _exit(0);
    }
    ist_segment_release(in.quiet);
    for (int i = 0; i < 1000; i++) { /* what was let go of isn't used again while the child holds it */
        ist_segment s = test_create(3000, 0);
        test_fill(ist_segment_data(s), 3000, 99);
        ist_segment_release(s);
    }
    atomic_store_explicit(stage, 1, memory_order_release);
    CHECK_EQ(test_wait(child, 30), 0);
}

/* No room for another process: then nothing is the child's, and the epoch says so. */
static void child_has_nothing(void *argument) {
    struct inherited *in = argument;
    CHECK(ist_epoch() != 0 && ist_epoch() != in->epoch);
    ist_segment_release(in->plain);
    ist_segment_release(in->quiet);
    ist_segment s = test_create(3000, 0); /* in a domain of its own */
    test_fill(ist_segment_data(s), 3000, 1);
    ist_segment_release(s);
    CHECK_EQ(ist_segment_acquire(&in->token, &s), -EXDEV);
}

Test(fork, a_child_for_which_there_is_no_room) {
    ist_options options = {.struct_size = sizeof options, .processes = 1};
    CHECK_EQ(ist_configure(&options), 0);
    struct inherited in = inherit();
    for (int i = 0; i < 3; i++)
        CHECK_CHILD(child_has_nothing, &in, 30);
    CHECK(test_filled(ist_segment_data(in.quiet), 3000, 7));
    ist_segment_info info;
    ist_segment_read_info(in.quiet, &info);
    CHECK_EQ(info.processes, 1);
    CHECK_EQ(info.owners, 1);
}

/* ---- free slots of a thread that was in the middle of something */

static struct isti_thread *theirs;
static ist_segment handed_over;

static void *leaves_a_live_slot_behind(void *unused) {
    (void)unused;
    for (int i = 0; i < 40; i++)
        ist_segment_release(test_create(8, 0));
    handed_over = test_create(8, 0); /* the place in the magazine where it came from still names its slot */
    theirs = isti_local.thread;
    atomic_store_explicit(stage, 1, memory_order_release);
    wait_for(2);
    return NULL;
}

static void child_creates_many(void *unused) {
    (void)unused;
    for (int i = 0; i < 5000; i++) {
        ist_segment s = test_create(8, 0);
        CHECK(s.index != handed_over.index, "the slot of a live segment was handed out again");
    }
    CHECK_EQ(test_owners(handed_over), 1);
}

/* Putting a slot into a magazine is two stores, and compilers do the count first. A fork between them copies a magazine whose last place
 * is what it was before: here the slot of a live segment. */
Test(fork, half_put_slots_are_not_handed_out, .timeout = 60) {
    stage = test_shared(4096);
    pthread_t thread = test_thread(leaves_a_live_slot_behind, NULL);
    wait_for(1);
    CHECK_EQ(theirs->magazine[theirs->free_count] == handed_over.slot, 1);
    theirs->free_count++;
    CHECK_CHILD(child_creates_many, NULL, 30);
    theirs->free_count--;
    atomic_store_explicit(stage, 2, memory_order_release);
    test_join(thread);
    ist_segment_release(handed_over);
    CHECK_EQ(test_stats().segments, 0);
}

/* ---- a child without handlers */

static pid_t raw_clone(void) {
    fflush(NULL);
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
}

Test(fork, a_raw_clone_refuses) {
    struct inherited in = inherit();
    ist_segment extra = test_create(64, 0);
    pid_t child = raw_clone();
    if (child == 0) {
        CHECK_EQ(ist_epoch(), 0);
        ist_segment s;
        uint64_t number;
        uint8_t id[16];
        ist_token token;
        ist_stats stats = {.struct_size = sizeof stats};
        ist_options options = {.struct_size = sizeof options};
        char byte;
        CHECK_EQ(ist_segment_create(64, 0, &s), -ENOTRECOVERABLE);
        CHECK_EQ(ist_segment_create(1 << 20, IST_ZERO, &s), -ENOTRECOVERABLE);
        CHECK_EQ(ist_segment_wrap(&byte, 1, NULL, NULL, 0, &s), -ENOTRECOVERABLE);
        CHECK_EQ(ist_segment_map(0, 0, 1, 0, &s), -ENOTRECOVERABLE);
        CHECK_EQ(ist_segment_freeze(extra), -ENOTRECOVERABLE);
        CHECK_EQ(ist_segment_make_writable(&extra), -ENOTRECOVERABLE);
        CHECK_EQ(ist_segment_resize(extra, 32), -ENOTRECOVERABLE);
        CHECK_EQ(ist_segment_token(in.plain, &token), -ENOTRECOVERABLE);
        CHECK_EQ(ist_segment_acquire(&in.token, &s), -ENOTRECOVERABLE);
        CHECK_EQ(ist_lease_take(in.plain, &number), -ENOTRECOVERABLE);
        CHECK_EQ(ist_lease_load(&in.leased_token, in.number, &s), -ENOTRECOVERABLE);
        CHECK_EQ(ist_domain_id(id), -ENOTRECOVERABLE);
        CHECK_EQ(ist_stats_read(&stats), -ENOTRECOVERABLE);
        CHECK_EQ(ist_configure(&options), -ENOTRECOVERABLE);
        CHECK_EQ(ist_segment_acquire_address(ist_segment_data(in.plain), &s), -ESTALE);
        CHECK_EQ(ist_heap_size(), 0);
        CHECK_EQ(ist_collect(), 0);
        CHECK_EQ(ist_lease_expire(), 0);
        ist_lease_strike(&in.leased_token, in.number);
        CHECK_EQ(test_owners(in.leased), 2); /* it wasn't struck */
        ist_segment_retain(in.plain);
        ist_segment_release(in.plain);
        ist_segment_release(in.plain); /* only the child's private count */
        _exit(0);
    }
    CHECK_EQ(test_wait(child, 30), 0);
    CHECK_EQ(*in.destroyed, 0);
    test_fill(ist_segment_data(in.plain), 1000, 3);
    ist_segment s;
    CHECK_EQ(ist_segment_acquire(&in.token, &s), 0);
    ist_segment_release(s);
    ist_segment_release(extra);
}
