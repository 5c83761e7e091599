"""Attention for float32: within every sequence, and in the cheaper of two ways.

See kernels.py, which calls these, and textbook.self_attention, which defines what they compute.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np

from npbert.blas import multiply, product
from npbert.textbook import Affine, Array, Attention, Mask, Span, Tap, untapped
from npbert.threads import memory

Consumed = Annotated[Array, "consumed"]

SCORES: Final = 131_072  # floats: the scores of as many heads as this holds, or of one
CALM: Final = 60.0  # scores within this of 0 need no maximum taken off: e^60 is far from overflow


def few(w: Attention, x: Array, keys: Array, spans: Sequence[Span], heads: int) -> bool:
    """Tell whether so few ask that few_ask has less to multiply than all_ask."""
    inside, outside = w.q_lin.weight.shape
    pairs = sum((s.asking.stop - s.asking.start) * (s.asked.stop - s.asked.start) for s in spans)
    saved = (keys.shape[-1] - x.shape[-1]) * inside * outside
    return saved > (heads * outside - inside) * pairs


def all_ask(
    layers: Sequence[Affine], x: Array, keys: Array, spans: Sequence[Span], head_mask: Array
) -> Array:
    """What the heads of these layers hear, (A, T), as the textbook computes it."""
    names = ("q_lin", "k_lin", "v_lin")
    q, k, v = made = [
        memory(name, len(layer.weight), a.shape[-1])
        for name, layer, a in zip(names, layers, (x, keys, keys), strict=True)
    ]
    weights = [layer.weight for layer in layers]
    if x is keys:
        multiply(x, *zip(weights, made, strict=True))
    else:
        multiply(x, (weights[0], q))
        multiply(keys, (weights[1], k), (weights[2], v))
    for layer, y in zip(layers, made, strict=True):
        y += layer.bias
    heads = (len(head_mask), len(q) // len(head_mask), -1)  # (H, K, T)
    context = contexts(
        q.reshape(heads), k.reshape(heads), v.reshape(heads), spans, head_mask, untapped
    )
    return context.reshape(q.shape)


def few_ask(
    layers: Sequence[Affine], x: Array, keys: Array, spans: Sequence[Span], head_mask: Array
) -> Array:
    """What the heads of these layers hear, (A, T), without the keys and values of those asked.

    q' (W x + b) = (W' q)' x + q' b, and the last term is the same for all keys, so that softmax
    takes no note of it.  And the mean of W x + b is W times the mean of x, plus b.  So a query
    goes through both matrices, rather than every key and every value.
    """
    heads, width, asking = len(head_mask), len(layers[0].weight) // len(head_mask), x.shape[-1]
    to_keys, to_values = (a.weight.reshape(heads, width, -1) for a in layers[1:])  # (H, K, D)
    q = product(layers[0].weight, x, np.empty((heads * width, asking), x.dtype))
    q += layers[0].bias
    q *= q.dtype.type(1 / math.sqrt(width))
    questions = np.empty((len(x), heads, asking), x.dtype)
    np.matmul(to_keys.mT, q.reshape(heads, width, asking), out=questions.transpose(1, 0, 2))
    means = np.empty_like(questions)
    for s in spans:
        asked, question = keys[:, s.asked], questions[..., s.asking]
        scores = (asked.T @ question.reshape(len(x), -1))[None]  # all heads as one, (1, L, H Lq)
        wild = np.array([max(scores.max(initial=0), -scores.min(initial=0)) > CALM])
        e = exponentials(*hidden(scores, s.keep, wild))[0]
        means[..., s.asking] = (asked @ e / (ones(e) @ e)).reshape(question.shape)
    context = np.matmul(to_values, means.transpose(1, 0, 2))
    context += layers[2].bias.reshape(heads, width, 1)
    context *= head_mask
    return context.reshape(heads * width, asking)


def contexts(
    q: Array, k: Array, v: Array, spans: Sequence[Span], head_mask: Array, tap: Tap
) -> Array:
    """Attention within every sequence, as many heads at a time as keep their scores in the cache.

    q, k, v : (H, K, T)  ->  (H, K, T)
    """
    q = q * q.dtype.type(1 / math.sqrt(k.shape[-2]))
    wild = longest(q) * longest(k) > CALM  # Cauchy and Schwarz: no score is beyond that
    mask = None if (head_mask == 1).all() else head_mask
    context = memory("context", *q.shape)
    for s in spans:
        asking, keys, values = q[..., s.asking], k[..., s.asked], v[..., s.asked]
        size = max(1, SCORES // max(1, keys.shape[-1] * asking.shape[-1]))
        size = size if tap is untapped else len(q)  # it hears all heads at once
        for h in (slice(i, i + size) for i in range(0, len(q), size)):
            masks = s.keep, wild[h], mask if mask is None else mask[h]
            context[h, :, s.asking] = attend(asking[h], keys[h], values[h], *masks, tap)
    return context


def longest(x: Array) -> Array:
    """Return the length of the longest column in every head.  (H,)"""
    return np.sqrt(np.einsum("hkt,hkt->ht", x, x).max(axis=-1, initial=0))


def attend(
    q: Array, k: Array, v: Array, keep: Mask, wild: Mask, head_mask: Array | None, tap: Tap
) -> Array:
    """Attention of some heads to queries that are scaled; one array holds scores, then weights."""
    s = tap("scores", product(k.mT, q, memory("scores", len(k), k.shape[-1], q.shape[-1])))
    s, wild = hidden(s, keep, wild)
    s = exponentials(tap("masked_scores", s), wild)
    s /= ones(s) @ s
    s = tap("dropout", s)
    if head_mask is not None:
        s = s * head_mask
    return product(v, tap("weights", s), np.empty(q.shape, q.dtype))


def hidden(s: Array, keep: Mask, wild: Mask) -> tuple[Array, Mask]:
    """Return scores with those of hidden keys as low as can be, and which heads are wild now."""
    if keep.all():
        return s, wild
    return np.where(keep, s, np.finfo(s.dtype).min), np.ones_like(wild)


def exponentials(s: Consumed, wild: Mask) -> Array:
    """Return e to the power of scores, (H, L, Lq), or in a wild head a share of that.

    The share is the same down a column, and falls out when the column is divided by its sum.
    """
    if wild.any():
        s -= np.where(wild[:, None, None], s.max(axis=-2, keepdims=True), np.float32(0))
    return np.exp(s, out=s)


def ones(x: Array) -> Array:
    """Return what sums the columns of x when multiplied with it, which the BLAS does best."""
    return np.ones((1, x.shape[-2]), x.dtype)
