"""Workers that are interpreters of this process, each with a GIL of its own. Their other end is _worker.py."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from . import _crew, _remote
from ._core import _Interpreter

__all__ = ["InterpreterKind"]

_log = logging.getLogger("isthmus")


class InterpreterEngine(_crew.Engine):
    def __init__(self, name: str, setup: str) -> None:
        self.name = name
        self._setup = setup
        self._interpreter: _Interpreter | None = None

    def start(self) -> None:
        self._interpreter = _Interpreter(self._setup)

    def call(self, payload: bytes, arrays: _crew.Arrays) -> tuple[bool, Any]:
        assert self._interpreter is not None
        try:
            return _remote.outcome(*self._interpreter.call(payload, arrays))
        except BaseException as error:
            return False, error
        finally:
            del payload, arrays  # an exception's traceback keeps this frame: it must not keep the arrays

    def terminate(self) -> None:
        interpreter = self._interpreter  # not there yet: then the thread will see that it isn't wanted
        if interpreter is not None:
            interpreter.terminate()

    def close(self) -> None:
        interpreter, self._interpreter = self._interpreter, None
        if interpreter is not None and interpreter.close() == "parked":
            _log.warning("the worker interpreter %s was left behind: a thread that a task started in it is still running", self.name)


class InterpreterKind(_crew.Kind):
    noun = "worker interpreter"

    def __init__(self) -> None:
        self._main = _remote.main_source()
        if sys.version_info < (3, 13):
            # 3.12 aborts at exit if another interpreter than the main one was the first to import these, or to call these
            import asyncio  # noqa: F401
            import hashlib  # noqa: F401
            import pickle
            from io import BytesIO

            pickle.Pickler(BytesIO(), 5, buffer_callback=None)
            pickle.Unpickler(BytesIO())

    def pack(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, _crew.Arrays]:
        return _remote.encode_call((function, args, kwargs), self._main is None, 0)

    def engine(self, name: str) -> InterpreterEngine:
        """The new worker first gets the same search path and arguments, and is told where to find the script."""
        path = [os.fspath(entry) for entry in sys.path if isinstance(entry, (str, os.PathLike))]
        return InterpreterEngine(
            name,
            f"import sys\nsys.path[:] = {path!a}\nsys.argv[:] = {[str(arg) for arg in sys.argv]!a}\n"
            f"import isthmus._worker\nisthmus._worker.start({self._main!a})\n",
        )

    def stop(self, engines: Sequence[InterpreterEngine]) -> None:
        for engine in engines:
            engine.terminate()
