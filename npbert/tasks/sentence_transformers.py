"""From the vectors of tokens to the vector of a sentence, as sentence-transformers folders say it.

modules.json lists what happens after the encoder: Pooling, Dense, LayerNorm, Normalize.  Every
module is run or refused by name; none is passed over.  Source: Reimers and Gurevych 2019,
"Sentence-BERT", and the modules of sentence-transformers 5, whose files these are.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from npbert.checkpoint import MODULES
from npbert.checkpoint.folders import read_modules
from npbert.checkpoint.reading import read_json_object
from npbert.errors import CheckpointError, InputError, listing, quote
from npbert.hub.cache import ENCODER_SETTINGS
from npbert.tasks.modules import (
    MODULE_READERS,
    POOLINGS,
    ModuleFunction,
    pool,
    read_dense,
    require_finite,
)
from npbert.tasks.rows import SENTENCE_EMBEDDING, SPARSE_EMBEDDING
from npbert.tasks.search import SCORE_FUNCTIONS
from npbert.textbook import Array, Tap, no_tap

FORMER_KINDS: Final = {"MLMTransformer": "Transformer"}  # module: what took its place
KIND_HINTS: Final = {
    "Pooling": f"this is a model of {SENTENCE_EMBEDDING.name}",
    "SpladePooling": f"this is a model of {SPARSE_EMBEDDING.name}",
}

SENTENCE_SETTINGS: Final = "config_sentence_transformers.json"
SIMILARITIES: Final = tuple(SCORE_FUNCTIONS)
TOKENS_OF: Final = "token_embeddings"  # what a module reads that stands before the pooling


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
    lower: bool = False
    prompts: Prompts = field(default_factory=Prompts)
    similarity: str = "cosine"

    def prepare_text(self, text: Any, prompt: str) -> Any:
        """Return a text behind its prompt, as the tokenizer shall see it."""
        if not isinstance(text, str):  # which the tokenizer refuses
            return text
        return (prompt + text).lower() if self.lower else prompt + text


@dataclass(frozen=True, kw_only=True)
class Recipe(TextSettings):
    """What becomes of the hidden states of a text."""

    modes: Sequence[str] = ("mean",)
    include_prompt: bool = True
    token_steps: Sequence[tuple[str, ModuleFunction]] = ()  # before pooling, by their folders
    steps: Sequence[tuple[str, ModuleFunction]] = ()  # after pooling

    def dimensions(self, hidden_size: int) -> int:
        """Return how many dimensions an embedding has."""
        return len(self.embed(np.zeros((1, hidden_size), np.float32)))

    def embed(self, x: Array, skipped: int = 0, tap: Tap = no_tap) -> Array:
        """Return the vector of a text whose tokens have these, (tokens, D).

        A tap hears "pooling", and what follows under its module's folder, e.g. "2_Dense".  Raises
        CheckpointError naming the first module that makes what is not finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            for name, step in self.token_steps:
                x = require_finite(name, step(x))
            made = pool(x, self.modes, 0 if self.include_prompt else skipped)
            made = tap("pooling", require_finite("pooling", made))
            for name, step in self.steps:
                made = tap(name, require_finite(name, step(made)))
        return tap("sentence_embedding", made)


def read_recipe(folder: Path, dtype: type[np.floating] = np.float32) -> tuple[Path, Recipe] | None:
    """Return the encoder's folder, and what happens after it; None where no modules.json is.

    Raises CheckpointError naming the file at fault, or the module that npbert cannot run.
    """
    path = folder / MODULES
    if not os.path.lexists(path):
        return None
    names, places = name_modules(folder, "Pooling", ("Dense",), tuple(MODULE_READERS))
    encoder, middle = places[0], names.index("Pooling")
    pooling = read_json_object(places[middle] / "config.json")
    steps = [
        (under.name, MODULE_READERS[name](under, dtype))
        for name, under in zip(names[middle + 1 :], places[middle + 1 :], strict=True)
    ]
    return encoder, Recipe(
        modes=pooling_modes(pooling, places[middle] / "config.json"),
        include_prompt=pooling.get("include_prompt", True) is not False,
        token_steps=[(u.name, read_dense(u, dtype, TOKENS_OF)) for u in places[1:middle]],
        steps=steps,
        **read_text_settings(folder, encoder, "cosine"),
    )


def read_embedder(
    folder: Path, dtype: type[np.floating] = np.float32
) -> tuple[Path, Recipe] | None:
    """Return the same as read_recipe; None too where none is dense, as of a cross-encoder."""
    kinds = [kind.rpartition(".")[2] for kind, _ in read_modules(folder)]
    return read_recipe(folder, dtype) if kinds[1:] and not is_sparse(folder) else None


