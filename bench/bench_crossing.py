"""P6: an array through CPython's own queue between interpreters, against a memoryview of the same array."""

import sys
import time
from collections.abc import Callable
from typing import Any

import isthmus as ist
import paired

SIZES = [1 << 10, 1 << 16, 1 << 20, 1 << 24, 1 << 30]


def public_queue() -> tuple[Callable[[Any], None], Callable[[], Any]]:
    from concurrent import interpreters

    queue = interpreters.create_queue()
    return queue.put, queue.get


def private_queue() -> tuple[Callable[[Any], None], Callable[[], Any]]:
    """What 3.13's test support builds its Queue on."""
    import _interpqueues as queues
    import _interpreters  # noqa: F401 - has the queue's exceptions

    shareable_only, unbound_when_gone = 0, 3
    number = queues.create(0, shareable_only, unbound_when_gone)

    def put(item: Any) -> None:
        queues.put(number, item, shareable_only, unbound_when_gone)

    def get() -> Any:
        return queues.get(number)[0]

    return put, get


def crossing(put: Callable[[Any], None], get: Callable[[], Any], item: Any) -> paired.Timed:
    def run(loops: int) -> float:
        begin = time.perf_counter()
        for _ in range(loops):
            put(item)
            get()
        return time.perf_counter() - begin

    return run


def main() -> None:
    options = paired.arguments(__doc__)
    if sys.version_info < (3, 13):
        paired.skip("P6", "Python 3.12 has no queue between interpreters that takes a memoryview")
        return
    put, get = public_queue() if sys.version_info >= (3, 14) else private_queue()
    for nbytes in paired.sizes(SIZES, options.quick):
        array = ist.empty(nbytes, "u1")  # untouched: what travels is a reference
        ours, views = crossing(put, get, array), crossing(put, get, memoryview(array))
        paired.compare("P6", paired.label(nbytes), ours, views, "its memoryview", size=nbytes)


if __name__ == "__main__":
    main()
