"""DLPack, both ways: E1 and E2 of pybuffer/README.md."""

import ctypes
import gc
import threading
from typing import Any

import capsules
import isthmus as ist
import pytest
import scripts
from capsules import IS_COPIED, READ_ONLY, DLPackProducer
from carriers import Interpreter
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.matrix

NUMBERS = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
CODES = {"b": 6, "i": 0, "u": 1, "f": 2, "c": 5}


def numpy() -> Any:
    return pytest.importorskip("numpy", reason="numpy isn't installed for this Python")


def in_thread(function: Any) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


# ---- out --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("max_version", [None, (0, 8), (1, 0), (1, 1), (1, 9), (2, 0)])
def test_fields(dtype: str, max_version: Any) -> None:
    a = ist.zeros((3, 5), dtype)
    capsule = a.__dlpack__(max_version=max_version)
    versioned = max_version is not None and max_version >= (1, 0)
    assert capsules.name_of(capsule) == (b"dltensor_versioned" if versioned else b"dltensor")
    managed = capsules.take(capsule)
    if versioned:
        assert (managed.major, managed.minor) == ((1, 0) if max_version == (1, 0) else (1, 1))
        assert managed.flags == 0
    t = managed.tensor
    assert (t.data, t.device_type, t.device_id, t.ndim, t.byte_offset) == (a.address, 1, 0, 2, 0)
    assert (t.code, t.bits, t.lanes) == (CODES[a.dtype.kind], 8 * a.itemsize, 1)
    assert t.shape[:2] == [3, 5] and t.strides[:2] == [5, 1]
    assert a.owners == 2
    capsules.delete(managed)
    assert a.owners == 1


