"""P10: what a call of a pool of worker interpreters costs, against the standard library's executors.

submit → result of a call that does nothing, one at a time, against ThreadPoolExecutor; and map of 10,000 calls against
InterpreterPoolExecutor (3.14 and later) and ProcessPoolExecutor. All have two workers, which run before the clock starts.
"""

import concurrent.futures
import contextlib
import multiprocessing
import time
from collections.abc import Callable

import isthmus as ist
import paired

WORKERS = 2
CALLS = 10_000


def one_at_a_time(pool: concurrent.futures.Executor) -> paired.Timed:
    def run(loops: int) -> float:
        begin = time.perf_counter()
        for _ in range(loops):
            pool.submit(abs, -1).result()
        return time.perf_counter() - begin

    return run


def all_at_once(pool: concurrent.futures.Executor) -> Callable[[], float]:
    def run() -> float:
        begin = time.perf_counter()
        for _ in pool.map(abs, range(CALLS)):
            pass
        return time.perf_counter() - begin

    return run


def main() -> None:
    options = paired.arguments(__doc__)
    interpreters = getattr(concurrent.futures, "InterpreterPoolExecutor", None)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(ist.WorkerPool(WORKERS))
        threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor(WORKERS))
        processes = stack.enter_context(concurrent.futures.ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")))
        others = {"processes": ("ProcessPoolExecutor", processes)}
        if interpreters is not None:
            others["interpreters"] = ("InterpreterPoolExecutor", stack.enter_context(interpreters(WORKERS)))
        else:
            paired.skip("P10", "InterpreterPoolExecutor came with Python 3.14", "interpreters")
        for pool in (ours, threads, *(pool for _, pool in others.values())):
            concurrent.futures.wait([pool.submit(abs, 1) for _ in range(20 * WORKERS)])
        slices = 20 if options.quick else 60
        call, against = one_at_a_time(ours), one_at_a_time(threads)
        paired.compare("P10", "submit → result", call, against, "ThreadPoolExecutor", group="call", slices=slices, seconds=5e-3)
        for group, (name, pool) in others.items():
            seconds: dict[str, list[float]] = {"baseline": [], "measured": []}
            for _ in range(2 if options.quick else 5):
                seconds["baseline"].append(all_at_once(pool)())
                seconds["measured"].append(all_at_once(ours)())
            paired.emit("P10", f"map of {CALLS:,} calls", against=name, group=group, **seconds)


if __name__ == "__main__":
    main()
