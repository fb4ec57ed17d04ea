from . import atomics as atomics
from ._core import Barrier as Barrier
from ._core import BoundedSemaphore as BoundedSemaphore
from ._core import CloneError as CloneError
from ._core import Condition as Condition
from ._core import DetachedError as DetachedError
from ._core import Error as Error
from ._core import Event as Event
from ._core import Lock as Lock
from ._core import LockAbandonedError as LockAbandonedError
from ._core import Queue as Queue
from ._core import RLock as RLock
from ._core import SegmentGoneError as SegmentGoneError
from ._core import SegmentInfo as SegmentInfo
from ._core import Semaphore as Semaphore
from ._core import SharedArray as SharedArray
from ._core import Transfer as Transfer
from ._core import WorkerError as WorkerError
from ._core import array as array
from ._core import asarray as asarray
from ._core import attach as attach
from ._core import buffer as buffer
from ._core import clone as clone
from ._core import configure as configure
from ._core import dtype as dtype
from ._core import dumps as dumps
from ._core import empty as empty
from ._core import empty_like as empty_like
from ._core import from_arrow as from_arrow
from ._core import from_dlpack as from_dlpack
from ._core import full as full
from ._core import is_shared as is_shared
from ._core import loads as loads
from ._core import memmap as memmap
from ._core import register_type as register_type
from ._core import segments as segments
from ._core import set_pickle_lease as set_pickle_lease
from ._core import stats as stats
from ._core import sweep as sweep
from ._core import unpublish as unpublish
from ._core import zeros as zeros
from ._core import zeros_like as zeros_like
from ._numpy import install_numpy_allocator as install_numpy_allocator
from ._numpy import numpy_allocator as numpy_allocator
from ._pickle import pickle_by_value as pickle_by_value
from ._queue import ShutDown as ShutDown
from .pool import BrokenWorkerPool as BrokenWorkerPool
from .pool import Future as Future
from .pool import WorkerPool as WorkerPool

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

__version__: str

def get_include() -> str: ...
def get_library_dir() -> str: ...
def get_cmake_dir() -> str: ...
