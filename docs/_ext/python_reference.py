"""The directive `python`: what these names of the package are.

    .. python:: zeros Queue atomics.wait

Signatures come from the type stubs (or, where a module has none, from its annotated source), texts from the stubs' docstrings, or
those of the package that runs. At the end it warns of public names that no page has, of names without a docstring, and of names that
don't exist.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import isthmus
from docutils import nodes
from docutils.statemachine import StringList
from prose import to_rst
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

_log = logging.getLogger(__name__)
_PACKAGE = Path(__file__).resolve().parents[2] / "pybuffer" / "isthmus"
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.TypeAlias | ast.Assign
# The stubs' private names, as a reader knows them.
_SHOWN = {
    "_T": "T",
    "C": "T",
    "_str": "str",
    "_dtype": "dtype",
    "_DType": "DType",
    "_Values": "Values",
    "_Shape": "Shape",
    "_Index": "Index",
}
_SHOWN |= {"_Key": "Key", "_Keys": "Keys", "_Nested": "Nested", "_Scalar": "Scalar", "_HasSegment": "HasSegment", "_HasDLPack": "HasDLPack"}
_SHOWN |= {"_Waiting": "Waiting", "_HasArrow": "HasArrow", "_HasArrowStream": "HasArrowStream", "_HasStr": "HasStr"}


class _Stubs:
    """The definitions of the package's modules, by name."""

    def __init__(self) -> None:
        self.modules: dict[str, dict[str, list[_Definition]]] = {}
        self.public: dict[str, str] = {}  # isthmus.NAME → its module
        for node in ast.parse((_PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                self.public |= {alias.name: node.module for alias in node.names}
            elif isinstance(node, ast.FunctionDef):
                self.public[node.name] = "__init__"

    def module(self, name: str) -> dict[str, list[_Definition]]:
        if name not in self.modules:
            path = _PACKAGE / f"{name}.pyi"
            tree = ast.parse((path if path.exists() else path.with_suffix(".py")).read_text(encoding="utf-8"))
            found: dict[str, list[_Definition]] = {}
            for node in [*tree.body, *(n for branch in tree.body if isinstance(branch, ast.If) for n in branch.orelse)]:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    found.setdefault(node.name, []).append(node)
                elif isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                    for alias in node.names:
                        if alias.name[0].isupper():
                            found[alias.name] = self.module(node.module).get(alias.name, [])
                elif isinstance(node, ast.TypeAlias):
                    found[node.name.id] = [node]
                elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    found[node.targets[0].id] = [node]
            self.modules[name] = found
        return self.modules[name]

    def find(self, name: str) -> list[_Definition]:
        if "." in name:
            module, name = name.split(".")
        else:
            module = self.public.get(name, "_core")
        return self.module(module).get(name, [])


class _Shown(ast.NodeTransformer):
    """Annotations without what only a type checker reads."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Name(_SHOWN.get(node.id, node.id), node.ctx), node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:  # "_Nested", a name that comes later
        return ast.Name(_SHOWN[node.value]) if isinstance(node.value, str) and node.value in _SHOWN else node


def _text(node: ast.AST) -> str:
    return ast.unparse(_Shown().visit(node))


def _signature(function: ast.FunctionDef | ast.AsyncFunctionDef, method: bool) -> str:
    arguments = function.args
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    if method and not static:
        (arguments.posonlyargs or arguments.args).pop(0)
    result = "" if function.returns is None or function.name == "__init__" else f" -> {_text(function.returns)}"
    parameters = ", ".join(f"{_text(p)}" for p in function.type_params)
    return f"{f'[{parameters}]' if parameters else ''}({_text(arguments)}){result}"


def _docstring(value: Any, node: ast.AST) -> str:
    stub = ast.get_docstring(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else None  # says more, where there is one
    return inspect.cleandoc(stub or value.__doc__ or "")


def _old_spelling(name: str, node: ast.ClassDef) -> bool:
    """notifyAll, where there is notify_all."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return snake != name.lower() and any(isinstance(m, ast.FunctionDef) and m.name == snake for m in node.body)


def _directive(kind: str, signatures: list[str], body: list[str], *options: str) -> list[str]:
    head = f".. py:{kind}:: "
    lines = [head + signatures[0], *(" " * len(head) + s for s in signatures[1:])]
    lines += [f"   {o}" for o in options]
    return [*lines, "", *(f"   {line}" if line else "" for line in body), ""]


class Python(SphinxDirective):
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        self.seen: set[str] = self.env.__dict__.setdefault("isthmus_documented", set())
        self.stubs = _Stubs()
        lines = [".. py:currentmodule:: isthmus", ""]
        for name in self.arguments[0].split():
            lines += self.entry(name)
        node = nodes.container()
        source = StringList(lines, source=self.get_source_info()[0] + ", python reference")
        self.state.nested_parse(source, self.content_offset, node)
        return node.children

    def warn(self, text: str) -> None:
        _log.warning("python reference: %s", text, location=self.get_location())

    def entry(self, name: str) -> list[str]:
        found = self.stubs.find(name)
        if not found:
            self.warn(f"the stubs don't have {name}")
            return []
        self.seen.add(name)
        node = found[-1]
        if isinstance(node, ast.TypeAlias | ast.Assign):
            return _directive("type", [_SHOWN.get(name.split(".")[-1], name)], [], f":canonical: {_text(node.value)}")
        if name.split(".")[-1] in _SHOWN:  # a protocol: what has these methods
            methods = [member for member in node.body if isinstance(member, ast.FunctionDef)]
            body = [f"Whatever has {', '.join(f'``{m.name}``' for m in methods)}.", ""]
            for method in methods:
                if text := ast.get_docstring(method):
                    body += _directive("method", [method.name + _signature(method, True)], to_rst(text))
            return _directive("class", [_SHOWN[name.split(".")[-1]]], body)
        value: Any = importlib.import_module(f"isthmus.{name.split('.')[0]}") if "." in name else isthmus
        value = getattr(value, name.split(".")[-1])
        text = _docstring(value, node)
        if not text:
            self.warn(f"{name} has no docstring")
        if isinstance(node, ast.ClassDef):
            return self.class_(name, node, value, text)
        return _directive("function", [name + _signature(f, False) for f in found if not isinstance(f, ast.ClassDef)], to_rst(text))

    def class_(self, name: str, node: ast.ClassDef, value: Any, text: str) -> list[str]:
        init = ""
        body = to_rst(text)
        bases = [_text(b) for b in node.bases if _text(b).split("[")[0] not in {"Generic", "structseq", "tuple"}]
        if bases:
            links = [f":py:class:`{b} <isthmus.{b}>`" if b in isthmus.__all__ else f"``{b}``" for b in bases]
            body = ["Bases: " + ", ".join(links), "", *body]
        members: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]] = {}
        for member in node.body:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                members.setdefault(member.name, []).append(member)
        for member_name, found in members.items():
            if member_name in {"__init__", "__new__"}:
                init = _signature(found[0], True).split(" -> ")[0]
            elif not member_name.startswith("_") and not _old_spelling(member_name, node):
                body += self.member(f"{name}.{member_name}", found, getattr(value, member_name))
        kind = "exception" if issubclass(value, BaseException) else "class"
        final = [":final:"] if any(isinstance(d, ast.Name) and d.id == "final" for d in node.decorator_list) else []
        return _directive(kind, [name + init], body, *final)

    def member(self, name: str, found: list[ast.FunctionDef | ast.AsyncFunctionDef], value: Any) -> list[str]:
        node = found[-1]
        text = _docstring(value, node)
        if not text:
            self.warn(f"{name} has no docstring")
        decorators = {_text(d) for d in node.decorator_list}
        if "property" in decorators:
            return _directive("property", [name.split(".")[-1]], to_rst(text), *([f":type: {_text(node.returns)}"] if node.returns else []))
        options = [":classmethod:"] if "classmethod" in decorators else []
        options += [":async:"] if isinstance(node, ast.AsyncFunctionDef) else []
        return _directive("method", [name.split(".")[-1] + _signature(f, True) for f in found], to_rst(text), *options)


def _complete(app: Sphinx, env: Any) -> None:
    seen: set[str] = env.__dict__.get("isthmus_documented", set())
    public = {name for name in isthmus.__all__ if not inspect.ismodule(getattr(isthmus, name))}
    for module in ("atomics", "testing"):
        public |= {f"{module}.{name}" for name in importlib.import_module(f"isthmus.{module}").__all__}
    for name in sorted(public - seen):
        _log.warning("python reference: no page has %s (.. python:: in docs/reference)", name)


def _not_ours(app: Sphinx, doctree: nodes.document) -> None:
    """str in an annotation isn't dtype.str, nor a type variable SharedArray.T: Sphinx would look in the class around it."""
    for node in list(doctree.findall(addnodes.pending_xref)):
        if node.get("refdomain") == "py" and (node["reftarget"] in vars(builtins) or node["reftarget"] in {"T", "C", "P"}):
            node.replace_self(node.children)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("python", Python)
    app.connect("doctree-read", _not_ours)
    app.connect("env-updated", _complete)
    return {"parallel_read_safe": False}
