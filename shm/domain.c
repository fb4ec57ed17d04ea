/* domain.c: domains: making, joining, finding and leaving them, and what fork does to a process's membership.
 *
 *   rows[0 .. count)   every domain this process ever was in, but for those it gave up before it held anything there: NULL
 *   home               the one where this process allocates; NULL until the first use, and in a child that wasn't handed over
 *   usable             d->epoch == ist_process_epoch(): else it is the parent's
 *   joining            the one that this thread is joining, which isn't in rows yet: it sweeps the place it gets, and may for that own what
 *                      a dead one's messages list
 *
 * Lock order: lease, heap, table (here), sweep, publish, stripe, claim, drains, threads, housekeeper, and behind these what fork.c names.
 * Fork takes all of them.
 */
#include "domain.h"

#include "fork.h"
#include "heap.h"
#include "layout.h"
#include "os.h"
#include "point.h"
#include "segment.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef F_SEAL_SEAL
#  define F_SEAL_SEAL 1
#  define F_SEAL_SHRINK 2
#  define F_SEAL_GROW 4
#endif
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define CONTROL_NAME "isthmus-control"
#define DATA_NAME "isthmus-data"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards changes of the three that are shared */
static _Atomic(struct isti_domain *) rows[ISTI_DOMAINS];
static _Atomic(uint32_t) count;
static _Thread_local struct isti_domain *joining;
static _Atomic(struct isti_domain *) home;

/* ---- the process-local side */

static void unmap_tables(struct isti_domain *d) {
    if (d->drain_rows != NULL)
        isti_os.munmap(d->drain_rows, d->queues * sizeof *d->drain_rows);
    if (d->free_rows != NULL)
        isti_os.munmap(d->free_rows, d->descriptors * sizeof *d->free_rows);
    if (d->given != NULL)
        isti_os.munmap(d->given, d->descriptors * sizeof *d->given);
    if (d->entries != NULL)
        isti_os.munmap(d->entries, d->descriptors * sizeof *d->entries);
    if (d->control != NULL)
        isti_os.munmap(d->control, d->control_size);
    if (d->control_fd >= 0)
        isti_os.close(d->control_fd);
    d->drain_rows = NULL;
    d->free_rows = NULL;
    d->given = NULL;
    d->entries = NULL;
    d->control = NULL;
    d->control_fd = -1;
}

void isti_domain_close(struct isti_domain *d) {
    unmap_tables(d);
    if (d->data_fd >= 0)
        isti_os.close(d->data_fd);
    pthread_mutex_destroy(&d->claim);
    pthread_mutex_destroy(&d->drains);
    isti_os.free(d);
}

static struct isti_domain *new_domain(void) {
    struct isti_domain *d = isti_os.calloc(1, sizeof *d);
    if (d != NULL) {
        d->control_fd = d->data_fd = -1;
        pthread_mutex_init(&d->claim, NULL);
        pthread_mutex_init(&d->drains, NULL);
    }
    return d;
}

static void *private_table(size_t size) {
    void *p = isti_os.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    isti_os.madvise(p, size, MADV_DONTDUMP); /* as with the window, see heap.c: reading it for a core would commit it */
    return p;
}

/* Maps the tables; h is bounded. */
static int map_tables(struct isti_domain *d, const struct isti_control_header *h) {
    uint64_t at[ISTI_TABLES];
    size_t size = (size_t)isti_layout(h, at);
    char *p = isti_os.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, d->control_fd, 0);
    if (p == MAP_FAILED)
        return -ENOMEM;
    isti_os.madvise(p, size, MADV_DONTDUMP);
    d->control = p;
    d->control_size = size;
    d->members = h->members;
    d->windows = h->windows;
    d->descriptors = h->descriptors;
    d->tickets = h->tickets;
    d->names = h->names;
    d->waiter_buckets = h->waiter_buckets;
    d->queues = h->queues;
    d->window_size = h->window_size;
    memcpy(d->id, h->id, sizeof d->id);
    d->marks = (struct isti_control_marks *)(void *)(p + ISTI_HEADER_BYTES);
    d->member_rows = (struct isti_member *)(void *)(p + at[0]);
    d->window_rows = (struct isti_window_row *)(void *)(p + at[1]);
    d->descriptor_rows = (struct isti_descriptor *)(void *)(p + at[2]);
    d->hints = (_Atomic(uint64_t) *)(void *)(p + at[3]);
    d->ticket_rows = (struct isti_ticket *)(void *)(p + at[4]);
    d->name_rows = (struct isti_name *)(void *)(p + at[5]);
    d->waiter_rows = (struct isti_waiter_bucket *)(void *)(p + at[7]);
    d->queue_rows = (struct isti_queue_row *)(void *)(p + at[6]);
    d->entries = private_table(d->descriptors * sizeof *d->entries);
    d->given = private_table(d->descriptors * sizeof *d->given);
    d->free_rows = private_table(d->descriptors * sizeof *d->free_rows);
    d->drain_rows = private_table(d->queues * sizeof *d->drain_rows);
    return d->entries == NULL || d->given == NULL || d->free_rows == NULL || d->drain_rows == NULL ? -ENOMEM : 0;
}

