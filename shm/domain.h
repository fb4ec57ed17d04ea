/* domain.h: what a process has of a domain (a group of processes that share), and layer 0's face to itself.
 *
 * A process has one home domain, where it allocates, and may be a guest in others, where it only holds. struct isti_domain is private
 * memory; what it points to in the control memfd is shared and untrusted (control.h).
 */
#ifndef ISTI_DOMAIN_H
#define ISTI_DOMAIN_H

#include "control.h"
#include "thread.h"

#include <isthmus/atomic.h>
#include <isthmus/process.h>
#include <isthmus/segment.h>
#include <pthread.h>

#define ISTI_DOMAINS 64u /* that one process can be in */

/* Row d of the table that says which slot is this process's one holder of descriptor d. Guarded by d's stripe lock.
 * slot != 0 <=> our bit is set in d (but for the moments inside the lock). */
struct isti_entry {
    uint32_t generation; /* of the descriptor */
    uint32_t slot;       /* index + 1; 0: none */
};

/* What this process published from its own window, as it knows it: what comes back over shared memory isn't believed. Same lock. */
struct isti_given {
    uint64_t block; /* bytes from the window's start, + 1; 0: none */
    uint64_t size;
};

/* Row q of the list of queues to be drained. */
struct isti_drain {
    uint32_t descriptor; /* index + 1; 0: not in the list */
    uint32_t generation;
    uint32_t next; /* row + 1 */
};

struct isti_domain {
    uint8_t id[16];
    uint32_t number;   /* in this process's table of domains */
    uint32_t epoch;    /* ist_process_epoch() for which it is usable: a child that wasn't handed over doesn't touch it */
    uint32_t me;       /* our member */
    bool solo;         /* no /proc: nobody can come, nothing can be locked */
    bool made_here;
    bool shares_probe; /* a child that couldn't open the control memfd anew: its locks would be its parent's */
    int control_fd, data_fd; /* control_fd is also the probe for byte locks */
    uint64_t control_device, control_inode, data_device, data_inode;
    char *control;
    size_t control_size;
    uint32_t members, descriptors, windows, tickets, names, queues, waiter_buckets; /* rows: copied from the header and bounded */
    uint64_t window_size;
    struct isti_control_marks *marks;
    struct isti_member *member_rows;
    struct isti_window_row *window_rows;
    struct isti_descriptor *descriptor_rows;
    _Atomic(uint64_t) *hints; /* per window: descriptors / 4096 words of summary, then descriptors / 64 words */
    struct isti_ticket *ticket_rows;
    struct isti_name *name_rows;
    struct isti_waiter_bucket *waiter_rows;
    struct isti_queue_row *queue_rows;
    struct isti_entry *entries;
    struct isti_given *given;
    void *anchor;        /* the mapping that keeps our member's byte lock */
    void *window_anchor; /* and our window's; NULL: no window */
    void *child_anchor;  /* during fork: of the child's member */
    uint32_t child;      /* and which that is */
    bool child_ready;    /* it has our holds */
    bool window_taken;
    uint32_t window;     /* our window */
    _Atomic(char *) window_base; /* where it is mapped; NULL: no window, or not yet. Read by isti_window_base */
    size_t window_mapped;
    _Atomic(char *) mapped[2][ISTI_WINDOWS]; /* windows of others: writable, read-only */
    uint32_t struck_seen;                    /* guarded by the table of leases */
    /* free rows that this process knows of, as many as there are at most; guarded by `claim` */
    pthread_mutex_t claim;
    uint32_t free_count, fresh, fresh_end, cursor, cursor_tickets;
    _Atomic(uint32_t) cursor_queues;
    uint32_t *free_rows;
    /* queues that nobody holds and that this process is to drain (ring.c); a list by rows of the table of queues; guarded by `drains` */
    pthread_mutex_t drains;
    bool draining;
    uint32_t drain_first; /* row + 1; 0: none */
    struct isti_drain *drain_rows;
};

