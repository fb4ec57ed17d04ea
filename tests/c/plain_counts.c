/* plain_counts.c: counts under contention (S1, S2, S4, S7): threads create, retain, acquire by token and by address, hand over and release,
 * while others free and reuse the same slots and blocks.
 *
 * Some segments are published, so that they can be acquired by token: then a token may bring back, in another slot, one whose last owner is
 * just letting go. A segment's name is its descriptor, or its slot if it has none.
 *
 * Every block names the segment it belongs to and is filled with a pattern made of that name; each owner checks both and then writes to a
 * place of its own in it, right before it lets go. A block freed too early is overwritten by the next creator (whose writes race with the
 * checks: ThreadSanitizer sees that as well); blocks of wrapped segments are destroyed by the last owner.
 */
#include "harness.h"

#include <isthmus/segment_inline.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, CELLS = 16, OWN = 24 };

struct block {
    _Atomic(uint64_t) magic; /* ALIVE ^ name */
    uint64_t pattern[5];
    uint64_t places[THREADS]; /* each thread writes its own only */
};
#define ALIVE UINT64_C(0x11FE11FE11FE11FE)
#define DEAD UINT64_C(0xDEADDEADDEADDEAD)

/* What anybody may try to acquire; owns nothing. */
static struct {
    _Atomic(uint64_t) name; /* of a published one */
    _Atomic(void *) data;
} cells[CELLS];
static _Atomic(uint64_t) mailboxes[CELLS]; /* an owned reference, under way to whoever takes it; 0: none */
static _Atomic(uint64_t) wrapped, destroyed, stale, acquired, found;
static ist_slot *_Atomic slots[1 << 16]; /* by index, for handles made of a name */
static uint8_t domain[16];
static uint64_t end;

#define PUBLISHED (UINT64_C(1) << 63)

static uint64_t name_of(ist_segment s) {
    ist_segment_info info;
    ist_segment_read_info(s, &info);
    return info.published ? PUBLISHED | (uint64_t)info.descriptor_generation << 32 | (info.descriptor + 1u)
                          : (uint64_t)s.generation << 32 | (s.index + 1u);
}

static ist_token token_of(uint64_t name) {
    ist_token token;
    uint32_t index = (uint32_t)name - 1, generation = (uint32_t)((name & ~PUBLISHED) >> 32);
    memcpy(token.bytes, domain, 16);
    memcpy(token.bytes + 16, &index, 4);
    memcpy(token.bytes + 20, &generation, 4);
    return token;
}

static uint64_t handle_word(ist_segment s) { return (uint64_t)s.generation << 32 | (s.index + 1u); }

static ist_segment handle_of(uint64_t word) {
    uint32_t index = (uint32_t)word - 1;
    /* relaxed: slots never move, and the word came by an exchange */
    return (ist_segment){
        .slot = atomic_load_explicit(&slots[index], memory_order_relaxed), .generation = (uint32_t)(word >> 32), .index = index};
}

static void remember(ist_segment s) {
    CHECK(s.index < 1 << 16);
    atomic_store_explicit(&slots[s.index], s.slot, memory_order_relaxed); /* relaxed: the same for ever */
}

/* The block is written after create, so somebody who found it by its address may come before that. */
static void write_block(struct block *b, uint64_t name) {
    for (unsigned i = 0; i < 5; i++)
        b->pattern[i] = name * (2 * i + 3);
    memset(b->places, 0, sizeof b->places);
    /* release: pairs with check_block's acquire; the pattern and the empty places are then seen */
    atomic_store_explicit(&b->magic, ALIVE ^ name, memory_order_release);
}

static void check_block(ist_segment s, const char *who) {
    struct block *b = ist_segment_data(s);
    uint64_t name, magic;
    uint64_t deadline = 0;
    while ((magic = atomic_load_explicit(&b->magic, memory_order_acquire)) != (ALIVE ^ (name = name_of(s)))) {
        deadline = deadline == 0 ? test_now() + UINT64_C(20000000000) : deadline;
        CHECK(test_now() < deadline, "%s: segment %#llx has the block of %#llx", who, (unsigned long long)name,
              (unsigned long long)(magic ^ ALIVE));
        sched_yield();
    }
    for (unsigned i = 0; i < 5; i++)
        CHECK(b->pattern[i] == name * (2 * i + 3), "%s: the pattern of %#llx is broken", who, (unsigned long long)name);
}

static void destroy(void *ctx, void *data, size_t size) {
    struct block *b = data;
    (void)ctx;
    /* relaxed: the last owner is alone with it */
    CHECK(atomic_exchange_explicit(&b->magic, DEAD, memory_order_relaxed) != DEAD && size == sizeof *b, "destroyed twice");
    memset(b->pattern, 0xDE, sizeof b->pattern);
    memset(b->places, 0xDE, sizeof b->places);
    free(b);
    atomic_fetch_add_explicit(&destroyed, 1, memory_order_relaxed); /* relaxed, as all of these: statistics */
}

