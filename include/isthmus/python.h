/* <isthmus/python.h>: for extension modules whose own types shall share memory as SharedArray does: between interpreters of a process,
 * between processes, through isthmus's queues and pools. May change until 1.0.
 *
 * Nothing to link: the functions are in a table that ist_python_import() finds at run time. Of isthmus only this header is needed to build
 * (isthmus.get_include()).
 *
 * A shareable type has two layers. The lower one is a *payload*: bytes without any PyObject, in a segment, counted across interpreters;
 * made by segment_create in isthmus's heap, or by segment_wrap with the type's own destructor. The upper one is the type's PyObject, one in
 * each interpreter that has one, which owns a reference of the payload and gives it up when it is deallocated. Structured clone makes a new
 * upper object over the same payload where a message arrives, by two functions of the type:
 *
 *     static int encode(PyObject *self, ist_writer *w) {                  // what of it travels
 *         const ist_python *ist = ...;
 *         return ist->put_segment(w, ((column *)self)->payload) < 0 ? -1 : ist->put_bytes(w, &((column *)self)->scale, sizeof(int));
 *     }
 *     static PyObject *decode(PyTypeObject *type, ist_reader *r) {         // the same in the same order
 *         ist_segment payload;
 *         if (ist->get_segment(r, &payload) < 0) return NULL;             // owned: release it on a later error
 *         ...
 *     }
 *     static int exec(PyObject *module) {                                  // Py_mod_exec: of each interpreter
 *         const ist_python *ist = ist_python_import();
 *         return ist == NULL ? -1 : ist->register_type(state->column_type, encode, decode);
 *     }
 *
 * Ownership: as in <isthmus/segment.h>: an ist_segment is a handle; "owned" means that it stands for one reference. Python objects are
 *   returned as new references, and parameters borrowed, unless it says otherwise.
 * On failure: functions that return an object give NULL, the others -1, with an exception set (those of segments: a negative errno, and
 *   none); nothing has happened then, but for parameters that are taken.
 * Threads, interpreters: those of segments as <isthmus/segment.h> says: any thread, no GIL. All others under the GIL of an interpreter that
 *   has imported isthmus. The table is the same in all interpreters of a process and lives as long as the process.
 */
#ifndef ISTHMUS_PYTHON_H
#define ISTHMUS_PYTHON_H

#include <Python.h>
#include <isthmus/segment.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IST_PYTHON_CAPSULE "isthmus._core._C_API"
/* Moves on when a function changes its meaning. New functions come at the table's end, and are there if `bytes` reaches them. */
#define IST_PYTHON_VERSION 1u
#define IST_PYTHON_NDIM 64

/* What a SharedArray is at the moment. Owns nothing: `segment`, `data` and `dtype` are good as long as the array lives and isn't released.
 * Whoever runs Python code meanwhile, or lets go of the GIL, holds a Py_buffer of it, or retains. */
typedef struct ist_array_view {
    ist_segment segment;
    void *data; /* its first element, that with index 0 in every axis */
    const char *dtype; /* of the elements, in numpy's words: "<f8"; with fields as exchange.h has it */
    Py_ssize_t nbytes, itemsize;
    int ndim;
    bool readonly; /* not to be written by this handle */
    Py_ssize_t shape[IST_PYTHON_NDIM], strides[IST_PYTHON_NDIM];
} ist_array_view;

typedef struct ist_writer ist_writer; /* an object on its way into a message */
typedef struct ist_reader ist_reader; /* and out of one */

/* Puts what an instance consists of. It may run Python code, and is called once for each message that the instance is in. */
typedef int (*ist_encode_fn)(PyObject *object, ist_writer *w);
/* A new instance of what was put. The message may come from anywhere, so what is got may be anything: every number has to be checked. */
typedef PyObject *(*ist_decode_fn)(PyTypeObject *type, ist_reader *r);

typedef struct ist_python {
    uint32_t version; /* IST_PYTHON_VERSION of the isthmus that is running */
    uint32_t bytes; /* of its table */

    /* As in <isthmus/segment.h>. */
    int (*segment_create)(size_t size, uint32_t flags, ist_segment *out);
    int (*segment_wrap)(void *data, size_t size, ist_free_fn free, void *ctx, uint32_t flags, ist_segment *out);
    void (*segment_retain)(ist_segment s);
    void (*segment_release)(ist_segment s);
    void *(*segment_data)(ist_segment s);
    size_t (*segment_size)(ist_segment s);

    /* The exception of a negative errno that those returned; always NULL. `what` is said in its text: "a column of 5 numbers". */
    PyObject *(*raise_error)(int error, const char *what);

    /* A SharedArray over a segment, whose reference is taken, also on failure. dtype: in numpy's words; NULL: "u1". shape NULL: all of the
     * segment along one axis, and ndim doesn't count; else in C order from the segment's first byte. readonly: this handle can't write.
     * ValueError if the segment is too short, or no multiple of an element; what isthmus.dtype raises. */
    PyObject *(*array_from_segment)(ist_segment segment, const char *dtype, int ndim, const Py_ssize_t *shape, bool readonly);
    int (*is_array)(PyObject *object); /* whether it is a SharedArray; never fails */
    /* TypeError if it is none; DetachedError if it was released. */
    int (*array_view)(PyObject *array, ist_array_view *out);
    int (*array_retain)(PyObject *array, ist_segment *out); /* its segment, owned; errors as above */

    /* How instances of exactly this class are cloned: as isthmus.register_type(), from C, for the interpreter that calls it. A type is
     * known in messages by its __module__ and __qualname__. ValueError for types that isthmus clones itself. */
    int (*register_type)(PyTypeObject *type, ist_encode_fn encode, ist_decode_fn decode);

    /* For encode functions. */
    int (*put_bytes)(ist_writer *w, const void *data, size_t size); /* copied */
    int (*put_segment)(ist_writer *w, ist_segment segment); /* by reference: the message owns one of its own */
    int (*put_object)(ist_writer *w, PyObject *object); /* whatever can be cloned */
    /* For decode functions: what was put, in that order; CloneError if something else comes next. Once decode has returned nothing may be
     * left. */
    int (*get_bytes)(ist_reader *r, const void **data, size_t *size); /* lives until decode returns */
    int (*get_segment)(ist_reader *r, ist_segment *out); /* owned */
    PyObject *(*get_object)(ist_reader *r);
} ist_python;

/* The table of the isthmus that this interpreter has, which is imported; to be kept in the module's state. ImportError where isthmus isn't
 * installed, or is older than this header. */
static inline const ist_python *ist_python_import(void) {
    const ist_python *table = (const ist_python *)PyCapsule_Import(IST_PYTHON_CAPSULE, 0);
    if (table == NULL || (table->version == IST_PYTHON_VERSION && table->bytes >= sizeof *table))
        return table;
    PyErr_Format(PyExc_ImportError,
                 "this module needs version %u of isthmus's C functions (%zu bytes); the isthmus here has version %u (%u bytes)",
                 IST_PYTHON_VERSION, sizeof *table, (unsigned)table->version, (unsigned)table->bytes);
    return NULL;
}

#ifdef __cplusplus
}
#endif
#endif
