/* test_descriptor.c: published segments between processes: holding, freeing, read-only, and where the memory goes (D1, D2, D5, D6). */
#include "domain.h"
#include "housekeeper.h"
#include "os.h"
#include "peer.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <isthmus/lease.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

TestSuite(descriptor, .init = board_begin, .timeout = 60);

static uint32_t processes(void) {
    ist_segment_info info;
    ist_segment_read_info(held, &info);
    return info.processes;
}

static void offer(size_t size, uint64_t tag) {
    board->size = size;
    board->tag = tag;
    peer_offer(NULL);
}

static void join(peer *p) { CHECK_EQ(peer_call(p, peer_join, board->text), 0); }

/* ---- who holds */

Test(descriptor, the_last_one_frees_whoever_it_is) {
    peer p = peer_start();
    const size_t sizes[] = {0, 1, 64, 5000, 70000, 3 * MIB + 5};
    board_tell_home();
    join(&p);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int first = 0; first < 2; first++) {
            offer(sizes[i], 1 + i);
            CHECK_EQ(processes(), 1);
            CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
            CHECK_EQ(processes(), 2);
            ist_token token = board->token;
            if (first == 0) {
                ist_segment_release(held);
                CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
            } else {
                CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
                CHECK_EQ(processes(), 1);
                ist_segment_release(held);
            }
            held = (ist_segment){0};
            CHECK_EQ(ist_segment_acquire(&token, &held), -ESTALE);
            CHECK_EQ(peer_call(&p, peer_attach, NULL), -ESTALE);
        }
    ist_sweep();
    ist_collect();
    struct isti_domain *d = isti_domain_home_now();
    for (uint32_t i = 0; i < isti_descriptors_high(d); i++) {
        uint64_t s = atomic_load_explicit(&d->descriptor_rows[i].state, memory_order_relaxed);
        CHECK(isti_s_phase(s) == ISTI_FREE && isti_holders(d, i) == 0, "row %u: %#llx", i, (unsigned long long)s);
    }
    CHECK(peer_memory_returns(0, 5));
    peer_end(&p);
}

static long attach_many(void *unused) {
    (void)unused;
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(peer_attach(NULL), 0);
        ist_segment again;
        CHECK_EQ(ist_segment_acquire(&board->token, &again), 0);
        CHECK(again.slot == held.slot, "a process has one slot for a descriptor");
        CHECK_EQ(test_owners(held), 2);
        ist_segment_release(held);
        ist_segment_release(again);
    }
    return (long)test_stats().segments;
}

/* In a peer: what it holds lies in our window, and is found there by any address as long as it is held. */
static long peer_finds_it(void *unused) {
    (void)unused;
    char *data = ist_segment_data(held);
    const size_t size = ist_segment_size(held), probes[] = {0, 1, size / 2, size - 1};
    ist_segment s;
    CHECK_EQ(ist_heap_size(), 0); /* it has no window of its own */
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++) {
        CHECK_EQ(ist_segment_at_address(data + probes[i], &s), 0);
        CHECK_EQ(memcmp(&s, &held, sizeof s), 0);
        ist_segment_release(s);
    }
    CHECK_EQ(ist_segment_acquire_address(data, &s), 0);
    ist_segment_release(s);
    CHECK_EQ(test_owners(held), 1);
    CHECK_EQ(ist_segment_at_address(data + size + 64, &s), -ESTALE);
    ist_segment_release(held);
    held = (ist_segment){0};
    CHECK_EQ(ist_segment_at_address(data, &s), -ESTALE);
    return 0;
}

Test(descriptor, addresses_in_the_window_of_another_process) {
    peer p = peer_start();
    board_tell_home();
    join(&p);
    const size_t sizes[] = {2, 64, 5000, 70000, 3 * MIB + 5};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        offer(sizes[i], 1 + i);
        CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
        CHECK_EQ(peer_call(&p, peer_finds_it, NULL), 0);
        ist_segment s;
        CHECK_EQ(ist_segment_at_address(ist_segment_data(held), &s), 0); /* here it goes on */
        ist_segment_release(s);
        peer_let_go(NULL);
    }
    peer_end(&p);
}

