/* numpy_grammar.c: what numpy.dtype() reads, read without numpy: strings, types, lists and dicts of fields, and numpy's own dtypes.
 *
 * The grammar is that of numpy's documentation, "Data type objects (dtype)", "Specifying and constructing data types". Left out: titles
 * (read, and dropped), a base with another dtype's fields ((dtype1, dtype2)), units with a divisor ("[7/60s]"), and what holds objects.
 */
#include "dtype.h"

#include <ctype.h>

/* ---- letters and names ------------------------------------------------------------------------------------------------------------ */

/* One letter: what it is for numpy and for struct. standard: its size after one of < > = !, 0: not allowed there. */
static const struct {
    char letter, kind;
    unsigned char native, standard;
} letters[] = {
    {'?', 'b', 1, 1},
    {'b', 'i', 1, 1},
    {'B', 'u', 1, 1},
    {'h', 'i', sizeof(short), 2},
    {'H', 'u', sizeof(short), 2},
    {'i', 'i', sizeof(int), 4},
    {'I', 'u', sizeof(int), 4},
    {'l', 'i', sizeof(long), 4},
    {'L', 'u', sizeof(long), 4},
    {'q', 'i', sizeof(long long), 8},
    {'Q', 'u', sizeof(long long), 8},
    {'n', 'i', sizeof(Py_ssize_t), 0},
    {'N', 'u', sizeof(Py_ssize_t), 0},
    {'e', 'f', 2, 2},
    {'f', 'f', 4, 4},
    {'d', 'f', 8, 8},
    {'g', 'f', sizeof(long double), 0},
    {'F', 'c', 8, 8},
    {'D', 'c', 16, 16},
    {'G', 'c', 2 * sizeof(long double), 0},
    /* numpy only */
    {'p', 'i', sizeof(void *), 0},
    {'P', 'u', sizeof(void *), 0},
};

bool letter_is_numpys(char letter) { return letter == 'p' || letter == 'P' || letter == 'G'; }

/* Names of numpy's scalar types besides those of the numbers' dtypes. */
static const struct {
    const char *name;
    char letter;
} aliases[] = {
    {"bool_", '?'},    {"byte", 'b'},       {"ubyte", 'B'},     {"short", 'h'},       {"ushort", 'H'},     {"intc", 'i'},
    {"uintc", 'I'},    {"int_", 'n'},       {"int", 'n'},       {"uint", 'N'},        {"long", 'l'},       {"ulong", 'L'},
    {"intp", 'n'},     {"uintp", 'N'},      {"longlong", 'q'},  {"ulonglong", 'Q'},   {"half", 'e'},       {"single", 'f'},
    {"double", 'd'},   {"float", 'd'},      {"float_", 'd'},    {"csingle", 'F'},     {"cdouble", 'D'},    {"complex", 'D'},
    {"complex_", 'D'}, {"longdouble", 'g'}, {"longfloat", 'g'}, {"clongdouble", 'G'}, {"clongfloat", 'G'},
};

/* Names of the others, which have no length or unit yet. */
static const struct {
    const char *name;
    ist_type_code code;
} flexible[] = {
    {"S", IST_BYTES},
    {"bytes", IST_BYTES},
    {"bytes_", IST_BYTES},
    {"string_", IST_BYTES},
    {"U", IST_TEXT},
    {"str", IST_TEXT},
    {"str_", IST_TEXT},
    {"unicode", IST_TEXT},
    {"unicode_", IST_TEXT},
    {"V", IST_VOID},
    {"void", IST_VOID},
    {"M", IST_DATETIME},
    {"M8", IST_DATETIME},
    {"datetime64", IST_DATETIME},
    {"m", IST_TIMEDELTA},
    {"m8", IST_TIMEDELTA},
    {"timedelta64", IST_TIMEDELTA},
};

int code_of_size(char kind, size_t itemsize) {
    static const struct {
        char kind;
        unsigned char itemsize, code;
    } sizes[] = {
        {'b', 1, IST_BOOL},
        {'i', 1, IST_I1},
        {'u', 1, IST_U1},
        {'i', 2, IST_I2},
        {'u', 2, IST_U2},
        {'i', 4, IST_I4},
        {'u', 4, IST_U4},
        {'i', 8, IST_I8},
        {'u', 8, IST_U8},
        {'f', 2, IST_F2},
        {'f', 4, IST_F4},
        {'f', 8, IST_F8},
        {'c', 8, IST_C8},
        {'c', 16, IST_C16},
        {'f', sizeof(long double), IST_LONG},
        {'c', 2 * sizeof(long double), IST_CLONG},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].kind == kind && sizes[i].itemsize == itemsize)
            return sizes[i].code;
    return NO_CODE;
}

