"""isthmus.numpy_allocator(): every ndarray's data is a segment. test_numpy_allocator_ends.py has ends, processes and failures."""

import asyncio
import gc
import io
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import isthmus as ist
import pytest

np: Any = pytest.importorskip("numpy")
pytest.importorskip("isthmus._numpy_allocator", reason="this isthmus was built without numpy's headers")

pytestmark = pytest.mark.matrix

handler_name: Any = np._core.multiarray.get_handler_name


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    gc.collect()
    before = ist.segments()  # nothing, unless a test has failed
    yield
    gc.collect()
    assert ist.segments() == [] or before
    assert handler_name() == "default_allocator"


@pytest.fixture(scope="module", autouse=True)
def what_numpy_makes_once_and_keeps() -> None:
    """With the import of its modules, most of it: that is no leak, if it is made under the allocator, but would look like one."""
    for make in MAKERS.values():
        make()
    for view in VIEWS.values():
        view(np.arange(500.0).reshape(20, 25))


@pytest.fixture
def allocator() -> Iterator[None]:
    with ist.numpy_allocator():
        yield


def copied() -> int:
    return ist.stats()["bytes_copied"]


def address(x: Any) -> int:
    """Of the first element, of an ndarray or a SharedArray."""
    return int(np.asarray(x).__array_interface__["data"][0])


