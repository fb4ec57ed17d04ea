/* debug.c: a table from owner to the lines of Python where it was made.
 *
 * The table is the process's, with a lock, and its memory is malloc's: owners are taken out of it by whatever thread, also where no
 * interpreter is left. Only used with ISTHMUS_DEBUG=1; otherwise each function is a look at a flag.
 *
 * After fork the child has a copy, and its lock is free.
 */
#include "debug.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define FRAMES 10
#define TEXT 2048
#define BUCKETS 4096

typedef struct made {
    struct made *next;
    const void *owner;
    char text[];
} made;

static made *buckets[BUCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool on;

static void lock_it(void) { pthread_mutex_lock(&lock); }
static void unlock_it(void) { pthread_mutex_unlock(&lock); }

static void look(void) {
    const char *text = getenv("ISTHMUS_DEBUG");
    on = text != NULL && text[0] != '\0' && strcmp(text, "0") != 0;
    if (on)
        pthread_atfork(lock_it, unlock_it, unlock_it);
}

bool debug_is_on(void) {
    pthread_once(&once, look);
    return on;
}

static made **bucket_of(const void *owner) {
    const uintptr_t address = (uintptr_t)owner;
    return &buckets[(address >> 4 ^ address >> 16) % BUCKETS];
}

/* Writes as much as fits; how many bytes it has now. */
static size_t append(char *text, size_t used, const char *format, const char *file, int line, const char *function) {
    const int n = snprintf(text + used, TEXT - used, format, file, line, function);
    return n < 0 ? used : used + (size_t)n < TEXT ? used + (size_t)n : TEXT - 1;
}

static const char *attribute(PyObject *code, const char *name, PyObject **keeps) {
    *keeps = PyObject_GetAttrString(code, name);
    const char *text = *keeps == NULL ? NULL : PyUnicode_AsUTF8(*keeps);
    if (text == NULL)
        PyErr_Clear();
    return text == NULL ? "?" : text;
}

static size_t append_frame(char *text, size_t used, PyFrameObject *frame) {
    PyObject *code = (PyObject *)PyFrame_GetCode(frame), *file, *name;
    const char *file_text = attribute(code, "co_filename", &file), *name_text = attribute(code, "co_qualname", &name);
    used = append(text, used, "    File \"%s\", line %d, in %s\n", file_text, PyFrame_GetLineNumber(frame), name_text);
    Py_XDECREF(file);
    Py_XDECREF(name);
    Py_DECREF(code);
    return used;
}

/* The lines that are being executed, the innermost first. */
static size_t describe_stack(char text[TEXT]) {
    PyFrameObject *frame = PyEval_GetFrame(); /* borrowed */
    size_t used = 0;
    text[0] = '\0';
    Py_XINCREF((PyObject *)frame);
    for (int i = 0; frame != NULL && i < FRAMES; i++) {
        used = append_frame(text, used, frame);
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF((PyObject *)frame);
        frame = back;
    }
    Py_XDECREF((PyObject *)frame);
    return used;
}

void debug_made(const void *owner) {
    if (!debug_is_on())
        return;
    PyObject *raised = PyErr_GetRaisedException();
    char text[TEXT];
    const size_t size = describe_stack(text);
    PyErr_SetRaisedException(raised);
    made *m = malloc(sizeof *m + size + 1);
    if (m == NULL)
        return;
    memcpy(m->text, text, size + 1);
    m->owner = owner;
    lock_it();
    m->next = *bucket_of(owner);
    *bucket_of(owner) = m;
    unlock_it();
}

/* Taken out; NULL: it isn't in the table. */
static made *take(const void *owner) {
    made *found = NULL;
    lock_it();
    for (made **link = bucket_of(owner); *link != NULL && found == NULL; link = found == NULL ? &(*link)->next : link)
        if ((*link)->owner == owner) {
            found = *link;
            *link = found->next;
        }
    unlock_it();
    return found;
}

void debug_gone(const void *owner) {
    if (debug_is_on())
        free(take(owner));
}

void debug_report(const void *owner, const char *type, ist_segment segment, int64_t interpreter, bool first) {
    if (!debug_is_on())
        return;
    if (first)
        fprintf(stderr, "isthmus: interpreter %lld ends, and what it made is left behind:\n", (long long)interpreter);
    made *m = take(owner);
    fprintf(stderr, "  %s, segment %u.%u, made at\n%s", type, segment.index, segment.generation,
            m == NULL || m->text[0] == '\0' ? "    an unknown place\n" : m->text);
    free(m);
}
