/* <isthmus/segment.h>: counted segments of memory that no interpreter owns.
 *
 * A segment is a block of memory with one atomic count of its owners in each process that holds it. Everybody who uses it owns a reference;
 * the last one to let go frees it, whoever that is, in whatever order, from whatever thread and process.
 *
 * Words: create, create_growable, wrap, map (you own one reference) · retain, release (counted) · acquire (from a token or an address; may
 * fail) · view functions (own nothing). A consuming parameter says "takes".
 *
 * Ownership: an ist_segment is a handle, passed by value. It is valid as long as the reference it stands for is owned; copying the
 *   struct doesn't add a reference.
 * Threads, interpreters, processes: any function from any thread, with or without a GIL, during and after the end of an interpreter.
 *   No function calls into Python. After fork the child owns what its parent owned, counted: the memory is shared and stays until both have
 *   let go; new segments come from a window of the child's own. Wrapped memory and mapped files are inherited as fork inherits memory, and
 *   only the parent runs `free`. Where the child couldn't be made an owner, ist_epoch (heap.h) has moved on: there releases drop only
 *   the child's private counts.
 * Blocking: none, unless said.
 * Errors, where not said: -ENOTRECOVERABLE (a child made without fork handlers; or, of a published segment, one that couldn't be made an
 *   owner), -EBADMSG (a process wrote garbage into the tables).
 * Misuse: a release or retain through a handle whose reference is gone is detected where it can be, put back or saturated (the segment
 *   then stays for ever), and counted in ist_stats. A debug build aborts instead.
 */
#ifndef ISTHMUS_SEGMENT_H
#define ISTHMUS_SEGMENT_H

#include <isthmus/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ist_slot ist_slot; /* where the count lives; see segment_inline.h */

typedef struct ist_segment {
    ist_slot *slot;      /* NULL: no segment */
    uint32_t generation; /* of the slot, when this reference was made */
    uint32_t index;      /* of the slot in the process's table */
} ist_segment;

static inline bool ist_segment_is_null(ist_segment s) { return s.slot == NULL; }

/* Describes a segment without owning it: plain bytes, to be copied and sent as such. A token never brings a segment back to life
 * and never reaches another segment that came to the same place. 16 bytes domain, 4 descriptor, 4 its generation (native byte order). */
typedef struct ist_token {
    uint8_t bytes[24];
} ist_token;

typedef enum ist_kind {
    IST_KIND_HEAP = 1,   /* memory of the heap */
    IST_KIND_FILE = 2,   /* a mapped file */
    IST_KIND_FOREIGN = 3, /* wrapped memory with its own destructor */
    IST_KIND_QUEUE = 4,   /* a queue (queue.h); its memory is of the heap, and nobody's to touch */
    IST_KIND_LOCK = 5     /* a lock, semaphore, event, barrier or condition (lock.h); the same */
} ist_kind;

/* Flags of create, wrap and map. */
#define IST_ZERO 1u     /* create: all bytes are 0, also in recycled memory */
#define IST_PREFAULT 2u /* create: the memory is there when create returns, else -ENOMEM; no first-touch cost later */
#define IST_READONLY 4u /* wrap, map: the memory must never be written */
#define IST_PRIVATE 8u  /* map: changes stay in this process and don't reach the file (copy on write) */

/* Makes a segment of exactly `size` bytes; 0 is allowed and gives a valid, unique address. The data is aligned to 64 bytes, to a page
 * from 16 KiB on. Ownership: *out is one reference. Errors: -EINVAL (size > PTRDIFF_MAX, flags), -ENOMEM (also in a destructor that runs
 * at the end of a thread after the allocator's own), -ENOTRECOVERABLE (in a child made without fork handlers). */
IST_MUST_CHECK IST_API int ist_segment_create(size_t size, uint32_t flags, ist_segment *out);

/* Makes a growable segment: `reserved` bytes of address space for good, of which the first `size` are its length at first. Memory is
 * committed only by touching it (IST_PREFAULT: that of the first `size` bytes is there), and reads as 0 where it never was written,
 * recycled or not. It is published from the start, as its length is a word that all processes read. Else as ist_segment_create.
 * Errors: -EINVAL (size > reserved, reserved > PTRDIFF_MAX, flags), and those of ist_segment_create and ist_segment_token. */
IST_MUST_CHECK IST_API int ist_segment_create_growable(size_t size, size_t reserved, uint32_t flags, ist_segment *out);

/* Makes the segment at least `size` bytes long, in place and for all its owners, in whatever process. It never shrinks: of several at once
 * the largest wins, and if it is that long already nothing happens.
 * Ordering: acquire and release; who reads the new length by ist_segment_length sees what the caller wrote before.
 * Errors: -EINVAL (not growable), -ENOSPC (more than was reserved), -EROFS (frozen), -ENOTRECOVERABLE (in a child that doesn't own it). */
