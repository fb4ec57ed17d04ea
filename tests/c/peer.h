/* peer.h: other processes that do one step after another as they are told.
 *
 * A peer is forked before this process has used the library, so it inherits nothing of it: it joins a domain like any other process. It is
 * the same program, so a step is a function's address, and its argument lies in memory from test_shared(). A step that fails a check ends
 * the peer, which fails the call.
 */
#ifndef TEST_PEER_H
#define TEST_PEER_H

#include "harness.h"

#include <isthmus/process.h>

typedef struct peer {
    pid_t pid;
    int to, from; /* pipes */
} peer;

typedef long (*peer_step)(void *argument);

peer peer_start(void);
long peer_call(peer *p, peer_step step, void *argument); /* within 30 s */
void peer_begin(peer *p, peer_step step, void *argument); /* without waiting */
long peer_finish(peer *p);
void peer_end(peer *p);  /* by exit, as told */
void peer_kill(peer *p); /* by SIGKILL, wherever it is */

/* A step: joins the domain that `text` names (as ISTHMUS_DOMAIN does), for processes to come. Returns what ist_domain_join does. */
long peer_join(void *text);

/* What the processes of a test tell each other, and the steps nearly every test needs. */
struct board {
    char text[80]; /* for peer_join */
    uint8_t id[16];
    ist_token token;
    ist_place place;
    size_t size;
    uint64_t tag, number;
};
extern struct board *board;  /* shared memory */
extern ist_segment held;     /* of each process */

void board_begin(void);      /* before the first peer */
void board_tell_home(void);  /* text and id of our home domain */
long peer_offer(void *unused);  /* held = a new segment of board->size bytes, filled by board->tag; tells its token, place and domain */
long peer_attach(void *unused); /* held = the token's, its content checked; returns the error */
long peer_let_go(void *unused); /* of held; returns how many segments are left here */
long peer_sweep(void *unused);

/* Until the data memfd of our home domain has at most `bytes` of memory; false after `seconds`. */
bool peer_memory_returns(size_t bytes, double seconds);

#endif
