/* plain_queue.c: senders and receivers in threads and processes that are killed and stopped at random.
 *
 * Messages have numbers, and memory that outlives everybody knows of each number whether it was being put, was put, was got. So at the end:
 *
 *   got at most once, and only what was being put
 *   put and not got: only what a killed receiver had in its hand, one for each of its threads
 *   of one sender a receiver gets rising numbers from one queue
 *   nothing is left: no segment, no mark, no page, and nobody waits for the dead
 *
 * Some messages refer to segments, whose content says what they are; some to queues with messages of their own, which may vanish with them.
 */
#include "control_check.h"
#include "gang.h"
#include "os.h"

#include <errno.h>
#include <isthmus/process.h>
#include <isthmus/queue.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if TEST_ASAN || TEST_TSAN
#  define SANITIZED 1
#else
#  define SANITIZED 0
#endif

enum { WORKERS = 4, THREADS = 2, QUEUES = 4, NUMBERS = 1 << 23, SENDERS = 1 << 14 };
enum { PUTTING = 1, PUT = 2, NOT_PUT = 3, MAY_VANISH = 4 };
static const uint64_t sizes[QUEUES] = {0, 1, 5, 2000};

static struct stage {
    struct swarm_area area;
    ist_token queues[QUEUES];
    _Atomic(uint32_t) over, next_sender, puts, gets, lists, inner, tasks;
    _Atomic(uint32_t) next_number;
    _Atomic(uint8_t) sent[NUMBERS], got[NUMBERS];
} *stage;

struct content { /* of a message */
    uint32_t number, sender, sequence;
};

struct self {
    struct swarm_self swarm;
    ist_queue *q[QUEUES];
    uint32_t sender, sequence;
    uint32_t seen[QUEUES][SENDERS]; /* sequence of the last one of each sender, + 1 */
};

static uint64_t any(struct self *self, uint64_t n) { return (test_random(&self->swarm.random) >> 16) % n; }
static void count(_Atomic(uint32_t) *counter) { atomic_fetch_add_explicit(counter, 1, memory_order_relaxed); } /* relaxed: a statistic */

static uint64_t some_time(struct self *self) { return any(self, 2) == 0 ? 0 : test_now() + any(self, 3000000); }

/* ---- one message */

static bool fine(int error) {
    CHECK(error == 0 || error == -EAGAIN || error == -ETIMEDOUT || error == -ENOSPC || error == -ESHUTDOWN, "%s", ist_strerror(error));
    return error == 0;
}

static int put(struct self *self, ist_queue *q, ist_queue_message *m, bool may_vanish) {
    struct content content = {.number = atomic_fetch_add_explicit(&stage->next_number, 1, memory_order_relaxed), /* relaxed: unique alone */
                              .sender = self->sender,
                              .sequence = ++self->sequence};
    if (content.number >= NUMBERS)
        return -EAGAIN;
    m->tag = 1;
    m->size = sizeof content;
    memcpy(m->bytes, &content, sizeof content);
    atomic_store_explicit(&stage->sent[content.number], may_vanish ? MAY_VANISH : PUTTING, memory_order_relaxed); /* relaxed: put's order */
    int error = ist_queue_put(q, m, some_time(self), NULL);
    if (!may_vanish)
        atomic_store_explicit(&stage->sent[content.number], error == 0 ? PUT : NOT_PUT, memory_order_relaxed);
    if (error == 0)
        count(&stage->puts);
    return error;
}

static void let_go(ist_queue_message *m) {
    const ist_segment *s = m->many != NULL ? m->many : m->few;
    for (uint32_t i = 0; i < m->count; i++) {
        ist_segment_info info;
        ist_segment_read_info(s[i], &info);
        CHECK(info.owners > 0);
        if (info.kind != IST_KIND_QUEUE)
            swarm_check(s[i], swarm_tag(s[i]), "got");
    }
    ist_queue_message_clear(m);
}

