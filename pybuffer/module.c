/* module.c: isthmus._core: its definition, its state, the exception classes, and what the package says about the process.
 *
 * One module object per interpreter, with everything it needs in its state; nothing here is shared between interpreters but constants.
 * Py_mod_gil isn't declared: that comes with the proof that nothing races without it.
 */
#include "clone.h"
#include "queue.h"
#include "sync.h"

#include <pthread.h>

/* ---- SegmentInfo ------------------------------------------------------------------------------------------------------------------- */

static PyStructSequence_Field info_fields[] = {
    {"id", "number of the segment's slot; with the generation, its identity in this process"},
    {"generation", "how many segments the slot had before"},
    {"kind", "'heap', 'file' or 'foreign' memory, or a 'queue', or a 'lock' or the like"},
    {"size", "bytes, exactly as asked for; of a growable one its length now"},
    {"owners", "counted references: one per interpreter's owner, message and lease"},
    {"exports", "buffers, pins and lent addresses that stand on this interpreter's owner; None where no owner is at hand"},
    {"frozen", "read-only for everybody, for good"},
    {"readonly", "frozen, or read-only memory"},
    {"published", "its token was taken: other processes can attach to it"},
    {"created_by", "id of the interpreter that made it"},
    {"processes", "how many processes hold it, this one included; the dead count until they are swept; 0: not published"},
    {"descriptor", "(number, generation) of its descriptor, the same in all processes; None: not published"},
    {"reserved", "bytes that a growable one may grow to, of which `size` are its length now; else size"},
    {NULL, NULL},
};

static PyStructSequence_Desc info_desc = {
    "isthmus.SegmentInfo",
    "What the library knows of a segment; a snapshot.",
    info_fields,
    13,
};

static const char *kind_name(uint8_t kind) {
    switch (kind) {
    case IST_KIND_FILE: return "file";
    case IST_KIND_FOREIGN: return "foreign";
    case IST_KIND_QUEUE: return "queue";
    case IST_KIND_LOCK: return "lock";
    default: return "heap";
    }
}

PyObject *segment_info_new(core_state *state, const ist_segment_info *info, int64_t exports) {
    PyObject *result = PyStructSequence_New(state->info_type);
    if (result == NULL)
        return NULL;
    PyObject *values[] = {
        PyLong_FromUnsignedLong(info->index),
        PyLong_FromUnsignedLong(info->generation),
        PyUnicode_FromString(kind_name(info->kind)),
        PyLong_FromUnsignedLongLong(info->size),
        PyLong_FromUnsignedLong(info->owners),
        exports < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(exports),
        PyBool_FromLong(info->frozen),
        PyBool_FromLong(info->readonly),
        PyBool_FromLong(info->published),
        PyLong_FromUnsignedLongLong(info->created_by),
        PyLong_FromUnsignedLong(info->processes),
        info->published ? Py_BuildValue("(II)", info->descriptor, info->descriptor_generation) : Py_NewRef(Py_None),
        PyLong_FromUnsignedLongLong(info->reserved),
    };
    bool complete = true;
    for (Py_ssize_t i = 0; i < (Py_ssize_t)(sizeof values / sizeof *values); i++) {
        complete &= values[i] != NULL;
        PyStructSequence_SetItem(result, i, values[i]); /* steals; the dealloc copes with NULL */
    }
    if (!complete)
        Py_CLEAR(result);
    return result;
}

/* ---- looking inside ---------------------------------------------------------------------------------------------------------------- */

static PyObject *core_stats(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    message_report_leases();
    ist_stats s = {.struct_size = sizeof s};
    int error = ist_stats_read(&s);
    if (error != 0)
        return raise_error(state_of_module(module), error, "isthmus.stats");
    uint64_t orphaned = (uint64_t)block_orphaned();
    typedef unsigned long long ull;
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:L,s:K,s:K,s:K,s:L,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K}", "allocated", (ull)s.allocated,
                         "mapped", (ull)s.mapped, "segments", (ull)s.segments, "owners", (ull)s.owners, "exports",
                         (long long)block_exports(), "leases", (ull)s.leases, "lease_bytes", (ull)s.lease_bytes, "leases_expired",
                         (ull)s.leases_expired, "in_flight", (long long)s.in_flight, "queues", (ull)s.queues, "locks", (ull)s.locks,
                         "leaked", (ull)(s.saturated + orphaned), "saturated", (ull)s.saturated, "orphaned", (ull)orphaned, "misuses",
                         (ull)s.misuses, "retired", (ull)s.retired, "bytes_copied", (ull)s.bytes_copied, "published", (ull)s.published,
                         "processes", (ull)s.processes, "waiting", (ull)s.waiting);
}

