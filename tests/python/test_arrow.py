"""Arrow's C data interface, both ways: E1 and E3 of pybuffer/README.md. pyarrow for real where it is installed."""

import ctypes
import datetime
import gc
import struct
import threading
from typing import Any

import capsules
import isthmus as ist
import pytest
from capsules import ArrowProducer
from carriers import Channel, Interpreter
from hypothesis import given
from hypothesis import strategies as st
from processes import Group

pytestmark = pytest.mark.matrix

FORMATS = {
    "c": "i1", "C": "u1", "s": "i2", "S": "u2", "i": "i4", "I": "u4", "l": "i8", "L": "u8", "e": "f2", "f": "f4", "g": "f8",
    "tss:": "M8[s]", "tsm:": "M8[ms]", "tsu:": "M8[us]", "tsn:": "M8[ns]", "tDs": "m8[s]", "tDm": "m8[ms]", "tDu": "m8[us]",
    "tDn": "m8[ns]", "w:5": "V5",
}  # fmt: skip


def pyarrow() -> Any:
    return pytest.importorskip("pyarrow", reason="pyarrow isn't installed for this Python")


def ints(*values: int) -> dict[str, Any]:
    return {"values": struct.pack(f"={len(values)}i", *values), "length": len(values)}


# ---- in ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "dtype"), [*FORMATS.items(), ("tdm", "M8[ms]")])
def test_in_without_a_copy(format: str, dtype: str) -> None:
    itemsize = ist.dtype(dtype).itemsize
    values = bytes(range(1, 4 * itemsize + 1))
    p = ArrowProducer(format.encode(), values, 4)
    before = ist.stats()["bytes_copied"]
    a = ist.from_arrow(p)
    assert ist.stats()["bytes_copied"] == before
    assert a.dtype == dtype and a.shape == (4,) and a.readonly and not a.frozen and a.owners == 1
    assert a.segment.kind == "foreign" and a.segment.size == 4 * itemsize and a.segment.readonly
    assert bytes(a.view("u1")) == values
    p.values[0] = 0x55
    assert bytes(a.view("u1"))[0] == 0x55
    assert p.array.release is None and p.schema.release is not None  # moved; the schema is still its capsule's
    assert len(p.calls) == 0
    a.release()
    assert len(p.calls) == 1 and len(p.schema_calls) == 0


def test_in_the_last_owner_releases_once() -> None:
    p = ArrowProducer(**ints(1, 2, 3))
    a = ist.from_arrow(p)
    b, view, buffer = ist.attach(a.token()), a[1:], memoryview(a)
    a.release()
    del a, view
    gc.collect()
    assert len(p.calls) == 0 and b.tolist() == [1, 2, 3]
    del b
    assert len(p.calls) == 0 and buffer.tolist() == [1, 2, 3]
    buffer.release()
    del buffer
    gc.collect()
    assert len(p.calls) == 1


def test_in_released_by_whatever_thread() -> None:
    p = ArrowProducer(**ints(1, 2, 3))
    kept = [ist.from_arrow(p)]
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join(60)
    assert p.calls.threads == [thread.ident]


def test_in_released_by_another_interpreter() -> None:
    """There in a thread of its own: PyGILState_Ensure in release, ctypes's too, then means the main interpreter."""
    p = ArrowProducer(**ints(1, 2, 3))
    a = ist.from_arrow(p)
    with Interpreter() as other:
        other.run(f"import isthmus as ist; a = ist.attach({a.token()!r}); assert a.tolist() == [1, 2, 3] and a.readonly")
        assert a.owners == 2
        del a
        assert len(p.calls) == 0
        other.run("del a")
        assert p.calls.called.wait(60)
    assert len(p.calls) == 1 and p.calls.threads[0] != threading.get_ident()


def test_in_crosses_with_its_owner_gone() -> None:
    p = ArrowProducer(**ints(5, 6))
    with Interpreter() as other, Channel() as channel:
        channel.put(ist.from_arrow(p))
        assert len(p.calls) == 0
        other.run(f"{channel.there}; a = get(); assert a.tolist() == [5, 6] and a.readonly")
    assert p.calls.called.wait(60)
    assert len(p.calls) == 1


def test_in_offset_and_length() -> None:
    a = ist.from_arrow(ArrowProducer(values=struct.pack("=6i", *range(6)), length=3, offset=2))
    assert a.tolist() == [2, 3, 4]
    assert ist.from_arrow(ArrowProducer(b"w:2", b"abcdef", 2, offset=1)).tolist() == [b"cd", b"ef"]


