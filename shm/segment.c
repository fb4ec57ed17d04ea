/* segment.c: counts, tokens and the ends of segments.
 *
 * A segment is a slot in a generation. Its state word (segment_inline.h) decides everything:
 *
 *   owners > 0                 live; data, size and meta are constant, data may be used by each owner
 *   owners = 0                 free, or in the hand of the one thread that took the count to 0 or is making it
 *   generation                 moves on at each end, and when make_writable voids tokens; a generation is never reused
 *   owners >= OWNERS_LIMIT     misuse: saturated, live for ever
 *
 * Orders. create's release store and retain/release/acquire, all read-modify-writes of the same word, form one release sequence: whoever
 * acquires a state sees what the creator wrote. release is release-ordered and the freeing thread takes an acquire fence: all uses by all
 * owners come before the free. tests/models/ has the litmus tests of these pairs and the model of the life cycle.
 *
 * The end of a segment: address entry, memory, slot, in this order. The entry must be gone before the memory can be another segment's, the
 * memory before the slot can be; and the generation moves on before the slot is given back.
 *
 * Releasing doesn't recurse: a destructor that releases the last reference of another segment puts it on this thread's list, which the
 * outermost release drains.
 */
#include <isthmus/segment.h>

#include "fork.h"
#include "heap.h"
#include "housekeeper.h"
#include "os.h"
#include "point.h"
#include "sanitizer.h"
#include "segment.h"
#include "slab.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FLAGS_CREATE (IST_ZERO | IST_PREFAULT)
#define FLAGS_WRAP IST_READONLY
#define FLAGS_MAP (IST_READONLY | IST_PRIVATE)

static _Atomic(uint64_t) saturated, misuses; /* statistics: relaxed */
_Atomic(uint64_t) isti_retired;

/* ---- making */

int ist_segment_create(size_t size, uint32_t flags, ist_segment *out) {
    if (size > PTRDIFF_MAX || (flags & ~FLAGS_CREATE) != 0 || out == NULL)
        return -EINVAL;
    struct isti_thread *t = isti_thread();
    if (__builtin_expect(t == NULL, 0))
        return ist_process_epoch() == 0 ? -ENOTRECOVERABLE : -ENOMEM;
    ist_slot *slot = isti_slab_take(t);
    if (slot == NULL)
        return -ENOMEM;
    int error;
    void *data = isti_heap_alloc(t, size, flags, slot->index, &error);
    if (data == NULL) {
        isti_slab_put(t, slot);
        return error;
    }
    isti_slot_begin(slot, data, size, IST_KIND_HEAP, 0);
    isti_housekeeper_poll(&t->creates_unattended);
    *out = isti_slot_open(slot, 0, 0);
    return 0;
}

static int make_wrapped(void *data, size_t size, ist_kind kind, uint32_t flags, struct isti_wrap wrap, ist_segment *out) {
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE;
    struct isti_thread *t = isti_thread();
    struct isti_wrap *record = isti_os.calloc(1, sizeof *record);
    ist_slot *slot = t == NULL || record == NULL ? NULL : isti_slab_take(t);
    if (slot == NULL) {
        isti_os.free(record);
        return -ENOMEM;
    }
    *record = wrap;
    record->epoch = ist_process_epoch();
    slot->wrap = record;
    isti_slot_begin(slot, data, size, kind, flags);
    *out = isti_slot_open(slot, 0, 0);
    return 0;
}

int ist_segment_wrap(void *data, size_t size, ist_free_fn free, void *ctx, uint32_t flags, ist_segment *out) {
    if (out == NULL || size > PTRDIFF_MAX || (data == NULL && size != 0) || (flags & ~FLAGS_WRAP) != 0)
        return -EINVAL;
    return make_wrapped(data, size, IST_KIND_FOREIGN, flags, (struct isti_wrap){.free = free, .ctx = ctx}, out);
}

static pthread_mutex_t files_lock = PTHREAD_MUTEX_INITIALIZER;
static struct isti_file *files; /* that are mapped */

static void list_file(struct isti_file *file) {
    pthread_mutex_lock(&files_lock);
    file->next = files;
    file->link = &files;
    if (files != NULL)
        files->link = &file->next;
    files = file;
    pthread_mutex_unlock(&files_lock);
}