static PyObject *core_segments(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    PyObject *list = PyList_New(0);
    uint32_t cursor = 0;
    ist_segment_info room[64];
    for (size_t n; list != NULL && (n = ist_segments(&cursor, room, sizeof room / sizeof *room)) > 0;) {
        for (size_t i = 0; list != NULL && i < n; i++) {
            PyObject *info = segment_info_new(state_of_module(module), &room[i], -1);
            if (info == NULL || PyList_Append(list, info) < 0)
                Py_CLEAR(list);
            Py_XDECREF(info);
        }
    }
    return list;
}

static PyObject *core_sweep(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    size_t leases, processes;
    Py_BEGIN_ALLOW_THREADS
    processes = ist_sweep();
    leases = ist_collect();
    Py_END_ALLOW_THREADS
    message_report_leases();
    return PyErr_Occurred() ? NULL : Py_BuildValue("{s:n,s:n}", "leases", (Py_ssize_t)leases, "processes", (Py_ssize_t)processes);
}

/* A number of bytes; NULL, None: 0. */
static int parse_bytes(PyObject *object, size_t *bytes) {
    *bytes = 0;
    if (object == NULL || object == Py_None)
        return 0;
    PyObject *integer = PyNumber_Index(object);
    if (integer == NULL)
        return -1;
    *bytes = PyLong_AsSize_t(integer);
    Py_DECREF(integer);
    if (*bytes == (size_t)-1 && PyErr_Occurred()) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "heap_size must be a number of bytes of at least 1 MiB, not %R", object);
        return -1;
    }
    return 0;
}

/* Seconds; NULL, None: 0, the default. */
static int parse_seconds(PyObject *object, uint64_t *ns) {
    *ns = 0;
    if (object == NULL || object == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(object);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds > 0 && seconds < 4e9)) {
        PyErr_Format(PyExc_ValueError, "pickle_lease must be a positive number of seconds, not %R", object);
        return -1;
    }
    *ns = (uint64_t)(seconds * 1e9);
    return 0;
}

/* A number of rows between the two; NULL, None: 0, the default. */
static int parse_limit(PyObject *object, const char *name, long least, long most, uint32_t *out) {
    *out = 0;
    if (object == NULL || object == Py_None)
        return 0;
    PyObject *integer = PyNumber_Index(object);
    if (integer == NULL)
        return -1;
    int overflow;
    long n = PyLong_AsLongAndOverflow(integer, &overflow);
    Py_DECREF(integer);
    if (overflow != 0 || n < least || n > most) {
        PyErr_Format(PyExc_ValueError, "%s must be a number from %ld to %ld, not %R", name, least, most, object);
        return -1;
    }
    *out = (uint32_t)n;
    return 0;
}

static PyObject *core_configure(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"heap_size", "pickle_lease", "housekeeper", "max_processes", "max_published"};
    static const signature parameters = {"configure", 5, 0, 0, names};
    PyObject *given[5];
    ist_options options = {.struct_size = sizeof options};
    if (bind_arguments(&parameters, args, nargs, kwnames, given) < 0 || parse_bytes(given[0], &options.heap_size) < 0 ||
        parse_seconds(given[1], &options.lease_ns) < 0 || parse_limit(given[3], "max_processes", 1, 1024, &options.processes) < 0 ||
        parse_limit(given[4], "max_published", 4096, 4194304, &options.published) < 0)
        return NULL;
    int housekeeper = given[2] == NULL || given[2] == Py_None ? 1 : PyObject_IsTrue(given[2]);
    if (housekeeper < 0)
        return NULL;
    if (housekeeper == 0)
        options.flags |= IST_OPTION_NO_HOUSEKEEPER;
    int error = ist_configure(&options);
    if (error == -EBUSY) {
        PyErr_SetString(state_of_module(module)->Error, "isthmus.configure comes too late: the process has made its first segment already");
        return NULL;
    }
    if (error == -EINVAL) {
        PyErr_Format(PyExc_ValueError, "heap_size must be a number of bytes of at least 1 MiB, not %zu",
                     options.heap_size); /* the others fit */
        return NULL;
    }
    if (error != 0)
        return raise_error(state_of_module(module), error, "isthmus.configure");
    Py_RETURN_NONE;
}

/* The package joins the home domain when it is imported, so that what its process starts finds the domain in the environment: else an array
 * that a child sends as its last deed would die with the child's own domain. The text for ISTHMUS_DOMAIN; None where no other process could
 * come anyway, or nothing is to be had now: then the first array says why.
 * It looks after the domain's dead from here on, as it may be all that is left of those that share, and nobody calls anything in it. */
static PyObject *core_join(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    char text[80];
    if (ist_domain_text(text, sizeof text) != 0)
        Py_RETURN_NONE;
    ist_domain_watch();
    return PyUnicode_FromString(text);
}

static PyObject *core_carriers(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) { return PyUnicode_FromString(xid_describe()); }

