"""P16: reductions and tolist of a 1-D array, against numpy's, and array.array's for tolist.

A worker interpreter has no numpy, which is why these exist; they are measured in the main interpreter, where both can be.
"""

import array
import operator

import isthmus as ist
import numpy as np
import paired

DTYPES = ["f8", "f4", "i8", "i4", "u1", "?"]
LENGTHS = [10, 1000, 1_000_000]
METHODS = ["sum", "min", "max", "mean", "argmin", "argmax", "any", "all"]
TYPECODES = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "u1": "B"}


def content(method: str, dtype: str, length: int) -> np.ndarray:
    """What makes the method look at every element."""
    if method == "any":
        return np.zeros(length, dtype)
    if method == "all":
        return np.ones(length, dtype)
    return np.random.default_rng(1).integers(0, 2 if dtype == "?" else 100, length).astype(dtype)


def reductions(slices: int, lengths: list[int]) -> None:
    for method in METHODS:
        for dtype in DTYPES:
            for length in lengths:
                values = content(method, dtype, length)
                ours = ist.array(values)
                assert getattr(ours, method)() == getattr(values, method)() or method in ("mean", "sum")
                call = operator.methodcaller(method)
                compare(method, dtype, length, "f(x)", {"f": call, "x": ours}, "f(x)", {"f": call, "x": values}, slices)


def counting(slices: int, lengths: list[int]) -> None:
    for dtype in DTYPES:
        for length in lengths:
            values = content("sum", dtype, length)
            theirs = {"f": np.count_nonzero, "x": values}
            compare("count_nonzero", dtype, length, "x.count_nonzero()", {"x": ist.array(values)}, "f(x)", theirs, slices)


def listing(slices: int, lengths: list[int]) -> None:
    for dtype, typecode in TYPECODES.items():
        for length in lengths:
            values = content("sum", dtype, length)
            theirs = {"x": array.array(typecode, values.tobytes())}
            compare("tolist", dtype, length, "x.tolist()", {"x": ist.array(values)}, "x.tolist()", theirs, slices)


def compare(method: str, dtype: str, length: int, ours: str, our_names: dict, theirs: str, their_names: dict, slices: int) -> None:
    paired.compare(
        "P16",
        f"{method} {dtype} × {length:,}",
        paired.statement(ours, **our_names),
        paired.statement(theirs, **their_names),
        "array.array's" if method == "tolist" else "numpy's",
        slices=slices if length < 1_000_000 else max(3, slices // 5),
        seconds=100e-6,
        group=method,
    )


def main() -> None:
    options = paired.arguments(__doc__)
    slices = 8 if options.quick else 25
    lengths = paired.sizes(LENGTHS, False)
    reductions(slices, lengths)
    counting(slices, lengths)
    listing(slices, lengths)


if __name__ == "__main__":
    main()
