"""Allocations that fail."""

from collections.abc import Callable

import pytest


def fails_at(n: int, operation: Callable[[], object], error: type[BaseException] = MemoryError) -> bool:
    """Whether the operation raises `error` when its n-th allocation of Python memory fails. What it returns or raises is let go of."""
    testcapi = pytest.importorskip("_testcapi", reason="this Python ships without _testcapi")
    testcapi.set_nomemory(n, n + 1)
    try:
        operation()
    except error:
        return True
    finally:
        testcapi.remove_mem_hooks()
    return False
