"""isthmus.memmap in one process: modes, lengths, offsets, errors, ends, threads, interpreters. Others: test_memmap_processes.py."""

import gc
import io
import operator
import os
import random
import tempfile
import threading
from pathlib import Path

import isthmus as ist
import pytest
from carriers import Channel, Interpreter, run_script

pytestmark = pytest.mark.matrix

PAGE = os.sysconf("SC_PAGE_SIZE")
SIZE = 3 * PAGE + 123
MODES = {"r": "readonly", "c": "copyonwrite", "r+": "readwrite", "w+": "write"}


def content(size: int = SIZE, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(content())
    return path


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_descriptor_stays(tmp_path):
    ist.zeros(1)  # what the process opens once
    before = open_descriptors()
    yield
    assert open_descriptors() == before
    assert ist.stats()["leases"] == 0
    for name in tmp_path.iterdir():  # nothing but what the test made
        assert name.name in ("data", "more", "folder", "link", "ä ö"), name


# ---- modes ------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_read_only_bytes(path):
    a = ist.memmap(path)
    assert (a.dtype, a.shape, a.readonly, a.frozen) == ("u1", (SIZE,), True, False)
    assert a.tobytes() == path.read_bytes()
    assert (a.segment.kind, a.segment.size, a.segment.readonly, a.owners) == ("file", SIZE, True, 1)
    assert [s.kind for s in ist.segments()] == ["file"]
    with pytest.raises(ValueError, match="read-only"):
        a[0] = 1
    assert memoryview(a).readonly


@pytest.mark.parametrize("mode", ["r+", "readwrite"])
def test_writes_reach_the_file(path, mode):
    a = ist.memmap(path, mode=mode)
    assert not a.readonly and not a.segment.readonly
    a[PAGE - 1 : PAGE + 1] = ist.array([1, 2], "u1")
    assert path.read_bytes()[PAGE - 1 : PAGE + 1] == b"\1\2"  # at once: flush is for the disk
    with open(path, "r+b") as file:
        file.seek(7)
        file.write(b"\xee")
    assert a[7] == 0xEE and a.size == SIZE


@pytest.mark.parametrize("mode", ["c", "copyonwrite"])
def test_copy_on_write_stays_here(path, mode):
    a, b = ist.memmap(path, mode=mode), ist.memmap(path, mode=mode)
    assert not a.readonly
    a.fill(7)
    a.flush()
    assert a.min() == a.max() == 7
    assert path.read_bytes() == b.tobytes() == content()
    path.chmod(0o444)
    assert ist.memmap(path, mode=mode).tobytes() == content()


@pytest.mark.parametrize("mode", ["w+", "write"])
@pytest.mark.parametrize("before", [None, b"", b"x" * 10, b"x" * 3 * PAGE])
def test_a_new_file_is_zeros_of_that_length(tmp_path, mode, before):
    path = tmp_path / "data"
    if before is not None:
        path.write_bytes(before)
    a = ist.memmap(path, "i4", mode, offset=6, shape=(5, 101))
    assert path.read_bytes() == bytes(6 + 4 * 505)
    assert (a.shape, a.dtype, a.any(), a.readonly) == ((5, 101), "i4", False, False)
    a[4, 100] = -1
    assert path.read_bytes() == bytes(2 + 4 * 505) + b"\xff" * 4
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask() or before is not None


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_new_file_over_one_that_is_mapped(path):
    """As long as it gets no shorter, an older mapping of the same file goes on: the file is never cut in between."""
    old, stop, seen = ist.memmap(path), threading.Event(), []

    def look():
        while not stop.is_set():
            seen.append(old.max())  # a fault would end the process

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            new = ist.memmap(path, mode="w+", shape=SIZE)
            assert not new.any()
            new[:] = 3
    finally:
        stop.set()
        thread.join()
    assert old.min() == old.max() == 3 and set(seen) <= {0, 3, max(content())}


def test_what_is_mapped_is_not_cut(path):
    """Not by this process: the next access would end it."""
    a, b = ist.memmap(path, shape=SIZE), ist.memmap(path, offset=PAGE, shape=100, mode="c")
    for size in [1, PAGE, SIZE - 1]:
        with pytest.raises(BufferError, match=rf"cut '.*data' to {size} bytes, and this process has it mapped up to byte {SIZE}$"):
            ist.memmap(path, mode="w+", shape=size)
    assert a.tobytes() == content()
    with Interpreter() as other:  # counts as well
        other.run(f"import isthmus as ist; c = ist.memmap({str(path)!r}, offset=5, shape=PAGE)".replace("PAGE", str(2 * PAGE)))
        a.release()
        with pytest.raises(BufferError, match=f"to {PAGE} bytes, .* up to byte {2 * PAGE + 5}$"):
            ist.memmap(path, mode="w+", shape=PAGE)
        other.run("c.release()")
    with pytest.raises(BufferError, match=f"up to byte {PAGE + 100}$"):
        ist.memmap(path, mode="w+", shape=PAGE + 99)
    assert path.read_bytes() == content()
    new = ist.memmap(path, mode="w+", shape=PAGE + 100)
    assert path.stat().st_size == PAGE + 100 and not new.any() and not b.any()
    b.release()
    new.release()
    assert ist.memmap(path, mode="w+", shape=1).size == path.stat().st_size == 1


def test_a_file_that_is_too_short_gets_longer(path):
    a = ist.memmap(path, "u1", "r+", offset=100, shape=2 * SIZE)
    assert path.stat().st_size == 100 + 2 * SIZE
    assert path.read_bytes() == content() + bytes(SIZE + 100)
    a[-1] = 9
    assert path.read_bytes()[-1] == 9
    ist.memmap(path, "u1", "r+", shape=10)
    assert path.stat().st_size == 100 + 2 * SIZE  # never shorter
    empty = path.with_name("more")
    empty.touch()
    assert ist.memmap(empty, "f8", "r+", shape=3).tolist() == [0, 0, 0] and empty.stat().st_size == 24


@pytest.mark.parametrize("mode", ["r", "c"])
def test_only_writers_make_it_longer(path, mode):
    with pytest.raises(ValueError, match=rf"{SIZE} bytes: too few for {SIZE} at offset 1"):
        ist.memmap(path, mode=mode, offset=1, shape=SIZE)
    assert path.stat().st_size == SIZE


# ---- offsets, shapes, dtypes ---------------------------------------------------------------------------------------------


def test_any_offset_and_length(path):
    for offset in [0, 1, 7, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 13, SIZE - 1]:
        for length in [1, 2, PAGE, SIZE - offset]:
            if offset + length <= SIZE:
                for mode in "r", "c", "r+":
                    a = ist.memmap(path, mode=mode, offset=offset, shape=length)
                    assert a.tobytes() == content()[offset : offset + length] and a.segment.size == length
        assert ist.memmap(path, offset=offset).tobytes() == content()[offset:]


STRUCT = [("name", "S5"), ("at", "<i4"), ("xy", ">f4", 2), ("when", "M8[ms]")]


@pytest.mark.parametrize("dtype", ["?", "u1", "<i2", ">i4", "f8", "c16", "S3", "U2", "V7", "M8[s]", "m8[ns]", "f2", "g", STRUCT, "(2,3)f4"])
@pytest.mark.parametrize("shape", [None, 5, (5,), [5], (2, 3), (), (1, 1, 2)])
@pytest.mark.parametrize("offset", [0, 3])
def test_like_numpy(path, dtype, shape, offset):
    np = pytest.importorskip("numpy")
    itemsize = np.dtype(dtype).itemsize
    path.write_bytes(content(offset + 6 * itemsize))
    a = ist.memmap(path, dtype, "r", offset, shape)
    if dtype == "(2,3)f4" and shape is None:  # numpy.memmap gets this one wrong
        expected = np.ndarray((6, 2, 3), "f4", path.read_bytes(), offset)
    else:
        expected = np.memmap(path, dtype, "r", offset, tuple(shape) if isinstance(shape, list) else shape)
    assert (a.shape, a.strides, a.dtype.str) == (expected.shape, expected.strides, expected.dtype.str)
    assert a.tobytes() == expected.tobytes() and a.dtype == expected.dtype
    assert a.segment.size == expected.nbytes


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_numpy_over_it(path, mode):
    np = pytest.importorskip("numpy")
    a = ist.memmap(path, "<u2", mode, shape=1000, offset=5)
    x = np.asarray(a)
    assert x.flags.writeable == (mode != "r") and (x == np.frombuffer(content(), "<u2", 1000, 5)).all()
    assert ist.asarray(x[3:], copy=False).segment.id == a.segment.id
    a.release()
    if mode != "r":
        x[::2] = 1
        assert (path.read_bytes()[5:7] == b"\1\0") == (mode == "r+")
    del x


def test_what_was_written_is_read_back(path):
    a = ist.memmap(path, STRUCT, "w+", offset=1, shape=2)
    a[1] = ("fives", -2, (1.5, 2), "2026-11-28T10:30")
    a["xy"][:, 1] = 7
    a.release()
    b = ist.memmap(path, STRUCT, offset=1)
    assert b.shape == (2,) and b["name"].tolist() == [b"", b"fives"] and b["xy"].tolist() == [[0, 7], [1.5, 7]] and b[1][1] == -2


# ---- what names a file -----------------------------------------------------------------------------------------------------


def test_names(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("data")
    more = tmp_path / "ä ö"
    more.write_bytes(content())
    for name in [path, str(path), os.fsencode(path), "data", b"data", "link", more]:
        assert ist.memmap(name).tobytes() == content()


def test_file_objects(path):
    with open(path, "rb") as file:
        a = ist.memmap(file, offset=3)
        with pytest.raises(PermissionError):  # it can't be written through this one
            ist.memmap(file, mode="r+")
        file.read(1)  # still open, still where it was
        assert file.tell() == 1
    assert a.tobytes() == content()[3:]
    with open(path, "r+b") as file:
        file.write(b"abc")  # in Python's buffer
        b = ist.memmap(file, mode="r+", shape=SIZE + 5)
        assert bytes(b[:3]) == b"abc"
        b[0] = ord("x")
        c = ist.memmap(file, mode="w+", shape=3)  # as numpy's: a file object's file is never cut
    assert path.read_bytes() == b"xbc" + content()[3:] + bytes(5) and bytes(c) == b"xbc"
    with tempfile.TemporaryFile() as file:  # without a name
        d = ist.memmap(file, "i4", "w+", shape=10)
        d[9] = 1
    assert d.sum() == 1
    with os.fdopen(os.memfd_create("memory"), "r+b") as file:
        assert ist.memmap(file, mode="r+", shape=10).sum() == 0


# ---- errors ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"mode": "rw"}, ValueError, "not 'rw'"),
        ({"mode": "R"}, ValueError, "not 'R'"),
        ({"mode": b"r"}, ValueError, "not b'r'"),
        ({"mode": None}, ValueError, "not None"),
        ({"offset": -1}, ValueError, "not -1"),
        ({"offset": 2**70}, ValueError, f"not {2**70}"),
        ({"offset": 1.5}, TypeError, "float"),
        ({"offset": SIZE}, ValueError, f"{SIZE} bytes, and offset is {SIZE}"),
        ({"offset": 2**62, "mode": "r+"}, ValueError, f"offset is {2**62}"),
        ({"offset": 2**62, "shape": 1}, ValueError, f"offset {2**62}"),
        ({"dtype": "f8", "offset": 1}, ValueError, f"{SIZE - 1} bytes .* from offset 1 .* 8 bytes"),
        ({"dtype": "nonsense"}, TypeError, "nonsense"),
        ({"dtype": "(0,3)f4"}, ValueError, "0 bytes .*shape None of '\\(0,3\\)f4'"),
        ({"dtype": []}, ValueError, "at least one byte"),
        ({"shape": 0}, ValueError, "0 bytes .*shape 0"),
        ({"shape": (3, 0), "mode": "r+"}, ValueError, "0 bytes .*shape \\(3, 0\\)"),
        ({"shape": -1}, ValueError, "-1"),
        ({"shape": "12"}, TypeError, "12"),
        ({"shape": (2**40, 2**40)}, ValueError, "too big"),
        ({"shape": 2**62, "offset": 2**62 + 2**61 + 2**60, "mode": "r+"}, ValueError, "offset"),
        ({"shape": SIZE + 1}, ValueError, f"{SIZE} bytes: too few"),
        ({"mode": "w+"}, ValueError, "shape must be given"),
        ({"order": "C"}, TypeError, "order"),
    ],
)
def test_arguments_that_make_no_sense(path, arguments, error, text):
    with pytest.raises(error, match=text):
        ist.memmap(path, **arguments)
    assert path.read_bytes() == content()
    assert ist.segments() == []


