/* fork.c: the two epochs and the order of the fork handlers.
 *
 * The epoch words stand alone in a page that the kernel wipes in a forked child (MADV_WIPEONFORK), so also a child that came about
 * without handlers (a raw clone) reads 0 there and every entry of the library refuses. Our own child handler then writes the next
 * numbers: that of the process always, that of the memory if the child couldn't be made an owner of what its parent owned.
 *
 *   epoch page = 0, 0                         in a child whose handlers didn't run
 *   epoch page = memory epoch, process epoch  otherwise; the second grows by one in each generation of children
 *
 * Lock order: lease, heap, domains (domain.c has the order within), threads, housekeeper, waiters, listeners, mapped files; then jemalloc's
 * own, which it takes in a prepare handler of its own. Prepare handlers run in the reverse order of registration, so jemalloc must have
 * registered first: it is started here before we register. (The housekeeper's `attending` comes before all; fork doesn't wait for it.)
 */
#include "fork.h"

#include "os.h"
#include "point.h"
#include "segment.h"

#include <isthmus/process.h>
#include <jemalloc/jemalloc.h>
#include <sys/mman.h>

#ifndef MADV_WIPEONFORK
#  define MADV_WIPEONFORK 18
#endif

#define CALLS 8

static uint32_t memory_epoch = 1, process_epoch = 1;
static volatile uint32_t fallback_words[2] = {1, 1}; /* only if the page couldn't be had: then a raw clone isn't noticed */
static volatile uint32_t *words = fallback_words;
const volatile uint32_t *ist_epoch_word = fallback_words;
static void (*calls[CALLS])(void);
static _Atomic(uint32_t) call_count;

static void prepare(void) {
    isti_lease_fork_prepare();
    isti_heap_fork_prepare();
    isti_domain_fork_prepare();
    isti_thread_fork_prepare();
    isti_housekeeper_fork_prepare();
    isti_waiters_fork_prepare();
    isti_listen_fork_prepare();
    isti_segment_fork_lock();
}

static void parent(void) {
    isti_segment_fork_unlock();
    isti_listen_fork_parent();
    isti_waiters_fork_parent();
    isti_housekeeper_fork_parent();
    isti_thread_fork_parent();
    isti_domain_fork_parent();
    isti_heap_fork_parent();
    isti_lease_fork_parent();
}

static void child(void) {
    process_epoch++;
    memory_epoch += !isti_domain_fork_carried();
    words[0] = memory_epoch;
    words[1] = process_epoch;
    isti_segment_fork_unlock();
    isti_listen_fork_child();
    isti_waiters_fork_child();
    isti_housekeeper_fork_child();
    isti_thread_fork_child();
    isti_domain_fork_child();
    isti_heap_fork_child();
    isti_lease_fork_child();
    /* relaxed: the child has one thread */
    for (uint32_t i = 0; i < atomic_load_explicit(&call_count, memory_order_relaxed); i++)
        calls[i]();
}

int ist_at_fork_child(void (*call)(void)) {
    uint32_t i = atomic_load_explicit(&call_count, memory_order_relaxed);
    if (i == CALLS)
        return -ENOSPC;
    calls[i] = call;
    atomic_store_explicit(&call_count, i + 1, memory_order_release); /* the child of a fork in another thread finds it set */
    return 0;
}

__attribute__((constructor)) static void start(void) {
    const char *version;
    size_t size = sizeof version;
    ist_je_mallctl("version", &version, &size, NULL, 0);
    void *page = isti_os.mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED) {
        if (isti_os.madvise(page, 4096, MADV_WIPEONFORK) == 0) {
            words = page;
            words[0] = memory_epoch;
            words[1] = process_epoch;
            ist_epoch_word = words;
        } else
            isti_os.munmap(page, 4096);
    }
    pthread_atfork(prepare, parent, child);
}