static int identify(int fd, uint64_t *device, uint64_t *inode, uint64_t *size) {
    struct stat st;
    if (isti_os.fstat(fd, &st) != 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return -EACCES;
    *device = (uint64_t)st.st_dev;
    *inode = (uint64_t)st.st_ino;
    *size = (uint64_t)st.st_size;
    return 0;
}

/* Becomes a member of d, which is in the table then. */
static int join_and_add(struct isti_domain *d) {
    uint32_t n = atomic_load_explicit(&count, memory_order_relaxed); /* relaxed: under the mutex */
    if (n == ISTI_DOMAINS)
        return -EMLINK;
    d->number = n;
    d->epoch = ist_process_epoch();
    joining = d;
    int error = isti_member_join(d);
    joining = NULL;
    if (d->made_here && (error == -ENOENT || error == -ENOSYS || error == -EACCES)) {
        /* no /proc: alone, which is enough for this process */
        d->solo = true;
        d->me = 0;
        error = 0;
    }
    if (error != 0)
        return error;
    atomic_store_explicit(&rows[n], d, memory_order_release); /* pairs with the acquire loads of the look-ups: d's fields are there */
    atomic_store_explicit(&count, n + 1, memory_order_release);
    return 0;
}

/* ---- making */

static int random_bytes(uint8_t *out, size_t size) {
    for (size_t have = 0; have < size;) {
        ssize_t n = isti_os.getrandom(out + have, size - have, 0);
        if (n < 0 && errno != EINTR)
            return -errno;
        have += n < 0 ? 0 : (size_t)n;
    }
    return 0;
}

static int make_file(const char *name, uint64_t size, int *out) {
    if (size > isti_limit_of(RLIMIT_FSIZE))
        return -ENOMEM;
    int fd = isti_os.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int error = 0;
    if (isti_os.ftruncate(fd, (off_t)size) != 0)
        error = errno == EFBIG || errno == EINVAL ? -ENOMEM : -errno;
    else if (isti_os.add_seals(fd, SEALS) != 0)
        error = -errno;
    if (error != 0)
        isti_os.close(fd);
    else
        *out = fd;
    return error;
}

static int make_files(struct isti_domain *d, struct isti_control_header *h) {
    uint64_t at[ISTI_TABLES], ignored;
    isti_fit_windows(h);
    int error = make_file(DATA_NAME, h->windows * h->window_size, &d->data_fd);
    if (error == 0)
        error = identify(d->data_fd, &d->data_device, &d->data_inode, &ignored);
    if (error != 0)
        return error;
    h->data_device = d->data_device;
    h->data_inode = d->data_inode;
    for (;;) {
        isti_fit_tables(h);
        error = make_file(CONTROL_NAME, isti_layout(h, at), &d->control_fd);
        if (error == 0)
            error = map_tables(d, h);
        if (error != -ENOMEM || h->descriptors / 2 < ISTI_DESCRIPTORS_LEAST)
            break;
        unmap_tables(d);
        h->descriptors /= 2;
    }
    if (error == 0)
        error = identify(d->control_fd, &d->control_device, &d->control_inode, &ignored);
    if (error == 0)
        memcpy(d->control, h, sizeof *h);
    return error;
}

/* The mutex is held. */
static int make(struct isti_domain **out) {
    struct isti_control_header h = {
        .magic = ISTI_CONTROL_MAGIC,
        .version = ISTI_CONTROL_VERSION,
        .members = isti_limits.processes != 0 ? isti_limits.processes : ISTI_MEMBERS,
        .descriptors = isti_limits.published != 0 ? isti_limits.published : ISTI_DESCRIPTORS,
        .windows = ISTI_WINDOWS,
        .tickets = ISTI_TICKETS,
        .names = ISTI_NAMES,
        .waiter_buckets = ISTI_WAITER_BUCKETS,
        .queues = ISTI_QUEUES,
        .window_size = isti_heap_wanted() > ISTI_WINDOW_DEFAULT ? isti_window_rounded(isti_heap_wanted()) : ISTI_WINDOW_DEFAULT,
    };
    struct isti_domain *d = new_domain();
    int error = d == NULL ? -ENOMEM : random_bytes(h.id, sizeof h.id);
    if (error == 0)
        error = make_files(d, &h);
    if (error == 0) {
        d->made_here = true;
        error = join_and_add(d);
    }
    if (error == 0)
        *out = d;
    else if (d != NULL)
        isti_domain_close(d);
    return error;
}

/* ---- joining */

/* Whether a descriptor's link in /proc says that it is a memfd of that name. Looked at before it is opened: opening something else may do
 * something. */
static int is_memfd(const char *path, const char *name) {
    char target[64], wanted[64];
    ssize_t n = isti_os.readlink(path, target, sizeof target - 1);
    if (n < 0)
        return -errno;
    target[n] = '\0';
    snprintf(wanted, sizeof wanted, "/memfd:%s", name);
    return strncmp(target, wanted, strlen(wanted)) == 0 ? 0 : -ENOENT;
}

static int open_peer(uint32_t pid, uint32_t fd, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/fd/%u", pid, fd);
    int error = is_memfd(path, name);
    if (error != 0)
        return error;
    int opened = isti_os.open(path, O_RDWR | O_CLOEXEC);
    return opened < 0 ? -errno : opened;
}

static int open_control(struct isti_domain *d, const uint8_t *id) {
    struct isti_control_header h;
    uint64_t size = 0;
    int error = identify(d->control_fd, &d->control_device, &d->control_inode, &size);
    if (error != 0)
        return error;
    if (size < ISTI_TABLES_AT || (isti_os.get_seals(d->control_fd) & SEALS) != SEALS)
        return -ENOENT; /* not ours, or it could shrink under us */
    char *page = isti_os.mmap(NULL, ISTI_HEADER_BYTES, PROT_READ, MAP_SHARED, d->control_fd, 0);
    if (page == MAP_FAILED)
        return -ENOMEM;
    memcpy(&h, page, sizeof h);
    isti_os.munmap(page, ISTI_HEADER_BYTES);
    if (!isti_header_makes_sense(&h, size) || (id != NULL && memcmp(id, h.id, sizeof h.id) != 0))
        return -ENOENT;
    d->data_device = h.data_device;
    d->data_inode = h.data_inode;
    return map_tables(d, &h);
}

uint32_t isti_members_high(struct isti_domain *d) { return isti_marked(&d->marks->members, d->members); }

/* The data memfd, from whatever member has it. */
static int open_data(struct isti_domain *d) {
    int error = -ENOENT;
    for (uint32_t m = 0; m < isti_members_high(d); m++) {
        struct isti_member *row = &d->member_rows[m];
        /* relaxed, all: where to look; what is found there is checked */
        if (atomic_load_explicit(&row->dirty, memory_order_relaxed) == 0)
            continue;
        int fd = open_peer(atomic_load_explicit(&row->pid, memory_order_relaxed), atomic_load_explicit(&row->data_fd, memory_order_relaxed),
                           DATA_NAME);
        if (fd < 0) {
            error = fd == -ENOENT || fd == -ENXIO || fd == -ESRCH ? error : fd;
            continue;
        }
        uint64_t device, inode, size;
        if (identify(fd, &device, &inode, &size) == 0 && device == d->data_device && inode == d->data_inode &&
            size == d->windows * d->window_size && (isti_os.get_seals(fd) & SEALS) == SEALS) {
            d->data_fd = fd;
            return 0;
        }
        isti_os.close(fd);
    }
    return error;
}

/* -1: the system doesn't tell; then it isn't opened anew either, as it may well be there. */
static int is_file(int fd, uint64_t device, uint64_t inode) {
    struct stat st;
    if (isti_os.fstat(fd, &st) != 0)
        return errno == EBADF ? 0 : -1;
    return (uint64_t)st.st_dev == device && (uint64_t)st.st_ino == inode;
}

bool isti_domain_has_control(struct isti_domain *d) {
    const int there = is_file(d->control_fd, d->control_device, d->control_inode);
    if (there != 0)
        return there > 0;
    for (uint32_t m = 0; m < isti_members_high(d); m++) {
        struct isti_member *row = &d->member_rows[m];
        /* relaxed, all: as in open_data */
        if (m == d->me || atomic_load_explicit(&row->dirty, memory_order_relaxed) == 0)
            continue;
        int fd = open_peer(atomic_load_explicit(&row->pid, memory_order_relaxed),
                           atomic_load_explicit(&row->control_fd, memory_order_relaxed), CONTROL_NAME);
        if (fd >= 0 && is_file(fd, d->control_device, d->control_inode) > 0) {
            d->control_fd = fd;
            isti_member_sign(d);
            return true;
        }
        if (fd >= 0)
            isti_os.close(fd);
    }
    return false;
}

bool isti_domain_has_data(struct isti_domain *d) {
    const int there = is_file(d->data_fd, d->data_device, d->data_inode);
    if (there != 0)
        return there > 0;
    if (open_data(d) != 0)
        return false;
    isti_member_sign(d);
    return true;
}

static int open_again(const struct isti_domain *d) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", d->control_fd);
    int fd = isti_os.open(path, O_RDWR | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int isti_domain_open_again(struct isti_domain *d) { return isti_domain_has_control(d) ? open_again(d) : -EBADF; }

/* Opens and maps, without joining. */
int isti_domain_peek(uint32_t pid, uint32_t control_fd, const uint8_t *id, struct isti_domain **out) {
    struct isti_domain *d = new_domain();
    if (d == NULL)
        return -ENOMEM;
    int fd = open_peer(pid, control_fd, CONTROL_NAME);
    int error = fd < 0 ? (fd == -ESRCH || fd == -ENXIO ? -ENOENT : fd) : 0;
    if (error == 0) {
        d->control_fd = fd;
        error = open_control(d, id);
    }
    if (error == 0)
        error = open_data(d);
    if (error == 0)
        *out = d;
    else
        isti_domain_close(d);
    return error;
}

/* The mutex is held. Takes d, on failure too. */
static int join(struct isti_domain *d) {
    int error = join_and_add(d);
    if (error != 0)
        isti_domain_close(d);
    else
        isti_housekeeper_look();
    return error;
}

int isti_domain_open(uint32_t pid, uint32_t control_fd, const uint8_t *id, struct isti_domain **out) {
    pthread_mutex_lock(&mutex);
    struct isti_domain *d = id != NULL ? isti_domain_by_id(id) : NULL; /* another thread may have been faster */
    int error = 0;
    if (d == NULL) {
        error = isti_domain_peek(pid, control_fd, id, &d);
        if (error == 0) {
            struct isti_domain *known = isti_domain_by_id(d->id);
            if (known != NULL) {
                isti_domain_close(d);
                d = known;
            } else
                error = join(d);
        }
    }
    pthread_mutex_unlock(&mutex);
    if (error == 0)
        *out = d;
    return error;
}

static int hex_digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static bool parse_text(const char *text, uint32_t *pid, uint32_t *fd, uint8_t id[16]) {
    int used = 0;
    if (sscanf(text, "%u:%u:%n", pid, fd, &used) != 2 || used == 0 || strlen(text + used) != 32)
        return false;
    for (int i = 0; i < 16; i++) {
        int high = hex_digit(text[used + 2 * i]), low = hex_digit(text[used + 2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        id[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* The mutex is held: the domain of the environment, if it can be reached. */
static int join_named(struct isti_domain **out) {
    const char *text = getenv("ISTHMUS_DOMAIN");
    uint32_t pid, fd;
    uint8_t id[16];
    if (text == NULL || !parse_text(text, &pid, &fd, id))
        return -ENOENT;
    struct isti_domain *d = isti_domain_by_id(id);
    if (d == NULL) {
        int error = isti_domain_peek(pid, fd, id, &d);
        if (error == 0)
            error = join(d);
        if (error != 0)
            return error;
    }
    *out = d;
    return 0;
}

int isti_domain_home(struct isti_domain **out) {
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE;
    struct isti_domain *d = isti_domain_home_now();
    if (d != NULL) {
        *out = d;
        return 0;
    }
    pthread_mutex_lock(&mutex);
    isti_limits_read();
    d = isti_domain_home_now();
    int error = 0;
    if (d == NULL) {
        if (join_named(&d) != 0)
            error = make(&d);
        if (error == 0) {
            atomic_store_explicit(&home, d, memory_order_release); /* pairs with home_now's acquire */
            if (!d->solo)
                isti_housekeeper_bell(&d->member_rows[d->me].doorbell);
        }
    }
    pthread_mutex_unlock(&mutex);
    if (error == 0)
        *out = d;
    return error;
}

static struct isti_domain *usable(struct isti_domain *d) { return d != NULL && d->epoch == ist_process_epoch() ? d : NULL; }

struct isti_domain *isti_domain_home_now(void) {
    return usable(atomic_load_explicit(&home, memory_order_acquire)); /* acquire: pairs with isti_domain_home's release */
}

static struct isti_domain *in_row(uint32_t number) {
    return usable(atomic_load_explicit(&rows[number], memory_order_acquire)); /* acquire: pairs with join_and_add */
}

struct isti_domain *isti_domain_by_number(uint32_t number) {
    if (number >= ISTI_DOMAINS)
        return NULL;
    struct isti_domain *d = in_row(number);
    return d == NULL && joining != NULL && joining->number == number ? usable(joining) : d;
}

struct isti_domain *isti_domain_next(uint32_t *at) {
    while (*at < ISTI_DOMAINS) {
        struct isti_domain *d = in_row((*at)++);
        if (d != NULL)
            return d;
    }
    return NULL;
}

struct isti_domain *isti_domain_by_id(const uint8_t id[16]) {
    struct isti_domain *d = isti_domain_home_now();
    if (d != NULL && memcmp(d->id, id, 16) == 0)
        return d;
    for (uint32_t n = atomic_load_explicit(&count, memory_order_acquire); n-- > 0;) /* acquire: pairs with join_and_add */
        if ((d = in_row(n)) != NULL && memcmp(d->id, id, 16) == 0)
            return d;
    return NULL;
}

void isti_domain_discard(void) {
    pthread_mutex_lock(&mutex);
    struct isti_domain *d = isti_domain_home_now();
    /* relaxed: our own, nobody else is in it */
    if (d != NULL && d->made_here && isti_window_base(d) == NULL && d->child_anchor == NULL && isti_members_high(d) <= 1 &&
        isti_descriptors_high(d) == 0 && atomic_load_explicit(&count, memory_order_relaxed) == d->number + 1) {
        atomic_store_explicit(&home, NULL, memory_order_relaxed);
        atomic_store_explicit(&rows[d->number], NULL, memory_order_relaxed);
        atomic_store_explicit(&count, d->number, memory_order_relaxed);
        isti_housekeeper_bell(NULL);
        isti_anchor_drop(d->anchor);
        isti_domain_close(d);
    }
    pthread_mutex_unlock(&mutex);
}

static bool holds_nothing(struct isti_domain *d) {
    bool nothing = true;
    isti_descriptor_fork_lock(); /* which has all stripes */
    for (uint32_t i = 0, high = isti_descriptors_high(d); i < high; i++)
        nothing = nothing && d->entries[i].slot == 0;
    isti_descriptor_fork_unlock();
    return nothing;
}

static bool is_lost(struct isti_domain *d) {
    /* where the system doesn't tell, it isn't */
    const bool control = d->solo || is_file(d->control_fd, d->control_device, d->control_inode) != 0 || isti_domain_has_control(d);
    return !control || (is_file(d->data_fd, d->data_device, d->data_inode) == 0 && !isti_domain_has_data(d));
}

bool isti_domain_leave_lost(struct isti_domain *d) {
    pthread_mutex_lock(&mutex);
    pthread_mutex_lock(&isti_sweep_mutex);
    const bool leaves = d == isti_domain_home_now() && isti_window_base(d) == NULL && is_lost(d) && holds_nothing(d);
    pthread_mutex_unlock(&isti_sweep_mutex);
    if (leaves) {
        /* release: as where they are set. What d points to stays mapped: other threads may be looking at it, the housekeeper for one */
        atomic_store_explicit(&home, NULL, memory_order_release);
        atomic_store_explicit(&rows[d->number], NULL, memory_order_release);
        isti_housekeeper_bell(NULL);
        isti_anchor_drop(d->anchor);
    }
    pthread_mutex_unlock(&mutex);
    return leaves;
}

/* ---- fork */

/* The first place from c on that looks free; d->members: none does. */
static uint32_t clean_place(struct isti_domain *d, uint32_t c) {
    while (c < d->members && atomic_load_explicit(&d->member_rows[c].dirty, memory_order_relaxed) != 0) /* relaxed: a hint */
        c++;
    return c;
}

/* In prepare, with every lock held: a member for the child that holds what we hold. */
static bool hand_over(struct isti_domain *d) {
    if (d->solo || d->shares_probe)
        return false;
    uint32_t c = 0;
    for (;; c++) {
        c = clean_place(d, c);
        if (c == d->members)
            return false;
        if (isti_anchor_take(d, ISTI_LOCK_MEMBER + (int64_t)c, true, &d->child_anchor) != 0)
            continue;
        /* acquire: pairs with the release of whoever held the place before */
        if (atomic_load_explicit(&d->member_rows[c].dirty, memory_order_acquire) == 0)
            break;
        isti_anchor_drop(d->child_anchor);
        d->child_anchor = NULL;
    }
    d->child = c;
    isti_member_begin(d, c);
    const uint64_t bit = UINT64_C(1) << c % 64;
    for (uint32_t i = 0, high = isti_descriptors_high(d); i < high; i++) {
        if (d->entries[i].slot == 0 || !isti_slot_is_owned(d->entries[i].slot - 1))
            continue;
        struct isti_descriptor *row = &d->descriptor_rows[i];
        atomic_fetch_or_explicit(&row->holders[c / 64], bit, memory_order_relaxed); /* relaxed: the move of S below orders it */
        IST_POINT(FORK_HELD);
        uint64_t s = atomic_load_explicit(&row->state, memory_order_relaxed);
        /* acq_rel: as in hold(): whoever frees has read S before, or sees the bit */
        while (isti_s_live(s) &&
               !atomic_compare_exchange_weak_explicit(&row->state, &s, isti_s(isti_s_generation(s), isti_s_phase(s), isti_s_x(s) + 1),
                                                      memory_order_acq_rel, memory_order_relaxed))
            ;
        IST_POINT(FORK_MOVED);
    }
    return true;
}

static bool handed_over;

void isti_domain_fork_prepare(void) {
    uint32_t look = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&look)) != NULL;)
        if (clean_place(d, 0) == d->members)
            isti_sweep_domain(d); /* before the locks: it takes some */
    pthread_mutex_lock(&mutex);
    pthread_mutex_lock(&isti_sweep_mutex);
    isti_descriptor_fork_lock();
    uint32_t at = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&at)) != NULL;) {
        pthread_mutex_lock(&d->claim);
        pthread_mutex_lock(&d->drains);
    }
    handed_over = isti_segment_fork_publish();
    IST_POINT(FORK_PUBLISHED);
    at = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&at)) != NULL;) {
        d->child_ready = hand_over(d);
        handed_over = d->child_ready && handed_over; /* all or nothing: one epoch stands for all memory */
    }
    IST_POINT(FORK_PREPARED);
}

