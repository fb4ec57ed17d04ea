/* interp.c: what the extension knows of each interpreter: one block with the list of its root owners.
 *
 * Why: at the end of an interpreter one leaked reference keeps an array, its type and its module alive, so that neither tp_dealloc nor
 * m_free ever runs; the segment would stay for ever. A capsule in PyInterpreterState_GetDict() is destroyed all the same, late, with a
 * valid thread state. Its destructor walks the list and lets go of what is left: the *sweep*. It isn't the last thing to happen (at-fork
 * callables, the last collection, sys and builtins come after it), so a swept owner's tp_dealloc may still run; it finds nothing to do.
 *
 * Relies on: array_detach (array.c) ending a handle without running Python code; the GIL, or the shards' locks when there is none.
 *
 * Invariants (README.md, I1 to I5)
 *   holders == 1 while the capsule lives + module states of this interpreter + roots in the lists
 *   root->block != NULL  <=>  root is in exactly one list of that block
 *   closed  =>  the sweep has run: roots still in the lists have exports or pins and are released; none is added any more
 *   holders == 0  <=>  nobody uses the block, its lists are empty and exports == 0; the next interpreter may claim it
 *   A block is joined, never replaced, while its interpreter lives: a module imported a second time shares it.
 *   Blocks are pushed on `blocks` and never leave it, so that reading the statistics takes no lock (nor finds one taken after a fork).
 */
#include "debug.h"
#include "shareable.h"

#include <isthmus/lock.h>

#include <stdlib.h>

#define BLOCK_KEY "isthmus._core.block.1" /* in the interpreter's dict, and the capsule's name; the number changes with struct ist_block */

#ifdef Py_GIL_DISABLED
#  define SHARDS 16
#else
#  define SHARDS 1
#endif

struct shard {
#ifdef Py_GIL_DISABLED
    PyMutex lock; /* guards head and the links of every root in the list; held for plain C only */
#endif
    SharedArrayObject *head;
};

struct ist_block {
    struct ist_block_counts counts; /* first: block_count_export casts */
    _Atomic(int64_t) roots; /* in the lists */
    _Atomic(uint32_t) holders;
    _Atomic(bool) closed;
    uint32_t holder; /* of locks: lock.h; 0: none was to be had. Written by who claims the block */
    _Atomic(PyInterpreterState *) interpreter; /* whose it is; compared only */
    ist_block *next; /* in `blocks`; written once, before the block is pushed */
    struct shard shards[SHARDS];
    struct handles {
#ifdef Py_GIL_DISABLED
        PyMutex lock;
#endif
        SharedHandle *head;
    } handles; /* what isn't an array */
};

static _Atomic(ist_block *) blocks; /* every block there ever was */

/* ---- counts: written by the threads of one interpreter, so without a GIL they must be one operation and with one they needn't ------ */

static void add_roots(ist_block *block, int delta) {
#ifdef Py_GIL_DISABLED
    atomic_fetch_add_explicit(&block->roots, delta, memory_order_relaxed); /* relaxed: a statistic */
#else
    int64_t roots = atomic_load_explicit(&block->roots, memory_order_relaxed); /* relaxed: only this interpreter writes it */
    atomic_store_explicit(&block->roots, roots + delta, memory_order_relaxed);
#endif
}

static void add_holder(ist_block *block) {
#ifdef Py_GIL_DISABLED
    atomic_fetch_add_explicit(&block->holders, 1, memory_order_relaxed); /* relaxed: the caller's own reference keeps the block */
#else
    uint32_t holders = atomic_load_explicit(&block->holders, memory_order_relaxed); /* relaxed: as above; a claim only writes at 0 */
    atomic_store_explicit(&block->holders, holders + 1, memory_order_relaxed);
#endif
}

