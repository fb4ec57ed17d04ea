/* eventcount.c: see eventcount.h. */
#include "eventcount.h"

#include "os.h"

#include <errno.h>
#include <limits.h>

void isti_event_wake_one_slow(_Atomic(uint32_t) *word) {
    /* relaxed, all: what happened is told by the caller's seq_cst exchange; the kernel compares the word under its own lock */
    uint32_t now = atomic_fetch_add_explicit(word, 2, memory_order_relaxed) + 2;
    if (isti_os.futex_wake(word, 1) > 0)
        return;
    /* Nobody is asleep: the flag goes. Whoever has just set it and isn't asleep yet sees another word, or is woken here. */
    if (atomic_compare_exchange_strong_explicit(word, &now, (now + 2) & ~1u, memory_order_relaxed, memory_order_relaxed))
        isti_os.futex_wake(word, INT_MAX);
}

void isti_event_wake_all(_Atomic(uint32_t) *word) {
    /* seq_cst: as in isti_event_prepare; the flag stays, a later wake-up that finds nobody clears it */
    atomic_fetch_add_explicit(word, 2, memory_order_seq_cst);
    isti_os.futex_wake(word, INT_MAX);
}

int isti_event_wait(_Atomic(uint32_t) *word, uint32_t value, uint64_t deadline) {
    const uint64_t backstop = isti_os.now() + ISTI_BACKSTOP_NS;
    return isti_os.futex_wait(word, value, deadline < backstop ? deadline : backstop) == EINTR ? -EINTR : 0;
}
