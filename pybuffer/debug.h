/* debug.h: ISTHMUS_DEBUG=1: where each owner was made, and which an interpreter leaves behind at its end. */
#ifndef ISTHMUS_DEBUG_INTERNAL_H
#define ISTHMUS_DEBUG_INTERNAL_H

#include "core.h"

/* ISTHMUS_DEBUG is set, and not to 0. The same for the whole life of the process. */
bool debug_is_on(void);

/* An owner (a root array, or a handle) of this interpreter was made here: keeps the Python lines that led to it. Without memory, or under
 * a debugger's hands, it keeps less. Under the GIL; keeps the exception that is set. */
void debug_made(const void *owner);
/* It is gone, or owns nothing any more. Plain C. */
void debug_gone(const void *owner);

/* At the end of an interpreter: tells stderr of an owner that is left. Plain C. `first`: a headline comes before it. */
void debug_report(const void *owner, const char *type, ist_segment segment, int64_t interpreter, bool first);

#endif
