"""Text to ids and offsets, over the tokenizers package, without its surprises.

Texts are cut before [CLS] and [SEP] are added, so that a cut text still has them, and how much was
cut is told.  Offsets count characters of the text as it was given.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Pieces
from tokenizers.models import WordPiece

from npbert.errors import CheckpointError, InputError, NpbertWarning, listed
from npbert.files import read_bytes, read_json_object

SPECIALS: Final = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]",
    "cls_token": "[CLS]", "mask_token": "[MASK]",
}  # fmt: skip
SETTINGS: Final = "tokenizer_config.json"
SPECIALS_MAP: Final = "special_tokens_map.json"
VOCABULARY_LIMIT: Final = 32 << 20  # bytes; that of the multilingual DistilBERT has 2 million

# What tokenizer_config.json calls a choice of the normalizer, and what the normalizer calls it.
CHOICES: Final = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


@dataclass(frozen=True)
class Encoding:
    """A text, or a pair, as the model reads it; all lists have one entry per token."""

    ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]  # characters of the text it comes from, [start, end)
    word_ids: list[int | None]  # which word of the text; None for [CLS] and its like
    sequence_ids: list[int | None]  # 0 the text, 1 its pair, None neither
    cut: int  # tokens that did not fit


class Tokenizer:
    """A WordPiece tokenizer and the special tokens that a DistilBERT was trained with."""

    def __init__(self, pieces: Pieces, settings: Mapping[str, Any], max_length: int) -> None:
        self.pieces = pieces
        self.settings = settings
        self.max_length = max_length  # tokens, [CLS] and [SEP] included
        pieces.no_truncation()
        pieces.no_padding()
        for role, usual in SPECIALS.items():
            text = content(settings.get(role), usual)
            if pieces.token_to_id(text) is not None:  # so that "[MASK]" in a text is one token
                pieces.add_special_tokens([AddedToken(text, special=True, normalized=False)])

    @classmethod
    def from_folder(cls, folder: Path, max_positions: int) -> Self | None:
        """Read tokenizer.json, or vocab.txt; return None where there is neither.

        Raises CheckpointError naming the file at fault.
        """
        settings: dict[str, Any] = {}
        for name in (SPECIALS_MAP, SETTINGS):  # the second overrides the first
            if (folder / name).exists():
                settings |= read_json_object(folder / name)
        check(settings, folder / SETTINGS)
        whole, words = folder / "tokenizer.json", folder / "vocab.txt"
        if whole.exists():
            pieces = read_pieces(whole)
            heed(pieces, settings, whole)
        elif words.exists():
            pieces = from_words(words, settings)
        else:
            return None
        limit = settings.get("model_max_length")  # 1e30 means that nobody said
        return cls(pieces, settings, min(int(limit or max_positions), max_positions))

    def id_of(self, role: str) -> int | None:
        """Return the id of a special token by its role, e.g. "mask_token", or None."""
        return self.pieces.token_to_id(self.text_of(role))

    @property
    def size(self) -> int:
        """How many ids have a token."""
        return self.pieces.get_vocab_size()

    def text_of(self, role: str) -> str:
        """Return how a special token is written in a text, e.g. "[MASK]"."""
        return content(self.settings.get(role), SPECIALS[role])

    def encode(self, text: str, pair: str | None = None, max_length: int | None = None) -> Encoding:
        """Return a text, or a text and its pair, as tokens, at most `max_length` of them.

        What does not fit is cut from the end of the text, or of the longer of the two (from
        the start where the settings say truncation_side left), before [CLS] and [SEP] are added.
        Raises InputError for what is no valid text.
        """
        given = [text] if pair is None else [text, pair]
        for part in given:
            valid(part)
        parts = [self.pieces.encode(part, add_special_tokens=False) for part in given]
        limit = self.max_length if max_length is None else min(max_length, self.max_length)
        room = limit - self.pieces.num_special_tokens_to_add(pair is not None)
        if room < len(parts):
            raise InputError(
                f"max_length is {limit}, which leaves no room for text beside the special tokens"
            )
        lengths = [len(encoding) for encoding in parts]
        side = self.settings.get("truncation_side", "right")
        for encoding, keep in zip(parts, share(lengths, room), strict=True):
            encoding.truncate(keep, direction=side)
        whole = self.pieces.post_process(parts[0], None if pair is None else parts[1])
        return Encoding(
            whole.ids, whole.tokens, whole.offsets, whole.word_ids, whole.sequence_ids,
            max(0, sum(lengths) - room),
        )  # fmt: skip

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text that ids spell, pieces joined to words."""
        return self.pieces.decode(list(ids), skip_special_tokens=skip_special)

    def save(self, path: Path) -> None:
        """Write what tokenizer.json holds; the settings beside it are JSON as they are."""
        self.pieces.save(str(path))


