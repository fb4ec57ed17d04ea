/* shape.c: shapes from Python and back, and the views that only look at the same elements in another way: transpose, reshape, ravel, view, cast.
 *
 * Relies on: array_new_view, which holds the root and refuses a released handle.
 * Invariant: every view's elements lie inside its base's. Bounds are never widened here, so they needn't be checked against the segment.
 */
#include "dtype.h"

/* ---- shapes -------------------------------------------------------------------------------------------------------------------- */

static int parse_length(PyObject *item, Py_ssize_t *length, bool unknown) {
    PyObject *integer = PyNumber_Index(item);
    if (integer == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "a shape is an int or a sequence of ints, not %R", item);
        return -1;
    }
    Py_ssize_t n = PyLong_AsSsize_t(integer);
    if (n == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "a length of %R is beyond what an array can have", integer);
        Py_DECREF(integer);
        return -1;
    }
    Py_DECREF(integer);
    if (n < 0 && !(unknown && n == -1)) {
        PyErr_Format(PyExc_ValueError, "negative dimensions are not allowed: %zd", n);
        return -1;
    }
    *length = n;
    return 0;
}

int parse_shape(PyObject *object, Py_ssize_t *shape, bool unknown) {
    if (PyIndex_Check(object))
        return parse_length(object, &shape[0], unknown) < 0 ? -1 : 1;
    if (!PySequence_Check(object) || PyUnicode_Check(object) || PyBytes_Check(object)) {
        PyErr_Format(PyExc_TypeError, "a shape is an int or a sequence of ints, not %R", object);
        return -1;
    }
    PyObject *items = PySequence_Tuple(object); /* a list could change while an __index__ runs */
    if (items == NULL)
        return -1;
    Py_ssize_t ndim = PyTuple_GET_SIZE(items);
    if (ndim > IST_MAX_NDIM) {
        PyErr_Format(PyExc_ValueError, "maximum supported dimension for an array is %d, found %zd", IST_MAX_NDIM, ndim);
        ndim = -1;
    }
    for (Py_ssize_t i = 0; i < ndim; i++) {
        if (parse_length(PyTuple_GET_ITEM(items, i), &shape[i], unknown) < 0) {
            ndim = -1;
            break;
        }
    }
    Py_DECREF(items);
    return (int)ndim;
}

Py_ssize_t shape_bytes(int ndim, const Py_ssize_t *shape, Py_ssize_t itemsize) {
    Py_ssize_t nbytes = itemsize;
    bool empty = false, overflow = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] == 0)
            empty = true;
        else
            overflow |= __builtin_mul_overflow(nbytes, shape[i], &nbytes);
    }
    if (!overflow)
        return empty ? 0 : nbytes;
    PyObject *tuple = shape_tuple(ndim, shape);
    if (tuple != NULL) {
        PyErr_Format(PyExc_ValueError, "array is too big: shape %R of %zd-byte elements is beyond the address space", tuple, itemsize);
        Py_DECREF(tuple);
    }
    return -1;
}

int spread(core_state *state, DTypeObject **dtype, int *ndim, Py_ssize_t *shape) {
    DTypeObject *d = *dtype;
    if (d->code >= IST_BYTES && d->code <= IST_VOID && d->itemsize == 0) {
        *dtype = dtype_of_length(state, d->code, 1, d->swapped);
        Py_DECREF((PyObject *)d);
        return *dtype == NULL ? -1 : 0;
    }
    if (d->code == IST_SUBARRAY) {
        if (*ndim + d->sub_ndim > IST_MAX_NDIM) {
            PyErr_Format(PyExc_ValueError, "maximum supported dimension for an array is %d, found %d", IST_MAX_NDIM, *ndim + d->sub_ndim);
            return -1;
        }
        memcpy(shape + *ndim, d->sub_shape, (size_t)d->sub_ndim * sizeof *shape);
        *ndim += d->sub_ndim;
        *dtype = dtype_ref(d->base);
        Py_DECREF((PyObject *)d);
    }
    if ((*dtype)->itemsize > 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "an array's elements have at least one byte: %R", *dtype);
    return -1;
}

