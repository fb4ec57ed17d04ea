/* format.c: PEP 3118's formats, the struct module's with shapes, structures and names added: written as numpy writes them, read as numpy
 * reads them.
 *
 * Where memory is aligned the byte order is '@' and sizes are the machine's, which is what most consumers know; where it isn't, '=' with
 * standard sizes. So a format belongs to a dtype and an alignment of the memory. Padding is spelled out as x, but for that at the end.
 * There is no format for times, nor for fields that overlap or are out of order: ValueError, as numpy's.
 */
#include "dtype.h"

#include <ctype.h>

/* ---- writing ---------------------------------------------------------------------------------------------------------------------------- */

typedef struct writer {
    char *text;
    size_t used, room;
    Py_ssize_t alignment; /* of the memory */
    Py_ssize_t offset;    /* of the next byte in the item */
    Py_ssize_t native;    /* alignment of what was written in '@', to which a reader pads the whole item */
    int depth;            /* of structures */
    char order;           /* in force */
} writer;

static int put(writer *w, const char *text) {
    size_t length = strlen(text);
    if (w->used + length + 1 > w->room) {
        size_t room = 2 * (w->used + length + 32);
        char *more = PyMem_RawRealloc(w->text, room);
        if (more == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        w->text = more;
        w->room = room;
    }
    memcpy(w->text + w->used, text, length + 1);
    w->used += length;
    return 0;
}

static int put_padding(writer *w, Py_ssize_t until) {
    for (; w->offset < until; w->offset++)
        if (put(w, "x") < 0)
            return -1;
    return 0;
}

static int put_order(writer *w, char order) {
    if (w->order == order)
        return 0;
    w->order = order;
    return put(w, (char[]){order, '\0'});
}

static int no_format(const DTypeObject *d, const char *why) {
    PyErr_Format(PyExc_ValueError, "dtype '%s' has no buffer format: %s", d->str, why);
    return -1;
}

static const char *letters_of(const DTypeObject *d, bool standard) {
    switch (d->code) {
    case IST_BOOL: return "?";
    case IST_I1: return "b";
    case IST_U1: return "B";
    case IST_I2: return "h";
    case IST_U2: return "H";
    case IST_I4: return "i";
    case IST_U4: return "I";
    /* as numpy has it: an l that has 8 bytes, else q */
    case IST_I8: return sizeof(long) == 8 && !standard ? "l" : "q";
    case IST_U8: return sizeof(long) == 8 && !standard ? "L" : "Q";
    case IST_F2: return "e";
    case IST_F4: return "f";
    case IST_F8: return "d";
    case IST_LONG: return "g";
    case IST_C8: return "Zf";
    case IST_C16: return "Zd";
    case IST_CLONG: return "Zg";
    default: return NULL;
    }
}

static int put_simple(writer *w, const DTypeObject *d) {
    char text[32];
    const bool native_only = d->code == IST_LONG || d->code == IST_CLONG;
    const bool aligned = w->alignment % d->alignment == 0 && w->offset % d->alignment == 0 && d->itemsize % d->alignment == 0;
    bool standard = false;
    w->offset += d->itemsize;
    if (d->str[0] == '|') {
        standard = w->order != '@' && w->order != '^';
    } else if (d->swapped) {
        if (native_only)
            return no_format(d, "a long double in the other byte order");
        standard = true;
        if (put_order(w, SWAPPED_ORDER) < 0)
            return -1;
    } else {
        standard = !aligned && !native_only;
        if (put_order(w, aligned ? '@' : native_only ? '^' : '=') < 0)
            return -1;
        w->native = aligned ? Py_MAX(w->native, d->alignment) : w->native;
    }
    switch (d->code) {
    case IST_BYTES: PyOS_snprintf(text, sizeof text, "%zds", d->itemsize); return put(w, text);
    case IST_TEXT: PyOS_snprintf(text, sizeof text, "%zdw", d->itemsize / 4); return put(w, text);
    case IST_VOID: PyOS_snprintf(text, sizeof text, "%zdx", d->itemsize); return put(w, text);
    case IST_DATETIME:
    case IST_TIMEDELTA: return no_format(d, "PEP 3118 knows no times; view them as 'i8'");
    default: return put(w, letters_of(d, standard));
    }
}

static int put_dtype(writer *w, const DTypeObject *d);

static int put_fields(writer *w, const DTypeObject *d) {
    const Py_ssize_t begin = w->offset;
    w->depth++;
    if (put(w, "T{") < 0)
        return -1;
    for (Py_ssize_t i = 0; i < d->nfields; i++) {
        const ist_field *f = &d->fields[i];
        const char *name = PyUnicode_AsUTF8(f->name);
        if (name == NULL)
            return -1;
        if (w->offset > begin + f->offset)
            return no_format(d, "fields overlap, or are out of order");
        if (strchr(name, ':') != NULL)
            return no_format(d, "':' in the name of a field");
        if (put_padding(w, begin + f->offset) < 0 || put_dtype(w, f->dtype) < 0 || put(w, ":") < 0 || put(w, name) < 0 || put(w, ":") < 0)
            return -1;
    }
    /* Padding at the end of the whole item is left out, as numpy does, where a reader knows it. Further inside, and where numpy's readers would
     * miss it, it isn't. */
    const Py_ssize_t padded = (w->offset + w->native - 1) / w->native * w->native;
    if (!(begin == 0 && w->depth == 1 && w->order == '@' && padded == d->itemsize) && put_padding(w, begin + d->itemsize) < 0)
        return -1;
    w->depth--;
    return put(w, "}");
}

static int put_shape(writer *w, const DTypeObject *d) {
    char number[32];
    const Py_ssize_t begin = w->offset;
    for (int i = 0; i < d->sub_ndim; i++) {
        PyOS_snprintf(number, sizeof number, "%c%zd", i > 0 ? ',' : '(', d->sub_shape[i]);
        if (put(w, number) < 0)
            return -1;
    }
    if (put(w, ")") < 0 || put_dtype(w, d->base) < 0)
        return -1;
    w->offset = begin + d->itemsize;
    return 0;
}

static int put_dtype(writer *w, const DTypeObject *d) {
    return d->code == IST_STRUCT ? put_fields(w, d) : d->code == IST_SUBARRAY ? put_shape(w, d) : put_simple(w, d);
}

static DTypeObject *read_strictly(core_state *state, const char *format);

/* 1: written; 0: written, but it reads as something else; -1 with an exception. */
static int write_format(writer *w, DTypeObject *d, Py_ssize_t alignment) {
    *w = (writer){.alignment = alignment, .native = 1, .order = '@'};
    if (put(w, "") < 0 || put_dtype(w, d) < 0)
        return -1;
    if (d->code != IST_STRUCT || alignment == 1)
        return 1;
    DTypeObject *again = read_strictly((core_state *)PyType_GetModuleState(Py_TYPE((PyObject *)d)), w->text);
    if (again == NULL && !PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError))
        return -1;
    PyErr_Clear();
    const int same = again != NULL && dtype_same(again, d);
    Py_XDECREF((PyObject *)again);
    return same;
}

