"""Spoilt tokenizers: tokenizer.json, tokenizer_config.json and vocab.txt."""

from pathlib import Path
from typing import Any

from corruption.checkpoint import (
    TOKENIZER,
    TOKENIZER_CONFIG,
    VOCABULARY,
    Corruption,
    healthy_vocabulary,
)
from corruption.files import (
    DEEP,
    DIGITS,
    HUGE,
    edited,
    fields,
    huge,
    json_faults,
    replaced,
    rewritten,
)


def part(name: str, *, structural: bool = True, **changes: Any) -> Corruption:
    """One part of the tokenizer gives way to another value."""
    return fields(f"tokenizer: {name}", TOKENIZER, structural=structural, **changes)


def model(name: str, *, structural: bool = True, **changes: Any) -> Corruption:
    """The WordPiece model inside gets other fields."""
    return edited(
        f"tokenizer: {name}",
        TOKENIZER,
        lambda content: content["model"].update(changes),
        structural=structural,
    )


def piece(name: str, identity: object, *, structural: bool = True) -> Corruption:
    """One piece of the vocabulary gets another id."""
    return edited(
        f"tokenizer: vocabulary with {name}",
        TOKENIZER,
        lambda content: content["model"]["vocab"].update(a=identity),
        structural=structural,
    )


def setting(name: str, *, structural: bool = True, **changes: Any) -> Corruption:
    return fields(f"tokenizer_config: {name}", TOKENIZER_CONFIG, structural=structural, **changes)


def vocabulary(name: str, content: bytes | str, *, structural: bool = True) -> Corruption:
    """Only vocab.txt, as in the oldest checkpoints."""
    data = content.encode() if isinstance(content, str) else content

    def apply(folder: Path) -> None:
        (folder / TOKENIZER).unlink()
        (folder / VOCABULARY).write_bytes(data)

    return Corruption(f"vocabulary: {name}", apply, (VOCABULARY,), structural)


def _vocabulary_of_300_mb(folder: Path) -> None:
    (folder / TOKENIZER).unlink()
    with (folder / VOCABULARY).open("wb") as stream:
        stream.truncate(HUGE)


PIECES = healthy_vocabulary()
LINES = "".join(f"{piece}\n" for piece in PIECES)

TOKENIZERS = [
    *json_faults("tokenizer", TOKENIZER),
    huge("tokenizer: 300 MB", TOKENIZER, b'{"version": "'),
    replaced("tokenizer: empty object", TOKENIZER, "{}"),
    part("unknown version", version="9.9"),
    part("no model", model=None),
    part("model a string", model="WordPiece"),
    part("added_tokens a number", added_tokens=7),
    part("normalizer unknown", normalizer={"type": "Rot13"}),
    part("pre_tokenizer unknown", pre_tokenizer={"type": "Rot13"}),
    part("post_processor a number", post_processor=7),
    part("truncation a string", truncation="longest"),
    # tokenizers answers the next three with a Rust panic, which is no Exception in Python.
    part("normalizer that panics", normalizer={"type": "Precompiled", "precompiled_charsmap": ""}),
    part(
        "pre_tokenizer that panics",
        pre_tokenizer={"type": "FixedLength", "length": 0},
        structural=False,
    ),
    edited(
        "tokenizer: template of unknown tokens",
        TOKENIZER,
        lambda content: content["post_processor"]["special_tokens"].clear(),
        structural=False,
    ),
    part(
        "normalizer with a broken pattern",
        normalizer={"type": "Replace", "pattern": {"Regex": "("}, "content": ""},
    ),
    rewritten(
        "tokenizer: deep normalizer",
        TOKENIZER,
        lambda data: data.replace(
            b'"normalizer": {', b'"normalizer": ' + b'{"normalizer":' * DEEP + b"{"
        ),
    ),
    model("model unknown", type="Martian"),
    model("vocabulary a list", vocab=["[PAD]", "a"]),
    model("vocabulary empty", vocab={}, structural=False),
    model("unknown token not in the vocabulary", unk_token="<unk>", structural=False),
    model("word limit negative", max_input_chars_per_word=-1),
    model("prefix a number", continuing_subword_prefix=5),
    piece("a negative id", -1),
    piece("a fractional id", 1.5),
    piece("a word for an id", "five"),
    piece("null for an id", None),
    piece("an id of 2**40", 2**40),
    piece("an id beyond the table", 10**6, structural=False),
    piece("an id twice", 7, structural=False),
]

SETTINGS = [
    *json_faults("tokenizer_config", TOKENIZER_CONFIG),
    huge("tokenizer_config: 300 MB", TOKENIZER_CONFIG, b'{"a": "'),
    setting("do_lower_case a string", do_lower_case="yes"),
    setting("do_lower_case a number", do_lower_case=2),
    setting("do_lower_case a list", do_lower_case=[True]),
    setting("strip_accents a string", strip_accents="no"),
    setting("model_max_length a string", model_max_length="many"),
    setting("model_max_length negative", model_max_length=-5),
    setting("model_max_length NaN", model_max_length=float("nan")),
    setting("model_max_length a list", model_max_length=[16]),
    setting("model_max_length true", model_max_length=True),
    setting("model_max_length the usual 1e30", model_max_length=int(1e30), structural=False),
    setting("mask_token a number", mask_token=7),
    setting("mask_token a list", mask_token=["[MASK]"]),
    setting("mask_token an object without text", mask_token={"lstrip": True}, structural=False),
    setting("mask_token not in the vocabulary", mask_token="<mask>", structural=False),
    setting("unknown fields", unknown=[1, {"a": None}], structural=False),
    rewritten(
        "tokenizer_config: model_max_length of 10,000 digits",
        TOKENIZER_CONFIG,
        lambda data: data.replace(
            b'"model_max_length": 16', b'"model_max_length": ' + DIGITS.encode()
        ),
    ),
]

VOCABULARIES = [
    vocabulary("empty", ""),
    vocabulary("only line ends", "\n" * 60),
    vocabulary("not UTF-8", LINES.encode() + b"caf\xe9\n"),
    vocabulary("UTF-16", LINES.encode("utf-16")),
    vocabulary("without special tokens", "".join(f"{piece}\n" for piece in PIECES[5:])),
    vocabulary("without [UNK]", LINES.replace("[UNK]\n", "")),
    Corruption("vocabulary: 300 MB", _vocabulary_of_300_mb, (VOCABULARY,)),
    vocabulary("with Windows line ends", LINES.replace("\n", "\r\n"), structural=False),
    vocabulary("with one piece twice", LINES + "the\n", structural=False),
]