IST_MUST_CHECK IST_API int ist_segment_grow(ist_segment s, size_t size);

/* Called once, when the last owner of a wrapped segment has let go: in any thread, without a GIL, possibly after every interpreter is
 * gone. It may release other segments (that never recurses). It isn't called in a child that inherited the segment through fork. */
typedef void (*ist_free_fn)(void *ctx, void *data, size_t size);

/* Makes a segment over memory that is not from the heap.
 * Ownership: on success takes `data` (until `free` is called); *out is one reference. `free` may be NULL. On failure nothing is taken.
 * Errors: -EINVAL, -ENOMEM. */
IST_MUST_CHECK IST_API int ist_segment_wrap(void *data, size_t size, ist_free_fn free, void *ctx, uint32_t flags, ist_segment *out);

/* Maps `size` bytes at `offset` (any, needn't be page-aligned) of an open file. The descriptor may be closed afterwards.
 * The file has to keep its length: an access to what was cut off ends the process by SIGBUS, whoever cut it.
 * Errors: -EINVAL (size 0, beyond the end of the file at the time of the call, offset overflow), -ENOMEM, or what mmap and fstat give. */
IST_MUST_CHECK IST_API int ist_segment_map(int fd, uint64_t offset, size_t size, uint32_t flags, ist_segment *out);

/* What a segment of kind file maps: enough for another process to open the same file, see that it is the same, and map it. */
typedef struct ist_file {
    uint64_t device, inode; /* st_dev and st_ino: no other file has them as long as anybody has this one open or mapped */
    uint64_t born;          /* when it was made, nanoseconds since 1970: tells it from a later one with its inode; 0: not known */
    uint64_t offset;        /* of the segment's first byte in the file */
    const char *path;       /* absolute, without links, when it was mapped; "": not known (no /proc). Lives as long as the segment */
    uint32_t flags;         /* ist_segment_map's: IST_READONLY, IST_PRIVATE */
} ist_file;

/* The caller owns a reference while it uses *out. Errors: -EINVAL if the segment isn't a file. */
IST_MUST_CHECK IST_API int ist_segment_file(ist_segment s, ist_file *out);

/* One past the last byte of that file that a segment of this process has mapped, 0: none. A snapshot, for whoever is about to cut a
 * file. */
IST_API uint64_t ist_file_mapped(uint64_t device, uint64_t inode);

/* Writes a mapped file's changes to it: all of them, or those of the pages of `size` bytes at `offset` of the segment.
 * Blocking: for the disk. Errors: -EINVAL (the segment isn't a file, or ends before), or what msync gives. */
IST_MUST_CHECK IST_API int ist_segment_sync(ist_segment s);
IST_MUST_CHECK IST_API int ist_segment_sync_range(ist_segment s, size_t offset, size_t size);

/* Adds an owner. The caller owns a reference already, so the count can't be zero. Ordering: relaxed. */
IST_API void ist_segment_retain(ist_segment s);

/* Takes one reference and gives it up; the last one frees the memory before it returns, unless this thread is already inside a release:
 * then the outermost does it. Ordering: release; the freeing thread sees all writes of all owners. A NULL handle does nothing. */
IST_API void ist_segment_release(ist_segment s);

/* View functions: own nothing; the caller owns a reference while it uses the result. */
IST_API void *ist_segment_data(ist_segment s);
IST_API size_t ist_segment_size(ist_segment s);   /* of a growable one all that is reserved: constant */
IST_API size_t ist_segment_length(ist_segment s); /* bytes now; ist_segment_size if it isn't growable. Ordering: acquire */
IST_API bool ist_segment_is_growable(ist_segment s);
IST_API bool ist_segment_is_frozen(ist_segment s);
IST_API bool ist_segment_is_readonly(ist_segment s); /* frozen, or made with IST_READONLY */
IST_API ist_kind ist_segment_kind(ist_segment s);

/* Fills *out with the segment's token, and publishes the segment before. The caller owns a reference. Errors: those of ist_domain_join;
 * -ENOSPC (as many published segments as the domain can have), -ENOTRECOVERABLE (inherited, and not published before the fork). */
IST_MUST_CHECK IST_API int ist_segment_token(ist_segment s, ist_token *out);

