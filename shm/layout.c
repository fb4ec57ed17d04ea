/* layout.c: where the tables of a control memfd are, and how large they can be under the limits that a process is given. */
#include "layout.h"

#include "domain.h"
#include "os.h"

#define LEAST_WINDOW (UINT64_C(1) << 20)
#define MOST_BYTES (UINT64_C(1) << 62) /* of all windows: offsets in a file have a sign */

static uint64_t rounded(uint64_t n) { return (n + 4095) & ~UINT64_C(4095); }

uint64_t isti_layout(const struct isti_control_header *h, uint64_t at[ISTI_TABLES]) {
    uint64_t sizes[ISTI_TABLES] = {
        h->members * sizeof(struct isti_member),         h->windows * sizeof(struct isti_window_row),
        h->descriptors * sizeof(struct isti_descriptor), h->windows * isti_hint_words(h->descriptors) * 8,
        h->tickets * sizeof(struct isti_ticket),         h->names * sizeof(struct isti_name),
        h->queues * sizeof(struct isti_queue_row),       h->waiter_buckets * sizeof(struct isti_waiter_bucket),
    };
    uint64_t end = ISTI_TABLES_AT;
    for (int i = 0; i < ISTI_TABLES; i++) {
        at[i] = end;
        end += rounded(sizes[i]);
    }
    return end;
}

static bool power_of_two(uint64_t n) { return n != 0 && (n & (n - 1)) == 0; }

bool isti_header_makes_sense(const struct isti_control_header *h, uint64_t size) {
    uint64_t at[ISTI_TABLES];
    return h->magic == ISTI_CONTROL_MAGIC && h->version == ISTI_CONTROL_VERSION && h->members - 1u < ISTI_MEMBERS &&
           h->descriptors >= ISTI_DESCRIPTORS_LEAST && h->descriptors <= ISTI_DESCRIPTORS && power_of_two(h->descriptors) &&
           h->windows - 1u < ISTI_WINDOWS && h->tickets - 1u < ISTI_TICKETS && h->names - 1u < ISTI_NAMES && h->queues - 1u < ISTI_QUEUES &&
           h->waiter_buckets <= ISTI_WAITER_BUCKETS && power_of_two(h->waiter_buckets) && h->window_size >= LEAST_WINDOW &&
           h->window_size == isti_window_rounded(h->window_size) && h->window_size <= MOST_BYTES / h->windows && isti_layout(h, at) == size;
}

uint64_t isti_limit_of(int resource) {
    struct rlimit limit;
    return isti_os.getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? limit.rlim_cur : UINT64_MAX;
}

static bool too_large(const struct isti_control_header *h, uint64_t limit) { return h->window_size > limit / h->windows; }

static void halve_window(struct isti_control_header *h) { h->window_size = h->window_size / 2 & ~UINT64_C(65535); }

/* Beyond RLIMIT_FSIZE ftruncate doesn't fail: it kills by SIGXFSZ. So: fewer windows first, then smaller ones. */
void isti_fit_windows(struct isti_control_header *h) {
    uint64_t limit = isti_limit_of(RLIMIT_FSIZE);
    limit = limit < MOST_BYTES ? limit : MOST_BYTES;
    while (h->windows > 64 && too_large(h, limit))
        h->windows /= 2;
    while (h->window_size > (UINT64_C(64) << 20) && too_large(h, limit))
        halve_window(h);
    while (h->windows > 1 && too_large(h, limit))
        h->windows /= 2;
    while (h->window_size / 2 >= LEAST_WINDOW && too_large(h, limit))
        halve_window(h);
}

/* Smaller tables, as far as that goes: where files are limited, and where address space is, of which the heap is to have the most. */
void isti_fit_tables(struct isti_control_header *h) {
    const uint64_t space = isti_limit_of(RLIMIT_AS), file = isti_limit_of(RLIMIT_FSIZE);
    const uint64_t per_row = sizeof(struct isti_entry) + sizeof(struct isti_given) + sizeof(uint32_t);
    uint64_t at[ISTI_TABLES];
    for (;;) {
        uint64_t size = isti_layout(h, at);
        if (size <= file && (space == UINT64_MAX || size + h->descriptors * per_row <= space / 8))
            return;
        if (h->descriptors > ISTI_DESCRIPTORS_LEAST)
            h->descriptors /= 2;
        else if (h->tickets > 1024)
            h->tickets /= 2;
        else if (h->names > 16)
            h->names /= 2;
        else if (h->waiter_buckets > 4)
            h->waiter_buckets /= 2;
        else if (h->queues > 16)
            h->queues /= 2;
        else
            return;
    }
}
