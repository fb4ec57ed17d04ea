"""The standard library's own tests of locks and the like, with ours as what is tested; where the installation ships them."""

import unittest
from typing import Any

import isthmus as ist
import pytest

pytestmark = pytest.mark.matrix
theirs: Any = pytest.importorskip("test.lock_tests", reason="this Python is installed without its tests")


class TestLock(theirs.LockTests, unittest.TestCase):
    locktype = ist.Lock

    test_repr = test_locked_repr = None  # ours tells the segment, not the address
    test_at_fork_reinit = None  # what the parent held stays the parent's


class TestRLock(theirs.RLockTests, unittest.TestCase):
    locktype = ist.RLock

    test_repr = test_locked_repr = None


class TestEvent(theirs.EventTests, unittest.TestCase):
    eventtype = ist.Event

    test_repr = None
    test_at_fork_reinit = None
    test_reset_internal_locks = None  # 3.12's name of it


class TestConditionAsRLock(theirs.RLockTests, unittest.TestCase):
    locktype = ist.Condition

    test_repr = test_locked_repr = None
    test__is_owned = test_release_save_unacquired = test_recursion_count = None  # its lock's


class TestCondition(theirs.ConditionTests, unittest.TestCase):
    condtype = ist.Condition

    test_acquire = None  # over a threading.Lock; with ours it is in test_lock.py


class TestSemaphore(theirs.SemaphoreTests, unittest.TestCase):
    semtype = ist.Semaphore

    test_repr = None


class TestBoundedSemaphore(theirs.BoundedSemaphoreTests, unittest.TestCase):
    semtype = ist.BoundedSemaphore

    test_repr = None


class TestBarrier(theirs.BarrierTests, unittest.TestCase):
    barriertype = ist.Barrier

    def tearDown(self) -> None:
        self.barrier.abort()  # as theirs
        del self.barrier

    test_repr = None
