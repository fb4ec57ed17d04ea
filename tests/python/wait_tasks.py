"""What test_wait_async.py runs in workers: a module of its own, since workers import it by name."""

import asyncio

try:
    import ctypes
except ImportError:  # in an interpreter of 3.12 with a GIL of its own
    ctypes = None

from isthmus import atomics

kept = []


def answer(a, round_):
    """Says by a[1] that it is there, then waits for a[0]."""

    async def main():
        a[1] = round_ + 1
        atomics.notify(a, 1)
        await atomics.wait_async(a, 0, round_)
        return a[0]

    return asyncio.run(main())


def leave_waiting(a):
    async def main():
        wait = atomics.wait_async(a, 0, 0)
        kept.append(wait)
        if ctypes is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(wait))  # leaked: the interpreter's end doesn't deallocate it

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    kept.append(loop)
