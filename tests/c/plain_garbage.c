/* plain_garbage.c: a member that writes garbage into its domain's tables. Nobody is owed sanity then: segments may vanish, leak or be freed
 * early, and calls may fail. But nobody may crash, hang, or leave its own mappings.
 *
 * A game is a new domain with two processes that go on with everything there is to do; one of them also writes the garbage, between its own
 * steps and at any moment of the other's.
 */
#include "control_check.h"
#include "harness.h"
#include "os.h"
#include "ring.h"
#include "sync.h"

#include <errno.h>
#include <isthmus/lease.h>
#include <isthmus/lock.h>
#include <isthmus/process.h>
#include <isthmus/queue.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 80, HELD = 16, NOTES = 16, QUEUES = 3, LOCKS = 6, PATIENCE = 60 };

struct note {
    ist_token token;
    uint64_t ticket;
};

/* Shared by the processes of all games. Notes may be torn: tokens are garbage here anyway. */
static struct board {
    _Atomic(uint64_t) words, attached, refused, published, put, got, locked;
    _Atomic(uint32_t) over;
    struct note notes[NOTES];
    ist_token queues[QUEUES], locks[LOCKS];
} *board;

struct player {
    uint64_t random;
    ist_segment held[HELD];
    unsigned count;
    pid_t game;
    ist_queue *q[QUEUES];
    ist_sync *locks[LOCKS];
    uint32_t holder;
};

static uint64_t any(struct player *p, uint64_t n) { return (test_random(&p->random) >> 16) % n; }

/* ---- what a player does; errors are fine */

static void count(int error, _Atomic(uint64_t) *good) {
    atomic_fetch_add_explicit(error == 0 ? good : &board->refused, 1, memory_order_relaxed); /* relaxed: a statistic */
}

static void release(struct player *p) {
    if (p->count == 0)
        return;
    unsigned i = (unsigned)any(p, p->count);
    ist_segment_release(p->held[i]);
    p->held[i] = p->held[--p->count];
}

static void keep(struct player *p, ist_segment s) {
    if (p->count == HELD)
        release(p);
    p->held[p->count++] = s;
}

/* AddressSanitizer isn't asked: with such tables memory may be freed early, which it would tell. Outside of any mapping is SIGSEGV. */
__attribute__((no_sanitize("address"))) static unsigned touch_bytes(unsigned char *data, size_t size, bool write) {
    unsigned sum = 0;
    for (size_t i = 0; i < 64 && i < size; i++) {
        size_t at[2] = {i, size - 1 - i};
        for (int end = 0; end < 2; end++) {
            volatile unsigned char *byte = data + at[end];
            sum += *byte;
            if (write)
                *byte = (unsigned char)i;
        }
    }
    return sum;
}

/* The first and last bytes of a segment, wherever the tables say that they are. */
static void touch(struct player *p, ist_segment s) {
    const void *readonly;
    const size_t length = ist_segment_length(s);
    CHECK(length <= ist_segment_size(s), "%zu of %zu", length, ist_segment_size(s));
    touch_bytes(ist_segment_data(s), length, !ist_segment_is_readonly(s));
    if (ist_segment_is_growable(s) && any(p, 2) == 0)
        (void)!ist_segment_grow(s, any(p, ist_segment_size(s) + 2));
    touch_bytes(ist_segment_data(s), ist_segment_size(s), !ist_segment_is_readonly(s));
    if (any(p, 4) == 0 && ist_segment_data_readonly(s, &readonly) == 0)
        touch_bytes((unsigned char *)(uintptr_t)readonly, ist_segment_size(s), false);
}

static void attached(struct player *p, int error, ist_segment s) {
    count(error, &board->attached);
    if (error != 0)
        return;
    touch(p, s);
    keep(p, s);
}

