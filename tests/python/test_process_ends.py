"""Ends of processes: in every order, by every way, stopped instead of ended; what comes back, what stays, what never remains."""

import itertools
import os
import random
import signal
from collections.abc import Iterator

import pytest
from processes import Group, Peer, asleep, empty, heap_pages, mounts, poll

MIB = 1 << 20


@pytest.fixture
def group() -> Iterator[Group]:
    with Group() as group:
        yield group


# ---- orders ------------------------------------------------------------------------------------------------------------


def gives_back(peer: Peer) -> None:
    poll(lambda: heap_pages(peer.pid) < MIB, lambda: f"{heap_pages(peer.pid)} bytes come back")


SIZES = [1, 100, 5000, 300_000, 2_000_000]  # bytes: slabs, large, with pages of their own


@pytest.mark.parametrize("how", ["return", "_exit", pytest.param("kill", marks=pytest.mark.matrix)])
def test_ends_in_every_order(how: str, group: Group) -> None:
    """Each of three processes made arrays that all hold. They end in all six orders; the others read, write and allocate as before."""
    for order in itertools.permutations(range(3)):
        peers = group.start(3)
        for i, peer in enumerate(peers):
            peer.run("mine = [ist.full(n, i + 1, 'u1') for n in sizes]", sizes=SIZES, i=i)
        tokens = [peer("[a.token() for a in mine]") for peer in peers]
        for peer in peers:
            peer.run("everybodys = [[ist.attach(t) for t in ts] for ts in tokens]; del mine", tokens=tokens)
        for gone, i in enumerate(order[:2]):
            peers[i].end(how)
            for j in order[gone + 1 :]:
                peers[j].run(
                    """
                    assert all(a.min() == a.max() == i + 1 for i, part in enumerate(everybodys) for a in part)
                    more = [ist.full(n, 100 + me, 'u1') for n in sizes for _ in range(4)]
                    if sweeps: ist.sweep()
                    assert all(a.min() == a.max() == 100 + me for a in more)
                    assert all(a.min() == a.max() == i + 1 for i, part in enumerate(everybodys) for a in part)
                    """,
                    me=j,
                    sizes=SIZES,
                    sweeps=how != "return",  # else nobody noticed yet,
                )
        last = peers[order[2]]
        assert last("[a.segment.processes for part in everybodys for a in part]") == [1] * 15, (order, how)
        last.run("del everybodys, more")
        empty(last)
        if order == (0, 1, 2):
            gives_back(last)
        last.end(how)


# ---- what a killed process had -----------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_a_killed_processs_memory_comes_back(group: Group) -> None:
    """By itself, within seconds, while any other process of the domain lives, whatever it did so far: nobody calls anything.

    The cases wait side by side.
    """
    start = "big = ist.full(64 << 20, 1, 'u1'); small = [ist.full(64, 2, 'u1') for _ in range(5000)]; t = big.token(), small[99].token()"
    cases: dict[str, tuple[Peer, Peer]] = {}
    names = "holds others", "holds one of them", "a guest", "a forked child", "killed in the middle"
    imported = "only imported", "only imported, and was there before", "imported, and forked from what is killed"
    for name in (*names, *imported):
        one = group.one()
        if name in ("a forked child", "imported, and forked from what is killed"):
            if name not in imported:
                one.run("used = ist.zeros(1)")
            other = one.fork()
            one.run(start)
        elif name == imported[1]:
            other, one = one, group.one(domain=one)
            one.run(start)
        else:
            one.run(start)
            other = group.one() if name == "a guest" else group.one(domain=one)
        if name == "holds others":
            other.run("y = [ist.full(1 << 20, 3, 'u1') for _ in range(8)]")
            one.run("x = [ist.attach(t) for t in ts]", ts=other("[a.token() for a in y]"))
        if name == "a guest":
            poll(lambda pid=other.pid: asleep(pid), "its housekeeper, which has seen that it is alone, sleeps")  # type: ignore[misc]
        if name in ("holds one of them", "a guest", "killed in the middle"):
            other.run("b = ist.attach(token)", token=one("t[1]"))
        if name == "killed in the middle":
            one.begin("while True: x = ist.full(1 << 20, 1, 'u1'); x.token()")
        cases[name] = one, other
    poll(lambda: heap_pages(one.pid) > 0, "the last one has begun")
    for name, (one, _) in cases.items():
        assert heap_pages(one.pid) > 64 * MIB, name
        one.kill()
    for name, (_, other) in cases.items():
        kept = 10 * MIB if name == "holds others" else MIB

        def little(other: Peer = other, kept: int = kept) -> bool:
            return heap_pages(other.pid) < kept

        poll(little, lambda name=name, other=other: f"{name}: {heap_pages(other.pid)} bytes of a killed process come back")  # type: ignore[misc]
    assert cases["holds one of them"][1]("b.tolist()") == [2] * 64 == cases["a guest"][1]("b.tolist()")
    assert cases["holds others"][1]("[a.segment.processes for a in y], [a.sum() for a in y]") == ([1] * 8, [3 * MIB] * 8)


