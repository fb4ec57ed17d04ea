/* gang.c: see gang.h. */
#include "gang.h"

#include <errno.h>
#include <isthmus/process.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

void *gang_begin(struct gang *g, uint32_t processes, uint32_t published, size_t size) {
    ist_options options = {.struct_size = sizeof options, .processes = processes, .published = published};
    CHECK_EQ(ist_configure(&options), 0);
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    struct swarm_area *area = swarm_area_make(size, &g->fd);
    atomic_store_explicit(&area->supervisor, (uint32_t)getpid(), memory_order_relaxed); /* relaxed: before the others come */
    char text[64];
    int error = ist_domain_text(text, sizeof text);
    if (error == -ENOSYS)
        test_skip("no /proc");
    CHECK_EQ(error, 0);
    CHECK_EQ(setenv("ISTHMUS_DOMAIN", text, 1), 0);
    ist_domain_watch();
    g->random = test_seed();
    return area;
}

_Noreturn void gang_work(const struct gang *g, char **argv) {
    g->work((unsigned)atoi(argv[2]), strtoull(argv[3], NULL, 10));
    abort();
}

void gang_start(struct gang *g, unsigned w) {
    uint64_t r = test_random(&g->random);
    if (g->starting != NULL)
        g->starting(w);
    g->stopped[w] = false;
    if (!g->execs_only && r % 2 == 0) {
        pid_t pid = fork();
        CHECK(pid >= 0, "fork: %s", strerror(errno));
        if (pid == 0)
            g->work(w, r >> 8);
        g->pids[w] = pid;
        return;
    }
    char texts[3][32];
    snprintf(texts[0], sizeof texts[0], "%d", g->fd);
    snprintf(texts[1], sizeof texts[1], "%u", w);
    snprintf(texts[2], sizeof texts[2], "%llu", (unsigned long long)r >> 8);
    char *arguments[] = {(char *)g->program, texts[0], texts[1], texts[2], NULL};
    extern char **environ;
    CHECK_EQ(posix_spawn(&g->pids[w], "/proc/self/exe", NULL, NULL, arguments, environ), 0);
    g->execs++;
}

void gang_go_on(struct gang *g, unsigned w) {
    if (g->stopped[w])
        kill(g->pids[w], SIGCONT);
    g->stopped[w] = false;
}

void gang_reap(struct gang *g, unsigned w, int signal) {
    int status = test_wait(g->pids[w], 60);
    CHECK(signal == 0 ? status == 0 : WIFSIGNALED(status) && WTERMSIG(status) == signal, "worker %u ended with %#x", w, status);
}

void gang_disturb(struct gang *g) {
    uint64_t r = test_random(&g->random);
    unsigned w = (unsigned)(r % g->workers);
    r >>= 16;
    if (g->stopped[w] && r % 4 != 0) {
        gang_go_on(g, w);
    } else if (r % 3 == 0) {
        kill(g->pids[w], SIGSTOP);
        g->stopped[w] = true;
        g->stops++;
    } else {
        kill(g->pids[w], SIGKILL);
        gang_reap(g, w, SIGKILL);
        g->kills++;
        gang_start(g, w);
    }
}
