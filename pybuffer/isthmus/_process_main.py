"""What runs in a worker process: the other end of _process_workers.py."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from . import _numpy, _payload, _worker
from ._core import SharedArray, stats

__all__ = ["COPIED", "PATIENCE", "main"]

COPIED = 8  # bytes of a reply before its frame: how many array bytes the worker copied, which the parent counts as well
PATIENCE = 10.0  # seconds that a process has to end when it was told to

_busy = False


def main(connection: Connection[bytes, bytes], main_by_value: bool) -> None:
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

    def dump(obj: object) -> tuple[bytes, _payload.Arrays]:
        return _payload.dumps(obj, main_by_value, ndarrays_shared=True, lent=lent)

    def load() -> Any:
        file = io.BytesIO(calls.pop())
        allocator.enter_context(_numpy.as_submitted(file.read(1) == b"\1"))  # here, so that a failure is told
        unpickler = _Unpickler(*_payload.read_frame(file))
        unpickler.lent = lent
        return unpickler.load()

    before = stats()["bytes_copied"]
    with contextlib.ExitStack() as allocator:
        try:
            frame = _payload.write_frame(*_worker.answer(load, dump))[0]
        except Exception as error:  # an array that can't be sent
            frame = _payload.write_frame(*_worker.failure(error, dump))[0]
    return (stats()["bytes_copied"] - before).to_bytes(COPIED, "little") + frame


class _Unpickler(_payload.Unpickler):
    def find_global(self, module: str, name: str) -> Any:
        try:
            return super().find_global(module, name)
        except AttributeError as error:
            if module in _payload.MAIN_NAMES:
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
