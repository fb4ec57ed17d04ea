"""a.transfer(): a handle's reference moves with the message; and a.split()."""

import gc
import pickle
from typing import Any

import isthmus as ist
import pytest
from allocations import fails_at
from carriers import Channel, Interpreter, is_shareable
from kind_tasks import identity

pytestmark = pytest.mark.matrix
KINDS = ["interpreter", "process", "thread"]


def in_flight() -> int:
    return ist.stats()["in_flight"]


def test_the_handle_is_detached_and_the_reference_moves() -> None:
    a = ist.array([1, 2, 3])
    other = ist.attach(a.token())
    assert a.owners == 2
    t = a.transfer()
    assert a.detached and not t.detached and other.owners == 2 and in_flight() == 1
    with pytest.raises(ist.DetachedError):
        a[0]
    b = pickle.loads(pickle.dumps(t))
    assert t.detached and in_flight() == 0 and b.tolist() == [1, 2, 3] and b.segment.id == other.segment.id and b.owners == 2
    assert "sent" in repr(t)


@pytest.mark.parametrize("use", [pickle.dumps, lambda t: t._take(), lambda t: Channel().put(t)], ids=["pickle", "take", "channel"])
def test_it_can_be_used_once(use: Any) -> None:
    t = ist.zeros(3).transfer()
    t._take()
    with pytest.raises(Exception) as caught:
        use(t)
    why: BaseException | None = caught.value
    while (
        why is not None and not isinstance(why, ist.DetachedError) and type(why).__name__ != "NotShareableError"
    ):  # from 3.14 on a queue's
        why = why.__cause__ or why.__context__
    assert why is not None, repr(caught.value)
    t.release()


def test_dropped_unsent_it_releases() -> None:
    t = ist.zeros(3).transfer()
    assert len(ist.segments()) == 1 and "Transfer of an array" in repr(t)
    del t
    assert ist.segments() == [] and in_flight() == 0
    t = ist.zeros(3).transfer()
    t.release()
    t.release()
    assert ist.segments() == [] and t.detached and in_flight() == 0


def test_exports_stop_it() -> None:
    a = ist.zeros(3)
    view = memoryview(a)
    with pytest.raises(BufferError, match="1 export "):
        a.transfer()
    other = memoryview(a[1:])
    with pytest.raises(BufferError, match="2 exports"):
        a[1:].transfer()
    assert not a.detached and in_flight() == 0
    view.release()
    other.release()
    a.transfer().release()
    b = ist.zeros(2)
    assert b.address
    with pytest.raises(BufferError, match="address"):
        b.transfer()
    b.release()
    with pytest.raises(ist.DetachedError):
        b.transfer()


def test_views_keep_what_is_theirs() -> None:
    a = ist.array([[1, 2], [3, 4]])
    row = a[1]
    t = a.transfer()
    assert a.detached and row.tolist() == [3, 4] and row.owners == 2
    b = t._take()
    row[0] = 30
    assert b.tolist() == [[1, 2], [30, 4]]
    t = row.transfer()
    assert row.detached and b.owners == 2
    c = t._take()
    assert c.shape == (2,) and c.tolist() == [30, 4]
    read = b.toreadonly().transfer()._take()
    assert read.readonly and not b.readonly


@pytest.mark.parametrize("kind", KINDS)
def test_by_a_pool(kind: str) -> None:
    a = ist.full(3, 7, "i2")
    with ist.WorkerPool(1, kind=kind) as pool:
        future = pool.submit(identity, a.transfer())
        assert a.detached
        b = future.result(60)
        future = None
        assert type(b) is ist.SharedArray and b.tolist() == [7, 7, 7] and b.dtype == "<i2"
        if kind != "thread":  # there nothing is looked into
            inside = pool.submit(identity, {"x": [b.transfer()]}).result(60)
            assert b.detached and inside["x"][0].tolist() == [7, 7, 7]


def test_between_interpreters() -> None:
    with Interpreter() as other, Channel() as channel:
        t = ist.array([5, 6]).transfer()
        assert is_shareable(t)
        channel.put(t)
        assert t.detached and in_flight() == 1
        other.run(channel.there + "\na = get(); assert a.owners == 1 and a.tolist() == [5, 6]; put(a.transfer()); assert a.detached")
        a = channel.get()
        assert a.owners == 1 and a.tolist() == [5, 6]
        channel.put(a.transfer())
    gc.collect()
    assert in_flight() == 0  # what was never received went with the channel


def test_a_pickle_that_fails_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    t = ist.zeros(1, [(f"field {i}", "f4") for i in range(6000)]).transfer()
    with pytest.raises(ValueError, match="description"):
        pickle.dumps(t)
    assert not t.detached and in_flight() == 1
    assert t._take().size == 1


def test_a_pickle_without_memory_leaves_it_as_it_was() -> None:
    reduced: list[Any] = [None]

    def reduce(t: Any) -> None:
        reduced[0] = t.__reduce__()

    for n in range(50):
        t = ist.array([n]).transfer()
        failed = fails_at(n, lambda t=t: reduce(t))  # type: ignore[misc]
        assert t.detached != failed, n
        a = t._take() if failed else reduced[0][0](*reduced[0][1])
        assert a.tolist() == [n] and in_flight() == 0 and ist.stats()["leases"] == 0
        a.release()
    assert not failed


def test_by_value() -> None:
    t = ist.array([1.5]).transfer()
    with ist.pickle_by_value():
        data = pickle.dumps(t)
    assert ist.segments() == [] and pickle.loads(data).tolist() == [1.5]


# ---- split


def test_split_as_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    theirs = numpy.arange(24.0).reshape(4, 6)
    ours = ist.array(theirs)
    for how, axis in (
        (2, 0),
        (4, 0),
        (1, 0),
        (3, 1),
        (6, -1),
        ([1, 3], 0),
        ([2], 1),
        ([], 0),
        ([3, 1], 0),
        ([0, 99], 1),
        ([-2], 1),
        ((1, 1), 0),
    ):
        parts, expected = ours.split(how, axis), numpy.split(theirs, how, axis)
        assert [(p.shape, p.tolist()) for p in parts] == [(e.shape, e.tolist()) for e in expected], (how, axis)
    ours.split(2)[1][0, 0] = -1
    assert ours[2, 0] == -1
    assert [p.tolist() for p in ours[::-1, ::2].split(2)] == [p.tolist() for p in numpy.split(numpy.asarray(ours)[::-1, ::2], 2)]


def test_split_wrong() -> None:
    a = ist.zeros((4, 6))
    for wrong, error in (((3,), ValueError), ((0,), ValueError), ((-1,), ValueError), ((2, 2), ValueError), ((2, -3), ValueError),
                         (("ab",), TypeError), ((1.5,), TypeError), (([1.5],), TypeError), ((), TypeError)):  # fmt: skip
        with pytest.raises(error):
            a.split(*wrong)
    with pytest.raises(ValueError, match="dimensions"):
        ist.array(1).split(1)
    a.release()
    with pytest.raises(ist.DetachedError):
        a.split(2)
