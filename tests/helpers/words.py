"""Small tokenizers in folders, as a checkpoint brings them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from npbert.text.tokenizer import Tokenizer
from npbert.text.tokenizer_files import NORMALIZER_CHOICES

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
UNCASED = [
    *SPECIALS, "the", "cat", "cafe", "un", "play", "##play", "##able", "##s", ",", ".", "!", "猫",
    "שלום", "caf\u00e9", "a", "##a", "##the", "##猫",
]  # fmt: skip
CASED = [*UNCASED, "The", "Cat", "THE"]
TEXTS = [
    "", "the cat", "The CAT, unplayable!", "caf\u00e9 cafe\u0301 CAF\u00c9", "猫the猫 a猫a",
    "🐈 the", "the [MASK] [SEP] [mask]", "שלום,the", "  the\u3000cat\n", "the\u200bcat\ufffd",
    "a" * 120,
]  # fmt: skip


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def folder(
    path: Path,
    *,
    whole: bool = True,
    vocabulary: list[str] = UNCASED,
    settings: Mapping[str, Any] | None = None,
    **choices: Any,
) -> Path:
    """Write tokenizer.json, or if not `whole` vocab.txt, and the settings beside it."""
    if settings is not None:
        write(path / "tokenizer_config.json", settings)
    if not whole:
        (path / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        return path
    ids = {word: i for i, word in enumerate(vocabulary)}
    made = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(**choices)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    made.save(str(path / "tokenizer.json"))
    return path


def normalizer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a tokenizer.json has to say in order to agree with settings."""
    return {
        ours: settings[theirs] for theirs, ours in NORMALIZER_CHOICES.items() if theirs in settings
    }


def loaded(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_folder(path, 31)
    assert tokenizer is not None
    return tokenizer