def test_in_without_elements() -> None:
    for p in (ArrowProducer(), ArrowProducer(values=b"1234", length=0, offset=1)):
        a = ist.from_arrow(p)
        assert a.shape == (0,) and a.tolist() == [] and bytes(a) == b"" and a.sum() == 0
        assert len(p.calls) == 0
        del a
        assert len(p.calls) == 1


@given(st.integers(0, 40), st.integers(0, 40), st.data())
def test_in_nulls_are_counted_in_the_bitmap(offset: int, length: int, data: Any) -> None:
    bits = data.draw(st.lists(st.sampled_from([True, True, True, False]), min_size=offset + length, max_size=offset + length))
    if data.draw(st.booleans()):
        bits[offset:] = [True] * length
    bitmap = bytes(sum(bit << i for i, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))
    nulls = bits[offset:].count(False)
    values = bytes(4 * len(bits) + 4)
    for null_count in (-1, nulls):
        p = ArrowProducer(b"i", values, length, offset=offset, validity=bitmap + b"\0", null_count=null_count)
        if nulls:
            with pytest.raises(ValueError, match=f"{nulls} of {length} elements are null"):
                ist.from_arrow(p)
            assert p.array.release is not None and len(p.calls) == 0
        else:
            assert ist.from_arrow(p).size == length
            assert len(p.calls) == 1


def test_in_no_bitmap_no_nulls() -> None:
    for null_count in (0, -1, 2):
        assert ist.from_arrow(ArrowProducer(**ints(1, 2, 3), null_count=null_count)).size == 3
    assert ist.from_arrow(ArrowProducer(**ints(1, 2, 3), validity=b"\0", null_count=0)).size == 3


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("b", "one bit each.*copy=True"), ("n", "no primitive"), ("u", "no primitive"), ("Z", "no primitive"), ("vu", "no primitive"),
        ("", "no primitive"), ("ii", "no primitive"), ("d:10,2", "no primitive"), ("tdD", "days of 32 bits.*copy=True"),
        ("tdx", "no primitive"),
        ("ttm", "time of day"), ("tsn:UTC", "no time zones"), ("tsn", "no primitive"), ("tsx:", "no primitive"), ("tDx", "no primitive"),
        ("tDnn", "no primitive"), ("tiM", "no primitive"), ("t", "no primitive"), ("w:0", "width"), ("w:", "width"),
        ("w:5x", "width"), ("w:99999999999", "width"), ("w:-1", "width"), ("+l", "nested"), ("+s", "nested"), ("+w:3", "nested"),
    ],
)  # fmt: skip
def test_in_other_formats(format: str, text: str) -> None:
    p = ArrowProducer(format.encode(), b"12345678", 1)
    with pytest.raises(TypeError, match=rf"Arrow format '{format.replace('+', '[+]')}': .*({text})"):
        ist.from_arrow(p)
    assert p.array.release is not None and len(p.calls) == 0


def test_in_dictionaries() -> None:
    p = ArrowProducer(**ints(0, 1), dictionary=1)
    with pytest.raises(TypeError, match="Arrow format 'i': indices into a dictionary"):
        ist.from_arrow(p)
    assert len(p.calls) == 0


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"length": -1}, "beyond all memory"),
        ({"offset": -1}, "beyond all memory"),
        ({"offset": 2**63 - 1}, "beyond all memory"),
        ({"length": 2**62}, "beyond all memory"),
        ({"n_buffers": 1}, "two buffers"),
        ({"n_buffers": 3}, "two buffers"),
        ({"n_children": 1}, "two buffers and no children"),
        ({"schema_n_children": 1}, "two buffers and no children"),
        ({"values": b""}, "no memory"),
    ],
)
def test_in_impossible(fields: Any, text: str) -> None:
    p = ArrowProducer(**(ints(1, 2) | fields))
    with pytest.raises(ValueError, match=text):
        ist.from_arrow(p)
    assert p.array.release is not None and len(p.calls) == 0


def test_in_once() -> None:
    p = ArrowProducer(**ints(1))
    a = ist.from_arrow(p)
    with pytest.raises(ValueError, match="was released, or somebody else has taken it"):
        ist.from_arrow(p)
    assert a.tolist() == [1] and len(p.calls) == 0