def test_strides_count_elements() -> None:
    a = ist.zeros((4, 6, 5), "i2")
    for view in (a.T, a[::-1, ::2, 3], a[1:2, :, ::-2], a[:, None, 2], a[0, 0, 0:1]):
        managed = capsules.take(view.__dlpack__())
        t = managed.tensor
        assert t.data == view.address
        assert t.shape[: t.ndim] == list(view.shape)
        used = [i for i, n in enumerate(view.shape) if n > 1]
        assert [t.strides[i] for i in used] == [view.strides[i] // 2 for i in used]
        capsules.delete(managed)
    assert a.owners == 1


def test_scalar_and_empty() -> None:
    for shape in ((), 0, (3, 0, 2)):
        a = ist.zeros(shape, "f4")
        managed = capsules.take(a.__dlpack__(max_version=(1, 0)))
        assert managed.tensor.ndim == a.ndim
        assert managed.tensor.data == (a.address if a.size else None)
        assert a.owners == 2
        capsules.delete(managed)
        assert ist.from_dlpack(a).shape == a.shape


def test_a_capsule_that_nobody_takes_gives_its_reference_back() -> None:
    a = ist.zeros(5)
    for version in (None, (1, 0)):
        capsule = a.__dlpack__(max_version=version)
        assert a.owners == 2
        del capsule
        gc.collect()
        assert a.owners == 1


def test_a_capsule_that_was_taken_leaves_it() -> None:
    a = ist.zeros(5)
    for version in (None, (1, 0)):
        capsule = a.__dlpack__(max_version=version)
        managed = capsules.take(capsule)
        del capsule
        gc.collect()
        assert a.owners == 2
        capsules.delete(managed)
        assert a.owners == 1


def test_the_memory_outlives_its_array() -> None:
    a = ist.array([1, 2, 3], "i4")
    managed = capsules.take(a.__dlpack__())
    a.release()
    del a
    gc.collect()
    assert len(ist.segments()) == 1 and ist.segments()[0].owners == 1
    assert ctypes.cast(managed.tensor.data, ctypes.POINTER(ctypes.c_int32))[:3] == [1, 2, 3]
    in_thread(lambda: capsules.delete(managed))
    assert ist.segments() == []


def test_many_threads_export_and_delete() -> None:
    a = ist.zeros((3, 4))
    done = []

    def work() -> None:
        for i in range(500):
            capsule = a.__dlpack__(max_version=(1, 0) if i % 2 else None)
            if i % 3:
                capsules.delete(capsules.take(capsule))
        done.append(True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    gc.collect()
    assert len(done) == 4 and a.owners == 1


POINTER_AND_NAME = ctypes.c_void_p * 2  # of a capsule, behind its object's head


@pytest.mark.parametrize("taken", [True, False])
def test_the_deleter_after_the_end_of_its_interpreter(taken: bool) -> None:
    out = ist.zeros(2, "i8")
    other = Interpreter()
    other.run(f"""
        import isthmus as ist
        out = ist.attach({out.token()!r})
        capsule = ist.array([1.5, 2.5]).__dlpack__(max_version=(1, 1))
        out[0] = id(capsule)
        del out
    """)
    # as a consumer there would, without ctypes there: 3.12 has none for such an interpreter
    fields = POINTER_AND_NAME.from_address(out[0] + object.__basicsize__)
    managed = capsules.Versioned.from_address(fields[0])
    if taken:
        used = capsules.USED[capsules.VERSIONED]
        fields[1] = ctypes.cast(ctypes.c_char_p(used), ctypes.c_void_p).value
    other.close()
    assert len(ist.segments()) == (2 if taken else 1)
    if taken:
        assert ctypes.cast(managed.tensor.data, ctypes.POINTER(ctypes.c_double))[:2] == [1.5, 2.5]
        in_thread(lambda: capsules.delete(managed))
        assert [s.id for s in ist.segments()] == [out.segment.id]


def test_a_program_may_end_with_exports_alive(tmp_path: Any) -> None:
    numpy()
    source = """
        import sys
        import isthmus as ist, numpy as np
        a = ist.full(5, 2.0)
        sys.kept = [np.from_dlpack(a), a.__dlpack__(), a.__dlpack__(max_version=(1, 0))]
        print(a.owners)
    """
    assert scripts.run(scripts.write(tmp_path, source)).ok() == "4\n"


def test_read_only() -> None:
    a = ist.array([1, 2, 3])
    for handle in (a.toreadonly(), a.toreadonly()[1:], ist.array([1, 2, 3]).freeze()):
        with pytest.raises(BufferError, match=r"read-only.*max_version=\(1, 0\)"):
            handle.__dlpack__()
        with pytest.raises(BufferError, match="read-only"):
            handle.__dlpack__(max_version=(0, 9))
        managed = capsules.take(handle.__dlpack__(max_version=(1, 0)))
        assert managed.flags == READ_ONLY
        capsules.delete(managed)
        copy = capsules.take(handle.__dlpack__(copy=True))
        assert copy.tensor.data != handle.address
        capsules.delete(copy)


def test_copy() -> None:
    a = ist.array([[1, 2], [3, 4]], "u2").T
    before = ist.stats()["bytes_copied"]
    managed = capsules.take(a.__dlpack__(max_version=(1, 1), copy=True))
    assert ist.stats()["bytes_copied"] == before + 8
    assert managed.flags == IS_COPIED and a.owners == 1
    t = managed.tensor
    assert t.strides[:2] == [2, 1] and ctypes.cast(t.data, ctypes.POINTER(ctypes.c_uint16))[:4] == [1, 3, 2, 4]
    capsules.delete(managed)
    for copy in (False, None):
        managed = capsules.take(a.__dlpack__(max_version=(1, 1), copy=copy))
        assert managed.flags == 0 and managed.tensor.data == a.address
        capsules.delete(managed)


def test_strides_that_are_no_elements() -> None:
    a = ist.zeros(4, [("x", "i4"), ("y", "i2")])["x"]
    with pytest.raises(BufferError, match="6 bytes on axis 0 aren't a multiple of 4"):
        a.__dlpack__()
    capsules.delete(capsules.take(a.__dlpack__(copy=True)))
    capsules.delete(capsules.take(a[:1].__dlpack__()))  # one element has no stride


def test_what_lives_elsewhere_keeps_freeze_and_make_writable_away() -> None:
    a = ist.array([1, 2, 3])
    managed = capsules.take(a.__dlpack__())
    with pytest.raises(BufferError, match=r"can't freeze: 1 other owner \(.*DLPack and Arrow exports"):
        a.freeze()
    a[0] = 7
    capsules.delete(managed)
    a.freeze()
    managed = capsules.take(a.__dlpack__(max_version=(1, 0)))
    writable = a.make_writable()
    assert writable.segment.id != a.segment.id and not writable.readonly and a.frozen
    capsules.delete(managed)
    assert a.make_writable() is a


@pytest.mark.parametrize("dtype", [">i4", ">f8", "g", "S3", "U2", "V4", "M8[ns]", "m8[s]", [("x", "i4")]])
def test_elements_that_dlpack_has_not(dtype: Any) -> None:
    a = ist.zeros(2, dtype)
    for copy in (None, True):
        with pytest.raises(BufferError, match=r"DLPack has .*, not '.*"):
            a.__dlpack__(max_version=(1, 1), copy=copy)
    assert a.owners == 1


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ({"stream": 1}, ValueError, "stream must be None, not 1"),
        ({"dl_device": (2, 0)}, BufferError, r"can't be exported to \(2, 0\)"),
        ({"dl_device": (1, 1)}, BufferError, r"can't be exported to \(1, 1\)"),
        ({"dl_device": "cpu"}, TypeError, "dl_device must be .*'cpu'"),
        ({"dl_device": (1, "0")}, TypeError, "'str'"),
        ({"max_version": 1}, TypeError, "max_version must be .* not 1"),
        ({"max_version": (1,)}, TypeError, r"max_version must be .* not \(1,\)"),
        ({"max_version": (1 << 80, 0)}, OverflowError, "too large"),
        ({"wait": 1}, TypeError, "'wait'"),
    ],
)
def test_requests_that_cannot_be_met(asked: Any, error: Any, text: str) -> None:
    a = ist.zeros(3)
    with pytest.raises(error, match=text):
        a.__dlpack__(**asked)
    with pytest.raises(TypeError):
        a.__dlpack__(None)  # type: ignore[misc]
    assert a.owners == 1


