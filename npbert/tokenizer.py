"""Text to ids and offsets, over the tokenizers package, without its surprises.

Texts are cut before [CLS] and [SEP] are added, so that a cut text still has them, and how much was
cut is told.  Offsets count characters of the text as it was given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken
from tokenizers import Tokenizer as Pieces

from npbert.errors import CheckpointError, InputError, shown
from npbert.vocabulary import SPECIALS, blaming, choices, content, read_settings, read_vocabulary


@dataclass(frozen=True)
class Encoding:
    """A text, or a pair, as the model reads it; all lists have one entry per token."""

    ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]  # characters of the text it comes from, [start, end)
    word_ids: list[int | None]  # which word of the text; None for [CLS] and its like
    sequence_ids: list[int | None]  # 0 the text, 1 its pair, None neither
    cut: int  # tokens that did not fit

    def extend(
        self, ids: list[int], tokens: list[str], offsets: list[tuple[int, int]],
        word_ids: list[int | None], source: int | None,
    ) -> None:  # fmt: skip
        """Add tokens that come from one source."""
        self.ids.extend(ids)
        self.tokens.extend(tokens)
        self.offsets.extend(offsets)
        self.word_ids.extend(word_ids)
        self.sequence_ids.extend(repeat(source, len(ids)))


class Tokenizer:
    """A WordPiece tokenizer and the special tokens that a DistilBERT was trained with."""

    def __init__(self, pieces: Pieces, settings: Mapping[str, Any], max_length: int) -> None:
        self.pieces = pieces
        self.settings = settings
        self.max_length = max_length  # tokens, [CLS] and [SEP] included
        pieces.no_truncation()
        pieces.no_padding()
        also = settings.get("additional_special_tokens") or []
        for text in [*map(self.text_of, SPECIALS), *(content(token, "") for token in also)]:
            if pieces.token_to_id(text) is not None:  # so that "[MASK]" in a text is one token
                pieces.add_special_tokens([AddedToken(text, special=True, normalized=False)])
        self.templates = [self.template(1), self.template(2)]

    @classmethod
    def from_folder(cls, folder: Path, max_positions: int) -> Self | None:
        """Read tokenizer.json, or vocab.txt; return None where there is neither.

        Raises CheckpointError naming the file at fault.
        """
        settings = read_settings(folder)
        found = read_vocabulary(folder, settings)
        if found is None:
            return None
        path, pieces = found
        limit = settings.get("model_max_length")  # 1e30 means that nobody said
        with blaming(path):
            return cls(pieces, settings, min(int(limit or max_positions), max_positions))

    def id_of(self, role: str) -> int | None:
        """Return the id of a special token by its role, e.g. "mask_token", or None."""
        return self.pieces.token_to_id(self.text_of(role))

    @cached_property
    def known(self) -> NDArray[np.intp]:
        """The ids that have a token, in order."""
        return np.array(sorted(self.pieces.get_vocab().values()))

    def settings_in_effect(self) -> dict[str, Any]:
        """Return what tokenizer_config.json should say, its silent choices said aloud."""
        return {**self.settings, **choices(self.pieces)}

    def text_of(self, role: str) -> str:
        """Return how a special token is written in a text, e.g. "[MASK]"."""
        return content(self.settings.get(role), SPECIALS[role])

    def encode(self, text: str, pair: str | None = None, max_length: int | None = None) -> Encoding:
        """Return a text, or a text and its pair, as tokens, at most `max_length` of them.

        What does not fit is cut from the end of the text, or of the longer of the two (from
        the start where the settings say truncation_side left), before [CLS] and [SEP] are added.
        Raises InputError for what is no valid text.
        """
        given = [text] if pair is None else [text, pair]
        for part in given:
            valid(part)
        parts = [self.pieces.encode(part, add_special_tokens=False) for part in given]
        template = self.templates[len(parts) - 1]
        limit = self.max_length if max_length is None else min(max_length, self.max_length)
        room = limit - sum(source is None for source, _ in template)
        if room < len(parts):
            raise InputError(
                f"max_length is {limit}, which leaves no room for text beside the special tokens"
            )
        lengths = [len(part) for part in parts]
        left = self.settings.get("truncation_side") == "left"
        kept = [
            slice(n - keep, n) if left else slice(keep)
            for keep, n in zip(share(lengths, room), lengths, strict=True)
        ]
        made = Encoding([], [], [], [], [], max(0, sum(lengths) - room))
        for source, (special, written) in template:
            if source is None:
                made.extend([special], [written], [(0, 0)], [None], None)
            else:
                of, s = parts[source], kept[source]
                made.extend(of.ids[s], of.tokens[s], of.offsets[s], of.word_ids[s], source)
        if not made.ids:
            raise InputError("the text has no token, and the model adds none")
        return made

    def template(self, texts: int) -> list[tuple[int | None, tuple[int, str]]]:
        """Return what stands around one text or two: which text, or None and a special token.

        The package would put texts into their template itself, but after a cut it also pairs
        every leftover of one text with every leftover of the other: quadratic in their lengths.
        """
        unknown = self.text_of("unk_token")
        whole = self.pieces.encode(unknown, unknown if texts == 2 else None)
        slots = list(
            zip(whole.sequence_ids, zip(whole.ids, whole.tokens, strict=True), strict=True)
        )
        if [source for source, _ in slots if source is not None] != list(range(texts)):
            raise CheckpointError(f"{unknown} is no token of its own, as every tokenizer needs one")
        return slots

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text that ids spell, pieces joined to words."""
        return self.pieces.decode(list(ids), skip_special_tokens=skip_special)

    def save(self, path: Path) -> None:
        """Write what tokenizer.json holds; the settings beside it are JSON as they are."""
        self.pieces.save(str(path))


def valid(text: Any) -> None:
    """Refuse what is no text.  Raises InputError."""
    if not isinstance(text, str):
        raise InputError(f"a text is a str, not {type(text).__name__}: {shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text has half a character, {text[error.start]!a}, at position {error.start}; "
            "it was decoded from broken UTF-16 or with surrogateescape"
        ) from None


def share(lengths: list[int], room: int) -> list[int]:
    """Return how many tokens each part keeps: the longer one loses first, as in transformers."""
    if sum(lengths) <= room or len(lengths) == 1:
        return [min(n, room) for n in lengths]
    shorter = min(*lengths, room // 2)
    first = shorter if lengths[0] <= lengths[1] else room - shorter
    return [min(first, lengths[0]), min(room - first, lengths[1])]
