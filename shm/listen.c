/* listen.c: file descriptors that are readable when a queue has a message, has room, has no task left: for loops that wait for many things.
 *
 *   a handle listens  <=>  it has an eventfd, for one side at least, and is in the list here
 *   a process listens to a queue  <=>  its bit is set in the ring's `armed` (until a sweep, also when it is dead)
 *
 * A put looks at the bits: its own process's handles it tells itself, of the others it rings the doorbells, and their housekeepers look
 * through their lists. Whoever finds the queue empty takes back what was told, and looks once more: so a message may be told twice, but
 * not never. Orders as in eventcount.h: bit and second look, FULL and the look at the bits, are seq_cst.
 */
#include "fork.h"
#include "os.h"
#include "point.h"
#include "queue.h"
#include "segment.h"

#include <errno.h>
#include <sys/eventfd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static ist_queue *first;

static void write_fd(ist_queue *q, ist_queue_side side) {
    const uint64_t one = 1;
    struct isti_listener *l = &q->sides[side];
    const int fd = atomic_load_explicit(&l->fd, memory_order_relaxed); /* relaxed: under the mutex, or the caller's handle */
    /* seq_cst: see isti_listen_clear. A full eventfd is readable as well */
    if (fd >= 0 && atomic_exchange_explicit(&l->told, 1, memory_order_seq_cst) == 0)
        (void)!isti_os.write(fd, &one, sizeof one);
}

/* Handles of this process that listen to row `index` of d; NULL: all, to whatever has happened. */
static void tell_here(const struct isti_ring_view *v, ist_queue_side told) {
    pthread_mutex_lock(&mutex);
    for (ist_queue *q = first; q != NULL; q = q->next)
        for (ist_queue_side side = 0; side < ISTI_SIDES; side++)
            if (v != NULL ? side == told && q->view.d == v->d && q->view.index == v->index : isti_queue_has_happened(&q->view, side))
                write_fd(q, side);
    pthread_mutex_unlock(&mutex);
}

void isti_listen_tell(const struct isti_ring_view *v, ist_queue_side side) {
    for (uint32_t i = 0; i < ISTI_WORDS; i++)
        /* seq_cst: as the look before */
        for (uint64_t word = atomic_load_explicit(&v->ring->armed[i], memory_order_seq_cst); word != 0; word &= word - 1) {
            const uint32_t m = i * 64 + (uint32_t)__builtin_ctzll(word);
            if (m == v->d->me)
                tell_here(v, side);
            else if (m < v->d->members)
                isti_member_ring(v->d, m);
        }
}

void isti_listen_poll(void) { tell_here(NULL, IST_QUEUE_MESSAGES); }

bool isti_listen_clear(ist_queue *q, ist_queue_side side) {
    struct isti_listener *l = &q->sides[side];
    const int fd = atomic_load_explicit(&l->fd, memory_order_acquire); /* acquire: pairs with ist_queue_fileno_of */
    if (fd < 0)
        return false;
    uint64_t count;
    /* seq_cst: a put that still found it told has made its message before, and is seen by the look that follows */
    atomic_store_explicit(&l->told, 0, memory_order_seq_cst);
    (void)!isti_os.read(fd, &count, sizeof count);
    return true;
}

static _Atomic(uint64_t) *bits_of(const ist_queue *q, uint64_t *bit) {
    *bit = UINT64_C(1) << q->view.d->me % 64;
    return &q->view.ring->armed[q->view.d->me / 64];
}

/* The mutex is held. */
static void enlist(ist_queue *q) {
    if (q->link != NULL)
        return;
    q->next = first;
    q->link = &first;
    if (first != NULL)
        first->link = &q->next;
    first = q;
}

static void arm(ist_queue *q, ist_queue_side side, int fd) {
    struct isti_listener *l = &q->sides[side];
    enlist(q);
    atomic_store_explicit(&l->told, 0, memory_order_relaxed);
    atomic_store_explicit(&l->fd, fd, memory_order_release); /* pairs with isti_listen_clear */
    uint64_t bit;
    _Atomic(uint64_t) *bits = bits_of(q, &bit);
    /* seq_cst, both: before the look below */
    atomic_fetch_or_explicit(bits, bit, memory_order_seq_cst);
    IST_POINT(LISTEN_ARMED);
    atomic_store_explicit(isti_listened(&q->view, side), 1, memory_order_seq_cst);
    if (isti_queue_has_happened(&q->view, side))
        write_fd(q, side);
}

int ist_queue_fileno_of(ist_queue *q, ist_queue_side side, int *out) {
    if (q == NULL || out == NULL || (unsigned)side >= ISTI_SIDES)
        return -EINVAL;
    if (ist_process_epoch() == 0 || q->epoch != ist_epoch())
        return -ENOTRECOVERABLE;
    int error = 0;
    pthread_mutex_lock(&mutex);
    int fd = atomic_load_explicit(&q->sides[side].fd, memory_order_relaxed); /* relaxed: under the mutex */
    if (fd < 0) {
        fd = isti_os.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        error = fd < 0 ? -errno : 0;
        if (error == 0)
            arm(q, side, fd);
    }
    pthread_mutex_unlock(&mutex);
    if (error != 0)
        return error;
    isti_housekeeper_watch(); /* it hears of what other processes do */
    *out = fd;
    return 0;
}

int ist_queue_fileno(ist_queue *q, int *out) { return ist_queue_fileno_of(q, IST_QUEUE_MESSAGES, out); }

/* The mutex is held. */
static void unlist(ist_queue *q) {
    *q->link = q->next;
    if (q->next != NULL)
        q->next->link = q->link;
    q->link = NULL;
    for (int side = 0; side < ISTI_SIDES; side++) {
        const int fd = atomic_exchange_explicit(&q->sides[side].fd, -1, memory_order_relaxed); /* relaxed: under the mutex */
        if (fd >= 0)
            isti_os.close(fd);
    }
}

void isti_listen_end(ist_queue *q) {
    pthread_mutex_lock(&mutex);
    if (q->link != NULL) {
        for (ist_queue_side side = 0; side < ISTI_SIDES; side++)
            write_fd(q, side); /* whoever has a duplicate of it looks once more, and finds that the handle is gone */
        unlist(q);
        bool another = false;
        for (ist_queue *other = first; other != NULL; other = other->next)
            another = another || (other->view.d == q->view.d && other->view.index == q->view.index);
        uint64_t bit;
        _Atomic(uint64_t) *bits = bits_of(q, &bit);
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
