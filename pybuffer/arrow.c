/* arrow.c: Arrow's C data interface for one axis of primitives, both ways and without a copy: SharedArray.__arrow_c_array__ and
 * __arrow_c_schema__, isthmus.from_arrow.
 *
 * Out: the structure owns one counted reference of the segment; release is plain C: in any thread, without a GIL, after the interpreter's end.
 * In: the structure is moved out of its capsule into a wrapped segment, whose last owner, wherever that is, calls release.
 *
 * Invariants (README.md, E1 and E3)
 *   release != NULL in exactly one copy of a structure, which owns what it describes; release is called once, through that copy
 *   a capsule owns the memory of its structure, and what it describes as long as nobody has moved it
 *   what was imported is read-only
 */
#include "arrow.h"
#include "dtype.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define SCHEMA "arrow_schema"
#define ARRAY "arrow_array"
#define STREAM "arrow_array_stream"

/* ---- formats --------------------------------------------------------------------------------------------------------------------- */

static const struct {
    char letter;
    ist_type_code code;
} letters[] = {
    {'c', IST_I1}, {'C', IST_U1}, {'s', IST_I2}, {'S', IST_U2}, {'i', IST_I4}, {'I', IST_U4},
    {'l', IST_I8}, {'L', IST_U8}, {'e', IST_F2}, {'f', IST_F4}, {'g', IST_F8},
};
#define LETTERS (sizeof letters / sizeof *letters)
static const struct {
    char letter;
    int unit;
} units[] = {{'s', UNIT_s}, {'m', UNIT_ms}, {'u', UNIT_us}, {'n', UNIT_ns}};
#define UNITS (sizeof units / sizeof *units)
#define FORMAT_SIZE 24

static DTypeObject *refuse_format(const char *format, const char *why) {
    PyErr_Format(PyExc_TypeError, "from_arrow(): Arrow format '%s': %s", format, why);
    return NULL;
}

/* "w:42" */
static DTypeObject *dtype_of_width(core_state *state, const char *format) {
    Py_ssize_t width = 0;
    const char *digit = format + 2;
    for (; *digit >= '0' && *digit <= '9' && width <= DTYPE_ITEMSIZE_MAX; digit++)
        width = 10 * width + (*digit - '0');
    if (*digit != '\0' || width == 0 || width > DTYPE_ITEMSIZE_MAX)
        return refuse_format(format, "not a width that elements can have");
    return dtype_of_length(state, IST_VOID, width, false);
}

/* How elements lie there. What isn't PLAIN becomes an array's by a copy only. */
enum packing { PLAIN, BITS /* booleans, the lowest bit first */, DAYS /* int32 */ };

static DTypeObject *dtype_of_time_format(core_state *state, const char *format, enum packing *packing) {
    const ist_type_code code = format[1] == 'D' ? IST_TIMEDELTA : IST_DATETIME;
    if (strcmp(format, "tdm") == 0)
        return dtype_of_time(state, IST_DATETIME, UNIT_ms, 1, false);
    if (strcmp(format, "tdD") == 0) {
        if (packing == NULL)
            return refuse_format(format, "days of 32 bits, which datetime64 doesn't have; copy=True makes datetime64[D] of them");
        *packing = DAYS;
        return dtype_of_time(state, IST_DATETIME, UNIT_D, 1, false);
    }
    if (format[1] == 't')
        return refuse_format(format, "a time of day, for which there is no dtype; cast to an integer first");
    for (size_t i = 0; i < UNITS && (format[1] == 's' || format[1] == 'D'); i++) {
        if (format[2] != units[i].letter)
            continue;
        const char *rest = format + 3;
        if (code == IST_TIMEDELTA ? *rest == '\0' : strcmp(rest, ":") == 0)
            return dtype_of_time(state, code, units[i].unit, 1, false);
        if (code == IST_DATETIME && *rest == ':')
            return refuse_format(format, "datetime64 has no time zones; cast to a timestamp without one first");
    }
    return refuse_format(format, "no primitive that there is a dtype for");
}

