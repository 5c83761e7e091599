"""Models whose every parameter is redrawn: fresh ones have zero biases and unit gains, and hide."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import npbert

SIZES = {
    "vocab_size": 97, "max_positions": 31, "hidden_size": 24, "num_blocks": 3,
    "num_attention_heads": 3, "intermediate_size": 40, "num_labels": 5,
}  # fmt: skip
ARCHITECTURES = (
    "base",
    "for_masked_language_modeling",
    "for_sequence_classification",
    "for_token_classification",
    "for_question_answering",
    "for_multiple_choice",
)


def model(
    architecture: str = "base",
    dtype: str = "float64",
    *,
    seed: int = 20,
    pooled: bool = False,
    **fields: Any,
) -> npbert.Model:
    """Matrices normal(0, 0.6), vectors normal(0, 0.3), gains around 1; the same in either dtype.

    `pooled` gives the base model the weights of a pooler.
    """
    config = npbert.Config(**{**SIZES, **fields})
    parameters = dict(npbert.init(config, architecture).parameters)
    if pooled:
        width = config.hidden_size
        parameters["pre_classifier.weight"] = np.empty((width, width))
        parameters["pre_classifier.bias"] = np.empty(width)
    rng = np.random.default_rng(seed)
    for name, old in parameters.items():
        if old.ndim == 2:
            new = rng.normal(0, 0.6, old.shape)
        else:
            new = rng.normal(1.0 if name.endswith(".weight") else 0.0, 0.3, old.shape)
        parameters[name] = new.astype(dtype)
    return npbert.Model(config, architecture, parameters)


def ids(*shape: int, seed: int = 0) -> NDArray[np.integer]:
    return np.random.default_rng(seed).integers(0, SIZES["vocab_size"], shape)
