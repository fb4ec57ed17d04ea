"""The standard library's own tests of memoryview, with our arrays as what is looked at; where the installation ships them."""

import unittest
from typing import Any

import isthmus as ist
import pytest

pytestmark = pytest.mark.matrix
theirs: Any = pytest.importorskip("test.test_memoryview", reason="this Python is installed without its tests")


def writable(contents: Any) -> Any:
    return ist.array(contents)


def frozen(contents: Any) -> Any:
    return ist.array(contents).freeze()


class OfArrays:
    rw_type = staticmethod(writable)
    ro_type = staticmethod(frozen)
    getitem_type = bytes
    itemsize = 1
    format = "B"


class TestMemoryview(unittest.TestCase, OfArrays, theirs.BaseMemoryviewTests, theirs.AbstractMemoryTests):
    pass


class TestMemoryviewSlice(unittest.TestCase, theirs.BaseMemorySliceTests, OfArrays, theirs.AbstractMemoryTests):
    pass


class TestMemoryviewSliceSlice(unittest.TestCase, theirs.BaseMemorySliceSliceTests, OfArrays, theirs.AbstractMemoryTests):
    pass


del theirs
