/* housekeeper.c: started by the first thing with a deadline, asleep on a futex until the nearest one, gone when there is none.
 *
 * jemalloc gives dirty pages back only when somebody ticks, and a program that freed everything and waits for input ticks nothing. The
 * same thread ends leases. It is C only, takes no GIL and blocks all signals.
 *
 *   due_dirty, due_lease, due_sweep = 0 or when the work is to be done; guarded by the mutex
 *   watching             = other processes may ring, or die: the thread stays
 *   isti_unattended      = something is due and there is no thread; written under the mutex
 *   running              = the thread exists, or is being started, and will look at both before it ends
 *
 * It ends under the mutex, after it saw that nothing is due, so whoever sets a deadline later starts another.
 *
 * `attending` is held by whoever goes through the domains here; it comes before all other locks. So isti_housekeeper_pause keeps them.
 */
#include "housekeeper.h"

#include "domain.h"
#include "fork.h"
#include "heap.h"
#include "os.h"
#include "queue.h"

#include <isthmus/lease.h>
#include <pthread.h>

#define TICK_NS UINT64_C(250000000) /* four looks in jemalloc's decay time of a second */

_Atomic(uint32_t) isti_dirty_armed, isti_unattended;

static _Atomic(uint32_t) watched; /* the process epoch in which watching began */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, attending = PTHREAD_MUTEX_INITIALIZER;
static uint64_t due_dirty, due_lease, due_sweep;
static bool running, disabled, watching;
static _Atomic(uint32_t) own_bell, *bell = &own_bell; /* futex: moves when a deadline was set, or another process rang */

#define SWEEP_NS UINT64_C(2000000000)

static uint64_t earlier(uint64_t a, uint64_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

static uint64_t nearest(void) { return earlier(due_sweep, earlier(due_dirty, due_lease)); }

static void look_again(void);
static void sweep_again(void);

/* What other processes left for us, and the dead. `attending` is held. */
static void attend(bool sweep) {
    isti_lease_poll();
    isti_listen_poll();
    isti_waiters_tell(); /* also when it is time to sweep: whoever was to ring may be dead */
    uint32_t at = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&at)) != NULL;) {
        isti_rings_drain(d);
        isti_window_take_hints(d);
    }
    if (sweep)
        isti_sweep_all();
    if (isti_sweep_needed())
        sweep_again();
}

/* Does what is due; the mutex is not held (leases run destructors). */
static void work(bool dirty, bool lease) {
    if (lease) {
        ist_lease_expire();
        uint64_t next = isti_lease_next_deadline();
        if (next != 0)
            isti_housekeeper_lease(next);
    }
    if (!dirty)
        return;
    /* Clear first, look afterwards: a free in between either is seen by the look or arms again. One more look follows a tick that was
     * armed, so a free that neither was seen nor saw the clearing (relaxed on both sides: it is on the path of every free) is met a
     * quarter of a second later. */
    bool armed = atomic_exchange_explicit(&isti_dirty_armed, 0, memory_order_relaxed) != 0;
    if (isti_heap_decay() || armed)
        look_again();
}

/* What of the deadlines has come, taken out. The mutex is held. */
struct due {
    bool dirty, lease, sweep;
};

static bool come(uint64_t *due, uint64_t now) {
    bool yes = *due != 0 && *due <= now;
    if (yes)
        *due = 0;
    return yes;
}

static struct due take_due(uint64_t now) {
    return (struct due){.dirty = come(&due_dirty, now), .lease = come(&due_lease, now), .sweep = come(&due_sweep, now)};
}

/* Whether others may leave it to our thread to look for what they let go of. `attending` is held. */
static void promise(bool yes) {
    uint32_t at = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&at)) != NULL;)
        isti_window_attend(d, yes);
}

/* The thread has ended. */
static void withdraw(void) {
    pthread_mutex_lock(&attending);
    pthread_mutex_lock(&mutex);
    const bool another = running;
    pthread_mutex_unlock(&mutex);
    if (!another)
        promise(false);
    pthread_mutex_unlock(&attending);
}

static void *run(void *unused) {
    (void)unused;
    pthread_mutex_lock(&mutex);
    /* acquire: pairs with isti_member_ring */
    uint32_t attended = atomic_load_explicit(bell, memory_order_acquire) - 1;
    for (;;) {
        uint64_t next = nearest(), now = isti_os.now();
        if (disabled || (next == 0 && !watching))
            break;
        uint32_t heard = atomic_load_explicit(bell, memory_order_acquire);
        bool rung = watching && heard != attended;
        if (!rung && (next == 0 || next > now)) {
            _Atomic(uint32_t) *word = bell;
            pthread_mutex_unlock(&mutex);
            isti_os.futex_wait(word, heard, next == 0 ? UINT64_MAX : next);
            pthread_mutex_lock(&mutex);
            continue;
        }
        attended = heard;
        struct due due = take_due(now);
        pthread_mutex_unlock(&mutex);
        work(due.dirty, due.lease);
        if (rung || due.sweep) {
            pthread_mutex_lock(&attending);
            attend(due.sweep);
            promise(true);
            pthread_mutex_unlock(&attending);
        }
        pthread_mutex_lock(&mutex);
    }
    running = false;
    if (nearest() != 0 || watching)
        atomic_store_explicit(&isti_unattended, 1, memory_order_relaxed); /* relaxed: as in see_to_it */
    pthread_mutex_unlock(&mutex);
    withdraw();
    return NULL;
}

