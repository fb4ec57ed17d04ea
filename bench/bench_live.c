/* bench_live.c: P13. Many live segments of 64 bytes: made by one thread, handed to another by tokens, released by both; the cost per
 * segment with many of them alive against the same with few, and the private memory each takes beside its data.
 *
 *   bench_live [MANY [FEW [ROUNDS]]]       prints JSON
 *
 * A round is four turns: the first thread makes all and writes their tokens, the second acquires all, the first releases all, the second
 * releases all, and so frees them in another thread than made them. Only the loops are timed, not the waiting for the other's turn, and in
 * processor time: on a busy machine a long loop is interrupted and a short one isn't. A round with few is repeated until it made as many.
 * Rounds of both kinds alternate.
 *
 * The data are in the heap's shared memory; what a segment takes beside them (its slot, its place in the address table, the allocator's
 * own notes) is private memory: so it is the growth of the process's anonymous memory, measured in a fresh process, before any other round.
 */
#include <isthmus/isthmus.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SIZE 64
#define TURNS 4

static const char *const turn_names[TURNS] = {"create", "acquire", "release", "free"};

/* Whose turn it is; the mutex orders all the rest. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn; /* even: the first thread's; odd: the second's; -1: over */

static size_t live;                 /* segments of the present round */
static ist_segment *made, *taken;   /* the first thread's references, the second's */
static ist_token *tokens;
static double seconds[TURNS];       /* of the present round */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check(int error, const char *what) {
    if (error == 0)
        return;
    fprintf(stderr, "bench_live: %s: %s\n", what, ist_strerror(error));
    exit(1);
}

static void loop(int which) {
    double begin = now();
    switch (which) {
    case 0:
        for (size_t i = 0; i < live; i++) {
            check(ist_segment_create(SIZE, 0, &made[i]), "create");
            check(ist_segment_token(made[i], &tokens[i]), "token");
        }
        break;
    case 1:
        for (size_t i = 0; i < live; i++)
            check(ist_segment_acquire(&tokens[i], &taken[i]), "acquire");
        break;
    case 2:
        for (size_t i = 0; i < live; i++)
            ist_segment_release(made[i]);
        break;
    default:
        for (size_t i = 0; i < live; i++)
            ist_segment_release(taken[i]);
    }
    seconds[which] += now() - begin;
}

static void pass_turn(int to) {
    pthread_mutex_lock(&mutex);
    turn = to;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

/* Waits for a turn of this thread; -1: it is over. */
static int await_turn(int parity) {
    pthread_mutex_lock(&mutex);
    while (turn >= 0 && turn % 2 != parity)
        pthread_cond_wait(&changed, &mutex);
    int mine = turn;
    pthread_mutex_unlock(&mutex);
    return mine;
}

static void *second_thread(void *unused) {
    (void)unused;
    for (int mine; (mine = await_turn(1)) >= 0; pass_turn((mine + 1) % TURNS))
        loop(mine);
    return NULL;
}

/* One round with `many` segments in all, `at_once` of them alive. */
static void round_of(size_t many, size_t at_once) {
    memset(seconds, 0, sizeof seconds);
    live = at_once;
    for (size_t done = 0; done < many; done += at_once) {
        loop(0);
        pass_turn(1);
        await_turn(0);
        loop(2);
        pass_turn(3);
        await_turn(0);
    }
}

static long anonymous_kib(void) {
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kib = -1;
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "RssAnon: %ld", &kib) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return kib;
}

/* Touched, so that it counts before as after. */
static void *array(size_t count, size_t size) {
    void *p = malloc(count * size);
    check(p == NULL ? -ENOMEM : 0, "malloc");
    return memset(p, 1, count * size);
}

static void print_round(const char *kind, size_t many, bool last) {
    double total = 0;
    printf("    \"%s\": {", kind);
    for (int i = 0; i < TURNS; i++) {
        printf("\"%s\": %.3f, ", turn_names[i], seconds[i] * 1e9 / (double)many);
        total += seconds[i];
    }
    printf("\"total\": %.3f}%s\n", total * 1e9 / (double)many, last ? "" : ",");
}

int main(int argc, char **argv) {
    size_t many = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000;
    size_t few = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000;
    int rounds = argc > 3 ? atoi(argv[3]) : 7;
    if (few == 0 || many < few || rounds < 1)
        return 2;
    many -= many % few;
    made = array(many, sizeof *made);
    taken = array(many, sizeof *taken);
    tokens = array(many, sizeof *tokens);

    ist_segment first; /* opens the heap: what is there once isn't a segment's */
    check(ist_segment_create(SIZE, 0, &first), "create");
    long before = anonymous_kib();
    live = many;
    loop(0);
    double bytes = (double)(anonymous_kib() - before) * 1024 / (double)many;
    for (size_t i = 0; i < many; i++)
        ist_segment_release(made[i]);

    pthread_t thread;
    check(-pthread_create(&thread, NULL, second_thread, NULL), "pthread_create");
    round_of(many, many);
    round_of(many, few);
    printf("{\n  \"live\": %zu, \"few\": %zu, \"overhead_bytes\": %.2f, \"unit\": \"ns per segment\",\n  \"rounds\": [\n", many, few,
           bytes);
    for (int i = 0; i < rounds; i++) {
        printf("   {\n");
        round_of(many, few);
        print_round("few", many, false);
        round_of(many, many);
        print_round("many", many, true);
        printf("   }%s\n", i + 1 < rounds ? "," : "");
    }
    printf("  ]\n}\n");
    pass_turn(-1);
    pthread_join(thread, NULL);
    ist_segment_release(first);
    return 0;
}
