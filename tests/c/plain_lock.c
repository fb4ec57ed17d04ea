/* plain_lock.c: locks, semaphores, events, barriers and conditions among threads, then among processes that are killed and stopped at
 * random.
 *
 * Threads: nothing is lost, nobody starves: of those that take a lock as often as they can, the most served isn't far ahead of the least.
 * Processes: two counters behind each lock are equal whenever it is taken, but behind an owner that died: then its next taker, one for each
 * death at most, was told, and repairs them. A waiter that a killed one was to wake, or a barrier it was in, holds up nobody. Nothing is
 * left.
 */
#include "control_check.h"
#include "gang.h"
#include "os.h"

#include <errno.h>
#include <isthmus/lock.h>
#include <isthmus/process.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#if TEST_ASAN || TEST_TSAN
#  define SANITIZED 1
#else
#  define SANITIZED 0
#endif

enum { WORKERS = 4, THREADS = 2, ALL = WORKERS * THREADS, PERMITS = 2, PARTIES = 3 };
#define MS UINT64_C(1000000)

static ist_sync *make(ist_sync_type type, uint64_t value) {
    ist_sync *s;
    CHECK_EQ(ist_sync_create(type, value, 0, &s), 0);
    return s;
}
static ist_waiting within(uint64_t ns) { return (ist_waiting){.deadline = test_now() + ns, .patience = UINT64_MAX}; }

/* With a deadline that is for a test that hangs. */
static void take(ist_sync *s) {
    ist_waiting w = within(30000 * MS);
    int error;
    while ((error = ist_lock_lock(s, 0, &w)) == -EINTR)
        ;
    CHECK_EQ(error, 0);
}
static void give(ist_sync *s) { CHECK_EQ(ist_lock_unlock(s), 0); }

/* ---- threads of one process */

static struct {
    ist_sync *lock, *rlock, *semaphore, *event, *barrier;
    uint64_t condition;
    uint64_t counts[2]; /* plain: guarded by lock and rlock */
    uint32_t items, made, eaten; /* guarded by lock */
    _Atomic(uint32_t) inside, rounds;
    _Atomic(bool) over;
} here;

enum { TURNS = SANITIZED ? 2000 : 20000, ITEMS = SANITIZED ? 2000 : 10000 };

static void *turns(void *unused) {
    (void)unused;
    for (int i = 0; i < TURNS; i++) {
        take(here.lock);
        here.counts[0]++;
        give(here.lock);
        take(here.rlock);
        take(here.rlock);
        here.counts[1]++;
        give(here.rlock);
        give(here.rlock);
        ist_waiting w = within(30000 * MS);
        int error;
        while ((error = ist_semaphore_take(here.semaphore, &w)) == -EINTR)
            ;
        CHECK_EQ(error, 0);
        CHECK(atomic_fetch_add_explicit(&here.inside, 1, memory_order_relaxed) < PERMITS); /* relaxed, both: the semaphore's own order */
        atomic_fetch_sub_explicit(&here.inside, 1, memory_order_relaxed);
        CHECK_EQ(ist_semaphore_post(here.semaphore, 1), 0);
    }
    return NULL;
}

static void *makes(void *unused) {
    (void)unused;
    uint64_t woken;
    for (int i = 0; i < ITEMS; i++) {
        take(here.lock);
        here.items++;
        here.made++;
        CHECK_EQ(ist_condition_notify(here.lock, here.condition, 1, &woken), 0);
        give(here.lock);
    }
    return NULL;
}

static void *eats(void *unused) {
    (void)unused;
    for (int i = 0; i < ITEMS; i++) {
        take(here.lock);
        while (here.items == 0) {
            ist_wait w;
            CHECK_EQ(ist_condition_begin(here.lock, here.condition, &w), 0);
            give(here.lock);
            int error;
            while ((error = ist_wait_on(&w, test_now() + 30000 * MS, UINT64_MAX)) == -EINTR)
                ;
            CHECK_EQ(error, 0); /* no wake-up is lost */
            take(here.lock);
        }
        here.items--;
        here.eaten++;
        give(here.lock);
    }
    return NULL;
}

