/* token.h: the bytes of tokens, and the part that a mapped file has in them; what message.c and memmap.c share.
 *
 * Numbers are little-endian. A file's part, behind the dtype's spec:
 *   0 device   8 inode   16 when it was made, ns since 1970 (0: not known)   24 offset of the segment in the file   32 bytes of the segment
 *   40 bytes of the path, 2 bytes   42 the path
 */
#ifndef ISTHMUS_TOKEN_H
#define ISTHMUS_TOKEN_H

#include "array.h"

#include <limits.h>

#define FILE_PATH 42
#define FILE_PART_MAX (FILE_PATH + PATH_MAX)

static inline void put64(unsigned char *at, int64_t value) {
    for (int i = 0; i < 8; i++)
        at[i] = (unsigned char)((uint64_t)value >> (8 * i));
}

static inline int64_t get64(const unsigned char *at) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return (int64_t)value;
}

static inline void put32(unsigned char *at, uint32_t value) {
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

static inline uint32_t get32(const unsigned char *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline void put16(unsigned char *at, uint32_t value) {
    at[0] = (unsigned char)value;
    at[1] = (unsigned char)(value >> 8);
}

static inline Py_ssize_t get16(const unsigned char *at) { return at[0] | at[1] << 8; }

/* message.c: -1 with ValueError. */
int token_refuse(const char *why);

/* memmap.c: what a token says of the file its segment is of: how another process can open it, and know that it is the same one. */
typedef struct file_part {
    uint64_t device, inode, born, offset;
    size_t size; /* bytes of the segment */
    char *path;  /* absolute; owned. NULL: no file */
} file_part;

Py_ssize_t file_part_size(const ist_file *file); /* bytes in a token */
void file_part_write(unsigned char *at, const ist_file *file, size_t segment_size);
/* Of exactly `size` bytes, which may be any; -1 with ValueError. file_part_clear() afterwards. */
int file_part_read(const unsigned char *at, Py_ssize_t size, file_part *out);
void file_part_clear(file_part *part);
/* Opens and maps the file, if it still is the one that was meant, for reading alone or for writing as well. Ownership: *out is one reference.
 * -1 with SegmentGoneError (gone, replaced, cut) or OSError (PermissionError and so on), which name the file. */
int file_part_open(core_state *state, const file_part *part, bool readonly, ist_segment *out);

/* lease_log.c */
void report_leases_sometimes(void);
extern const char set_pickle_lease_doc[];
PyObject *core_set_pickle_lease(PyObject *module, PyObject *seconds);

#endif
