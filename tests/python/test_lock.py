"""isthmus.Lock and its like: what threading's tests don't have: crossing, owners that die, interpreters, asyncio."""

import copy
import math
import pickle
import signal
import textwrap
import threading
import weakref
from collections.abc import Callable
from typing import Any

import isthmus as ist
import pytest
import scripts
from carriers import Channel, Interpreter
from lock_tasks import KINDS, in_thread
from processes import poll

pytestmark = pytest.mark.matrix

kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
LOCKS = pytest.mark.parametrize("kind", [ist.Lock, ist.RLock])


def waiting(count: int) -> None:
    """Until so many threads of this process wait in a Condition."""
    poll(lambda: ist.stats()["waiting"] >= count, f"{count} wait")


# ---- handles ---------------------------------------------------------------------------------------------------------


@kinds
def test_handles(make: Callable[[], Any]) -> None:
    x = make()
    others = [
        copy.copy(x),
        copy.deepcopy(x),
        ist.clone(x),
        ist.clone([{"a": (x,)}])[0]["a"][0],
        pickle.loads(pickle.dumps(x)),
        ist.attach(x.token()),
    ]
    for other in others:
        assert other is not x and other == x and hash(other) == hash(x) and type(other) is type(x)
        assert other.segment.descriptor == x.segment.descriptor and other.segment.kind == "lock"
    assert x != make() and x != 1
    assert weakref.ref(x)() is x
    assert ist.stats()["locks"] == 1 and repr(x).startswith(f"<isthmus.{type(x).__name__} ")
    with pytest.raises(TypeError):
        type("Sub", (type(x),), {})
    for wrong in (ist.zeros(3).token(), ist.Queue().token()):
        with pytest.raises(ist.SegmentGoneError):
            ist.attach(wrong)
    with pytest.raises(ValueError, match="no buffer"):
        ist.asarray(x, copy=False)


def test_what_came_is_the_same() -> None:
    lock, semaphore, event = ist.Lock(), ist.Semaphore(2), ist.Event()
    theirs = pickle.loads(pickle.dumps([lock, semaphore, event]))
    lock.acquire()
    assert theirs[0].locked() and not theirs[0].acquire(False)
    theirs[0].release()
    assert not lock.locked()
    theirs[1].acquire()
    assert semaphore.value == 1
    theirs[2].set()
    assert event.wait(0)


def test_two_conditions_of_one_lock() -> None:
    lock = ist.RLock()
    one, two = ist.Condition(lock), ist.Condition(lock)
    again = ist.clone(one)
    assert one == again != two and one.segment == two.segment
    woken = []

    def wait(condition: Any) -> None:
        with condition:
            woken.append((condition, condition.wait(60)))

    joins = [in_thread(lambda c=c: wait(c)) for c in (one, two)]
    waiting(2)
    with lock:
        again.notify_all()
        two.notify(0)
    joins[0]()
    with two:
        two.notify()
    joins[1]()
    assert woken == [(one, True), (two, True)]


def test_condition_has_its_lock() -> None:
    lock = ist.Lock()
    condition = ist.Condition(lock)
    assert condition.acquire() and lock.locked() and not condition.acquire(False) and condition.locked()
    condition.release()
    assert not lock.locked()
    for wrong in (threading.Lock(), ist.Event(), 5):
        with pytest.raises(TypeError, match=r"Condition\(\) needs an isthmus.Lock or RLock, not"):
            ist.Condition(wrong)  # type: ignore[arg-type]
    condition = ist.Condition()
    with condition, condition:
        assert not in_thread(lambda: condition.acquire(False))()
        assert condition.wait(0) is False, "given back as often as it was taken, and taken again"
        assert not in_thread(lambda: condition.acquire(False))()
    assert in_thread(lambda: (condition.acquire(False), condition.release()))() == (True, None)


# ---- arguments -------------------------------------------------------------------------------------------------------


@LOCKS
def test_timeouts_of_acquire(kind: Any) -> None:
    ours, theirs = kind(), threading.Lock()
    cases: list[tuple[Any, ...]] = [
        *((True, t) for t in (-1, -1.0, 0, 0.0, 0.001, threading.TIMEOUT_MAX, 1e10, math.inf, math.nan, -2, -0.5, "1", None, 10**400)),
        *((False, t) for t in (-1, 0, 1, -2)),
    ]
    for case in cases:
        results = []
        for lock in (theirs, ours):
            try:
                results.append(lock.acquire(*case))
                lock.release()
            except Exception as error:
                results.append(type(error))
        assert results[0] == results[1], case


