/* test_queue.c: queues, in one process and between several. */
#include "control_check.h"
#include "os.h"
#include "queues.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <isthmus/queue.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void put_segments(ist_queue *q, ist_segment *segments, uint32_t count, int expected) {
    ist_queue_message m = {.tag = 2, .count = count};
    if (count <= IST_MESSAGE_FEW)
        memcpy(m.few, segments, count * sizeof *segments);
    else
        m.many = segments;
    int error = ist_queue_put(q, &m, 0, NULL);
    CHECK(error == expected, "put of %u segments: %s", count, ist_strerror(error));
}

static ist_queue_message get(ist_queue *q) {
    ist_queue_message m;
    int error = ist_queue_get(q, &m, 0, NULL);
    CHECK(error == 0, "get: %s", ist_strerror(error));
    return m;
}

static ist_queue_info info(ist_queue *q) {
    ist_queue_info i;
    ist_queue_read_info(q, &i);
    return i;
}

static void nothing_left(void) {
    char text[300];
    ist_collect();
    CHECK_EQ(test_stats().segments, 0);
    CHECK(control_check(isti_domain_home_now(), CONTROL_SWEPT | CONTROL_QUIET, text, sizeof text), "%s", text);
    for (uint32_t i = 0; i < isti_descriptors_high(isti_domain_home_now()); i++)
        CHECK_EQ(isti_s_phase(atomic_load_explicit(&isti_domain_home_now()->descriptor_rows[i].state, memory_order_relaxed)), ISTI_FREE);
}

Test(queue, in_order) {
    ist_queue *q = create(0);
    CHECK_EQ(get_number(q, 0), -EAGAIN);
    for (uint64_t n = 0; n < 3000; n++)
        CHECK_EQ(put_number(q, n), 0);
    CHECK_EQ(info(q).size, 3000);
    for (int64_t n = 0; n < 3000; n++)
        CHECK_EQ(get_number(q, 0), n);
    CHECK_EQ(get_number(q, 0), -EAGAIN);
    CHECK_EQ(info(q).size, 0);
    ist_queue_release(q);
    nothing_left();
}

Test(queue, never_more_than_maxsize) {
    const uint64_t sizes[] = {1, 2, 3, 5, 8, 100, 1024, 1025, 5000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        ist_queue *q = create(sizes[i]);
        CHECK_EQ(info(q).maxsize, sizes[i]);
        CHECK_EQ(info(q).capacity, sizes[i]);
        for (uint64_t round = 0; round < 3; round++) {
            for (uint64_t n = 0; n < sizes[i]; n++)
                CHECK_EQ(put_number(q, n), 0);
            CHECK_EQ(put_number(q, 0), -EAGAIN);
            CHECK_EQ(info(q).size, sizes[i]);
            CHECK_EQ(get_number(q, 0), 0);
            CHECK_EQ(put_number(q, 7), 0);
            CHECK_EQ(put_number(q, 7), -EAGAIN);
            for (uint64_t n = 1; n < sizes[i]; n++)
                CHECK_EQ(get_number(q, 0), (int64_t)n);
            CHECK_EQ(get_number(q, 0), 7);
        }
        ist_queue_release(q);
    }
    nothing_left();
}

Test(queue, bytes) {
    ist_queue *q = create(4);
    for (unsigned size = 0; size <= IST_MESSAGE_BYTES; size++) {
        ist_queue_message m = {.tag = (uint8_t)(size * 5), .size = (uint8_t)size};
        test_fill(m.bytes, size, size);
        CHECK_EQ(ist_queue_put(q, &m, 0, NULL), 0);
        ist_queue_message got = get(q);
        CHECK(got.tag == m.tag && got.size == size && got.count == 0 && test_filled(got.bytes, size, size), "%u bytes", size);
    }
    ist_queue_message m = {.size = IST_MESSAGE_BYTES + 1};
    CHECK_EQ(ist_queue_put(q, &m, 0, NULL), -EMSGSIZE);
    ist_segment s = test_create(10, 0);
    m = (ist_queue_message){.size = 41, .count = 1, .few = {s}};
    CHECK_EQ(ist_queue_put(q, &m, 0, NULL), -EMSGSIZE);
    m.count = IST_MESSAGE_FEW + 1;
    CHECK_EQ(ist_queue_put(q, &m, 0, NULL), -EINVAL);
    ist_segment_release(s);
    ist_queue_release(q);
    nothing_left();
}

