/* segment_loops.c: the loops of P2, in the program: so that the library's functions are called across objects, as a user's code does. */
#include "segment_loops.h"

#include <isthmus/segment_inline.h>
#include <stdatomic.h>
#include <stdlib.h>

struct raw_word {
    _Alignas(64) _Atomic(uint64_t) value;
    char alone[56];
};

void *raw_word_new(void) {
    struct raw_word *word = aligned_alloc(64, sizeof *word);
    if (word != NULL)
        /* relaxed, here and below: a word that only costs time */
        atomic_store_explicit(&word->value, IST_ONE_OWNER, memory_order_relaxed);
    return word;
}

void raw_word_delete(void *word) { free(word); }

void loop_raw(size_t n, void *raw_word) {
    struct raw_word *word = raw_word;
    while (n-- > 0) {
        atomic_fetch_add_explicit(&word->value, IST_ONE_OWNER, memory_order_relaxed);
        /* release: what a release costs at least */
        atomic_fetch_sub_explicit(&word->value, IST_ONE_OWNER, memory_order_release);
    }
}

void loop_inline(size_t n, void *segment) {
    ist_segment s = *(const ist_segment *)segment;
    while (n-- > 0) {
        ist_segment_retain_inline(s);
        ist_segment_release_inline(s);
    }
}

void loop_library(size_t n, void *segment) {
    ist_segment s = *(const ist_segment *)segment;
    while (n-- > 0) {
        ist_segment_retain(s);
        ist_segment_release(s);
    }
}
