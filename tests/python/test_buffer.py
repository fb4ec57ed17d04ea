"""The buffer protocol: every request, compared with CPython's own exporter and with memoryview."""

import array
import ctypes
import itertools
from typing import Any

import isthmus as ist
import pytest

pytestmark = pytest.mark.matrix

SIMPLE, WRITABLE, FORMAT, ND = 0, 1, 4, 8
STRIDES = 0x10 | ND
C, F, ANY, INDIRECT = 0x20 | STRIDES, 0x40 | STRIDES, 0x80 | STRIDES, 0x100 | STRIDES
REQUESTS = sorted({a | b | c for a in (SIMPLE, ND, STRIDES, C, F, ANY, INDIRECT) for b in (0, WRITABLE) for c in (0, FORMAT)})


class PyBuffer(ctypes.Structure):
    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_char_p), ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)), ("suboffsets", ctypes.POINTER(ctypes.c_ssize_t)), ("internal", ctypes.c_void_p),
    )  # fmt: skip


def request(obj: Any, flags: int) -> Any:
    """What an exporter answers, but for addresses; None: BufferError."""
    view = PyBuffer()
    try:
        ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(obj), ctypes.byref(view), flags)
    except BufferError:
        return None
    n = view.ndim
    found = {
        "len": view.len, "itemsize": view.itemsize, "readonly": view.readonly, "ndim": n, "format": view.format,
        "shape": view.shape[:n] if view.shape else None, "strides": view.strides[:n] if view.strides else None,
        "suboffsets": bool(view.suboffsets), "bytes": ctypes.string_at(view.buf, 1) if view.len and view.buf else b"",
    }  # fmt: skip
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
    return found


SHAPES = [(12,), (3, 4), (4, 3), (1, 12), (12, 1), (2, 2, 3), (0,), (0, 3), (1,), (1, 1), ()]


def cases() -> Any:
    for shape in SHAPES:
        size = 1
        for n in shape:
            size *= n
        a = ist.array(range(size), "i4").reshape(shape)
        yield from ((shape, a), (shape, a.T), (shape, a.toreadonly()))
        if len(shape) == 1:
            yield from ((shape, a[::2]), (shape, a[::-1]), (shape, a[1:]))
        if len(shape) == 2:
            yield from ((shape, a[:, ::2]), (shape, a[1:, 1:]), (shape, a[::-1]), (shape, a[:1]))


@pytest.mark.parametrize("flags", REQUESTS)
def test_every_request_as_memoryview_answers_it(flags: int) -> None:
    for shape, a in cases():
        view = memoryview(a)
        assert (view.shape, view.strides, view.format, view.tolist()) == (a.shape, a.strides, "i", a.tolist())
        ours, theirs = request(a, flags), request(view, flags)
        if a.ndim == 0 and ours is not None and theirs is not None:  # memoryview says None for the shape of no dimensions, or not
            for answer in (ours, theirs):
                answer["shape"] = answer["shape"] or None
                answer["strides"] = answer["strides"] or None
        assert ours == theirs, (shape, a.strides, flags)


@pytest.mark.parametrize("flags", REQUESTS)
def test_every_request_as_cpythons_test_exporter_answers_it(flags: int) -> None:
    testbuffer = pytest.importorskip("_testbuffer")
    for shape, a in cases():
        if a.size == 0 or a.ndim == 0:
            continue
        items = a.copy().ravel().tolist()
        flag = 0 if a.readonly else testbuffer.ND_WRITABLE
        if a.f_contiguous and not a.c_contiguous:
            oracle = testbuffer.ndarray(a.T.copy().ravel().tolist(), shape=list(a.shape), format="i", flags=flag | testbuffer.ND_FORTRAN)
        elif a.c_contiguous:
            oracle = testbuffer.ndarray(items, shape=list(a.shape), format="i", flags=flag)
        else:
            continue
        ours, theirs = request(a, flags), request(oracle, flags)
        if ours is not None and theirs is not None:
            for axis, n in enumerate(a.shape):  # nobody steps along an axis of one element
                for answer in (ours, theirs):
                    if n == 1 and answer["strides"]:
                        answer["strides"][axis] = 0
            if flags & ND != ND:  # it gives ndim 1 and no shape; so do we, and it keeps its own idea of the shape
                ours["shape"] = theirs["shape"] = None
                ours["ndim"] = theirs["ndim"] = 0
        if (ours is None) != (theirs is None):
            assert flags & FORMAT and flags & ND != ND, (shape, flags)  # memoryview's rule, which the test exporter leaves open
            continue
        assert ours == theirs, (shape, a.strides, flags)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])