void block_release(ist_block *block) {
    if (block == NULL)
        return;
    /* release: pairs with the acquire in block_claim; whoever claims the block finds its lists and counters as we left them */
#ifdef Py_GIL_DISABLED
    atomic_fetch_sub_explicit(&block->holders, 1, memory_order_release);
#else
    uint32_t holders = atomic_load_explicit(&block->holders, memory_order_relaxed);
    atomic_store_explicit(&block->holders, holders - 1, memory_order_release);
#endif
}

/* ---- the process's blocks ---------------------------------------------------------------------------------------------------------- */

/* A block that nobody used, with one holder: the caller. NULL: no memory. */
static ist_block *block_claim(void) {
    /* acquire: pairs with the release of the push below; the new block's fields are initialised */
    for (ist_block *block = atomic_load_explicit(&blocks, memory_order_acquire); block != NULL; block = block->next) {
        uint32_t nobody = 0;
        /* acquire: pairs with the release in block_release; relaxed on failure: the block is somebody's, nothing of it is read */
        if (atomic_compare_exchange_strong_explicit(&block->holders, &nobody, 1, memory_order_acquire, memory_order_relaxed)) {
            atomic_store_explicit(&block->closed, false, memory_order_relaxed); /* relaxed: read with roots == 0, which says enough */
            return block;
        }
    }
    ist_block *block = calloc(1, sizeof *block);
    if (block == NULL)
        return NULL;
    atomic_store_explicit(&block->holders, 1, memory_order_relaxed); /* relaxed: not published yet */
    block->next = atomic_load_explicit(&blocks, memory_order_relaxed); /* relaxed: only compared; the push below orders */
    /* release: pairs with the acquire loads of the list's readers; acquire, so that what we push stands on what others pushed */
    while (!atomic_compare_exchange_weak_explicit(&blocks, &block->next, block, memory_order_acq_rel, memory_order_relaxed))
        ;
    return block;
}

int64_t block_exports(void) {
    int64_t exports = 0;
    /* acquire: pairs with the push's release; the counters are statistics, so relaxed */
    for (ist_block *block = atomic_load_explicit(&blocks, memory_order_acquire); block != NULL; block = block->next)
        exports += atomic_load_explicit(&block->counts.exports, memory_order_relaxed);
    return exports;
}

int64_t block_orphaned(void) {
    int64_t orphaned = 0;
    /* acquire: pairs with the push's release; the rest are statistics, so relaxed */
    for (ist_block *block = atomic_load_explicit(&blocks, memory_order_acquire); block != NULL; block = block->next) {
        if (atomic_load_explicit(&block->closed, memory_order_relaxed))
            orphaned += atomic_load_explicit(&block->roots, memory_order_relaxed);
    }
    return orphaned;
}

/* ---- the list of root owners ------------------------------------------------------------------------------------------------------- */

static struct shard *shard_of(ist_block *block, const SharedArrayObject *root) {
#if SHARDS > 1
    uintptr_t address = (uintptr_t)root;
    return &block->shards[(address >> 5 ^ address >> 12) % SHARDS]; /* neighbours of a size class land in different shards */
#else
    (void)root;
    return &block->shards[0];
#endif
}

static void shard_lock(struct shard *shard) {
#ifdef Py_GIL_DISABLED
    PyMutex_Lock(&shard->lock);
#else
    (void)shard;
#endif
}

static void shard_unlock(struct shard *shard) {
#ifdef Py_GIL_DISABLED
    PyMutex_Unlock(&shard->lock);
#else
    (void)shard;
#endif
}

/* Under the shard's lock. The holder that the root was stays with the caller. */
static void shard_unlink(struct shard *shard, SharedArrayObject *root) {
    if (root->previous != NULL)
        root->previous->next = root->next;
    else
        shard->head = root->next;
    if (root->next != NULL)
        root->next->previous = root->previous;
    root->previous = root->next = NULL;
    __atomic_store_n(&root->block, NULL, __ATOMIC_RELAXED); /* relaxed: block_remove looks again under the lock */
}

