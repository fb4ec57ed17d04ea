"""What only pools of processes, or of threads, have. What all kinds have in common is in test_pool.py."""

import concurrent.futures
import os
import signal
import threading

import isthmus as ist
import pool_tasks
import pytest
from processes import SANITIZED, heap_pages, poll
from scripts import finish, run, start, write

np = pytest.importorskip("numpy")

import kind_tasks as tasks  # noqa: E402 it imports numpy

pytestmark = pytest.mark.matrix

DEADLINE = 120
BIG = 100_000  # elements, above what is pickled


@pytest.fixture
def pool():
    with ist.WorkerPool(2, "process") as pool:
        yield pool


@pytest.fixture
def threads():
    with ist.WorkerPool(2, "thread") as pool:
        yield pool


@pytest.fixture
def copies():
    """How many array bytes were copied since this was called last."""
    before = ist.stats()["bytes_copied"]

    def since():
        nonlocal before
        now = ist.stats()["bytes_copied"]
        before, counted = now, now - before
        return counted

    return since


def gone(pid):
    """Whether nothing is left of a process, not even a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# ---- ndarrays ------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "C order": lambda x: x.reshape(100, 1000),
    "Fortran order": lambda x: x.reshape(100, 1000).T,
    "strided": lambda x: x.reshape(100, 1000)[::2, ::-1],
    "read-only": lambda x: np.broadcast_to(x, (2, BIG)),
    "0-d": lambda x: x[5].reshape(()),
    "empty": lambda x: x[:0],
    "small": lambda x: x[:10],
    "other byte order": lambda x: x.astype(">f8"),
    "integers": lambda x: x.astype("u2"),
    "bool": lambda x: x > 5,
    "complex": lambda x: x * 1j,
    "half": lambda x: (x / BIG).astype("f2"),
    "long double": lambda x: x.astype("g"),
    "dates": lambda x: x.astype("M8[s]"),
    "text": lambda x: x[:5000].astype("U9"),
    "fields": lambda x: np.rec.fromarrays([x, x.astype("i4")], names="a,b").view(np.ndarray),
    "subclass": lambda x: np.ma.masked_greater(x, 7),
    "objects": lambda x: np.array([None, "x", x[:3]], dtype=object),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ndarrays_arrive_as_what_they_are(pool, layout):
    x = LAYOUTS[layout](np.arange(float(BIG)))
    back = pool.submit(tasks.identity, x).result(DEADLINE)
    assert type(back) is type(x) and back.dtype == x.dtype and back.shape == x.shape
    assert np.array_equal(back, x) if layout != "objects" else repr(back) == repr(x)
    assert back.flags.fnc == x.flags.fnc
    if type(x) is np.ndarray:
        assert back.flags.writeable, "a result is the receiver's own, as it is from a pickle"


def test_an_ndarray_is_copied_once_and_comes_back_for_nothing(pool, copies):
    x = np.arange(float(BIG))
    assert pool.submit(tasks.describe, x).result(DEADLINE) == ("ndarray", (BIG,), "<f8", (8,), True, x.sum())
    assert copies() == x.nbytes, "one copy in"
    back = pool.submit(tasks.double, x).result(DEADLINE)
    assert copies() == x.nbytes, "one copy in, none out"
    assert back[5] == 10 and x[5] == 5, "the worker's was a copy"
    back[5] = 1
    made = pool.submit(tasks.numbers, BIG).result(DEADLINE)
    assert copies() == x.nbytes, "what a task made is copied once, out of its heap"
    assert np.array_equal(made, x)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_part_of_an_argument_comes_back_without_a_copy(pool, copies, order):
    x = np.asarray(np.arange(float(BIG)).reshape(100, -1), order=order)
    results = {
        "reshaped": (tasks.reshaped, (), x.reshape(2, -1)),
        "transposed": (tasks.transposed, (), x.T),
        "part": (tasks.part, (10, 90), x[10:90]),
        "as integers": (tasks.as_integers, (), x.view("i8")) if order == "C" else (tasks.transposed, (), x.T),
        "every other": (tasks.every_other, (), x[::2]),
    }
    for name, (task, args, expected) in results.items():
        copies()
        back = pool.submit(task, x, *args).result(DEADLINE)
        assert np.array_equal(back, expected) and back.dtype == expected.dtype, name
        without_gaps = np.shares_memory(expected, x) and (expected.flags.c_contiguous or expected.flags.f_contiguous)
        assert copies() == x.nbytes + (0 if without_gaps else expected.nbytes), name


def test_an_ndarray_over_an_array_is_copied_both_ways(pool):
    """Unlike one that was copied for the call, it is somebody's."""
    a = ist.zeros(BIG)
    back = pool.submit(tasks.as_ndarray, a, np.ones(BIG)).result(DEADLINE)
    back[:] = 1
    assert a.sum() == 0
    pool.submit(tasks.double, np.asarray(a)).result(DEADLINE)[:] = 1
    assert a.sum() == 0


