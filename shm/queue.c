/* queue.c: putting, getting and waiting; the ring's own business is in ring.c.
 *
 *   put    publish what the message refers to · claim a position · body · marks (a list's own first) · FULL · wake
 *   get    read · own what it refers to · move head, which is the reception · wake
 *
 * A message is in the queue until head moves and the receiver's afterwards: there is nothing in between that a kill could leave. The marks
 * come before FULL, so whoever reads FULL can become an owner; the body before the marks, so whoever passes a half-written message finds
 * there what may be marked. The mark of a list comes before those of what it lists: then, while any of them is there, the list can be read.
 *
 * shutdown: a sender claims, then looks at the flag; a receiver looks at the flag, then finds the queue empty. All four are seq_cst, so a
 * receiver that was told "empty for good" has missed no message that was put.
 */
#include <isthmus/queue.h>

#include "eventcount.h"
#include "os.h"
#include "point.h"
#include "queue.h"
#include "sanitizer.h"
#include "segment.h"
#include "stop.h"

#include <errno.h>
#include <string.h>

#define MOST_SEGMENTS (1u << 24)
#define SPIN_FIRST 200u
#define SPIN_MOST 2000u
#define SUSPECT_NS UINT64_C(1000000) /* a message is written in less: its sender was preempted, stopped or killed */
#define WRITING_NS UINT64_C(20000000)

/* What a small message doesn't need; inlined, its registers and memory would be saved and restored by every call. */
#define APART __attribute__((noinline))

enum { SPIN_GET, SPIN_PUT, SPIN_JOIN };

/* ---- making */

static bool is_queue(ist_segment s) {
    return (atomic_load_explicit(&s.slot->meta, memory_order_relaxed) >> 8 & ISTI_SLOT_QUEUE) != 0; /* relaxed: an owner asks */
}

/* ---- listening by descriptors, see listen.c */

static bool has_room(const struct isti_ring_view *v);
static bool all_done(const struct isti_ring_view *v);

static _Atomic(uint32_t) *listened(const struct isti_ring_view *v, ist_queue_side side) {
    return side == IST_QUEUE_MESSAGES ? &v->ring->listened : side == IST_QUEUE_ROOM ? &v->ring->room_listened : &v->ring->done_listened;
}

/* After it has happened. */
static void tell_listeners(const struct isti_ring_view *v, ist_queue_side side) {
    isti_listen_tell(v->d, v->index, listened(v, side), v->ring->armed);
}

static const struct isti_ring_view *view_of(const struct isti_listener *l, ist_queue_side side) {
    return &((const struct ist_queue *)(const void *)((const char *)(l - side) - offsetof(struct ist_queue, sides)))->view;
}
static bool has_message(const struct isti_listener *l) { return isti_queue_is_waiting(view_of(l, IST_QUEUE_MESSAGES)); }
static bool has_a_place(const struct isti_listener *l) { return has_room(view_of(l, IST_QUEUE_ROOM)); }
static bool has_no_task(const struct isti_listener *l) { return all_done(view_of(l, IST_QUEUE_DONE)); }
static bool (*const ready[ISTI_SIDES])(const struct isti_listener *) = {has_message, has_a_place, has_no_task};

int ist_queue_open(ist_segment s, ist_queue **out) {
    if (ist_segment_is_null(s) || out == NULL || !is_queue(s))
        return -EINVAL;
    const uint64_t desc = atomic_load_explicit(&s.slot->desc, memory_order_acquire); /* acquire: pairs with publish */
    struct isti_domain *d = isti_domain_by_number(isti_desc_domain(desc));
    if (desc == 0 || d == NULL)
        return -ENOTRECOVERABLE;
    struct ist_queue *q = isti_os.calloc(1, sizeof *q);
    if (q == NULL)
        return -ENOMEM;
    int error = isti_ring_view(d, isti_desc_index(desc), isti_desc_generation(desc), ist_segment_data(s), ist_segment_size(s), &q->view);
    if (error != 0) {
        isti_os.free(q);
        return error;
    }
    q->segment = s;
    q->epoch = ist_epoch();
    for (ist_queue_side side = 0; side < ISTI_SIDES; side++) {
        q->sides[side] = (struct isti_listener){.d = d,
                                                .index = q->view.index,
                                                .epoch = q->epoch,
                                                .armed = q->view.ring->armed,
                                                .listened = listened(&q->view, side),
                                                .is_ready = ready[side]};
        isti_listener_begin(&q->sides[side]);
    }
    for (int i = 0; i < 3; i++)
        atomic_store_explicit(&q->spin[i], SPIN_FIRST, memory_order_relaxed); /* relaxed: nobody else has it */
    *out = q;
    return 0;
}

