/* parcel.h: what a call of a worker interpreter carries, either way. malloc'd bytes, messages and text: no object, no memory of an
 * interpreter's allocator, so that any thread may clear it without a GIL. */
#ifndef ISTHMUS_PARCEL_H
#define ISTHMUS_PARCEL_H

#include "core.h"

typedef struct parcel {
    char *bytes;
    Py_ssize_t size;
    ist_message **messages; /* each owned, until taken and set NULL */
    Py_ssize_t count;
    char *error;            /* UTF-8; then the rest is empty */
} parcel;

/* Frees what is in it and empties it. Plain C. */
void parcel_clear(parcel *p);
/* From a buffer and a sequence of arrays (NULL: none) into an empty parcel. -1 with an exception: the caller clears what was packed. */
int parcel_pack(core_state *state, parcel *p, PyObject *payload, PyObject *refs);
/* (bytes, tuple of arrays), NULL with an exception. Takes messages; the caller clears the parcel either way. */
PyObject *parcel_unpack(core_state *state, parcel *p);
/* Clears the parcel, then turns the exception that is set into its error: the traceback as Python would print it. */
void parcel_pack_exception(parcel *p);

#endif
