"""os.fork(): the child has what its parent had, both see each other's writes, and neither can disturb the other."""

import os
import random
from collections.abc import Iterator

import pytest
from processes import Group, empty

PARTS = """
    import ctypes, gc, pickle
    a = ist.array([[1, 2, 3], [4, 5, 6]], 'i4')
    view, turned, readonly, frozen = a[1], a.T, a.toreadonly(), ist.full(5, 7).freeze()
    export, exported_only = memoryview(a), memoryview(ist.array([8, 9], 'u1'))
    published = ist.zeros(3)
    token = published.token()
    addressed = ist.array([11, 12], 'i8')
    address = addressed.address
    nothing, big = ist.zeros((3, 0)), ist.full(1 << 20, 3, 'u1')
    many = [ist.full(n, n % 200, 'u1') for n in range(1, 3000, 7)]
"""

CHECK_PARTS = """
    assert view.tolist() == [4, 5, 6] and turned.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert readonly.tolist() == a.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert frozen.frozen and frozen.readonly and readonly.readonly and not a.readonly
    assert export.tolist() == a.tolist() and exported_only.tolist() == [8, 9]
    assert published.tolist() == [0, 0, 0] == ist.attach(token).tolist()
    assert ctypes.c_int64.from_address(address + 8).value == 12 and nothing.tolist() == [[], [], []]
    assert big.min() == big.max() == 3 and all(x.min() == x.max() == x.size % 200 for x in many)
"""


@pytest.fixture
def group() -> Iterator[Group]:
    with Group() as group:
        yield group


# ---- what the child has ------------------------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("first", ["parent releases", "child releases", "parent ends", "child ends", "parent is killed", "child is killed"])
def test_the_child_keeps_all_and_either_may_go_first(first: str, group: Group) -> None:
    parent = group.one()
    parent.run(PARTS)
    child = parent.fork()
    for peer in (parent, child):
        peer.run(CHECK_PARTS)
        assert peer("a.segment.processes") == 2 and peer("len(ist.segments())") == parent("len(ist.segments())")
    parent.run("a[0, 0] = 10; export[1, 2] = 60; big[7] = 70")
    assert child("a[0, 0], view[2], turned[2, 1], readonly[1, 2], export[0, 0], big[7]") == (10, 60, 60, 60, 10, 70)
    child.run("a[0, 1] = 20; ctypes.c_int64.from_address(address).value = 110; published[1] = 5")
    assert parent("export[0, 1], addressed[0], published[1], ist.attach(token)[1]") == (20, 110, 5, 5)
    for peer in (parent, child):
        peer.run("a[:] = ist.array([[1, 2, 3], [4, 5, 6]]); big[7] = 3; addressed[0] = 11; published[1] = 0")
        peer.raises("ValueError", "frozen[0] = 1")
        peer.raises("ValueError", "readonly[0] = 1")
    goes, stays = (parent, child) if first.startswith("parent") else (child, parent)
    release = """
        export.release()
        exported_only.release()
        del a, view, turned, readonly, frozen, export, exported_only, published, addressed, nothing, big, many
    """
    if first.endswith("releases"):
        goes.run(release)
        empty(goes)
        goes.run("more = [ist.full(n, 99, 'u1') for n in range(1, 3000, 7)] + [ist.full(1 << 20, 99, 'u1')]")
    else:
        goes.end("kill" if first.endswith("killed") else "return")
    stays.run("ist.sweep()")
    stays.run(CHECK_PARTS)
    assert stays("a.segment.processes") == 1
    if first.endswith("releases"):
        assert goes("all(x.min() == x.max() == 99 for x in more)")
        goes.run("del more")
    stays.run(release)
    empty(stays)


@pytest.mark.matrix
def test_release_freeze_and_detached_are_each_ones_own(group: Group) -> None:
    """A handle's state is copied; the segment is one."""
    parent = group.one()
    parent.run("a, b, c, gone = ist.zeros(3), ist.zeros(3), ist.full(3, 1).freeze(), ist.zeros(3); gone.release()")
    child = parent.fork()
    child.raises("DetachedError", "gone.tolist()")
    for peer in (parent, child):
        assert "can't freeze: 1 other process has it" in peer.raises("BufferError", "a.freeze()")
    child.run("w = c.make_writable(); w[0] = 9")  # a copy, as the parent has it too
    assert child("w.tolist(), c.frozen") == ([9, 1, 1], True) and parent("c.tolist()") == [1, 1, 1]
    child.run("c.release()")
    parent.run("address = c.segment.id; w = c.make_writable(); w[0] = 8")  # itself, as nobody else has it
    assert parent("w.tolist(), w.segment.id == address") == ([8, 1, 1], True)
    child.run("a.release()")
    assert child.raises("DetachedError", "a[0]") and parent("a.tolist()") == [0, 0, 0]
    parent.run("a.freeze()")
    assert parent("a.frozen") and parent.raises("ValueError", "a[0] = 1")
    child.run("a = ist.attach(token)", token=parent("a.token()"))
    assert child("a.frozen") and child.raises("ValueError", "a[0] = 1")
    parent.run("b.release()")
    child.run("b[1] = 1; b.freeze()")
    assert child("b.tolist(), b.frozen") == ([0, 1, 0], True)
    for peer in (parent, child):
        peer.run("del a, b, c, w, gone")
    empty(parent, child)