Test(descriptor, attaching_again_and_again) {
    peer p = peer_start();
    offer(100, 3);
    join(&p);
    peer_begin(&p, attach_many, NULL);
    for (int i = 0; i < 100000; i++) { /* meanwhile ours come and go, too */
        ist_segment s;
        CHECK_EQ(ist_segment_acquire(&board->token, &s), 0);
        ist_segment_release(s);
    }
    CHECK_EQ(peer_finish(&p), 0);
    CHECK_EQ(processes(), 1);
    CHECK_EQ(test_owners(held), 1);
    peer_let_go(NULL);
    peer_end(&p);
}

static unsigned entries_of(const char *folder) {
    DIR *directory = opendir(folder);
    unsigned n = 0;
    while (readdir(directory) != NULL)
        n++;
    closedir(directory);
    return n;
}

static unsigned mappings(void) {
    FILE *f = fopen("/proc/self/maps", "r");
    unsigned n = 0;
    for (int c; (c = fgetc(f)) != EOF;)
        n += c == '\n';
    fclose(f);
    return n;
}

enum { MANY = 10000 };
static struct {
    ist_token tokens[MANY];
    unsigned files[2], maps[2];
} *many;

static long attach_all(void *unused) {
    (void)unused;
    static ist_segment s[MANY];
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(ist_segment_acquire(&many->tokens[i], &s[i]), 0);
        CHECK_EQ(*(int *)ist_segment_data(s[i]), i);
        if (i == 10 || i == MANY - 1) {
            many->files[i != 10] = entries_of("/proc/self/fd");
            many->maps[i != 10] = mappings();
        }
    }
    for (int i = 0; i < MANY; i++)
        ist_segment_release(s[i]);
    return 0;
}

Test(descriptor, ten_thousand_on_two_descriptors) {
    many = test_shared(sizeof *many);
    peer p = peer_start();
    board_tell_home();
    join(&p);
    static ist_segment s[MANY];
    for (int i = 0; i < MANY; i++) {
        s[i] = test_create(i % 100 == 0 ? 100000 : 200, 0);
        *(int *)ist_segment_data(s[i]) = i;
        many->tokens[i] = test_token(s[i]);
    }
    CHECK_EQ(peer_call(&p, attach_all, NULL), 0);
    CHECK_EQ(many->files[0], many->files[1]);
    CHECK(many->maps[1] <= many->maps[0] + 4, "%u mappings, then %u", many->maps[0], many->maps[1]); /* malloc's and the slots' */
    for (int i = 0; i < MANY; i++)
        ist_segment_release(s[i]);
    CHECK_EQ(test_stats().published, 0);
    peer_end(&p);
}

static int refuse_windows; /* by mmap */
static struct isti_os real;
static void *no_windows(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    if (size >= isti_domain_home_now()->window_size && refuse_windows) {
        errno = ENOMEM;
        return (void *)-1;
    }
    return real.mmap(address, size, protection, flags, fd, offset);
}

static long attach_alone(void *unused) {
    (void)unused;
    real = isti_os;
    refuse_windows = 1;
    isti_os.mmap = no_windows;
    CHECK_EQ(peer_attach(NULL), 0);
    CHECK_EQ(peer_let_go(NULL), 0);
    unsigned before = mappings(); /* the housekeeper's stack is there now */
    CHECK_EQ(peer_attach(NULL), 0);
    CHECK(mappings() > before);
    CHECK_EQ(peer_let_go(NULL), 0);
    CHECK(TEST_ASAN || mappings() == before); /* there malloc's own come and go */
    refuse_windows = 0;
    return 0;
}

Test(descriptor, a_window_that_cannot_be_mapped_whole) {
    peer p = peer_start();
    ist_segment pad = test_create(100, 0);
    offer(5000, 8); /* somewhere inside a page */
    join(&p);
    CHECK_EQ(peer_call(&p, attach_alone, NULL), 0);
    CHECK_EQ(processes(), 1);
    peer_let_go(NULL);
    ist_segment_release(pad);
    peer_end(&p);
}

