/* message.c: an array on its way: the message of our own transports and of CPython's cross-interpreter data, the token, and the pickle.
 *
 * Three forms of one description (element, shape, strides, offset, read-only), which differ in what they own:
 *   ist_message  one counted reference of the segment, in malloc'd memory: any interpreter and any thread may receive or free it
 *   token        nothing: bytes for a.token() and attach()
 *   pickle       a token and the number of a lease: the lease owns a reference until the number was loaded or ran out
 *
 * Relies on: array_fits (array.c) for the bounds of whatever came from outside; libisthmus's leases.
 *
 * Invariants (README.md, M1 to M5)
 *   a message owns exactly one reference from message_from_array to message_receive or message_free, and is counted in flight as long
 *   a message holds no PyObject and no memory of an interpreter's allocator
 *   bytes from outside are read once, inside their length, into a struct; every field is checked before it is used
 */
#include "token.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the description ---------------------------------------------------------------------------------------------------------------- */

typedef struct description {
    const char *spec; /* the dtype's; NULL: the native number `code` */
    ist_type_code code;
    int ndim;
    bool readonly;
    bool tracks;       /* the length of a growable segment: shape[0] doesn't count, and is 0 */
    Py_ssize_t offset; /* bytes from the segment's start to the first element */
    const Py_ssize_t *shape, *strides;
} description;

