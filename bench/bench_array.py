"""P3, P4 and P18: making and dropping an array; the views that cost nothing but a Python object; values in and out."""

from array import array
from multiprocessing.shared_memory import SharedMemory

import isthmus as ist
import numpy as np
import paired

SIZES = [64, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20]


def shared_memory(nbytes: int) -> paired.Timed:
    return paired.statement("m = SharedMemory(create=True, size=n); m.close(); m.unlink()", SharedMemory=SharedMemory, n=nbytes)


def making(quick: bool) -> None:
    for nbytes in paired.sizes(SIZES, quick):
        ours = paired.statement("empty(n)", empty=ist.empty, n=nbytes // 8)
        numpys = paired.statement("empty(n)", empty=np.empty, n=nbytes // 8)
        at = paired.label(nbytes)
        paired.compare("P3", at, ours, numpys, "numpy.empty", group="numpy")
        slices = 5 if quick else 10
        paired.compare("P3", at, ours, shared_memory(nbytes), "SharedMemory", group="SharedMemory", slices=slices)


def views() -> None:
    a = ist.zeros(1000)
    n = np.zeros(1000)
    b = bytearray(8000)
    m = memoryview(b).cast("d")
    exporter = array("d", bytes(8000))
    pairs = [
        ("memoryview(a)", {"a": a}, "memoryview(bytearray)", "memoryview(b)", {"b": b}),
        ("a[1:9]", {"a": a}, "numpy's a[1:9]", "n[1:9]", {"n": n}),
        ("asarray(a)", {"a": a, "asarray": np.asarray}, "asarray(memoryview)", "asarray(m)", {"m": m, "asarray": np.asarray}),
        # no target: another object with a buffer, for which numpy has to make the same memoryview first
        ("asarray(a)", {"a": a, "asarray": np.asarray}, "asarray(array.array)", "asarray(m)", {"m": exporter, "asarray": np.asarray}),
    ]
    for source, names, against, baseline, baseline_names in pairs:
        ours = paired.statement(source, **names)
        paired.compare("P4", source, ours, paired.statement(baseline, **baseline_names), against)


def elements() -> None:
    a, m = ist.zeros(1000), memoryview(ist.zeros(1000))
    for name, ours, theirs in (
        ("a[5]", "a[5]", "m[5]"),
        ("a[5] = x", "a[5] = 1.5", "m[5] = 1.5"),
        ("a[1:9], memoryview's", "a[1:9]", "m[1:9]"),
    ):
        paired.compare("P18", name, paired.statement(ours, a=a), paired.statement(theirs, m=m), "memoryview's", group="element")


def values(quick: bool) -> None:
    for nbytes in paired.sizes([1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 24], quick):
        n = nbytes // 8
        source = np.random.default_rng(1).random((n // 8, 8))
        ours, theirs = ist.zeros((n // 8, 8)), np.zeros((n // 8, 8))
        wide, wide_theirs = ist.zeros((n // 8, 16)), np.zeros((n // 8, 16))
        at = paired.label(nbytes)
        for name, group, key in (
            ("a[...] = x", "assign", ""),
            ("a[::-1] = x", "assign strided", "[::-1]"),
            ("a[:, ::2] = x", "assign strided", "[:, ::2]"),
        ):
            one, other = (wide, wide_theirs) if key == "[:, ::2]" else (ours, theirs)
            text = f"a{key or '[...]'} = x"
            paired.compare(
                "P18",
                f"{name}, {at}",
                paired.statement(text, a=one, x=source),
                paired.statement(text, a=other, x=source),
                "numpy's",
                group=group,
            )
        ours[...] = source
        paired.compare(
            "P18", f"a.copy(), {at}", paired.statement("a.copy()", a=ours), paired.statement("a.copy()", a=source), "numpy's", group="copy"
        )
        paired.compare(
            "P18",
            f"a.T.copy(), {at}",
            paired.statement("a.copy()", a=ours.T),
            paired.statement("a.copy('C')", a=source.T),
            "numpy's",
            group="copy strided",
        )


def main() -> None:
    options = paired.arguments(__doc__)
    if paired.wanted(options, "P3"):
        making(options.quick)
    if paired.wanted(options, "P4"):
        views()
    if paired.wanted(options, "P18"):
        elements()
        values(options.quick)


if __name__ == "__main__":
    main()
