"""What helps to find leaks: ISTHMUS_DEBUG=1, isthmus.testing, `python -m isthmus info`."""

import os
import platform
import threading
from pathlib import Path

import isthmus as ist
import pytest
from isthmus import __main__ as info
from isthmus.testing import hammer, no_leaks
from scripts import run, write

DEBUG = {"ISTHMUS_DEBUG": "1"}

LEAKS = """
    import ctypes, sys
    import isthmus as ist

    def leaked(thing):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
        return thing

    def make():
        return leaked(ist.zeros(3))

    a = make()
    q = leaked(ist.Queue())
    fine = ist.zeros(4)
    view = fine[1:]
    released = leaked(ist.zeros(5))
    released.release()
    del fine
"""


@pytest.mark.matrix
def test_what_an_interpreter_leaves_behind_is_told(tmp_path: Path) -> None:
    script = write(tmp_path, LEAKS)
    outcome = run(script, env=DEBUG)
    assert outcome.status == 0
    lines = outcome.err.splitlines()
    assert lines[0] == "isthmus: interpreter 0 ends, and what it made is left behind:"
    array = next(i for i, line in enumerate(lines) if line.startswith("  SharedArray, segment "))
    assert lines[array + 1 : array + 3] == [f'    File "{script}", line 10, in make', f'    File "{script}", line 12, in <module>']
    queue = next(i for i, line in enumerate(lines) if line.startswith("  Queue, segment "))
    assert lines[queue + 1] == f'    File "{script}", line 13, in <module>'
    assert len(lines) == 6, outcome.err
    assert run(script).err == run(script, env={"ISTHMUS_DEBUG": "0"}).err == ""


@pytest.mark.matrix
def test_of_each_interpreter(tmp_path: Path) -> None:
    # what at-fork callables refer to outlives an interpreter's sweep
    write(tmp_path, "import os, isthmus\ndef leak(): os.register_at_fork(before=isthmus.zeros(3).sum)", "leaking.py")
    script = write(
        tmp_path,
        """
        import isthmus, leaking
        if __name__ == "__main__":
            with isthmus.WorkerPool(1) as pool:
                pool.submit(leaking.leak).result()
            assert isthmus.segments() == []
        """,
    )
    outcome = run(script, env=DEBUG)
    assert outcome.status == 0 and outcome.err.count("SharedArray, segment") == 1, outcome.err
    assert "isthmus: interpreter 1 ends" in outcome.err and 'leaking.py", line 2, in leak' in outcome.err


def test_nothing_is_told_of_a_program_without_leaks(tmp_path: Path) -> None:
    source = """
        import os, isthmus as ist, threading
        a = ist.zeros(3)
        views = [a[i:] for i in range(3)]
        copies = [ist.clone(a) for _ in range(100)]
        cycle = [ist.zeros(2)]; cycle.append(cycle)
        b = memoryview(ist.zeros(4))
        q = ist.Queue(); q.put([a, a]); q.put(q)
        threads = [threading.Thread(target=lambda: [ist.zeros(3).release() for _ in range(1000)]) for _ in range(3)]
        for t in threads: t.start()
        for t in threads: t.join()
        if os.fork() == 0:
            del a, views, copies
            os._exit(0)
        assert os.wait()[1] == 0
    """
    run(write(tmp_path, source), env=DEBUG).ok()


def test_freed_memory_is_overwritten(tmp_path: Path) -> None:
    source = """
        import isthmus as ist
        for n in (64, 5000, 3 << 20):
            ist.full(n, 7, "u1").release()
            again = ist.empty(n, "u1")
            print(sorted(set(again[: 1 << 20].tolist())), again[n - 1])
            assert ist.zeros(n, "u1").sum() == 0
            del again
    """
    script = write(tmp_path, source)
    assert run(script, env=DEBUG).ok().splitlines() == ["[221] 221", "[221] 221", "[221] 7"]
    assert "221" not in run(script).ok()


def test_no_leaks() -> None:
    with no_leaks():
        a = ist.zeros(3)
        del a
    kept = ist.zeros(3)
    with no_leaks():
        kept[0] = 1
        cycle: list[object] = [ist.zeros(2)]
        cycle.append(cycle)
        del cycle
        threading.Timer(0.05, ist.zeros(3).release).start()
    with pytest.raises(AssertionError, match=r"1 segment is left behind:\n.*heap, 24 bytes, owners here: 1"), no_leaks(timeout=0.01):
        left = ist.zeros(3)
    del left
    with pytest.raises(ZeroDivisionError), no_leaks():
        raise ZeroDivisionError


def test_the_fixture(tmp_path: Path) -> None:
    write(tmp_path, "from isthmus.testing import no_leaks_fixture", "conftest.py")
    tests = """
        import isthmus
        kept = []
        def test_fine(): isthmus.zeros(3)
        def test_leak(): kept.append(isthmus.zeros(3))
    """
    write(tmp_path, tests, "test_it.py")
    outcome = run("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", tmp_path)
    assert outcome.status == 1 and "2 passed, 1 error" in outcome.out and "test_it.py::test_leak" in outcome.out
    assert "AssertionError: 1 segment is left behind" in outcome.out


def test_hammer() -> None:
    calls: set[int] = set()
    assert hammer(lambda: calls.add(threading.get_ident()), threads=3, seconds=0.2) > 0 and len(calls) <= 3
    with pytest.raises(ValueError, match="broken"):
        hammer(lambda: [][0] if False else (_ for _ in ()).throw(ValueError("broken")), threads=2, seconds=60)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        hammer(int, threads=0)
    assert hammer(int, threads=2, seconds=0) == 2, "however late it is when all are there"


def test_an_unknown_libc_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert dict(info._lines())["system"].endswith(", another libc")


@pytest.mark.matrix
def test_info() -> None:
    out = run("-m", "isthmus", "info", env={"ISTHMUS_HEAP_SIZE": "1G"}).ok()
    found = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in out.splitlines()}
    assert found["isthmus"].startswith(ist.__version__) and found["processes in it"] == "1" and found["ISTHMUS_HEAP_SIZE"] == "1G"
    assert found["alive in this process"] == "0 segments, 0 bytes"
    assert "off: ISTHMUS_XIDATA=0" in run("-m", "isthmus", "info", env={"ISTHMUS_XIDATA": "0"}).ok()
    outcome = run("-m", "isthmus", env=dict(os.environ))
    assert outcome.status == 2 and "command" in outcome.err
