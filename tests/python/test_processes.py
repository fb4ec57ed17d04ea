"""Arrays between processes: every carrier and start method, processes that have nothing to do with each other, names, limits, read-only."""

import importlib.util
import signal
from collections.abc import Iterator

import process_carriers
import pytest
from processes import Group, Peer, empty, poll

METHODS = ["spawn", "fork", "forkserver"]


@pytest.fixture
def group() -> Iterator[Group]:
    with Group() as group:
        yield group


# ---- multiprocessing and concurrent.futures --------------------------------------------------------------------------


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest) -> Iterator[tuple[Peer, str]]:
    with Group() as group:
        peer = group.one()
        peer.run("import process_carriers")
        yield peer, request.param


@pytest.mark.matrix
@pytest.mark.parametrize("carrier", [f.__name__ for f in process_carriers.CHECKS])
def test_carriers(method: tuple[Peer, str], carrier: str) -> None:
    peer, name = method
    peer.run("process_carriers.check(carrier, method)", carrier=carrier, method=name)
    empty(peer)


# ---- strangers: tokens and pickles -----------------------------------------------------------------------------------


@pytest.mark.matrix
def test_token_and_pickle_of_a_stranger(group: Group) -> None:
    """Two processes that nobody told of each other; both ways; each may hold what the other let go."""
    one, two = group.one(), group.one()
    assert one("os.environ['ISTHMUS_DOMAIN']") != two("os.environ['ISTHMUS_DOMAIN']")
    for peer in (one, two):
        peer.run("import pickle, process_carriers; parts = process_carriers.parts()")
    for here, there in ((one, two), (two, one)):
        there.run("got = pickle.loads(data); process_carriers.check_parts(got)", data=here("pickle.dumps(parts)"))
        there.run("b = [ist.attach(t) for t in tokens]", tokens=here("[x.token() for x in process_carriers.flat(parts)]"))
        assert there("[x.tolist() for x in b]") == here("[x.tolist() for x in process_carriers.flat(parts)]")
        assert there("[x.readonly for x in b]") == here("[x.readonly for x in process_carriers.flat(parts)]")
        here.run("del parts")
        empty(here)
        there.run("process_carriers.check_parts(got); del got, b")
    empty(one, two)


def test_what_a_stranger_may_not_find(group: Group) -> None:
    one, two = group.one(), group.one()
    token = one("(a := ist.zeros(3)).token()")
    two.run("b = ist.attach(token)", token=token)
    one.run("a.release()")
    two.run("b.release()")
    for peer in (one, two):
        text = peer.raises("SegmentGoneError", "ist.attach(token)", token=token)
        assert "is gone: its last owner has let go" in text
    token = one("(a := ist.zeros(3)).token()")
    wrong = {  # (pid, descriptor) of where the domain is to be found
        "nowhere": b"\0" * 8,
        "no such process": (2**31 - 1).to_bytes(4, "little") + token[44:48],
        "no such descriptor": token[40:44] + (2**20).to_bytes(4, "little"),
        "something else": token[40:44] + (1).to_bytes(4, "little"),
        "another domain": two.pid.to_bytes(4, "little") + token[44:48],
    }
    three = group.one()
    for why, place in wrong.items():
        text = three.raises("SegmentGoneError", "ist.attach(token)", token=token[:40] + place + token[48:])
        assert "belongs to another process, which is gone or can't be reached" in text, why
    one.kill()
    text = three.raises("SegmentGoneError", "ist.attach(token)", token=token)
    assert "belongs to another process, which is gone or can't be reached" in text and "pickle_by_value" in text
    empty(two, three)


def test_pickles_that_nobody_reads(group: Group) -> None:
    """The lease's time ends them, in a stranger's domain too, and of a sender that is dead."""
    one, two, three = *group.start(2), group.one()
    for peer in (one, two):
        peer.run("import pickle; ist.set_pickle_lease(seconds)", seconds=0.5)
        peer.run("import logging; logging.disable()")
        peer.run("a = ist.full(7, 7); data = pickle.dumps([a, a[1:]]); kept = pickle.dumps(a); a.release()")
    three.run("import pickle; b = pickle.loads(kept)", kept=two("kept"))  # a guest, with one of two's
    two.kill()
    empty(one)
    assert three("b.tolist()") == [7.0] * 7
    assert "its lease ran out" in one.raises("SegmentGoneError", "pickle.loads(data)", data=one("data"))
    three.run("b.release()")
    empty(one, three)


