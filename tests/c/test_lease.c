/* test_lease.c: leases (L1 to L4) on a clock that the tests turn. plain_lease has the race, test_housekeeper.c the end without a call. */
#include "harness.h"
#include "os.h"

#include <criterion/criterion.h>
#include <isthmus/heap.h>
#include <isthmus/lease.h>
#include <isthmus/queue.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)

static uint64_t clock_now = 1000 * SECOND;
static uint64_t turned(void) { return clock_now; }
static int no_thread(void *(*run)(void *), void *argument) {
    (void)run, (void)argument;
    return EAGAIN;
}

static void setup(void) {
    isti_os.now = turned;
    isti_os.thread_create = no_thread;
}
TestSuite(lease, .init = setup);

static uint64_t take(ist_segment s) {
    uint64_t number = 0;
    CHECK_EQ(ist_lease_take(s, &number), 0);
    CHECK(number != 0);
    return number;
}

static int load(ist_token token, uint64_t number) {
    ist_segment s;
    int error = ist_lease_load(&token, number, &s);
    if (error == 0)
        ist_segment_release(s);
    return error;
}

Test(lease, holds_until_loaded) {
    ist_segment s = test_create(100, 0), loaded;
    test_fill(ist_segment_data(s), 100, 4);
    ist_token token = test_token(s);
    uint64_t number = take(s);
    CHECK_EQ(test_owners(s), 2);
    CHECK_EQ(test_stats().leases, 1);
    CHECK_EQ(test_stats().lease_bytes, 100);
    ist_segment_release(s);
    CHECK_EQ(ist_lease_load(&token, number, &loaded), 0);
    CHECK(test_filled(ist_segment_data(loaded), 100, 4));
    CHECK_EQ(test_owners(loaded), 1);
    CHECK_EQ(test_stats().leases + test_stats().lease_bytes, 0);
    CHECK_EQ(load(token, number), 0); /* the same bytes again, while somebody holds it */
    CHECK_EQ(load(token, number), 0);
    CHECK_EQ(test_owners(loaded), 1);
    ist_segment_release(loaded);
    CHECK_EQ(load(token, number), -ESTALE); /* and then no more */
    CHECK_EQ(test_stats().segments, 0);
    CHECK_EQ(test_stats().leases_expired, 0);
}

Test(lease, one_reference_for_all_numbers) {
    enum { COUNT = 1000 };
    ist_segment s = test_create(100, 0);
    ist_token token = test_token(s);
    uint64_t numbers[COUNT];
    for (int i = 0; i < COUNT; i++) {
        numbers[i] = take(s);
        for (int k = 0; k < i; k += 97)
            CHECK(numbers[i] != numbers[k]);
    }
    CHECK_EQ(test_owners(s), 2);
    CHECK_EQ(test_stats().leases, 1);
    CHECK_EQ(test_stats().lease_bytes, 100);
    ist_segment_release(s);
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ(test_stats().segments, 1);
        CHECK_EQ(load(token, numbers[(i * 7) % COUNT]), 0);
    }
    CHECK_EQ(test_stats().segments, 0);
}

Test(lease, each_number_has_its_own_deadline) {
    CHECK_EQ(ist_lease_set_duration(10 * SECOND), 300 * SECOND);
    ist_segment s = test_create(100, 0);
    ist_token token = test_token(s);
    uint64_t ten = take(s);
    CHECK_EQ(ist_lease_set_duration(5 * SECOND), 10 * SECOND);
    uint64_t five = take(s);
    ist_lease_set_duration(20 * SECOND);
    uint64_t twenty = take(s);
    ist_segment_release(s);
    clock_now += 5 * SECOND - 1;
    CHECK_EQ(ist_lease_expire(), 0);
    clock_now += 1;
    CHECK_EQ(ist_lease_expire(), 1); /* five */
    CHECK_EQ(test_stats().leases, 1);
    CHECK_EQ(test_stats().leases_expired, 1);
    CHECK_EQ(load(token, five), 0); /* the others still hold */
    CHECK_EQ(load(token, ten), 0);
    clock_now += 14 * SECOND;
    CHECK_EQ(ist_lease_expire(), 0); /* ten was struck */
    CHECK_EQ(test_stats().segments, 1);
    clock_now += SECOND;
    CHECK_EQ(ist_collect(), 1);
    CHECK_EQ(test_stats().segments, 0);
    CHECK_EQ(test_stats().leases_expired, 2);
    CHECK_EQ(load(token, twenty), -ESTALE);
    CHECK_EQ(ist_lease_set_duration(0), 20 * SECOND);
    CHECK_EQ(ist_lease_set_duration(UINT64_MAX), 1000000); /* 1 ms … 100 years */
    CHECK_EQ(ist_lease_set_duration(1), UINT64_C(100) * 365 * 24 * 3600 * SECOND);
}

