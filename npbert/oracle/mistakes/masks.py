"""Mistakes with the mask: which keys are heard, and by how much the others are not."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np

from npbert.oracle.mistakes.scene import Formula, Mistake, Scene
from npbert.textbook import Array, Mask

SCORES, MASKED, WEIGHTS = "attention.scores", "attention.masked_scores", "attention.weights"
UNDERFLOW: Final = "the weights of hidden keys are 0 all the same"
ROWS: Final = 4  # of a batch, of which the mask may be taken for all


def mask_mistakes() -> Iterator[Mistake]:
    """All of them."""
    formulas: dict[str, Formula] = {
        "the mask is ignored": lambda s: s.value(SCORES),
        "the mask is inverted": partial(mask_otherwise, lambda s: ~s.key_mask),
        "the mask hides queries, not keys": partial(mask_otherwise, lambda s: s.key_mask.T),
        "the mask hides both queries and keys": partial(
            mask_otherwise, lambda s: s.key_mask & s.key_mask.T
        ),
        "the mask is taken for a length: as many keys are heard, the first ones": partial(
            mask_otherwise, first_keys
        ),
        "the mask is taken for a length: as many keys are heard, the last ones": partial(
            mask_otherwise, lambda s: first_keys(s)[::-1]
        ),
        "rows and heads are mixed up where the mask is repeated for the heads": partial(
            mask_otherwise, mask_of_heads
        ),
        **{
            f"the mask of row {row} is taken for all rows": partial(
                mask_otherwise, partial(mask_of_row, row)
            )
            for row in range(ROWS)
        },
        "the mask is added to the scores as 0 and 1": lambda s: s.value(SCORES) + s.key_mask,
        "the mask is added to the scores as 1 and 0": lambda s: s.value(SCORES) + ~s.key_mask,
        "the scores are multiplied by the mask": lambda s: s.value(SCORES) * s.key_mask,
        "a causal mask: later tokens are not heard": partial(mask_otherwise, causal_mask),
    }
    for text, formula in formulas.items():
        yield Mistake(text, {MASKED: formula}, in_later_blocks=True)
    yield Mistake(
        "the weights are multiplied by the mask after the softmax, the scores not",
        {MASKED: lambda s: s.value(SCORES), WEIGHTS: lambda s: s.x * s.key_mask},
    )
    for lowest in (-1e2, -1e3, -1e4):
        yield Mistake(
            f"hidden keys get {lowest:g} added, not the smallest number",
            {MASKED: partial(add_where_masked, lowest)},
            UNDERFLOW,
        )
    for lowest in (-1.0, -5.0, -10.0, -20.0, -50.0):
        yield Mistake(
            f"hidden keys get {lowest:g} added, too weak to hide them",
            {MASKED: partial(add_where_masked, lowest)},
        )
    yield Mistake(
        "the head mask is multiplied to the scores, not to the weights",
        {
            MASKED: lambda s: np.where(
                s.key_mask, s.value(SCORES) * s.head_mask, np.finfo(s.x.dtype).min
            ),
            WEIGHTS: lambda s: s.x / np.where(s.head_mask, s.head_mask, np.nan),
        },
    )


def mask_otherwise(heard: Callable[[Scene], Mask], scene: Scene) -> Array:
    """Scores that another mask hides."""
    return np.where(heard(scene), scene.value(SCORES), np.finfo(scene.x.dtype).min)


def first_keys(scene: Scene) -> Mask:
    """As many keys as the mask has, from the first one on."""
    return np.arange(len(scene.key_mask))[:, None] < scene.key_mask.sum()


def mask_of_row(row: int, scene: Scene) -> Mask:
    """The mask of one row of the batch; its own, where there are fewer."""
    masks = scene.call.pack.key_masks
    other = masks[row] if row < len(masks) else scene.key_mask
    return np.broadcast_to(other, (scene.x.shape[-2], 1))


def mask_of_heads(scene: Scene) -> Mask:
    """For each head the mask that stands at its place when all rows are repeated.  (H, L, 1)"""
    masks, heads = scene.call.pack.key_masks, len(scene.head_mask)
    rows = [(scene.sequence * heads + h) % len(masks) for h in range(heads)]
    return np.stack([np.broadcast_to(masks[r], (scene.x.shape[-2], 1)) for r in rows])


def causal_mask(scene: Scene) -> Mask:
    """Keys up to the query itself, of those that are heard."""
    length = scene.x.shape[-1]
    return scene.key_mask & (np.arange(length)[:, None] <= np.arange(length))


def add_where_masked(lowest: float, scene: Scene) -> Array:
    """A number added where the mask hides."""
    return np.where(scene.key_mask, scene.value(SCORES), scene.value(SCORES) + lowest)
