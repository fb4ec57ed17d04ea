/* test_failures.c: every call to the system and every allocation fails once, over a full cycle of what the library does.
 *
 * The table isti_os is replaced by one that counts its calls and fails the n-th, for n = 1, 2, … until a cycle ends before n is reached.
 * Each n runs in a child that hasn't used the library yet, so the making of its heap, tables and threads is part of the cycle. Afterwards a
 * cycle without failures has to succeed as a whole, and what is left over has to be what a child without any failure leaves.
 *
 * Everything runs in one thread and on a clock that only the housekeeper's sleep moves, so that n names the same call each time.
 */
#include "harness.h"
#include "os.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <isthmus/lease.h>
#include <isthmus/queue.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef enum mode { ONCE, FROM_THEN_ON, OLD_KERNEL } mode;
static const char *const mode_names[] = {"once", "from then on", "once, without MADV_POPULATE_WRITE"};

static struct isti_os real;
static mode how;
static unsigned calls, fail_at; /* 0: none */
static long blocks, mappings, files;
static uint64_t clock_now = 1000000000;
static void *(*housekeeper)(void *), *(*asleep)(void *); /* to be started; started, and waiting for other processes */
static void *housekeeper_argument;

static bool fails(void) {
    calls++;
    return fail_at != 0 && (how == FROM_THEN_ON ? calls >= fail_at : calls == fail_at);
}

static int failed(int error) {
    errno = error;
    return -1;
}

static int f_memfd_create(const char *name, unsigned flags) {
    if (fails())
        return failed(EMFILE);
    int fd = real.memfd_create(name, flags);
    files += fd >= 0;
    return fd;
}
static int f_ftruncate(int fd, off_t size) { return fails() ? failed(EIO) : real.ftruncate(fd, size); }
static int f_add_seals(int fd, int seals) { return fails() ? failed(EPERM) : real.add_seals(fd, seals); }
static int f_fstat(int fd, struct stat *st) { return fails() ? failed(EIO) : real.fstat(fd, st); }
static int f_fallocate(int fd, int flags, off_t offset, off_t size) {
    return fails() ? failed(ENOMEM) : real.fallocate(fd, flags, offset, size);
}
/* An end that fails has ended it nevertheless: else the leak would be the system's. */
static int f_close(int fd) {
    files--;
    int result = real.close(fd);
    return fails() ? failed(EINTR) : result;
}
static void *f_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    if (fails()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *block = real.mmap(address, size, protection, flags, fd, offset);
    mappings += block != MAP_FAILED;
    return block;
}
static int f_munmap(void *address, size_t size) {
    mappings--;
    int result = real.munmap(address, size);
    return fails() ? failed(ENOMEM) : result;
}
static int f_madvise(void *address, size_t size, int advice) {
    if (fails())
        return failed(ENOMEM);
    if (how == OLD_KERNEL && advice == 23 /* MADV_POPULATE_WRITE */)
        return failed(EINVAL);
    return real.madvise(address, size, advice);
}
static int f_msync(void *address, size_t size, int flags) { return fails() ? failed(EIO) : real.msync(address, size, flags); }
static uint64_t f_born(int fd) { return fails() ? 0 : real.born(fd); }

