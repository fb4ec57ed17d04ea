"""Three interpreters draw one picture, each its own rows. python draw.py, with mandelbrot on PYTHONPATH."""

import isthmus as ist
import mandelbrot


def draw(image, first, last):
    image.draw(first, last)


if __name__ == "__main__":
    image = mandelbrot.Image(64, 24)
    with ist.WorkerPool(3) as pool:
        for done in [pool.submit(draw, image, row, row + 2) for row in range(0, 24, 2)]:
            done.result()
    for row in image.array().tolist():
        print("".join(" .:-=+*#%@"[min(n, 9)] for n in row).rstrip())
