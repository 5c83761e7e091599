"""The catalogue: every mistake that ports are known to make, by its text."""

from npbert.config import Config
from npbert.oracle.faults import Fault
from npbert.oracle.mistakes_attention import of_attention
from npbert.oracle.mistakes_blocks import of_blocks
from npbert.oracle.mistakes_ends import of_embeddings, of_heads
from npbert.oracle.mistakes_norms import of_norms
from npbert.oracle.mistakes_within import of_activations, of_linears


def catalogue(config: Config) -> dict[str, Fault]:
    """Return every fault that a model of this kind can have, the plainest first."""
    found = [*of_activations(config), *of_attention(), *of_norms(), *of_embeddings()]
    found += [*of_heads(config), *of_linears(config), *of_blocks(config)]
    return {fault.text: fault for fault in found}
