"""Fewer bits: weights or all numbers in halves, make_products in few bits, int8, blocks of 4 bits.

How a kernel rounds cannot be known to the last bit, so that these explain a share of an error.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

import numpy as np

from npbert.checkpoint.config import Config
from npbert.families import TYPES
from npbert.oracle.mistakes.attention import CONTEXT, context_of_values, head_root
from npbert.oracle.mistakes.blocks import ATTENTION, LINEARS, SUMS, int8_rows, int8_weights
from npbert.oracle.mistakes.embeddings import POSITION_STEP, WORD_STEP
from npbert.oracle.mistakes.heads import head_layer_input, list_head_layers
from npbert.oracle.mistakes.masks import SCORES
from npbert.oracle.mistakes.norms import NORMS, norm_name, norm_of
from npbert.oracle.mistakes.scene import Formula, Mistake, Scene, layer_and_input
from npbert.oracle.replay import round_to_type
from npbert.textbook import Affine, Array, activation, layer_norm

HALVES: Final = ("float16", "bfloat16")
INEXACT: Final = 0.85  # of an error, in the mean, that may be left: how a kernel rounds is its own
GRAIN: Final = 32  # weights of a row that have a scale together, in files of 4 bits
Round = Callable[[Array], Array]


def rounding_mistakes(config: Config) -> Iterator[Mistake]:
    """All of them, the plainest first."""
    heads = list_head_layers(config)
    tables = (WORD_STEP, POSITION_STEP, TYPES)

    def make_products(formula: Callable[[Affine, Array], Array]) -> dict[str, Formula]:
        """In every linear layer, of the blocks and of the head."""
        return {
            **dict.fromkeys(LINEARS, lambda s: formula(*layer_and_input(s))),
            **dict.fromkeys(heads, lambda s: formula(*head_layer_input(s))),
        }

    def make_in_blocks(formula: Callable[[Affine, Array], Array]) -> dict[str, Formula]:
        return dict.fromkeys(LINEARS, lambda s: formula(*layer_and_input(s)))

    for kind in HALVES:
        halve = partial(round_to_type, name=kind)
        yield Mistake(
            f"all weights are rounded to {kind}",
            {
                **make_products(partial(with_rounded_weights, halve)),
                **dict.fromkeys(NORMS, partial(norm_of_rounded, halve)),
                **dict.fromkeys(tables, partial(round_value, halve)),
            },
        )
        cast = make_products(partial(linear_in_halves, halve))
        attention = {SCORES: partial(score_products, halve), CONTEXT: partial(context_in, halve)}
        yield make_inexact(
            f"linear layers and attention are computed in {kind}, as under autocast",
            {**cast, **attention, "ffn.activation": partial(activation_in, halve)},
        )
        yield make_inexact(
            f"every step is computed in {kind}",
            {
                **cast, **attention,
                **dict.fromkeys((*ATTENTION[1:3], *SUMS, *tables), partial(round_value, halve)),
                "embeddings.sum": partial(round_value, halve),
                "embeddings.LayerNorm": partial(round_value, halve),
                "pooled": partial(round_value, halve),
                "logits": partial(round_value, halve),
            },
        )  # fmt: skip
    yield make_inexact(
        "products are computed in TF32: of every factor 11 bits count",
        {
            **make_products(lambda layer, x: keep_bits(layer.weight) @ keep_bits(x) + layer.bias),
            SCORES: partial(score_products, keep_bits), CONTEXT: partial(context_in, keep_bits),
        },
    )  # fmt: skip
    whole: dict[str, Round] = {
        "in int8, one scale for all of a matrix": int8_weights,
        "in int8, a scale for each row": int8_rows,
    }
    for scope, spread in (("", make_products), (" of the blocks", make_in_blocks)):
        kinds: dict[str, Round] = {
            **(whole if not scope else {}),  # of blocks alone they are in blocks.py
            "in int8, a scale for every 32 numbers": partial(quantize_groups, int8_rows),
            "in 4 bits, in blocks of 32 around zero (q4_0)": partial(
                quantize_groups, quantize_around_zero
            ),
            "in 4 bits, in blocks of 32 with a least number (q4_1)": partial(
                quantize_groups, quantize_from_least
            ),
            "in 4 bits, in blocks of 64 of normal quantiles (NF4)": partial(
                quantize_groups, quantize_normal, grain=64
            ),
        }
        for text, weights in kinds.items():
            yield Mistake(
                f"the linear layers{scope} have weights {text}",
                spread(partial(with_rounded_weights, weights)),
            )
        dynamic: dict[str, tuple[Round, Round]] = {
            "activations in uint8 of one scale": (int8_weights, int8_unsigned),
            "activations in uint8 of one scale, weights of a scale for each row": (
                int8_rows, int8_unsigned,
            ),
            "activations in int8 of one scale": (int8_weights, int8_weights),
            "activations in int8 of a scale for each token": (int8_rows, int8_tokens),
        }  # fmt: skip
        for text, (weights, values) in dynamic.items():
            yield make_inexact(
                f"the linear layers{scope} are computed in int8, {text} (dynamic int8)",
                spread(partial(with_rounded_values, weights, values)),
            )


def make_inexact(text: str, steps: Mapping[str, Formula]) -> Mistake:
    """Return a mistake that explains a share."""
    return Mistake(text, steps, leaves=INEXACT)


def round_value(change: Round, scene: Scene) -> Array:
    """The right value, in fewer bits."""
    return change(scene.x)


def with_rounded_weights(change: Round, layer: Affine, x: Array) -> Array:
    """W' x + b, of weights in fewer bits."""
    return change(layer.weight) @ x + layer.bias


