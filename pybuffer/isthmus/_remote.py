"""The pool's end of what travels to a worker that is not in this interpreter: calls there, outcomes back."""

from __future__ import annotations

import builtins
import os
import sys
from typing import Any

from . import _crew
from ._core import WorkerError, _decode, _encode

__all__ = ["encode_call", "main_source", "outcome"]

_CALL = ("function", "args", "kwargs")


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


def encode_call(call: tuple[Any, ...], main_by_value: bool, shared_from: int) -> tuple[bytes, _crew.Arrays]:
    """The message of (function, args, kwargs), and the arrays that travel beside it. ndarrays of shared_from bytes and more do, too."""
    try:
        return _encode(call, _CALL, main_by_value, shared_from, None)
    except Exception as error:
        error.add_note(
            "This is from sending the call to a worker: functions go by name, so they must be importable or defined "
            "at the top level of the script; arguments must be of types that can be cloned (docs/clone.md) or pickled."
        )
        raise


def outcome(reply: bytes | memoryview, arrays: _crew.Arrays) -> tuple[bool, Any]:
    """(True, result) or (False, exception), of what _worker.handle() returned."""
    try:
        done, value = _decode(reply, arrays, None)
        return done, value if done else _error(*value)
    finally:
        # an exception's traceback keeps this frame: it must not keep the arrays
        del reply, arrays


def _error(payload: bytes | None, arrays: _crew.Arrays, name: str, text: str, traceback: str) -> BaseException:
    error: object = None
    if payload is not None:
        try:
            _, error = _decode(payload, arrays, None)
        except Exception:
            pass  # some exceptions can be sent but not received: then as text
    if not isinstance(error, Exception):
        error = WorkerError(f"{name}: {text}" if text else name)
    error.__cause__ = _crew.RemoteTraceback(traceback)
    return error
