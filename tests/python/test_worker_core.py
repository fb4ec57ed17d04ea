"""isthmus._core._Interpreter: the primitive under WorkerPool: calls, terminate, what is left behind, exit with workers alive."""

import gc
import os
import sys
import threading
import time

import isthmus
import pytest
from carriers import run_script
from isthmus._core import WorkerError, _Interpreter

pytestmark = pytest.mark.matrix

# Replaces isthmus._worker.handle by one that runs a function of the setup's own: these tests are of the core alone.
HANDLE = """
import sys
sys.path[:] = {path!r}
import types, isthmus
def handle(payload, refs):
    return task(payload, refs)
def task(payload, refs):
    return payload, refs
sys.modules["isthmus._worker"] = isthmus._worker = types.ModuleType("isthmus._worker")
isthmus._worker.handle = handle
"""


def setup(source: str = "") -> str:
    return HANDLE.format(path=sys.path) + source


def in_thread(function):
    """Runs function in a thread of its own and returns what it returned, or raises what it raised."""
    outcome = []

    def run():
        try:
            outcome.append((True, function()))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert outcome, "the thread didn't end"
    done, value = outcome[0]
    if not done:
        raise value
    return value


def stats(name: str) -> int:
    return isthmus.stats()[name]


class Worker:
    """An _Interpreter with its thread still there: made, called and closed in one thread."""

    def __init__(self, source: str = "") -> None:
        self.interpreter = _Interpreter(setup(source))

    def __enter__(self):
        return self.interpreter

    def __exit__(self, *_):
        self.interpreter.close()


def test_a_call_carries_bytes_and_arrays_both_ways():
    a = isthmus.zeros(10)
    b = isthmus.full((2, 3), 7, "i4")
    with Worker("def task(payload, refs):\n    refs[0][3] = 5.0\n    return payload[::-1], (refs[1], refs[0])") as w:
        payload, refs = w.call(b"abc", [a, b])
    assert payload == b"cba"
    assert a[3] == 5.0
    assert refs[0].tolist() == b.tolist() and refs[0].dtype == b.dtype
    assert refs[1].segment.id == a.segment.id
    assert stats("in_flight") == 0


def test_any_buffer_is_a_payload_and_refs_may_be_missing():
    with Worker() as w:
        assert w.call(bytearray(b"xyz")) == (b"xyz", ())
        assert w.call(memoryview(b"")) == (b"", ())
        assert w.call(b"\0" * 100_000)[0] == b"\0" * 100_000


def test_a_view_arrives_as_the_same_part():
    a = isthmus.array(range(12), dtype="i8") if hasattr(isthmus, "array") else None
    if a is None:
        a = isthmus.zeros(12, "i8")
        for i in range(12):
            a[i] = i
    part = a[10:1:-3]
    with Worker() as w:
        (back,) = w.call(b"", (part.toreadonly(),))[1]
    assert back.tolist() == [10, 7, 4] and back.strides == (-24,) and back.readonly
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1


def test_an_array_made_in_the_worker_outlives_it():
    with Worker("def task(p, r):\n    a = isthmus.zeros(1000)\n    a[5] = 1.5\n    return b'', (a,)") as w:
        (a,) = w.call(b"")[1]
    gc.collect()
    assert a[5] == 1.5 and a.size == 1000
    assert a.owners == 1


def test_an_exception_comes_with_its_traceback():
    with Worker("def task(p, r):\n    def inner():\n        raise KeyError('grün \\udc80')\n    inner()") as w:
        with pytest.raises(WorkerError) as caught:
            w.call(b"", [isthmus.zeros(3)])
        text = str(caught.value)
        assert f"interpreter {w.id}" in text and "Traceback" in text and "in inner" in text and "KeyError: 'grün" in text
        assert isinstance(caught.value, RuntimeError)
    assert stats("in_flight") == 0


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "raise KeyboardInterrupt", "class E(BaseException): pass\n    raise E"])
def test_what_is_no_exception_comes_back_as_well(source):
    with Worker(f"def task(p, r):\n    {source}") as w:
        with pytest.raises(WorkerError, match="Traceback"):
            w.call(b"")
        with pytest.raises(WorkerError, match="Traceback"):
            w.call(b"")


