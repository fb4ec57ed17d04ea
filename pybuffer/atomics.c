/* atomics.c: isthmus.atomics: ECMAScript's Atomics on the elements of integer arrays, between whatever shares the memory.
 *
 * Relies on: array_element for the key; libisthmus (atomic.h) for waiting.
 * Invariant: as in index.c: the key and the values are evaluated first, as that may run Python code; from hold_enter to the access no Python
 * code runs. A wait stays on the hold for its whole time.
 *
 * All accesses are sequentially consistent. Values are taken modulo 2 to the power of the element's bits.
 * Source: ECMA-262, "The Atomics Object".
 */
#include "shareable.h"

#include <isthmus/atomic.h>
#include <math.h>

typedef struct element {
    SharedArrayObject *a; /* borrowed */
    char *at;
    int size;
    bool is_signed;
} element;

/* ---- elements ---------------------------------------------------------------------------------------------------------------------- */

static int find_element(PyObject *module, const char *function, PyObject *array, PyObject *key, bool write, element *e) {
    core_state *state = state_of_module(module);
    if (!Py_IS_TYPE(array, state->array_type)) {
        PyErr_Format(PyExc_TypeError, "atomics.%s() needs a SharedArray, not %.200s", function, Py_TYPE(array)->tp_name);
        return -1;
    }
    SharedArrayObject *a = (SharedArrayObject *)array;
    if (array_check(a) < 0)
        return -1;
    const ist_type_code code = a->dtype->code;
    if (code < IST_I1 || code > IST_U8 || a->dtype->swapped) {
        PyObject *dtype = dtype_description(a->dtype);
        if (dtype != NULL)
            PyErr_Format(PyExc_TypeError, "atomics.%s() needs an array of integers in this machine's byte order, not of %R", function,
                         dtype);
        Py_XDECREF(dtype);
        return -1;
    }
    if (!(array_flags(a) & (ARRAY_C_CONTIGUOUS | ARRAY_F_CONTIGUOUS))) {
        PyErr_Format(PyExc_ValueError, "atomics.%s() needs a contiguous array", function);
        return -1;
    }
    e->a = a;
    e->size = (int)a->dtype->itemsize;
    e->is_signed = code == IST_I1 || code == IST_I2 || code == IST_I4 || code == IST_I8;
    if (array_element(a, key, &e->at) < 0)
        return -1;
    if ((uintptr_t)e->at % (unsigned)e->size != 0) {
        PyErr_Format(PyExc_ValueError, "atomics.%s(): element %R isn't aligned: its address is no multiple of %d", function, key, e->size);
        return -1;
    }
    if (write && array_readonly(a)) {
        PyErr_Format(PyExc_ValueError, "atomics.%s(): the array is read-only", function);
        return -1;
    }
    return 0;
}

/* Any int, modulo 2 to the power of 64. -1 with TypeError. */
static int value_of(PyObject *object, uint64_t *value) {
    PyObject *number = PyNumber_Index(object);
    if (number == NULL)
        return -1;
    *value = PyLong_AsUnsignedLongLongMask(number);
    Py_DECREF(number);
    return *value == UINT64_MAX && PyErr_Occurred() ? -1 : 0;
}

static PyObject *value_out(const element *e, uint64_t value) {
    const int unused = 64 - 8 * e->size;
    if (e->is_signed)
        return PyLong_FromLongLong((long long)(value << unused) >> unused);
    return PyLong_FromUnsignedLongLong(value << unused >> unused);
}

/* HOLD_WRITER, if the array is writable still: its key or a value may have frozen it. */
static int enter_writer(const char *function, const element *e) {
    if (hold_enter(e->a, HOLD_WRITER) < 0)
        return -1;
    if (!array_readonly(e->a))
        return 0;
    hold_leave(e->a, HOLD_WRITER);
    PyErr_Format(PyExc_ValueError, "atomics.%s(): the array is read-only", function);
    return -1;
}

