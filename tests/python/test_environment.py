"""Without address space, descriptors, files' size, /dev/shm, /proc, rights: it works, or the error says what is missing."""

import os
from collections.abc import Iterator

import pytest
from processes import DEADLINE, SANITIZED, Group, Peer, Raised, empty, heap_pages, mounts, poll

MIB = 1 << 20


@pytest.fixture
def group() -> Iterator[Group]:
    with Group() as group:
        yield group


def outcome(peer: Peer, source: str, **values: object) -> str:
    """ "ok", or the exception's class and text."""
    try:
        peer.run(source, **values)
    except Raised as error:
        return f"{error.kind}: {error.text}"
    return "ok"


def limited(group: Group, option: str, value: int) -> Peer:
    return group.one(prefix=("sh", "-c", f'ulimit -{option} {value} && exec "$@"', "sh"))


def to_and_fro(peer: Peer, other: Peer) -> None:
    """Everything works between the two."""
    other.run("b = ist.attach(token); b[1] = 5", token=peer("(a := ist.zeros(3, 'i8')).token()"))
    peer.run("c = ist.attach(token); c[1] = 6", token=other("(d := ist.zeros(3, 'i8')).token()"))
    assert peer("a.tolist()") == [0, 5, 0] and other("d.tolist()") == [0, 6, 0]
    for p in (peer, other):
        p.run("for name in ('a', 'b', 'c', 'd'): space.pop(name, None)")


# ---- limits of the process ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(SANITIZED, reason="AddressSanitizer's shadow doesn't fit into a limited address space")
@pytest.mark.parametrize("kib", [80 << 10, 120 << 10, 400 << 10, 1 << 20, 8 << 20, 100 << 20, 1 << 30])
def test_little_address_space(kib: int, group: Group) -> None:
    """RLIMIT_AS. One's own heap gets smaller; another's, which is large, can't be mapped under the smallest."""
    one, two = limited(group, "v", kib), group.one()
    one.run("a = ist.full(1000, 1); a[5] = 6; s = [ist.full(100, i, 'u1') for i in range(200)]")
    big = outcome(one, "b = ist.full(100 << 20, 1, 'u1'); assert b.sum() == 100 << 20; del b")
    if kib >= 400 << 10:
        assert big == "ok"
    else:
        assert big.startswith("MemoryError: 104857600 bytes for a SharedArray: not enough memory; the heap's limit is"), big
        assert f"this process's RLIMIT_AS is {kib * 1024} bytes" in big
    two.run("b = ist.attach(token); b[6] = 7", token=one("a.token()"))
    assert one("a[6]") == 7 and two("b[5]") == 6
    there = outcome(one, "d = ist.attach(token); assert d.sum() == 5; d.release()", token=two("(c := ist.full(1, 5)).token()"))
    if kib >= 8 << 20:
        assert there == "ok"
    else:
        assert there.startswith("MemoryError: segment") and "not enough memory" in there, there
        assert f"this process's RLIMIT_AS is {kib * 1024} bytes" in there
    assert one("(e := ist.full(10, 7)).sum()") == 70  # and goes on
    one.run("import pickle; f = pickle.loads(pickle.dumps(e)); assert f.tolist() == e.tolist()")
    child = one.fork()
    assert child("a[6], [s[i].sum() for i in (0, 1, 199)]") == (7, [0, 100, 19900])
    own = outcome(child, "g = ist.full(1000, 9); assert g.sum() == 9000")
    assert own == "ok" or (kib < 1 << 20 and "RLIMIT_AS" in own), own  # it has its parent's heap mapped, too
    two.run("b.release(); c.release()")
    empty(two)
    child.end()
    if kib >= 8 << 20:
        to_and_fro(one, two)


@pytest.mark.parametrize("blocks", [0, 8, 2048, 1 << 17, 1 << 21, 1 << 28])
def test_little_size_of_files(blocks: int, group: Group) -> None:
    """RLIMIT_FSIZE, in 512 bytes: it counts for memfds as well, and beyond it ftruncate would kill."""
    two = group.one()
    one = limited(group, "f", blocks)
    text = outcome(one, "a = ist.full(1000, 1); a[5] = 6")
    if blocks <= 2048:
        for source in ("ist.zeros(1)", "ist.full(1 << 20, 1)", "ist.attach(token)"):
            text = outcome(one, source, token=two("(a := ist.zeros(3)).token()"))
            assert text.startswith("MemoryError") and f"this process's RLIMIT_FSIZE is {blocks * 512} bytes" in text, text
        assert one("ist.segments(), os.environ['ISTHMUS_DOMAIN']") == ([], "")
        two.run("a.release()")
        empty(one, two)
        return
    assert text == "ok"
    big = outcome(one, "b = ist.full(100 << 20, 1, 'u1'); assert b.sum() == 100 << 20; del b")
    assert big == "ok" if blocks == 1 << 28 else "RLIMIT_FSIZE" in big, big
    to_and_fro(one, two)
    one.run("a = ist.full(1000, 6)")
    child = one.fork()
    assert child("a[5]") == 6
    own = outcome(child, "g = ist.full(1000, 9); assert g.sum() == 9000")
    assert own == "ok" or (blocks == 1 << 17 and "RLIMIT_FSIZE" in own), own  # one window is all


