"""What is in the wheel, and that it works in an environment that has nothing else: from Python, and for those who build against it."""

import email
import importlib.metadata
import re
import shutil
import subprocess

import pytest
from conftest import PYTHON, ROOT, cmake_build, command

CONSUMER = ROOT / "tests" / "c" / "consumer"


def needs(*tools):
    missing = [tool for tool in tools if not shutil.which(tool)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def snippets():
    """README.md's blocks of Python that need nothing but the package."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [b for b in blocks if "numpy" not in b and "# Python 3.14" not in b]


def test_quick_start(wheel):
    """README.md's first example, on its first screen."""
    assert wheel.run(snippets()[0]) == "13986000\n"


@pytest.mark.parametrize("number", range(1, len(snippets())))
def test_readme(wheel, number):
    assert wheel.run(snippets()[number])


def test_an_example(wheel):
    assert wheel.run(ROOT / "examples" / "share_array.py") == "sum 13986000, array bytes copied: 0\n"


def test_info(wheel, package):
    lines = dict(line.split(None, 1) for line in command(PYTHON, "-m", "isthmus", "info", cwd=wheel.folder).splitlines())
    assert lines["isthmus"] == f"0.1.0, {package}"
    assert re.fullmatch(r"CPython 3\.\d+\.\d+\S*, .*", lines["Python"])


def test_without_numpy(wheel):
    out = wheel.run("""
        import importlib.util, sys
        import isthmus as ist
        if importlib.util.find_spec("numpy") is not None:
            print("there is a numpy")
            sys.exit()
        try:
            ist.numpy_allocator()
        except ImportError as error:
            print(error)
    """)
    if out == "there is a numpy\n":
        pytest.skip("numpy is installed where the wheel is")
    assert "needs numpy, which is not installed" in out and "isthmus[numpy]" in out


def test_one_library(wheel, package):
    """Both extensions and whoever builds against it use the package's own libisthmus, by its versioned name."""
    out = wheel.run("""
        import isthmus
        print(*{line.split()[-1] for line in open("/proc/self/maps") if "libisthmus" in line})
    """)
    assert out.split() == [str(package / "lib" / "libisthmus.so.0")]


@needs("readelf")
def test_names_in_it(package):
    """What auditwheel has to leave as it is."""
    for path in package.rglob("*.so*"):
        dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
        needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
        of_glibc = {n for n in needed if n.startswith(("ld-linux", "libpthread.", "libm.", "libdl.", "librt."))}
        if path.name.startswith("libisthmus"):
            assert "SONAME" in dynamic and "[libisthmus.so.0]" in dynamic, path
            (libc,) = needed - of_glibc
            assert libc.startswith("libc."), "nothing else: jemalloc is inside"
        else:
            assert "libisthmus.so.0" in needed and "[$ORIGIN/lib]" in dynamic, path
    assert not list(package.parent.glob("isthmus.libs")), "there is one copy of everything"


def test_no_file_names_where_it_was_built(package):
    for path in (package / "lib").rglob("*"):
        if path.suffix in (".cmake", ".pc"):
            text = path.read_text(encoding="utf-8")
            assert str(ROOT) not in text and "/tmp" not in text, path


def test_metadata(wheel, package):
    (folder,) = package.parent.glob("isthmus-0.1.0.dist-info")
    metadata = email.message_from_string((folder / "METADATA").read_text(encoding="utf-8"))
    assert metadata["Requires-Python"] == ">=3.12"
    assert metadata.get_all("Provides-Extra") == ["notebook", "numpy"]
    assert importlib.metadata.Distribution.at(folder).read_text("licenses/LICENSE").strip().startswith("Apache License")
    assert "Jason Evans" in importlib.metadata.Distribution.at(folder).read_text("licenses/jemalloc.COPYING")
    assert (package / "py.typed").exists() and (package / "__init__.pyi").exists()


# ---- from C


@needs("cmake", "ninja", "gcc")
def test_find_package(tmp_path, package):
    build = cmake_build(CONSUMER, tmp_path / "consumer", package)
    assert command(build / "consumer", cwd=tmp_path).endswith("\n")


@needs("pkg-config", "gcc")
def test_pkg_config(tmp_path, package):
    config = {"PKG_CONFIG_PATH": str(package / "lib" / "pkgconfig")}
    assert command("pkg-config", "--modversion", "isthmus", cwd=tmp_path, **config) == "0.1.0\n"
    flags = command("pkg-config", "--cflags", "--libs", "isthmus", cwd=tmp_path, **config).split()
    command("gcc", "-std=c11", CONSUMER / "main.c", "-o", tmp_path / "it", *flags, cwd=tmp_path)
    assert command(tmp_path / "it", cwd=tmp_path, LD_LIBRARY_PATH=str(package / "lib"))


@needs("gcc")
def test_the_folders_it_names(tmp_path, wheel):
    library = wheel.says("get_library_dir")
    flags = [f"-I{wheel.says('get_include')}", f"-L{library}", "-listhmus", f"-Wl,-rpath,{library}"]
    command("gcc", "-std=c11", CONSUMER / "main.c", "-o", tmp_path / "it", *flags, cwd=tmp_path)
    assert command(tmp_path / "it", cwd=tmp_path)