/* ---- operations -------------------------------------------------------------------------------------------------------------------- */

typedef enum operation { LOAD, STORE, ADD, SUB, AND, OR, XOR, EXCHANGE, COMPARE_EXCHANGE } operation;

/* What atomic_fetch_or and the like are anyway where their result is used. Written out because gcc 16.2 forgets the operand of those of 8 bytes
 * here (test_values sees it). */
#define EXCHANGE_UNTIL(T, new)                                                                                                             \
    {                                                                                                                                      \
        T old = atomic_load_explicit((_Atomic(T) *)at, memory_order_relaxed); /* relaxed: the exchange checks it */                        \
        while (!atomic_compare_exchange_weak_explicit((_Atomic(T) *)at, &old, (T)(new), memory_order_seq_cst, memory_order_relaxed))       \
            ;                                                                                                                              \
        return old;                                                                                                                        \
    }

#define BY_OPERATION(T)                                                                                                                    \
    switch (op) {                                                                                                                          \
    case LOAD: return atomic_load_explicit((_Atomic(T) *)at, memory_order_seq_cst);                                                        \
    case STORE: atomic_store_explicit((_Atomic(T) *)at, (T)v, memory_order_seq_cst); return v;                                             \
    case ADD: return atomic_fetch_add_explicit((_Atomic(T) *)at, (T)v, memory_order_seq_cst);                                              \
    case SUB: return atomic_fetch_sub_explicit((_Atomic(T) *)at, (T)v, memory_order_seq_cst);                                              \
    case AND: EXCHANGE_UNTIL(T, old & (T)v);                                                                                               \
    case OR: EXCHANGE_UNTIL(T, old | (T)v);                                                                                                \
    case XOR: EXCHANGE_UNTIL(T, old ^ (T)v);                                                                                               \
    case EXCHANGE: return atomic_exchange_explicit((_Atomic(T) *)at, (T)v, memory_order_seq_cst);                                          \
    case COMPARE_EXCHANGE: {                                                                                                               \
        T expected = (T)w;                                                                                                                 \
        atomic_compare_exchange_strong_explicit((_Atomic(T) *)at, &expected, (T)v, memory_order_seq_cst, memory_order_seq_cst);            \
        return expected;                                                                                                                   \
    }                                                                                                                                      \
    }                                                                                                                                      \
    return 0

static uint64_t access_1(operation op, void *at, uint64_t v, uint64_t w) { BY_OPERATION(uint8_t); }
static uint64_t access_2(operation op, void *at, uint64_t v, uint64_t w) { BY_OPERATION(uint16_t); }
static uint64_t access_4(operation op, void *at, uint64_t v, uint64_t w) { BY_OPERATION(uint32_t); }
static uint64_t access_8(operation op, void *at, uint64_t v, uint64_t w) { BY_OPERATION(uint64_t); }

static uint64_t access_element(operation op, const element *e, uint64_t v, uint64_t w) {
    switch (e->size) {
    case 1: return access_1(op, e->at, v, w);
    case 2: return access_2(op, e->at, v, w);
    case 4: return access_4(op, e->at, v, w);
    default: return access_8(op, e->at, v, w);
    }
}

static int check_count(const char *function, Py_ssize_t given, Py_ssize_t wanted) {
    if (given == wanted)
        return 0;
    PyErr_Format(PyExc_TypeError, "atomics.%s() takes %zd arguments (%zd given)", function, wanted, given);
    return -1;
}

static PyObject *atomics_load(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    element e;
    if (check_count("load", n, 2) < 0 || find_element(module, "load", args[0], args[1], false, &e) < 0 || hold_enter(e.a, HOLD_SHARED) < 0)
        return NULL;
    uint64_t value = access_element(LOAD, &e, 0, 0);
    hold_leave(e.a, HOLD_SHARED);
    return value_out(&e, value);
}

