/* test_domain.c: joining a domain, being found, and being struck out of it (D3, D4). */
#include "domain.h"
#include "os.h"
#include "peer.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <isthmus/process.h>
#include <isthmus/queue.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(domain, .init = board_begin, .timeout = 60);

static struct isti_domain *home(void) {
    struct isti_domain *d;
    CHECK_EQ(isti_domain_home(&d), 0);
    return d;
}

static unsigned open_files(void) {
    DIR *directory = opendir("/proc/self/fd");
    unsigned n = 0;
    for (struct dirent *e; (e = readdir(directory)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(directory);
    return n - 1; /* the directory's own */
}

/* ---- steps of peers */

static long same_domain(void *unused) {
    (void)unused;
    uint8_t id[16];
    CHECK_EQ(ist_domain_id(id), 0);
    return memcmp(id, board->id, 16) == 0;
}

static long reach(void *unused) {
    (void)unused;
    return ist_domain_reach(&board->token, board->place);
}

static long processes(void *unused) {
    (void)unused;
    return (long)test_stats().processes;
}

static long configure(void *options) { return ist_configure(options); }

/* ---- joining */

Test(domain, a_process_joins_the_one_it_is_told_of) {
    peer p = peer_start();
    board_tell_home();
    unsigned files = open_files();
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, same_domain, NULL), 1);
    CHECK_EQ(test_stats().processes, 2);
    CHECK_EQ(peer_call(&p, processes, NULL), 2);
    CHECK_EQ(open_files(), files);
    peer_end(&p);
    CHECK_EQ(test_stats().processes, 1);
    CHECK_EQ(ist_sweep(), 1);
    CHECK_EQ(ist_sweep(), 0);
}

Test(domain, what_cannot_be_joined_is_not) {
    enum { N = 12 };
    peer p[N];
    for (int i = 0; i < N; i++)
        p[i] = peer_start();
    board_tell_home();
    char right[80];
    strcpy(right, board->text);
    struct isti_domain *d = home();
    char wrong[N][80];
    const char *id = strrchr(right, ':') + 1;
    snprintf(wrong[0], 80, "%s", "");
    snprintf(wrong[1], 80, "%s", "nonsense");
    snprintf(wrong[2], 80, "%.70s0", right);
    snprintf(wrong[3], 80, "%d:%d:%s", (int)getpid(), d->data_fd, id);     /* another file of ours */
    snprintf(wrong[4], 80, "%d:%d:%s", (int)getpid(), 9999, id);           /* no file */
    snprintf(wrong[5], 80, "%d:%d:%s", 1, d->control_fd, id);              /* another process */
    snprintf(wrong[6], 80, "%d:%d:%s", 0x7ffffff0, d->control_fd, id);     /* none */
    snprintf(wrong[7], 80, "%d:%d:%32.32s", (int)getpid(), d->control_fd, "0123456789abcdef0123456789abcdef"); /* another id */
    snprintf(wrong[8], 80, "%d:%d:%s", -5, d->control_fd, id);
    snprintf(wrong[9], 80, "%d:%d:%s", (int)getpid(), 0, id); /* standard input */
    snprintf(wrong[10], 80, "%.*s", (int)strlen(right) - 1, right);
    snprintf(wrong[11], 80, "%s", right);
    wrong[11][strlen(right) - 1] = 'G';
    for (int i = 0; i < N; i++) {
        strcpy(board->text, wrong[i]);
        CHECK(peer_call(&p[i], peer_join, board->text) == 0, "\"%s\": a process can always have a domain of its own", wrong[i]);
        CHECK(peer_call(&p[i], same_domain, NULL) == 0, "joined by \"%s\"", wrong[i]);
        peer_end(&p[i]);
    }
    CHECK_EQ(test_stats().processes, 1);
}

