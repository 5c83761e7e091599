"""Mistakes within attention: splitting and joining heads, the scale, the mask, the softmax."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np

from npbert.oracle.mistakes.scene import Mistake, Scene
from npbert.textbook import Array, Mask, softmax

SCORES, MASKED, WEIGHTS = "attention.scores", "attention.masked_scores", "attention.weights"
CONTEXT: Final = "attention.context"
UNDERFLOW: Final = "the weights of hidden keys are 0 all the same"


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
    yield Mistake("the mask is ignored", {MASKED: lambda s: s.value(SCORES)})
    yield Mistake("the mask is inverted", {MASKED: partial(mask_otherwise, lambda s: ~s.key_mask)})
    yield Mistake(
        "the mask hides queries, not keys",
        {MASKED: partial(mask_otherwise, lambda s: s.key_mask.T)},
    )
    yield Mistake(
        "the mask hides both queries and keys",
        {MASKED: partial(mask_otherwise, lambda s: s.key_mask & s.key_mask.T)},
    )
    yield Mistake(
        "the mask is added to the scores as 0 and 1",
        {MASKED: lambda s: s.value(SCORES) + s.key_mask},
    )
    yield Mistake(
        "the mask is added to the scores as 1 and 0",
        {MASKED: lambda s: s.value(SCORES) + ~s.key_mask},
    )
    yield Mistake(
        "the scores are multiplied by the mask", {MASKED: lambda s: s.value(SCORES) * s.key_mask}
    )
    yield Mistake(
        "the weights are multiplied by the mask after the softmax, the scores not",
        {MASKED: lambda s: s.value(SCORES), WEIGHTS: lambda s: s.x * s.key_mask},
    )
    yield Mistake(
        "a causal mask: later tokens are not heard", {MASKED: partial(mask_otherwise, causal_mask)}
    )
    for lowest in (-1e2, -1e4):
        yield Mistake(
            f"hidden keys get {lowest:g} added, not the smallest number",
            {MASKED: partial(add_where_masked, lowest)},
            UNDERFLOW,
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
    yield Mistake(
        "the head mask is multiplied to the scores, not to the weights",
        {
            MASKED: lambda s: np.where(
                s.key_mask, s.value(SCORES) * s.head_mask, np.finfo(s.x.dtype).min
            ),
            WEIGHTS: lambda s: softmax(s.value(MASKED)),
        },
    )


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


def mask_otherwise(heard: Callable[[Scene], Mask], scene: Scene) -> Array:
    """Scores that another mask hides."""
    return np.where(heard(scene), scene.value(SCORES), np.finfo(scene.x.dtype).min)


def causal_mask(scene: Scene) -> Mask:
    """Keys up to the query itself, of those that are heard."""
    length = scene.x.shape[-1]
    return scene.key_mask & (np.arange(length)[:, None] <= np.arange(length))


def add_where_masked(lowest: float, scene: Scene) -> Array:
    """A number added where the mask hides."""
    return np.where(scene.key_mask, scene.value(SCORES), scene.value(SCORES) + lowest)


def weights_by(axis: int, scene: Scene) -> Array:
    """A softmax along another axis."""
    return (
        np.moveaxis(softmax(np.moveaxis(scene.value(MASKED), axis, -2)), -2, axis) * scene.head_mask
    )


def softmax_overflow(scene: Scene) -> Array:
    """A softmax as it is defined, in float32."""
    e = np.exp(scene.value(MASKED).astype(np.float32))
    return (e / e.sum(axis=-2, keepdims=True)).astype(scene.x.dtype) * scene.head_mask
