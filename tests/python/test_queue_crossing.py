"""isthmus.Queue between threads, interpreters and processes: by which ways a handle gets there, order, each message once, ends."""

import concurrent.futures
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from typing import Any

import isthmus as ist
import pytest
import queue_tasks
from carriers import VERSION, Channel, Interpreter
from processes import Group

pytestmark = pytest.mark.matrix
KINDS = ["interpreter", "process", "thread"]
CARRIED = f"import sys; sys.path[:] = {sys.path!r}\n"


def pool(kind: str, n: int) -> ist.WorkerPool:
    return ist.WorkerPool(n, kind=kind)  # type: ignore[arg-type]


# ---- ways ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_and_results_of_workers(kind: str) -> None:
    q, back = ist.Queue[Any](2), ist.Queue[Any]()
    with pool(kind, 1) as workers:
        done = workers.submit(queue_tasks.ping, q, back)
        for item in (1, "two", {"three": [3]}, ist.array([4])):
            q.put(item)
            assert repr(back.get()) == repr(item)
        q.shutdown()
        assert done.result() == 4
        made = workers.submit(queue_tasks.make, 5).result()
    pid, a = made.get()
    assert made.maxsize == 5 and (pid != os.getpid()) == (kind == "process") and a.tolist() == [1, 2, 3], "a message outlives its sender"


def test_cross_interpreter_data() -> None:
    q = ist.Queue[Any](3)
    with Interpreter() as other, Channel() as channel:
        channel.put(q)
        other.run(
            CARRIED
            + channel.there
            + "\nimport isthmus as ist; q = get(); q.put([q, ist.array([5])])\nassert q.maxsize == 3; put(ist.Queue(4))"
        )
        same, a = q.get()
        assert same == q and a.tolist() == [5]
        theirs = channel.get()
        assert theirs.maxsize == 4 and theirs != q
    theirs.put(1)
    assert theirs.get() == 1, "it outlives the interpreter that made it"
    assert a.tolist() == [5]


def test_siblings_need_not_know_their_parent() -> None:
    with Interpreter() as one, Interpreter() as two, Channel() as channel:
        one.run(CARRIED + channel.there + "\nimport isthmus as ist; q = ist.Queue(); put(q); q.put({'x': ist.array([1.5])})")
        two.run(CARRIED + channel.there + "\nq = get()")
        one.close()
        two.run("assert q.get()['x'].tolist() == [1.5] and q.empty()")


@pytest.mark.skipif(VERSION < (3, 14), reason="concurrent.interpreters came with 3.14")
def test_concurrent_interpreters() -> None:
    with concurrent.futures.InterpreterPoolExecutor(1) as workers:  # type: ignore[attr-defined, unused-ignore]
        workers.submit(exec, CARRIED).result()
        q, back = ist.Queue[Any](), ist.Queue[Any]()
        done = workers.submit(queue_tasks.ping, q, back)
        q.put("hello")
        assert back.get() == "hello"
        q.shutdown()
        assert done.result() == 1


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_multiprocessing(method: str) -> None:
    context = multiprocessing.get_context(method)
    q, back = ist.Queue[Any](), ist.Queue[Any](1)
    process = context.Process(target=queue_tasks.ping, args=(q, back))
    process.start()
    for i in range(100):
        q.put((i, ist.full(2, i)))
    for i in range(100):
        n, a = back.get()
        assert n == i and a.tolist() == [i, i]
    q.shutdown()
    process.join()
    assert process.exitcode == 0


def test_process_pool_executor() -> None:
    q = ist.Queue[Any](4)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as workers:
        done = [workers.submit(queue_tasks.produce, q, who, 30) for who in range(2)]
        got = [q.get() for _ in range(60)]
        assert sorted(d.result() for d in done) == [0, 1]
    assert len(got) == 60


def test_a_forked_child_has_what_its_parent_had() -> None:
    with Group() as group:
        (one,) = group.start(1)
        one.run("q = ist.Queue(3); q.put(1); fd = q.fileno()")
        child = one.fork()
        assert child("q.get()") == 1
        child.run("q.put([2, ist.array([3])])")
        assert one("str(q.get())").startswith("[2, SharedArray([3]")
        child.run("q.release()")
        one.run("q.put(4)")
        assert one("q.get()") == 4
        one.run("q.release(); assert not ist.segments()")


def test_an_interpreter_that_ends_gives_back_what_outlives_its_sweep() -> None:
    with Interpreter() as other:
        other.run(CARRIED + "import isthmus as ist, os; q = ist.Queue(); q.put([1] * 99); os.register_at_fork(before=q.put)")
        assert len(ist.segments()) == 1
    assert not ist.segments()


