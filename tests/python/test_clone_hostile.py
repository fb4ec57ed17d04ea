"""Bytes from anywhere as a clone: they give an object or CloneError, in bounded time and memory, and run nothing."""

import datetime as dt
import decimal
import os
import random
import struct
import sys
import time
from typing import Any

import clone_types as types
import isthmus as ist
import pytest
from carriers import run_script
from hypothesis import given
from hypothesis import strategies as st

HEAD = b"ISTC\x01\0\0\0"
NONE, INT64, INT, FLOAT, ASCII, TEXT1, TEXT2, TEXT4, BYTES = b"\xc0", b"\xc8", b"\xc9", b"\xca", b"\xcc", b"\xcd", b"\xce", b"\xcf", b"\xd0"
LIST, TUPLE, DICT, SET, FROZENSET, RANGE, SLICE = b"\xd2", b"\xd3", b"\xd4", b"\xd5", b"\xd6", b"\xd7", b"\xd8"
DATE, TIME, DATETIME, ZONED, DELTA, ZONE = b"\xd9", b"\xda", b"\xdb", b"\xdd", b"\xde", b"\xe0"
GLOBAL, ENUM, NAMED, INSTANCE, EXCEPTION, REGISTERED, PICKLE = b"\xe1", b"\xe2", b"\xe3", b"\xe4", b"\xe5", b"\xe6", b"\xe7"
ARRAY, CONTENTS, NDARRAY, VIEW, ARRAY_ARRAY, KEEP, SAME = b"\xe8", b"\xe9", b"\xea", b"\xec", b"\xed", b"\xee", b"\xef"
HUGE = b"\xff" + b"\xff" * 8

# What a decoded value's classes, or the numbers in the bytes, may raise besides CloneError; never SystemError, RuntimeError, crashes
EXPECTED = (ist.CloneError,)


def text(value: str) -> bytes:
    return bytes([0x40 + len(value)]) + value.encode()


def cls(name: str, module: str = "clone_types") -> bytes:
    return GLOBAL + text(module) + text(name)


def load(data: bytes) -> Any:
    return ist.loads(HEAD + data)