/* Those that write one value and give the one before. */
static PyObject *modify(operation op, const char *function, PyObject *module, PyObject *const *args, Py_ssize_t n) {
    element e;
    uint64_t value;
    if (check_count(function, n, 3) < 0 || find_element(module, function, args[0], args[1], true, &e) < 0 ||
        value_of(args[2], &value) < 0 || enter_writer(function, &e) < 0)
        return NULL;
    value = access_element(op, &e, value, 0);
    hold_leave(e.a, HOLD_WRITER);
    return value_out(&e, value);
}

static PyObject *atomics_store(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    PyObject *before = modify(STORE, "store", module, args, n);
    Py_XDECREF(before);
    return before == NULL ? NULL : PyNumber_Index(args[2]);
}

#define MODIFIER(name, op)                                                                                                                 \
    static PyObject *atomics_##name(PyObject *module, PyObject *const *args, Py_ssize_t n) { return modify(op, #name, module, args, n); }
MODIFIER(add, ADD)
MODIFIER(sub, SUB)
MODIFIER(and_, AND)
MODIFIER(or_, OR)
MODIFIER(xor, XOR)
MODIFIER(exchange, EXCHANGE)

static PyObject *atomics_compare_exchange(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    static const char function[] = "compare_exchange";
    element e;
    uint64_t expected, value;
    if (check_count(function, n, 4) < 0 || find_element(module, function, args[0], args[1], true, &e) < 0 ||
        value_of(args[2], &expected) < 0 || value_of(args[3], &value) < 0 || enter_writer(function, &e) < 0)
        return NULL;
    value = access_element(COMPARE_EXCHANGE, &e, value, expected);
    hold_leave(e.a, HOLD_WRITER);
    return value_out(&e, value);
}

static PyObject *atomics_is_lock_free(PyObject *Py_UNUSED(module), PyObject *size) {
    uint64_t n;
    if (value_of(size, &n) < 0)
        return NULL;
    return PyBool_FromLong(n == 1 || n == 2 || n == 4 || n == 8); /* control.h asserts it */
}

static PyObject *atomics_pause(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n) {
    uint64_t times = 1;
    if (n > 1)
        return PyErr_Format(PyExc_TypeError, "atomics.pause() takes at most 1 argument (%zd given)", n);
    if (n == 1 && args[0] != Py_None && value_of(args[0], &times) < 0)
        return NULL;
    for (times = times < 1000 ? times : 1000; times > 0; times--) { /* a hint: about 40 ns each on a current x86-64 */
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("isb");
#endif
    }
    Py_RETURN_NONE;
}

/* ---- wait and notify --------------------------------------------------------------------------------------------------------------- */

/* Seconds, or None: no limit; negative ones are none at all. -1 with an exception. */
static int deadline_of(PyObject *timeout, uint64_t *deadline) {
    *deadline = UINT64_MAX;
    if (timeout == NULL || timeout == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "timeout is not a number");
        return -1;
    }
    *deadline = seconds <= 0 ? 0 : deadline_after(seconds);
    return 0;
}

static int sleep_until_notified(ist_wait *w, uint64_t deadline) {
    for (;;) {
        int error;
        Py_BEGIN_ALLOW_THREADS;
        error = ist_wait_on(w, deadline, PATIENCE_NS);
        Py_END_ALLOW_THREADS;
        if (error != -EINTR)
            return error;
        if (let_python_run() < 0) {
            ist_wait_cancel(w);
            return -EINTR;
        }
    }
}

static const char *const wait_names[] = {"array", "index", "expected", "timeout"};
static const signature wait_signature = {"wait", 4, 4, 3, wait_names};