def test_an_exception_that_cannot_be_formatted():
    source = "import traceback\ntraceback.format_exception = None\ndef task(p, r):\n    raise LookupError('x')"
    with Worker(source) as w, pytest.raises(WorkerError, match="LookupError"):
        w.call(b"")


@pytest.mark.parametrize("result", ["None", "(b'',)", "(1, ())", "(b'', 5)", "(b'', (1,))", "(b'', (isthmus.zeros(2), None))"])
def test_a_handle_that_returns_nonsense(result):
    with Worker(f"def task(p, r):\n    return {result}") as w, pytest.raises(WorkerError, match="TypeError"):
        w.call(b"", (isthmus.zeros(2),))
    assert stats("in_flight") == 0


def test_references_that_are_no_arrays_leave_nothing_in_flight():
    a = isthmus.zeros(3)
    released = isthmus.zeros(3)
    released.release()
    with Worker() as w:
        for refs, error in [((a, 5), TypeError), (5, TypeError), ((a, released), isthmus.DetachedError)]:
            with pytest.raises(error):
                w.call(b"", refs)
            assert stats("in_flight") == 0
        with pytest.raises(TypeError):
            w.call("text")
        with pytest.raises(TypeError):
            w.call()
    assert a.owners == 1


def test_setup_that_fails():
    for source, text in [("1/0", "ZeroDivisionError"), ("1 +", "SyntaxError"), ("raise SystemExit", "SystemExit")]:
        with pytest.raises(WorkerError, match=text):
            _Interpreter(source)
    with pytest.raises(ValueError):
        _Interpreter("a\0b")
    with pytest.raises(TypeError):
        _Interpreter(5)


def test_without_a_handle():
    with Worker("sys.modules['isthmus._worker'] = None") as w, pytest.raises(WorkerError, match=r"isthmus\._worker"):
        w.call(b"")


def test_numpy_is_refused_not_fatal():
    source = "def task(p, r):\n    import numpy\n    return b'imported', ()"
    if not in_this_python("numpy"):
        pytest.skip("this Python has no numpy")
    with Worker(source) as w, pytest.raises(WorkerError, match="ImportError"):
        w.call(b"")


