"""Two interpreters publish arrays, and a program in C reads and changes them. python publish.py PATH-OF-mean"""

import subprocess
import sys

import isthmus as ist


def publish(name, start):
    a = ist.array([start + i for i in range(5)], "f8")
    a.publish(name)
    return a


if __name__ == "__main__":
    with ist.WorkerPool(2) as pool:
        arrays = list(pool.map(publish, ["indoors", "outdoors"], [20.0, -3.0]))
        subprocess.run([sys.argv[1], "indoors", "+outdoors"], check=True)
    print(arrays[1].tolist())
