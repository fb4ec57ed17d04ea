/* heap.c: a jemalloc arena over this process's window of the domain's sparse, sealed data memfd.
 *
 * The window is reserved whole and committed by touching, so extents are handed to jemalloc by moving one mark up; jemalloc keeps what it
 * had (retain) and splits and merges it as it likes. Unused pages are punched out of the file. jemalloc's own metadata is ordinary private
 * memory: nothing in the window is trusted.
 *
 *   window: [base, base + size), a mapping of the window's part of the domain's data memfd, never unmapped
 *   extents handed out: [base, base + used)
 *   a heap is alive iff heap.epoch == ist_process_epoch(): in a forked child it is dead, until the child opens its own
 *
 * A dead heap is enforced at two levels. Every entry here looks at the epoch before it enters jemalloc, as hits in the thread cache never
 * reach a hook; and every hook looks as well, as the child's copy of jemalloc may be entered on other ways (its thread cache is flushed
 * when the child opens its own heap) and its purges would punch holes into the parent's live memory.
 */
#include "heap.h"

#include "domain.h"
#include "fork.h"
#include "housekeeper.h"
#include "os.h"
#include "sanitizer.h"
#include "slab.h"

#include <isthmus/lease.h>
#include <jemalloc/jemalloc.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#  define MADV_POPULATE_WRITE 23
#endif

#define DEFAULT_SIZE ISTI_WINDOW_DEFAULT
#define MINIMUM_SIZE (UINT64_C(1) << 20)
#define PAGE ISTI_PAGE

struct isti_heap {
    extent_hooks_t hooks; /* first: a hook gets its address */
    uint32_t epoch;
    unsigned arena;
    struct isti_domain *domain;
    struct isti_window window;
    _Atomic(size_t) used;
    size_t decay_mib[3], dirty_mib[4], purge_mib[3];
};

static _Atomic(struct isti_heap *) current;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;         /* guards opening */
static pthread_mutex_t options_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the three below until they are read; no lock is taken in it */
static _Atomic(size_t) wanted_size; /* 0: environment or default; relaxed: a setting */
#define FILL_MOST ((size_t)1 << 20)

static bool options_read;
struct isti_limits isti_limits;

/* ---- hooks: called by jemalloc from several threads at once, with its locks held */

static bool dead(const struct isti_heap *h) { return h->epoch != ist_process_epoch(); }

static void *hook_alloc(extent_hooks_t *hooks, void *at, size_t size, size_t alignment, bool *zero, bool *commit, unsigned arena) {
    (void)arena;
    struct isti_heap *h = (struct isti_heap *)hooks;
    if (dead(h))
        return NULL;
    /* relaxed: ranges are handed out by the number alone; their content is fresh */
    size_t used = atomic_load_explicit(&h->used, memory_order_relaxed), start;
    do {
        size_t over = ((uintptr_t)h->window.base + used) & (alignment - 1);
        start = used + (over == 0 ? 0 : alignment - over);
        if (start > h->window.size || size > h->window.size - start || (at != NULL && at != h->window.base + start))
            return NULL;
    } while (!atomic_compare_exchange_weak_explicit(&h->used, &used, start + size, memory_order_relaxed, memory_order_relaxed));
    *zero = true;
    *commit = true;
    return h->window.base + start;
}

/* true is refusal: the range stays jemalloc's, for later. */
static bool hook_dalloc(extent_hooks_t *hooks, void *at, size_t size, bool committed, unsigned arena) {
    (void)hooks, (void)at, (void)size, (void)committed, (void)arena;
    return true;
}

/* Success promises zero pages, so a failure must be told. */
static bool hook_purge(extent_hooks_t *hooks, void *at, size_t size, size_t offset, size_t length, unsigned arena) {
    (void)size, (void)arena;
    if (dead((struct isti_heap *)hooks))
        return true;
    return isti_os.madvise((char *)at + offset, length, MADV_REMOVE) != 0;
}

static bool hook_split(extent_hooks_t *hooks, void *at, size_t size, size_t a, size_t b, bool committed, unsigned arena) {
    (void)hooks, (void)at, (void)size, (void)a, (void)b, (void)committed, (void)arena;
    return false;
}