@pytest.mark.matrix
def test_pickles_cross_the_fork(group: Group) -> None:
    """Those of before the fork load once in either; the parent's later ones in the child and the other way round."""
    parent = group.one()
    parent.run("import pickle; a, b = ist.full(3, 1), ist.full(3, 2); before = [pickle.dumps(x) for x in (a, b)]; del a, b")
    assert parent("ist.stats()['leases']") == 2
    child = parent.fork()
    assert child("ist.stats()['leases'], ist.segments()") == (0, [])
    assert child("(x := pickle.loads(before[0])).tolist()") == [1.0] * 3 and parent("(y := pickle.loads(before[1])).tolist()") == [2.0] * 3
    parent.run("y[0] = 5; late = pickle.dumps(y); y.release()")
    child.run("x[0] = 6; late = pickle.dumps(x); x.release()")
    later = parent("late"), child("late")
    assert child("(x := pickle.loads(d)).tolist()", d=later[0]) == [5, 2, 2]
    assert parent("(y := pickle.loads(d)).tolist()", d=later[1]) == [6, 1, 1]
    for peer in (parent, child):
        for d in (*later, *parent("before")):
            peer.run("try: held = pickle.loads(d)\nexcept ist.SegmentGoneError: pass\nelse: del held", d=d)
    parent.run("y.release()")
    child.run("x.release()")
    empty(parent, child)  # the sender hears of a load by its housekeeper
    for peer in (parent, child):
        for d in (*later, *parent("before")):
            peer.raises("SegmentGoneError", "pickle.loads(d)", d=d)


def test_the_parents_unread_pickle_after_its_end(group: Group) -> None:
    parent = group.one()
    parent.run("import pickle; data = pickle.dumps(ist.full(3, 1)), pickle.dumps(ist.full(3, 2))")
    child = parent.fork()
    other = group.one(domain=child)
    parent.kill()
    assert child("(x := pickle.loads(data[0])).tolist()") == [1.0] * 3
    other.run("import pickle; y = pickle.loads(data)", data=child("data[1]"))
    assert other("y.tolist()") == [2.0] * 3
    child.run("del x")
    other.run("del y")
    empty(child, other)


# ---- neither disturbs the other ------------------------------------------------------------------------------------------

CHURN = """
    import random
    dice = random.Random(seed)
    def size(): return int(2 ** dice.uniform(0, 14 if dice.random() < .95 else 22))
    held = []
    for i in range(rounds):
        if len(held) < 200 or dice.random() < .5:
            held.append(ist.full(size(), me, "u1"))
        else:
            x = held.pop(dice.randrange(len(held)))
            assert x.min() == x.max() == me
    assert all(x.min() == x.max() == me for x in held)
    x = None
"""


def seed() -> int:
    value = int(os.environ.get("ISTHMUS_SEED", random.randrange(2**32)))
    print(f"ISTHMUS_SEED={value}")
    return value


@pytest.mark.matrix
def test_all_allocate_a_lot_after_generations_of_forks(group: Group) -> None:
    """Five processes of three generations fill memory of all sizes at once; what they had before the forks is as it was."""
    first = group.one()
    first.run(PARTS)
    start = seed()
    first.run(CHURN, seed=start, rounds=2000, me=1)
    first.run("inherited, held = held, []")
    second = first.fork()
    second.run("new = [ist.full(n, 2, 'u1') for n in range(1, 2000, 11)]")
    third, fourth = second.fork(), second.fork()
    fifth = third.fork()
    everybody = [first, second, third, fourth, fifth]
    for i, peer in enumerate(everybody):
        peer.begin(CHURN, seed=start + i + 1, rounds=6000, me=10 + i)
    for peer in everybody:
        peer.finish()
        peer.run(CHECK_PARTS)
        assert peer("all(x.min() == x.max() == 1 for x in inherited)")
    assert all(peer("all(x.min() == x.max() == 2 for x in new)") for peer in everybody[1:])
    assert first("a.segment.processes") == 5 and fifth("new[0].segment.processes") == 4
    second.kill()
    first.end()
    for peer in (third, fifth, fourth):
        peer.run("ist.sweep()")
        peer.run(CHECK_PARTS)
        peer.run("assert all(x.min() == x.max() == 1 for x in inherited) and all(x.min() == x.max() == 2 for x in new)")
    assert fourth("a.segment.processes, new[0].segment.processes") == (3, 3)