def test_in_arguments() -> None:
    p = ArrowProducer(**ints(7, 8))
    assert ist.from_arrow(p.__arrow_c_array__()).tolist() == [7, 8]
    for bad, text in ((5, "not int"), ((1, 2), 'named "arrow_schema"'), ((1,), "not a pair"), (b"xy", "not bytes")):
        with pytest.raises(TypeError, match=text):
            ist.from_arrow(bad)  # type: ignore[arg-type]
    p = ArrowProducer(**ints(7))
    schema, array = p.__arrow_c_array__()
    with pytest.raises(TypeError, match='named "arrow_schema"'):
        ist.from_arrow((array, schema))

    class Failing:
        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError):
        ist.from_arrow(Failing())


def test_in_copied_on_request() -> None:
    p = ArrowProducer(**ints(1, 2, 3))
    a = ist.from_arrow(p, copy=True)
    assert a.tolist() == [1, 2, 3] and not a.readonly and a.segment.kind == "heap"
    assert p.array.release is not None and len(p.calls) == 0  # still the capsule's
    days = ist.from_arrow(ArrowProducer(b"tdD", struct.pack("=4i", 0, -1, 20000, 2**31 - 1), 3, offset=1), copy=True)
    assert days.dtype == "M8[D]" and days.view("i8").tolist() == [-1, 20000, 2**31 - 1]
    for fields, error in (
        ({"null_count": 1, "validity": b"\5"}, ValueError),
        ({"length": 2**62}, ValueError),
        ({"dictionary": 1}, TypeError),
    ):
        with pytest.raises(error):
            ist.from_arrow(ArrowProducer(**(ints(1, 2, 3) | fields)), copy=True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="positional"):
        ist.from_arrow(p, True)  # type: ignore[misc]


@given(st.integers(0, 20), st.lists(st.booleans(), max_size=40))
def test_in_booleans_by_a_copy(offset: int, values: list[bool]) -> None:
    bits = [True] * offset + values
    packed = bytes(sum(bit << i for i, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))
    a = ist.from_arrow(ArrowProducer(b"b", packed + b"\xff", len(values), offset=offset), copy=True)
    assert a.dtype == "?" and a.tolist() == values and set(bytes(a)) <= {0, 1}


def chunks(*producers: ArrowProducer, error: int = 0, format: bytes = b"i") -> Any:
    return capsules.StreamProducer(list(producers), error, format)


def test_in_a_stream_of_one_chunk() -> None:
    p, empty = ArrowProducer(**ints(1, 2, 3)), ArrowProducer(values=b"1234", length=0)
    stream = chunks(empty, p, ArrowProducer(values=b"1234", length=0))
    before = ist.stats()["bytes_copied"]
    a = ist.from_arrow(stream)
    assert ist.stats()["bytes_copied"] == before and a.tolist() == [1, 2, 3] and a.readonly and a.segment.kind == "foreign"
    assert len(empty.calls) == 1 and len(p.calls) == 0 and len(stream.calls) == 1
    with pytest.raises(ValueError, match="somebody else has taken it"):
        ist.from_arrow(stream)
    a.release()
    assert len(p.calls) == 1
    nothing = ist.from_arrow(chunks())
    assert nothing.shape == (0,) and nothing.dtype == "i4"


def test_in_a_stream_of_several_chunks() -> None:
    for copy in (False, True):
        one, two = ArrowProducer(**ints(1, 2)), ArrowProducer(**ints(3, 4, 5))
        stream = chunks(one, two)
        if copy:
            assert ist.from_arrow(stream, copy=True).tolist() == [1, 2, 3, 4, 5]
        else:
            with pytest.raises(ValueError, match="2 chunks, which lie apart: copy=True"):
                ist.from_arrow(stream)
        assert len(one.calls) == len(two.calls) == len(stream.calls) == 1


def test_in_a_stream_that_fails() -> None:
    p = ArrowProducer(**ints(1, 2))
    stream = chunks(p, error=5)
    with pytest.raises(RuntimeError, match=r"the stream failed: (on purpose|Input/output error)"):
        ist.from_arrow(stream)
    assert len(p.calls) == len(stream.calls) == 1
    with pytest.raises(MemoryError):
        ist.from_arrow(chunks(error=12))
    with pytest.raises(TypeError, match="Arrow format 'u'"):
        ist.from_arrow(chunks(ArrowProducer(**ints(1)), format=b"u"))