/* ---- bits of the dead, and of those who came too late */

Test(descriptor, killed_holders) {
    peer p = peer_start(), q = peer_start();
    offer(2 * MIB, 4);
    join(&p);
    join(&q);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    CHECK_EQ(peer_call(&q, peer_attach, NULL), 0);
    CHECK_EQ(processes(), 3);
    peer_kill(&p);
    CHECK_EQ(ist_sweep(), 1);
    CHECK_EQ(processes(), 2);
    ist_segment_release(held);
    peer_kill(&q); /* the last holder: the sweep frees it, and it comes back to its window, which is ours */
    CHECK_EQ(ist_sweep(), 1);
    CHECK_EQ(ist_segment_acquire(&board->token, &held), -ESTALE);
    CHECK(peer_memory_returns(0, 5));
}

static bool attended(void *yes) {
    struct isti_domain *d = isti_domain_home_now();
    return isti_window_attended(d, d->window) == *(bool *)yes;
}

static long punches;
static int count_fallocate(int fd, int mode, off_t offset, off_t size) {
    punches++;
    return fallocate(fd, mode, offset, size);
}
static long count_punches_of_letting_go(void *unused) {
    isti_os.fallocate = count_fallocate;
    return peer_let_go(unused) == 0 ? punches : -1;
}

Test(descriptor, a_large_one_is_left_to_its_owners_housekeeper) {
    peer p = peer_start();
    offer(8 * MIB, 4);
    join(&p);
    CHECK(test_until(attended, &(bool){true}, 20));
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    ist_segment_release(held);
    CHECK_EQ(peer_call(&p, count_punches_of_letting_go, NULL), 0);
    CHECK(peer_memory_returns(MIB, 20), "nobody sees to what another process let go of");
    isti_housekeeper_disable();
    CHECK(test_until(attended, &(bool){false}, 20));
    offer(8 * MIB, 4);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    ist_segment_release(held);
    CHECK_EQ(peer_call(&p, count_punches_of_letting_go, NULL), 1);
    peer_end(&p);
}

static long disable_and_offer(void *unused) {
    isti_housekeeper_disable();
    return peer_offer(unused);
}

Test(descriptor, a_window_is_not_attended_when_its_owner_was_killed) {
    peer p = peer_start(), q = peer_start();
    board->size = 100;
    board_tell_home();
    join(&p);
    join(&q);
    CHECK_EQ(peer_call(&p, peer_offer, NULL), 0);
    struct isti_domain *d = isti_domain_home_now();
    atomic_store_explicit(&d->window_rows[0].attended, 1, memory_order_relaxed); /* whether its housekeeper came to that or not */
    CHECK_EQ(peer_attach(NULL), 0);
    peer_kill(&p);
    CHECK_EQ(ist_sweep(), 1);
    CHECK(!isti_window_attended(d, 0));
    peer_let_go(NULL);
    ist_sweep();
    atomic_store_explicit(&d->window_rows[0].attended, 1, memory_order_relaxed);
    CHECK_EQ(peer_call(&q, disable_and_offer, NULL), 0); /* in the window that is free again */
    CHECK(!isti_window_attended(d, 0));
    peer_end(&q);
}

Test(descriptor, a_large_one_is_punched_by_who_frees_it) {
    peer p = peer_start();
    offer(8 * MIB, 4);
    join(&p);
    isti_housekeeper_disable();
    CHECK(test_until(attended, &(bool){false}, 20));
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    ist_segment_release(held);
    CHECK(!peer_memory_returns(7 * MIB, 0));
    CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
    CHECK(peer_memory_returns(MIB, 0), "its pages stay until we call something");
    peer_end(&p);
}

