"""A text as tokens: lists for an ordinary one, columns of numbers for a long one."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import Any, Final, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")

COLUMN_STEP: Final = 4096  # values that are Python's at a time
NO_WORD: Final = -1  # what a column of word numbers has for None


class NumberColumn(Sequence[Value]):
    """A list that holds its values as an array: 4 or 8 bytes each, where Python's take 40 to 180.

    Parameters
    ----------
    array : (n,) or (n, 2) int32 array
    convert : callable
        Makes a list of Python's values of some rows.
    """

    def __init__(
        self, array: NDArray[np.int32], convert: Callable[[NDArray[np.int32]], list[Value]]
    ) -> None:
        self.array = array
        self.convert = convert

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, i: int) -> Value: ...
    @overload
    def __getitem__(self, i: slice) -> list[Value]: ...
    def __getitem__(self, i: int | slice) -> Value | list[Value]:
        return self.convert(self.array[i]) if isinstance(i, slice) else self.convert(
            self.array[i, None]
        )[0]  # fmt: skip

    def __iter__(self) -> Iterator[Value]:
        for start in range(0, len(self), COLUMN_STEP):
            yield from self[start : start + COLUMN_STEP]


@dataclass(frozen=True)
class Encoding:
    """A text, or a pair, as the model reads it; all lists have one entry per token."""

    ids: Sequence[int]
    tokens: Sequence[str]
    offsets: Sequence[tuple[int, int]]  # characters of the text it comes from, [start, end)
    word_ids: Sequence[int | None]  # which word of the text; None for [CLS] and its like
    sequence_ids: Sequence[int | None]  # 0 the text, 1 its pair, None neither
    cut: int  # tokens that did not fit
    unread: int = 0  # tokens that nobody asked for, behind these or before them
    type_ids: Sequence[int] = ()  # as the template has them; none before it is applied

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, some: slice) -> "Encoding":
        """Return some of the tokens, which is no cut."""
        return Encoding(
            self.ids[some], self.tokens[some], self.offsets[some], self.word_ids[some],
            self.sequence_ids[some], 0,
        )  # fmt: skip


class TokenLists:
    """Encodings of several parts that become one."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.tokens: list[str] = []
        self.offsets: list[tuple[int, int]] = []
        self.word_ids: list[int | None] = []
        self.sequence_ids: list[int | None] = []
        self.type_ids: list[int] = []

    def extend(self, more: Encoding, source: int | None, kind: int = 0) -> None:
        """Add tokens that come from one source, of one token type."""
        self.ids.extend(more.ids)
        self.tokens.extend(more.tokens)
        self.offsets.extend(more.offsets)
        self.word_ids.extend(more.word_ids)
        self.sequence_ids.extend(repeat(source, len(more)))
        self.type_ids.extend(repeat(kind, len(more)))

    def encoding(self, cut: int = 0, unread: int = 0) -> Encoding:
        """Return what was added."""
        return Encoding(
            self.ids, self.tokens, self.offsets, self.word_ids, self.sequence_ids, cut, unread,
            self.type_ids,
        )  # fmt: skip


def encoding_of(found: Any) -> Encoding:
    """Return what the package found as lists, made once: it makes them anew whenever asked."""
    return Encoding(found.ids, found.tokens, found.offsets, found.word_ids, [0] * len(found), cut=0)


def extend_to_accents(text: str, offsets: list[tuple[int, int]]) -> None:
    """Let tokens end behind their accents, where these are characters of their own.

    An uncased tokenizer strips accents, and would end a token between a letter and its own.
    """
    if text.isascii() or not offsets:
        return
    beyond = [start for start, _ in offsets[1:]] + [len(text)]
    for i, ((start, end), limit) in enumerate(zip(offsets, beyond, strict=True)):
        accented = end
        while accented < limit and unicodedata.category(text[accented]) == "Mn":
            accented += 1
        if accented > end:
            offsets[i] = (start, accented)


def join_word_ids(
    word_ids: list[int | None], offsets: list[tuple[int, int]]
) -> list[int | None]:  # fmt: skip
    """Return word numbers in which tokens of the same characters are of the same word.

    A tokenizer may say something of a character in a token of its own, as that it is a capital.
    """
    if not any(start < end for (_, end), (start, _) in pairwise(offsets)):
        return word_ids
    apart = 0
    made: list[int | None] = []
    for i, (word, (start, _)) in enumerate(zip(word_ids, offsets, strict=True)):
        if i and word != word_ids[i - 1] and start < offsets[i - 1][1]:
            apart += 1
        made.append(None if word is None else word - apart)
    return made


def column_array(values: Sequence[Any]) -> NDArray[np.int32]:
    """Return ids, offsets or word numbers as an array; NO_WORD stands for None."""
    if isinstance(values, NumberColumn):
        return values.array
    return np.array([NO_WORD if value is None else value for value in values], np.int32)
