"""A model as a folder of files, as transformers reads and writes it: read, saved, converted.

Weights are in safetensors or else in pytorch_model.bin; either is one file, or shards that an
index names.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from npbert.checkpoint import CONFIG, INDEX, MODULES, MODULES_LIMIT, PICKLE, SAFETENSORS, WEIGHTS
from npbert.checkpoint.config import (
    Config,
    class_architectures,
    class_names_of,
    find_architecture,
)
from npbert.checkpoint.drafts import Draft, replace_files, write_json
from npbert.checkpoint.files import (
    MappedFiles,
    Tensor,
    read_safetensors,
    write_safetensors,
)
from npbert.checkpoint.known_keys import (
    CONFIG_WITHOUT_EFFECT,
    MODULES_KEYS,
    MODULES_WITHOUT_EFFECT,
    config_keys,
    warn_of_unknown,
)
from npbert.checkpoint.other_folders import ADAPTER, explain_tensors, require_model_files
from npbert.checkpoint.parameters import (
    BUFFERS,
    PROJECTOR,
    WORDS,
    LoadReport,
    Parameters,
    canonical_name,
    load_parameters,
    own_names,
)
from npbert.checkpoint.pickles import read_pickle
from npbert.checkpoint.reading import is_listed, read_json, read_json_object
from npbert.errors import CheckpointError, ConfigError, InputError, listing, quote, warn
from npbert.families import ARCHITECTURES, FAMILIES, POOLER_LAYERS, class_name

Read = Callable[[Path], dict[str, Tensor]]

FORMATS: Final[Mapping[str, Read]] = {SAFETENSORS: read_safetensors, PICKLE: read_pickle}
COPIED: Final = {".json", ".md", ".txt"}  # settings, model card, vocabulary


class Checkpoint(NamedTuple):
    """What a folder holds of a model, but for its tokenizer."""

    config: Config
    architecture: str
    parameters: Parameters
    report: LoadReport


def read_checkpoint(
    folder: Path,
    architecture: str | None,
    dtype: type[np.floating],
    *,
    changes: Mapping[str, Any] | None = None,
    strict: bool = True,
    copy: bool = False,
) -> Checkpoint:
    """Read a model's configuration and parameters; see npbert.load.

    Raises ConfigError, CheckpointError, naming the file at fault.
    """
    require_model_files(folder)
    path = folder / CONFIG
    said = read_json_object(path)
    try:
        config = Config.from_dict(said)
        named = find_architecture(None, config) if architecture is None else None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    warn_of_unknown(path, said, config_keys(config.family), CONFIG_WITHOUT_EFFECT)
    config = config.override(changes) if changes else config
    name = named or find_architecture(architecture, config)
    tensors = read_tensors(folder)
    if other := explain_tensors(tensors, config.other.get("quantization_config")):
        raise CheckpointError(f"{folder}: {other}")
    try:
        parameters, report = load_parameters(tensors, config, name, dtype, strict=strict)
    except CheckpointError as error:
        files = sorted({tensor.path for tensor in tensors.values()})
        raise CheckpointError(f"{files[0] if len(files) == 1 else folder}: {error}") from None
    mapped = MappedFiles(parameters.values())
    if copy:
        own = {id(array): array.copy() for array in parameters.values()}  # tied ones stay one
        parameters = {each: own[id(array)] for each, array in parameters.items()}
    mapped.require_unchanged()
    found = Checkpoint(config, name, parameters, report)
    warn_of_doubts(folder, found)
    return found


def warn_of_doubts(folder: Path, found: Checkpoint) -> None:
    """Tell what is doubtful of a checkpoint that can be loaded."""
    config, report = found.config, found.report
    if report.initialised:
        warn(
            f"{folder}: drawn at random, because the checkpoint does not have them: "
            f"{', '.join(report.initialised)}; train them before you trust an answer"
        )
    if is_listed(folder / ADAPTER):
        warn(
            f"{folder}: has an adapter beside its weights ({ADAPTER}), which transformers would "
            "apply and npbert does not; merge it with merge_and_unload of peft, or take it away"
        )
    unknown = [n for n in report.ignored if canonical_name(n, config.family) not in BUFFERS]
    if unknown:
        warn(
            f"{folder}: ignored, because npbert does not know them: {listing(unknown)}; if they "
            "are part of what the model computes, its answers are wrong"
        )
    own, classes = ARCHITECTURES[found.architecture], class_architectures(config.family)
    named = {classes[each]: each for each in class_names_of(config) if each in classes}
    shared = set(own.layers) - set(POOLER_LAYERS)
    for other, class_ in named.items():
        row = ARCHITECTURES[other]
        alike = shared & set(row.layers) and row.outputs != own.outputs
        if alike and found.architecture not in named:
            warn(
                f"{folder}: config.json names {class_}, and parameters with the same names are "
                f"loaded as {found.architecture}; if its answers make no sense, that is why"
            )


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder, from the first that is there of FORMATS and their indexes."""
    for name, read in FORMATS.items():
        single, index = folder / name, folder / f"{name}{INDEX}"
        if is_listed(single):
            return read(single)
        if is_listed(index):
            return read_shards(index, read)
    there = sorted(p.name for p in folder.iterdir())
    raise CheckpointError(
        f"{folder}: has no {' nor '.join(WEIGHTS)}; it holds {listing(there) or 'nothing'}"
    )


