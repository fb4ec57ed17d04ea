"""Processes that a test steers step by step, each with isthmus loaded, and what must not remain of them.

    with Group() as group:
        one, two = group.start(2)
        one.run("a = ist.zeros(3); a[1] = 5")
        two.run("b = ist.attach(token)", token=one("a.token()"))
        child = one.fork()                          # os.fork(): has all that `one` has
        one.kill()
        assert two("b.tolist()") == child("a.tolist()") == [0, 5, 0]

Values go both ways as Python literals. Every process is told by a socket, so also children of children and threads can be steered. The end
of the with block ends all processes and sees that none remains, of those neither that they started without the test's knowledge, and
nothing of isthmus in /dev/shm.
"""

import ast
import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
from collections.abc import Callable
from typing import Any

DEADLINE = 120.0  # seconds; what needs them hangs
MARK = "ISTHMUS_TEST_GROUP"  # in the environment of every process of a group
SANITIZED = os.environ.get("ISTHMUS_SANITIZER") == "address"  # its shadow needs address space, its leak check /proc


def poll(condition: Callable[[], Any], what: str | Callable[[], str], deadline: float = DEADLINE) -> Any:
    """The condition's value as soon as it is true. For what the kernel or a housekeeper does by itself."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what() if callable(what) else what}")
        time.sleep(0.005)  # rule exception: between two looks
    return value


# ---- in the process ------------------------------------------------------------------------------------------------


def _send(link: socket.socket, message: object) -> None:
    data = repr(message).encode()
    link.sendall(struct.pack("<Q", len(data)) + data)


def _receive(link: socket.socket) -> Any:
    def exactly(n: int) -> bytes:
        parts = []
        while n > 0:
            part = link.recv(min(n, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    return ast.literal_eval(exactly(struct.unpack("<Q", exactly(8))[0]).decode())


def _connect(path: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    link.connect(path)
    _send(link, os.getpid())
    return link


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(x) for x in value] if isinstance(value, list) else tuple(_plain(x) for x in value)
    return value


def _answer(kind: str, source: str, values: dict[str, Any], space: dict[str, Any]) -> object:
    try:
        space.update(values)
        if kind == "eval":
            return ("ok", _plain(eval(source, space)))
        exec(compile(source, "<test>", "exec"), space)
        return ("ok", None)
    except BaseException as error:
        return ("raised", type(error).__name__, str(error), traceback.format_exc())


def serve(path: str, space: dict[str, Any] | None = None) -> None:
    """Does what the test says until it hangs up. Also as the target of a thread or of multiprocessing."""
    import isthmus

    if space is None:
        space = {"__name__": "__peer__"}
    space |= {"ist": isthmus, "os": os, "sys": sys, "path": path, "space": space, "poll": poll, "serve": serve, "fork": fork}
    link = _connect(path)
    try:
        while True:
            kind, source, values = _receive(link)
            if kind == "end":
                return
            if kind == "fork":
                if os.fork() == 0:
                    link.close()
                    link = _connect(path)
                    continue
                _send(link, ("ok", None))
                continue
            _send(link, _answer(kind, source, values, space))
    except (EOFError, ConnectionError):
        return
    finally:
        link.close()


def fork(space: dict[str, Any]) -> None:
    """os.fork() where the caller is; the child serves and ends without going on."""
    if os.fork() == 0:
        try:
            serve(space["path"], space)
        finally:
            os._exit(0)


def private_memory(pattern: str) -> list[str]:
    """This process's mappings whose line has the pattern."""
    with open("/proc/self/maps") as maps:
        return [line for line in maps if pattern in line]


def descriptors() -> dict[int, str]:
    """What this process has open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own is gone by now
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


# ---- in the test ---------------------------------------------------------------------------------------------------


def state_of(pid: int) -> str:
    """R, S, T, Z and so on."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def asleep(pid: int) -> bool:
    """Whether all of its threads sleep."""
    states = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/stat") as stat:
                states.append(stat.read().rpartition(")")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):  # it ended since it was listed
            return False
    return set(states) == {"S"}


def readable(what: Any, seconds: float) -> bool:
    """Within that time. Not by select(), which knows 1,024 descriptors."""
    looked_at = select.poll()
    looked_at.register(what, select.POLLIN)
    return bool(looked_at.poll(seconds * 1000))


class Raised(Exception):
    """What was run in the process raised that: Raised.kind is the class's name, the text is str() of it."""

    def __init__(self, kind: str, text: str, trace: str) -> None:
        super().__init__(f"{kind}: {text}\n{trace}")
        self.kind, self.text = kind, text


