/* layout.h: see layout.c. */
#ifndef ISTI_LAYOUT_H
#define ISTI_LAYOUT_H

#include "control.h"

#include <sys/resource.h>

#define ISTI_HEADER_BYTES 4096u
#define ISTI_TABLES_AT 8192u
#define ISTI_TABLES 8

/* Words of a window's hints: a summary, a bit for 64 of the others each, and a bit for each descriptor. */
static inline uint64_t isti_hint_words(uint32_t descriptors) { return descriptors / 4096 + descriptors / 64; }

/* A window is a multiple of 64 KiB, which is one of every machine's page: it is mapped by its place in the file. */
static inline uint64_t isti_window_rounded(uint64_t size) { return (size + 65535) & ~UINT64_C(65535); }

/* Where the tables are, relative to the file's start; the file's size is returned. */
uint64_t isti_layout(const struct isti_control_header *h, uint64_t at[ISTI_TABLES]);
/* Whether a header from outside can be believed, in a file of that size. */
bool isti_header_makes_sense(const struct isti_control_header *h, uint64_t size);

/* Bytes; UINT64_MAX: none. */
uint64_t isti_limit_of(int resource);
/* Fewer and smaller windows and tables, until they fit RLIMIT_FSIZE and RLIMIT_AS. */
void isti_fit_windows(struct isti_control_header *h);
void isti_fit_tables(struct isti_control_header *h);

#endif
