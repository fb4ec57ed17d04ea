/* memmap.c: isthmus.memmap: a file as a segment; flush(); and opening the same file in another process.
 *
 * Relies on: ist_segment_map, which refuses what reaches beyond the end of the file, and remembers which file it is.
 * Invariants: the arguments are checked before the file is touched. A file grows here without ever getting shorter in between, and is cut
 * by mode 'w+' alone, and not if a segment of this process would lose its end: the next access would kill the process. In another process the file is mapped
 * only if it is the one that was meant.
 */
#include "token.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Neither waits at a pipe's or a device's file nor becomes anybody's terminal; for files it makes no difference. */
#define OPEN_ALWAYS (O_CLOEXEC | O_NOCTTY | O_NONBLOCK)

/* ---- errors ------------------------------------------------------------------------------------------------------------------------- */

/* OSError's subclass for -error, with that name (NULL: none); -1. */
static int raise_os(int error, PyObject *name) {
    if (error == -ENOMEM) {
        PyErr_Format(PyExc_MemoryError, "not enough memory or address space to map %R", name == NULL ? Py_None : name);
        return -1;
    }
    errno = -error;
    PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name);
    return -1;
}

static int raise_gone_file(core_state *state, PyObject *name, const char *why) {
    PyErr_Format(state->SegmentGoneError, "the file %R %s", name, why);
    return -1;
}

/* ---- in tokens ---------------------------------------------------------------------------------------------------------------------- */

Py_ssize_t file_part_size(const ist_file *file) { return FILE_PATH + (Py_ssize_t)strlen(file->path); }

void file_part_write(unsigned char *at, const ist_file *file, size_t segment_size) {
    const size_t length = strlen(file->path);
    put64(at, (int64_t)file->device);
    put64(at + 8, (int64_t)file->inode);
    put64(at + 16, (int64_t)file->born);
    put64(at + 24, (int64_t)file->offset);
    put64(at + 32, (int64_t)segment_size);
    put16(at + 40, (uint32_t)length);
    memcpy(at + FILE_PATH, file->path, length);
}

