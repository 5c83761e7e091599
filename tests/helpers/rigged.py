"""Models that were given their opinions: what a token means is written into its word vector.

Blocks add nothing, so that the hidden state of a token is the norm of its word vector, a peak at
the feature that it was given; a head reads features one to one. Real weights, real files, a real
forward pass, and answers that a test can know beforehand.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import npbert
from npbert.checkpoint.parameters import PLACES, WORDS

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WIDTH = 12  # features; none is the last


def rigged(
    folder: Path,
    architecture: str,
    meanings: Mapping[str, int | Sequence[int]],
    *,
    labels: Sequence[str] = (),
    sharpness: float = 1.0,
    positions: int = 64,
    head: np.ndarray | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model to a folder; each piece of its vocabulary has features, or none.

    A feature is a class of the head, multiplied by `sharpness`; `head`, (classes, WIDTH), replaces
    that.
    """
    pieces = [*SPECIALS, *(piece for piece in meanings if piece not in SPECIALS)]
    config: dict[str, Any] = {"num_labels": 1 if architecture == "for_multiple_choice" else 2}
    if labels:
        config = {"id_to_label": dict(enumerate(labels))}
    model = npbert.init(
        npbert.Config(
            vocab_size=len(pieces), max_positions=positions, hidden_size=WIDTH, num_blocks=1,
            num_attention_heads=2, intermediate_size=4, **config,
        ),
        architecture,
    )  # fmt: skip
    parameters = model.parameters
    for name, array in parameters.items():
        if name.endswith(("out_lin.weight", "lin2.weight")) or name == PLACES:
            array[:] = 0
    words = np.zeros((len(pieces), WIDTH), np.float32)
    for i, piece in enumerate(pieces):
        meaning = meanings.get(piece, WIDTH - 1)
        words[i, [meaning] if isinstance(meaning, int) else list(meaning)] = 1
    parameters[WORDS][:] = words
    for name in ("classifier", "qa_outputs"):
        if f"{name}.weight" in parameters:
            weight = parameters[f"{name}.weight"]
            weight[:] = sharpness * np.eye(*weight.shape) if head is None else head
    if "pre_classifier.weight" in parameters:  # a relu follows, which keeps a peak
        parameters["pre_classifier.weight"][:] = np.eye(WIDTH)
    model.save(folder)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, **(settings or {})})
    )
    return folder
