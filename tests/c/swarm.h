/* swarm.h: what the tests of several processes share: an area of memory for passing tokens, segments whose content says what they are, and
 * one random step of a process that works with them. */
#ifndef TEST_SWARM_H
#define TEST_SWARM_H

#include "harness.h"

#include <stdatomic.h>

enum { SWARM_NOTES = 64, SWARM_HELD = 24, SWARM_NAMES = 6, SWARM_LARGE = 1 << 20 };

/* A token on its way to whoever reads it, with the tag its segment's content has. Written without a lock, as its writer may be killed at
 * any time: a note that is torn has a wrong sum and counts as none. */
struct swarm_note {
    _Alignas(64) _Atomic(uint64_t) words[8]; /* tag, token, ticket, sum */
};

struct swarm_area {
    _Atomic(uint64_t) next_tag;
    _Atomic(uint64_t) steps, segments, attaches, stale, full, loads, frozen, names, forks, strangers; /* counted by all */
    _Atomic(uint64_t) lease_ns;
    _Atomic(uint32_t) supervisor; /* its pid: without it nobody goes on */
    struct swarm_note notes[SWARM_NOTES];
};

struct swarm_held {
    ist_segment segment;
    uint64_t tag;
};

struct swarm_self {
    struct swarm_area *area;
    uint64_t random;
    uint64_t lost_of; /* one in so many leases isn't told to anybody; 0: none */
    bool forks;       /* now and then a child goes on with what this thread holds */
    bool sweeps;      /* and now and then it sweeps by itself */
    unsigned count;
    struct swarm_held held[SWARM_HELD];
};

/* Memory that forked and exec'd children have too: `fd` stays open through exec. swarm_area_at: there. */
void *swarm_area_make(size_t size, int *fd);
void *swarm_area_at(int fd, size_t size);

/* Content: the tag and the size at the beginning of each page, and more in the first. At least 16 bytes. */
void swarm_stamp(ist_segment s, uint64_t tag);
bool swarm_stamped(ist_segment s, uint64_t tag);
uint64_t swarm_tag(ist_segment s); /* what the content says */
void swarm_check(ist_segment s, uint64_t tag, const char *when);
struct swarm_held swarm_make(struct swarm_area *area, size_t size);

void swarm_note_put(struct swarm_note *note, uint64_t tag, const ist_token *token, uint64_t ticket);
bool swarm_note_get(struct swarm_note *note, uint64_t *tag, ist_token *token, uint64_t *ticket);

/* One random operation; checks whatever it touches. */
void swarm_step(struct swarm_self *self);
void swarm_release_all(struct swarm_self *self);
/* Ends the process if the supervisor is gone. */
void swarm_live(struct swarm_area *area);

#endif
