"""P8 and P11 against other libraries between processes: faster-fifo's queue one way, iceoryx2's publish and subscribe to and fro.

faster-fifo   A process puts a small int again and again, this one gets them: seconds a message. Both encode each by itself; faster-fifo
              does so by multiprocessing's pickler, or by whatever it is given, here pickle.dumps as well. Our queue has no call for many
              at once; what faster-fifo's get_many gives is measured beside.
iceoryx2      Both sides hand over memory of some size: take some, write a byte, send it; wait for the other's, read that byte, let it go.
              Waiting is either looking again and again, at both, or sleeping: our get() looks for a while and then sleeps, iceoryx2 has
              an event for that, which is notified after each send. iceoryx2 takes new memory for each sample; an array can be handed
              over again and again, which is measured as well.
"""

import ctypes
import multiprocessing
import pickle
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import isthmus as ist
import paired

MESSAGES = 20_000
TRIPS = 300
SIZES = (1 << 10, 1 << 20, 1 << 26)

Pipe = "Connection[Any, Any]"
_spawn = multiprocessing.get_context("spawn")


class Other:
    """A process that runs one function of this file with a pipe, until it is sent None."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        self.pipe, there = _spawn.Pipe()
        self.process = _spawn.Process(target=function, args=(there, *arguments))
        self.process.start()
        there.close()

    def __enter__(self) -> "Connection[Any, Any]":
        return self.pipe

    def __exit__(self, *_: object) -> None:
        self.pipe.send(None)
        self.process.join()


# ---- faster-fifo -------------------------------------------------------------------------------------------------------------


def produce(pipe: Pipe, queues: list[Any]) -> None:
    for which in iter(pipe.recv, None):
        put = queues[which].put
        for _ in range(MESSAGES):
            put(12345)


def one_way(quick: bool) -> None:
    try:
        from faster_fifo import Queue as Faster  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        return paired.skip("P8", f"needs faster-fifo: {error}", "faster-fifo", "get_many")
    queues = [ist.Queue[int](), Faster(), Faster(loads=pickle.loads, dumps=pickle.dumps)]

    def one(queue: Any) -> None:
        get = queue.get
        for _ in range(MESSAGES - 1):
            get()

    def many(queue: Any) -> None:
        count = 0
        while count < MESSAGES - 1:
            count += len(queue.get_many(max_messages_to_get=1000))

    ways = (("", 1, one), (", pickle.dumps", 2, one), ("'s get_many, pickle.dumps", 2, many))
    values: dict[str, dict[str, list[float]]] = {name: {"baseline": [], "measured": []} for name, _, _ in ways}
    with Other(produce, queues) as pipe:

        def timed(which: int, receive: Callable[[Any], None]) -> float:
            pipe.send(which)
            queues[which].get()
            begin = time.perf_counter()
            receive(queues[which])
            return (time.perf_counter() - begin) / (MESSAGES - 1)

        for _ in range(3 if quick else 8):
            for name, which, receive in ways:
                values[name]["baseline"].append(timed(which, receive))
                values[name]["measured"].append(timed(0, one))
    for name, _, receive in ways:
        group = "faster-fifo" if receive is one else "get_many"
        paired.emit("P8", "a small int, one way between processes", against=f"faster-fifo{name}", group=group, **values[name])


# ---- iceoryx2 ----------------------------------------------------------------------------------------------------------------

Way = tuple[int, bool, bool]  # how many bytes; whether who waits sleeps; whether it is the same array again
GROUPS = {(True, False): "iceoryx2, sleeping", (True, True): "iceoryx2, again", (False, False): "iceoryx2, looking"}
Side = tuple[Callable[[], None], Callable[[], None]]  # sends; waits for what the other has sent, and reads it


def our_side(out: "ist.Queue[Any]", into: "ist.Queue[Any]", nbytes: int, sleeps: bool, again: bool) -> Side:
    kept = ist.empty(nbytes, "u1") if again else None

    def send() -> None:
        array = ist.empty(nbytes, "u1") if kept is None else kept
        array[0] = 7
        out.put(array)

    def receive() -> None:
        if not sleeps:
            while into.empty():
                pass
        if into.get()[0] != 7:
            raise AssertionError("another byte was sent")

    return send, receive


def their_side(prefix: str, me: int, nbytes: int, sleeps: bool) -> Side:
    import iceoryx2 as iox2  # type: ignore[import-not-found, import-untyped, unused-ignore]

    iox2.set_log_level(iox2.LogLevel.Error)
    node = iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)
    names = [f"isthmus-bench/{prefix}/{way}" for way in (me, 1 - me)]

    def service(name: str) -> Any:
        builder = node.service_builder(iox2.ServiceName.new(name)).publish_subscribe(iox2.Slice[ctypes.c_uint8])
        return builder.subscriber_max_buffer_size(4).open_or_create()

    def event(name: str) -> Any:
        return node.service_builder(iox2.ServiceName.new(name)).event().open_or_create()

    publisher = service(names[0]).publisher_builder().initial_max_slice_len(nbytes).create()
    subscriber = service(names[1]).subscriber_builder().create()
    notifier = event(names[0]).notifier_builder().create() if sleeps else None
    listener = event(names[1]).listener_builder().create() if sleeps else None

    def send() -> None:
        sample = getattr(publisher.loan_slice_uninit(nbytes), "__assume_init")()
        sample.payload()[0] = 7
        sample.send()
        if notifier is not None:
            notifier.notify()

    def receive() -> None:
        while (sample := subscriber.receive()) is None:
            if listener is not None:
                listener.blocking_wait()
        if sample.payload()[0] != 7:
            raise AssertionError("another byte was sent")
        sample.delete()

    return send, receive


def make_side(who: str, way: Way, out: "ist.Queue[Any]", into: "ist.Queue[Any]", prefix: str, me: int) -> Side:
    nbytes, sleeps, again = way
    return (
        our_side(out, into, nbytes, sleeps, again)
        if who == "ours"
        else their_side(f"{prefix}/{nbytes}/{sleeps}/{again}", me, nbytes, sleeps)
    )


def answer(pipe: Pipe, queues: "tuple[ist.Queue[Any], ist.Queue[Any]]", prefix: str) -> None:
    there, back = queues
    sides: dict[tuple[str, Way], Side] = {}
    for key in iter(pipe.recv, None):
        if key not in sides:
            sides[key] = make_side(*key, back, there, prefix, 1)
            pipe.send("there")
            continue
        send, receive = sides[key]
        for _ in range(TRIPS):
            receive()
            send()


def hand_over(quick: bool) -> None:
    try:
        import iceoryx2  # type: ignore[import-not-found, import-untyped, unused-ignore] # noqa: F401
    except ImportError as error:
        return paired.skip("P11", f"needs iceoryx2: {error}", *GROUPS.values())
    there, back = ist.Queue[Any](4), ist.Queue[Any](4)
    with Other(answer, (there, back), prefix := f"{time.time_ns()}") as pipe:
        for (sleeps, again), group in GROUPS.items():
            for nbytes in paired.sizes(SIZES, quick):
                way = nbytes, sleeps, again
                name = f"{paired.label(nbytes)} handed over{' again' if again else ''}, {'sleeping' if sleeps else 'looking'}"
                sides = [(who, make_side(who, way, there, back, prefix, 0)) for who in ("theirs", "ours")]
                values = compare(pipe, way, sides, 3 if quick else 10)
                paired.emit("P11", name, against="iceoryx2", group=group, baseline=values[0], measured=values[1])


def compare(pipe: Pipe, way: Way, sides: list[tuple[str, Side]], slices: int) -> list[list[float]]:
    values: list[list[float]] = [[] for _ in sides]
    for who, _ in sides:
        pipe.send((who, way))
        pipe.recv()
    for _ in range(slices):
        for mine, (who, (send, receive)) in zip(values, sides, strict=True):
            pipe.send((who, way))
            begin = time.perf_counter()
            for _ in range(TRIPS):
                send()
                receive()
            mine.append((time.perf_counter() - begin) / TRIPS / 2)
    return values


def main() -> None:
    options = paired.arguments(__doc__)
    if paired.wanted(options, "P8"):
        one_way(options.quick)
    if paired.wanted(options, "P11"):
        hand_over(options.quick)


if __name__ == "__main__":
    main()
