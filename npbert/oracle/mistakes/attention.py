"""Mistakes within attention: splitting and joining heads, the scale, the mask, the softmax."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np

from npbert.oracle.mistakes.masks import MASKED, SCORES, WEIGHTS, mask_mistakes
from npbert.oracle.mistakes.scene import Mistake, Scene, block_layer
from npbert.textbook import Array, linear, softmax

CONTEXT: Final = "attention.context"


def attention_mistakes() -> Iterator[Mistake]:
    """All of them."""
    for text, factor in {
        "the scores are not divided by the root of the head's width": head_root,
        "the scores are multiplied by the root of the head's width, not divided": lambda s: (
            head_root(s) ** 2
        ),
        "the scores are divided by the root of the model's width, not the head's": lambda s: (
            head_root(s) / math.sqrt(model_width(s))
        ),
        "the scores are divided by the root of the head's width twice": lambda s: 1 / head_root(s),
        "the scores are divided by the root of the number of heads": lambda s: (
            head_root(s) / math.sqrt(len(s.head_mask))
        ),
        "the scores are divided by the head's width, not by its root": lambda s: 1 / head_root(s),
    }.items():
        yield Mistake(text, {SCORES: partial(scale_scores, factor)})
    yield Mistake(
        "the heads are split as (K, H): their features are taken to be interleaved",
        {SCORES: score_interleaved, CONTEXT: context_interleaved},
    )
    yield Mistake(
        "the heads are split without a transpose: (length, H, K) read as (H, length, K)",
        {SCORES: score_unturned, CONTEXT: context_unturned},
    )
    yield Mistake(
        "the heads are joined without a transpose: (H, length, K) read as (length, H, K)",
        {CONTEXT: join_unturned},
    )
    yield Mistake(
        "the heads are interleaved, (K, H), where they are split and where they are joined",
        {SCORES: score_interleaved, CONTEXT: context_interleaved_twice},
    )
    yield Mistake(
        "the heads are split and joined without transposes, as (H, length, K)",
        {SCORES: score_unturned, CONTEXT: context_unturned_twice},
    )
    yield Mistake("the values are the keys", {CONTEXT: lambda s: context_of(s, "k_lin")})
    yield from mask_mistakes()
    yield Mistake("the scores are transposed: k q' for q k'", {SCORES: lambda s: s.x.mT})
    for steps in (("q_lin",), ("k_lin",), ("q_lin", "k_lin")):
        for inverse in (False, True):
            order = "pairs for halves" if inverse else "halves for pairs"
            yield Mistake(
                f"the rows of {' and '.join(steps)} are permuted for rotary embeddings: {order} of "
                "each head",
                {f"attention.{step}": partial(change_rotary_rows, inverse) for step in steps},
            )
    for text, split in {
        "q, k, v are fused one after the other, and split head by head": split_by_heads,
        "q, k, v are fused head by head, and split one after the other": split_one_by_one,
    }.items():
        yield Mistake(text, {f"attention.{n}_lin": partial(split, n) for n in "qkv"})
    for inverse in (False, True):
        yield Mistake(
            "the columns of out_lin are in the order (K, H), not (H, K)"
            + (", read back" if inverse else ""),
            {"attention.out_lin": partial(change_columns, inverse)},
        )
    for shifted in (False, True):
        yield Mistake(
            "the softmax has one more 1 in its denominator"
            + (", and its greatest score subtracted" if shifted else ""),
            {WEIGHTS: partial(softmax_and_one, shifted)},
        )
    yield Mistake("the softmax is over queries, not keys", {WEIGHTS: partial(weights_by, -1)})
    yield Mistake("the softmax is over heads, not keys", {WEIGHTS: partial(weights_by, 0)})
    yield Mistake(
        "the softmax does not subtract the greatest score, and overflows",
        {WEIGHTS: softmax_overflow},
    )
    yield Mistake(
        "no softmax: the weights are the scores", {WEIGHTS: lambda s: s.value(MASKED) * s.head_mask}
    )
    yield Mistake("the head mask is ignored", {WEIGHTS: lambda s: softmax(s.value(MASKED))})


def head_root(scene: Scene) -> float:
    """The root of the width of a head."""
    return math.sqrt(scene.head_values("q_lin").shape[1])


def model_width(scene: Scene) -> int:
    """The width of the model."""
    return scene.call.model.config.hidden_size


def scale_scores(factor: Callable[[Scene], float], scene: Scene) -> Array:
    """Scores times a factor."""
    return scene.x * factor(scene)


def interleave_heads(scene: Scene, step: str) -> Array:
    """Feature f taken to be of head f mod H.  (H, K, L)"""
    x = scene.value(f"attention.{step}")[:, scene.span]
    return x.reshape(-1, len(scene.head_mask), x.shape[-1]).transpose(1, 0, 2)


def score_interleaved(scene: Scene) -> Array:
    """Scores of interleaved heads."""
    return interleave_heads(scene, "k_lin").mT @ interleave_heads(scene, "q_lin") / head_root(scene)


def context_interleaved(scene: Scene) -> Array:
    """Values of interleaved heads, joined as if they were not."""
    return join_sequences(
        scene,
        lambda s: (interleave_heads(s, "v_lin") @ s.heard[weights_name(s)]).reshape(
            -1, sequence_length(s)
        ),
    )


def context_interleaved_twice(scene: Scene) -> Array:
    """Values of interleaved heads, joined as they were split."""

    def join_one(s: Scene) -> Array:
        made = interleave_heads(s, "v_lin") @ s.heard[weights_name(s)]  # (H, K, L)
        return made.transpose(1, 0, 2).reshape(-1, sequence_length(s))

    return join_sequences(scene, join_one)


def context_unturned_twice(scene: Scene) -> Array:
    """Values of heads that are stretches of the text, joined as they were split."""

    def join_one(s: Scene) -> Array:
        made = split_unturned(s, "v_lin") @ s.heard[weights_name(s)]
        return made.mT.reshape(sequence_length(s), -1).T

    return join_sequences(scene, join_one)


def split_unturned(scene: Scene, step: str) -> Array:
    """The rows of a sequence, (L, H K), read as (H, L, K).  (H, K, L)"""
    x = scene.value(f"attention.{step}")[:, scene.span]
    heads = len(scene.head_mask)
    return x.T.reshape(heads, x.shape[-1], -1).mT


def score_unturned(scene: Scene) -> Array:
    """Scores of heads that are stretches of the text."""
    return split_unturned(scene, "k_lin").mT @ split_unturned(scene, "q_lin") / head_root(scene)


def context_unturned(scene: Scene) -> Array:
    """Values of such heads, joined the right way."""
    return join_sequences(
        scene,
        lambda s: (split_unturned(s, "v_lin") @ s.heard[weights_name(s)]).reshape(
            -1, sequence_length(s)
        ),
    )


def join_unturned(scene: Scene) -> Array:
    """(H, L, K) read as (L, H K)."""

    def join_one(s: Scene) -> Array:
        made = s.head_values("v_lin") @ s.heard[weights_name(s)]  # (H, K, L)
        return made.mT.reshape(sequence_length(s), -1).T

    return join_sequences(scene, join_one)


def context_of_values(scene: Scene, change: Callable[[Array], Array]) -> Array:
    """The context of weights and values of which something has become."""
    return join_sequences(
        scene,
        lambda s: (change(s.head_values("v_lin")) @ change(s.heard[weights_name(s)])).reshape(
            -1, sequence_length(s)
        ),
    )


def context_of(scene: Scene, values: str) -> Array:
    """The context made of something else than the values."""
    return join_sequences(
        scene,
        lambda s: (s.head_values(values) @ s.heard[weights_name(s)]).reshape(
            -1, sequence_length(s)
        ),
    )


def join_sequences(scene: Scene, one: Callable[[Scene], Array]) -> Array:
    """The context of all sequences; of each, one function's."""
    made = np.empty_like(scene.x)
    weights = scene.sequences[weights_name(scene)]
    for i, span in enumerate(scene.call.pack.spans):
        heard = {**scene.heard, weights_name(scene): weights[i]}
        made[:, span] = one(Scene(scene.call, scene.name, scene.x, heard, i))
    return made


