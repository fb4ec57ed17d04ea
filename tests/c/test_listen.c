/* test_listen.c: descriptors of queues and locks, between processes (Q11). Those of locks in one process are in test_signal.c. */
#include "locks.h"
#include "queues.h"
#include "stop.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

TestSuite(listen, .timeout = 60);

static bool readable(int fd, int milliseconds) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, milliseconds) == 1;
}

Test(listen, of_messages) {
    begin();
    peer p = peer_start();
    offer_queue(0);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, attach_queue, NULL), 0);
    int fd, same;
    CHECK_EQ(put_seven(NULL), 0);
    CHECK_EQ(ist_queue_fileno(q_here, &fd), 0);
    CHECK_EQ(ist_queue_fileno(q_here, &same), 0);
    CHECK_EQ(fd, same);
    CHECK(readable(fd, 0)); /* of what was there before */
    CHECK_EQ(get_number(q_here, 0), 7);
    CHECK_EQ(get_number(q_here, 0), -EAGAIN);
    CHECK(!readable(fd, 0));
    const uint64_t began = test_now();
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(i % 2 == 0 ? put_seven(NULL) : peer_call(&p, put_seven, NULL), 0);
        CHECK(readable(fd, 10000), "message %d", i);
        CHECK_EQ(get_number(q_here, 0), 7);
        while (readable(fd, 0)) /* the housekeeper may have told a second time */
            CHECK_EQ(get_number(q_here, 0), -EAGAIN);
    }
    CHECK(test_now() - began < UINT64_C(8000000000), "the housekeeper looks every two seconds by itself");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) { /* the descriptor is the parent's */
        int mine;
        CHECK(fcntl(fd, F_GETFD) < 0);
        CHECK_EQ(ist_queue_fileno(q_here, &mine), 0);
        CHECK(!readable(mine, 0));
        CHECK_EQ(put_seven(NULL), 0);
        CHECK(readable(mine, 0));
        _exit(0);
    }
    CHECK_EQ(test_wait(child, 30), 0);
    CHECK(readable(fd, 10000));
    CHECK_EQ(get_number(q_here, 0), 7);
    CHECK_EQ(peer_call(&p, release_queue, NULL), 0);
    CHECK_EQ(ist_queue_shutdown(q_here, false), 0);
    CHECK(readable(fd, 0));
    CHECK_EQ(get_number(q_here, 0), -ESHUTDOWN);
    CHECK(readable(fd, 0));
    ist_queue_release(q_here);
    CHECK(fcntl(fd, F_GETFD) < 0);
    peer_end(&p);
}

static long get_one_done(void *unused) {
    (void)unused;
    return get_number(q_here, 0) == 7 ? ist_queue_task_done(q_here) : -1;
}

Test(listen, of_room_and_of_the_last_task) {
    begin();
    peer p = peer_start();
    offer_queue(1);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, attach_queue, NULL), 0);
    int room, done, other;
    CHECK_EQ(ist_queue_fileno_of(q_here, (ist_queue_side)3, &room), -EINVAL);
    CHECK_EQ(ist_queue_fileno_of(q_here, IST_QUEUE_ROOM, &room), 0);
    CHECK_EQ(ist_queue_fileno_of(q_here, IST_QUEUE_DONE, &done), 0);
    CHECK_EQ(ist_queue_fileno(q_here, &other), 0);
    CHECK(room != done && done != other && other != room);
    for (int i = 0; i < 20; i++) {
        CHECK(readable(room, 0) && readable(done, 0), "as there is, and nothing has begun");
        CHECK_EQ(put_seven(NULL), 0);
        while (readable(room, 0) || readable(done, 0)) { /* those who look make it unreadable; the housekeeper may tell a second time */
            CHECK_EQ(ist_queue_await_room(q_here, 0, NULL), -EAGAIN);
            CHECK_EQ(ist_queue_join(q_here, 0, NULL), -EAGAIN);
        }
        CHECK_EQ(i % 2 == 0 ? get_one_done(NULL) : peer_call(&p, get_one_done, NULL), 0);
        CHECK(readable(room, 10000) && readable(done, 10000), "round %d", i);
        CHECK_EQ(ist_queue_await_room(q_here, 0, NULL), 0);
    }
    CHECK_EQ(put_seven(NULL), 0);
    CHECK_EQ(ist_queue_await_room(q_here, 0, NULL), -EAGAIN);
    ist_waiter w = {{0, 0}};
    ist_waiter_stop(&w);
    CHECK_EQ(ist_queue_await_room(q_here, UINT64_MAX, &w), -ECANCELED);
    CHECK_EQ(ist_queue_await_room(q_here, test_now() + 1000000, NULL), -ETIMEDOUT);
    CHECK_EQ(ist_queue_shutdown(q_here, false), 0);
    CHECK(readable(room, 0) && ist_queue_await_room(q_here, 0, NULL) == 0, "a put says why");
    int copy = dup(done);
    CHECK_EQ(peer_call(&p, release_queue, NULL), 0);
    ist_queue_release(q_here);
    CHECK(readable(copy, 0) && fcntl(done, F_GETFD) < 0, "whoever waits by a duplicate hears that the handle is gone");
    close(copy);
    nothing_left();
    peer_end(&p);
}

/* ---- what the dead leave */

static void look_in_vain(int room, int done) {
    CHECK_EQ(ist_queue_await_room(q_here, 0, NULL), -EAGAIN);
    CHECK_EQ(ist_queue_join(q_here, 0, NULL), -EAGAIN);
    CHECK(!readable(room, 0) && !readable(done, 0));
}