def test_a_good_one() -> None:
    assert load(b"\x82\x01" + text("a")) == [1, "a"]
    assert load(INSTANCE + b"\x02" + cls("Point") + text("x") + b"\x05" + text("y") + NONE) == types.Point(5, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xfe",
        b"\xf0",
        b"\xff",
        KEEP,
        KEEP + KEEP + NONE,
        KEEP + b"\x61a",
        KEEP + b"\xa8",
        b"\xa8",
        SAME + b"\0",
        SAME + HUGE,
        b"\x81",
        b"\x81\xa8",
        b"\x01\x01",
        b"\x82\x01",
        b"\x91\x01",
        LIST + HUGE,
        LIST + b"\xfe\xff\xff\xff\x7f",
        DICT + HUGE,
        DICT + b"\xff" + struct.pack("<Q", 2**63) + NONE,
        SET + HUGE,
        FROZENSET + HUGE,
        TUPLE + HUGE,
        TUPLE + b"\xfe\0",
        BYTES + HUGE,
        BYTES + b"\x02a",
        TEXT4 + b"\xff" + struct.pack("<Q", 2**62),
        INT + HUGE,
        INSTANCE + HUGE,
        NAMED + HUGE,
        # text: not ASCII, not the shortest way, no code points
        b"\x41\x80",
        b"\x50" + b"a" * 15 + b"\xff",
        ASCII + b"\x03a\xffb",
        TEXT1 + b"\x02ab",
        TEXT1 + b"\0",
        TEXT2 + b"\x02\xff\0\xff\0",
        TEXT4 + b"\x01" + struct.pack("<I", 0x110000),
        TEXT4 + b"\x01" + struct.pack("<I", 0xFFFF),
        TEXT4 + b"\x02" + struct.pack("<II", 0x10000, 0xFFFFFFFF),
        # dates
        DATE + b"\0\0\1\1",
        DATE + b"\x01\0\x0d\x01",
        DATE + b"\x01\0\x02\x1e",
        TIME + b"\x18\0\0\0\0\0\0\0",
        TIME + b"\0\0\0\x02\0\0\0\0",
        TIME + b"\0\0\0\0\xff\xff\xff\xff",
        DATETIME + b"\0" * 12,
        ZONED + b"\x01\0\x01\x01" + b"\0" * 8 + text("UTC"),
        DELTA + b"\xff\xff\xff\x7f" + b"\0" * 8,
        ZONE + b"\x02\0\0\0" + b"\0" * 8 + NONE,
        ZONE + b"\0" * 12 + b"\x05",
        DATE + b"\1",
        # made of the wrong things
        RANGE + b"\x01\x02\x00",
        RANGE + NONE * 3,
        RANGE + b"\x01" + text("a") + b"\x01",
        GLOBAL + b"\x01\x02",
        GLOBAL + text("os") + b"\x01",
        ENUM + b"\x01\x02",
        ENUM + cls("Point") + text("x"),
        ENUM + cls("Colour") + text("PINK"),
        ENUM + cls("Colour") + text("__doc__"),
        ENUM + cls("Colour") + NONE,
        ENUM + cls("Size") + b"\x07",
        NAMED + b"\0",
        NAMED + b"\x02" + cls("Pair") + b"\x01",
        NAMED + b"\x02" + cls("Point") + b"\x01",
        NAMED + b"\x02" + cls("Wordy") + b"\x01",
        NAMED + b"\x01\x05",
        INSTANCE + b"\0" + cls("Plain"),
        INSTANCE + b"\0" + cls("function"),
        INSTANCE + b"\0\x05",
        INSTANCE + b"\0" + cls("Popen", "subprocess"),
        INSTANCE + b"\0" + cls("int", "builtins"),
        INSTANCE + b"\x01" + cls("Point") + b"\x01\x01",
        INSTANCE + b"\x01" + cls("Slotted") + text("__dict__") + b"\x90",
        INSTANCE + b"\x01" + cls("Slotted") + text("__class__") + NONE,
        EXCEPTION + b"\0" + cls("Point") + b"\xa0" + NONE * 4,
        EXCEPTION + b"\0" + cls("Failure") + NONE * 5,
        EXCEPTION + b"\0" + cls("Failure") + b"\xa0" + NONE + b"\x80" + NONE * 2,
        EXCEPTION + b"\0" + cls("Failure") + b"\xa0" + NONE * 2 + b"\x01" + NONE,
        EXCEPTION + b"\0" + cls("Failure") + b"\xa0" + b"\x91" + text("name") + b"\x01" + NONE * 3,
        EXCEPTION + b"\0" + cls("Failure") + b"\xa0" + b"\x81\x01" + NONE * 3,
        EXCEPTION + b"\0" + b"\x05" * 6,
        REGISTERED + text("clone_types:Money") + b"\x01",
        REGISTERED + b"\x01\x01",
        REGISTERED + text("decimal.Context") + b"\x01",
        PICKLE + b"\xa1" + BYTES + b"\x04\x80\x04N.",
        PICKLE + b"\xa0",
        # names
        cls("nothing"),
        cls("ran"),
        cls("Plain.nothing"),
        cls("", ""),
        cls("system", "not_loaded"),
        cls("ran.append"),
        cls("__dict__.x", "os"),
        # arrays
        ARRAY + b"\0",
        ARRAY + HUGE,
        CONTENTS + b"\0",
        CONTENTS + b"\x03abc",
        CONTENTS + b"\x04\0\0\xff\0",
        CONTENTS + b"\x04\xff\xff\0\0",
        CONTENTS + b"\x07\x03\0\0\0<i4",
        CONTENTS + b"\x07\x03\0\0\0<q9",
        CONTENTS + b"\x0f\x03\0\1\0" + b"\xff" * 8 + b"<i4",
        CONTENTS + b"\x0f\x03\0\1\0" + b"\0" * 7 + b"\x40<i4",
        CONTENTS + b"\x08\x04\0\0\0|S0\0",
        NDARRAY + b"\x01",
        NDARRAY + NONE,
        VIEW + b"\0\x05",
        ARRAY_ARRAY + b"?\0",
        ARRAY_ARRAY + b"d\x03abc",
        ARRAY_ARRAY + b"\xff\0",
        ARRAY_ARRAY,
        # tuples of themselves
        KEEP + b"\xa1\xa8",
        KEEP + b"\xa1\xa1\xa8",
        KEEP + FROZENSET + b"\x01\xa8",
        KEEP + FROZENSET + b"\x01\xa1\xa8",
        KEEP + SLICE + NONE * 2 + b"\xa8",
        KEEP + SLICE + b"\xa1\xa8" + NONE * 2,
        KEEP + NAMED + b"\x03" + cls("Pair") + b"\xa8" + NONE,
        KEEP + GLOBAL + b"\xa8" + text("x"),
        KEEP + RANGE + b"\xa8" * 3,
        KEEP + INSTANCE + b"\0\xa8",
        KEEP + REGISTERED + text("decimal.Decimal") + b"\xa8",
        b"\x81" + KEEP + b"\xa1\xa8",
    ],
    ids=lambda d: d[:24].hex(),
)
def test_damaged(data: bytes) -> None:
    types.ran.clear()
    with pytest.raises(ist.CloneError):
        load(data)
    assert types.ran == []