static int raise_closed(void) {
    PyErr_SetString(PyExc_RuntimeError, "this interpreter is being ended: it can't hold shared arrays, queues or locks any more");
    return -1;
}

int block_add(ist_block *block, SharedArrayObject *root) {
    struct shard *shard = shard_of(block, root);
    shard_lock(shard);
    /* relaxed: whoever closes the block is this thread, holds the GIL, or leaves what it holds to us */
    bool closed = atomic_load_explicit(&block->closed, memory_order_relaxed);
    if (!closed) {
        root->previous = NULL;
        root->next = shard->head;
        if (shard->head != NULL)
            shard->head->previous = root;
        shard->head = root;
        root->block = block;
        add_holder(block);
        add_roots(block, 1);
    }
    shard_unlock(shard);
    if (!closed)
        debug_made(root);
    return closed ? raise_closed() : 0;
}

void block_remove(SharedArrayObject *root) {
    /* relaxed: a block's memory is never given back, and whether the root is still in it is decided under the lock */
    ist_block *block = __atomic_load_n(&root->block, __ATOMIC_RELAXED);
    if (block == NULL)
        return;
    struct shard *shard = shard_of(block, root);
    shard_lock(shard);
    bool here = __atomic_load_n(&root->block, __ATOMIC_RELAXED) == block; /* relaxed: the lock orders it */
    if (here)
        shard_unlink(shard, root);
    shard_unlock(shard);
    if (here) {
        debug_gone(root);
        add_roots(block, -1);
        block_release(block);
    }
}

static void handles_lock(ist_block *block) {
#ifdef Py_GIL_DISABLED
    PyMutex_Lock(&block->handles.lock);
#else
    (void)block;
#endif
}

static void handles_unlock(ist_block *block) {
#ifdef Py_GIL_DISABLED
    PyMutex_Unlock(&block->handles.lock);
#else
    (void)block;
#endif
}

int block_add_handle(ist_block *block, SharedHandle *h) {
    handles_lock(block);
    /* relaxed: as in block_add */
    bool closed = atomic_load_explicit(&block->closed, memory_order_relaxed);
    if (!closed) {
        h->previous = NULL;
        h->next = block->handles.head;
        if (h->next != NULL)
            h->next->previous = h;
        block->handles.head = h;
        h->block = block;
        add_holder(block);
        add_roots(block, 1);
    }
    handles_unlock(block);
    if (!closed)
        debug_made(h);
    return closed ? raise_closed() : 0;
}

void block_remove_handle(SharedHandle *h) {
    /* relaxed, both: as in block_remove */
    ist_block *block = __atomic_load_n(&h->block, __ATOMIC_RELAXED);
    if (block == NULL)
        return;
    handles_lock(block);
    bool here = __atomic_load_n(&h->block, __ATOMIC_RELAXED) == block;
    if (here) {
        if (h->previous != NULL)
            h->previous->next = h->next;
        else
            block->handles.head = h->next;
        if (h->next != NULL)
            h->next->previous = h->previous;
        h->previous = h->next = NULL;
        __atomic_store_n(&h->block, NULL, __ATOMIC_RELAXED);
    }
    handles_unlock(block);
    if (here) {
        debug_gone(h);
        add_roots(block, -1);
        block_release(block);
    }
}

/* Lets go of every root of one shard, one at a time from the head. Roots with an export or a pin stay in the list, behind `kept`: their
 * handle ends now, their segment reference goes with the last export (which takes them out of the list).
 * No lock: no other thread of this interpreter runs. Nothing here runs Python code or makes roots. */
static void shard_sweep(ist_block *block, struct shard *shard) {
    SharedArrayObject *kept = NULL;
    for (;;) {
        SharedArrayObject *root = kept != NULL ? kept->next : shard->head;
        if (root == NULL)
            return;
        if (root_is_idle(root)) {
            shard_unlink(shard, root); /* first, so that array_detach finds it out of the block */
            array_detach(root);
            add_roots(block, -1);
            block_release(block); /* never the last holder: the caller is one */
        } else {
            array_release(root);
            kept = root;
        }
    }
}

