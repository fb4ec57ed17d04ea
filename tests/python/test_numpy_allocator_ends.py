"""isthmus.numpy_allocator(): workers, other interpreters and processes, fork, ends of processes, what fails and how it says so."""

import gc
from collections.abc import Iterator
from typing import Any

import isthmus as ist
import pytest
from processes import SANITIZED, Group
from scripts import run, write

np: Any = pytest.importorskip("numpy")
pytest.importorskip("isthmus._numpy_allocator", reason="this isthmus was built without numpy's headers")

import numpy_tasks as tasks  # noqa: E402

pytestmark = pytest.mark.matrix

NONE = "default_allocator"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    gc.collect()
    before = ist.segments()  # nothing, unless a test has failed
    yield
    gc.collect()
    assert ist.segments() == [] or before


@pytest.fixture
def allocator() -> Iterator[None]:
    with ist.numpy_allocator():
        yield


@pytest.fixture
def group() -> Iterator[Group]:
    with Group() as group:
        yield group


def address(x: Any) -> int:
    return int(np.asarray(x).__array_interface__["data"][0])


# ---- WorkerPool ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_workers_run_as_the_submitter_does(kind: str) -> None:
    with ist.WorkerPool(1, kind) as pool:
        for _ in range(2):
            assert pool.submit(tasks.handler).result() == (NONE, NONE)
            with ist.numpy_allocator():
                inside = pool.submit(tasks.handler)
                assert list(pool.map(ist.is_shared, [np.arange(50_000)])) == [True]  # as an argument too
            assert inside.result() == ("isthmus", "isthmus")
        with ist.numpy_allocator():
            with pytest.raises(ValueError, match="on purpose"):
                pool.submit(tasks.fail_under_it).result()
            assert pool.submit(tasks.handler_of_own_thread).result() == NONE
        assert pool.submit(tasks.handler).result() == (NONE, NONE)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_initializers_and_installed_for_good(kind: str) -> None:
    found = []

    def use() -> None:
        ist.install_numpy_allocator()
        with ist.WorkerPool(2, kind, initializer=tasks.fail_under_it) as pool:
            with pytest.raises(ist.BrokenWorkerPool) as raised:
                pool.submit(tasks.handler).result()
            assert "on purpose" in str(raised.value.__cause__)
        with ist.WorkerPool(2, kind) as pool:
            found.extend(f.result()[0] for f in [pool.submit(tasks.handler) for _ in range(6)])

    with ist.WorkerPool(1, "thread") as threads:
        threads.submit(use).result()
        assert threads.submit(tasks.handler).result() == ("isthmus", "isthmus")  # installed is installed, in that thread
    assert found == ["isthmus"] * 6
    with ist.WorkerPool(2, kind, initializer=ist.install_numpy_allocator) as pool:
        assert [f.result()[0] for f in [pool.submit(tasks.handler) for _ in range(6)]] == ["isthmus"] * 6


@pytest.mark.parametrize("kind", ["interpreter", "thread", "process"])
def test_to_a_worker_and_back_without_a_copy(kind: str, allocator: None) -> None:
    x = np.arange(100.0)
    shared = ist.asarray(x[::2], copy=False)
    before = ist.stats()["bytes_copied"]
    with ist.WorkerPool(2, kind) as pool:
        pool.submit(tasks.add, shared, 1000).result()
        pool.submit(tasks.add, shared[1:], 1).result()
    assert ist.stats()["bytes_copied"] == before
    assert x.tolist() == [i + 1000 * (i % 2 == 0) + (i % 2 == 0 and i > 0) for i in range(100)]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_what_a_worker_made_with_numpy(kind: str, allocator: None) -> None:
    before = ist.stats()["bytes_copied"]
    with ist.WorkerPool(1, kind) as pool:
        made = pool.submit(tasks.make, 50_000).result()
        assert ist.stats()["bytes_copied"] == before
        assert made[0] == -1 and np.asarray(made)[1:].tolist() == [2.0 * i for i in range(2, 50_000)]
    assert made[1] == 4.0  # its maker has ended