/* For the package's own transports that are written in Python. */
static PyObject *core_count_copied(PyObject *Py_UNUSED(module), PyObject *nbytes) {
    size_t n = PyLong_AsSize_t(nbytes);
    if (n == (size_t)-1 && PyErr_Occurred())
        return NULL;
    ist_count_copied(n);
    Py_RETURN_NONE;
}

static PyMethodDef core_functions[] = {
    {"_count_copied", core_count_copied, METH_O, NULL},
    {"stats", core_stats, METH_NOARGS,
     PyDoc_STR(
         "stats($module, /)\n--\n\nWhat the process has, as a dict of numbers; each is a snapshot of its own.\n\n"
         "  allocated       bytes of the live segments of the heap\n"
         "  mapped          bytes of memory that the heap occupies\n"
         "  segments        live segments that this process holds: arrays, queues, locks\n"
         "  owners          counted references of them\n"
         "  exports         memoryviews, ndarrays and the like that look at its arrays\n"
         "  leases          segments that pickles under way keep\n"
         "  lease_bytes     their bytes\n"
         "  leases_expired  pickles whose time was up before anybody loaded them, so far\n"
         "  in_flight       arrays on their way to another interpreter, but for those in an isthmus.Queue\n"
         "  queues, locks   how many of the segments are a queue; a lock, semaphore, event, barrier or condition\n"
         "  bytes_copied    bytes of arrays that were copied rather than passed by reference, so far\n"
         "  published       segments that other processes can reach\n"
         "  processes       living processes of its domains, itself included; one that is in two of them counts twice\n"
         "  waiting         its threads that sleep in atomics.wait()\n"
         "  leaked          saturated and orphaned together\n"
         "  saturated       segments whose count went wrong: they stay for ever rather than being freed early\n"
         "  orphaned        owners that interpreters left behind when they ended\n"
         "  misuses         references given up twice, noticed and put back\n"
         "  retired         slots of segments that are used up\n\n"
         "Whichever of allocated, segments, owners, exports, leases and in_flight stays high when work is done is held by somebody.")},
    {"segments", core_segments, METH_NOARGS,
     PyDoc_STR("segments($module, /)\n--\n\nThe live segments that this process holds, as a list of SegmentInfo in no order.\n\n"
               "What only a message in an isthmus.Queue holds isn't among them.")},
    {"sweep", core_sweep, METH_NOARGS,
     PyDoc_STR(
         "sweep($module, /)\n--\n\nStrikes out dead processes, drops pickle leases whose time is up and gives unused memory back to the\n"
         "system, now. A dict of how many: leases, processes (once for each domain that one was in with this process).\n"
         "The housekeeper does so by itself, every two seconds while there are other processes, unless it is turned off: configure().")},
    {"configure", KEYWORDS(core_configure),
     PyDoc_STR(
         "configure($module, /, *, heap_size=None, pickle_lease=None, housekeeper=True, max_processes=None, max_published=None)\n--\n\n"
         "Options of the process, before its first array: the heap's limit in bytes (default 64 GiB of address space), how long a pickle\n"
         "keeps its array in seconds (300), whether the housekeeper thread may run; and of the domain, if this process makes it: how many\n"
         "processes (1,024) and how many segments known to other processes (4,194,304, a power of two) it has room for. isthmus.Error\n"
         "when it is too late.")},
    {"_join", core_join, METH_NOARGS, NULL},
    {"_carriers", core_carriers, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* ---- exec -------------------------------------------------------------------------------------------------------------------------- */

static PyObject *new_error(PyObject *module, const char *name, const char *doc, PyObject *first, PyObject *second) {
    PyObject *bases = second == NULL ? Py_NewRef(first) : PyTuple_Pack(2, first, second);
    if (bases == NULL)
        return NULL;
    char full[64];
    PyOS_snprintf(full, sizeof full, "isthmus.%s", name);
    PyObject *class = PyErr_NewExceptionWithDoc(full, doc, bases, NULL);
    Py_DECREF(bases);
    if (class != NULL && PyModule_AddObjectRef(module, name, class) < 0)
        Py_CLEAR(class);
    return class;
}

static int errors_init(PyObject *module, core_state *state) {
    state->Error = new_error(module, "Error", "What isthmus raises by itself.", PyExc_Exception, NULL);
    if (state->Error == NULL)
        return -1;
    state->SegmentGoneError =
        new_error(module, "SegmentGoneError", "A token or pickle whose segment is gone: its last owner has let go, or the lease ended.",
                  state->Error, PyExc_LookupError);
    state->DetachedError =
        new_error(module, "DetachedError", "Use of a handle that was released, or inherited through fork.", state->Error, PyExc_ValueError);
    state->WorkerError = new_error(module, "WorkerError", "A worker failed; the text has its traceback.", state->Error, PyExc_RuntimeError);
    state->CloneError =
        new_error(module, "CloneError", "What can't be cloned, with the path that leads there; or bytes that aren't a clone.", state->Error,
                  PyExc_TypeError);
    state->LockAbandonedError =
        new_error(module, "LockAbandonedError", "Whoever held the lock died, or ended; raised once to the next that takes it.",
                  state->Error, PyExc_RuntimeError);
    return state->SegmentGoneError == NULL || state->DetachedError == NULL || state->WorkerError == NULL || state->CloneError == NULL ||
                   state->LockAbandonedError == NULL
               ? -1
               : 0;
}

static int info_init(PyObject *module, core_state *state) {
    state->info_type = PyStructSequence_NewType(&info_desc);
    return state->info_type == NULL ? -1 : PyModule_AddType(module, state->info_type);
}

static void hear_of_forks(void) {
    if (ist_at_fork_child(block_fork_child) != 0)
        Py_UNREACHABLE(); /* this library has one caller of it */
}

static int core_exec(PyObject *module) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, hear_of_forks);
    core_state *state = state_of_module(module);
    state->interpreter = PyInterpreterState_GetID(PyInterpreterState_Get());
    if (state->interpreter < 0)
        return -1;
    state->block = block_join();
    if (state->block == NULL)
        return -1;
    if (errors_init(module, state) < 0 || info_init(module, state) < 0 || dtype_init(module, state) < 0 || array_init(module, state) < 0 ||
        transfer_init(module, state) < 0 || queue_init(module, state) < 0 || sync_init(module, state) < 0 ||
        PyModule_AddFunctions(module, core_functions) < 0 || PyModule_AddFunctions(module, create_functions) < 0 ||
        PyModule_AddFunctions(module, asarray_functions) < 0 || PyModule_AddFunctions(module, memmap_functions) < 0 ||
        PyModule_AddFunctions(module, dlpack_functions) < 0 || PyModule_AddFunctions(module, arrow_functions) < 0 ||
        atomics_init(module) < 0 || message_init(module, state) < 0 || pickle_init(module, state) < 0 || clone_init(module, state) < 0 ||
        python_init(module) < 0 || worker_init(module, state) < 0)
        return -1;
    return xid_register(state); /* last: from here on arrays may come in */
}

