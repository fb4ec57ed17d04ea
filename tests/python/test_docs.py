"""Every Python and C snippet of README.md and of the pages in docs/, and every small example, runs as it stands."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import isthmus
import pytest
import scripts
import snippets

PYTHON = [s for page in snippets.PAGES for s in snippets.find(page, "python")]
C = [s for page in snippets.PAGES for s in snippets.find(page, "c") if "…" not in s.source]
SANITIZER = os.environ.get("ISTHMUS_SANITIZER")
# On every Python: the README, and what is for later ones. Under a sanitizer the README alone: the pages use what other tests do.
MARKED = [
    pytest.param(s, id=s.name, marks=[pytest.mark.matrix] if s.name.startswith("README") or s.version > (3, 12) else [])
    for s in PYTHON
    if s.name.startswith("README") or not SANITIZER
]


def test_there_are_snippets():
    assert sum(s.name.startswith("README") for s in PYTHON) >= 4
    assert len(PYTHON) >= 40
    assert len(C) >= 3


@pytest.mark.parametrize("snippet", MARKED)
def test_python(snippet, tmp_path):
    assert not snippet.undeclared(), 'a snippet says "# needs ..." what it imports'
    reason = snippet.missing()
    if reason:
        pytest.skip(reason)
    out = scripts.run(scripts.write(tmp_path, snippet.source), cwd=tmp_path).ok()
    assert out, "a snippet should print something"
    if snippet.printed is not None:
        assert snippets.matches(out, snippet.printed), f"it printed\n{out}\nand the page says\n{snippet.printed}"


@pytest.mark.parametrize("snippet", [pytest.param(s, id=s.name) for s in C])
def test_c(snippet, tmp_path):
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("there is no C compiler")
    if SANITIZER:
        pytest.skip("an instrumented library needs an instrumented program")
    source = tmp_path / "snippet.c"
    source.write_text(snippets.program(snippet.source))
    library = isthmus.get_library_dir()
    command = [*shlex.split(compiler), "-std=c11", "-Wall", "-Werror", "-I", isthmus.get_include(), str(source), "-o", str(tmp_path / "it")]
    command += [f"-L{library}", f"-Wl,-rpath,{library}", "-listhmus", "-pthread"]
    subprocess.run(command, check=True)
    done = subprocess.run([tmp_path / "it"], env=os.environ | {"ISTHMUS_DOMAIN": ""}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    if snippet.printed is not None:
        assert snippets.matches(done.stdout, snippet.printed), done.stdout


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["share_array.py", "interpreters_queue.py"])
def test_example(name):
    out = scripts.run(snippets.ROOT / "examples" / name).ok()
    if name == "share_array.py":
        assert out == "sum 13986000, array bytes copied: 0\n"
    elif sys.version_info >= (3, 14):
        assert out == "the worker wrote 7.0, its view has shape (3,)\narray bytes copied: 0\n"
    else:
        assert "came with Python 3.14" in out


HEADER = """/* <isthmus/x.h>: what it is.
 *
 * Errors: none.
 */
#define IST_X 3 /* how many */

/* Makes one.
 * Ownership: *out is yours. */
IST_MUST_CHECK IST_API int ist_x_make(int n, ist_x **out);

/* Two views: */
IST_API int ist_x_a(ist_x x); /* the first */
static inline int ist_x_b(ist_x x) { return x.a; }

typedef struct ist_x {
    int a, b; /* two */
    void *(*make)(int n, /* how many */
                  int m);
} ist_x;
"""


@pytest.fixture
def site(monkeypatch):
    """The modules of ./run docs that need no Sphinx."""
    monkeypatch.syspath_prepend(str(snippets.ROOT / "docs" / "_ext"))


def test_a_header_is_read(site):
    import c_header

    introduction, groups = c_header.parse(HEADER)
    assert introduction == "<isthmus/x.h>: what it is.\n\nErrors: none."
    assert [(g.comment, [d.text for d in g.declarations]) for g in groups] == [
        ("", ["IST_X = 3"]),
        ("Makes one.\nOwnership: *out is yours.", ["IST_MUST_CHECK IST_API int ist_x_make(int n, ist_x **out)"]),
        ("Two views:", ["IST_API int ist_x_a(ist_x x)", "static inline int ist_x_b(ist_x x)"]),
        ("", ["struct ist_x"]),
    ]
    assert groups[0].declarations[0].comment == "how many"
    assert groups[3].declarations[0].members == [("int a", "two"), ("int b", ""), ("void *(*make)(int n, int m)", "how many")]


def test_text_becomes_rst(site):
    import prose

    lines = prose.to_rst("One *star.\n\nsize: of `it`,\n    in bytes. Errors: -EINVAL.\n\n  a    first\n  b    second")
    text = "\n".join(lines)
    assert "One \\*star." in text
    assert "**size:** of ``it``, in bytes." in text
    assert "**Errors:** ``-EINVAL``." in text
    assert ".. list-table::" in text and "* - a" in text
    assert '``fallback="pickle"``: is pickled.' in prose.to_rst('What a put takes. Further\nwords. fallback="pickle": is pickled.')


def test_links_are_checked(tmp_path):
    (tmp_path / "a.html").write_text('<p id="x"></p><a href="b.html#y">1</a><a href="#x">2</a><a href="https://example.org/">3</a>')
    (tmp_path / "b.html").write_text('<p id="y"></p><img src="a.html">')
    check = [sys.executable, snippets.ROOT / "tools" / "check_links.py", tmp_path]
    assert subprocess.run(check, capture_output=True, text=True).stdout == "3\n"
    for broken in ('<a href="c.html">', '<a href="b.html#x">', '<img src="../c.png">'):
        (tmp_path / "c.htm").unlink(missing_ok=True)
        Path(tmp_path / "d.html").write_text(broken)
        done = subprocess.run(check, capture_output=True, text=True)
        assert done.returncode == 1 and "d.html" in done.stderr, broken
