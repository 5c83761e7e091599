"""token-classification: which words name a person, a place, a date?

A text longer than a window is read in windows that overlap.  Every token is scored once: in the
overlap of two windows the first half is the first one's, so that a token has text on both sides.
"""

from collections.abc import Collection, Iterator, Mapping
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.errors import InputError, listing
from npbert.model import Model
from npbert.tasks.containers import input_parts, list_of_texts
from npbert.tasks.options import TokenClassificationOptions
from npbert.tasks.rows import TaskRow
from npbert.tasks.task import (
    Answer,
    Reading,
    Task,
    TokenList,
    probabilities,
    split_into_chunks,
    unit_offsets,
)
from npbert.text.encodings import Encoding
from npbert.textbook import Array

OUTSIDE = "O"  # the label of what belongs to no entity
BEGINNINGS = ("B", "S", "U")  # the first token of several, a single one (BIOES), a unit (BILOU)
SCORES_STEP = 16_384  # tokens
ENDINGS = ("E", "L", "S", "U")  # the last token of several, in either scheme


class Tag(NamedTuple):
    """A label, taken apart: "B-DATE-TIME" begins a "DATE-TIME"."""

    kind: str
    begins: bool = False
    ends: bool = False
    is_entity: bool = False  # although its kind is called as what is none

    @property
    def outside(self) -> bool:
        """Whether this is no entity: the label is O, as it is."""
        return self.kind == OUTSIDE and not self.is_entity

    def is_ignored(self, names: Collection[str], label: str | None = None) -> bool:
        """Tell whether one of some names is the label, or its kind; "O" is no kind's."""
        return label in names or (self.kind in names and not self.is_entity)


class Sentence(NamedTuple):
    """A text, and all of its tokens."""

    text: str
    tokens: Encoding


class Part(NamedTuple):
    """Tokens that are judged as one: a word, or a single token."""

    start: int  # characters
    end: int
    label: int
    score: float


class Scores:
    """The chances of every token's classes, in float64, made for some thousands at a time."""

    def __init__(self, logits: Array) -> None:
        self.logits = logits
        self.start = self.stop = 0
        self.made = probabilities(logits[:0])

    def __getitem__(self, some: slice) -> Array:
        """Return those of some neighbours; they are asked for in order."""
        start, stop = some.start, some.stop
        if stop > self.stop or start < self.start:
            self.start, self.stop = start, max(stop, start + SCORES_STEP)
            self.made = probabilities(self.logits[self.start : self.stop])
        return self.made[start - self.start : stop - self.start]


class TokenClassification(Task[TokenClassificationOptions, Sentence]):
    """Answers a list of {"entity_group", "score", "word", "start", "end"}, in their order.

    `word` is what stands in the text between start and end.  With aggregation_strategy none it
    answers a token each, {"entity", "score", "index", "word", "start", "end"}: its label as it is,
    its number counting from [CLS], and the piece of a word that it is.
    """

    def __init__(
        self, model: Model, options: TokenClassificationOptions, row: TaskRow, **how: Any
    ) -> None:
        self.labels = [model.config.label(i) for i in range(model.config.num_labels)]
        self.tags = parse_labels(self.labels)
        super().__init__(model, options, row, **how)

    def prepare_options(self, options: TokenClassificationOptions) -> TokenClassificationOptions:
        """Refuse to ignore what is never told; "O" may always be ignored."""
        known = {tag.kind for tag in self.tags} | {OUTSIDE}
        if options.aggregation_strategy == "none":
            known |= set(self.labels)
        if unknown := [name for name in options.ignore_labels if name not in known]:
            raise InputError(
                f"ignore_labels has {unknown[0]!r}, but with aggregation_strategy "
                f"{options.aggregation_strategy!r} there are {listing(sorted(known))}"
            )
        return options

    def read(self, item: Any, options: TokenClassificationOptions) -> Reading[Sentence]:
        """Turn a text, or {"words": [...]}, into windows of tokens.  Raises InputError."""
        if isinstance(item, Mapping) and "words" in item:  # whatever the text was, before
            given, _ = input_parts(item, ("words", "text"), 1)
            words = [] if given in ([], ()) else list_of_texts("words", given, "str")
            tokens = self.tokenizer.tokenize_words(words)
            text = " ".join(words)
        else:
            (text,) = self.parts(item)
            tokens = self.tokenizer.tokenize(text)
        room = self.tokenizer.room(1, options.max_length)
        if room < 1 and len(tokens):
            raise InputError(
                f"max_length is {options.max_length}, which leaves no room for text beside the "
                "special tokens"
            )
        shared = room // 4 if options.stride is None else options.stride
        spans = split_into_chunks(len(tokens), room, shared)
        owned = slices_to_score(spans)
        lists = (self.window(tokens, *each) for each in zip(spans, owned, strict=True))
        return Reading(lists, Sentence(text, tokens))

    def window(self, tokens: Encoding, window: slice, owned: slice) -> TokenList:
        """Return a window's ids, and the positions of the tokens that it scores."""
        encoding = self.tokenizer.add_special_tokens([tokens[window]])
        own = [i for i, source in enumerate(encoding.sequence_ids) if source is not None]
        return self.list_of(encoding, own[owned.start - window.start : owned.stop - window.start])

    def answer(
        self, reading: Reading[Sentence], values: list[Array], options: TokenClassificationOptions
    ) -> list[Answer]:
        """Turn the logits of all tokens, (tokens, classes) a window, into entities."""
        (text, tokens), scores = reading.given, Scores(np.concatenate(values))
        unit = unit_offsets(text, options.offset_unit)
        if options.aggregation_strategy == "none":
            return list(self.token_entities(tokens, scores, unit, options))
        told = []
        for kind, some in group_entities(
            word_labels(tokens, scores, options.aggregation_strategy), self.tags
        ):
            start, end = some[0].start, some[-1].end
            if not self.tags[some[-1].label].is_ignored(options.ignore_labels):
                told.append(
                    {
                        "entity_group": kind,
                        "score": float(np.mean([part.score for part in some])),
                        "word": text[start:end],
                        "start": int(unit[start]),
                        "end": int(unit[end]),
                    }
                )
        return told

    def token_entities(
        self, tokens: Encoding, scores: Scores, unit: NDArray[np.intp],
        options: TokenClassificationOptions,
    ) -> Iterator[Answer]:  # fmt: skip
        """Yield every token whose label is not to be ignored."""
        sources = self.tokenizer.add_special_tokens([tokens[:1]]).sequence_ids
        for i in range(len(tokens)):
            (own,) = scores[i : i + 1]
            label = int(own.argmax())
            name = self.labels[label]
            if not self.tags[label].is_ignored(options.ignore_labels, name):
                start, end = tokens.offsets[i]
                yield {
                    "entity": name,
                    "score": float(own[label]),
                    "index": sources.index(0) + i,
                    "word": self.tokenizer.token_of(tokens.ids[i]),
                    "start": int(unit[start]),
                    "end": int(unit[end]),
                }


