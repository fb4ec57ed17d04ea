"""How a call and its outcome travel between interpreters and processes: pickled, with arrays by counted reference.

A payload is bytes, and the arrays that belong to it travel beside them: where an array stands inside the object, the
bytes only have its number. So no lease is involved: whoever carries the arrays owns a reference of each for as long
as the payload exists. Everything else is pickled by value; what that copies of arrays and other buffers is counted in
``isthmus.stats()["bytes_copied"]``.

Between processes ndarrays go beside the bytes, too: each is copied into an array of its own, and what arrives is an
ndarray over that. What a task returns of such a one goes back without a copy.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ._core import Queue, SharedArray, Transfer, _count_copied, array, dtype

__all__ = ["MAIN_NAMES", "Unpickler", "dumps", "read_frame", "write_frame"]

if TYPE_CHECKING:
    Arrays = tuple[SharedArray[Any], ...]

_BY_REFERENCE = (SharedArray, Queue)  # what an interpreter's handle is of, and the message has another of
MAIN_NAMES = ("__main__", "__mp_main__")  # the script, and the script as a worker runs it again
_SHARED_FROM = 1 << 15  # bytes: smaller ndarrays are pickled, which takes less time (one of 64 bytes 1 µs instead of 9; even at 48 KiB)


def dumps(
    obj: object, main_by_value: bool = False, ndarrays_shared: bool = False, lent: Sequence[SharedArray[Any]] = ()
) -> tuple[bytes, Arrays]:
    """Pickles obj; the arrays anywhere in it come as handles of their own, in the order of their numbers.

    main_by_value: what ``__main__`` defines can't be found by its name on the other side. Then cloudpickle is used if
        there is one; otherwise such a function or class raises PicklingError.
    ndarrays_shared: ndarrays are copied into arrays, and arrive as ndarrays over them.
    lent: what arrived as ndarrays with the call that this is the outcome of. It was copied for this call and belongs to nobody else,
        so an ndarray that lies in it, without gaps, is not copied again.
    """
    file = io.BytesIO()
    pickler = (_by_value_pickler() if main_by_value else _Pickler)(file)
    pickler.collected = collected = _Collected(ndarrays_shared, lent)
    pickler.dump(obj)
    return file.getvalue(), tuple(collected.arrays)


class Unpickler(pickle.Unpickler):
    """Reads a payload. Subclasses say by find_global where classes and functions come from."""

    def __init__(self, payload: bytes | BinaryIO, arrays: Arrays) -> None:
        super().__init__(io.BytesIO(payload) if isinstance(payload, bytes) else payload)
        self._arrays = arrays
        self.lent: list[SharedArray[Any]] = []  # what has become an ndarray

    def find_class(self, module: str, name: str) -> Any:
        if module == __name__:
            if name == "_array":
                return self._arrays.__getitem__
            if name == "_ndarray":
                return functools.partial(_as_ndarray, self._arrays, self.lent)  # a method would make a cycle with the unpickler's memo
        return self.find_global(module, name)

    def find_global(self, module: str, name: str) -> Any:
        return super().find_class(module, name)


def _as_ndarray(arrays: Arrays, lent: list[SharedArray[Any]], number: int, transposed: bool) -> Any:
    lent.append(arrays[number])
    found = arrays[number].__array__()
    return found.T if transposed else found


def _lies_in(obj: Any, lent: Sequence[SharedArray[Any]]) -> SharedArray[Any] | None:
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


def write_frame(payload: bytes, arrays: Arrays, head: bytes = b"") -> tuple[bytes, bytes]:
    """What goes to another process after `head`, and its first part: the arrays, pickled, so each under a lease until it is read."""
    pickled = pickle.dumps(arrays, 5) if arrays else _NO_ARRAYS
    return b"".join((head, pickled, payload)), pickled


def read_frame(file: BinaryIO) -> tuple[BinaryIO, Arrays]:
    """Payload and arrays of a frame; reading it ends the leases."""
    return file, pickle.load(file)


_NO_ARRAYS = pickle.dumps((), 5)


def _array(number: int) -> SharedArray[Any]:
    """What stands for an array in a payload."""
    raise pickle.UnpicklingError("this is part of a message to a worker: its arrays are not in the bytes")


def _ndarray(number: int, transposed: bool) -> Any:
    """What stands for an ndarray."""
    return _array(number)


def _is_plain(theirs: Any) -> bool:
    """Whether a numpy dtype arrives as it is: no objects, nobody's own type, no titles or metadata that an array's dtype hasn't."""
    if theirs.kind in "biufc":
        return cast("bool", theirs.num < 256 and theirs.metadata is None)
    if theirs.hasobject or theirs.metadata is not None or (theirs.kind == "V" and theirs.type.__name__ != "void"):
        return False
    try:
        back: Any = dtype(theirs).__numpy_dtype__
    except (TypeError, ValueError):
        return False
    return bool(back == theirs and back.fields == theirs.fields and back.isalignedstruct == theirs.isalignedstruct)


class _Collected:
    """What one pickler puts beside its bytes."""

    def __init__(self, ndarrays_shared: bool, lent: Sequence[SharedArray[Any]] = ()) -> None:
        self.arrays: list[SharedArray[Any]] = []
        self.ndarrays_shared = ndarrays_shared
        self.lent = lent

    def reduce(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _BY_REFERENCE:
            self.arrays.append(obj._handle())  # the message's own: the sender may release its own at once
            return _array, (len(self.arrays) - 1,)
        if kind is Transfer:
            self.arrays.append(obj._take())
            return _array, (len(self.arrays) - 1,)
        if kind.__name__ == "array" and kind.__module__ == "array":
            _count_copied(obj.itemsize * len(obj))
        elif kind.__name__ == "ndarray" and kind.__module__ == "numpy" and self.ndarrays_shared:
            return self._reduce_ndarray(obj)
        return NotImplemented

    def _reduce_ndarray(self, obj: Any) -> Any:
        if obj.nbytes >= _SHARED_FROM and _is_plain(obj.dtype):
            transposed = obj.flags.fnc
            plain = obj.T if transposed else obj
            found = _lies_in(plain, self.lent) if self.lent else None
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
        self.collected = _Collected(False)

    def reducer_override(self, obj: Any) -> Any:
        return self.collected.reduce(obj)


class _NoMainPickler(_Pickler):
    """Refuses what the other side could not find, rather than letting it fail there."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (FunctionType, type)) and obj.__module__ in MAIN_NAMES:
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
            self.collected = _Collected(False)

        def reducer_override(self, obj: Any) -> Any:
            reduced = self.collected.reduce(obj)
            return super().reducer_override(obj) if reduced is NotImplemented else reduced

    _cloud_pickler = CloudPickler
    return CloudPickler
