"""WorkerPool: an executor whose workers are interpreters of this process, each with a GIL of its own.

Ownership: the pool's threads hold the crew (queue, locks, workers), never the pool; so a pool that is dropped is
collected, and its workers end when the queue is empty. A call is pickled when it is submitted: from then on it holds a
counted reference of every array in it, whatever the caller does with its own.

Threads: every method from any thread. Fork: a forked child has none of the workers; there the pool and its unfinished
futures raise.
"""

from __future__ import annotations

import builtins
import collections
import concurrent.futures
import itertools
import logging
import operator
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, cast

from . import _payload, _worker
from ._core import WorkerError, _Interpreter

__all__ = ["BrokenWorkerPool", "Future", "WorkerPool"]

_log = logging.getLogger("isthmus")


class Future[T](concurrent.futures.Future[T]):
    """What submit() returns: a concurrent.futures.Future that can also be awaited, in any running asyncio loop."""

    def __await__(self) -> Generator[Any, Any, T]:
        import asyncio

        return asyncio.wrap_future(self).__await__()


class BrokenWorkerPool(concurrent.futures.BrokenExecutor):
    """The pool can't run anything more.

    A worker could not be started or its initializer failed (see ``__cause__``), or this process is a forked child of
    the one that made the pool.
    """


class _RemoteTraceback(Exception):
    """The cause of an exception that came from a worker: shows where it was raised there."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class WorkerPool(concurrent.futures.Executor):
    """Runs calls in a pool of interpreters, so that pure Python code uses several cores.

    max_workers: how many interpreters at most; default: the number of CPUs this process may use. They are started as
        they are needed, and stay until the pool is shut down.
    kind: "interpreter", the only one there is so far.
    initializer, initargs: called in each worker before its first task. If it fails, the pool is broken.
    thread_name_prefix: of the threads that run the interpreters.

    Functions go by name: they must be importable, or defined in the script that runs. A worker runs that script
    again, under another name than ``__main__`` and not before a task needs it. SharedArrays, wherever they are in
    arguments, results and exceptions, go by reference; everything else is pickled. An exception of a task comes back
    as itself, with the remote traceback as its cause, or as WorkerError if it can't be pickled or isn't an Exception.

    Leaving a ``with`` block waits for what was submitted; leaving it by KeyboardInterrupt, SystemExit or asyncio's
    CancelledError terminates the workers.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        kind: str = "interpreter",
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        thread_name_prefix: str = "",
    ) -> None:
        if kind != "interpreter":
            raise ValueError(f'kind must be "interpreter", the only kind of worker in this version, not {kind!r}')
        if max_workers is None:
            max_workers = _count_cpus()
        max_workers = operator.index(max_workers)
        if max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {initializer!r}")
        _prepare_interpreter()
        main = _main_source()
        initial = None if initializer is None else _dumps_call((initializer, tuple(initargs), {}), main is None)
        self._crew = _Crew(max_workers, thread_name_prefix or f"WorkerPool-{next(_pool_numbers)}", main, initial)
        stop = self._crew.queue.put
        # From a garbage collection anywhere: takes no lock. None means: nothing more will come.
        self._crew.pool = weakref.ref(self, lambda _: stop(None))

    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Has a worker call ``fn(*args, **kwargs)``; returns its future.

        The call is pickled before submit returns. If that fails, the future has the error.
        Errors: RuntimeError after shutdown, BrokenWorkerPool (a RuntimeError) if the pool is broken.
        """
        crew = self._crew
        crew.check()
        future: Future[T] = Future()
        try:
            payload, arrays = _dumps_call((fn, args, kwargs), crew.main is None)
        except Exception as error:
            future.set_exception(error)
        else:
            crew.add(_Item(future, payload, arrays))
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

        A call into C that doesn't return can't be stopped. Returns when the workers have ended.
        """
        self._crew.terminate()
        self._crew.join()

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


# ---- the crew ------------------------------------------------------------------------------------------------------


class _Item:
    """A call under way: owns the payload and a handle of each of its arrays until the worker has answered."""

    __slots__ = ("arrays", "future", "payload")

    def __init__(self, future: Future[Any], payload: bytes, arrays: _payload.Arrays) -> None:
        self.future = future
        self.payload = payload
        self.arrays = arrays


class _WorkerThread:
    """One worker: the thread, its interpreter once there is one, and the call it is busy with."""

    __slots__ = ("ended", "interpreter", "item", "thread")

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None
        self.interpreter: _Interpreter | None = None
        self.item: _Item | None = None


