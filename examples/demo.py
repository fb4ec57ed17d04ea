"""Measures every file of the standard library, three ways: in one interpreter, in worker interpreters, in processes.

Worker interpreters, one per core and each with a GIL of its own, tokenise the files and write what they find straight
into their rows of one shared array of int64. The main interpreter reads that array as an ndarray, without a copy. The
process pool does the same work and pickles its rows.

    python demo.py [PATH] [--workers N] [--plot FILE | --no-plot] [--json FILE] [--quick]

PATH is a folder of Python files; default: the standard library of this Python.
"""

import argparse
import array
import concurrent.futures
import contextlib
import json
import math
import os
import pickle
import signal
import sys
import sysconfig
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import demo_measure
import demo_report
import isthmus as ist

LONG_ENOUGH = 5.0  # seconds that one interpreter should be busy: less says little about speed
QUICK_FILES = 60
Job = tuple[int, str]  # a row of the array, and the file whose measures go there


@dataclass
class Run:
    """One way of doing the job. Seconds; the total is from nothing to all workers gone."""

    name: str
    workers: int
    start_up: float  # until a worker has answered for each that was asked for
    work: float  # until the last result is in
    total: float
    bytes_copied: int  # array bytes that were copied on their way


def find_files(folder: Path) -> list[Path]:
    """The .py files under a folder, but not what was installed into it."""
    skip = {"site-packages", "dist-packages", "__pycache__"}
    return sorted(path for path in folder.rglob("*.py") if not skip.intersection(path.parts) and path.is_file())


def size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0  # its row will say that it can't be read