def test_a_dead_senders_pickle_still_loads(group: Group) -> None:
    one, two, three = group.start(3)
    one.run("import pickle; a = ist.full(1000, 5, 'i4'); data = [pickle.dumps(a[i:]) for i in range(3)]")
    data = one("data")
    one.kill()
    assert two("ist.sweep()['processes']") == 0 and two("ist.segments()") == []  # not as long as its pickles may be read
    three.run("import pickle; b = [pickle.loads(d) for d in data[1:]]", data=data)
    two.run("import pickle; b = pickle.loads(data)", data=data[0])
    two.run("b[999] = 6")
    assert three("[x.sum() for x in b]") == [4996, 4991]
    assert two("ist.sweep()['processes']") == 1
    two.run("b.release()")
    three.run("del b")
    empty(two, three)
    two.raises("SegmentGoneError", "pickle.loads(data)", data=data[0])


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_names(group: Group) -> None:
    one, two, three = group.one(), group.one(), group.one()
    name = f"test/{one.pid} Ä"
    one.run("a = ist.array([[1, 2, 3], [4, 5, 6]], 'i2'); a.toreadonly()[:, ::-2].publish(name)", name=name)
    for peer in (two, three):
        peer.run("b = ist.attach(name)", name=name)
        assert peer("b.tolist(), b.strides, b.dtype.str, b.readonly") == ([[3, 1], [6, 4]], (6, -4), "<i2", True)
    assert "the name is taken" in two.raises("FileExistsError", "b.publish(name)", name=name)
    assert "the name is taken" in one.raises("FileExistsError", "ist.zeros(1).publish(name)", name=name)
    one.run("a[0, 2] = 30; a.release()")  # the others hold it: the name lives on
    four = group.one()
    four.run("b = ist.attach(name)", name=name)
    assert four("b[0, 0]") == 30
    two.run("ist.unpublish(name)", name=name)
    for peer in (one, three, four):
        gone = "no living array is published as"
        assert gone in peer.raises("SegmentGoneError", "ist.attach(name)", name=name)
        assert gone in peer.raises("SegmentGoneError", "ist.unpublish(name)", name=name)
    three.run("b.publish(name); b.publish(name + '2')", name=name)  # again, and by two names
    assert one("ist.attach(name).tolist() == ist.attach(name + '2').tolist() == [[30, 1], [6, 4]]", name=name)
    for peer in (two, three, four):
        peer.run("b.release()")
    for peer in (one, two, three):  # the last holder has gone, and with it the names
        peer.raises("SegmentGoneError", "ist.attach(name)", name=name)
    empty(one, two, three, four)
    one.run("a = ist.full(2, 1, 'u1'); a.publish(name)", name=name)  # the name is free
    assert two("ist.attach(name).tolist()", name=name) == [1, 1]
    one.kill()
    poll(lambda: two("ist.sweep()") and not two("ist.stats()")["published"], "nothing is published")
    two.raises("SegmentGoneError", "ist.attach(name)", name=name)
    three.run("a = ist.zeros(1); a.publish(name)", name=name)  # at home: a dead process's name is nobody's


def test_names_of_two_domains(group: Group) -> None:
    one, two, three = group.one(), group.one(), group.one()
    name = f"both of {one.pid}"
    for i, peer in enumerate((one, two)):
        peer.run("a = ist.full(1, i); a.publish(name)", name=name, i=i)
    assert "several programs have published that name" in three.raises("Error", "ist.attach(name)", name=name)
    assert (one("ist.attach(name)[0]", name=name), two("ist.attach(name)[0]", name=name)) == (0, 1)  # one's own is meant first
    two.run("a.release()")
    assert three("ist.attach(name)[0]", name=name) == 0


