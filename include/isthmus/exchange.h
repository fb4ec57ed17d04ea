/* <isthmus/exchange.h>: an array in a segment, described in plain C: what the capsule of `__isthmus_segment__()` holds.
 *
 * By it an extension takes the memory out of a SharedArray, and offers memory that isthmus.asarray() adopts without a copy, without linking
 * to libisthmus and without the GIL: this header is all it needs.
 *
 *     capsule = obj.__isthmus_segment__()                          # no arguments; any object may have the method
 *     const ist_exchange *x = PyCapsule_GetPointer(capsule, IST_EXCHANGE_CAPSULE);
 *     if (x != NULL && ist_exchange_readable(x)) {
 *         ist_exchange mine = *x;                                  // a copy owns nothing ...
 *         mine.retain(&mine);                                      // ... until it was retained
 *         char *first = (char *)mine.data + mine.offset;           // mine.shape, mine.strides, mine.dtype: see below
 *         mine.release(&mine);                                     // once for each retain, in any thread
 *     }
 *
 * Ownership: the capsule owns one reference, from its making until it is destroyed, and the texts and axes that the structure points to.
 *   Who wants to use the memory after that copies the structure, and what it needs of those, and retains the copy before. A copy that is
 *   passed on needs no retain of its own if its owner ends with it. Taking doesn't use a capsule up: any number may look at it.
 * Threads, interpreters, processes: retain and release, and the memory, from any thread, with or without a GIL, in any interpreter, after
 *   the end of the one that made the capsule. In this process only, and in a child of a fork only if ist_epoch() is `epoch` there (0: not
 *   at all).
 * Read-only: with IST_EXCHANGE_READONLY nobody who got the memory by this structure writes to it. Without it others may write, too: who
 *   does when is the business of those who share it.
 * Errors: retain and release have none.
 */
#ifndef ISTHMUS_EXCHANGE_H
#define ISTHMUS_EXCHANGE_H

#include <isthmus/segment.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IST_EXCHANGE_METHOD "__isthmus_segment__"
#define IST_EXCHANGE_CAPSULE "isthmus_segment"
/* Major number << 16 | minor. Another major number: another structure, not to be read. A higher minor number has more at its end, and
 * `bytes`. */
#define IST_EXCHANGE_VERSION UINT32_C(0x00010000)

#define IST_EXCHANGE_READONLY UINT32_C(1)
#define IST_EXCHANGE_FROZEN UINT32_C(2) /* nobody writes to it, by whatever way, as long as it lives */

typedef struct ist_exchange ist_exchange;
struct ist_exchange {
    uint32_t version;    /* IST_EXCHANGE_VERSION of who made it */
    uint32_t bytes;      /* sizeof(ist_exchange) of who made it */
    uint32_t flags;      /* those above */
    uint32_t epoch;      /* ist_epoch() when it was made */
    ist_segment
        segment; /* of libisthmus, with its generation; slot NULL: memory of somebody else's, whose counts are behind retain and release */
    void *data; /* the segment's first byte */
    size_t size; /* and its size in bytes */
    size_t offset; /* bytes from there to the first element, that with index 0 in every axis; strides may be negative */
    size_t itemsize; /* bytes of an element, at least 1 */
    const char
        *dtype; /* elements in numpy's words, "<f8"; with fields "{12;1:x@0:<f4;1:y@4:<i8}": itemsize, then length:name@offset:dtype */
    const char *format; /* and in PEP 3118's; NULL: there is none. One of the two is there */
    const int64_t *shape; /* lengths of the axes, and */
    const int64_t *strides; /* bytes between neighbours along each. NULL: in C order, side by side */
    int32_t ndim; /* 0 to 64 */
    int32_t reserved; /* 0 */
    void *context; /* whatever retain and release need */
    void (*retain)(const ist_exchange *x); /* adds an owner; the caller, or the capsule, is one already */
    void (*release)(const ist_exchange *x); /* takes one away; the last one ends the memory */
};

/* Whether it is laid out as in this header, or with more at its end. */
static inline bool ist_exchange_readable(const ist_exchange *x) {
    return x->version >> 16 == IST_EXCHANGE_VERSION >> 16 && x->bytes >= sizeof *x;
}

#ifdef __cplusplus
}
#endif
#endif