static void make(struct player *p) {
    ist_segment s;
    size_t size = any(p, 16) == 0 ? (1 << 20) + any(p, 1 << 20) : any(p, 3000);
    if (any(p, 16) == 0) {
        static char memory[2 << 20];
        if (ist_segment_wrap(memory, size, NULL, NULL, 0, &s) == 0)
            keep(p, s);
    } else if (any(p, 4) == 0) {
        if (ist_segment_create_growable(any(p, size + 1), size, 0, &s) == 0) {
            touch(p, s);
            keep(p, s);
        }
    } else if (ist_segment_create(size, any(p, 2) ? IST_ZERO : 0, &s) == 0) {
        touch(p, s);
        keep(p, s);
    }
}

static void tell(struct player *p) {
    if (p->count == 0)
        return;
    struct note note = {.ticket = 0};
    ist_segment s = p->held[any(p, p->count)];
    int error = ist_segment_token(s, &note.token);
    count(error, &board->published);
    if (error == 0 && any(p, 3) == 0)
        error = ist_lease_take(s, &note.ticket);
    if (error == 0)
        board->notes[any(p, NOTES)] = note;
}

static void attach(struct player *p) {
    struct note note = board->notes[any(p, NOTES)];
    ist_segment s;
    if (any(p, 8) == 0) { /* one that was never given out */
        uint32_t index = (uint32_t)any(p, 64), generation = (uint32_t)any(p, 4);
        memcpy(note.token.bytes + 16, &index, 4);
        memcpy(note.token.bytes + 20, &generation, 4);
    }
    if (any(p, 16) == 0)
        note.ticket = test_random(&p->random);
    if (any(p, 16) == 0)
        ist_lease_strike(&note.token, note.ticket);
    int error = note.ticket != 0 ? ist_lease_load(&note.token, note.ticket, &s) : ist_segment_acquire(&note.token, &s);
    attached(p, error, s);
}

static void name(struct player *p) {
    char text[64], bytes[1600];
    size_t length = (size_t)snprintf(text, sizeof text, "garbage-%d-%u", (int)p->game, (unsigned)any(p, 3)), size = sizeof bytes;
    ist_segment s;
    uint64_t what = any(p, 8);
    if (what < 3 && p->count > 0)
        count(ist_name_publish(text, length, p->held[any(p, p->count)], bytes, any(p, sizeof bytes)), &board->published);
    else if (what < 7) {
        int error = ist_name_attach(text, length, &s, bytes, &size);
        attached(p, error, s);
    } else
        count(ist_name_remove(text, length), &board->published);
}

static void exclusive(struct player *p) {
    if (p->count == 0)
        return;
    unsigned i = (unsigned)any(p, p->count);
    if (ist_segment_freeze(p->held[i]) == 0 && any(p, 2) == 0)
        (void)!ist_segment_make_writable(&p->held[i]);
}

static void wait_one(struct player *p) {
    ist_wait w;
    uint64_t woken;
    if (p->count == 0)
        return;
    ist_segment s = p->held[any(p, p->count)];
    const size_t offset = any(p, 4) * 4;
    if (any(p, 2) == 0) {
        (void)!ist_notify(s, offset, any(p, 3), &woken);
    } else if (ist_segment_size(s) >= offset + 4 &&
               ist_wait_begin(s, offset, NULL, 4, *(uint32_t *)((char *)ist_segment_data(s) + offset), &w) == 0) {
        if (any(p, 2) == 0)
            ist_wait_cancel(&w);
        else
            (void)!ist_wait_on(&w, 0, UINT64_MAX);
    }
}

static void let_go_of_queues(struct player *p) {
    for (unsigned i = 0; i < QUEUES; i++) {
        ist_queue_release(p->q[i]);
        p->q[i] = NULL;
    }
}

