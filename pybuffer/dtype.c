/* dtype.c: isthmus.dtype, the kinds of element an array can have, and one element's way to Python and back.
 *
 * One immutable object per type code and interpreter, made with the module and looked up ever after: comparing pointers compares dtypes.
 * Two grammars come in, and they disagree ("<l" has 8 bytes for numpy and 4 for struct): dtype_from_object reads numpy's,
 * dtype_from_format PEP 3118's. Elements are in native byte order, always.
 */
#include "array.h"
#include "half.h"

#include <limits.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#  define NATIVE ">"
#  define SWAPPED '<'
#else
#  define NATIVE "<"
#  define SWAPPED '>'
#endif

static const struct {
    const char *str, *format, *name;
    char kind;
    unsigned char itemsize;
} types[IST_TYPE_CODES] = {
    [IST_BOOL] = {"|b1", "?", "bool", 'b', 1},
    [IST_I1] = {"|i1", "b", "int8", 'i', 1},
    [IST_U1] = {"|u1", "B", "uint8", 'u', 1},
    [IST_I2] = {NATIVE "i2", "h", "int16", 'i', 2},
    [IST_U2] = {NATIVE "u2", "H", "uint16", 'u', 2},
    [IST_I4] = {NATIVE "i4", "i", "int32", 'i', 4},
    [IST_U4] = {NATIVE "u4", "I", "uint32", 'u', 4},
    /* as numpy has it: an l that has 8 bytes, else q */
    [IST_I8] = {NATIVE "i8", sizeof(long) == 8 ? "l" : "q", "int64", 'i', 8},
    [IST_U8] = {NATIVE "u8", sizeof(long) == 8 ? "L" : "Q", "uint64", 'u', 8},
    [IST_F2] = {NATIVE "f2", "e", "float16", 'f', 2},
    [IST_F4] = {NATIVE "f4", "f", "float32", 'f', 4},
    [IST_F8] = {NATIVE "f8", "d", "float64", 'f', 8},
    [IST_C8] = {NATIVE "c8", "Zf", "complex64", 'c', 8},
    [IST_C16] = {NATIVE "c16", "Zd", "complex128", 'c', 16},
};

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
    {'F', 'c', 8, 8},
    {'D', 'c', 16, 16},
    /* numpy only */
    {'p', 'i', sizeof(void *), 0},
    {'P', 'u', sizeof(void *), 0},
};
#define NUMPY_ONLY(letter) ((letter) == 'p' || (letter) == 'P')

/* Names of numpy's scalar types besides types[].name. */
static const struct {
    const char *name;
    char letter;
} aliases[] = {
    {"bool_", '?'},    {"byte", 'b'},      {"ubyte", 'B'},   {"short", 'h'},    {"ushort", 'H'}, {"intc", 'i'},  {"uintc", 'I'},
    {"int_", 'n'},     {"int", 'n'},       {"uint", 'N'},    {"long", 'l'},     {"ulong", 'L'},  {"intp", 'n'},  {"uintp", 'N'},
    {"longlong", 'q'}, {"ulonglong", 'Q'}, {"half", 'e'},    {"single", 'f'},   {"double", 'd'}, {"float", 'd'}, {"float_", 'd'},
    {"csingle", 'F'},  {"cdouble", 'D'},   {"complex", 'D'}, {"complex_", 'D'},
};

/* ---- grammars ------------------------------------------------------------------------------------------------------------------ */

#define NO_CODE (-1)

static int code_of(char kind, size_t itemsize) {
    for (int code = 0; code < IST_TYPE_CODES; code++)
        if (types[code].kind == kind && types[code].itemsize == itemsize)
            return code;
    return NO_CODE;
}

static int code_of_letter(char letter, bool standard) {
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++) {
        if (letters[i].letter == letter)
            return code_of(letters[i].kind, standard ? letters[i].standard : letters[i].native);
    }
    return NO_CODE;
}

