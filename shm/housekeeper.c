/* housekeeper.c: started by the first thing with a deadline, asleep on a futex until the nearest one, gone when there is none.
 *
 * jemalloc gives dirty pages back only when somebody ticks, and a program that freed everything and waits for input ticks nothing. The
 * same thread ends leases. It is C only, takes no GIL and blocks all signals.
 *
 *   due_dirty, due_lease = 0 or when the work is to be done; guarded by the mutex
 *   isti_unattended      = something is due and there is no thread; written under the mutex
 *   running              = the thread exists, or is being started, and will look at both before it ends
 *
 * It ends under the mutex, after it saw that nothing is due, so whoever sets a deadline later starts another.
 */
#include "housekeeper.h"

#include "fork.h"
#include "heap.h"
#include "os.h"

#include <isthmus/lease.h>
#include <pthread.h>

#define TICK_NS UINT64_C(250000000) /* four looks in jemalloc's decay time of a second */

_Atomic(uint32_t) isti_dirty_armed, isti_unattended;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t due_dirty, due_lease;
static bool running, disabled;
static _Atomic(uint32_t) bell; /* futex: moves when a deadline was set */

static uint64_t earlier(uint64_t a, uint64_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

static void look_again(void);

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

static void *run(void *unused) {
    (void)unused;
    pthread_mutex_lock(&mutex);
    for (;;) {
        uint64_t next = earlier(due_dirty, due_lease);
        if (next == 0)
            break;
        uint64_t now = isti_os.now();
        if (next > now) {
            /* relaxed: the mutex orders it; the value only has to be read before the mutex is left */
            uint32_t heard = atomic_load_explicit(&bell, memory_order_relaxed);
            pthread_mutex_unlock(&mutex);
            isti_os.futex_wait(&bell, heard, next);
            pthread_mutex_lock(&mutex);
            continue;
        }
        bool dirty = due_dirty != 0 && due_dirty <= now, lease = due_lease != 0 && due_lease <= now;
        if (dirty)
            due_dirty = 0;
        if (lease)
            due_lease = 0;
        pthread_mutex_unlock(&mutex);
        work(dirty, lease);
        pthread_mutex_lock(&mutex);
    }
    running = false;
    pthread_mutex_unlock(&mutex);
    return NULL;
}

/* Sets a deadline and sees to it that somebody will look. The mutex is held. */
static void set(uint64_t *due, uint64_t deadline) {
    uint64_t before = earlier(due_dirty, due_lease);
    *due = earlier(*due, deadline);
    if (!running) {
        running = !disabled && isti_os.thread_create(run, NULL) == 0;
        /* relaxed: a hint, see isti_housekeeper_poll */
        atomic_store_explicit(&isti_unattended, !running, memory_order_relaxed);
    } else if (before == 0 || deadline < before) {
        /* relaxed: under the mutex; the waiter compares it in the kernel */
        atomic_fetch_add_explicit(&bell, 1, memory_order_relaxed);
        isti_os.futex_wake(&bell, 1);
    }
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
    pthread_mutex_unlock(&mutex);
}

void isti_housekeeper_poll_now(void) {
    pthread_mutex_lock(&mutex);
    uint64_t now = isti_os.now();
    bool mine = !running;
    bool dirty = mine && due_dirty != 0 && due_dirty <= now, lease = mine && due_lease != 0 && due_lease <= now;
    if (dirty)
        due_dirty = 0;
    if (lease)
        due_lease = 0;
    if (mine && earlier(due_dirty, due_lease) == 0)
        atomic_store_explicit(&isti_unattended, 0, memory_order_relaxed); /* relaxed: as in set */
    pthread_mutex_unlock(&mutex);
    work(dirty, lease);
}

void isti_housekeeper_fork_prepare(void) { pthread_mutex_lock(&mutex); }

void isti_housekeeper_fork_parent(void) { pthread_mutex_unlock(&mutex); }

void isti_housekeeper_fork_child(void) {
    pthread_mutex_unlock(&mutex); /* the forking thread locked it, and is this one */
    running = false;
    due_dirty = due_lease = 0;
    /* relaxed: the child has one thread */
    atomic_store_explicit(&isti_unattended, 0, memory_order_relaxed);
    atomic_store_explicit(&isti_dirty_armed, 0, memory_order_relaxed);
}