static void put_or_get(struct player *p) {
    const unsigned i = (unsigned)any(p, QUEUES);
    if (p->q[i] != NULL && any(p, 30) == 0) {
        ist_queue_release(p->q[i]);
        p->q[i] = NULL;
    }
    if (p->q[i] == NULL && ist_queue_attach(&board->queues[i], &p->q[i]) != 0) {
        if (ist_queue_create(any(p, 3) * 700, &p->q[i]) != 0) {
            p->q[i] = NULL;
            return;
        }
        (void)!ist_segment_token(ist_queue_segment(p->q[i]), &board->queues[i]);
    }
    const uint64_t deadline = any(p, 4) == 0 ? test_now() + any(p, 2000000) : 0, what = any(p, 40);
    if (what < 18) {
        ist_segment list[12];
        ist_queue_message m = {.tag = 1, .size = (uint8_t)any(p, 41), .many = list};
        for (m.count = 0; p->count > 0 && m.count < any(p, 12); m.count++)
            list[m.count] = p->held[any(p, p->count)];
        if (any(p, 10) == 0)
            list[m.count++] = ist_queue_segment(p->q[i]);
        count(ist_queue_put(p->q[i], &m, deadline, NULL), &board->put);
    } else if (what < 36) {
        ist_queue_message m;
        int error = ist_queue_get(p->q[i], &m, deadline, NULL);
        count(error, &board->got);
        if (error == 0) {
            for (uint32_t n = 0; n < m.count; n++)
                touch(p, (m.many != NULL ? m.many : m.few)[n]);
            ist_queue_message_clear(&m);
        }
    } else if (what < 37) {
        (void)!ist_queue_task_done(p->q[i]);
    } else if (what < 38) {
        (void)!ist_queue_join(p->q[i], deadline, NULL);
    } else if (what < 39) {
        ist_queue_info info;
        ist_queue_read_info(p->q[i], &info);
    } else if (any(p, 10) == 0)
        (void)!ist_queue_shutdown(p->q[i], any(p, 2) == 0);
}

static void let_go_of_locks(struct player *p) {
    for (unsigned i = 0; i < LOCKS; i++) {
        ist_sync_close(p->locks[i]);
        p->locks[i] = NULL;
    }
    ist_holder_end(p->holder);
    p->holder = 0;
}

static void meet(ist_sync *barrier, ist_waiting *w) {
    ist_arrival a;
    int error = ist_barrier_arrive(barrier, w, &a);
    count(error, &board->locked);
    if (error == 0 && a.last)
        (void)!ist_barrier_release(barrier, &a);
    else if (error == 0 && ist_barrier_wait(barrier, &a, w) == -EINTR)
        ist_barrier_withdraw(barrier, &a);
}

static void notify_or_wait(struct player *p, ist_sync *lock, ist_waiting *w) {
    uint64_t condition, woken;
    ist_wait wait;
    if (ist_condition_create(lock, &condition) != 0)
        return;
    condition = any(p, 3); /* some that others may wait for */
    if (any(p, 2) == 0)
        (void)!ist_condition_notify(lock, condition, any(p, 3), &woken);
    else if (ist_condition_begin(lock, condition, &wait) == 0)
        (void)!ist_wait_on(&wait, w->deadline, UINT64_MAX);
}

static void use(struct player *p, ist_sync *s) {
    ist_waiting w = {.deadline = any(p, 3) == 0 ? test_now() + any(p, 2000000) : 0, .patience = UINT64_MAX};
    ist_sync_info info;
    switch (ist_sync_type_of(s)) {
    case IST_LOCK:
    case IST_RLOCK:
        if (p->holder == 0 && ist_holder_begin(&p->holder) != 0)
            return;
        if (any(p, 3) == 0)
            count(ist_lock_unlock(s), &board->locked);
        else if (any(p, 4) == 0)
            notify_or_wait(p, s, &w);
        else
            count(ist_lock_lock(s, p->holder, &w), &board->locked);
        break;
    case IST_SEMAPHORE: count(any(p, 2) == 0 ? ist_semaphore_post(s, 1 + any(p, 3)) : ist_semaphore_take(s, &w), &board->locked); break;
    case IST_EVENT:
        count(any(p, 3) != 0 ? ist_event_wait(s, &w) : any(p, 2) == 0 ? ist_event_set(s) : ist_event_clear(s), &board->locked);
        break;
    default:
        if (any(p, 4) != 0)
            meet(s, &w);
        else
            count(any(p, 2) == 0 ? ist_barrier_reset(s) : ist_barrier_abort(s), &board->locked);
    }
    ist_sync_read_info(s, &info);
}

