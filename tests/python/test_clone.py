"""Structured clone: what arrives, type by type; identity and cycles; transfer; what can't be cloned and how that is told."""

import array
import contextlib
import copy
import datetime as dt
import decimal
import fractions
import gc
import math
import os
import pathlib
import pickle
import sys
import threading
import uuid
import zoneinfo
from collections.abc import Iterator
from typing import Any

import clone_types as types
import isthmus as ist
import pytest
from carriers import Channel, Interpreter, run_script
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.matrix


def by_bytes(obj: object) -> Any:
    return ist.loads(ist.dumps(obj))


WAYS = pytest.mark.parametrize("way", [ist.clone, by_bytes], ids=["clone", "bytes"])

ATOMS = [
    None, True, False, ..., NotImplemented, 0, 1, 63, 64, -1, 127, 128, -128, -129, 2**15 - 1, -(2**15), 2**31, -(2**31) - 1, 2**62, 2**63 - 1,
    -(2**63), 2**63, -(2**63) - 1, 2**64, -(2**200), 10**4000, 0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324, 1 + 2j, complex(-0.0, math.inf),
    "", "a", "\xe9", "\0", "x" * 31, "x" * 32, "x" * 253, "x" * 254, "x" * 70_000, "\xe9" * 40, "\u20ac" * 5, "\u0100\xe9", "\U0001f600a", "\ud800",
    b"", b"a", b"abc", b"x" * 300, b"x" * 100_000, bytearray(), bytearray(b"abc"), bytearray(100_000),
    range(3), range(0, 10**30, 7), range(5, 0, -1), slice(None), slice(1, "a", (2,)),
    dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.time(), dt.time(1, 2, 3, 4), dt.time(23, 59, 59, 999_999, fold=1), dt.time(1, tzinfo=dt.UTC),
    dt.datetime(1, 1, 1), dt.datetime(2026, 11, 28, 3, 4, 5, 6, fold=1), dt.datetime(2020, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=-2), "X")),
    dt.datetime(2020, 7, 2, tzinfo=zoneinfo.ZoneInfo("UTC")), dt.timedelta(-3, 4, 5), dt.timedelta.max, dt.timedelta.min,
    dt.UTC, dt.timezone(dt.timedelta(minutes=1)), zoneinfo.ZoneInfo("UTC"),
    decimal.Decimal("1.50"), decimal.Decimal("-Infinity"), decimal.Decimal("1E+9999"), fractions.Fraction(-3, 7), fractions.Fraction(10**100),
    uuid.UUID(int=7), uuid.uuid1(), pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:/x"), pathlib.Path("x"),
    types.Colour.RED, types.Colour.BLUE, types.Size.SMALL, types.Word.HELLO, types.Access.READ, types.Access.READ | types.Access.RUN, types.Access(0),
    types.Bits.ONE | types.Bits.TWO, types.Bits(9),
    len, dict, ValueError, copy.deepcopy, os.path.join, types.function, types.Plain, types.Plain.Inner, types.Plain.static, types.Plain.method, types.Colour,
    types.Point(1, [2]), types.Frozen("n", (1, 2)), types.Slotted(1, "b"), types.Pair(1, [2]), types.Typed("t"), types.Loose(1, 2),
    array.array("d", [1.5, 2]), array.array("b"), array.array("q", range(10_000)),
]  # fmt: skip


@WAYS
@pytest.mark.parametrize("value", ATOMS, ids=lambda v: f"{type(v).__name__} {repr(v)[:30]}")
def test_each_type(way: Any, value: object) -> None:
    types.ran.clear()
    twin = way(value)
    assert type(twin) is type(value) and twin == value and repr(twin) == repr(value)
    for container in (way([value, value]), way((value,)), way({"key": value})):
        one = container["key"] if type(container) is dict else container[0]
        assert type(one) is type(value) and one == value
    assert types.ran == []


@WAYS
def test_what_has_one_object_per_interpreter_stays_that(way: Any) -> None:
    for value in (
        None,
        True,
        ...,
        NotImplemented,
        (),
        "",
        "a",
        "\xe9",
        b"",
        b"x",
        5,
        dt.UTC,
        types.Colour.RED,
        types.Access.READ,
        len,
        dict,
    ):
        assert way([value])[0] is value


CONTAINERS = [
    [], [1, [2, [3]]], list(range(15)), list(range(16)), list(range(300)), (), (1,), tuple(range(7)), tuple(range(8)), (1, (2, (3, []))),
    {}, {1: 2}, {"a": {"b": {}}}, dict.fromkeys(range(15)), dict.fromkeys(range(16), "x"), {(1, 2): [3], None: 4, 1.5: 5, b"k": 6, frozenset({1}): 7},
    set(), {1, "a", (2, 3)}, frozenset(), frozenset({1, frozenset({2, frozenset()})}), {frozenset({1}), (1, frozenset({2}))},
    {str(i): i for i in range(5000)}, {i: -i for i in range(5000)}, set(range(5000)), {(i, str(i)) for i in range(3000)},
]  # fmt: skip


