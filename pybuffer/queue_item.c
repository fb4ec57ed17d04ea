/* queue_item.c: objects as messages of a queue.
 *
 * Four forms, by the message's tag:
 *   SMALL   one item of a structured clone (<isthmus/clone.h>) without its head, in the message's bytes: no segment, no allocation
 *   ARRAY   an array of native numbers in C order and few dimensions: its segment, and 16 bytes and a length for each dimension:
 *           0 type code   1 dimensions   2 flags   3 .. 7 zero   8 offset in the segment   16 lengths
 *   HANDLE  a queue and the like: its segment; its kind and note
 *   CLONE   everything else: a segment with a structured clone, then the segments of the arrays and handles in it. That segment:
 *           0 how many of those, 8 bytes   8 bytes of their descriptions, 8 bytes   16 descriptions   then the clone, head and all
 *           A description: length of the token 4, number of a lease 8 (0: its segment comes with the message), the token (message.c)
 *
 * A message's segments are kept by the queue itself, but not memory that isn't the domain's: wrapped memory and mapped files. Such goes by its
 * token under a lease that lasts as long as the message's own segment: it works within its process, and a file can be opened again by others.
 *
 * What comes out of a queue may be anything: numbers are read once and bounded, tokens copied before they are looked at.
 */
#include "queue.h"

#include "token.h"

enum { TAG_SMALL = 1, TAG_ARRAY, TAG_HANDLE, TAG_CLONE };

#define BARE_NDIM 3
#define BARE_READONLY 1u
#define BARE_TRACKS 2u
#define BARE_LENGTHS 16
#define CLONE_FIXED 16       /* bytes before the descriptions */
#define DESCRIPTION_FIXED 12 /* and before a token */

static PyObject *refuse(core_state *state, const char *why) {
    PyErr_Format(state->CloneError, "what came out of the queue is no message of isthmus's: %s", why);
    return NULL;
}

/* ---- small ones --------------------------------------------------------------------------------------------------------------------- */

#define UNITS_MOST (IST_MESSAGE_BYTES - 2)

static size_t put_units_small(unsigned char *at, unsigned tag, size_t count, const void *data, size_t size) {
    if (size > UNITS_MOST)
        return 0;
    unsigned char *to = ist_clone_put_counted(at, tag, count);
    memcpy(to, data, size);
    return (size_t)(to - at) + size;
}

static size_t put_text_small(unsigned char *at, PyObject *text) {
    const size_t length = (size_t)PyUnicode_GET_LENGTH(text), kind = (size_t)PyUnicode_KIND(text);
    if (length > UNITS_MOST)
        return 0;
    if (!PyUnicode_IS_ASCII(text)) {
        const unsigned tag = kind == 1 ? IST_CLONE_TEXT_1 : kind == 2 ? IST_CLONE_TEXT_2 : IST_CLONE_TEXT_4;
        return put_units_small(at, tag, length, PyUnicode_DATA(text), length * kind);
    }
    if (length >= 32)
        return put_units_small(at, IST_CLONE_TEXT_ASCII, length, PyUnicode_DATA(text), length);
    at[0] = (unsigned char)(IST_CLONE_TEXT + length);
    memcpy(at + 1, PyUnicode_DATA(text), length);
    return 1 + length;
}

static size_t put_integer_small(unsigned char *at, PyObject *integer) {
    int overflow = 0;
    const long long value = PyUnstable_Long_IsCompact((PyLongObject *)integer) ? PyUnstable_Long_CompactValue((PyLongObject *)integer)
                                                                               : PyLong_AsLongLongAndOverflow(integer, &overflow);
    return overflow != 0 ? 0 : (size_t)(ist_clone_put_integer(at, value) - at);
}

