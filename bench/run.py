"""Runs the benchmarks and says which targets are reached.

    python bench/run.py [--only P3,P4] [--quick] [--write]

Every figure is a ratio against a baseline measured in the same process, in alternating slices (paired.py); the programs
run several times in turn. Raw data go to build/bench/, as pyperf's JSON where the values are seconds (`python -m pyperf
show`), with a plot of the messages beside them. --write puts the tables into docs/performance.md.

ISTHMUS_BUILD names a release build with -DISTHMUS_BUILD_BENCH=ON whose package is on PYTHONPATH: `./run bench` does that.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plot import plot

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGE = ROOT / "docs" / "performance.md"
RAW = ROOT / "build" / "bench"


@dataclass
class Program:
    """One executable or script, started `rounds` times; its figures."""

    name: str
    figures: tuple[str, ...]
    rounds: int
    quick_rounds: int


PROGRAMS = [
    Program("bench_segment", ("P1", "P2"), 9, 3),
    Program("bench_live", ("P13",), 3, 1),
    Program("bench_array.py", ("P3", "P4", "P18"), 7, 2),
    Program("bench_views.py", ("P5",), 5, 2),
    Program("bench_crossing.py", ("P6",), 5, 2),
    Program("bench_import.py", ("P14",), 4, 1),
    Program("bench_queue", ("P7",), 3, 1),
    Program("bench_queue.py", ("P7", "P8", "P11"), 3, 1),
    Program("bench_peers.py", ("P8", "P11"), 2, 1),
    Program("bench_locks.py", ("P19",), 3, 1),
    Program("bench_clone.py", ("P9",), 4, 1),
    Program("bench_pool.py", ("P10",), 4, 1),
    Program("bench_reduce.py", ("P16",), 2, 1),
    Program("bench_touch.py", ("P12",), 3, 1),
    Program("bench_attach.py", ("P17",), 3, 1),
    Program("demo.py", ("P15",), 2, 1),
    Program("bench_results.py", ("P15",), 2, 1),
]


@dataclass
class Target:
    """What a group of comparisons has to reach; the worst one counts. A ratio is time against the baseline's time."""

    figure: str
    group: str
    what: str
    text: str
    limit: float
    kind: str = "ratio"  # ratio: at most; faster: 1 / ratio at least; throughput: ratio at least; excess, value: at most