int code_of_letter(char letter, bool standard) {
    if (letter == 'd') /* the commonest */
        return IST_F8;
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
        if (letters[i].letter == letter)
            return code_of_size(letters[i].kind, standard ? letters[i].standard : letters[i].native);
    return NO_CODE;
}

static int code_of_name(const char *name) {
    for (int code = 0; code <= IST_CLONG; code++)
        if (strcmp(dtype_name((ist_type_code)code), name) == 0)
            return code;
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (strcmp(aliases[i].name, name) == 0)
            return code_of_letter(aliases[i].letter, false);
    return NO_CODE;
}

static DTypeObject *not_understood(PyObject *spec) {
    PyErr_Format(PyExc_TypeError,
                 "data type %R not understood: isthmus has numpy's bool, integers, floating-point and complex numbers, S, U, V, "
                 "datetime64, timedelta64, and structures of these",
                 spec);
    return NULL;
}

static DTypeObject *holds_objects(PyObject *spec) {
    PyErr_Format(PyExc_TypeError, "data type %R holds Python objects, which belong to one interpreter and can't be shared", spec);
    return NULL;
}

static DTypeObject *of_flexible(core_state *state, ist_type_code code) {
    if (code == IST_DATETIME || code == IST_TIMEDELTA)
        return dtype_of_time(state, code, UNIT_GENERIC, 1, false);
    return dtype_of_length(state, code, 0, false);
}

/* ---- field lists -------------------------------------------------------------------------------------------------------------------- */

int field_list_add(field_list *list, PyObject *name, DTypeObject *dtype, Py_ssize_t offset) {
    if (name == NULL || dtype == NULL)
        goto fail;
    if (list->n == list->room) {
        Py_ssize_t room = list->room == 0 ? 8 : 2 * list->room;
        ist_field *more = PyMem_RawRealloc(list->fields, (size_t)room * sizeof *more);
        if (more == NULL) {
            PyErr_NoMemory();
            goto fail;
        }
        list->fields = more;
        list->room = room;
    }
    list->fields[list->n++] = (ist_field){name, dtype, offset};
    return 0;
fail:
    Py_XDECREF(name);
    Py_XDECREF((PyObject *)dtype);
    return -1;
}

void field_list_clear(field_list *list) {
    for (Py_ssize_t i = 0; i < list->n; i++) {
        Py_DECREF(list->fields[i].name);
        Py_DECREF((PyObject *)list->fields[i].dtype);
    }
    PyMem_RawFree(list->fields);
    *list = (field_list){NULL, 0, 0};
}

static DTypeObject *laid_out(core_state *state, field_list *list, bool align) {
    Py_ssize_t itemsize = dtype_lay_out(list->fields, list->n, align);
    return itemsize < 0 ? NULL : dtype_of_fields(state, list->fields, list->n, itemsize, align);
}

/* ---- strings -------------------------------------------------------------------------------------------------------------------------- */

typedef struct reader {
    core_state *state;
    PyObject *spec; /* for the text of an error */
    bool align;
} reader;

static DTypeObject *read_any(const reader *r, PyObject *spec);

static DTypeObject *read_time(const reader *r, ist_type_code code, const char *unit_text, bool swapped) {
    int unit;
    int32_t count;
    if (!times_parse_unit(unit_text, &unit, &count))
        return not_understood(r->spec);
    return dtype_of_time(r->state, code, unit, count, swapped);
}

