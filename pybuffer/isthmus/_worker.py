"""The other end of a pool: what runs inside a worker interpreter.

The thread that owns the interpreter calls start() once and handle() for every call. Nothing here may be slow to
import: every worker does it anew. Processes use answer() as well, see _process_main.py.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _clone, _refused
from ._core import _decode, _encode

if TYPE_CHECKING:
    from types import TracebackType

    from ._crew import Arrays

    Dump = Callable[[tuple[Any, ...]], tuple[bytes, Arrays]]

__all__ = ["NOT_IN_MAIN", "OUTCOME", "answer", "failure", "find", "handle", "run_chunk", "start"]

OUTCOME = ("outcome", "result")  # what errors of sending one call its two items

NOT_IN_MAIN = (
    "A worker runs the script again under another name than __main__: what is defined under "
    '`if __name__ == "__main__"`, or was typed in, isn\'t there.'
)

RECEIVING = "This is from receiving the call in the worker. If an argument is a number of numpy's, send x.item()."
SENDING = "The task was done; this is from sending its result."

replaying = False  # the parent's script is being run again, so that its functions exist here

_main_source: tuple[str, str] | None = None  # ("path", …), ("name", …); None: can't be run again
_main_error: BaseException | None = None  # why running it failed; every task that needs it gets this


def start(main_source: tuple[str, str] | None) -> None:
    """Says where the parent's ``__main__`` can be found. It is run when the first task needs something of it."""
    global _main_source
    _main_source = main_source
    _clone.finder = find
    atexit.register(_forget_thread)


def _forget_thread() -> None:
    """At this interpreter's end, while threading still works.

    From 3.13 on threading knows this thread as a dummy only, made when somebody asks for it, logging for one. Some
    versions then complain on stderr when the dummy goes after threading's own globals.
    """
    known: Any = getattr(sys.modules.get("threading"), "_thread_local_info", None)
    if hasattr(known, "_track_dummy_thread_ref"):
        del known._track_dummy_thread_ref


def handle(payload: bytes, arrays: Arrays) -> tuple[bytes, Arrays]:
    """Runs one call. What comes back is a message of ``(True, result)``, or of ``(False, failure)``, see failure().

    Does what answer() does, in one frame: a call that does little is mostly this.
    """
    try:
        try:
            function, args, kwargs = _decode(payload, arrays, None)
        except ImportError as error:
            error.add_note(RECEIVING)
            raise
        finally:
            del payload, arrays
        result = function(*args, **kwargs)
        del function, args, kwargs
        try:
            return _encode((True, result), OUTCOME, _main_source is None, 0, None)
        except Exception as error:
            error.add_note(SENDING)
            raise
    except BaseException as error:
        return failure(error, _dump)


def _dump(outcome: tuple[Any, ...]) -> tuple[bytes, Arrays]:
    return _encode(outcome, OUTCOME, _main_source is None, 0, None)


def answer(load: Callable[[], Any], dump: Dump) -> tuple[bytes, Arrays]:
    """Runs the call that load() returns; the outcome is what dump() makes of it. load() keeps nothing of the call."""
    try:
        function, args, kwargs = _loaded(load)
        result = function(*args, **kwargs)
        del function, args, kwargs  # what only the call needed is let go before anybody hears of its end
        try:
            return dump((True, result))
        except Exception as error:
            error.add_note(SENDING)
            raise
    except BaseException as error:
        return failure(error, dump)


def _loaded(load: Callable[[], Any]) -> Any:
    try:
        return load()
    except ImportError as error:
        error.add_note(RECEIVING)
        raise


def run_chunk(function: Any, chunk: tuple[tuple[Any, ...], ...]) -> list[Any]:
    """Several calls as one, for WorkerPool.map."""
    return [function(*args) for args in chunk]


# ---- the parent's script -------------------------------------------------------------------------------------------


def find(module: str, name: str) -> Any:
    """What a message from the parent names."""
    return _find_in_main(name) if module in _clone.MAIN_NAMES else _refused.find(module, name)


def _find_in_main(name: str) -> Any:
    main = sys.modules.get("__mp_main__") or _replay_main()
    found: Any = main
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        error.add_note(NOT_IN_MAIN)
        raise
    return found


def _replay_main() -> Any:
    """Runs the parent's script, under the name that multiprocessing uses, and makes it ``__main__`` here."""
    global replaying, _main_error
    if _main_error is not None:
        raise _main_error
    if _main_source is None:
        return sys.modules["__main__"]
    import runpy
    from types import ModuleType

    kind, where = _main_source
    replaying = True
    try:
        with _refused.user_modules("__mp_main__"):
            if kind == "name":
                names = runpy.run_module(where, run_name="__mp_main__", alter_sys=True)
            else:
                names = runpy.run_path(where, run_name="__mp_main__")
    except BaseException as error:
        error.add_note(
            "This is from running the script again in a worker, so that its functions exist there. What only the main "
            'program should do belongs under `if __name__ == "__main__":`.'
        )
        _main_error = error
        raise
    finally:
        replaying = False
    main = ModuleType("__mp_main__")
    main.__dict__.update(names)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
    return main


# ---- failures ------------------------------------------------------------------------------------------------------


def failure(error: BaseException, dump: Dump) -> tuple[bytes, Arrays]:
    """A message of ``(False, (message of the exception or None, its arrays, type name, text, traceback))``.

    The exception is a message of its own, since it may be one that can be sent but not received.
    """
    explained = _refused.explain(error) if isinstance(error, ImportError) else None
    if explained is not None:
        explained.__cause__ = error
        for note in getattr(error, "__notes__", ()):
            explained.add_note(note)
        error = explained
    kind = type(error)
    module = kind.__module__.replace("__mp_main__", "__main__")
    name = kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    traceback = _traceback(error)
    try:
        text = str(error)
    except Exception:
        text = "<no message: its __str__ failed>"
    # BaseExceptions would end the thread that waits for the result: they go as text
    payload, arrays = _dump_exception(error, dump) if isinstance(error, Exception) else (None, ())
    return dump((False, (payload, arrays, name, text, traceback)))


def _dump_exception(error: Exception, dump: Dump) -> tuple[bytes | None, Arrays]:
    try:
        return dump((False, error))
    except Exception:
        pass
    error.__cause__ = error.__context__ = None  # it may be one of these that can't be sent; the traceback tells of them
    try:
        return dump((False, error))
    except Exception:
        return None, ()  # as text


def _traceback(error: BaseException) -> str:
    outer = error.__traceback__
    while outer is not None and outer.tb_frame.f_code.co_filename == __file__:
        outer = outer.tb_next
    outer = outer or error.__traceback__
    if isinstance(error, SystemExit):
        return _short_traceback(error, outer)
    import traceback

    try:
        return "".join(traceback.format_exception(type(error), error, outer))
    except Exception as failed:
        return f"{type(error).__name__} (its traceback can't be shown: {type(failed).__name__})\n"


def _short_traceback(error: SystemExit, outer: TracebackType | None) -> str:
    """For SystemExit, which is how a task is terminated too: quick, and imports nothing, because it may come again.

    An import that runs source from a string, as traceback's do, would also make CPython forget that a KeyboardInterrupt
    ended the program: its exit status would be 1.
    """
    lines = ["Traceback (most recent call last):\n"]
    while outer is not None:
        code = outer.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {outer.tb_lineno}, in {code.co_name}\n')
        outer = outer.tb_next
    return "".join([*lines, f"SystemExit: {error.code}\n" if error.args else "SystemExit\n"])
