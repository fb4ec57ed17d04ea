"""Who has the memory: release, views, exports, pins, freeze, make_writable, fork.

The numbers A1 … are the invariants of pybuffer/README.md.
"""

import ctypes
import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from typing import Any

import isthmus as ist
import pytest
from allocations import fails_at

pytestmark = pytest.mark.matrix


def alive(a_id: int) -> bool:
    return any(s.id == a_id for s in ist.segments())


# ---- release (A1, A2, A3) ---------------------------------------------------------------------------------------------


def test_release_frees_at_once_and_is_idempotent() -> None:
    a = ist.zeros(3)
    number = a.segment.id
    assert alive(number) and not a.detached
    a.release()
    assert not alive(number) and a.detached
    a.release()
    with pytest.raises(ist.DetachedError):
        with a:
            pass
    assert ist.stats()["misuses"] == 0


def test_dropping_frees() -> None:
    a = ist.zeros(3)
    view = a[1:]
    number = a.segment.id
    del a
    assert alive(number) and view.tolist() == [0, 0]
    del view
    assert not alive(number)


def test_with() -> None:
    with ist.zeros(3) as a:
        assert a.sum() == 0
    assert a.detached
    with pytest.raises(ZeroDivisionError):
        with ist.zeros(3) as b:
            raise ZeroDivisionError
    assert b.detached


