/* name.c: names of published segments, and finding them in the domains of other processes.
 *
 * A name is a row of its domain's table; it owns nothing and is stale as soon as its segment is dead. Writers hold the byte lock
 * ISTI_LOCK_NAMES, which the kernel takes from the dead; readers take none and read the row's version before and after (odd: being written,
 * or given up in the middle of it: free for the next writer).
 *
 * Processes that share nothing yet find each other by looking at the descriptors of all processes in /proc that are this user's: a
 * control memfd is known by its name, its seals and its header. So there is nothing to announce and nothing that could be left over.
 */
#include "domain.h"
#include "os.h"
#include "point.h"
#include "sanitizer.h"
#include "segment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_NS UINT64_C(5000000000)

static uint32_t names_high(struct isti_domain *d) { return isti_marked(&d->marks->names, d->names); }

/* ---- rows */

struct found {
    uint32_t row, descriptor, generation, size;
    uint8_t bytes[sizeof((struct isti_name *)0)->bytes];
};

static bool same_text(struct isti_name *row, const char *name, size_t length) {
    /* relaxed: the version is read again behind an acquire fence */
    if (atomic_load_explicit(&row->length, memory_order_relaxed) != length)
        return false;
    for (size_t i = 0; i < length; i++)
        if (atomic_load_explicit(&row->text[i], memory_order_relaxed) != (uint8_t)name[i])
            return false;
    return true;
}

static bool lives(struct isti_domain *d, uint32_t index, uint32_t generation) {
    if (index >= d->descriptors)
        return false;
    uint64_t s = atomic_load_explicit(&d->descriptor_rows[index].state, memory_order_acquire); /* acquire: pairs with publish */
    return isti_s_live(s) && isti_s_generation(s) == generation;
}

/* A row with that name whose segment lives; bytes are copied. */
static bool find(struct isti_domain *d, const char *name, size_t length, struct found *out) {
    for (uint32_t i = 0, high = names_high(d); i < high; i++) {
        struct isti_name *row = &d->name_rows[i];
        uint32_t version = atomic_load_explicit(&row->version, memory_order_acquire); /* acquire: pairs with the writer's last store */
        if (version % 2 != 0 || !same_text(row, name, length))
            continue;
        /* relaxed, all: as in same_text */
        out->row = i;
        out->descriptor = atomic_load_explicit(&row->descriptor, memory_order_relaxed);
        out->generation = atomic_load_explicit(&row->generation, memory_order_relaxed);
        out->size = atomic_load_explicit(&row->size, memory_order_relaxed);
        if (out->size > sizeof out->bytes)
            continue;
        for (uint32_t b = 0; b < out->size; b++)
            out->bytes[b] = atomic_load_explicit(&row->bytes[b], memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire); /* the loads above come before the second look */
        if (atomic_load_explicit(&row->version, memory_order_relaxed) == version && lives(d, out->descriptor, out->generation))
            return true;
    }
    return false;
}

/* Takes the lock that makes writers one. Its holder may have been stopped: so not for ever. */
static int lock(struct isti_domain *d) {
    pthread_mutex_lock(&isti_sweep_mutex);
    if (d->solo)
        return 0;
    uint64_t end = isti_os.now() + PATIENCE_NS;
    int error;
    while ((error = isti_probe_lock(d, ISTI_LOCK_NAMES)) == -EAGAIN) {
        uint64_t now = isti_os.now();
        if (now >= end) {
            error = -ETIMEDOUT;
            break;
        }
        _Atomic(uint32_t) nobody = 0; /* nobody wakes it: a short sleep */
        isti_os.futex_wait(&nobody, 0, now + 1000000);
    }
    if (error != 0)
        pthread_mutex_unlock(&isti_sweep_mutex);
    else
        IST_POINT(NAME_LOCKED);
    return error;
}

static void unlock(struct isti_domain *d) {
    if (!d->solo)
        isti_probe_unlock(d, ISTI_LOCK_NAMES);
    pthread_mutex_unlock(&isti_sweep_mutex);
}

/* The lock is held: a row nobody needs. */
static int free_row(struct isti_domain *d, uint32_t *out) {
    uint32_t high = names_high(d);
    for (uint32_t i = 0; i < high; i++) {
        struct isti_name *row = &d->name_rows[i];
        /* relaxed, all: written under the lock alone */
        if (atomic_load_explicit(&row->version, memory_order_relaxed) % 2 != 0 ||
            atomic_load_explicit(&row->length, memory_order_relaxed) == 0 ||
            !lives(d, atomic_load_explicit(&row->descriptor, memory_order_relaxed),
                   atomic_load_explicit(&row->generation, memory_order_relaxed))) {
            *out = i;
            return 0;
        }
    }
    if (high == d->names)
        return -ENOSPC;
    atomic_store_explicit(&d->marks->names, high + 1, memory_order_release); /* pairs with names_high */
    *out = high;
    return 0;
}