class Peer:
    """One process."""

    def __init__(self, group: "Group", link: socket.socket, process: subprocess.Popen[str] | None = None) -> None:
        link.settimeout(DEADLINE)
        self.pid: int = _receive(link)
        self.process = process if process is not None and process.pid == self.pid else None
        self._group, self._link = group, link
        self._pidfd = os.pidfd_open(self.pid)

    def __repr__(self) -> str:
        return f"<process {self.pid}>"

    def _ask(self, kind: str, source: str, values: dict[str, Any]) -> None:
        _send(self._link, (kind, textwrap.dedent(source).strip(), values))

    def finish(self) -> Any:
        """The result of what begin() began."""
        answer = _receive(self._link)
        if answer[0] == "raised":
            raise Raised(*answer[1:])
        return answer[1]

    def answered(self) -> bool:
        """Whether what begin() began has come to an end, well or not."""
        return readable(self._link, 0)

    def begin(self, source: str, **values: Any) -> None:
        """run() without waiting."""
        self._ask("exec", source, values)

    def run(self, source: str, **values: Any) -> None:
        """Executes source among what it ran before; values become variables there."""
        self.begin(source, **values)
        self.finish()

    def __call__(self, expression: str, **values: Any) -> Any:
        """The value of an expression there."""
        self._ask("eval", expression, values)
        return self.finish()

    def raises(self, kind: str, source: str, **values: Any) -> str:
        """The text of the exception that source raises."""
        try:
            self.run(source, **values)
        except Raised as error:
            assert error.kind == kind, error
            return error.text
        raise AssertionError(f"{source!r} raised nothing")

    def fork(self) -> "Peer":
        """os.fork()."""
        self._ask("fork", "", {})
        child = self._group.accept()
        self.finish()
        return child

    def signal(self, number: int) -> None:
        signal.pidfd_send_signal(self._pidfd, number)

    def stop(self) -> None:
        self.signal(signal.SIGSTOP)
        poll(lambda: state_of(self.pid) == "T", f"{self} stops")

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def ended(self) -> bool:
        return readable(self._pidfd, 0)

    def wait(self, status: int | None = 0) -> None:
        """Until it has ended, with that status if it is this process's child (None: whatever)."""
        if not readable(self._pidfd, DEADLINE):
            raise AssertionError(f"{self} doesn't end")
        if self.process is not None:
            self.process.wait()
            assert status is None or self.process.returncode == status, f"{self}: {self.process.returncode}\n{self._group.said()}"

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait(-signal.SIGKILL)

    def end(self, how: str = "return") -> None:
        """return: an ordinary end of the interpreter; _exit: os._exit(0); kill: SIGKILL."""
        if how == "kill":
            return self.kill()
        if how == "_exit":
            self._ask("exec", "os._exit(0)", {})
        else:
            self._ask("end", "", {})
        self.wait()

    def close(self) -> None:
        self._link.close()
        os.close(self._pidfd)


