/* test_grow.c: growable segments: reserved and not committed, zero, one length for all, which never shrinks (G1 to G3). */
#include "domain.h"
#include "os.h"
#include "peer.h"
#include "segment.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)
#define MANY_BYTES ((size_t)20 << 20)

TestSuite(grow, .init = board_begin, .timeout = 60);

static ist_segment growable(size_t size, size_t reserved) {
    ist_segment s;
    CHECK_EQ(ist_segment_create_growable(size, reserved, 0, &s), 0);
    return s;
}

static bool is_zero(const char *data, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (data[i] != 0)
            return false;
    return true;
}

Test(grow, in_place_up_to_what_is_reserved) {
    const size_t reserved[] = {0, 1, 63, 64, 100, 4000, 4096, 16000, 16384, 20000, 70001, MIB, 3 * MIB + 5};
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) {
        const size_t all = reserved[i];
        ist_segment s = growable(all / 3, all);
        char *data = ist_segment_data(s);
        CHECK(ist_segment_is_growable(s));
        CHECK_EQ(ist_segment_size(s), all);
        CHECK_EQ(ist_segment_length(s), all / 3);
        memset(data, 0x55, all / 3);
        CHECK_EQ(ist_segment_grow(s, all / 2), 0);
        CHECK_EQ(ist_segment_length(s), all / 2);
        CHECK_EQ(ist_segment_grow(s, all / 4), 0); /* it is that long already */
        CHECK_EQ(ist_segment_length(s), all / 2);
        CHECK_EQ(ist_segment_grow(s, all + 1), -ENOSPC);
        CHECK_EQ(ist_segment_length(s), all / 2);
        CHECK_EQ(ist_segment_grow(s, all), 0);
        CHECK_EQ(ist_segment_length(s), all);
        CHECK(ist_segment_data(s) == data && is_zero(data + all / 3, all - all / 3), "%zu", all);
        ist_segment_release(s);
    }
    CHECK_EQ(test_stats().segments, 0);
}

Test(grow, wrong_use) {
    ist_segment s = {0};
    CHECK_EQ(ist_segment_create_growable(2, 1, 0, &s), -EINVAL);
    CHECK_EQ(ist_segment_create_growable(0, (size_t)PTRDIFF_MAX + 1, 0, &s), -EINVAL);
    CHECK_EQ(ist_segment_create_growable(0, 1, IST_READONLY, &s), -EINVAL);
    CHECK_EQ(ist_segment_create_growable(0, 1, 0, NULL), -EINVAL);
    CHECK_EQ(ist_segment_create_growable(0, PTRDIFF_MAX, 0, &s), -ENOMEM);
    CHECK(s.slot == NULL);
    s = test_create(100, 0);
    CHECK(!ist_segment_is_growable(s));
    CHECK_EQ(ist_segment_length(s), 100);
    CHECK_EQ(ist_segment_grow(s, 100), -EINVAL);
    ist_segment_release(s);
    s = growable(10, 100);
    CHECK_EQ(ist_segment_resize(s, 50), -EBUSY); /* published */
    CHECK_EQ(ist_segment_freeze(s), 0);
    CHECK_EQ(ist_segment_grow(s, 20), -EROFS);
    CHECK_EQ(ist_segment_make_writable(&s), 0);
    CHECK_EQ(ist_segment_grow(s, 20), 0);
    CHECK_EQ(ist_segment_length(s), 20);
    ist_segment_release(s);
    CHECK_EQ(test_stats().segments, 0);
}

/* What others have used is punched, not written: dirty memory of every size class comes back as zeros that nobody pays for. */
Test(grow, recycled_memory_is_zero_and_not_committed) {
    const size_t sizes[] = {100, 10000, 20000, 300000, 8 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int again = 0; again < 3; again++) {
            ist_segment s = test_create(sizes[i], 0);
            memset(ist_segment_data(s), 0xff, sizes[i]);
            const void *before = ist_segment_data(s);
            ist_segment_release(s);
            s = growable(1, sizes[i]);
            CHECK_EQ(ist_segment_length(s), 1); /* whatever the row's last one came to */
            CHECK(TEST_ASAN || ist_segment_data(s) == before); /* ASan: the red zone is another class's */
            CHECK_EQ(ist_segment_grow(s, sizes[i]), 0);
            CHECK(is_zero(ist_segment_data(s), sizes[i]), "%zu", sizes[i]);
            ist_segment_release(s);
        }
    ist_collect();
    ist_segment s = test_create(8 * MIB, 0);
    memset(ist_segment_data(s), 0xff, 8 * MIB);
    ist_segment_release(s);
    s = growable(1, 8 * MIB);
    CHECK(test_stats().mapped < MIB, "%llu", (unsigned long long)test_stats().mapped);
    ist_segment_release(s);
}

