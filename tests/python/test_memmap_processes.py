"""isthmus.memmap between processes: each opens the file again, and only if it is the one that was meant. Lifetimes, refusals, fork."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import SANITIZED, Group, Peer, empty, mounts, poll

SIZE = 20_000
OFFSET = 4099
CARRIERS = ["token", "pickle", "name"]


@pytest.fixture
def group() -> Iterator[Group]:
    with Group() as group:
        yield group


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(random.Random(2).randbytes(SIZE))
    return path


@pytest.fixture(autouse=True)
def nothing_else_in_the_folder(tmp_path: Path) -> Iterator[None]:
    yield
    assert {name.name for name in tmp_path.iterdir()} <= {"data", "more", "folder", "x" * 250}


def mapped(one: Peer, path: Path, mode: str = "r+", **values: object) -> None:
    one.run("a = ist.memmap(file, 'u1', mode, offset, length)", file=str(path), mode=mode, offset=OFFSET, length=SIZE - OFFSET, **values)


def sent(one: Peer, carrier: str, array: str = "a") -> tuple[str, dict[str, object]]:
    """Source that makes `b` of it in another process, and the values it needs. A published one keeps its name."""
    if carrier == "token":
        return "b = ist.attach(data)", {"data": one(f"({array}).token()")}
    if carrier == "pickle":
        return "import pickle; b = pickle.loads(data)", {"data": one(f"__import__('pickle').dumps({array})")}
    name = f"file of {one.pid}"
    one.run(f"({array}).publish(name)", name=name)
    return "b = ist.attach(data)", {"data": name}


def files(peer: Peer) -> object:
    return peer("[(s.kind, s.size, s.owners) for s in ist.segments()]")


# ---- there and back ------------------------------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("together", [True, False], ids=["one domain", "strangers"])
@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("mode", ["r", "r+", "w+"])
def test_both_see_one_file(mode: str, carrier: str, together: bool, group: Group, path: Path) -> None:
    one, two = group.start(2) if together else (group.one(), group.one())
    mapped(one, path, mode)
    how, values = sent(one, carrier)
    two.run(how, **values)
    assert two("b.tobytes()") == one("a.tobytes()") == path.read_bytes()[OFFSET:]
    assert two("(b.shape, b.dtype.str, b.readonly, b.segment.kind)") == ((SIZE - OFFSET,), "|u1", mode == "r", "file")
    assert files(two) == [("file", SIZE - OFFSET, 1)] and two("ist.stats()['bytes_copied']") in (0, SIZE - OFFSET)
    one.run("poll(lambda: a.owners == 1, 'the lease ends with the load')")
    if mode == "r":
        two.raises("ValueError", "b[0] = 1")
    else:
        one.run("a[0] = 11; a.flush()")
        two.run("b[1] = 12; b.flush()")
        assert (one("a[1]"), two("b[0]"), path.read_bytes()[OFFSET : OFFSET + 2]) == (12, 11, b"\x0b\x0c")
    one.run("a.release()")
    assert two("b.sum()") == sum(path.read_bytes()[OFFSET:])
    two.run("b.release()")
    empty(one, two)


@pytest.mark.matrix
def test_parts_and_kinds(group: Group, path: Path) -> None:
    """Views of any form, with fields too; what is read-only is opened for reading alone."""
    one, two = group.start(2)
    one.run("a = ist.memmap(file, [('x', '<i4'), ('y', 'S3')], 'r+', 5, (20, 30))", file=str(path))
    parts = ["a", "a[3]", "a[::-2, 1::3]", "a.T", "a['x']", "a[['y']]", "a[2:2]", "a.toreadonly()", "a[1:].toreadonly()[:, 0]", "a[3, 4:5]"]
    for part in parts:
        for carrier in CARRIERS:
            how, values = sent(one, carrier, part)
            two.run(how, **values)
            same = "{0}.shape, {0}.strides, {0}.dtype.str, {0}.readonly, {0}.tobytes(), {0}.segment.size"
            assert two(same.format("b")) == one(same.format(f"({part})")), part
            assert two("b.segment.readonly") == ("readonly" in part)
            if carrier == "name":
                one.run("ist.unpublish(name)", name=values["data"])
    two.run("b.release()")
    one.run("a.release()")
    empty(one, two)


@pytest.mark.matrix
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_multiprocessing(method: str, group: Group, path: Path) -> None:
    one = group.one()
    mapped(one, path)
    one.run(
        """
        import multiprocessing as mp, operator
        context = mp.get_context(method)
        with context.Pool(2) as pool:
            pool.starmap(operator.setitem, [(a, i, 5) for i in range(50)] + [(a[100:], i, 6) for i in range(50)])
            assert pool.apply(operator.getitem, (a.toreadonly(), 120)) == 6
            back = pool.apply(operator.getitem, (a, slice(100, 150)))
            assert back.tolist() == [6] * 50
            pool.close()
            pool.join()
        queue = context.SimpleQueue()
        process = context.Process(target=queue.put, args=({"array": a[:50]},))
        process.start()
        got = queue.get()["array"]
        process.join()
        assert got.tolist() == [5] * 50 and process.exitcode == 0
        queue.close()
        """,
        method=method,
    )
    assert path.read_bytes()[OFFSET : OFFSET + 150] == b"\5" * 50 + one("a.tobytes()")[50:100] + b"\6" * 50
    one.run("del got, back, a, process, queue, pool")
    empty(one)


@pytest.mark.matrix
def test_workers(group: Group, path: Path) -> None:
    one = group.one()
    mapped(one, path)
    one.run("import operator; pool = ist.WorkerPool(2, kind='process'); list(pool.map(operator.setitem, [a] * 9, range(9), range(9)))")
    assert one("a[:9].tolist()") == list(range(9))
    one.run("r = pool.submit(operator.getitem, a, slice(3, 6)).result(); assert r.tolist() == [3, 4, 5]; pool.shutdown(); del r, a, pool")
    empty(one)


@pytest.mark.matrix
def test_within_the_other_process_too(group: Group, path: Path) -> None:
    """Its interpreters have its segment; from there it goes on to a third process."""
    one, two, three = group.one(), group.one(), group.one()
    mapped(one, path)
    two.run("b = ist.attach(data)", data=one("a.token()"))
    two.run(
        "import carriers; i = carriers.Interpreter(); i.run(f'import isthmus as ist; c = ist.attach({t!r}); c[7] = 8; "
        "assert c.segment.id == {b.segment.id}'); i.close()",
        t=two("b.token()"),
    )
    three.run("c = ist.attach(data)", data=two("b.token()"))
    for peer in (one, two):
        peer.kill()
    assert three("c[7]") == 8
    three.run("c.release()")
    empty(three)


# ---- lifetimes ------------------------------------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("together", [True, False], ids=["one domain", "strangers"])
@pytest.mark.parametrize("carrier", ["token", "pickle"])
@pytest.mark.parametrize("end", ["releases", "ends", "is killed", "is killed and swept"])
def test_what_lives_on_is_the_file(end: str, carrier: str, together: bool, group: Group, path: Path) -> None:
    """Whatever becomes of who sent it, there is nobody to be asked: the file is opened."""
    one, two = group.start(2) if together else (group.one(), group.one())
    mapped(one, path)
    token = one("a.token()")
    how, values = sent(one, carrier)
    if end == "releases":
        one.run("a.release()")
        if carrier == "token":  # in its own process it is gone, as all others' are
            assert "is gone" in one.raises("SegmentGoneError", "ist.attach(token)", token=token)
    elif end == "ends":
        one.end()
    else:
        one.kill()
        if end == "is killed and swept":
            two.run("ist.sweep()")
    two.run(how, **values)
    assert two("b.tobytes()") == path.read_bytes()[OFFSET:]
    two.run("b[0] = 77; b.release()")
    assert path.read_bytes()[OFFSET] == 77
    if end == "releases":
        empty(one)
    empty(two)


@pytest.mark.matrix
def test_a_name_is_gone_with_who_published_it(group: Group, path: Path) -> None:
    one, two = group.one(), group.one()
    mapped(one, path)
    how, values = sent(one, "name")
    two.run(how, **values)
    one.run("a.release()")
    two.raises("SegmentGoneError", "ist.attach(name)", name=values["data"])
    assert two("b.tobytes()") == path.read_bytes()[OFFSET:]
    two.run("b.publish(name)", name=values["data"])
    one.run("c = ist.attach(name); c[2] = 3", name=values["data"])
    assert two("b[2]") == 3
    two.kill()
    one.raises("SegmentGoneError", "ist.attach(name)", name=values["data"])
    one.run("c.release()")
    empty(one)


@pytest.mark.matrix
def test_deleted_while_all_have_it(group: Group, path: Path) -> None:
    one, two = group.start(2)
    mapped(one, path)
    two.run("b = ist.attach(data)", data=one("a.token()"))
    path.unlink()
    one.run("a[0] = 200")
    assert two("b[0]") == 200
    two.run("b.flush(); b.release()")
    assert one("a[0]") == 200
    one.run("a.release()")
    empty(one, two)


# ---- what isn't the same file any more -----------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("what", ["replaced", "deleted", "renamed", "cut", "a directory", "a pipe", "below a file"])
def test_another_file(what: str, carrier: str, group: Group, tmp_path: Path) -> None:
    one, two = group.one(), group.one()
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "data"
    path.write_bytes(b"x" * SIZE)
    mapped(one, path)
    how, values = sent(one, carrier)
    if what == "replaced":  # by one of the same length
        (tmp_path / "more").write_bytes(b"y" * SIZE)
        os.replace(tmp_path / "more", path)
        why = "was replaced"
    elif what == "cut":
        os.truncate(path, SIZE - 1)
        why = f"was cut: it has {SIZE - 1} bytes, and the array's memory are {SIZE - OFFSET} from byte {OFFSET} on"
    elif what == "renamed":
        path.rename(tmp_path / "more")
        why = "is gone: it was deleted or has another name now"
    elif what == "below a file":
        folder.rename(tmp_path / "more")
        folder.touch()
        why = "is gone"
    else:
        path.unlink()
        why = "is gone"
        if what == "a directory":
            path.mkdir()
        elif what == "a pipe":  # and nobody waits for it
            os.mkfifo(path)
            why = "was replaced"
    for array in ["a", "a.toreadonly()"]:
        if array != "a":
            if carrier == "name":
                one.run("ist.unpublish(name)", name=values["data"])
            how, values = sent(one, carrier, array)
            why = "was replaced" if what == "a directory" else why  # one can be opened for reading
        text = two.raises("SegmentGoneError", how, **values)
        assert str(path) in text and why in text
    assert two("ist.segments()") == []
    assert not [name for name in two("list(__import__('processes').descriptors().values())") if str(tmp_path) in name]
    assert one("ist.attach(a.token())[0]") == ord("x")  # here it is as it was


def test_a_later_file_with_its_inode(group: Group, tmp_path: Path) -> None:
    """The file was deleted, nobody has it mapped, and a new one of its name got the same inode."""
    one, two = group.one(), group.one()
    path = tmp_path / "data"
    path.write_bytes(b"x" * SIZE)
    inode = path.stat().st_ino
    mapped(one, path)
    token = one("a.token()")
    one.run("a.release()")
    for _ in range(100):
        path.unlink()
        path.write_bytes(b"y" * SIZE)
        if path.stat().st_ino == inode:
            break
    else:
        pytest.skip("the file system gives every file a new inode")
    assert "was replaced" in two.raises("SegmentGoneError", "ist.attach(token)", token=token)
    assert two("ist.segments()") == []


def test_a_longer_file_is_the_same(group: Group, path: Path) -> None:
    one, two = group.one(), group.one()
    mapped(one, path)
    with open(path, "ab") as file:
        file.write(b"more")
    two.run("b = ist.attach(data)", data=one("a.token()"))
    assert two("b.size") == SIZE - OFFSET
    one.run("a.release()")
    two.run("b.release()")
    empty(one, two)


@pytest.mark.matrix
@pytest.mark.parametrize("carrier", ["token", "pickle"])
def test_another_user_may_what_the_file_allows(carrier: str, group: Group, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    one, two = group.one(), group.one()
    # the test's own folder is closed to others
    path = Path(group.folder) / "data"
    path.write_bytes(b"x" * SIZE)
    os.chmod(group.folder, 0o711)
    two.raises("ZeroDivisionError", "1 / 0")  # so that what shows errors is loaded, which the other user may not be able to read
    two.run("import pickle; os.setgroups([]); os.setgid(65534); os.setuid(65534)")
    mapped(one, path)
    path.chmod(0o600)
    for array in ["a", "a.toreadonly()"]:
        how, values = sent(one, carrier, array)
        text = two.raises("PermissionError", how, **values)
        assert str(path) in text and "Permission denied" in text
    path.chmod(0o644)
    how, values = sent(one, carrier)
    assert str(path) in two.raises("PermissionError", how, **values)
    how, values = sent(one, carrier, "a.toreadonly()")
    two.run(how, **values)
    assert two("b[0], b.readonly") == (ord("x"), True)
    path.chmod(0o666)
    how, values = sent(one, carrier)
    two.run(how + "; b[0] = 1; b.release()", **values)
    assert one("a[0]") == 1


def test_not_permitted_any_more(group: Group, path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may everything; test_another_user_may_what_the_file_allows has this for another user")
    one, two = group.one(), group.one()
    mapped(one, path)
    path.chmod(0o444)
    for carrier in CARRIERS:
        how, values = sent(one, carrier)
        text = two.raises("PermissionError", how, **values)
        assert str(path) in text and "Permission denied" in text
    how, values = sent(one, "token", "a.toreadonly()")
    two.run(how, **values)
    assert two("b.readonly")


# ---- read-only, private -----------------------------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_write_to_what_came_read_only_faults(mode: str, path: Path) -> None:
    with Group(quiet=False) as group:
        one, two = group.one(), group.one()
        mapped(one, path, mode)
        how, values = sent(one, "pickle", "a.toreadonly()")
        two.run(how, **values)
        two.run("import ctypes; memory = (ctypes.c_char * 3).from_address(b.address)")
        assert two("memory[1]") == path.read_bytes()[OFFSET + 1 : OFFSET + 2]
        two.begin("memory[1] = b'x'")
        two.wait(-signal.SIGSEGV)
        assert "Segmentation fault" in group.said()
        one.run("a.release()")
        empty(one)


@pytest.mark.matrix
@pytest.mark.parametrize("carrier", CARRIERS)
def test_copy_on_write_stays_in_its_process(carrier: str, group: Group, path: Path) -> None:
    one, two, three = *group.start(2), group.one()
    mapped(one, path, "c")
    one.run("a[0] = 9")
    how, values = sent(one, carrier)
    for peer in (two, three):
        text = peer.raises("SegmentGoneError", how, **values)
        assert f"private to process {one.pid}" in text and "mode 'c'" in text and "pickle_by_value" in text
    one.run(how, **values)
    assert one("b.segment.id == a.segment.id and b[0]") == 9
    one.run("import pickle\nwith ist.pickle_by_value(): contents = pickle.dumps(a)")
    two.run("import pickle; v = pickle.loads(data)", data=one("contents"))
    assert two("v[0], v.segment.kind") == (9, "heap")
    two.run("v.release()")
    one.run("a.release(); b.release()")
    empty(one, two, three)


# ---- fork --------------------------------------------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("known", [False, True], ids=["unpublished", "published"])
@pytest.mark.parametrize("first", ["parent", "child"])
@pytest.mark.parametrize("mode", ["r", "c", "r+", "w+"])
def test_fork(mode: str, first: str, known: bool, group: Group, path: Path) -> None:
    """The child has its parent's mapping: one file, but a copy of what is private. Either may end first."""
    parent = group.one()
    mapped(parent, path, mode)
    token = parent("a.token()") if known else None
    child = parent.fork()
    assert child("a.tobytes()") == parent("a.tobytes()")
    assert files(child) == files(parent) == [("file", SIZE - OFFSET, 1)]
    if mode != "r":
        parent.run("a[0] = 101")
        child.run("a[1] = 102; a.flush()")
        assert (child("a[0]"), parent("a[1]")) == (101, 102) if mode != "c" else child("a[0]") != 101 and parent("a[1]") != 102
    if token is not None:
        if mode == "c":  # and isn't taken for the parent's
            assert f"private to process {parent.pid}" in child.raises("SegmentGoneError", "ist.attach(token)", token=token)
            assert parent("ist.attach(token)[0]", token=token) == 101
        else:
            assert child("ist.attach(token)[0]", token=token) == parent("a[0]")
    own = child("a.token()")
    assert child("ist.attach(token).segment.id == a.segment.id", token=own)
    if mode != "c":
        assert parent("ist.attach(token)[1] == a[1]", token=own)
    goes, stays = (parent, child) if first == "parent" else (child, parent)
    goes.kill()
    expected = stays("a.tobytes()")
    assert mode == "c" or expected == path.read_bytes()[OFFSET:]
    assert stays("ist.sweep()['processes']") == 1
    stranger = group.one()
    if mode != "c":
        stranger.run("b = ist.attach(token)", token=stays("a.token()"))
        assert stranger("b.tobytes()") == expected
        stranger.run("b.release()")
    stays.run("a.release()")
    empty(stays, stranger)


