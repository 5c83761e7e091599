"""The verbs of textbook.py for few tokens and a small model: as few calls of NumPy as the formula.

With eight tokens a product with the weights of a layer takes 0.1 ms, and a call of NumPy 0.002, so
that calls count; and OpenBLAS copies a large matrix before it multiplies it with anything.  So here
weights lie once more in memory, in blocks of 32 outputs that it multiplies where they are, (out/32,
in, 32); queries, keys and values come of one product; and a token is a row, along which norms run.
Columns come and go, as everywhere, but only in name: they are rows, transposed.

The same blocks are multiplied whoever computes and whoever listens, so that neither the number of
threads nor a tap changes a bit of a result.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from npbert.encoder import Block
from npbert.engine.kernels import activation, layer_norm, linear
from npbert.engine.threads import run_parallel, split_in_two
from npbert.textbook import (
    Affine,
    Array,
    Attention,
    FeedForward,
    Function,
    Norm,
    Span,
    Tap,
    no_tap,
)

MOST_TOKENS: Final = 32  # in a pack; for more, the kernels are as fast
LIMIT: Final = 64 << 20  # bytes that the second copy may take
BLOCK_OUTPUTS: Final = 32  # of a block


class PackedAttention(NamedTuple):
    """The weights of self-attention in blocks."""

    questions: Array  # of queries, keys and values: (3, H, D, K)
    questions_bias: Array  # (3, H, 1, K)
    out_lin: Array  # (D/32, A, 32)


class PackedFeedForward(NamedTuple):
    """The weights of the ffn in blocks."""

    lin1: Array  # (F/32, D, 32)
    lin1_bias: Array  # (F/32, 1, 32)
    lin2: Array  # (D/32, F, 32)


def size_of_copy(blocks: Sequence[Block]) -> int:
    """Return the bytes of the weights as they lie in memory once more; 0: they may not.

    They are few, come in whole blocks of outputs, and nobody can change them.
    """
    layers = [layer for block in blocks for layer in (*block.attention, *block.ffn)]
    outputs = [layer for block in blocks for layer in (block.attention.out_lin, *block.ffn)]
    size = sum(layer.weight.nbytes for layer in layers)
    fits = (
        size <= LIMIT
        and not any(layer.weight.flags.writeable for layer in layers)
        and all(len(layer.weight) % BLOCK_OUTPUTS == 0 for layer in outputs)
    )
    return size if fits else 0


class FewTokens:
    """The operations of a pass over few tokens, and the weights of a model's blocks for them."""

    linear = staticmethod(linear)
    activation = staticmethod(activation)
    layer_norm = staticmethod(layer_norm)

    def __init__(self, blocks: Iterable[Block], heads: Iterable[int]) -> None:
        self.attentions: dict[int, PackedAttention] = {}
        self.ffns: dict[int, PackedFeedForward] = {}
        for block, count in zip(blocks, heads, strict=True):
            self.attentions[id(block.attention)] = pack_attention(block.attention, count)
            self.ffns[id(block.ffn)] = PackedFeedForward(
                split_outputs(block.ffn.lin1.weight),
                block.ffn.lin1.bias.reshape(-1, 1, BLOCK_OUTPUTS),
                split_outputs(block.ffn.lin2.weight),
            )

    def add_norm(
        self, norm: Norm, x: Array, y: Array, tap: Tap = no_tap, name: str = "sum"
    ) -> Array:
        """See textbook.add_norm."""
        rows = transpose_columns(tap(name, x + y))
        rows -= np.add.reduce(rows, axis=1, keepdims=True) / rows.shape[1]
        variance = np.vecdot(rows, rows) / rows.shape[1]
        rows *= (1 / np.sqrt(variance + norm.epsilon))[:, None]
        rows *= norm.weight.T
        rows += norm.bias.T
        return rows.T

    def self_attention(
        self, w: Attention, x: Array, keys: Array, spans: Sequence[Span], head_mask: Array,
        tap: Tap = no_tap,
    ) -> Array:  # fmt: skip
        """See textbook.self_attention.  Either half of the heads goes all the way by itself."""
        packed = self.attentions[id(w)]
        asking = transpose_columns(x)
        asked = asking if x is keys else transpose_columns(keys)
        width = packed.questions.shape[-1]
        parts = split_in_two(len(head_mask), 4 * w.q_lin.weight.size, len(asked))

        def query_heads(heads: slice) -> Sequence[Array]:
            weights, bias = packed.questions[:, heads], packed.questions_bias[:, heads]
            if x is keys:
                return np.matmul(asked, weights) + bias
            return [
                np.matmul(asking, weights[0]) + bias[0],
                *np.matmul(asked, weights[1:]) + bias[1:],
            ]

        def project(heads: slice, context: Array) -> Array:
            features = slice(heads.start * width, heads.stop * width)
            return np.matmul(join_blocks(context), packed.out_lin[:, features])

        def part(heads: slice) -> Array:
            q, k, v = query_heads(heads)
            return project(heads, attend_by_rows(q, k, v, spans, head_mask[heads]))

        if tap is no_tap:
            return add_products(w.out_lin, run_parallel(part, parts))
        names, everyone = ("q_lin", "k_lin", "v_lin"), slice(0, len(head_mask))
        q, k, v = (
            split_rows(tap(name, join_blocks(made).T), width)
            for name, made in zip(names, query_heads(everyone), strict=True)
        )
        context = join_blocks(attend_by_rows(q, k, v, spans, head_mask, tap)).T
        context = split_rows(tap("context", context), width)
        return tap("out_lin", add_products(w.out_lin, [project(h, context[h]) for h in parts]))

    def feed_forward(
        self, w: FeedForward, function: Function, x: Array, tap: Tap = no_tap
    ) -> Array:
        """See textbook.feed_forward.  Either half of the features goes all the way by itself."""
        packed, rows = self.ffns[id(w)], transpose_columns(x)
        size = w.lin1.weight.size + w.lin2.weight.size
        parts = split_in_two(len(packed.lin1), size, len(rows))

        def feed(blocks: slice) -> Array:
            h = np.matmul(rows, packed.lin1[blocks])
            h += packed.lin1_bias[blocks]
            return h

        def project(blocks: slice, h: Array) -> Array:
            features = slice(blocks.start * BLOCK_OUTPUTS, blocks.stop * BLOCK_OUTPUTS)
            return np.matmul(join_blocks(h), packed.lin2[:, features])

        def part(blocks: slice) -> Array:
            h = feed(blocks)
            activation(function, h.reshape(len(h), h[0].size))
            return project(blocks, h)

        if tap is no_tap:
            return add_products(w.lin2, run_parallel(part, parts))
        y = transpose_columns(tap("lin1", join_blocks(feed(slice(0, len(packed.lin1)))).T))
        h = split_rows(tap("activation", activation(function, y).T), BLOCK_OUTPUTS)
        return tap("lin2", add_products(w.lin2, [project(b, h[b]) for b in parts]))