def plan(jobs: list[Job], sizes: list[int], workers: int) -> list[list[Job]]:
    """Chunks of jobs, the biggest files first, smaller chunks towards the end, so that all workers end together."""
    order = sorted(jobs, key=lambda job: sizes[job[0] % len(sizes)], reverse=True)
    left = sum(sizes[row % len(sizes)] for row, _ in order)
    chunks: list[list[Job]] = []
    chunk: list[Job] = []
    filled = 0
    for job in order:
        chunk.append(job)
        filled += sizes[job[0] % len(sizes)]
        if filled >= min(max(left // (12 * workers), 16_000), 400_000):
            chunks.append(chunk)
            left -= filled
            chunk, filled = [], 0
    return [*chunks, chunk] if chunk else chunks


class Progress:
    """How far a run is, on a terminal only."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done, self.shown = what, max(total, 1), 0, 0.0
        self.on = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def add(self, amount: int) -> None:
        self.done += amount
        if self.on and (time.monotonic() - self.shown > 0.1 or self.done >= self.total):
            self.shown = time.monotonic()
            bar = "█" * int(30 * self.done / self.total)
            print(f"\r  {self.what:<30} {bar:·<30} {self.done / self.total:4.0%}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.on:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + ("es" if noun.endswith("s") else "s")


def run_alone(files: list[str], chunks: list[list[Job]], out: ist.SharedArray, what: str) -> float:
    """One pass over the files in this interpreter; returns the seconds."""
    with contextlib.closing(Progress(what, len(files))) as progress:
        start = time.perf_counter()
        for chunk in chunks:
            demo_measure.fill_rows(out, chunk)
            progress.add(len(chunk))
        return time.perf_counter() - start


def run_pool(chunks: list[list[Job]], out: ist.SharedArray, workers: int, kind: str) -> Run:
    name = f"{workers} worker {plural(kind, workers)}"
    copied = ist.stats()["bytes_copied"]
    with contextlib.closing(Progress(name, sum(map(len, chunks)))) as progress:
        start = time.perf_counter()
        with ist.WorkerPool(workers, kind) as pool:
            for future in [pool.submit(demo_measure.ready) for _ in range(workers)]:
                future.result()
            ready = time.perf_counter()
            futures = {pool.submit(demo_measure.fill_rows, out, chunk): len(chunk) for chunk in chunks}
            for future in concurrent.futures.as_completed(futures):
                future.result()
                progress.add(futures[future])
            done = time.perf_counter()
        end = time.perf_counter()
    return Run(name, workers, ready - start, done - ready, end - start, ist.stats()["bytes_copied"] - copied)


def run_processes(chunks: list[list[Job]], out: array.array, workers: int) -> Run:
    """As above, but each task sends its rows back, and this process puts them together."""
    name = f"{workers} {plural('process', workers)}, pickled results"
    width = len(demo_measure.MEASURES)
    results = []
    with contextlib.closing(Progress(name, sum(map(len, chunks)))) as progress:
        start = time.perf_counter()
        # Ctrl-C reaches the whole process group; this process decides what becomes of it.
        pool = concurrent.futures.ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
        try:
            for ready_future in [pool.submit(demo_measure.ready) for _ in range(workers)]:
                ready_future.result()
            ready = time.perf_counter()
            futures = {pool.submit(demo_measure.send_rows, chunk): chunk for chunk in chunks}
            for future in concurrent.futures.as_completed(futures):
                rows = future.result()
                for number, (row, _) in enumerate(futures[future]):
                    out[row * width : (row + 1) * width] = rows[number * width : (number + 1) * width]
                results.append(rows)
                progress.add(len(futures[future]))
            done = time.perf_counter()
        finally:
            pool.shutdown(cancel_futures=True)
        end = time.perf_counter()
    return Run(name, workers, ready - start, done - ready, end - start, sum(len(pickle.dumps(rows)) for rows in results))


@dataclass
class Outcome:
    """What the three runs gave."""

    files: list[str]  # names as they are shown
    repeats: int
    runs: list[Run]
    equal: bool
    shared: ist.SharedArray  # files × measures, times repeats


def do_job(folder: Path, paths: list[Path], workers: int, kind: str, quick: bool) -> Outcome:
    files = [str(path) for path in paths]
    sizes = [size_of(file) for file in files]
    width = len(demo_measure.MEASURES)
    jobs = list(enumerate(files))

    one = "one interpreter"
    first = ist.zeros((len(files), width), "i8")
    seconds = run_alone(files, plan(jobs, sizes, 1), first, one)
    repeats = 1 if quick else max(1, math.ceil(LONG_ENOUGH / seconds))
    if repeats > 1:
        print(f"  This takes one interpreter {seconds:.1f} s: every file is measured {repeats} times.\n")
    alone = ist.zeros((repeats * len(files), width), "i8")
    alone[: len(files)] = first
    for turn in range(1, repeats):
        again = [(turn * len(files) + row, file) for row, file in jobs]
        seconds += run_alone(files, plan(again, sizes, 1), alone, f"{one}, {turn + 1} of {repeats}")
    jobs = [(turn * len(files) + row, file) for turn in range(repeats) for row, file in jobs]
    chunks = plan(jobs, sizes, workers)

    pickled = array.array("q", bytes(alone.nbytes))
    processes = run_processes(chunks, pickled, workers)
    shared = ist.zeros((repeats * len(files), width), "i8")
    pool = run_pool(chunks, shared, workers, kind)
    equal = alone.tobytes() == shared.tobytes() == pickled.tobytes()
    runs = [Run(one, 1, 0.0, seconds, seconds, 0), processes, pool]
    names = [str(path.relative_to(folder)) for path in paths]
    return Outcome(names, repeats, runs, equal, shared)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    build = Path(__file__).resolve().parent.parent / "build"
    plot = (build if build.is_dir() else Path()) / "isthmus-demo.png"
    cores = (os.process_cpu_count() if sys.version_info >= (3, 13) else os.cpu_count()) or 1
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", nargs="?", type=Path, help="a folder of Python files (default: the standard library)")
    parser.add_argument(
        "--workers",
        type=int,
        default=cores,
        help="worker interpreters, and processes (default: the cores, %(default)s)",
    )
    parser.add_argument("--kind", choices=["interpreter", "process"], default="interpreter", help="of the workers (default: %(default)s)")
    parser.add_argument("--plot", type=Path, default=plot, metavar="FILE", help="where the plot goes (default: %(default)s)")
    parser.add_argument("--no-plot", action="store_true", help="no plot")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON, too")
    parser.add_argument("--quick", action="store_true", help="only some of the files, and once: to see whether it works")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f"--workers must be at least 1, not {options.workers}")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    folder = options.path or Path(sysconfig.get_path("stdlib"))
    if not folder.is_dir():
        print(f"demo: {folder} is not a folder", file=sys.stderr)
        return 2
    paths = find_files(folder)
    if options.quick:
        paths = paths[:: max(1, len(paths) // QUICK_FILES)]
    if not paths:
        print(f"demo: there are no Python files in {folder}", file=sys.stderr)
        return 2

    version = sys.version.split()[0]
    source = f"the standard library of Python {version}" if options.path is None else str(folder)
    print(f"isthmus demo: the tokens of {len(paths):,} files of {source}; Python {version}\n", flush=True)
    job = do_job(folder, paths, options.workers, options.kind, options.quick)
    demo_report.print_report(job.files, job.shared)
    if not options.no_plot:
        demo_report.write_plot(options.plot, source, job.files, job.shared, job.runs)
    print_figures(job)
    if options.json:
        write_json(options.json, options.workers, job)
    if not job.equal:
        print("demo: FAILED: the three ways did not give the same measures")
        return 1
    alone, processes, pool = job.runs
    speed_up = alone.total / pool.total
    print(
        f"demo: ok, {pool.name}: {speed_up:.2f}× as fast as one interpreter "
        f"({speed_up / options.workers:.2f} × {options.workers}), "
        f"{processes.total / pool.total:.2f}× as fast as processes"
    )
    return 0


def print_figures(job: Outcome) -> None:
    alone = job.runs[0].total
    rows, width = job.shared.shape
    print(f"\n  {'':<28}{'start-up':>10}{'work':>10}{'total':>10}{'speed-up':>10}{'array bytes copied':>20}")
    for run in job.runs:
        start_up = f"{run.start_up:.2f} s" if run.start_up else "–"
        seconds = f"{start_up:>10}{run.work:>8.2f} s{run.total:>8.2f} s"
        print(f"  {run.name:<28}{seconds}{alone / run.total:>9.2f}×{run.bytes_copied:>20,}")
    print("\n  The total is from nothing to all workers gone; the speed-up is that of the totals.")
    verdict = "the same in all three" if job.equal else "NOT THE SAME in all three"
    print(f"  Measures: {rows:,} × {width} numbers, {verdict}.")
    _, processes, pool = (f"{run.bytes_copied:,}" for run in job.runs)
    print(f"  Array bytes copied: {pool} by the workers, {processes} by the processes that pickle.")


def write_json(file: str, workers: int, job: Outcome) -> None:
    figures = {
        "python": sys.version.split()[0],
        "workers": workers,
        "files": len(job.files),
        "repeats": job.repeats,
        "measures": list(demo_measure.MEASURES),
        "runs": dict(zip(("alone", "processes", "pool"), map(asdict, job.runs), strict=True)),
        "equal": job.equal,
    }
    Path(file).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        sys.exit(130)
