/* test_housekeeper.c: the housekeeper's sleep, wake and end, on a clock and a futex that the tests own. plain_memory has the real ones. */
#include "harness.h"
#include "housekeeper.h"
#include "os.h"

#include <criterion/criterion.h>
#include <isthmus/lease.h>
#include <stdlib.h>

#define SECOND UINT64_C(1000000000)
#define WATCHING UINT64_MAX /* asleep without a deadline: other processes may ring, from the first token or lease on */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t clock_now = 1000 * SECOND; /* this and what follows: under the mutex */
static uint64_t asleep_until;              /* 0: not asleep; WATCHING */
static unsigned started, running, sleeps;
static void (*before_sleep)(void); /* once, in the housekeeper's thread, between its last look and the sleep */

static struct isti_os real;

static uint64_t turned(void) {
    pthread_mutex_lock(&mutex);
    uint64_t now = clock_now;
    pthread_mutex_unlock(&mutex);
    return now;
}

static int wait(_Atomic(uint32_t) *word, uint32_t expected, uint64_t deadline) {
    pthread_mutex_lock(&mutex);
    void (*hook)(void) = before_sleep;
    before_sleep = NULL;
    pthread_mutex_unlock(&mutex);
    if (hook != NULL)
        hook();
    pthread_mutex_lock(&mutex);
    sleeps++;
    /* acquire: as the kernel's look at the word */
    while (atomic_load_explicit(word, memory_order_acquire) == expected && clock_now < deadline) {
        asleep_until = deadline;
        pthread_cond_broadcast(&changed);
        pthread_cond_wait(&changed, &mutex);
    }
    asleep_until = 0;
    pthread_mutex_unlock(&mutex);
    return 0;
}

static int wake(_Atomic(uint32_t) *word, int waiters) {
    (void)word, (void)waiters;
    pthread_mutex_lock(&mutex);
    asleep_until = 0; /* it is going to look again: nobody may take it for asleep in between */
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    return 1;
}

struct start {
    void *(*run)(void *);
    void *argument;
};

