"""Programs that fail with other libraries, as their users reported them, written anew with isthmus. Each test names the reports."""

import gc
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import isthmus as ist
import pytest
from processes import Group, empty, heap_pages, mounts, poll


@pytest.fixture
def group() -> Iterator[Group]:
    with Group() as group:
        yield group


# ---- an end that takes what is alive -----------------------------------------------------------------------------------


@pytest.mark.matrix
def test_a_process_that_only_attached_ends(group: Group) -> None:
    """cpython#82300, #84140, #116849: the resource tracker of a process that merely opened a block unlinks it at its exit, for all."""
    maker = group.one()
    name = f"psm {maker.pid}"
    maker.run("shm = ist.array([1, 2, 3, 4], 'u1'); shm.publish(name)", name=name)
    for i in range(3):
        reader = group.one()
        reader.run("shm = ist.attach(name); assert shm.tolist() == [1, 2, 3, 4]", name=name)
        reader.end(("return", "_exit", "kill")[i])
        maker.run("import gc; gc.collect(); ist.sweep(); assert ist.attach(name).tolist() == shm.tolist() == [1, 2, 3, 4]", name=name)
    late = group.one()
    late.run("shm = ist.attach(name)", name=name)
    maker.end()  # and the maker's end isn't everybody's
    later = group.one()
    later.run("shm = ist.attach(name)", name=name)
    assert later("shm.tolist()") == late("shm.tolist()") == [1, 2, 3, 4]


# ---- arrays that outlive their segment's handle ------------------------------------------------------------------------


def numpy() -> Any:
    return pytest.importorskip("numpy", reason="numpy isn't installed")


def test_an_ndarray_returned_from_a_function(group: Group) -> None:
    """numpy#18294: the function's SharedMemory goes with the function, its ndarray is returned: the next access crashes."""
    np = numpy()

    def np_array_from(token: bytes, shape: tuple[int, ...] = (2,)) -> Any:
        shm = ist.attach(token)
        array = np.ndarray(shape, buffer=shm, dtype=np.int32)
        array[:] = (0, 0)
        return array

    other = group.one()
    token = other("(shm := ist.zeros(8, 'u1')).token()")
    array = np_array_from(token)
    other.run("shm.release()")
    gc.collect()
    array[:] = (5, 6)
    assert array.tolist() == [5, 6] and ist.attach(token).tolist() == [5, 0, 0, 0, 6, 0, 0, 0]


def test_the_variable_that_held_the_block_gets_the_array() -> None:
    """numpy#22190: `shm = np.ndarray(..., buffer=shm.buf)` drops the block under the array."""
    np = numpy()
    shm: Any = ist.zeros(8, "u1")
    shm = np.ndarray((1,), dtype=np.int64, buffer=shm.data)
    gc.collect()
    shm[0] = 2**40
    assert shm.tolist() == [2**40] and len(ist.segments()) >= 1


def test_a_class_that_remembers_only_the_name() -> None:
    """numpy#23305, cpython#102349: set_ndarray's block ends with the method; get_ndarray gives an array into memory that is gone."""
    np = numpy()

    class Block:
        def __init__(self, nbytes: int, shape: tuple[int, ...], dtype: Any) -> None:
            self.nbytes, self.shape, self.dtype = nbytes, shape, dtype

        def set_ndarray(self, arr: Any) -> None:
            shm = ist.buffer(self.nbytes)
            np.ndarray(self.shape, dtype=self.dtype, buffer=shm)[:] = arr[:]
            self.token, self.shm = shm.token(), shm

        def get_ndarray(self) -> Any:
            shm = ist.attach(self.token)
            return np.ndarray(self.shape, dtype=self.dtype, buffer=shm)

    arr = np.arange(100.0).reshape(1, 100)
    block = Block(arr.nbytes, arr.shape, arr.dtype)
    block.set_ndarray(arr)
    on_shm = block.get_ndarray()
    del block
    gc.collect()
    assert (on_shm == arr).all() and ist.segments()


