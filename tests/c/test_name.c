/* test_name.c: names of published segments (N1), and finding them from domains that share nothing yet. */
#include "domain.h"
#include "peer.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(name, .init = board_begin, .timeout = 60);

/* Other runs of this program may be under way on the machine, and its other tests are: each has names of its own. */
static char unique[64];

static const char *name(const char *what) {
    snprintf(unique, sizeof unique, "%s of %d", what, (int)getppid());
    return unique;
}

static int publish(const char *as) { return ist_name_publish(as, strlen(as), held, "hello", 5); }

static int attach(const char *as, ist_segment *out) {
    char bytes[16];
    size_t size = sizeof bytes;
    int error = ist_name_attach(as, strlen(as), out, bytes, &size);
    CHECK(error != 0 || (size == 5 && memcmp(bytes, "hello", 5) == 0));
    return error;
}

static int forget(const char *as) { return ist_name_remove(as, strlen(as)); }

static long peer_publish(void *as) {
    peer_offer(NULL);
    return publish(as);
}

static long peer_find(void *as) {
    int error = attach(as, &held);
    if (error == 0)
        CHECK(test_filled(ist_segment_data(held), board->size, board->tag));
    return error;
}

static void offer(void) {
    board->size = 1000;
    board->tag = 12;
    peer_offer(NULL);
}

Test(name, within_a_process) {
    ist_segment s;
    offer();
    CHECK_EQ(attach(name("nothing"), &s), -ENOENT);
    CHECK_EQ(publish(name("within")), 0);
    CHECK_EQ(publish(unique), -EEXIST);
    CHECK_EQ(attach(unique, &s), 0);
    CHECK_EQ(test_owners(held), 2);
    ist_segment_release(s);
    CHECK_EQ(attach(name("without"), &s), -ENOENT);
    CHECK_EQ(forget(unique), -ENOENT);
    CHECK_EQ(forget(name("within")), 0);
    CHECK_EQ(forget(unique), -ENOENT);
    CHECK_EQ(attach(unique, &s), -ENOENT);
    CHECK_EQ(publish(unique), 0);
    peer_let_go(NULL);
    CHECK_EQ(attach(unique, &s), -ENOENT); /* it owned nothing */
    CHECK_EQ(forget(unique), -ENOENT);
    offer();
    CHECK_EQ(publish(unique), 0); /* free to take */
    char longest[IST_NAME_MAX + 1];
    memset(longest, 'n', sizeof longest);
    CHECK_EQ(ist_name_publish(longest, IST_NAME_MAX, held, "hello", 5), 0);
    CHECK_EQ(ist_name_publish(longest, IST_NAME_MAX + 1, held, "hello", 5), -EINVAL);
    CHECK_EQ(ist_name_publish("", 0, held, "hello", 5), -EINVAL);
    CHECK_EQ(ist_name_publish("x", 1, held, longest, 1601), -EINVAL);
    CHECK_EQ(ist_name_remove(longest, IST_NAME_MAX), 0);
    size_t none = 4;
    char little[4];
    CHECK_EQ(ist_name_attach(unique, strlen(unique), &s, little, &none), -EINVAL);
    CHECK_EQ(test_owners(held), 1);
    peer_let_go(NULL);
}

static long peer_finds_bytes_only(void *as) {
    char bytes[16] = "";
    size_t size = sizeof bytes;
    ist_segment s = {.index = 77};
    int error = ist_name_attach(as, strlen(as), &s, bytes, &size);
    CHECK(error != -EXDEV || (size == 5 && memcmp(bytes, "hello", 5) == 0 && s.index == 77));
    return error;
}

