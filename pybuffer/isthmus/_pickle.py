"""Pickling contents instead of references."""

from contextvars import Token
from types import TracebackType

from ._core import _by_value

__all__ = ["pickle_by_value"]


class pickle_by_value:
    """``with isthmus.pickle_by_value():`` arrays pickled inside carry their contents, and can be loaded anywhere and at any time.

    Holds for the code of this thread, or this asyncio task; it may be nested.
    """

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens: list[Token[bool]] = []

    def __enter__(self) -> None:
        self._tokens.append(_by_value.set(True))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        _by_value.reset(self._tokens.pop())