static void let_go(ist_segment s, unsigned me) {
    check_block(s, "owner");
    ((struct block *)ist_segment_data(s))->places[me]++;
    if (me % 2)
        ist_segment_release(s);
    else
        ist_segment_release_inline(s);
}

static ist_segment make(uint64_t *random) {
    ist_segment s;
    if (test_random(random) % 4 == 0) {
        struct block *b = malloc(sizeof *b);
        atomic_store_explicit(&b->magic, 0, memory_order_relaxed); /* relaxed: nobody knows it yet */
        CHECK_EQ(ist_segment_wrap(b, sizeof *b, destroy, NULL, 0, &s), 0);
        atomic_fetch_add_explicit(&wrapped, 1, memory_order_relaxed);
    } else
        s = test_create(sizeof(struct block) + test_random(random) % 3 * 8000, 0);
    remember(s);
    if (test_random(random) % 2 == 0)
        test_token(s);
    write_block(ist_segment_data(s), name_of(s));
    return s;
}

static void step(ist_segment own[OWN], size_t *count, uint64_t *random, unsigned me) {
    size_t cell = test_random(random) % CELLS;
    ist_segment s;
    switch (test_random(random) % 8) {
    case 0:
    case 1: /* a new one, known to all */
        if (*count == OWN)
            break;
        s = own[(*count)++] = make(random);
        /* release: as a message would; whoever reads the cell sees the block that create published */
        atomic_store_explicit(&cells[cell].data, ist_segment_data(s), memory_order_release);
        if ((name_of(s) & PUBLISHED) != 0)
            atomic_store_explicit(&cells[cell].name, name_of(s), memory_order_release);
        break;
    case 2: { /* by token */
        uint64_t name = atomic_load_explicit(&cells[cell].name, memory_order_relaxed); /* relaxed: acquire orders it */
        if (name == 0 || *count == OWN)
            break;
        ist_token token = token_of(name);
        int error = ist_segment_acquire(&token, &s);
        CHECK(error == 0 || error == -ESTALE, "%s", ist_strerror(error));
        atomic_fetch_add_explicit(error == 0 ? &acquired : &stale, 1, memory_order_relaxed);
        if (error != 0)
            break;
        CHECK_EQ(name_of(s), name);
        remember(s);
        check_block(s, "by token");
        own[(*count)++] = s;
        break;
    }
    case 3: { /* by address */
        void *data = atomic_load_explicit(&cells[cell].data, memory_order_relaxed);
        if (data == NULL || *count == OWN)
            break;
        int error = ist_segment_acquire_address(data, &s);
        CHECK(error == 0 || error == -ESTALE, "%s", ist_strerror(error));
        if (error != 0)
            break;
        atomic_fetch_add_explicit(&found, 1, memory_order_relaxed);
        CHECK(ist_segment_data(s) == data);
        check_block(s, "by address");
        own[(*count)++] = s;
        break;
    }
    case 4: { /* one more reference, to another thread */
        if (*count == 0)
            break;
        s = own[test_random(random) % *count];
        ist_segment_retain_inline(s);
        /* acq_rel: hands this reference over, takes another thread's */
        uint64_t other = atomic_exchange_explicit(&mailboxes[cell], handle_word(s), memory_order_acq_rel);
        if (other != 0)
            let_go(handle_of(other), me);
        break;
    }
    default:
        if (*count == 0)
            break;
        size_t k = test_random(random) % *count;
        s = own[k];
        own[k] = own[--*count];
        let_go(s, me);
    }
}

static void *storm(void *argument) {
    unsigned me = (unsigned)(uintptr_t)argument;
    uint64_t random = test_seed() * (me + 1) | 1;
    ist_segment own[OWN];
    size_t count = 0;
    uint64_t steps = 0;
    do {
        for (int i = 0; i < 256; i++)
            step(own, &count, &random, me);
        steps += 256;
    } while (test_now() < end);
    while (count > 0)
        let_go(own[--count], me);
    return (void *)(uintptr_t)steps;
}

int main(void) {
    test_seed();
    CHECK_EQ(ist_domain_id(domain), 0);
    end = test_storm_end(2);
    pthread_t threads[THREADS];
    uint64_t steps = 0;
    for (uintptr_t i = 0; i < THREADS; i++)
        threads[i] = test_thread(storm, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        CHECK_EQ(pthread_join(threads[i], &result), 0);
        steps += (uintptr_t)result;
    }
    for (int i = 0; i < CELLS; i++)
        if (mailboxes[i] != 0)
            let_go(handle_of(mailboxes[i]), 0);
    printf("%llu steps, %llu acquired by token, %llu by address, %llu stale, %llu wrapped\n", (unsigned long long)steps,
           (unsigned long long)acquired, (unsigned long long)found, (unsigned long long)stale, (unsigned long long)wrapped);
    ist_stats stats = test_stats();
    CHECK_EQ(stats.segments, 0);
    CHECK_EQ(stats.allocated, 0);
    CHECK_EQ(stats.misuses + stats.saturated, 0);
    CHECK_EQ(wrapped, destroyed);
    CHECK(acquired > 0 && found > 0 && stale > 0 && wrapped > 0);
    return 0;
}
