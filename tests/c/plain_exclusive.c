/* plain_exclusive.c: decisions that only a sole owner may take, against acquires at the same moment (S6): many short rounds. */
#include "harness.h"
#include "slab.h"

#include <sched.h>
#include <stdatomic.h>

static _Atomic(unsigned) arrived, round_now;
static ist_segment segment;
static ist_token token;
static _Atomic(bool) over;

/* Both sides leave at nearly the same moment; two parties, reusable. */
static void meet(void) {
    /* acq_rel: what each side did before is seen by the other behind it */
    unsigned mine = atomic_load_explicit(&round_now, memory_order_acquire);
    if (atomic_fetch_add_explicit(&arrived, 1, memory_order_acq_rel) == 1) {
        atomic_store_explicit(&arrived, 0, memory_order_relaxed); /* relaxed: the release below publishes it */
        atomic_store_explicit(&round_now, mine + 1, memory_order_release);
        return;
    }
    for (unsigned spins = 0; atomic_load_explicit(&round_now, memory_order_acquire) == mine;)
        if (++spins % 1000 == 0)
            sched_yield();
}

/* Waits a little: nothing up to some microseconds, short ones more often, so that either side may be first. */
static void stagger(uint64_t *random) {
    for (uint64_t n = test_random(random) % (UINT64_C(1) << test_random(random) % 14); n > 0; n--)
        atomic_signal_fence(memory_order_seq_cst); /* only takes time */
}

/* In every fourth round one side is told to be the first, so that each outcome is met however busy the machine is. */
static enum { RACE, WE_FIRST, THEY_FIRST } order;
static _Atomic(bool) first_done;

static void plan(int i) {
    order = i % 8 == 1 ? WE_FIRST : i % 8 == 5 ? THEY_FIRST : RACE;
    atomic_store_explicit(&first_done, false, memory_order_relaxed); /* relaxed: the meeting that follows publishes it */
}

static void before_step(bool first, uint64_t *random) {
    if (order == RACE)
        stagger(random);
    else if (!first) /* relaxed: the order of time is all that is wanted; what is seen by whom is the library's work */
        while (!atomic_load_explicit(&first_done, memory_order_relaxed))
            sched_yield();
}

static void after_step(bool first) {
    if (first)
        atomic_store_explicit(&first_done, true, memory_order_relaxed);
}

/* ---- the acquirer: reports what it got, and lets go when the other side has looked */

typedef enum way { BY_TOKEN, BY_ADDRESS } way;
static struct {
    way way;
    int error;
    ist_segment got;
    bool frozen;
    int content;
} theirs;

static void *acquirer(void *unused) {
    (void)unused;
    uint64_t random = test_seed() ^ 0x5555;
    random |= 1;
    for (;;) {
        meet();
        if (atomic_load_explicit(&over, memory_order_relaxed)) /* relaxed: behind the meeting */
            return NULL;
        before_step(order == THEY_FIRST, &random);
        theirs.error = theirs.way == BY_TOKEN ? ist_segment_acquire(&token, &theirs.got)
                                              : ist_segment_acquire_address(ist_segment_data(segment), &theirs.got);
        if (theirs.error == 0) {
            theirs.frozen = ist_segment_is_frozen(theirs.got);
            theirs.content = *(int *)ist_segment_data(theirs.got);
        }
        after_step(order == THEY_FIRST);
        meet(); /* the other side is done, too */
        meet(); /* it has looked */
        if (theirs.error == 0)
            ist_segment_release(theirs.got);
        meet();
    }
}

static unsigned won, lost;

static void freeze_round(uint64_t *random, int i) {
    int *data = ist_segment_data(segment);
    *data = i; /* what was written before the freeze is seen by whoever acquires it frozen */
    plan(i);
    meet();
    before_step(order == WE_FIRST, random);
    int error = ist_segment_freeze(segment);
    after_step(order == WE_FIRST);
    meet();
    CHECK(theirs.error == 0, "%s", ist_strerror(theirs.error)); /* the segment lives, frozen or not */
    CHECK(error == 0 || error == -EBUSY);
    CHECK(theirs.frozen == (error == 0), "freeze gives %d, and the acquirer saw %s", error,
          theirs.frozen ? "a frozen segment" : "a writable one");
    CHECK_EQ(theirs.content, i);
    CHECK_EQ(ist_segment_is_frozen(segment), error == 0);
    *(error == 0 ? &won : &lost) += 1;
    meet();
    meet();
}

static void make_writable_round(uint64_t *random, int i, way by) {
    CHECK_EQ(ist_segment_freeze(segment), 0);
    token = test_token(segment);
    ist_segment before = segment;
    ist_segment mine = segment; /* `segment` itself is read by the other side */
    theirs.way = by;
    plan(i);
    meet();
    before_step(order == WE_FIRST, random);
    int error = ist_segment_make_writable(&mine);
    after_step(order == WE_FIRST);
    meet();
    CHECK(error == 0 || error == -EBUSY);
    if (by == BY_TOKEN)
        CHECK(error == 0 ? theirs.error == -ESTALE : theirs.error == 0, "make_writable gives %d, acquire %d", error, theirs.error);
    else {
        CHECK(theirs.error == 0, "the segment lives, and its address gives %d", theirs.error);
        CHECK_EQ(theirs.got.generation, before.generation + (error == 0));
    }
    CHECK(theirs.error != 0 || theirs.frozen == (error != 0));
    *(error == 0 ? &won : &lost) += 1;
    meet();
    meet();
    segment = mine;
}

