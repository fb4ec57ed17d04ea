/* dtype.h: what the files behind isthmus.dtype share: dtype.c and dtype_type.c (the objects, their type), numpy_grammar.c and format.c (the grammars),
 * element.c (one element's way to Python and back). */
#ifndef ISTHMUS_DTYPE_H
#define ISTHMUS_DTYPE_H

#include "array.h"
#include "times.h"

#define DTYPE_DEPTH 64 /* of nested structs */
#define DTYPE_ITEMSIZE_MAX 0x7fffffff /* numpy's limit, too */

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#  define NATIVE_ORDER '>'
#  define SWAPPED_ORDER '<'
#else
#  define NATIVE_ORDER '<'
#  define SWAPPED_ORDER '>'
#endif

/* ---- dtype.c: making them; new references, NULL with an exception ----------------------------------------------------------------- */

DTypeObject *dtype_of_code(core_state *state, ist_type_code code, bool swapped); /* numbers, long double included */
DTypeObject *dtype_of_length(core_state *state, ist_type_code code, Py_ssize_t length, bool swapped); /* S, V: bytes; U: code points */
DTypeObject *dtype_of_time(core_state *state, ist_type_code code, int unit, int32_t count, bool swapped);
DTypeObject *dtype_of_shape(core_state *state, DTypeObject *base, int ndim, const Py_ssize_t *shape); /* without axes: base */
/* Fields in any order and place inside itemsize (< 0: what they need). ValueError for a name that is there twice. Copies the fields. */
DTypeObject *dtype_of_fields(core_state *state, const ist_field *fields, Py_ssize_t n, Py_ssize_t itemsize, bool aligned);
/* The places of fields that follow each other, as a C compiler would have them or packed; returns the itemsize, -1 with ValueError. */
Py_ssize_t dtype_lay_out(ist_field *fields, Py_ssize_t n, bool aligned);
DTypeObject *dtype_in_order(core_state *state, const DTypeObject *d, char order); /* '<' '>' '=' '|': numpy's newbyteorder */
const char *dtype_name(ist_type_code code); /* numpy's name of a number */

/* ---- dtype_type.c ------------------------------------------------------------------------------------------------------------------- */

extern PyType_Spec dtype_type_spec;

/* ---- numpy_grammar.c ---------------------------------------------------------------------------------------------------------------- */

#define NO_CODE (-1)
int code_of_size(char kind, size_t itemsize); /* a number's code, or NO_CODE */
int code_of_letter(char letter, bool standard); /* numpy's and struct's letters; standard: sizes after one of < > = ! */
bool letter_is_numpys(char letter); /* it means nothing to struct */
DTypeObject *dtype_aligned_from_object(core_state *state, PyObject *spec, bool align);
bool from_numpy(PyTypeObject *type); /* a type of numpy's own */
bool numpy_is_array(PyObject *object); /* an ndarray */
bool numpy_is_scalar(PyObject *object); /* of a structure, a time or a number: their text and bytes derive from str and bytes first */
const char *numpy_kind(PyObject *object); /* "datetime64", "timedelta64": a numpy scalar of these; else NULL */

/* A description that is being put together: fields with owned references. */
typedef struct field_list {
    ist_field *fields;
    Py_ssize_t n, room;
} field_list;
int field_list_add(field_list *list, PyObject *name, DTypeObject *dtype,
                   Py_ssize_t offset); /* takes name and dtype, on failure too; NULL ones: -1 */
void field_list_clear(field_list *list);

/* ---- element.c ---------------------------------------------------------------------------------------------------------------------- */

/* dtype_set by the rules of a cast: with CAST_UNSAFE text becomes numbers, and floats integers, as int() and float() make them. */
int dtype_put(const DTypeObject *dtype, char *item, PyObject *value, ist_casting how);
size_t swap_unit(const DTypeObject *dtype); /* bytes that are turned round as one: complex numbers in halves, text in code points */
/* Changes the byte order of n elements side by side. No GIL needed. */
void swap_elements(const DTypeObject *dtype, char *p, size_t n);

#endif