def test_wrong_names(group: Group) -> None:
    one = group.one()
    one.run("a = ist.zeros(1)")
    for call in ("a.publish(name)", "ist.unpublish(name)", "ist.attach(name)"):
        for name in ("", "x" * 201, "Ä" * 101):
            assert "a name has 1 to 200 bytes in UTF-8" in one.raises("ValueError", call, name=name)
        one.raises("UnicodeEncodeError", call, name="\ud800")
        one.raises("TypeError", call, name=1)
        one.raises("TypeError", call, name=None)
    assert "a name is a str" in one.raises("TypeError", "a.publish(b'x')")
    for name in ("x" * 200, "Ä" * 100, "a\0b", "a\0c", ".", "/"):
        one.run("b = ist.zeros(1); b.publish(name); assert ist.attach(name).segment.id == b.segment.id", name=name + "")
    one.run("a.release()")
    assert one.raises("DetachedError", "a.publish('x')")


def test_the_table_of_names_full(group: Group) -> None:
    """4,096 names; those of the dead are room again."""
    one = group.one()
    one.run("a = ist.zeros(1)\nfor i in range(4096): a.publish(f'{i}')")
    text = one.raises("MemoryError", "a.publish('x')")
    assert "names (4,096)" in text
    one.run("ist.unpublish('77'); a.publish('x'); assert ist.attach('x').segment.id == a.segment.id")
    one.raises("MemoryError", "a.publish('y')")
    one.run("a = ist.zeros(1); a.publish('y')")  # the other's were all of a dead array
    one.raises("SegmentGoneError", "ist.attach('5')")


# ---- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_what_segments_stats_and_sweep_say(group: Group) -> None:
    one, two, three = group.start(3)
    one.run("a = ist.zeros(10); c = ist.zeros(1)")
    assert one("a.segment.processes, a.segment.descriptor, a.segment.published") == (0, None, False)
    assert one("ist.stats()['published'], ist.stats()['processes']") == (0, 3)
    token = one("a.token()")
    assert one("a.segment.processes, a.segment.published") == (1, True)
    for n, peer in ((2, two), (3, three)):
        peer.run("b = [ist.attach(token) for _ in range(3)]", token=token)
        assert peer("b[0].segment.processes") == one("a.segment.processes") == n
        assert peer("b[0].segment.owners, len(ist.segments())") == (3, 1)
        assert peer("b[1].segment.descriptor") == one("a.segment.descriptor")
    assert [p("ist.stats()['published']") for p in (one, two, three)] == [1, 1, 1]
    assert one("ist.sweep()['processes']") == 0
    two.kill()
    assert one("ist.sweep()['processes']") == 1 and three("ist.sweep()['processes']") == 0
    assert one("a.segment.processes, ist.stats()['processes']") == (2, 2)
    three.end()
    assert one("ist.sweep()['processes']") == 1
    assert one("a.segment.processes, ist.stats()['processes']") == (1, 1)
    first = one("a.segment.descriptor")
    one.run("a.release(); a = ist.zeros(10); a.token()")
    again = one("a.segment.descriptor")
    assert again != first, "a descriptor's generation is never used again"
    one.run("a.release(); c.release()")
    empty(one)


# ---- interpreters in processes -----------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_interpreters_in_processes(group: Group) -> None:
    """Two interpreters in each of three processes hold one array; they go in all kinds of order, the maker's process among the first."""
    peers = group.start(3)
    token = peers[0]("(a := ist.zeros(9)).token()")
    for p, peer in enumerate(peers):
        peer.run("import carriers; inside = [carriers.Interpreter() for _ in range(2)]")
        peer.run(
            """
            for i, interpreter in enumerate(inside):
                interpreter.run(f"import isthmus as ist; a = ist.attach({token!r}); a[{3 * p + i}] = {p + 1}")
            """,
            token=token,
            p=p,
        )
        peer.run("a = ist.attach(token); a[3 * p + 2] = 7")
        assert peer("a.segment.owners") == 3
    assert peers[1]("a.tolist()") == [1, 1, 7, 2, 2, 7, 3, 3, 7] and peers[1]("a.segment.processes") == 3
    peers[0].run("a.release()")
    peers[0].run("inside[0].close()")  # with the array in its globals
    assert peers[1]("a.segment.processes") == 3
    peers[0].run("inside[1].run('a.release()')")
    assert peers[1]("a.segment.processes") == 2
    peers[0].run("inside[1].run('a = ist.attach(%r)' % token)")
    peers[0].kill()
    peers[1].run("a.release(); inside[0].run('a.release()')")
    assert peers[2]("ist.sweep()['processes']") == 1 and peers[2]("a.segment.processes") == 2
    peers[2].run("a.release(); [i.close() for i in inside]")
    empty(peers[2])
    peers[1].run("inside[1].run('assert a.tolist() == [1, 1, 7, 2, 2, 7, 3, 3, 7]')")
    peers[1].run("[i.close() for i in inside]")
    empty(peers[1], peers[2])


