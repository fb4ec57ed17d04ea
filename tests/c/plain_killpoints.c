/* plain_killpoints.c: a process is killed at every point of point.h, between any two steps of the protocol, while others go on.
 *
 * The supervisor and a worker are members of one domain and use it all the time. A victim joins them, by fork or by exec, armed to die at a
 * point when it comes there for the n-th time, and goes through everything a process can do, with helpers of its own that die and leave it
 * things to sweep. Afterwards one sweep has to leave nothing of the dead, and the tables, the memory and everybody's content have to be
 * right.
 *
 * And it is stopped at every point, while the others attach what it is just letting go of and let go of what it is just attaching.
 */
#include "control_check.h"
#include "housekeeper.h"
#include "os.h"
#include "point.h"
#include "swarm.h"
#include "victim.h"

#include <errno.h>
#include <isthmus/lease.h>
#include <isthmus/process.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STANDING = 3, PAIRS = 4, OWN = 4, PROCESSES = 8, LARGE = (1 << 20) + (1 << 16), GROWN = 1 << 24 };

/* What a victim and one of its helpers tell each other. */
struct pair {
    _Atomic(uint32_t) ready, go, done;
    struct swarm_note small, large;
};

struct stage {
    struct swarm_area area;
    struct swarm_note standing[STANDING]; /* the supervisor's, always there */
    struct swarm_note passing;            /* the supervisor's as well, but let go of when the victim stops */
    struct swarm_note growing;            /* a growable one of the supervisor's, which everybody grows by 8 bytes */
    struct swarm_note own[OWN];           /* the victim's */
    struct pair pairs[PAIRS];
    ist_token queue, lock;                /* the supervisor's, for everybody */
    struct victim_counters counters;
    _Atomic(uint32_t) pause, paused, over; /* the worker's orders */
    _Atomic(uint32_t) outrun;              /* how often a helper didn't come to give pages back */
};

static void set(_Atomic(uint32_t) *flag, uint32_t value) { atomic_store_explicit(flag, value, memory_order_release); /* pairs with is */ }
static bool is(_Atomic(uint32_t) *flag, uint32_t value) { return atomic_load_explicit(flag, memory_order_acquire) == value; }

static void disarm(void) {
    isti_point_stops(false);
    for (unsigned p = 0; p < ISTI_POINT_COUNT; p++)
        isti_point_arm((enum isti_point)p, 0);
}

static void take_a_break(void) { sched_yield(); }

static ist_segment attach(const ist_token *token, uint64_t tag) {
    ist_segment s;
    CHECK_EQ(ist_segment_acquire(token, &s), 0);
    swarm_check(s, tag, "after attaching");
    return s;
}

static void attach_standing(struct stage *st) {
    for (int i = 0; i < STANDING; i++) {
        uint64_t tag, ticket;
        ist_token token;
        CHECK(swarm_note_get(&st->standing[i], &tag, &token, &ticket));
        ist_segment_release(attach(&token, tag));
    }
}

/* ---- helpers: children of the victim. Each goes its way to the end also when the victim dies. */

/* Waits for the victim; without it the helper just ends, holding what it holds. */
void victim_helper_waits(_Atomic(uint32_t) *go, pid_t victim) {
    while (!is(go, 1)) {
        if (getppid() != victim)
            _exit(0);
        take_a_break();
    }
}

/* Makes two segments in a window of its own, which the victim gets, and dies in the middle of taking a lease. */
static void helper_orphan(struct stage *st, struct pair *pair, pid_t victim) {
    struct swarm_held x = swarm_make(&st->area, 700), y = swarm_make(&st->area, LARGE);
    ist_token tx = test_token(x.segment), ty = test_token(y.segment);
    uint64_t number;
    CHECK_EQ(ist_lease_take(x.segment, &number), 0);
    swarm_note_put(&pair->small, x.tag, &tx, number);
    swarm_note_put(&pair->large, y.tag, &ty, 0);
    attach_standing(st);
    set(&pair->ready, 1);
    victim_helper_waits(&pair->go, victim);
    isti_point_arm(ISTI_POINT_TICKET_RESERVED, 1);
    (void)!ist_lease_take(y.segment, &number);
}

/* Dies in the middle of publishing. */
static void helper_reserve(struct stage *st) {
    struct swarm_held x = swarm_make(&st->area, 100);
    ist_token token;
    isti_point_arm(ISTI_POINT_PUBLISH_RESERVED, 1);
    (void)!ist_segment_token(x.segment, &token);
}

