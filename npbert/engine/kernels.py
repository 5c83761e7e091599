"""The verbs of textbook.py for float32: fast, in place, in memory that is used again.

A kernel means what its definition means; tests/test_kernels.py holds the two together.  It may
overwrite what its signature calls Consumed, and nothing else.

Work is cut into parts by its shapes alone, never by who computes the parts or who listens, so
that neither the number of threads nor a tap changes a bit of a result.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from npbert import textbook
from npbert.engine.attention import (
    Consumed,
    attend,
    attend_through_weights,
    attention_contexts,
    is_cheaper_through_weights,
    row_of_ones,
)
from npbert.engine.products import column_blocks, multiply, scratch
from npbert.engine.threads import run_parallel, split_in_two
from npbert.textbook import (
    Affine,
    Array,
    Attention,
    FeedForward,
    Function,
    Mask,
    Norm,
    Span,
    Tap,
    no_tap,
)

# To pass over an array in blocks keeps them in the cache.  But every pass takes Python's lock, on
# which the threads meet; so blocks are as large as an L2 cache, and not as an L1.
BLOCK_FLOATS: Final = 98_304  # floats, 400 kB

# erf(x / sqrt 2) = tanh(x P(x^2)), so that gelu(x) = x / (1 + exp(-2 x P(x^2))): one exp, which is
# twice as fast as tanh.  P is fitted by weighted minimax, the weight being what an error of P does
# to gelu.  Beyond x^2 = 31.36, where the fit ends, P only grows, and the quotient is x or 0.
GELU_COEFFICIENTS: Final = tuple(
    np.float32(-2 * c)
    for c in (
        1.80561699e-09, -1.33446435e-07, 3.96910991e-06, -5.52401615e-05,
        -3.31299839e-05, 0.0363342835, 0.797884216,
    )
)  # fmt: skip


def linear(layer: Affine, x: Array) -> Array:
    """See textbook.linear."""
    return linear_by_rows(layer, x, split_in_two(len(layer.weight), layer.weight.size, x.shape[-1]))


def linear_by_rows(layer: Affine, x: Array, parts: Sequence[slice]) -> Array:
    """W x + b, some rows at a time: on some processors other rows give other last bits."""
    y = np.empty((len(layer.weight), x.shape[-1]), x.dtype)

    def part(rows: slice) -> None:
        multiply(x, (layer.weight[rows], y[rows]))
        y[rows] += layer.bias[rows]

    run_parallel(part, parts)
    return y


def activation(function: Function, x: Consumed) -> Array:
    """See textbook.activation.  In place, a block of rows at a time."""
    rows = max(1, BLOCK_FLOATS // max(1, x.shape[-1]))
    for block in (x[i : i + rows] for i in range(0, len(x), rows)):
        if function is textbook.gelu:
            gelu(block)
        else:
            block[...] = function(block)
    return x


def gelu(x: Consumed) -> Array:
    """See textbook.gelu.  Within 6e-7 of it, by Horner's scheme."""
    with np.errstate(over="ignore"):  # x over infinity is 0
        square = np.multiply(x, x, out=scratch("square", *x.shape))
        p = np.multiply(square, GELU_COEFFICIENTS[0], out=scratch("polynomial", *x.shape))
        p += GELU_COEFFICIENTS[1]
        for c in GELU_COEFFICIENTS[2:]:
            p *= square
            p += c
        p *= x
        np.exp(p, out=p)
    p += 1
    x /= p
    return x


def layer_norm(norm: Norm, x: Consumed) -> Array:
    """See textbook.layer_norm."""
    x -= row_of_ones(x) @ x / len(x)
    variance = np.einsum("ij,ij->j", x, x) / len(x)
    x *= 1 / np.sqrt(variance + norm.epsilon)
    x *= norm.weight
    x += norm.bias
    return x


