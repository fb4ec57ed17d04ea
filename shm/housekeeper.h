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

/* Without a thread (ISTHMUS_HOUSEKEEPER=0, or none could be started): does what is due now. Called now and then by create and lease. */
void isti_housekeeper_poll(void);

/* Is there no thread to rely on? */
bool isti_housekeeper_absent(void);
void isti_housekeeper_disable(void);

#endif