def test_what_a_task_keeps_of_an_ndarray_stays_until_the_worker_ends():
    with ist.WorkerPool(1, "process") as pool:
        x = np.ones(8 << 20)
        pool.submit(tasks.keep, x).result(DEADLINE)
        x[:] = 0
        pool.submit(tasks.double, x).result(DEADLINE)
        assert pool.submit(tasks.look_at_kept).result(DEADLINE) == 1
        poll(lambda: ist.segments() == [], "it is the worker's alone")
        assert heap_pages(os.getpid()) >= x.nbytes
    poll(lambda: heap_pages(os.getpid()) < x.nbytes, "the memory comes back")


def test_numpy_works_on_shared_arrays_in_place(pool, copies):
    a = ist.zeros((4, 5))
    concurrent.futures.wait([pool.submit(tasks.add_in_place, a[i], i) for i in range(4)], DEADLINE)
    assert np.asarray(a).sum(axis=1).tolist() == [0, 5, 10, 15] and copies() == 0


def test_an_exception_may_carry_an_ndarray(pool):
    error = pool.submit(tasks.raise_with, np.arange(float(BIG))).exception(DEADLINE)
    assert type(error) is ValueError and error.args[1][-1] == BIG - 1


def test_an_interpreter_gets_the_array(copies):
    """Where numpy can't be imported an ndarray arrives as what it lies in: also inside of what is pickled."""
    x = np.arange(100.0)
    with ist.WorkerPool(1) as pool:
        back = pool.submit(pool_tasks.identity, [x, x.reshape(10, 10).T, pool_tasks.Plain(x)]).result(DEADLINE)
        assert [type(one) for one in (back[0], back[1], back[2].content)] == [ist.SharedArray] * 3
        assert copies() == 3 * x.nbytes
        assert back[1].strides == (8, 80) and np.array_equal(back[1], x.reshape(10, 10).T)
        assert np.array_equal(back[0], x) and np.array_equal(back[2].content, x)
        with pytest.raises(ImportError, match='numpy can\'t be used in an own-GIL interpreter: use kind="process"') as caught:
            pool.submit(pool_tasks.identity, x[5]).result(DEADLINE)
        assert "x.item()" in "".join(caught.value.__notes__)


# ---- processes that end --------------------------------------------------------------------------------------------

ENDS = [
    (signal.SIGKILL, "was killed by SIGKILL"),
    *([] if SANITIZED else [(signal.SIGSEGV, "was killed by SIGSEGV")]),  # which makes a report of it
    (signal.SIGABRT, "was killed by SIGABRT"),
    (-signal.SIGRTMIN - 3, f"was killed by signal {signal.SIGRTMIN + 3}"),
    (0, "ended with exit status 0"),
    (7, "ended with exit status 7"),
]


@pytest.mark.parametrize(("how", "text"), ENDS, ids=[text for _, text in ENDS])
def test_a_worker_that_ends_breaks_the_pool(how, text):
    a, flag = ist.zeros(BIG), ist.zeros(2, "i8")
    with ist.WorkerPool(2, "process") as pool:
        other = pool.submit(tasks.spin, flag)
        poll(lambda: flag[0], "it runs")
        died = pool.submit(tasks.die, how)
        waiting = []
        with concurrent.futures.ThreadPoolExecutor(1):  # whatever is submitted meanwhile is told as well
            try:
                waiting.append(pool.submit(tasks.add_in_place, a, 1))
            except ist.BrokenWorkerPool:
                pass
        for future in [died, other, *waiting]:
            error = future.exception(DEADLINE)
            assert isinstance(error, ist.BrokenWorkerPool) and isinstance(error, concurrent.futures.BrokenExecutor), error
            assert text in str(error), "every future says what happened"
        with pytest.raises(ist.BrokenWorkerPool, match=text):
            pool.submit(abs, 1)
    assert gone(flag[0]), "the others are ended as well"
    poll(lambda: a.segment.processes <= 1 and a.owners == 1, "nothing of theirs is left")


