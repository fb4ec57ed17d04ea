/* xid.c: CPython's own carriers (concurrent.interpreters' queues and calls, 3.12's channels, 3.13's queues) take arrays and handles by reference.
 *
 * Relies on: the registry of cross-interpreter data, per interpreter for heap types, looked up by exact type. It holds the type by a weak
 * reference and is cleared with the interpreter (read in the sources of 3.12 to 3.15), so that nothing has to be unregistered.
 *
 * Invariants (README.md, X1 to X3)
 *   the field `data` owns one message from xid_send to the first of: xid_receive (which always takes it, sets data = NULL, and frees it on
 *     failure), xid_free (never received: the queue or its sender ended)
 *   the field `obj` is NULL, and `data` is NULL after delivery, so that CPython makes no pending call in the sender: the queue of those
 *     overflows silently, and an idle sender never runs them
 */
#include "xid.h"

#include <stdlib.h>
#include <string.h>

#if XID_KNOWN

void *xid_send(PyObject *object) { /* of a registered type, of this interpreter */
    return message_from_object((core_state *)PyType_GetModuleState(Py_TYPE(object)), object);
}

void xid_free(void *data) { message_free(data); }

/* In the receiver, which may never have imported isthmus. */
PyObject *xid_receive(void **data) {
    ist_message *message = *data;
    *data = NULL;
    PyObject *module = module_of_interpreter();
    if (module == NULL) {
        if (message != NULL)
            message_free(message);
        return NULL;
    }
    PyObject *received = NULL;
    core_state *state = state_of_module(module);
    if (message != NULL)
        received = message_receive(state, message);
    else
        PyErr_SetString(state->SegmentGoneError,
                        "this message was received before, and what it had belongs to that receiver: send it again");
    Py_DECREF(module);
    return received;
}

static bool is_off(void) {
    const char *wanted = getenv("ISTHMUS_XIDATA");
    return wanted != NULL && strcmp(wanted, "0") == 0;
}

const char *xid_describe(void) {
    return is_off() ? "off: ISTHMUS_XIDATA=0" : "on: CPython's own queues and calls take arrays by reference";
}

int xid_register(core_state *state) {
    if (is_off())
        return 0;
    for (int i = SHARE_ARRAY + 1; i < SHARE_KINDS; i++)
        if (xid_register_type(state->handle_types[i]) < 0)
            return -1;
    return xid_register_type(state->array_type) < 0 ? -1 : xid_register_type(state->transfer_type);
}

#else

const char *xid_describe(void) { return "off: its interface in this version of Python isn't known"; }

int xid_register(core_state *state) {
    (void)state;
    return 0;
}

#endif
