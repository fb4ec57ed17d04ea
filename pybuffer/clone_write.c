/* clone_write.c: an object becomes a message: the walk over what it consists of, and the common types. The others are clone_rare.c's.
 *
 * One pass (clone_output.c has the bytes). The walk keeps its own stack, so nesting is bounded by memory alone.
 *
 * Invariants (README.md, C1 to C3)
 *   memo: object -> number, for every object written so far that may be met again. Who has one reference is met once: its container has it.
 *   The memo owns what is in it, so that no address is used again while the message is being made.
 *   A frame owns its container. What it merely looks at (a dict's key) it owns before Python code can run: put_rare() and a push
 *   see to that.
 *   A container's length is written before its items; a container that has another one later raises.
 */
#include "clone_encoder.h"

/* ---- where in the object ------------------------------------------------------------------------------------------------------------- */

#define PATH_ENDS 20 /* frames of a long path that are named, at either end */

static bool is_plain_key(const PyObject *key) {
    return PyUnicode_CheckExact(key) || PyLong_CheckExact(key) || PyBytes_CheckExact(key) || PyFloat_CheckExact(key) || PyBool_Check(key) ||
           key == Py_None;
}

static PyObject *step_of_key(PyObject *key) {
    if (!is_plain_key(key)) /* its repr may be anybody's code */
        return PyUnicode_FromFormat("[<%.100s>]", Py_TYPE(key)->tp_name);
    return PyUnicode_CheckExact(key) && PyUnicode_IsIdentifier(key) ? PyUnicode_FromFormat(".%U", key) : PyUnicode_FromFormat("[%R]", key);
}

static PyObject *step_of_children(const frame *f) {
    static const char *const exception[] = {"<class>", ".args", "<attributes>", ".__dict__", ".__cause__", ".__context__"};
    const Py_ssize_t i = f->next - 1;
    switch (f->label) {
    case LABEL_ITEM: return PyUnicode_FromFormat("[%zd]", i);
    case LABEL_FIELDS: return i == 0 ? PyUnicode_FromString("<class>") : PyUnicode_FromFormat("[%zd]", i - 1);
    case LABEL_NAMES:
        if (i == 0)
            return PyUnicode_FromString("<class>");
        return i % 2 == 1 ? PyUnicode_FromString("<attribute>") : step_of_key(PyTuple_GET_ITEM(f->container, i - 1));
    case LABEL_REGISTERED: return PyUnicode_FromString("<encoded>");
    case LABEL_EXCEPTION: return PyUnicode_FromString(exception[i]);
    case LABEL_CLASS:
    case LABEL_ROUGH:
    case LABEL_NONE: break;
    }
    return PyUnicode_FromString("");
}

static PyObject *step_of(const frame *f) {
    if (f->next == 0)
        return PyUnicode_FromString("");
    switch (f->kind) {
    case FRAME_LIST: return PyUnicode_FromFormat("[%zd]", f->next - 1);
    case FRAME_DICT:
        return f->key == NULL ? PyUnicode_FromString("") : f->value != NULL ? PyUnicode_FromString("<key>") : step_of_key(f->key);
    case FRAME_SET: return PyUnicode_FromString("<item>");
    case FRAME_TUPLE: break;
    }
    return step_of_children(f);
}

/* "$.jobs[3].callback": new; NULL with an exception. */
static PyObject *path_of(const encoder *e) {
    const clone_call *call = e->out->call;
    const size_t first = call != NULL && e->depth > 0; /* whose items have names */
    PyObject *path = PyUnicode_FromString(first ? "" : "$");
    if (path != NULL && first) {
        const Py_ssize_t i = e->frames[0].next - 1;
        if (i >= 0 && i < PyTuple_GET_SIZE(call->names))
            Py_SETREF(path, Py_NewRef(PyTuple_GET_ITEM(call->names, i)));
    }
    for (size_t i = first; path != NULL && i < e->depth; i++) {
        if (i == PATH_ENDS && e->depth > 2 * PATH_ENDS) {
            i = e->depth - PATH_ENDS;
            PyUnicode_AppendAndDel(&path, PyUnicode_FromString(" ... "));
            if (path == NULL)
                break;
        }
        PyObject *step = step_of(&e->frames[i]);
        if (step == NULL)
            Py_CLEAR(path);
        else
            PyUnicode_AppendAndDel(&path, step);
    }
    return path;
}

