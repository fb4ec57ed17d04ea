"""array() and asarray(): other people's values and memory. numpy is the oracle where it is there."""

import array
import ctypes
import gc
import sys
from typing import Any

import isthmus as ist
import pytest

pytestmark = pytest.mark.matrix

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]


# ---- array() ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "obj, dtype",
    [
        ([], "f8"), ([[]], "f8"), ([[], []], "f8"), (3, "i8"), (True, "?"), (1.5, "f8"), (1j, "c16"), ([True, False], "?"),
        ([True, 2], "i8"), ([1, 2.5], "f8"), ([1, 2j], "c16"), ([2**63], "u8"), ([2**63, 1], "f8"), ((1, 2), "i8"), (range(4), "i8"),
        ([[1, 2], (3, 4)], "i8"), ([[[True]]], "?"), ([range(2), [5, 6.0]], "f8"),
    ],
)  # fmt: skip
def test_inference(obj: Any, dtype: str) -> None:
    a = ist.array(obj)
    assert a.dtype == ist.dtype(dtype)
    numpy = pytest.importorskip("numpy")
    n = numpy.array(obj)
    assert (a.shape, a.tolist(), a.dtype.str) == (n.shape, n.tolist(), n.dtype.str)


@pytest.mark.parametrize("one", DTYPES)
@pytest.mark.parametrize("other", DTYPES)
def test_promotion_of_arrays_in_a_list(one: str, other: str) -> None:
    numpy = pytest.importorskip("numpy")
    x, y = ist.array([1, 0], one), numpy.array([0, 1]).astype(other)
    a = ist.array([x, y])
    assert a.dtype == numpy.promote_types(one, other).str and a.tolist() == [[1, 0], [0, 1]]
    assert ist.array([[x, y], [y, x]]).shape == (2, 2, 2)
    scalar = ist.array([numpy.dtype(one).type(1), numpy.dtype(other).type(0)])
    assert scalar.dtype == numpy.promote_types(one, other).str and scalar.tolist() == [1, 0]


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_casting_is_same_kind(source: str, target: str) -> None:
    numpy = pytest.importorskip("numpy")
    values = numpy.array([0, 1, 5, 100, 127]).astype(source)
    if values.dtype.kind in "ifc":
        values[1:3] = -values[1:3]
    ours = ist.array(values)
    to = ist.zeros(5, target)
    if numpy.can_cast(source, target, "same_kind"):
        expected = values.astype(target)
        assert ist.array(values, target).tolist() == expected.tolist()
        assert ist.array(values[::-2], target).tolist() == values[::-2].astype(target).tolist()
        to[:] = values
        assert to.tolist() == expected.tolist()
        to[::-1] = ours
        assert to.tolist() == expected[::-1].tolist()
    else:
        for wrong in (lambda: to.__setitem__(slice(None), values), lambda: to.fill(ours[1:2])):
            with pytest.raises(TypeError, match="same_kind"):
                wrong()
        assert not to.any()


def test_casting_rounds_as_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    rng = numpy.random.default_rng(5)
    integers = rng.integers(-(2**63), 2**63 - 1, 2000)
    floats = rng.standard_normal(2000) * 10.0 ** rng.integers(-10, 10, 2000)
    for source, targets in ((integers, ("f2", "f4", "f8", "c8")), (integers.view("u8"), ("f2", "f4", "f8")), (floats, ("f2", "f4", "c8"))):
        for target in targets:
            with numpy.errstate(over="ignore"):
                expected = source.astype(target)
            assert ist.array(source, target).tobytes() == expected.tobytes(), (source.dtype, target)