static void *tracked(void *argument) {
    struct start start = *(struct start *)argument;
    free(argument);
    start.run(start.argument);
    pthread_mutex_lock(&mutex);
    running--;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static bool refuse_threads;

static int create(void *(*run)(void *), void *argument) {
    if (refuse_threads)
        return EAGAIN;
    struct start *start = malloc(sizeof *start);
    *start = (struct start){run, argument};
    pthread_mutex_lock(&mutex);
    started++;
    running++;
    CHECK(running == 1, "two housekeepers");
    pthread_mutex_unlock(&mutex);
    return real.thread_create(tracked, start);
}

static void setup(void) {
    real = isti_os;
    isti_os.now = turned;
    isti_os.futex_wait = wait;
    isti_os.futex_wake = wake;
    isti_os.thread_create = create;
}
TestSuite(housekeeper, .init = setup, .timeout = 30);

/* Until the housekeeper sleeps, or has ended; returns until when it sleeps, 0: ended. */
static uint64_t settled(void) {
    pthread_mutex_lock(&mutex);
    while (running != 0 && asleep_until <= clock_now)
        pthread_cond_wait(&changed, &mutex);
    uint64_t until = running != 0 ? asleep_until : 0;
    pthread_mutex_unlock(&mutex);
    return until;
}

static void turn_to(uint64_t now) {
    pthread_mutex_lock(&mutex);
    clock_now = now;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

/* A lease that only the table holds, of a wrapped segment (whose end dirties no pages). */
static void lease_alone(uint64_t duration) {
    static char outside;
    ist_segment s;
    uint64_t number;
    ist_lease_set_duration(duration);
    CHECK_EQ(ist_segment_wrap(&outside, 1, NULL, NULL, 0, &s), 0);
    CHECK_EQ(ist_lease_take(s, &number), 0);
    ist_segment_release(s);
}

static void make_heap(void) { /* so that leases of wrapped memory have a bound to stay under */
    ist_segment s = test_create(1, 0);
    ist_segment_retain(s); /* for ever: nothing dirty */
    ist_segment_release(s);
}

Test(housekeeper, ends_a_lease_at_its_deadline_and_watches_on) {
    make_heap();
    const uint64_t begin = turned();
    CHECK_EQ(started, 0);
    lease_alone(10 * SECOND);
    CHECK_EQ(settled(), begin + 10 * SECOND);
    turn_to(begin + 10 * SECOND - 1);
    CHECK_EQ(settled(), begin + 10 * SECOND);
    CHECK_EQ(test_stats().leases, 1);
    turn_to(begin + 10 * SECOND);
    CHECK_EQ(settled(), WATCHING);
    CHECK_EQ(test_stats().leases, 0);
    CHECK_EQ(test_stats().segments, 1);
    CHECK_EQ(started, 1);
    lease_alone(SECOND);
    CHECK_EQ(settled(), begin + 11 * SECOND);
    CHECK_EQ(started, 1);
    turn_to(begin + 12 * SECOND);
    CHECK_EQ(settled(), WATCHING);
    CHECK_EQ(test_stats().leases, 0);
}

Test(housekeeper, sleeps_until_the_nearest_deadline) {
    make_heap();
    const uint64_t begin = turned();
    const uint64_t seconds[] = {100, 50, 70, 20, 90};
    uint64_t nearest = 100;
    for (int i = 0; i < 5; i++) {
        lease_alone(seconds[i] * SECOND);
        nearest = seconds[i] < nearest ? seconds[i] : nearest;
        CHECK_EQ(settled(), begin + nearest * SECOND);
    }
    const uint64_t order[] = {20, 50, 70, 90, 100};
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQ(settled(), begin + order[i] * SECOND);
        turn_to(begin + order[i] * SECOND);
        CHECK_EQ(settled(), i < 4 ? begin + order[i + 1] * SECOND : WATCHING);
        CHECK_EQ(test_stats().leases, 4 - i);
    }
    CHECK_EQ(started, 1);
}

static void sooner(void) { lease_alone(SECOND); }

Test(housekeeper, hears_a_deadline_set_before_it_sleeps) {
    make_heap();
    const uint64_t begin = turned();
    lease_alone(100 * SECOND);
    CHECK_EQ(settled(), begin + 100 * SECOND);
    pthread_mutex_lock(&mutex);
    before_sleep = sooner; /* after it has read the bell, before it sleeps: the wake finds nobody */
    pthread_mutex_unlock(&mutex);
    lease_alone(50 * SECOND);
    CHECK_EQ(settled(), begin + SECOND);
    const uint64_t order[] = {1, 50, 100};
    for (unsigned i = 0; i < 3; i++) {
        turn_to(begin + order[i] * SECOND);
        CHECK_EQ(settled(), i < 2 ? begin + order[i + 1] * SECOND : WATCHING);
        CHECK_EQ(test_stats().leases, 2 - i);
    }
}

Test(housekeeper, ticks_while_pages_are_dirty) {
    ist_segment s = test_create(8 << 20, IST_PREFAULT), t = test_create(8 << 20, IST_PREFAULT);
    CHECK_EQ(started, 0);
    const uint64_t mapped = test_stats().mapped;
    ist_segment_release(s);
    uint64_t deadline = test_now() + 10 * SECOND; /* jemalloc decays on its own clock */
    uint64_t until = settled();
    CHECK(until > turned() && until <= turned() + SECOND, "it sleeps for %llu ns", (unsigned long long)(until - turned()));
    while ((until = settled()) != 0) {
        CHECK(test_now() < deadline, "it ticks for ever");
        turn_to(until);
    }
    CHECK(test_stats().mapped <= mapped - (7 << 20), "%llu of %llu stay", (unsigned long long)test_stats().mapped,
          (unsigned long long)mapped);
    CHECK_EQ(started, 1);
    CHECK_EQ(atomic_load_explicit(&isti_dirty_armed, memory_order_relaxed), 0);
    ist_segment_release(t); /* arms again */
    CHECK(settled() != 0);
    CHECK_EQ(started, 2);
}

Test(housekeeper, a_thread_that_cannot_start_is_tried_again) {
    make_heap();
    refuse_threads = true;
    lease_alone(SECOND);
    CHECK_EQ(atomic_load_explicit(&isti_unattended, memory_order_relaxed), 1);
    turn_to(turned() + 2 * SECOND);
    CHECK_EQ(test_stats().leases, 1);
    for (int i = 0; i < 200; i++) { /* create does its work */
        ist_segment s = test_create(1, 0);
        ist_segment_release(s);
    }
    CHECK_EQ(test_stats().leases, 0);
    refuse_threads = false;
    lease_alone(SECOND);
    CHECK(settled() != 0);
    CHECK_EQ(started, 1);
}

Test(housekeeper, disabled) {
    isti_housekeeper_disable();
    make_heap();
    lease_alone(SECOND);
    ist_segment_release(test_create(1 << 20, IST_PREFAULT));
    CHECK_EQ(started, 0);
    turn_to(turned() + 2 * SECOND);
    isti_housekeeper_poll_now();
    CHECK_EQ(test_stats().leases, 0);
    CHECK_EQ(started, 0);
}