static int code_of_name(const char *name) {
    for (int code = 0; code < IST_TYPE_CODES; code++)
        if (strcmp(types[code].name, name) == 0)
            return code;
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (strcmp(aliases[i].name, name) == 0)
            return code_of_letter(aliases[i].letter, false);
    return NO_CODE;
}

/* "f8", "d" */
static int code_of_numpy(const char *text) {
    if (text[0] == '\0')
        return NO_CODE;
    if (text[1] == '\0')
        return code_of_letter(text[0], false);
    if (text[1] >= '1' && text[1] <= '9' && text[2] == '\0')
        return code_of(text[0], (size_t)(text[1] - '0'));
    if (strcmp(text, "c16") == 0)
        return IST_C16;
    return NO_CODE;
}

static DTypeObject *dtype_of_code(core_state *state, int code) { return (DTypeObject *)Py_NewRef((PyObject *)state->dtypes[code]); }

static DTypeObject *not_understood(PyObject *spec) {
    PyErr_Format(PyExc_TypeError,
                 "data type %R not understood: isthmus has bool, int8 to int64, uint8 to uint64, float16 to float64, "
                 "complex64 and complex128",
                 spec);
    return NULL;
}

static DTypeObject *dtype_from_text(core_state *state, PyObject *spec, PyObject *text_object) {
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(text_object, &length);
    if (text == NULL)
        return NULL;
    if ((size_t)length != strlen(text))
        return not_understood(spec);
    int code = code_of_name(text);
    if (code != NO_CODE)
        return dtype_of_code(state, code);
    bool ordered = text[0] == '<' || text[0] == '>' || text[0] == '=' || text[0] == '|';
    code = code_of_numpy(text + ordered);
    if (code == NO_CODE)
        return not_understood(spec);
    if (text[0] == SWAPPED && types[code].itemsize > 1) {
        PyErr_Format(PyExc_TypeError, "data type %R is in the other byte order: arrays are native, here '%s'", spec, types[code].str);
        return NULL;
    }
    return dtype_of_code(state, code);
}

static bool from_numpy(PyTypeObject *type) {
    bool found = false;
    PyObject *module = PyObject_GetAttrString((PyObject *)type, "__module__");
    if (module != NULL && PyUnicode_Check(module)) {
        const char *name = PyUnicode_AsUTF8(module);
        found = name != NULL && (strcmp(name, "numpy") == 0 || strncmp(name, "numpy.", 6) == 0);
    }
    Py_XDECREF(module);
    PyErr_Clear();
    return found;
}

static DTypeObject *dtype_from_type(core_state *state, PyTypeObject *type) {
    if (type == &PyFloat_Type)
        return dtype_of_code(state, IST_F8);
    if (type == &PyLong_Type)
        return dtype_of_code(state, IST_I8);
    if (type == &PyBool_Type)
        return dtype_of_code(state, IST_BOOL);
    if (type == &PyComplex_Type)
        return dtype_of_code(state, IST_C16);
    if (from_numpy(type)) {
        PyObject *name = PyType_GetName(type);
        if (name == NULL)
            return NULL;
        const char *text = PyUnicode_AsUTF8(name);
        int code = text == NULL ? NO_CODE : code_of_name(text);
        Py_DECREF(name);
        if (code != NO_CODE)
            return dtype_of_code(state, code);
        PyErr_Clear();
    }
    return not_understood((PyObject *)type);
}

/* The .str of a numpy.dtype; NULL without an exception if it isn't one. */
static PyObject *text_of_numpy_dtype(PyObject *spec) {
    if (!from_numpy(Py_TYPE(spec)))
        return NULL;
    PyObject *text = PyObject_GetAttrString(spec, "str");
    if (text != NULL && PyUnicode_Check(text))
        return text;
    Py_XDECREF(text);
    PyErr_Clear();
    return NULL;
}

