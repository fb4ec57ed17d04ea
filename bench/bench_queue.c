/* bench_queue.c: P7 and P8 in C: messages per second one way, and round trips, between two threads and between two processes.
 *
 * A round trip is compared with that of a bare futex word in the same memory, where either side looks for a while before it sleeps (as the
 * queue does) or sleeps at once. Slices of both alternate, so that they meet the same machine; reported are medians and quartiles of the
 * quotients.
 *
 *   bench_queue [SLICES [--json]]       --json: lines as bench/paired.py writes them, in seconds
 */
#include <isthmus/isthmus.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TRIPS = 2000, STREAM = 200000, MOST_SLICES = 1000, LOOKS = 2000 };

static struct shared {
    _Alignas(64) _Atomic(uint32_t) ping;
    _Alignas(64) _Atomic(uint32_t) pong;
    ist_token queues[3];
} *shared;

static ist_queue *there, *back, *stream;
static int slices = 15;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void need(int error) {
    if (error != 0) {
        fprintf(stderr, "bench_queue: %s\n", ist_strerror(error));
        exit(1);
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *what, double *values, int n, const char *unit) {
    qsort(values, (size_t)n, sizeof *values, by_value);
    printf("  %-52s %9.2f %s  (quartiles %.2f … %.2f)\n", what, values[n / 2], unit, values[n / 4], values[n * 3 / 4]);
}

/* ---- the bare futex */

static void futex_until(_Atomic(uint32_t) *word, uint32_t wanted, int looks) {
    for (;;) {
        for (int i = 0; i < looks + 1; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) == wanted) /* pairs with futex_set */
                return;
#if defined(__x86_64__)
            if (looks > 0)
                __builtin_ia32_pause();
#endif
        }
        syscall(SYS_futex, word, FUTEX_WAIT, wanted - 1, NULL, NULL, 0);
    }
}

static void futex_set(_Atomic(uint32_t) *word, uint32_t value) {
    atomic_store_explicit(word, value, memory_order_release); /* pairs with futex_until */
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static _Thread_local uint32_t turn; /* each side counts its own */

static void futex_trips(bool first, int looks) {
    for (uint32_t i = 0; i < TRIPS; i++) {
        turn++;
        if (first)
            futex_set(&shared->ping, turn);
        futex_until(first ? &shared->pong : &shared->ping, turn, looks);
        if (!first)
            futex_set(&shared->pong, turn);
    }
}

/* ---- the queue */

static void send(ist_queue *q, ist_segment s) {
    ist_queue_message m = {.tag = 1, .size = 8, .count = !ist_segment_is_null(s), .few = {s}};
    need(ist_queue_put(q, &m, UINT64_MAX, NULL));
}

static void receive(ist_queue *q) {
    ist_queue_message m;
    need(ist_queue_get(q, &m, UINT64_MAX, NULL));
    ist_queue_message_clear(&m);
}

static void queue_trips(bool first) {
    for (int i = 0; i < TRIPS; i++) {
        if (first)
            send(there, (ist_segment){0});
        receive(first ? back : there);
        if (!first)
            send(back, (ist_segment){0});
    }
}

/* What both sides do, in this order. kind: 0 bytes, 1 a new array each */
static void queue_stream(bool first, int kind) {
    for (int i = 0; i < STREAM; i++) {
        if (first) {
            receive(stream);
        } else if (kind == 0) {
            send(stream, (ist_segment){0});
        } else {
            ist_segment s;
            need(ist_segment_create(1024, 0, &s));
            send(stream, s);
            ist_segment_release(s);
        }
    }
}

static double timed(bool first, int what) {
    double begin = now();
    switch (what) {
    case 0: futex_trips(first, 0); break;
    case 1: futex_trips(first, LOOKS); break;
    case 2: queue_trips(first); break;
    default: queue_stream(first, what - 3);
    }
    return (now() - begin) / (what < 3 ? TRIPS : STREAM);
}

static void play(bool first, double values[5][MOST_SLICES]) {
    for (int i = 0; i < slices; i++)
        for (int what = 0; what < 5; what++)
            values[what][i] = timed(first, what);
}

static void list(const char *name, const double *values) {
    printf("\"%s\": [", name);
    for (int i = 0; i < slices; i++)
        printf("%s%.4g", i > 0 ? ", " : "", values[i] * 1e-9);
    printf("]");
}

static void emit(const char *between, const char *group, double values[5][MOST_SLICES]) {
    static const char *const against[] = {"futex, sleeping", "futex, looking first"};
    for (int k = 0; k < 2; k++) {
        printf("{\"figure\": \"P7\", \"name\": \"between %s, in C\", \"against\": \"%s\", \"group\": \"%s\", ", between, against[k], group);
        list("measured", values[2]);
        printf(", ");
        list("baseline", values[k]);
        printf("}\n");
    }
}

static void show(const char *where, double values[5][MOST_SLICES]) {
    static double ratio[2][MOST_SLICES], rate[2][MOST_SLICES];
    for (int i = 0; i < slices; i++)
        for (int k = 0; k < 2; k++) {
            ratio[k][i] = values[2][i] / values[k][i];
            rate[k][i] = 1e3 / values[3 + k][i];
        }
    printf("%s\n", where);
    report("round trip, bare futex, sleeping", values[0], slices, "ns");
    report("round trip, bare futex, looking first", values[1], slices, "ns");
    report("round trip, two queues", values[2], slices, "ns");
    report("  against sleeping", ratio[0], slices, "x");
    report("  against looking first (P7: at most 1.5)", ratio[1], slices, "x");
    report("one way, 8 bytes", rate[0], slices, "million/s");
    report("one way, a new segment of 1 KiB each", rate[1], slices, "million/s");
}

static double mine[5][MOST_SLICES], others[5][MOST_SLICES];

static void *second(void *unused) {
    (void)unused;
    static double values[5][MOST_SLICES];
    play(false, values);
    return NULL;
}

static void other_thread(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, second, NULL) != 0)
        exit(1);
    play(true, mine);
    pthread_join(thread, NULL);
}

int main(int argc, char **argv) {
    const bool json = argc > 2 && strcmp(argv[2], "--json") == 0;
    if (argc > 1 && atoi(argv[1]) > 0 && atoi(argv[1]) <= MOST_SLICES)
        slices = atoi(argv[1]);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    need(ist_queue_create(16, &there));
    need(ist_queue_create(16, &back));
    need(ist_queue_create(1000, &stream));
    other_thread();
    json ? emit("threads", "threads", mine) : show("two threads of a process", mine);
    fflush(stdout);
    atomic_store_explicit(&shared->ping, 0, memory_order_relaxed);
    atomic_store_explicit(&shared->pong, 0, memory_order_relaxed);
    turn = 0;
    pid_t child = fork();
    if (child == 0) {
        play(false, others);
        _exit(0);
    }
    play(true, mine);
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        return 1;
    json ? emit("processes", "processes in C", mine) : show("two processes", mine);
    return 0;
}
