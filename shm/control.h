/* control.h: the layout of a domain's control memfd: what its processes tell each other.
 *
 * Everything here is fixed-width, at offsets from the file's start, and untrusted: a process copies a word once, bounds it, then uses it.
 * Nobody is owed sanity by a peer that writes garbage, only that its own reads stay inside its own mappings.
 *
 *   page 0    header: constant once the file is sealed; its values are copied when a process joins and never read again
 *   page 1    marks: one past the highest used row of each table; a row is used only after its mark was raised
 *   tables    members, windows, descriptors, hints, tickets, names, queues, waiters; sparse, all zero at first
 *
 * Byte locks lie beyond the end of the file, where locks may: at ISTI_LOCK_MEMBER + m, ISTI_LOCK_WINDOW + w, ISTI_LOCK_NAMES.
 */
#ifndef ISTI_CONTROL_H
#define ISTI_CONTROL_H

#include <assert.h>
#include <isthmus/segment_inline.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ISTI_CONTROL_MAGIC UINT64_C(0x6d7568747369a731)
#define ISTI_CONTROL_VERSION 2u

#define ISTI_LOCK_MEMBER (INT64_C(1) << 40)
#define ISTI_LOCK_WINDOW (INT64_C(1) << 41)
#define ISTI_LOCK_NAMES (INT64_C(1) << 42)

#define ISTI_MEMBERS 1024u           /* processes of a domain, at most; a bit each in a descriptor */
#define ISTI_DESCRIPTORS (1u << 22)  /* published segments, at most */
#define ISTI_DESCRIPTORS_LEAST 4096u /* a power of two, as all numbers of descriptors are: the hints' two levels divide it */
#define ISTI_WINDOWS 1024u
#define ISTI_TICKETS (1u << 20)
#define ISTI_NAMES 4096u
#define ISTI_WAITER_BUCKETS 256u /* a power of two */
#define ISTI_WAITERS 63u         /* threads that wait, to a bucket */
#define ISTI_QUEUES 4096u
#define ISTI_NAME_LENGTH 200u /* bytes of a name, at most */
#define ISTI_WORDS (ISTI_MEMBERS / 64)

struct isti_control_header {
    uint64_t magic;
    uint32_t version;
    uint32_t members, descriptors, windows, tickets, names, queues, waiter_buckets; /* rows of each table */
    uint8_t id[16];       /* the domain's: 128 random bits */
    uint64_t window_size; /* bytes; window w of the data memfd is [w * size, (w + 1) * size) */
    uint64_t data_device, data_inode;                       /* the data memfd's, so that nobody takes another file for it */
};

struct isti_control_marks {
    _Alignas(64) _Atomic(uint32_t) members;
    _Alignas(64) _Atomic(uint32_t) descriptors;
    _Alignas(64) _Atomic(uint32_t) windows;
    _Alignas(64) _Atomic(uint32_t) tickets;
    _Alignas(64) _Atomic(uint32_t) names;
    _Alignas(64) _Atomic(uint32_t) queues;
    _Alignas(64) _Atomic(uint64_t) waits;                                /* tickets drawn by waiters: no mark, a count */
    _Alignas(64) _Atomic(uint64_t) waiter_buckets[ISTI_WAITER_BUCKETS / 64]; /* bit b % 64 of word b / 64: bucket b has been used */
};

/* A process's place. Written by its process, but for `dirty`, which whoever holds the byte lock writes, and the two words others move. */
struct isti_member {
    _Atomic(uint32_t) dirty; /* 1 from join until swept: there may be something to strike out. Liveness is the byte lock alone */
    _Atomic(uint32_t) pid;   /* this and the next three: where to look for its descriptors, and for display; nothing is decided by them */
    _Atomic(uint32_t) control_fd, data_fd;
    _Atomic(uint64_t) incarnation; /* how many processes had the place */
    _Alignas(64) _Atomic(uint32_t) doorbell; /* futex of its housekeeper; moved by others */
    _Atomic(uint32_t) struck;                /* how often another process struck out a ticket of its */
};
static_assert(sizeof(struct isti_member) == 128, "a member is two cache lines: its own, and the one that others write");

