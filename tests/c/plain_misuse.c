/* plain_misuse.c: in a debug build misuse of a count aborts at the wrong step itself (S5). Each case runs in a child that has to die. */
#include "harness.h"
#include "slab.h"

#include <isthmus/segment_inline.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>

#ifndef IST_DEBUG
#  error "this program is for the library with IST_DEBUG"
#endif

static int *reached; /* shared: 1 right before the misuse, 2 if it was survived */

static void set_owners(ist_segment s, uint32_t owners) {
    atomic_store_explicit(&s.slot->state, (uint64_t)owners << 32 | s.generation, memory_order_relaxed); /* relaxed: one thread */
}

static void misuse(void (*step)(ist_segment), ist_segment s) {
    *reached = 1;
    step(s);
    *reached = 2;
}

static void release_twice(void *step) {
    ist_segment s = test_create(10, 0);
    ist_segment_release(s);
    misuse(*(void (**)(ist_segment))step, s);
}

static void after_reuse(void *step) {
    ist_segment old = test_create(10, 0), s;
    ist_segment_release(old);
    s = test_create(10, 0);
    CHECK_EQ(s.index, old.index);
    misuse(*(void (**)(ist_segment))step, old);
}

static void at_zero(void *step) {
    ist_segment s = test_create(10, 0);
    set_owners(s, 0);
    misuse(*(void (**)(ist_segment))step, s);
}

static void at_the_limit(void *step) {
    ist_segment s = test_create(10, 0);
    set_owners(s, IST_OWNERS_LIMIT);
    misuse(*(void (**)(ist_segment))step, s);
}

static void after_make_writable(void *step) {
    ist_segment s = test_create(10, 0), old = s;
    CHECK_EQ(ist_segment_make_writable(&s), 0);
    misuse(*(void (**)(ist_segment))step, old);
}

/* What is no misuse doesn't abort. */
static void proper(void *unused) {
    (void)unused;
    ist_segment s = test_create(10, 0), t;
    ist_token token = test_token(s);
    for (int i = 0; i < 100; i++)
        ist_segment_retain_inline(s);
    for (int i = 0; i < 100; i++)
        ist_segment_release(s);
    CHECK_EQ(ist_segment_acquire(&token, &t), 0);
    ist_segment_release_inline(t);
    ist_segment_release(s);
    ist_segment_release((ist_segment){0});
    CHECK_EQ(ist_segment_acquire(&token, &t), -ESTALE);
    s = test_create(10, 0);
    set_owners(s, IST_OWNERS_LIMIT - 2);
    token = test_token(s);
    ist_segment_retain(s);
    CHECK_EQ(ist_segment_acquire(&token, &t), -EOVERFLOW);
    set_owners(s, 1);
    ist_segment_release(s);
    CHECK_EQ(test_stats().segments + test_stats().misuses + test_stats().saturated, 0);
}

int main(void) {
    reached = test_shared(4096);
    static void (*const steps[])(ist_segment) = {ist_segment_release, ist_segment_retain, ist_segment_release_inline,
                                                 ist_segment_retain_inline};
    static void (*const cases[])(void *) = {release_twice, after_reuse, at_zero, at_the_limit, after_make_writable};
    CHECK_CHILD(proper, NULL, 20);
    int checked = 0;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
            void (*step)(ist_segment) = steps[s];
            *reached = 0;
            int status = test_in_child(cases[c], (void *)&step, 20);
            CHECK(*reached == 1, "case %zu, step %zu: came to %d", c, s, *reached);
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "case %zu, step %zu: wait status %#x", c, s, status);
            checked++;
        }
    printf("%d misuses abort\n", checked);
    return 0;
}