/* Lets go of the victim's large segment last, and dies in the middle of giving its pages back: unless somebody just sweeps after a dead
 * one, who looks at every row, and is faster. */
static void helper_punch(struct pair *pair, pid_t victim, struct swarm_held large) {
    swarm_check(large.segment, large.tag, "inherited");
    set(&pair->ready, 1);
    victim_helper_waits(&pair->go, victim);
    isti_point_arm(ISTI_POINT_FREE_PUNCHING, 1);
    ist_segment_release(large.segment);
}

/* Lets go of its own segment while the victim is about to hold it, and of one of the victim's, last. */
static void helper_refuse(struct stage *st, struct pair *pair, pid_t victim, struct swarm_held of_victim) {
    struct swarm_held z = swarm_make(&st->area, 900);
    ist_token token = test_token(z.segment);
    swarm_note_put(&pair->small, z.tag, &token, 0);
    set(&pair->ready, 1);
    victim_helper_waits(&pair->go, victim);
    swarm_check(of_victim.segment, of_victim.tag, "inherited");
    ist_segment_release(z.segment);
    ist_segment_release(of_victim.segment);
    set(&pair->done, 1);
}

/* ---- the victim */

enum isti_point victim_aim;
bool victim_stands_still;

/* Waits for a helper. One that died instead was to die in fork, and the victim goes with it; one that stopped was to stop there. */
void victim_wait_for(_Atomic(uint32_t) *flag, pid_t helper) {
    while (!is(flag, 1)) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)helper, &info, WSTOPPED | WNOHANG) == 0 && info.si_pid == helper) {
            kill(getpid(), SIGSTOP);
            kill(helper, SIGCONT);
        }
        info.si_pid = 0;
        if (waitid(P_PID, (id_t)helper, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == helper && !is(flag, 1)) {
            CHECK(info.si_code == CLD_KILLED && info.si_status == SIGKILL && victim_aim == ISTI_POINT_FORK_CHILD, "a helper ended with %d",
                  info.si_status);
            kill(getpid(), SIGKILL);
        }
        take_a_break();
    }
}

void victim_end_of(pid_t helper, bool killed) {
    int status = test_wait(helper, 20);
    if (killed ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : status == 0)
        return;
    CHECK(victim_aim == ISTI_POINT_FORK_CHILD && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "a helper ended with %#x", status);
    kill(getpid(), SIGKILL);
}

pid_t victim_fork(void) {
    pid_t helper = fork();
    CHECK(helper >= 0, "fork: %s", strerror(errno));
    if (helper == 0 || (victim_stands_still && victim_aim == ISTI_POINT_FORK_CHILD)) /* else each of them would stop */
        disarm();
    return helper;
}

static void wrapped(void) {
    static char memory[100];
    ist_segment s, again;
    CHECK_EQ(ist_segment_wrap(memory, sizeof memory, NULL, NULL, 0, &s), 0);
    ist_token token = test_token(s);
    CHECK_EQ(ist_segment_acquire(&token, &again), 0);
    ist_segment_release(again);
    ist_segment_release(s);
}

/* More at once than there are free rows: the table is used further. Only for its own point, as it never shrinks. */
static void fill_the_table(void) {
    enum { MOST = 3000 };
    static ist_segment s[MOST];
    int n = 0;
    if (victim_aim != ISTI_POINT_PUBLISH_RAISED)
        return;
    for (unsigned before = isti_point_reached(ISTI_POINT_PUBLISH_RAISED); n < MOST; n++) {
        s[n] = test_create(8, 0);
        test_token(s[n]);
        if (isti_point_reached(ISTI_POINT_PUBLISH_RAISED) != before)
            break;
    }
    CHECK(n < MOST);
    for (int i = 0; i <= n; i++)
        ist_segment_release(s[i]);
}

static void note(struct stage *st, int i, const struct swarm_held *held) {
    ist_token token = test_token(held->segment);
    swarm_note_put(&st->own[i], held->tag, &token, 0);
}

static void pass(struct stage *st) {
    uint64_t tag, none;
    ist_token token;
    ist_segment s;
    if (!swarm_note_get(&st->passing, &tag, &token, &none))
        return;
    int error = ist_segment_acquire(&token, &s);
    CHECK(error == 0 || error == -ESTALE, "%s", ist_strerror(error));
    if (error == 0) {
        swarm_check(s, tag, "passing");
        ist_segment_release(s);
    }
}