FEW_FILES = """
    import os, resource, sys
    token = bytes.fromhex(sys.argv[1])

    def attempt(f):
        try:
            return str(f())
        except Exception as e:
            return f"{type(e).__name__}: {e}"

    for free in range(1, 7):
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            n = os.open("/dev/null", os.O_RDONLY)
            os.close(n)
            # three more while modules are loaded
            resource.setrlimit(resource.RLIMIT_NOFILE, (n + 8, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            keep = [os.open("/dev/null", os.O_RDONLY) for _ in range(8 - free)]
            import isthmus as ist
            told = [
                attempt(lambda: ist.zeros(3).tolist()),
                attempt(lambda: [len(ist.zeros(3).token()) for _ in range(1000)][-1]),
                attempt(lambda: ist.attach(token).tolist()),
                attempt(lambda: ist.zeros(3).sum()),
            ]
            p = os.fork()
            if p == 0:
                os.write(w, (attempt(lambda: ist.full(2, 4).tolist()) + "|").encode())
                os._exit(0)
            os.waitpid(p, 0)
            for f in keep:
                os.close(f)
            told += [attempt(lambda: ist.full(1, 8).tolist()), attempt(lambda: ist.attach(token).tolist())]
            os.write(w, "|".join(told).encode())
            os._exit(0)
        os.close(w)
        with open(r) as pipe:
            print(free, pipe.read(), sep="|")
        assert os.waitpid(pid, 0)[1] == 0
"""


def test_few_descriptors(group: Group) -> None:
    """Two of the domain, one more for moments, four for another domain. Without them it is EMFILE, and works as soon as there are some."""
    two = group.one()
    lines = group.script(FEW_FILES, two("(a := ist.full(3, 5)).token().hex()")).strip().split("\n")
    assert len(lines) == 6
    full = "OSError: [Errno 24] {}: too many open files in this process"
    for line in lines:
        free, child, zeros, token, attached, again, own_at_last, attached_at_last = line.split("|")
        if int(free) >= 3:
            assert (child, zeros, token, again) == ("[4, 4]", "[0.0, 0.0, 0.0]", "75", "0.0"), line
        else:
            assert zeros == again == token == full.format("24 bytes for a SharedArray"), line
            assert child == full.format("16 bytes for a SharedArray"), line
        assert attached == "[5, 5, 5]" if int(free) >= 5 else "[Errno 24] segment" in attached, line
        assert (own_at_last, attached_at_last) == ("[8]", "[5, 5, 5]"), line


# ---- what is mounted ---------------------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_a_small_dev_shm(group: Group) -> None:
    """64 KiB, and none of it is used: no SIGBUS in a container."""
    two = group.one()
    one = group.one(prefix=mounts("mount -t tmpfs -o size=64k none /dev/shm"))
    assert one("os.statvfs('/dev/shm').f_blocks * os.statvfs('/dev/shm').f_frsize") == 65536
    one.run("a = ist.full(64 << 20, 1, 'u1'); assert a.sum() == 64 << 20 and os.listdir('/dev/shm') == []")
    two.run("b = ist.attach(token); assert b.sum() == 64 << 20; b[5] = 6", token=one("a.token()"))
    assert one("a[5]") == 6
    one.run("a.release()")
    two.run("b.release()")
    to_and_fro(one, two)


