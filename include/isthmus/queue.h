/* <isthmus/queue.h>: queues of messages between threads, interpreters and processes. May change until 1.0.
 *
 * A queue is a segment whose memory is a ring of messages. Everybody who holds the segment, in whatever process of its domain, puts and
 * gets; when the last holder lets go, what is still in it goes too. A message is a few bytes and references to segments, which stay as long
 * as the message is under way, whatever becomes of its sender, and belong to the receiver afterwards.
 *
 * Order: messages of one sender arrive in the order in which it put them; each is received once.
 * Ordering (memory): what was written before a put is seen by whoever gets that message.
 *
 * Killed processes: a sender that is killed in the middle of a put has put its message or hasn't; a receiver that is killed in the middle
 * of a get has got it or hasn't; nobody else waits for them longer than it takes to notice. A sender that is *stopped* (SIGSTOP) within a
 * put holds up the receivers of that queue until it goes on, as it may still write its message.
 *
 * Ownership: an ist_queue is a handle that owns one reference of the segment. ist_queue_segment gives that segment, to be retained, put
 *   into a message (also of the queue itself: such a reference isn't counted), or made a token of. Longer cycles of queues in queues stay
 *   for ever unless one of them is shut down immediately.
 * Threads, interpreters, processes: any function from any thread, with or without a GIL; many threads may use a handle at once, and it must
 *   not be released meanwhile. After fork the child uses the handle it inherited.
 * Blocking: put, get and join up to their deadline, in nanoseconds of the monotonic clock: 0 doesn't wait, UINT64_MAX waits for ever.
 *   They return -EINTR when a signal handler ran, and may be called again with the same deadline.
 * Errors, where not said: -ENOTRECOVERABLE (a child that couldn't be made an owner, see segment.h), -EBADMSG (a process wrote garbage).
 */
#ifndef ISTHMUS_QUEUE_H
#define ISTHMUS_QUEUE_H

#include <isthmus/segment.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ist_queue ist_queue;

#define IST_MESSAGE_BYTES 48 /* of a message without segments; 40 of one with */
#define IST_MESSAGE_FEW 6

/* A message. To put one: set tag, size, bytes, count and segments (few, or many if count > IST_MESSAGE_FEW), of which the caller owns a
 * reference each; nothing is taken. Got: the segments are the caller's references, `many` is the library's memory;
 * ist_queue_message_clear. */
typedef struct ist_queue_message {
    uint8_t tag;    /* what the bytes are: the binding's */
    uint8_t size;   /* of bytes; at most 48, and 40 if there are segments */
    uint32_t count; /* of segments; at most 2^24 */
    uint8_t bytes[IST_MESSAGE_BYTES];
    ist_segment few[IST_MESSAGE_FEW];
    ist_segment *many; /* NULL: they are in `few` */
} ist_queue_message;

/* Releases the segments that are still there (set those you keep to {NULL}) and the library's memory; the message is empty then. */
IST_API void ist_queue_message_clear(ist_queue_message *message);

/* A word by which another thread can call one off who waits. All zero at first. A thread uses it for one call at a time. */
typedef struct ist_waiter {
    uint64_t words[2];
} ist_waiter;

/* Whoever waits, or is going to wait, with `waiter` returns -ECANCELED; until ist_waiter_reset. Threads: any, at any time. */
IST_API void ist_waiter_stop(ist_waiter *waiter);
IST_API void ist_waiter_reset(ist_waiter *waiter);

/* Makes a queue that never has more than `maxsize` messages. 0, or more than a ring can have: as many as a ring can have, which is up to
 * 16,777,216, less where many queues or a small heap leave less room; see ist_queue_info. Costs a page; pages of messages that were
 * received go back to the system. Errors: -ENOMEM, -ENOSPC (4,096 queues in the domain), those of ist_segment_token. */
IST_MUST_CHECK IST_API int ist_queue_create(uint64_t maxsize, ist_queue **out);

/* The queue that a token stands for. Errors: those of ist_segment_acquire; -EINVAL (it is no queue). */
IST_MUST_CHECK IST_API int ist_queue_attach(const ist_token *token, ist_queue **out);

/* A handle for a segment of kind IST_KIND_QUEUE. Ownership: takes the caller's reference; on failure nothing is taken. Errors: -EINVAL,
 * -ENOMEM. */