def test_what_a_killed_guest_held_comes_back(group: Group) -> None:
    """The survivor's own arrays, which only a killed process held any more."""
    one, two, three = group.one(), group.one(), group.one()
    one.run("a = ist.full(64 << 20, 1, 'u1'); few = [ist.full(100, i, 'u1') for i in range(100)]")
    for peer in (two, three):
        peer.run("b = [ist.attach(t) for t in ts]", ts=one("[x.token() for x in (a, *few)]"))
    one.run("del a, few")
    empty(one)
    two.kill()
    three.kill()
    gives_back(one)
    empty(one)


def test_a_dead_processs_name_is_free(group: Group) -> None:
    """At once, without a sweep by anybody: whoever restarts a killed process wants its names."""
    one = group.one()
    for i in range(3):
        two = group.one(domain=one)
        two.run("a = ist.full(3, i); a.publish('restarted')", i=i)
        assert one("ist.attach('restarted').tolist()") == [i] * 3
        assert "the name is taken" in one.raises("FileExistsError", "ist.zeros(1).publish('restarted')")
        two.kill()
    one.run("a = ist.zeros(1)\nfor i in range(3): a.publish(f'{i}')")
    two = group.one(domain=one)
    two.run("b = ist.zeros(1)\nfor i in range(4093): b.publish(f'b{i}')")
    assert "names (4,096)" in one.raises("MemoryError", "a.publish('x')")
    two.kill()
    one.run("a.publish('x')")


def test_without_a_housekeeper(group: Group) -> None:
    """ISTHMUS_HOUSEKEEPER=0: the dead are swept when somebody calls."""
    one = group.one(ISTHMUS_HOUSEKEEPER="0")
    two = group.one(domain=one, ISTHMUS_HOUSEKEEPER="0")
    one.run("a = ist.full(64 << 20, 1, 'u1'); b = ist.full(100, 7, 'u1')")
    two.run("b = ist.attach(token)", token=one("b.token()"))
    one.kill()
    assert two("len(os.listdir('/proc/self/task'))") == 1
    assert heap_pages(two.pid) > 64 * MIB
    assert two("ist.sweep()['processes']") == 1
    assert heap_pages(two.pid) < MIB and two("b.tolist()") == [7] * 100
    two.run("b.release()")
    empty(two)


# ---- stopped ones ------------------------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_sweeping_never_hurts_a_stopped_process(group: Group) -> None:
    one, two, three = group.start(3)
    two.run("import pickle; own = [ist.full(n, 5, 'u1') for n in (10, 5000, 1 << 20)]")
    one.run("a = [ist.full(n, 6, 'u1') for n in (10, 5000, 1 << 20)]")
    two.run("held = [ist.attach(t) for t in ts]", ts=one("[x.token() for x in a]"))
    token, data = two("own[1].token()"), two("pickle.dumps([ist.full(3, 8), own[0]])")
    two.stop()
    one.run("del a; ist.sweep()")
    three.kill()
    for _ in range(20):
        one.run(
            """
            more = [ist.full(n, 9, 'u1') for n in (10, 5000, 1 << 20) for _ in range(10)]; [m.token() for m in more]
            ist.sweep()
            assert all(m.min() == m.max() == 9 for m in more)
            """
        )
    one.run("b = ist.attach(token); import pickle; c = pickle.loads(data)", token=token, data=data)
    assert one("b.min(), b.segment.processes, c[0].tolist(), c[1].tolist()") == (5, 2, [8.0] * 3, [5] * 10)
    one.run("b[7] = 1")
    two.go_on()
    assert two("own[1][7], [x.max() for x in own], [x.min() for x in held], [x.max() for x in held]") == (1, [5] * 3, [6] * 3, [6] * 3)
    assert two("[x.segment.processes for x in own], [x.segment.processes for x in held]") == ([2, 2, 0], [1, 1, 1])
    two.run("del own, held")
    one.run("del b, c, more")
    empty(one, two)


