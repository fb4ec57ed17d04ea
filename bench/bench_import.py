"""P14: import isthmus in a new interpreter, against import array: time, and memory the process grows by."""

import importlib
import os
import sys
from collections.abc import Callable

import isthmus  # noqa: F401 - the process has it: what is measured is one more interpreter
import paired

BEFORE = """
import os, sys, time
def resident():
    with open("/proc/self/smaps_rollup") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith(("Private_Dirty:", "Shared_Dirty:")))
resident()
"""
IMPORT = """
memory = resident()
begin = time.perf_counter()
import {module}
seconds = time.perf_counter() - begin
memory = resident() - memory
os.write({pipe}, (str(seconds) + " " + str(memory) + "\\n").encode())
"""


def runner() -> tuple[Callable[[], int], Callable[[int, str], object], Callable[[int], None]]:
    """How this version makes, uses and ends an interpreter."""
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    module = importlib.import_module(name)
    run = module.exec if sys.version_info >= (3, 13) else module.run_string
    return module.create, run, module.destroy


def measure(modules: list[str]) -> list[tuple[float, int]]:
    """Seconds and KiB of importing each in an interpreter of its own, which all exist beforehand: none inherits freed memory."""
    create, run, destroy = runner()
    numbers = [create() for _ in modules]
    readable, writable = os.pipe()
    results = []
    for number in numbers:
        run(number, BEFORE)
    for number, module in zip(numbers, modules, strict=True):
        failed = run(number, IMPORT.format(module=module, pipe=writable))
        if failed is not None:
            raise RuntimeError(str(failed))
        seconds, kib = os.read(readable, 100).decode().split()
        results.append((float(seconds), int(kib)))
    for number in numbers:
        destroy(number)
    return results


def main() -> None:
    options = paired.arguments(__doc__)
    measure(["array", "isthmus"])  # files in the page cache, bytecode written
    times = 3 if options.quick else 6
    results = measure(["array", "isthmus"] * times)
    arrays, ours = results[::2], results[1::2]
    for place, name, unit in ((0, "time", "s"), (1, "memory", "KiB")):
        paired.emit(
            "P14",
            name,
            against="import array",
            unit=unit,
            absolute=True,
            baseline=[values[place] for values in arrays],
            measured=[values[place] for values in ours],
        )


if __name__ == "__main__":
    main()
