"""What isthmus.Queue has of Python: its exceptions, and its way to wait in an asyncio loop.

A coroutine that finds nothing to do waits for a descriptor of the queue (an eventfd) that says when to look again; no threads. A look
never takes anything without returning it at once, so one that is cancelled has taken nothing.
"""

from __future__ import annotations

import asyncio
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


_Loop = asyncio.AbstractEventLoop
_Waiters = deque[asyncio.Future[None]]

_waiting: dict[tuple[_Loop, int], _Waiters] = {}  # who waits for a descriptor in a loop; an entry is there while its reader is


def _wake(waiters: _Waiters) -> None:
    # One at a time: while the descriptor stays readable, the loop comes back for the next.
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
            break


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    key = loop, fd
    waiter: asyncio.Future[None] = loop.create_future()
    waiters = _waiting.get(key)
    if waiters is None:
        waiters = _waiting[key] = deque()
        loop.add_reader(fd, _wake, waiters)
    waiters.append(waiter)
    try:
        await waiter
    finally:
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters and _waiting.get(key) is waiters:
            del _waiting[key]
            loop.remove_reader(fd)


async def aget(q: Queue[Any]) -> Any:
    while True:
        try:
            return q.get_nowait()
        except Empty:
            pass
        await _readable(q.fileno())


async def aput(q: Queue[Any], obj: Any, *, transfer: Any = (), fallback: Any = None) -> None:
    while True:
        try:
            return q.put_nowait(obj, transfer=transfer, fallback=fallback)
        except Full:
            pass
        fd = q._room_fileno()
        if not q._has_room():
            await _readable(fd)


async def ajoin(q: Queue[Any]) -> None:
    while True:
        fd = q._done_fileno()
        if q._is_done():
            return
        await _readable(fd)


async def items(q: Queue[Any]) -> AsyncIterator[Any]:
    while True:
        try:
            item = await aget(q)
        except ShutDown:
            return
        yield item