Test(lease, the_longest_ends_late_but_not_at_once) {
    ist_lease_set_duration(UINT64_MAX);
    ist_segment s = test_create(100, 0);
    take(s);
    ist_segment_release(s);
    clock_now += UINT64_C(1000000) * SECOND;
    CHECK_EQ(ist_lease_expire(), 0);
    CHECK_EQ(test_stats().leases, 1);
}

/* L2 */
Test(lease, a_number_counts_only_with_its_own_segment) {
    ist_segment a = test_create(100, 0), b = test_create(100, 0);
    ist_token of_a = test_token(a), of_b = test_token(b), garbage;
    uint64_t number_a = take(a), number_b = take(b);
    ist_lease_strike(&of_a, number_b);
    ist_lease_strike(&of_b, number_a);
    memset(garbage.bytes, 0xEE, sizeof garbage.bytes);
    ist_lease_strike(&garbage, number_a);
    ist_lease_strike(&of_a, 0);
    ist_lease_strike(&of_a, UINT64_MAX);
    CHECK_EQ(load(of_a, number_b), 0); /* the token is good while a lives; the number isn't a's */
    CHECK_EQ(test_owners(a), 2);
    CHECK_EQ(test_owners(b), 2);
    CHECK_EQ(load(garbage, number_a), -EXDEV);
    ist_lease_strike(&of_a, number_a);
    CHECK_EQ(test_owners(a), 1);
    ist_lease_strike(&of_a, number_a); /* once only */
    CHECK_EQ(test_owners(a), 1);
    ist_segment_release(a);
    ist_segment next = test_create(100, 0); /* a's slot in its next generation, leased: the old token must not reach it */
    CHECK_EQ(next.index, a.index);
    uint64_t number = take(next);
    ist_lease_strike(&of_a, number);
    CHECK_EQ(test_owners(next), 2);
    CHECK_EQ(load(of_a, number), -ESTALE);
    CHECK_EQ(test_owners(next), 2);
    ist_token foreign = test_token(next); /* a token of another domain that happens to name the same slot */
    foreign.bytes[0] ^= 1;
    CHECK_EQ(load(foreign, number), -EXDEV);
    CHECK_EQ(test_owners(next), 2);
    ist_lease_strike(&foreign, number);
    CHECK_EQ(test_owners(next), 2);
}

/* L3 */
Test(lease, the_oldest_go_when_only_leases_hold_too_much) {
    const size_t mib = 1 << 20;
    ist_options options = {.struct_size = sizeof options, .heap_size = 64 * mib};
    CHECK_EQ(ist_configure(&options), 0);
    ist_token tokens[24];
    uint64_t numbers[24];
    ist_segment kept = test_create(20 * mib, 0); /* leased, but not by leases alone: doesn't count */
    take(kept);
    for (int i = 0; i < 24; i++) {
        ist_segment s = test_create(mib, 0);
        tokens[i] = test_token(s);
        take(s);
        numbers[i] = take(s);
        ist_segment_release(s);
    }
    take(kept);
    CHECK_EQ(test_stats().leases, 17);
    CHECK_EQ(test_stats().lease_bytes, 36 * mib);
    CHECK_EQ(test_stats().leases_expired, 2 * 8);
    CHECK_EQ(test_owners(kept), 2);
    for (int i = 0; i < 24; i++)
        CHECK_EQ(load(tokens[i], numbers[i]), i < 8 ? -ESTALE : 0);
    ist_segment_release(kept); /* now a lease alone holds 20 MiB */
    ist_segment s = test_create(1, 0);
    take(s);
    CHECK_EQ(test_stats().segments, 17); /* 16 of a MiB and s: the oldest went */
}

static int destroyed;
static void destroy(void *ctx, void *data, size_t size) {
    (void)ctx, (void)data, (void)size;
    destroyed++;
}