def test_timeouts_of_waits() -> None:
    for ours, theirs in ((ist.Event(), threading.Event()), (ist.Semaphore(0), threading.Semaphore(0))):
        wait = (lambda x, t: x.wait(t)) if isinstance(theirs, threading.Event) else (lambda x, t: x.acquire(timeout=t))
        for timeout in (0, -1, -0.5, 0.001, 1e100, math.inf, "1"):
            results = []
            for x in (theirs, ours):
                try:
                    results.append(wait(x, timeout))
                except Exception as error:
                    results.append(type(error))
            assert results[0] == results[1], timeout
        assert wait(ours, math.nan) is False


def test_refused() -> None:
    for call, kind, text in (
        (lambda: ist.Lock(1), TypeError, "takes no arguments"),  # type: ignore[call-arg]
        (lambda: ist.Event(1), TypeError, "takes no arguments"),  # type: ignore[call-arg]
        (lambda: ist.Semaphore(-1), ValueError, "must be >= 0, not -1"),
        (lambda: ist.Semaphore(1 << 40), OverflowError, "at most 2147483647 permits, not 1099511627776"),
        (lambda: ist.Semaphore().release(0), ValueError, "one or more, not 0"),
        (lambda: ist.Semaphore().release(1 << 40), OverflowError, "1099511627776 more don't fit"),
        (lambda: ist.Barrier(0), ValueError, "from 1 to 1048576, not 0"),
        (lambda: ist.Barrier(1 << 30), ValueError, "not 1073741824"),
        (lambda: pickle.dumps(ist.Barrier(2, print)), TypeError, "a Barrier with an action can't cross"),
        (lambda: ist.clone(ist.Barrier(2, print)), TypeError, "a Barrier with an action can't cross"),
        (lambda: ist.Lock().release(), RuntimeError, "release unlocked lock"),
        (lambda: ist.RLock().release(), RuntimeError, "cannot release un-acquired lock"),
        (lambda: ist.Condition().wait(), RuntimeError, "cannot wait on un-acquired lock"),
        (lambda: ist.Condition().notify(), RuntimeError, "cannot notify on un-acquired lock"),
        (lambda: ist.Semaphore().acquire(False, 1), ValueError, "non-blocking"),
    ):
        with pytest.raises(kind, match=text):
            call()


def test_threading_s_condition_over_our_rlock() -> None:
    lock = ist.RLock()
    condition = threading.Condition(lock)  # type: ignore[arg-type]
    with condition, condition:
        assert not condition.wait(0.01)
        assert lock._recursion_count() == 2
    with pytest.raises(ValueError, match="isn't acquired 0 times"):
        lock._acquire_restore(0)


# ---- an action, cycles -----------------------------------------------------------------------------------------------


