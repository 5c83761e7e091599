"""A long text is tokenised in parts, as the tokenizers package takes 150 times a text's memory.

A part ends where neither a word nor an added token nor an accent goes on, so that the tokens are
those of the whole text.  Where a tokenizer may look further than that, a text stays whole.
"""

import json
import re
import unicodedata
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from npbert.text.encodings import NO_WORD, Encoding, NumberColumn, TokenLists, column_array
from npbert.text.growth import list_steps, value_at

PART: Final = 32_768  # characters of a part, at least
# Characters that end a word wherever they stand: white space, and punctuation that is no letter.
WORD_ENDS: Final = " \n\t\r!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~"
IDEOGRAPHS: Final = "\u3400-\u4dbf\u4e00-\u9fff"  # which BERT makes words of their own
HAN: Final = "\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # and what is near
# Of a replacement, what sees no further than a letter and whether a word begins with it.
NARROW_REGEX: Final = re.compile(r"(?:\\b)?[^\W_]")


class Cuts(NamedTuple):
    """What may be done to a long text that changes none of its tokens."""

    places: re.Pattern[str]  # characters behind which it may be cut
    letters: re.Pattern[str] | None  # what is in one word, too long for the model to know it


class TextPart(NamedTuple):
    """One part of a long text, as the package tokenised it."""

    start: int  # of its first character
    size: int  # in tokens
    encode: Callable[[], Encoding]  # makes lists of them, with offsets in the part
    words: int | None = None  # as many as its tokens tell


def text_cuts(pieces: Tokenizer) -> Cuts | None:
    """Return how a text may be cut, or None if that is not known.

    It is known of BERT's way to split, with BERT's normalizer and with replacements of letters.
    """
    added = pieces.get_added_tokens_decoder().values()
    if (
        not isinstance(pieces.model, models.WordPiece)
        or not isinstance(pieces.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        or any(token.lstrip or token.rstrip or token.single_word for token in added)
    ):
        return None
    normalizer: Any = pieces.normalizer
    steps = [] if normalizer is None else json.loads(normalizer.__getstate__())
    for step in list_steps(steps, "normalizers"):
        taken, regex = (value_at(step, "pattern", kind) for kind in ("String", "Regex"))
        letters = (taken and taken.isalnum()) or (regex and NARROW_REGEX.fullmatch(regex))
        if step.get("type") != "BertNormalizer" and not (step.get("type") == "Replace" and letters):
            return None
    # Behind its last character an added token is whole.
    held = {character for token in added for character in token.content[:-1]}
    ends = "".join(re.escape(end) for end in WORD_ENDS if end not in held)
    bert = isinstance(normalizer, normalizers.BertNormalizer)
    # Behind an ideograph a word begins to BERT's normalizer, but to no replacement.
    if bert and normalizer.handle_chinese_chars and not held & set(map(chr, range(0x3400, 0xA000))):
        ends += IDEOGRAPHS
    places = re.compile(f"[{ends}]")
    if not bert or any(token.content.isalnum() for token in added):
        return Cuts(places, None)
    kept = 1 + pieces.model.max_input_chars_per_word
    return Cuts(
        places, re.compile(rf"(?<=[^\W_{HAN}]{{{kept}}})[^\W_{HAN}]{{{PART},}}(?=[^\W_{HAN}])")
    )


def split_text(text: str, places: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Yield where each part of a text starts, and the part."""
    start = 0
    while start < len(text):
        end = start + PART
        while end < len(text):
            found = places.search(text, end)
            end = found.end() if found else len(text)
            if end == len(text) or unicodedata.category(text[end])[0] != "M":
                break
        yield start, text[start:end]
        start = end


def shorten_words(text: str, letters: re.Pattern[str] | None) -> tuple[str, Callable[[int], int]]:
    """Return a text without the middle of words that the model cannot know, and where it was.

    Such a word is one unknown token, however long it is; a normalizer would make three letters of
    each of Korean.  Each letter that stays, and each behind, is found again by its place.
    """
    found = [m.span() for m in letters.finditer(text)] if letters and len(text) > 2 * PART else []
    if not found:
        return text, lambda place: place
    gone = [0, *accumulate(end - start for start, end in found)]
    starts = [start - before for (start, _), before in zip(found, gone, strict=False)]
    edges = [0, *(edge for span in found for edge in span), len(text)]
    kept = "".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))
    return kept, lambda place: place + gone[bisect_left(starts, place)]


def split_words(words: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield words in parts, and where the first of each starts in all, joined by spaces."""
    first = start = size = 0
    for i, word in enumerate(words):
        size += len(word) + 1
        if size > PART or i == len(words) - 1:
            yield start, words[first : i + 1]
            first, start, size = i + 1, start + size, 0


def join_parts(
    parts: Iterator[TextPart], most: int | None, *, last: bool, token_of: Callable[[int], str]
) -> Encoding:
    """Return the tokens of all parts, or the first or the last `most`; others are counted."""
    if most is None:
        return join_columns(parts, token_of)
    held: deque[TextPart] = deque()
    kept = unread = 0
    for part in parts:
        if last or kept < most:
            held.append(part)
            kept += part.size
        else:
            unread += part.size
        while last and held and kept - held[0].size >= most:
            kept -= held[0].size
            unread += held.popleft().size
    made, words = TokenLists(), 0
    for part in held:
        given = place_encoding(part, words)
        made.extend(given, 0)
        words = max(words, 1 + int(column_array(given.word_ids).max(initial=NO_WORD)))
    return made.encoding(unread=unread)


def place_encoding(part: TextPart, words: int) -> Encoding:
    """Return a part's tokens as they are counted in the whole text, behind so many words."""
    given = part.encode()
    return Encoding(
        given.ids,
        given.tokens,
        [(start + part.start, end + part.start) for start, end in given.offsets],
        [None if word is None else word + words for word in given.word_ids],
        given.sequence_ids,
        0,
    )


def join_columns(parts: Iterator[TextPart], token_of: Callable[[int], str]) -> Encoding:
    """Return the tokens of all parts in little memory."""
    ids, offsets, words = [], [], []
    seen = 0  # words of the parts before
    for part in parts:
        given = place_encoding(part, seen)
        ids.append(np.array(given.ids, np.int32))
        offsets.append(np.array(given.offsets, np.int32).reshape(-1, 2))
        words.append(column_array(given.word_ids))
        own = part.words
        seen = seen + own if own else max(seen, 1 + int(words[-1].max(initial=NO_WORD)))
    all_ids = np.concatenate(ids)
    return Encoding(
        NumberColumn(all_ids, np.ndarray.tolist),
        NumberColumn(all_ids, lambda some: [token_of(i) for i in some.tolist()]),
        NumberColumn(np.concatenate(offsets), lambda some: [(a, b) for a, b in some.tolist()]),
        NumberColumn(
            np.concatenate(words), lambda some: [None if w < 0 else w for w in some.tolist()]
        ),
        NumberColumn(np.zeros(len(all_ids), np.int32), np.ndarray.tolist),
        0,
    )