PyObject *shape_tuple(int ndim, const Py_ssize_t *values) {
    PyObject *tuple = PyTuple_New(ndim);
    for (int i = 0; tuple != NULL && i < ndim; i++) {
        PyObject *value = PyLong_FromSsize_t(values[i]);
        if (value == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, value);
    }
    return tuple;
}

/* The arguments of f(*shape) and f(shape) alike. */
static int parse_shape_arguments(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t *shape, bool unknown) {
    if (nargs == 1)
        return parse_shape(args[0], shape, unknown);
    PyObject *tuple = PyTuple_New(nargs);
    if (tuple == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < nargs; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    int ndim = parse_shape(tuple, shape, unknown);
    Py_DECREF(tuple);
    return ndim;
}

/* ---- transpose ----------------------------------------------------------------------------------------------------------------- */

static PyObject *permuted(SharedArrayObject *a, const int *axes) {
    Py_ssize_t shape[IST_MAX_NDIM], strides[IST_MAX_NDIM];
    for (int i = 0; i < a->ndim; i++) {
        shape[i] = ARRAY_SHAPE(a)[axes[i]];
        strides[i] = ARRAY_STRIDES(a)[axes[i]];
    }
    return (PyObject *)array_new_view(a, a->dtype, a->ndim, shape, strides, a->data, 0);
}

PyObject *array_transposed(SharedArrayObject *a) {
    int axes[IST_MAX_NDIM];
    for (int i = 0; i < a->ndim; i++)
        axes[i] = a->ndim - 1 - i;
    return permuted(a, axes);
}

static int parse_axis(PyObject *item, int ndim) {
    Py_ssize_t axis = PyNumber_AsSsize_t(item, NULL);
    if (axis == -1 && PyErr_Occurred())
        return -1;
    if (axis < -ndim || axis >= ndim) {
        PyErr_Format(PyExc_ValueError, "axis %zd is out of bounds for array of dimension %d", axis, ndim);
        return -1;
    }
    return (int)(axis < 0 ? axis + ndim : axis);
}

static PyObject *array_transpose(PyObject *self, PyObject *args) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return now_call(array_transpose, self, args);
    Py_ssize_t n = PyTuple_GET_SIZE(args);
    if (n == 0 || (n == 1 && PyTuple_GET_ITEM(args, 0) == Py_None))
        return array_transposed(a);
    bool nested = n == 1 && !PyIndex_Check(PyTuple_GET_ITEM(args, 0));
    PyObject *items = nested ? PySequence_Tuple(PyTuple_GET_ITEM(args, 0)) : Py_NewRef(args);
    if (items == NULL)
        return NULL;
    PyObject *result = NULL;
    int axes[IST_MAX_NDIM];
    uint64_t seen = 0;
    n = PyTuple_GET_SIZE(items);
    if (n != a->ndim) {
        PyErr_Format(PyExc_ValueError, "axes %R don't match array of dimension %d", items, a->ndim);
        goto done;
    }
    for (int i = 0; i < a->ndim; i++) {
        axes[i] = parse_axis(PyTuple_GET_ITEM(items, i), a->ndim);
        if (axes[i] < 0)
            goto done;
        if (seen >> axes[i] & 1) {
            PyErr_Format(PyExc_ValueError, "repeated axis %d in transpose", axes[i]);
            goto done;
        }
        seen |= UINT64_C(1) << axes[i];
    }
    result = permuted(a, axes);
done:
    Py_DECREF(items);
    return result;
}

/* ---- reshape and ravel --------------------------------------------------------------------------------------------------------- */

static int raise_cannot_reshape(Py_ssize_t size, int ndim, const Py_ssize_t *shape) {
    PyObject *tuple = shape_tuple(ndim, shape);
    if (tuple != NULL) {
        PyErr_Format(PyExc_ValueError, "cannot reshape array of size %zd into shape %R", size, tuple);
        Py_DECREF(tuple);
    }
    return -1;
}

