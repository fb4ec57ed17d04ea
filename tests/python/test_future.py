"""isthmus.Future against concurrent.futures.Future: it does by itself what happens in almost every call, so whatever can have come before
must lead to the same."""

import concurrent.futures
import itertools
import threading

import isthmus as ist
import pytest

DEADLINE = 60


def cancel(future, told):
    return future.cancel()


def run(future, told):
    return future.set_running_or_notify_cancel()


def succeed(future, told):
    return future.set_result("result")


def fail(future, told):
    return future.set_exception(KeyError("error"))


def listen(future, told):
    return future.add_done_callback(lambda f: told.append((f is future, f.done())))


def look(future, told):
    return future.result(0)


STEPS = (cancel, run, succeed, fail, listen, look)


def story(kind, steps):
    """What each step gave, and what the future says behind it."""
    future, told, happened = kind(), [], []
    for step in steps:
        try:
            outcome = step(future, told)
        except BaseException as error:
            outcome = type(error)
        happened.append((step.__name__, outcome, future.running(), future.done(), future.cancelled(), tuple(told)))
    return happened


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", STEPS)
def test_every_story_ends_as_the_standard_librarys(first):
    count = 0
    for rest in itertools.product(STEPS, repeat=3):
        steps = (first, *rest)
        assert story(ist.Future, steps) == story(concurrent.futures.Future, steps)
        count += 1
    assert count == len(STEPS) ** 3


def waiting_for(futures, done):
    """A thread that is in concurrent.futures.wait for these when this returns."""
    thread = threading.Thread(target=lambda: done.append(concurrent.futures.wait(futures, DEADLINE).done))
    thread.start()
    end = threading.Event()
    while not all(future._waiters for future in futures) and thread.is_alive():
        end.wait(0.001)
    return thread


@pytest.mark.parametrize("how", [succeed, fail, cancel])
def test_who_waits_hears_of_it(how):
    futures, done = [ist.Future(), ist.Future()], []
    thread = waiting_for(futures, done)
    for future in futures:
        if how is not cancel:
            assert future.set_running_or_notify_cancel()
        how(future, [])
        if how is cancel:
            assert not future.set_running_or_notify_cancel()
    thread.join(DEADLINE)
    assert not thread.is_alive() and done == [set(futures)]


def test_a_thread_in_result_is_woken():
    future, results = ist.Future(), []
    reader = threading.Thread(target=lambda: results.append(future.result()), daemon=True)
    reader.start()
    while not future._condition._waiters:
        threading.Event().wait(0.001)
    future.set_running_or_notify_cancel()
    future.set_result(7)
    reader.join(DEADLINE)
    assert not reader.is_alive() and results == [7]
