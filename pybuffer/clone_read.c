/* clone_read.c: a message becomes an object: the loop over its items, containers, identity, and what bounds the work that bytes can ask for.
 *
 * Bytes are untrusted. The reader (<isthmus/clone.h>) bounds lengths; here is bounded what they mean. No recursion: open items are a stack in
 * memory. A container is a valid object from the start (tuples are filled with None, a list's size grows), so whatever Python code sees of
 * it, be it by __hash__ of a key or by the collector, is sound.
 *
 * Invariants (README.md, C4 to C7)
 *   kept[i].object == NULL or strong; complete or (1 + its index among the open items) in .open
 *   nothing is hashed that refers to something incomplete: unsettled != SIZE_MAX => keys that could wait in `later`, in their order
 *   a tuple is never part of itself by way of tuples, frozensets and slices alone: hash() would not end
 *   the nodes of all keys are bounded by the message's size, their height by KEY_HEIGHT, and keys of one hash by SAME_HASHES
 */
#include "clone_decoder.h"

#define KEY_HEIGHT 200
#define SAME_HASHES 200 /* keys of a container; more than 256 keys that aren't text or bytes are counted, whose hashes nobody can foresee */
#define COUNTED_FROM 256
#define BUDGET(size) (100000 + 64 * (uint64_t)(size))
#define SETTLED SIZE_MAX

PyObject *decode_refuse(decoder *d, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    PyObject *why = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    if (why != NULL)
        PyErr_Format(d->state->CloneError, "not a clone, or damaged: %U (%zu bytes before its end)", why, ist_clone_left(&d->r));
    Py_XDECREF(why);
    return NULL;
}

PyObject *make_sensible(decoder *d, PyObject *object) {
    if (object != NULL || !PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError) ||
        PyErr_ExceptionMatches(PyExc_ImportError) || PyErr_ExceptionMatches(d->state->Error))
        return object;
    PyObject *raised = PyErr_GetRaisedException();
    decode_refuse(d, "%S", raised);
    Py_DECREF(raised);
    return NULL;
}

