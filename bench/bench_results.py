"""P15, large results: tasks that each make 4 MiB of numbers, by worker interpreters into one shared array and by a process pool
that pickles them back. Both have their workers ready before the clock starts, and both end with everything in one place.

And workers that are processes (kind="process") against that process pool: ndarrays of 4 MiB there and back, and calls with next to nothing.
"""

import argparse
import array
import concurrent.futures
import multiprocessing
import time
from collections.abc import Callable

import isthmus as ist
import numpy as np
import paired

LENGTH = 1 << 19  # doubles: 4 MiB
TASKS = 32
CALLS = 2000
WORKERS = 2


def make(task: int) -> array.array[float]:
    return array.array("d", range(task, task + LENGTH))


def into_row(table: ist.SharedArray, task: int) -> None:
    table[task] = make(task)


def ready() -> None:
    pass


def double(x: np.ndarray) -> np.ndarray:
    x *= 2
    return x


def ndarrays(pool: concurrent.futures.Executor, x: np.ndarray) -> float:
    begin = time.perf_counter()
    for _ in pool.map(double, [x] * TASKS):
        pass
    return time.perf_counter() - begin


def calls(pool: concurrent.futures.Executor) -> float:
    begin = time.perf_counter()
    for _ in pool.map(abs, range(CALLS)):
        pass
    return time.perf_counter() - begin


def by_interpreters(pool: ist.WorkerPool, table: ist.SharedArray) -> float:
    begin = time.perf_counter()
    list(pool.map(into_row, [table] * TASKS, range(TASKS)))
    return time.perf_counter() - begin


def by_processes(pool: concurrent.futures.ProcessPoolExecutor, table: ist.SharedArray) -> float:
    begin = time.perf_counter()
    for task, row in enumerate(pool.map(make, range(TASKS))):
        table[task] = row
    return time.perf_counter() - begin


def compare(
    options: argparse.Namespace, what: str, group: str, against: str, ours: Callable[[], float], theirs: Callable[[], float], work: int
) -> None:
    seconds: dict[str, list[float]] = {"baseline": [], "measured": []}
    for _ in range(3 if options.quick else 9):
        seconds["baseline"].append(theirs())
        seconds["measured"].append(ours())
    rates = {way: [work / taken for taken in times] for way, times in seconds.items()}
    paired.emit("P15", what, against=against, group=group, higher_is_better=True, unit="per second", **rates)


def main() -> None:
    options = paired.arguments(__doc__)
    import bench_results as by_name  # so that a worker imports it

    table = ist.zeros((TASKS, LENGTH), "f8")
    x = np.arange(float(LENGTH))
    theirs = concurrent.futures.ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))
    with ist.WorkerPool(WORKERS) as interpreters, ist.WorkerPool(WORKERS, "process") as ours, theirs:
        for executor in (interpreters, ours, theirs):
            concurrent.futures.wait([executor.submit(by_name.ready) for _ in range(4 * WORKERS)])
        compare(
            options,
            f"{WORKERS} workers, {TASKS} results of 4 MiB",
            "large results",
            "a process pool that pickles them",
            lambda: by_name.by_interpreters(interpreters, table),
            lambda: by_name.by_processes(theirs, table),
            TASKS,
        )
        compare(
            options,
            f"{WORKERS} processes, {TASKS} ndarrays of 4 MiB there and back",
            "ndarrays",
            "ProcessPoolExecutor",
            lambda: by_name.ndarrays(ours, x),
            lambda: by_name.ndarrays(theirs, x),
            TASKS,
        )
        compare(
            options,
            f"{WORKERS} processes, {CALLS} calls of abs",
            "calls",
            "ProcessPoolExecutor",
            lambda: by_name.calls(ours),
            lambda: by_name.calls(theirs),
            CALLS,
        )


if __name__ == "__main__":
    main()
