"""Text to ids and offsets: WordPiece without surprises."""

import itertools
import re
import time
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import words
from words import CASED, TEXTS, UNCASED, folder, loaded

import npbert
from npbert.text.tokenizer import Tokenizer

CLS, SEP = "[CLS]", "[SEP]"


def test_a_text_is_its_pieces_between_cls_and_sep(tmp_path: Path) -> None:
    encoding = loaded(folder(tmp_path)).encode("Unplayable, the zyx!")
    assert encoding.tokens == [CLS, "un", "##play", "##able", ",", "the", "[UNK]", "!", SEP]
    assert encoding.ids == [UNCASED.index(token) for token in encoding.tokens]
    assert encoding.offsets == [
        (0, 0), (0, 2), (2, 6), (6, 10), (10, 11), (12, 15), (16, 19), (19, 20), (0, 0),
    ]  # fmt: skip
    assert encoding.word_ids == [None, 0, 0, 0, 1, 2, 3, 4, None]
    assert encoding.sequence_ids == [None, 0, 0, 0, 0, 0, 0, 0, None]
    assert encoding.cut == 0


def test_a_pair_is_two_texts_with_a_sep_after_each(tmp_path: Path) -> None:
    encoding = loaded(folder(tmp_path)).encode("the cat", "un play")
    assert encoding.tokens == [CLS, "the", "cat", SEP, "un", "play", SEP]
    assert encoding.sequence_ids == [None, 0, 0, None, 1, 1, None]
    assert encoding.offsets == [(0, 0), (0, 3), (4, 7), (0, 0), (0, 2), (3, 7), (0, 0)]


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": True}, {"strip_accents": False},
                                      {"tokenize_chinese_chars": False}])  # fmt: skip
def test_vocab_txt_alone_is_as_good_as_tokenizer_json(tmp_path: Path, settings: Any) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = loaded(folder(tmp_path / "a", **words.normalizer(settings), settings=settings))
    alone = loaded(folder(tmp_path / "b", whole=False, settings=settings))
    for text, pair in itertools.product(TEXTS, [None, *TEXTS]):
        assert whole.encode(text, pair) == alone.encode(text, pair)
    ids = whole.encode("unplayable, cat!").ids
    assert alone.decode(ids) == whole.decode(ids)


def test_a_folder_with_neither_has_no_tokenizer(tmp_path: Path) -> None:
    assert Tokenizer.from_folder(tmp_path, 31) is None


@pytest.mark.parametrize("whole", [True, False])
def test_a_special_token_in_a_text_is_one_token(tmp_path: Path, whole: bool) -> None:
    tokenizer = loaded(folder(tmp_path, whole=whole))
    encoding = tokenizer.encode("the [MASK].")
    assert encoding.tokens == [CLS, "the", "[MASK]", ".", SEP]
    assert encoding.offsets[2] == (4, 10)
    assert tokenizer.id_of("mask_token") == encoding.ids[2] == UNCASED.index("[MASK]")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("token", ["<m>", {"content": "<m>", "lstrip": True, "special": True}])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_settings_may_name_other_special_tokens(
    tmp_path: Path, file: str, token: Any, whole: bool
) -> None:
    folder(tmp_path, whole=whole, vocabulary=[*UNCASED, "<m>"])
    words.write(tmp_path / file, {"mask_token": token, "do_lower_case": True})
    tokenizer = loaded(tmp_path)
    assert tokenizer.token_text("mask_token") == "<m>"
    assert tokenizer.id_of("mask_token") == len(UNCASED)
    space = " " if isinstance(token, dict) else ""  # which it takes, as lstrip says
    assert tokenizer.encode("the <m>.").tokens == [CLS, "the", f"{space}<m>", ".", SEP]
    assert tokenizer.token_text("pad_token") == "[PAD]"


