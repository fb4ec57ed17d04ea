/* dtype.c: isthmus.dtype, the kinds of element an array can have: the objects and their type.
 *
 * The native numbers are one immutable object each and interpreter. Every other dtype has a text, its *spec*, which says all of it;
 * tokens and messages carry it, and the interpreter's `known` keeps some of them by it, so that comparing pointers mostly settles whether
 * two are the same (dtype_same).
 *
 *   spec   = numpy's string ("<f8", "|S10", "<M8[25s]")
 *          | "(" length { "," length } ")" spec                                     a sub-array
 *          | "{" itemsize ["a"] { ";" bytes ":" name "@" offset ":" spec } "}"      fields; a: aligned; bytes: of the name in UTF-8
 *
 * Two grammars come in from outside, and they disagree ("<l" has 8 bytes for numpy and 4 for struct): numpy_grammar.c reads numpy's,
 * format.c PEP 3118's.
 */
#include "dtype.h"

#include <limits.h>

#define KNOWN_MAX 512 /* dtypes; beyond that they are forgotten, and made anew where they come up again */

static const struct {
    const char *str, *swapped, *name, *format;
    char kind;
    unsigned char itemsize, alignment;
} numbers[IST_CLONG + 1] = {
/* format: as numpy has it, an l that has 8 bytes, else q */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#  define STR(text) ">" text, "<" text
#else
#  define STR(text) "<" text, ">" text
#endif
#define OF(type) sizeof(type), _Alignof(type)
    [IST_BOOL] = {"|b1", "|b1", "bool", "?", 'b', 1, 1},
    [IST_I1] = {"|i1", "|i1", "int8", "b", 'i', 1, 1},
    [IST_U1] = {"|u1", "|u1", "uint8", "B", 'u', 1, 1},
    [IST_I2] = {STR("i2"), "int16", "h", 'i', OF(int16_t)},
    [IST_U2] = {STR("u2"), "uint16", "H", 'u', OF(uint16_t)},
    [IST_I4] = {STR("i4"), "int32", "i", 'i', OF(int32_t)},
    [IST_U4] = {STR("u4"), "uint32", "I", 'u', OF(uint32_t)},
    [IST_I8] = {STR("i8"), "int64", sizeof(long) == 8 ? "l" : "q", 'i', OF(int64_t)},
    [IST_U8] = {STR("u8"), "uint64", sizeof(long) == 8 ? "L" : "Q", 'u', OF(uint64_t)},
    [IST_F2] = {STR("f2"), "float16", "e", 'f', OF(uint16_t)},
    [IST_F4] = {STR("f4"), "float32", "f", 'f', OF(float)},
    [IST_F8] = {STR("f8"), "float64", "d", 'f', OF(double)},
    [IST_C8] = {STR("c8"), "complex64", "Zf", 'c', OF(float[2])},
    [IST_C16] = {STR("c16"), "complex128", "Zd", 'c', OF(double[2])},
    [IST_LONG] = {STR("f16"), "float128", NULL, 'f', OF(long double)},
    [IST_CLONG] = {STR("c32"), "complex256", NULL, 'c', OF(long double[2])},
};
static_assert(sizeof(long double) == 16, "the strings above say so");

const char *dtype_name(ist_type_code code) { return numbers[code].name; }

/* ---- objects -------------------------------------------------------------------------------------------------------------------- */

static DTypeObject *allocate(core_state *state, ist_type_code code, char kind, Py_ssize_t itemsize, Py_ssize_t alignment) {
    DTypeObject *d = PyObject_GC_New(DTypeObject, state->dtype_type);
    if (d == NULL)
        return NULL;
    memset((char *)d + sizeof(PyObject), 0, sizeof *d - sizeof(PyObject));
    d->code = code;
    d->kind = kind;
    d->itemsize = itemsize;
    d->alignment = alignment;
    d->str = d->spec = d->layout = "";
    return d;
}