/* New reference. packing NULL: no copy is allowed. */
static DTypeObject *dtype_of_format(core_state *state, const char *format, enum packing *packing) {
    if (packing != NULL)
        *packing = PLAIN;
    for (size_t i = 0; i < LETTERS; i++)
        if (format[0] == letters[i].letter && format[1] == '\0')
            return dtype_ref(state->dtypes[letters[i].code]);
    if (strcmp(format, "b") == 0) {
        if (packing == NULL)
            return refuse_format(format, "booleans of one bit each, where an array has bytes; copy=True makes bytes of them");
        *packing = BITS;
        return dtype_ref(state->dtypes[IST_BOOL]);
    }
    if (strncmp(format, "w:", 2) == 0)
        return dtype_of_width(state, format);
    if (format[0] == 't')
        return dtype_of_time_format(state, format, packing);
    return refuse_format(format, format[0] == '+' ? "nested; an array has primitives, so take its children apart first"
                                                  : "no primitive that there is a dtype for");
}

/* Arrow's name for elements; -1 with TypeError. */
static int format_of(const DTypeObject *dtype, char format[FORMAT_SIZE]) {
    for (size_t i = 0; i < LETTERS && dtype_is_native(dtype); i++) {
        if (letters[i].code == dtype->code) {
            PyOS_snprintf(format, FORMAT_SIZE, "%c", letters[i].letter);
            return 0;
        }
    }
    const bool time = dtype->code == IST_DATETIME || dtype->code == IST_TIMEDELTA;
    for (size_t i = 0; i < UNITS && time && !dtype->swapped && dtype->count == 1; i++) {
        if (units[i].unit == dtype->unit) {
            PyOS_snprintf(format, FORMAT_SIZE, dtype->code == IST_DATETIME ? "ts%c:" : "tD%c", units[i].letter);
            return 0;
        }
    }
    if (dtype->code == IST_VOID) {
        PyOS_snprintf(format, FORMAT_SIZE, "w:%zd", dtype->itemsize);
        return 0;
    }
    PyErr_Format(
        PyExc_TypeError,
        "Arrow has no primitive for '%s': it has integers, floats of 16 to 64 bits, datetime64 and timedelta64 in s, ms, us or ns, all in "
        "native byte order, and V%s",
        dtype->str, dtype->code == IST_BOOL ? "; a bool has one bit there: use view('u1')" : "");
    return -1;
}

/* ---- out -------------------------------------------------------------------------------------------------------------------------- */

/* The format is in private_data. */
static void schema_release(struct ArrowSchema *schema) {
    free(schema->private_data);
    schema->release = NULL;
}

typedef struct array_export {
    ist_segment segment; /* one counted reference */
    const void *buffers[2];
} array_export;

static void array_export_release(struct ArrowArray *array) {
    array_export *e = array->private_data;
    array->release = NULL;
    ist_segment_release(e->segment);
    free(e);
}

static void schema_capsule_end(PyObject *capsule) {
    struct ArrowSchema *schema = PyCapsule_IsValid(capsule, SCHEMA) ? PyCapsule_GetPointer(capsule, SCHEMA) : NULL;
    if (schema == NULL)
        return; /* renamed by somebody who knows why */
    if (schema->release != NULL)
        schema->release(schema);
    free(schema);
}

static void array_capsule_end(PyObject *capsule) {
    struct ArrowArray *array = PyCapsule_IsValid(capsule, ARRAY) ? PyCapsule_GetPointer(capsule, ARRAY) : NULL;
    if (array == NULL)
        return;
    if (array->release != NULL)
        array->release(array);
    free(array);
}

/* 0, or ENOMEM. Plain C. */
static int fill_schema(struct ArrowSchema *schema, const char *format) {
    char *kept = malloc(FORMAT_SIZE);
    if (kept == NULL)
        return ENOMEM;
    memcpy(kept, format, FORMAT_SIZE);
    *schema = (struct ArrowSchema){.format = kept, .name = "", .release = schema_release, .private_data = kept};
    return 0;
}

static PyObject *schema_capsule(const DTypeObject *dtype) {
    char format[FORMAT_SIZE] = "";
    if (format_of(dtype, format) < 0)
        return NULL;
    struct ArrowSchema *schema = malloc(sizeof *schema);
    if (schema == NULL || fill_schema(schema, format) != 0) {
        free(schema);
        return PyErr_NoMemory();
    }
    PyObject *capsule = PyCapsule_New(schema, SCHEMA, schema_capsule_end);
    if (capsule == NULL) {
        schema_release(schema);
        free(schema);
    }
    return capsule;
}