static void unlist_file(struct isti_file *file) {
    pthread_mutex_lock(&files_lock);
    *file->link = file->next;
    if (file->next != NULL)
        file->next->link = file->link;
    pthread_mutex_unlock(&files_lock);
}

void isti_segment_fork_lock(void) { pthread_mutex_lock(&files_lock); }
void isti_segment_fork_unlock(void) { pthread_mutex_unlock(&files_lock); }

uint64_t ist_file_mapped(uint64_t device, uint64_t inode) {
    uint64_t end = 0;
    if (ist_process_epoch() == 0)
        return 0;
    pthread_mutex_lock(&files_lock);
    for (const struct isti_file *file = files; file != NULL; file = file->next)
        if (file->device == device && file->inode == inode && file->end > end)
            end = file->end;
    pthread_mutex_unlock(&files_lock);
    return end;
}

/* Who maps a file knows it by its path as it is now: the kernel's own, without links. Without /proc it has none. */
static struct isti_file *describe_file(int fd, const struct stat *st, uint64_t offset, size_t size, uint32_t flags) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t got = isti_os.readlink(link, path, sizeof path);
    size_t length = got < 0 || (size_t)got == sizeof path || path[0] != '/' ? 0 : (size_t)got;
    struct isti_file *file = isti_os.calloc(1, sizeof *file + length + 1);
    if (file == NULL)
        return NULL;
    file->device = st->st_dev;
    file->inode = st->st_ino;
    file->born = isti_os.born(fd);
    file->offset = offset;
    file->end = offset + size;
    file->flags = flags;
    memcpy(file->path, path, length);
    return file;
}

int ist_segment_map(int fd, uint64_t offset, size_t size, uint32_t flags, ist_segment *out) {
    if (out == NULL || size == 0 || size > PTRDIFF_MAX || offset > INT64_MAX - size || (flags & ~FLAGS_MAP) != 0)
        return -EINVAL;
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE; /* before the list of files, whose lock may be held by a thread that isn't here */
    struct stat st;
    if (isti_os.fstat(fd, &st) != 0)
        return -errno;
    if (st.st_size < 0 || offset + size > (uint64_t)st.st_size)
        return -EINVAL; /* a mapping beyond the end kills by SIGBUS */
    const size_t lead = (size_t)(offset % isti_page_size());
    const int protection = (flags & IST_READONLY) ? PROT_READ : PROT_READ | PROT_WRITE;
    char *mapping =
        isti_os.mmap(NULL, size + lead, protection, (flags & IST_PRIVATE) ? MAP_PRIVATE : MAP_SHARED, fd, (off_t)(offset - lead));
    if (mapping == MAP_FAILED)
        return -errno;
    struct isti_wrap wrap = {.mapping = mapping, .mapping_size = size + lead, .file = describe_file(fd, &st, offset, size, flags)};
    int error = -ENOMEM;
    if (wrap.file != NULL) {
        list_file(wrap.file); /* first: whoever has the segment finds it there */
        error = make_wrapped(mapping + lead, size, IST_KIND_FILE, flags, wrap, out);
    }
    if (error != 0) {
        if (wrap.file != NULL)
            unlist_file(wrap.file);
        isti_os.free(wrap.file);
        isti_os.munmap(mapping, size + lead);
    }
    return error;
}

static bool is_file(ist_segment s) {
    /* relaxed: the caller owns a reference; meta is constant */
    return (atomic_load_explicit(&s.slot->meta, memory_order_relaxed) & 0xff) == IST_KIND_FILE;
}

int ist_segment_file(ist_segment s, ist_file *out) {
    if (out == NULL || !is_file(s))
        return -EINVAL;
    const struct isti_file *file = s.slot->wrap->file;
    *out = (ist_file){
        .device = file->device, .inode = file->inode, .born = file->born, .offset = file->offset, .path = file->path, .flags = file->flags};
    return 0;
}

int ist_segment_sync_range(ist_segment s, size_t offset, size_t size) {
    if (!is_file(s) || offset > ist_segment_size(s) || size > ist_segment_size(s) - offset)
        return -EINVAL;
    if (size == 0)
        return 0;
    char *begin = (char *)ist_segment_data(s) + offset;
    const size_t lead = (size_t)((uintptr_t)begin % isti_page_size());
    return isti_os.msync(begin - lead, size + lead, MS_SYNC) == 0 ? 0 : -errno;
}

