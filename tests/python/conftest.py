"""What holds for every test: it leaves no segment behind."""

import gc
from collections.abc import Iterator

import isthmus
import pytest


def _alive() -> dict[tuple[int, int], isthmus.SegmentInfo]:
    return {(s.id, s.generation): s for s in isthmus.segments()}


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    before = _alive()
    yield
    gc.collect()
    left = [info for key, info in _alive().items() if key not in before]
    assert not left, f"segments left behind: {left}"