/* While it stands still somebody may attach, and then it is busy. */
static void freeze(struct stage *st) {
    struct swarm_held f = swarm_make(&st->area, 400);
    note(st, 3, &f);
    int error = ist_segment_freeze(f.segment);
    CHECK(error == 0 || (victim_stands_still && error == -EBUSY), "%s", ist_strerror(error));
    if (error == 0)
        error = ist_segment_make_writable(&f.segment);
    CHECK(error == 0 || (victim_stands_still && error == -EBUSY), "%s", ist_strerror(error));
    ist_segment_release(f.segment);
}

/* Some of it while the helper of a dead one's is still there to read it. */
static void grow(struct stage *st) {
    ist_segment g, again;
    CHECK_EQ(ist_segment_create_growable(100, LARGE, 0, &g), 0);
    ist_token token = test_token(g);
    CHECK_EQ(ist_segment_acquire(&token, &again), 0);
    for (size_t size = 1000; size < LARGE; size *= 4) {
        CHECK_EQ(ist_segment_grow(again, size), 0);
        CHECK_EQ(ist_segment_length(g), size);
    }
    ist_segment_release(again);
    ist_segment_release(g);
    uint64_t tag, none;
    if (!swarm_note_get(&st->growing, &tag, &token, &none))
        return;
    CHECK_EQ(ist_segment_acquire(&token, &g), 0);
    const size_t length = ist_segment_length(g);
    CHECK_EQ(ist_segment_grow(g, length + 8), 0);
    CHECK(ist_segment_length(g) >= length + 8);
    ist_segment_release(g);
}

static void leases(struct swarm_held *held) {
    ist_token token = test_token(held->segment);
    uint64_t numbers[3], more;
    ist_segment s;
    for (int i = 0; i < 3; i++)
        CHECK_EQ(ist_lease_take(held->segment, &numbers[i]), 0);
    for (int i = 0; i < 100000 && victim_aim == ISTI_POINT_TICKET_RAISED && isti_point_reached(victim_aim) < 4;
         i++) /* the table of tickets grows when many are taken */
        CHECK_EQ(ist_lease_take(held->segment, &more), 0);
    CHECK_EQ(ist_lease_load(&token, numbers[0], &s), 0);
    swarm_check(s, held->tag, "loaded");
    ist_segment_release(s);
    ist_lease_strike(&token, numbers[1]);
} /* the last number is lost: it's in the estate */

static void names(struct swarm_held *held) {
    char name[64];
    size_t length = (size_t)snprintf(name, sizeof name, "killpoints-%d", (int)getpid());
    uint64_t tag;
    size_t size = sizeof tag;
    ist_segment s;
    CHECK_EQ(ist_name_publish(name, length, held->segment, &held->tag, sizeof held->tag), 0);
    CHECK_EQ(ist_name_attach(name, length, &s, &tag, &size), 0);
    CHECK_EQ(tag, held->tag);
    swarm_check(s, tag, "found by name");
    ist_segment_release(s);
    CHECK_EQ(ist_name_remove(name, length), 0);
    CHECK_EQ(ist_name_publish(name, length, held->segment, &held->tag, sizeof held->tag), 0); /* and stays when the victim dies */
}

