"""What test_processes.py does in a process: arrays through every carrier of multiprocessing and concurrent.futures.

Each function of the second part takes a start method's context, checks by assertions, and leaves nothing behind. The first part are what
runs in the processes that they start.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import isthmus as ist
from processes import SANITIZED, poll, state_of

WAIT = 60.0  # seconds


def numbered(*shape: int, dtype: str = "i8") -> Any:
    a = ist.zeros(shape, dtype)
    a[...] = ist.array(list(range(a.size)), dtype).reshape(*shape)
    return a


def same(a: Any) -> Any:
    """What is the same of an array in every process."""
    return a.segment.descriptor, a.shape, a.strides, a.dtype.str, a.readonly


def parts() -> dict[str, Any]:
    """One segment in all forms, and some others."""
    a = numbered(4, 6)
    return {
        "whole": a,
        "row": a[2],
        "steps": a[::2, 1::3],
        "back": a[::-1, ::-1],
        "turned": a.T,
        "cells": a.reshape(2, 2, 6),
        "readonly": a.toreadonly(),
        "readonly steps": a.toreadonly()[1:, ::2],
        "frozen": numbered(5, dtype="f4").freeze(),
        "none": ist.zeros((3, 0)),
        "point": ist.full((), 7, "u2"),
        "nested": [(a, {"again": [a[1:2]]}), numbered(3)],
    }


def check_parts(got: dict[str, Any]) -> None:
    a = got["whole"]
    assert a.tolist() == [list(range(6 * i, 6 * i + 6)) for i in range(4)]
    for key, expected in parts().items():
        for x, y in zip(flat(got[key]), flat(expected), strict=True):
            assert (x.tolist(), x.shape, x.strides, x.dtype, x.readonly) == (y.tolist(), y.shape, y.strides, y.dtype, y.readonly), key
            if key in ("readonly", "readonly steps", "frozen"):
                assert raises(lambda x=x: x.__setitem__(0, 1), ValueError), key
    assert got["frozen"].frozen and not got["readonly"].frozen and got["readonly"].readonly and got["point"][()] == 7
    a[0, 0] = 100  # they are one memory
    assert got["turned"][0, 0] == got["back"][3, 5] == got["readonly"][0, 0] == got["nested"][0][0][0, 0] == 100
    a[0, 0] = 0


def flat(x: Any) -> list[Any]:
    if isinstance(x, ist.SharedArray):
        return [x]
    return [y for part in (x.values() if isinstance(x, dict) else x) for y in flat(part)]


def raises(call: Any, kind: type[BaseException]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


# ---- in the children -----------------------------------------------------------------------------------------------


def receive_arguments(got: dict[str, Any], *, a: Any, answer: Any) -> None:
    check_parts(got)
    a[0] = -1
    got["whole"][3, 5] = -2
    answer.send([ist.full(3, 8.5), got["whole"][3], a])


def echo(inn: Any, out: Any) -> None:
    """Adds one to everything that comes and sends it back, with an array of its own, until None."""
    get = inn.recv if isinstance(inn, Connection) else inn.get
    put = out.send if isinstance(out, Connection) else out.put
    while (message := get()) is not None:
        number, a = message
        a[0] = a[0] + 1
        put((number, {"same": a, "own": ist.full(4, number, "i4")}))
    put(None)


def produce(out: Any, count: int) -> None:
    for i in range(count):
        out.put((i, ist.full(100, i)))
    out.put(None)


def consume(inn: Any, out: Any) -> None:
    while (message := inn.get()) is not None:
        i, a = message
        assert a.size == 100 and a.min() == a.max() == i
        a[0] = -i
        out.put((i, a))
    out.put(None)


def last_deed(out: Any, how: str) -> None:
    a = ist.full(1000, 3, "i2")
    (out.send if isinstance(out, Connection) else out.put)((os.getpid(), [a, a[5:7]]))
    if how == "_exit":
        os._exit(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def touch_manager(shared_list: Any, shared_dict: Any, space: Any) -> None:
    a = shared_list[0]
    a[0] = 11
    shared_dict["from child"] = ist.full(2, 12, "i8")
    space.a[1] = 13
    space.b = a[:2]


def fill(part: Any, value: int) -> int:
    part.fill(value)
    return os.getpid()


def make(n: int) -> Any:
    return numbered(n)


def total(a: Any) -> Any:
    return a.sum()


def identity(x: Any) -> Any:
    return x


def hold_and_wait(pipe: Any) -> None:
    message = pipe.recv()
    pipe.send(len(flat(message)))
    pipe.recv()  # for ever


# ---- carriers ------------------------------------------------------------------------------------------------------


def arguments(context: Any) -> None:
    """Process(args, kwargs)"""
    got, a = parts(), numbered(10)
    here, there = context.Pipe()
    child = context.Process(target=receive_arguments, args=(got,), kwargs={"a": a, "answer": there})
    child.start()
    there.close()
    own, row, back = here.recv()
    child.join(WAIT)
    assert child.exitcode == 0
    assert a[0] == -1 and got["whole"][3, 5] == -2 and row.tolist()[-1] == -2
    assert own.tolist() == [8.5] * 3 and same(back) == same(a) and same(row) == same(got["whole"][3])
    child.close()
    here.close()


def back_and_forth(context: Any, inn: Any, out: Any, put: Any, get: Any) -> None:
    child = context.Process(target=echo, args=(inn, out))
    child.start()
    arrays = [numbered(1 + 50 * i, 2)[:, 0] for i in range(20)]
    for i, a in enumerate(arrays):
        put((i, a))
    arrays_back = [get() for _ in arrays]
    for i, a in enumerate(arrays):
        number, got = arrays_back[i]
        assert number == i and a[0] == 1 and same(got["same"]) == same(a) and got["own"].tolist() == [i] * 4
    put(None)
    assert get() is None
    child.join(WAIT)
    assert child.exitcode == 0


def queue_(context: Any) -> None:
    """Queue"""
    inn, out = context.Queue(), context.Queue()
    back_and_forth(context, inn, out, inn.put, lambda: out.get(timeout=WAIT))
    for q in (inn, out):
        q.close()
        q.join_thread()


def simple_queue(context: Any) -> None:
    inn, out = context.SimpleQueue(), context.SimpleQueue()
    back_and_forth(context, inn, out, inn.put, out.get)
    inn.close()
    out.close()


def pipe(context: Any) -> None:
    """Pipe(duplex=True), one for both ways"""
    here, there = context.Pipe()
    back_and_forth(context, there, there, here.send, here.recv)
    here.close()
    there.close()


def joinable_queue(context: Any) -> None:
    q: Any = context.JoinableQueue(2)
    child = context.Process(target=produce, args=(q, 8))
    child.start()
    for i in range(8):
        number, a = q.get(timeout=WAIT)
        assert number == i and a.sum() == 100 * i
        q.task_done()
    assert q.get(timeout=WAIT) is None
    q.task_done()
    q.join()
    child.join(WAIT)
    q.close()


def siblings(context: Any) -> None:
    """From child to child and then here: the parent has never seen the arrays before."""
    first, second = context.SimpleQueue(), context.SimpleQueue()
    children = [context.Process(target=produce, args=(first, 12)), context.Process(target=consume, args=(first, second))]
    for child in children:
        child.start()
    got = []
    while (message := second.get()) is not None:
        got.append(message)
    for child in children:
        child.join(WAIT)
        assert child.exitcode == 0
    assert [i for i, _ in got] == list(range(12)) and all(a[0] == -i and a[99] == i for i, a in got)
    first.close()
    second.close()


def end_with_a_message(context: Any) -> None:
    """A child sends an array as the last thing it does, in three ways, and is gone before anybody reads."""
    for how in ("return", "_exit", "kill"):
        for carrier in ("pipe", "simple queue", "queue"):
            if carrier == "queue" and how != "return":
                continue  # its feeder thread hasn't sent yet
            inn: Any
            if carrier == "pipe":
                inn, out = context.Pipe(duplex=False)
            else:
                inn = out = context.Queue() if carrier == "queue" else context.SimpleQueue()
            child = context.Process(target=last_deed, args=(out, how))
            child.start()
            child.join(WAIT)
            assert child.exitcode == (-signal.SIGKILL if how == "kill" else 0)
            pid, (a, part) = (inn.recv if carrier == "pipe" else inn.get)()
            assert pid == child.pid and a.tolist() == [3] * 1000
            part[0] = 4
            assert a[5] == 4 and a.segment.descriptor == part.segment.descriptor
            inn.close()
            out.close()


def manager(context: Any) -> None:
    """Manager's list, dict and Namespace: held by the manager's process."""
    with context.Manager() as m:
        a = numbered(3)
        shared_list, shared_dict, space = m.list([a]), m.dict(), m.Namespace()
        space.a = a
        child = context.Process(target=touch_manager, args=(shared_list, shared_dict, space))
        child.start()
        child.join(WAIT)
        assert child.exitcode == 0
        assert a.tolist() == [11, 13, 2]
        assert same(shared_list[0]) == same(a) and same(space.b) == same(a[:2])
        a.release()  # the manager holds it
        assert shared_list[0].tolist() == [11, 13, 2] and shared_dict["from child"].tolist() == [12, 12]
        kept = shared_list.pop()
    assert kept.tolist() == [11, 13, 2]  # the manager is gone


def pool(context: Any) -> None:
    """Pool: map, apply, imap, imap_unordered, starmap, their asynchronous forms, and what workers made, after the workers' end."""
    a = numbered(40)
    with context.Pool(2) as p:
        p.starmap(fill, [(a[i : i + 10], i) for i in range(0, 40, 10)])
        assert a.tolist() == [i // 10 * 10 for i in range(40)]
        assert p.apply(total, (a,)) == a.sum() == p.apply_async(total, (a,)).get(WAIT)
        assert p.map(total, [a[:10], a[10:20]]) == [0, 100] == list(p.imap(total, [a[:10], a[10:20]]))
        made = p.map(make, [1, 2, 3]) + list(p.imap(make, [4, 5])) + sorted(p.imap_unordered(make, [6, 7]), key=len)
        back = p.map(identity, [a, [a.T, {"x": a[3:1:-1]}]])
    assert [x.tolist() for x in made] == [list(range(n)) for n in range(1, 8)]
    assert [same(x) for x in flat(back)] == [same(a), same(a.T), same(a[3:1:-1])]


def executor(context: Any) -> None:
    """ProcessPoolExecutor"""
    a = numbered(40)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        pids = set(pool.map(fill, [a[i : i + 10] for i in range(0, 40, 10)], range(4)))
        assert a.tolist() == [i // 10 for i in range(40)] and os.getpid() not in pids
        made = [pool.submit(make, n) for n in (5, 6)]
        assert pool.submit(total, a).result(WAIT) == 60
        assert same(pool.submit(identity, a[::3]).result(WAIT)) == same(a[::3])
        error = pool.submit(fill, a.toreadonly(), 1).exception(WAIT)
        assert error is not None and "read-only" in str(error)
    assert [f.result().tolist() for f in made] == [list(range(5)), list(range(6))]


def unread(context: Any) -> None:
    """Messages that nobody reads end with their lease: of a queue that is dropped, of a child killed in front of its message."""
    logged: list[int] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.args[0])  # type: ignore[method-assign, index, union-attr]
    logger = logging.getLogger("isthmus")
    logger.addHandler(handler)
    here, there = context.Pipe()
    child = context.Process(target=hold_and_wait, args=(there,))
    child.start()
    here.send([numbered(100), [numbered(100)]])
    assert here.recv() == 2  # it holds those
    before = ist.set_pickle_lease(
        0.3
    )  # not sooner: a child that is slow to start would come too late, and we would wait for its answer for ever
    os.kill(child.pid, signal.SIGSTOP)
    poll(lambda: state_of(child.pid) == "T", "it is stopped, so it reads nothing")
    here.send(numbered(1000)[::3])
    here.send(numbered(2000))
    os.kill(child.pid, signal.SIGKILL)
    child.join(WAIT)
    assert child.exitcode == -signal.SIGKILL
    q = context.SimpleQueue()
    q.put(numbered(50))
    q.close()
    here.close()
    there.close()
    ist.set_pickle_lease(before)
    poll(lambda: ist.segments() == [], "the leases run out")
    ist.sweep()
    assert sum(logged) == 3, logged
    logger.removeHandler(handler)


def in_constant_time(context: Any) -> None:
    """1 GiB as fast as 4 KiB, and nothing is copied. The bound is generous; a copy of 1 GiB takes 100 times as long."""
    here, there = context.Pipe()
    child = context.Process(target=echo, args=(there, there))
    child.start()
    took: dict[int, list[float]] = {}
    copied = ist.stats()["bytes_copied"]
    for _ in range(15):
        for size in (4096, 1 << 30):
            a = ist.zeros(size, "u1")
            start = time.perf_counter()
            here.send((0, a))
            got = here.recv()[1]["same"]
            took.setdefault(size, []).append(time.perf_counter() - start)
            assert got.size == size and got[0] == 1 and got[-1] == 0 and same(got) == same(a)
            del a, got
    small, large = (sorted(t)[len(t) // 2] for t in took.values())
    slack = 0.3 if SANITIZED else 0.05  # seconds; AddressSanitizer writes an eighth of the memory to note what may be used
    assert large < 20 * small + slack, (small, large)
    assert ist.stats()["bytes_copied"] == copied
    here.send(None)
    assert here.recv() is None
    child.join(WAIT)
    here.close()
    there.close()


def pickle_again(context: Any) -> None:
    """One message read by many: each load after the first needs somebody who holds the array."""
    a = numbered(6)
    data = pickle.dumps(a)
    with context.Pool(2) as p:
        assert p.map(load_and_sum, [data] * 6) == [15] * 6
        p.close()
        p.join()
    assert same(pickle.loads(data)) == same(a)
    a.release()
    ist.sweep()  # forked workers held it, too
    assert raises(lambda: pickle.loads(data), ist.SegmentGoneError)


def load_and_sum(data: bytes) -> Any:
    return pickle.loads(data).sum()


CHECKS = [arguments, queue_, simple_queue, pipe, joinable_queue, siblings, end_with_a_message, manager, pool, executor, unread,
          in_constant_time, pickle_again]  # fmt: skip


def check(name: str, method: str) -> None:
    function = next(f for f in CHECKS if f.__name__ == name)
    function(multiprocessing.get_context(method))
