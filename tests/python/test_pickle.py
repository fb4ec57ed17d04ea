"""Pickled arrays: by reference under a lease, or by value; foreign pickles."""

import asyncio
import contextvars
import copy
import dataclasses
import gc
import logging
import math
import os
import pickle
import sys
import threading
import time

import isthmus
import pytest
from carriers import Channel, Interpreter, run_script

pytestmark = pytest.mark.matrix

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@dataclasses.dataclass
class Box:
    name: str
    array: object


def numbered(n: int, dtype: str = "i8"):
    a = isthmus.empty(n, dtype)
    for i in range(n):
        a[i] = i
    return a


def stats(name: str) -> int:
    return isthmus.stats()[name]


@pytest.fixture
def short_lease():
    before = isthmus.set_pickle_lease(0.001)
    yield
    isthmus.set_pickle_lease(before)


def let_leases_run_out() -> None:
    deadline = time.monotonic() + 60
    while stats("leases"):
        isthmus.sweep()
        assert time.monotonic() < deadline


# ---- by reference ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_there_and_back(protocol):
    a = numbered(5)
    data = pickle.dumps(a, protocol)
    assert len(data) < 400 and (a.owners, stats("leases")) == (2, 1)
    b = pickle.loads(data)
    assert b.segment.id == a.segment.id and (a.owners, stats("leases")) == (2, 0)
    b[0] = 10
    assert a[0] == 10


def test_a_view_arrives_as_the_same_part():
    a = numbered(12)
    b = pickle.loads(pickle.dumps(a[10:1:-3].toreadonly()))
    assert (b.tolist(), b.strides, b.readonly) == ([10, 7, 4], (-24,), True)


def test_the_sender_lets_go_at_once():
    data = pickle.dumps(numbered(5))
    gc.collect()
    assert len(isthmus.segments()) == 1
    a = pickle.loads(data)
    assert a.tolist() == [0, 1, 2, 3, 4] and a.owners == 1


def test_containers():
    a, b = numbered(3), numbered(4)
    boxes = pickle.loads(pickle.dumps({"x": [a, a], "y": Box("b", b), "z": (a[1:],)}))
    assert boxes["x"][0] is boxes["x"][1]
    assert boxes["y"].array.tolist() == [0, 1, 2, 3] and boxes["z"][0].tolist() == [1, 2]
    assert stats("leases") == 0 and a.owners == 3 and b.owners == 2


def test_nothing_is_copied():
    before = stats("bytes_copied")
    a = isthmus.zeros(1_000_000)
    pickle.loads(pickle.dumps(a))
    assert stats("bytes_copied") == before


def test_pickling_twice():
    """Each pickle has a number of its own: one load doesn't end the other's lease."""
    a = numbered(5)
    one, two = pickle.dumps(a), pickle.dumps(a)
    assert (a.owners, stats("leases")) == (2, 1)
    a.release()
    b = pickle.loads(one)
    b.release()
    c = pickle.loads(two)
    assert c.tolist() == [0, 1, 2, 3, 4] and (c.owners, stats("leases")) == (1, 0)


def test_loading_twice_while_somebody_holds_it():
    data = pickle.dumps(numbered(5))
    a = pickle.loads(data)
    b = pickle.loads(data)
    assert a.owners == 2 and b.tolist() == [0, 1, 2, 3, 4]
    del b
    c = pickle.loads(data)
    assert c.owners == 2


def test_loading_twice_when_nobody_does():
    a = numbered(5)
    data = pickle.dumps(a)
    number, generation = a.segment.descriptor
    del a
    pickle.loads(data).release()
    with pytest.raises(isthmus.SegmentGoneError) as caught:
        pickle.loads(data)
    text = str(caught.value)
    assert f"segment {number} (generation {generation}) is gone" in text
    assert "set_pickle_lease" in text and "pickle_by_value" in text and "\n" not in text
    assert isinstance(caught.value, (isthmus.Error, LookupError))


def test_loading_after_the_lease_ended(short_lease, caplog):
    a = numbered(5)
    data = pickle.dumps(a)
    number = a.segment.descriptor[0]
    del a
    let_leases_run_out()
    assert not isthmus.segments()
    with caplog.at_level(logging.WARNING, "isthmus"), pytest.raises(isthmus.SegmentGoneError, match=f"segment {number} .*is gone"):
        pickle.loads(data)