Test(lease, holds_wrapped_memory_before_there_is_a_heap) {
    static char outside[2][100];
    ist_segment a, b;
    CHECK_EQ(ist_segment_wrap(outside[0], 100, destroy, NULL, 0, &a), 0);
    ist_token token = test_token(a);
    uint64_t number = take(a);
    ist_segment_release(a);
    CHECK_EQ(ist_segment_wrap(outside[1], 100, destroy, NULL, 0, &b), 0);
    take(b);
    CHECK_EQ(destroyed, 0);
    CHECK_EQ(load(token, number), 0);
    CHECK_EQ(destroyed, 1);
}

/* L1: destructors run outside the table's lock */
static ist_segment to_lease;
static void leasing_free(void *ctx, void *data, size_t size) {
    (void)ctx, (void)data, (void)size;
    destroyed++;
    take(to_lease);
    ist_lease_expire();
    CHECK(test_stats().leases > 0);
}

static uint64_t take_carried(ist_segment s, ist_segment carrier) {
    uint64_t number = 0;
    CHECK_EQ(ist_lease_take_carried(s, carrier, &number), 0);
    CHECK(number != 0);
    return number;
}

Test(lease, a_carried_number_lasts_as_long_as_its_carrier) {
    ist_segment s = test_create(100, 0), carrier = test_create(10, 0), loaded;
    ist_token token = test_token(s);
    uint64_t first = take_carried(s, carrier), second = take_carried(s, carrier);
    take(s);
    ist_segment_release(s);
    clock_now += 301 * SECOND;
    CHECK_EQ(ist_lease_expire(), 1); /* of the one that isn't carried */
    for (int i = 0; i < 1000; i++) {
        clock_now += 10 * SECOND;
        CHECK_EQ(ist_lease_expire(), 0);
    }
    CHECK_EQ(ist_lease_load(&token, first, &loaded), 0);
    ist_segment_release(loaded);
    CHECK_EQ(test_stats().leases, 1);
    ist_segment_release(carrier);
    CHECK_EQ(ist_lease_expire(), 0);
    CHECK_EQ(test_stats().leases, 1); /* it isn't looked at before a second is over */
    clock_now += SECOND;
    CHECK_EQ(ist_lease_expire(), 0);
    CHECK_EQ(test_stats().leases + test_stats().segments, 0);
    CHECK_EQ(load(token, second), -ESTALE);
    CHECK_EQ(test_stats().leases_expired, 1);
}

Test(lease, a_carried_number_isnt_its_carriers_next_generations) {
    ist_segment s = test_create(100, 0), carrier = test_create(10, 0);
    take_carried(s, carrier);
    ist_segment_release(s);
    ist_segment_release(carrier);
    ist_segment next = test_create(10, 0);
    test_token(next); /* the same row, if there is any order in it */
    clock_now += SECOND;
    ist_lease_expire();
    CHECK_EQ(test_stats().leases, 0);
    ist_segment_release(next);
}

static ist_queue_message message_of(ist_segment segment) { return (ist_queue_message){.tag = 1, .count = 1, .few = {segment}}; }

Test(lease, a_carrier_in_a_queue) {
    ist_segment s = test_create(100, 0), carriers[3];
    ist_queue *q;
    CHECK_EQ(ist_queue_create(0, &q), 0);
    ist_token token = test_token(s);
    uint64_t numbers[3];
    for (int i = 0; i < 3; i++) {
        carriers[i] = test_create(10, 0);
        numbers[i] = take_carried(s, carriers[i]);
        ist_queue_message m = message_of(carriers[i]);
        CHECK_EQ(ist_queue_put(q, &m, 0, NULL), 0);
        ist_segment_release(carriers[i]);
    }
    ist_segment_release(s);
    clock_now += 1000 * SECOND;
    CHECK_EQ(ist_lease_expire(), 0);
    ist_queue_message got;
    CHECK_EQ(ist_queue_get(q, &got, 0, NULL), 0);
    CHECK_EQ(load(token, numbers[0]), 0);
    ist_segment_release(got.few[0]);
    CHECK_EQ(ist_queue_shutdown(q, true), 0);
    CHECK_EQ(test_stats().leases, 0); /* at once */
    ist_queue_release(q);
    s = test_create(100, 0);
    CHECK_EQ(ist_queue_create(0, &q), 0);
    carriers[0] = test_create(10, 0);
    take_carried(s, carriers[0]);
    ist_queue_message m = message_of(carriers[0]);
    CHECK_EQ(ist_queue_put(q, &m, 0, NULL), 0);
    ist_segment_release(carriers[0]);
    ist_segment_release(s);
    CHECK_EQ(test_stats().leases, 1);
    ist_queue_release(q);
    CHECK_EQ(test_stats().leases + test_stats().segments, 0);
}