@pytest.mark.parametrize("arguments", [{}, {"shape": 0}, {"shape": 3, "dtype": "x"}, {"shape": (3, 2**63)}, {"shape": 3, "offset": -1}])
def test_a_file_is_not_touched_before_the_arguments_are_right(path, arguments):
    new = path.with_name("more")
    for name in path, new:
        with pytest.raises((ValueError, TypeError)):
            ist.memmap(name, mode="w+", **arguments)
    assert path.read_bytes() == content() and not new.exists()


def test_files_that_cannot_be_had(path, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for mode in MODES:
        with pytest.raises(IsADirectoryError) as error:
            ist.memmap(folder, mode=mode, shape=3)
        assert error.value.filename == str(folder)
        with pytest.raises(NotADirectoryError) as error:
            ist.memmap(path / "below", mode=mode, shape=3)
        assert error.value.filename == str(path / "below")
        with pytest.raises(FileNotFoundError) as error:
            ist.memmap(folder / "none" / "file", mode=mode, shape=3)
        assert error.value.filename == str(folder / "none" / "file")
        if mode != "w+":
            with pytest.raises(FileNotFoundError):
                ist.memmap(tmp_path / "none", mode=mode, shape=3)
    os.mkfifo(folder / "pipe")
    for name in [folder / "pipe", "/dev/null"]:
        for mode in MODES:
            with pytest.raises(ValueError, match="only ordinary files"):  # and it doesn't wait for a writer
                ist.memmap(name, mode=mode, shape=3)
    for name in [None, 3, 1.5, [path], io]:
        with pytest.raises(TypeError, match="a path or an object with fileno"):
            ist.memmap(name)
    with pytest.raises(ValueError, match="null"):
        ist.memmap("a\0b")
    with pytest.raises(io.UnsupportedOperation):
        ist.memmap(io.BytesIO(bytes(3)))
    with open(path, "rb") as file:
        pass
    with pytest.raises(ValueError, match="closed"):
        ist.memmap(file)
    with pytest.raises(TypeError, match="missing"):
        ist.memmap()


def test_an_empty_file(tmp_path):
    path = tmp_path / "data"
    path.touch()
    with pytest.raises(ValueError, match=r"nothing to map: .*data' has 0 bytes, and offset is 0"):
        ist.memmap(path)


def test_a_file_larger_than_the_limit(path):
    run_script(
        f"""
        import isthmus as ist, os, resource
        path = {str(path)!r}
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        for mode in "r+", "w+":
            try:
                ist.memmap(path, "u1", mode, shape=200_000)
            except OSError as error:
                assert error.filename == path and error.errno == 27, error
            else:
                raise AssertionError
        assert ist.segments() == [] and ist.memmap(path, "u1", "w+", shape=50_000).sum() == 0
        """
    )


def test_no_address_space(path):
    with open(path, "r+b") as file:
        os.truncate(file.fileno(), 1 << 40)
    if path.stat().st_blocks > 1000:
        pytest.skip("the file system has no holes")
    held = []
    with pytest.raises(MemoryError, match="data"):
        for _ in range(1000):
            held.append(ist.memmap(path, mode="r+"))
    assert len(held) > 10
    held.clear()
    path.write_bytes(b"")


# ---- flush -------------------------------------------------------------------------------------------------------------------


def test_flush(path):
    a = ist.memmap(path, "<i4", "r+", offset=3, shape=(10, 300))
    parts = [a, a[2:5], a[::-1, ::-7], a.T, a[3, 4:5], a[0:0], a.toreadonly(), a[7], a.reshape(3000)[2999:]]
    for number, part in enumerate(parts):
        a[7, 299] = number
        assert part.flush() is None
        assert path.read_bytes()[3:12003] == a.tobytes()
    a.release()
    parts[1].flush()
    with pytest.raises(ist.DetachedError):
        a.flush()


def test_nothing_to_flush(path):
    for a in [ist.zeros(3), ist.zeros(0), ist.memmap(path), ist.memmap(path, mode="c"), ist.memmap(path).toreadonly()[3:]]:
        assert a.flush() is None
    with pytest.raises(TypeError):
        ist.zeros(3).flush(1)


# ---- ends ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(MODES))
def test_the_file_may_be_deleted(path, mode):
    a = ist.memmap(path, mode=mode, shape=SIZE)
    before = a.tobytes()
    path.unlink()
    assert a.tobytes() == before
    if mode != "r":
        a[0] = before[0] ^ 1
        a.flush()
        assert ist.attach(a.token())[0] == before[0] ^ 1
    path.write_bytes(b"another")
    assert a.size == SIZE


def test_handles_let_go_in_any_order(path):
    np = pytest.importorskip("numpy")
    for seed in range(30):
        a = ist.memmap(path, mode="r+")
        users = [a, a[3:], memoryview(a), np.asarray(a)[::2], ist.attach(a.token()), a.toreadonly()[5:], memoryview(a[1:]), a[::-1]]
        random.Random(seed).shuffle(users)
        del a
        while users:
            assert len(ist.segments()) == 1
            assert bytes(users[-1][:1])
            user = users.pop()
            if isinstance(user, ist.SharedArray | memoryview):
                user.release()
            del user
        gc.collect()
        assert ist.segments() == []


def test_each_memmap_is_a_segment_of_its_own(path):
    a, b = ist.memmap(path, mode="r+"), ist.memmap(path, mode="r+")
    a[0] = b[0] ^ 0xFF
    assert a[0] == b[0] and a.segment.id != b.segment.id
    a.release()
    assert b.tobytes()[1:] == content()[1:]


def test_freeze_and_the_way_back(path):
    a = ist.memmap(path, mode="r+")
    other = ist.attach(a.token())
    with pytest.raises(BufferError, match="1 other owner"):
        a.freeze()
    other.release()
    assert a.freeze() is a and a.frozen and a.readonly
    hash(a)
    token = a.token()
    assert ist.attach(token).frozen
    assert a.make_writable() is a
    with pytest.raises(ist.SegmentGoneError):  # void, in the process that made it
        ist.attach(token)
    a[0] = 1
    assert path.read_bytes()[0] == 1
    r = ist.memmap(path)
    assert r.freeze().frozen
    copy = r.make_writable()
    assert copy is not r and copy.segment.kind == "heap" and copy.tobytes() == r.tobytes()


def test_a_token_leads_to_the_same_segment(path):
    for mode in MODES:
        a = ist.memmap(path, mode=mode, shape=SIZE)
        b = ist.attach(a[10:20].token())
        assert (b.segment.id, b.tobytes(), b.readonly, a.owners) == (a.segment.id, a.tobytes()[10:20], mode == "r", 2)
        token = a.token()
        a.publish(f"memmap {os.getpid()}")
        assert ist.attach(f"memmap {os.getpid()}").segment.id == a.segment.id
        a.release()
        assert ist.attach(token).segment.id == b.segment.id
        b.release()
        with pytest.raises(ist.SegmentGoneError, match="is gone: its last owner has let go"):
            ist.attach(token)


# ---- threads, interpreters ------------------------------------------------------------------------------------------------------


def test_threads(path):
    """They map, write, flush, share and let go at once."""
    count, failed = 8, []
    with open(path, "wb") as file:
        file.truncate(count * 1000)

    def work(i: int) -> None:
        try:
            for k in range(100):
                a = ist.memmap(path, "u1", "r+", offset=1000 * i, shape=1000)
                a[:] = (i + k) % 256
                b = ist.attach(a.token())
                a.release()
                b[::17].flush()
                assert b.min() == b.max() == (i + k) % 256
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert path.read_bytes() == b"".join(bytes([i + 99]) * 1000 for i in range(count))


def test_growing_at_once(path):
    """Nobody makes it shorter than another has made it."""
    sizes = [SIZE + 5000 * i for i in range(1, 9)]
    barrier, failed = threading.Barrier(len(sizes)), []

    def work(size: int) -> None:
        try:
            barrier.wait(60)
            a = ist.memmap(path, mode="r+", shape=size)
            a[-1] = 1  # a fault, if it isn't there
        except BaseException as error:
            failed.append(error)

    for _ in range(20):
        path.write_bytes(content())
        threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert path.stat().st_size == sizes[-1] and all(path.read_bytes()[size - 1] == 1 for size in sizes)


@pytest.mark.parametrize("mode", list(MODES))
def test_other_interpreters(path, mode):
    """By a channel and by a token: the same segment, of whatever mode, and the other interpreter may keep it."""
    a = ist.memmap(path, mode=mode, shape=SIZE, offset=0)
    index, expected = a.segment.id, a.tobytes()
    with Channel() as channel, Interpreter() as other:
        channel.put(a[3:])
        other.run(
            f"{channel.there}\nimport isthmus as ist; b = get(); c = ist.attach({a.token()!r})\n"
            f"assert b.segment.id == c.segment.id == {index} and b.segment.kind == 'file' and b.readonly == {mode == 'r'}\n"
            f"if not b.readonly: b[0] = {expected[3] ^ 1}; c.flush()"
        )
        if mode != "r":
            assert a[3] == expected[3] ^ 1
        assert (path.read_bytes()[3] == expected[3] ^ 1) == (mode in ("r+", "w+"))
        a.release()
        other.run(f"assert c[4] == {expected[4]}; c.release(); put(b); b.release()")
        back = channel.get()
        assert back.segment.id == index and back[1] == expected[4]
        other.run(f"d = ist.memmap({str(path)!r}); assert d.segment.created_by != {back.segment.created_by}; put(d)")
        del back
    assert ist.segments() == []  # the message was dropped with its channel


def test_workers(path):
    a = ist.memmap(path, "i4", "w+", shape=8)
    for kind in "interpreter", "thread":
        with ist.WorkerPool(2, kind=kind) as pool:
            list(pool.map(operator.setitem, [a] * 8, range(8), range(8)))
        assert ist.array(ist.memmap(path, "i4")).tolist() == list(range(8))
        a.fill(0)
