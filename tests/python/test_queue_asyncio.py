"""isthmus.Queue in asyncio: aput, aget, ajoin, async for; cancellation; several loops, interpreters and processes at once; fileno()."""

import asyncio
import gc
import os
import random
import select
import sys
import threading
import weakref
from collections.abc import Coroutine
from typing import Any

import isthmus as ist
import pytest
import queue_tasks
from isthmus import _queue
from processes import Group

pytestmark = pytest.mark.matrix


def run[T](main: Coroutine[Any, Any, T]) -> T:
    result = asyncio.run(asyncio.wait_for(main, 60))
    assert all(not loop.is_closed() for loop, _, _ in _queue._readers), "nothing of the loop that has ended"
    return result


async def turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)  # rule exception: it gives the loop a turn, and sleeps no time


def test_what_is_there_needs_no_waiting() -> None:
    async def main() -> None:
        q = ist.Queue[Any]()
        await q.aput(1)
        await q.aput([ist.array([2])], transfer=())
        assert await q.aget() == 1 and (await q.aget())[0].tolist() == [2]
        a = ist.zeros(3)
        await q.aput(a, transfer=[a])
        assert a.detached and (await q.aget()).nbytes == 24
        with pytest.raises(TypeError):
            await q.aput()  # type: ignore[call-arg]
        with pytest.raises(ist.CloneError):
            await q.aput(lambda: 0)

    run(main())


def test_producers_and_consumers_in_one_loop() -> None:
    async def main() -> None:
        q = ist.Queue[int](3)
        got: list[int] = []

        async def consume() -> None:
            async for item in q:
                got.append(item)
                q.task_done()

        async def produce(start: int) -> None:
            for i in range(start, start + 100):
                await q.aput(i)

        consumers = [asyncio.create_task(consume()) for _ in range(3)]
        await asyncio.gather(*(produce(100 * k) for k in range(3)))
        await q.ajoin()
        q.shutdown()
        await asyncio.gather(*consumers)
        assert sorted(got) == list(range(300))
        with pytest.raises(ist.ShutDown):
            await q.aput(1)
        with pytest.raises(ist.ShutDown):
            await q.aget()

    run(main())


@pytest.mark.parametrize("what", ["get", "put", "join"])
def test_cancelled(what: str) -> None:
    async def main() -> None:
        q = ist.Queue[int](1)
        if what != "get":
            q.put(0)
        call = {"get": q.aget, "put": lambda: q.aput(1), "join": q.ajoin}[what]
        tasks = [asyncio.create_task(call()) for _ in range(3)]  # type: ignore[operator]
        await turns()
        tasks[0].cancel()
        await turns()
        assert [t.done() for t in tasks] == [True, False, False]
        if what == "get":
            q.put(5)
            assert await tasks[1] == 5
            tasks[2].cancel()
        elif what == "put":
            assert q.get() == 0
            await asyncio.wait(tasks[1:], return_when=asyncio.FIRST_COMPLETED)
            assert q.get() == 1
            await asyncio.wait(tasks[1:])
            assert q.get() == 1 and q.empty()
        else:
            q.get()
            q.task_done()
            await asyncio.gather(*tasks[1:])
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main())


def test_one_that_is_cancelled_as_a_message_comes_has_taken_nothing() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)

    async def main() -> None:
        q = ist.Queue[int]()
        got, sent = [], 0
        for _ in range(300):
            task = asyncio.create_task(q.aget())
            await turns(dice.randrange(4))
            if dice.random() < 0.7:
                q.put(sent)
                sent += 1
            await turns(dice.randrange(4))
            task.cancel()
            try:
                got.append(await task)
            except asyncio.CancelledError:
                pass
        while not q.empty():
            got.append(q.get())
        assert got == list(range(sent))

    run(main())


