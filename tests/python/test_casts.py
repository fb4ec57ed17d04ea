"""Casts between all kinds of element, with numpy as the oracle: same_kind in an assignment, unsafe where a dtype is asked for."""

import datetime
import math
import struct
import warnings
from collections.abc import Callable
from random import Random
from typing import Any

import isthmus as ist
import pytest

np = pytest.importorskip("numpy")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from numpy_arrays import filled, plain, simple_dtype  # noqa: E402

pytestmark = [pytest.mark.matrix, pytest.mark.filterwarnings("ignore::RuntimeWarning")]
RANDOM = st.randoms(use_true_random=False)
TEXTS = ["1", "0", "-5", "12", "1.5", "nan", "1e5", "1+2j", "True", "", "x", "2026-01-02", "NaT", "2026", "2026-01-02T03:04:05.5"]


def outcome(call: Callable[[], Any]) -> Any:
    """What came back, or the class of the error."""
    try:
        return repr(plain(call()))
    except Exception as error:
        return type(error)


def agree(ours: Any, theirs: Any) -> bool:
    """The same values, or errors of which one is a kind of the other."""
    if isinstance(ours, type) and isinstance(theirs, type):
        return issubclass(ours, theirs) or issubclass(theirs, ours)
    return bool(ours == theirs)


def assigned(array: Any, values: Any) -> Any:
    if isinstance(array, np.ndarray):
        np.copyto(array, values, casting="same_kind")
    else:
        array[...] = values
    return array.tolist()


def asked(make: Any, values: Any, dtype: Any) -> Any:
    with np.errstate(all="ignore"):
        a = make(values, dtype=dtype)
    return a.tolist(), str(a.dtype.str)


# ---- arrays of one kind -----------------------------------------------------------------------------------------------------------


def source(rng: Random) -> "np.ndarray[Any, Any]":
    dtype = simple_dtype(rng)
    if dtype.kind in "SU" and rng.random() < 0.8:
        texts = np.zeros((2, 3), f"{rng.choice('<>')}{dtype.kind}{rng.choice([2, 5, 25])}")
        for at in np.ndindex(2, 3):
            texts[at] = rng.choice(TEXTS)
        return texts
    if dtype.kind in "fc" and rng.random() < 0.5:  # any size that still is an integer of 32 bits, and a few that have an exponent
        values = [rng.uniform(-2, 2) * 10.0 ** rng.randint(-12, 8) for _ in range(6)]
        with np.errstate(all="ignore"):
            return np.array(values).reshape(2, 3).astype(dtype) * dtype.type(1 - 2j if dtype.kind == "c" else 1)
    return filled(rng, dtype, (2, 3))


def target(rng: Random) -> "np.dtype[Any]":
    dtype = simple_dtype(rng)
    return np.dtype(dtype.kind + rng.choice(["3", "24", "45", "8", ""])) if dtype.kind in "SUV" else dtype


def beyond(values: "np.ndarray[Any, Any]", dtype: "np.dtype[Any]") -> bool:
    """Numbers that the integers of a dtype, or the times of a unit, don't have: numpy gives what the processor does, or wraps."""
    if values.dtype.kind in "fc" and dtype.kind in "iumM":
        real = values.real.astype("f8")
        room = 15 if dtype.itemsize < 4 else 31
        limit = 2.0 ** (40 if dtype.kind in "mM" else room)
        low = 0 if dtype.kind == "u" else -limit
        return not bool(np.all(np.isfinite(real) & (real < limit) & (real > low)))
    if dtype.kind == "M" and dtype.name == "datetime64[ns]":
        return values.dtype.kind in "MSU"
    return values.dtype == "m8" and dtype.kind in "SU"  # which it cuts off after 21 characters


@given(RANDOM)
def test_an_assignment_is_same_kind(rng: Random) -> None:
    values, dtype = source(rng), target(rng)
    if dtype.itemsize == 0 or beyond(values, dtype):
        return
    ours, theirs = outcome(lambda: assigned(ist.zeros((2, 3), dtype), values)), outcome(lambda: assigned(np.zeros((2, 3), dtype), values))
    assert agree(ours, theirs), (values, dtype, ours, theirs)
    if not isinstance(ours, type):
        assert ours == outcome(lambda: assigned(ist.zeros((2, 3), dtype), ist.array(values)))
        assert ours == outcome(lambda: assigned(ist.zeros((2, 3), dtype), [ist.array(row) for row in values]))
        filled_with = ist.zeros((2, 3), dtype)
        filled_with.fill(ist.array(values))
        assert ours == outcome(filled_with.tolist)


