/* <isthmus/lock.h>: locks, semaphores, events, barriers and conditions between threads, interpreters and processes. May change until 1.0.
 *
 * Each is a segment of a few words; everybody who holds the segment, in whatever process of its domain, uses it. What an owner that is
 * killed leaves is noticed: its lock becomes *abandoned*, which is told to the next one that takes it, once.
 *
 * Words: *holder*: a part of a process that takes locks and may end before it (the binding: an interpreter). 0 is the process itself.
 *
 * Ownership: an ist_sync is a handle that owns one reference of the segment; ist_sync_segment gives that segment, to be retained, put into
 *   a message or made a token of. A process that lets go of its last reference of a lock which it has taken has abandoned it: nobody there
 *   could give it back.
 * Threads, interpreters, processes: any function from any thread, with or without a GIL; many threads may use a handle at once, and it must
 *   not be closed meanwhile. A process that is stopped (SIGSTOP) keeps what it has.
 *   fork: what the parent's threads have taken stays the parent's, also what the forking thread has; the child can't unlock it, and waits
 *   for it.
 * Blocking: functions with an ist_waiting, as it says. Nobody looks in a loop: waiting is a futex.
 * Fairness: whoever has waited for a millisecond goes before those who come later; source: the starvation mode of Go's sync.Mutex
 *   (https://go.dev/src/internal/sync/mutex.go), by a bit that only lets those take the lock who have slept, rather than by a hand-over to
 *   one of them, who may be dead.
 * Ordering: unlock, post, set and the last arrival release; what takes, or returns from waiting for, it acquires.
 * Errors, where not said: -EINVAL (a handle of another type), -ENOTRECOVERABLE (a child that couldn't be made an owner, see segment.h),
 *   -EBADMSG (a process wrote garbage).
 */
#ifndef ISTHMUS_LOCK_H
#define ISTHMUS_LOCK_H

#include <isthmus/atomic.h>
#include <isthmus/queue.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ist_sync ist_sync;

typedef enum ist_sync_type {
    IST_LOCK = 1,      /* anybody may unlock it */
    IST_RLOCK = 2,     /* its thread alone, as often as it took it */
    IST_SEMAPHORE = 3,
    IST_EVENT = 4,
    IST_BARRIER = 5
} ist_sync_type;

#define IST_SEMAPHORE_MOST INT32_MAX
#define IST_BARRIER_MOST 1048576u
#define IST_HOLDERS 65536u /* of a process at once */

/* How to wait, and what the library remembers of it: after -EINTR the same one is given again, so that a waiter keeps its seniority. In the
 * caller's memory, one for each wait; NULL only where that is said. */
typedef struct ist_waiting {
    uint64_t deadline; /* nanoseconds of the monotonic clock; 0: doesn't wait, UINT64_MAX: no end */
    uint64_t patience; /* nanoseconds after which -EINTR is returned in any case; UINT64_MAX: only for a signal handler */
    ist_waiter *waiter; /* by which it can be called off (queue.h); NULL */
    uint64_t since; /* the library's: 0 at first */
    uint64_t times; /* the library's: 0 at first */
    bool slept; /* the library's: false at first */
} ist_waiting;

/* ---- handles */

/* Makes one. value: of a semaphore the permits at first, of a barrier the number of parties; limit: of a semaphore the most permits, 0:
 * IST_SEMAPHORE_MOST. Errors: -EINVAL (values out of range), -ENOMEM, those of ist_segment_token. */
IST_MUST_CHECK IST_API int ist_sync_create(ist_sync_type type, uint64_t value, uint64_t limit, ist_sync **out);

/* The one that a token stands for. Errors: those of ist_segment_acquire; -EINVAL (it is none). */
IST_MUST_CHECK IST_API int ist_sync_attach(const ist_token *token, ist_sync **out);

/* A handle for a segment of kind IST_KIND_LOCK. Ownership: takes the caller's reference; on failure nothing is taken. Errors: -EINVAL,
 * -ENOMEM. */
IST_MUST_CHECK IST_API int ist_sync_open(ist_segment s, ist_sync **out);

/* Takes the handle, and gives up its reference. NULL does nothing. */
IST_API void ist_sync_close(ist_sync *s);

IST_API ist_segment ist_sync_segment(const ist_sync *s); /* view: owns nothing */
IST_API ist_sync_type ist_sync_type_of(const ist_sync *s); /* what it was made as */

/* A descriptor, made at the first call, that poll(2) finds readable when a lock, semaphore or event may be taken, or is set: never missed,
 * sometimes in vain. Ownership: the handle's. It needs the housekeeper for what other processes do. Errors: -EMFILE, -ENFILE, -ENOMEM,
 * -EINVAL (a barrier). */
IST_MUST_CHECK IST_API int ist_sync_fileno(ist_sync *s, int *out);
/* Makes it unreadable; look once more afterwards. And readable again, if there is something: for another one that waits by it. */
IST_API void ist_sync_clear(ist_sync *s);
IST_API void ist_sync_tell(ist_sync *s);

typedef struct ist_sync_info {
    ist_sync_type type;
    uint64_t value; /* lock: 1 while somebody has it; semaphore: permits; event: 1: set; barrier: who has arrived */
    uint64_t limit; /* semaphore: see create; barrier: parties */
    bool mine; /* RLock: the calling thread has it. Lock: this process has it */
    bool broken; /* barrier. Lock: its owner died, and nobody has been told yet */
    uint32_t member; /* lock: the process that has it, by its place in the domain */
} ist_sync_info;