static void lock_or_unlock(struct player *p) {
    const unsigned i = (unsigned)any(p, LOCKS);
    if (p->locks[i] != NULL && any(p, 30) == 0) {
        ist_sync_close(p->locks[i]);
        p->locks[i] = NULL;
    }
    if (p->locks[i] == NULL && ist_sync_attach(&board->locks[i], &p->locks[i]) != 0) {
        const ist_sync_type type = (ist_sync_type)(1 + i % 5);
        if (ist_sync_create(type, type == IST_BARRIER ? 2 : 0, 0, &p->locks[i]) != 0) {
            p->locks[i] = NULL;
            return;
        }
        (void)!ist_segment_token(ist_sync_segment(p->locks[i]), &board->locks[i]);
    }
    use(p, p->locks[i]);
}

static void look(void) {
    ist_segment_info info[32];
    ist_stats stats = {.struct_size = sizeof stats};
    for (uint32_t cursor = 0; ist_segments(&cursor, info, 32) != 0;)
        ;
    (void)!ist_stats_read(&stats);
}

static void step(struct player *p);

/* A child, or a newcomer by exec. */
static void more_processes(struct player *p) {
    fflush(NULL);
    pid_t child = -1;
    if (any(p, 2) == 0) {
        char text[64];
        char *arguments[] = {(char *)"plain_garbage", (char *)"newcomer", NULL};
        extern char **environ;
        if (ist_domain_text(text, sizeof text) == 0 && setenv("ISTHMUS_DOMAIN", text, 1) == 0)
            CHECK_EQ(posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ), 0);
    } else if (!TEST_ASAN) { /* whose locks may be taken by the housekeeper */
        const uint32_t epoch = ist_epoch();
        child = fork();
        if (child == 0) {
            for (unsigned i = 0; ist_epoch() == epoch && i < 20; i++)
                step(p);
            _exit(0);
        }
    }
    if (child < 0)
        return;
    int status = test_wait(child, PATIENCE);
    CHECK(status == 0, "a child, or a newcomer, ended with %#x", status);
}

static void step(struct player *p) {
    uint64_t r = any(p, 100);
    if (r >= 80)
        put_or_get(p);
    else if (r >= 64)
        lock_or_unlock(p);
    else if (r < 12)
        make(p);
    else if (r < 24)
        tell(p);
    else if (r < 40)
        attach(p);
    else if (r < 50)
        release(p);
    else if (r < 54)
        exclusive(p);
    else if (r < 57)
        ist_sweep();
    else if (r < 58)
        ist_collect();
    else if (r < 59)
        look();
    else if (r < 61)
        name(p);
    else if (r < 62 && any(p, 8) == 0)
        more_processes(p);
    else if (r < 63)
        wait_one(p);
    else if (p->count > 0)
        touch(p, p->held[any(p, p->count)]);
}

/* ---- garbage */

struct garbage {
    struct isti_domain *d;
    char *control; /* a mapping of its own, so that the library's may be anything */
    uint64_t *random;
    ist_queue *queue; /* one that the writer holds; NULL */
    ist_sync *lock; /* the same */
};

static uint64_t pick(struct garbage *g, uint64_t n) { return (test_random(g->random) >> 16) % n; }

static void put64(struct garbage *g, const void *place, uint64_t value) {
    _Atomic(uint64_t) *word = (_Atomic(uint64_t) *)(void *)(g->control + ((const char *)place - g->d->control));
    atomic_store_explicit(word, value, memory_order_relaxed); /* relaxed: garbage */
    atomic_fetch_add_explicit(&board->words, 1, memory_order_relaxed);
}

static void put32(struct garbage *g, const void *place, uint64_t value) {
    _Atomic(uint32_t) *word = (_Atomic(uint32_t) *)(void *)(g->control + ((const char *)place - g->d->control));
    atomic_store_explicit(word, (uint32_t)value, memory_order_relaxed); /* relaxed: garbage */
    atomic_fetch_add_explicit(&board->words, 1, memory_order_relaxed);
}

