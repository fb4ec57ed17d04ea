/* os.c: the table of os.h, filled with the real thing. */
#include "os.h"

#include "sanitizer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jemalloc/jemalloc.h>
#include <linux/futex.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int os_add_seals(int fd, int seals) { return fcntl(fd, F_ADD_SEALS, seals); }

static int os_fstat(int fd, struct stat *st) { return fstat(fd, st); }

static uint64_t os_born(int fd) {
#ifdef STATX_BTIME
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &st) == 0 && (st.stx_mask & STATX_BTIME) != 0)
        return (uint64_t)st.stx_btime.tv_sec * 1000000000u + st.stx_btime.tv_nsec;
#endif
    (void)fd;
    return 0;
}

#ifdef __GLIBC__
typedef __rlimit_resource_t resource_number; /* an enumeration */
#else
typedef int resource_number; /* as in POSIX */
#endif

static int os_getrlimit(int resource, struct rlimit *limit) { return getrlimit((resource_number)resource, limit); }

static int os_open(const char *path, int flags) { return open(path, flags); }

static int os_get_seals(int fd) { return fcntl(fd, F_GET_SEALS); }

static void *os_opendir(const char *path) { return opendir(path); }

static const char *os_readdir(void *directory) {
    struct dirent *entry = readdir(directory);
    return entry == NULL ? NULL : entry->d_name;
}

static int os_closedir(void *directory) { return closedir(directory); }

#ifndef F_OFD_GETLK
#  define F_OFD_GETLK 36
#  define F_OFD_SETLK 37
#endif

static int os_lock(int fd, short type, int64_t byte) {
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &range);
}

static int os_lock_test(int fd, int64_t byte) {
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_OFD_GETLK, &range) != 0 ? -1 : range.l_type != F_UNLCK;
}

size_t isti_page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static uint64_t os_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int os_futex_wait(_Atomic(uint32_t) *word, uint32_t expected, uint64_t deadline) {
    struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000u), .tv_nsec = (long)(deadline % 1000000000u)};
    /* FUTEX_WAIT_BITSET, as it takes an absolute time. Not private: the housekeeper's word is in shared memory */
    long result =
        syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, deadline == UINT64_MAX ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY);
    return result == 0 ? 0 : errno;
}

static int os_futex_wake(_Atomic(uint32_t) *word, int waiters) {
    long woken = syscall(SYS_futex, word, FUTEX_WAKE, waiters, NULL, NULL, 0);
    return woken < 0 ? 0 : (int)woken;
}

/* AddressSanitizer's allocator has no handlers for fork, and a thread that starts allocates: forked meanwhile, the child would wait for the
 * allocator's lock for ever. With it a thread counts as created only when it runs.
 */
struct start {
    void *(*run)(void *);
    void *argument;
    sem_t running;
};

static void *started(void *given) {
    struct start *start = given;
    void *(*run)(void *) = start->run, *argument = start->argument;
    sem_post(&start->running);
    return run(argument);
}

static int create_thread(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
    if (!ISTI_POISONS)
        return pthread_create(thread, attributes, run, argument);
    struct start start = {.run = run, .argument = argument};
    sem_init(&start.running, 0, 0);
    int error = pthread_create(thread, attributes, started, &start);
    while (error == 0 && sem_wait(&start.running) != 0) {}
    return error; /* the semaphore isn't destroyed: sem_post may still be looking at its futex word, and it holds nothing */
}

static int os_thread_create(void *(*run)(void *), void *argument) {
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    /* signals are for the program's own threads: block them all before the new thread inherits the mask */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    error = create_thread(&thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

/* The thread is bound to the arena, so malloc serves from it as well, in half of mallocx's time. */
static void *os_mallocx(size_t size, int flags) { return flags == 0 ? ist_je_malloc(size) : ist_je_mallocx(size, flags); }

struct isti_os isti_os = {
    .memfd_create = memfd_create,
    .ftruncate = ftruncate,
    .add_seals = os_add_seals,
    .fstat = os_fstat,
    .born = os_born,
    .fallocate = fallocate,
    .close = close,
    .mmap = mmap,
    .munmap = munmap,
    .madvise = madvise,
    .msync = msync,
    .getrlimit = os_getrlimit,
    .open = os_open,
    .dup3 = dup3,
    .get_seals = os_get_seals,
    .lseek = lseek,
    .readlink = readlink,
    .opendir = os_opendir,
    .readdir = os_readdir,
    .closedir = os_closedir,
    .lock = os_lock,
    .lock_test = os_lock_test,
    .eventfd = eventfd,
    .read = read,
    .write = write,
    .getrandom = getrandom,
    .now = os_now,
    .futex_wait = os_futex_wait,
    .futex_wake = os_futex_wake,
    .thread_create = os_thread_create,
    .calloc = calloc,
    .free = free,
    .mallocx = os_mallocx,
};
