/* <isthmus/process.h>: segments between processes. May change until 1.0.
 *
 * A *domain* is a group of processes that share: one control memfd with the tables (who holds what), one sparse data memfd in which every
 * process has a window for its heap. A process has one home domain. It joins the one that ISTHMUS_DOMAIN in its environment names,
 * if that can be reached, else it makes one. In other domains it may be a guest: it attaches and holds there, and allocates at home.
 *
 * A segment whose token is taken is *published*: it gets a descriptor, where each process that holds it has one bit. A process that is
 * killed at any moment keeps its bits until another process of the domain notices and strikes them out; that takes a few seconds at most
 * if any process of the domain has a housekeeper, and nobody else's segments are touched.
 *
 * Threads, interpreters: any. After fork the child is a member of its own and owns what its parent owned (segment.h).
 * Errors, where not said: -ENOSYS (no /proc: this process can share only within itself), -ENOTRECOVERABLE (a child made without handlers).
 */
#ifndef ISTHMUS_PROCESS_H
#define ISTHMUS_PROCESS_H

#include <isthmus/segment.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IST_NAME_MAX 200 /* bytes of a name */

/* Where another process can find this one's descriptor of a domain: /proc/<pid>/fd/<fd>. */
typedef struct ist_place {
    uint32_t pid, fd;
} ist_place;

/* Joins the home domain, or makes it. Costs two descriptors; commits no memory and starts no thread. Called by itself at the first
 * allocation. Errors: -ENOMEM, -EMFILE, -ENFILE; -EUSERS (the domain has no room for another process). */
IST_MUST_CHECK IST_API int ist_domain_join(void);

/* What ISTHMUS_DOMAIN has to be for a new process to join this one's home: "pid:fd:id". room: at least 64 bytes.
 * Errors: those of ist_domain_join; -EINVAL (too little room). */
IST_MUST_CHECK IST_API int ist_domain_text(char *text, size_t room);

/* The place of the domain that s is published in, for whoever gets its token. The caller owns a reference.
 * Errors: -EINVAL (it isn't published). */
IST_MUST_CHECK IST_API int ist_segment_place(ist_segment s, ist_place *out);

/* Becomes a guest of the domain that the token names, found at `place`, unless this process is in it.
 * Errors: -ENOENT (no process there, or it is in another domain), -EACCES (another user's), -EMFILE, -ENOMEM, -EUSERS, -EMLINK (64
 * domains). */
IST_MUST_CHECK IST_API int ist_domain_reach(const ist_token *token, ist_place place);

/* From now on this process's housekeeper, a sleeping thread, looks after the dead of its domains; without this call, from its first token
 * on. For processes that are to do so without a call though they share nothing yet. After fork the child has to call it again. */
IST_API void ist_domain_watch(void);

/* Strikes out dead processes in all of this process's domains now; returns how many. Blocking: as long as it takes (a few ms). */
IST_API size_t ist_sweep(void);

/* The first byte of the segment's data in a mapping that can't be written, for a segment of another process; that of ist_segment_data for
 * one of this process, and where there is no address space for whole windows. The caller owns a reference. Errors: -ENOMEM. */
IST_MUST_CHECK IST_API int ist_segment_data_readonly(ist_segment s, const void **out);

/* Gives the segment a name in its domain, together with `size` (at most 1,600) bytes of the caller's. A name owns nothing: it is gone with
 * the segment's last holder. Errors: -EINVAL (an empty name, or one too long), -EEXIST (a live segment has the name), -ENOSPC (4,096
 * names), -ETIMEDOUT (another process is stopped in the middle of such a call), those of ist_segment_token. */
IST_MUST_CHECK IST_API int ist_name_publish(const char *name, size_t length, ist_segment s, const void *bytes, size_t size);

/* Finds a name in this process's domains, else in those of all other processes of this user, and becomes a guest there.
 * Ownership: *out is one reference. *size: room in `bytes`, then what was written.
 * Errors: -ENOENT (no live segment of that name), -ENOTUNIQ (two other domains have it), -EINVAL, those of ist_segment_acquire. With
 * -EXDEV (wrapped memory or a mapped file of another process) the bytes and *size are written as well. */
IST_MUST_CHECK IST_API int ist_name_attach(const char *name, size_t length, ist_segment *out, void *bytes, size_t *size);

/* Takes a name out of this process's domains. Errors: -ENOENT, -EINVAL, -ETIMEDOUT. */
IST_MUST_CHECK IST_API int ist_name_remove(const char *name, size_t length);

/* Called in the child of a fork, after the library's own handlers, in the order of registration. Threads: one at a time registers.
 * Errors: -ENOSPC (there are 8). */
IST_MUST_CHECK IST_API int ist_at_fork_child(void (*call)(void));

#ifdef __cplusplus
}
#endif
#endif
