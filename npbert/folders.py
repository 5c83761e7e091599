"""A folder's weights, in whichever files it has them: safetensors first, then pytorch_model.bin.

Either is one file, or shards that an index names.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from npbert.errors import CheckpointError, listed, shown
from npbert.files import Tensor, read_json_object, read_safetensors
from npbert.hub.parts import INDEX
from npbert.pickles import read_pickle

Read = Callable[[Path], dict[str, Tensor]]

# In the order in which they are looked for, as in transformers.
FORMATS: Final[Mapping[str, Read]] = {
    "model.safetensors": read_safetensors,
    "pytorch_model.bin": read_pickle,
}


def read_checkpoint(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder, from the first that is there of FORMATS and their indexes."""
    for name, read in FORMATS.items():
        single, index = folder / name, folder / f"{name}{INDEX}"
        if single.exists():
            return read(single)
        if index.exists():
            return read_shards(index, read)
    there = sorted(p.name for p in folder.iterdir())
    wanted = " nor ".join(f"{name}{end}" for name in FORMATS for end in ("", INDEX))
    raise CheckpointError(f"{folder}: has no {wanted}; it holds {listed(there) or 'nothing'}")


def read_shards(index: Path, read: Read) -> dict[str, Tensor]:
    """Read the files that an index names; they must lie beside it and hold what it says."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{index}: weight_map is missing or empty, expected tensor names to files"
        )
    for name in weight_map.values():
        plain = isinstance(name, str) and name.isprintable() and len(name) < 256
        if not plain or name in ("", "..") or Path(name).name != name or "\\" in name:
            raise CheckpointError(
                f"{index}: weight_map names {shown(name)}, expected a file beside the index"
            )
    shards = {name: read(index.parent / name) for name in set(weight_map.values())}
    absent = [f"{t} in {name}" for t, name in weight_map.items() if t not in shards[name]]
    if absent:
        raise CheckpointError(f"{index}: names tensors that are not there: {listed(absent)}")
    unnamed = [t for name, shard in shards.items() for t in shard if weight_map.get(t) != name]
    if unnamed:
        raise CheckpointError(
            f"{index}: its files hold tensors that it does not name: {listed(unnamed)}"
        )
    return {t: shards[name][t] for t, name in weight_map.items()}
