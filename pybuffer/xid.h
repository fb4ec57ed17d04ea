/* xid.h: what xid.c and the file of each signature family (xid_312.c, xid_314.c) share.
 *
 * CPython's cross-interpreter data is private API, exported on every version, whose struct has had the same five fields since 3.12. The
 * families differ in names and signatures. Each file declares what it calls itself, so that Py_BUILD_CORE isn't needed.
 */
#ifndef ISTHMUS_XID_H
#define ISTHMUS_XID_H

#include "core.h"

/* The newest version the tests ran on. On a newer one nothing is registered: a private struct may have changed, and a wrong guess
 * corrupts memory. Pickle, and from 3.14 memoryview, still carry arrays there. */
#define XID_NEWEST 0x030F0000
#if PY_VERSION_HEX >= 0x030C0000 && (PY_VERSION_HEX & 0xFFFF0000) <= XID_NEWEST
#  define XID_KNOWN 1
#else
#  define XID_KNOWN 0
#endif

#if XID_KNOWN
/* xid.c. `data` is the struct's field of that name: xid_send's result, NULL with an exception. */
void *xid_send(PyObject *object); /* an array, a handle, or a transfer, whose message it takes */
PyObject *xid_receive(void **data); /* always takes *data and sets it NULL */
void xid_free(void *data);          /* never received; plain C */

/* The family's file: tells CPython about the type, in the current interpreter. */
int xid_register_type(PyTypeObject *type);
#endif

#endif