const char *dtype_format(DTypeObject *d, Py_ssize_t alignment) {
    if (d->plain != NULL && (alignment & (d->alignment - 1)) == 0)
        return d->plain;
    size_t at = 0;
    while (at < 4 && alignment % ((Py_ssize_t)2 << at) == 0)
        at++;
    /* acquire: pairs with the exchange below */
    char *known = atomic_load_explicit(&d->formats[at], memory_order_acquire);
    if (known != NULL)
        return known;
    writer w;
    int good = write_format(&w, d, (Py_ssize_t)1 << at);
    if (good == 0) { /* nested structures that '@' would align: nothing is aligned then, and everything is said */
        PyMem_RawFree(w.text);
        good = write_format(&w, d, 1);
    }
    if (good < 0) {
        PyMem_RawFree(w.text);
        return NULL;
    }
    /* release: the text is there before it can be seen; acquire: another thread's is */
    if (atomic_compare_exchange_strong_explicit(&d->formats[at], &known, w.text, memory_order_acq_rel, memory_order_acquire))
        return w.text;
    PyMem_RawFree(w.text);
    return known;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------------------- */

typedef struct parser {
    core_state *state;
    const char *format, *at;
    char order;         /* in force: @ ^ = < > */
    bool machine_sizes; /* whatever the order says: what ctypes calls "<l" */
    bool unpadded;      /* '@' aligns nothing: numpy leaves paddings out that a reader would have to guess */
    Py_ssize_t inner_alignment; /* of the structure that was read last, by its entries in '@' */
    int depth;
} parser;

static int bad_format(const parser *p, const char *why) {
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "buffer format '%s' isn't supported: %s", p->format, why);
    return -1;
}

