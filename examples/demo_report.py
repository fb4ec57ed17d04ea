"""What demo.py shows: a table of the most interesting files, statistics, and a plot.

The measures are read where the workers left them: as an ndarray over the shared array, or, without numpy, from the
array itself.
"""

from pathlib import Path

import isthmus as ist
from demo_measure import COLUMN, PROBLEMS

try:
    import numpy as np
except ImportError:
    np = None  # type: ignore[assignment]

WIDE = (
    "files with the most tokens",
    "lines",
    "tokens",
    "functions",
    "classes",
    "comments",
    "brackets",
    "indented",
    "longest",
)
WIDEST = ("deepest brackets", "deepest indentation", "longest line")
RECORDS = (
    ("longest line", "longest line", "characters"),
    ("deepest brackets", "deepest brackets", "brackets open at once"),
    ("deepest indentation", "deepest indentation", "levels"),
    ("most functions", "functions", "functions"),
    ("most classes", "classes", "classes"),
    ("most comment lines", "comment lines", "lines"),
    ("most strings", "strings", "strings"),
    ("most numbers", "numbers", "numbers"),
)
STATISTICS = (
    "bytes",
    "lines",
    "code lines",
    "tokens",
    "functions",
    "longest line",
    "deepest brackets",
    "deepest indentation",
)
KINDS = (
    "names",
    "operators",
    "keywords",
    "newlines",
    "non-logical newlines",
    "strings",
    "numbers",
    "indents",
    "comments",
)


def columns_of(shared: ist.SharedArray, files: int) -> dict[str, list[int]]:
    """One list per measure, of the first `files` rows (repeats have the same)."""
    if np is None:
        rows = shared[:files].tolist()
        return {name: [row[number] for row in rows] for name, number in COLUMN.items()}
    table = np.asarray(shared)[:files]
    return {name: table[:, number].tolist() for name, number in COLUMN.items()}


def short(name: str, width: int) -> str:
    return name if len(name) <= width else "…" + name[1 - width :]


def quantile(ordered: list[int], share: float) -> int:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def print_report(files: list[str], shared: ist.SharedArray) -> None:
    data = columns_of(shared, len(files))
    by_tokens = sorted(range(len(files)), key=data["tokens"].__getitem__, reverse=True)

    print("  {:<34}{:>8}{:>9}{:>11}{:>9}{:>10}{:>10}{:>10}{:>9}".format(*WIDE))
    for i in by_tokens[:10]:
        lines, tokens, functions, classes = (data[name][i] for name in ("lines", "tokens", "functions", "classes"))
        brackets, indents, longest = (data[name][i] for name in WIDEST)
        share = data["comment lines"][i] / max(lines, 1)
        print(
            f"  {short(files[i], 33):<34}{lines:>8,}{tokens:>9,}{functions:>11,}{classes:>9,}"
            f"{share:>10.0%}{brackets:>10}{indents:>10}{longest:>9,}"
        )

    print(f"\n  {'records':<34}{'':>8}")
    for title, measure, unit in RECORDS:
        value, i = max((value, -i) for i, value in enumerate(data[measure]))
        print(f"  {title:<22}{value:>12,} {unit:<24}{short(files[-i], 50)}")

    print(f"\n  {'statistics':<22}{'total':>12}{'mean':>10}{'median':>10}{'95 %':>10}{'largest':>10}")
    for measure in STATISTICS:
        values = sorted(data[measure])
        total = f"{sum(values):,}" if measure not in WIDEST else ""
        mean = sum(values) / len(values)
        spread = f"{quantile(values, 0.5):>10,}{quantile(values, 0.95):>10,}{values[-1]:>10,}"
        print(f"  {measure:<22}{total:>12}{mean:>10,.1f}{spread}")

    print_problems(files, data["problem"])
    how = "as a numpy.ndarray, without a copy" if np is not None else "as a SharedArray: numpy isn't installed"
    print(f"\n  Read {how}: shape {shared.shape}, {shared.nbytes:,} bytes.")


def print_problems(files: list[str], problems: list[int]) -> None:
    bad = [i for i, problem in enumerate(problems) if problem]
    if not bad:
        return
    print(f"\n  {len(bad)} of {len(files):,} files could not be measured in full:")
    for i in bad[:12]:
        print(f"    {short(files[i], 60):<62}{PROBLEMS[problems[i]]}")
    if len(bad) > 12:
        print(f"    and {len(bad) - 12} more")


