"""`async with` for locks and semaphores: a coroutine waits for a descriptor (an eventfd) that says when to try again; no threads.

A try never takes anything without returning at once, so a coroutine that is cancelled has taken nothing, and what it was woken for
goes to the next one: the descriptor stays readable until somebody has tried.
"""

from __future__ import annotations

from typing import Protocol

from ._queue import _readable


class _Acquirable(Protocol):
    def acquire(self, blocking: bool = True) -> bool: ...
    def release(self) -> None: ...
    def _fileno(self) -> int: ...
    def _clear(self) -> None: ...
    def _tell(self) -> None: ...


async def enter(lock: _Acquirable) -> bool:
    if lock.acquire(False):
        return True
    fd = lock._fileno()
    while True:
        lock._clear()
        if lock.acquire(False):
            lock._tell()  # a semaphore may have more
            return True
        await _readable(lock, "lock", fd)


async def leave(lock: _Acquirable) -> None:
    lock.release()
