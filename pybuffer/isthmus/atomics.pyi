"""Atomic operations on the elements of integer arrays: ECMAScript's Atomics, between threads, interpreters and processes.

The array's elements are integers of 1, 2, 4 or 8 bytes in this machine's byte order (else TypeError), the array is contiguous and its
elements aligned (else ValueError). An index is what a full index of the array is: an int, or a tuple of as many ints as it has dimensions;
negative ones count from the end. Values are taken modulo 2 to the power of the element's bits; what comes back is the value before. Every
operation is sequentially consistent. A read-only array can only be loaded, waited on and notified (else ValueError).
"""

from collections.abc import Awaitable
from typing import Literal, Protocol, SupportsFloat, SupportsIndex, type_check_only

from ._core import SharedArray

__all__ = [
    "add",
    "and_",
    "compare_exchange",
    "exchange",
    "is_lock_free",
    "load",
    "notify",
    "or_",
    "pause",
    "store",
    "sub",
    "wait",
    "wait_async",
    "xor",
]

_Index = SupportsIndex | tuple[SupportsIndex, ...]

def load(array: SharedArray[int], index: _Index, /) -> int: ...
def store(array: SharedArray[int], index: _Index, value: SupportsIndex, /) -> int:
    """The element becomes value, modulo 2 to the power of its bits. Returns value, as it was given."""

def add(array: SharedArray[int], index: _Index, value: SupportsIndex, /) -> int: ...
def sub(array: SharedArray[int], index: _Index, value: SupportsIndex, /) -> int: ...
def and_(array: SharedArray[int], index: _Index, value: SupportsIndex, /) -> int: ...
def or_(array: SharedArray[int], index: _Index, value: SupportsIndex, /) -> int: ...
def xor(array: SharedArray[int], index: _Index, value: SupportsIndex, /) -> int: ...
def exchange(array: SharedArray[int], index: _Index, value: SupportsIndex, /) -> int: ...
def compare_exchange(array: SharedArray[int], index: _Index, expected: SupportsIndex, replacement: SupportsIndex, /) -> int: ...
def is_lock_free(nbytes: SupportsIndex, /) -> bool: ...
def pause(n: SupportsIndex | None = None, /) -> None:
    """Tells the processor that this is a loop that waits, up to n (at most 1,000) times."""

def wait(
    array: SharedArray[int], index: _Index, expected: SupportsIndex, timeout: SupportsFloat | None = None
) -> Literal["ok", "not-equal", "timed-out"]:
    """Sleeps until notify() of this element, by whoever shares it.

    Returns `"ok"`, `"not-equal"` (at once, if the element isn't expected) or `"timed-out"`.
    Elements of 4 or 8 bytes (else TypeError). timeout: seconds; None or inf: no limit; 0 and negative ones: at once; NaN: ValueError. Who
    has waited longest is woken first, and nobody without a notification; a notification for a wait that ends otherwise meanwhile (by
    Ctrl-C, by the death of its process) goes to the next. Signal handlers run in the main thread; an exception that ends a worker arrives
    within 0.1 s. MemoryError: 16,128 threads of the domain wait already.
    """

@type_check_only
class _Waiting(Awaitable[Literal["ok", "not-equal", "timed-out"]], Protocol):
    def done(self) -> bool:
        """Whether it has a result, or was cancelled."""

    def cancel(self) -> bool:
        """Ends the wait; whoever awaits it gets CancelledError. False: it is done already."""

def wait_async(array: SharedArray[int], index: _Index, expected: SupportsIndex, timeout: SupportsFloat | None = None) -> _Waiting:
    """An awaitable of what wait() returns, for the running asyncio loop (else RuntimeError), in which nothing is blocked.

    The wait begins at once, among all others of the element in the order in which they began, and not when it is awaited:
    `"not-equal"`, and `"timed-out"` where timeout is 0 or negative, are there at once. Cancelling it, or the task that awaits it, ends it;
    a notification that it had got then goes to the next. It ends also when it is dropped (also after its loop was closed) and when the
    interpreter ends. Only its loop's thread uses it. From another process the notification comes by way of the housekeeper thread.
    MemoryError: 16,128 of the domain wait already. OSError: no eventfd can be had.
    """

def notify(array: SharedArray[int], index: _Index, count: SupportsIndex | None = None) -> int:
    """Wakes up to count (None: all) of those that wait on the element, the longest waiting first; returns how many. Never blocks."""