/* Takes the reference, also if it fails. */
static int open_or_release(ist_segment s, ist_queue **out) {
    int error = ist_queue_open(s, out);
    if (error != 0)
        ist_segment_release(s);
    return error;
}

int ist_queue_create(uint64_t maxsize, ist_queue **out) {
    if (out == NULL)
        return -EINVAL;
    struct isti_domain *d;
    ist_segment s, first; /* so that there is a heap, of which rings have a part */
    int error = isti_domain_home(&d);
    if (error == 0)
        error = ist_segment_create(1, 0, &first);
    if (error != 0)
        return error;
    error = isti_ring_make(d, maxsize, &s);
    ist_segment_release(first);
    if (error != 0)
        return error;
    return open_or_release(s, out);
}

int ist_queue_attach(const ist_token *token, ist_queue **out) {
    ist_segment s;
    int error = ist_segment_acquire(token, &s);
    return error != 0 ? error : open_or_release(s, out);
}

static bool is_usable(const struct ist_queue *q) { return ist_process_epoch() != 0 && q->epoch == ist_epoch(); }

void ist_queue_release(ist_queue *q) {
    if (q == NULL)
        return;
    if (is_usable(q))
        for (int side = 0; side < ISTI_SIDES; side++)
            isti_listener_end(&q->sides[side]);
    ist_segment_release(q->segment);
    isti_os.free(q);
    isti_lease_uncarry();
}

ist_segment ist_queue_segment(const ist_queue *q) { return q->segment; }

int ist_queue_fileno_of(ist_queue *q, ist_queue_side side, int *out) {
    return q == NULL || out == NULL || (unsigned)side >= ISTI_SIDES ? -EINVAL : isti_listener_fileno(&q->sides[side], out);
}

int ist_queue_fileno(ist_queue *q, int *out) { return ist_queue_fileno_of(q, IST_QUEUE_MESSAGES, out); }

/* ---- waiting */

typedef bool (*happened_fn)(const struct isti_ring_view *);

/* Looks for a while, twice as long as it took the last times; where that doesn't help, less and less, in the end one time in 32. */
static bool spin(struct ist_queue *q, happened_fn happened, int which) {
    _Atomic(uint32_t) *budget = &q->spin[which];
    uint32_t limit = atomic_load_explicit(budget, memory_order_relaxed); /* relaxed, all: a guess */
    if (limit < 8 && atomic_fetch_add_explicit(&q->sleeps, 1, memory_order_relaxed) % 32 != 0)
        return false;
    limit = limit < 8 ? SPIN_FIRST : limit;
    for (uint32_t i = 0; i < limit; i++) {
        if (happened(&q->view)) {
            uint32_t aim = 2 * i + 64 < SPIN_MOST ? 2 * i + 64 : SPIN_MOST;
            atomic_store_explicit(budget, limit + aim / 4 - limit / 4, memory_order_relaxed);
            return true;
        }
        isti_relax();
    }
    atomic_store_explicit(budget, limit - limit / 4, memory_order_relaxed);
    return false;
}

/* One turn of waiting for something that is told by `word`. 0: look again; -ETIMEDOUT, -EINTR, -ECANCELED. */
APART static int wait_turn(struct ist_queue *q, _Atomic(uint32_t) *word, happened_fn happened, int which, uint64_t deadline,
                           ist_waiter *w) {
    if (isti_stop_is_set(w))
        return -ECANCELED;
    if (spin(q, happened, which))
        return 0;
    int error = 0;
    const uint32_t value = isti_event_prepare(word);
    isti_stop_announce(w, word);
    IST_POINT(WAIT_ANNOUNCED);
    if (isti_stop_is_set(w))
        error = -ECANCELED;
    else if (!happened(&q->view))
        error = isti_os.now() >= deadline ? -ETIMEDOUT : isti_event_wait(word, value, deadline);
    isti_stop_leave(w, word);
    if (error == 0 || !happened(&q->view))
        return error;
    if (error == -ETIMEDOUT)
        return 0; /* just in time */
    isti_event_wake_one(word); /* we may have been woken for it, and leave: somebody else is to have it */
    return error;
}

