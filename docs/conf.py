"""How ./run docs makes the documentation site: Sphinx, with pages in Markdown (MyST)."""

import sys
from pathlib import Path

import isthmus

sys.path.insert(0, str(Path(__file__).resolve().parent / "_ext"))

project = "isthmus"
copyright = "the authors of isthmus; Apache License 2.0"
release = version = isthmus.__version__

extensions = ["myst_parser", "sphinx_copybutton", "python_reference", "c_reference", "names", "breaks"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_ext"]
nitpicky = True
# Types of other people's, which there is nothing to link to.
nitpick_ignore_regex = [
    (r"py:.*", r"(T|C|P|P\.\w+|Any|Self|Literal|Final|Sequence|Iterable|Iterator|Mapping|Buffer|Callable|MappingProxyType|CapsuleType)"),
    (
        r"py:.*",
        r"(AsyncIterator|Generator|Awaitable|TracebackType|EllipsisType|SupportsIndex|SupportsFloat|SupportsComplex|StrPath|HasFileno)",
    ),
    (r"py:.*", r"(date|timedelta|concurrent\.futures\.\w+|threading\.\w+|asyncio\.\w+|queue\.\w+|collections\.\w+|Future|types\.\w+)"),
    (r"c:identifier", r"(size_t|s?size_t|u?int(8|16|32|64)_t|bool|Py\w+)"),
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]

html_theme = "furo"
html_title = f"isthmus {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"

python_maximum_signature_line_length = 88
c_maximum_signature_line_length = 88
c_id_attributes = ["IST_API", "IST_MUST_CHECK"]
toc_object_entries_show_parents = "hide"
copybutton_exclude = ".linenos, .gp"