static bool hook_merge(extent_hooks_t *hooks, void *a, size_t a_size, void *b, size_t b_size, bool committed, unsigned arena) {
    (void)hooks, (void)a, (void)a_size, (void)b, (void)b_size, (void)committed, (void)arena;
    return false;
}

/* ---- opening */

static size_t parse_size(const char *text) {
    if (*text < '0' || *text > '9') /* strtoull would take spaces, and turn -5 into a huge number */
        return 0;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    int shift = 0;
    if (*end != '\0') {
        const char *units = "KMGT", *unit = strchr(units, *end & ~0x20);
        if (unit == NULL || *unit == '\0' || end[1] != '\0') /* strchr finds the end of the units for a space */
            return 0;
        shift = 10 * (int)(unit - units + 1);
    }
    if (errno != 0 || n > SIZE_MAX / 2 >> shift)
        return 0;
    return (size_t)(n << shift);
}

_Atomic(bool) isti_fills_freed;

/* The first megabyte: more would make pages of blocks that were never touched. */
void isti_fill_freed(void *block, size_t size) { memset(block, 0xdd, size < FILL_MOST ? size : FILL_MOST); }

void isti_limits_read(void) {
    pthread_mutex_lock(&options_mutex);
    bool first = !options_read;
    options_read = true;
    if (first) {
        const char *size = getenv("ISTHMUS_HEAP_SIZE");
        if (isti_heap_wanted() == 0 && size != NULL) {
            size_t n = parse_size(size);
            atomic_store_explicit(&wanted_size, n < MINIMUM_SIZE ? 0 : n, memory_order_relaxed);
        }
    }
    pthread_mutex_unlock(&options_mutex);
    const char *keeper = getenv("ISTHMUS_HOUSEKEEPER");
    if (first && keeper != NULL && strcmp(keeper, "0") == 0)
        isti_housekeeper_disable();
    const char *debug = getenv("ISTHMUS_DEBUG");
    if (first && debug != NULL && debug[0] != '\0' && strcmp(debug, "0") != 0)
        atomic_store_explicit(&isti_fills_freed, true, memory_order_relaxed);
}

uint64_t isti_heap_wanted(void) { return atomic_load_explicit(&wanted_size, memory_order_relaxed); }

static int reserve(struct isti_heap *h, struct isti_domain *d, size_t size) {
    const int writable = PROT_READ | PROT_WRITE;
    void *base = isti_os.mmap(NULL, size, writable, MAP_SHARED | MAP_NORESERVE, d->data_fd, (off_t)(d->window * d->window_size));
    if (base == MAP_FAILED)
        return -ENOMEM;
    h->window.base = base;
    h->window.size = size;
    if (isti_window_tables(&h->window) != 0) {
        isti_os.munmap(base, size);
        return -ENOMEM;
    }
    /* Not into core dumps: the kernel would read the whole window for one, and reading a hole of a memfd commits it. A system that doesn't
     * know the advice dumps more than anybody wants; no reason to do without a heap. */
    isti_os.madvise(base, size, MADV_DONTDUMP);
    return 0;
}

static void unreserve(struct isti_heap *h) {
    isti_window_drop_tables(&h->window);
    isti_os.munmap(h->window.base, h->window.size);
}

static int mib(const char *name, size_t *out, size_t length, size_t place, unsigned arena) {
    if (ist_je_mallctlnametomib(name, out, &length) != 0)
        return -ENOMEM;
    out[place] = arena;
    return 0;
}

/* What experimental.arenas_create_ext takes; jemalloc 5.3's public header leaves it out. */
struct arena_config {
    extent_hooks_t *extent_hooks;
    bool metadata_use_hooks;
};

static int make_arena(struct isti_heap *h) {
    h->hooks =
        (extent_hooks_t){.alloc = hook_alloc, .dalloc = hook_dalloc, .purge_forced = hook_purge, .split = hook_split, .merge = hook_merge};
    struct arena_config config = {.extent_hooks = &h->hooks, .metadata_use_hooks = false};
    size_t size = sizeof h->arena;
    if (ist_je_mallctl("experimental.arenas_create_ext", &h->arena, &size, &config, sizeof config) != 0)
        return -ENOMEM;
    if (mib("arena.0.decay", h->decay_mib, 3, 1, h->arena) != 0 || mib("arena.0.purge", h->purge_mib, 3, 1, h->arena) != 0 ||
        mib("stats.arenas.0.pdirty", h->dirty_mib, 4, 2, h->arena) != 0)
        return -ENOMEM; /* names of this jemalloc: can't fail; the empty arena would stay */
    /* Else what is freed of 8 MiB or more is purged at once, and the next array of that size pays for its pages again: they wait a second,
     * as all others do. */
    size_t oversize_mib[3], never = SIZE_MAX;
    if (mib("arena.0.oversize_threshold", oversize_mib, 3, 1, h->arena) == 0)
        ist_je_mallctlbymib(oversize_mib, 3, NULL, NULL, &never, sizeof never);
    return 0;
}