/* Adds an owner to the segment a token stands for, if it still has one, in whatever process. Ownership: *out is one reference.
 * Errors: those of ist_domain_join; -ESTALE (gone, or the token was voided by make_writable), -EXDEV (a domain that this process isn't in:
 * see ist_domain_reach; or wrapped memory or a mapped file of another process: see ist_segment_file), -EINVAL (not a token), -EOVERFLOW
 * (2^31 - 2 owners), -ENOMEM, -EBADMSG. */
IST_MUST_CHECK IST_API int ist_segment_acquire(const ist_token *token, ist_segment *out);

/* Adds an owner to the segment of a handle that came from somebody else's hands, who owns a reference meanwhile. Ownership: *out is one.
 * Errors: -EINVAL (it was never a handle of this library), -ESTALE (its segment is gone), -EOVERFLOW. */
IST_MUST_CHECK IST_API int ist_segment_acquire_handle(ist_segment s, ist_segment *out);

/* Adds an owner to the live heap segment whose first byte is at `data`, in constant time. Errors: -ESTALE if there is none, -EOVERFLOW. */
IST_MUST_CHECK IST_API int ist_segment_acquire_address(const void *data, ist_segment *out);

/* Adds an owner to the live heap segment in which `address` lies: begin <= address < begin + size, or at its begin if it has no bytes.
 * Also if it came from another process's heap, but not by the address of ist_segment_data_readonly (process.h).
 * Ownership: *out is one reference. It takes a step for every page between the begin and the address.
 * Errors: -ESTALE if there is none, -EOVERFLOW. */
IST_MUST_CHECK IST_API int ist_segment_at_address(const void *address, ist_segment *out);

/* Gives the segment another size without moving it, where its block has the room; bytes that are added have any value. The caller must be
 * the only owner, and the segment never published: nobody else may find it shorter than it was.
 * Errors: -EBUSY (other owners; published; frozen), -ENOSPC (not in place: create, copy, release), -EINVAL (size > PTRDIFF_MAX; not of the
 * heap), -ESTALE (the reference is gone). */
IST_MUST_CHECK IST_API int ist_segment_resize(ist_segment s, size_t size);

/* Makes the segment read-only for ever. The caller must be the only owner, and tells by this that nobody writes through pointers it
 * gave out. Exactly one of a freeze and a concurrent acquire wins; an acquire that wins makes this fail.
 * Errors: -EBUSY (other owners), -ESTALE (the reference is gone), -EINVAL (a queue or a lock). Frozen already: 0. */
IST_MUST_CHECK IST_API int ist_segment_freeze(ist_segment s);

/* Makes a frozen segment writable again, in place, and voids every token given out before; the only owner's handle is updated. The
 * caller must be the only owner, in all processes.
 * Errors: -EBUSY (other owners), -EROFS (made with IST_READONLY), -EOVERFLOW (the slot's, or the descriptor's, generations are used up:
 * copy instead), -ESTALE, -EINVAL as ist_segment_freeze. */
IST_MUST_CHECK IST_API int ist_segment_make_writable(ist_segment *s);

/* Who made it: a number of the binding's choosing (the Python package: the interpreter's id), shown by ist_segments. */
IST_API void ist_segment_set_creator(ist_segment s, uint64_t creator);

/* descriptor: UINT32_MAX and processes 0 as long as it isn't published. */
typedef struct ist_segment_info {
    uint32_t index;      /* slot; with the generation, the segment's identity in this process */
    uint32_t generation;
    uint32_t owners;     /* a snapshot; nothing may be decided by it */
    uint8_t kind;        /* ist_kind */
    bool frozen;
    bool readonly;       /* frozen, or made with IST_READONLY */
    bool saturated;      /* its count went wrong: it will never be freed */
    uint64_t size;       /* bytes, exactly as asked for; of a growable one its length now */
    uint64_t created_by; /* see ist_segment_set_creator */
    bool published;      /* its token was taken: other processes can attach to it */
    uint32_t processes;  /* that hold it, this one included */
    uint32_t descriptor, descriptor_generation; /* what its token says: the same in all processes */
    uint64_t reserved; /* bytes it may grow to; `size` if it isn't growable */
} ist_segment_info;

/* One segment's. The caller owns a reference. */
IST_API void ist_segment_read_info(ist_segment s, ist_segment_info *out);

/* Lists live segments, in no order: writes at most `room` entries from slot *cursor on and moves *cursor; returns how many it wrote,
 * 0 at the end. Start with *cursor = 0. Segments made or freed meanwhile may be missing. */
IST_API size_t ist_segments(uint32_t *cursor, ist_segment_info *out, size_t room);

/* The 128 random bits that name this process's home domain. Errors: those of ist_domain_join. */
IST_MUST_CHECK IST_API int ist_domain_id(uint8_t id[16]);

#ifdef __cplusplus
}
#endif
#endif