/* ---- state ------------------------------------------------------------------------------------------------------------------------- */

static int core_traverse(PyObject *module, visitproc visit, void *arg) {
    core_state *state = state_of_module(module);
    Py_VISIT(state->array_type);
    Py_VISIT(state->dtype_type);
    Py_VISIT(state->worker_type);
    Py_VISIT(state->transfer_type);
    for (int i = 0; i < SHARE_KINDS; i++)
        Py_VISIT(state->handle_types[i]);
    Py_VISIT(state->wait_type);
    Py_VISIT(state->info_type);
    Py_VISIT(state->Error);
    Py_VISIT(state->SegmentGoneError);
    Py_VISIT(state->DetachedError);
    Py_VISIT(state->WorkerError);
    Py_VISIT(state->CloneError);
    Py_VISIT(state->LockAbandonedError);
    Py_VISIT(state->rebuild);
    for (int i = 0; i < IST_NUMBERS; i++)
        Py_VISIT(state->dtypes[i]);
    Py_VISIT(state->known);
    Py_VISIT(state->queue_helpers);
    Py_VISIT(state->lock_helpers);
    return clone_traverse(state, visit, arg);
}

static int core_clear(PyObject *module) {
    core_state *state = state_of_module(module);
    clone_fini(state);
    Py_CLEAR(state->known);
    Py_CLEAR(state->queue_helpers);
    Py_CLEAR(state->lock_helpers);
    for (int i = 0; i < IST_NUMBERS; i++)
        Py_CLEAR(state->dtypes[i]);
    Py_CLEAR(state->rebuild);
    Py_CLEAR(state->array_type);
    Py_CLEAR(state->dtype_type);
    Py_CLEAR(state->worker_type);
    Py_CLEAR(state->transfer_type);
    for (int i = 0; i < SHARE_KINDS; i++)
        Py_CLEAR(state->handle_types[i]);
    Py_CLEAR(state->wait_type);
    Py_CLEAR(state->info_type);
    Py_CLEAR(state->Error);
    Py_CLEAR(state->SegmentGoneError);
    Py_CLEAR(state->DetachedError);
    Py_CLEAR(state->WorkerError);
    Py_CLEAR(state->CloneError);
    Py_CLEAR(state->LockAbandonedError);
    return 0;
}

static void core_free(void *module) {
    core_state *state = state_of_module(module);
    core_clear(module);
    block_release(state->block);
    state->block = NULL;
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    {0, NULL},
};

struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "isthmus._core",
    .m_doc = "SharedArray and what goes with it; use it by way of the package isthmus.",
    .m_size = sizeof(core_state),
    .m_methods = NULL,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