class Group:
    """Processes that end together. Their domain is their own unless start(domain=...) names another's.

    quiet: they have to say nothing on stderr.
    """

    def __init__(self, *, quiet: bool = True) -> None:
        self.folder = tempfile.mkdtemp(prefix="ist")
        self.peers: list[Peer] = []
        self._quiet = quiet
        self._mark = os.path.basename(self.folder)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._listener.settimeout(DEADLINE)

    @property
    def path(self) -> str:
        return f"{self.folder}/s"

    def environment(self, **more: str) -> dict[str, str]:
        here = os.path.dirname(os.path.abspath(__file__))
        paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
        # A fault has to end a process here as it does without a sanitizer
        options = {"ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:handle_segv=0"} if SANITIZED else {}
        return os.environ | options | {"ISTHMUS_DOMAIN": "", MARK: self._mark, "PYTHONPATH": os.pathsep.join(paths)} | more

    def launch(
        self, *arguments: str, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Any Python; what it says on stderr is kept."""
        with open(f"{self.folder}/stderr", "a") as stderr:
            return subprocess.Popen(
                [*prefix, sys.executable, "-X", "faulthandler", "-W", "ignore::DeprecationWarning", *arguments],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                text=True,
                env=self.environment(**(env or {})),
                **options,
            )

    def script(self, source: str, *arguments: str, status: int = 0, name: str = "script.py", **options: Any) -> str:
        """What a script of its own printed."""
        script = f"{self.folder}/{name}"
        with open(script, "w") as file:
            file.write(textwrap.dedent(source))
        process = self.launch(script, *arguments, stdout=subprocess.PIPE, **options)
        try:
            out = process.communicate(timeout=DEADLINE)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"it hangs\n{process.communicate()[0]}\n{self.said()}") from None
        assert process.returncode == status, f"exit status {process.returncode}, not {status}\n{out}\n{self.said()}"
        return str(out)

    def accept(self, process: subprocess.Popen[str] | None = None) -> Peer:
        """The next process that serves this group."""
        if process is not None:  # it may fail before it comes
            poll(lambda: readable(self._listener, 0) or process.poll() is not None, "the process comes")
            assert process.poll() is None, f"it ended with {process.returncode}\n{self.said()}"
        peer = Peer(self, self._listener.accept()[0], process)
        self.peers.append(peer)
        return peer

    def one(self, *, domain: Peer | None = None, prefix: tuple[str, ...] = (), **env: str) -> Peer:
        """A new process; domain: it joins that one's, as if started by it."""
        if domain is not None:
            env["ISTHMUS_DOMAIN"] = domain("os.environ['ISTHMUS_DOMAIN']")
        peer = self.accept(self.launch(os.path.abspath(__file__), self.path, prefix=prefix, env=env))
        return peer

    def forget(self, peer: Peer) -> None:
        """It has ended; for tests with very many."""
        self.peers.remove(peer)
        peer.close()

    def start(self, count: int, *, domain: Peer | None = None) -> list[Peer]:
        """Processes of one domain."""
        first = self.one(domain=domain)
        return [first, *(self.one(domain=first) for _ in range(count - 1))]

    def said(self) -> str:
        try:
            with open(f"{self.folder}/stderr") as stderr:
                return stderr.read()
        except FileNotFoundError:
            return ""

    def remaining(self) -> list[int]:
        """Processes with our mark in their environment, whoever started them."""
        mark, found = f"{MARK}={self._mark}".encode(), []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                with open(f"/proc/{int(name)}/environ", "rb") as environ:  # empty in those that have ended
                    if mark in environ.read().split(b"\0"):
                        found.append(int(name))
        return found

    def close(self, check: bool) -> None:
        for peer in self.peers:
            with contextlib.suppress(OSError):
                if not peer.ended():
                    peer.signal(signal.SIGCONT)
                    peer._ask("end", "", {})
        try:
            if check:
                for peer in self.peers:
                    peer.wait(None)
                poll(lambda: not self.remaining(), lambda: f"these end: {self.remaining()}")
                assert not self._quiet or not self.said(), self.said()
                assert not [name for name in os.listdir("/dev/shm") if "isthmus" in name]
        finally:
            for pid in self.remaining():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            for peer in self.peers:
                peer.wait(None)
                peer.close()
            self._listener.close()
            shutil.rmtree(self.folder)

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(check=kind is None)


def heap_pages(pid: int) -> int:
    """Bytes that the kernel has really given to the domains that the process is in, whoever allocated them."""
    total = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith("/memfd:isthmus-data"):
                total += os.stat(f"/proc/{pid}/fd/{name}").st_blocks * 512
    return total


def mounts(setup: str, after: str = "") -> tuple[str, ...]:
    """The beginning of a command that runs with mounts of its own, made by a piece of shell; another piece may come after it. Skips."""
    import pytest  # here: the processes load this module, too

    how = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    for command in (how, [*how, "sh", "-c", "mount -t tmpfs none /dev/shm"]):
        if (
            shutil.which("unshare") is None
            or subprocess.run([*command, "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode != 0
        ):
            pytest.skip(f"not permitted here: {' '.join(command)}")
    return *how, "sh", "-c", f"{{ {setup}; }} || exit 99; " + (f'"$@"; {after}' if after else 'exec "$@"'), "sh"


def empty(*peers: Peer) -> None:
    """Nothing is left in these processes, nor published by anybody in their domains: at once, or after a housekeeper's next look."""
    for peer in peers:
        peer.run("import gc; gc.collect()")
    for peer in peers:
        _wait_until_empty(peer)


def _wait_until_empty(peer: Peer) -> None:
    poll(
        lambda: peer("ist.segments() == [] and ist.stats()['published'] == 0"),
        lambda: f"empty: {peer('ist.segments(), ist.stats()')}",
    )


if __name__ == "__main__":
    serve(sys.argv[1])