/* Puts what -1 stands for in its place and checks that the number of elements stays. */
static int resolve_shape(Py_ssize_t size, int ndim, Py_ssize_t *shape) {
    int unknown = -1;
    Py_ssize_t known = 1;
    bool overflow = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] >= 0) {
            overflow |= __builtin_mul_overflow(known, shape[i], &known);
        } else if (unknown >= 0) {
            PyErr_SetString(PyExc_ValueError, "can only specify one unknown dimension (-1)");
            return -1;
        } else {
            unknown = i;
        }
    }
    if (overflow)
        return raise_cannot_reshape(size, ndim, shape);
    if (unknown < 0)
        return known == size ? 0 : raise_cannot_reshape(size, ndim, shape);
    if (known == 0 || size % known != 0)
        return raise_cannot_reshape(size, ndim, shape);
    shape[unknown] = size / known;
    return 0;
}

/* Strides with which `ndim`, `shape` shows the array's elements in the same C order without a copy; false if there are none.
 * Goes through both shapes in groups of equal numbers of elements: each group of the old one must be one run. */
static bool reshape_strides(SharedArrayObject *a, int ndim, const Py_ssize_t *shape, Py_ssize_t *strides) {
    if (a->nbytes == 0 || (array_flags(a) & ARRAY_C_CONTIGUOUS)) {
        fill_c_strides(ndim, shape, a->dtype->itemsize, strides);
        return true;
    }
    Py_ssize_t lengths[IST_MAX_NDIM], steps[IST_MAX_NDIM];
    int n = 0;
    for (int i = 0; i < a->ndim; i++) {
        if (ARRAY_SHAPE(a)[i] != 1) {
            lengths[n] = ARRAY_SHAPE(a)[i];
            steps[n++] = ARRAY_STRIDES(a)[i];
        }
    }
    int i = 0, j = 0;
    while (i < n) {
        int i_end = i + 1, j_end = j + 1;
        Py_ssize_t old = lengths[i], new = shape[j];
        while (old != new) {
            if (old < new) {
                if (steps[i_end - 1] != steps[i_end] * lengths[i_end])
                    return false;
                old *= lengths[i_end++];
            } else {
                new *= shape[j_end++];
            }
        }
        Py_ssize_t step = steps[i_end - 1];
        for (int k = j_end - 1; k >= j; k--) {
            strides[k] = step;
            step *= shape[k];
        }
        i = i_end;
        j = j_end;
    }
    for (; j < ndim; j++) /* what is left has one element each */
        strides[j] = a->dtype->itemsize;
    return true;
}

static PyObject *reshaped_copy(SharedArrayObject *a, int ndim, const Py_ssize_t *shape) {
    if (hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    SharedArrayObject *copy = array_create(state_of(a), a->dtype, ndim, shape, 0);
    if (copy != NULL) {
        Py_ssize_t strides[IST_MAX_NDIM];
        fill_c_strides(a->ndim, ARRAY_SHAPE(a), a->dtype->itemsize, strides);
        strided from = strided_of(a), to = {a->dtype, copy->data, a->ndim, ARRAY_SHAPE(a), strides};
        if (copy_items(&to, &from) < 0)
            Py_CLEAR(copy);
        else
            ist_count_copied((size_t)copy->nbytes);
    }
    hold_leave(a, HOLD_SHARED);
    return (PyObject *)copy;
}

/* `copy`: None only if needed, True always, False never. 0 None, 1 True, -1 False; -2 with an exception. */
static int parse_copy(PyObject *copy) {
    if (copy == NULL || copy == Py_None)
        return 0;
    int truth = PyObject_IsTrue(copy);
    return truth < 0 ? -2 : truth ? 1 : -1;
}

static PyObject *reshape(SharedArrayObject *a, int ndim, const Py_ssize_t *shape, PyObject *copy_object) {
    int copy = parse_copy(copy_object);
    if (copy == -2)
        return NULL;
    Py_ssize_t strides[IST_MAX_NDIM];
    if (copy <= 0 && reshape_strides(a, ndim, shape, strides))
        return (PyObject *)array_new_view(a, a->dtype, ndim, shape, strides, a->data, 0);
    if (copy < 0) {
        PyErr_SetString(PyExc_ValueError, "copy=False, but the elements in the new shape don't lie at regular distances: it would copy");
        return NULL;
    }
    return reshaped_copy(a, ndim, shape);
}

static PyObject *array_reshape(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"copy"};
    static const signature keywords = {"reshape", 1, 0, 0, names};
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return now_call_keywords(array_reshape, self, args, nargs, kwnames);
    PyObject *copy;
    Py_ssize_t shape[IST_MAX_NDIM];
    if (array_check(a) < 0 || bind_arguments(&keywords, args + nargs, 0, kwnames, &copy) < 0)
        return NULL;
    if (nargs == 0) {
        PyErr_SetString(PyExc_TypeError, "reshape() missing the shape");
        return NULL;
    }
    int ndim = parse_shape_arguments(args, nargs, shape, true);
    if (ndim < 0 || resolve_shape(array_size(a), ndim, shape) < 0)
        return NULL;
    return reshape(a, ndim, shape, copy);
}