/* Who finds again and again that others were faster isn't kept beyond its deadline; the clock is asked for that now and then only. */
static bool is_late(unsigned turns, uint64_t deadline) { return deadline == 0 || (turns % 16 == 0 && isti_os.now() >= deadline); }

/* With deadline 0 there is nothing to wait for. */
static int would_wait(int error, uint64_t deadline) { return error == -ETIMEDOUT && deadline == 0 ? -EAGAIN : error; }

/* ---- putting */

struct outgoing {
    uint64_t words[ISTI_BODY];
    unsigned used;
    ist_segment list; /* ours while the message is being put */
    const ist_segment *segments;
    uint32_t count;
};

static const ist_segment *segments_of(const ist_queue_message *m) { return m->many != NULL ? m->many : m->few; }

/* Publishes a segment and writes how a message refers to it. */
static int refer(const struct ist_queue *q, ist_segment s, uint64_t *ref) {
    if (ist_segment_is_null(s))
        return -EINVAL;
    int error = isti_publish(s);
    if (error != 0)
        return error;
    const uint64_t desc = atomic_load_explicit(&s.slot->desc, memory_order_acquire); /* acquire: pairs with publish */
    if (isti_desc_domain(desc) != q->view.d->number)
        return -EXDEV;
    const uint32_t index = isti_desc_index(desc);
    /* relaxed: constant while we hold it. Marks don't keep memory that isn't the domain's */
    if (atomic_load_explicit(&q->view.d->descriptor_rows[index].flags, memory_order_relaxed) & ISTI_PUBLISHED_LOCAL)
        return -EXDEV;
    *ref = isti_ref(index, isti_desc_generation(desc));
    return 0;
}

static int make_list(const struct ist_queue *q, struct outgoing *o, uint64_t *ref) {
    int error = ist_segment_create(8 + 8 * (size_t)o->count, 0, &o->list);
    if (error != 0)
        return error;
    uint64_t *words = ist_segment_data(o->list);
    words[0] = o->count;
    for (uint32_t i = 0; i < o->count && error == 0; i++)
        error = refer(q, o->segments[i], &words[1 + i]);
    return error != 0 ? error : refer(q, o->list, ref);
}

/* The message as its slot will have it. */
static int prepare(const struct ist_queue *q, const ist_queue_message *m, struct outgoing *o) {
    o->list = (ist_segment){NULL, 0, 0};
    o->segments = segments_of(m);
    o->count = m->count;
    const unsigned bytes = (m->size + 7u) / 8;
    const bool listed = m->count > 0 && m->count + bytes > ISTI_BODY_REFS;
    const unsigned refs = listed ? 1 : m->count;
    if (m->count > MOST_SEGMENTS || (m->count > IST_MESSAGE_FEW && m->many == NULL))
        return -EINVAL;
    if (m->size > IST_MESSAGE_BYTES || refs + bytes > ISTI_BODY_REFS)
        return -EMSGSIZE;
    o->words[0] = isti_header_word((struct isti_header){m->tag, m->size, (uint8_t)refs, listed});
    int error = 0;
    if (listed)
        error = make_list(q, o, &o->words[1]);
    else
        for (unsigned i = 0; i < refs && error == 0; i++)
            error = refer(q, o->segments[i], &o->words[1 + i]);
    for (unsigned i = 0; i < bytes; i++) /* whole words, which is faster than their exact number; nobody looks at what is behind `size` */
        memcpy(&o->words[1 + refs + i], m->bytes + 8 * i, 8);
    o->used = 1 + refs + bytes;
    if (error != 0 && !ist_segment_is_null(o->list))
        ist_segment_release(o->list);
    return error;
}

static bool is_shut(const struct isti_ring_view *v) {
    return atomic_load_explicit(&v->ring->shutdown, memory_order_seq_cst) != 0; /* seq_cst: see the head */
}

static bool has_room(const struct isti_ring_view *v) {
    const uint64_t tail = atomic_load_explicit(&v->row->tail, memory_order_seq_cst); /* seq_cst, all: a waiter's second look */
    const uint64_t head = atomic_load_explicit(&v->row->head, memory_order_seq_cst);
    const uint64_t floor = v->sparse ? atomic_load_explicit(&v->ring->floor, memory_order_seq_cst) : head;
    return is_shut(v) || ((v->maxsize == 0 || tail - head < v->maxsize) && tail - floor <= v->mask);
}

