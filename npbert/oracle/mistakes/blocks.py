"""Mistakes within a block, and with whole blocks: linear layers, activations, order, precision.

Each is a formula: what is computed in place of what should be.  A formula gets the candidate's own
numbers, so that a mistake that was made leaves nothing over.  Sources: ports read and repaired over
the years (Rust, JavaScript, Elixir, C), and their issues.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np

from npbert.checkpoint.config import Config
from npbert.encoder import transformer_block
from npbert.engine.activations import ACTIVATIONS
from npbert.oracle.mistakes.scene import (
    Formula,
    Mistake,
    Scene,
    block_layer,
    layer_and_input,
    swap_block,
)
from npbert.oracle.replay import round_to_type
from npbert.oracle.steps import step_suffix
from npbert.textbook import Affine, Array, linear, no_tap

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


def block_mistakes(config: Config) -> Iterator[Mistake]:
    """A block left out, run twice, or with another's weights."""
    yield Mistake("the block is skipped", {"output_layer_norm": lambda s: s.block_input})
    yield Mistake(
        "the block hands on all numbers of the block before it",
        dict.fromkeys((*LINEARS, *ATTENTION, *SUMS), hand_on),
    )
    yield Mistake("the block is run twice", {"output_layer_norm": run_again})
    for j in range(config.num_blocks):
        yield Mistake(
            f"the block has all weights of block {j}",
            {
                **{step: partial(swap_block, j) for step in LINEARS},
                "sa_layer_norm": partial(swap_norm, j),
                "output_layer_norm": partial(swap_norm, j),
            },
        )
    for kind in ("float16", "bfloat16"):
        steps = (*LINEARS, *ATTENTION, *SUMS)
        yield Mistake(
            f"the steps of the block are rounded to {kind}",
            {step: partial(round_step, kind) for step in steps},
        )


def hand_on(scene: Scene) -> Array:
    """The same step of the block before, as the candidate has it."""
    name = scene.name.replace(f".{scene.number}.", f".{scene.number - 1}.", 1)
    theirs = scene.call.candidate.get(name)
    if theirs is None:
        return scene.x
    return (
        theirs[scene.sequence].mT if scene.x.ndim == 3 else scene.call.layout.columns(name, theirs)
    )


def run_again(scene: Scene) -> Array:
    """The block once more, on what came out of it."""
    call, x = scene.call, scene.x
    run = call.model.make_run(no_tap)
    spans = call.pack.spans_of(call.pack.spans)
    return transformer_block(scene.block, x, x, spans, scene.head_mask, run)


def swap_norm(j: int, scene: Scene) -> Array:
    """A norm with the gain and bias of another block."""
    name = step_suffix(scene.name)
    own: Affine = getattr(scene.block, name)
    other: Affine = getattr(scene.call.model.encoder.blocks[j], name)
    return other.weight * ((scene.x - own.bias) / own.weight) + other.bias


def round_step(kind: str, scene: Scene) -> Array:
    """The right value, in fewer bits."""
    return round_to_type(scene.x, kind)


SPELT: Final = {
    "gelu_new": "the tanh approximation of GELU",
    "quick_gelu": "x sigmoid(1.702 x) for GELU",
    "gelu": "the exact GELU, by erf",
    "linear": "no activation function at all",
}
SHIFT: Final = "adding one number to all scores of a query changes no softmax"


# ---- activations -------------------------------------------------------------------------------


def activation_mistakes(config: Config) -> Iterator[Mistake]:
    """Another function in the place of the config's, or the same of fewer bits."""
    x = np.linspace(-12, 12, 99)  # so that relu6 and gelu_10 are none of the others
    seen = [ACTIVATIONS[config.activation](x)]
    for name in ("gelu_new", *ACTIVATIONS):
        values = ACTIVATIONS[name](x)
        if any(np.allclose(values, other, rtol=0, atol=1e-9) for other in seen):
            continue  # two names of one function
        seen.append(values)
        text = f"computed with {SPELT.get(name, name)}"
        yield Mistake(
            text,
            {
                "ffn.activation": partial(apply_activation, name, "ffn.lin1"),
                "vocab_activation": partial(apply_activation, name, "vocab_transform"),
            },
        )
    yield Mistake(
        "the activation function is a table of float16 numbers",
        {
            "ffn.activation": partial(apply_in_half, "ffn.lin1"),
            "vocab_activation": partial(apply_in_half, "vocab_transform"),
        },
    )


def apply_in_half(of: str, scene: Scene) -> Array:
    """The model's own function, looked up by float16 numbers."""
    function = scene.call.model.make_run(no_tap).activation
    return round_to_type(function(round_to_type(scene.value(of), "float16")), "float16")