void isti_domain_fork_parent(void) {
    IST_POINT(FORK_PARENT);
    uint32_t at = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&at)) != NULL;) {
        /* the child has its own mapping of it; if fork failed nobody has, and the place is swept as a dead process's */
        isti_anchor_drop(d->child_anchor);
        d->child_anchor = NULL;
        pthread_mutex_unlock(&d->drains);
        pthread_mutex_unlock(&d->claim);
    }
    isti_descriptor_fork_unlock();
    pthread_mutex_unlock(&isti_sweep_mutex);
    pthread_mutex_unlock(&mutex);
    isti_segment_fork_unpin();
}

bool isti_domain_fork_carried(void) { return handed_over; }

/* A probe of our own: the one that was inherited is the parent's open file description. Where user code has closed it nothing is shared,
 * and the number may be its own file's by now: isti_domain_has_control gets another when one is needed. */
static bool own_probe(struct isti_domain *d) {
    const int there = is_file(d->control_fd, d->control_device, d->control_inode);
    if (there == 0)
        return true;
    int fd = there < 0 ? -1 : open_again(d);
    if (fd < 0)
        return false;
    bool done = isti_os.dup3(fd, d->control_fd, O_CLOEXEC) >= 0;
    isti_os.close(fd);
    return done;
}

/* Threads that aren't here may have been about to let go of a segment that has no owner any more: then we do. */
static void forget_ended(struct isti_domain *d) {
    for (uint32_t i = 0, high = isti_descriptors_high(d); i < high; i++) {
        if (d->entries[i].slot == 0 || isti_slot_is_owned(d->entries[i].slot - 1))
            continue;
        d->entries[i] = (struct isti_entry){0};
        isti_unhold(d, i, d->me);
    }
}

