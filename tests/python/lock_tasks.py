"""What the tests of locks share: one of each, threads that give back what they did, and what runs in other processes."""

import threading
from collections.abc import Callable
from typing import Any

import isthmus as ist

KINDS: dict[str, Callable[[], Any]] = {
    "Lock": ist.Lock,
    "RLock": ist.RLock,
    "Condition": ist.Condition,
    "Condition of a Lock": lambda: ist.Condition(ist.Lock()),
    "Semaphore": lambda: ist.Semaphore(3),
    "BoundedSemaphore": lambda: ist.BoundedSemaphore(3),
    "Event": ist.Event,
    "Barrier": lambda: ist.Barrier(2, timeout=7),
}


def in_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    """Starts it; what is returned waits for it, and returns what it returned or raised."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def join() -> Any:
        thread.join(60)
        assert outcome, "it hangs"
        return outcome[0]

    return join


def task_count(lock: Any, count: Any, times: int) -> None:
    for _ in range(times):
        with lock:
            count[0] = count[0] + 1


def task_meet_and_count(barrier: Any, lock: Any, number: Any, times: int) -> None:
    assert barrier.wait(60) in range(3)
    task_count(lock, number, times)