/* How many bytes the object has as one item; 0: it isn't a small one. */
static size_t put_small(unsigned char *at, PyObject *object) {
    const PyTypeObject *type = Py_TYPE(object);
    if (type == &PyLong_Type)
        return put_integer_small(at, object);
    if (type == &PyUnicode_Type)
        return put_text_small(at, object);
    if (type == &PyFloat_Type) {
        const double value = PyFloat_AS_DOUBLE(object);
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        return (size_t)(ist_clone_put64(ist_clone_put_tag(at, IST_CLONE_FLOAT), bits) - at);
    }
    if (type == &PyBytes_Type)
        return put_units_small(at, IST_CLONE_BYTES, (size_t)PyBytes_GET_SIZE(object), PyBytes_AS_STRING(object),
                               (size_t)PyBytes_GET_SIZE(object));
    if (object == Py_None || type == &PyBool_Type) {
        at[0] = object == Py_None ? IST_CLONE_NONE : object == Py_True ? IST_CLONE_TRUE : IST_CLONE_FALSE;
        return 1;
    }
    return 0;
}

bool queue_item_encode_small(PyObject *object, ist_queue_message *m) {
    const size_t size = put_small(m->bytes, object);
    m->tag = TAG_SMALL;
    m->size = (uint8_t)size;
    m->count = 0;
    m->many = NULL;
    return size > 0;
}

static bool is_ascii(const unsigned char *at, size_t n) {
    unsigned char all = 0;
    for (size_t i = 0; i < n; i++)
        all |= at[i];
    return all < 0x80;
}

static PyObject *get_small(PyObject *queue, const ist_queue_message *m) {
    const unsigned char *at = m->bytes;
    const unsigned tag = at[0];
    if (tag < IST_CLONE_TEXT && m->size == 1)
        return PyLong_FromLong((long)tag);
    if (tag >= IST_CLONE_TEXT && tag < IST_CLONE_TEXT_KEPT && m->size == 1 + (tag - IST_CLONE_TEXT) && is_ascii(at + 1, m->size - 1u)) {
        PyObject *text = PyUnicode_New(m->size - 1, 0x7f);
        if (text != NULL)
            memcpy(PyUnicode_1BYTE_DATA(text), at + 1, m->size - 1u);
        return text;
    }
    if (tag == IST_CLONE_INT16 && m->size == 3)
        return PyLong_FromLong((int16_t)ist_clone_get16(at + 1));
    if (tag == IST_CLONE_INT32 && m->size == 5)
        return PyLong_FromLong((int32_t)ist_clone_get32(at + 1));
    if (tag == IST_CLONE_NONE && m->size == 1)
        Py_RETURN_NONE;
    unsigned char whole[IST_CLONE_HEAD + IST_MESSAGE_BYTES];
    memcpy(ist_clone_put_head(whole), at, m->size);
    return clone_decode(state_of_queue(queue), whole, IST_CLONE_HEAD + (size_t)m->size, NULL, 0, CLONE_TRUSTED);
}

/* ---- an array, a handle --------------------------------------------------------------------------------------------------------------- */

static bool is_local(ist_segment segment) {
    const ist_kind kind = ist_segment_kind(segment);
    return kind == IST_KIND_FILE || kind == IST_KIND_FOREIGN;
}

static bool is_c_order(const description *d, Py_ssize_t itemsize) {
    Py_ssize_t stride = itemsize;
    for (int i = d->ndim - 1; i >= 0; i--) {
        if (d->strides[i] != stride)
            return false;
        stride *= d->shape[i] == 0 ? 1 : d->shape[i];
    }
    return true;
}

