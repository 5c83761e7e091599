"""The verbs of textbook.py for float32: fast, in place, in memory that is used again.

A kernel means what its definition means; tests/test_kernels.py holds the two together.  It may
overwrite what its signature calls Consumed, and nothing else.

Work is cut into parts by its shapes alone, never by who computes the parts or who listens, so
that neither the number of threads nor a tap changes a bit of a result.
"""

import math
import threading
from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np

from npbert import textbook
from npbert.blas import columns, multiply, product
from npbert.textbook import (
    EPSILON,
    Affine,
    Array,
    Attention,
    FeedForward,
    Mask,
    Span,
    Tap,
    untapped,
)
from npbert.threads import halves, share

Consumed = Annotated[Array, "consumed"]

# To pass over an array in blocks keeps them in the cache.  But every pass takes Python's lock, on
# which the threads meet; so blocks are as large as an L2 cache, and not as an L1.
BLOCK: Final = 98_304  # floats, 400 kB
SCORES: Final = 131_072  # floats: the scores of as many heads as this holds, or of one

CALM: Final = 30.0  # scores within this of 0 need no maximum taken off: e^30 is far from overflow

# erf(x / sqrt 2) = tanh(x P(x^2)), so that gelu(x) = x / (1 + exp(-2 x P(x^2))): one exp, which is
# twice as fast as tanh.  P is fitted by weighted minimax, the weight being what an error of P does
# to gelu.  Beyond x^2 = 31.36, where the fit ends, P only grows, and the quotient is x or 0.
GELU: Final = tuple(
    np.float32(-2 * c)
    for c in (
        1.80561699e-09, -1.33446435e-07, 3.96910991e-06, -5.52401615e-05,
        -3.31299839e-05, 0.0363342835, 0.797884216,
    )
)  # fmt: skip

_mine = threading.local()


def memory(name: str, *shape: int) -> Array:
    """Return this thread's memory of that name, the same again in the next block."""
    size = math.prod(shape)
    held = getattr(_mine, name, None)
    if held is None or held.size < size:
        held = np.empty(size, np.float32)
        setattr(_mine, name, held)
    return held[:size].reshape(shape)


def linear(layer: Affine, x: Array) -> Array:
    """See textbook.linear."""
    y = np.empty((len(layer.weight), x.shape[-1]), x.dtype)

    def part(rows: slice) -> None:
        multiply(x, (layer.weight[rows], y[rows]))
        y[rows] += layer.bias[rows]

    share(part, halves(len(y), layer.weight.size, x.shape[-1]))
    return y


