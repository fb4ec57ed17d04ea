"""Growable arrays: max_length and grow(n). A whole array tracks the length wherever it goes; views and exports keep theirs."""

import copy
import gc
import operator
import pickle
import struct
import threading
from collections.abc import Callable
from typing import Any

import isthmus as ist
import numpy as np
import pytest
from allocations import fails_at
from carriers import Channel, Interpreter
from kind_tasks import grow_to, identity, length_of
from processes import Group, empty

pytestmark = pytest.mark.matrix
KINDS = ["interpreter", "process", "thread"]
Array = Any


def other(a: Array) -> Array:
    """Another handle, with a counted reference of its own."""
    return ist.attach(a.token())


# ---- what it is


def test_grows_in_place_and_is_seen_by_every_handle() -> None:
    a = ist.full((2, 3), 7, "i4", max_length=10)
    b, reader, address = other(a), a.toreadonly(), a.address
    assert (a.max_length, b.max_length, reader.max_length) == (10, 10, 10)
    assert a.grow(5) is None
    assert len(a) == len(b) == len(reader) == 5 and a.address == address
    assert a.tolist() == [[7] * 3] * 2 + [[0] * 3] * 3
    b.grow(10)
    a[9] = 1
    assert a.shape == b.shape == reader.shape == (10, 3) and reader[-1].tolist() == [1, 1, 1]
    a.grow(10)  # it is that long: nothing happens
    assert len(a) == 10


@pytest.mark.parametrize("make", [ist.empty, ist.zeros, lambda n, **k: ist.full(n, 0.0, **k), lambda n, **k: ist.buffer(n, **k)])
def test_every_factory(make: Callable[..., Array]) -> None:
    dirty = ist.full(3000, 255, "u1")
    del dirty
    a = make(3, max_length=300)
    assert (a.shape, a.max_length) == ((3,), 300)
    a.grow(300)
    assert a.nbytes == 300 * a.itemsize and not a[3:].any()
    assert make(3, max_length=None).max_length is None and make(3).max_length is None
    assert make(0, max_length=0).max_length == 0


@pytest.mark.parametrize("dtype", ["?", "i1", ">u2", "f2", "f8", "c16", "S5", "U3", "M8[ns]", [("x", "f4"), ("y", "i8")], "(2,3)f4"])
def test_every_kind_of_element(dtype: Any) -> None:
    a = ist.zeros((1, 2), dtype, max_length=4)
    assert a.shape[0] == 1 and a.strides[0] == a.nbytes
    a.grow(4)
    assert a.shape[0] == 4 and a.nbytes == 4 * a.strides[0] and a[1:] == ist.zeros((3, 2), dtype)
    assert ist.attach(a.token()).dtype == a.dtype


def test_repr_says_what_it_may_become() -> None:
    a = ist.array([1, 2])
    assert "max_length" not in repr(a)
    g = ist.full(2, 1, "i8", max_length=5)
    assert repr(g) == "SharedArray([1, 1], shape=(2,), dtype='<i8', max_length=5)"
    g.grow(3)
    assert repr(g.toreadonly()) == "SharedArray([1, 1, 0], shape=(3,), dtype='<i8', max_length=5, readonly)"
    g.release()
    assert "detached" in repr(g)


