"""isthmus.dtype: numpy's grammar in, struct's grammar by from_format(), values in and out."""

import copy
import pickle
import struct
from typing import Any

import isthmus as ist
import pytest

pytestmark = pytest.mark.matrix

STRINGS = ["|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"]
NAMES = [
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
]  # fmt: skip


@pytest.mark.parametrize("string, name", list(zip(STRINGS, NAMES, strict=True)))
def test_names_and_strings_are_one_object(string: str, name: str) -> None:
    d = ist.dtype(string)
    for spec in (name, string[1:], "=" + string[1:], "|" + string[1:], "<" + string[1:], d):
        assert ist.dtype(spec) is d
    assert (d.str, d.name, d.kind, d.itemsize, d.names) == (string, name, string[1], int(string[2:]), None)
    assert d.descr == [("", string)]
    assert str(d) == name and repr(d) == f"isthmus.dtype('{string}')"


@pytest.mark.parametrize("string", STRINGS)
def test_is_a_value(string: str) -> None:
    d = ist.dtype(string)
    assert d == string and string == d and hash(d) == hash(string)
    assert d == string[1:] and d == d.name and d != "<i3" and d != 3 and (d == 3) is False
    assert {d: 1}[string] == 1
    assert copy.copy(d) is d and copy.deepcopy(d) is d
    assert all(pickle.loads(pickle.dumps(d, p)) is d for p in range(pickle.HIGHEST_PROTOCOL + 1))


def test_python_types() -> None:
    assert [ist.dtype(t) for t in (bool, int, float, complex, None)] == ["|b1", "<i8", "<f8", "<c16", "<f8"]


@pytest.mark.parametrize("letter", "?bBhHiIlLqQnNpPefdFD")
def test_numpy_letters(letter: str) -> None:
    numpy = pytest.importorskip("numpy")
    assert ist.dtype(letter) == numpy.dtype(letter).str
    assert ist.dtype("<" + letter) == numpy.dtype(letter).str


def test_numpy_objects() -> None:
    numpy = pytest.importorskip("numpy")
    for string in STRINGS:
        theirs = numpy.dtype(string)
        ours = ist.dtype(theirs)
        assert ours == string and ours == theirs and ist.dtype(theirs.type) is ours
        assert ours.__numpy_dtype__ == theirs
    for name in ("byte", "ubyte", "short", "intc", "int_", "intp", "uintp", "longlong", "half", "single", "double", "cdouble"):
        assert ist.dtype(getattr(numpy, name)) == numpy.dtype(getattr(numpy, name)).str == ist.dtype(name)


