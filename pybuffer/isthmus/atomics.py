"""Atomic operations on the elements of integer arrays, as ECMAScript's Atomics: see the type stub for the whole."""

from ._core import _atomics

__all__ = sorted([*_atomics, "wait_async"])

globals().update(_atomics)


def wait_async(array, index, expected, timeout=None):
    """An awaitable of what wait() returns, for the running asyncio loop, in which nothing is blocked.

    The wait begins at once, among all others of the element in the order in which they began, and not when it is awaited.
    Cancelling it, or the task that awaits it, ends it; a notification that it had got then goes to the next. It ends also when
    it is dropped and when the interpreter ends. Besides being awaited it has done() and cancel(). RuntimeError: no loop is running.
    """
    from ._waiting import wait_async  # asyncio takes long to import

    return wait_async(array, index, expected, timeout)
