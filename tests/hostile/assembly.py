"""Files of torch.save by hand, opcode by opcode, in both formats: sound ones, and any others."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

MAGIC = 0x1950A86A20F9469CFC6C
NUMBERS = bytes.fromhex("00000000 0000803f 00000040 00004040 00008040 0000a040")  # 0 to 5, float32
DATE = (1980, 1, 1, 0, 0, 0)


def wrapped(*parts: bytes, protocol: int = 2) -> bytes:
    return b"\x80%c" % protocol + b"".join(parts) + b"."


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def value(x: Any) -> bytes:
    """The opcodes that push a value; bytes are opcodes already."""
    if isinstance(x, bytes):
        return x
    if x is None or isinstance(x, bool):
        return b"N" if x is None else (b"\x88" if x else b"\x89")
    if isinstance(x, int):
        long = x.to_bytes(x.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a%c" % len(long) + long
    if isinstance(x, str):
        return b"X" + len(x.encode()).to_bytes(4, "little") + x.encode()
    if isinstance(x, dict):
        return b"}(" + b"".join(value(k) + value(v) for k, v in x.items()) + b"u"
    inner = b"(" + b"".join(map(value, x))
    return inner + b"t" if isinstance(x, tuple) else b"]" + inner + b"e"


ORDERED = name("collections", "OrderedDict")
REBUILD = name("torch._utils", "_rebuild_tensor_v2")
PARAMETER = name("torch._utils", "_rebuild_parameter")
FLOAT = name("torch", "FloatStorage")


def storage(kind: bytes = FLOAT, key: Any = "0", numel: Any = 6) -> bytes:
    return value(("storage", kind, key, "cpu", numel)) + b"Q"


def tensor(
    *, shape: Any = (6,), strides: Any = (1,), offset: Any = 0, hooks: bytes = ORDERED + b")R",
    within: bytes | None = None, **place: Any,
) -> bytes:  # fmt: skip
    """A tensor, sound as long as nothing is said."""
    inside = storage(**place) if within is None else within
    return REBUILD + value((inside, offset, shape, strides, False, hooks)) + b"R"


def dictionary(**items: bytes) -> bytes:
    return wrapped(value(items))


def zipped(
    pickled: bytes, more: Mapping[str, bytes] | None = None, *, packed: bool = False,
    storages: Mapping[str, bytes] | None = None, top: str = "archive",
) -> bytes:  # fmt: skip
    """An archive with a pickle, the six numbers of storage 0, and more entries."""
    stream = io.BytesIO()
    how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    entries = {"data.pkl": pickled, **(more or {})}
    numbers = {"0": NUMBERS} if storages is None else storages
    entries |= {f"data/{key}": content for key, content in numbers.items()}
    with zipfile.ZipFile(stream, "w", how) as archive:
        for entry, content in entries.items():
            archive.writestr(zipfile.ZipInfo(f"{top}/{entry}", DATE), content, how)
    return stream.getvalue()


def legacy(
    pickled: bytes, *, keys: Sequence[Any] = ("0",), little: bool = True, protocol: int = 1001,
    numel: int = 6, system: bytes | None = None, listing: bytes | None = None,
    storages: Mapping[str, bytes] | None = None,
) -> bytes:  # fmt: skip
    """A file of the older format, with the six numbers of storage 0, or with other storages."""
    head = wrapped(value(MAGIC)) + wrapped(value(protocol))
    head += system or wrapped(value({"little_endian": little}))
    tail = listing or wrapped(value(list(keys if storages is None else storages)))
    numbers = (
        [(numel, NUMBERS)]
        if storages is None
        else [(len(content) // 4, content) for content in storages.values()]
    )
    return (
        head
        + pickled
        + tail
        + b"".join(count.to_bytes(8, "little", signed=True) + content for count, content in numbers)
    )


def bare(pickled: bytes) -> bytes:
    """A pickle and nothing else."""
    return pickled
