/* listen.c: file descriptors that are readable when a queue has a message, room, or no task left, or a lock is free: for loops that wait
 * for many things.
 *
 *   a handle listens  <=>  it has an eventfd and is in the list here
 *   a process listens to a segment  <=>  its bit is set there in `armed` (until a sweep, also when it is dead)
 *
 * A put looks at the bits: its own process's handles it tells itself, of the others it rings the doorbells, and their housekeepers look
 * through their lists. Whoever finds the queue empty takes back what was told, and looks once more: so a message may be told twice, but
 * not never. Orders as in eventcount.h: bit and second look, FULL and the look at the bits, are seq_cst. The same for locks.
 *
 * The mutex is a leaf: a sweep tells while it holds locks, and nothing is locked under it.
 */
#include "listen.h"

#include "fork.h"
#include "os.h"
#include "point.h"
#include "segment.h"

#include <errno.h>
#include <sys/eventfd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct isti_listener *first;

static void write_fd(struct isti_listener *l) {
    const uint64_t one = 1;
    const int fd = atomic_load_explicit(&l->fd, memory_order_relaxed); /* relaxed: under the mutex, or the caller's handle */
    /* seq_cst: see isti_listener_clear. A full eventfd is readable as well */
    if (fd >= 0 && atomic_exchange_explicit(&l->told, 1, memory_order_seq_cst) == 0)
        (void)!isti_os.write(fd, &one, sizeof one);
}

/* Handles of this process that listen to this of row `index` of d; NULL: all for which there is something. */
static void tell_here(const struct isti_domain *d, uint32_t index, const _Atomic(uint32_t) *listened) {
    pthread_mutex_lock(&mutex);
    for (struct isti_listener *l = first; l != NULL; l = l->next)
        if (d != NULL ? l->d == d && l->index == index && l->listened == listened : l->is_ready(l))
            write_fd(l);
    pthread_mutex_unlock(&mutex);
}

void isti_listen_tell_slow(struct isti_domain *d, uint32_t index, const _Atomic(uint32_t) *listened, _Atomic(uint64_t) *armed) {
    for (uint32_t i = 0; i < ISTI_WORDS; i++)
        /* seq_cst: as the look before */
        for (uint64_t word = atomic_load_explicit(&armed[i], memory_order_seq_cst); word != 0; word &= word - 1) {
            const uint32_t m = i * 64 + (uint32_t)__builtin_ctzll(word);
            if (m == d->me)
                tell_here(d, index, listened);
            else if (m < d->members)
                isti_member_ring(d, m);
        }
}

void isti_listen_poll(void) { tell_here(NULL, 0, NULL); }

bool isti_listener_clear(struct isti_listener *l) {
    const int fd = atomic_load_explicit(&l->fd, memory_order_acquire); /* acquire: pairs with isti_listener_fileno */
    if (fd < 0)
        return false;
    uint64_t count;
    /* seq_cst: a put that still found it told has made its message before, and is seen by the look that follows */
    atomic_store_explicit(&l->told, 0, memory_order_seq_cst);
    (void)!isti_os.read(fd, &count, sizeof count);
    return true;
}

static _Atomic(uint64_t) *bits_of(const struct isti_listener *l, uint64_t *bit) {
    *bit = UINT64_C(1) << l->d->me % 64;
    return &l->armed[l->d->me / 64];
}

int isti_listener_fileno(struct isti_listener *l, int *out) {
    if (ist_process_epoch() == 0 || l->epoch != ist_epoch())
        return -ENOTRECOVERABLE;
    int error = 0;
    pthread_mutex_lock(&mutex);
    int fd = atomic_load_explicit(&l->fd, memory_order_relaxed); /* relaxed: under the mutex */
    if (fd < 0) {
        fd = isti_os.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        error = fd < 0 ? -errno : 0;
    }
    if (error == 0 && atomic_load_explicit(&l->fd, memory_order_relaxed) < 0) {
        l->next = first;
        l->link = &first;
        if (first != NULL)
            first->link = &l->next;
        first = l;
        atomic_store_explicit(&l->told, 0, memory_order_relaxed);
        atomic_store_explicit(&l->fd, fd, memory_order_release); /* pairs with isti_listener_clear */
        uint64_t bit;
        _Atomic(uint64_t) *bits = bits_of(l, &bit);
        /* seq_cst, both: before the look below */
        atomic_fetch_or_explicit(bits, bit, memory_order_seq_cst);
        IST_POINT(LISTEN_ARMED);
        atomic_store_explicit(l->listened, 1, memory_order_seq_cst);
        if (l->is_ready(l))
            write_fd(l);
    }
    pthread_mutex_unlock(&mutex);
    if (error != 0)
        return error;
    isti_housekeeper_watch(); /* it hears of what other processes do */
    *out = fd;
    return 0;
}

/* The mutex is held. */
static void unlist(struct isti_listener *l) {
    *l->link = l->next;
    if (l->next != NULL)
        l->next->link = l->link;
    isti_os.close(atomic_exchange_explicit(&l->fd, -1, memory_order_relaxed)); /* relaxed: under the mutex */
}

void isti_listener_end(struct isti_listener *l) {
    pthread_mutex_lock(&mutex);
    if (atomic_load_explicit(&l->fd, memory_order_relaxed) >= 0) {
        write_fd(l); /* whoever has a duplicate of it looks once more, and finds that the handle is gone */
        unlist(l);
        bool another = false;
        for (struct isti_listener *other = first; other != NULL; other = other->next)
            another = another || (other->d == l->d && other->index == l->index);
        uint64_t bit;
        _Atomic(uint64_t) *bits = bits_of(l, &bit);
        if (!another) /* relaxed: a ring too many is heard by nobody */
            atomic_fetch_and_explicit(bits, ~bit, memory_order_relaxed);
    }
    pthread_mutex_unlock(&mutex);
}

void isti_listen_fork_prepare(void) { pthread_mutex_lock(&mutex); }

void isti_listen_fork_parent(void) { pthread_mutex_unlock(&mutex); }

/* What is readable is the parent's to be told; a child that wants to listen makes its own. */
void isti_listen_fork_child(void) {
    while (first != NULL)
        unlist(first);
    pthread_mutex_unlock(&mutex); /* the forking thread locked it, and is this one */
}