/* "f8", "d", "float64", "S10", "M8[ns]", "datetime64[ns]"; the byte order is read already. */
static DTypeObject *read_type(const reader *r, const char *text, char order) {
    const bool swapped = order == SWAPPED_ORDER;
    const char *bracket = strchr(text, '[');
    if (order == '\0') {
        int code = code_of_name(text);
        if (code != NO_CODE)
            return dtype_of_code(r->state, (ist_type_code)code, false);
        if (strncmp(text, "datetime64", 10) == 0 && (text[10] == '[' || text[10] == '\0'))
            return read_time(r, IST_DATETIME, text + 10, false);
        if (strncmp(text, "timedelta64", 11) == 0 && (text[11] == '[' || text[11] == '\0'))
            return read_time(r, IST_TIMEDELTA, text + 11, false);
        if (strcmp(text, "O") == 0 || strcmp(text, "O8") == 0 || strcmp(text, "object") == 0 || strcmp(text, "object_") == 0)
            return holds_objects(r->spec);
    }
    for (size_t i = 0; i < sizeof flexible / sizeof *flexible && bracket == NULL; i++)
        if (strcmp(flexible[i].name, text) == 0 && (order == '\0' || strlen(text) <= 2)) {
            DTypeObject *d = of_flexible(r->state, flexible[i].code);
            if (d != NULL && swapped)
                Py_SETREF(d, dtype_in_order(r->state, d, order));
            return d;
        }
    if (text[0] == '\0')
        return not_understood(r->spec);
    if (text[1] == '\0') {
        if (text[0] == 'c')
            return dtype_of_length(r->state, IST_BYTES, 1, false);
        int code = code_of_letter(text[0], false);
        return code == NO_CODE ? not_understood(r->spec) : dtype_of_code(r->state, (ist_type_code)code, swapped);
    }
    if ((text[0] == 'M' || text[0] == 'm') && (text[1] == '[' || (text[1] == '8' && text[2] == '[')))
        return read_time(r, text[0] == 'M' ? IST_DATETIME : IST_TIMEDELTA, bracket, swapped);
    Py_ssize_t number = 0;
    for (const char *at = text + 1; *at != '\0'; at++) {
        if (*at < '0' || *at > '9' || number > DTYPE_ITEMSIZE_MAX)
            return not_understood(r->spec);
        number = number * 10 + (*at - '0');
    }
    switch (text[0]) {
    case 'S': return dtype_of_length(r->state, IST_BYTES, number, false);
    case 'U': return dtype_of_length(r->state, IST_TEXT, number, swapped);
    case 'V': return dtype_of_length(r->state, IST_VOID, number, false);
    default: {
        int code = code_of_size(text[0], (size_t)number);
        return code == NO_CODE ? not_understood(r->spec) : dtype_of_code(r->state, (ist_type_code)code, swapped);
    }
    }
}

static bool is_order(char c) { return c != '\0' && strchr("<>=|", c) != NULL; }

/* "(2, 3)" or "4" in front of a type; *ndim = 0: there is none. */
static bool read_lengths(const char **at, int *ndim, Py_ssize_t *shape) {
    *ndim = 0;
    bool bracketed = **at == '(';
    if (!bracketed && !isdigit((unsigned char)**at))
        return true;
    *at += bracketed;
    for (;;) {
        while (bracketed && isspace((unsigned char)**at))
            ++*at;
        if (bracketed && **at == ')')
            break;
        if (!isdigit((unsigned char)**at) || *ndim == IST_MAX_NDIM)
            return false;
        Py_ssize_t n = 0;
        for (; isdigit((unsigned char)**at) && n <= DTYPE_ITEMSIZE_MAX; ++*at)
            n = n * 10 + (**at - '0');
        shape[(*ndim)++] = n;
        if (!bracketed)
            return true;
        while (isspace((unsigned char)**at))
            ++*at;
        if (**at == ',')
            ++*at;
        else if (**at != ')')
            return false;
    }
    ++*at;
    return true;
}

/* One entry of a comma-separated list: [order] [lengths] [order] type. */
static DTypeObject *read_entry(const reader *r, const char *at, const char *end) {
    Py_ssize_t shape[IST_MAX_NDIM];
    int ndim;
    char order = '\0', type[64];
    while (at < end && isspace((unsigned char)*at))
        at++;
    while (end > at && isspace((unsigned char)end[-1]))
        end--;
    if (at < end && is_order(*at))
        order = *at++;
    const char *lengths = at;
    if (!read_lengths(&at, &ndim, shape) || at >= end)
        return not_understood(r->spec);
    if (at != lengths && is_order(*at)) {
        if (order != '\0' && order != *at)
            return not_understood(r->spec);
        order = *at++;
    }
    size_t size = (size_t)(end - at);
    if (size == 0 || size >= sizeof type)
        return not_understood(r->spec);
    memcpy(type, at, size);
    type[size] = '\0';
    DTypeObject *d = read_type(r, type, order == '=' ? NATIVE_ORDER : order);
    if (d == NULL || ndim == 0 || (lengths[0] != '(' && shape[0] == 1))
        return d;
    Py_SETREF(d, dtype_of_shape(r->state, d, ndim, shape));
    return d;
}