/* Numbers that are likely to be taken for good ones, or to be just beyond. */
static uint64_t number(struct garbage *g) {
    const uint64_t size = g->d->window_size;
    switch (pick(g, 9)) {
    case 0: return 0;
    case 1: return UINT64_MAX;
    case 2: return pick(g, 8);
    case 3: return pick(g, 64) * 64;
    case 4: return size * pick(g, 6) + pick(g, 1024) * 4096;
    case 5: return size * (1 + pick(g, 3)) - pick(g, 5) * 64;
    case 6: return (uint64_t)g->d->windows * size - pick(g, 3) * 64;
    case 7: return UINT64_C(1) << pick(g, 64);
    default: return test_random(g->random);
    }
}

static void in_descriptors(struct garbage *g) {
    uint32_t high = isti_descriptors_high(g->d);
    struct isti_descriptor *row = &g->d->descriptor_rows[pick(g, pick(g, 8) == 0 || high == 0 ? g->d->descriptors : high)];
    uint64_t s = atomic_load_explicit(&row->state, memory_order_relaxed);
    switch (pick(g, 12)) {
    case 0: put64(g, &row->state, s ^ UINT64_C(1) << pick(g, 64)); break;
    case 1: put64(g, &row->state, isti_s(isti_s_generation(s), (isti_phase)pick(g, 8), (uint32_t)pick(g, 20))); break;
    case 2:
        put64(g, &row->state, isti_s((uint32_t)(isti_s_generation(s) + pick(g, 3) - 1), (isti_phase)pick(g, 6), (uint32_t)number(g)));
        break;
    case 3: put64(g, &row->state, isti_s(ISTI_DESCRIPTOR_GENERATIONS - (uint32_t)pick(g, 2), (isti_phase)pick(g, 6), 0)); break;
    case 4: put64(g, &row->offset, number(g)); break;
    case 5: put64(g, &row->length, number(g)); break;
    case 6: put32(g, &row->window, number(g)); break;
    case 7: put32(g, &row->flags, number(g)); break;
    case 8: put64(g, &row->holders[pick(g, 3) == 0 ? pick(g, ISTI_WORDS) : 0], number(g)); break;
    case 9: put64(g, &row->current, number(g)); break;
    case 10: put32(g, &row->flags, ISTI_PUBLISHED_GROWABLE); break;
    default: put64(g, (const uint64_t *)(const void *)row + pick(g, sizeof *row / 8), test_random(g->random));
    }
}

static void in_flights(struct garbage *g) {
    uint32_t high = isti_descriptors_high(g->d);
    struct isti_descriptor *row = &g->d->descriptor_rows[pick(g, high == 0 ? 1 : high)];
    switch (pick(g, 4)) {
    case 0: put64(g, &row->queue, pick(g, 2) == 0 ? pick(g, 6) : number(g)); break;
    case 1: put64(g, &row->flights[7], pick(g, 5) << 32 | pick(g, high + 2)); break;
    case 2: put64(g, &row->flights[7], number(g)); break;
    default: put64(g, &row->flights[pick(g, 7)], pick(g, 6) << 48 | number(g) >> 16);
    }
}

static void in_queues(struct garbage *g) {
    struct isti_queue_row *row = &g->d->queue_rows[pick(g, 6)];
    uint64_t head = atomic_load_explicit(&row->head, memory_order_relaxed), tail = atomic_load_explicit(&row->tail, memory_order_relaxed);
    switch (pick(g, 6)) {
    case 0: put64(g, &row->head, tail + pick(g, 5) - 2); break;
    case 1: put64(g, &row->tail, head + pick(g, 5) - 2); break;
    case 2: put64(g, &row->head, number(g)); break;
    case 3: put64(g, &row->tail, number(g)); break;
    case 4: put64(g, &row->owner, pick(g, 4) << 32 | pick(g, 64)); break;
    default: put64(g, &row->owner, number(g));
    }
}