def test_worker_interpreters_say_why_not() -> None:
    with ist.WorkerPool(1) as pool:
        with pytest.raises(ImportError, match='numpy can\'t be used in an own-GIL interpreter: use kind="process"'):
            pool.submit(tasks.use_the_allocator).result()
        with ist.numpy_allocator():
            assert pool.submit(abs, -3).result() == 3


# ---- other interpreters and processes -------------------------------------------------------------------------------------


def test_through_a_queue_of_interpreters(allocator: None) -> None:
    interpreters = pytest.importorskip("concurrent.interpreters", reason="Python 3.14 or later")
    queue, worker = interpreters.create_queue(), interpreters.create()
    worker.prepare_main(queue=queue)
    x = np.arange(10)
    before = ist.stats()["bytes_copied"]
    queue.put(ist.asarray(x[2:], copy=False))
    worker.exec("queue.get()[:] = 7")
    worker.close()
    assert ist.stats()["bytes_copied"] == before and x.tolist() == [0, 1] + [7] * 8


def test_between_processes(group: Group) -> None:
    maker, other = group.start(2)
    maker.run("import numpy as np; ist.install_numpy_allocator(); x = np.arange(1000.0).reshape(10, 100)")
    token = maker("ist.asarray(x[2:, ::-1], copy=False).token()")
    other.run("s = ist.attach(token)", token=token)
    assert other("s[0, 0], s.segment.processes, ist.stats()['bytes_copied']") == (299.0, 2, 0)
    other.run("s[0, 0] = -5.0")
    assert maker("float(x[2, 99]), ist.stats()['bytes_copied']") == (-5.0, 0)
    maker.run("del x")
    assert other("s[0, 0], s[7, 99]") == (-5.0, 900.0)
    # there it is another process's memory: found by its address in that window
    other.run("import numpy as np; view = np.from_dlpack(np.asarray(s))[3:]; again = ist.asarray(view, copy=False); again[0, 0] = 11.0")
    assert other("s[3, 0], again.owners > 1, ist.stats()['bytes_copied']") == (11.0, True, 0)
    other.run("del s, view, again")
    for peer in (maker, other):
        assert peer("ist.sweep() and False or ist.segments()") == []


@pytest.mark.parametrize("first", ["parent", "child"])
def test_fork(first: str, group: Group) -> None:
    """The child has the ndarrays of its parent, the same memory; it may let go of them, and give them another size, for itself."""
    parent = group.one()
    parent.run("""
        import gc
        import numpy as np
        ist.install_numpy_allocator()
        x, y, big = np.arange(1000.0), np.arange(50), np.zeros(1 << 20, 'u1')
        s = ist.asarray(x[500:], copy=False)
    """)
    child = parent.fork()
    assert child("np._core.multiarray.get_handler_name()") == "isthmus"
    child.run("assert x.tolist() == list(range(1000)) and y.tolist() == list(range(50)); x[600] = -1; big[5] = 5")
    assert parent("int(x[600]), s[100], int(big[5])") == (-1, -1, 5)
    child.run("t = ist.asarray(y[3:], copy=False); assert t.owners == 2 and t.segment.processes == 2")
    child.run("y.resize(5000, refcheck=False); y[:] = 9; z = np.full(300, 4)")
    assert child("t.tolist()") == list(range(3, 50)) and parent("y.tolist()") == list(range(50))
    goes, stays = (parent, child) if first == "parent" else (child, parent)
    goes.run("del x, s, big; gc.collect()" if first == "parent" else "del x, s, big, t; gc.collect()")
    assert stays("int(x[600]), s[100], len(x), int(big[5])") == (-1, -1, 1000, 5)
    stays.run("more = [np.full(1000, i) for i in range(100)]; assert x[600] == -1 and x[999] == 999")
    goes.end()
    assert stays("int(x[600])") == -1
    stays.run("del x, y, s, big, more; globals().pop('t', 0); globals().pop('z', 0); gc.collect()")
    assert stays("ist.segments()") == []


# ---- ends -------------------------------------------------------------------------------------------------------------------