def owner(x: Any) -> Any:
    """The ndarray that owns the memory of a view."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def check_shared(x: Any) -> Any:
    """asarray(x, copy=False) is the same memory, in the same layout, and nothing was copied; it is returned."""
    before = copied()
    shared = ist.asarray(x, copy=False)
    assert copied() == before and ist.is_shared(x)
    assert (shared.shape, shared.dtype, shared.readonly) == (x.shape, x.dtype.str, not x.flags.writeable)
    if x.size > 0:  # numpy's own buffers have other strides where an axis has one element
        assert shared.strides == memoryview(x).strides and address(shared) == address(x)
    assert np.array_equal(np.asarray(shared), x, equal_nan=x.dtype.kind in "fc")
    return shared


# ---- whatever makes an ndarray -------------------------------------------------------------------------------------


def saved_and_loaded(save: Callable[[Any, Any], None], x: Any) -> Any:
    file = io.BytesIO()
    save(file, x)
    file.seek(0)
    loaded = np.load(file)
    return loaded if isinstance(loaded, np.ndarray) else loaded["arr_0"]


def from_file(tmp_path: Any) -> Any:
    np.arange(5000.0).tofile(tmp_path / "data")
    return np.fromfile(tmp_path / "data")


def loaded_from_path(tmp_path: Any) -> Any:
    np.save(tmp_path / "data.npy", np.arange(5000).reshape(50, 100))
    return np.load(tmp_path / "data.npy")


MAKERS: dict[str, Callable[[], Any]] = {
    "empty": lambda: np.zeros_like(np.empty((3, 5), "f4")),
    "zeros": lambda: np.zeros((100, 7), "i2"),
    "zeros of 1 MiB": lambda: np.zeros(1 << 20, "u1"),
    "ones": lambda: np.ones((2, 3, 4), "c16"),
    "full": lambda: np.full((4, 4), 7, "u8"),
    "eye": lambda: np.eye(5),
    "0-d": lambda: np.array(5.5),
    "no elements": lambda: np.zeros((3, 0, 2)),
    "bool": lambda: np.arange(10) % 3 == 0,
    "float16": lambda: np.arange(9, dtype="f2"),
    "array of a list": lambda: np.array([[1, 2], [3, 4]]),
    "arange": lambda: np.arange(1000),
    "linspace": lambda: np.linspace(0, 1, 77),
    "meshgrid": lambda: np.meshgrid(np.arange(3), np.arange(4))[0],
    "Fortran order": lambda: np.zeros((3, 4), order="F"),
    "copy": lambda: np.arange(6).reshape(2, 3).T.copy(),
    "astype": lambda: np.arange(6).astype("f4"),
    "arithmetic": lambda: (np.arange(6.0) + 1) * 2,
    "ufunc into out": lambda: np.add(np.ones(4), 1, out=np.empty(4)),
    "reduce": lambda: np.arange(12).reshape(3, 4).sum(axis=0),
    "accumulate": lambda: np.cumsum(np.arange(10)),
    "outer": lambda: np.multiply.outer(np.arange(3), np.arange(4)),
    "matmul": lambda: np.arange(12.0).reshape(3, 4) @ np.arange(12.0).reshape(4, 3),
    "einsum": lambda: np.einsum("ij,kj->ik", np.ones((3, 4)), np.ones((2, 4))),
    "inv": lambda: np.linalg.inv(np.eye(4) * 2),
    "fft": lambda: np.fft.fft(np.arange(64.0)),
    "random": lambda: np.random.default_rng(1).random((10, 10)),
    "concatenate": lambda: np.concatenate([np.arange(3), np.arange(4)]),
    "stack": lambda: np.stack([np.arange(3), np.arange(3)]),
    "where": lambda: np.where(np.arange(5) > 2, 1, 0),
    "nonzero": lambda: np.nonzero(np.arange(5))[0],
    "sort": lambda: np.sort(np.array([3, 1, 2])),
    "argsort": lambda: np.argsort(np.array([3, 1, 2])),
    "unique": lambda: np.unique(np.array([3, 1, 3])),
    "take": lambda: np.take(np.arange(10), [1, 5]),
    "fancy index": lambda: np.arange(10)[[1, 5, 7]],
    "boolean index": lambda: np.arange(10)[np.arange(10) > 4],
    "repeat": lambda: np.repeat(np.arange(3), 3),
    "pad": lambda: np.pad(np.arange(3), 2),
    "fromiter": lambda: np.fromiter(range(3000), "i8"),
    "fromstring": lambda: np.fromstring(" ".join(map(str, range(20000))), sep=" "),
    "fromfunction": lambda: np.fromfunction(lambda i, j: i + j, (3, 4)),
    "loadtxt": lambda: np.loadtxt(io.StringIO("1 2\n3 4")),
    "genfromtxt": lambda: np.genfromtxt(io.StringIO("1,2\n3,4"), delimiter=","),
    "np.load of npy": lambda: saved_and_loaded(np.save, np.arange(5000.0).reshape(50, 100)),
    "np.load of npz": lambda: saved_and_loaded(np.savez, np.arange(50)),
    "np.load of compressed": lambda: saved_and_loaded(np.savez_compressed, np.arange(50)),
    "np.load of Fortran order": lambda: saved_and_loaded(np.save, np.asfortranarray(np.arange(12).reshape(3, 4))),
    "interp": lambda: np.interp([0.5, 1.5], [0, 1, 2], [3.0, 4, 5]),
    "histogram": lambda: np.histogram(np.arange(100.0), 7)[0],
    "piecewise": lambda: np.select([np.arange(5) < 2], [np.arange(5)], 9),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("first", ["ndarray", "SharedArray"])
def test_made_by_numpy(name: str, first: str, allocator: None) -> None:
    x = MAKERS[name]()
    assert handler_name(owner(x)) == "isthmus"
    before = x.tolist()
    shared = check_shared(x)
    assert shared.owners == 2
    if first == "ndarray":
        del x
        gc.collect()
        assert shared.owners == 1 and shared.tolist() == before
        shared.freeze()
    else:
        shared.release()
        assert x.tolist() == before
        assert check_shared(x).owners == 2


@pytest.mark.parametrize("make", [from_file, loaded_from_path])
def test_read_from_a_file(make: Callable[[Any], Any], tmp_path: Any, allocator: None) -> None:
    x = make(tmp_path)
    shared = check_shared(x)
    del x
    assert shared.reshape(-1)[-1] == 4999


# ---- views -----------------------------------------------------------------------------------------------------------


VIEWS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda x: x,
    "slice": lambda x: x[3:9],
    "last row": lambda x: x[-1],
    "step": lambda x: x[::3, 1::2],
    "backwards": lambda x: x[::-1, ::-2],
    "transpose": lambda x: x.T,
    "transpose of a slice": lambda x: x[2:5, ::-1].T,
    "swapaxes of three": lambda x: x.reshape(4, 5, 25)[:, 1:].swapaxes(0, 2),
    "diagonal": lambda x: x[:20, :20].diagonal(),
    "newaxis": lambda x: x[:, None, 4:6],
    "one element": lambda x: x[5:6, 7:8],
    "0-d": lambda x: x[5, 7, ...],
    "reshape": lambda x: x.reshape(-1),
    "broadcast": lambda x: np.broadcast_to(x[0], (3, 25)),
    "other dtype": lambda x: x.view("u1"),
    "parts of complex": lambda x: x.view("c16").imag if x.shape[1] % 2 == 0 else x.reshape(-1).view("c16").imag,
    "as_strided": lambda x: np.lib.stride_tricks.as_strided(x[1:], (3, 3), (8, 8)),
    "sliding_window_view": lambda x: np.lib.stride_tricks.sliding_window_view(x[0], 4),
    "subclass": lambda x: x.view(np.matrix),
    "masked": lambda x: np.ma.masked_array(x, x > 5).data,
    "memoryview": lambda x: np.asarray(memoryview(x)[2:]),
    "read-only": lambda x: np.lib.stride_tricks.as_strided(x[1:], writeable=False),
    "ctypes": lambda x: np.ctypeslib.as_array(np.ctypeslib.as_ctypes(x))[2:, 3:],
    "DLPack": lambda x: np.from_dlpack(x[4:]),
    "frombuffer": lambda x: np.frombuffer(x, "f8", 10, 80),
    "empty slice": lambda x: x[4:4],
    "empty slice at the end": lambda x: x[20:],
    "empty memoryview at the end": lambda x: np.asarray(memoryview(x)[20:]),
    "empty slice of columns": lambda x: x[1:, 25:],
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("first", ["ndarray", "SharedArray"])
def test_view(name: str, first: str, allocator: None) -> None:
    whole = np.arange(500.0).reshape(20, 25).copy()
    neighbour = np.zeros(500)  # an empty slice's address may be its first byte
    view = VIEWS[name](whole)
    shared = check_shared(view)
    assert [s.owners for s in ist.segments() if s.size == whole.nbytes and s.id == shared.segment.id] == [2]
    assert ist.asarray(neighbour, copy=False).owners == 2
    if view.flags.writeable and view.size > 0:
        at = (-1,) * view.ndim
        shared[at] = 1234.5 if view.dtype.kind == "f" else 77
        assert view[at] == shared[at]
    before = view.tolist()
    if first == "ndarray":
        del whole, view
        gc.collect()
        assert shared.owners == 1 and shared.tolist() == before
    else:
        shared.release()
        assert view.tolist() == before


def test_far_into_a_large_array(allocator: None) -> None:
    x = np.zeros(64 << 20, "u1")
    for start in (0, 1, 4095, 4096, 5 << 20, (64 << 20) - 1):
        view = x[start:]
        assert address(check_shared(view)) == address(x) + start
    assert address(check_shared(x[:: -(16 << 20)])) == address(x) + (64 << 20) - 1


def test_a_view_of_a_shared_arrays_ndarray_goes_back_to_it(allocator: None) -> None:
    a = ist.zeros((4, 5))
    view = np.asarray(a)[1:, ::2]
    shared = check_shared(view)
    assert a.owners == 1  # a view of a's own, as without the allocator
    shared[0, 0] = 5
    assert a[1, 0] == 5


def test_what_was_made_before_is_copied_or_refused() -> None:
    x = np.arange(10)
    with ist.numpy_allocator():
        y = x[2:]
        assert not ist.is_shared(y)
        with pytest.raises(ValueError, match=r"the memory of this numpy\.ndarray belongs to no segment"):
            ist.asarray(y, copy=False)
        copy = ist.asarray(y)
        copy[0] = 99
        assert x[2] == 2
        z = x * 2
    assert check_shared(z).tolist() == list(range(0, 20, 2))  # made inside, used outside


def test_every_dtype(allocator: None) -> None:
    marker = object()
    count = sys.getrefcount(marker)
    objects = np.array([marker, None, [1]] * 100, object)
    assert handler_name(objects) == "isthmus" and sys.getrefcount(marker) == count + 100
    objects.resize(600)
    assert objects[599] == 0
    objects[1:200] = marker
    del objects
    gc.collect()
    assert sys.getrefcount(marker) == count
    for x in (np.array(["a", "bc"]), np.array([b"a"]), np.zeros(3, [("x", "f4"), ("y", "i8")]), np.array(["2020-01-01"], "M8[D]")):
        assert handler_name(x) == "isthmus"
        a = ist.asarray(x, copy=False)
        assert a.dtype == x.dtype and a.tolist() == x.tolist() and a.owners == 2
    record = np.zeros(30, [("x", "f4"), ("y", "f8")])
    assert check_shared(record["y"][3:]).strides == (12,)
    strings = np.array(["a" * 100, "b"] * 50, np.dtypes.StringDType()) if hasattr(np.dtypes, "StringDType") else None
    assert strings is None or strings[1] + strings[98] == "b" + "a" * 100
    for refused in (np.array([None] * 3, object), strings):
        if refused is not None:
            with pytest.raises((TypeError, ValueError)):
                ist.asarray(refused, copy=False)


# ---- lifetimes and owners ----------------------------------------------------------------------------------------------


def test_an_ndarray_is_an_owner(allocator: None) -> None:
    x = np.arange(10)
    shared = ist.asarray(x, copy=False)
    with pytest.raises(BufferError):
        shared.freeze()
    readonly = shared.toreadonly()
    shared.release()
    copy = readonly.make_writable()
    assert copy is not readonly and address(copy) != address(x)
    x[0] = 5
    assert readonly[0] == 5 and copy[0] == 0
    del x, readonly
    shared = ist.asarray(np.arange(10), copy=False)
    assert shared.owners == 1 and shared.freeze().frozen
    assert shared.make_writable() is shared and not shared.readonly


def test_several_owners(allocator: None) -> None:
    x = np.arange(10)
    several = [ist.asarray(x[i:], copy=False) for i in range(5)]
    assert several[0].owners == 6 and len(ist.segments()) == 1
    with several[1]:
        pass
    del x
    assert [s.owners for s in ist.segments()] == [4]
    assert several[4].tolist() == [4, 5, 6, 7, 8, 9]


def test_an_ndarray_over_a_shared_array_over_an_ndarray(allocator: None) -> None:
    x = np.arange(10)
    shared = ist.asarray(x, copy=False)
    y = np.asarray(shared)
    shared.release()
    del x, shared
    gc.collect()
    assert y.tolist() == list(range(10)) and address(check_shared(y[3:])) == address(y) + 24


def test_readonly(allocator: None) -> None:
    x = np.arange(10)
    x.flags.writeable = False
    shared = check_shared(x)
    with pytest.raises(ValueError):
        shared[0] = 1


def test_tokens_and_leases_of_it(allocator: None) -> None:
    x = np.arange(10.0)
    shared = ist.asarray(x[5:], copy=False)
    attached = ist.attach(shared.token())
    shared.release()
    del x
    assert attached.tolist() == [5, 6, 7, 8, 9]
    token = attached.token()
    attached.release()
    with pytest.raises(ist.SegmentGoneError):
        ist.attach(token)


# ---- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "f8", object])
def test_resize(dtype: Any, allocator: None) -> None:
    x = np.arange(100).astype(dtype)
    for n in (101, 10, 5000, 100_000, 3, 1 << 20, 0, 7):
        before = x.tolist()
        x.resize(n, refcheck=False)
        assert handler_name(x) == "isthmus" and x.tolist() == (before + [0] * n)[:n]
        assert len(ist.segments()) == 1 and ist.segments()[0].owners == 1


def test_resize_in_place_where_nobody_else_owns_it(allocator: None) -> None:
    x = np.zeros(1000, "u1")
    at = address(x)
    x.resize(1010, refcheck=False)
    assert address(x) == at and check_shared(x[1005:]).tolist() == [0] * 5


@pytest.mark.parametrize("n", [10, 101, 100_000])
def test_resize_copies_where_somebody_does(n: int, allocator: None) -> None:
    x = np.arange(100)
    shared = ist.asarray(x[:50], copy=False)
    at = address(x)
    x.resize(n, refcheck=False)
    assert address(x) != at and shared.owners == 1 and address(shared) == at
    x[0] = 77
    assert shared.tolist() == list(range(50)) and x[1:10].tolist() == list(range(1, 10))
    assert ist.asarray(x, copy=False).owners == 2


def test_zeros_in_used_memory(allocator: None) -> None:
    for n in [*range(0, 5000, 37), 1 << 16, 1 << 20, 3 << 20]:
        np.empty(n, "u1").fill(0xA5)
        assert not np.zeros(n, "u1").any()


def test_alignment(allocator: None) -> None:
    kept = [np.empty(n, "u1") for n in [*range(0, 3000, 7), 16384, 100_001, 1 << 20]]
    assert all(address(x) % 64 == 0 for x in kept)
    assert all(address(x) % 4096 == 0 for x in kept if x.nbytes >= 16384)
    assert len({address(x) for x in kept}) == len(kept)  # those of no bytes too


# ---- where it holds ----------------------------------------------------------------------------------------------------


def names() -> tuple[str, str]:
    return handler_name(np.empty(3)), handler_name()


def test_with() -> None:
    assert names() == ("default_allocator",) * 2
    with ist.numpy_allocator() as entered:
        assert entered is None and names() == ("isthmus",) * 2
    assert names() == ("default_allocator",) * 2


def test_nested_and_used_again() -> None:
    outer, inner = ist.numpy_allocator(), ist.numpy_allocator()
    for _ in range(3):
        with outer:
            with inner, outer:
                assert names()[0] == "isthmus"
            assert names()[0] == "isthmus"
        assert names()[0] == "default_allocator"


def test_left_by_an_exception() -> None:
    with pytest.raises(KeyError):
        with ist.numpy_allocator():
            x = np.arange(3)
            raise KeyError(1)
    assert names()[0] == "default_allocator" and check_shared(x).tolist() == [0, 1, 2]


def in_thread(call: Callable[[], Any]) -> Any:
    """In a new thread, which begins with numpy's own allocator."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results.pop()