DTypeObject *dtype_from_object(core_state *state, PyObject *spec) {
    if (Py_IS_TYPE(spec, state->dtype_type))
        return (DTypeObject *)Py_NewRef(spec);
    if (spec == Py_None) /* as numpy */
        return dtype_of_code(state, IST_F8);
    if (PyUnicode_Check(spec))
        return dtype_from_text(state, spec, spec);
    if (PyType_Check(spec))
        return dtype_from_type(state, (PyTypeObject *)spec);
    PyObject *text = text_of_numpy_dtype(spec);
    if (text == NULL)
        return not_understood(spec);
    DTypeObject *dtype = dtype_from_text(state, spec, text);
    Py_DECREF(text);
    return dtype;
}

DTypeObject *dtype_from_format(core_state *state, const char *format, Py_ssize_t itemsize) {
    const char *text = format == NULL ? "B" : format;
    bool swapped = text[0] == SWAPPED || (text[0] == '!' && SWAPPED == '>');
    bool standard = text[0] == '<' || text[0] == '>' || text[0] == '=' || text[0] == '!';
    text += standard || text[0] == '@' || text[0] == '^';
    int code = NO_CODE;
    if (text[0] == 'Z' && text[1] != '\0' && text[2] == '\0')
        code = text[1] == 'f' ? IST_C8 : text[1] == 'd' ? IST_C16 : NO_CODE;
    else if (text[0] != '\0' && text[1] == '\0' && !NUMPY_ONLY(text[0]))
        code = code_of_letter(text[0], standard);
    if (code == NO_CODE || (itemsize >= 0 && itemsize != types[code].itemsize)) {
        if (code == NO_CODE)
            PyErr_Format(PyExc_TypeError, "buffer format '%s' isn't supported: an element must be a bool or a native number", format);
        else
            PyErr_Format(PyExc_TypeError, "buffer format '%s' and item size %zd don't agree", format, itemsize);
        return NULL;
    }
    if (swapped && types[code].itemsize > 1) {
        PyErr_Format(PyExc_TypeError, "buffer format '%s' is in the other byte order: arrays are native, here '%s'", format,
                     types[code].str);
        return NULL;
    }
    return dtype_of_code(state, code);
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
        PyErr_Format(PyExc_TypeError, "buffer format %R isn't supported", format);
        return NULL;
    }
    return dtype_from_format(state, text, -1);
}

/* ---- elements ------------------------------------------------------------------------------------------------------------------ */

#define LOAD(type, variable)                                                                                                               \
    type variable;                                                                                                                         \
    memcpy(&variable, item, sizeof variable)

PyObject *dtype_get(const DTypeObject *dtype, const char *item) {
    switch (dtype->code) {
    case IST_BOOL: return PyBool_FromLong(*item != 0);
    case IST_I1: return PyLong_FromLong(*(const signed char *)item);
    case IST_U1: return PyLong_FromLong(*(const unsigned char *)item);
    case IST_I2: {
        LOAD(int16_t, x);
        return PyLong_FromLong(x);
    }
    case IST_U2: {
        LOAD(uint16_t, x);
        return PyLong_FromLong(x);
    }
    case IST_I4: {
        LOAD(int32_t, x);
        return PyLong_FromLong(x);
    }
    case IST_U4: {
        LOAD(uint32_t, x);
        return PyLong_FromUnsignedLong(x);
    }
    case IST_I8: {
        LOAD(int64_t, x);
        return PyLong_FromLongLong(x);
    }
    case IST_U8: {
        LOAD(uint64_t, x);
        return PyLong_FromUnsignedLongLong(x);
    }
    case IST_F2: {
        LOAD(uint16_t, x);
        return PyFloat_FromDouble(half_to_double(x));
    }
    case IST_F4: {
        LOAD(float, x);
        return PyFloat_FromDouble((double)x);
    }
    case IST_F8: {
        LOAD(double, x);
        return PyFloat_FromDouble(x);
    }
    case IST_C8: {
        float x[2];
        memcpy(x, item, sizeof x);
        return PyComplex_FromDoubles((double)x[0], (double)x[1]);
    }
    case IST_C16: {
        double x[2];
        memcpy(x, item, sizeof x);
        return PyComplex_FromDoubles(x[0], x[1]);
    }
    case IST_TYPE_CODES: break;
    }
    Py_UNREACHABLE();
}

