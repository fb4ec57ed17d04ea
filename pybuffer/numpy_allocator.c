/* numpy_allocator.c: isthmus._numpy_allocator, the only part that is built against numpy: a handler of array data (NEP 49) whose blocks are
 * segments.
 *
 * numpy calls the handler with or without the GIL, and frees from any thread, also after the end of the interpreter that allocated: it is
 * plain C over libisthmus. Which handler is in use is a context variable of numpy's.
 *
 *   a block of ours = the first byte of a segment, of which the ndarray that owns its data owns one counted reference
 *   so: data lives as long as that ndarray or any other owner, whichever is longer; and as long as the ndarray lives nobody is alone
 *
 * The capsule and what it points to are constant and never freed: every ndarray keeps a reference to the capsule it was allocated with.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <isthmus/isthmus.h>
#include <isthmus/segment_inline.h>
#include <stdint.h>
#include <string.h>

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define NPY_TARGET_VERSION NPY_1_22_API_VERSION /* the first with handlers: this runs on every numpy from then on */
#include <numpy/arrayobject.h>

/* ---- the handler: no Python API in here ---------------------------------------------------------------------------------------------- */

static void *allocate(size_t size, uint32_t flags) {
    ist_segment s;
    return size <= PTRDIFF_MAX && ist_segment_create(size, flags, &s) == 0 ? ist_segment_data(s) : NULL;
}

static void *handler_malloc(void *ctx, size_t size) {
    (void)ctx;
    return allocate(size, 0);
}

static void *handler_calloc(void *ctx, size_t count, size_t size) {
    (void)ctx;
    return size != 0 && count > PTRDIFF_MAX / size ? NULL : allocate(count * size, IST_ZERO);
}

/* What numpy gives back: its reference, and the one by which the block was found. Not found is only what a forked child inherited that
 * couldn't be made an owner; it owns nothing of it. */
static void handler_free(void *ctx, void *block, size_t size) {
    (void)ctx, (void)size;
    ist_segment s;
    if (block == NULL || ist_segment_acquire_address(block, &s) != 0)
        return;
    ist_segment_release_inline(s);
    ist_segment_release_inline(s);
}

/* In place if nobody else owns it, else a copy: the others keep what they have. On failure the block is as it was. */
static void *handler_realloc(void *ctx, void *block, size_t size) {
    ist_segment s;
    if (block == NULL)
        return handler_malloc(ctx, size);
    if (ist_segment_acquire_address(block, &s) != 0)
        return NULL;
    ist_segment_release_inline(s); /* numpy's own keeps it */
    if (size <= PTRDIFF_MAX && ist_segment_resize(s, size) == 0)
        return block;
    void *moved = allocate(size, 0);
    if (moved != NULL) {
        const size_t before = ist_segment_size(s);
        memcpy(moved, block, before < size ? before : size);
        ist_segment_release_inline(s);
    }
    return moved;
}

static PyDataMem_Handler handler = {
    .name = "isthmus",
    .version = 1,
    .allocator = {NULL, handler_malloc, handler_calloc, handler_realloc, handler_free},
};

/* ---- the module ------------------------------------------------------------------------------------------------------------------------ */

typedef struct {
    PyObject *capsule;
} module_state;

static module_state *state_of(PyObject *module) { return PyModule_GetState(module); }

static PyObject *set_handler(PyObject *module, PyObject *other) {
    if (other != Py_None && !PyCapsule_IsValid(other, "mem_handler"))
        return PyErr_Format(PyExc_TypeError, "a memory handler of numpy's or None, not %.200s", Py_TYPE(other)->tp_name);
    return PyDataMem_SetHandler(other == Py_None ? state_of(module)->capsule : other);
}

static PyObject *is_set(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    PyObject *current = PyDataMem_GetHandler();
    if (current == NULL)
        return NULL;
    /* not by identity: a reloaded module has another capsule around the same handler */
    const bool ours = PyCapsule_GetPointer(current, "mem_handler") == (void *)&handler;
    Py_DECREF(current);
    return PyErr_Occurred() != NULL ? NULL : PyBool_FromLong(ours);
}

static PyMethodDef functions[] = {
    {"set_handler", set_handler, METH_O,
     PyDoc_STR(
         "set_handler($module, handler, /)\n--\n\nMakes this one (None: ours) the handler of the current context; returns the one before.")},
    {"is_set", is_set, METH_NOARGS, PyDoc_STR("is_set($module, /)\n--\n\nWhether ours is the handler of the current context.")},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module) {
    if (PyArray_ImportNumPyAPI() < 0)
        return -1;
    state_of(module)->capsule = PyCapsule_New(&handler, "mem_handler", NULL);
    return state_of(module)->capsule == NULL ? -1 : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    Py_VISIT(state_of(module)->capsule);
    return 0;
}

static int module_clear(PyObject *module) {
    Py_CLEAR(state_of(module)->capsule);
    return 0;
}

static void module_free(void *module) { module_clear(module); }

/* As numpy itself: not in an interpreter with a GIL of its own. */
static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)(uintptr_t)module_exec},
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "isthmus._numpy_allocator",
    .m_doc = PyDoc_STR("numpy's array data as segments (NEP 49)."),
    .m_size = sizeof(module_state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__numpy_allocator(void);

PyMODINIT_FUNC PyInit__numpy_allocator(void) { return PyModuleDef_Init(&definition); }