def activation(name: str, x: Consumed) -> Array:
    """See textbook.activation.  In place, a block of rows at a time."""
    rows = max(1, BLOCK // max(1, x.shape[-1]))
    for block in (x[i : i + rows] for i in range(0, len(x), rows)):
        if name == "gelu":
            gelu(block)
        else:
            block[...] = textbook.activation(name, block)
    return x


def gelu(x: Consumed) -> Array:
    """See textbook.gelu.  Within 6e-7 of it, by Horner's scheme."""
    with np.errstate(over="ignore"):  # x over infinity is 0
        square = np.multiply(x, x, out=memory("square", *x.shape))
        p = np.multiply(square, GELU[0], out=memory("polynomial", *x.shape))
        p += GELU[1]
        for c in GELU[2:]:
            p *= square
            p += c
        p *= x
        np.exp(p, out=p)
    p += 1
    x /= p
    return x


def layer_norm(norm: Affine, x: Consumed) -> Array:
    """See textbook.layer_norm."""
    x -= ones(x) @ x / len(x)
    variance = np.einsum("ij,ij->j", x, x) / len(x)
    x *= 1 / np.sqrt(variance + EPSILON)
    x *= norm.weight
    x += norm.bias
    return x


def ones(x: Array) -> Array:
    """Return what sums the columns of x when multiplied with it, which the BLAS does best."""
    return np.ones((1, x.shape[-2]), x.dtype)


def add_norm(norm: Affine, x: Array, y: Consumed, tap: Tap = untapped, name: str = "sum") -> Array:
    """See textbook.add_norm.  An embedding lookup lies by rows, and is laid by columns here."""
    y = y if y.flags.c_contiguous else np.ascontiguousarray(y)
    y += x
    return layer_norm(norm, tap(name, y))


def attention(
    q: Array, k: Array, v: Array, keep: Mask, head_mask: Array, tap: Tap = untapped
) -> Array:
    """See textbook.attention.  As many heads at a time as keep their scores in the cache."""
    if tap is not untapped:  # it hears all heads at once
        return attend(q, k, v, keep, head_mask, tap)
    heads = max(1, SCORES // max(1, k.shape[-1] * q.shape[-1]))
    some = [slice(i, i + heads) for i in range(0, len(q), heads)]
    return np.concatenate([attend(q[h], k[h], v[h], keep, head_mask[h], tap) for h in some])


def attend(q: Array, k: Array, v: Array, keep: Mask, head_mask: Array, tap: Tap) -> Array:
    """Attention of some heads; one array holds scores, then weights."""
    s = memory("scores", len(k), k.shape[-1], q.shape[-1])
    s = tap("scores", product(k.mT, q * q.dtype.type(1 / math.sqrt(k.shape[-2])), s))
    if not keep.all():
        s = np.where(keep, s, np.finfo(s.dtype).min)
    s = exponentials(tap("masked_scores", s))
    s /= ones(s) @ s
    s = tap("dropout", s)
    if (head_mask != 1).any():
        s = s * head_mask
    return product(v, tap("weights", s), np.empty(q.shape, q.dtype))


def exponentials(s: Consumed) -> Array:
    """Return e to the power of scores, (H, L, Lq), or in a head with great ones a share of that.

    The share is the same down a column, and falls out when the column is divided by its sum.
    """
    greatest, least = (f.reduce(s, axis=(-2, -1), initial=0) for f in (np.maximum, np.minimum))
    for head in np.flatnonzero(np.maximum(greatest, -least) > CALM):
        s[head] -= s[head].max(axis=-2)
    return np.exp(s, out=s)


def self_attention(
    w: Attention, x: Array, keys: Array, spans: Sequence[Span], head_mask: Array,
    tap: Tap = untapped,
) -> Array:  # fmt: skip
    """See textbook.self_attention.  Either half of the heads goes all the way by itself."""
    width = len(w.q_lin.weight) // len(head_mask)
    parts = halves(len(head_mask), 4 * w.q_lin.weight.size, keys.shape[-1])
    rows = [slice(heads.start * width, heads.stop * width) for heads in parts]
    if tap is not untapped:
        asked = {"q_lin": x, "k_lin": keys, "v_lin": keys}
        q, k, v = (tap(name, linear(getattr(w, name), a)) for name, a in asked.items())
        context = tap("context", contexts(q, k, v, spans, head_mask, tap))
        return tap("out_lin", joined(w.out_lin, [partly(w.out_lin, r, context[r]) for r in rows]))

    answer = few_ask if few(w, x, keys, spans, len(head_mask)) else all_ask

    def part(heads: slice) -> Array:
        r = rows[parts.index(heads)]
        layers = [Affine(layer.weight[r], layer.bias[r]) for layer in (w.q_lin, w.k_lin, w.v_lin)]
        return partly(w.out_lin, r, answer(layers, x, keys, spans, head_mask[heads]))

    return joined(w.out_lin, share(part, parts))


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
    return contexts(q, k, v, spans, head_mask, untapped)


def contexts(
    q: Array, k: Array, v: Array, spans: Sequence[Span], head_mask: Array, tap: Tap
) -> Array:
    """What some heads hear within every sequence; from (A, T) to (A, T)."""
    rows, heads = q.shape, len(head_mask)
    q, k, v = (a.reshape(heads, rows[0] // heads, a.shape[-1]) for a in (q, k, v))
    context = memory("context", *q.shape)
    for s in spans:
        context[..., s.asking] = attention(
            q[..., s.asking], k[..., s.asked], v[..., s.asked], s.keep, head_mask, tap
        )
    return context.reshape(rows)


def few(w: Attention, x: Array, keys: Array, spans: Sequence[Span], heads: int) -> bool:
    """Tell whether so few ask that few_ask has less to multiply than all_ask."""
    inside, outside = w.q_lin.weight.shape
    pairs = sum((s.asking.stop - s.asking.start) * (s.asked.stop - s.asked.start) for s in spans)
    saved = (keys.shape[-1] - x.shape[-1]) * inside * outside
    return saved > (heads * outside - inside) * pairs


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
        e = asked.T @ question.reshape(len(x), -1)
        if not s.keep.all():
            e = np.where(s.keep, e, np.finfo(e.dtype).min)
        e = exponentials(e[None])[0]
        means[..., s.asking] = (asked @ e / (ones(e) @ e)).reshape(question.shape)
    context = np.matmul(to_values, means.transpose(1, 0, 2))
    context += layers[2].bias.reshape(heads, width, 1)
    context *= head_mask
    return context.reshape(heads * width, asking)


def feed_forward(w: FeedForward, name: str, x: Array, tap: Tap = untapped) -> Array:
    """See textbook.feed_forward.  Either half of the features goes all the way by itself."""
    parts = halves(len(w.lin1.weight), w.lin1.weight.size + w.lin2.weight.size, x.shape[-1])
    if tap is not untapped:
        h = tap("activation", activation(name, tap("lin1", linear(w.lin1, x))))
        return tap("lin2", joined(w.lin2, [partly(w.lin2, f, h[f]) for f in parts]))

    def part(features: slice) -> Array:
        up, down = w.lin1.weight[features], w.lin2.weight[:, features]
        y = np.empty((len(down), x.shape[-1]), x.dtype)
        for some in columns(x):  # what they grow to stays in the cache until it has shrunk again
            given = x[:, some]
            h = memory("lin1", len(up), given.shape[-1])
            multiply(given, (up, h))
            h += w.lin1.bias[features]
            multiply(activation(name, h), (down, y[:, some]))
        return y

    return joined(w.lin2, share(part, parts))


def partly(layer: Affine, features: slice, x: Array) -> Array:
    """W x, for some features of x alone."""
    y = np.empty((len(layer.weight), x.shape[-1]), x.dtype)
    multiply(x, (layer.weight[:, features], y))
    return y


def joined(layer: Affine, parts: Sequence[Array]) -> Array:
    """W x + b, of the products with the parts of x."""
    y, *others = parts
    for other in others:
        y += other
    y += layer.bias
    return y
