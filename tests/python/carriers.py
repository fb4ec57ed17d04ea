"""What this Python has to make interpreters and to carry objects between them, behind one face: 3.12 has only private channels, 3.13 only
private queues, from 3.14 there is concurrent.interpreters.

    with Interpreter() as other, Channel() as channel:
        channel.put(array)
        other.run(f"{channel.there} ; array = get()")

Nothing here knows of isthmus.
"""

import os
import subprocess
import sys
import textwrap
from typing import Any

VERSION = sys.version_info[:2]

if VERSION == (3, 12):
    import _xxinterpchannels as _channels  # type: ignore[import-not-found, unused-ignore]
    import _xxsubinterpreters as _interpreters  # type: ignore[import-not-found, unused-ignore]
elif VERSION == (3, 13):
    import _interpqueues as _queues  # type: ignore[import-not-found, unused-ignore]
    import _interpreters  # type: ignore[import-not-found, unused-ignore]
else:
    from concurrent import interpreters as _public  # type: ignore[import-not-found, unused-ignore]


class Failed(Exception):
    """What was run in another interpreter raised; the text says what."""


class Empty(Exception):
    """There was nothing to get."""


class Interpreter:
    """An interpreter with its own GIL."""

    def __init__(self) -> None:
        if VERSION == (3, 12):
            self._id = _interpreters.create(isolated=True)
        elif VERSION == (3, 13):
            self._id = _interpreters.create("isolated")
        else:
            self._public = _public.create()
        self._open = True

    def run(self, source: str) -> None:
        """Runs source in its __main__, on this thread."""
        source = textwrap.dedent(source)
        if VERSION == (3, 12):
            try:
                _interpreters.run_string(self._id, source)
            except _interpreters.RunFailedError as error:
                raise Failed(str(error)) from None
        elif VERSION == (3, 13):
            failure = _interpreters.exec(self._id, source)
            if failure is not None:
                raise Failed(failure.formatted)
        else:
            try:
                self._public.exec(source)
            except _public.ExecutionFailed as error:
                raise Failed(str(error)) from None

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        if VERSION < (3, 14):
            _interpreters.destroy(self._id)
        else:
            self._public.close()

    def __enter__(self) -> "Interpreter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_THERE = {
    (3, 12): "import _xxinterpchannels as _c; put = lambda o: _c.send({0}, o); get = lambda: _c.recv({0})",
    (3, 13): "import _interpqueues as _q; put = lambda o: _q.put({0}, o, 0, 3); get = lambda: _q.get({0})[0]",
}


class Channel:
    """A queue between interpreters, without waiting."""

    def __init__(self, maxsize: int = 0) -> None:
        if VERSION == (3, 12):
            if maxsize:
                raise NotImplementedError("3.12's channels have no limit")
            self._counted = _channels.create()  # the channel goes with the last of these
            self._id = int(self._counted)
        elif VERSION == (3, 13):
            self._id = _queues.create(maxsize, 0, 3)  # 3: what a sender leaves behind when it ends becomes UNBOUND
        else:
            self._public = _public.create_queue(maxsize)
            self._id = self._public.id
        self._open = True

    @property
    def there(self) -> str:
        """Source that makes put() and get() in another interpreter."""
        if VERSION < (3, 14):
            return _THERE[VERSION].format(self._id)
        return f"from concurrent.interpreters import Queue as _Q; _q = _Q({self._id}); put = _q.put_nowait; get = _q.get_nowait"

    def put(self, obj: object) -> None:
        if VERSION == (3, 12):
            _channels.send(self._id, obj)
        elif VERSION == (3, 13):
            _queues.put(self._id, obj, 0, 3)
        else:
            self._public.put_nowait(obj)

    def get(self) -> Any:
        if VERSION == (3, 12):
            try:
                return _channels.recv(self._id)
            except _channels.ChannelEmptyError:
                raise Empty from None
        if VERSION == (3, 13):
            if _queues.get_count(self._id) == 0:
                raise Empty
            return _queues.get(self._id)[0]
        if self._public.empty():
            raise Empty
        return self._public.get_nowait()

    def close(self) -> None:
        """Drops it with everything in it."""
        if not self._open:
            return
        self._open = False
        if VERSION == (3, 12):
            _channels.destroy(self._id)
        elif VERSION == (3, 13):
            _queues.destroy(self._id)
        else:
            del self._public

    def __enter__(self) -> "Channel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_shareable(obj: object) -> bool:
    if VERSION < (3, 14):
        return bool(_interpreters.is_shareable(obj))
    return bool(_public.is_shareable(obj))


def run_script(source: str, *, deadline: float = 60.0, status: int = 0, environment: dict[str, str] | None = None) -> str:
    """Runs source in a process of its own and returns what it printed; for what may crash, exit or hang.

    status: the exit status it must have. What it wrote to stderr comes after a line of dashes.
    """
    prelude = f"import sys; sys.path[:0] = [{os.path.dirname(os.path.abspath(__file__))!r}]\n"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", prelude + textwrap.dedent(source)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=deadline,
        env={**os.environ, "ISTHMUS_DOMAIN": "", **(environment or {})},  # not in the domain of the tests' own process
    )
    told = f"{done.stdout}\n----\n{done.stderr}" if done.stderr else done.stdout
    assert done.returncode == status, f"exit status {done.returncode}, not {status}:\n{told}"
    return told
