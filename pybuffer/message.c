/* message.c: an array or a handle on its way: the message of our own transports and of CPython's cross-interpreter data, and the token.
 *
 * Three forms of one description (element, shape, strides, offset, read-only), which differ in what they own:
 *   ist_message  one counted reference of the segment, in malloc'd memory: any interpreter and any thread may receive or free it
 *   token        nothing: bytes for a.token() and attach()
 *   pickle       (pickle.c) a token and the number of a lease: the lease owns a reference until the number was loaded or ran out
 *
 * Relies on: array_fits (array.c) for the bounds of whatever came from outside; libisthmus's leases.
 *
 * Invariants (README.md, M1 to M8)
 *   a message owns exactly one reference from message_from_object to message_receive or message_free, and is counted in flight as long
 *   a message holds no PyObject and no memory of an interpreter's allocator
 *   bytes from outside are read once, inside their length, into a struct; every field is checked before it is used
 */
#include "token.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the description ---------------------------------------------------------------------------------------------------------------- */

static description describe_array(SharedArrayObject *a) {
    return (description){
        .kind = SHARE_ARRAY,
        .spec = dtype_is_native(a->dtype) ? NULL : a->dtype->spec,
        .code = a->dtype->code,
        .ndim = a->ndim,
        .readonly = array_readonly(a),
        .tracks = array_tracks(a),
        .offset = a->data - array_root(a)->start,
        .shape = ARRAY_SHAPE(a),
        .strides = ARRAY_STRIDES(a),
    };
}

/* An array is held, so that a release() in another thread can't take the segment away meanwhile; a handle is entered. */
int describe_begin(core_state *state, PyObject *self, described *out) {
    const int kind = share_kind_of(state, Py_TYPE(self));
    if (kind < 0) {
        PyErr_Format(PyExc_TypeError, "a SharedArray, Queue, lock or the like is needed, not %.200s", Py_TYPE(self)->tp_name);
        return -1;
    }
    out->self = self;
    if (kind == SHARE_ARRAY) {
        SharedArrayObject *a = (SharedArrayObject *)self;
        if (hold_enter(a, HOLD_SHARED) < 0)
            return -1;
        out->is = describe_array(a);
        out->segment = array_root(a)->segment;
        return 0;
    }
    SharedHandle *h = (SharedHandle *)self;
    if ((shareables[kind].may_cross != NULL && shareables[kind].may_cross(h) < 0) || handle_enter(h) < 0)
        return -1;
    out->is = (description){.kind = (share_kind)kind};
    if (shareables[kind].note != NULL)
        out->is.note_size = (uint8_t)shareables[kind].note(h, out->is.note);
    out->segment = h->segment;
    return 0;
}

void describe_end(described *d) {
    if (d->is.kind == SHARE_ARRAY)
        hold_leave((SharedArrayObject *)d->self, HOLD_SHARED);
    else
        handle_leave((SharedHandle *)d->self);
}

/* New reference. */
static DTypeObject *dtype_of_description(core_state *state, const description *d) {
    return d->spec == NULL ? dtype_ref(state->dtypes[d->code]) : dtype_from_spec(state, d->spec, (Py_ssize_t)strlen(d->spec));
}

/* Takes `segment`, on failure too. What it says of an array is right. */
static PyObject *object_from_description(core_state *state, ist_segment segment, const description *d) {
    if (d->kind != SHARE_ARRAY)
        return handle_new(state, d->kind, segment, d->note, d->note_size);
    DTypeObject *dtype = dtype_of_description(state, d);
    if (dtype == NULL) {
        ist_segment_release(segment);
        return NULL;
    }
    const uint32_t flags = d->readonly ? ARRAY_READONLY : 0;
    SharedArrayObject *a = d->tracks ? array_new_tracking(state, segment, dtype, d->ndim, d->shape, flags)
                                     : array_new_root(state, segment, dtype, d->ndim, d->shape, d->strides, d->offset, flags);
    Py_DECREF((PyObject *)dtype);
    return (PyObject *)a;
}

/* ---- messages ----------------------------------------------------------------------------------------------------------------------- */

struct ist_message {
    ist_segment segment;
    description is;
    Py_ssize_t dims[]; /* shape, then strides; then the dtype's spec, if there is one */
};