/* Room for one more; NULL with MemoryError. */
static void *more(void *items, size_t count, size_t *room, size_t size) {
    if (count < *room)
        return items;
    const size_t wanted = *room == 0 ? 16 : 2 * *room;
    void *larger = wanted > (size_t)PY_SSIZE_T_MAX / size ? NULL : PyMem_Realloc(items, wanted * size);
    if (larger == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *room = wanted;
    return larger;
}

/* ---- identity ------------------------------------------------------------------------------------------------------------------------ */

/* The next number is this object's (NULL: it isn't made yet). */
static inline int keep(decoder *d, PyObject *object, weight is, size_t open) {
    kept_item *kept = more(d->kept, d->nkept, &d->kept_room, sizeof *kept);
    if (kept == NULL)
        return -1;
    d->kept = kept;
    kept[d->nkept++] = (kept_item){Py_XNewRef(object), open, is};
    return 0;
}

/* An object once more; new. */
static PyObject *same(decoder *d, uint64_t number, weight *is) {
    const kept_item *kept = &d->kept[number];
    if (kept->object == NULL)
        return decode_refuse(d, "an object that consists of itself");
    if (kept->open != 0) {
        if (kept->open - 1 < d->unsettled)
            d->unsettled = kept->open - 1;
        if (d->open[d->depth - 1].passable < kept->open)
            return decode_refuse(d, "a tuple, frozenset or slice that is part of itself");
    }
    *is = kept->is;
    return Py_NewRef(kept->object);
}

/* ---- what hashes --------------------------------------------------------------------------------------------------------------------- */

static inline bool is_atom(PyObject *key) {
    const PyTypeObject *type = Py_TYPE(key);
    return type == &PyUnicode_Type || type == &PyLong_Type || type == &PyBytes_Type || type == &PyFloat_Type || type == &PyBool_Type ||
           key == Py_None;
}

static inline bool is_unforeseeable(PyObject *key) { return PyUnicode_CheckExact(key) || PyBytes_CheckExact(key); }

static int defer(decoder *d, PyObject *into, PyObject *key, PyObject *value) {
    later_item *later = more(d->later, d->nlater, &d->later_room, sizeof *later);
    if (later == NULL)
        return -1;
    d->later = later;
    later[d->nlater++] = (later_item){Py_NewRef(into), Py_XNewRef(key), Py_XNewRef(value)};
    return 0;
}

/* -1 if too many keys of one container had this hash before. */
static int count_hash(decoder *d, unsigned char *seen, uint64_t mask, Py_hash_t hash, uint64_t salt) {
    const uint64_t mixed = ((uint64_t)hash ^ salt) * UINT64_C(0x9E3779B97F4A7C15);
    unsigned char *n = &seen[(mixed >> 32) & mask];
    if (*n == SAME_HASHES)
        return decode_failed(d, "more than %d keys with the same hash", SAME_HASHES);
    ++*n;
    return 0;
}

static unsigned char *new_counts(uint64_t n, uint64_t *mask) {
    uint64_t size = 256;
    while (size < n)
        size *= 2;
    unsigned char *seen = PyMem_Calloc(size, 1);
    if (seen == NULL)
        PyErr_NoMemory();
    *mask = size - 1;
    return seen;
}

static inline int put_in(PyObject *into, PyObject *key, PyObject *value) {
    return value != NULL ? PyDict_SetItem(into, key, value) : PySet_Add(into, key);
}

static int insert_counted(decoder *d, open_item *f, PyObject *key, PyObject *value) {
    const Py_hash_t hash = PyObject_Hash(key);
    if (hash == -1)
        return -1;
    if (f->seen == NULL && (f->seen = new_counts(f->n, &f->hashes)) == NULL)
        return -1;
    return count_hash(d, f->seen, f->hashes, hash, 0) < 0 ? -1 : put_in(f->into, key, value);
}

/* A pair into f's dict, or (value NULL) an item into its set. */
static int insert(decoder *d, open_item *f, PyObject *key, weight is, PyObject *value) {
    if (!is_atom(key)) {
        if (is.height > KEY_HEIGHT)
            return decode_failed(d, "a key that is nested more than %d deep", KEY_HEIGHT);
        f->late |= d->unsettled != SETTLED;
    }
    if (is.nodes > d->budget)
        return decode_failed(d, "keys that consist of the same objects again and again");
    d->budget -= is.nodes;
    if (f->late)
        return defer(d, f->into, key, value);
    if (f->n > COUNTED_FROM && !is_unforeseeable(key))
        return insert_counted(d, f, key, value);
    return put_in(f->into, key, value);
}

static void become_frozenset(PyObject *set) {
    /* One layout, and nobody has hashed it: a set can't be. PySet_Add refuses a frozenset that something else refers to already. */
    Py_SET_TYPE(set, &PyFrozenSet_Type);
}

static int do_later(decoder *d, const later_item *item, unsigned char *seen, uint64_t mask) {
    if (item->key == NULL) {
        become_frozenset(item->into);
        return 0;
    }
    const Py_hash_t hash = PyObject_Hash(item->key);
    if (hash == -1)
        return -1;
    if (seen != NULL && !is_unforeseeable(item->key) && count_hash(d, seen, mask, hash, (uint64_t)(uintptr_t)item->into) < 0)
        return -1;
    return put_in(item->into, item->key, item->value);
}

/* The cycle is complete. */
static int settle(decoder *d) {
    later_item *later = d->later;
    const size_t n = d->nlater;
    uint64_t mask = 0;
    unsigned char *seen = n > COUNTED_FROM ? new_counts(n, &mask) : NULL;
    int result = seen == NULL && n > COUNTED_FROM ? -1 : 0;
    for (size_t i = 0; i < n && result == 0; i++)
        result = do_later(d, &later[i], seen, mask);
    PyMem_Free(seen);
    d->unsettled = SETTLED;
    for (size_t i = 0; i < n && result == 0; i++) { /* after a failure they go with the decoder */
        Py_CLEAR(later[i].into);
        Py_CLEAR(later[i].key);
        Py_CLEAR(later[i].value);
    }
    d->nlater = result == 0 ? 0 : n;
    return result;
}

/* ---- open items -------------------------------------------------------------------------------------------------------------------------- */

static inline bool is_passable(unsigned kind) {
    return kind == IST_CLONE_LIST || kind == IST_CLONE_DICT || kind == IST_CLONE_SET || kind == IST_CLONE_INSTANCE ||
           kind == IST_CLONE_EXCEPTION;
}

static inline bool is_rough(unsigned kind) {
    return kind == IST_CLONE_SLICE || kind == IST_CLONE_EXCEPTION || kind == IST_CLONE_REGISTERED;
}

static PyObject *new_tuple(uint64_t n) {
    PyObject *tuple = PyTuple_New((Py_ssize_t)n);
    for (uint64_t i = 0; tuple != NULL && i < n; i++)
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, Py_None); /* immortal */
    return tuple;
}

