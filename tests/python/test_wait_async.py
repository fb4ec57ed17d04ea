"""atomics.wait_async(): results, order among those that sleep and those that don't, cancellation, and ends of loops, interpreters and
processes."""

import asyncio
import gc
import os
import random
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any

import isthmus as ist
import pytest
import scripts
import wait_tasks as tasks
from allocations import fails_at
from isthmus import atomics

pytestmark = pytest.mark.matrix

DEADLINE = 120


@pytest.fixture(autouse=True)
def nobody_waits_on():
    yield
    gc.collect()
    assert ist.stats()["waiting"] == 0


def run(main: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(DEADLINE):
            return await main

    return asyncio.run(bounded())


async def turn() -> None:
    """The loop goes round once."""
    await asyncio.sleep(0)  # rule exception: it doesn't wait for anything


def until_waiting(n: int) -> None:
    end = time.monotonic() + DEADLINE
    while ist.stats()["waiting"] != n:
        assert time.monotonic() < end, f"{ist.stats()['waiting']} wait, not {n}"
        threading.Event().wait(0.001)


class Sleeper(threading.Thread):
    """Waits in a thread; behind everybody who waits already."""

    def __init__(self, a: Any, outcome: list[Any], name: str) -> None:
        super().__init__(name=name)
        self.a, self.outcome = a, outcome
        waiting = ist.stats()["waiting"]
        self.start()
        until_waiting(waiting + 1)

    def run(self) -> None:
        self.outcome.append((self.name, atomics.wait(self.a, 0, 0, DEADLINE)))


# ---- results


@pytest.mark.parametrize("dtype", ["i4", "u8"])
def test_results(dtype: str) -> None:
    async def main() -> None:
        a = ist.zeros(3, dtype)
        unequal = atomics.wait_async(a, 1, 5)
        assert unequal.done() and await unequal == "not-equal"
        assert await atomics.wait_async(a, 1, 5, 0) == "not-equal", "first that, then the time"
        for timeout in (0, -1, float("-inf")):
            over = atomics.wait_async(a, 1, 0, timeout)
            assert over.done() and await over == "timed-out"
        assert await atomics.wait_async(a, 1, 0, 0.01) == "timed-out"
        waiting = [atomics.wait_async(a, 1, 0), atomics.wait_async(a, 1, 0, DEADLINE), atomics.wait_async(a, 2, 0)]
        assert ist.stats()["waiting"] == 3 and not any(one.done() for one in waiting)
        assert atomics.notify(a, 1) == 2, "it waits from the call on, and not from the await"
        assert [await waiting[0], await waiting[1]] == ["ok", "ok"] and await waiting[0] == "ok"
        assert waiting[2].cancel() and not waiting[2].cancel() and waiting[2].done()
        with pytest.raises(asyncio.CancelledError):
            await waiting[2]
        assert atomics.notify(a, 2) == 0

    run(main())


def test_refused() -> None:
    a = ist.zeros(3, "i4")
    with pytest.raises(RuntimeError, match="no running event loop"):
        atomics.wait_async(a, 0, 0)

    async def main() -> None:
        for arguments, error, text in (
            ((ist.zeros(2, "i2"), 0, 0), TypeError, "wait_async.* needs an array of integers of 4 or 8 bytes"),
            ((ist.zeros(2), 0, 0), TypeError, "wait_async.* integers"),
            ((b"1234", 0, 0), TypeError, "a SharedArray, not bytes"),
            ((a, 3, 0), IndexError, "3"),
            ((a, 0, "x"), TypeError, "integer"),
            ((a, 0, 0, "x"), ValueError, "x"),
            ((a, 0, 0, float("nan")), ValueError, "timeout is not a number"),
        ):
            with pytest.raises(error, match=text):
                atomics.wait_async(*arguments)
        released = ist.zeros(1, "i4")
        released.release()
        with pytest.raises(ist.DetachedError):
            atomics.wait_async(released, 0, 0)

    run(main())


def test_the_array_stays_while_it_waits() -> None:
    async def main() -> None:
        a = ist.zeros(1, "i4")
        wait, b = atomics.wait_async(a, 0, 0), ist.attach(a.token())
        a.release()
        assert len(ist.segments()) == 1
        atomics.notify(b, 0)
        assert await wait == "ok"

    run(main())


def test_dropped() -> None:
    async def main() -> None:
        a = ist.zeros(1, "i4")
        atomics.wait_async(a, 0, 0)
        assert ist.stats()["waiting"] == 0
        kept = atomics.wait_async(a, 0, 0)
        dropped = [atomics.wait_async(a, 0, 0, DEADLINE)]
        last = atomics.wait_async(a, 0, 0)
        assert atomics.notify(a, 0, 2) == 2
        del kept, dropped  # neither has heard of it
        assert await last == "ok"
        assert a.owners == 1

    run(main())


# ---- who is woken


def test_the_longest_waiting_first_whether_it_sleeps_or_not() -> None:
    a, order = ist.zeros(1, "i4"), []

    async def main() -> None:
        waits = {}
        threads = []
        for i in range(8):
            if i % 2:
                threads.append(await asyncio.to_thread(Sleeper, a, order, str(i)))
            else:
                waits[i] = atomics.wait_async(a, 0, 0)
        for i in range(8):
            assert atomics.notify(a, 0, 1) == 1
            if i % 2:
                await asyncio.to_thread(threads[i // 2].join, DEADLINE)
                assert order[-1] == (str(i), "ok")
            else:
                assert await waits[i] == "ok"
                order.append((str(i), "ok"))
        assert [name for name, _ in order] == [str(i) for i in range(8)]

    run(main())


def test_a_cancelled_wait_passes_its_notification_on() -> None:
    async def main() -> None:
        a = ist.zeros(1, "i4")
        first, second, third = (atomics.wait_async(a, 0, 0) for _ in range(3))
        assert atomics.notify(a, 0, 1) == 1
        assert first.cancel()
        assert await second == "ok" and not third.done()

        # The loop has seen it, and the task is cancelled before it runs.
        async def use(wait: Any) -> None:
            await wait

        fourth = atomics.wait_async(a, 0, 0)
        task = asyncio.create_task(use(third))
        await turn()
        assert atomics.notify(a, 0, 1) == 1
        while not third.done():
            await turn()
        b = ist.attach(a.token())
        a.release()  # that there is something to pass on doesn't depend on the handle
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await fourth == "ok"
        assert await asyncio.wait_for(atomics.wait_async(b, 0, 0, 0), 5) == "timed-out"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(atomics.wait_async(b, 0, 0), 0.01)

    run(main())


def test_cancellation_storm() -> None:
    """Some are cancelled at random moments, some time out, more wait than are notified: so each notification is heard by somebody."""
    seed = int(os.environ.get("ISTHMUS_SEED") or random.randrange(1 << 30))
    print(f"ISTHMUS_SEED={seed}")
    dice = random.Random(seed)
    a = ist.zeros(2, "i4")
    heard = woken = 0

    async def one(i: int) -> None:
        nonlocal heard
        try:
            if await atomics.wait_async(a, 0, 0, dice.choice([None, None, 0.001, 0.01])) == "ok":
                heard += 1
        except asyncio.CancelledError:
            pass

    async def main() -> None:
        nonlocal woken
        steady = [asyncio.create_task(steadily()) for _ in range(400)]
        for _ in range(150):
            tasks = [asyncio.create_task(one(i)) for i in range(dice.randrange(1, 12))]
            for _ in range(dice.randrange(3)):
                await turn()
            for _ in range(dice.randrange(3)):
                woken += atomics.notify(a, 0, 1)
            for _ in range(dice.randrange(3)):
                await turn()
            for task in dice.sample(tasks, dice.randrange(len(tasks) + 1)):
                task.cancel()
            if dice.random() < 0.2:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        everything = asyncio.all_tasks() - {asyncio.current_task(), *steady}
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)
        while heard < woken:
            await turn()
        assert 0 < woken < 400
        for task in steady:
            task.cancel()
        await asyncio.gather(*steady, return_exceptions=True)
        assert heard == woken

    async def steadily() -> None:
        nonlocal heard
        try:
            assert await atomics.wait_async(a, 0, 0) == "ok"
            heard += 1
        except asyncio.CancelledError:
            pass

    run(main())


def test_thousands() -> None:
    async def main() -> None:
        a = ist.zeros(1, "i8")
        waits = [atomics.wait_async(a, 0, 0) for _ in range(5000)]
        assert atomics.notify(a, 0, 10) == 10
        assert await asyncio.gather(*waits[:10]) == ["ok"] * 10
        assert not waits[10].done() and atomics.notify(a, 0) == 4990
        assert await asyncio.gather(*waits) == ["ok"] * 5000

    run(main())


# ---- threads, interpreters, processes

INTERPRETER = pytest.param(
    "interpreter",
    marks=pytest.mark.skipif(sys.version_info < (3, 13), reason="3.12 aborts where two interpreters use asyncio, without isthmus too"),
)


def test_loops_of_several_threads() -> None:
    a, outcome = ist.zeros(1, "i4"), []

    def loop() -> None:
        async def main() -> None:
            outcome.append(await atomics.wait_async(a, 0, 0))

        run(main())

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    until_waiting(4)
    assert atomics.notify(a, 0) == 4
    for thread in threads:
        thread.join(DEADLINE)
    assert outcome == ["ok"] * 4


@pytest.mark.parametrize("kind", [INTERPRETER, "process", "thread"])
def test_between_workers(kind: str) -> None:
    a = ist.zeros(4, "i4")

    async def main(pool: ist.WorkerPool) -> None:
        for round_ in range(20):
            task = pool.submit(tasks.answer, a, round_)
            assert await atomics.wait_async(a, 1, round_, DEADLINE) in ("ok", "not-equal")
            assert a[1] == round_ + 1
            a[0] = round_ + 1
            atomics.notify(a, 0)
            assert await task == round_ + 1

    with ist.WorkerPool(1, kind) as pool:
        run(main(pool))


@pytest.mark.parametrize("kind", [INTERPRETER, "process"])
def test_a_worker_that_ends_while_it_waits(kind: str) -> None:
    """Its loop goes on waiting, for nobody: what it was given goes to the next."""
    a, outcome = ist.zeros(1, "i4"), []
    with ist.WorkerPool(1, kind) as pool:
        pool.submit(tasks.leave_waiting, a).result(DEADLINE)
        sleeper = threading.Thread(target=lambda: outcome.append(atomics.wait(a, 0, 0, DEADLINE)))
        before = ist.stats()["waiting"]
        sleeper.start()
        until_waiting(before + 1)
        assert atomics.notify(a, 0, 1) == 1
    ist.sweep()
    sleeper.join(DEADLINE)
    assert outcome == ["ok"]


def test_a_loop_that_is_closed_while_something_waits() -> None:
    a, outcome = ist.zeros(1, "i4"), []
    ist.atomics.notify(a, 0)
    descriptors = len(os.listdir("/proc/self/fd"))
    loop = asyncio.new_event_loop()

    async def begin() -> Any:
        return atomics.wait_async(a, 0, 0)

    wait = loop.run_until_complete(begin())
    sleeper = Sleeper(a, outcome, "next")
    assert atomics.notify(a, 0, 1) == 1
    loop.close()
    del loop, wait
    gc.collect()
    sleeper.join(DEADLINE)
    assert outcome == [("next", "ok")]
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_program_that_ends_while_it_waits(tmp_path: Any) -> None:
    source = """
        import asyncio
        import isthmus as ist

        a = ist.zeros(1, "i4")

        async def main():
            global wait
            wait = ist.atomics.wait_async(a, 0, 0)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        print(ist.stats()["waiting"])
    """
    assert scripts.run(scripts.write(tmp_path, source)).ok() == "1\n"


def test_failing_allocations() -> None:
    async def main() -> None:
        a = ist.zeros(1, "i4")
        atomics.wait_async(a, 0, 0).cancel()
        failures = n = quiet = 0
        while quiet < 3:
            failed = fails_at(n, lambda: atomics.wait_async(a, 0, 0, DEADLINE).cancel())
            failures += failed
            quiet = 0 if failed else quiet + 1
            n += 1
            assert ist.stats()["waiting"] == 0 and a.owners == 1, n
        assert failures > 0
        last = atomics.wait_async(a, 0, 0)
        atomics.notify(a, 0)
        assert await last == "ok"

    run(main())