/* A snapshot; nothing may be decided by it but what is the calling thread's own. */
IST_API void ist_sync_read_info(ist_sync *s, ist_sync_info *out);

/* ---- holders */

/* A new holder. -ENOSPC: this process has 65,535. */
IST_MUST_CHECK IST_API int ist_holder_begin(uint32_t *out);
/* It ends: locks that it has are abandoned. Nothing may be taken for it any more. 0 does nothing. */
IST_API void ist_holder_end(uint32_t holder);

/* ---- locks: IST_LOCK, IST_RLOCK */

/* Takes it. w NULL: if it is free and nobody has waited long; deadline 0: if it is free.
 * Errors: -EAGAIN, -ETIMEDOUT, -EINTR, -ECANCELED, -EOWNERDEAD: whoever had it died, or its holder ended, or its thread (IST_RLOCK); what
 * it protects may be half done. The caller doesn't have it; it is free again, and nobody else is told. -EOVERFLOW (taken 2^32 - 1 times),
 * -ENOMEM. */
IST_MUST_CHECK IST_API int ist_lock_lock(ist_sync *s, uint32_t holder, ist_waiting *w);

/* Gives it back. Errors: -EPERM (nobody has it; IST_RLOCK: not this thread), -EACCES (the process from which this one was forked has
 * it). */
IST_MUST_CHECK IST_API int ist_lock_unlock(ist_sync *s);

/* IST_RLOCK, for a condition: gives it back however often it was taken, which is written to *count; and takes it so often. */
IST_MUST_CHECK IST_API int ist_lock_unlock_all(ist_sync *s, uint32_t *count);
IST_MUST_CHECK IST_API int ist_lock_lock_count(ist_sync *s, uint32_t holder, uint32_t count, ist_waiting *w);

/* ---- semaphores: permits aren't anybody's, so what a killed process had taken is gone until somebody posts it */

IST_MUST_CHECK IST_API int ist_semaphore_take(ist_sync *s, ist_waiting *w); /* errors, and w: as ist_lock_lock, but for the last three */
IST_MUST_CHECK IST_API int ist_semaphore_post(ist_sync *s, uint64_t n); /* -ERANGE: more than its limit; -EINVAL: n is 0 */

/* ---- events */

IST_MUST_CHECK IST_API int ist_event_set(ist_sync *s); /* it is set, and whoever waits is woken */
IST_MUST_CHECK IST_API int ist_event_clear(ist_sync *s); /* whoever comes from now on waits */
/* 0: it is set, or was meanwhile. Errors: -EAGAIN, -ETIMEDOUT, -EINTR, -ECANCELED. */
IST_MUST_CHECK IST_API int ist_event_wait(ist_sync *s, ist_waiting *w);

/* ---- barriers: a process that is killed between arriving and leaving breaks it, within seconds */

typedef struct ist_arrival {
    uint32_t generation;
    uint32_t index; /* how many came before */
    bool last; /* the caller has to ist_barrier_release, or abort */
} ist_arrival;

/* Comes to the barrier. While those before are still leaving it waits. Errors: -EPIPE (broken), -EAGAIN, -ETIMEDOUT, -EINTR, -ECANCELED:
 * not arrived. */
IST_MUST_CHECK IST_API int ist_barrier_arrive(ist_sync *s, ist_waiting *w, ist_arrival *out);
/* Waits for the others: all are there: 0. -EINTR: call again, or withdraw. Any other error: -EPIPE (broken, or reset), -ETIMEDOUT,
 * -ECANCELED (which break it): left. */
IST_MUST_CHECK IST_API int ist_barrier_wait(ist_sync *s, const ist_arrival *a, ist_waiting *w);
/* Leaves without waiting. It isn't broken by that, unless the caller was the last. */
IST_API void ist_barrier_withdraw(ist_sync *s, const ist_arrival *a);
/* By the last: lets all go on. -EPIPE: it was broken or reset meanwhile. In either case the caller has left. */
IST_MUST_CHECK IST_API int ist_barrier_release(ist_sync *s, const ist_arrival *a);
IST_MUST_CHECK IST_API int ist_barrier_abort(ist_sync *s); /* breaks it */
IST_MUST_CHECK IST_API int ist_barrier_reset(ist_sync *s); /* as new; whoever waits gets -EPIPE */

/* ---- conditions: numbers of a lock, which lives as long as it does. begin, unlock, ist_wait_on (atomic.h) and lock; notify while having
 * the lock. Then no notification is lost, and whoever has waited longest gets it; one that a killed or interrupted waiter hasn't heard goes
 * on to the next. */

/* A number that no other condition of that lock has. */
IST_MUST_CHECK IST_API int ist_condition_create(ist_sync *lock, uint64_t *out);
/* Begins a wait, which ends by ist_wait_on or ist_wait_cancel. Errors: -ENOSPC and others of ist_wait_begin. */
IST_MUST_CHECK IST_API int ist_condition_begin(ist_sync *lock, uint64_t condition, ist_wait *out);
/* Wakes up to `count` of those that wait, the longest waiting first, and writes how many to *woken. Never blocks. */
IST_MUST_CHECK IST_API int ist_condition_notify(ist_sync *lock, uint64_t condition, uint64_t count, uint64_t *woken);

#ifdef __cplusplus
}
#endif
#endif
