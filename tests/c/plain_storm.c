/* plain_storm.c: processes of two threads do everything at random with each other's segments, while they are killed, stopped and replaced at
 * random. Whatever is attached, held or let go of must say what it is: memory that was freed too early, or twice, says something else.
 * Now and then all stop, and the tables have to make sense; at the end nothing at all may be left.
 */
#include "control_check.h"
#include "swarm.h"

#include <dirent.h>
#include <errno.h>
#include <isthmus/lease.h>
#include <isthmus/process.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
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

static _Noreturn void work(unsigned number, uint64_t seed) {
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

static struct {
    int fd;
    uint64_t random;
    pid_t workers[WORKERS];
    bool stopped[WORKERS];
    unsigned kills, stops, execs, looks;
} super;

static void start(unsigned w) {
    uint64_t r = test_random(&super.random);
    set(&storm->told[w], 0);
    super.stopped[w] = false;
    if (!SANITIZED && r % 2 == 0) {
        pid_t pid = fork();
        CHECK(pid >= 0, "fork: %s", strerror(errno));
        if (pid == 0)
            work(w, r >> 8);
        super.workers[w] = pid;
        return;
    }
    char texts[3][32];
    snprintf(texts[0], sizeof texts[0], "%d", super.fd);
    snprintf(texts[1], sizeof texts[1], "%u", w);
    snprintf(texts[2], sizeof texts[2], "%llu", (unsigned long long)r >> 8);
    char *arguments[] = {(char *)"plain_storm", texts[0], texts[1], texts[2], NULL};
    extern char **environ;
    CHECK_EQ(posix_spawn(&super.workers[w], "/proc/self/exe", NULL, NULL, arguments, environ), 0);
    super.execs++;
}

static void go_on(unsigned w) {
    if (super.stopped[w])
        kill(super.workers[w], SIGCONT);
    super.stopped[w] = false;
}

static void reap(unsigned w, int expected) {
    int status = test_wait(super.workers[w], 60);
    CHECK(expected == 0 ? status == 0 : WIFSIGNALED(status) && WTERMSIG(status) == expected, "worker %u ended with %#x", w, status);
}

/* Children of killed workers come to us. None may have failed; nor may a worker end by itself. */
static void reap_orphans(void) {
    siginfo_t info = {0};
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
        for (unsigned w = 0; w < WORKERS; w++)
            CHECK(info.si_pid != super.workers[w], "worker %u ended by itself with %d", w, info.si_status);
        int status = test_wait(info.si_pid, 1);
        CHECK(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL), "an orphan ended with %#x", status);
        info.si_pid = 0;
    }
}

static void disturb(void) {
    uint64_t r = test_random(&super.random);
    unsigned w = (unsigned)(r % WORKERS);
    r >>= 16;
    if (super.stopped[w] && r % 4 != 0) {
        go_on(w);
    } else if (r % 3 == 0) {
        kill(super.workers[w], SIGSTOP);
        super.stopped[w] = true;
        super.stops++;
    } else {
        kill(super.workers[w], SIGKILL);
        reap(w, SIGKILL);
        super.kills++;
        start(w);
    }
    reap_orphans();
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
        go_on(w);
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
    super.looks++;
}

static bool is_empty(void *text) {
    ist_collect();
    return control_look(isti_domain_home_now(), CONTROL_SWEPT | CONTROL_QUIET | CONTROL_EMPTY, text, 300);
}

static void begin(void) {
    ist_options options = {.struct_size = sizeof options, .processes = PROCESSES, .published = 4096};
    CHECK_EQ(ist_configure(&options), 0);
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    storm = swarm_area_make(sizeof *storm, &super.fd);
    atomic_store_explicit(&storm->area.supervisor, (uint32_t)getpid(), memory_order_relaxed); /* relaxed: before the others come */
    char text[64];
    int error = ist_domain_text(text, sizeof text);
    if (error == -ENOSYS)
        test_skip("no /proc");
    CHECK_EQ(error, 0);
    CHECK_EQ(setenv("ISTHMUS_DOMAIN", text, 1), 0);
    ist_domain_watch();
    super.random = test_seed();
}

int main(int argc, char **argv) {
    if (argc == 4) {
        storm = swarm_area_at(atoi(argv[1]), sizeof *storm);
        work((unsigned)atoi(argv[2]), strtoull(argv[3], NULL, 10));
    }
    begin();
    const uint64_t end = test_storm_end(SANITIZED ? 6 : 8);
    const unsigned files = count_files(), mappings = count_mappings();
    for (unsigned w = 0; w < WORKERS; w++)
        start(w);
    for (uint64_t next = test_now(); test_now() < end;) {
        poll(NULL, 0, (int)(test_random(&super.random) % (SANITIZED ? 60 : 12)));
        disturb();
        if (test_now() >= next) {
            look();
            next = test_now() + UINT64_C(500000000);
        }
    }
    look();
    set(&storm->over, 1);
    for (unsigned w = 0; w < WORKERS; w++)
        reap(w, 0);
    char text[300];
    CHECK(test_until(is_empty, text, 10), "%s", text);
    CHECK_EQ(count_files(), files);
    CHECK(SANITIZED || count_mappings() <= mappings + 8, "%u mappings, %u before", count_mappings(), mappings);
    struct swarm_area *a = &storm->area;
    printf("%u kills, %u stops, %u of %u starts by exec, %u looks; %llu steps, %llu segments, %llu attached, %llu loaded, %llu by name, "
           "%llu frozen, %llu forks (%llu without their parent's), %llu stale tokens refused, %llu times full\n",
           super.kills, super.stops, super.execs, super.kills + WORKERS, super.looks, (unsigned long long)a->steps,
           (unsigned long long)a->segments, (unsigned long long)a->attaches, (unsigned long long)a->loads, (unsigned long long)a->names,
           (unsigned long long)a->frozen, (unsigned long long)a->forks, (unsigned long long)a->strangers, (unsigned long long)a->stale,
           (unsigned long long)a->full);
    CHECK(super.kills > 5 && a->attaches > 1000 && a->stale > 100 && a->loads > 10);
    return 0;
}
