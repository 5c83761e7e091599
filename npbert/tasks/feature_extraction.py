"""feature-extraction: what the model makes of every token, a vector each."""

from dataclasses import replace
from typing import Any, NamedTuple

from npbert.errors import InputError
from npbert.model import Model
from npbert.tasks.options import FeatureOptions
from npbert.tasks.rows import TaskRow
from npbert.tasks.task import Answer, Reading, Task, unit_offsets
from npbert.text.encodings import Encoding
from npbert.textbook import Array


class TokenizedText(NamedTuple):
    """A text, or a pair of them, and its tokens."""

    texts: list[str | None]
    encoding: Encoding


class FeatureExtraction(Task[FeatureOptions, TokenizedText]):
    """Answers a list of numbers for every token, [CLS] and [SEP] too.

    With offsets it answers {"features", "tokens", "offsets"}; offsets count in the text that a
    token comes from, and are [0, 0] for special tokens.
    """

    def __init__(self, model: Model, options: FeatureOptions, row: TaskRow, **how: Any) -> None:
        self.whole = model
        self.others: dict[int, FeatureExtraction] = {}  # by how many blocks they compute
        encoder = model.encoder_only(blocks_below(model, options.layer))
        super().__init__(encoder, options, row, **how)

    def task_for(self, options: FeatureOptions) -> "FeatureExtraction":
        """Return the task that computes a hidden state, each once.  Raises InputError."""
        blocks = blocks_below(self.whole, options.layer)
        if blocks == blocks_below(self.whole, self.options.layer):
            return self
        if blocks not in self.others:
            how = {"threads": self.threads, "batch_invariant": self.batch_invariant}
            there = replace(self.options, layer=options.layer)
            self.others[blocks] = FeatureExtraction(self.whole, there, self.row, **how)
        return self.others[blocks]

    def read(self, item: Any, options: FeatureOptions) -> Reading[TokenizedText]:
        """Turn a text, or a pair of texts, into tokens.  Raises InputError."""
        texts = self.parts(item)
        text, pair = texts
        encoding = self.tokenizer.encode(text, pair, self.token_limit(options))
        cut = self.check_truncation([encoding], options)
        return Reading([self.list_of(encoding)], TokenizedText(texts, encoding), cut)

    def answer(
        self, reading: Reading[TokenizedText], values: list[Array], options: FeatureOptions
    ) -> list[list[float]] | Answer:
        """Turn hidden states, (tokens, D), into lists."""
        features: list[list[float]] = values[0].tolist()
        if not options.offsets:
            return features
        texts, encoding = reading.given
        units = [unit_offsets(text or "", options.offset_unit) for text in texts]
        offsets = [
            [0, 0] if source is None else [int(units[source][start]), int(units[source][end])]
            for source, (start, end) in zip(encoding.sequence_ids, encoding.offsets, strict=True)
        ]
        tokens = [self.tokenizer.token_of(i) for i in encoding.ids]
        return {"features": features, "tokens": tokens, "offsets": offsets}


def blocks_below(model: Model, layer: int) -> int:
    """Return how many blocks make hidden state number `layer`.  Raises InputError."""
    states = len(model.encoder.blocks) + 1
    if not -states <= layer < states:
        raise InputError(
            f"layer is {layer}, but the model has {states} hidden states, 0 to {states - 1} "
            f"(or -{states} to -1, from the last)"
        )
    return layer % states
