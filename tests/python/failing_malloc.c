/* failing_malloc.c: for test_malloc_failures.py, which preloads it: makes the n-th call of malloc and its like fail that comes from the
 * extension module itself. glibc only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);

static _Atomic(long) left; /* calls until the one that fails; 0: none will */

/* n: from 1. Any thread's calls count. */
void fail_at(long n) { atomic_store_explicit(&left, n, memory_order_relaxed); }

/* Whether it has come; nothing fails any more. */
int failed(void) { return atomic_exchange_explicit(&left, 0, memory_order_relaxed) == 0; }

static int fails(void *caller) {
    Dl_info where;
    if (atomic_load_explicit(&left, memory_order_relaxed) == 0 || dladdr(caller, &where) == 0 ||
        strstr(where.dli_fname, "/isthmus/_core") == NULL)
        return 0;
    long before = atomic_load_explicit(&left, memory_order_relaxed);
    while (before > 0 && !atomic_compare_exchange_weak_explicit(&left, &before, before - 1, memory_order_relaxed, memory_order_relaxed)) {}
    if (before == 1)
        errno = ENOMEM;
    return before == 1;
}

void *malloc(size_t size) { return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size); }

void *calloc(size_t count, size_t size) { return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size); }

void *realloc(void *block, size_t size) { return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(block, size); }

char *strdup(const char *text) {
    const size_t size = strlen(text) + 1;
    void *copy = fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
    return copy == NULL ? NULL : memcpy(copy, text, size);
}