def test_install() -> None:
    def run() -> Any:
        before = names()[0]
        ist.install_numpy_allocator()
        ist.install_numpy_allocator()
        with ist.numpy_allocator():
            pass
        return before, names()[0], np.arange(5)

    *found, x = in_thread(run)
    assert found == ["default_allocator", "isthmus"] and names()[0] == "default_allocator"
    assert check_shared(x).tolist() == [0, 1, 2, 3, 4]  # its thread has ended


def test_a_thread_begins_without(allocator: None) -> None:
    if getattr(sys.flags, "thread_inherit_context", False):
        pytest.skip("here threads inherit their maker's context, and with it the allocator")
    assert in_thread(names)[0] == "default_allocator"
    assert names()[0] == "isthmus"


def test_asyncio_tasks() -> None:
    async def with_it(entered: asyncio.Event, left: asyncio.Event) -> Any:
        with ist.numpy_allocator():
            entered.set()
            await left.wait()
            return names()[0], np.arange(3)

    async def without(entered: asyncio.Event, left: asyncio.Event) -> str:
        await entered.wait()
        left.set()
        return names()[0]

    async def main() -> Any:
        entered, left = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(with_it(entered, left), without(entered, left))

    (name, x), other = asyncio.run(main())
    assert (name, other) == ("isthmus", "default_allocator") and check_shared(x).owners == 2


