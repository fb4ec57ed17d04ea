/* <isthmus/atomic.h>: sleeping until an element of a segment is notified: ECMAScript's Atomics.wait and notify. May change until 1.0.
 *
 * Between threads, interpreters and processes; the accesses to the element itself are the caller's own, by <stdatomic.h>. An element is
 * known by its segment and its offset, so different mappings and views of it are the same.
 *
 *   a store of the element, then a notification of all   no waiter sleeps on that looked for the old value
 *   one notification                                     wakes the one that has waited longest; nobody wakes without one
 *
 * Ownership: whoever waits, or notifies, owns a reference of the segment meanwhile; a wait holds none.
 * A waiter that is killed before it has heard of its notification passes it on when it is swept (a few seconds at most).
 *
 * Threads, interpreters: any, without a GIL. After fork the waits of the parent's threads are the parent's.
 * Source of the interface: ECMA-262, "The Atomics Object".
 */
#ifndef ISTHMUS_ATOMIC_H
#define ISTHMUS_ATOMIC_H

#include <isthmus/segment.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One wait; in memory of its thread, to be passed by address only, and not to be moved while it lasts. */
typedef struct ist_wait {
    uint64_t word;             /* what its row holds while it sleeps */
    uint64_t offset;           /* of the element, in bytes */
    uint32_t domain, row;      /* where it is registered */
    uint32_t descriptor, generation;
    int fd;                    /* ist_wait_begin_async: its descriptor; else -1 */
    bool told;                 /* it is readable because of this wait */
    struct ist_wait *next, **link; /* in the list of this process's; link NULL: in none */
} ist_wait;

/* Registers the calling thread as waiting on the `size` (4 or 8) bytes at `offset`, if they are `expected` (native byte order). `element`:
 * where they are mapped, if not at ist_segment_data + offset, as in memory that is read-only here; NULL: there.
 * Ownership: the caller owns a reference of the segment until the wait has ended. On success it ends by ist_wait_on or ist_wait_cancel.
 * Errors: -EAGAIN (the element is another), -EINVAL (size, an address that isn't a multiple of it, or outside), -ENOSPC (as many wait in
 * this domain as can), those of ist_segment_token. */
IST_MUST_CHECK IST_API int ist_wait_begin(ist_segment s, size_t offset, const void *element, size_t size, uint64_t expected, ist_wait *out);

/* The same without a thread that sleeps: when the wait is notified, 8 bytes are written to `fd`, an eventfd, once. Then, or at any time,
 * ist_wait_on says how the wait stands. Several waits may have one descriptor, and anybody may wait for it; it stays open until they have
 * ended. Its place among the others that wait is as if a thread slept. From another process the notification comes by way of the
 * housekeeper, so without one (ISTHMUS_HOUSEKEEPER=0) whenever that work is done instead; within two seconds if the notifier is killed
 * before it has rung. Errors: as ist_wait_begin; -EBADF (no descriptor). */
IST_MUST_CHECK IST_API int ist_wait_begin_async(ist_segment s, size_t offset, const void *element, size_t size, uint64_t expected, int fd,
                                                ist_wait *out);

/* Sleeps until the wait is notified, which ends it: 0; or until `deadline` (nanoseconds of the monotonic clock; UINT64_MAX: none), which
 * ends it as well: -ETIMEDOUT. -EINTR: `patience` nanoseconds have passed, or something else woke the thread, a signal for instance. Then
 * the wait goes on, in its place among the others: call again, or cancel. Blocking, but for one of ist_wait_begin_async, which never
 * sleeps. Other errors: -ENOTRECOVERABLE (a forked child's copy of its parent's wait). */
IST_MUST_CHECK IST_API int ist_wait_on(ist_wait *w, uint64_t deadline, uint64_t patience);

/* Ends a wait. A notification that had come already goes to the next one that waits. */
IST_API void ist_wait_cancel(ist_wait *w);

/* Wakes up to `count` of those that wait on the element at `offset`, the longest waiting first, and writes how many to *woken.
 * The caller owns a reference. Never blocks. Errors: -EINVAL (outside), -ENOTRECOVERABLE. */
IST_MUST_CHECK IST_API int ist_notify(ist_segment s, size_t offset, uint64_t count, uint64_t *woken);

#ifdef __cplusplus
}
#endif
#endif