static int out_of_bounds(const DTypeObject *dtype, PyObject *integer) {
    PyErr_Clear();
    PyErr_Format(PyExc_OverflowError, "Python integer %S out of bounds for %s", integer, types[dtype->code].name);
    if (!PyErr_ExceptionMatches(PyExc_OverflowError)) { /* too long to be written out */
        PyErr_Clear();
        PyErr_Format(PyExc_OverflowError, "Python integer out of bounds for %s", types[dtype->code].name);
    }
    return -1;
}

static int set_signed(const DTypeObject *dtype, char *item, PyObject *integer) {
    int overflow;
    long long x = PyLong_AsLongLongAndOverflow(integer, &overflow);
    if (x == -1 && overflow == 0 && PyErr_Occurred())
        return -1;
    long long limit = dtype->itemsize == 8 ? LLONG_MAX : (1LL << (8 * dtype->itemsize - 1)) - 1;
    if (overflow != 0 || x > limit || x < -limit - 1)
        return out_of_bounds(dtype, integer);
    switch (dtype->itemsize) {
    case 1: *(signed char *)item = (signed char)x; break;
    case 2: memcpy(item, &(int16_t){(int16_t)x}, 2); break;
    case 4: memcpy(item, &(int32_t){(int32_t)x}, 4); break;
    default: memcpy(item, &(int64_t){(int64_t)x}, 8); break;
    }
    return 0;
}

static int set_unsigned(const DTypeObject *dtype, char *item, PyObject *integer) {
    unsigned long long x = PyLong_AsUnsignedLongLong(integer);
    if (x == (unsigned long long)-1 && PyErr_Occurred())
        return PyErr_ExceptionMatches(PyExc_OverflowError) ? out_of_bounds(dtype, integer) : -1;
    unsigned long long limit = dtype->itemsize == 8 ? ULLONG_MAX : (1ULL << (8 * dtype->itemsize)) - 1;
    if (x > limit)
        return out_of_bounds(dtype, integer);
    switch (dtype->itemsize) {
    case 1: *(unsigned char *)item = (unsigned char)x; break;
    case 2: memcpy(item, &(uint16_t){(uint16_t)x}, 2); break;
    case 4: memcpy(item, &(uint32_t){(uint32_t)x}, 4); break;
    default: memcpy(item, &(uint64_t){(uint64_t)x}, 8); break;
    }
    return 0;
}

static int set_integer(const DTypeObject *dtype, char *item, PyObject *value) {
    if (PyLong_Check(value))
        return dtype->kind == 'i' ? set_signed(dtype, item, value) : set_unsigned(dtype, item, value);
    PyObject *integer = PyNumber_Index(value);
    if (integer == NULL)
        return -1;
    int result = dtype->kind == 'i' ? set_signed(dtype, item, integer) : set_unsigned(dtype, item, integer);
    Py_DECREF(integer);
    return result;
}

static int set_float(const DTypeObject *dtype, char *item, PyObject *value) {
    double x = PyFloat_AsDouble(value);
    if (x == -1.0 && PyErr_Occurred())
        return -1;
    switch (dtype->itemsize) {
    case 2: memcpy(item, &(uint16_t){half_from_double(x)}, 2); break;
    case 4: memcpy(item, &(float){(float)x}, 4); break;
    default: memcpy(item, &x, 8); break;
    }
    return 0;
}

static int set_complex(const DTypeObject *dtype, char *item, PyObject *value) {
    Py_complex x = PyComplex_AsCComplex(value);
    if (x.real == -1.0 && PyErr_Occurred())
        return -1;
    if (dtype->itemsize == 8)
        memcpy(item, &(float[2]){(float)x.real, (float)x.imag}, 8);
    else
        memcpy(item, &(double[2]){x.real, x.imag}, 16);
    return 0;
}