def test_action() -> None:
    done: list[int] = []
    barrier = ist.Barrier(2, lambda: done.append(1))
    joins = [in_thread(barrier.wait) for _ in range(2)]
    assert sorted(join() for join in joins) == [0, 1] and done == [1]
    failing = ist.Barrier(2, lambda: 1 // 0)
    joins = [in_thread(failing.wait) for _ in range(2)]
    assert sorted(type(join()).__name__ for join in joins) == ["BrokenBarrierError", "ZeroDivisionError"]
    assert failing.broken
    failing.reset()
    assert not failing.broken and failing.n_waiting == 0

    class Cycle:
        barrier: Any

        def __call__(self) -> None: ...

    cycle = Cycle()
    cycle.barrier = ist.Barrier(1, cycle)
    assert cycle.barrier.wait() == 0


def test_barrier_s_timeout_goes_along() -> None:
    barrier = ist.clone(ist.Barrier(2, timeout=0.01))
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    assert barrier.broken and barrier.parties == 2


# ---- interpreters ----------------------------------------------------------------------------------------------------


@kinds
def test_to_another_interpreter(make: Callable[[], Any]) -> None:
    x = make()
    with Interpreter() as other, Channel() as channel:
        channel.put(x)
        other.run(f"import isthmus; {channel.there}; x = get(); put(x)")
        got = channel.get()
        assert got == x and type(got) is type(x)
        other.run("del x")


@LOCKS
def test_an_interpreter_that_ends_abandons(kind: Any) -> None:
    lock, free = kind(), kind()
    with Interpreter() as other, Channel() as channel:
        channel.put(lock)
        channel.put(free)
        other.run(f"""
            import builtins, isthmus
            {channel.there}
            builtins.kept = lock, free = get(), get()
            lock.acquire(); free.acquire(); free.release()
        """)
        assert lock.locked() and not in_thread(lambda: lock.acquire(timeout=0.01))()
        waiter = in_thread(lambda: lock.acquire(timeout=60))
    assert isinstance(waiter(), ist.LockAbandonedError), "it is told who waits"
    assert not lock.locked() and lock.acquire(False), "once"
    assert free.acquire(False)
    lock.release()
    free.release()


def test_abandoned_and_dropped_by_its_interpreter() -> None:
    lock = ist.Lock()
    with Interpreter() as other, Channel() as channel:
        channel.put(lock)
        other.run(f"import isthmus; {channel.there}; lock = get(); lock.acquire(); del lock")
        assert lock.locked(), "this process has a handle still, and that interpreter could get another"
    assert "abandoned" in repr(lock)
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        lock.release()
    with pytest.raises(ist.LockAbandonedError, match="whoever held this Lock is gone"), lock:
        raise AssertionError("not held")
    with lock:
        assert lock.locked()


def test_condition_between_interpreters() -> None:
    condition, items = ist.Condition(), ist.zeros(1, "i8")
    with Interpreter() as other, Channel() as channel:
        channel.put(condition)
        channel.put(items)

        def fill() -> None:
            for _ in range(100):
                with condition:
                    items[0] += 1
                    condition.notify()
                    condition.wait_for(lambda: items[0] == 0, 60)

        filled = in_thread(fill)
        other.run(f"""
            import isthmus
            {channel.there}
            condition, items = get(), get()
            for _ in range(100):
                with condition:
                    assert condition.wait_for(lambda: items[0] == 1, 60)
                    items[0] = 0
                    condition.notify()
            del condition, items
        """)
        assert filled() is None


def test_workers_count(tmp_path: Any) -> None:
    source = """
        import isthmus as ist
        from worker_task import count

        if __name__ == "__main__":
            for kind in (ist.Lock, ist.RLock):
                lock, number = kind(), ist.zeros(1, "i8")
                with ist.WorkerPool(3) as pool:
                    for future in [pool.submit(count, lock, number, 300) for _ in range(6)]:
                        future.result()
                assert number[0] == 1800
                del lock, number
            assert ist.segments() == [], ist.segments()
            print("counted")
    """
    scripts.write(
        tmp_path,
        textwrap.dedent("""
        def count(lock, number, times):
            for _ in range(times):
                with lock:
                    number[0] = number[0] + 1
    """),
        "worker_task.py",
    )
    assert scripts.run(scripts.write(tmp_path, source)).ok() == "counted\n"


# ---- signals, ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    ["lock.acquire()", "condition.wait()", "semaphore.acquire()", "event.wait()", "barrier.wait()", "condition.wait_for(lambda: False)"],
)
def test_ctrl_c(tmp_path: Any, call: str) -> None:
    script = scripts.write(
        tmp_path,
        f"""
        import os, signal, threading, isthmus as ist
        lock, condition, semaphore, event, barrier = ist.Lock(), ist.Condition(), ist.Semaphore(0), ist.Event(), ist.Barrier(2)
        lock.acquire()
        condition.acquire()
        try:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            {call}
        except KeyboardInterrupt:
            print("stopped", condition.acquire(False), barrier.n_waiting, barrier.broken)
        condition.release()
        condition.release()
        del lock, condition, semaphore, event, barrier
        assert ist.segments() == []
        """,
    )
    assert scripts.run(script).ok() == "stopped True 0 False\n"


def test_a_signal_handler_that_returns_doesn_t_end_it() -> None:
    event, seen = ist.Event(), []
    before = signal.signal(signal.SIGALRM, lambda *_: (seen.append(1), event.set() if len(seen) == 3 else None))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        assert event.wait(60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) >= 3


def test_a_thread_that_ends_abandons_its_rlock() -> None:
    lock, plain = ist.RLock(), ist.Lock()
    in_thread(lambda: (lock.acquire(), plain.acquire()))()
    poll(lambda: not lock.locked(), "the thread has ended")
    assert plain.locked(), "anybody may release it"
    plain.release()
    with pytest.raises(ist.LockAbandonedError):
        lock.acquire()
    assert lock.acquire(False)
    lock.release()


def test_nobody_starves() -> None:
    """Threads of one interpreter take turns at the GIL as well, so this says little; plain_lock.c has it without one."""
    lock, over, counts = ist.Lock(), threading.Event(), [0] * 4

    def hammer(i: int) -> None:
        while not over.is_set():
            with lock:
                counts[i] += 1

    joins = [in_thread(lambda i=i: hammer(i)) for i in range(4)]
    poll(lambda: min(counts) > 200, lambda: f"{counts}")
    over.set()
    for join in joins:
        join()


def test_what_stays_open(tmp_path: Any) -> None:
    """A process that ends while it holds a lock, and threads that wait: nothing hangs, nothing is said."""
    script = scripts.write(
        tmp_path,
        """
        import threading, isthmus as ist
        lock, event = ist.Lock(), ist.Event()
        lock.acquire()
        threading.Thread(target=event.wait, daemon=True).start()
        print("end")
        """,
    )
    assert scripts.run(script).ok() == "end\n"
