/* dlpack.h: DLPack's structures, as version 1.1 of the specification has them (dmlc/dlpack, include/dlpack/dlpack.h): what stands in the capsules
 * of __dlpack__ (Python array API standard). Minor versions keep the layout; of another major version only version, manager_ctx and deleter are
 * where they are here. */
#ifndef ISTHMUS_DLPACK_H
#define ISTHMUS_DLPACK_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define DL_MAJOR 1u
#define DL_MINOR 1u

enum { DL_CPU = 1 }; /* device types */
enum { DL_INT = 0, DL_UINT = 1, DL_FLOAT = 2, DL_COMPLEX = 5, DL_BOOL = 6 };
enum { DL_READ_ONLY = 1, DL_IS_COPIED = 2 }; /* flags */

typedef struct dl_version {
    uint32_t major, minor;
} dl_version;

typedef struct dl_device {
    int32_t type, id;
} dl_device;

typedef struct dl_type {
    uint8_t code, bits;
    uint16_t lanes;
} dl_type;

typedef struct dl_tensor {
    void *data;
    dl_device device;
    int32_t ndim;
    dl_type type;
    int64_t *shape, *strides; /* strides in elements; NULL: C order */
    uint64_t byte_offset;
} dl_tensor;

/* capsule "dltensor", "used_dltensor" once it is somebody's */
typedef struct dl_managed {
    dl_tensor tensor;
    void *ctx;
    void (*deleter)(struct dl_managed *self);
} dl_managed;

/* capsule "dltensor_versioned", "used_dltensor_versioned" */
typedef struct dl_managed_versioned {
    dl_version version;
    void *ctx;
    void (*deleter)(struct dl_managed_versioned *self);
    uint64_t flags;
    dl_tensor tensor;
} dl_managed_versioned;

static_assert(sizeof(dl_tensor) == 48 && sizeof(dl_managed) == 64 && sizeof(dl_managed_versioned) == 80, "the layout is given");
static_assert(offsetof(dl_tensor, shape) == 24 && offsetof(dl_managed_versioned, flags) == 24, "the layout is given");

#endif
