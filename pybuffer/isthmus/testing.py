"""For tests of programs that use isthmus: that nothing is left behind, and that nothing breaks under load.

    from isthmus.testing import no_leaks

    with no_leaks():
        work()

As a fixture for all tests of a folder, in its ``conftest.py``::

    from isthmus.testing import no_leaks_fixture
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ._core import SegmentInfo, segments, sweep

__all__ = ["hammer", "no_leaks"]


def _alive() -> dict[tuple[int, int], SegmentInfo]:
    return {(s.id, s.generation): s for s in segments()}


def _left(before: dict[tuple[int, int], SegmentInfo]) -> list[SegmentInfo]:
    return [info for key, info in _alive().items() if key not in before]


@contextlib.contextmanager
def no_leaks(timeout: float = 5.0) -> Iterator[None]:
    """Whatever is made inside is gone at the end: every segment of this process, with all owners, messages and leases of it.

    What other threads, interpreters and processes are about to let go of is waited for, ``timeout`` seconds at most. AssertionError names
    each segment that is left, and who made it. An exception from inside passes unchanged.
    """
    before = _alive()
    yield
    deadline = time.monotonic() + timeout
    if _left(before):
        gc.collect()
    while left := _left(before):
        sweep()
        if time.monotonic() >= deadline:
            raise AssertionError(_report(left))
        time.sleep(0.01)


def _report(left: list[SegmentInfo]) -> str:
    lines = ["1 segment is left behind:" if len(left) == 1 else f"{len(left)} segments are left behind:"]
    for s in left:
        lines.append(
            f"  {s.id}.{s.generation}: {s.kind}, {s.size} bytes, owners here: {s.owners}, processes: {s.processes}, "
            f"made by interpreter {s.created_by}"
        )
    lines.append("ISTHMUS_DEBUG=1 tells at the end of each interpreter where the owners that it still has were made")
    return "\n".join(lines)


def hammer(target: Callable[..., Any], *args: Any, threads: int = 4, seconds: float = 1.0) -> int:
    """Calls ``target(*args)`` again and again in that many threads at once, for that long, and at least once in each; how often.

    What one of the calls raises ends all of them, and is raised.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    start = threading.Barrier(threads)
    stop = threading.Event()
    counts, errors = [0] * threads, []

    def work(i: int) -> None:
        try:
            start.wait()
            end = time.monotonic() + seconds
            while True:
                target(*args)
                counts[i] += 1
                if stop.is_set() or time.monotonic() >= end:
                    return
        except BaseException as error:
            errors.append(error)
            stop.set()

    workers = [threading.Thread(target=work, args=(i,), name=f"hammer {i}") for i in range(threads)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        stop.set()
        start.abort()  # of those that wait for one that couldn't be started
    if errors:
        raise errors[0]
    return sum(counts)


def __getattr__(name: str) -> Any:
    if name != "no_leaks_fixture":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest  # only where it is asked for

    @pytest.fixture(autouse=True, name="no_leaks")
    def no_leaks_fixture() -> Iterator[None]:
        with no_leaks():
            yield

    return no_leaks_fixture
