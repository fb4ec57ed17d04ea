/* plain_million.c: a million segments at once, what each costs beside its data, and a million releases deep. */
#include "harness.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define COUNT (TEST_TSAN || TEST_ASAN ? 200000 : 1000000)

static void live(void) {
    ist_segment *s = malloc(COUNT * sizeof *s);
    ist_token *tokens = malloc(COUNT * sizeof *tokens);
    CHECK(s != NULL && tokens != NULL);
    memset(s, 0, COUNT * sizeof *s); /* touched before the measurement */
    memset(tokens, 0, COUNT * sizeof *tokens);
    ist_segment_release(test_create(64, 0));
    size_t before = test_resident();
    for (int i = 0; i < COUNT; i++) {
        s[i] = test_create(64, 0);
        test_fill(ist_segment_data(s[i]), 64, (uint64_t)i);
    }
    size_t each = (test_resident() - before) / COUNT;
    printf("%d segments of 64 bytes: %zu bytes each beside the data\n", COUNT, each - 64);
    CHECK(each > 64, "%zu", each); /* else the measurement is wrong */
    CHECK(TEST_ASAN || TEST_TSAN || each - 64 <= 128, "%zu bytes each beside the data", each - 64);
    for (int i = 0; i < COUNT; i++)
        tokens[i] = test_token(s[i]);
    for (int i = 0; i < COUNT; i++) {
        ist_segment other;
        CHECK_EQ(ist_segment_acquire(&tokens[i], &other), 0);
        CHECK(other.slot == s[i].slot && test_filled(ist_segment_data(other), 64, (uint64_t)i));
        ist_segment_release(s[i]);
        s[i] = other;
    }
    ist_stats stats = test_stats();
    CHECK_EQ(stats.segments, COUNT);
    CHECK_EQ(stats.owners, COUNT);
    CHECK_EQ(stats.allocated, 64 * COUNT);
    for (int i = 0; i < COUNT; i++)
        ist_segment_release(s[i]);
    for (int i = 0; i < COUNT; i += 7) {
        ist_segment other;
        CHECK_EQ(ist_segment_acquire(&tokens[i], &other), -ESTALE);
    }
    CHECK_EQ(test_stats().segments, 0);
    free(s);
    free(tokens);
}

struct link {
    ist_segment next;
};
static size_t destroyed;
static uintptr_t shallowest, deepest;

static void destroy(void *ctx, void *data, size_t size) {
    char here;
    uintptr_t stack = (uintptr_t)&here;
    shallowest = shallowest == 0 || stack > shallowest ? stack : shallowest;
    deepest = deepest == 0 || stack < deepest ? stack : deepest;
    struct link *link = data;
    (void)ctx, (void)size;
    destroyed++;
    ist_segment_release(link->next);
    free(link);
}

static void *chain(void *unused) {
    (void)unused;
    ist_segment s = {0};
    for (int i = 0; i < COUNT; i++) {
        struct link *link = malloc(sizeof *link);
        link->next = s;
        CHECK_EQ(ist_segment_wrap(link, sizeof *link, destroy, NULL, 0, &s), 0);
    }
    CHECK_EQ(test_stats().segments, COUNT);
    ist_segment_release(s);
    CHECK_EQ(destroyed, COUNT);
    CHECK_EQ(test_stats().segments, 0);
    return NULL;
}

int main(void) {
    live();
    pthread_attr_t attributes;
    CHECK_EQ(pthread_attr_init(&attributes), 0);
    CHECK_EQ(pthread_attr_setstacksize(&attributes, TEST_TSAN || TEST_ASAN ? 512 << 10 : 64 << 10), 0);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, &attributes, chain, NULL), 0);
    test_join(thread);
    printf("a chain of %d released within %zu bytes of stack\n", COUNT, (size_t)(shallowest - deepest));
    CHECK(shallowest - deepest < 4096 || TEST_ASAN);
    return 0;
}