class _Crew:
    """What pool and threads share.

    `lock` guards idle, workers, closed, broken and stopping; nothing waits while it is held.
    """

    def __init__(self, size: int, name: str, main: tuple[str, str] | None, initial: tuple[bytes, _payload.Arrays] | None) -> None:
        self.size = size
        self.name = name
        self.main = main  # where workers find the script
        self.initial = initial
        self.pool: weakref.ref[WorkerPool] | None = None
        self.queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.idle = 0  # workers waiting for an item that nobody has put yet
        self.workers: list[_WorkerThread] = []
        self.closed = False
        self.stopping = False
        self.broken: tuple[str, BaseException | None] | None = None
        _crews.add(self)

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken_error()
        if self.closed:
            raise RuntimeError("this WorkerPool is shut down: it takes no more calls")
        if _exiting:
            raise RuntimeError("the interpreter is shutting down: a WorkerPool takes no more calls")

    def broken_error(self) -> BrokenWorkerPool:
        assert self.broken is not None
        text, cause = self.broken
        error = BrokenWorkerPool(text)
        error.__cause__ = cause
        return error

    def add(self, item: _Item) -> None:
        with self.lock:
            self.check()
            if self.idle > 0:
                self.idle -= 1
            elif len(self.workers) < self.size:
                self.start_worker()  # before the put: if it fails, the caller hears of it and nothing is left behind
            self.queue.put(item)

    def start_worker(self) -> None:
        if _worker.replaying:
            raise RuntimeError(
                "a WorkerPool was given work while a worker runs the script again, which would never end: put what "
                'only the main program should do under `if __name__ == "__main__":`'
            )
        worker = _WorkerThread()
        worker.thread = threading.Thread(target=_work, args=(self, worker, _setup(self.main)), name=f"{self.name}_{len(self.workers)}")
        self.workers.append(worker)
        try:
            worker.thread.start()
        except BaseException:
            self.workers.remove(worker)
            raise

    def next_item(self) -> _Item | None:
        try:
            return self.queue.get_nowait()
        except queue.Empty:
            with self.lock:
                self.idle += 1
            return self.queue.get()

    def take_all(self) -> list[_Item]:
        items = []
        try:
            while True:
                item = self.queue.get_nowait()
                if item is not None:
                    items.append(item)
        except queue.Empty:
            return items

    def close(self, cancel: bool = False) -> None:
        with self.lock:
            self.closed = True
            cancelled = self.take_all() if cancel else []
            self.queue.put(None)
        for item in cancelled:  # outside the lock: runs callbacks
            item.future.cancel()
            item.future.set_running_or_notify_cancel()

    def terminate(self) -> None:
        with self.lock:
            self.stopping = True
            interpreters = [worker.interpreter for worker in self.workers if worker.interpreter is not None]
        self.close(cancel=True)
        for interpreter in interpreters:
            interpreter.terminate()

    def join(self) -> None:
        for worker in list(self.workers):
            if worker.thread is not None and worker.thread is not threading.current_thread():
                worker.ended.wait()  # a join() that Ctrl-C interrupts makes 3.12 take the thread for ended
                worker.thread.join()

    def fail(self, text: str, cause: BaseException) -> None:
        with self.lock:
            if self.broken is None:
                self.broken = (text, cause)
            items = self.take_all()
            self.queue.put(None)
        for item in items:
            if item.future.set_running_or_notify_cancel():
                item.future.set_exception(self.broken_error())

    def forked(self) -> None:
        """In the child: the threads are gone, and a lock may be held for ever by one of them."""
        self.lock = threading.Lock()
        self.closed = True
        self.broken = ("this WorkerPool was made before a fork: a forked child has none of its workers", None)
        _inherited.append(self.workers)  # their interpreters belong to the parent: never touched, so never deallocated
        items = [worker.item for worker in self.workers if worker.item is not None] + self.take_all()
        self.workers = []
        for item in items:
            future = item.future
            future._condition = threading.Condition()
            # whoever is to be called is the parent's: an asyncio loop's callback would write to the parent's pipe
            future._waiters = []
            future._done_callbacks = []  # type: ignore[attr-defined]
            if not future.done():
                future.set_exception(self.broken_error())


# ---- in the worker's thread ----------------------------------------------------------------------------------------


def _work(crew: _Crew, worker: _WorkerThread, setup: str) -> None:
    try:
        _serve(crew, worker, setup)
    finally:
        worker.ended.set()


def _serve(crew: _Crew, worker: _WorkerThread, setup: str) -> None:
    try:
        interpreter = _Interpreter(setup)
    except BaseException as error:
        crew.fail("a worker interpreter could not be started", error)
        return
    with crew.lock:
        worker.interpreter = interpreter
        stopping = crew.stopping
    try:
        if not stopping and _initialise(crew, interpreter):
            while (item := crew.next_item()) is not None:
                worker.item = item
                _run(crew, interpreter, item)
                worker.item = item = None
            crew.queue.put(None)  # for the next worker
    finally:
        with crew.lock:
            worker.interpreter = None
        try:
            if interpreter.close() == "parked":
                _log.warning(
                    "a worker interpreter of %s was left behind: a thread that a task started in it is still running",
                    crew.name,
                )
        except Exception:
            _log.exception("a worker interpreter of %s could not be ended", crew.name)


