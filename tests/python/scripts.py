"""Runs scripts in processes of their own, with a deadline: for tests of what may crash, hang, or end a process."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass

DEADLINE = 60 * (4 if os.environ.get("ISTHMUS_SANITIZER") else 2)  # seconds; a script that needs them hangs


@dataclass
class Outcome:
    status: int
    out: str
    err: str

    def ok(self):
        """The script ended well and said nothing on stderr."""
        assert self.status == 0, f"exit status {self.status}\n{self.out}\n{self.err}"
        assert self.err == "", self.err
        return self.out


def write(folder, source, name="script.py"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))
    return path


def start(*arguments, cwd=None, stdin=subprocess.DEVNULL, env=None):
    """A Python with these arguments. It leads a process group of its own, as if it had a terminal to itself."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", *map(str, arguments)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"ISTHMUS_DOMAIN": ""} | (env or {}),  # not in the domain of the tests' own process
        process_group=0,
    )


def finish(process, text=None):
    try:
        out, err = process.communicate(text, timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"it hangs\n{out}\n{err}") from None
    return Outcome(process.returncode, out, err)


def run(*arguments, text=None, **options):
    if text is not None:
        options["stdin"] = subprocess.PIPE
    return finish(start(*arguments, **options), text)


def interrupt_when_ready(process):
    """Ctrl-C, once the script has printed a line that says "ready"."""
    line = process.stdout.readline()
    assert line == "ready\n", line + process.communicate(timeout=DEADLINE)[1]
    os.killpg(process.pid, signal.SIGINT)
    return finish(process)