def test_arrays_at_the_end_of_the_interpreter(tmp_path: Any) -> None:
    """Left over in globals, in a cycle, in other modules, by a leaked reference, in threads; and one freed after everything."""
    script = write(
        tmp_path,
        """
        import atexit, builtins, ctypes, sys, threading
        import isthmus as ist
        import numpy as np
        ist.install_numpy_allocator()
        x, s = np.arange(1000), ist.asarray(np.arange(100), copy=False)
        both = np.arange(10)
        view = ist.asarray(both[2:], copy=False)
        cycle = [np.arange(5)]; cycle.append(cycle)
        builtins.kept = np.arange(7), ist.asarray(np.arange(8), copy=False)
        sys.kept = np.arange(9)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(np.arange(11)))
        local = threading.local(); local.x = np.arange(12)
        class Late:
            def __init__(self): self.x = np.arange(13)
            def __del__(self): self.x.resize(5000, refcheck=False); self.y = self.x * 2
        builtins.late = Late()
        atexit.register(lambda: np.arange(14).resize(3000, refcheck=False))

        # what the C library calls at the very end is free(status, block): after the interpreter, in no thread of Python's
        class Handler(ctypes.Structure):
            _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8)] + [
                (name, ctypes.c_void_p) for name in ("ctx", "malloc", "calloc", "realloc", "free")]
        from isthmus import _numpy_allocator
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        handler = Handler.from_address(pointer(_numpy_allocator.set_handler(None), b"mem_handler"))
        assert (handler.name, handler.version) == (b"isthmus", 1)
        allocate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(handler.malloc)
        on_exit = ctypes.CDLL(None).on_exit
        on_exit.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        before = len(ist.segments())
        for n in (0, 1, 100, 5000, 1 << 20):
            assert on_exit(handler.free, allocate(None, n)) == 0
        assert len(ist.segments()) == before + 5
        print("done")
        """,
    )
    assert run(script).ok() == "done\n"


def test_the_handler_without_a_gil(tmp_path: Any) -> None:
    """As numpy may call it: by several threads at once, none of which has a GIL meanwhile."""
    script = write(
        tmp_path,
        """
        import ctypes, random, threading
        import isthmus as ist
        import numpy as np
        from isthmus import _numpy_allocator

        class Handler(ctypes.Structure):
            _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8)] + [
                (name, ctypes.c_void_p) for name in ("ctx", "malloc", "calloc", "realloc", "free")]
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        with ist.numpy_allocator():
            handler = Handler.from_address(pointer(_numpy_allocator.set_handler(None), b"mem_handler"))
        p, n = ctypes.c_void_p, ctypes.c_size_t
        malloc = ctypes.CFUNCTYPE(p, p, n)(handler.malloc)  # ctypes lets go of the GIL
        calloc = ctypes.CFUNCTYPE(p, p, n, n)(handler.calloc)
        realloc = ctypes.CFUNCTYPE(p, p, p, n)(handler.realloc)
        free = ctypes.CFUNCTYPE(None, p, p, n)(handler.free)
        huge = 2**64 - 1
        assert malloc(None, huge) is calloc(None, huge, 2) is calloc(None, 2**33, 2**33) is realloc(None, None, huge) is None
        free(None, None, 0)
        block = realloc(None, None, 10)
        ctypes.memset(block, 5, 10)
        assert realloc(None, block, huge) is None and ctypes.string_at(block, 10) == bytes([5]) * 10
        free(None, block, 0)
        empty = calloc(None, 0, 8)
        assert empty and malloc(None, 0) not in (None, empty)

        passed, failures = [], []
        def work(number):
            choose = random.Random(number)
            try:
                for _ in range(3000):
                    size, tag = int(2 ** choose.uniform(0, 15)), choose.randrange(1, 256)
                    if choose.random() < 0.3:
                        block = calloc(None, 1, size)
                        assert not any(ctypes.string_at(block, min(size, 64)))
                    else:
                        block = malloc(None, size)
                    ctypes.memset(block, tag, size)
                    if choose.random() < 0.5:
                        new = int(2 ** choose.uniform(0, 15))
                        block = realloc(None, block, new)
                        assert ctypes.string_at(block, min(size, new)) == bytes([tag]) * min(size, new)
                        ctypes.memset(block, tag, new)
                        size = new
                    passed.append((block, size, tag))
                    if len(passed) > 50:
                        block, size, tag = passed.pop(0)  # often another thread's
                        assert ctypes.string_at(block, size) == bytes([tag]) * size
                        free(None, block, size)
            except BaseException as error:
                failures.append(error)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert not failures, failures
        for block, size, tag in passed:
            free(None, block, size)
        print(sorted(s.size for s in ist.segments()))
        """,
    )
    assert run(script).ok() == "[0, 0]\n"