/* Whether the description fits into the message's bytes; then they are written. The segment is the domain's. */
static bool put_bare(core_state *state, const description *d, ist_queue_message *m) {
    if (d->kind != SHARE_ARRAY) {
        m->tag = TAG_HANDLE;
        m->size = (uint8_t)(1 + d->note_size);
        m->bytes[0] = (uint8_t)d->kind;
        memcpy(m->bytes + 1, d->note, d->note_size);
        return true;
    }
    if (d->ndim > BARE_NDIM || d->spec != NULL || !is_c_order(d, state->dtypes[d->code]->itemsize))
        return false;
    memset(m->bytes, 0, 8);
    m->tag = TAG_ARRAY;
    m->size = (uint8_t)(BARE_LENGTHS + 8 * d->ndim);
    m->bytes[0] = (uint8_t)d->code;
    m->bytes[1] = (uint8_t)d->ndim;
    m->bytes[2] = (uint8_t)((d->readonly ? BARE_READONLY : 0) | (d->tracks ? BARE_TRACKS : 0));
    put64(m->bytes + 8, d->offset);
    for (int i = 0; i < d->ndim; i++)
        put64(m->bytes + BARE_LENGTHS + 8 * i, d->shape[i]);
    return true;
}

/* 1: the object goes by itself, and the item owns a reference; 0: it needs a clone; -1 with an exception. */
static int encode_bare(core_state *state, PyObject *object, queue_item *item) {
    described d;
    if (share_kind_of(state, Py_TYPE(object)) < 0)
        return 0;
    if (describe_begin(state, object, &d) < 0)
        return -1;
    const bool bare = put_bare(state, &d.is, &item->message) && !is_local(d.segment);
    if (bare) {
        ist_segment_retain_inline(d.segment);
        item->own = item->message.few[0] = d.segment;
        item->message.count = 1;
    }
    describe_end(&d);
    return bare;
}

/* Takes m->few[0], whatever comes. */
static PyObject *get_array(core_state *state, ist_queue_message *m) {
    const ist_segment segment = m->few[0];
    m->few[0] = (ist_segment){NULL, 0, 0};
    Py_ssize_t shape[BARE_NDIM], strides[BARE_NDIM], items = 1;
    const int ndim = m->bytes[1];
    const unsigned flags = m->bytes[2], array_flags = flags & BARE_READONLY ? ARRAY_READONLY : 0;
    const ist_kind kind = ist_segment_kind(segment);
    bool fits = m->bytes[0] < IST_NUMBERS && ndim <= BARE_NDIM && m->size == BARE_LENGTHS + 8 * ndim && kind != IST_KIND_QUEUE &&
                kind != IST_KIND_LOCK;
    for (int i = 0; fits && i < ndim; i++) {
        shape[i] = (Py_ssize_t)get64(m->bytes + BARE_LENGTHS + 8 * i);
        fits = shape[i] >= 0 && !__builtin_mul_overflow(items, shape[i] == 0 ? 1 : shape[i], &items) && items <= PY_SSIZE_T_MAX / 16;
    }
    if (!fits) {
        ist_segment_release(segment);
        return refuse(state, "an array that can't be");
    }
    DTypeObject *dtype = state->dtypes[m->bytes[0]];
    if (flags & BARE_TRACKS)
        return (PyObject *)array_new_tracking(state, segment, dtype, ndim, shape, array_flags);
    const Py_ssize_t offset = (Py_ssize_t)get64(m->bytes + 8);
    fill_c_strides(ndim, shape, dtype->itemsize, strides);
    if (!array_fits(ist_segment_size(segment), dtype->itemsize, ndim, shape, strides, offset)) {
        ist_segment_release(segment);
        return refuse(state, "an array that reaches outside its segment");
    }
    return (PyObject *)array_new_root(state, segment, dtype, ndim, shape, strides, offset, array_flags);
}

static PyObject *get_handle(core_state *state, ist_queue_message *m) {
    if (m->size < 1 || m->size > 1 + SHARE_NOTE || m->bytes[0] == SHARE_ARRAY || m->bytes[0] >= SHARE_KINDS)
        return refuse(state, "an unknown kind of object");
    const ist_segment segment = m->few[0];
    m->few[0] = (ist_segment){NULL, 0, 0};
    return handle_new(state, (share_kind)m->bytes[0], segment, m->bytes + 1, m->size - 1u);
}

/* ---- a clone: in ------------------------------------------------------------------------------------------------------------------------ */