static void *meets(void *unused) {
    (void)unused;
    for (uint32_t i = 0; i < TURNS / 4; i++) {
        ist_waiting w = within(30000 * MS);
        ist_arrival a;
        int error;
        while ((error = ist_barrier_arrive(here.barrier, &w, &a)) == -EINTR)
            ;
        CHECK_EQ(error, 0);
        if (a.last) {
            CHECK_EQ(atomic_fetch_add_explicit(&here.rounds, 1, memory_order_relaxed), i); /* relaxed, both: the barrier's own order */
            CHECK_EQ(ist_barrier_release(here.barrier, &a), 0);
        } else {
            while ((error = ist_barrier_wait(here.barrier, &a, &w)) == -EINTR)
                ;
            CHECK_EQ(error, 0);
        }
        CHECK(atomic_load_explicit(&here.rounds, memory_order_relaxed) >= i + 1);
    }
    return NULL;
}

static void *hammers(void *count) {
    while (!atomic_load_explicit(&here.over, memory_order_relaxed)) { /* relaxed: a flag alone */
        take(here.lock);
        ++*(uint64_t *)count;
        give(here.lock);
    }
    return NULL;
}

static void nobody_starves(void) {
    uint64_t counts[4] = {0}, least = UINT64_MAX, most = 0;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        threads[i] = test_thread(hammers, &counts[i]);
    poll(NULL, 0, SANITIZED ? 1000 : 1500);
    atomic_store_explicit(&here.over, true, memory_order_relaxed);
    for (int i = 0; i < 4; i++) {
        test_join(threads[i]);
        least = counts[i] < least ? counts[i] : least;
        most = counts[i] > most ? counts[i] : most;
    }
    printf("4 threads that hammer: the least served took it %llu times, the most %llu\n", (unsigned long long)least,
           (unsigned long long)most);
    fflush(stdout); /* forked workers have their copy */
    CHECK(least > 20 && most / least < 20, "%llu and %llu", (unsigned long long)least, (unsigned long long)most);
}

static void in_threads(void) {
    void *(*const roles[])(void *) = {turns, turns, turns, makes, eats, makes, eats, meets, meets, meets};
    enum { N = sizeof roles / sizeof *roles };
    pthread_t threads[N];
    here.lock = make(IST_LOCK, 0);
    here.rlock = make(IST_RLOCK, 0);
    here.semaphore = make(IST_SEMAPHORE, PERMITS);
    here.barrier = make(IST_BARRIER, 3);
    CHECK_EQ(ist_condition_create(here.lock, &here.condition), 0);
    for (int i = 0; i < N; i++)
        threads[i] = test_thread(roles[i], NULL);
    for (int i = 0; i < N; i++)
        test_join(threads[i]);
    CHECK_EQ(here.counts[0], 3 * TURNS);
    CHECK_EQ(here.counts[1], 3 * TURNS);
    CHECK(here.items == 0 && here.made == 2 * ITEMS && here.eaten == here.made);
    nobody_starves();
    ist_sync_close(here.lock);
    ist_sync_close(here.rlock);
    ist_sync_close(here.semaphore);
    ist_sync_close(here.barrier);
    CHECK_EQ(test_stats().segments, 0);
}

/* ---- processes */

enum { LOCK, RLOCK, SEMAPHORE, EVENT, BARRIER, KINDS };

static struct stage {
    struct swarm_area area;
    ist_token tokens[KINDS];
    uint64_t condition;
    _Alignas(64) uint64_t first[2], second[2]; /* behind LOCK and RLOCK */
    uint64_t items; /* behind LOCK */
    _Atomic(uint32_t) told, torn, over, taken, eaten, rounds, permits, sets;
    _Atomic(uint32_t) has_permit[ALL];
} *stage;

struct self {
    uint64_t random;
    unsigned number; /* of ALL */
    ist_sync *s[KINDS];
};

static uint64_t any(struct self *self, uint64_t n) { return (test_random(&self->random) >> 16) % n; }
static void count(_Atomic(uint32_t) *counter) { atomic_fetch_add_explicit(counter, 1, memory_order_relaxed); } /* relaxed: a statistic */

/* False: not had. */
static bool had(int error) {
    if (error == -EOWNERDEAD)
        count(&stage->told);
    CHECK(error == 0 || error == -EOWNERDEAD || error == -EAGAIN || error == -ETIMEDOUT || error == -EINTR, "%s", ist_strerror(error));
    return error == 0;
}

static bool enter(struct self *self, unsigned which) {
    ist_waiting w = within(any(self, 20) * MS);
    if (any(self, 8) == 0)
        w.deadline = 0;
    if (!had(ist_lock_lock(self->s[which], 0, &w)))
        return false;
    count(&stage->taken);
    if (stage->first[which] != stage->second[which]) { /* somebody was told, and may not have come to counting it yet */
        count(&stage->torn);
        stage->second[which] = stage->first[which];
    }
    stage->first[which]++;
    if (any(self, 50) == 0) /* long enough to be killed here */
        poll(NULL, 0, 1);
    return true;
}

