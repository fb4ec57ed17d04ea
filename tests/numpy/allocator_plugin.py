"""A plugin of pytest's for numpy's own tests, used by tools/numpy_suite.sh: everything numpy allocates meanwhile is in segments.

It fails the run if that isn't so: a run under numpy's own allocator would prove nothing.
"""

from typing import Any

import isthmus
import numpy as np
import pytest

made = 0


def pytest_configure(config: pytest.Config) -> None:
    isthmus.install_numpy_allocator()  # before the test modules are imported, which make arrays


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    isthmus.install_numpy_allocator()  # some tests set handlers of their own


def pytest_runtest_teardown(item: pytest.Item) -> None:
    global made
    made += bool(isthmus.is_shared(np.empty(3)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    stats = isthmus.stats()
    terminalreporter.write_line(f"under the allocator at the end of {made} tests; {stats}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    stats = isthmus.stats()
    if made < session.testscollected * 0.9 or stats["misuses"] or stats["saturated"]:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