def _initialise(crew: _Crew, interpreter: _Interpreter) -> bool:
    if crew.initial is None:
        return True
    done, error = _call(interpreter, *crew.initial)
    if not done:
        crew.fail("the initializer of a worker failed", error)
    return done


def _run(crew: _Crew, interpreter: _Interpreter, item: _Item) -> None:
    future = item.future
    if crew.stopping:
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return
    payload, arrays = item.payload, item.arrays
    item.payload, item.arrays = b"", ()
    done, outcome = _call(interpreter, payload, arrays)
    del payload, arrays  # before anybody hears of the end of the call
    if crew.stopping and isinstance(outcome, WorkerError):  # the SystemExit that ended it, however it came back
        outcome = _terminated(outcome)
    if done:
        future.set_result(outcome)
    else:
        future.set_exception(outcome)


def _call(interpreter: _Interpreter, payload: bytes, arrays: _payload.Arrays) -> tuple[bool, Any]:
    """(True, result) or (False, exception)."""
    try:
        reply, result_arrays = interpreter.call(payload, arrays)
        done, outcome = _Unpickler(reply, result_arrays).load()
        if not done:
            outcome = _remote_error(outcome, result_arrays)
        return done, outcome
    except BaseException as error:
        return False, error
    finally:
        # an exception's traceback keeps this frame: it must not keep the arrays
        del payload, arrays
        reply = result_arrays = None  # type: ignore[assignment]


def _terminated(how: WorkerError) -> WorkerError:
    error = WorkerError("the task was terminated with its WorkerPool")
    error.__cause__ = how.__cause__
    return error


def _remote_error(failure: tuple[bytes | None, str, str, str], arrays: _payload.Arrays) -> BaseException:
    pickled, name, message, traceback = failure
    error: object = None
    if pickled is not None:
        try:
            error = _Unpickler(pickled, arrays).load()
        except Exception:
            pass  # many exception classes can be pickled but not unpickled: then as text
    if not isinstance(error, Exception):
        error = WorkerError(f"{name}: {message}" if message else name)
    error.__cause__ = _RemoteTraceback(traceback)
    return error


class _Unpickler(_payload.Unpickler):
    def find_global(self, module: str, name: str) -> Any:
        if module == "__mp_main__" and module not in sys.modules:
            module = "__main__"  # the script's own name here
        return super().find_global(module, name)


# ---- what workers need to know -----------------------------------------------------------------------------------


def _count_cpus() -> int:
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    return os.cpu_count() or 1


def _setup(main: tuple[str, str] | None) -> str:
    """The source a new worker runs first: the same search path and arguments, and where to find the script."""
    path = [os.fspath(entry) for entry in sys.path if isinstance(entry, (str, os.PathLike))]
    return (
        f"import sys\nsys.path[:] = {path!a}\nsys.argv[:] = {[str(arg) for arg in sys.argv]!a}\n"
        f"import isthmus._worker\nisthmus._worker.start({main!a})\n"
    )


def _main_source() -> tuple[str, str] | None:
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


def _dumps_call(call: tuple[Any, ...], main_by_value: bool) -> tuple[bytes, _payload.Arrays]:
    try:
        return _payload.dumps(call, main_by_value)
    except Exception as error:
        error.add_note(
            "This is from pickling the call for a worker: functions go by name, so they must be importable or defined "
            "at the top level of the script; arguments must be picklable."
        )
        raise


# ---- the end -------------------------------------------------------------------------------------------------------

_pool_numbers = itertools.count()
_crews: weakref.WeakSet[_Crew] = weakref.WeakSet()
_inherited: list[list[_WorkerThread]] = []
_prepared = False
_exiting = False


def _prepare_interpreter() -> None:
    """Once, before the first worker: makes sure that all workers are gone before this interpreter ends."""
    global _prepared
    if _prepared:
        return
    # Runs before non-daemon threads are joined. The public atexit comes too late: after that join, which would wait
    # for ever.
    cast(Any, threading)._register_atexit(_stop_all)
    if sys.version_info < (3, 13):
        # 3.12 aborts at exit if another interpreter than the main one was the first to import these
        import asyncio  # noqa: F401
        import hashlib  # noqa: F401
    _prepared = True


def _stop_all() -> None:
    global _exiting
    _exiting = True
    crews = list(_crews)
    interrupted = isinstance(getattr(sys, "last_exc", None), KeyboardInterrupt)
    try:
        for crew in crews:
            crew.terminate() if interrupted else crew.close()
        for crew in crews:
            crew.join()
    except BaseException:  # Ctrl-C while waiting for tasks
        for crew in crews:
            crew.terminate()
        for crew in crews:
            crew.join()
        raise


def _after_fork_in_child() -> None:
    for crew in list(_crews):
        crew.forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