def test_loops_in_several_threads_share_a_handle() -> None:
    q = ist.Queue[int](5)
    got: list[list[int]] = [[], []]

    async def consume(into: list[int]) -> None:
        async for item in q:
            into.append(item)

    threads = [threading.Thread(target=lambda into=into: asyncio.run(consume(into))) for into in got]
    for thread in threads:
        thread.start()

    async def produce() -> None:
        for i in range(500):
            await q.aput(i)

    run(produce())
    q.shutdown()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert sorted(got[0] + got[1]) == list(range(500)) and got[0] == sorted(got[0])
    assert not _queue._readers


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            "interpreter",
            marks=pytest.mark.skipif(
                sys.version_info < (3, 13), reason="3.12's asyncio corrupts memory when two interpreters run it at once"
            ),
        ),
        "process",
        "thread",
    ],
)
def test_between_loops_of_several_interpreters_and_processes(kind: str) -> None:
    q, back = ist.Queue[Any](2), ist.Queue[Any](2)

    async def main() -> None:
        async def feed() -> None:
            for i in range(200):
                await q.aput([i, ist.full(2, i, "i8")])
            q.shutdown()

        feeding = asyncio.create_task(feed())
        for i in range(200):
            n, a = await back.aget()
            assert n == i and a.tolist() == [i, i]
        await feeding

    with ist.WorkerPool(1, kind=kind) as workers:  # type: ignore[arg-type]
        done = workers.submit(queue_tasks.relay, q, back)
        run(main())
        assert done.result() == 200


def test_a_loop_that_is_closed_with_waiters_leaves_nothing() -> None:
    q = ist.Queue[Any]()
    loop = asyncio.new_event_loop()
    task = loop.create_task(q.aget())
    loop.run_until_complete(turns())
    assert _queue._readers and not task.done()
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    _queue._close_abandoned()  # as the next one does that waits
    gc.collect()
    assert not _queue._readers
    q.put(1)
    assert q.get() == 1
    weak = weakref.ref(q)
    del q
    assert weak() is None


def test_released_while_coroutines_wait() -> None:
    async def main() -> None:
        q = ist.Queue[Any](1)
        q.put(0)
        other, third = ist.attach(q.token()), ist.attach(q.token())
        tasks = [asyncio.create_task(call()) for call in (other.ajoin, lambda: other.aput(1))]
        await turns()
        other.release()
        fd = third.fileno()  # may have the number of a descriptor that was closed
        for task in tasks:
            with pytest.raises(ist.DetachedError):
                await task
        q.get()
        task = asyncio.create_task(third.aget())
        await turns()
        q.put(3)
        assert await task == 3 and third.fileno() == fd

    run(main())


def test_fileno() -> None:
    q = ist.Queue[Any](1)
    fd = q.fileno()

    def readable() -> bool:
        return bool(select.select([fd], [], [], 0)[0])

    assert q.fileno() == fd and not readable()
    q.put(1)
    assert readable()
    assert q.get() == 1
    with pytest.raises(_queue.Empty):
        q.get_nowait()
    assert not readable()
    room, done = q._room_fileno(), q._done_fileno()
    assert len({fd, room, done}) == 3
    q.put(2)
    assert not q._has_room() and not q._is_done()
    assert not select.select([room, done], [], [], 0)[0]
    q.get(), q.task_done(), q.task_done()
    assert set(select.select([room, done], [], [], 0)[0]) == {room, done}
    q.shutdown()
    assert readable()
    q.release()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_another_process_is_heard() -> None:
    q, full = ist.Queue[Any](), ist.Queue[Any](1)
    full.put(0)
    with Group() as group:
        (one,) = group.start(1)
        one.run("q = ist.attach(a); full = ist.attach(b)", a=q.token(), b=full.token())

        async def main() -> None:
            get, put, join = asyncio.create_task(q.aget()), asyncio.create_task(full.aput(1)), asyncio.create_task(full.ajoin())
            await turns()
            one.run("q.put('there')")
            assert await get == "there"
            one.run("full.get()")
            await put
            assert not join.done()
            one.run("full.get(); full.task_done(); full.task_done()")
            await join

        run(main())
        one.run("q.release(); full.release()")
