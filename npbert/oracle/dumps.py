"""Traces on disk: safetensors, .npz, or a folder of .npy files, whoever wrote them."""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray

from npbert.checkpoint.drafts import Draft, replace_files
from npbert.checkpoint.files import (
    FLOATS,
    MappedFile,
    Tensor,
    count_written,
    map_file,
    parse_npy,
    read_header,
    read_safetensors,
    refuse_sparse,
    write_safetensors,
)
from npbert.checkpoint.pickles import Bounded
from npbert.checkpoint.reading import JSON_LIMIT, open_file, parse_json_object, read_json_object
from npbert.errors import CheckpointError, InputError, NpbertError, listing, quote

Arrays = dict[str, NDArray[Any]]

PACKED: Final = (".safetensors", ".npz")  # what is one file, by its name
ABOUT_FILE: Final = "about.json"  # beside .npy files, and in the metadata of the others
INTEGERS: Final = {
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4",
    "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
PACKED_LIMIT: Final = 1 << 27  # bytes that any .npz may unpack to; a large one to PACKED_RATIO
PACKED_RATIO: Final = 16  # times its own size; activations shrink by half, padding to nothing
CHUNK: Final = 1 << 16  # bytes that are unpacked at once
PIECE: Final = 1 << 20  # values that are measured at once, a dozen times over in float64
PACKINGS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what NumPy writes
PACKING_ERRORS: Final = (  # RuntimeError: a password is needed
    zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, NotImplementedError,
    RuntimeError, OverflowError,
)  # fmt: skip


def write_dump(path: Path, given: Arrays, about: Mapping[str, Any]) -> None:
    """Write arrays: .safetensors, .npz, or else a folder of .npy.  Raises InputError."""
    root = path.parent if path.suffix in PACKED else path
    try:
        if root == path:
            path.mkdir(parents=True, exist_ok=True)
        with replace_files(root) as draft:
            write_arrays(draft, path, given, about)
    except CheckpointError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def write_arrays(draft: Draft, path: Path, given: Arrays, about: Mapping[str, Any]) -> None:
    """Write arrays as drafts of the files of write_dump.  Raises CheckpointError, OSError."""
    said = json.dumps(about, sort_keys=True)
    arrays = {name: np.ascontiguousarray(x) for name, x in given.items()}
    if path.suffix == ".safetensors":
        tensors = {name: Tensor.from_array(x) for name, x in arrays.items()}
        with draft(path) as file:
            write_safetensors(file, tensors, {"npbert": said})
    elif path.suffix == ".npz":
        arrays[ABOUT_FILE] = np.frombuffer(said.encode(), np.uint8)
        packed = io.BytesIO()  # zipfile writes another archive where a disk fails to seek
        with zipfile.ZipFile(packed, "w") as archive:
            for name, x in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    write_npy(cast(BinaryIO, entry), x)
        with draft(path) as file:
            file.write(packed.getbuffer())
    else:
        for name, x in arrays.items():
            with draft(path / f"{name}.npy") as file:
                write_npy(file, x)
        with draft(path / ABOUT_FILE) as file:
            file.write(f"{said}\n".encode())


def write_npy(file: BinaryIO, array: NDArray[Any]) -> None:
    """Write an array as .npy; NumPy alone would not say why a disk took only some of it."""
    whole = io.BytesIO()
    np.save(whole, array, allow_pickle=False)
    file.write(whole.getbuffer())


def read_dump(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read what write_dump or a port wrote, and what is said of it.  Raises InputError."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    try:
        if path.is_dir():
            arrays, said = read_folder(path)
        elif is_archive(path):
            arrays, said = read_npz(path)
        elif path.suffix == ".npy":
            raise InputError(f"{path}: is one array; give the folder that it stands in")
        else:
            arrays, said = read_tensor_file(path)
    except CheckpointError as error:
        raise InputError(str(error)) from None
    if not arrays:
        raise InputError(f"{path}: holds no array")
    for name, x in arrays.items():
        if x.dtype.kind not in "biuf":
            raise InputError(f"{path}: {name} has dtype {x.dtype}, expected numbers")
    return arrays, said


def is_archive(path: Path) -> bool:
    """Tell whether a file is a zip archive, as an .npz is.  Raises CheckpointError."""
    with open_file(path) as file:
        return zipfile.is_zipfile(file)


def read_tensor_file(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read a safetensors file; halves stay halves, bfloat16 becomes float32."""
    tensors = read_safetensors(path)
    arrays: Arrays = {}
    for name, tensor in tensors.items():
        if tensor.dtype in FLOATS:
            kept = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
            wide = tensor.array(np.float32 if tensor.dtype != "F64" else np.float64)
            arrays[name] = wide.astype(kept.get(tensor.dtype, np.float32))
        else:
            arrays[name] = tensor.stored_array(INTEGERS[tensor.dtype])
    metadata = read_header(path)[0].get("__metadata__")
    said = metadata.get("npbert") if isinstance(metadata, dict) else None
    return arrays, parse_about(str(said or "").encode("utf-8", "replace"), path)


def read_npz(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read an .npz file; nothing in it is unpickled."""
    arrays: Arrays = {}
    with map_file(path, Bounded) as file:
        try:
            with zipfile.ZipFile(cast("BinaryIO", file)) as archive:
                entries = archive.infolist()
                check_entries(entries, file.size(), path)
                for entry in entries:
                    name = entry.filename.removesuffix(".npy")
                    content = read_entry(archive, entry)
                    arrays[name] = parse_npy(memoryview(content), f"{path}: {quote(name)}")
        except PACKING_ERRORS as error:
            if isinstance(error, NpbertError):
                raise
            raise InputError(
                f"{path}: cannot be read as .npz: {error}; it is cut short, or damaged"
            ) from None
    said = arrays.pop(ABOUT_FILE, None)
    return arrays, parse_about(b"" if said is None else said.tobytes(), path)


def check_entries(entries: list[zipfile.ZipInfo], size: int, path: Path) -> None:
    """Refuse what NumPy writes into no archive, and more than fits into one of `size` bytes."""
    names, faults = set(), []
    for entry in entries:
        if entry.compress_type not in PACKINGS:
            faults.append(f"{quote(entry.filename)} is packed by another method than deflate")
        elif entry.flag_bits & 1:
            faults.append(f"{quote(entry.filename)} is encrypted")
        elif not entry.filename.endswith(".npy"):
            faults.append(f"{quote(entry.filename)} is no .npy file")
        elif entry.filename in names:
            faults.append(f"{quote(entry.filename)} is there twice")
        names.add(entry.filename)
    if faults:
        raise InputError(f"{path}: {listing(faults, 4)}; expected what np.savez writes")
    unpacked = sum(entry.file_size for entry in entries)
    most = max(PACKED_LIMIT, PACKED_RATIO * size)
    if unpacked > most:
        raise InputError(
            f"{path}: has {size} bytes and unpacks to {unpacked}, expected at most {most}; if that "
            "is meant, write it with np.savez, which does not pack"
        )


def read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytearray:
    """Return the bytes of an entry, no more than it claims, and its checksum checked."""
    content = bytearray()
    with archive.open(entry) as stream:
        while chunk := stream.read(CHUNK):
            content += chunk
    return content


def read_folder(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read a folder of .npy files, each an activation by its name; folders in it are of names.

    No link is followed that leads to a folder.
    """
    arrays: Arrays = {}
    files = sorted(path.rglob("*.npy"))
    if not files:
        there = sorted(p.name for p in path.iterdir())
        raise InputError(f"{path}: holds no .npy file, but {listing(there) or 'nothing'}")
    sizes = [file.stat().st_size for file in files if file.is_file()]
    refuse_sparse(path, sum(sizes), sum(map(size_on_disk, files)))
    for file in files:
        # A copy: whoever writes the folder again would change, or cut, what is mapped.
        name = file.relative_to(path).with_suffix("").as_posix()
        arrays[name] = parse_npy(memoryview(map_file(file, MappedFile)), str(file)).copy()
    return arrays, read_json_object(path / ABOUT_FILE) if os.path.lexists(path / ABOUT_FILE) else {}


def size_on_disk(path: Path) -> int:
    """Return how many bytes of a file, however small, are no holes."""
    with open_file(path) as file:
        return count_written(file, path.stat().st_size, 0)


def split_into_pieces(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield arrays of one shape side by side, some values of each at a time, in one row."""
    # Slicing .flat takes ten times as long as copying, but copies of float arrays are too large.
    is_cheap = [x.flags.c_contiguous or x.itemsize == 1 for x in arrays]
    rows: list[Any] = [
        x.reshape(-1) if cheap else x.flat for x, cheap in zip(arrays, is_cheap, strict=True)
    ]
    for start in range(0, arrays[0].size, PIECE):
        yield tuple(row[start : start + PIECE] for row in rows)


def parse_about(said: bytes, path: Path) -> dict[str, Any]:
    """Return what a trace says of itself; a port's says nothing."""
    if len(said) > JSON_LIMIT:
        raise InputError(f"{path}: metadata: has over {JSON_LIMIT} bytes")
    return parse_json_object(said, f"{path}: metadata") if said else {}


def is_nest(given: object) -> bool:
    """Tell whether something is no array, but holds arrays: a mapping, or a list of arrays."""
    if isinstance(given, Mapping):
        return all(isinstance(name, str) for name in given)
    return isinstance(given, tuple | list) and any(
        hasattr(each, "shape") or is_nest(each) for each in given
    )


def flatten_nest(given: object) -> dict[str, Any]:
    """Return all arrays of a nest by their names, without what is None.  Raises InputError."""
    try:
        if not is_nest(given):
            raise InputError(
                f"a trace is {quote(given)}, expected a Trace, a mapping of names to arrays, or "
                "the path of a file or folder that holds one"
            )
        arrays = dict(list_nest("", given))
    except RecursionError:
        raise InputError(f"a trace is {quote(given)}, which holds itself, or nearly so") from None
    if not arrays:
        raise InputError("a trace is empty, expected a mapping of names to arrays")
    return arrays


def list_nest(prefix: str, given: Any) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of a nest, or an array itself, by their names."""
    if is_nest(given):
        items = given.items() if isinstance(given, Mapping) else enumerate(given)
        for name, each in items:
            yield from list_nest(f"{prefix}.{name}" if prefix else str(name), each)
    elif given is not None:
        yield prefix, given
