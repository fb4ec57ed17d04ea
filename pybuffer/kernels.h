/* kernels.h: what reductions do with a run of elements side by side. Plain C, no Python, no GIL. */
#ifndef ISTHMUS_KERNELS_H
#define ISTHMUS_KERNELS_H

#include "core.h"

typedef __int128 int128;

typedef struct kernels {
    /* exact sum; bool counts its truths */
    int128 (*sum_integer[IST_TYPE_CODES])(const char *p, size_t n);
    /* sum by many partial sums; complex: out[1] is the imaginary part */
    void (*sum_inexact[IST_TYPE_CODES])(const char *p, size_t n, double out[2]);
    /* writes the least (greatest) of n >= 1 elements to `best`; true if there is a NaN, and `best` means nothing then. */
    bool (*least[IST_TYPE_CODES])(const char *p, size_t n, char *best);
    bool (*greatest[IST_TYPE_CODES])(const char *p, size_t n, char *best);
    /* the first of n elements that is equal to the one at `item`, that is a NaN; n: none */
    size_t (*find[IST_TYPE_CODES])(const char *p, size_t n, const char *item);
    size_t (*find_nan[IST_TYPE_CODES])(const char *p, size_t n, const char *unused);
    /* how many of n elements aren't zero (a NaN isn't) */
    size_t (*nonzero[IST_TYPE_CODES])(const char *p, size_t n);
} kernels;

/* kernels.c, compiled for what every machine of this architecture has, and for AVX2. IST_F2 has nothing but `nonzero`: widen it first. */
extern const kernels kernels_baseline;
#if defined(__x86_64__)
extern const kernels kernels_avx2;
#endif

#endif
