"""Measures statements against their baselines in short, alternating slices.

A slice is a few hundred microseconds of one statement. Slices of the baseline and of what is measured take turns, so that
both meet the same machine: neighbours, frequency, interrupts, allocator state. Every pair of slices gives one ratio.

A script of this folder prints one line of JSON per comparison; run.py starts it several times, because addresses, hash
seeds and code layout differ from process to process and matter at nanoseconds.
"""

import argparse
import json
import sys
import timeit
from collections.abc import Callable, Iterable
from typing import Any

Timed = Callable[[int], float]  # runs a number of loops, returns seconds


def arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--only", default="", help="figures, as P3,P4; default: all of this script")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repetitions")
    options = parser.parse_args()
    options.only = {name for name in options.only.upper().split(",") if name}
    return options


def wanted(options: argparse.Namespace, figure: str) -> bool:
    return not options.only or figure in options.only


def emit(figure: str, name: str, **values: Any) -> None:
    print(json.dumps({"figure": figure, "name": name, **values}), flush=True)


def skip(figure: str, reason: str, *groups: str) -> None:
    """What isn't measured: these groups of comparisons, or the whole figure."""
    for group in groups or (None,):
        emit(figure, "", skipped=reason, group=group)


def statement(source: str, setup: str = "pass", **names: Any) -> Timed:
    """The statement in a loop of its own: no function call is added to what is measured."""
    return timeit.Timer(source, setup, globals=names).timeit


def loops_for(run: Timed, seconds: float) -> int:
    run(1)  # what happens once: a heap is opened, a file is read
    loops = 1
    while (taken := min(run(loops), run(loops))) < seconds and loops < 10**8:
        loops = max(loops + 1, min(loops * 10, int(loops * 1.2 * seconds / max(taken, 1e-9))))
    return loops


def compare(
    figure: str,
    name: str,
    measured: Timed,
    baseline: Timed,
    against: str,
    *,
    slices: int = 60,
    seconds: float = 300e-6,
    **more: Any,
) -> None:
    """Emits seconds per loop of both, one pair per slice. A slice of the slower one takes `seconds`, or one loop."""
    runs = {"baseline": (baseline, loops_for(baseline, seconds)), "measured": (measured, loops_for(measured, seconds))}
    values: dict[str, list[float]] = {"baseline": [], "measured": []}
    for _ in range(slices):
        for key, (run, loops) in runs.items():
            values[key].append(run(loops) / loops)
    emit(figure, name, against=against, **more, **values)


def sizes(numbers: Iterable[int], quick: bool) -> list[int]:
    """All, or the ends and the middle."""
    every = list(numbers)
    return [every[0], every[len(every) // 2], every[-1]] if quick and len(every) > 3 else every


def label(nbytes: int) -> str:
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= scale and nbytes % scale == 0:
            return f"{nbytes // scale} {unit}"
    return f"{nbytes} B"


def require(module: str, figure: str) -> Any:
    try:
        return __import__(module)
    except ImportError as error:
        skip(figure, f"needs {module}: {error}")
        sys.exit(0)
