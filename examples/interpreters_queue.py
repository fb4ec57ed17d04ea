"""An array through the queues of concurrent.interpreters (Python 3.14 and later): by reference as well."""

import sys

import isthmus as ist

WORKER = """
import isthmus
array = inbox.get()          # a SharedArray of this interpreter over the same memory
array[:] = 7
outbox.put(array[2:5])       # a view travels as well
del array                    # this interpreter lets go; the others keep what they hold
"""


def main():
    from concurrent import interpreters

    inbox, outbox = interpreters.create_queue(), interpreters.create_queue()
    worker = interpreters.create()
    worker.prepare_main(inbox=inbox, outbox=outbox)

    array = ist.zeros(1_000_000)
    inbox.put(array)
    worker.exec(WORKER)
    view = outbox.get()
    worker.close()
    print(f"the worker wrote {array[0]}, its view has shape {view.shape}")
    print(f"array bytes copied: {ist.stats()['bytes_copied']}")


if __name__ == "__main__":
    if sys.version_info >= (3, 14):
        main()
    else:
        print("concurrent.interpreters came with Python 3.14; for earlier versions see share_array.py")
