/* address.c: from an address to the segment that lies there.
 *
 * Every window that is mapped whole, this process's own, those of other processes and what fork left of the parent's, has two sparse tables
 * of private memory: the entry of a block is its slot's index + 1, by address / 4,096 if it begins on a page, else by address / 64. Windows
 * are never unmapped, so the list of them only grows.
 *
 *   entry of block b = i + 1  =>  slot i had its data at b, and its end hasn't begun or is under way: whoever finds i looks at its state
 *   window.epoch = ist_epoch()  <=>  what lies there is this process's to own
 *
 * The tables of a window of others are made with its mapping. If there is no room for them, what lies there isn't found by its address.
 */
#include "heap.h"
#include "os.h"

#include <sys/mman.h>

#define UNALIGNED (UINT64_C(16) << 10) /* blocks of this size and more begin on a page */

static _Atomic(struct isti_window *) windows; /* the newest first */

int isti_window_tables(struct isti_window *w) {
    const size_t granules = w->size / ISTI_GRANULE * sizeof(uint32_t), pages = w->size / ISTI_PAGE * sizeof(uint32_t);
    void *tables = isti_os.mmap(NULL, granules + pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (tables == MAP_FAILED)
        return -ENOMEM;
    isti_os.madvise(tables, granules + pages, MADV_DONTDUMP); /* see heap.c */
    w->granules = tables;
    w->pages = (_Atomic(uint32_t) *)((char *)tables + granules);
    return 0;
}

void isti_window_drop_tables(struct isti_window *w) {
    isti_os.munmap((void *)w->granules, w->size / ISTI_GRANULE * sizeof(uint32_t) + w->size / ISTI_PAGE * sizeof(uint32_t));
}

void isti_window_list(struct isti_window *w) {
    w->epoch = ist_epoch();
    w->next = atomic_load_explicit(&windows, memory_order_relaxed); /* relaxed: the exchange checks it */
    /* release: pairs with find's acquire, which sees the fields */
    while (!atomic_compare_exchange_weak_explicit(&windows, &w->next, w, memory_order_release, memory_order_relaxed))
        ;
}

void isti_window_list_others(char *base, size_t size) {
    struct isti_window *w = isti_os.calloc(1, sizeof *w);
    if (w == NULL)
        return;
    w->base = base;
    w->size = size;
    if (isti_window_tables(w) == 0)
        isti_window_list(w);
    else
        isti_os.free(w);
}

static const struct isti_window *find(const void *address) {
    /* acquire: pairs with isti_window_list */
    const struct isti_window *w = atomic_load_explicit(&windows, memory_order_acquire);
    while (w != NULL && !isti_window_contains(w, address))
        w = w->next;
    return w != NULL && w->epoch == ist_epoch() ? w : NULL;
}

/* relaxed, here and below: the caller checks an entry against the slot, whose state it acquires */
static uint32_t read(const struct isti_window *w, const void *block) {
    return atomic_load_explicit(isti_window_entry(w, block), memory_order_relaxed);
}

uint32_t isti_address_get(const void *block) {
    const struct isti_window *w = find(block);
    return w == NULL || (uintptr_t)block % ISTI_GRANULE != 0 ? 0 : read(w, block);
}

uint32_t isti_address_below(const void *address, const void **block) {
    const struct isti_window *w = find(address);
    if (w == NULL)
        return 0;
    const size_t from = (size_t)((uintptr_t)address - (uintptr_t)w->base);
    size_t at = from / ISTI_GRANULE * ISTI_GRANULE;
    /* granule by granule as far as a block without a page of its own can reach, then page by page */
    for (;;) {
        uint32_t entry = read(w, w->base + at);
        if (entry != 0) {
            *block = w->base + at;
            return entry;
        }
        if (at == 0)
            return 0;
        at = from - at < UNALIGNED ? at - ISTI_GRANULE : (at - 1) / ISTI_PAGE * ISTI_PAGE;
    }
}

void isti_address_forget(const void *block, uint32_t index) {
    const struct isti_window *w = find(block);
    if (w == NULL)
        return;
    uint32_t own = index + 1;
    /* relaxed: the caller holds what keeps the block from being another's */
    atomic_compare_exchange_strong_explicit(isti_window_entry(w, block), &own, 0, memory_order_relaxed, memory_order_relaxed);
}

void isti_address_replace(const void *block, uint32_t index) {
    const struct isti_window *w = find(block);
    if (w != NULL)
        isti_window_enter(w, block, index);
}
