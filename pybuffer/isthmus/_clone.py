"""What structured clone (pybuffer/clone*.c) leaves to Python: some types of the standard library, numpy's scalars, names, pickles.

Loaded when it is first needed. A type here has a name in messages, an encode and a decode function, as one that was given to
``isthmus.register_type()``; what a decode function gets may come from anywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ._core import SharedArray, dtype

__all__ = [
    "MAIN_NAMES",
    "find",
    "find_global",
    "flags",
    "imported",
    "is_plain",
    "lies_in",
    "make_time",
    "of_name",
    "of_type",
    "pickling",
    "time_parts",
    "unpickling",
]

Entry = tuple[str, Callable[[Any], Any], Callable[[Any], Any]]


def _loaded(module: str, trusted: bool) -> Any:
    if trusted and module not in sys.modules:
        __import__(module)
    return sys.modules.get(module)


def _decimal(cls: Any) -> tuple[Any, Any]:
    return str, lambda value: cls(_checked(value, str))


def _fraction(cls: Any) -> tuple[Any, Any]:
    def decode(value: Any) -> Any:
        numerator, denominator = _checked(value, tuple)
        if type(numerator) is not int or type(denominator) is not int or denominator <= 0:
            raise ValueError(f"not a fraction: {value!r}")
        fraction = object.__new__(cls)  # in lowest terms already; to find that out takes long for long numbers
        fraction._numerator, fraction._denominator = numerator, denominator
        return fraction

    return lambda fraction: (fraction.numerator, fraction.denominator), decode


def _uuid(cls: Any) -> tuple[Any, Any]:
    safe = type(cls(int=0).is_safe)

    def decode(value: Any) -> Any:
        number, kind = _checked(value, tuple)
        return cls(int=_checked(number, int), is_safe=safe(kind))

    return lambda uuid: (uuid.int, uuid.is_safe.value), decode


def _path(cls: Any) -> tuple[Any, Any]:
    return str, lambda value: cls(_checked(value, str))


def _zone(cls: Any) -> tuple[Any, Any]:
    def encode(zone: Any) -> str:
        if zone.key is None:
            raise TypeError(f"a time zone that has no key can't be cloned: {zone!r}")
        return str(zone.key)

    return encode, lambda value: cls(_checked(value, str))


def _scalar(cls: Any) -> tuple[Any, Any]:
    import numpy

    def encode(scalar: Any) -> tuple[str, bytes]:
        if not is_plain(scalar):
            raise TypeError(f"a numpy scalar of dtype {scalar.dtype} can't be cloned")
        return scalar.dtype.str, scalar.tobytes()

    def decode(value: Any) -> Any:
        dtype, contents = _checked(value, tuple)
        return numpy.frombuffer(_checked(contents, bytes), _checked(dtype, str), 1)[0]

    return encode, decode


_MAKERS: dict[tuple[str, str], Callable[[Any], tuple[Any, Any]]] = {
    ("decimal", "Decimal"): _decimal,
    ("fractions", "Fraction"): _fraction,
    ("uuid", "UUID"): _uuid,
    ("zoneinfo", "ZoneInfo"): _zone,
    **{("pathlib", name): _path for name in ("PurePosixPath", "PureWindowsPath", "PosixPath")},
    ("numpy", "generic"): _scalar,
}
_entries: dict[str, Entry] = {}  # name in messages -> entry, of those that were used


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
    return value


def _entry(module: str, name: str, cls: Any) -> Entry:
    key = f"{module}.{name}"
    if key not in _entries:
        _entries[key] = (key, *_MAKERS[module, name](cls))
    return _entries[key]


def of_type(cls: type) -> Entry | None:
    """How instances of this class are cloned; None: isn't known here."""
    for module, name in _MAKERS:
        found = getattr(sys.modules.get(module), name, None)
        if found is cls or (name == "generic" and found is not None and issubclass(cls, found) and cls.__module__ == "numpy"):
            return _entry(module, name, found)
    return None


def of_name(key: str, trusted: bool) -> Entry | type | None:
    """The same by its name in a message; nothing is imported unless the message is trusted.

    ``module:name`` was registered where the message comes from. Then the class, if it is found here: importing its module may have
    registered it, and what is of the script has another name in a worker.
    """
    module, colon, name = key.partition(":")
    if colon:
        return _class(module, name) if trusted else None
    module, _, name = key.rpartition(".")
    if (module, name) not in _MAKERS:
        return None
    found = getattr(_loaded(module, trusted), name, None)
    return None if found is None else _entry(module, name, found)


def _class(module: str, name: str) -> type | None:
    try:
        found = find(module, name)
    except AttributeError:
        return None
    return found if isinstance(found, type) else None


def flags(cls: Any, value: int) -> Any:
    """Several members of a Flag at once, by their number; None if that isn't one. The class's own code doesn't run."""
    import enum

    if value in cls._value2member_map_:
        return cls._value2member_map_[value]
    own = vars(enum.Flag)["_missing_"].__func__
    if not issubclass(cls, enum.Flag) or getattr(cls._missing_, "__func__", cls) is not own:
        return None
    try:
        return own(cls, value)
    except ValueError:
        return None