def test_processes_stopped_anywhere(group: Group) -> None:
    """Stopped at random moments of their work, swept by the others meanwhile, gone on."""
    seed = int(os.environ.get("ISTHMUS_SEED", random.randrange(2**32)))
    print(f"ISTHMUS_SEED={seed}")
    dice = random.Random(seed)
    one, *workers = group.start(3)
    work = """
        import random
        dice = random.Random(seed)
        rounds = 0
        while not os.path.exists(path + ".stop"):
            a = [ist.full(dice.randrange(1, 20000), seed % 200 + 1, "u1") for _ in range(dice.randrange(20))]
            tokens = [x.token() for x in a]
            b = [ist.attach(t) for t in tokens]
            dice.shuffle(a)
            del a[: dice.randrange(20)]
            assert all(x.min() == x.max() == seed % 200 + 1 for x in b)
            del a, b
            rounds += 1
    """
    for worker in workers:
        worker.begin(work, seed=dice.randrange(2**32))
    for _ in range(60):
        worker = dice.choice(workers)
        worker.stop()
        one.run(
            """
            assert ist.sweep()["processes"] == 0
            a = [ist.full(n, 222, 'u1') for n in (1, 100, 10000, 100000)]; [x.token() for x in a]
            assert all(x.min() == x.max() == 222 for x in a)
            """
        )
        worker.go_on()
    open(f"{group.path}.stop", "w").close()
    for worker in workers:
        worker.finish()
        assert worker("rounds") > 0
    one.run("del a")
    empty(one, *workers)


# ---- nothing piles up --------------------------------------------------------------------------------------------------