/* A window's owner holds its byte lock. used: 0 free, 1 somebody's, 2 orphaned and looked through once. */
struct isti_window_row {
    _Alignas(64) _Atomic(uint32_t) used;
    _Atomic(uint32_t) hinted; /* there may be a hint for it */
    _Atomic(uint32_t) attended; /* its owner takes hints by itself, within seconds: a thread of it wakes up for that */
};
static_assert(sizeof(struct isti_window_row) == 64, "a window's row is one cache line");

/* S: generation 28 | phase 4 | x 32 */
typedef enum isti_phase {
    ISTI_FREE = 0,
    ISTI_RESV = 1,   /* x = member that is filling it */
    ISTI_LIVE = 2,   /* x = sequence number, moved on by every new holder */
    ISTI_FROZEN = 3, /* live, and read-only for good; x as in LIVE */
    ISTI_DEAD = 4,   /* nobody holds it; its memory waits for the window's owner */
    ISTI_PUNCH = 5,  /* x = member that is giving its pages back */
    ISTI_DRAIN = 6,  /* a queue that nobody holds; x = member that is letting go of what its messages refer to */
    ISTI_FLIGHTS = 7 /* no segment: more flight marks of the one that `offset` names (flight.c) */
} isti_phase;

/* The last one: the row is retired. Fewer in the build that tests the end of generations */
#define ISTI_DESCRIPTOR_GENERATIONS ((1u << (IST_GENERATION_BITS < 28 ? IST_GENERATION_BITS : 28)) - 1)

/* flags */
#define ISTI_PUBLISHED_LOCAL 1u    /* only who made it, and forked children, hold it: wrapped memory, mapped files */
#define ISTI_PUBLISHED_GROWABLE 2u /* `current` is its length, of the `length` bytes that are reserved */
#define ISTI_PUBLISHED_QUEUE 4u    /* its memory is a ring of messages (ring.h) */
#define ISTI_PUBLISHED_LOCK 8u     /* its memory is a lock's, or the like (sync.h) */

/* 256 bytes: a line of state, a line for the marks of messages under way (the Queue's), two lines of holders. */
struct isti_descriptor {
    _Alignas(64) _Atomic(uint64_t) state;
    _Atomic(uint64_t) offset, length; /* bytes, in the data memfd; written in RESV, constant while LIVE */
    _Atomic(uint32_t) window, flags; /* window: of a local one, the member that may hold it */
    _Atomic(uint64_t) creator;
    _Atomic(uint64_t) current; /* bytes of a growable segment; grows while LIVE. Bounded by `length` whenever it is read */
    _Atomic(uint64_t) queue; /* of a queue: its row in the table of queues */
    uint64_t unused;
    /* A mark is queue 16 | position + 1, 48: until the queue's head has passed that position a message there may refer to the segment.
     * The last one: generation 32 | descriptor + 1, 32 of an ISTI_FLIGHTS row with seven more; 0: none */
    _Atomic(uint64_t) flights[8];
    _Atomic(uint64_t) holders[ISTI_WORDS]; /* bit m % 64 of word m / 64: process m holds it */
};
static_assert(sizeof(struct isti_descriptor) == 256 && offsetof(struct isti_descriptor, holders) == 128, "four cache lines");
static_assert(offsetof(struct isti_descriptor, current) == 40, "part of the layout");

/* Where a queue is. Positions only grow, also from one queue of the row to the next, so "head has passed it" stays true. The row belongs
 * to the descriptor and generation in `owner` until that one is over; so a claim and the claimer's name are one word. */