int ist_segment_sync(ist_segment s) { return ist_segment_sync_range(s, 0, ist_segment_size(s)); }

/* ---- the end */

static void end_wrapped(ist_slot *slot) {
    struct isti_wrap *wrap = slot->wrap;
    slot->wrap = NULL;
    /* relaxed, here and in end: behind the acquire fence of the last release */
    void *data = atomic_load_explicit(&slot->data, memory_order_relaxed);
    size_t size = (size_t)atomic_load_explicit(&slot->size, memory_order_relaxed);
    uint32_t generation = isti_generation(atomic_load_explicit(&slot->state, memory_order_relaxed));
    if (atomic_load_explicit(&slot->desc, memory_order_relaxed) != 0)
        isti_descriptor_release(slot, generation); /* first: afterwards no token leads here */
    else
        isti_slot_end(slot, isti_thread(), generation);
    if (wrap->mapping != NULL)
        isti_os.munmap(wrap->mapping, wrap->mapping_size);
    else if (wrap->free != NULL && wrap->epoch == ist_process_epoch())
        wrap->free(wrap->ctx, data, size);
    if (wrap->file != NULL && ist_process_epoch() != 0) /* 0: a child without handlers, where another thread may have had the lock */
        unlist_file(wrap->file);
    isti_os.free(wrap->file);
    isti_os.free(wrap);
}

static void end(ist_slot *slot, uint32_t generation) {
    const bool heap = (atomic_load_explicit(&slot->meta, memory_order_relaxed) & 0xff) == IST_KIND_HEAP;
    const bool published = atomic_load_explicit(&slot->desc, memory_order_relaxed) != 0;
    if (__builtin_expect(heap && !published, 1)) {
        struct isti_thread *t = isti_thread();
        size_t size = (size_t)atomic_load_explicit(&slot->size, memory_order_relaxed);
        isti_heap_free(t, atomic_load_explicit(&slot->data, memory_order_relaxed), size);
        isti_slot_end(slot, t, generation); /* has run no destructor, so there is nothing to drain */
        return;
    }
    if (heap) { /* nor does this */
        isti_descriptor_release(slot, generation);
        return;
    }
    struct isti_thread_local *local = &isti_local;
    slot->wrap->pending = local->pending;
    local->pending = slot;
    if (local->draining)
        return; /* an outer release of this thread goes on with it */
    local->draining = true;
    while ((slot = local->pending) != NULL) {
        local->pending = slot->wrap->pending;
        end_wrapped(slot);
    }
    local->draining = false;
}

/* ---- counts */

#ifdef IST_DEBUG
#  include <stdlib.h>
#  define MISUSE() abort()
#else
#  define MISUSE() ((void)0)
#endif

/* The count went wrong: from now on the segment lives for ever, which is the lesser harm. */
static void saturate(ist_slot *slot) {
    MISUSE();
    uint64_t state = atomic_load_explicit(&slot->state, memory_order_relaxed), stay;
    do
        stay = (uint64_t)IST_OWNERS_SATURATED << 32 | (uint32_t)state;
    /* relaxed: nothing is freed any more, so nothing has to be seen */
    while (!atomic_compare_exchange_weak_explicit(&slot->state, &state, stay, memory_order_relaxed, memory_order_relaxed));
    /* Whose exchange brought it there counts it: several may have noticed, each by an old value of its own. Steps of handles in use after
     * that keep it near. */
    if (isti_owners(state) - (IST_OWNERS_SATURATED - (1u << 28)) > 1u << 29)
        atomic_fetch_add_explicit(&saturated, 1, memory_order_relaxed);
}

static void put_back(ist_slot *slot, uint64_t amount) {
    MISUSE();
    /* relaxed: undoes a step that wasn't ours to take; adding 2^64 - n takes n away */
    atomic_fetch_add_explicit(&slot->state, amount, memory_order_relaxed);
    atomic_fetch_add_explicit(&misuses, 1, memory_order_relaxed);
}