TARGETS = [
    Target("P1", "dallocx", "create + release against mallocx + dallocx, 64 B … 64 KiB", "≤ 2×", 2),
    Target("P2", "inline alone", "retain + release inlined against two atomic adds", "≤ 1.15×", 1.15),
    Target("P2", "library alone", "the same by calls into the library", "≤ 1.5×", 1.5),
    Target("P3", "SharedMemory", "empty(n) + drop against SharedMemory, 64 B … 1 MiB", "≥ 150× faster", 150, "faster"),
    Target("P3", "numpy", "the same against numpy.empty", "≤ 1.5×", 1.5),
    Target("P4", "memoryview(a)", "memoryview(a) against memoryview(bytearray)", "≤ 1.1×", 1.1),
    Target("P4", "a[1:9]", "a[1:9] against numpy's", "≤ 1.1×", 1.1),
    Target("P4", "asarray(a), asarray(memoryview)", "numpy.asarray(a) against asarray(memoryview)", "≤ 1.1×", 1.1),
    Target("P5", "", "views by 2 interpreters at once, one segment against a bytearray each", "≥ 0.95×", 0.95, "throughput"),
    Target("P6", "", "CPython's interpreter queue: an array against its memoryview, 1 KiB … 1 GiB", "≤ 1.0×", 1.0),
    Target("P6", "flat", "the longest of these times against the shortest", "flat (≤ 1.2×)", 1.2, "value"),
    Target("P7", "threads", "a round trip by two queues in C, between threads, against a bare futex", "≤ 1.5×", 1.5),
    Target("P7", "processes in C", "the same between processes", "≤ 1.5×", 1.5),
    Target("P7", "python", "a round trip in Python between two interpreters, against a bare futex", "≤ 1.5×", 1.5),
    Target("P7", "theirs", "the same against concurrent.interpreters.Queue", "≥ 500× faster", 500, "faster"),
    Target("P7", "processes", "the same between processes, against between interpreters", "≤ 1.3×", 1.3),
    Target("P8", "a small int", "put + get of a small int against queue.SimpleQueue", "≤ 2×", 2),
    Target("P8", "an array", "put + get of an array against queue.SimpleQueue", "≤ 2×", 2),
    Target("P8", "faster-fifo", "a small int, one way between processes, against faster-fifo", "≥ 3× faster", 3, "faster"),
    Target("P8", "get_many", "the same, one by one, against faster-fifo's get_many", "≥ 1× faster", 1, "faster"),
    Target(
        "P11", "iceoryx2, sleeping", "1 KiB … 64 MiB handed over between processes, sleeping, against iceoryx2", "≥ 1× faster", 1, "faster"
    ),
    Target("P11", "iceoryx2, again", "the same with one array that is handed over again and again", "≥ 1× faster", 1, "faster"),
    Target("P11", "iceoryx2, looking", "new memory each time, both looking until it is there", "≥ 1× faster", 1, "faster"),
    Target("P11", "SharedMemory", "an array got from another process against SharedMemory by name", "≥ 20× faster", 20, "faster"),
    Target("P9", "documents", "clone() of records as JSON has them against pickle's dumps + loads", "≥ 1.5× faster", 1.5, "faster"),
    Target("P9", "values", "clone() of nested objects, keys, numbers, strings, against pickle's", "≥ 1.2× faster", 1.2, "faster"),
    Target("P9", "marshal", "clone() of all of these against marshal's", "≥ 1× faster", 1, "faster"),
    Target("P9", "arrays", "clone() of arrays and bytes of 1 MiB and 64 MiB against pickle's", "≥ 1× faster", 1, "faster"),
    Target("P10", "call", "pool of interpreters: submit → result against ThreadPoolExecutor", "≤ 1×", 1),
    Target("P10", "interpreters", "map of 10,000 calls against InterpreterPoolExecutor", "≥ 2× faster", 2, "faster"),
    Target("P10", "processes", "map of 10,000 calls against ProcessPoolExecutor", "≥ 5× faster", 5, "faster"),
    Target("P12", "touch", "first touch of fresh memory, 1 … 64 MiB, against memset of a fresh mapping", "≤ 1.05×", 1.05),
    Target("P12", "zeros", "zeros() of recycled memory against memset of a warm mapping", "≤ 1.05×", 1.05),
    Target("P13", "cost", "1,000,000 live segments against 1,000: create, hand off, release", "≤ 1.3×", 1.3),
    Target("P13", "bytes", "memory of a live segment beside its data", "≤ 128 B", 128, "value"),
    Target("P14", "time", "import isthmus in a new interpreter, beyond import array", "≤ 5 ms", 5e-3, "excess"),
    Target("P14", "memory", "its memory, beyond import array's", "≤ 300 KiB", 300, "excess"),
    Target("P15", "workers", "the demo: N workers against one interpreter, per worker", "≥ 0.85×", 0.85, "throughput"),
    Target("P15", "processes", "the same against a process pool", "≥ 0.9×", 0.9, "throughput"),
    Target("P15", "worker processes", "the demo: worker processes against a process pool", "≥ 0.9×", 0.9, "throughput"),
    Target("P15", "large results", "results of 4 MiB each against a process pool", "> 1×", 1.0, "throughput"),
    Target("P15", "ndarrays", "ndarrays of 4 MiB to worker processes and back against ProcessPoolExecutor", "> 1×", 1.0, "throughput"),
    Target("P15", "calls", "small calls to worker processes against ProcessPoolExecutor", "≥ 0.9×", 0.9, "throughput"),
    *(
        Target("P16", method, f"{method}() of 10 … 1,000,000 elements against numpy's", "≤ 2×", 2)
        for method in ("sum", "min", "max", "mean", "argmin", "argmax", "any", "all", "count_nonzero")
    ),
    Target("P16", "tolist", "tolist() against array.array's", "≤ 1×", 1),
    Target(
        "P17",
        "SharedMemory",
        "attach to another process's array + drop against SharedMemory by name, 64 B … 1 GiB",
        "≥ 15× faster",
        15,
        "faster",
    ),
    Target("P18", "element", "an element read, written, a slice taken, against memoryview's", "≤ 1×", 1.0),
    Target("P18", "assign", "a[...] = ndarray, 1 KiB … 16 MiB, against numpy's", "≤ 1.1×", 1.1),
    Target("P18", "assign strided", "the same into a strided view", "≤ 1.5×", 1.5),
    Target("P18", "copy", "copy(), 1 KiB … 16 MiB, against numpy's", "≤ 1.1×", 1.1),
    Target("P18", "copy strided", "copy() of a transpose", "≤ 1.5×", 1.5),
    Target("P19", "threading", "locks and the like, uncontended, against threading's", "≤ 1.3×", 1.3),
    Target("P19", "multiprocessing", "the same against multiprocessing's", "≤ 1.3×", 1.3),
    Target("P19", "contended", "a Lock that two want all the time against multiprocessing's", "≤ 1×", 1),
    Target("P19", "hand-over", "one way between two who sleep, Semaphores, against multiprocessing's", "≤ 1.5×", 1.5),
    Target("P19", "fairness", "contended: of two, who got the Lock less often", "≥ 0.5×", 0.5, "throughput"),
    Target("P17", "time", "the longest of these times", "≤ 1 µs", 1e-6, "value"),
    Target("P17", "flat", "the longest of these times against the shortest", "flat (≤ 1.2×)", 1.2, "value"),
]


