/* thread.c: blocks of thread.h, their list and their end.
 *
 *   total of a counter = totals[counter] + Σ threads' counters[counter]     (modulo 2^64: in_flight may go down in another thread)
 *
 * A block is made at the thread's first create or release and given back by a destructor of a pthread key, which returns the magazine and
 * folds the counters into the totals. A destructor of another library that releases a segment later makes a new block; POSIX runs our
 * destructor again for that.
 */
#include "thread.h"

#include "domain.h"
#include "fork.h"
#include "os.h"
#include "slab.h"

#include <pthread.h>

_Thread_local struct isti_thread_local isti_local;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the list and the key's making */
static struct isti_thread *threads;
static pthread_key_t key;
static bool key_made;
static _Atomic(uint64_t) totals[ISTI_COUNTERS];
static uint32_t numbers; /* given out so far; guarded by the mutex */

void isti_count_total(isti_counter counter, uint64_t n) {
    /* relaxed: a statistic */
    atomic_fetch_add_explicit(&totals[counter], n, memory_order_relaxed);
}

/* The caller holds the mutex. */
static void retire(struct isti_thread *t) {
    for (int i = 0; i < ISTI_COUNTERS; i++)
        isti_count_total((isti_counter)i, atomic_load_explicit(&t->counters[i], memory_order_relaxed));
    if (t->previous != NULL)
        t->previous->next = t->next;
    else
        threads = t->next;
    if (t->next != NULL)
        t->next->previous = t->previous;
}

static void thread_end(void *block) {
    struct isti_thread *t = block;
    if (ist_process_epoch() == 0)
        return; /* as in isti_thread_make: the block stays */
    if (t->rlocks > 0)
        isti_lock_thread_end(t->number);
    isti_slab_return(t);
    pthread_mutex_lock(&mutex);
    retire(t);
    pthread_mutex_unlock(&mutex);
    isti_local.thread = NULL;
    isti_os.free(t);
}

struct isti_thread *isti_thread_make(void) {
    if (ist_process_epoch() == 0)
        return NULL; /* a child without handlers: the mutex may be held by a thread that isn't here */
    struct isti_thread *t = isti_os.calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    t->heap_epoch = ISTI_UNBOUND;
    pthread_mutex_lock(&mutex);
    if (!key_made)
        key_made = pthread_key_create(&key, thread_end) == 0;
    /* without the destructor the block would never come back: then better none */
    if (!key_made || pthread_setspecific(key, t) != 0) {
        pthread_mutex_unlock(&mutex);
        isti_os.free(t);
        return NULL;
    }
    t->number = ++numbers;
    t->next = threads;
    if (threads != NULL)
        threads->previous = t;
    threads = t;
    pthread_mutex_unlock(&mutex);
    isti_local.thread = t;
    return t;
}

void isti_counters_read(uint64_t sums[ISTI_COUNTERS]) {
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < ISTI_COUNTERS; i++) {
        /* relaxed: snapshots of statistics */
        sums[i] = atomic_load_explicit(&totals[i], memory_order_relaxed);
        for (struct isti_thread *t = threads; t != NULL; t = t->next)
            sums[i] += atomic_load_explicit(&t->counters[i], memory_order_relaxed);
    }
    pthread_mutex_unlock(&mutex);
}

void isti_thread_fork_prepare(void) { pthread_mutex_lock(&mutex); }

void isti_thread_fork_parent(void) { pthread_mutex_unlock(&mutex); }

/* The other threads don't exist here: their blocks go, with the slots in their magazines. They may have been between
 * two stores, the count of a magazine moved on and its last place still naming a slot that is in use. */
void isti_thread_fork_child(void) {
    pthread_mutex_unlock(&mutex); /* the forking thread locked it, and is this one */
    struct isti_thread *t = threads;
    while (t != NULL) {
        struct isti_thread *next = t->next;
        if (t != isti_local.thread) {
            retire(t);
            isti_os.free(t);
        }
        t = next;
    }
    isti_slab_fork_child();
    /* nothing is under way to the child */
    atomic_store_explicit(&totals[ISTI_IN_FLIGHT], 0, memory_order_relaxed);
    if (isti_local.thread != NULL)
        atomic_store_explicit(&isti_local.thread->counters[ISTI_IN_FLIGHT], 0, memory_order_relaxed);
}
