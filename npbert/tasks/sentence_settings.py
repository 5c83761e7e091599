"""The settings that sentence-transformers writes of a model, an encoder and its tokenizer.

What is said there is followed, refused by name, or told of; see checkpoint/known_keys.py.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from npbert.checkpoint.known_keys import (
    CONFIG_WITHOUT_EFFECT,
    ENCODER_KEYS,
    ENCODER_WITHOUT_EFFECT,
    MODEL_ARGS_WITHOUT_EFFECT,
    SENTENCE_KEYS,
    SENTENCE_WITHOUT_EFFECT,
    TOKENIZER_KEYS,
    TOKENIZER_WITHOUT_EFFECT,
    Reasons,
    unknown_keys,
    warn_of_unknown,
)
from npbert.checkpoint.reading import read_json_object
from npbert.errors import CheckpointError, InputError, listing, quote
from npbert.hub.cache import ENCODER_SETTINGS
from npbert.model import Model
from npbert.tasks.search import SCORE_FUNCTIONS
from npbert.text.tokenizer import Tokenizer

SENTENCE_SETTINGS: Final = "config_sentence_transformers.json"
SIMILARITIES: Final = tuple(SCORE_FUNCTIONS)


class EncoderOutput(NamedTuple):
    """What the modules behind an encoder read of it, in the words of sentence-transformers."""

    task: str
    name: str


@dataclass(frozen=True)
class Prompts:
    """What may stand before a text, by name, and what does when nobody says."""

    named: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None

    def choose(self, prompt: str | None, name: str | None) -> str:
        """Return the prompt as given, or by its name.  Raises InputError for no name of one."""
        if prompt is not None:
            return prompt
        name = self.default if name is None else name
        if name is not None and name not in self.named:
            raise InputError(
                f"prompt_name is {name!r}, but the model has {listing(self.named) or 'no prompts'}"
            )
        return "" if name is None else self.named[name]


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """What a folder says of how its texts are read, and how alike two of them are."""

    max_length: int | None = None  # tokens
    truncate_dim: int | None = None
    lower: bool = False
    prompts: Prompts = field(default_factory=Prompts)
    similarity: str = "cosine"

    def prepare_text(self, text: Any, prompt: str) -> Any:
        """Return a text behind its prompt, as the tokenizer shall see it."""
        if not isinstance(text, str):  # which the tokenizer refuses
            return text
        return (prompt + text).lower() if self.lower else prompt + text


def read_sentence_settings(folder: Path) -> dict[str, Any]:
    """Return what sentence-transformers says of a model as a whole, or nothing."""
    said = read_first(folder, (SENTENCE_SETTINGS,))
    warn_of_unknown(folder / SENTENCE_SETTINGS, said, SENTENCE_KEYS, SENTENCE_WITHOUT_EFFECT)
    return said


def read_encoder_settings(folder: Path) -> dict[str, Any]:
    """Return what it says of an encoder, or nothing.  Raises CheckpointError."""
    settings = read_first(folder, ENCODER_SETTINGS)
    path = folder / ENCODER_SETTINGS[0]
    warn_of_unknown(path, settings, ENCODER_KEYS, ENCODER_WITHOUT_EFFECT)
    refuse_arguments(settings, path)
    length = settings.get("max_seq_length")
    if length is not None and (type(length) is not int or length < 1):
        raise CheckpointError(
            f"{folder}: max_seq_length is {quote(length)}, expected a whole number from 1"
        )
    return settings


def refuse_arguments(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse arguments of constructors that npbert does not follow.  Raises CheckpointError."""
    known: Mapping[str, tuple[Collection[str], Reasons]] = {
        "model_args": ((), MODEL_ARGS_WITHOUT_EFFECT),
        "model_kwargs": ((), MODEL_ARGS_WITHOUT_EFFECT),
        "config_args": ((), CONFIG_WITHOUT_EFFECT),
        "config_kwargs": ((), CONFIG_WITHOUT_EFFECT),
        "tokenizer_args": (TOKENIZER_KEYS, TOKENIZER_WITHOUT_EFFECT),
        "processor_kwargs": (TOKENIZER_KEYS, TOKENIZER_WITHOUT_EFFECT),
        "processing_kwargs": ((), {}),
    }
    for name, (followed, without_effect) in known.items():
        said = settings.get(name) or {}
        if not isinstance(said, dict):
            raise CheckpointError(f"{path}: {name} is {quote(said)}, expected an object")
        if odd := unknown_keys(said, followed, without_effect):
            raise CheckpointError(
                f"{path}: {name} says {odd[0]} = {quote(said[odd[0]])}, which npbert does not "
                "follow from here; write it into the model's own settings, or take it away if it "
                "does not matter"
            )


