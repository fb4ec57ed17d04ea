/* errors.c: the one table that turns what libisthmus returns into exceptions.
 *
 * Relies on: nothing but the C API and the exception classes in the module state.
 * Inside the extension errors are negative errno; they become exceptions here and nowhere else, so that one cause has one class.
 */
#include "core.h"

typedef enum error_class { CLASS_MEMORY, CLASS_GONE, CLASS_BUFFER, CLASS_DETACHED, CLASS_VALUE, CLASS_OVERFLOW } error_class;

static const struct {
    int error;
    error_class kind;
    const char *text;
} table[] = {
    {ENOMEM, CLASS_MEMORY, "not enough memory"},
    {ESTALE, CLASS_GONE,
     "the segment is gone: its last owner has let go. Keep the array alive until it was received, or pass it on by value (isthmus.array(x))"},
    {EXDEV, CLASS_GONE,
     "the token was made in another process, or before a fork, and means nothing here. Pass the array itself, or its contents"},
    {EBUSY, CLASS_BUFFER, "the segment has other owners"},
    {EROFS, CLASS_BUFFER, "the segment's memory can't be made writable"},
    {EOVERFLOW, CLASS_OVERFLOW, "a counter would leave its range"},
    {ENOTRECOVERABLE, CLASS_DETACHED, "the memory belongs to the parent process; it was inherited through fork"},
    {EINVAL, CLASS_VALUE, "an argument makes no sense"},
};

static PyObject *class_of(core_state *state, error_class kind) {
    switch (kind) {
    case CLASS_MEMORY: return PyExc_MemoryError;
    case CLASS_GONE: return state->SegmentGoneError;
    case CLASS_BUFFER: return PyExc_BufferError;
    case CLASS_DETACHED: return state->DetachedError;
    case CLASS_VALUE: return PyExc_ValueError;
    case CLASS_OVERFLOW: return PyExc_OverflowError;
    }
    return state->Error;
}

static void set_error(core_state *state, int error, PyObject *what) {
    if (error == -ENOMEM) {
        size_t limit = ist_heap_size();
        if (limit != 0)
            PyErr_Format(PyExc_MemoryError, "%U: not enough memory; the heap's limit is %zu bytes (isthmus.configure, ISTHMUS_HEAP_SIZE)",
                         what, limit);
        else
            PyErr_Format(PyExc_MemoryError, "%U: not enough memory for the heap", what);
        return;
    }
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].error == -error) {
            PyErr_Format(class_of(state, table[i].kind), "%U: %s", what, table[i].text);
            return;
        }
    }
    PyErr_Format(PyExc_OSError, "%U: %s", what, ist_strerror(error));
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
