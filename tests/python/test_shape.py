"""Views of the same elements, and arrays as values among others: ==, hash. numpy is the oracle where it is there."""

import ctypes
from typing import Any

import isthmus as ist
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.matrix

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]


# ---- shapes -----------------------------------------------------------------------------------------------------------


@st.composite
def views(draw: Any) -> tuple[Any, list[Any]]:
    """An array and steps that make views of it, to be done to ours and to numpy's."""
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    steps: list[Any] = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["T", "slice", "new", "transpose", "ravel", "reshape"]))
        steps.append((kind, draw(st.integers(0, 2**32))))
    return shape, steps


def step(x: Any, kind: str, seed: int, numpy: Any) -> Any:
    rng = numpy.random.default_rng(seed)
    if kind == "T":
        return x.T
    if kind == "slice":
        key = []
        for n in x.shape:
            bounds = [None, *range(-n - 1, n + 2)]
            key.append(
                slice(bounds[rng.integers(len(bounds))], bounds[rng.integers(len(bounds))], [None, 1, 2, -1, -2, 3][rng.integers(6)])
            )
        return x[tuple(key)]
    if kind == "new":
        return x[..., None] if rng.integers(2) else x[None]
    if kind == "transpose":
        return x.transpose([int(i) for i in rng.permutation(len(x.shape))])
    if kind == "ravel":
        return x.ravel()
    factors, size = [], x.size
    for d in (2, 3, 2, 5):
        if size and size % d == 0 and rng.integers(2):
            factors.append(d)
            size //= d
    shape = [*factors, size]
    if x.size and rng.integers(2):
        shape[rng.integers(len(shape))] = -1
    return x.reshape(shape)


@given(views())
def test_views_like_numpys(case: Any) -> None:
    numpy = pytest.importorskip("numpy")
    shape, steps = case
    n = numpy.arange(numpy.prod(shape, dtype=int)).reshape(shape)
    a = ist.array(n)
    for kind, seed in steps:
        n, a = step(n, kind, seed, numpy), step(a, kind, seed, numpy)
        assert a.shape == n.shape and a.tolist() == n.tolist()
        assert a.size == 0 or n.base is None or (a.c_contiguous, a.f_contiguous) == (n.flags.c_contiguous, n.flags.f_contiguous)
        assert numpy.asarray(a).tolist() == n.tolist() and numpy.asarray(a).strides == a.strides
        assert a.tobytes() == n.tobytes() and a.tobytes("F") == n.tobytes("F")
        assert a.copy() == a


def test_reshape_shares_where_it_can() -> None:
    a = ist.array(range(24)).reshape(2, 3, 4)
    for view in (
        a.reshape(24),
        a.reshape(6, 4),
        a.reshape([2, -1]),
        a[:, ::-1].reshape(2, 3, 2, 2),
        a[..., ::2].reshape(6, 2),
        a.reshape(1, 24, 1),
    ):
        assert view.segment.id == a.segment.id
    assert a.T.reshape(-1).segment.id != a.segment.id and a.T.reshape(-1).tolist() == a.T.ravel().tolist()
    assert a.reshape(4, 6, copy=True).segment.id != a.segment.id and a.reshape(4, 6, copy=False).segment.id == a.segment.id
    with pytest.raises(ValueError, match="copy"):
        a.T.reshape(24, copy=False)
    with pytest.raises(ValueError, match="copy"):
        a.T.ravel(copy=False)
    assert a.ravel(copy=True).segment.id != a.segment.id


@pytest.mark.parametrize("shape", [(5,), (2, 2), (-1, -1), (-1, 4, 0), (2, -2, 3), (2**40, 2**40), (7, -1)])
def test_bad_reshapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        ist.zeros(6).reshape(shape)
    with pytest.raises(ValueError):
        ist.zeros(6).reshape(*shape)


def test_bad_reshape_calls() -> None:
    a = ist.zeros(6)
    for call in (lambda: a.reshape(), lambda: a.reshape("6"), lambda: a.reshape(2.0, 3), lambda: a.reshape(6, order="C")):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError):
        ist.zeros(0).reshape(-1, 0)
    assert ist.zeros(0).reshape(0, 5).shape == (0, 5) and ist.zeros((2, 0)).reshape(-1, 3).shape == (0, 3)


def test_transpose() -> None:
    a = ist.array(range(6)).reshape(1, 2, 3)
    assert a.transpose().shape == a.T.shape == a.transpose(None).shape == (3, 2, 1)
    assert a.transpose(1, -1, 0).shape == a.transpose((1, 2, 0)).shape == (2, 3, 1)
    assert ist.array(1).T.tolist() == 1
    for wrong in ((0,), (0, 1, 3), (0, 0, 1), (0, 1, 2, 0), (0, 1, -4)):
        with pytest.raises(ValueError):
            a.transpose(wrong)
    with pytest.raises(TypeError):
        a.transpose("abc")


