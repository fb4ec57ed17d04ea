"""numpy's array data as segments: what switches it on and off. The handler itself is _numpy_allocator, built where numpy's headers are."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

__all__ = ["as_submitted", "install_numpy_allocator", "is_installed", "numpy_allocator"]


class numpy_allocator:
    """``with isthmus.numpy_allocator():`` what numpy allocates inside for an array's data is a segment.

    ``isthmus.asarray(x, copy=False)`` of such an ndarray, or of whatever is a view of one, is the same memory at no cost. The
    memory lives as long as the ndarray or any SharedArray over it, whichever is longer, and the ndarray counts as an owner: freeze()
    raises BufferError while it lives. ndarrays made inside stay what they are when the block is left.

    Holds for the code of this thread, or this asyncio task, and for the calls submitted from it to a WorkerPool of threads or
    processes; it may be nested. Any thread may let such an ndarray go.
    Errors: ImportError, which says what is missing; MemoryError of numpy's where the heap has no room.
    """

    __slots__ = ("_before",)

    def __init__(self) -> None:
        _handler()
        self._before: list[object] = []

    def __enter__(self) -> None:
        self._before.append(_handler().set_handler(None))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        _handler().set_handler(self._before.pop())


def install_numpy_allocator() -> None:
    """From now on what numpy allocates here for an array's data is a segment, as inside ``with isthmus.numpy_allocator():``.

    "Here" is this thread, or this asyncio task: another thread calls it as well. Errors: ImportError, which says what is missing.
    """
    _handler().set_handler(None)


def is_installed() -> bool:
    """Whether the code that asks runs under the allocator. Imports nothing that isn't there."""
    handler = sys.modules.get(f"{__package__}._numpy_allocator")
    return handler is not None and bool(handler.is_set())


@contextlib.contextmanager
def as_submitted(installed: bool) -> Iterator[None]:
    """In a worker, around a call: under the allocator if whoever submitted it was."""
    if installed and not is_installed():
        with numpy_allocator():
            yield
    else:
        yield


def _handler() -> Any:
    handler = sys.modules.get(f"{__package__}._numpy_allocator")
    if handler is not None:
        return handler
    try:
        import numpy  # first, so that it is known what it is that can't be imported
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise ImportError(
            "isthmus.numpy_allocator() needs numpy, which is not installed: pip install isthmus[numpy]", name="numpy"
        ) from None
    except ImportError as error:
        from . import _refused

        raise _refused.explain(error) or error from None
    try:
        return importlib.import_module("._numpy_allocator", __package__)
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}._numpy_allocator":
            raise
        raise ImportError(
            "isthmus.numpy_allocator() needs the module isthmus._numpy_allocator, which this isthmus was built without, as numpy's "
            f"headers were missing then: install numpy {numpy.__version__} first, then build isthmus again",
            name=error.name,
        ) from None