USES: dict[str, Callable[[Any], Any]] = {
    "shape": lambda a: a.shape,
    "strides": lambda a: a.strides,
    "ndim": lambda a: a.ndim,
    "size": lambda a: a.size,
    "nbytes": lambda a: a.nbytes,
    "itemsize": lambda a: a.itemsize,
    "dtype": lambda a: a.dtype,
    "format": lambda a: a.format,
    "readonly": lambda a: a.readonly,
    "frozen": lambda a: a.frozen,
    "T": lambda a: a.T,
    "c_contiguous": lambda a: a.c_contiguous,
    "data": lambda a: a.data,
    "address": lambda a: a.address,
    "owners": lambda a: a.owners,
    "segment": lambda a: a.segment,
    "interface": lambda a: a.__array_interface__,
    "get": lambda a: a[0],
    "slice": lambda a: a[1:],
    "tuple": lambda a: a[0, ...],
    "set": lambda a: a.__setitem__(0, 1),
    "set slice": lambda a: a.__setitem__(slice(None), [1, 2, 3]),
    "len": len,
    "iter": iter,
    "in": lambda a: 1 in a,
    "bool": lambda a: bool(a[:1]),
    "tolist": lambda a: a.tolist(),
    "tobytes": lambda a: a.tobytes(),
    "copy": lambda a: a.copy(),
    "fill": lambda a: a.fill(0),
    "reshape": lambda a: a.reshape(3, 1),
    "ravel": lambda a: a.ravel(),
    "transpose": lambda a: a.transpose(),
    "view": lambda a: a.view("u1"),
    "cast": lambda a: a.cast("B"),
    "sum": lambda a: a.sum(),
    "argmax": lambda a: a.argmax(),
    "all": lambda a: a.all(),
    "freeze": lambda a: a.freeze(),
    "toreadonly": lambda a: a.toreadonly(),
    "make_writable": lambda a: a.make_writable(),
    "enter": lambda a: a.__enter__(),
    "memoryview": memoryview,
    "bytes": bytes,
    "asarray": ist.asarray,
    "array": ist.array,
    "empty_like": ist.empty_like,
    "fill with": lambda a: ist.zeros(3).fill(a),
    "token": lambda a: a.token(),
    "reduce": lambda a: a.__reduce__(),
    "in a list": lambda a: ist.array([a, a]),
    "hash": hash,
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("made", ["root", "view", "view of a released root"])
def test_any_use_of_a_released_handle_raises(use: str, made: str) -> None:
    root = ist.zeros(3)
    a = root if made == "root" else root[:]
    if made == "view of a released root":
        root.release()
        if use not in ("hash", "reduce"):  # not frozen; leases
            USES[use](a)  # the view is alive
        a.release()
        assert root.detached
        with pytest.raises(ist.DetachedError):
            root.sum()
    a.release()
    with pytest.raises(ist.DetachedError, match="released"):
        USES[use](a)


MORE_USES: dict[str, Callable[[Any], Any]] = {
    "reshape copy": lambda a: a[::-1].reshape(3, 1, copy=True),
    "ravel copy": lambda a: a.reshape(3, 1)[:, ::-1].T.ravel(copy=True),
    "assign from itself": lambda a: a.__setitem__(slice(None), a[::-1]),
    "assign to another": lambda a: ist.zeros((2, 3), "c16").__setitem__(..., a),
    "wrong shape": lambda a: ist.zeros(2).__setitem__(..., a),
    "wrong kind": lambda a: ist.zeros(3, "i4").__setitem__(..., a),
    "wrong dtype": lambda a: ist.array(a, "i4"),
    "no copy": lambda a: ist.asarray(memoryview(a), "f4", copy=False),
    "nested": lambda a: ist.array([[a, a], [a, a[::-1]]]),
    "==": lambda a: (a == a, a == b"", a == a[1:], a == ist.zeros(3, "i4"), a == memoryview(a)),
    "is_shared": lambda a: (ist.is_shared(a), ist.is_shared(memoryview(a))),
    "full": lambda a: ist.full((2, 3), a),
    "zeros_like": lambda a: ist.zeros_like([a, a]),
    "too large": lambda a: a.reshape(4),
    "repr": repr,
    "list": list,
}


@pytest.mark.parametrize("use", sorted({*USES, *MORE_USES} - {"hash", "reduce", "address", "freeze"}))
def test_no_use_leaves_a_hold(use: str) -> None:
    a = ist.zeros(3)
    number = a.segment.id
    for handle in (a, a[:], a.toreadonly()):
        try:
            result = {**USES, **MORE_USES}[use](handle)
        except (ValueError, TypeError, BufferError) as error:
            result = str(error)
        if use != "enter":
            del result
        assert a.segment.exports == 0 and ist.stats()["exports"] == 0
    del handle
    result = None
    a.release()
    assert not alive(number)


def test_a_released_handle_still_says_what_it_was() -> None:
    a = ist.zeros(3)
    a.release()
    assert a.detached and "detached" in repr(a) and sys.getsizeof(a) > 0 and a == a and (a != a) is False and a != ist.zeros(3)
    assert a.__exit__(None, None, None) is None


def test_release_ends_only_its_own_handle() -> None:
    a = ist.array([1, 2, 3])
    view, export, readonly = a[1:], memoryview(a), a.toreadonly()
    number = a.segment.id
    a.release()
    assert view.tolist() == [2, 3] and export.tolist() == [1, 2, 3] and readonly[0] == 1
    export[1] = 9
    further, again = view[:1], memoryview(view)
    assert further.tolist() == [9] and again.tolist() == [9, 3]
    for last in (view, readonly, further):
        last.release()
        assert alive(number)
    export.release()
    assert alive(number)
    again.release()
    assert not alive(number)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1), (0, 3, 1, 2)])
def test_every_order_of_letting_go_frees_once(order: tuple[int, ...]) -> None:
    a = ist.zeros(4)
    view = a[1:]
    number = a.segment.id
    ends = [a.release, view.release, memoryview(a).release, memoryview(view).release]
    for n, i in enumerate(order):
        assert alive(number), n
        ends[i]()
    assert not alive(number) and ist.stats()["misuses"] == 0


def test_a_released_views_owner_stays() -> None:
    a = ist.zeros(3)
    for _ in range(1000):
        a[1:].release()
        with a[1:] as b:
            assert b.shape == (2,)
    assert a.segment.exports == 0 and a.sum() == 0


def test_memory_is_written_to_after_release_by_who_still_holds_it() -> None:
    numpy = pytest.importorskip("numpy")
    for dtype in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"):
        a = ist.zeros(1000, dtype)
        x = numpy.asarray(a)
        a.release()
        others = [ist.full(1000, 0, dtype) for _ in range(4)]
        x[:] = 1
        assert x.sum() == 1000 and not any(o.any() for o in others)


