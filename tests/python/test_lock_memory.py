"""isthmus.Lock and its like when Python has no memory: nothing is taken, lost, left waiting or leaked."""

import contextlib
import gc
import threading
from collections.abc import Callable
from typing import Any

import isthmus as ist
import pytest
from allocations import fails_at
from lock_tasks import KINDS

pytestmark = pytest.mark.matrix


def _rebuilt(reduced: Any) -> Any:
    return reduced[0](*reduced[1])


ANY: dict[str, Callable[[Any], object]] = {
    "pickle": lambda x: _rebuilt(x.__reduce__()),
    "token": lambda x: ist.attach(x.token()),
    "clone": lambda x: ist.clone([x, {"x": x}]),
    "queue": lambda x: _through(x),
    "repr": repr,
    "segment": lambda x: x.segment,
}


def _through(x: Any) -> Any:
    q = ist.Queue[Any]()
    q.put([x] * 3)
    return q.get()


def until_it_succeeds(operation: Callable[[], object], after: Callable[[], None]) -> int:
    operation()  # what is imported or made once is there
    after()
    gc.collect()
    for n in range(400):
        failed = fails_at(n, operation)
        after()
        if not failed:
            return n
    pytest.fail("it never succeeded")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ANY)
def test_handles(kind: str, name: str) -> None:
    x = KINDS[kind]()

    def after() -> None:
        assert len(ist.segments()) == 1 and ist.stats()["in_flight"] == 0

    failures = until_it_succeeds(lambda: ANY[name](x), after)
    assert failures > 0


@pytest.mark.parametrize("kind", KINDS)
def test_new_ones(kind: str) -> None:
    def after() -> None:
        assert ist.segments() == []

    assert until_it_succeeds(KINDS[kind], after) > 0


@pytest.mark.parametrize("make", [ist.Lock, ist.RLock, lambda: ist.Semaphore(1), lambda: ist.BoundedSemaphore(1)])
def test_taking(make: Callable[[], Any]) -> None:
    x = make()

    def take() -> None:
        with x:
            if x.acquire(timeout=0.001):  # RLock
                x.release()

    def after() -> None:
        assert x.acquire(False), "it was left taken"
        x.release()

    until_it_succeeds(take, after)


@pytest.mark.parametrize("lock", [ist.Lock, ist.RLock])
def test_conditions(lock: type) -> None:
    c = ist.Condition(lock())

    def never() -> bool:  # made here, as 3.13.0 crashes where it has no memory for a function
        return False

    def wait() -> None:
        with c:
            c.notify_all()
            assert not c.wait(0.001)
            assert not c.wait_for(never, 0.001)

    def after() -> None:
        assert ist.stats()["waiting"] == 0
        assert c.acquire(False), "its lock was left taken"
        c.release()

    until_it_succeeds(wait, after)


def test_events() -> None:
    e = ist.Event()

    def use() -> None:
        e.clear()
        assert not e.wait(0.001)
        e.set()
        assert e.wait(0.001)

    def after() -> None:
        e.set()
        assert e.is_set() and e.wait(0)

    until_it_succeeds(use, after)


def test_barriers() -> None:
    alone, two = ist.Barrier(1, action=lambda: None), ist.Barrier(2)

    def use() -> None:
        assert alone.wait() == 0
        with contextlib.suppress(threading.BrokenBarrierError):
            two.wait(0.001)

    def after() -> None:
        assert alone.n_waiting == two.n_waiting == 0
        for b in (alone, two):
            if b.broken:
                b.reset()
        assert alone.wait(1) == 0

    until_it_succeeds(use, after)
