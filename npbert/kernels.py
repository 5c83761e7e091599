"""The verbs of textbook.py for float32: fast, in place, in the memory that is offered.

A kernel means what its definition means; tests/test_kernels.py holds the two together.  It may
overwrite what its signature calls Consumed, and nothing else.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Final

import numpy as np

from npbert import blas, textbook
from npbert.textbook import EPSILON, Affine, Array, Mask, Tap, untapped

Consumed = Annotated[Array, "consumed"]

BLOCK: Final = 32_768  # floats, 128 kB: a block of rows and its scratch stay in the L2 cache

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


def linear(layer: Affine, x: Array, out: Array | None = None) -> Array:
    """See textbook.linear.  `out` offers memory for at least as many floats as the result has."""
    shape = (len(layer.weight), x.shape[-1])
    y = np.empty(shape, x.dtype) if out is None else out[: math.prod(shape)].reshape(shape)

    def rows(part: slice) -> None:
        np.matmul(layer.weight[part], x, out=y[part])
        y[part] += layer.bias[part]

    blas.share(rows, len(y), layer.weight.size * x.shape[-1])
    return y


def blocks(x: Array) -> Iterator[slice]:
    """Yield the rows of x in blocks, small enough to be passed over many times in the cache."""
    rows = max(1, BLOCK // max(1, x.shape[-1]))
    return (slice(i, i + rows) for i in range(0, len(x), rows))


def activation(name: str, x: Consumed) -> Array:
    """See textbook.activation.  In place, a block of rows at a time."""

    def rows(part: slice) -> None:
        half = x[part]
        for block in blocks(half):
            if name == "gelu":
                gelu(half[block])
            else:
                half[block] = textbook.activation(name, half[block])

    blas.share(rows, len(x), 300 * x.size)  # about what a gelu takes
    return x


def gelu(x: Consumed) -> Array:
    """See textbook.gelu.  Within 6e-7 of it, by Horner's scheme."""
    with np.errstate(over="ignore"):  # x over infinity is 0
        square = np.multiply(x, x)
        p = np.multiply(square, GELU[0])
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
    x -= np.add.reduce(x, axis=-2, keepdims=True) / len(x)
    square = np.zeros(x.shape[-1], x.dtype)
    for block in blocks(x):
        square += np.einsum("ij,ij->j", x[block], x[block])
    scale = 1 / np.sqrt(square / len(x) + EPSILON)
    for block in blocks(x):
        x[block] *= scale
        x[block] *= norm.weight[block]
        x[block] += norm.bias[block]
    return x


def add_norm(norm: Affine, x: Array, y: Consumed, tap: Tap = untapped, name: str = "sum") -> Array:
    """See textbook.add_norm.  An embedding lookup lies by rows, and is laid by columns here."""
    y = y if y.flags.c_contiguous else np.ascontiguousarray(y)
    y += x
    return layer_norm(norm, tap(name, y))


def attention(
    q: Array, k: Array, v: Array, keep: Mask, head_mask: Array, tap: Tap = untapped
) -> Array:
    """See textbook.attention.  As many heads at a time as keep their weights in the cache."""
    heads = max(1, BLOCK // (k.shape[-1] * max(1, q.shape[-1])))
    if tap is not untapped or heads >= len(q):
        return attend(q, k, v, keep, head_mask, tap)
    some = [slice(i, i + heads) for i in range(0, len(q), heads)]
    return np.concatenate([attend(q[s], k[s], v[s], keep, head_mask[s], tap) for s in some])


def attend(q: Array, k: Array, v: Array, keep: Mask, head_mask: Array, tap: Tap) -> Array:
    """Attention of some heads; one array holds scores, then weights."""
    s = np.matmul(k.mT, q * q.dtype.type(1 / math.sqrt(k.shape[-2])))
    s = tap("scores", s)
    if not keep.all():
        s = np.where(keep, s, np.finfo(s.dtype).min)
    s = tap("masked_scores", s)
    # What a tap returned is not ours to overwrite.
    s = np.subtract(s, s.max(axis=-2, keepdims=True), out=s if tap is untapped else None)
    np.exp(s, out=s)
    s /= np.add.reduce(s, axis=-2, keepdims=True)
    s = tap("dropout", s)
    if (head_mask != 1).any():
        s = s * head_mask
    return v @ tap("weights", s)
