/* worker.c: isthmus._core._Interpreter, an interpreter with a GIL of its own that one thread makes, calls into and ends. WorkerPool stands
 * on it; api.md's users never see it.
 *
 * The thread is the creator's (a threading.Thread, so that threading names and joins it). It has two thread states: its own in the
 * creator, and one in the worker interpreter, detached between calls. A call is: pack in the creator, swap, unpack, isthmus._worker.handle,
 * pack, swap back, unpack. What crosses is malloc'd bytes, messages and error texts: no object.
 *
 * Relies on: Py_NewInterpreterFromConfig and Py_EndInterpreter leaving the thread without a thread state of the creator, which then is
 * restored; PyThreadState_SetAsyncExc working on the threads of the attached interpreter (public API throughout).
 *
 * Invariants (README.md, W1 to W6)
 *   whoever takes control->mutex, or making, holds no GIL (the holder of the mutex may need one)
 *   control->attached: the terminator may have a thread state in the interpreter. It sets that only while running; the thread clears
 *     running and then waits until attached is false. So none of its states is alive when the interpreter ends.
 *   an interpreter is ended only with no other thread state in it (3.12 and 3.13 abort otherwise); else it is parked: swept, never ended
 *   handle and tstate belong to the worker interpreter: touched only while it is attached, by the thread, or by whoever finalises
 */
#include "parcel.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define INTERRUPT_MS 100  /* between two SystemExits of a call that was told to end */
#define POLL_MS 2         /* between two looks at the threads left in an interpreter that is to end */
#define CLOSE_SECONDS 5.0 /* how long they have */

enum { OPEN, CLOSING, CLOSED, PARKED };

/* What the thread shares with terminate() and its helper thread; lives as long as one of them. */
typedef struct control {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int references;          /* under the mutex: the object, the helper */
    bool helper;             /* under the mutex: there is one */
    bool attached;           /* under the mutex, see above */
    bool stop;               /* under the mutex: terminate() was called */
    _Atomic(bool) running;   /* a call is under way; written under the mutex */
    PyInterpreterState *interpreter; /* valid while running */
    unsigned long thread;    /* PyThread_get_thread_ident() of the thread */
} control;

typedef struct WorkerObject {
    PyObject_HEAD
    control *control;        /* NULL: never made */
    PyThreadState *tstate;   /* the thread's, in the worker interpreter */
    PyObject *handle;        /* isthmus._worker.handle, an object of the worker interpreter */
    int64_t id;
    uint32_t epoch;          /* ist_process_epoch() of its making: another value now means the interpreter was the parent's */
    _Atomic(int) state;      /* OPEN … PARKED; written by the thread */
} WorkerObject;

/* ---- the process ---------------------------------------------------------------------------------------------------------------------- */

static _Atomic(int) calls_running; /* in the process; relaxed throughout: read at exit, for a best effort */

static bool runtime_is_finalizing(void) {
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

/* 3.12 makes one interpreter at a time. */
#if PY_VERSION_HEX < 0x030D0000
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

static void making_begin(PyThreadState *creator) {
    PyEval_SaveThread();
    pthread_mutex_lock(&making);
    PyEval_RestoreThread(creator);
}
static void making_end(void) { pthread_mutex_unlock(&making); }
#else
static void making_begin(PyThreadState *creator) { (void)creator; }
static void making_end(void) {}
#endif

/* In a forked child: the threads that were in calls, or had the mutex, aren't there. */
static void forget_threads(void) {
    atomic_store_explicit(&calls_running, 0, memory_order_relaxed);
#if PY_VERSION_HEX < 0x030D0000
    making = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
#endif
}

static void watch_fork(void) { (void)pthread_atfork(NULL, NULL, forget_threads); }

/* ---- the exit of the program with interpreters alive: rather a message and status 120, CPython's own for an exit that went wrong, than an
 * abort. The pool ends its interpreters in time; this is for what can't be ended, and for who doesn't end them. ---- */

static void leave(const char *why) {
    fprintf(stderr, "isthmus: leaving the process without cleaning up: %s\n", why);
    fflush(NULL);
    _exit(120);
}

/* An atexit callback of the main interpreter. Threads that Python doesn't wait for (daemons, or after a second Ctrl-C) and that are in
 * calls now would run on in interpreters that are being torn down. */
static PyObject *leave_if_running(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored)) {
    static bool again;
    if (again || atomic_load_explicit(&calls_running, memory_order_relaxed) <= 0)
        Py_RETURN_NONE;
    again = true;
    PyObject *others = PyImport_ImportModule("atexit"); /* who registered earlier would come after us */
    PyObject *done = others != NULL ? PyObject_CallMethod(others, "_run_exitfuncs", NULL) : NULL;
    for (int i = 0; i < 2; i++) {
        PyErr_Clear();
        PyObject *file = PySys_GetObject(i == 0 ? "stdout" : "stderr"); /* borrowed */
        Py_XDECREF(file != NULL ? PyObject_CallMethod(file, "flush", NULL) : NULL);
    }
    PyErr_Clear();
    leave("a worker interpreter is in a call that doesn't end");
    Py_XDECREF(done);
    Py_XDECREF(others);
    Py_RETURN_NONE;
}

