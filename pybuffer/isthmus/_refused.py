"""Stand-ins for modules that refuse to be imported in an own-GIL interpreter.

numpy is the best known of them. A script that begins with ``import numpy as np`` must still be usable in a worker, as
long as the task itself doesn't need numpy. So while user code's top level runs in a worker (the parent's script, or
the module a task comes from), an import that is refused gives a *placeholder* instead. Whatever a module may do with
it at its top level gives further placeholders: attributes, from-imports, subscripts, ``|`` in annotations, calls and
decorators, base classes, arithmetic on constants. Using one once the top level is done, and whatever has to give a
real value at any time (bool, len, iteration, comparison, isinstance), raises ImportError with the way out in its
text.

Placeholders are never put into sys.modules, and only the user's own modules get them: a library that tries a refused
module sees the true ImportError, because it may have another way. The placeholder stands for the outermost module
that the user imported and that is missing as a result, so its name is one the user knows.
"""

import builtins
import re
import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["explain", "find", "user_modules"]

# What CPython, Cython, PyO3, pybind11 and numpy say when they refuse. There is no exception type for it.
_REFUSAL = re.compile(
    r"subinterpreter|sub-interpreter|interpreter change detected"
    r"|only be loaded into one interpreter|more than once per process",
    re.IGNORECASE,
)
_OURS = "can't be used in an own-GIL interpreter"


def _text(module: str, reason: str) -> str:
    return f'{module} {_OURS}: use kind="process" for code that needs it ({reason})'


def _reason(error: BaseException | None) -> str | None:
    """Why an import was refused, in one line; None if it failed for another reason."""
    if _OURS in str(error):
        return None  # a placeholder was used; that error isn't about a further refused module
    found = None
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ImportError):
            for line in str(error).splitlines():
                if _REFUSAL.search(line):
                    found = line.strip()  # the innermost says it best: go on
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


# ---- placeholders --------------------------------------------------------------------------------------------------

_running = 0  # user modules whose top level is being run now: then a placeholder may be called, later not