def test_other_handlers_are_put_back(allocator: None) -> None:
    """Whatever was there before comes back, and what isn't a handler is refused."""
    from isthmus import _numpy_allocator as module

    ours = module.set_handler(None)
    with ist.numpy_allocator():
        pass
    assert module.is_set() and module.set_handler(ours) is not None
    for wrong in (1, "isthmus", object()):
        with pytest.raises(TypeError, match="a memory handler of numpy's or None, not"):
            module.set_handler(wrong)


# ---- threads -----------------------------------------------------------------------------------------------------------


def test_let_go_in_another_thread(allocator: None) -> None:
    kept = [[np.arange(n), ist.asarray(np.arange(n), copy=False)] for n in range(1, 3000, 50)]
    assert len(ist.segments()) == 2 * len(kept)

    def clear() -> None:
        for pair in kept:
            assert pair[0].tolist() == pair[1].tolist()
            pair.clear()

    in_thread(clear)
    assert ist.segments() == []


def test_many_threads() -> None:
    """Each makes, resizes, passes on and drops arrays; what somebody gets has its maker's content."""
    import random

    passed: list[tuple[Any, int]] = []
    seed = random.randrange(1 << 32)
    print("seed", seed)

    def check(x: Any, tag: int) -> None:
        assert len(x) == 0 or (x[0] == x[-1] == tag and np.asarray(x).min() == np.asarray(x).max() == tag)

    def run(number: int) -> int:
        choose = random.Random(seed + number)
        ist.install_numpy_allocator()
        own: list[tuple[Any, int]] = []
        for _ in range(1500):
            n, tag = int(2 ** choose.uniform(0, 16)), choose.randrange(100)
            x = np.full(n, tag)
            match choose.randrange(6):
                case 0:
                    own.append((x, tag))
                case 1:
                    own.append((ist.asarray(x[n // 3 :], copy=False), tag))
                case 2:
                    x.resize(n // 2 + 1, refcheck=False)
                    passed.append((x, tag))
                case 3:
                    passed.append((ist.asarray(x[::-1], copy=False), tag))
                case 4:
                    x = np.fromstring(f"{tag} " * (n % 3000 + 1), dtype="i8", sep=" ")  # grows, without the GIL
                    own.append((x, tag))
            for kept in (own, passed):
                if len(kept) > 30:
                    try:
                        check(*kept.pop(choose.randrange(20)))
                    except IndexError:
                        pass  # others took it
        for pair in own:
            check(*pair)
        return number

    done: list[int] = []
    workers = [threading.Thread(target=lambda i=i: done.append(run(i))) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(done) == [0, 1, 2, 3]
    for pair in passed:
        check(*pair)
