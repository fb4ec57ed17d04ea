/* array.h: what the files behind SharedArray share among themselves: array.c and ownership.c, and all that read, write, make or export its
 * elements. The face to the rest of the extension is core.h.
 *
 * A word on pins: everything here that reads or writes an array's memory stands on the root's hold meanwhile (hold_enter), so that
 * release() from an __index__, from another thread or from a destructor ends a handle and never the memory in use (README.md, A4).
 */
#ifndef ISTHMUS_ARRAY_H
#define ISTHMUS_ARRAY_H

#include "core.h"
#include "times.h"

/* Memory described as an array; owns nothing. */
typedef struct strided {
    DTypeObject *dtype; /* borrowed */
    char *data; /* first element */
    int ndim;
    const Py_ssize_t *shape, *strides;
} strided;

static inline strided strided_of(SharedArrayObject *a) { return (strided){a->dtype, a->data, a->ndim, ARRAY_SHAPE(a), ARRAY_STRIDES(a)}; }

/* From this many bytes on work is done without the GIL: dropping and taking it costs as much as touching a few thousand bytes. */
#define WITHOUT_GIL_BYTES (32 * 1024)

/* ---- dtype.c ----------------------------------------------------------------------------------------------------------------------- */

DTypeObject *dtype_from_format_object(core_state *state, PyObject *format); /* of a str; new reference */
PyObject *dtype_description(const DTypeObject *dtype); /* what the constructor takes, for texts; new reference */
PyObject *dtype_descr(const DTypeObject *dtype);       /* numpy's .descr; new reference */
/* Room for one element, made ready for dtype_set: `few` if it fits there. NULL with MemoryError; item_free takes it back. */
#define ITEM_FEW 64
char *item_room(const DTypeObject *dtype, char *few);
void item_free(char *room, const char *few);
/* An array has no sub-arrays for elements: their axes become the array's. Replaces the (owned) dtype; -1 with ValueError. An S, U or V
 * without a length gets 1, as numpy's. */
int spread(core_state *state, DTypeObject **dtype, int *ndim, Py_ssize_t *shape);

/* ---- array.c ----------------------------------------------------------------------------------------------------------------------- */

uint32_t array_set_flags(SharedArrayObject *a, uint32_t flags); /* returns those before */
void fill_c_strides(int ndim, const Py_ssize_t *shape, Py_ssize_t itemsize, Py_ssize_t *strides);
static inline Py_ssize_t array_size(SharedArrayObject *a) { return a->nbytes / a->dtype->itemsize; }
/* A new root owner of memory of its own, in C order. `flags` as ist_segment_create's. NULL with an exception. */
SharedArrayObject *array_create(core_state *state, DTypeObject *dtype, int ndim, const Py_ssize_t *shape, uint32_t flags);

/* PEP 3118's format of the elements where they lie; NULL with ValueError if there is none. It lives as long as the dtype. */
const char *array_format(SharedArrayObject *a);

/* ---- grow.c: handles that track the length of a growable segment --------------------------------------------------------------------- */