# Everything that looks at an array, to be done with one that has grown by another's hand, and with an ordinary one of the same values.
OPERATIONS: dict[str, Callable[[Array], Any]] = {
    "shape": lambda a: (a.shape, a.strides, a.ndim, a.size, a.itemsize, a.nbytes, len(a), a.format, a.dtype),
    "contiguous": lambda a: (a.c_contiguous, a.f_contiguous, a.T.c_contiguous, a.T.f_contiguous),
    "tolist": lambda a: a.tolist(),
    "tobytes": lambda a: (a.tobytes(), a.tobytes("F"), a.tobytes(order="A"), bytes(a)),
    "iter": lambda a: [x.tolist() for x in a],
    "reversed": lambda a: [x.tolist() for x in reversed(a)],
    "items": lambda a: (a[-1].tolist(), a[2, 1], a[-1, 0], a[..., 1].tolist(), a[None].shape, a[:].shape, a[::-2].tolist()),
    "unpack": lambda a: [x.tolist() for x in [*a]],
    "slices": lambda a: (a[1:].tolist(), a[-3:].shape, a[100:].shape),
    "reductions": lambda a: (a.sum(), a.min(), a.max(), a.mean(), a.argmin(), a.argmax(), a.any(), a.all(), a.count_nonzero()),
    "views": lambda a: (a.T.shape, a.transpose(1, 0).tolist(), a.reshape(-1).tolist(), a.ravel().shape, a.view("i4").shape, a.view().shape),
    "copying views": lambda a: (a.T.ravel().tolist(), a.reshape(-1, copy=True).shape),
    "cast": lambda a: a.cast("B").shape,
    "split": lambda a: [x.tolist() for x in a.split(2)] + [x.shape for x in a.split([1], 1)],
    "copies": lambda a: (a.copy().tolist(), copy.copy(a).shape, copy.deepcopy(a).shape, ist.array(a).tolist(), ist.empty_like(a).shape),
    "memoryview": lambda a: (memoryview(a).shape, memoryview(a).nbytes, a.data.tolist(), memoryview(a).cast("B").nbytes),
    "numpy": lambda a: (np.asarray(a).tolist(), a.__array__().shape, np.array(a).sum(), a.__array_interface__["shape"]),
    "dlpack": lambda a: np.from_dlpack(a).tolist(),
    "arrow": lambda a: a[:, 0].copy().__arrow_c_array__() is not None,
    "equal": lambda a: (a == ist.array(a.tolist()), a != a.copy(), ist.array(a.tolist()) == a, a == a, memoryview(a) == a.data),
    "contains": lambda a: (7 in a, 8 in a),
    "truth": lambda a: refused(bool, a),
    "assigned from": lambda a: assigned(a.shape, a),
    "nested": lambda a: ist.array([a.tolist(), a.tolist()]).shape,
    "asarray": lambda a: (ist.asarray(a).shape, ist.asarray(a, "f8").tolist(), ist.asarray(np.asarray(a), copy=False).shape),
    "like": lambda a: ist.zeros_like(a).tolist(),
    "operator": lambda a: (operator.length_hint(a), operator.getitem(a, 1).tolist()),
    "by value": lambda a: pickled_by_value(a).tolist(),
    "make_writable": lambda a: a.make_writable().shape,
}


def assigned(shape: tuple[int, ...], a: Array) -> Any:
    b = ist.zeros(shape, "i8")
    b[...] = a
    b[:, 0] = a[:, 1]
    return b.tolist()


def refused(call: Callable[[Array], Any], a: Array) -> str:
    with pytest.raises(ValueError) as caught:
        call(a)
    return str(caught.value)


def pickled_by_value(a: Array) -> Array:
    with ist.pickle_by_value():
        return pickle.loads(pickle.dumps(a))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("how", ["root", "readonly"])
def test_every_operation_sees_the_length_of_the_moment(name: str, how: str) -> None:
    writer = ist.zeros((1, 2), "i8", max_length=9)
    a = other(writer) if how == "root" else writer.toreadonly()
    writer.grow(4)
    writer[...] = [[1, 2], [3, 4], [5, 6], [0, 7]]
    assert OPERATIONS[name](a) == OPERATIONS[name](ist.array([[1, 2], [3, 4], [5, 6], [0, 7]])), name


def test_arrow_sees_the_length_of_the_moment() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    a = ist.zeros(1, "i8", max_length=9)
    other(a).grow(5)
    assert len(pyarrow.array(a)) == 5


def test_a_frozen_one_hashes_as_long_as_it_has_become() -> None:
    a = ist.zeros(1, "u1", max_length=9)
    writer = other(a)
    writer.grow(3)
    writer.release()
    assert hash(a.freeze()) == hash(bytes(3))


def test_assignment_reaches_what_has_grown() -> None:
    a = ist.zeros((1, 2), "i8", max_length=9)
    other(a).grow(4)
    a[3, 1] = 5
    a[2] = [6, 7]
    a[:, 0] = 9
    assert a.tolist() == [[9, 0], [9, 0], [9, 7], [9, 5]]
    a.fill(3)
    assert a.sum() == 24
    with pytest.raises(IndexError, match="4"):
        a[4, 0] = 1
    with pytest.raises(TypeError):
        del a[0]
    a[...] = a  # itself
    assert a.sum() == 24


