/* dtype_type.c: isthmus.dtype as Python sees it: attributes, repr, comparison, pickling. dtype.c makes the objects. */
#include "dtype.h"

static PyObject *dtype_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *spec;
    int align = 0;
    static char *names[] = {"", "align", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$p:dtype", names, &spec, &align))
        return NULL;
    return (PyObject *)dtype_aligned_from_object((core_state *)PyType_GetModuleState(type), spec, align != 0);
}

static int dtype_traverse(PyObject *self, visitproc visit, void *arg) {
    DTypeObject *d = (DTypeObject *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)d->base);
    for (Py_ssize_t i = 0; i < d->nfields; i++)
        Py_VISIT((PyObject *)d->fields[i].dtype);
    return 0;
}

static void dtype_dealloc(PyObject *self) {
    DTypeObject *d = (DTypeObject *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF((PyObject *)d->base); /* nested at most DTYPE_DEPTH deep */
    for (Py_ssize_t i = 0; i < d->nfields; i++) {
        Py_DECREF(d->fields[i].name);
        Py_DECREF((PyObject *)d->fields[i].dtype);
    }
    for (size_t i = 0; i < sizeof d->formats / sizeof *d->formats; i++)
        PyMem_RawFree(atomic_load_explicit(&d->formats[i], memory_order_relaxed)); /* relaxed: nobody else is left */
    PyMem_RawFree(d->fields);
    PyMem_RawFree(d->sub_shape);
    PyMem_RawFree(d->own[0]);
    PyMem_RawFree(d->own[1]);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

/* What the constructor takes: a str, a (dtype, shape), a list of fields if nothing but that is needed, else a dict. */
static PyObject *description_of(const DTypeObject *d);

static bool is_packed(const DTypeObject *d) {
    Py_ssize_t at = 0;
    for (Py_ssize_t i = 0; i < d->nfields; i++) {
        if (d->fields[i].offset != at)
            return false;
        at += d->fields[i].dtype->itemsize;
    }
    return at == d->itemsize && d->nfields > 0;
}

static PyObject *field_description(const ist_field *f) {
    if (f->dtype->code != IST_SUBARRAY)
        return Py_BuildValue("(ON)", f->name, description_of(f->dtype));
    return Py_BuildValue("(ONN)", f->name, description_of(f->dtype->base), shape_tuple(f->dtype->sub_ndim, f->dtype->sub_shape));
}

/* {"names": …, "formats": …, "offsets": …, "itemsize": …} with each field's format as `format_of` has it. */
static PyObject *dict_of(const DTypeObject *d, PyObject *(*format_of)(const DTypeObject *, PyObject *), PyObject *argument) {
    PyObject *names = PyList_New(d->nfields), *formats = PyList_New(d->nfields), *offsets = PyList_New(d->nfields);
    for (Py_ssize_t i = 0; names != NULL && formats != NULL && offsets != NULL && i < d->nfields; i++) {
        PyObject *format = format_of(d->fields[i].dtype, argument), *offset = PyLong_FromSsize_t(d->fields[i].offset);
        if (format == NULL || offset == NULL) {
            Py_XDECREF(format);
            Py_XDECREF(offset);
            Py_CLEAR(names);
            break;
        }
        PyList_SET_ITEM(names, i, Py_NewRef(d->fields[i].name));
        PyList_SET_ITEM(formats, i, format);
        PyList_SET_ITEM(offsets, i, offset);
    }
    if (names == NULL || formats == NULL || offsets == NULL) {
        Py_XDECREF(names);
        Py_XDECREF(formats);
        Py_XDECREF(offsets);
        return NULL;
    }
    return Py_BuildValue("{sNsNsNsn}", "names", names, "formats", formats, "offsets", offsets, "itemsize", d->itemsize);
}

static PyObject *description_of_field(const DTypeObject *d, PyObject *Py_UNUSED(unused)) { return description_of(d); }

static PyObject *description_of(const DTypeObject *d) {
    if (d->code == IST_SUBARRAY)
        return Py_BuildValue("(NN)", description_of(d->base), shape_tuple(d->sub_ndim, d->sub_shape));
    if (d->code != IST_STRUCT)
        return PyUnicode_FromString(d->str);
    if (!is_packed(d) || d->aligned)
        return dict_of(d, description_of_field, NULL);
    PyObject *list = PyList_New(d->nfields);
    for (Py_ssize_t i = 0; list != NULL && i < d->nfields; i++) {
        PyObject *field = field_description(&d->fields[i]);
        if (field == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, field);
    }
    return list;
}

static PyObject *dtype_repr(PyObject *self) {
    DTypeObject *d = (DTypeObject *)self;
    PyObject *description = description_of(d);
    PyObject *text =
        description == NULL ? NULL : PyUnicode_FromFormat("isthmus.dtype(%R%s)", description, d->aligned ? ", align=True" : "");
    Py_XDECREF(description);
    return text;
}

PyObject *dtype_description(const DTypeObject *d) { return description_of(d); }

static PyObject *dtype_str(PyObject *self) {
    DTypeObject *d = (DTypeObject *)self;
    if (d->swapped || d->code > IST_TEXT) {
        PyObject *description = description_of(d);
        PyObject *text = description == NULL ? NULL : PyObject_Str(description);
        Py_XDECREF(description);
        return text;
    }
    return PyUnicode_FromString(d->code <= IST_CLONG ? dtype_name(d->code) : d->str);
}

static PyObject *dtype_get_name(PyObject *self, void *Py_UNUSED(closure)) {
    DTypeObject *d = (DTypeObject *)self;
    switch (d->code) {
    case IST_BYTES: return d->itemsize == 0 ? PyUnicode_FromString("bytes") : PyUnicode_FromFormat("bytes%zd", 8 * d->itemsize);
    case IST_TEXT: return d->itemsize == 0 ? PyUnicode_FromString("str") : PyUnicode_FromFormat("str%zd", 8 * d->itemsize);
    case IST_VOID:
    case IST_STRUCT:
    case IST_SUBARRAY: return d->itemsize == 0 ? PyUnicode_FromString("void") : PyUnicode_FromFormat("void%zd", 8 * d->itemsize);
    case IST_DATETIME: return PyUnicode_FromFormat("datetime64%s", d->str + 3);
    case IST_TIMEDELTA: return PyUnicode_FromFormat("timedelta64%s", d->str + 3);
    default: return PyUnicode_FromString(dtype_name(d->code));
    }
}

static Py_hash_t dtype_hash(PyObject *self) {
    PyObject *text = PyUnicode_FromString(((DTypeObject *)self)->layout);
    Py_hash_t hash = text == NULL ? -1 : PyObject_Hash(text); /* equal to its string, so hashed as it is */
    Py_XDECREF(text);
    return hash;
}

/* What describes the same elements is equal, as for numpy; what describes nothing isn't. */
static PyObject *dtype_richcompare(PyObject *self, PyObject *other, int op) {
    if (op != Py_EQ && op != Py_NE)
        Py_RETURN_NOTIMPLEMENTED;
    bool equal = self == other;
    if (!equal && Py_IS_TYPE(other, Py_TYPE(self))) {
        equal = dtype_same((DTypeObject *)self, (DTypeObject *)other);
    } else if (!equal) {
        bool describes = PyUnicode_Check(other) || PyList_Check(other) || PyTuple_Check(other) || PyDict_Check(other) ||
                         PyType_Check(other) || from_numpy(Py_TYPE(other));
        if (!describes)
            Py_RETURN_NOTIMPLEMENTED;
        DTypeObject *d = dtype_from_object((core_state *)PyType_GetModuleState(Py_TYPE(self)), other);
        if (d == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError))
                return NULL;
            PyErr_Clear();
        } else {
            equal = dtype_same((DTypeObject *)self, d);
        }
        Py_XDECREF((PyObject *)d);
    }
    return PyBool_FromLong(equal == (op == Py_EQ));
}

