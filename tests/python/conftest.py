"""What holds for every test: it leaves no segment behind."""

import gc
import os
import signal
import sys
from collections.abc import Iterator

import hypothesis
import isthmus
import pytest
from hypothesis import Phase

# No deadline: machines that run tests are busy. What fails is printed with what repeats it: where nobody waits for something shorter
# (it takes up to five minutes), it isn't looked for. No explanations: they take sys.monitoring, which leaves code behind that loses
# references where memory fails, so that one failure would become thirty.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate] + ([] if os.environ.get("CI") else [Phase.shrink])
EXAMPLES = 2000 if os.environ.get("ISTHMUS_FULL") else 100
hypothesis.settings.register_profile("isthmus", deadline=None, print_blob=True, phases=PHASES, max_examples=EXAMPLES)
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
        sys.last_exc = sys.last_value = sys.last_traceback = None  # by which a test that failed keeps its variables
        gc.collect()
    left = [info for key, info in _alive().items() if key not in before]
    assert not left, f"segments left behind: {left}"
