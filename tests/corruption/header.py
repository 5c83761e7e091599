"""Spoilt safetensors containers: the length word, the header, the places it names."""

import json
import struct
from collections.abc import Callable
from typing import Any

from corruption.checkpoint import WEIGHTS, Corruption
from corruption.files import DEEP, DIGITS, huge, rewritten

QUERY = "distilbert.transformer.layer.0.attention.q_lin.weight"
KEY = "distilbert.transformer.layer.0.attention.k_lin.weight"

Entry = dict[str, Any]


def split(data: bytes) -> tuple[bytes, bytes]:
    """A safetensors file -> its header's text and its tensors' bytes."""
    (length,) = struct.unpack("<Q", data[:8])
    return data[8 : 8 + length], data[8 + length :]


def join(header: bytes, tensors: bytes, length: int | None = None) -> bytes:
    """The inverse of split, with a length word that may lie."""
    return struct.pack("<Q", len(header) if length is None else length) + header + tensors


def raw(name: str, change: Callable[[bytes], bytes], *, structural: bool = True) -> Corruption:
    return rewritten(f"container: {name}", WEIGHTS, change, structural=structural)


def length(name: str, word: Callable[[bytes], int]) -> Corruption:
    """The length word says something else; the word is computed from the whole file."""
    return raw(f"header length {name}", lambda data: join(*split(data), word(data)))


def text(name: str, change: Callable[[bytes], bytes], *, structural: bool = True) -> Corruption:
    """The header's text changes, and its length word with it."""

    def apply(data: bytes) -> bytes:
        header, tensors = split(data)
        return join(change(header), tensors)

    return rewritten(f"header: {name}", WEIGHTS, apply, structural=structural)


def header(name: str, change: Callable[[dict[str, Any]], object]) -> Corruption:
    """The header's JSON changes in place."""

    def apply(data: bytes) -> bytes:
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()

    return text(name, apply)


def entry(name: str, change: Callable[[Entry], object], tensor: str = QUERY) -> Corruption:
    """One tensor's entry of the header gives way to another."""
    return header(name, lambda content: content.update({tensor: change(content[tensor])}))


def shape(name: str, *sizes: Any) -> Corruption:
    return entry(f"shape {name}", lambda old: old | {"shape": list(sizes)})


def offsets(name: str, change: Callable[[int, int], Any]) -> Corruption:
    return entry(
        f"offsets {name}", lambda old: old | {"data_offsets": change(*old["data_offsets"])}
    )


def without(key: str) -> Corruption:
    return entry(f"no {key}", lambda old: {k: v for k, v in old.items() if k != key})


def _twice(data: bytes) -> bytes:
    """The same name twice, once with another tensor's place."""
    content = json.loads(data)
    again = json.dumps({QUERY: content.pop(KEY)})
    return json.dumps(content).encode()[:-1] + b"," + again.encode()[1:]


def _add_empty_giant(content: dict[str, Any]) -> None:
    """2**32 x 2**32 elements: none at all where the product wraps around in 64 bits."""
    end = max(item["data_offsets"][1] for name, item in content.items() if name[0] != "_")
    content["giant"] = {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [end, end]}