IST_MUST_CHECK IST_API int ist_queue_open(ist_segment s, ist_queue **out);

/* Takes the handle, and gives up its reference. NULL does nothing. */
IST_API void ist_queue_release(ist_queue *q);

/* View: owns nothing. */
IST_API ist_segment ist_queue_segment(const ist_queue *q);

/* Puts a message at the end. waiter: may be NULL. Nothing is put on failure.
 * Errors: -EINVAL (no segment, or too many), -EAGAIN, -ETIMEDOUT (full; with deadline 0, until the deadline), -ESHUTDOWN, -ENOSPC (as many
 * messages as a ring can have, or a table of the domain is full), -EMSGSIZE (too many bytes), -EXDEV (a segment of another domain, wrapped
 * memory or a mapped file: for such see ist_segment_file), -EINTR, -ECANCELED, -ENOMEM, those of ist_segment_token. */
IST_MUST_CHECK IST_API int ist_queue_put(ist_queue *q, const ist_queue_message *message, uint64_t deadline, ist_waiter *waiter);

/* Waits until there is room, or the queue is shut: 0, and a put may succeed, or says -ESHUTDOWN; another sender may be faster. For who
 * has something to do between the wait and the put. Errors: -EAGAIN, -ETIMEDOUT, -EINTR, -ECANCELED. */
IST_MUST_CHECK IST_API int ist_queue_await_room(ist_queue *q, uint64_t deadline, ist_waiter *waiter);

/* Takes the first message. A message that is just being written is waited for, up to 20 ms even with deadline 0.
 * On failure *out may have been written to; it owns nothing, and isn't to be cleared.
 * Errors: -EAGAIN, -ETIMEDOUT (empty), -ESHUTDOWN (empty for good), -EINTR, -ECANCELED, -ENOMEM (the message stays), -EBADMSG (the message
 * made no sense, and is gone). */
IST_MUST_CHECK IST_API int ist_queue_get(ist_queue *q, ist_queue_message *out, uint64_t deadline, ist_waiter *waiter);

/* What a descriptor tells: when these, with deadline 0, may succeed (or say -ESHUTDOWN). */
typedef enum ist_queue_side {
    IST_QUEUE_MESSAGES, /* ist_queue_get */
    IST_QUEUE_ROOM,     /* ist_queue_await_room */
    IST_QUEUE_DONE      /* ist_queue_join */
} ist_queue_side;

/* A descriptor, made at the first call, that poll(2) finds readable then: never missed, sometimes in vain. The call that finds nothing
 * makes it unreadable; don't read it. For what other processes do it needs this process's housekeeper. Ownership: the handle's, closed with
 * it; a forked child's handle has none until it asks. Errors: -EMFILE, -ENFILE, -ENOMEM, -EINVAL. */
IST_MUST_CHECK IST_API int ist_queue_fileno_of(ist_queue *q, ist_queue_side side, int *out);
IST_MUST_CHECK IST_API int ist_queue_fileno(ist_queue *q, int *out); /* of IST_QUEUE_MESSAGES */

/* As queue.Queue: every message counts as a task; one that was got is done when this was called for it. -ERANGE: called too often. */
IST_MUST_CHECK IST_API int ist_queue_task_done(ist_queue *q);

/* Waits until all tasks are done. A message whose sender died before it was put is none; one whose receiver died before task_done stays
 * undone. Errors: -EAGAIN, -ETIMEDOUT, -EINTR, -ECANCELED. */
IST_MUST_CHECK IST_API int ist_queue_join(ist_queue *q, uint64_t deadline, ist_waiter *waiter);

/* From now on nothing is put; get takes what is there, then returns -ESHUTDOWN. `immediate`: drops what is there, each as a task done. */
IST_MUST_CHECK IST_API int ist_queue_shutdown(ist_queue *q, bool immediate);

typedef struct ist_queue_info {
    uint64_t size;       /* messages, as of a moment; one that is being written counts */
    uint64_t maxsize;    /* as asked for; 0: without a limit of its own */
    uint64_t capacity;   /* that can be in it at once */
    uint64_t unfinished; /* tasks that aren't done */
    bool shutdown;
} ist_queue_info;

/* A snapshot; nothing may be decided by it. */
IST_API void ist_queue_read_info(ist_queue *q, ist_queue_info *out);

#ifdef __cplusplus
}
#endif
#endif
