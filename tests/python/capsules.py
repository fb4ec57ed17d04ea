"""DLPack's, Arrow's and our own exchange's structures by ctypes: what a consumer finds in a capsule, and producers with any field."""

import ctypes
import threading
from typing import Any

_api = ctypes.pythonapi
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_GetName.restype = ctypes.c_char_p
_api.PyCapsule_GetName.argtypes = [ctypes.py_object]
_api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

# Constants: a capsule keeps the address of its name.
PLAIN, VERSIONED = b"dltensor", b"dltensor_versioned"
USED = {PLAIN: b"used_dltensor", VERSIONED: b"used_dltensor_versioned"}
SCHEMA, ARRAY = b"arrow_schema", b"arrow_array"
EXCHANGE = b"isthmus_segment"

READ_ONLY, IS_COPIED = 1, 2
Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class Plain(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64), ("tensor", Tensor),
    )  # fmt: skip


class ArrowSchema(ctypes.Structure):
    _fields_ = (
        ("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_char_p), ("flags", ctypes.c_int64),
        ("n_children", ctypes.c_int64), ("children", ctypes.c_void_p), ("dictionary", ctypes.c_void_p), ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )  # fmt: skip


class ArrowArray(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64), ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64), ("buffers", ctypes.POINTER(ctypes.c_void_p)), ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p), ("release", ctypes.c_void_p), ("private_data", ctypes.c_void_p),
    )  # fmt: skip


class Segment(ctypes.Structure):
    _fields_ = (("slot", ctypes.c_void_p), ("generation", ctypes.c_uint32), ("index", ctypes.c_uint32))