int file_part_read(const unsigned char *at, Py_ssize_t size, file_part *out) {
    const Py_ssize_t length = size - FILE_PATH;
    if (length < 1 || length >= PATH_MAX || get16(at + 40) != length || at[FILE_PATH] != '/' ||
        memchr(at + FILE_PATH, 0, (size_t)length) != NULL)
        return token_refuse("its length doesn't fit, or its file has no absolute path");
    char *path = PyMem_Malloc((size_t)length + 1);
    if (path == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(path, at + FILE_PATH, (size_t)length);
    path[length] = 0;
    *out = (file_part){
        .device = (uint64_t)get64(at),
        .inode = (uint64_t)get64(at + 8),
        .born = (uint64_t)get64(at + 16),
        .offset = (uint64_t)get64(at + 24),
        .size = (size_t)get64(at + 32),
        .path = path,
    };
    return 0;
}

void file_part_clear(file_part *part) {
    PyMem_Free(part->path);
    part->path = NULL;
}

/* Whether the mapped file was made when the one that is meant was: inodes of deleted files are used again. */
static bool is_as_old(ist_segment mapped, const file_part *part) {
    ist_file file;
    return ist_segment_file(mapped, &file) != 0 || file.born == 0 || part->born == 0 || file.born == part->born;
}

/* Without the GIL. 0 with *out, or an errno; *st: the file's, with st_mode 0 if it couldn't be opened. */
static int open_part(const file_part *part, bool readonly, struct stat *st, ist_segment *out) {
    st->st_mode = 0;
    int fd = open(part->path, (readonly ? O_RDONLY : O_RDWR) | OPEN_ALWAYS);
    if (fd < 0)
        return -errno;
    int error = fstat(fd, st) != 0 ? -errno : 0;
    if (error == 0 && (st->st_dev != part->device || st->st_ino != part->inode))
        error = -ESTALE;
    if (error == 0)
        error = ist_segment_map(fd, part->offset, part->size, readonly ? IST_READONLY : 0, out);
    close(fd);
    if (error == 0 && !is_as_old(*out, part)) {
        ist_segment_release(*out);
        error = -ESTALE;
    }
    return error;
}

int file_part_open(core_state *state, const file_part *part, bool readonly, ist_segment *out) {
    struct stat st;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = open_part(part, readonly, &st, out);
    Py_END_ALLOW_THREADS
    if (error == 0)
        return 0;
    PyObject *name = PyUnicode_DecodeFSDefault(part->path);
    if (name == NULL)
        return -1;
    if (error == -ENOENT || error == -ENOTDIR || error == -ELOOP || error == -EISDIR)
        raise_gone_file(state, name, "is gone: it was deleted or has another name now");
    else if (error == -ESTALE)
        raise_gone_file(state, name, "was replaced: another file has that name now");
    else if (error == -EINVAL && st.st_mode != 0)
        PyErr_Format(state->SegmentGoneError, "the file %R was cut: it has %lld bytes, and the array's memory are %zu from byte %llu on",
                     name, (long long)st.st_size, part->size, (unsigned long long)part->offset);
    else
        raise_os(error, name);
    Py_DECREF(name);
    return -1;
}

/* ---- memmap: arguments -------------------------------------------------------------------------------------------------------------- */

typedef enum memmap_mode { MODE_READ, MODE_COPY, MODE_UPDATE, MODE_NEW } memmap_mode;

static const struct {
    const char *name;
    memmap_mode mode;
} modes[] = {
    {"r", MODE_READ},        {"c", MODE_COPY},           {"r+", MODE_UPDATE},        {"w+", MODE_NEW},
    {"readonly", MODE_READ}, {"copyonwrite", MODE_COPY}, {"readwrite", MODE_UPDATE}, {"write", MODE_NEW},
};

static const struct {
    int open;
    uint32_t map;
} flags_of[] = {
    [MODE_READ] = {O_RDONLY, IST_READONLY},
    [MODE_COPY] = {O_RDONLY, IST_PRIVATE},
    [MODE_UPDATE] = {O_RDWR, 0},
    [MODE_NEW] = {O_RDWR | O_CREAT, 0}, /* cut when it is known to be a file */
};

typedef struct request {
    PyObject *filename; /* borrowed; as it was given */
    PyObject *path;     /* owned; bytes. NULL: fd is the caller's */
    PyObject *name;     /* owned; for texts */
    int fd;
    memmap_mode mode;
    DTypeObject *dtype; /* owned */
    Py_ssize_t offset, nbytes; /* nbytes -1: as much as there is */
    int ndim;
    Py_ssize_t shape[IST_MAX_NDIM];
} request;

static void request_clear(request *r) {
    Py_CLEAR(r->path);
    Py_CLEAR(r->name);
    Py_XDECREF((PyObject *)r->dtype);
}

static int parse_mode(PyObject *mode, memmap_mode *out) {
    *out = MODE_READ;
    if (mode == NULL)
        return 0;
    for (size_t i = 0; PyUnicode_Check(mode) && i < sizeof modes / sizeof *modes; i++) {
        if (PyUnicode_CompareWithASCIIString(mode, modes[i].name) == 0) {
            *out = modes[i].mode;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "mode must be 'r', 'c', 'r+' or 'w+' ('readonly', 'copyonwrite', 'readwrite', 'write'), not %R", mode);
    return -1;
}

static int parse_offset(PyObject *offset, Py_ssize_t *out) {
    *out = 0;
    if (offset == NULL)
        return 0;
    PyObject *integer = PyNumber_Index(offset);
    if (integer == NULL)
        return -1;
    *out = PyLong_AsSsize_t(integer);
    if (*out == -1 && PyErr_Occurred())
        PyErr_Clear(); /* beyond what a file can have, or far below 0 */
    if (*out < 0)
        PyErr_Format(PyExc_ValueError, "offset must be a number of bytes from 0 on, not %R", integer);
    Py_DECREF(integer);
    return *out < 0 ? -1 : 0;
}

/* dtype, shape and nbytes. */
static int parse_elements(core_state *state, PyObject *dtype, PyObject *shape, request *r) {
    const bool all = shape == NULL || shape == Py_None;
    if (all && r->mode == MODE_NEW) {
        PyErr_SetString(PyExc_ValueError, "shape must be given if mode == 'w+'");
        return -1;
    }
    r->ndim = 1;
    r->shape[0] = 1;
    r->nbytes = -1;
    if (!all && (r->ndim = parse_shape(shape, r->shape, false)) < 0)
        return -1;
    r->dtype = dtype == NULL ? dtype_ref(state->dtypes[IST_U1]) : dtype_from_object(state, dtype);
    if (r->dtype == NULL || spread(state, &r->dtype, &r->ndim, r->shape) < 0)
        return -1;
    Py_ssize_t nbytes = shape_bytes(r->ndim, r->shape, r->dtype->itemsize);
    if (nbytes < 0)
        return -1;
    if (nbytes == 0 || nbytes > PY_SSIZE_T_MAX - r->offset) {
        PyErr_Format(PyExc_ValueError, "%zd bytes at offset %zd can't be mapped: shape %R of %R", nbytes, r->offset, all ? Py_None : shape,
                     dtype == NULL ? Py_None : dtype);
        return -1;
    }
    r->nbytes = all ? -1 : nbytes;
    return 0;
}

/* A path, or an object with a descriptor. */
static int parse_file(request *r) {
    r->fd = -1;
    if (PyUnicode_Check(r->filename) || PyBytes_Check(r->filename) || PyObject_HasAttrString(r->filename, "__fspath__")) {
        r->name = PyOS_FSPath(r->filename);
        return r->name != NULL && PyUnicode_FSConverter(r->name, &r->path) ? 0 : -1;
    }
    if (!PyObject_HasAttrString(r->filename, "fileno")) {
        PyErr_Format(PyExc_TypeError, "a file is a path or an object with fileno(), not %.200s", Py_TYPE(r->filename)->tp_name);
        return -1;
    }
    if (PyObject_HasAttrString(r->filename, "flush")) { /* what Python has of it belongs into the file first */
        PyObject *done = PyObject_CallMethod(r->filename, "flush", NULL);
        if (done == NULL)
            return -1;
        Py_DECREF(done);
    }
    r->fd = PyObject_AsFileDescriptor(r->filename);
    r->name = r->fd < 0 ? NULL : PyObject_GetAttrString(r->filename, "name");
    if (r->fd >= 0 && (r->name == NULL || !PyUnicode_Check(r->name))) {
        PyErr_Clear();
        Py_XSETREF(r->name, PyLong_FromLong(r->fd));
    }
    return r->name == NULL ? -1 : 0;
}

static int parse(core_state *state, PyObject *const *given, request *r) {
    r->filename = given[0];
    return parse_mode(given[2], &r->mode) < 0 || parse_offset(given[3], &r->offset) < 0 ||
                   parse_elements(state, given[1], given[4], r) < 0 || parse_file(r) < 0
               ? -1
               : 0;
}

/* ---- memmap: the file --------------------------------------------------------------------------------------------------------------- */

static int open_file(request *r) {
    const int flags = flags_of[r->mode].open | OPEN_ALWAYS;
    if (PySys_Audit("open", "OOi", r->name, Py_None, flags) < 0)
        return -1;
    do {
        Py_BEGIN_ALLOW_THREADS
        r->fd = open(PyBytes_AS_STRING(r->path), flags, 0666);
        Py_END_ALLOW_THREADS
        if (r->fd >= 0)
            return 0;
        if (errno != EINTR)
            return raise_os(-errno, r->name);
    } while (PyErr_CheckSignals() == 0);
    return -1;
}

/* The file has at least `end` bytes then, and never fewer than before. 0 or an errno. */
static int extend(int fd, off_t end) {
    if (fallocate(fd, 0, end - 1, 1) == 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINTR)
        return -errno;
    struct stat st; /* a file system that can't: somebody who makes it longer at this very moment has to know better */
    if (fstat(fd, &st) != 0 || (st.st_size < end && ftruncate(fd, end) != 0))
        return -errno;
    return 0;
}

/* Exactly `end` zeros; what stays of the file isn't cut off even for a moment, where the file system can do that (-EBUSY: it can't, and the
 * file is mapped). 0 or an errno. */
static int renew(int fd, off_t size, off_t end, bool mapped) {
    if (size > end && ftruncate(fd, end) != 0)
        return -errno;
    if (size > 0 && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size < end ? size : end) != 0) {
        if (mapped)
            return -EBUSY;
        if (ftruncate(fd, 0) != 0)
            return -errno;
    }
    return extend(fd, end);
}

/* nbytes and shape of all that the file has. */
static int measure(const struct stat *st, request *r) {
    const Py_ssize_t one = shape_bytes(r->ndim, r->shape, r->dtype->itemsize); /* bytes of an element as the caller sees it */
    const long long there = (long long)st->st_size - r->offset;
    if (there <= 0)
        PyErr_Format(PyExc_ValueError, "nothing to map: %R has %lld bytes, and offset is %zd", r->name, (long long)st->st_size, r->offset);
    else if (there % one != 0)
        PyErr_Format(PyExc_ValueError, "the %lld bytes of %R from offset %zd on aren't a multiple of the %zd bytes of %R", there, r->name,
                     r->offset, one, r->dtype);
    else {
        r->nbytes = (Py_ssize_t)there;
        r->shape[0] = r->nbytes / one;
        return 0;
    }
    return -1;
}

/* Checks the open file, brings it to its length and maps it. */
static int map_file(request *r, ist_segment *out) {
    struct stat st;
    if (fstat(r->fd, &st) != 0)
        return raise_os(-errno, r->name);
    if (S_ISDIR(st.st_mode))
        return raise_os(-EISDIR, r->name);
    if (!S_ISREG(st.st_mode)) {
        PyErr_Format(PyExc_ValueError, "only ordinary files can be mapped, which %R isn't", r->name);
        return -1;
    }
    if (r->nbytes < 0 && measure(&st, r) < 0)
        return -1;
    const off_t end = r->offset + r->nbytes;
    if (st.st_size < end && (r->mode == MODE_READ || r->mode == MODE_COPY)) {
        PyErr_Format(PyExc_ValueError, "%R has %lld bytes: too few for %zd at offset %zd", r->name, (long long)st.st_size, r->nbytes,
                     r->offset);
        return -1;
    }
    const uint64_t mapped = r->mode == MODE_NEW && r->path != NULL ? ist_file_mapped(st.st_dev, st.st_ino) : 0;
    if (mapped > (uint64_t)end) {
        PyErr_Format(PyExc_BufferError, "mode 'w+' would cut %R to %lld bytes, and this process has it mapped up to byte %llu", r->name,
                     (long long)end, (unsigned long long)mapped);
        return -1;
    }
    const size_t nbytes = (size_t)r->nbytes;
    int error = 0;
    Py_BEGIN_ALLOW_THREADS
    if (r->mode == MODE_NEW && r->path != NULL)
        error = renew(r->fd, st.st_size, end, mapped > 0);
    else if (st.st_size < end)
        error = extend(r->fd, end);
    if (error == 0)
        error = ist_segment_map(r->fd, (uint64_t)r->offset, nbytes, flags_of[r->mode].map, out);
    Py_END_ALLOW_THREADS
    if (error == -EINVAL) { /* ist_segment_map looks at the length once more */
        PyErr_Format(PyExc_ValueError, "%R was cut before its %zd bytes at offset %zd could be mapped", r->name, r->nbytes, r->offset);
        return -1;
    }
    if (error == -EBUSY) {
        PyErr_Format(PyExc_BufferError, "this process has %R mapped, whose file system can't overwrite it with zeros in place", r->name);
        return -1;
    }
    return error == 0 ? 0 : raise_os(error, r->name);
}

static PyObject *core_memmap(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"filename", "dtype", "mode", "offset", "shape"};
    static const signature parameters = {"memmap", 5, 5, 1, names};
    core_state *state = state_of_module(module);
    PyObject *given[5], *result = NULL;
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0)
        return NULL;
    request r = {.fd = -1};
    ist_segment segment;
    if (parse(state, given, &r) == 0 && (r.path == NULL || open_file(&r) == 0) && map_file(&r, &segment) == 0) {
        ist_segment_set_creator(segment, (uint64_t)state->interpreter);
        result = (PyObject *)array_new_root(state, segment, r.dtype, r.ndim, r.shape, NULL, 0, 0);
    }
    if (r.path != NULL && r.fd >= 0)
        close(r.fd);
    request_clear(&r);
    return result;
}