static PyObject *array_ravel(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"copy"};
    static const signature keywords = {"ravel", 1, 0, 0, names};
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return now_call_keywords(array_ravel, self, args, nargs, kwnames);
    PyObject *copy;
    if (array_check(a) < 0 || bind_arguments(&keywords, args, nargs, kwnames, &copy) < 0)
        return NULL;
    Py_ssize_t size = array_size(a);
    return reshape(a, 1, &size, copy);
}

/* ---- view and cast ------------------------------------------------------------------------------------------------------------- */

static PyObject *array_view(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"dtype"};
    static const signature parameters = {"view", 1, 1, 0, names};
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return now_call_keywords(array_view, self, args, nargs, kwnames);
    PyObject *spec;
    if (array_check(a) < 0 || bind_arguments(&parameters, args, nargs, kwnames, &spec) < 0)
        return NULL;
    if (spec == NULL)
        return (PyObject *)array_new_view(a, a->dtype, a->ndim, ARRAY_SHAPE(a), ARRAY_STRIDES(a), a->data, 0);
    DTypeObject *dtype = dtype_from_object(state_of(a), spec);
    if (dtype == NULL)
        return NULL;
    if (dtype->itemsize == 0 || dtype->code == IST_SUBARRAY) {
        PyErr_Format(PyExc_ValueError, "%R %s", dtype,
                     dtype->code == IST_SUBARRAY ? "isn't what elements are; view the base dtype and reshape" : "has no length");
        Py_DECREF((PyObject *)dtype);
        return NULL;
    }
    PyObject *view = NULL;
    Py_ssize_t shape[IST_MAX_NDIM], strides[IST_MAX_NDIM], old = a->dtype->itemsize, new = dtype->itemsize;
    memcpy(shape, ARRAY_SHAPE(a), (size_t)a->ndim * sizeof *shape);
    memcpy(strides, ARRAY_STRIDES(a), (size_t)a->ndim * sizeof *strides);
    if (old != new) {
        int last = a->ndim - 1;
        if (last < 0) {
            PyErr_Format(PyExc_ValueError, "a 0-d array can't be seen as '%s': the item size changes from %zd to %zd", dtype->str, old,
                         new);
            goto done;
        }
        if (shape[last] > 1 && strides[last] != old && a->nbytes != 0) {
            PyErr_Format(PyExc_ValueError, "to change to '%s', of a different size, the last axis must be contiguous; its stride is %zd",
                         dtype->str, strides[last]);
            goto done;
        }
        if (shape[last] * old % new != 0) {
            PyErr_Format(PyExc_ValueError, "the last axis has %zd bytes, which '%s' with its %zd doesn't divide", shape[last] * old,
                         dtype->str, new);
            goto done;
        }
        shape[last] = shape[last] * old / new;
        strides[last] = new;
    }
    view = (PyObject *)array_new_view(a, dtype, a->ndim, shape, strides, a->data, 0);