@WAYS
@pytest.mark.parametrize("value", CONTAINERS, ids=lambda v: repr(v)[:40])
def test_containers(way: Any, value: Any) -> None:
    twin = way(value)
    assert (twin == value and type(twin) is type(value) and repr(twin) == repr(value)) or isinstance(value, (set, frozenset))
    assert list(twin) == list(value) or isinstance(value, (set, frozenset))  # a dict's order, too
    if type(value) in (list, dict, set):
        assert twin is not value
        twin.clear()
        assert len(value) == len(way(value))


@WAYS
def test_identity(way: Any) -> None:
    inner, text, data, pair, instance = [1], "a text", b"bytes", (1, 2), types.Point(1)
    twin = way([inner, inner, text, text, data, data, pair, pair, instance, {"x": inner, text: instance}])
    for i in range(0, 8, 2):
        assert twin[i] is twin[i + 1]
    assert twin[0] is twin[9]["x"] and twin[8] is twin[9]["a text"] and next(k for k in twin[9] if k == "a text") is twin[2]
    equal = [[1], [1], bytearray(b"x"), bytearray(b"x")]
    twin = way(equal)
    assert twin[0] is not twin[1] and twin[2] is not twin[3]


@WAYS
def test_cycles(way: Any) -> None:
    loop: Any = []
    loop.append(loop)
    twin = way(loop)
    assert twin[0] is twin and len(twin) == 1

    table: dict[Any, Any] = {}
    table["self"] = table
    twin = way(table)
    assert twin["self"] is twin

    pair: Any = ([], {})
    pair[0].append(pair)
    pair[1]["pair"] = pair
    twin = way(pair)
    assert twin[0][0] is twin and twin[1]["pair"] is twin

    part: Any = slice([], None)
    part.start.append(part)
    twin = way(part)
    assert twin.start[0] is twin

    named = types.Typed("t", [])
    named.value.append(named)  # type: ignore[attr-defined]
    twin = way(named)
    assert twin.value[0] is twin

    node = types.Node()
    node.value = node
    assert (twin := way(node)).value is twin

    slotted = types.Slotted(None)
    slotted.a = [slotted]
    assert (twin := way(slotted)).a[0] is twin


@WAYS
def test_what_hashes_in_a_cycle(way: Any) -> None:
    node = types.Node()
    node.links = {node}
    twin = way(node)
    assert twin.links == {twin}

    table: dict[Any, Any] = {}
    node = types.Node(table)
    table[node] = "the node"
    table["after"] = 2
    twin = way(table)
    assert list(twin.values()) == ["the node", 2] and next(iter(twin)).value is twin and twin[next(iter(twin))] == "the node"

    node = types.Node()
    node.links = frozenset({node, 1})
    twin = way(node)
    assert type(twin.links) is frozenset and twin in twin.links and 1 in twin.links
    twin = way(node.links)
    assert type(twin) is frozenset and next(n for n in twin if n != 1).links is twin

    keyed: Any = types.Keyed([])  # its hash is only there when it is complete
    keyed.key = ("key", 1)
    keyed.other = {keyed: keyed, "x": {keyed}, ("t", keyed): 3}
    for twin in (way(keyed), way([keyed.other])[0][keyed], way({keyed: 1}).popitem()[0]):
        assert (
            list(twin.other) == [twin, "x", ("t", twin)]
            and twin.other[twin] is twin
            and twin in twin.other["x"]
            and twin.other["t", twin] == 3
        )
    inside: Any = {}
    inside[frozenset({(types.Keyed("k", inside),)})] = "value"
    twin = way(inside)
    assert type(next(iter(twin))) is frozenset and twin[frozenset({(types.Keyed("k"),)})] == "value"
    del twin, keyed, inside, node, table
    gc.collect()


@WAYS
def test_deep(way: Any) -> None:
    depth = 100_000
    for wrap in (lambda x: [x], lambda x: (x,), lambda x: {"k": x}, lambda x: types.Node(x), lambda x: [x, x]):
        value: Any = []
        for _ in range(depth):
            value = wrap(value)
        twin = way(value)
        del value
        for _ in range(depth):
            twin = twin["k"] if type(twin) is dict else twin.value if type(twin) is types.Node else twin[-1]
        assert twin == []
    value = 7
    for _ in range(900):
        value = slice(value)
    assert by_bytes(value).stop.stop == value.stop.stop
    for _ in range(101):
        value = slice(value)
    with pytest.raises(ist.CloneError, match="nested more than 1000 deep"):
        way(value)
    value = frozenset()
    for _ in range(200):
        value = frozenset({value})
    assert way(value) == value