def test_the_lease_ended_but_somebody_holds_it(short_lease):
    a = numbered(5)
    data = pickle.dumps(a)
    let_leases_run_out()
    assert pickle.loads(data).segment.id == a.segment.id


def test_each_number_has_its_own_deadline(short_lease):
    a = numbered(5)
    expired = stats("leases_expired")
    short = pickle.dumps(a)
    isthmus.set_pickle_lease(300)
    long = pickle.dumps(a)
    a.release()
    deadline = time.monotonic() + 60
    while stats("leases_expired") == expired:
        isthmus.sweep()
        assert time.monotonic() < deadline
    assert pickle.loads(long).tolist() == [0, 1, 2, 3, 4]
    del short
    assert stats("leases") == 0


def test_an_expired_lease_is_logged(short_lease, caplog):
    isthmus.sweep()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "isthmus"):
        for _ in range(3):
            pickle.dumps(numbered(5))
        let_leases_run_out()
        isthmus.stats()
    records = [r for r in caplog.records if r.name == "isthmus"]
    assert sum(r.args[0] for r in records) == 3
    assert all("set_pickle_lease" in r.getMessage() and r.levelname == "WARNING" for r in records)


def test_a_log_handler_that_raises_changes_nothing(short_lease):
    class Raises(logging.Handler):
        def emit(self, record):
            raise RuntimeError("from the handler")

    handler = Raises()
    logging.getLogger("isthmus").addHandler(handler)
    seen = []
    hook, sys.unraisablehook = sys.unraisablehook, seen.append
    try:
        data = pickle.dumps(numbered(5))
        let_leases_run_out()
        with pytest.raises(isthmus.SegmentGoneError):
            pickle.loads(data)
    finally:
        sys.unraisablehook = hook
        logging.getLogger("isthmus").removeHandler(handler)
    assert {s.exc_type for s in seen} == {RuntimeError}


def test_the_end_of_the_interpreter_does_not_end_its_leases():
    with Channel() as channel:
        with Interpreter() as sender:
            sender.run(channel.there + "\nimport isthmus, pickle\nput(pickle.dumps(isthmus.full(100, 2.5)).hex())")
            data = bytes.fromhex(channel.get())
        a = pickle.loads(data)
    assert a[99] == 2.5 and (a.owners, stats("leases")) == (1, 0)


def test_leases_are_bounded():
    """What only leases hold is at most a quarter of the heap; the oldest goes first."""
    told = run_script(
        """
        import isthmus, pickle
        data = [pickle.dumps(isthmus.full(1 << 17, i, "i8")) for i in range(64)]
        assert isthmus.stats()["allocated"] <= 17 << 20, isthmus.stats()  # and the newest
        a = pickle.loads(data[-1])
        assert a[5] == 63
        try:
            pickle.loads(data[0])
        except isthmus.SegmentGoneError:
            print("done")
        """,
        environment={"ISTHMUS_HEAP_SIZE": "64M"},
    )
    assert told.startswith("done")


def test_an_array_that_cannot_be_pickled():
    a = numbered(3)
    a.release()
    with pytest.raises(isthmus.DetachedError):
        pickle.dumps(a)
    with pytest.raises(isthmus.DetachedError):
        with isthmus.pickle_by_value():
            pickle.dumps(a)
    assert stats("leases") == 0


def test_copies_never_come_here():
    a = numbered(3)
    for b in copy.copy(a), copy.deepcopy(a):
        assert b.segment.id != a.segment.id and b.tolist() == a.tolist()
    assert stats("leases") == 0


@pytest.mark.parametrize("seconds", [0, -1, -0.0, math.nan, math.inf, -math.inf])
def test_a_lease_lasts_a_positive_time(seconds):
    with pytest.raises(ValueError, match=str(seconds)):
        isthmus.set_pickle_lease(seconds)


def test_set_pickle_lease():
    before = isthmus.set_pickle_lease(12.5)
    try:
        assert isthmus.set_pickle_lease(1e300) == 12.5
        assert isthmus.set_pickle_lease(True) > 86400 * 365
        for wrong in ["5", None, b"5", [], 1j]:
            with pytest.raises(TypeError):
                isthmus.set_pickle_lease(wrong)
    finally:
        isthmus.set_pickle_lease(before)