done:
    Py_DECREF((PyObject *)dtype);
    return view;
}

/* memoryview's rules: C-contiguous, bytes on one side, one dimension on one side. */
static int cast_shape(SharedArrayObject *a, const DTypeObject *dtype, PyObject *shape_object, Py_ssize_t *shape) {
    if (!(array_flags(a) & ARRAY_C_CONTIGUOUS)) {
        PyErr_SetString(PyExc_TypeError, "casts are restricted to C-contiguous arrays");
        return -1;
    }
    if (!dtype_is_native(dtype) || dtype->code == IST_C8 || dtype->code == IST_C16) {
        PyErr_Format(PyExc_TypeError, "casts are to a native number's format, not to '%s'", dtype->str);
        return -1;
    }
    if (a->dtype->itemsize != 1 && dtype->itemsize != 1 && !dtype_same(a->dtype, dtype)) {
        PyErr_Format(PyExc_TypeError, "cannot cast between two non-byte dtypes, '%s' and '%s'", a->dtype->str, dtype->str);
        return -1;
    }
    if (a->nbytes % dtype->itemsize != 0) {
        PyErr_Format(PyExc_TypeError, "%zd bytes are not a multiple of the item size %zd of '%s'", a->nbytes, dtype->itemsize, dtype->str);
        return -1;
    }
    if (shape_object == NULL || shape_object == Py_None) {
        shape[0] = a->nbytes / dtype->itemsize;
        return 1;
    }
    int ndim = parse_shape(shape_object, shape, false);
    if (ndim < 0)
        return -1;
    if (ndim != 1 && a->ndim != 1) {
        PyErr_Format(PyExc_TypeError, "cast must be 1D -> ND or ND -> 1D, not %dD -> %dD", a->ndim, ndim);
        return -1;
    }
    Py_ssize_t nbytes = shape_bytes(ndim, shape, dtype->itemsize);
    if (nbytes < 0)
        return -1;
    if (nbytes != a->nbytes) {
        PyErr_Format(PyExc_TypeError, "product(shape) * itemsize is %zd, but the array has %zd bytes", nbytes, a->nbytes);
        return -1;
    }
    return ndim;
}

static PyObject *array_cast(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"format", "shape"};
    static const signature parameters = {"cast", 2, 2, 1, names};
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return now_call_keywords(array_cast, self, args, nargs, kwnames);
    PyObject *given[2];
    if (array_check(a) < 0 || bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    DTypeObject *dtype = dtype_from_format_object(state_of(a), given[0]);
    if (dtype == NULL)
        return NULL;
    Py_ssize_t shape[IST_MAX_NDIM];
    int ndim = cast_shape(a, dtype, given[1], shape);
    PyObject *view = ndim < 0 ? NULL : (PyObject *)array_new_view(a, dtype, ndim, shape, NULL, a->data, 0);
    Py_DECREF((PyObject *)dtype);
    return view;
}

/* ---- split ------------------------------------------------------------------------------------------------------------------------- */

/* [begin, end) along an axis, cut off at the ends as a slice is. */
static PyObject *part_of(SharedArrayObject *a, int axis, Py_ssize_t begin, Py_ssize_t end) {
    Py_ssize_t shape[IST_MAX_NDIM];
    const Py_ssize_t length = PySlice_AdjustIndices(ARRAY_SHAPE(a)[axis], &begin, &end, 1);
    memcpy(shape, ARRAY_SHAPE(a), (size_t)a->ndim * sizeof *shape);
    shape[axis] = length;
    char *data = length > 0 ? a->data + begin * ARRAY_STRIDES(a)[axis] : a->data; /* an empty view stays inside the array */
    return (PyObject *)array_new_view(a, a->dtype, a->ndim, shape, ARRAY_STRIDES(a), data, 0);
}