def test_tokenizer_config_has_the_last_word_about_special_tokens(tmp_path: Path) -> None:
    folder(tmp_path, vocabulary=[*UNCASED, "<a>", "<b>"], settings={"mask_token": "<a>"})
    words.write(tmp_path / "special_tokens_map.json", {"mask_token": "<b>", "pad_token": "<b>"})
    tokenizer = loaded(tmp_path)
    assert [tokenizer.token_text(role) for role in ("mask_token", "pad_token")] == ["<a>", "<b>"]


def test_vocab_txt_may_call_cls_and_sep_otherwise(tmp_path: Path) -> None:
    vocabulary = ["<s>", "</s>", "<unk>", "the", "cat"]
    settings = {"cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
    tokenizer = loaded(folder(tmp_path, whole=False, vocabulary=vocabulary, settings=settings))
    tokens = tokenizer.encode("the dog", "cat").tokens
    assert tokens == ["<s>", "the", "<unk>", "</s>", "cat", "</s>"]
    assert tokenizer.id_of("mask_token") is None


def test_a_text_is_cut_before_sep_and_how_much_is_told(tmp_path: Path) -> None:
    tokenizer = loaded(folder(tmp_path))
    encoding = tokenizer.encode("un play the cat", max_length=5)
    assert encoding.tokens == [CLS, "un", "play", "the", SEP]
    assert encoding.cut == 1
    assert tokenizer.encode("un play the cat", max_length=6).cut == 0


def test_a_text_is_cut_on_the_left_where_the_settings_say_so(tmp_path: Path) -> None:
    tokenizer = loaded(folder(tmp_path, settings={"truncation_side": "left"}))
    encoding = tokenizer.encode("un play the cat", max_length=5)
    assert encoding.tokens == [CLS, "play", "the", "cat", SEP]
    assert encoding.offsets[1] == (3, 7)
    pair = tokenizer.encode("un play the cat", "the cat", max_length=6)
    assert pair.tokens[-1] == SEP
    assert pair.cut == 3


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_pair_is_cut_as_the_tokenizers_package_cuts_it(tmp_path: Path, side: str) -> None:
    tokenizer = loaded(folder(tmp_path, settings={"truncation_side": side}))
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for first, second, room in itertools.product(range(8), range(8), range(2, 12)):
        texts = " ".join(["the"] * first), " ".join(["cat"] * second)
        theirs.enable_truncation(room + 3, strategy="longest_first", direction=side)
        expected = theirs.encode(*texts)
        actual = tokenizer.encode(*texts, max_length=room + 3)
        assert actual.tokens == expected.tokens, (first, second, room)
        assert actual.offsets == expected.offsets
        assert actual.cut == max(0, first + second - room)


def test_two_long_texts_are_cut_without_pairing_the_leftovers_of_each(tmp_path: Path) -> None:
    """The package would: seconds and 1 GB for these, four times that for texts twice as long."""
    tokenizer, before = loaded(folder(tmp_path)), time.perf_counter()
    encoding = tokenizer.encode("the " * 3000, "cat " * 3000, max_length=31)
    assert (len(encoding.ids), encoding.cut) == (31, 6000 - 28)
    assert time.perf_counter() - before < 1


OFFSETS = {
    # a text: what its tokens stand for
    "the cat": ["the", "cat"],
    "  the\tcat\n": ["the", "cat"],
    "THE Cat": ["THE", "Cat"],
    "the 🐈 cat": ["the", "🐈", "cat"],
    "🐈🐈cat": ["🐈🐈cat"],
    "cafe\u0301 the": ["cafe\u0301", "the"],
    "caf\u00e9 the": ["caf\u00e9", "the"],
    "猫the猫": ["猫", "the", "猫"],
    "שלום the": ["שלום", "the"],
    "the\u200bcat": ["the\u200bcat"],
    "unplayable": ["un", "play", "able"],
    "the\u00a0cat": ["the", "cat"],
    "the\x00cat the": ["the\x00cat", "the"],
}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("text", OFFSETS, ids=ascii)
def test_offsets_count_characters_of_the_text_as_given(
    tmp_path: Path, text: str, whole: bool
) -> None:
    tokenizer = loaded(folder(tmp_path, whole=whole))
    for encoding, source in [(tokenizer.encode(text), 0), (tokenizer.encode("the 🐈", text), 1)]:
        spelt = [
            text[start:end]
            for (start, end), of in zip(encoding.offsets, encoding.sequence_ids, strict=True)
            if of == source
        ]
        assert [s.rstrip("\u0301") for s in spelt] == [s.rstrip("\u0301") for s in OFFSETS[text]]


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200b"], ids=ascii)
def test_an_empty_text_is_cls_and_sep(tmp_path: Path, text: str) -> None:
    tokenizer = loaded(folder(tmp_path))
    assert tokenizer.encode(text).tokens == [CLS, SEP]
    assert tokenizer.encode(text, "the").tokens == [CLS, SEP, "the", SEP]
    assert tokenizer.encode("the", text).tokens == [CLS, "the", SEP, SEP]


NO_TEXT: dict[str, tuple[Any, str]] = {
    "None": (None, "a text is a str, not NoneType: None"),
    "a number": (5, "a text is a str, not int: 5"),
    "a list": (["the"], "a text is a str, not list: ['the']"),
    "bytes": (b"the", "a text is a str, not bytes: b'the'"),
    "half an emoji": (
        "the \ud83d!",
        "the text has half a character, '\\ud83d', at position 4; it was decoded from broken "
        "UTF-16 or with surrogateescape",
    ),
}


@pytest.mark.parametrize("case", NO_TEXT)
def test_what_is_no_text_is_refused(tmp_path: Path, case: str) -> None:
    given, message = NO_TEXT[case]
    tokenizer = loaded(folder(tmp_path))
    with pytest.raises(npbert.InputError, match=f"^{re.escape(message)}$"):
        tokenizer.encode(given)
    if given is not None:
        with pytest.raises(npbert.InputError, match=f"^{re.escape(message)}$"):
            tokenizer.encode("the", given)


@pytest.mark.parametrize(("pair", "least"), [(None, 3), ("cat", 5)])
def test_a_max_length_without_room_for_text_is_refused(
    tmp_path: Path, pair: str | None, least: int
) -> None:
    tokenizer = loaded(folder(tmp_path))
    assert tokenizer.encode("the cat", pair, max_length=least).tokens[-1] == SEP
    for limit in (least - 1, 1, 0, -5):
        message = f"max_length is {limit}, which leaves no room for text beside the special tokens"
        with pytest.raises(npbert.InputError, match=f"^{message}$"):
            tokenizer.encode("the cat", pair, max_length=limit)


LIMITS = {"unset": (None, 31), "unlimited": (int(1e30), 31), "a float": (1e30, 31), "less": (9, 9),
          "more": (512, 31), "zero": (0, 31)}  # fmt: skip


@pytest.mark.parametrize("case", LIMITS)
def test_the_longest_text_is_what_settings_and_model_allow(tmp_path: Path, case: str) -> None:
    said, expected = LIMITS[case]
    tokenizer = loaded(folder(tmp_path, settings={"model_max_length": said}))
    assert tokenizer.max_length == expected
    for asked in (None, 99):
        assert len(tokenizer.encode("the " * 40, max_length=asked).ids) == expected


def test_what_tokenizer_json_says_of_cutting_and_padding_is_left_aside(tmp_path: Path) -> None:
    pieces = tokenizers.Tokenizer.from_file(str(folder(tmp_path) / "tokenizer.json"))
    pieces.enable_truncation(4)
    pieces.enable_padding(length=20)
    pieces.save(str(tmp_path / "tokenizer.json"))
    assert len(loaded(tmp_path).encode("the cat " * 4).ids) == 10


def test_what_is_saved_reads_back(tmp_path: Path) -> None:
    tokenizer = loaded(folder(tmp_path, vocabulary=CASED, lowercase=False,
                              settings={"do_lower_case": False}))  # fmt: skip
    (tmp_path / "saved").mkdir()
    tokenizer.save(tmp_path / "saved")
    again = loaded(tmp_path / "saved")
    assert all(again.encode(text) == tokenizer.encode(text) for text in TEXTS)
