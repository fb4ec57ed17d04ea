/* test_ring.c: a queue whose words aren't what we wrote. plain_garbage.c writes anywhere by chance; here each place is written on
 * purpose. */
#include "harness.h"
#include "ring.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <isthmus/queue.h>

static ist_queue *opened;

static int reopened(void) {
    ist_queue *again = NULL;
    const ist_segment s = ist_queue_segment(opened);
    ist_segment_retain(s);
    int error = ist_queue_open(s, &again);
    if (error != 0)
        ist_segment_release(s);
    ist_queue_release(again);
    return error;
}

static struct isti_ring *create(uint64_t maxsize) {
    CHECK_EQ(ist_queue_create(maxsize, &opened), 0);
    CHECK_EQ(reopened(), 0);
    return ist_segment_data(ist_queue_segment(opened));
}

static int put(ist_queue *q, uint64_t deadline) {
    ist_queue_message m = {.tag = 1};
    return ist_queue_put(q, &m, deadline, NULL);
}

#define REFUSED(word, value)                                                                                                               \
    do {                                                                                                                                   \
        const uint64_t was = (word);                                                                                                       \
        (word) = (value);                                                                                                                  \
        CHECK(reopened() == -EBADMSG, "%s = %#llx", #word, (unsigned long long)(value));                                                   \
        (word) = was;                                                                                                                      \
        CHECK_EQ(reopened(), 0);                                                                                                           \
    } while (0)

Test(ring, a_head_that_makes_no_sense) {
    struct isti_ring *r = create(4);
    REFUSED(r->magic, r->magic + 1);
    REFUSED(r->slots, 0);
    REFUSED(r->slots, 3);
    REFUSED(r->slots, 8); /* more than there are */
    REFUSED(r->slots, UINT64_C(1) << 63);
    REFUSED(r->maxsize, 5);
    REFUSED(r->maxsize, 0); /* without a limit a ring is sparse, and this one isn't: a put would take it for full and for free */
    ist_queue_release(opened);
}

static struct isti_queue_row *row_of_the_only_queue(void) {
    struct isti_domain *d = isti_domain_home_now();
    for (uint32_t q = 0; d != NULL && q < d->queues; q++) {
        const uint64_t owner =
            atomic_load_explicit(&d->queue_rows[q].owner, memory_order_relaxed); /* relaxed, both: nobody else is there */
        const uint64_t state = owner == 0 ? 0 : atomic_load_explicit(&d->descriptor_rows[(uint32_t)owner - 1].state, memory_order_relaxed);
        if (owner != 0 && isti_s_generation(state) == owner >> 32 && isti_s_live(state))
            return &d->queue_rows[q];
    }
    CHECK(false, "there is no queue");
    return NULL;
}

/* Of a view that was taken before: nothing is believed that could keep a caller for ever. */
Test(ring, positions_that_make_no_sense, .timeout = 60) {
    static const uint64_t values[] = {0, 1, UINT64_C(1) << 47, (UINT64_C(1) << 48) - 1, UINT64_C(1) << 48, UINT64_MAX - 1, UINT64_MAX};
    static const uint64_t sizes[] = {0, 1, 4, 1500};
    for (size_t n = 0; n < 4; n++)
        for (size_t h = 0; h < 7; h++)
            for (size_t t = 0; t < 7; t++) {
                struct isti_ring *r = create(sizes[n]);
                struct isti_queue_row *row = row_of_the_only_queue();
                CHECK_EQ(put(opened, 0), 0);
                /* relaxed, all: nobody else is there */
                atomic_store_explicit(&row->head, values[h], memory_order_relaxed);
                atomic_store_explicit(&row->tail, values[t], memory_order_relaxed);
                atomic_store_explicit(&r->floor, values[(h + t) % 7], memory_order_relaxed);
                for (unsigned i = 0; i < 3; i++) {
                    ist_queue_message m;
                    (void)!put(opened, test_now() + 1000000);
                    if (ist_queue_get(opened, &m, test_now() + 1000000, NULL) == 0)
                        ist_queue_message_clear(&m);
                }
                (void)!ist_queue_join(opened, test_now() + 1000000, NULL);
                CHECK_EQ(ist_queue_shutdown(opened, true), 0);
                ist_queue_release(opened);
            }
}
