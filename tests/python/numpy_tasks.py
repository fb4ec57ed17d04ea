"""What test_numpy_allocator.py runs in workers of every kind: a module of its own, since processes import it by name."""

import threading

import isthmus as ist


def handler():
    """Of what numpy allocates where this runs."""
    import numpy as np

    return np._core.multiarray.get_handler_name(np.arange(3)), np._core.multiarray.get_handler_name()


def handler_of_own_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(handler()[0]))
    thread.start()
    thread.join()
    return found[0]


def make(n):
    """A SharedArray of what numpy made here, without a copy."""
    import numpy as np

    made = np.arange(n) * 2.0
    shared = ist.asarray(made[1:], copy=False)
    made[1] = -1
    return shared


def add(a, value):
    """In a worker of any kind: to every element of a SharedArray."""
    for i in range(len(a)):
        a[i] += value


def use_the_allocator():
    with ist.numpy_allocator():
        pass


def fail_under_it():
    assert handler()[0] == "isthmus"
    raise ValueError("on purpose")
