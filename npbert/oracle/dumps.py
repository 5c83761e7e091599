"""Traces on disk: safetensors, .npz, or a folder of .npy files, whoever wrote them."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from npbert.checkpoint.files import (
    FLOATS,
    parse_json_object,
    read_json_object,
    read_safetensors,
    replace_file,
)
from npbert.errors import CheckpointError, InputError, listing

Arrays = dict[str, NDArray[Any]]

ABOUT_FILE: Final = "about.json"  # beside .npy files, and in the metadata of the others
INTEGERS: Final = {
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4",
    "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
DUMP_LIMIT: Final = (
    8 << 30
)  # bytes that a dump may hold; a base-size trace of 256 tokens has 0.2 GB


def write_dump(path: Path, given: Arrays, about: Mapping[str, Any]) -> None:
    """Write arrays: .safetensors, .npz, or else a folder of .npy.  Raises InputError."""
    said = json.dumps(about, sort_keys=True)
    arrays = {name: np.ascontiguousarray(x) for name, x in given.items()}
    try:
        if path.suffix == ".safetensors":
            with replace_file(path) as temporary:
                save_file(arrays, temporary, {"npbert": said})
        elif path.suffix == ".npz":
            with replace_file(path) as temporary, temporary.open("wb") as file:
                all_of_it: dict[str, Any] = {
                    **arrays,
                    ABOUT_FILE: np.frombuffer(said.encode(), np.uint8),
                }
                np.savez(file, **all_of_it)
        else:
            path.mkdir(parents=True, exist_ok=True)
            for name, x in arrays.items():
                np.save(path / f"{name}.npy", x)
            (path / ABOUT_FILE).write_text(said + "\n", "utf-8")
    except CheckpointError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def read_dump(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read what write_dump or a port wrote, and what is said of it.  Raises InputError."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    try:
        if path.is_dir():
            arrays, said = read_folder(path)
        elif zipfile.is_zipfile(path):
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


def read_tensor_file(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read a safetensors file; halves stay halves, bfloat16 becomes float32."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        head = file.read(min(length, path.stat().st_size))
    tensors = read_safetensors(path)
    arrays: Arrays = {}
    for name, tensor in tensors.items():
        if tensor.dtype in FLOATS:
            kept = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
            wide = tensor.array(np.float32 if tensor.dtype != "F64" else np.float64)
            arrays[name] = wide.astype(kept.get(tensor.dtype, np.float32))
        else:
            stored = np.frombuffer(tensor.content, INTEGERS[tensor.dtype])
            arrays[name] = stored.reshape(tensor.shape)
    metadata = parse_json_object(head, str(path)).get("__metadata__", {})
    return arrays, parse_about(metadata.get("npbert"), path)


def read_npz(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read an .npz file; nothing in it is unpickled."""
    with zipfile.ZipFile(path) as archive:
        if (size := sum(entry.file_size for entry in archive.infolist())) > DUMP_LIMIT:
            raise InputError(f"{path}: unpacks to {size} bytes, expected at most {DUMP_LIMIT}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as .npz: {error}") from None
    said = arrays.pop(ABOUT_FILE, None)
    return arrays, parse_about(
        None if said is None else said.tobytes().decode("utf-8", "replace"), path
    )


def read_folder(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read a folder of .npy files, each an activation by its name."""
    arrays: Arrays = {}
    files = sorted(path.glob("*.npy"))
    if not files:
        there = sorted(p.name for p in path.iterdir())
        raise InputError(f"{path}: holds no .npy file, but {listing(there) or 'nothing'}")
    for file in files:
        try:
            arrays[file.stem] = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{file}: cannot be read as .npy: {error}") from None
    return arrays, read_json_object(path / ABOUT_FILE) if (path / ABOUT_FILE).exists() else {}


def parse_about(said: str | None, path: Path) -> dict[str, Any]:
    """Return what a trace says of itself; a port's says nothing."""
    return parse_json_object(said.encode(), f"{path}: metadata") if said else {}