static description describe(SharedArrayObject *a) {
    return (description){
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

/* New reference. */
static DTypeObject *dtype_of_description(core_state *state, const description *d) {
    return d->spec == NULL ? dtype_ref(state->dtypes[d->code]) : dtype_from_spec(state, d->spec, (Py_ssize_t)strlen(d->spec));
}

/* Takes `segment`, on failure too. */
static SharedArrayObject *array_from_description(core_state *state, ist_segment segment, const description *d) {
    DTypeObject *dtype = dtype_of_description(state, d);
    if (dtype == NULL) {
        ist_segment_release(segment);
        return NULL;
    }
    const uint32_t flags = d->readonly ? ARRAY_READONLY : 0;
    SharedArrayObject *a = d->tracks ? array_new_tracking(state, segment, dtype, d->ndim, d->shape, flags)
                                     : array_new_root(state, segment, dtype, d->ndim, d->shape, d->strides, d->offset, flags);
    Py_DECREF((PyObject *)dtype);
    return a;
}

/* ---- messages ----------------------------------------------------------------------------------------------------------------------- */

struct ist_message {
    ist_segment segment;
    description is;
    Py_ssize_t dims[]; /* shape, then strides; then the dtype's spec, if there is one */
};

/* Without the reference, which the caller adds. */
static ist_message *message_alloc(SharedArrayObject *a) {
    description is = describe(a);
    size_t dims = (size_t)a->ndim * sizeof(Py_ssize_t), text = is.spec == NULL ? 0 : strlen(is.spec) + 1;
    ist_message *message = malloc(sizeof *message + 2 * dims + text);
    if (message == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (text > 0)
        is.spec = memcpy((char *)message->dims + 2 * dims, is.spec, text);
    message->is = is;
    memcpy(message->dims, ARRAY_SHAPE(a), 2 * dims);
    message->is.shape = message->dims;
    message->is.strides = message->dims + a->ndim;
    message->segment = array_root(a)->segment;
    return message;
}

ist_message *message_from_array(SharedArrayObject *a) {
    if (hold_enter(a, HOLD_SHARED) < 0) /* a release() in another thread can't take the segment away meanwhile */
        return NULL;
    ist_message *message = message_alloc(a);
    if (message != NULL) {
        ist_segment_retain_inline(message->segment);
        ist_count_in_flight(1);
    }
    hold_leave(a, HOLD_SHARED);
    return message;
}

SharedArrayObject *message_receive(core_state *state, ist_message *message) {
    SharedArrayObject *a = array_from_description(state, message->segment, &message->is);
    free(message);
    ist_count_in_flight(-1);
    return a;
}

ist_message *message_copy(const ist_message *message) {
    const description *is = &message->is;
    const size_t dims = 2 * (size_t)is->ndim * sizeof(Py_ssize_t), text = is->spec == NULL ? 0 : strlen(is->spec) + 1;
    ist_message *copy = malloc(sizeof *copy + dims + text);
    if (copy == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(copy, message, sizeof *copy + dims + text);
    copy->is.shape = copy->dims;
    copy->is.strides = copy->dims + is->ndim;
    if (text > 0)
        copy->is.spec = (char *)copy->dims + dims;
    ist_segment_retain_inline(copy->segment);
    ist_count_in_flight(1);
    return copy;
}

void message_free(ist_message *message) {
    ist_segment_release(message->segment);
    free(message);
    ist_count_in_flight(-1);
}

/* ---- tokens ------------------------------------------------------------------------------------------------------------------------- */

/* The bytes, little-endian throughout but for the segment's own token:
 *   0 "ISTA"   4 version   5 zero   6 bytes of the dtype's spec, 2 bytes   8 flags   9 ndim   10..15 zero   16 segment token, 24 bytes
 *   40 pid, 44 descriptor: where the segment's domain is found by a process that isn't in it (0: nowhere)
 *   48 offset   56 shape, then strides, 8 bytes each; then the dtype's spec (dtype.c); then, with TOKEN_FILE, which file it is (token.h). The
 *   length is exactly that. */
#define TOKEN_VERSION 4
#define TOKEN_READONLY 1u
#define TOKEN_FILE 2u    /* a mapped file, which other processes can open */
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

/* The array's segment is published. */
static PyObject *token_encode(SharedArrayObject *a, const description *d, const ist_token *segment) {
    ist_place place = {0};
    if (ist_segment_place(array_root(a)->segment, &place) != 0)
        place = (ist_place){0};
    const size_t spec = strlen(a->dtype->spec);
    if (spec > TOKEN_SPEC_MAX)
        return PyErr_Format(PyExc_ValueError, "the dtype's fields can't be sent: their description has %zu bytes, at most %d", spec,
                            TOKEN_SPEC_MAX);
    ist_file file;
    unsigned flags = (d->readonly ? TOKEN_READONLY : 0) | (d->tracks ? TOKEN_TRACKS : 0);
    Py_ssize_t part = 0;
    if (ist_segment_file(array_root(a)->segment, &file) == 0) {
        flags |= (file.flags & IST_PRIVATE) != 0 ? TOKEN_PRIVATE : file.path[0] != 0 ? TOKEN_FILE : 0;
        part = (flags & TOKEN_FILE) != 0 ? file_part_size(&file) : 0;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, TOKEN_SPEC(d->ndim) + (Py_ssize_t)spec + part);
    if (bytes == NULL)
        return NULL;
    unsigned char *at = (unsigned char *)PyBytes_AS_STRING(bytes);
    memset(at, 0, TOKEN_SEGMENT);
    memcpy(at, "ISTA", 4);
    at[4] = TOKEN_VERSION;
    put16(at + 6, (uint32_t)spec);
    at[8] = (unsigned char)flags;
    at[9] = (unsigned char)d->ndim;
    memcpy(at + TOKEN_SEGMENT, segment->bytes, sizeof segment->bytes);
    put32(at + TOKEN_PLACE, place.pid);
    put32(at + TOKEN_PLACE + 4, place.fd);
    put64(at + TOKEN_OFFSET, d->offset);
    for (int i = 0; i < d->ndim; i++) {
        put64(at + TOKEN_DIMS + 8 * i, d->tracks && i == 0 ? 0 : d->shape[i]);
        put64(at + TOKEN_DIMS + 8 * (d->ndim + i), d->strides[i]);
    }
    at += TOKEN_SPEC(d->ndim);
    memcpy(at, a->dtype->spec, spec);
    if (part > 0)
        file_part_write(at + spec, &file, ist_segment_size(array_root(a)->segment));
    return bytes;
}

/* What a token says: any numbers for shape, strides and offset, until array_fits has compared them with the segment. */
typedef struct parsed_token {
    ist_token segment;
    ist_place place;
    description is;
    bool private;       /* to its process */
    file_part file;     /* owned, likewise */
    DTypeObject *dtype; /* owned, once it is decoded */
    Py_ssize_t dims[2 * IST_MAX_NDIM];
} parsed_token;

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
        if (at[5] != 0 || at[i] != 0)
            return token_refuse("bytes that must be 0 aren't");
    }
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
    memcpy(out->segment.bytes, at + TOKEN_SEGMENT, sizeof out->segment.bytes);
    out->place = (ist_place){.pid = get32(at + TOKEN_PLACE), .fd = get32(at + TOKEN_PLACE + 4)};
    token_decode_dims(at, out);
    return 0;
}

/* Copies the bytes of any object with the buffer interface into *out, checked. */
static int token_from_object(core_state *state, PyObject *object, parsed_token *out) {
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

static PyObject *token_clear(parsed_token *token) {
    Py_CLEAR(token->dtype);
    file_part_clear(&token->file);
    return NULL;
}

/* The array a token describes, over `segment`; takes both. */
static PyObject *token_receive(core_state *state, ist_segment segment, parsed_token *token) {
    const description *d = &token->is;
    const uint32_t flags = d->readonly ? ARRAY_READONLY : 0;
    PyObject *a = NULL;
    if (d->tracks) {
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

PyDoc_STRVAR(token_doc, "token($self, /)\n--\n\n"
                        "Bytes that describe this array: its segment, dtype, shape, strides and whether it is read-only.\n\n"
                        "isthmus.attach() makes an array of the same memory from them, as long as somebody owns it: a token owns nothing.");

static PyObject *array_token(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    description d = describe(a);
    ist_token token;
    int error = ist_segment_token(array_root(a)->segment, &token);
    PyObject *bytes =
        error < 0 ? raise_error(state_of(a), error, "a token of an array of %zd bytes", a->nbytes) : token_encode(a, &d, &token);
    hold_leave(a, HOLD_SHARED);
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
static int segment_of(core_state *state, const parsed_token *token, const uint64_t *number, ist_segment *out) {
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

PyDoc_STRVAR(publish_doc,
             "publish($self, name, /)\n--\n\n"
             "Gives this array a name by which any process of this user can attach() to it.\n\n"
             "A name owns nothing: it is gone with the array's last holder, or after unpublish(). At most 200 bytes; FileExistsError\n"
             "if a living array of the domain has it.");

static PyObject *array_publish(PyObject *self, PyObject *object) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    Py_ssize_t length;
    const char *name = name_of(object, &length);
    if (name == NULL || hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    description d = describe(a);
    ist_segment segment = array_root(a)->segment;
    ist_token token;
    int error = ist_segment_token(segment, &token);
    PyObject *bytes = error < 0 ? NULL : token_encode(a, &d, &token);
    if (bytes != NULL && PyBytes_GET_SIZE(bytes) > TOKEN_FEW) {
        PyErr_Format(
            PyExc_ValueError,
            "the array can't be published under a name: the description of its dtype (%zu bytes) and, of a file, the path have %zd "
            "bytes, at most %zd",
            strlen(a->dtype->spec), PyBytes_GET_SIZE(bytes) - TOKEN_SPEC(d.ndim), (Py_ssize_t)TOKEN_FEW - TOKEN_SPEC(d.ndim));
        Py_CLEAR(bytes);
    }
    if (bytes != NULL) {
        Py_BEGIN_ALLOW_THREADS
        error = ist_name_publish(name, (size_t)length, segment, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
        Py_END_ALLOW_THREADS
        Py_DECREF(bytes);
    }
    hold_leave(a, HOLD_SHARED);
    if (error < 0)
        return raise_error(state_of(a), error, "publishing an array as %R", object);
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
             "The array that a token describes, or that was published under a name, as a new owner of the same memory.\n\n"
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

/* ---- pickle ------------------------------------------------------------------------------------------------------------------------- */

/* Contents instead of a reference: inside isthmus.pickle_by_value(). 1, 0, or -1 with an exception. */
static int by_value(PyObject *module) {
    PyObject *variable = PyObject_GetAttrString(module, "_by_value");
    if (variable == NULL)
        return -1;
    PyObject *value = NULL;
    int error = PyContextVar_Get(variable, Py_False, &value);
    Py_DECREF(variable);
    if (error < 0)
        return -1;
    int yes = PyObject_IsTrue(value);
    Py_DECREF(value);
    return yes;
}

static PyObject *reduce_contents(PyObject *module, SharedArrayObject *a) {
    if (array_tracks(a)) {
        SharedArrayObject *now = array_now(a);
        PyObject *result = now == NULL ? NULL : reduce_contents(module, now);
        Py_XDECREF((PyObject *)now);
        return result;
    }
    PyObject *rebuild = PyObject_GetAttrString(module, "_rebuild_contents");
    PyObject *shape = PyTuple_New(a->ndim);
    PyObject *contents = PyObject_CallMethod((PyObject *)a, "tobytes", NULL); /* counts what it copies */
    if (rebuild == NULL || shape == NULL || contents == NULL)
        goto fail;
    for (int i = 0; i < a->ndim; i++) {
        PyObject *length = PyLong_FromSsize_t(ARRAY_SHAPE(a)[i]);
        if (length == NULL)
            goto fail;
        PyTuple_SET_ITEM(shape, i, length);
    }
    return Py_BuildValue("N(sNN)", rebuild, a->dtype->spec, shape, contents);
fail:
    Py_XDECREF(rebuild);
    Py_XDECREF(shape);
    Py_XDECREF(contents);
    return NULL;
}

/* Every call takes a number of its own, since CPython converts a message as often as it likes and may never read the result. */
static PyObject *reduce_lease(core_state *state, SharedArrayObject *a) {
    if (hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    description d = describe(a);
    ist_segment segment = array_root(a)->segment;
    ist_token token;
    PyObject *result = NULL;
    uint64_t number;
    int error = ist_segment_token(segment, &token);
    if (error == 0)
        error = ist_lease_take(segment, &number);
    if (error < 0) {
        raise_error(state, error, "pickling an array of %zd bytes", a->nbytes);
    } else {
        PyObject *bytes = token_encode(a, &d, &token);
        if (bytes != NULL)
            result = Py_BuildValue("O(NK)", state->rebuild, bytes, (unsigned long long)number);
        if (result == NULL)
            ist_lease_strike(&token, number);
    }
    hold_leave(a, HOLD_SHARED);
    return result;
}

PyDoc_STRVAR(reduce_doc, "__reduce__($self, /)\n--\n\n"
                         "Pickles a reference under a lease, or the contents inside isthmus.pickle_by_value().");

static PyObject *array_reduce(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (array_check(a) < 0)
        return NULL;
    PyObject *module = PyType_GetModule(Py_TYPE(self)); /* borrowed from the type */
    int value = module != NULL ? by_value(module) : -1;
    if (value < 0)
        return NULL;
    report_leases_sometimes();
    return value ? reduce_contents(module, a) : reduce_lease(state_of_module(module), a);
}

PyDoc_STRVAR(rebuild_doc, "_rebuild($module, token, number, /)\n--\n\n"
                          "What a pickled array calls: the array that token describes; ends the lease of that number.");

static PyObject *core_rebuild(PyObject *module, PyObject *arguments) {
    core_state *state = state_of_module(module);
    PyObject *bytes;
    unsigned long long given;
    if (!PyArg_ParseTuple(arguments, "OK:_rebuild", &bytes, &given))
        return NULL;
    parsed_token token;
    if (token_from_object(state, bytes, &token) < 0)
        return NULL;
    ist_segment segment;
    const uint64_t number = given;
    if (segment_of(state, &token, &number, &segment) < 0) {
        token_clear(&token);
        message_report_leases(); /* says in the log what the exception is about */
        return NULL;
    }
    return token_receive(state, segment, &token);
}

/* Lengths of a tuple into shape; their product in *items. */
static int lengths_from_tuple(PyObject *tuple, Py_ssize_t *shape, Py_ssize_t *items) {
    Py_ssize_t product = 1;
    bool too_many = false, empty = false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++) {
        shape[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(tuple, i));
        if (shape[i] == -1 && PyErr_Occurred())
            return -1;
        if (shape[i] < 0) {
            PyErr_Format(PyExc_ValueError, "a pickled array with a length of %zd", shape[i]);
            return -1;
        }
        empty |= shape[i] == 0;
        too_many |= __builtin_mul_overflow(product, shape[i], &product);
    }
    *items = empty ? 0 : too_many ? PY_SSIZE_T_MAX : product;
    return 0;
}

PyDoc_STRVAR(rebuild_contents_doc, "_rebuild_contents($module, spec, shape, contents, /)\n--\n\n"
                                   "What an array calls that was pickled by value: a new array with these contents.");

static PyObject *core_rebuild_contents(PyObject *module, PyObject *arguments) {
    core_state *state = state_of_module(module);
    PyObject *lengths, *result = NULL;
    const char *spec;
    Py_ssize_t spec_length;
    Py_buffer contents;
    if (!PyArg_ParseTuple(arguments, "s#O!y*:_rebuild_contents", &spec, &spec_length, &PyTuple_Type, &lengths, &contents))
        return NULL;
    Py_ssize_t shape[IST_MAX_NDIM], items, bytes;
    ist_segment segment;
    DTypeObject *dtype = dtype_from_spec(state, spec, spec_length);
    if (dtype == NULL)
        goto done;
    if (dtype->itemsize == 0 || refuse_subarray(dtype) < 0) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "a pickled array with elements of no bytes: '%s'", spec);
        goto done;
    }
    if (PyTuple_GET_SIZE(lengths) > IST_MAX_NDIM) {
        PyErr_Format(PyExc_ValueError, "a pickled array with %zd dimensions; at most %d", PyTuple_GET_SIZE(lengths), IST_MAX_NDIM);
        goto done;
    }
    if (lengths_from_tuple(lengths, shape, &items) < 0)
        goto done;
    if (__builtin_mul_overflow(items, dtype->itemsize, &bytes) || bytes != contents.len) {
        PyErr_Format(PyExc_ValueError, "a pickled array of shape %R and dtype %s with %zd bytes of contents", lengths, dtype->str,
                     contents.len);
        goto done;
    }
    int error = ist_segment_create((size_t)bytes, 0, &segment);
    if (error < 0) {
        raise_error(state, error, "unpickling an array of %zd bytes", bytes);
        goto done;
    }
    if (bytes > 0)
        memcpy(ist_segment_data(segment), contents.buf, (size_t)bytes);
    ist_count_copied((size_t)bytes);
    ist_segment_set_creator(segment, (uint64_t)state->interpreter);
    result = (PyObject *)array_new_root(state, segment, dtype, (int)PyTuple_GET_SIZE(lengths), shape, NULL, 0, 0);
done:
    Py_XDECREF(dtype);
    PyBuffer_Release(&contents);
    return result;
}

/* ---- into the module ---------------------------------------------------------------------------------------------------------------- */

PyMethodDef message_array_methods[] = {
    {"token", array_token, METH_NOARGS, token_doc},
    {"publish", array_publish, METH_O, publish_doc},
    {"__reduce__", array_reduce, METH_NOARGS, reduce_doc},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef module_methods[] = {
    {"attach", core_attach, METH_O, attach_doc},
    {"unpublish", core_unpublish, METH_O, unpublish_doc},
    {"set_pickle_lease", core_set_pickle_lease, METH_O, set_pickle_lease_doc},
    {"_rebuild", core_rebuild, METH_VARARGS, rebuild_doc},
    {"_rebuild_contents", core_rebuild_contents, METH_VARARGS, rebuild_contents_doc},
    {NULL, NULL, 0, NULL},
};

int message_init(PyObject *module, core_state *state) {
    if (PyModule_AddFunctions(module, module_methods) < 0)
        return -1;
    state->rebuild = PyObject_GetAttrString(module, "_rebuild");
    if (state->rebuild == NULL)
        return -1;
    PyObject *variable = PyContextVar_New("isthmus.pickle_by_value", Py_False);
    int error = PyModule_AddObjectRef(module, "_by_value", variable); /* variable may be NULL: then the exception stays */
    Py_XDECREF(variable);
    return error;
}
