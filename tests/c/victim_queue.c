/* victim_queue.c: the part of plain_killpoints that is about queues: see victim.h. */
#include "harness.h"
#include "victim.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { LISTED = 10, CELLS_MORE = 12 };

static void create(uint64_t maxsize, ist_queue **out) { CHECK_EQ(ist_queue_create(maxsize, out), 0); }

static int put(struct swarm_area *area, ist_queue *q, uint32_t count) {
    ist_segment segments[LISTED];
    ist_queue_message m = {.tag = 3, .size = 8, .count = count, .many = segments};
    for (uint32_t i = 0; i < count; i++)
        segments[i] = swarm_make(area, 200).segment;
    int error = ist_queue_put(q, &m, 0, NULL);
    for (uint32_t i = 0; i < count; i++)
        ist_segment_release(segments[i]);
    return error;
}

static int get(ist_queue *q, uint64_t deadline) {
    ist_queue_message m;
    int error = ist_queue_get(q, &m, deadline, NULL);
    if (error != 0)
        return error;
    CHECK(m.tag == 3 && m.size == 8);
    const ist_segment *s = m.many != NULL ? m.many : m.few;
    for (uint32_t i = 0; i < m.count; i++)
        swarm_check(s[i], swarm_tag(s[i]), "got");
    ist_queue_message_clear(&m);
    return 0;
}

/* Somebody who stands still in a put holds up the receivers, and may fill it. */
static void may_wait(int error) { CHECK(error == 0 || error == -EAGAIN || error == -ENOSPC, "%s", ist_strerror(error)); }

void bystander_step(struct swarm_self *self, ist_queue *q) {
    switch (test_random(&self->random) >> 20 & 7) {
    case 0: may_wait(put(self->area, q, 0)); break;
    case 1: may_wait(put(self->area, q, 2)); break;
    case 2: may_wait(put(self->area, q, LISTED)); break;
    default: may_wait(get(q, 0)); break;
    }
}

static void plain(struct swarm_area *area) {
    ist_queue *q;
    int fd;
    create(2, &q);
    CHECK_EQ(ist_queue_fileno(q, &fd), 0);
    CHECK_EQ(put(area, q, 1), 0);
    CHECK_EQ(put(area, q, LISTED), 0);
    CHECK_EQ(put(area, q, 0), -EAGAIN);
    CHECK_EQ(get(q, 0), 0);
    CHECK_EQ(get(q, 0), 0);
    CHECK_EQ(get(q, test_now() + 200000), -ETIMEDOUT);
    CHECK_EQ(ist_queue_task_done(q), 0);
    CHECK_EQ(put(area, q, 1), 0);
    CHECK_EQ(put(area, q, LISTED), 0);
    CHECK_EQ(ist_queue_shutdown(q, true), 0);
    CHECK_EQ(get(q, 0), -ESHUTDOWN);
    ist_queue_release(q);
    create(0, &q);
    for (int i = 0; i < 700; i++) { /* some pages of messages */
        CHECK_EQ(put(area, q, 0), 0);
        CHECK_EQ(get(q, 0), 0);
    }
    CHECK_EQ(put(area, q, 1), 0);
    CHECK_EQ(put(area, q, LISTED), 0);
    ist_queue_release(q); /* and what is in it */
}

/* In more queues than a descriptor has cells for. */
static void in_many(struct swarm_area *area) {
    ist_queue *q[CELLS_MORE];
    struct swarm_held held = swarm_make(area, 500);
    ist_queue_message m = {.tag = 3, .size = 8, .count = 1, .few = {held.segment}};
    for (int i = 0; i < CELLS_MORE; i++) {
        create(1, &q[i]);
        CHECK_EQ(ist_queue_put(q[i], &m, 0, NULL), 0);
    }
    ist_segment_release(held.segment);
    for (int i = 0; i < CELLS_MORE; i++) {
        if (i % 2 == 0)
            CHECK_EQ(get(q[i], 0), 0);
        ist_queue_release(q[i]);
    }
}

/* A helper dies before its message, a list, is there: it is swept, and passed. */
static void half_put(struct swarm_area *area) {
    ist_queue *q;
    create(3, &q);
    pid_t helper = victim_fork();
    if (helper == 0) {
        isti_point_arm(ISTI_POINT_PUT_MARKED, 1);
        (void)!put(area, q, LISTED);
        _exit(1);
    }
    victim_end_of(helper, true);
    CHECK_EQ(put(area, q, 1), 0);
    ist_sweep();
    CHECK_EQ(get(q, 0), 0);
    CHECK_EQ(get(q, 0), -EAGAIN);
    CHECK_EQ(ist_queue_task_done(q), 0);
    CHECK_EQ(ist_queue_join(q, 0, NULL), 0); /* what was never put isn't waited for */
    ist_queue_release(q);
}

/* A helper lets go of a queue last, and dies as soon as it has to empty it. */
static void half_drained(struct swarm_area *area) {
    ist_queue *q;
    int go[2];
    char byte = 0;
    create(3, &q);
    CHECK_EQ(put(area, q, 2), 0);
    CHECK_EQ(put(area, q, LISTED), 0);
    CHECK_EQ(pipe(go), 0);
    pid_t helper = victim_fork();
    if (helper == 0) {
        close(go[1]);
        (void)!read(go[0], &byte, 1); /* until the victim has let go, or is dead */
        isti_point_arm(ISTI_POINT_DRAIN_BEGUN, 1);
        ist_queue_release(q);
        _exit(0);
    }
    close(go[0]);
    ist_queue_release(q);
    close(go[1]);
    victim_end_of(helper, true);
    ist_sweep();
}

void victim_queues(struct swarm_area *area, const ist_token *queue) {
    ist_queue *q;
    CHECK_EQ(ist_queue_attach(queue, &q), 0);
    may_wait(put(area, q, 0));
    may_wait(put(area, q, 2));
    may_wait(put(area, q, LISTED));
    may_wait(get(q, 0));
    may_wait(get(q, 0));
    plain(area);
    in_many(area);
    half_put(area);
    half_drained(area);
    may_wait(put(area, q, 1));
    ist_queue_release(q);
}
