"""tokenizer.json that would fill the memory or never end, and changes that make others of it."""

import base64
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from golden_cases import GOLDEN

FOLDER = GOLDEN / "tasks" / "single"
CLS = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
Spoil = Callable[[dict[str, Any]], object]


def make_tokenizer(folder: Path) -> None:
    shutil.copytree(FOLDER, folder / "m")


def make_vocabulary(folder: Path) -> None:
    """The older files: a piece a line, and settings of three kinds."""
    make_tokenizer(folder)
    words = json.loads((folder / "m" / "tokenizer.json").read_bytes())["model"]["vocab"]
    (folder / "m" / "tokenizer.json").unlink()
    (folder / "m" / "vocab.txt").write_text("\n".join(sorted(words, key=words.__getitem__)))
    (folder / "m" / "special_tokens_map.json").write_text(
        json.dumps({"mask_token": "[MASK]", "cls_token": {"content": "[CLS]", "lstrip": False}})
    )
    (folder / "m" / "added_tokens.json").write_text(json.dumps({"[MASK]": words["[MASK]"]}))


def replace(taken: str, written: str, kind: str = "String") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: taken}, "content": written}


def normalizers(*steps: dict[str, Any]) -> Spoil:
    return lambda data: data.update(normalizer={"type": "Sequence", "normalizers": list(steps)})


def pre_tokenizers(*steps: dict[str, Any]) -> Spoil:
    said = {"type": "Sequence", "pretokenizers": list(steps)}
    return lambda data: data.update(pre_tokenizer=said)


def decoders(*steps: dict[str, Any]) -> Spoil:
    return lambda data: data.update(decoder={"type": "Sequence", "decoders": list(steps)})


def template(slots: list[Any], ids: int = 1) -> Spoil:
    special = {"id": "[CLS]", "ids": [2] * ids, "tokens": ["[CLS]"] * ids}
    return lambda data: data["post_processor"].update(
        single=slots, special_tokens={"[CLS]": special}
    )


def model(**fields: Any) -> Spoil:
    return lambda data: data["model"].update(fields)


def added_tokens(count: int, length: int, *, special: bool = True) -> Spoil:
    def spoil(data: dict[str, Any]) -> None:
        first = max(data["model"]["vocab"].values()) + 1
        data["added_tokens"] += [
            {
                "id": first + i, "content": f"<{i:0{length - 2}d}>", "single_word": False,
                "lstrip": False, "rstrip": False, "normalized": not special, "special": special,
            }
            for i in range(count)
        ]  # fmt: skip

    return spoil


def both(*spoils: Spoil) -> Spoil:
    return lambda data: [spoil(data) for spoil in spoils]


def search_tree(written: str) -> dict[str, Any]:
    """SentencePiece's table, of which only what it writes matters here."""
    raw = struct.pack("<I", 0) + written.encode() + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(raw).decode()}