/* A message holds what it refers to, the receiver afterwards; with and without bytes, in its slot and in a list. */
Test(queue, segments) {
    enum { MOST = 40 };
    ist_queue *q = create(3);
    for (uint32_t count = 1; count <= MOST; count++) {
        ist_segment segments[MOST];
        for (uint32_t i = 0; i < count; i++) {
            segments[i] = test_create(100, 0);
            test_fill(ist_segment_data(segments[i]), 100, i + 1);
        }
        const uint8_t size = (uint8_t)(count % 41);
        ist_queue_message m = {.tag = 2, .size = size, .count = count, .many = segments};
        test_fill(m.bytes, size, count);
        CHECK_EQ(ist_queue_put(q, &m, 0, NULL), 0);
        for (uint32_t i = 0; i < count; i++)
            ist_segment_release(segments[i]);
        ist_queue_message got = get(q);
        CHECK(got.count == count && got.size == size && test_filled(got.bytes, size, count));
        ist_segment *them = got.many != NULL ? got.many : got.few;
        for (uint32_t i = 0; i < count; i++)
            CHECK(ist_segment_size(them[i]) == 100 && test_filled(ist_segment_data(them[i]), 100, i + 1));
        ist_queue_message_clear(&got);
        CHECK_EQ(test_stats().segments, 1);
    }
    ist_queue_release(q);
    nothing_left();
}

Test(queue, goes_with_what_is_in_it) {
    ist_queue *q = create(0), *inner = create(10);
    ist_segment s = test_create(5000, 0), many[20];
    for (int i = 0; i < 20; i++)
        many[i] = test_create(64, 0);
    for (int i = 0; i < 5; i++) {
        put_segments(q, &s, 1, 0);
        put_segments(inner, &s, 1, 0);
    }
    put_segments(inner, many, 20, 0);
    put_number(q, 1);
    ist_segment of_inner = ist_queue_segment(inner);
    put_segments(q, &of_inner, 1, 0);
    ist_segment of_q = ist_queue_segment(q); /* itself: isn't counted */
    put_segments(q, &of_q, 1, 0);
    ist_segment_release(s);
    for (int i = 0; i < 20; i++)
        ist_segment_release(many[i]);
    ist_queue_release(inner);
    ist_queue_release(q);
    nothing_left();
}

Test(queue, itself) {
    ist_queue *q = create(0);
    ist_segment s = ist_queue_segment(q);
    put_segments(q, &s, 1, 0);
    ist_queue_message m = get(q);
    ist_queue *again;
    CHECK_EQ(ist_queue_open(m.few[0], &again), 0);
    CHECK_EQ(put_number(again, 5), 0);
    CHECK_EQ(get_number(q, 0), 5);
    ist_queue_release(again);
    ist_queue_release(q);
    nothing_left();
}

/* Queues in queues, each only in the next: they go without recursion. */
Test(queue, deep) {
    enum { DEEP = 3000 };
    ist_queue *outer = create(1);
    for (int i = 0; i < DEEP; i++) {
        ist_queue *next = create(1);
        ist_segment s = ist_queue_segment(outer);
        put_segments(next, &s, 1, 0);
        ist_queue_release(outer);
        outer = next;
    }
    ist_queue_release(outer);
    nothing_left();
}

/* One segment waits in more queues than a descriptor has cells. */
Test(queue, in_many_queues) {
    enum { MANY = 40 };
    ist_queue *q[MANY];
    ist_segment s = test_create(300, 0);
    test_fill(ist_segment_data(s), 300, 9);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MANY; i++) {
            if (round == 0)
                q[i] = create(0);
            put_segments(q[i], &s, 1, 0);
        }
        ist_segment_release(s);
        for (int i = 0; i < MANY; i++) {
            ist_queue_message m = get(q[(i * 7 + round) % MANY]);
            CHECK(test_filled(ist_segment_data(m.few[0]), 300, 9));
            if (i + 1 == MANY)
                s = m.few[0];
            else
                ist_queue_message_clear(&m);
        }
    }
    ist_token token = test_token(s);
    ist_segment_release(s);
    CHECK_EQ(ist_segment_acquire(&token, &s), -ESTALE);
    for (int i = 0; i < MANY; i++)
        ist_queue_release(q[i]);
    nothing_left();
}