/* As the roots: those with a call inside of them keep their reference, and stay. */
static void handles_sweep(ist_block *block) {
    SharedHandle *next;
    for (SharedHandle *h = block->handles.head; h != NULL; h = next) {
        next = h->next;
        handle_release(h);
    }
}

/* What is left at the end of an interpreter, if anybody wants to know. */
static void block_report(ist_block *block) {
    const int64_t id = PyInterpreterState_GetID(PyInterpreterState_Get());
    bool first = true;
    for (int i = 0; i < SHARDS; i++)
        for (SharedArrayObject *root = block->shards[i].head; root != NULL; root = root->next)
            if (root->segment.slot != NULL && root->epoch == ist_epoch()) {
                debug_report(root, "SharedArray", root->segment, id, first);
                first = false;
            }
    for (SharedHandle *h = block->handles.head; h != NULL; h = h->next)
        if (h->own != NULL && h->epoch == ist_epoch()) {
            debug_report(h, shareables[h->kind].name, h->segment, id, first);
            first = false;
        }
}

uint32_t block_holder(const ist_block *block) { return block->holder; }

/* The locks that this interpreter has are abandoned. */
static void block_end_holder(ist_block *block) {
    const uint32_t holder = block->holder;
    block->holder = 0;
    ist_holder_end(holder);
}

static void block_sweep(ist_block *block) {
    atomic_store_explicit(&block->closed, true, memory_order_relaxed); /* relaxed: the GIL orders it, or no other thread is left */
    if (debug_is_on())
        block_report(block);
    for (int i = 0; i < SHARDS; i++)
        shard_sweep(block, &block->shards[i]);
    handles_sweep(block);
    block_end_holder(block);
}

/* ---- fork --------------------------------------------------------------------------------------------------------------------------- */

/* The other interpreters' threads aren't here, and may have been anywhere: their lists are only walked forward, in which each step of theirs
 * leaves them whole. What a root of theirs owned is given up once; its objects are never used again. */
static void shard_disown(struct shard *shard) {
    for (SharedArrayObject *root = shard->head; root != NULL; root = root->next) {
        ist_segment segment = root->segment;
        root->segment.slot = NULL;
        if (segment.slot != NULL && root->epoch == ist_epoch())
            ist_segment_release_inline(segment);
        root->epoch = 0;
    }
}

static void handles_disown(ist_block *block) {
    for (SharedHandle *h = block->handles.head; h != NULL; h = h->next) {
        handle_drop(h);
        h->epoch = 0;
    }
    block->handles.head = NULL;
}

static void block_reset(ist_block *block) {
    for (int i = 0; i < SHARDS; i++)
        block->shards[i].head = NULL;
    atomic_store_explicit(&block->roots, 0, memory_order_relaxed); /* relaxed: the child has one thread */
    atomic_store_explicit(&block->counts.exports, 0, memory_order_relaxed);
}

/* Only the forking interpreter goes on in the child. Without one (a fork by C code) nobody knows whose the child is: then it keeps all. */
void block_fork_child(void) {
    PyThreadState *thread = _PyThreadState_UncheckedGet();
    if (thread == NULL)
        return;
    PyInterpreterState *here = PyThreadState_GetInterpreter(thread);
    for (ist_block *block = atomic_load_explicit(&blocks, memory_order_acquire); block != NULL; block = block->next) {
        /* relaxed: the child has one thread */
        if (atomic_load_explicit(&block->holders, memory_order_relaxed) == 0 ||
            atomic_load_explicit(&block->interpreter, memory_order_relaxed) == here)
            continue;
        for (int i = 0; i < SHARDS; i++)
            shard_disown(&block->shards[i]);
        handles_disown(block);
        block_reset(block);
    }
}

