"""P7, P8 and P11 as Python sees them: round trips, one-way messages, handing an array over, against what the standard library has."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import isthmus as ist
import paired

TRIPS = 2000


# ---- run in workers, by name ---------------------------------------------------------------------------------------------


def echo(there: "ist.Queue[Any]", back: "ist.Queue[Any]") -> None:
    for item in there:
        back.put(item)


def receive(orders: "ist.Queue[int]", arrays: "ist.Queue[Any]", taken: "ist.Queue[float]") -> None:
    """For each order: how long one array takes to get, look at, and let go of."""
    for n in orders:
        while arrays.qsize() < n:
            pass
        begin = time.perf_counter()
        for _ in range(n):
            arrays.get()[0]
        taken.put((time.perf_counter() - begin) / n)


# ---- round trips -------------------------------------------------------------------------------------------------------------


def trips(put: Callable[[Any], Any], get: Callable[[], Any]) -> paired.Timed:
    def run(loops: int) -> float:
        begin = time.perf_counter()
        for i in range(loops):
            put(i)
            get()
        return time.perf_counter() - begin

    return run


def futex(quick: bool) -> dict[str, list[float]]:
    """Round trips of a bare futex word between two threads, from the program beside this one; not in the same slices."""
    program = Path(os.environ.get("ISTHMUS_BUILD", "")) / "bench" / "bench_queue"
    if not program.is_file():
        return {}
    lines = subprocess.run([program, "5" if quick else "15", "--json"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    return {one["against"]: one["baseline"] for one in found if one["figure"] == "P7" and one["group"] == "threads"}


def round_trips(quick: bool) -> None:
    with ist.WorkerPool(1) as interpreter, ist.WorkerPool(1, kind="process") as process:
        ways = []
        for pool in (interpreter, process):
            there, back = ist.Queue[int](16), ist.Queue[int](16)
            pool.submit(echo, there, back)
            ways.append((there, back))
        ours, processes = (trips(there.put, back.get) for there, back in ways)
        more = {"seconds": 0.02, "slices": 10 if quick else 40}
        paired.compare("P7", "between processes", processes, ours, "between interpreters", group="processes", **more)
        for against, baseline in futex(quick).items():
            loops = [ours(TRIPS) / TRIPS for _ in baseline]
            paired.emit("P7", "between interpreters, in Python", against=against, group="python", measured=loops, baseline=baseline)
        if sys.version_info >= (3, 14):
            compare_with_theirs(ours)
        else:
            paired.skip("P7", "concurrent.interpreters came with Python 3.14", "theirs")
        for there, _ in ways:
            there.shutdown()


def compare_with_theirs(ours: paired.Timed) -> None:
    import threading
    from concurrent import interpreters

    there, back = interpreters.create_queue(), interpreters.create_queue()
    other = interpreters.create()
    other.prepare_main(there=there, back=back)
    thread = threading.Thread(target=other.exec, args=("while (item := there.get()) is not None: back.put(item)",))
    thread.start()
    paired.compare(
        "P7", "between interpreters", ours, trips(there.put, back.get), "concurrent.interpreters.Queue", group="theirs", slices=5
    )
    there.put(None)
    thread.join()


# ---- one way -----------------------------------------------------------------------------------------------------------------


def one_way() -> None:
    ours, theirs = ist.Queue[Any](100), SimpleQueue[Any]()
    for name, item in (("a small int", 12345), ("an array", ist.zeros(100))):
        measured, baseline = (paired.statement("q.put(item); q.get()", q=q, item=item) for q in (ours, theirs))
        paired.compare("P8", f"{name}, put + get", measured, baseline, "queue.SimpleQueue", group=name)


# ---- handing over ------------------------------------------------------------------------------------------------------------


def hand_over(quick: bool) -> None:
    orders, arrays, taken = ist.Queue[int](), ist.Queue[Any](), ist.Queue[float]()
    with ist.WorkerPool(1, kind="process") as pool:
        pool.submit(receive, orders, arrays, taken)
        for nbytes in paired.sizes([1 << 10, 1 << 20, 1 << 26], quick):
            memory = shared_memory.SharedMemory(create=True, size=nbytes)
            values: dict[str, list[float]] = {"measured": [], "baseline": []}
            array = ist.empty(nbytes, "u1")
            for _ in range(5 if quick else 20):
                n = 200
                for _ in range(n):
                    arrays.put(array)
                orders.put(n)
                values["measured"].append(taken.get())
                begin = time.perf_counter()
                for _ in range(n):
                    other = shared_memory.SharedMemory(memory.name, **({"track": False} if sys.version_info >= (3, 13) else {}))
                    other.buf[0]
                    other.close()
                values["baseline"].append((time.perf_counter() - begin) / n)
            paired.emit("P11", f"an array of {paired.label(nbytes)}", against="SharedMemory by name", group="SharedMemory", **values)
            memory.close()
            memory.unlink()
        orders.shutdown()


def main() -> None:
    options = paired.arguments(__doc__)
    if paired.wanted(options, "P7"):
        round_trips(options.quick)
    if paired.wanted(options, "P8"):
        one_way()
    if paired.wanted(options, "P11"):
        hand_over(options.quick)


if __name__ == "__main__":
    main()
