"""atomics.wait_async(): waits on elements of arrays as awaitables of asyncio loops.

Each loop has one eventfd, which it reads; libisthmus writes to it when one of the loop's waits was notified, from whatever process.

Ownership: a loop's _Waits is owned by the loop's reader of the eventfd and by what wait_async() returned. So it goes when the loop
is closed and these are dropped; then what still waits is cancelled, and a notification that nobody has heard goes to the next waiter.
Threads: a loop's waits are touched by its thread alone, but for the end of an interpreter or a loop.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import weakref
from collections.abc import Generator
from typing import Any

from ._core import SharedArray, _Wait, _wait_begin

__all__ = ["wait_async"]


class _Waits:
    """What waits in one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.pending: dict[_Wait, asyncio.Future[str]] = {}
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.pid = os.getpid()
        try:
            loop.add_reader(self.fd, self.look)
        except BaseException:
            os.close(self.fd)
            self.fd = -1
            raise

    def look(self) -> None:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        for wait, future in list(self.pending.items()):
            if wait.poll() is not None:
                self._over(wait, future, "ok")

    def finish(self, wait: _Wait) -> None:
        """Its time is up."""
        future = self.pending.get(wait)
        if future is not None:
            self._over(wait, future, wait.finish() or "timed-out")

    def _over(self, wait: _Wait, future: asyncio.Future[str], outcome: str) -> None:
        del self.pending[wait]
        if not future.done():
            future.set_result(outcome)

    def drop(self, wait: _Wait) -> None:
        """Nobody is interested any more."""
        self.pending.pop(wait, None)
        wait.let_go()

    def end(self) -> None:
        while self.pending:
            self.pending.popitem()[0].let_go()
        if self.fd >= 0 and self.pid == os.getpid():
            os.close(self.fd)
        self.fd = -1

    __del__ = end


_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[_Waits]] = weakref.WeakKeyDictionary()
_all: weakref.WeakSet[_Waits] = weakref.WeakSet()


def _waits_of(loop: asyncio.AbstractEventLoop) -> _Waits:
    known = _of_loops.get(loop)
    waits = None if known is None else known()
    if waits is None or waits.fd < 0 or waits.pid != os.getpid():
        waits = _Waits(loop)
        _of_loops[loop] = weakref.ref(waits)
        _all.add(waits)
    return waits


@atexit.register
def _end_all() -> None:
    """This interpreter ends: no loop of it will hear of anything."""
    for waits in list(_all):
        waits.end()


class _Waiting:
    """What wait_async() returns."""

    __slots__ = ("__weakref__", "_future", "_timer", "_wait", "_waits")

    def __init__(self, array: SharedArray[Any], index: Any, expected: Any, timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._waits = _waits_of(loop)
        self._future: asyncio.Future[str] = loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._wait: _Wait | None = None
        begun = _wait_begin(array, index, expected, self._waits.fd)
        if isinstance(begun, str):
            self._future.set_result(begun)
            return
        self._wait = begun
        self._waits.pending[begun] = self._future
        if timeout is not None and timeout <= 0:
            self._waits.finish(begun)
        elif timeout is not None:
            self._timer = loop.call_later(timeout, self._waits.finish, begun)

    def done(self) -> bool:
        """Whether it has a result, or was cancelled."""
        return self._future.done()

    def cancel(self) -> bool:
        """Ends the wait; whoever awaits it gets CancelledError. False: it is done already."""
        cancelled = self._future.cancel()
        if cancelled:
            self._drop()
        return cancelled

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._wait is not None:
            self._waits.drop(self._wait)

    def __await__(self) -> Generator[Any, None, str]:
        try:
            return (yield from self._future.__await__())
        except asyncio.CancelledError:
            heard = self._future.done() and not self._future.cancelled() and self._future.result() == "ok"
            if heard and self._wait is not None:
                self._wait.pass_on()  # the task was cancelled before it ran
            raise
        finally:
            self._drop()

    def __del__(self) -> None:
        if hasattr(self, "_timer"):  # else __init__ failed early
            self._drop()


def wait_async(array: SharedArray[Any], index: Any, expected: Any, timeout: float | None = None) -> _Waiting:
    """An awaitable of what wait() would return, for the running asyncio loop; the wait begins at once."""
    if timeout is not None:
        timeout = float(timeout)
        if math.isnan(timeout):
            raise ValueError("timeout is not a number")
        if math.isinf(timeout):
            timeout = None if timeout > 0 else 0.0
    return _Waiting(array, index, expected, timeout)