def test_leaving_a_context_with_an_array_inside() -> None:
    """numpy#21640, cpython#115635: `BufferError: cannot close exported pointers exist` when the with block, or close(), is left."""
    np = numpy()

    @contextmanager
    def my_data() -> Iterator[Any]:
        with ist.array(list(range(10)), "i4") as shared:
            yield np.frombuffer(shared, dtype=np.int32, count=10, offset=0)

    with my_data() as d:
        assert d.tolist() == list(range(10))
    assert d.tolist() == list(range(10)) and ist.segments()  # the array keeps the block alive
    shared = ist.zeros(10)
    first, last = memoryview(shared)[1:3], np.asarray(shared)[-1:]
    shared.release()  # always works, in any order
    shared.release()
    last[0] = 7
    first.release()
    assert last.tolist() == [7]


# ---- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_attachers_see_the_size_asked_for(group: Group) -> None:
    """cpython#145954, #101623: who attaches to a block of 8 bytes sees 4,096, and may write behind the end; 80,000 become 81,920."""
    maker, other = group.one(), group.one()
    for size in (0, 1, 8, 4095, 4096, 4097, 80000):
        token = maker("(block := ist.buffer(size)).token()", size=size)
        other.run("block = ist.attach(token)", token=token)
        assert other("block.nbytes, len(memoryview(block)), block.segment.size, len(block.tobytes())") == (size,) * 4
        assert "out of bounds" in other.raises("IndexError", "block[size] = 3", size=size)
        assert other.raises("IndexError", "memoryview(block)[size] = 3", size=size)


# ---- /dev/shm and descriptors ------------------------------------------------------------------------------------------

LOADER = """
    import multiprocessing, os, resource, sys
    import isthmus as ist

    def worker(indices, out, size):
        for i in indices:
            out.put({"index": i, "data": ist.full((size,), i % 251, "u1")})
        out.put(None)

    if __name__ == "__main__":
        workers, samples, size, files = map(int, sys.argv[1:])
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        out = multiprocessing.SimpleQueue()
        processes = [multiprocessing.Process(target=worker, args=(range(w, samples, workers), out, size)) for w in range(workers)]
        for p in processes:
            p.start()
        kept, ended = [], 0
        while ended < workers:
            sample = out.get()
            if sample is None:
                ended += 1
            else:
                kept.append(sample)  # which is what breaks there
        for p in processes:
            p.join()
        assert sorted(s["index"] for s in kept) == list(range(samples)) and all(p.exitcode == 0 for p in processes)
        assert all(s["data"].min() == s["data"].max() == s["index"] % 251 for s in kept)
        print(len(kept), len(os.listdir("/proc/self/fd")), os.listdir("/dev/shm"))
"""


@pytest.mark.matrix
def test_a_data_loader_that_keeps_its_samples(group: Group) -> None:
    """pytorch#973, #11201, #41465: one descriptor per tensor: "received 0 items of ancdata". Here 5,000 under a limit of 40."""
    samples, descriptors, _ = group.script(LOADER, "2", "5000", "100", "40").split(maxsplit=2)
    assert samples == "5000" and int(descriptors) < 20


@pytest.mark.matrix
def test_a_data_loader_in_a_container(group: Group) -> None:
    """ray#14182, #16540, pytorch#26009: SIGBUS when /dev/shm (64 KiB here, 64 MB in Docker) is full. Here it isn't used."""
    out = group.script(LOADER, "2", "40", "4000000", "64", prefix=mounts("mount -t tmpfs -o size=64k none /dev/shm"))
    assert out.startswith("40 ") and out.strip().endswith("[]")


