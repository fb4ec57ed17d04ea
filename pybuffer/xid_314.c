/* xid_314.c: cross-interpreter data as Python 3.14 and 3.15 have it, in an internal header. */
#include "xid.h"

#if XID_KNOWN && PY_VERSION_HEX >= 0x030E0000

typedef struct _xidata _PyXIData_t;
struct _xidata {
    void *data;
    PyObject *obj;
    int64_t interpid;
    PyObject *(*new_object)(_PyXIData_t *);
    void (*free)(void *);
};
typedef struct {
    int (*basic)(PyThreadState *, PyObject *, _PyXIData_t *);
    int (*fallback)(PyThreadState *, PyObject *, int, _PyXIData_t *); /* for containers, which convert what they hold */
} _PyXIData_getdata_t;
PyAPI_FUNC(void) _PyXIData_Init(_PyXIData_t *, PyInterpreterState *, void *, PyObject *, PyObject *(*)(_PyXIData_t *));
PyAPI_FUNC(int) _PyXIData_RegisterClass(PyThreadState *, PyTypeObject *, _PyXIData_getdata_t);

static PyObject *new_object(_PyXIData_t *message) { return xid_receive(&message->data); }

static int getdata(PyThreadState *tstate, PyObject *array, _PyXIData_t *out) {
    void *data = xid_send(array);
    if (data == NULL)
        return -1;
    _PyXIData_Init(out, PyThreadState_GetInterpreter(tstate), data, NULL, new_object);
    out->free = xid_free;
    return 0;
}

int xid_register_type(PyTypeObject *type) {
    return _PyXIData_RegisterClass(PyThreadState_Get(), type, (_PyXIData_getdata_t){.basic = getdata, .fallback = NULL});
}

#endif
