"""Draws the figures of messages: what each took with isthmus and with what it is compared with, on one axis of time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from run import Results

FIGURES = {"P7": "round trip", "P8": "one way", "P9": "structured clone", "P10": "pools", "P11": "between processes", "P19": "locks"}


def plot(results: Results, path: Path) -> None:
    comparisons = [c for figure in FIGURES for c in results.of(figure) if c.unit == "s"]
    if not comparisons:
        return  # of a run of other figures
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "isthmus"  # the same figures give the same file
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter

    names = [f"{c.figure}  {c.name}, against {c.against}" for c in comparisons]
    ours, theirs = ([c.typical(side) for c in comparisons] for side in ("measured", "baseline"))
    rows = list(range(len(comparisons)))
    figure, axes = pyplot.subplots(figsize=(5, 1.2 + 0.38 * len(rows)), layout="constrained")  # legible on a telephone, too
    axes.hlines(rows, ours, theirs, color="#b0b0b0", linewidth=1, zorder=1)
    axes.scatter(theirs, rows, color="#8c8c8c", marker="D", s=22, label="what it is compared with", zorder=2)
    axes.scatter(ours, rows, color="#1668b8", s=26, label="isthmus", zorder=3)
    axes.set_yticks([])
    axes.tick_params(axis="x", labelsize=8)
    for row, name in zip(rows, names, strict=True):
        size = min(10, 10 * 62 / len(name))  # 62 letters are as wide as the figure
        text = axes.text(0, row - 0.4, name, transform=axes.get_yaxis_transform(), fontsize=size, verticalalignment="center")
        text.set_in_layout(False)  # else the axes would be narrower
    axes.set_ylim(len(rows) - 0.5, -0.9)  # from above, without a margin
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter("s"))
    axes.set_xlabel("left is faster")
    axes.grid(axis="x", color="#e4e4e4")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