static int count_threads(PyInterpreterState *interpreter) {
    int count = 0;
    for (PyThreadState *t = PyInterpreterState_ThreadHead(interpreter); t != NULL; t = PyThreadState_Next(t))
        count++;
    return count;
}

/* Destroyed with the main interpreter's sys, after all other modules. Soon after it 3.12 aborts over any interpreter that is left, and 3.13
 * over one with several threads. (3.14 ends them all earlier.) */
static void leave_if_left(PyObject *Py_UNUSED(capsule)) {
    if (PY_VERSION_HEX >= 0x030E0000 || !runtime_is_finalizing())
        return;
    for (PyInterpreterState *i = PyInterpreterState_Head(); i != NULL; i = PyInterpreterState_Next(i)) {
        if (i != PyInterpreterState_Main() && (PY_VERSION_HEX < 0x030D0000 || count_threads(i) > 1))
            leave("an interpreter is left that this version of Python can't end");
    }
}

static int register_atexit(void) {
    static PyMethodDef callback = {"leave_if_running", leave_if_running, METH_NOARGS, NULL};
    PyObject *function = PyCFunction_New(&callback, NULL);
    PyObject *module = function != NULL ? PyImport_ImportModule("atexit") : NULL;
    PyObject *result = module != NULL ? PyObject_CallMethod(module, "register", "O", function) : NULL;
    int error = result != NULL ? 0 : -1;
    Py_XDECREF(result);
    Py_XDECREF(module);
    Py_XDECREF(function);
    return error;
}

/* Once for the process: the first interpreter that the main one makes. */
static int watch_process(void) {
    static const char name[] = "_isthmus_interpreters";
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_fork);
    if (PyInterpreterState_Get() != PyInterpreterState_Main() || PySys_GetObject(name) != NULL)
        return 0;
    PyObject *capsule = PyCapsule_New(&calls_running, NULL, leave_if_left);
    if (capsule == NULL)
        return -1;
    int error = PySys_SetObject(name, capsule);
    Py_DECREF(capsule);
    return error < 0 ? -1 : register_atexit();
}

/* ---- in the worker interpreter ----------------------------------------------------------------------------------------------------------- */

static PyObject *call_handle(WorkerObject *self, core_state *state, parcel *in) {
    if (self->handle == NULL) {
        PyObject *module = PyImport_ImportModule("isthmus._worker");
        if (module == NULL)
            return NULL;
        self->handle = PyObject_GetAttrString(module, "handle");
        Py_DECREF(module);
        if (self->handle == NULL)
            return NULL;
    }
    PyObject *arguments = parcel_unpack(state, in);
    parcel_clear(in);
    if (arguments == NULL)
        return NULL;
    PyObject *result = PyObject_Call(self->handle, arguments, NULL);
    Py_DECREF(arguments);
    return result;
}

static int pack_result(core_state *state, parcel *out, PyObject *result) {
    if (!PyTuple_Check(result) || PyTuple_GET_SIZE(result) != 2) {
        PyErr_Format(PyExc_TypeError, "isthmus._worker.handle must return (bytes, refs), not %.200s", Py_TYPE(result)->tp_name);
        return -1;
    }
    return parcel_pack(state, out, PyTuple_GET_ITEM(result, 0), PyTuple_GET_ITEM(result, 1));
}

