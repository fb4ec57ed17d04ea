"""isthmus.atomics: values, what is refused, and waiting between threads, interpreters and processes."""

import math
import operator
import signal
import threading
from collections.abc import Callable
from typing import Any

import isthmus as ist
import pytest
import scripts
from hypothesis import given
from hypothesis import strategies as st
from isthmus import atomics
from processes import Group, empty, poll

pytestmark = pytest.mark.matrix

INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
MODIFIERS: dict[Callable[..., int], Callable[[int, int], int]] = {
    atomics.add: operator.add,
    atomics.sub: operator.sub,
    atomics.and_: operator.and_,
    atomics.or_: operator.or_,
    atomics.xor: operator.xor,
    atomics.exchange: lambda old, new: new,
}

# ---- values ----------------------------------------------------------------------------------------------------------


def wrapped(value: int, dtype: str) -> int:
    bits = int(dtype[1]) * 8
    value %= 1 << bits
    return value - (1 << bits) if dtype[0] == "i" and value >> (bits - 1) else value


@given(st.sampled_from(INTEGERS), st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
def test_values(dtype: str, old: int, value: int) -> None:
    with ist.zeros(3, dtype) as a:
        for modify, plain in MODIFIERS.items():
            assert atomics.store(a, 1, old) == old
            assert atomics.load(a, 1) == wrapped(old, dtype) == a[1]
            assert modify(a, 1, value) == wrapped(old, dtype)
            assert atomics.load(a, -2) == wrapped(plain(old, value), dtype) == a[1]
        atomics.store(a, 1, old)
        assert atomics.compare_exchange(a, 1, old + 1, value) == wrapped(old, dtype) == a[1]
        assert atomics.compare_exchange(a, 1, old, value) == wrapped(old, dtype)
        assert a.tolist() == [0, wrapped(value, dtype), 0]
        assert a.freeze().frozen, "nobody writes any more"
    assert not ist.segments(), "nor reads"


def test_indices() -> None:
    a = ist.array([[1, 2, 3], [4, 5, 6]], "i4")
    assert atomics.load(a, (1, -1)) == 6 and atomics.load(a.T, (2, 1)) == 6
    assert atomics.load(ist.array(7, "u8"), ()) == 7
    assert atomics.add(a[1], True and 1, 10) == 5 and a[1, 1] == 15
    for bad in (1, (0, slice(None)), (0, None, 1), ...):
        with pytest.raises(IndexError, match="one element is needed"):
            atomics.load(a, bad)  # type: ignore[arg-type]
    for index, error in (((0, 3), "index 3 is out of bounds for axis 1"), ((0, 1, 2), "too many indices"), ((0, 1.5), "only integers")):
        with pytest.raises(IndexError, match=error):
            atomics.store(a, index, 0)  # type: ignore[arg-type]
    assert a.tolist() == [[1, 2, 3], [4, 15, 6]]


@pytest.mark.parametrize("dtype", ["f8", "?", "c16", "S4", "M8[s]", ">i4" if ist.dtype("i4").str[0] == "<" else "<i4", [("x", "i4")]])
def test_not_integers(dtype: Any) -> None:
    with pytest.raises(TypeError, match="needs an array of integers in this machine's byte order, not of"):
        atomics.load(ist.zeros(3, dtype), 0)


def test_refused() -> None:
    a = ist.zeros(6, "i4")
    with pytest.raises(TypeError, match="needs a SharedArray, not bytearray"):
        atomics.add(bytearray(8), 0, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a contiguous array"):
        atomics.load(a[::2], 0)
    with pytest.raises(ValueError, match="isn't aligned"):
        atomics.load(ist.zeros(9, "u1")[1:].view("i4"), 1)
    with pytest.raises(TypeError):
        atomics.add(a, 0, 1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"add\(\) takes 3 arguments \(2 given\)"):
        atomics.add(a, 0)  # type: ignore[call-arg]
    for view in (a.toreadonly(), ist.zeros(2, "i4").freeze()):
        assert atomics.load(view, 0) == 0
        for modify in (atomics.store, *MODIFIERS):
            with pytest.raises(ValueError, match="the array is read-only"):
                modify(view, 0, 1)
        with pytest.raises(ValueError, match="the array is read-only"):
            atomics.compare_exchange(view, 0, 0, 1)
    a.release()
    for call in (lambda: atomics.load(a, 0), lambda: atomics.wait(a, 0, 0), lambda: atomics.notify(a, 0)):
        with pytest.raises(ist.DetachedError):
            call()


class Does:
    """An int that does something when it is asked for its value."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action

    def __index__(self) -> int:
        self.action()
        return 1


@pytest.mark.parametrize("modify", [atomics.store, *MODIFIERS])
def test_arguments_that_release_or_freeze(modify: Callable[..., int]) -> None:
    a = ist.zeros(4, "i4")
    with pytest.raises(ist.DetachedError):
        modify(a, 0, Does(a.release))
    a = ist.zeros(4, "i4")
    with pytest.raises(ist.DetachedError):
        modify(a, Does(a.release), 5)
    a = ist.zeros(4, "i4")
    with pytest.raises(ValueError, match="read-only"):
        modify(a, 0, Does(a.freeze))
    assert a.tolist() == [0, 0, 0, 0]


def test_is_lock_free_and_pause() -> None:
    assert [n for n in range(20) if atomics.is_lock_free(n)] == [1, 2, 4, 8]
    atomics.pause()
    atomics.pause(None)
    atomics.pause(100)
    with pytest.raises(TypeError):
        atomics.pause("x")  # type: ignore[arg-type]


def add_many(a: Any, times: int) -> None:
    from isthmus import atomics

    for _ in range(times):
        atomics.add(a, 0, 1)


@pytest.mark.parametrize("kind", ["interpreter", "process", "thread"])
@pytest.mark.parametrize("dtype", ["u2", "i8"])
def test_no_addition_is_lost(kind: Any, dtype: str) -> None:
    a = ist.zeros(1, dtype)
    with ist.WorkerPool(2, kind) as pool:
        for future in [pool.submit(add_many, a, 20_000) for _ in range(2)]:
            future.result()
    assert a[0] == 40_000


# ---- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", "u8"])
def test_results(dtype: str) -> None:
    a = ist.array([5, -1 if dtype[0] == "i" else 2**32 - 1], dtype)
    assert atomics.wait(a, 0, 6) == "not-equal"
    assert atomics.wait(a, 0, 5, 0) == "timed-out"
    assert atomics.wait(a, index=0, expected=5, timeout=1e-6) == "timed-out"
    assert atomics.wait(a, 1, -1 if dtype[1] == "4" or dtype[0] == "i" else 2**32 - 1, -3.0) == "timed-out"
    assert atomics.wait(a, 0, 5, -math.inf) == "timed-out"
    assert atomics.notify(a, 0) == atomics.notify(a, 0, 3) == 0
    with pytest.raises(ValueError, match="timeout is not a number"):
        atomics.wait(a, 0, 5, math.nan)
    with pytest.raises(TypeError):
        atomics.wait(a, 0, 5, "soon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="count is negative: -1"):
        atomics.notify(a, 0, -1)
    for small in ("i1", "u2"):
        with pytest.raises(TypeError, match="integers of 4 or 8 bytes"):
            atomics.wait(ist.zeros(2, small), 0, 0)
        with pytest.raises(TypeError, match="integers of 4 or 8 bytes"):
            atomics.notify(ist.zeros(2, small), 0)


class Waiters:
    """Threads that wait, started one after the other."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.results: list[tuple[int, str]] = []

    def add(self, a: Any, index: Any, expected: int, timeout: float | None = None) -> None:
        number = len(self.threads)
        self.threads.append(
            threading.Thread(daemon=True, target=lambda: self.results.append((number, atomics.wait(a, index, expected, timeout))))
        )
        self.threads[-1].start()
        assert poll(lambda: ist.stats()["waiting"] == number + 1, "asleep")

    def join(self) -> list[tuple[int, str]]:
        for thread in self.threads:
            thread.join(30)
        assert not any(t.is_alive() for t in self.threads)
        return self.results


def test_order_and_views() -> None:
    a = ist.zeros((2, 4), "i4")
    waiters = Waiters()
    for view, index in ((a, (1, 2)), (a[1], 2), (a.reshape(8), -2), (a.toreadonly(), (1, 2)), (a[1].view("i8"), 1)):
        waiters.add(view, index, 0)
    assert atomics.notify(a, (1, 3)) == 0
    for n in range(1, 5):
        assert atomics.notify(a[1, 2:], 0, 1) == 1
        assert poll(lambda n=n: len(waiters.results) == n, "woken")
    assert atomics.notify(a, (1, 2)) == 1
    assert waiters.join() == [(n, "ok") for n in range(5)]


def test_a_wait_holds_the_memory() -> None:
    a = ist.zeros(4, "i4")
    b = ist.attach(a.token())
    waiters = Waiters()
    waiters.add(a, 0, 0)
    a.release()
    assert b.owners == 2
    assert atomics.notify(b, 0) == 1
    assert waiters.join() == [(0, "ok")]
    assert b.owners == 1


def test_nobody_sleeps_on_when_the_value_was_changed() -> None:
    """Ping-pong: a wake-up that is lost would let both sleep."""
    a = ist.zeros(1, "i4")
    rounds = 3000

    def side(mine: int) -> None:
        for n in range(mine, rounds, 2):
            while (now := atomics.load(a, 0)) != n:
                assert atomics.wait(a, 0, now, 60) != "timed-out"
            atomics.add(a, 0, 1)
            atomics.notify(a, 0)

    threads = [threading.Thread(target=side, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert a[0] == rounds


def ping_pong(a: Any, mine: int, rounds: int) -> int:
    from isthmus import atomics

    for n in range(mine, rounds, 2):
        while (now := atomics.load(a, 0)) != n:
            if atomics.wait(a, 0, now, 60) == "timed-out":
                raise TimeoutError(f"nobody moved on from {now}")
        atomics.store(a, 0, n + 1)
        atomics.notify(a, 0, 1)
    return rounds


@pytest.mark.parametrize("kind", ["interpreter", "process", "thread"])
def test_ping_pong(kind: Any) -> None:
    a = ist.zeros(1, "i8")
    with ist.WorkerPool(2, kind) as pool:
        for future in [pool.submit(ping_pong, a, i, 2000) for i in range(2)]:
            assert future.result() == 2000
    assert a[0] == 2000


def test_strangers_and_the_killed() -> None:
    with Group() as group:
        one, two = group.one(), group.one()
        for peer in (one, two):
            peer.run("import threading; from isthmus import atomics; results = []")
        token = one("(a := ist.zeros(4, 'i4')).token()")
        two.run("a = ist.attach(token)", token=token)
        wait = "thread = threading.Thread(target=lambda: results.append(atomics.wait(a, 1, 0, 60))); thread.start()"
        two.run(wait)
        assert poll(lambda: one("atomics.notify(a, 1)") == 1, "asleep")
        two.run("thread.join()")
        assert two("results") == ["ok"]
        # one that is killed asleep, or before it has heard of its notification, is in nobody's way
        three = group.one()
        three.run("import threading; from isthmus import atomics; results = []; a = ist.attach(token)", token=token)
        three.run(wait)
        assert poll(lambda: one("ist.stats()['processes']") == 3, "there")
        three.kill()
        two.run("results.clear(); " + wait)
        assert poll(lambda: one("atomics.notify(a, 1, 1)") + 1 and two("results") == ["ok"], "woken")
        two.run("thread.join(); a.release()")
        one.run("a.release()")
        empty(one, two)


CTRL_C = """
    import isthmus as ist
    from isthmus import atomics
    import threading

    a = ist.zeros(2, "i4")
    other = []
    thread = threading.Thread(target=lambda: other.append(atomics.wait(a, 0, 0)))
    try:
        print("ready", flush=True)
        atomics.wait(a, 0, 0)
    except KeyboardInterrupt:
        thread.start()
        while atomics.notify(a, 0, 1) == 0:
            atomics.pause(100)
        thread.join()
        print("stopped", other)
"""


def test_ctrl_c(tmp_path: Any) -> None:
    outcome = scripts.interrupt_when_ready(scripts.start(scripts.write(tmp_path, CTRL_C)))
    assert (outcome.status, outcome.out, outcome.err) == (0, "stopped ['ok']\n", "")


def test_signal_handlers_run_and_the_wait_goes_on() -> None:
    a = ist.zeros(1, "i4")
    ran: list[int] = []

    def handler(*_: Any) -> None:
        ran.append(1)
        if len(ran) == 3:
            atomics.notify(a, 0)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        assert atomics.wait(a, 0, 0, 60) == "ok"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(ran) >= 3


def sleep_for_ever(a: Any) -> str:
    from isthmus import atomics

    atomics.store(a, 1, 1)
    return atomics.wait(a, 0, 0)


def test_a_worker_that_waits_can_be_stopped() -> None:
    a = ist.zeros(2, "i4")
    with pytest.raises(KeyboardInterrupt), ist.WorkerPool(1) as pool:
        pool.submit(sleep_for_ever, a)
        assert poll(lambda: a[1] == 1, "asleep")
        raise KeyboardInterrupt
    assert atomics.notify(a, 0) == 0
    assert poll(lambda: a.owners == 1, "let go")
