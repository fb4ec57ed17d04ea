"""What test_pool_kinds.py runs in worker processes and threads: a module of its own, since processes import it by name."""

import os
import signal
import subprocess
import sys
import threading
import time

import isthmus as ist
import numpy as np

kept = None


def describe(x):
    return type(x).__name__, x.shape, x.dtype.str, x.strides, bool(x.flags.writeable), float(x.sum())


def identity(x):
    return x


def double(x):
    x *= 2
    return x


def part(x, start, stop):
    return x[start:stop]


def reshaped(x):
    return x.reshape(2, -1)


def transposed(x):
    return x.T


def every_other(x):
    return x[::2]


def as_integers(x):
    return x.view("i8")


def numbers(n):
    return np.arange(float(n))


def keep(x):
    global kept
    kept = x


def look_at_kept():
    return float(kept[-1])


def add_in_place(a, value):
    """On a SharedArray: through numpy, without a copy."""
    np.asarray(a)[...] += value


def as_ndarray(a, other):
    return np.asarray(a)


def raise_with(x):
    raise ValueError("with", x)


def die(how):
    """A signal, the negative number of one that has no name, or an exit status."""
    if isinstance(how, signal.Signals) or how < 0:
        os.kill(os.getpid(), abs(how))
        time.sleep(60)  # rule exception: until it is dead
    os._exit(how)


def die_holding(flag, a):
    """Dies with a handle, an export and a lease of its own."""
    view, more, token = memoryview(a), a[1:], ist.full(64 << 20, 1, "u1").token()
    flag[0] = 1
    die(signal.SIGKILL)
    return view, more, token


def spin(flag):
    flag[0] = os.getpid()
    while True:
        pass


def wait_in_c(flag):
    """Doesn't see a SystemExit before it is over."""
    flag[0] = os.getpid()
    threading.Event().wait()


def stubborn(flag):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    spin(flag)


def fork_and_return(flag):
    """A child of the worker's that lives on, and has inherited whatever the worker had open."""
    pid = os.fork()
    if pid == 0:
        while not flag[1]:
            time.sleep(0.01)  # rule exception: another process is waited for
        os._exit(0)
    flag[0] = pid
    return pid


def start_program():
    return subprocess.run([sys.executable, "-c", "print(1 + 1)"], capture_output=True, text=True).stdout


def use_own_pool():
    with ist.WorkerPool(1, "thread") as pool:
        return pool.submit(abs, -3).result()


def close_everything():
    os.closerange(3, 200)


def who():
    return os.getpid(), threading.current_thread().name, threading.get_ident()


def stop_myself(pool):
    pool.terminate_workers()


def length_of(a):
    return len(a), a.max_length


def grow_to(a, n):
    """The length afterwards. For one at a time: whoever comes too late finds it longer, which is an error."""
    a.grow(n)
    a[n - 1] = n - 1
    return len(a)
