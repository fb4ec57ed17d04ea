"""Code in text that names something of isthmus's is a link to it, and must exist.

`ist.zeros(3)`, `isthmus.Queue.put`, `atomics.wait` and `ist_segment_retain` become links to the references. A name that they don't have
is a warning: pages don't speak of what there isn't.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

_log = logging.getLogger(__name__)
_PYTHON = re.compile(r"^(?:ist|isthmus)\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(.*\))?$", re.DOTALL)
_ATOMICS = re.compile(r"^(atomics\.\w+)(?:\(.*\))?$")
_C = re.compile(r"^(ist_\w+|IST_\w+)(?:\(\))?$")
_HEADER = re.compile(r"^<isthmus/(\w+)\.h>$")


class LinkNames(SphinxPostTransform):
    default_priority = 5  # before references are resolved

    def run(self, **kwargs: Any) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            if isinstance(literal.parent, nodes.reference):
                continue
            text = literal.astext()
            python, c, header = _PYTHON.match(text) or _ATOMICS.match(text), _C.match(text), _HEADER.match(text)
            if python:
                self.link(literal, "py", f"isthmus.{python[1]}", self.exists(python[1]))
            elif c:
                self.link(literal, "c", c[1], c[1].endswith("_"))
            elif header and header[1] != "isthmus":
                self.page(literal, f"reference/c-{header[1].replace('_', '-')}")

    def exists(self, name: str) -> bool:
        """A name that is there though the reference has no entry of its own for it: a module, a member of one that isn't public."""
        value: Any = importlib.import_module("isthmus")
        try:
            for part in name.split("."):
                value = getattr(value, part)
        except AttributeError:
            return False
        return True

    def link(self, literal: nodes.literal, domain: str, target: str, known: bool) -> None:
        here = self.env.docname
        node = addnodes.pending_xref("")
        found = self.env.domains[domain].resolve_any_xref(self.env, here, self.app.builder, target, node, literal.deepcopy())
        if found:
            literal.replace_self(found[0][1])
        elif not known:
            _log.warning("names: %r is not in the reference", literal.astext(), location=literal)

    def page(self, literal: nodes.literal, name: str) -> None:
        if name == self.env.docname:
            return
        if name not in self.env.all_docs:
            _log.warning("names: there is no page for %s", literal.astext(), location=literal)
            return
        uri = self.app.builder.get_relative_uri(self.env.docname, name)
        literal.replace_self(nodes.reference("", "", literal.deepcopy(), internal=True, refuri=uri))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_post_transform(LinkNames)
    return {"parallel_read_safe": True}
