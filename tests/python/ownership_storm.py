"""What others do to an array while its owner freezes it, hands it out read-only, transfers, releases or grows it: the workers of
test_ownership_storm.py.

    read(board, control, operation, seed), write(...)     run until control[0] is set; they say in control[1], [2] that
                                                          they have begun, and return what they counted

The owner puts tokens on the board; who reads there attaches. In a thread of the owner's interpreter they also use the owner's own handles,
from SHARED. Every element is a mark, four times the same 16 bits, so that one that was written half is seen; element 0 of most arrays
says which array it is, and nobody writes it after its maker. Only errors that are promised are expected, each where it is promised.
"""

import contextlib
import gc
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import isthmus as ist

SLOTS, SLOT = 4, 256
LANES = 0x0001_0001_0001_0001
GROWN = 4096  # elements that a growing array may have

SHARED: dict[int, Any] = {}  # slot → the owner's handle; there is one in threads alone


def mark(n: int) -> int:
    return (1 + n % 0x7FFE) * LANES


def whole(values: list[int], *, zeros: bool = False) -> bool:
    return all(x == (x & 0xFFFF) * LANES and (x > 0 or zeros) for x in values)


def put(board: Any, slot: int, token: bytes) -> None:
    text = struct.pack("<H", len(token)) + token
    entry = struct.pack("<I", zlib.crc32(text)) + text
    board[slot * SLOT : slot * SLOT + len(entry)] = ist.array(entry)


def get(board: Any, slot: int) -> bytes | None:
    """None: nothing is there, or it is being written."""
    entry = board[slot * SLOT : (slot + 1) * SLOT].tobytes()
    (size,) = struct.unpack_from("<H", entry, 4)
    text = entry[4 : 6 + size]
    return text[2:] if size > 0 and zlib.crc32(text) == struct.unpack_from("<I", entry)[0] else None


class Wrong(AssertionError):
    """What must not be."""


