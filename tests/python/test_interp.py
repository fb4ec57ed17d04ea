"""The end of an interpreter: what the block's sweep lets go of.

Scripts that leak on purpose run in processes of their own; on 3.12.1, which aborts at exit over some leaks without any isthmus, they leave
by os._exit.
"""

import gc
import operator
import textwrap
import threading

import isthmus
import pytest
from allocations import fails_at
from carriers import Channel, Interpreter, run_script

pytestmark = pytest.mark.matrix

# leak(obj): a reference to obj for ever, by a cycle through a type that the collector doesn't look into.
LEAK = """
import datetime, zlib
class _Bytes(bytes): pass
class _Zone(datetime.tzinfo): pass
def leak(obj):
    one, two = _Bytes(b"x"), _Zone()
    one.obj = two.obj = obj
    one.end, two.end = zlib.decompressobj(zdict=one), datetime.time(tzinfo=two)
"""

PRELUDE = f"""
import datetime, gc, os, sys, weakref, zlib, isthmus
from carriers import Channel, Interpreter
LEAK = {LEAK!r}
def numbered(n):
    a = isthmus.empty(n, "i8")
    for i in range(n):
        a[i] = i
    return a
def done():
    print("done", flush=True)
    if sys.version_info < (3, 13):
        os._exit(0)
"""


def script(source: str) -> None:
    told = run_script(PRELUDE + textwrap.dedent(source))
    assert told.startswith("done\n"), told


@pytest.fixture
def channel():
    with Channel() as made:
        yield made


def test_the_leak_of_these_tests_leaks():
    script(
        """
        class Canary: pass
        exec(LEAK)
        canary = Canary()
        seen = weakref.ref(canary)
        leak(canary)
        del canary
        gc.collect()
        assert seen() is not None
        done()
        """
    )


def test_a_leaked_reference():
    """Neither tp_dealloc nor m_free runs: only the capsule can let go."""
    script(
        """
        a = numbered(4)
        with Channel() as channel:
            with Interpreter() as other:
                channel.put(a)
                channel.put(a)
                other.run(channel.there + LEAK + "b = get(); leak(b); leak(get()[1:3]); del b")
                other.run("import isthmus; leak(isthmus.zeros(1000))")
                assert a.owners == 3 and len(isthmus.segments()) == 2
            assert a.owners == 1 and len(isthmus.segments()) == 1
        assert isthmus.stats()["orphaned"] == 0 and a.tolist() == [0, 1, 2, 3]
        done()
        """
    )


def test_a_leaked_queue():
    script(
        """
        q = isthmus.Queue()
        with Channel() as channel:
            with Interpreter() as other:
                channel.put(q)
                other.run(channel.there + LEAK + "q = get(); leak(q); leak(q.fileno()); del q")
                other.run("import isthmus; leak(isthmus.Queue())")
                assert q.segment.owners == 2 and len(isthmus.segments()) == 2
            assert q.segment.owners == 1 and len(isthmus.segments()) == 1
        assert isthmus.stats()["orphaned"] == 0
        q.put(1)
        assert q.get() == 1
        done()
        """
    )


def test_a_leaked_export_is_counted_and_never_freed_under_its_user():
    script(
        """
        a, b = numbered(4), numbered(5)
        with Channel() as channel:
            with Interpreter() as other:
                channel.put(a)
                channel.put(b)
                other.run(channel.there + LEAK + "leak(memoryview(get()))\\nleak(get())")
                assert isthmus.stats()["exports"] == 1
        assert (a.owners, b.owners) == (2, 1)
        assert isthmus.stats()["orphaned"] == 1
        done()
        """
    )


