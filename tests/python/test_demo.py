"""examples/demo.py: its measures, its plan, and the whole of it, on a folder and on some of the standard library."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import scripts

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DEMO = EXAMPLES / "demo.py"

pytestmark = pytest.mark.matrix


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import demo
    import demo_measure

    return demo, demo_measure


SOURCE = '''\
"""Text
   on two lines."""
import os  # a comment

# another
class A:
    def f(self, x=[(1, {2: 3})]):
        if x:

            return f"{x!r} and" + "more"


async def g(): pass
'''


def measured(example, tmp_path, data):
    _, demo_measure = example
    path = tmp_path / "file.py"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return dict(zip(demo_measure.MEASURES, demo_measure.measure(str(path)), strict=True))


def test_the_measures_of_a_file(example, tmp_path):
    row = measured(example, tmp_path, SOURCE)
    assert row.pop("tokens") > 60
    assert row == {
        "bytes": len(SOURCE), "lines": 13, "code lines": 8, "comment lines": 1, "blank lines": 4, "longest line": 40,
        "names": row["names"], "keywords": 8, "numbers": 3, "strings": 3, "operators": row["operators"], "comments": 2,
        "newlines": 7, "non-logical newlines": 5, "indents": 3, "deepest brackets": 4, "deepest indentation": 3,
        "functions": 2, "classes": 1, "problem": 0,
    }  # fmt: skip
    assert row["names"] >= 8 and row["operators"] >= 20


@pytest.mark.parametrize(
    ("data", "problem", "lines"),
    [
        (b"", 0, 0),
        (b"x", 0, 1),
        (b"\xef\xbb\xbfx = 1\r\n", 0, 1),
        (b"# -*- coding: latin-1 -*-\ns = '\xe9'\n", 0, 2),
        (b"\xff\xfe\n", 2, 1),
        (b"# coding: no-such-codec\n", 2, 1),
        (b"x = (\n", 3, 1),
        (b"if x:\n        y\n    z\n", 3, 3),
        (b"x\0y\n", (2, 3), 1),  # 3.14 finds it when it decodes
    ],
)
def test_files_that_are_not_quite_python(example, tmp_path, data, problem, lines):
    row = measured(example, tmp_path, data)
    problems = problem if isinstance(problem, tuple) else (problem,)
    assert row["problem"] in problems and (row["lines"], row["bytes"]) == (lines, len(data))
    if problem:
        assert row["tokens"] == row["operators"] == 0


def test_a_file_that_is_gone(example, tmp_path):
    _, demo_measure = example
    assert demo_measure.measure(str(tmp_path / "none.py"))[-1] == demo_measure.UNREADABLE


def test_the_plan_has_every_job_once_and_the_biggest_first(example):
    demo, _ = example
    sizes = [(i * 7919) % 100_000 for i in range(500)]
    jobs = [(i, f"f{i}") for i in range(1500)]
    chunks = demo.plan(jobs, sizes, 4)
    assert sorted(job for chunk in chunks for job in chunk) == sorted(jobs)
    planned = [sizes[row % 500] for chunk in chunks for row, _ in chunk]
    assert planned == sorted(planned, reverse=True)
    amounts = [sum(sizes[row % 500] for row, _ in chunk) for chunk in chunks]
    assert len(chunks) > 4 * 12 and amounts[0] > 4 * amounts[-2], "chunks get smaller"


def figures(outcome, path):
    data = json.loads(path.read_text())
    assert data["equal"] is True
    last = outcome.out.rstrip().split("\n")[-1]
    assert last.startswith("demo: ok"), last
    assert data["runs"]["pool"]["bytes_copied"] == data["runs"]["alone"]["bytes_copied"] == 0
    assert data["runs"]["processes"]["bytes_copied"] > data["files"] * len(data["measures"]) * 8
    return data


def demo_run(tmp_path, *arguments, env=None):
    plot, data = tmp_path / "plot.png", tmp_path / "figures.json"
    outcome = scripts.run(DEMO, "--workers", "2", "--plot", plot, "--json", data, *arguments, env=env)
    out = outcome.ok()
    assert "\r" not in out and "█" not in out, "progress is for terminals"
    return outcome, figures(outcome, data), plot


def test_the_whole_on_some_of_the_standard_library(tmp_path):
    outcome, data, plot = demo_run(tmp_path, "--quick")
    assert 40 <= data["files"] <= 130
    assert "files with the most tokens" in outcome.out and "Measures:" in outcome.out
    if "matplotlib isn't installed" in outcome.out:
        assert not plot.exists()
    else:
        assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and plot.stat().st_size > 20_000


def test_a_folder_with_broken_files(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    for i in range(20):
        scripts.write(folder, SOURCE * (i + 1), f"good_{i}.py")
    (folder / "broken.py").write_bytes(b"\xff\xfe\n")
    (folder / "torn.py").write_text("x = (\n")
    outcome, data, _ = demo_run(tmp_path, folder, "--quick", "--no-plot")
    assert data["files"] == 22
    assert "2 of 22 files could not be measured in full" in outcome.out
    assert re.search(r"broken\.py +can't be decoded", outcome.out) and re.search(r"torn\.py +can't be tokenised", outcome.out)


def test_without_numpy_and_matplotlib(tmp_path):
    hidden = tmp_path / "hidden"
    for name in ("numpy", "matplotlib"):
        scripts.write(hidden, f"raise ImportError('no {name}: hidden by the test')", f"{name}/__init__.py")
    env = {"PYTHONPATH": f"{hidden}:{scripts.os.environ.get('PYTHONPATH', '')}"}
    outcome, _, plot = demo_run(tmp_path, "--quick", env=env)
    assert "Read as a SharedArray: numpy isn't installed" in outcome.out
    assert "No plot: matplotlib isn't installed." in outcome.out and not plot.exists()


def test_bad_arguments(tmp_path):
    assert scripts.run(DEMO, tmp_path / "none").status == 2
    assert "there are no Python files" in scripts.run(DEMO, tmp_path).err
    assert "--workers must be at least 1" in scripts.run(DEMO, "--workers", "0").err


@pytest.mark.parametrize("during", ["one interpreter", "processes", "worker interpreters"])
def test_ctrl_c(tmp_path, during):
    """The script is told to say when a run has begun; then it gets a Ctrl-C."""
    folder = tmp_path / "sources"
    for i in range(60):
        scripts.write(folder, SOURCE * 200, f"good_{i}.py")
    hook = f"""
        import sys
        sys.path.insert(0, {str(EXAMPLES)!r})
        import demo

        class Telling(demo.Progress):
            def add(self, amount):
                if {during!r} in self.what and not self.done:
                    print("ready", flush=True)
                super().add(amount)

        if __name__ == "__main__":
            demo.print = lambda *values, **options: None
            demo.Progress = Telling
            try:
                demo.main([{str(folder)!r}, "--workers", "2", "--no-plot", "--quick"])
            except KeyboardInterrupt:
                sys.exit(130)
    """
    outcome = scripts.interrupt_when_ready(scripts.start(scripts.write(tmp_path, hook)))
    assert outcome.status == 130 and outcome.err == "", outcome


def test_ctrl_c_from_outside(tmp_path):
    process = scripts.start(DEMO, "--no-plot")
    assert process.stdout.readline().startswith("isthmus demo")
    scripts.os.killpg(process.pid, signal.SIGINT)
    outcome = scripts.finish(process)
    assert outcome.status == 130 and outcome.err.endswith("demo: stopped\n"), outcome
    assert isinstance(process, subprocess.Popen) and sys.version_info >= (3, 12)
