"""The recorded cases: what was given to PyTorch, and every activation that it computed."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from safetensors import safe_open

import npbert
from npbert.engine import inputs
from npbert.engine.packs import pack_rows
from npbert.engine.taps import Keeper
from npbert.families import canonical_module

GOLDEN = Path(__file__).parent.parent.parent / "golden"
TOKENS = ("input_ids", "attention_mask", "position_ids", "token_type_ids")
INPUTS = (*TOKENS, "attention_head_mask")
CASES = sorted(
    p
    for p in GOLDEN.glob("*/*.safetensors")
    if p.name != "model.safetensors"
    and p.parent.name not in ("ports", "real", "BertForPreTraining")
)


class Case(NamedTuple):
    folder: Path
    config: dict[str, Any]  # fields that this case overrides
    given: dict[str, NDArray[Any]]
    activations: dict[str, NDArray[Any]]


def read(path: Path) -> Case:
    with safe_open(path, "numpy") as file:
        told = json.loads(file.metadata()["case"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    given = {name: arrays.pop(name) for name in INPUTS if name in arrays}
    family = json.loads((path.parent / "config.json").read_bytes())["model_type"]
    ours = {canonical_module(family, name): x for name, x in arrays.items()}
    return Case(path.parent, told["config"], given, ours)


def name_of(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def activations(model: npbert.Model, given: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return every named activation of a dense call, as rows."""
    tokens: dict[str, Any] = {name: given.get(name) for name in TOKENS}
    checked = inputs.check_batch(model.config, model.row, **tokens)
    keeper = Keeper(checked.layout(model.row), lambda name: not name.endswith("dropout"))
    model.run(pack_rows(checked), given.get("attention_head_mask"), keeper)
    return keeper.rows()
