"""Memory that no interpreter owns.

A SharedArray lives in a heap that belongs to the process. Every interpreter, message and pickle that uses it owns one
counted reference; the last one to let go frees it, whoever that is, in whatever order, from whatever thread.

    import isthmus as ist

    a = ist.zeros((1000, 3))
    with ist.WorkerPool() as pool:  # interpreters of this process, each with a GIL of its own
        pool.submit(fill, a).result()  # a itself, not a copy
    numpy.asarray(a)  # not a copy either

Importing this loads the extension module and nothing else: everything that is written in Python comes at first use.
"""

import os

from ._core import (
    Barrier,
    BoundedSemaphore,
    CloneError,
    Condition,
    DetachedError,
    Error,
    Event,
    Lock,
    LockAbandonedError,
    Queue,
    RLock,
    SegmentGoneError,
    SegmentInfo,
    Semaphore,
    SharedArray,
    Transfer,
    WorkerError,
    array,
    asarray,
    attach,
    buffer,
    clone,
    dtype,
    dumps,
    empty,
    empty_like,
    from_arrow,
    from_dlpack,
    full,
    is_shared,
    loads,
    memmap,
    register_type,
    segments,
    set_pickle_lease,
    stats,
    sweep,
    unpublish,
    zeros,
    zeros_like,
)
from ._core import _join as _join_domain
from ._core import configure as _configure

__version__ = "0.1.0"

_lazy = {
    "BrokenWorkerPool": "pool",
    "Future": "pool",
    "ShutDown": "_queue",
    "WorkerPool": "pool",
    "atomics": "atomics",
    "install_numpy_allocator": "_numpy",
    "numpy_allocator": "_numpy",
    "pickle_by_value": "_pickle",
}

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "BrokenWorkerPool",
    "CloneError",
    "Condition",
    "DetachedError",
    "Error",
    "Event",
    "Future",
    "Lock",
    "LockAbandonedError",
    "Queue",
    "RLock",
    "SegmentGoneError",
    "SegmentInfo",
    "Semaphore",
    "SharedArray",
    "ShutDown",
    "Transfer",
    "WorkerError",
    "WorkerPool",
    "array",
    "asarray",
    "atomics",
    "attach",
    "buffer",
    "clone",
    "configure",
    "dtype",
    "dumps",
    "empty",
    "empty_like",
    "from_arrow",
    "from_dlpack",
    "full",
    "get_cmake_dir",
    "get_include",
    "get_library_dir",
    "install_numpy_allocator",
    "is_shared",
    "loads",
    "memmap",
    "numpy_allocator",
    "pickle_by_value",
    "register_type",
    "segments",
    "set_pickle_lease",
    "stats",
    "sweep",
    "unpublish",
    "zeros",
    "zeros_like",
]


def __getattr__(name):
    if name not in _lazy:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"{__name__}.{_lazy[name]}")
    value = module if _lazy[name] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_lazy})


def _join():
    # What this process starts joins its domain, by whatever way it is started.
    text = _join_domain()
    if text is not None and os.environ.get("ISTHMUS_DOMAIN") != text:
        os.environ["ISTHMUS_DOMAIN"] = text


def configure(*, heap_size=None, pickle_lease=None, housekeeper=True, max_processes=None, max_published=None):
    _configure(
        heap_size=heap_size,
        pickle_lease=pickle_lease,
        housekeeper=housekeeper,
        max_processes=max_processes,
        max_published=max_published,
    )
    _join()  # the domain from before, made without these options, was given up


configure.__doc__ = _configure.__doc__


_join()
os.register_at_fork(after_in_child=_join)


def get_include():
    """The folder to give to a C compiler, for ``#include <isthmus/isthmus.h>``."""
    return f"{__path__[0]}/include"


def get_library_dir():
    """The folder of libisthmus, which has to be the one this package uses: there is one segment table per process."""
    return f"{__path__[0]}/lib"


def get_cmake_dir():
    """The folder for CMake's ``find_package(isthmus CONFIG)``: ``-Disthmus_DIR=…``."""
    return f"{__path__[0]}/lib/cmake/isthmus"