def test_out_as_a_stream() -> None:
    a = ist.array([1, 2, 3], "i4")
    capsule = a.__arrow_c_stream__()
    assert capsules.name_of(capsule) == b"arrow_array_stream" and a.owners == 2
    b = ist.from_arrow(capsule)
    assert b.tolist() == [1, 2, 3] and b.address == a.address and a.owners == 2
    del b
    assert a.owners == 1
    capsule = a[1:].__arrow_c_stream__(requested_schema=None)
    a.release()
    assert ist.from_arrow(capsule, copy=True).tolist() == [2, 3]
    del capsule
    for wrong, error in ((ist.zeros((2, 2)), BufferError), (ist.zeros(2, "?"), TypeError)):
        with pytest.raises(error):
            wrong.__arrow_c_stream__()


def test_in_stays_in_its_process() -> None:
    source = "import capsules, pickle; p = capsules.ArrowProducer(values=b'12345678', length=2); a = ist.from_arrow(p)"
    with Group() as group:
        one, two = group.start(2)
        one.run(source)
        assert one("ist.attach(a.token()).tolist() == pickle.loads(pickle.dumps(a)).tolist()")
        for load, sent in (("ist.attach(x)", "a.token()"), ("pickle.loads(x)", "pickle.dumps(a)")):
            text = two.raises("SegmentGoneError", f"import pickle; {load}", x=one(sent))
            assert "from_arrow() makes arrays of, never leaves its process: send isthmus.array(x)" in text
        assert two("pickle.loads(x).tolist()", x=one("pickle.dumps(ist.array(a))")) == one("a.tolist()")
        one.run("ist.set_pickle_lease(1e-3); del a")


# ---- out --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "dtype"), FORMATS.items())
def test_out_fields(format: str, dtype: str) -> None:
    a = ist.zeros(5, dtype)
    pair = a[1:4].__arrow_c_array__()
    assert [capsules.name_of(c) for c in pair] == [capsules.SCHEMA, capsules.ARRAY]
    schema, array = map(capsules.look, pair)
    assert (schema.format, schema.name, schema.metadata) == (format.encode(), b"", None)
    assert (schema.flags, schema.n_children, schema.children, schema.dictionary) == (0, 0, None, None)
    assert (array.length, array.null_count, array.offset, array.n_buffers, array.n_children) == (3, 0, 0, 2, 0)
    assert array.buffers[:2] == [None, a[1:].address] and array.dictionary is None
    assert a.owners == 2
    del pair, schema, array
    gc.collect()
    assert a.owners == 1
    alone = a.__arrow_c_schema__()
    assert capsules.look(alone).format == format.encode() and a.owners == 1


def test_out_moved_and_released_elsewhere() -> None:
    a = ist.array([1, 2, 3], "i4")
    pair = a.__arrow_c_array__()
    schema, array = (capsules.move(capsules.look(c)) for c in pair)
    del pair
    a.release()
    gc.collect()
    assert [s.owners for s in ist.segments()] == [1]
    assert ctypes.cast(array.buffers[1], ctypes.POINTER(ctypes.c_int32))[:3] == [1, 2, 3] and schema.format == b"i"
    for structure in (schema, array):
        thread = threading.Thread(target=capsules.release, args=(structure,))
        thread.start()
        thread.join(60)
        assert structure.release is None
    assert ist.segments() == []


@pytest.mark.parametrize("moved", [True, False])
def test_out_release_after_the_end_of_its_interpreter(moved: bool) -> None:
    out = ist.zeros(1, "i8")
    other = Interpreter()
    other.run(f"""
        import isthmus as ist
        out = ist.attach({out.token()!r})
        schema, capsule = ist.array([1.5, 2.5]).__arrow_c_array__()
        out[0] = id(capsule)
        del out
    """)
    pointer = ctypes.c_void_p.from_address(out[0] + object.__basicsize__).value  # the first field of a capsule
    assert pointer is not None
    array = capsules.ArrowArray.from_address(pointer)
    if moved:
        array = capsules.move(array)
    other.close()
    assert len(ist.segments()) == (2 if moved else 1)
    if moved:
        assert ctypes.cast(array.buffers[1], ctypes.POINTER(ctypes.c_double))[:2] == [1.5, 2.5]
        thread = threading.Thread(target=capsules.release, args=(array,))
        thread.start()
        thread.join(60)
        assert [s.id for s in ist.segments()] == [out.segment.id]


def test_out_counts_as_an_owner() -> None:
    a = ist.array([1, 2, 3])
    pair = a.__arrow_c_array__()
    with pytest.raises(BufferError, match=r"can't freeze: 1 other owner \(.*DLPack and Arrow exports"):
        a.freeze()
    del pair
    a.freeze()
    pair = a.__arrow_c_array__()
    assert capsules.look(pair[1]).buffers[1] == a.address
    assert a.make_writable() is not a