def test_each_frees_what_only_the_other_allocates_next(group: Group) -> None:
    """Freed on one side, the memory stays the other's: new arrays of either never overlap what is alive anywhere."""
    parent = group.one()
    parent.run("kept = {n: [ist.full(n, 7, 'u1') for _ in range(40)] for n in (1, 64, 100, 4096, 5000, 70000, 300000)}")
    child = parent.fork()
    child.run("for part in kept.values(): del part[::2]")
    parent.run("for part in kept.values(): del part[1::2]")
    for peer, me in ((parent, 21), (child, 22)):
        peer.run("new = [ist.full(n, me, 'u1') for n in kept for _ in range(100)]", me=me)
    for peer, me in ((parent, 21), (child, 22)):
        assert peer("all(x.min() == x.max() == me for x in new)", me=me)
        assert peer("all(len(p) == 20 and all(x.min() == x.max() == 7 for x in p) for p in kept.values())")
        peer.run("del kept, new; x = p = part = None")
    empty(parent, child)


# ---- where it is called ----------------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_fork_in_a_thread_while_others_allocate(group: Group) -> None:
    """The locks that other threads hold at that moment are nobody's in the child."""
    parent = group.one()
    parent.run(PARTS)
    parent.run(
        """
        import threading
        stop, failed = threading.Event(), []
        def churn(me):
            try:
                kept = []
                while not stop.is_set():
                    kept.append(ist.full(1 + len(kept) * 37 % 9000, me, 'u1'))
                    kept[-1].token() if len(kept) % 3 else pickle.loads(pickle.dumps(kept[-1]))
                    if len(kept) == 100:
                        assert all(x.min() == x.max() == me for x in kept)
                        kept.clear()
            except BaseException as error:
                failed.append(repr(error))
        threads = [threading.Thread(target=churn, args=(i + 1,)) for i in range(3)]
        for t in threads: t.start()
        """
    )
    children = []
    for i in range(12):
        parent.begin("t = threading.Thread(target=fork, args=(space,)); t.start(); t.join()" if i % 2 else "fork(space)")
        children.append(group.accept())
        parent.finish()
    for child in children:
        child.run(CHECK_PARTS)
        child.run("new = [ist.full(n, 77, 'u1') for n in range(1, 9000, 37)]; assert all(x.min() == x.max() == 77 for x in new)")
        child.run("assert pickle.loads(pickle.dumps(new[5])).tolist() == [77] * new[5].size")
        assert child("ist.attach(new[9].token()).sum() == 77 * new[9].size and failed == []")
    parent.run("stop.set(); [t.join() for t in threads]; assert failed == [], failed")
    parent.run(CHECK_PARTS)
    for child in children:
        child.end("_exit")
    parent.run("ist.sweep()")
    assert parent("a.segment.processes") == 1


def test_a_child_of_a_thread_has_children_too(group: Group) -> None:
    parent = group.one()
    parent.run("a = ist.full(9, 4)")
    parent.begin("import threading; t = threading.Thread(target=fork, args=(space,)); t.start(); t.join()")
    child = group.accept()
    parent.finish()
    grandchild = child.fork()
    parent.kill()
    child.kill()
    grandchild.run("a[1] = 5; ist.sweep()")
    assert grandchild("a.tolist()[:3], a.segment.processes") == ([4, 5, 4], 1)
    other = group.one(domain=grandchild)
    other.run("b = ist.attach(token)", token=grandchild("a.token()"))
    grandchild.run("del a")
    assert other("b[1]") == 5
    other.run("del b")
    empty(grandchild, other)


# ---- other ways to make a process --------------------------------------------------------------------------------------

PROGRAM = """if 1:
    import isthmus, sys
    a = isthmus.attach(bytes.fromhex(sys.argv[1]))
    a[int(sys.argv[2])] = 1
    print(a.segment.processes, isthmus.stats()["processes"])
"""


