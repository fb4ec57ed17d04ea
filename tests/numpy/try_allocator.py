"""For tools/package.sh: isthmus.numpy_allocator() of an installed isthmus, "with" numpy or "without"."""

import sys

import isthmus as ist

if sys.argv[1] == "without":
    try:
        ist.numpy_allocator()
    except ImportError as error:
        assert "needs numpy, which is not installed" in str(error), error
    else:
        raise AssertionError("there is a numpy")
else:
    import numpy as np

    with ist.numpy_allocator():
        x = np.arange(1000.0).reshape(10, 100)
    a = ist.asarray(x.T[3:], copy=False)
    a[0, 0] = -1
    assert x[0, 3] == -1 and a.owners == 2 and ist.stats()["bytes_copied"] == 0
    del x
    assert a[96, 9] == 999 and a.owners == 1
    print("numpy", np.__version__, a.shape, len(ist.segments()))
