"""A storm over processes: what each process of test_storm.py does at random.

    process(path, tag, seed)   runs until it is killed, or the file `path`.stop exists: then it lets go of everything and reports

Every array is filled with one number that follows from its maker, so that whoever gets it, by whatever way, can tell whether it is still
the same. Arrays travel by tokens and pickles through spools (files in a folder, one message each,
taken by rename: any number of readers and writers, and a killed one does no harm), by names, by fork, and into interpreters.
"""

import os
import pickle
import random
import signal
import time
from typing import Any

import isthmus as ist

GONE = (ist.SegmentGoneError, FileNotFoundError)


def make(tag: int, number: int, dice: random.Random) -> Any:
    size = int(2 ** dice.uniform(1, 12 if dice.random() < 0.9 else 20))
    return ist.full(size, tag * 1_000_000 + number % 1_000_000, "i8")


def check(a: Any) -> None:
    if a.size > 0:
        low, high = a.min(), a.max()
        if low != high or low < 1_000_000:
            raise AssertionError(f"an array of {a.size} with {low} to {high}: {a.segment}")


class Storm:
    def __init__(self, path: str, tag: int, seed: int) -> None:
        self.path, self.tag, self.dice = path, tag, random.Random(seed)
        self.held: list[Any] = []
        self.made = self.sent = self.received = self.gone = self.operations = 0
        self.interpreters: list[Any] = []

    def any(self) -> Any:
        return self.dice.choice(self.held)

    def name(self) -> str:
        return f"{self.path} {self.dice.randrange(8)}"

    # each is one random operation; those that need an array come only when there is one

    def create(self) -> None:
        self.made += 1
        self.held.append(make(self.tag, self.made, self.dice))

    def view(self) -> None:
        a = self.any()
        self.held.append(a[self.dice.randrange(a.size + 1) :: self.dice.choice((1, 2, 3))] if self.dice.random() < 0.8 else a.toreadonly())

    def drop(self) -> None:
        check(self.held.pop(self.dice.randrange(len(self.held))))

    def look(self) -> None:
        check(self.any())

    def freeze(self) -> None:
        try:
            self.any().freeze()
        except BufferError:
            pass

    def send(self) -> None:
        a = self.any()
        kind = self.dice.choice(("token", "pickle", "pickles", "name"))
        if kind == "name":
            name = self.name()
            try:
                a.publish(name)
            except FileExistsError:
                try:
                    ist.unpublish(name)
                except ist.SegmentGoneError:
                    pass
            return
        data = a.token() if kind == "token" else pickle.dumps(a if kind == "pickle" else [a, {"b": a}])
        self.sent += 1
        name = f"{self.path}/{self.tag}.{os.getpid()}.{self.sent}"
        with open(name + "~", "wb") as file:
            file.write(kind[0].encode() + data)
        os.rename(name + "~", name + "!")

    def receive(self) -> None:
        if self.dice.random() < 0.2:
            try:
                a = ist.attach(self.name())
            except GONE:
                self.gone += 1
                return
            except ist.Error as error:
                if "several programs" not in str(error):
                    raise
                return
            check(a)
            self.held.append(a)
            return
        names = [n for n in os.listdir(self.path) if n.endswith("!")]
        if not names:
            return
        name = f"{self.path}/{self.dice.choice(names)}"
        mine = f"{name[:-1]}.{self.tag}~"
        try:
            os.rename(name, mine)
            with open(mine, "rb") as file:
                data = file.read()
            os.unlink(mine)
            got = ist.attach(data[1:]) if data[:1] == b"t" else pickle.loads(data[1:])
        except GONE:
            self.gone += 1
            return
        for a in [got[0], got[1]["b"]] if isinstance(got, list) else [got]:
            check(a)
            self.held.append(a)
        self.received += 1

    def inside(self) -> None:
        """An interpreter of this process attaches, checks, keeps or lets go."""
        if not self.interpreters:
            return
        token = self.any().token()
        self.dice.choice(self.interpreters).run(
            f"x = ist.attach({token!r})\nassert x.size == 0 or x.min() == x.max() >= 1_000_000, x.segment\n"
            f"kept = kept[-10:] + [x]\nif {self.dice.randrange(2)}: kept.clear()\ndel x"
        )

    def fork(self) -> None:
        """A child that has what we have looks at all of it, makes its own, and ends in one of three ways."""
        if self.interpreters:
            return  # CPython can't (gh-101437)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for a in self.held:
                    check(a)
                self.tag += 500
                self.held = [make(self.tag, i, self.dice) for i in range(10)]
                self.send()
                for a in self.held:
                    check(a)
                status = 0
                if self.dice.random() < 0.5:
                    os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(status)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1:
            raise AssertionError("a forked child found something wrong")

    def sweep(self) -> None:
        ist.sweep()

    def step(self) -> None:
        kinds = [self.create] * 6 + [self.receive] * 8 + [self.sweep]
        if self.held:
            kinds += [self.view] * 3 + [self.look] * 4 + [self.send] * 8 + [self.drop] * 6 + [self.inside] * 2 + [self.freeze, self.fork]
        while len(self.held) > 150:
            self.drop()
        self.dice.choice(kinds)()
        self.operations += 1

    def finish(self) -> dict[str, int]:
        for interpreter in self.interpreters:
            interpreter.run("kept.clear()")
            interpreter.close()
        while self.held:
            check(self.held.pop())
        return {k: v for k, v in vars(self).items() if isinstance(v, int) and k != "tag"}


def process(path: str, tag: int, seed: int, interpreters: int) -> dict[str, int]:
    storm = Storm(path, tag, seed)
    ist.set_pickle_lease(1.0)
    if interpreters:
        import carriers

        for _ in range(interpreters):
            interpreter = carriers.Interpreter()
            interpreter.run("import isthmus as ist; kept = []")
            storm.interpreters.append(interpreter)
    look = time.monotonic()
    while True:
        storm.step()
        if time.monotonic() > look:
            look += 0.05
            if os.path.exists(path + ".stop"):
                return storm.finish()