Test(grow, a_gigabyte_costs_nothing_until_it_is_touched) {
    enum { MANY = 8 };
    ist_segment s[MANY];
    for (int i = 0; i < MANY; i++)
        s[i] = growable(8, GIB);
    ist_stats stats = test_stats();
    CHECK(stats.mapped < MIB, "%llu", (unsigned long long)stats.mapped);
    CHECK_EQ(stats.allocated, 8 * MANY);
    CHECK_EQ(ist_segment_grow(s[0], GIB), 0);
    ((char *)ist_segment_data(s[0]))[GIB - 1] = 1;
    stats = test_stats();
    CHECK(stats.mapped < MIB, "%llu", (unsigned long long)stats.mapped);
    CHECK_EQ(stats.allocated, 8 * (MANY - 1) + GIB);
    ist_segment_info info;
    ist_segment_read_info(s[1], &info);
    CHECK(info.size == 8 && info.reserved == GIB && info.published);
    for (int i = 0; i < MANY; i++)
        ist_segment_release(s[i]);
    ist_segment pre;
    CHECK_EQ(ist_segment_create_growable(2 * MIB, GIB, IST_PREFAULT, &pre), 0);
    stats = test_stats();
    CHECK(stats.mapped >= 2 * MIB && stats.mapped < 4 * MIB, "%llu", (unsigned long long)stats.mapped);
    ist_segment_release(pre);
}

/* ---- several processes */

static long peer_length(void *unused) {
    (void)unused;
    return (long)ist_segment_length(held);
}

/* To board->size. */
static long peer_grow(void *unused) {
    (void)unused;
    CHECK(ist_segment_is_growable(held));
    return ist_segment_grow(held, board->size);
}

static long peer_attach_growable(void *unused) {
    (void)unused;
    return ist_segment_acquire(&board->token, &held);
}

Test(grow, one_length_for_all_processes) {
    peer p = peer_start(), q = peer_start();
    board_tell_home();
    held = growable(10, 3 * MIB);
    board->token = test_token(held);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&q, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, peer_attach_growable, NULL), 0);
    CHECK_EQ(ist_segment_grow(held, 1000), 0);
    CHECK_EQ(peer_call(&p, peer_length, NULL), 1000);
    board->size = 2 * MIB;
    CHECK_EQ(peer_call(&p, peer_grow, NULL), 0);
    CHECK_EQ(ist_segment_length(held), 2 * MIB);
    CHECK_EQ(peer_call(&q, peer_attach_growable, NULL), 0);
    CHECK_EQ(peer_call(&q, peer_length, NULL), 2 * MIB);
    board->size = 3 * MIB + 1;
    CHECK_EQ(peer_call(&q, peer_grow, NULL), -ENOSPC);
    ist_segment_release(held); /* its maker has let go of it */
    held = (ist_segment){0};
    board->size = 3 * MIB;
    peer_kill(&p);
    CHECK_EQ(peer_call(&q, peer_grow, NULL), 0);
    CHECK_EQ(peer_call(&q, peer_attach_growable, NULL), 0); /* by its own slot: the reference before is lost, and swept */
    CHECK_EQ(peer_call(&q, peer_length, NULL), 3 * MIB);
    peer_kill(&q);
    CHECK(peer_memory_returns(0, 20));
}

/* ---- many at once */

struct race {
    _Atomic(uint64_t) go, finished;
    uint64_t largest[2];
};
static struct race *race;

