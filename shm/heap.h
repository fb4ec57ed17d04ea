/* heap.h: the window, its arena, and the table from an address to its slot. */
#ifndef ISTI_HEAP_H
#define ISTI_HEAP_H

#include "housekeeper.h"
#include "os.h"
#include "sanitizer.h"
#include "thread.h"

#include <isthmus/heap.h>
#include <jemalloc/jemalloc.h>

#define ISTI_GRANULE 64u
#define ISTI_PAGE 4096u /* of the address table, whatever the machine's is */
#define ISTI_SIZED_FREE 4096u /* up to here jemalloc has a table from sizes to classes; beyond, looking the block up is faster */

/* A mapped window and its tables of addresses (address.c): the part of a heap that create and release need inline. Constant once it is
 * listed, which a heap's is when it is open. */
struct isti_window {
    char *base;
    size_t size;
    _Atomic(uint32_t) *granules; /* by address / 64: blocks that don't begin on a page */
    _Atomic(uint32_t) *pages;    /* by address / 4,096: blocks that do */
    uint32_t epoch;              /* of the memory, when it was mapped */
    struct isti_window *next;    /* of all mapped windows */
};

static inline bool isti_window_contains(const struct isti_window *w, const void *p) { return (uintptr_t)p - (uintptr_t)w->base < w->size; }

static inline _Atomic(uint32_t) *isti_window_entry(const struct isti_window *w, const void *block) {
    size_t offset = (size_t)((uintptr_t)block - (uintptr_t)w->base);
    return offset % ISTI_PAGE == 0 ? &w->pages[offset / ISTI_PAGE] : &w->granules[offset / ISTI_GRANULE];
}

static inline void isti_window_enter(const struct isti_window *w, const void *block, uint32_t index) {
    /* relaxed: create's release store of the state publishes it */
    atomic_store_explicit(isti_window_entry(w, block), index + 1, memory_order_relaxed);
}

/* A multiple of 64: jemalloc's classes of such sizes are all aligned to 64, so no alignment has to be asked for (which would bypass the
 * thread cache for large ones). */
static inline size_t isti_heap_rounded(size_t size) { return (size + (size == 0) + (ISTI_GRANULE - 1)) & ~(size_t)(ISTI_GRANULE - 1); }

/* ISTHMUS_DEBUG: what is freed is overwritten first, so that who still uses it notices. Written once, at first use. */
extern _Atomic(bool) isti_fills_freed;
void isti_fill_freed(void *block, size_t size);

static inline void isti_window_free(const struct isti_window *w, void *block, size_t size) {
    if (!isti_window_contains(w, block)) /* a child's: neither the block nor the entry is its own */
        return;
    /* relaxed: the block goes back to jemalloc afterwards, whose locks order it before its next owner's store */
    atomic_store_explicit(isti_window_entry(w, block), 0, memory_order_relaxed);
    if (__builtin_expect(atomic_load_explicit(&isti_fills_freed, memory_order_relaxed), 0)) /* relaxed: a flag alone */
        isti_fill_freed(block, size);
    isti_poison(block, isti_heap_rounded(size));
    if (size <= ISTI_SIZED_FREE)
        ist_je_sdallocx(block, isti_heap_rounded(size), 0);
    else
        ist_je_dallocx(block, 0);
    isti_housekeeper_dirty();
}

/* The uncommon ends of the two functions below. */
void *isti_heap_alloc_slow(struct isti_thread *t, size_t size, uint32_t flags, uint32_t index, int *error);
void isti_heap_free_slow(void *block, size_t size);

/* The same, all bytes 0 without touching its whole pages, and the memory of the first `prefaulted` bytes there. */
void *isti_heap_alloc_sparse(struct isti_thread *t, size_t size, size_t prefaulted, uint32_t index, int *error);

/* A block of at least `size` bytes for this thread, entered into the table of addresses as that of slot `index`; flags IST_ZERO,
 * IST_PREFAULT. *error is written on failure. */
static inline void *isti_heap_alloc(struct isti_thread *t, size_t size, uint32_t flags, uint32_t index, int *error) {
    const struct isti_window *w = t->window;
    /* H2: the epoch, before jemalloc. In epoch 0 no thread is bound */
    if (__builtin_expect(!ISTI_POISONS && t->heap_epoch == ist_process_epoch() && flags == 0 && size <= w->size, 1)) {
        void *block = isti_os.mallocx(isti_heap_rounded(size), 0);
        if (__builtin_expect(block != NULL && isti_window_contains(w, block), 1)) {
            isti_window_enter(w, block, index);
            return block;
        }
        if (block != NULL) /* of another arena: see allocate in heap.c */
            ist_je_sdallocx(block, isti_heap_rounded(size), 0);
    }
    return isti_heap_alloc_slow(t, size, flags, index, error);
}

/* Takes a block that isti_heap_alloc(size) gave out of the table and gives it back. One of a heap inherited through fork is left alone.
 * t may be NULL. */
static inline void isti_heap_free(struct isti_thread *t, void *block, size_t size) {
    if (__builtin_expect(t != NULL && t->heap_epoch == ist_process_epoch(), 1))
        isti_window_free(t->window, block, size);
    else
        isti_heap_free_slow(block, size);
}

/* Tries to make a block of `size` bytes one of `wanted` where it is; false: it can't be, or isn't of this process's heap. */
bool isti_heap_resize(void *block, size_t size, size_t wanted);

/* A published block that nobody holds any more goes back to the heap, from whatever thread. */
void isti_heap_give_back(void *block, size_t size);

/* Options, read from the environment at first use. */
#define ISTI_WINDOW_DEFAULT (UINT64_C(64) << 30)
struct isti_limits {
    uint32_t processes, published; /* of a domain that this process makes; 0: the default */
};
extern struct isti_limits isti_limits;
void isti_limits_read(void);
uint64_t isti_heap_wanted(void); /* bytes; 0: the default */

/* ---- address.c */

/* Makes the tables of a window whose base and size are set: 0 or -ENOMEM; and takes them away. */
int isti_window_tables(struct isti_window *w);
void isti_window_drop_tables(struct isti_window *w);
/* From now on addresses in it are found. It stays for ever. */
void isti_window_list(struct isti_window *w);
/* The same for the mapping of another process's window; without memory for its tables it stays unlisted. */
void isti_window_list_others(char *base, size_t size);
/* index + 1 of the slot whose data begins at `block`, 0: none. */
uint32_t isti_address_get(const void *block);
/* The same of the last block that begins at `address` or below it; whether it reaches so far is the caller's to find out. Takes a step per
 * page, once it is 16 KiB below. */
uint32_t isti_address_below(const void *address, const void **block);
/* The table entry of a block: taken away if it is still slot `index`'s; made slot `index`'s. Blocks in no listed window have none. */
void isti_address_forget(const void *block, uint32_t index);
void isti_address_replace(const void *block, uint32_t index);

/* Lets jemalloc give pages back whose time has come; true: there are more to come. */
bool isti_heap_decay(void);

/* All unused pages, now. Also those that this thread's cache keeps. */
void isti_heap_purge(void);

/* Bytes of memory really occupied. */
uint64_t isti_heap_mapped(void);

/* lease.c: when the nearest lease ends, 0: there is none; and its part of ist_stats. */
uint64_t isti_lease_next_deadline(void);
void isti_lease_settle(void); /* waits for a moment, until what other threads took out of the leases is released */
void isti_lease_stats(ist_stats *stats);

#endif