Test(domain, guests) {
    peer p = peer_start(), q = peer_start();
    *board = (struct board){.size = 5000, .tag = 77};
    CHECK_EQ(peer_call(&p, peer_offer, NULL), 0);
    CHECK_EQ(peer_attach(NULL), -EXDEV);
    ist_place right = board->place;
    board->place.fd = 0;
    CHECK_EQ(reach(NULL), -ENOENT);
    board->place = (ist_place){.pid = 0x7ffffff0, .fd = 3};
    CHECK_EQ(reach(NULL), -ENOENT);
    board->place = right;
    CHECK_EQ(reach(NULL), 0);
    CHECK_EQ(reach(NULL), 0); /* once is enough */
    CHECK_EQ(peer_attach(NULL), 0);
    CHECK_EQ(same_domain(NULL), 0); /* at home elsewhere */
    CHECK_EQ(peer_call(&q, reach, NULL), 0);
    CHECK_EQ(peer_call(&q, peer_attach, NULL), 0);
    ist_segment_info info;
    ist_segment_read_info(held, &info);
    CHECK_EQ(info.processes, 3);
    CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
    peer_kill(&p); /* its maker is gone: we hold it */
    CHECK(test_filled(ist_segment_data(held), 5000, 77));
    ist_segment own = test_create(100, 0); /* and allocate at home */
    ist_token token = test_token(own);
    CHECK(memcmp(token.bytes, board->token.bytes, 16) != 0);
    ist_segment_release(own);
    CHECK_EQ(peer_let_go(NULL), 0);
    CHECK_EQ(peer_call(&q, peer_attach, NULL), 0);
    ist_segment_release(held);
    CHECK_EQ(peer_call(&q, peer_let_go, NULL), 1); /* attached twice */
    peer_end(&q);
}

Test(domain, room_for_two_processes) {
    peer p = peer_start(), q = peer_start();
    ist_options options = {.struct_size = sizeof options, .processes = 2};
    CHECK_EQ(ist_configure(&options), 0);
    *board = (struct board){.size = 10, .tag = 1};
    peer_offer(NULL);
    ist_segment first = held; /* the one that will be killed holds this */
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, same_domain, NULL), 1);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    ist_token token = board->token;
    peer_offer(NULL);
    CHECK_EQ(peer_call(&q, peer_join, board->text), 0); /* a domain of its own */
    CHECK_EQ(peer_call(&q, same_domain, NULL), 0);
    CHECK_EQ(peer_call(&q, reach, NULL), -EUSERS);
    peer_kill(&p);
    CHECK_EQ(peer_call(&q, reach, NULL), 0); /* the dead one's place: it sweeps it by itself */
    CHECK_EQ(peer_call(&q, peer_attach, NULL), 0);
    ist_segment_release(first);
    CHECK(ist_segment_acquire(&token, &first) == -ESTALE, "what the dead one held is held by whoever has its place");
    peer_end(&q);
    peer_let_go(NULL);
}

static long leave_a_child(void *unused) {
    (void)unused;
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    return child;
}

Test(domain, a_child_does_not_keep_its_parent_alive) {
    peer p = peer_start();
    *board = (struct board){.size = 10, .tag = 1};
    peer_offer(NULL);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    long child = peer_call(&p, leave_a_child, NULL);
    CHECK_EQ(test_stats().processes, 3);
    peer_kill(&p);
    CHECK_EQ(test_stats().processes, 2);
    CHECK_EQ(ist_sweep(), 1);
    ist_token token = board->token;
    peer_let_go(NULL);
    CHECK_EQ(peer_attach(NULL), 0); /* the child holds what its parent held */
    peer_let_go(NULL);
    kill((pid_t)child, SIGKILL);
    for (uint64_t end = test_now() + UINT64_C(10000000000); test_stats().processes > 1 && test_now() < end;)
        sched_yield();
    ist_sweep();
    CHECK_EQ(ist_segment_acquire(&token, &held), -ESTALE);
}

Test(domain, options) {
    CHECK_EQ(ist_domain_join(), 0);
    uint32_t many = home()->descriptors;
    ist_options options = {.struct_size = sizeof options, .published = 5000, .heap_size = UINT64_C(128) << 30};
    CHECK_EQ(ist_configure(&options), 0); /* what was joined before its first use is made anew */
    CHECK(home()->descriptors == 8192 && many == ISTI_DESCRIPTORS);
    ist_segment s = test_create(1, 0);
    CHECK_EQ(ist_heap_size(), UINT64_C(128) << 30);
    CHECK_EQ(ist_configure(&options), -EBUSY);
    ist_segment_release(s);
    options.published = 4095;
    CHECK_EQ(ist_configure(&options), -EINVAL);
    options = (ist_options){.struct_size = sizeof options, .processes = 1025};
    CHECK_EQ(ist_configure(&options), -EINVAL);
}