void ist_segment_retain_slow(ist_segment s, uint64_t old) {
    if (isti_generation(old) != s.generation)
        put_back(s.slot, (uint64_t)0 - IST_ONE_OWNER);
    else
        saturate(s.slot);
}

void ist_segment_release_slow(ist_segment s, uint64_t old) {
    if (__builtin_expect((old & ~(IST_FROZEN | IST_EXCLUSIVE)) == isti_state(1, 0, s.generation), 1)) {
        /* acquire: pairs with every other owner's release decrement; their uses are over before the memory goes */
#if ISTI_TSAN
        (void)atomic_load_explicit(&s.slot->state, memory_order_acquire); /* ThreadSanitizer doesn't know fences */
#else
        atomic_thread_fence(memory_order_acquire);
#endif
        end(s.slot, s.generation);
    } else if (isti_generation(old) != s.generation)
        put_back(s.slot, IST_ONE_OWNER);
    else
        saturate(s.slot);
}

#ifdef IST_DEBUG

/* Exact: the generation and the range are checked in the step that counts. */
static uint64_t step(ist_segment s, uint64_t amount, memory_order order) {
    uint64_t state = atomic_load_explicit(&s.slot->state, memory_order_relaxed);
    do {
        if (isti_generation(state) != s.generation || isti_owners(state) == 0 || isti_owners(state) >= IST_OWNERS_LIMIT)
            abort();
    } while (!atomic_compare_exchange_weak_explicit(&s.slot->state, &state, state + amount, order, memory_order_relaxed));
    return state;
}

void ist_segment_retain(ist_segment s) { step(s, IST_ONE_OWNER, memory_order_relaxed); }

void ist_segment_release(ist_segment s) {
    if (s.slot == NULL)
        return;
    uint64_t old = step(s, (uint64_t)0 - IST_ONE_OWNER, memory_order_release);
    if (isti_owners(old) == 1)
        ist_segment_release_slow(s, old);
}

#else

void ist_segment_retain(ist_segment s) { ist_segment_retain_inline(s); }
void ist_segment_release(ist_segment s) { ist_segment_release_inline(s); }

#endif

/* ---- views */

/* relaxed, here and below: the caller owns a reference, so the fields are constant and were acquired with it */
void *ist_segment_data(ist_segment s) { return atomic_load_explicit(&s.slot->data, memory_order_relaxed); }

size_t ist_segment_size(ist_segment s) { return (size_t)atomic_load_explicit(&s.slot->size, memory_order_relaxed); }

bool ist_segment_is_frozen(ist_segment s) {
    /* relaxed: frozen changes only while there is one owner, and whoever is one now acquired what it reads here */
    return (atomic_load_explicit(&s.slot->state, memory_order_relaxed) & IST_FROZEN) != 0;
}

bool ist_segment_is_readonly(ist_segment s) {
    return ist_segment_is_frozen(s) || (atomic_load_explicit(&s.slot->meta, memory_order_relaxed) >> 8 & IST_READONLY) != 0;
}

void ist_segment_set_creator(ist_segment s, uint64_t creator) { atomic_store_explicit(&s.slot->creator, creator, memory_order_relaxed); }

/* ---- tokens */

int ist_segment_token(ist_segment s, ist_token *out) {
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE;
    int error = isti_publish(s);
    if (error != 0)
        return error;
    const uint64_t desc = atomic_load_explicit(&s.slot->desc, memory_order_acquire); /* acquire: pairs with publish */
    const struct isti_domain *d = isti_domain_by_number(isti_desc_domain(desc));
    if (d == NULL)
        return -ENOTRECOVERABLE;
    uint32_t index = isti_desc_index(desc), generation = isti_desc_generation(desc);
    memcpy(out->bytes, d->id, 16);
    memcpy(out->bytes + 16, &index, 4);
    memcpy(out->bytes + 20, &generation, 4);
    return 0;
}

int ist_segment_place(ist_segment s, ist_place *out) {
    const uint64_t desc = atomic_load_explicit(&s.slot->desc, memory_order_acquire); /* acquire: pairs with publish */
    const struct isti_domain *d = desc == 0 ? NULL : isti_domain_by_number(isti_desc_domain(desc));
    if (d == NULL)
        return -EINVAL;
    *out = (ist_place){.pid = d->solo ? 0 : (uint32_t)getpid(), .fd = (uint32_t)d->control_fd};
    return 0;
}

