"""What the pool's tests run in workers: a module of its own, since workers import it by name."""

import array
import dataclasses
import os
import sys
import threading

import isthmus as ist

initialised = None


@dataclasses.dataclass
class Parcel:
    label: str
    content: object


class Picky(Exception):
    """Can be pickled, but not unpickled; cloned it is what it was."""

    def __init__(self, one, two):
        super().__init__(one)


class Stubborn(Exception):
    """Can't be pickled, and says itself how: so it isn't cloned by its parts."""

    def __reduce__(self):
        raise TypeError("not me")


class Unmakeable(Exception):
    """Can be sent, but not received."""

    def __reduce__(self):
        return divide, (1, 0)


class Plain:
    """Nothing that structured clone knows."""

    def __init__(self, content):
        self.content = content


@dataclasses.dataclass
class Stateful:
    """Says what of it is sent."""

    a: object
    lock: object = dataclasses.field(default_factory=threading.Lock)

    def __getstate__(self):
        return {"a": self.a, "lock": None}


class Last(BaseException):
    pass


def identity(x):
    return x


def with_length(x):
    return x, len(x)


def fill(x, value):
    x[:] = value
    return os.getpid(), threading.get_ident()


def fill_inside(parcel, *, extra):
    parcel.content["deep"][0][:] = 3
    extra[:] = 4
    return Parcel("back", [parcel.content["deep"][0], extra[1:3]])


def make(n):
    return ist.full(n, 5, "i4")


def increment(x, i):
    x[i] += 1


def meet(flags, mine):
    """Comes back only if somebody else runs this at the same time."""
    flags[mine] = 1
    while not flags[1 - mine]:
        pass
    return mine


def wait_for(flag, value=None):
    """Says that it runs in flag[0], then waits for flag[1]; interruptible at every instruction."""
    flag[0] = 1
    while not flag[1]:
        pass
    return value


def wait_and_sum(flag, x):
    wait_for(flag)
    return x.sum()


def divide(a, b):
    return a / b


def fail(kind, *args):
    raise {
        "unmakeable": Unmakeable,
        "picky": Picky,
        "stubborn": Stubborn,
        "last": Last,
        "exit": SystemExit,
        "interrupt": KeyboardInterrupt,
    }[kind](*args)


def chain():
    try:
        divide(1, 0)
    except ZeroDivisionError as error:
        raise KeyError("outer") from error


def fail_over_a_lock():
    try:
        raise RuntimeError("locked", threading.Lock())
    except RuntimeError:
        raise KeyError("outer")  # noqa: B904 the context is what this is about


def fail_with(x):
    raise ValueError("with an array", x)


def unpicklable():
    return threading.Lock()


def environment():
    return sys.path, sys.argv, os.getcwd(), "isthmus.pool" in sys.modules


def numbers(n):
    return array.array("d", range(n))


def initialise(value, x=None):
    global initialised
    if value == "fail":
        raise LookupError("no such thing")
    initialised = value
    if x is not None:
        x[threading.get_native_id() % len(x)] += 1  # of its own: two workers add at the same time


def what_was_initialised():
    return initialised


def attach_and_write(token, i):
    a = ist.attach(token)
    a[i] = a[i] + i + 1
    return a[i : i + 1]
