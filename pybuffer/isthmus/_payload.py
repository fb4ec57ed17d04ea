"""How a call and its outcome travel between the interpreters of one process: pickled, with arrays by counted reference.

A payload is bytes, and the arrays that belong to it travel beside them: where an array stands inside the object, the
bytes only have its number. So no lease is involved: whoever carries the arrays owns a reference of each for as long
as the payload exists. Everything else is pickled by value; what that copies of arrays and other buffers is counted in
``isthmus.stats()["bytes_copied"]``.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ._core import SharedArray, _count_copied

__all__ = ["MAIN_NAMES", "Unpickler", "dumps"]

if TYPE_CHECKING:
    Arrays = tuple[SharedArray[Any], ...]

MAIN_NAMES = ("__main__", "__mp_main__")  # the script, and the script as a worker runs it again


def dumps(obj: object, main_by_value: bool = False) -> tuple[bytes, Arrays]:
    """Pickles obj; the arrays anywhere in it come as handles of their own, in the order of their numbers.

    main_by_value: what ``__main__`` defines can't be found by its name on the other side. Then cloudpickle is used if
        there is one; otherwise such a function or class raises PicklingError.
    """
    file = io.BytesIO()
    pickler = _by_value_pickler()(file) if main_by_value else _Pickler(file)
    pickler.dump(obj)
    return file.getvalue(), tuple(pickler.arrays)


class Unpickler(pickle.Unpickler):
    """Reads a payload. Subclasses say by find_global where classes and functions come from."""

    def __init__(self, payload: bytes, arrays: Arrays) -> None:
        super().__init__(io.BytesIO(payload))
        self._arrays = arrays

    def find_class(self, module: str, name: str) -> Any:
        if module == __name__ and name == "_array":
            return self._arrays.__getitem__
        return self.find_global(module, name)

    def find_global(self, module: str, name: str) -> Any:
        return super().find_class(module, name)


def _array(number: int) -> SharedArray[Any]:
    """What stands for an array in a payload."""
    raise pickle.UnpicklingError("this is part of a message to a worker: its arrays are not in the bytes")


def _reduce(arrays: list[SharedArray[Any]], obj: Any) -> Any:
    kind = type(obj)
    if kind is SharedArray:
        arrays.append(obj[...])  # the message's own handle: the sender may release its own at once
        return _array, (len(arrays) - 1,)
    if kind.__name__ == "array" and kind.__module__ == "array":
        _count_copied(obj.itemsize * len(obj))
    return NotImplemented


def _count_buffer(buffer: pickle.PickleBuffer) -> bool:
    with memoryview(buffer) as view:
        _count_copied(view.nbytes)
    return True  # in-band


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, 5, buffer_callback=_count_buffer)
        self.arrays: list[SharedArray[Any]] = []

    def reducer_override(self, obj: Any) -> Any:
        return _reduce(self.arrays, obj)


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
            self.arrays: list[SharedArray[Any]] = []

        def reducer_override(self, obj: Any) -> Any:
            reduced = _reduce(self.arrays, obj)
            return super().reducer_override(obj) if reduced is NotImplemented else reduced

    _cloud_pickler = CloudPickler
    return CloudPickler
