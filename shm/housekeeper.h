/* housekeeper.h: the one thread that does what is due when nobody calls. */
#ifndef ISTI_HOUSEKEEPER_H
#define ISTI_HOUSEKEEPER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* 1: a tick for dirty pages is already due. Set by freers, cleared by the housekeeper before it looks. */
extern _Atomic(uint32_t) isti_dirty_armed;
void isti_housekeeper_arm_dirty(void);

/* Memory was freed: its pages are to go back to the system. Called on every free, so it is one load when that is already known. */
static inline void isti_housekeeper_dirty(void) {
    /* relaxed: a hint; see work() for a free that misses the clearing */
    if (__builtin_expect(atomic_load_explicit(&isti_dirty_armed, memory_order_relaxed) == 0, 0))
        isti_housekeeper_arm_dirty();
}

/* Leases are to be looked at by `deadline`. */
void isti_housekeeper_lease(uint64_t deadline);

/* 1: something has a deadline and there is no thread (ISTHMUS_HOUSEKEEPER=0, or none could be started). */
extern _Atomic(uint32_t) isti_unattended;
void isti_housekeeper_poll_now(void);

/* Without a thread: does what is due, at every 64th call that `counter` of the calling thread counts. Called by every create, so it is one
 * load where there is a thread. */
static inline void isti_housekeeper_poll(uint32_t *counter) {
    /* relaxed: a hint; one that is missed is seen by a later call */
    if (__builtin_expect(atomic_load_explicit(&isti_unattended, memory_order_relaxed) != 0, 0) && ++*counter % 64 == 0)
        isti_housekeeper_poll_now();
}

/* No thread from now on; one that runs ends. */
void isti_housekeeper_disable(void);

/* Between the two nobody goes through the domains for the housekeeper. Before any lock of ours; not from a segment's destructor. */
void isti_housekeeper_pause(void);
void isti_housekeeper_resume(void);

/* From now on there are, or may be, other processes: the dead are looked for while there is somebody to die, and what others let go of or
 * strike out is heard. The thread stays, asleep as long as this process is alone. */
void isti_housekeeper_watch(void);

/* We are in one more domain. */
void isti_housekeeper_look(void);

/* The word that wakes the housekeeper: our doorbell in the home domain; NULL: a private one. */
void isti_housekeeper_bell(_Atomic(uint32_t) *word);

#endif
