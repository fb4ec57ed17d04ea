"""Indexing and assignment: numpy's basic indexing is the oracle."""

import itertools
from typing import Any

import isthmus as ist
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.matrix


def pair(shape: tuple[int, ...], dtype: str = "i4") -> tuple[Any, Any]:
    numpy = pytest.importorskip("numpy")
    n = numpy.arange(numpy.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    return ist.array(n), n


@st.composite
def keys(draw: Any) -> tuple[tuple[int, ...], Any]:
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    bound = st.none() | st.integers(-6, 6) | st.sampled_from([2**62, -(2**62), 2**70, -(2**70)])
    steps = st.none() | st.integers(-3, 3).filter(bool) | st.sampled_from([2**62, -(2**63), 2**70])
    one = st.integers(-5, 5) | st.builds(slice, bound, bound, steps) | st.none() | st.just(...)
    key = tuple(draw(st.lists(one, max_size=6)))
    return shape, key[0] if len(key) == 1 and draw(st.booleans()) else key


def outcome(function: Any, *args: Any) -> tuple[str, Any]:
    try:
        return "value", function(*args)
    except (IndexError, ValueError, TypeError) as error:
        return "error", type(error)


@given(keys())
def test_get_like_numpy(case: Any) -> None:
    shape, key = case
    a, n = pair(shape)
    ours, theirs = outcome(a.__getitem__, key), outcome(n.__getitem__, key)
    assert ours[0] == theirs[0]
    if ours[0] == "error":
        assert ours[1] is theirs[1]
        return
    x, y = ours[1], theirs[1]
    if isinstance(x, int):
        assert y.shape == () and x == y and a.ndim == sum(isinstance(k, int) for k in (key if isinstance(key, tuple) else (key,)))
    else:
        assert (x.shape, x.tolist()) == (y.shape, y.tolist()) and x.segment.id == a.segment.id
        assert x.tobytes() == y.tobytes()


@given(
    keys(), st.sampled_from(["scalar", "full", "broadcast", "list", "buffer", "wrong", "self"]), st.sampled_from(["i4", "f8", "u1", "c8"])
)
def test_set_like_numpy(case: Any, kind: str, dtype: str) -> None:
    numpy = pytest.importorskip("numpy")
    shape, key = case
    a, n = pair(shape, dtype)
    try:
        target = n[key]
    except (IndexError, ValueError, TypeError) as error:
        with pytest.raises(type(error)):
            a[key] = 1
        assert a.tolist() == n.tolist()
        return
    inner = numpy.shape(target)
    value: Any = {
        "scalar": 7,
        "full": numpy.arange(numpy.prod(inner, dtype=int)).reshape(inner).astype("u1"),
        "broadcast": numpy.array([5], "u1"),
        "list": numpy.ones(inner, int).tolist(),
        "buffer": numpy.full(inner[1:], 3, "u1"),
        "wrong": numpy.zeros((7, 3), "u1"),
        "self": n[key],
    }[kind]
    try:
        copied = numpy.array(value)
        n[key] = copied
    except (ValueError, TypeError):
        with pytest.raises(ValueError):
            a[key] = value
    else:
        a[key] = a[key] if kind == "self" else value
    assert a.tolist() == n.tolist()


def test_full_index_gives_a_python_scalar() -> None:
    a = ist.array([[1, 2], [3, 4]])
    assert a[1, 0] == 3 and type(a[1, 0]) is int and a[-1, -1] == 4
    assert a[1, 0, ...].shape == () and a[1, 0, None].tolist() == [3]
    zero = ist.array(5)
    assert zero[()] == 5 and type(zero[()]) is int and zero[...].shape == () and zero[None].tolist() == [5]
    zero[()] = 6
    zero[...] = [7]
    assert zero[()] == 7
    for value in ([8], ist.array([8]), b"8", [[8]]):
        with pytest.raises(ValueError, match="with a sequence"):
            zero[()] = value
        with pytest.raises(ValueError, match="with a sequence"):
            a[0, 0] = value
    a[0, 0] = zero
    assert a[0, 0] == 7


@pytest.mark.parametrize(
    "key", ["a", 1.0, b"x", [0], [True], True, (0, False), object(), (0, "x"), {}, (..., ...), (0, 0, 0), 10**30, -(10**30)]
)
def test_bad_keys_are_index_errors(key: Any) -> None:
    a = ist.zeros((2, 2))
    with pytest.raises(IndexError):
        a[key]
    with pytest.raises(IndexError):
        a[key] = 1
    assert not a.any()


def test_texts_name_the_offender() -> None:
    a = ist.zeros((2, 3))
    for key, text in (
        (5, "index 5 is out of bounds for axis 0 with size 2"),
        ((0, -4), "index -4 .* axis 1 with size 3"),
        ("x", "'x'"),
        ((1, 2, 3), "3 were"),
    ):
        with pytest.raises(IndexError, match=text):
            a[key]
    with pytest.raises(ValueError, match=r"\(2,\) into shape \(2, 3\)"):
        a[...] = [1, 2]
    with pytest.raises(ValueError, match="zero"):
        a[::0]


def test_dimensions_stay_within_64() -> None:
    a = ist.zeros((1,) * 63)
    assert a[None].ndim == 64
    for key in ((None, None), (None,) * 65, (..., None, None), (slice(None), None, None)):
        with pytest.raises(IndexError, match="64"):
            a[key]


class Index:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __index__(self) -> Any:
        return self.value


def test_index_protocol() -> None:
    a = ist.array(range(10))
    assert a[Index(3)] == 3 and a[Index(2) : Index(8) : Index(3)].tolist() == [2, 5]
    a[Index(0)] = 9
    assert a[0] == 9
    numpy = pytest.importorskip("numpy")
    assert a[numpy.int8(-1)] == 9
    for bad in (Index("x"), Index(2**70)):
        with pytest.raises((TypeError, IndexError)):
            a[bad]


def test_len_and_iteration() -> None:
    a = ist.array([[1, 2], [3, 4]])
    assert len(a) == 2 and [row.tolist() for row in a] == a.tolist() and [r.tolist() for r in reversed(a)] == [[3, 4], [1, 2]]
    assert list(ist.zeros(0)) == [] and len(ist.zeros((0, 3))) == 0
    for call in (len, iter):
        with pytest.raises(TypeError):
            call(ist.array(1))
    iterator = iter(a)
    first = next(iterator)
    a.release()
    assert first.tolist() == [1, 2]
    with pytest.raises(ist.DetachedError):
        next(iterator)


def test_deleting_is_refused() -> None:
    a = ist.zeros(3)
    with pytest.raises(TypeError, match="delete"):
        del a[0]


def test_read_only_is_refused_before_anything_happens() -> None:
    a = ist.array([1, 2, 3])
    for view in (a.toreadonly(), a.toreadonly()[1:], a.copy().freeze()):
        for key, value in ((0, 1), (slice(None), 1), (slice(None), [1]), (..., b"x")):
            with pytest.raises(ValueError, match="read-only"):
                view[key] = value
    assert a.tolist() == [1, 2, 3]


OVERLAPS = list(
    itertools.product([slice(None, -1), slice(1, None), slice(None, None, -1), slice(None, None, 2), slice(1, None, 2)], repeat=2)
)


@pytest.mark.parametrize("to, source", OVERLAPS)
@pytest.mark.parametrize("dtype", ["u1", "f4", "i8", "c16"])
def test_overlapping_copies(to: slice, source: slice, dtype: str) -> None:
    for n in (10, 40_000):
        a, m = pair((n,), "i4")
        a, m = ist.array(m.astype(dtype)), m.astype(dtype)
        x, y = m[to], m[source].copy()
        if x.shape != y.shape:
            continue
        m[to] = y
        a[to] = a[source]
        assert a.tobytes() == m.tobytes()


def test_overlapping_copies_in_two_dimensions_and_through_views() -> None:
    a, n = pair((6, 6))
    a[...] = a.T
    assert a.tolist() == n.T.tolist()
    a[1:, 1:] = a[:-1, :-1]
    m = n.T.copy()
    m[1:, 1:] = m[:-1, :-1].copy()
    assert a.tolist() == m.tolist()
    a, n = pair((8,))
    a[::-1] = memoryview(a)
    assert a.tolist() == n[::-1].tolist()
    b = ist.array([1, 2, 3, 4], "i2")
    b.view("u1")[1:5] = b.view("u1")[:4]
    assert b.tobytes() == b"\1\1\0\2\0\0\4\0"
    c = ist.array([1, 2, 3, 4, 5, 6, 7, 8], "u1")  # the same memory as another dtype
    c.view("u4")[:] = c[:2]
    assert c.view("u4").tolist() == [1, 2]


def test_assignment_is_all_or_nothing() -> None:
    a = ist.array([1, 2, 3])
    for value in ([7, 8, "x"], [7, 8.5, 9], [7, 2**70, 1], [7, 8], [[7], [8, 9]], "abc", None, [None] * 3, object()):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            a[:] = value
        assert a.tolist() == [1, 2, 3]


def test_assignment_from_nested_and_mixed() -> None:
    numpy = pytest.importorskip("numpy")
    a = ist.zeros((2, 3))
    a[:] = [[1, 2, 3], numpy.array([4, 5, 6])]
    assert a.tolist() == [[1, 2, 3], [4, 5, 6]]
    a[:, 0] = range(2)
    a[1] = (x for x in [1]) if False else (7, 8, 9)
    assert a.tolist() == [[0, 2, 3], [7, 8, 9]]
    a[0] = numpy.float32(1.5)
    a[1, 1:] = ist.array([True, False])
    assert a.tolist() == [[1.5] * 3, [7, 1, 0]]
    a[...] = numpy.arange(6, dtype="u2").reshape(1, 2, 3)
    assert a.tolist() == [[0, 1, 2], [3, 4, 5]]
    b = ist.zeros(3, "?")
    b[:] = [1, 0, 2]
    assert b.tolist() == [True, False, True]
    with pytest.raises(TypeError, match="same_kind"):
        b[:] = numpy.array([1, 0, 1])
    c = ist.zeros(4, "u1")
    c[:] = b"\1\2\3\4"
    c[1:3] = bytearray(b"\7\7")
    assert c.tolist() == [1, 7, 7, 4]


def test_large_assignments_without_the_gil() -> None:
    a, n = pair((400, 300), "f8")
    b = ist.zeros((300, 400), "f4")
    b[...] = a.T
    assert b.tolist() == n.T.tolist()
    b[::-1, ::-1] = n.T.astype("i4")
    assert b.tolist() == n.T[::-1, ::-1].tolist()
    b[:, ::2] = 5
    assert b[:, ::2].min() == b[:, ::2].max() == 5 and b[:, 1::2].max() > 5


@pytest.mark.parametrize("dtype, value", [("f8", 1.5), ("i8", 7), ("f4", 1.5), ("S3", b"abc"), ("i4, f8", (1, 2.0))])
def test_a_key_that_freezes_the_array(dtype: str, value: Any) -> None:
    a = ist.zeros(3, dtype)
    before = a.tolist()

    class Freezes:
        def __index__(self) -> int:
            a.freeze()
            return 1

    with pytest.raises(ValueError, match="read-only"):
        a[Freezes()] = value
    assert a.tolist() == before
