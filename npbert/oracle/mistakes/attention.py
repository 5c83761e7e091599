"""Mistakes within attention: splitting and joining heads, the scale, the mask, the softmax."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np

from npbert.oracle.mistakes.scene import Fault, Scene
from npbert.textbook import Array, Mask, softmax

SCORES, MASKED, WEIGHTS = "attention.scores", "attention.masked_scores", "attention.weights"
CONTEXT: Final = "attention.context"
UNDERFLOW: Final = "the weights of hidden keys are 0 all the same"


def of_attention() -> Iterator[Fault]:
    """All of them."""
    for text, factor in {
        "the scores are not divided by the root of the head's width": root,
        "the scores are multiplied by the root of the head's width, not divided": lambda s: (
            root(s) ** 2
        ),
        "the scores are divided by the root of the model's width, not the head's": lambda s: (
            root(s) / math.sqrt(width(s))
        ),
        "the scores are divided by the root of the head's width twice": lambda s: 1 / root(s),
        "the scores are divided by the root of the number of heads": lambda s: (
            root(s) / math.sqrt(len(s.head_mask))
        ),
        "the scores are divided by the head's width, not by its root": lambda s: 1 / root(s),
    }.items():
        yield Fault(text, {SCORES: partial(scaled, factor)})
    yield Fault(
        "the heads are split as (K, H): their features are taken to be interleaved",
        {SCORES: interleaved_scores, CONTEXT: interleaved_context},
    )
    yield Fault(
        "the heads are split without a transpose: (length, H, K) read as (H, length, K)",
        {SCORES: unturned_scores, CONTEXT: unturned_context},
    )
    yield Fault(
        "the heads are joined without a transpose: (H, length, K) read as (length, H, K)",
        {CONTEXT: joined_unturned},
    )
    yield Fault(
        "the heads are interleaved, (K, H), where they are split and where they are joined",
        {SCORES: interleaved_scores, CONTEXT: interleaved_throughout},
    )
    yield Fault(
        "the heads are split and joined without transposes, as (H, length, K)",
        {SCORES: unturned_scores, CONTEXT: unturned_throughout},
    )
    yield Fault("the values are the keys", {CONTEXT: lambda s: context_of(s, "k_lin")})
    yield Fault("the mask is ignored", {MASKED: lambda s: s.at(SCORES)})
    yield Fault("the mask is inverted", {MASKED: partial(masked, lambda s: ~s.keep)})
    yield Fault("the mask hides queries, not keys", {MASKED: partial(masked, lambda s: s.keep.T)})
    yield Fault(
        "the mask hides both queries and keys",
        {MASKED: partial(masked, lambda s: s.keep & s.keep.T)},
    )
    yield Fault(
        "the mask is added to the scores as 0 and 1", {MASKED: lambda s: s.at(SCORES) + s.keep}
    )
    yield Fault(
        "the mask is added to the scores as 1 and 0", {MASKED: lambda s: s.at(SCORES) + ~s.keep}
    )
    yield Fault("the scores are multiplied by the mask", {MASKED: lambda s: s.at(SCORES) * s.keep})
    yield Fault(
        "the weights are multiplied by the mask after the softmax, the scores not",
        {MASKED: lambda s: s.at(SCORES), WEIGHTS: lambda s: s.x * s.keep},
    )
    yield Fault("a causal mask: later tokens are not heard", {MASKED: partial(masked, causal)})
    for lowest in (-1e2, -1e4):
        yield Fault(
            f"hidden keys get {lowest:g} added, not the smallest number",
            {MASKED: partial(added, lowest)},
            UNDERFLOW,
        )
    yield Fault("the softmax is over queries, not keys", {WEIGHTS: partial(weights_by, -1)})
    yield Fault("the softmax is over heads, not keys", {WEIGHTS: partial(weights_by, 0)})
    yield Fault(
        "the softmax does not subtract the greatest score, and overflows", {WEIGHTS: overflowing}
    )
    yield Fault(
        "no softmax: the weights are the scores", {WEIGHTS: lambda s: s.at(MASKED) * s.head_mask}
    )
    yield Fault("the head mask is ignored", {WEIGHTS: lambda s: softmax(s.at(MASKED))})
    yield Fault(
        "the head mask is multiplied to the scores, not to the weights",
        {
            MASKED: lambda s: np.where(s.keep, s.at(SCORES) * s.head_mask, np.finfo(s.x.dtype).min),
            WEIGHTS: lambda s: softmax(s.at(MASKED)),
        },
    )


def root(scene: Scene) -> float:
    """The root of the width of a head."""
    return math.sqrt(scene.heads("q_lin").shape[1])


def width(scene: Scene) -> int:
    """The width of the model."""
    return scene.call.model.config.hidden_size


def scaled(factor: Callable[[Scene], float], scene: Scene) -> Array:
    """Scores times a factor."""
    return scene.x * factor(scene)


def interleaved(scene: Scene, step: str) -> Array:
    """Feature f taken to be of head f mod H.  (H, K, L)"""
    x = scene.at(f"attention.{step}")[:, scene.span]
    return x.reshape(-1, len(scene.head_mask), x.shape[-1]).transpose(1, 0, 2)


def interleaved_scores(scene: Scene) -> Array:
    """Scores of interleaved heads."""
    return interleaved(scene, "k_lin").mT @ interleaved(scene, "q_lin") / root(scene)


def interleaved_context(scene: Scene) -> Array:
    """Values of interleaved heads, joined as if they were not."""
    return joined(
        scene, lambda s: (interleaved(s, "v_lin") @ s.heard[weights_name(s)]).reshape(-1, len_of(s))
    )


def interleaved_throughout(scene: Scene) -> Array:
    """Values of interleaved heads, joined as they were split."""

    def one(s: Scene) -> Array:
        made = interleaved(s, "v_lin") @ s.heard[weights_name(s)]  # (H, K, L)
        return made.transpose(1, 0, 2).reshape(-1, len_of(s))

    return joined(scene, one)


def unturned_throughout(scene: Scene) -> Array:
    """Values of heads that are stretches of the text, joined as they were split."""

    def one(s: Scene) -> Array:
        made = unturned(s, "v_lin") @ s.heard[weights_name(s)]
        return made.mT.reshape(len_of(s), -1).T

    return joined(scene, one)


def unturned(scene: Scene, step: str) -> Array:
    """The rows of a sequence, (L, H K), read as (H, L, K).  (H, K, L)"""
    x = scene.at(f"attention.{step}")[:, scene.span]
    heads = len(scene.head_mask)
    return x.T.reshape(heads, x.shape[-1], -1).mT


def unturned_scores(scene: Scene) -> Array:
    """Scores of heads that are stretches of the text."""
    return unturned(scene, "k_lin").mT @ unturned(scene, "q_lin") / root(scene)


def unturned_context(scene: Scene) -> Array:
    """Values of such heads, joined the right way."""
    return joined(
        scene, lambda s: (unturned(s, "v_lin") @ s.heard[weights_name(s)]).reshape(-1, len_of(s))
    )


def joined_unturned(scene: Scene) -> Array:
    """(H, L, K) read as (L, H K)."""

    def one(s: Scene) -> Array:
        made = s.heads("v_lin") @ s.heard[weights_name(s)]  # (H, K, L)
        return made.mT.reshape(len_of(s), -1).T

    return joined(scene, one)


def context_of(scene: Scene, values: str) -> Array:
    """The context made of something else than the values."""
    return joined(
        scene, lambda s: (s.heads(values) @ s.heard[weights_name(s)]).reshape(-1, len_of(s))
    )


def joined(scene: Scene, one: Callable[[Scene], Array]) -> Array:
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


def len_of(scene: Scene) -> int:
    """How many tokens the sequence has."""
    return scene.span.stop - scene.span.start


def masked(heard: Callable[[Scene], Mask], scene: Scene) -> Array:
    """Scores that another mask hides."""
    return np.where(heard(scene), scene.at(SCORES), np.finfo(scene.x.dtype).min)


def causal(scene: Scene) -> Mask:
    """Keys up to the query itself, of those that are heard."""
    length = scene.x.shape[-1]
    return scene.keep & (np.arange(length)[:, None] <= np.arange(length))


def added(lowest: float, scene: Scene) -> Array:
    """A number added where the mask hides."""
    return np.where(scene.keep, scene.at(SCORES), scene.at(SCORES) + lowest)


def weights_by(axis: int, scene: Scene) -> Array:
    """A softmax along another axis."""
    return np.moveaxis(softmax(np.moveaxis(scene.at(MASKED), axis, -2)), -2, axis) * scene.head_mask


def overflowing(scene: Scene) -> Array:
    """A softmax as it is defined, in float32."""
    e = np.exp(scene.at(MASKED).astype(np.float32))
    return (e / e.sum(axis=-2, keepdims=True)).astype(scene.x.dtype) * scene.head_mask
