"""What runs in a worker process: the other end of _process_workers.py. And what a frame is, which is one message on that connection.

A frame: a head, whose length both sides know; the arrays, pickled, so each is under a lease from here until it was read; the message.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import select
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from . import _clone, _numpy, _worker
from ._core import SharedArray, _decode, _encode, stats

if TYPE_CHECKING:
    from ._crew import Arrays

__all__ = ["PATIENCE", "REPLY_HEAD", "SHARED_FROM", "main", "read_frame", "write_frame"]

SHARED_FROM = 1 << 15  # bytes: smaller ndarrays are part of the message, which takes less time than a lease

REPLY_HEAD = 9  # bytes: how many array bytes the worker copied, which the parent counts as well, 8; whether the call's leases were ended
PATIENCE = 10.0  # seconds that a process has to end when it was told to

_busy = False
_NO_ARRAYS = pickle.dumps((), 5)


def write_frame(head: bytes, message: bytes, arrays: Arrays) -> tuple[bytes, bytes]:
    """A frame, and the part of it that has the leases."""
    pickled = pickle.dumps(arrays, 5) if arrays else _NO_ARRAYS
    return b"".join((head, pickled, message)), pickled


def read_frame(frame: bytes, head: int) -> tuple[bytes, memoryview, Arrays]:
    """Head, message and arrays; this ends the leases."""
    file = io.BytesIO(frame)
    first = file.read(head)
    arrays = pickle.load(file)
    return first, memoryview(frame)[file.tell() :], arrays


def main(connection: Connection[bytes, bytes], main_by_value: bool) -> None:
    _clone.finder = _find
    # Ctrl-C reaches every process of a terminal. What it means here is decided by the parent, which terminates its workers or not.
    signal.signal(signal.SIGINT, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.register_at_fork(after_in_child=connection.close)  # a task's children must not keep it open, nor speak for the worker
    threading.Thread(target=_end_with_parent, args=(connection.fileno(),), name="isthmus-parent", daemon=True).start()
    try:
        connection.send_bytes(b"")
        while _serve(connection, main_by_value):
            pass
    except (EOFError, OSError):
        pass  # the parent is gone


def _ignore(*_: object) -> None:
    """A handler and not SIG_IGN, which what a task starts would inherit."""


def _serve(connection: Connection[bytes, bytes], main_by_value: bool) -> bool:
    global _busy
    frame = connection.recv_bytes()
    if not frame:
        return False
    calls = [frame]
    del frame
    _busy = True
    reply = _answer(calls, main_by_value)
    _busy = False
    connection.send_bytes(reply)
    return True


def _answer(calls: list[bytes], main_by_value: bool) -> bytes:
    lent: list[SharedArray[Any]] = []
    was_read = False

    def dump(outcome: tuple[Any, ...]) -> tuple[bytes, Arrays]:
        return _encode(outcome, _worker.OUTCOME, main_by_value, SHARED_FROM, lent)

    def load() -> Any:
        nonlocal was_read
        installed, message, arrays = read_frame(calls.pop(), 1)
        was_read = True
        allocator.enter_context(_numpy.as_submitted(installed == b"\1"))  # here, so that a failure is told
        return _decode(message, arrays, lent)

    def frame_of(message: bytes, arrays: Arrays) -> bytes:
        copied = stats()["bytes_copied"] - before
        return write_frame(copied.to_bytes(8, "little") + bytes([was_read]), message, arrays)[0]

    before = stats()["bytes_copied"]
    with contextlib.ExitStack() as allocator:
        outcome = _worker.answer(load, dump)
        try:
            return frame_of(*outcome)
        except Exception as error:  # an array that can't be sent
            return frame_of(*_worker.failure(error, dump))


def _find(module: str, name: str) -> Any:
    """What a message from the parent names."""
    try:
        return _clone.imported(module, name)
    except AttributeError as error:
        if module in _clone.MAIN_NAMES:
            error.add_note(_worker.NOT_IN_MAIN)
        raise


def _end_with_parent(connection: int) -> None:
    """An idle worker sees by itself that its parent is gone. One with a task would finish that for nobody, or never end."""
    poll = select.poll()
    poll.register(connection, 0)  # only whether the other end was closed
    poll.poll()
    if _busy:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(2 * PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)