static PyObject *atomics_wait(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *given[4];
    element e;
    uint64_t expected, deadline;
    ist_wait w;
    if (bind_arguments(&wait_signature, args, nargs, kwnames, given) < 0 ||
        find_element(module, "wait", given[0], given[1], false, &e) < 0 || value_of(given[2], &expected) < 0 ||
        deadline_of(given[3], &deadline) < 0)
        return NULL;
    if (e.size < 4)
        return PyErr_Format(PyExc_TypeError, "atomics.wait() needs an array of integers of 4 or 8 bytes, not of %d", e.size);
    if (hold_enter(e.a, HOLD_SHARED) < 0)
        return NULL;
    SharedArrayObject *root = array_root(e.a);
    int error =
        ist_wait_begin(root->segment, (size_t)(e.at - root->start), e.at, (size_t)e.size, e.size == 4 ? (uint32_t)expected : expected, &w);
    const bool begun = error == 0;
    if (begun)
        error = sleep_until_notified(&w, deadline);
    hold_leave(e.a, HOLD_SHARED);
    switch (error) {
    case 0: return PyUnicode_InternFromString("ok");
    case -EAGAIN: return PyUnicode_InternFromString("not-equal");
    case -ETIMEDOUT: return PyUnicode_InternFromString("timed-out");
    case -EINTR: return NULL;
    case -ENOSPC: return PyErr_Format(PyExc_MemoryError, "atomics.wait(): as many threads of the domain wait as can (16,128)");
    default: return raise_error(state_of_module(module), error, "atomics.wait()");
    }
}

/* ---- a wait without a thread: isthmus._waiting makes it awaitable ------------------------------------------------------------------- */

typedef struct WaitObject {
    PyObject_HEAD
    SharedArrayObject *a; /* strong, and held, until it is let go: then NULL */
    bool waiting;
    ist_wait wait;
} WaitObject;

/* "ok", "timed-out" if there is a deadline, None: it goes on, or is over. */
static PyObject *wait_state(WaitObject *self, uint64_t deadline) {
    const int error = self->waiting ? ist_wait_on(&self->wait, deadline, 0) : -EINTR;
    if (error == -EINTR)
        Py_RETURN_NONE;
    if (error != 0 && error != -ETIMEDOUT) /* it is the parent's */
        return raise_error(PyType_GetModuleState(Py_TYPE(self)), error, "atomics.wait_async()");
    self->waiting = false;
    return PyUnicode_InternFromString(error == 0 ? "ok" : "timed-out");
}

static PyObject *wait_poll(PyObject *self, PyObject *Py_UNUSED(ignored)) { return wait_state((WaitObject *)self, UINT64_MAX); }
static PyObject *wait_finish(PyObject *self, PyObject *Py_UNUSED(ignored)) { return wait_state((WaitObject *)self, 0); }

static PyObject *wait_pass_on(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    const WaitObject *self = (WaitObject *)object;
    uint64_t woken;
    if (self->a != NULL && !self->waiting)
        (void)!ist_notify(array_root(self->a)->segment, self->wait.offset, 1, &woken); /* fails in a forked child only, which has no say */
    Py_RETURN_NONE;
}

static PyObject *wait_let_go(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    WaitObject *self = (WaitObject *)object;
    SharedArrayObject *a = self->a;
    if (self->waiting)
        ist_wait_cancel(&self->wait);
    self->waiting = false;
    self->a = NULL;
    if (a != NULL) {
        hold_leave(a, HOLD_SHARED);
        Py_DECREF((PyObject *)a);
    }
    Py_RETURN_NONE;
}

