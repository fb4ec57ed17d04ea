"""WorkerPool of every kind. What ends the program, or needs a script of its own, is in test_pool_scripts.py; what only one kind has is in
test_pool_kinds.py."""

import array
import asyncio
import concurrent.futures
import functools
import gc
import os
import sys
import threading
import time
import warnings

import isthmus as ist
import pool_tasks as tasks
import pytest
from isthmus.pool import BrokenWorkerPool

pytestmark = pytest.mark.matrix

DEADLINE = 120


def until(condition):
    """Waits for something that nobody can be waited on for."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        threading.Event().wait(0.001)


def copied():
    return ist.stats()["bytes_copied"]


@pytest.fixture(params=["interpreter", "process", "thread"])
def kind(request):
    return request.param


@pytest.fixture
def pool(kind):
    with ist.WorkerPool(2, kind) as pool:
        yield pool


elsewhere = pytest.mark.parametrize("kind", ["interpreter", "process"], indirect=True)  # where calls are messages


def test_it_is_an_executor(pool):
    assert isinstance(pool, concurrent.futures.Executor)
    future = pool.submit(divide := tasks.divide, 6, b=3)
    assert isinstance(future, ist.Future) and isinstance(future, concurrent.futures.Future)
    assert future.result(DEADLINE) == 2
    assert divide(6, b=3) == 2
    assert list(concurrent.futures.as_completed([future])) == [future]


def test_the_workers_run_at_the_same_time(pool):
    flags = ist.zeros(2, "i4")
    assert sorted(f.result(DEADLINE) for f in [pool.submit(tasks.meet, flags, i) for i in range(2)]) == [0, 1]


# ---- arrays --------------------------------------------------------------------------------------------------------


def test_an_array_goes_by_reference(pool, kind):
    before = copied()
    a = ist.zeros((3, 4))
    pid, thread = pool.submit(tasks.fill, a[1:], 7.0).result(DEADLINE)
    assert (pid != os.getpid()) == (kind == "process") and (kind == "process" or thread != threading.get_ident())
    assert a.tolist() == [[0.0] * 4, [7.0] * 4, [7.0] * 4]
    back = pool.submit(tasks.identity, a).result(DEADLINE)
    back[0, 0] = 9
    assert a[0, 0] == 9 and back.segment.id == a.segment.id
    assert copied() == before


def test_arrays_anywhere_in_arguments_and_results(pool):
    before = copied()
    a, b = ist.zeros(3, "i8"), ist.zeros(4, "i8")
    parcel = tasks.Parcel("there", {"deep": (a, [a])})
    back = pool.submit(tasks.fill_inside, parcel, extra=b).result(DEADLINE)
    assert a.tolist() == [3] * 3 and b.tolist() == [4] * 4
    assert back.label == "back" and back.content[0].segment.id == a.segment.id
    back.content[1][0] = 8
    assert b.tolist() == [4, 8, 4, 4]
    assert copied() == before


def test_identity_is_kept_inside_a_call(pool):
    a = ist.zeros(1)
    x, y = pool.submit(tasks.identity, (a, a)).result(DEADLINE)
    assert x is y and x.segment.id == a.segment.id


def test_an_array_made_in_a_worker_outlives_it(kind):
    with ist.WorkerPool(1, kind) as pool:
        a = pool.submit(tasks.make, 4).result(DEADLINE)
    assert a.tolist() == [5] * 4
    assert a.owners == 1 and a.segment.processes <= 1


def test_a_read_only_handle_stays_read_only(pool):
    a = ist.zeros(2)
    with pytest.raises(ValueError, match="read-only"):
        pool.submit(tasks.fill, a.toreadonly(), 1).result(DEADLINE)
    assert a.tolist() == [0, 0]


@elsewhere
def test_the_sender_may_let_go_at_once(kind):
    flag = ist.zeros(2, "i4")
    with ist.WorkerPool(1, kind) as pool:
        first = ist.full(1000, 1.0)
        futures = [pool.submit(tasks.wait_and_sum, flag, first), pool.submit(tasks.wait_and_sum, flag, first)]
        first.release()
        until(lambda: flag[0])
        flag[1] = 1
        assert [f.result(DEADLINE) for f in futures] == [1000, 1000]


def test_nothing_is_held_after_the_result(pool):
    a = ist.zeros(10)
    for _ in range(20):
        pool.submit(tasks.identity, [a]).result(DEADLINE)
    with pytest.raises(ValueError):
        pool.submit(tasks.fail_with, a).result(DEADLINE)
    until(lambda: gc.collect() >= 0 and a.owners == 1 and a.segment.processes <= 1)
    assert ist.stats()["leases"] == 0


def test_an_exception_may_carry_an_array(pool):
    a = ist.zeros(2)
    error = pool.submit(tasks.fail_with, a).exception(DEADLINE)
    error.args[1][:] = 6
    assert a.tolist() == [6, 6]


@elsewhere
def test_other_buffers_are_copied_and_counted(pool):
    before = copied()
    content = array.array("d", range(100))
    assert pool.submit(tasks.identity, content).result(DEADLINE) == content
    assert copied() - before == 1600  # there and back


@elsewhere
def test_a_copy_made_by_a_worker_is_counted(pool):
    before = copied()
    assert len(pool.submit(tasks.numbers, 50).result(DEADLINE)) == 50
    assert copied() - before == 400


# ---- what goes wrong in a task -------------------------------------------------------------------------------------


@elsewhere
def test_an_exception_comes_back_with_its_traceback(pool):
    error = pool.submit(tasks.divide, 1, 0).exception(DEADLINE)
    assert type(error) is ZeroDivisionError and str(error) == "division by zero"
    text = str(error.__cause__)
    assert "pool_tasks.py" in text and "in divide" in text and "ZeroDivisionError: division by zero" in text
    assert "_worker.py" not in text, "frames of isthmus itself tell the user nothing"
    assert "direct cause" in str(pool.submit(tasks.chain).exception(DEADLINE).__cause__)


@elsewhere
@pytest.mark.parametrize(
    ("task", "text"),
    [
        (("unmakeable", 1), "pool_tasks.Unmakeable: 1"),
        (("stubborn", "x"), "pool_tasks.Stubborn: x"),
        (("last", "y"), "pool_tasks.Last: y"),
        (("exit", 3), "SystemExit: 3"),
        (("interrupt",), "KeyboardInterrupt"),
    ],
)
def test_exceptions_that_cannot_come_back(kind, task, text):
    with ist.WorkerPool(1, kind) as pool:
        error = pool.submit(tasks.fail, *task).exception(DEADLINE)
        assert type(error) is ist.WorkerError and str(error) == text
        assert "in fail" in str(error.__cause__)
        assert pool.submit(tasks.divide, 1, 1).result(DEADLINE) == 1, "the worker goes on"


@elsewhere
def test_exceptions_come_back_as_they_are(pool):
    picky = pool.submit(tasks.fail, "picky", 1, 2).exception(DEADLINE)
    assert type(picky) is tasks.Picky and picky.args == (1,), "its __init__ isn't run again"
    chained = pool.submit(tasks.chain).exception(DEADLINE)
    assert type(chained) is KeyError and type(chained.__context__) is ZeroDivisionError
    lock = pool.submit(tasks.fail_over_a_lock).exception(DEADLINE)
    assert type(lock) is KeyError and lock.__context__ is None, "what it was raised over can't be sent, so it comes without"
    assert "RuntimeError: ('locked'" in str(lock.__cause__)


@elsewhere
def test_what_can_only_be_pickled(pool):
    """Each by itself, but what two of them share is shared there; what a class says of its pickles is done; its arrays by reference."""
    a = ist.zeros(3)
    shared = tasks.Plain([1])
    x, y, twice = pool.submit(tasks.identity, (tasks.Plain(shared), tasks.Plain(shared), [shared, a])).result(DEADLINE)
    assert type(x) is tasks.Plain and x.content is y.content is twice[0] and twice[1].segment.id == a.segment.id
    stateful = pool.submit(tasks.identity, tasks.Stateful(a)).result(DEADLINE)
    assert stateful.lock is None and stateful.a.segment.id == a.segment.id
    assert pool.submit([1, 2, 1].count, 1).result(DEADLINE) == 2, "a builtin method"
    assert pool.submit(functools.partial(tasks.divide, 8), b=2).result(DEADLINE) == 4


@elsewhere
def test_long_messages(pool):
    """What is long travels as an array; nothing of it stays."""
    words = [f"{i:>100}" for i in range(20_000)]
    assert pool.submit(tasks.identity, words).result(DEADLINE) == words
    content = os.urandom(3 << 20)
    assert pool.submit(tasks.identity, {"content": content}).result(DEADLINE) == {"content": content}
    until(lambda: ist.segments() == [])


@elsewhere
@pytest.mark.skipif(not os.environ.get("ISTHMUS_FULL"), reason="needs several GiB; ISTHMUS_FULL")
def test_a_gibibyte(pool):
    content = bytes(1 << 30)
    back, size = pool.submit(tasks.with_length, content).result(DEADLINE)
    assert size == len(back) == 1 << 30 and back == content


@elsewhere
def test_deep_and_wide_data(pool):
    deep = []
    for i in range(100_000):
        deep = [deep, i]
    back = pool.submit(tasks.identity, deep).result(DEADLINE)
    for i in reversed(range(100_000)):
        back, number = back
        assert number == i
    cycle = {"values": list(range(100_000)), "names": {f"k{i}": (i, None) for i in range(10_000)}}
    cycle["self"] = cycle
    back = pool.submit(tasks.identity, cycle).result(DEADLINE)
    assert back["self"] is back and back["values"] == cycle["values"] and back["names"] == cycle["names"]


@elsewhere
def test_a_result_that_cannot_be_sent(pool):
    error = pool.submit(tasks.unpicklable).exception(DEADLINE)
    assert isinstance(error, TypeError) and "sending its result" in "".join(error.__notes__) and "at result." in "".join(error.__notes__)


@elsewhere
@pytest.mark.parametrize("argument", [(i for i in ()), threading.Lock()], ids=["generator", "lock"])
def test_a_call_that_cannot_be_sent(pool, argument):
    a = ist.zeros(3)
    future = pool.submit(tasks.identity, [a, argument])
    assert future.done(), "nothing was sent"
    error = future.exception()
    assert isinstance(error, TypeError)
    assert "at args[0][1]." in error.__notes__[0] and "sending the call" in error.__notes__[1]
    del future, error
    assert a.owners == 1
    assert pool.submit(tasks.divide, 4, 2).result(DEADLINE) == 2


@elsewhere
def test_a_detached_array_is_an_error_of_the_call(pool):
    a = ist.zeros(3)
    a.release()
    with pytest.raises(ist.DetachedError):
        pool.submit(tasks.identity, a).result(DEADLINE)


# ---- workers -------------------------------------------------------------------------------------------------------


@elsewhere
def test_the_environment_is_the_parents(pool, kind):
    path, argv, cwd, heavy = pool.submit(tasks.environment).result(DEADLINE)
    assert path == [entry for entry in sys.path if isinstance(entry, str)]
    assert argv == sys.argv and cwd == os.getcwd()
    assert not heavy or kind == "process", "a worker doesn't need the pool"


def test_the_initializer_runs_once_in_each_worker(kind):
    a, flags = ist.zeros(1 << 14, "i8"), ist.zeros(2, "i4")
    with ist.WorkerPool(2, kind, initializer=tasks.initialise, initargs=("yes", a)) as pool:
        concurrent.futures.wait([pool.submit(tasks.meet, flags, i) for i in range(2)], DEADLINE)
        assert pool.submit(tasks.what_was_initialised).result(DEADLINE) == "yes"
    assert a.sum() == 2 and a.max() == 1
    del pool


def test_a_failing_initializer_breaks_the_pool(kind):
    with ist.WorkerPool(2, kind, initializer=tasks.initialise, initargs=("fail",)) as pool:
        futures = [pool.submit(tasks.divide, 1, 1)]
        try:
            futures += [pool.submit(tasks.divide, 1, 1) for _ in range(5)]
        except BrokenWorkerPool:
            pass  # it was that fast
        for future in futures:
            error = future.exception(DEADLINE)
            assert isinstance(error, BrokenWorkerPool) and isinstance(error, concurrent.futures.BrokenExecutor)
            assert isinstance(error.__cause__, LookupError)
            assert kind == "thread" or "no such thing" in str(error.__cause__.__cause__)
        with pytest.raises(BrokenWorkerPool, match="initializer"):
            pool.submit(tasks.divide, 1, 1)


def test_workers_start_when_needed_and_are_used_again(kind):
    with ist.WorkerPool(3, kind, thread_name_prefix="crew") as pool:
        names = lambda: sorted(t.name for t in threading.enumerate() if t.name.startswith("crew"))  # noqa: E731
        assert names() == []
        for _ in range(5):
            pool.submit(tasks.divide, 1, 1).result(DEADLINE)
            until(lambda: pool._crew.idle == 1)
        assert names() == ["crew_0"]
        flags = ist.zeros(2, "i4")
        concurrent.futures.wait([pool.submit(tasks.meet, flags, i) for i in range(2)], DEADLINE)
        assert names() == ["crew_0", "crew_1"]
    assert names() == []


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"kind": "fiber"}, ValueError, "'fiber'"),
        ({"max_workers": 0}, ValueError, "not 0"),
        ({"max_workers": -3}, ValueError, "not -3"),
        ({"max_workers": "two"}, TypeError, "str"),
        ({"max_workers": 1.5}, TypeError, "float"),
        ({"initializer": 3}, TypeError, "not 3"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        ist.WorkerPool(**arguments)


def test_the_default_is_one_worker_per_cpu():
    cpus = os.process_cpu_count() if sys.version_info >= (3, 13) else os.cpu_count()
    with ist.WorkerPool() as pool:
        assert pool._crew.size == cpus


# ---- map -----------------------------------------------------------------------------------------------------------


def test_map(pool):
    assert list(pool.map(divide := tasks.divide, [6, 4, 9], [3, 2, 9])) == [2, 2, 1]
    assert list(pool.map(divide, [1, 2], [1])) == [1]
    assert list(pool.map(divide, [], [])) == []
    a = ist.zeros(100, "i8")
    assert list(pool.map(tasks.increment, [a] * 100, range(100), chunksize=7)) == [None] * 100
    assert a.tolist() == [1] * 100


def test_map_raises_at_the_call_that_failed(pool):
    results = pool.map(tasks.divide, [1, 2, 3], [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_timeout(pool):
    flag = ist.zeros(2, "i4")
    results = pool.map(tasks.wait_for, [flag] * 3, timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)
    flag[1] = 1


def test_map_reads_no_further_than_the_buffer(pool):
    read = []

    def numbers():
        for i in range(20):
            read.append(i)
            yield i

    results = pool.map(tasks.identity, numbers(), buffersize=4)
    assert len(read) == 4
    assert next(results) == 0
    assert len(read) == 5
    assert list(results) == list(range(1, 20))


@pytest.mark.parametrize("arguments", [{"chunksize": 0}, {"buffersize": 0}, {"chunksize": -1}])
def test_map_bad_arguments(pool, arguments):
    with pytest.raises(ValueError, match="at least 1"):
        pool.map(tasks.identity, [1], **arguments)


# ---- asyncio -------------------------------------------------------------------------------------------------------


def test_futures_can_be_awaited(pool):
    async def main():
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(*(pool.submit(tasks.divide, i, 1) for i in range(5)))
        assert results == [0, 1, 2, 3, 4]
        assert await loop.run_in_executor(pool, tasks.divide, 8, 2) == 4
        with pytest.raises(ZeroDivisionError):
            await pool.submit(tasks.divide, 1, 0)
        flag = ist.zeros(2, "i4")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await pool.submit(tasks.wait_for, flag)
        flag[1] = 1

    asyncio.run(main())


# ---- the end -------------------------------------------------------------------------------------------------------


def test_shutdown(pool):
    future = pool.submit(tasks.divide, 1, 1)
    pool.shutdown()
    assert future.result(0) == 1
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(tasks.divide, 1, 1)


def test_shutdown_can_cancel_what_has_not_begun(kind):
    flag = ist.zeros(2, "i4")
    a = ist.zeros(1)
    with ist.WorkerPool(1, kind) as pool:
        running = pool.submit(tasks.wait_for, flag, "done")
        waiting = [pool.submit(tasks.identity, a) for _ in range(3)]
        until(lambda: flag[0])
        assert not running.cancel() and waiting[0].cancel()
        pool.shutdown(wait=False, cancel_futures=True)
        assert all(future.cancelled() for future in waiting)
        assert a.owners == 1
        flag[1] = 1
        assert running.result(DEADLINE) == "done"


def test_a_pool_without_work_ends(kind):
    with warnings.catch_warnings(action="error"):
        with ist.WorkerPool(2, kind):
            pass
        ist.WorkerPool(2, kind)  # never had a worker
        gc.collect()


def test_a_dropped_pool_finishes_and_ends_its_workers(kind):
    flag = ist.zeros(2, "i4")
    pool = ist.WorkerPool(2, kind, thread_name_prefix="dropped")
    futures = [pool.submit(tasks.wait_for, flag, i) for i in range(5)]
    threads = [t for t in threading.enumerate() if t.name.startswith("dropped")]
    with pytest.warns(ResourceWarning, match="unclosed WorkerPool 'dropped'"):
        del pool
        gc.collect()
    flag[1] = 1
    assert [f.result(DEADLINE) for f in futures] == list(range(5))
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_terminate_workers(kind):
    flag = ist.zeros(2, "i4")
    with ist.WorkerPool(1, kind) as pool:
        running, waiting = pool.submit(tasks.wait_for, flag), pool.submit(tasks.divide, 1, 1)
        until(lambda: flag[0])
        pool.terminate_workers()
        with pytest.raises(ist.WorkerError, match="terminated"):
            running.result(0)
        assert waiting.cancelled()
        with pytest.raises(RuntimeError, match="shut down"):
            pool.submit(tasks.divide, 1, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_leaving_the_block_by_an_interrupt_ends_what_runs(kind, error):
    flag = ist.zeros(2, "i4")
    with pytest.raises(error):
        with ist.WorkerPool(1, kind) as pool:
            futures = [pool.submit(tasks.wait_for, flag) for _ in range(3)]
            until(lambda: flag[0])
            raise error
    assert isinstance(futures[0].exception(0), ist.WorkerError)
    assert futures[1].cancelled() and futures[2].cancelled()


def test_leaving_the_block_by_another_error_waits(kind):
    with pytest.raises(LookupError):
        with ist.WorkerPool(1, kind) as pool:
            future = pool.submit(tasks.divide, 1, 1)
            raise LookupError
    assert future.result(0) == 1


def test_many_threads_share_a_pool(pool):
    a = ist.zeros(8, "i8")

    def use(i):
        for _ in range(25):
            pool.submit(tasks.increment, a, i).result(DEADLINE)

    threads = [threading.Thread(target=use, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert a.tolist() == [25] * 8