/* The memory of a ring, which the writer has mapped as everybody has. */
static void in_rings(struct garbage *g) {
    if (g->queue == NULL)
        return;
    struct isti_ring *ring = ist_segment_data(ist_queue_segment(g->queue));
    struct isti_ring_slot *slots = (struct isti_ring_slot *)(void *)(ring + 1);
    const struct isti_queue_row *row = &g->d->queue_rows[pick(g, 6)];
    uint64_t position = atomic_load_explicit(&row->head, memory_order_relaxed) + pick(g, 4) - 1,
             at = pick(g, 2) == 0 ? pick(g, 8) : position & 7;
    _Atomic(uint64_t) *word = (_Atomic(uint64_t) *)(void *)ring + pick(g, sizeof *ring / 8);
    switch (pick(g, 5)) {
    case 0: break;
    case 1: word = &slots[at].word; break;
    case 2: word = &slots[at].body[0]; break;
    default: word = &slots[at].body[pick(g, ISTI_BODY)];
    }
    uint64_t value = number(g);
    if (word == &slots[at].word && pick(g, 4) != 0)
        value = isti_slot_word(position, (isti_slot_state)pick(g, 5), (uint32_t)pick(g, 20));
    if (word == &slots[at].body[0] && pick(g, 4) != 0)
        value = isti_header_word((struct isti_header){1, (uint8_t)pick(g, 50), (uint8_t)pick(g, 8), pick(g, 2) == 0});
    if (word > &slots[at].body[0] && pick(g, 2) == 0)
        value = isti_ref((uint32_t)pick(g, 64), (uint32_t)pick(g, 4));
    atomic_store_explicit(word, value, memory_order_relaxed); /* relaxed: garbage */
    atomic_fetch_add_explicit(&board->words, 1, memory_order_relaxed);
}