/* A task is done, or what was never put has been passed: that may have been the last. */
static void tell_if_done(const struct ist_queue *q) {
    if (!all_done(&q->view))
        return;
    if (isti_event_awaited(&q->view.ring->all_done))
        isti_event_wake_all(&q->view.ring->all_done);
    tell_listeners(&q->view, IST_QUEUE_DONE);
}

/* Passes what was skipped at head, and tells what that makes true. As isti_ring_tidy. */
static int tidy(const struct ist_queue *q) {
    int did = isti_ring_tidy(&q->view);
    if (did > 0) {
        if (isti_event_awaited(&q->view.ring->not_full))
            isti_event_wake_all(&q->view.ring->not_full);
        tell_listeners(&q->view, IST_QUEUE_ROOM);
        tell_if_done(q);
    }
    return did;
}

/* Position t, which is ours, is given up: it counts as skipped. */
APART static void give_up(struct ist_queue *q, uint64_t t) {
    atomic_exchange_explicit(&isti_slot_at(&q->view, t)->word, isti_slot_word(t, ISTI_SLOT_SKIP, 0), memory_order_seq_cst);
    tidy(q);                                       /* who listens for room, or the last task, isn't told before somebody has passed it */
    isti_event_wake_one(&q->view.ring->not_empty); /* to pass it, where it isn't at head yet */
}

/* A dead sender's message at head of a full queue: that is swept, and what was skipped is passed. 1: head has moved; 0; or an error. */
APART static int suspect_head(struct ist_queue *q) {
    const struct isti_ring_view *v = &q->view;
    const uint64_t h = atomic_load_explicit(&v->row->head, memory_order_acquire); /* acquire, both: as in a reception */
    const uint64_t word = atomic_load_explicit(&isti_slot_at(v, h)->word, memory_order_acquire);
    const bool suspect =
        word != 0 && isti_slot_position(word) == h && isti_slot_state_of(word) == ISTI_SLOT_RSV && isti_slot_member(word) != v->d->me;
    if (suspect)
        isti_sweep_member(v->d, isti_slot_member(word));
    int did = tidy(q);
    return did == 0 && suspect ? atomic_load_explicit(&v->row->head, memory_order_acquire) != h : did; /* the sweep passes it by itself */
}

static int claim(struct ist_queue *q, uint64_t deadline, ist_waiter *w, uint64_t *t) {
    for (unsigned turns = 1;; turns++) {
        if (is_shut(&q->view))
            return -ESHUTDOWN;
        int error = isti_ring_claim(&q->view, t);
        if (error == 0 && is_shut(&q->view)) {
            atomic_store_explicit(&isti_slot_at(&q->view, *t)->body[0], 0, memory_order_relaxed); /* relaxed: ordered by the exchange */
            give_up(q, *t);
            return -ESHUTDOWN;
        }
        if (error == 0)
            return 0;
        int tidied = suspect_head(q); /* before anybody is told that it is full */
        if (tidied < 0)
            return tidied;
        if (tidied > 0)
            continue;
        if (error != -EAGAIN)
            return error;
        error = is_late(turns, deadline) ? -ETIMEDOUT : wait_turn(q, &q->view.ring->not_full, has_room, SPIN_PUT, deadline, w);
        if (error != 0)
            return would_wait(error, deadline);
    }
}

static int mark(struct ist_queue *q, uint64_t ref, uint64_t t) {
    const struct isti_ring_view *v = &q->view;
    if (ref == isti_ref(v->index, v->generation)) /* the queue itself: isn't counted, or it would never go */
        return 0;
    return isti_flight_mark(v->d, isti_ref_index(ref), isti_ref_generation(ref), v->q, t);
}

static int mark_all(struct ist_queue *q, const struct outgoing *o, uint64_t t) {
    const bool listed = !ist_segment_is_null(o->list);
    const unsigned refs = listed ? 1 : o->count;
    int error = 0;
    for (unsigned i = 0; i < refs && error == 0; i++) /* a list first: see the head */
        error = mark(q, o->words[1 + i], t);
    const volatile uint64_t *words = listed ? ist_segment_data(o->list) : NULL; /* each is read once: anybody may write there */
    for (uint32_t i = 0; listed && i < o->count && error == 0; i++)
        error = mark(q, words[1 + i], t);
    return error;
}

