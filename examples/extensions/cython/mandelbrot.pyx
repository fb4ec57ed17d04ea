# cython: language_level=3, boundscheck=False, wraparound=False, subinterpreters_compatible=own_gil
"""An extension module in Cython whose type shares memory by <isthmus/python.h>: a picture that several interpreters draw at once.

The payload is width × height bytes of isthmus's heap. An Image owns one reference of it; a message carries the payload by reference and the
two numbers, so that the Image which arrives draws into the same memory.
"""

from cpython.object cimport PyObject, PyTypeObject
from libc.string cimport memcpy

from isthmus_python cimport IST_ZERO, ist_python, ist_python_import, ist_reader, ist_segment, ist_writer

# One table for all interpreters of the process: the only C variable here that isn't an object's own. (Python objects in such variables
# would be shared between interpreters, which they can't be.)
cdef const ist_python *ist = ist_python_import()


cdef class Image:
    cdef ist_segment payload  # owned; all zero until __init__ has it: releasing that does nothing
    cdef readonly int width, height

    def __init__(self, int width, int height):
        cdef ist_segment payload
        if width <= 0 or height <= 0:
            raise ValueError(f"an image of {width} by {height}")
        cdef int error = ist.segment_create(<size_t>width * <size_t>height, IST_ZERO, &payload)
        if error:
            ist.raise_error(error, "an image")
        self._take(payload, width, height)

    cdef void _take(self, ist_segment payload, int width, int height) noexcept:
        ist.segment_release(self.payload)
        self.payload, self.width, self.height = payload, width, height

    def __dealloc__(self):
        ist.segment_release(self.payload)

    cdef int _check(self) except -1:
        if not self.width:
            raise ValueError("an Image without its __init__")
        return 0

    def array(self):
        """A SharedArray of the pixels, the same memory."""
        cdef Py_ssize_t[2] shape = [self.height, self.width]
        self._check()
        ist.segment_retain(self.payload)
        return new_reference(ist.array_from_segment(self.payload, "u1", 2, shape, False))

    def draw(self, int first, int last):
        """Rows first to last - 1: how soon each point leaves the circle of radius 2, at most 255."""
        cdef unsigned char *pixels
        cdef int row, column
        self._check()
        if not 0 <= first <= last <= self.height:
            raise IndexError(f"rows {first} to {last} of {self.height}")
        pixels = <unsigned char *>ist.segment_data(self.payload)
        for row in range(first, last):
            for column in range(self.width):
                pixels[<Py_ssize_t>row * self.width + column] = escape(3.0 * column / self.width - 2, 2.0 * row / self.height - 1)


cdef unsigned char escape(double re, double im) noexcept:
    cdef double x = 0, y = 0
    cdef int n = 0
    while n < 255 and x * x + y * y <= 4:
        x, y = x * x - y * y + re, 2 * x * y + im
        n += 1
    return n


cdef object new_reference(PyObject *owned):
    # Cython takes a PyObject * for borrowed and adds a reference of its own.
    result = <object>owned
    Py_DECREF(owned)
    return result


cdef extern from "Python.h":
    void Py_DECREF(PyObject *)
    PyObject *Py_NewRef(PyObject *)


# ---- structured clone

cdef int encode(PyObject *object, ist_writer *w) except -1:
    cdef Image self = <Image>object
    cdef int[2] size = [self.width, self.height]
    self._check()
    ist.put_segment(w, self.payload)
    return ist.put_bytes(w, size, sizeof(size))


cdef Image get(ist_reader *r):
    cdef ist_segment payload
    cdef const void *data
    cdef size_t length
    cdef int[2] size
    cdef Image self = Image.__new__(Image)
    ist.get_segment(r, &payload)
    self._take(payload, 0, 0)  # released with self, whatever comes next
    ist.get_bytes(r, &data, &length)
    if length != sizeof(size):
        raise ValueError(f"the size of an image has {sizeof(size)} bytes, not {length}")
    memcpy(size, data, sizeof(size))
    # A message may come from anywhere: two numbers that don't fit would have draw() write into other memory.
    if size[0] <= 0 or size[1] <= 0 or <size_t>size[0] * <size_t>size[1] != ist.segment_size(payload):
        raise ValueError(f"no image of {size[0]} by {size[1]} has {ist.segment_size(payload)} bytes")
    self.width, self.height = size[0], size[1]
    return self


cdef PyObject *decode(PyTypeObject *type, ist_reader *r) except NULL:
    image = get(r)
    return Py_NewRef(<PyObject *>image)


ist.register_type(<PyTypeObject *>Image, encode, decode)
