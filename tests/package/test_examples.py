"""examples/extensions: each is built against the installed package as its CMakeLists.txt says, and runs in several interpreters at once."""

import shutil
import sys

import pytest
from conftest import EXTENSIONS, cmake_build, command

# Each of three workers tells which type it has: all three are alive then, each in an interpreter of its own.
AT_ONCE = """
    import isthmus as ist, {module}

    def meet(barrier, x):
        barrier.wait(60)
        kind = id({module}.{type}), type(x) is {module}.{type}
        barrier.wait(60)
        return kind

    if __name__ == "__main__":
        barrier, x = ist.Barrier(3), {module}.{type}({arguments})
        with ist.WorkerPool(3) as pool:
            kinds = [f.result(60) for f in [pool.submit(meet, barrier, x) for _ in range(3)]]
        assert all(same for _, same in kinds) and len({{id({module}.{type}), *(i for i, _ in kinds)}}) == 4, kinds
        del x
        print(ist.stats()["segments"] - 1, "segments but the barrier")
"""

# A sender that has another type of that name: what the real one gets isn't what it put.
SOMETHING_ELSE = """
    import isthmus as ist

    class {type}:
        pass

    def load():
        import {module}

    def arrived(x):
        return "it was made"

    if __name__ == "__main__":
        {type}.__module__, {type}.__qualname__ = "{module}", "{type}"
        ist.register_type({type}, lambda self: ({parts}), lambda parts: None)
        with ist.WorkerPool(1) as pool:
            pool.submit(load).result(60)
            try:
                print(pool.submit(arrived, {type}()).result(60))
            except Exception as error:
                print(type(error).__name__, error)
"""


def build(name, package, folder, **variables):
    return cmake_build(EXTENSIONS / name, folder.mktemp(name), package, **variables)


@pytest.fixture(scope="module")
def decimals(package, tmp_path_factory):
    return {"PYTHONPATH": str(build("c", package, tmp_path_factory))}


@pytest.fixture(scope="module")
def mandelbrot(package, tmp_path_factory):
    cython = shutil.which("cython", path=f"{sys.prefix}/bin")
    assert cython, "tools/requirements-package.txt brings Cython"
    return {"PYTHONPATH": str(build("cython", package, tmp_path_factory, CYTHON=cython))}


@pytest.fixture(scope="module")
def words(package, tmp_path_factory):
    import pybind11

    quick = {"CMAKE_CXX_FLAGS_RELEASE": "-O0 -DNDEBUG", "CMAKE_INTERPROCEDURAL_OPTIMIZATION": "OFF"}  # 15 s become 6
    return {"PYTHONPATH": str(build("pybind11", package, tmp_path_factory, pybind11_DIR=pybind11.get_cmake_dir(), **quick))}


def at_once(wheel, environment, module, type, arguments):
    out = wheel.run(AT_ONCE.format(module=module, type=type, arguments=arguments), **environment)
    assert out == "0 segments but the barrier\n"


def something_else(wheel, environment, module, type, parts):
    return wheel.run(SOMETHING_ELSE.format(module=module, type=type, parts=parts), **environment)


def test_c(wheel, decimals):
    assert wheel.run(EXTENSIONS / "c" / "add_up.py", **decimals) == "[14544, 499500]\n[39.9, 9.98, 241.0]\n"
    at_once(wheel, decimals, "decimals", "Column", "[1, 2], 0")
    at_once(wheel, decimals, "decimals", "Column", "[1, 2], 0, heap=True")


def test_c_gets_something_else(wheel, decimals):
    out = something_else(wheel, decimals, "decimals", "Column", "ist.zeros(3, 'u1'), bytes(4)")
    assert "not a column of decimals" in out


def test_cython(wheel, mandelbrot):
    picture = wheel.run(EXTENSIONS / "cython" / "draw.py", **mandelbrot)
    lines = picture.splitlines()
    assert len(lines) == 24 and lines[12].count("@") > 30, picture
    assert lines[1:12] == lines[:12:-1], "it is symmetric: each row was drawn, once, where it belongs"
    at_once(wheel, mandelbrot, "mandelbrot", "Image", "10, 20")


def test_cython_outlives_its_maker(wheel, mandelbrot):
    out = wheel.run(
        """
        import isthmus as ist, mandelbrot

        def make(n):
            image = mandelbrot.Image(n, n)
            image.draw(0, n)
            return image

        if __name__ == "__main__":
            for kind in "interpreter", "process":
                with ist.WorkerPool(2, kind) as pool:
                    images = list(pool.map(make, [30, 40, 50]))
                for image in images:
                    again = mandelbrot.Image(image.width, image.height)
                    again.draw(0, again.height)
                    assert image.array().tolist() == again.array().tolist()
                del image, again, images
                print(kind, ist.stats()["segments"])
        """,
        **mandelbrot,
    )
    assert out == "interpreter 0\nprocess 0\n"