class Exchange(ctypes.Structure):
    """<isthmus/exchange.h>"""

    _fields_ = (
        ("version", ctypes.c_uint32), ("bytes", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("epoch", ctypes.c_uint32),
        ("segment", Segment), ("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("offset", ctypes.c_size_t),
        ("itemsize", ctypes.c_size_t), ("dtype", ctypes.c_char_p), ("format", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)), ("ndim", ctypes.c_int32),
        ("reserved", ctypes.c_int32), ("context", ctypes.c_void_p), ("retain", ctypes.c_void_p), ("release", ctypes.c_void_p),
    )  # fmt: skip


STRUCTURES = {PLAIN: Plain, VERSIONED: Versioned, SCHEMA: ArrowSchema, ARRAY: ArrowArray, EXCHANGE: Exchange}


def name_of(capsule: Any) -> bytes:
    return _api.PyCapsule_GetName(capsule)


def look(capsule: Any) -> Any:
    """The structure in a capsule, where it lies."""
    name = name_of(capsule)
    return STRUCTURES[name].from_address(_api.PyCapsule_GetPointer(capsule, name))


def take(capsule: Any) -> Any:
    """What a consumer of DLPack does: from now on the deleter is the caller's to call."""
    structure = look(capsule)
    _api.PyCapsule_SetName(capsule, USED[name_of(capsule)])
    return structure


def delete(structure: Any) -> None:
    """Without the GIL, as ctypes calls functions."""
    Deleter(structure.deleter)(ctypes.addressof(structure))


def move(structure: Any) -> Any:
    """What a consumer of Arrow does: a copy that is the only one with a release."""
    moved = type(structure).from_buffer_copy(structure)
    structure.release = None
    return moved


def release(structure: Any) -> None:
    Deleter(structure.release)(ctypes.addressof(structure))


def capsule(structure: Any, name: bytes) -> Any:
    """Without a destructor: the structure is the caller's to keep."""
    return _api.PyCapsule_New(ctypes.addressof(structure), name, None)


class Calls:
    """Counts the calls of a deleter or release, and says which threads made them."""

    def __init__(self, then: Any = None) -> None:
        self.threads: list[int] = []
        self.called = threading.Event()

        def call(address: int) -> None:
            self.threads.append(threading.get_ident())
            if then is not None:
                then(address)
            self.called.set()

        self.function = Deleter(call)
        self.address = ctypes.cast(self.function, ctypes.c_void_p).value

    def __len__(self) -> int:
        return len(self.threads)


class ArrowStream(ctypes.Structure):
    _fields_ = (
        ("get_schema", ctypes.c_void_p), ("get_next", ctypes.c_void_p), ("get_last_error", ctypes.c_void_p), ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )  # fmt: skip


Fetch = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class StreamProducer:
    """These arrays one after the other, and an error in place of the end."""

    def __init__(self, arrays: list["ArrowProducer"], error: int, format: bytes) -> None:
        self.arrays, self.at, self.schema = arrays, 0, ArrowProducer(format)

        def get_schema(stream: int, out: int) -> int:
            ctypes.memmove(out, ctypes.addressof(self.schema.schema), ctypes.sizeof(ArrowSchema))
            self.schema.schema.release = None
            return 0

        def get_next(stream: int, out: int) -> int:
            if self.at == len(arrays):
                ArrowArray.from_address(out).release = None
                return error
            ctypes.memmove(out, ctypes.addressof(arrays[self.at].array), ctypes.sizeof(ArrowArray))
            arrays[self.at].array.release = None
            self.at += 1
            return 0

        def release_stream(address: int) -> None:
            ArrowStream.from_address(address).release = None

        self.calls = Calls(release_stream)
        self.functions = Fetch(get_schema), Fetch(get_next)
        first, second = (ctypes.cast(f, ctypes.c_void_p).value for f in self.functions)
        self.structure = ArrowStream(first, second, None, self.calls.address, None)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return capsule(self.structure, b"arrow_array_stream")


_CODE: list[Any] = []  # functions that C may call, and their memory, stay, as those of an extension do


class ExchangeProducer:
    """int32 0, 1, 2, ... in C order, counted by functions of its own, but for the fields that are given."""

    def __init__(self, shape: tuple[int, ...] = (2, 3), *, name: bytes = EXCHANGE, **fields: Any) -> None:
        self.memory = (ctypes.c_int32 * 64)(*range(64))
        self.axes = (ctypes.c_int64 * len(shape))(*shape)
        self.retained, self.released = Calls(), Calls()
        _CODE.append(self)
        given: dict[str, Any] = {
            "version": 0x10000, "bytes": ctypes.sizeof(Exchange), "data": ctypes.addressof(self.memory), "size": 256, "itemsize": 4,
            "dtype": b"<i4", "shape": self.axes, "ndim": len(shape), "retain": self.retained.address, "release": self.released.address,
        }  # fmt: skip
        given.update(fields)
        given["shape"] = given.pop("axes", given["shape"])
        if isinstance(given.get("strides"), tuple):
            given["strides"] = (ctypes.c_int64 * len(shape))(*given["strides"])
        self.kept = given
        self.structure = Exchange(**given)
        self.capsule = capsule(self.structure, name)

    def __isthmus_segment__(self) -> Any:
        return self.capsule


def taken(a: Any) -> Exchange:
    """What another extension has when it has copied the structure and retained its copy; the capsule is gone."""
    held = a.__isthmus_segment__()
    return retained_copy(look(held))


def retained_copy(x: Any) -> Exchange:
    copy = Exchange.from_buffer_copy(x)
    copy.shape, copy.strides, copy.dtype, copy.format = None, None, None, None
    Deleter(copy.retain)(ctypes.addressof(copy))
    return copy


def let_go(copy: Exchange) -> None:
    Deleter(copy.release)(ctypes.addressof(copy))


class Offers:
    """Somebody else's object that offers on what it was given."""

    def __init__(self, copy: Exchange, shape: tuple[int, ...], dtype: bytes, **fields: Any) -> None:
        self.copy, self.shape = copy, (ctypes.c_int64 * len(shape))(*shape)
        self.structure = Exchange.from_buffer_copy(copy)
        self.structure.shape, self.structure.ndim, self.structure.dtype = self.shape, len(shape), dtype
        for name, value in fields.items():
            setattr(self.structure, name, value)

    def __isthmus_segment__(self) -> Any:
        return capsule(self.structure, EXCHANGE)


class DLPackProducer:
    """int32 0, 1, 2, ... in C order, but for the fields that are given."""

    def __init__(self, shape: tuple[int, ...] = (2, 3), *, version: tuple[int, int] | None = (1, 1), flags: int = 0, **fields: Any) -> None:
        count = 1
        for n in shape:
            count *= max(n, 0)
        self.memory = (ctypes.c_int32 * max(count, 64))(*range(max(count, 64)))
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        self.calls = Calls()
        self.asked: list[dict[str, Any]] = []
        self.device = (1, 0)
        tensor = {
            "data": ctypes.addressof(self.memory), "device_type": 1, "ndim": len(shape), "code": 0, "bits": 32, "lanes": 1,
            "shape": self.shape,
        }  # fmt: skip
        tensor.update(fields)
        if isinstance(tensor.get("strides"), tuple):
            tensor["strides"] = (ctypes.c_int64 * len(shape))(*tensor["strides"])
        self.kept = tensor
        if version is None:
            self.structure: Any = Plain(Tensor(**tensor), None, self.calls.address)
            self.capsule = capsule(self.structure, PLAIN)
        else:
            self.structure = Versioned(*version, None, self.calls.address, flags, Tensor(**tensor))
            self.capsule = capsule(self.structure, VERSIONED)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **asked: Any) -> Any:
        self.asked.append(asked)
        return self.capsule


class ArrowProducer:
    """The bytes as an Arrow array of that format; the memory is freed, and overwritten, by release."""

    def __init__(
        self,
        format: bytes = b"i",
        values: bytes = b"",
        length: int = 0,
        *,
        validity: bytes | None = None,
        n_buffers: int = 2,
        **fields: Any,
    ) -> None:
        self.values = ctypes.create_string_buffer(values, len(values) + 1)
        self.validity = None if validity is None else ctypes.create_string_buffer(validity, len(validity) + 1)
        first = None if self.validity is None else ctypes.addressof(self.validity)
        self.buffers = (ctypes.c_void_p * 2)(first, ctypes.addressof(self.values) if values else None)

        def release_array(address: int) -> None:
            ctypes.memset(self.values, 0xFF, len(self.values))
            ArrowArray.from_address(address).release = None

        def release_schema(address: int) -> None:
            ArrowSchema.from_address(address).release = None

        self.calls, self.schema_calls = Calls(release_array), Calls(release_schema)
        self.schema = ArrowSchema(format=format, name=b"", release=self.schema_calls.address)
        self.array = ArrowArray(length=length, n_buffers=n_buffers, buffers=self.buffers, release=self.calls.address)
        for name, value in fields.items():
            if name == "dictionary" or name.startswith("schema_"):
                setattr(self.schema, name.removeprefix("schema_"), value)
            else:
                setattr(self.array, name, value)

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return capsule(self.schema, SCHEMA), capsule(self.array, ARRAY)
