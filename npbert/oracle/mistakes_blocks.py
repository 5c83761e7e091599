"""Mistakes with whole blocks: one left out, run twice, with another's weights, or in few bits."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from npbert.config import Config
from npbert.encoder import Run, transformer_block
from npbert.engines import ENGINES
from npbert.oracle.faults import Fault, Scene
from npbert.oracle.replay import rounded
from npbert.textbook import Affine, Array, linear, untapped

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
    yield Fault(
        "the block is run twice", {"output_layer_norm": lambda s: through(s, s.number, s.x)}
    )
    for j in range(config.num_blocks):
        yield Fault(
            f"the block has all weights of block {j}",
            {
                **{
                    f"attention.{name}": partial(layer_of, j, "attention", name)
                    for name in ("q_lin", "k_lin", "v_lin", "out_lin")
                },
                **{f"ffn.{name}": partial(layer_of, j, "ffn", name) for name in ("lin1", "lin2")},
                "sa_layer_norm": partial(norm_of_block, j, "sa_layer_norm", "attention_residual"),
                "output_layer_norm": partial(norm_of_block, j, "output_layer_norm", "ffn_residual"),
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


def through(scene: Scene, j: int, x: Array) -> Array:
    """Run block j on something else."""
    call = scene.call
    run = Run(ENGINES[call.model.engine], call.model.config.activation, untapped)
    spans = call.pack.asking(call.pack.spans)
    return transformer_block(call.model.encoder.blocks[j], x, x, spans, call.masks[j], run)


def layer_of(j: int, group: str, name: str, scene: Scene) -> Array:
    """A linear layer of another block, on what came into this one's."""
    came = {
        "out_lin": "attention.context",
        "lin1": "sa_layer_norm",
        "lin2": "ffn.activation",
    }
    x = scene.at(came[name]) if name in came else scene.before
    layer: Affine = getattr(getattr(scene.call.model.encoder.blocks[j], group), name)
    return linear(layer, x)


def norm_of_block(j: int, name: str, of: str, scene: Scene) -> Array:
    """A norm with the gain and bias of another block."""
    own: Affine = getattr(scene.block, name)
    other: Affine = getattr(scene.call.model.encoder.blocks[j], name)
    return other.weight * ((scene.x - own.bias) / own.weight) + other.bias


def rounded_off(kind: str, scene: Scene) -> Array:
    """The right value, in fewer bits."""
    return rounded(scene.x, kind)