/* Helpers die and leave things: half a ticket, half a descriptor, half a punch, a window with two segments that live on here. */
static void inherit(struct stage *st) {
    const pid_t me = getpid();
    struct pair *orphan = &st->pairs[0], *punch = &st->pairs[1];
    pid_t helpers[3];
    if ((helpers[0] = victim_fork()) == 0) {
        helper_orphan(st, orphan, me);
        _exit(1);
    }
    victim_wait_for(&orphan->ready, helpers[0]);
    uint64_t tags[2], number, none;
    ist_token small_token, large_token;
    ist_segment x;
    CHECK(swarm_note_get(&orphan->small, &tags[0], &small_token, &number) && swarm_note_get(&orphan->large, &tags[1], &large_token, &none));
    CHECK_EQ(ist_lease_load(&small_token, number, &x), 0);
    swarm_check(x, tags[0], "loaded from a helper");
    ist_segment y = attach(&large_token, tags[1]);
    set(&orphan->go, 1);
    if ((helpers[1] = victim_fork()) == 0) {
        helper_reserve(st);
        _exit(1);
    }
    victim_end_of(helpers[1], true);
    struct swarm_held large = swarm_make(&st->area, LARGE); /* now, as the helpers before would hold it as well */
    test_token(large.segment);
    if ((helpers[2] = victim_fork()) == 0) {
        helper_punch(punch, me, large);
        atomic_fetch_add_explicit(&st->outrun, 1, memory_order_relaxed); /* relaxed: a count */
        kill(getpid(), SIGKILL);
    }
    victim_wait_for(&punch->ready, helpers[2]);
    ist_segment_release(large.segment);
    isti_housekeeper_pause(); /* whoever lets go of the large one last punches it, as nobody here sees to it */
    isti_window_attend(isti_domain_home_now(), false);
    set(&punch->go, 1);
    victim_end_of(helpers[0], true);
    victim_end_of(helpers[2], true);
    isti_housekeeper_resume();
    ist_sweep();
    swarm_check(x, tags[0], "after its maker died");
    swarm_check(y, tags[1], "after its maker died");
    ist_segment_release(y); /* we give its pages back; nobody else can */
    ist_sweep();
    swarm_check(x, tags[0], "alone in its window");
    ist_segment_release(x);
    ist_sweep();
}

/* Our memory of the window goes, so that the next attach maps it again and comes by here in the middle. */
static struct {
    struct pair *pair;
    pid_t helper;
    void *(*mmap)(void *, size_t, int, int, int, off_t);
} between;

static void *mmap_between(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    isti_os.mmap = between.mmap;
    set(&between.pair->go, 1);
    victim_wait_for(&between.pair->done, between.helper);
    return isti_os.mmap(address, size, protection, flags, fd, offset);
}

/* Attaching what goes at the same moment; and hints: a helper lets go of our segment last. */
static void refused(struct stage *st, struct swarm_held ours) {
    struct isti_domain *d = isti_domain_home_now();
    const pid_t me = getpid();
    struct pair *pair = &st->pairs[2];
    pid_t helper;
    if ((helper = victim_fork()) == 0) {
        helper_refuse(st, pair, me, ours);
        _exit(0);
    }
    victim_wait_for(&pair->ready, helper);
    ist_segment_release(ours.segment);
    uint64_t tag, none;
    ist_token token;
    ist_segment s;
    CHECK(swarm_note_get(&pair->small, &tag, &token, &none));
    between.pair = pair;
    between.helper = helper;
    between.mmap = isti_os.mmap;
    for (uint32_t w = 0; w < d->windows; w++) /* relaxed: there is no other thread; the mapping itself stays */
        atomic_store_explicit(&d->mapped[0][w], NULL, memory_order_relaxed);
    isti_os.mmap = mmap_between;
    CHECK_EQ(ist_segment_acquire(&token, &s), -ESTALE);
    CHECK(isti_os.mmap == between.mmap);
    victim_end_of(helper, false);
    ist_sweep();
}

static void victim(struct stage *st) {
    CHECK_EQ(ist_domain_join(), 0);
    pass(st);
    struct swarm_held q = swarm_make(&st->area, 1000);
    note(st, 0, &q);
    ist_segment_release(q.segment);
    struct swarm_held a = swarm_make(&st->area, 300), c = swarm_make(&st->area, 5000);
    note(st, 1, &a);
    note(st, 2, &c);
    attach_standing(st);
    wrapped();
    fill_the_table();
    freeze(st);
    grow(st);
    leases(&a);
    names(&a);
    victim_waits(&a, &st->pairs[3].ready, &st->pairs[3].go);
    inherit(st);
    refused(st, c);
    victim_locks(&st->counters, &st->lock);
    victim_queues(&st->area, &st->queue);
    swarm_check(a.segment, a.tag, "at the end");
    _exit(0); /* and whatever it still has is swept as well */
}

/* ---- the worker */