@pytest.mark.skipif(SANITIZED, reason="AddressSanitizer's leak check reads /proc")
@pytest.mark.matrix
def test_no_proc(group: Group) -> None:
    """It shares within itself; to others it says why not."""
    two = group.one()
    two.run("b = ist.full(3, 5)")
    one = group.one(prefix=mounts("mount -t tmpfs none /proc"))
    one.run("import pickle; a = ist.full(1000, 1); a[5] = 6; c = pickle.loads(pickle.dumps(a)); d = ist.attach(a.token()); d[6] = 7")
    assert one("c[6], len(ist.segments()), os.environ['ISTHMUS_DOMAIN'], ist.sweep()['processes']") == (7, 1, "", 0)
    one.run("a.publish('mine'); assert ist.attach('mine')[5] == 6; ist.unpublish('mine')")
    one.raises("SegmentGoneError", "ist.attach('mine')")
    text = one.raises("SegmentGoneError", "ist.attach(token)", token=two("b.token()"))
    assert "where no /proc is mounted" in text
    text = two.raises("SegmentGoneError", "ist.attach(token)", token=one("a.token()"))
    assert "can't be reached from here; " in text
    child = one.fork()
    assert "/proc" in child.raises("DetachedError", "a[6]")
    child.run("a.release(); e = ist.full(1000, 9); assert e.sum() == 9000")
    assert one("a[6]") == 7
    one.run(
        "import carriers; i = carriers.Interpreter(); i.run(f'import isthmus as ist; a = ist.attach({t!r}); a[7] = 8'); i.close()",
        t=one("a.token()"),
    )
    assert one("a[7]") == 8
    one.run("del a, c, d")
    empty(one)


@pytest.mark.matrix
def test_no_run_time_directory(group: Group) -> None:
    """Neither XDG_RUNTIME_DIR nor HOME nor TMPDIR are needed, nor anything to write to."""
    one = group.one(prefix=("env", "-u", "XDG_RUNTIME_DIR", "-u", "HOME", "-u", "TMPDIR"))
    two = group.one(XDG_RUNTIME_DIR="/nonexistent", TMPDIR="/nonexistent", HOME="/nonexistent")
    assert one("[k for k in ('XDG_RUNTIME_DIR', 'HOME', 'TMPDIR') if k in os.environ]") == []
    name = f"nowhere {one.pid}"
    one.run("n = ist.full(2, 3); n.publish(name)", name=name)
    assert two("ist.attach(name).tolist()", name=name) == [3, 3]
    one.run("del n")
    to_and_fro(one, two)


# ---- another user --------------------------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_another_user(group: Group) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    one, two = group.one(), group.one()
    os.chmod(group.folder, 0o711)  # so that its child can come to us
    os.chmod(group.path, 0o666)
    name = f"root's {one.pid}"
    one.run("a = ist.full(3, 5); a.publish(name)", name=name)
    two.raises("ZeroDivisionError", "1 / 0")  # so that what shows errors is loaded, which the other user may not be able to read
    two.run("import pickle; os.setgroups([]); os.setgid(65534); os.setuid(65534)")
    text = two.raises("PermissionError", "ist.attach(token)", token=one("a.token()"))
    assert "belongs to a process of another user" in text
    two.raises("PermissionError", "pickle.loads(data)", data=one("__import__('pickle').dumps(a)"))
    assert "by a process of this user" in two.raises("SegmentGoneError", "ist.attach(name)", name=name)
    two.run("b = ist.full(3, 6); b.publish(name)", name=name)  # no clash
    assert two("ist.attach(name).tolist()", name=name) == [6] * 3 and one("ist.attach(name).tolist()", name=name) == [5] * 3
    child = two.fork()
    assert child("b.tolist()") == [6] * 3
    assert one("a.tolist(), a.segment.processes") == ([5] * 3, 1)
    three = group.one(domain=one)
    three.run("c = ist.attach(token)", token=one("a.token()"))
    assert three("c[0]") == 5


# ---- the environment -----------------------------------------------------------------------------------------------------

GARBAGE = [
    ":", "::", "1", "x:y:z", "1:2:3", "%s%s%n", "\n", "ä", "x" * 10000, "-1:4:" + "0" * 32,
    "1:4:" + "0" * 32, "1:4:" + "g" * 32, "99999999999999999999:4:" + "0" * 32, "1:1:" + "f" * 33,
    "4294967295:4294967295:" + "f" * 32, "1:4:" + "0" * 31, " 1:4:" + "0" * 32, "SELF:1:" + "0" * 32, "SELF:0:" + "0" * 32,
]  # fmt: skip