int refuse(encoder *e, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    PyObject *why = PyUnicode_FromFormatV(format, arguments), *path = path_of(e);
    va_end(arguments);
    if (why != NULL && path != NULL)
        PyErr_Format(e->state->CloneError, "%U: %U", path, why);
    Py_XDECREF(why);
    Py_XDECREF(path);
    return -1;
}

void note_path(encoder *e) {
    PyObject *raised = PyErr_GetRaisedException(), *path = path_of(e);
    PyObject *note = path == NULL ? NULL : PyUnicode_FromFormat("It stands at %U.", path);
    PyObject *done = note == NULL ? NULL : PyObject_CallMethod(raised, "add_note", "O", note);
    Py_XDECREF(done);
    Py_XDECREF(note);
    Py_XDECREF(path);
    PyErr_SetRaisedException(raised); /* instead of what failed here: it is the one to know */
}

static int changed(encoder *e, const char *what) {
    PyObject *path = path_of(e);
    if (path != NULL)
        PyErr_Format(PyExc_RuntimeError, "%U: the %s changed size while it was being cloned", path, what);
    Py_XDECREF(path);
    return -1;
}

/* ---- identity ---------------------------------------------------------------------------------------------------------------------- */

static inline size_t memo_hash(const PyObject *object) {
    const uint64_t mixed = ((uint64_t)(uintptr_t)object >> 4) * UINT64_C(0x9E3779B97F4A7C15); /* Fibonacci hashing, Knuth 6.4 */
    return (size_t)(mixed >> 32);
}

static memo_entry *memo_find(memo_entry *memo, size_t mask, const PyObject *object) {
    for (size_t i = memo_hash(object);; i++) {
        memo_entry *entry = &memo[i & mask];
        if (entry->object == object || entry->object == NULL)
            return entry;
    }
}

static int memo_grow(encoder *e) {
    const size_t size = 4 * (e->memo_mask + 1);
    memo_entry *larger = size > (size_t)PY_SSIZE_T_MAX / sizeof *larger ? NULL : PyMem_Calloc(size, sizeof *larger);
    if (larger == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i <= e->memo_mask; i++)
        if (e->memo[i].object != NULL)
            *memo_find(larger, size - 1, e->memo[i].object) = e->memo[i];
    if (e->memo != e->few_memo)
        PyMem_Free(e->memo);
    e->memo = larger;
    e->memo_mask = size - 1;
    return 0;
}

/* 1: it was written before, and *number says which it is; 0: it has the next number now; -1. */
static inline int memo_add(encoder *e, PyObject *object, bool open, size_t *number) {
    memo_entry *entry = memo_find(e->memo, e->memo_mask, object);
    if (entry->object != NULL) {
        *number = entry->number;
        return 1;
    }
    if (e->memo_count > e->memo_mask / 2) {
        if (memo_grow(e) < 0)
            return -1;
        entry = memo_find(e->memo, e->memo_mask, object);
    }
    entry->object = Py_NewRef(object);
    entry->number = e->memo_count++ << 1 | open;
    return 0;
}

static int put_same(encoder *e, PyObject *object, size_t number) {
    if (number & 1)
        return refuse(e, "the %.200s here is part of itself, and can only be made of what it consists of", Py_TYPE(object)->tp_name);
    unsigned char *at = room_for(e, IST_CLONE_ROOM);
    if (at == NULL)
        return -1;
    wrote(e, ist_clone_put_same(at, number >> 1));
    return 1;
}

static inline int begin(encoder *e, PyObject *object, bool open) {
    if (Py_REFCNT(object) == 1 && !open)
        return 0;
    size_t number;
    int seen = memo_add(e, object, open, &number);
    if (seen == 0)
        return put_tag(e, IST_CLONE_KEEP);
    return seen < 0 ? -1 : put_same(e, object, number);
}

