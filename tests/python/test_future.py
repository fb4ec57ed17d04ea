"""isthmus.Future against concurrent.futures.Future: it does by itself what happens in almost every call, so whatever can have come before
must lead to the same."""

import concurrent.futures
import itertools
import sys
import threading

import isthmus as ist
import pytest
from isthmus import _crew

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
    while not future._gates:
        threading.Event().wait(0.001)
    future.set_running_or_notify_cancel()
    future.set_result(7)
    reader.join(DEADLINE)
    assert not reader.is_alive() and results == [7]


# ---- Ctrl-C


def interrupted_at(step, call):
    """Whether call() got as far as a KeyboardInterrupt before its step-th bytecode, in whatever Python code it runs.

    In a thread of its own: CPython's note of the exception that is being handled may stay behind.
    """
    left, outcomes = [step], []

    def trace(frame, event, argument):
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_code is not call.__code__:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return trace

    def run():
        sys.settrace(trace)
        try:
            call()
        except KeyboardInterrupt:
            outcomes.append(True)
        except TimeoutError:
            outcomes.append(False)
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    return outcomes[0] if outcomes else False


@pytest.mark.parametrize("method", ["result", "exception"])
@pytest.mark.parametrize("timeout", [0.0005, 0])
def test_an_interrupt_anywhere_in_the_wait_leaves_nothing_locked(method, timeout):
    interrupted_at(sys.maxsize, lambda: getattr(ist.Future(), method)(timeout))  # 3.12 traces bytecodes from the second time on
    for step in itertools.count():
        future = ist.Future()
        future.set_running_or_notify_cancel()
        hit = interrupted_at(step, lambda f=future: getattr(f, method)(timeout))
        ender = threading.Thread(target=future.set_result, args=(step,), daemon=True)
        ender.start()
        ender.join(DEADLINE)
        assert not ender.is_alive(), f"interrupted at {step}"
        assert future.result(DEADLINE) == step
        if not hit:
            assert not future._gates
            break
    assert step > (100 if timeout else 10)


def test_an_interrupt_anywhere_in_the_wait_for_a_gate_is_no_matter():
    interrupted_at(sys.maxsize, lambda: _crew.Gate().wait(0.0005))
    for step in itertools.count():
        gate = _crew.Gate()
        hit = interrupted_at(step, lambda g=gate: g.wait(0.0005) or g.wait(0))
        ender = threading.Thread(target=gate.open, daemon=True)
        ender.start()
        ender.join(DEADLINE)
        assert not ender.is_alive() and gate.wait(DEADLINE), f"interrupted at {step}"
        hit_when_open = interrupted_at(step, lambda g=gate: g.wait(0.0005))
        assert gate.wait(DEADLINE)
        if not hit and not hit_when_open:
            break
    assert step > 30


def test_who_waits_at_a_gate_looks_again_now_and_then(monkeypatch):
    """CPython can miss a signal that comes just before a thread sleeps: then only the next look helps."""
    monkeypatch.setattr(_crew, "_LOOK", 0.001)
    gate, outcomes = _crew.Gate(), []
    reader = threading.Thread(target=lambda: outcomes.append(gate.wait()), daemon=True)
    reader.start()
    gate.is_open = True  # nobody has woken it
    reader.join(DEADLINE)
    assert not reader.is_alive() and outcomes == [True] and gate._lock.locked()


def test_a_gate_may_be_opened_while_a_waiter_has_its_lock():
    gate = _crew.Gate()
    gate.open()

    def trace(frame, event, argument):
        if event == "line" and frame.f_code is _crew.Gate._unlock.__code__ and frame.f_back.f_code is _crew.Gate.wait.__code__:
            frame.f_trace = None
            gate.open()
        return trace

    gate.is_open = False  # as the waiter has seen it
    waited = []

    def wait():
        sys.settrace(trace)
        waited.append(gate.wait(DEADLINE))

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(DEADLINE)
    assert waited == [True]


def test_many_wait_and_some_give_up():
    for _ in range(50):
        future, outcomes = ist.Future(), []

        def wait(timeout, future=future, outcomes=outcomes):
            try:
                outcomes.append(future.result(timeout))
            except TimeoutError:
                outcomes.append("timeout")

        threads = [threading.Thread(target=wait, args=(t,), daemon=True) for t in (0.0001, None, 0.001, None, DEADLINE, 0.0002)]
        for thread in threads:
            thread.start()
        future.set_running_or_notify_cancel()
        future.set_result(5)
        for thread in threads:
            thread.join(DEADLINE)
        assert not any(thread.is_alive() for thread in threads) and not future._gates
        assert len(outcomes) == 6 and outcomes.count(5) >= 3 and set(outcomes) <= {5, "timeout"}


def test_cancelling_what_runs_wakes_nobody():
    future, outcomes = ist.Future(), []
    future.set_running_or_notify_cancel()
    reader = threading.Thread(target=lambda: outcomes.append(future.result(DEADLINE)), daemon=True)
    reader.start()
    while not future._gates:
        threading.Event().wait(0.001)
    assert not future.cancel()
    future.set_result(3)
    reader.join(DEADLINE)
    assert outcomes == [3]