/* Windows are mapped by their place in a file, so they are whole pages, and all together are a file's size. */
Test(domain, any_size_of_heap_can_be_shared) {
    const size_t sizes[] = {(UINT64_C(64) << 30) + 1, UINT64_C(1) << 53, UINT64_C(1) << 62, SIZE_MAX / 2};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    peer p[SIZES][2];
    ist_options *options = test_shared(sizeof *options);
    for (int i = 0; i < SIZES; i++)
        for (int k = 0; k < 2; k++)
            p[i][k] = peer_start();
    *board = (struct board){.size = 5000, .tag = 77};
    for (int i = 0; i < SIZES; i++) {
        *options = (ist_options){.struct_size = sizeof *options, .heap_size = sizes[i]};
        CHECK_EQ(peer_call(&p[i][0], configure, options), 0);
        CHECK_EQ(peer_call(&p[i][0], peer_offer, NULL), 0);
        CHECK_EQ(peer_call(&p[i][1], peer_join, board->text), 0);
        CHECK(peer_call(&p[i][1], same_domain, NULL) == 1, "%zu bytes", sizes[i]);
        CHECK_EQ(peer_call(&p[i][1], peer_attach, NULL), 0);
        CHECK_EQ(peer_call(&p[i][1], peer_let_go, NULL), 0);
        CHECK_EQ(peer_call(&p[i][1], peer_offer, NULL), 0); /* in a window of its own */
        CHECK_EQ(peer_call(&p[i][1], peer_let_go, NULL), 0);
        CHECK_EQ(peer_call(&p[i][0], peer_let_go, NULL), 0);
        peer_end(&p[i][0]);
        peer_end(&p[i][1]);
    }
}

static int no_proc(const char *path, int flags) {
    (void)path, (void)flags;
    errno = ENOENT;
    return -1;
}

Test(domain, without_proc_a_process_shares_with_itself) {
    isti_os.open = no_proc;
    ist_segment s = test_create(100, 0), t;
    ist_token token = test_token(s);
    CHECK_EQ(ist_segment_acquire(&token, &t), 0);
    ist_segment_release(t);
    uint64_t number;
    CHECK_EQ(ist_lease_take(s, &number), 0);
    CHECK_EQ(ist_lease_load(&token, number, &t), 0);
    ist_segment_release(t);
    char text[80];
    CHECK_EQ(ist_domain_text(text, sizeof text), -ENOSYS);
    CHECK_EQ(ist_sweep(), 0);
    ist_segment_release(s);
    CHECK_EQ(ist_segment_acquire(&token, &t), -ESTALE);
    CHECK_EQ(test_stats().segments, 0);
}

/* ---- the dead */

Test(domain, the_dead_are_struck_out_without_a_call) {
    peer p = peer_start();
    *board = (struct board){.size = 4 << 20, .tag = 5};
    CHECK_EQ(peer_call(&p, peer_offer, NULL), 0);
    setenv("ISTHMUS_DOMAIN", board->text, 1);
    CHECK_EQ(peer_attach(NULL), 0);
    CHECK_EQ(same_domain(NULL), 1);
    CHECK(!peer_memory_returns(4095, 0));
    peer_kill(&p);
    CHECK(test_filled(ist_segment_data(held), board->size, 5)); /* ours as well */
    ist_segment_release(held);
    CHECK(peer_memory_returns(0, 10), "the window of the dead keeps its memory");
    for (uint64_t end = test_now() + UINT64_C(5000000000); /* relaxed: the exchange that takes it orders */
         atomic_load_explicit(&home()->window_rows[0].used, memory_order_relaxed) != 0 && test_now() < end;)
        sched_yield();
    ist_segment s = test_create(100, 0);
    CHECK_EQ(home()->window, 0); /* it can be had again */
    ist_segment_release(s);
}

