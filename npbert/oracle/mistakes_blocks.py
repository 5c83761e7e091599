"""Mistakes with whole blocks: one left out, run twice, with another's weights, or in few bits."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from npbert.config import Config
from npbert.encoder import Run, transformer_block
from npbert.engines import ENGINES
from npbert.oracle.faults import Fault, Scene, of_block, suffix_of
from npbert.oracle.replay import rounded
from npbert.textbook import Affine, Array, untapped

LINEARS: Final = (
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1",
    "ffn.lin2",
)  # fmt: skip
ATTENTION: Final = (
    "attention.scores", "attention.masked_scores", "attention.weights", "attention.context",
)  # fmt: skip
SUMS: Final = (
    "attention_residual", "sa_layer_norm", "ffn.activation", "ffn_residual", "output_layer_norm",
)  # fmt: skip


def of_blocks(config: Config) -> Iterator[Fault]:
    """A block left out, run twice, or with another's weights."""
    yield Fault("the block is skipped", {"output_layer_norm": lambda s: s.before})
    yield Fault(
        "the block hands on all numbers of the block before it",
        dict.fromkeys((*LINEARS, *ATTENTION, *SUMS), handed_on),
    )
    yield Fault("the block is run twice", {"output_layer_norm": run_again})
    for j in range(config.num_blocks):
        yield Fault(
            f"the block has all weights of block {j}",
            {
                **{step: partial(of_block, j) for step in LINEARS},
                "sa_layer_norm": partial(norm_of_block, j),
                "output_layer_norm": partial(norm_of_block, j),
            },
        )
    for kind in ("float16", "bfloat16"):
        steps = (*LINEARS, *ATTENTION, *SUMS)
        yield Fault(
            f"the steps of the block are rounded to {kind}",
            {step: partial(rounded_off, kind) for step in steps},
        )


def handed_on(scene: Scene) -> Array:
    """The same step of the block before, as the candidate has it."""
    name = scene.name.replace(f".{scene.number}.", f".{scene.number - 1}.", 1)
    theirs = scene.call.candidate.get(name)
    if theirs is None:
        return scene.x
    return theirs[scene.sequence].mT if scene.x.ndim == 3 else scene.call.columns(name, theirs)


def run_again(scene: Scene) -> Array:
    """The block once more, on what came out of it."""
    call, x = scene.call, scene.x
    run = Run(ENGINES[call.model.engine], call.model.config.activation, untapped)
    spans = call.pack.asking(call.pack.spans)
    return transformer_block(scene.block, x, x, spans, scene.head_mask, run)


def norm_of_block(j: int, scene: Scene) -> Array:
    """A norm with the gain and bias of another block."""
    name = suffix_of(scene.name)
    own: Affine = getattr(scene.block, name)
    other: Affine = getattr(scene.call.model.encoder.blocks[j], name)
    return other.weight * ((scene.x - own.bias) / own.weight) + other.bias


def rounded_off(kind: str, scene: Scene) -> Array:
    """The right value, in fewer bits."""
    return rounded(scene.x, kind)
