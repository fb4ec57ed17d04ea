/* clone_output.c: the bytes of a message that is being made, and the arrays beside them.
 *
 * Bytes go into memory that grows; what is large (PIECE_FROM) is only noted, and copied once, when the message has its final place.
 */
#include "clone_encoder.h"

#define PIECE_FROM (32 * 1024)

void *encoder_grown(void *items, const void *few, size_t count, size_t *room, size_t n, size_t size) {
    const size_t limit = (size_t)PY_SSIZE_T_MAX / size;
    size_t wanted = *room > limit / 2 ? limit : 2 * *room;
    if (n > limit - count) {
        PyErr_NoMemory();
        return NULL;
    }
    if (wanted < count + n)
        wanted = count + n;
    void *more = items == few ? PyMem_Malloc(wanted * size) : PyMem_Realloc(items, wanted * size);
    if (more == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (items == few && count > 0)
        memcpy(more, few, count * size);
    *room = wanted;
    return more;
}

unsigned char *encoder_make_room(encoder *e, size_t n) {
    clone_encoded *out = e->out;
    unsigned char *bytes = encoder_grown(out->bytes, out->few, out->used, &out->room, n, 1);
    if (bytes == NULL)
        return NULL;
    out->bytes = bytes;
    return bytes + out->used;
}

static clone_piece *add_piece(encoder *e) {
    clone_encoded *out = e->out;
    if (out->npieces == out->piece_room) {
        clone_piece *pieces = encoder_grown(out->pieces, NULL, out->npieces, &out->piece_room, 8, sizeof *pieces);
        if (pieces == NULL)
            return NULL;
        out->pieces = pieces;
    }
    out->pieces[out->npieces] = (clone_piece){.at = out->used};
    return &out->pieces[out->npieces];
}

int put_units(encoder *e, unsigned tag, size_t count, const char *data, size_t size, PyObject *owner) {
    const bool late = owner != NULL && size >= PIECE_FROM;
    unsigned char *at = size > (size_t)PY_SSIZE_T_MAX - IST_CLONE_ROOM ? (unsigned char *)PyErr_NoMemory()
                                                                       : room_for(e, IST_CLONE_ROOM + (late ? 0 : size));
    if (at == NULL)
        return -1;
    at = ist_clone_put_counted(at, tag, count);
    if (!late) {
        memcpy(at, data, size);
        wrote(e, at + size);
        return 0;
    }
    wrote(e, at);
    clone_piece *piece = add_piece(e);
    if (piece == NULL)
        return -1;
    piece->data = data;
    piece->size = size;
    piece->owner = Py_NewRef(owner);
    e->out->piece_bytes += size;
    e->out->npieces++;
    return 0;
}

static int put_held_view(encoder *e, const unsigned char *head, size_t head_size, Py_buffer *view, bool *held) {
    const size_t size = (size_t)view->len;
    *held = size >= PIECE_FROM;
    unsigned char *at = size > (size_t)PY_SSIZE_T_MAX - 2 * IST_CLONE_ROOM ? (unsigned char *)PyErr_NoMemory()
                                                                           : room_for(e, 2 * IST_CLONE_ROOM + (*held ? 0 : size));
    if (at == NULL)
        return -1;
    memcpy(at, head, head_size);
    at = ist_clone_put_count(at + head_size, size);
    if (!*held && size > 0)
        memcpy(at, view->buf, size);
    wrote(e, *held ? at : at + size);
    clone_piece *piece = *held ? add_piece(e) : NULL;
    if (piece == NULL)
        return *held ? -1 : 0;
    piece->data = view->buf;
    piece->size = size;
    piece->view = view;
    e->out->piece_bytes += size;
    e->out->npieces++;
    return 0;
}

int put_view(encoder *e, const unsigned char *head, size_t head_size, PyObject *exporter) {
    Py_buffer *view = PyMem_Malloc(sizeof *view);
    if (view == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (PyObject_GetBuffer(exporter, view, PyBUF_SIMPLE) < 0) {
        PyMem_Free(view);
        return -1;
    }
    bool held;
    int result = put_held_view(e, head, head_size, view, &held);
    if (result < 0 || !held) {
        PyBuffer_Release(view);
        PyMem_Free(view);
    }
    return result;
}

/* ---- arrays beside the bytes ------------------------------------------------------------------------------------------------------- */

/* Takes the message, NULL with an exception included. */
static int put_message(encoder *e, ist_message *message) {
    clone_encoded *out = e->out;
    unsigned char *at = message == NULL ? NULL : room_for(e, IST_CLONE_ROOM);
    if (at != NULL && out->narrays == out->array_room) {
        size_t room = (size_t)out->array_room;
        ist_message **messages = encoder_grown(out->messages, NULL, (size_t)out->narrays, &room, 8, sizeof *messages);
        if (messages == NULL) {
            at = NULL;
        } else {
            out->messages = messages;
            out->array_room = (Py_ssize_t)room;
        }
    }
    if (at == NULL) {
        if (message != NULL)
            message_free(message);
        return -1;
    }
    out->messages[out->narrays] = message;
    wrote(e, ist_clone_put_counted(at, IST_CLONE_ARRAY, (uint64_t)out->narrays++));
    return 0;
}

/* The contents of an array that nobody else has and that lies in C order, with what it is (docs/clone.md). */
static int put_contents(encoder *e, SharedArrayObject *a) {
    const size_t spec = strlen(a->dtype->spec), head = 4 + 8 * (size_t)a->ndim + spec;
    if (spec > UINT16_MAX)
        return refuse(e, "the description of its dtype has %zu bytes, at most %d can be cloned", spec, UINT16_MAX);
    unsigned char *at = room_for(e, IST_CLONE_ROOM + head);
    if (at == NULL)
        return -1;
    at = ist_clone_put_counted(at, IST_CLONE_CONTENTS, head + (size_t)a->nbytes);
    at = ist_clone_put16(at, (uint16_t)spec);
    *at++ = (unsigned char)a->ndim;
    *at++ = 0;
    for (int i = 0; i < a->ndim; i++)
        at = ist_clone_put64(at, (uint64_t)ARRAY_SHAPE(a)[i]);
    memcpy(at, a->dtype->spec, spec);
    wrote(e, at + spec);
    if (a->nbytes == 0)
        return 0;
    clone_piece *piece = add_piece(e);
    if (piece == NULL)
        return -1;
    piece->data = a->data;
    piece->size = (size_t)a->nbytes;
    piece->owner = Py_NewRef((PyObject *)a);
    e->out->piece_bytes += piece->size;
    e->out->npieces++;
    return 0;
}

int put_array(encoder *e, SharedArrayObject *array) {
    return e->flags & CLONE_BY_VALUE ? put_contents(e, array) : put_message(e, message_from_array(array));
}

int put_handle(encoder *e, PyObject *handle) { return put_message(e, message_from_object(e->state, handle)); }

int put_transfer(encoder *e, PyObject *transfer) {
    clone_encoded *out = e->out;
    if (out->transfers == NULL && (out->transfers = PyList_New(0)) == NULL)
        return -1;
    if (put_message(e, transfer_peek(transfer)) < 0)
        return -1;
    return PyList_Append(out->transfers, transfer); /* last: from here on it is used up when the message is sent */
}
