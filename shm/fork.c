/* fork.c: the epoch and the order of the fork handlers.
 *
 * The epoch word stands alone in a page that the kernel wipes in a forked child (MADV_WIPEONFORK), so also a child that came about
 * without handlers (a raw clone) reads 0 there and every entry of the library refuses. Our own child handler then writes the next
 * number: from there on the child may make a heap of its own, and everything of the parent's is told by its older epoch.
 *
 *   epoch page = 0            in a child whose handlers didn't run
 *   epoch page = `epoch`      otherwise; `epoch` grows by one in each generation of children
 *
 * Lock order: lease, threads, heap, housekeeper; then jemalloc's own, which it takes in a prepare handler of its own. Prepare handlers run
 * in the reverse order of registration, so jemalloc must have registered first: it is started here before we register.
 */
#include "fork.h"

#include "os.h"

#include <jemalloc/jemalloc.h>
#include <sys/mman.h>

#ifndef MADV_WIPEONFORK
#  define MADV_WIPEONFORK 18
#endif

static uint32_t epoch = 1;
static volatile uint32_t fallback_word = 1; /* only if the page couldn't be had: then a raw clone isn't noticed */
static volatile uint32_t *word = &fallback_word;
const volatile uint32_t *ist_epoch_word = &fallback_word;

static void prepare(void) {
    isti_lease_fork_prepare();
    isti_thread_fork_prepare();
    isti_heap_fork_prepare();
    isti_housekeeper_fork_prepare();
}

static void parent(void) {
    isti_housekeeper_fork_parent();
    isti_heap_fork_parent();
    isti_thread_fork_parent();
    isti_lease_fork_parent();
}

static void child(void) {
    epoch++;
    *word = epoch;
    isti_housekeeper_fork_child();
    isti_heap_fork_child();
    isti_thread_fork_child();
    isti_segment_fork_child();
    isti_lease_fork_child();
}

__attribute__((constructor)) static void start(void) {
    const char *version;
    size_t size = sizeof version;
    ist_je_mallctl("version", &version, &size, NULL, 0);
    void *page = isti_os.mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED) {
        if (isti_os.madvise(page, 4096, MADV_WIPEONFORK) == 0) {
            word = page;
            *word = epoch;
            ist_epoch_word = word;
        } else
            isti_os.munmap(page, 4096);
    }
    pthread_atfork(prepare, parent, child);
}