static int f_getrlimit(int resource, struct rlimit *limit) { return fails() ? failed(EFAULT) : real.getrlimit(resource, limit); }
static int f_open(const char *path, int flags) {
    if (fails())
        return failed(EMFILE);
    int fd = real.open(path, flags);
    files += fd >= 0;
    return fd;
}
static int f_dup3(int from, int to, int flags) { return fails() ? failed(EBADF) : real.dup3(from, to, flags); }
static int f_get_seals(int fd) { return fails() ? failed(EINVAL) : real.get_seals(fd); }
static off_t f_lseek(int fd, off_t offset, int whence) { return fails() ? failed(ENXIO) : real.lseek(fd, offset, whence); }
static ssize_t f_readlink(const char *path, char *target, size_t room) {
    return fails() ? failed(ENOENT) : real.readlink(path, target, room);
}
static void *f_opendir(const char *path) {
    if (fails()) {
        errno = ENOENT;
        return NULL;
    }
    void *directory = real.opendir(path);
    files += directory != NULL;
    return directory;
}
static const char *f_readdir(void *directory) { return real.readdir(directory); } /* as many calls as the machine has processes */
static int f_closedir(void *directory) {
    files--;
    return real.closedir(directory);
}
static int f_eventfd(unsigned value, int flags) {
    if (fails())
        return failed(EMFILE);
    int fd = real.eventfd(value, flags);
    files += fd >= 0;
    return fd;
}
static ssize_t f_read(int fd, void *bytes, size_t size) { return fails() ? failed(EAGAIN) : real.read(fd, bytes, size); }
static ssize_t f_write(int fd, const void *bytes, size_t size) { return fails() ? failed(EAGAIN) : real.write(fd, bytes, size); }
static int f_lock(int fd, short type, int64_t byte) {
    if (type == F_UNLCK)
        return real.lock(fd, type, byte);
    return fails() ? failed(ENOLCK) : real.lock(fd, type, byte);
}
static int f_lock_test(int fd, int64_t byte) { return fails() ? failed(EINVAL) : real.lock_test(fd, byte); }
static ssize_t f_getrandom(void *bytes, size_t size, unsigned flags) {
    return fails() ? failed(ENOSYS) : real.getrandom(bytes, size > 5 ? 5 : size, flags); /* in pieces, as the system may */
}
static uint64_t f_now(void) { return clock_now; }
static jmp_buf watching;
static int f_futex_wait(_Atomic(uint32_t) *word, uint32_t expected, uint64_t deadline) {
    (void)word, (void)expected;
    if (deadline == UINT64_MAX) /* nothing is due, it waits for other processes: the end of its turn. It holds no lock here */
        longjmp(watching, 1);
    clock_now = deadline > clock_now ? deadline : clock_now;
    return ETIMEDOUT;
}
static int f_futex_wake(_Atomic(uint32_t) *word, int waiters) {
    (void)word, (void)waiters;
    return 0;
}
static int f_thread_create(void *(*run)(void *), void *argument) {
    if (fails())
        return EAGAIN;
    CHECK(housekeeper == NULL, "two housekeepers");
    housekeeper = run;
    housekeeper_argument = argument;
    return 0;
}
static void *f_calloc(size_t count, size_t size) {
    if (fails())
        return NULL;
    void *block = real.calloc(count, size);
    blocks += block != NULL;
    return block;
}
static void f_free(void *block) {
    blocks -= block != NULL;
    real.free(block);
}
static bool many_alike; /* a loop of allocations that fail as one another do: not counted */
static void *f_mallocx(size_t size, int flags) { return !many_alike && fails() ? NULL : real.mallocx(size, flags); }

static void replace_all(void) {
    real = isti_os;
    isti_os = (struct isti_os){
        .memfd_create = f_memfd_create,
        .ftruncate = f_ftruncate,
        .add_seals = f_add_seals,
        .fstat = f_fstat,
        .born = f_born,
        .fallocate = f_fallocate,
        .close = f_close,
        .mmap = f_mmap,
        .munmap = f_munmap,
        .madvise = f_madvise,
        .msync = f_msync,
        .getrlimit = f_getrlimit,
        .open = f_open,
        .dup3 = f_dup3,
        .get_seals = f_get_seals,
        .lseek = f_lseek,
        .readlink = f_readlink,
        .opendir = f_opendir,
        .readdir = f_readdir,
        .closedir = f_closedir,
        .lock = f_lock,
        .lock_test = f_lock_test,
        .eventfd = f_eventfd,
        .read = f_read,
        .write = f_write,
        .getrandom = f_getrandom,
        .now = f_now,
        .futex_wait = f_futex_wait,
        .futex_wake = f_futex_wake,
        .thread_create = f_thread_create,
        .calloc = f_calloc,
        .free = f_free,
        .mallocx = f_mallocx,
    };
    for (size_t i = 0; i < sizeof isti_os / sizeof(void *); i++)
        CHECK(((void **)(void *)&isti_os)[i] != NULL, "a member of isti_os that this test doesn't know");
}

/* ---- the cycle */

static bool must_succeed;
static int file; /* 3 pages */
static int wrapped, destroyed;

/* Did this step succeed? If it may fail, then with an error that has a text. */
static bool ok(int result, const char *step) {
    if (result == 0)
        return true;
    CHECK(!must_succeed, "%s: %s", step, ist_strerror(result));
    CHECK(result < 0 && strcmp(ist_strerror(result), "unknown error") != 0, "%s gives %d", step, result);
    return false;
}
#define OK(call) ok(call, #call)

static void destroy(void *ctx, void *data, size_t size) {
    (void)ctx, (void)data, (void)size;
    destroyed++;
}

static void create(ist_segment *s, size_t size, uint32_t flags) {
    if (!OK(ist_segment_create(size, flags, s)))
        return;
    unsigned char *data = ist_segment_data(*s);
    for (size_t i = 0; flags & IST_ZERO && i < size; i++)
        CHECK(data[i] == 0);
    test_fill(data, size, size);
}

/* A failure leaves the length as it was. */
static void create_growable(ist_segment *s, size_t size, size_t reserved, uint32_t flags) {
    if (!OK(ist_segment_create_growable(size, reserved, flags, s)))
        return;
    unsigned char *data = ist_segment_data(*s);
    CHECK_EQ(ist_segment_length(*s), size);
    size_t length = OK(ist_segment_grow(*s, reserved)) ? reserved : size;
    CHECK_EQ(ist_segment_length(*s), length);
    for (size_t i = 0; i < length; i++)
        CHECK(data[i] == 0);
    memset(data, 0x55, length);
}

