"""P12: first touch of fresh memory, and zeros of memory that was used before, against memset of a memfd's mapping."""

import ctypes
import mmap
import os
import time
from pathlib import Path

import isthmus as ist
import paired

SIZES = [1 << 20, 1 << 22, 1 << 24, 1 << 26]
collect = ctypes.CDLL(str(next((Path(ist.__file__).parent / "lib").glob("libisthmus.so.*")))).ist_collect


class Mapping:
    """A memfd that only we know, mapped shared as a heap is."""

    def __init__(self, nbytes: int) -> None:
        self.fd = os.memfd_create("bench")
        os.ftruncate(self.fd, nbytes)
        self.memory = mmap.mmap(self.fd, nbytes)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.nbytes = nbytes

    def fill(self, value: int) -> None:
        ctypes.memset(self.address, value, self.nbytes)

    def punch(self) -> None:
        self.memory.madvise(mmap.MADV_REMOVE)


def first_touch_of_a_mapping(nbytes: int) -> paired.Timed:
    mapping = Mapping(nbytes)

    def run(loops: int) -> float:
        taken = 0.0
        for _ in range(loops):
            mapping.punch()
            begin = time.perf_counter()
            mapping.fill(1)
            taken += time.perf_counter() - begin
        return taken

    return run


def first_touch_of_an_array(nbytes: int) -> paired.Timed:
    def run(loops: int) -> float:
        taken = 0.0
        for _ in range(loops):
            collect()
            a = ist.empty(nbytes, "u1")
            begin = time.perf_counter()
            a.fill(1)
            taken += time.perf_counter() - begin
            a.release()
        return taken

    return run


def main() -> None:
    options = paired.arguments(__doc__)
    for nbytes in paired.sizes(SIZES, options.quick):
        at = paired.label(nbytes)
        slices = 5 if options.quick else 15
        ours, theirs = first_touch_of_an_array(nbytes), first_touch_of_a_mapping(nbytes)
        paired.compare("P12", f"first touch of {at}", ours, theirs, "a fresh mapping", group="touch", slices=slices)
        warm = Mapping(nbytes)
        warm.fill(1)
        baseline = paired.statement("fill(0)", fill=warm.fill)
        ours = paired.statement("zeros(n, 'u1')", zeros=ist.zeros, n=nbytes)
        paired.compare("P12", f"zeros of {at}", ours, baseline, "memset of a warm mapping", group="zeros", slices=2 * slices)


if __name__ == "__main__":
    main()
