/* heap.h: the window, its arena, and the table from an address to its slot. */
#ifndef ISTI_HEAP_H
#define ISTI_HEAP_H

#include "thread.h"

#include <isthmus/heap.h>

/* A block of at least `size` bytes for this thread; flags IST_ZERO, IST_PREFAULT. *error is written on failure. */
void *isti_heap_alloc(struct isti_thread *t, size_t size, uint32_t flags, int *error);

/* Gives a block back that isti_heap_alloc(size) gave. A block of a heap inherited through fork is left alone. t may be NULL. */
void isti_heap_free(void *block, size_t size);

/* The table of first bytes: index + 1 of the slot whose data begins at `block`, 0: none. block must be in the heap for the setters. */
void isti_address_set(const void *block, uint32_t index);
void isti_address_clear(const void *block);
uint32_t isti_address_get(const void *block);

/* Lets jemalloc give pages back whose time has come; true: there are more to come. */
bool isti_heap_decay(void);

/* All unused pages, now. Also those that this thread's cache keeps. */
void isti_heap_purge(void);

/* Bytes of memory really occupied. */
uint64_t isti_heap_mapped(void);

/* lease.c: when the nearest lease ends, 0: there is none; and its part of ist_stats. */
uint64_t isti_lease_next_deadline(void);
void isti_lease_stats(ist_stats *stats);

#endif