static inline bool array_tracks(SharedArrayObject *a) { return __builtin_expect((array_flags(a) & ARRAY_TRACKS) != 0, 0); }
/* What a tracking handle has to do first: become a view of what is there now. New reference; NULL with an exception. */
SharedArrayObject *array_now(SharedArrayObject *a);
/* The same, and the method of that view. */
typedef PyObject *(*keyword_method)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *now_call(PyCFunction method, PyObject *self, PyObject *argument);
PyObject *now_call_keywords(keyword_method method, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *now_get(getter get, PyObject *self);
Py_ssize_t tracked_length(SharedArrayObject *a); /* along the first axis, now; -1 with an exception */
Py_ssize_t tracked_max_length(SharedArrayObject *a);
SharedArrayObject *array_tracking_view(SharedArrayObject *a, uint32_t flags); /* another handle that tracks; flags: ARRAY_READONLY or 0 */
/* A new root that tracks. Takes `segment`, on failure too. shape[0] doesn't count; the rest may come from outside: ValueError. */
SharedArrayObject *array_new_tracking(core_state *state, ist_segment segment, DTypeObject *dtype, int ndim, const Py_ssize_t *shape,
                                      uint32_t flags);
/* The length that max_length=object asks for, and whether it can be; -1 with an exception. */
int parse_max_length(PyObject *object, int ndim, const Py_ssize_t *shape, Py_ssize_t *max);
/* array_create's, growable up to `max` along the first axis, which parse_max_length has checked. */
SharedArrayObject *array_create_growable(core_state *state, DTypeObject *dtype, int ndim, const Py_ssize_t *shape, Py_ssize_t max,
                                         uint32_t flags);
extern PyMethodDef grow_methods[];
extern PyGetSetDef grow_attributes[];

/* ---- shape.c ----------------------------------------------------------------------------------------------------------------------- */

/* An int or a sequence of ints; `name` for the texts. Negative ones only where `unknown` (reshape's -1). Returns ndim, -1 with an exception. */
int parse_shape(PyObject *object, Py_ssize_t *shape, bool unknown);
/* The bytes of shape × itemsize; -1 with ValueError if they, zero-length axes left out, can't be had. */
Py_ssize_t shape_bytes(int ndim, const Py_ssize_t *shape, Py_ssize_t itemsize);
PyObject *shape_tuple(int ndim, const Py_ssize_t *values);
PyObject *array_transposed(SharedArrayObject *a); /* .T */
extern PyMethodDef shape_methods[];

/* ---- cast.c ------------------------------------------------------------------------------------------------------------------------ */

/* numpy's rules. same_kind: bool < unsigned < signed < float < complex and any width within one, anything as text or raw bytes but for times,
 * fields by their order: what an assignment does. unsafe: nearly everything as nearly everything, where a dtype was asked for. */
typedef enum ist_casting { CAST_SAME_KIND, CAST_UNSAFE } ist_casting;
bool castable(const DTypeObject *from, const DTypeObject *to, ist_casting how);
int raise_not_castable(const DTypeObject *from, const DTypeObject *to, ist_casting how); /* -1 with TypeError */
static inline bool dtype_is_number(const DTypeObject *d) { return d->code <= IST_CLONG; }

/* What a conversion may have left out; or-ed together. */
#define CAST_IMAGINARY 1 /* imaginary parts */
#define CAST_BEYOND 2    /* floats that no integer is: NaN, too large */
int warn_of_loss(int lost); /* RuntimeWarning; -1 if that is an error */
/* n numbers, strided; returns what was lost. Plain C, no GIL needed. */
int cast_numbers(char *to, Py_ssize_t to_stride, const DTypeObject *to_dtype, const char *from, Py_ssize_t from_stride,
                 const DTypeObject *from_dtype, size_t n);
/* One castable element, apart from the other; what was lost, or -1 with an exception and half an element. Runs no Python code of others. */
int convert_element(const DTypeObject *to, char *out, const DTypeObject *from, const char *in);

/* ---- text.c ------------------------------------------------------------------------------------------------------------------------ */

#define TEXT_ROOM 128 /* for any number or time that is written out, and a zero */
/* A number as numpy's str() has it; its length, -1 with an exception. */
Py_ssize_t text_of_number(const DTypeObject *from, const char *item, char text[TEXT_ROOM]);
Py_ssize_t text_length(const DTypeObject *dtype); /* what numpy reserves for any of a number or a time */
int put_ascii(const DTypeObject *to, char *out, const char *text, Py_ssize_t n); /* into S or U: cut off or filled up; 0 */
int read_long_double(PyObject *text, long double *x); /* of a str or bytes; -1 with ValueError */

/* ---- copy.c ------------------------------------------------------------------------------------------------------------------------ */

/* Copies elements between equal shapes, casting; right when the two overlap. The caller pins both; the GIL is dropped for large ones.
 * Warns of what is lost. -1 with an exception. */
int copy_values(const strided *to, const strided *from);
int copy_items(const strided *to, const strided *from); /* the same into new memory: what lies between fields comes along */
void put_item(const DTypeObject *dtype, char *to, const char *item); /* one element of the same dtype */
/* Every element of `to` becomes the one at `item`, which has its dtype and is nobody else's to write. */
void fill_values(const strided *to, const char *item);
/* Copies n elements of a kind that are `stride` apart into a row. Plain C, no GIL needed. */
void gather(char *to, const char *from, Py_ssize_t stride, Py_ssize_t itemsize, size_t n);
void move_items(char *to, Py_ssize_t to_stride, const char *from, Py_ssize_t from_stride, Py_ssize_t itemsize, size_t n);

/* Axes put in an order that suits the memory, joined where they are one run; shared by everything that walks. */
typedef struct walk {
    int ndim; /* of the outer loop */
    size_t n; /* elements of the inner loop */
    Py_ssize_t shape[IST_MAX_NDIM], index[IST_MAX_NDIM];
    Py_ssize_t steps[2][IST_MAX_NDIM]; /* strides of the outer loop, for each of the two */
    Py_ssize_t inner[2];
    char *at[2];
} walk;
/* `second` may be NULL. With keep_order the elements come in C order, else in the order of memory. Nothing to walk: n = 0. */
void walk_begin(walk *w, const strided *first, const strided *second, bool keep_order);
bool walk_next(walk *w); /* to the next inner loop; false: that was the last */

/* ---- convert.c --------------------------------------------------------------------------------------------------------------------- */

/* Somebody's memory, held while it is read: a pinned SharedArray or a buffer. */
typedef struct source {
    strided values;
    bool readonly;
    SharedArrayObject *pinned; /* strong, with HOLD_SHARED */
    Py_buffer view;            /* else */
    DTypeObject *dtype;        /* strong */
    char *straightened;        /* PyMem_RawMalloc; a buffer with suboffsets, made plain */
    Py_ssize_t dims[2 * IST_MAX_NDIM];
} source;
int source_open(core_state *state, PyObject *object, source *s); /* -1 with an exception; object has a buffer */
void source_close(source *s);

/* Strides that make `from` fill `ndim` and `shape`, 0 where an axis is repeated; -1 with ValueError. */
int broadcast_strides(const strided *from, int ndim, const Py_ssize_t *shape, Py_ssize_t *strides);
/* Scalar, buffer or nested sequence into `to`, which the caller has checked to be writable. All or nothing but for a failing copy.
 * `owner` (NULL: nobody) is pinned for the writing; Python code may run before it. */
int assign(core_state *state, SharedArrayObject *owner, const strided *to, PyObject *value, ist_casting how);
SharedArrayObject *array_from_object(core_state *state, PyObject *object, DTypeObject *dtype); /* always copies; dtype NULL: inferred */
SharedArrayObject *array_copy_of(core_state *state, const strided *from, DTypeObject *dtype);  /* C order; the caller pins `from` */
DTypeObject *promote(core_state *state, const DTypeObject *a,
                     const DTypeObject *b); /* numpy's promote_types; new reference, or TypeError */

/* ---- discover.c: nested sequences ---------------------------------------------------------------------------------------------------- */

/* What a scalar or a nested sequence (of buffers, too) amounts to. */
typedef struct discovery {
    ist_casting how; /* arrays inside, and values, become the target's */
    const DTypeObject *target; /* what the elements are to become; decides what is an element. NULL: infer that, too */
    bool infer;
    int ndim; /* -1: no element reached yet */
    Py_ssize_t shape[IST_MAX_NDIM]; /* -1: not known yet */
    DTypeObject *dtype; /* owned; NULL: no element seen */
} discovery;
/* Runs Python code; -1 with an exception. `target` NULL or open: inferred. Takes discovery_clear afterwards. */
/* S, U, V and times without a length or unit take the one of what becomes them. */
static inline bool dtype_is_open(const DTypeObject *d) {
    return d->itemsize == 0 || ((d->code == IST_DATETIME || d->code == IST_TIMEDELTA) && d->unit == UNIT_GENERIC);
}
int discover(core_state *state, PyObject *object, const DTypeObject *target, ist_casting how, discovery *found);
void discovery_clear(discovery *found);
/* Converts what was discovered into C order at `to`; a sequence that changed meanwhile raises. Runs Python code. */
int fill_discovered(core_state *state, PyObject *object, const discovery *found, DTypeObject *dtype, char *to);
/* Whether it is one value for an element of that dtype (NULL: of any): a number, a str, anything that is neither sequence nor buffer; for
 * S, U and V bytes as well, for fields a tuple. */
bool is_scalar(const DTypeObject *dtype, PyObject *object);

/* ---- index.c, compare.c, values.c, reduce.c, ownership.c, create.c, asarray.c, dlpack.c, arrow.c, exchange.c, memmap.c */

Py_ssize_t array_length(PyObject *self);
PyObject *array_item(PyObject *self, Py_ssize_t i);
PyObject *array_subscript(PyObject *self, PyObject *key);
int array_ass_subscript(PyObject *self, PyObject *key, PyObject *value);
PyObject *array_iter(PyObject *self);
/* Where the one element is that a full index picks out; -1 with IndexError or TypeError. Runs Python code. */
int array_element(SharedArrayObject *a, PyObject *key, char **at);

PyObject *array_richcompare(PyObject *self, PyObject *other, int op);
Py_hash_t array_hash(PyObject *self);
int array_contains(PyObject *self, PyObject *value);
int array_bool(PyObject *self);
PyObject *array_int(PyObject *self);
PyObject *array_float(PyObject *self);

PyObject *array_repr(PyObject *self);
PyObject *array_tolist(PyObject *self, PyObject *ignored);

PyObject *array_transfer(PyObject *self, PyObject *ignored);
extern PyMethodDef reduce_methods[];
extern PyMethodDef values_methods[];
extern PyMethodDef ownership_methods[];
extern PyGetSetDef ownership_attributes[];
extern PyGetSetDef values_attributes[];
extern PyMethodDef create_functions[];
int refuse_subarray(const DTypeObject *dtype); /* -1 with TypeError: values can't be converted to one */
extern PyMethodDef asarray_functions[];
extern PyMethodDef dlpack_methods[], dlpack_functions[];
extern PyMethodDef arrow_methods[], arrow_functions[];
extern PyMethodDef exchange_methods[];
/* What an object offers by __isthmus_segment__(): 1 and *out, 0 if it hasn't got it, -1 with an exception. Runs Python code. */
int exchange_adopt(core_state *state, PyObject *object, SharedArrayObject **out);
extern PyMethodDef memmap_functions[];
extern PyMethodDef memmap_methods[];
int atomics_init(PyObject *module); /* atomics.c */
/* Of a method's row: vectorcall arguments, with or without keywords. */
#define FAST(function) ((PyCFunction)(void (*)(void))(function)), METH_FASTCALL
#define KEYWORDS(function) ((PyCFunction)(void (*)(void))(function)), METH_FASTCALL | METH_KEYWORDS

/* ---- arguments.c ------------------------------------------------------------------------------------------------------------------- */

/* Binds vectorcall arguments to names: positional ones to the first `positional` (more: TypeError), keywords to any; the first `required`
 * must be there. out[i] is borrowed, NULL where nothing was given. */
typedef struct signature {
    const char *function;
    int count, positional, required;
    const char *const *names;
} signature;
int bind_arguments(const signature *s, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **out);

#endif
