"""A long text is tokenised in parts, and its tokens are those of the whole."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from words import CASED, UNCASED, folder, loaded

import npbert
from npbert.tasks import built_in_folder
from npbert.text import long_texts, tokenizer
from npbert.text.encodings import Encoding
from npbert.text.tokenizer import Tokenizer

# White space, accents before and after, marks alone, what is deleted, ideographs, signs, capitals.
HOSTILE = [
    *"abcABC xyz\t\n  ..,,!?--__", "\u00e9", "e\u0301", "\u0301", "\u0300\u0301", "\u200d",
    "\ufffd", "\x00", "\u00a0", "\u2028", "\u3000", "猫", "犬\u0301", "\ud55c\uad6d", "\uff21", "ß",
    "\u0130", "\U0001f600", "\U00020001", "\ufb01", "[MASK]", "[SEP]", "[", "]", "the", "film",
    "a" * 130,
    "\u05d0", "\u0915\u093f", "\u2014", "\u201c",
]  # fmt: skip


def text_of(rng: random.Random, pieces: int) -> str:
    return "".join(rng.choices(HOSTILE, k=pieces))


def all_of(encoding: Encoding) -> tuple[Any, ...]:
    return tuple(
        list(values)
        for values in (encoding.ids, encoding.tokens, encoding.offsets, encoding.word_ids,
                       encoding.sequence_ids)
    )  # fmt: skip


def in_parts(given: Tokenizer, text: Any, monkeypatch: pytest.MonkeyPatch, size: int) -> Any:
    """Return what becomes of a text if parts are as small as this."""
    with monkeypatch.context() as patched:
        for module in (long_texts, tokenizer):
            patched.setattr(module, "PART", size)
        read = given.tokenize if isinstance(text, str) else given.tokenize_words
        return read(text)


TOKENIZERS = {
    "uncased": lambda path: loaded(folder(path, vocabulary=UNCASED, lowercase=True)),
    "cased": lambda path: loaded(
        folder(path, vocabulary=CASED, lowercase=False, settings={"do_lower_case": False})
    ),
    "no Chinese": lambda path: loaded(
        folder(path, vocabulary=CASED, handle_chinese_chars=False,
               settings={"tokenize_chinese_chars": False, "do_lower_case": True})
    ),
    "marks capitals": lambda path: npbert.load(built_in_folder("ner")).tokenizer,
    "built in": lambda path: npbert.load(built_in_folder("sentiment")).tokenizer,
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("size", [1, 7, 40])
def test_the_parts_of_a_text_have_the_tokens_of_the_whole(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = TOKENIZERS[name](tmp_path)
    assert long_texts.text_cuts(given.pieces) is not None
    rng = random.Random(size)
    for _ in range(150):
        text = text_of(rng, rng.randint(1, 60))
        assert all_of(in_parts(given, text, monkeypatch, size)) == all_of(given.tokenize(text))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_parts_of_words_have_the_tokens_of_the_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = TOKENIZERS[name](tmp_path)
    rng = random.Random(5)
    for _ in range(100):
        some = [text_of(rng, rng.randint(0, 4)) for _ in range(rng.randint(1, 30))]
        assert all_of(in_parts(given, some, monkeypatch, 9)) == all_of(given.tokenize_words(some))


LONG_WORDS = [
    "a" * 500, "\ud55c" * 400, "x " + "\u00e9" * 300 + " y", "b" * 300 + "\u0301" * 3 + "c" * 300,
    "\u0301" + "d" * 260 + "猫" + "e" * 260, "f" * 240 + "_" + "g" * 240,
    "h" * 230 + "." + "i" * 230,
    ("j" * 220 + " ") * 3, "k" * 300 + "\u00ad" + "l" * 300, "film" * 100,
    "1" * 400 + "\u0130" * 200,
]  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", LONG_WORDS)
def test_a_word_too_long_to_be_known_is_the_same_token_without_its_middle(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = TOKENIZERS[name](tmp_path)
    assert all_of(in_parts(given, text, monkeypatch, 8)) == all_of(given.tokenize(text))


@pytest.mark.parametrize("side", ["right", "left"])
def test_of_a_text_that_is_cut_only_the_tokens_that_are_read_are_held(
    side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = loaded(folder(tmp_path, vocabulary=UNCASED, settings={"truncation_side": side}))
    rng = random.Random(3)
    for _ in range(60):
        text, pair = text_of(rng, 40), rng.choice([None, text_of(rng, 30)])
        whole = given.encode(text, pair, 20)
        with monkeypatch.context() as patched:
            for module in (long_texts, tokenizer):
                patched.setattr(module, "PART", 6)
            some = given.encode(text, pair, 20)
            held = given.tokenize_used(text, 20)
        assert (some.ids, some.tokens, some.cut) == (whole.ids, whole.tokens, whole.cut)
        assert some.offsets == whole.offsets
        assert len(held) + held.unread == len(given.tokenize(text))


def test_a_column_is_a_list_in_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = TOKENIZERS["built in"](tmp_path)
    text = "a fine film. " * 20
    whole, column = given.tokenize(text), in_parts(given, text, monkeypatch, 10)
    for ours, theirs in zip(all_of(whole), (column.ids, column.tokens, column.offsets,
                                            column.word_ids), strict=False):  # fmt: skip
        assert len(theirs) == len(ours)
        assert [theirs[i] for i in range(len(ours))] == ours
        assert (theirs[-1], theirs[3:9], theirs[-5:]) == (ours[-1], ours[3:9], ours[-5:])
        assert type(theirs[0]) is type(ours[0])
        with pytest.raises(IndexError):
            theirs[len(ours)]
    assert all_of(column[4:30]) == all_of(whole[4:30])


def add_lstrip(pieces: Any) -> None:
    pieces.add_tokens([AddedToken("<x>", lstrip=True)])


def add_single_word(pieces: Any) -> None:
    pieces.add_tokens([AddedToken("one", single_word=True)])


@pytest.mark.parametrize("add", [add_lstrip, add_single_word])
def test_a_tokenizer_that_may_look_further_reads_a_text_whole(add: Any, tmp_path: Path) -> None:
    given = loaded(folder(tmp_path, vocabulary=UNCASED))
    add(given.pieces)
    assert long_texts.text_cuts(given.pieces) is None


def test_an_added_token_is_never_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = loaded(folder(tmp_path, vocabulary=UNCASED))
    given.pieces.add_tokens([AddedToken("a. b", normalized=False), AddedToken("猫犬")])
    rng = random.Random(8)
    for _ in range(100):
        text = "".join(rng.choices(["a. b", "a.", " b", "猫", "猫犬", "a", ".", ", ", "xyz"], k=30))
        whole = given.tokenize(text)
        # Added tokens as the files spell them; the package does so in some releases.
        whole = replace(whole, tokens=[given.token_of(number) for number in whole.ids])
        assert all_of(in_parts(given, text, monkeypatch, 3)) == all_of(whole)
