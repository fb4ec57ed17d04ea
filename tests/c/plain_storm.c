/* plain_storm.c: processes of two threads do everything at random with each other's segments, while they are killed, stopped and replaced
 * at random. Whatever is attached, held or let go of must say what it is: memory that was freed too early, or twice, says something else.
 * Now and then all stop, and the tables have to make sense; at the end nothing at all may be left.
 */
#include "control_check.h"
#include "gang.h"

#include <dirent.h>
#include <errno.h>
#include <isthmus/lease.h>
#include <isthmus/process.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The sanitizers' own locks aren't always free in the child of a process with threads: with them there are no forks here. */
enum { SANITIZED = TEST_TSAN || TEST_ASAN, WORKERS = TEST_TSAN ? 3 : TEST_ASAN ? 4 : 7, THREADS = 2, PROCESSES = 400 };

/* order: even: go on; odd: stop, sweep, and tell. It grows. */
struct storm {
    struct swarm_area area;
    _Atomic(uint32_t) order, over, told[WORKERS];
};

static void set(_Atomic(uint32_t) *word, uint32_t value) { atomic_store_explicit(word, value, memory_order_release); /* pairs with get */ }
static uint32_t get(_Atomic(uint32_t) *word) { return atomic_load_explicit(word, memory_order_acquire); }

static unsigned count_files(void) {
    DIR *files = opendir("/proc/self/fd");
    CHECK(files != NULL, "%s", strerror(errno));
    unsigned n = 0;
    while (readdir(files) != NULL)
        n++;
    closedir(files);
    return n;
}

static unsigned count_mappings(void) {
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK(file != NULL, "%s", strerror(errno));
    unsigned n = 0;
    for (int c; (c = getc(file)) != EOF;)
        n += c == '\n';
    fclose(file);
    return n;
}

/* ---- a worker */

static struct storm *storm;
static _Atomic(uint32_t) parked;

static struct swarm_self begin_self(uint64_t seed) {
    return (struct swarm_self){.area = &storm->area, .random = seed | 1, .lost_of = 5, .forks = !SANITIZED, .sweeps = true};
}

static void *second_thread(void *argument) {
    struct swarm_self self = begin_self(*(uint64_t *)argument * 31);
    while (get(&storm->over) == 0) {
        uint32_t order = get(&storm->order);
        if (order % 2 == 0) {
            swarm_step(&self);
        } else {
            set(&parked, order);
            sched_yield();
        }
    }
    swarm_release_all(&self);
    return NULL;
}

static void work(unsigned number, uint64_t seed) {
    struct swarm_self self = begin_self(seed);
    ist_lease_set_duration(UINT64_C(5000000) + seed % UINT64_C(200000000));
    ist_segment_release(test_create(1, 0));
    const unsigned files = count_files();
    pthread_t second = test_thread(second_thread, &seed);
    while (get(&storm->over) == 0) {
        uint32_t order = get(&storm->order);
        if (order % 2 == 0) {
            swarm_step(&self);
        } else if (get(&storm->told[number]) != order && get(&parked) == order) {
            ist_collect();
            CHECK_EQ(count_files(), files);
            set(&storm->told[number], order);
        } else {
            swarm_live(&storm->area);
            sched_yield();
        }
    }
    test_join(second);
    if (seed % 2 == 0)
        swarm_release_all(&self);
    ist_stats stats = test_stats();
    CHECK_EQ(stats.misuses + stats.saturated, 0);
    exit(0);
}

/* ---- the supervisor */

static unsigned looks;

static void starting(unsigned w) { set(&storm->told[w], 0); }

static struct gang gang = {.program = "plain_storm", .workers = WORKERS, .work = work, .starting = starting, .execs_only = SANITIZED};