def in_this_python(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def test_only_its_thread_calls_and_closes():
    with Worker() as w:
        for use in (lambda: w.call(b""), lambda: w.close()):
            with pytest.raises(RuntimeError, match="thread"):
                in_thread(use)
        assert w.call(b"still") == (b"still", ())


def test_close_is_idempotent_and_ends_everything():
    w = Worker().interpreter
    assert not w.closed and not w.running and w.id > 0
    assert w.close() == "closed"
    assert w.close() == "closed" and w.closed
    with pytest.raises(RuntimeError, match="closed"):
        w.call(b"")
    w.terminate()
    assert in_thread(w.close) == "closed"


def test_each_has_its_own_gil_and_modules():
    with Worker("flag = 1\ndef task(p, r):\n    import sys\n    return repr(getattr(sys, 'marked', None)).encode(), ()") as one:
        sys.marked = True
        try:
            assert one.call(b"")[0] == b"None"
        finally:
            del sys.marked


def test_a_hundred_in_sequence():
    before = len(isthmus.segments())
    for _ in range(100):
        with Worker("keep = []\ndef task(p, r):\n    keep.extend(r)\n    keep.append(isthmus.zeros(10))\n    return b'', ()") as w:
            w.call(b"", (isthmus.zeros(5),))
    assert len(isthmus.segments()) == before
    assert stats("exports") == 0 and stats("owners") == before


def test_eight_at_once():
    ready = threading.Barrier(8)

    def work():
        ready.wait(60)
        with Worker("def task(p, r):\n    r[0][int(p)] = 1\n    return p, r") as w:
            ready.wait(60)
            for _ in range(20):
                w.call(b"%d" % threading.current_thread().number, (a,))

    a = isthmus.zeros(8)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for number, thread in enumerate(threads):
        thread.number = number
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert a.tolist() == [1.0] * 8 and a.owners == 1


# ---- terminate ---------------------------------------------------------------------------------------------------------------------


def terminated_call(source: str, **more):
    """Starts a call that says by a[0] = 1 that it runs, terminates it, and returns what it raised and after which time."""
    a = isthmus.zeros(2)
    found, outcome = [], []
    here = threading.Event()

    def work():
        with Worker(source) as w:
            found.append(w)
            here.set()
            try:
                w.call(b"", (a,))
            except BaseException as error:
                outcome.append(error)
                with pytest.raises(WorkerError, match="terminated"):
                    w.call(b"")

    thread = threading.Thread(target=work)
    thread.start()
    assert here.wait(60)
    (w,) = found
    deadline = time.monotonic() + 60
    while not a[0]:
        assert time.monotonic() < deadline and thread.is_alive()
    assert w.running
    w.terminate()
    w.terminate()
    thread.join(60)
    assert not thread.is_alive()
    assert not w.running and w.closed
    return outcome[0], a


def test_terminate_ends_a_loop():
    error, a = terminated_call("def task(p, r):\n    r[0][0] = 1\n    while True: pass")
    assert isinstance(error, WorkerError) and "terminated" in str(error)
    assert a.owners == 1 and stats("in_flight") == 0


def test_terminate_asks_again():
    """The first SystemExit is swallowed; so is an answer made of a later one."""
    error, a = terminated_call(
        "def task(p, r):\n"
        "    try:\n"
        "        r[0][0] = 1\n"
        "        while True: pass\n"
        "    except SystemExit: pass\n"
        "    try:\n"
        "        r[0][1] = 1\n"
        "        while True: pass\n"
        "    except SystemExit: return b'an answer', r"
    )
    assert isinstance(error, WorkerError) and "terminated" in str(error)
    assert a[1] == 1 and a.owners == 1 and stats("in_flight") == 0


def test_terminate_does_not_wait_for_the_end():
    leave, stay = os.pipe()
    try:
        with Worker(
            "def task(p, r):\n    import select\n    r[0][0] = 1\n    select.select([int(p)], [], [], 60)\n    return b'', ()"
        ) as w:
            a, told = isthmus.zeros(1), []

            def terminate():
                while not a[0]:
                    pass
                w.terminate()
                told.append(w.running)  # in C, which isn't interrupted
                os.write(stay, b"x")

            thread = threading.Thread(target=terminate)
            thread.start()
            with pytest.raises(WorkerError, match="terminated"):
                w.call(b"%d" % leave, (a,))
            thread.join(60)
            assert told == [True]
    finally:
        os.close(leave)
        os.close(stay)


def test_terminate_when_idle_refuses_later_calls():
    a = isthmus.zeros(2)
    with Worker("def task(p, r):\n    r[0][0] = 1\n    return p, r") as w:
        in_thread(w.terminate)
        with pytest.raises(WorkerError, match="terminated"):
            w.call(b"", (a,))
        assert stats("in_flight") == 0 and a[0] == 0


def test_terminate_as_the_call_ends_by_itself_and_the_interpreter_with_it():
    """The helper that asks comes when there is nothing left to ask."""
    for _ in range(100):
        a = isthmus.zeros(2, "i4")
        made = threading.Barrier(2)
        found = []

        def terminate(a=a, made=made, found=found):
            made.wait(60)
            while not a[0]:
                pass
            found[0].terminate()
            a[1] = 1

        thread = threading.Thread(target=terminate)
        thread.start()
        w = Worker("def task(p, r):\n    a = r[0]\n    a[0] = 1\n    while not a[1]: pass\n    return b'', ()").interpreter
        found.append(w)
        made.wait(60)
        with pytest.raises(WorkerError, match="terminated"):
            w.call(b"", (a,))
        assert w.close() == "closed"
        thread.join(60)
        assert not thread.is_alive()


def test_terminate_races_the_end_of_a_call():
    """Whenever it comes, the call either returns or says terminated, and the interpreter ends."""
    seen = set()
    for i in range(40):
        with Worker("def task(p, r):\n    for i in range(int(p)): pass\n    return b'', ()") as w:
            go = threading.Event()
            thread = threading.Thread(target=lambda w=w, go=go: (go.wait(60), w.terminate()))
            thread.start()
            go.set()
            try:
                for _ in range(3000):
                    w.call(b"%d" % (50 * i))
                seen.add("returned")
            except WorkerError as error:
                assert "terminated" in str(error)
                seen.add("terminated")
            thread.join(60)
            assert not thread.is_alive()
    assert "terminated" in seen


# ---- what is left behind -----------------------------------------------------------------------------------------------------------


def test_close_waits_for_a_thread():
    """A thread that ends by itself a little later; and one of a pool that waits for the interpreter's end."""
    pool = "    global pool\n    pool = f.ThreadPoolExecutor(2)\n    pool.submit(time.sleep, 0).result()\n"
    if sys.version_info < (3, 13):
        pool = ""  # 3.12.1 aborts at exit over a pool in an interpreter, without any isthmus
    with Worker(
        "import threading, time, concurrent.futures as f\n"
        "def task(p, r):\n"
        f"{pool}"
        "    threading.Thread(target=time.sleep, args=(0.05,)).start()\n"
        "    return b'', ()"
    ) as w:
        w.call(b"")
        assert w.close() == "closed"


PARKED = """
    import isthmus, os, sys, threading, time
    from isthmus._core import _Interpreter
    from test_worker_core import setup
    leave, stay = os.pipe()
    a = isthmus.zeros(4)
    b = isthmus.zeros(4)
    w = _Interpreter(setup('''if True:
        import _thread, os
        def task(p, r):
            global kept, view
            kept, view = r[0], memoryview(r[1])
            started = _thread.allocate_lock()
            started.acquire()
            _thread.start_new_thread(lambda: (started.release(), os.read(int(p), 1)), ())
            started.acquire()
            return b"", ()
        '''))
    w.call(b"%d" % leave, (a, b))
    assert (a.owners, b.owners) == (2, 2)
    start = time.monotonic()
    assert w.close(0.2) == "parked", "it had a thread in it"
    assert 0.2 <= time.monotonic() - start < 4
    assert w.close() == "parked" and w.closed
    assert (a.owners, b.owners) == (1, 2), "parking lets go of what nobody exports"
    assert isthmus.stats()["orphaned"] == 1
    print("done", flush=True)
"""


def test_a_leftover_thread_parks_the_interpreter():
    """And the process still leaves: with 120 where CPython would abort it."""
    told = run_script(PARKED, status=0 if sys.version_info >= (3, 14) else 120)
    assert told.startswith("done\n")
    if sys.version_info < (3, 14):
        assert "can't end" in told


def test_terminate_reaches_leftover_threads():
    told = run_script(
        """
        from isthmus._core import _Interpreter
        from test_worker_core import setup
        w = _Interpreter(setup('''if True:
            import _thread
            def loop():
                while True: pass
            def task(p, r):
                _thread.start_new_thread(loop, ())
                return b"", ()
            '''))
        w.call(b"")
        w.terminate()
        assert w.close() == "closed"
        print("done")
        """
    )
    assert told.startswith("done\n")


def test_dropped_without_close():
    def make():
        return Worker("keep = isthmus.zeros(10)").interpreter

    for maker in (make, lambda: in_thread(make)):
        gc.collect()
        before = len(isthmus.segments())
        w = maker()
        assert len(isthmus.segments()) == before + 1
        with pytest.warns(ResourceWarning, match=f"unclosed interpreter {w.id}"):
            del w
            gc.collect()
        assert len(isthmus.segments()) == before


@pytest.mark.parametrize("state", ["idle", "calling in a daemon thread", "made in a thread that is gone"])
def test_exit_with_interpreters_alive(state):
    """Never a crash: 120 where CPython would abort."""
    told = run_script(
        f"""
        import isthmus, sys, threading
        from isthmus._core import _Interpreter
        from test_worker_core import setup
        a = isthmus.zeros(1)
        keep = []
        def work():
            w = _Interpreter(setup("keep = isthmus.zeros(3)\\ndef task(p, r):\\n    r[0][0] = 1\\n    while True: pass"))
            keep.append(w)
            if {state!r} == "calling in a daemon thread":
                w.call(b"", (a,))
        if {state!r} == "idle":
            work()
        else:
            threading.Thread(target=work, daemon=True).start()
            while not (a[0] if "calling" in {state!r} else keep): pass
        import builtins
        builtins.keep = keep
        print("done", flush=True)
        """,
        status=STATUS_AT_EXIT[state],
    )
    assert told.startswith("done\n")


STATUS_AT_EXIT = {
    "idle": 0 if sys.version_info >= (3, 13) else 120,
    "calling in a daemon thread": 120,
    "made in a thread that is gone": 0 if sys.version_info >= (3, 13) else 120,
}


def test_joined_at_exit():
    """What the pool does: clean on every version."""
    told = run_script(
        """
        import isthmus, threading
        from isthmus._core import _Interpreter
        from test_worker_core import setup
        stop = threading.Event()
        ready = threading.Barrier(4)
        def work():
            w = _Interpreter(setup("keep = isthmus.zeros(3)"))
            w.call(b"")
            ready.wait(60)
            stop.wait()
            w.close()
        threads = [threading.Thread(target=work) for _ in range(3)]
        threading._register_atexit(stop.set)
        for t in threads: t.start()
        ready.wait(60)
        print("done", flush=True)
        """
    )
    assert told == "done\n"


def test_a_forked_child_leaves_the_parents_interpreters_alone():
    """By fork(2) itself: os.fork() crashes or hangs in the child, on every version, as soon as there is an interpreter with its own GIL."""
    ctypes = pytest.importorskip("ctypes")
    assert ctypes
    told = run_script(
        """
        import ctypes, gc, os, isthmus
        from isthmus._core import _Interpreter
        from test_worker_core import setup
        w = _Interpreter(setup())
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            for use in (lambda: w.call(b""), w.terminate, w.close):
                try:
                    use()
                except RuntimeError as error:
                    assert "parent" in str(error), error
                else:
                    os._exit(3)
            assert not w.running
            del w
            gc.collect()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert w.call(b"x") == (b"x", ())
        w.close()
        print("done")
        """
    )
    assert told.startswith("done\n")


def test_a_forked_child_makes_its_own():
    told = run_script(
        """
        import os, sys
        from isthmus._core import _Interpreter
        from test_worker_core import setup
        _Interpreter(setup()).close()
        pid = os.fork()
        if pid == 0:
            w = _Interpreter(setup())
            assert w.call(b"x") == (b"x", ()) and w.close() == "closed"
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("done")
        """
    )
    assert told.startswith("done\n")


# ---- memory ------------------------------------------------------------------------------------------------------------------------

GROWN = """
import os, sys
from isthmus._core import _Interpreter
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
sys.path.append({folder!r})
source = "import sys; sys.path[:] = " + repr(sys.path) + "; " + {source!r}
for i in range(120):
    if i == 20:
        start = rss()
    _Interpreter(source).close()
print((rss() - start) // 100)
"""


def test_a_hundred_interpreters_leave_no_memory(tmp_path):
    """RSS is flat from 3.14. Before, CPython itself leaks, and with it the arenas in which isthmus's types and names lay: 107 to 163 KiB
    more than an empty package leaves, depending on where they come to lie."""
    (tmp_path / "an_empty_package").mkdir()
    (tmp_path / "an_empty_package" / "__init__.py").touch()

    def grown(source: str) -> int:
        return int(run_script(GROWN.format(folder=str(tmp_path), source=source), deadline=300))

    limit = 16 * 1024 if sys.version_info >= (3, 14) else grown("import an_empty_package") + 256 * 1024
    assert grown("import isthmus; a = isthmus.zeros(1000); v = memoryview(a)") < limit