def test_requests_that_can() -> None:
    a = ist.zeros(3)
    assert a.__dlpack_device__() == (1, 0)
    assert capsules.name_of(a.__dlpack__(stream=None, dl_device=(1, 0), copy=False, max_version=(1, -1))) == capsules.VERSIONED
    a.release()
    for call in (a.__dlpack__, a.__dlpack_device__):
        with pytest.raises(ist.DetachedError):
            call()


# ---- in ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [None, (1, 0), (1, 7)])
def test_in_by_a_copy_and_given_back(version: Any) -> None:
    p = DLPackProducer(version=version)
    before = ist.stats()["bytes_copied"]
    a = ist.from_dlpack(p)
    assert ist.stats()["bytes_copied"] == before + 24
    assert a.tolist() == [[0, 1, 2], [3, 4, 5]] and a.dtype == "i4" and not a.readonly and a.owners == 1
    assert len(p.calls) == 1
    assert p.asked == [{"max_version": (1, 1)}]
    assert capsules.name_of(p.capsule).startswith(b"used_")


def test_in_strides_and_offset() -> None:
    assert ist.from_dlpack(DLPackProducer((2, 3), strides=(10, 2), byte_offset=8)).tolist() == [[2, 4, 6], [12, 14, 16]]
    assert ist.from_dlpack(DLPackProducer((3,), strides=(-2,), byte_offset=16)).tolist() == [4, 2, 0]
    assert ist.from_dlpack(DLPackProducer((2, 2), strides=(0, 0), flags=READ_ONLY)).tolist() == [[0, 0], [0, 0]]
    assert ist.from_dlpack(DLPackProducer((), byte_offset=12)).tolist() == 3
    assert ist.from_dlpack(DLPackProducer((2, 0, 3), data=None)).shape == (2, 0, 3)
    assert ist.from_dlpack(DLPackProducer((1,) * 64)).ndim == 64
    assert ist.from_dlpack(DLPackProducer((2,), byte_offset=3)).tolist() == [1 << 8, 2 << 8]  # not aligned


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"version": (2, 0)}, "DLPack 2.0"),
        ({"device_type": 2, "device_id": 3}, r"device \(2, 3\)"),
        ({"code": 4, "bits": 16}, "code 4 with 16 bits"),
        ({"code": 0, "bits": 4}, "code 0 with 4 bits"),
        ({"code": 2, "bits": 128}, "code 2 with 128 bits"),
        ({"code": 77}, "code 77"),
        ({"lanes": 4}, "4 lanes"),
        ({"ndim": 65}, "65 axes"),
        ({"ndim": -1}, "-1 axes"),
        ({"data": None}, "no memory"),
        ({"byte_offset": 2**64 - 1}, "offset beyond"),
        ({"byte_offset": 2**63}, "offset beyond"),
        ({"strides": (1 << 62, 1)}, "stride beyond"),
        ({"strides": ((1 << 61) - 1, 1)}, "reaches beyond"),
        ({"strides": (-(1 << 60), 1)}, "reaches beyond"),
    ],
)
def test_in_impossible(fields: Any, text: str) -> None:
    p = DLPackProducer(**fields)
    with pytest.raises(BufferError, match=text):
        ist.from_dlpack(p)
    assert len(p.calls) == 0 and not capsules.name_of(p.capsule).startswith(b"used_")  # the capsule's destructor will do it
    if fields.get("version") is None:
        q = DLPackProducer(version=None, **fields)
        with pytest.raises(BufferError, match=text):
            ist.from_dlpack(q)
        assert len(q.calls) == 0