@pytest.mark.parametrize(
    "spec",
    ["", "x", "f3", "f8 ", " f8", "i16", "O", "object", "|O", "T", "f8,O", "<", "<float64", "M8[xs]", "M8[0s]", "M8[s", "m8[2generic]",
     "S-1", "f8,,i4",
     "(2f8", "(-1)f8", "Sx", 8, 1.5, b"f8", object, dict, ("f8",), ("f8", "f4"), [("x",)], [("x", "O")], [("x", "f4", 1, 2)], [(1, "f4")],
     ["f4"], {"names": ["x"]}, {"x": "f4"}, {"x": ("f4",)}, "ü", "f8\0"],
)  # fmt: skip
def test_what_is_refused_is_named(spec: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        ist.dtype(spec)
    if spec not in ("ü", "f8\0"):
        assert repr(spec) in str(caught.value)
    with pytest.raises((TypeError, ValueError)):
        ist.empty(3, spec)


def test_one_byte_has_no_order() -> None:
    assert [ist.dtype(s) for s in (">u1", ">i1", ">?")] == ["|u1", "|i1", "|b1"]


def test_formats() -> None:
    for letter in "?bBhHiIlLqQefd":
        for order in ("", "@", "<", "="):
            d = ist.dtype.from_format(order + letter)
            assert d.itemsize == struct.calcsize(order + letter)
    assert ist.dtype.from_format("<l").itemsize == 4 and ist.dtype("<l").itemsize == struct.calcsize("l")
    assert ist.dtype.from_format("n") == "<i8" and ist.dtype.from_format("Zd") == "<c16" and ist.dtype.from_format("Zf") == "<c8"
    for string in STRINGS:
        assert ist.dtype.from_format(ist.dtype(string).format) == string


@pytest.mark.parametrize(
    "format",
    [
        "",
        "<n",
        "P",
        "p",
        "O",
        "T{d:x:",
        "T{",
        "}",
        "d}",
        "Td",
        "Z",
        "Zx",
        "(2d",
        "()d",
        "(x)d",
        "(2",
        "d:x",
        "T{O:x:}",
        "&d",
        "X{}",
        "99999999999d",
        "T{d:x:d:x:}",
        "T{" * 80 + "d" + "}" * 80,
    ],
)
def test_refused_formats(format: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        ist.dtype.from_format(format)
    assert "format" in str(caught.value) or "x" in str(caught.value)


LIMITS = {
    "i1": (-(2**7), 2**7 - 1), "u1": (0, 2**8 - 1), "i2": (-(2**15), 2**15 - 1), "u2": (0, 2**16 - 1),
    "i4": (-(2**31), 2**31 - 1), "u4": (0, 2**32 - 1), "i8": (-(2**63), 2**63 - 1), "u8": (0, 2**64 - 1),
}  # fmt: skip


@pytest.mark.parametrize("spec", LIMITS)
def test_integers_fit_or_raise(spec: str) -> None:
    a = ist.zeros(1, spec)
    for value in (*LIMITS[spec], 0, 1, True):
        a[0] = value
        assert a[0] == value and type(a[0]) is int
    for value in (LIMITS[spec][0] - 1, LIMITS[spec][1] + 1, 2**64, -(2**64), 10**30):
        with pytest.raises(OverflowError, match=f"{value} out of bounds for {ist.dtype(spec).name}"):
            a[0] = value
    with pytest.raises(OverflowError, match="out of bounds"):
        a[0] = 10**5000  # too long to be written out
    for wrong in (1.0, "1", b"12", None, 1j, [], object()):
        with pytest.raises((TypeError, ValueError)):
            a[0] = wrong
    assert a[0] == 1


class Half:
    def __float__(self) -> float:
        return 0.5


class Seven:
    def __index__(self) -> int:
        return 7


def test_numbers_by_protocol() -> None:
    f, c, i, b = ist.zeros(1), ist.zeros(1, "c16"), ist.zeros(1, "i2"), ist.zeros(1, "?")
    f[0], c[0], i[0] = Half(), Half(), Seven()
    assert (f[0], c[0], i[0]) == (0.5, 0.5, 7)
    f[0] = Seven()
    b[0] = Seven()
    assert f[0] == 7 and b[0] is True
    with pytest.raises(TypeError):
        f[0] = 1j
    with pytest.raises(TypeError):
        b[0] = "x"
    with pytest.raises(OverflowError):
        f[0] = 10**400


def test_float16_as_struct_reads_it() -> None:
    b = ist.zeros(1, "f2")
    for bits in range(2**16):
        b.view("u2")[0] = bits
        value, expected = b[0], struct.unpack("e", struct.pack("H", bits))[0]
        assert value == expected or (value != value and expected != expected), hex(bits)
        b[0] = value
        if value == value:
            assert b.view("u2")[0] == bits, hex(bits)
        else:
            assert b[0] != b[0], hex(bits)


@pytest.mark.parametrize(
    "value",
    [
        1e-8,
        2.98e-8,
        5.96e-8,
        6.1e-5,
        0.1,
        1.0005,
        2049,
        4097,
        65504,
        65519.9,
        65520,
        1e6,
        1e-30,
        -0.0,
        0.33325195,
        1 + 2**-11,
        1 + 3 * 2**-11,
    ],
)
def test_float16_rounds_as_numpy(value: float) -> None:
    numpy = pytest.importorskip("numpy")
    a = ist.zeros(1, "f2")
    a[0] = value
    with numpy.errstate(over="ignore"):
        assert a.view("u2")[0] == numpy.float16(value).view("u2")


def test_float32_overflows_to_infinity() -> None:
    a = ist.zeros(2, "f4")
    a[0], a[1] = 1e300, -1e300
    assert a.tolist() == [float("inf"), float("-inf")]