static int set_bool(char *item, PyObject *value) {
    if (!PyNumber_Check(value)) {
        PyErr_Format(PyExc_TypeError, "must be a bool or a number, not %.200s: %R", Py_TYPE(value)->tp_name, value);
        return -1;
    }
    int truth = PyObject_IsTrue(value);
    if (truth < 0)
        return -1;
    *item = (char)truth;
    return 0;
}

int dtype_set(const DTypeObject *dtype, char *item, PyObject *value) {
    switch (dtype->kind) {
    case 'b': return set_bool(item, value);
    case 'i':
    case 'u': return set_integer(dtype, item, value);
    case 'f': return set_float(dtype, item, value);
    default: return set_complex(dtype, item, value);
    }
}

/* ---- the type ------------------------------------------------------------------------------------------------------------------ */

static PyObject *dtype_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *spec;
    static char *names[] = {"", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:dtype", names, &spec))
        return NULL;
    return (PyObject *)dtype_from_object((core_state *)PyType_GetModuleState(type), spec);
}

static void dtype_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

static int dtype_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static PyObject *dtype_repr(PyObject *self) { return PyUnicode_FromFormat("isthmus.dtype('%s')", ((DTypeObject *)self)->str); }

static PyObject *dtype_str(PyObject *self) { return PyUnicode_FromString(types[((DTypeObject *)self)->code].name); }

static Py_hash_t dtype_hash(PyObject *self) {
    PyObject *text = PyUnicode_FromString(((DTypeObject *)self)->str);
    Py_hash_t hash = text == NULL ? -1 : PyObject_Hash(text); /* equal to its string, so hashed as it is */
    Py_XDECREF(text);
    return hash;
}

static PyObject *dtype_richcompare(PyObject *self, PyObject *other, int op) {
    if (op != Py_EQ && op != Py_NE)
        Py_RETURN_NOTIMPLEMENTED;
    bool equal = self == other;
    if (!equal && !Py_IS_TYPE(other, Py_TYPE(self))) {
        PyObject *text = PyUnicode_Check(other) ? Py_NewRef(other) : text_of_numpy_dtype(other);
        if (text == NULL)
            Py_RETURN_NOTIMPLEMENTED;
        equal = PyUnicode_CompareWithASCIIString(text, ((DTypeObject *)self)->str) == 0;
        Py_DECREF(text);
    }
    return PyBool_FromLong(equal == (op == Py_EQ));
}

static PyObject *dtype_method_from_format(PyObject *cls, PyObject *arg) {
    return (PyObject *)dtype_from_format_object((core_state *)PyType_GetModuleState((PyTypeObject *)cls), arg);
}

static PyObject *dtype_reduce(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return Py_BuildValue("O(s)", Py_TYPE(self), ((DTypeObject *)self)->str);
}

static PyObject *dtype_get_str(PyObject *self, void *Py_UNUSED(closure)) { return PyUnicode_FromString(((DTypeObject *)self)->str); }

static PyObject *dtype_get_format(PyObject *self, void *Py_UNUSED(closure)) { return PyUnicode_FromString(((DTypeObject *)self)->format); }

static PyObject *dtype_get_itemsize(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromSsize_t(((DTypeObject *)self)->itemsize);
}

static PyObject *dtype_get_kind(PyObject *self, void *Py_UNUSED(closure)) {
    return PyUnicode_FromStringAndSize(&((DTypeObject *)self)->kind, 1);
}

static PyObject *dtype_get_name(PyObject *self, void *Py_UNUSED(closure)) { return dtype_str(self); }

static PyObject *dtype_get_descr(PyObject *self, void *Py_UNUSED(closure)) {
    return Py_BuildValue("[(ss)]", "", ((DTypeObject *)self)->str);
}

static PyObject *dtype_get_names(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure)) { Py_RETURN_NONE; }