/* Threads may look while another opens the heap. acquire: pairs with open_heap's release, window and window_mapped are there. */
static inline char *isti_window_base(const struct isti_domain *d) { return atomic_load_explicit(&d->window_base, memory_order_acquire); }

/* ---- domain.c: making, joining, finding */

/* The home domain, joined or made if need be. */
int isti_domain_home(struct isti_domain **out);
/* The same if there is one already; NULL: there is none, or it isn't usable in this process. */
struct isti_domain *isti_domain_home_now(void);
/* The domain of that id that this process is in; NULL. */
struct isti_domain *isti_domain_by_id(const uint8_t id[16]);
/* User code may have closed our descriptors, and their numbers may be other files' by now: whether they are ours, or could be had anew from
 * another process of the domain. The files stay mapped in any case. */
bool isti_domain_has_control(struct isti_domain *d);
bool isti_domain_has_data(struct isti_domain *d);
/* The control memfd by another open file description: byte locks of one don't conflict. The descriptor, the caller's to close; or -EBADF
 * (user code closed ours, and no other process has one), or what open gives. isti_sweep_mutex is held, or nobody else knows d yet. */
int isti_domain_open_again(struct isti_domain *d);
/* By its number in a slot's word; NULL if it isn't usable here (any more). */
struct isti_domain *isti_domain_by_number(uint32_t number);
/* For a walk over all: those with numbers from *at on. */
struct isti_domain *isti_domain_next(uint32_t *at);
/* Opens what (pid, fd) names and joins it, unless this process is in it; id NULL: whatever it is. -ENOENT: not such a file. */
int isti_domain_open(uint32_t pid, uint32_t control_fd, const uint8_t *id, struct isti_domain **out);
/* Opened and mapped, but not joined; and its end. */
int isti_domain_peek(uint32_t pid, uint32_t control_fd, const uint8_t *id, struct isti_domain **out);
void isti_domain_close(struct isti_domain *d);
/* Gives a domain up in which nothing has happened yet, so that the next can have other limits. */
void isti_domain_discard(void);
/* Gives the home domain up if it can't be used for a heap any more: user code has closed its descriptors, no other process has them, and
 * this one holds nothing there. True: the next home is another. */
bool isti_domain_leave_lost(struct isti_domain *d);

/* ---- member.c: places and byte locks */
int isti_member_join(struct isti_domain *d);
/* A byte lock that lives as long as the mapping in *anchor; -EAGAIN: somebody has it. `inherit`: a forked child keeps the mapping. */
int isti_anchor_take(struct isti_domain *d, int64_t byte, bool inherit, void **anchor);
void isti_anchor_drop(void *anchor);
/* By the probe; one thread at a time (isti_sweep_mutex). */
int isti_probe_lock(struct isti_domain *d, int64_t byte); /* 0, -EAGAIN */
void isti_probe_unlock(struct isti_domain *d, int64_t byte);
bool isti_member_alive(struct isti_domain *d, uint32_t m);
bool isti_member_gone(struct isti_domain *d, uint32_t m); /* nobody has the place; also in a domain that was only opened */
void isti_member_ring(struct isti_domain *d, uint32_t m);
uint32_t isti_members_high(struct isti_domain *d);
extern pthread_mutex_t isti_sweep_mutex;

/* ---- descriptor.c */
int isti_publish(ist_segment s);
/* The same of a segment that nobody else has, as what `slot_flag` in its meta and `row_flag` in its row say. -EAGAIN: a fork of another
 * thread was faster, and published it as what it was then. */
int isti_publish_as(ist_segment s, uint32_t slot_flag, uint32_t row_flag);
int isti_descriptor_acquire(struct isti_domain *d, uint32_t index, uint32_t generation, ist_segment *out);
/* The slot's last owner has let go; its word `desc` isn't 0. Ends the slot. */
void isti_descriptor_release(struct ist_slot *slot, uint32_t generation);
/* freeze or make_writable: what only a sole owner may do. -EBUSY, -ESTALE, -EOVERFLOW, -ENOTRECOVERABLE, -EBADMSG. */
int isti_segment_exclusive(ist_segment *s, bool freeze);
/* The length of a growable segment: a word of its descriptor `desc` (segment.h), which whoever reads it bounds by what is reserved. NULL:
 * not published, or in a domain that isn't this process's. */