static PyObject *new_list(uint64_t n) {
    PyObject *list = PyList_New((Py_ssize_t)n);
    if (list != NULL)
        Py_SET_SIZE(list, 0); /* room for n, and no item yet */
    return list;
}

/* The object that an item begins with, or a tuple for what it will be made of; NULL with or (it needs its class first) without an exception. */
static inline PyObject *new_container(const ist_clone_item *item, uint64_t n) {
    switch (item->kind) {
    case IST_CLONE_LIST: return new_list(n);
    case IST_CLONE_DICT: return item->n > 5 ? _PyDict_NewPresized((Py_ssize_t)item->n) : PyDict_New();
    case IST_CLONE_SET:
    case IST_CLONE_FROZENSET: return PySet_New(NULL);
    case IST_CLONE_SLICE: return PySlice_New(NULL, NULL, NULL);
    case IST_CLONE_NAMEDTUPLE:
    case IST_CLONE_INSTANCE: return NULL;
    default: return new_tuple(n);
    }
}

/* How many items an item has inside. */
static inline uint64_t items_of(const ist_clone_item *item) {
    switch (item->kind) {
    case IST_CLONE_LIST:
    case IST_CLONE_TUPLE:
    case IST_CLONE_SET:
    case IST_CLONE_FROZENSET:
    case IST_CLONE_NAMEDTUPLE: return item->n;
    case IST_CLONE_DICT: return 2 * item->n;
    case IST_CLONE_INSTANCE: return 1 + 2 * item->n;
    case IST_CLONE_RANGE:
    case IST_CLONE_SLICE: return 3;
    case IST_CLONE_GLOBAL:
    case IST_CLONE_ENUM:
    case IST_CLONE_REGISTERED: return 2;
    case IST_CLONE_EXCEPTION: return 6;
    default: return 1;
    }
}

