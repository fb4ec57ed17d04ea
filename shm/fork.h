/* fork.h: what fork changes, in one place. */
#ifndef ISTI_FORK_H
#define ISTI_FORK_H

#include <isthmus/heap.h>

/* Each module with a lock or a thread gives its three handlers; fork.c calls them in lock order. */
void isti_lease_fork_prepare(void);
void isti_lease_fork_parent(void);
void isti_lease_fork_child(void);
void isti_thread_fork_prepare(void);
void isti_thread_fork_parent(void);
void isti_thread_fork_child(void);
void isti_heap_fork_prepare(void);
void isti_heap_fork_parent(void);
void isti_heap_fork_child(void);
void isti_housekeeper_fork_prepare(void);
void isti_housekeeper_fork_parent(void);
void isti_housekeeper_fork_child(void);
void isti_segment_fork_child(void);

#endif