/* The domain's window for this process, as much of it as is wanted and fits the address space. */
static int open_window(struct isti_heap *h) {
    struct isti_domain *d;
    int error = isti_domain_home(&d);
    if (error == 0 && !d->window_taken && isti_domain_leave_lost(d))
        error = isti_domain_home(&d);
    if (error == 0 && d->window_anchor == NULL && !d->window_taken)
        error = isti_window_take(d);
    if (error != 0)
        return error;
    d->window_taken = true; /* stays ours, whatever fails below */
    if (!isti_domain_has_data(d))
        return -EBADF;
    h->domain = d;
    size_t size = isti_heap_wanted() != 0 ? isti_heap_wanted() : DEFAULT_SIZE;
    size = (size + (PAGE * 16 - 1)) & ~(size_t)(PAGE * 16 - 1);
    size = size > d->window_size ? d->window_size : size;
    while ((error = reserve(h, d, size)) == -ENOMEM && size / 2 >= MINIMUM_SIZE)
        size = size / 2 & ~(size_t)(PAGE * 16 - 1);
    return error;
}

/* In a child: everything this thread's copy of the cache holds lies in the parent's memory. */
static void forget_parents(void) { ist_je_mallctl("thread.tcache.flush", NULL, NULL, NULL, 0); }

static int open_heap(struct isti_heap **out) {
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE; /* a child made without handlers */
    isti_limits_read();
    pthread_mutex_lock(&mutex);
    /* acquire: pairs with the release below */
    struct isti_heap *h = atomic_load_explicit(&current, memory_order_acquire);
    int error = 0;
    if (h == NULL || dead(h)) {
        if (h != NULL)
            forget_parents();
        h = isti_os.calloc(1, sizeof *h);
        error = h == NULL ? -ENOMEM : open_window(h);
        if (error == 0) {
            h->epoch = ist_process_epoch();
            error = make_arena(h);
            if (error != 0)
                unreserve(h);
        }
        if (error != 0)
            isti_os.free(h);
        else {
            h->domain->window_mapped = h->window.size;
            atomic_store_explicit(&h->domain->window_base, h->window.base, memory_order_release); /* pairs with isti_window_base */
            isti_window_list(&h->window);
            atomic_store_explicit(&current, h, memory_order_release); /* pairs with the acquire of every entry */
        }
    }
    pthread_mutex_unlock(&mutex);
    if (error == 0)
        *out = h;
    return error;
}

static struct isti_heap *live_heap(void) {
    /* acquire: pairs with open_heap's release; the fields are constant afterwards */
    struct isti_heap *h = atomic_load_explicit(&current, memory_order_acquire);
    return h != NULL && !dead(h) ? h : NULL;
}

/* ---- blocks */