static void work(struct stage *st) {
    struct swarm_self self = {.area = &st->area, .random = test_now() | 1, .lost_of = 4};
    ist_lease_set_duration(UINT64_C(3000000));
    ist_queue *q;
    ist_sync *lock;
    CHECK_EQ(ist_queue_attach(&st->queue, &q), 0);
    CHECK_EQ(ist_sync_attach(&st->lock, &lock), 0);
    for (uint32_t acknowledged = 0; !is(&st->over, 1);) {
        uint32_t pause = atomic_load_explicit(&st->pause, memory_order_acquire); /* acquire: pairs with set */
        if (pause == 0) {
            for (int i = 0; i < 4; i++)
                swarm_step(&self);
            bystander_step(&self, q);
            victim_count(&st->counters, lock, 1000000);
            attach_standing(st);
            take_a_break(); /* there are victims to be run as well */
            acknowledged = 0;
        } else if (pause != acknowledged) {
            ist_collect();
            set(&st->paused, acknowledged = pause);
        } else {
            swarm_live(&st->area);
            take_a_break();
        }
    }
    swarm_release_all(&self);
    ist_queue_release(q);
    ist_sync_close(lock);
    exit(0);
}

/* ---- a process that comes afterwards */

static void newcomer(struct stage *st) {
    attach_standing(st);
    struct swarm_held a = swarm_make(&st->area, 2000);
    ist_token token = test_token(a.segment);
    ist_segment_release(attach(&token, a.tag));
    CHECK_EQ(ist_segment_freeze(a.segment), 0);
    swarm_check(a.segment, a.tag, "frozen");
    ist_segment_release(a.segment);
    ist_segment s;
    CHECK_EQ(ist_segment_acquire(&token, &s), -ESTALE);
    exit(0);
}

/* ---- the supervisor */

static struct {
    struct stage *st;
    int fd;
    struct swarm_self self;
    struct swarm_held standing[STANDING];
    ist_segment growing;
    size_t length; /* of it, when it was looked at last */
    ist_queue *queue;
    ist_sync *lock;
    unsigned kills, stops, kills_at[ISTI_POINT_COUNT], stops_at[ISTI_POINT_COUNT];
    struct swarm_held passing, caught[OWN + 2]; /* what is attached while the victim stands still */
    unsigned caught_count, caught_ever;
} super;

/* group: 0 makes one of its own, so that all its helpers can be waited for. */
static pid_t spawn(const char *role, unsigned point, unsigned times, bool stop) {
    char texts[5][32];
    pid_t pid;
    snprintf(texts[0], sizeof texts[0], "%s", role);
    snprintf(texts[1], sizeof texts[1], "%d", super.fd);
    snprintf(texts[2], sizeof texts[2], "%u", point);
    snprintf(texts[3], sizeof texts[3], "%u", times);
    snprintf(texts[4], sizeof texts[4], "%d", stop);
    char *arguments[] = {(char *)"plain_killpoints", texts[0], texts[1], texts[2], texts[3], texts[4], NULL};
    extern char **environ;
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setpgroup(&attributes, 0);
    CHECK_EQ(posix_spawn(&pid, "/proc/self/exe", NULL, &attributes, arguments, environ), 0);
    posix_spawnattr_destroy(&attributes);
    return pid;
}

static pid_t start_victim(enum isti_point point, unsigned times, bool exec, bool stop) {
    memset(super.st->own, 0, sizeof super.st->own); /* nobody else is there */
    for (int i = 0; i < PAIRS; i++)
        memset(&super.st->pairs[i], 0, sizeof super.st->pairs[i]);
    if (exec)
        return spawn("victim", point, times, stop);
    pid_t pid = fork();
    CHECK(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        setpgid(0, 0);
        victim_aim = point;
        victim_stands_still = stop;
        isti_point_stops(stop);
        isti_point_arm(point, times);
        victim(super.st);
    }
    setpgid(pid, pid); /* whoever is first */
    return pid;
}

static void catch (struct swarm_note *noted) {
    uint64_t tag, none;
    ist_token token;
    ist_segment s;
    if (!swarm_note_get(noted, &tag, &token, &none))
        return;
    int error = ist_segment_acquire(&token, &s);
    CHECK(error == 0 || error == -ESTALE, "%s", ist_strerror(error));
    if (error != 0)
        return;
    swarm_check(s, tag, "caught");
    super.caught[super.caught_count++] = (struct swarm_held){s, tag};
    super.caught_ever++;
}

/* The victim stands still. */
static void meanwhile(void) {
    if (!ist_segment_is_null(super.passing.segment))
        ist_segment_release(super.passing.segment);
    super.passing.segment = (ist_segment){0};
    for (int i = 0; i < OWN; i++)
        catch (&super.st->own[i]);
    catch (&super.st->pairs[0].small);
    catch (&super.st->pairs[0].large);
    ist_sweep();
    for (int i = 0; i < 20; i++) { /* and what it has freed by then is used again */
        struct swarm_held held = swarm_make(&super.st->area, 1000);
        test_token(held.segment);
        ist_segment_release(held.segment);
    }
}