static void share(ist_segment s) {
    ist_token token;
    ist_segment other;
    if (ist_segment_is_null(s) || !OK(ist_segment_token(s, &token)))
        return;
    if (OK(ist_segment_acquire(&token, &other))) {
        CHECK_EQ(test_owners(s), 2);
        ist_segment_release(other);
    }
    ist_segment_info info;
    ist_segment_read_info(s, &info);
    if (info.kind == IST_KIND_HEAP && OK(ist_segment_acquire_address(ist_segment_data(s), &other)))
        ist_segment_release(other);
    OK(ist_segment_freeze(s));
}

static void lease(ist_segment s) {
    uint64_t number;
    ist_token token;
    ist_segment loaded;
    if (ist_segment_is_null(s))
        return;
    if (OK(ist_lease_take(s, &number)) && OK(ist_segment_token(s, &token)) && OK(ist_lease_load(&token, number, &loaded)))
        ist_segment_release(loaded);
    if (OK(ist_lease_take(s, &number)) && OK(ist_segment_token(s, &token)))
        ist_lease_strike(&token, number);
    OK(ist_lease_take(s, &number)); /* this one runs out */
}

/* A message that can't be put, or got, leaves nothing; one that could is whole. */
static void queue(uint64_t maxsize) {
    enum { LISTED = 9 };
    ist_queue *q;
    ist_segment s[LISTED] = {{0}};
    if (!OK(ist_queue_create(maxsize, &q)))
        return;
    for (int i = 0; i < LISTED; i++)
        create(&s[i], 40, 0);
    int fd;
    OK(ist_queue_fileno(q, &fd));
    unsigned put = 0, got = 0;
    const uint32_t counts[] = {0, 1, LISTED, 2, LISTED};
    for (int i = 0; i < 5; i++) {
        ist_queue_message m = {.tag = 1, .size = 5, .count = counts[i], .many = s};
        for (uint32_t n = 0; n < m.count; n++)
            if (ist_segment_is_null(s[n]))
                m.count = 0;
        put += OK(ist_queue_put(q, &m, 0, NULL));
    }
    for (int i = 0; i < 3; i++) {
        ist_queue_message m;
        if (!OK(ist_queue_get(q, &m, 0, NULL)))
            continue;
        got++;
        for (uint32_t n = 0; n < m.count; n++)
            CHECK(test_filled(ist_segment_data((m.many != NULL ? m.many : m.few)[n]), 40, 40));
        ist_queue_message_clear(&m);
        OK(ist_queue_task_done(q));
    }
    ist_queue_info info;
    ist_queue_read_info(q, &info);
    CHECK_EQ(info.size, put - got);
    for (int i = 0; i < LISTED; i++)
        ist_segment_release(s[i]);
    ist_token token;
    ist_queue *again;
    if (OK(ist_segment_token(ist_queue_segment(q), &token)) && OK(ist_queue_attach(&token, &again)))
        ist_queue_release(again);
    ist_queue_release(q); /* with two messages in it */
}

static void *in_thread(void *unused) {
    (void)unused;
    ist_segment s = {0};
    create(&s, 300, IST_ZERO);
    share(s);
    lease(s);
    ist_segment_release(s);
    return NULL;
}

/* Until nothing is due: it ends, or goes to sleep, and wakes where it slept at its next turn. */
static void housekeepers_turn(void) {
    void *(*run)(void *) = housekeeper != NULL ? housekeeper : asleep;
    housekeeper = NULL;
    asleep = run;
    if (setjmp(watching) == 0) {
        run(housekeeper_argument);
        asleep = NULL;
    }
}

