/* token.h: the bytes of tokens, and the part that a mapped file has in them; what message.c, pickle.c and memmap.c share.
 *
 * Numbers are little-endian. A file's part, behind the dtype's spec:
 *   0 device   8 inode   16 offset of the segment in the file   24 bytes of the segment   32 bytes of the path, 2 bytes   34 the path
 */
#ifndef ISTHMUS_TOKEN_H
#define ISTHMUS_TOKEN_H

#include "shareable.h"

#include <limits.h>

#define FILE_PATH 34
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

/* memmap.c: what a token says of the file its segment is of: how another process can open it, and know that it is the same one. */
typedef struct file_part {
    uint64_t device, inode, offset;
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

/* ---- message.c: descriptions ------------------------------------------------------------------------------------------------------- */

typedef struct description {
    share_kind kind;
    uint8_t note_size; /* what isn't an array has nothing else */
    unsigned char note[SHARE_NOTE];
    const char *spec; /* the dtype's; NULL: the native number `code` */
    ist_type_code code;
    int ndim;
    bool readonly;
    bool tracks;       /* the length of a growable segment: shape[0] doesn't count, and is 0 */
    Py_ssize_t offset; /* bytes from the segment's start to the first element */
    const Py_ssize_t *shape, *strides;
} description;

/* An object that crosses, and its segment, which stays from describe_begin to describe_end. -1 with an exception. */
typedef struct described {
    description is;
    ist_segment segment;
    PyObject *self; /* borrowed */
} described;
int describe_begin(core_state *state, PyObject *self, described *out);
void describe_end(described *d);

/* What a token says: any numbers for shape, strides and offset, until array_fits has compared them with the segment. */
typedef struct parsed_token {
    ist_token segment;
    ist_place place;
    description is;
    bool private;       /* to its process */
    file_part file;     /* owned, likewise */
    DTypeObject *dtype; /* owned, once it is decoded */
    Py_ssize_t dims[2 * IST_MAX_NDIM];
} parsed_token;

#define TOKEN_FILE 2u /* flag of a token: a mapped file, which other processes can open */

/* What a token of it will have. */
typedef struct token_plan {
    const description *is;
    const void *spec;
    size_t spec_size;
    unsigned flags;
    ist_file file;
    Py_ssize_t part, size; /* bytes of the file's part, of all */
} token_plan;
int plan_token(core_state *state, const description *d, ist_segment segment, token_plan *plan); /* -1 with ValueError */
/* plan->size bytes. The segment is published, and the caller owns a reference. */
void write_token(const token_plan *plan, ist_segment segment, const ist_token *token, unsigned char *at);

/* View functions. */
ist_segment message_segment(const ist_message *message);
const description *message_description(const ist_message *message);
/* A message of what a token describes, whose bytes are the caller's copy, over `segment`, which is taken, on failure too; or, if it comes
 * under a lease, over what that has. NULL with an exception. */
ist_message *message_from_token(core_state *state, const unsigned char *at, Py_ssize_t size, ist_segment segment, const uint64_t *lease);

int token_refuse(const char *why); /* -1 with ValueError */
PyObject *token_encode(core_state *state, const described *d, const ist_token *token); /* bytes; the segment is published */
int token_from_object(core_state *state, PyObject *object, parsed_token *out); /* of any object with a buffer, checked; -1 */
PyObject *token_clear(parsed_token *token); /* NULL */
/* The segment that a token describes; number: its lease's, of a pickle (NULL: none). -1 with an exception. */
int segment_of(core_state *state, const parsed_token *token, const uint64_t *number, ist_segment *out);
PyObject *token_receive(core_state *state, ist_segment segment, parsed_token *token); /* takes both */

/* lease_log.c */
void report_leases_sometimes(void);
extern const char set_pickle_lease_doc[];
PyObject *core_set_pickle_lease(PyObject *module, PyObject *seconds);

#endif
