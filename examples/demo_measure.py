"""The task of demo.py: measures one Python file by its tokens.

It is a module of its own so that worker interpreters and processes import it by name. Nothing in it knows how it is
run: the same function works in one interpreter, in many, and in processes; only where the row of numbers goes
differs.
"""

import array
import io
import keyword
import tokenize

# One row of the result per file, one column per measure.
MEASURES = (
    "bytes",
    "lines",
    "code lines",
    "comment lines",
    "blank lines",
    "longest line",
    "tokens",
    "names",
    "keywords",
    "numbers",
    "strings",
    "operators",
    "comments",
    "newlines",
    "non-logical newlines",
    "indents",
    "deepest brackets",
    "deepest indentation",
    "functions",
    "classes",
    "problem",
)
COLUMN = {name: number for number, name in enumerate(MEASURES)}

# Values of the column "problem". The other columns then have what could still be found out.
NONE, UNREADABLE, UNDECODABLE, NOT_PYTHON = range(4)
PROBLEMS = ("", "can't be read", "can't be decoded", "can't be tokenised")

_KIND = {tokenize.NUMBER: "numbers", tokenize.STRING: "strings", tokenize.OP: "operators", tokenize.COMMENT: "comments"}
_KIND |= {tokenize.NEWLINE: "newlines", tokenize.NL: "non-logical newlines", tokenize.INDENT: "indents"}
for _start in ("FSTRING_START", "TSTRING_START"):  # an f-string is several tokens: it counts where it begins
    if hasattr(tokenize, _start):
        _KIND[getattr(tokenize, _start)] = "strings"
_COLUMN_OF_KIND = {kind: COLUMN[name] for kind, name in _KIND.items()}
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_KEYWORDS = frozenset(keyword.kwlist)


def measure(path: str) -> list[int]:
    """The row of one file. A file that can't be read, decoded or tokenised says so in its row."""
    row = [0] * len(MEASURES)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        row[COLUMN["problem"]] = UNREADABLE
        return row
    row[COLUMN["bytes"]] = len(data)
    row[COLUMN["lines"]] = data.count(b"\n") + (data[-1:] not in (b"", b"\n"))
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeError, LookupError):
        row[COLUMN["problem"]] = UNDECODABLE
        return row
    row[COLUMN["longest line"]] = max(map(len, text.split("\n")))
    before = row.copy()
    try:
        count_tokens(text, row)
    except (tokenize.TokenError, SyntaxError, ValueError):
        before[COLUMN["problem"]] = NOT_PYTHON
        return before
    return row


def count_tokens(text: str, row: list[int]) -> None:
    """Fills in what the tokens tell."""
    tokens = names = keywords = functions = classes = 0
    brackets = deepest_brackets = indentation = deepest_indentation = 0
    code_lines = comment_lines = last_code_line = 0
    for kind, string, (first, _), (last, _), _ in tokenize.generate_tokens(io.StringIO(text).readline):
        tokens += 1
        if kind == tokenize.NAME:
            if string in _KEYWORDS:
                keywords += 1
                if string == "def":
                    functions += 1
                elif string == "class":
                    classes += 1
            else:
                names += 1
        elif kind in _COLUMN_OF_KIND:
            row[_COLUMN_OF_KIND[kind]] += 1
            if kind == tokenize.OP:
                if string in "([{":
                    brackets += 1
                    deepest_brackets = max(deepest_brackets, brackets)
                elif string in ")]}":
                    brackets -= 1
            elif kind == tokenize.COMMENT:
                comment_lines += first > last_code_line
            elif kind == tokenize.INDENT:
                indentation += 1
                deepest_indentation = max(deepest_indentation, indentation)
        elif kind == tokenize.DEDENT:
            indentation -= 1
        if kind not in _NO_CODE and last > last_code_line:
            code_lines += last - max(first, last_code_line + 1) + 1
            last_code_line = last
    for name, value in (
        ("tokens", tokens),
        ("names", names),
        ("keywords", keywords),
        ("functions", functions),
        ("classes", classes),
        ("deepest brackets", deepest_brackets),
        ("deepest indentation", deepest_indentation),
        ("code lines", code_lines),
        ("comment lines", comment_lines),
        ("blank lines", row[COLUMN["lines"]] - code_lines - comment_lines),
    ):
        row[COLUMN[name]] = value


def ready() -> None:
    """Does nothing; a worker that has done it is up and has imported this module."""


def fill_rows(rows, jobs: list[tuple[int, str]]) -> None:
    """Measures files into their rows of a shared array: nothing is sent back."""
    for number, path in jobs:
        rows[number] = measure(path)


def send_rows(jobs: list[tuple[int, str]]) -> array.array:
    """Measures files and returns their rows one after the other, to be pickled."""
    rows = array.array("q")
    for _, path in jobs:
        rows.extend(measure(path))
    return rows