static void report(const char *what) {
    printf("%s: %u won, %u lost\n", what, won, lost);
    CHECK(won > 0 && lost > 0);
    won = lost = 0;
}

static void renew(int content) {
    ist_segment_release(segment);
    segment = test_create(sizeof(int), 0);
    *(int *)ist_segment_data(segment) = content;
    token = test_token(segment);
}

/* ---- without rounds: nothing exclusive happens to a segment while somebody else owns it */

static _Atomic(uint64_t) held;

static void *owner_now_and_then(void *data) {
    uint64_t random = test_seed() ^ 0x7777;
    random |= 1;
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        ist_segment s;
        CHECK_EQ(ist_segment_acquire_address(data, &s), 0); /* it lives all the time */
        /* relaxed: this thread is an owner, so neither frozen nor generation may change */
        uint64_t low = (uint32_t)atomic_load_explicit(&s.slot->state, memory_order_relaxed);
        CHECK(low % IST_FROZEN == s.generation, "acquired generation %u, owns %#llx", s.generation, (unsigned long long)low);
        for (uint64_t n = test_random(&random) % 64; n > 0; n--) {
            uint64_t now = (uint32_t)atomic_load_explicit(&s.slot->state, memory_order_relaxed);
            CHECK(now == low, "an owner sees its segment change from %#llx to %#llx", (unsigned long long)low, (unsigned long long)now);
        }
        ist_segment_release(s);
        atomic_fetch_add_explicit(&held, 1, memory_order_relaxed);
        stagger(&random);
    }
    return NULL;
}

static void storm(void) {
    segment = test_create(sizeof(int), 0);
    pthread_t thread = test_thread(owner_now_and_then, ist_segment_data(segment));
    uint64_t end = test_storm_end(1);
    do
        for (int i = 0; i < 100; i++) {
            bool frozen = ist_segment_is_frozen(segment);
            int error = frozen ? ist_segment_make_writable(&segment) : ist_segment_freeze(segment);
            CHECK(error == 0 || error == -EBUSY);
            CHECK_EQ(ist_segment_is_frozen(segment), frozen != (error == 0));
            *(error == 0 ? &won : &lost) += 1;
        }
    while (test_now() < end || won == 0 || lost == 0);
    atomic_store_explicit(&over, true, memory_order_relaxed); /* relaxed: only a sign to stop */
    test_join(thread);
    atomic_store_explicit(&over, false, memory_order_relaxed);
    ist_segment_release(segment);
    segment = (ist_segment){0};
    printf("%llu times another owner\n", (unsigned long long)held);
    report("freeze and make_writable in turn");
}

/* ---- counting at the limit: reported once, however many run into it together */

#ifndef IST_DEBUG
static void *retainer(void *unused) {
    (void)unused;
    for (;;) {
        meet();
        if (atomic_load_explicit(&over, memory_order_relaxed))
            return NULL;
        ist_segment_retain(segment);
        meet();
    }
}

static void saturation_rounds(void) {
    pthread_t thread = test_thread(retainer, NULL);
    uint64_t before = test_stats().saturated;
    for (uint64_t i = 1; i <= 20000; i++) {
        segment = test_create(8, 0);
        atomic_store_explicit(&segment.slot->state, (uint64_t)IST_OWNERS_LIMIT << 32 | segment.generation, memory_order_relaxed);
        meet();
        ist_segment_retain(segment);
        meet();
        CHECK(test_owners(segment) >= IST_OWNERS_SATURATED, "%#x owners", test_owners(segment));
        CHECK_EQ(test_stats().saturated, before + i);
        /* back to one owner, so that the rounds don't fill the memory */
        atomic_store_explicit(&segment.slot->state, IST_ONE_OWNER | segment.generation, memory_order_relaxed);
        ist_segment_release(segment);
    }
    atomic_store_explicit(&over, true, memory_order_relaxed);
    meet();
    test_join(thread);
    atomic_store_explicit(&over, false, memory_order_relaxed);
    segment = (ist_segment){0};
}
#endif

int main(void) {
    uint64_t random = test_seed();
    pthread_t thread = test_thread(acquirer, NULL);
    uint64_t end = test_storm_end(0.5);
    int i = 0;
    theirs.way = BY_TOKEN;
    do {
        renew(0);
        freeze_round(&random, ++i);
    } while (test_now() < end);
    report("freeze against acquire by token");
    theirs.way = BY_ADDRESS;
    end = test_storm_end(0.5);
    do {
        renew(0);
        freeze_round(&random, ++i);
    } while (test_now() < end);
    report("freeze against acquire by address");
    for (way by = BY_TOKEN; by <= BY_ADDRESS; by++) {
        end = test_storm_end(0.5);
        do {
            if (++i % 64 == 0)
                renew(i);
            make_writable_round(&random, i, by);
        } while (test_now() < end);
        report(by == BY_TOKEN ? "make_writable against acquire by token" : "make_writable against acquire by address");
    }
    atomic_store_explicit(&over, true, memory_order_relaxed); /* relaxed: the meeting publishes it */
    meet();
    test_join(thread);
    atomic_store_explicit(&over, false, memory_order_relaxed);
    ist_segment_release(segment);
    CHECK_EQ(test_stats().segments, 0);
    segment = (ist_segment){0};
    storm();
    CHECK_EQ(test_stats().segments, 0);
#ifndef IST_DEBUG
    saturation_rounds();
    CHECK_EQ(test_stats().segments, 0);
#endif
    return 0;
}