/* `a` is held; *array owns a reference of its segment. 0, or ENOMEM. */
static int fill_array(struct ArrowArray *array, SharedArrayObject *a) {
    array_export *e = malloc(sizeof *e);
    if (e == NULL)
        return ENOMEM;
    *e = (array_export){array_root(a)->segment, {NULL, a->data}};
    ist_segment_retain_inline(e->segment);
    *array = (struct ArrowArray){
        .length = ARRAY_SHAPE(a)[0],
        .n_buffers = 2,
        .buffers = e->buffers,
        .release = array_export_release,
        .private_data = e,
    };
    return 0;
}

/* `a` is held. */
static PyObject *array_capsule(SharedArrayObject *a) {
    struct ArrowArray *array = malloc(sizeof *array);
    if (array == NULL || fill_array(array, a) != 0) {
        free(array);
        return PyErr_NoMemory();
    }
    PyObject *capsule = PyCapsule_New(array, ARRAY, array_capsule_end);
    if (capsule == NULL) {
        array_export_release(array);
        free(array);
    }
    return capsule;
}

/* A stream of one array: plain C, as everything here that others call. */
typedef struct stream_export {
    struct ArrowArray array; /* release NULL: it was fetched */
    char format[FORMAT_SIZE];
} stream_export;

static int stream_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out) {
    return fill_schema(out, ((stream_export *)stream->private_data)->format);
}

static int stream_next(struct ArrowArrayStream *stream, struct ArrowArray *out) {
    stream_export *e = stream->private_data;
    *out = e->array;
    e->array.release = NULL;
    return 0;
}

static const char *stream_error(struct ArrowArrayStream *Py_UNUSED(stream)) { return NULL; /* there is but ENOMEM */ }

static void stream_release(struct ArrowArrayStream *stream) {
    stream_export *e = stream->private_data;
    if (e->array.release != NULL)
        e->array.release(&e->array);
    free(e);
    stream->release = NULL;
}

static void stream_capsule_end(PyObject *capsule) {
    struct ArrowArrayStream *stream = PyCapsule_IsValid(capsule, STREAM) ? PyCapsule_GetPointer(capsule, STREAM) : NULL;
    if (stream == NULL)
        return;
    if (stream->release != NULL)
        stream->release(stream);
    free(stream);
}

/* `a` is held. */
static PyObject *stream_capsule(SharedArrayObject *a, const char *format) {
    struct ArrowArrayStream *stream = malloc(sizeof *stream);
    stream_export *e = malloc(sizeof *e);
    if (stream == NULL || e == NULL || fill_array(&e->array, a) != 0) {
        free(stream);
        free(e);
        return PyErr_NoMemory();
    }
    memcpy(e->format, format, FORMAT_SIZE);
    *stream = (struct ArrowArrayStream){stream_schema, stream_next, stream_error, stream_release, e};
    PyObject *capsule = PyCapsule_New(stream, STREAM, stream_capsule_end);
    if (capsule == NULL) {
        stream_release(stream);
        free(stream);
    }
    return capsule;
}

static int check_shape(SharedArrayObject *a) {
    if (a->ndim == 1 && (array_flags(a) & ARRAY_C_CONTIGUOUS))
        return 0;
    const bool flat = a->ndim == 1;
    PyObject *dims = flat ? shape_tuple(1, ARRAY_STRIDES(a)) : shape_tuple(a->ndim, ARRAY_SHAPE(a));
    if (dims != NULL)
        PyErr_Format(PyExc_BufferError, "an Arrow array has one axis of elements side by side; this array has %s %R%s",
                     flat ? "strides" : "shape", dims, flat ? ": copy() it" : ": ravel() it");
    Py_XDECREF(dims);
    return -1;
}

static PyObject *array_arrow_schema(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    return array_check(a) < 0 || check_shape(a) < 0 ? NULL : schema_capsule(a->dtype);
}