/* Position t is ours, with its body and its marks. */
static void complete(struct ist_queue *q, struct isti_ring_slot *slot, uint64_t t) {
    IST_POINT(PUT_MARKED);
    /* seq_cst, for the waiter's look; its release pairs with the receiver's acquire: body, marks, and what the sender wrote before */
    atomic_exchange_explicit(&slot->word, isti_slot_word(t, ISTI_SLOT_FULL, 0), memory_order_seq_cst);
    IST_POINT(PUT_FULL);
    isti_event_wake_one(&q->view.ring->not_empty);
    tell_listeners(&q->view, IST_QUEUE_MESSAGES);
    IST_POINT(PUT_WOKEN);
}

/* Position t is ours. */
static int fill(struct ist_queue *q, const struct outgoing *o, uint64_t t) {
    struct isti_ring_slot *slot = isti_slot_at(&q->view, t);
    for (unsigned i = 0; i < o->used; i++)
        atomic_store_explicit(&slot->body[i], o->words[i], memory_order_relaxed); /* relaxed: the marks' moves of S and FULL order them */
    IST_POINT(PUT_BODY);
    int error = mark_all(q, o, t);
    if (error != 0) {
        give_up(q, t);
        return error;
    }
    complete(q, slot, t);
    return 0;
}

/* The same for a message that refers to nothing: it goes from the caller's memory into the slot. */
static int put_bytes(struct ist_queue *q, const ist_queue_message *m, uint64_t deadline, ist_waiter *waiter) {
    if (m->size > IST_MESSAGE_BYTES)
        return -EMSGSIZE;
    uint64_t t;
    int error = claim(q, deadline, waiter, &t);
    if (error != 0)
        return error;
    struct isti_ring_slot *slot = isti_slot_at(&q->view, t);
    /* relaxed, both: FULL orders them */
    atomic_store_explicit(&slot->body[0], isti_header_word((struct isti_header){m->tag, m->size, 0, false}), memory_order_relaxed);
    for (unsigned i = 0; i < m->size; i += 8) { /* whole words: see prepare() */
        uint64_t word;
        memcpy(&word, m->bytes + i, 8);
        atomic_store_explicit(&slot->body[1 + i / 8], word, memory_order_relaxed);
    }
    IST_POINT(PUT_BODY);
    complete(q, slot, t);
    return 0;
}

APART static int put_with_segments(struct ist_queue *q, const ist_queue_message *message, uint64_t deadline, ist_waiter *waiter) {
    struct outgoing o;
    uint64_t t;
    int error = prepare(q, message, &o);
    if (error != 0)
        return error;
    error = claim(q, deadline, waiter, &t);
    if (error == 0)
        error = fill(q, &o, t);
    if (!ist_segment_is_null(o.list))
        ist_segment_release(o.list);
    return error;
}

int ist_queue_put(ist_queue *q, const ist_queue_message *message, uint64_t deadline, ist_waiter *waiter) {
    if (q == NULL || message == NULL)
        return -EINVAL;
    if (!is_usable(q))
        return -ENOTRECOVERABLE;
    return message->count == 0 ? put_bytes(q, message, deadline, waiter) : put_with_segments(q, message, deadline, waiter);
}

int ist_queue_await_room(ist_queue *q, uint64_t deadline, ist_waiter *waiter) {
    if (!is_usable(q))
        return -ENOTRECOVERABLE;
    while (!has_room(&q->view)) {
        if (isti_listener_clear(&q->sides[IST_QUEUE_ROOM]) && has_room(&q->view))
            break;
        int error = suspect_head(q);
        if (error == 0)
            error = deadline == 0 ? -ETIMEDOUT : wait_turn(q, &q->view.ring->not_full, has_room, SPIN_PUT, deadline, waiter);
        if (error < 0)
            return would_wait(error, deadline);
    }
    return 0;
}

/* ---- getting */

void ist_queue_message_clear(ist_queue_message *m) {
    const ist_segment *segments = segments_of(m);
    for (uint32_t i = 0; i < m->count; i++)
        ist_segment_release(segments[i]);
    isti_os.free(m->many);
    m->many = NULL;
    m->count = 0;
    m->size = 0;
}

bool isti_queue_is_waiting(const struct isti_ring_view *v) {
    const uint64_t h = atomic_load_explicit(&v->row->head, memory_order_seq_cst); /* seq_cst, both: a waiter's second look */
    const uint64_t word = atomic_load_explicit(&isti_slot_at(v, h)->word, memory_order_seq_cst);
    return (word != 0 && isti_slot_position(word) == h && isti_slot_state_of(word) != ISTI_SLOT_RSV) || is_shut(v);
}

