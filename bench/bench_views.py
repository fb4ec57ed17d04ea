"""P5: two interpreters make views of one segment at once, or each of a bytearray of its own.

Both take their slices together: before each they wait for the other on words of a shared array. The baseline isn't
perfect freedom: CPython itself has words that all interpreters write (measured: two interpreters with a bytearray each
reach 0.9 to 1.8 times one), which is why it is the baseline.
"""

import time
from collections.abc import Callable

import isthmus as ist
import paired

SLICES = 60
LOOPS = 5000


def make_views(source: ist.SharedArray | bytearray, loops: int) -> float:
    begin = time.perf_counter()
    for _ in range(loops):
        memoryview(source)
    return time.perf_counter() - begin


def take_turns(own: int, gate: ist.SharedArray, shared: ist.SharedArray, slices: int) -> list[list[float]]:
    """Run by worker number `own`: seconds of its slices, of its bytearray and of the shared segment."""
    private = bytearray(8000)
    times: list[list[float]] = [[], []]
    turn = 0
    for _ in range(slices):
        for source, into in zip((private, shared), times, strict=True):
            turn += 1
            gate[own * 8] = turn  # words of different cache lines
            while gate[(1 - own) * 8] < turn:
                pass
            into.append(make_views(source, LOOPS))
    return times


def main() -> None:
    options = paired.arguments(__doc__)
    slices = SLICES // 3 if options.quick else SLICES
    import bench_views  # by name: a worker imports it

    task: Callable[..., list[list[float]]] = bench_views.take_turns
    gate, shared = ist.zeros(16, "i8"), ist.zeros(1000)
    with ist.WorkerPool(2) as pool:
        first, second = [pool.submit(task, own, gate, shared, slices) for own in (0, 1)]
        pairs = list(zip(first.result(), second.result(), strict=True))
    # views per second of both together
    own, one = ([LOOPS / a + LOOPS / b for a, b in zip(*pair, strict=True)] for pair in pairs)
    paired.emit(
        "P5",
        "2 interpreters, memoryview(a)",
        against="a bytearray each",
        higher_is_better=True,
        baseline=own,
        measured=one,
        unit="views per second",
    )


if __name__ == "__main__":
    main()