static PyObject *dtype_method_from_format(PyObject *cls, PyObject *arg) {
    return (PyObject *)dtype_from_format_object((core_state *)PyType_GetModuleState((PyTypeObject *)cls), arg);
}

static PyObject *dtype_method_from_spec(PyObject *cls, PyObject *arg) {
    Py_ssize_t size;
    const char *text = PyUnicode_Check(arg) ? PyUnicode_AsUTF8AndSize(arg, &size) : NULL;
    if (text == NULL)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "a description is a str, not %R", arg);
    return (PyObject *)dtype_from_spec((core_state *)PyType_GetModuleState((PyTypeObject *)cls), text, size);
}

static PyObject *dtype_newbyteorder(PyObject *self, PyObject *args) {
    const char *order = "S";
    if (!PyArg_ParseTuple(args, "|s:newbyteorder", &order))
        return NULL;
    char c = order[0];
    c = c == 'L' || c == 'l' ? '<' : c == 'B' || c == 'b' ? '>' : c == 'N' || c == 'n' ? '=' : c == 's' ? 'S' : c;
    c = c == '=' ? NATIVE_ORDER : c;
    if (c == '|' || c == 'I')
        return Py_NewRef(self);
    if (c == '\0' || strchr("<>S", c) == NULL)
        return PyErr_Format(PyExc_ValueError, "%s is an unrecognized byteorder", order);
    return (PyObject *)dtype_in_order((core_state *)PyType_GetModuleState(Py_TYPE(self)), (DTypeObject *)self, c);
}