@pytest.mark.parametrize(
    "data",
    [
        b"\xd5\x01\x80",
        b"\xd4\x01\x80\x01",
        KEEP + SET + b"\x01\xa8",
        KEEP + DICT + b"\x01\xa1\xa8\x01",
        SET + b"\x01\x90",
        FROZENSET + b"\x01" + SET + b"\0",
    ],
    ids=bytes.hex,
)
def test_what_cannot_be_hashed(data: bytes) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        load(data)


@pytest.mark.parametrize("data", [b"", b"I", b"ISTC", HEAD, b"\0" * 20, b"ISTD" + HEAD[4:] + NONE, HEAD[:5] + b"\1\0\0" + NONE])
def test_heads(data: bytes) -> None:
    with pytest.raises(ist.CloneError, match=f"not a clone: its {len(data)} bytes don't begin as one"):
        ist.loads(data)


def test_another_version() -> None:
    with pytest.raises(ist.CloneError, match="a clone of version 2; this isthmus reads version 1"):
        ist.loads(b"ISTC\x02\0\0\0\xc0")


SAMPLES: list[Any] = [
    [
        1,
        2.5,
        "text",
        "\u20ac",
        b"bytes",
        None,
        True,
        10**30,
        1j,
        bytearray(b"x"),
        range(3),
        slice(1),
        {1, 2},
        frozenset({(1, "x")}),
        {"k": [1], (1, 2): 3},
    ],
    [
        dt.datetime(2020, 1, 2, tzinfo=dt.timezone(dt.timedelta(1 / 24), "n")),
        dt.date(2020, 1, 2),
        dt.time(1),
        dt.timedelta(1),
        decimal.Decimal("1.5"),
    ],
    [
        types.Point(1, [2]),
        types.Slotted("a"),
        types.Pair(1, 2),
        types.Colour.RED,
        types.Access(5),
        types.Frozen("n", (1,)),
        ValueError("x"),
        OSError(1, "x", "f"),
        ExceptionGroup("g", [KeyError(1)]),
    ],
    [len, dict, types.Plain.static, {types.Frozen("a"): {types.Node(), types.Keyed(1)}}, memoryview(b"abc"), ...],
]
loop: list[Any] = [(), {}, {1: 2}]
loop[1]["loop"] = (loop, "text " * 10)
node = types.Node()
node.links = frozenset({node, (node, 1)})
SAMPLES += [loop, node, {types.Keyed(("k",), loop): loop}]


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_cut_off_at_every_byte(number: int) -> None:
    data = ist.dumps(SAMPLES[number]).tobytes()
    for n in range(len(data)):
        with pytest.raises(ist.CloneError):
            ist.loads(data[:n])
        with pytest.raises((ist.CloneError, TypeError, AttributeError)):  # AttributeError: a class's own __hash__, without its attribute
            ist.loads(data[:n] + data[n + 1 :] + b"\xff")
    with pytest.raises(ist.CloneError, match="bytes behind its end"):
        ist.loads(data + b"\0")


def survive(data: bytes) -> None:
    """It may be an object; then it is one that can be walked over."""
    try:
        value = ist.loads(data)
        repr(value)
        hash(value)
    except (ist.Error, TypeError, RecursionError, AttributeError):  # AttributeError: a dataclass's own repr, without its attributes
        pass
    assert types.ran == []


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_every_bit(number: int) -> None:
    types.ran.clear()
    data = bytearray(ist.dumps(SAMPLES[number]).tobytes())
    for i in range(8, len(data)):
        for bit in range(8):
            data[i] ^= 1 << bit
            survive(bytes(data))
            data[i] ^= 1 << bit