Test(queue, a_message_counts_as_a_holder) {
    ist_queue *q = create(0);
    ist_segment s = test_create(10, 0);
    put_segments(q, &s, 1, 0);
    CHECK_EQ(ist_segment_freeze(s), -EBUSY);
    ist_queue_message m = get(q);
    ist_queue_message_clear(&m);
    CHECK_EQ(ist_segment_freeze(s), 0);
    put_segments(q, &s, 1, 0);
    CHECK_EQ(ist_segment_make_writable(&s), -EBUSY);
    m = get(q);
    CHECK(ist_segment_is_frozen(m.few[0]));
    ist_queue_message_clear(&m);
    CHECK_EQ(ist_segment_make_writable(&s), 0);
    ist_segment_release(s);
    ist_segment of_q = ist_queue_segment(q);
    CHECK_EQ(ist_segment_freeze(of_q), -EINVAL);
    ist_queue_release(q);
    nothing_left();
}

Test(queue, wrong_arguments) {
    static char memory[64];
    ist_queue *q = create(2), *other;
    ist_segment wrapped, plain = test_create(1, 0);
    CHECK_EQ(ist_segment_wrap(memory, sizeof memory, NULL, NULL, 0, &wrapped), 0);
    put_segments(q, &wrapped, 1, -EXDEV);
    ist_segment none = {0};
    put_segments(q, &none, 1, -EINVAL);
    CHECK_EQ(ist_queue_open(plain, &other), -EINVAL);
    ist_token token = test_token(plain);
    CHECK_EQ(ist_queue_attach(&token, &other), -EINVAL);
    CHECK_EQ(info(q).size, 0);
    ist_segment_release(wrapped);
    ist_segment_release(plain);
    ist_queue_release(q);
    nothing_left();
}

/* More than a ring can have: as many as it can. Also where such a number and a few places more wouldn't fit its type. */
Test(queue, any_maxsize) {
    const uint64_t sizes[] = {UINT64_C(1) << 24, UINT64_C(1) << 60, UINT64_MAX - 1000, UINT64_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        ist_queue *q = create(sizes[i]);
        CHECK(info(q).maxsize == 0 && info(q).capacity > 1024);
        ist_queue_release(q);
    }
    nothing_left();
}

Test(queue, tasks) {
    ist_queue *q = create(0);
    CHECK_EQ(ist_queue_join(q, 0, NULL), 0);
    CHECK_EQ(ist_queue_task_done(q), -ERANGE);
    put_number(q, 1);
    put_number(q, 2);
    CHECK_EQ(ist_queue_join(q, 0, NULL), -EAGAIN);
    get_number(q, 0);
    CHECK_EQ(ist_queue_task_done(q), 0);
    CHECK_EQ(info(q).unfinished, 1);
    get_number(q, 0);
    CHECK_EQ(ist_queue_join(q, 0, NULL), -EAGAIN);
    CHECK_EQ(ist_queue_task_done(q), 0);
    CHECK_EQ(ist_queue_join(q, 0, NULL), 0);
    CHECK_EQ(ist_queue_task_done(q), -ERANGE);
    ist_queue_release(q);
    nothing_left();
}

Test(queue, shutdown) {
    ist_queue *q = create(0);
    put_number(q, 1);
    CHECK_EQ(ist_queue_shutdown(q, false), 0);
    CHECK_EQ(put_number(q, 2), -ESHUTDOWN);
    CHECK_EQ(get_number(q, 0), 1);
    CHECK_EQ(get_number(q, 0), -ESHUTDOWN);
    CHECK_EQ(get_number(q, FOREVER), -ESHUTDOWN);
    CHECK(info(q).shutdown && info(q).unfinished == 1);
    ist_queue_release(q);
    q = create(3);
    ist_segment s = test_create(10, 0);
    put_number(q, 1);
    put_segments(q, &s, 1, 0);
    ist_segment_release(s);
    CHECK_EQ(ist_queue_shutdown(q, true), 0);
    CHECK_EQ(test_stats().segments, 1);
    CHECK_EQ(ist_queue_join(q, 0, NULL), 0);
    CHECK_EQ(get_number(q, 0), -ESHUTDOWN);
    ist_queue_release(q);
    nothing_left();
}

