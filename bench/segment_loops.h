/* segment_loops.h: the measured loops of bench_segment.cc, which is C++ and has no stdatomic. `n` is how often. */
#ifndef SEGMENT_LOOPS_H
#define SEGMENT_LOOPS_H

#include <isthmus/segment.h>

#ifdef __cplusplus
extern "C" {
#endif

/* P1: the product, and its limit: the allocator alone, in the same arena, with the same flags and thread cache. The size is *size; a
 * failure is left in *error. The calling thread has made a segment before, so that it is bound to the arena. */
struct create_argument {
    size_t size;
    int error;
};
void loop_create_release(size_t n, void *create_argument);
void loop_dallocx(size_t n, void *create_argument);
void loop_sdallocx(size_t n, void *create_argument); /* tells the size, as the library does: a stricter baseline */

/* P2: two raw atomic adds on a word that is alone in its cache line; the product inlined; the product by calls into a shared object. */
void *raw_word_new(void);
void raw_word_delete(void *word);
void loop_raw(size_t n, void *word);
void loop_inline(size_t n, void *segment);
void loop_library(size_t n, void *segment);

#ifdef __cplusplus
}
#endif
#endif
