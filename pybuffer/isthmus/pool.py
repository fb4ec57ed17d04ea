"""WorkerPool: an executor whose workers are interpreters of this process, processes, or threads.

What the kinds have in common is in _crew.py, and each has a module of its own: _interpreter_workers.py,
_process_workers.py, _thread_workers.py.
"""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import operator
import os
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures._base import FINISHED, PENDING, RUNNING
from types import TracebackType
from typing import Any, Literal

from . import _crew, _worker
from ._crew import BrokenWorkerPool

__all__ = ["BrokenWorkerPool", "Future", "WorkerPool"]


class Future[T](concurrent.futures.Future[T]):
    """What submit() returns: a concurrent.futures.Future that can also be awaited, in any running asyncio loop."""

    # What happens in almost every call is done here, without the condition's own `with`, which is Python code and dear; anything
    # else is the base class's. Its attributes are used by concurrent.futures.wait() as well, on futures of any class.
    #
    # Who waits for the result doesn't wait on the condition: Ctrl-C on the way into or out of it, or back, leaves it locked, or
    # shows another exception. It puts a locked gate into the list and looks at the state; who ends the future sets the state and
    # opens the gates that are in the list. Both are single operations, so one of the two sees the other's.
    _gates: Sequence[_crew.Gate] = ()

    def set_running_or_notify_cancel(self) -> bool:
        """For executors: whether the call is to be run; from now on it can't be cancelled."""
        condition = self._condition
        condition.acquire()
        try:
            if pending := self._state == PENDING:
                self._state = RUNNING
        finally:
            condition.release()
        return pending or super().set_running_or_notify_cancel()

    def set_result(self, result: T) -> None:
        """For executors: the call is done."""
        condition = self._condition
        condition.acquire()
        try:
            if plain := self._state == RUNNING and not self._waiters and not self._done_callbacks:  # type: ignore[attr-defined]
                self._result = result
                self._state = FINISHED  # last: see result()
                condition.notify_all()
        finally:
            condition.release()
        if not plain:
            super().set_result(result)
        if self._gates:
            self._open()

    def set_exception(self, exception: BaseException | None) -> None:
        """For executors: the call failed."""
        super().set_exception(exception)
        self._open()

    def cancel(self) -> bool:
        """Whether the call is cancelled: no worker has begun it, nor will."""
        cancelled = super().cancel()
        if cancelled:
            self._open()
        return cancelled

    def _open(self) -> None:
        for gate in tuple(self._gates):  # those who were opened leave the list
            gate.open()

    def _wait(self, timeout: float | None) -> None:
        if timeout is not None and timeout <= 0:
            raise TimeoutError
        gate = _crew.Gate()
        gates: list[_crew.Gate] = self.__dict__.setdefault("_gates", [])
        gates.append(gate)
        try:
            if self._state in (PENDING, RUNNING) and not gate.wait(timeout):
                raise TimeoutError
        finally:
            gates.remove(gate)

    def result(self, timeout: float | None = None) -> T:
        """What the call returned, or its exception, raised. Waits for it, at most timeout seconds: TimeoutError then."""
        if self._state in (PENDING, RUNNING):
            self._wait(timeout)
        if self._state != FINISHED:
            raise concurrent.futures.CancelledError
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                del self  # which the exception's traceback would keep, and that the exception
        return self._result  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception of the call, None if it returned. Waits for it, at most timeout seconds: TimeoutError then."""
        if self._state in (PENDING, RUNNING):
            self._wait(timeout)
        if self._state != FINISHED:
            raise concurrent.futures.CancelledError
        return self._exception

    def __await__(self) -> Generator[Any, Any, T]:
        import asyncio

        return asyncio.wrap_future(self).__await__()


class WorkerPool(concurrent.futures.Executor):
    """Runs calls in a pool of workers: interpreters, so that pure Python code uses several cores; or processes, or threads.

    max_workers: how many at most; default: the number of CPUs this process may use. They are started as they are needed,
        and stay until the pool is shut down.
    kind: `"interpreter"`: of this process, each with a GIL of its own; numpy can't be imported there. `"process"`: numpy can;
        ndarrays arrive as ndarrays, by one copy. `"thread"`: of this interpreter; nothing is cloned.
    initializer, initargs: called in each worker before its first task. If it fails, the pool is broken.
    thread_name_prefix: of the threads here, one per worker; worker processes have the same names.

    Functions go by name: they must be importable, or defined in the script that runs. A worker runs that script
    again, under another name than ``__main__`` and not before a task needs it. SharedArrays, wherever they are in
    arguments, results and exceptions, go by reference; everything else is a structured clone, or pickled where there is no
    other way. An exception of a task comes back as itself, with the remote traceback as its cause, or as WorkerError if it
    can't be sent or isn't an Exception.

    Leaving a ``with`` block waits for what was submitted; leaving it by KeyboardInterrupt, SystemExit or asyncio's
    CancelledError terminates the workers.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        kind: Literal["interpreter", "process", "thread"] = "interpreter",
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        thread_name_prefix: str = "",
    ) -> None:
        make_kind = _kinds.get(kind)
        if make_kind is None:
            raise ValueError(f'kind must be "interpreter", "process" or "thread", not {kind!r}')
        if max_workers is None:
            max_workers = _count_cpus()
        max_workers = operator.index(max_workers)
        if max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {initializer!r}")
        workers = make_kind()
        initial = None if initializer is None else workers.pack(initializer, tuple(initargs), {})
        self._crew = _crew.Crew(workers, max_workers, thread_name_prefix or f"WorkerPool-{next(_pool_numbers)}", initial)
        stop = self._crew.queue.put
        # From a garbage collection anywhere: takes no lock. None means: nothing more will come.
        self._crew.pool = weakref.ref(self, lambda _: stop(None))

    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Has a worker call ``fn(*args, **kwargs)``; returns its future.

        The call is cloned before submit returns. If that fails, the future has the error.
        Errors: RuntimeError after shutdown, BrokenWorkerPool (a RuntimeError) if the pool is broken.
        """
        crew = self._crew
        crew.check()
        future: Future[T] = Future()
        try:
            payload, arrays = crew.kind.pack(fn, args, kwargs)
        except Exception as error:
            future.set_exception(error)
        else:
            crew.add(_crew.Item(future, payload, arrays))
        return future

    def map[T](
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The results of ``fn(*args)`` for the zipped iterables, in order.

        timeout: seconds from now until the last result is in; then TimeoutError is raised.
        chunksize: so many calls travel and run as one task.
        buffersize: so many tasks are under way at most; the iterables are read no further ahead. None: all at once.
        """
        if operator.index(chunksize) < 1:
            raise ValueError(f"chunksize must be at least 1, not {chunksize}")
        if buffersize is not None and operator.index(buffersize) < 1:
            raise ValueError(f"buffersize must be at least 1 or None, not {buffersize}")
        deadline = None if timeout is None else time.monotonic() + timeout
        chunks = itertools.batched(zip(*iterables, strict=False), chunksize)

        def submit(chunk: tuple[tuple[Any, ...], ...]) -> Future[list[T]]:
            return self.submit(_worker.run_chunk, fn, chunk)

        futures = collections.deque(map(submit, itertools.islice(chunks, buffersize)))
        return _results(futures, map(submit, chunks), deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls, and ends the workers when the queue is empty.

        wait: until they have ended. cancel_futures: those that no worker has begun.
        """
        self._crew.close(cancel_futures)
        if wait:
            self._crew.join()

    def terminate_workers(self) -> None:
        """Ends the workers now: cancels what hasn't begun, and stops what is running, whose futures get WorkerError.

        A call into C that doesn't return can't be stopped, except in a process. Returns when the workers have ended.
        """
        self._crew.terminate()
        self._crew.join()

    def __del__(self) -> None:
        crew: _crew.Crew | None = getattr(self, "_crew", None)  # None: __init__ failed
        if crew is not None and crew.workers and not crew.closed:
            warnings.warn(
                f"unclosed WorkerPool {crew.name!r}: its workers end when they have done what was submitted; use `with`, or shutdown()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> bool | None:
        # Ctrl-C, sys.exit(), and asyncio's CancelledError, which is what Ctrl-C is inside asyncio.run()
        if kind is not None and not issubclass(kind, (Exception, GeneratorExit)):
            self.terminate_workers()
            return None
        try:
            self.shutdown(wait=True)
        except BaseException:  # Ctrl-C while waiting
            self.terminate_workers()
            raise
        return None


def _results[T](futures: collections.deque[Future[list[T]]], more: Iterator[Future[list[T]]], deadline: float | None) -> Iterator[T]:
    try:
        while futures:
            results = futures[0].result(None if deadline is None else deadline - time.monotonic())
            futures.popleft()
            futures.extend(itertools.islice(more, 1))
            results.reverse()
            while results:
                yield results.pop()  # nothing here keeps what was handed out
    finally:
        for future in futures:
            future.cancel()


# ---- kinds of worker -----------------------------------------------------------------------------------------------

_pool_numbers = itertools.count()


def _count_cpus() -> int:
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    return os.cpu_count() or 1


def _interpreter_kind() -> _crew.Kind:
    from ._interpreter_workers import InterpreterKind

    return InterpreterKind()


def _process_kind() -> _crew.Kind:
    from ._process_workers import ProcessKind

    return ProcessKind()


def _thread_kind() -> _crew.Kind:
    from ._thread_workers import ThreadKind

    return ThreadKind()


_kinds = {"interpreter": _interpreter_kind, "process": _process_kind, "thread": _thread_kind}
