/* victim.h: what the parts of plain_killpoints share: a victim, its helpers, and their orders. */
#ifndef TEST_VICTIM_H
#define TEST_VICTIM_H

#include "point.h"
#include "swarm.h"

#include <isthmus/queue.h>

extern enum isti_point victim_aim;
extern bool victim_stands_still; /* at its point, rather than dies */

/* A child of the victim; 0: we are it, disarmed. */
pid_t victim_fork(void);
/* Waits for a helper's end; `killed`: by its own point. */
void victim_end_of(pid_t helper, bool killed);

/* Everything that a process does with queues: the supervisor's, and its own. */
void victim_queues(struct swarm_area *area, const ist_token *queue);

/* What others do with the supervisor's at the same time. */
void bystander_step(struct swarm_self *self, ist_queue *q);

#endif