/* Each grows by steps of its own and sees the length rise, never fall, and never below what it asked for. */
static long grow_at_once(void *argument) {
    const uint64_t me = *(uint64_t *)argument;
    uint64_t random = me * 77 + 1, seen = 0;
    atomic_fetch_add_explicit(&race->go, 1, memory_order_seq_cst);
    while (atomic_load_explicit(&race->go, memory_order_seq_cst) < 2)
        ;
    for (uint64_t asked = 0; asked < MANY_BYTES;) {
        asked += test_random(&random) % 16;
        CHECK_EQ(ist_segment_grow(held, asked), 0);
        uint64_t length = ist_segment_length(held);
        CHECK(length >= asked && length >= seen, "%llu after %llu, asked for %llu", (unsigned long long)length, (unsigned long long)seen,
              (unsigned long long)asked);
        seen = length;
        race->largest[me] = asked;
    }
    return 0;
}

static void *grow_in_a_thread(void *argument) {
    CHECK_EQ(grow_at_once(argument), 0);
    return NULL;
}

Test(grow, the_largest_of_two_threads_wins) {
    race = test_shared(sizeof *race);
    uint64_t names[2] = {0, 1};
    held = growable(0, 2 * MANY_BYTES);
    pthread_t other = test_thread(grow_in_a_thread, &names[1]);
    grow_at_once(&names[0]);
    test_join(other);
    uint64_t largest = race->largest[0] > race->largest[1] ? race->largest[0] : race->largest[1];
    CHECK_EQ(ist_segment_length(held), largest);
    ist_segment_release(held);
}

/* By fork the child has it as well, with the length it has whenever either looks. */
static void child_grows(void *argument) {
    CHECK_EQ(grow_at_once(argument), 0);
    ist_segment_release(held);
}

Test(grow, the_largest_of_two_processes_wins) {
    race = test_shared(sizeof *race);
    uint64_t names[2] = {0, 1};
    held = growable(0, 2 * MANY_BYTES);
    pid_t child = fork();
    if (child == 0) {
        child_grows(&names[1]);
        _exit(0);
    }
    grow_at_once(&names[0]);
    CHECK_EQ(test_wait(child, 30), 0);
    uint64_t largest = race->largest[0] > race->largest[1] ? race->largest[0] : race->largest[1];
    CHECK_EQ(ist_segment_length(held), largest);
    ist_segment_release(held);
    CHECK_EQ(test_stats().segments, 0);
}

/* ---- what others may have written there */

Test(grow, a_length_beyond_what_is_reserved_is_cut) {
    held = growable(10, 100);
    struct isti_domain *d = isti_domain_home_now();
    ist_segment_info info;
    ist_segment_read_info(held, &info);
    struct isti_descriptor *row = &d->descriptor_rows[info.descriptor];
    const uint64_t garbage[] = {101, UINT64_MAX, UINT64_C(1) << 63, 3, 0};
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        atomic_store_explicit(&row->current, garbage[i], memory_order_relaxed);
        CHECK_EQ(ist_segment_length(held), garbage[i] < 100 ? garbage[i] : 100);
        ist_segment_read_info(held, &info);
        CHECK_EQ(info.size, garbage[i] < 100 ? garbage[i] : 100);
        CHECK_EQ(ist_segment_grow(held, 50), 0);
        CHECK_EQ(ist_segment_length(held), garbage[i] < 100 ? 50 : 100);
    }
    ist_segment_release(held);
}

/* ---- failures */

static int refuse_remove(void *address, size_t size, int advice) {
    (void)address, (void)size;
    if (advice == MADV_REMOVE) {
        errno = ENOSYS;
        return -1;
    }
    return madvise(address, size, advice);
}

Test(grow, memory_that_cannot_be_punched_is_not_given_out) {
    ist_segment s = test_create(1, 0), g = {0};
    isti_os.madvise = refuse_remove;
    for (int i = 0; i < 100; i++) /* more than the window has, would they stay */
        CHECK_EQ(ist_segment_create_growable(1, GIB, 0, &g), -ENOMEM);
    CHECK(g.slot == NULL);
    CHECK_EQ(ist_segment_create_growable(1, 100, 0, &g), 0); /* so little is written */
    ist_segment_release(g);
    isti_os.madvise = madvise;
    ist_segment_release(growable(1, 32 * GIB));
    ist_segment_release(s);
    CHECK_EQ(test_stats().segments, 0);
}