@dataclass
class Comparison:
    """One measured thing and its baseline, over all processes."""

    figure: str
    group: str
    name: str
    against: str
    unit: str = "s"
    ratios: list[float] = field(default_factory=list)  # one per process
    measured: list[list[float]] = field(default_factory=list)
    baseline: list[list[float]] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def typical(self, side: str) -> float:
        return statistics.median(statistics.median(values) for values in getattr(self, side))


class Progress:
    """A line that is overwritten, on a terminal only."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()

    def say(self, text: str) -> None:
        if self.shown:
            width = shutil.get_terminal_size().columns - 1
            print("\r" + text[:width].ljust(width), end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Results:
    def __init__(self) -> None:
        self.comparisons: dict[tuple[str, str, str], Comparison] = {}
        self.skipped: dict[tuple[str, str | None], str] = {}  # a group of a figure, or all of it
        self.raw: dict[str, list[Any]] = defaultdict(list)

    def add(self, line: dict[str, Any]) -> None:
        figure = line["figure"]
        if "skipped" in line:
            self.skipped[figure, line["group"]] = line["skipped"]
            return
        key = (figure, line["name"], line["against"])
        group = line.get("group", default_group(line))
        one = self.comparisons.setdefault(key, Comparison(figure, group, line["name"], line["against"], line.get("unit", "s")))
        one.measured.append(line["measured"])
        one.baseline.append(line["baseline"])
        ratios = [m / b for m, b in zip(line["measured"], line["baseline"], strict=True) if b > 0]
        one.ratios.append(line.get("ratio") or (statistics.median(ratios) if ratios else float("nan")))

    def of(self, figure: str, group: str | None = None) -> list[Comparison]:
        return [c for c in self.comparisons.values() if c.figure == figure and group in (None, c.group)]


def default_group(line: dict[str, Any]) -> str:
    if line["figure"] == "P4":
        both = f"{line['name']}, {line['against']}"
        return both if line["name"] == "asarray(a)" else line["name"]
    return line["name"] if line["figure"] == "P14" else ""


# ---- running


def run_program(program: Program, options: argparse.Namespace, build: Path, results: Results) -> None:
    if program.name == "demo.py":
        return run_demo(options, results)
    only = ",".join(f for f in program.figures if f in options.only)
    if program.name.endswith(".py"):
        command = [sys.executable, str(HERE / program.name), "--only", only, *(["--quick"] if options.quick else [])]
        for line in output_of(command).splitlines():
            values = json.loads(line)
            results.raw[values["figure"]].append(values)
            results.add(values)
        return None
    executable = build / "bench" / program.name
    if not executable.exists():
        for figure in program.figures:
            results.skipped[figure, None] = f"{program.name} isn't built: configure with -DISTHMUS_BUILD_BENCH=ON"
        return None
    if program.name == "bench_queue":
        for line in output_of([str(executable), "5" if options.quick else "15", "--json"]).splitlines():
            values = json.loads(line)
            results.raw[values["figure"]].append(values)
            results.add(values)
        return None
    if program.name == "bench_live":
        return read_live(json.loads(output_of([str(executable), "1000000", "1000", "3" if options.quick else "7"])), results)
    seconds = "0.005" if options.quick else "0.02"
    pattern = only.replace(",", "|")
    command = [str(executable), "--benchmark_format=json", f"--benchmark_min_time={seconds}", f"--benchmark_filter={pattern}"]
    return read_segment(json.loads(output_of(command)), results)


def output_of(command: list[str]) -> str:
    """Standard output of a program that must succeed. Ctrl-C reaches it as well; then it is waited for."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate()
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}:\n{err[-2000:]}")
    return out


