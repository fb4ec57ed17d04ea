/* member.c: places of processes and the byte locks that tell who lives.
 *
 *   process m of a domain is alive  <=>  the byte lock ISTI_LOCK_MEMBER + m is held
 *
 * It is an open-file-description lock (fcntl(2), F_OFD_SETLK) whose description is kept by a mapping, an *anchor*: so it ends with the
 * process image, by exit, exec or SIGKILL, and nothing that user code does with descriptors touches it. The mapping isn't inherited
 * (MADV_DONTFORK), so a forked child doesn't keep its parent alive; but for the child's own, which fork.c hands over.
 *
 * The other use of the locks is the probe: d->control_fd itself. Threads share it, so isti_sweep_mutex is held around each use.
 */
#include "domain.h"
#include "os.h"
#include "point.h"
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

pthread_mutex_t isti_sweep_mutex = PTHREAD_MUTEX_INITIALIZER;

int isti_anchor_take(struct isti_domain *d, int64_t byte, bool inherit, void **anchor) {
    const int fd = isti_domain_open_again(d);
    if (fd < 0)
        return fd;
    int error = isti_os.lock(fd, F_WRLCK, byte) == 0 ? 0 : errno == EACCES ? -EAGAIN : -errno;
    void *page = MAP_FAILED;
    if (error == 0) {
        page = isti_os.mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        if (page == MAP_FAILED)
            error = -ENOMEM;
        else if (!inherit && isti_os.madvise(page, 4096, MADV_DONTFORK) != 0) {
            error = -ENOMEM; /* a child would keep us alive */
            isti_os.munmap(page, 4096);
        }
    }
    isti_os.close(fd); /* without a mapping the lock goes with it */
    if (error == 0)
        *anchor = page;
    return error;
}

void isti_anchor_drop(void *anchor) {
    if (anchor != NULL)
        isti_os.munmap(anchor, 4096);
}

static bool has_probe(struct isti_domain *d) { return !d->solo && !d->shares_probe && isti_domain_has_control(d); }

int isti_probe_lock(struct isti_domain *d, int64_t byte) {
    if (!has_probe(d))
        return -EBADF;
    return isti_os.lock(d->control_fd, F_WRLCK, byte) == 0 ? 0 : errno == EACCES ? -EAGAIN : -errno;
}

void isti_probe_unlock(struct isti_domain *d, int64_t byte) { isti_os.lock(d->control_fd, F_UNLCK, byte); }

bool isti_member_alive(struct isti_domain *d, uint32_t m) {
    if (m == d->me)
        return true;
    return has_probe(d) && isti_os.lock_test(d->control_fd, ISTI_LOCK_MEMBER + (int64_t)m) == 1;
}

bool isti_member_gone(struct isti_domain *d, uint32_t m) {
    return !(d->anchor != NULL && m == d->me) && has_probe(d) && isti_os.lock_test(d->control_fd, ISTI_LOCK_MEMBER + (int64_t)m) == 0;
}

/* Row m is ours by its lock: from here on a death is swept. */
void isti_member_begin(struct isti_domain *d, uint32_t m) {
    isti_raise(&d->marks->members, m + 1);
    IST_POINT(JOIN_RAISED);
    struct isti_member *row = &d->member_rows[m];
    /* release: pairs with the acquire in a sweep: dirty comes before anything there is to strike out */
    atomic_store_explicit(&row->dirty, 1, memory_order_release);
    atomic_fetch_add_explicit(&row->incarnation, 1, memory_order_relaxed); /* relaxed: for display */
    IST_POINT(JOIN_DIRTY);
}

/* Where we can be found. */
void isti_member_sign(struct isti_domain *d) {
    struct isti_member *row = &d->member_rows[d->me];
    /* relaxed, all: whoever uses them checks what it finds */
    atomic_store_explicit(&row->control_fd, (uint32_t)d->control_fd, memory_order_relaxed);
    atomic_store_explicit(&row->data_fd, (uint32_t)d->data_fd, memory_order_relaxed);
    atomic_store_explicit(&row->pid, (uint32_t)getpid(), memory_order_relaxed);
}

int isti_member_join(struct isti_domain *d) {
    int error = -EUSERS;
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t m = 0; m < d->members; m++) {
            /* relaxed: a hint, the lock decides */
            bool dirty = atomic_load_explicit(&d->member_rows[m].dirty, memory_order_relaxed) != 0;
            if (dirty != (pass == 1))
                continue;
            error = isti_anchor_take(d, ISTI_LOCK_MEMBER + (int64_t)m, false, &d->anchor);
            if (error == -EAGAIN) {
                error = -EUSERS;
                continue; /* alive, or being swept */
            }
            if (error != 0)
                return error;
            IST_POINT(JOIN_LOCKED);
            d->me = m; /* what a sweep leaves half done names us, and the place is dirty still */
            /* acquire: pairs with the release of whoever held the place before */
            if (atomic_load_explicit(&d->member_rows[m].dirty, memory_order_acquire) != 0 && !isti_sweep_held(d, m)) {
                isti_anchor_drop(d->anchor); /* its pickles may still be read */
                d->anchor = NULL;
                error = -EUSERS;
                continue;
            }
            isti_member_begin(d, m);
            d->struck_seen = atomic_load_explicit(&d->member_rows[m].struck, memory_order_relaxed); /* relaxed: those were others' */
            isti_member_sign(d);
            for (uint32_t other = 0; other < isti_members_high(d); other++)
                if (other != m && atomic_load_explicit(&d->member_rows[other].dirty, memory_order_relaxed) != 0) /* relaxed: a hint */
                    isti_member_ring(d, other); /* whoever was alone has somebody to look after now */
            return 0;
        }
    }
    return error;
}

void isti_member_ring(struct isti_domain *d, uint32_t m) {
    if (m >= d->members)
        return;
    /* release: pairs with the acquire of the housekeeper that hears it */
    atomic_fetch_add_explicit(&d->member_rows[m].doorbell, 1, memory_order_release);
    isti_os.futex_wake(&d->member_rows[m].doorbell, 1);
}
