"""Whose names are these?  Activations of other systems, under PyTorch's names.

A map is a table of templates, theirs to ours; {n} is the number of a block.  The first template
that fits decides.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from npbert.errors import InputError, listed, shown

BLOCK: Final = "transformer.layer.{n}."

PYTORCH: Final = {
    # what forward hooks and outputs of the model are called
    "transformer.layer.{n}.attention": BLOCK + "attention.out_lin",
    "transformer.layer.{n}.ffn": BLOCK + "ffn.lin2",
    "transformer.layer.{n}": BLOCK + "output_layer_norm",
    "embeddings": "embeddings.LayerNorm",
    "hidden_states.0": "embeddings.LayerNorm",
    "hidden_states.{n+1}": BLOCK + "output_layer_norm",
    "attentions.{n}": BLOCK + "attention.weights",
    "hidden_state": "last_hidden_state",
    "pooled_state": "pooled",
    "pooler_output": "pooled",
    "vocab_activation": "vocab_activation",
}
BUMBLEBEE: Final = {
    "embedder.token_embedding": "embeddings.word_embeddings",
    "embedder.position_embedding": "embeddings.position_embeddings",
    "embedder.norm": "embeddings.LayerNorm",
    "encoder.blocks.{n}.self_attention.query": BLOCK + "attention.q_lin",
    "encoder.blocks.{n}.self_attention.key": BLOCK + "attention.k_lin",
    "encoder.blocks.{n}.self_attention.value": BLOCK + "attention.v_lin",
    "encoder.blocks.{n}.self_attention.output": BLOCK + "attention.out_lin",
    "encoder.blocks.{n}.self_attention_norm": BLOCK + "sa_layer_norm",
    "encoder.blocks.{n}.ffn.intermediate": BLOCK + "ffn.lin1",
    "encoder.blocks.{n}.ffn.activation": BLOCK + "ffn.activation",
    "encoder.blocks.{n}.ffn.output": BLOCK + "ffn.lin2",
    "encoder.blocks.{n}.output_norm": BLOCK + "output_layer_norm",
    "pooler.output": "pre_classifier",
    "language_modeling_head.dense": "vocab_transform",
    "language_modeling_head.activation": "vocab_activation",
    "language_modeling_head.norm": "vocab_layer_norm",
    "language_modeling_head.bias": "vocab_projector",
    "sequence_classification_head.output": "classifier",
    "token_classification_head.output": "classifier",
    "multiple_choice_head.output": "classifier",
    "question_answering_head.output": "qa_outputs",
}
# torch.onnx names a value after the module and the operation that made it; of a module's values
# the last one is its own.
LAYER: Final = "/transformer/layer.{n}/"
ONNX: Final = {
    "/embeddings/word_embeddings/Gather_output_0": "embeddings.word_embeddings",
    "/embeddings/position_embeddings/Gather_output_0": "embeddings.position_embeddings",
    "/embeddings/Add_output_0": "embeddings.sum",
    "/embeddings/LayerNorm/*": "embeddings.LayerNorm",
    LAYER + "attention/q_lin/Add_output_0": BLOCK + "attention.q_lin",
    LAYER + "attention/k_lin/Add_output_0": BLOCK + "attention.k_lin",
    LAYER + "attention/v_lin/Add_output_0": BLOCK + "attention.v_lin",
    LAYER + "attention/MatMul_output_0": BLOCK + "attention.scores",
    LAYER + "attention/Where_output_0": BLOCK + "attention.masked_scores",
    LAYER + "attention/Softmax_output_0": BLOCK + "attention.weights",
    LAYER + "attention/out_lin/Add_output_0": BLOCK + "attention.out_lin",
    LAYER + "Add_output_0": BLOCK + "attention_residual",
    LAYER + "sa_layer_norm/*": BLOCK + "sa_layer_norm",
    LAYER + "ffn/lin1/Add_output_0": BLOCK + "ffn.lin1",
    LAYER + "ffn/activation/Mul_1_output_0": BLOCK + "ffn.activation",
    LAYER + "ffn/lin2/Add_output_0": BLOCK + "ffn.lin2",
    LAYER + "Add_1_output_0": BLOCK + "ffn_residual",
    LAYER + "output_layer_norm/*": BLOCK + "output_layer_norm",
    "/pre_classifier/*": "pre_classifier",
    "/classifier/*": "classifier",
    "/qa_outputs/Add_output_0": "qa_outputs",
    "/vocab_transform/Add_output_0": "vocab_transform",
    "/vocab_layer_norm/*": "vocab_layer_norm",
    "/vocab_projector/Add_output_0": "vocab_projector",
}
NORM_ENDS: Final = (
    "LayerNormalization_output_0",
    "Add_1_output_0",
    "Gemm_output_0",
    "Add_output_0",
)
MAPS: Final[Mapping[str, Mapping[str, str]]] = {
    "pytorch": PYTORCH, "bumblebee": BUMBLEBEE, "onnx": ONNX, "candle": PYTORCH,
}  # fmt: skip


def read_map(named: str) -> Mapping[str, str]:
    """Return a map by its name, or from a JSON or TOML file.  Raises InputError."""
    if named in MAPS:
        return MAPS[named]
    path = Path(named)
    if not path.is_file():
        raise InputError(
            f"--map {named}: expected one of {', '.join(MAPS)}, or a .json or .toml file"
        )
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise InputError(f"{path}: expected an object of names, theirs to npbert's")
    return table


def ours(theirs: Iterable[str], table: Mapping[str, str]) -> dict[str, str]:
    """Return our name for each of theirs; a name that no template fits is taken for ours.

    A hook hears a step under its own name, and once more as the result of the module around it:
    its own name counts.  Raises InputError where two names have equal rights to one of ours.
    """
    patterns = [(pattern_of(template), target) for template, target in table.items()]
    found = {name: mine for name in theirs if (mine := renamed(name, patterns)) is not None}
    made: dict[str, str] = {}
    for name in sorted(found, key=lambda name: not name.endswith(found[name])):
        rival = next((other for other in made if made[other] == found[name]), None)
        if rival is None:
            made[name] = found[name]
        elif name.endswith(found[name]) or not rival.endswith(found[name]):
            raise InputError(f"{shown(rival)} and {shown(name)} are both {found[name]}")
    return made


def renamed(name: str, patterns: list[tuple[re.Pattern[str], str]]) -> str | None:
    """Return our name for one of theirs; None for one that is a step on the way to another."""
    bare = re.sub(r"^(?:model\.|module\.)*(?:distilbert\.|/distilbert(?=/))?", "", name)
    for pattern, target in patterns:
        if match := pattern.fullmatch(bare):
            if "end" in pattern.groupindex and match["end"] not in NORM_ENDS:
                return None
            groups = match.groupdict()
            n = int(groups["n"]) - int("m" in groups) if "n" in groups else 0
            return target.replace("{n}", str(n))
    return None if bare.startswith("/") or bare.endswith("dropout") else bare


def pattern_of(template: str) -> re.Pattern[str]:
    """Turn a template into a pattern: {n} a number, {n+1} the one after it, * an operation."""
    escaped = re.escape(template)
    escaped = escaped.replace(r"\{n\+1\}", r"(?P<n>[1-9]\d*)(?P<m>)")
    escaped = escaped.replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\*", r"(?P<end>[^/]+)")
    return re.compile(escaped)


def unknown(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return which names are nothing that npbert computes."""
    return sorted(set(names) - set(known))


def told(names: list[str]) -> str:
    """Say which names were not understood."""
    return f"not understood, and left out: {listed(names)}" if names else ""
