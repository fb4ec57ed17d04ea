"""Placeholders for modules that refuse own-GIL interpreters (isthmus._refused).

Most of this runs in the test's own interpreter, over small modules whose import fails exactly as a refused
extension's does; test_pool.py has the real thing: numpy in a worker.
"""

import builtins
import copy
import importlib
import os
import pickle
import sys
import textwrap
import typing

import pytest
from isthmus import _refused

REFUSES = 'raise ImportError("module {}._ext does not support loading in subinterpreters")\n'


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Runs source text as a user module; modules named at its call exist beside it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    counter = iter(range(1000))

    def add(**modules):
        for name, source in modules.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()

    def run(source, **modules):
        add(**modules)
        name = f"user_module_{next(counter)}"
        add(**{name: source})
        return _refused.find(name, "__dict__")

    run.add = add
    add(heavy=REFUSES.format("heavy"), other=REFUSES.format("other"))
    true_import = builtins.__import__
    yield run
    assert builtins.__import__ is true_import, "the wrapper outlived the module it was made for"
    for name in set(sys.modules) - before:
        if name.startswith(("user_module", "heavy", "other", "lib", "pkg")):
            assert not isinstance(sys.modules[name], _refused.Placeholder)
            del sys.modules[name]
    _refused._placeholders.clear()
    _refused._partials.clear()


def refused(module="heavy"):
    return pytest.raises(ImportError, match=f'^{module} can\'t be used in an own-GIL interpreter: use kind="process" .*_ext does not')


def test_what_a_module_may_do_at_its_top_level(user):
    names = user(
        """
        import dataclasses, enum, functools, typing
        import heavy as hv
        import heavy.linalg
        import heavy.deep.er as er
        from heavy import ndarray, float64 as f8
        from heavy.sub import thing

        TWO_PI = 2 * hv.pi + -hv.e
        DATA = hv.arange(1000)[3:7]
        hv.random.seed(1)
        hv.rcParams["size"] = 3
        hv.flag = True
        with hv.errstate(all="ignore"):
            pass

        def annotated(x: hv.ndarray, y: "ndarray | None" = None, z: ndarray[int, hv.dtype[f8]] | None = None):
            return 7

        def returning() -> int | ndarray: return 7

        Alias = typing.Optional[hv.ndarray]
        Other = typing.Union[int, ndarray, dict[str, hv.ndarray]]

        def default(x=hv.float64): return 8

        @hv.jit
        def decorated(x): return 9

        @hv.jit(cache=True)
        def configured(x): return 9

        class Derived(hv.ndarray, dict, flag=1):
            kind = hv.float64
            def method(self): return 1

        class Second(Derived, hv.Mixin): pass

        @dataclasses.dataclass
        class Record:
            a: hv.ndarray
            b: hv.ndarray | None = None
            c: object = hv.float64
            def get(self) -> hv.ndarray: return 10

        class Kind(enum.Enum):
            A = hv.float64

        class Named(typing.NamedTuple):
            x: hv.ndarray

        instance = Derived(1, 2)
        wrapped = functools.partial(hv.dot, 1)
        """
    )
    assert names["annotated"](1) == 7
    assert names["default"]() == 8
    assert names["Record"](1).get() == 10
    assert names["Named"](3).x == 3
    for function in ("decorated", "configured", "thing", "wrapped"):
        with refused():
            names[function](1)
    for cls in ("Derived", "Second"):
        with refused():
            names[cls]()
    assert typing.get_args(names["Alias"])[0] is names["hv"].ndarray is names["ndarray"]
    assert "heavy" not in sys.modules and "heavy.linalg" not in sys.modules


def test_whatever_uses_one_raises(user):
    hv = user("import heavy as hv")["hv"]
    uses = {
        "call": lambda: hv.zeros(3),
        "bool": lambda: bool(hv.x),
        "len": lambda: len(hv.x),
        "iter": lambda: list(hv.x),
        "in": lambda: 1 in hv.x,
        "add": lambda: hv.pi + 1,
        "radd": lambda: 1 + hv.pi,
        "neg": lambda: -hv.pi,
        "matmul": lambda: hv.a @ hv.b,
        "less": lambda: hv.pi < 3,
        "int": lambda: int(hv.pi),
        "float": lambda: float(hv.pi),
        "index": lambda: [1][hv.one],
        "isinstance": lambda: isinstance(3, hv.ndarray),
        "isinstance tuple": lambda: isinstance(3, (str, hv.ndarray)),
        "issubclass": lambda: issubclass(int, hv.generic),
        "setattr": lambda: setattr(hv, "x", 1),
        "delattr": lambda: delattr(hv, "x"),
        "setitem": lambda: hv.x.__setitem__(0, 1),
        "with": lambda: hv.errstate.__enter__(),
        "format": lambda: f"{hv.pi:.3f}",
        "pickle": lambda: pickle.dumps(hv.pi),
        "copy": lambda: copy.deepcopy(hv.pi),
        "buffer": lambda: memoryview(hv.x),
        "open": lambda: os.open(hv.path, os.O_RDONLY),
        "subclass": lambda: type("C", hv.A.__mro_entries__(()), {})(),
    }
    for what, use in uses.items():
        with refused():
            use()
            pytest.fail(what)
    assert isinstance("x", (str, hv.ndarray))  # decided before the placeholder is reached
    assert "heavy.linalg.norm" in repr(hv.linalg.norm)


