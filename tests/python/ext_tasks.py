"""What test_python_h.py runs in workers: a module of its own, since workers import it by name. The extension is on sys.path."""

import decimals  # type: ignore[import-not-found]

kept = []


def add_one(x):
    (column,) = x["deep"] if isinstance(x, dict) else x
    for i in range(len(column)):
        column[i] += 1
    return column, total(column), column.scale


def total(column):
    return sum(column[i] for i in range(len(column)))


def make(values):
    return decimals.Column(values, 1, heap=True)


def make_wrapped(values):
    return decimals.Column(values, 1)


def keep(column):
    """Until the interpreter ends."""
    kept.append(column)
    return column[0]