def read_segment(report: dict[str, Any], results: Results) -> None:
    for run in report["benchmarks"]:
        figure, kind, which = run["name"].split("/")[:3]
        if run.get("error_occurred"):
            raise SystemExit(f"{run['name']}: {run['error_message']}")
        results.raw[figure].append(run)
        if figure == "P1":
            name, group, against = label(int(which)), kind, f"mallocx + {kind}"
        else:
            threads = {"alone": "1 thread", "own": "2 threads, a word each", "common": "2 threads, one word"}[which]
            name, group, against = f"{kind}, {threads}", f"{kind} {which}", "two atomic adds"
        values = {"measured": [run["measured_ns"] * 1e-9], "baseline": [run["baseline_ns"] * 1e-9], "ratio": run["ratio"]}
        results.add({"figure": figure, "name": name, "against": against, "group": group, **values})


def read_live(report: dict[str, Any], results: Results) -> None:
    results.raw["P13"].append(report)
    for turn in ("total", "create", "acquire", "release", "free"):
        sides = {side: [r[kind][turn] * 1e-9 for r in report["rounds"]] for side, kind in (("measured", "many"), ("baseline", "few"))}
        name = "all together" if turn == "total" else turn
        group = "cost" if turn == "total" else "turn"
        results.add({"figure": "P13", "name": name, "against": "with 1,000 alive", "group": group, **sides})
    over = [report["overhead_bytes"]]
    one = {"figure": "P13", "name": "bytes", "against": "", "group": "bytes", "unit": "B", "measured": over, "baseline": [0.0]}
    results.add(one)


def run_demo(options: argparse.Namespace, results: Results) -> None:
    report, work = demo_work(options, results, "interpreter")
    workers = report["workers"]
    for group, name, against, baseline, each in (
        ("workers", f"{workers} workers, per worker", "one interpreter", "alone", workers),
        ("processes", f"{workers} workers", "a process pool", "processes", 1),
    ):
        values = {"measured": [work["pool"]], "baseline": [work[baseline]], "ratio": work[baseline] / work["pool"] / each}
        results.add({"figure": "P15", "name": name, "against": against, "group": group, **values})
    _, work = demo_work(options, results, "process")
    values = {"measured": [work["pool"]], "baseline": [work["processes"]], "ratio": work["processes"] / work["pool"]}
    name = f"{workers} worker processes"
    results.add({"figure": "P15", "name": name, "against": "a process pool", "group": "worker processes", **values})