static PyObject *dtype_reduce(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    DTypeObject *d = (DTypeObject *)self;
    if (d->spec == d->str)
        return Py_BuildValue("O(s)", Py_TYPE(self), d->str);
    PyObject *make = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "_from_spec");
    return make == NULL ? NULL : Py_BuildValue("N(s)", make, d->spec);
}

static Py_ssize_t dtype_length(PyObject *self) { return ((DTypeObject *)self)->nfields; }

static PyObject *dtype_subscript(PyObject *self, PyObject *key) {
    DTypeObject *d = (DTypeObject *)self;
    for (Py_ssize_t i = 0; PyUnicode_Check(key) && i < d->nfields; i++)
        if (PyUnicode_Compare(d->fields[i].name, key) == 0)
            return Py_NewRef((PyObject *)d->fields[i].dtype);
    if (PyErr_Occurred())
        return NULL;
    if (PyUnicode_Check(key))
        return PyErr_Format(PyExc_KeyError, "%R has no field %R", self, key);
    Py_ssize_t i = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (i == -1 && PyErr_Occurred())
        return NULL;
    if (i < -d->nfields || i >= d->nfields)
        return PyErr_Format(PyExc_IndexError, "field index %zd is out of range for %zd fields", i, d->nfields);
    return Py_NewRef((PyObject *)d->fields[i < 0 ? i + d->nfields : i].dtype);
}

#define GETTER(name, result)                                                                                                               \
    static PyObject *dtype_get_##name(PyObject *self, void *Py_UNUSED(closure)) {                                                          \
        DTypeObject *d = (DTypeObject *)self;                                                                                              \
        return (result);                                                                                                                   \
    }
GETTER(str, PyUnicode_FromString(d->str))
GETTER(itemsize, PyLong_FromSsize_t(d->itemsize))
GETTER(alignment, PyLong_FromSsize_t(d->alignment))
GETTER(kind, PyUnicode_FromStringAndSize(&d->kind, 1))
GETTER(isalignedstruct, PyBool_FromLong(d->aligned))
GETTER(base, Py_NewRef(d->base != NULL ? (PyObject *)d->base : self))
GETTER(shape, shape_tuple(d->sub_ndim, d->sub_shape))
GETTER(byteorder, PyUnicode_FromString(d->str[0] == '|' ? "|" : d->swapped ? (char[]){SWAPPED_ORDER, 0} : "="))

static PyObject *dtype_get_format(PyObject *self, void *Py_UNUSED(closure)) {
    const char *format = dtype_format((DTypeObject *)self, 16);
    return format == NULL ? NULL : PyUnicode_FromString(format);
}

static PyObject *dtype_get_names(PyObject *self, void *Py_UNUSED(closure)) {
    DTypeObject *d = (DTypeObject *)self;
    if (d->code != IST_STRUCT)
        Py_RETURN_NONE;
    PyObject *names = PyTuple_New(d->nfields);
    for (Py_ssize_t i = 0; names != NULL && i < d->nfields; i++)
        PyTuple_SET_ITEM(names, i, Py_NewRef(d->fields[i].name));
    return names;
}