def values(children: Any = None) -> Any:
    atoms = (
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False) | st.text() | st.binary()
        | st.dates() | st.times(timezones=st.none() | st.just(dt.UTC)) | st.datetimes() | st.timedeltas() | st.uuids() | st.fractions()
        | st.decimals(allow_nan=False) | st.sampled_from(list(types.Access) + list(types.Colour)) | st.builds(range, st.integers(), st.integers())
    )  # fmt: skip
    hashable = st.recursive(
        atoms, lambda c: st.tuples(c, c) | st.frozensets(c, max_size=3) | st.builds(types.Frozen, st.text(), st.tuples(c)), max_leaves=5
    )
    return st.recursive(
        hashable | st.binary().map(bytearray),
        lambda c: (
            st.lists(c) | st.dictionaries(hashable, c) | st.sets(hashable) | st.tuples(c, c) | st.builds(types.Point, c, c)
            | st.builds(types.Slotted, c) | st.builds(types.Pair, c, c)
        ),
        max_leaves=30,
    )  # fmt: skip


@given(values())
def test_as_deepcopy(value: Any) -> None:
    expected = copy.deepcopy(value)
    for twin in (ist.clone(value), by_bytes(value)):
        assert (twin == expected and type(twin) is type(expected) and repr(twin) == repr(expected)) or "set" in repr(expected)
    assert ist.clone([value, value])[0] is ist.clone([value, value])[0] or type(value) not in (int, float, str)
    assert value == expected  # nothing happened to it


class Drawn:
    """A graph of lists, dicts, tuples and nodes by hypothesis, with whatever edges."""

    @staticmethod
    def build(kinds: list[int], edges: list[tuple[int, int]]) -> list[Any]:
        made: list[Any] = [[[], {}, set(), types.Node(links=[])][kind] for kind in kinds]
        for a, b in edges:
            source, target = made[a % len(made)], made[b % len(made)]
            if type(source) is list:
                source.append((target, b))
            elif type(source) is dict:
                source[types.Node(target)] = target
            elif type(source) is set:
                source.add(target if type(target) is types.Node else types.Node((target,)))
            else:
                source.links.append(target)
        return made

    @staticmethod
    def shape(root: Any) -> list[Any]:
        """Every object in the order of a walk, as its type and the numbers of what it has; sets' order is nobody's, so they count only."""
        numbers: dict[int, int] = {}
        alive, found, stack = [], [], [root]
        while stack:
            one = stack.pop()
            if id(one) in numbers:
                found.append(numbers[id(one)])
                continue
            numbers[id(one)] = len(numbers)
            alive.append(one)
            if type(one) in (list, tuple):
                inside = list(one)
            elif type(one) is dict:
                inside = [x for pair in one.items() for x in pair]
            elif type(one) is types.Node:
                inside = [one.value, one.links]
            else:
                inside = []
            found.append((type(one).__name__, len(one) if hasattr(one, "__len__") else one if type(one) is int else 0))
            stack.extend(x for x in reversed(inside) if x is not None)
        return found


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_graphs(kinds: list[int], edges: list[tuple[int, int]]) -> None:
    value = Drawn.build(kinds, edges)
    for way in (ist.clone, by_bytes):
        assert Drawn.shape(way(value)) == Drawn.shape(value)
    for one in value:
        if type(one) is set:
            assert len(ist.clone(one)) == len(one)


# ---- exceptions


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        try:
            raise KeyError("context")
        except KeyError:
            raise error from cause
    except BaseException as caught:
        return caught


@WAYS
def test_exceptions(way: Any) -> None:
    error = raised(types.Failure(3, "text"), ValueError("cause", [1]))
    error.add_note("a note")
    types.ran.clear()
    twin = way(error)
    assert types.ran == [] and type(twin) is types.Failure and twin.args == ("3: text",) and twin.code == 3 and twin.__notes__ == ["a note"]
    assert (
        repr(twin.__cause__) == "ValueError('cause', [1])" and repr(twin.__context__) == "KeyError('context')" and twin.__suppress_context__
    )
    assert twin.__traceback__ is None
    twin = way(raised(KeyError("k")))
    assert twin.__cause__ is None and twin.__suppress_context__ and repr(twin.__context__) == "KeyError('context')"
    for same in (
        KeyError("k"), StopIteration(3), SystemExit(4), UnicodeDecodeError("utf8", b"x", 0, 1, "why"), ZeroDivisionError(),
        SyntaxError("m", ("f", 1, 2, "text", 3, 4)), ist.DetachedError("d"), AttributeError("x"), types.Plain and RecursionError("r"),
    ):  # fmt: skip
        twin = way(same)
        assert type(twin) is type(same) and twin.args == same.args and str(twin) == str(same) and twin.__dict__ == same.__dict__
    assert way(StopIteration(3)).value == 3 and way(SystemExit(4)).code == 4


@WAYS
def test_exceptions_that_keep_more_than_their_arguments(way: Any) -> None:
    with pytest.raises(OSError) as caught:
        open("/nothing/there")
    twin = way(caught.value)
    assert (
        type(twin) is FileNotFoundError
        and (twin.errno, twin.filename, twin.filename2) == (2, "/nothing/there", None)
        and str(twin) == str(caught.value)
    )
    with pytest.raises(OSError) as caught:
        os.rename("/nothing/there", "/nothing/here")
    assert way(caught.value).filename2 == "/nothing/here"
    twin = way(types.FileFailure(5, "text", "file"))
    assert type(twin) is types.FileFailure and twin.errno == 5 and twin.filename == "file"
    assert way(OSError("one")).args == ("one",)
    twin = way(ImportError("m", name="n", path="p"))
    assert (twin.name, twin.path, twin.args) == ("n", "p", ("m",))
    assert way(NameError("m", name="n")).name == "n" and way(AttributeError("m", name="n", obj=5)).name == "n"
    group = way(ExceptionGroup("g", [ValueError(1), ExceptionGroup("inner", [raised(KeyError("k"))])]))
    assert (
        group.message == "g"
        and repr(group.exceptions[0]) == "ValueError(1)"
        and repr(group.exceptions[1].exceptions[0].__context__) == "KeyError('context')"
    )


