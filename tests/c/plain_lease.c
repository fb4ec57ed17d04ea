/* plain_lease.c: leases under contention: threads take, load, strike and expire the same segments; at the end nothing is held. */
#include "harness.h"

#include <isthmus/lease.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { THREADS = 3, BOXES = 32 };

/* A pickle under way: taken by whoever swaps it out. */
struct pickle {
    ist_token token;
    uint64_t number, tag;
};
static _Atomic(struct pickle *) boxes[BOXES];
static _Atomic(uint64_t) loaded, gone, taken;
static uint64_t end;

static void read_pickle(struct pickle *p, uint64_t how) {
    ist_segment s;
    if (how % 8 == 0)
        ist_lease_strike(&p->token, p->number);
    else {
        int error = ist_lease_load(&p->token, p->number, &s);
        CHECK(error == 0 || error == -ESTALE, "%s", ist_strerror(error));
        atomic_fetch_add_explicit(error == 0 ? &loaded : &gone, 1, memory_order_relaxed); /* relaxed: statistics */
        if (error == 0) {
            CHECK(test_filled(ist_segment_data(s), ist_segment_size(s), p->tag));
            ist_segment_release(s);
        }
    }
    free(p);
}

static void *storm(void *argument) {
    uint64_t random = test_seed() * (2 * (uintptr_t)argument + 3) | 1;
    do {
        uint64_t tag = test_random(&random);
        ist_segment s = test_create(100 + tag % 2000, 0);
        test_fill(ist_segment_data(s), ist_segment_size(s), tag);
        for (uint64_t n = test_random(&random) % 4; n > 0; n--) {
            struct pickle *p = malloc(sizeof *p);
            *p = (struct pickle){.token = test_token(s), .tag = tag};
            CHECK_EQ(ist_lease_take(s, &p->number), 0);
            atomic_fetch_add_explicit(&taken, 1, memory_order_relaxed);
            /* acq_rel: hands one pickle over, takes another */
            struct pickle *other = atomic_exchange_explicit(&boxes[test_random(&random) % BOXES], p, memory_order_acq_rel);
            if (other != NULL)
                read_pickle(other, test_random(&random));
        }
        ist_segment_release(s);
        if (test_random(&random) % 64 == 0)
            ist_lease_expire();
        if (test_random(&random) % 64 == 0)
            ist_lease_set_duration(1000000 + test_random(&random) % 100000000);
    } while (test_now() < end);
    return NULL;
}

static bool none_left(void *unused) {
    (void)unused;
    ist_stats stats = test_stats();
    return stats.leases == 0 && stats.segments == 0; /* they are released behind the table's lock */
}

int main(void) {
    test_seed();
    ist_lease_set_duration(20000000); /* 20 ms: many run out, and the housekeeper is at work all the time */
    end = test_storm_end(2);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        threads[i] = test_thread(storm, (void *)i);
    for (int i = 0; i < THREADS; i++)
        test_join(threads[i]);
    for (int i = 0; i < BOXES; i++)
        free(boxes[i]); /* never read: the housekeeper ends them */
    CHECK(test_until(none_left, NULL, 10), "leases stay for ever");
    ist_stats stats = test_stats();
    printf("%llu taken, %llu loaded, %llu too late, %llu ran out\n", (unsigned long long)taken, (unsigned long long)loaded,
           (unsigned long long)gone, (unsigned long long)stats.leases_expired);
    CHECK_EQ(stats.segments + stats.lease_bytes + stats.misuses + stats.saturated, 0);
    CHECK(loaded > 0 && stats.leases_expired > 0);
    return 0;
}