static int append_part(PyObject *parts, SharedArrayObject *a, int axis, Py_ssize_t begin, Py_ssize_t end) {
    PyObject *part = part_of(a, axis, begin, end);
    int result = part == NULL ? -1 : PyList_Append(parts, part);
    Py_XDECREF(part);
    return result;
}

static PyObject *split_evenly(SharedArrayObject *a, int axis, PyObject *sections) {
    const Py_ssize_t n = PyNumber_AsSsize_t(sections, PyExc_ValueError), length = ARRAY_SHAPE(a)[axis];
    if (n == -1 && PyErr_Occurred())
        return NULL;
    if (n <= 0 || length % n != 0)
        return PyErr_Format(PyExc_ValueError, "array split does not result in an equal division: %zd elements into %zd parts", length, n);
    PyObject *parts = PyList_New(0);
    for (Py_ssize_t i = 0; parts != NULL && i < n; i++)
        if (append_part(parts, a, axis, i * (length / n), (i + 1) * (length / n)) < 0)
            Py_CLEAR(parts);
    return parts;
}

static PyObject *split_at(SharedArrayObject *a, int axis, PyObject *indices) {
    PyObject *items = PySequence_Tuple(indices), *parts = items == NULL ? NULL : PyList_New(0);
    Py_ssize_t begin = 0;
    for (Py_ssize_t i = 0; parts != NULL && i <= PyTuple_GET_SIZE(items); i++) {
        Py_ssize_t end = i < PyTuple_GET_SIZE(items) ? PyNumber_AsSsize_t(PyTuple_GET_ITEM(items, i), NULL) : PY_SSIZE_T_MAX;
        if ((end == -1 && PyErr_Occurred()) || append_part(parts, a, axis, begin, end) < 0)
            Py_CLEAR(parts);
        begin = end;
    }
    Py_XDECREF(items);
    return parts;
}

static PyObject *array_split(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"indices_or_sections", "axis"};
    static const signature parameters = {"split", 2, 2, 1, names};
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return now_call_keywords(array_split, self, args, nargs, kwnames);
    PyObject *given[2];
    if (array_check(a) < 0 || bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    if (a->ndim == 0) {
        PyErr_SetString(PyExc_ValueError, "split() of an array without dimensions");
        return NULL;
    }
    int axis = given[1] == NULL ? 0 : parse_axis(given[1], a->ndim);
    if (axis < 0)
        return NULL;
    return PyIndex_Check(given[0]) ? split_evenly(a, axis, given[0]) : split_at(a, axis, given[0]);
}

PyMethodDef shape_methods[] = {
    {"split", KEYWORDS(array_split),
     PyDoc_STR("split($self, /, indices_or_sections, axis=0)\n--\n\n"
               "A list of views that lie side by side along an axis: so many of equal length, or cut at these indices.")},
    {"transpose", array_transpose, METH_VARARGS,
     PyDoc_STR("transpose($self, /, *axes)\n--\n\nA view with the axes in the given order, or reversed.")},
    {"reshape", KEYWORDS(array_reshape),
     PyDoc_STR("reshape($self, /, *shape, copy=None)\n--\n\n"
               "The same elements, in C order, in another shape; one length may be -1. A view where the memory allows it, else a copy;\n"
               "copy=True always copies, copy=False raises ValueError instead.")},
    {"ravel", KEYWORDS(array_ravel), PyDoc_STR("ravel($self, /, *, copy=None)\n--\n\nreshape(-1): the elements in one dimension.")},
    {"view", KEYWORDS(array_view),
     PyDoc_STR(
         "view($self, /, dtype=None)\n--\n\nA view of the same memory, its bytes read as another dtype. ValueError if the last axis isn't\n"
         "contiguous or doesn't divide.")},
    {"cast", KEYWORDS(array_cast),
     PyDoc_STR("cast($self, /, format, shape=None)\n--\n\nmemoryview's cast: a C-contiguous array as bytes, or bytes as a struct format.")},
    {NULL, NULL, 0, NULL},
};
