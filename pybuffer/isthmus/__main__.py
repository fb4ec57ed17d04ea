"""python -m isthmus info: what isthmus is here, what it has to work with, and what is alive in this process's domain."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import resource
import sys
from collections.abc import Iterator

import isthmus
from isthmus import _core


def _size(n: int) -> str:
    if n < 0 or n >= 1 << 62:
        return "unlimited"
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n < 10240:
            return f"{n} {unit}"
        n >>= 10
    return f"{n} TiB"


def _limit(which: int) -> str:
    return _size(resource.getrlimit(which)[0])


def _installed(name: str) -> str:
    try:
        return "installed" if importlib.util.find_spec(name) is not None else "not installed"
    except (ImportError, ValueError):
        return "not installed"


def _gil() -> str:
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    return "one for each interpreter" if enabled else "none (free-threaded)"


def _libc() -> str:
    return "-".join(filter(None, platform.libc_ver())) or "another libc"  # musl's is ("", "")


def _domain() -> str:
    text = os.environ.get("ISTHMUS_DOMAIN", "")
    return text if text else "none: without /proc this process shares within itself only"


def _lines() -> Iterator[tuple[str, str]]:
    stats = isthmus.stats()
    yield "isthmus", f"{isthmus.__version__}, {os.path.dirname(isthmus.__file__)}"
    yield "Python", f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    yield "GIL", _gil()
    yield "system", f"{platform.system()} {platform.release()}, {platform.machine()}, {_libc()}"
    yield "cross-interpreter data", _core._carriers()
    for module in ("numpy", "cloudpickle"):
        yield module, _installed(module)
    yield "domain", _domain()
    yield "processes in it", str(stats["processes"])
    yield "known to other processes", f"{stats['published']} segments"
    yield "alive in this process", f"{stats['segments']} segments, {_size(stats['allocated'])}"
    yield "RLIMIT_AS", _limit(resource.RLIMIT_AS)
    yield "RLIMIT_FSIZE", _limit(resource.RLIMIT_FSIZE)
    yield "RLIMIT_NOFILE", str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for name in sorted(n for n in os.environ if n.startswith("ISTHMUS_") and n != "ISTHMUS_DOMAIN"):
        yield name, os.environ[name]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m isthmus", description="Memory that no interpreter owns.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("info", help="versions, limits, and what is alive")
    parser.parse_args(arguments)
    lines = list(_lines())
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:{width}}  {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
