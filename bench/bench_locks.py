"""P19: locks: alone, against threading's and multiprocessing's; contended by two workers; how evenly those are served.

Contended, two processes do nothing but take one lock and give it back for a tenth of a second; reported is the time that an
acquisition took, both counted, and how many the one who got fewer had for each of the other's. Two semaphores to and fro give
the time of a hand-over by itself.
"""

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from typing import Any

import isthmus as ist
import paired

SECONDS = 0.1
LEAD = 0.02  # until both have heard of it
TRIPS = 1000

Lock = AbstractContextManager[Any]
Semaphores = tuple[Any, Any]


# ---- run in workers, by name ---------------------------------------------------------------------------------------------


def contend(lock: Lock, begin: float) -> int:
    """How often this side got the lock."""
    end, count = begin + SECONDS, 0
    while time.monotonic() < begin:
        pass
    while time.monotonic() < end:
        with lock:
            count += 1
    return count


def answer(semaphores: Semaphores) -> None:
    there, back = semaphores
    for _ in range(TRIPS):
        there.acquire()
        back.release()


def serve(pipe: "Connection[Any, Any]", functions: dict[str, tuple[Callable[..., Any], Any]]) -> None:
    for name, *arguments in iter(pipe.recv, None):
        function, first = functions[name]
        pipe.send(function(first, *arguments))


# ---- two sides -------------------------------------------------------------------------------------------------------------


class Processes:
    """Two processes, as multiprocessing's locks can only be inherited by what multiprocessing starts."""

    def __init__(self, functions: dict[str, tuple[Callable[..., Any], Any]]) -> None:
        spawn = multiprocessing.get_context("spawn")
        pairs = [spawn.Pipe() for _ in range(2)]
        self.pipes = [here for here, _ in pairs]
        self.processes = [spawn.Process(target=serve, args=(there, functions)) for _, there in pairs]
        for process in self.processes:
            process.start()

    def contend(self, name: str) -> list[int]:
        begin = time.monotonic() + LEAD
        for pipe in self.pipes:
            pipe.send((name, begin))
        return [pipe.recv() for pipe in self.pipes]

    def trips(self, name: str, semaphores: Semaphores) -> float:
        self.pipes[0].send((name,))
        taken = trips(semaphores)
        self.pipes[0].recv()
        return taken

    def close(self) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(None)
            process.join()


def trips(semaphores: Semaphores) -> float:
    """Seconds for one way of a round trip with whoever runs answer()."""
    there, back = semaphores
    there.release()
    back.acquire()  # the other side has begun
    begin = time.perf_counter()
    for _ in range(TRIPS - 1):
        there.release()
        back.acquire()
    return (time.perf_counter() - begin) / (TRIPS - 1) / 2


# ---- figures ---------------------------------------------------------------------------------------------------------------


def alone() -> None:
    for name, statement in (
        ("Lock", "x.acquire(); x.release()"),
        ("RLock", "x.acquire(); x.release()"),
        ("Semaphore", "x.acquire(); x.release()"),
        ("Event", "x.is_set()"),
    ):
        ours = paired.statement(statement, x=getattr(ist, name)())
        for module in (threading, multiprocessing):
            theirs = paired.statement(statement, x=getattr(module, name)())
            what = "is_set()" if name == "Event" else "acquire + release"
            against = f"{module.__name__}.{name}"
            paired.compare("P19", f"{name}, {what}", ours, theirs, against, group=module.__name__)


def emit_contended(between: str, group: str, ours: list[list[int]], theirs: list[list[int]]) -> None:
    measured, baseline = ([SECONDS / sum(counts) for counts in turns] for turns in (ours, theirs))
    name = f"Lock, contended by {between}"
    paired.emit("P19", name, against="multiprocessing.Lock", group=group, measured=measured, baseline=baseline)


def emit_fairness(who: str, group: str, turns: list[list[int]]) -> None:
    least, most = ([float(pick(counts)) for counts in turns] for pick in (min, max))
    name = f"{who}: who got it less often"
    paired.emit("P19", name, against="who got it more often", group=group, unit="times", measured=least, baseline=most)


def contended(quick: bool) -> None:
    spawn = multiprocessing.get_context("spawn")
    lock, their_lock = ist.Lock(), spawn.Lock()
    semaphores = ist.Semaphore(0), ist.Semaphore(0)
    their_semaphores = spawn.Semaphore(0), spawn.Semaphore(0)
    functions = {
        "ours": (contend, lock),
        "theirs": (contend, their_lock),
        "our semaphores": (answer, semaphores),
        "their semaphores": (answer, their_semaphores),
    }
    slices = 5 if quick else 15
    ours: list[list[int]] = []
    theirs: list[list[int]] = []
    interpreters: list[list[int]] = []
    hand_over: dict[str, list[float]] = {"baseline": [], "measured": [], "interpreters": []}
    processes = Processes(functions)
    with ist.WorkerPool(2) as pool:
        for future in [pool.submit(contend, lock, 0.0) for _ in range(2)]:
            future.result()  # both are there
        for _ in range(slices):
            theirs.append(processes.contend("theirs"))
            ours.append(processes.contend("ours"))
            begin = time.monotonic() + LEAD
            futures: list[Future[int]] = [pool.submit(contend, lock, begin) for _ in range(2)]
            interpreters.append([future.result() for future in futures])
            hand_over["baseline"].append(processes.trips("their semaphores", their_semaphores))
            hand_over["measured"].append(processes.trips("our semaphores", semaphores))
            answering = pool.submit(answer, semaphores)
            hand_over["interpreters"].append(trips(semaphores))
            answering.result()
    processes.close()
    emit_contended("two processes", "contended", ours, theirs)
    emit_contended("two interpreters", "contended", interpreters, theirs)
    for name, side in (("processes", "measured"), ("interpreters", "interpreters")):
        values = {"measured": hand_over[side], "baseline": hand_over["baseline"]}
        against = "multiprocessing.Semaphore"
        paired.emit("P19", f"Semaphore, one way between {name}", against=against, group="hand-over", **values)
    emit_fairness("Lock, two processes", "fairness", ours)
    emit_fairness("Lock, two interpreters", "fairness", interpreters)
    emit_fairness("multiprocessing.Lock, two processes", "their fairness", theirs)


def main() -> None:
    options = paired.arguments(__doc__)
    alone()
    contended(options.quick)


if __name__ == "__main__":
    main()