def read_shards(index: Path, read: Read) -> dict[str, Tensor]:
    """Read the files that an index names; they must lie beside it and hold what it says."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{index}: weight_map is missing or empty, expected tensor names to files"
        )
    for name in weight_map.values():
        plain = isinstance(name, str) and name.isprintable() and len(name) < 256
        if not plain or name in ("", "..") or Path(name).name != name or "\\" in name:
            raise CheckpointError(
                f"{index}: weight_map names {quote(name)}, expected a file beside the index"
            )
    shards = {name: read(index.parent / name) for name in set(weight_map.values())}
    absent = [f"{t} in {name}" for t, name in weight_map.items() if t not in shards[name]]
    if absent:
        raise CheckpointError(f"{index}: names tensors that are not there: {listing(absent)}")
    unnamed = [t for name, shard in shards.items() for t in shard if weight_map.get(t) != name]
    if unnamed:
        raise CheckpointError(
            f"{index}: its files hold tensors that it does not name: {listing(unnamed)}"
        )
    return {t: shards[name][t] for t, name in weight_map.items()}


def read_modules(folder: Path) -> list[tuple[str, Path]]:
    """Return the modules of a sentence-transformers folder, its encoder first: type and folder.

    None where there is no modules.json.  Raises CheckpointError.
    """
    path = folder / MODULES
    if not os.path.lexists(path):  # a link that leads nowhere is no absent file
        return []
    data = read_json(path)
    if not isinstance(data, list) or not all(isinstance(each, dict) for each in data):
        raise CheckpointError(f"{path}: expected a list of modules")
    if len(data) > MODULES_LIMIT:
        raise CheckpointError(
            f"{path}: lists {len(data)} modules, expected at most {MODULES_LIMIT}"
        )
    keys = {key: value for each in data for key, value in each.items()}
    warn_of_unknown(path, keys, MODULES_KEYS, MODULES_WITHOUT_EFFECT)
    return [
        (str(each.get("type")), module_folder(folder, str(each.get("path", "")))) for each in data
    ]


def module_folder(folder: Path, under: str) -> Path:
    """Return a module's folder.  Raises CheckpointError for one outside of the model's."""
    parts = Path(under).parts
    if Path(under).is_absolute() or ".." in parts or not under.isprintable() or len(under) > 255:
        raise CheckpointError(
            f"{folder / MODULES}: names the folder {quote(under)}, expected one below its own"
        )
    return folder / under


def save_checkpoint(
    draft: Draft, folder: Path, config: Config, architecture: str, parameters: Parameters
) -> None:
    """Write config.json and model.safetensors, tied weights once.  Raises OSError."""
    family, row = FAMILIES[config.family], ARCHITECTURES[architecture]
    dtype = parameters[WORDS].dtype.name

    def own_name(name: str) -> str:
        module = name.rpartition(".")[0]
        in_head = module in row.layers and not (
            family.pooler_in_encoder and module in POOLER_LAYERS
        )
        prefix = "" if row.is_encoder or in_head else family.prefix
        return prefix + own_names(name, config.family)[0]

    tensors = {
        own_name(name): Tensor.from_array(array)
        for name, array in parameters.items()
        if not (name == PROJECTOR and config.tie_word_embeddings)
    }
    fields = {
        **config.to_dict(),
        "architectures": [class_name(config.family, architecture)],
        "torch_dtype": dtype,
    }
    if "dtype" in fields:  # transformers 5 reads this one first
        fields["dtype"] = dtype
    if row.num_labels not in (None, config.num_labels):  # the labels are of something else
        fields = {n: v for n, v in fields.items() if n not in ("id2label", "label2id")}
    with draft(folder / CONFIG) as file:
        write_json(file, fields)
    with draft(folder / SAFETENSORS) as file:
        write_safetensors(file, tensors)


def convert(
    source: Path,
    target: Path | None = None,
    architecture: str | None = None,
    *,
    strict: bool = True,
) -> list[Path]:
    """Write a folder's pytorch_model.bin as model.safetensors, and return the files written.

    The tensors keep their names and dtypes.  A target becomes a folder of its own, with copies of
    the settings and the tokenizer; without one the file is written beside the old one.  Modules of
    sentence-transformers are converted too.  No file is replaced, and all appear or none.  The
    checkpoint is checked as an architecture, as load does.  Raises InputError, and what load raises
    for a checkpoint with faults.
    """
    modules = [place for _, place in read_modules(source)]
    encoder = modules[0] if modules else source
    checkpoint = read_checkpoint(encoder, architecture, np.float32, strict=strict)
    places = [source, *modules]
    old = [
        p
        for p in dict.fromkeys(places)
        if has_weights(p, PICKLE) and not has_weights(p, SAFETENSORS)
    ]
    if not old:
        raise InputError(f"{source}: there is nothing to convert, it is safetensors already")
    into = source if target is None else target
    moved = not (into.exists() and into.samefile(source))
    copies = {
        into / path.relative_to(source): path
        for place in places
        for path in companion_files(place)
        if moved
    }
    made = {into / place.relative_to(source) / SAFETENSORS: place for place in old}
    if taken := [path for path in (*made, *copies) if os.path.lexists(path)]:
        raise InputError(f"{listing(taken)}: there already, and nothing is replaced")
    with replace_files(make_folder(into)) as draft:
        for path, original in copies.items():
            with draft(path) as file, original.open("rb") as source_file:
                shutil.copyfileobj(source_file, file)
        for path, place in made.items():  # without which no folder is taken for a model
            tensors = read_tensors(place)
            if checkpoint.config.tie_word_embeddings:
                tensors = drop_twin(tensors, checkpoint.config.family)
            with draft(path) as file:
                write_safetensors(file, tensors)
    return [*made, *copies]


def has_weights(folder: Path, name: str) -> bool:
    """Tell whether a folder holds a file of weights, or the index of its shards."""
    return is_listed(folder / name) or is_listed(folder / f"{name}{INDEX}")


def companion_files(folder: Path) -> Iterator[Path]:
    """Yield the files that make a model of weights, and weights that need no conversion."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        kept = path.suffix in COPIED or path.name.startswith("LICENSE")
        ready = path.suffix == ".safetensors"
        if path.is_file() and (kept or ready) and path.name != f"{PICKLE}{INDEX}":
            yield path


def drop_twin(tensors: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """Leave out the words of the output, where they are the very numbers of the input's."""
    names = {canonical_name(name, family): name for name in tensors}
    words, twin = (tensors.get(names.get(name, "")) for name in (WORDS, PROJECTOR))
    if words is None or twin is None or twin.content is not words.content:
        return tensors
    return {name: tensor for name, tensor in tensors.items() if name != names[PROJECTOR]}


def make_folder(folder: Path) -> Path:
    """Make a folder, unless it is there, and return it.  Raises CheckpointError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written: {error.strerror}") from None
    return folder