@pytest.mark.parametrize(
    "use",
    [
        "if hv.available: pass",
        "for x in hv.names: pass",
        "n = len(hv.x)",
        "if hv.__version__ > '2': pass",
        "if isinstance(3, hv.ndarray): pass",
    ],
)
def test_a_top_level_that_needs_a_value_fails(user, use):
    with refused():
        user(f"import heavy as hv\n{use}\n")


def test_libraries_see_the_true_error(user):
    names = user(
        "import lib, libneeds\nfrom libneeds import name\n",
        lib="try:\n    import heavy\nexcept ImportError as error:\n    heavy, why = None, str(error)\n",
        libneeds="import heavy\nname = 1\n",
    )
    assert names["lib"].heavy is None and names["lib"].why == "module heavy._ext does not support loading in subinterpreters"
    with refused("libneeds"):  # the outermost module that the user imported
        names["name"]()


def test_a_library_that_wraps_the_error(user):
    names = user(
        "import lib, libtext\n",
        lib="""
            try:
                import heavy
            except ImportError as error:
                raise RuntimeError("install heavy!") from error
        """,
        libtext="""
            try:
                import heavy
            except ImportError as error:
                text = str(error)
            raise ImportError("needs:\\nheavy: " + text)
        """,
    )
    for module in ("lib", "libtext"):
        with refused(module):
            names[module].f()


def test_missing_and_broken_modules_stay_what_they_are(user):
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        user("import no_such_module")
    with pytest.raises(ZeroDivisionError):
        user("import lib", lib="1 / 0")
    names = user("import heavy\ntry:\n    import no_such_module\nexcept ImportError:\n    no_such_module = None\n")
    assert names["no_such_module"] is None


def test_a_submodule_that_is_refused(user):
    user.add(**{"pkg/__init__": "x = 1\n", "pkg/good": "y = 2\n", "pkg/bad": REFUSES.format("pkg.bad")})
    names = user(
        """
        import pkg.bad
        import pkg as again
        from pkg import good, bad as b
        from pkg.bad import f
        """
    )
    import pkg as real

    assert names["pkg"].x == 1 and names["again"].bad is names["b"] and names["good"].y == 2
    for call in (names["pkg"].bad.f, names["f"], names["b"]):
        with refused("pkg.bad"):
            call()
    assert not hasattr(real, "bad"), "the real module was touched"


def test_the_module_of_a_task_may_be_refused_itself(user):
    user.add(**{"pkg/__init__": "from . import part\nfrom .part import f\n", "pkg/part": "import heavy\ndef f(): return 3\n"})
    function = _refused.find("pkg", "f")  # as numpy.sum: numpy itself is what can't be imported
    with refused("pkg"):
        function()
    with refused("heavy"):
        _refused.find("heavy.linalg", "norm")()


def test_the_task_module_in_a_package(user):
    user.add(
        **{
            "pkg/__init__": "",
            "pkg/tasks": """
                import heavy
                from . import helper
                from .helper import g
                from .plain import h
                def f(): return 3
            """,
            "pkg/helper": "import heavy\ndef g(): return 4\n",
            "pkg/plain": "def h(): return 5\n",
        }
    )
    assert _refused.find("pkg.tasks", "f")() == 3
    assert _refused.find("pkg.tasks", "h")() == 5
    with refused("pkg.helper"):
        _refused.find("pkg.tasks", "g")()
    with refused("pkg.helper"):
        _refused.find("pkg.tasks", "helper").g()


def test_star_import(user):
    names = user("from heavy import *\nfrom json import *\n")
    assert "dumps" in names


def test_the_wrapper_is_gone_after_an_error(user):
    with pytest.raises(ZeroDivisionError):
        user("import heavy\n1 / 0\n")


def test_explain():
    try:
        try:
            raise ImportError("module thing._core._ext does not support loading in subinterpreters")
        except ImportError as error:
            raise ImportError("a long text\nwith advice") from error
    except ImportError as error:
        with refused("thing"):
            raise _refused.explain(error) from None
    assert _refused.explain(ImportError("no module named x")) is None
    assert _refused.explain(ValueError("subinterpreter")) is None
    pyo3 = _refused.explain(ImportError("PyO3 modules do not yet support subinterpreters, see …", name="orjson"))
    assert str(pyo3).startswith("orjson can't be used in an own-GIL interpreter")