def describe_recipe(recipe: Recipe, hidden_size: int) -> dict[str, Any]:
    """Return what there is to know about how embeddings are made, as JSON."""
    return {
        "dimensions": recipe.dimensions(hidden_size),
        "pooling": list(recipe.modes),
        "max_length": recipe.max_length,
        "prompts": dict(recipe.prompts.named),
        "default_prompt_name": recipe.prompts.default,
        "similarity": recipe.similarity,
    }


def is_sparse(folder: Path) -> bool:
    """Tell whether the modules of a folder make sparse embeddings.  Raises CheckpointError."""
    return any(kind.endswith(".SpladePooling") for kind, _ in read_modules(folder))


def name_modules(
    folder: Path, pooling: str, before: Sequence[str] = (), after: Sequence[str] = ()
) -> tuple[list[str], list[Path]]:
    """Return what the modules of a folder are called, and where they are.

    They are an encoder, what may stand before the pooling, this, and what may follow.  Raises
    CheckpointError for others.
    """
    path, found = folder / MODULES, read_modules(folder)
    known = tuple(dict.fromkeys(("Transformer", pooling, *before, *after)))
    names = module_kinds([kind for kind, _ in found], path, known)
    first, *others = names or [""]
    early, late = others, [pooling]  # where it is missing, it may not follow either
    if pooling in others:
        early, late = others[: others.index(pooling)], others[others.index(pooling) + 1 :]
    if first != "Transformer" or set(early) - {*before} or set(late) - {*after}:
        raise CheckpointError(
            f"{path}: lists {listing(names) or 'nothing'}; expected Transformer, then {pooling}"
        )
    return names, [place for _, place in found]


def read_text_settings(folder: Path, encoder: Path, similarity: str) -> dict[str, Any]:
    """Return the fields of TextSettings; `similarity` is used where nothing is said of it."""
    settings, more = read_encoder_settings(encoder), read_sentence_settings(folder)
    named = more.get("similarity_fn_name") or similarity
    if named not in SIMILARITIES:
        raise CheckpointError(
            f"{folder / SENTENCE_SETTINGS}: similarity_fn_name is {quote(named)}, expected "
            f"one of {', '.join(SIMILARITIES)}"
        )
    return {
        "max_length": settings.get("max_seq_length"),
        "lower": settings.get("do_lower_case") is True,
        "prompts": read_prompts(folder),
        "similarity": named,
    }


def module_kinds(types: Sequence[str], path: Path, known: Sequence[str]) -> list[str]:
    """Return the last word of each module's type.  Raises CheckpointError for one not known."""
    kinds = []
    for i, named in enumerate(types):
        package, _, name = named.rpartition(".")
        name = FORMER_KINDS.get(name, name)
        if not package.startswith("sentence_transformers.") or name not in known:
            hint = f"; {KIND_HINTS[name]}" if name in KIND_HINTS else ""
            raise CheckpointError(
                f"{path}: module {i} is {quote(named)}, which npbert cannot run here; it runs "
                f"{', '.join(known)} of sentence_transformers{hint}"
            )
        kinds.append(name)
    return kinds


def read_sentence_settings(folder: Path) -> dict[str, Any]:
    """Return what sentence-transformers says of a model as a whole, or nothing."""
    return read_first(folder, (SENTENCE_SETTINGS,))


def read_encoder_settings(folder: Path) -> dict[str, Any]:
    """Return what it says of an encoder, or nothing.  Raises CheckpointError."""
    settings = read_first(folder, ENCODER_SETTINGS)
    length = settings.get("max_seq_length")
    if length is not None and (type(length) is not int or length < 1):
        raise CheckpointError(
            f"{folder}: max_seq_length is {quote(length)}, expected a whole number from 1"
        )
    return settings


def read_prompts(folder: Path) -> Prompts:
    """Return a model's prompts.  Raises CheckpointError."""
    settings, path = read_sentence_settings(folder), folder / SENTENCE_SETTINGS
    named, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
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


def pooling_modes(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Return how tokens are pooled: a name or several, or as old files say it, by flags."""
    named = config.get("pooling_mode")
    if named is None:
        flagged = [mode for mode, (flag, _) in POOLINGS.items() if config.get(flag) is True]
        return tuple(flagged) or ("mean",)
    modes = [named] if isinstance(named, str) else named
    known = isinstance(modes, list) and set(map(str, modes)) <= set(POOLINGS)
    if not modes or not known or len(modes) > len(POOLINGS):
        raise CheckpointError(
            f"{path}: pooling_mode is {quote(named)}, expected of {', '.join(POOLINGS)}"
        )
    return tuple(modes)
