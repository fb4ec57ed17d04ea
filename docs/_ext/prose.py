"""The plain text of docstrings and of header comments as reStructuredText.

What it reads: paragraphs divided by empty lines; ``name: text`` or ``Errors: text`` at the beginning of a line, whose further lines are
indented; indented blocks, which are code, or tables of two columns if every line has a gap of two spaces in it; `code`. Everything else
stands for itself.
"""

from __future__ import annotations

import re
import textwrap

__all__ = ["to_rst"]

_WORDS = r"Errors|Ownership|Threads|Processes|Blocking|Ordering|Order|On failure|Misuse|Words|Read-only|Killed processes|Fairness|Source"
_LABEL = re.compile(rf"^(?P<name>[a-z_]\w*(?:, [a-z_]\w*)*(?:=\"\w+\")?|(?:{_WORDS})(?:,? [a-z (]+\)?)*): (?=\S)(?P<text>.*)")
_CODE = re.compile(
    r"``.+?``|`[^`\n]+`|'[^'\s]+'(?= |,|:|\.|\)|;|$)|<isthmus/\w+\.h>|(?<![\w/.])(?:ist_\w+|IST_\w+|-E[A-Z0-9]{3,})(?:\(\))?"
    r"|\b[a-z_]\w*(?:\.\w+)*\(\)|\b__\w+__\b"
)
_ROW = re.compile(r"^\s*(\S.*?)\s{2,}(\S.*)$")


def _inline(text: str) -> str:
    """One paragraph: escaped, with code as literals."""
    out = []
    at = 0
    for found in _CODE.finditer(text):
        out.append(_escape(text[at : found.start()]))
        code = found[0].strip("`")
        if found.start() > 0 and text[found.start() - 1] not in " ([{<-/:":
            out.append("\\ ")
        out.append(f"``{code}``")
        at = found.end()
        if text[at : at + 1] not in set(" )]}>-/:.,;!?'\"") | {""}:
            out.append("\\ ")
    out.append(_escape(text[at:]))
    return "".join(out)


def _escape(text: str) -> str:
    return re.sub(r"(?<!\w)\\\*(\w+)\\\*(?!\w)", r"*\1*", re.sub(r"([\\*`|_])", r"\\\1", text))  # *emphasis* stays


def _paragraph(lines: list[str]) -> list[str]:
    """Lines without an empty one between them: text and labelled parts in turn."""
    lines = _split(lines)
    parts: list[tuple[str | None, list[str]]] = []
    for line in lines:
        label = None if line.startswith(" ") or (parts and parts[-1][1] and not _ends(parts[-1][1][-1])) else _LABEL.match(line)
        if label:
            parts.append((label["name"], [label["text"]]))
        elif parts and (parts[-1][0] is None or line.startswith(" ")):
            parts[-1][1].append(line.strip())
        elif parts:  # text goes on at the margin: a label's text was too long for a line, and wasn't indented
            parts[-1][1].append(line)
        else:
            parts.append((None, [line]))
    out = []
    for name, texts in parts:
        text = _inline(" ".join(texts))
        label = "" if name is None else f"``{name}``: " if "=" in name else f"**{_escape(name)}:** "
        out += [label + text, ""]
    return out


def _split(lines: list[str]) -> list[str]:
    """A label that begins within a line begins one."""
    return [part for line in lines for part in re.split(rf"(?<=[.] )(?=(?:{_WORDS}): |[a-z]\w*(?:=\"\w+\")?: )", line)]


def _ends(line: str) -> bool:
    return line.rstrip()[-1:] in {".", ";", ":", ")"}


def _indented(lines: list[str]) -> list[str]:
    rows = [_ROW.match(line) for line in lines]
    if all(rows):
        cells = [(row[1], row[2]) for row in rows if row]
        table = [".. list-table::", "   :class: plain", "   :widths: auto", ""]
        for left, right in cells:
            table += [f"   * - {_inline(left)}", f"     - {_inline(right)}"]
        return [*table, ""]
    language = "text" if any(" # " in line for line in lines) else "c"  # a line of Python among C
    return [f".. code-block:: {language}", "", *textwrap.indent(textwrap.dedent("\n".join(lines)), "   ").split("\n"), ""]


def to_rst(text: str) -> list[str]:
    """As lines. A single line is a remark, without labels."""
    if "\n" not in text.strip("\n"):
        return [_inline(text.strip()), ""]
    out: list[str] = []
    lines = [line.rstrip() for line in text.strip("\n").split("\n")]
    at = 0
    while at < len(lines):
        if not lines[at]:
            at += 1
            continue
        end = at
        if _block(lines[at]):  # code may have empty lines in it
            while end < len(lines) and (_block(lines[end]) or (not lines[end] and end + 1 < len(lines) and _block(lines[end + 1]))):
                end += 1
            out += _indented(lines[at:end])
        else:
            while end < len(lines) and lines[end]:
                end += 1
            out += _paragraph(lines[at:end])
        at = end
    return out


def _block(line: str) -> bool:
    return line.startswith("  ") and bool(line.strip())