@pytest.mark.parametrize("dtype", ["?", ">i4", "c8", "g", "S3", "U3", "M8[D]", "M8[25s]", "m8", ">M8[s]", [("x", "i4")]])
def test_out_elements_that_arrow_has_not(dtype: Any) -> None:
    a = ist.zeros(3, dtype)
    for call in (a.__arrow_c_array__, a.__arrow_c_schema__):
        with pytest.raises(TypeError, match=r"Arrow has no primitive for '.*'"):
            call()
    assert a.owners == 1


def test_out_shapes_that_arrow_has_not() -> None:
    for a, text in (
        (ist.zeros((2, 3)), r"shape \(2, 3\): ravel"),
        (ist.zeros(()), r"shape \(\)"),
        (ist.zeros(6)[::2], r"strides \(16,\): copy"),
    ):
        for call in (a.__arrow_c_array__, a.__arrow_c_schema__):
            with pytest.raises(BufferError, match=text):
                call()
    a = ist.zeros(3)
    with pytest.raises(TypeError, match="'schema'"):
        a.__arrow_c_array__(schema=None)  # type: ignore[call-arg]
    assert len(a.__arrow_c_array__(requested_schema=a.__arrow_c_schema__())) == 2
    a.release()
    with pytest.raises(ist.DetachedError):
        a.__arrow_c_array__()


def test_there_and_back_is_the_same_memory() -> None:
    a = ist.array([1, 2, 3], "u2")
    b = ist.from_arrow(a)
    a[0] = 9
    assert b.tolist() == [9, 2, 3] and b.readonly and a.owners == 2
    a.release()
    c = ist.from_arrow(b)  # a chain: the last release ends all of it
    b.release()
    with Interpreter() as other:
        other.run(f"import isthmus as ist; c = ist.attach({c.token()!r}); assert c.tolist() == [9, 2, 3]")
        c.release()
        other.run("del c")
        assert ist.segments() == []  # in the same thread: nothing of Python in it


def test_many_threads() -> None:
    a = ist.zeros(100)

    done = []

    def work() -> None:
        for i in range(500):
            b = ist.from_arrow(a)
            if i % 2:
                pair = b.__arrow_c_array__()
                capsules.release(capsules.move(capsules.look(pair[1])))
        done.append(True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 4 and a.owners == 1 and len(ist.segments()) == 1


# ---- pyarrow ----------------------------------------------------------------------------------------------------------------------


def test_pyarrow_out() -> None:
    pa = pyarrow()
    for dtype, type_ in (
        ("i4", pa.int32()),
        ("f2", pa.float16()),
        ("M8[us]", pa.timestamp("us")),
        ("m8[s]", pa.duration("s")),
        ("V3", pa.binary(3)),
    ):
        a = ist.zeros(4, dtype)
        x = pa.array(a)
        found = x.type, len(x), x.null_count, x.buffers()[1].address
        assert found == (type_, 4, 0, a.address)
        assert a.owners == 2
        x.validate(full=True)
        del x
        assert a.owners == 1
    assert pa.field(ist.zeros(2, "f8")).type == pa.float64()
    assert pa.array(ist.array([1, 2, 3], "i4")).cast(pa.int64()).to_pylist() == [1, 2, 3]


def test_pyarrow_in() -> None:
    pa = pyarrow()
    for x in (
        pa.array([1, 2, 3], pa.int16()), pa.array([1.5, 2.5, 0]), pa.array(range(10))[3:6], pa.array([1, 2, 3], pa.timestamp("ms")),
        pa.array([b"ab", b"cd"], pa.binary(2)), pa.array([], pa.uint8()), pa.array([1, None, 3])[2:], pa.array([5], pa.date64()),
    ):  # fmt: skip
        a = ist.from_arrow(x)
        assert a.readonly and a.shape == (len(x),)
        assert len(x) == 0 or a.address == x.buffers()[1].address + x.offset * a.itemsize
        y = pa.array(a)
        assert y.to_pylist() == x.cast(y.type).to_pylist()
        del y
    allocated = pa.total_allocated_bytes()
    x = pa.array(range(1000))
    a = ist.from_arrow(x)
    del x
    assert a.sum() == 499500 and pa.total_allocated_bytes() > allocated
    a.release()
    assert pa.total_allocated_bytes() <= allocated


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda pa: pa.array([True]), TypeError, "'b'"),
        (lambda pa: pa.array([1, None, 3]), ValueError, "1 of 3"),
        (lambda pa: pa.array(["a"]), TypeError, "'u'"),
        (lambda pa: pa.array([[1]]), TypeError, r"'\+l'"),
        (lambda pa: pa.array([1], pa.date32()), TypeError, "'tdD'"),
        (lambda pa: pa.array([1], pa.timestamp("s", "UTC")), TypeError, "'tss:UTC'"),
        (lambda pa: pa.array(["a"]).dictionary_encode(), TypeError, "dictionary"),
        (lambda pa: pa.record_batch({"x": [1]}), TypeError, r"'\+s'"),
        (lambda pa: pa.chunked_array([[1], [2]]), ValueError, "2 chunks.*copy=True"),
        (lambda pa: pa.table({"x": [1]}), TypeError, r"'\+s'"),
    ],
)
def test_pyarrow_refused(make: Any, error: Any, text: str) -> None:
    pa = pyarrow()
    with pytest.raises(error, match=text):
        ist.from_arrow(make(pa))