# ---- tokens from outside ------------------------------------------------------------------------------------------------------


def test_a_path_too_long_for_a_name(group: Group, path: Path, tmp_path: Path) -> None:
    """A token has room for it, a name hasn't."""
    one, two = group.start(2)
    folder = tmp_path
    for _ in range(6):
        folder = folder / ("x" * 250)
        folder.mkdir()
    path.rename(folder / "data")
    mapped(one, folder / "data")
    text = one.raises("ValueError", "a.publish('long')")
    assert "can't be published under a name" in text and "path" in text
    two.run("b = ist.attach(data)", data=one("a.token()"))
    assert two("b.size") == SIZE - OFFSET
    two.raises("SegmentGoneError", "ist.attach('long')")


PART = 56 + 16 + 3  # where a one-dimensional "|u1" token has its file's part: see token.h


@pytest.mark.matrix
def test_tokens_that_are_wrong(group: Group, path: Path, tmp_path: Path) -> None:
    one, two = group.one(), group.one()
    mapped(one, path)
    token = one("a.token()")
    name = os.fsencode(path)
    assert token.endswith(name) and len(token) == PART + 42 + len(name)

    def with_part(device: bytes, inode: bytes, offset: int, size: int, path: bytes, flags: int = 2, length: int | None = None) -> bytes:
        numbers = b"".join(n.to_bytes(8, "little") for n in (offset, size))
        length = len(path) if length is None else length
        return token[:8] + bytes([flags]) + token[9:PART] + device + inode + born + numbers + length.to_bytes(2, "little") + path

    device, inode, born = token[PART : PART + 8], token[PART + 8 : PART + 16], token[PART + 16 : PART + 24]
    good = (OFFSET, SIZE - OFFSET, name)
    assert with_part(device, inode, *good) == token
    refused = {
        "relative": with_part(device, inode, OFFSET, SIZE - OFFSET, name[1:]),
        "no path": with_part(device, inode, OFFSET, SIZE - OFFSET, b""),
        "a zero in it": with_part(device, inode, OFFSET, SIZE - OFFSET, name + b"\0"),
        "too long": with_part(device, inode, OFFSET, SIZE - OFFSET, b"/" * 4096),
        "another length": with_part(device, inode, *good, length=len(name) + 1),
        "file and private": with_part(device, inode, *good, flags=6),
        "a part without the flag": with_part(device, inode, *good, flags=0),
        "an unknown flag": with_part(device, inode, *good, flags=10),
        "cut": token[: PART + 41],
        "without": token[:PART],
        "shorter than the array": with_part(device, inode, OFFSET, SIZE - OFFSET - 1, name),
    }
    for what, wrong in refused.items():
        assert "not an array token" in two.raises("ValueError", "ist.attach(token)", token=wrong), what
    gone = {
        "device": with_part(bytes(8), inode, *good),
        "inode": with_part(device, bytes(8), *good),
        "beyond the end": with_part(device, inode, OFFSET + 1, SIZE - OFFSET, name),
        "far beyond": with_part(device, inode, 2**64 - 1, SIZE - OFFSET, name),
        "of no bytes": with_part(device, inode, OFFSET, 0, name),
        "huge": with_part(device, inode, OFFSET, 2**64 - 1, name),
        "a device's file": with_part(device, inode, OFFSET, SIZE - OFFSET, b"/dev/zero"),
        "nothing": with_part(device, inode, OFFSET, SIZE - OFFSET, b"/none" * 9),
    }
    for what, wrong in gone.items():
        two.raises("SegmentGoneError", "ist.attach(token)", token=wrong)
        assert two("ist.segments()") == [], what
    two.raises("OSError", "ist.attach(token)", token=with_part(device, inode, OFFSET, SIZE - OFFSET, b"/" + b"n" * 300))
    generator = random.Random(3)
    for _ in range(2000):
        wrong = bytearray(token)
        for _ in range(generator.randint(1, 3)):
            wrong[generator.randrange(PART, len(token))] = generator.randrange(256)
        two.run("try: ist.attach(token)[0]\nexcept (ValueError, LookupError, OSError): pass", token=bytes(wrong))
    if any(born):
        younger = token[: PART + 16] + bytes([born[0] ^ 1]) + token[PART + 17 :]
        assert "was replaced" in two.raises("SegmentGoneError", "ist.attach(token)", token=younger)
    two.run("b = ist.attach(token).copy()", token=token[: PART + 16] + bytes(8) + token[PART + 24 :])  # not known when
    two.run("assert b.tobytes() == ist.attach(token).tobytes(); b = ist.attach(token)", token=token)
    assert two("b.tobytes()") == path.read_bytes()[OFFSET:] and len(files(two)) == 1


