/* fork.h: what fork changes, in one place. */
#ifndef ISTI_FORK_H
#define ISTI_FORK_H

#include <isthmus/heap.h>
#include <stdbool.h>

/* Each module with a lock or a thread gives its three handlers; fork.c calls them in lock order. */
void isti_lease_fork_prepare(void);
void isti_lease_fork_parent(void);
void isti_lease_fork_child(void);
void isti_waiters_fork_prepare(void);
void isti_waiters_fork_parent(void);
void isti_waiters_fork_child(void);
void isti_listen_fork_prepare(void);
void isti_listen_fork_parent(void);
void isti_listen_fork_child(void);
void isti_thread_fork_prepare(void);
void isti_thread_fork_parent(void);
void isti_thread_fork_child(void);
void isti_heap_fork_prepare(void);
void isti_heap_fork_parent(void);
void isti_heap_fork_child(void);
void isti_housekeeper_fork_prepare(void);
void isti_housekeeper_fork_parent(void);
void isti_housekeeper_fork_child(void);
void isti_domain_fork_prepare(void);
void isti_domain_fork_parent(void);
void isti_domain_fork_child(void);
bool isti_domain_fork_carried(void); /* whether the child owns what its parent owned */

#endif