static int begin(decoder *d, const ist_clone_item *item) {
    const uint64_t n = items_of(item);
    if (n == 0 && item->kind == IST_CLONE_NAMEDTUPLE)
        return decode_failed(d, "a named tuple without a class");
    open_item *open = more(d->open, d->depth, &d->open_room, sizeof *open);
    if (open == NULL)
        return -1;
    d->open = open;
    PyObject *into = new_container(item, n);
    if (into == NULL && PyErr_Occurred())
        return -1;
    open_item *f = &open[d->depth];
    f->kind = item->kind;
    f->late = false;
    f->next = 0;
    f->n = n;
    f->into = into;
    f->key = NULL;
    f->is = (weight){0, 1};
    f->number = 0;
    f->seen = NULL;
    f->passable = is_passable(item->kind) ? d->depth + 1 : d->depth > 0 ? open[d->depth - 1].passable : 0;
    if (item->kind >= IST_CLONE_DATE && item->kind <= IST_CLONE_TIMEZONE)
        memcpy(f->data, item->data, item->kind == IST_CLONE_ZONED_TIME ? 8 : 12);
    f->integer = item->integer;
    d->depth++; /* from here on it is cleared with the decoder */
    if (item->keep) {
        const bool is_it = item->kind == IST_CLONE_LIST || item->kind == IST_CLONE_TUPLE || item->kind == IST_CLONE_DICT ||
                           item->kind == IST_CLONE_SET || item->kind == IST_CLONE_FROZENSET || item->kind == IST_CLONE_SLICE;
        f->number = d->nkept + 1;
        if (keep(d, is_it ? into : NULL, (weight){0, 1}, d->depth) < 0)
            return -1;
    }
    if (is_rough(item->kind) && ++d->rough > CLONE_ROUGH_DEPTH)
        return decode_failed(d, "slices, exceptions or registered objects nested more than %d deep", CLONE_ROUGH_DEPTH);
    return 0;
}

/* It has its object now. */
static void is_made(decoder *d, const open_item *f, PyObject *object) {
    if (f->number > 0)
        d->kept[f->number - 1].object = Py_NewRef(object);
}

/* Appends; takes the item. */
static inline int append(PyObject *list, PyObject *item) {
    const Py_ssize_t n = PyList_GET_SIZE(list);
    if (__builtin_expect(n < ((PyListObject *)list)->allocated, 1)) {
        ((PyListObject *)list)->ob_item[n] = item;
        Py_SET_SIZE(list, n + 1);
        return 0;
    }
    int result = PyList_Append(list, item); /* somebody who saw it by way of a cycle has changed it */
    Py_DECREF(item);
    return result;
}

static inline void add_weight(weight *to, weight of) {
    if (to->height <= of.height)
        to->height = of.height + 1;
    if (__builtin_add_overflow(to->nodes, of.nodes, &to->nodes))
        to->nodes = UINT32_MAX;
}

static int instance_item(decoder *d, open_item *f, PyObject *item, uint64_t i) {
    if (i == 0) {
        f->into = f->kind == IST_CLONE_INSTANCE ? make_instance(d, item) : make_namedtuple(d, item, (Py_ssize_t)f->n - 1);
        if (f->into != NULL)
            is_made(d, f, f->into);
        return f->into == NULL ? -1 : 0;
    }
    if (f->kind == IST_CLONE_NAMEDTUPLE) {
        PyTuple_SET_ITEM(f->into, (Py_ssize_t)i - 1, Py_NewRef(item)); /* None was there, which is immortal */
        return 0;
    }
    if (i % 2 == 1) {
        if (!PyUnicode_CheckExact(item))
            return decode_failed(d, "an attribute whose name isn't text");
        f->key = Py_NewRef(item);
        return 0;
    }
    int result = set_instance_attribute(d, f->into, f->key, item);
    Py_CLEAR(f->key);
    return result;
}

static int slice_item(open_item *f, PyObject *item, uint64_t i) {
    PySliceObject *slice = (PySliceObject *)f->into;
    PyObject **const fields[] = {&slice->start, &slice->stop, &slice->step};
    *fields[i] = Py_NewRef(item); /* instead of None */
    return 0;
}

