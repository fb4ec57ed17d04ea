"""SharedArray as a container: made, filled, read, and what the process knows of it. numpy is the oracle where it is there."""

import copy
import math
import sys
from collections.abc import Callable
from typing import Any

import isthmus as ist
import pytest

pytestmark = pytest.mark.matrix

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]


# ---- making ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (3, 0, 2), (1,) * 64, 7])
def test_zeros_of_every_shape(shape: Any, dtype: str) -> None:
    a = ist.zeros(shape, dtype)
    expected = (shape,) if isinstance(shape, int) else shape
    size = 1
    for n in expected:
        size *= n
    assert (a.shape, a.ndim, a.size) == (expected, len(expected), size)
    assert (a.dtype, a.itemsize, a.nbytes) == (ist.dtype(dtype), ist.dtype(dtype).itemsize, size * a.itemsize)
    assert not a.readonly and not a.frozen and not a.detached and a.c_contiguous
    assert a.tobytes() == bytes(a.nbytes) and a.segment.size == a.nbytes and a.owners == 1
    assert a.count_nonzero() == 0


def test_zeros_are_zero_in_recycled_memory() -> None:
    for n in (8, 100, 5000, 1 << 20):
        for _ in range(3):
            a = ist.buffer(n)
            a.fill(255)
            del a
            assert not ist.zeros(n, "u1").any()


def test_empty_full_buffer_like() -> None:
    assert ist.empty(3).dtype == "<f8" and ist.empty((2, 2), dtype="u2").shape == (2, 2)
    assert ist.empty(shape=[2, 3]).shape == (2, 3) and ist.zeros(4, prefault=True).tolist() == [0] * 4
    assert ist.buffer(10).shape == (10,) and ist.buffer(10).dtype == "|u1" and ist.buffer(0).nbytes == 0
    for value, dtype in ((True, "?"), (3, "i8"), (0.5, "f8"), (1j, "c16"), (2**63, "u8")):
        a = ist.full((2, 2), value)
        assert a.dtype == ist.dtype(dtype) and a.tolist() == [[value] * 2] * 2
    assert ist.full(3, 7, "u1").tolist() == [7] * 3
    assert ist.full((2, 3), [1, 2, 3]).tolist() == [[1, 2, 3]] * 2
    b = ist.array([[1, 2, 3]], "i2")
    assert (ist.empty_like(b).shape, ist.empty_like(b).dtype) == ((1, 3), b.dtype)
    assert ist.zeros_like(b, "f4").tolist() == [[0, 0, 0]] and ist.zeros_like(b, "f4").dtype == "<f4"
    assert ist.zeros_like([[1, 2], [3, 4.5]]).dtype == "<f8"


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


BAD_SHAPES: list[tuple[Any, type[Exception], str]] = [
    (-1, ValueError, "-1"),
    ((2, -3), ValueError, "-3"),
    (2**62, ValueError, "too big"),
    (2**63, ValueError, str(2**63)),
    (10**30, ValueError, str(10**30)),
    ((0, 2**62, 2**62), ValueError, "too big"),
    ((2**40, 2**40), ValueError, "too big"),
    ((1,) * 65, ValueError, "65"),
    (1.5, TypeError, "1.5"),
    ((2, 1.5), TypeError, "1.5"),
    ("3", TypeError, "'3'"),
    (b"3", TypeError, "b'3'"),
    (None, TypeError, "None"),
    ({2: 3}, TypeError, "{2: 3}"),
    ((2, (3,)), TypeError, r"(3,)"),
    (2**50, MemoryError, str(2**53)),
]


@pytest.mark.parametrize("shape, error, text", BAD_SHAPES)
@pytest.mark.parametrize("make", [ist.empty, ist.zeros, lambda shape: ist.full(shape, 0.0)])
def test_bad_shapes(make: Callable[[Any], Any], shape: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        make(shape)
    assert text in str(caught.value)


def test_shape_by_index_and_its_exceptions() -> None:
    assert ist.empty(Index(3)).shape == (3,) and ist.empty((Index(2), True)).shape == (2, 1)

    class Bad:
        def __index__(self) -> int:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ist.empty((2, Bad()))
    shape: list[Any] = [2, 3]

    class Changes:
        def __index__(self) -> int:
            shape.clear()
            return 4

    shape[0] = Changes()
    assert ist.empty(shape).shape == (4, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ist.empty(),
        lambda: ist.empty(3, "f8", 3),
        lambda: ist.empty(3, shape=3),
        lambda: ist.empty(3, order="C"),
        lambda: ist.empty(3, "f8", 5),  # max_length by its name alone
        lambda: ist.buffer(3, 5),
        lambda: ist.full(3),
        lambda: ist.buffer("3"),
        lambda: ist.buffer((2, 3)),
        lambda: ist.SharedArray(),
        lambda: ist.SharedArray(3),
        lambda: type("Sub", (ist.SharedArray,), {}),
        lambda: setattr(ist.SharedArray, "x", 1),
        lambda: type("Sub", (ist.dtype,), {}),
        lambda: setattr(ist.dtype, "x", 1),
    ],
)
def test_wrong_calls(call: Callable[[], Any]) -> None:
    with pytest.raises(TypeError):
        call()