@pytest.mark.matrix
def test_garbage_in_ISTHMUS_DOMAIN(group: Group) -> None:
    """As if it weren't there; it is replaced by what is true."""
    two = group.one()
    token = two("(b := ist.zeros(len_)).token().hex()", len_=len(GARBAGE) + 3)
    true = two("os.environ['ISTHMUS_DOMAIN']")
    pid, descriptor, identity = true.split(":")
    last = "0" if identity[-1] != "0" else "1"
    values = [*GARBAGE, f"{pid}:{descriptor}:{identity[:-1]}{last}", f"{pid}:99:{identity}", f"{pid}:1:{identity}"]
    script = """
        import os, sys
        if "SELF" in os.environ["ISTHMUS_DOMAIN"]:
            os.environ["ISTHMUS_DOMAIN"] = os.environ["ISTHMUS_DOMAIN"].replace("SELF", str(os.getpid()))
        import isthmus as ist
        pid, descriptor, identity = os.environ["ISTHMUS_DOMAIN"].split(":")
        assert int(pid) == os.getpid() and ist.full(3, 1).sum() == 3 and ist.stats()["processes"] == 1
        ist.attach(bytes.fromhex(sys.argv[1]))[int(sys.argv[2])] = 1
    """
    path = f"{group.folder}/script.py"
    group.script(script, token, "0", env={"ISTHMUS_DOMAIN": values[0]})
    started = [group.launch(path, token, str(i), env={"ISTHMUS_DOMAIN": value}) for i, value in enumerate(values)]
    for value, process in zip(values, started, strict=True):
        assert process.wait(DEADLINE) == 0, (value, group.said())
    assert two("b.tolist()") == [1.0] * len(values)


@pytest.mark.matrix
def test_ISTHMUS_DOMAIN_of_a_dead_process(group: Group) -> None:
    """Of one whose domain lives on in others, too: by that text it can't be found any more; a text of any member would do."""
    one, two = group.start(2)
    text = one("os.environ['ISTHMUS_DOMAIN']")
    one.kill()
    three = group.one(ISTHMUS_DOMAIN=text)
    assert three("os.environ['ISTHMUS_DOMAIN']").split(":")[2] != text.split(":")[2]
    assert two("os.environ['ISTHMUS_DOMAIN']").split(":")[2] == text.split(":")[2]
    to_and_fro(two, three)


@pytest.mark.matrix
def test_the_housekeeper_is_turned_off(group: Group) -> None:
    """By configure(), after the import that started it: the thread ends, its work is done by calls, also in the domain that comes then."""
    one = group.one()
    threads = "len(os.listdir('/proc/self/task'))"
    poll(lambda: one(threads) == 2, "the housekeeper is there")
    one.run("ist.configure(housekeeper=False)")
    poll(lambda: one(threads) == 1, "the housekeeper is gone")
    two = group.one(domain=one)
    two.run("a = ist.full(64 << 20, 1, 'u1')")
    one.run("b = ist.attach(token)", token=two("a.token()"))
    two.kill()
    one.run("assert b.sum() == 64 << 20; del b; ist.sweep()")
    assert one(threads) == 1 and heap_pages(one.pid) < MIB


def test_without_housekeeper(group: Group) -> None:
    """ISTHMUS_HOUSEKEEPER=0: no thread at any time, and leases end, memory and the dead are seen to when somebody calls."""
    one, two = group.one(ISTHMUS_HOUSEKEEPER="0"), group.one(ISTHMUS_HOUSEKEEPER="0")
    to_and_fro(one, two)
    one.run("import pickle, logging; logging.disable(); ist.set_pickle_lease(0.001); pickle.dumps(ist.full(1000, 1))")
    child = one.fork()
    assert child("poll(lambda: ist.sweep() and True, 'a call')")
    one.run("poll(lambda: ist.sweep() and ist.stats()['leases'] == 0, 'the lease ends')")
    for peer in (one, two, child):
        assert peer("len(os.listdir('/proc/self/task'))") == 1
    child.kill()
    assert one("ist.sweep()['processes']") == 2  # it was in both domains
    empty(one, two)


def test_descriptors_closed_by_the_program(group: Group) -> None:
    """os.closerange, as daemons do: what is mapped goes on, sharing with newcomers is refused or repaired, nothing crashes."""
    one, two = group.start(2)
    one.run("a = ist.full(3, 5); t = a.token()")
    two.run("b = ist.attach(token)", token=one("t"))
    one.run(
        """
        from processes import descriptors
        for fd, name in descriptors().items():
            if "isthmus" in name: os.close(fd)
        a[1] = 6
        more = [ist.full(n, 7, 'u1') for n in (1, 1000, 1 << 20)]
        assert all(x.min() == x.max() == 7 for x in more)
        """
    )
    assert two("b.tolist()") == [5, 6, 5] and two("ist.sweep()['processes']") == 0
    assert one("ist.sweep()['processes'], a.tolist()") == (0, [5, 6, 5])
    two.run("c = ist.attach(token)", token=one("more[1].token()"))
    assert two("c.max()") == 7
    one.run("del a, more")
    two.run("del b, c")
    empty(one, two)
