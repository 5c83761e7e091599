"""Mistakes with norms, and with what is added before them."""

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from npbert.checkpoint.config import Config
from npbert.oracle.mistakes.blocks import LINEARS
from npbert.oracle.mistakes.scene import Formula, Mistake, Scene, block_layer, layer_and_input
from npbert.oracle.replay import round_to_type
from npbert.oracle.steps import step_suffix
from npbert.textbook import Affine, Array, Norm, layer_norm, linear

NORMS: Final = {
    # a norm: what goes into it
    "embeddings.LayerNorm": "embeddings.sum",
    "sa_layer_norm": "attention_residual",
    "output_layer_norm": "ffn_residual",
    "vocab_layer_norm": "vocab_activation",
}
EPSILONS: Final = (1e-12, 1e-5, 1e-3, 1e-6, 1e-7, 1e-8)  # first what papers and frameworks have


def norm_mistakes(config: Config) -> Iterator[Mistake]:
    """LayerNorm otherwise, and what is added before it."""
    kinds: dict[str, Formula] = {
        **{
            f"epsilon {e:g}": partial(norm_with, e, 0)
            for e in EPSILONS
            if e != config.layer_norm_epsilon
        },
        "unbiased variance (n - 1)": partial(norm_with, 0.0, 1),
        "gain ignored": lambda s: (s.x - norm_of(s).bias) / norm_of(s).weight + norm_of(s).bias,
        "gain and bias ignored": lambda s: (s.x - norm_of(s).bias) / norm_of(s).weight,
        "bias ignored": lambda s: s.x - norm_of(s).bias,
        "not applied": lambda s: s.value(NORMS[norm_name(s)]),
        "without subtracting the mean (RMSNorm)": rms_norm,
        "over tokens instead of features": norm_over_tokens,
        "the sum of squares overflows float16": partial(norm_in_half, False),
        "the sum of squares is kept in float16, and overflows": partial(norm_in_half, True),
    }
    for text, formula in kinds.items():
        yield Mistake(f"{text}, in every norm", dict.fromkeys(NORMS, formula))
        yield Mistake(
            f"{text}, in the norms of the blocks",
            {norm: formula for norm in NORMS if "." not in norm and "vocab" not in norm},
        )
        for norm in NORMS:
            yield Mistake(f"{norm}: {text}", {norm: formula})
    for great, more in ((False, ""), (True, ", and of large numbers all")):
        yield Mistake(
            "the variance is computed as E[x^2] - E[x]^2, which loses digits" + more,
            dict.fromkeys(NORMS, partial(norm_in_one_pass, great)),
            "" if great else "it loses a few digits, where the mean is large",
        )
    yield Mistake(
        "pre-norm: blocks norm what comes into attention and ffn, not what comes out",
        {
            **dict.fromkeys(
                ("attention.q_lin", "attention.k_lin", "attention.v_lin"), layer_of_normed
            ),
            "sa_layer_norm": lambda s: layer_norm(
                s.block.output_layer_norm, s.value("attention_residual")
            ),
            "ffn_residual": lambda s: s.value("attention_residual") + s.value("ffn.lin2"),
            "output_layer_norm": partial(hand_on_value, "ffn_residual"),
        },
    )
    yield Mistake(
        "no bias anywhere, in linear layers and norms",
        {
            **dict.fromkeys(NORMS, kinds["bias ignored"]),
            **dict.fromkeys(LINEARS, lambda s: s.x - layer_and_input(s)[0].bias),
            "vocab_transform": partial(drop_head_bias, "vocab_transform"),
            "vocab_projector": partial(drop_head_bias, "vocab_projector"),
            "pre_classifier": partial(drop_head_bias, "pre_classifier"),
            "classifier": partial(drop_head_bias, "classifier"),
            "seq_relationship": partial(drop_head_bias, "seq_relationship"),
            "qa_outputs": partial(drop_head_bias, "qa_outputs"),
        },
    )
    yield Mistake(
        "sa_layer_norm and output_layer_norm have changed places",
        {
            "sa_layer_norm": lambda s: layer_norm(
                s.block.output_layer_norm, s.value("attention_residual")
            ),
            "output_layer_norm": lambda s: layer_norm(
                s.block.sa_layer_norm, s.value("ffn_residual")
            ),
        },
    )
    sums = {
        "attention": ("attention_residual", "attention.out_lin", "sa_layer_norm"),
        "ffn": ("ffn_residual", "ffn.lin2", "output_layer_norm"),
    }
    for name, (total, y, norm) in sums.items():
        yield Mistake(f"the residual of the {name} is missing", {total: partial(hand_on_value, y)})
        yield Mistake(
            f"the residual of the {name} is added twice", {total: partial(add_twice, name)}
        )
        yield Mistake(
            f"the {name} is normed before its residual is added, not after",
            {total: partial(norm_before_sum, name, y, norm), norm: partial(hand_on_value, total)},
        )
    yield Mistake(
        "attention and ffn are normed before their residuals are added, not after",
        {
            "attention_residual": lambda s: (
                layer_norm(s.block.sa_layer_norm, s.value("attention.out_lin")) + s.block_input
            ),
            "sa_layer_norm": partial(hand_on_value, "attention_residual"),
            "ffn_residual": lambda s: (
                layer_norm(s.block.output_layer_norm, s.value("ffn.lin2"))
                + s.value("sa_layer_norm")
            ),
            "output_layer_norm": partial(hand_on_value, "ffn_residual"),
        },
    )
    yield Mistake(
        "the ffn's residual is the block's input, not the attention's norm",
        {"ffn_residual": lambda s: s.block_input + s.value("ffn.lin2")},
    )
    yield Mistake(
        "the residuals are missing",
        {
            "attention_residual": partial(hand_on_value, "attention.out_lin"),
            "ffn_residual": partial(hand_on_value, "ffn.lin2"),
        },
    )


