/* victim.h: what the parts of plain_killpoints share: a victim, its helpers, and their orders. */
#ifndef TEST_VICTIM_H
#define TEST_VICTIM_H

#include "point.h"
#include "swarm.h"

#include <isthmus/lock.h>
#include <isthmus/queue.h>

extern enum isti_point victim_aim;
extern bool victim_stands_still; /* at its point, rather than dies */

/* A child of the victim; 0: we are it, disarmed. */
pid_t victim_fork(void);
/* Waits for a helper's end; `killed`: by its own point. */
void victim_end_of(pid_t helper, bool killed);

/* The victim waits until a helper has set the flag, the helper until its victim has; without a victim it ends, holding what it holds. */
void victim_wait_for(_Atomic(uint32_t) *flag, pid_t helper);
void victim_helper_waits(_Atomic(uint32_t) *flag, pid_t victim);

/* Everything about waiting on elements; ready and go: for it and a helper of its, 0 at first. */
void victim_waits(struct swarm_held *held, _Atomic(uint32_t) *ready, _Atomic(uint32_t) *go);

/* Everything that a process does with queues: the supervisor's, and its own. */
void victim_queues(struct swarm_area *area, const ist_token *queue);

/* The same of locks. */
struct victim_counters {
    uint64_t first, second; /* guarded by the supervisor's lock */
    _Atomic(uint32_t) told; /* how often somebody was told of a dead owner */
};
void victim_locks(struct victim_counters *counters, const ist_token *token);
/* Counts, with the lock; false: it couldn't be had within `ns`, or its owner is dead. */
bool victim_count(struct victim_counters *counters, ist_sync *s, uint64_t ns);

/* What others do with the supervisor's at the same time. */
void bystander_step(struct swarm_self *self, ist_queue *q);

#endif
