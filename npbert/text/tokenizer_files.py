"""A tokenizer's files, as they come: tokenizer.json, or vocab.txt, and the settings beside them.

Where the files contradict each other, one rule decides, and a warning says so.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from npbert import _import_lock
from npbert.checkpoint.known_keys import (
    TOKENIZER_KEYS,
    TOKENIZER_WITHOUT_EFFECT,
    warn_of_unknown,
)
from npbert.checkpoint.reading import is_listed, parse_json_object, read_bytes, read_json_object
from npbert.errors import CheckpointError, NpbertError, listing, quote, warn
from npbert.text.added_tokens import (
    SPECIALS,
    VOCABULARY_LIMIT,
    add_tokens,
    check_added,
    token_content,
)
from npbert.text.tokenizer_limits import check_limits, list_added_tokens

SETTINGS: Final = "tokenizer_config.json"
SPECIALS_MAP: Final = "special_tokens_map.json"

# What tokenizer_config.json calls a choice of the normalizer, and what the normalizer calls it.
NORMALIZER_CHOICES: Final = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}

# Whose vocab.txt is read alike, by their names without "Fast".
WORDPIECE_CLASSES: Final = {
    "BertTokenizer", "BertWordPieceTokenizer", "ConvBertTokenizer", "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer", "DPRReaderTokenizer", "DistilBertTokenizer", "ElectraTokenizer",
    "FunnelTokenizer", "LayoutLMTokenizer", "LxmertTokenizer", "MobileBertTokenizer",
    "PreTrainedTokenizer", "RetriBertTokenizer", "SqueezeBertTokenizer", "TokenizersBackend",
}  # fmt: skip


class Vocabulary(NamedTuple):
    """What a text is split with."""

    path: Path
    pieces: Tokenizer


def read_settings(folder: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Read special_tokens_map.json and tokenizer_config.json, which overrides it, as changed."""
    settings: dict[str, Any] = {}
    for name in (SPECIALS_MAP, SETTINGS):
        if is_listed(folder / name):
            said = read_json_object(folder / name, VOCABULARY_LIMIT)
            check_settings(said, folder / name)
            warn_of_unknown(folder / name, said, TOKENIZER_KEYS, TOKENIZER_WITHOUT_EFFECT)
            settings |= {
                role: token
                for role, token in said.items()
                # The older file may know more of the same token.
                if not isinstance(token, str) or token != token_content(settings.get(role), "")
            }
    check_settings(changes, folder)
    return {**settings, **changes}


def read_vocabulary(folder: Path, settings: Mapping[str, Any]) -> Vocabulary | None:
    """Read tokenizer.json, or else vocab.txt; return None where there is neither."""
    whole, words = folder / "tokenizer.json", folder / "vocab.txt"
    if is_listed(whole):
        with blame_file(whole):
            raw = read_bytes(whole, VOCABULARY_LIMIT)
            data = parse_json_object(raw, str(whole))
            with _import_lock:  # the package has locks of its own, which a fork would copy
                added = list_added_tokens(data)
                check_limits(data, added, str(whole))
                pieces = Tokenizer.from_buffer(raw)
        apply_settings(pieces, settings, whole)
        apply_prefix_space(pieces, settings, whole)
        path = whole
    elif is_listed(words):
        path = words
        require_wordpiece(settings, words)
        with blame_file(words):
            pieces, added = wordpiece_tokenizer(words, settings), {}
    else:
        return None
    with blame_file(path):
        add_tokens(pieces, added, settings, path)
    return Vocabulary(path, pieces)


def check_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse settings that would be followed wrongly.  Raises CheckpointError with all faults."""
    faults = []
    for name in NORMALIZER_CHOICES:
        if not isinstance(settings.get(name), bool | None):
            faults.append(f"{name} is {quote(settings[name])}, expected true, false or null")
    for role in SPECIALS:
        token = settings.get(role)
        token = token.get("content") if isinstance(token, Mapping) else token
        if not isinstance(token, str | None):
            faults.append(f"{role} is {quote(settings[role])}, expected a token")
    for name in ("model_max_length", "max_len"):
        limit = settings.get(name)
        if (
            isinstance(limit, bool)
            or not isinstance(limit, int | float | None)
            or not (limit or 1) >= 1
        ):
            faults.append(f"{name} is {quote(limit)}, expected a number of tokens")
        elif limit == float("inf"):
            faults.append(f"{name} is infinite, expected a number of tokens")
    faults += check_added(settings)
    if settings.get("truncation_side", "right") not in ("left", "right"):
        faults.append(f"truncation_side is {settings['truncation_side']!r}, expected left or right")
    if faults:
        raise CheckpointError(f"{path}: {listing(faults)}")


@contextmanager
def blame_file(path: Path) -> Iterator[None]:
    """Turn what the tokenizers package throws, its panics too, into a CheckpointError."""
    try:
        yield
    except CheckpointError as error:
        text, told = str(error), str(error).startswith(f"{path.parent}{os.sep}")
        raise CheckpointError(text if told else f"{path}: {text}") from None
    except BaseException as error:
        raise blame_error(error, path) from None


def blame_error(error: BaseException, path: Path) -> BaseException:
    """Return what to raise for something that the tokenizers package threw, or that passes by."""
    if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError | NpbertError):
        return error
    return CheckpointError(f"{path}: is no tokenizer: {str(error)[:200]}")


def normalizer_choices(pieces: Tokenizer) -> dict[str, Any]:
    """Return what BERT's normalizer does, in the words of tokenizer_config.json."""
    normalizer = pieces.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return {}
    return {theirs: getattr(normalizer, ours) for theirs, ours in NORMALIZER_CHOICES.items()}