static void leave(struct self *self, unsigned which) {
    stage->second[which]++;
    give(self->s[which]);
}

static void make_item(struct self *self) {
    uint64_t woken;
    if (!enter(self, LOCK))
        return;
    stage->items++;
    CHECK_EQ(ist_condition_notify(self->s[LOCK], stage->condition, 1 + any(self, 2), &woken), 0);
    leave(self, LOCK);
}

static void eat_item(struct self *self) {
    if (!enter(self, LOCK))
        return;
    if (stage->items == 0) {
        ist_wait w;
        int error = ist_condition_begin(self->s[LOCK], stage->condition, &w);
        CHECK_EQ(error, 0);
        leave(self, LOCK);
        while ((error = ist_wait_on(&w, test_now() + 20 * MS, UINT64_MAX)) == -EINTR)
            ;
        CHECK(error == 0 || error == -ETIMEDOUT, "%s", ist_strerror(error));
        if (!enter(self, LOCK))
            return;
    }
    if (stage->items > 0) {
        stage->items--;
        count(&stage->eaten);
    }
    leave(self, LOCK);
}

static void nest(struct self *self) {
    if (!enter(self, RLOCK))
        return;
    CHECK_EQ(ist_lock_lock(self->s[RLOCK], 0, NULL), 0);
    CHECK_EQ(ist_lock_unlock(self->s[RLOCK]), 0);
    leave(self, RLOCK);
}

static void use_permit(struct self *self) {
    ist_waiting w = within(any(self, 10) * MS);
    if (!had(ist_semaphore_take(self->s[SEMAPHORE], &w)))
        return;
    atomic_store_explicit(&stage->has_permit[self->number], 1, memory_order_seq_cst); /* seq_cst, all: what others' looks count on */
    unsigned inside = 0;
    for (unsigned i = 0; i < ALL; i++)
        inside += atomic_load_explicit(&stage->has_permit[i], memory_order_seq_cst);
    CHECK(inside <= PERMITS, "%u have a permit", inside);
    count(&stage->permits);
    atomic_store_explicit(&stage->has_permit[self->number], 0, memory_order_seq_cst);
    CHECK_EQ(ist_semaphore_post(self->s[SEMAPHORE], 1), 0);
}

static void meet(struct self *self) {
    ist_waiting w = within((1 + any(self, 30)) * MS);
    ist_arrival a;
    int error = ist_barrier_arrive(self->s[BARRIER], &w, &a);
    if (error == 0 && a.last)
        error = any(self, 8) == 0 ? (ist_barrier_withdraw(self->s[BARRIER], &a), -EPIPE) : ist_barrier_release(self->s[BARRIER], &a);
    else if (error == 0)
        while ((error = ist_barrier_wait(self->s[BARRIER], &a, &w)) == -EINTR)
            ;
    CHECK(error == 0 || error == -EPIPE || error == -ETIMEDOUT || error == -EINTR, "%s", ist_strerror(error));
    if (error == 0)
        count(&stage->rounds);
    else if (any(self, 2) == 0)
        CHECK_EQ(ist_barrier_reset(self->s[BARRIER]), 0);
}

static void signal_event(struct self *self) {
    ist_waiting w = within(any(self, 10) * MS);
    switch (any(self, 3)) {
    case 0: CHECK_EQ(ist_event_set(self->s[EVENT]), 0); break;
    case 1: CHECK_EQ(ist_event_clear(self->s[EVENT]), 0); break;
    default:
        if (had(ist_event_wait(self->s[EVENT], &w)))
            count(&stage->sets);
    }
}

static void step(struct self *self) {
    switch (any(self, 12)) {
    case 0:
    case 1:
    case 2: make_item(self); break;
    case 3:
    case 4:
    case 5: eat_item(self); break;
    case 6:
    case 7: nest(self); break;
    case 8: use_permit(self); break;
    case 9: meet(self); break;
    case 10: signal_event(self); break;
    default: {
        const unsigned which = (unsigned)any(self, KINDS); /* the handle anew */
        ist_sync *before = self->s[which];
        CHECK_EQ(ist_sync_attach(&stage->tokens[which], &self->s[which]), 0);
        int fd; /* from now on it is told */
        if (which != BARRIER && any(self, 8) == 0)
            CHECK_EQ(ist_sync_fileno(self->s[which], &fd), 0);
        ist_sync_close(before);
        if (any(self, 40) == 0)
            ist_sweep();
    }
    }
}

static ist_sync *supervised[KINDS];