/* Asked for by numpy, so numpy is there; to anybody else in an interpreter that can't have numpy the attribute is missing. */
static PyObject *dtype_get_numpy_dtype(PyObject *self, void *Py_UNUSED(closure)) {
    PyObject *numpy = PyImport_ImportModule("numpy");
    if (numpy == NULL) {
        if (PyErr_ExceptionMatches(PyExc_ImportError))
            PyErr_SetString(PyExc_AttributeError, "__numpy_dtype__: numpy can't be imported here");
        return NULL;
    }
    PyObject *dtype = PyObject_CallMethod(numpy, "dtype", "s", ((DTypeObject *)self)->str);
    Py_DECREF(numpy);
    return dtype;
}

static PyGetSetDef dtype_getset[] = {
    {"str", dtype_get_str, NULL, PyDoc_STR("numpy's string, byte order included: '<f8'."), NULL},
    {"format", dtype_get_format, NULL, PyDoc_STR("The struct module's letter, as a buffer has it: 'd'."), NULL},
    {"itemsize", dtype_get_itemsize, NULL, PyDoc_STR("Bytes of one element."), NULL},
    {"kind", dtype_get_kind, NULL, PyDoc_STR("'b' bool, 'i' signed, 'u' unsigned, 'f' floating-point, 'c' complex."), NULL},
    {"name", dtype_get_name, NULL, PyDoc_STR("numpy's name: 'float64'."), NULL},
    {"descr", dtype_get_descr, NULL, PyDoc_STR("The description __array_interface__ uses: [('', '<f8')]."), NULL},
    {"names", dtype_get_names, NULL, PyDoc_STR("Field names: None."), NULL},
    {"__numpy_dtype__", dtype_get_numpy_dtype, NULL, PyDoc_STR("The numpy.dtype of the same elements."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef dtype_methods[] = {
    {"from_format", dtype_method_from_format, METH_O | METH_CLASS,
     PyDoc_STR("from_format($type, format, /)\n--\n\nThe dtype of a struct or PEP 3118 format such as 'd', '<l' or 'Zf'.\n"
               "TypeError for one that isn't a native number or bool.")},
    {"__reduce__", dtype_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(dtype_doc, "dtype(dtype, /)\n--\n\n"
                        "What the elements of an array are. Reads what numpy.dtype reads: 'f8', '<i4', 'float64', numpy's dtypes and\n"
                        "scalar types, bool, int, float, complex. Immutable, hashable, equal to its own string.\n"
                        "TypeError for anything that isn't a bool or a number in native byte order.");

static PyType_Slot dtype_slots[] = {
    {Py_tp_doc, (void *)dtype_doc},
    {Py_tp_new, dtype_new},
    {Py_tp_dealloc, dtype_dealloc},
    {Py_tp_traverse, dtype_traverse},
    {Py_tp_repr, dtype_repr},
    {Py_tp_str, dtype_str},
    {Py_tp_hash, dtype_hash},
    {Py_tp_richcompare, dtype_richcompare},
    {Py_tp_getset, dtype_getset},
    {Py_tp_methods, dtype_methods},
    {0, NULL},
};

/* With the GC flag, although a dtype refers to nothing but its type: the module's state owns dtypes, so without it the collector would never
 * see that module, type and dtypes only hold each other, and the module would outlive its interpreter. */
static PyType_Spec dtype_spec = {
    .name = "isthmus.dtype",
    .basicsize = sizeof(DTypeObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = dtype_slots,
};

int dtype_init(PyObject *module, core_state *state) {
    state->dtype_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &dtype_spec, NULL);
    if (state->dtype_type == NULL)
        return -1;
    for (int code = 0; code < IST_TYPE_CODES; code++) {
        DTypeObject *dtype = PyObject_GC_New(DTypeObject, state->dtype_type);
        if (dtype == NULL)
            return -1;
        dtype->code = (ist_type_code)code;
        dtype->kind = types[code].kind;
        dtype->itemsize = types[code].itemsize;
        dtype->str = types[code].str;
        dtype->format = types[code].format;
        state->dtypes[code] = dtype;
        PyObject_GC_Track((PyObject *)dtype);
    }
    return PyModule_AddType(module, state->dtype_type);
}