/* The whole of a call, with the worker interpreter attached. No object of it is left when this returns. */
static void run_call(WorkerObject *self, parcel *in, parcel *out) {
    PyObject *module = module_of_interpreter();
    PyObject *result = module != NULL ? call_handle(self, state_of_module(module), in) : NULL;
    if (result == NULL || pack_result(state_of_module(module), out, result) < 0)
        parcel_pack_exception(out);
    Py_XDECREF(result);
    Py_XDECREF(module);
    if (PyErr_Occurred()) /* a late SystemExit, raised in a finaliser of the result */
        PyErr_Clear();
}

/* Runs source in __main__; what it raises is out->error. */
static void run_setup(const char *source, parcel *out) {
    PyObject *main = PyImport_AddModule("__main__"); /* borrowed */
    PyObject *code = main != NULL ? Py_CompileString(source, "<setup of a worker interpreter>", Py_file_input) : NULL;
    PyObject *result = NULL;
    if (code != NULL) {
        PyObject *names = PyModule_GetDict(main);
        result = PyEval_EvalCode(code, names, names);
    }
    if (result == NULL)
        parcel_pack_exception(out);
    Py_XDECREF(result);
    Py_XDECREF(code);
}

/* Tells what waits for the interpreter's end to end: thread pools keep idle threads until then. In a thread of its own, since it joins
 * them; private, so with care. */
static void ask_threads_to_end(void) {
    static const char source[] = "def _isthmus_ask():\n"
                                 "    import sys, _thread\n"
                                 "    callbacks = getattr(sys.modules.get('threading'), '_threading_atexits', None)\n"
                                 "    def run():\n"
                                 "        while callbacks:\n"
                                 "            callbacks.pop()()\n"
                                 "    if callbacks:\n"
                                 "        _thread.start_new_thread(run, ())\n"
                                 "_isthmus_ask()\n"
                                 "del _isthmus_ask\n";
    parcel ignored = {0};
    run_setup(source, &ignored);
    parcel_clear(&ignored);
}

