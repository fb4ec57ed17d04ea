"""a.token(), isthmus.attach(): bytes that describe an array, and bytes that don't."""

import gc
import random
import struct
import time

import isthmus
import pytest
from carriers import run_script

pytestmark = pytest.mark.matrix

DIMS = 56  # where shape and strides begin; see message.c


def numbered(n: int, dtype: str = "i8"):
    a = isthmus.empty(n, dtype)
    for i in range(n):
        a[i] = i
    return a


def test_attach_gives_a_new_owner_of_the_same_memory():
    a = numbered(6)
    b = isthmus.attach(a.token())
    assert b is not a and b.segment.id == a.segment.id and a.owners == 2
    b[2] = 40
    assert a.tolist() == [0, 1, 40, 3, 4, 5]
    a.release()
    assert b.tolist() == [0, 1, 40, 3, 4, 5] and b.owners == 1


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"])
def test_every_dtype(dtype):
    a = isthmus.zeros((2, 3), dtype)
    b = isthmus.attach(a.token())
    assert b.dtype == a.dtype and b.shape == (2, 3) and b.strides == a.strides and b.format == a.format


def test_views_travel_as_they_are():
    a = numbered(24).reshape(4, 6) if hasattr(isthmus.SharedArray, "reshape") else None
    flat = numbered(24)
    parts = [flat[3:20:4], flat[20:3:-4], flat[5:5], flat[7:8], flat[::-1]]
    if a is not None:
        parts += [a[1:3, ::2], a[::-1, 5], a.T, a[None, 2]]
    for part in parts:
        b = isthmus.attach(part.token())
        assert (b.shape, b.strides, b.tolist()) == (part.shape, part.strides, part.tolist())


def test_scalars_and_empty_arrays():
    for shape in [(), 0, (0, 3), (3, 0, 2), (1,) * 64]:
        a = isthmus.zeros(shape)
        b = isthmus.attach(a.token())
        assert b.shape == a.shape and b.tolist() == a.tolist() and b.nbytes == a.nbytes


def test_read_only_stays_read_only():
    a = numbered(3)
    assert not isthmus.attach(a.token()).readonly
    b = isthmus.attach(a.toreadonly().token())
    assert b.readonly
    with pytest.raises(ValueError, match="read-only"):
        b[0] = 1
    del b
    a.freeze()
    c = isthmus.attach(a.token())
    assert c.readonly and c.frozen


def test_a_token_owns_nothing():
    a = numbered(5)
    token = a.token()
    number, generation = a.segment.descriptor
    a.release()
    with pytest.raises(isthmus.SegmentGoneError) as caught:
        isthmus.attach(token)
    text = str(caught.value)
    assert f"segment {number} (generation {generation}) is gone" in text and "\n" not in text
    assert isinstance(caught.value, LookupError)
    others = [numbered(5) for _ in range(100)]
    assert any(other.token() and other.segment.descriptor[0] == number for other in others)
    with pytest.raises(isthmus.SegmentGoneError):
        isthmus.attach(token)
    del others


def test_token_of_a_released_array():
    a = numbered(3)
    a.release()
    with pytest.raises(isthmus.DetachedError):
        a.token()


def test_any_buffer_will_do_and_nothing_else():
    a = numbered(3)
    token = a.token()
    assert isthmus.attach(bytearray(token)).tolist() == [0, 1, 2]
    assert isthmus.attach(memoryview(token)).tolist() == [0, 1, 2]
    for wrong in [None, 5, [1], a.tolist()]:
        with pytest.raises(TypeError, match="token"):
            isthmus.attach(wrong)


@pytest.mark.parametrize("wrong", [b"", b"ISTA", b"\0" * 48, b"ISTA" + b"\xff" * 60, b"x" * 5000])
def test_other_bytes(wrong):
    with pytest.raises(ValueError, match="token"):
        isthmus.attach(wrong)


def test_every_other_length():
    token = numbered(3).token()  # the array is gone: what is let through raises SegmentGoneError
    for n in range(len(token)):
        with pytest.raises(ValueError):
            isthmus.attach(token[:n])
    for more in [b"\0", b"\0" * 8, b"\0" * 16]:
        with pytest.raises(ValueError):
            isthmus.attach(token + more)


def test_a_later_version_is_named():
    token = bytearray(numbered(3).token())
    token[4] = 9
    with pytest.raises(ValueError, match="version 9"):
        isthmus.attach(token)


