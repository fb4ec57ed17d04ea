"""Every Python snippet of README.md, and every small example, runs as it stands."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import scripts

ROOT = Path(__file__).resolve().parents[2]
SNIPPETS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.matrix


def needs(source):
    found = re.search(r"# Python 3\.(\d+) or later", source)
    return (3, int(found[1])) if found else (3, 12)


def test_there_are_snippets():
    assert len(SNIPPETS) >= 4


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet(number, tmp_path):
    source = SNIPPETS[number]
    if sys.version_info < needs(source):
        pytest.skip(f"says that it needs Python 3.{needs(source)[1]}")
    if "numpy_allocator" in source and importlib.util.find_spec("isthmus._numpy_allocator") is None:
        pytest.skip("this isthmus was built without numpy's headers")
    assert scripts.run(scripts.write(tmp_path, source), cwd=tmp_path).ok(), "a snippet should print something"


@pytest.mark.parametrize("name", ["share_array.py", "interpreters_queue.py"])
def test_example(name):
    out = scripts.run(ROOT / "examples" / name).ok()
    if name == "share_array.py":
        assert out == "sum 13986000, array bytes copied: 0\n"
    elif sys.version_info >= (3, 14):
        assert out == "the worker wrote 7.0, its view has shape (3,)\narray bytes copied: 0\n"
    else:
        assert "came with Python 3.14" in out
