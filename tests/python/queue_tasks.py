"""What the tests of queues run in worker interpreters, processes and threads, which import it by name."""

import asyncio
import os
import queue
import random
from typing import Any

import isthmus as ist


def produce(q: "ist.Queue[Any]", who: int, n: int) -> int:
    for i in range(n):
        q.put((who, i) if i % 3 else {"who": who, "i": i, "a": ist.full(3, i, "i8")})
    return who


def consume(q: "ist.Queue[Any]") -> list[tuple[int, int]]:
    """Until the queue is shut down; what it got, in its order."""
    got = []
    for item in q:
        if isinstance(item, dict):
            assert item["a"].tolist() == [item["i"]] * 3
            item = item["who"], item["i"]
        got.append(item)
        q.task_done()
    return got


def ping(q: "ist.Queue[Any]", back: "ist.Queue[Any]") -> int:
    n = 0
    for item in q:
        back.put(item)
        n += 1
    return n


def make(maxsize: int) -> "ist.Queue[Any]":
    q = ist.Queue[Any](maxsize)
    q.put([os.getpid(), ist.array([1, 2, 3])])
    return q


def disturb(q: "ist.Queue[Any]", ready: "ist.Queue[int]", seed: int) -> None:
    """Puts and gets at random until it is killed."""
    ready.put(seed)
    dice = random.Random(seed)
    i = 0
    while True:
        try:
            if dice.random() < 0.6:
                q.put((seed, i) if dice.random() < 0.5 else [seed, ist.full(dice.randrange(1, 2000), i, "i8")], timeout=0.01)
                i += 1
            else:
                item = q.get(timeout=0.01)
                assert isinstance(item, tuple) or item[1][0] == item[1][-1]
        except (queue.Empty, queue.Full):
            pass


def relay(q: "ist.Queue[Any]", back: "ist.Queue[Any]") -> int:
    """As ping, in an event loop."""

    async def main() -> int:
        n = 0
        async for item in q:
            await back.aput(item)
            n += 1
        return n

    return asyncio.run(main())