@pytest.mark.parametrize(
    "obj, error",
    [
        ([1, [2]], ValueError), ([[2], 1], ValueError), ([[1, 2], [3]], ValueError), ([[], [1]], ValueError), (["a", 1], TypeError),
        ([b"a", 1.5], TypeError), ([None], TypeError), (None, TypeError), (object(), TypeError), ({1: 2}, TypeError),
        ([2**64], OverflowError),
        ([10**5000], OverflowError), ((ctypes.py_object * 2)(), TypeError), (int, TypeError), ([int], TypeError), ({1, 2}, TypeError),
    ],
)  # fmt: skip
def test_what_no_array_can_be_made_of(obj: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        ist.array(obj)
    with pytest.raises(error):
        ist.asarray(obj)


def test_a_list_in_itself() -> None:
    inside: list[Any] = []
    inside.append(inside)
    with pytest.raises(ValueError, match="64"):
        ist.array(inside)
    deep: Any = 5
    for _ in range(64):
        deep = [deep]
    assert ist.array(deep).ndim == 64
    with pytest.raises(ValueError, match="64"):
        ist.array([deep])


def test_values_that_do_not_fit_the_dtype() -> None:
    for values, dtype, error in (
        ([300], "u1", OverflowError),
        ([1j], "f8", TypeError),
        (["x"], "f8", ValueError),
        ([None], "i4", TypeError),
    ):
        with pytest.raises(error):
            ist.array(values, dtype)
    a = ist.zeros(1, "i4")
    for value, error in ((1.5, TypeError), ("1", TypeError), (2**31, OverflowError), (None, TypeError)):
        for wrong in (lambda v=value: a.__setitem__(0, v), lambda v=value: a.__setitem__(slice(None), [v]), lambda v=value: a.fill(v)):
            with pytest.raises(error):
                wrong()
    assert a.tolist() == [0]


def test_a_list_as_times_leaves_no_dtype_behind() -> None:
    a, unit = ist.zeros(3, "M8"), ist.dtype("M8[Y]")
    before = sys.getrefcount(unit)
    for _ in range(10):
        with pytest.raises(ValueError, match="outside what the unit can express"):
            a[:] = ["2020", "2021", "2022"]
    assert sys.getrefcount(unit) == before


def test_lists_that_change_while_they_are_read() -> None:
    values: list[Any] = []

    class Shrinks:
        def __float__(self) -> float:
            values.clear()
            return 1.0

    values[:] = [Shrinks(), 2.0, 3.0, Shrinks()]
    with pytest.raises(ValueError, match="changed"):
        ist.array(values)

    class Grows:
        def __float__(self) -> float:
            rows[0].append(1.0)
            return 1.0

    rows: list[list[Any]] = [[Grows(), 2.0], [3.0, 4.0]]
    with pytest.raises(ValueError, match="changed"):
        ist.array(rows)

    class Lies(list[Any]):
        def __len__(self) -> int:
            return 1000

    assert ist.array(Lies([1, 2])).tolist() == [1, 2]

    class Sequence:
        def __init__(self) -> None:
            self.calls = 0

        def __len__(self) -> int:
            self.calls += 1
            return 2 if self.calls == 1 else 3

        def __getitem__(self, i: int) -> int:
            if i >= (2 if self.calls <= 1 else 3):
                raise IndexError
            return i

    with pytest.raises(ValueError, match="changed"):
        ist.array(Sequence())


@pytest.mark.parametrize("letter", "bBhHiIlLqQfd")
def test_from_array_array(letter: str) -> None:
    source = array.array(letter, [1, 2, 3])
    a = ist.array(source)
    assert a.tolist() == [1, 2, 3] and a.dtype == ist.dtype(letter) and memoryview(a) == memoryview(source)
    a[0] = 9
    assert source[0] == 1


def test_from_bytes_and_multidimensional_memoryviews() -> None:
    assert ist.array(b"abc").tolist() == [97, 98, 99]
    view = memoryview(bytes(range(24))).cast("B", (2, 3, 4))
    a = ist.array(view)
    assert a.shape == (2, 3, 4) and a.tobytes() == view.tobytes()
    assert ist.array(memoryview(b"abcdef")[::-2]).tobytes() == b"fdb"


def test_arrays_of_objects_are_refused() -> None:
    numpy = pytest.importorskip("numpy")
    for objects in (numpy.array([object()]), numpy.zeros(2, "i4, O")):
        with pytest.raises(TypeError, match="O"):
            ist.array(objects)
        with pytest.raises(TypeError, match="O"):
            ist.asarray(objects)


def test_buffers_with_suboffsets() -> None:
    testbuffer = pytest.importorskip("_testbuffer")
    items = list(range(12))
    nd = testbuffer.ndarray(items, shape=[3, 4], format="i", flags=testbuffer.ND_PIL)
    assert ist.array(nd).tolist() == nd.tolist()
    with pytest.raises(ValueError, match="copy"):
        ist.asarray(nd, copy=False)
    a = ist.zeros((3, 4), "i4")
    a[:, ::-1] = nd
    assert a[:, ::-1].tolist() == nd.tolist()


# ---- asarray and numpy ------------------------------------------------------------------------------------------------


def test_asarray_of_ours() -> None:
    a = ist.zeros(3)
    assert ist.asarray(a) is a and ist.asarray(a, "f8") is a and ist.asarray(a, copy=False) is a
    assert ist.asarray(a, copy=True) is not a and ist.asarray(a, "c16").dtype == "<c16"
    with pytest.raises(ValueError, match="copy"):
        ist.asarray(a, "f4", copy=False)
    assert ist.asarray(a, "i4").dtype == "<i4"


def test_asarray_shares_memoryviews() -> None:
    a = ist.array(range(12), "i4").reshape(3, 4)
    for view in (memoryview(a), memoryview(memoryview(a)), memoryview(a[1:, ::-2]), memoryview(a.ravel())[3:], memoryview(a.T)):
        before = ist.stats()["bytes_copied"]
        b = ist.asarray(view, copy=False)
        assert b.segment.id == a.segment.id and b.tolist() == view.tolist() and ist.stats()["bytes_copied"] == before
        assert ist.is_shared(view) and not b.readonly
    a[2, 3] = 99
    assert ist.asarray(memoryview(a))[2, 3] == 99
    assert ist.asarray(memoryview(a), "f8").segment.id != a.segment.id
    with pytest.raises(ValueError, match="copy"):
        ist.asarray(memoryview(a), "f8", copy=False)


def test_asarray_keeps_read_only() -> None:
    a = ist.array([1, 2, 3])
    for view in (memoryview(a).toreadonly(), memoryview(a.toreadonly()), memoryview(a).toreadonly()[1:]):
        b = ist.asarray(view, copy=False)
        assert b.readonly and memoryview(b).readonly and b[1:].readonly
        with pytest.raises(ValueError, match="read-only"):
            b[0] = 5
    assert not a.readonly


def test_asarray_of_a_released_arrays_view() -> None:
    a = ist.array([1, 2, 3])
    whole, part = memoryview(a), memoryview(a)[1:]
    a.release()
    b, c = ist.asarray(whole, copy=False), ist.asarray(part, copy=False)
    del whole, part, a
    gc.collect()
    assert b.tolist() == [1, 2, 3] and c.tolist() == [2, 3] and len(ist.segments()) == 1


def test_asarray_does_not_believe_what_leads_out_of_the_segment() -> None:
    numpy = pytest.importorskip("numpy")
    around = numpy.asarray(ist.zeros(1000))
    a = ist.asarray(around[100:200], copy=False)
    strided = numpy.lib.stride_tricks.as_strided
    inside = numpy.asarray(a)
    assert ist.is_shared(strided(inside, (5, 3), (8, 16))) and ist.asarray(strided(inside, (5,), (0,)), copy=False).strides == (0,)
    small = numpy.asarray(ist.buffer(64))
    for out in (strided(small, (65,)), strided(small, (2,), (64,)), strided(small, (3,), (-1,)), strided(small[60:], (5,))):
        assert not ist.is_shared(out)
        with pytest.raises(ValueError, match="copy"):
            ist.asarray(out, copy=False)


def test_asarray_copies_what_is_not_ours() -> None:
    source = bytearray(b"abc")
    b = ist.asarray(source)
    b[0] = 0
    assert source == b"abc" and not ist.is_shared(source) and not ist.is_shared(b"x") and not ist.is_shared([1]) and not ist.is_shared(3)
    assert ist.asarray([1, 2]).tolist() == [1, 2] and ist.asarray(3).shape == ()
    for thing, name in ((source, "bytearray"), ([1], "list"), (3, "int"), (memoryview(source), "memoryview")):
        with pytest.raises(ValueError, match=f"copy=False.*{name}"):
            ist.asarray(thing, copy=False)
    assert ist.is_shared(b) and ist.is_shared(memoryview(b))
    b.release()
    assert not ist.is_shared(b)


def test_numpy_sees_the_same_memory() -> None:
    numpy = pytest.importorskip("numpy")
    for dtype in DTYPES:
        a = ist.array([[1, 0, 1], [0, 1, 1]], dtype)
        for view in (a, a.T, a[::-1, 1:]):
            n = numpy.asarray(view)
            assert (n.shape, n.strides, n.dtype.str, n.tolist()) == (view.shape, view.strides, view.dtype.str, view.tolist())
            assert n.flags.writeable
        n = numpy.asarray(a)
        n[1, 0] = 1
        assert a[1, 0] == 1
        assert not numpy.asarray(a.toreadonly()).flags.writeable
        back = ist.asarray(n[:, 1:], copy=False)
        assert back.segment.id == a.segment.id and back.tolist() == a[:, 1:].tolist() and ist.is_shared(n.T[1])
        readonly = n[1:]
        readonly.flags.writeable = False
        assert ist.asarray(readonly, copy=False).readonly
        del a, view
        n[...] = 0  # the ndarray keeps the memory
        assert not ist.asarray(n).any()


def test_array_protocols() -> None:
    numpy = pytest.importorskip("numpy")
    a = ist.array([[1, 2], [3, 4]], "i4")
    assert numpy.shares_memory(a.__array__(), numpy.asarray(a)) and not numpy.shares_memory(a.__array__(copy=True), numpy.asarray(a))
    assert a.__array__("f8").tolist() == a.tolist() and a.__array__(numpy.dtype("i4"), copy=False).base is not None
    with pytest.raises(ValueError, match="copy"):
        a.__array__("f8", copy=False)

    class Interface:
        def __init__(self, x: Any) -> None:
            self.__array_interface__ = x.__array_interface__

    for view in (a, a.T, a[::-1, ::-1], a[1:, :1], a[:0], ist.array(5)):
        interface = view.__array_interface__
        assert isinstance(interface["data"], memoryview) and interface["version"] == 3 and interface["typestr"] == view.dtype.str
        if view.size:
            n = numpy.asarray(Interface(view))
            assert n.tolist() == view.tolist()
    n = numpy.asarray(Interface(a))
    a.release()
    n[0, 0] = 7
    assert n[0, 0] == 7


def test_numpy_computes_with_it() -> None:
    numpy = pytest.importorskip("numpy")
    a = ist.array([1.0, 4.0, 9.0])
    assert numpy.sqrt(a).tolist() == [1, 2, 3] and numpy.concatenate([a, a]).size == 6
    numpy.multiply(a, 2, out=numpy.asarray(a))
    assert a.tolist() == [2, 8, 18]
