# What of <isthmus/python.h> this example uses; the header says what each of them takes, owns and raises.
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint32_t


cdef extern from "isthmus/python.h":
    ctypedef struct ist_segment:
        pass

    ctypedef struct ist_writer:
        pass

    ctypedef struct ist_reader:
        pass

    uint32_t IST_ZERO

    # `except -1`, `except NULL`: these set an exception. Those of segments don't, and return a negative errno.
    ctypedef int (*ist_encode_fn)(PyObject *object, ist_writer *w) except -1
    ctypedef PyObject *(*ist_decode_fn)(PyTypeObject *type, ist_reader *r) except NULL

    ctypedef struct ist_python:
        int (*segment_create)(size_t size, uint32_t flags, ist_segment *out) noexcept
        void (*segment_retain)(ist_segment s) noexcept
        void (*segment_release)(ist_segment s) noexcept
        void *(*segment_data)(ist_segment s) noexcept
        size_t (*segment_size)(ist_segment s) noexcept
        PyObject *(*raise_error)(int error, const char *what) except NULL
        PyObject *(*array_from_segment)(ist_segment s, const char *dtype, int ndim, const Py_ssize_t *shape, bint readonly) except NULL
        int (*register_type)(PyTypeObject *type, ist_encode_fn encode, ist_decode_fn decode) except -1
        int (*put_bytes)(ist_writer *w, const void *data, size_t size) except -1
        int (*put_segment)(ist_writer *w, ist_segment segment) except -1
        int (*get_bytes)(ist_reader *r, const void **data, size_t *size) except -1
        int (*get_segment)(ist_reader *r, ist_segment *out) except -1

    const ist_python *ist_python_import() except NULL
