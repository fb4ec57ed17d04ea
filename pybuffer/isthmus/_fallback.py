"""What structured clone has no way for, pickled: fallback="pickle", and what goes to workers.

An array is not part of a pickle: it travels beside the message, and the pickle has its number. So no lease is involved: whoever
carries the message owns a reference. All pickles of a message are made by one pickler and loaded by one unpickler, in the same order,
so what two of its objects share arrives shared.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, cast

from . import _clone
from ._core import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Event,
    Lock,
    Queue,
    RLock,
    Semaphore,
    SharedArray,
    Transfer,
    _count_copied,
    array,
)

__all__ = ["Pickling", "Unpickling", "lies_in"]

_NEVER = 1 << 62
# What an interpreter's handle is of, and the message has another of.
_BY_REFERENCE = (SharedArray, Queue, Lock, RLock, Condition, Semaphore, BoundedSemaphore, Event, Barrier)


class Pickling:
    """Makes the pickles of one message: called with an object, returns the bytes and the arrays, handles and Transfers that belong to them.

    main_by_value: what ``__main__`` defines can't be found by its name on the other side. Then cloudpickle is used if there is one;
        otherwise such a function or class raises PicklingError.
    shared_from: ndarrays of this many bytes and more are copied into arrays, and arrive as ndarrays over them.
    lent: arrays that an ndarray may lie in without being copied, see lies_in().
    """

    def __init__(self, main_by_value: bool = False, shared_from: int = _NEVER, lent: Sequence[SharedArray[Any]] | None = None) -> None:
        self._file = io.BytesIO()
        self._pickler = (_by_value_pickler() if main_by_value else _Pickler)(self._file)
        self._pickler.collected = self._collected = _Collected(shared_from, lent or ())

    def __call__(self, obj: object) -> tuple[Any, ...]:
        self._file.seek(0)
        self._file.truncate()
        before = len(self._collected.arrays)
        self._pickler.dump(obj)
        return self._file.getvalue(), *self._collected.arrays[before:]


class Unpickling:
    """Loads the pickles of one message, in their order. lent: gets the arrays that became ndarrays."""

    def __init__(self, lent: list[SharedArray[Any]] | None) -> None:
        self._file = io.BytesIO()
        self._arrays: list[SharedArray[Any]] = []
        self._unpickler = _Unpickler(self._file)
        self._unpickler.found = {
            "_array": self._arrays.__getitem__,
            "_ndarray": functools.partial(_as_ndarray, self._arrays, [] if lent is None else lent),
        }

    def __call__(self, parts: tuple[Any, ...]) -> Any:
        payload, arrays = parts[0], parts[1:]
        for one in arrays:
            if type(one) not in _BY_REFERENCE:
                raise TypeError(f"a pickle with a {type(one).__name__} beside it, which is no array")
        self._arrays.extend(arrays)
        self._file.seek(0)
        self._file.truncate()
        self._file.write(payload)
        self._file.seek(0)
        return self._unpickler.load()


class _Unpickler(pickle.Unpickler):
    found: dict[str, Any]

    def find_class(self, module: str, name: str) -> Any:
        return self.found[name] if module == __name__ else _clone.find(module, name)


def _as_ndarray(arrays: list[SharedArray[Any]], lent: list[SharedArray[Any]], number: int, transposed: bool) -> Any:
    found: Any = arrays[number]
    try:
        found = found.__array__()
    except ImportError:  # no numpy here: it stays an array
        pass
    else:
        lent.append(arrays[number])
    return found.T if transposed else found


def lies_in(obj: Any, lent: Sequence[SharedArray[Any]]) -> SharedArray[Any] | None:
    """An array of obj's elements in C order, if obj is C-contiguous and lies in one of these."""
    first = obj
    while type(first.base) is type(obj):
        first = first.base
    exporter: Any = first.base.obj if type(first.base) is memoryview else None
    if not obj.flags.c_contiguous or not any(exporter is one for one in lent):
        return None
    start = obj.__array_interface__["data"][0] - first.__array_interface__["data"][0]
    flat = exporter.reshape(-1).view("u1")[start : start + obj.nbytes]
    return cast("SharedArray[Any]", flat.view(obj.dtype).reshape(obj.shape))


def _array(number: int) -> SharedArray[Any]:
    """What stands for an array in a pickle."""
    raise pickle.UnpicklingError("this is part of a message: its arrays are not in the bytes")


def _ndarray(number: int, transposed: bool) -> Any:
    """What stands for an ndarray."""
    return _array(number)


class _Collected:
    """What one pickler puts beside its bytes."""

    def __init__(self, shared_from: int = _NEVER, lent: Sequence[SharedArray[Any]] = ()) -> None:
        self.arrays: list[Any] = []
        self.shared_from = shared_from
        self.lent = lent

    def reduce(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _BY_REFERENCE or kind is Transfer:
            # the message's own: the sender may release its own at once. A Transfer is used up when the message is sent
            self.arrays.append(obj if kind is Transfer else obj._handle())
            return _array, (len(self.arrays) - 1,)
        if kind.__name__ == "array" and kind.__module__ == "array":
            _count_copied(obj.itemsize * len(obj))
        elif kind.__name__ == "ndarray" and kind.__module__ == "numpy" and self.shared_from != _NEVER:
            return self._reduce_ndarray(obj)
        return NotImplemented

    def _reduce_ndarray(self, obj: Any) -> Any:
        if obj.nbytes >= self.shared_from and _clone.is_plain(obj):
            transposed = obj.flags.fnc
            plain = obj.T if transposed else obj
            found = lies_in(plain, self.lent) if self.lent else None
            self.arrays.append(array(plain) if found is None else found)
            return _ndarray, (len(self.arrays) - 1, transposed)
        if not obj.flags.writeable:
            return obj.copy().__reduce_ex__(5)  # what arrives can be written to, whatever its size
        return NotImplemented


def _count_buffer(buffer: pickle.PickleBuffer) -> bool:
    with memoryview(buffer) as view:
        _count_copied(view.nbytes)
    return True  # in-band


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, 5, buffer_callback=_count_buffer)
        self.collected = _Collected()

    def reducer_override(self, obj: Any) -> Any:
        return self.collected.reduce(obj)


class _NoMainPickler(_Pickler):
    """Refuses what the other side could not find, rather than letting it fail there."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (FunctionType, type)) and obj.__module__ in _clone.MAIN_NAMES:
            raise pickle.PicklingError(
                f"{obj.__qualname__} is defined in an interactive session, a notebook, -c or a package's __main__.py, "
                "where a worker can't find it: move it to a module, or install cloudpickle "
                "(pip install isthmus[notebook])"
            )
        return super().reducer_override(obj)


_cloud_pickler: type | None = None


def _by_value_pickler() -> Callable[[io.BytesIO], Any]:
    global _cloud_pickler
    if _cloud_pickler is not None:
        return _cloud_pickler
    try:
        import cloudpickle  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return _NoMainPickler

    class CloudPickler(cloudpickle.Pickler):  # type: ignore[misc, unused-ignore]
        def __init__(self, file: io.BytesIO) -> None:
            super().__init__(file, 5, buffer_callback=_count_buffer)
            self.collected = _Collected()

        def reducer_override(self, obj: Any) -> Any:
            reduced = self.collected.reduce(obj)
            return super().reducer_override(obj) if reduced is NotImplemented else reduced

    _cloud_pickler = CloudPickler
    return CloudPickler