/* The end of the entry that begins at `at`: a comma outside of brackets, or the end of the text. */
static const char *entry_end(const char *at) {
    int depth = 0;
    for (; *at != '\0' && !(*at == ',' && depth == 0); at++)
        depth += *at == '(' || *at == '[' ? 1 : *at == ')' || *at == ']' ? -1 : 0;
    return at;
}

static DTypeObject *read_text(const reader *r, const char *text) {
    const char *end = entry_end(text);
    if (*end == '\0')
        return isspace((unsigned char)text[0]) || (end > text && isspace((unsigned char)end[-1])) ? not_understood(r->spec)
                                                                                                  : read_entry(r, text, end);
    field_list list = {NULL, 0, 0};
    DTypeObject *result = NULL;
    for (const char *at = text; *at != '\0'; at = *end == ',' ? end + 1 : end) {
        end = entry_end(at);
        if (field_list_add(&list, PyUnicode_FromFormat("f%zd", list.n), read_entry(r, at, end), 0) < 0)
            goto done;
    }
    result = laid_out(r->state, &list, r->align);
done:
    field_list_clear(&list);
    return result;
}

static DTypeObject *read_string(const reader *r, PyObject *text_object) {
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(text_object, &length);
    if (text == NULL)
        return NULL;
    return (size_t)length != strlen(text) ? not_understood(r->spec) : read_text(r, text);
}

/* ---- fields --------------------------------------------------------------------------------------------------------------------------- */

/* A field's name; of a (title, name) the name. '' becomes f0, f1, … New reference. */
static PyObject *field_name(const reader *r, PyObject *name, Py_ssize_t place) {
    if (PyTuple_Check(name) && PyTuple_GET_SIZE(name) == 2)
        name = PyTuple_GET_ITEM(name, 1);
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "a field's name is a str, not %R, in data type %R", name, r->spec);
        return NULL;
    }
    return PyUnicode_GET_LENGTH(name) > 0 ? Py_NewRef(name) : PyUnicode_FromFormat("f%zd", place);
}

static DTypeObject *with_shape(const reader *r, DTypeObject *base, PyObject *shape_object) {
    Py_ssize_t shape[IST_MAX_NDIM];
    int ndim = base == NULL ? -1 : parse_shape(shape_object, shape, false);
    DTypeObject *d = ndim < 0 ? NULL : dtype_of_shape(r->state, base, ndim, shape);
    Py_XDECREF((PyObject *)base);
    return d;
}

static int read_field(const reader *r, PyObject *entry, field_list *list) {
    Py_ssize_t n = PyTuple_Check(entry) ? PyTuple_GET_SIZE(entry) : 0;
    if (n < 2 || n > 3) {
        not_understood(r->spec);
        return -1;
    }
    DTypeObject *d = read_any(r, PyTuple_GET_ITEM(entry, 1));
    if (d != NULL && n == 3)
        d = with_shape(r, d, PyTuple_GET_ITEM(entry, 2));
    return field_list_add(list, d == NULL ? NULL : field_name(r, PyTuple_GET_ITEM(entry, 0), list->n), d, 0);
}

static DTypeObject *read_list(const reader *r, PyObject *spec) {
    field_list list = {NULL, 0, 0};
    DTypeObject *result = NULL;
    PyObject *entries = PySequence_Tuple(spec); /* reading one may run Python code */
    if (entries == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(entries); i++)
        if (read_field(r, PyTuple_GET_ITEM(entries, i), &list) < 0)
            goto done;
    result = laid_out(r->state, &list, r->align);
done:
    field_list_clear(&list);
    Py_DECREF(entries);
    return result;
}

