"""Where a step belongs: in which stage, under which name there, and in which order of the pass."""

from collections.abc import Iterable
from functools import cache
from typing import Final


def step_stage(name: str, blocks: int) -> int:
    """Return where a step belongs: 0 the embeddings, 1 the first block, ..., and then the head."""
    if name.startswith("embeddings."):
        return 0
    return int(name.split(".")[2]) + 1 if name.startswith("transformer.") else blocks + 1


def step_suffix(name: str) -> str:
    """Return a step's name within its block; elsewhere all of it."""
    return name.split(".", 3)[3] if name.startswith("transformer.") else name


@cache
def place_step(name: str, blocks: int) -> tuple[int, str]:
    """Return where a step belongs, and its name there."""
    return step_stage(name, blocks), step_suffix(name)


STEP_ORDER: Final = (  # of a block, of the embeddings, and of the heads, in the order of the pass
    "word_embeddings", "token_type_embeddings", "position_embeddings", "sum", "LayerNorm",
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.scores",
    "attention.masked_scores", "attention.weights", "attention.context", "attention.out_lin",
    "attention_residual", "sa_layer_norm", "ffn.lin1", "ffn.activation", "ffn.lin2",
    "ffn_residual", "output_layer_norm", "pre_classifier", "pooled", "vocab_transform",
    "vocab_activation", "vocab_layer_norm", "vocab_projector", "classifier", "seq_relationship",
    "qa_outputs", "logits", "start_logits", "end_logits", "pooling", "dense", "normalize",
    "sentence_embedding",
)  # fmt: skip


def sort_steps(names: Iterable[str]) -> list[str]:
    """Return names of steps in the order of the pass; those that are none of it behind."""

    def place(name: str) -> tuple[int, int]:
        _, _, within = name.partition("embeddings.")
        within = within or (name.split(".", 3)[3] if name.startswith("transformer.") else name)
        known = within in STEP_ORDER
        return step_stage(name, LAST_STAGE), STEP_ORDER.index(within) if known else len(STEP_ORDER)

    return sorted(names, key=place)


LAST_STAGE: Final = 1 << 20  # more than any model has