def test_random_changes() -> None:
    seed = int(os.environ.get("ISTHMUS_SEED", random.randrange(2**32)))
    print(f"ISTHMUS_SEED={seed}")
    chance = random.Random(seed)
    types.ran.clear()
    samples = [ist.dumps(value).tobytes() for value in SAMPLES]
    end = time.monotonic() + float(os.environ.get("ISTHMUS_STRESS_SECONDS", 3))
    count = 0
    while time.monotonic() < end or count < 1000:
        count += 1
        data = bytearray(chance.choice(samples))
        other = chance.choice(samples)
        for _ in range(chance.randrange(1, 8)):
            i, j = chance.randrange(8, len(data)), chance.randrange(8, len(other))
            n = chance.randrange(1, 12)
            change = chance.randrange(4)
            if change == 0:
                data[i] = chance.randrange(256)
            elif change == 1:
                data[i : i + n] = other[j : j + n]
            elif change == 2:
                data[i:i] = other[j : j + n]
            else:
                del data[i : i + n]
            if len(data) <= 8:
                data += other[8:]
        survive(bytes(data))


@given(st.binary(max_size=60))
def test_random_bytes(data: bytes) -> None:
    types.ran.clear()
    survive(HEAD + data)


def test_nothing_is_imported_or_run() -> None:
    assert "this" not in sys.modules and "wsgiref" not in sys.modules
    for module, name in (("this", "c"), ("wsgiref.util", "guess_scheme"), ("wsgiref", "util")):
        with pytest.raises(ist.CloneError, match="import it before, or say import_classes=True"):
            load(cls(name, module))
    assert "this" not in sys.modules and "wsgiref" not in sys.modules
    told = run_script("""
        import isthmus, sys
        data = b"ISTC\\1\\0\\0\\0\\xe1Gisthmus\\x4aWorkerPool"  # which isthmus loads by its __getattr__
        try:
            isthmus.loads(data)
        except isthmus.CloneError:
            print("isthmus.pool" in sys.modules, isthmus.loads(data, import_classes=True).__name__)
    """)
    assert told == "False WorkerPool\n"
    with pytest.raises(ist.CloneError, match=r"isn't there$"):
        ist.loads(HEAD + cls("guess_nothing", "wsgiref.util"), import_classes=True)
    assert ist.loads(HEAD + cls("guess_scheme", "wsgiref.util"), import_classes=True) is sys.modules["wsgiref.util"].guess_scheme


def test_a_property_of_a_class_is_not_set() -> None:
    types.ran.clear()
    twin = load(INSTANCE + b"\x02" + cls("Hidden") + text("twice") + b"\x05" + text("value") + b"\x01")
    assert types.ran == [] and twin.__dict__ == {"twice": 5, "value": 1}
    odd = load(INSTANCE + b"\x01" + cls("Point") + text("__class__") + cls("int", "builtins"))
    assert type(odd) is types.Point


def elapsed(data: bytes) -> float:
    before = time.perf_counter()
    with pytest.raises(ist.CloneError, match=r"same hash|same objects again|nested more than|part of itself"):
        ist.loads(data)
    return time.perf_counter() - before


def test_colliding_keys() -> None:
    """hash(n) is n modulo 2**61 - 1: all of these are 0. 100,000 of them would take minutes."""
    modulus = 2**61 - 1
    keys = [n * modulus for n in range(1, 100_001)]
    one = b"".join(INT + b"\x0a" + key.to_bytes(10, "little", signed=True) for key in keys)
    count = b"\xfe" + struct.pack("<I", len(keys))
    assert elapsed(HEAD + SET + count + one) < 5
    pairs = b"".join(INT + b"\x0a" + key.to_bytes(10, "little", signed=True) + NONE for key in keys)
    assert elapsed(HEAD + DICT + count + pairs) < 5
    floats = b"".join(b"\xa2" + FLOAT + struct.pack("<d", 0.0) + INT + b"\x0a" + key.to_bytes(10, "little", signed=True) for key in keys)
    assert elapsed(HEAD + FROZENSET + count + floats) < 5
    # and those that wait until a cycle is complete: a node that has the set, which has tuples of the node
    waiting = b"".join(b"\xa2\xa8" + INT + b"\x0a" + key.to_bytes(10, "little", signed=True) for key in keys)
    assert elapsed(HEAD + KEEP + INSTANCE + b"\x01" + cls("Node") + text("links") + SET + count + waiting) < 5


def test_many_honest_keys() -> None:
    for value in (
        dict.fromkeys(range(300000)),
        {(i, -i) for i in range(100_000)},
        {float(i) for i in range(100_000)},
        {i << 40 for i in range(100_000)},
    ):
        assert ist.loads(ist.dumps(value)) == value


