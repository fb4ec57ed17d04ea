/* thread.h: what each thread has of its own: a magazine of free slots, counters, and the list of segments it is releasing. */
#ifndef ISTI_THREAD_H
#define ISTI_THREAD_H

#include <isthmus/heap.h>
#include <stdatomic.h>
#include <stdbool.h>

#define ISTI_MAGAZINE 64
#define ISTI_UNBOUND UINT32_MAX /* no epoch: nor is 0, which is what a child without handlers reads */

struct ist_slot;

/* Counters: only their thread writes (load and store, both relaxed: no other writer), anybody may read. */
typedef enum isti_counter { ISTI_BYTES_COPIED, ISTI_IN_FLIGHT, ISTI_COUNTERS } isti_counter;

struct isti_thread {
    uint32_t heap_epoch;      /* of the heap whose arena this thread is bound to; ISTI_UNBOUND: none */
    uint32_t free_count;      /* slots in the magazine */
    uint32_t creates_unattended; /* while there is no housekeeper: this thread does its work now and then */
    const struct isti_window *window; /* that heap's */
    struct ist_slot *magazine[ISTI_MAGAZINE];
    struct ist_slot *rest;    /* of a chain this thread is using up; NULL: none */
    uint32_t number;          /* no other thread of this process has, or had, it: owners of locks are told apart by it */
    uint32_t rlocks;          /* RLocks that it has, at least */
    _Atomic(uint64_t) counters[ISTI_COUNTERS];
    struct isti_thread *previous, *next; /* of all threads; guarded by the list's mutex */
};

/* The part that must be there also when no memory is left: in thread-local storage itself. */
struct isti_thread_local {
    struct isti_thread *thread;
    struct ist_slot *pending; /* segments to be freed by the outermost release of this thread */
    bool draining;
};
extern _Thread_local struct isti_thread_local isti_local;

struct isti_thread *isti_thread_make(void);

/* This thread's block; NULL if there is no memory for it. */
static inline struct isti_thread *isti_thread(void) {
    struct isti_thread *t = isti_local.thread;
    return __builtin_expect(t != NULL, 1) ? t : isti_thread_make();
}

/* For the counter of a thread that has no block (no memory for one): the shared totals. */
void isti_count_total(isti_counter counter, uint64_t n);

static inline void isti_count(struct isti_thread *t, isti_counter counter, uint64_t n) {
    if (__builtin_expect(t == NULL, 0)) {
        isti_count_total(counter, n);
        return;
    }
    /* relaxed: a statistic, written by this thread alone */
    uint64_t value = atomic_load_explicit(&t->counters[counter], memory_order_relaxed);
    atomic_store_explicit(&t->counters[counter], value + n, memory_order_relaxed);
}

/* The sums over all threads, those gone included. */
void isti_counters_read(uint64_t sums[ISTI_COUNTERS]);

#endif