def add_norm(norm: Norm, x: Array, y: Consumed, tap: Tap = no_tap, name: str = "sum") -> Array:
    """See textbook.add_norm.  Embeddings come by rows, as they are looked up; columns leave."""
    y += x
    return layer_norm(norm, tap(name, np.ascontiguousarray(y)))


def attention(
    q: Array, k: Array, v: Array, key_mask: Mask, head_mask: Array, tap: Tap = no_tap
) -> Array:
    """See textbook.attention."""
    everyone = Span(slice(0, q.shape[-1]), slice(0, k.shape[-1]), key_mask)
    return attention_contexts(q, k, v, [everyone], head_mask, tap).copy()


def self_attention(
    w: Attention, x: Array, keys: Array, spans: Sequence[Span], head_mask: Array,
    tap: Tap = no_tap,
) -> Array:  # fmt: skip
    """See textbook.self_attention.  Either half of the heads goes all the way by itself."""
    width = len(w.q_lin.weight) // len(head_mask)
    parts = split_in_two(len(head_mask), 4 * w.q_lin.weight.size, keys.shape[-1])

    def rows(heads: slice) -> slice:
        return slice(heads.start * width, heads.stop * width)

    if tap is not no_tap:
        halved = [rows(heads) for heads in parts]
        asked = {"q_lin": x, "k_lin": keys, "v_lin": keys}
        q, k, v = (
            tap(name, linear_by_rows(getattr(w, name), a, halved)) for name, a in asked.items()
        )
        q, k, v = (a.reshape(len(head_mask), width, -1) for a in (q, k, v))
        context = attention_contexts(q, k, v, spans, head_mask, tap).reshape(-1, x.shape[-1])
        context = tap("context", context)
        return tap(
            "out_lin",
            add_parts(w.out_lin, [partial_product(w.out_lin, r, context[r]) for r in halved]),
        )

    through_weights = is_cheaper_through_weights(w, x, keys, spans, len(head_mask))
    answer = attend_through_weights if through_weights else attend

    def part(heads: slice) -> Array:
        r = rows(heads)
        layers = [Affine(layer.weight[r], layer.bias[r]) for layer in (w.q_lin, w.k_lin, w.v_lin)]
        return partial_product(w.out_lin, r, answer(layers, x, keys, spans, head_mask[heads]))

    return add_parts(w.out_lin, run_parallel(part, parts))


def feed_forward(w: FeedForward, function: Function, x: Array, tap: Tap = no_tap) -> Array:
    """See textbook.feed_forward.  Either half of the features goes all the way by itself."""
    parts = split_in_two(len(w.lin1.weight), w.lin1.weight.size + w.lin2.weight.size, x.shape[-1])
    if tap is not no_tap:
        h = tap("activation", activation(function, tap("lin1", linear_by_rows(w.lin1, x, parts))))
        return tap("lin2", add_parts(w.lin2, [partial_product(w.lin2, f, h[f]) for f in parts]))

    def part(features: slice) -> Array:
        up, down = w.lin1.weight[features], w.lin2.weight[:, features]
        y = np.empty((len(down), x.shape[-1]), x.dtype)
        # What a block of columns grows to stays in the cache until it has shrunk again.
        for some in column_blocks(x):
            given = x[:, some]
            h = scratch("lin1", len(up), given.shape[-1])
            multiply(given, (up, h))
            h += w.lin1.bias[features]
            multiply(activation(function, h), (down, y[:, some]))
        return y

    return add_parts(w.lin2, run_parallel(part, parts))


def partial_product(layer: Affine, features: slice, x: Array) -> Array:
    """W x, for some features of x alone."""
    y = np.empty((len(layer.weight), x.shape[-1]), x.dtype)
    multiply(x, (layer.weight[:, features], y))
    return y


def add_parts(layer: Affine, parts: Sequence[Array]) -> Array:
    """W x + b, of the products with the parts of x."""
    y, *others = parts
    for other in others:
        y += other
    y += layer.bias
    return y