struct isti_queue_row {
    _Alignas(64) _Atomic(uint64_t) head; /* position of the next message to be received */
    _Alignas(64) _Atomic(uint64_t) tail; /* of the next one to be sent; one behind while its claimer has only just claimed the slot */
    _Atomic(uint64_t) owner;             /* generation 32 | descriptor + 1, 32; 0: nobody's yet */
};
static_assert(sizeof(struct isti_queue_row) == 128, "senders and receivers each have a line of their own");

/* A pickle under way. word: sequence 40 | state 8 | member 16; the sequence moves on at each end. */
typedef enum isti_ticket_state { ISTI_TICKET_FREE = 0, ISTI_TICKET_RESV = 1, ISTI_TICKET_LIVE = 2 } isti_ticket_state;

struct isti_ticket {
    _Atomic(uint64_t) word;
    _Atomic(uint32_t) descriptor, generation;
    _Atomic(uint64_t) deadline; /* nanoseconds of the monotonic clock, which all processes of the machine share */
    uint64_t unused;
};
static_assert(sizeof(struct isti_ticket) == 32, "two tickets to a cache line");

/* A published name; it holds nothing. Writers hold ISTI_LOCK_NAMES; version is odd while one writes. */
struct isti_name {
    _Alignas(64) _Atomic(uint32_t) version;
    _Atomic(uint32_t) length; /* bytes; 0: nothing here */
    _Atomic(uint32_t) descriptor, generation;
    _Atomic(uint32_t) size; /* of bytes */
    uint32_t unused;
    _Atomic(uint8_t) text[ISTI_NAME_LENGTH];
    _Atomic(uint8_t) bytes[1600]; /* what the binding wants to have with it: the token of an array of 64 dimensions has 1,080 */
};

/* A thread that waits on an element: see waiter.c for the word. */
struct isti_waiter {
    _Alignas(64) _Atomic(uint64_t) word;
    _Atomic(uint64_t) offset;
    _Atomic(uint32_t) descriptor, generation;
    _Atomic(uint32_t) async; /* 1: nobody sleeps on the word: its process is rung */
};

struct isti_waiter_bucket {
    _Alignas(64) _Atomic(uint32_t) high; /* one past the highest row ever used */
    _Atomic(uint32_t) spilled;           /* how many buckets behind this one have rows of its */
    struct isti_waiter rows[ISTI_WAITERS];
};
static_assert(sizeof(struct isti_waiter_bucket) == 4096, "a page");

/* S and its parts */
static inline uint32_t isti_s_generation(uint64_t s) { return (uint32_t)(s >> 36); }
static inline isti_phase isti_s_phase(uint64_t s) { return (isti_phase)(s >> 32 & 15); }
static inline uint32_t isti_s_x(uint64_t s) { return (uint32_t)s; }
static inline uint64_t isti_s(uint32_t generation, isti_phase phase, uint32_t x) {
    return (uint64_t)generation << 36 | (uint64_t)phase << 32 | x;
}
static inline bool isti_s_live(uint64_t s) { return isti_s_phase(s) == ISTI_LIVE || isti_s_phase(s) == ISTI_FROZEN; }

/* Of a mark, which comes from outside: how many of a table's `rows` rows may have been used. acquire: pairs with isti_raise and the
 * exchanges that raise a mark by one: what could be found in a row was written behind that. */
static inline uint32_t isti_marked(_Atomic(uint32_t) *mark, uint32_t rows) {
    const uint32_t high = atomic_load_explicit(mark, memory_order_acquire);
    return high < rows ? high : rows;
}

/* A mark becomes `least` at least, before a row below that is used (D7): whoever could find something there, or has to sweep it, looks. */
static inline void isti_raise(_Atomic(uint32_t) *mark, uint32_t least) {
    uint32_t now = atomic_load_explicit(mark, memory_order_relaxed); /* relaxed: the exchange checks it */
    while (now < least && !atomic_compare_exchange_weak_explicit(mark, &now, least, memory_order_acq_rel, memory_order_relaxed))
        ;
}

static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "atomics between processes must be lock-free");

#endif
