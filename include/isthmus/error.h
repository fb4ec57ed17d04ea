/* <isthmus/error.h>: how libisthmus says that something went wrong.
 *
 * Every function that can fail returns 0 or a negative errno; out-parameters are written only on success.
 * The library never prints and never aborts (but for failed assertions of a debug build).
 *
 *   -EINVAL           an argument makes no sense (a null pointer, a size beyond PTRDIFF_MAX, an unknown flag)
 *   -ENOMEM           the heap's limit, the address space or the machine's memory is used up
 *   -ESTALE           the token's segment is gone: its last owner has let go
 *   -EXDEV            the token is of a domain that this process isn't in, or of memory that can't leave its process (wrapped, a file)
 *   -EBUSY            not exclusive: somebody else owns a reference; or too late to configure
 *   -EROFS            the segment's memory can't be made writable (a read-only mapping)
 *   -EOVERFLOW        a counter would leave its range
 *   -ENOSPC           a table of the domain is full (segments, pickles, names, queues, waiters); or a segment can't become so large
 *   -EUSERS           the domain has no room for another process
 *   -EMLINK           this process is in as many domains as it can be
 *   -EBADF            user code has closed this process's descriptors of the domain, and no other process has them
 *   -EBADMSG          the domain's shared tables hold what can't be: a process wrote garbage there
 *   -ENOTRECOVERABLE  this memory belongs to the parent process: it was inherited through fork
 *
 * Others stand where they are returned, or are the system's own.
 */
#ifndef ISTHMUS_ERROR_H
#define ISTHMUS_ERROR_H

#include <errno.h>

#if defined(__GNUC__)
#  define IST_API __attribute__((visibility("default")))
#  define IST_MUST_CHECK __attribute__((warn_unused_result))
#else
#  define IST_API
#  define IST_MUST_CHECK
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A sentence in English for a value this library returned (0 included).
 * Ownership: a static string. Threads: any. Errors: none; an unknown value gives "unknown error". */
IST_API const char *ist_strerror(int error);

#ifdef __cplusplus
}
#endif
#endif
