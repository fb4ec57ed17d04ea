"""A storm: processes with interpreters do everything at random, and are killed and stopped at random. At the end all is empty.

ISTHMUS_STRESS_SECONDS: how long (6). ISTHMUS_SEED: the same dice again.
"""

import os
import random
import time

import pytest
from processes import Group, Peer, heap_pages, poll

SECONDS = float(os.environ.get("ISTHMUS_STRESS_SECONDS", 6))
PROCESSES = 5 if SECONDS < 30 else 8


@pytest.mark.timeout(SECONDS * 2 + 240)
@pytest.mark.matrix
def test_storm() -> None:
    seed = int(os.environ.get("ISTHMUS_SEED", random.randrange(2**32)))
    print(f"ISTHMUS_SEED={seed}")
    dice = random.Random(seed)
    with Group() as group:
        spool = f"{group.folder}/spool"
        os.mkdir(spool)
        watcher = group.one()  # of the same domain; does nothing but live and look
        watcher.run("ist.zeros(1).token()")
        crowd: list[Peer] = []
        begun = kills = stops = 0
        totals: dict[str, int] = {}

        def begin() -> None:
            nonlocal begun
            begun += 1
            peer = group.one(domain=watcher) if dice.random() < 0.8 else group.one()  # some are strangers
            peer.run("import storm, logging; logging.disable()")
            peer.begin(
                "told = storm.process(spool, tag, seed, interpreters)",
                spool=spool,
                tag=begun,
                seed=dice.randrange(2**32),
                interpreters=2 * (begun % 2),
            )
            crowd.append(peer)

        end = time.monotonic() + SECONDS
        while time.monotonic() < end or kills == 0:
            while len(crowd) < PROCESSES:
                begin()
            peer = dice.choice(crowd)
            for any_ in crowd:
                if any_.answered():  # it went wrong
                    any_.finish()
            if dice.random() < 0.4:
                kills += 1
                if dice.random() < 0.3:
                    peer.stop()
                peer.kill()
                crowd.remove(peer)
                group.forget(peer)
            else:
                stops += 1
                peer.stop()
                watcher.run("ist.sweep()")
                peer.go_on()
            until = time.monotonic() + dice.uniform(0, 0.2)
            while time.monotonic() < until:
                watcher("ist.stats()")
        with open(f"{spool}.stop", "w"):
            pass
        for peer in crowd:
            peer.finish()
            for key, value in peer("told").items():
                totals[key] = totals.get(key, 0) + value
        print(f"{begun} processes, {kills} kills, {stops} stops in {SECONDS} s: {totals}")
        for peer in [*crowd, watcher]:
            poll(
                lambda peer=peer: peer(
                    "ist.sweep() and (ist.segments(), ist.stats()['published'], ist.stats()['saturated']) == ([], 0, 0)"
                ),  # type: ignore[misc]
                lambda peer=peer: f"empty: {peer('ist.segments()[:5], ist.stats()')}",  # type: ignore[misc]
            )
        for peer in crowd:
            peer.end()
        poll(lambda: watcher("ist.sweep() and ist.stats()['processes']") == 1, lambda: f"alone: {watcher('ist.stats()')}")
        poll(lambda: heap_pages(watcher.pid) < 1 << 20, lambda: f"{heap_pages(watcher.pid)} bytes come back")
        assert totals["received"] > 0