_Atomic(uint64_t) *isti_length_word(uint64_t desc);
/* ist_segment_resize of a size that can be. */
int isti_segment_resize(ist_segment s, size_t size);
/* Frees d if nobody holds it. Always allowed, by anybody. */
void isti_try_free(struct isti_domain *d, uint32_t index);
void isti_unhold(struct isti_domain *d, uint32_t index, uint32_t member);
/* DEAD of this process's window → FREE, and the block back to the heap. */
void isti_give_back(struct isti_domain *d, uint32_t index);
/* A row in RESV of ours, which isn't published; -ENOSPC. And its way back to FREE. */
int isti_row_claim(struct isti_domain *d, uint32_t *index, uint32_t *generation);
void isti_row_unclaim(struct isti_domain *d, uint32_t index, uint32_t generation);
/* DRAIN of a queue that is empty → DEAD, and on from there. */
void isti_row_drained(struct isti_domain *d, uint32_t index, uint32_t generation);
/* A FREE row for later use. */
void isti_row_free(struct isti_domain *d, uint32_t index);
/* s → FREE in the next generation, and for later use. false: it isn't `s` any more. */
bool isti_row_end(struct isti_domain *d, uint32_t index, uint64_t s);
/* Whether the segment of this generation is still somebody's, or a message's. A moment's. */
bool isti_descriptor_lives(struct isti_domain *d, uint32_t index, uint32_t generation);
uint32_t isti_descriptors_high(struct isti_domain *d);
uint32_t isti_holders(struct isti_domain *d, uint32_t index);
bool isti_held_by_living(struct isti_domain *d, uint32_t index);
uint64_t isti_processes_count(void);
int isti_descriptor_readonly(struct isti_domain *d, uint32_t index, size_t size, const void **out);

/* ---- flight.c: marks of messages under way */

/* Marks d as referred to by a message at `position` of queue q. The caller holds it and has claimed that position. -ENOSPC, -EBADMSG. */
int isti_flight_mark(struct isti_domain *d, uint32_t index, uint32_t generation, uint32_t q, uint64_t position);
bool isti_in_flight(struct isti_domain *d, struct isti_descriptor *row);
void isti_flights_clear(struct isti_descriptor *row); /* in RESV */
/* (index, generation) is over: its extensions, from the one in `word` on, go. */
void isti_flights_end(struct isti_domain *d, uint32_t index, uint32_t generation, uint64_t word);
/* For a sweep: the extension `index` goes if its segment is over. */
void isti_flights_sweep(struct isti_domain *d, uint32_t index);

/* ---- ring.c: what a queue's descriptor needs of its ring */

/* A row of the table of queues for descriptor (index, generation), which is ours in RESV; `ring` learns where it begins. -ENOSPC. */
int isti_queue_row_claim(struct isti_domain *d, uint32_t index, uint32_t generation, void *ring, uint32_t *q);
/* (index, generation) has just become DRAIN of ours: it is emptied, now or by our thread that is at such a thing. Never recurses. */
void isti_ring_end(struct isti_domain *d, uint32_t index, uint32_t generation);
/* Goes on with what couldn't be drained before. */
void isti_rings_drain(struct isti_domain *d);
/* For the sweep of m, which holds the queue `index`: what it was writing there counts as skipped. -ENOMEM: couldn't look. */
int isti_ring_sweep(struct isti_domain *d, uint32_t index, uint32_t m);

/* ---- window.c */
uint32_t isti_windows_high(struct isti_domain *d);
int isti_window_take(struct isti_domain *d);
/* The address of [offset, offset + length) of the data memfd, mapped if need be. A window that can't be mapped whole is mapped for this
 * range alone: *alone and *alone_size say what to unmap at the end, NULL if nothing. */
