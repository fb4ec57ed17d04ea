"""What takes a buffer, an array or Arrow data takes a SharedArray, and sees its memory."""

import array
import asyncio
import ctypes
import gc
import hashlib
import io
import socket
import struct
import tempfile
import threading
import zlib
from typing import Any

import isthmus as ist
import pytest

pytestmark = pytest.mark.matrix


def module(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} isn't installed for this Python")


def some() -> ist.SharedArray[Any]:
    return ist.array(range(1000), "i4")


def values() -> bytes:
    return struct.pack("=1000i", *range(1000))


# ---- the standard library -----------------------------------------------------------------------------------------------------


def test_array() -> None:
    a = some()
    assert array.array("i", a.tolist()) == array.array("i", range(1000))
    b = array.array("i")
    b.frombytes(a.data.cast("B"))  # as for a memoryview of ints
    assert b.tobytes() == values()
    a[:] = array.array("i", [7]) * 1000
    assert a.sum() == 7000


def test_struct() -> None:
    a = some()
    assert struct.unpack_from("=3i", a, 8) == (2, 3, 4)
    struct.pack_into("=2i", a, 40, -1, -2)
    assert a[9:13].tolist() == [9, -1, -2, 12]
    assert [x for (x,) in struct.iter_unpack("=i", a[:3])] == [0, 1, 2]
    with pytest.raises(TypeError, match="read-write"):
        struct.pack_into("=i", a.toreadonly(), 0, 1)


def test_ctypes() -> None:
    a = some()
    c = (ctypes.c_int32 * 1000).from_buffer(a)
    c[5] = 77
    assert a[5] == 77 and a.segment.exports == 1
    a.release()
    assert c[5] == 77 and len(ist.segments()) == 1
    del c
    gc.collect()
    assert ist.segments() == []


def test_hashlib_and_zlib() -> None:
    a = some()
    for data in (a, a.toreadonly(), a.data):
        assert hashlib.sha256(data).digest() == hashlib.sha256(values()).digest()
        assert zlib.crc32(data) == zlib.crc32(values())
        assert zlib.decompress(zlib.compress(data)) == values()
    large = ist.zeros(1 << 20, "u1")
    assert hashlib.sha256(large).digest() == hashlib.sha256(bytes(1 << 20)).digest()  # without the GIL


def test_sendmsg_and_recvmsg_into() -> None:
    a = some()
    left, right = socket.socketpair()
    b = ist.zeros(1000, "i4")
    with left, right:
        assert left.sendmsg([a[:250], a[250:1000], a[:0]]) == 4000
        got = 0
        while got < 4000:
            got += right.recvmsg_into([b.view("u1")[got:2000], b.view("u1")[max(got, 2000) :]])[0]
        assert b == a
        left.sendall(a[::-1].copy())
        with right.makefile("rb") as file:
            assert file.readinto(b) == 4000
    assert b[0] == 999


def test_readinto_and_write() -> None:
    a = some()
    with tempfile.TemporaryFile() as file:
        assert file.write(a) == 4000
        file.seek(0)
        b = ist.zeros(1000, "i4")
        assert file.readinto(b) == 4000 and b == a
        file.seek(0)
        assert io.FileIO(file.fileno(), closefd=False).readinto(b[500:]) == 2000 and b[500] == 0
    assert io.BytesIO(values()).readinto(a) == 4000
    with pytest.raises(TypeError, match="read-write"):
        io.BytesIO(values()).readinto(a.toreadonly())


def test_asyncio_streams() -> None:
    a = some()
    b = ist.zeros(1000, "i4")

    async def main() -> None:
        left, right = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=left)
        reader, other = await asyncio.open_connection(sock=right)
        writer.write(a.data)
        writer.writelines([a.data[:10].cast("B"), a.toreadonly().data[10:].cast("B")])
        await writer.drain()
        assert await reader.readexactly(4000) == values()
        b.data.cast("B")[:] = await reader.readexactly(4000)
        for w in (writer, other):
            w.close()
            await w.wait_closed()

    asyncio.run(main())
    assert b == a


# ---- the others ---------------------------------------------------------------------------------------------------------------


def test_numpy() -> None:
    np = module("numpy")
    a = some()
    address = a.address
    for seen in (np.asarray(a), np.from_dlpack(a), np.frombuffer(a, "i4"), np.asarray(a.data), np.array(a, copy=False)):
        assert seen.__array_interface__["data"][0] == address
        sums = seen.sum(), a.sum()
        assert sums[0] == sums[1]
    assert np.concatenate([a, a]).shape == (2000,)
    assert np.add(a, 1).dtype == np.int32


def test_pyarrow() -> None:
    pa = module("pyarrow")
    a = some()
    x = pa.array(a)
    table = pa.table({"x": x, "y": a})
    assert x.buffers()[1].address == a.address and pa.py_buffer(a).address == a.address
    assert table.column("y").to_pylist() == list(range(1000))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    read = pa.ipc.open_stream(sink.getvalue()).read_all()
    b = ist.from_arrow(read.column("x").chunk(0))
    del read, sink, table, x
    assert b == a
    assert b.make_writable().segment.id != b.segment.id


def test_pandas() -> None:
    pd, np = module("pandas"), module("numpy")
    a = some()
    series = pd.Series(np.asarray(a), copy=False)
    total, address = series.sum(), series.to_numpy().__array_interface__["data"][0]
    assert total == 499500 and address == a.address
    if hasattr(pd.Series, "from_arrow"):
        module("pyarrow")
        assert pd.Series.from_arrow(a).tolist() == a.tolist()
    frame = pd.DataFrame({"x": np.asarray(a), "t": np.asarray(ist.zeros(1000, "M8[ns]"))})
    assert ist.array(frame["x"].to_numpy()) == a
    assert ist.asarray(frame["t"].to_numpy()).dtype == "M8[ns]"


def test_polars() -> None:
    pl = module("polars")
    a = some()
    x = pl.Series("x", a)
    assert x.dtype == pl.Int32 and x.sum() == 499500
    assert pl.DataFrame({"x": a, "y": ist.zeros(1000)}).shape == (1000, 2)
    np = module("numpy")
    assert ist.array(x.to_numpy()) == a and ist.from_dlpack(np.asarray(x)) == a


def test_torch() -> None:
    torch = module("torch")
    a = some()
    t = torch.from_dlpack(a)
    t[3] = 33
    assert a[3] == 33 and t.data_ptr() == a.address
    assert ist.from_dlpack(t) == a
    with pytest.raises(BufferError):
        a.freeze()
    kept = [t]
    del t
    thread = threading.Thread(target=kept.clear)  # its deleter runs there
    thread.start()
    thread.join(60)
    assert a.owners == 1


def test_jax() -> None:
    jax = module("jax")
    a = some()
    x = jax.dlpack.from_dlpack(a)
    assert int(x.sum()) == 499500
    assert ist.from_dlpack(x) == a