def test_what_a_killed_worker_held_comes_back():
    a, flag = ist.zeros(BIG), ist.zeros(2, "i8")
    with ist.WorkerPool(1, "process") as pool:
        future = pool.submit(tasks.die_holding, flag, a)
        assert "SIGKILL" in str(future.exception(DEADLINE))
    assert heap_pages(os.getpid()) < 64 << 20, "at once"
    assert a.owners == 1 and a.segment.processes == 1
    del a, flag
    poll(lambda: ist.segments() == [], "what only the worker knew is gone as well")
    assert ist.stats()["leases"] == 0


def test_a_worker_killed_while_it_waits_is_noticed():
    with ist.WorkerPool(1, "process") as pool:
        pid = pool.submit(os.getpid).result(DEADLINE)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ist.BrokenWorkerPool, match="SIGKILL"):
            for _ in range(3):
                pool.submit(abs, 1).result(DEADLINE)


def test_a_stopped_worker_goes_on_later():
    with ist.WorkerPool(1, "process") as pool:
        pid = pool.submit(os.getpid).result(DEADLINE)
        os.kill(pid, signal.SIGSTOP)
        future = pool.submit(abs, -4)
        with pytest.raises(TimeoutError):
            future.result(0.05)
        os.kill(pid, signal.SIGCONT)
        assert future.result(DEADLINE) == 4


@pytest.mark.parametrize("task", [tasks.spin, tasks.stubborn, tasks.wait_in_c], ids=["in Python", "ignores SIGTERM", "waits in C"])
def test_terminate_ends_every_process(task, monkeypatch):
    monkeypatch.setattr("isthmus._process_main.PATIENCE", 0.5)
    flag = ist.zeros(2, "i8")
    with ist.WorkerPool(1, "process") as pool:
        future = pool.submit(task, flag)
        poll(lambda: flag[0], "it runs")
        pool.terminate_workers()
        assert gone(flag[0])
        with pytest.raises(ist.WorkerError, match="terminated"):
            future.result(0)


def test_terminate_while_a_worker_starts():
    for _ in range(3):
        with ist.WorkerPool(2, "process") as pool:
            futures = [pool.submit(abs, -1) for _ in range(2)]
            pool.terminate_workers()
            for future in futures:
                assert future.cancelled() or future.done()


def test_a_grandchild_that_lives_on_holds_nothing_up():
    flag = ist.zeros(2, "i8")
    with ist.WorkerPool(1, "process") as pool:
        child = pool.submit(tasks.fork_and_return, flag).result(DEADLINE)
        worker = pool.submit(os.getpid).result(DEADLINE)
        assert child == flag[0] and not gone(child)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(ist.BrokenWorkerPool, match="SIGKILL"):
            pool.submit(abs, 1).result(DEADLINE)
            pool.submit(abs, 1).result(DEADLINE)
    flag[1] = 1
    poll(lambda: gone(child), "the grandchild ends")


def test_a_task_that_closes_every_descriptor():
    with ist.WorkerPool(1, "process") as pool:
        with pytest.raises(ist.BrokenWorkerPool):
            pool.submit(tasks.close_everything).result(DEADLINE)
            pool.submit(abs, 1).result(DEADLINE)


def test_tasks_may_start_programs_and_pools(pool):
    assert pool.submit(tasks.start_program).result(DEADLINE) == "2\n"
    assert pool.submit(tasks.use_own_pool).result(DEADLINE) == 3


SCRIPTS = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "_exit": "os._exit(3)",
    "stopped with a task": "pool.submit(spin, flag); wait(); os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("how", SCRIPTS)
def test_workers_end_with_their_parent(how, tmp_path):
    """However that ends: not one is left, nor what they held."""
    script = write(
        tmp_path,
        f"""
        import os, signal, sys
        import isthmus as ist

        def spin(flag):
            flag[0] = 1
            while True:
                pass

        def wait():
            while not flag[0]:
                pass

        if __name__ == "__main__":
            flag = ist.zeros(1, "i4")
            pool = ist.WorkerPool(2, "process")
            print(*[pool.submit(os.getpid).result() for _ in range(2)], flush=True)
            {SCRIPTS[how]}
        """,
    )
    outcome = finish(start(script))
    pids = [int(word) for word in outcome.out.split()]
    assert len(pids) == 2, outcome
    poll(lambda: all(gone(pid) or zombie(pid) for pid in pids), "the workers end")


