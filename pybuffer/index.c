/* index.c: a[key], a[key] = value, len and iteration: numpy's basic indexing, fields included.
 *
 * Relies on: array_new_view for views; convert.c's assign for values.
 * Invariant: an __index__ may run Python code, which may release the array. So a key is evaluated first, against the shape (which lives in
 * the handle and never changes), and the hold is entered after that; from there to the last touch of the memory no Python code runs.
 */
#include "dtype.h"

/* What a key picks out. */
typedef struct selection {
    DTypeObject *dtype; /* borrowed from the array, or from `fields` */
    DTypeObject *fields; /* owned: the dtype of several fields */
    char *data;
    int ndim;
    bool element; /* a full index: one element rather than an array without dimensions */
    Py_ssize_t shape[IST_MAX_NDIM], strides[IST_MAX_NDIM];
} selection;

/* ---- keys -------------------------------------------------------------------------------------------------------------------------- */

static int raise_bad_index(PyObject *key) {
    PyErr_Format(PyExc_IndexError, "only integers, slices (`:`), ellipsis (`...`) and None are valid indices, not %.200s: %R",
                 Py_TYPE(key)->tp_name, key);
    return -1;
}

static int raise_out_of_bounds(Py_ssize_t index, int axis, Py_ssize_t length) {
    PyErr_Format(PyExc_IndexError, "index %zd is out of bounds for axis %d with size %zd", index, axis, length);
    return -1;
}

static int raise_too_many(SharedArrayObject *a, int given) {
    PyErr_Format(PyExc_IndexError, "too many indices for array: array is %d-dimensional, but %d were indexed", a->ndim, given);
    return -1;
}

/* The offset of one element along an axis; -1 with an exception is told apart by *failed. */
static Py_ssize_t index_offset(SharedArrayObject *a, int axis, PyObject *key, bool *failed) {
    *failed = true;
    Py_ssize_t i = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (i == -1 && PyErr_Occurred())
        return -1;
    Py_ssize_t length = ARRAY_SHAPE(a)[axis];
    if (i < -length || i >= length) {
        raise_out_of_bounds(i, axis, length);
        return -1;
    }
    *failed = false;
    return (i < 0 ? i + length : i) * ARRAY_STRIDES(a)[axis];
}

static inline bool is_index(PyObject *key) { return PyLong_Check(key) ? !PyBool_Check(key) : PyIndex_Check(key); }

/* Appends what a slice leaves of an axis. */
static int select_slice(SharedArrayObject *a, int axis, PyObject *key, selection *s) {
    Py_ssize_t start, stop, step;
    if (PySlice_Unpack(key, &start, &stop, &step) < 0)
        return -1;
    Py_ssize_t length = PySlice_AdjustIndices(ARRAY_SHAPE(a)[axis], &start, &stop, step);
    Py_ssize_t stride = ARRAY_STRIDES(a)[axis];
    if (length > 0) /* an empty view stays inside the array */
        s->data += start * stride;
    s->shape[s->ndim] = length;
    /* unsigned, since a step that no second element follows may be longer than memory: it wraps, as numpy's */
    s->strides[s->ndim++] = length > 0 ? (Py_ssize_t)((size_t)step * (size_t)stride) : stride;
    return 0;
}

static int select_axes(SharedArrayObject *a, int axis, int end, selection *s) {
    if (s->ndim + (end - axis) > IST_MAX_NDIM) {
        PyErr_Format(PyExc_IndexError, "number of dimensions must be within [0, %d], indexing result would have %d", IST_MAX_NDIM,
                     s->ndim + end - axis);
        return -1;
    }
    for (; axis < end; axis++) {
        s->shape[s->ndim] = ARRAY_SHAPE(a)[axis];
        s->strides[s->ndim++] = ARRAY_STRIDES(a)[axis];
    }
    return 0;
}

/* How many axes the keys take, and whether an Ellipsis is among them. */
static int count_keys(SharedArrayObject *a, PyObject *const *keys, Py_ssize_t n, int *axes) {
    bool ellipsis = false;
    *axes = 0;
    for (Py_ssize_t k = 0; k < n; k++) {
        if (keys[k] == Py_Ellipsis) {
            if (ellipsis) {
                PyErr_SetString(PyExc_IndexError, "an index can only have a single ellipsis ('...')");
                return -1;
            }
            ellipsis = true;
        } else if (is_index(keys[k]) || PySlice_Check(keys[k])) {
            ++*axes;
        } else if (keys[k] != Py_None) {
            return raise_bad_index(keys[k]);
        }
    }
    return *axes > a->ndim ? raise_too_many(a, *axes) : 0;
}

