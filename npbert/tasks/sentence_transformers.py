"""From the vectors of tokens to the vector of a sentence, as sentence-transformers folders say it.

modules.json lists what happens after the encoder: Pooling, Dense, LayerNorm, Normalize.  Every
module is run or refused by name; none is passed over.  Source: Reimers and Gurevych 2019,
"Sentence-BERT", and the modules of sentence-transformers 5, whose files these are.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from npbert.checkpoint import MODULES
from npbert.checkpoint.folders import read_modules
from npbert.checkpoint.known_keys import POOLING_KEYS, POOLING_WITHOUT_EFFECT, warn_of_unknown
from npbert.checkpoint.reading import read_json_object
from npbert.errors import CheckpointError, listing, quote
from npbert.tasks.modules import (
    MODULE_READERS,
    POOLINGS,
    ModuleFunction,
    pool,
    read_dense,
    require_finite,
)
from npbert.tasks.rows import FEATURE_EXTRACTION, SENTENCE_EMBEDDING, SPARSE_EMBEDDING
from npbert.tasks.sentence_settings import EncoderOutput, TextSettings, read_text_settings
from npbert.textbook import Array, Tap, no_tap

FORMER_KINDS: Final = {"MLMTransformer": "Transformer"}  # module: what took its place
KIND_HINTS: Final = {
    "Pooling": f"this is a model of {SENTENCE_EMBEDDING.name}",
    "SpladePooling": f"this is a model of {SPARSE_EMBEDDING.name}",
}

EMBEDS: Final = EncoderOutput(FEATURE_EXTRACTION.name, "last_hidden_state")
TOKENS_OF: Final = "token_embeddings"  # what a module reads that stands before the pooling


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
    path = places[middle] / "config.json"
    pooling = read_json_object(path)
    flags = [flag for flag, _ in POOLINGS.values()]
    warn_of_unknown(path, pooling, (*POOLING_KEYS, *flags), POOLING_WITHOUT_EFFECT)
    steps = [
        (under.name, MODULE_READERS[name](under, dtype))
        for name, under in zip(names[middle + 1 :], places[middle + 1 :], strict=True)
    ]
    return encoder, Recipe(
        modes=pooling_modes(pooling, path),
        include_prompt=pooling.get("include_prompt", True) is not False,
        token_steps=[(u.name, read_dense(u, dtype, TOKENS_OF)) for u in places[1:middle]],
        steps=steps,
        **read_text_settings(folder, encoder, "cosine", EMBEDS),
    )


def read_embedder(folder: Path, dtype: type[np.floating] = np.float32) -> Recipe | None:
    """Return what happens after an encoder; None where none is dense, as of a cross-encoder."""
    dense = read_modules(folder)[1:] and not is_sparse(folder)
    found = read_recipe(folder, dtype) if dense else None
    return found and found[1]


def describe_recipe(recipe: Recipe, hidden_size: int) -> dict[str, Any]:
    """Return what there is to know about how embeddings are made, as JSON."""
    return {
        "dimensions": recipe.dimensions(hidden_size),
        "pooling": list(recipe.modes),
        "max_length": recipe.max_length,
        "prompts": dict(recipe.prompts.named),
        "default_prompt_name": recipe.prompts.default,
        "similarity": recipe.similarity,
        "truncate_dim": recipe.truncate_dim,
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