def test_an_owner_held_by_an_at_fork_callable(channel):
    """It outlives the sweep; its tp_dealloc comes later and finds nothing to do."""
    a = isthmus.full(4, 2, "i4")
    channel.put(a)
    with Interpreter() as other:
        other.run(
            channel.there + "\nimport os, isthmus\nb = get()\nv = memoryview(b)[1:]"
            "\nos.register_at_fork(before=lambda b=b: b)"
            "\nos.register_at_fork(before=lambda b=isthmus.zeros(3): b)"
            "\nos.register_at_fork(before=lambda b=b[1:]: b)"
            "\nos.register_at_fork(before=lambda v=v: v)"
        )
        assert a.owners == 2
    assert a.owners == 1 and isthmus.stats()["orphaned"] == 0 and len(isthmus.segments()) == 1


def test_what_runs_after_the_sweep_gets_exceptions():
    """A finaliser of an at-fork callable uses a swept array and makes a new one."""
    told = run_script(
        """
        import os, isthmus
        from carriers import Interpreter
        with Interpreter() as other:
            other.run('''if True:
                import isthmus, os
                a = isthmus.zeros(3)
                view = a[1:]
                class Late:
                    def __call__(self): pass
                    # what it needs as defaults: neither modules nor builtins are there any more
                    def __del__(self, a=a, v=view, zeros=isthmus.zeros, memoryview=memoryview, write=os.write, E=Exception, type=type):
                        for use in lambda: a[0], lambda: v[0], lambda: zeros(3), lambda: memoryview(a), a.token, a.release:
                            try:
                                use()
                                write(1, b"returned\\\\n")
                            except E as error:
                                write(1, type(error).__name__.encode() + b"\\\\n")
                os.register_at_fork(before=Late())
                ''')
        assert not isthmus.segments() and isthmus.stats()["orphaned"] == 0
        print("done")
        """
    )
    assert told.split() == ["DetachedError", "DetachedError", "RuntimeError", "DetachedError", "DetachedError", "returned", "done"]


def test_the_module_deleted_and_imported_again(channel):
    """Both instances join one block: the second import must not sweep the first one's arrays, and the end sweeps both's."""
    again = """
        import gc, sys, isthmus
        a = get()
        view = memoryview(a)
        first = isthmus
        for name in [n for n in sys.modules if n == "isthmus" or n.startswith("isthmus.")]:
            del sys.modules[name]
        gc.collect()
        import isthmus
        assert isthmus is not first
        b = get()
        assert type(b) is not type(a)
        assert a.tolist() == b.tolist() == [0, 0, 0, 0] and view[0] == 0
        assert isthmus.attach(a.token()).owners == 4 + before
        del first
        gc.collect()
        c = isthmus.zeros(10)
        assert a[0] == b[0] == 0
        """
    a = isthmus.zeros(4)
    channel.put(a)
    channel.put(a)
    with Interpreter() as other:
        other.run(channel.there + "\nbefore = 0")
        other.run(textwrap.dedent(again))
        assert a.owners == 3
        assert isthmus.stats()["exports"] == 1
    assert a.owners == 1 and len(isthmus.segments()) == 1
    assert isthmus.stats()["exports"] == 0 and isthmus.stats()["orphaned"] == 0


def test_the_same_in_the_main_interpreter():
    script(
        """
        a = isthmus.zeros(4)
        for _ in range(3):
            for name in [n for n in sys.modules if n == "isthmus" or n.startswith("isthmus.")]:
                del sys.modules[name]
            del isthmus
            gc.collect()
            import isthmus
            b = isthmus.zeros(4)
            assert a.tolist() == b.tolist() == [0.0] * 4
        assert len(isthmus.segments()) == 2
        done()
        """
    )


def test_exports_are_counted_over_all_interpreters(channel):
    before = isthmus.stats()["exports"]
    a = isthmus.zeros(4)
    with Interpreter() as one, Interpreter() as two:
        for other in one, two:
            channel.put(a)
            other.run(channel.there + "\nimport isthmus\nviews = [memoryview(a) for a in [get()] for _ in range(10)]")
        view = memoryview(a)
        assert isthmus.stats()["exports"] == before + 21
        one.run("assert isthmus.stats()['exports'] >= 21\ndel views")
        assert isthmus.stats()["exports"] == before + 11
    assert isthmus.stats()["exports"] == before + 1
    view.release()