static int select_keys(SharedArrayObject *a, PyObject *const *keys, Py_ssize_t n, selection *s) {
    int axis = 0, axes;
    if (count_keys(a, keys, n, &axes) < 0)
        return -1;
    s->element = axes == a->ndim;
    for (Py_ssize_t k = 0; k < n; k++) {
        PyObject *key = keys[k];
        if (key == Py_Ellipsis) {
            int end = axis + a->ndim - axes;
            if (select_axes(a, axis, end, s) < 0)
                return -1;
            axis = end;
        } else if (key == Py_None) {
            if (s->ndim >= IST_MAX_NDIM) {
                PyErr_Format(PyExc_IndexError, "number of dimensions must be within [0, %d]", IST_MAX_NDIM);
                return -1;
            }
            s->shape[s->ndim] = 1;
            s->strides[s->ndim++] = 0;
        } else if (PySlice_Check(key)) {
            if (s->ndim >= IST_MAX_NDIM)
                return select_axes(a, axis, axis + 1, s);
            if (select_slice(a, axis++, key, s) < 0)
                return -1;
        } else {
            bool failed;
            s->data += index_offset(a, axis++, key, &failed);
            if (failed)
                return -1;
            continue;
        }
        s->element = false;
    }
    return select_axes(a, axis, a->ndim, s);
}

/* ---- fields ------------------------------------------------------------------------------------------------------------------------ */

static const ist_field *find_field(SharedArrayObject *a, PyObject *name) {
    const DTypeObject *d = a->dtype;
    for (Py_ssize_t i = 0; PyUnicode_Check(name) && i < d->nfields; i++) {
        int order = PyUnicode_Compare(d->fields[i].name, name);
        if (order == -1 && PyErr_Occurred())
            return NULL;
        if (order == 0)
            return &d->fields[i];
    }
    PyObject *names = PyObject_GetAttrString((PyObject *)a->dtype, "names");
    if (names != NULL)
        PyErr_Format(PyExc_ValueError, "no field of name %R: the fields are %R", name, names);
    Py_XDECREF(names);
    return NULL;
}

/* a["x"]: the field in every element; a sub-array's axes come last. */
static int select_field(SharedArrayObject *a, PyObject *name, selection *s) {
    const ist_field *f = find_field(a, name);
    if (f == NULL || select_axes(a, 0, a->ndim, s) < 0)
        return -1;
    s->element = false;
    s->data += f->offset;
    s->dtype = f->dtype;
    if (f->dtype->code != IST_SUBARRAY)
        return 0;
    s->dtype = f->dtype->base;
    if (s->ndim + f->dtype->sub_ndim > IST_MAX_NDIM) {
        PyErr_Format(PyExc_IndexError, "number of dimensions must be within [0, %d], field %R would have %d", IST_MAX_NDIM, name,
                     s->ndim + f->dtype->sub_ndim);
        return -1;
    }
    memcpy(s->shape + s->ndim, f->dtype->sub_shape, (size_t)f->dtype->sub_ndim * sizeof *s->shape);
    fill_c_strides(f->dtype->sub_ndim, f->dtype->sub_shape, s->dtype->itemsize, s->strides + s->ndim);
    s->ndim += f->dtype->sub_ndim;
    return 0;
}

/* a[["x", "y"]]: a view of the same elements with these fields alone, where they are. */
static int select_fields(SharedArrayObject *a, PyObject *names, selection *s) {
    field_list list = {NULL, 0, 0};
    int result = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(names) && result == 0; i++) {
        const ist_field *f = find_field(a, PyList_GET_ITEM(names, i));
        result = f == NULL ? -1 : field_list_add(&list, Py_NewRef(f->name), dtype_ref(f->dtype), f->offset);
    }
    if (result == 0)
        s->dtype = s->fields = dtype_of_fields(state_of(a), list.fields, list.n, a->dtype->itemsize, false);
    field_list_clear(&list);
    s->element = false;
    return s->fields == NULL ? -1 : select_axes(a, 0, a->ndim, s);
}

static bool is_field_list(PyObject *key) {
    return PyList_Check(key) && PyList_GET_SIZE(key) > 0 && PyUnicode_Check(PyList_GET_ITEM(key, 0));
}

/* Takes selection_clear afterwards, on failure too. */
static int select_key(SharedArrayObject *a, PyObject *key, selection *s) {
    s->dtype = a->dtype;
    s->fields = NULL;
    s->data = a->data;
    s->ndim = 0;
    if (a->dtype->code == IST_STRUCT) {
        if (PyUnicode_Check(key))
            return select_field(a, key, s);
        if (is_field_list(key))
            return select_fields(a, key, s);
    }
    if (PyTuple_Check(key))
        return select_keys(a, ((PyTupleObject *)key)->ob_item, PyTuple_GET_SIZE(key), s);
    return select_keys(a, &key, 1, s);
}

