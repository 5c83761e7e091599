"""Attention for float32: within every sequence, and in the cheaper of two ways.

See kernels.py, which calls these, and textbook.self_attention, which defines what they compute.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import numpy as np

from npbert.engine.products import multiply, product, scratch
from npbert.textbook import Affine, Array, Attention, Mask, Span, Tap, no_tap

Consumed = Annotated[Array, "consumed"]

SCORES_AT_ONCE: Final = 131_072  # floats: the scores of as many heads as this holds, or of one
SAFE_SCORE: Final = (
    60.0  # scores within this of 0 need no maximum taken off: e^60 is far from overflow
)


def is_cheaper_through_weights(
    w: Attention, x: Array, keys: Array, spans: Sequence[Span], heads: int
) -> bool:
    """Tell whether so few ask that attend_through_weights has less to multiply than attend."""
    inside, outside = w.q_lin.weight.shape
    pairs = sum((s.queries.stop - s.queries.start) * (s.keys.stop - s.keys.start) for s in spans)
    saved = (keys.shape[-1] - x.shape[-1]) * inside * outside
    return saved > (heads * outside - inside) * pairs


def attend(
    layers: Sequence[Affine], x: Array, keys: Array, spans: Sequence[Span], head_mask: Array
) -> Array:
    """What the heads of these layers hear, (A, T), as the textbook computes it."""
    names = ("q_lin", "k_lin", "v_lin")
    q, k, v = made = [
        scratch(name, len(layer.weight), a.shape[-1])
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
    context = attention_contexts(
        q.reshape(heads), k.reshape(heads), v.reshape(heads), spans, head_mask, no_tap
    )
    return context.reshape(q.shape)


def attend_through_weights(
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
        asked, question = keys[:, s.keys], questions[..., s.queries]
        scores = (asked.T @ question.reshape(len(x), -1))[None]  # all heads as one, (1, L, H Lq)
        may_overflow = np.array([max(scores.max(initial=0), -scores.min(initial=0)) > SAFE_SCORE])
        e = exponentials(*mask_scores(scores, s.key_mask, may_overflow))[0]
        means[..., s.queries] = (asked @ e / (row_of_ones(e) @ e)).reshape(question.shape)
    context = np.matmul(to_values, means.transpose(1, 0, 2))
    context += layers[2].bias.reshape(heads, width, 1)
    context *= head_mask
    return context.reshape(heads * width, asking)


def attention_contexts(
    q: Array, k: Array, v: Array, spans: Sequence[Span], head_mask: Array, tap: Tap
) -> Array:
    """Attention within every sequence, as many heads at a time as keep their scores in the cache.

    q, k, v : (H, K, T)  ->  (H, K, T)
    """
    q = q * q.dtype.type(1 / math.sqrt(k.shape[-2]))
    # Cauchy and Schwarz: no score is beyond that.
    may_overflow = column_lengths(q) * column_lengths(k) > SAFE_SCORE
    mask = None if (head_mask == 1).all() else head_mask
    context = scratch("context", *q.shape)
    for run in split_runs(spans, len(q)) if tap is no_tap else ([s] for s in spans):
        s, count = run[0], len(run)
        if count > 1:
            columns = slice(s.keys.start, run[-1].keys.stop)
            # (N, H, K, L), as many matrices as the sequences have heads, none of them copied
            queries, keys, values, heard = (
                x[..., columns].reshape(*x.shape[:2], count, -1).transpose(2, 0, 1, 3)
                for x in (q, k, v, context)
            )
            heard[:] = attend_in_heads(queries, keys, values, s.key_mask, may_overflow, mask, tap)
            continue
        queries, keys, values = q[..., s.queries], k[..., s.keys], v[..., s.keys]
        size = max(1, SCORES_AT_ONCE // max(1, keys.shape[-1] * queries.shape[-1]))
        size = size if tap is no_tap else len(q)  # it hears all heads at once
        for h in (slice(i, i + size) for i in range(0, len(q), size)):
            masks = s.key_mask, may_overflow[h], mask if mask is None else mask[h]
            context[h, :, s.queries] = attend_in_heads(queries[h], keys[h], values[h], *masks, tap)
    return context


def split_runs(spans: Sequence[Span], heads: int) -> Iterator[list[Span]]:
    """Yield neighbours of one length together, if all of their tokens ask, and all are heard.

    They take as few calls as one sequence, and no bit of what comes of it is another.  Together
    their scores are no more than SCORES_AT_ONCE.
    """
    run: list[Span] = []
    for s in spans:
        length = s.keys.stop - s.keys.start
        if run and not (
            length == run[0].keys.stop - run[0].keys.start
            and s.keys.start == run[-1].keys.stop
            and (len(run) + 1) * heads * length * length <= SCORES_AT_ONCE
            and is_unmasked(s)
            and (len(run) > 1 or is_unmasked(run[0]))  # of several, all are
        ):
            yield run
            run = []
        run.append(s)
    if run:
        yield run


def is_unmasked(s: Span) -> bool:
    """Tell whether all tokens of a sequence ask, and all are heard."""
    return s.queries == s.keys and bool(s.key_mask.all())


def column_lengths(x: Array) -> Array:
    """Return the length of the longest column in every head.  (H,)"""
    return np.sqrt(np.einsum("hkt,hkt->ht", x, x).max(axis=-1, initial=0))


def attend_in_heads(
    q: Array,
    k: Array,
    v: Array,
    key_mask: Mask,
    may_overflow: Mask,
    head_mask: Array | None,
    tap: Tap,
) -> Array:
    """Attention of some heads to queries that are scaled; one array holds scores, then weights.

    q, k, v : (H, K, L), or (N, H, K, L)
    """
    scores = scratch("scores", *q.shape[:-2], k.shape[-1], q.shape[-1])
    s = tap("scores", product(k.mT, q, scores))
    s, may_overflow = mask_scores(s, key_mask, may_overflow)
    s = exponentials(tap("masked_scores", s), may_overflow)
    s /= row_of_ones(s) @ s
    s = tap("dropout", s)
    if head_mask is not None:
        s = s * head_mask
    return product(v, tap("weights", s), np.empty(q.shape, q.dtype))


def mask_scores(s: Array, key_mask: Mask, may_overflow: Mask) -> tuple[Array, Mask]:
    """Return scores with those of hidden keys as low as can be, and which heads may overflow."""
    if key_mask.all():
        return s, may_overflow
    return np.where(key_mask, s, np.finfo(s.dtype).min), np.ones_like(may_overflow)


def exponentials(s: Consumed, may_overflow: Mask) -> Array:
    """Return e to the power of scores, (H, L, Lq), or in a head that may overflow a share of that.

    The share is the same down a column, and falls out when the column is divided by its sum.
    """
    if may_overflow.any():
        s -= np.where(may_overflow[:, None, None], s.max(axis=-2, keepdims=True), np.float32(0))
    return np.exp(s, out=s)


def row_of_ones(x: Array) -> Array:
    """Return what sums the columns of x when multiplied with it, which the BLAS does best."""
    return np.ones((1, x.shape[-2]), x.dtype)