def test_a_hundred_interpreters_come_and_go(channel):
    segments = len(isthmus.segments())
    for _ in range(100):
        with Interpreter() as other:
            other.run("import isthmus\na = isthmus.zeros(100)\nb = a[::2]\nv = memoryview(b)\nisthmus.kept = [a, b, v]")
    gc.collect()
    assert len(isthmus.segments()) == segments
    assert isthmus.stats()["orphaned"] == 0 and isthmus.stats()["exports"] == 0


def test_exit_of_the_program_with_everything_alive():
    """Arrays in modules, in builtins, in at-fork callables, in thread-locals, leaked, exported, in the queue."""
    told = run_script(
        PRELUDE
        + """
exec(LEAK)
import builtins, os, threading
a = builtins.a = numbered(4)
builtins.v = memoryview(a)
os.register_at_fork(before=lambda a=a[1:]: a)
threading.local().a = a
leak(isthmus.zeros(5))
leak(memoryview(isthmus.zeros(5)))
channel = Channel()
channel.put(a)
print("done", flush=True)
"""
    )
    assert told == "done\n"


# ---- release while others stand on the array ---------------------------------------------------------------------------------------


def test_release_with_live_exports():
    a = isthmus.zeros(4, "i4")
    view = memoryview(a)
    a.release()
    a.release()
    view[2] = 7
    assert view.tolist() == [0, 0, 7, 0] and len(isthmus.segments()) == 1
    with pytest.raises(isthmus.DetachedError):
        a[0]
    view.release()
    assert not isthmus.segments()


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"])
def test_an_ndarray_outlives_the_release(dtype):
    np = pytest.importorskip("numpy")
    a = isthmus.zeros((5, 7), dtype)
    x = np.asarray(a)
    a.release()
    x[:] = 1
    assert x.sum() == (35 if dtype != "?" else x.size) and len(isthmus.segments()) == 1
    del x
    assert not isthmus.segments()


def test_release_from_another_thread():
    for _ in range(200):
        a = isthmus.zeros(64, "i4")
        go = threading.Barrier(2)
        thread = threading.Thread(target=lambda a=a, go=go: (go.wait(60), a.release()))
        thread.start()
        go.wait(60)
        try:
            while True:
                memoryview(a)[3] = 1
                a[5]
                a.tolist()
        except isthmus.DetachedError:
            pass
        thread.join(60)
        assert not thread.is_alive()
    assert not isthmus.segments()


class Releases:
    """An index that releases the array it indexes."""

    def __init__(self, a):
        self.a = a

    def __index__(self):
        self.a.release()
        return 1


@pytest.mark.parametrize("use", [operator.getitem, lambda a, i: operator.setitem(a, i, 5), lambda a, i: a[i:], lambda a, i: a[0:4:i]])
def test_an_index_that_releases(use):
    """Either the operation was begun and is finished on memory that stays that long, or DetachedError."""
    a = isthmus.zeros(4, "i8")
    try:
        use(a, Releases(a))
    except isthmus.DetachedError:
        pass
    gc.collect()
    assert not isthmus.segments()


def test_a_value_that_releases():
    a = isthmus.zeros(4, "i8")
    try:
        a[2] = Releases(a)
    except isthmus.DetachedError:
        pass
    assert not isthmus.segments()


def test_no_memory_while_an_array_is_made():
    failures = 0
    base = isthmus.zeros(10)
    token = base.token()
    for make in (lambda: isthmus.zeros((3, 4), "i4"), lambda: base[::2], lambda: base.token(), lambda: isthmus.attach(token)):
        for n in range(40):
            failures += fails_at(n, make)
            gc.collect()
            assert base.owners == 1 and len(isthmus.segments()) == 1, n
    assert failures >= 4
