/* control_check.h: whether the tables of a domain make sense, seen from one of its members. */
#ifndef TEST_CONTROL_CHECK_H
#define TEST_CONTROL_CHECK_H

#include "domain.h"

#include <stdio.h>

/* What may be asked of the tables at the moment. */
enum {
    CONTROL_SWEPT = 1, /* somebody swept since the last death: the dead hold nothing that isn't in their estate */
    CONTROL_QUIET = 2, /* nobody is inside a call, and everybody has taken its hints: nothing is half done */
    CONTROL_EMPTY = 4  /* nothing is published, nothing is under way, no page of the data memfd is there */
};

/* Looks once; false: a text about the first violation is in `text`. */
bool control_look(struct isti_domain *d, unsigned asked, char *text, size_t room);

/* The same, again for a second until it holds: a sweeper's hold of a byte lock makes a dead process look alive for a moment. */
bool control_check(struct isti_domain *d, unsigned asked, char *text, size_t room);

/* Processes whose byte lock is held. */
unsigned control_alive(struct isti_domain *d);

/* Calls `each` for every ticket that is waiting to be loaded, with what it takes to load it. */
void control_tickets(struct isti_domain *d, void (*each)(uint32_t member, const ist_token *, uint64_t number, void *), void *argument);

#endif