def test_view_reads_the_same_bytes() -> None:
    a = ist.array([1.0, 2.0])
    assert a.view("u8").tolist() == [0x3FF0000000000000, 0x4000000000000000]
    assert a.view("u1").shape == (16,) and a.view("c16").tolist() == [1 + 2j] and a.view().tolist() == a.tolist()
    a.view("u8")[0] = 0
    assert a[0] == 0
    b = ist.zeros((3, 4), "i4")
    assert b.view("i2").shape == (3, 8) and b.view("i8").shape == (3, 2) and b[:, ::-1].view("u4").shape == (3, 4)
    for wrong in (lambda: b.T.view("i2"), lambda: b[:, ::2].view("i8"), lambda: b[:, :3].view("i8"), lambda: ist.array(1).view("u1")):
        with pytest.raises(ValueError):
            wrong()
    odd = ist.buffer(17)
    odd.fill(0)
    unaligned = odd[1:].view("f8")
    unaligned[:] = [1.5, 2.5]
    assert unaligned.tolist() == [1.5, 2.5] and unaligned.sum() == 4 and unaligned.max() == 2.5 and (unaligned == ist.array([1.5, 2.5]))


def test_cast_like_memoryview() -> None:
    for source, format, shape in (
        (bytearray(24), "d", None), (bytearray(24), "i", (2, 3)), (bytearray(24), "<h", None), (bytearray(24), "B", (2, 3, 4)),
    ):  # fmt: skip
        a, m = ist.array(source), memoryview(source)
        if format[0] == "<":  # more than memoryview can
            assert a.cast(format).shape == (12,)
            continue
        ours, theirs = (a.cast(format), m.cast(format)) if shape is None else (a.cast(format, shape), m.cast(format, shape))
        assert (ours.shape, ours.format, ours.tolist()) == (theirs.shape, theirs.format, theirs.tolist())
        back = ours.cast("B")
        assert back.shape == (24,) and back == a
    d = ist.zeros((2, 3))
    for wrong in (
        lambda: d.cast("i"), lambda: d.cast("d", (3, 2)), lambda: d.T.cast("B"), lambda: ist.buffer(7).cast("d"),
        lambda: ist.buffer(8).cast("d", (2,)), lambda: d.cast("x"), lambda: d.cast(3), lambda: d.cast("d\0"),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            wrong()


# ---- == and hash ------------------------------------------------------------------------------------------------------


def test_equality() -> None:
    a = ist.array([1, 2, 3], "u1")
    assert a == a.copy() and a == b"\1\2\3" and a == bytearray(b"\1\2\3") and a == memoryview(b"\1\2\3")
    assert a == ist.array([1.0, 2.0, 3.0]) and a == ist.array([1, 2, 3], "c8") and a != ist.array([1, 2, 4])
    assert a != ist.array([[1, 2, 3]]) and a != ist.array([1, 2]) and a != [1, 2, 3] and a != 1 and a != "x"
    assert ist.zeros(0) == ist.zeros(0, "u1") and ist.zeros((0, 2)) != ist.zeros(0)
    nan = ist.array([float("nan")])
    assert nan != nan and (nan == nan) is False
    assert ist.array([0.0]) == ist.array([-0.0]) and ist.array([0.0], "f2") == ist.array([-0.0], "f2")
    assert ist.array([2**53 + 1]) != ist.array([2.0**53])
    big = ist.array(range(100_000), "i4")
    assert big == big.copy() and big[::2] == big.copy()[::2] and big[::-1] != big
    for compare in ("__lt__", "__le__", "__gt__", "__ge__"):
        assert getattr(a, compare)(a) is NotImplemented
    with pytest.raises(TypeError):
        a < a
    assert a != memoryview(b"abc").cast("c")
    assert a.__eq__((ctypes.py_object * 2)()) is NotImplemented


def test_equality_against_ndarray_is_numpys() -> None:
    numpy = pytest.importorskip("numpy")
    a = ist.array([1, 2, 3])
    n = numpy.array([1, 0, 3])
    assert a.__eq__(n) is NotImplemented
    for result in (a == n, n == a):
        assert isinstance(result, numpy.ndarray) and result.tolist() == [True, False, True]


@given(st.lists(st.integers(-300, 300) | st.floats(-1e3, 1e3) | st.booleans(), max_size=6), st.data())
def test_equal_values_hash_equal(values: list[Any], data: Any) -> None:
    a = ist.array(values).freeze()
    others = [d for d in DTYPES if all(isinstance(v, int) or d[0] in "fc" for v in values)]
    dtype = data.draw(st.sampled_from(others or ["f8"]))
    try:
        b = ist.array(values, dtype).freeze()
    except OverflowError:
        return
    if a == b:
        assert hash(a) == hash(b)
    raw = bytes(int(v) & 255 for v in values)
    if a == raw:
        assert hash(a) == hash(raw)
    if a.dtype == "<f8" and b == a.copy():
        assert hash(a.copy().freeze()) == hash(a)


def test_hash_only_when_frozen() -> None:
    a = ist.array([[1.5, float("nan")]])
    with pytest.raises(TypeError, match="frozen"):
        hash(a)
    with pytest.raises(TypeError, match="frozen"):
        hash(a.toreadonly())
    view = a[:, :1]
    a.freeze()
    assert hash(a) == hash(a) and hash(view) == hash(ist.array([[1.5]]).freeze())
    assert hash(ist.array(b"abc").freeze()) == hash(b"abc")
    a.release()
    with pytest.raises(ist.DetachedError):
        hash(a)
