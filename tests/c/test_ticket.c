/* test_ticket.c: leases across processes (T1, L2): loaded elsewhere, once, before and after the end of who took them. */
#include "domain.h"
#include "peer.h"

#include <criterion/criterion.h>
#include <isthmus/lease.h>
#include <string.h>
#include <unistd.h>

TestSuite(ticket, .init = board_begin, .timeout = 60);

/* Pickles what it offers and lets go of it. */
static long post(void *unused) {
    (void)unused;
    peer_offer(NULL);
    CHECK_EQ(ist_lease_take(held, &board->number), 0);
    return peer_let_go(NULL);
}

static long load(void *unused) {
    (void)unused;
    int error = ist_lease_load(&board->token, board->number, &held);
    if (error == 0)
        CHECK(test_filled(ist_segment_data(held), board->size, board->tag));
    return error;
}

static void begin(size_t size, uint64_t tag) {
    board->size = size;
    board->tag = tag;
    board_tell_home();
}

static bool nothing_leased(void *unused) {
    (void)unused;
    ist_stats stats = test_stats();
    return stats.leases == 0 && stats.segments == 0;
}

Test(ticket, loaded_by_another_process) {
    peer p = peer_start();
    begin(3000, 4);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(post(NULL), 1);
    CHECK_EQ(test_stats().leases, 1);
    CHECK_EQ(peer_call(&p, load, NULL), 0);
    CHECK(test_until(nothing_leased, NULL, 5), "we aren't told that it was loaded");
    CHECK_EQ(test_stats().leases_expired, 0);
    CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
    CHECK_EQ(load(NULL), -ESTALE);
    CHECK_EQ(peer_call(&p, load, NULL), -ESTALE);
    peer_end(&p);
}

Test(ticket, loaded_when_its_process_is_dead) {
    peer p = peer_start(), q = peer_start();
    begin(3000, 4);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&q, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, post, NULL), 1);
    peer_kill(&p);
    for (int i = 0; i < 10; i++)
        CHECK_EQ(ist_sweep(), 0); /* its estate isn't settled */
    CHECK_EQ(peer_call(&q, peer_sweep, NULL), 0);
    CHECK_EQ(peer_call(&q, load, NULL), 0);
    CHECK_EQ(ist_sweep(), 1); /* now it is */
    CHECK_EQ(load(NULL), 0); /* somebody holds it */
    CHECK_EQ(peer_let_go(NULL), 0);
    CHECK_EQ(peer_call(&q, peer_let_go, NULL), 0);
    CHECK_EQ(load(NULL), -ESTALE);
    CHECK_EQ(ist_sweep(), 0);
    CHECK(peer_memory_returns(0, 5));
    peer_end(&q);
}

Test(ticket, an_estate_ends_with_its_time) {
    peer p = peer_start();
    begin(3000, 4);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, post, NULL), 1);
    peer_kill(&p);
    CHECK_EQ(ist_sweep(), 0);
    struct isti_domain *d = isti_domain_home_now();
    atomic_store_explicit(&d->ticket_rows[0].deadline, 1, memory_order_relaxed); /* as if its time were up */
    CHECK_EQ(ist_sweep(), 1);
    CHECK_EQ(load(NULL), -ESTALE);
    CHECK(peer_memory_returns(0, 5));
}

static long race(void *unused) {
    (void)unused;
    uint32_t member;
    uint32_t index, generation;
    memcpy(&index, board->token.bytes + 16, 4);
    memcpy(&generation, board->token.bytes + 20, 4);
    return isti_ticket_strike(isti_domain_home_now(), board->number, index, generation, &member);
}

Test(ticket, struck_by_one) {
    peer p = peer_start();
    begin(10, 4);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    long ours = 0, theirs = 0;
    peer_offer(NULL);
    for (int i = 0; i < 3000; i++) {
        CHECK_EQ(ist_lease_take(held, &board->number), 0);
        peer_begin(&p, race, NULL);
        for (int spin = 0; spin < i % 300; spin++)
            atomic_signal_fence(memory_order_seq_cst);
        long we = race(NULL), they = peer_finish(&p);
        CHECK_EQ(we + they, 1);
        ours += we;
        theirs += they;
        CHECK_EQ(race(NULL), 0);
    }
    printf("struck by us %ld, by the peer %ld\n", ours, theirs);
    ist_lease_expire();
    isti_lease_poll();
    peer_end(&p);
}

/* The one instruction between striking a ticket and telling its maker. */
Test(ticket, a_loader_killed_before_it_could_tell) {
    peer p = peer_start();
    begin(3000, 4);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(post(NULL), 1);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    CHECK_EQ(peer_call(&p, race, NULL), 1);
    CHECK_EQ(test_stats().leases, 1);
    peer_kill(&p);
    CHECK_EQ(ist_sweep(), 1);
    CHECK(test_until(nothing_leased, NULL, 5), "the lease waits for its deadline");
    CHECK_EQ(test_stats().leases_expired, 0);
    CHECK_EQ(load(NULL), -ESTALE);
}

Test(ticket, numbers_count_only_with_their_segment) {
    begin(10, 4);
    peer_offer(NULL);
    ist_segment other = test_create(10, 0);
    ist_token token = test_token(other);
    uint64_t number;
    CHECK_EQ(ist_lease_take(held, &number), 0);
    ist_segment s;
    CHECK_EQ(ist_lease_load(&token, number, &s), 0); /* the segment lives, the number isn't its */
    ist_segment_release(s);
    CHECK_EQ(test_stats().leases, 1);
    CHECK_EQ(ist_lease_load(&board->token, number + (1 << 20), &s), 0);
    ist_segment_release(s);
    CHECK_EQ(test_stats().leases, 1);
    const uint64_t wild[] = {0, 1, UINT64_MAX, number | 1u << 19, number << 20};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++)
        ist_lease_strike(&board->token, wild[i]);
    CHECK_EQ(test_stats().leases, 1);
    CHECK_EQ(ist_lease_load(&board->token, number, &s), 0);
    ist_segment_release(s);
    CHECK_EQ(test_stats().leases, 0);
    ist_segment_release(other);
    peer_let_go(NULL);
}

Test(ticket, of_a_parent_loaded_by_its_child) {
    begin(100, 4);
    CHECK_EQ(post(NULL), 1);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        CHECK_EQ(test_stats().leases, 0);
        CHECK_EQ(load(NULL), 0);
        CHECK_EQ(peer_let_go(NULL), 0);
        _exit(0);
    }
    CHECK_EQ(test_wait(child, 30), 0);
    CHECK(test_until(nothing_leased, NULL, 5));
    CHECK_EQ(load(NULL), -ESTALE);
}
