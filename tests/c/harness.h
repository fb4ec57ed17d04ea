/* harness.h: what the test programs share: checks, children with a deadline, seeds, and how long a storm lasts. */
#ifndef TEST_HARNESS_H
#define TEST_HARNESS_H

#include <isthmus/isthmus.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#if defined(__SANITIZE_ADDRESS__)
#  define TEST_ASAN 1
#elif defined(__has_feature)
#  if __has_feature(address_sanitizer)
#    define TEST_ASAN 1
#  endif
#  if __has_feature(thread_sanitizer)
#    define TEST_TSAN 1
#  endif
#endif
#if defined(__SANITIZE_THREAD__)
#  define TEST_TSAN 1
#endif
#ifndef TEST_ASAN
#  define TEST_ASAN 0
#endif
#ifndef TEST_TSAN
#  define TEST_TSAN 0
#endif

/* Ends the process by SIGABRT with a line on stderr: works alike in a Criterion test, a plain program, a thread and a forked child. */
_Noreturn void test_failed(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#define CHECK(condition, ...) ((condition) ? (void)0 : test_failed(__FILE__, __LINE__, #condition, " " __VA_ARGS__))
#define CHECK_EQ(a, b) test_equal(__FILE__, __LINE__, #a " == " #b, (long long)(a), (long long)(b))
void test_equal(const char *file, int line, const char *text, long long a, long long b);

/* Ends a plain program: it can't be run here, and says why. */
_Noreturn void test_skip(const char *reason);

/* Nanoseconds of the real monotonic clock. */
uint64_t test_now(void);

/* When a storm that begins now has to end: after ISTHMUS_STRESS_SECONDS, or `seconds`. */
uint64_t test_storm_end(double seconds);

/* From ISTHMUS_SEED, or new; printed once, so that a failure can be had again. */
uint64_t test_seed(void);
uint64_t test_random(uint64_t *state); /* never 0 as long as *state isn't */

/* Runs in a forked child: `run` returns, or fails a check. Returns the child's wait status (0: fine); a child that isn't done in time is
 * killed, which gives the status of SIGKILL. */
int test_in_child(void (*run)(void *), void *argument, double seconds);
pid_t test_child(void (*run)(void *), void *argument); /* the same without waiting, which test_wait() does */
int test_wait(pid_t child, double seconds);
#define CHECK_CHILD(run, argument, seconds) CHECK_EQ(test_in_child(run, argument, seconds), 0)

/* Polls until the condition holds; false if it didn't in time. For what other threads or the kernel do by themselves. */
bool test_until(bool (*holds)(void *), void *argument, double seconds);

ist_stats test_stats(void);
size_t test_resident(void);   /* bytes of this process's memory that are in RAM */
unsigned test_threads(void);  /* of this process */
void *test_shared(size_t size); /* zeroed memory that stays shared with forked children */

pthread_t test_thread(void *(*run)(void *), void *argument);
void test_join(pthread_t thread);

/* A block's content: bytes that depend on `tag`, so that a block freed too early or given out twice is seen. */
void test_fill(void *block, size_t size, uint64_t tag);
bool test_filled(const void *block, size_t size, uint64_t tag);

/* Creates, or fails the test. */
ist_segment test_create(size_t size, uint32_t flags);
ist_token test_token(ist_segment s);
uint32_t test_owners(ist_segment s);

#endif
