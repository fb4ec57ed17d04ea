"""isthmus.Queue in one process: what goes through, what is refused, waiting, handles, failing allocations."""

import copy
import gc
import inspect
import math
import os
import pickle
import queue
import signal
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import isthmus as ist
import pytest
import scripts
from allocations import fails_at
from clone_types import Point
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.matrix


def in_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    """Starts it; what is returned waits for it, and returns what it returned or raised."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def join() -> Any:
        thread.join(60)
        assert outcome, "it hangs"
        return outcome[0]

    return join


def segments_made(operation: Callable[[], Any]) -> int:
    """How many segments it makes, by what the library's last free slot has seen: handles don't tell what lies in a queue."""
    before = ist.empty(1).segment
    operation()
    after = ist.empty(1).segment
    assert after.id == before.id
    return after.generation - before.generation - 1


# ---- what goes through -------------------------------------------------------------------------------------------------

SMALL = [
    *(
        None,
        True,
        False,
        0,
        63,
        64,
        -1,
        127,
        -128,
        128,
        2**15,
        -(2**15) - 1,
        2**31,
        -(2**31) - 1,
        2**63 - 1,
        -(2**63),
        0.0,
        -0.0,
        1.5,
        math.inf,
    ),
    *("", "a", "a" * 31, "a" * 32, "a" * 46, "é" * 46, "€" * 23, "😀" * 11, "\0", b"", b"x", b"x" * 46, (), (1, "b"), {"a": None}),
]


@pytest.mark.parametrize("value", SMALL, ids=lambda v: ascii(v)[:12])
def test_small_ones_need_no_segment(value: Any) -> None:
    with ist.Queue() as q:
        assert segments_made(lambda: q.put(value)) == 0
        got = q.get()
        assert got == value and type(got) is type(value) and repr(got) == repr(value)


@pytest.mark.parametrize(
    "value",
    ["a" * 47, "é" * 47, "€" * 24, "😀" * 12, b"x" * 47, 2**400, list(range(100)), {"a": [{} for _ in range(60)]}, Point("x" * 30, ["y"])],
    ids=repr,
)
def test_the_rest_goes_as_a_clone(value: Any) -> None:
    with ist.Queue() as q:
        assert segments_made(lambda: q.put(value)) == 1
        assert q.get() == value


def test_what_nobody_got_goes_with_the_queue() -> None:
    before = ist.stats()["mapped"]
    for _ in range(100):
        with ist.Queue[Any]() as q:
            q.put(bytes(1 << 20))
            q.put([ist.full(1 << 17, 1.0)] * 2)
    assert ist.stats()["mapped"] - before < 50 << 20, "of 200 MiB"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text(max_size=60) | st.binary(max_size=60),
    lambda inner: st.lists(inner, max_size=5) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(VALUES, max_size=8))
def test_anything_comes_out_as_it_went_in(values: list[Any]) -> None:
    with ist.Queue() as q:
        for value in values:
            q.put(value)
        for value in values:
            got = q.get_nowait()
            assert got == value and type(got) is type(value)
    assert not ist.segments()


ARRAYS: list[Callable[[], ist.SharedArray[Any]]] = [
    lambda: ist.zeros(0),
    lambda: ist.full((), 5),
    lambda: ist.array([1, 2, 3], "i2"),
    lambda: ist.zeros((2, 3, 4)),
    lambda: ist.zeros((2, 3, 4, 5)),
    lambda: ist.zeros((3, 4)).T,
    lambda: ist.array([1, 2, 3, 4])[::-2],
    lambda: ist.array([1, 2, 3, 4])[1:3],
    lambda: ist.array([1, 2]).toreadonly(),
    lambda: ist.array([1, 2]).freeze(),
    lambda: ist.zeros(3, ">i4"),
    lambda: ist.zeros(2, [("x", "f4"), ("y", "S3")]),
]


@pytest.mark.parametrize("make", ARRAYS)
@pytest.mark.parametrize("inside", [False, True])
def test_arrays_go_by_reference(make: Callable[[], ist.SharedArray[Any]], inside: bool) -> None:
    a = make()
    with ist.Queue[Any]() as q:
        q.put([a] if inside else a)
        assert a.owners == 1 and a.segment.owners == 1, "a message is none"
        b = q.get()[0] if inside else q.get()
    assert b.segment.id == a.segment.id and b.tolist() == a.tolist() and b.strides == a.strides and b.dtype == a.dtype
    assert b.readonly == a.readonly and b.frozen == a.frozen and a.owners == b.owners == 2
    if a.size and not a.readonly and a.dtype.names is None:
        b[(0,) * b.ndim] = 9
        assert a[(0,) * a.ndim] == 9


def test_a_bare_array_needs_no_other_segment() -> None:
    a, b = ist.zeros(3), ist.zeros(4)
    with ist.Queue[Any]() as q:
        assert segments_made(lambda: q.put(a)) == 0
        q.put(b, transfer=[b])
        q.put(a.transfer())
        assert a.detached and b.detached
        assert [q.get().nbytes for _ in range(3)] == [24, 32, 24]


def test_a_growable_array_tracks_on_both_sides() -> None:
    a = ist.zeros(3, max_length=10)
    with ist.Queue[Any]() as q:
        q.put(a)
        q.put({"a": a})
        a.grow(7)
        b, c = q.get(), q.get()["a"]
    assert len(b) == 7 and len(c) == 7
    b.grow(8)
    assert len(a) == len(c) == 8


def test_a_message_owns_what_it_refers_to() -> None:
    q = ist.Queue[Any]()
    a = ist.array([1, 2, 3])
    q.put(a)
    q.put([a, {"b": ist.array([4])}])
    del a
    assert q.get().tolist() == [1, 2, 3]
    first, rest = q.get()
    assert first.tolist() == [1, 2, 3] and rest["b"].tolist() == [4]
    q.put([first, rest["b"]] * 10)
    del first, rest
    q.release()
    assert not ist.segments(), "what nobody got goes with the queue"


def test_what_a_message_refers_to_isnt_frozen() -> None:
    q, a = ist.Queue(), ist.zeros(3)
    q.put(a)
    with pytest.raises(BufferError, match=r"^can't freeze: a message in a queue refers to it$"):
        a.freeze()
    b = q.get()
    with pytest.raises(BufferError, match="can't freeze: 1 other owner"):
        a.freeze()
    b.release()
    assert a.freeze().frozen


def test_many_references_in_one_message() -> None:
    arrays = [ist.full(1, i) for i in range(300)]
    with ist.Queue[Any]() as q:
        q.put(arrays)
        got = q.get()
        assert [a[0] for a in got] == list(range(300)) and all(a.owners == 2 for a in got)


def test_queues_in_queues() -> None:
    q, other = ist.Queue[Any](), ist.Queue[Any](5)
    q.put(other)
    q.put([other, q])
    other.put("hello")
    got = q.get()
    assert got == other and got is not other and got.get() == "hello" and got.maxsize == 5
    got, itself = q.get()
    assert got == other and itself == q and itself.empty()
    q.put(q)  # isn't counted: it doesn't keep itself
    del got, itself
    q.release(), other.release()
    assert not ist.segments()


def test_other_ways_by_which_a_queue_goes() -> None:
    q = ist.Queue[Any](7)
    for other in (pickle.loads(pickle.dumps(q)), ist.attach(q.token()), ist.clone([q])[0], copy.copy(q), copy.deepcopy([q])[0]):
        assert other == q and hash(other) == hash(q) and other is not q and other.maxsize == 7
        other.put(1)
        assert q.get() == 1
    q.publish("test_queue's")
    assert ist.attach("test_queue's") == q
    assert q != ist.Queue() and q != 5 and len({q, ist.attach(q.token())}) == 1
    with pytest.raises(ist.CloneError, match="Queue goes by reference"):
        ist.dumps([q])
    token = q.token()
    q.release(), other.release()
    with pytest.raises(ist.SegmentGoneError):
        ist.attach(token)


def test_tokens_of_one_kind_are_none_of_another() -> None:
    q, a = ist.Queue[Any](), ist.zeros(2)
    ours, theirs = bytearray(q.token()), bytearray(a.token())
    theirs[16:40] = ours[16:40]
    with pytest.raises(ValueError, match="its segment is a queue's or a lock's"):
        ist.attach(theirs)
    ours[16:40] = a.token()[16:40]
    with pytest.raises(ValueError, match="not a token of a Queue: its segment is something else"):
        ist.attach(ours)
    for at, value in ((5, 99), (8, 1), (9, 1), (6, 3), (48, 1)):
        bad = bytearray(q.token())
        bad[at] = value
        with pytest.raises(ValueError, match="not an array token"):
            ist.attach(bad)


# ---- transfer ------------------------------------------------------------------------------------------------------------


def test_transfer_moves_the_handle() -> None:
    q = ist.Queue[Any](1)
    a, b = ist.zeros(3), ist.zeros(4)
    q.put([a, b], transfer=(a,))
    assert a.detached and not b.detached
    with pytest.raises(queue.Full):
        q.put([b], block=False, transfer=[b])
    assert not b.detached
    with memoryview(b), pytest.raises(BufferError, match="can't transfer"):
        q.put(b, transfer=[b])
    with pytest.raises(ValueError, match="isn't in the object"):
        q.put(5, transfer=[b])
    assert [x.nbytes for x in q.get()] == [24, 32]
    t = b.transfer()
    q.put({"t": t})
    assert t.detached and q.get()["t"].nbytes == 32
    with pytest.raises(ist.DetachedError):
        q.put(t)


def test_a_put_that_waits_looks_at_what_moves_when_it_sends() -> None:
    q = ist.Queue[Any](1)
    a = ist.zeros(3)
    q.put(0)
    wait = in_thread(lambda: q.put([a], transfer=[a]))
    until_waiting(q, "room")
    view = memoryview(a)
    assert q.get() == 0
    assert isinstance(wait(), BufferError) and not a.detached and q.empty()
    view.release()
    q.put(1)
    wait = in_thread(lambda: q.put([a], transfer=[a]))
    assert q.get() == 1 and wait() is None and a.detached
    assert q.get()[0].nbytes == 24


# ---- memory that isn't the domain's ------------------------------------------------------------------------------------


def test_a_mapped_file(tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(bytes(range(10)))
    with ist.Queue[Any]() as q:
        a = ist.memmap(tmp_path / "file", mode="r+")
        q.put(a)
        q.put([a, ist.zeros(2)])
        assert q.get().segment.id == a.segment.id
        del a
        got, other = q.get()
        assert got.tolist() == list(range(10)) and other.tolist() == [0, 0]
    assert ist.stats()["leases"] == 0


def test_wrapped_memory_goes_within_the_process() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    with ist.Queue[Any](1) as q:
        a = ist.from_arrow(pyarrow.array([1, 2, 3]))
        q.put({"a": a})
        with pytest.raises(queue.Full):
            q.put(a, timeout=0)
        del a
        assert q.get()["a"].tolist() == [1, 2, 3]
        assert ist.stats()["leases"] == 0, "nor of what wasn't put"


@pytest.fixture
def wrapped() -> Any:
    pyarrow = pytest.importorskip("pyarrow")
    return lambda: ist.from_arrow(pyarrow.array([1, 2, 3]))


def test_a_message_owns_wrapped_memory_for_as_long_as_it_lies_there(wrapped: Any, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(bytes(10))
    before = ist.set_pickle_lease(0.001)
    try:
        q = ist.Queue[Any]()
        for _ in range(4):
            q.put([wrapped(), ist.memmap(tmp_path / "file")])
        pickle.dumps(ist.zeros(1))
        expired = ist.stats()["leases_expired"]
        while ist.stats()["leases_expired"] == expired:  # of the pickle, which came last
            ist.sweep()
        assert [x.nbytes for x in q.get()] == [24, 10] and ist.stats()["leases"] == 6
        q.shutdown(immediate=True)
        assert ist.stats()["leases"] == 0
        q = ist.Queue[Any]()
        q.put({"a": wrapped()})
        assert ist.stats()["leases"] == 1
        q.release()
        assert ist.stats()["leases"] == 0 and not ist.segments()
    finally:
        ist.set_pickle_lease(before)


# ---- waiting -------------------------------------------------------------------------------------------------------------


def until_waiting(q: "ist.Queue[Any]", what: str) -> None:
    """Somebody sleeps in a call of this queue, or is about to; nothing says more."""
    for _ in range(20):
        time.sleep(0.002)  # rule exception: a sleeper leaves no trace that Python sees; all that depends on it holds without, too


def test_timeouts() -> None:
    q = ist.Queue[Any](1)
    for bad in (-1, -0.001, math.nan, -math.inf):
        with pytest.raises(ValueError, match="'timeout' must be a non-negative number, not"):
            q.get(timeout=bad)
    with pytest.raises(TypeError):
        q.get(timeout="1")  # type: ignore[arg-type]
    for call in (lambda: q.get(timeout=0), lambda: q.get(False), lambda: q.get(False, -5), q.get_nowait, lambda: q.get(timeout=0.02)):
        with pytest.raises(queue.Empty):
            call()
    begin = time.monotonic()
    with pytest.raises(queue.Empty):
        q.get(True, 0.15)
    assert time.monotonic() - begin >= 0.15, "longer than a slice"
    q.put(1, timeout=math.inf)
    for call in (lambda: q.put(2, timeout=0), lambda: q.put(2, False), lambda: q.put_nowait(2), lambda: q.put(2, True, 0.02)):
        with pytest.raises(queue.Full):
            call()
    for forever in (None, math.inf, 1e300, 9e9, 2**62):
        assert q.get(timeout=forever) == 1
        q.put(1)


@pytest.mark.parametrize("call", ["get", "put", "join"])
@pytest.mark.parametrize("end", ["release", "shutdown"])
def test_who_waits_is_woken(call: str, end: str) -> None:
    q = ist.Queue[Any](1)
    if call != "get":
        q.put(1)
    other = copy.copy(q)
    waits: dict[str, Callable[[], Any]] = {"get": q.get, "put": partial(q.put, 2), "join": q.join}
    join = in_thread(waits[call])
    until_waiting(q, call)
    begin = time.monotonic()
    q.release() if end == "release" else other.shutdown(immediate=True)
    outcome = join()
    assert isinstance(outcome, ist.DetachedError if end == "release" else ist.ShutDown) or (call, end, outcome) == (
        "join",
        "shutdown",
        None,
    )
    assert time.monotonic() - begin < 30
    other.release()
    assert end != "release" or not ist.segments(), "whoever is the last one inside lets go of it"


def test_ctrl_c_ends_a_wait(tmp_path: Any) -> None:
    script = scripts.write(
        tmp_path,
        """
        import isthmus as ist, sys
        q = ist.Queue(1)
        try:
            print("ready", flush=True)
            q.get()
        except KeyboardInterrupt:
            q.put(1)
            print(q.get(), q.empty())
        """,
    )
    assert scripts.interrupt_when_ready(scripts.start(script)).ok() == "1 True\n"


def test_a_handled_signal_is_handled_and_the_wait_goes_on() -> None:
    q = ist.Queue[Any]()
    handled: list[int] = []

    def handler(number: int, _: Any) -> None:
        handled.append(number)
        q.put("from the handler")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        main = threading.main_thread().ident
        assert main is not None
        thread = threading.Thread(target=lambda: signal.pthread_kill(main, signal.SIGUSR1))
        thread.start()
        assert q.get(timeout=60) == "from the handler" and handled == [signal.SIGUSR1]
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


# ---- tasks, shutdown -----------------------------------------------------------------------------------------------------


def test_iteration_ends_with_shutdown() -> None:
    q = ist.Queue[int]()
    join = in_thread(lambda: list(q))
    for i in range(100):
        q.put(i)
    q.shutdown()
    assert join() == list(range(100)) and list(q) == [] and q.is_shutdown
    with pytest.raises(ist.ShutDown):
        q.put(1)


def test_the_names_are_the_standard_librarys() -> None:
    assert issubclass(ist.ShutDown, Exception) and ist.ShutDown.__name__ == "ShutDown"
    assert getattr(queue, "ShutDown", ist.ShutDown) is ist.ShutDown
    assert list(inspect.signature(ist.Queue.put).parameters)[1:4] == ["obj", "block", "timeout"]
    assert ist.Queue[int].__origin__ is ist.Queue  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (ist.Queue,), {})
    with pytest.raises(TypeError):
        ist.Queue("3")  # type: ignore[arg-type]
    assert ist.Queue(-5).maxsize == 0 and ist.Queue(maxsize=3).maxsize == 3 and ist.Queue(10**30).maxsize == 0


def test_what_cant_be_cloned() -> None:
    q = ist.Queue[Any]()
    with pytest.raises(ist.CloneError, match=r"\$\.jobs\[0\]"):
        q.put({"jobs": [lambda: 0]})
    with pytest.raises(ValueError, match="fallback must be None or"):
        q.put(1, fallback="marshal")  # type: ignore[arg-type]
    assert q.empty() and q.unfinished_tasks == 0
    q.put({"x": object.__new__(Opaque)}, fallback="pickle")
    assert type(q.get()["x"]) is Opaque


class Opaque:
    pass


# ---- handles --------------------------------------------------------------------------------------------------------------


def test_release() -> None:
    with ist.Queue[Any](2) as q:
        weak = weakref.ref(q)
        q.put(1)
        assert "qsize 1, maxsize 2" in repr(q) and not q.detached and q.segment.kind == "queue" and ist.stats()["queues"] == 1
    assert q.detached and repr(q) == "<isthmus.Queue, released>" and not ist.segments() and ist.stats()["queues"] == 0
    q.release()
    uses: list[Callable[[], Any]] = [
        q.get,
        partial(q.put, 1),
        q.qsize,
        q.join,
        q.task_done,
        q.shutdown,
        q.fileno,
        q.token,
        partial(pickle.dumps, q),
        partial(ist.clone, q),
    ]
    for use in uses:
        with pytest.raises(ist.DetachedError, match="this Queue was released"):
            use()
    with pytest.raises(ist.DetachedError), q:
        pass
    assert q == q and weak() is q
    uses.clear()
    del q, use
    assert weak() is None


def test_an_idle_queue_is_small() -> None:
    before = ist.stats()["allocated"]
    queues = [ist.Queue[Any](16) for _ in range(100)]
    each = (ist.stats()["allocated"] - before) / 100
    assert each <= 4096
    unbounded = ist.Queue[Any]()
    committed = os.stat(next(f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd") if "memfd" in _target(n))).st_blocks
    others = [ist.Queue[Any]() for _ in range(8)]
    more = os.stat(next(f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd") if "memfd" in _target(n))).st_blocks - committed
    assert more * 512 <= 8 * 2 * 4096, "an unbounded one commits little of its address space"
    del queues, unbounded, others


def _target(n: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{n}")
    except OSError:
        return ""


def test_nothing_remains_of_a_queue_that_refers_to_itself_in_a_longer_cycle_once_it_is_shut_down() -> None:
    q, other = ist.Queue[Any](), ist.Queue[Any]()
    q.put(other)
    other.put([q])
    q.shutdown(immediate=True)
    del q, other
    gc.collect()
    assert not ist.segments()


# ---- failing allocations ---------------------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[["ist.Queue[Any]", ist.SharedArray[Any]], Any]] = {
    "small": lambda q, a: (q.put("text"), q.get()),
    "array": lambda q, a: (q.put(a), q.get()),
    "clone": lambda q, a: (q.put([a, "x" * 100, {"b": a.T}] * 5), q.get()),
    "many": lambda q, a: (q.put([a[i:] for i in range(12)]), q.get()),
    "queue": lambda q, a: (q.put(q), q.get()),
    "pickle": lambda q, a: _rebuilt(q.__reduce__()),
    "token": lambda q, a: ist.attach(q.token()),
    "new": lambda q, a: ist.Queue(3),
    "empty": lambda q, a: q.empty() and _expect_empty(q),
}


def _rebuilt(reduced: Any) -> Any:
    return reduced[0](*reduced[1])


def _expect_empty(q: "ist.Queue[Any]") -> None:
    try:
        q.get_nowait()
    except queue.Empty:
        pass


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_allocation_may_fail(name: str) -> None:
    q, a = ist.Queue[Any](), ist.zeros((13, 2))
    operation = OPERATIONS[name]
    operation(q, a)  # what is imported once is there
    gc.collect()
    failures = 0
    for n in range(1, 400):
        failed = fails_at(n, lambda: operation(q, a))
        failures += failed
        while not q.empty():
            q.get()
        assert a.owners == 1 and ist.stats()["in_flight"] == 0
        if not failed:
            break
    else:
        pytest.fail("it never succeeded")
    assert failures > 0 or name not in ("clone", "many", "token", "pickle")