# ---- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_scalars_have_python_types(dtype: str) -> None:
    a = ist.array([1, 0], dtype)
    kind = {"b": bool, "i": int, "u": int, "f": float, "c": complex}[a.dtype.kind]
    assert [type(x) for x in (a[0], a.tolist()[0], next(iter(a)))] == [kind] * 3
    assert a.tolist() == [1, 0] and list(a) == [1, 0] and a[0] == 1


def test_tobytes_orders() -> None:
    a = ist.array([[1, 2, 3], [4, 5, 6]], "u1")
    for x in (a, a.T, a[:, ::-1], a[::-1, 1:]):
        m = memoryview(x)
        for order in ("C", "F", "A", None):
            assert x.tobytes(order) == m.tobytes(order)
    for order in ("K", "c", 3):
        with pytest.raises(ValueError, match="order"):
            a.tobytes(order)


def test_copies_are_independent_and_counted() -> None:
    a = ist.array([[1.0, 2.0], [3.0, 4.0]])
    for make in (ist.SharedArray.copy, copy.copy, copy.deepcopy, ist.array, lambda x: ist.asarray(x, copy=True), lambda x: x.T.ravel()):
        before = ist.stats()["bytes_copied"]
        b = make(a)
        assert ist.stats()["bytes_copied"] - before == 32 and b.segment.id != a.segment.id and b.c_contiguous
        b[...] = 0
        assert a.sum() == 10
    before = ist.stats()["bytes_copied"]
    a.tobytes()
    assert ist.stats()["bytes_copied"] - before == 32
    views = a[1:], a.T, memoryview(a), ist.asarray(a), a.toreadonly(), a.ravel(), a.view("u1"), ist.asarray(memoryview(a))
    assert ist.stats()["bytes_copied"] - before == 32 and len(views) == 8


def test_copy_of_strided_is_contiguous() -> None:
    a = ist.array(range(24), "i4").reshape(2, 3, 4)
    for view in (a.T, a[::-1], a[:, ::2, ::-3], a.transpose(1, 0, 2)):
        b = view.copy()
        assert b.c_contiguous and b.tolist() == view.tolist()


def test_fill() -> None:
    a = ist.empty((3, 4))
    a.fill(2)
    assert a.tolist() == [[2] * 4] * 3
    a[:, ::2].fill(-1)
    assert a.tolist() == [[-1, 2, -1, 2]] * 3
    with pytest.raises(TypeError):
        a.fill("x")
    big = ist.empty(100_000, "u2")
    big.fill(65535)
    assert big.min() == 65535
    with pytest.raises(ValueError, match="read-only"):
        a.toreadonly().fill(0)


def test_bool() -> None:
    assert bool(ist.array(3)) and not bool(ist.array([0.0])) and bool(ist.array([[float("nan")]]))
    for n in (0, 2):
        with pytest.raises(ValueError, match=f"{n} elements"):
            bool(ist.zeros(n))


def test_one_number() -> None:
    """int(), float() and complex() as numpy has them: of an array without axes, whatever Python can do with its element."""
    numbers = [(True, "?"), (-3, "i1"), (2**63, ">u8"), (1.5, "f2"), (-2.25, "g"), (1e300, "<f8"), (12, "i4")]
    for value, dtype in numbers:
        a = ist.array(value, dtype)
        assert (int(a), float(a), complex(a)) == (int(value), float(value), complex(value)), dtype
        assert [type(f(a)) for f in (int, float, complex)] == [int, float, complex]
    assert complex(ist.array(1 + 2j)) == 1 + 2j and complex(ist.array(3j, ">c8")) == 3j
    assert int(ist.array("12")) == 12 and float(ist.full((), b"1.5", "S3")) == 1.5 and math.sqrt(ist.array(9)) == 3
    a = ist.zeros(2)
    a[0] = ist.array(7)
    assert float(a.reshape(2, 1)[0].reshape(())) == a[0] == 7
    for many in (ist.zeros(1), ist.zeros((1, 1)), ist.zeros(0), ist.buffer(3), ist.zeros(1, max_length=2)):
        for convert in (int, float, complex):
            with pytest.raises(TypeError, match=f"without axes is a number; this one has {many.ndim}"):
                convert(many)
    with pytest.raises(TypeError, match="real number, not 'complex'"):
        int(ist.array(1j))
    with pytest.raises(ValueError, match="could not convert"):
        float(ist.array("x"))
    for wrong in (ist.array("1"), ist.full((), b"1", "S1"), ist.array("2020-01-01", "M8[D]"), ist.array((1, 2.0), "i4,f8")):
        with pytest.raises(TypeError, match="isn't a number"):
            complex(wrong)
    gone = ist.array(1)
    gone.release()
    for convert in (int, float, complex):
        with pytest.raises(ist.DetachedError):
            convert(gone)


