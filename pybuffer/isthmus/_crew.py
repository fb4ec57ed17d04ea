"""What the kinds of worker have in common: the queue, the futures, the threads that run workers, and their end.

Each worker of whatever kind has one thread here, which makes it, hands it calls and ends it. What a kind does
differently is in Kind and Engine.

Ownership: the threads hold the crew, never the pool; so a pool that is dropped is collected, and its workers end when
the queue is empty. A call under way owns a counted reference of every array in it, whatever the caller does with its own.

Threads: everything from any thread, but for Engine.start, call and close, which are the worker's own thread's.
Fork: a forked child has none of the threads; there the crew and its unfinished futures raise.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import logging
import os
import queue
import sys
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from . import _worker
from ._core import SharedArray, WorkerError

if TYPE_CHECKING:
    Arrays = tuple[SharedArray[Any], ...]

__all__ = ["BrokenWorkerPool", "Crew", "Died", "Engine", "Gate", "Item", "Kind", "RemoteTraceback", "stop_all"]

_log = logging.getLogger("isthmus")

_LOOK = 1.0  # seconds between two looks of a Gate


class BrokenWorkerPool(concurrent.futures.BrokenExecutor):
    """The pool can't run anything more.

    A worker could not be started, its initializer failed (see ``__cause__``), its process ended although it shouldn't,
    or this process is a forked child of the one that made the pool.
    """

    __module__ = "isthmus.pool"


class RemoteTraceback(Exception):
    """The cause of an exception that came from a worker: shows where it was raised there."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class Died(Exception):
    """From an engine: the worker is gone, and with it what it was doing. Says how."""


