"""Weights that are not the file's: zero, in another order, of other blocks, or never loaded.

What they are is found from the candidate's own numbers: from y - b, and what went into the layer.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np

from npbert.checkpoint.config import Config
from npbert.oracle.mistakes.blocks import LINEARS, swap_norm
from npbert.oracle.mistakes.heads import head_layer_input, list_head_layers
from npbert.oracle.mistakes.scene import Mistake, Scene, layer_and_input, swap_block
from npbert.oracle.steps import step_suffix
from npbert.textbook import Affine, Array, Mask

FEWEST_ROWS: Final = 4  # of fewer, an order is no surprise
MATCHED: Final = 1e-2  # of a row: how far it may be from the one that it is said to be
MORE_TOKENS: Final = (1.1, 8)  # times the features, and more: of so many a fit says something
DROPPED: Final = (0.01, 0.6)  # shares of values that dropout may have dropped
DROPOUT_PLACES: Final = (
    "embeddings.LayerNorm", "attention.weights", "attention.out_lin", "ffn.lin2", "pooled",
)  # fmt: skip
LayerInput = Callable[[Scene], tuple[Affine, Array]]


def weights_mistakes(config: Config) -> Iterator[Mistake]:
    """All of them."""
    steps = (*LINEARS, "sa_layer_norm", "output_layer_norm")
    for text, order in block_orders(config.num_blocks).items():
        yield Mistake(text, dict.fromkeys(steps, partial(swap_ordered_block, order)))
    layers: dict[str, LayerInput] = dict.fromkeys(LINEARS, layer_and_input)
    layers |= dict.fromkeys(list_head_layers(config), head_layer_input)
    kinds: dict[str, Callable[[LayerInput, Scene], Array]] = {
        "weights are zero: the bias is left": linear_of_zeros,
        "weights and bias are zero": zero_values,
        "rows of the weights are in another order": sort_rows,
        "weights are not the file's, but another linear map: random, never loaded, or of another "
        "checkpoint": fit_weights,
    }
    for text, formula in kinds.items():
        for step, layer in layers.items():
            yield Mistake(f"{step}: {text}", {step: partial(formula, layer)})
    yield Mistake(
        "dropout is left on: some values are 0, the others too great by 1 / (1 - p)",
        dict.fromkeys(DROPOUT_PLACES, drop_values),
    )


def block_orders(blocks: int) -> dict[str, tuple[int, ...]]:
    """Return orders that blocks may be read in: which one's weights each of them has."""
    made = {
        "from last to first": tuple(range(blocks))[::-1],
        "of names as texts: 0, 1, 10, 11, 2": tuple(sorted(range(blocks), key=str)),
    }
    return {
        f"the blocks have their weights in the order {text}": order
        for text, order in made.items()
        if order != tuple(range(blocks))
    }


def swap_ordered_block(order: tuple[int, ...], scene: Scene) -> Array:
    """A step with the weights of the block that stands in this one's place."""
    other = order[scene.number]
    step = step_suffix(scene.name)
    return swap_norm(other, scene) if step.endswith("norm") else swap_block(other, scene)


def linear_of_zeros(layer: LayerInput, scene: Scene) -> Array:
    """The bias alone, for every token."""
    return np.broadcast_to(layer(scene)[0].bias, scene.x.shape)


def zero_values(layer: LayerInput, scene: Scene) -> Array:
    """Nothing."""
    return np.zeros_like(scene.x)


def candidate_values(scene: Scene) -> Array | None:
    """Return what the candidate has of a step, of the last layer also as logits; None: nothing."""
    theirs = scene.call.candidate
    name = scene.name
    if name not in theirs and name in ("vocab_projector", "classifier", "seq_relationship"):
        name = "logits"
    found = theirs.get(name)
    if found is None or scene.call.inputs.choices or not np.isfinite(found).all():
        return None
    columns: Array = scene.call.layout.columns(name, found).astype(scene.x.dtype)
    return columns if columns.shape == scene.x.shape else None


def live_columns(scene: Scene) -> Mask:
    """Return which columns stand for real tokens, or for sequences that have one."""
    key_mask = scene.call.inputs.key_mask
    flat: Mask = key_mask.ravel()
    real: Mask = np.asarray(key_mask.any(axis=1))
    return flat if scene.x.shape[-1] == key_mask.size else real


def sort_rows(layer: LayerInput, scene: Scene) -> Array:
    """The rows of what should be there, in the order that the candidate has them in."""
    theirs = candidate_values(scene)
    if theirs is None or len(theirs) < FEWEST_ROWS:
        return scene.x
    live = live_columns(scene)
    ours, y = scene.x[:, live], theirs[:, live]
    size = (ours * ours).sum(axis=1)
    gaps = size + (y * y).sum(axis=1)[:, None] - 2 * y @ ours.T
    order = gaps.argmin(axis=1)
    found = np.take_along_axis(gaps, order[:, None], 1)[:, 0]
    is_order = len(set(order.tolist())) == len(order)
    if not is_order or (found > MATCHED**2 * np.maximum(size[order], 1e-30)).any():
        return scene.x
    return scene.x[order]


def fit_weights(layer: LayerInput, scene: Scene) -> Array:
    """The linear map that explains the candidate best, where there are tokens enough to tell."""
    theirs, (own, x) = candidate_values(scene), layer(scene)
    live = live_columns(scene)
    if theirs is None or live.sum() < MORE_TOKENS[0] * len(x) + MORE_TOKENS[1]:
        return scene.x
    given = np.vstack([x, np.ones((1, x.shape[-1]), x.dtype)])
    fit = np.linalg.lstsq(given[:, live].T, theirs[:, live].T, rcond=None)[0]
    if (
        similarity_of(fit[:-1].T, own.weight) > 0.9
    ):  # the file's, or nearly: something else is wrong
        return scene.x
    return fit.T @ given


def similarity_of(a: Array, b: Array) -> float:
    """Return the cosine of two arrays."""
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-300))


def drop_values(scene: Scene) -> Array:
    """The values of which the candidate has dropped some, if it has."""
    theirs = scene.call.candidate.get(scene.name)
    if theirs is None:
        return scene.x
    if scene.x.ndim == 3:
        found = theirs[scene.sequence].mT
    else:
        found = scene.call.layout.columns(scene.name, theirs)
    gone = (found == 0) & (scene.x != 0)
    share = gone.sum() / max((scene.x != 0).sum(), 1)
    if not DROPPED[0] <= share <= DROPPED[1]:
        return scene.x
    kept = ~gone & (scene.x != 0)
    factor = np.median(found[kept] / scene.x[kept]) if kept.any() else 0.0
    if not 0.7 <= factor * (1 - share) <= 1.4:
        return scene.x
    return np.where(gone, 0, scene.x * factor)