def demo_work(options: argparse.Namespace, results: Results, kind: str) -> tuple[dict[str, Any], dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "demo.json"
        demo = ROOT / "examples" / "demo.py"
        quick = ["--quick"] if options.quick else []
        output_of([sys.executable, str(demo), "--no-plot", "--kind", kind, "--json", str(file), *quick])
        report = json.loads(file.read_text())
    results.raw["P15"].append(report)
    return report, {name: run["work"] for name, run in report["runs"].items()}


# ---- judging


@dataclass
class Row:
    target: Target
    measured: str
    reached: bool | None


def label(nbytes: int) -> str:
    return f"{nbytes} B" if nbytes < 1024 else f"{nbytes // 1024} KiB"


def ratio_text(value: float, digits: int = 2) -> str:
    return f"{value:.0f}×" if value >= 20 else f"{value:.{digits}f}×"


def amount(value: float, unit: str) -> str:
    if unit == "s":
        for scale, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if value >= scale:
                return f"{value / scale:.3g} {name}"
        return f"{value * 1e9:.3g} ns"
    return f"{value:,.0f} {unit}"


def judge(target: Target, results: Results) -> Row | None:
    for group in (None, target.group):
        if (target.figure, group) in results.skipped:
            return Row(target, f"skipped: {results.skipped[target.figure, group]}", None)
    if target.figure in ("P6", "P17") and target.group in ("flat", "time"):
        # each size's best process: they are compared with each other, not in turn with a baseline
        times = [min(statistics.median(values) for values in c.measured) for c in results.of(target.figure)]
        if times and target.group == "time":
            return Row(target, amount(max(times), "s"), max(times) <= target.limit)
        return Row(target, ratio_text(max(times) / min(times)), max(times) / min(times) <= target.limit) if times else None
    group = results.of(target.figure, target.group)
    if not group:
        return None
    if target.kind in ("excess", "value"):
        one = group[0]
        value = one.typical("measured") - (one.typical("baseline") if target.kind == "excess" else 0)
        text = amount(value, one.unit)
        if target.kind == "excess":
            text += f" ({amount(one.typical('measured'), one.unit)} − {amount(one.typical('baseline'), one.unit)})"
        return Row(target, text, value <= target.limit)
    worst = (min if target.kind == "throughput" else max)(group, key=lambda c: c.ratio)
    best = (max if target.kind == "throughput" else min)(group, key=lambda c: c.ratio)
    shown = (lambda r: 1 / r) if target.kind == "faster" else (lambda r: r)
    text = ratio_text(shown(worst.ratio))
    if len(group) > 1:
        text += f" at worst ({worst.name}), {ratio_text(shown(best.ratio))} at best"
    else:
        lowest, highest = sorted(shown(r) for r in (min(worst.ratios), max(worst.ratios)))
        text += f" ({ratio_text(lowest)} … {ratio_text(highest)})"
    value = shown(worst.ratio)
    return Row(target, text, value >= target.limit if target.kind in ("faster", "throughput") else value <= target.limit)


def reached_text(row: Row) -> str:
    return {True: "yes", False: "no", None: "–"}[row.reached]


# ---- telling


def machine() -> str:
    import isthmus
    import numpy

    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = len(os.sched_getaffinity(0))
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    libc = "-".join(filter(None, platform.libc_ver())) or "musl"
    versions = f"Python {platform.python_version()}, numpy {numpy.__version__}, isthmus {isthmus.__version__}, {libc}"
    return f"{model}, {cores} cores, Linux {kernel}; {versions}"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header)] + [list(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["| " + " | ".join(cell.replace("|", "\\|").ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(text)


def summary(rows: list[Row]) -> str:
    cells = ((r.target.figure, r.target.what, r.measured, r.target.text, reached_text(r)) for r in rows)
    return table(("#", "what", "measured", "target", "reached"), cells)


def details(results: Results) -> str:
    rows = []
    for c in sorted(results.comparisons.values(), key=lambda c: int(c.figure[1:])):
        if c.group == "bytes":
            continue
        spread = f"{ratio_text(min(c.ratios))} … {ratio_text(max(c.ratios))}"
        both = amount(c.typical("measured"), c.unit), amount(c.typical("baseline"), c.unit)
        small = f"1/{1 / c.ratio:,.0f}" if c.ratio < 0.05 else ratio_text(c.ratio)
        rows.append((c.figure, c.name, c.against, *both, small, "" if c.ratio < 0.05 else spread))
    return table(("#", "what", "against", "measured", "baseline", "ratio", "over processes"), rows)


def write_raw(results: Results, header: dict[str, Any]) -> None:
    import pyperf

    RAW.mkdir(parents=True, exist_ok=True)
    for figure, raw in results.raw.items():
        (RAW / f"{figure}.json").write_text(json.dumps({**header, "figure": figure, "raw": raw}, indent=1) + "\n")
        benchmarks = []
        for c in results.of(figure):
            if c.unit != "s":
                continue
            for side, name in (("measured", "isthmus"), ("baseline", c.against)):
                metadata = {"name": f"{figure} {c.name} against {c.against}: {name}", "unit": "second"}
                runs = [pyperf.Run(values, metadata=metadata, collect_metadata=False) for values in getattr(c, side)]
                benchmarks.append(pyperf.Benchmark(runs))
        if benchmarks:
            pyperf.BenchmarkSuite(benchmarks).dump(str(RAW / f"{figure}.pyperf.json"), replace=True)


def replace_between(text: str, marker: str, content: str) -> str:
    begin, end = f"<!-- {marker} -->", f"<!-- end of {marker} -->"
    head, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"{PAGE.name} has lost its markers {begin} … {end}")
    return f"{head}{begin}\n\n{content}\n\n{end}{rest.partition(end)[2]}"


def write_page(rows: list[Row], results: Results, conditions: str) -> None:
    text = PAGE.read_text()
    text = replace_between(text, "conditions", conditions)
    text = replace_between(text, "targets", summary(rows))
    text = replace_between(text, "details", details(results))
    PAGE.write_text(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs the benchmarks and says which targets are reached.")
    parser.add_argument("--only", default="", help="figures, as P3,P4")
    parser.add_argument("--quick", action="store_true", help="two minutes instead of fourteen; wider spread")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    known = [figure for program in PROGRAMS for figure in program.figures]
    options.only = [name for name in options.only.upper().split(",") if name] or known
    if unknown := sorted(set(options.only) - set(known)):
        parser.error(f"no such figure: {', '.join(unknown)} (there are {', '.join(known)})")
    if options.write and (options.quick or set(options.only) != set(known)):
        parser.error("--write takes a whole run: without --only and --quick")
    if "ISTHMUS_BUILD" not in os.environ:
        parser.error("ISTHMUS_BUILD must name a release build; ./run bench does that")
    return options


def main() -> int:
    options = parse()
    build = Path(os.environ["ISTHMUS_BUILD"]).resolve()
    results, progress = Results(), Progress()
    load, begin = os.getloadavg()[0], time.monotonic()
    plan = [
        (number, program)
        for number in range(1, 100)
        for program in PROGRAMS
        if set(program.figures) & set(options.only) and number <= (program.quick_rounds if options.quick else program.rounds)
    ]
    for done, (number, program) in enumerate(plan):
        progress.say(f"{done * 100 // len(plan)} %  {program.name}, run {number}  {time.monotonic() - begin:.0f} s")
        run_program(program, options, build, results)
    progress.clear()

    rows = [row for target in TARGETS if target.figure in options.only and (row := judge(target, results)) is not None]
    conditions = f"{machine()}; load before the run {load:.2f}; {time.monotonic() - begin:.0f} s."
    write_raw(results, {"conditions": conditions, "quick": options.quick})
    print(summary(rows))
    print(f"\n{conditions}\nRaw data: {RAW.relative_to(ROOT)}/")
    plot(results, RAW / "messages.svg")
    if options.write:
        write_page(rows, results, conditions)
        shutil.copy(RAW / "messages.svg", PAGE.parent / "messages.svg")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nbench: stopped", file=sys.stderr)
        sys.exit(130)
