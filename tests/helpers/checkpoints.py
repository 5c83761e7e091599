"""Small checkpoints to load: every size differs, every parameter is drawn, nothing is 0 or 1."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corruption.checkpoint import CONFIG, SIZES, WEIGHTS, Tensors, write_json
from safetensors.numpy import save_file

import npbert
from npbert import CheckpointError, Model
from npbert.checkpoint.config import Config
from npbert.checkpoint.parameters import LoadReport, parameter_shapes
from npbert.families import class_name

LABELS = 5  # not the number of anything else
IDS = [[2, 7, 11, 59, 3], [2, 8, 3, 0, 0]]


def settings(architecture: str, **changes: Any) -> dict[str, Any]:
    """What config.json says; a change to None takes the field away."""
    said = {
        "model_type": "distilbert",
        "architectures": [class_name("distilbert", architecture)],
        "num_labels": LABELS,
        **SIZES,
        **changes,
    }
    return {name: value for name, value in said.items() if value is not None}


def drawn(architecture: str, *, seed: int = 0, **changes: Any) -> Tensors:
    """Weights under the names that npbert has for them, the tied ones equal."""
    rng = np.random.default_rng(seed)
    config = Config.from_dict(settings(architecture, **changes))
    tensors = {
        name: rng.normal(0, 0.3, shape.numbers).astype(np.float32)
        for name, shape in parameter_shapes(config, architecture).items()
    }
    if "vocab_projector.weight" in tensors and config.tie_word_embeddings:
        tensors["vocab_projector.weight"] = tensors["embeddings.word_embeddings.weight"].copy()
    return tensors


def prefixed(tensors: Tensors, prefix: str = "distilbert.") -> Tensors:
    """The same under the names of transformers: heads have no prefix."""
    return {
        (prefix if name.startswith(("embeddings.", "transformer.")) else "") + name: array
        for name, array in tensors.items()
    }


def write(folder: Path, tensors: Tensors, said: Mapping[str, Any]) -> Path:
    """Write config.json and model.safetensors, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, said)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def write_raw(path: Path, entries: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    """Write a safetensors file byte by byte: dtype, shape and data of every tensor."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in entries.items():
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def same(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Tell whether two sets of arrays have equal names, dtypes, shapes and bits."""
    return ours.keys() == theirs.keys() and all(
        (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
        for x, y in ((ours[name], theirs[name]) for name in ours)
    )


def load(
    folder: Path, tensors: Tensors, architecture: str, *, strict: bool = True, **changes: Any
) -> Model:
    """Write the tensors beside a config.json of the architecture, and load them."""
    said = settings(architecture, **changes)
    return npbert.load(write(folder, tensors, said), strict=strict)


def message(folder: Path, tensors: Tensors, architecture: str, **changes: Any) -> str:
    """Return what is wrong, without the path that every message begins with."""
    with pytest.raises(CheckpointError) as caught:
        load(folder, tensors, architecture, **changes)
    start = f"{folder / WEIGHTS}: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


def report(model: Model) -> LoadReport:
    assert model.load_report is not None
    return model.load_report


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: array for name, array in tensors.items() if name not in names}