static PyObject *dtype_get_fields(PyObject *self, void *Py_UNUSED(closure)) {
    DTypeObject *d = (DTypeObject *)self;
    if (d->code != IST_STRUCT)
        Py_RETURN_NONE;
    PyObject *fields = PyDict_New(), *proxy = NULL;
    Py_ssize_t i = 0;
    for (; fields != NULL && i < d->nfields; i++) {
        PyObject *value = Py_BuildValue("(On)", d->fields[i].dtype, d->fields[i].offset);
        if (value == NULL || PyDict_SetItem(fields, d->fields[i].name, value) < 0)
            Py_CLEAR(fields);
        Py_XDECREF(value);
    }
    if (fields != NULL)
        proxy = PyDictProxy_New(fields);
    Py_XDECREF(fields);
    return proxy;
}

/* With the padding between fields as '' fields of kind V. */
static int append_padding(PyObject *list, Py_ssize_t bytes) {
    PyObject *padding = Py_BuildValue("(sN)", "", PyUnicode_FromFormat("|V%zd", bytes));
    int result = padding == NULL ? -1 : PyList_Append(list, padding);
    Py_XDECREF(padding);
    return result;
}

static PyObject *descr_of(const DTypeObject *d) {
    if (d->code != IST_STRUCT)
        return Py_BuildValue("[(ss)]", "", d->str);
    PyObject *list = PyList_New(0);
    Py_ssize_t at = 0;
    for (Py_ssize_t i = 0; list != NULL && i < d->nfields; i++) {
        const ist_field *f = &d->fields[i];
        const DTypeObject *of = f->dtype->code == IST_SUBARRAY ? f->dtype->base : f->dtype;
        if (f->offset < at) {
            PyErr_SetString(PyExc_ValueError, "dtype.descr is not defined for types with overlapping or out-of-order fields");
            Py_CLEAR(list);
            break;
        }
        PyObject *inner = of->code == IST_STRUCT ? descr_of(of) : PyUnicode_FromString(of->str);
        PyObject *entry = of == f->dtype ? Py_BuildValue("(ON)", f->name, inner)
                                         : Py_BuildValue("(ONN)", f->name, inner, shape_tuple(f->dtype->sub_ndim, f->dtype->sub_shape));
        if (entry == NULL || (f->offset > at && append_padding(list, f->offset - at) < 0) || PyList_Append(list, entry) < 0)
            Py_CLEAR(list);
        Py_XDECREF(entry);
        at = f->offset + f->dtype->itemsize;
    }
    if (list != NULL && at < d->itemsize && append_padding(list, d->itemsize - at) < 0)
        Py_CLEAR(list);
    return list;
}

PyObject *dtype_descr(const DTypeObject *d) { return descr_of(d); }

static PyObject *dtype_get_descr(PyObject *self, void *Py_UNUSED(closure)) { return descr_of((DTypeObject *)self); }

/* numpy.dtype, called from the inside out: align=True would reach into nested structures. */
static PyObject *numpy_dtype_of(const DTypeObject *d, PyObject *make) {
    if (d->code == IST_SUBARRAY) {
        PyObject *base = numpy_dtype_of(d->base, make);
        return base == NULL ? NULL : PyObject_CallFunction(make, "((NN))", base, shape_tuple(d->sub_ndim, d->sub_shape));
    }
    if (d->code != IST_STRUCT)
        return PyObject_CallFunction(make, "s", d->str);
    PyObject *fields = dict_of(d, numpy_dtype_of, make);
    PyObject *dtype = fields == NULL ? NULL : PyObject_CallFunction(make, "OO", fields, d->aligned ? Py_True : Py_False);
    Py_XDECREF(fields);
    return dtype;
}

/* Asked for by numpy, so numpy is there; to anybody else in an interpreter that can't have numpy the attribute is missing. */
static PyObject *dtype_get_numpy_dtype(PyObject *self, void *Py_UNUSED(closure)) {
    PyObject *numpy = PyImport_ImportModule("numpy");
    if (numpy == NULL) {
        if (PyErr_ExceptionMatches(PyExc_ImportError))
            PyErr_SetString(PyExc_AttributeError, "__numpy_dtype__: numpy can't be imported here");
        return NULL;
    }
    PyObject *make = PyObject_GetAttrString(numpy, "dtype"), *dtype = make == NULL ? NULL : numpy_dtype_of((DTypeObject *)self, make);
    Py_XDECREF(make);
    Py_DECREF(numpy);
    return dtype;
}