static PyObject *array_arrow_array(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"requested_schema"};
    static const signature parameters = {"__arrow_c_array__", 1, 1, 0, names};
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_tracks(a))
        return now_call_keywords(array_arrow_array, self, args, nargs, kwnames);
    PyObject *requested; /* other types would be a copy, which the interface leaves to whoever asks */
    if (bind_arguments(&parameters, args, nargs, kwnames, &requested) < 0)
        return NULL;
    PyObject *schema = array_arrow_schema(self, NULL);
    if (schema == NULL || hold_enter(a, HOLD_SHARED) < 0) {
        Py_XDECREF(schema);
        return NULL;
    }
    PyObject *array = array_capsule(a);
    hold_leave(a, HOLD_SHARED);
    PyObject *pair = array == NULL ? NULL : PyTuple_Pack(2, schema, array);
    Py_XDECREF(array);
    Py_DECREF(schema);
    return pair;
}

static PyObject *array_arrow_stream(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"requested_schema"};
    static const signature parameters = {"__arrow_c_stream__", 1, 1, 0, names};
    SharedArrayObject *a = (SharedArrayObject *)self;
    PyObject *requested; /* as in __arrow_c_array__ */
    if (array_tracks(a))
        return now_call_keywords(array_arrow_stream, self, args, nargs, kwnames);
    char format[FORMAT_SIZE] = "";
    if (bind_arguments(&parameters, args, nargs, kwnames, &requested) < 0 || array_check(a) < 0 || check_shape(a) < 0 ||
        format_of(a->dtype, format) < 0 || hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    PyObject *capsule = stream_capsule(a, format);
    hold_leave(a, HOLD_SHARED);
    return capsule;
}

PyMethodDef arrow_methods[] = {
    {"__arrow_c_array__", KEYWORDS(array_arrow_array),
     PyDoc_STR(
         "__arrow_c_array__($self, /, requested_schema=None)\n--\n\n"
         "Capsules of Arrow's C data interface, schema and array, without a copy: what pyarrow.array(a) and polars.Series(a) ask for.\n\n"
         "For one axis, side by side, of integers, floats, datetime64 and timedelta64 in s to ns, or V; else TypeError or BufferError.\n"
         "Ownership: the array counts as an owner until it was released, in whatever thread; freeze() raises meanwhile. Arrow takes\n"
         "arrays for immutable: freeze first what must not change under its reader. NaT goes as the number it is, not as a null.\n"
         "requested_schema is only a wish in the interface, and would be a copy: it isn't followed.")},
    {"__arrow_c_stream__", KEYWORDS(array_arrow_stream),
     PyDoc_STR("__arrow_c_stream__($self, /, requested_schema=None)\n--\n\n"
               "The same as a stream of one array, a capsule: for those who want chunks, as pyarrow.chunked_array(a).")},
    {"__arrow_c_schema__", array_arrow_schema, METH_NOARGS,
     PyDoc_STR("__arrow_c_schema__($self, /)\n--\n\nThe capsule that says what __arrow_c_array__ would give.")},
    {NULL, NULL, 0, NULL},
};

/* ---- in --------------------------------------------------------------------------------------------------------------------------- */

static void release_moved(struct ArrowArray *array) {
    array->release(array);
    free(array);
}

static void *release_in_thread(void *array) {
    release_moved(array);
    return NULL;
}

/* Whether PyGILState_Ensure would take the GIL of another interpreter than the main one here. Needs no GIL. */
static bool other_interpreters_thread(void) {
    PyThreadState *thread = PyGILState_GetThisThreadState();
    return thread != NULL && PyThreadState_GetInterpreter(thread) != PyInterpreterState_Main();
}

/* Arrow's rules give release no GIL, and it needs none; but a library that borrowed the memory of a Python object of the main interpreter (pyarrow,
 * an ndarray's) takes one by PyGILState_Ensure to drop it. In a thread of another interpreter it would get that one's, and free what isn't
 * that one's: there release gets a thread of its own. Where none can be had the memory stays for ever, which harms nobody. */
static void imported_free(void *ctx, void *Py_UNUSED(data), size_t Py_UNUSED(size)) {
    struct ArrowArray *array = ctx;
    pthread_t thread;
    if (array->release == array_export_release || !other_interpreters_thread())
        release_moved(array);
    else if (pthread_create(&thread, NULL, release_in_thread, array) == 0)
        pthread_detach(thread);
}

static int raise_impossible(const char *what) {
    PyErr_Format(PyExc_ValueError, "from_arrow(): the array makes no sense: %s", what);
    return -1;
}

