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

#include <pthread.h>
#include <stdlib.h>

#define SCHEMA "arrow_schema"
#define ARRAY "arrow_array"

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

static DTypeObject *dtype_of_time_format(core_state *state, const char *format) {
    const ist_type_code code = format[1] == 'D' ? IST_TIMEDELTA : IST_DATETIME;
    if (strcmp(format, "tdm") == 0)
        return dtype_of_time(state, IST_DATETIME, UNIT_ms, 1, false);
    if (strcmp(format, "tdD") == 0)
        return refuse_format(format, "days of 32 bits, which datetime64 doesn't have; cast to date64 or int32 first");
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

/* New reference. */
static DTypeObject *dtype_of_format(core_state *state, const char *format) {
    for (size_t i = 0; i < LETTERS; i++)
        if (format[0] == letters[i].letter && format[1] == '\0')
            return dtype_ref(state->dtypes[letters[i].code]);
    if (strcmp(format, "b") == 0)
        return refuse_format(format, "booleans of one bit each, where an array has bytes; cast to uint8 first");
    if (strncmp(format, "w:", 2) == 0)
        return dtype_of_width(state, format);
    if (format[0] == 't')
        return dtype_of_time_format(state, format);
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

static PyObject *schema_capsule(const DTypeObject *dtype) {
    char format[FORMAT_SIZE];
    if (format_of(dtype, format) < 0)
        return NULL;
    struct ArrowSchema *schema = malloc(sizeof *schema);
    char *kept = malloc(FORMAT_SIZE);
    PyObject *capsule = NULL;
    if (schema == NULL || kept == NULL) {
        PyErr_NoMemory();
    } else {
        memcpy(kept, format, FORMAT_SIZE);
        *schema = (struct ArrowSchema){.format = kept, .name = "", .release = schema_release, .private_data = kept};
        capsule = PyCapsule_New(schema, SCHEMA, schema_capsule_end);
    }
    if (capsule == NULL) {
        free(kept);
        free(schema);
    }
    return capsule;
}

/* `a` is held. */
static PyObject *array_capsule(SharedArrayObject *a) {
    struct ArrowArray *array = malloc(sizeof *array);
    array_export *e = malloc(sizeof *e);
    PyObject *capsule = NULL;
    if (array == NULL || e == NULL) {
        PyErr_NoMemory();
    } else {
        *e = (array_export){array_root(a)->segment, {NULL, a->data}};
        *array = (struct ArrowArray){
            .length = ARRAY_SHAPE(a)[0],
            .n_buffers = 2,
            .buffers = e->buffers,
            .release = array_export_release,
            .private_data = e,
        };
        capsule = PyCapsule_New(array, ARRAY, array_capsule_end);
    }
    if (capsule == NULL) {
        free(e);
        free(array);
    } else {
        ist_segment_retain_inline(e->segment);
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

PyMethodDef arrow_methods[] = {
    {"__arrow_c_array__", KEYWORDS(array_arrow_array),
     PyDoc_STR(
         "__arrow_c_array__($self, /, requested_schema=None)\n--\n\n"
         "Capsules of Arrow's C data interface, schema and array, without a copy: what pyarrow.array(a) and polars.Series(a) ask for.\n\n"
         "For one axis, side by side, of integers, floats, datetime64 and timedelta64 in s to ns, or V; else TypeError or BufferError.\n"
         "Ownership: the array counts as an owner until it was released, in whatever thread; freeze() raises meanwhile. Arrow takes\n"
         "arrays for immutable: freeze first what must not change under its reader. NaT goes as the number it is, not as a null.\n"
         "requested_schema is only a wish in the interface, and would be a copy: it isn't followed.")},
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

static int check_array(const struct ArrowSchema *schema, const struct ArrowArray *array, const DTypeObject *dtype, Py_ssize_t *nbytes,
                       char **start) {
    if (schema->n_children != 0 || array->n_children != 0 || array->n_buffers != 2 || array->buffers == NULL)
        return raise_impossible("a primitive has two buffers and no children");
    int64_t end;
    Py_ssize_t skip;
    if (array->length < 0 || array->offset < 0 || __builtin_add_overflow(array->offset, array->length, &end) ||
        __builtin_mul_overflow(array->length, dtype->itemsize, nbytes) || __builtin_mul_overflow(array->offset, dtype->itemsize, &skip))
        return raise_impossible("its length and offset are beyond all memory");
    static const char nothing[1]; /* an address for what has no elements */
    const char *values = array->buffers[1];
    if (values == NULL && array->length > 0)
        return raise_impossible("elements, but no memory");
    *start = (char *)(uintptr_t)(values == NULL ? nothing : values + skip);
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
    char *start;
    if (check_array(schema, array, dtype, &nbytes, &start) < 0)
        return NULL;
    struct ArrowArray *moved = malloc(sizeof *moved);
    if (moved == NULL)
        return PyErr_NoMemory();
    *moved = *array;
    ist_segment segment;
    int error = ist_segment_wrap(start, (size_t)nbytes, imported_free, moved, IST_READONLY, &segment);
    if (error != 0) {
        free(moved);
        return raise_error(state, error, "from_arrow() of %zd bytes", nbytes);
    }
    array->release = NULL;
    ist_segment_set_creator(segment, (uint64_t)state->interpreter);
    return (PyObject *)array_new_root(state, segment, dtype, 1, &length, NULL, 0, ARRAY_READONLY);
}

/* What a capsule of that name points to; NULL with an exception. */
static void *pointer_of(PyObject *capsule, const char *name) {
    if (PyCapsule_IsValid(capsule, name))
        return PyCapsule_GetPointer(capsule, name);
    PyErr_Format(PyExc_TypeError, "from_arrow(): %R isn't a capsule named \"%s\"", capsule, name);
    return NULL;
}

static PyObject *import_pair(core_state *state, PyObject *pair) {
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
    if (schema->dictionary != NULL || array->dictionary != NULL)
        return (PyObject *)refuse_format(schema->format, "indices into a dictionary; decode it first");
    DTypeObject *dtype = dtype_of_format(state, schema->format);
    PyObject *result = dtype == NULL ? NULL : import_array(state, schema, array, dtype);
    Py_XDECREF((PyObject *)dtype);
    return result;
}

static PyObject *core_from_arrow(PyObject *module, PyObject *object) {
    core_state *state = state_of_module(module);
    if (PyTuple_Check(object))
        return import_pair(state, object);
    PyObject *method = PyObject_GetAttrString(object, "__arrow_c_array__");
    if (method == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear();
            PyErr_Format(
                PyExc_TypeError,
                "from_arrow() needs an object with __arrow_c_array__(), or its two capsules, not %.200s (what consists of chunks has one "
                "for each, or has to be put together first)",
                Py_TYPE(object)->tp_name);
        }
        return NULL;
    }
    PyObject *pair = PyObject_CallNoArgs(method), *result = pair == NULL ? NULL : import_pair(state, pair);
    Py_XDECREF(pair);
    Py_DECREF(method);
    return result;
}

PyMethodDef arrow_functions[] = {
    {"from_arrow", core_from_arrow, METH_O,
     PyDoc_STR(
         "from_arrow($module, x, /)\n--\n\n"
         "A read-only SharedArray over the memory of an Arrow array: any object with __arrow_c_array__(), or its pair of capsules.\n\n"
         "Without a copy, for primitives: integers, floats, date64 and timestamps without a time zone (as datetime64), durations\n"
         "(timedelta64), binary of a fixed size (V). TypeError, naming Arrow's format, for everything else: booleans, which are bits there,\n"
         "date32, whose 32 bits datetime64 doesn't have, dictionaries, nested types. ValueError if there are nulls.\n\n"
         "Ownership: the array has taken x's export; its release callback is called once, by the last owner, in whatever thread and\n"
         "interpreter that is, without a GIL. The memory can't leave the process: send array(x) to others.")},
    {NULL, NULL, 0, NULL},
};