/* Tracked, and known by its spec if there is room. Takes d; an equal dtype that is known already comes back in its stead. */
static DTypeObject *settle(core_state *state, DTypeObject *d) {
    PyObject_GC_Track((PyObject *)d);
    PyObject *spec = PyUnicode_FromString(d->spec);
    PyObject *found = spec == NULL ? NULL : PyDict_GetItemWithError(state->known, spec);
    if (found != NULL) {
        Py_INCREF(found);
        Py_SETREF(d, (DTypeObject *)found);
    } else if (spec == NULL || PyErr_Occurred()) {
        Py_CLEAR(d);
    } else {
        if (PyDict_GET_SIZE(state->known) >= KNOWN_MAX)
            PyDict_Clear(state->known);
        if (PyDict_SetItem(state->known, spec, (PyObject *)d) < 0)
            Py_CLEAR(d);
    }
    Py_XDECREF(spec);
    return d;
}

/* Copies one text for str and spec. */
static int name_it(DTypeObject *d, const char *text) {
    size_t size = strlen(text) + 1;
    d->own[0] = PyMem_RawMalloc(size);
    if (d->own[0] == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(d->own[0], text, size);
    d->str = d->spec = d->layout = d->own[0];
    return 0;
}

DTypeObject *dtype_of_code(core_state *state, ist_type_code code, bool swapped) {
    swapped = swapped && numbers[code].itemsize > 1;
    if (code < IST_NUMBERS && !swapped)
        return dtype_ref(state->dtypes[code]);
    DTypeObject *d = allocate(state, code, numbers[code].kind, numbers[code].itemsize, numbers[code].alignment);
    if (d == NULL)
        return NULL;
    d->swapped = swapped;
    d->str = d->spec = d->layout = swapped ? numbers[code].swapped : numbers[code].str;
    return settle(state, d);
}

static DTypeObject *too_long(void) {
    PyErr_Format(PyExc_ValueError, "a dtype's elements have at most %d bytes", DTYPE_ITEMSIZE_MAX);
    return NULL;
}

DTypeObject *dtype_of_length(core_state *state, ist_type_code code, Py_ssize_t length, bool swapped) {
    const Py_ssize_t unit = code == IST_TEXT ? 4 : 1;
    if (length < 0 || length > DTYPE_ITEMSIZE_MAX / unit)
        return too_long();
    const char kind = code == IST_BYTES ? 'S' : code == IST_TEXT ? 'U' : 'V';
    DTypeObject *d = allocate(state, code, kind, length * unit, unit);
    if (d == NULL)
        return NULL;
    char text[32];
    d->swapped = code == IST_TEXT && swapped;
    PyOS_snprintf(text, sizeof text, "%c%c%zd", code != IST_TEXT ? '|' : swapped ? SWAPPED_ORDER : NATIVE_ORDER, kind, length);
    if (name_it(d, text) < 0) {
        Py_DECREF((PyObject *)d);
        return NULL;
    }
    return settle(state, d);
}

DTypeObject *dtype_of_time(core_state *state, ist_type_code code, int unit, int32_t count, bool swapped) {
    const char kind = code == IST_DATETIME ? 'M' : 'm';
    DTypeObject *d = allocate(state, code, kind, 8, _Alignof(int64_t));
    if (d == NULL)
        return NULL;
    char text[48], number[16] = "";
    d->swapped = swapped;
    d->unit = (unsigned char)unit;
    d->count = unit == UNIT_GENERIC ? 1 : count;
    if (count != 1)
        PyOS_snprintf(number, sizeof number, "%d", (int)count);
    int used = PyOS_snprintf(text, sizeof text, "%c%c8", swapped ? SWAPPED_ORDER : NATIVE_ORDER, kind);
    if (unit != UNIT_GENERIC)
        PyOS_snprintf(text + used, sizeof text - (size_t)used, "[%s%s]", number, times_unit_name(unit));
    if (name_it(d, text) < 0) {
        Py_DECREF((PyObject *)d);
        return NULL;
    }
    return settle(state, d);
}

/* ---- composed ones: their text is written into a list of pieces ---------------------------------------------------------------- */

/* A copy of a text and, behind it, of another; takes the first. */
static char *keep(PyObject *text, const char *second) {
    Py_ssize_t size;
    const char *utf8 = text == NULL ? NULL : PyUnicode_AsUTF8AndSize(text, &size);
    const size_t second_size = strlen(second) + 1;
    char *kept = NULL;
    if (utf8 != NULL && strlen(utf8) != (size_t)size) {
        PyErr_SetString(PyExc_ValueError, "a field's name can't have a null character in it");
    } else if (utf8 != NULL) {
        kept = PyMem_RawMalloc((size_t)size + 1 + second_size);
        if (kept == NULL) {
            PyErr_NoMemory();
        } else {
            memcpy(kept, utf8, (size_t)size + 1);
            memcpy(kept + size + 1, second, second_size);
        }
    }
    Py_XDECREF(text);
    return kept;
}

static int finish(DTypeObject *d, PyObject *(*text_of)(const DTypeObject *, bool)) {
    char str[32];
    PyOS_snprintf(str, sizeof str, "|V%zd", d->itemsize);
    d->own[0] = keep(text_of(d, true), str);
    d->own[1] = d->own[0] == NULL ? NULL : keep(text_of(d, false), "");
    if (d->own[1] == NULL)
        return -1;
    d->spec = d->own[0];
    d->str = d->own[0] + strlen(d->own[0]) + 1;
    d->layout = d->own[1];
    return 0;
}

static PyObject *spec_of_shape(const DTypeObject *d, bool flags) {
    PyObject *text = PyUnicode_FromString("(");
    for (int i = 0; text != NULL && i < d->sub_ndim; i++)
        Py_SETREF(text, PyUnicode_FromFormat(i > 0 ? "%U,%zd" : "%U%zd", text, d->sub_shape[i]));
    if (text != NULL)
        Py_SETREF(text, PyUnicode_FromFormat("%U)%s", text, flags ? d->base->spec : d->base->layout));
    return text;
}

DTypeObject *dtype_of_shape(core_state *state, DTypeObject *base, int ndim, const Py_ssize_t *shape) {
    if (ndim == 0)
        return dtype_ref(base);
    Py_ssize_t itemsize = base->itemsize;
    Py_ssize_t lengths[2 * IST_MAX_NDIM];
    int all = ndim;
    memcpy(lengths, shape, (size_t)ndim * sizeof *shape);
    DTypeObject *of = base;
    if (base->code == IST_SUBARRAY) { /* of sub-arrays: one with the axes of both */
        memcpy(lengths + ndim, base->sub_shape, (size_t)base->sub_ndim * sizeof *shape);
        all += base->sub_ndim;
        of = base->base;
    }
    if (of->itemsize == 0) {
        PyErr_Format(PyExc_ValueError, "a sub-array of elements without a length: '%s'", of->str);
        return NULL;
    }
    /* Axes of length 0 apart: whoever goes through the others mustn't be kept busy by numbers that came from outside. */
    Py_ssize_t others = of->itemsize;
    for (int i = 0; i < all; i++) {
        if (lengths[i] < 0) {
            PyErr_Format(PyExc_ValueError, "negative dimensions are not allowed: %zd", lengths[i]);
            return NULL;
        }
        if (__builtin_mul_overflow(others, lengths[i] > 0 ? lengths[i] : 1, &others) || others > DTYPE_ITEMSIZE_MAX)
            return too_long();
        itemsize *= i < ndim ? lengths[i] : 1;
    }
    if (all > IST_MAX_NDIM) {
        PyErr_Format(PyExc_ValueError, "a sub-array of %d dimensions; at most %d", all, IST_MAX_NDIM);
        return NULL;
    }
    DTypeObject *d = allocate(state, IST_SUBARRAY, 'V', itemsize, of->alignment);
    if (d == NULL)
        return NULL;
    d->base = dtype_ref(of);
    d->depth = of->depth;
    d->gaps = of->gaps;
    d->sub_shape = PyMem_RawMalloc((size_t)all * sizeof *d->sub_shape);
    if (d->sub_shape == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    d->sub_ndim = all;
    memcpy(d->sub_shape, lengths, (size_t)all * sizeof *lengths);
    if (finish(d, spec_of_shape) < 0)
        goto fail;
    return settle(state, d);
fail:
    Py_DECREF((PyObject *)d);
    return NULL;
}

Py_ssize_t dtype_lay_out(ist_field *fields, Py_ssize_t n, bool aligned) {
    Py_ssize_t at = 0, alignment = 1;
    for (Py_ssize_t i = 0; i < n; i++) {
        const DTypeObject *d = fields[i].dtype;
        if (aligned) {
            at = (at + d->alignment - 1) / d->alignment * d->alignment;
            alignment = Py_MAX(alignment, d->alignment);
        }
        fields[i].offset = at;
        at += d->itemsize;
        if (at > DTYPE_ITEMSIZE_MAX) {
            too_long();
            return -1;
        }
    }
    return (at + alignment - 1) / alignment * alignment;
}

static PyObject *spec_of_fields(const DTypeObject *d, bool flags) {
    PyObject *pieces = PyList_New(0), *empty = PyUnicode_FromString(""), *text = NULL;
    for (Py_ssize_t i = -1; pieces != NULL && i <= d->nfields; i++) {
        PyObject *piece;
        if (i < 0) {
            piece = PyUnicode_FromFormat("{%zd%s", d->itemsize, d->aligned && flags ? "a" : "");
        } else if (i == d->nfields) {
            piece = PyUnicode_FromString("}");
        } else {
            Py_ssize_t size;
            const ist_field *f = &d->fields[i];
            piece = PyUnicode_AsUTF8AndSize(f->name, &size) == NULL
                        ? NULL
                        : PyUnicode_FromFormat(";%zd:%U@%zd:%s", size, f->name, f->offset, flags ? f->dtype->spec : f->dtype->layout);
        }
        if (piece == NULL || PyList_Append(pieces, piece) < 0)
            Py_CLEAR(pieces);
        Py_XDECREF(piece);
    }
    if (pieces != NULL && empty != NULL)
        text = PyUnicode_Join(empty, pieces);
    Py_XDECREF(pieces);
    Py_XDECREF(empty);
    return text;
}

static int check_fields(const ist_field *fields, Py_ssize_t n, Py_ssize_t itemsize) {
    PyObject *names = PySet_New(NULL);
    int result = names == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; i < n && result == 0; i++) {
        int there = PySet_Contains(names, fields[i].name);
        if (there == 0 && fields[i].offset >= 0 && fields[i].dtype->itemsize <= itemsize - fields[i].offset) {
            result = PySet_Add(names, fields[i].name);
            continue;
        }
        result = -1;
        if (there > 0)
            PyErr_Format(PyExc_ValueError, "field %R occurs more than once", fields[i].name);
        else if (there == 0)
            PyErr_Format(PyExc_ValueError, "field %R of %zd bytes at offset %zd doesn't lie inside an item of %zd bytes", fields[i].name,
                         fields[i].dtype->itemsize, fields[i].offset, itemsize);
    }
    Py_XDECREF(names);
    return result;
}

DTypeObject *dtype_of_fields(core_state *state, const ist_field *fields, Py_ssize_t n, Py_ssize_t itemsize, bool aligned) {
    Py_ssize_t needed = 0, alignment = 1, covered = 0;
    int depth = 0;
    bool gaps = false;
    for (Py_ssize_t i = 0; i < n; i++) {
        Py_ssize_t end;
        if (__builtin_add_overflow(fields[i].offset, fields[i].dtype->itemsize, &end))
            return too_long();
        needed = Py_MAX(needed, end);
        gaps |= fields[i].dtype->gaps || fields[i].offset != covered; /* out of order, too: nothing is won by being exact */
        covered = end;
        depth = Py_MAX(depth, fields[i].dtype->depth);
        if (aligned)
            alignment = Py_MAX(alignment, fields[i].dtype->alignment);
    }
    if (itemsize < 0)
        itemsize = needed > PY_SSIZE_T_MAX - alignment ? needed : (needed + alignment - 1) / alignment * alignment;
    if (itemsize > DTYPE_ITEMSIZE_MAX)
        return too_long();
    if (depth >= DTYPE_DEPTH) {
        PyErr_Format(PyExc_ValueError, "structs nested deeper than %d", DTYPE_DEPTH);
        return NULL;
    }
    if (check_fields(fields, n, itemsize) < 0)
        return NULL;
    DTypeObject *d = allocate(state, IST_STRUCT, 'V', itemsize, alignment);
    if (d == NULL)
        return NULL;
    d->aligned = aligned;
    d->depth = depth + 1;
    d->gaps = gaps || covered != itemsize;
    d->fields = PyMem_RawCalloc((size_t)n + 1, sizeof *fields);
    if (d->fields == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    d->nfields = n;
    for (Py_ssize_t i = 0; i < n; i++) {
        d->fields[i] = fields[i];
        Py_INCREF(fields[i].name);
        Py_INCREF((PyObject *)fields[i].dtype);
    }
    if (finish(d, spec_of_fields) < 0)
        goto fail;
    return settle(state, d);
fail:
    Py_DECREF((PyObject *)d);
    return NULL;
}

/* ---- byte order ------------------------------------------------------------------------------------------------------------------- */

static DTypeObject *fields_in_order(core_state *state, const DTypeObject *d, char order) {
    field_list list = {NULL, 0, 0};
    DTypeObject *result = NULL;
    for (Py_ssize_t i = 0; i < d->nfields; i++) {
        const ist_field *f = &d->fields[i];
        if (field_list_add(&list, Py_NewRef(f->name), dtype_in_order(state, f->dtype, order), f->offset) < 0)
            goto done;
    }
    result = dtype_of_fields(state, list.fields, list.n, d->itemsize, d->aligned);
done:
    field_list_clear(&list);
    return result;
}

DTypeObject *dtype_in_order(core_state *state, const DTypeObject *d, char order) {
    const bool swapped = order == 'S' ? !d->swapped : order == SWAPPED_ORDER;
    switch (d->code) {
    case IST_STRUCT: return fields_in_order(state, d, order);
    case IST_SUBARRAY: {
        DTypeObject *base = dtype_in_order(state, d->base, order);
        DTypeObject *result = base == NULL ? NULL : dtype_of_shape(state, base, d->sub_ndim, d->sub_shape);
        Py_XDECREF((PyObject *)base);
        return result;
    }
    case IST_BYTES:
    case IST_VOID: return dtype_ref(d);
    case IST_TEXT: return dtype_of_length(state, IST_TEXT, d->itemsize / 4, swapped);
    case IST_DATETIME:
    case IST_TIMEDELTA: return dtype_of_time(state, d->code, d->unit, d->count, swapped);
    default: return dtype_of_code(state, d->code, swapped);
    }
}

/* ---- specs: bytes from anywhere --------------------------------------------------------------------------------------------------- */

typedef struct spec_reader {
    core_state *state;
    const char *at, *end;
    int depth;
} spec_reader;

static DTypeObject *read_spec(spec_reader *r);

static DTypeObject *bad_spec(void) {
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "not the description of a dtype");
    return NULL;
}

static bool take(spec_reader *r, char c) {
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

/* A number within numpy's limit; -1: there is none. */
static Py_ssize_t take_number(spec_reader *r) {
    Py_ssize_t n = -1;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9' && n <= DTYPE_ITEMSIZE_MAX; r->at++)
        n = (n < 0 ? 0 : n * 10) + (*r->at - '0');
    return n > DTYPE_ITEMSIZE_MAX ? -1 : n;
}

static DTypeObject *read_shaped(spec_reader *r) {
    Py_ssize_t shape[IST_MAX_NDIM];
    int ndim = 0;
    do {
        if (ndim == IST_MAX_NDIM || (shape[ndim++] = take_number(r)) < 0)
            return bad_spec();
    } while (take(r, ','));
    if (!take(r, ')') || r->at == r->end || *r->at == '(')
        return bad_spec();
    DTypeObject *base = read_spec(r);
    DTypeObject *result = base == NULL ? NULL : dtype_of_shape(r->state, base, ndim, shape);
    Py_XDECREF((PyObject *)base);
    return result;
}

static DTypeObject *read_fields(spec_reader *r) {
    field_list list = {NULL, 0, 0};
    DTypeObject *result = NULL;
    Py_ssize_t itemsize = take_number(r);
    bool aligned = take(r, 'a');
    if (itemsize < 0)
        return bad_spec();
    while (take(r, ';')) {
        Py_ssize_t size = take_number(r);
        if (size < 0 || !take(r, ':') || size > r->end - r->at)
            goto bad;
        PyObject *name = PyUnicode_DecodeUTF8(r->at, size, NULL);
        r->at += size;
        Py_ssize_t offset = name != NULL && take(r, '@') ? take_number(r) : -1;
        if (offset < 0 || !take(r, ':')) {
            Py_XDECREF(name);
            goto bad;
        }
        if (field_list_add(&list, name, read_spec(r), offset) < 0)
            goto bad;
    }
    if (take(r, '}'))
        result = dtype_of_fields(r->state, list.fields, list.n, itemsize, aligned);
    else
        bad_spec();
    field_list_clear(&list);
    return result;
bad:
    field_list_clear(&list);
    return bad_spec();
}

static DTypeObject *read_time(spec_reader *r, char kind, bool swapped) {
    char text[24];
    size_t n = 0;
    int unit;
    int32_t count;
    if (r->at < r->end && *r->at == '[')
        do {
            if (n == sizeof text - 1 || r->at == r->end)
                return bad_spec();
            text[n++] = *r->at;
        } while (*r->at++ != ']');
    text[n] = '\0';
    if (!times_parse_unit(text, &unit, &count))
        return bad_spec();
    return dtype_of_time(r->state, kind == 'M' ? IST_DATETIME : IST_TIMEDELTA, unit, count, swapped);
}

static DTypeObject *read_simple(spec_reader *r) {
    if (r->end - r->at < 3)
        return bad_spec();
    const char order = *r->at++, kind = *r->at++;
    const Py_ssize_t size = take_number(r);
    const bool swapped = order == SWAPPED_ORDER;
    if (size < 0 || (!swapped && order != NATIVE_ORDER && order != '|'))
        return bad_spec();
    switch (kind) {
    case 'S': return dtype_of_length(r->state, IST_BYTES, size, false);
    case 'U': return dtype_of_length(r->state, IST_TEXT, size, swapped);
    case 'V': return dtype_of_length(r->state, IST_VOID, size, false);
    case 'M':
    case 'm': return size == 8 ? read_time(r, kind, swapped) : bad_spec();
    default: {
        int code = code_of_size(kind, (size_t)size);
        return code == NO_CODE ? bad_spec() : dtype_of_code(r->state, (ist_type_code)code, swapped);
    }
    }
}

static DTypeObject *read_spec(spec_reader *r) {
    if (++r->depth > 2 * DTYPE_DEPTH)
        return bad_spec();
    DTypeObject *d = take(r, '{') ? read_fields(r) : take(r, '(') ? read_shaped(r) : read_simple(r);
    r->depth--;
    return d;
}

DTypeObject *dtype_from_spec(core_state *state, const char *spec, Py_ssize_t length) {
    PyObject *text = PyUnicode_DecodeUTF8(spec, length, NULL);
    PyObject *known = text == NULL ? NULL : PyDict_GetItemWithError(state->known, text);
    Py_XINCREF(known);
    Py_XDECREF(text);
    if (known != NULL || PyErr_Occurred())
        return (DTypeObject *)known;
    spec_reader r = {state, spec, spec + length, 0};
    DTypeObject *d = read_spec(&r);
    if (d != NULL && r.at != r.end) {
        Py_CLEAR(d);
        bad_spec();
    }
    return d;
}

/* ---- start -------------------------------------------------------------------------------------------------------------------------- */

int dtype_init(PyObject *module, core_state *state) {
    state->dtype_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &dtype_type_spec, NULL);
    state->known = PyDict_New();
    if (state->dtype_type == NULL || state->known == NULL)
        return -1;
    for (int code = 0; code < IST_NUMBERS; code++) {
        DTypeObject *d = allocate(state, (ist_type_code)code, numbers[code].kind, numbers[code].itemsize, numbers[code].alignment);
        if (d == NULL)
            return -1;
        d->str = d->spec = d->layout = numbers[code].str;
        d->plain = numbers[code].format;
        state->dtypes[code] = d;
        PyObject_GC_Track((PyObject *)d);
    }
    return PyModule_AddType(module, state->dtype_type);
}
