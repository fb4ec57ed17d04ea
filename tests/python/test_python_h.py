"""<isthmus/python.h>: an extension module of somebody else (examples/extensions/c/decimals.c) whose type shares memory.

In this interpreter, in several, in pools of every kind, by CPython's executor, with failing allocations, and with messages that aren't what
it put.
"""

import concurrent.futures
import copy
import gc
import pickle
import sys
from pathlib import Path
from typing import Any

import isthmus as ist
import pytest
from allocations import fails_at
from carriers import run_script

pytestmark = pytest.mark.matrix

BUILT = Path(ist.__file__).parents[2] / "tests" / "ext"
if not BUILT.is_dir():
    pytest.skip("the extension is part of the tests' build", allow_module_level=True)
sys.path.append(str(BUILT))

import decimals  # type: ignore[import-not-found]  # noqa: E402
import ext_tasks as tasks  # noqa: E402 it imports decimals

DEADLINE = 120


@pytest.fixture(autouse=True)
def every_payload_is_destroyed_once():
    yield
    gc.collect()
    made, destroyed = decimals.count_payloads()
    assert made == destroyed


def values(column: Any) -> list[int]:
    return [column[i] for i in range(len(column))]


either = pytest.mark.parametrize("heap", [False, True], ids=["wrapped", "heap"])


def a_column(heap: bool) -> Any:
    return decimals.Column([100, -25, 7], 2, heap=heap)


@either
def test_what_it_is(heap: bool) -> None:
    column = a_column(heap)
    assert values(column) == [100, -25, 7] and column.scale == 2
    with pytest.raises(OverflowError):
        decimals.Column([1 << 64], 0)
    assert values(decimals.Column([], 5)) == []


@either
def test_its_memory_is_an_array(heap: bool) -> None:
    column = a_column(heap)
    a = column.array()
    assert a.tolist() == [100, -25, 7] and a.dtype == "i8"
    a[0] = 5
    assert column[0] == 5
    again = decimals.Column.of(a, 1)
    again[1] = 6
    assert values(column) == [5, 6, 7] and a.owners == 3
    del column
    a.release()
    assert values(again) == [5, 6, 7]


def test_what_is_no_column() -> None:
    a = ist.zeros(4, "i8")
    released = ist.zeros(1, "i8")
    released.release()
    for wrong, error, text in (
        (a[1:], ValueError, "not a part"),
        (a[::2], ValueError, "not a part"),
        (ist.zeros(2, "f8"), ValueError, "<f8"),
        (ist.zeros((2, 2), "i8"), ValueError, "not a part"),
        (released, ist.DetachedError, "released"),
        (b"12345678", TypeError, "a SharedArray is needed, not bytes"),
    ):
        with pytest.raises(error, match=text):
            decimals.Column.of(wrong, 0)
    grown = ist.zeros(2, "i8", max_length=10)
    grown.grow(3)
    with pytest.raises(ValueError, match="not a part"):
        decimals.Column.of(grown, 0)
    assert a.owners == 1


@either
def test_a_clone_has_the_same_memory(heap: bool) -> None:
    column = a_column(heap)
    twin = ist.clone([column, column, {"again": column}])
    assert twin[0] is twin[1] is twin[2]["again"] and type(twin[0]) is decimals.Column and twin[0].scale == 2
    twin[0][1] = 4
    assert column[1] == 4
    with pytest.raises(ist.CloneError, match=r"\$\[0\]<encoded>\[0\]: a SharedArray goes by reference"):
        ist.dumps([column])


@either
def test_pickles_are_references(heap: bool) -> None:
    column = a_column(heap)
    back = pickle.loads(pickle.dumps(column))
    back[0] = 9
    assert column[0] == 9 and back.scale == 2
    copied = copy.deepcopy(column)
    copied[0] = 1
    assert column[0] == 9


@pytest.mark.parametrize("kind", ["interpreter", "process", "thread"])
def test_through_pools(kind: str) -> None:
    column = decimals.Column(range(10), 3, heap=True)
    with ist.WorkerPool(2, kind) as pool:
        back, total, scale = pool.submit(tasks.add_one, {"deep": [column]}).result(DEADLINE)
        assert (total, scale) == (55, 3) and values(column) == values(back) == list(range(1, 11))
        made = pool.submit(tasks.make, [5, 6]).result(DEADLINE)
        assert list(pool.map(tasks.total, [column, made] * 10)) == [55, 11] * 10
    assert values(made) == [5, 6], "it outlives the worker that made it"


