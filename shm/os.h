/* os.h: everything libisthmus asks of the system, in one replaceable table, so that a test can make the n-th call fail or turn the clock.
 *
 * The members behave like the functions they are named after (-1 and errno, NULL, MAP_FAILED), unless said. Only tests write to the table,
 * before they use the library; nothing else of the library calls the system for memory, time, threads or files.
 */
#ifndef ISTI_OS_H
#define ISTI_OS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>

struct isti_os {
    int (*memfd_create)(const char *name, unsigned flags);
    int (*ftruncate)(int fd, off_t size);
    int (*add_seals)(int fd, int seals);
    int (*fstat)(int fd, struct stat *st);
    uint64_t (*born)(int fd); /* when the file was made, nanoseconds since 1970; 0: system or file system don't say */
    int (*fallocate)(int fd, int mode, off_t offset, off_t size);
    int (*close)(int fd);
    void *(*mmap)(void *address, size_t size, int protection, int flags, int fd, off_t offset);
    int (*munmap)(void *address, size_t size);
    int (*madvise)(void *address, size_t size, int advice);
    int (*msync)(void *address, size_t size, int flags);
    int (*getrlimit)(int resource, struct rlimit *limit);
    int (*open)(const char *path, int flags);
    int (*dup3)(int from, int to, int flags);
    int (*get_seals)(int fd);
    off_t (*lseek)(int fd, off_t offset, int whence);
    ssize_t (*readlink)(const char *path, char *target, size_t room);
    void *(*opendir)(const char *path);
    const char *(*readdir)(void *directory); /* the next name; NULL: the end */
    int (*closedir)(void *directory);
    int (*lock)(int fd, short type, int64_t byte);  /* fcntl(F_OFD_SETLK) of one byte: F_WRLCK, F_UNLCK */
    int (*lock_test)(int fd, int64_t byte);         /* 1: somebody else's open file description has it, 0: nobody's, -1 */
    int (*eventfd)(unsigned value, int flags);
    ssize_t (*read)(int fd, void *bytes, size_t size);
    ssize_t (*write)(int fd, const void *bytes, size_t size);
    ssize_t (*getrandom)(void *bytes, size_t size, unsigned flags);
    uint64_t (*now)(void); /* nanoseconds on the monotonic clock; never fails */
    /* Sleeps while *word == expected, at most until `deadline` on that clock (UINT64_MAX: no end). Spurious returns are allowed. 0, or why
     * it didn't sleep on: EAGAIN, ETIMEDOUT, EINTR. */
    int (*futex_wait)(_Atomic(uint32_t) *word, uint32_t expected, uint64_t deadline);
    int (*futex_wake)(_Atomic(uint32_t) *word, int waiters); /* how many it woke; never fails */
    int (*thread_create)(void *(*run)(void *), void *argument); /* detached, all signals blocked; 0 or an errno, as pthread_create */
    void *(*calloc)(size_t count, size_t size);
    void (*free)(void *block);
    void *(*mallocx)(size_t size, int flags); /* the heap's own allocator */
};

extern struct isti_os isti_os;

size_t isti_page_size(void); /* never fails */

#endif