Test(descriptor, an_orphaned_window_gives_back_what_nobody_holds) {
    peer p = peer_start(), q = peer_start();
    board->size = 64 * 1024;
    board->tag = 5;
    board_tell_home();
    join(&p);
    join(&q);
    CHECK_EQ(peer_call(&p, peer_offer, NULL), 0);
    CHECK_EQ(peer_attach(NULL), 0);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(peer_call(&p, peer_offer, NULL), 0); /* 20 more that only p holds: it forgets them */
    board->token = test_token(held);
    struct isti_domain *d = isti_domain_home_now();
    peer_kill(&p);
    CHECK_EQ(ist_sweep(), 1);
    CHECK(test_filled(ist_segment_data(held), board->size, 5));
    CHECK(peer_memory_returns(board->size + 8192, 0), "only what is held stays");
    CHECK_EQ(atomic_load_explicit(&d->window_rows[0].used, memory_order_relaxed), 2);
    CHECK_EQ(peer_call(&q, peer_attach, NULL), 0); /* it can still be attached to */
    ist_segment_release(held);
    CHECK_EQ(peer_call(&q, peer_let_go, NULL), 0);
    ist_sweep();
    CHECK(peer_memory_returns(0, 0));
    CHECK_EQ(atomic_load_explicit(&d->window_rows[0].used, memory_order_relaxed), 0);
    board->size = 100;
    CHECK_EQ(peer_call(&q, peer_offer, NULL), 0); /* in the window that is free again */
    CHECK_EQ(peer_attach(NULL), 0);
    ist_segment_info info;
    ist_segment_read_info(held, &info);
    CHECK_EQ(atomic_load_explicit(&d->descriptor_rows[info.descriptor].window, memory_order_relaxed), 0);
    ist_segment_release(held);
    peer_end(&q);
}

/* The bits of a descriptor are several words: those beyond the first count as much. */
Test(descriptor, a_holder_with_a_high_number) {
    enum { PEERS = 66 };
    static peer p[PEERS];
    for (int i = 0; i < PEERS; i++)
        p[i] = peer_start();
    offer(100, 7);
    for (int i = 0; i < PEERS; i++)
        join(&p[i]);
    peer *last = &p[PEERS - 1];
    CHECK_EQ(peer_call(last, peer_attach, NULL), 0);
    CHECK_EQ(ist_segment_freeze(held), -EBUSY);
    peer_let_go(NULL);
    CHECK_EQ(peer_attach(NULL), 0); /* it lives, by that one */
    CHECK_EQ(processes(), 2);
    peer_let_go(NULL);
    peer_kill(last);
    CHECK_EQ(ist_sweep(), 1);
    CHECK_EQ(peer_attach(NULL), -ESTALE);
    for (int i = 0; i < PEERS - 1; i++)
        peer_end(&p[i]);
}

/* ---- freeze and make_writable see other processes */

Test(descriptor, exclusive_means_in_all_processes) {
    peer p = peer_start();
    offer(100, 6);
    join(&p);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    CHECK_EQ(ist_segment_freeze(held), -EBUSY);
    CHECK_EQ(ist_segment_make_writable(&held), -EBUSY);
    CHECK(!ist_segment_is_frozen(held) && test_owners(held) == 1);
    CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
    CHECK_EQ(ist_segment_freeze(held), 0);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0); /* the token is good, and so it stays frozen */
    CHECK_EQ(ist_segment_make_writable(&held), -EBUSY);
    CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
    CHECK_EQ(ist_segment_make_writable(&held), 0);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), -ESTALE); /* void */
    board->token = test_token(held);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
    peer_let_go(NULL);
    peer_end(&p);
}

static long is_frozen(void *unused) {
    (void)unused;
    return ist_segment_is_frozen(held);
}

static long write_readonly(void *unused) {
    (void)unused;
    const void *data = NULL;
    real = isti_os;
    refuse_windows = 1;
    isti_os.mmap = no_windows;
    CHECK_EQ(ist_segment_data_readonly(held, &data), -ENOMEM);
    CHECK(data == NULL); /* rather than what can be written */
    isti_os = real;
    CHECK_EQ(ist_segment_data_readonly(held, &data), 0);
    CHECK(data != ist_segment_data(held) && test_filled(data, board->size, board->tag));
    *(volatile char *)(uintptr_t)data = 1;
    return 0;
}

