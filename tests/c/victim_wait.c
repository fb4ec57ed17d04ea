/* victim_wait.c: what the victim of plain_killpoints does with elements that somebody waits on. */
#include "domain.h"
#include "victim.h"

#include <isthmus/atomic.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A helper begins a wait and dies without having heard that it was notified; another one of ours is asleep meanwhile, and gets it. */
static void unheard(struct swarm_held *held, _Atomic(uint32_t) *ready, _Atomic(uint32_t) *go) {
    const pid_t me = getpid();
    const uint64_t tag = swarm_tag(held->segment);
    uint64_t woken;
    ist_wait w;
    pid_t helper;
    if ((helper = victim_fork()) == 0) {
        CHECK_EQ(ist_wait_begin(held->segment, 0, NULL, 8, tag, &w), 0);
        atomic_store_explicit(ready, 1, memory_order_release); /* pairs with victim_wait_for */
        victim_helper_waits(go, me);
        kill(getpid(), SIGKILL);
    }
    victim_wait_for(ready, helper);
    CHECK_EQ(ist_wait_begin(held->segment, 0, NULL, 8, tag, &w), 0);
    CHECK_EQ(ist_notify(held->segment, 0, 1, &woken), 0);
    CHECK_EQ(woken, 1);
    atomic_store_explicit(go, 1, memory_order_release); /* pairs with victim_helper_waits */
    victim_end_of(helper, true);
    ist_sweep(); /* by us, or by another just before */
    int error;
    while ((error = ist_wait_on(&w, test_now() + UINT64_C(20000000000), UINT64_MAX)) == -EINTR)
        ;
    CHECK_EQ(error, 0);
}

void victim_waits(struct swarm_held *held, _Atomic(uint32_t) *ready, _Atomic(uint32_t) *go) {
    const uint64_t tag = swarm_tag(held->segment);
    uint64_t woken;
    ist_wait w[3];
    CHECK_EQ(ist_wait_begin(held->segment, 0, NULL, 8, tag + 1, &w[0]), -EAGAIN);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(ist_wait_begin(held->segment, 0, NULL, 8, tag, &w[i]), 0);
    CHECK_EQ(ist_notify(held->segment, 0, 1, &woken), 0);
    CHECK_EQ(woken, 1);
    CHECK_EQ(ist_wait_on(&w[0], 0, UINT64_MAX), 0);
    CHECK_EQ(ist_wait_on(&w[1], 0, UINT64_MAX), -ETIMEDOUT);
    CHECK_EQ(ist_notify(held->segment, 0, 1, &woken), 0);
    ist_wait_cancel(&w[2]);
    /* without a thread that sleeps: told at once, and by whoever cancels */
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t count = 0;
    CHECK(fd >= 0);
    CHECK_EQ(ist_wait_begin_async(held->segment, 0, NULL, 8, tag, fd, &w[0]), 0);
    CHECK_EQ(ist_wait_begin_async(held->segment, 0, NULL, 8, tag, fd, &w[1]), 0);
    CHECK_EQ(ist_notify(held->segment, 0, 1, &woken), 0);
    ist_wait_cancel(&w[0]);
    CHECK(read(fd, &count, sizeof count) == sizeof count && count == 2);
    CHECK_EQ(ist_wait_on(&w[1], UINT64_MAX, 0), 0);
    close(fd);
    /* as if another were between its two looks: no other process can be made to stop just there */
    struct isti_domain *d = isti_domain_home_now();
    CHECK_EQ(ist_wait_begin(held->segment, 0, NULL, 8, tag, &w[0]), 0);
    _Atomic(uint64_t) *word = &d->waiter_rows[w[0].row / ISTI_WAITERS].rows[w[0].row % ISTI_WAITERS].word;
    atomic_store_explicit(word, w[0].word - (UINT64_C(2) << 12), memory_order_seq_cst);
    CHECK_EQ(ist_notify(held->segment, 0, 1, &woken), 0);
    CHECK_EQ(woken, 0);
    CHECK_EQ(atomic_load_explicit(word, memory_order_seq_cst), w[0].word - (UINT64_C(1) << 12));
    atomic_store_explicit(word, w[0].word - (UINT64_C(4) << 12), memory_order_seq_cst);
    unheard(held, ready, go);
}
