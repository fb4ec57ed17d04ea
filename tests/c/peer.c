/* peer.c: see peer.h. */
#include "peer.h"

#include "domain.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct order {
    peer_step step; /* NULL: exit */
    void *argument;
};

static void obey(int from, int to) {
    struct order order;
    while (read(from, &order, sizeof order) == (ssize_t)sizeof order && order.step != NULL) {
        long result = order.step(order.argument);
        CHECK_EQ(write(to, &result, sizeof result), (ssize_t)sizeof result);
    }
}

peer peer_start(void) {
    CHECK(isti_domain_home_now() == NULL, "a peer is to inherit nothing");
    int there[2], back[2];
    CHECK(pipe(there) == 0 && pipe(back) == 0, "pipe: %s", strerror(errno));
    fflush(NULL);
    peer p = {.pid = fork(), .to = there[1], .from = back[0]};
    CHECK(p.pid >= 0, "fork: %s", strerror(errno));
    if (p.pid == 0) {
        close(there[1]);
        close(back[0]);
        obey(there[0], back[1]);
        _exit(0);
    }
    close(there[0]);
    close(back[1]);
    return p;
}

void peer_begin(peer *p, peer_step step, void *argument) {
    struct order order = {step, argument};
    CHECK_EQ(write(p->to, &order, sizeof order), (ssize_t)sizeof order);
}

long peer_finish(peer *p) {
    struct pollfd answer = {.fd = p->from, .events = POLLIN};
    CHECK(poll(&answer, 1, 30000) == 1, "the peer doesn't answer");
    long result;
    CHECK(read(p->from, &result, sizeof result) == (ssize_t)sizeof result, "the peer has ended");
    return result;
}

long peer_call(peer *p, peer_step step, void *argument) {
    peer_begin(p, step, argument);
    return peer_finish(p);
}

static void forget(peer *p) {
    close(p->to);
    close(p->from);
    *p = (peer){0};
}

void peer_end(peer *p) {
    peer_begin(p, NULL, NULL);
    CHECK_EQ(test_wait(p->pid, 30), 0);
    forget(p);
}

void peer_kill(peer *p) {
    kill(p->pid, SIGKILL);
    int status = test_wait(p->pid, 30);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "wait status %#x", status);
    forget(p);
}

long peer_join(void *text) {
    setenv("ISTHMUS_DOMAIN", text, 1);
    return ist_domain_join();
}

struct board *board;
ist_segment held;

void board_begin(void) {
    unsetenv("ISTHMUS_DOMAIN");
    board = test_shared(sizeof *board);
}

void board_tell_home(void) {
    CHECK_EQ(ist_domain_text(board->text, sizeof board->text), 0);
    CHECK_EQ(ist_domain_id(board->id), 0);
}

long peer_offer(void *unused) {
    (void)unused;
    held = test_create(board->size, 0);
    test_fill(ist_segment_data(held), board->size, board->tag);
    board->token = test_token(held);
    CHECK_EQ(ist_segment_place(held, &board->place), 0);
    board_tell_home();
    return 0;
}

long peer_attach(void *unused) {
    (void)unused;
    int error = ist_segment_acquire(&board->token, &held);
    if (error == 0)
        CHECK(ist_segment_size(held) == board->size && test_filled(ist_segment_data(held), board->size, board->tag));
    return error;
}

long peer_let_go(void *unused) {
    (void)unused;
    ist_segment_release(held);
    held = (ist_segment){0};
    return (long)test_stats().segments;
}

long peer_sweep(void *unused) {
    (void)unused;
    return (long)ist_sweep();
}

static bool returned(void *bytes) {
    struct isti_domain *d = isti_domain_home_now();
    struct stat st;
    CHECK_EQ(fstat(d->data_fd, &st), 0);
    return (size_t)st.st_blocks * 512 <= *(size_t *)bytes;
}

bool peer_memory_returns(size_t bytes, double seconds) { return test_until(returned, &bytes, seconds); }