/* Nobody sleeps here: a clock that only waiting moves. */
static uint64_t clock_now = 1000;
static _Thread_local bool turned; /* the housekeeper keeps the real one */
static struct isti_os real;
static uint64_t f_now(void) { return turned ? clock_now : real.now(); }
static int f_wait(_Atomic(uint32_t) *word, uint32_t expected, uint64_t deadline) {
    if (!turned)
        return real.futex_wait(word, expected, deadline);
    clock_now = deadline;
    return ETIMEDOUT;
}
static int f_interrupted(_Atomic(uint32_t) *word, uint32_t expected, uint64_t deadline) {
    return turned ? EINTR : real.futex_wait(word, expected, deadline);
}

Test(queue, deadlines) {
    ist_queue *q = create(1);
    real = isti_os;
    turned = true;
    isti_os.now = f_now;
    isti_os.futex_wait = f_wait;
    CHECK_EQ(get_number(q, clock_now + UINT64_C(3600000000000)), -ETIMEDOUT);
    CHECK_EQ(clock_now, 1000 + UINT64_C(3600000000000));
    CHECK_EQ(get_number(q, clock_now - 1), -ETIMEDOUT);
    put_number(q, 1);
    ist_queue_message m = {.size = 1};
    CHECK_EQ(ist_queue_put(q, &m, clock_now + 12345, NULL), -ETIMEDOUT);
    CHECK_EQ(clock_now, 1000 + UINT64_C(3600000000000) + 12345);
    CHECK_EQ(ist_queue_join(q, clock_now + 1, NULL), -ETIMEDOUT);
    isti_os.futex_wait = f_interrupted;
    CHECK_EQ(ist_queue_put(q, &m, FOREVER, NULL), -EINTR);
    CHECK_EQ(ist_queue_join(q, FOREVER, NULL), -EINTR);
    get_number(q, 0);
    CHECK_EQ(get_number(q, FOREVER), -EINTR);
    ist_waiter waiter = {0};
    ist_waiter_stop(&waiter);
    CHECK_EQ(ist_queue_get(q, &m, FOREVER, &waiter), -ECANCELED);
    ist_waiter_reset(&waiter);
    CHECK_EQ(ist_queue_get(q, &m, FOREVER, &waiter), -EINTR);
    ist_queue_release(q);
}

/* ---- threads */

struct job {
    ist_queue *q;
    ist_waiter waiter;
    uint64_t first, count;
    int error;
};

static void *put_all(void *argument) {
    struct job *job = argument;
    for (uint64_t i = 0; i < job->count; i++) {
        ist_queue_message m = {.tag = 1, .size = 8};
        uint64_t n = job->first + i;
        memcpy(m.bytes, &n, 8);
        CHECK_EQ(ist_queue_put(job->q, &m, FOREVER, NULL), 0);
    }
    return NULL;
}

static void *wait_for_one(void *argument) {
    struct job *job = argument;
    ist_queue_message m;
    job->error = ist_queue_get(job->q, &m, FOREVER, &job->waiter);
    return NULL;
}

static bool somebody_waits(void *word) { return (atomic_load_explicit((_Atomic(uint32_t) *)word, memory_order_relaxed) & 1) != 0; }
static struct isti_ring *ring_of(ist_queue *q) { return ist_segment_data(ist_queue_segment(q)); }

Test(queue, between_threads) {
    enum { EACH = 20000 };
    ist_queue *q = create(7);
    struct job jobs[2] = {{.q = q, .first = 0, .count = EACH}, {.q = q, .first = 1000000, .count = EACH}};
    pthread_t threads[2] = {test_thread(put_all, &jobs[0]), test_thread(put_all, &jobs[1])};
    int64_t next[2] = {0, 1000000};
    for (int i = 0; i < 2 * EACH; i++) {
        int64_t n = get_number(q, FOREVER);
        CHECK_EQ(n, next[n >= 1000000]++);
    }
    test_join(threads[0]);
    test_join(threads[1]);
    CHECK_EQ(get_number(q, 0), -EAGAIN);
    ist_queue_release(q);
    nothing_left();
}

Test(queue, a_waiter_is_stopped) {
    ist_queue *q = create(1);
    struct job job = {.q = q};
    pthread_t thread = test_thread(wait_for_one, &job);
    CHECK(test_until(somebody_waits, &ring_of(q)->not_empty, 10));
    uint64_t before = test_now();
    ist_waiter_stop(&job.waiter);
    test_join(thread);
    CHECK_EQ(job.error, -ECANCELED);
    CHECK(test_now() - before < UINT64_C(5000000000));
    ist_queue_release(q);
    nothing_left();
}