static void selection_clear(selection *s) { Py_XDECREF((PyObject *)s->fields); }

/* ---- reading ----------------------------------------------------------------------------------------------------------------------- */

static PyObject *get_element(SharedArrayObject *a, const char *item) {
    if (hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    PyObject *value;
    double x;
    if (a->dtype->code == IST_F8 && !a->dtype->swapped) {
        memcpy(&x, item, sizeof x);
        value = PyFloat_FromDouble(x);
    } else {
        value = dtype_get(a->dtype, item);
    }
    hold_leave(a, HOLD_SHARED);
    return value;
}

/* a[i] of one axis, where i is a small int inside it: the element's address; NULL without an exception: it is something else. Runs no Python
 * code, so that the GIL alone stands for a pin as long as none is run after it (A4). */
static inline char *plain_element(SharedArrayObject *a, PyObject *key) {
    if (a->ndim != 1 || !PyLong_CheckExact(key) || !PyUnstable_Long_IsCompact((PyLongObject *)key) || !array_usable(a) || array_tracks(a))
        return NULL;
    const Py_ssize_t i = PyUnstable_Long_CompactValue((PyLongObject *)key), length = a->dims[0], at = i < 0 ? i + length : i;
    return (size_t)at < (size_t)length ? a->data + at * a->dims[1] : NULL;
}

PyObject *array_item(PyObject *self, Py_ssize_t i) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a)) {
        SharedArrayObject *now = array_now(a);
        PyObject *item = now == NULL ? NULL : array_item((PyObject *)now, i);
        Py_XDECREF((PyObject *)now);
        return item;
    }
    if (a->ndim == 0) {
        raise_too_many(a, 1);
        return NULL;
    }
    if (i < 0 || i >= ARRAY_SHAPE(a)[0]) {
        if (array_check(a) == 0)
            raise_out_of_bounds(i, 0, ARRAY_SHAPE(a)[0]);
        return NULL;
    }
    char *data = a->data + i * ARRAY_STRIDES(a)[0];
    if (a->ndim == 1)
        return get_element(a, data);
    return (PyObject *)array_new_view(a, a->dtype, a->ndim - 1, ARRAY_SHAPE(a) + 1, ARRAY_STRIDES(a) + 1, data, 0);
}

