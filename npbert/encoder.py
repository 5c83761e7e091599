"""The forward pass up to the last hidden state, written once.

It is spoken in the verbs of textbook.py, received as `ops`, so that kernels.py, which has the same
verbs, runs the same pass.  tests/test_golden.py holds it to PyTorch's numbers.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from npbert.textbook import Affine, Array, Attention, FeedForward, Function, Norm, Span, Tap, no_tap

Ids = NDArray[np.integer]


class Operations(Protocol):
    """The vocabulary of the forward pass; textbook.py defines every word of it."""

    def linear(self, layer: Affine, x: Array) -> Array: ...
    def activation(self, function: Function, x: Array) -> Array: ...
    def layer_norm(self, norm: Norm, x: Array) -> Array: ...
    def add_norm(
        self, norm: Norm, x: Array, y: Array, tap: Tap = ..., name: str = ...
    ) -> Array: ...
    def self_attention(
        self, w: Attention, x: Array, keys: Array, spans: Sequence[Span], head_mask: Array,
        tap: Tap = ...,
    ) -> Array: ...  # fmt: skip
    def feed_forward(
        self, w: FeedForward, function: Function, x: Array, tap: Tap = ...
    ) -> Array: ...


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a pass is run: in which verbs, with which functions, and who listens."""

    ops: Operations
    activation: Function
    pooler: Function
    tap: Tap = no_tap
    untapped_prefixes: Collection[str] = ()  # below which the tap hears nothing

    def with_prefix(self, prefix: str) -> "Run":
        """Return the same run, whose tap hears names below a prefix."""
        tap = self.tap
        if tap is no_tap:
            return self
        if prefix in self.untapped_prefixes:
            return replace(self, tap=no_tap)
        return replace(self, tap=lambda name, x: tap(f"{prefix}.{name}", x))


class Block(NamedTuple):
    """The weights of one transformer block, under the checkpoint's own names."""

    attention: Attention
    sa_layer_norm: Norm
    ffn: FeedForward
    output_layer_norm: Norm


class Encoder(NamedTuple):
    """The weights below every head."""

    word_embeddings: Array  # (V, D)
    position_embeddings: Array  # (P, D)
    layer_norm: Norm
    blocks: tuple[Block, ...]
    token_type_embeddings: Array | None = None  # (Y, D), BERT's


class Pack(NamedTuple):
    """Sequences side by side: which columns are whose, and which tokens may be heard."""

    ids: Ids  # (T,)
    position_ids: Ids  # (T,)
    token_type_ids: Ids  # (T,)
    spans: Sequence[slice]  # the columns of each sequence
    key_masks: Sequence[NDArray[np.bool]]  # (L, 1) of each, or (1, 1): False hides a token
    wanted: Ids | None = None  # the columns that the head will read; None: all
    wanted_spans: Sequence[slice] = ()  # which of the wanted columns are whose

    def spans_of(self, columns: Sequence[slice]) -> list[Span]:
        """Return who asks whom, where each sequence asks with these columns."""
        return [Span(*each) for each in zip(columns, self.spans, self.key_masks, strict=True)]


def embed(weights: Encoder, pack: Pack, run: Run) -> Array:
    """A token is its word plus its place, and in BERT its type, normed.  (D, T)"""
    words = run.tap("word_embeddings", weights.word_embeddings[pack.ids].T)
    places = run.tap("position_embeddings", weights.position_embeddings[pack.position_ids].T)
    if weights.token_type_embeddings is not None:
        types = weights.token_type_embeddings[pack.token_type_ids].T
        words = words + run.tap("token_type_embeddings", types)
    x = run.ops.add_norm(weights.layer_norm, words, places, run.tap, "sum")
    return run.tap("dropout", run.tap("LayerNorm", x))


def transformer_block(
    block: Block, x: Array, keys: Array, spans: Sequence[Span], head_mask: Array, run: Run
) -> Array:
    """x <- norm(x + attention(x)), then x <- norm(x + ffn(x)).

    x : (D, T), the tokens that ask;  keys : (D, T'), the tokens that are asked: the same, but for
    the last block;  head_mask : (H, 1, 1)  ->  (D, T)
    """
    ops, tap, within = run.ops, run.tap, run.with_prefix
    y = ops.self_attention(block.attention, x, keys, spans, head_mask, within("attention").tap)
    y = tap("attention_dropout", y)
    x = ops.add_norm(block.sa_layer_norm, x, y, tap, "attention_residual")
    x = tap("sa_layer_norm", x)
    y = ops.feed_forward(block.ffn, run.activation, x, within("ffn").tap)
    x = ops.add_norm(block.output_layer_norm, x, tap("ffn.dropout", y), tap, "ffn_residual")
    return tap("output_layer_norm", x)


def encode(weights: Encoder, pack: Pack, head_masks: Sequence[Array], run: Run) -> Array:
    """Ids to the last hidden state.

    head_masks : for each block (H, 1, 1)  ->  (D, T), or (D, wanted)
    """
    x = embed(weights, pack, run.with_prefix("embeddings"))
    spans = pack.spans_of(pack.spans)
    for i, (block, head_mask) in enumerate(zip(weights.blocks, head_masks, strict=True)):
        keys = x
        if pack.wanted is not None and i == len(weights.blocks) - 1:
            # What the head will not read need not ask; in earlier blocks it will yet be asked.
            x, spans = x[:, pack.wanted], pack.spans_of(pack.wanted_spans)
        of_block = run.with_prefix(f"transformer.layer.{i}")
        x = transformer_block(block, x, keys, spans, head_mask, of_block)
    return x