Test(queue, shutdown_wakes) {
    ist_queue *q = create(1);
    struct job job = {.q = q};
    pthread_t thread = test_thread(wait_for_one, &job);
    CHECK(test_until(somebody_waits, &ring_of(q)->not_empty, 10));
    CHECK_EQ(ist_queue_shutdown(q, false), 0);
    test_join(thread);
    CHECK_EQ(job.error, -ESHUTDOWN);
    ist_queue_release(q);
    nothing_left();
}

/* ---- what a queue costs */

Test(queue, memory) {
    struct stat st;
    ist_queue *q[16];
    ist_queue_release(create(0));
    ist_collect();
    struct isti_domain *d = isti_domain_home_now();
    CHECK_EQ(fstat(d->data_fd, &st), 0);
    blkcnt_t before = st.st_blocks;
    for (int i = 0; i < 16; i++)
        q[i] = create(i % 2 == 0 ? 0 : 10);
    CHECK_EQ(fstat(d->data_fd, &st), 0);
    CHECK(st.st_blocks - before <= 16 * 8, "%lld blocks for 16 queues", (long long)(st.st_blocks - before));
    for (uint64_t n = 0; n < 200000; n++) { /* 12 MiB of messages go through */
        CHECK_EQ(put_number(q[0], n), 0);
        CHECK_EQ(get_number(q[0], 0), (int64_t)n);
    }
    CHECK_EQ(fstat(d->data_fd, &st), 0);
    CHECK(st.st_blocks - before <= 16 * 8 + 80, "%lld blocks afterwards", (long long)(st.st_blocks - before));
    for (int i = 0; i < 16; i++)
        ist_queue_release(q[i]);
}

/* Rows are used again, and positions go on. */
Test(queue, many_in_turn) {
    for (int i = 0; i < 10000; i++) {
        ist_queue *q = create((uint64_t)(i % 5));
        put_number(q, 1);
        if (i % 3 == 0)
            CHECK_EQ(get_number(q, 0), 1);
        ist_queue_release(q);
    }
    struct isti_domain *d = isti_domain_home_now();
    const uint32_t rows = atomic_load_explicit(&d->marks->queues, memory_order_relaxed);
    CHECK(rows <= 64, "%u rows", rows);
    nothing_left();
}

Test(queue, table_full) {
    ist_queue **q = calloc(ISTI_QUEUES + 1, sizeof *q);
    unsigned n = 0;
    while (n <= ISTI_QUEUES && ist_queue_create(1, &q[n]) == 0)
        n++;
    CHECK_EQ(n, ISTI_QUEUES);
    CHECK_EQ(ist_queue_create(1, &q[n]), -ENOSPC);
    ist_queue_release(q[100]);
    q[100] = create(1);
    for (unsigned i = 0; i < n; i++)
        ist_queue_release(q[i]);
    free(q);
    nothing_left();
}

Test(queue, many_without_limit) {
    enum { MANY = 300 };
    ist_queue *q[MANY];
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < MANY; i++) {
        q[i] = create(0);
        least = info(q[i]).capacity < least ? info(q[i]).capacity : least;
        CHECK_EQ(put_number(q[i], 1), 0);
    }
    CHECK(least >= 3000, "%llu", (unsigned long long)least);
    ist_segment_release(test_create(1 << 30, 0)); /* there is room for others */
    for (int i = 0; i < MANY; i++)
        ist_queue_release(q[i]);
    nothing_left();
}

/* ---- other processes */

static long put_two_lists(void *unused) {
    (void)unused;
    ist_segment s[20];
    for (int i = 0; i < 20; i++)
        s[i] = test_create(100, 0);
    put_segments(q_here, s, 20, 0);
    put_segments(q_here, s, 3, 0);
    for (int i = 0; i < 20; i++)
        ist_segment_release(s[i]);
    return 0;
}

Test(queue, a_message_outlives_its_sender) {
    begin();
    peer p = peer_start();
    offer_queue(0);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, attach_queue, NULL), 0);
    CHECK_EQ(peer_call(&p, put_two_lists, NULL), 0);
    peer_kill(&p);
    CHECK_EQ(ist_sweep(), 1);
    ist_queue_message m = get(q_here);
    CHECK_EQ(m.count, 20);
    ist_queue_message_clear(&m);
    ist_queue_release(q_here); /* with the other one in it */
    nothing_left();
    CHECK(peer_memory_returns(0, 5));
}