# ---- surroundings ----------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(SANITIZED, reason="AddressSanitizer's leak check reads /proc")
def test_without_proc(group: Group, path: Path) -> None:
    """Where the kernel doesn't tell a file's name the array stays in its process."""
    one = group.one(prefix=mounts("mount -t tmpfs none /proc"))
    two = group.one()
    mapped(one, path)
    assert one("ist.attach(a.token())[0]") == path.read_bytes()[OFFSET]
    text = two.raises("SegmentGoneError", "ist.attach(token)", token=one("a.token()"))
    assert "can't be reached from here" in text
    mapped(two, path)
    one.run("b = ist.attach(token); b[5] = 6", token=two("a.token()"))
    assert two("a[5]") == 6
    one.run("del a, b")
    two.run("del a")
    empty(one, two)


def test_flat_descriptors_and_mappings(group: Group, path: Path) -> None:
    one, two = group.start(2)
    mapped(one, path)
    two.run("from processes import descriptors, private_memory; import pickle")
    seen = []
    for _ in range(3):
        two.run(
            "for data in pickles: assert pickle.loads(data)[0] == first",
            pickles=[one("__import__('pickle').dumps(a)") for _ in range(30)],
            first=path.read_bytes()[OFFSET],
        )
        seen.append(two("len(descriptors()), len(private_memory(file))", file=str(path)))
    assert seen == [(seen[0][0], 0)] * 3
    poll(lambda: one("a.owners") == 1, "the leases end")
    one.run("a.release()")
    empty(one, two)


def test_a_lease_of_a_file_is_none_of_the_heap(group: Group, path: Path) -> None:
    """It may be larger than what leases may keep of the heap."""
    one, two = group.one(ISTHMUS_HEAP_SIZE="4M"), group.one()
    os.truncate(path, 40 << 20)
    one.run("import pickle; small = ist.zeros(1); a = ist.memmap(file, mode='r+'); data = pickle.dumps(a)", file=str(path))
    one.run("del a; more = pickle.dumps(small)")
    assert one("[s.kind for s in ist.segments()].count('file'), ist.stats()['leases_expired']") == (1, 0)
    two.run("import pickle; b = pickle.loads(data)", data=one("data"))
    one.run("poll(lambda: ist.sweep() and [s.kind for s in ist.segments()].count('file') == 0, 'it is let go')")