int put_begin(encoder *e, PyObject *object, bool open) { return begin(e, object, open); }

/* ---- the common types --------------------------------------------------------------------------------------------------------------- */

static inline int write_text(encoder *e, PyObject *text) {
    const size_t length = (size_t)PyUnicode_GET_LENGTH(text);
    const bool ascii = PyUnicode_IS_ASCII(text), may_return = Py_REFCNT(text) != 1 && length > 1; /* shorter ones are always the same */
    size_t number;
    if (may_return) {
        int seen = memo_add(e, text, false, &number);
        if (seen != 0)
            return seen < 0 || put_same(e, text, number) < 0 ? -1 : 0;
    }
    if (ascii && length < 32) {
        unsigned char *at = room_for(e, 1 + 32);
        if (at == NULL)
            return -1;
        at = ist_clone_put_tag(at, (may_return ? IST_CLONE_TEXT_KEPT : IST_CLONE_TEXT) + (unsigned)length);
        memcpy(at, PyUnicode_1BYTE_DATA(text), length);
        wrote(e, at + length);
        return 0;
    }
    if (may_return && put_tag(e, IST_CLONE_KEEP) < 0)
        return -1;
    const unsigned kind = (unsigned)PyUnicode_KIND(text);
    const unsigned tag = ascii ? IST_CLONE_TEXT_ASCII : kind == 1 ? IST_CLONE_TEXT_1 : kind == 2 ? IST_CLONE_TEXT_2 : IST_CLONE_TEXT_4;
    return put_units(e, tag, length, PyUnicode_DATA(text), length * kind, text);
}

int put_text(encoder *e, PyObject *text) { return write_text(e, text); }