@WAYS
def test_exceptions_in_a_cycle(way: Any) -> None:
    error: Any = ValueError()
    error.args = (error, 1)
    error.me = [error]
    twin = way(error)
    assert twin.args[0] is twin and twin.me[0] is twin
    a, b = ValueError("a"), KeyError("b")
    a.__context__, b.__context__ = b, a
    twin = way(a)
    assert twin.__context__.__context__ is twin
    late: Any = OSError(1, "x")
    late.me = late
    assert (twin := way(late)).me is twin
    late.args = (late,)
    with pytest.raises(ist.CloneError, match="part of itself"):
        way(late)
    chain: Any = None
    for _ in range(900):
        link = ValueError()
        link.__cause__, chain = chain, link
    assert way(chain).__cause__.__cause__ is not None
    for _ in range(101):
        link = ValueError()
        link.__cause__, chain = chain, link
    with pytest.raises(ist.CloneError, match="1000 deep"):
        way(chain)


# ---- classes


def test_a_property_does_not_run() -> None:
    value = types.Hidden(3)
    value.__dict__["twice"] = 5  # behind the property
    types.ran.clear()
    twin = ist.clone(value)
    assert types.ran == [] and twin.__dict__ == {"value": 3, "twice": 5} and twin.twice == 6


def test_a_frozen_dataclass_is_a_key() -> None:
    twin = ist.clone({types.Frozen("a", (1,)): 1, types.Frozen("b"): 2})
    assert twin[types.Frozen("a", (1,))] == 1 and twin[types.Frozen("b")] == 2


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"jobs": [1, 2, 3, {"callback": lambda: 0}]}, "$.jobs[3].callback: <function"),
        ([[object()]], "$[0][0]: object objects can't be cloned"),
        ({"a b": {1: (object(),)}}, "$['a b'][1][0]: "),
        ({(1, object()): 2}, "$<key>[1]: "),
        ({object()}, "$<item>: "),
        (types.Point(1, {"z": object()}), "$.y.z: "),
        (types.Slotted(object()), "$.a: "),
        (types.Pair(1, object()), "$[1]: "),
        (ValueError(1, object()), "$.args[1]: "),
        ({types.Frozen("k"): object()}, "$[<Frozen>]: "),
        (types.MyInt(3), "$: MyInt objects can't be cloned: its class isn't the builtin one"),
        ([types.MyDict()], "$[0]: MyDict objects can't be cloned: its class isn't the builtin one"),
        (types.Wordy((1,)), "$: Wordy objects"),
        (types.Plain(), "$: Plain objects can't be cloned: isthmus.register_type says how"),
        ([].append, "$: <built-in method append of list"),
        (types.Plain().method, "$: method objects"),
        (sys, "$: module objects"),
        ((i for i in ()), "$: generator objects"),
        (type("Local", (), {}), "$: <class 'test_clone.Local'> isn't what test_clone.Local is"),
        (iter([]), "$: list_iterator"),
    ],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_what_cannot_be_cloned(value: Any, path: str) -> None:
    for way in (ist.clone, ist.dumps):
        with pytest.raises(ist.CloneError) as caught:
            way(value)
        assert str(caught.value).startswith(path) and isinstance(caught.value, (ist.Error, TypeError))


def test_a_long_path_is_cut() -> None:
    value: Any = object()
    for _ in range(1000):
        value = [value]
    with pytest.raises(ist.CloneError) as caught:
        ist.clone(value)
    assert len(str(caught.value)) < 400 and str(caught.value).startswith("$[0][0]") and " ... " in str(caught.value)


def test_named_tuples_with_attributes() -> None:
    value = types.Loose(1, 2)
    value.more = 3  # type: ignore[attr-defined]
    with pytest.raises(ist.CloneError, match="attributes besides its fields"):
        ist.clone(value)


# ---- registered types


@pytest.fixture(autouse=True)
def nothing_stays_registered() -> Iterator[None]:
    yield
    with contextlib.suppress(KeyError):
        ist._core._forget_type(types.Money)


@pytest.fixture
def money() -> None:
    ist.register_type(types.Money, lambda m: (m.amount, m.currency), lambda value: types.Money(*value))


@pytest.mark.usefixtures("money")
@WAYS
def test_registered(way: Any) -> None:
    value = types.Money(5, ["EUR"])
    twin = way({"a": value, "b": [value], types.Money(1): value})
    assert twin["a"] == value and twin["a"] is twin["b"][0] is twin[types.Money(1)] and twin["a"].currency is not value.currency