static bool parse_number(parser *p, Py_ssize_t *n) {
    *n = 0;
    for (; isdigit((unsigned char)*p->at); p->at++)
        if ((*n = *n * 10 + (*p->at - '0')) > DTYPE_ITEMSIZE_MAX)
            return false;
    return true;
}

static int parse_lengths(parser *p, Py_ssize_t *shape) {
    int ndim = 0;
    do {
        p->at++;
        while (*p->at == ' ')
            p->at++;
        if (ndim == IST_MAX_NDIM || !isdigit((unsigned char)*p->at) || !parse_number(p, &shape[ndim++]))
            return bad_format(p, "a shape is a list of numbers");
        while (*p->at == ' ')
            p->at++;
    } while (*p->at == ',');
    if (*p->at++ != ')')
        return bad_format(p, "a shape ends with ')'");
    return ndim;
}

static DTypeObject *parse_fields(parser *p, bool whole);

/* One type of `count` (for s, w and x a length, which is used up). */
static DTypeObject *parse_type(parser *p, Py_ssize_t *count) {
    const bool standard = p->order != '@' && p->order != '^';
    const bool swapped = p->order == SWAPPED_ORDER;
    const char letter = *p->at++;
    const ist_type_code lengths = letter == 's' ? IST_BYTES : letter == 'w' ? IST_TEXT : IST_VOID;
    int code = NO_CODE;
    switch (letter) {
    case 'T':
        if (*p->at++ == '{')
            return parse_fields(p, false);
        break;
    case 's':
    case 'w':
    case 'x': {
        DTypeObject *d = dtype_of_length(p->state, lengths, *count, swapped);
        *count = 1;
        return d;
    }
    case 'c': return dtype_of_length(p->state, IST_BYTES, 1, false);
    case 'Z': {
        const char part = *p->at++;
        code = part == 'f' ? IST_C8 : part == 'd' ? IST_C16 : part == 'g' ? IST_CLONG : NO_CODE;
        break;
    }
    default:
        if (letter != '\0' && !letter_is_numpys(letter))
            code = code_of_letter(letter, standard && !p->machine_sizes && letter != 'g');
    }
    if (code == NO_CODE) {
        bad_format(p, letter == 'O' ? "it holds Python objects" : "an element must be a number, bytes, text or a structure of these");
        return NULL;
    }
    return dtype_of_code(p->state, (ist_type_code)code, swapped);
}

/* A structure with some bytes more at its end, for native alignment inside of an array of it. */
static DTypeObject *padded(const parser *p, DTypeObject *d, Py_ssize_t more) {
    DTypeObject *result;
    if (d->code == IST_STRUCT) {
        result = dtype_of_fields(p->state, d->fields, d->nfields, d->itemsize + more, false);
    } else {
        PyObject *name = PyUnicode_FromString("f0");
        ist_field field = {name, d, 0};
        result = name == NULL ? NULL : dtype_of_fields(p->state, &field, 1, d->itemsize + more, false);
        Py_XDECREF(name);
    }
    Py_DECREF((PyObject *)d);
    return result;
}