static int prefault(char *block, size_t size) {
    uintptr_t start = (uintptr_t)block & ~(uintptr_t)(PAGE - 1), end = ((uintptr_t)block + size + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
    if (isti_os.madvise((void *)start, end - start, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL) /* EINVAL: Linux before 5.14 */
        return -ENOMEM;
    struct isti_heap *h = live_heap();
    struct isti_domain *d = h->domain;
    const off_t offset = (off_t)(start - (uintptr_t)h->window.base + d->window * d->window_size);
    return isti_domain_has_data(d) && isti_os.fallocate(d->data_fd, 0, offset, (off_t)(end - start)) == 0 ? 0 : -ENOMEM;
}

/* The first allocation of a thread, of the process, or of a child. */
static int bind_thread(struct isti_thread *t) {
    struct isti_heap *h = live_heap();
    int error;
    if (h == NULL && (error = open_heap(&h)) != 0)
        return error;
    if (ist_je_mallctl("thread.arena", NULL, NULL, &h->arena, sizeof h->arena) != 0)
        return -ENOMEM;
    t->window = &h->window;
    t->heap_epoch = h->epoch;
    return 0;
}

/* In a destructor of a thread's key that runs after jemalloc's own, the thread is bound to nothing any more: jemalloc serves it from arena
 * 0, whatever is asked for. Such a block is not in the window, has no place in the tables, and isn't given out. */
static void *allocate(const struct isti_window *w, size_t size, uint32_t flags) {
    char *block = isti_os.mallocx(isti_heap_rounded(size), (flags & IST_ZERO) && !ISTI_POISONS ? MALLOCX_ZERO : 0);
    if (block == NULL)
        return NULL;
    if (!isti_window_contains(w, block)) {
        ist_je_sdallocx(block, isti_heap_rounded(size), 0);
        return NULL;
    }
    if (ISTI_POISONS) {
        isti_unpoison(block, size);
        isti_poison(block + size, isti_heap_rounded(size) - size);
        if (flags & IST_ZERO)
            memset(block, 0, size);
    }
    return block;
}

void *isti_heap_alloc_slow(struct isti_thread *t, size_t size, uint32_t flags, uint32_t index, int *error) {
    if (t->heap_epoch != ist_process_epoch() && (*error = bind_thread(t)) != 0)
        return NULL;
    const struct isti_window *w = t->window;
    *error = -ENOMEM;
    if (size > w->size)
        return NULL;
    char *block = allocate(w, size, flags);
    if (block == NULL) {
        /* leases may hold what is missing, and pages in this thread's cache may join their neighbours */
        ist_lease_expire();
        isti_lease_settle(); /* the housekeeper may be at it */
        ist_sweep(); /* and other processes: the dead, and what the living have let go */
        isti_heap_purge();
        block = allocate(w, size, flags);
        if (block == NULL)
            return NULL;
    }
    isti_window_enter(w, block, index);
    if (flags & IST_PREFAULT && (*error = prefault(block, size)) != 0) {
        isti_heap_free(t, block, size);
        return NULL;
    }
    return block;
}

/* Recycled pages are punched rather than written: what is reserved costs nothing. jemalloc's own zeroing would write them. */
static int clear_sparsely(char *block, size_t size) {
    const uintptr_t page = isti_page_size(), start = (uintptr_t)block, end = start + size;
    const uintptr_t first = (start + page - 1) & ~(page - 1), last = end & ~(page - 1);
    if (first >= last) {
        memset(block, 0, size);
        return 0;
    }
    if (isti_os.madvise((void *)first, last - first, MADV_REMOVE) != 0)
        return -ENOMEM;
    memset(block, 0, first - start);
    memset((void *)last, 0, end - last);
    return 0;
}

void *isti_heap_alloc_sparse(struct isti_thread *t, size_t size, size_t prefaulted, uint32_t index, int *error) {
    char *block = isti_heap_alloc_slow(t, size, 0, index, error);
    if (block == NULL)
        return NULL;
    *error = clear_sparsely(block, size);
    if (*error == 0 && prefaulted > 0)
        *error = prefault(block, prefaulted);
    if (*error == 0)
        return block;
    isti_heap_free(t, block, size);
    return NULL;
}

/* In a thread that never allocated in this epoch. */
void isti_heap_free_slow(void *block, size_t size) {
    struct isti_heap *h = live_heap();
    if (h != NULL)
        isti_window_free(&h->window, block, size);
}

bool isti_heap_resize(void *block, size_t size, size_t wanted) {
    const struct isti_heap *h = live_heap();
    /* H2: a block of the parent's isn't known to the child's arena. And what is cut off can be another thread's before it is poisoned */
    if (h == NULL || !isti_window_contains(&h->window, block) || wanted > h->window.size || (ISTI_POISONS && wanted < size))
        return false;
    const size_t rounded = isti_heap_rounded(wanted);
    if (ist_je_xallocx(block, rounded, 0, 0) != ist_je_nallocx(rounded, 0))
        return false; /* the block's class must be that of its size: it is freed by that */
    isti_unpoison(block, wanted);
    isti_poison((char *)block + wanted, rounded - wanted);
    if (wanted < size)
        isti_housekeeper_dirty();
    return true;
}

void isti_heap_give_back(void *block, size_t size) {
    isti_thread(); /* so that what this thread's cache keeps goes back at its end */
    isti_heap_free_slow(block, size);
}

/* ---- pages back to the system */

bool isti_heap_decay(void) {
    struct isti_heap *h = live_heap();
    if (h == NULL)
        return false;
    ist_je_mallctlbymib(h->decay_mib, 3, NULL, NULL, NULL, 0);
    uint64_t refresh = 1;
    size_t dirty = 0, size = sizeof dirty;
    ist_je_mallctl("epoch", NULL, NULL, &refresh, sizeof refresh);
    ist_je_mallctlbymib(h->dirty_mib, 4, &dirty, &size, NULL, 0);
    return dirty != 0;
}

void isti_heap_purge(void) {
    struct isti_heap *h = live_heap();
    if (h == NULL)
        return;
    ist_je_mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
    ist_je_mallctlbymib(h->purge_mib, 3, NULL, NULL, NULL, 0);
}

uint64_t isti_heap_mapped(void) {
    const struct isti_heap *h = live_heap();
    if (h == NULL || !isti_domain_has_data(h->domain)) /* a number that user code took for a file of its own isn't to be moved in */
        return 0;
    const struct isti_domain *d = h->domain;
    struct stat st;
    /* relaxed: a snapshot */
    if (atomic_load_explicit(&d->marks->windows, memory_order_relaxed) == 1)
        return isti_os.fstat(d->data_fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    uint64_t mapped = 0; /* of our window alone */
    const off_t begin = (off_t)(d->window * d->window_size), end = begin + (off_t)h->window.size;
    for (off_t at = begin; at < end;) {
        off_t data = isti_os.lseek(d->data_fd, at, SEEK_DATA);
        if (data < 0 || data >= end)
            break;
        off_t hole = isti_os.lseek(d->data_fd, data, SEEK_HOLE);
        if (hole < 0)
            break;
        mapped += (uint64_t)((hole < end ? hole : end) - data);
        at = hole;
    }
    return mapped;
}

/* ---- public */

size_t ist_heap_size(void) {
    struct isti_heap *h = live_heap();
    return h == NULL ? 0 : h->window.size;
}

static bool options_fit(const ist_options *o) {
    return o != NULL && o->struct_size == sizeof *o && (o->flags & ~IST_OPTION_NO_HOUSEKEEPER) == 0 && o->reserved == 0 &&
           (o->heap_size == 0 || (o->heap_size >= MINIMUM_SIZE && o->heap_size <= SIZE_MAX / 2)) && o->processes <= ISTI_MEMBERS &&
           (o->published == 0 || (o->published >= ISTI_DESCRIPTORS_LEAST && o->published <= ISTI_DESCRIPTORS));
}

int ist_configure(const ist_options *o) {
    if (!options_fit(o))
        return -EINVAL;
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE;
    isti_limits_read();
    isti_housekeeper_pause(); /* the domain may be closed below */
    pthread_mutex_lock(&mutex);
    int error = live_heap() != NULL ? -EBUSY : 0;
    if (error == 0) {
        if (o->heap_size != 0)
            atomic_store_explicit(&wanted_size, o->heap_size, memory_order_relaxed);
        if (o->processes != 0)
            isti_limits.processes = o->processes;
        for (uint32_t rows = ISTI_DESCRIPTORS_LEAST; o->published != 0 && rows <= ISTI_DESCRIPTORS; rows *= 2) {
            isti_limits.published = rows;
            if (rows >= o->published)
                break;
        }
        if (o->flags & IST_OPTION_NO_HOUSEKEEPER)
            isti_housekeeper_disable();
        isti_domain_discard(); /* one that was joined before its first use was made with other limits */
    }
    pthread_mutex_unlock(&mutex);
    isti_housekeeper_resume();
    if (error == 0 && o->lease_ns != 0)
        ist_lease_set_duration(o->lease_ns);
    return error;
}

size_t ist_collect(void) {
    size_t dropped = ist_lease_expire();
    ist_sweep();
    isti_heap_purge();
    return dropped;
}

void isti_heap_fork_prepare(void) { pthread_mutex_lock(&mutex); }

void isti_heap_fork_parent(void) { pthread_mutex_unlock(&mutex); }

void isti_heap_fork_child(void) { pthread_mutex_unlock(&mutex); /* the forking thread locked it, and is this one */ }
