"""Reductions: numpy's values, result types, NaNs and errors, on every layout; and what happens while the GIL is dropped."""

import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import isthmus as ist
import pytest
from carriers import Interpreter
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.matrix

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
NAMES = ["sum", "min", "max", "mean", "argmin", "argmax", "any", "all", "count_nonzero"]
EXACT = {"min", "max", "argmin", "argmax", "any", "all", "count_nonzero"}


def check(a: Any, n: Any) -> None:
    numpy = pytest.importorskip("numpy")
    for name in NAMES:
        if n.size == 0 and name in ("min", "max", "argmin", "argmax", "mean"):
            continue
        with numpy.errstate(all="ignore"):
            theirs = numpy.count_nonzero(n) if name == "count_nonzero" else getattr(n, name)()
        ours = getattr(a, name)()
        expected = theirs.item() if hasattr(theirs, "item") else theirs
        assert type(ours) is type(expected), (name, n.dtype)
        if name in EXACT or (n.dtype.kind in "bui" and name == "sum"):
            assert ours == expected or (ours != ours and expected != expected), (name, n.dtype, n.shape)
        elif not numpy.allclose(ours, expected, rtol={2: 4e-3, 4: 1e-5}.get(n.real.itemsize, 1e-12), atol=1e-6, equal_nan=True):
            exact = n.astype("c16" if n.dtype.kind == "c" else "f8")
            with numpy.errstate(all="ignore"):
                better = getattr(exact, name)().item()
            assert not math.isfinite(abs(better)) or abs(ours - better) <= abs(expected - better), (name, n.dtype, ours, expected, better)