/* ---- flush -------------------------------------------------------------------------------------------------------------------------- */

/* Bytes from the segment's begin to the array's lowest byte, and how many there are up to its highest. */
static size_t extent(SharedArrayObject *a, size_t *size) {
    Py_ssize_t low = a->data - array_root(a)->start, bytes = a->nbytes == 0 ? 0 : a->dtype->itemsize;
    for (int i = 0; i < a->ndim && a->nbytes > 0; i++) {
        Py_ssize_t reach = (ARRAY_SHAPE(a)[i] - 1) * ARRAY_STRIDES(a)[i];
        low += reach < 0 ? reach : 0;
        bytes += reach < 0 ? -reach : reach;
    }
    *size = (size_t)bytes;
    return (size_t)low;
}

static PyObject *array_flush(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    SharedArrayObject *a = (SharedArrayObject *)self;
    if (hold_enter(a, HOLD_SHARED) < 0)
        return NULL;
    const ist_segment segment = array_root(a)->segment;
    ist_file file;
    int error = 0;
    if (ist_segment_file(segment, &file) == 0 && (file.flags & (IST_READONLY | IST_PRIVATE)) == 0) {
        size_t size, low = extent(a, &size);
        Py_BEGIN_ALLOW_THREADS
        error = ist_segment_sync_range(segment, low, size);
        Py_END_ALLOW_THREADS
    }
    PyObject *name = error == 0 ? NULL : PyUnicode_DecodeFSDefault(file.path);
    if (name != NULL)
        raise_os(error, name);
    Py_XDECREF(name);
    hold_leave(a, HOLD_SHARED);
    return error == 0 ? Py_NewRef(Py_None) : NULL;
}

