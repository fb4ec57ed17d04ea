/* errors.c: the one table that turns what libisthmus returns into exceptions.
 *
 * Relies on: nothing but the C API and the exception classes in the module state.
 * Inside the extension errors are negative errno; they become exceptions here and nowhere else, so that one cause has one class.
 */
#include "core.h"

#include <sys/resource.h>

typedef enum error_class {
    CLASS_MEMORY,
    CLASS_GONE,
    CLASS_BUFFER,
    CLASS_DETACHED,
    CLASS_VALUE,
    CLASS_OVERFLOW,
    CLASS_TIMEOUT,
    CLASS_OURS
} error_class;

static const struct {
    int error;
    error_class kind;
    const char *text;
} table[] = {
    {ENOMEM, CLASS_MEMORY, "not enough memory"},
    {ESTALE, CLASS_GONE,
     "the segment is gone: its last owner has let go. Keep the array alive until it was received, or pass it on by value (isthmus.array(x))"},
    {EXDEV, CLASS_GONE, "the segment's process can't be reached from here. Pass the array itself, or its contents"},
    {EBUSY, CLASS_BUFFER, "the segment has other owners"},
    {EROFS, CLASS_BUFFER, "the segment's memory can't be made writable"},
    {EOVERFLOW, CLASS_OVERFLOW, "a counter would leave its range"},
    {ENOTRECOVERABLE, CLASS_DETACHED,
     "the memory belongs to the parent process; it was inherited through a fork that couldn't make it the child's too"},
    {EINVAL, CLASS_VALUE, "an argument makes no sense"},
    {ENOSPC, CLASS_MEMORY,
     "a table of the domain is full: segments that are known to other processes (isthmus.configure(max_published=…)), names (4,096), or "
     "pickles under way (1,048,576)"},
    {EUSERS, CLASS_MEMORY, "the domain has no room for another process (isthmus.configure(max_processes=…) in the process that makes it)"},
    {EMLINK, CLASS_MEMORY, "this process is in 64 domains already"},
    {EBADMSG, CLASS_OURS, "the domain's shared tables hold what can't be: some process wrote there"},
    {ETIMEDOUT, CLASS_TIMEOUT, "another process is stopped in the middle of such a call"},
    {ENOTUNIQ, CLASS_OURS, "several programs have published that name"},
};

static PyObject *class_of(core_state *state, error_class kind) {
    switch (kind) {
    case CLASS_MEMORY: return PyExc_MemoryError;
    case CLASS_GONE: return state->SegmentGoneError;
    case CLASS_BUFFER: return PyExc_BufferError;
    case CLASS_DETACHED: return state->DetachedError;
    case CLASS_VALUE: return PyExc_ValueError;
    case CLASS_OVERFLOW: return PyExc_OverflowError;
    case CLASS_TIMEOUT: return PyExc_TimeoutError;
    case CLASS_OURS: return state->Error;
    }
    return state->Error;
}

static PyObject *add_limit(PyObject *text, const char *name, const struct rlimit *limit) {
    if (text == NULL || limit->rlim_cur == RLIM_INFINITY)
        return text;
    PyObject *more = PyUnicode_FromFormat("%U; this process's %s is %llu bytes", text, name, (unsigned long long)limit->rlim_cur);
    Py_DECREF(text);
    return more;
}

/* What the process has been denied of address space and size of files, as that may be why; empty if it hasn't. */
static PyObject *limits_text(void) {
    struct rlimit space = {.rlim_cur = RLIM_INFINITY}, file = {.rlim_cur = RLIM_INFINITY};
    getrlimit(RLIMIT_AS, &space); /* a failure leaves no limit */
    getrlimit(RLIMIT_FSIZE, &file);
    return add_limit(add_limit(PyUnicode_FromString(""), "RLIMIT_AS", &space), "RLIMIT_FSIZE", &file);
}

static void set_error(core_state *state, int error, PyObject *what) {
    if (error == -ENOMEM) {
        PyObject *limits = limits_text();
        if (limits == NULL)
            return;
        size_t limit = ist_heap_size();
        if (limit != 0)
            PyErr_Format(PyExc_MemoryError, "%U: not enough memory; the heap's limit is %zu bytes (isthmus.configure, ISTHMUS_HEAP_SIZE)%U",
                         what, limit, limits);
        else
            PyErr_Format(PyExc_MemoryError, "%U: not enough memory for the heap%U", what, limits);
        Py_DECREF(limits);
        return;
    }
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].error == -error) {
            PyErr_Format(class_of(state, table[i].kind), "%U: %s", what, table[i].text);
            return;
        }
    }
    PyObject *text = PyUnicode_FromFormat("%U: %s", what, ist_strerror(error));
    PyObject *exception = text == NULL ? NULL : PyObject_CallFunction(PyExc_OSError, "iN", -error, text); /* FileExistsError and so on */
    if (exception != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_XDECREF(exception);
}

PyObject *raise_error(core_state *state, int error, const char *what_format, ...) {
    va_list arguments;
    va_start(arguments, what_format);
    PyObject *what = PyUnicode_FromFormatV(what_format, arguments);
    va_end(arguments);
    if (what != NULL) {
        set_error(state, error, what);
        Py_DECREF(what);
    }
    return NULL;
}