def apply_settings(pieces: Tokenizer, settings: Mapping[str, Any], path: Path) -> None:
    """Follow tokenizer_config.json where it contradicts tokenizer.json, and say so.

    transformers lets the settings win, and takes do_lower_case for true where they are silent.
    Here what is explicit wins; where nothing is, tokenizer.json does, and the difference is told.
    """
    has = normalizer_choices(pieces)
    asked = {name: settings[name] for name in has if settings.get(name) not in (None, has[name])}
    for name, value in asked.items():
        warn(
            f"{path} says {NORMALIZER_CHOICES[name]} = {has[name]}, {SETTINGS} says "
            f"{name} = {value}; the latter holds"
        )
    if asked:
        made = {NORMALIZER_CHOICES[name]: value for name, value in {**has, **asked}.items()}
        clean = pieces.normalizer.clean_text
        pieces.normalizer = normalizers.BertNormalizer(clean_text=clean, **made)
    elif has and settings.get("do_lower_case") is None and not has["do_lower_case"]:
        warn(
            f"{path} keeps capitals, and {SETTINGS} does not say do_lower_case; npbert keeps them "
            "too, transformers would lower-case (write do_lower_case into it to settle this)"
        )


def apply_prefix_space(pieces: Tokenizer, settings: Mapping[str, Any], path: Path) -> None:
    """Follow add_prefix_space, which byte-level BPE has; where it contradicts the file, say so.

    transformers takes it for false where the settings are silent; here tokenizer.json decides.
    """
    found = pieces.pre_tokenizer
    if not isinstance(found, pre_tokenizers.ByteLevel):
        return
    said, has = settings.get("add_prefix_space"), found.add_prefix_space
    if isinstance(said, bool) and said != has:
        warn(f"{path} says add_prefix_space = {has}, {SETTINGS} says {said}; the latter holds")
        found.add_prefix_space = said
        pieces.pre_tokenizer = found
    elif said is None and has:
        warn(
            f"{path} puts a space before a text, and {SETTINGS} does not say add_prefix_space; "
            "npbert does so, transformers would not (write add_prefix_space into it to settle this)"
        )


def require_wordpiece(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse a vocab.txt that another tokenizer than BERT's splits texts with."""
    named = settings.get("tokenizer_class")
    if isinstance(named, str) and named.removesuffix("Fast") not in WORDPIECE_CLASSES:
        raise CheckpointError(
            f"{path}: is of a {named}, which splits texts otherwise than BERT does; write its "
            "tokenizer.json with transformers' fast tokenizer, if it has one"
        )


def wordpiece_tokenizer(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """Make the tokenizer that BERT's vocab.txt stands for, one piece a line."""
    try:
        text = read_bytes(path, VOCABULARY_LIMIT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    # Only "\n" ends a piece: some vocabularies have other line separators as pieces.
    words = {word.rstrip("\r"): i for i, word in enumerate(text.removesuffix("\n").split("\n"))}
    names = {role: token_content(settings.get(role), usual) for role, usual in SPECIALS.items()}
    absent = [
        names[role] for role in ("unk_token", "cls_token", "sep_token") if names[role] not in words
    ]
    if absent:
        raise CheckpointError(
            f"{path}: has {len(words)} pieces, and {listing(absent)} not among them"
        )
    pieces = Tokenizer(WordPiece(words, unk_token=names["unk_token"]))
    basic = settings.get("do_basic_tokenize") is not False
    pieces.normalizer = normalizers.BertNormalizer(
        lowercase=basic and settings.get("do_lower_case") is not False,
        strip_accents=settings.get("strip_accents") if basic else False,
        handle_chinese_chars=basic and settings.get("tokenize_chinese_chars") is not False,
    )
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    cls, sep = names["cls_token"], names["sep_token"]
    pieces.post_processor = processors.BertProcessing((sep, words[sep]), (cls, words[cls]))
    return pieces
