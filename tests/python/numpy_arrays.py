"""Random dtypes and contents, made by numpy, which is the oracle of the tests that use them."""

from random import Random
from typing import Any

import numpy as np

ORDERED = ["i2", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16", "U1", "U3", "M8[ns]", "M8[D]", "M8[3Y]", "m8[s]", "m8[7ms]"]
SIMPLE = ["?", "i1", "u1", "g", "G", "S1", "S5", "V1", "V7", "m8", *(order + name for name in ORDERED for order in "<>")]
NAMES = ["a", "bc", "x y", "ü", "f0", "f1", "z"]


def simple_dtype(rng: Random) -> np.dtype[Any]:
    return np.dtype(rng.choice(SIMPLE))


def _field(rng: Random, depth: int) -> np.dtype[Any]:
    inner = simple_dtype(rng) if rng.random() < 0.7 or depth > 2 else struct_dtype(rng, depth + 1)
    if rng.random() < 0.2:
        return np.dtype((inner, (rng.randint(1, 3),) * rng.randint(1, 2)))
    return inner


def struct_dtype(rng: Random, depth: int = 0) -> np.dtype[Any]:
    """Fields side by side, or aligned, or with gaps; seldom out of order."""
    names = rng.sample(NAMES, rng.randint(1, 4))
    formats = [_field(rng, depth) for _ in names]
    kind = rng.random()
    if kind < 0.7:
        return np.dtype(list(zip(names, formats, strict=True)), align=kind > 0.5)
    offsets, end = [], 0
    for format in formats:
        offsets.append(end + rng.randint(0, 3))
        end = offsets[-1] + format.itemsize
    if rng.random() < 0.2:
        names.reverse(), formats.reverse(), offsets.reverse()
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": end + rng.randint(0, 3)})


def any_dtype(rng: Random) -> np.dtype[Any]:
    return simple_dtype(rng) if rng.random() < 0.4 else struct_dtype(rng)


def _value(rng: Random, dtype: np.dtype[Any]) -> Any:
    match dtype.kind:
        case "b":
            return rng.random() < 0.5
        case "i" | "u":
            return rng.randint(0, 100)
        case "f":
            return rng.choice([0, 1.5, -2.25, 1e3])
        case "c":
            return complex(rng.randint(0, 5), rng.randint(0, 5))
        case "S":
            return bytes(rng.choice(b"abc\0") for _ in range(rng.randint(0, dtype.itemsize)))
        case "U":
            return "".join(rng.choice("aüλ\U0001f600") for _ in range(rng.randint(0, dtype.itemsize // 4)))
        case _:
            return bytes(rng.randint(0, 255) for _ in range(dtype.itemsize))


def filled(rng: Random, dtype: np.dtype[Any], shape: tuple[int, ...]) -> "np.ndarray[Any, Any]":
    array = np.zeros(shape, dtype)
    if dtype.names is not None:
        for name in dtype.names:
            array[name] = filled(rng, dtype.fields[name][0].base, array[name].shape)
        return array
    flat = array.reshape(-1)
    for i in range(flat.size):
        if dtype.kind in "mM":
            flat.view("i8" if dtype.isnative else ">i8")[i] = rng.choice([0, 1, -1, 100, 17000, -(2**63)])
        else:
            flat[i] = _value(rng, dtype)
    return array


def plain(value: Any) -> Any:
    """tolist() hands out ndarrays for sub-arrays, and long doubles: as lists and floats."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    if isinstance(value, np.longdouble):
        return float(value)
    if isinstance(value, np.clongdouble):
        return complex(value)
    return value


def key(rng: Random, ndim: int) -> tuple[Any, ...]:
    """A basic index of an array whose axes have two elements at least."""
    keys: list[Any] = []
    for _ in range(ndim):
        kind = rng.random()
        if kind < 0.4:
            keys.append(rng.choice([slice(None), slice(None, None, -1), slice(1, None), slice(0, 2), slice(None, None, 2), slice(5, 9)]))
        elif kind < 0.7:
            keys.append(rng.choice([0, 1, -1]))
        elif kind < 0.85:
            keys += [None, slice(None)]
        else:
            break
    if rng.random() < 0.3:
        keys.insert(rng.randint(0, len(keys)), Ellipsis)
    return tuple(keys)