/* Moves head over h. */
static bool advance(struct ist_queue *q, uint64_t h) {
    /* seq_cst, for who waits for room. acquire and release: the reads of the slot are over before it is written again */
    return atomic_compare_exchange_strong_explicit(&q->view.row->head, &h, h + 1, memory_order_seq_cst, memory_order_relaxed);
}

static void has_advanced(struct ist_queue *q, uint64_t h) {
    isti_ring_punch(&q->view, h + 1);
    isti_event_wake_one(&q->view.ring->not_full);
    tell_listeners(&q->view, IST_QUEUE_ROOM);
    IST_POINT(GET_WOKEN);
}

static int own_all(struct isti_domain *d, const uint64_t *few, const struct isti_list *list, uint32_t count, ist_queue_message *out) {
    out->count = 0;
    out->many = NULL;
    if (count > IST_MESSAGE_FEW && (out->many = isti_os.calloc(count, sizeof *out->many)) == NULL)
        return -ENOMEM;
    ist_segment *into = out->many != NULL ? out->many : out->few;
    for (; out->count < count; out->count++) {
        /* relaxed: acquired with the list */
        uint64_t ref = list != NULL ? atomic_load_explicit(&list->refs[out->count], memory_order_relaxed) : few[out->count];
        int error = isti_descriptor_acquire(d, isti_ref_index(ref), isti_ref_generation(ref), &into[out->count]);
        if (error != 0)
            return error;
    }
    return 0;
}

/* Owns what the body refers to, into *out; *list, if there is one, until head has moved: who moves it has the duty to free it. */
static int own(struct ist_queue *q, const uint64_t body[ISTI_BODY], ist_queue_message *out, struct isti_list *list) {
    struct isti_header header;
    if (!isti_header_read(body[0], &header))
        return -EBADMSG;
    int error;
    if (header.listed) {
        error = isti_list_open(q->view.d, body[1], list);
        if (error == 0)
            error = list->count > MOST_SEGMENTS ? -EBADMSG : own_all(q->view.d, NULL, list, (uint32_t)list->count, out);
    } else
        error = header.refs == 0 ? 0 : own_all(q->view.d, body + 1, NULL, header.refs, out);
    if (error != 0)
        return error;
    out->tag = header.tag;
    out->size = header.size;
    for (unsigned i = 0; i < (header.size + 7u) / 8; i++) /* whole words: see prepare() */
        memcpy(out->bytes + 8 * i, &body[1 + header.refs + i], 8);
    return 0;
}

/* The message at head h, which refers to something or makes no sense. 0; -EAGAIN: somebody else has it; else an error. */
APART static int take_with_segments(struct ist_queue *q, uint64_t h, uint64_t word, ist_queue_message *out) {
    const struct isti_ring_slot *slot = isti_slot_at(&q->view, h);
    uint64_t body[ISTI_BODY];
    for (unsigned i = 0; i < ISTI_BODY; i++)
        body[i] = atomic_load_explicit(&slot->body[i], memory_order_relaxed); /* relaxed: the word was acquired; advance() checks head */
    out->count = 0;
    out->many = NULL;
    struct isti_list list = {.count = 0};
    int error = own(q, body, out, &list);
    IST_POINT(GET_HELD);
    const bool taken = error == 0 && advance(q, h);
    if (taken)
        IST_POINT(GET_TAKEN);
    if (!ist_segment_is_null(list.segment))
        ist_segment_release(list.segment);
    if (taken) {
        has_advanced(q, h);
        return 0;
    }
    ist_queue_message_clear(out);
    if (error == 0 || atomic_load_explicit(&q->view.row->head, memory_order_acquire) != h) /* acquire: as in try_get */
        return -EAGAIN;
    if (error == -ESTALE || error == -EXDEV || error == -EINVAL || error == -EBADMSG) { /* its marks kept what it names: it's garbage */
        if (isti_ring_pass(&q->view, h, word) > 0)
            has_advanced(q, h);
        return -EBADMSG;
    }
    return error;
}

