/* arguments.c: binds the arguments of a METH_FASTCALL | METH_KEYWORDS function to its names, without making a tuple or a dict.
 *
 * CPython's own parser for this is private, and argument parsing is a good part of what empty(n) costs.
 */
#include "array.h"

static int index_of(const signature *s, PyObject *keyword) {
    for (int i = 0; i < s->count; i++)
        if (PyUnicode_CompareWithASCIIString(keyword, s->names[i]) == 0)
            return i;
    return -1;
}

static int bind_keywords(const signature *s, PyObject *const *values, PyObject *kwnames, PyObject **out) {
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(kwnames); k++) {
        PyObject *keyword = PyTuple_GET_ITEM(kwnames, k);
        int i = index_of(s, keyword);
        if (i < 0) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", s->function, keyword);
            return -1;
        }
        if (out[i] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument %R", s->function, keyword);
            return -1;
        }
        out[i] = values[k];
    }
    return 0;
}

int bind_arguments(const signature *s, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **out) {
    if (nargs > s->positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional arguments (%zd given)", s->function, s->positional, nargs);
        return -1;
    }
    for (int i = 0; i < s->count; i++)
        out[i] = i < nargs ? args[i] : NULL;
    if (kwnames != NULL && bind_keywords(s, args + nargs, kwnames, out) < 0)
        return -1;
    for (int i = 0; i < s->required; i++) {
        if (out[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'", s->function, s->names[i]);
            return -1;
        }
    }
    return 0;
}