static void wait_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject *none = wait_let_go(object, NULL);
    Py_XDECREF(none);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef wait_methods[] = {
    {"poll", wait_poll, METH_NOARGS, PyDoc_STR("poll($self, /)\n--\n\n\"ok\", once, when it was notified; None: it goes on, or is over.")},
    {"finish", wait_finish, METH_NOARGS, PyDoc_STR("finish($self, /)\n--\n\nIts time is up: \"ok\" or \"timed-out\"; None: it is over.")},
    {"pass_on", wait_pass_on, METH_NOARGS, PyDoc_STR("pass_on($self, /)\n--\n\nThe notification that it had goes to the next.")},
    {"let_go", wait_let_go, METH_NOARGS,
     PyDoc_STR("let_go($self, /)\n--\n\nOf the array. If it waits still that ends; a notification nobody has heard goes to the next.")},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot wait_slots[] = {{Py_tp_dealloc, wait_dealloc}, {Py_tp_methods, wait_methods}, {0, NULL}};
static PyType_Spec wait_spec = {
    .name = "isthmus._core._Wait",
    .basicsize = sizeof(WaitObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = wait_slots,
};

/* _wait_begin(array, index, expected, fd): a _Wait, or "not-equal". */
static PyObject *wait_begin(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    core_state *state = state_of_module(module);
    element e;
    uint64_t expected;
    if (check_count("wait_async", n, 4) < 0 || find_element(module, "wait_async", args[0], args[1], false, &e) < 0 ||
        value_of(args[2], &expected) < 0)
        return NULL;
    const int fd = (int)PyLong_AsLong(args[3]);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    if (e.size < 4)
        return PyErr_Format(PyExc_TypeError, "atomics.wait_async() needs an array of integers of 4 or 8 bytes, not of %d", e.size);
    WaitObject *self = (WaitObject *)state->wait_type->tp_alloc(state->wait_type, 0);
    if (self == NULL || hold_enter(e.a, HOLD_SHARED) < 0) {
        Py_XDECREF((PyObject *)self);
        return NULL;
    }
    SharedArrayObject *root = array_root(e.a);
    const int error = ist_wait_begin_async(root->segment, (size_t)(e.at - root->start), e.at, (size_t)e.size,
                                           e.size == 4 ? (uint32_t)expected : expected, fd, &self->wait);
    if (error == 0) {
        self->a = (SharedArrayObject *)Py_NewRef((PyObject *)e.a);
        self->waiting = true;
        return (PyObject *)self;
    }
    hold_leave(e.a, HOLD_SHARED);
    Py_DECREF((PyObject *)self);
    switch (error) {
    case -EAGAIN: return PyUnicode_InternFromString("not-equal");
    case -ENOSPC: return PyErr_Format(PyExc_MemoryError, "atomics.wait_async(): as many of the domain wait as can (16,128)");
    default: return raise_error(state, error, "atomics.wait_async()");
    }
}

static PyMethodDef wait_functions[] = {
    {"_wait_begin", FAST(wait_begin), NULL},
    {NULL, NULL, 0, NULL},
};

static const char *const notify_names[] = {"array", "index", "count"};
static const signature notify_signature = {"notify", 3, 3, 2, notify_names};

static PyObject *atomics_notify(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *given[3];
    element e;
    uint64_t woken = 0, count = UINT64_MAX;
    if (bind_arguments(&notify_signature, args, nargs, kwnames, given) < 0 ||
        find_element(module, "notify", given[0], given[1], false, &e) < 0)
        return NULL;
    if (given[2] != NULL && given[2] != Py_None) {
        Py_ssize_t n = PyNumber_AsSsize_t(given[2], NULL); /* clipped */
        if (n == -1 && PyErr_Occurred())
            return NULL;
        if (n < 0)
            return PyErr_Format(PyExc_ValueError, "atomics.notify(): count is negative: %R", given[2]);
        count = (uint64_t)n;
    }
    if (e.size < 4)
        return PyErr_Format(PyExc_TypeError, "atomics.notify() needs an array of integers of 4 or 8 bytes, not of %d", e.size);
    if (hold_enter(e.a, HOLD_SHARED) < 0)
        return NULL;
    SharedArrayObject *root = array_root(e.a);
    int error = ist_notify(root->segment, (size_t)(e.at - root->start), count, &woken);
    hold_leave(e.a, HOLD_SHARED);
    return error != 0 ? raise_error(state_of_module(module), error, "atomics.notify()") : PyLong_FromUnsignedLongLong(woken);
}

/* ---- functions --------------------------------------------------------------------------------------------------------------------- */

#define OLD " Returns the\nelement's value before."

static PyMethodDef atomics_functions[] = {
    {"load", FAST(atomics_load), PyDoc_STR("load($module, array, index, /)\n--\n\nThe element's value.")},
    {"store", FAST(atomics_store),
     PyDoc_STR(
         "store($module, array, index, value, /)\n--\n\nThe element becomes value, modulo 2 to the power of its bits. Returns value, as it was given.")},
    {"add", FAST(atomics_add), PyDoc_STR("add($module, array, index, value, /)\n--\n\nAdds value to the element, which wraps around." OLD)},
    {"sub", FAST(atomics_sub),
     PyDoc_STR("sub($module, array, index, value, /)\n--\n\nSubtracts value from the element, which wraps around." OLD)},
    {"and_", FAST(atomics_and_), PyDoc_STR("and_($module, array, index, value, /)\n--\n\nThe element becomes element & value." OLD)},
    {"or_", FAST(atomics_or_), PyDoc_STR("or_($module, array, index, value, /)\n--\n\nThe element becomes element | value." OLD)},
    {"xor", FAST(atomics_xor), PyDoc_STR("xor($module, array, index, value, /)\n--\n\nThe element becomes element ^ value." OLD)},
    {"exchange", FAST(atomics_exchange), PyDoc_STR("exchange($module, array, index, value, /)\n--\n\nThe element becomes value." OLD)},
    {"compare_exchange", FAST(atomics_compare_exchange),
     PyDoc_STR("compare_exchange($module, array, index, expected, replacement, /)\n--\n\n"
               "The element becomes replacement if it is expected; both are taken modulo 2 to the power of its bits." OLD)},
    {"is_lock_free", atomics_is_lock_free, METH_O,
     PyDoc_STR("is_lock_free($module, nbytes, /)\n--\n\nWhether elements of so many bytes are accessed without a lock: 1, 2, 4 and 8.")},
    {"pause", FAST(atomics_pause),
     PyDoc_STR("pause($module, n=None, /)\n--\n\nTells the processor that this is a loop that waits, up to n times.")},
    {"wait", KEYWORDS(atomics_wait),
     PyDoc_STR(
         "wait($module, array, index, expected, timeout=None)\n--\n\n"
         "Sleeps until notify() of this element, in whatever view of whatever interpreter or process: \"ok\". \"not-equal\" at once if\n"
         "the element isn't expected; \"timed-out\" after timeout seconds (negative: at once). Elements of 4 or 8 bytes. Who has waited\n"
         "longest is woken first, and nobody without a notification. Runs signal handlers; releases the GIL.")},
    {"notify", KEYWORDS(atomics_notify),
     PyDoc_STR("notify($module, array, index, count=None)\n--\n\n"
               "Wakes up to count of those that wait on the element (None: all), the longest waiting first. Returns how many.")},
    {NULL, NULL, 0, NULL},
};

int atomics_init(PyObject *module) {
    PyObject *functions = PyDict_New(), *name = PyUnicode_FromString("isthmus.atomics");
    int result = functions == NULL || name == NULL ? -1 : 0;
    for (PyMethodDef *def = atomics_functions; def->ml_name != NULL && result == 0; def++) {
        PyObject *function = PyCFunction_NewEx(def, module, name);
        result = function == NULL ? -1 : PyDict_SetItemString(functions, def->ml_name, function);
        Py_XDECREF(function);
    }
    if (result == 0)
        result = PyModule_AddObjectRef(module, "_atomics", functions);
    Py_XDECREF(functions);
    Py_XDECREF(name);
    core_state *state = state_of_module(module);
    if (result < 0 || (state->wait_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &wait_spec, NULL)) == NULL)
        return -1;
    return PyModule_AddType(module, state->wait_type) < 0 ? -1 : PyModule_AddFunctions(module, wait_functions);
}
