"""What isthmus.Queue has of Python: its exceptions, and its way to wait in an asyncio loop.

A coroutine that finds nothing to do waits for a descriptor of the queue (an eventfd) that says when to look again; no threads. A look
never takes anything without returning it at once, so one that is cancelled has taken nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncIterator
from queue import Empty, Full
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core import Queue

__all__ = ["Empty", "Full", "ShutDown"]

if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """Raised by put of a queue that was shut down, and by get when it is empty."""


class _Reader:
    """Who waits in one loop for one side of one handle; there as long as somebody does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self.loop = loop
        self.fd = os.dup(fd)  # so that it isn't somebody else's when the handle is released meanwhile; which makes it readable
        self.waiters: deque[asyncio.Future[None]] = deque()
        try:
            loop.add_reader(self.fd, self._wake)
        except BaseException:
            os.close(self.fd)
            raise

    def _wake(self) -> None:
        # One at a time: while the descriptor stays readable, the loop comes back for the next.
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    def close(self) -> None:
        self.loop.remove_reader(self.fd)  # of a closed loop: does nothing
        os.close(self.fd)


_readers: dict[tuple[asyncio.AbstractEventLoop, int, str], _Reader] = {}  # by loop, handle and side


def _close_abandoned() -> None:
    for key in list(_readers):
        if key[0].is_closed():  # without its tasks having been cancelled
            _readers.pop(key).close()


async def _readable(q: object, side: str, fd: int) -> None:
    loop = asyncio.get_running_loop()
    key = loop, id(q), side
    reader = _readers.get(key)
    if reader is None:
        _close_abandoned()
        reader = _readers[key] = _Reader(loop, fd)
    waiter: asyncio.Future[None] = loop.create_future()
    reader.waiters.append(waiter)
    try:
        await waiter
    finally:
        if waiter in reader.waiters:
            reader.waiters.remove(waiter)
        if not reader.waiters and _readers.get(key) is reader:
            del _readers[key]
            reader.close()


async def aget(q: Queue[Any]) -> Any:
    while True:
        try:
            return q.get_nowait()
        except Empty:
            pass
        await _readable(q, "messages", q.fileno())


async def aput(q: Queue[Any], obj: Any, *, transfer: Any = (), fallback: Any = None) -> None:
    while True:
        try:
            return q.put_nowait(obj, transfer=transfer, fallback=fallback)
        except Full:
            pass
        fd = q._room_fileno()
        if not q._has_room():
            await _readable(q, "room", fd)


async def ajoin(q: Queue[Any]) -> None:
    while True:
        fd = q._done_fileno()
        if q._is_done():
            return
        await _readable(q, "done", fd)


async def items(q: Queue[Any]) -> AsyncIterator[Any]:
    while True:
        try:
            item = await aget(q)
        except ShutDown:
            return
        yield item
