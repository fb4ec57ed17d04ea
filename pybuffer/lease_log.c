/* lease_log.c: how long a pickle keeps its array, and the word about leases that ran out unread.
 *
 * Relies on: libisthmus' count of them. The logger is asked for when there is something to say, as importing logging is slow.
 */
#include "token.h"

#include <math.h>
#include <time.h>

static _Atomic(uint64_t) leases_reported; /* how many expired numbers were logged */

static int log_expired(uint64_t expired) {
    PyObject *logging = PyImport_ImportModule("logging");
    if (logging == NULL)
        return -1;
    PyObject *logger = PyObject_CallMethod(logging, "getLogger", "s", "isthmus");
    Py_DECREF(logging);
    if (logger == NULL)
        return -1;
    PyObject *result = PyObject_CallMethod(
        logger, "warning", "sK",
        "%d pickled array(s) were never loaded: their lease ran out and the memory was given back (isthmus.set_pickle_lease())",
        (unsigned long long)expired);
    Py_DECREF(logger);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

void message_report_leases(void) {
    uint64_t expired = ist_lease_expired();
    /* relaxed, here and below: the exchange alone decides which of two threads reports a number; nothing else hangs on it */
    uint64_t reported = atomic_load_explicit(&leases_reported, memory_order_relaxed);
    do {
        if (expired <= reported)
            return;
    } while (!atomic_compare_exchange_weak_explicit(&leases_reported, &reported, expired, memory_order_relaxed, memory_order_relaxed));
    PyObject *raised = PyErr_GetRaisedException(); /* what goes wrong in somebody's log handler isn't this caller's affair */
    if (log_expired(expired - reported) < 0)
        PyErr_WriteUnraisable(NULL);
    PyErr_SetRaisedException(raised);
}

/* For pickling, which may go on thousands of times a second while leases run out: at most one report a second. */
void report_leases_sometimes(void) {
    static _Atomic(int64_t) next; /* seconds; relaxed: two threads that report at once do no harm */
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    if (now.tv_sec < atomic_load_explicit(&next, memory_order_relaxed))
        return;
    atomic_store_explicit(&next, now.tv_sec + 1, memory_order_relaxed);
    message_report_leases();
}

const char set_pickle_lease_doc[] =
    PyDoc_STR("set_pickle_lease($module, seconds, /)\n--\n\n"
              "How long the memory of an array that was pickled from now on waits to be loaded (at first 300 seconds).\n\n"
              "Returns the duration before. A lease ends with its load; one that runs out unloaded is logged.");

PyObject *core_set_pickle_lease(PyObject *Py_UNUSED(module), PyObject *argument) {
    double seconds = PyFloat_AsDouble(argument);
    if (seconds == -1.0 && PyErr_Occurred())
        return NULL;
    if (!(seconds > 0) || isinf(seconds)) {
        PyErr_Format(PyExc_ValueError, "a lease lasts a positive, finite number of seconds, not %R", argument);
        return NULL;
    }
    double ns = seconds * 1e9;
    uint64_t before = ist_lease_set_duration(ns < 9e18 ? (uint64_t)ns : UINT64_C(9000000000000000000)); /* clamped there to 100 years */
    return PyFloat_FromDouble((double)before / 1e9);
}
