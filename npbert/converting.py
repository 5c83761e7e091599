"""pytorch_model.bin to model.safetensors: the same tensors, names and dtypes in a safer file."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from npbert.checkpoint import our_name
from npbert.errors import CheckpointError, InputError, listed
from npbert.files import Tensor, replacing, write_safetensors
from npbert.folders import read_checkpoint
from npbert.hub.parts import INDEX, MODULES
from npbert.loading import load
from npbert.sentences import entries, place_of, read_recipe
from npbert.weights import PROJECTOR, WORDS

OLD: Final = "pytorch_model.bin"
NEW: Final = "model.safetensors"
COPIED: Final = {".json", ".md", ".txt"}  # settings, model card, vocabulary


def convert(source: Path, target: Path | None = None) -> list[Path]:
    """Write a folder's pytorch_model.bin as model.safetensors, and return the files written.

    A target becomes a folder of its own, with copies of the settings and the tokenizer; without
    one the file is written beside the old one.  Modules of sentence-transformers are converted
    too.  No file is replaced.  Raises InputError, and what load raises for a model with faults.
    """
    recipe = read_recipe(source)
    model = load(recipe[0] if recipe else source)
    places = [source, *(modules_of(source) if recipe else [])]
    old = [place for place in dict.fromkeys(places) if has(place, OLD) and not has(place, NEW)]
    if not old:
        raise InputError(f"{source}: there is nothing to convert, it is safetensors already")
    into = source if target is None else target
    moved = not (into.exists() and into.samefile(source))
    copies = {
        into / path.relative_to(source): path
        for place in places
        for path in companions(place)
        if moved
    }
    made = {into / place.relative_to(source) / NEW: place for place in old}
    if taken := [path for path in (*made, *copies) if path.exists()]:
        raise InputError(f"{listed(taken)}: there already, and nothing is replaced")
    for path, place in made.items():
        tensors = read_checkpoint(place)
        if model.config.tie_word_embeddings:
            tensors = untwinned(tensors)
        with making(path) as temporary:
            write_safetensors(temporary, tensors)
    for path, original in copies.items():
        with making(path) as temporary:
            shutil.copyfile(original, temporary)
    return [*made, *copies]


def modules_of(source: Path) -> list[Path]:
    """Return the folders of the modules of sentence-transformers."""
    path = source / MODULES
    return [place_of(source, under, path) for _, under in entries(path)]


def has(place: Path, name: str) -> bool:
    """Tell whether a folder holds a file of weights, or the index of its shards."""
    return (place / name).exists() or (place / f"{name}{INDEX}").exists()


def companions(place: Path) -> Iterator[Path]:
    """Yield the files that make a model of weights, and weights that need no conversion."""
    for path in sorted(place.iterdir()) if place.is_dir() else []:
        kept = path.suffix in COPIED or path.name.startswith("LICENSE")
        ready = path.suffix == ".safetensors"
        if path.is_file() and (kept or ready) and path.name != f"{OLD}{INDEX}":
            yield path


def untwinned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the words of the output, where they are the very numbers of the input's."""
    ours = {our_name(name): tensor for name, tensor in tensors.items()}
    words, twin = ours.get(WORDS), ours.get(PROJECTOR)
    if words is None or twin is None or twin.content is not words.content:
        return tensors
    return {name: tensor for name, tensor in tensors.items() if our_name(name) != PROJECTOR}


@contextmanager
def making(path: Path) -> Iterator[Path]:
    """Give a path to write to, as files.replacing does, and make the folder that it lies in."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path.parent}: cannot be made: {error.strerror}") from None
    with replacing(path) as temporary:
        yield temporary