Test(descriptor, read_only_data_cannot_be_written) {
    peer p = peer_start();
    offer(100, 6);
    join(&p);
    CHECK_EQ(ist_segment_freeze(held), 0);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    CHECK_EQ(peer_call(&p, is_frozen, NULL), 1);
    const void *own;
    CHECK_EQ(ist_segment_data_readonly(held, &own), 0);
    CHECK(own == ist_segment_data(held)); /* ours is as it is */
    peer_begin(&p, write_readonly, NULL);
    int status = test_wait(p.pid, 30);
    CHECK(TEST_ASAN || (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV), "wait status %#x", status);
    CHECK(status != 0);
    CHECK(test_filled(ist_segment_data(held), board->size, board->tag));
    peer_let_go(NULL);
}

/* ---- limits, and what can't travel */

Test(descriptor, a_full_table) {
    ist_options options = {.struct_size = sizeof options, .published = 4096};
    CHECK_EQ(ist_configure(&options), 0);
    static ist_segment s[4096];
    ist_token token;
    for (int i = 0; i < 4096; i++) {
        s[i] = test_create(8, 0);
        token = test_token(s[i]);
    }
    ist_segment more = test_create(8, 0);
    CHECK_EQ(ist_segment_token(more, &token), -ENOSPC);
    uint64_t number;
    CHECK_EQ(ist_lease_take(more, &number), -ENOSPC);
    CHECK_EQ(test_owners(more), 1);
    ist_segment_release(s[1000]);
    token = test_token(more);
    ist_segment_release(more);
    for (int i = 0; i < 4096; i++)
        if (i != 1000)
            ist_segment_release(s[i]);
    CHECK_EQ(test_stats().segments, 0);
}

Test(descriptor, a_full_table_of_the_dead) {
    peer p = peer_start();
    ist_options options = {.struct_size = sizeof options, .published = 4096};
    CHECK_EQ(ist_configure(&options), 0);
    isti_housekeeper_disable();
    board_tell_home();
    join(&p);
    board->size = 8;
    for (int i = 0; i < 4096 - 16; i++)
        CHECK_EQ(peer_call(&p, peer_offer, NULL), 0);
    peer_kill(&p);
    static ist_segment s[4000];
    for (int i = 0; i < 4000; i++) {
        s[i] = test_create(8, 0);
        test_token(s[i]);
    }
    for (int i = 0; i < 4000; i++)
        ist_segment_release(s[i]);
}

static void destroy(void *ctx, void *data, size_t size) {
    (void)data, (void)size;
    ++*(int *)ctx;
}

Test(descriptor, wrapped_memory_stays_in_its_process) {
    peer p = peer_start();
    board_tell_home();
    join(&p);
    static char outside[64];
    int destroyed = 0;
    CHECK_EQ(ist_segment_wrap(outside, sizeof outside, destroy, &destroyed, 0, &held), 0);
    board->token = test_token(held);
    ist_segment s;
    CHECK_EQ(ist_segment_acquire(&board->token, &s), 0);
    ist_segment_release(s);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), -EXDEV);
    peer_let_go(NULL);
    CHECK_EQ(destroyed, 1);
    CHECK_EQ(ist_segment_acquire(&board->token, &s), -ESTALE);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), -ESTALE);
    peer_end(&p);
}

static long time_attach(void *unused) {
    (void)unused;
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 200; i++) {
        uint64_t begin = test_now();
        CHECK_EQ(ist_segment_acquire(&board->token, &held), 0);
        ist_segment_release(held);
        uint64_t took = test_now() - begin;
        best = took < best ? took : best;
    }
    return (long)best;
}

Test(descriptor, a_gibibyte_takes_no_longer) {
    peer p = peer_start();
    offer(64, 1);
    join(&p);
    long small = peer_call(&p, time_attach, NULL);
    peer_let_go(NULL);
    held = test_create((size_t)1 << 30, 0);
    board->token = test_token(held);
    long large = peer_call(&p, time_attach, NULL);
    CHECK(TEST_ASAN || large < 20 * small + 20000, "%ld ns, and %ld ns for 1 GiB", small, large); /* there all of it is poisoned */
    peer_let_go(NULL);
    peer_end(&p);
}