/* Nulls among the elements, by the bitmap: a bit for each, the lowest first, 0 for a null. */
static int64_t count_nulls(const uint8_t *valid, int64_t offset, int64_t length) {
    int64_t nulls = 0;
    for (int64_t i = offset; i < offset + length;) {
        if (i % 8 == 0 && offset + length - i >= 8) {
            nulls += 8 - __builtin_popcount(valid[i / 8]);
            i += 8;
        } else {
            nulls += !(valid[i / 8] >> (i % 8) & 1);
            i++;
        }
    }
    return nulls;
}

/* Where the first element is, but of BITS, whose items have 0 bytes, the first byte of all. The array is checked. */
static char *elements_of(const struct ArrowArray *array, Py_ssize_t itemsize) {
    static const char nothing[1]; /* an address for what has no elements */
    const char *values = array->buffers[1];
    return (char *)(uintptr_t)(values == NULL ? nothing : values + array->offset * itemsize);
}

static int check_array(const struct ArrowSchema *schema, const struct ArrowArray *array, Py_ssize_t itemsize, Py_ssize_t *nbytes) {
    if (schema->dictionary != NULL || array->dictionary != NULL) {
        refuse_format(schema->format, "indices into a dictionary; decode it first");
        return -1;
    }
    if (schema->n_children != 0 || array->n_children != 0 || array->n_buffers != 2 || array->buffers == NULL)
        return raise_impossible("a primitive has two buffers and no children");
    int64_t end;
    Py_ssize_t skip;
    if (array->length < 0 || array->offset < 0 || __builtin_add_overflow(array->offset, array->length, &end) ||
        __builtin_mul_overflow(array->length, itemsize, nbytes) || __builtin_mul_overflow(array->offset, itemsize, &skip))
        return raise_impossible("its length and offset are beyond all memory");
    if (array->buffers[1] == NULL && array->length > 0)
        return raise_impossible("elements, but no memory");
    const int64_t nulls =
        array->null_count == 0 || array->buffers[0] == NULL ? 0 : count_nulls(array->buffers[0], array->offset, array->length);
    if (nulls == 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "from_arrow(): %lld of %lld elements are null, which an array can't say; fill them first",
                 (long long)nulls, (long long)array->length);
    return -1;
}

/* Takes what `array` describes, on success. */
static PyObject *import_array(core_state *state, const struct ArrowSchema *schema, struct ArrowArray *array, DTypeObject *dtype) {
    Py_ssize_t nbytes, length = array->length;
    if (check_array(schema, array, dtype->itemsize, &nbytes) < 0)
        return NULL;
    struct ArrowArray *moved = malloc(sizeof *moved);
    if (moved == NULL)
        return PyErr_NoMemory();
    *moved = *array;
    ist_segment segment;
    int error = ist_segment_wrap(elements_of(array, dtype->itemsize), (size_t)nbytes, imported_free, moved, IST_READONLY, &segment);
    if (error != 0) {
        free(moved);
        return raise_error(state, error, "from_arrow() of %zd bytes", nbytes);
    }
    array->release = NULL;
    ist_segment_set_creator(segment, (uint64_t)state->interpreter);
    return (PyObject *)array_new_root(state, segment, dtype, 1, &length, NULL, 0, ARRAY_READONLY);
}

static void unpack(char *to, const char *from, enum packing packing, const struct ArrowArray *array, Py_ssize_t itemsize) {
    for (int64_t i = 0; i < array->length && packing == BITS; i++)
        to[i] = (char)((unsigned char)from[(array->offset + i) / 8] >> ((array->offset + i) % 8) & 1);
    for (int64_t i = 0; i < array->length && packing == DAYS; i++) {
        int32_t days;
        memcpy(&days, from + 4 * i, sizeof days);
        memcpy(to + 8 * i, &(int64_t){days}, 8);
    }
    if (packing == PLAIN)
        memcpy(to, from, (size_t)(array->length * itemsize));
}

