"""What another process may have written into a queue's memory: it raises, gives back what it took, and the queue goes on."""

import ctypes
import queue
import random
import struct
from typing import Any

import isthmus as ist
import pytest

pytestmark = pytest.mark.matrix

# Messages are put through the C library, as any program of the domain could. The tags: pybuffer/queue_item.c.
SMALL, ARRAY, HANDLE, CLONE = 1, 2, 3, 4

_lib = ctypes.CDLL(ist.get_library_dir() + "/libisthmus.so")


class Segment(ctypes.Structure):
    _fields_ = [("slot", ctypes.c_void_p), ("generation", ctypes.c_uint32), ("index", ctypes.c_uint32)]


class Message(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_uint8),
        ("size", ctypes.c_uint8),
        ("count", ctypes.c_uint32),
        ("bytes", ctypes.c_uint8 * 48),
        ("few", Segment * 6),
        ("many", ctypes.POINTER(Segment)),
    ]


_lib.ist_queue_put.argtypes = [ctypes.c_void_p, ctypes.POINTER(Message), ctypes.c_uint64, ctypes.c_void_p]
_lib.ist_queue_attach.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)]
_lib.ist_queue_release.argtypes = [ctypes.c_void_p]
_lib.ist_segment_acquire.argtypes = [ctypes.c_char_p, ctypes.POINTER(Segment)]
_lib.ist_segment_release.argtypes = [Segment]


def send(q: "ist.Queue[Any]", tag: int, data: bytes, *arrays: Any) -> None:
    """What a C program of the domain can put."""
    handle = ctypes.c_void_p()
    assert _lib.ist_queue_attach(q.token()[16:40], ctypes.byref(handle)) == 0
    message = Message(tag=tag, size=len(data), count=len(arrays))
    ctypes.memmove(message.bytes, data, len(data))
    for i, a in enumerate(arrays):
        assert _lib.ist_segment_acquire(a.token()[16:40], ctypes.byref(message.few[i])) == 0
    assert _lib.ist_queue_put(handle, ctypes.byref(message), 0, None) == 0
    for i in range(len(arrays)):
        _lib.ist_segment_release(message.few[i])
    _lib.ist_queue_release(handle)


def refused(q: "ist.Queue[Any]", *errors: type[BaseException]) -> None:
    with pytest.raises(errors or (ist.CloneError,)):
        q.get_nowait()
    q.put("goes on")
    assert q.get_nowait() == "goes on"
    with pytest.raises(queue.Empty):
        q.get_nowait()


def array_bytes(code: int, ndim: int, flags: int, offset: int, *shape: int) -> bytes:
    return struct.pack("<BBB5xq", code, ndim, flags, offset) + b"".join(struct.pack("<q", n) for n in shape)


DOUBLE = 11


def test_the_harness_speaks_the_format() -> None:
    q, a = ist.Queue[Any](), ist.array([1.0, 2.0, 3.0])
    send(q, SMALL, b"\x05")
    send(q, ARRAY, array_bytes(DOUBLE, 1, 0, 8, 2), a)
    assert q.get() == 5 and q.get().tolist() == [2, 3]
    q.put(a)
    assert q.get().tolist() == [1, 2, 3]
    assert a.owners == 1


@pytest.mark.parametrize("tag", [0, 5, 77, 255])
def test_an_unknown_tag(tag: int) -> None:
    q, a = ist.Queue[Any](), ist.zeros(3)
    send(q, tag, b"x")
    refused(q)
    send(q, tag, b"x", a)
    refused(q)
    assert a.owners == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x41",
        b"\x42a",
        b"\x41\xff",
        b"\xd0\x05abc",
        b"\xd0\xff" + b"\xff" * 8,
        b"\xc8\x01",
        b"\xd2\xfe\xff\xff\xff\xff",
        b"\xe8\x00",
        b"\x05\x05",
        b"\xee",
        b"\xa8",
    ],
    ids=bytes.hex,
)
def test_small_ones(data: bytes) -> None:
    q = ist.Queue[Any]()
    send(q, SMALL, data)
    refused(q)


