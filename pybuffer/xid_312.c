/* xid_312.c: cross-interpreter data as Python 3.12 and 3.13 have it. 3.12 declares it in its public headers, 3.13 in an internal one. */
#include "xid.h"

#if XID_KNOWN && PY_VERSION_HEX < 0x030E0000

#  if PY_VERSION_HEX >= 0x030D0000
typedef struct _xid _PyCrossInterpreterData;
struct _xid {
    void *data;
    PyObject *obj;
    int64_t interpid;
    PyObject *(*new_object)(_PyCrossInterpreterData *);
    void (*free)(void *);
};
PyAPI_FUNC(void) _PyCrossInterpreterData_Init(_PyCrossInterpreterData *, PyInterpreterState *, void *, PyObject *,
                                              PyObject *(*)(_PyCrossInterpreterData *));
PyAPI_FUNC(int) _PyCrossInterpreterData_RegisterClass(PyTypeObject *, int (*)(PyThreadState *, PyObject *, _PyCrossInterpreterData *));
#  endif

static PyObject *new_object(_PyCrossInterpreterData *message) { return xid_receive(&message->data); }

static int getdata(PyThreadState *tstate, PyObject *array, _PyCrossInterpreterData *out) {
    void *data = xid_send(array);
    if (data == NULL)
        return -1;
    _PyCrossInterpreterData_Init(out, PyThreadState_GetInterpreter(tstate), data, NULL, new_object);
    out->free = xid_free;
    return 0;
}

int xid_register_type(PyTypeObject *type) { return _PyCrossInterpreterData_RegisterClass(type, getdata); }

#endif
