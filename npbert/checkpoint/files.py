"""Bytes on disk to arrays: safetensors, mapped into memory and not copied.

The header is read here, not by the safetensors package, whose NumPy reader refuses bfloat16.
No byte of a file is believed before it is checked: a broken or hostile file ends in a
CheckpointError that names it.  Format: https://github.com/huggingface/safetensors#format
"""

import io
import json
import math
import mmap
import os
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, Final, Literal, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from npbert.checkpoint.reading import JSON_LIMIT, open_file, parse_json_object
from npbert.errors import CheckpointError, listing, quote
from npbert.textbook import Array

BYTES: Final = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
SMALLEST_OVERFLOW: Final = 1 << 63  # a product that NumPy counts no bytes or numbers by
NPY_HEADER_LIMIT: Final = 10_000  # bytes, as NumPy has it; that of an array has 128
# How a file begins, the bytes of the length that follows, and who reads the header behind it.
NPY_READERS: Final = {
    b"\x93NUMPY\x01\x00": (2, np.lib.format.read_array_header_1_0),
    b"\x93NUMPY\x02\x00": (4, np.lib.format.read_array_header_2_0),
}
SPARSE_SIZE: Final = 1 << 27  # bytes up to which a file may be as sparse as it likes
SPARSE_RATIO: Final = 16  # times what of a larger one was written, and is no hole
NARROW_FLOATS: Final = ("F8_", "F6_", "F4")  # which npbert does not compute with
FLOATS: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

Mapped = TypeVar("Mapped", bound="MappedFile")


class MappedFile(mmap.mmap):
    """A file mapped to be read, which tells whether its bytes were overwritten since.

    A file that is renamed or deleted is still the same, and another that takes its name does not
    touch it: what counts are the size and the time of the very file that is mapped.
    """

    def __new__(cls, file: BinaryIO, path: Path) -> Self:
        made = super().__new__(cls, file.fileno(), 0, access=mmap.ACCESS_READ)
        made.path = path
        made.descriptor = os.dup(file.fileno())
        made.stamp = made.read_stamp()
        return made

    path: Path
    descriptor: int
    stamp: tuple[int, int]

    def read_stamp(self) -> tuple[int, int]:
        """Return the file's size and the time when it was last written."""
        now = os.fstat(self.descriptor)
        return now.st_size, now.st_mtime_ns

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            with suppress(OSError):  # nothing was written, and nobody could be told
                os.close(self.descriptor)


class MappedFiles:
    """The files that some arrays are views of; none for a copy, which has arrays of its own."""

    def __init__(self, arrays: Iterable[Array] = ()) -> None:
        found: dict[int, MappedFile] = {}
        for array in arrays:
            base: Any = array
            while isinstance(base, np.ndarray):
                base = base.base
            owner = getattr(base, "obj", base)  # of a memoryview, which NumPy may leave out
            if isinstance(owner, MappedFile):
                found[id(owner)] = owner
        self.files = tuple(found.values())

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    def require_unchanged(self) -> None:
        """Raise CheckpointError where a file was overwritten, and answers would mix two models."""
        for file in self.files:
            if file.stamp != file.read_stamp():
                raise CheckpointError(
                    f"{file.path}: was overwritten while its weights were in use, and no answer "
                    "computed since is given; start again, and replace a model's files by renaming "
                    "new ones over them (mv), never by writing into them (cp), or hold a copy in "
                    "memory: copy=True"
                )


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file: its dtype and shape are known, its bytes not yet read."""

    dtype: str  # as safetensors spells it
    shape: tuple[int, ...]
    path: Path
    content: memoryview
    strides: tuple[int, ...] | None = None  # bytes from one to the next; None: in order of rows

    @classmethod
    def from_array(cls, array: NDArray[Any]) -> Self:
        """Return an array as a file would hold it.  Raises CheckpointError for other dtypes."""
        kind, bits = array.dtype.kind, 8 * array.dtype.itemsize
        dtype = "BOOL" if kind == "b" else f"{kind.upper()}{bits}"
        if dtype not in BYTES:
            raise CheckpointError(f"has the dtype {array.dtype}, expected one of {listing(BYTES)}")
        rows = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        return cls(dtype, array.shape, Path(), rows.reshape(-1).view(np.uint8).data)

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
    header, data = read_header(path)
    header.pop("__metadata__", None)
    if not header:
        raise CheckpointError(f"{path}: holds no tensor")
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


def read_header(path: Path) -> tuple[dict[str, Any], memoryview]:
    """Map a safetensors file; return its header, of which nothing is checked yet, and its data."""
    content = memoryview(map_file(path, MappedFile))
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
    return header, content[8 + length :]


def parse_npy(content: memoryview, where: str) -> NDArray[Any]:
    """Return the array that bytes in NumPy's format .npy are: a view of them, and only numbers.

    Raises CheckpointError saying where, for bytes that are no such array or hold fewer numbers
    than they say.
    """
    head = parse_npy_header(content, where)
    need = math.prod(head.shape) * head.dtype.itemsize
    if need > len(content) - head.size:
        raise CheckpointError(
            f"{where}: has {len(content) - head.size} bytes, expected {need} for {head.shape} in "
            f"{head.dtype}; it is cut short, or damaged"
        )
    order: Literal["C", "F"] = "F" if head.columns else "C"
    return np.ndarray(head.shape, head.dtype, content[head.size : head.size + need], order=order)


class NpyHeader(NamedTuple):
    """What stands before an array in NumPy's format .npy."""

    size: int  # bytes
    shape: tuple[int, ...]
    columns: bool  # whether it is stored column by column
    dtype: np.dtype[Any]