static void wake(void) {
    /* relaxed: under the mutex; the waiter compares it in the kernel */
    atomic_fetch_add_explicit(bell, 1, memory_order_relaxed);
    isti_os.futex_wake(bell, 1);
}

/* Sees to it that the thread runs, if it may. The mutex is held. */
static void see_to_it(void) {
    running = !disabled && isti_os.thread_create(run, NULL) == 0;
    /* relaxed: a hint, see isti_housekeeper_poll */
    atomic_store_explicit(&isti_unattended, !running, memory_order_relaxed);
}

/* Sets a deadline and sees to it that somebody will look. The mutex is held. */
static void set(uint64_t *due, uint64_t deadline) {
    uint64_t before = nearest();
    *due = earlier(*due, deadline);
    if (!running)
        see_to_it();
    else if (before == 0 || deadline < before)
        wake();
}

static void sweep_again(void) {
    pthread_mutex_lock(&mutex);
    if (due_sweep == 0)
        set(&due_sweep, isti_os.now() + SWEEP_NS);
    pthread_mutex_unlock(&mutex);
}

void isti_housekeeper_watch(void) {
    /* relaxed: a hint; whoever comes too early waits for the mutex */
    if (atomic_load_explicit(&watched, memory_order_relaxed) == ist_process_epoch())
        return;
    pthread_mutex_lock(&mutex);
    watching = true;
    atomic_store_explicit(&watched, ist_process_epoch(), memory_order_relaxed);
    if (!running)
        see_to_it();
    else
        wake();
    pthread_mutex_unlock(&mutex);
}

void isti_housekeeper_look(void) {
    pthread_mutex_lock(&mutex);
    if (running)
        wake();
    pthread_mutex_unlock(&mutex);
}

void isti_housekeeper_bell(_Atomic(uint32_t) *word) {
    pthread_mutex_lock(&mutex);
    _Atomic(uint32_t) *before = bell;
    bell = word != NULL ? word : &own_bell;
    atomic_fetch_add_explicit(before, 1, memory_order_relaxed); /* relaxed: as in wake; the thread looks which word it is now */
    isti_os.futex_wake(before, 1);
    pthread_mutex_unlock(&mutex);
}

static void look_again(void) {
    pthread_mutex_lock(&mutex);
    set(&due_dirty, isti_os.now() + TICK_NS);
    pthread_mutex_unlock(&mutex);
}

void isti_housekeeper_arm_dirty(void) {
    /* relaxed: see work */
    if (atomic_exchange_explicit(&isti_dirty_armed, 1, memory_order_relaxed) == 0)
        look_again();
}

void isti_housekeeper_lease(uint64_t deadline) {
    pthread_mutex_lock(&mutex);
    set(&due_lease, deadline);
    pthread_mutex_unlock(&mutex);
}

void isti_housekeeper_disable(void) {
    pthread_mutex_lock(&mutex);
    disabled = true;
    if (running)
        wake();
    pthread_mutex_unlock(&mutex);
}

void isti_housekeeper_pause(void) { pthread_mutex_lock(&attending); }

void isti_housekeeper_resume(void) { pthread_mutex_unlock(&attending); }

void isti_housekeeper_poll_now(void) {
    pthread_mutex_lock(&mutex);
    uint64_t now = isti_os.now();
    bool mine = !running;
    struct due due = {0};
    if (mine)
        due = take_due(now);
    if (mine && nearest() == 0 && !watching)
        atomic_store_explicit(&isti_unattended, 0, memory_order_relaxed); /* relaxed: as in see_to_it */
    bool rung = mine && watching;
    pthread_mutex_unlock(&mutex);
    work(due.dirty, due.lease);
    /* not where it is being done: also by this thread, whose destructors may allocate */
    if (rung && pthread_mutex_trylock(&attending) == 0) {
        attend(due.sweep);
        pthread_mutex_unlock(&attending);
    }
}

void isti_housekeeper_fork_prepare(void) { pthread_mutex_lock(&mutex); }

void isti_housekeeper_fork_parent(void) { pthread_mutex_unlock(&mutex); }

void isti_housekeeper_fork_child(void) {
    pthread_mutex_unlock(&mutex); /* the forking thread locked it, and is this one */
    attending = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER; /* the parent's housekeeper may have it */
    running = false;
    watching = false;
    bell = &own_bell;
    due_dirty = due_lease = due_sweep = 0;
    /* relaxed: the child has one thread */
    atomic_store_explicit(&isti_unattended, 0, memory_order_relaxed);
    atomic_store_explicit(&isti_dirty_armed, 0, memory_order_relaxed);
}
