/* sync.h: locks, semaphores, events, barriers and conditions: their memory, a process's handle, and how all of them wait.
 *
 * The memory lies in a segment that all processes of the domain may map, so every word is untrusted, as in control.h.
 *
 *   lock        thread 32 | holder 16 | member + 1, 12 | flags 4. No member: nobody's
 *   semaphore   STARVING 1 | permits 63
 *   event       how often it was set 63 | set 1
 *   barrier     generation 32 | outcomes of the last eight, 1 bit each: 1 is reset | broken 1 | who has arrived 23
 *   condition   has none: a number of its lock's, which its waiters' rows are about (waiter.c)
 */
#ifndef ISTI_SYNC_H
#define ISTI_SYNC_H

#include "listen.h"

#include <isthmus/lock.h>

#define ISTI_SYNC_MAGIC UINT64_C(0x6b636f6c73697301)

#define ISTI_ABANDONED UINT64_C(1) /* whoever had the lock died; alone in its word */
#define ISTI_STARVING UINT64_C(2)  /* somebody has waited too long: only who has slept takes it */

struct isti_sync_memory {
    /* constant once it is published */
    _Alignas(64) uint64_t magic;
    uint32_t type;
    uint32_t unused;
    uint64_t limit;
    /* one line for all that is touched when nobody waits */
    _Alignas(64) _Atomic(uint64_t) word;
    _Atomic(uint32_t) event;    /* eventcount: who waits */
    _Atomic(uint32_t) listened; /* 1: somebody has listened, ever: look at `armed` */
    _Atomic(uint32_t) count;    /* RLock: how often its owner took it; nobody else reads it */
    _Atomic(uint64_t) conditions; /* lock: how many it has had; their numbers */
    _Alignas(64) _Atomic(uint64_t) armed[ISTI_WORDS]; /* bit m: member m listens by a descriptor (listen.c) */
};
static_assert(sizeof(struct isti_sync_memory) == 256, "part of the layout");

/* A barrier's: how many threads of each process are inside. What a process wrote there tells its sweep whether it was. */
struct isti_barrier_memory {
    struct isti_sync_memory sync;
    _Atomic(uint32_t) inside[ISTI_MEMBERS];
};

struct ist_sync {
    ist_segment segment;
    struct isti_domain *d;
    struct isti_sync_memory *memory;
    ist_sync_type type;
    uint64_t limit;  /* copied and bounded */
    uint32_t epoch;  /* ist_epoch() for which it is good */
    uint32_t member; /* whose handle it is, or was before a fork */
    uint32_t index, generation;
    _Atomic(uint32_t) spin, sleeps; /* how often a look is worth it before sleeping; relaxed, guesses */
    struct isti_listener listener;
};

static inline bool isti_sync_usable(const struct ist_sync *s) { return ist_process_epoch() != 0 && s->epoch == ist_epoch(); }

/* 0, or why it can't be used as `type`. */
static inline int isti_sync_check(const struct ist_sync *s, ist_sync_type type) {
    return s == NULL || s->type != type ? -EINVAL : isti_sync_usable(s) ? 0 : -ENOTRECOVERABLE;
}

/* Who tries: somebody who doesn't wait at all; has only just come; has slept; has waited for more than ISTI_STARVED_NS. */
typedef enum isti_seniority { ISTI_PASSING, ISTI_FRESH, ISTI_WAITED, ISTI_STARVED } isti_seniority;
#define ISTI_STARVED_NS UINT64_C(1000000)

/* One try, and at the same time the second look of who is about to sleep: its load of the word is seq_cst. 0, an error, or -EAGAIN:
 * wait. */
typedef int (*isti_try_fn)(struct ist_sync *s, void *ctx, isti_seniority seniority);

/* Tries until it succeeds, fails, or time is up. */
int isti_sync_wait(struct ist_sync *s, isti_try_fn attempt, void *ctx, ist_waiting *w);

/* Behind a seq_cst exchange of the word: one of those that wait, or all, are woken, and who listens is told. */
void isti_sync_wake_one(struct ist_sync *s);
void isti_sync_wake_all(struct ist_sync *s);

/* Where row `index` is mapped, if it is one of ours; NULL. */
struct isti_sync_memory *isti_sync_memory_of(void *data, size_t size);

/* ---- lock.c */
void isti_lock_read_info(const struct ist_sync *s, uint64_t word, ist_sync_info *out);
int isti_lock_try(struct ist_sync *s, void *ctx, isti_seniority seniority);
/* The owner of s may be dead: then it is struck out. */
void isti_lock_suspect(struct ist_sync *s);
/* The dead m's; and wakes all. */
void isti_lock_sweep(struct isti_domain *d, uint32_t index, struct isti_sync_memory *memory, uint32_t m);

/* ---- barrier.c */
void isti_barrier_read_info(const struct ist_sync *s, uint64_t word, ist_sync_info *out);
void isti_barrier_suspect(struct ist_sync *s);
/* The dead m's; who waits is woken by whoever calls this. */
void isti_barrier_sweep(struct isti_sync_memory *memory, size_t size, uint32_t m);

#endif