/* (dtype, shape), (flexible, length) */
static DTypeObject *read_tuple(const reader *r, PyObject *spec) {
    if (PyTuple_GET_SIZE(spec) != 2)
        return not_understood(r->spec);
    PyObject *second = PyTuple_GET_ITEM(spec, 1);
    DTypeObject *d = read_any(r, PyTuple_GET_ITEM(spec, 0));
    if (d == NULL)
        return NULL;
    if (d->itemsize == 0 && d->code >= IST_BYTES && d->code <= IST_VOID && PyLong_Check(second)) {
        Py_ssize_t length = PyLong_AsSsize_t(second);
        if (length == -1 && PyErr_Occurred())
            Py_CLEAR(d);
        else
            Py_SETREF(d, dtype_of_length(r->state, d->code, length, d->swapped));
        return d;
    }
    if (!PyIndex_Check(second) && !PyTuple_Check(second) && !PyList_Check(second)) {
        Py_DECREF((PyObject *)d);
        return not_understood(r->spec);
    }
    return with_shape(r, d, second);
}

/* A value of a dict's key as a tuple, whose length is that of the names (n < 0: any); *given says whether it was there. */
static PyObject *column(const reader *r, PyObject *spec, const char *key, Py_ssize_t n, bool *given) {
    PyObject *name = PyUnicode_FromString(key), *value = name == NULL ? NULL : PyDict_GetItemWithError(spec, name);
    Py_XINCREF(value);
    Py_XDECREF(name);
    *given = value != NULL && value != Py_None;
    PyObject *items = *given ? PySequence_Tuple(value) : NULL;
    Py_XDECREF(value);
    if (items != NULL && n >= 0 && PyTuple_GET_SIZE(items) != n) {
        PyErr_Format(PyExc_ValueError, "%zd names and %zd %s in data type %R", n, PyTuple_GET_SIZE(items), key, r->spec);
        Py_CLEAR(items);
    }
    return items;
}

static DTypeObject *read_columns(const reader *r, PyObject *spec) {
    field_list list = {NULL, 0, 0};
    DTypeObject *result = NULL;
    bool given, with_offsets, align = r->align;
    Py_ssize_t itemsize = -1;
    PyObject *formats = NULL, *offsets = NULL, *names = column(r, spec, "names", -1, &given);
    if (names == NULL)
        goto done;
    formats = column(r, spec, "formats", PyTuple_GET_SIZE(names), &given);
    if (formats == NULL) {
        if (!PyErr_Occurred())
            not_understood(r->spec);
        goto done;
    }
    offsets = column(r, spec, "offsets", PyTuple_GET_SIZE(names), &with_offsets);
    PyObject *value = PyErr_Occurred() ? NULL : PyDict_GetItemString(spec, "itemsize");
    if (value != NULL && value != Py_None)
        itemsize = PyLong_AsSsize_t(value);
    value = PyErr_Occurred() ? NULL : PyDict_GetItemString(spec, "aligned");
    if (value != NULL)
        align |= PyObject_IsTrue(value) > 0;
    if (PyErr_Occurred())
        goto done;
    const reader inner = {r->state, r->spec, align};
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        Py_ssize_t offset = offsets == NULL ? 0 : PyLong_AsSsize_t(PyTuple_GET_ITEM(offsets, i));
        if ((offset == -1 && PyErr_Occurred()) ||
            field_list_add(&list, field_name(r, PyTuple_GET_ITEM(names, i), i), read_any(&inner, PyTuple_GET_ITEM(formats, i)), offset) < 0)
            goto done;
        if (align && offset % list.fields[i].dtype->alignment != 0) {
            PyErr_Format(PyExc_ValueError, "offset %zd of field %R isn't aligned to %zd bytes, as align=True asks for", offset,
                         list.fields[i].name, list.fields[i].dtype->alignment);
            goto done;
        }
    }
    if (!with_offsets) {
        Py_ssize_t needed = dtype_lay_out(list.fields, list.n, align);
        if (needed < 0)
            goto done;
        itemsize = itemsize < 0 ? needed : itemsize;
    }
    result = dtype_of_fields(r->state, list.fields, list.n, itemsize, align);
    if (result != NULL && align && itemsize >= 0 && itemsize % result->alignment != 0) {
        PyErr_Format(PyExc_ValueError, "itemsize %zd isn't a multiple of the alignment %zd, as align=True asks for", itemsize,
                     result->alignment);
        Py_CLEAR(result);
    }
done:
    field_list_clear(&list);
    Py_XDECREF(names);
    Py_XDECREF(formats);
    Py_XDECREF(offsets);
    return result;
}