/* The killed sender's message was the only one: the sweep makes room, and nobody else will tell. */
Test(listen, what_a_killed_sender_left_at_head) {
    begin();
    peer p = peer_start();
    offer_queue(1);
    int room, done;
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, attach_queue, NULL), 0);
    CHECK_EQ(ist_queue_fileno_of(q_here, IST_QUEUE_ROOM, &room), 0);
    CHECK_EQ(ist_queue_fileno_of(q_here, IST_QUEUE_DONE, &done), 0);
    CHECK_EQ(peer_call(&p, claim_only, NULL), 0);
    look_in_vain(room, done);
    peer_kill(&p);
    ist_sweep();
    CHECK(readable(room, 0) && readable(done, 0));
    CHECK_EQ(ist_queue_await_room(q_here, 0, NULL), 0);
    CHECK_EQ(ist_queue_join(q_here, 0, NULL), 0);
    ist_queue_release(q_here);
    nothing_left();
}

/* It stands behind one that is still to be received: whoever is done with that tells. */
Test(listen, what_a_killed_sender_left_behind_the_last_message) {
    begin();
    peer p = peer_start();
    offer_queue(2);
    int room, done;
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, attach_queue, NULL), 0);
    CHECK_EQ(ist_queue_fileno_of(q_here, IST_QUEUE_ROOM, &room), 0);
    CHECK_EQ(ist_queue_fileno_of(q_here, IST_QUEUE_DONE, &done), 0);
    CHECK_EQ(put_seven(NULL), 0);
    CHECK_EQ(peer_call(&p, claim_only, NULL), 0);
    peer_kill(&p);
    ist_sweep();
    look_in_vain(room, done);
    CHECK_EQ(get_number(q_here, 0), 7);
    CHECK(readable(room, 0) && !readable(done, 0));
    CHECK_EQ(ist_queue_task_done(q_here), 0);
    CHECK(readable(done, 0));
    CHECK_EQ(ist_queue_join(q_here, 0, NULL), 0);
    ist_queue_release(q_here);
    nothing_left();
}

/* A message that makes no sense is gone, and its place can be had. */
Test(listen, a_place_that_garbage_had) {
    begin();
    offer_queue(1);
    int room;
    CHECK_EQ(ist_queue_fileno_of(q_here, IST_QUEUE_ROOM, &room), 0);
    struct isti_ring_view v = view_here();
    CHECK_EQ(put_seven(NULL), 0);
    struct isti_ring_slot *slot = isti_slot_at(&v, v.base);
    atomic_store_explicit(&slot->body[0], isti_header_word((struct isti_header){1, 0, 1, false}), memory_order_relaxed);
    atomic_store_explicit(&slot->body[1], isti_ref(UINT32_MAX, 0), memory_order_relaxed);
    CHECK_EQ(ist_queue_await_room(q_here, 0, NULL), -EAGAIN);
    CHECK(!readable(room, 0));
    CHECK_EQ(get_number(q_here, 0), -EBADMSG);
    CHECK(readable(room, 0));
    ist_queue_release(q_here);
    nothing_left();
}

/* ---- a sweep tells while another thread forks */

static struct isti_os real;
static _Thread_local bool sweeps;
static _Atomic(int) stage; /* 1: the sweep is about to tell; 2: the other thread has begun to fork */
static pid_t forker;

static bool forker_sleeps(void *unused) {
    (void)unused;
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)forker);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
    close(fd);
    return strrchr(text, ')')[2] == 'S';
}

/* Between the lock's change and the look at who listens: until the other one waits for what this thread has. */
static int wake_and_wait(_Atomic(uint32_t) *word, int waiters) {
    int result = real.futex_wake(word, waiters);
    if (sweeps && word == &held_sync->memory->event && atomic_load_explicit(&stage, memory_order_acquire) == 0) {
        atomic_store_explicit(&stage, 1, memory_order_release);
        while (atomic_load_explicit(&stage, memory_order_acquire) < 2)
            isti_relax();
        CHECK(test_until(forker_sleeps, NULL, 10));
    }
    return result;
}

static void forking(void) {
    if (atomic_load_explicit(&stage, memory_order_acquire) == 1)
        atomic_store_explicit(&stage, 2, memory_order_release);
}

static void *sweep_all(void *unused) {
    (void)unused;
    sweeps = true;
    CHECK_EQ(ist_sweep(), 1);
    return NULL;
}

static void child(void *unused) { (void)unused; }

Test(listen, a_sweep_that_tells_and_a_fork, .init = board_begin) {
    ist_options options = {.struct_size = sizeof options, .flags = IST_OPTION_NO_HOUSEKEEPER};
    CHECK_EQ(ist_configure(&options), 0);
    CHECK_EQ(pthread_atfork(forking, NULL, NULL), 0); /* runs before the library's */
    peer p = partner(IST_LOCK);
    int fd;
    CHECK_EQ(ist_sync_fileno(held_sync, &fd), 0);
    CHECK_EQ(peer_call(&p, lock_it, NULL), 0);
    peer_kill(&p);
    forker = (pid_t)syscall(SYS_gettid);
    real = isti_os;
    isti_os.futex_wake = wake_and_wait;
    pthread_t sweeper = test_thread(sweep_all, NULL);
    while (atomic_load_explicit(&stage, memory_order_acquire) == 0)
        isti_relax();
    CHECK_CHILD(child, NULL, 30);
    test_join(sweeper);
    isti_os = real;
    CHECK(readable(fd, 0));
    CHECK_EQ(lock_now(held_sync), -EOWNERDEAD);
    CHECK_EQ(detach(NULL), 0);
}