/* The memory of a lock or the like. */
static void in_locks(struct garbage *g) {
    if (g->lock == NULL)
        return;
    struct isti_sync_memory *memory = ist_segment_data(ist_sync_segment(g->lock));
    uint64_t value = number(g);
    if (pick(g, 2) == 0) /* an owner: some thread, holder, process */
        value = pick(g, 3) << 32 | pick(g, 3) << 16 | pick(g, 20) << 4 | pick(g, 4);
    /* relaxed, all: garbage */
    switch (pick(g, 6)) {
    case 0: atomic_fetch_xor_explicit(&memory->word, UINT64_C(1) << pick(g, 64), memory_order_relaxed); break;
    case 1:
    case 2: atomic_store_explicit(&memory->word, value, memory_order_relaxed); break;
    case 3: atomic_store_explicit(&memory->event, (uint32_t)number(g), memory_order_relaxed); break;
    case 4:
        if (ist_sync_type_of(g->lock) == IST_BARRIER) {
            struct isti_barrier_memory *barrier = (struct isti_barrier_memory *)(void *)memory;
            atomic_store_explicit(&barrier->inside[pick(g, 8)], (uint32_t)number(g), memory_order_relaxed);
            break;
        } /* fall through */
    default: atomic_store_explicit((_Atomic(uint64_t) *)(void *)memory + pick(g, sizeof *memory / 8), value, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&board->words, 1, memory_order_relaxed);
}

static void in_tickets(struct garbage *g) {
    struct isti_ticket *row = &g->d->ticket_rows[pick(g, pick(g, 8) == 0 ? g->d->tickets : 48)];
    uint64_t word = atomic_load_explicit(&row->word, memory_order_relaxed);
    switch (pick(g, 5)) {
    case 0: put64(g, &row->word, word ^ UINT64_C(1) << pick(g, 64)); break;
    case 1: put64(g, &row->word, (word >> 24) << 24 | pick(g, 4) << 16 | pick(g, 20)); break;
    case 2: put32(g, &row->descriptor, number(g)); break;
    case 3: put64(g, &row->deadline, number(g)); break;
    default: put64(g, (const uint64_t *)(const void *)row + pick(g, 4), test_random(g->random));
    }
}

static void in_names(struct garbage *g) {
    struct isti_name *row = &g->d->name_rows[pick(g, 6)];
    switch (pick(g, 6)) {
    case 0: put32(g, &row->version, pick(g, 2) == 0 ? number(g) : pick(g, 4)); break;
    case 1: put32(g, &row->length, pick(g, 2) == 0 ? number(g) : 195 + pick(g, 10)); break;
    case 2: put32(g, &row->size, pick(g, 2) == 0 ? number(g) : 1595 + pick(g, 10)); break;
    case 3: put32(g, &row->descriptor, number(g)); break;
    case 4: put32(g, &row->generation, pick(g, 6)); break;
    default: put32(g, (const uint32_t *)(const void *)row + pick(g, sizeof *row / 4), test_random(g->random));
    }
}

static void in_waiters(struct garbage *g) {
    struct isti_waiter_bucket *bucket = &g->d->waiter_rows[pick(g, g->d->waiter_buckets)];
    struct isti_waiter *row = &bucket->rows[pick(g, 3)];
    uint64_t word = atomic_load_explicit(&row->word, memory_order_relaxed);
    switch (pick(g, 8)) {
    case 0: put64(g, &row->word, word ^ UINT64_C(1) << pick(g, 64)); break;
    case 1: put64(g, &row->word, (word & ~UINT64_C(0xffff)) | pick(g, 7) << 12 | pick(g, 20)); break;
    case 2: put64(g, &row->word, pick(g, 40) << 16 | pick(g, 7) << 12 | pick(g, 20)); break;
    case 3: put32(g, &row->descriptor, number(g)); break;
    case 4: put32(g, &bucket->high, number(g)); break;
    case 5: put32(g, &bucket->spilled, number(g)); break;
    case 6: put64(g, &g->d->marks->waits, number(g)); break;
    default: put64(g, &g->d->marks->waiter_buckets[pick(g, ISTI_WAITER_BUCKETS / 64)], number(g));
    }
}

static void in_members(struct garbage *g) {
    struct isti_member *row = &g->d->member_rows[pick(g, g->d->members)];
    switch (pick(g, 4)) {
    case 0: put32(g, &row->dirty, pick(g, 3)); break;
    case 1: put32(g, &row->struck, number(g)); break;
    case 2: put32(g, &row->doorbell, number(g)); break;
    default: put32(g, (const uint32_t *)(const void *)row + pick(g, sizeof *row / 4), number(g));
    }
}

static void in_windows(struct garbage *g) {
    const uint64_t words = g->d->descriptors / 4096 + g->d->descriptors / 64;
    uint64_t w = pick(g, pick(g, 8) == 0 ? g->d->windows : 4);
    if (pick(g, 2) == 0)
        put32(g, &g->d->window_rows[w].used, number(g));
    put64(g, g->d->hints + w * words + pick(g, words), test_random(g->random));
    put32(g, &g->d->window_rows[w].hinted, 1);
}

static void in_marks(struct garbage *g) {
    _Atomic(uint32_t) *marks[] = {&g->d->marks->members, &g->d->marks->descriptors, &g->d->marks->windows,
                                  &g->d->marks->tickets, &g->d->marks->names,       &g->d->marks->queues};
    put32(g, marks[pick(g, 6)], pick(g, 4) == 0 ? number(g) : pick(g, 40));
}

/* Read by whoever comes new, and by whoever looks for a name. */
static void in_header(struct garbage *g) {
    const uint32_t *word = (const uint32_t *)(const void *)g->d->control;
    switch (pick(g, 3)) {
    case 0:
        put32(g, word + offsetof(struct isti_control_header, id) / 4 + pick(g, 4), test_random(g->random));
        break; /* of the id: taken for another domain */
    case 1: put32(g, word + pick(g, sizeof(struct isti_control_header) / 4), number(g)); break;
    default: put32(g, word + pick(g, 1024), test_random(g->random));
    }
}

static void write_garbage(struct garbage *g) {
    static void (*const places[])(struct garbage *) = {in_descriptors, in_descriptors, in_descriptors, in_descriptors, in_tickets,
                                                       in_tickets,     in_names,       in_members,     in_windows,     in_flights,
                                                       in_queues,      in_queues,      in_rings,       in_rings,       in_rings,
                                                       in_waiters,     in_locks,       in_locks,       in_locks};
    uint64_t r = pick(g, 40);
    if (r == 0)
        in_marks(g);
    else if (r == 1)
        in_header(g);
    else
        places[r % (sizeof places / sizeof *places)](g);
}

/* ---- games */

/* AddressSanitizer knows what the heap has handed out, and garbage may lead anywhere in it: that is no more than wrong. Outside of any
 * mapping is SIGSEGV, outside of the process's own memory it still tells. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allow_user_poisoning=0"; }

static void second(void *argument) {
    struct player p = {.random = *(uint64_t *)argument * 7 | 1, .game = getppid()};
    while (atomic_load_explicit(&board->over, memory_order_relaxed) == 0 && getppid() == p.game) /* relaxed: told when to stop */
        step(&p);
    _exit(0);
}