def pack_attention(w: Attention, heads: int) -> PackedAttention:
    """Return the weights of self-attention in blocks, one for each head."""
    asking = (w.q_lin, w.k_lin, w.v_lin)
    questions = [layer.weight.reshape(heads, -1, layer.weight.shape[1]) for layer in asking]
    biases = [layer.bias.reshape(heads, 1, -1) for layer in asking]
    packed = np.ascontiguousarray(np.stack(questions).mT)
    return PackedAttention(packed, np.stack(biases), split_outputs(w.out_lin.weight))


def split_outputs(weight: Array) -> Array:
    """Return a weight in blocks of outputs.  (out, in)  ->  (out/32, in, 32)"""
    return np.ascontiguousarray(weight.reshape(-1, BLOCK_OUTPUTS, weight.shape[1]).mT)


def transpose_columns(x: Array) -> Array:
    """Return columns as rows: no copy, but of what a tap made.  (D, T)  ->  (T, D)"""
    return np.ascontiguousarray(x.T)


def join_blocks(blocks: Array) -> Array:
    """Return what lies in blocks as rows.  (N, T, K)  ->  (T, N K)"""
    count, tokens, width = blocks.shape
    return blocks.transpose(1, 0, 2).reshape(tokens, count * width)


def split_rows(x: Array, width: int) -> Array:
    """Return columns in blocks of so many features.  (N K, T)  ->  (N, T, K)"""
    return np.ascontiguousarray(x.reshape(len(x) // width, width, x.shape[-1]).mT)


def add_products(layer: Affine, parts: Sequence[Array]) -> Array:
    """W x + b, of the products with the parts of x, in blocks."""
    y, *others = parts
    for other in others:
        y += other
    rows = join_blocks(y)
    rows += layer.bias.T
    return rows.T


def attend_by_rows(
    q: Array, k: Array, v: Array, spans: Sequence[Span], head_mask: Array, tap: Tap = no_tap
) -> Array:
    """See textbook.attention.  q, k, v : (H, T, K), q is consumed  ->  (H, T, K)"""
    q *= q.dtype.type(1 / math.sqrt(q.shape[-1]))
    mask = None if (head_mask == 1).all() else head_mask
    context = np.empty_like(q)
    for s in spans:
        e = tap("scores", np.matmul(q[:, s.queries], k[:, s.keys].mT).mT).mT  # (H, Lq, L)
        if not s.key_mask.all():
            e = np.where(s.key_mask.T, e, np.finfo(e.dtype).min)
        e = tap("masked_scores", e.mT).mT
        e -= np.maximum.reduce(e, axis=-1, keepdims=True)
        np.exp(e, out=e)
        e /= np.add.reduce(e, axis=-1, keepdims=True)
        weights = tap("dropout", e.mT).mT
        if mask is not None:
            weights = weights * mask
        weights = tap("weights", weights.mT).mT
        context[:, s.queries] = np.matmul(weights, v[:, s.keys])
    return context