class Other:
    """A reader or a writer of one operation's arrays. Methods read_X and write_X are one step each."""

    def __init__(self, board: Any, operation: str, seed: int) -> None:
        self.board, self.operation, self.dice = board, operation, random.Random(seed)
        self.held: list[tuple[Any, Any]] = []  # an array of its own, and what is known of it
        self.counts: dict[str, int] = {}

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def check(self, condition: bool, *facts: Any) -> None:
        if not condition:
            raise Wrong(self.operation, *facts)

    def attach(self, slots: tuple[int, ...] = tuple(range(SLOTS))) -> Any:
        """An array from the board; None if it has gone."""
        token = get(self.board, self.dice.choice(slots))
        if token is None:
            return None
        try:
            array = ist.attach(token)
        except ist.SegmentGoneError:
            self.count("gone")
            return None
        self.count("attached")
        return array

    @contextlib.contextmanager
    def somebodys(self, slots: tuple[int, ...] = tuple(range(SLOTS))) -> Iterator[Any]:
        """One of its own, or, in a thread, the owner's, which may end at any moment."""
        shared = SHARED.get(self.dice.choice(slots)) if SHARED and self.dice.random() < 0.5 else None
        if shared is None:
            yield self.attach(slots)
            return
        try:
            yield shared
            self.count("shared")
        except ist.DetachedError:
            self.count("detached")

    def try_to_write(self, x: Any, value: int) -> bool:
        """In one of the ways there are; False: refused, as is promised of what is read-only."""
        n = self.dice.randrange(1, 8)
        how = self.dice.randrange(5)
        try:
            if how == 0:
                x[n] = value
            elif how == 1:
                x[1:8] = value
            elif how == 2:
                x[1:8].fill(value)
            elif how == 3:
                with memoryview(x) as view:
                    view[n] = value
            else:
                x.reshape(-1, 8)[0, n] = value
        except ist.DetachedError:
            raise
        except (ValueError, TypeError) as error:
            self.check("read-only" in str(error), "not for being read-only", repr(error))
            return False
        return True

    def keep(self, x: Any, known: Any) -> None:
        self.held.append((x, known))
        if len(self.held) > 8:
            self.let_go()

    def let_go(self) -> None:
        x, known = self.held.pop(self.dice.randrange(len(self.held)))
        self.check_kept(x, known)
        if self.dice.random() < 0.5:
            x.release()
            self.check(x.detached, "a released array isn't detached")

    def check_kept(self, x: Any, known: Any) -> None:
        if self.operation != "grow":
            self.check(x[0] == known, "another array's memory", known, x[0])
        self.check(whole(x.tolist(), zeros=self.operation == "grow"), "torn", x)

    # ---- freeze

    def read_freeze(self) -> None:
        with self.somebodys() as x:
            if x is None:
                return
            pinned = x[:]  # so that nobody makes it writable again in place
            if pinned.frozen:
                first = x.tobytes()
                self.check(whole(x.tolist()) and x.tobytes() == first and hash(x) == hash(pinned), "a frozen array has changed", x)
                self.check(x.readonly and pinned.readonly and memoryview(x).readonly, "a frozen array isn't read-only", x)
                self.count("frozen")
            else:
                self.check(whole(x.tolist()), "torn", x)
            self.count("read")

    def write_freeze(self) -> None:
        with self.somebodys() as x:
            if x is None:
                return
            was_writable = not x.readonly
            if self.try_to_write(x, mark(self.dice.randrange(1000))):
                self.count("written")
            elif x is not SHARED.get(0):
                self.check(x.readonly or was_writable or bool(SHARED), "a writable array was refused", x)
                self.count("refused")

    # ---- toreadonly: even slots have read-only handles, odd ones the array itself

    def read_readonly(self) -> None:
        with self.somebodys((0, 2)) as x:
            if x is None:
                return
            self.check(not self.try_to_write(x, -1), "written through a read-only handle", x)
            derived = (x, x[1:], x.T, x.view("u1"), x.reshape(2, -1), x.toreadonly())
            self.check(all(y.readonly for y in derived) and memoryview(x).readonly, "something writable was made of it", x)
            self.check(whole(x.tolist()), "torn", x)
            self.count("read")

    def write_readonly(self) -> None:
        with self.somebodys((1, 3)) as x:
            if x is not None:
                self.check(self.try_to_write(x, mark(self.dice.randrange(1000))), "the owner's array became read-only", x)
                self.count("written")

    # ---- release and transfer

    def read_release(self) -> None:
        with self.somebodys() as x:
            if x is None:
                return
            view = memoryview(x)
            known = view[0]
            self.check(whole(view.tolist()) and x[0] == known, "torn, or another's", x)
            view.release()
            if x not in SHARED.values():
                self.keep(x, known)
            self.count("read")

    def write_release(self) -> None:
        with self.somebodys() as x:
            if x is None:
                return
            self.check(self.try_to_write(x, mark(self.dice.randrange(1000))), "refused", x)
            if not SHARED:
                self.keep(x, x[0])
            self.count("written")

    read_transfer, write_transfer = read_release, write_release

    # ---- grow

    def read_grow(self) -> None:
        with self.somebodys() as x:
            if x is None:
                return
            before = len(x)
            view, export, values, after = x[:], memoryview(x), x.tolist(), len(x)
            self.check(before <= len(view) <= len(export) <= len(values) <= after <= GROWN, "it shrank", before, len(values), after)
            self.check(whole(values, zeros=True), "torn", x)
            lengths = len(view), len(export)
            self.check(x.shape[0] >= after and x.nbytes >= 8 * after and x.max_length == GROWN, "it shrank", x.shape, after)
            # what was there stays there: nobody writes another value, and what isn't written is 0
            again = view.tolist()
            self.check(all(a in (0, b) for a, b in zip(values, again, strict=False)), "an element changed", values, again)
            self.check((len(view), len(export)) == lengths == (len(again), export.nbytes // 8), "a view grew", lengths)
            self.check(len(bytes(x)) >= 8 * after and x.argmax() < len(x) and x.count_nonzero() <= len(x), "no consistent length")
            self.count("read")

    def write_grow(self) -> None:
        with self.somebodys() as x:
            if x is None:
                return
            n = len(x)
            wanted = n + self.dice.randrange(-1, 40)
            try:
                x.grow(wanted)
            except ist.DetachedError:
                raise
            except ValueError as error:
                text = str(error)
                self.check(str(wanted) in text, text)
                if "already" in text:
                    self.check(len(x) > wanted, text)
                elif "max_length" in text:
                    self.check(wanted > GROWN, text)
                else:
                    self.check("is frozen" in text, text)
                self.count("refused")
                return
            self.check(len(x) >= wanted, "it didn't grow", n, wanted, len(x))
            for i in range(n, wanted):  # others may have got the same ones: every index has one value
                x[i] = mark(i)
            self.count("written")

    # ---- all

    def run(self, what: str, control: Any) -> dict[str, int]:
        step = getattr(self, f"{what}_{self.operation}")
        control[1 if what == "read" else 2] = 1
        while control[0] == 0:
            try:
                step()
            except ValueError as error:  # a write that was too late, where a freeze may come in between
                if self.operation != "grow" or "read-only" not in str(error):
                    raise
            if self.held and self.dice.random() < 0.3:
                self.let_go()
        while self.held:
            self.let_go()
        return self.counts


def read(board: Any, control: Any, operation: str, seed: int) -> dict[str, int]:
    return Other(board, operation, seed).run("read", control)


def write(board: Any, control: Any, operation: str, seed: int) -> dict[str, int]:
    return Other(board, operation, seed).run("write", control)


def pass_on(x: Any, known: int) -> Any:
    """What comes by a transfer goes back by one."""
    if isinstance(x, ist.Transfer):  # to a thread, where nothing is looked into
        x = x._take()
    if x[0] != known or not whole(x.tolist()):
        raise Wrong("transfer", known, x)
    return x.transfer()


def left() -> int:
    """Segments of this process."""
    gc.collect()
    ist.sweep()
    return len(ist.segments())