def test_keys_that_take_for_ever_to_hash() -> None:
    doubling = KEEP + b"\xa1\x01"  # number 0; each next one has the one before twice: 2**60 visits to hash the last
    items = doubling + b"".join(KEEP + b"\xa2" + SAME + bytes([i]) + SAME + bytes([i]) for i in range(60))
    assert elapsed(HEAD + LIST + b"\x3e" + items + SET + b"\x01" + SAME + b"\x3c") < 5
    long = KEEP + INT + b"\xfe" + struct.pack("<I", 100_000) + b"\x55" * 100_000
    again = b"".join(SET + b"\x01" + SAME + b"\0" for _ in range(20_000))
    assert elapsed(HEAD + LIST + b"\xfe" + struct.pack("<I", 20_001) + long + again) < 5


def test_deep_keys() -> None:
    for n in (300, 100_000):
        deep = b"\xa1" * n + b"\x01"
        assert elapsed(HEAD + SET + b"\x01" + deep) < 5
        assert elapsed(HEAD + DICT + b"\x01" + deep + NONE) < 5
        assert elapsed(HEAD + b"\x81" * 10 + SET + b"\x01" + (SLICE + NONE * 2) * n + NONE) < 5
    assert load(SET + b"\x01" + b"\xa1" * 150 + b"\x01")


def test_deep_everything() -> None:
    """A million deep, complete or cut off, without the C stack."""
    n = 1_000_000
    for wrap in (
        b"\x81",
        b"\xa1",
        b"\x91\x05",
        b"\x91\x01",
        KEEP + b"\x81",
        FROZENSET + b"\x01",
        INSTANCE + b"\x01" + cls("Node") + text("value"),
    ):
        with pytest.raises(ist.CloneError):
            load(wrap * n)
    value = load(b"\x81" * n + NONE)
    del value
    value = load((b"\xa1" * n) + NONE)
    del value
    for wrap in (SLICE + NONE * 2, EXCEPTION + b"\0" + cls("Failure") + b"\xa0" + NONE * 2):
        assert elapsed(HEAD + wrap * 20_000 + NONE * 50_000) < 5


def test_room_is_bounded_by_the_bytes() -> None:
    """Nested containers that each promise as many items as there are bytes: together they would be far more than there is memory."""
    n = 200_000
    promise = b"".join(LIST + b"\xfe" + struct.pack("<I", 6 * (n - i) - 6) for i in range(n))
    with pytest.raises(ist.CloneError):
        load(promise)
    with pytest.raises(ist.CloneError):
        load(b"".join(TUPLE + b"\xfe" + struct.pack("<I", 5 * (n - i)) for i in range(n)) + NONE * 5 * n)


def test_bytes_that_change_meanwhile() -> None:
    """A decode function that writes to the message being decoded: whatever is read afterwards is read once."""
    a = ist.array(bytearray(HEAD + b"\x88" + REGISTERED + text("clone_types:Money") + b"\x05" + b"\x05" * 7 * 10))

    def decode(value: object) -> object:
        a[40:] = chance.randrange(256)
        for _ in range(10):
            a[chance.randrange(30, a.size)] = chance.randrange(256)
        return value

    ist.register_type(types.Money, lambda m: 0, decode)
    try:
        for seed in range(2000):
            chance = random.Random(seed)
            a[30:] = 5
            try:
                ist.loads(a)
            except (ist.CloneError, TypeError):
                pass
    finally:
        ist._core._forget_type(types.Money)


def test_a_decode_function_sees_what_is_sound() -> None:
    """By way of a cycle it gets containers that are being filled, and does with them what it wants."""
    seen: list[Any] = []

    def decode(value: Any) -> Any:
        seen.append(repr(value))
        for one in value:
            if type(one) is list:
                one.clear()
                one.extend(range(100))
                one[:] = one[:3]
            elif type(one) is dict or type(one) is set:
                one.clear()
        return value

    ist.register_type(types.Money, lambda m: m.amount, decode)
    try:
        cases: list[Any] = [[1, 2], {"a": 1}]
        for outer in cases:
            money = types.Money([outer])
            if type(outer) is list:
                outer += [money, 3, "x" * 40, [4]]
            else:
                outer.update(m=money, z=3, y=[4])
            twin = ist.clone(outer)
            repr(twin)
        pair: Any = ([], 1, [2])
        pair[0].append(types.Money([pair]))
        twin = ist.clone(pair)
        assert twin[1:] == (1, [2])
    finally:
        ist._core._forget_type(types.Money)
    assert seen == ["[[1, 2]]", "[{'a': 1}]", "[(None, None, None)]"]