@pytest.mark.parametrize(
    "arguments, error",
    [
        ((), TypeError),
        ((b"x",), TypeError),
        ((b"x", "y"), TypeError),
        ((None, 1), TypeError),
        ((b"x", 1), ValueError),
        ((b"", 0), ValueError),
    ],
)
def test_foreign_pickles(arguments, error):
    class Forged:
        def __reduce__(self):
            return isthmus._core._rebuild, arguments

    with pytest.raises(error):
        pickle.loads(pickle.dumps(Forged()))


def test_a_wrong_number_loads_only_while_somebody_holds_it():
    a = numbered(3)
    rebuild, (token, number) = a.__reduce__()
    assert rebuild(token, number + 1000).owners == 3 and stats("leases") == 1
    assert rebuild(token, number).owners == 2 and stats("leases") == 0
    assert rebuild(token, 0).owners == 2


# ---- two tasks with one array ------------------------------------------------------------------------------------------------------


def test_two_tasks_whose_sender_lets_go():
    """The first takes longer than any grace, and ends before the second begins."""
    a = numbered(5)
    tasks = [pickle.dumps(("add", a)), pickle.dumps(("add", a))]
    del a
    results = []
    for task in tasks:
        _, array = pickle.loads(task)
        let_time_pass = time.monotonic() + 0.05
        while time.monotonic() < let_time_pass:
            pass
        results.append(sum(array.tolist()))
        array.release()
    assert results == [10, 10]
    assert not isthmus.segments()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters came with 3.14")
def test_keyword_arguments_containers_and_results():
    from concurrent import interpreters
    from concurrent.futures import InterpreterPoolExecutor

    a = numbered(5)
    other = interpreters.create()
    try:
        back = other.call(dict, x=a)
        assert back["x"].segment.id == a.segment.id
        queue = interpreters.create_queue()
        queue.put({"deep": [a, {"er": a}]})
        got = queue.get()
        assert got["deep"][1]["er"].segment.id == a.segment.id
        with InterpreterPoolExecutor(1) as pool:
            result = pool.submit(dict, y=[a]).result()
        assert result["y"][0].segment.id == a.segment.id
    finally:
        other.close()
    del back, got, result
    gc.collect()
    assert (a.owners, stats("leases")) == (1, 0)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="InterpreterPoolExecutor came with 3.14")
def test_two_tasks_of_a_pool_whose_sender_lets_go():
    """They wait behind another one; the array is in keyword arguments, so it is pickled."""
    from concurrent.futures import InterpreterPoolExecutor

    a = numbered(5)
    leave, stay = os.pipe()
    with InterpreterPoolExecutor(1) as pool:
        first = pool.submit(os.read, leave, 1)
        tasks = [pool.submit(dict, x=a), pool.submit(dict, y=[a])]
        del a
        os.write(stay, b"x")
        one, two = (task.result() for task in tasks)
        assert first.result() == b"x"
    os.close(leave)
    os.close(stay)
    del tasks
    assert one["x"].segment.id == two["y"][0].segment.id and one["x"].tolist() == [0, 1, 2, 3, 4]
    assert (one["x"].owners, stats("leases")) == (2, 0)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters came with 3.14")
def test_a_blocked_put_of_a_container(short_lease, caplog):
    """It is pickled again every 10 ms, and none of those pickles is ever read: their leases run out."""
    from concurrent import interpreters

    a = numbered(3)
    queue = interpreters.create_queue(1)
    queue.put(1)
    with pytest.raises(interpreters.QueueFull):
        queue.put([a], timeout=1)
    let_leases_run_out()
    assert a.owners == 1


# ---- by value ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"])
def test_by_value(protocol, dtype):
    a = isthmus.zeros((3, 4), dtype)
    a[1, 2] = 1
    before = stats("bytes_copied")
    with isthmus.pickle_by_value():
        data = pickle.dumps(a, protocol)
    assert stats("bytes_copied") - before == a.nbytes and stats("leases") == 0
    b = pickle.loads(data)
    assert stats("bytes_copied") - before == 2 * a.nbytes
    assert b.segment.id != a.segment.id and b.tolist() == a.tolist() and b.dtype == a.dtype
    a.release()
    assert pickle.loads(data).tolist() == b.tolist() and not b.readonly


