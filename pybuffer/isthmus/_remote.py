"""The pool's end of what travels to a worker that is not in this interpreter: calls there, outcomes back."""

from __future__ import annotations

import builtins
import os
import sys
from typing import Any, BinaryIO

from . import _crew, _payload
from ._core import WorkerError

__all__ = ["dumps_call", "main_source", "outcome"]


def main_source() -> tuple[str, str] | None:
    """Where a worker can find what is ``__main__`` here; None if it can't be run again."""
    if hasattr(builtins, "__IPYTHON__"):
        return None
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        # A package's __main__.py has no guard against being imported
        return None if name.rpartition(".")[2] == "__main__" else ("name", name)
    path = getattr(main, "__file__", None)
    return ("path", os.path.abspath(path)) if path is not None and os.path.exists(path) else None


def dumps_call(call: tuple[Any, ...], main_by_value: bool, ndarrays_shared: bool = False) -> tuple[bytes, _payload.Arrays]:
    try:
        return _payload.dumps(call, main_by_value, ndarrays_shared)
    except Exception as error:
        error.add_note(
            "This is from pickling the call for a worker: functions go by name, so they must be importable or defined "
            "at the top level of the script; arguments must be picklable."
        )
        raise


def outcome(reply: bytes | BinaryIO, arrays: _payload.Arrays) -> tuple[bool, Any]:
    """(True, result) or (False, exception), of what _worker.handle() returned."""
    try:
        done, value = _Unpickler(reply, arrays).load()
        return done, value if done else _error(value, arrays)
    finally:
        # an exception's traceback keeps this frame: it must not keep the arrays
        del reply, arrays


def _error(failure: tuple[bytes | None, str, str, str], arrays: _payload.Arrays) -> BaseException:
    pickled, name, message, traceback = failure
    error: object = None
    if pickled is not None:
        try:
            error = _Unpickler(pickled, arrays).load()
        except Exception:
            pass  # many exception classes can be pickled but not unpickled: then as text
    if not isinstance(error, Exception):
        error = WorkerError(f"{name}: {message}" if message else name)
    error.__cause__ = _crew.RemoteTraceback(traceback)
    return error


class _Unpickler(_payload.Unpickler):
    def find_global(self, module: str, name: str) -> Any:
        if module == "__mp_main__" and module not in sys.modules:
            module = "__main__"  # the script's own name here
        return super().find_global(module, name)
