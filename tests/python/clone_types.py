"""What the tests of structured clone share; above all classes whose instances they send about, found by name in a module."""

import collections
import dataclasses
import enum
import typing

import isthmus as ist
import pytest


class Colour(enum.Enum):
    RED = 1
    BLUE = [2]  # noqa: RUF012


class Size(enum.IntEnum):
    SMALL = 1


class Word(enum.StrEnum):
    HELLO = "hello"


class Access(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2


@dataclasses.dataclass
class Point:
    x: object
    y: object = 0

    def __post_init__(self) -> None:
        ran.append("__post_init__")


@dataclasses.dataclass(frozen=True)
class Frozen:
    name: str
    parts: tuple[object, ...] = ()


@dataclasses.dataclass(slots=True)
class Slotted:
    a: object
    b: object = None


@dataclasses.dataclass
class Told:
    """Says what of it is pickled."""

    a: object
    b: object

    def __getstate__(self) -> object:
        return {"a": self.a, "b": "from its state"}


class ToldError(OSError):
    def __reduce__(self) -> tuple[typing.Any, ...]:
        return ToldError, ("reduced",)


@dataclasses.dataclass(slots=True, frozen=True)
class FrozenSlots:
    a: object


@dataclasses.dataclass(eq=False)
class Node:
    """Hashed by identity."""

    value: object = None
    links: object = None


@dataclasses.dataclass(init=False)
class Keyed:
    """Hashed by what is inside of it, which must be complete by then: the key is the last of its attributes."""

    other: object
    key: object

    def __init__(self, key: object, other: object = None) -> None:
        self.other = other
        self.key = key

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return type(other) is Keyed and self.key == other.key


@dataclasses.dataclass
class Hidden:
    """An attribute that a property of the class stands before."""

    value: int

    @property
    def twice(self) -> int:
        ran.append("property")
        return 2 * self.value

    @twice.setter
    def twice(self, value: int) -> None:
        ran.append("setter")

    def __setattr__(self, name: str, value: object) -> None:
        ran.append("__setattr__")
        super().__setattr__(name, value)


Pair = collections.namedtuple("Pair", "left right")


class Typed(typing.NamedTuple):
    name: str
    value: object = None


class Wordy(tuple):
    """Not a named tuple."""


class Loose(Pair):
    """A named tuple whose instances can have attributes."""


class Failure(Exception):
    def __init__(self, code: int, text: str) -> None:
        ran.append("__init__")
        super().__init__(f"{code}: {text}")
        self.code = code


class FileFailure(OSError):
    pass


class Money:
    """Registered by the tests that use it."""

    def __init__(self, amount: object, currency: object = "EUR") -> None:
        self.amount, self.currency = amount, currency

    def __eq__(self, other: object) -> bool:
        return type(other) is Money and (self.amount, self.currency) == (other.amount, other.currency)

    def __hash__(self) -> int:
        return hash((self.amount, self.currency))


class Plain:
    class Inner:
        pass

    @staticmethod
    def static() -> str:
        return "static"

    def method(self) -> None: ...


class MyInt(int):
    pass


class MyDict(dict):
    pass


def function() -> str:
    return "function"


ran: list[str] = []  # what decoding must never add to


def by_bytes(obj: object) -> typing.Any:
    return ist.loads(ist.dumps(obj))


WAYS = pytest.mark.parametrize("way", [ist.clone, by_bytes], ids=["clone", "bytes"])


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        try:
            raise KeyError("context")
        except KeyError:
            raise error from cause
    except BaseException as caught:
        return caught