/* The message at head h; as take_with_segments. One without references is copied as it is. */
static inline int take(struct ist_queue *q, uint64_t h, uint64_t word, ist_queue_message *out) {
    const struct isti_ring_slot *slot = isti_slot_at(&q->view, h);
    struct isti_header header;
    /* relaxed, both: as in take_with_segments */
    if (!isti_header_read(atomic_load_explicit(&slot->body[0], memory_order_relaxed), &header) || header.refs != 0)
        return take_with_segments(q, h, word, out);
    out->tag = header.tag;
    out->size = header.size;
    out->count = 0;
    out->many = NULL;
    for (unsigned i = 0; i < header.size; i += 8) { /* whole words: see prepare() */
        const uint64_t part = atomic_load_explicit(&slot->body[1 + i / 8], memory_order_relaxed);
        memcpy(out->bytes + i, &part, 8);
    }
    IST_POINT(GET_HELD);
    if (!advance(q, h))
        return -EAGAIN;
    IST_POINT(GET_TAKEN);
    has_advanced(q, h);
    return 0;
}

/* -EAGAIN: empty; -EBUSY: *written is at head, and not yet FULL. */
static int try_get(struct ist_queue *q, ist_queue_message *out, uint64_t *written) {
    const struct isti_ring_view *v = &q->view;
    for (;;) {
        /* seq_cst, both: after the look at `shutdown`. acquire: pairs with the sender's exchange */
        const uint64_t h = atomic_load_explicit(&v->row->head, memory_order_seq_cst);
        const uint64_t word = atomic_load_explicit(&isti_slot_at(v, h)->word, memory_order_seq_cst);
        const bool there = word != 0 && isti_slot_position(word) == h;
        if (!there || isti_slot_state_of(word) == ISTI_SLOT_RSV) {
            if (atomic_load_explicit(&v->row->head, memory_order_seq_cst) != h)
                continue; /* what was read is of another position */
            *written = word;
            return there ? -EBUSY : -EAGAIN;
        }
        int error;
        if (isti_slot_state_of(word) == ISTI_SLOT_FULL) {
            error = take(q, h, word, out);
            if (error != -EAGAIN)
                return error;
            continue;
        }
        error = isti_ring_pass(v, h, word);
        if (error < 0)
            return error;
        if (error > 0) {
            has_advanced(q, h);
            tell_if_done(q);
        }
    }
}

int ist_queue_get(ist_queue *q, ist_queue_message *out, uint64_t deadline, ist_waiter *waiter) {
    if (q == NULL || out == NULL)
        return -EINVAL;
    if (!is_usable(q))
        return -ENOTRECOVERABLE;
    uint64_t suspected = 0, suspect_at = 0, give_up_at = 0; /* a word that isn't FULL, when its writer is looked at, and until when */
    for (unsigned turns = 1;; turns++) {
        const bool shut = is_shut(&q->view);
        uint64_t written = 0;
        int error = try_get(q, out, &written);
        if (error == -EAGAIN && !shut &&
            isti_listener_clear(&q->sides[IST_QUEUE_MESSAGES])) { /* and once more, for a message that was told in between */
            error = try_get(q, out, &written);
            if (error != -EAGAIN)
                tell_listeners(&q->view, IST_QUEUE_MESSAGES); /* there may be more */
        }
        if (error != -EAGAIN && error != -EBUSY)
            return error;
        uint64_t until = deadline;
        if (error == -EBUSY) {
            const uint64_t now = isti_os.now();
            if (written != suspected) {
                suspected = written;
                suspect_at = now + SUSPECT_NS;
                give_up_at = now + WRITING_NS;
            } else if (now >= suspect_at) {
                if (isti_slot_member(written) != q->view.d->me && isti_sweep_member(q->view.d, isti_slot_member(written)))
                    continue;
                suspect_at = now + ISTI_BACKSTOP_NS;
            }
            const uint64_t last = deadline < give_up_at ? give_up_at : deadline;
            if (now >= last)
                return would_wait(-ETIMEDOUT, deadline);
            until = suspect_at < last ? suspect_at : last;
        } else if (shut)
            return -ESHUTDOWN;
        error = is_late(turns, until) ? -ETIMEDOUT : wait_turn(q, &q->view.ring->not_empty, isti_queue_is_waiting, SPIN_GET, until, waiter);
        if (error != 0 && !(error == -ETIMEDOUT && until != deadline))
            return would_wait(error, deadline);
    }
}

/* ---- tasks, shutdown, looking */

static bool all_done(const struct isti_ring_view *v) { return isti_ring_unfinished(v) == 0; }