int ist_segment_data_readonly(ist_segment s, const void **out) {
    const uint64_t desc = atomic_load_explicit(&s.slot->desc, memory_order_acquire); /* acquire: pairs with publish */
    struct isti_domain *d = desc == 0 ? NULL : isti_domain_by_number(isti_desc_domain(desc));
    /* relaxed: the caller owns a reference */
    if (d == NULL || s.slot->wrap != NULL || (atomic_load_explicit(&s.slot->meta, memory_order_relaxed) & 0xff) != IST_KIND_HEAP) {
        *out = ist_segment_data(s);
        return 0;
    }
    return isti_descriptor_readonly(d, isti_desc_index(desc), ist_segment_size(s), out);
}

/* Adds an owner to `slot` if it lives in `generation`; `state` was acquired from it. */
int isti_slot_add_owner(ist_slot *slot, uint64_t state, uint32_t generation, ist_segment *out) {
    do {
        if (isti_generation(state) != generation || isti_owners(state) == 0 || (state & IST_EXCLUSIVE) != 0)
            return -ESTALE;
        if (isti_owners(state) >= IST_OWNERS_LIMIT - 1)
            return -EOVERFLOW;
        /* acquire: pairs with create's release store and freeze's exchange */
    } while (
        !atomic_compare_exchange_weak_explicit(&slot->state, &state, state + IST_ONE_OWNER, memory_order_acquire, memory_order_acquire));
    *out = isti_handle(slot, state);
    return 0;
}

int ist_segment_acquire(const ist_token *token, ist_segment *out) {
    uint32_t index, generation;
    struct isti_domain *d;
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE;
    if ((d = isti_domain_by_id(token->bytes)) == NULL) {
        int error = isti_domain_home(&d); /* it may be the one of the environment */
        if (error != 0)
            return error;
        if (memcmp(d->id, token->bytes, sizeof d->id) != 0)
            return -EXDEV;
    }
    memcpy(&index, token->bytes + 16, 4);
    memcpy(&generation, token->bytes + 20, 4);
    return isti_descriptor_acquire(d, index, generation, out);
}

/* Adds an owner to the segment of slot entry - 1, if its data is at `block` and goes on for `inside` bytes, so that there is one more at
 * it. -ESTALE: not so; -EAGAIN: it has just changed. Whoever isn't wanted gets no owner, not even for a moment: that could fail a
 * freeze. */
static int acquire_entry(uint32_t entry, const void *block, size_t inside, ist_segment *out) {
    ist_slot *slot = entry == 0 ? NULL : isti_slab_slot(entry - 1);
    if (slot == NULL)
        return -ESTALE;
    /* acquire: pairs with create's release store, so that the data read next belongs to this generation or a later one; a later one makes
     * isti_slot_add_owner's exchange fail */
    uint64_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
    if ((state & IST_EXCLUSIVE) != 0)
        return -EAGAIN; /* a few instructions of freeze, make_writable or resize, which then tell */
    if (isti_owners(state) == 0 || atomic_load_explicit(&slot->data, memory_order_relaxed) != block ||
        (inside != 0 && inside >= atomic_load_explicit(&slot->size, memory_order_relaxed)))
        return -ESTALE;
    int error = isti_slot_add_owner(slot, state, isti_generation(state), out);
    return error == -ESTALE ? -EAGAIN : error; /* it ended, or make_writable gave it another generation: the next look tells */
}

int ist_segment_acquire_handle(ist_segment s, ist_segment *out) {
    ist_slot *slot = isti_slab_slot(s.index);
    if (slot == NULL || slot != s.slot) /* nothing at s.slot is touched unless it is one of ours */
        return -EINVAL;
    for (;;) {
        /* acquire: as in acquire_entry */
        uint64_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
        if ((state & IST_EXCLUSIVE) != 0)
            continue; /* a few instructions, after which the generation tells */
        int error = isti_slot_add_owner(slot, state, s.generation, out);
        /* relaxed: only whether it was the bit that made it fail; the next look decides */
        if (error != -ESTALE || (atomic_load_explicit(&slot->state, memory_order_relaxed) & IST_EXCLUSIVE) == 0)
            return error;
    }
}

