/* arrow.h: the structures of the Arrow C data interface (Apache Arrow, "The Arrow C data interface"), and what stands in the capsules of the
 * Arrow PyCapsule interface: "arrow_schema" and "arrow_array".
 *
 * A structure whose release is NULL is released, or was moved: copied elsewhere byte by byte, and release set to NULL here. */
#ifndef ISTHMUS_ARROW_H
#define ISTHMUS_ARROW_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

struct ArrowSchema {
    const char *format;
    const char *name;
    const char *metadata;
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length;
    int64_t null_count; /* -1: not counted */
    int64_t offset; /* elements before the first, in every buffer */
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers; /* of a primitive: validity bitmap (NULL: all are valid), values */
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

/* The Arrow C stream interface: arrays of one schema, one after the other; what stands in a capsule "arrow_array_stream". The functions give 0
 * or an errno; an array whose release is NULL is the end. */
struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};

static_assert(sizeof(struct ArrowSchema) == 72 && sizeof(struct ArrowArray) == 80, "the layout is given");

#endif