def values(numpy: Any, dtype: str, size: int, seed: int) -> Any:
    rng = numpy.random.default_rng(seed)
    kind = numpy.dtype(dtype).kind
    if kind == "b":
        return rng.integers(0, 2, size).astype("?")
    if kind in "iu":
        info = numpy.iinfo(dtype)
        return rng.integers(info.min, info.max, size, dtype=dtype, endpoint=True)
    n = rng.standard_normal(size).astype(dtype)
    if kind == "c":
        n = n + (1j * rng.standard_normal(size)).astype(dtype)
    return n


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 31, 33, 127, 128, 129, 1000, 1024, 1025, 5000, 16384, 16385, 70001])
def test_like_numpy(dtype: str, size: int) -> None:
    numpy = pytest.importorskip("numpy")
    n = values(numpy, dtype, size, size)
    check(ist.array(n), n)
    n[:] = 0
    check(ist.array(n), n)
    n[size // 2] = 1
    check(ist.array(n), n)
    n[:] = 1
    n[-1] = 0
    check(ist.array(n), n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout(dtype: str) -> None:
    numpy = pytest.importorskip("numpy")
    n = values(numpy, dtype, 7 * 11 * 13, 3).reshape(7, 11, 13)
    a = ist.array(n)
    for key in (
        (),
        slice(None, None, -1),
        (slice(1, 5), slice(None, None, 2)),
        (..., 3),
        (..., slice(None, None, -3)),
        (2, None, 5, 6),
        (slice(0),),
    ):
        check(a[key] if key != (2, None, 5, 6) else a[2, None, 5, 6:7], n[key] if key != (2, None, 5, 6) else n[2, None, 5, 6:7])
        if not isinstance(n[key], numpy.ndarray):
            continue
    check(a.T, n.T)
    check(a.transpose(1, 0, 2)[::2], n.transpose(1, 0, 2)[::2])
    check(ist.array(n[1, 2, 3]), n[1, 2, 3].reshape(()))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16"])
def test_nans_and_infinities(dtype: str) -> None:
    numpy = pytest.importorskip("numpy")
    nan, inf = float("nan"), float("inf")
    for size in (5, 40, 3000):
        for where in ((0,), (size - 1,), (size // 2, size - 2), ()):
            for special in (nan, inf, -inf, *((complex(1, nan), complex(nan, 1)) if dtype[0] == "c" else ())):
                n = values(numpy, dtype, size, 9)
                for i in where:
                    n[i] = special
                check(ist.array(n), n)
    n = numpy.array([inf, -inf]).astype(dtype)
    check(ist.array(n), n)
    for zeros in ([0.0, -0.0], [-0.0, 0.0]):
        n = numpy.array(zeros).astype(dtype)
        assert (ist.array(n).argmin(), ist.array(n).argmax(), ist.array(n).any()) == (n.argmin(), n.argmax(), False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty(dtype: str) -> None:
    a = ist.zeros((3, 0), dtype)
    assert a.sum() == 0 and a.all() is True and a.any() is False and a.count_nonzero() == 0
    for name in ("min", "max", "argmin", "argmax"):
        with pytest.raises(ValueError, match=r"zero-size|empty"):
            getattr(a, name)()
    with pytest.warns(RuntimeWarning, match="empty"):
        mean = a.mean()
    assert mean != mean


def test_integer_sums_wrap_as_numpys_and_means_do_not() -> None:
    a = ist.full(10, 2**63 - 1, "i8")
    assert a.sum() == (10 * (2**63 - 1) + 2**63) % 2**64 - 2**63 and a.mean() == float(2**63 - 1)
    b = ist.full(10, 2**64 - 1, "u8")
    assert b.sum() == 10 * (2**64 - 1) % 2**64 and b.mean() == float(2**64)
    c = ist.array([-(2**63), 2**63 - 1, 5] * 3000)
    assert c.sum() == 3000 * 4 and abs(c.mean() - 4 / 3) < 1e-9
    assert ist.full(100_000, True).sum() == 100_000 and ist.full(3, True).mean() == 1.0


def test_float_sums_are_accurate() -> None:
    for dtype, limit in (("f4", 1e-6), ("f8", 1e-14)):
        a = ist.full(1_000_001, 0.1, dtype)
        exact = 1_000_001 * a[0]
        assert abs(a.sum() - exact) / exact < limit and abs(a.mean() - a[0]) / a[0] < limit
        assert abs(a[::3].sum() - 333_334 * a[0]) / (333_334 * a[0]) < limit
        assert abs(a[1:].reshape(1000, 1000).T.sum() - 1_000_000 * a[0]) / exact < limit


@given(st.lists(st.floats(width=32) | st.just(0.0), min_size=1, max_size=50), st.sampled_from(["f4", "f8"]))
def test_extremes_of_any_floats(items: list[float], dtype: str) -> None:
    numpy = pytest.importorskip("numpy")
    n = numpy.array(items, dtype)
    a = ist.array(n)
    for name in ("min", "max", "argmin", "argmax", "any", "all"):
        ours, theirs = getattr(a, name)(), getattr(n, name)().item()
        assert ours == theirs or (ours != ours and theirs != theirs)


@pytest.mark.parametrize("name", NAMES)
def test_no_arguments_and_no_released_array(name: str) -> None:
    a = ist.zeros(3)
    with pytest.raises(TypeError):
        getattr(a, name)(0)
    a.release()
    with pytest.raises(ist.DetachedError):
        getattr(a, name)()


def test_release_during_a_reduction_in_another_thread() -> None:
    """The reduction stands on the hold: memory that it reads isn't freed, whenever the release comes."""
    for _ in range(30):
        a = ist.full(400_000, 1, "u1")
        start = threading.Barrier(2)
        sums: list[int] = []

        def work(a: Any = a, start: threading.Barrier = start, sums: list[int] = sums) -> None:
            start.wait()
            try:
                for _ in range(50):
                    sums.append(a.sum())
            except ist.DetachedError:
                pass

        thread = threading.Thread(target=work)
        thread.start()
        start.wait()
        a.release()
        replaced = ist.full(400_000, 2, "u1")
        thread.join()
        assert all(s == 400_000 for s in sums) and replaced.sum() == 800_000
        del a, replaced


@pytest.mark.parametrize(("dtype", "values"), [("f8", "1, 2, float('nan')"), ("i8", "1, 2, 3"), ("M8[s]", "1, 2, None")])
def test_positions_stay_inside_while_somebody_writes(dtype: str, values: str) -> None:
    """What was the least may be gone when its position is looked for."""
    a, stop = ist.zeros(1000, dtype), ist.zeros(1, "u1")
    with Interpreter() as other:
        other.run(f"import isthmus as ist; a, stop = ist.attach({a.token()!r}), ist.attach({stop.token()!r})")
        source = f"while not stop[0]:\n    for x in ({values}):\n        a.fill(x)"
        thread = threading.Thread(target=other.run, args=(source,))
        thread.start()
        try:
            positions = {f() for _ in range(20_000) for f in (a.argmin, a.argmax)}
        finally:
            stop[0] = 1
            thread.join()
    assert max(positions) < 1000


@pytest.mark.parametrize("work", ["sum", "tobytes", "copy", "fill", "assign", "=="])
def test_large_work_lets_other_threads_run(work: str) -> None:
    a, b = ist.zeros((3000, 3000), "u1"), ist.zeros((3000, 3000), "u1")
    does: dict[str, Callable[[], Any]] = {
        "sum": a.sum,
        "tobytes": a.tobytes,
        "copy": a.copy,
        "fill": lambda: a.fill(1),
        "assign": lambda: a.__setitem__(..., b.T),
        "==": lambda: a == b,
    }
    ran = threading.Event()
    gate = threading.Lock()
    gate.acquire()

    def run() -> None:
        with gate:
            ran.set()

    thread = threading.Thread(target=run)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # who holds the GIL keeps it, unless it is given away
    try:
        gate.release()
        for _ in range(1000):
            does[work]()
            if ran.is_set():
                break
        assert ran.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()
