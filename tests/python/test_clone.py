"""Structured clone: what arrives, type by type; identity and cycles; exceptions; what can't be cloned and how that is told."""

import array
import copy
import datetime as dt
import decimal
import fractions
import gc
import math
import os
import pathlib
import sys
import uuid
import zoneinfo
from typing import Any

import clone_types as types
import isthmus as ist
import pytest
from clone_types import WAYS, by_bytes, raised
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.matrix


ATOMS = [
    None,
    True,
    False,
    ...,
    NotImplemented,
    0,
    1,
    63,
    64,
    -1,
    127,
    128,
    -128,
    -129,
    2**15 - 1,
    -(2**15),
    2**31,
    -(2**31) - 1,
    2**62,
    2**63 - 1,
    -(2**63),
    2**63,
    -(2**63) - 1,
    2**64,
    -(2**200),
    10**4000,
    0.0,
    -0.0,
    1.5,
    math.inf,
    -math.inf,
    5e-324,
    1 + 2j,
    complex(-0.0, math.inf),
    "",
    "a",
    "\xe9",
    "\0",
    "x" * 31,
    "x" * 32,
    "x" * 253,
    "x" * 254,
    "x" * 70_000,
    "\xe9" * 40,
    "\u20ac" * 5,
    "\u0100\xe9",
    "\U0001f600a",
    "\ud800",
    b"",
    b"a",
    b"abc",
    b"x" * 300,
    b"x" * 100_000,
    bytearray(),
    bytearray(b"abc"),
    bytearray(100_000),
    range(3),
    range(0, 10**30, 7),
    range(5, 0, -1),
    slice(None),
    slice(1, "a", (2,)),
    dt.date(1, 1, 1),
    dt.date(9999, 12, 31),
    dt.time(),
    dt.time(1, 2, 3, 4),
    dt.time(23, 59, 59, 999_999, fold=1),
    dt.time(1, tzinfo=dt.UTC),
    dt.datetime(1, 1, 1),
    dt.datetime(2026, 11, 28, 3, 4, 5, 6, fold=1),
    dt.datetime(2020, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=-2), "X")),
    dt.datetime(2020, 7, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
    dt.timedelta(-3, 4, 5),
    dt.timedelta.max,
    dt.timedelta.min,
    dt.UTC,
    dt.timezone(dt.timedelta(minutes=1)),
    zoneinfo.ZoneInfo("UTC"),
    decimal.Decimal("1.50"),
    decimal.Decimal("-Infinity"),
    decimal.Decimal("1E+9999"),
    fractions.Fraction(-3, 7),
    fractions.Fraction(10**100),
    uuid.UUID(int=7),
    uuid.uuid1(),
    pathlib.PurePosixPath("/a/b"),
    pathlib.PureWindowsPath("c:/x"),
    pathlib.Path("x"),
    types.Colour.RED,
    types.Colour.BLUE,
    types.Size.SMALL,
    types.Word.HELLO,
    types.Access.READ,
    types.Access.READ | types.Access.RUN,
    types.Access(0),
    types.Bits.ONE | types.Bits.TWO,
    types.Bits(9),
    len,
    dict,
    ValueError,
    copy.deepcopy,
    os.path.join,
    types.function,
    types.Plain,
    types.Plain.Inner,
    types.Plain.static,
    types.Plain.method,
    types.Colour,
    types.Point(1, [2]),
    types.Frozen("n", (1, 2)),
    types.Slotted(1, "b"),
    types.Pair(1, [2]),
    types.Typed("t"),
    types.Loose(1, 2),
    array.array("d", [1.5, 2]),
    array.array("b"),
    array.array("q", range(10_000)),
]


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
        chr(97),  # a literal isn't always, on 3.12
        chr(0xE9),
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
    [],
    [1, [2, [3]]],
    list(range(15)),
    list(range(16)),
    list(range(300)),
    (),
    (1,),
    tuple(range(7)),
    tuple(range(8)),
    (1, (2, (3, []))),
    {},
    {1: 2},
    {"a": {"b": {}}},
    dict.fromkeys(range(15)),
    dict.fromkeys(range(16), "x"),
    {(1, 2): [3], None: 4, 1.5: 5, b"k": 6, frozenset({1}): 7},
    set(),
    {1, "a", (2, 3)},
    frozenset(),
    frozenset({1, frozenset({2, frozenset()})}),
    {frozenset({1}), (1, frozenset({2}))},
    {str(i): i for i in range(5000)},
    {i: -i for i in range(5000)},
    set(range(5000)),
    {(i, str(i)) for i in range(3000)},
]


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
    twin, depth = by_bytes(value), 0
    while type(twin) is slice:
        twin, depth = twin.stop, depth + 1
    assert (twin, depth) == (7, 900)
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
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.complex_numbers(allow_nan=False)
        | st.text()
        | st.binary()
        | st.dates()
        | st.times(timezones=st.none() | st.just(dt.UTC))
        | st.datetimes()
        | st.timedeltas()
        | st.uuids()
        | st.fractions()
        | st.decimals(allow_nan=False)
        | st.sampled_from(list(types.Access) + list(types.Colour))
        | st.builds(range, st.integers(), st.integers())
    )
    hashable = st.recursive(
        atoms, lambda c: st.tuples(c, c) | st.frozensets(c, max_size=3) | st.builds(types.Frozen, st.text(), st.tuples(c)), max_leaves=5
    )
    return st.recursive(
        hashable | st.binary().map(bytearray),
        lambda c: (
            st.lists(c)
            | st.dictionaries(hashable, c)
            | st.sets(hashable)
            | st.tuples(c, c)
            | st.builds(types.Point, c, c)
            | st.builds(types.Slotted, c)
            | st.builds(types.Pair, c, c)
        ),
        max_leaves=30,
    )


@given(values())
def test_as_deepcopy(value: Any) -> None:
    expected = copy.deepcopy(value)
    for twin in (ist.clone(value), by_bytes(value)):
        assert (twin == expected and type(twin) is type(expected) and repr(twin) == repr(expected)) or "set" in repr(expected)
    one, two = ist.clone([value, value])
    assert one is two or type(value) in (int, float, complex)
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
        KeyError("k"),
        StopIteration(3),
        SystemExit(4),
        UnicodeDecodeError("utf8", b"x", 0, 1, "why"),
        ZeroDivisionError(),
        SyntaxError("m", ("f", 1, 2, "text", 3, 4)),
        ist.DetachedError("d"),
        AttributeError("x"),
        types.Plain and RecursionError("r"),
    ):
        twin = way(same)
        assert type(twin) is type(same) and twin.args == same.args and str(twin) == str(same) and twin.__dict__ == same.__dict__
    assert way(StopIteration(3)).value == 3 and way(SystemExit(4)).code == 4


@WAYS
def test_exceptions_that_keep_more_than_their_arguments(way: Any) -> None:
    with pytest.raises(OSError) as caught:
        os.open("/nothing/there", os.O_RDONLY)
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
