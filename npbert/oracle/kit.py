"""npbert kit: small models, inputs, and every number of them, to check a port with.

Every size is another number, and every parameter is drawn, so that no mistake can hide.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from npbert.checkpoint.config import Config
from npbert.checkpoint.drafts import Draft, replace_files
from npbert.checkpoint.folders import save_checkpoint
from npbert.checkpoint.parameters import PROJECTOR, WORDS, parameter_shapes
from npbert.errors import CheckpointError, InputError
from npbert.families import ARCHITECTURES, FAMILIES, class_name, list_architectures
from npbert.model import Model
from npbert.oracle.dumps import write_arrays, write_npy
from npbert.oracle.maps import template_map
from npbert.oracle.traces import float32_model, trace
from npbert.textbook import Array

README: Final = Path(__file__).with_name("kit.md")
SIZES: Final = {
    "vocab_size": 101, "max_positions": 53, "hidden_size": 30, "num_blocks": 3,
    "num_attention_heads": 5, "intermediate_size": 44, "num_labels": 7,
}  # fmt: skip
OWN_SIZES: Final[dict[str, dict[str, Any]]] = {  # of families that have more
    "distilbert": {},
    "bert": {"type_vocab_size": 9, "layer_norm_epsilon": 2e-3},
}
KIT_CHOICES: Final = 2
KitInputs = dict[str, np.ndarray[Any, Any]]


def draw_model(family: str, architecture: str, seed: int) -> Model:
    """Return a model in float64 whose every parameter is drawn, as float32 holds it."""
    config = Config(family=family, **SIZES, **OWN_SIZES[family])
    row = FAMILIES[family]
    pooled = ARCHITECTURES[architecture].is_encoder and row.pooler_in_encoder
    rng = np.random.default_rng(seed)
    parameters: dict[str, Array] = {}
    for name, shape in parameter_shapes(config, architecture, pooled=pooled).items():
        spread = 0.8 if name.startswith("embeddings.") and len(shape.numbers) == 2 else 0.2
        is_gain = "norm" in name.lower() and name.endswith(".weight")
        values = rng.standard_normal(shape.numbers) * spread + is_gain
        parameters[name] = values.astype(np.float32).astype(np.float64)
    if PROJECTOR in parameters:  # the words again
        parameters[PROJECTOR] = parameters[WORDS]
    return Model(config, architecture, parameters)


def draw_inputs(model: Model, seed: int) -> Iterator[tuple[str, KitInputs]]:
    """Yield the sets of inputs by their names."""
    rng = np.random.default_rng(seed)
    config = model.config

    def draw(batch: int, length: int) -> KitInputs:
        shape = (batch, KIT_CHOICES, length) if model.row.has_choices else (batch, length)
        made = {"input_ids": rng.integers(1, config.vocab_size, shape)}
        made["attention_mask"] = np.ones(shape, np.int64)
        if config.type_vocab_size:
            made["token_type_ids"] = rng.integers(0, config.type_vocab_size, shape)
        return made

    def mask_tokens(given: KitInputs, row: int, *places: slice) -> None:
        for place in places:
            for name in ("attention_mask", "input_ids"):
                given[name][row, ..., place] = 0

    yield "plain", draw(4, 11)
    length = 40 if model.row.is_encoder else 19  # heads see no length; scores take most room
    padded = draw(2, length)
    mask_tokens(padded, 0, slice(0, 9), slice(12, 14))
    mask_tokens(padded, 1, slice(length - 7, length), slice(5, 6))
    yield "padded", padded
    every = draw(4, 13)
    mask_tokens(every, 0, slice(8, 13))
    mask_tokens(every, 1, slice(0, 3), slice(6, 7))
    mask_tokens(every, 2, slice(4, 6))
    shape = every["input_ids"].shape
    every["position_ids"] = np.argsort(rng.random((*shape[:-1], config.max_positions)))[..., :13]
    every["attention_head_mask"] = rng.choice(
        [0, 0.5, 1], (config.num_blocks, config.num_attention_heads)
    )
    yield "everything", every


def list_classes() -> list[tuple[str, str]]:
    """Return the families and architectures that there is a folder for."""
    return [(family, name) for family in FAMILIES for name in list_architectures(family)]


def write_class(draft: Draft, own: Path, model: Model, seed: int) -> None:
    """Write a model, its inputs and traces into a folder.  Raises CheckpointError, OSError."""
    parameters = float32_model(model).parameters
    save_checkpoint(draft, own / "model", model.config, model.architecture, parameters)
    with draft(own / "names.toml") as file:
        file.write(template_map(model).encode())
    for name, given in draw_inputs(model, seed):
        for argument, x in given.items():
            with draft(own / name / "inputs" / f"{argument}.npy") as file:
                write_npy(file, x)
        told = trace(model, **given, noise=True)  # type: ignore[arg-type]
        write_arrays(draft, own / name / "trace", told.arrays, told.about)


def kit(target: Path) -> list[Path]:
    """Write a model, inputs and their traces for every class, all or nothing.

    Raises InputError where that cannot be written.
    """
    made = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        with replace_files(target) as draft:
            for seed, (family, architecture) in enumerate(list_classes()):
                own = target / class_name(family, architecture)
                write_class(draft, own, draw_model(family, architecture, seed), seed)
                made.append(own)
            with draft(target / "README.md") as file:
                file.write(README.read_bytes())
    except CheckpointError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from None
    return sorted(made)
