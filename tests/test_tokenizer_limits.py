"""What a tokenizer.json may ask for: hostile ones are refused, and those that people have load."""

import json
import random
import string
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from endings import COMMANDS, Ending, endings_of
from hostile.huge_tokenizers import (
    FOLDER,
    HUGE,
    added_tokens,
    decoders,
    make_tokenizer,
    normalizers,
    pre_tokenizers,
    replace,
    search_tree,
    template,
)
from tokenizers import Tokenizer

import npbert
from npbert.text.growth import characters_taken, text_growth
from npbert.text.tokenizer_limits import check_limits, list_added_tokens

SECONDS = 2.0  # of processor time
MEGABYTES = 400.0
ENDING = (
    "; a tokenizer of a BERT needs no more, and the file may be damaged, or made to fill the memory"
)


def tokenizer_data() -> dict[str, Any]:
    return json.loads((FOLDER / "tokenizer.json").read_bytes())


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ending]:
    """How loading each huge one ended, in a process that may die of it."""
    jobs = []
    for i, (what, (spoil, _)) in enumerate(HUGE.items()):
        root = tmp_path_factory.mktemp(str(i))
        make_tokenizer(root)
        data = tokenizer_data()
        spoil(data)
        (root / "m" / "tokenizer.json").write_text(json.dumps(data))
        jobs.append((what, ["text-classification", "-m", f"{root}/m", "a good film"]))
    return endings_of(jobs, COMMANDS)


@pytest.mark.parametrize("what", HUGE)
def test_a_tokenizer_that_would_fill_the_memory_is_refused_and_told_why(
    endings: dict[str, Ending], what: str
) -> None:
    ending = endings[what]
    assert ending.outcome == "refused", f"{ending}{ending.error}"
    assert f"m/tokenizer.json: has {HUGE[what][1]}" in ending.message
    assert ENDING in ending.message
    assert ending.seconds <= SECONDS
    assert ending.peak_mb <= MEGABYTES


def test_the_whole_message() -> None:
    data = tokenizer_data()
    HUGE["26 that double"][0](data)
    with pytest.raises(npbert.CheckpointError) as error:
        check_limits(data, list_added_tokens(data), "m/tokenizer.json")
    assert str(error.value) == (
        "m/tokenizer.json: has 67,108,864 characters that normalizer and pre_tokenizer may make of "
        f"one, expected at most 100{ENDING}"
    )