Test(domain, the_stopped_are_not) {
    peer p = peer_start();
    board_tell_home();
    *board = (struct board){.size = 3000, .tag = 9};
    peer_offer(NULL);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    kill(p.pid, SIGSTOP);
    for (int i = 0; i < 100; i++)
        CHECK_EQ(ist_sweep(), 0);
    peer_let_go(NULL);
    for (int i = 0; i < 100; i++) {
        ist_segment s = test_create(3000, 0);
        test_fill(ist_segment_data(s), 3000, 1);
        ist_segment_release(s);
    }
    kill(p.pid, SIGCONT);
    ist_token token = board->token;
    CHECK_EQ(ist_segment_acquire(&token, &held), 0); /* the peer holds it */
    CHECK(test_filled(ist_segment_data(held), 3000, 9));
    peer_let_go(NULL);
    CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
    CHECK_EQ(ist_segment_acquire(&token, &held), -ESTALE);
    peer_end(&p);
}

Test(domain, whoever_gets_the_lock_sweeps_and_nobody_else) {
    peer p = peer_start(), q = peer_start();
    board_tell_home();
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&q, peer_join, board->text), 0);
    struct isti_domain *d = home();
    uint32_t m = 0;
    while (atomic_load_explicit(&d->member_rows[m].pid, memory_order_relaxed) != (uint32_t)p.pid)
        CHECK(++m < 10);
    peer_kill(&p);
    pthread_mutex_lock(&isti_sweep_mutex);
    CHECK_EQ(isti_probe_lock(d, ISTI_LOCK_MEMBER + m), 0); /* we are sweeping it */
    CHECK_EQ(peer_call(&q, peer_sweep, NULL), 0);
    isti_probe_unlock(d, ISTI_LOCK_MEMBER + m);
    pthread_mutex_unlock(&isti_sweep_mutex);
    CHECK_EQ(peer_call(&q, peer_sweep, NULL), 1);
    CHECK_EQ(ist_sweep(), 0);
    peer_end(&q);
}

/* ---- descriptors that user code closed */

static void take_number(int number, int file) { CHECK_EQ(dup2(file, number), number); }

static void its_own_file(void *argument) {
    const int *mine = argument;
    for (int i = 0; i < 2; i++)
        CHECK_EQ(lseek(mine[i], 70, SEEK_SET), 70); /* where the parent's is too, if it is the same open file still */
    CHECK_EQ(ist_epoch(), 1);
    CHECK(test_filled(ist_segment_data(held), board->size, board->tag));
    CHECK_EQ(test_stats().processes, 3); /* alive, and known to be */
}

/* What user code opened under the numbers of ours is neither locked, nor mapped, nor moved in, nor opened anew. Ours come from the peer. */
Test(domain, files_that_have_our_numbers_are_left_alone) {
    peer p = peer_start();
    board_tell_home();
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    struct isti_domain *d = home();
    int mine[] = {d->control_fd, d->data_fd}, file = memfd_create("users", MFD_CLOEXEC);
    CHECK(file >= 0 && ftruncate(file, 1 << 20) == 0);
    take_number(mine[0], file);
    take_number(mine[1], file);
    CHECK_EQ(lseek(file, 50, SEEK_SET), 50);

    board->size = 5000, board->tag = 9; /* the first: it takes a window */
    peer_offer(NULL);
    ist_segment quiet = test_create(4 << 20, IST_PREFAULT);
    test_fill(ist_segment_data(quiet), 4 << 20, 3);
    CHECK_EQ(peer_call(&p, peer_sweep, NULL), 0);
    CHECK(test_filled(ist_segment_data(quiet), 4 << 20, 3), "our window has been swept as a dead process's");
    CHECK(test_stats().mapped >= 4 << 20);
    CHECK_EQ(lseek(file, 0, SEEK_CUR), 50);

    take_number(d->control_fd, file);
    take_number(d->data_fd, file);
    mine[0] = d->control_fd, mine[1] = d->data_fd;
    CHECK(test_stats().mapped >= 4 << 20);
    CHECK_CHILD(its_own_file, mine, 30);
    CHECK_EQ(lseek(file, 0, SEEK_CUR), 70);
    CHECK_EQ(peer_call(&p, peer_sweep, NULL), 1);
    struct stat st;
    CHECK(fstat(file, &st) == 0 && st.st_blocks == 0, "somebody wrote to the user's file");
    ist_segment_release(quiet);
    peer_let_go(NULL);
    peer_end(&p);
}

static void not_its_own(void *argument) {
    CHECK_EQ(lseek(*(const int *)argument, 70, SEEK_SET), 70);
    CHECK(ist_epoch() > 1); /* nothing says any more who lives: it can't be an owner */
}

