/* plain_start.c: the library loads also when the system refuses what its constructor asks for.
 *
 * The program runs itself again with TEST_REFUSE set; a constructor of this file, which runs before the library's, then puts refusing
 * functions into isti_os. Without the wiped page a raw clone can't be told, but fork still is, by the handler. */
#include "harness.h"
#include "os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void *(*real_mmap)(void *, size_t, int, int, int, off_t);
static int (*real_madvise)(void *, size_t, int);
static int refused, mapped, unmapped;

static void *refuse_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    (void)address, (void)size, (void)protection, (void)flags, (void)fd, (void)offset;
    refused++;
    errno = ENOMEM;
    return MAP_FAILED;
}
static int refuse_madvise(void *address, size_t size, int advice) {
    (void)address, (void)size, (void)advice;
    refused++;
    errno = EINVAL; /* Linux before 4.14 */
    return -1;
}
static void *count_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    mapped++;
    return real_mmap(address, size, protection, flags, fd, offset);
}
static int count_munmap(void *address, size_t size) {
    unmapped++;
    return munmap(address, size);
}

__attribute__((constructor(101))) static void before_the_library(void) {
    const char *what = getenv("TEST_REFUSE");
    real_mmap = isti_os.mmap;
    real_madvise = isti_os.madvise;
    if (what == NULL)
        return;
    isti_os.mmap = strcmp(what, "mmap") == 0 ? refuse_mmap : count_mmap;
    isti_os.munmap = count_munmap;
    if (strcmp(what, "madvise") == 0)
        isti_os.madvise = refuse_madvise;
}

static void use(void) {
    ist_segment s = test_create(1000, IST_ZERO), t;
    ist_token token = test_token(s);
    CHECK_EQ(ist_segment_acquire(&token, &t), 0);
    ist_segment_release(s);
    ist_segment_release(t);
    CHECK_EQ(test_stats().segments, 0);
}

static void child(void *parents_epoch) {
    CHECK(ist_process_epoch() != 0 && ist_process_epoch() != *(uint32_t *)parents_epoch, "the child has epoch %u", ist_process_epoch());
    use();
}

static void run_again(void *what) {
    setenv("TEST_REFUSE", what, 1);
    char *arguments[] = {"plain_start", NULL};
    execv("/proc/self/exe", arguments);
    CHECK(false, "exec: %s", strerror(errno));
}

int main(void) {
    const char *what = getenv("TEST_REFUSE");
    if (what != NULL) {
        CHECK(refused == 1, "%d refused: the constructor of this test ran too late", refused);
        CHECK_EQ(mapped, unmapped);
        isti_os.mmap = real_mmap;
        isti_os.madvise = real_madvise;
    }
    CHECK(ist_epoch() != 0);
    use();
    uint32_t epoch = ist_process_epoch();
    CHECK_CHILD(child, &epoch, 20);
    use();
    if (what == NULL) {
        CHECK_CHILD(run_again, "mmap", 60);
        CHECK_CHILD(run_again, "madvise", 60);
    }
    return 0;
}