def test_contains() -> None:
    a = ist.array([[1, 2], [3, 4]])
    assert 3 in a and 3.0 in a and 5 not in a and "x" not in a
    assert float("nan") not in ist.array([float("nan")])
    assert 0 in ist.array(0) and 1 not in ist.zeros(0)

    class Raises:
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Raises() in a


def test_repr() -> None:
    assert repr(ist.array([[1, 2], [3, 4]], "i4")) == "SharedArray([[1, 2], [3, 4]], shape=(2, 2), dtype='<i4')"
    assert repr(ist.array(1.5)) == "SharedArray(1.5, shape=(), dtype='<f8')"
    assert repr(ist.zeros((0, 3), "?")) == "SharedArray([], shape=(0, 3), dtype='|b1')"
    assert "[0, 1, 2, ..., 997, 998, 999], shape=(1000,)" in repr(ist.array(range(1000)))
    assert len(repr(ist.zeros((50, 50, 50)))) < 2000
    a = ist.zeros(3)
    assert ", readonly)" in repr(a.toreadonly()) and ", frozen)" in repr(a.freeze())
    a.release()
    assert repr(a) == "<SharedArray detached, shape=(3,), dtype='<f8'>"


def test_sizeof_and_attributes() -> None:
    a = ist.zeros((2, 3))
    assert sys.getsizeof(a) < 300 and sys.getsizeof(a) > sys.getsizeof(a[0, 0:0])
    assert a.strides == (24, 8) and a.T.strides == (8, 24) and a.format == "d" and a.T.f_contiguous and not a.T.c_contiguous
    assert ist.SharedArray[int] == ist.SharedArray[int]
    for name in ("shape", "T", "readonly", "dtype", "frozen"):
        with pytest.raises(AttributeError):
            setattr(a, name, None)
    with pytest.raises(AttributeError):
        a.anything = 1


def test_pattern_matching() -> None:
    match ist.array([1, 2, 3]):
        case [first, *rest]:
            assert (first, rest) == (1, [2, 3])
        case _:
            raise AssertionError


# ---- the process ------------------------------------------------------------------------------------------------------


def test_stats_and_segments() -> None:
    before = ist.stats()
    assert set(before) >= {
        "allocated",
        "mapped",
        "segments",
        "owners",
        "exports",
        "leases",
        "in_flight",
        "queues",
        "leaked",
        "saturated",
        "bytes_copied",
    }
    assert set(before) >= {"misuses", "orphaned", "retired"} and all(type(v) is int for v in before.values())
    a = ist.buffer(12345)
    view = memoryview(a)
    after = ist.stats()
    assert after["allocated"] - before["allocated"] == 12345 and after["segments"] - before["segments"] == 1
    assert after["owners"] - before["owners"] == 1 and after["exports"] - before["exports"] == 1 and after["mapped"] >= 12345
    assert after["misuses"] == before["misuses"] == 0 and after["leaked"] == 0
    (info,) = (s for s in ist.segments() if s.id == a.segment.id)
    assert info == (*a.segment[:5], None, *a.segment[6:]) and info.kind == "heap" and info.size == 12345
    assert a.segment.exports == 1 and not info.published and info.created_by == 0
    assert type(ist.sweep()["leases"]) is int
    view.release()
    assert ist.stats()["exports"] == before["exports"]


def test_configure_is_too_late() -> None:
    a = ist.zeros(1)
    with pytest.raises(ist.Error, match="too late"):
        ist.configure(heap_size=1 << 30)
    for wrong in ({"heap_size": "1"}, {"pickle_lease": "x"}, {"unknown": 1}):
        with pytest.raises(TypeError):
            ist.configure(**wrong)
    for wrong in ({"heap_size": -1}, {"heap_size": 2**70}, {"pickle_lease": -1.0}, {"pickle_lease": float("nan")}):
        with pytest.raises(ValueError):
            ist.configure(**wrong)
    assert a.owners == 1


def test_errors() -> None:
    import pickle

    for name, bases in (
        ("Error", (Exception,)), ("SegmentGoneError", (ist.Error, LookupError)), ("DetachedError", (ist.Error, ValueError)),
        ("WorkerError", (ist.Error, RuntimeError)),
    ):  # fmt: skip
        error = getattr(ist, name)
        assert error.__bases__ == bases and error.__module__ == "isthmus" and error.__doc__
        assert type(pickle.loads(pickle.dumps(error("x")))) is error


def test_package() -> None:
    import os

    assert os.path.exists(ist.get_include() + "/isthmus/isthmus.h") and os.path.isdir(ist.get_library_dir())
    assert ist.get_cmake_dir().startswith(ist.get_library_dir())
    with pytest.raises(AttributeError, match="nonsense"):
        ist.nonsense
    assert set(ist.__all__) <= set(dir(ist)) and all(hasattr(ist, name) for name in ist.__all__)