def read_tokenizer_changes(folder: Path) -> dict[str, Any]:
    """Return what sentence-transformers changes of the tokenizer's settings."""
    settings = read_first(folder, ENCODER_SETTINGS)
    return {**(settings.get("tokenizer_args") or {}), **(settings.get("processor_kwargs") or {})}


def with_tokenizer_changes(model: Model) -> Model:
    """Return the model with the tokenizer that sentence-transformers makes of its folder."""
    folder = model.folder
    if folder and (changes := read_tokenizer_changes(folder)):
        model = copy(model)
        model.tokenizer = Tokenizer.from_folder(folder, model.config.max_positions, changes)
    return model


def require_output(output: EncoderOutput, settings: Mapping[str, Any], folder: Path) -> None:
    """Refuse settings that ask the encoder for another output.  Raises CheckpointError."""
    modality = settings.get("modality_config")
    text = modality.get("text") if isinstance(modality, dict) else None
    asked = {
        "transformer_task": (settings.get("transformer_task"), output.task),
        "module_output_name": (settings.get("module_output_name"), "token_embeddings"),
    }
    if isinstance(text, dict):
        asked["method"] = (text.get("method"), "forward")
        asked["method_output_name"] = (text.get("method_output_name"), output.name)
    for name, (value, expected) in asked.items():
        if value not in (None, expected):
            raise CheckpointError(
                f"{folder / ENCODER_SETTINGS[0]}: {name} is {quote(value)}, expected {expected!r}"
            )


def read_text_settings(
    folder: Path, encoder: Path, similarity: str, output: EncoderOutput
) -> dict[str, Any]:
    """Return the fields of TextSettings; `similarity` is used where nothing is said of it.

    Raises CheckpointError where the encoder is asked for another output.
    """
    settings, more = read_encoder_settings(encoder), read_sentence_settings(folder)
    require_output(output, settings, encoder)
    dim = more.get("truncate_dim")
    if dim is not None and (type(dim) is not int or dim < 1):
        raise CheckpointError(
            f"{folder / SENTENCE_SETTINGS}: truncate_dim is {quote(dim)}, expected a whole number "
            "from 1, or null"
        )
    named = more.get("similarity_fn_name") or similarity
    if named not in SIMILARITIES:
        raise CheckpointError(
            f"{folder / SENTENCE_SETTINGS}: similarity_fn_name is {quote(named)}, expected "
            f"one of {', '.join(SIMILARITIES)}"
        )
    return {
        "max_length": settings.get("max_seq_length"),
        "truncate_dim": dim,
        "lower": settings.get("do_lower_case") is True,
        "prompts": read_prompts(more, folder),
        "similarity": named,
    }


def read_prompts(settings: Mapping[str, Any], folder: Path) -> Prompts:
    """Return a model's prompts.  Raises CheckpointError."""
    path = folder / SENTENCE_SETTINGS
    named, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if isinstance(named, dict):
        named = {name: "" if prompt is None else prompt for name, prompt in named.items()}
    if not isinstance(named, dict) or not all(isinstance(p, str) for p in named.values()):
        raise CheckpointError(f"{path}: prompts is {quote(named)}, expected an object of strings")
    if default is not None and default not in list(named):  # it may be of any type
        raise CheckpointError(
            f"{path}: default_prompt_name is {quote(default)}, which is not among the prompts, "
            f"{listing(named) or 'of which there are none'}"
        )
    return Prompts(named, default)


def read_first(folder: Path, files: Sequence[str]) -> dict[str, Any]:
    """Return the contents of the first of these files that is there, or nothing."""
    there = [folder / name for name in files if os.path.lexists(folder / name)]
    return read_json_object(there[0]) if there else {}
