"""An array is frozen, handed out read-only, transferred, released or grown, again and again, while readers and writers have it, get it and
let go of it (ownership_storm.py), in threads, interpreters or processes. Nothing tears, nobody reads another's memory, only promised errors
come, and nothing is left.

ISTHMUS_STRESS_SECONDS: how long all of them take (6). ISTHMUS_SEED: the same dice again.
"""

import gc
import os
import random
import time
from collections.abc import Callable
from typing import Any

import isthmus as ist
import ownership_storm as storm
import pytest
from ownership_storm import GROWN, SHARED, SLOTS, mark, put, whole
from processes import poll

pytestmark = pytest.mark.matrix
KINDS = ["interpreter", "process", "thread"]
SECONDS = float(os.environ.get("ISTHMUS_STRESS_SECONDS", 6))


class Owner:
    """Who makes the arrays, puts them on the board, and does to them what the test is about."""

    def __init__(self, kind: str, pool: Any, dice: random.Random) -> None:
        self.kind, self.pool, self.dice = kind, pool, dice
        self.board = ist.zeros(SLOTS * storm.SLOT, "u1")
        self.made = 0
        self.counts = {"done": 0, "refused": 0}

    def make(self, slot: int) -> Any:
        self.made += 1
        return self.show(slot, ist.full(64, mark(self.made), "i8"))

    def show(self, slot: int, a: Any) -> Any:
        if self.kind == "thread":
            SHARED[slot] = a
        put(self.board, slot, a.token())
        return a

    def meanwhile(self, do: Callable[[], Any] = lambda: None) -> None:
        """Gives the others some time."""
        until = time.monotonic() + self.dice.choice((0, 0.0002, 0.002))
        while time.monotonic() < until:
            do()
            time.sleep(0)  # rule exception: lets other threads have the GIL

    def until_it_works(self, do: Callable[[], Any]) -> Any:
        """For as long as others hold it, which they are told not to do for long. None: they went on holding it."""
        for _ in range(50):
            try:
                result = do()
                self.counts["done"] += 1
                return result
            except BufferError:
                self.counts["refused"] += 1
                self.meanwhile()
        return None

    def freeze(self, slot: int) -> None:
        a = self.make(slot)
        self.meanwhile(lambda: a.fill(mark(self.made)))
        if self.until_it_works(a.freeze) is not None:
            content, value = a.tobytes(), hash(a)
            assert a.frozen and a.readonly
            with pytest.raises(ValueError, match="read-only"):
                a.fill(mark(2))
            self.meanwhile()
            assert (a.tobytes(), hash(a)) == (content, value), "a frozen array has changed"
            b = a.make_writable()
            assert not b.readonly and whole(b.tolist())
            assert b is a or (b.tobytes() == a.tobytes() == content and a.frozen)
            b[1:] = mark(1)
            assert b is a or a.tobytes() == content
            b.release()
        a.release()

    def readonly(self, slot: int) -> None:
        slot -= slot % 2
        a = ist.full(64, mark(self.made), "i8")
        self.made += 1
        reader = self.show(slot, a.toreadonly())
        self.show(slot + 1, a)
        self.meanwhile(lambda: a.fill(mark(self.dice.randrange(1000))))
        a[5] = mark(77)
        assert reader.readonly and not a.readonly and whole(reader.tolist()) and a.min() > 0
        self.counts["done"] += 1
        if self.dice.random() < 0.5:
            reader.release()
            self.meanwhile()
        a.release()
        reader.release()

    def release(self, slot: int) -> None:
        a = self.make(slot)
        known = a[0]
        view = memoryview(a) if self.dice.random() < 0.5 else None
        self.meanwhile()
        a.release()
        assert a.detached
        with pytest.raises(ist.DetachedError):
            a.tolist()
        if view is not None:
            self.meanwhile()
            assert view[0] == known and whole(view.tolist())
            view.release()
        self.counts["done"] += 1

    def transfer(self, slot: int) -> None:
        a = self.make(slot)
        known = a[0]
        self.meanwhile()
        sent = self.until_it_works(a.transfer)
        if sent is None:
            a.release()
            return
        assert a.detached
        with pytest.raises(ist.DetachedError):
            a.transfer()
        what = self.dice.randrange(3)
        if what == 0:
            back = self.pool.submit(storm.pass_on, sent, known).result(60)
            b = back._take() if isinstance(back, ist.Transfer) else back
        elif what == 1:
            b = sent._take()
        else:
            sent.release()
            assert sent.detached
            return
        assert sent.detached and b[0] == known and whole(b.tolist())
        b.release()

    def grow(self, slot: int) -> None:
        a = self.show(slot, ist.zeros(8, "i8", max_length=GROWN))
        seen = 8

        def more() -> None:
            nonlocal seen
            try:
                a.grow(min(GROWN, len(a) + self.dice.randrange(20)))
                self.counts["done"] += 1
            except ValueError as error:
                assert "already" in str(error), error
            assert seen <= len(a) <= GROWN
            seen = len(a)

        self.meanwhile(more)
        more()
        values = a.tolist()
        assert len(values) >= seen and all(x in (0, mark(i)) for i, x in enumerate(values))
        try:
            a.freeze()
        except BufferError:
            self.counts["refused"] += 1
        else:
            n, content = len(a), a.tobytes()
            with pytest.raises(ValueError, match="frozen"):
                a.grow(GROWN)
            self.meanwhile()
            assert (len(a), a.tobytes()) == (n, content)
        a.release()


@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", ["freeze", "readonly", "transfer", "release", "grow"])
def test_against_readers_and_writers(operation: str, kind: str) -> None:
    seed = int(os.environ.get("ISTHMUS_SEED", random.randrange(2**32)))
    print(f"ISTHMUS_SEED={seed}")
    dice = random.Random(seed)
    control = ist.zeros(3, "i8")  # over; the reader has begun; the writer has begun
    with ist.WorkerPool(3, kind=kind) as pool:
        owner = Owner(kind, pool, dice)
        others = [pool.submit(what, owner.board, control, operation, dice.randrange(2**32)) for what in (storm.read, storm.write)]
        step = getattr(owner, operation)
        try:
            poll(lambda: (control[1] and control[2]) or any(o.done() for o in others), "the others begin")
            end = time.monotonic() + SECONDS / 15
            rounds = 0
            while (time.monotonic() < end or rounds < 20) and not any(o.done() for o in others):
                step(rounds % SLOTS)
                rounds += 1
        finally:
            control[0] = 1
            told = [o.result(60) for o in others]  # or what went wrong there
            SHARED.clear()
        print(f"{rounds} rounds, {owner.counts}; readers {told[0]}, writers {told[1]}")
        if kind == "process":  # but for the board and the control
            poll(lambda: pool.submit(storm.left).result(60) <= 2, "a worker lets go")
        assert owner.counts["done"] > 0 and told[0].get("read", 0) > 0 and told[1].get("written", 0) > 0
    owner.board.release()
    control.release()
    gc.collect()  # an exception that contextlib let pass is in a cycle with its frames, and those have views
    poll(lambda: ist.sweep() and ist.segments() == [], lambda: f"empty: {ist.segments()}")
    stats = ist.stats()
    assert (stats["in_flight"], stats["saturated"], stats["misuses"], stats["orphaned"], stats["leases"]) == (0, 0, 0, 0, 0)