def test_pyarrow_over_an_ndarray_let_go_in_another_interpreter() -> None:
    """pyarrow's release then takes a GIL to drop the ndarray: the main interpreter's, or it would be freed where it doesn't belong."""
    pa = pyarrow()
    np = pytest.importorskip("numpy", reason="numpy isn't installed for this Python")
    with Interpreter() as other:
        other.run("import isthmus as ist")
        for i in range(20):
            n = np.arange(10.0) + i
            dropped = threading.Event()

            class Owner(np.ndarray):  # type: ignore[misc]
                def __del__(self, dropped: threading.Event = dropped) -> None:
                    dropped.set()

            a = ist.from_arrow(pa.array(n.view(Owner)))
            other.run(f"a = ist.attach({a.token()!r}); assert a[1] == {i + 1}")
            del a, n
            other.run("del a")
            assert dropped.wait(60)
            del Owner


# ---- polars and pandas ------------------------------------------------------------------------------------------------------------


def test_pyarrow_streams() -> None:
    pa = pyarrow()
    x = pa.chunked_array([[], [1, 2, 3]], pa.int64())
    a = ist.from_arrow(x)
    assert a.address == x.chunk(1).buffers()[1].address and a.tolist() == [1, 2, 3]
    assert ist.from_arrow(pa.chunked_array([[1], [2, 3]]), copy=True).tolist() == [1, 2, 3]
    assert ist.from_arrow(pa.array([True, False, True])[1:], copy=True).tolist() == [False, True]
    back = pa.chunked_array(a)
    assert back.to_pylist() == [1, 2, 3] and back.chunk(0).buffers()[1].address == a.address
    del back


def test_polars_columns() -> None:
    pl = pytest.importorskip("polars", reason="polars isn't installed for this Python")
    for values, dtype in (
        ([1, 2, 3], "i8"),
        ([1.5, 2.5], "f8"),
        ([datetime.datetime(2026, 1, 2)], "M8[us]"),
        ([datetime.timedelta(1)], "m8[us]"),
    ):
        a = ist.from_arrow(pl.Series(values))
        assert a.dtype == dtype and a.tolist() == values and a.segment.kind == "foreign"
    both = pl.concat([pl.Series([1, 2]), pl.Series([3])], rechunk=False)
    with pytest.raises(ValueError, match="2 chunks"):
        ist.from_arrow(both)
    assert ist.from_arrow(both, copy=True).tolist() == [1, 2, 3] and ist.from_arrow(both.rechunk()).tolist() == [1, 2, 3]
    assert ist.from_arrow(pl.Series([True, False]), copy=True).tolist() == [True, False]
    assert ist.from_arrow(pl.Series([datetime.date(2026, 1, 2)]), copy=True).tolist() == [datetime.date(2026, 1, 2)]
    with pytest.raises(ValueError, match="1 of 2 elements are null"):
        ist.from_arrow(pl.Series([1, None]))
    assert pl.Series(ist.array([1, 2])).to_list() == [1, 2]


def test_pandas_columns() -> None:
    pd = pytest.importorskip("pandas", minversion="3", reason="pandas 3 isn't installed for this Python")
    pyarrow()
    frame = pd.DataFrame({"x": [1, 2, 3], "y": [1.5, 2.5, 3.5]})
    for name in ("x", "y"):
        a = ist.from_arrow(frame[name])
        assert a.tolist() == frame[name].tolist()
    assert ist.from_arrow(pd.Series([True, False]), copy=True).tolist() == [True, False]
    assert pd.Series(ist.array([1, 2])).tolist() == [1, 2]