def apply_activation(name: str, of: str, scene: Scene) -> Array:
    """Return another function of the same numbers."""
    return ACTIVATIONS[name](scene.value(of))


# ---- linear layers -----------------------------------------------------------------------------


def linear_mistakes(config: Config) -> Iterator[Mistake]:
    """Weights laid otherwise, of another place, or of fewer bits; biases left out or doubled."""
    kinds: dict[str, Formula] = {
        "weights transposed": transpose_weights,
        "weights read in the other order (rows for columns)": read_transposed,
        "weights transposed or, where they are not square, read in the other order": (
            lambda s: read_transposed(s) if is_oblong(s) else transpose_weights(s)
        ),
        "bias missing": lambda s: s.x - layer_and_input(s)[0].bias,
        "bias added twice": lambda s: s.x + layer_and_input(s)[0].bias,
        "bias added in the first text only": add_bias_to_first,
        "weights rounded to float16": partial(
            change_weights, lambda w: round_to_type(w, "float16")
        ),
        "weights rounded to bfloat16": partial(
            change_weights, lambda w: round_to_type(w, "bfloat16")
        ),
        "weights rounded to an int8 grid, one scale for all": partial(change_weights, int8_weights),
        "weights rounded to an int8 grid, a scale for each row": partial(change_weights, int8_rows),
    }
    for text, formula in kinds.items():
        yield Mistake(f"{text}, in every linear layer", dict.fromkeys(LINEARS, formula))
        for step in LINEARS:
            harmless = SHIFT if step.endswith("k_lin") and text.startswith("bias") else ""
            yield Mistake(f"{step}: {text}", {step: formula}, harmless)
    for one, other in (("q", "k"), ("q", "v"), ("k", "v")):
        yield Mistake(
            f"the weights of {one}_lin and {other}_lin have changed places",
            {
                f"attention.{a}_lin": partial(swap_layer, f"attention.{b}_lin")
                for a, b in ((one, other), (other, one))
            },
        )
        for a, b in ((one, other), (other, one)):
            yield Mistake(
                f"{a}_lin has the weights of {b}_lin",
                {f"attention.{a}_lin": partial(swap_layer, f"attention.{b}_lin")},
            )
    yield Mistake(
        "q, k, v have the weights of k, v, q",
        {
            f"attention.{a}_lin": partial(swap_layer, f"attention.{b}_lin")
            for a, b in ("qk", "kv", "vq")
        },
    )
    yield Mistake(
        "q, k, v have the weights of v, q, k",
        {
            f"attention.{a}_lin": partial(swap_layer, f"attention.{b}_lin")
            for a, b in ("qv", "kq", "vk")
        },
    )
    for j in range(config.num_blocks):
        for step in LINEARS:
            yield Mistake(f"{step} has the weights of block {j}", {step: partial(swap_block, j)})


def is_oblong(scene: Scene) -> bool:
    """Tell whether the weights of a layer are not square."""
    out, into = layer_and_input(scene)[0].weight.shape
    return out != into


def transpose_weights(scene: Scene) -> Array:
    """W^T x + b, where W is square."""
    layer, x = layer_and_input(scene)
    weight = layer.weight
    return weight.T @ x + layer.bias if weight.shape[0] == weight.shape[1] else scene.x


def read_transposed(scene: Scene) -> Array:
    """The file's numbers, taken to be (in, out) where they are (out, in)."""
    layer, x = layer_and_input(scene)
    out, into = layer.weight.shape
    return scene.x if out == into else layer.weight.reshape(into, out).T @ x + layer.bias


def change_weights(change: Callable[[Array], Array], scene: Scene) -> Array:
    """W' x + b, for weights of which something has become."""
    layer, x = layer_and_input(scene)
    return change(layer.weight) @ x + layer.bias


def int8_weights(weight: Array) -> Array:
    """Return weights as an int8 tensor with one scale keeps them."""
    return round_to_steps(weight, np.abs(weight).max(keepdims=True))


def int8_rows(weight: Array) -> Array:
    """Return weights as int8 with a scale for each output keeps them."""
    return round_to_steps(weight, np.abs(weight).max(axis=1, keepdims=True))


def round_to_steps(x: Array, greatest: Array) -> Array:
    """Return values on 255 steps around zero, the last of which is the greatest."""
    scale = np.where(greatest > 0, greatest, 1) / 127
    return np.round(x / scale) * scale


def add_bias_to_first(scene: Scene) -> Array:
    """A layer that adds its bias to the first text."""
    made = scene.x - layer_and_input(scene)[0].bias
    first = scene.call.pack.spans[0]
    made[:, first] = scene.x[:, first]
    return made


def swap_layer(step: str, scene: Scene) -> Array:
    """The same input through another layer of the block."""
    return linear(block_layer(scene.block, step), layer_and_input(scene)[1])
