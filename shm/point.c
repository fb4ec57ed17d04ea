/* point.c: see point.h. Part of the test build alone. */
#include "point.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

const char *const isti_point_names[ISTI_POINT_COUNT] = {
#define ISTI_POINT_NAME(name) #name,
    ISTI_POINTS(ISTI_POINT_NAME)
#undef ISTI_POINT_NAME
};

static _Atomic(unsigned) armed[ISTI_POINT_COUNT], reached[ISTI_POINT_COUNT];

void isti_point_arm(enum isti_point point, unsigned times) {
    atomic_store_explicit(&armed[point], times, memory_order_relaxed); /* relaxed: before the threads that come there are started */
}

static _Atomic(bool) stops;

void isti_point_stops(bool yes) { atomic_store_explicit(&stops, yes, memory_order_relaxed); /* relaxed: as above */ }

unsigned isti_point_reached(enum isti_point point) { return atomic_load_explicit(&reached[point], memory_order_relaxed); }

void isti_point(enum isti_point point) {
    /* relaxed: counters of their own */
    atomic_fetch_add_explicit(&reached[point], 1, memory_order_relaxed);
    if (atomic_load_explicit(&armed[point], memory_order_relaxed) != 0 &&
        atomic_fetch_sub_explicit(&armed[point], 1, memory_order_relaxed) == 1) {
        bool stop = atomic_load_explicit(&stops, memory_order_relaxed);
        kill(getpid(), stop ? SIGSTOP : SIGKILL);
        while (!stop)
            pause();
    }
}
