"""The standard library's own tests of queues, with ours as what is tested; where the installation ships them."""

import types
import unittest
from queue import Empty, Full
from typing import Any

import isthmus as ist
import pytest

pytestmark = pytest.mark.matrix
theirs: Any = pytest.importorskip("test.test_queue", reason="this Python is installed without its tests")


class TestQueue(theirs.BaseQueueTestMixin, unittest.TestCase):
    queue = types.SimpleNamespace(Queue=ist.Queue, Empty=Empty, Full=Full, ShutDown=ist.ShutDown)
    type2test = ist.Queue

    test_shrinking_queue = None  # maxsize is what it was made with, for all who hold the queue


class TestSimpleQueue(theirs.BaseSimpleQueueTest, unittest.TestCase):
    queue = TestQueue.queue
    type2test = ist.Queue

    def tearDown(self) -> None:
        del self.q  # type: ignore[has-type]

    test_references = None  # what is put is cloned: nothing is kept


del theirs
