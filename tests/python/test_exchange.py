"""__isthmus_segment__(), both ways: E1 and E4 of pybuffer/README.md. ctypes plays the other extension: it needs only the structure."""

import ctypes
import gc
import threading
from typing import Any

import capsules
import isthmus as ist
import pytest
from allocations import fails_at
from capsules import EXCHANGE, Exchange, ExchangeProducer, Offers, let_go, taken
from carriers import Channel, Interpreter
from processes import Group

pytestmark = pytest.mark.matrix
READONLY, FROZEN = 1, 2


# ---- out --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f8", "?", ">i4", "S5", "M8[25s]", [("x", "f4"), ("ü", "i8", (2,))]])
def test_out_says_what_the_array_is(dtype: Any) -> None:
    a = ist.zeros((4, 5), dtype)
    for view in (a, a.T, a[::-1, 1:3], a[1], a[:0], ist.zeros((), dtype)):
        capsule = view.__isthmus_segment__()
        assert capsules.name_of(capsule) == EXCHANGE
        x = capsules.look(capsule)
        assert (x.version, x.bytes, x.reserved) == (0x10000, ctypes.sizeof(Exchange), 0)
        assert (x.ndim, tuple(x.shape[: x.ndim]), tuple(x.strides[: x.ndim])) == (view.ndim, view.shape, view.strides)
        assert (x.itemsize, x.size, x.flags) == (view.itemsize, view.segment.size, 0)
        assert x.data + x.offset == view.address and x.segment.generation == view.segment.generation
        assert ist.dtype._from_spec(x.dtype.decode()) == view.dtype
        if view.dtype.kind == "M":
            assert x.format is None
        else:
            assert x.format.decode() == view.format


def test_out_read_only_and_frozen() -> None:
    a = ist.array([1, 2, 3])
    assert capsules.look(a.toreadonly().__isthmus_segment__()).flags == READONLY
    assert capsules.look(a.freeze().__isthmus_segment__()).flags == READONLY | FROZEN


def test_out_counts_as_an_owner() -> None:
    a = ist.array([1, 2, 3])
    capsule = a.__isthmus_segment__()
    assert a.owners == 2
    with pytest.raises(BufferError, match="can't freeze: 1 other owner"):
        a.freeze()
    del capsule
    assert a.owners == 1
    copy = taken(a)
    assert a.owners == 2
    let_go(copy)
    assert a.owners == 1
    a.release()
    with pytest.raises(ist.DetachedError):
        a.__isthmus_segment__()


@pytest.mark.parametrize("array_first", [True, False])
def test_out_either_may_go_first(array_first: bool) -> None:
    a = ist.array([1.5, 2.5])
    copy = taken(a)
    if array_first:
        a.release()
        gc.collect()
        assert [s.owners for s in ist.segments()] == [1]
        assert (ctypes.c_double * 2).from_address(copy.data)[:] == [1.5, 2.5]
    thread = threading.Thread(target=let_go, args=(copy,))  # without the GIL, as ctypes calls
    thread.start()
    thread.join(60)
    assert len(ist.segments()) == (0 if array_first else 1)


def test_out_after_the_end_of_its_interpreter() -> None:
    there = ist.zeros(1, "i8")
    other = Interpreter()
    other.run(f"""
        import isthmus as ist
        out = ist.attach({there.token()!r})
        capsule = ist.array([7, 8, 9]).__isthmus_segment__()
        out[0] = id(capsule)
        del out
    """)
    pointer = ctypes.c_void_p.from_address(there[0] + object.__basicsize__).value  # the first field of a capsule
    assert pointer is not None
    copy = capsules.retained_copy(Exchange.from_address(pointer))
    other.close()
    assert len(ist.segments()) == 2 and (ctypes.c_int64 * 3).from_address(copy.data)[:] == [7, 8, 9]
    b = ist.asarray(Offers(copy, (3,), b"<i8"))
    let_go(copy)
    assert b.tolist() == [7, 8, 9] and b.owners == 1


# ---- in ---------------------------------------------------------------------------------------------------------------------------


def test_in_the_same_segment() -> None:
    a = ist.array(range(12), "i4")
    copy = taken(a)
    before = ist.stats()["bytes_copied"]
    other = Offers(copy, (2, 3), b"<i4", offset=8)
    b = ist.asarray(other)
    assert ist.is_shared(other) and ist.asarray(other, copy=False).segment.id == a.segment.id
    assert b.segment.id == a.segment.id and b.tolist() == [[2, 3, 4], [5, 6, 7]] and not b.readonly
    assert ist.stats()["bytes_copied"] == before and a.owners == 3
    b[0, 0] = 99
    assert a[2] == 99
    let_go(copy)
    a.release()
    assert b.owners == 1 and b[1, 2] == 7
    readonly = Offers(taken(b), (12,), b"<i4", flags=READONLY, offset=0)
    assert ist.asarray(readonly).readonly and not b.readonly
    let_go(readonly.copy)