def test_wrapped_memory_goes_to_interpreters_and_not_to_processes() -> None:
    column = decimals.Column([1, 2], 0)
    with ist.WorkerPool(1) as pool:
        pool.submit(tasks.add_one, [column]).result(DEADLINE)
        assert values(column) == [2, 3]
        made = pool.submit(tasks.make_wrapped, [4]).result(DEADLINE)
    assert values(made) == [4], "its destructor is called when it goes here"
    with ist.WorkerPool(1, "process") as pool, pytest.raises(ist.SegmentGoneError, match=r"send isthmus\.array"):
        pool.submit(tasks.total, column).result(DEADLINE)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="InterpreterPoolExecutor came with 3.14")
def test_through_cpythons_executor() -> None:
    column = decimals.Column([1, 2], 0)
    with concurrent.futures.InterpreterPoolExecutor(1) as pool:
        pool.submit(exec, f"import sys; sys.path[:] = {sys.path!r}").result(DEADLINE)
        assert pool.submit(tasks.total, column).result(DEADLINE) == 3
        back, _, _ = pool.submit(tasks.add_one, [column]).result(DEADLINE)
    back[0] = 7
    assert values(column) == [7, 3]


def test_many_interpreters_at_once() -> None:
    """Each registers the type for itself; payloads are let go of wherever that is."""
    columns = [decimals.Column([i] * 100, i) for i in range(8)]
    with ist.WorkerPool(4) as pool:
        for _ in range(5):
            totals = [pool.submit(tasks.total, columns[i]) for i in range(8)]
            assert [f.result(DEADLINE) for f in totals] == [100 * i for i in range(8)]
        kept = [pool.submit(tasks.keep, decimals.Column([i], 0)) for i in range(8)]
        assert [f.result(DEADLINE) for f in kept] == list(range(8))


# ---- what goes wrong


WRONG = {  # what is put, in the place of (segment, bytes): parts
    "no tuple": ("5", "is made of a tuple, not of int"),
    "nothing": ("()", "item 0 of 0, which should be a segment"),
    "no segment": ("(b'', parts[1])", "item 0 should be a segment, not bytes"),
    "no bytes": ("(parts[0], 'x')", "item 1 should be bytes, not str"),
    "cut off": ("(parts[0], parts[1][:2])", "not a column of decimals"),
    "a segment of 3 bytes": ("(ist.zeros(3, 'u1'), parts[1])", "not a column of decimals"),
    "too much": ("(*parts, None)", "is made of 2 items, and 3 are there"),
}


@pytest.mark.parametrize("how", WRONG)
def test_messages_that_are_something_else(how: str) -> None:
    """The same name and other parts: of somebody who has told isthmus otherwise of it."""
    put, text = WRONG[how]
    source = f"""
        import sys
        sys.path.append({str(BUILT)!r})
        import isthmus as ist, decimals
        from isthmus import _core

        class Column:  # another type of that name, registered from Python
            pass
        Column.__module__, Column.__qualname__ = "decimals", "Column"

        parts = (ist.array([1, 2], "i8").view("u1"), (3).to_bytes(4, "little"))
        ist.register_type(Column, lambda self: {put}, lambda value: value)
        column = Column()
        message = _core._encode((column,), ("it",), False, 0, None)
        _core._forget_type(Column)
        import importlib
        del sys.modules["decimals"]
        decimals = importlib.import_module("decimals")
        for _ in range(2):
            try:
                _core._decode(*message, None)
                print("it was made")
            except Exception as error:
                print(type(error).__name__, error)
    """
    lines = run_script(source).splitlines()
    assert len(lines) == 2 and all(text in line for line in lines), lines


def test_a_table_that_does_not_fit() -> None:
    source = f"""
        import sys
        sys.path.append({str(BUILT)!r})
        import isthmus, isthmus._core
        isthmus._core._C_API = None
        try:
            import decimals
        except (ImportError, AttributeError) as error:
            print(type(error).__name__)
    """
    assert run_script(source).strip() in ("ImportError", "AttributeError")


@pytest.mark.parametrize("what", ["make", "clone", "array", "of", "register"])
def test_failing_allocations(what: str) -> None:
    column = decimals.Column([1, 2, 3], 2)
    array = column.array()
    operations = {
        "make": lambda: decimals.Column([1, 2, 3], 2),
        "clone": lambda: ist.clone([column]),
        "array": lambda: column.array(),
        "of": lambda: decimals.Column.of(array, 2),
        "register": lambda: decimals.register_again(),
    }
    operation = operations[what]
    operation()
    failures = n = 0
    quiet = 0
    while quiet < 3:
        failed = fails_at(n, operation, MemoryError)
        failures += failed
        quiet = 0 if failed else quiet + 1
        n += 1
        assert array.owners == 2, n
        assert ist.stats()["in_flight"] == 0
    assert failures > 0