# ---- order, each once --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("producing", KINDS)
@pytest.mark.parametrize("consuming", KINDS)
def test_of_many_producers_and_consumers(producing: str, consuming: str) -> None:
    n, each = 3, 300
    q = ist.Queue[Any](7)
    with pool(producing, n) as producers, pool(consuming, 2) as consumers:
        consumed = [consumers.submit(queue_tasks.consume, q) for _ in range(2)]
        for done in [producers.submit(queue_tasks.produce, q, who, each) for who in range(n)]:
            done.result()
        q.join()
        q.shutdown()
        got = [c.result() for c in consumed]
    for one in got:
        for who in range(n):
            numbers = [i for w, i in one if w == who]
            assert numbers == sorted(numbers), "of one sender in the order in which it put them"
    assert sorted(x for one in got for x in one) == [(who, i) for who in range(n) for i in range(each)]


def test_terminate_wakes_a_worker_that_waits() -> None:
    q = ist.Queue[Any](1)
    for task, arguments in ((queue_tasks.consume, (q,)), (queue_tasks.produce, (q, 0, 5))):
        workers = pool("interpreter", 1)
        done = workers.submit(task, *arguments)
        begin = time.monotonic()
        while task is queue_tasks.produce and not q.full():
            time.sleep(0.001)  # rule exception: between two looks
        workers.shutdown(wait=False, cancel_futures=True)
        workers.terminate_workers()
        with pytest.raises(Exception):  # noqa: B017
            done.result(timeout=60)
        workers.shutdown()
        assert time.monotonic() - begin < 60
    q.shutdown(immediate=True)


# ---- killed --------------------------------------------------------------------------------------------------------------------

STORM_SECONDS = float(os.environ.get("ISTHMUS_STRESS_SECONDS", "3"))


def test_processes_that_are_killed_at_any_moment() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    context = multiprocessing.get_context("spawn")
    q, ready = ist.Queue[Any](50), ist.Queue[int]()
    alive: list[Any] = []
    end = time.monotonic() + STORM_SECONDS
    try:
        while time.monotonic() < end:
            while len(alive) < 3:
                alive.append(context.Process(target=queue_tasks.disturb, args=(q, ready, dice.randrange(1 << 30))))
                alive[-1].start()
                ready.get(timeout=60)  # it has its arguments: one killed before leaves their lease
            limit = time.monotonic() + dice.random() * 0.5
            while time.monotonic() < limit:
                q.get(timeout=30)
            victim = alive.pop(dice.randrange(3))
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
    finally:
        for process in alive:
            process.kill()
            process.join()
    ist.sweep()
    last: dict[int, int] = {}
    item = None
    while not q.empty():
        item = q.get(timeout=10)
        if isinstance(item, tuple):
            assert item[1] > last.get(item[0], -1), "in order, and once"
            last[item[0]] = item[1]
        elif isinstance(item, list):
            assert item[1][0] == item[1][-1]
    q.put("goes on")
    assert q.get() == "goes on"
    del item
    q.release(), ready.release()
    ist.sweep()
    assert not ist.segments()


def test_interpreters_that_end_at_any_moment() -> None:
    q = ist.Queue[Any](20)
    got: list[Any] = []

    def drain() -> None:
        for item in q:
            got.append(item if isinstance(item, tuple) else (item["who"], item["i"]))

    thread = threading.Thread(target=drain)
    thread.start()
    for round_ in range(3):
        with pool("interpreter", 2) as workers:
            assert {w.result() for w in [workers.submit(queue_tasks.produce, q, 2 * round_ + k, 50) for k in range(2)]} == {
                2 * round_,
                2 * round_ + 1,
            }
    q.shutdown()
    thread.join(60)
    assert sorted(got) == [(who, i) for who in range(6) for i in range(50)]


# ---- memory of one process alone ---------------------------------------------------------------------------------------------------


def test_wrapped_memory_isnt_put_where_other_processes_are() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    a, leases = ist.from_arrow(pyarrow.array([1, 2, 3])), ist.stats()["leases"]
    with Group() as group:
        (one,) = group.start(1)
        with ist.Queue[Any]() as q:
            one.run("q = ist.attach(token)", token=q.token())
            with pytest.raises(BufferError, match=r"put isthmus\.array\(x\)"):
                q.put([a])
            q.put(ist.array(a))
            assert one("q.get().tolist()") == [1, 2, 3]
            one.run("q.release()")
    assert ist.stats()["leases"] == leases


def test_a_mapped_file_is_opened_again(tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    a = ist.memmap(tmp_path / "file", mode="r+")
    with Group() as group:
        (one,) = group.start(1)
        with ist.Queue[Any]() as q:
            one.run("q = ist.attach(token)", token=q.token())
            q.put({"a": a})
            one.run("a = q.get()['a']; a[0] = 74")
            assert a.tobytes() == b"Jello" and one("a.segment.kind") == "file"
            one.run("q.release(); a.release()")