def test_by_value_of_parts_and_nothing():
    a = numbered(12)
    with isthmus.pickle_by_value():
        for part in [a[10:1:-3], a[5:5], a[::-1], a[3:4].toreadonly(), isthmus.zeros(()), isthmus.zeros((2, 0, 3))]:
            b = pickle.loads(pickle.dumps(part))
            assert b.tolist() == part.tolist() and b.shape == part.shape and b.c_contiguous


def test_by_value_is_of_the_thread_and_the_task(short_lease):
    a = numbered(3)

    def taken() -> bool:
        _, arguments = a.__reduce__()
        return len(arguments) == 2

    seen = []
    with isthmus.pickle_by_value():
        seen.append(contextvars.Context().run(taken))
        thread = threading.Thread(target=lambda: contextvars.Context().run(lambda: seen.append(taken())))
        thread.start()
        thread.join(60)
        assert not taken()
        with isthmus.pickle_by_value():
            assert not taken()
        assert not taken()
    assert seen == [True, True] and taken()

    async def inside(entered: asyncio.Event, left: asyncio.Event) -> bool:
        with isthmus.pickle_by_value():
            entered.set()
            await left.wait()
            return taken()

    async def both() -> None:
        entered, left = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(inside(entered, left))
        await entered.wait()
        assert taken()
        left.set()
        assert not await task

    asyncio.run(both())
    with pytest.raises(ZeroDivisionError), isthmus.pickle_by_value():
        1 / 0
    assert taken()
    let_leases_run_out()


def test_by_value_to_another_process():
    told = run_script(
        """
        import isthmus, pickle, subprocess, sys
        a = isthmus.full(5, 7, "i4")
        with isthmus.pickle_by_value():
            data = pickle.dumps(a)
        code = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).tolist())"
        print(subprocess.run([sys.executable, "-c", code, data.hex()], capture_output=True, text=True).stdout)
        code = "import pickle, sys; pickle.loads(bytes.fromhex(sys.argv[1]))[:] = 8"
        subprocess.run([sys.executable, "-c", code, data.hex()], check=True)
        print(a.tolist())
        """
    )
    assert told == "[7, 7, 7, 7, 7]\n\n[7, 7, 7, 7, 7]\n"


@pytest.mark.parametrize(
    "arguments, error",
    [
        ((), TypeError),
        (("<i4", (3,)), TypeError),
        (("<i4", [3], b"x" * 12), TypeError),
        (("<i4", (3,), "text"), TypeError),
        (("<i4", ("x",), b"x" * 12), TypeError),
        (("<i4", (3,), b"x" * 11), ValueError),
        (("<i4", (3,), b"x" * 13), ValueError),
        (("<i4", (-3,), b""), ValueError),
        (("<i4", (-3, -1), b"x" * 12), ValueError),
        (("<i4", (2**62, 2**62), b""), ValueError),
        (("<i4", (2**62, 4), b""), ValueError),
        (("<i4", (2**62, 4, 0), b""), ValueError),
        (("<i4", (2**70,), b""), OverflowError),
        (("<i4", (1,) * 65, b"x" * 4), ValueError),
        (("|V17", (2,), b"x" * 17), ValueError),
        (("(2)<i4", (1,), b"x" * 8), TypeError),
        (("|S0", (1,), b""), ValueError),
        ((None, (1,), b"x"), (TypeError, ValueError)),
    ],
)
def test_foreign_contents(arguments, error):
    with pytest.raises(error):
        isthmus._core._rebuild_contents(*arguments)


def test_no_memory_for_the_contents():
    told = run_script(
        """
        import isthmus, pickle
        a = isthmus.zeros(1 << 20, "u1")
        with isthmus.pickle_by_value():
            data = pickle.dumps(a)
        kept = []
        try:
            while True:
                kept.append(pickle.loads(data))
        except MemoryError as error:
            print(len(kept) > 1, "unpickling" in str(error))
        """,
        environment={"ISTHMUS_HEAP_SIZE": "16M"},
    )
    assert told.startswith("True True")