def weights_name(scene: Scene) -> str:
    """The name of the weights of this block."""
    return f"transformer.layer.{scene.number}.{WEIGHTS}"


def sequence_length(scene: Scene) -> int:
    """How many tokens the sequence has."""
    return scene.span.stop - scene.span.start


def weights_by(axis: int, scene: Scene) -> Array:
    """A softmax along another axis."""
    return (
        np.moveaxis(softmax(np.moveaxis(scene.value(MASKED), axis, -2)), -2, axis) * scene.head_mask
    )


def softmax_overflow(scene: Scene) -> Array:
    """A softmax as it is defined, in float32."""
    e = np.exp(scene.value(MASKED).astype(np.float32))
    return (e / e.sum(axis=-2, keepdims=True)).astype(scene.x.dtype) * scene.head_mask


def change_rotary_rows(inverse: bool, scene: Scene) -> Array:
    """Rows of every head in the order of rotary embeddings, if its width is even."""
    heads, features = len(scene.head_mask), len(scene.x)
    width = features // heads
    if width % 2:
        return scene.x
    split = (width // 2, 2) if inverse else (2, width // 2)
    return scene.x.reshape(heads, *split, -1).swapaxes(1, 2).reshape(scene.x.shape)


def layer_outputs(scene: Scene) -> Array:
    """What all three layers make of the block's input.  (3, A, T)"""
    return np.stack(
        [linear(block_layer(scene.block, f"attention.{n}_lin"), scene.block_input) for n in "qkv"]
    )


def split_by_heads(which: str, scene: Scene) -> Array:
    """Rows [q; k; v] read as if every head had its q, k and v together."""
    heads, shape = len(scene.head_mask), scene.x.shape
    rows = layer_outputs(scene).reshape(heads, 3, -1, shape[-1])
    return rows[:, "qkv".index(which)].reshape(shape)


def split_one_by_one(which: str, scene: Scene) -> Array:
    """Rows in which every head has its q, k and v together, read as [q; k; v]."""
    heads, shape = len(scene.head_mask), scene.x.shape
    rows = layer_outputs(scene).reshape(3, heads, -1, shape[-1]).swapaxes(0, 1)
    return rows.reshape(3, *shape)["qkv".index(which)]


def change_columns(inverse: bool, scene: Scene) -> Array:
    """The output layer, whose columns take features to be interleaved."""
    x, heads = scene.value(CONTEXT), len(scene.head_mask)
    split = (len(x) // heads, heads) if inverse else (heads, len(x) // heads)
    turned = x.reshape(*split, x.shape[-1]).swapaxes(0, 1).reshape(x.shape)
    return linear(block_layer(scene.block, "attention.out_lin"), turned)


def softmax_and_one(shifted: bool, scene: Scene) -> Array:
    """A softmax that may attend to nothing."""
    scores = scene.value(MASKED)
    greatest = scores.max(axis=-2, keepdims=True)
    e = np.exp(scores - greatest)
    one = 1.0 if shifted else np.exp(-greatest)
    return e / (one + e.sum(axis=-2, keepdims=True)) * scene.head_mask