class Gate:
    """Once open it stays so. Ctrl-C can interrupt who waits at any point, and nothing is left locked, as an Event's condition may be.

    CPython looks for signals before a thread sleeps on a lock: one that comes between that look and the sleep wakes nobody. So who waits
    looks again now and then.
    """

    __slots__ = ("_lock", "is_open")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.is_open = False

    def open(self) -> None:
        self.is_open = True
        self._unlock()

    def _unlock(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # another one who opens or waits was faster
            pass

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it is open, after timeout seconds at most."""
        turn = _LOOK if timeout is None else min(timeout, _LOOK)
        end = None if timeout is None else time.monotonic() + timeout
        while not self.is_open:
            if self._lock.acquire(timeout=turn):
                self._unlock()  # for the next one, who looks at is_open first if an interrupt comes here
            elif end is not None:
                turn = min(end - time.monotonic(), _LOOK)
                if turn <= 0:
                    break
        return self.is_open


class Engine(ABC):
    """One worker. What is called here is called in its thread, forked() apart."""

    @abstractmethod
    def start(self) -> None:
        """Brings the worker up. If that fails nothing is left of it, and close() isn't called."""

    @abstractmethod
    def call(self, payload: Any, arrays: Arrays) -> tuple[bool, Any]:
        """Has the worker do what Kind.pack packed: (True, result) or (False, exception). Raises nothing but Died."""

    @abstractmethod
    def close(self) -> None:
        """Ends the worker, if it is still there."""

    def forked(self) -> None:  # noqa: B027
        """In a forked child: lets go of what would disturb the parent."""


class Kind(ABC):
    """One kind of worker."""

    noun: str  # "worker interpreter"

    @abstractmethod
    def pack(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Arrays]:
        """What call() of an engine takes, as it is now: what changes later doesn't matter."""

    @abstractmethod
    def engine(self, name: str) -> Engine:
        """A worker that is not started yet. Called by whoever submits: quick, and takes no lock."""

    @abstractmethod
    def stop(self, engines: Sequence[Any]) -> None:
        """Ends what these workers are doing, as far as that can be done. From any thread, at any time from engine() on."""


class Item:
    """A call under way: owns the payload and a handle of each of its arrays until the worker has answered."""

    __slots__ = ("arrays", "future", "payload")

    def __init__(self, future: concurrent.futures.Future[Any], payload: Any, arrays: Arrays) -> None:
        self.future = future
        self.payload = payload
        self.arrays = arrays


class _Worker:
    """One worker: the thread, its engine, and the call it is busy with."""

    __slots__ = ("ended", "engine", "item", "thread")

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ended = Gate()
        self.thread: threading.Thread | None = None
        self.item: Item | None = None


class Crew:
    """What pool and threads share.

    `lock` guards idle, workers, closed, broken and stopping; nothing waits while it is held.
    """

    def __init__(self, kind: Kind, size: int, name: str, initial: tuple[Any, Arrays] | None) -> None:
        self.kind = kind
        self.size = size
        self.name = name
        self.initial = initial
        self.pool: weakref.ref[Any] | None = None
        self.queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.idle = 0  # workers waiting for an item that nobody has put yet
        self.workers: list[_Worker] = []
        self.closed = False
        self.stopping = False
        self.broken: tuple[str, BaseException | None] | None = None
        _stop_before_exit()
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

    def add(self, item: Item) -> None:
        with self.lock:
            self.check()
            if self.idle > 0:
                self.idle -= 1
            elif len(self.workers) < self.size:
                self.start_worker()  # before the put: if it fails, the caller hears of it and nothing is left behind
            self.queue.put(item)

    def start_worker(self) -> None:
        if _running_script_again():
            raise RuntimeError(
                "a WorkerPool was given work while a worker runs the script again, which would never end: put what "
                'only the main program should do under `if __name__ == "__main__":`'
            )
        name = f"{self.name}_{len(self.workers)}"
        worker = _Worker(self.kind.engine(name))
        worker.thread = threading.Thread(target=_work, args=(self, worker), name=name)
        self.workers.append(worker)
        try:
            worker.thread.start()
        except BaseException:
            self.workers.remove(worker)
            raise

    def next_item(self) -> Item | None:
        try:
            if not self.queue.empty():  # an exception takes time for which whoever has the last result waits for the GIL
                return self.queue.get_nowait()
        except queue.Empty:
            pass
        with self.lock:
            try:
                return self.queue.get_nowait()  # somebody may have put it since, and have started a worker for it
            except queue.Empty:
                self.idle += 1
        return self.queue.get()

    def take_all(self) -> list[Item]:
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
        self.close(cancel=True)
        self.stop_workers()

    def stop_workers(self) -> None:
        with self.lock:
            engines = [worker.engine for worker in self.workers if not worker.ended.is_open]
        if engines:
            self.kind.stop(engines)

    def join(self) -> None:
        for worker in list(self.workers):
            if worker.thread is not None and worker.thread is not threading.current_thread():
                worker.ended.wait()  # a join() that Ctrl-C interrupts makes 3.12 take the thread for ended
                worker.thread.join()

    def fail(self, text: str, cause: BaseException | None) -> None:
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
        _inherited.append(self.workers)  # their engines belong to the parent: never touched, so never deallocated
        items = [worker.item for worker in self.workers if worker.item is not None] + self.take_all()
        for worker in self.workers:
            worker.engine.forked()
        self.workers = []
        for item in items:
            future = item.future
            future._condition = threading.Condition()
            # whoever is to be called is the parent's: an asyncio loop's callback would write to the parent's pipe
            future._waiters = []
            future._done_callbacks = []  # type: ignore[attr-defined]
            if not future.done():
                future.set_exception(self.broken_error())


def _running_script_again() -> bool:
    """Whether the parent's script is being run in a worker, so that its functions exist there."""
    if _worker.replaying:
        return True
    process = sys.modules.get("multiprocessing.process")
    return process is not None and getattr(process.current_process(), "_inheriting", False)


# ---- in the worker's thread ----------------------------------------------------------------------------------------


def _work(crew: Crew, worker: _Worker) -> None:
    try:
        _serve(crew, worker)
    finally:
        worker.ended.open()


def _serve(crew: Crew, worker: _Worker) -> None:
    engine = worker.engine
    try:
        engine.start()
    except Died as died:
        if not crew.stopping:
            _broken_by(crew, f"{died}, before it was ready", None)
        return
    except BaseException as error:
        crew.fail(f"a {crew.kind.noun} could not be started", error)
        return
    with crew.lock:
        unwanted = crew.stopping or crew.broken is not None
    try:
        if not unwanted and _initialise(crew, engine):
            while (item := crew.next_item()) is not None:
                worker.item = item
                if not _run(crew, engine, item):
                    return
                worker.item = item = None
            crew.queue.put(None)  # for the next worker
    finally:
        worker.item = item = None
        try:
            engine.close()
        except Exception:
            _log.exception("a %s of %s could not be ended", crew.kind.noun, crew.name)


def _initialise(crew: Crew, engine: Engine) -> bool:
    if crew.initial is None:
        return True
    try:
        done, error = engine.call(*crew.initial)
    except Died as died:
        if not crew.stopping:
            _broken_by(crew, f"{died}, in its initializer", None)
        return False
    if not done:
        crew.fail("the initializer of a worker failed", error)
    return done


def _run(crew: Crew, engine: Engine, item: Item) -> bool:
    """Whether the worker can go on."""
    future = item.future
    if crew.stopping:
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return True
    payload, arrays = item.payload, item.arrays
    item.payload, item.arrays = None, ()
    try:
        done, outcome = engine.call(payload, arrays)
    except Died as died:
        del payload, arrays
        if crew.stopping:
            future.set_exception(_terminated(None))
        else:
            _broken_by(crew, str(died), future)
        return False
    del payload, arrays  # before anybody hears of the end of the call
    if crew.stopping and isinstance(outcome, WorkerError):  # the SystemExit that ended it, however it came back
        outcome = _terminated(outcome)
    if done:
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
    return True


def _broken_by(crew: Crew, text: str, future: concurrent.futures.Future[Any] | None) -> None:
    """A worker died. The others may wait for it for ever, so they are ended as well."""
    crew.fail(text, None)
    if future is not None:
        future.set_exception(crew.broken_error())
    crew.stop_workers()


def _terminated(how: WorkerError | None) -> WorkerError:
    error = WorkerError("the task was terminated with its WorkerPool")
    error.__cause__ = None if how is None else how.__cause__
    return error


# ---- the end -------------------------------------------------------------------------------------------------------

_crews: weakref.WeakSet[Crew] = weakref.WeakSet()
_inherited: list[list[_Worker]] = []
_prepared = False
_exiting = False


def _stop_before_exit() -> None:
    """Once, before the first worker: makes sure that all workers are gone before this interpreter ends."""
    global _prepared
    if not _prepared:
        # Runs before non-daemon threads are joined. The public atexit comes too late: after that join, which would
        # wait for ever.
        cast(Any, threading)._register_atexit(stop_all)
        # A KeyboardInterrupt can come before that, or in the midst of it, and then nothing is joined either.
        atexit.register(_stop_what_is_left)
        _prepared = True


def stop_all() -> None:
    """At the end of this interpreter: what was submitted is done, unless a KeyboardInterrupt ended the program."""
    global _exiting
    _exiting = True
    crews = list(_crews)
    interrupted = _was_interrupted()
    try:
        for crew in crews:
            crew.terminate() if interrupted else crew.close()
        for crew in crews:
            crew.join()
    except BaseException:  # Ctrl-C while waiting for tasks
        _terminate_all()
        raise


def _was_interrupted() -> bool:
    """Whether what ended the program is a KeyboardInterrupt, or another exception that one led to."""
    error: BaseException | None = getattr(sys, "last_exc", None)
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _terminate_all() -> None:
    crews = list(_crews)
    for crew in crews:
        crew.terminate()
    for crew in crews:
        crew.join()


def _stop_what_is_left() -> None:
    global _exiting
    _exiting = True
    if any(not worker.ended.is_open for crew in list(_crews) for worker in crew.workers):
        _terminate_all()


def _after_fork_in_child() -> None:
    for crew in list(_crews):
        crew.forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