static void let_caught_go(const char *name) {
    struct isti_domain *d = isti_domain_home_now();
    while (super.caught_count > 0) {
        struct swarm_held *held = &super.caught[--super.caught_count];
        ist_segment_info info;
        ist_segment_read_info(held->segment, &info);
        uint64_t s = atomic_load_explicit(&d->descriptor_rows[info.descriptor].state, memory_order_relaxed); /* relaxed: we hold it */
        CHECK(isti_s_live(s) && isti_s_generation(s) == info.descriptor_generation && info.processes >= 1,
              "%s: descriptor %u is %#llx, though it is held", name, info.descriptor, (unsigned long long)s);
        swarm_check(held->segment, held->tag, "caught, afterwards");
        ist_segment_release(held->segment);
    }
}

/* Works on until the victim and all its helpers are gone; true: the victim was killed. */
static bool see_it_end(pid_t pid, const char *name) {
    const uint64_t deadline = test_now() + UINT64_C(30000000000);
    bool killed = false;
    for (;;) {
        int status;
        pid_t ended = waitpid(-pid, &status, WNOHANG | WUNTRACED);
        if (ended < 0 && errno == ECHILD)
            return killed;
        if (ended > 0 && WIFSTOPPED(status)) {
            super.stops++;
            meanwhile();
            kill(ended, SIGCONT);
            continue;
        }
        if (ended > 0) {
            bool by_kill = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
            CHECK(status == 0 || by_kill, "%s: %s ended with %#x", name, ended == pid ? "the victim" : "a helper", status);
            killed = killed || (ended == pid && by_kill);
            continue;
        }
        if (test_now() >= deadline) {
            kill(-pid, SIGKILL);
            CHECK(false, "%s: the victim or a helper hangs", name);
        }
        swarm_step(&super.self);
        bystander_step(&super.self, super.queue);
        victim_count(&super.st->counters, super.lock, 0);
        take_a_break();
    }
}

static void load(uint32_t member, const ist_token *token, uint64_t number, void *unused) {
    (void)unused;
    struct isti_domain *d = isti_domain_home_now();
    if (isti_member_alive(d, member))
        return;
    ist_segment s;
    CHECK_EQ(ist_lease_load(token, number, &s), 0);
    swarm_check(s, swarm_tag(s), "from an estate");
    ist_segment_release(s);
}

/* All stop, give back and take hints: twice at least, as one's giving back is the other's hint, and until the worker's leases, which run
 * out meanwhile, are gone. */
static void quieten(const char *name) {
    char text[300];
    bool good = false;
    const uint64_t deadline = test_now() + UINT64_C(10000000000);
    for (uint32_t i = 1; i <= 2 || (!good && test_now() < deadline); i++) {
        set(&super.st->pause, i);
        for (uint64_t last = test_now() + UINT64_C(20000000000); !is(&super.st->paused, i); take_a_break())
            CHECK(test_now() < last, "the worker hangs");
        ist_collect();
        good = control_look(isti_domain_home_now(), CONTROL_SWEPT | CONTROL_QUIET, text, sizeof text);
    }
    CHECK(good, "%s, at rest: %s", name, text);
}

static void aftermath(const char *name, bool fresh) {
    ist_sweep();
    char text[300];
    CHECK(control_check(isti_domain_home_now(), CONTROL_SWEPT, text, sizeof text), "%s, after one sweep: %s", name, text);
    control_tickets(isti_domain_home_now(), load, NULL);
    const uint64_t deadline = test_now() + UINT64_C(10000000000);
    while (!victim_count(&super.st->counters, super.lock, 100000000)) /* told of the dead, at most once for each */
        CHECK(test_now() < deadline, "%s: the lock stays somebody's", name);
    quieten(name);
    CHECK_EQ(control_alive(isti_domain_home_now()), 2);
    for (int i = 0; i < STANDING; i++) {
        ist_segment_info info;
        ist_segment_read_info(super.standing[i].segment, &info);
        CHECK(info.owners == 1 && info.processes == 1, "%s: %u owners, %u processes", name, info.owners, info.processes);
        swarm_check(super.standing[i].segment, super.standing[i].tag, "standing");
    }
    const size_t length = ist_segment_length(super.growing);
    CHECK(length >= super.length && length <= GROWN && length % 8 == 0, "%s: %zu after %zu", name, length, super.length);
    super.length = length;
    set(&super.st->paused, 0);
    set(&super.st->pause, 0);
    if (fresh) {
        int status = test_wait(spawn("newcomer", 0, 0, false), 20);
        CHECK(status == 0, "%s: a newcomer ended with %#x", name, status);
    }
}