# ---- Python code in the middle (A4) -----------------------------------------------------------------------------------


class Releases:
    """Lets go of an array, and fills memory of its size, where it is asked for a number."""

    def __init__(self, a: Any, value: Any = 0) -> None:
        self.a, self.value, self.others = a, value, []

    def __index__(self) -> int:
        self.a.release()
        self.others: list[Any] = [ist.full(self.size, 255, "u1") for _ in range(8)]
        return int(self.value)

    size = 800

    __float__ = __index__


class ReleasesFloat(Releases):
    def __float__(self) -> float:
        return float(self.__index__())


def test_release_in_the_middle_of_an_index() -> None:
    for use in (
        lambda a, r: a[r],
        lambda a, r: a[r:],
        lambda a, r: a[:r],
        lambda a, r: a[::r],
        lambda a, r: a[r, ...],
        lambda a, r: a[None, r:],
        lambda a, r: a.__setitem__(r, 5),
        lambda a, r: a.__setitem__(slice(r, None), 5),
        lambda a, r: a.__setitem__((r, ...), [5]),
        lambda a, r: a.reshape(r, 10),
        lambda a, r: a.transpose(r),
    ):
        a = ist.zeros(100)
        r = Releases(a, 1)
        with pytest.raises((ist.DetachedError, ValueError)) as caught:
            use(a, r)
        del caught
        assert a.detached and all(o.min() == 255 for o in r.others)


def test_release_in_the_middle_of_a_conversion() -> None:
    for value in (lambda r: r, lambda r: [r, 2.0], lambda r: [[r, 2.0]]):
        for key in (0, slice(0, 2), slice(None, None, 2), ...):
            a = ist.zeros(100)
            r = ReleasesFloat(a, 1)
            with pytest.raises((ist.DetachedError, ValueError)):
                a[key] = value(r)
            with pytest.raises((ist.DetachedError, ValueError)):
                a.fill(r)
            assert all(o.min() == 255 for o in r.others)


def test_release_of_the_source_in_the_middle() -> None:
    a = ist.array([1.0] * 100)
    r = ReleasesFloat(a, 1)
    with pytest.raises(ist.DetachedError):
        ist.array([[r] * 100, a])
    b = ist.array([1.0] * 100)
    keep = b[:]
    result = ist.array([[ReleasesFloat(b, 1)] * 100, keep])
    assert result.sum() == 200


def test_release_in_the_middle_of_in() -> None:
    a = ist.zeros(100)
    number = a.segment.id

    class Compares:
        count = 0

        def __eq__(self, other: object) -> bool:
            a.release()
            assert alive(number)  # the search stands on it
            Compares.count += 1
            return False

    assert Compares() not in a
    assert Compares.count == 100 and not alive(number)


def test_freeze_in_the_middle_of_an_assignment() -> None:
    a = ist.zeros(4)

    class Freezes:
        def __float__(self) -> float:
            a.freeze()
            return 5.0

    for key, value in ((0, Freezes()), (slice(None), Freezes()), (slice(None), [Freezes(), 1, 2, 3])):
        with pytest.raises(ValueError, match="read-only"):
            a[key] = value
        assert a.tolist() == [0, 0, 0, 0] and a.frozen
        a = a.make_writable()
        assert not a.frozen


def test_release_from_other_threads() -> None:
    for _ in range(50):
        a = ist.zeros(5000)
        number = a.segment.id
        views = [a[i:] for i in range(6)] + [a]
        ready = threading.Barrier(len(views))

        def work(v: Any, ready: threading.Barrier = ready) -> None:
            ready.wait()
            try:
                m = memoryview(v)
                v.release()
                m.release()
            except ist.DetachedError:
                v.release()

        threads = [threading.Thread(target=work, args=(v,)) for v in views]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not alive(number)
        del views, a, threads
    assert ist.stats()["misuses"] == 0


# ---- freeze, read-only, make_writable -----------------------------------------------------------------------------------


