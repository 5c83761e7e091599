"""The forward pass up to the last hidden state, written once.

It is spoken in the verbs of textbook.py, received as `ops`, so that kernels.py, which has the same
verbs, runs the same pass.  tests/test_golden.py holds it to PyTorch's numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from npbert.textbook import Affine, Array, Mask, Tap, untapped
from npbert.weights import Block, Encoder

Ids = NDArray[np.integer]
Spans = Sequence[slice]


class Operations(Protocol):
    """The vocabulary of the forward pass; textbook.py defines every word of it."""

    def linear(self, layer: Affine, x: Array, out: Array | None = ...) -> Array: ...
    def activation(self, name: str, x: Array) -> Array: ...
    def layer_norm(self, norm: Affine, x: Array) -> Array: ...
    def add_norm(
        self, norm: Affine, x: Array, y: Array, tap: Tap = ..., name: str = ...
    ) -> Array: ...
    def attention(
        self, q: Array, k: Array, v: Array, keep: Mask, head_mask: Array, tap: Tap = ...
    ) -> Array: ...  # fmt: skip


class Space(NamedTuple):
    """Memory to offer to the linear layers of a block, used again in the next; None: none."""

    q_lin: Array | None = None
    k_lin: Array | None = None
    v_lin: Array | None = None
    out_lin: Array | None = None
    lin1: Array | None = None
    lin2: Array | None = None


class Run(NamedTuple):
    """How a pass is run: in which verbs, with which activation function, who listens, and where."""

    ops: Operations
    activation: str
    tap: Tap = untapped
    space: Space = Space()

    def under(self, prefix: str) -> "Run":
        """Return the same run, whose tap hears names below a prefix."""
        tap = self.tap
        if tap is untapped:
            return self
        return self._replace(tap=lambda name, x: tap(f"{prefix}.{name}", x))


class Pack(NamedTuple):
    """Sequences side by side: which columns are whose, and which tokens may be heard."""

    ids: Ids  # (T,)
    position_ids: Ids  # (T,)
    spans: Spans  # the columns of each sequence
    keep: Sequence[Mask]  # for each sequence (L, 1), or (1, 1) for all: False hides a token
    wanted: Ids | None = None  # the columns that the head will read; None: all
    wanted_spans: Spans = ()  # which of the wanted columns are whose


def embed(weights: Encoder, pack: Pack, run: Run) -> Array:
    """A token is its word plus its place, normed.  (D, T)"""
    words = run.tap("word_embeddings", weights.word_embeddings[pack.ids].T)
    places = run.tap("position_embeddings", weights.position_embeddings[pack.position_ids].T)
    x = run.ops.add_norm(weights.layer_norm, words, places, run.tap, "sum")
    return run.tap("dropout", run.tap("LayerNorm", x))


def transformer_block(
    block: Block, x: Array, keys: Array, pack: Pack, spans: Spans, head_mask: Array, run: Run
) -> Array:
    """x <- norm(x + attention(x)), then x <- norm(x + ffn(x)).

    x : (D, T), the tokens that ask, and spans, whose they are;  keys : (D, T'), the tokens that
    are asked: the same, but for the last block;  head_mask : (H, 1, 1)  ->  (D, T)
    """
    ops, tap, space = run.ops, run.tap, run.space
    q = tap("attention.q_lin", ops.linear(block.q_lin, x, out=space.q_lin))  # (A, T)
    k = tap("attention.k_lin", ops.linear(block.k_lin, keys, out=space.k_lin))  # (A, T')
    v = tap("attention.v_lin", ops.linear(block.v_lin, keys, out=space.v_lin))

    # Head h is rows hK to (h + 1)K: to split and to join heads is a reshape, and moves nothing.
    heads, width = len(head_mask), len(q)
    q, k, v = (a.reshape(heads, width // heads, a.shape[-1]) for a in (q, k, v))  # (H, K, T)
    context = np.empty_like(q)
    for ask, answer, keep in zip(spans, pack.spans, pack.keep, strict=True):
        context[..., ask] = ops.attention(  # within a sequence
            q[..., ask], k[..., answer], v[..., answer], keep, head_mask, run.under("attention").tap
        )
    context = tap("attention.context", context.reshape(width, x.shape[-1]))  # (A, T)
    y = tap("attention.out_lin", ops.linear(block.out_lin, context, out=space.out_lin))  # (D, T)
    x = ops.add_norm(block.sa_layer_norm, x, y, tap, "attention_residual")
    x = tap("sa_layer_norm", x)

    h = tap("ffn.lin1", ops.linear(block.lin1, x, out=space.lin1))  # (F, T)
    h = tap("ffn.activation", ops.activation(run.activation, h))
    y = tap("ffn.lin2", ops.linear(block.lin2, h, out=space.lin2))  # (D, T)
    y = tap("ffn.dropout", y)
    x = ops.add_norm(block.output_layer_norm, x, y, tap, "ffn_residual")
    return tap("output_layer_norm", x)


def encode(weights: Encoder, pack: Pack, head_masks: Sequence[Array], run: Run) -> Array:
    """Ids to the last hidden state.

    head_masks : for each block (H, 1, 1)  ->  (D, T), or (D, wanted)
    """
    x = embed(weights, pack, run.under("embeddings"))
    for i, (block, head_mask) in enumerate(zip(weights.blocks, head_masks, strict=True)):
        keys, spans = x, pack.spans
        if pack.wanted is not None and i == len(weights.blocks) - 1:
            # What the head will not read need not ask; in earlier blocks it will yet be asked.
            x, spans = x[:, pack.wanted], pack.wanted_spans
        of_block = run.under(f"transformer.layer.{i}")
        x = transformer_block(block, x, keys, pack, spans, head_mask, of_block)
    return x