static void *run(void *given) {
    struct self *self = given;
    for (unsigned i = 0; i < KINDS; i++)
        CHECK_EQ(ist_sync_attach(&stage->tokens[i], &self->s[i]), 0);
    while (atomic_load_explicit(&stage->over, memory_order_relaxed) == 0) { /* relaxed: told when to stop */
        step(self);
        swarm_live(&stage->area);
    }
    for (unsigned i = 0; i < KINDS; i++)
        ist_sync_close(self->s[i]);
    return NULL;
}

static void work(unsigned number, uint64_t seed) {
    for (unsigned i = 0; i < KINDS; i++)
        ist_sync_close(supervised[i]); /* by fork: inherited */
    struct self selves[THREADS];
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        selves[i] = (struct self){.random = (seed * 31 + i * 77) | 1, .number = number * THREADS + i};
        threads[i] = test_thread(run, &selves[i]);
    }
    for (unsigned i = 0; i < THREADS; i++)
        test_join(threads[i]);
    ist_stats stats = test_stats();
    CHECK_EQ(stats.misuses + stats.saturated, 0);
    exit(0);
}

/* Its permits go back; those that it had taken and hadn't told of are lost: permits aren't anybody's. */
static void starting(unsigned w) {
    for (unsigned i = w * THREADS; i < (w + 1) * THREADS; i++)
        if (atomic_exchange_explicit(&stage->has_permit[i], 0, memory_order_seq_cst) != 0) {
            int error = ist_semaphore_post(supervised[SEMAPHORE], 1);
            CHECK(error == 0, "%s", ist_strerror(error));
        }
}

static struct gang gang = {.program = "plain_lock", .workers = WORKERS, .work = work, .starting = starting, .execs_only = SANITIZED};

static bool is_empty(void *text) {
    ist_sweep();
    ist_collect();
    return control_look(isti_domain_home_now(), CONTROL_SWEPT | CONTROL_QUIET | CONTROL_EMPTY, text, 300);
}

/* All can be had. */
static void settle(void) {
    for (unsigned which = LOCK; which <= RLOCK; which++) {
        int error = -EINTR;
        for (ist_waiting w = within(10000 * MS); error == -EINTR || error == -EOWNERDEAD;)
            had(error = ist_lock_lock(supervised[which], 0, &w));
        CHECK_EQ(error, 0);
        give(supervised[which]);
    }
    /* each time somebody was told; two may have been killed before they counted it */
    CHECK(stage->torn <= stage->told + 2, "%u times a dead owner's work was half done, and %u were told", stage->torn, stage->told);
    CHECK(stage->told <= 2 * THREADS * gang.kills, "%u were told of %u deaths", stage->told, gang.kills);
    CHECK_EQ(ist_barrier_reset(supervised[BARRIER]), 0);
    ist_sync_info info;
    ist_sync_read_info(supervised[SEMAPHORE], &info);
    CHECK(info.value <= PERMITS, "%llu permits", (unsigned long long)info.value);
    for (unsigned i = 0; i < KINDS; i++)
        ist_sync_close(supervised[i]);
    printf("%u kills, %u stops; taken %u times, %u told of dead owners, %u times half done, %u items, %u permits, %u events, %u rounds\n",
           gang.kills, gang.stops, stage->taken, stage->told, stage->torn, stage->eaten, stage->permits, stage->sets, stage->rounds);
}

int main(int argc, char **argv) {
    if (argc == 4) {
        stage = swarm_area_at(atoi(argv[1]), sizeof *stage);
        gang_work(&gang, argv);
    }
    stage = gang_begin(&gang, 64, 1 << 16, sizeof *stage);
    in_threads();
    const ist_sync_type types[KINDS] = {IST_LOCK, IST_RLOCK, IST_SEMAPHORE, IST_EVENT, IST_BARRIER};
    for (unsigned i = 0; i < KINDS; i++) {
        CHECK_EQ(ist_sync_create(types[i], i == SEMAPHORE ? PERMITS : i == BARRIER ? PARTIES : 0, 0, &supervised[i]), 0);
        stage->tokens[i] = test_token(ist_sync_segment(supervised[i]));
    }
    CHECK_EQ(ist_condition_create(supervised[LOCK], &stage->condition), 0);
    const uint64_t end = test_storm_end(SANITIZED ? 6 : 8);
    for (unsigned w = 0; w < WORKERS; w++)
        gang_start(&gang, w);
    while (test_now() < end) {
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
    CHECK(gang.kills > 5 && stage->taken > 500 && stage->told > 0 && stage->eaten > 20 && stage->rounds > 0);
    return 0;
}