_DATE, _TIME, _DATETIME, _ZONED_TIME, _ZONED_DATETIME, _TIMEDELTA, _UTC, _TIMEZONE = range(8)  # as in <isthmus/clone.h>


def _date_bytes(date: Any) -> bytes:
    return bytes((date.year & 0xFF, date.year >> 8, date.month, date.day))


def _clock_bytes(clock: Any) -> bytes:
    return bytes((clock.hour, clock.minute, clock.second, clock.fold)) + int(clock.microsecond).to_bytes(4, "little")


def _delta_bytes(delta: Any) -> bytes:
    return b"".join(n.to_bytes(4, "little", signed=True) for n in (delta.days, delta.seconds, delta.microseconds))


def time_parts(obj: Any) -> tuple[Any, ...] | None:
    """Kind, bytes and perhaps an item of a date or time, where the datetime module is written in Python; None: it is none."""
    import datetime

    kind, zone = type(obj), getattr(obj, "tzinfo", None)
    if kind is datetime.datetime:
        data = _date_bytes(obj) + _clock_bytes(obj)
        return (_DATETIME, data) if zone is None else (_ZONED_DATETIME, data, zone)
    if kind is datetime.time:
        return (_TIME, _clock_bytes(obj)) if zone is None else (_ZONED_TIME, _clock_bytes(obj), zone)
    if kind is datetime.date:
        return _DATE, _date_bytes(obj)
    if kind is datetime.timedelta:
        return _TIMEDELTA, _delta_bytes(obj)
    if kind is not datetime.timezone:
        return None
    offset, *name = obj.__getinitargs__()
    return (_UTC, b"") if obj is datetime.UTC else (_TIMEZONE, _delta_bytes(offset), *(name or (None,)))


def make_time(kind: int, data: bytes, item: Any) -> Any:
    """The date or time of these."""
    import datetime

    def number(at: int) -> int:
        return int.from_bytes(data[at : at + 4], "little", signed=True)

    def clock(at: int) -> datetime.time:
        return datetime.time(data[at], data[at + 1], data[at + 2], number(at + 4), item, fold=data[at + 3])

    if kind in (_DATE, _DATETIME, _ZONED_DATETIME):
        date = datetime.date(int.from_bytes(data[:2], "little"), data[2], data[3])
        return date if kind == _DATE else datetime.datetime.combine(date, clock(4))
    if kind in (_TIME, _ZONED_TIME):
        return clock(0)
    if kind == _UTC:
        return datetime.UTC
    delta = datetime.timedelta(number(0), number(4), number(8))
    return delta if kind == _TIMEDELTA else datetime.timezone(delta, *(() if item is None else (item,)))


def is_plain(ndarray: Any) -> bool:
    """Whether elements arrive as what they are: numpy's own kinds, no objects, no titles or metadata that an array's dtype hasn't."""
    theirs = ndarray.dtype
    if theirs.kind in "biufc":
        return bool(theirs.num < 256 and theirs.metadata is None)
    if theirs.hasobject or theirs.metadata is not None or (theirs.kind == "V" and theirs.type.__name__ != "void"):
        return False
    try:
        back: Any = dtype(theirs).__numpy_dtype__
    except (TypeError, ValueError):
        return False
    return bool(back == theirs and back.fields == theirs.fields and back.isalignedstruct == theirs.isalignedstruct)


# ---- names in trusted messages -------------------------------------------------------------------------------------

MAIN_NAMES = ("__main__", "__mp_main__")  # the script, and the script as a worker runs it again
finder: Callable[[str, str], Any] | None = None  # in a worker: how it finds what its parent names


def find(module: str, name: str) -> Any:
    """The object of a dotted name in a module, which is imported if need be. ImportError, AttributeError."""
    return (finder or imported)(module, name)


def imported(module: str, name: str) -> Any:
    """The same where nobody knows better."""
    if module == "__mp_main__" and module not in sys.modules:
        module = "__main__"  # what a worker calls the script is called this here
    found = _loaded(module, True)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def find_global(module: str, name: str) -> Any:
    """The same, and None for what a module that is there hasn't; a worker tells more about it."""
    try:
        return find(module, name)
    except AttributeError:
        if finder is not None:
            raise
        return None


# ---- pickles -------------------------------------------------------------------------------------------------------


def pickling(*arguments: Any) -> Callable[[object], tuple[Any, ...]]:
    """Makes the pickles of a message."""
    from ._fallback import Pickling

    return Pickling(*arguments)


def unpickling(lent: list[SharedArray[Any]] | None) -> Callable[[tuple[Any, ...]], Any]:
    """Loads the pickles of a message."""
    from ._fallback import Unpickling

    return Unpickling(lent)


def lies_in(ndarray: Any, lent: list[SharedArray[Any]]) -> SharedArray[Any] | None:
    from ._fallback import lies_in

    return lies_in(ndarray, lent)
