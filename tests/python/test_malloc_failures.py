"""What the extension allocates by malloc, because it goes where no interpreter's allocator may: each call fails once, in every operation.

allocations.py does the same for Python's own memory, tests/c/test_failures.c for libisthmus.
"""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from processes import SANITIZED
from scripts import run, write

HERE = Path(__file__).parent

SCRIPT = """
    import ctypes, gc, sys
    import isthmus as ist
    from capsules import ArrowProducer, ExchangeProducer, StreamProducer
    from carriers import Channel

    library = ctypes.CDLL(sys.argv[1])  # the preloaded one
    a = ist.array([[1.0, 2.0], [3.0, 4.0]])
    flat, text, fields = ist.array([1, 2, 3]), ist.array(["one", "two"]), ist.zeros(2, [("x", "f4"), ("y", "i8")])
    channel = Channel()

    def sent(x):
        channel.put(x)
        return channel.get()

    def called():
        with ist.WorkerPool(1) as pool:
            return pool.submit(sum, flat).result(60)

    def column():
        return ArrowProducer(b"i", bytes(40), 10)

    def stream():
        source = StreamProducer([column() for _ in range(9)], 0, b"i")
        result = ist.from_arrow(source, copy=True)
        assert result.size == 90
        return result

    operations = {
        "Arrow schema": lambda: flat.__arrow_c_schema__(),
        "Arrow array": lambda: flat.__arrow_c_array__(),
        "Arrow stream": lambda: flat.__arrow_c_stream__(),
        "from Arrow": lambda: ist.from_arrow(column()),
        "from an Arrow stream": stream,
        "DLPack": lambda: a.__dlpack__(max_version=(1, 0)),
        "DLPack, unversioned": lambda: a.T.__dlpack__(),
        "exchange": lambda: fields.__isthmus_segment__(),
        "from an exchange": lambda: ist.asarray(ExchangeProducer()),
        "a message": lambda: sent(a),
        "a message with text": lambda: sent(text[::-1]),
        "a message with fields": lambda: sent(fields),
        "a transfer": lambda: sent(ist.array([1]).transfer()),
        "a clone": lambda: ist.clone([a, text, {1: fields}]),
        "a pool": called,
    }
    before = len(ist.segments())
    called()  # what is made once, is made
    for name, operation in operations.items():
        n = 0
        while True:
            n += 1
            library.fail_at(n)
            try:
                operation()
            except MemoryError:
                assert library.failed(), name
            except Exception as error:  # a worker that couldn't start says so
                assert library.failed() and name == "a pool", (name, n, error)
            else:
                if not library.failed():
                    break
                assert name == "a pool", f"{name}: call {n} failed, and nobody said so"
            gc.collect()
            assert len(ist.segments()) == before, (name, n, ist.segments())
            assert ist.stats()["in_flight"] == 0, (name, n)
            assert [a.owners, flat.owners, text.owners, fields.owners] == [1] * 4, (name, n)
        print(f"{name}: {n - 1}")
    channel.close()
"""


@pytest.mark.skipif(SANITIZED, reason="a sanitizer has a malloc of its own")
def test_each_fails_once(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None or "gnu" not in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
        pytest.skip("needs a C compiler and glibc")
    library = tmp_path / "failing_malloc.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-fno-builtin", "-o", library, HERE / "failing_malloc.c", "-ldl"], check=True)
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    outcome = run(write(tmp_path, SCRIPT), library, env={"LD_PRELOAD": str(library), "PYTHONPATH": paths})
    counts = dict(line.rsplit(": ", 1) for line in outcome.ok().splitlines())
    assert len(counts) == 15 and all(int(n) > 0 for n in counts.values()), counts
