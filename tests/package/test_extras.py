"""What `pip install isthmus[numpy]` and `isthmus[notebook]` add, in an environment that has them."""

import subprocess

from conftest import ENVIRONMENT, PYTHON


def test_numpy(wheel):
    out = wheel.run("""
        import numpy as np
        import isthmus as ist

        with ist.numpy_allocator():
            x = np.arange(1000.0).reshape(10, 100)
        a = ist.asarray(x.T[3:], copy=False)
        a[0, 0] = -1
        assert x[0, 3] == -1 and a.owners == 2 and ist.stats()["bytes_copied"] == 0
        del x
        print(a[96, 9], a.owners, ist.stats()["segments"], "numpy", np.__version__)
    """)
    assert out.startswith("999.0 1 1 numpy ")


def test_notebook(tmp_path):
    """Functions of an interactive session travel by value."""
    lines = ["import isthmus as ist", "base = 40", "def add(n): return base + n", "", "pool = ist.WorkerPool(1)"]
    lines += ["print(pool.submit(add, 2).result(60), pool.submit(lambda: base).result(60))", "pool.shutdown()"]
    session = subprocess.run(
        [PYTHON, "-q", "-i"], input="\n".join([*lines, ""]), env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert session.stdout.strip() == "42 40", session.stderr