/* ":name:"; *name NULL: there is none. */
static int parse_name(parser *p, PyObject **name) {
    *name = NULL;
    if (*p->at != ':')
        return 0;
    const char *begin = ++p->at, *end = strchr(begin, ':');
    if (end == NULL)
        return bad_format(p, "a name ends with ':'");
    *name = PyUnicode_DecodeUTF8(begin, end - begin, NULL);
    p->at = end + 1;
    return *name == NULL ? -1 : 0;
}

typedef struct layout {
    field_list list;
    Py_ssize_t offset, alignment;
    bool named;
} layout;

/* One entry: [shape] [order] [count] type [:name:]. */
static int parse_entry(parser *p, layout *l) {
    Py_ssize_t shape[IST_MAX_NDIM], count = 1, extra = 0, alignment;
    int ndim = 0;
    if (*p->at == '(' && (ndim = parse_lengths(p, shape)) < 0)
        return -1;
    if (*p->at != '\0' && strchr("@=<>^!", *p->at) != NULL) {
        p->order = *p->at == '!' ? '>' : *p->at;
        p->at++;
    }
    const bool counted = isdigit((unsigned char)*p->at) != 0;
    if (counted && !parse_number(p, &count))
        return bad_format(p, "a count is too large");
    const bool padding = *p->at == 'x', structure = *p->at == 'T';
    DTypeObject *d = parse_type(p, &count);
    if (d == NULL)
        return -1;
    alignment = structure ? p->inner_alignment : d->alignment;
    if (p->order == '@' && !p->unpadded) {
        Py_ssize_t inside = (alignment - d->itemsize % alignment) % alignment, items = count;
        for (int i = 0; i < ndim; i++)
            items = items > DTYPE_ITEMSIZE_MAX ? items : items * shape[i];
        l->offset += (alignment - l->offset % alignment) % alignment;
        l->alignment = Py_MAX(l->alignment, alignment);
        if (inside != 0 && items > 1)
            d = padded(p, d, inside);
        else
            extra = inside;
    }
    if (d != NULL && count != 1)
        Py_SETREF(d, dtype_of_shape(p->state, d, 1, &count));
    if (d != NULL && ndim > 0)
        Py_SETREF(d, dtype_of_shape(p->state, d, ndim, shape));
    PyObject *name;
    if (d == NULL || parse_name(p, &name) < 0) {
        Py_XDECREF((PyObject *)d);
        return -1;
    }
    const Py_ssize_t at = l->offset;
    l->named |= name != NULL;
    l->offset += d->itemsize + extra;
    if (l->offset > DTYPE_ITEMSIZE_MAX) {
        Py_XDECREF(name);
        Py_DECREF((PyObject *)d);
        return bad_format(p, "it is too large");
    }
    if (padding && name == NULL) {
        Py_DECREF((PyObject *)d);
        return 0;
    }
    return field_list_add(&l->list, name != NULL ? name : PyUnicode_FromString(""), d, at);
}

/* Fields without a name get f0, f1, … which no other has. */
static int name_fields(field_list *list) {
    for (Py_ssize_t i = 0, next = 0; i < list->n; i++) {
        bool taken = PyUnicode_GET_LENGTH(list->fields[i].name) == 0;
        while (taken) {
            PyObject *name = PyUnicode_FromFormat("f%zd", next++);
            if (name == NULL)
                return -1;
            taken = false;
            for (Py_ssize_t j = 0; j < list->n; j++)
                taken |= PyUnicode_Compare(list->fields[j].name, name) == 0;
            if (taken)
                Py_DECREF(name);
            else
                Py_SETREF(list->fields[i].name, name);
        }
    }
    return 0;
}

