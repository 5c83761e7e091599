"""Small files that would like to hang a reader or to fill its memory, one by one."""

import io
import json
import os
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.small_files import KINDS, Kind

Spoil = Callable[[Path], object]  # a file
SPARSE = 3 * 2**30
DEEP = "[" * 100_000
LABELS = {str(i): "a" for i in range(200_000)}


def bind(path: Path) -> None:
    """A socket under the file's name, which may be too long for one."""
    home = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(home)


def truncate(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SPARSE)


NO_FILES: dict[str, Spoil] = {
    "a pipe that nobody writes to": os.mkfifo,
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a socket": bind,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "3 GB of nothing": truncate,
}
# Each file of each kind; of the arrays of a dump, one.
PLACES = [(name, file) for name, kind in KINDS.items() for file in kind.files[-5:]]


def write_json(content: Any) -> Spoil:
    return lambda path: path.write_text(json.dumps(content))


def change(**fields: Any) -> Spoil:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_bytes()) | fields))


def listed(count: int, **module: str) -> Spoil:
    """modules.json lists a module many times."""

    def apply(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_bytes()) + [module] * count))

    return apply


def npy(descr: Any = "<f8", shape: Any = (2,), *, version: int = 1, more: int = 0) -> bytes:
    said = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    return npy_of(said + " " * more + "\n", version)