static bool run(enum isti_point point, unsigned times, bool exec, bool crowded) {
    char name[80];
    snprintf(name, sizeof name, "%s, time %u, by %s%s", isti_point_names[point], times, exec ? "exec" : "fork",
             crowded ? ", no place free" : "");
    bool killed = see_it_end(start_victim(point, times, exec, false), name);
    super.kills += killed;
    super.kills_at[point] += killed;
    aftermath(name, killed && times == 1);
    return killed;
}

static bool stop(enum isti_point point, unsigned times, bool exec) {
    char name[80];
    snprintf(name, sizeof name, "%s, stopped, time %u, by %s", isti_point_names[point], times, exec ? "exec" : "fork");
    super.passing = swarm_make(&super.st->area, 600);
    ist_token token = test_token(super.passing.segment);
    swarm_note_put(&super.st->passing, super.passing.tag, &token, 0);
    unsigned before = super.stops;
    bool killed = see_it_end(start_victim(point, times, exec, true), name);
    CHECK(!killed, "%s", name);
    memset(&super.st->passing, 0, sizeof super.st->passing);
    if (!ist_segment_is_null(super.passing.segment))
        ist_segment_release(super.passing.segment);
    ist_sweep();
    let_caught_go(name);
    super.stops_at[point] += super.stops > before;
    aftermath(name, false);
    return super.stops > before;
}

/* Somebody else may have swept what was meant for the victim: so again. */
static void insist(enum isti_point point, bool exec) {
    for (int i = 0; i < 3; i++)
        if (run(point, 1, exec, false))
            return;
}

/* The same until it happened once, of what every point has to see. */
static void see_to_it(enum isti_point point) {
    for (int i = 0; i < 20 && super.kills_at[point] == 0; i++)
        run(point, 1, i % 2 == 0, false);
    for (int i = 0; i < 20 && super.stops_at[point] == 0; i++)
        stop(point, 1, i % 2 == 0);
}

/* Every place is a dead process's, and each held something large of ours last: whoever joins has to sweep one first. */
static bool crowd(enum isti_point point, unsigned times) {
    struct isti_domain *d = isti_domain_home_now();
    ist_sweep();
    for (unsigned free = d->members - control_alive(d); free > 0; free--) {
        struct swarm_held large = swarm_make(&super.st->area, LARGE);
        test_token(large.segment);
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        ist_segment_release(large.segment);
        CHECK_EQ(test_wait(pid, 20), 0);
    }
    return run(point, times, true, true);
}

static void crowds(void) {
    static const enum isti_point points[] = {
        ISTI_POINT_JOIN_LOCKED,  ISTI_POINT_SWEEP_LOCKED,      ISTI_POINT_UNHOLD_CLEARED, ISTI_POINT_UNHOLD_FENCED,
        ISTI_POINT_FREE_SCANNED, ISTI_POINT_FREE_PUNCHING,     ISTI_POINT_FREE_PUNCHED,   ISTI_POINT_FREE_DEAD,
        ISTI_POINT_HINT_BIT,     ISTI_POINT_HINT_SUMMARY,      ISTI_POINT_HINT_DONE,      ISTI_POINT_SWEEP_CLEARED,
        ISTI_POINT_SWEEP_FREED,  ISTI_POINT_SWEEP_DESCRIPTORS, ISTI_POINT_SWEEP_TOLD,     ISTI_POINT_SWEEP_CLEAN};
    unsigned killed = 0;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        killed += crowd(points[i], 1);
    CHECK(killed > sizeof points / sizeof *points / 2, "%u", killed);
}