static int compare_offsets(const void *a, const void *b) {
    const ist_field *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* {name: (dtype, offset[, title])}: in the order of the offsets */
static DTypeObject *read_mapping(const reader *r, PyObject *spec) {
    field_list list = {NULL, 0, 0};
    DTypeObject *result = NULL;
    PyObject *items = PyDict_Items(spec);
    for (Py_ssize_t i = 0; items != NULL && i < PyList_GET_SIZE(items); i++) {
        PyObject *name = PyTuple_GET_ITEM(PyList_GET_ITEM(items, i), 0), *value = PyTuple_GET_ITEM(PyList_GET_ITEM(items, i), 1);
        if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) < 2) {
            not_understood(r->spec);
            goto done;
        }
        Py_ssize_t offset = PyLong_AsSsize_t(PyTuple_GET_ITEM(value, 1));
        if ((offset == -1 && PyErr_Occurred()) ||
            field_list_add(&list, field_name(r, name, i), read_any(r, PyTuple_GET_ITEM(value, 0)), offset) < 0)
            goto done;
    }
    if (items != NULL) {
        if (list.n > 1)
            qsort(list.fields, (size_t)list.n, sizeof *list.fields, compare_offsets);
        result = dtype_of_fields(r->state, list.fields, list.n, -1, r->align);
    }
done:
    field_list_clear(&list);
    Py_XDECREF(items);
    return result;
}

static DTypeObject *read_dict(const reader *r, PyObject *spec) {
    PyObject *names = PyDict_GetItemString(spec, "names");
    return names != NULL ? read_columns(r, spec) : read_mapping(r, spec);
}

/* ---- types, and numpy's own -------------------------------------------------------------------------------------------------------------- */

bool from_numpy(PyTypeObject *type) {
    bool found = false;
    PyObject *raised = PyErr_GetRaisedException(), *module = PyObject_GetAttrString((PyObject *)type, "__module__");
    if (module != NULL && PyUnicode_Check(module)) {
        const char *name = PyUnicode_AsUTF8(module);
        found = name != NULL && (strcmp(name, "numpy") == 0 || strncmp(name, "numpy.", 6) == 0);
    }
    Py_XDECREF(module);
    PyErr_SetRaisedException(raised);
    return found;
}

/* memmap, matrix and others derive from ndarray, record from void. */
static bool derives_from(PyObject *object, const char *numpys) {
    for (PyTypeObject *type = Py_TYPE(object); type != NULL; type = type->tp_base)
        if (strcmp(type->tp_name, numpys) == 0)
            return from_numpy(type);
    return false;
}

bool numpy_is_array(PyObject *object) { return derives_from(object, "numpy.ndarray"); }

bool numpy_is_scalar(PyObject *object) { return derives_from(object, "numpy.generic"); }

const char *numpy_kind(PyObject *object) {
    const char *name = strrchr(Py_TYPE(object)->tp_name, '.');
    name = name == NULL ? Py_TYPE(object)->tp_name : name + 1;
    bool is = strcmp(name, "datetime64") == 0 || strcmp(name, "timedelta64") == 0;
    return is && from_numpy(Py_TYPE(object)) ? name : NULL;
}

static DTypeObject *read_class(const reader *r, PyTypeObject *type) {
    core_state *state = r->state;
    if (type == &PyFloat_Type)
        return dtype_of_code(state, IST_F8, false);
    if (type == &PyLong_Type)
        return dtype_of_code(state, IST_I8, false);
    if (type == &PyBool_Type)
        return dtype_of_code(state, IST_BOOL, false);
    if (type == &PyComplex_Type)
        return dtype_of_code(state, IST_C16, false);
    if (type == &PyBytes_Type)
        return of_flexible(state, IST_BYTES);
    if (type == &PyUnicode_Type)
        return of_flexible(state, IST_TEXT);
    if (from_numpy(type)) {
        PyObject *name = PyType_GetName(type);
        const char *text = name == NULL ? NULL : PyUnicode_AsUTF8(name);
        DTypeObject *d = text == NULL ? NULL : read_type(r, text, '\0');
        Py_XDECREF(name);
        return d;
    }
    return type == &PyBaseObject_Type ? holds_objects(r->spec) : not_understood(r->spec);
}

static PyObject *attribute(PyObject *object, const char *name) {
    PyObject *value = PyObject_GetAttrString(object, name);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Clear();
    return value;
}