/* A new array with the elements of all of them, one after the other. */
static PyObject *copy_arrays(core_state *state, const struct ArrowSchema *schema, const struct ArrowArray *arrays, size_t n,
                             DTypeObject *dtype, enum packing packing) {
    const Py_ssize_t there = packing == BITS ? 0 : packing == DAYS ? 4 : dtype->itemsize;
    Py_ssize_t length = 0, nbytes;
    for (size_t i = 0; i < n; i++) {
        if (check_array(schema, &arrays[i], there, &nbytes) < 0)
            return NULL;
        if (__builtin_add_overflow(length, arrays[i].length, &length)) {
            raise_impossible("its lengths are beyond all memory");
            return NULL;
        }
    }
    SharedArrayObject *a = array_create(state, dtype, 1, &length, 0);
    char *to = a == NULL ? NULL : a->data;
    for (size_t i = 0; i < n && a != NULL; to += arrays[i++].length * dtype->itemsize)
        unpack(to, elements_of(&arrays[i], there), packing, &arrays[i], dtype->itemsize);
    if (a != NULL)
        ist_count_copied((size_t)a->nbytes);
    return (PyObject *)a;
}

/* Takes what the one array describes, on success and without `copy`. */
static PyObject *import_arrays(core_state *state, const struct ArrowSchema *schema, struct ArrowArray *arrays, size_t n, bool copy) {
    enum packing packing;
    DTypeObject *dtype = dtype_of_format(state, schema->format, copy ? &packing : NULL);
    PyObject *result = NULL;
    if (dtype == NULL)
        return NULL;
    if (copy)
        result = copy_arrays(state, schema, arrays, n, dtype, packing);
    else if (n == 1)
        result = import_array(state, schema, arrays, dtype);
    else if (n == 0)
        result = copy_arrays(state, schema, arrays, 0, dtype, PLAIN); /* nothing, in memory of its own */
    else
        PyErr_Format(PyExc_ValueError, "from_arrow(): %zu chunks, which lie apart: copy=True puts them together", n);
    Py_DECREF((PyObject *)dtype);
    return result;
}

/* What a capsule of that name points to; NULL with an exception. */
static void *pointer_of(PyObject *capsule, const char *name) {
    if (PyCapsule_IsValid(capsule, name))
        return PyCapsule_GetPointer(capsule, name);
    PyErr_Format(PyExc_TypeError, "from_arrow(): %R isn't a capsule named \"%s\"", capsule, name);
    return NULL;
}

static PyObject *import_pair(core_state *state, PyObject *pair, bool copy) {
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2)
        return PyErr_Format(PyExc_TypeError, "from_arrow(): __arrow_c_array__() gave %R, not a pair of capsules", pair);
    const struct ArrowSchema *schema = pointer_of(PyTuple_GET_ITEM(pair, 0), SCHEMA);
    struct ArrowArray *array = schema == NULL ? NULL : pointer_of(PyTuple_GET_ITEM(pair, 1), ARRAY);
    if (array == NULL)
        return NULL;
    if (schema->release == NULL || array->release == NULL || schema->format == NULL) {
        PyErr_SetString(PyExc_ValueError, "from_arrow(): what the capsules held was released, or somebody else has taken it");
        return NULL;
    }
    return import_arrays(state, schema, array, 1, copy);
}

/* ---- streams ----------------------------------------------------------------------------------------------------------------------- */

/* What came out of a stream, to be released by release_stream. */
typedef struct opened_stream {
    struct ArrowArrayStream stream; /* moved here */
    struct ArrowSchema schema;
    struct ArrowArray *arrays;
    size_t n, room;
} opened_stream;

static void release_stream(opened_stream *o) {
    PyObject *raised = PyErr_GetRaisedException(); /* a release may run Python code of whoever made it */
    for (size_t i = 0; i < o->n; i++)
        if (o->arrays[i].release != NULL)
            o->arrays[i].release(&o->arrays[i]);
    free(o->arrays);
    if (o->schema.release != NULL)
        o->schema.release(&o->schema);
    if (o->stream.release != NULL)
        o->stream.release(&o->stream);
    PyErr_SetRaisedException(raised);
}

static int raise_stream_error(opened_stream *o, int error) {
    const char *text = o->stream.get_last_error == NULL ? NULL : o->stream.get_last_error(&o->stream);
    if (!PyErr_Occurred())
        PyErr_Format(error == ENOMEM ? PyExc_MemoryError : PyExc_RuntimeError, "from_arrow(): the stream failed: %s",
                     text != NULL ? text : strerror(error));
    return -1;
}