@pytest.mark.usefixtures("money")
def test_registered_in_a_cycle() -> None:
    loop: list[Any] = []
    loop.append(types.Money(loop))
    twin = ist.clone(loop)
    assert twin[0].amount is twin
    with pytest.raises(ist.CloneError, match=r"^\$<encoded>\[0\]\[0\]: the Money here is part of itself"):
        ist.clone(loop[0])
    inside: Any = types.Money(1)
    inside.amount = types.Money(inside)
    with pytest.raises(ist.CloneError, match="part of itself"):
        ist.clone(inside)
    inside.amount = None
    value: Any = 0
    for _ in range(1001):
        value = types.Money(value)
    with pytest.raises(ist.CloneError, match="1000 deep"):
        ist.clone(value)


def test_encode_and_decode_that_fail() -> None:
    def fail(value: Any) -> Any:
        raise ZeroDivisionError("mine")

    a = ist.zeros(3)
    ist.register_type(types.Money, fail, fail)
    with pytest.raises(ZeroDivisionError):
        ist.clone([a, types.Money(1)], transfer=[a])
    ist.register_type(types.Money, lambda m: m.amount, fail)
    with pytest.raises(ZeroDivisionError):
        ist.clone([a, types.Money(1), a], transfer=[a])
    ist.register_type(types.Money, lambda m: object(), fail)
    with pytest.raises(ist.CloneError, match=r"^\$\[1\]<encoded>: object"):
        ist.clone([a, types.Money(1)], transfer=[a])
    assert not a.detached and a.owners == 1 and ist.stats()["in_flight"] == 0


def test_registering() -> None:
    for builtin in (int, list, type(None), ist.SharedArray, memoryview):
        with pytest.raises(ValueError, match="by isthmus itself"):
            ist.register_type(builtin, str, str)
    with pytest.raises(TypeError, match="needs a class, not 5"):
        ist.register_type(5, str, str)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="decode must be callable, not None"):
        ist.register_type(types.Money, str, None)  # type: ignore[arg-type]
    ist.register_type(types.Point, lambda p: p.x, lambda x: types.Point(x, "registered"))
    try:
        assert ist.clone(types.Point(1, 2)) == types.Point(1, "registered")  # goes before the way of dataclasses
    finally:
        ist._core._forget_type(types.Point)
    assert ist.clone(types.Point(1, 2)) == types.Point(1, 2)


# ---- arrays


def test_shared_arrays_go_by_reference() -> None:
    a = ist.array([1.0, 2, 3])
    twin = ist.clone([a, {"a": a}, a[1:], a.toreadonly()])
    assert twin[0] is twin[1]["a"] is not a and a.owners == 4
    twin[0][1] = 20
    assert a[1] == 20 and twin[2].tolist() == [20, 3] and twin[3].readonly and not twin[0].readonly
    b = ist.clone(a)
    assert b is not a and b.segment.id == a.segment.id
    with pytest.raises(ist.CloneError, match=r"^\$\.a: a SharedArray goes by reference"):
        ist.dumps({"a": a})
    a.release()
    with pytest.raises(ist.DetachedError):
        ist.clone([a])


def test_transfer() -> None:
    a, b = ist.array([1, 2]), ist.array([3])
    owner = ist.attach(a.token())
    twin = ist.clone({"x": [a, b, a]}, transfer=(a,))
    assert a.detached and not b.detached and owner.owners == 2 and twin["x"][0].tolist() == [1, 2] and twin["x"][0] is twin["x"][2]
    row = owner[1:]
    twin = ist.clone(row, transfer=[row])
    assert row.detached and not owner.detached and twin.tolist() == [2]


def test_transfers_that_fail_leave_everything() -> None:
    a, b = ist.array([1, 2]), ist.array([3])
    cases: list[tuple[Any, Any, type[Exception], str]] = [
        ([a], [a, b], ValueError, r"transfer\[1\] isn't in the object"),
        ([a], [a, a], ValueError, "twice"),
        ([a], [a, 5], TypeError, r"transfer\[1\] must be a SharedArray, not int"),
        ([a], 5, TypeError, "not iterable"),
        ([a, object()], [a], ist.CloneError, r"\$\[1\]"),
        ([a[:1]], [a], ValueError, "isn't in the object"),
    ]
    for value, transfer, error, text in cases:
        with pytest.raises(error, match=text):
            ist.clone(value, transfer=transfer)
    with memoryview(a):
        with pytest.raises(BufferError, match="1 export"):
            ist.clone([a, b], transfer=[b, a])
    view: list[memoryview] = []
    ist.register_type(types.Money, lambda m: view.append(memoryview(a)), lambda value: types.Money(value))
    with pytest.raises(BufferError, match="1 export"):  # made while the message was
        ist.clone([a, b, types.Money(1)], transfer=[b, a])
    view.clear()
    assert not a.detached and not b.detached and a.owners == b.owners == 1 and ist.stats()["in_flight"] == 0
    b.release()
    with pytest.raises(ist.DetachedError):
        ist.clone([a, b], transfer=[b])