def test_views_and_exports_keep_their_length() -> None:
    a = ist.zeros((2, 3), "f4", max_length=10)
    views = [a[:], a[...], a.T, a.reshape(-1), a.view("i4"), a.ravel(), a[None], a.split(1)[0], ist.asarray(memoryview(a))]
    exports: list[Any] = [memoryview(a), np.asarray(a), np.from_dlpack(a)]
    iterator = iter(a)
    before = [np.shape(x) for x in [*views, *exports]]
    a.grow(10)
    a[1, 1] = 5
    assert [np.shape(x) for x in [*views, *exports]] == before
    assert [x.max_length for x in views] == [None] * len(views)
    assert all(np.asarray(x).max() == 5 for x in [*views[:4], *exports])  # the same memory
    assert len(list(iterator)) == 2
    for view in views:
        with pytest.raises(ValueError, match="can't grow to 10: it is a view, which keeps its length"):
            view.grow(10)
    sent = ist.attach(views[0].token())
    assert sent.shape == (2, 3) and sent.max_length is None


def test_copies_are_ordinary_arrays() -> None:
    a = ist.zeros(3, max_length=9)
    assert [x.max_length for x in (a.copy(), copy.deepcopy(a), ist.array(a), pickled_by_value(a), ist.zeros_like(a))] == [None] * 5
    keep = other(a)
    a.toreadonly()
    keep.release()
    a.freeze()
    keep = other(a)
    assert a.make_writable().max_length is None  # somebody else has it: a copy
    keep.release()
    assert a.make_writable() is a and a.max_length == 9


# ---- errors


def test_wrong_lengths() -> None:
    a = ist.zeros(4, max_length=8)
    for wrong, error, text in (
        (3, ValueError, "can't grow to 3: the length is 4 already, and an array never shrinks"),
        (-1, ValueError, "can't grow to -1: the length is 4 already"),
        (9, ValueError, "can't grow to 9: max_length is 8"),
        (2**63, ValueError, "can't grow to 9223372036854775808: max_length is 8"),
        (2**200, ValueError, f"can't grow to {2**200}: max_length is 8"),
        (-(2**200), ValueError, "never shrinks"),
        (5.0, TypeError, "not 5.0"),
        ("5", TypeError, "not '5'"),
        (None, TypeError, "not None"),
        ((5,), TypeError, r"not \(5,\)"),
    ):
        with pytest.raises(error, match=text):
            a.grow(wrong)
        assert len(a) == 4
    with pytest.raises(TypeError):
        a.grow()
    a.grow(True + 4)
    assert len(a) == 5


def test_who_can_not_grow() -> None:
    with pytest.raises(ValueError, match="can't grow to 4: it was made without max_length"):
        ist.zeros(3).grow(4)
    a = ist.zeros(3, max_length=8)
    with pytest.raises(ValueError, match="can't grow to 4: it is read-only"):
        a.toreadonly().grow(4)
    with pytest.raises(ValueError, match="can't grow to 4: it is read-only"):
        ist.attach(a.toreadonly().token()).grow(4)
    gc.collect()
    a.freeze()
    with pytest.raises(ValueError, match="can't grow to 4: it is frozen"):
        a.grow(4)
    assert len(a) == 3 and isinstance(hash(a), int)
    a.make_writable().grow(4)
    sent = a.transfer()
    for call in (lambda: a.grow(5), lambda: a.max_length, lambda: len(a), lambda: a.shape, lambda: a[0], lambda: memoryview(a)):
        with pytest.raises(ist.DetachedError):
            call()
    b = sent._take()
    b.grow(5)
    b.release()
    with pytest.raises(ist.DetachedError):
        b.grow(6)
    with pytest.raises((AttributeError, TypeError)):
        ist.memmap(__file__, max_length=10**9)  # type: ignore[call-overload]


def test_what_can_not_be_made() -> None:
    for shape, most, error, text in (
        (3, 2, ValueError, "max_length=2 is less than the length 3"),
        (0, -1, ValueError, "max_length=-1 is less"),
        ((), 5, ValueError, r"max_length=5, but an array of shape \(\) has no first axis"),
        ((3, 0), 5, ValueError, "max_length=5, but axis 1 has length 0"),
        (3, 2**62, ValueError, "array is too big: shape"),
        (3, 2**70, ValueError, f"max_length={2**70} is beyond"),
        (3, 2**45, MemoryError, "reserved for a growable"),
        (3, 9.5, TypeError, "not 9.5"),
        (3, "9", TypeError, "not '9'"),
    ):
        for make in (ist.zeros, ist.empty, lambda n, **k: ist.full(n, 1.0, **k)):
            with pytest.raises(error, match=text):
                make(shape, max_length=most)
    with pytest.raises(TypeError, match="'max_lenght'"):
        ist.buffer(3, max_lenght=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"0 given"):
        ist.buffer()  # type: ignore[call-arg]
    assert ist.segments() == []