static DTypeObject *finish(parser *p, layout *l, bool whole) {
    const bool pad = p->order == '@' && !p->unpadded;
    const Py_ssize_t itemsize = pad ? (l->offset + l->alignment - 1) / l->alignment * l->alignment : l->offset;
    const ist_field *first = l->list.fields;
    if (whole && l->list.n == 1 && !l->named && first->offset == 0 && first->dtype->itemsize == itemsize)
        return dtype_ref(first->dtype);
    if (whole && l->list.n == 0)
        return dtype_of_length(p->state, IST_VOID, itemsize, false);
    if (name_fields(&l->list) < 0)
        return NULL;
    return dtype_of_fields(p->state, first, l->list.n, itemsize, false);
}

static DTypeObject *parse_fields(parser *p, bool whole) {
    layout l = {.alignment = 1};
    DTypeObject *result = NULL;
    if (++p->depth > DTYPE_DEPTH) {
        bad_format(p, "it is nested too deep");
        goto done;
    }
    for (;;) {
        while (*p->at == ' ' || *p->at == '\n' || *p->at == '\t')
            p->at++;
        if (*p->at == '\0' || *p->at == '}')
            break;
        if (parse_entry(p, &l) < 0)
            goto done;
    }
    if ((*p->at == '}') == whole)
        bad_format(p, whole ? "'}' without '{'" : "'{' without '}'");
    else
        result = finish(p, &l, whole);
    p->at += !whole && *p->at == '}';
    p->inner_alignment = l.alignment;
done:
    p->depth--;
    field_list_clear(&l.list);
    return result;
}

static DTypeObject *read_strictly(core_state *state, const char *format) {
    parser p = {.state = state, .format = format, .at = format, .order = '@'};
    return parse_fields(&p, true);
}

DTypeObject *dtype_from_format(core_state *state, const char *format, Py_ssize_t itemsize) {
    static const char bytes[] = "B";
    const char *text = format == NULL ? bytes : format;
    if (text[0] != '\0' && text[1] == '\0' && !letter_is_numpys(text[0])) { /* most of them */
        int code = code_of_letter(text[0], false);
        if (code != NO_CODE && code < IST_NUMBERS && (itemsize < 0 || state->dtypes[code]->itemsize == itemsize))
            return dtype_ref(state->dtypes[code]);
    }
    parser p = {.state = state, .format = text, .at = text, .order = '@'};
    DTypeObject *d = parse_fields(&p, true);
    for (int attempt = 0; attempt < 2 && d != NULL && itemsize >= 0 && d->itemsize != itemsize; attempt++) {
        Py_DECREF((PyObject *)d);
        p = (parser){.state = state, .format = text, .at = text, .order = '@', .machine_sizes = attempt == 0, .unpadded = attempt == 1};
        d = parse_fields(&p, true);
    }
    if (d != NULL && d->code == IST_STRUCT && d->itemsize < itemsize) /* numpy leaves the padding at the end away */
        d = padded(&p, d, itemsize - d->itemsize);
    if (d != NULL && itemsize >= 0 && d->itemsize != itemsize) {
        PyErr_Format(PyExc_TypeError, "buffer format '%s' of %zd bytes and item size %zd don't agree", text, d->itemsize, itemsize);
        Py_CLEAR(d);
    }
    if (d != NULL && text[0] == '\0') {
        bad_format(&p, "it is empty");
        Py_CLEAR(d);
    }
    return d;
}

DTypeObject *dtype_from_format_object(core_state *state, PyObject *format) {
    if (!PyUnicode_Check(format)) {
        PyErr_Format(PyExc_TypeError, "a format is a str, not %R", format);
        return NULL;
    }
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(format, &length);
    if (text == NULL)
        return NULL;
    if ((size_t)length != strlen(text)) {
        PyErr_Format(PyExc_TypeError, "buffer format %R isn't supported: it has a null character", format);
        return NULL;
    }
    return dtype_from_format(state, text, -1);
}