/* All arrays that have elements. */
static int read_stream(opened_stream *o) {
    int error = o->stream.get_schema(&o->stream, &o->schema);
    while (error == 0) {
        if (o->n == o->room) {
            const size_t room = 2 * o->room + 4;
            struct ArrowArray *more = realloc(o->arrays, room * sizeof *more);
            if (more == NULL) {
                PyErr_NoMemory();
                return -1;
            }
            o->arrays = more;
            o->room = room;
        }
        struct ArrowArray *next = &o->arrays[o->n];
        *next = (struct ArrowArray){0};
        if ((error = o->stream.get_next(&o->stream, next)) != 0)
            break;
        if (next->release == NULL)
            return 0;
        if (next->length == 0)
            next->release(next);
        else
            o->n++;
    }
    return raise_stream_error(o, error);
}

static PyObject *import_stream(core_state *state, PyObject *capsule, bool copy) {
    struct ArrowArrayStream *given = pointer_of(capsule, STREAM);
    if (given == NULL)
        return NULL;
    if (given->release == NULL || given->get_schema == NULL || given->get_next == NULL) {
        PyErr_SetString(PyExc_ValueError, "from_arrow(): what the capsule held was released, or somebody else has taken it");
        return NULL;
    }
    opened_stream o = {.stream = *given};
    given->release = NULL;
    PyObject *result = NULL;
    if (read_stream(&o) == 0) {
        if (o.schema.release == NULL || o.schema.format == NULL)
            raise_impossible("a stream without a schema");
        else
            result = import_arrays(state, &o.schema, o.arrays, o.n, copy);
    }
    release_stream(&o);
    return result;
}

/* What the object's method of that name gives; NULL without an exception: it has none. */
static PyObject *ask(PyObject *object, const char *name) {
    PyObject *method = PyObject_GetAttrString(object, name);
    if (method == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Clear();
        return NULL;
    }
    PyObject *result = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    return result;
}

static PyObject *core_from_arrow(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"x", "copy"};
    static const signature parameters = {"from_arrow", 2, 1, 1, names};
    core_state *state = state_of_module(module);
    PyObject *given[2];
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    int copy = given[1] == NULL || given[1] == Py_None ? 0 : PyObject_IsTrue(given[1]);
    if (copy < 0)
        return NULL;
    if (PyTuple_Check(given[0]))
        return import_pair(state, given[0], copy != 0);
    const bool stream = PyCapsule_IsValid(given[0], STREAM);
    PyObject *found = stream ? Py_NewRef(given[0]) : ask(given[0], "__arrow_c_array__"), *result;
    if (found != NULL) {
        result = stream ? import_stream(state, found, copy != 0) : import_pair(state, found, copy != 0);
    } else {
        found = PyErr_Occurred() ? NULL : ask(given[0], "__arrow_c_stream__");
        result = found == NULL ? NULL : import_stream(state, found, copy != 0);
        if (found == NULL && !PyErr_Occurred())
            PyErr_Format(PyExc_TypeError,
                         "from_arrow() needs an object with __arrow_c_array__() or __arrow_c_stream__(), or their capsules, not %.200s",
                         Py_TYPE(given[0])->tp_name);
    }
    Py_XDECREF(found);
    return result;
}

PyMethodDef arrow_functions[] = {
    {"from_arrow", KEYWORDS(core_from_arrow),
     PyDoc_STR(
         "from_arrow($module, /, x, *, copy=False)\n--\n\n"
         "A read-only SharedArray over the memory of an Arrow array: any object with __arrow_c_array__() or __arrow_c_stream__() (a column of\n"
         "polars or pandas, a ChunkedArray of pyarrow), or what these return.\n\n"
         "Without a copy, for primitives: integers, floats, date64 and timestamps without a time zone (as datetime64), durations\n"
         "(timedelta64), binary of a fixed size (V); of a stream if one chunk at most has elements, else ValueError. TypeError, naming\n"
         "Arrow's format, for everything else. ValueError if there are nulls.\n\n"
         "copy=True: always a new array, writable, in memory of the heap. It puts chunks together, and takes what lies differently there:\n"
         "booleans, which are bits, and date32, which becomes datetime64[D]. It is never done unasked: who calls from_arrow wants the memory.\n\n"
         "Ownership: without a copy the array has taken x's export; its release callback is called once, by the last owner, in whatever\n"
         "thread and interpreter that is, without a GIL. The memory can't leave the process: send array(x), or a copy, to others.")},
    {NULL, NULL, 0, NULL},
};
