/* <isthmus/lease.h>: references held for bytes that may or may not be read: pickles.
 *
 * A pickle of an array describes its segment by a token, and a token owns nothing. So whoever writes one leases the segment: one counted
 * reference per segment, shared by all the pickles of it that are under way. Every pickle gets a number of its own; loading it strikes
 * the number; the lease ends, and its reference with it, when every number was struck or has passed its own deadline. So a pickle that
 * is never read costs memory for a bounded time, and one that is read costs none.
 *
 * What only leases hold is bounded as well: at most a quarter of the heap's size, the oldest lease goes first.
 *
 * Threads, interpreters: any; the table belongs to the process, the end of an interpreter doesn't end its leases.
 * Processes: a number is good in every process of the segment's domain, also when the one that took the lease has died: then the segment
 * stays until the number is loaded or its time is up. A forked child begins with no leases; loading its parent's numbers works.
 */
#ifndef ISTHMUS_LEASE_H
#define ISTHMUS_LEASE_H

#include <isthmus/segment.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Leases a segment the caller owns a reference of, and writes a new number (never 0).
 * Errors: those of ist_segment_token; -ENOMEM, -ENOSPC (as many pickles are under way in the domain as can be). */
IST_MUST_CHECK IST_API int ist_lease_take(ist_segment s, uint64_t *number);

/* The same for a number that stands in a message: it lasts as long as the message does, whose bytes lie in the segment `carrier`, in
 * whatever process. It is struck when that has no holder and isn't in a queue any more: at once if this process dropped it with a queue, else
 * within a second. The bound of a quarter isn't for such. The caller owns a reference of both. Errors: as above, for either. */
IST_MUST_CHECK IST_API int ist_lease_take_carried(ist_segment s, ist_segment carrier, uint64_t *number);

/* Strikes `number` and adds an owner, as ist_segment_acquire does: works for a number already struck as long as somebody else holds the
 * segment. Ownership: *out is one reference. Errors: those of ist_segment_acquire. */
IST_MUST_CHECK IST_API int ist_lease_load(const ist_token *token, uint64_t number, ist_segment *out);

/* Strikes a number without loading: for a pickle that is known to be thrown away. An unknown number does nothing. */
IST_API void ist_lease_strike(const ist_token *token, uint64_t number);

/* Drops the numbers whose deadline has passed (and with the last number of a segment its reference); returns how many.
 * The housekeeper calls it by itself. */
IST_API size_t ist_lease_expire(void);

/* Numbers whose deadline passed unloaded, or that the bound took, since the process began; one load. */
IST_API uint64_t ist_lease_expired(void);

/* How long numbers taken from now on last, nanoseconds (1 ms … 100 years, clamped). Returns the duration before. */
IST_API uint64_t ist_lease_set_duration(uint64_t ns);

#ifdef __cplusplus
}
#endif
#endif
