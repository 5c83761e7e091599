"""Text to ids and offsets, over the tokenizers package, without its surprises.

Texts are cut before [CLS] and [SEP] are added, so that a cut text still has them, and how much was
cut is told.  Offsets count characters of the text as it was given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Pieces

from npbert.checkpoint.drafts import Draft, replace_files, write_json
from npbert.errors import CheckpointError, InputError, quote
from npbert.text.added_tokens import SPECIALS, token_content
from npbert.text.encodings import (
    Encoding,
    TokenLists,
    encoding_of,
    extend_to_accents,
    join_word_ids,
)
from npbert.text.long_texts import (
    PART,
    Cuts,
    TextPart,
    join_parts,
    shorten_words,
    split_text,
    split_words,
    text_cuts,
)
from npbert.text.tokenizer_files import (
    SETTINGS,
    blame_error,
    blame_file,
    normalizer_choices,
    read_settings,
    read_vocabulary,
)

# What a decoded text has, and what it says instead, as in transformers: in this order.
SPACED_SIGNS: Final = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"),
    (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


class Tokenizer:
    """A WordPiece tokenizer and the special tokens that a DistilBERT was trained with."""

    def __init__(
        self,
        pieces: Pieces,
        settings: Mapping[str, Any],
        max_length: int,
        path: Path,
    ) -> None:
        self.pieces = pieces
        self.path = path  # of the file to blame; a panic may wait in it for a certain text
        self.settings = settings
        self.max_length = max_length  # tokens, [CLS] and [SEP] included
        self.added_texts: dict[int, str] | None = None  # when somebody has asked
        self.ids_in_order: NDArray[np.intp] | None = None  # the same
        pieces.no_truncation()
        pieces.no_padding()
        self.templates = [self.template(1), self.template(2)]
        # Then "[MASK]" in a text is read as its characters.
        pieces.encode_special_tokens = settings.get("split_special_tokens") is True
        self.cuts: Cuts | None = None
        self.cuts_known = False  # until a text is long

    @classmethod
    def from_folder(
        cls, folder: Path, max_positions: int, changes: Mapping[str, Any] = MappingProxyType({})
    ) -> Self | None:
        """Read tokenizer.json, or vocab.txt; return None where there is neither.

        `changes` override the settings.  Raises CheckpointError naming the file at fault.
        """
        settings = read_settings(folder, changes)
        found = read_vocabulary(folder, settings)
        if found is None:
            return None
        path, pieces = found
        # 1e30 means that nobody said; max_len is the name of 2019.
        limit = settings.get("model_max_length") or settings.get("max_len")
        with blame_file(path):
            longest = min(int(limit or max_positions), max_positions)
            return cls(pieces, settings, longest, path)

    def id_of(self, role: str) -> int | None:
        """Return the id of a special token by its role, e.g. "mask_token", or None."""
        return self.pieces.token_to_id(self.token_text(role))

    @property
    def reads_types(self) -> bool:
        """Whether the model is told of token types; settings may leave them out of its inputs."""
        names = self.settings.get("model_input_names")
        return not isinstance(names, list) or "token_type_ids" in names

    @property
    def cuts_left(self) -> bool:
        """Whether the beginning of a text is cut, and not its end."""
        return self.settings.get("truncation_side") == "left"

    @property
    def cleans_up(self) -> bool:
        """Whether a decoded text loses its spaces before signs, as of old it always does."""
        said = self.settings.get("clean_up_tokenization_spaces")
        return said is True or (said is None and self.path.suffix == ".txt")

    @property
    def known_ids(self) -> NDArray[np.intp]:
        """The ids that have a token, in order."""
        # No cached_property: Python 3.11's has a lock, which a fork may copy while it is held.
        if self.ids_in_order is None:
            self.ids_in_order = np.array(sorted(self.pieces.get_vocab().values()))
        return self.ids_in_order

    def settings_in_effect(self) -> dict[str, Any]:
        """Return what tokenizer_config.json should say, its silent choices said aloud."""
        cleans_up = {"clean_up_tokenization_spaces": True} if self.cleans_up else {}
        return {**self.settings, **normalizer_choices(self.pieces), **cleans_up}

    def token_text(self, role: str) -> str:
        """Return how a special token is written in a text, e.g. "[MASK]"."""
        return token_content(self.settings.get(role), SPECIALS[role])

    def encode(
        self, text: str, pair: str | None = None, max_length: int | None = None, *,
        cut: Literal["longest", "first"] = "longest",
    ) -> Encoding:  # fmt: skip
        """Return a text, or a text and its pair, as tokens, at most `max_length` of them.

        What does not fit is cut from the end of the text, or of the longer of the two, or of the
        first in any case (from the start where the settings say truncation_side left), before
        [CLS] and [SEP] are added.  Raises InputError for what is no valid text.
        """
        parts = [
            self.tokenize_used(part, max_length)
            for part in ([text] if pair is None else [text, pair])
        ]
        return self.fit(parts, max_length, cut=cut)

    def tokenize_used(self, text: str, max_length: int | None = None) -> Encoding:
        """Return as many tokens of a text as encode and fit can use; the others are counted."""
        return self.tokenize(text, self.limit(max_length), last=self.cuts_left)

    def tokenize(self, text: str, most: int | None = None, *, last: bool = False) -> Encoding:
        """Return the tokens of a text, without [CLS] and [SEP].  Raises InputError.

        Of a long text they are at least the first `most`, or the last; the others are counted.
        """
        check_text(text)
        if len(text) > PART and not self.cuts_known:
            self.cuts, self.cuts_known = text_cuts(self.pieces), True
        if len(text) <= PART or self.cuts is None:
            return self.tokenize_part(text, self.find_tokens(text))
        parts = (self.text_part(*each) for each in split_text(text, self.cuts.places))
        return join_parts(parts, most, last=last, token_of=self.token_of)

    def find_tokens(self, text: str | Sequence[str]) -> Any:
        """Return what the package makes of a text, or of words."""
        words = not isinstance(text, str)
        try:  # which costs nothing; a context manager would
            return self.pieces.encode(text, is_pretokenized=words, add_special_tokens=False)
        except BaseException as error:
            raise blame_error(error, self.path) from None

    def tokenize_part(self, text: str, found: Any) -> Encoding:
        """Return what was found in a text as lists."""
        made = encoding_of(found)
        offsets, word_ids = made.offsets, made.word_ids
        assert isinstance(offsets, list)
        assert isinstance(word_ids, list)
        extend_to_accents(text, offsets)
        word_ids[:] = join_word_ids(word_ids, offsets)
        return made

    def text_part(self, start: int, text: str) -> TextPart:
        """Return a part of a long text, of which lists are made only if they are wanted."""
        kept, place_of = shorten_words(text, self.cuts.letters if self.cuts else None)
        found = self.find_tokens(kept)

        def encode() -> Encoding:
            made = self.tokenize_part(kept, found)
            return replace(made, offsets=[(place_of(a), place_of(b)) for a, b in made.offsets])

        return TextPart(start, len(found), encode)

    def token_of(self, number: int) -> str:
        """Return how the token of an id is written in the files."""
        if self.added_texts is None:  # some releases of the package give them normalised
            added = self.pieces.get_added_tokens_decoder()
            self.added_texts = {i: token.content for i, token in added.items()}
        return self.added_texts.get(number) or self.pieces.id_to_token(number) or ""

    def tokenize_words(self, words: Sequence[str]) -> Encoding:
        """Return all tokens of words; offsets count in the words joined by spaces."""
        for word in words:
            check_text(word)
        if sum(map(len, words)) <= PART:
            return self.part_of_words(0, words).encode()
        parts = (self.part_of_words(start, some) for start, some in split_words(words))
        return join_parts(parts, None, last=False, token_of=self.token_of)

    def part_of_words(self, first: int, words: Sequence[str]) -> TextPart:
        """Return some words as a part; each is looked at by itself, whatever the tokenizer."""
        found = self.find_tokens(words)

        def encode() -> Encoding:
            made = encoding_of(found)
            starts = list(accumulate((len(word) + 1 for word in words), initial=0))
            offsets = [
                (start + starts[word or 0], end + starts[word or 0])
                for word, (start, end) in zip(made.word_ids, made.offsets, strict=True)
            ]
            extend_to_accents(" ".join(words), offsets)
            return replace(made, offsets=offsets)

        return TextPart(first, len(found), encode, len(words))

    def fit(
        self, parts: Sequence[Encoding], max_length: int | None = None, *,
        cut: Literal["longest", "first"] = "longest",
    ) -> Encoding:  # fmt: skip
        """Put one text's tokens, or two, between [CLS] and [SEP], cut as encode does."""
        room = self.room(len(parts), max_length)
        lengths = [len(part) + part.unread for part in parts]
        if room < len(parts):
            raise InputError(
                f"max_length is {self.limit(max_length)}, which leaves no room for text beside "
                "the special tokens"
            )
        keep = share_room(lengths, room)
        if cut == "first":
            keep = [room - sum(lengths[1:]), *lengths[1:]]
            if keep[0] < min(1, lengths[0]):
                raise InputError(
                    f"the second text has {lengths[1]} tokens, which leaves no room for the first: "
                    f"the model reads {self.limit(max_length)}"
                )
        kept = [
            part[slice(max(0, len(part) - k), len(part)) if self.cuts_left else slice(k)]
            for part, k in zip(parts, keep, strict=True)
        ]
        return self.add_special_tokens(kept, cut=max(0, sum(lengths) - room))

    def add_special_tokens(self, parts: Sequence[Encoding], cut: int = 0) -> Encoding:
        """Put one text's tokens, or two, between [CLS] and [SEP], whole; so many were cut."""
        made = TokenLists()
        for source, kind, (special, written) in self.templates[len(parts) - 1]:
            if source is None:
                made.extend(Encoding([special], [written], [(0, 0)], [None], [None], 0), None, kind)
            else:
                made.extend(parts[source], source, kind)
        if not made.ids:
            raise InputError("the text has no token, and the model adds none")
        return made.encoding(cut)

    def encode_ids(self, ids: Sequence[int], max_length: int | None = None) -> Encoding:
        """Return the ids of a text's tokens as encode does; [CLS] and [SEP] may be there already.

        Raises InputError.
        """
        sources = [source for source, _, _ in self.templates[0]]
        special = [token for _, _, (token, _) in self.templates[0]]
        first = sources.index(0)
        before, after = special[:first], special[first + 1 :]
        bare = list(ids)
        if bare[:first] == before and bare[len(bare) - len(after) :] == after:
            bare = bare[first : len(bare) - len(after)]
        n = len(bare)
        part = Encoding(bare, [""] * n, [(0, 0)] * n, [None] * n, [0] * n, 0)
        return self.fit([part], max_length)

    def limit(self, max_length: int | None = None) -> int:
        """Return how many tokens are read, [CLS] and [SEP] included."""
        return self.max_length if max_length is None else min(max_length, self.max_length)

    def room(self, texts: int, max_length: int | None = None) -> int:
        """Return how many tokens of one text, or two, fit between [CLS] and [SEP]."""
        specials = sum(source is None for source, _, _ in self.templates[texts - 1])
        return self.limit(max_length) - specials

    def template(self, texts: int) -> list[tuple[int | None, int, tuple[int, str]]]:
        """Return what stands around one text or two: which text, or None; its type; its token.

        The package would put texts into their template itself, but after a cut it also pairs
        every leftover of one text with every leftover of the other: quadratic in their lengths.
        """
        unknown = self.token_text("unk_token")
        if self.pieces.token_to_id(unknown) is None:  # settings are silent, and it has another
            added = self.pieces.get_added_tokens_decoder().values()
            unknown = next((token.content for token in added), unknown)
        whole = self.pieces.encode(unknown, unknown if texts == 2 else None)
        types = whole.type_ids if self.reads_types else [0] * len(whole.ids)
        tokens = zip(whole.ids, whole.tokens, strict=True)
        slots = list(zip(whole.sequence_ids, types, tokens, strict=True))
        if [source for source, _, _ in slots if source is not None] != list(range(texts)):
            raise CheckpointError(f"{unknown} is no token of its own, as every tokenizer needs one")
        return slots

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text that ids spell, pieces joined to words."""
        with blame_file(self.path):
            text = self.pieces.decode(list(ids), skip_special_tokens=skip_special)
        for apart, together in SPACED_SIGNS if self.cleans_up else ():
            text = text.replace(apart, together)
        return text

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, and the settings beside it, into a folder, both or none."""
        with replace_files(folder) as draft:
            self.write_drafts(draft, folder)

    def write_drafts(self, draft: Draft, folder: Path) -> None:
        """Write the same as drafts, which others' files may join.  Raises OSError."""
        with draft(folder / "tokenizer.json") as file:
            file.write(self.pieces.to_str(pretty=True).encode())
        with draft(folder / SETTINGS) as file:
            write_json(file, self.settings_in_effect())


def check_text(text: Any) -> None:
    """Refuse what is no text.  Raises InputError."""
    if not isinstance(text, str):
        raise InputError(f"a text is a str, not {type(text).__name__}: {quote(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text has half a character, {text[error.start]!a}, at position {error.start}; "
            "it was decoded from broken UTF-16 or with surrogateescape"
        ) from None


def share_room(lengths: list[int], room: int) -> list[int]:
    """Return how many tokens each part keeps: the longer one loses first, as in transformers."""
    if sum(lengths) <= room or len(lengths) == 1:
        return [min(n, room) for n in lengths]
    shorter = min(*lengths, room // 2)
    first = shorter if lengths[0] <= lengths[1] else room - shorter
    return [min(first, lengths[0]), min(room - first, lengths[1])]
