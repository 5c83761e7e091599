"""Added tokens are found in a text as their files say, and special ones keep their flags."""

import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import words
from words import UNCASED, folder, loaded

import npbert
from npbert.text.added_tokens import FLAGS
from npbert.text.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent
RECORDED = ROOT / "golden" / "tasks" / "tokens" / "encodings.json"
CASES = json.loads(RECORDED.read_text("utf-8"))["cases"]
CLS, SEP = "[CLS]", "[SEP]"
NEXT = len(UNCASED)  # the first id behind the vocabulary


def token(content: str, **flags: bool) -> dict[str, Any]:
    """Return a token as files spell it."""
    return {"content": content, **dict.fromkeys(FLAGS, False), **flags}


def add_to_file(path: Path, *entries: dict[str, Any]) -> Path:
    """Add tokens to a folder's tokenizer.json."""
    file = path / "tokenizer.json"
    said = json.loads(file.read_text("utf-8"))
    known = said["model"]["vocab"]
    for entry in entries:
        number = known.get(entry["content"], len(known) + len(said["added_tokens"]))
        said["added_tokens"].append({"id": number, **entry})
    file.write_text(json.dumps(said), "utf-8")
    return path


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_ids_tokens_and_offsets_are_those_of_transformers(case: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_folder(ROOT / case["model"], 64)
    assert tokenizer is not None
    made = tokenizer.encode(case["text"])
    assert list(made.ids) == case["ids"]
    assert list(made.tokens) == case["tokens"]
    assert [list(pair) for pair in made.offsets] == case["offsets"]


def test_every_kind_of_tokenizer_and_many_texts_are_recorded() -> None:
    assert len({case["model"] for case in CASES}) == 5
    assert len(CASES) >= 50


@pytest.mark.parametrize("flags", list(product([False, True], repeat=4)), ids=str)
@pytest.mark.parametrize("special", [False, True])
def test_flags_of_the_file_hold_whatever_the_settings_name(
    tmp_path: Path, flags: tuple[bool, ...], special: bool
) -> None:
    said = dict(zip(("lstrip", "rstrip", "single_word", "normalized"), flags, strict=True))
    add_to_file(folder(tmp_path), token("[ENT]", special=special, **said))
    words.write(tmp_path / "tokenizer_config.json", {"additional_special_tokens": ["[ENT]"]})
    tokenizer = loaded(tmp_path)
    alone = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("the [ENT] cat", "the[ENT]cat", "  [ENT]  [ent] [Ent]s", "x [ENT].[ENT]"):
        theirs = alone.encode(text, add_special_tokens=False)
        assert tokenizer.tokenize(text).tokens == theirs.tokens
        assert tokenizer.tokenize(text).offsets == theirs.offsets
    (made,) = [t for t in tokenizer.pieces.get_added_tokens_decoder().values() if "ENT" in str(t)]
    assert made.special


def test_a_mask_token_takes_its_space(tmp_path: Path) -> None:
    add_to_file(folder(tmp_path), token("[MASK]", lstrip=True, special=True))
    assert loaded(tmp_path).encode("the [MASK] cat").tokens == [CLS, "the", " [MASK]", "cat", SEP]


def test_a_token_that_only_a_role_makes_special_keeps_its_flags(tmp_path: Path) -> None:
    """As sentencepiece's converters write them: special is what the role says."""
    add_to_file(folder(tmp_path), token("[MASK]", lstrip=True, rstrip=True))
    tokenizer = loaded(tmp_path)
    assert tokenizer.tokenize("the [MASK] cat").tokens == ["the", " [MASK] ", "cat"]
    assert tokenizer.decode([5, 4, 6]) == "the cat"


def test_the_decoder_of_the_settings_has_the_last_word(tmp_path: Path) -> None:
    add_to_file(folder(tmp_path), token("[MASK]", special=True))
    decoder = {"4": token("[MASK]", lstrip=True, special=True)}
    words.write(tmp_path / "tokenizer_config.json", {"added_tokens_decoder": decoder})
    assert loaded(tmp_path).tokenize("the [MASK]").tokens == ["the", " [MASK]"]


def test_an_empty_token_is_none(tmp_path: Path) -> None:
    decoder = {"4": token("[MASK]", special=True), "99": token("")}
    folder(tmp_path, settings={"added_tokens_decoder": decoder, "do_lower_case": True})
    assert loaded(tmp_path).tokenize("the [MASK]").ids == [5, 4]


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("whole", [True, False])
def test_flags_beside_a_role_hold_where_no_other_file_has_the_token(
    tmp_path: Path, file: str, whole: bool
) -> None:
    folder(tmp_path, whole=whole)
    words.write(tmp_path / file, {"mask_token": token("[MASK]", lstrip=True, special=True)})
    assert loaded(tmp_path).tokenize("the [MASK]").tokens == ["the", " [MASK]"]


def test_a_plain_name_in_the_newer_file_does_not_undo_the_flags_of_the_older(
    tmp_path: Path,
) -> None:
    folder(tmp_path, settings={"mask_token": "[MASK]"})
    said = {"mask_token": token("[MASK]", lstrip=True, special=True)}
    words.write(tmp_path / "special_tokens_map.json", said)
    assert loaded(tmp_path).tokenize("the [MASK]").tokens == ["the", " [MASK]"]


def slow_folder(path: Path, added: dict[str, Any], **settings: Any) -> Path:
    words.write(path / "added_tokens.json", added)
    return folder(path, whole=False, settings=settings)


def test_added_tokens_of_a_slow_tokenizer_are_one_token_each(tmp_path: Path) -> None:
    slow_folder(tmp_path, {"covid": NEXT, "sars-cov-2": NEXT + 1, "[ent]": NEXT + 2})
    made = loaded(tmp_path).encode("the Covid SARS-CoV-2 cat [ENT]")
    assert made.tokens == [CLS, "the", "covid", "sars-cov-2", "cat", "[ent]", SEP]
    assert made.ids[2:4] == [NEXT, NEXT + 1]


def test_a_special_one_is_looked_for_as_it_is_written(tmp_path: Path) -> None:
    slow_folder(tmp_path, {"[ent]": NEXT}, additional_special_tokens=["[ent]"])
    tokenizer = loaded(tmp_path)
    assert tokenizer.tokenize("[ent]").ids == [NEXT]
    assert NEXT not in tokenizer.tokenize("[ENT]").ids


def test_its_order_is_that_of_its_ids(tmp_path: Path) -> None:
    slow_folder(tmp_path, {"zeta": NEXT + 1, "alpha": NEXT})
    tokenizer = loaded(tmp_path)
    assert tokenizer.tokenize("zeta alpha").ids == [NEXT + 1, NEXT]


def test_tokens_of_the_vocabulary_may_be_listed_once_more(tmp_path: Path) -> None:
    slow_folder(tmp_path, {"[MASK]": 4, "cat": UNCASED.index("cat")})
    assert loaded(tmp_path).tokenize("[MASK] cat").ids == [4, UNCASED.index("cat")]


def test_an_id_behind_a_gap_is_an_error(tmp_path: Path) -> None:
    slow_folder(tmp_path, {"covid": NEXT + 3})
    with pytest.raises(npbert.CheckpointError) as caught:
        loaded(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'vocab.txt'}: the added token 'covid' has the id {NEXT + 3}, expected "
        f"{NEXT}: ids go on where the vocabulary ends, without a gap; are the files of one model?"
    )