@pytest.mark.matrix
def test_subprocess_exec_and_posix_spawn(group: Group) -> None:
    """A program that is started with the token joins the domain; exec in place of a process that held arrays lets them go."""
    parent = group.one()
    parent.run("import subprocess; a = ist.zeros(8, 'i1'); only_childs = ist.zeros(3); token = a.token().hex()")
    run = "subprocess.check_output([sys.executable, '-c', program, token, str(i)], **options).decode().split()"
    for i, options in enumerate(({}, {"close_fds": False}, {"start_new_session": True})):
        assert parent(run, program=PROGRAM, i=i, options=options) == ["2", "2"], options
    assert parent("subprocess.run([sys.executable, '-c', program, token, '3'], preexec_fn=int, stdout=subprocess.DEVNULL).returncode") == 0
    for i, call in ((4, "posix_spawn"), (5, "posix_spawnp")):
        assert (
            parent(
                "os.waitstatus_to_exitcode(os.waitpid("
                "getattr(os, call)(sys.executable, [sys.executable, '-c', program, token, str(i)], os.environ,"
                " file_actions=[(os.POSIX_SPAWN_OPEN, 1, '/dev/null', os.O_WRONLY, 0)]), 0)[1])",
                call=call,
                i=i,
            )
            == 0
        )
    child = parent.fork()
    parent.run("only_childs.release()")
    child.begin(
        "fd = os.open('/dev/null', os.O_WRONLY); os.dup2(fd, 1); os.execv(sys.executable, [sys.executable, '-c', program, token, '6'])"
    )
    child.wait()
    assert parent("os.waitpid(-1, 0)[1]") == 0
    assert parent("a.tolist()") == [1] * 7 + [0]
    parent.run("ist.sweep()")
    assert parent("a.segment.processes, len(ist.segments())") == (1, 1)
    fds = parent("subprocess.run(['ls', '-l', '/proc/self/fd'], capture_output=True, text=True, close_fds=False).stdout")
    assert "isthmus" not in fds, "the domain's descriptors aren't inherited by a program"
    parent.run("a.release()")
    empty(parent)


@pytest.mark.matrix
def test_multiprocessing_without_pickling(group: Group) -> None:
    """The fork context hands arguments on as they are: they are inherited; what comes back is pickled."""
    parent = group.one()
    parent.run(
        """
        import multiprocessing
        def work(a, closed_over, answer):
            a[0] = 5
            assert hidden.tolist() == [1, 2] and closed_over['x'][1] == 3
            answer.put((a, hidden, ist.full(2, 9)))
        context = multiprocessing.get_context("fork")
        a, hidden, q = ist.zeros(3), ist.array([1, 2]), context.SimpleQueue()
        leases = ist.stats()["leases"]
        child = context.Process(target=work, args=(a, {"x": ist.full(2, 3)}, q))
        child.start()
        assert ist.stats()["leases"] == leases
        b, c, d = q.get()
        child.join()
        assert child.exitcode == 0 and a[0] == 5 and d.tolist() == [9.0, 9.0]
        assert b.segment.descriptor == a.segment.descriptor and c.segment.descriptor == hidden.segment.descriptor
        del a, b, c, d, child, hidden
        q.close()
        """
    )
    empty(parent)


@pytest.mark.matrix
def test_interpreters_and_fork(group: Group) -> None:
    """With live subinterpreters CPython can't fork (gh-101437); once they are closed it can, and their arrays stay."""
    parent = group.one()
    parent.run("import carriers; i = carriers.Interpreter(); a = ist.zeros(4)")
    parent.run("i.run(f'import isthmus as ist; b = ist.attach({token!r}); b[1] = 1')", token=parent("a.token()"))
    parent.run("i.close()")
    child = parent.fork()
    child.run("a[2] = 2; j = carriers.Interpreter()")
    child.run("j.run(f'import isthmus as ist; b = ist.attach({token!r}); b[3] = 3'); j.close()", token=parent("a.token()"))
    assert parent("a.tolist()") == child("a.tolist()") == [0, 1, 2, 3]
    for peer in (parent, child):
        peer.run("del a")
    empty(parent, child)


def test_many_forks_leave_nothing(group: Group) -> None:
    """300 children of a process with arrays, each exits at once or is killed; places, windows and descriptors are used again."""
    parent = group.one()
    parent.run(
        "from processes import descriptors; a = [ist.full(n, 5, 'u1') for n in (3, 5000, 1 << 20)]; before = sorted(descriptors().items())"
    )
    parent.run(
        """
        import signal
        for i in range(300):
            pid = os.fork()
            if pid == 0:
                b = [ist.full(n, 6, 'u1') for n in (3, 5000)]
                ok = all(x.min() == 5 for x in a) and all(x.max() == 6 for x in b)
                os.kill(os.getpid(), signal.SIGKILL) if i % 2 and ok else os._exit(not ok)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert status == (-signal.SIGKILL if i % 2 else 0), (i, status)
        ist.sweep()
        assert sorted(descriptors().items()) == before
        assert [x.segment.processes for x in a] == [1, 1, 1] and ist.stats()["processes"] == 1
        a[0].release()
        assert all(x.min() == x.max() == 5 for x in a[1:])
        del a
        """
    )
    empty(parent)