LOWER, NFKC = {"type": "Lowercase"}, {"type": "NFKC"}
METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"}
HARMLESS = {
    # those of other families, and chains that are long and feed nothing to each other
    "as it is": lambda data: None,
    "XLM-R": normalizers(search_tree("\u0635" * 18), replace(" {2,}", " ", "Regex")),
    "ALBERT": normalizers(
        replace("``", '"'), replace("\'\'", '"'), {"type": "NFKD"}, {"type": "StripAccents"},
        LOWER, search_tree("\u0635" * 18),
    ),
    "a mixture": normalizers(
        {"type": "Nmt"}, NFKC, replace("\\s+", " ", "Regex"), replace(" ", "\u2581"), LOWER
    ),
    "bytes": pre_tokenizers(
        {"type": "Split", "pattern": {"Regex": "'s|'t| ?\\p{L}+|\\s+(?!\\S)|\\s+"},
         "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
    ),
    "Llama": normalizers({"type": "Prepend", "prepend": "\u2581"}, replace(" ", "\u2581")),
    "60 letters to two each": normalizers(
        *(replace(chr(0x400 + i), chr(97 + i % 26) * 2) for i in range(60))
    ),
    "60 letters to their names": normalizers(
        *(replace(chr(0x3B1 + i), f" letter{i} ") for i in range(60))
    ),
    "quotes and dashes": normalizers(
        NFKC, *(replace(a, b) for a, b in ("\u201c\"", "\u2018'", "\u2013-")),
        replace("\u2014", "--"), replace("\u2026", "..."), replace("--", " - "), LOWER,
    ),
    "the same one 50 times": normalizers(*[replace("\u2026", "...")] * 50),
    "twenty spaces to one": normalizers(*[replace("\\s{2,}", " ", "Regex")] * 20),
    "capitals that are marked": normalizers(
        *(replace(f"\\b{c}", f"\u21e7 {c.lower()}", "Regex") for c in string.ascii_uppercase),
        *(replace(c, f"\u21e8{c.lower()}") for c in string.ascii_uppercase),
    ),
    "letters in a circle": normalizers(*(replace(a, b) for a, b in ["ab", "bc", "ca"] * 10)),
    "a decoder": decoders(replace("\u2581", " "), {"type": "Fuse"}, {"type": "ByteFallback"}),
    "5,000 added tokens": added_tokens(5_000, 12),
    "63 special tokens": template(
        [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        63,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HARMLESS)
def test_what_real_tokenizers_do_is_never_refused(what: str) -> None:
    data = tokenizer_data()
    HARMLESS[what](data)
    check_limits(data, list_added_tokens(data), "tokenizer.json")


LETTERS = "abcAB\u00e9e\u0301\u0644\ufdfa\u0130\u732b "


def random_step(rng: random.Random) -> dict[str, Any]:
    def some(most: int) -> str:
        return "".join(rng.choices(LETTERS, k=rng.randint(0, most)))

    regexes = ("a", "[ab]+", ".", "\\ba", "b+c?", "x*", "(?=b)", "a|b", " {2,}", "\\s", "^")
    kinds = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "ByteLevel", "Nmt")
    return rng.choice(
        [
            replace(some(3), some(4)),
            replace(some(2), some(3)),
            replace(some(1), some(2)),
            replace(rng.choice(regexes), some(2), "Regex"),
            {"type": "Prepend", "prepend": some(3)},
            {"type": rng.choice(kinds)},
            {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
             "strip_accents": None, "lowercase": True},
        ]
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(200))
def test_no_chain_of_steps_makes_more_of_a_text_than_its_bound(seed: int) -> None:
    """Beside that, a text may grow as Unicode's normal forms and small letters have it."""
    rng = random.Random(seed)
    steps = [random_step(rng) for _ in range(rng.randint(1, 6))]
    bound = text_growth(steps)
    data = {**tokenizer_data(), "normalizer": {"type": "Sequence", "normalizers": steps}}
    normalizer = Tokenizer.from_str(json.dumps(data)).normalizer
    for _ in range(20):
        text = "".join(rng.choices(LETTERS, k=rng.randint(1, 30)))
        own = len(unicodedata.normalize("NFKD", text.lower()))
        try:
            made = normalizer.normalize_str(text)
        except BaseException as error:  # the package fails at some that write beside characters
            if type(error).__name__ != "PanicException":
                raise
            continue
        assert len(made) <= bound * (own + 1), (steps, text)


REGEXES = {
    " {2,}": " ", "\\s+": "", ".": "", "[a-z\\]]+x?": "", "ab*": "a", "\\p{L}": "", "\\bA": "A",
    "a\\.b": "a.b", "a{2}": "a", "^a$": "a", "x+y": "xy", "": None, "x*": None, "x?": None,
    "(a)": None, "a|": None, "x{0,3}": None, "x{,3}": None, "(?=a)": None, "^": None, "$": None,
    "\\b": None, "\\x41": None, "[[:alpha:]]": None, "\\1": None, "x+?": None, "\\K": None,
}  # fmt: skip


@pytest.mark.parametrize("regex", REGEXES)
def test_a_regex_takes_characters_only_where_that_is_sure(regex: str) -> None:
    assert characters_taken(regex) == REGEXES[regex]


def test_many_added_tokens_take_hardly_more_than_the_package_needs(tmp_path: Path) -> None:
    """One at a time they would take a thousand times as long."""
    make_tokenizer(tmp_path)
    data = tokenizer_data()
    added_tokens(20_000, 10)(data)
    names = [each["content"] for each in data["added_tokens"][5:]]
    raw = json.dumps(data).encode()
    (tmp_path / "m" / "tokenizer.json").write_bytes(raw)
    settings = tmp_path / "m" / "tokenizer_config.json"
    said = json.loads(settings.read_bytes())
    settings.write_text(json.dumps({**said, "additional_special_tokens": names}))
    start = time.process_time()
    Tokenizer.from_buffer(raw)
    alone = time.process_time() - start
    start = time.process_time()
    with pytest.warns(npbert.NpbertWarning, match="the tokenizer has 2"):
        model = npbert.load(tmp_path / "m")
    assert time.process_time() - start < 10 * alone + 1
    assert model.tokenizer is not None
    assert model.tokenizer.encode(f"x {names[77]}").tokens[2:] == [names[77], "[SEP]"]
