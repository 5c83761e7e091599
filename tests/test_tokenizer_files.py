"""The files of a tokenizer: where they contradict each other, and where they are broken."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import words
from words import CASED, UNCASED, folder, loaded

import npbert
from npbert.text.tokenizer import Tokenizer

CLS, SEP = "[CLS]", "[SEP]"
SAYS = {
    # the settings, what tokenizer.json says: the warning, and what becomes of "The caf\u00e9 猫a"
    "a cased file, lower-case settings": (
        {"do_lower_case": True},
        {"lowercase": False},
        "says lowercase = False, tokenizer_config.json says do_lower_case = True; the latter holds",
        ["the", "cafe", "猫", "a"],
    ),
    "a lower-case file, cased settings": (
        {"do_lower_case": False},
        {"lowercase": True},
        "says lowercase = True, tokenizer_config.json says do_lower_case = False; the latter holds",
        ["The", "caf\u00e9", "猫", "a"],
    ),
    "accents": (
        {"strip_accents": False},
        {"lowercase": True, "strip_accents": True},
        "says strip_accents = True, tokenizer_config.json says strip_accents = False; the latter "
        "holds",
        ["the", "caf\u00e9", "猫", "a"],
    ),
    "Chinese": (
        {"tokenize_chinese_chars": False},
        {"lowercase": True},
        "says handle_chinese_chars = True, tokenizer_config.json says tokenize_chinese_chars = "
        "False; the latter holds",
        ["the", "cafe", "猫", "##a"],
    ),
    "a cased file, silent settings": (
        {},
        {"lowercase": False},
        "keeps capitals, and tokenizer_config.json does not say do_lower_case; npbert keeps them "
        "too, transformers would lower-case (write do_lower_case into it to settle this)",
        ["The", "caf\u00e9", "猫", "a"],
    ),
    "a cased file, no settings": (
        None,
        {"lowercase": False},
        "keeps capitals, and tokenizer_config.json does not say do_lower_case; npbert keeps them "
        "too, transformers would lower-case (write do_lower_case into it to settle this)",
        ["The", "caf\u00e9", "猫", "a"],
    ),
}
AGREES: dict[str, tuple[Any, Any]] = {
    "a lower-case file, silent settings": ({}, {"lowercase": True}),
    "a lower-case file, no settings": (None, {"lowercase": True}),
    "both cased": ({"do_lower_case": False}, {"lowercase": False}),
    "null": ({"strip_accents": None, "do_lower_case": None}, {"strip_accents": True}),
}


@pytest.mark.parametrize("case", SAYS)
def test_what_the_settings_say_holds_and_a_contradiction_is_told(tmp_path: Path, case: str) -> None:
    settings, choices, message, tokens = SAYS[case]
    folder(tmp_path, vocabulary=CASED, settings=settings, **choices)
    path = re.escape(str(tmp_path / "tokenizer.json"))
    with pytest.warns(npbert.NpbertWarning, match=f"^{path} {re.escape(message)}$") as warned:
        tokenizer = loaded(tmp_path)
    assert len(warned) == 1
    assert tokenizer.encode("The caf\u00e9 猫a").tokens == [CLS, *tokens, SEP]


@pytest.mark.parametrize("case", AGREES)
def test_files_that_agree_are_read_in_silence(tmp_path: Path, case: str) -> None:
    settings, choices = AGREES[case]
    loaded(folder(tmp_path, settings=settings, **choices))


def test_a_warning_points_at_the_line_that_loads_the_model(tmp_path: Path) -> None:
    config = npbert.Config(vocab_size=len(CASED), hidden_size=4, num_blocks=1,
                           num_attention_heads=1, intermediate_size=4)  # fmt: skip
    npbert.init(config, "base").save(tmp_path)
    folder(tmp_path, vocabulary=CASED, lowercase=False)
    with pytest.warns(npbert.NpbertWarning, match="keeps capitals") as warned:
        npbert.load(tmp_path)
    assert Path(warned[0].filename).name == Path(__file__).name


BROKEN: dict[str, tuple[str, bytes, str]] = {
    # case: the file, its bytes, and the message after its path
    "no JSON": ("tokenizer.json", b"{", r": is not valid JSON: .*"),
    "another JSON": ("tokenizer.json", b"[1]", r": holds a list, expected a JSON object"),
    "no UTF-8": ("tokenizer.json", b"\xff", r": is not valid JSON: .*"),
    "settings of no JSON": ("tokenizer_config.json", b"{", r": .*"),
    "settings of another JSON": ("tokenizer_config.json", b"[1]", r": .*"),
    "a map of no JSON": ("special_tokens_map.json", b"nope", r": .*"),
    "a case of another kind": (
        "tokenizer_config.json", b'{"do_lower_case": "no"}',
        r": do_lower_case is 'no', expected true, false or null",
    ),
    "a token of another kind": (
        "tokenizer_config.json", b'{"mask_token": 5}', r": mask_token is 5, expected a token",
    ),
    "a token of another kind in the map": (
        "special_tokens_map.json", b'{"mask_token": 5}', r": mask_token is 5, expected a token",
    ),
    "a length of another kind": (
        "tokenizer_config.json", b'{"model_max_length": "9"}',
        r": model_max_length is '9', expected a number of tokens",
    ),
    "a negative length": (
        "tokenizer_config.json", b'{"model_max_length": -9}',
        r": model_max_length is -9, expected a number of tokens",
    ),
    "a side of another kind": (
        "tokenizer_config.json", b'{"truncation_side": "top"}',
        r": truncation_side is 'top', expected left or right",
    ),
    "several faults": (
        "tokenizer_config.json", b'{"truncation_side": "top", "strip_accents": 1}',
        r": strip_accents is 1, expected true, false or null, truncation_side is 'top', "
        r"expected left or right",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named(tmp_path: Path, case: str) -> None:
    name, content, message = BROKEN[case]
    folder(tmp_path)
    (tmp_path / name).write_bytes(content)
    path = re.escape(str(tmp_path / name))
    with pytest.raises(npbert.CheckpointError, match=f"^{path}{message}$"):
        loaded(tmp_path)


VOCABULARIES: dict[str, tuple[bytes, str]] = {
    "no UTF-8": (b"\xff\n", r": cannot be read: .*"),
    "empty": (b"", r": has \d pieces, and \[UNK\], \[CLS\], \[SEP\] not among them"),
    "another language's": (b"[CLS]\nle\n[SEP]\n", r": has 3 pieces, and \[UNK\] not among them"),
}


@pytest.mark.parametrize("case", VOCABULARIES)
def test_a_broken_vocabulary_is_named(tmp_path: Path, case: str) -> None:
    content, message = VOCABULARIES[case]
    (tmp_path / "vocab.txt").write_bytes(content)
    path = re.escape(str(tmp_path / "vocab.txt"))
    with pytest.raises(npbert.CheckpointError, match=f"^{path}{message}$"):
        loaded(tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_lines_of_a_vocabulary_may_end_either_way(tmp_path: Path, end: str, last: str) -> None:
    text = end.join(UNCASED) + last.replace("\n", end)
    (tmp_path / "vocab.txt").write_bytes(text.encode())
    encoding = loaded(tmp_path).encode("the cat")
    assert encoding.ids == [UNCASED.index(token) for token in (CLS, "the", "cat", SEP)]


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x0b", "\x1c", "\u3000"], ids=ascii)
def test_a_line_ends_at_a_line_feed_and_nowhere_else(tmp_path: Path, odd: str) -> None:
    """Python would end one at each of these, and every later id would be off by one."""
    vocabulary = [*words.SPECIALS, odd, f"a{odd}b", "the"]
    tokenizer = loaded(folder(tmp_path, whole=False, vocabulary=vocabulary))
    assert tokenizer.encode("the").ids[1] == vocabulary.index("the")


def test_a_panic_that_waits_for_a_text_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = folder(tmp_path)
    said = json.loads((path / "tokenizer.json").read_text("utf-8"))
    said["pre_tokenizer"] = {"type": "FixedLength", "length": 0}
    (path / "tokenizer.json").write_text(json.dumps(said), "utf-8")
    for read in (Tokenizer.encode, Tokenizer.tokenize, lambda t, x: t.tokenize_words([x])):
        with pytest.raises(npbert.CheckpointError) as caught:
            read(loaded(path), "the cat")
        assert str(caught.value).startswith(f"{path / 'tokenizer.json'}: is no tokenizer: ")


LISTED = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("name", LISTED)
def test_a_link_that_leads_nowhere_is_no_absent_file(name: str, tmp_path: Path) -> None:
    """As in a cache of which a blob was deleted; other settings would hold in silence."""
    source = Path(npbert.__file__).parent / "demo" / "sentiment"
    for file in source.iterdir():
        (tmp_path / file.name).symlink_to("nowhere" if file.name == name else file)
    with pytest.raises(npbert.CheckpointError) as error:
        npbert.load(tmp_path)
    assert str(error.value) == f"{tmp_path / name}: cannot be read: No such file or directory"
