"""Workers that are threads of this interpreter: for code that is in C most of the time, or waits. Nothing is cloned or pickled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from . import _crew, _numpy
from ._core import Transfer, WorkerError

__all__ = ["ThreadKind"]

_AGAIN = 0.1  # seconds between two attempts to end what a thread is doing

_Call = tuple[bool, Callable[..., Any], tuple[Any, ...], dict[str, Any]]  # whether under numpy_allocator(), and what to call


class ThreadEngine(_crew.Engine):
    """`lock` guards busy and interrupted: a SystemExit is raised in the thread while it is busy with a task, and at no other time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.busy = False
        self.interrupted = False
        self.over = _crew.Gate()
        self.ident = 0

    def start(self) -> None:
        self.ident = threading.get_ident()

    def call(self, payload: _Call, arrays: _crew.Arrays) -> tuple[bool, Any]:
        calls = [payload]  # emptied by _call: an exception's traceback keeps this frame
        del payload
        with _numpy.as_submitted(calls[0][0]):
            return self._call(calls)

    def _call(self, calls: list[_Call]) -> tuple[bool, Any]:
        outcome: list[tuple[bool, Any]] = []  # emptied by return: an exception's traceback keeps this frame
        _, function, args, kwargs = calls.pop()
        self.over = _crew.Gate()
        try:
            with self.lock:
                self.busy = True
            outcome.append((True, function(*args, **kwargs)))
        except BaseException as error:
            outcome.append((False, error))
        while self.busy:
            try:
                self._leave()
            except SystemExit as error:  # it was too late for the task
                outcome.append((False, error))
        del function, args, kwargs
        self.over.open()
        done, value = outcome.pop()
        outcome.clear()
        try:
            return done, value if done or isinstance(value, Exception) else _as_text(value)
        finally:
            del value

    def _leave(self) -> None:
        with self.lock:
            if self.interrupted:
                _raise_in(self.ident, None)
            self.busy = self.interrupted = False

    def interrupt(self) -> bool:
        """Raises SystemExit in the task, if there is one; whether that can be done."""
        with self.lock:
            if not self.busy or self.ident == threading.get_ident():
                return False
            try:
                self.interrupted = _raise_in(self.ident, SystemExit)
            except ImportError:  # ctypes, in an interpreter of 3.12 with a GIL of its own
                return False
            return self.interrupted

    def close(self) -> None:
        pass


class ThreadKind(_crew.Kind):
    noun = "worker thread"

    def pack(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Call, _crew.Arrays]:
        args = tuple(_arrived(value) for value in args)
        return (_numpy.is_installed(), function, args, {name: _arrived(value) for name, value in kwargs.items()}), ()

    def engine(self, name: str) -> ThreadEngine:
        return ThreadEngine()

    def stop(self, engines: Sequence[ThreadEngine]) -> None:
        busy = list(engines)
        while busy := [engine for engine in busy if engine.interrupt()]:
            busy[0].over.wait(_AGAIN)


def _arrived(value: Any) -> Any:
    """What a transfer arrives as. Inside of other objects, which aren't looked into here, it stays what it is."""
    return value._take() if type(value) is Transfer else value


def _raise_in(ident: int, error: type[BaseException] | None) -> bool:
    """Has the interpreter raise an exception in a thread, when that next runs Python code; None takes it back."""
    import ctypes

    raised = None if error is None else ctypes.py_object(error)
    return bool(ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), raised))


def _as_text(error: BaseException) -> WorkerError:
    """What would end the thread that asks for the result goes as a cause, as it does with workers of another kind."""
    name = type(error).__qualname__ if type(error).__module__ == "builtins" else f"{type(error).__module__}.{type(error).__qualname__}"
    told = WorkerError(f"{name}: {error}" if str(error) else name)
    told.__cause__ = error
    return told
