/* eventcount.h: waiting for something to happen, between processes: a futex word with a flag. No count of waiters, which a kill could tear.
 *
 *   waiting 1 | sequence 31
 *
 *   a waiter    v = prepare(); looks once more whether it has happened; wait(v)
 *   a waker     makes it happen, by a sequentially consistent exchange; wake_one() or wake_all()
 *
 * Prepare's exchange, the waker's load of the word, what makes it happen and the waiter's second look are all seq_cst, so one of the two
 * sees the other. The flag stays until a wake-up finds nobody asleep: clearing it moves the sequence on *and* wakes all, else a waiter
 * between its exchange and its sleep would be missed (tests/models/event.pml, litmus/event_*.litmus).
 *
 * A waiter that is killed leaves at most the flag. One that is killed after it was woken costs the others up to ISTI_BACKSTOP_NS.
 */
#ifndef ISTI_EVENTCOUNT_H
#define ISTI_EVENTCOUNT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define ISTI_BACKSTOP_NS UINT64_C(100000000) /* nobody sleeps longer without looking */

void isti_event_wake_one_slow(_Atomic(uint32_t) *word);

/* What is to be given to wait. */
static inline uint32_t isti_event_prepare(_Atomic(uint32_t) *word) {
    return atomic_fetch_or_explicit(word, 1, memory_order_seq_cst) | 1; /* seq_cst: see the head */
}

static inline bool isti_event_awaited(_Atomic(uint32_t) *word) {
    return (atomic_load_explicit(word, memory_order_seq_cst) & 1) != 0; /* seq_cst: see the head */
}

/* One load as long as nobody waits. */
static inline void isti_event_wake_one(_Atomic(uint32_t) *word) {
    if (__builtin_expect(isti_event_awaited(word), 0))
        isti_event_wake_one_slow(word);
}

void isti_event_wake_all(_Atomic(uint32_t) *word);

/* Sleeps until the word isn't `value` any more, at most until `deadline` or the backstop. 0: look again; -EINTR: a signal came. */
int isti_event_wait(_Atomic(uint32_t) *word, uint32_t value, uint64_t deadline);

#endif