/* ---- joining ------------------------------------------------------------------------------------------------------------------------ */

/* Runs at the end of the interpreter, or of a capsule that lost the race to be the first. */
static void block_capsule_destroy(PyObject *capsule) {
    ist_block *block = PyCapsule_GetPointer(capsule, BLOCK_KEY);
    if (block == NULL) {
        PyErr_Clear();
        return;
    }
    block_sweep(block);
    block_release(block);
}

/* The interpreter's block as a borrowed pointer, NULL without an exception if it has none, NULL with one if something is wrong. */
static ist_block *block_find(PyObject *dict) {
    PyObject *capsule = PyDict_GetItemString(dict, BLOCK_KEY); /* borrowed, and kept by the dict until the interpreter ends */
    if (capsule == NULL)
        return NULL;
    return PyCapsule_GetPointer(capsule, BLOCK_KEY);
}

/* Puts a capsule with a new block under the key, unless another thread was faster. */
static int block_make(PyObject *dict) {
    ist_block *block = block_claim();
    if (block == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (ist_holder_begin(&block->holder) != 0)
        block->holder = 0;
    /* relaxed: read by the child of a fork, which has one thread */
    atomic_store_explicit(&block->interpreter, PyInterpreterState_Get(), memory_order_relaxed);
    PyObject *capsule = PyCapsule_New(block, BLOCK_KEY, block_capsule_destroy);
    if (capsule == NULL) {
        block_end_holder(block);
        block_release(block);
        return -1;
    }
    PyObject *key = PyUnicode_InternFromString(BLOCK_KEY);
    PyObject *winner = key != NULL ? PyDict_SetDefault(dict, key, capsule) : NULL; /* borrowed */
    Py_XDECREF(key);
    Py_DECREF(capsule);
    return winner != NULL ? 0 : -1;
}

ist_block *block_join(void) {
    PyObject *dict = PyInterpreterState_GetDict(PyInterpreterState_Get()); /* borrowed */
    if (dict == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "isthmus: this interpreter has no dict for extensions");
        return NULL;
    }
    ist_block *block = block_find(dict);
    if (block == NULL) {
        if (PyErr_Occurred() || block_make(dict) < 0)
            return NULL;
        block = block_find(dict);
        if (block == NULL)
            return NULL;
    }
    add_holder(block);
    return block;
}

void block_sweep_current(void) {
    PyObject *dict = PyInterpreterState_GetDict(PyInterpreterState_Get()); /* borrowed */
    ist_block *block = dict != NULL ? block_find(dict) : NULL;
    if (block == NULL)
        PyErr_Clear();
    else
#ifdef Py_GIL_DISABLED
        atomic_store_explicit(&block->closed, true, memory_order_relaxed); /* its other threads run: nothing can be taken from them */
#else
        block_sweep(block);
#endif
}

/* ---- the module --------------------------------------------------------------------------------------------------------------------- */

PyObject *module_of_interpreter(void) {
    PyObject *name = PyUnicode_FromString("isthmus._core"); /* not interned: that would be made and dropped on every receive */
    if (name == NULL)
        return NULL;
    PyObject *module = PyImport_GetModule(name); /* the short way: it is in sys.modules */
    if (module == NULL && !PyErr_Occurred())
        module = PyImport_Import(name);
    Py_DECREF(name);
    if (module != NULL && (!PyModule_Check(module) || PyModule_GetDef(module) != &core_module)) {
        Py_DECREF(module);
        PyErr_SetString(PyExc_ImportError, "sys.modules['isthmus._core'] isn't isthmus's own module");
        return NULL;
    }
    return module;
}

core_state *state_of_interpreter(void) {
    PyObject *module = module_of_interpreter();
    if (module == NULL)
        return NULL;
    core_state *state = state_of_module(module);
    Py_DECREF(module); /* sys.modules holds it */
    return state;
}