def test_freeze() -> None:
    a = ist.array([1, 2, 3])
    view, old = a[1:], memoryview(a.toreadonly())
    assert a.freeze() is a and a.frozen and a.readonly and a.segment.frozen and view.readonly and view.frozen and old.readonly
    assert a.freeze() is a and view.freeze() is view
    for x in (a, view, a[:1], a.T, memoryview(a)):
        with pytest.raises((ValueError, TypeError)):
            x[0] = 5
    assert a.tolist() == [1, 2, 3] and a.copy().readonly is False


def test_freeze_says_who_can_still_write() -> None:
    a = ist.zeros(3)
    exports = [memoryview(a)]
    with pytest.raises(BufferError, match="1 writable export in this interpreter"):
        a.freeze()
    exports.append(memoryview(a[1:]))
    with pytest.raises(BufferError, match="2 writable exports in this interpreter"):
        a[:1].freeze()
    a[0] = 1  # nothing has changed
    assert not a.readonly and not a.frozen
    del exports
    other = ist.attach(a.token())
    with pytest.raises(BufferError, match="1 other owner"):
        a.freeze()
    a[0] = 2
    assert other[0] == 2 and not other.readonly
    other.release()
    assert a.freeze().frozen
    b = ist.zeros(3)
    address = b.address
    assert address and b.address == address and b[1:].address == address + 8
    with pytest.raises(BufferError, match="address"):
        b.freeze()
    with memoryview(b):
        with pytest.raises(BufferError, match="1 writable export in this interpreter, and the address"):
            b.freeze()


def test_freeze_needs_a_writable_handle() -> None:
    a = ist.zeros(3)
    with pytest.raises(BufferError, match="read-only view"):
        a.toreadonly().freeze()
    assert ist.zeros((2, 3)).T.freeze().frozen


def test_frozen_is_seen_by_later_owners() -> None:
    a = ist.array([1, 2]).freeze()
    b = ist.attach(a.token())
    assert b.frozen and b.readonly and memoryview(b).readonly and b.owners == 2 and hash(b) == hash(a)


def test_toreadonly() -> None:
    a = ist.zeros(3)
    r = a.toreadonly()
    for x in (
        r,
        r[1:],
        r.T,
        r.view("u1"),
        r.reshape(3, 1),
        r.ravel(),
        r.cast("B"),
        r.toreadonly(),
        r[...],
        ist.asarray(memoryview(r)),
    ):
        assert x.readonly and memoryview(x).readonly and not x.frozen
        with pytest.raises(ValueError, match="read-only"):
            x[...] = 1
    a[0] = 5
    assert r[0] == 5 and not a.readonly and not r.copy().readonly


def test_make_writable_in_place_when_nobody_else_is_there() -> None:
    a = ist.array([1, 2, 3]).freeze()
    number, token = a.segment.id, a.token()
    b = a.make_writable()
    assert b is a and not a.frozen and not a.readonly and a.segment.id == number
    a[0] = 9
    with pytest.raises(ist.SegmentGoneError):  # who has the token was promised 1, 2, 3
        ist.attach(token)
    assert ist.attach(a.token())[0] == 9
    assert a.make_writable() is a


@pytest.mark.parametrize(
    "other",
    [
        lambda a: memoryview(a),
        lambda a: a[1:],
        lambda a: ist.attach(a.token()),
        lambda a: a.address,
        lambda a: a.toreadonly(),
    ],
)
def test_make_writable_copies_when_somebody_is(other: Callable[[Any], Any]) -> None:
    a = ist.array([1, 2, 3]).freeze()
    somebody = other(a)
    b = a.make_writable()
    assert b is not a and b.segment.id != a.segment.id and not b.readonly and b.tolist() == [1, 2, 3] and a.frozen
    b[0] = 9
    assert a[0] == 1 and somebody is not None


def test_make_writable_of_views_copies() -> None:
    a = ist.array([1, 2, 3])
    r = a.toreadonly()
    b = r.make_writable()
    assert b.segment.id != a.segment.id and not b.readonly and r.readonly
    assert a[1:].make_writable().segment.id == a.segment.id