def write_plot(path: Path, source: str, files: list[str], shared: ist.SharedArray, runs: list) -> None:
    """Writes the plot, or says why not. Never fails: the figures matter more."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib.figure import Figure
    except ImportError:
        print("\n  No plot: matplotlib isn't installed.")
        return
    figure = Figure(figsize=(13, 9), dpi=110, layout="constrained", facecolor="white")
    data = columns_of(shared, len(files))
    (times, kinds), (scatter, depths) = figure.subplots(2, 2, gridspec_kw={"width_ratios": (1.15, 1)})
    figure.suptitle(f"{len(files):,} files of {source}, tokenised into one shared array", fontsize=14, fontweight="bold")
    for axes in (times, kinds, scatter, depths):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    plot_times(times, runs)
    plot_kinds(kinds, data)
    plot_scatter(figure, scatter, files, data)
    plot_depths(depths, data)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        print(f"\n  No plot: {error}")
        return
    print(f"\n  Plot: {path}")


BLUE, LIGHT, GREY, ORANGE = "#2a6fbb", "#a9c8ea", "#8a8f98", "#e0832f"


def plot_times(axes, runs: list) -> None:
    longest = max(run.total for run in runs)
    for y, run in enumerate(reversed(runs)):
        colour = BLUE if run is runs[2] else GREY
        axes.barh(y, run.total, color=colour, height=0.55)
        speed = f"{run.total:.2f} s" if run is runs[0] else f"{run.total:.2f} s, {runs[0].total / run.total:.2f}×"
        copied = f"{run.bytes_copied:,} array bytes copied"
        axes.text(run.total + longest * 0.015, y + 0.1, speed, va="center", fontweight="bold")
        axes.text(run.total + longest * 0.015, y - 0.13, copied, va="center", fontsize=8.5, color="#555555")
    axes.set_yticks(range(len(runs)), [run.name.replace(", ", ",\n") for run in reversed(runs)])
    axes.set_xlim(0, longest * 1.32)
    axes.set_xlabel("seconds, start-up and end of the workers included")
    axes.set_title("The same job, three ways", loc="left")
    axes.grid(axis="x", alpha=0.3)


def plot_kinds(axes, data: dict[str, list[int]]) -> None:
    totals = sorted((sum(data[kind]), kind) for kind in KINDS)
    everything = sum(data["tokens"]) or 1
    axes.barh([kind for _, kind in totals], [total for total, _ in totals], color=LIGHT, edgecolor=BLUE, height=0.7)
    for y, (total, _) in enumerate(totals):
        axes.text(total + totals[-1][0] * 0.01, y, f"{total / everything:.1%}", va="center", fontsize=9)
    axes.set_xlim(0, totals[-1][0] * 1.12)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M" if value >= 1e6 else f"{value:,.0f}")
    axes.set_title(f"{everything:,} tokens by kind", loc="left")
    axes.grid(axis="x", alpha=0.3)


def plot_scatter(figure, axes, files: list[str], data: dict[str, list[int]]) -> None:
    measured = [i for i in range(len(files)) if data["tokens"][i] > 1 and data["lines"][i] > 0]
    lines, tokens = [data["lines"][i] for i in measured], [data["tokens"][i] for i in measured]
    colours = [min(data["deepest brackets"][i], 10) for i in measured]
    dots = axes.scatter(lines, tokens, c=colours, s=14, cmap="viridis_r", alpha=0.75, linewidths=0, vmin=0, vmax=10)
    axes.set_xscale("log")
    axes.set_yscale("log")
    # the largest file, and of those that are not small the densest and the sparsest
    dense = [i for i in measured if data["lines"][i] >= 100]
    by_density = sorted(dense, key=lambda i: data["tokens"][i] / data["lines"][i])
    largest = max(measured, key=data["tokens"].__getitem__, default=None)
    above = {"xytext": (-6, 8), "ha": "right"}
    below = {"xytext": (8, -14), "ha": "left"}
    labels = dict.fromkeys(by_density[:1], below) | dict.fromkeys(by_density[-1:], above) | {largest: above}
    for i in labels.keys() - {None}:
        point = (data["lines"][i], data["tokens"][i])
        axes.annotate(short(files[i], 30), point, textcoords="offset points", fontsize=8.5, color="#333333", **labels[i])
    axes.set_xlabel("lines")
    axes.set_ylabel("tokens")
    axes.set_title("Each dot a file", loc="left")
    axes.grid(alpha=0.25)
    bar = figure.colorbar(dots, ax=axes, label="deepest brackets", ticks=range(0, 11, 2), fraction=0.05)
    bar.ax.set_yticklabels([*map(str, range(0, 10, 2)), "10+"])


def plot_depths(axes, data: dict[str, list[int]]) -> None:
    top = 12
    for offset, measure, colour in ((-0.2, "deepest brackets", BLUE), (0.2, "deepest indentation", ORANGE)):
        counts = [0] * (top + 1)
        for value in data[measure]:
            counts[min(value, top)] += 1
        axes.bar([depth + offset for depth in range(top + 1)], counts, width=0.4, color=colour, label=measure)
    axes.set_xticks(range(top + 1), [*map(str, range(top)), f"{top}+"])
    axes.set_xlabel("levels")
    axes.set_ylabel("files")
    axes.set_title("How deep files nest", loc="left")
    axes.legend(frameon=False)
    axes.grid(axis="y", alpha=0.3)