/* Takes the caller's reference on success alone. NULL with MemoryError. */
static ist_message *message_new(ist_segment segment, const description *is) {
    size_t dims = (size_t)is->ndim * sizeof(Py_ssize_t), text = is->spec == NULL ? 0 : strlen(is->spec) + 1;
    ist_message *message = malloc(sizeof *message + 2 * dims + text);
    if (message == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    message->is = *is;
    if (text > 0)
        message->is.spec = memcpy((char *)message->dims + 2 * dims, is->spec, text);
    if (dims > 0) {
        memcpy(message->dims, is->shape, dims);
        memcpy(message->dims + is->ndim, is->strides, dims);
    }
    message->is.shape = message->dims;
    message->is.strides = message->dims + is->ndim;
    message->segment = segment;
    ist_count_in_flight(1);
    return message;
}

/* The same with a reference of its own, of a segment that somebody else owns. */
static ist_message *message_retaining(ist_segment segment, const description *is) {
    ist_message *message = message_new(segment, is);
    if (message != NULL)
        ist_segment_retain_inline(segment);
    return message;
}

ist_message *message_copy(const ist_message *message) { return message_retaining(message->segment, &message->is); }

ist_message *message_from_object(core_state *state, PyObject *object) {
    if (Py_IS_TYPE(object, state->transfer_type))
        return transfer_send(object);
    described d;
    if (describe_begin(state, object, &d) < 0)
        return NULL;
    ist_message *message = message_retaining(d.segment, &d.is);
    describe_end(&d);
    return message;
}

ist_message *message_from_array(SharedArrayObject *a) { return message_from_object(state_of(a), (PyObject *)a); }

PyObject *message_receive(core_state *state, ist_message *message) {
    PyObject *object = object_from_description(state, message->segment, &message->is);
    free(message);
    ist_count_in_flight(-1);
    return object;
}

ist_segment message_segment(const ist_message *message) { return message->segment; }

const description *message_description(const ist_message *message) { return &message->is; }

void message_free(ist_message *message) {
    ist_segment_release(message->segment);
    free(message);
    ist_count_in_flight(-1);
}

/* ---- tokens ------------------------------------------------------------------------------------------------------------------------- */

/* The bytes, little-endian throughout but for the segment's own token:
 *   0 "ISTA"   4 version   5 kind (share_kind)   6 bytes of the dtype's spec, 2 bytes   8 flags   9 ndim   10..15 zero
 *   16 segment token, 24 bytes
 *   40 pid, 44 descriptor: where the segment's domain is found by a process that isn't in it (0: nowhere)
 *   48 offset   56 shape, then strides, 8 bytes each; then the dtype's spec (dtype.c); then, with TOKEN_FILE, which file it is (token.h). The
 *   length is exactly that. What isn't an array has no flags, dimensions and offset, and its note for a spec. */
#define TOKEN_VERSION 4
#define TOKEN_READONLY 1u
#define TOKEN_PRIVATE 4u /* memory of which a forked child has a copy, not the same: a file mapped with mode 'c' */
#define TOKEN_TRACKS 8u  /* a growable array whole: its first length is 0 here, and the segment's when it is received */
#define TOKEN_SEGMENT 16
#define TOKEN_PLACE 40
#define TOKEN_OFFSET 48
#define TOKEN_DIMS 56
#define TOKEN_SPEC(ndim) (TOKEN_DIMS + 16 * (Py_ssize_t)(ndim))
#define TOKEN_SPEC_MAX 0xffff
#define TOKEN_FEW (TOKEN_SPEC(IST_MAX_NDIM) + 520) /* room for most; a name can keep that much, too */

static_assert(TOKEN_PLACE - TOKEN_SEGMENT == sizeof(ist_token), "the segment's token has its place");

int plan_token(core_state *state, const description *d, ist_segment segment, token_plan *plan) {
    *plan = (token_plan){.is = d, .spec = d->note, .spec_size = d->note_size};
    if (d->kind == SHARE_ARRAY) {
        const char *spec = d->spec == NULL ? state->dtypes[d->code]->spec : d->spec;
        plan->spec = spec;
        plan->spec_size = strlen(spec);
        plan->flags = (d->readonly ? TOKEN_READONLY : 0) | (d->tracks ? TOKEN_TRACKS : 0);
        if (ist_segment_file(segment, &plan->file) == 0) {
            plan->flags |= (plan->file.flags & IST_PRIVATE) != 0 ? TOKEN_PRIVATE : plan->file.path[0] != 0 ? TOKEN_FILE : 0;
            plan->part = (plan->flags & TOKEN_FILE) != 0 ? file_part_size(&plan->file) : 0;
        }
    }
    if (plan->spec_size > TOKEN_SPEC_MAX) {
        PyErr_Format(PyExc_ValueError, "the dtype's fields can't be sent: their description has %zu bytes, at most %d", plan->spec_size,
                     TOKEN_SPEC_MAX);
        return -1;
    }
    plan->size = TOKEN_SPEC(d->ndim) + (Py_ssize_t)plan->spec_size + plan->part;
    return 0;
}

void write_token(const token_plan *plan, ist_segment segment, const ist_token *token, unsigned char *at) {
    const description *d = plan->is;
    ist_place place = {0};
    if (ist_segment_place(segment, &place) != 0)
        place = (ist_place){0};
    memset(at, 0, TOKEN_SEGMENT);
    memcpy(at, "ISTA", 4);
    at[4] = TOKEN_VERSION;
    at[5] = (unsigned char)d->kind;
    put16(at + 6, (uint32_t)plan->spec_size);
    at[8] = (unsigned char)plan->flags;
    at[9] = (unsigned char)d->ndim;
    memcpy(at + TOKEN_SEGMENT, token->bytes, sizeof token->bytes);
    put32(at + TOKEN_PLACE, place.pid);
    put32(at + TOKEN_PLACE + 4, place.fd);
    put64(at + TOKEN_OFFSET, d->offset);
    for (int i = 0; i < d->ndim; i++) {
        put64(at + TOKEN_DIMS + 8 * i, d->tracks && i == 0 ? 0 : d->shape[i]);
        put64(at + TOKEN_DIMS + 8 * (d->ndim + i), d->strides[i]);
    }
    at += TOKEN_SPEC(d->ndim);
    memcpy(at, plan->spec, plan->spec_size);
    if (plan->part > 0)
        file_part_write(at + plan->spec_size, &plan->file, ist_segment_size(segment));
}

PyObject *token_encode(core_state *state, const described *d, const ist_token *token) {
    token_plan plan;
    PyObject *bytes = plan_token(state, &d->is, d->segment, &plan) < 0 ? NULL : PyBytes_FromStringAndSize(NULL, plan.size);
    if (bytes != NULL)
        write_token(&plan, d->segment, token, (unsigned char *)PyBytes_AS_STRING(bytes));
    return bytes;
}

int token_refuse(const char *why) {
    PyErr_Format(PyExc_ValueError, "not an array token: %s", why);
    return -1;
}

static void token_decode_dims(const unsigned char *at, parsed_token *out) {
    int ndim = out->is.ndim;
    for (int i = 0; i < 2 * ndim; i++)
        out->dims[i] = (Py_ssize_t)get64(at + TOKEN_DIMS + 8 * i);
    out->is.shape = out->dims;
    out->is.strides = out->dims + ndim;
    out->is.offset = (Py_ssize_t)get64(at + TOKEN_OFFSET);
}

static void token_decode_segment(const unsigned char *at, parsed_token *out) {
    memcpy(out->segment.bytes, at + TOKEN_SEGMENT, sizeof out->segment.bytes);
    out->place = (ist_place){.pid = get32(at + TOKEN_PLACE), .fd = get32(at + TOKEN_PLACE + 4)};
}

/* Of what isn't an array; the head is checked. */
static int token_decode_handle(const unsigned char *at, Py_ssize_t size, parsed_token *out) {
    const Py_ssize_t note = get16(at + 6);
    if (at[5] >= SHARE_KINDS)
        return token_refuse("an unknown kind of object");
    if (note > SHARE_NOTE || size != TOKEN_DIMS + note || at[8] != 0 || at[9] != 0 || get64(at + TOKEN_OFFSET) != 0)
        return token_refuse("its kind of object has nothing of what it says");
    *out = (parsed_token){.is = {.kind = (share_kind)at[5], .note_size = (uint8_t)note}};
    memcpy(out->is.note, at + TOKEN_DIMS, (size_t)note);
    token_decode_segment(at, out);
    return 0;
}

static int token_decode(core_state *state, const unsigned char *at, Py_ssize_t size, parsed_token *out) {
    if (size < TOKEN_DIMS || memcmp(at, "ISTA", 4) != 0)
        return token_refuse("it doesn't begin as one");
    if (at[4] != TOKEN_VERSION) {
        PyErr_Format(PyExc_ValueError, "an array token of version %d; this isthmus reads version %d", at[4], TOKEN_VERSION);
        return -1;
    }
    if ((at[8] & ~(TOKEN_READONLY | TOKEN_FILE | TOKEN_PRIVATE | TOKEN_TRACKS)) != 0 ||
        (at[8] & (TOKEN_FILE | TOKEN_PRIVATE)) == (TOKEN_FILE | TOKEN_PRIVATE))
        return token_refuse("an unknown flag");
    for (int i = 10; i < TOKEN_SEGMENT; i++) {
        if (at[i] != 0)
            return token_refuse("bytes that must be 0 aren't");
    }
    if (at[5] != SHARE_ARRAY)
        return token_decode_handle(at, size, out);
    out->is.kind = SHARE_ARRAY;
    const int ndim = at[9];
    const Py_ssize_t rest = size - TOKEN_SPEC(ndim) - get16(at + 6);
    if (ndim > IST_MAX_NDIM || rest < 0 || (rest > 0 && (at[8] & TOKEN_FILE) == 0))
        return token_refuse("its length doesn't fit its number of dimensions");
    out->file = (file_part){.path = NULL};
    if ((at[8] & TOKEN_FILE) != 0 && file_part_read(at + size - rest, rest, &out->file) < 0)
        return -1;
    DTypeObject *dtype = dtype_from_spec(state, (const char *)at + TOKEN_SPEC(ndim), get16(at + 6));
    if (dtype == NULL || dtype->itemsize == 0 || dtype->code == IST_SUBARRAY) {
        file_part_clear(&out->file);
        if (dtype == NULL && !PyErr_ExceptionMatches(PyExc_ValueError))
            return -1;
        Py_XDECREF((PyObject *)dtype);
        PyErr_Clear();
        return token_refuse("an unknown type of element");
    }
    out->dtype = dtype;
    out->is.ndim = ndim;
    out->is.readonly = (at[8] & TOKEN_READONLY) != 0;
    out->is.tracks = (at[8] & TOKEN_TRACKS) != 0;
    out->private = (at[8] & TOKEN_PRIVATE) != 0;
    token_decode_segment(at, out);
    token_decode_dims(at, out);
    return 0;
}

/* Bytes that may change while they are being checked are the caller's copy. */
int token_from_object(core_state *state, PyObject *object, parsed_token *out) {
    if (!PyObject_CheckBuffer(object)) {
        PyErr_Format(PyExc_TypeError, "a token is bytes, and a name is a str, not %.200s", Py_TYPE(object)->tp_name);
        return -1;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0)
        return -1;
    unsigned char few[TOKEN_FEW], *copy = few; /* once: the object's bytes may change while they are being checked */
    const Py_ssize_t size = view.len;
    const bool too_long = size > TOKEN_SPEC(IST_MAX_NDIM) + TOKEN_SPEC_MAX + FILE_PART_MAX;
    if (size > (Py_ssize_t)sizeof few)
        copy = too_long ? NULL : PyMem_Malloc((size_t)size);
    if (copy != NULL)
        memcpy(copy, view.buf, (size_t)size);
    PyBuffer_Release(&view);
    if (copy == NULL)
        return too_long ? token_refuse("it is too long") : (PyErr_NoMemory(), -1);
    int result = token_decode(state, copy, size, out);
    if (copy != few)
        PyMem_Free(copy);
    return result;
}

PyObject *token_clear(parsed_token *token) {
    Py_CLEAR(token->dtype);
    file_part_clear(&token->file);
    return NULL;
}

/* Nobody's to touch as an array: a queue's, or a lock's or the like. */
static bool is_of_a_handle(ist_segment segment) {
    const ist_kind kind = ist_segment_kind(segment);
    return kind == IST_KIND_QUEUE || kind == IST_KIND_LOCK;
}

/* What a token describes, over `segment`; takes both. */
PyObject *token_receive(core_state *state, ist_segment segment, parsed_token *token) {
    const description *d = &token->is;
    if (d->kind != SHARE_ARRAY)
        return handle_new(state, d->kind, segment, d->note, d->note_size);
    const uint32_t flags = d->readonly ? ARRAY_READONLY : 0;
    PyObject *a = NULL;
    if (is_of_a_handle(segment)) {
        token_refuse("its segment is a queue's or a lock's");
        ist_segment_release(segment);
    } else if (d->tracks) {
        a = (PyObject *)array_new_tracking(state, segment, token->dtype, d->ndim, d->shape, flags);
    } else if (!array_fits(ist_segment_size(segment), token->dtype->itemsize, d->ndim, d->shape, d->strides, d->offset)) {
        PyErr_Format(PyExc_ValueError, "not an array token: what it describes reaches outside its segment of %zu bytes",
                     ist_segment_size(segment));
        ist_segment_release(segment);
    } else {
        a = (PyObject *)array_new_root(state, segment, token->dtype, d->ndim, d->shape, d->strides, d->offset, flags);
    }
    token_clear(token);
    return a;
}

ist_message *message_from_token(core_state *state, const unsigned char *at, Py_ssize_t size, ist_segment segment, const uint64_t *lease) {
    parsed_token token;
    ist_message *message = NULL;
    if (token_decode(state, at, size, &token) < 0) {
        ist_segment_release(segment);
        return NULL;
    }
    if (lease != NULL && segment_of(state, &token, lease, &segment) < 0) {
        token_clear(&token);
        return NULL;
    }
    description *d = &token.is;
    if (d->kind == SHARE_ARRAY) {
        d->spec = token.dtype->spec;
        if (dtype_is_native(token.dtype)) {
            d->spec = NULL;
            d->code = token.dtype->code;
        }
    }
    if (d->kind == SHARE_ARRAY && (is_of_a_handle(segment) || (!d->tracks && !array_fits(ist_segment_size(segment), token.dtype->itemsize,
                                                                                         d->ndim, d->shape, d->strides, d->offset))))
        token_refuse("what it describes reaches outside its segment");
    else
        message = message_new(segment, d);
    if (message == NULL)
        ist_segment_release(segment);
    token_clear(&token);
    return message;
}

static uint32_t segment_token_word(const ist_token *token, int at) {
    uint32_t word;
    memcpy(&word, token->bytes + at, sizeof word);
    return word;
}

/* SegmentGoneError in one line: which segment, why, and what one can do. Other errors by the table. Always NULL. */
static PyObject *raise_gone(core_state *state, int error, const ist_token *token, bool pickled) {
    uint32_t index = segment_token_word(token, 16), generation = segment_token_word(token, 20);
    if (error == -EXDEV) {
        PyErr_Format(
            state->SegmentGoneError,
            "segment %u (generation %u) belongs to another process, which is gone or can't be reached from here%s; keep it alive until the "
            "array was received, or pass the contents (isthmus.pickle_by_value(), or a.tobytes()); memory that isn't isthmus's own, as "
            "from_arrow() makes arrays of, never leaves its process: send isthmus.array(x)",
            index, generation, access("/proc/self/fd", F_OK) != 0 ? ", where no /proc is mounted" : "");
    } else if (error == -ESTALE && pickled) {
        PyErr_Format(state->SegmentGoneError,
                     "segment %u (generation %u) is gone: the pickle was loaded before or its lease ran out, and nobody held the array any "
                     "more; keep the array until it was loaded, lengthen isthmus.set_pickle_lease(), send it by isthmus's own queues and "
                     "pools, or pickle contents with isthmus.pickle_by_value()",
                     index, generation);
    } else if (error == -ESTALE) {
        PyErr_Format(state->SegmentGoneError,
                     "segment %u (generation %u) is gone: its last owner has let go, and a token owns nothing; keep the array until the "
                     "token was attached, or send the array itself",
                     index, generation);
    } else if (error == -EACCES || error == -EPERM) {
        PyErr_Format(PyExc_PermissionError,
                     "segment %u (generation %u) belongs to a process of another user, or one that may not be looked into", index,
                     generation);
    } else if (error == -EINVAL) {
        PyErr_SetString(PyExc_ValueError, "not an array token: its segment has an impossible number");
    } else {
        raise_error(state, error, "segment %u (generation %u)", index, generation);
    }
    return NULL;
}

PyDoc_STRVAR(
    token_doc,
    "token($self, /)\n--\n\n"
    "Bytes that say what this is and where: its kind and segment; of an array also dtype, shape, strides, whether it is read-only.\n\n"
    "isthmus.attach(token) makes another handle of the same thing, as long as somebody owns it: a token owns nothing.");

static core_state *state_of_self(PyObject *self) { return (core_state *)PyType_GetModuleState(Py_TYPE(self)); }

static PyObject *method_token(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    core_state *state = state_of_self(self);
    described d;
    if (describe_begin(state, self, &d) < 0)
        return NULL;
    ist_token token;
    int error = ist_segment_token(d.segment, &token);
    PyObject *bytes = error < 0 ? raise_error(state, error, "a token of %R", (PyObject *)Py_TYPE(self)) : token_encode(state, &d, &token);
    describe_end(&d);
    return bytes;
}

/* In a domain that this process isn't in: becomes a guest there and tries again. 0 or a negative errno. */
static int reach(const parsed_token *token) {
    int error = token->place.pid == 0 ? -EXDEV : ist_domain_reach(&token->segment, token->place);
    return error == -ENOENT ? -EXDEV : error;
}

static int acquire(const parsed_token *token, ist_segment *out) {
    int error = ist_segment_acquire(&token->segment, out);
    if (error != -EXDEV || token->file.path != NULL || (error = reach(token)) != 0) /* for a file nothing is to be found there */
        return error;
    return ist_segment_acquire(&token->segment, out);
}

static int load(const parsed_token *token, uint64_t number, ist_segment *out) {
    int error = ist_lease_load(&token->segment, number, out);
    if (error != -EXDEV || (error = reach(token)) != 0)
        return error;
    return ist_lease_load(&token->segment, number, out);
}

static bool is_from_here(const parsed_token *token) { return token->place.pid == (uint32_t)getpid(); }

/* Whether the file is to be opened, after acquiring has failed: it belongs to another process, or to one that has let go meanwhile or is dead;
 * what lives on is the file. In the process that made the token a segment that is gone is gone. */
static bool is_a_file_elsewhere(const parsed_token *token, int error) {
    return token->file.path != NULL && !is_from_here(token) && (error == -EXDEV || error == -ESTALE || error == -EACCES || error == -EPERM);
}

/* A forked child finds its own copy under its parent's token, so this isn't left to the segment's number. */
static int refuse_private(core_state *state, const parsed_token *token) {
    if (!token->private || token->place.pid == 0 || is_from_here(token))
        return 0;
    PyErr_Format(
        state->SegmentGoneError,
        "the array is private to process %u, a file mapped with mode 'c': nobody else sees what was written to it; pass the contents "
        "(isthmus.pickle_by_value(), or isthmus.array(a))",
        token->place.pid);
    return -1;
}

/* The segment that a token describes; number: its lease's, of a pickle (NULL: none). -1 with an exception. */
int segment_of(core_state *state, const parsed_token *token, const uint64_t *number, ist_segment *out) {
    if (refuse_private(state, token) < 0)
        return -1;
    int error = number != NULL ? load(token, *number, out) : acquire(token, out);
    if (error == 0)
        return 0;
    if (!is_a_file_elsewhere(token, error)) {
        raise_gone(state, error, &token->segment, number != NULL);
        return -1;
    }
    if (file_part_open(state, &token->file, token->is.readonly, out) < 0)
        return -1;
    if (number != NULL)
        ist_lease_strike(&token->segment, *number);
    return 0;
}

/* ---- names -------------------------------------------------------------------------------------------------------------------------- */

static const char *name_of(PyObject *object, Py_ssize_t *length) {
    if (!PyUnicode_Check(object)) {
        PyErr_Format(PyExc_TypeError, "a name is a str, not %.200s", Py_TYPE(object)->tp_name);
        return NULL;
    }
    const char *name = PyUnicode_AsUTF8AndSize(object, length);
    if (name != NULL && (*length == 0 || *length > IST_NAME_MAX)) {
        PyErr_Format(PyExc_ValueError, "a name has 1 to %d bytes in UTF-8, not %zd: %R", IST_NAME_MAX, *length, object);
        return NULL;
    }
    return name;
}

PyDoc_STRVAR(publish_doc, "publish($self, name, /)\n--\n\n"
                          "Gives it a name, by which any process of this user can attach() to it.\n\n"
                          "A name owns nothing: it is gone with the last holder of what has it, or after unpublish(). At most 200 bytes;\n"
                          "FileExistsError if something living in the domain has it.");

static PyObject *method_publish(PyObject *self, PyObject *object) {
    core_state *state = state_of_self(self);
    described d;
    Py_ssize_t length;
    const char *name = name_of(object, &length);
    if (name == NULL || describe_begin(state, self, &d) < 0)
        return NULL;
    ist_token token;
    int error = ist_segment_token(d.segment, &token);
    PyObject *bytes = error < 0 ? NULL : token_encode(state, &d, &token);
    if (bytes != NULL && PyBytes_GET_SIZE(bytes) > TOKEN_FEW) {
        PyErr_Format(
            PyExc_ValueError,
            "the array can't be published under a name: the description of its dtype (%zu bytes) and, of a file, the path have %zd "
            "bytes, at most %zd",
            strlen(((SharedArrayObject *)self)->dtype->spec), PyBytes_GET_SIZE(bytes) - TOKEN_SPEC(d.is.ndim),
            (Py_ssize_t)TOKEN_FEW - TOKEN_SPEC(d.is.ndim)); /* a handle's token is short */
        Py_CLEAR(bytes);
    }
    if (bytes != NULL) {
        Py_BEGIN_ALLOW_THREADS
        error = ist_name_publish(name, (size_t)length, d.segment, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
        Py_END_ALLOW_THREADS
        Py_DECREF(bytes);
    }
    describe_end(&d);
    if (error < 0)
        return raise_error(state, error, "publishing as %R", object);
    return bytes == NULL ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(unpublish_doc,
             "unpublish($module, name, /)\n--\n\n"
             "Takes a name away from the array that has it, in this process's domains; the array stays. LookupError if none has.");

static PyObject *core_unpublish(PyObject *module, PyObject *object) {
    core_state *state = state_of_module(module);
    Py_ssize_t length;
    const char *name = name_of(object, &length);
    if (name == NULL)
        return NULL;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = ist_name_remove(name, (size_t)length);
    Py_END_ALLOW_THREADS
    if (error == -ENOENT)
        return PyErr_Format(state->SegmentGoneError, "no living array is published as %R", object);
    return error < 0 ? raise_error(state, error, "unpublishing %R", object) : Py_NewRef(Py_None);
}

static PyObject *attach_name(core_state *state, PyObject *object) {
    Py_ssize_t length;
    const char *name = name_of(object, &length);
    if (name == NULL)
        return NULL;
    unsigned char bytes[TOKEN_FEW];
    size_t size = sizeof bytes;
    ist_segment segment = {.slot = NULL};
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = ist_name_attach(name, (size_t)length, &segment, bytes, &size);
    Py_END_ALLOW_THREADS
    if (error == -ENOENT)
        return PyErr_Format(state->SegmentGoneError, "no living array is published as %R by a process of this user", object);
    if (error < 0 && error != -EXDEV)
        return raise_error(state, error, "attaching to %R", object);
    parsed_token token;
    if (token_decode(state, bytes, (Py_ssize_t)size, &token) < 0) {
        ist_segment_release(segment);
        return NULL;
    }
    /* -EXDEV: another process's file or private memory; segment_of says which */
    if (refuse_private(state, &token) < 0 || (error < 0 && segment_of(state, &token, NULL, &segment) < 0)) {
        ist_segment_release(segment);
        return token_clear(&token);
    }
    return token_receive(state, segment, &token);
}

PyDoc_STRVAR(attach_doc,
             "attach($module, token_or_name, /)\n--\n\n"
             "The array, queue or lock that a token describes, or that was published under a name, as a new owner of the same memory.\n\n"
             "In whatever process of this user. Raises SegmentGoneError if nobody owns that memory any more, or nobody can be reached\n"
             "who does; ValueError if the bytes aren't a token, PermissionError for another user's.");

static PyObject *core_attach(PyObject *module, PyObject *object) {
    core_state *state = state_of_module(module);
    if (PyUnicode_Check(object))
        return attach_name(state, object);
    parsed_token token;
    if (token_from_object(state, object, &token) < 0)
        return NULL;
    ist_segment segment;
    if (segment_of(state, &token, NULL, &segment) < 0)
        return token_clear(&token);
    return token_receive(state, segment, &token);
}

/* ---- into the module ---------------------------------------------------------------------------------------------------------------- */

PyMethodDef message_methods[] = {
    {"token", method_token, METH_NOARGS, token_doc},
    {"publish", method_publish, METH_O, publish_doc},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef module_methods[] = {
    {"attach", core_attach, METH_O, attach_doc},
    {"unpublish", core_unpublish, METH_O, unpublish_doc},
    {NULL, NULL, 0, NULL},
};

int message_init(PyObject *module, core_state *Py_UNUSED(state)) { return PyModule_AddFunctions(module, module_methods); }