# ---- what fails ----------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(SANITIZED, reason="limits memory")
def test_exhausted_heap(tmp_path: Any) -> None:
    script = write(
        tmp_path,
        """
        import isthmus as ist
        import numpy as np
        ist.configure(heap_size=16 << 20)
        x = np.zeros(10)
        with ist.numpy_allocator():
            held = np.ones(8 << 20, "u1")
            for attempt in (lambda: np.zeros(12 << 20, "u1"), lambda: np.empty(1 << 40, "u1"), lambda: np.arange(3 << 20)):
                try:
                    attempt()
                except MemoryError as error:
                    assert "Unable to allocate" in str(error) or str(error) == "", error
                else:
                    raise AssertionError("there was room")
            small = np.arange(1000)
            try:
                small.resize(3 << 20, refcheck=False)
            except MemoryError:
                assert small.tolist() == list(range(1000))
            else:
                raise AssertionError("there was room")
            pieces = []
            try:
                while True:
                    pieces.append(np.full(100_000, len(pieces), "u1"))
            except MemoryError:
                assert len(pieces) > 20 and all(p[0] == p[-1] == i for i, p in enumerate(pieces))
            pieces.clear()
            assert held.min() == 1 and np.zeros(100_000, "u1").max() == 0
        del held
        big = np.zeros(64 << 20, "u1")  # numpy's own again
        with ist.numpy_allocator():
            assert ist.asarray(np.zeros(5 << 20, "u1"), copy=False).size == 5 << 20
        """,
    )
    run(script).ok()


def errors_of(tmp_path: Any, before: str, call: str = "ist.numpy_allocator()") -> str:
    script = write(
        tmp_path,
        f"""
        import sys
        import isthmus as ist
        {before}
        try:
            {call}
        except ImportError as error:
            print(type(error).__name__, error, error.__cause__)
        """,
    )
    return run(script).ok()


@pytest.mark.parametrize("call", ["ist.numpy_allocator()", "ist.install_numpy_allocator()"])
def test_what_is_missing_is_named(call: str, tmp_path: Any) -> None:
    told = errors_of(tmp_path, "sys.modules['numpy'] = None", call)
    assert told == "ImportError isthmus.numpy_allocator() needs numpy, which is not installed: pip install isthmus[numpy] None\n"
    told = errors_of(tmp_path, "sys.modules['isthmus._numpy_allocator'] = None", call)
    assert told.startswith("ImportError isthmus.numpy_allocator() needs the module isthmus._numpy_allocator, which this isthmus was built")
    assert "install numpy" in told and told.endswith("None\n")


def test_a_numpy_that_is_broken_says_so_itself(tmp_path: Any) -> None:
    write(tmp_path, "import a_module_that_is_missing\n", "numpy/__init__.py")
    assert errors_of(tmp_path, "") == "ModuleNotFoundError No module named 'a_module_that_is_missing' None\n"


def test_numpy_is_imported_by_nothing_else(tmp_path: Any) -> None:
    script = write(
        tmp_path,
        """
        import sys
        import isthmus as ist

        def look():
            return "numpy" in sys.modules, "isthmus._numpy_allocator" in sys.modules

        if __name__ == "__main__":
            assert "numpy_allocator" in dir(ist) and "install_numpy_allocator" in ist.__all__
            for kind in ("thread", "process", "interpreter"):
                with ist.WorkerPool(1, kind) as pool:
                    assert pool.submit(look).result() == (False, False), kind
            ist.asarray(ist.zeros(3), copy=False)
            assert look() == (False, False)
            ist.numpy_allocator()
            assert look() == (True, True)
        """,
    )
    run(script).ok()
