/* test_waiter.c: wait and notify (W1 to W5): order, results, what is waited on, other processes, the dead, a table that is full. */
#include "domain.h"
#include "os.h"
#include "peer.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <isthmus/atomic.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

TestSuite(waiter, .init = board_begin, .timeout = 60);

static ist_segment numbers(void) { return test_create(64, IST_ZERO); }

static uint64_t notified(ist_segment s, size_t offset, uint64_t count) {
    uint64_t woken = 99;
    CHECK_EQ(ist_notify(s, offset, count, &woken), 0);
    return woken;
}

static ist_wait waits(ist_segment s, size_t offset, size_t size) {
    ist_wait w;
    CHECK_EQ(ist_wait_begin(s, offset, NULL, size, 0, &w), 0);
    return w;
}

Test(waiter, another_value) {
    ist_segment s = numbers();
    ist_wait w;
    ((uint32_t *)ist_segment_data(s))[1] = 7;
    CHECK_EQ(ist_wait_begin(s, 4, NULL, 4, 8, &w), -EAGAIN);
    CHECK_EQ(ist_wait_begin(s, 0, NULL, 8, UINT64_C(7) << 32 | 1, &w), -EAGAIN);
    CHECK_EQ(notified(s, 4, 5), 0);
    CHECK_EQ(ist_wait_begin(s, 0, NULL, 8, UINT64_C(7) << 32, &w), 0);
    CHECK_EQ(ist_wait_on(&w, 0, UINT64_MAX), -ETIMEDOUT);
    ist_segment_release(s);
}

Test(waiter, the_longest_waiting_first) {
    ist_segment s = numbers();
    ist_wait w[6];
    for (int i = 0; i < 6; i++)
        w[i] = waits(s, 8, i % 2 == 0 ? 4 : 8);
    CHECK_EQ(test_stats().waiting, 6);
    CHECK_EQ(notified(s, 8, 0), 0);
    CHECK_EQ(notified(s, 8, 2), 2);
    CHECK_EQ(ist_wait_on(&w[3], 0, UINT64_MAX), -ETIMEDOUT); /* gives up its place */
    CHECK_EQ(test_stats().waiting, 3);
    CHECK_EQ(notified(s, 8, 2), 2);
    CHECK_EQ(ist_wait_on(&w[5], 0, UINT64_MAX), -ETIMEDOUT);
    for (int i = 0; i < 5; i++)
        if (i != 3)
            CHECK_EQ(ist_wait_on(&w[i], 0, UINT64_MAX), 0);
    CHECK_EQ(notified(s, 8, UINT64_MAX), 0);
    ist_segment_release(s);
}

Test(waiter, only_that_element_of_that_segment) {
    ist_segment s = numbers(), t = numbers();
    ist_wait a = waits(s, 0, 4), b = waits(s, 4, 4), c = waits(t, 0, 4);
    CHECK_EQ(notified(s, 0, UINT64_MAX), 1);
    CHECK_EQ(ist_wait_on(&a, 0, UINT64_MAX), 0);
    CHECK_EQ(ist_wait_on(&b, 0, UINT64_MAX), -ETIMEDOUT);
    CHECK_EQ(ist_wait_on(&c, 0, UINT64_MAX), -ETIMEDOUT);
    ist_segment_release(s);
    ist_segment_release(t);
}

Test(waiter, a_notification_that_came_counts_though_time_is_up) {
    ist_segment s = numbers();
    ist_wait w = waits(s, 0, 4);
    CHECK_EQ(notified(s, 0, 1), 1);
    CHECK_EQ(ist_wait_on(&w, 0, UINT64_MAX), 0);
    ist_segment_release(s);
}

Test(waiter, cancelled) {
    ist_segment s = numbers();
    ist_wait w[3] = {waits(s, 0, 4), waits(s, 0, 4), waits(s, 0, 4)};
    ist_wait_cancel(&w[0]);
    CHECK_EQ(notified(s, 0, 1), 1);
    ist_wait_cancel(&w[1]); /* has it already: the next one gets it */
    CHECK_EQ(ist_wait_on(&w[2], 0, UINT64_MAX), 0);
    CHECK_EQ(notified(s, 0, 1), 0);
    ist_segment_release(s);
}

Test(waiter, nobody_can_wait_on_what_was_never_published) {
    ist_segment s = numbers();
    ist_segment_info info;
    CHECK_EQ(notified(s, 0, 1), 0);
    ist_segment_read_info(s, &info);
    CHECK(!info.published);
    ist_segment_release(s);
}

Test(waiter, bad_arguments) {
    ist_segment s = numbers();
    ist_wait w;
    uint64_t woken;
    const size_t sizes[] = {0, 1, 2, 3, 5, 16};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        CHECK_EQ(ist_wait_begin(s, 0, NULL, sizes[i], 0, &w), -EINVAL);
    CHECK_EQ(ist_wait_begin(s, 2, NULL, 4, 0, &w), -EINVAL);
    CHECK_EQ(ist_wait_begin(s, 4, NULL, 8, 0, &w), -EINVAL);
    CHECK_EQ(ist_wait_begin(s, 60, NULL, 8, 0, &w), -EINVAL);
    CHECK_EQ(ist_wait_begin(s, 64, NULL, 4, 0, &w), -EINVAL);
    CHECK_EQ(ist_wait_begin(s, SIZE_MAX - 3, (char *)ist_segment_data(s), 4, 0, &w), -EINVAL);
    CHECK_EQ(ist_notify(s, 64, 1, &woken), -EINVAL);
    ist_segment_release(s);
}