/* The memory can't be had there; what the bytes say of it can. */
Test(name, of_what_stays_in_its_process) {
    static char outside[64];
    char *as = test_shared(64);
    strcpy(as, name("file"));
    peer p = peer_start(), q = peer_start();
    CHECK_EQ(ist_segment_wrap(outside, sizeof outside, NULL, NULL, 0, &held), 0);
    CHECK_EQ(publish(as), 0);
    board_tell_home();
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, peer_finds_bytes_only, as), -EXDEV);
    CHECK_EQ(peer_call(&q, peer_finds_bytes_only, as), -EXDEV);
    peer_let_go(NULL);
    CHECK_EQ(peer_call(&p, peer_finds_bytes_only, as), -ENOENT);
    peer_end(&p);
    peer_end(&q);
}

Test(name, a_full_table) {
    offer();
    char as[16];
    for (int i = 0; i < 4096; i++) {
        snprintf(as, sizeof as, "n%d", i);
        CHECK_EQ(publish(as), 0);
    }
    CHECK_EQ(publish("one more"), -ENOSPC);
    CHECK_EQ(forget("n77"), 0);
    CHECK_EQ(publish("one more"), 0);
    peer_let_go(NULL);
    offer(); /* all of them are stale now */
    CHECK_EQ(publish("n1"), 0);
    peer_let_go(NULL);
}

Test(name, between_processes_that_share_nothing) {
    char *as = test_shared(64);
    strcpy(as, name("weather"));
    peer p = peer_start(), q = peer_start(), r = peer_start();
    board->size = 5000;
    board->tag = 3;
    CHECK_EQ(peer_call(&p, peer_find, as), -ENOENT);
    CHECK_EQ(peer_call(&q, peer_publish, as), 0);
    CHECK_EQ(peer_call(&p, peer_find, as), 0);
    peer_kill(&q); /* who gave the name is gone, and a holder lives */
    CHECK_EQ(peer_call(&r, peer_find, as), 0);
    CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
    CHECK_EQ(peer_call(&r, peer_let_go, NULL), 0);
    peer_call(&r, peer_sweep, NULL); /* the dead one held it as well */
    CHECK_EQ(peer_call(&p, peer_find, as), -ENOENT);
    peer_end(&p);
    peer_end(&r);
}

/* Killed a moment ago, so that nobody has struck it out yet. */
Test(name, of_a_killed_holder) {
    char *as = test_shared(64);
    strcpy(as, name("supervised"));
    board->size = 50;
    for (int i = 0; i < 5; i++) {
        peer p = peer_start(), q = peer_start();
        CHECK_EQ(peer_call(&p, peer_publish, as), 0);
        CHECK_EQ(peer_call(&q, peer_find, as), 0); /* a guest from here on */
        CHECK_EQ(peer_call(&q, peer_let_go, NULL), 0);
        peer_kill(&p);
        CHECK_EQ(peer_call(&q, peer_find, as), -ENOENT);
        peer_end(&q);
    }
}

Test(name, of_two_domains) {
    char *as = test_shared(64);
    strcpy(as, name("twice"));
    peer p = peer_start(), q = peer_start(), r = peer_start();
    board->size = 50;
    CHECK_EQ(peer_call(&p, peer_publish, as), 0);
    CHECK_EQ(peer_call(&q, peer_publish, as), 0);
    CHECK_EQ(peer_call(&r, peer_find, as), -ENOTUNIQ);
    CHECK_EQ(peer_call(&q, peer_find, as), 0); /* one's own comes first */
    peer_kill(&p);
    CHECK_EQ(peer_call(&r, peer_find, as), 0);
    peer_end(&q);
    peer_end(&r);
}

Test(name, a_writer_that_was_killed) {
    offer();
    struct isti_domain *d = isti_domain_home_now();
    CHECK_EQ(publish(name("half written")), 0);
    /* in the middle of writing the row: odd */
    atomic_fetch_add_explicit(&d->name_rows[0].version, 1, memory_order_relaxed);
    ist_segment s;
    CHECK_EQ(attach(unique, &s), -ENOENT);
    CHECK_EQ(publish(unique), 0);
    CHECK_EQ(attach(unique, &s), 0);
    ist_segment_release(s);
    CHECK_EQ(atomic_load_explicit(&d->marks->names, memory_order_relaxed), 1);
    peer_let_go(NULL);
}