def test_in_shapes_that_cannot_be() -> None:
    for shape, error in (((-1, 2), BufferError), ((1 << 62, 1 << 62), ValueError), ((1 << 50,), MemoryError)):
        p = DLPackProducer((1,) * len(shape))
        p.shape[:] = shape
        p.structure.tensor.strides = (ctypes.c_int64 * len(shape))()
        with pytest.raises(error):
            ist.from_dlpack(p)
        assert len(p.calls) == (1 if error is MemoryError else 0)  # there it was taken already


def test_in_axes_without_a_shape() -> None:
    p = DLPackProducer()
    p.structure.tensor.shape = None
    with pytest.raises(BufferError, match="axes without a shape"):
        ist.from_dlpack(p)
    assert len(p.calls) == 0


def test_in_once() -> None:
    p = DLPackProducer()
    ist.from_dlpack(p)
    with pytest.raises(BufferError, match=r'"used_dltensor_versioned".*not a DLPack capsule that nobody has taken'):
        ist.from_dlpack(p)
    assert len(p.calls) == 1


def test_in_without_a_deleter() -> None:
    p = DLPackProducer()
    p.structure.deleter = None
    assert ist.from_dlpack(p).size == 6


def test_in_from_one_that_knows_no_keywords() -> None:
    class Old:
        def __init__(self) -> None:
            self.producer = DLPackProducer(version=None)

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

        def __dlpack__(self) -> Any:
            return self.producer.capsule

    old = Old()
    assert ist.from_dlpack(old).size == 6  # type: ignore[arg-type]
    assert len(old.producer.calls) == 1