static bool table_is_free(void) {
    struct isti_domain *d = isti_domain_home_now();
    for (uint32_t b = 0; b < d->waiter_buckets; b++)
        for (uint32_t r = 0; r < ISTI_WAITERS; r++)
            if ((atomic_load_explicit(&d->waiter_rows[b].rows[r].word, memory_order_relaxed) >> 12 & 15) != 0)
                return false;
    return true;
}

Test(waiter, as_many_as_can_be) {
    enum { ALL = ISTI_WAITER_BUCKETS * ISTI_WAITERS };
    static ist_wait w[ALL];
    ist_segment s = numbers();
    for (int i = 0; i < ALL; i++)
        w[i] = waits(s, 0, 4);
    ist_wait more;
    CHECK_EQ(ist_wait_begin(s, 0, NULL, 4, 0, &more), -ENOSPC);
    CHECK_EQ(ist_wait_begin(s, 32, NULL, 4, 0, &more), -ENOSPC);
    CHECK_EQ(notified(s, 0, 100), 100);
    for (int i = 0; i < 100; i++)
        CHECK_EQ(ist_wait_on(&w[i], 0, UINT64_MAX), 0); /* the first hundred */
    CHECK_EQ(notified(s, 0, UINT64_MAX), ALL - 100);
    for (int i = 100; i < ALL; i++)
        CHECK_EQ(ist_wait_on(&w[i], 0, UINT64_MAX), 0);
    CHECK(table_is_free());
    ist_segment_release(s);
}

/* ---- other processes */

static ist_wait theirs;

static long begin(void *unused) {
    (void)unused;
    return ist_wait_begin(held, 0, NULL, 8, board->number, &theirs);
}

static long finish(void *unused) {
    (void)unused;
    int error;
    while ((error = ist_wait_on(&theirs, test_now() + UINT64_C(10000000000), UINT64_MAX)) == -EINTR)
        ;
    return error;
}

static long notify(void *unused) {
    (void)unused;
    return (long)notified(held, 0, 1);
}

/* Ours and theirs are the same segment; its first word is board->number. */
static void share(peer *p) {
    board->size = 3000;
    board->tag = 4;
    board_tell_home();
    CHECK_EQ(peer_call(p, peer_join, board->text), 0);
    peer_offer(NULL);
    memcpy(&board->number, ist_segment_data(held), 8);
    CHECK_EQ(peer_call(p, peer_attach, NULL), 0);
}

Test(waiter, another_process) {
    peer p = peer_start();
    share(&p);
    CHECK_EQ(peer_call(&p, begin, NULL), 0);
    peer_begin(&p, finish, NULL);
    CHECK_EQ(notified(held, 0, 5), 1);
    CHECK_EQ(peer_finish(&p), 0);
    CHECK_EQ(begin(NULL), 0);
    CHECK_EQ(peer_call(&p, notify, NULL), 1);
    CHECK_EQ(finish(NULL), 0);
    CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
    peer_end(&p);
    peer_let_go(NULL);
}

Test(waiter, killed_asleep) {
    peer p = peer_start();
    share(&p);
    CHECK_EQ(peer_call(&p, begin, NULL), 0);
    peer_kill(&p);
    CHECK_EQ(begin(NULL), 0);
    CHECK_EQ(ist_sweep(), 1);
    CHECK_EQ(notified(held, 0, 1), 1);
    CHECK_EQ(finish(NULL), 0);
    CHECK(table_is_free());
    peer_let_go(NULL);
}

Test(waiter, killed_before_it_has_heard) {
    peer p = peer_start();
    share(&p);
    CHECK_EQ(peer_call(&p, begin, NULL), 0);
    CHECK_EQ(begin(NULL), 0);
    CHECK_EQ(notified(held, 0, 1), 1);
    peer_kill(&p);
    CHECK_EQ(ist_sweep(), 1);
    CHECK_EQ(finish(NULL), 0);
    CHECK(table_is_free());
    peer_let_go(NULL);
}

/* ---- without a thread that sleeps */

static uint64_t told(int fd) {
    uint64_t count = 0;
    CHECK(read(fd, &count, sizeof count) == sizeof count || errno == EAGAIN);
    return count;
}

static int new_fd(void) {
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(fd >= 0);
    return fd;
}