CONTAINER = [
    *(raw(f"only {size} bytes", lambda data, size=size: data[:size]) for size in (0, 1, 7, 8, 9)),
    raw("cut inside the header", lambda data: data[: 8 + len(split(data)[0]) // 2]),
    raw("cut after the header", lambda data: data[: 8 + len(split(data)[0])]),
    raw("half of it", lambda data: data[: len(data) // 2]),
    raw("last byte cut off", lambda data: data[:-1]),
    raw("first byte cut off", lambda data: data[1:]),
    raw("a byte after the data", lambda data: data + b"\0"),
    raw("a megabyte after the data", lambda data: data + b"\xaa" * 2**20),
    raw(
        "a byte between header and data",
        lambda data: join(*split(data)[:1], b"\0" + split(data)[1]),
    ),
    raw("a text file", lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    raw("all zeros", lambda data: bytes(len(data))),
    raw("all ones", lambda data: b"\xff" * len(data)),
    raw("a zip archive", lambda data: b"PK\x03\x04" + data),
    length("0", lambda data: 0),
    length("1", lambda data: 1),
    length("one too small", lambda data: len(split(data)[0]) - 1),
    length("one too large", lambda data: len(split(data)[0]) + 1),
    length("up to the file's end", lambda data: len(data) - 8),
    length("beyond the file", lambda data: len(data)),
    length("2**31", lambda data: 2**31),
    length("2**63", lambda data: 2**63),
    length("2**64 - 1", lambda data: 2**64 - 1),
    length("2**64 - 8", lambda data: 2**64 - 8),  # 8 + length wraps to 0 in 64 bits
    raw("length word with its bytes reversed", lambda data: data[7::-1] + data[8:]),
    huge("container: header of 250 MB", WEIGHTS, struct.pack("<Q", 250 * 10**6) + b'{"'),
    raw(
        "20 MB of spaces in the header",
        lambda data: join(split(data)[0] + b" " * 20_000_000, split(data)[1]),
        structural=False,
    ),
]

HEADER = [
    text("not UTF-8", lambda data: data.replace(b"q_lin", b"q_\xff\xfe", 1)),
    text("UTF-16", lambda data: data.decode().encode("utf-16-le")),
    text("not JSON", lambda data: data.replace(b":", b"=", 1)),
    text("an array", lambda data: b"[" + data.rstrip() + b"]"),
    text("a string", lambda data: json.dumps(data.decode()).encode()),
    text("a number", lambda data: b"12345678"),
    text("null", lambda data: b"null"),
    text("empty", lambda data: b""),
    text("an empty object", lambda data: b"{}"),
    text("only metadata", lambda data: b'{"__metadata__": {"format": "pt"}}'),
    text("deep arrays", lambda data: b"[" * DEEP + b"]" * DEEP),
    text("deep objects", lambda data: b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    text("a deep entry, never closed", lambda data: data.rstrip()[:-1] + b',"a":' + b"[" * DEEP),
    text("two objects", lambda data: data.rstrip() + b" {}"),
    text("one name twice, for two places", _twice),
    text("a NUL in the text", lambda data: data.replace(b":", b"\0", 1)),
    text("offsets NaN", lambda data: data.replace(b'"data_offsets":[0,', b'"data_offsets":[NaN,')),
    text(
        "offsets Infinity",
        lambda data: data.replace(b'"data_offsets":[0,', b'"data_offsets":[-Infinity,'),
    ),
    text(
        "offsets of 10,000 digits",
        lambda data: data.replace(b'"data_offsets":[0,', b'"data_offsets":[%s,' % DIGITS.encode()),
    ),
    text(
        "shape of 10,000 digits",
        lambda data: data.replace(b'"shape":[', b'"shape":[%s,' % DIGITS.encode(), 1),
    ),
    text(
        "shape of 4,000 digits",
        lambda data: data.replace(b'"shape":[', b'"shape":[%s,' % DIGITS[:4000].encode(), 1),
    ),
    text("a lone surrogate in a name", lambda data: data.replace(b"q_lin", b"q_\\ud800lin", 1)),
    text("a NUL in a name", lambda data: data.replace(b"q_lin", b"q_\\u0000lin", 1)),
    text("a byte order mark", lambda data: b"\xef\xbb\xbf" + data, structural=False),
    text("spaces before", lambda data: b"   " + data, structural=False),
    text(
        "line ends inside",
        lambda data: json.dumps(json.loads(data), indent=2).encode(),
        structural=False,
    ),
    *(
        entry(f"entry is {name}", lambda old, value=value: value)
        for name, value in {"null": None, "a list": [1, 2], "a string": "F32", "empty": {}}.items()
    ),
    without("dtype"),
    without("shape"),
    without("data_offsets"),
    entry("unknown dtype", lambda old: old | {"dtype": "F31"}),
    entry("dtype a number", lambda old: old | {"dtype": 32}),
    entry("dtype a list", lambda old: old | {"dtype": ["F32"]}),
    entry("dtype of another width", lambda old: old | {"dtype": "F64"}),
    shape("negative twice", -24, -24),  # whose product fits
    shape("of floats", 24.0, 24.5),
    shape("of strings", "24", "24"),
    shape("of bools", True, 576),
    shape("of null", None, 24),
    shape("with a zero", 0, 24),
    shape("of 10**12", 10**12, 24),
    shape("whose product overflows", 2**32, 2**32),
    shape("whose product wraps to the true one", 2**63 + 288, 2),
    shape("of 1000 dimensions", *[1] * 999, 576),
    shape("of no dimensions"),
    shape("nested", [24, 24]),
    entry("shape a number", lambda old: old | {"shape": 576}),
    entry("shape an object", lambda old: old | {"shape": {"0": 24, "1": 24}}),
    header("an empty tensor whose size overflows", _add_empty_giant),
    offsets("negative", lambda start, end: [start - 10**6, end - 10**6]),
    offsets("reversed", lambda start, end: [end, start]),
    offsets("beyond the end", lambda start, end: [start + 10**6, end + 10**6]),
    offsets("of 10**15", lambda start, end: [start, 10**15]),
    offsets("of 2**64", lambda start, end: [start + 2**64, end + 2**64]),
    offsets("of floats", lambda start, end: [start + 0.5, end + 0.5]),
    offsets("of strings", lambda start, end: [str(start), str(end)]),
    offsets("of bools", lambda start, end: [False, True]),
    offsets("of null", lambda start, end: None),
    offsets("of one number", lambda start, end: [start]),
    offsets("of three numbers", lambda start, end: [start, end, end]),
    offsets("a few bytes aside", lambda start, end: [start + 2, end + 2]),
    offsets("too short for the shape", lambda start, end: [start, end - 4]),
    header(
        "two tensors in one place",
        lambda content: content[KEY].update(data_offsets=content[QUERY]["data_offsets"]),
    ),
    header("a hole in the data", lambda content: content.pop(QUERY)),
]