static void cycle(void) {
    enum { COUNT = 11 };
    static char outside[64];
    ist_segment s[COUNT] = {{0}};
    create(&s[0], 100, 0);
    create(&s[1], 5000, IST_ZERO);
    create(&s[2], 20000, IST_PREFAULT);
    create(&s[3], 1 << 20, IST_ZERO);
    create(&s[4], 0, 0);
    if (OK(ist_segment_wrap(outside, sizeof outside, destroy, NULL, 0, &s[5])))
        wrapped++;
    OK(ist_segment_map(file, 100, 5000, 0, &s[6]));
    if (!ist_segment_is_null(s[6])) {
        ist_file which;
        OK(ist_segment_sync(s[6]));
        OK(ist_segment_sync_range(s[6], 17, 4000));
        OK(ist_segment_file(s[6], &which));
        CHECK(which.offset == 100 && (which.path[0] == 0 || strncmp(which.path, "/memfd:mapped", 13) == 0));
    }
    OK(ist_segment_map(file, 4096, 4096, IST_PRIVATE, &s[7]));
    OK(ist_segment_map(file, 0, 1, IST_READONLY, &s[8]));
    create_growable(&s[9], 10, 300, IST_ZERO);
    create_growable(&s[10], 5000, 50000, IST_PREFAULT);
    for (int i = 0; i < COUNT; i++)
        share(s[i]);
    lease(s[0]);
    lease(s[5]);
    lease(s[6]);
    test_join(test_thread(in_thread, NULL));
    queue(5);
    queue(0);
    many_alike = true;
    for (int i = 0; i < 200; i++) { /* enough to look for work that no housekeeper does */
        ist_segment more = {0};
        create(&more, 64, 0);
        ist_segment_release(more);
    }
    many_alike = false;
    ist_collect();
    ist_stats stats = {.struct_size = sizeof stats};
    OK(ist_stats_read(&stats));
    for (int i = 0; i < COUNT; i++)
        if (i < 5 && !ist_segment_is_null(s[i]))
            CHECK(test_filled(ist_segment_data(s[i]), ist_segment_size(s[i]), ist_segment_size(s[i])));
    for (int i = 0; i < COUNT; i++)
        ist_segment_release(s[i]);
    if (housekeeper != NULL || asleep != NULL) {
        housekeepers_turn();
    } else {
        clock_now += UINT64_C(400) * 1000000000;
        ist_lease_expire();
    }
    ist_collect();
}

/* Nobody owns anything any more. */
static void check_empty(void) {
    ist_stats stats = test_stats();
    CHECK_EQ(stats.segments, 0);
    CHECK_EQ(stats.allocated, 0);
    CHECK_EQ(stats.owners, 0);
    CHECK_EQ(stats.leases, 0);
    CHECK_EQ(stats.lease_bytes, 0);
    CHECK_EQ(stats.saturated + stats.misuses, 0);
    CHECK_EQ(wrapped, destroyed);
}

struct outcome {
    unsigned calls; /* of a cycle, as far as it came */
    bool done;
    long blocks, mappings, files;
};

struct attempt {
    mode how;
    unsigned fail_at;
    struct outcome *outcome; /* shared */
};

static void run(void *argument) {
    const struct attempt *a = argument;
    replace_all();
    how = a->how;
    fail_at = a->fail_at;
    cycle();
    a->outcome->calls = calls;
    fail_at = 0;
    check_empty();
    must_succeed = true;
    cycle();
    check_empty();
    a->outcome->blocks = blocks;
    a->outcome->mappings = mappings;
    a->outcome->files = files;
    cycle(); /* and a cycle leaves nothing */
    check_empty();
    CHECK_EQ(blocks, a->outcome->blocks);
    CHECK_EQ(mappings, a->outcome->mappings);
    CHECK_EQ(files, a->outcome->files);
    a->outcome->done = true;
}

static struct outcome attempt(mode m, unsigned n) {
    static struct outcome *shared;
    if (shared == NULL)
        shared = test_shared(sizeof *shared);
    memset(shared, 0, sizeof *shared);
    struct attempt a = {.how = m, .fail_at = n, .outcome = shared};
    int status = test_in_child(run, &a, 60);
    CHECK(status == 0 && shared->done, "call %u failing (%s): wait status %#x", n, mode_names[m], status);
    return *shared;
}

static void sweep(mode m) {
    file = memfd_create("mapped", MFD_CLOEXEC);
    CHECK(file >= 0 && ftruncate(file, 3 * 4096) == 0);
    struct outcome clean = attempt(m, 0);
    CHECK(clean.calls > 40, "%u calls", clean.calls);
    CHECK_EQ(clean.files, 2); /* the domain's */
    unsigned n = 1;
    for (;; n++) {
        struct outcome outcome = attempt(m, n);
        CHECK(outcome.blocks == clean.blocks && outcome.mappings == clean.mappings && outcome.files == clean.files,
              "call %u failing (%s): %+ld blocks, %+ld mappings, %+ld files", n, mode_names[m], outcome.blocks - clean.blocks,
              outcome.mappings - clean.mappings, outcome.files - clean.files);
        if (outcome.calls < n)
            break;
    }
    CHECK(n > clean.calls || m == FROM_THEN_ON, "the sweep ended at %u of %u", n - 1, clean.calls);
    printf("sweep of failing calls, %s: %u\n", mode_names[m], n - 1);
    fflush(stdout);
    close(file);
}

Test(failures, each_call_once, .timeout = 280) { sweep(ONCE); }
Test(failures, each_call_and_all_after_it, .timeout = 280) { sweep(FROM_THEN_ON); }
Test(failures, each_call_once_on_an_old_kernel, .timeout = 280) { sweep(OLD_KERNEL); }