Test(lease, what_is_carried_isnt_bounded) {
    ist_options options = {.struct_size = sizeof options, .heap_size = 64 << 20};
    CHECK_EQ(ist_configure(&options), 0);
    ist_segment s[3], carrier = test_create(10, 0);
    for (int i = 0; i < 3; i++) {
        s[i] = test_create(10 << 20, 0);
        take_carried(s[i], carrier);
        ist_segment_release(s[i]);
    }
    CHECK_EQ(test_stats().leases, 3);
    ist_segment_release(carrier);
    clock_now += SECOND;
    ist_lease_expire();
    CHECK_EQ(test_stats().leases, 0);
}

Test(lease, destructors_may_use_leases, .timeout = 20) {
    static char outside[100];
    to_lease = test_create(64, 0);
    for (int way = 0; way < 4; way++) {
        ist_segment s;
        CHECK_EQ(ist_segment_wrap(outside, 100, leasing_free, NULL, 0, &s), 0);
        ist_token token = test_token(s);
        uint64_t number = take(s);
        ist_segment_release(s);
        CHECK_EQ(destroyed, way);
        if (way == 0)
            ist_lease_strike(&token, number);
        else if (way == 1)
            CHECK_EQ(load(token, number), 0);
        else {
            clock_now += 301 * SECOND;
            if (way == 2)
                CHECK(ist_lease_expire() >= 1);
            else
                take(to_lease); /* takes also look what is over */
        }
        CHECK_EQ(destroyed, way + 1);
    }
    clock_now += 301 * SECOND;
    ist_lease_expire();
    CHECK_EQ(test_owners(to_lease), 1);
    CHECK_EQ(test_stats().leases, 0);
}

/* Against a model that is a plain list. */
Test(lease, as_a_simple_model_says, .timeout = 60) {
    enum { SEGMENTS = 300, TICKETS = 3000, STEPS = 60000 };
    static ist_segment s[SEGMENTS];
    static ist_token tokens[SEGMENTS];
    static struct {
        uint64_t number, deadline;
        int segment;
    } tickets[TICKETS];
    size_t count = 0;
    uint64_t random = test_seed(), expired = 0;
    for (int i = 0; i < SEGMENTS; i++) {
        s[i] = test_create((size_t)i, 0);
        tokens[i] = test_token(s[i]);
    }
    for (int step = 0; step < STEPS; step++) {
        uint64_t what = test_random(&random) % 10;
        size_t k = count == 0 ? 0 : test_random(&random) % count;
        if (what < 6 && count < TICKETS) {
            int i = (int)(test_random(&random) % SEGMENTS);
            uint64_t duration = SECOND + test_random(&random) % (100 * SECOND);
            ist_lease_set_duration(duration);
            tickets[count].deadline = clock_now + duration;
            tickets[count].segment = i;
            tickets[count].number = take(s[i]);
            count++;
        } else if (what < 9 && count > 0) {
            if (what == 8)
                ist_lease_strike(&tokens[tickets[k].segment], tickets[k].number);
            else
                CHECK_EQ(load(tokens[tickets[k].segment], tickets[k].number), 0);
            tickets[k] = tickets[--count];
        } else
            clock_now += test_random(&random) % (SECOND / 10);
        for (size_t i = 0; i < count;) {
            if (tickets[i].deadline <= clock_now) {
                tickets[i] = tickets[--count];
                expired++;
            } else
                i++;
        }
        ist_lease_expire();
        if (step % 64 == 0) {
            bool leased[SEGMENTS] = {false};
            uint64_t leases = 0, bytes = 0;
            for (size_t i = 0; i < count; i++)
                leased[tickets[i].segment] = true;
            for (int i = 0; i < SEGMENTS; i++) {
                leases += leased[i];
                bytes += leased[i] ? (uint64_t)i : 0;
                CHECK_EQ(test_owners(s[i]), 1 + leased[i]);
            }
            ist_stats stats = test_stats();
            CHECK_EQ(stats.leases, leases);
            CHECK_EQ(stats.lease_bytes, bytes);
            CHECK_EQ(stats.leases_expired, expired);
        }
    }
    CHECK(expired > 100, "%llu expired", (unsigned long long)expired);
    clock_now += 200 * SECOND;
    CHECK_EQ(ist_lease_expire(), count);
    for (int i = 0; i < SEGMENTS; i++)
        ist_segment_release(s[i]);
    CHECK_EQ(test_stats().segments, 0);
}