class Index:
    """Does something while it says which number it is."""

    def __init__(self, value: int, do: Callable[[], Any]) -> None:
        self.value, self.do = value, do

    def __index__(self) -> int:
        self.do()
        return self.value


def test_a_length_whose_making_ends_the_array() -> None:
    a = ist.zeros(3, max_length=9)
    with pytest.raises(ist.DetachedError):
        a.grow(Index(5, a.release))
    b = ist.zeros(3, max_length=9)
    with pytest.raises(ValueError, match="frozen"):
        b.grow(Index(5, b.freeze))
    c = ist.zeros(3, max_length=9)
    with pytest.raises(ValueError, match="the length is 7 already"):
        c.grow(Index(5, lambda: c.grow(7)))
    d = ist.zeros(3, max_length=9)
    d[Index(0, lambda: d.grow(8))] = 1  # the key and the assignment go by the length at the beginning
    with pytest.raises(IndexError):
        d.__setitem__(Index(8, lambda: d.grow(9)), 1)
    assert len(d) == 9


# ---- memory


def test_reserved_and_not_used() -> None:
    ist.sweep()
    before = ist.stats()
    arrays = [ist.zeros(1, "u1", max_length=1 << 30) for _ in range(10)]
    now = ist.stats()
    assert now["mapped"] - before["mapped"] < 1 << 20 and now["allocated"] - before["allocated"] == 10
    a = arrays[0]
    assert (a.segment.size, a.segment.reserved) == (1, 1 << 30)
    a.grow(1 << 30)
    a[-1] = 1
    now = ist.stats()
    assert now["mapped"] - before["mapped"] < 1 << 20 and now["allocated"] - before["allocated"] == (1 << 30) + 9
    assert a.segment.size == 1 << 30 and ist.zeros(3).segment.reserved == 24


@pytest.mark.parametrize("size", [100, 5000, 20_000, 1 << 20, 9 << 20])
def test_recycled_memory_reads_as_zero(size: int) -> None:
    for _ in range(5):
        ist.full(size, 255, "u1").release()
        a = ist.empty(1, "u1", max_length=size)
        assert not a.any()
        a.grow(size)
        assert not a.any()
        a.fill(255)
        a.release()


def test_prefault_is_for_what_is_there_at_first() -> None:
    ist.sweep()  # pages that wait to be reused would be counted twice
    before = ist.stats()["mapped"]
    a = ist.zeros(4 << 20, "u1", max_length=1 << 30, prefault=True)
    assert 4 << 20 <= ist.stats()["mapped"] - before < 6 << 20
    a.release()


def test_no_memory_anywhere() -> None:
    """The n-th allocation of each operation fails, for every n: a clean error, and nothing lost."""
    a = ist.zeros((2, 2), "i8", max_length=8)
    operations: list[Callable[[], Any]] = [
        lambda: a.grow(len(a)),
        lambda: a.tolist(),
        lambda: memoryview(a).release(),
        lambda: a[0, 0],
        lambda: a.__setitem__((0, 0), 1),
        lambda: a == a,
        lambda: a.toreadonly(),
        lambda: a.sum(),
        lambda: repr(a),
        lambda: ist.zeros(2, max_length=5),
        lambda: ist.attach(a.token()),
        lambda: a.copy(),
        lambda: a.max_length,
        lambda: list(a),
    ]
    failures = 0
    for operation in operations:
        for n in range(40):
            failures += fails_at(n, operation)
            assert len(a) == 2 and a.owners == 1 and a.segment.exports in (0, 1), n  # the pin of reading it
    assert failures > 30
    gc.collect()
    assert len(ist.segments()) == 1


# ---- crossing