int ist_segment_acquire_address(const void *data, ist_segment *out) {
    int error;
    while ((error = acquire_entry(isti_address_get(data), data, 0, out)) == -EAGAIN)
        ;
    return error;
}

int ist_segment_at_address(const void *address, ist_segment *out) {
    const void *block = address;
    int error;
    do {
        uint32_t entry = isti_address_below(address, &block);
        error = acquire_entry(entry, block, (size_t)((uintptr_t)address - (uintptr_t)block), out);
    } while (error == -EAGAIN);
    return error;
}

int ist_segment_resize(ist_segment s, size_t size) {
    if (size > PTRDIFF_MAX)
        return -EINVAL;
    return isti_segment_resize(s, size);
}

int ist_segment_freeze(ist_segment s) { return isti_segment_exclusive(&s, true); }

int ist_segment_make_writable(ist_segment *s) {
    if (atomic_load_explicit(&s->slot->meta, memory_order_relaxed) >> 8 & IST_READONLY)
        return -EROFS;
    return isti_segment_exclusive(s, false);
}

/* ---- fork */

static struct {
    ist_segment *pinned;
    size_t count, room;
} pins;

static bool pin(ist_slot *slot, uint64_t state) {
    if (pins.count == pins.room) {
        size_t room = pins.room == 0 ? 256 : pins.room * 2;
        ist_segment *more = isti_os.calloc(room, sizeof *more);
        if (more == NULL)
            return false;
        if (pins.count > 0)
            memcpy(more, pins.pinned, pins.count * sizeof *more);
        isti_os.free(pins.pinned);
        pins.pinned = more;
        pins.room = room;
    }
    int error = isti_slot_add_owner(slot, state, isti_generation(state), &pins.pinned[pins.count]);
    pins.count += error == 0;
    return error != -EOVERFLOW; /* -ESTALE: it has ended */
}

/* Other threads go on meanwhile, until they need a lock: what they make now is theirs alone, and what they let go of is pinned, as its
 * memory must not go while its descriptor is being made. */
bool isti_segment_fork_publish(void) {
    struct isti_domain *d = isti_domain_home_now();
    for (uint32_t i = 0, high = isti_slab_high(); i < high; i++) {
        ist_slot *slot = isti_slab_slot(i);
        /* acquire: pairs with the slot's opening */
        uint64_t state = slot == NULL ? 0 : atomic_load_explicit(&slot->state, memory_order_acquire);
        if (isti_owners(state) == 0 || atomic_load_explicit(&slot->desc, memory_order_relaxed) != 0 || /* relaxed: the locks order it */
            (atomic_load_explicit(&slot->meta, memory_order_relaxed) & 0xff) != IST_KIND_HEAP || isti_owners(state) >= IST_OWNERS_LIMIT)
            continue;
        size_t before = pins.count;
        if (d == NULL || !pin(slot, state) || (pins.count != before && isti_publish_locked(d, slot) != 0))
            return false;
    }
    return true;
}

/* In both processes: each has its copy of the counts. */
void isti_segment_fork_unpin(void) {
    for (size_t i = 0; i < pins.count; i++)
        ist_segment_release(pins.pinned[i]);
    isti_os.free(pins.pinned);
    memset(&pins, 0, sizeof pins);
}

/* ---- looking */

static ist_kind kind_of(uint32_t meta) {
    const uint32_t flags = meta >> 8;
    return (flags & ISTI_SLOT_QUEUE) != 0 ? IST_KIND_QUEUE : (flags & ISTI_SLOT_LOCK) != 0 ? IST_KIND_LOCK : (ist_kind)(meta & 0xff);
}

ist_kind ist_segment_kind(ist_segment s) {
    return kind_of(atomic_load_explicit(&s.slot->meta, memory_order_relaxed)); /* relaxed: constant for an owner */
}

