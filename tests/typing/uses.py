"""What type checkers make of isthmus: ./run check has mypy look at this file, and nothing runs it.

assert_type says what something is. A "type: ignore" with its code is a mistake that has to be found: if it isn't, the comment is one too
many, and that is an error too.
"""

import asyncio
import concurrent.futures
import math
from collections.abc import Buffer, Callable, Iterator
from typing import Any, Literal, assert_type

import isthmus as ist
from isthmus import atomics


def arrays() -> None:
    a = ist.zeros((3, 4), "f4", max_length=10)
    assert_type(a, ist.SharedArray[Any])
    assert_type(ist.buffer(16), ist.SharedArray[int])
    assert_type(ist.array([[1, 2], [3, 4]]), ist.SharedArray[Any])
    assert_type(ist.full(3, 1.5), ist.SharedArray[Any])
    assert_type(ist.asarray(memoryview(b"abc"), copy=False), ist.SharedArray[Any])
    ist.empty((2, 3), [("name", "U8"), ("xy", "f4", 2)])
    ist.zeros("3")  # type: ignore[arg-type]
    ist.zeros(2.5)  # type: ignore[arg-type]
    ist.zeros(3, 5)  # type: ignore[arg-type]
    ist.array(object())  # type: ignore[arg-type]
    ist.memmap("table.bin", mode="w")  # type: ignore[arg-type]

    assert_type(a.shape, tuple[int, ...])
    assert_type(a.dtype, ist.dtype)
    assert_type(a.dtype.names, tuple[str, ...] | None)
    assert_type(a.T, ist.SharedArray[Any])
    assert_type(a.owners, int)
    assert_type(a.max_length, int | None)
    assert_type(a.argmax(), int)
    a.shape = (4, 3)  # type: ignore[misc]
    a.reshape("4")  # type: ignore[arg-type]
    a.tobytes("X")  # type: ignore[arg-type]


def elements(a: ist.SharedArray[int]) -> None:
    assert_type(a[1:], ist.SharedArray[int])
    assert_type(a[...], ist.SharedArray[int])
    assert_type(a["name"], ist.SharedArray[Any])
    assert_type(len(a), int)
    a[0] = 5
    a[1:, 0] = [1, 2, 3]
    a[0.5] = 1  # type: ignore[index]
    a[0] = object()  # type: ignore[assignment]
    view: Buffer = a  # it has the buffer protocol
    assert_type(memoryview(a), memoryview[int])
    del view


def ownership(a: ist.SharedArray[int]) -> None:
    with a as same:
        assert_type(same, ist.SharedArray[int])
    assert_type(a.freeze(), ist.SharedArray[int])
    assert_type(a.transfer(), ist.Transfer)
    assert_type(a.token(), bytes)
    assert_type(a.split(3), list[ist.SharedArray[int]])
    assert_type(a.segment.exports, int | None)
    assert_type(a.segment.kind, Literal["heap", "file", "foreign", "queue", "lock"])
    assert_type([s.size for s in ist.segments()], list[int])
    assert_type(ist.stats(), dict[str, int])
    ist.attach(5)  # type: ignore[arg-type]

    class Mine(ist.SharedArray[int]):  # type: ignore[misc] # final
        pass


def half(n: int, *, up: bool = False) -> float:
    return math.ceil(n / 2) if up else n / 2


def pools() -> None:
    with ist.WorkerPool(2, kind="process") as pool:
        assert_type(pool, ist.WorkerPool)
        done = pool.submit(half, 5, up=True)
        assert_type(done, ist.Future[float])
        assert_type(done.result(), float)
        assert_type(pool.map(half, [1, 2]), Iterator[float])
        standard: concurrent.futures.Executor = pool
        pool.submit(half, "5")  # type: ignore[arg-type]
        pool.submit(half)  # type: ignore[call-arg]
        pool.submit(half, 5, down=True)  # type: ignore[call-arg]
    ist.WorkerPool(2, kind="thraed")  # type: ignore[arg-type]
    del standard


async def awaited(pool: ist.WorkerPool, jobs: ist.Queue[str], lock: ist.Lock) -> None:
    assert_type(await pool.submit(half, 5), float)
    assert_type(await jobs.aget(), str)
    async for job in jobs:
        assert_type(job, str)
    async with lock, asyncio.timeout(1):
        pass
    await jobs.aput(5)  # type: ignore[arg-type]


def queues() -> None:
    jobs = ist.Queue[tuple[str, int]](maxsize=8)
    jobs.put(("a", 1), timeout=2.5)
    assert_type(jobs.get(), tuple[str, int])
    assert_type([n for _, n in jobs], list[int])
    assert_type(ist.Queue(), ist.Queue[Any])
    jobs.put("a")  # type: ignore[arg-type]
    jobs.put(("a", 1), fallback="json")  # type: ignore[arg-type]


def locks() -> None:
    lock = ist.RLock()
    with lock as held:
        assert_type(held, bool)
    condition = ist.Condition(lock)
    assert_type(condition.wait_for(lambda: [1]), list[int])
    assert_type(ist.Barrier(2, action=lambda: None).wait(1), int)
    ist.Condition(ist.Semaphore())  # type: ignore[arg-type]
    ist.Semaphore("2")  # type: ignore[arg-type]


def clones() -> None:
    x = ist.clone({"jobs": [1, 2]})
    assert_type(x, dict[str, list[int]])
    data = ist.dumps(x)
    assert_type(data, ist.SharedArray[int])
    assert_type(ist.loads(data), Any)

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    encode: Callable[[Point], int] = lambda p: p.x  # noqa: E731
    ist.register_type(Point, encode, Point)
    ist.register_type(Point, encode, str)  # type: ignore[arg-type]
    ist.loads("text")  # type: ignore[arg-type]


def atomic(a: ist.SharedArray[int], floats: ist.SharedArray[float]) -> None:
    assert_type(atomics.add(a, 0, 5), int)
    assert_type(atomics.wait(a, (0, 1), 0, timeout=1.5), Literal["ok", "not-equal", "timed-out"])
    atomics.add(floats, 0, 5)  # type: ignore[arg-type]
    atomics.store(a, "0", 5)  # type: ignore[arg-type]


def errors() -> None:
    try:
        ist.attach(b"token")
    except ist.SegmentGoneError as error:
        gone: LookupError = error
        base: ist.Error = error
        del gone, base
    except ist.LockAbandonedError as abandoned:
        del abandoned