int isti_window_reach(struct isti_domain *d, uint64_t offset, uint64_t length, bool readonly, void **out, void **alone, size_t *alone_size);
/* The same of row `index`, whose numbers aren't trusted, for somebody who needn't hold it. -ENOMEM, -EBADMSG. */
int isti_window_reach_row(struct isti_domain *d, uint32_t index, void **out, size_t *size, void **alone, size_t *alone_size);
void isti_hint(struct isti_domain *d, uint32_t window, uint32_t index);
/* Takes the hints for our own window. */
void isti_window_take_hints(struct isti_domain *d);
/* Says to other processes whether a thread of this one takes hints, so that they needn't give pages of our window back themselves. */
void isti_window_attend(struct isti_domain *d, bool yes);
bool isti_window_attended(struct isti_domain *d, uint32_t window); /* below d->windows */
/* What a window without an owner can give back; its byte lock is tried. */
void isti_window_reclaim(struct isti_domain *d, uint32_t window);
/* Whole pages inside. Where it fails the memory stays until its place is used again. */
int isti_window_punch(struct isti_domain *d, uint64_t begin, uint64_t end);

/* ---- ticket.c */
int isti_ticket_take(struct isti_domain *d, uint32_t index, uint32_t generation, uint64_t deadline, uint64_t *number);
/* LIVE → FREE by at most one. `member` gets whose it was. */
bool isti_ticket_strike(struct isti_domain *d, uint64_t number, uint32_t index, uint32_t generation, uint32_t *member);
void isti_ticket_tell(struct isti_domain *d, uint32_t member); /* whose it was: it can let go of what it pickled */
bool isti_ticket_lives(struct isti_domain *d, uint64_t number);
void isti_ticket_drop(struct isti_domain *d, uint64_t number); /* ours */
/* For the sweep of m: frees what it was making and what has run out, and writes the descriptors of the others, sorted, to *estate
 * (malloc'd). Returns how many, or -ENOMEM. */
int64_t isti_ticket_estate(struct isti_domain *d, uint32_t m, uint64_t now, uint32_t **estate);

/* ---- sweep.c */
/* Strikes out m if it is dead; true: it was. */
bool isti_sweep_member(struct isti_domain *d, uint32_t m);
/* Holding m's byte lock in whatever way; true: nothing of it is left, the place can be had. */
bool isti_sweep_held(struct isti_domain *d, uint32_t m);
/* *word becomes `to` if it is `from` and nobody has place m, nor can have it meanwhile: for words that name one. True: it did. */
bool isti_sweep_word(struct isti_domain *d, uint32_t m, _Atomic(uint64_t) *word, uint64_t from, uint64_t to);
/* All members and windows of a domain; returns how many processes were struck out. */
size_t isti_sweep_domain(struct isti_domain *d);
/* All domains, and our hints. */
size_t isti_sweep_all(void);
/* Whether somebody has to look now and then. */
bool isti_sweep_needed(void);

/* ---- lock.c: what descriptors and threads need of locks */
/* The last reference of this process goes, under d's stripe lock: what it has of the lock is abandoned. */
void isti_lock_let_go(struct isti_domain *d, struct ist_slot *slot);
/* A thread ends that has an RLock. */
void isti_lock_thread_end(uint32_t thread);

/* ---- waiter.c */
/* As ist_wait_begin and ist_notify, on a number instead of an element: nothing is looked at. */
#define ISTI_WAIT_KEY (UINT64_C(1) << 63) /* no offset has that bit */
int isti_wait_begin_key(ist_segment s, uint64_t key, ist_wait *out);
int isti_notify_key(ist_segment s, uint64_t key, uint64_t count, uint64_t *woken);
/* Holding m's byte lock: ends the waits of the dead m. */
void isti_waiter_sweep(struct isti_domain *d, uint32_t m);
uint64_t isti_waiters_count(void); /* of this process */
void isti_waiters_tell(void); /* those of this process that don't sleep and were notified: their descriptors become readable */

/* ---- lease.c */
void isti_lease_poll(void); /* what other processes struck out */
void isti_lease_uncarry(void); /* what was carried by messages that are gone: for who has just dropped some */

#endif