def with_numbers(token: bytes, offset: int, shape: list[int], strides: list[int]) -> bytes:
    changed = bytearray(token)
    spec = changed[56 + 16 * changed[9] :]
    changed[9] = len(shape)
    return bytes(changed[:48]) + struct.pack(f"<q{2 * len(shape)}q", offset, *shape, *strides) + spec


BIG = 2**63 - 1


@pytest.mark.parametrize(
    "offset, shape, strides",
    [
        (0, [11], [8]),
        (8, [10], [8]),
        (80, [1], [8]),
        (73, [1], [8]),
        (-8, [1], [8]),
        (0, [-1], [8]),
        (0, [2], [-8]),
        (0, [2], [80]),
        (72, [2], [-80]),
        (0, [BIG], [8]),
        (0, [2], [BIG]),
        (0, [2], [-BIG - 1]),
        (0, [3], [BIG]),
        (BIG, [1], [8]),
        (BIG, [2], [BIG]),
        (-BIG - 1, [2], [-BIG - 1]),
        (0, [2**32, 2**32], [0, 0]),
        (0, [2**31, 2**31, 2], [0, 0, 0]),
        (0, [BIG, 0, BIG], [8, 8, 8]),
        (0, [5, 2], [40, 8]),
        (81, [0], [8]),
        (0, [2] * 64, [0] * 64),
    ],
)
def test_numbers_that_reach_outside(offset, shape, strides):
    a = numbered(10)
    with pytest.raises(ValueError):
        isthmus.attach(with_numbers(a.token(), offset, shape, strides))
    assert a.owners == 1


@pytest.mark.parametrize(
    "offset, shape, strides, value",
    [(0, [10], [8], None), (72, [10], [-8], None), (80, [0], [8], []), (0, [3], [0], [0, 0, 0]), (16, [2, 2], [8, 16], [[2, 4], [3, 5]])],
)
def test_numbers_that_fit(offset, shape, strides, value):
    a = numbered(10)
    b = isthmus.attach(with_numbers(a.token(), offset, shape, strides))
    assert b.shape == tuple(shape)
    if value is not None:
        assert b.tolist() == value


def test_changed_bytes_never_read_outside():
    """Whatever comes of a token with a few changed bytes: an array inside the segment, or one of four exceptions."""
    seed = time.time_ns() % 2**32
    print("seed", seed)
    rng = random.Random(seed)
    a = isthmus.zeros((4, 5), "u2")
    b = numbered(3)
    good = a[1:3, ::-2].token()
    counts = {"array": 0, "refused": 0}
    for _ in range(5000):
        token = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            token[rng.randrange(4, len(token))] = rng.choice([0, 1, 2, 8, 127, 128, 255, rng.randrange(256)])
        if rng.random() < 0.1:
            del token[rng.randrange(len(token)) :]
        try:
            c = isthmus.attach(token)
        except (ValueError, isthmus.SegmentGoneError, PermissionError):
            counts["refused"] += 1
            continue
        counts["array"] += 1
        # a stride of 0 may make a huge array of few bytes, as numpy's broadcasting does; what is read lies inside the segment
        span = sum((n - 1) * abs(stride) for n, stride in zip(c.shape, c.strides, strict=True)) + c.itemsize
        assert c.size == 0 or span <= c.segment.size
        if max(c.shape, default=0) < 10_000 and c.size < 10_000:
            c.tolist()
        c.release()
    assert counts["refused"] > 100 and counts["array"] > 10, counts
    assert a.owners == 1 and b.owners == 1


def test_a_child_attaches_too():
    told = run_script(
        """
        import os, isthmus
        a = isthmus.zeros(3)
        token = a.token()
        pid = os.fork()
        if pid == 0:
            b = isthmus.attach(token)
            b[1] = 5
            os._exit(0 if b.owners == 2 else 3)
        assert os.waitpid(pid, 0)[1] == 0
        print(a.tolist())
        """
    )
    assert told.startswith("[0.0, 5.0, 0.0]")


def test_a_token_whose_process_is_gone():
    source = "import isthmus; a = isthmus.zeros(3); print(a.token().hex())"
    token = bytes.fromhex(run_script(source, environment={"ISTHMUS_DOMAIN": ""}))
    with pytest.raises(isthmus.SegmentGoneError, match="another process, which is gone or can't be reached"):
        isthmus.attach(token)


def test_nothing_is_left():
    a = numbered(10)
    token = a.token()
    for _ in range(1000):
        isthmus.attach(token)
    gc.collect()
    assert a.owners == 1 and isthmus.stats()["exports"] == 0