SEQUENCES = ("normalizers", "pretokenizers", "processors", "decoders")
DOUBLE = replace("a", "aa")
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
HUGE: dict[str, tuple[Spoil, str]] = {
    # what: how it is made, and what is said of it
    "26 that double": (
        normalizers(*[DOUBLE] * 26), "67,108,864 characters that normalizer and pre_tokenizer may"),
    "two that feed each other": (
        normalizers(*[replace("a", "bb"), replace("b", "aa")] * 8), "65,536 characters that"),
    "a chain of letters": (
        normalizers(*(replace(chr(97 + i), chr(98 + i) * 2) for i in range(20))), "1,048,576 char"),
    "pairs that become four": (
        normalizers(*[replace("ab", "abab")] * 20), "1,048,576 characters that"),
    "what no case could stop": (
        normalizers(*[{"type": "Lowercase"}, replace("a", "AA")] * 20), "1,048,576 characters"),
    "a letter and its accent": (
        normalizers(*[{"type": "NFC"}, replace("\u00e9", "e\u0301e\u0301")] * 12),
        "16,777,216 characters that"),
    "a blessing": (
        normalizers(*[replace("\u0644", "\ufdfa"), {"type": "NFKC"}] * 9),
        "11,019,960,576 characters that"),
    "spaces beside spaces": (
        normalizers(*[{"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True}] * 5), "243 characters that"),
    "nothing that is found everywhere": (
        normalizers(*[replace("", "b")] * 20), "1,048,576 characters that"),
    "a pattern of nothing": (
        normalizers(*[replace("x*", "b", "Regex")] * 20), "1,048,576 characters that"),
    "a pattern that looks ahead": (
        normalizers(*[replace("(?=a)", "a", "Regex")] * 20), "1,048,576 characters that"),
    "any letter": (
        normalizers(*[replace(".", "aaa", "Regex")] * 9), "19,683 characters that"),
    "a beginning": (
        normalizers(*[{"type": "Prepend", "prepend": "a"}, DOUBLE] * 6), "4,096 characters that"),
    "a beginning with a false pattern": (
        normalizers(*[{"type": "Prepend", "prepend": "b" * 250, "pattern": {"String": "b" * 250},
                       "content": ""}] * 2), "63,001 characters that"),
    "one long stead": (normalizers(replace("a", "b" * 250)), "250 characters that"),
    "a stead of 257": (normalizers(replace("a", "b" * 257)), "257 characters in a string of"),
    "bytes of bytes": (pre_tokenizers(*[BYTE_LEVEL] * 10), "3,145,728 characters that"),
    "bytes of bytes, normalized": (
        normalizers(*[{"type": "ByteLevel"}] * 10), "1,048,576 characters that"),
    "bytes with a false pattern": (
        pre_tokenizers(*[{**BYTE_LEVEL, **DOUBLE, "content": "a", "type": "ByteLevel"}] * 10),
        "3,145,728 characters that"),
    "spaces before spaces": (
        pre_tokenizers(*[{"type": "Metaspace", "replacement": c, "prepend_scheme": "always"}
                         for c in "_-+*:.,;"]), "768 characters that"),
    "a table of characters": (normalizers(search_tree("b" * 1000)), "1,000 characters that"),
    "tables of characters": (
        normalizers(search_tree("b" * 20), search_tree("b" * 20)), "400 characters that"),
    "no types": (
        lambda data: data.update(normalizer={"normalizers": [
            {"pattern": {"String": "a"}, "content": "aa"}] * 9}), "512 characters that"),
    "a nest": (
        lambda data: data.update(normalizer={"type": "Sequence", "normalizers": [
            {"type": "Sequence", "normalizers": [DOUBLE] * 4}] * 4}), "65,536 characters that"),
    "a decoder that doubles": (decoders(*[DOUBLE] * 24), "16,777,216 characters that decoder may"),
    "a pattern of 5,000": (
        normalizers(replace("a?" * 2500, "", "Regex")), "5,000 characters in a regular"),
    "301 steps": (normalizers(*[{"type": "Lowercase"}] * 298), "301 steps in normalizer"),
    "80 million special tokens": (
        template([CLS] * 4000 + [TEXT], 20_000), "80,000,000 special tokens that"),
    "a special token of 20,000": (template([CLS, TEXT], 20_000), "20,000 special tokens that"),
    "4,000 special tokens": (template([CLS] * 4000 + [TEXT]), "4,000 special tokens that"),
    "templates one after another": (
        lambda data: data.update(post_processor={
            "type": "Sequence", "processors": [data["post_processor"]] * 25}),
        "75 special tokens that"),
    "a text 30,000 times": (
        template([TEXT] * 30_000), "30,000 times the same text in a template"),
    "a text twice": (template([CLS, TEXT, TEXT]), "2 times the same text in a template"),
    "words without limit": (
        model(max_input_chars_per_word=2**60), "over 1e15 for max_input_chars_per_word"),
    "words of 10,000": (
        model(max_input_chars_per_word=10_000), "10,000 for max_input_chars_per_word"),
    "a prefix of a million": (
        model(continuing_subword_prefix="#" * 10**6), "1,000,000 characters in continuing_"),
    "a suffix of a million": (
        model(end_of_word_suffix="#" * 10**6), "1,000,000 characters in end_of_word_suffix"),
    "an added token of 5 million": (added_tokens(1, 5 * 10**6), "5,000,000 characters in a token"),
    "an added token that doubles": (
        both(added_tokens(1, 9, special=False), normalizers(*[DOUBLE] * 24)), "16,777,216 char"),
    "added tokens of 6 million": (
        added_tokens(6_000, 1_000), "6,000,026 characters in added_tokens"),
    "a word of the vocabulary": (
        lambda data: data["model"]["vocab"].update({"x" * 10**6: 1}),
        "1,000,000 characters in a token"),
}  # fmt: skip


def huge_value(data: bytes, rng: np.random.Generator) -> bytes:
    """Something that is no word of the vocabulary is repeated, nested, or becomes huge."""
    content = json.loads(data)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list) and key != "vocab":
                walk(value[key])

    walk(content)
    for _ in range(int(rng.integers(1, 4))):
        parent, key = places[rng.integers(len(places))]
        many = int(10 ** rng.uniform(0, 4))
        match parent[key]:
            case bool() as value:
                parent[key] = not value
            case int() as value:
                parent[key] = (value + 1, -1, 10**9, 2**32, 2**63, 10**30)[rng.integers(6)]
            case str() as value:
                parent[key] = (value * many, "", "a", "\ud800")[rng.integers(4)]
            case list() as value:
                parent[key] = value * many
            case None:
                parent[key] = ({}, {"max_length": many}, [], many)[rng.integers(4)]
            case dict() as value if "vocab" not in value:
                steps = SEQUENCES[rng.integers(len(SEQUENCES))]
                sequence = {"type": "Sequence", steps: [value] * min(many, 200)}
                parent[key] = (sequence, DOUBLE, {})[rng.integers(3)]
    return json.dumps(content).encode()


def huge_step(data: bytes, rng: np.random.Generator) -> bytes:
    """One of the hand-made ones, with another beside it."""
    content = json.loads(data)
    for _ in range(2):
        names = list(HUGE)
        HUGE[names[rng.integers(len(names))]][0](content)
    return json.dumps(content).encode()