def test_in_arguments() -> None:
    p = DLPackProducer()
    with pytest.raises(ValueError, match="copy=False, but from_dlpack"):
        ist.from_dlpack(p, copy=False)
    with pytest.raises(ValueError, match="'gpu'"):
        ist.from_dlpack(p, device="gpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(2, 0\)"):
        ist.from_dlpack(p, device=(2, 0))
    with pytest.raises(AttributeError, match="__dlpack_device__"):
        ist.from_dlpack(5)  # type: ignore[arg-type]
    p.device = (2, 1)
    with pytest.raises(BufferError, match=r"device \(2, 1\)"):
        ist.from_dlpack(p)
    assert p.asked == []
    assert ist.from_dlpack(p, device="cpu", copy=True).size == 6
    assert p.asked == [{"max_version": (1, 1), "dl_device": (1, 0)}]

    class Liar:
        def __dlpack_device__(self) -> Any:
            return (1, 0)

        def __dlpack__(self, **_: Any) -> Any:
            return 5

    with pytest.raises(BufferError, match="gave 5"):
        ist.from_dlpack(Liar())


def test_in_an_exception_of_the_producer_comes_through() -> None:
    class Failing(DLPackProducer):
        def __dlpack__(self, **asked: Any) -> Any:
            self.asked.append(asked)
            raise ZeroDivisionError("on purpose")

    p = Failing()
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        ist.from_dlpack(p)
    assert len(p.asked) == 1


def test_in_from_ours() -> None:
    a = ist.array([[1, 2], [3, 4]], "c8")[::-1].toreadonly()
    b = ist.from_dlpack(a)
    assert b.tolist() == a.tolist() and b.segment.id != a.segment.id and not b.readonly
    assert a.owners == 1


# ---- numpy ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NUMBERS)
def test_numpy_there_and_back(dtype: str) -> None:
    np = numpy()
    a = ist.array(np.arange(24).reshape(2, 3, 4).astype(dtype))
    n = np.from_dlpack(a)
    address, kind, values = n.__array_interface__["data"], n.dtype, n.tolist()
    assert address == (a.address, np.__version__ < "2.1")  # older ones take everything for read-only
    assert kind == np.dtype(dtype) and values == a.tolist()
    assert a.owners == 2
    b = ist.from_dlpack(n)
    assert b.tolist() == a.tolist() and b.dtype == a.dtype
    del a  # not only released: its address was read
    values = n.tolist()
    assert values == b.tolist()
    del n
    gc.collect()
    assert len(ist.segments()) == 1


def test_numpy_read_only_and_copy() -> None:
    np = numpy()
    if np.__version__ < "2.1":
        pytest.skip("numpy knows versioned DLPack from 2.1 on")
    a = ist.array([1, 2, 3])
    n = np.from_dlpack(a.toreadonly())
    with pytest.raises(ValueError, match="read-only"):
        n[0] = 5
    c = np.from_dlpack(a, copy=True)
    c[0] = 9
    assert a[0] == 1 and np.from_dlpack(a, device="cpu", copy=False).ctypes.data == a.address
    m = np.arange(3)
    m.flags.writeable = False
    assert ist.from_dlpack(m).tolist() == [0, 1, 2]


@given(st.data())
def test_numpy_random_views(data: Any) -> None:
    np = numpy()
    shape = data.draw(st.lists(st.integers(0, 4), max_size=5))
    n = np.arange(int(np.prod(shape, dtype=int))).reshape(shape).astype(data.draw(st.sampled_from(NUMBERS)))
    a = ist.array(n)
    for _ in range(data.draw(st.integers(0, 3))):
        part = st.tuples(st.none() | st.integers(-5, 5), st.none() | st.integers(-5, 5), st.sampled_from([None, 1, 2, -1, -3]))
        key = tuple(slice(*data.draw(part)) for _ in range(n.ndim))
        axes = data.draw(st.permutations(range(n.ndim)))
        n, a = n[(*key, ...)].transpose(axes), a[(*key, ...)].transpose(axes)
    seen = np.from_dlpack(a)
    found, address = (seen.shape, seen.dtype, seen.tolist()), seen.__array_interface__["data"][0]
    assert found == (n.shape, n.dtype, n.tolist())
    assert n.size == 0 or address == a.address
    back = ist.from_dlpack(n)
    assert back.shape == n.shape and back.tolist() == n.tolist()
    del seen
    assert a.owners == 1
