"""Workers that are processes, made as multiprocessing's "spawn" makes them. Their other end is _process_main.py.

A worker has one connection, a socket pair: an empty message says that it is there, then calls and outcomes take turns, and an
empty message from here is the end. What is waited for is always a message or the end of the process, so nothing that happens to a
worker is a reason to wait for ever.

An array in a call or an outcome is under a lease while it is on its way: from the moment when it is sent, not when it is submitted,
until it was read. What was sent to a worker that died is read here, which ends the leases.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import process as _mp_process
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection
from typing import Any

from . import _crew, _numpy, _process_main, _remote
from ._core import _count_copied, sweep

__all__ = ["ProcessKind"]

_log = logging.getLogger("isthmus")
_spawn = multiprocessing.get_context("spawn")
_Call = tuple[bool, bytes]  # whether under numpy_allocator(), and the message


def _pidfd(pid: int | None) -> int:
    """-1 where the system has none to give."""
    try:
        return os.pidfd_open(pid) if pid is not None else -1
    except OSError:
        return -1


class ProcessEngine(_crew.Engine):
    """`lock` guards what stop() uses from other threads: pidfd, process, wanted_signal."""

    def __init__(self, name: str, main_by_value: bool) -> None:
        self.name = name
        self.gone = _crew.Gate()  # there is no process, and there won't be one
        self.lock = threading.Lock()
        self.process: Any = None
        self.pidfd = -1
        self.wanted_signal: signal.Signals | None = None  # came before there was a process
        self._main_by_value = main_by_value
        self._connection: Connection[bytes, bytes] | None = None
        self._poll = select.poll()
        self._end = -1  # readable when the process has ended

    def start(self) -> None:
        try:
            self._spawn()
        except BaseException:
            self._forget()
            raise
        try:
            self._receive()
        except _crew.Died:
            self._forget()
            raise

    def _wanted(self) -> signal.Signals | None:
        return self.wanted_signal  # other threads set it

    def _spawn(self) -> None:
        if self._wanted() is not None:
            raise _crew.Died("a worker process was not started")
        self._connection, theirs = _spawn.Pipe()
        try:
            process = _spawn.Process(target=_process_main.main, args=(theirs, self._main_by_value), name=self.name)
            with _without_interrupts(), _main_hidden(self._main_by_value):
                process.start()
        finally:
            theirs.close()
        with self.lock:
            self.process = process
            # The sentinel is not enough: what a task forks has inherited the other end of it.
            self.pidfd = _pidfd(process.pid)
            wanted = self.wanted_signal
        self._end = self.pidfd if self.pidfd >= 0 else process.sentinel
        self._poll.register(self._connection, select.POLLIN)
        self._poll.register(self._end, select.POLLIN)
        if wanted is not None:
            self.send_signal(wanted)

    def call(self, payload: _Call, arrays: _crew.Arrays) -> tuple[bool, Any]:
        leased = b""
        try:
            installed, message = payload
            frame, leased = _process_main.write_frame(bytes([installed]), message, arrays)
            self._send(frame)
            del message, frame
            head, reply, arrays = _process_main.read_frame(self._receive(), _process_main.REPLY_HEAD)
            _count_copied(int.from_bytes(head[:8], "little"))
            if not head[8]:
                _end_leases(leased)
            return _remote.outcome(reply, arrays)
        except _crew.Died:
            _end_leases(leased)
            raise
        except BaseException as error:
            return False, error
        finally:
            del payload, arrays  # an exception's traceback keeps this frame: it must not keep the arrays

    def _send(self, frame: bytes) -> None:
        assert self._connection is not None
        try:
            self._connection.send_bytes(frame)
        except OSError:
            raise _crew.Died(self._how()) from None

    def _receive(self) -> bytes:
        connection = self._connection
        assert connection is not None
        ready = {fd for fd, _ in self._poll.poll()}
        if connection.fileno() in ready or connection.poll():  # it may have answered and ended before the poll said so of its end
            try:
                return connection.recv_bytes()
            except (EOFError, OSError):
                pass
        raise _crew.Died(self._how()) from None

    def _how(self) -> str:
        """How the process ended; it has, or will soon."""
        self._bury()
        sweep()  # what it held comes back at once
        process = self.process
        code = _exit_code(process)
        if code is None:
            return f"worker process {process.pid} ended, nobody knows how"
        if code >= 0:
            return f"worker process {process.pid} ended with exit status {code}"
        try:
            return f"worker process {process.pid} was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"worker process {process.pid} was killed by signal {-code}"

    def _bury(self) -> None:
        """Sees to it that the process ends."""
        if not self._ended_within(_process_main.PATIENCE):
            _log.warning("worker process %d (%s) doesn't end by itself: it is terminated", self.process.pid, self.name)
            self.send_signal(signal.SIGTERM)
            if not self._ended_within(_process_main.PATIENCE):
                self.send_signal(signal.SIGKILL)
                self._ended_within(None)
        self.gone.open()

    def _ended_within(self, seconds: float | None) -> bool:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def send_signal(self, number: signal.Signals) -> None:
        with self.lock:
            if self.pidfd >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.pidfd, number)
            elif self.process is None:
                self.wanted_signal = number
            elif not self.gone.is_open:
                self.process.kill() if number == signal.SIGKILL else self.process.terminate()

    def close(self) -> None:
        if not self.gone.is_open:
            assert self._connection is not None
            with contextlib.suppress(OSError):
                self._connection.send_bytes(b"")
            self._connection.close()
            self._bury()
        self._forget()

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
        with self.lock:
            if self.pidfd >= 0:
                os.close(self.pidfd)
                self.pidfd = -1
            if self.process is not None and _exit_code(self.process) is not None:
                self.process.join()  # multiprocessing forgets it
                self.process.close()
            self.gone.open()

    def forked(self) -> None:
        # Else the worker would not notice the end of the parent, and multiprocessing would join it at the end of this process
        if self._connection is not None:
            self._connection.close()
        getattr(_mp_process, "_children", set()).discard(self.process)


class ProcessKind(_crew.Kind):
    noun = "worker process"

    def __init__(self) -> None:
        self._main_by_value = _remote.main_source() is None
        _stop_before_multiprocessing()

    def pack(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Call, _crew.Arrays]:
        message, arrays = _remote.encode_call((function, args, kwargs), self._main_by_value, _process_main.SHARED_FROM)
        return (_numpy.is_installed(), message), arrays

    def engine(self, name: str) -> ProcessEngine:
        return ProcessEngine(name, self._main_by_value)

    def stop(self, engines: Sequence[ProcessEngine]) -> None:
        for engine in engines:
            engine.send_signal(signal.SIGTERM)
        end = time.monotonic() + _process_main.PATIENCE
        for engine in engines:
            if not engine.gone.wait(max(0, end - time.monotonic())):
                engine.send_signal(signal.SIGKILL)


def _end_leases(pickled: bytes) -> None:
    """Of what the worker didn't read."""
    with contextlib.suppress(Exception):
        pickle.loads(pickled)


def _exit_code(process: Any) -> int | None:
    """Of a process that has ended. None if somebody else took it."""
    for _ in range(100):
        code: int | None = process.exitcode
        if code is not None:
            return code
        time.sleep(0.001)  # another thread that starts a process may have it, and be about to say so
    return None


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process started meanwhile isn't interrupted by Ctrl-C, until it says otherwise: that is the parent's business."""
    resource_tracker.ensure_running()  # at its first start it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_main_lock = threading.Lock()


@contextlib.contextmanager
def _main_hidden(really: bool) -> Iterator[None]:
    """A process started meanwhile doesn't look for a script that can't be run again: "<stdin>", or a notebook's."""
    main = sys.modules["__main__"]
    if not really or getattr(main, "__file__", None) is None:
        yield
        return
    with _main_lock:
        path = main.__file__
        main.__file__ = None
        try:
            yield
        finally:
            main.__file__ = path


_stopped_first_in = 0


def _stop_before_multiprocessing() -> None:
    """In a process that multiprocessing started, its own end comes first, and would wait for the workers for ever."""
    global _stopped_first_in
    if _stopped_first_in != os.getpid():
        util.Finalize(None, _crew.stop_all, exitpriority=100)
        _stopped_first_in = os.getpid()
