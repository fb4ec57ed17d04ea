/* stop.c: see stop.h.
 *
 * Whoever waits announces the eventcount it sleeps on, looks whether it is stopped, and sleeps; whoever stops it sets the flag and wakes
 * all on the eventcount that is announced. While it does that the word's lowest bit is set: the waiter may end, and its eventcount be
 * unmapped, only afterwards.
 */
#include "stop.h"

#include "eventcount.h"

enum { WAITER_STOPPED, WAITER_WORD }; /* words of a waiter; the second: the address it sleeps on, | 1 while somebody wakes it there */

static _Atomic(uint64_t) *waiter_word(ist_waiter *w, int which) { return (_Atomic(uint64_t) *)(void *)&w->words[which]; }

void isti_stop_announce(ist_waiter *w, _Atomic(uint32_t) *word) {
    if (w != NULL) /* seq_cst: see ist_waiter_stop */
        atomic_store_explicit(waiter_word(w, WAITER_WORD), (uint64_t)(uintptr_t)word, memory_order_seq_cst);
}

void isti_stop_leave(ist_waiter *w, _Atomic(uint32_t) *word) {
    if (w == NULL)
        return;
    uint64_t there = (uint64_t)(uintptr_t)word;
    /* acquire: pairs with the stopper's release: it touches the word no more. It holds on for one system call */
    while (!atomic_compare_exchange_weak_explicit(waiter_word(w, WAITER_WORD), &there, 0, memory_order_acquire, memory_order_relaxed))
        there = (uint64_t)(uintptr_t)word;
}

void ist_waiter_stop(ist_waiter *w) {
    /* seq_cst, both and those of the waiter: it announces its word and looks whether it is stopped */
    atomic_store_explicit(waiter_word(w, WAITER_STOPPED), 1, memory_order_seq_cst);
    uint64_t there = atomic_load_explicit(waiter_word(w, WAITER_WORD), memory_order_seq_cst);
    if (there == 0 || (there & 1) != 0 ||
        !atomic_compare_exchange_strong_explicit(waiter_word(w, WAITER_WORD), &there, there | 1, memory_order_seq_cst,
                                                 memory_order_relaxed))
        return;
    isti_event_wake_all((_Atomic(uint32_t) *)(uintptr_t)there);
    atomic_store_explicit(waiter_word(w, WAITER_WORD), there, memory_order_release); /* pairs with isti_stop_leave */
}

void ist_waiter_reset(ist_waiter *w) {
    atomic_store_explicit(waiter_word(w, WAITER_STOPPED), 0, memory_order_relaxed); /* relaxed: a flag alone */
}

bool isti_stop_is_set(ist_waiter *w) {
    return w != NULL && atomic_load_explicit(waiter_word(w, WAITER_STOPPED), memory_order_seq_cst) != 0; /* seq_cst: see stop */
}