/* The process's epoch has moved on already. */
void isti_domain_fork_child(void) {
    /* relaxed: the child has one thread */
    for (uint32_t n = atomic_load_explicit(&count, memory_order_relaxed); n-- > 0;) {
        struct isti_domain *d = atomic_load_explicit(&rows[n], memory_order_relaxed);
        if (d == NULL || d->epoch != ist_process_epoch() - 1)
            continue;
        pthread_mutex_unlock(&d->drains);
        pthread_mutex_unlock(&d->claim);
        if (!handed_over) {
            isti_anchor_drop(d->child_anchor);
            d->child_anchor = d->anchor = d->window_anchor = NULL;
            own_probe(d); /* else a lock that the parent dies with would be kept by us */
            continue;     /* stays the parent's: its epoch isn't ours */
        }
        d->epoch = ist_process_epoch();
        d->me = d->child;
        d->anchor = d->child_anchor;
        d->child_anchor = d->window_anchor = NULL;
        isti_os.madvise(d->anchor, 4096, MADV_DONTFORK);
        char *base = isti_window_base(d);
        if (base != NULL && d->window_mapped == d->window_size)
            atomic_store_explicit(&d->mapped[0][d->window], base, memory_order_relaxed);
        atomic_store_explicit(&d->window_base, NULL, memory_order_relaxed);
        d->window_taken = false;
        isti_os.madvise(d->given, d->descriptors * sizeof *d->given, MADV_DONTNEED); /* private and anonymous: zero from here on */
        d->free_count = d->fresh = d->fresh_end = 0;
        isti_os.madvise(d->drain_rows, d->queues * sizeof *d->drain_rows, MADV_DONTNEED); /* they are the parent's to drain */
        d->drain_first = 0;
        d->draining = false;
        d->shares_probe = !own_probe(d);
        d->struck_seen = atomic_load_explicit(&d->member_rows[d->me].struck, memory_order_relaxed);
        isti_member_sign(d);
        if (d == atomic_load_explicit(&home, memory_order_relaxed))
            isti_housekeeper_bell(&d->member_rows[d->me].doorbell);
    }
    isti_descriptor_fork_unlock();
    pthread_mutex_unlock(&isti_sweep_mutex);
    pthread_mutex_unlock(&mutex);
    uint32_t at = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&at)) != NULL;)
        forget_ended(d);
    isti_segment_fork_unpin();
    IST_POINT(FORK_CHILD);
}