# ---- kill -9 -----------------------------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_a_killed_publisher_starts_again(group: Group) -> None:
    """iceoryx2#601, #1584: after kill -9 of a publisher files remain; the restarted one, or one with another type, fails."""
    subscriber = group.one()
    name = f"My/Funk/ServiceName {subscriber.pid}"
    for i, (dtype, how) in enumerate([("i4", "a child"), ("f8", "a stranger"), ("i4", "a stranger"), ("u1", "a child")]):
        publisher = group.one(domain=subscriber) if how == "a child" else group.one()
        publisher.run("event = ist.full(5, i, dtype); event.publish(name)", i=i, dtype=dtype, name=name)
        subscriber.run("got = ist.attach(name)", name=name)
        assert subscriber("got.tolist(), got.dtype.str[1:]") == ([i] * 5, dtype)
        subscriber.run("del got")
        publisher.kill()
    poll(lambda: subscriber("ist.sweep() and ist.stats()['processes'] == 1 or ist.stats()"), "the dead are struck out")
    subscriber.raises("SegmentGoneError", "ist.attach(name)", name=name)


@pytest.mark.matrix
def test_a_crowd_is_killed_at_once(group: Group) -> None:
    """UltraDict#16: blocks remain when all processes are killed. Here the kernel takes all, also from the middle of writing."""
    crowd = group.start(4)
    for i, peer in enumerate(crowd):
        peer.begin(
            """
            n = 0
            while True:
                n += 1
                a = ist.full(1 + n * 977 % 100000, i, "u1")
                a.publish(f"crowd {os.getpid()} {n % 50}") if n % 3 else a.token()
            """,
            i=i,
        )
    poll(lambda: all(heap_pages(p.pid) > 0 for p in crowd), "all are at work")
    for peer in crowd:
        peer.signal(signal.SIGKILL)
    for peer in crowd:
        peer.wait(-signal.SIGKILL)
    late = group.one()
    for peer in crowd:
        late.raises("SegmentGoneError", "ist.attach(name)", name=f"crowd {peer.pid} 1")


@pytest.mark.matrix
def test_newcomers_sweep_while_others_live(group: Group) -> None:
    """iceoryx2#1578 and its PR: a cleaner takes a living, starting or stopped process for a dead one and removes what it uses."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    old = group.one()
    old.run("kept = [ist.full(n, 5, 'u1') for n in (1, 3000, 500000)]; tokens = [k.token() for k in kept]")
    tokens, holders = old("tokens"), [old]
    for _ in range(12):
        new = group.one(domain=dice.choice([h for h in holders if h is not None]))
        new.run(
            "ist.sweep(); kept = [ist.attach(t) for t in tokens]; mine = ist.full(3000, 6, 'u1'); mine.token(); ist.sweep()", tokens=tokens
        )
        if len(holders) > 2:
            dice.choice(holders).stop()
            new.run("ist.sweep()")
            for h in holders:
                h.go_on()
        if len(holders) > 3:
            holders.pop(dice.randrange(1, len(holders))).kill()
        holders.append(new)
        for h in holders:
            assert h("[(k.min(), k.max()) for k in kept]") == [(5, 5)] * 3
            assert h is old or h("mine.min() == mine.max() == 6")
    assert old("ist.sweep() and kept[0].segment.processes") == len(holders)


def test_dies_between_making_and_handing_over(group: Group) -> None:
    """v6d#2072, ray#64627: a client makes a block of 400 MiB and dies before it seals it: lost for ever. Ten of them filled the daemon."""
    keeper = group.one()
    keeper.run("a = ist.zeros(1); a.token()")
    for i in range(10):
        client = group.one(domain=keeper)
        client.run("made = ist.zeros(400 << 20, 'u1'); made[:: 4 << 20] = 1")
        if i % 2:
            client.run("made.token()")  # published, but nobody took it
        client.kill()
        if i in (4, 9):
            poll(lambda: heap_pages(keeper.pid) < 1 << 20, "it comes back by itself")
    assert keeper("ist.sweep() and ist.stats()['processes']") == 1
    keeper.run("del a")
    empty(keeper)
