"""Where code in text may be broken: short pieces never, long names in tables where a reader would break them.

Without that -EINVAL is broken behind its hyphen; and a column of a table is as wide as its longest name, which a telephone isn't, or is
broken anywhere.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

_BREAK = re.compile(
    r"""(?<=[\w\])]{4})(?=\.[A-Za-z]{3})   # concurrent | .interpreters, but neither a.T nor script.py
    | (?<=[A-Za-z]/)(?=\w)               # tests/ | python
    | (?<=[a-z\d]{3}_)(?=[a-z\d]{4})     # test_ | storm
    | (?<=[a-z])(?=[A-Z])                # Interpreter | Pool
    | (?<=\w[(,=])(?=\S{4})              # buffer= | shm""",
    re.VERBOSE,
)


class Breaks(SphinxPostTransform):
    default_priority = 900  # when names are links
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for literal in self.document.findall(nodes.literal):
            if len(literal.astext()) <= 20:
                literal["classes"].append("short")
        for entry in self.document.findall(nodes.entry):
            for literal in list(entry.findall(nodes.literal)):
                parts = _BREAK.split(literal.astext())
                if len(parts) > 1:
                    literal.children = []
                    for i, part in enumerate(parts):
                        if i:
                            literal += nodes.raw("", "<wbr>", format="html")
                        literal += nodes.Text(part)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_post_transform(Breaks)
    return {"parallel_read_safe": True}