/* ---- public */

int ist_domain_join(void) {
    struct isti_domain *d;
    return isti_domain_home(&d);
}

int ist_domain_text(char *text, size_t room) {
    struct isti_domain *d;
    int error = isti_domain_home(&d);
    if (error != 0)
        return error;
    if (d->solo)
        return -ENOSYS;
    if (text == NULL || room < 64)
        return -EINVAL;
    int used = snprintf(text, room, "%d:%d:", (int)getpid(), d->control_fd);
    for (int i = 0; i < 16; i++)
        used += snprintf(text + used, room - (size_t)used, "%02x", d->id[i]);
    return 0;
}

int ist_domain_id(uint8_t id[16]) {
    struct isti_domain *d;
    int error = isti_domain_home(&d);
    if (error == 0)
        memcpy(id, d->id, sizeof d->id);
    return error;
}

int ist_domain_reach(const ist_token *token, ist_place place) {
    if (ist_process_epoch() == 0)
        return -ENOTRECOVERABLE;
    if (isti_domain_by_id(token->bytes) != NULL)
        return 0;
    struct isti_domain *d;
    int error = isti_domain_home(&d); /* first, as a guest has a home */
    if (error == 0 && isti_domain_by_id(token->bytes) == NULL)
        error = isti_domain_open(place.pid, place.fd, token->bytes, &d);
    return error;
}

void ist_domain_watch(void) {
    uint32_t at = 0;
    for (struct isti_domain *d; (d = isti_domain_next(&at)) != NULL;)
        if (!d->solo)
            isti_housekeeper_watch();
}