def test_a_transfer_object_in_a_message() -> None:
    t = ist.array([1, 2]).transfer()
    with pytest.raises(ist.CloneError):
        ist.clone([t, object()])
    with pytest.raises(ist.CloneError, match="goes by reference"):
        ist.dumps(t)
    assert not t.detached
    twin = ist.clone([t, t])
    assert t.detached and twin[0] is twin[1] and twin[0].tolist() == [1, 2] and twin[0].owners == 1
    with pytest.raises(ist.DetachedError, match="once"):
        ist.clone(t)
    t = ist.zeros(1).transfer()
    ist.register_type(types.Money, lambda m: t.release(), lambda value: types.Money(value))
    with pytest.raises(ist.DetachedError, match="meanwhile"):
        ist.clone([t, types.Money(1)])
    assert ist.stats()["in_flight"] == 0


@WAYS
def test_memoryviews(way: Any) -> None:
    for view in (
        memoryview(b"abc"),
        memoryview(bytearray(b"abcdef"))[::2],
        memoryview(array.array("d", [1, 2])),
        memoryview(b"abcdef").cast("B", (2, 3)),
        memoryview(b""),
    ):
        twin = way(view)
        assert (
            type(twin) is memoryview
            and twin == view
            and (twin.format, twin.shape, twin.readonly) == (view.format, view.shape, view.readonly)
        )
        if not view.readonly and view.nbytes:
            twin[0] = view[1]
            assert twin != view or view[0] == view[1]
    view.release()
    with pytest.raises(ValueError, match="released"):
        way(view)


@WAYS
def test_ndarrays(way: Any) -> None:
    np = pytest.importorskip("numpy")
    a = np.arange(12.0).reshape(3, 4)
    cases = [
        a, a.T, a[::2], a[:, ::-1], np.array(5), np.zeros((0, 3), "i2"), np.array([1, 2], ">i4"), np.array(["a", "bc"]), np.array([b"x"]), np.array([True]),
        np.array(["2020-01-01"], "M8[D]"), np.array([5], "m8[ns]"), np.zeros(3, [("a", "i4"), ("b", "f8", (2,))]), np.array([1 + 2j], "c8"),
        np.broadcast_to(np.arange(3), (2, 3)), np.arange(300_000), np.float16([1.5]), np.zeros(2, "V3"),
    ]  # fmt: skip
    for value in cases:
        twin = way(value)
        assert type(twin) is np.ndarray and twin.dtype == value.dtype and twin.shape == value.shape and (twin == value).all()
        assert twin.flags.writeable and (twin.flags.fnc or not value.flags.fnc) and not np.shares_memory(twin, value)
    twin = way([a, a, {"a": a}])
    assert twin[0] is twin[1] is twin[2]["a"]
    for value in (np.array([object()]), np.array([[1], "a"], object), np.ma.array([1]), np.matrix([1])):
        with pytest.raises(ist.CloneError):
            way([value])
    for scalar in (np.float64(2.5), np.int8(3), np.str_("x"), np.datetime64("2020-01-01"), np.bool_(True), np.complex64(1j)):
        twin = way([scalar])[0]
        assert type(twin) is type(scalar) and twin == scalar and twin.dtype == scalar.dtype


def test_an_ndarray_is_copied_once() -> None:
    np = pytest.importorskip("numpy")
    a = np.arange(1000.0)
    before = ist.stats()["bytes_copied"]
    twin = ist.clone(a)
    assert ist.stats()["bytes_copied"] - before == a.nbytes and ist.is_shared(twin) and ist.asarray(twin, copy=False).nbytes == a.nbytes


@WAYS
def test_with_a_pickle(way: Any) -> None:
    with pytest.raises(ValueError, match="fallback must be None or \"pickle\", not 'marshal'"):
        ist.clone(1, fallback="marshal")  # type: ignore[call-overload]
    value = {"a": types.MyDict(x=types.MyInt(3)), "b": [decimal.getcontext(), {1}]}
    if way is ist.clone:
        twin = ist.clone(value, fallback="pickle")
        a = ist.array([1, 2])
        inside = ist.clone({"d": types.MyDict(a=a), "a": a}, fallback="pickle")
        assert inside["d"]["a"].segment.id == inside["a"].segment.id == a.segment.id and a.owners == 3
    else:
        data = ist.dumps(value, fallback="pickle")
        with pytest.raises(ist.CloneError, match="a pickle is among it"):
            ist.loads(data)
        twin = ist.loads(data, import_classes=True)
        with pytest.raises(ist.CloneError, match="goes by reference"):
            ist.dumps(types.MyDict(a=ist.zeros(1)), fallback="pickle")
    assert type(twin["a"]) is types.MyDict and type(twin["a"]["x"]) is types.MyInt and twin["a"] == {"x": 3} and twin["b"][1] == {1}
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        ist.clone([lambda: 0], fallback="pickle")


