/* harness.c: see harness.h. Uses the library by its public face only. */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if TEST_TSAN
/* Children of a process with threads start a housekeeper of their own here; without the first ThreadSanitizer ends them at that. jemalloc
 * holds more than 64 locks during fork, and the deadlock detector has room for 64; and it makes its locks anew in
 * the child, which is taken for locking twice. Programs that fork do without these two. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
#  ifdef TEST_FORKS
    return "die_after_fork=0:detect_deadlocks=0:report_mutex_bugs=0";
#  else
    return "die_after_fork=0";
#  endif
}
#endif

void test_failed(const char *file, int line, const char *condition, const char *format, ...) {
    char text[400] = "";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const char *name = strrchr(file, '/');
    fflush(stdout);
    fprintf(stderr, "%s:%d: not so: %s%s%s\n", name != NULL ? name + 1 : file, line, condition,
            text[0] == ' ' && text[1] != '\0' ? ":" : "", text);
    fflush(stderr);
    abort();
}

void test_equal(const char *file, int line, const char *text, long long a, long long b) {
    if (a != b)
        test_failed(file, line, text, " %lld and %lld", a, b);
}

void test_skip(const char *reason) {
    printf("skipped: %s\n", reason);
    exit(77);
}

uint64_t test_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t test_storm_end(double seconds) {
    const char *text = getenv("ISTHMUS_STRESS_SECONDS");
    if (text != NULL && atof(text) > 0)
        seconds = atof(text);
    return test_now() + (uint64_t)(seconds * 1e9);
}

uint64_t test_seed(void) {
    static uint64_t seed;
    if (seed != 0)
        return seed;
    const char *text = getenv("ISTHMUS_SEED");
    if (text != NULL)
        seed = strtoull(text, NULL, 0);
    else if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = test_now();
    seed |= 1;
    printf("ISTHMUS_SEED=%#llx\n", (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

/* xorshift64* (S. Vigna, 2016) */
uint64_t test_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545F4914F6CDD1D);
}

int test_wait(pid_t child, double seconds) {
    CHECK(child > 0, "fork: %s", strerror(errno));
    int fd = (int)syscall(SYS_pidfd_open, child, 0);
    CHECK(fd >= 0, "pidfd_open: %s", strerror(errno));
    struct pollfd ended = {.fd = fd, .events = POLLIN};
    uint64_t deadline = test_now() + (uint64_t)(seconds * 1e9);
    for (;;) {
        uint64_t now = test_now();
        if (poll(&ended, 1, now >= deadline ? 0 : (int)((deadline - now) / 1000000) + 1) > 0)
            break;
        if (now >= deadline) {
            fprintf(stderr, "child %d isn't done after %.0f s: killed\n", (int)child, seconds);
            kill(child, SIGKILL);
            break;
        }
    }
    close(fd);
    int status = -1;
    while (waitpid(child, &status, __WALL) < 0)
        CHECK_EQ(errno, EINTR);
    return status;
}

pid_t test_child(void (*run)(void *), void *argument) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        run(argument);
        fflush(NULL);
        _exit(0);
    }
    return child;
}

int test_in_child(void (*run)(void *), void *argument, double seconds) { return test_wait(test_child(run, argument), seconds); }

bool test_until(bool (*holds)(void *), void *argument, double seconds) {
    for (uint64_t deadline = test_now() + (uint64_t)(seconds * 1e9); test_now() < deadline;) {
        if (holds(argument))
            return true;
        poll(NULL, 0, 5);
    }
    return holds(argument);
}

ist_stats test_stats(void) {
    ist_stats stats = {.struct_size = sizeof stats};
    CHECK_EQ(ist_stats_read(&stats), 0);
    return stats;
}

size_t test_resident(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL, "statm");
    size_t total = 0, resident = 0;
    CHECK_EQ(fscanf(file, "%zu %zu", &total, &resident), 2);
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

unsigned test_threads(void) {
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL, "task");
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

void *test_shared(size_t size) {
    void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(block != MAP_FAILED, "mmap: %s", strerror(errno));
    return block;
}

pthread_t test_thread(void *(*run)(void *), void *argument) {
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, run, argument), 0);
    return thread;
}

void test_join(pthread_t thread) { CHECK_EQ(pthread_join(thread, NULL), 0); }

static unsigned char pattern_byte(uint64_t tag, size_t i) { return (unsigned char)((tag >> (i % 8 * 8)) + i / 8); }

void test_fill(void *block, size_t size, uint64_t tag) {
    for (size_t i = 0; i < size; i++)
        ((unsigned char *)block)[i] = pattern_byte(tag, i);
}

bool test_filled(const void *block, size_t size, uint64_t tag) {
    for (size_t i = 0; i < size; i++)
        if (((const unsigned char *)block)[i] != pattern_byte(tag, i))
            return false;
    return true;
}

ist_segment test_create(size_t size, uint32_t flags) {
    ist_segment s;
    int error = ist_segment_create(size, flags, &s);
    CHECK(error == 0, "create of %zu bytes: %s", size, ist_strerror(error));
    return s;
}

ist_token test_token(ist_segment s) {
    ist_token token;
    CHECK_EQ(ist_segment_token(s, &token), 0);
    return token;
}

uint32_t test_owners(ist_segment s) {
    ist_segment_info info;
    ist_segment_read_info(s, &info);
    return info.owners;
}