def zombie(pid):
    """Ended, though whoever inherited it doesn't care."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_an_open_pool_ends_with_the_program(tmp_path):
    script = write(
        tmp_path,
        """
        import os
        import isthmus as ist
        if __name__ == "__main__":
            pool = ist.WorkerPool(2, "process")
            futures = [pool.submit(os.getpid) for _ in range(20)]
            futures[-1].add_done_callback(lambda f: print(*{f.result() for f in futures}))
        """,
    )
    outcome = run(script)
    assert outcome.status == 0 and outcome.err == "", outcome
    assert all(gone(int(pid)) for pid in outcome.out.split()) and outcome.out


def test_in_a_process_of_multiprocessing(tmp_path):
    script = write(
        tmp_path,
        """
        import multiprocessing as mp, os
        import isthmus as ist

        def main(a):
            pool = ist.WorkerPool(2, "process")   # never shut down
            pool.submit(fill, a).result()

        def fill(a):
            a[:] = 7

        if __name__ == "__main__":
            a = ist.zeros(3)
            for way in sorted(mp.get_all_start_methods()):
                process = mp.get_context(way).Process(target=main, args=(a,))
                process.start()
                process.join(60)
                print(way, process.exitcode, a.tolist())
                process.kill()
                a[:] = 0
        """,
    )
    outcome = run(script)
    assert outcome.err == "" and outcome.out == "".join(f"{way} 0 [7.0, 7.0, 7.0]\n" for way in ("fork", "forkserver", "spawn")), outcome


# ---- threads -------------------------------------------------------------------------------------------------------


def test_threads_pass_everything_as_it_is(threads, copies):
    lock, x, a = threading.Lock(), np.arange(float(BIG)), ist.zeros(3)
    for thing in (lock, x, a, lambda: 1, (i for i in ())):
        assert threads.submit(lambda y: y, thing).result(DEADLINE) is thing
    assert copies() == 0
    pid, name, ident = threads.submit(tasks.who).result(DEADLINE)
    assert pid == os.getpid() and name.startswith("WorkerPool-") and ident != threading.get_ident()


def test_a_threads_exception_is_that_exception(threads):
    error = KeyError("x")

    def fail():
        raise error

    assert threads.submit(fail).exception(DEADLINE) is error
    told = threads.submit(lambda: exec("raise SystemExit(3)")).exception(DEADLINE)
    assert type(told) is ist.WorkerError and str(told) == "SystemExit: 3" and isinstance(told.__cause__, SystemExit)
    assert threads.submit(abs, -1).result(DEADLINE) == 1, "the worker goes on"


def test_terminate_in_a_thread_leaves_the_next_task_alone():
    """The SystemExit is for the task that runs; one that comes too late is taken back."""
    for _ in range(200):
        pool = ist.WorkerPool(1, "thread")
        future = pool.submit(sum, range(1000))
        pool.terminate_workers()
        assert future.cancelled() or isinstance(future.exception(0), ist.WorkerError) or future.result(0) == 499500


def test_a_task_may_end_its_own_pool():
    with ist.WorkerPool(2, "thread") as pool:
        future = pool.submit(tasks.stop_myself, pool)
        future.exception(DEADLINE)
        with pytest.raises(RuntimeError):
            pool.submit(abs, 1)


def test_a_call_that_comes_while_a_worker_gets_idle_has_one_worker():
    """It started a worker: another one that takes it meanwhile mustn't count as idle besides, or a worker is missing later."""

    class Queue:
        def __init__(self, queue):
            self.queue = queue

        def __getattr__(self, name):
            return getattr(self.queue, name)

        def empty(self):
            empty = self.queue.empty()
            if empty and meanwhile:
                meanwhile.pop()()
            return empty

    second = []
    meanwhile = [lambda: second.append(pool.submit(abs, -2))]
    barrier = threading.Barrier(3)
    with ist.WorkerPool(3, "thread") as pool:
        pool._crew.queue = Queue(pool._crew.queue)
        assert pool.submit(abs, -1).result(DEADLINE) == 1
        poll(lambda: second, "the call that comes meanwhile")
        assert second[0].result(DEADLINE) == 2
        poll(lambda: pool._crew.idle >= len(pool._crew.workers) == 2, "two idle workers")
        waiting = [pool.submit(barrier.wait, DEADLINE / 4) for _ in range(3)]
        assert sorted(f.result(DEADLINE) for f in waiting) == [0, 1, 2]
