/* arrow.h: the two structures of the Arrow C data interface (Apache Arrow, "The Arrow C data interface"), and what stands in the capsules of the
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

static_assert(sizeof(struct ArrowSchema) == 72 && sizeof(struct ArrowArray) == 80, "the layout is given");

#endif