ROUNDS = """
    import multiprocessing, os, random, sys
    import isthmus as ist
    from processes import descriptors

    def facts():
        with open("/proc/self/maps") as f:
            lines = f.readlines()
        return sorted(descriptors().items()), sum("isthmus" in line for line in lines), len(lines)

    def child(pipe):
        for i in range(ROUNDS):
            if i in LOOKS:
                pipe.send(facts())
            a = pipe.recv()
            pipe.send([a[1:], ist.full(a.size, i % 100, "u1")])
        pipe.recv()

    ROUNDS, LOOKS, SEED = 2000, (300, 1999), int(sys.argv[2])
    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        here, there = context.Pipe()
        process = context.Process(target=child, args=(there,))
        process.start()
        there.close()
        dice = random.Random(SEED)
        own, others = [], []
        for i in range(ROUNDS):
            if i in LOOKS:
                own.append(facts())
                others.append(here.recv())
            a = ist.full(int(2 ** dice.uniform(1, 18)), 7, "u1")
            here.send(a.toreadonly() if i % 2 else a)
            part, new = here.recv()
            assert part.size == a.size - 1 and part[0] == 7 and new.size == a.size and new[-1] == i % 100
            del a, part, new
        for what, (early, late) in (("here", own), ("there", others)):
            print(what, early[0] == late[0], late[1] - early[1], late[2] - early[2])
            if early[0] != late[0]:
                print(early, late)
        here.send(None)
        process.join()
        print(process.exitcode, ist.segments(), ist.stats()["published"])
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_descriptors_and_mappings_stay_flat(method: str, group: Group) -> None:
    """2,000 arrays there, 4,000 back, of random sizes; each third read-only."""
    seed = int(os.environ.get("ISTHMUS_SEED", random.randrange(2**32)))
    print(f"ISTHMUS_SEED={seed}")
    here, there, end = group.script(ROUNDS, method, str(seed)).strip().split("\n")
    assert end == "0 [] 0"
    for line in (here, there):
        _, same, ours, all_ = line.split()
        assert same == "True" and int(ours) == 0 and int(all_) <= 8, line  # Python's own heap may take an arena or two


@pytest.mark.matrix
def test_ten_thousand_arrays_on_two_descriptors(group: Group) -> None:
    one, two = group.start(2)
    three = group.one()
    for peer in (one, two, three):
        peer.run("from processes import descriptors; import resource; ist.zeros(1)")
    two_of_each = one("[name for name in descriptors().values() if 'isthmus' in name]")
    assert len(two_of_each) == 2
    token = one("(first := ist.zeros(1)).token()")
    three.run("ist.attach(token)", token=token)  # a guest has two of its home and two of the other
    before = [peer("descriptors()") for peer in (one, two, three)]
    one.run("arrays = [ist.full(10, i, 'i4') for i in range(10000)]")
    tokens = one("[a.token() for a in arrays]")
    for peer in (two, three):
        peer.run("got = [ist.attach(t) for t in tokens]", tokens=tokens)
        assert peer("all(a[0] == a[9] == i for i, a in enumerate(got))") and peer("len(ist.segments())") == 10000
    assert [peer("descriptors()") for peer in (one, two, three)] == before
    assert [len([n for n in d.values() if "isthmus" in n]) for d in before] == [2, 2, 4]
    one.run("del arrays")
    two.run("del got[::2]")
    three.run("del got[1::2]")
    assert one("ist.stats()['published']") == 1
    two.run("del got")
    three.run("del got")
    one.run("del first")
    empty(one, two, three)


# ---- nothing remains ---------------------------------------------------------------------------------------------------

REMAINS = """
    import multiprocessing, os, signal, subprocess, sys
    import isthmus as ist

    def child(pipe, a):
        b = ist.full(1 << 20, 2, "u1")
        b.publish(f"remains {os.getpid()}")
        pipe.send(b)
        pipe.recv()
        if a[0] == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    if __name__ == "__main__":
        for method in ("spawn", "fork", "forkserver"):
            context = multiprocessing.get_context(method)
            a = ist.zeros(1000)
            a.publish("remains")
            children = []
            for _ in range(2):
                here, there = context.Pipe()
                process = context.Process(target=child, args=(there, a))
                process.start()
                children.append((process, here, here.recv()))
            a[0] = 1
            for process, here, got in children:
                here.send(None)
                process.join()
                assert process.exitcode == -signal.SIGKILL and got.sum() == 2 << 20
            del a, children, process, here, there, got
        with ist.WorkerPool(1) as pool:
            assert pool.submit(pow, 2, 3).result() == 8
        print(os.listdir("/dev/shm"), os.listdir(), os.listdir(os.environ["HOME"]), os.listdir(os.environ["XDG_RUNTIME_DIR"]))
        if sys.argv[1] == "kill":
            kept = ist.full(1 << 20, 1)
            kept.publish("remains")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["return", "kill"])
def test_no_file_remains(how: str) -> None:
    """In empty folders of its own at /dev/shm and wherever files are made: they are as empty while it runs and afterwards."""
    with Group(quiet=how == "return") as group:  # the shell reports the kill
        no_file_remains(how, group)


def no_file_remains(how: str, group: Group) -> None:
    places = f"{group.folder}/places"
    env = {"HOME": f"{places}/home", "XDG_RUNTIME_DIR": f"{places}/run", "TMPDIR": f"{places}/tmp"}
    prefix = mounts(
        f"mkdir {places} && mount -t tmpfs none {places} && mount -t tmpfs none /dev/shm &&"
        f"cd {places} && mkdir home run tmp here && cd here",
        after=f'echo "status $?"; find /dev/shm {places} -mindepth 1 | sort',
    )
    out = group.script(REMAINS, how, prefix=prefix, env=env).replace(places, "")
    first, status, *listing = [line for line in out.strip().split("\n") if "/pymp-" not in line]  # multiprocessing's own
    assert first == "[] [] [] []"
    assert status == ("status 0" if how == "return" else f"status {128 + signal.SIGKILL}"), out
    assert listing == ["/here", "/home", "/run", "/tmp"], out