def parse_labels(labels: list[str]) -> list[Tag]:
    """Take labels apart.

    B- and I- are always a scheme's, as in transformers; E-, L-, S-, U- are where the model has a
    B- or I- of the same kind, so that "E-MAIL" may be a kind of its own.  What stands behind is
    the kind, hyphens and all; a label without a prefix is one as it is: "b-per" and "B_PER" too.
    """
    named = set(labels)
    made = []
    for label in labels:
        prefix, _, kind = label.partition("-")
        known = prefix in ("B", "I") or (
            prefix in ENDINGS + BEGINNINGS and bool({f"B-{kind}", f"I-{kind}"} & named)
        )
        if known and kind:
            begins, ends = prefix in BEGINNINGS, prefix in ENDINGS
            made.append(Tag(kind, begins, ends, is_entity=kind == OUTSIDE))
        else:
            made.append(Tag(label))
    return made


def slices_to_score(spans: list[slice]) -> list[slice]:
    """Return which tokens each window scores: where two overlap, half of them each."""
    cuts = [(after.start + before.stop) // 2 for before, after in pairwise(spans)]
    edges = [spans[0].start, *cuts, spans[-1].stop] if spans else []
    return [slice(*edge) for edge in pairwise(edges)]


def word_labels(tokens: Encoding, scores: Scores | Array, strategy: str) -> Iterator[Part]:
    """Yield the words of a text, or with `simple` its tokens, each with its label."""
    words = range(len(tokens)) if strategy == "simple" else tokens.word_ids
    for _, group in groupby(range(len(tokens)), key=words.__getitem__):
        pieces = list(group)
        own = scores[pieces[0] : pieces[-1] + 1]
        chances = {
            "average": own.mean(0),
            "max": own[own.max(-1).argmax()],
        }.get(strategy, own[0])
        label = int(chances.argmax())
        start, end = tokens.offsets[pieces[0]][0], tokens.offsets[pieces[-1]][1]
        yield Part(start, end, label, float(chances[label]))


def group_entities(found: Iterator[Part], tags: list[Tag]) -> Iterator[tuple[str, list[Part]]]:
    """Yield runs of parts of one kind; a part that begins, or follows an end, starts a new one."""
    run: list[Part] = []
    for part in found:
        tag = tags[part.label]
        last = tags[run[-1].label] if run else None
        same = last is not None and (tag.kind, tag.outside) == (last.kind, last.outside)
        if last is not None and (not same or tag.begins or last.ends):
            yield last.kind, run
            run = []
        run.append(part)
    if run:
        yield tags[run[-1].label].kind, run
