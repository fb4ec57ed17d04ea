"""What holds for every test: it leaves no segment behind."""

import gc
import signal
from collections.abc import Iterator

import hypothesis
import isthmus
import pytest

# No deadline: machines that run tests are busy. What fails is printed with what repeats it.
hypothesis.settings.register_profile("isthmus", deadline=None, print_blob=True)
hypothesis.settings.load_profile("isthmus")

# A job that a shell starts in the background ignores Ctrl-C, and what it starts would, too: the tests that interrupt a script would hang.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _alive() -> dict[tuple[int, int], isthmus.SegmentInfo]:
    return {(s.id, s.generation): s for s in isthmus.segments()}


@pytest.fixture(scope="module", autouse=True)
def collections_are_short() -> None:
    """What modules are made of is not looked at again whenever a test collects garbage: that would be most of the suite's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    before = _alive()
    yield
    if _alive().keys() - before.keys():
        gc.collect()
    left = [info for key, info in _alive().items() if key not in before]
    assert not left, f"segments left behind: {left}"