static PyGetSetDef dtype_getset[] = {
    {"str", dtype_get_str, NULL, PyDoc_STR("numpy's string, byte order included: `'<f8'`, or `'|V16'` for fields."), NULL},
    {"format", dtype_get_format, NULL,
     PyDoc_STR("PEP 3118's format of aligned elements, as numpy writes it: 'd'. ValueError if there is none (datetime64)."), NULL},
    {"itemsize", dtype_get_itemsize, NULL, PyDoc_STR("Bytes of one element."), NULL},
    {"alignment", dtype_get_alignment, NULL, PyDoc_STR("Bytes to whose multiples a C compiler would align an element."), NULL},
    {"kind", dtype_get_kind, NULL,
     PyDoc_STR("'b' bool, 'i' signed, 'u' unsigned, 'f' floating-point, 'c' complex, 'S' bytes, 'U' text, 'M' datetime64,\n"
               "'m' timedelta64, 'V' raw bytes, fields or a sub-array."),
     NULL},
    {"name", dtype_get_name, NULL, PyDoc_STR("numpy's name: 'float64'."), NULL},
    {"byteorder", dtype_get_byteorder, NULL, PyDoc_STR("'=' this machine's, '<' or '>' the other one, '|' none."), NULL},
    {"descr", dtype_get_descr, NULL, PyDoc_STR("The description __array_interface__ uses: `[('', '<f8')]`."), NULL},
    {"names", dtype_get_names, NULL, PyDoc_STR("Field names; None without fields."), NULL},
    {"fields", dtype_get_fields, NULL, PyDoc_STR("Mapping of each field's name to (dtype, offset in bytes); None without fields."), NULL},
    {"isalignedstruct", dtype_get_isalignedstruct, NULL, PyDoc_STR("Whether it was made with align=True."), NULL},
    {"base", dtype_get_base, NULL, PyDoc_STR("A sub-array's element; itself for any other."), NULL},
    {"shape", dtype_get_shape, NULL, PyDoc_STR("A sub-array's lengths; () for any other."), NULL},
    {"__numpy_dtype__", dtype_get_numpy_dtype, NULL, PyDoc_STR("The numpy.dtype of the same elements."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef dtype_methods[] = {
    {"from_format", dtype_method_from_format, METH_O | METH_CLASS,
     PyDoc_STR("from_format($type, format, /)\n--\n\nThe dtype of a struct or PEP 3118 format such as 'd', '<l', 'Zf' or 'T{i:n:d:x:}'.\n"
               "TypeError for one that can't be an array's.")},
    {"newbyteorder", dtype_newbyteorder, METH_VARARGS,
     PyDoc_STR(
         "newbyteorder($self, new_order='S', /)\n--\n\nThe same elements in another byte order: '<', '>', '=' or 'S' for the other one.")},
    {"_from_spec", dtype_method_from_spec, METH_O | METH_CLASS, NULL},
    {"__reduce__", dtype_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(dtype_doc,
             "dtype(dtype, /, *, align=False)\n--\n\n"
             "What the elements of an array are. Reads what numpy.dtype reads: 'f8', '<i4', 'float64', 'S10', 'M8[ns]',\n"
             "`[('x', 'f4'), ('y', 'i8')]`, `'i4, (2,3)f8'`, dicts of names, formats and offsets; numpy's dtypes and scalar types;\n"
             "bool, int, float, complex, bytes, str. align: fields lie where a C compiler would put them.\n"
             "Immutable, hashable, equal to what describes the same elements.\n"
             "TypeError for what isn't understood, and for Python objects.");

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
    {Py_mp_length, dtype_length},
    {Py_mp_subscript, dtype_subscript},
    {0, NULL},
};

/* With the GC flag: the module's state owns dtypes, so without it the collector would never see that module, type and dtypes only hold each
 * other, and the module would outlive its interpreter. */
PyType_Spec dtype_type_spec = {
    .name = "isthmus.dtype",
    .basicsize = sizeof(DTypeObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = dtype_slots,
};