@given(RANDOM)
def test_a_dtype_that_is_asked_for_is_unsafe(rng: Random) -> None:
    values, dtype = source(rng), target(rng)
    if beyond(values, dtype):
        return
    theirs = outcome(lambda: asked(np.array, values, dtype))
    for make in (ist.array, ist.asarray):
        for given_as in (values, ist.array(values), memoryview(ist.array(values)) if values.dtype.kind not in "mM" else values):
            ours = outcome(lambda make=make, x=given_as: asked(make, x, dtype))
            assert agree(ours, theirs), (values, dtype, ours, theirs)
    if not isinstance(theirs, type) and dtype.itemsize and dtype.kind not in "mM":
        assert outcome(lambda: ist.array([ist.array(row) for row in values], dtype).tolist()) == outcome(
            lambda: ist.array(values, dtype).tolist()
        )
        assert outcome(lambda: ist.full((2, 3), values, dtype).tolist()) == outcome(lambda: ist.array(values, dtype).tolist())


def test_every_rule() -> None:
    """castable() is numpy's can_cast, whatever the values."""
    kinds = [
        "?",
        "i1",
        "u8",
        "f4",
        "g",
        "c8",
        "G",
        "S3",
        "S30",
        "U3",
        "U30",
        "V3",
        "V40",
        "M8[s]",
        "M8[ns]",
        "m8[s]",
        "m8",
        "i4,f4",
        "i2,f8",
    ]
    for one in kinds:
        for other in kinds:
            values = np.zeros(2, one)
            refused = False
            try:
                ist.zeros(2, other)[...] = values
            except TypeError as error:
                refused = "same_kind" in str(error)
            except (ValueError, RuntimeError):
                pass
            assert refused != np.can_cast(one, other, "same_kind"), (one, other)
            try:
                ist.array(values, other)
                refused = False
            except TypeError as error:
                refused = "unsafe" in str(error)
            except (ValueError, RuntimeError):
                refused = False
            assert refused != np.can_cast(one, other, "unsafe"), (one, other)


# ---- fields -----------------------------------------------------------------------------------------------------------------------

FIELDS = ["?", "i1", "i4", ">i4", "u2", "f4", "f8", ">f8", "c16", "S3", "S30", "U4", "U30", "M8[D]", "m8[s]", "V4"]


def any_field(rng: Random, depth: int) -> Any:
    dtype = np.dtype(rng.choice(FIELDS)) if rng.random() < 0.75 or depth > 1 else fields(rng, depth + 1)
    if rng.random() < 0.3:
        return np.dtype((dtype, tuple(rng.randint(1, 3) for _ in range(rng.randint(1, 2)))))
    return dtype


def fields(rng: Random, depth: int = 0) -> "np.dtype[Any]":
    return np.dtype([("abc"[i], any_field(rng, depth)) for i in range(rng.choice([1, 1, 2, 2, 3]))], align=rng.random() < 0.3)


@given(RANDOM)
def test_fields_become_fields(rng: Random) -> None:
    one, other = (fields(rng) if rng.random() < 0.8 else np.dtype(rng.choice(FIELDS)) for _ in range(2))
    values = filled(rng, one, (2,))
    ours, theirs = outcome(lambda: assigned(ist.zeros(2, other), values)), outcome(lambda: assigned(np.zeros(2, other), values))
    assert agree(ours, theirs), (values, other, ours, theirs)
    ours, theirs = outcome(lambda: asked(ist.array, values, other)[0]), outcome(lambda: asked(np.array, values, other)[0])
    assert agree(ours, theirs), (values, other, ours, theirs)


def test_nothing_of_the_memory_before_shows_between_fields() -> None:
    with_gap = np.dtype({"names": ["x", "y"], "formats": ["i1", "f8"], "offsets": [0, 8], "itemsize": 24})
    for _ in range(20):
        used = ist.full(100, 0xAA, "u1")
        del used
        for a in (ist.array(np.zeros(4, "i2, f4"), with_gap), ist.array([(1, 2.0)] * 4, with_gap)):
            raw = a.tobytes()
            assert all(raw[24 * i + 1 : 24 * i + 8] == bytes(7) and raw[24 * i + 16 : 24 * i + 24] == bytes(8) for i in range(4))


# ---- numbers in text --------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**16 - 1))
def test_a_half_is_written_as_numpy_writes_it(bits: int) -> None:
    values = np.array([bits], "u2").view("f2")
    assert ist.array(values, "S32").tolist() == values.astype("S32").tolist()