PyMethodDef memmap_methods[] = {
    {"flush", array_flush, METH_NOARGS,
     PyDoc_STR(
         "flush($self, /)\n--\n\nWrites what was changed in this part of a mapped file (memmap) to the disk; OSError if that fails.\n\n"
         "Whoever reads the file sees the changes before. Nothing to do for other memory, and for files that can't be changed.")},
    {NULL, NULL, 0, NULL},
};

PyMethodDef memmap_functions[] = {
    {"memmap", KEYWORDS(core_memmap),
     PyDoc_STR(
         "memmap($module, /, filename, dtype='u1', mode='r', offset=0, shape=None)\n--\n\n"
         "A SharedArray whose memory is a file, or a part of it from any byte on; filename is a path or an object with fileno().\n\n"
         "mode 'r': read-only. 'r+': writes go to the file, which is made longer if it is too short. 'w+': a file of exactly that\n"
         "length, all zeros, made or overwritten (what has fileno() is only made longer). 'c': writes stay in this process. shape\n"
         "None: all that the file has, which must be a whole number of elements. ValueError for what can't be mapped, OSError with\n"
         "the filename for what the system refuses, BufferError if 'w+' would cut what is mapped here.\n\n"
         "Other processes open the file again, and raise SegmentGoneError if it isn't the same any more (device, inode, birth, length),\n"
         "PermissionError if they may not. While the file is mapped nobody may make it shorter: an access to what was cut off\n"
         "ends the process (SIGBUS), as does a write for which the disk has no room.")},
    {NULL, NULL, 0, NULL},
};
