"""Bytes on disk to arrays: safetensors, mapped into memory and not copied.

The header is read here, not by the safetensors package, whose NumPy reader refuses bfloat16.
No byte of a file is believed before it is checked: a broken or hostile file ends in a
CheckpointError that names it.  Format: https://github.com/huggingface/safetensors#format
"""

import json
import math
import mmap
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from npbert.errors import CheckpointError, listing, quote
from npbert.textbook import Array

JSON_LIMIT: Final = (
    4 << 20
)  # bytes of JSON; a DistilBERT has about 12,000, parsing takes 20 times as many
BYTES: Final = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

Mapped = TypeVar("Mapped", bound=mmap.mmap)


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file: its dtype and shape are known, its bytes not yet read."""

    dtype: str  # as safetensors spells it
    shape: tuple[int, ...]
    path: Path
    content: memoryview
    strides: tuple[int, ...] | None = None  # bytes from one to the next; None: in order of rows

    def array(self, dtype: type[np.floating]) -> Array:
        """Return it as an array: a view of the mapped file if it is stored so, else a widened copy.

        bfloat16 is the upper half of float32, so that widening it is exact, as it is for float16.
        """
        stored = self.stored_array(FLOATS[self.dtype])
        # Rows out of order, or a header of odd length: BLAS would copy at every call.
        if self.strides is not None or not stored.flags.aligned:
            stored = stored.copy()
        if self.dtype == "BF16":
            stored = (stored.astype("<u4") << 16).view("<f4")
        with np.errstate(over="ignore", invalid="ignore"):  # inf and nan are told of by the call
            return stored.astype(dtype, copy=False)

    def to_bytes(self) -> bytes:
        """Return its bytes in the order of its rows, as they would be stored on their own."""
        return self.stored_array(f"<u{BYTES[self.dtype]}").tobytes()

    def stored_array(self, dtype: str) -> NDArray[Any]:
        """Return what the file holds as numbers of a dtype of the same width."""
        return np.ndarray(self.shape, dtype, self.content, strides=self.strides)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Map a safetensors file and check its header.  Raises CheckpointError with all faults."""
    content = memoryview(map_file(path, mmap.mmap))
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise CheckpointError(
            f"{path}: has {len(content)} bytes, but its header alone should have {length}; "
            "it is cut short, or no safetensors file"
        )
    if length > JSON_LIMIT:
        raise CheckpointError(
            f"{path}: has a header of {length} bytes, expected at most {JSON_LIMIT}"
        )
    header = parse_json_object(bytes(content[8 : 8 + length]), f"{path}: header")
    header.pop("__metadata__", None)
    if not header:
        raise CheckpointError(f"{path}: holds no tensor")
    data = content[8 + length :]
    faults = [
        f"{name}: {fault}"
        for name, entry in header.items()
        if (fault := entry_fault(entry, len(data)))
    ]
    if not faults:
        faults = layout_faults(header, len(data))
    if faults:
        raise CheckpointError(f"{path}: {listing(faults)}")
    return {
        name: Tensor(
            entry["dtype"], tuple(entry["shape"]), path, data[slice(*entry["data_offsets"])]
        )
        for name, entry in header.items()
    }


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors with the dtypes that they have, the widest first, so that all are aligned.

    The safetensors package wants NumPy's dtypes, which lack bfloat16, or differs by version.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    end, names = 0, sorted(tensors, key=lambda name: (-BYTES[tensors[name].dtype], name))
    for name in names:
        dtype, shape = tensors[name].dtype, tensors[name].shape
        start, end = end, end + math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(tensors[name].to_bytes())


def entry_fault(entry: Any, size: int) -> str | None:
    """Return what is wrong with one entry of a header before `size` bytes of data, or None."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        return "expected dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES:
        return f"has the dtype {quote(dtype)}, expected one of {', '.join(BYTES)}"
    if not is_count_list(shape) or len(shape) > 8:
        return f"has the shape {quote(shape)}, expected at most 8 whole numbers"
    if not is_count_list(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size:
        return f"has the data_offsets {quote(offsets)}, expected two from 0 to {size}, the end"
    need = math.prod(shape) * BYTES[dtype]
    if offsets[1] - offsets[0] != need:
        return f"has {offsets[1] - offsets[0]} bytes, expected {need} for {shape} in {dtype}"
    return None


def is_count_list(value: Any) -> bool:
    """Tell whether a JSON value is a list of whole numbers from 0."""
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def layout_faults(header: Mapping[str, Any], size: int) -> list[str]:
    """Return where tensors overlap or leave bytes over; the format allows neither."""
    faults, end = [], 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        if start != end:
            what = "overlaps the tensor before it" if start < end else "leaves a gap before it"
            faults.append(f"{name}: starts at byte {start} of the data, expected {end}: it {what}")
        end = stop
    if end != size and not faults:
        faults = [
            f"{size - end} bytes follow the last tensor; the file is no safetensors file or damaged"
        ]
    return faults


def map_file(path: Path, kind: type[Mapped]) -> Mapped:
    """Map a file into memory, to be read only.  Raises CheckpointError."""
    with open_file(path) as file:
        try:
            return kind(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise CheckpointError(f"{path}: is empty") from None


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read its bytes; a pipe or a device, which could block, is refused."""
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: is no file")
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a whole file that has no reason to be larger than `limit` bytes."""
    with open_file(path) as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise CheckpointError(f"{path}: has over {limit} bytes, far more than such a file needs")
    return raw


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a small JSON file that must hold an object.  Raises CheckpointError naming the file."""
    return parse_json_object(read_bytes(path, JSON_LIMIT), str(path))


def read_json(path: Path) -> Any:
    """Read a small JSON file.  Raises CheckpointError naming the file."""
    return parse_json(read_bytes(path, JSON_LIMIT), str(path))


def parse_json_object(raw: bytes, where: str) -> dict[str, Any]:
    """Parse bytes that must be a JSON object."""
    data = parse_json(raw, where)
    if not isinstance(data, dict):
        raise CheckpointError(f"{where}: holds a {type(data).__name__}, expected a JSON object")
    return data


def parse_json(raw: bytes, where: str) -> Any:
    """Parse JSON whose objects have no name twice.  Raises CheckpointError saying where."""

    def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]
            raise ValueError(f"it says {listing(map(repr, twice))} twice")
        return found

    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=refuse_twice)
    except RecursionError:
        raise CheckpointError(f"{where}: is nested too deeply to be read") from None
    except ValueError as error:
        raise CheckpointError(f"{where}: is not valid JSON: {error}") from None


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `path` when all went well.

    A file that is still mapped keeps its old contents for those who read it.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what umask gives; safetensors would hide the file
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON object as transformers does: two spaces, names in order."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", "utf-8")