@given(st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 511).map(lambda e: e << 23)))
def test_a_single_is_written_as_numpy_writes_it(bits: int) -> None:
    values = np.array([bits], "u4").view("f4")
    assert ist.array(values, "U32").tolist() == values.astype("U32").tolist()
    pair = np.array([bits, bits ^ 0x80000000], "u4").view("c8")
    assert ist.array(pair, "U64").tolist() == pair.astype("U64").tolist()


@given(st.floats())
def test_a_double_is_written_as_numpy_writes_it(x: float) -> None:
    for values in (np.array([x]), np.array([x], ">f8"), np.array([complex(x, -x)]), np.array([complex(0, x)])):
        assert ist.array(values, "S64").tolist() == values.astype("S64").tolist()


@given(st.floats(allow_nan=False), st.integers(1, 40))
def test_a_long_double_is_written_as_numpy_writes_it(x: float, divisor: int) -> None:
    with np.errstate(all="ignore"):
        values = np.array([x], "g") / np.longdouble(divisor)
        pair = values.astype("G") * np.clongdouble(1 - 3j)
    assert ist.array(values, "S48").tolist() == values.astype("S48").tolist()
    assert ist.array(pair, "U96").tolist() == pair.astype("U96").tolist()
    text = ist.array(values, "S48")
    assert ist.array(text, "g").tobytes()[:10] == values.tobytes()[:10]  # and back, every bit of it


def test_times_in_text() -> None:
    rng = Random(3)
    for unit in ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "7h", "25s", "3Y"):
        numbers = [0, 1, -1, 17000, -999, -(2**63)] + [rng.randint(-(10**6), 10**6) for _ in range(40)]
        for kind in "Mm":
            values = np.array(numbers, "i8").view(f"{kind}8[{unit}]")
            assert ist.array(values, "S60").tolist() == values.astype("S60").tolist()
            assert ist.array(values, "U").dtype == values.astype("U").dtype
    for short in ("S9", "U9"):
        with pytest.raises(RuntimeError, match="too short for the time '2026-01-02'"):
            ist.array(np.array(["2026-01-02"], "M8[D]"), short)
    with pytest.raises(ValueError, match="no date"):
        ist.array(np.array([5], "i8").view("M8"), "S30")


def test_text_in_a_dtype_without_a_length() -> None:
    for kind in "SU":
        for dtype in (
            "?",
            "i1",
            "u1",
            "i2",
            "u2",
            "i4",
            "u4",
            "i8",
            "u8",
            "f2",
            "f4",
            "f8",
            "g",
            "c8",
            "c16",
            "G",
            "M8[s]",
            "M8[as]",
            "m8",
            ">i4",
        ):
            values = np.zeros(2, dtype)
            ours = ist.array(values, kind)
            assert (ours.dtype, ours.tolist()) == (values.astype(kind).dtype, values.astype(kind).tolist())
        for listed in ([1, 22], [1.5, 2], [True], [1j, 2], [1, "abc"], [10**12, -1], [None], [b"a", 1], [datetime.date(2026, 1, 2)]):
            ours, theirs = ist.array(listed, kind), np.array(listed, kind)
            assert (ours.dtype, ours.tolist()) == (theirs.dtype, theirs.tolist()), listed
    assert ist.array(np.zeros(2, "i4"), "V").dtype == "V4" and ist.array([b"abc"], "V").dtype == "V3"


def test_a_time_without_a_unit_takes_the_one_it_is_given_in() -> None:
    for listed in (
        ["2026-01-02"], ["2026"], ["2026-01"], ["2026-01-02T03"], ["2026-01-02T03:04", "NaT"], ["2026-01-02 03:04:05"],
        ["1970-01-01T00:00:00.123"],
        ["2026-01-02", "2026-01-02T05"], [None, "2026-01"], [datetime.date(2026, 1, 2)], [datetime.datetime(2026, 1, 2)], ["-5"],
        [np.datetime64("2026-01-02T03")],
    ):  # fmt: skip
        ours, theirs = ist.array(listed, "M8"), np.array(listed, "M8")
        assert (ours.dtype, ours.tolist()) == (theirs.dtype, theirs.tolist()), listed
    for values in (np.array(["2026-01-02"], "M8[D]"), np.array([5], ">m8[s]")):
        for kind in ("M8", "m8"):
            ours, theirs = ist.array(values, kind), np.array(values, dtype=kind)
            assert (ours.dtype, ours.tolist()) == (theirs.dtype, theirs.tolist())
    assert ist.zeros(2, "M8").tolist() == [None, None] and ist.zeros(1, "m8").tolist() == [0]  # as numpy has it


