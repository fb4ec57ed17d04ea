/* allocator_loops.c: the loops of P1, inside a shared object together with the library and its private allocator: see CMakeLists.txt. */
#include "segment_loops.h"

#include <jemalloc/jemalloc.h>

void loop_create_release(size_t n, void *create_argument) {
    struct create_argument *a = create_argument;
    while (n-- > 0) {
        ist_segment s;
        int error = ist_segment_create(a->size, 0, &s);
        if (error != 0) {
            a->error = error;
            return;
        }
        ist_segment_release(s);
    }
}

void loop_dallocx(size_t n, void *create_argument) {
    struct create_argument *a = create_argument;
    while (n-- > 0) {
        void *block = ist_je_mallocx(a->size, 0);
        if (block == NULL) {
            a->error = -ENOMEM;
            return;
        }
        ist_je_dallocx(block, 0);
    }
}

void loop_sdallocx(size_t n, void *create_argument) {
    struct create_argument *a = create_argument;
    while (n-- > 0) {
        void *block = ist_je_mallocx(a->size, 0);
        if (block == NULL) {
            a->error = -ENOMEM;
            return;
        }
        ist_je_sdallocx(block, a->size, 0);
    }
}