static void write_row(struct isti_name *row, const char *name, size_t length, uint32_t index, uint32_t generation, const uint8_t *bytes,
                      size_t size) {
    uint32_t version = atomic_load_explicit(&row->version, memory_order_relaxed) | 1; /* relaxed: under the lock */
    atomic_store_explicit(&row->version, version, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* whoever reads something written below finds the version odd, or moved on */
    IST_POINT(NAME_ODD);
    atomic_store_explicit(&row->length, (uint32_t)length, memory_order_relaxed);
    atomic_store_explicit(&row->descriptor, index, memory_order_relaxed);
    atomic_store_explicit(&row->generation, generation, memory_order_relaxed);
    atomic_store_explicit(&row->size, (uint32_t)size, memory_order_relaxed);
    for (size_t i = 0; i < length; i++)
        atomic_store_explicit(&row->text[i], (uint8_t)name[i], memory_order_relaxed);
    for (size_t i = 0; i < size; i++)
        atomic_store_explicit(&row->bytes[i], bytes[i], memory_order_relaxed);
    IST_POINT(NAME_WRITTEN);
    atomic_store_explicit(&row->version, version + 1, memory_order_release); /* pairs with find's acquire */
    IST_POINT(NAME_DONE);
}

/* ---- searching: the domains of all processes of this user that this process isn't in */

struct hunt {
    bool (*look)(struct isti_domain *, ist_place, void *);
    void *argument;
    uint8_t seen[ISTI_DOMAINS][16];
    uint32_t seen_count;
    bool done;
};

static bool seen_before(struct hunt *s, const uint8_t id[16]) {
    for (uint32_t i = 0; i < s->seen_count; i++)
        if (memcmp(s->seen[i], id, 16) == 0)
            return true;
    if (s->seen_count < ISTI_DOMAINS)
        memcpy(s->seen[s->seen_count++], id, 16);
    return false;
}

static void search_file(struct hunt *s, uint32_t pid, uint32_t fd) {
    struct isti_domain *d;
    if (isti_domain_peek(pid, fd, NULL, &d) != 0)
        return;
    if (isti_domain_by_id(d->id) == NULL && !seen_before(s, d->id))
        s->done = s->look(d, (ist_place){.pid = pid, .fd = fd}, s->argument);
    isti_domain_close(d);
}

static void search_process(struct hunt *s, const char *pid) {
    char directory[64];
    snprintf(directory, sizeof directory, "/proc/%.10s/fd", pid);
    void *files = isti_os.opendir(directory);
    if (files == NULL)
        return; /* another user's, or gone */
    const char *name;
    while (!s->done && (name = isti_os.readdir(files)) != NULL)
        if (name[0] >= '0' && name[0] <= '9')
            search_file(s, (uint32_t)strtoul(pid, NULL, 10), (uint32_t)strtoul(name, NULL, 10));
    isti_os.closedir(files);
}

static int search(bool (*look)(struct isti_domain *, ist_place, void *), void *argument) {
    void *processes = isti_os.opendir("/proc");
    if (processes == NULL)
        return -ENOSYS;
    struct hunt *s = isti_os.calloc(1, sizeof *s);
    if (s == NULL) {
        isti_os.closedir(processes);
        return -ENOMEM;
    }
    s->look = look;
    s->argument = argument;
    const char *name;
    char own[16];
    snprintf(own, sizeof own, "%d", (int)getpid());
    while (!s->done && (name = isti_os.readdir(processes)) != NULL)
        if (name[0] >= '1' && name[0] <= '9' && strcmp(name, own) != 0)
            search_process(s, name);
    isti_os.free(s);
    isti_os.closedir(processes);
    return 0;
}

/* ---- public */

static int check(const char *name, size_t length) { return name == NULL || length == 0 || length > IST_NAME_MAX ? -EINVAL : 0; }

int ist_name_publish(const char *name, size_t length, ist_segment s, const void *bytes, size_t size) {
    struct found *found = NULL;
    int error = check(name, length);
    if (error == 0 && size > sizeof found->bytes)
        error = -EINVAL;
    if (error == 0)
        error = isti_publish(s);
    if (error != 0)
        return error;
    const uint64_t desc = atomic_load_explicit(&s.slot->desc, memory_order_acquire); /* acquire: pairs with publish */
    struct isti_domain *d = isti_domain_by_number(isti_desc_domain(desc));
    if (d == NULL)
        return -ENOTRECOVERABLE;
    found = isti_os.calloc(1, sizeof *found);
    if (found == NULL)
        return -ENOMEM;
    /* a dead process that was not yet noticed may be the only one that holds what has the name, or the names: so sweep, and once more */
    for (int pass = 0; pass == 0 || (pass == 1 && (error == -EEXIST || error == -ENOSPC) && isti_sweep_domain(d) > 0); pass++) {
        error = lock(d);
        if (error != 0)
            break;
        uint32_t row;
        error = find(d, name, length, found) ? -EEXIST : free_row(d, &row);
        if (error == 0)
            write_row(&d->name_rows[row], name, length, isti_desc_index(desc), isti_desc_generation(desc), bytes, size);
        unlock(d);
    }
    isti_os.free(found);
    return error;
}

static int attach_in(struct isti_domain *d, const char *name, size_t length, ist_segment *out, void *bytes, size_t *size,
                     struct found *found) {
    if (!find(d, name, length, found))
        return -ENOENT;
    /* killed, and nobody noticed yet: the name may be another's by now, in another domain */
    if (!isti_held_by_living(d, found->descriptor) && isti_sweep_domain(d) > 0 && !find(d, name, length, found))
        return -ENOENT;
    if (found->size > *size)
        return -EINVAL;
    int error = isti_descriptor_acquire(d, found->descriptor, found->generation, out);
    if (error == 0 || error == -EXDEV) { /* another process's file can be opened by what the bytes say */
        memcpy(bytes, found->bytes, found->size);
        *size = found->size;
    }
    return error == -ESTALE ? -ENOENT : error;
}

struct elsewhere {
    const char *name;
    size_t length;
    struct found *found;
    uint8_t id[16];
    ist_place place;
    unsigned times;
};

static bool look(struct isti_domain *d, ist_place place, void *argument) {
    struct elsewhere *e = argument;
    if (!find(d, e->name, e->length, e->found) || !isti_held_by_living(d, e->found->descriptor))
        return false;
    memcpy(e->id, d->id, sizeof e->id);
    e->place = place;
    return ++e->times > 1;
}

static int attach_elsewhere(const char *name, size_t length, ist_segment *out, void *bytes, size_t *size, struct found *found) {
    struct elsewhere e = {.name = name, .length = length, .found = found};
    int error = search(look, &e);
    if (error != 0 || e.times != 1)
        return error != 0 ? error : e.times == 0 ? -ENOENT : -ENOTUNIQ;
    struct isti_domain *d;
    error = isti_domain_open(e.place.pid, e.place.fd, e.id, &d);
    return error != 0 ? error : attach_in(d, name, length, out, bytes, size, found);
}

int ist_name_attach(const char *name, size_t length, ist_segment *out, void *bytes, size_t *size) {
    struct isti_domain *d;
    int error = check(name, length);
    if (error == 0)
        error = isti_domain_home(&d);
    struct found *found = error != 0 ? NULL : isti_os.calloc(1, sizeof *found);
    if (error == 0 && found == NULL)
        error = -ENOMEM;
    if (error != 0)
        return error;
    error = attach_in(d, name, length, out, bytes, size, found);
    uint32_t at = 0;
    while (error == -ENOENT && (d = isti_domain_next(&at)) != NULL)
        error = attach_in(d, name, length, out, bytes, size, found);
    if (error == -ENOENT)
        error = attach_elsewhere(name, length, out, bytes, size, found);
    isti_os.free(found);
    return error;
}

int ist_name_remove(const char *name, size_t length) {
    int error = check(name, length);
    if (error != 0)
        return error;
    struct found *found = isti_os.calloc(1, sizeof *found);
    if (found == NULL)
        return -ENOMEM;
    error = -ENOENT;
    uint32_t at = 0;
    for (struct isti_domain *d; error == -ENOENT && (d = isti_domain_next(&at)) != NULL;) {
        int locked = lock(d);
        if (locked != 0) {
            error = locked;
            break;
        }
        if (find(d, name, length, found)) {
            write_row(&d->name_rows[found->row], "", 0, 0, 0, NULL, 0);
            error = 0;
        }
        unlock(d);
    }
    isti_os.free(found);
    return error;
}
