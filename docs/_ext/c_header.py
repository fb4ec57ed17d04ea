"""Reads a public header: its groups of declarations, and their comments.

A comment belongs to the declarations that follow it up to an empty line, or to the one it stands behind. The first comment of a header is
the introduction. It knows as much of C as our headers have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Declaration", "Group", "parse"]

_COMMENT = re.compile(r"/\*(.*?)\*/", re.DOTALL)


@dataclass
class Declaration:
    text: str  # one line, without comments
    members: list[tuple[str, str]] = field(default_factory=list)  # of a struct or enum: declaration, comment
    comment: str = ""  # that stands behind it


@dataclass
class Group:
    comment: str = ""
    declarations: list[Declaration] = field(default_factory=list)


def comment_text(raw: str) -> str:
    lines = raw.split("\n")
    return "\n".join([lines[0].strip(), *(re.sub(r"^\s*\* ?", "", line).rstrip() for line in lines[1:])]).strip("\n ")


def parse(source: str) -> tuple[str, list[Group]]:
    """The introduction and the groups of a header."""
    first = _COMMENT.match(source)
    assert first is not None
    introduction = comment_text(first[1])
    source = source[first.end() :]
    groups = [Group()]
    at = 0
    fresh = True  # an empty line was seen: the next declaration begins a group
    while at < len(source):
        space = re.compile(r"\s*").match(source, at)
        assert space is not None
        newlines = space[0].count("\n")
        at = space.end()
        if at == len(source):
            break
        if newlines > 1:
            fresh = True
        if source.startswith("/*", at):
            comment = _COMMENT.match(source, at)
            assert comment is not None
            at = comment.end()
            text = comment_text(comment[1])
            if newlines == 0 and groups[-1].declarations:
                groups[-1].declarations[-1].comment += text
            else:
                groups.append(Group(text))
                fresh = False
            continue
        declaration, at = _declaration(source, at)
        if declaration is None:
            continue
        if groups[-1].comment.startswith("----") or (fresh and groups[-1].declarations):
            groups.append(Group())
        groups[-1].declarations.append(declaration)
        fresh = False
    return introduction, [g for g in groups if g.declarations or g.comment.startswith("----")]


def _declaration(source: str, at: int) -> tuple[Declaration | None, int]:
    if source.startswith("#", at):
        end = source.index("\n", at)
        line = source[at:end]
        define = re.match(r"#\s*define\s+(IST_\w+)(\([^)]*\))?\s+([^/\s].*?)\s*(/\*.*)?$", line)
        if define is None or define[1] in {"IST_API", "IST_MUST_CHECK"}:
            return None, end
        comment = at + line.index("/*", define.start(3)) if define[4] else end
        return Declaration(f"{define[1]}{define[2] or ''} = {define[3]}"), comment
    extern = re.compile(r'extern "C" \{|\}').match(source, at)
    if extern is not None:
        return None, extern.end()
    brace, semicolon = source.find("{", at), source.find(";", at)
    if brace == -1 or semicolon < brace:
        return Declaration(_one_line(source[at:semicolon])), semicolon + 1
    end = _block_end(source, brace)
    head, body = _one_line(source[at:brace]), source[brace + 1 : end - 1]
    if head.endswith(")"):
        return Declaration(head), end  # an inline function
    tail = source.index(";", end)
    name = source[end:tail].strip()
    head = re.sub(r"^typedef ", "", head)
    if name and len(head.split()) == 1:
        head += f" {name}"
    return Declaration(head, _enumerators(body) if head.startswith("enum") else _members(body)), tail + 1


def _block_end(source: str, brace: int) -> int:
    depth = 0
    for found in re.compile(r"/\*.*?\*/|[{}]", re.DOTALL).finditer(source, brace):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.end()
    raise AssertionError("a brace isn't closed")


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", _COMMENT.sub(" ", text)).strip()


def _pieces(body: str, end: str) -> list[tuple[str, str]]:
    """(text, comment) of what ends with `end`; a comment in front of several belongs to the first, one behind to the last."""
    found: list[list[str]] = []
    text = before = ""
    at = last = 0
    while at < len(body):
        if body.startswith("/*", at):
            comment = _COMMENT.match(body, at)
            assert comment is not None
            if text.strip():
                text += " "
                before = comment_text(comment[1])
            elif found and "\n" not in body[last:at]:
                found[-1][1] = comment_text(comment[1])
            else:
                before = comment_text(comment[1])
            at = comment.end()
            continue
        if body[at] == end and text.count("(") == text.count(")"):
            found.append([_one_line(text), before])
            text = before = ""
            last = at + 1
        else:
            text += body[at]
        at += 1
    if text.strip():
        found.append([_one_line(text), before])
    return [(piece, comment) for piece, comment in found]


def _members(body: str) -> list[tuple[str, str]]:
    found = []
    for text, comment in _pieces(body, ";"):
        several = re.match(r"^((?:\w+ )+)(\**\w+(?:\[\w+\])?(?:, \**\w+(?:\[\w+\])?)+)$", text)
        names = several[2].split(", ") if several else []
        found += [(several[1] + name, comment if i == 0 else "") for i, name in enumerate(names)] if several else [(text, comment)]
    return found


def _enumerators(body: str) -> list[tuple[str, str]]:
    return _pieces(body, ",")
