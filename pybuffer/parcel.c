/* parcel.c: packs what a call carries into memory that belongs to no interpreter, and unpacks it in the other one.
 *
 * Relies on: message.c for arrays and handles.
 *
 * Invariants (README.md, M1 and W5)
 *   every message in messages[0 .. count) that isn't NULL is owned by the parcel, so that in_flight is exact on every path
 *   error != NULL  =>  bytes and messages are empty
 */
#include "parcel.h"

#include "shareable.h"

#include <stdlib.h>
#include <string.h>

void parcel_clear(parcel *p) {
    for (Py_ssize_t i = 0; i < p->count; i++) {
        if (p->messages[i] != NULL)
            message_free(p->messages[i]);
    }
    free(p->messages);
    free(p->bytes);
    free(p->error);
    *p = (parcel){0};
}

static int parcel_pack_bytes(parcel *p, PyObject *payload) {
    Py_buffer view;
    if (PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE) < 0)
        return -1;
    p->bytes = malloc(view.len > 0 ? (size_t)view.len : 1);
    if (p->bytes != NULL && view.len > 0)
        memcpy(p->bytes, view.buf, (size_t)view.len);
    p->size = view.len;
    PyBuffer_Release(&view);
    if (p->bytes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static int parcel_pack_refs(core_state *state, parcel *p, PyObject *refs) {
    PyObject *fast = PySequence_Fast(refs, "refs must be a sequence of SharedArray and Queue");
    if (fast == NULL)
        return -1;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(fast);
    p->messages = calloc(count > 0 ? (size_t)count : 1, sizeof *p->messages);
    if (p->messages == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; p->messages != NULL && i < count; i++) {
        PyObject *ref = PySequence_Fast_GET_ITEM(fast, i);
        if (share_kind_of(state, Py_TYPE(ref)) < 0) {
            PyErr_Format(PyExc_TypeError, "refs[%zd] must be a SharedArray, Queue or the like, not %.200s", i, Py_TYPE(ref)->tp_name);
            break;
        }
        p->messages[i] = message_from_object(state, ref);
        if (p->messages[i] == NULL)
            break;
        p->count = i + 1;
    }
    Py_DECREF(fast);
    return PyErr_Occurred() ? -1 : 0;
}

int parcel_pack(core_state *state, parcel *p, PyObject *payload, PyObject *refs) {
    if (parcel_pack_bytes(p, payload) < 0)
        return -1;
    return refs != NULL ? parcel_pack_refs(state, p, refs) : 0;
}

PyObject *parcel_unpack(core_state *state, parcel *p) {
    PyObject *refs = PyTuple_New(p->count);
    if (refs == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < p->count; i++) {
        ist_message *message = p->messages[i];
        p->messages[i] = NULL; /* taken, whatever comes */
        PyObject *ref = message_receive(state, message);
        if (ref == NULL) {
            Py_DECREF(refs);
            return NULL;
        }
        PyTuple_SET_ITEM(refs, i, ref);
    }
    return Py_BuildValue("y#N", p->bytes, p->size, refs);
}

static char *text_of_bytes(PyObject *bytes) { return bytes != NULL ? strdup(PyBytes_AS_STRING(bytes)) : NULL; }

/* The traceback as Python would print it; of the type alone if formatting fails too (no memory, or one more SystemExit). */
static char *format_exception(PyObject *exception) {
    PyObject *lines = NULL, *empty = PyUnicode_FromString(""), *text = NULL, *bytes = NULL;
    PyObject *traceback = PyImport_ImportModule("traceback");
    if (traceback != NULL && empty != NULL)
        lines = PyObject_CallMethod(traceback, "format_exception", "O", exception);
    if (lines != NULL)
        text = PyUnicode_Join(empty, lines);
    if (text != NULL)
        bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
    char *result = bytes != NULL ? text_of_bytes(bytes) : strdup(Py_TYPE(exception)->tp_name);
    PyErr_Clear();
    Py_XDECREF(bytes);
    Py_XDECREF(text);
    Py_XDECREF(lines);
    Py_XDECREF(empty);
    Py_XDECREF(traceback);
    return result;
}

void parcel_pack_exception(parcel *p) {
    PyObject *exception = PyErr_GetRaisedException();
    parcel_clear(p);
    p->error = exception != NULL ? format_exception(exception) : NULL;
    if (p->error == NULL)
        p->error = strdup("an exception that couldn't be told");
    Py_XDECREF(exception);
}
