"""Tests of the package as it is installed, for tools/package.sh, tools/task_matrix.sh and cibuildwheel.

Nothing here comes from the checkout but the examples. ISTHMUS_WHEEL_PYTHON is the Python of the environment where the package is installed,
which needs nothing else; without it, it is the Python that runs this.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXTENSIONS = ROOT / "examples" / "extensions"
PYTHON = os.environ.get("ISTHMUS_WHEEL_PYTHON", sys.executable)
# What finds the package is its installation alone, and processes share with those of the same test.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "ISTHMUS_DOMAIN")}
DEADLINE = 120


def command(*arguments, cwd, **environment):
    """Its standard output; it ends well and says nothing on stderr."""
    done = subprocess.run(
        [str(a) for a in arguments], cwd=cwd, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0 and done.stderr == "", f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Wheel:
    """The installed package. Scripts run in a folder of the test's, where there is no isthmus to import by accident."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, script, *arguments, **environment):
        """A script's path, or its text."""
        if not isinstance(script, Path):
            path = self.folder / "script.py"
            path.write_text(textwrap.dedent(script), encoding="utf-8")
            script = path
        return command(PYTHON, script, *arguments, cwd=self.folder, **environment)

    def says(self, function):
        return command(PYTHON, "-c", f"import isthmus; print(isthmus.{function}())", cwd=self.folder).strip()


@pytest.fixture
def wheel(tmp_path):
    return Wheel(tmp_path)


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The folder of the installed package."""
    found = Path(command(PYTHON, "-c", "import isthmus; print(isthmus.__path__[0])", cwd=tmp_path_factory.mktemp("package")).strip())
    assert ROOT not in found.parents, "this is the checkout's, not an installed one"
    return found


def cmake_build(source, build, package, **variables):
    """Configures and builds a project of somebody else's."""
    variables |= {"isthmus_DIR": package / "lib" / "cmake" / "isthmus", "Python_EXECUTABLE": PYTHON, "CMAKE_BUILD_TYPE": "Release"}
    for step in (
        ["cmake", "-G", "Ninja", "-S", source, "-B", build, *(f"-D{name}={value}" for name, value in variables.items())],
        ["cmake", "--build", build],
    ):
        done = subprocess.run([str(a) for a in step], env=ENVIRONMENT, capture_output=True, text=True, timeout=DEADLINE * 2, check=False)
        assert done.returncode == 0, f"{step}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return build