def test_text_with_zeros_in_it_as_a_time() -> None:
    texts = [b"\x00a", b"2020\x00a", b"20\x0020", b"NaT\x00x"]
    for values in (np.array(texts, "S6"), np.array([t.decode() for t in texts], "U6")):
        assert ist.array(values, "M8[D]").tolist() == values.astype("M8[D]").tolist()
        with pytest.raises(ValueError):
            values.astype("m8[D]")
        with pytest.raises(ValueError, match="a zero byte in"):
            ist.array(values, "m8[D]")


# ---- values in lists --------------------------------------------------------------------------------------------------------------

VALUES = [
    1.5, "5", b"5", "5.5", "1j", 1j, math.nan, 1e30, 300.0, None, "x", "", b"", True, "2026", b"2026-01-02", "NaT", 10**30, 10**400, "z",
    "1.5",
    np.datetime64("2026-01-02"), np.timedelta64(5, "s"), np.float32(0.1), np.int8(3), "99", "300", 300, -1, math.inf,
    datetime.timedelta(days=3),
]  # fmt: skip
# what numpy makes of them by an accident of how it is written: int(datetime64) by way of item(), an int of 400 digits as infinity
DIFFERENT = {
    ("datetime64", "m8[s]"),
    ("timedelta64", "M8[s]"),
    ("timedelta", "M8[s]"),
    ("datetime64", "?"),
    ("timedelta64", "?"),
    ("timedelta", "?"),
}


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i4", "i8", ">i4", "f4", "f8", "g", "c16", "S5", "U12", "m8[s]", "M8[s]"])
def test_values_where_a_dtype_is_asked_for(dtype: str) -> None:
    for value in VALUES:
        name = type(value).__name__
        if (
            (name, dtype) in DIFFERENT
            or (dtype[0] in "mM" and isinstance(value, float | complex))
            or (dtype == "g" and value is VALUES[18])
        ):
            continue
        if name in ("datetime64", "timedelta64", "timedelta") and dtype[0] not in "mMSU":
            with pytest.raises(TypeError):
                ist.array([value], dtype)
            continue
        theirs, ours = outcome(lambda v=value: np.array([v], dtype).tolist()), outcome(lambda v=value: ist.array([v], dtype).tolist())
        assert agree(ours, theirs), (value, dtype, ours, theirs)


# ---- what is lost -----------------------------------------------------------------------------------------------------------------


def test_what_is_lost_is_told() -> None:
    beyond_all = np.array([1.5, np.nan, 1e30, -1e30])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert ist.array(beyond_all, "i8").tolist() == [1, -(2**63), -(2**63), -(2**63)]
        assert ist.array(beyond_all, "i4").tolist() == [1, -(2**31), -(2**31), -(2**31)]
        assert ist.array(beyond_all, "u8").tolist() == [1, 2**63, 2**63, 2**63]
        assert [(w.category, "invalid value" in str(w.message)) for w in caught] == [(RuntimeWarning, True)] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source_dtype, dtype in (("c16", "f8"), ("c8", "i4"), ("G", "g"), (">c16", "f4"), ("c16, i4", "f8, i4")):
            with pytest.raises(RuntimeWarning, match="imaginary"):
                ist.array(np.ones(3, source_dtype), dtype)
        many = np.full(100_000, 1.0)
        assert ist.array(many, "i2").sum() == 100_000
        many[77_777] = np.nan
        with pytest.raises(RuntimeWarning, match="invalid value"):
            ist.array(many, "i2")
        assert ist.array(np.array([1j, 0]), "?").tolist() == [True, False]  # nothing is lost
        large = np.array([2.0**63, 2.0**64 - 2048, -1.0])
        assert ist.array(large, "u8").tolist() == [2**63, 2**64 - 2048, 2**64 - 1]


def test_an_overlapping_assignment_casts_what_was_there() -> None:
    data = struct.pack("=4h", 1, 2, 3, 4)
    a = ist.array(data)
    half, text = a.view("i2"), a[:8].view("S4")
    text[...] = half[:2]
    assert text.tolist() == [b"1", b"2"]


def test_raw_bytes_become_nothing_else() -> None:
    raw = ist.array(np.array([b"\0\0\0", b"\0\1\0"], "V3"))
    assert ist.array(raw, "?").tolist() == [False, True]
    for dtype in ("i4", "f8", "S3", "U3", "M8[s]", "m8[s]"):
        with pytest.raises(ValueError, match=r"raw bytes .* view\(dtype\)"):
            ist.array(raw, dtype)