def parse_npy_header(content: memoryview, where: str) -> NpyHeader:
    """Return how bytes in NumPy's format .npy begin; the rest need not be there.

    Raises CheckpointError saying where.
    """
    digits, read = NPY_READERS.get(bytes(content[:8]), (0, None))
    if read is None:
        raise CheckpointError(f"{where}: is no array in the format .npy, version 1.0 or 2.0")
    start = 8 + digits + int.from_bytes(content[8 : 8 + digits], "little")
    if start > min(len(content), NPY_HEADER_LIMIT):
        raise CheckpointError(
            f"{where}: has a header of {start} bytes, expected at most {NPY_HEADER_LIMIT}, and it "
            f"has {len(content)} in all; it is cut short, or damaged"
        )
    try:
        with warnings.catch_warnings():  # of what Python makes of a damaged header
            warnings.simplefilter("ignore")
            shape, columns, dtype = read(io.BytesIO(content[8:start]))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, TokenError) as error:
        raise CheckpointError(f"{where}: has no header of an array: {quote(str(error))}") from None
    if dtype.kind not in "biuf":
        raise CheckpointError(f"{where}: has dtype {quote(str(dtype))}, expected numbers")
    if len(shape) > 8 or not is_count_list([*shape]) or is_beyond_counting(shape):
        raise CheckpointError(
            f"{where}: has the shape {quote(shape)}, expected at most 8 whole numbers"
        )
    return NpyHeader(start, shape, columns, dtype)


def write_safetensors(
    file: BinaryIO, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None
) -> None:
    """Write tensors with the dtypes that they have, the widest first, so that all are aligned.

    The safetensors package wants a name to write to, where a link could lie, and NumPy's dtypes,
    which lack bfloat16, or differs by version.
    """
    # Without "pt" transformers refuses a file.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"} if about is None else about}
    end, names = 0, sorted(tensors, key=lambda name: (-BYTES[tensors[name].dtype], name))
    for name in names:
        dtype, shape = tensors[name].dtype, tensors[name].shape
        start, end = end, end + math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        file.write(tensors[name].to_bytes())


def entry_fault(entry: Any, size: int) -> str | None:
    """Return what is wrong with one entry of a header before `size` bytes of data, or None."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        return "expected dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if isinstance(dtype, str) and dtype.startswith(NARROW_FLOATS):
        return f"is quantised, {quote(dtype)}; take the model that it was made from"
    if not isinstance(dtype, str) or dtype not in BYTES:
        return f"has the dtype {quote(dtype)}, expected one of {', '.join(BYTES)}"
    if not is_count_list(shape) or len(shape) > 8:
        return f"has the shape {quote(shape)}, expected at most 8 whole numbers"
    if not is_count_list(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size:
        return (
            f"has the data_offsets {quote(offsets)}, expected two from 0 to {size}, the end; the "
            "file is cut short, or damaged"
        )
    if is_beyond_counting(shape):  # and empty all the same, for one of them is 0
        return f"has the shape {quote(shape)}, too large to be counted"
    need = math.prod(shape) * BYTES[dtype]
    if offsets[1] - offsets[0] != need:
        return f"has {offsets[1] - offsets[0]} bytes, expected {need} for {shape} in {dtype}"
    return None


def is_count_list(value: Any) -> bool:
    """Tell whether a JSON value is a list of whole numbers from 0."""
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def is_beyond_counting(shape: Iterable[int]) -> bool:
    """Tell whether NumPy could make no array of a shape, not even an empty one."""
    return math.prod(max(n, 1) for n in shape) * 8 >= SMALLEST_OVERFLOW


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
        size = os.fstat(file.fileno()).st_size
        refuse_sparse(path, size, count_written(file, size))
        try:
            return kind(file, path)
        except ValueError:
            raise CheckpointError(f"{path}: is empty") from None


def refuse_sparse(path: Path, size: int, written: int) -> None:
    """Refuse what is large and nearly all holes: nobody saved so many zeros.

    What is read of it would take memory that it does not take of the disk, as a packed file's does.
    """
    if written * SPARSE_RATIO < size and size > SPARSE_SIZE:
        raise CheckpointError(
            f"{path}: says that it has {size} bytes, but only {written} of them were ever written; "
            "the copying was cut short, or the file is made to fill the memory"
        )


def count_written(file: BinaryIO, size: int, least: int = SPARSE_SIZE) -> int:
    """Return how many bytes of a file are no holes, or enough of them to pass.

    A file up to `least` bytes is taken for whole.
    """
    if size <= least or not hasattr(os, "SEEK_DATA"):
        return size
    end = written = 0
    with suppress(OSError):  # there is no data behind the last hole
        while end < size and written * SPARSE_RATIO < size:
            start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            written += end - start
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return written
