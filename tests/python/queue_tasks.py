"""What the tests of queues run in worker interpreters, processes and threads, which import it by name."""

import os
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


def disturb(path: str, q: "ist.Queue[Any]", acknowledged: "ist.Queue[Any]", seed: int) -> None:
    """Puts and gets at random until it is killed. Says in `acknowledged` what it has put."""
    dice = random.Random(seed)
    i = 0
    while True:
        if dice.random() < 0.6:
            if dice.random() < 0.5:
                q.put((seed, i))
            else:
                q.put([seed, ist.full(dice.randrange(1, 2000), i, "i8")])
            i += 1
        else:
            try:
                item = q.get(timeout=0.01)
            except Exception as error:
                if type(error).__name__ != "Empty":
                    raise
                continue
            if isinstance(item, list):
                assert (item[1][0], item[1][-1]) == (item[1][0],) * 2