def npy_of(header: str, version: int = 1, length: int | None = None) -> bytes:
    length = len(header) if length is None else length
    size = struct.pack("<H" if version == 1 else "<I", length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + bytes(16)


NPY = {
    "10**12 numbers": npy(shape=(10**12,)),
    "numbers beyond counting": npy(shape=(2**62, 2**62)),
    "no numbers beyond counting": npy(shape=(0, 2**62, 2**62)),
    "fewer than none": npy(shape=(-1,)),
    "100 axes": npy(shape=(1,) * 100),
    "true of them": npy(shape=(True,)),
    "objects": npy("|O"),
    "fields": npy([("a", "<f8"), ("b", "<i4", (10**9,))]),
    "letters": npy("<U500000000"),
    "bytes": npy("|S2000000000"),
    "dates": npy("<M8[s]"),
    "complex numbers": npy("<c16"),
    "no dtype": npy("hello"),
    "a header of 60,000 bytes": npy(more=60_000),
    "a header of 4 GB": npy_of("", 2, 2**32 - 1),
    "a header of brackets": npy_of("(" * 9000),
    "a header of unary minus": npy_of("{'shape': " + "-" * 9000 + "1}"),
    "a header of digits": npy_of("{'descr': '<f8', 'shape': (" + "9" * 9000),
    "a header of code": npy_of("__import__('os').abort()"),
    "a header in two lines": npy_of("{'descr': (\n"),
    "no header": b"\x93NUMPY\x01\x00",
    "version 9.9": b"\x93NUMPY\x09\x09" + bytes(100),
    "version 3.0": npy_of("", 3),
    "a pickle": b"\x80\x04K\x01.",
    "nothing": b"",
}  # fmt: skip


def archive(content: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing, compresslevel=1) as made:
        for name, data in content.items():
            made.writestr(name, data)
    return stream.getvalue()


GOOD = npy()


def patched(at: int, kind: str, number: int, packing: int = zipfile.ZIP_STORED) -> bytes:
    """The directory tells a lie of an entry."""
    data = bytearray(archive({"a.npy": GOOD}, packing))
    struct.pack_into(kind, data, data.rindex(b"PK\x01\x02") + at, number)
    return bytes(data)


def bomb() -> bytes:
    """Zeros, 200 MB of them in 0.9 MB, never held at once."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made,
        made.open("a.npy", "w") as member,
    ):
        member.write(npy(shape=(25_000_000,)))
        for _ in range(200):
            member.write(bytes(10**6))
    return stream.getvalue()


def claimed_bomb() -> bytes:
    """The same, and the directory says that it is small."""
    data = bytearray(bomb())
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 24, 1000)
    return bytes(data)


def twice() -> bytes:
    data = archive({"a.npy": GOOD, "b.npy": GOOD})
    return data.replace(b"b.npy", b"a.npy")


NPZ: dict[str, Callable[[], bytes]] = {
    "200 MB of zeros": bomb,
    "200 MB of zeros that are said to be few": claimed_bomb,
    "a size of 4 GB": lambda: patched(24, "<I", 2**32 - 2),
    "a size of 100 MB": lambda: patched(24, "<I", 10**8),
    "a size of 100 MB, packed": lambda: patched(24, "<I", 10**8, zipfile.ZIP_DEFLATED),
    "an offset of 4 GB": lambda: patched(42, "<I", 2**32 - 2),
    "a wrong checksum": lambda: patched(16, "<I", 1),
    "lzma": lambda: archive({"a.npy": GOOD}, zipfile.ZIP_LZMA),
    "bzip2": lambda: archive({"a.npy": GOOD}, zipfile.ZIP_BZIP2),
    "no packing at all": lambda: patched(10, "<H", 99),
    "encrypted": lambda: patched(8, "<H", 1),
    "a name twice": twice,
    "an archive in the archive": lambda: archive({"a.npz": archive({"a.npy": GOOD})}),
    "an archive that is said to be an array": lambda: archive({"a.npy": archive({"a.npy": GOOD})}),
    "a text": lambda: archive({"a.txt": b"hello"}),
    "an absolute path": lambda: archive({"/etc/passwd.npy": GOOD}),
    "a path above": lambda: archive({"../../a.npy": GOOD}),
    "a directory of 9 MB": lambda: archive({"a.npy": GOOD})[:-22] + bytes(9 * 10**6)
    + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, 9 * 10**6, 0, 0),
    "no entries": lambda: archive({}),
    "itself cut": lambda: archive({"a.npy": GOOD * 9})[100:],
    **{f"an array: {what}": lambda raw=raw: archive({"a.npy": raw}) for what, raw in NPY.items()},
}  # fmt: skip


def tensors(header: Any, length: int | None = None, data: int = 16) -> bytes:
    said = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(said) if length is None else length).to_bytes(8, "little") + said + bytes(data)


def entry(shape: Any = (2,), at: Any = (0, 16), dtype: Any = "F64") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": at}


def sparse_header(path: Path) -> None:
    """A header that is as long as it says, 3 GB."""
    with path.open("wb") as file:
        file.write((SPARSE - 8).to_bytes(8, "little"))
        file.truncate(SPARSE)


SAFETENSORS: dict[str, bytes] = {
    "a header of 2**63 bytes": tensors(b"{}", 2**63),
    "a header of brackets": tensors(DEEP.encode()),
    "a header of 5 MB": tensors(b" " * 5 * 10**6),
    "overlapping": tensors({"a": entry(), "b": entry()}),
    "a gap": tensors({"a": entry((1,), (0, 8)), "b": entry((7,), (9, 16), "U8")}),
    "beyond the end": tensors({"a": entry((4,), (0, 32))}),
    "10**12 numbers": tensors({"a": entry((10**12,), (0, 8 * 10**12))}),
    "no numbers beyond counting": tensors({"a": entry((0, 2**62, 2**62), (0, 0))}, data=0),
    "metadata in a list": tensors({"a": entry(), "__metadata__": [1]}),
    "metadata of a number": tensors({"a": entry(), "__metadata__": {"npbert": 5}}),
    "metadata of brackets": tensors({"a": entry(), "__metadata__": {"npbert": DEEP}}),
    "metadata of half a letter": tensors({"a": entry(), "__metadata__": {"npbert": "\ud800"}}),
    "no dtype": tensors({"a": entry(dtype=[])}),
}  # fmt: skip

# What a config.json, a modules.json or a journal may say.
CONFIG = {
    "2**20 positions": change(max_position_embeddings=2**20),
    "2**31 - 1 positions": change(max_position_embeddings=2**31 - 1),
    "2**17 labels": change(num_labels=2**17, id2label=None),
    "2**31 - 1 labels": change(num_labels=2**31 - 1, id2label=None),
    "10**9 words": change(vocab_size=10**9),
    "10**9 blocks": change(n_layers=10**9),
    "10**9 heads": change(n_heads=10**9),
    "a width of 2**31 - 1": change(dim=2**31 - 1, n_heads=1),
    "an inner width of 2**31 - 1": change(hidden_dim=2**31 - 1),
    "200,000 labels": change(id2label=LABELS),
    "a label 10**9": change(id2label={"0": "a", str(10**9): "b"}),
    "a label of 10,000 digits": change(id2label={"9" * 10_000: "a"}),
    "300,000 pruned heads": change(pruned_heads={"0": list(range(300_000))}),
    "pruned heads of 100,000 blocks": change(pruned_heads={str(i): [0] for i in range(100_000)}),
    "brackets": lambda path: path.write_text(DEEP),
    "5 MB of spaces": lambda path: path.write_text(" " * 5 * 10**6),
    "1,300,000 empty lists": lambda path: path.write_text("[" + ",".join(["[]"] * 1_300_000) + "]"),
}  # fmt: skip
MODULES = {
    "20,000 norms": listed(20_000, type="sentence_transformers.models.Normalize", path="3"),
    "20,000 layers": listed(20_000, type="sentence_transformers.models.Dense", path="2_Dense"),
    "a million of nothing": write_json([{}] * 1_000_000),
    "20,000 folders": write_json([{"path": f"{i}", "type": "x"} for i in range(20_000)]),
    "an object": write_json({"a": [{}] * 100_000}),
    "brackets": lambda path: path.write_text(DEEP),
}
POOLING = {
    "a pooling 400,000 times": change(pooling_mode=["mean"] * 400_000),
    "a pooling of lists": change(pooling_mode=[["mean"]]),
    "no pooling": change(pooling_mode=[]),
    "a number": change(pooling_mode=10**9),
    "numbers": write_json([1] * 100_000),
}
JOURNAL = {
    "tokens in words": change(tokens="many"),
    "no failures": change(failed=None),
    "cut in half": change(cut=0.5),
    "true of them": change(unread=True),
    "inputs beyond counting": change(inputs=2**63),
    "fewer inputs than none": change(inputs=-1),
    "fewer bytes than none": change(bytes=-1),
    "2**62 bytes": change(bytes=2**61),
    "a whole in words": change(whole="yes"),
    "a job in words": change(job="yes"),
    "a digest in numbers": change(sha256=5),
    "brackets": lambda path: path.write_text(DEEP),
    "5 MB of spaces": lambda path: path.write_text(" " * 5 * 10**6),
}


def written(raw: bytes | Callable[[], bytes]) -> Spoil:
    return lambda path: path.write_bytes(raw if isinstance(raw, bytes) else raw())


def attacks() -> dict[str, tuple[Kind, str, Spoil]]:
    """Every attack by its name: the kind of its folder, its file, and what becomes of that."""
    made: dict[str, tuple[Kind, str, Spoil]] = {}

    def add(name: str, file: str, what: str, spoil: Spoil) -> None:
        made[f"{name}: {file}: {what}"] = (KINDS[name], file, spoil)

    for name, file in PLACES:
        for what, make in NO_FILES.items():
            add(name, file, what, lambda path, make=make: (path.unlink(), make(path)))
    for name in ("config", "sinusoidal"):
        for what, spoil in CONFIG.items():
            add(name, "m/config.json", what, spoil)
    for what, spoil in MODULES.items():
        add("modules", "m/modules.json", what, spoil)
    for what, spoil in POOLING.items():
        add("modules", "m/1_Pooling/config.json", what, spoil)
    for what, raw in NPY.items():
        add("ranges", "ranges.npy", what, written(raw))
        add("npy", "dump/input_ids.npy", what, written(raw))
    for what, pack in NPZ.items():
        add("npz", "dump.npz", what, written(pack))
    for what, raw in SAFETENSORS.items():
        add("safetensors", "dump.safetensors", what, written(raw))
    add("safetensors", "dump.safetensors", "a header of 3 GB", sparse_header)
    for what, spoil in JOURNAL.items():
        add("journal", "o.jsonl.part.json", what, spoil)
    return made


def apply(attack: tuple[Kind, str, Spoil], healthy: Path, folder: Path) -> None:
    """Copy a healthy folder and spoil its file."""
    shutil.copytree(healthy, folder)
    attack[2](folder / attack[1])