def test_an_address_pins_until_the_owner_goes() -> None:
    a = ist.array([1.5, 2.5])
    address, number = a[1:].address, a.segment.id
    view = a[:]
    a.release()
    view.release()
    assert alive(number) and ctypes.c_double.from_address(address).value == 2.5
    del a
    assert alive(number)  # the released view still keeps its owner
    del view
    assert not alive(number)


# ---- leaks and exceptions half-way --------------------------------------------------------------------------------------


def test_weak_references() -> None:
    a = ist.zeros(3)
    gone: list[int] = []
    refs = weakref.ref(a, lambda _: gone.append(1)), weakref.ref(a[1:])
    assert refs[0]() is a and refs[1]() is None
    del a
    assert refs[0]() is None and gone == [1]
    assert not gc.is_tracked(ist.zeros(3))


def test_failed_constructions_leave_nothing() -> None:
    class Bad:
        def __float__(self) -> float:
            raise ZeroDivisionError

    before = ist.stats()
    for call in (
        lambda: ist.array([1.0] * 1000 + [Bad()]),
        lambda: ist.full(1000, Bad()),
        lambda: ist.full((2, 3), [1, 2]),
        lambda: ist.full(5, None),
        lambda: ist.array(["x", 1]),
        lambda: ist.array([(1, "x")], "i4, f8"),
        lambda: ist.zeros(3, "S5000").fill(object()),
        lambda: ist.array([ist.zeros(3), [1, 2]]),
        lambda: ist.asarray([Bad()]),
        lambda: ist.zeros(3, "i4").__setitem__(slice(None), ist.zeros(3)),
        lambda: ist.array(["12", "x"], "i4"),
        lambda: ist.array(ist.array(["12", "x"]), "f8"),
        lambda: ist.empty(2**45),
        lambda: ist.zeros((2, 3)).reshape(4),
        lambda: ist.zeros(3).__setitem__(slice(None), Bad()),
        lambda: ist.array([1, 2], "u1").fill(300),
    ):
        with pytest.raises((ZeroDivisionError, ValueError, TypeError, MemoryError, OverflowError)):
            call()
    after = ist.stats()
    assert {k: after[k] for k in ("segments", "owners", "exports", "allocated")} == {
        k: before[k] for k in ("segments", "owners", "exports", "allocated")
    }


def test_memory_errors_at_every_allocation() -> None:
    """Each operation, with the n-th allocation of Python's failing: a MemoryError, and nothing left."""
    a = ist.array([[1, 2], [3, 4]])
    operations: list[Callable[[], Any]] = [
        lambda: ist.zeros(3),
        lambda: ist.array([[1, 2.5], [3, 4]]),
        lambda: ist.full(3, 1.5),
        lambda: a[1:],
        lambda: a[0],
        lambda: a.T,
        lambda: memoryview(a),
        lambda: a.tolist(),
        lambda: a.copy(),
        lambda: a.T.ravel(),
        lambda: a.tobytes(),
        lambda: ist.asarray(memoryview(a)),
        lambda: repr(a),
        lambda: a.segment,
        lambda: a.__setitem__(0, [7, 8]),
        lambda: a.view("u1"),
        lambda: a == a.T,
        lambda: ist.array(memoryview(a)),
        lambda: a.toreadonly(),
        lambda: ist.stats(),
        lambda: ist.segments(),
        lambda: list(a),
        lambda: ist.attach(a.token()),
        lambda: hash(a.copy().freeze()),
        lambda: ist.array(a, "S5").tolist(),
        lambda: ist.array(["1", "2.5"], "g").tolist(),
        lambda: ist.array(ist.array([b"1", b"2.5"]), "c16").tolist(),
        lambda: ist.array(ist.array([0.1, 2.5], "f4"), "U"),
        lambda: ist.array(["2026-01-02", "NaT"], "M8"),
        lambda: ist.array([(1, "2")], "f4, i4"),
    ]
    failures = 0
    for operation in operations:
        operation()  # what is made once is there
        before = ist.stats()["segments"], ist.stats()["owners"], ist.stats()["exports"]
        for n in range(200):
            failed = fails_at(n, operation)
            failures += failed
            if not failed and n > 40:
                break
            assert (ist.stats()["segments"], ist.stats()["owners"], ist.stats()["exports"]) == before, n
    print(f"{failures} allocations failed over {len(operations)} operations")
    assert failures > len(operations) // 2 and a.tolist() == [[7, 8], [3, 4]]