def test_dumps_is_a_buffer_of_the_exact_size() -> None:
    data = ist.dumps([1, "a"])
    assert type(data) is ist.SharedArray and data.dtype == "u1" and data.tobytes() == b"ISTC\x01\0\0\0\x82\x01\x41a" and data.nbytes == 12
    for same in (data, data.tobytes(), bytearray(data), memoryview(data), array.array("B", data.tobytes())):
        assert ist.loads(same) == [1, "a"]
    with pytest.raises(TypeError):
        ist.loads("text")  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        ist.loads(memoryview(bytes(data) * 2)[::2])
    data = ist.dumps([bytes(1 << 20)])
    assert data.nbytes == (1 << 20) + 8 + 1 + 1 + 5


def test_what_is_referred_to_twice_is_written_once() -> None:
    text = "a text of 30 bytes, more or less"
    assert ist.dumps([text] * 1000).nbytes < 1200
    assert ist.dumps([{"key": i, "other": i} for i in range(60)]).nbytes < 60 * 7 + 40


# ---- objects that change meanwhile


@pytest.mark.parametrize("what", ["list", "list shrinks", "dict", "dict other", "set", "key"])
def test_what_encode_changes(what: str) -> None:
    value: Any
    if what.startswith("list"):
        value = [0, types.Money(1), 2]
        change = value.pop if "shrinks" in what else lambda: value.append(3)
    elif what == "set":
        value = {types.Money(1)}
        change = lambda: value.add(3)  # noqa: E731
    elif what == "key":
        value = {types.Money(1): [1], "x": 2}
        change = value.clear
    else:
        value = {"a": types.Money(1), "b": 2}
        change = value.clear if what == "dict" else lambda: value.update(c=3)
    ist.register_type(types.Money, lambda m: change(), lambda value: types.Money(value))
    with pytest.raises(RuntimeError, match=r"^\$.*: the (list|dict|set) changed size|changed size during iteration"):
        ist.clone(value)


def test_what_encode_replaces_is_seen_or_not() -> None:
    value: Any = {"a": types.Money(1), "b": [2]}

    def replace(m: types.Money) -> int:
        del value["b"]
        value["c"] = [3]
        gc.collect()
        return 1

    ist.register_type(types.Money, replace, lambda v: types.Money(v))
    twin = ist.clone(value)
    assert set(twin) <= {"a", "b", "c"}
    rows: Any = [[i] for i in range(5)]
    rows[2] = types.Money(1)

    def swap(m: types.Money) -> Any:
        rows[:] = [[object] for _ in range(5)]
        gc.collect()
        return [list(range(100))]

    ist.register_type(types.Money, swap, lambda v: types.Money(v))
    assert ist.clone(rows)[4] == [object]


def test_threads_that_change_it() -> None:
    """Whatever comes of it, it is an error or something that was there."""
    shared: dict[str, Any] = {"list": list(range(50)), "dict": {}}
    stop = threading.Event()

    def change() -> None:
        i = 0
        while not stop.is_set():
            i += 1
            shared["list"].append(i)
            shared["dict"][i % 50] = [i]
            shared["dict"].pop((i * 7) % 50, None)
            del shared["list"][: len(shared["list"]) - 50]

    ist.register_type(types.Money, lambda m: sum(range(200)), lambda value: types.Money(value))
    thread = threading.Thread(target=change)
    thread.start()
    value = [shared, [types.Money(i) for i in range(20)], shared]
    failed = 0
    try:
        for _ in range(300):
            try:
                twin = ist.clone(value)
                assert all(type(i) is int for i in twin[0]["list"])
            except RuntimeError:
                failed += 1
    finally:
        stop.set()
        thread.join()
    assert failed < 300


# ---- interpreters, memory


def test_in_another_interpreter() -> None:
    with Interpreter() as other, Channel() as channel:
        a = ist.zeros(2)
        channel.put(a)
        other.run(
            channel.there
            + """
import isthmus as ist, datetime as dt, decimal, uuid, dataclasses
value = [1, "text", {"a": (2.5, b"x")}, {3}, dt.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=1), "n")), dt.time(1, 2, fold=1),
         dt.date(2020, 2, 3), dt.timedelta(1, 2, 3), dt.timezone.utc, uuid.UUID(int=3), ValueError("x"), dict, len]
twin = ist.clone(value)
assert repr(twin) == repr(value) and type(twin[4]) is dt.datetime, twin
assert ist.loads(ist.dumps(value[:10]))[4] == value[4]
assert ist.clone(decimal.Decimal("1.5")) == decimal.Decimal("1.5")
a = get()
twin = ist.clone({"a": a}, transfer=[a])
assert a.detached
twin["a"][1] = 5
del twin
"""
        )
        assert a[1] == 5 and a.owners == 1
        other.run(channel.there + "\nimport isthmus as ist\nput(ist.dumps({'x': [1, 2], 'y': 'text'}))")
        assert ist.loads(channel.get()) == {"x": [1, 2], "y": "text"}