def test_in_copies_where_it_has_to() -> None:
    a = ist.array([1, 2, 3], "i4")
    copy = taken(a)
    other = Offers(copy, (3,), b"<i4")
    for b in (ist.array(other), ist.asarray(other, copy=True), ist.asarray(other, "f8"), ist.array(other, "f8")):
        assert b.tolist() == [1, 2, 3] and b.segment.id != a.segment.id
    with pytest.raises(ValueError, match="copy=False"):
        ist.asarray(other, "f8", copy=False)
    let_go(copy)
    assert a.owners == 1


def test_in_memory_of_somebody_elses() -> None:
    p = ExchangeProducer()
    a = ist.asarray(p)
    assert a.tolist() == [[0, 1, 2], [3, 4, 5]] and a.segment.kind == "foreign" and not a.readonly
    assert (len(p.retained), len(p.released)) == (1, 0)
    a[1, 2] = 50
    assert p.memory[5] == 50
    view, buffer = a[1], memoryview(a)
    b = ist.attach(a.token())
    a.release()
    del a, p.capsule
    gc.collect()
    assert view.tolist() == [3, 4, 50] and len(p.released) == 0
    del view
    buffer.release()
    kept = [b]
    del b
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join(60)
    assert p.released.threads == [thread.ident] and len(p.retained) == 1


def test_in_other_fields() -> None:
    for fields, expected in (
        ({"offset": 8}, [[2, 3, 4], [5, 6, 7]]),
        ({"strides": (4, 8), "offset": 0}, [[0, 2, 4], [1, 3, 5]]),
        ({"strides": (-12, 4), "offset": 12}, [[3, 4, 5], [0, 1, 2]]),
        ({"dtype": b">i4"}, [[0, 1 << 24, 2 << 24], [3 << 24, 4 << 24, 5 << 24]]),
        ({"dtype": None, "format": b"i"}, [[0, 1, 2], [3, 4, 5]]),
        ({"version": 0x10007, "bytes": 4096}, [[0, 1, 2], [3, 4, 5]]),
    ):
        a = ist.asarray(ExchangeProducer(**fields))
        assert a.tolist() == expected
    for flags in (READONLY, FROZEN, READONLY | FROZEN):
        a = ist.asarray(ExchangeProducer(flags=flags))
        assert a.readonly and a.segment.readonly
    a = ist.asarray(ExchangeProducer((0, 3), data=None, size=0))
    assert a.shape == (0, 3) and a.tolist() == []
    assert ist.asarray(ExchangeProducer(())).tolist() == 0


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"name": b"dltensor"}, TypeError, 'named "isthmus_segment"'),
        ({"version": 0x20000}, BufferError, "version 2.0 .* reads 1.0"),
        ({"version": 0}, BufferError, "version 0.0"),
        ({"bytes": 8}, BufferError, "in 8 bytes"),
        ({"retain": None}, BufferError, "retain and release"),
        ({"release": None}, BufferError, "retain and release"),
        ({"ndim": -1}, BufferError, "shape that can't be"),
        ({"ndim": 65}, BufferError, "shape that can't be"),
        ({"axes": None}, BufferError, "shape that can't be"),
        ({"axes": (ctypes.c_int64 * 2)(2, -3)}, BufferError, "shape that can't be"),
        ({"axes": (ctypes.c_int64 * 2)(2**62, 2**62)}, ValueError, "too (big|large)|maximum"),
        ({"axes": (ctypes.c_int64 * 2)(8, 9)}, BufferError, "don't lie inside"),
        ({"strides": (-12, 4)}, BufferError, "don't lie inside"),
        ({"strides": (2**62, 4)}, BufferError, "don't lie inside"),
        ({"offset": 240}, BufferError, "don't lie inside"),
        ({"offset": 2**63}, BufferError, "memory that can't be"),
        ({"size": 2**63}, BufferError, "memory that can't be"),
        ({"data": None}, BufferError, "memory that can't be"),
        ({"itemsize": 0}, BufferError, "size that can't be"),
        ({"itemsize": 2**62}, BufferError, "size that can't be"),
        ({"itemsize": 8}, BufferError, "'<i4' of 8 bytes"),
        ({"dtype": None}, BufferError, "what its elements are"),
        ({"dtype": b"nonsense"}, ValueError, "description of a dtype"),
        ({"dtype": b"(2)<i2"}, BufferError, "elements '"),
        ({"dtype": None, "format": b"O"}, TypeError, "O"),
    ],
)
def test_in_impossible(fields: Any, error: type[Exception], text: str) -> None:
    p = ExchangeProducer(**fields)
    for call in (ist.asarray, ist.array):
        with pytest.raises(error, match=text):
            call(p)
    assert not ist.is_shared(p)
    assert (len(p.retained), len(p.released)) == (0, 0)