Test(waiter, async) {
    ist_segment s = numbers();
    const int fd = new_fd(), other = new_fd();
    ist_wait a, b, c, d;
    CHECK_EQ(ist_wait_begin_async(s, 0, NULL, 4, 0, -1, &a), -EBADF);
    CHECK_EQ(ist_wait_begin_async(s, 0, NULL, 4, 1, fd, &a), -EAGAIN);
    CHECK_EQ(ist_wait_begin_async(s, 0, NULL, 4, 0, fd, &a), 0);
    CHECK_EQ(ist_wait_begin(s, 0, NULL, 4, 0, &b), 0);
    CHECK_EQ(ist_wait_begin_async(s, 0, NULL, 4, 0, fd, &c), 0);
    CHECK_EQ(ist_wait_begin_async(s, 0, NULL, 4, 0, other, &d), 0);
    CHECK_EQ(test_stats().waiting, 4);
    CHECK_EQ(ist_wait_on(&a, UINT64_MAX, UINT64_MAX), -EINTR); /* and doesn't sleep */
    CHECK_EQ(told(fd), 0);
    CHECK_EQ(notified(s, 0, 1), 1);
    CHECK_EQ(told(fd), 1);
    CHECK_EQ(ist_wait_on(&c, UINT64_MAX, 0), -EINTR);
    CHECK_EQ(ist_wait_on(&a, UINT64_MAX, 0), 0);
    CHECK_EQ(notified(s, 0, 2), 2); /* the one that sleeps, and the next */
    CHECK_EQ(ist_wait_on(&b, 0, 0), 0);
    CHECK_EQ(told(fd), 1);
    CHECK_EQ(told(other), 0);
    ist_wait_cancel(&c); /* hasn't heard it: it goes on */
    CHECK_EQ(told(other), 1);
    CHECK_EQ(ist_wait_on(&d, 0, 0), 0);
    CHECK_EQ(ist_wait_begin_async(s, 0, NULL, 4, 0, fd, &a), 0);
    CHECK_EQ(ist_wait_on(&a, 0, 0), -ETIMEDOUT);
    CHECK_EQ(notified(s, 0, UINT64_MAX), 0);
    CHECK_EQ(told(fd), 0);
    CHECK(table_is_free());
    close(fd);
    close(other);
    ist_segment_release(s);
}

static void finish_async(int fd) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    CHECK_EQ(poll(&wait, 1, 10000), 1);
    CHECK_EQ(told(fd), 1);
    CHECK_EQ(ist_wait_on(&theirs, UINT64_MAX, 0), 0);
}

static long whole_async(void *unused) {
    (void)unused;
    const int fd = new_fd();
    CHECK_EQ(ist_wait_begin_async(held, 0, NULL, 8, board->number, fd, &theirs), 0);
    finish_async(fd);
    close(fd);
    return 0;
}

static uint64_t stopped_at;
static uint64_t stopped_clock(void) { return stopped_at; }

Test(waiter, async_and_another_process) {
    peer p = peer_start();
    share(&p);
    const int fd = new_fd();
    stopped_at = isti_os.now();
    isti_os.now = stopped_clock; /* it is never time to sweep, which would tell as well */
    CHECK_EQ(ist_wait_begin_async(held, 0, NULL, 8, board->number, fd, &theirs), 0);
    CHECK_EQ(peer_call(&p, notify, NULL), 1);
    finish_async(fd);
    peer_begin(&p, whole_async, NULL);
    while (notified(held, 0, 1) == 0)
        sched_yield();
    CHECK_EQ(peer_finish(&p), 0);
    CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
    peer_end(&p);
    close(fd);
    peer_let_go(NULL);
}

static void async_child(void *fd) {
    CHECK_EQ(ist_wait_on(&theirs, 0, UINT64_MAX), -ENOTRECOVERABLE);
    ist_wait_cancel(&theirs);
    ist_wait own;
    CHECK_EQ(ist_wait_begin_async(held, 8, NULL, 4, 0, *(int *)fd, &own), 0);
    CHECK_EQ(ist_wait_on(&own, 0, 0), -ETIMEDOUT);
    CHECK_EQ(notified(held, 0, 1), 1);
}

Test(waiter, async_and_fork) {
    board->size = 100;
    peer_offer(NULL);
    memcpy(&board->number, ist_segment_data(held), 8);
    memset((char *)ist_segment_data(held) + 8, 0, 8);
    int fd = new_fd();
    CHECK_EQ(ist_wait_begin_async(held, 0, NULL, 8, board->number, fd, &theirs), 0);
    CHECK_CHILD(async_child, &fd, 20);
    finish_async(fd);
    ist_sweep();
    CHECK(table_is_free());
    close(fd);
    peer_let_go(NULL);
}

static void child(void *unused) {
    (void)unused;
    CHECK_EQ(ist_wait_on(&theirs, 0, UINT64_MAX), -ENOTRECOVERABLE);
    ist_wait_cancel(&theirs);
    CHECK_EQ(notified(held, 0, 1), 1);
}

Test(waiter, fork) {
    board->size = 100;
    peer_offer(NULL);
    memcpy(&board->number, ist_segment_data(held), 8);
    CHECK_EQ(begin(NULL), 0);
    CHECK_CHILD(child, NULL, 20);
    CHECK_EQ(finish(NULL), 0);
    ist_sweep();
    peer_let_go(NULL);
}