def test_without_datetime_in_c() -> None:
    """As 3.12's interpreters with a GIL of their own have it; the bytes are the same."""
    source = """
import sys
if {hide}: sys.modules["_datetime"] = None
import datetime as dt, isthmus as ist
zone = dt.timezone(dt.timedelta(hours=2), "X")
value = [dt.date(2020, 1, 2), dt.time(1, 2, 3, 4), dt.time(1, 2, 3, 4, tzinfo=dt.timezone.utc, fold=1), dt.datetime(2020, 1, 2, 3, 4, 5, 6), dt.timedelta(-3, 4, 5),
         dt.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=zone, fold=1), dt.timezone.utc, dt.timezone(dt.timedelta(hours=1))]
assert hasattr(dt, "datetime_CAPI") is not {hide}
twin = ist.loads(ist.dumps(value))
assert twin == value and repr(twin) == repr(value)
try:
    ist.loads(bytes.fromhex("4953544301000000d900000000"))
except ist.CloneError as error:
    assert "year" in str(error)
else:
    assert False
print(ist.dumps(value).tobytes().hex())
"""
    assert run_script(source.format(hide=True)) == run_script(source.format(hide=False)) != ""


def test_no_memory() -> None:
    testcapi = pytest.importorskip("_testcapi", reason="this Python ships without _testcapi")
    ist.register_type(types.Money, lambda m: [m.amount], lambda value: types.Money(value))
    a = ist.zeros(3)
    node = types.Node()
    node.links = frozenset({node, (node, 1)})
    value = [
        {"a": [1, 2.5, "text", 10**30], "b": (b"x" * 40_000, "\u20ac", {1, 2}, frozenset({(3,)}))}, a, a[1:], types.Point(1, {}), types.Slotted([1]), types.Pair(1, [2]),
        node, ValueError("x", [1]), OSError(1, "x", "f"), types.Money(5), {i: str(i) for i in range(20)}, [[[[[[[[[[{}]]]]]]]]]], dt.datetime(2020, 1, 2, tzinfo=dt.UTC),
        types.Colour.RED, range(5), slice(1), bytearray(40_000), memoryview(b"abc"), array.array("d", [1]), dict, list(map(str, range(100, 200))),
    ]  # fmt: skip
    ist.clone(value)  # what is loaded at first use
    plain = [x for x in value if type(x) is not ist.SharedArray]
    data = ist.dumps(plain).tobytes()
    t = ist.zeros(1).transfer()
    for make in (
        lambda: ist.clone(value),
        lambda: ist.clone([a, value], transfer=[a]) and None,
        lambda: ist.clone([t, t, 1]),
        lambda: ist.dumps(plain),
        lambda: ist.loads(data),
    ):
        failures, n = 0, 0
        while True:
            error = result = None
            testcapi.set_nomemory(n, n + 1)
            try:
                result = make()
            except MemoryError as caught:
                error = caught
            finally:
                testcapi.remove_mem_hooks()
            done = error is None
            failures += not done
            if not done:
                assert not a.detached and not t.detached, n
            del result, error
            if ist.stats()["in_flight"] != 1 or len(ist.segments()) != 2:
                gc.collect()
            if a.detached:
                a = ist.zeros(3)
                value[1:3] = [a, a[1:]]
            if t.detached:
                t = ist.zeros(1).transfer()
            assert ist.stats()["in_flight"] == 1 and len(ist.segments()) == 2 and a.owners == 1, n
            n += 1
            if done and n > 40:
                break
        assert failures >= 2
    del t, value, plain, a


@pytest.mark.parametrize("what", ["values", "errors", "decoding errors"])
def test_nothing_leaks(what: str) -> None:
    """References, by the count of allocated blocks."""
    if os.environ.get("ISTHMUS_SANITIZER"):
        pytest.skip("the allocator in use doesn't count its blocks")
    good = [
        {"a": [1, "b", (2.5, b"x")]},
        types.Point(1, {"x": {1}}),
        types.Slotted([]),
        types.Pair(1, 2),
        raised(ValueError(1)),
        dt.datetime.now(dt.UTC),
        range(3),
        types.Access(5),
    ]
    damaged = [ist.dumps(good).tobytes()[:-n] for n in range(1, 60)]

    def run() -> None:
        for _ in range(50):
            if what == "values":
                ist.clone(good)
                by_bytes(good)
            elif what == "errors":
                for bad in ([good, object()], {(1, object()): 2}, {object()}, types.Frozen(lambda: 0)):  # type: ignore[arg-type]
                    with pytest.raises(ist.CloneError):
                        ist.clone(bad)
            else:
                for data in damaged:
                    with pytest.raises(ist.CloneError):
                        ist.loads(data)

    growth = []
    for _ in range(5):  # the interpreter's own caches grow now and then: what leaks grows every time
        gc.collect()
        before = sys.getallocatedblocks()
        run()
        gc.collect()
        growth.append(sys.getallocatedblocks() - before)
    assert min(growth) < 20, growth


@pytest.mark.skipif(not os.environ.get("ISTHMUS_FULL"), reason="needs several GiB; ISTHMUS_FULL")
def test_a_gibibyte() -> None:
    data = bytes(1 << 30)
    twin = by_bytes([data, "end"])
    assert len(twin[0]) == 1 << 30 and twin[1] == "end" and twin[0] == data
    text = "\u20ac" * (1 << 28)
    assert ist.clone([text])[0] == text
