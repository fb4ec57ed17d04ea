/* swarm.c: see swarm.h. Uses the library by its public face only. */
#include "swarm.h"

#include <errno.h>
#include <isthmus/lease.h>
#include <isthmus/process.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Relaxed, all counters and words here: a note is checked by its sum, and what is read by its token comes from the library's own orders. */
static void count(_Atomic(uint64_t) *counter) { atomic_fetch_add_explicit(counter, 1, memory_order_relaxed); }
static uint64_t get(const _Atomic(uint64_t) *word) { return atomic_load_explicit(word, memory_order_relaxed); }

void *swarm_area_make(size_t size, int *fd) {
    *fd = memfd_create("swarm", 0);
    CHECK(*fd >= 0 && ftruncate(*fd, (off_t)size) == 0, "%s", strerror(errno));
    return swarm_area_at(*fd, size);
}

void *swarm_area_at(int fd, size_t size) {
    void *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(area != MAP_FAILED, "%s", strerror(errno));
    return area;
}

void swarm_live(struct swarm_area *area) {
    pid_t supervisor = (pid_t)atomic_load_explicit(&area->supervisor, memory_order_relaxed);
    if (kill(supervisor, 0) != 0)
        _exit(3);
}

/* ---- content */

#define PAGE 4096u
#define HEAD 512u

static uint64_t pattern(uint64_t tag, size_t at) { return tag * UINT64_C(0x9e3779b97f4a7c15) + at; }

void swarm_stamp(ist_segment s, uint64_t tag) {
    char *data = ist_segment_data(s);
    const size_t size = ist_segment_size(s);
    for (size_t at = 16; at + 8 <= size && at < HEAD; at += 8) {
        uint64_t word = pattern(tag, at);
        memcpy(data + at, &word, 8);
    }
    for (size_t at = 0; at + 16 <= size; at += PAGE) {
        memcpy(data + at, &tag, 8);
        memcpy(data + at + 8, &size, 8);
    }
}

uint64_t swarm_tag(ist_segment s) {
    uint64_t tag;
    memcpy(&tag, ist_segment_data(s), 8);
    return tag;
}

bool swarm_stamped(ist_segment s, uint64_t tag) {
    const char *data = ist_segment_data(s);
    const size_t size = ist_segment_size(s);
    bool good = true;
    for (size_t at = 0; good && at + 16 <= size; at += PAGE)
        good = memcmp(data + at, &tag, 8) == 0 && memcmp(data + at + 8, &size, 8) == 0;
    for (size_t at = 16; good && at + 8 <= size && at < HEAD; at += 8) {
        uint64_t word = pattern(tag, at);
        good = memcmp(data + at, &word, 8) == 0;
    }
    return good;
}

void swarm_check(ist_segment s, uint64_t tag, const char *when) {
    ist_segment_info info;
    if (swarm_stamped(s, tag))
        return;
    ist_segment_read_info(s, &info);
    CHECK(false, "%s: the content of descriptor %u.%u, %zu bytes, tag %llu, says %llu; %u owners, %u processes", when, info.descriptor,
          info.descriptor_generation, ist_segment_size(s), (unsigned long long)tag, (unsigned long long)swarm_tag(s), info.owners,
          info.processes);
}

struct swarm_held swarm_make(struct swarm_area *area, size_t size) {
    struct swarm_held held = {.tag = atomic_fetch_add_explicit(&area->next_tag, 1, memory_order_relaxed) + 1};
    held.segment = test_create(size, 0);
    swarm_stamp(held.segment, held.tag);
    count(&area->segments);
    return held;
}

/* ---- notes */

static uint64_t sum_of(const uint64_t words[7]) {
    uint64_t sum = 1;
    for (int i = 0; i < 7; i++)
        sum = (sum ^ words[i]) * UINT64_C(0x100000001b3) + (sum >> 29);
    return sum;
}

void swarm_note_put(struct swarm_note *note, uint64_t tag, const ist_token *token, uint64_t ticket) {
    uint64_t words[7] = {tag, 0, 0, 0, ticket, 0, 0};
    memcpy(words + 1, token->bytes, sizeof token->bytes);
    for (int i = 0; i < 7; i++)
        atomic_store_explicit(&note->words[i], words[i], memory_order_relaxed);
    atomic_store_explicit(&note->words[7], sum_of(words), memory_order_relaxed);
}