@pytest.mark.parametrize("kind", KINDS)
def test_by_a_pool(kind: str) -> None:
    a = ist.zeros(3, "i8", max_length=100)
    with ist.WorkerPool(1, kind=kind) as pool:
        assert pool.submit(length_of, a).result(60) == (3, 100)
        a.grow(5)
        back = pool.submit(identity, a).result(60)
        assert len(back) == 5 and back.max_length == 100
        assert pool.submit(grow_to, a, 50).result(60) == 50
        assert len(a) == len(back) == 50 and a[49] == 49
        with pytest.raises(ValueError, match="can't grow to 60: it is read-only"):
            pool.submit(grow_to, a.toreadonly(), 60).result(60)
        assert pool.submit(length_of, a[:7]).result(60) == (7, None)
        assert pool.submit(length_of, a.transfer()).result(60) == (50, 100)
        del back
        gc.collect()


def test_by_a_channel_between_interpreters() -> None:
    a = ist.zeros((2, 3), "f4", max_length=100)
    with Interpreter() as there, Channel() as channel:
        channel.put(a)
        a.grow(4)  # while it is on its way
        there.run(channel.there + "\nb = get(); assert b.shape == (4, 3) and b.max_length == 100; b.grow(9)")
        assert a.shape == (9, 3)
        a.grow(10)
        there.run("assert len(b) == 10 and b[9].tolist() == [0, 0, 0]; v = b[:3]; put(b.toreadonly()); put(v)")
        reader, view = channel.get(), channel.get()
        a.grow(11)
        assert len(reader) == 11 and reader.readonly and reader.max_length == 100 and view.shape == (3, 3)
        there.run("assert len(b) == 11; b.release(); v.release(); del b, v")


def test_by_a_lease_a_token_and_a_name() -> None:
    a = ist.zeros(3, "i8", max_length=100)
    token, data = a.token(), pickle.dumps([a, a[:2]])
    a.grow(7)
    assert token == a.token()  # the length isn't in it
    b, (c, view) = ist.attach(token), pickle.loads(data)
    a.publish("a growing array")
    a.grow(9)
    d = ist.attach("a growing array")
    assert [len(x) for x in (a, b, c, d)] == [9] * 4 and view.shape == (2,)
    d.grow(20)
    assert [(len(x), x.max_length) for x in (a, b, c, d)] == [(20, 100)] * 4


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_by_multiprocessing(method: str) -> None:
    with Group() as group:
        group.script(
            """
            import multiprocessing as mp, sys
            import isthmus as ist
            from kind_tasks import grow_to
            if __name__ == "__main__":
                a = ist.zeros(3, "i8", max_length=100)
                context = mp.get_context(sys.argv[1])
                with context.Pool(2) as pool:
                    assert [pool.apply(grow_to, (a, n)) for n in (10, 20, 30)] == [10, 20, 30]
                process = context.Process(target=grow_to, args=(a, 60))
                process.start(); process.join()
                assert process.exitcode == 0 and len(a) == 60 and a[59] == 59
                print("done")
            """,
            method,
        )


def test_over_fork_and_between_strangers() -> None:
    with Group() as group:
        one = group.one()
        one.run("a = ist.zeros((2, 2), 'i2', max_length=50); r = a.toreadonly(); v = a[:]")
        child = one.fork()
        stranger = group.one()
        stranger.run("b = ist.attach(token)", token=one("a.token()"))
        child.run("a.grow(5); a[4] = 9")
        assert [one("a[4].tolist()"), one("len(r)"), one("v.shape"), stranger("b[4].tolist()")] == [[9, 9], 5, (2, 2), [9, 9]]
        stranger.run("b.grow(30)")
        one.kill()
        assert child("len(a), len(r), v.shape") == (30, 30, (2, 2))
        child.kill()
        stranger.run("b.grow(50); b[49] = 3")
        assert stranger("b[49].tolist(), b.max_length, ist.sweep() and b.segment.processes") == ([3, 3], 50, 1)
        stranger.run("del b")
        empty(stranger)


def test_read_only_in_another_process_is_mapped_read_only() -> None:
    with Group(quiet=False) as group:
        one, two = group.start(2)
        one.run("a = ist.zeros(3, 'i8', max_length=1000)")
        two.run("r = ist.attach(token)", token=one("a.toreadonly().token()"))
        one.run("a.grow(1000); a[999] = 4")
        assert two("len(r), r[999], r.readonly") == (1000, 4, True)
        two.raises("ValueError", "r.grow(1000)")
        two.begin("import ctypes; ctypes.memset(r.address + 7992, 1, 1)")
        two.wait(None)  # SIGSEGV
        assert one("a[999]") == 4