def test_ids_that_two_files_give_differently_are_told(tmp_path: Path) -> None:
    decoder = {"99": token("[MASK]", special=True)}
    folder(tmp_path, settings={"added_tokens_decoder": decoder, "do_lower_case": True})
    with pytest.warns(npbert.NpbertWarning) as warned:
        tokenizer = loaded(tmp_path)
    assert [str(each.message) for each in warned] == [
        f"{tmp_path / 'tokenizer.json'} gives 1 added tokens other ids than the files beside it, "
        "'[MASK]' 4 and not 99; tokenizer.json holds"
    ]
    assert tokenizer.tokenize("[MASK]").ids == [4]


def test_tokens_beyond_the_vocabulary_get_the_next_ids(tmp_path: Path) -> None:
    folder(tmp_path, settings={"additional_special_tokens": ["<a>", "<b>"]})
    assert loaded(tmp_path).tokenize("<b> the <a>").ids == [NEXT + 1, 5, NEXT]


@pytest.mark.parametrize("given", [["<a>"], {"image_token": "<a>"}], ids=str)
def test_extra_special_tokens_are_a_list_or_have_names(tmp_path: Path, given: Any) -> None:
    folder(tmp_path, settings={"extra_special_tokens": given})
    assert loaded(tmp_path).tokenize("the<a>the").tokens == ["the", "<a>", "the"]


