"""The directive `c-header`: a public header as a reference, made of its declarations and their comments.

    .. c-header:: segment.h

What of a header is a declaration's comment: c_header.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from c_header import Declaration, Group, parse
from docutils import nodes
from docutils.statemachine import StringList
from prose import to_rst
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

_log = logging.getLogger(__name__)
_HEADERS = Path(__file__).resolve().parents[2] / "include" / "isthmus"
_PRIVATE = {"segment_inline.h", "isthmus.h"}  # what has no declarations of its own for users
_WORD = re.compile(r"\b(IST_API|IST_MUST_CHECK|static|inline|extern)\b\s*")


def _indent(lines: list[str]) -> list[str]:
    return [f"   {line}" if line else "" for line in lines]


def _render(declaration: Declaration, comment: list[str]) -> list[str]:
    text = _WORD.sub("", declaration.text)
    value = []
    if " = " in text:
        text, number = text.split(" = ", 1)
        value = [f"``{number}``", ""]
        kind = "macro"
    elif text.startswith(("struct ", "enum ")) or (text.startswith("typedef struct") and text.count(" ") > 2):
        kind, text = ("enum" if text.startswith("enum") else "struct"), text.removeprefix("typedef ").split()[1]
    elif text.startswith("typedef "):
        kind, text = "type", text.removeprefix("typedef ")
    elif text.endswith(")"):
        kind = "function"
    else:
        kind = "var"
    body = [*value, *comment, *(to_rst(declaration.comment) if declaration.comment else [])]
    for member, note in declaration.members:
        inner = "enumerator" if kind == "enum" else "member"
        body += [f".. c:{inner}:: {member}", "", *_indent(to_rst(note) if note else []), ""]
    return [f".. c:{kind}:: {text}", "", *_indent(body), ""]


class CHeader(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        header = self.arguments[0]
        path = _HEADERS / header
        self.env.note_dependency(str(path))
        self.env.__dict__.setdefault("isthmus_headers", set()).add(header)
        introduction, groups = parse(path.read_text(encoding="utf-8"))
        head = introduction.removeprefix(f"<isthmus/{header}>: ")
        lines = to_rst(head[0].upper() + head[1:])
        defined = {d.text.removeprefix("typedef ").split()[1] for group in groups for d in group.declarations if d.members}
        for group in groups:
            lines += self.group(group, defined)
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source=str(path)), self.content_offset, node)
        return node.children

    def group(self, group: Group, defined: set[str]) -> list[str]:
        if group.comment.startswith("----"):
            title, _, rest = group.comment.strip("- ").partition(":")
            return [f".. rubric:: {title.strip().capitalize()}", "", *(to_rst(rest.strip()[0].upper() + rest.strip()[1:]) if rest else [])]
        declarations = []
        for declaration in group.declarations:
            opaque = re.match(r"^typedef struct (\w+) \1$", declaration.text)
            if not (opaque and opaque[1] in defined):  # its body, with the members, comes later
                declarations.append(declaration)
        if not declarations:
            return []
        comment = to_rst(group.comment) if group.comment else []
        plain = [d for d in declarations if not d.members and not d.comment and d.text.endswith(")")]
        if len(plain) == len(declarations) and len(plain) > 1 and all("typedef" not in d.text for d in plain):
            head = ".. c:function:: "
            signatures = [_WORD.sub("", d.text) for d in plain]
            return [head + signatures[0], *(" " * len(head) + s for s in signatures[1:]), "", *_indent(comment), ""]
        if len(declarations) == 1:
            return _render(declarations[0], comment)
        return [*comment, *(line for d in declarations for line in _render(d, []))]


def _complete(app: Sphinx, env: Any) -> None:
    shown: set[str] = env.__dict__.get("isthmus_headers", set())
    for path in sorted(_HEADERS.glob("*.h")):
        if path.name not in shown | _PRIVATE:
            _log.warning("C reference: no page has %s (.. c-header:: in docs/reference)", path.name)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("c-header", CHeader)
    app.connect("env-updated", _complete)
    return {"parallel_read_safe": False}