static int put_long_integer(encoder *e, PyObject *integer) {
    int overflow;
    const long long value = PyLong_AsLongLongAndOverflow(integer, &overflow);
    if (overflow == 0) {
        if (value == -1 && PyErr_Occurred())
            return -1;
        unsigned char *at = room_for(e, IST_CLONE_ROOM);
        if (at == NULL)
            return -1;
        wrote(e, ist_clone_put_integer(at, value));
        return 0;
    }
#if PY_VERSION_HEX >= 0x030d0000
    const Py_ssize_t size = PyLong_AsNativeBytes(integer, NULL, 0, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    const size_t bits = _PyLong_NumBits(integer);
    const Py_ssize_t size = bits == (size_t)-1 ? -1 : (Py_ssize_t)(bits / 8 + 1);
#endif
    unsigned char *at = size < 0 ? NULL : room_for(e, IST_CLONE_ROOM + (size_t)size);
    if (at == NULL)
        return -1;
    at = ist_clone_put_counted(at, IST_CLONE_INT, (uint64_t)size);
#if PY_VERSION_HEX >= 0x030d0000
    if (PyLong_AsNativeBytes(integer, at, size, Py_ASNATIVEBYTES_LITTLE_ENDIAN) < 0)
        return -1;
#else
    if (_PyLong_AsByteArray((PyLongObject *)integer, at, (size_t)size, 1, 1) < 0)
        return -1;
#endif
    wrote(e, at + size);
    return 0;
}

static inline int put_integer(encoder *e, PyObject *integer) {
    if (!PyUnstable_Long_IsCompact((PyLongObject *)integer))
        return put_long_integer(e, integer);
    unsigned char *at = room_for(e, IST_CLONE_ROOM);
    if (at == NULL)
        return -1;
    wrote(e, ist_clone_put_integer(at, PyUnstable_Long_CompactValue((PyLongObject *)integer)));
    return 0;
}

static inline int put_float(encoder *e, PyObject *number) {
    const double value = PyFloat_AS_DOUBLE(number);
    uint64_t bits;
    unsigned char *at = room_for(e, 9);
    if (at == NULL)
        return -1;
    memcpy(&bits, &value, sizeof bits);
    wrote(e, ist_clone_put64(ist_clone_put_tag(at, IST_CLONE_FLOAT), bits));
    return 0;
}

static int put_bytes(encoder *e, PyObject *bytes) {
    const Py_ssize_t size = PyBytes_GET_SIZE(bytes);
    int seen = size > 1 ? begin(e, bytes, false) : 0; /* shorter ones are always the same */
    return seen != 0 ? seen : put_units(e, IST_CLONE_BYTES, (size_t)size, PyBytes_AS_STRING(bytes), (size_t)size, bytes);
}

/* ---- frames ------------------------------------------------------------------------------------------------------------------------- */

/* What the frame on top only looks at becomes its own: Python code is about to run, or another frame to be on top. */
static void hold_key(encoder *e) {
    frame *top = e->depth > 0 ? &e->frames[e->depth - 1] : NULL;
    if (top != NULL && top->kind == FRAME_DICT && !top->holds_key && top->key != NULL) {
        Py_INCREF(top->key);
        top->holds_key = true;
    }
}

static inline void let_key_go(frame *f) {
    if (f->holds_key) {
        f->holds_key = false;
        Py_CLEAR(f->key);
    }
}

static bool is_rough(put_label label) { return label == LABEL_EXCEPTION || label == LABEL_REGISTERED || label == LABEL_ROUGH; }

/* NULL with an exception; takes the container only on success. */
static frame *push(encoder *e, frame_kind kind, PyObject *container, Py_ssize_t count) {
    hold_key(e);
    if (e->depth == e->frame_room) {
        frame *frames = encoder_grown(e->frames, e->few_frames, e->depth, &e->frame_room, 1, sizeof *frames);
        if (frames == NULL)
            return NULL;
        e->frames = frames;
    }
    frame *f = &e->frames[e->depth++];
    f->kind = kind;
    f->label = LABEL_ITEM;
    f->holds_key = false;
    f->container = container;
    f->next = f->position = f->until = 0;
    f->count = count;
    f->key = f->value = f->opened = NULL;
    return f;
}

static void open_ends(encoder *e, frame *f) {
    memo_entry *entry = memo_find(e->memo, e->memo_mask, f->opened);
    entry->number &= ~(size_t)1;
    f->opened = NULL;
}

static void pop(encoder *e) {
    frame *f = &e->frames[--e->depth];
    e->rough -= is_rough(f->label);
    if (f->opened != NULL)
        open_ends(e, f);
    if (f->holds_key || f->kind == FRAME_SET)
        Py_XDECREF(f->key);
    Py_XDECREF(f->value);
    Py_DECREF(f->container);
}

static int put_container(encoder *e, PyObject *object, frame_kind kind, Py_ssize_t count, unsigned few, Py_ssize_t few_count,
                         unsigned many) {
    unsigned char *at = room_for(e, IST_CLONE_ROOM);
    if (at == NULL)
        return -1;
    wrote(e, count < few_count ? ist_clone_put_tag(at, few + (unsigned)count) : ist_clone_put_counted(at, many, (uint64_t)count));
    if (count == 0)
        return 0;
    PyObject *walked = kind == FRAME_SET ? PyObject_GetIter(object) : Py_NewRef(object);
    if (walked == NULL || push(e, kind, walked, count) == NULL) {
        Py_XDECREF(walked);
        return -1;
    }
    return PUT_PUSHED;
}

int push_children(encoder *e, PyObject *children, put_label label, PyObject *opened, Py_ssize_t until) {
    if (children == NULL)
        return -1;
    frame *f = NULL;
    if (is_rough(label) && e->rough >= CLONE_ROUGH_DEPTH)
        refuse(e, "slices, exceptions or registered objects are nested more than %d deep", CLONE_ROUGH_DEPTH);
    else
        f = push(e, FRAME_TUPLE, children, PyTuple_GET_SIZE(children));
    if (f == NULL) {
        Py_DECREF(children);
        return -1;
    }
    f->label = label;
    f->opened = opened;
    f->until = until;
    e->rough += is_rough(label);
    return PUT_PUSHED;
}

static int put_set(encoder *e, PyObject *set) {
    const unsigned tag = PyFrozenSet_CheckExact(set) ? IST_CLONE_FROZENSET : IST_CLONE_SET;
    return put_container(e, set, FRAME_SET, PySet_GET_SIZE(set), tag, 0, tag);
}

static int put_singleton(encoder *e, PyObject *object) {
    if (object == Py_Ellipsis)
        return put_tag(e, IST_CLONE_ELLIPSIS);
    if (object == Py_NotImplemented)
        return put_tag(e, IST_CLONE_NOT_IMPLEMENTED);
    return 1;
}

/* What isn't in put(); holds what it was given, as Python code may run. */
static int put_other(encoder *e, PyObject *object) {
    int done = put_singleton(e, object);
    if (done <= 0)
        return done;
    hold_key(e);
    Py_INCREF(object);
    if (PyAnySet_CheckExact(object)) {
        done = begin(e, object, false);
        if (done == 0)
            done = put_set(e, object);
        else if (done == 1)
            done = 0;
    } else {
        done = put_rare(e, object);
    }
    Py_DECREF(object);
    return done;
}

/* Writes an object: 0, PUT_PUSHED if its items follow, -1. */
static inline int put(encoder *e, PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    if (type == &PyUnicode_Type)
        return write_text(e, object);
    if (type == &PyLong_Type)
        return put_integer(e, object);
    if (type == &PyFloat_Type)
        return put_float(e, object);
    if (object == Py_None)
        return put_tag(e, IST_CLONE_NONE);
    if (type == &PyBool_Type)
        return put_tag(e, object == Py_True ? IST_CLONE_TRUE : IST_CLONE_FALSE);
    if (type == &PyDict_Type || type == &PyList_Type) {
        int seen = begin(e, object, false);
        if (seen != 0)
            return seen < 0 ? -1 : 0;
        return type == &PyDict_Type ? put_container(e, object, FRAME_DICT, PyDict_GET_SIZE(object), IST_CLONE_FEW_DICT, 16, IST_CLONE_DICT)
                                    : put_container(e, object, FRAME_LIST, PyList_GET_SIZE(object), IST_CLONE_FEW_LIST, 16, IST_CLONE_LIST);
    }
    if (type == &PyTuple_Type) {
        int seen = PyTuple_GET_SIZE(object) > 0 ? begin(e, object, false) : 0; /* the empty one is always the same */
        if (seen != 0)
            return seen < 0 ? -1 : 0;
        return put_container(e, object, FRAME_TUPLE, PyTuple_GET_SIZE(object), IST_CLONE_FEW_TUPLE, 8, IST_CLONE_TUPLE);
    }
    if (type == &PyBytes_Type) {
        int done = put_bytes(e, object);
        return done < 0 ? -1 : 0;
    }
    return put_other(e, object);
}

/* Each writes items until one is pushed, or the container is done: 0. */
static int walk_list(encoder *e, frame *f) {
    PyObject *list = f->container;
    int result = 0;
    while (result == 0 && f->next < f->count) {
        if (PyList_GET_SIZE(list) != f->count)
            return changed(e, "list");
        result = put(e, PyList_GET_ITEM(list, f->next++));
    }
    return result == 0 && PyList_GET_SIZE(list) != f->count ? changed(e, "list") : result;
}

static int walk_tuple(encoder *e, frame *f) {
    int result = 0;
    while (result == 0 && f->next < f->count) {
        if (f->opened != NULL && f->next == f->until)
            open_ends(e, f);
        result = put(e, PyTuple_GET_ITEM(f->container, f->next++));
    }
    return result;
}

#define PAIR_DONE 2
/* The pair at f->position: its key is written, and its value as well, or it comes next (f->value): PAIR_DONE, PUT_PUSHED, -1.
 * 0: there is none. */
static int walk_key(encoder *e, frame *f) {
    PyObject *dict = f->container, *key, *value;
    let_key_go(f);
    f->key = NULL;
    if (PyDict_GET_SIZE(dict) != f->count)
        return changed(e, "dict");
    if (!PyDict_Next(dict, &f->position, &key, &value))
        return f->next == f->count ? 0 : changed(e, "dict");
    if (f->next++ == f->count)
        return changed(e, "dict");
    f->key = key;
    if (Py_IS_TYPE(key, &PyUnicode_Type)) {
        if (write_text(e, key) < 0)
            return -1;
        int result = put(e, value);
        return result != 0 ? result : PAIR_DONE;
    }
    f->value = Py_NewRef(value); /* says also that it is the key that is being written */
    int result = put(e, key);
    return result != 0 ? result : PAIR_DONE;
}

static int walk_dict(encoder *e, frame *f) {
    for (;;) {
        int result;
        if (f->value != NULL) {
            PyObject *value = f->value;
            f->value = NULL;
            result = put(e, value); /* f may be elsewhere after it */
            Py_DECREF(value);
        } else {
            result = walk_key(e, f);
            if (result == 0)
                return 0;
            if (result == PAIR_DONE)
                result = 0;
        }
        if (result != 0)
            return result;
    }
}

static int walk_set(encoder *e, frame *f) {
    int result = 0;
    while (result == 0) {
        Py_CLEAR(f->key);
        f->key = PyIter_Next(f->container);
        if (f->key == NULL)
            return PyErr_Occurred() ? -1 : f->next == f->count ? 0 : changed(e, "set");
        if (f->next++ == f->count)
            return changed(e, "set");
        result = put(e, f->key);
    }
    return result;
}

static int walk_object(encoder *e, PyObject *object) {
    if (put(e, object) < 0)
        return -1;
    while (e->depth > 0) {
        frame *f = &e->frames[e->depth - 1];
        int result = f->kind == FRAME_DICT   ? walk_dict(e, f)
                     : f->kind == FRAME_LIST ? walk_list(e, f)
                     : f->kind == FRAME_SET  ? walk_set(e, f)
                                             : walk_tuple(e, f);
        if (result < 0)
            return -1;
        if (result == 0)
            pop(e);
    }
    return 0;
}

/* ---- whole messages ------------------------------------------------------------------------------------------------------------------ */

static int check_transferred(encoder *e) {
    PyObject *transfer = e->out->transfer;
    for (Py_ssize_t i = 0; transfer != NULL && i < PyTuple_GET_SIZE(transfer); i++) {
        if (memo_find(e->memo, e->memo_mask, PyTuple_GET_ITEM(transfer, i))->object == NULL) {
            PyErr_Format(PyExc_ValueError, "transfer[%zd] isn't in the object that is to be sent: %R", i, PyTuple_GET_ITEM(transfer, i));
            return -1;
        }
    }
    return 0;
}

static void end(encoder *e) {
    while (e->depth > 0)
        pop(e);
    if (e->frames != e->few_frames)
        PyMem_Free(e->frames);
    for (size_t i = 0; e->memo_count > 0; i++) {
        if (e->memo[i].object != NULL) {
            Py_DECREF(e->memo[i].object);
            e->memo_count--;
        }
    }
    if (e->memo != e->few_memo)
        PyMem_Free(e->memo);
    Py_XDECREF(e->pickling);
}

int clone_write(core_state *state, PyObject *object, unsigned flags, clone_encoded *out) {
    encoder e;
    e.out = out;
    e.state = state;
    e.flags = flags;
    e.rough = 0;
    e.frames = e.few_frames;
    e.depth = 0;
    e.frame_room = sizeof e.few_frames / sizeof *e.few_frames;
    e.memo = memset(e.few_memo, 0, sizeof e.few_memo);
    e.memo_mask = MEMO_FEW - 1;
    e.memo_count = 0;
    e.pickling = NULL;
    wrote(&e, ist_clone_put_head(out->bytes));
    int result = walk_object(&e, object);
    if (result == 0)
        result = check_transferred(&e);
    end(&e); /* may run destructors of what encode functions made */
    return result;
}