/* From now on nobody looks by himself after a while: a wake-up that is missing isn't made up for. */
static int wait_for_ever(_Atomic(uint32_t) *word, uint32_t expected, uint64_t deadline) {
    (void)deadline;
    return real.futex_wait(word, expected, UINT64_MAX);
}
static long no_backstop(void *unused) {
    (void)unused;
    real = isti_os;
    isti_os.futex_wait = wait_for_ever;
    return 0;
}

Test(queue, wakes_another_process, .timeout = 60) {
    begin();
    peer p = peer_start();
    offer_queue(3);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, attach_queue, NULL), 0);
    CHECK_EQ(peer_call(&p, no_backstop, NULL), 0);
    for (int i = 0; i < 100; i++) {
        peer_begin(&p, get_one, NULL);
        if (i % 2 == 0)
            CHECK(test_until(somebody_waits, &ring_of(q_here)->not_empty, 10));
        CHECK_EQ(put_seven(NULL), 0);
        CHECK_EQ(peer_finish(&p), 7);
    }
    CHECK_EQ(peer_call(&p, release_queue, NULL), 0);
    ist_queue_release(q_here);
    nothing_left();
    peer_end(&p);
}

/* Whoever comes to what a killed sender began goes on behind it, by itself: get, a put into a full queue, join. */
Test(queue, a_sender_dies_within_a_put) {
    begin();
    peer p = peer_start();
    offer_queue(2);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, attach_queue, NULL), 0);
    CHECK_EQ(peer_call(&p, claim_only, NULL), 0);
    CHECK_EQ(put_seven(NULL), 0);
    CHECK_EQ(put_seven(NULL), -EAGAIN);
    CHECK_EQ(get_number(q_here, 0), -EAGAIN); /* its sender lives, and may go on */
    CHECK_EQ(ist_queue_join(q_here, 0, NULL), -EAGAIN);
    peer_kill(&p);
    CHECK_EQ(put_seven(NULL), 0);
    CHECK_EQ(get_number(q_here, 0), 7);
    CHECK_EQ(get_number(q_here, FOREVER), 7);
    CHECK_EQ(ist_queue_task_done(q_here), 0);
    CHECK_EQ(ist_queue_task_done(q_here), 0);
    CHECK_EQ(ist_queue_join(q_here, 0, NULL), 0);
    ist_queue_release(q_here);
    nothing_left();
}

Test(queue, a_receiver_finds_the_dead) {
    begin();
    peer p = peer_start();
    offer_queue(0);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, attach_queue, NULL), 0);
    CHECK_EQ(peer_call(&p, claim_only, NULL), 0);
    CHECK_EQ(peer_call(&p, put_seven, NULL), 0);
    peer_kill(&p);
    CHECK_EQ(get_number(q_here, 0), 7);
    ist_queue_release(q_here);
    nothing_left();
}

Test(queue, the_last_holder_dies) {
    begin();
    peer p = peer_start();
    offer_queue(0);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, attach_queue, NULL), 0);
    ist_segment s = test_create(1000, 0);
    put_segments(q_here, &s, 1, 0);
    ist_token token = test_token(s);
    ist_segment_release(s);
    ist_queue_release(q_here);
    CHECK_EQ(ist_segment_acquire(&token, &s), 0); /* the message holds it */
    ist_segment_release(s);
    peer_kill(&p);
    CHECK_EQ(ist_sweep(), 1);
    CHECK_EQ(ist_segment_acquire(&token, &s), -ESTALE);
    nothing_left();
    CHECK(peer_memory_returns(0, 5));
}

Test(queue, a_forked_child_goes_on) {
    begin();
    offer_queue(4);
    CHECK_EQ(put_seven(NULL), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        CHECK_EQ(get_number(q_here, 0), 7);
        CHECK_EQ(put_number(q_here, 8), 0);
        CHECK_EQ(put_two_lists(NULL), 0);
        ist_queue_release(q_here);
        _exit(0);
    }
    CHECK_EQ(test_wait(child, 30), 0);
    CHECK_EQ(get_number(q_here, 0), 8);
    ist_queue_message m = get(q_here);
    CHECK_EQ(m.count, 20);
    ist_queue_message_clear(&m);
    ist_queue_release(q_here);
    CHECK_EQ(ist_sweep(), 1);
    nothing_left();
}