/* which: of the standing ones; QUEUES: another. */
static bool get(struct self *self, ist_queue *q, unsigned which) {
    ist_queue_message m;
    if (!fine(ist_queue_get(q, &m, some_time(self), NULL)))
        return false;
    struct content c;
    CHECK(m.tag == 1 && m.size == sizeof c);
    memcpy(&c, m.bytes, sizeof c);
    CHECK(c.number < NUMBERS && c.sender < SENDERS);
    uint8_t sent = atomic_load_explicit(&stage->sent[c.number], memory_order_relaxed); /* relaxed: get's order */
    CHECK(sent == PUTTING || sent == PUT || sent == MAY_VANISH, "number %u was got, and its state is %u", c.number, sent);
    CHECK(atomic_exchange_explicit(&stage->got[c.number], 1, memory_order_relaxed) == 0, "number %u was got twice", c.number);
    if (which < QUEUES) {
        uint32_t *seen = &self->seen[which][c.sender];
        CHECK(c.sequence > *seen, "sender %u: %u after %u", c.sender, c.sequence, *seen);
        *seen = c.sequence;
    }
    if (m.count == 1) { /* maybe a queue: something comes out of it, or is put into it */
        ist_queue *inner;
        ist_segment s = m.few[0];
        if (ist_queue_open(s, &inner) == 0) {
            m.few[0] = (ist_segment){0};
            m.count = 0;
            get(self, inner, QUEUES);
            ist_queue_release(inner);
        }
    }
    let_go(&m);
    count(&stage->gets);
    if (which < QUEUES && ist_queue_task_done(q) == 0)
        count(&stage->tasks);
    return true;
}

/* ---- steps */

static void put_bytes(struct self *self, ist_queue *q) {
    ist_queue_message m = {.count = 0};
    fine(put(self, q, &m, false));
}

static void put_segments(struct self *self, ist_queue *q, bool may_vanish) {
    ist_segment segments[20];
    ist_queue_message m = {.count = 1 + (uint32_t)any(self, any(self, 4) == 0 ? 20 : 3), .many = segments};
    for (uint32_t i = 0; i < m.count; i++) {
        if (self->swarm.count > 0 && any(self, 2) == 0) {
            segments[i] = self->swarm.held[any(self, self->swarm.count)].segment;
            ist_segment_retain(segments[i]);
        } else
            segments[i] = swarm_make(&stage->area, 16 + any(self, 300)).segment;
    }
    if (m.count > 4)
        count(&stage->lists);
    fine(put(self, q, &m, may_vanish));
    for (uint32_t i = 0; i < m.count; i++)
        ist_segment_release(segments[i]);
}

static void put_queue(struct self *self, ist_queue *q) {
    ist_queue *inner;
    int error = ist_queue_create(any(self, 3), &inner);
    CHECK(error == 0 || error == -ENOSPC, "%s", ist_strerror(error));
    if (error != 0)
        return;
    for (uint64_t n = any(self, 4); n > 0; n--)
        put_segments(self, inner, true);
    if (any(self, 4) == 0)
        CHECK_EQ(ist_queue_shutdown(inner, true), 0);
    ist_queue_message m = {.count = 1, .few = {ist_queue_segment(inner)}};
    fine(put(self, q, &m, false));
    count(&stage->inner);
    ist_queue_release(inner);
}

static void step(struct self *self) {
    unsigned which = (unsigned)any(self, QUEUES);
    ist_queue *q = self->q[which];
    uint64_t r = any(self, 100);
    if (r < 25)
        put_bytes(self, q);
    else if (r < 38)
        put_segments(self, q, false);
    else if (r < 41)
        put_queue(self, q);
    else if (r < 92)
        get(self, q, which);
    else if (r < 93 && any(self, 10) == 0)
        ist_sweep();
    else if (r < 94) { /* the handle anew */
        ist_queue_release(q);
        CHECK_EQ(ist_queue_attach(&stage->queues[which], &self->q[which]), 0);
        int fd; /* from now on it is told of messages */
        if (any(self, 4) == 0)
            CHECK_EQ(ist_queue_fileno(self->q[which], &fd), 0);
    } else
        swarm_step(&self->swarm);
}

static ist_queue *supervised[QUEUES]; /* the supervisor's */

static struct self *begin_self(uint64_t seed) {
    struct self *self = calloc(1, sizeof *self);
    CHECK(self != NULL);
    self->swarm = (struct swarm_self){.area = &stage->area, .random = seed | 1, .lost_of = 5};
    self->sender = atomic_fetch_add_explicit(&stage->next_sender, 1, memory_order_relaxed); /* relaxed: unique alone */
    CHECK(self->sender < SENDERS);
    for (unsigned i = 0; i < QUEUES; i++)
        CHECK_EQ(ist_queue_attach(&stage->queues[i], &self->q[i]), 0);
    return self;
}