PyObject *array_subscript(PyObject *self, PyObject *key) {
    SharedArrayObject *a = (SharedArrayObject *)self;
#ifndef Py_GIL_DISABLED
    const char *item = plain_element(a, key);
    if (item != NULL && dtype_is_native(a->dtype)) { /* making a number runs no Python code */
        double x;
        if (a->dtype->code != IST_F8)
            return dtype_get(a->dtype, item);
        memcpy(&x, item, sizeof x);
        return PyFloat_FromDouble(x);
    }
#endif
    if (array_tracks(a))
        return now_call(array_subscript, self, key);
    if (a->ndim == 1) { /* the common keys, without going through what they could be */
        if (PySlice_Check(key)) {
            selection s;
            s.data = a->data;
            s.ndim = 0;
            if (array_check(a) < 0 || select_slice(a, 0, key, &s) < 0)
                return NULL;
            return (PyObject *)array_new_view(a, a->dtype, 1, s.shape, s.strides, s.data, 0);
        }
        if (PyLong_CheckExact(key)) {
            bool failed;
            if (array_check(a) < 0)
                return NULL;
            Py_ssize_t offset = index_offset(a, 0, key, &failed);
            return failed ? NULL : get_element(a, a->data + offset);
        }
    }
    selection s;
    PyObject *result = NULL;
    if (array_check(a) < 0)
        return NULL;
    if (select_key(a, key, &s) == 0)
        result = s.element ? get_element(a, s.data) : (PyObject *)array_new_view(a, s.dtype, s.ndim, s.shape, s.strides, s.data, 0);
    selection_clear(&s);
    return result;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------------------- */

/* The commonest values, which run no Python code; false: it is another. */
static inline bool convert_plain(const DTypeObject *dtype, char *converted, PyObject *value) {
    if (dtype->code == IST_F8 && !dtype->swapped && PyFloat_CheckExact(value)) {
        double x = PyFloat_AS_DOUBLE(value);
        memcpy(converted, &x, sizeof x);
        return true;
    }
    if (dtype->code == IST_I8 && !dtype->swapped && PyLong_CheckExact(value)) {
        int overflow;
        long long x = PyLong_AsLongLongAndOverflow(value, &overflow);
        memcpy(converted, &x, sizeof x);
        return overflow == 0;
    }
    return false;
}

static int set_element(SharedArrayObject *a, char *item, PyObject *value) {
    char few[ITEM_FEW], *converted = item_room(a->dtype, few);
    if (converted == NULL)
        return -1;
    if ((!convert_plain(a->dtype, converted, value) && dtype_set(a->dtype, converted, value) < 0) || hold_enter(a, HOLD_WRITER) < 0) {
        item_free(converted, few);
        return -1;
    }
    bool readonly = array_readonly(a); /* once more: the key's or the value's conversion may have frozen it */
    if (!readonly)
        put_item(a->dtype, item, converted);
    hold_leave(a, HOLD_WRITER);
    item_free(converted, few);
    if (readonly)
        PyErr_SetString(PyExc_ValueError, "assignment destination is read-only");
    return readonly ? -1 : 0;
}

/* A full index takes one element: not a sequence of one, nor an array of one. 1, or 0 with an exception. */
static bool is_one_element(core_state *state, PyObject *value) {
    bool one = false;
    if (PyObject_CheckBuffer(value)) {
        source s;
        if (source_open(state, value, &s) < 0)
            return false;
        one = s.values.ndim == 0;
        source_close(&s);
    }
    if (!one)
        PyErr_Format(PyExc_ValueError, "setting an array element with a sequence: %.200s", Py_TYPE(value)->tp_name);
    return one;
}

int array_ass_subscript(PyObject *self, PyObject *key, PyObject *value) {
    SharedArrayObject *a = (SharedArrayObject *)self;
#ifndef Py_GIL_DISABLED
    char *item = value == NULL ? NULL : plain_element(a, key), eight[8];
    if (item != NULL && convert_plain(a->dtype, eight, value) && !array_readonly(a)) {
        memcpy(item, eight, sizeof eight);
        return 0;
    }
#endif
    if (array_tracks(a)) {
        SharedArrayObject *now = array_now(a);
        int result = now == NULL ? -1 : array_ass_subscript((PyObject *)now, key, value);
        Py_XDECREF((PyObject *)now);
        return result;
    }
    if (array_check(a) < 0)
        return -1;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "cannot delete array elements");
        return -1;
    }
    if (array_readonly(a)) {
        PyErr_SetString(PyExc_ValueError, "assignment destination is read-only");
        return -1;
    }
    if (a->ndim == 1 && PyLong_CheckExact(key) && is_scalar(a->dtype, value)) {
        bool failed;
        Py_ssize_t offset = index_offset(a, 0, key, &failed);
        return failed ? -1 : set_element(a, a->data + offset, value);
    }
    selection s;
    int result = select_key(a, key, &s);
    if (result == 0 && s.element && is_scalar(a->dtype, value)) {
        result = set_element(a, s.data, value);
    } else if (result == 0 && (!s.element || is_one_element(state_of(a), value))) {
        strided to = {s.dtype, s.data, s.ndim, s.shape, s.strides};
        result = assign(state_of(a), a, &to, value, CAST_SAME_KIND);
    } else {
        result = -1;
    }
    selection_clear(&s);
    return result;
}

int array_element(SharedArrayObject *a, PyObject *key, char **at) {
    if (array_tracks(a)) {
        SharedArrayObject *now = array_now(a);
        int result = now == NULL ? -1 : array_element(now, key, at);
        Py_XDECREF((PyObject *)now);
        return result;
    }
    selection s;
    int result = select_key(a, key, &s);
    if (result == 0 && !s.element) {
        PyErr_Format(PyExc_IndexError, "one element is needed: a %d-dimensional array takes %d indices, not %R", a->ndim, a->ndim, key);
        result = -1;
    }
    selection_clear(&s);
    *at = s.data;
    return result;
}

/* ---- length and iteration ---------------------------------------------------------------------------------------------------------- */

Py_ssize_t array_length(PyObject *self) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_check(a) < 0)
        return -1;
    if (a->ndim == 0) {
        PyErr_SetString(PyExc_TypeError, "len() of unsized object: the array has no dimensions");
        return -1;
    }
    return array_tracks(a) ? tracked_length(a) : ARRAY_SHAPE(a)[0];
}

static PyObject *iter_now(PyObject *self, PyObject *Py_UNUSED(ignored)) { return array_iter(self); }

PyObject *array_iter(PyObject *self) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a)) /* as many elements as there are now; a release of the handle isn't seen any more */
        return now_call(iter_now, self, NULL);
    if (array_check(a) < 0)
        return NULL;
    if (a->ndim == 0) {
        PyErr_SetString(PyExc_TypeError, "iteration over a 0-d array");
        return NULL;
    }
    return PySeqIter_New(self); /* by index: nothing is held between two elements, so a release in between is seen */
}