/* The same where no other process has them. */
Test(domain, a_child_of_one_whose_descriptors_are_gone) {
    int file = memfd_create("users", MFD_CLOEXEC), number = home()->control_fd;
    CHECK(file >= 0);
    ist_segment s;
    CHECK_EQ(ist_segment_wrap(&file, sizeof file, NULL, NULL, 0, &held), 0);
    test_token(held); /* it holds something there */
    take_number(number, file);
    CHECK_EQ(ist_segment_create(100, 0, &s), -EBADF);
    CHECK_CHILD(not_its_own, &number, 30);
    CHECK_EQ(lseek(file, 0, SEEK_CUR), 70);
}

static void its_own(void *unused) {
    (void)unused;
    CHECK_EQ(ist_epoch(), 1);
    CHECK(test_filled(ist_segment_data(held), board->size, board->tag));
}

/* As a daemon's that was imported first: nothing has happened there yet, so another domain will do. */
Test(domain, a_new_home_for_one_whose_descriptors_are_gone) {
    peer p = peer_start();
    uint8_t id[16];
    CHECK_EQ(ist_domain_id(id), 0);
    ist_domain_watch();
    close(home()->control_fd);
    close(home()->data_fd);
    *board = (struct board){.size = 5000, .tag = 9};
    peer_offer(NULL);
    CHECK(memcmp(id, board->id, 16) != 0);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, same_domain, NULL), 1);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    CHECK_EQ(test_stats().processes, 2);
    CHECK_CHILD(its_own, NULL, 30);
    CHECK_EQ(peer_call(&p, peer_let_go, NULL), 0);
    peer_let_go(NULL);
    peer_end(&p);
}

Test(domain, closed_descriptors_come_back_from_another_process) {
    peer p = peer_start(), q = peer_start();
    *board = (struct board){.size = 3000, .tag = 9};
    peer_offer(NULL);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    struct isti_domain *d = home();
    int control = d->control_fd, data = d->data_fd;
    close(control);
    close(data);
    int other = open("/dev/null", O_RDWR); /* the number is another file's now */
    CHECK(other == control || other == data);
    CHECK_EQ(peer_call(&p, peer_attach, NULL), 0);
    peer_kill(&p);
    CHECK_EQ(ist_sweep(), 0); /* nobody left to get one from: it can't be told who lives */
    CHECK_EQ(fcntl(other, F_GETFD), 0);
    peer_end(&q);
    peer_let_go(NULL);
}

/* ---- a place whose process left a queue with a list in it: whoever takes it owns the list for a moment (see domain.c, joining) */

static long leave_a_queue(void *unused) {
    (void)unused;
    enum { LISTED = 9 };
    ist_queue *q;
    ist_segment s[LISTED];
    CHECK_EQ(ist_queue_create(2, &q), 0);
    for (int i = 0; i < LISTED; i++)
        s[i] = test_create(100, 0);
    ist_queue_message m = {.count = LISTED, .many = s};
    CHECK_EQ(ist_queue_put(q, &m, 0, NULL), 0);
    for (int i = 0; i < LISTED; i++)
        ist_segment_release(s[i]);
    return 0;
}

Test(domain, a_newcomer_ends_the_queue_of_whose_place_it_gets) {
    peer p = peer_start(), q = peer_start();
    ist_options options = {.struct_size = sizeof options, .processes = 2, .flags = IST_OPTION_NO_HOUSEKEEPER};
    CHECK_EQ(ist_configure(&options), 0);
    *board = (struct board){.size = 10, .tag = 1};
    peer_offer(NULL);
    CHECK_EQ(peer_call(&p, peer_join, board->text), 0);
    CHECK_EQ(peer_call(&p, leave_a_queue, NULL), 0);
    peer_kill(&p);
    CHECK_EQ(peer_call(&q, reach, NULL), 0);
    peer_let_go(NULL);
    ist_sweep();
    struct isti_domain *d = home();
    for (uint32_t i = 0; i < isti_descriptors_high(d); i++) {
        uint64_t s = atomic_load_explicit(&d->descriptor_rows[i].state, memory_order_relaxed);
        CHECK(isti_s_phase(s) == ISTI_FREE && isti_holders(d, i) == 0, "row %u: %#llx", i, (unsigned long long)s);
    }
    peer_end(&q);
}