static void *run(void *seed) {
    struct self *self = begin_self(*(uint64_t *)seed);
    while (atomic_load_explicit(&stage->over, memory_order_relaxed) == 0) { /* relaxed: told when to stop */
        step(self);
        swarm_live(&stage->area);
    }
    swarm_release_all(&self->swarm);
    for (unsigned i = 0; i < QUEUES; i++)
        ist_queue_release(self->q[i]);
    free(self);
    return NULL;
}

static void work(unsigned number, uint64_t seed) {
    (void)number;
    for (unsigned i = 0; i < QUEUES; i++)
        ist_queue_release(supervised[i]); /* by fork: inherited */
    ist_lease_set_duration(UINT64_C(5000000));
    uint64_t seeds[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        seeds[i] = seed * 31 + (uint64_t)i * 77;
        threads[i] = test_thread(run, &seeds[i]);
    }
    for (int i = 0; i < THREADS; i++)
        test_join(threads[i]);
    ist_stats stats = test_stats();
    CHECK_EQ(stats.misuses + stats.saturated, 0);
    exit(0);
}

/* ---- the supervisor */

static struct gang gang = {.program = "plain_queue", .workers = WORKERS, .work = work, .execs_only = SANITIZED};

static bool is_empty(void *text) {
    ist_sweep();
    ist_collect();
    return control_look(isti_domain_home_now(), CONTROL_SWEPT | CONTROL_QUIET | CONTROL_EMPTY, text, 300);
}

/* What is left in the queues is got here; then the books are looked through. */
static void settle(void) {
    struct self *self = begin_self(gang.random);
    for (unsigned i = 0; i < QUEUES; i++) {
        while (get(self, self->q[i], i))
            ;
        ist_queue_info info;
        ist_queue_read_info(self->q[i], &info);
        CHECK(info.size == 0, "%llu messages are left in queue %u", (unsigned long long)info.size, i);
        CHECK(info.unfinished <= (uint64_t)gang.kills * THREADS, "queue %u: %llu tasks", i, (unsigned long long)info.unfinished);
        ist_queue_release(self->q[i]);
        ist_queue_release(supervised[i]);
    }
    free(self);
    uint32_t lost = 0;
    for (uint32_t n = 0; n < NUMBERS; n++)
        lost += stage->sent[n] == PUT && stage->got[n] == 0;
    CHECK(lost <= gang.kills * THREADS, "%u messages are lost", lost);
    printf("%u kills, %u stops; %u messages put, %u got, %u with lists, %u queues in queues, %u tasks; %u lost by killed receivers\n",
           gang.kills, gang.stops, stage->puts, stage->gets, stage->lists, stage->inner, stage->tasks, lost);
}

int main(int argc, char **argv) {
    if (argc == 4) {
        stage = swarm_area_at(atoi(argv[1]), sizeof *stage);
        gang_work(&gang, argv);
    }
    stage = gang_begin(&gang, 64, 1 << 16, sizeof *stage);
    for (unsigned i = 0; i < QUEUES; i++) {
        CHECK_EQ(ist_queue_create(sizes[i], &supervised[i]), 0);
        stage->queues[i] = test_token(ist_queue_segment(supervised[i]));
    }
    const uint64_t end = test_storm_end(SANITIZED ? 6 : 8);
    for (unsigned w = 0; w < WORKERS; w++)
        gang_start(&gang, w);
    while (test_now() < end && stage->next_number < NUMBERS / 2 && stage->next_sender < SENDERS - 100) {
        poll(NULL, 0, (int)(test_random(&gang.random) % (SANITIZED ? 80 : 15)));
        gang_disturb(&gang);
    }
    atomic_store_explicit(&stage->over, 1, memory_order_relaxed);
    for (unsigned w = 0; w < WORKERS; w++) {
        gang_go_on(&gang, w);
        gang_reap(&gang, w, 0);
    }
    ist_sweep();
    settle();
    char text[300];
    CHECK(test_until(is_empty, text, 10), "%s", text);
    CHECK(gang.kills > 5 && stage->puts > 1000 && stage->gets > 1000 && stage->lists > 10 && stage->inner > 10);
    return 0;
}
