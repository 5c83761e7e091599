"""The forward pass up to the last hidden state, written once.

It is spoken in the verbs of textbook.py, received as `ops`, so that another module with the same
verbs can run the same pass.  tests/test_golden.py holds it to PyTorch's numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from npbert.textbook import Affine, Array, Tap, untapped
from npbert.weights import Block, Encoder

Ids = NDArray[np.integer]
Hearing = tuple[slice, slice, Array]  # a sequence's listening columns, its heard ones, keep


class Operations(Protocol):
    """The vocabulary of the forward pass; textbook.py defines every word of it."""

    def linear(self, layer: Affine, x: Array) -> Array: ...
    def activation(self, name: str, x: Array) -> Array: ...
    def layer_norm(self, norm: Affine, x: Array) -> Array: ...
    def add_norm(
        self, norm: Affine, x: Array, y: Array, tap: Tap = ..., name: str = ...
    ) -> Array: ...
    def attention(
        self, q: Array, k: Array, v: Array, keep: Array, head_mask: Array, tap: Tap = ...
    ) -> Array: ...  # fmt: skip


class Pack(NamedTuple):
    """Sequences side by side: which columns are whose, and who hears whom."""

    ids: Ids  # (T,)
    position_ids: Ids  # (T,)
    spans: Sequence[slice]  # the columns of each sequence
    keep: Sequence[Array]  # for each sequence (L, 1): 0 hides a token from all others
    wanted: Ids | None = None  # the columns that the head will read; None: all
    wanted_spans: Sequence[slice] = ()  # which of the wanted columns are whose


def under(tap: Tap, prefix: str) -> Tap:
    """Return the same tap for names below a prefix."""
    return tap if tap is untapped else lambda name, x: tap(f"{prefix}.{name}", x)


def embed(weights: Encoder, pack: Pack, ops: Operations, tap: Tap = untapped) -> Array:
    """A token is its word plus its place, normed.  (D, T)"""
    words = tap("word_embeddings", weights.word_embeddings[pack.ids].T)
    places = tap("position_embeddings", weights.position_embeddings[pack.position_ids].T)
    x = ops.add_norm(weights.layer_norm, words, places, tap, "sum")
    return tap("dropout", tap("LayerNorm", x))


def transformer_block(
    weights: Encoder, block: Block, x: Array, heard: Array, hearings: Sequence[Hearing],
    head_mask: Array, ops: Operations, tap: Tap = untapped,
) -> Array:  # fmt: skip
    """x <- norm(x + attention(x)), then x <- norm(x + ffn(x)).

    x : (D, T), the tokens that listen;  heard : (D, T'), those they listen to, usually the same;
    hearings : for each sequence its columns in x, its columns in heard, and keep, (L, 1);
    head_mask : (H, 1, 1)  ->  (D, T)
    """
    q = tap("attention.q_lin", ops.linear(block.q_lin, x))  # (A, T)
    k = tap("attention.k_lin", ops.linear(block.k_lin, heard))  # (A, T')
    v = tap("attention.v_lin", ops.linear(block.v_lin, heard))

    # Head h is rows hK to (h + 1)K: to split and to join heads is a reshape, and moves nothing.
    context = np.empty_like(q)
    heads = (len(q) // weights.head_size, weights.head_size)  # (H, K)
    q, k, v, joined = (a.reshape(*heads, a.shape[-1]) for a in (q, k, v, context))
    for mine, ours, keep in hearings:  # a token hears its own sequence only
        joined[..., mine] = ops.attention(
            q[..., mine], k[..., ours], v[..., ours], keep, head_mask, under(tap, "attention")
        )
    context = tap("attention.context", context)
    y = tap("attention.out_lin", ops.linear(block.out_lin, context))  # (D, T)
    x = ops.add_norm(block.sa_layer_norm, x, y, tap, "attention_residual")
    x = tap("sa_layer_norm", x)

    h = tap("ffn.lin1", ops.linear(block.lin1, x))  # (F, T)
    h = tap("ffn.activation", ops.activation(weights.activation, h))
    y = tap("ffn.dropout", tap("ffn.lin2", ops.linear(block.lin2, h)))  # (D, T)
    x = ops.add_norm(block.output_layer_norm, x, y, tap, "ffn_residual")
    return tap("output_layer_norm", x)


def encode(
    weights: Encoder, pack: Pack, head_masks: Sequence[Array], ops: Operations, tap: Tap = untapped
) -> Array:
    """Ids to the last hidden state, of the wanted columns only.

    head_masks : for each block (H, 1, 1)  ->  (D, T), or (D, wanted)
    """
    x = heard = embed(weights, pack, ops, under(tap, "embeddings"))
    spans = pack.spans
    for i, block in enumerate(weights.blocks):
        if pack.wanted is not None and block is weights.blocks[-1]:
            x, spans = x[:, pack.wanted], pack.wanted_spans
        hearings = list(zip(spans, pack.spans, pack.keep, strict=True))
        of_block = under(tap, f"transformer.layer.{i}")
        x = heard = transformer_block(
            weights, block, x, heard, hearings, head_masks[i], ops, of_block
        )
    return x