@pytest.mark.parametrize(
    "parts, text",
    [
        ("ist.zeros(10, 'u1'), b''", "has 8 bytes, not 0"),
        ("ist.zeros(10, 'u1'), bytes([4, 0, 0, 0, 3, 0, 0, 0])", "no image of 4 by 3 has 10 bytes"),
        ("ist.zeros(16, 'u1'), bytes([252, 255, 255, 255] * 2)", "no image of -4 by -4 has 16 bytes"),
        ("b'no segment', bytes(8)", "item 0 should be a segment"),
    ],
)
def test_cython_gets_something_else(wheel, mandelbrot, parts, text):
    assert text in something_else(wheel, mandelbrot, "mandelbrot", "Image", parts)


def test_cython_without_init(wheel, mandelbrot):
    out = wheel.run(
        """
        import isthmus as ist, mandelbrot
        image = mandelbrot.Image.__new__(mandelbrot.Image)
        unmade = image.array, lambda: image.draw(0, 0), lambda: ist.clone(image)
        for what in *unmade, lambda: mandelbrot.Image(0, 1), lambda: mandelbrot.Image(1, 1).draw(0, 2):
            try:
                print("done", what())
            except (ValueError, IndexError) as error:
                print(error)
        """,
        **mandelbrot,
    )
    assert out == "an Image without its __init__\n" * 3 + "an image of 0 by 1\nrows 0 to 2 of 1\n"


def test_pybind11(wheel, words):
    out = wheel.run(EXTENSIONS / "pybind11" / "look_up.py", **words)
    assert out == "memory [1, 2, 3]\nthe [3]\ncopy []\n1 index was made, of 15 words\n"
    at_once(wheel, words, "words", "Words", "'one two'")


def test_pybind11_is_destroyed_by_whoever_is_last(wheel, words):
    out = wheel.run(
        """
        import isthmus as ist, words

        kept = []

        def keep(index):
            kept.append(index)

        def make(text):
            return words.Words(text)

        def drop():
            kept.clear()

        if __name__ == "__main__":
            with ist.WorkerPool(1) as pool:
                pool.submit(keep, words.Words("it lives in the worker")).result(60)
                made = pool.submit(make, "it outlives its worker").result(60)
                print(words.count_indices())
                pool.submit(drop).result(60)
                print(words.count_indices())
            print(words.count_indices(), made.find("worker"))
            del made
            print(words.count_indices(), ist.stats()["segments"])
        """,
        **words,
    )
    assert out == "(2, 2)\n(2, 1)\n(2, 1) [1]\n(2, 0) 0\n"


def test_pybind11_gets_something_else(wheel, words):
    assert "no index of words" in something_else(wheel, words, "words", "Words", "ist.zeros(56, 'u1'),")


def test_pybind11_goes_to_no_process(wheel, words):
    out = wheel.run(
        """
        import isthmus as ist, words

        if __name__ == "__main__":
            with ist.WorkerPool(1, "process") as pool:
                try:
                    print(pool.submit(len, words.Words("a b")).result(60))
                except ist.SegmentGoneError as error:
                    print("SegmentGoneError")
        """,
        **words,
    )
    assert out == "SegmentGoneError\n"


def test_program(wheel, package, tmp_path_factory):
    mean = build("program", package, tmp_path_factory) / "mean"
    expected = "indoors: 5 numbers, mean 22\noutdoors: 5 numbers, mean -1\n[-2.0, -1.0, 0.0, 1.0, 2.0]\n"
    assert wheel.run(EXTENSIONS / "program" / "publish.py", mean) == expected


def test_program_by_pkg_config(wheel, package):
    lib, program = package / "lib", wheel.folder / "mean"
    flags = command("pkg-config", "--cflags", "--libs", "isthmus", cwd=wheel.folder, PKG_CONFIG_PATH=str(lib / "pkgconfig")).split()
    command("cc", "-std=c11", EXTENSIONS / "program" / "mean.c", "-o", program, *flags, f"-Wl,-rpath,{lib}", cwd=wheel.folder)
    out = wheel.run(EXTENSIONS / "program" / "publish.py", program)
    assert out.startswith("indoors: 5 numbers, mean 22\n")