int ist_queue_task_done(ist_queue *q) {
    if (!is_usable(q))
        return -ENOTRECOVERABLE;
    _Atomic(uint64_t) *done = &q->view.ring->done;
    uint64_t now = atomic_load_explicit(done, memory_order_relaxed); /* relaxed: the exchange checks it */
    do {
        if (isti_ring_unfinished(&q->view) == 0)
            return -ERANGE;
        /* seq_cst: before the look whether join waits; release: what was done is seen by who joins */
    } while (!atomic_compare_exchange_weak_explicit(done, &now, now + 1, memory_order_seq_cst, memory_order_relaxed));
    IST_POINT(DONE_COUNTED);
    if (tidy(q) <= 0) /* behind the last message may be one that was never put */
        tell_if_done(q);
    return 0;
}

int ist_queue_join(ist_queue *q, uint64_t deadline, ist_waiter *waiter) {
    if (!is_usable(q))
        return -ENOTRECOVERABLE;
    while (!all_done(&q->view)) {
        if (isti_listener_clear(&q->sides[IST_QUEUE_DONE]) && all_done(&q->view))
            break;
        int error = suspect_head(q); /* what was never put isn't waited for */
        if (error > 0)
            continue;
        if (error == 0)
            error = deadline == 0 ? -ETIMEDOUT : wait_turn(q, &q->view.ring->all_done, all_done, SPIN_JOIN, deadline, waiter);
        if (error != 0)
            return would_wait(error, deadline);
    }
    return 0;
}

/* Drops what is there; but for what is being written by somebody who doesn't go on. */
static int drop_all(struct ist_queue *q) {
    const struct isti_ring_view *v = &q->view;
    const uint64_t deadline = isti_os.now() + WRITING_NS;
    for (;;) {
        const uint64_t h = atomic_load_explicit(&v->row->head, memory_order_seq_cst); /* seq_cst, both: as in try_get */
        const uint64_t word = atomic_load_explicit(&isti_slot_at(v, h)->word, memory_order_seq_cst);
        if (word == 0 || isti_slot_position(word) != h) {
            if (atomic_load_explicit(&v->row->head, memory_order_seq_cst) == h)
                return 0;
            continue;
        }
        if (isti_slot_state_of(word) == ISTI_SLOT_RSV) {
            if (isti_slot_member(word) != v->d->me)
                isti_sweep_member(v->d, isti_slot_member(word));
            if (isti_os.now() >= deadline)
                return 0; /* when it goes on it finds the queue shut, or its message is got */
            isti_relax();
            continue;
        }
        int passed = isti_ring_pass(v, h, word);
        if (passed < 0)
            return passed;
        if (passed > 0 && isti_slot_state_of(word) != ISTI_SLOT_SKIP)
            atomic_fetch_add_explicit(&v->ring->done, 1, memory_order_seq_cst); /* seq_cst: join's look */
        IST_POINT(SHUTDOWN_DROPPED);
    }
}

int ist_queue_shutdown(ist_queue *q, bool immediate) {
    if (!is_usable(q))
        return -ENOTRECOVERABLE;
    struct isti_ring *ring = q->view.ring;
    atomic_store_explicit(&ring->shutdown, 1, memory_order_seq_cst); /* seq_cst: see the head */
    IST_POINT(SHUTDOWN_SET);
    int error = immediate ? drop_all(q) : 0;
    isti_event_wake_all(&ring->not_empty);
    isti_event_wake_all(&ring->not_full);
    isti_event_wake_all(&ring->all_done);
    for (ist_queue_side side = 0; side < ISTI_SIDES; side++)
        tell_listeners(&q->view, side);
    if (immediate)
        isti_lease_uncarry();
    return error;
}

void ist_queue_read_info(ist_queue *q, ist_queue_info *out) {
    const struct isti_ring_view *v = &q->view;
    /* acquire: head first, so that it isn't ahead of tail */
    const uint64_t head = atomic_load_explicit(&v->row->head, memory_order_acquire);
    const uint64_t size = atomic_load_explicit(&v->row->tail, memory_order_acquire) - head;
    const uint64_t capacity = v->maxsize != 0 ? v->maxsize : v->mask + 1 - ISTI_RING_LAG;
    *out = (ist_queue_info){
        .size = size < capacity ? size : capacity,
        .maxsize = v->maxsize,
        .capacity = capacity,
        .unfinished = isti_ring_unfinished(v),
        .shutdown = is_shut(v),
    };
}