static bool read_info(ist_slot *slot, ist_segment_info *out) {
    /* acquire: the fields read next are of this generation or later; the second look tells */
    uint64_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
    if (isti_owners(state) == 0)
        return false;
    /* acquire, here and for the fields below: they come before the second look, and pair with isti_slot_begin's stores */
    uint32_t meta = atomic_load_explicit(&slot->meta, memory_order_acquire);
    if (meta == 0)
        return false; /* retired */
    const uint64_t size = atomic_load_explicit(&slot->size, memory_order_acquire);
    uint64_t desc = atomic_load_explicit(&slot->desc, memory_order_acquire);
    *out = (ist_segment_info){
        .index = slot->index,
        .generation = isti_generation(state),
        .owners = isti_owners(state),
        .kind = (uint8_t)kind_of(meta),
        .frozen = (state & IST_FROZEN) != 0,
        .readonly = (state & IST_FROZEN) != 0 || (meta >> 8 & IST_READONLY) != 0,
        .saturated = isti_owners(state) >= IST_OWNERS_LIMIT,
        .size = (meta >> 8 & ISTI_SLOT_GROWABLE) != 0 ? isti_length(desc, size) : size,
        .reserved = size,
        .created_by = atomic_load_explicit(&slot->creator, memory_order_acquire),
    };
    struct isti_domain *d = desc == 0 ? NULL : isti_domain_by_number(isti_desc_domain(desc));
    out->published = d != NULL;
    out->descriptor = d == NULL ? UINT32_MAX : isti_desc_index(desc);
    out->descriptor_generation = isti_desc_generation(desc);
    out->processes = d == NULL ? 0 : isti_holders(d, out->descriptor);
    /* relaxed: ordered behind the acquire loads above */
    return isti_generation(atomic_load_explicit(&slot->state, memory_order_relaxed)) == out->generation;
}

void ist_segment_read_info(ist_segment s, ist_segment_info *out) {
    if (!read_info(s.slot, out))
        memset(out, 0, sizeof *out); /* the caller owns nothing: told by owners = 0 */
}

size_t ist_segments(uint32_t *cursor, ist_segment_info *out, size_t room) {
    size_t count = 0;
    for (uint32_t high = isti_slab_high(); *cursor < high && count < room; ++*cursor) {
        ist_slot *slot = isti_slab_slot(*cursor);
        if (slot != NULL && read_info(slot, &out[count]))
            count++;
    }
    return count;
}

/* ---- statistics */

int ist_stats_read(ist_stats *stats) {
    if (stats == NULL || stats->struct_size != sizeof *stats)
        return -EINVAL;
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE; /* as in lease.c: the locks may be held by threads that aren't here */
    uint64_t sums[ISTI_COUNTERS];
    isti_counters_read(sums);
    /* what the slots tell is counted here rather than by every create and release */
    stats->segments = stats->allocated = stats->owners = stats->published = stats->queues = stats->locks = 0;
    ist_segment_info info;
    for (uint32_t cursor = 0; ist_segments(&cursor, &info, 1) != 0;) {
        stats->segments++;
        stats->published += info.published;
        stats->queues += info.kind == IST_KIND_QUEUE;
        stats->locks += info.kind == IST_KIND_LOCK;
        stats->allocated += info.kind == IST_KIND_HEAP ? info.size : 0;
        stats->owners += info.saturated ? 0 : info.owners;
    }
    stats->mapped = isti_heap_mapped();
    stats->in_flight = sums[ISTI_IN_FLIGHT];
    stats->bytes_copied = sums[ISTI_BYTES_COPIED];
    stats->saturated = atomic_load_explicit(&saturated, memory_order_relaxed);
    stats->misuses = atomic_load_explicit(&misuses, memory_order_relaxed);
    stats->retired = atomic_load_explicit(&isti_retired, memory_order_relaxed);
    isti_lease_stats(stats);
    stats->processes = isti_processes_count();
    stats->waiting = isti_waiters_count();
    return 0;
}

void ist_count_copied(size_t bytes) { isti_count(isti_thread(), ISTI_BYTES_COPIED, bytes); }

void ist_count_in_flight(int64_t messages) { isti_count(isti_thread(), ISTI_IN_FLIGHT, (uint64_t)messages); }

uint32_t ist_version(void) { return IST_VERSION_MAJOR << 16 | IST_VERSION_MINOR << 8 | IST_VERSION_PATCH; }