def test_special_tokens_in_a_text_can_be_read_as_its_characters(tmp_path: Path) -> None:
    folder(tmp_path, settings={"split_special_tokens": True})
    assert loaded(tmp_path).encode("the [MASK]").tokens[:2] == [CLS, "the"]
    assert 4 not in loaded(tmp_path).encode("the [MASK]").ids


WRONG: dict[str, tuple[str, Any, str]] = {
    "no object": ("tokenizer_config.json", {"added_tokens_decoder": ["x"]},
        "added_tokens_decoder is ['x'], expected an object of tokens by their ids"),
    "no id": ("tokenizer_config.json", {"added_tokens_decoder": {"x": token("a")}},
        "added_tokens_decoder has 'x': "),
    "no token": ("tokenizer_config.json", {"added_tokens_decoder": {"3": "a"}},
        "added_tokens_decoder has '3': 'a', expected an id and a token"),
    "no flag": ("tokenizer_config.json", {"added_tokens_decoder": {"3": token("a", lstrip=2)}},
        "added_tokens_decoder has '3' with lstrip 2, expected true or false"),
    "no list": ("tokenizer_config.json", {"additional_special_tokens": "a"},
        "additional_special_tokens is 'a', expected a list"),
    "no tokens": ("tokenizer_config.json", {"additional_special_tokens": ["a", 5]},
        "additional_special_tokens has 5, expected a token"),
    "no names": ("special_tokens_map.json", {"extra_special_tokens": {"a": {"content": 5}}},
        "extra_special_tokens has {'content': 5}, expected a token"),
    "no number": ("added_tokens.json", {"covid": "7"},
        "has 'covid': '7', expected ids of tokens"),
    "too long": ("added_tokens.json", {"x" * 1001: NEXT}, "has 1,001 characters in a token, "),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_added_tokens_is_named(tmp_path: Path, case: str) -> None:
    name, said, message = WRONG[case]
    folder(tmp_path, whole=False)
    words.write(tmp_path / name, said)
    with pytest.raises(npbert.CheckpointError) as caught:
        loaded(tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize("where", ["the file", "the decoder", "the slow file"])
def test_thousands_of_added_tokens_are_added_at_once(tmp_path: Path, where: str) -> None:
    """One at a time, they would take minutes."""
    names = [f"[ENT{i}]" for i in range(8_000)]
    if where == "the slow file":
        numbers = {name: NEXT + i for i, name in enumerate(names)}
        slow_folder(tmp_path, numbers, additional_special_tokens=names)
    else:
        entries = [token(name, special=True) for name in names]
        decoder = {str(NEXT + i): entry for i, entry in enumerate(entries)}
        settings = {"added_tokens_decoder": decoder} if where == "the decoder" else {}
        folder(tmp_path, settings={**settings, "additional_special_tokens": names})
        if where == "the file":
            add_to_file(tmp_path, *entries)
    start = time.process_time()
    tokenizer = loaded(tmp_path)
    assert time.process_time() - start < 20
    assert tokenizer.tokenize("the[ENT7999]").ids == [5, NEXT + 7_999]


@pytest.mark.parametrize(
    ("whole", "said", "text"),
    [(True, None, "the! cat ' s"), (True, True, "the! cat's"), (False, None, "the! cat's"),
     (False, False, "the! cat ' s")],
)  # fmt: skip
def test_spaces_before_signs_are_cleaned_up_where_the_settings_say_so(
    tmp_path: Path, whole: bool, said: bool | None, text: str
) -> None:
    vocabulary = [*UNCASED, "'", "s"]
    settings = {"clean_up_tokenization_spaces": said, "do_lower_case": True}
    folder(tmp_path, whole=whole, vocabulary=vocabulary, settings=settings)
    tokenizer = loaded(tmp_path)
    assert tokenizer.decode(tokenizer.tokenize("the ! cat ' s").ids) == text


def test_a_saved_tokenizer_reads_as_the_one_it_was(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    slow_folder(source, {"covid": NEXT, "[ent]": NEXT + 1}, additional_special_tokens=["[ent]"])
    said = {"mask_token": token("[MASK]", lstrip=True, special=True)}
    words.write(source / "special_tokens_map.json", said)
    tokenizer = loaded(source)
    tokenizer.save(target)
    for text in ("the [MASK] covid", "Covid [ent]x [ENT]"):
        assert loaded(target).encode(text) == tokenizer.encode(text)