static void game(void *argument) {
    uint64_t seed = *(uint64_t *)argument;
    struct player p = {.random = seed, .game = getpid()};
    ist_options options = {.struct_size = sizeof options, .processes = 16, .published = 4096};
    CHECK_EQ(ist_configure(&options), 0);
    CHECK_EQ(unsetenv("ISTHMUS_DOMAIN"), 0);
    CHECK_EQ(ist_domain_join(), 0);
    ist_lease_set_duration(UINT64_C(3000000));
    memset(board->notes, 0, sizeof board->notes);
    memset(board->queues, 0, sizeof board->queues);
    memset(board->locks, 0, sizeof board->locks);
    atomic_store_explicit(&board->over, 0, memory_order_relaxed);
    pid_t other = fork();
    CHECK(other >= 0, "fork: %s", strerror(errno));
    if (other == 0)
        second(&seed);
    struct garbage g = {.d = isti_domain_home_now(), .random = &seed};
    g.control = mmap(NULL, g.d->control_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, g.d->control_fd, 0);
    CHECK(g.control != MAP_FAILED, "%s", strerror(errno));
    for (unsigned i = 0; i < 60; i++)
        step(&p);
    for (unsigned round = 0; round < ROUNDS; round++) {
        g.queue = p.q[pick(&g, QUEUES)];
        g.lock = p.locks[pick(&g, LOCKS)];
        for (uint64_t n = 1 + pick(&g, 4); n > 0; n--)
            write_garbage(&g);
        for (unsigned i = 0; i < 6; i++)
            step(&p);
    }
    let_go_of_queues(&p);
    let_go_of_locks(&p);
    while (p.count > 0)
        release(&p);
    atomic_store_explicit(&board->over, 1, memory_order_relaxed);
    int status = test_wait(other, PATIENCE);
    CHECK(status == 0, "the other process ended with %#x", status);
}

/* By exec, into whatever is left of the domain. */
static int newcomer(void) {
    ist_segment s, t;
    ist_token token;
    if (ist_domain_join() != 0 || ist_segment_create(100, 0, &s) != 0)
        return 0;
    if (ist_segment_token(s, &token) == 0 && ist_segment_acquire(&token, &t) == 0)
        ist_segment_release(t);
    ist_segment_release(s);
    ist_collect();
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "newcomer") == 0)
        return newcomer();
    if (TEST_TSAN)
        test_skip("garbage is no synchronisation: ThreadSanitizer would see races only");
    board = test_shared(sizeof *board);
    uint64_t seed = test_seed();
    const uint64_t end = test_storm_end(0);
    const unsigned least = TEST_ASAN ? 15 : 60;
    unsigned games = 0;
    for (; games < least || test_now() < end; games++) {
        uint64_t of_game = test_random(&seed);
        int status = test_in_child(game, &of_game, PATIENCE + 10);
        CHECK(status == 0, "game %u ended with %#x", games, status);
    }
    printf(
        "%u games of %d rounds, %llu words of garbage; %llu published, %llu attached, %llu put, %llu got, %llu locked, %llu calls refused\n",
        games, (int)ROUNDS, (unsigned long long)board->words, (unsigned long long)board->published, (unsigned long long)board->attached,
        (unsigned long long)board->put, (unsigned long long)board->got, (unsigned long long)board->locked,
        (unsigned long long)board->refused);
    CHECK(board->put > 100 && board->got > 100 && board->attached > 100 && board->refused > 100 && board->published > 100 &&
          board->locked > 100);
    return 0;
}