@pytest.mark.matrix
def test_worker_pools_in_processes(group: Group) -> None:
    """isthmus's own interpreters, in two processes of strangers: attach, write, send back, go."""
    one, two = group.one(), group.one()
    token = one("(a := ist.zeros(100, 'i8')).token()")
    for k, peer in enumerate((one, two)):
        peer.run("import pool_tasks; pool = ist.WorkerPool(2)")
        peer.begin(
            """
            futures = [pool.submit(pool_tasks.attach_and_write, token, i) for i in range(k, 100, 2)]
            parts = [f.result() for f in futures]
            pool.shutdown()
            """,
            token=token,
            k=k,
        )
    for k, peer in enumerate((one, two)):
        peer.finish()
        assert peer("[p.tolist() for p in parts]") == [[i + 1] for i in range(k, 100, 2)]
    assert one("a.tolist()") == list(range(1, 101))
    one.run("del a, parts, futures")
    assert two("[p[0] for p in parts[:3]]") == [2, 4, 6]
    two.run("del parts, futures")
    empty(one, two)


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_max_processes(group: Group) -> None:
    one = group.one()
    one.run("ist.configure(max_processes=2); a = ist.full(3, 4)")
    two = group.one(domain=one)
    assert one("os.environ['ISTHMUS_DOMAIN']").split(":")[2] == two("os.environ['ISTHMUS_DOMAIN']").split(":")[2]
    token = one("a.token()")
    two.run("b = ist.attach(token)", token=token)
    three = group.one(domain=one)  # no room: it has a home of its own
    assert one("os.environ['ISTHMUS_DOMAIN']").split(":")[2] != three("os.environ['ISTHMUS_DOMAIN']").split(":")[2]
    text = three.raises("MemoryError", "ist.attach(token)", token=token)
    assert "no room for another process" in text and "max_processes" in text
    name = f"limits of {one.pid}"
    one.run("a.publish(name)", name=name)
    assert "max_processes" in three.raises("MemoryError", "ist.attach(name)", name=name)
    child = one.fork()  # it can't be given what one holds
    assert "fork" in child.raises("DetachedError", "a.tolist()")
    child.run("a.release(); c = ist.full(4, 9)")
    assert child("c.tolist()") == [9.0] * 4 and one("a.tolist()") == [4.0] * 3
    child.end()
    two.kill()
    three.run("b = ist.attach(token)", token=token)  # the dead make room
    assert three("b.tolist()") == [4.0] * 3
    three.run("b.release()")
    three.end()
    child = one.fork()
    assert child("a.tolist()") == [4.0] * 3
    for wrong in (0, -1, 1025, 2**70):
        assert "max_processes must be a number from 1 to 1024" in one.raises("ValueError", "ist.configure(max_processes=n)", n=wrong)
    one.raises("TypeError", "ist.configure(max_processes='2')")