def test_memoryview_reads_and_writes(dtype: str) -> None:
    a = ist.array([[1, 0, 1], [0, 1, 1]], dtype)
    m = memoryview(a)
    assert m.tolist() == a.tolist() and m.obj is a and m.nbytes == a.nbytes and not m.readonly
    m[1, 0] = m[0, 0]
    assert a[1, 0] == 1 and m == a and a == m
    assert m.tobytes() == a.tobytes() and m.c_contiguous == a.c_contiguous


@pytest.mark.parametrize("dtype", ["c8", "c16"])
def test_complex_formats_are_pep_3118s(dtype: str) -> None:
    a = ist.array([1 + 2j], dtype)
    m = memoryview(a)
    assert m.format == {"c8": "Zf", "c16": "Zd"}[dtype] and m.tobytes() == a.tobytes()
    assert ist.array(m).tolist() == [1 + 2j]


def test_read_only_exports() -> None:
    a = ist.array([1, 2, 3])
    for view in (a.toreadonly(), a.toreadonly()[1:], a.toreadonly().T, a.copy().freeze(), a.copy().freeze()[::2]):
        assert memoryview(view).readonly and request(view, WRITABLE) is None
        with pytest.raises(BufferError, match="read-only"):
            ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(PyBuffer()), WRITABLE | STRIDES)
    writable = memoryview(a)
    writable[0] = 9
    assert a[0] == 9


def test_everybody_elses_consumers() -> None:
    import hashlib
    import io
    import struct
    import zlib

    a = ist.array(b"hello world")
    assert bytes(a) == b"hello world" == bytearray(a) and b"".join([a]) == b"hello world"
    assert zlib.crc32(a) == zlib.crc32(b"hello world") and hashlib.sha256(a).digest() == hashlib.sha256(b"hello world").digest()
    struct.pack_into("<I", a, 0, 0x41424344)
    assert a.tobytes()[:4] == b"DCBA"
    assert io.BytesIO(b"HELLO").readinto(a) == 5 and a.tobytes() == b"HELLO world"
    d = ist.zeros(4)
    array.array("d").frombytes(d.cast("B"))
    assert io.BytesIO(struct.pack("4d", 1, 2, 3, 4)).readinto(d) == 32 and d.tolist() == [1, 2, 3, 4]
    (ctypes.c_double * 4).from_buffer(d)[0] = 5
    assert d[0] == 5
    with pytest.raises((BufferError, ValueError)):
        zlib.crc32(d[::2])


def test_exports_are_counted_at_the_owner() -> None:
    a = ist.zeros((4, 4))
    assert a.segment.exports == 0
    for n, view in enumerate((a, a[1:], a.T, a.toreadonly(), a[0]), 1):
        memoryview(view).release()
        assert a.segment.exports == 0
        keep = [memoryview(view) for _ in range(n)]
        again = [memoryview(m) for m in keep]  # the same exports
        assert a.segment.exports == n and len(again) == n
        del keep, again
    assert a.segment.exports == 0
    with memoryview(a) as m, memoryview(m):
        assert a.segment.exports == 1
    assert a.segment.exports == 0 and ist.stats()["exports"] == 0


def test_failed_requests_hold_nothing() -> None:
    a = ist.zeros((3, 4)).T
    readonly = a.toreadonly()
    for flags, view in itertools.product(REQUESTS, (a, readonly, a[::2])):
        request(view, flags)
    assert a.segment.exports == 0
    a.release()
    readonly.release()
    for view in (a, readonly):
        with pytest.raises(ist.DetachedError):
            memoryview(view)
        with pytest.raises(ist.DetachedError):
            bytes(view)


def test_shape_pointers_outlive_the_handle() -> None:
    m = memoryview(ist.array(range(24), "i2").reshape(2, 3, 4)[:, ::-1, 1::2])
    junk = [ist.zeros((3, 4, 5)) for _ in range(100)]
    assert m.shape == (2, 3, 2) and m.strides == (24, -8, 4) and m.tolist()[1][0] == [21, 23] and len(junk) == 100
