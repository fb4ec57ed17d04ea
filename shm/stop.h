/* stop.h: calling off who waits: the two words of an ist_waiter (<isthmus/queue.h>). */
#ifndef ISTI_STOP_H
#define ISTI_STOP_H

#include <isthmus/queue.h>
#include <stdatomic.h>

/* w: the waiter, or NULL: nobody can call this one off. */
bool isti_stop_is_set(ist_waiter *w);
/* About to sleep on the eventcount `word`; looks whether it is stopped afterwards. And not any more. */
void isti_stop_announce(ist_waiter *w, _Atomic(uint32_t) *word);
void isti_stop_leave(ist_waiter *w, _Atomic(uint32_t) *word);

/* One turn of a short loop that waits for another core. */
static inline void isti_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
