"""The catalogue: every mistake that ports are known to make, one file for each part of the pass.

A mistake is a formula in place of a step's: what is computed where something else should be.
"""

from npbert.checkpoint.config import Config
from npbert.oracle.mistakes.attention import of_attention
from npbert.oracle.mistakes.blocks import of_activations, of_blocks, of_linears
from npbert.oracle.mistakes.ends import of_embeddings, of_heads
from npbert.oracle.mistakes.norms import of_norms
from npbert.oracle.mistakes.scene import Fault


def catalogue(config: Config) -> dict[str, Fault]:
    """Return every fault that a model of this kind can have, the plainest first."""
    found = [*of_activations(config), *of_attention(), *of_norms(), *of_embeddings()]
    found += [*of_heads(config), *of_linears(config), *of_blocks(config)]
    return {fault.text: fault for fault in found}