static void begin(void) {
    ist_options options = {.struct_size = sizeof options, .processes = PROCESSES, .published = 1 << 15};
    CHECK_EQ(ist_configure(&options), 0);
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    super.st = swarm_area_make(sizeof *super.st, &super.fd);
    atomic_store_explicit(&super.st->area.supervisor, (uint32_t)getpid(), memory_order_relaxed); /* relaxed: before the others come */
    char text[64];
    int error = ist_domain_text(text, sizeof text);
    if (error == -ENOSYS)
        test_skip("no /proc");
    CHECK_EQ(error, 0);
    CHECK_EQ(setenv("ISTHMUS_DOMAIN", text, 1), 0);
    const size_t sizes[STANDING] = {100, 20000, LARGE};
    for (int i = 0; i < STANDING; i++) {
        super.standing[i] = swarm_make(&super.st->area, sizes[i]);
        if (i == 1)
            CHECK_EQ(ist_segment_freeze(super.standing[i].segment), 0);
        ist_token token = test_token(super.standing[i].segment);
        swarm_note_put(&super.st->standing[i], super.standing[i].tag, &token, 0);
    }
    CHECK_EQ(ist_segment_create_growable(8, GROWN, 0, &super.growing), 0);
    ist_token token = test_token(super.growing);
    swarm_note_put(&super.st->growing, 0, &token, 0);
    CHECK_EQ(ist_queue_create(200, &super.queue), 0);
    super.st->queue = test_token(ist_queue_segment(super.queue));
    CHECK_EQ(ist_sync_create(IST_LOCK, 0, 0, &super.lock), 0);
    super.st->lock = test_token(ist_sync_segment(super.lock));
    ist_lease_set_duration(UINT64_C(3000000));
    super.self = (struct swarm_self){.area = &super.st->area, .random = test_seed(), .lost_of = 4};
}

int main(int argc, char **argv) {
    if (TEST_TSAN)
        test_skip("processes are killed one after the other: there is nothing for ThreadSanitizer to see");
    if (argc == 6) {
        struct stage *st = swarm_area_at(atoi(argv[2]), sizeof *st);
        victim_aim = (enum isti_point)atoi(argv[3]);
        if (strcmp(argv[1], "worker") == 0)
            work(st);
        if (strcmp(argv[1], "newcomer") == 0)
            newcomer(st);
        victim_stands_still = atoi(argv[5]) != 0;
        isti_point_stops(victim_stands_still);
        isti_point_arm(victim_aim, (unsigned)atoi(argv[4]));
        victim(st);
    }
    begin();
    pid_t worker = spawn("worker", 0, 0, false);
    for (uint64_t deadline = test_now() + UINT64_C(20000000000); control_alive(isti_domain_home_now()) < 2; take_a_break())
        CHECK(test_now() < deadline, "the worker doesn't come");
    const unsigned most = TEST_ASAN ? 1 : 3;
    for (unsigned p = 0; p < ISTI_POINT_COUNT; p++) {
        insist((enum isti_point)p, true);
        insist((enum isti_point)p, false);
        for (unsigned times = 2; times <= most && run((enum isti_point)p, times, times % 2 == p % 2, false); times++)
            ;
        for (unsigned times = 1; times <= (most + 1) / 2 && stop((enum isti_point)p, times, true) && p != ISTI_POINT_FORK_CHILD; times++)
            ;
        if (!TEST_ASAN)
            stop((enum isti_point)p, 1, false);
        see_to_it((enum isti_point)p);
    }
    unsigned reached = 0;
    for (unsigned p = 0; p < ISTI_POINT_COUNT; p++) {
        if (super.kills_at[p] == 0)
            fprintf(stderr, "nobody came to %s\n", isti_point_names[p]);
        if (super.stops_at[p] == 0)
            fprintf(stderr, "nobody stopped at %s\n", isti_point_names[p]);
        reached += super.kills_at[p] > 0 && super.stops_at[p] > 0;
    }
    crowds();
    set(&super.st->over, 1);
    CHECK_EQ(test_wait(worker, 20), 0);
    const unsigned outrun = atomic_load_explicit(&super.st->outrun, memory_order_relaxed); /* relaxed: all who count have ended */
    CHECK(outrun <= 10, "%u helpers were outrun by a sweep", outrun);
    printf("%u points of %d, %u kills, %u stops with %u segments caught; %llu segments, %llu attached, %llu stale tokens refused\n",
           reached, (int)ISTI_POINT_COUNT, super.kills, super.stops, super.caught_ever, (unsigned long long)super.st->area.segments,
           (unsigned long long)super.st->area.attaches, (unsigned long long)super.st->area.stale);
    CHECK_EQ(reached, ISTI_POINT_COUNT);
    return 0;
}
