"""P3 and P4: making and dropping an array; the views that cost nothing but a Python object."""

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


def main() -> None:
    options = paired.arguments(__doc__)
    if paired.wanted(options, "P3"):
        making(options.quick)
    if paired.wanted(options, "P4"):
        views()


if __name__ == "__main__":
    main()