bool swarm_note_get(struct swarm_note *note, uint64_t *tag, ist_token *token, uint64_t *ticket) {
    uint64_t words[7];
    for (int i = 0; i < 7; i++)
        words[i] = get(&note->words[i]);
    if (words[0] == 0 || get(&note->words[7]) != sum_of(words))
        return false;
    *tag = words[0];
    memcpy(token->bytes, words + 1, sizeof token->bytes);
    *ticket = words[4];
    return true;
}

/* ---- steps */

static struct swarm_held *any(struct swarm_self *self) {
    return self->count == 0 ? NULL : &self->held[test_random(&self->random) % self->count];
}

static void let_go(struct swarm_self *self, struct swarm_held *held) {
    swarm_check(held->segment, held->tag, "before a release");
    ist_segment_release(held->segment);
    *held = self->held[--self->count];
}

static void room_for_one(struct swarm_self *self) {
    if (self->count == SWARM_HELD)
        let_go(self, any(self));
}

static void make_one(struct swarm_self *self) {
    uint64_t r = test_random(&self->random);
    size_t size = r % 40 == 0 ? SWARM_LARGE + r / 64 % SWARM_LARGE : r % 4 == 0 ? 16 + r / 64 % 30000 : 16 + r / 64 % 600;
    room_for_one(self);
    self->held[self->count++] = swarm_make(self->area, size);
}

static struct swarm_note *any_note(struct swarm_self *self) { return &self->area->notes[test_random(&self->random) % SWARM_NOTES]; }

/* 0, or the table of published segments or of tickets is full. */
static bool fits(struct swarm_self *self, int error) {
    CHECK(error == 0 || error == -ENOSPC, "%s", ist_strerror(error));
    if (error != 0)
        count(&self->area->full);
    return error == 0;
}

static void tell(struct swarm_self *self) {
    struct swarm_held *held = any(self);
    ist_token token;
    if (held != NULL && fits(self, ist_segment_token(held->segment, &token)))
        swarm_note_put(any_note(self), held->tag, &token, 0);
}

static void lease(struct swarm_self *self) {
    struct swarm_held *held = any(self);
    ist_token token;
    uint64_t number;
    if (held == NULL || !fits(self, ist_segment_token(held->segment, &token)) || !fits(self, ist_lease_take(held->segment, &number)))
        return;
    if (self->lost_of != 0 && test_random(&self->random) % self->lost_of == 0)
        return;
    swarm_note_put(any_note(self), held->tag, &token, number);
}

static void settle(struct swarm_self *self, ist_segment s, uint64_t tag) {
    swarm_check(s, tag, "after attaching");
    count(&self->area->attaches);
    if (test_random(&self->random) % 2 == 0) {
        room_for_one(self);
        self->held[self->count++] = (struct swarm_held){s, tag};
    } else {
        swarm_check(s, tag, "before letting go");
        ist_segment_release(s);
    }
}

static void attach(struct swarm_self *self) {
    uint64_t tag, ticket;
    ist_token token;
    ist_segment s;
    struct swarm_note *note = any_note(self);
    if (!swarm_note_get(note, &tag, &token, &ticket))
        return;
    int error = ticket != 0 ? ist_lease_load(&token, ticket, &s) : ist_segment_acquire(&token, &s);
    CHECK(error == 0 || error == -ESTALE, "%s", ist_strerror(error));
    if (error != 0) {
        count(&self->area->stale);
        return;
    }
    if (ticket != 0)
        count(&self->area->loads);
    settle(self, s, tag);
}

static void freeze(struct swarm_self *self) {
    struct swarm_held *held = any(self);
    if (held == NULL)
        return;
    int error = ist_segment_freeze(held->segment);
    CHECK(error == 0 || error == -EBUSY, "%s", ist_strerror(error));
    if (error != 0)
        return;
    CHECK(ist_segment_is_frozen(held->segment));
    count(&self->area->frozen);
    if (test_random(&self->random) % 2 == 0)
        return;
    error = ist_segment_make_writable(&held->segment);
    CHECK(error == 0 || error == -EBUSY, "%s", ist_strerror(error));
    if (error != 0)
        return;
    /* whoever had a token must not come here any more: it would find another tag */
    held->tag = atomic_fetch_add_explicit(&self->area->next_tag, 1, memory_order_relaxed) + 1;
    swarm_stamp(held->segment, held->tag);
}

static size_t name_of(struct swarm_self *self, char name[64]) {
    return (size_t)snprintf(name, 64, "swarm-%u-%u", atomic_load_explicit(&self->area->supervisor, memory_order_relaxed),
                            (unsigned)(test_random(&self->random) % SWARM_NAMES));
}