/* What a message of the clone will have in the segment. */
typedef struct planned {
    token_plan token;
    bool local;     /* memory that only this process has: it is leased to the message */
    uint64_t lease; /* 0: not, or not yet */
} planned;

/* Where other processes hold the queue such memory isn't sent, unless they can open the file. */
static int plan_local(SharedHandle *q, planned *p) {
    ist_segment_info info;
    ist_segment_read_info(q->segment, &info);
    if (info.processes > 1 && (p->token.flags & TOKEN_FILE) == 0) {
        PyErr_SetString(PyExc_BufferError,
                        "the queue is shared with other processes, and this array's memory isn't isthmus's own (wrapped, or a "
                        "file mapped with mode 'c'), so only its process has it: put isthmus.array(x)");
        return -1;
    }
    p->local = true;
    return 0;
}

static int lease_local(core_state *state, ist_segment segment, planned *p, queue_item *item) {
    queue_lease *lease = &item->leases[item->nleases];
    int error = ist_segment_token(segment, &lease->token);
    if (error == 0)
        error = ist_lease_take_carried(segment, item->own, &lease->number);
    if (error != 0) {
        raise_error(state, error, "isthmus.Queue.put");
        return -1;
    }
    item->nleases++;
    p->lease = lease->number;
    return 0;
}

static int plan_message(core_state *state, SharedHandle *q, Py_ssize_t i, planned *p, ist_segment *segments, queue_item *item) {
    ist_message *message = item->clone.messages[i];
    const ist_segment segment = message_segment(message);
    p->local = false;
    p->lease = 0;
    if (plan_token(state, message_description(message), segment, &p->token) < 0)
        return -1;
    if (is_local(segment))
        return plan_local(q, p);
    segments[item->message.count++] = segment;
    return 0;
}

static int write_description(core_state *state, const planned *p, ist_segment segment, unsigned char **at) {
    ist_token token;
    int error = ist_segment_token(segment, &token);
    if (error != 0) {
        raise_error(state, error, "isthmus.Queue.put");
        return -1;
    }
    put32(*at, (uint32_t)p->token.size);
    put64(*at + 4, (int64_t)p->lease);
    write_token(&p->token, segment, &token, *at + DESCRIPTION_FIXED);
    *at += DESCRIPTION_FIXED + p->token.size;
    return 0;
}

/* Everything into the segment, which has exactly that size. */
static int write_clone(core_state *state, queue_item *item, const planned *plan, size_t descriptions, unsigned char *at) {
    const clone_encoded *e = &item->clone;
    put64(at, e->narrays);
    put64(at + 8, (int64_t)descriptions);
    at += CLONE_FIXED;
    for (Py_ssize_t i = 0; i < e->narrays; i++)
        if (write_description(state, &plan[i], message_segment(e->messages[i]), &at) < 0)
            return -1;
    if (e->piece_bytes < WITHOUT_GIL_BYTES) {
        clone_copy(e, at);
        return 0;
    }
    Py_BEGIN_ALLOW_THREADS
    clone_copy(e, at);
    Py_END_ALLOW_THREADS
    return 0;
}

static int make_clone(core_state *state, SharedHandle *q, planned *plan, queue_item *item) {
    const clone_encoded *e = &item->clone;
    ist_queue_message *m = &item->message;
    m->tag = TAG_CLONE;
    m->size = 0;
    m->count = 1;
    m->many = item->many;
    ist_segment *segments = item->many != NULL ? item->many : m->few;
    size_t descriptions = 0;
    for (Py_ssize_t i = 0; i < e->narrays; i++) {
        if (plan_message(state, q, i, &plan[i], segments, item) < 0)
            return -1;
        descriptions += DESCRIPTION_FIXED + (size_t)plan[i].token.size;
    }
    const size_t size = CLONE_FIXED + descriptions + clone_size(e);
    int error = ist_segment_create(size, 0, &item->own);
    if (error != 0) {
        item->own = (ist_segment){NULL, 0, 0};
        raise_error(state, error, "isthmus.Queue.put: a message of %zu bytes", size);
        return -1;
    }
    ist_segment_set_creator(item->own, (uint64_t)state->interpreter);
    for (Py_ssize_t i = 0; i < e->narrays; i++)
        if (plan[i].local && lease_local(state, message_segment(e->messages[i]), &plan[i], item) < 0)
            return -1;
    segments[0] = item->own;
    return write_clone(state, item, plan, descriptions, ist_segment_data(item->own));
}

