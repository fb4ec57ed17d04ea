/* <isthmus/heap.h>: the memory that segments come from, and what the library can tell about itself.
 *
 * The heap is a window of the domain's sparse memory (process.h) that belongs to the process and to no interpreter.
 * Nothing is committed before it is touched; freed pages go back to the system about a second after they were freed.
 *
 * Threads, interpreters, processes: every function may be called from any thread, with or without a GIL.
 * After fork the child allocates from a window of its own: see segment.h.
 */
#ifndef ISTHMUS_HEAP_H
#define ISTHMUS_HEAP_H

#include <isthmus/error.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IST_VERSION_MAJOR 0
#define IST_VERSION_MINOR 1
#define IST_VERSION_PATCH 0

/* major << 16 | minor << 8 | patch of the library that is loaded. */
IST_API uint32_t ist_version(void);

/* Flags of ist_options. */
#define IST_OPTION_NO_HOUSEKEEPER 1u /* no thread of our own: its work is done by alloc, lease and ist_collect */

typedef struct ist_options {
    size_t struct_size;      /* sizeof(ist_options): lets later versions add fields */
    size_t heap_size;        /* bytes of address space, and so the limit of live memory; 0: the default, 64 GiB */
    uint64_t lease_ns;       /* how long a lease lasts, nanoseconds; 0: the default, 300 s */
    uint32_t flags;          /* IST_OPTION_… */
    uint32_t processes; /* of the domain at once, at most 1,024; 0: the default, which is that. For a domain that this process makes */
    uint32_t published; /* published segments of the domain at once, 4,096 … 4,194,304, rounded up to a power of two; 0: the most */
    uint32_t reserved; /* 0 */
} ist_options;

/* Sets options for the process; before the first segment only, and not from a destructor.
 * ISTHMUS_HEAP_SIZE (bytes, with optional K, M, G or T) and ISTHMUS_HOUSEKEEPER=0 in the environment give the defaults. With
 * ISTHMUS_DEBUG=1 memory is overwritten with 0xdd when it is freed (its first MiB).
 * Errors: -EBUSY after the first segment was made, -EINVAL for a heap_size below 1 MiB, limits out of their ranges, an unknown flag or a
 * reserved field that isn't 0, -ENOTRECOVERABLE (in a child made without fork handlers). */
IST_MUST_CHECK IST_API int ist_configure(const ist_options *options);

/* Bytes of address space of the heap: its limit. Smaller than asked for where RLIMIT_AS or RLIMIT_FSIZE didn't allow it. 0: not made
 * yet. */
IST_API size_t ist_heap_size(void);

/* Gives unused pages back to the system now, and drops leases whose time is up.
 * Blocking: as long as the system calls take. Returns the number of leases dropped. */
IST_API size_t ist_collect(void);

/* What the process has, as far as it can be known while others go on; every value is a snapshot of its own. */
typedef struct ist_stats {
    size_t struct_size; /* set by the caller: sizeof(ist_stats) */
    uint64_t segments; /* live segments */
    uint64_t allocated; /* bytes asked for by live segments of kind heap; of growable ones what they have grown to */
    uint64_t mapped; /* bytes of memory the heap really occupies now */
    uint64_t owners; /* counted references over all live segments */
    uint64_t leases; /* segments held by a lease */
    uint64_t lease_bytes; /* their bytes */
    uint64_t leases_expired; /* numbers whose deadline passed unloaded, since the process began */
    uint64_t in_flight; /* messages sent and not yet received, see ist_count_in_flight */
    uint64_t bytes_copied; /* array bytes copied, see ist_count_copied */
    uint64_t saturated; /* segments whose count went wrong: they stay for ever rather than being freed early */
    uint64_t misuses; /* releases and retains through a handle of an earlier generation, put back */
    uint64_t retired; /* slots whose generations are used up */
    uint64_t published; /* segments of all its domains that this process holds and others can attach to */
    uint64_t processes; /* alive in its domains, this one included */
    uint64_t queues; /* of kind queue, among the segments */
    uint64_t waiting; /* threads of this process that are asleep in ist_wait_on, or about to be */
    uint64_t locks; /* of kind lock, among the segments */
} ist_stats;

/* Errors: -EINVAL if struct_size isn't that of this version, -ENOTRECOVERABLE (in a child made without fork handlers). */
IST_MUST_CHECK IST_API int ist_stats_read(ist_stats *stats);

/* Counters a binding keeps for its users; one relaxed add to a line of this thread. */
IST_API void ist_count_copied(size_t bytes);
IST_API void ist_count_in_flight(int64_t messages);

/* Two words that fork changes; one load each, never 0 while the library is usable. A raw clone(2) without handlers leaves both 0 in the
 * child (the page is wiped by the kernel).
 *
 * ist_epoch: of the memory. An object over a segment remembers the value of its making; memory made under another value belongs to another
 *   process and must not be touched. The child of an ordinary fork owns what its parent owned (segment.h), so it stays; it moves on where
 *   the child couldn't be made an owner (no room for another process in the domain, no /proc).
 * ist_process_epoch: of the process: moves on in every child. For what belongs to one process: threads, locks, a heap. */
IST_API extern const volatile uint32_t *ist_epoch_word;
static inline uint32_t ist_epoch(void) { return ist_epoch_word[0]; }
static inline uint32_t ist_process_epoch(void) { return ist_epoch_word[1]; }

#ifdef __cplusplus
}
#endif
#endif