def valid(text: Any) -> None:
    """Refuse what is no text.  Raises InputError."""
    if not isinstance(text, str):
        raise InputError(f"a text is a str, not {type(text).__name__}: {str(text)[:80]!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text has half a character, {text[error.start]!a}, at position {error.start}; "
            "it was decoded from broken UTF-16 or with surrogateescape"
        ) from None


def share(lengths: list[int], room: int) -> list[int]:
    """Return how many tokens each part keeps: the longer one loses first, as in transformers."""
    if sum(lengths) <= room or len(lengths) == 1:
        return [min(n, room) for n in lengths]
    shorter = min(*lengths, room // 2)
    first = shorter if lengths[0] <= lengths[1] else room - shorter
    return [min(first, lengths[0]), min(room - first, lengths[1])]


def content(token: Any, default: str) -> str:
    """Return a special token as settings spell it: a string, an object with content, or null."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) and token else default


def check(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse settings that would be followed wrongly.  Raises CheckpointError with all faults."""
    faults = []
    for name in CHOICES:
        if not isinstance(settings.get(name), bool | None):
            faults.append(f"{name} is {str(settings[name])[:80]!r}, expected true, false or null")
    for role in SPECIALS:
        token = settings.get(role)
        token = token.get("content") if isinstance(token, Mapping) else token
        if not isinstance(token, str | None):
            faults.append(f"{role} is {str(settings[role])[:80]!r}, expected a token")
    limit = settings.get("model_max_length")
    if (
        isinstance(limit, bool)
        or not isinstance(limit, int | float | None)
        or not (limit or 1) >= 1
    ):
        faults.append(f"model_max_length is {str(limit)[:80]!r}, expected a number of tokens")
    elif limit == float("inf"):
        faults.append("model_max_length is infinite, expected a number of tokens")
    if settings.get("truncation_side", "right") not in ("left", "right"):
        faults.append(f"truncation_side is {settings['truncation_side']!r}, expected left or right")
    if faults:
        raise CheckpointError(f"{path}: {listed(faults)}")


def read_pieces(path: Path) -> Pieces:
    """Read tokenizer.json.  Raises CheckpointError; the library's own panics included."""
    raw = read_bytes(path, VOCABULARY_LIMIT)
    try:
        return Pieces.from_buffer(raw)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic is no Exception
        raise CheckpointError(f"{path}: is no tokenizer: {str(error)[:200]}") from None


def heed(pieces: Pieces, settings: Mapping[str, Any], path: Path) -> None:
    """Follow tokenizer_config.json where it contradicts tokenizer.json, and say so.

    transformers lets the settings win, and takes do_lower_case for true where they are silent.
    Here what is explicit wins; where nothing is, tokenizer.json does, and the difference is told.
    """
    normalizer = pieces.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return
    changed = {}
    for theirs, ours in CHOICES.items():
        asked, has = settings.get(theirs), getattr(normalizer, ours)
        if asked is not None and asked != has:
            changed[ours] = asked
            warn(
                f"{path} says {ours} = {has}, {SETTINGS} says {theirs} = {asked}; the latter holds"
            )
    if changed:
        kept = {n: getattr(normalizer, n) for n in ("clean_text", *CHOICES.values())}
        pieces.normalizer = normalizers.BertNormalizer(**{**kept, **changed})
    elif settings.get("do_lower_case") is None and not normalizer.lowercase:
        warn(
            f"{path} keeps capitals, and {SETTINGS} does not say do_lower_case; npbert keeps them "
            "too, transformers would lower-case (write do_lower_case into it to settle this)"
        )


def warn(message: str) -> None:
    """Warn from where the caller of npbert.load can see it."""
    warnings.warn(message, NpbertWarning, stacklevel=6)


def from_words(path: Path, settings: Mapping[str, Any]) -> Pieces:
    """Make the tokenizer that BERT's vocab.txt stands for, one piece a line."""
    try:
        text = read_bytes(path, VOCABULARY_LIMIT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    # Only "\n" ends a piece: some vocabularies have other line separators as pieces.
    words = {word.rstrip("\r"): i for i, word in enumerate(text.removesuffix("\n").split("\n"))}
    names = {role: content(settings.get(role), usual) for role, usual in SPECIALS.items()}
    absent = [
        names[role] for role in ("unk_token", "cls_token", "sep_token") if names[role] not in words
    ]
    if absent:
        raise CheckpointError(
            f"{path}: has {len(words)} pieces, and {listed(absent)} not among them"
        )
    pieces = Pieces(WordPiece(words, unk_token=names["unk_token"]))
    lower = settings.get("do_lower_case")
    chinese = settings.get("tokenize_chinese_chars")
    pieces.normalizer = normalizers.BertNormalizer(
        lowercase=lower is not False,
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=chinese is not False,
    )
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    cls, sep = names["cls_token"], names["sep_token"]
    pieces.post_processor = processors.BertProcessing((sep, words[sep]), (cls, words[cls]))
    return pieces