static int allocate_clone(core_state *state, SharedHandle *q, queue_item *item) {
    const size_t n = (size_t)item->clone.narrays;
    planned few[8], *plan = few;
    bool have = true;
    if (n > 0)
        have = (item->leases = PyMem_Calloc(n, sizeof *item->leases)) != NULL;
    if (have && n >= IST_MESSAGE_FEW)
        have = (item->many = PyMem_Calloc(n + 1, sizeof *item->many)) != NULL;
    if (have && n > sizeof few / sizeof *few)
        have = (plan = PyMem_Calloc(n, sizeof *plan)) != NULL;
    int result = have ? make_clone(state, q, plan, item) : (PyErr_NoMemory(), -1);
    if (plan != few)
        PyMem_Free(plan);
    return result;
}

/* Where the clone is one array or handle, and that goes by itself: true. */
static bool is_bare_clone(core_state *state, queue_item *item) {
    const clone_encoded *e = &item->clone;
    if (e->narrays != 1 || e->npieces != 0)
        return false;
    const unsigned char *at = e->bytes + IST_CLONE_HEAD, *end = e->bytes + e->used;
    at += at < end && *at == IST_CLONE_KEEP;
    if (end - at != 2 || at[0] != IST_CLONE_ARRAY || at[1] != 0)
        return false;
    const ist_segment segment = message_segment(e->messages[0]);
    if (is_local(segment) || !put_bare(state, message_description(e->messages[0]), &item->message))
        return false;
    item->message.few[0] = segment;
    item->message.count = 1;
    return true;
}

static int encode_clone(core_state *state, SharedHandle *q, PyObject *object, PyObject *transfer, unsigned flags, queue_item *item) {
    const clone_encoded *e = &item->clone;
    if (clone_encode(state, object, transfer, flags, &item->clone) < 0)
        return -1;
    item->encoded = true;
    if (e->narrays == 0 && clone_size(e) <= IST_CLONE_HEAD + IST_MESSAGE_BYTES) {
        item->message.tag = TAG_SMALL;
        item->message.size = (uint8_t)(clone_size(e) - IST_CLONE_HEAD);
        memcpy(item->message.bytes, e->bytes + IST_CLONE_HEAD, item->message.size);
        return 0;
    }
    if (is_bare_clone(state, item) || allocate_clone(state, q, item) == 0)
        return 0;
    PyObject *raised = PyErr_GetRaisedException();
    queue_item_clear(item);
    PyErr_SetRaisedException(raised);
    return -1;
}

int queue_item_encode(core_state *state, SharedHandle *q, PyObject *object, PyObject *transfer, unsigned flags, queue_item *item) {
    item->own = (ist_segment){NULL, 0, 0};
    item->many = item->message.many = NULL;
    item->message.count = 0;
    item->leases = NULL;
    item->nleases = 0;
    item->sent = item->encoded = false;
    if (transfer == NULL) {
        const int bare = encode_bare(state, object, item);
        if (bare != 0)
            return bare < 0 ? -1 : 0;
    }
    return encode_clone(state, q, object, transfer, flags, item);
}

void queue_item_sent(queue_item *item) {
    item->sent = true;
    if (item->encoded)
        clone_sent(&item->clone);
}

void queue_item_clear(queue_item *item) {
    for (size_t i = 0; i < item->nleases && !item->sent; i++)
        ist_lease_strike(&item->leases[i].token, item->leases[i].number);
    if (!ist_segment_is_null(item->own))
        ist_segment_release(item->own);
    if (!item->encoded)
        return;
    PyMem_Free(item->leases);
    PyMem_Free(item->many);
    clone_clear(&item->clone);
}