class Placeholder:
    """Something of a refused module. Its own fields have names that hide no attribute of a real module."""

    _isthmus_module: str  # the refused module, as the error names it
    _isthmus_path: str  # what this object would be: "numpy.linalg.norm"
    _isthmus_reason: str  # why the module was refused, in one line

    def __init__(self, module: str, path: str, reason: str) -> None:
        set_field = object.__setattr__
        set_field(self, "_isthmus_module", module)
        set_field(self, "_isthmus_path", path)
        set_field(self, "_isthmus_reason", reason)
        set_field(self, "__name__", path.rpartition(".")[2])
        set_field(self, "__qualname__", path.rpartition(".")[2])

    def __repr__(self) -> str:
        return f"<placeholder for {self._isthmus_path}: {_text(self._isthmus_module, self._isthmus_reason)}>"

    def __getattr__(self, name: str) -> "Placeholder":
        if name == "__all__":
            return ()  # type: ignore[return-value]  # `from numpy import *`: nothing is known of its names
        if name.startswith("__") and name.endswith("__") and name != "__version__":
            # typing, inspect, functools and copy look for special names to find out what an object is: it is none of
            # those
            raise AttributeError(name)
        child = _derive(self, f".{name}")
        object.__setattr__(self, name, child)  # the same object next time: classes are compared by identity
        return child

    def __getitem__(self, key: object) -> "Placeholder":
        return _derive(self, "[…]")

    def __or__(self, other: object) -> "Placeholder":
        return _derive(self, " | …")

    __ror__ = __or__

    def __call__(self, *args: object, **kwargs: object) -> "Placeholder":
        return _derive_while_running(self, "(…)")

    def __setattr__(self, name: str, value: object) -> None:
        _derive_while_running(self, f".{name} = …")

    def __delattr__(self, name: str) -> None:
        _derive_while_running(self, f".{name}")

    def __setitem__(self, key: object, value: object) -> None:
        _derive_while_running(self, "[…] = …")

    def __delitem__(self, key: object) -> None:
        _derive_while_running(self, "[…]")

    def __enter__(self) -> "Placeholder":
        return _derive_while_running(self, ".__enter__()")

    def __exit__(self, *error: object) -> None:
        _derive_while_running(self, ".__exit__()")

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type]:
        base = self.__dict__.get("_isthmus_base")
        if base is None:
            names = {"_isthmus_placeholder": self, "__module__": __name__}
            base = type(str(self.__name__), (_RefusedBase,), names)
            object.__setattr__(self, "_isthmus_base", base)
        return (base,)

    def __format__(self, spec: str) -> str:
        if not _running:
            _refuse(self)
        return repr(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        _refuse(self)

    def __instancecheck__(self, instance: object) -> bool:
        _refuse(self)

    def __subclasscheck__(self, subclass: type) -> bool:
        _refuse(self)


def _derive(parent: Placeholder, step: str) -> Placeholder:
    return Placeholder(parent._isthmus_module, parent._isthmus_path + step, parent._isthmus_reason)


def _derive_while_running(parent: Placeholder, step: str) -> Placeholder:
    if not _running:
        _refuse(parent)
    return _derive(parent, step)


def _refuse(placeholder: Placeholder, *unused: object) -> NoReturn:
    module = placeholder._isthmus_module
    raise ImportError(_text(module, placeholder._isthmus_reason), name=module)


def _add_operators() -> None:
    def constant(self: Placeholder, *others: object) -> Placeholder:
        return _derive_while_running(self, " …")

    def value(self: Placeholder, *others: object) -> NoReturn:
        _refuse(self)

    binary = "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor"
    unary = "neg pos abs invert round trunc floor ceil"
    values = "bool len iter next reversed contains lt le gt ge int float complex index fspath await aiter aenter buffer"
    for name in binary.split():
        setattr(Placeholder, f"__{name}__", constant)
        setattr(Placeholder, f"__r{name}__", constant)
    for name in unary.split():
        setattr(Placeholder, f"__{name}__", constant)
    for name in values.split():
        setattr(Placeholder, f"__{name}__", value)


_add_operators()


class _RefusedBase:
    """What a class derives from whose base is a placeholder: it can be defined, not instantiated."""

    _isthmus_placeholder: Placeholder

    def __new__(cls, *args: object, **kwargs: object) -> Any:
        return _derive_while_running(cls._isthmus_placeholder, "(…)")

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Takes whatever the real base would take."""


class _Partial(ModuleType):
    """A module that could be imported, as seen by a user module that asked for a submodule of it which was refused.

    The real module isn't touched: libraries go on finding the submodule missing.
    """

    def __init__(self, real: ModuleType) -> None:
        super().__init__(real.__name__, real.__doc__)
        self.__dict__["_isthmus_real"] = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_isthmus_real"], name)


# ---- import --------------------------------------------------------------------------------------------------------

_user_modules: frozenset[str] = frozenset()  # whose import statements get placeholders
_placeholders: dict[str, Placeholder] = {}  # by the refused module's full name
_partials: dict[str, _Partial] = {}  # by the real module's name
_true_import: "Callable[..., Any]" = builtins.__import__


@contextmanager
def user_modules(*names: str) -> "Iterator[None]":
    """While it lasts, imports made by the modules of these names give placeholders where they are refused."""
    global _user_modules, _running, _true_import
    before = _user_modules
    if _running == 0:
        _true_import = builtins.__import__
        builtins.__import__ = _import
    _user_modules = before | frozenset(names)
    _running += 1
    try:
        yield
    finally:
        _running -= 1
        _user_modules = before
        if _running == 0 and builtins.__import__ is _import:
            builtins.__import__ = _true_import


def find(module: str, name: str) -> Any:
    """The object of a dotted name in a module, imported as a user module if need be. May be a placeholder."""
    found: Any = sys.modules.get(module)
    if found is None:
        with user_modules(module, __name__):
            found = _import(module, globals(), None, ("__name__",))
    for part in name.split("."):
        found = getattr(found, part)
    return found


def explain(error: BaseException) -> ImportError | None:
    """The error to show instead of a refused import that a task made itself; None for any other error."""
    reason = _reason(error)
    if reason is None:
        return None
    module = _top(_extension(reason) or getattr(error, "name", None) or "a module that is imported here")
    return ImportError(_text(module, reason), name=module)


def _import(
    name: str,
    globals: "Mapping[str, object] | None" = None,
    locals: "Mapping[str, object] | None" = None,
    fromlist: "Sequence[str] | None" = (),
    level: int = 0,
) -> Any:
    """Takes the place of builtins.__import__ while user_modules() lasts."""
    importer = globals.get("__name__") if globals is not None else None
    if importer not in _user_modules:
        return _true_import(name, globals, locals, fromlist, level)
    full_name = _absolute(name, globals or {}, level)
    known = _known_placeholder(full_name)
    if known is None:
        try:
            module = _true_import(name, globals, locals, fromlist, level)
        except Exception as error:
            reason = _reason(error)
            if reason is None or _is_part_of(str(importer), full_name, reason):
                raise
            refused = _outermost_missing(full_name)
            if refused is None:  # the module is there, but not everything that was to be imported from it
                return _import_each(full_name, fromlist or (), reason)
            known = _placeholders[refused] = Placeholder(refused, refused, reason)
        else:
            return module if fromlist else _partials.get(module.__name__, module)
    return _imported_from(known, full_name) if fromlist else _top_of(known, full_name)


def _is_part_of(importer: str, name: str, reason: str) -> bool:
    """Whether the importer itself is what is refused (a task may be numpy.sum): then its importer gets the placeholder.

    So it is if a package is refused a part of its own, or a module an extension of its own package.
    """
    extension = _extension(reason)
    return f"{name}.".startswith(f"{importer}.") or (extension is not None and _top(extension) == _top(importer))


def _extension(reason: str) -> str | None:
    named = re.search(r"module '?([\w.]+)'? does", reason)
    return named[1] if named else None


def _top(name: str) -> str:
    return name.partition(".")[0]


def _absolute(name: str, globals: "Mapping[str, object]", level: int) -> str:
    if level == 0:
        return name
    package = globals.get("__package__") or (globals["__name__"] if "__path__" in globals else str(globals["__name__"]).rpartition(".")[0])
    base = str(package).rsplit(".", level - 1)[0]
    return f"{base}.{name}" if name else base


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _known_placeholder(name: str) -> Placeholder | None:
    for prefix in _prefixes(name):
        if prefix in _placeholders:
            return _placeholders[prefix]
    return None


def _outermost_missing(name: str) -> str | None:
    for prefix in _prefixes(name):
        if prefix not in sys.modules:
            return prefix
    return None


def _imported_from(placeholder: Placeholder, name: str) -> Placeholder:
    """What `from name import …` takes its names from."""
    for part in name[len(placeholder._isthmus_path) :].split("."):
        if part:
            placeholder = getattr(placeholder, part)
    return placeholder


def _top_of(placeholder: Placeholder, name: str) -> Any:
    """What `import a.b.c` binds: a, or something like it that leads to the placeholder."""
    inner: Any = placeholder
    path = placeholder._isthmus_path
    while "." in path:
        path, _, last = path.rpartition(".")
        inner = _partial_with(path, last, inner)
    return inner


def _partial_with(module: str, name: str, value: object) -> _Partial:
    if module not in _partials:
        _partials[module] = _Partial(sys.modules[module])
    _partials[module].__dict__[name] = value
    return _partials[module]


def _import_each(module: str, names: "Sequence[str]", reason: str) -> Any:
    """`from module import names` where the module is there and at least one of the names, a submodule, was refused."""
    if "*" in names:
        names = getattr(sys.modules[module], "__all__", ())
    partial: Any = _partials.get(module, sys.modules[module])
    for name in names:
        try:
            _true_import(module, None, None, (name,), 0)
        except Exception as error:
            if _reason(error) is None:
                raise
            full_name = f"{module}.{name}"
            placeholder = _placeholders.setdefault(full_name, Placeholder(full_name, full_name, reason))
            partial = _partial_with(module, name, placeholder)
    return partial