static int64_t int_attribute(PyObject *object, const char *name) {
    PyObject *value = PyObject_GetAttrString(object, name);
    int64_t n = value == NULL ? -1 : PyLong_AsLongLong(value);
    Py_XDECREF(value);
    return n;
}

static DTypeObject *read_numpy_fields(const reader *r, PyObject *theirs, PyObject *names, bool align) {
    field_list list = {NULL, 0, 0};
    DTypeObject *result = NULL;
    PyObject *fields = PyObject_GetAttrString(theirs, "fields");
    Py_ssize_t itemsize = (Py_ssize_t)int_attribute(theirs, "itemsize");
    if (fields == NULL || PyErr_Occurred())
        goto done;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i), *field = PyObject_GetItem(fields, name);
        if (field == NULL)
            goto done;
        DTypeObject *d = PyTuple_Check(field) && PyTuple_GET_SIZE(field) >= 2 ? read_any(r, PyTuple_GET_ITEM(field, 0)) : NULL;
        Py_ssize_t offset = d == NULL ? -1 : PyLong_AsSsize_t(PyTuple_GET_ITEM(field, 1));
        Py_DECREF(field);
        if (field_list_add(&list, Py_NewRef(name), d, offset) < 0)
            goto done;
    }
    result = dtype_of_fields(r->state, list.fields, list.n, itemsize, align);
done:
    field_list_clear(&list);
    Py_XDECREF(fields);
    return result;
}

/* A numpy.dtype: without its help but for its attributes. NULL without an exception: it isn't one. */
static DTypeObject *read_numpy_dtype(const reader *r, PyObject *theirs) {
    if (!from_numpy(Py_TYPE(theirs)))
        return NULL;
    PyObject *text = attribute(theirs, "str"), *names = attribute(theirs, "names"), *subdtype = attribute(theirs, "subdtype");
    DTypeObject *d = NULL;
    if (text == NULL || names == NULL || subdtype == NULL || !PyUnicode_Check(text))
        goto done;
    if (int_attribute(theirs, "num") >= 256) { /* somebody's own type, whatever its string says */
        d = not_understood(theirs);
    } else if (PyErr_Occurred()) {
        goto done;
    } else if (PyTuple_Check(names)) {
        PyObject *aligned = attribute(theirs, "isalignedstruct");
        d = read_numpy_fields(r, theirs, names, aligned == Py_True);
        Py_XDECREF(aligned);
    } else if (PyTuple_Check(subdtype) && PyTuple_GET_SIZE(subdtype) == 2) {
        d = with_shape(r, read_any(r, PyTuple_GET_ITEM(subdtype, 0)), PyTuple_GET_ITEM(subdtype, 1));
    } else if (PyUnicode_CompareWithASCIIString(text, "|O") == 0) {
        d = holds_objects(theirs);
    } else {
        d = read_string(r, text);
    }
done:
    Py_XDECREF(text);
    Py_XDECREF(names);
    Py_XDECREF(subdtype);
    return d;
}

/* ---- all of it -------------------------------------------------------------------------------------------------------------------------- */

static DTypeObject *read_what(const reader *r, PyObject *spec) {
    if (Py_IS_TYPE(spec, r->state->dtype_type))
        return (DTypeObject *)Py_NewRef(spec);
    if (spec == Py_None) /* as numpy */
        return dtype_of_code(r->state, IST_F8, false);
    if (PyUnicode_Check(spec))
        return read_string(r, spec);
    if (PyType_Check(spec))
        return read_class(r, (PyTypeObject *)spec);
    if (PyList_Check(spec))
        return read_list(r, spec);
    if (PyTuple_Check(spec))
        return read_tuple(r, spec);
    if (PyDict_Check(spec))
        return read_dict(r, spec);
    DTypeObject *d = read_numpy_dtype(r, spec);
    return d != NULL || PyErr_Occurred() ? d : not_understood(r->spec);
}

static DTypeObject *read_any(const reader *r, PyObject *spec) {
    if (Py_EnterRecursiveCall(" while reading a data type"))
        return NULL;
    DTypeObject *d = read_what(r, spec);
    Py_LeaveRecursiveCall();
    return d;
}

DTypeObject *dtype_aligned_from_object(core_state *state, PyObject *spec, bool align) {
    const reader r = {state, spec, align};
    return read_any(&r, spec);
}

DTypeObject *dtype_from_object(core_state *state, PyObject *spec) { return dtype_aligned_from_object(state, spec, false); }
