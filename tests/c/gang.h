/* gang.h: workers of a storm: processes of this program, of one domain, that their supervisor kills and stops at random and starts
 * again. */
#ifndef TEST_GANG_H
#define TEST_GANG_H

#include "swarm.h"

enum { GANG_MOST = 16 };

struct gang {
    const char *program; /* its name, as a worker's first argument */
    unsigned workers; /* how many */
    void (*work)(unsigned w, uint64_t seed); /* worker w, by fork or exec; doesn't return */
    void (*starting)(unsigned w); /* before each start; may be NULL */
    bool execs_only; /* under sanitizers, which don't survive a fork beside threads */
    int fd; /* of the area */
    uint64_t random;
    pid_t pids[GANG_MOST];
    bool stopped[GANG_MOST];
    unsigned kills, stops, execs;
};

/* The supervisor makes a domain with these limits, the area (`size` bytes, with a struct swarm_area first), and the seed. Skips the program
 * where there is no /proc. */
void *gang_begin(struct gang *g, uint32_t processes, uint32_t published, size_t size);
/* In main of a worker that was started by exec: four arguments, the second is the area's descriptor. Doesn't return. */
_Noreturn void gang_work(const struct gang *g, char **argv);

void gang_start(struct gang *g, unsigned w);
void gang_go_on(struct gang *g, unsigned w); /* if it was stopped */
void gang_reap(struct gang *g, unsigned w, int signal); /* it has to end by that signal, 0: by exit(0) */
void gang_disturb(struct gang *g); /* one of them is stopped, goes on, or is killed and another is started */

#endif