def test_a_small_one_has_no_segments() -> None:
    q, a = ist.Queue[Any](), ist.zeros(3)
    send(q, SMALL, b"\x05", a)
    refused(q)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0b" * 15,
        array_bytes(DOUBLE, 1, 0, 0, 4),
        array_bytes(DOUBLE, 1, 0, 1, 3),
        array_bytes(DOUBLE, 1, 0, -8, 1),
        array_bytes(DOUBLE, 1, 0, 2**62, 1),
        array_bytes(DOUBLE, 1, 0, 0, -1),
        array_bytes(DOUBLE, 1, 0, 0, 2**61),
        array_bytes(DOUBLE, 2, 0, 0, 2**33, 2**33),
        array_bytes(DOUBLE, 2, 0, 0, 1),
        array_bytes(DOUBLE, 3, 0, 0, 0, 2**62, 4),
        array_bytes(DOUBLE, 4, 0, 0, 1, 1, 1),
        array_bytes(99, 1, 0, 0, 1),
        array_bytes(DOUBLE, 1, 2, 0, 1),
        array_bytes(DOUBLE, 0, 2, 0),
    ],
    ids=lambda data: data[:24].hex(),
)
def test_arrays(data: bytes) -> None:
    q, a = ist.Queue[Any](), ist.zeros(3)
    send(q, ARRAY, data, a)
    refused(q, ist.CloneError, ValueError)
    assert a.owners == 1


def test_no_array_is_made_of_a_queue_and_no_queue_of_an_array() -> None:
    q, a, other = ist.Queue[Any](), ist.zeros(3), ist.Queue[Any]()
    send(q, ARRAY, array_bytes(DOUBLE, 1, 0, 0, 3), other)
    refused(q)
    for kind in (0, 1, 2, 200):
        send(q, HANDLE, bytes([kind]), a)
        refused(q, ist.CloneError, ValueError)
    send(q, HANDLE, b"\x01note", other)
    refused(q, ist.CloneError, ValueError)
    send(q, HANDLE, b"", other)
    refused(q)
    send(q, HANDLE, b"\x01", other)
    assert q.get() == other


def clone_segment(count: int, described: int, *parts: bytes) -> ist.SharedArray[int]:
    return ist.array(struct.pack("<QQ", count, described) + b"".join(parts), "u1")


BODY = bytes(ist.dumps([1, 2]))
ONE = BODY[:8] + b"\xe8\x00"  # a clone that is its first array


def description(token: bytes, lease: int = 0) -> bytes:
    return struct.pack("<IQ", len(token), lease) + token


def test_clones() -> None:
    q, a, other = ist.Queue[Any](), ist.array([1.0, 2.0, 3.0]), ist.Queue[Any]()
    good = description(a.token())
    send(q, CLONE, b"", clone_segment(1, len(good), good, ONE), a)
    assert q.get().tolist() == [1, 2, 3]
    send(q, CLONE, b"", clone_segment(0, 0, BODY))
    assert q.get() == [1, 2]
    outside = bytearray(a.token())
    outside[56:64] = struct.pack("<q", 4)
    bad: list[ist.SharedArray[int]] = [
        ist.zeros(0, "u1"),
        ist.zeros(15, "u1"),
        clone_segment(1, 0, BODY),
        clone_segment(0, 2**63, BODY),
        clone_segment(2**60, 64, bytes(64), BODY),
        clone_segment(5, 64, bytes(64), BODY),
        clone_segment(1, 12, struct.pack("<IQ", 2**32 - 1, 0), ONE),
        clone_segment(1, len(good) - 1, good, ONE),
        clone_segment(2, 2 * len(good), good, good, ONE),
        clone_segment(1, len(good), description(bytes(len(a.token()))), ONE),
        clone_segment(1, len(good), description(bytes(outside)), ONE),
        clone_segment(1, len(good), description(a.token(), 2**63), b"garbage"),
        clone_segment(0, 0, ONE),
        clone_segment(0, 0, BODY[:-1]),
    ]
    for segment in bad:
        send(q, CLONE, b"", segment, a)
        refused(q, ist.CloneError, ValueError)
    send(q, CLONE, b"", clone_segment(1, len(good), good, ONE), other)
    refused(q, ist.CloneError, ValueError)
    send(q, CLONE, b"")
    refused(q)
    assert a.owners == 1 and ist.stats()["in_flight"] == 0


def test_random_bytes() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    q, a = ist.Queue[Any](), ist.zeros(3)
    good = description(a.token())
    whole = bytearray(bytes(clone_segment(1, len(good), good, ONE)))
    for _ in range(2000):
        tag = dice.choice((SMALL, ARRAY, HANDLE, CLONE))
        if tag == CLONE:
            data = bytearray(whole)
            for _ in range(dice.randrange(1, 4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            send(q, CLONE, b"", ist.array(bytes(data), "u1"), a)
        else:
            send(q, tag, dice.randbytes(dice.randrange(41)), *[a] * dice.randrange(2))
        try:
            got = q.get_nowait()
        except Exception:
            continue
        repr(got)
        del got
    assert a.owners == 1 and ist.stats()["in_flight"] == 0 and q.empty()