static void name_one(struct swarm_self *self) {
    char name[64];
    size_t length = name_of(self, name);
    struct swarm_held *held = any(self);
    int error = test_random(&self->random) % 3 == 0 ? ist_name_remove(name, length)
                : held == NULL                      ? 0
                                                    : ist_name_publish(name, length, held->segment, &held->tag, sizeof held->tag);
    CHECK(error == 0 || error == -EEXIST || error == -ENOENT || error == -ENOSPC || error == -ETIMEDOUT, "%s", ist_strerror(error));
}

static void attach_name(struct swarm_self *self) {
    char name[64];
    size_t length = name_of(self, name);
    uint64_t tag;
    size_t size = sizeof tag;
    ist_segment s;
    int error = ist_name_attach(name, length, &s, &tag, &size);
    CHECK(error == 0 || error == -ENOENT, "%s", ist_strerror(error));
    if (error != 0)
        return;
    CHECK_EQ(size, sizeof tag);
    count(&self->area->names);
    settle(self, s, tag);
}

/* Waits a moment on the tag in something held, of which others may have the same; or notifies. */
static void wait_one(struct swarm_self *self) {
    struct swarm_held *held = any(self);
    uint64_t r = test_random(&self->random) >> 20, woken;
    ist_wait w;
    if (held == NULL)
        return;
    if (r % 2 == 0) {
        CHECK_EQ(ist_notify(held->segment, 0, r / 2 % 3, &woken), 0);
        CHECK(woken <= r / 2 % 3);
        return;
    }
    if (!fits(self, ist_wait_begin(held->segment, 0, NULL, 8, swarm_tag(held->segment), &w)))
        return;
    if (r / 2 % 3 == 0) {
        ist_wait_cancel(&w);
        return;
    }
    uint64_t end = test_now() + r / 8 % 300000;
    int error;
    while ((error = ist_wait_on(&w, end, UINT64_MAX)) == -EINTR)
        ;
    CHECK(error == 0 || error == -ETIMEDOUT, "%s", ist_strerror(error));
}

/* A child goes on with what this thread holds, for a while; it may be killed meanwhile. */
static void fork_one(struct swarm_self *self) {
    uint64_t r = test_random(&self->random);
    const uint32_t epoch = ist_epoch();
    pid_t child = fork();
    CHECK(child >= 0, "fork: %s", strerror(errno));
    if (child == 0 && ist_epoch() != epoch) { /* no place, or no descriptor, for it: it isn't an owner */
        count(&self->area->strangers);
        _exit(0);
    }
    if (child == 0) {
        for (unsigned i = 0; i < self->count; i++)
            swarm_check(self->held[i].segment, self->held[i].tag, "inherited");
        self->forks = false;
        self->random = r | 1;
        for (unsigned i = 0; i < 30; i++)
            swarm_step(self);
        if (r % 2 == 0)
            swarm_release_all(self);
        _exit(0);
    }
    count(&self->area->forks);
    for (unsigned i = 0, n = (unsigned)(r / 8 % 20); i < n && self->count > 0; i++) { /* it still has what we let go of */
        struct swarm_held *held = any(self);
        if (i % 2 == 0)
            let_go(self, held);
        else
            swarm_check(held->segment, held->tag, "after a fork");
    }
    if (r / 256 % 2 == 0)
        kill(child, SIGKILL);
    int status = test_wait(child, 60);
    CHECK(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL), "a forked child ended with %#x", status);
}

void swarm_step(struct swarm_self *self) {
    uint64_t r = test_random(&self->random) >> 20;
    count(&self->area->steps);
    if (r % 64 == 0)
        swarm_live(self->area);
    if (r % 4096 == 1 && self->sweeps)
        ist_collect();
    if (r % 1024 == 2 && self->sweeps)
        ist_sweep();
    if (r % 2048 == 3)
        attach_name(self);
    if (r % 512 == 4 && self->forks)
        fork_one(self);
    if (r % 256 == 5)
        name_one(self);
    if (r % 64 == 6)
        wait_one(self);
    r >>= 20;
    switch (r % 16) {
    case 0:
    case 1:
    case 2: make_one(self); break;
    case 3:
    case 4:
    case 5: tell(self); break;
    case 6:
    case 7:
    case 8:
    case 9: attach(self); break;
    case 10: lease(self); break;
    case 11: freeze(self); break;
    case 12:
        for (unsigned i = 0; i < self->count; i++)
            swarm_check(self->held[i].segment, self->held[i].tag, "held");
        break;
    default:
        if (self->count > 0)
            let_go(self, any(self));
    }
}

void swarm_release_all(struct swarm_self *self) {
    while (self->count > 0)
        let_go(self, &self->held[self->count - 1]);
}