/* Children of killed workers come to us. None may have failed; nor may a worker end by itself. */
static void reap_orphans(void) {
    siginfo_t info = {0};
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
        for (unsigned w = 0; w < WORKERS; w++)
            CHECK(info.si_pid != gang.pids[w], "worker %u ended by itself with %d", w, info.si_status);
        int status = test_wait(info.si_pid, 1);
        CHECK(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL), "an orphan ended with %#x", status);
        info.si_pid = 0;
    }
}

static bool all_told(void *order) {
    reap_orphans();
    for (unsigned w = 0; w < WORKERS; w++)
        if (get(&storm->told[w]) != *(uint32_t *)order)
            return false;
    return true;
}

static bool only_workers(void *unused) {
    (void)unused;
    reap_orphans();
    return control_alive(isti_domain_home_now()) == WORKERS + 1;
}

/* All stop, and give back what they can; at least twice, as what one gives back another has to take, and until the leases, which run out
 * meanwhile, are gone. */
static void look(void) {
    char text[300];
    bool good = false;
    for (unsigned w = 0; w < WORKERS; w++)
        gang_go_on(&gang, w);
    uint32_t order = get(&storm->order) + 1;
    for (uint64_t round = 0, last = test_now() + UINT64_C(10000000000); round < 2 || (!good && test_now() < last); round++, order += 2) {
        set(&storm->order, order);
        CHECK(test_until(all_told, &order, 60), "somebody hangs");
        CHECK(test_until(only_workers, NULL, 60), "%u processes", control_alive(isti_domain_home_now()));
        ist_collect();
        good = control_look(isti_domain_home_now(), CONTROL_SWEPT | CONTROL_QUIET, text, sizeof text);
    }
    CHECK(good, "%s", text);
    set(&storm->order, order - 1);
    looks++;
}

static bool is_empty(void *text) {
    ist_collect();
    return control_look(isti_domain_home_now(), CONTROL_SWEPT | CONTROL_QUIET | CONTROL_EMPTY, text, 300);
}

int main(int argc, char **argv) {
    if (argc == 4) {
        storm = swarm_area_at(atoi(argv[1]), sizeof *storm);
        gang_work(&gang, argv);
    }
    storm = gang_begin(&gang, PROCESSES, 4096, sizeof *storm);
    const uint64_t end = test_storm_end(SANITIZED ? 6 : 8);
    const unsigned files = count_files(), mappings = count_mappings();
    for (unsigned w = 0; w < WORKERS; w++)
        gang_start(&gang, w);
    for (uint64_t next = test_now(); test_now() < end;) {
        poll(NULL, 0, (int)(test_random(&gang.random) % (SANITIZED ? 60 : 12)));
        gang_disturb(&gang);
        reap_orphans();
        if (test_now() >= next) {
            look();
            next = test_now() + UINT64_C(500000000);
        }
    }
    look();
    set(&storm->over, 1);
    for (unsigned w = 0; w < WORKERS; w++)
        gang_reap(&gang, w, 0);
    char text[300];
    CHECK(test_until(is_empty, text, 10), "%s", text);
    CHECK_EQ(count_files(), files);
    CHECK(SANITIZED || count_mappings() <= mappings + 8, "%u mappings, %u before", count_mappings(), mappings);
    struct swarm_area *a = &storm->area;
    printf("%u kills, %u stops, %u of %u starts by exec, %u looks; %llu steps, %llu segments, %llu attached, %llu loaded, %llu by name, "
           "%llu frozen, %llu forks (%llu without their parent's), %llu stale tokens refused, %llu times full\n",
           gang.kills, gang.stops, gang.execs, gang.kills + WORKERS, looks, (unsigned long long)a->steps, (unsigned long long)a->segments,
           (unsigned long long)a->attaches, (unsigned long long)a->loads, (unsigned long long)a->names, (unsigned long long)a->frozen,
           (unsigned long long)a->forks, (unsigned long long)a->strangers, (unsigned long long)a->stale, (unsigned long long)a->full);
    CHECK(gang.kills > 5 && a->attaches > 1000 && a->stale > 100 && a->loads > 10);
    return 0;
}