def norm_name(scene: Scene) -> str:
    """Return which norm this is."""
    return scene.name.split(".")[-1] if scene.name.startswith("transformer.") else scene.name


def norm_of(scene: Scene) -> Norm:
    """Return a norm's weights."""
    name = norm_name(scene)
    if name == "embeddings.LayerNorm":
        return scene.call.model.encoder.layer_norm
    found: Norm = (
        scene.call.model.head[name] if name == "vocab_layer_norm" else getattr(scene.block, name)
    )
    return found


def norm_with(epsilon: float, less: int, scene: Scene) -> Array:
    """A norm with another epsilon, or with a variance divided by n - 1."""
    x, norm = scene.value(NORMS[norm_name(scene)]), norm_of(scene)
    x = x - x.mean(axis=-2, keepdims=True)
    variance = (x * x).sum(axis=-2, keepdims=True) / (len(x) - less)
    return norm.weight * (x / np.sqrt(variance + (epsilon or norm.epsilon))) + norm.bias


def norm_in_half(rounds: bool, scene: Scene) -> Array:
    """A norm whose sum of squares is a float16: beyond 65504 it is infinite, and nothing left."""
    x, norm = scene.value(NORMS[norm_name(scene)]), norm_of(scene)
    x = x - x.mean(axis=-2, keepdims=True)
    total = (x * x).sum(axis=-2, keepdims=True)
    kept = round_to_type(total, "float16") if rounds else np.where(total > 65504, np.inf, total)
    return norm.weight * (x / np.sqrt(kept / len(x) + norm.epsilon)) + norm.bias


def norm_in_one_pass(great: bool, scene: Scene) -> Array:
    """The norm, of each token so many times as the candidate's is, if float32 may have done that.

    A variance as E[x^2] - E[x]^2 in float32 is off by 2^-24 (mean^2 + variance) or a few times
    that, which makes every value of a token too great or too small by one factor.
    """
    x, norm = scene.value(NORMS[norm_name(scene)]), norm_of(scene)
    theirs = scene.call.candidate.get(scene.name)
    if theirs is None:
        return scene.x
    ours = scene.x - norm.bias
    gap = scene.call.layout.columns(scene.name, theirs) - norm.bias
    factors = (gap * ours).sum(axis=0) / np.maximum((ours * ours).sum(axis=0), 1e-300)
    mean, variance = x.mean(axis=0), x.var(axis=0)
    reach = 2.0**-24 * (mean * mean + variance) / np.maximum(variance, 1e-300)
    off = np.abs(factors - 1)
    is_it = np.isfinite(off).all() and (off <= 16 * reach).all() and (mean * mean > variance).any()
    if not is_it or (off.max() > 1e-3) != great:
        return scene.x
    return ours * factors + norm.bias


def layer_of_normed(scene: Scene) -> Array:
    """A layer of attention that reads the norm of what came in."""
    layer = block_layer(scene.block, step_suffix(scene.name))
    return linear(layer, layer_norm(scene.block.sa_layer_norm, scene.block_input))


def rms_norm(scene: Scene) -> Array:
    """A norm that divides, and subtracts nothing."""
    x, norm = scene.value(NORMS[norm_name(scene)]), norm_of(scene)
    return (
        norm.weight * (x / np.sqrt((x * x).mean(axis=-2, keepdims=True) + norm.epsilon)) + norm.bias
    )


def norm_over_tokens(scene: Scene) -> Array:
    """A norm along the wrong axis."""
    x, norm = scene.value(NORMS[norm_name(scene)]), norm_of(scene)
    made = np.empty_like(x)
    for s in scene.call.pack.spans:
        y = x[:, s] - x[:, s].mean(axis=-1, keepdims=True)
        made[:, s] = y / np.sqrt((y * y).mean(axis=-1, keepdims=True) + norm.epsilon)
    return norm.weight * made + norm.bias


def add_twice(name: str, scene: Scene) -> Array:
    """The sum, and once more what is added."""
    return scene.x + residual_input(name, scene)


def norm_before_sum(name: str, y: str, norm: str, scene: Scene) -> Array:
    """The norm of the output alone, and then what is added."""
    weights: Norm = getattr(scene.block, norm)
    return layer_norm(weights, scene.value(y)) + residual_input(name, scene)


def residual_input(name: str, scene: Scene) -> Array:
    """Return what is added to the output of attention, or of the ffn."""
    return scene.block_input if name == "attention" else scene.value("sa_layer_norm")


def hand_on_value(step: str, scene: Scene) -> Array:
    """Hand on an earlier value as it is."""
    return scene.value(step)


def drop_head_bias(name: str, scene: Scene) -> Array:
    """A layer of the head without its bias."""
    layer: Affine = scene.call.model.head[name]
    return scene.x - layer.bias
