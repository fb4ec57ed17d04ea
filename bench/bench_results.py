"""P15, large results: tasks that each make 4 MiB of numbers, by worker interpreters into one shared array and by a process pool
that pickles them back. Both have their workers ready before the clock starts, and both end with everything in one place.
"""

import array
import concurrent.futures
import multiprocessing
import time
from collections.abc import Callable

import isthmus as ist
import paired

LENGTH = 1 << 19  # doubles: 4 MiB
TASKS = 32
WORKERS = 2


def make(task: int) -> array.array[float]:
    return array.array("d", range(task, task + LENGTH))


def into_row(table: ist.SharedArray, task: int) -> None:
    table[task] = make(task)


def ready() -> None:
    pass


def by_interpreters(pool: ist.WorkerPool, table: ist.SharedArray) -> float:
    begin = time.perf_counter()
    list(pool.map(into_row, [table] * TASKS, range(TASKS)))
    return time.perf_counter() - begin


def by_processes(pool: concurrent.futures.ProcessPoolExecutor, table: ist.SharedArray) -> float:
    begin = time.perf_counter()
    for task, row in enumerate(pool.map(make, range(TASKS))):
        table[task] = row
    return time.perf_counter() - begin


def main() -> None:
    options = paired.arguments(__doc__)
    import bench_results as by_name  # so that a worker imports it

    table = ist.zeros((TASKS, LENGTH), "f8")
    spawn = multiprocessing.get_context("spawn")
    with ist.WorkerPool(WORKERS) as interpreters, concurrent.futures.ProcessPoolExecutor(WORKERS, mp_context=spawn) as processes:
        for executor in (interpreters, processes):
            concurrent.futures.wait([executor.submit(by_name.ready) for _ in range(4 * WORKERS)])
        ways: dict[str, Callable[[], float]] = {
            "baseline": lambda: by_name.by_processes(processes, table),
            "measured": lambda: by_name.by_interpreters(interpreters, table),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(3 if options.quick else 9):
            for way, run in ways.items():
                seconds[way].append(run())
    rates = {way: [TASKS / taken for taken in times] for way, times in seconds.items()}
    paired.emit(
        "P15",
        f"{WORKERS} workers, {TASKS} results of 4 MiB",
        against="a process pool that pickles them",
        group="large results",
        higher_is_better=True,
        unit="results per second",
        **rates,
    )


if __name__ == "__main__":
    main()