def test_max_published(group: Group) -> None:
    one = group.one()
    one.run("import pickle; ist.configure(max_published=4096); a = ist.zeros(2)")
    text = one.raises("MemoryError", "kept = []\nfor i in range(5000): kept.append(ist.full(1, i)); kept[-1].token()")
    assert "max_published" in text
    assert one("len(kept), ist.stats()['published']") == (4097, 4096)
    for call in ("a.token()", "a.publish('x')", "pickle.dumps([a])"):
        assert "max_published" in one.raises("MemoryError", call)
    assert one("a.tolist(), ist.zeros(5).sum(), kept[4096].tolist()") == ([0, 0], 0, [4096])  # all the rest goes on
    two = group.one(domain=one)
    two.run("b = [ist.attach(token) for token in tokens]", tokens=one("[k.token() for k in kept[:100]]"))
    assert "max_published" in two.raises("MemoryError", "ist.zeros(1).token()")
    child = one.fork()  # which needs everything published
    assert "fork" in child.raises("DetachedError", "a.tolist()")
    child.end()
    one.run("del kept[:100]")
    assert "max_published" in one.raises("MemoryError", "a.token()"), "two has those"
    two.run("del b[:50]")
    two.run("b.append(ist.attach(token))", token=one("a.token()"))
    one.run("a[1] = 5; fresh = [ist.zeros(1) for _ in range(49)]; [f.token() for f in fresh]")
    assert two("b[-1].tolist()") == [0, 5]
    one.raises("MemoryError", "kept[-1].token()")
    one.run("del kept, fresh, a")
    two.run("del b")
    empty(one, two)
    for wrong in (0, 4095, 4194305, -1):
        assert "max_published must be a number from 4096 to 4194304" in one.raises("ValueError", "ist.configure(max_published=n)", n=wrong)


# ---- read-only ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["toreadonly", "freeze"])
@pytest.mark.parametrize("writer", ["ctypes", "numpy"])
def test_a_write_into_read_only_memory_kills_the_writer(how: str, writer: str) -> None:
    """The mapping of an array that came read-only from another process can't be written, whatever a program does."""
    if writer == "numpy" and importlib.util.find_spec("numpy") is None:
        pytest.skip("numpy isn't installed")
    with Group(quiet=False) as group:
        one = group.one()
        two = group.one(domain=one)
        token = one("(r := getattr(a := ist.array([1, 2, 3], 'i8'), how)()).token()", how=how)
        two.run("b = ist.attach(token); import ctypes", token=token)
        if writer == "numpy":
            two.run("import numpy; n = numpy.asarray(b)")
            assert two("n.tolist(), n.flags.writeable") == ([1, 2, 3], False)
            two.raises("ValueError", "n[0] = 1")
            two.raises("ValueError", "n.setflags(write=True)")
        for call, error in (
            ("b[0] = 1", "ValueError"),
            ("b.fill(1)", "ValueError"),
            ("memoryview(b)[0] = 1", "TypeError"),
            ("ctypes.c_char.from_buffer(b)", "TypeError"),
            ("b[1:][0] = 1", "ValueError"),
        ):
            two.raises(error, call)
        assert two("ctypes.c_int64.from_address(b.address + 8).value") == 2
        two.run("memory = (ctypes.c_int64 * 3).from_address(b.address)")
        two.begin("memory[1] = 9" if writer == "ctypes" else "numpy.frombuffer(memory, 'i8')[1] = 9")
        two.wait(-signal.SIGSEGV)
        assert "Segmentation fault" in group.said()
        assert one("a.tolist()") == [1, 2, 3] and one("ist.sweep()['processes']") == 1 and one("a.segment.processes") == 1
        one.run("del a, r")
        empty(one)


def test_what_another_process_has_isnt_frozen(group: Group) -> None:
    one, two, three = group.start(3)
    token = one("(a := ist.zeros(4)).token()")
    two.run("b = ist.attach(token)", token=token)
    assert "can't freeze: 1 other process has it" in one.raises("BufferError", "a.freeze()")
    three.run("c = ist.attach(token)", token=token)
    assert "can't freeze: 2 other processes have it" in one.raises("BufferError", "a.freeze()")
    two.run("del b")
    three.run("del c")
    assert one("a.freeze().frozen") is True
    one.run("del a")
    empty(one, two, three)


def test_writable_beside_read_only(group: Group) -> None:
    """The read-only mapping is another one of the same memory: who also has it writable goes on writing."""
    one, two = group.start(2)
    tokens = one("[(a := ist.zeros(4)).token(), a.toreadonly().token()]")
    two.run("w, r = map(ist.attach, tokens); w[1] = 5", tokens=tokens)
    assert two("r.tolist(), w.readonly, r.readonly, r.address != w.address") == ([0, 5, 0, 0], False, True, True)
    two.raises("ValueError", "r[0] = 1")
    assert one("a.tolist()") == [0, 5, 0, 0]
    one.run("a.release()")
    two.run("w.release()")
    assert two("r.tolist()") == [0, 5, 0, 0]
