"""The code in the pages README.md and docs/: found, and what each needs.

    ```python     a script of its own; a ```text block behind it is what it prints ("..." stands for anything)
    ```c          a program, or the inside of one; not if it has an ellipsis in it (…)

A first line `# Python 3.14 or later` or `# needs pandas, polars` says what a script needs beyond Python 3.12 and numpy.
"""

import ast
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


@dataclass
class Snippet:
    name: str
    source: str
    printed: str | None

    @property
    def version(self):
        found = re.search(r"# Python 3\.(\d+) or later", self.source)
        return (3, int(found[1])) if found else (3, 12)

    @property
    def packages(self):
        found = re.match(r"(?:#.*\n)*?# needs ([\w, ]+)", self.source)
        return found[1].split(", ") if found else []

    def undeclared(self):
        """Third-party packages that it imports and doesn't tell of; numpy is in everybody's hands."""
        imported = set()
        for node in ast.walk(ast.parse(self.source)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
        return imported - sys.stdlib_module_names - {"isthmus", "numpy", *self.packages}

    def missing(self):
        """Why it can't be run here, or None."""
        if sys.version_info < self.version:
            return f"says that it needs Python 3.{self.version[1]}"
        for package in [*self.packages, *(["numpy"] if "import numpy" in self.source else [])]:
            if importlib.util.find_spec(package) is None:
                return f"{package} isn't installed"
        if "numpy_allocator" in self.source and importlib.util.find_spec("isthmus._numpy_allocator") is None:
            return "this isthmus was built without numpy's headers"
        return None


def find(page, language):
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        if found[1] == language:
            line = text.count("\n", 0, found.start()) + 2
            yield Snippet(f"{page.relative_to(ROOT)}:{line}", found[2], found[3])


def matches(printed, expected):
    pattern = ".*?".join(re.escape(part) for part in expected.rstrip().split("..."))
    return re.fullmatch(pattern, printed.rstrip(), re.DOTALL) is not None


def program(source):
    """A C snippet as a whole program: lines of the preprocessor first, then the rest as the inside of main, unless it has one."""
    if "int main(" in source:
        return source
    lines = source.splitlines()
    head = [line for line in lines if line.startswith("#")]
    body = [line for line in lines if not line.startswith("#")]
    return "\n".join([*head, "int main(void) {", *body, "return 0; }", ""])