static void interrupt_others(PyInterpreterState *interpreter, PyThreadState *self) {
    for (PyThreadState *t = PyInterpreterState_ThreadHead(interpreter); t != NULL; t = PyThreadState_Next(t)) {
        if (t != self)
            (void)PyThreadState_SetAsyncExc(t->thread_id, PyExc_SystemExit);
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Whether `tstate` (attached) is the only thread state of its interpreter, or becomes it within `seconds`. CPython tells nobody when a
 * thread's state goes, so this looks every few milliseconds, with the GIL released in between. */
static bool wait_alone(PyThreadState *tstate, double seconds, bool interrupt) {
    PyInterpreterState *interpreter = PyThreadState_GetInterpreter(tstate);
    if (count_threads(interpreter) == 1)
        return true;
    double end = now() + seconds, interrupted = 0;
    ask_threads_to_end();
    while (count_threads(interpreter) > 1) {
        double t = now();
        if (t >= end)
            return false;
        if (interrupt && t - interrupted >= INTERRUPT_MS / 1e3) {
            interrupt_others(interpreter, tstate);
            interrupted = t;
        }
        PyEval_SaveThread();
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
        PyEval_RestoreThread(tstate);
    }
    return true;
}

/* Ends the interpreter of `tstate`, which is attached, or parks it. Returns with no thread state attached. */
static int end_interpreter(WorkerObject *self, PyThreadState *tstate, double seconds, bool interrupt) {
    Py_CLEAR(self->handle);
    if (!wait_alone(tstate, seconds, interrupt)) {
        block_sweep_current();
        PyEval_SaveThread();
        return PARKED;
    }
    Py_EndInterpreter(tstate);
    return CLOSED;
}

/* ---- control: the thread and those who want it to stop ------------------------------------------------------------------------------------ */

static control *control_new(void) {
    control *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    c->references = 1;
    c->thread = PyThread_get_thread_ident();
    return c;
}

/* Under the mutex, which is given up. */
static void control_release(control *c) {
    bool last = --c->references == 0;
    pthread_mutex_unlock(&c->mutex);
    if (last) {
        pthread_cond_destroy(&c->changed);
        pthread_mutex_destroy(&c->mutex);
        free(c);
    }
}

/* False: terminate() was faster. No GIL is held. */
static bool control_begin_call(control *c) {
    pthread_mutex_lock(&c->mutex);
    bool go = !c->stop;
    if (go) {
        atomic_store_explicit(&c->running, true, memory_order_relaxed); /* relaxed: the mutex orders it */
        atomic_fetch_add_explicit(&calls_running, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&c->mutex);
    return go;
}

/* Returns whether terminate() was called; from here on no helper attaches to the interpreter. No GIL is held. */
static bool control_end_call(control *c) {
    pthread_mutex_lock(&c->mutex);
    atomic_store_explicit(&c->running, false, memory_order_relaxed); /* relaxed: the mutex orders it */
    atomic_fetch_sub_explicit(&calls_running, 1, memory_order_relaxed);
    pthread_cond_broadcast(&c->changed);
    while (c->attached)
        pthread_cond_wait(&c->changed, &c->mutex);
    bool stopped = c->stop;
    pthread_mutex_unlock(&c->mutex);
    return stopped;
}

static bool control_stopped(control *c) {
    pthread_mutex_lock(&c->mutex);
    bool stopped = c->stop;
    pthread_mutex_unlock(&c->mutex);
    return stopped;
}

/* With attached set, without the mutex, from a thread that has no thread state. */
static void interrupt_call(control *c) {
    if (runtime_is_finalizing())
        return;
    PyThreadState *mine = PyThreadState_New(c->interpreter);
    if (mine == NULL)
        return;
    PyEval_RestoreThread(mine);
    (void)PyThreadState_SetAsyncExc(c->thread, PyExc_SystemExit);
    PyThreadState_Clear(mine);
    PyThreadState_DeleteCurrent();
}

/* The helper thread: asks again and again, since the code may catch SystemExit. */
static void *terminator(void *argument) {
    control *c = argument;
    pthread_mutex_lock(&c->mutex);
    while (atomic_load_explicit(&c->running, memory_order_relaxed)) { /* relaxed: under the mutex */
        c->attached = true;
        pthread_mutex_unlock(&c->mutex);
        interrupt_call(c);
        pthread_mutex_lock(&c->mutex);
        c->attached = false;
        pthread_cond_broadcast(&c->changed);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += INTERRUPT_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        if (atomic_load_explicit(&c->running, memory_order_relaxed)) /* relaxed: under the mutex */
            pthread_cond_timedwait(&c->changed, &c->mutex, &until);
    }
    c->helper = false;
    control_release(c);
    return NULL;
}

/* Under the mutex. 0 or an errno. */
static int start_terminator(control *c) {
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all); /* signals are Python's: the helper takes none */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, &attributes, terminator, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error == 0) {
        c->helper = true;
        c->references++;
    }
    return error;
}

/* ---- making ---------------------------------------------------------------------------------------------------------------------------- */

/* Makes an interpreter and leaves its thread state attached; NULL with the creator's attached again, and *why set. */
static PyThreadState *make_interpreter(PyThreadState *creator, const char **why) {
    const PyInterpreterConfig config = {
        .use_main_obmalloc = 0,
        .allow_fork = 0,
        .allow_exec = 0,
        .allow_threads = 1,
        .allow_daemon_threads = 0,
        .check_multi_interp_extensions = 1,
        .gil = PyInterpreterConfig_OWN_GIL,
    };
    PyThreadState *made = NULL;
    making_begin(creator);
    PyStatus status = Py_NewInterpreterFromConfig(&made, &config);
    making_end();
    if (PyStatus_Exception(status) || made == NULL) {
        *why = PyStatus_Exception(status) && status.err_msg != NULL ? status.err_msg : "not enough memory";
#if PY_VERSION_HEX >= 0x030D0000
        PyThreadState *current = PyThreadState_GetUnchecked();
#else
        PyThreadState *current = _PyThreadState_UncheckedGet();
#endif
        if (current != creator)
            PyEval_RestoreThread(creator);
        return NULL;
    }
    return made;
}

/* Into self: a new interpreter in which `source` has run. On failure nothing is left of it. */
static int worker_make(core_state *state, WorkerObject *self, const char *source) {
    const char *why = NULL;
    parcel outcome = {0};
    PyThreadState *creator = PyThreadState_Get();
    PyThreadState *tstate = make_interpreter(creator, &why);
    if (tstate == NULL) {
        PyErr_Format(PyExc_RuntimeError, "can't make an interpreter: %s", why);
        return -1;
    }
    self->tstate = tstate;
    self->control->interpreter = PyThreadState_GetInterpreter(tstate);
    self->id = PyInterpreterState_GetID(self->control->interpreter);
    run_setup(source, &outcome);
    bool failed = outcome.error != NULL;
    int now_is = OPEN;
    if (failed)
        now_is = end_interpreter(self, tstate, CLOSE_SECONDS, false);
    else
        PyEval_SaveThread();
    PyEval_RestoreThread(creator);
    atomic_store_explicit(&self->state, now_is, memory_order_relaxed); /* relaxed: nobody else has the object yet */
    if (failed)
        PyErr_Format(state->WorkerError, "the setup of interpreter %lld failed:\n%s", (long long)self->id, outcome.error);
    parcel_clear(&outcome);
    return failed ? -1 : 0;
}

PyDoc_STRVAR(worker_doc, "_Interpreter(setup='')\n--\n\n"
                         "An interpreter with a GIL of its own, made on the calling thread, which alone may call and close it.\n\n"
                         "setup is source that runs in its __main__ first; if it raises, so does this: WorkerError with the traceback.");

static PyObject *worker_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"setup", NULL};
    const char *source = "";
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|s:_Interpreter", names, &source))
        return NULL;
    if (runtime_is_finalizing()) {
        PyErr_SetString(PyExc_RuntimeError, "can't make an interpreter while Python is shutting down");
        return NULL;
    }
    if (watch_process() < 0)
        return NULL;
    WorkerObject *self = (WorkerObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    atomic_init(&self->state, CLOSED); /* nothing to end yet */
    self->epoch = ist_process_epoch();
    self->control = control_new();
    if (self->control == NULL)
        PyErr_NoMemory();
    if (self->control == NULL || worker_make(PyType_GetModuleState(type), self, source) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* ---- methods ----------------------------------------------------------------------------------------------------------------------------- */

/* relaxed: the thread that writes it is the one that acts on it; others see a value of some moment */
static int state_of_worker(WorkerObject *self) { return atomic_load_explicit(&self->state, memory_order_relaxed); }

static int check_owner(WorkerObject *self, const char *what) {
    if (self->epoch != ist_process_epoch()) {
        PyErr_Format(PyExc_RuntimeError, "can't %s interpreter %lld: it belongs to the parent process", what, (long long)self->id);
        return -1;
    }
    if (self->control->thread != PyThread_get_thread_ident()) {
        PyErr_Format(PyExc_RuntimeError, "can't %s interpreter %lld from a thread that didn't make it", what, (long long)self->id);
        return -1;
    }
    return 0;
}

/* Swaps into the worker interpreter and back. True: terminate() was called before or during the call. */
static bool swap_and_run(WorkerObject *self, parcel *in, parcel *out) {
    PyThreadState *creator = PyEval_SaveThread();
    bool stopped = !control_begin_call(self->control);
    if (!stopped) {
        PyEval_RestoreThread(self->tstate);
        run_call(self, in, out);
        PyEval_SaveThread();
        stopped = control_end_call(self->control);
        if (stopped) { /* a SystemExit that came too late must not hit whatever runs next */
            PyEval_RestoreThread(self->tstate);
            (void)PyThreadState_SetAsyncExc(self->control->thread, NULL);
            PyEval_SaveThread();
        }
    }
    PyEval_RestoreThread(creator);
    return stopped;
}

PyDoc_STRVAR(call_doc, "call($self, payload, refs=(), /)\n--\n\n"
                       "isthmus._worker.handle(payload, refs) in the interpreter; its (bytes, tuple of arrays).\n\n"
                       "An exception that escapes it is WorkerError with the traceback's text here.");

static PyObject *worker_call(PyObject *object, PyObject *arguments) {
    WorkerObject *self = (WorkerObject *)object;
    core_state *state = PyType_GetModuleState(Py_TYPE(object));
    PyObject *payload, *refs = NULL, *result = NULL;
    if (!PyArg_ParseTuple(arguments, "O|O:call", &payload, &refs) || check_owner(self, "call") < 0)
        return NULL;
    if (state_of_worker(self) != OPEN) {
        PyErr_Format(PyExc_RuntimeError, "interpreter %lld is closed", (long long)self->id);
        return NULL;
    }
    parcel in = {0}, out = {0};
    if (atomic_load_explicit(&self->control->running, memory_order_relaxed)) /* relaxed: only this thread sets it */
        PyErr_Format(PyExc_RuntimeError, "interpreter %lld is running a call already", (long long)self->id);
    else if (parcel_pack(state, &in, payload, refs) == 0) {
        bool stopped = swap_and_run(self, &in, &out);
        if (stopped) /* whatever came back: handle may have made an answer out of the SystemExit */
            PyErr_Format(state->WorkerError, "interpreter %lld was terminated", (long long)self->id);
        else if (out.error != NULL)
            PyErr_Format(state->WorkerError, "uncaught exception in interpreter %lld:\n%s", (long long)self->id, out.error);
        else if (out.bytes == NULL)
            PyErr_NoMemory(); /* not even for the exception's text */
        else
            result = parcel_unpack(state, &out);
    }
    parcel_clear(&in);
    parcel_clear(&out);
    return result;
}

PyDoc_STRVAR(terminate_doc, "terminate($self, /)\n--\n\n"
                            "Asks the running call to end, by SystemExit, until it does; later calls are refused. Returns at once.\n\n"
                            "From any thread. Code in C isn't interrupted, nor is code that catches SystemExit for ever.");

static PyObject *worker_terminate(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    WorkerObject *self = (WorkerObject *)object;
    control *c = self->control;
    if (self->epoch != ist_process_epoch()) {
        PyErr_Format(PyExc_RuntimeError, "can't terminate interpreter %lld: it belongs to the parent process", (long long)self->id);
        return NULL;
    }
    int error = 0;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&c->mutex);
    c->stop = true;
    if (atomic_load_explicit(&c->running, memory_order_relaxed) && !c->helper) /* relaxed: under the mutex */
        error = start_terminator(c);
    pthread_mutex_unlock(&c->mutex);
    Py_END_ALLOW_THREADS
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *outcome_of_close(int state) { return PyUnicode_FromString(state == PARKED ? "parked" : "closed"); }

PyDoc_STRVAR(close_doc, "close($self, timeout=5.0, /)\n--\n\n"
                        "Ends the interpreter; 'closed'.\n\n"
                        "If threads are left in it after timeout seconds, it can't be ended: its arrays are let go, it stays; 'parked'.");

static PyObject *worker_close(PyObject *object, PyObject *arguments) {
    WorkerObject *self = (WorkerObject *)object;
    double seconds = CLOSE_SECONDS;
    if (!PyArg_ParseTuple(arguments, "|d:close", &seconds))
        return NULL;
    int state = state_of_worker(self);
    if (state == CLOSED || state == PARKED)
        return outcome_of_close(state);
    if (check_owner(self, "close") < 0)
        return NULL;
    if (state == CLOSING || atomic_load_explicit(&self->control->running, memory_order_relaxed)) { /* relaxed: only this thread sets it */
        PyErr_Format(PyExc_RuntimeError, "interpreter %lld is running", (long long)self->id);
        return NULL;
    }
    atomic_store_explicit(&self->state, CLOSING, memory_order_relaxed); /* relaxed: see state_of_worker */
    PyThreadState *creator = PyEval_SaveThread();
    bool stopped = control_stopped(self->control);
    PyEval_RestoreThread(self->tstate);
    state = end_interpreter(self, self->tstate, seconds, stopped);
    PyEval_RestoreThread(creator);
    atomic_store_explicit(&self->state, state, memory_order_relaxed); /* relaxed: see state_of_worker */
    return outcome_of_close(state);
}

/* An interpreter that nobody can call any more. Its thread may be another one, and gone: then its thread state is replaced. */
static void worker_abandon(WorkerObject *self) {
    PyThreadState *creator = PyEval_SaveThread();
    PyThreadState *tstate = self->tstate;
    if (self->control->thread != PyThread_get_thread_ident())
        tstate = PyThreadState_New(self->control->interpreter);
    int state = PARKED;
    if (tstate != NULL) {
        PyEval_RestoreThread(tstate);
        if (tstate != self->tstate) {
            PyThreadState_Clear(self->tstate);
            PyThreadState_Delete(self->tstate);
        }
        state = end_interpreter(self, tstate, 0, false);
    }
    PyEval_RestoreThread(creator);
    atomic_store_explicit(&self->state, state, memory_order_relaxed); /* relaxed: nobody else has the object */
}

static void worker_finalize(PyObject *object) {
    WorkerObject *self = (WorkerObject *)object;
    if (self->control == NULL || self->epoch != ist_process_epoch() || state_of_worker(self) != OPEN)
        return;
    PyObject *raised = PyErr_GetRaisedException();
    /* While the runtime ends nothing can be attached any more; CPython or leave_if_left deal with it. */
    if (!runtime_is_finalizing())
        worker_abandon(self);
    if (PyErr_WarnFormat(PyExc_ResourceWarning, 1, "unclosed interpreter %lld%s", (long long)self->id,
                         state_of_worker(self) == CLOSED ? "" : ", which can't be ended now") < 0)
        PyErr_WriteUnraisable(object);
    PyErr_SetRaisedException(raised);
}

static void worker_dealloc(PyObject *object) {
    WorkerObject *self = (WorkerObject *)object;
    if (PyObject_CallFinalizerFromDealloc(object) < 0)
        return;
    PyTypeObject *type = Py_TYPE(object);
    control *c = self->control;
    if (c != NULL && self->epoch == ist_process_epoch()) { /* a forked child leaves it: the mutex may be taken */
        Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&c->mutex);
        control_release(c);
        Py_END_ALLOW_THREADS
    }
    type->tp_free(object);
    Py_DECREF(type);
}

/* ---- attributes, type ----------------------------------------------------------------------------------------------------------------------- */

static PyObject *worker_id(PyObject *self, void *Py_UNUSED(closure)) { return PyLong_FromLongLong(((WorkerObject *)self)->id); }

static PyObject *worker_closed(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(state_of_worker((WorkerObject *)self) != OPEN);
}

static PyObject *worker_running(PyObject *self, void *Py_UNUSED(closure)) {
    WorkerObject *worker = (WorkerObject *)self;
    /* relaxed: a value of some moment */
    return PyBool_FromLong(worker->epoch == ist_process_epoch() && atomic_load_explicit(&worker->control->running, memory_order_relaxed));
}

static PyMethodDef worker_methods[] = {
    {"call", worker_call, METH_VARARGS, call_doc},
    {"terminate", worker_terminate, METH_NOARGS, terminate_doc},
    {"close", worker_close, METH_VARARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef worker_attributes[] = {
    {"id", worker_id, NULL, "The interpreter's id, as CPython numbers them.", NULL},
    {"closed", worker_closed, NULL, "Whether close() was called.", NULL},
    {"running", worker_running, NULL, "Whether a call is under way.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot worker_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t)worker_doc},
    {Py_tp_new, worker_new},
    {Py_tp_finalize, worker_finalize},
    {Py_tp_dealloc, worker_dealloc},
    {Py_tp_methods, worker_methods},
    {Py_tp_getset, worker_attributes},
    {0, NULL},
};

static PyType_Spec worker_spec = {
    .name = "isthmus._core._Interpreter",
    .basicsize = sizeof(WorkerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = worker_slots,
};

int worker_init(PyObject *module, core_state *state) {
    state->worker_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &worker_spec, NULL);
    if (state->worker_type == NULL)
        return -1;
    return PyModule_AddType(module, state->worker_type);
}