# ---- fork (A6) ----------------------------------------------------------------------------------------------------------


def run_script(source: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"ISTHMUS_DOMAIN": ""})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_forked_child_for_which_the_domain_has_no_room() -> None:
    told = run_script(
        """
        import os, gc, isthmus as ist
        ist.configure(max_processes=1)
        a = ist.array([1, 2, 3])
        view, export, frozen, many = a[1:], memoryview(a), ist.zeros(2).freeze(), [ist.zeros(100) for _ in range(100)]
        address = ist.zeros(5); address.address
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for x in (a, view, frozen, address):
                    for use in (lambda: x.shape, lambda: x[0], lambda: memoryview(x), lambda: x.freeze(), lambda: x.make_writable(),
                                lambda: x.token(), lambda: x.sum(), lambda: x.copy(), lambda: x[:], lambda: ist.asarray(x)):
                        try:
                            use()
                        except ist.DetachedError as error:
                            assert "fork" in str(error)
                        else:
                            raise AssertionError
                    assert x.detached and "detached" in repr(x)
                    x.release()
                export.release()
                del x, a, view, export, frozen, many, address
                gc.collect()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert a.tolist() == [1, 2, 3] and view[0] == 2 and export[2] == 3 and len(ist.segments()) == 103 and all(not m.any() for m in many)
        print("done")
        """
    )
    assert told == "done\n"


def test_the_parents_memory_survives_a_child_that_works() -> None:
    told = run_script(
        """
        import os, gc, isthmus as ist
        arrays = [ist.full(n, 7, "u1") for n in (1, 64, 100, 4096, 5000, 70000) for _ in range(50)]
        for a in arrays[::2]:
            a.release()
        pid = os.fork()
        if pid == 0:
            for a in arrays:
                a.release()
            arrays.clear()
            gc.collect()
            kept = []
            for n in range(1, 4097, 5):
                try:
                    kept.append(ist.full(n, 9, "u1"))
                except (ist.Error, MemoryError):
                    pass
            ist.sweep()
            os._exit(0)
        fresh = [ist.full(n, 8, "u1") for n in range(1, 4097, 5)]
        assert os.waitpid(pid, 0)[1] == 0
        assert all(a.min() == a.max() == 7 for a in arrays[1::2]) and all(a.min() == a.max() == 8 for a in fresh)
        print("done")
        """
    )
    assert told == "done\n"


def test_exit_with_everything_alive() -> None:
    told = run_script(
        """
        import isthmus as ist, sys, builtins, atexit, os
        a = ist.zeros(1000); builtins.kept = a; sys.kept = a[1:]; m = memoryview(a)
        class Late:
            def __del__(self):
                try: self.a.sum()
                except (ist.DetachedError, TypeError, AttributeError): pass
        late = Late(); late.a = a; late.me = late
        os.register_at_fork(before=lambda: a.sum())
        atexit.register(lambda: print(a.shape))
        """
    )
    assert told == "(1000,)\n"


def test_the_module_imported_again() -> None:
    a = ist.zeros(3)
    told = run_script(
        """
        import sys, isthmus as ist
        a = ist.array([1, 2, 3]); view = memoryview(a)
        for name in [n for n in sys.modules if n.startswith("isthmus")]:
            del sys.modules[name]
        import isthmus as again
        assert again is not ist and again.SharedArray is not ist.SharedArray
        b = again.asarray(memoryview(a), copy=False)
        assert b.segment.id == a.segment.id and type(b) is again.SharedArray and b.owners == 2
        a[0] = 5
        assert b[0] == 5 and len(again.segments()) == 1
        del ist
        a.release(); view.release()
        assert b.tolist() == [5, 2, 3] and b.owners == 1
        print("done")
        """
    )
    assert told == "done\n" and a.owners == 1 and os.getpid() > 0