def test_in_handles_that_are_none() -> None:
    a = ist.array([1, 2, 3], "i4")
    copy = taken(a)
    other = Offers(copy, (3,), b"<i4")
    let_go(copy)
    index = copy.segment.index
    del a
    with pytest.raises(ist.SegmentGoneError, match="segment of a Offers"):  # no crash, and nobody else's segment
        ist.asarray(other)
    again = ist.array([4, 5, 6], "i4")
    assert again.segment.id == index
    with pytest.raises(ist.SegmentGoneError):
        ist.asarray(other)
    assert again.owners == 1
    # a handle of another copy of the library, perhaps: nothing at its address is touched, and its own functions count
    p = ExchangeProducer(segment=capsules.Segment(16, 1, index), epoch=copy.epoch)
    b = ist.asarray(p)
    assert b.segment.kind == "foreign" and len(p.retained) == 1
    larger = Offers(taken(again), (4,), b"<i4", size=1000)
    with pytest.raises(BufferError, match="inside its segment"):
        ist.asarray(larger)
    let_go(larger.copy)
    assert again.owners == 1


def test_in_other_objects() -> None:
    class Raises:
        def __isthmus_segment__(self) -> Any:
            raise ZeroDivisionError("on purpose")

    class Wrong:
        def __isthmus_segment__(self) -> Any:
            return 5

    class Property:
        @property
        def __isthmus_segment__(self) -> Any:
            raise KeyError("on purpose")

    class NotThere(list[int]):
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    with pytest.raises(ZeroDivisionError):
        ist.asarray(Raises())
    with pytest.raises(TypeError, match=r"must return a capsule .* not 5"):
        ist.asarray(Wrong())
    with pytest.raises(KeyError):
        ist.array(Property())
    assert ist.asarray(NotThere([1, 2])).tolist() == [1, 2]
    assert not ist.is_shared(Raises()) and not ist.is_shared(Wrong())


def test_in_several_interpreters() -> None:
    a = ist.array([1, 2, 3], "i4")
    with Interpreter() as other, Channel() as channel:
        channel.put(a)
        other.run(f"""
            {channel.there}
            import isthmus as ist
            class Offers:
                def __init__(self, a): self.capsule = a.__isthmus_segment__()
                def __isthmus_segment__(self): return self.capsule
            a = get()
            offers = Offers(a)
            a.release()
            b = ist.asarray(offers, copy=False)
            del offers
            b[1] = 20
            put(b)
            del b
        """)
        b = channel.get()
        assert b.tolist() == [1, 20, 3] and b.segment.id == a.segment.id and a.owners == 2
        copy = taken(b)
        other.run("import gc; gc.collect()")
    b.release()
    assert a.owners == 2
    let_go(copy)
    assert a.owners == 1


def test_in_a_child_of_a_fork() -> None:
    with Group() as group:
        one = group.start(1)[0]
        one.run("from capsules import *; a = ist.array([1, 2, 3], 'i4'); offers = Offers(taken(a), (3,), b'<i4')")
        child = one.fork()
        assert child("ist.asarray(offers).tolist()") == [1, 2, 3]
        child.run("ist.asarray(offers)[0] = 7; let_go(offers.copy); del a, offers")
        assert one("a.tolist()") == [7, 2, 3]
        one.run("let_go(offers.copy); del a, offers")


def test_many_threads() -> None:
    a = ist.zeros(100, "i4")
    offers, done = Offers(taken(a), (100,), b"<i4"), []

    def work() -> None:
        for _ in range(500):
            b = ist.asarray(offers)
            copy = taken(b)
            b.release()
            let_go(copy)
        done.append(True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    let_go(offers.copy)
    assert len(done) == 4 and a.owners == 1 and len(ist.segments()) == 1


def test_memory_errors_at_every_allocation() -> None:
    a = ist.zeros((2, 3), "i4")
    offers = Offers(taken(a), (2, 3), b"<i4")
    capsule = offers.__isthmus_segment__()

    class Kept:
        def __isthmus_segment__(self) -> Any:
            return capsule

    failures = 0
    for make in (a.__isthmus_segment__, lambda: ist.asarray(Kept()), lambda: ist.array(Kept())):
        make()
        for n in range(40):
            failures += fails_at(n, make)
            gc.collect()
            assert a.owners == 2 and len(ist.segments()) == 1, n
    let_go(offers.copy)
    assert failures >= 3
