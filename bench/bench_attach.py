"""P17: attaching to another process's array and letting go of it, against SharedMemory by name, 64 B … 1 GiB."""

import subprocess
import sys
from multiprocessing.shared_memory import SharedMemory

import isthmus as ist
import paired

SIZES = [64, 1 << 12, 1 << 20, 1 << 30]

# The other process: it makes what is attached to, prints a token and a name of each, and holds both until its input ends.
HOLDER = """
import sys
from multiprocessing.shared_memory import SharedMemory
import isthmus
kept = []
for size in map(int, sys.argv[1:]):
    kept.append((isthmus.empty(size, "u1"), SharedMemory(create=True, size=size)))  # untouched: nothing is committed
    print(kept[-1][0].token().hex(), kept[-1][1].name)
print("ready", flush=True)
sys.stdin.read()
for _, memory in kept:
    memory.close()
    memory.unlink()
"""

# track=False came with 3.13; the resource tracker's messages would be measured otherwise
BY_NAME = "m = SharedMemory(n, track=False); m.close()" if sys.version_info >= (3, 13) else "m = SharedMemory(n); m.close()"


def main() -> None:
    options = paired.arguments(__doc__)
    sizes = paired.sizes(SIZES, options.quick)
    command = [sys.executable, "-c", HOLDER, *map(str, sizes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        for size in sizes:
            token, name = holder.stdout.readline().split()
            ours = paired.statement("attach(t)", attach=ist.attach, t=bytes.fromhex(token))
            theirs = paired.statement(BY_NAME, SharedMemory=SharedMemory, n=name)
            at = paired.label(size)
            paired.compare("P17", at, ours, theirs, "SharedMemory(name)", group="SharedMemory", slices=30)


if __name__ == "__main__":
    main()
