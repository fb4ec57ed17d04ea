"""Every kind of element: read, written, indexed, assigned, cast and compared as numpy does it. Random dtypes, with numpy as the oracle."""

import gc
import pickle
import sys
import warnings
from random import Random
from typing import Any

import isthmus as ist
import pytest

np = pytest.importorskip("numpy")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from numpy_arrays import any_dtype, filled, key, plain, struct_dtype  # noqa: E402

pytestmark = pytest.mark.matrix
RANDOM = st.randoms(use_true_random=False)


def or_none(get: Any) -> Any:
    try:
        return get()
    except ValueError:
        return None


def same(a: Any, b: Any) -> bool:
    return bool(plain(a.tolist()) == plain(b.tolist()))


# ---- dtypes


@given(RANDOM)
def test_a_dtype_says_what_numpys_says(rng: Random) -> None:
    theirs = any_dtype(rng)
    ours = ist.dtype(theirs)
    for name in ("itemsize", "kind", "str", "names", "alignment", "isalignedstruct", "name", "shape"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert or_none(lambda: ours.descr) == or_none(lambda: theirs.descr)
    assert ours == theirs and ours.__numpy_dtype__ == theirs and hash(ours) == hash(ist.dtype(theirs))
    assert pickle.loads(pickle.dumps(ours)) == ours
    assert ours.newbyteorder() == theirs.newbyteorder() and ours.newbyteorder(">") == theirs.newbyteorder(">")
    if theirs.names is not None:
        assert len(ours) == len(theirs) and all(ours[name] == theirs[name] == ours.fields[name][0] for name in theirs.names)
        assert [ours.fields[name][1] for name in theirs.names] == [theirs.fields[name][1] for name in theirs.names]
    if "a;" not in str(ours.__reduce__()):  # a structure inside that was made with align=True is beyond a repr, also numpy's
        assert eval(repr(ours), {"isthmus": ist}) == ours


@pytest.mark.parametrize(
    "spec",
    [
        "i4, (2,3)f8, U5", "3i4, f8", "(2, 2)f4", "3i4", "<i4, >(2,)f8", "S", "U", "V", "S10", "c", "M8", "m8[25s]", "datetime64[us]",
        "timedelta64", "M8[μs]", "longdouble", "clongdouble", "f16", "c32", "bytes", "str", "void", "f4 , i2",
        [("x", "f4"), ("y", "i8")], [("x", "f4", 3), ("y", "i8", (2, 2))], [("", "f4"), ("", "i4")], [(("title", "x"), "f4")],
        [("x", [("a", "i1"), ("b", "f8")]), ("y", "S3")], ("f4", (2, 3)), ("f4", 3), ("S", 7), ("U", 2), bytes, str,
        {"names": ["a", "b"], "formats": ["i4", "f8"]}, {"names": ["a", "b"], "formats": ["i4", "f8"], "offsets": [8, 0], "itemsize": 20},
        {"b": ("i4", 4), "a": ("f4", 0)},
    ],
)  # fmt: skip
def test_the_grammar_is_numpys(spec: Any) -> None:
    theirs, ours = np.dtype(spec), ist.dtype(spec)
    assert ours == theirs and ours.itemsize == theirs.itemsize and ours.names == theirs.names and ours.shape == theirs.shape
    if theirs.names is not None:
        aligned = np.dtype(spec, align=True) if not isinstance(spec, dict) or "offsets" not in spec else None
        if aligned is not None and not isinstance(spec, dict):
            assert ist.dtype(spec, align=True) == aligned and ist.dtype(spec, align=True).itemsize == aligned.itemsize


def test_dtypes_as_values() -> None:
    packed, aligned = ist.dtype([("a", "i1"), ("b", "i4")]), ist.dtype([("a", "i1"), ("b", "i4")], align=True)
    assert packed != aligned and (packed.itemsize, aligned.itemsize, aligned.alignment) == (5, 8, 4)
    assert packed == [("a", "i1"), ("b", "i4")] and packed != [("a", "i1")] and packed != "nonsense" and packed != [("a", "O")]
    assert repr(packed) == "isthmus.dtype([('a', '|i1'), ('b', '<i4')])" and str(packed) == "[('a', '|i1'), ('b', '<i4')]"
    assert {packed: 1}[ist.dtype([("a", "i1"), ("b", "<i4")])] == 1
    assert packed["b"] == "<i4" == packed[1] == packed[-1]
    for wrong, error in (("c", KeyError), (2, IndexError), (1.5, TypeError)):
        with pytest.raises(error):
            packed[wrong]
    for spec, error in (
        ([("a", "i4"), ("a", "f4")], ValueError),
        ({"names": ["a"], "formats": ["i4"], "itemsize": 2}, ValueError),
        ({"names": ["a"], "formats": ["i4"], "offsets": [-1]}, ValueError),
        ({"names": ["a", "b"], "formats": ["i4"]}, ValueError),
        ([("a\0b", "i4")], ValueError),
        ("S9999999999", (TypeError, ValueError)),
        ("(100000,100000)f8", ValueError),
        ("(2,)S", ValueError),
        ("(0,100000,100000)f8", ValueError),
        ("f8, (" + "2," * 70 + ")f4", TypeError),
    ):
        with pytest.raises(error):
            ist.dtype(spec)
    with pytest.raises(ValueError, match="aligned"):
        ist.dtype({"names": ["a"], "formats": ["i4"], "offsets": [1]}, align=True)
    nested: Any = "f8"
    for _ in range(70):
        nested = [("x", nested)]
    with pytest.raises(ValueError, match="nested"):
        ist.dtype(nested)


# ---- formats


def reads_its_own(array: Any) -> Any:
    """The format of an ndarray; None if numpy has none, or doesn't read it back as what it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            view = memoryview(array)
            return view.format if np.asarray(view).dtype == array.dtype else None
        except (ValueError, RuntimeWarning, RuntimeError):
            return None


@given(RANDOM)
def test_formats_are_numpys_and_read_back(rng: Random) -> None:
    dtype = any_dtype(rng)
    theirs, ours = np.zeros((3, 2), dtype), ist.zeros((3, 2), dtype)
    format = or_none(lambda: ours.format)
    assert (format is None) == (or_none(lambda: memoryview(theirs).format) is None)
    if format is None:
        with pytest.raises(ValueError, match="format"):
            memoryview(ours)
        return
    assert ist.dtype.from_format(format) == dtype
    good = reads_its_own(theirs)
    if good is not None and good != format:  # numpy leaves more of the padding to '@'
        assert ist.dtype.from_format(good) == dtype
    if dtype.names is None:
        assert good == format or dtype.kind == "V"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = np.asarray(memoryview(ours))
    assert back.dtype == dtype or (dtype.kind == "V" and dtype.names is None)


@given(RANDOM)
def test_ndarrays_in_and_out(rng: Random) -> None:
    theirs = filled(rng, any_dtype(rng), (2, 3))
    ours = ist.array(theirs)
    assert ours.dtype == theirs.dtype and same(ours, theirs)
    assert ist.array(theirs[:, ::-1]).dtype == theirs.dtype and same(ist.array(theirs[:, ::-1]), theirs[:, ::-1])
    back = np.asarray(ours)
    assert back.dtype == theirs.dtype or (theirs.dtype.kind == "V" and theirs.dtype.names is None)
    assert np.shares_memory(back, np.asarray(ours)) and back.tobytes() == ours.tobytes()
    assert np.array(ours).dtype == back.dtype and not np.shares_memory(np.array(ours), back)
    assert ist.asarray(back).dtype == back.dtype and ist.is_shared(back) and ist.asarray(back, copy=False).address == ours.address


# ---- elements, indices, fields, assignment


@given(RANDOM)
def test_indexing_and_assignment(rng: Random) -> None:
    dtype = any_dtype(rng)
    shape = tuple(rng.randint(2, 3) for _ in range(rng.randint(0, 3)))
    theirs = filled(rng, dtype, shape)
    ours = ist.empty(shape, dtype)
    ours[...] = theirs
    assert same(ours, theirs)
    keys = key(rng, len(shape))
    one, other = theirs[keys], ours[keys]
    if isinstance(other, ist.SharedArray):
        assert same(one, other) and (one.shape, one.strides) == (other.shape, other.strides)
    else:
        assert plain(bytes(one) if dtype.kind == "V" and dtype.names is None else one.item()) == plain(other)
    values = filled(rng, dtype, one.shape)
    theirs[keys] = values
    ours[keys] = values
    assert same(ours, theirs)
    values = filled(rng, dtype, shape)
    ours[...] = values.tolist() if dtype.kind not in "mM" else values
    assert same(ours, values)
    if shape:
        ours[::-1] = ours
        assert same(ours, values[::-1])


@given(RANDOM)
def test_fields(rng: Random) -> None:
    dtype = struct_dtype(rng)
    theirs = filled(rng, dtype, (2, 3))
    ours = ist.array(theirs)
    name, names = rng.choice(dtype.names), rng.sample(dtype.names, rng.randint(1, len(dtype.names)))
    assert same(ours[name], theirs[name]) and ours[name].strides == theirs[name].strides and ours[name].shape == theirs[name].shape
    assert ours[name].dtype == theirs[name].dtype
    assert same(ours[names], theirs[names]) and ours[names].dtype == theirs[names].dtype and ours[names].strides == theirs[names].strides
    values = filled(rng, theirs[name].dtype, theirs[name].shape)
    theirs[name], ours[name] = values, values
    assert same(ours, theirs)
    values = filled(rng, theirs[names].dtype, (2, 3))
    theirs[names], ours[names] = values, values
    assert same(ours, theirs)


def test_wrong_fields() -> None:
    a = ist.zeros(2, "i4, f8")
    for wrong in ("f2", ["f0", "f7"], ["f0", 1], ["f0", "f0"]):
        with pytest.raises((ValueError, KeyError)):
            a[wrong]
    for wrong in (("f0", 0), [0, 1], 1.5):
        with pytest.raises(IndexError):
            a[wrong]
    with pytest.raises(IndexError):
        ist.zeros(2)["f0"]
    for value, error in (
        ((1,), ValueError),
        ((1, 2, 3), ValueError),
        ([1, 2], ValueError),
        ((1, "x"), (TypeError, ValueError)),
        (None, TypeError),
    ):
        with pytest.raises(error):
            a[0] = value
    assert a.tolist() == [(0, 0.0)] * 2
    a[0] = 3
    a[1] = (1, 2.5)
    assert a.tolist() == [(3, 3.0), (1, 2.5)]
    a[:] = [(5, 6.0), (7, 8.0)]
    assert a["f0"].tolist() == [5, 7] and a["f1"].sum() == 14
    a["f1"] = 1
    a["f0"][::-1] = [1, 2]
    assert a.tolist() == [(2, 1.0), (1, 1.0)]


def test_text_and_bytes() -> None:
    a = ist.array(["one", "three", ""])
    assert a.dtype == "<U5" and a.tolist() == ["one", "three", ""] and a[1] == "three"
    a[0] = "something long"
    assert a[0] == "somet"  # cut off, as numpy does
    a[2] = b"ok"
    assert a[2] == "ok" and np.asarray(a).tolist() == a.tolist()
    b = ist.array([b"ab", b"c"])
    assert b.dtype == "|S2" and b.tolist() == [b"ab", b"c"]
    b[1] = "xyz"
    assert b[1] == b"xy"
    with pytest.raises(UnicodeEncodeError):
        b[0] = "ü"
    with pytest.raises(UnicodeDecodeError):
        a[0] = b"\xff"
    for array in (a, b):
        for wrong in (None, object(), [], {}):
            with pytest.raises((TypeError, ValueError)):
                array[0] = wrong
    assert ist.array("text").tolist() == "text" and ist.array(b"bytes").dtype == "|u1" and ist.array(b"bytes", "S").tolist() == b"bytes"
    assert ist.array(["a", "bcd"], "U").dtype == "<U3" and ist.empty(2, "S").dtype == "|S1" and ist.array([b"a"], "V").dtype == "|V1"
    bad = ist.zeros(1, "U1")
    bad.view("u4")[0] = 0x110000
    with pytest.raises(ValueError, match="110000"):
        bad[0]


def test_zero_bytes_and_sub_arrays() -> None:
    a = ist.zeros(2, "(2,3)f4")
    assert a.shape == (2, 2, 3) and a.dtype == "<f4" and ist.full((), 7, "(2,)i2").tolist() == [7, 7]
    for wrong in (lambda: ist.array([1], "(2,)f4"), lambda: ist.asarray([1], "(2,)f4")):
        with pytest.raises(TypeError, match=r"sub|base|elements"):
            wrong()
    for wrong in (lambda: ist.empty(3, []), lambda: ist.zeros(4, "u1").view("S0"), lambda: ist.zeros(4, "u1").view("(2,)u1")):
        with pytest.raises(ValueError):
            wrong()
    b = ist.zeros(2, [("x", "f4", (2, 2))])
    b["x"] = [[1, 2], [3, 4]]
    assert b[0] == ([[1, 2], [3, 4]],) and b["x"].shape == (2, 2, 2)
    b[1] = (np.arange(4.0).reshape(2, 2),)
    assert b[1] == ([[0, 1], [2, 3]],)
    with pytest.raises(ValueError):
        b[1] = ([1, 2, 3],)
    with pytest.raises(TypeError):
        b[1] = (np.zeros((2, 2), "c8"),)


# ---- comparison, reductions


@given(RANDOM)
def test_equal_as_values(rng: Random) -> None:
    theirs = filled(rng, any_dtype(rng), (2, 3))
    ours, other = ist.array(theirs), ist.array(theirs.astype(theirs.dtype.newbyteorder()))
    nat = "None" in repr(plain(theirs.tolist())) or "NaT" in repr(theirs)
    if not nat:
        assert ours == ours.copy() and ours == other and hash(ours.copy().freeze()) == hash(other.freeze())
    elif theirs.dtype.kind in "mM":
        assert ours != ours.copy()
    changed = ours.copy()
    changed[1, 2] = filled(rng, theirs.dtype, (1,))[0]
    if not nat:
        assert (changed == ours) == (plain(changed.tolist()) == plain(ours.tolist()))


def test_a_scalar_says_what_its_format_leaves_out() -> None:
    inner = np.dtype({"names": ["a", "b"], "formats": ["<U3", "?"], "offsets": [0, 12], "itemsize": 15})
    theirs = np.zeros(2, [("a", inner, (2,)), ("b", "?")])
    theirs["a"]["a"] = "xyz"
    assert "(2)T{3w:a:?:b:}:a:" in memoryview(theirs[0]).format, "numpy leaves the padding of the inner structures out"

    class Own(np.record):  # type: ignore[misc]
        pass

    for scalar in (theirs[0], memoryview(theirs[0]), theirs.view((np.record, theirs.dtype))[0], theirs.view((Own, theirs.dtype))[0]):
        ours = ist.array(scalar)
        assert ours.dtype == theirs.dtype and plain(ours.tolist()) == plain(theirs[0].tolist())
        several = ist.zeros(2, theirs.dtype)
        several[1] = scalar
        assert plain(several[1]) == plain(theirs[0].tolist()) != plain(several[0])
        several[:] = scalar
        assert same(several, theirs)


def test_values_of_numpys_leave_no_reference() -> None:
    struct = np.zeros(3, [("a", "i4"), ("b", "f8")])
    times = np.zeros(3, "M8[s]")  # without a format
    a, b = ist.array(struct), ist.array(times)

    def uses() -> None:
        for value in (struct, struct[0], memoryview(struct), memoryview(struct[0])):
            ist.array(value)
            a[...] = value
        for value in (times, times[0]):
            ist.array(value)
            b[...] = value

    def references() -> list[int]:
        gc.collect()
        return [sys.getrefcount(o) for o in (struct, struct.dtype, a.dtype, times, times.dtype, b.dtype)]

    uses()
    before = references()
    for _ in range(10):
        uses()
    assert references() == before


def test_nat_equals_nothing() -> None:
    a = ist.array(np.array(["NaT", 5], "m8[s]"))
    assert a != a.copy() and a[1:] == a[1:].copy() and a.tolist()[0] is None


@pytest.mark.parametrize("dtype", [">i2", ">u8", ">f2", ">f4", ">f8", ">c8", "g", "G", ">i8"])
def test_reductions_of_what_isnt_native(dtype: str) -> None:
    rng = np.random.default_rng(3)
    theirs = (rng.standard_normal(3000) * 50).astype("i2").astype(dtype).reshape(30, 100)
    for view in (theirs, theirs[::-2, ::3], theirs[:, :1]):
        ours = ist.array(theirs)[tuple(slice(None, None, s) for s in (1, 1))] if view is theirs else ist.array(view)
        assert ours.sum() == pytest.approx(complex(view.sum()) if theirs.dtype.kind == "c" else float(view.sum()), rel=1e-3)
        assert ours.min() == view.min() and ours.max() == view.max()
        assert (ours.argmin(), ours.argmax()) == (view.argmin(), view.argmax())
        assert ours.count_nonzero() == np.count_nonzero(view) and ours.any() == bool(view.any()) and ours.all() == bool(view.all())
        assert ours.mean() == pytest.approx(view.mean(), rel=1e-2)
    if theirs.dtype.kind in "fc":
        theirs[3, 7] = np.nan
        ours = ist.array(theirs)
        assert ours.argmin() == ours.argmax() == 307 and ours.min() != ours.min()
    assert ist.zeros(0, dtype).sum() == 0
    with pytest.raises(ValueError, match=r"empty|zero-size"):
        ist.zeros(0, dtype).min()


@pytest.mark.parametrize("dtype", ["M8[s]", ">M8[s]", "m8[us]", ">m8[D]"])
def test_reductions_of_times(dtype: str) -> None:
    theirs = np.array([500, -3, 7_000_000, 20], "i8").view(np.dtype(dtype).newbyteorder("=")).astype(dtype)
    ours = ist.array(theirs)
    assert (ours.min(), ours.max()) == (theirs.min().item(), theirs.max().item())
    assert (ours.argmin(), ours.argmax(), ours.count_nonzero()) == (1, 2, 4)
    theirs[2] = "NaT"
    ours = ist.array(theirs)
    assert ours.min() is None and ours.max() is None and ours.argmin() == ours.argmax() == 2
    for name in ("sum", "mean"):
        with pytest.raises(TypeError, match=f"{name}.*isn't defined"):
            getattr(ours, name)()


@pytest.mark.parametrize("dtype", ["S3", "U3", "V3", "i4, f4"])
def test_what_has_no_reductions(dtype: str) -> None:
    a = ist.zeros(3, dtype)
    for name in ("sum", "mean", "min", "max", "argmin", "argmax", "any", "all", "count_nonzero"):
        with pytest.raises(TypeError, match=f"{name}.*isn't defined"):
            getattr(a, name)()


# ---- on the way


@given(RANDOM)
def test_tokens_and_pickles_carry_the_dtype(rng: Random) -> None:
    theirs = filled(rng, any_dtype(rng), (2, 3))
    ours = ist.array(theirs)
    for again in (ist.attach(ours[::-1].token()), pickle.loads(pickle.dumps(ours[::-1]))):
        assert again.dtype == ours.dtype and again.dtype.isalignedstruct == ours.dtype.isalignedstruct and same(again, theirs[::-1])
        assert again.owners == ours.owners and again.segment.id == ours.segment.id
        again.release()
    with ist.pickle_by_value():
        again = pickle.loads(pickle.dumps(ours[::-1]))
    assert again.dtype == ours.dtype and same(again, theirs[::-1]) and again.segment.id != ours.segment.id


def test_specs_from_outside() -> None:
    """What a token or a pickle may say its elements are: refused, or a dtype; never a crash, nor a long time."""
    make = ist.dtype._from_spec
    good = ["<f8", "|S10", "<U3", ">M8[25s]", "(2,3)<f4", "{12;1:x@0:<f4;2:ü@4:>i8}", "{16a;1:x@0:(2)<f4}", "{4}", "(0,3)|V2"]
    for spec in good:
        assert make(ist.dtype.__reduce__(make(spec))[1][0]) == make(spec)
    bad = ["", "<", "f8", "<f9", "?f8", "<M8[", "<M8[0s]", "<M4", "(2<f4", "()<f4", "(2)(3)<f4", "(-1)<f4", "{", "{12",
           "{12;", "{12;1:x@0:<f4",
           "{2;1:x@0:<f4}", "{12;1:x@99:<f4}", "{12;9:x@0:<f4}", "{12;1:x@0:<f4;1:x@4:<f4}", "{12;1:x@-1:<f4}", "<f8<f8", "{4}x",
           "(2)|S0",
           "(999999999,0)<f8", "(99999,99999)<f8", "(99999999999999999999)<f8", "|S99999999999", "{1;1:\0@0:|u1}", "{9;1:x@0:|O}", "|O8",
           "(" + "1," * 70 + "1)<f4", "{4;1:x@0:" * 300 + "<f4" + "}" * 300]  # fmt: skip
    for spec in bad:
        with pytest.raises(ValueError):
            make(spec)
    with pytest.raises(TypeError):
        make(3)


@given(st.sampled_from(["{24;1:x@0:<f4;2:ü@4:(2)>i8}", "{16a;1:x@0:(2,3)|u1;1:y@8:<M8[7ms]}", "(2,3)|S5"]), RANDOM)
def test_specs_with_changed_bytes(spec: str, rng: Random) -> None:
    data = bytearray(spec.encode())
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] = rng.choice(b"0129{}();:@,<>|a\xff")
    try:
        found = ist.dtype._from_spec(data.decode("utf-8", "replace"))
    except ValueError:
        return
    if 0 < found.itemsize < 10_000 and not found.shape:
        ist.zeros(2, found).tolist()


def test_a_dtype_too_long_for_a_name() -> None:
    a = ist.zeros(1, [(f"field {i}", "f4") for i in range(100)])
    with pytest.raises(ValueError, match="published"):
        a.publish("too long a dtype")
    assert ist.attach(a.token()).dtype == a.dtype
    b = ist.zeros(1, [(f"field {i}", "f4") for i in range(6000)])
    with pytest.raises(ValueError, match="description"):
        b.token()
    c = ist.zeros(2, [("x", "f4"), ("y", "S10")])
    c.publish("a structure")
    assert ist.attach("a structure").dtype == c.dtype