/* ---- a clone: out ----------------------------------------------------------------------------------------------------------------------- */

/* The rest of the descriptions. */
typedef struct descriptions {
    const unsigned char *at;
    size_t left;
    uint32_t next; /* segment of the message */
} descriptions;

/* One array or handle of the clone, its segment taken from the message; NULL with an exception. */
static ist_message *get_message(core_state *state, ist_queue_message *m, ist_segment *segments, descriptions *d) {
    unsigned char head[DESCRIPTION_FIXED], few[256], *copy = few;
    if (d->left < sizeof head)
        return refuse(state, "too few descriptions"), NULL;
    memcpy(head, d->at, sizeof head);
    const size_t size = get32(head);
    const uint64_t lease = (uint64_t)get64(head + 4);
    if (size > d->left - sizeof head || (lease == 0 && d->next >= m->count))
        return refuse(state, "a description without its segment"), NULL;
    if (size > sizeof few && (copy = PyMem_Malloc(size)) == NULL)
        return PyErr_NoMemory(), NULL;
    memcpy(copy, d->at + sizeof head, size);
    d->at += sizeof head + size;
    d->left -= sizeof head + size;
    ist_segment segment = {NULL, 0, 0};
    if (lease == 0) {
        segment = segments[d->next];
        segments[d->next++] = (ist_segment){NULL, 0, 0};
    }
    ist_message *message = message_from_token(state, copy, (Py_ssize_t)size, segment, lease == 0 ? NULL : &lease);
    if (copy != few)
        PyMem_Free(copy);
    return message;
}

static PyObject *get_clone(core_state *state, ist_queue_message *m) {
    ist_segment *segments = m->many != NULL ? m->many : m->few;
    const unsigned char *data = ist_segment_data(segments[0]);
    const size_t size = ist_segment_size(segments[0]);
    if (size < CLONE_FIXED)
        return refuse(state, "it is too short");
    unsigned char fixed[CLONE_FIXED];
    memcpy(fixed, data, sizeof fixed);
    const uint64_t count = (uint64_t)get64(fixed), room = (uint64_t)get64(fixed + 8);
    if (room > size - CLONE_FIXED || count > room / DESCRIPTION_FIXED)
        return refuse(state, "its descriptions don't fit");
    const Py_ssize_t n = (Py_ssize_t)count;
    ist_message **messages = n == 0 ? NULL : PyMem_Calloc(count, sizeof *messages);
    if (n > 0 && messages == NULL)
        return PyErr_NoMemory();
    descriptions d = {data + CLONE_FIXED, room, 1};
    Py_ssize_t made = 0;
    while (made < n && (messages[made] = get_message(state, m, segments, &d)) != NULL)
        made++;
    PyObject *object = NULL;
    if (made == n)
        object = clone_decode(state, data + CLONE_FIXED + room, size - CLONE_FIXED - room, messages, n, CLONE_TRUSTED);
    for (Py_ssize_t i = 0; i < made; i++)
        if (messages[i] != NULL)
            message_free(messages[i]);
    PyMem_Free(messages);
    return object;
}

PyObject *queue_item_decode(PyObject *queue, ist_queue_message *m) {
    if (m->tag == TAG_SMALL && m->count == 0 && m->size > 0)
        return get_small(queue, m);
    core_state *state = state_of_queue(queue);
    if (m->tag == TAG_ARRAY && m->count == 1 && m->many == NULL && m->size >= BARE_LENGTHS)
        return get_array(state, m);
    if (m->tag == TAG_HANDLE && m->count == 1 && m->many == NULL)
        return get_handle(state, m);
    if (m->tag == TAG_CLONE && m->count >= 1)
        return get_clone(state, m);
    return refuse(state, "an unknown form");
}