/* An item of the topmost open one; takes it. */
static inline int give(decoder *d, open_item *f, PyObject *item, weight is) {
    const uint64_t i = f->next++;
    int result;
    switch (f->kind) {
    case IST_CLONE_LIST: return append(f->into, item);
    case IST_CLONE_DICT:
        if (f->key == NULL) {
            f->key = item;
            f->key_is = is;
            return 0;
        }
        if (Py_IS_TYPE(f->key, &PyUnicode_Type) && !f->late) {
            result = PyDict_SetItem(f->into, f->key, item);
        } else {
            result = insert(d, f, f->key, f->key_is, item);
        }
        Py_CLEAR(f->key);
        break;
    case IST_CLONE_TUPLE:
        PyTuple_SET_ITEM(f->into, (Py_ssize_t)i, item);
        add_weight(&f->is, is);
        return 0;
    case IST_CLONE_SET:
    case IST_CLONE_FROZENSET:
        result = insert(d, f, item, is, NULL);
        if (f->kind == IST_CLONE_FROZENSET)
            add_weight(&f->is, is);
        break;
    case IST_CLONE_INSTANCE:
    case IST_CLONE_NAMEDTUPLE:
        add_weight(&f->is, is);
        result = instance_item(d, f, item, i);
        break;
    case IST_CLONE_SLICE:
        add_weight(&f->is, is);
        result = slice_item(f, item, i);
        break;
    default:
        PyTuple_SET_ITEM(f->into, (Py_ssize_t)i, item);
        add_weight(&f->is, is);
        return f->kind == IST_CLONE_EXCEPTION ? exception_item(d, f, (Py_ssize_t)i) : 0;
    }
    Py_DECREF(item);
    return result;
}

/* The topmost open item is complete: its object, new, and its weight; NULL with an exception, then it is still open. */
static PyObject *finish(decoder *d, weight *is) {
    open_item *f = &d->open[d->depth - 1];
    PyObject *object = NULL;
    switch (f->kind) {
    case IST_CLONE_LIST:
    case IST_CLONE_TUPLE:
    case IST_CLONE_DICT:
    case IST_CLONE_SET:
    case IST_CLONE_SLICE:
    case IST_CLONE_INSTANCE:
    case IST_CLONE_NAMEDTUPLE: object = f->into; break;
    case IST_CLONE_FROZENSET:
        if (f->late && defer(d, f->into, NULL, NULL) < 0)
            return NULL;
        if (!f->late)
            become_frozenset(f->into);
        object = f->into;
        break;
    case IST_CLONE_EXCEPTION:
        object = f->key;
        f->key = NULL;
        Py_DECREF(f->into);
        break;
    default:
        object = make_of_items(d, f);
        if (object == NULL)
            return NULL;
        is_made(d, f, object);
        Py_DECREF(f->into);
    }
    f->into = NULL; /* the caller's */
    if (f->seen != NULL)
        PyMem_Free(f->seen);
    d->rough -= is_rough(f->kind);
    *is = f->is;
    if (f->number > 0) {
        d->kept[f->number - 1].open = 0;
        d->kept[f->number - 1].is = f->is;
    }
    d->depth--;
    if (__builtin_expect(d->unsettled != SETTLED, 0) && d->unsettled >= d->depth && settle(d) < 0)
        Py_CLEAR(object);
    return object;
}

/* ---- text -------------------------------------------------------------------------------------------------------------------------------- */

static inline bool has_high_bit(const unsigned char *at, size_t n) {
    uint64_t bits = 0, word;
    for (; n >= 8; at += 8, n -= 8) {
        memcpy(&word, at, 8);
        bits |= word;
    }
    for (; n > 0; at++, n--)
        bits |= *at;
    return (bits & UINT64_C(0x8080808080808080)) != 0;
}