def test_tokens_that_lie() -> None:
    g, a = ist.zeros((2, 3), "i4", max_length=10), ist.zeros((2, 3), "i4")

    def forged(token: bytes, *, flags: int | None = None, dims: list[int] | None = None, offset: int | None = None) -> bytes:
        b = bytearray(token)
        if flags is not None:
            b[8] = flags
        if dims is not None:
            struct.pack_into(f"<{len(dims)}q", b, 56, *dims)
        if offset is not None:
            struct.pack_into("<q", b, 48, offset)
        return bytes(b)

    assert g.token()[8] == 8
    with pytest.raises(ValueError, match="no growable array"):
        ist.attach(forged(a.token(), flags=8))
    for dims in ([0, 0, 12, 4], [0, -3, 12, 4], [0, 2**62, 12, 4], [0, 2**63 - 1, 1, 1]):
        with pytest.raises(ValueError, match="no growable array"):
            ist.attach(forged(g.token(), dims=dims))
    # Of what is read from the segment nothing is believed: first length, strides, offset
    b = ist.attach(forged(g.token(), dims=[10**6, 3, 1, 99], offset=-5))
    assert (b.shape, b.strides, b.address) == ((2, 3), (12, 4), g.address)
    # Other rows than its maker's: the lengths are those that fit
    c = ist.attach(forged(g.token(), dims=[0, 4, 16, 4]))
    assert (c.shape, c.max_length) == ((1, 4), 7)
    c.grow(7)
    assert g.shape == (9, 3) and g.nbytes == 108
    # A part that reaches beyond the length, inside of what is reserved, is zeros; one beyond is refused
    assert ist.attach(forged(a[:].token()[:16] + g.token()[16:40] + a.token()[40:], dims=[10, 3, 12, 4])).shape == (10, 3)
    with pytest.raises(ValueError, match="outside its segment of 120 bytes"):
        ist.attach(forged(a.token()[:16] + g.token()[16:40] + a.token()[40:], dims=[11, 3, 12, 4]))
    assert {s.owners for s in ist.segments()} == {1, 3}


# ---- at once


def test_the_largest_of_many_threads_wins() -> None:
    a = ist.zeros(0, "u1", max_length=100_000)
    start, problems = threading.Barrier(4), []

    def run(seed: int) -> None:
        mine, seen = other(a), 0
        start.wait(60)
        for n in range(seed, 100_000, 400):
            try:
                mine.grow(n)
            except ValueError as error:  # others are further
                if "already" not in str(error):
                    problems.append(error)
            length = len(mine)
            if length < seen or length < n:
                problems.append((seen, length, n))
            seen = length

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and len(a) == 99_603


def test_a_killed_grower_leaves_a_valid_length() -> None:
    with Group() as group:
        one = group.one()
        one.run("a = ist.zeros(1, 'i8', max_length=1_000_000)")
        for _ in range(4):
            victim = one.fork()
            victim.begin("for n in range(len(a) + 1, 1_000_000): a.grow(n); a[n - 1] = n")
            before = one("len(a)")
            one.run("poll(lambda: len(a) > before + 50, 'it grows')", before=before)
            victim.kill()
            n = one("len(a)")
            assert one("a.shape, a.nbytes") == ((n,), 8 * n)
            # each element was written before the next was grown
            assert one("all(a[i - 1] == i for i in range(before + 1, n))", n=n) and one("a[n - 1]") in (0, n)
            one.run("ist.sweep(); a.grow(len(a) + 1); a[len(a) - 1] = len(a)")
            assert one("len(a), a.segment.processes") == (n + 1, 1)
        one.run("del a")
        empty(one)


def test_elements_and_what_others_adopt_see_the_length_of_the_moment() -> None:
    from isthmus import atomics

    a = ist.zeros(2, "i4", max_length=10)
    for bad in (2, -3):
        with pytest.raises(IndexError, match="out of bounds"):
            atomics.add(a, bad, 1)
        with pytest.raises(IndexError, match="out of bounds"):
            a[bad] = 1
    a.grow(5)
    assert atomics.add(a, 4, 7) == 0 and atomics.load(a, -1) == 7 and a[4] == 7 and atomics.notify(a, 4) == 0
    a[3] = 9

    class Other:
        def __isthmus_segment__(self) -> object:
            return a.__isthmus_segment__()

    b = ist.asarray(Other())  # type: ignore[arg-type]
    a.grow(6)
    assert b.tolist() == [0, 0, 0, 9, 7] and a.tolist() == [0, 0, 0, 9, 7, 0]
