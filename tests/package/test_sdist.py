"""What is in the source distribution: what building and installing needs, and what tells a reader about it. ISTHMUS_SDIST is its path.

Not the tests, benchmarks and the documentation's sources: they are for a checkout, with ./run, which installs what they need.
"""

import os
import subprocess
import tarfile
from pathlib import PurePath

import pytest
from conftest import ROOT

FOLDERS = ("cmake", "examples", "include", "pybuffer", "shm")
FILES = ("CHANGELOG.md", "CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml", "tools/apt_source.sh", "tools/jemalloc.sh")
GENERATED = {"PKG-INFO"}


@pytest.fixture(scope="module")
def names():
    with tarfile.open(os.environ["ISTHMUS_SDIST"]) as sdist:
        paths = [PurePath(m.name) for m in sdist.getmembers() if m.isfile()]
    assert {p.parts[0] for p in paths} == {"isthmus-0.1.0"}
    return {"/".join(p.parts[1:]) for p in paths}


def test_everything_that_belongs_there(names):
    """All that git knows of these, and nothing that merely lies around in them."""
    tracked = subprocess.run(["git", "ls-files", "-z", *FOLDERS, *FILES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    expected = {name for name in tracked.split("\0") if name} | GENERATED
    assert set(FILES) <= expected and len(expected) > 100
    assert names == expected, f"missing: {sorted(expected - names)}, too many: {sorted(names - expected)}"