static inline PyObject *ascii_text(decoder *d, const ist_clone_item *item) {
    const size_t n = (size_t)item->n;
    if (n == 1) {
        const unsigned char only = *item->data;
        return only < 0x80 ? PyUnicode_FromOrdinal(only) : decode_refuse(d, "text with a byte that isn't ASCII");
    }
    PyObject *text = PyUnicode_New((Py_ssize_t)n, 0x7f);
    if (text == NULL || n == 0)
        return text;
    memcpy(PyUnicode_1BYTE_DATA(text), item->data, n);
    if (__builtin_expect(has_high_bit(PyUnicode_1BYTE_DATA(text), n), 0)) { /* of the copy: the message may change */
        Py_DECREF(text);
        return decode_refuse(d, "text with a byte that isn't ASCII");
    }
    return text;
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#  error "text and array contents are copied as they are, which is right on little-endian machines"
#endif

static Py_UCS4 greatest(PyObject *text) {
    const size_t n = (size_t)PyUnicode_GET_LENGTH(text);
    Py_UCS4 found = 0;
    if (PyUnicode_KIND(text) == 1)
        return has_high_bit(PyUnicode_1BYTE_DATA(text), n) ? 0xff : 0;
    if (PyUnicode_KIND(text) == 2) {
        for (size_t i = 0; i < n; i++)
            found |= PyUnicode_2BYTE_DATA(text)[i]; /* above 0xff exactly if one of them is */
        return found;
    }
    for (size_t i = 0; i < n; i++)
        found = PyUnicode_4BYTE_DATA(text)[i] > found ? PyUnicode_4BYTE_DATA(text)[i] : found;
    return found;
}

/* CPython relies on each text being as narrow as it can be. */
static PyObject *wide_text(decoder *d, const ist_clone_item *item) {
    static const Py_UCS4 above[] = {0x7f, 0xff, 0xffff}, limits[] = {0xff, 0xffff, 0x10ffff};
    const int i = (int)item->kind - IST_CLONE_TEXT_1;
    PyObject *text = item->n == 0 ? NULL : PyUnicode_New((Py_ssize_t)item->n, limits[i]);
    if (text == NULL)
        return PyErr_Occurred() ? NULL : decode_refuse(d, "text that isn't written in the shortest way");
    memcpy(PyUnicode_DATA(text), item->data, (size_t)item->n << i);
    const Py_UCS4 most = greatest(text);
    if (most <= above[i] || most > limits[i]) {
        Py_DECREF(text);
        return decode_refuse(d, "text with impossible characters, or that isn't written in the shortest way");
    }
    if (item->n == 1 && i == 0) /* those are objects that the interpreter has once */
        Py_SETREF(text, PyUnicode_FromOrdinal((int)PyUnicode_READ_CHAR(text, 0)));
    return text;
}

/* ---- the loop ---------------------------------------------------------------------------------------------------------------------------- */

static PyObject *read_items(decoder *d) {
    ist_clone_item item;
    for (;;) {
        if (__builtin_expect(ist_clone_next(&d->r, &item) != 0, 0))
            return decode_refuse(d, "an item that is cut off, or of an unknown kind");
        PyObject *object;
        weight is = {0, 1};
        switch (item.kind) {
        case IST_CLONE_TEXT_ASCII: object = ascii_text(d, &item); break;
        case IST_CLONE_INT64: object = PyLong_FromLongLong(item.integer); break;
        case IST_CLONE_SAME: object = same(d, item.n, &is); break;
        case IST_CLONE_NONE: object = Py_None; break;
        case IST_CLONE_TRUE: object = Py_True; break;
        case IST_CLONE_FALSE: object = Py_False; break;
        case IST_CLONE_FLOAT: {
            const uint64_t bits = ist_clone_get64(item.data);
            double value;
            memcpy(&value, &bits, sizeof value);
            object = PyFloat_FromDouble(value);
            break;
        }
        case IST_CLONE_TEXT_1:
        case IST_CLONE_TEXT_2:
        case IST_CLONE_TEXT_4: object = wide_text(d, &item); break;
        case IST_CLONE_INT:
            object = _PyLong_FromByteArray(item.data, (size_t)item.n, 1, 1);
            is.nodes = item.n / 8 < UINT32_MAX ? 1 + (uint32_t)(item.n / 8) : UINT32_MAX; /* hashing looks at all of it, each time */
            break;
        case IST_CLONE_LIST:
        case IST_CLONE_DICT:
        case IST_CLONE_TUPLE:
        case IST_CLONE_SET:
        case IST_CLONE_FROZENSET:
        case IST_CLONE_RANGE:
        case IST_CLONE_SLICE:
        case IST_CLONE_ZONED_TIME:
        case IST_CLONE_ZONED_DATETIME:
        case IST_CLONE_TIMEZONE:
        case IST_CLONE_GLOBAL:
        case IST_CLONE_ENUM:
        case IST_CLONE_NAMEDTUPLE:
        case IST_CLONE_INSTANCE:
        case IST_CLONE_EXCEPTION:
        case IST_CLONE_REGISTERED:
        case IST_CLONE_PICKLE:
        case IST_CLONE_NDARRAY:
        case IST_CLONE_NDARRAY_F:
        case IST_CLONE_MEMORYVIEW:
            if (begin(d, &item) < 0)
                return NULL;
            if (d->open[d->depth - 1].n > 0)
                continue;
            item.keep = false; /* has its number */
            object = finish(d, &is);
            break;
        default: object = make_leaf(d, &item);
        }
        if (__builtin_expect(object == NULL, 0))
            return NULL;
        if (item.keep && keep(d, object, is, 0) < 0) {
            Py_DECREF(object);
            return NULL;
        }
        for (;;) {
            if (d->depth == 0)
                return object;
            open_item *f = &d->open[d->depth - 1];
            if (give(d, f, object, is) < 0)
                return NULL;
            if (f->next < f->n)
                break;
            object = finish(d, &is);
            if (object == NULL)
                return NULL;
        }
    }
}

static void end(decoder *d) {
    while (d->depth > 0) {
        open_item *f = &d->open[--d->depth];
        Py_XDECREF(f->into);
        Py_XDECREF(f->key);
        PyMem_Free(f->seen);
    }
    for (size_t i = 0; i < d->nlater; i++) {
        Py_XDECREF(d->later[i].into);
        Py_XDECREF(d->later[i].key);
        Py_XDECREF(d->later[i].value);
    }
    for (size_t i = 0; i < d->nkept; i++)
        Py_XDECREF(d->kept[i].object);
    Py_XDECREF((PyObject *)d->checked);
    Py_XDECREF(d->unpickling);
    PyMem_Free(d->open);
    PyMem_Free(d->later);
    PyMem_Free(d->kept);
}

static PyObject *decode(decoder *d, const void *bytes, size_t size) {
    d->unsettled = SETTLED;
    d->budget = BUDGET(size);
    if (ist_clone_open(&d->r, bytes, size) != 0) {
        const unsigned char *at = bytes;
        if (size > IST_CLONE_HEAD && memcmp(at, "ISTC", 4) == 0 && at[4] != IST_CLONE_VERSION)
            PyErr_Format(d->state->CloneError, "a clone of version %d; this isthmus reads version %d", at[4], IST_CLONE_VERSION);
        else
            PyErr_Format(d->state->CloneError, "not a clone: its %zu bytes don't begin as one", size);
        return NULL;
    }
    PyObject *object = read_items(d);
    if (object != NULL && ist_clone_close(&d->r) != 0)
        Py_SETREF(object, decode_refuse(d, "bytes behind its end"));
    PyObject *raised = PyErr_GetRaisedException();
    end(d);
    PyErr_SetRaisedException(raised);
    return object;
}

PyObject *clone_decode(core_state *state, const void *bytes, size_t size, ist_message **messages, Py_ssize_t count, unsigned flags) {
    decoder d = {.state = state, .flags = flags, .messages = messages, .narrays = count};
    return decode(&d, bytes, size);
}

PyObject *clone_decode_call(core_state *state, const void *bytes, size_t size, PyObject *arrays, PyObject *lent) {
    decoder d = {.state = state, .flags = CLONE_TRUSTED, .arrays = arrays, .narrays = PyTuple_GET_SIZE(arrays), .lent = lent};
    return decode(&d, bytes, size);
}