def with_rounded_values(weights: Round, values: Round, layer: Affine, x: Array) -> Array:
    """W' x' + b, of weights and inputs in fewer bits."""
    return weights(layer.weight) @ values(x) + layer.bias


def linear_in_halves(halve: Round, layer: Affine, x: Array) -> Array:
    """A linear layer all in halves."""
    return halve(halve(layer.weight) @ halve(x) + halve(layer.bias))


def norm_of_rounded(halve: Round, scene: Scene) -> Array:
    """A norm whose weights are halves."""
    norm = norm_of(scene)
    weights = norm._replace(weight=halve(norm.weight), bias=halve(norm.bias))
    return layer_norm(weights, scene.value(NORMS[norm_name(scene)]))


def activation_in(halve: Round, scene: Scene) -> Array:
    """The activation function of halves, in halves."""
    function = scene.call.model.make_run(lambda name, y: y).activation
    return halve(activation(function, halve(scene.value("ffn.lin1"))))


def score_products(change: Round, scene: Scene) -> Array:
    """Scores of queries and keys in fewer bits."""
    q, k = (change(scene.head_values(step)) for step in ("q_lin", "k_lin"))
    root = head_root(scene)
    if change is keep_bits:
        return k.mT @ q / root
    ways = change(k.mT @ q / root), change(k.mT @ change(q / root)), change(change(k.mT @ q) / root)
    theirs = scene.call.candidate.get(scene.name)
    if theirs is None:
        return ways[0]
    return min(ways, key=lambda x: float(np.abs(x - theirs[scene.sequence].mT).mean()))


def context_in(change: Round, scene: Scene) -> Array:
    """The context of weights and values in fewer bits."""
    context = context_of_values(scene, change)
    return context if change is keep_bits else change(context)


def keep_bits(x: Array) -> Array:
    """Return values with 11 bits of each, as TF32 keeps them."""
    mantissa, exponent = np.frexp(x)
    made: Array = np.ldexp(np.round(mantissa * 2048) / 2048, exponent)
    return made


def int8_tokens(x: Array) -> Array:
    """Return values as int8 with a scale for each token, a column, keeps them."""
    return int8_rows(x.T).T


def int8_unsigned(x: Array) -> Array:
    """Return values as uint8 with one scale and a zero of its own keeps them."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / 255 or 1.0
    zero = np.round(-low / scale)
    made: Array = (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale
    return made


def quantize_groups(change: Round, weight: Array, grain: int = GRAIN) -> Array:
    """Return weights of which every few numbers of a row are kept in fewer bits together."""
    made = np.empty_like(weight)
    for start in range(0, weight.shape[-1], grain):
        made[..., start : start + grain] = change(weight[..., start : start + grain])
    return made


def quantize_around_zero(x: Array) -> Array:
    """Return rows in 16 steps, from the number that is greatest without its sign: ggml's q4_0."""
    at = np.abs(x).argmax(axis=-1, keepdims=True)
    scale = np.take_along_axis(x, at, -1) / -8
    scale = np.where(scale == 0, 1, scale)
    made: Array = (np.clip(np.floor(x / scale + 8.5), 0, 15) - 8) * scale
    return made


def quantize_from_least(x: Array) -> Array:
    """Return rows in 16 steps from their least to their greatest number: ggml's q4_1."""
    least = x.min(axis=-1, keepdims=True)
    scale = (x.max(axis=-1, keepdims=True) - least) / 15
    made: Array = np.round((x - least) / np.where(scale == 0, 1, scale)) * scale + least
    return made


# Quantiles of a normal distribution (Dettmers et al. 2023, "QLoRA", appendix E).
NORMAL: Final = np.array(
    [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
     0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]
)  # fmt: skip


def quantize_normal(x: Array) -> Array:
    """Return rows as the nearest of 16 quantiles of a normal distribution: NF4."""
    scale = np.abs(x).max(axis=-1, keepdims=True)
    scale = np.where(scale == 0, 1, scale)
    middle = (NORMAL[1:] + NORMAL[:-1]) / 2
    made: Array = NORMAL[np.searchsorted(middle, x / scale)] * scale
    return made
