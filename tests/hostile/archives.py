"""Hostile zip archives around a pickle that is sound."""

import io
import struct
import warnings
import zipfile
from collections.abc import Callable

from hostile.assembly import DATE, NUMBERS, dictionary, tensor, zipped

SOUND = dictionary(a=tensor())
MANY = 40_000  # entries


def with_entry(name: str, content: bytes = b"x", *, mode: int = 0) -> bytes:
    """A sound archive and one entry more, with a name as it is."""
    stream = io.BytesIO(zipped(SOUND))
    with zipfile.ZipFile(stream, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice
        entry = zipfile.ZipInfo(name, DATE)
        entry.external_attr = mode << 16
        archive.writestr(entry, content)
    return stream.getvalue()


def bomb(megabytes: int) -> bytes:
    """Zeros, never held at once."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("archive/data.pkl", "w") as member,
    ):
        for _ in range(megabytes):
            member.write(bytes(10**6))
    return stream.getvalue()


def spoilt(entry: str, field: str, number: int) -> bytes:
    """A sound archive whose directory tells a lie about an entry."""
    at, kind = {
        "flags": (8, "<H"), "method": (10, "<H"), "packed": (20, "<I"), "size": (24, "<I"),
        "name": (28, "<H"), "extra": (30, "<H"), "comment": (32, "<H"), "offset": (42, "<I"),
    }[field]  # fmt: skip
    data = bytearray(zipped(SOUND))
    start = data.rindex(entry.encode()) - 46
    assert data[start : start + 4] == b"PK\x01\x02"
    struct.pack_into(kind, data, start + at, number)
    return bytes(data)


def ending(field: str, number: int, content: bytes | None = None) -> bytes:
    """A sound archive whose last words tell a lie about its directory."""
    at, kind = {"entries": (10, "<H"), "size": (12, "<I"), "offset": (16, "<I")}[field]
    data = bytearray(zipped(SOUND) if content is None else content)
    struct.pack_into(kind, data, len(data) - 22 + at, number)
    return bytes(data)


def crowd() -> bytes:
    """More entries than anybody needs, written without the zipfile module, which takes seconds."""
    local = b"PK\x03\x04" + bytes(22) + struct.pack("<HH", 1, 0) + b"a"
    central = b"PK\x01\x02" + bytes(24) + struct.pack("<HHH", 1, 0, 0) + bytes(12) + b"a"
    size = len(central) * MANY
    end = b"PK\x05\x06" + bytes(4) + struct.pack("<HHIIH", MANY, MANY, size, len(local), 0)
    return local + central * MANY + end


def sparse_directory() -> bytes:
    """A directory of 8 MB, all of it zeros."""
    size = 8 * 10**6
    end = b"PK\x05\x06" + bytes(4) + struct.pack("<HHIIH", 1, 1, size, 30, 0)
    return b"PK\x03\x04" + bytes(26 + size) + end


MAKERS: dict[str, Callable[[], bytes]] = {
    "compressed": lambda: zipped(SOUND, packed=True),
    "200 MB of zeros, compressed": lambda: bomb(200),
    "a bomb in a bomb": lambda: zipped(zipped(SOUND, {"x": bomb(20)}, packed=True), packed=True),
    "two entries at one place": lambda: spoilt("archive/data/0", "offset", 0),
    "entries that overlap": lambda: spoilt("archive/data.pkl", "size", len(SOUND) + 8),
    "entries that overlap, both sizes": lambda: overlapping(),
    "a size of 4 GB": lambda: spoilt("archive/data/0", "size", 2**32 - 2),
    "a size of 0": lambda: spoilt("archive/data/0", "size", 0),
    "a packed size of 4 GB": lambda: spoilt("archive/data/0", "packed", 2**32 - 2),
    "a packed size of 1": lambda: spoilt("archive/data.pkl", "packed", 1),
    "an offset of 4 GB": lambda: spoilt("archive/data/0", "offset", 2**32 - 2),
    "an offset into the directory": lambda: spoilt("archive/data/0", "offset", 400),
    "a name of 60,000 letters": lambda: spoilt("archive/data.pkl", "name", 60_000),
    "an extra field of 60,000 bytes": lambda: spoilt("archive/data.pkl", "extra", 60_000),
    "a comment of 60,000 letters": lambda: spoilt("archive/data.pkl", "comment", 60_000),
    "encrypted": lambda: spoilt("archive/data/0", "flags", 1),
    "bzip2": lambda: spoilt("archive/data/0", "method", 12),
    "lzma": lambda: spoilt("archive/data/0", "method", 14),
    "no method at all": lambda: spoilt("archive/data/0", "method", 99),
    "a path above": lambda: with_entry("../../executed"),
    "a path above, inside": lambda: with_entry("archive/../../executed"),
    "an absolute path": lambda: with_entry("/tmp/executed"),
    "a path of Windows": lambda: with_entry("C:\\executed"),
    "a link": lambda: with_entry("archive/data/1", b"/etc/passwd", mode=0o120777),
    "a name twice": lambda: with_entry("archive/data/0", NUMBERS),
    "the pickle twice": lambda: with_entry("archive/data.pkl", SOUND),
    "two pickles": lambda: with_entry("other/data.pkl", SOUND),
    "an entry beside the folder": lambda: with_entry("executed"),
    "no pickle": lambda: zipped(SOUND, top="a/b"),
    "big endian": lambda: zipped(SOUND, {"byteorder": b"big"}),
    "no byte order": lambda: zipped(SOUND, {"byteorder": b""}),
    "a byte order of 10 MB": lambda: zipped(SOUND, {"byteorder": bytes(10**7)}),
    "a pickle of 10 MB": lambda: zipped(bytes(10**7)),
    "no storage": lambda: zipped(SOUND, storages={}),
    "a storage cut": lambda: zipped(SOUND, storages={"0": NUMBERS[:-1]}),
    "a storage too long": lambda: zipped(SOUND, storages={"0": NUMBERS * 2}),
    "a directory of 40,000 entries": crowd,
    "a directory of 8 MB": sparse_directory,
    "a directory that starts beyond the end": lambda: ending("offset", 2**31),
    "a directory of 4 GB": lambda: ending("size", 2**32 - 2),
    "a directory of one byte": lambda: ending("size", 1),
    "a directory in the entries": lambda: ending("offset", 10),
    "half": lambda: zipped(SOUND)[:200],
    "the beginning alone": lambda: b"PK\x03\x04",
    "an archive of nothing": lambda: b"PK\x05\x06" + bytes(18),
}


def overlapping() -> bytes:
    """The pickle reaches over the numbers, by its size and by its packed size."""
    data = bytearray(zipped(SOUND))
    start = data.rindex(b"archive/data.pkl") - 46
    struct.pack_into("<II", data, start + 20, len(SOUND) + 60, len(SOUND) + 60)
    return bytes(data)


ARCHIVES = {f"zip: {what}": make() for what, make in MAKERS.items()}
