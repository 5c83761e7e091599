"""The catalogue: every mistake that ports are known to make, one file for each part of the pass.

A mistake is a formula in place of a step's: what is computed where something else should be.
"""

from npbert.checkpoint.config import Config
from npbert.oracle.mistakes.attention import attention_mistakes
from npbert.oracle.mistakes.blocks import activation_mistakes, block_mistakes, linear_mistakes
from npbert.oracle.mistakes.embeddings import embedding_mistakes
from npbert.oracle.mistakes.heads import head_mistakes
from npbert.oracle.mistakes.norms import norm_mistakes
from npbert.oracle.mistakes.precision import rounding_mistakes
from npbert.oracle.mistakes.scene import Mistake
from npbert.oracle.mistakes.weights import weights_mistakes


def catalogue(config: Config) -> dict[str, Mistake]:
    """Return every fault that a model of this kind can have, the plainest first."""
    found = [
        *activation_mistakes(config),
        *attention_mistakes(),
        *norm_mistakes(config),
        *embedding_mistakes(config),
    ]
    found += [*head_mistakes(config), *linear_mistakes(config), *block_mistakes(config)]
    found += [*rounding_mistakes(config), *weights_mistakes(config)]
    return {fault.text: fault for fault in found}
