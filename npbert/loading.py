"""From a folder, or from nothing, to a model: npbert.load and npbert.init."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

from npbert.checkpoint import load_parameters
from npbert.config import ARCHITECTURES, Config
from npbert.errors import CheckpointError, ConfigError, InputError, nearest, shown, warn
from npbert.files import read_json_object
from npbert.folders import read_checkpoint
from npbert.hub import locate, pinned
from npbert.model import Model
from npbert.tokenizer import Tokenizer
from npbert.weights import PROJECTOR, WORDS, fresh, shapes

DTYPES: Final[Mapping[str, type[np.floating]]] = {"float32": np.float32, "float64": np.float64}


def load(
    source: str | os.PathLike[str],
    architecture: str | None = None,
    *,
    dtype: DTypeLike = "float32",
    engine: str | None = None,
    config: Mapping[str, Any] | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    offline: bool | None = None,
    strict: bool = True,
) -> Model:
    """Load a model from a folder as transformers writes it, or from the hub.

    Parameters
    ----------
    source : path or name
        A folder with config.json, model.safetensors or pytorch_model.bin, whole or in shards, and
        the tokenizer's files; or the name of a repository on the hub, such as
        "distilbert/distilbert-base-uncased", which is downloaded once and then read from the cache.
    architecture : str, optional
        One of ARCHITECTURES or its transformers class; default: what config.json says.
    dtype : "float32" or "float64"
        What to compute in.  Weights stored so are mapped, not copied; others are converted.
    engine : "kernels" or "textbook", optional
        Default: kernels for float32; the textbook is the only one for float64.
    config : mapping, optional
        Fields to override, by any of their names.
    revision : str, optional
        A branch, tag or commit of the repository; default: main.
    subfolder : str, optional
        The folder below where the model is.
    cache_dir : path, optional
        Default: where Hugging Face's programs keep theirs, as HF_HUB_CACHE or HF_HOME say.
    token : str or bool, optional
        For private repositories; default: HF_TOKEN, or that of `hf auth login`; False: none.
    offline : bool, optional
        True: only what is in the cache; default: as HF_HUB_OFFLINE says.
    strict : bool
        False draws a missing head at random and ignores unknown tensors; both are reported.

    Raises
    ------
    ConfigError, CheckpointError
        With everything that is wrong with the files.
    HubError
        Where the repository cannot be read, and what to do about it.
    """
    kind = dtype_of(dtype)
    if not isinstance(config, Mapping | None):
        raise InputError(f"config is {shown(config)}, expected a mapping of fields to override")
    where: dict[str, Any] = {
        "revision": revision, "subfolder": subfolder, "cache_dir": cache_dir, "token": token,
        "offline": offline,
    }  # fmt: skip
    folder = locate(source, **where)
    if not os.path.isdir(folder):  # noqa: PTH112  (pathlib raises for a name that is too long)
        raise CheckpointError(
            f"{folder}: {'is a file' if os.path.exists(folder) else 'no such folder'}, "  # noqa: PTH110
            "expected a folder with config.json and model.safetensors"
        )
    path = folder / "config.json"
    try:
        settings = Config.from_dict(read_json_object(path))
        named = architecture_of(None, settings) if architecture is None else None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    settings = settings.override(config) if config else settings
    name = named or architecture_of(architecture, settings)
    tensors = read_checkpoint(folder)
    try:
        parameters, report = load_parameters(tensors, settings, name, kind, strict=strict)
    except CheckpointError as error:
        files = sorted({tensor.path for tensor in tensors.values()})
        raise CheckpointError(f"{files[0] if len(files) == 1 else folder}: {error}") from None
    if report.initialised:
        warn(
            f"{folder}: drawn at random, because the checkpoint does not have them: "
            f"{', '.join(report.initialised)}; train them before you trust an answer"
        )
    tokenizer = Tokenizer.from_folder(folder, settings.max_positions)
    if tokenizer and tokenizer.pieces.get_vocab_size() > settings.vocab_size:
        warn(
            f"{folder}: the tokenizer has {tokenizer.pieces.get_vocab_size()} tokens, but "
            f"vocab_size is {settings.vocab_size}; is it another model's?"
        )
    model = Model(
        settings, name, parameters, engine=engine, tokenizer=tokenizer, load_report=report,
        folder=folder,
    )  # fmt: skip
    for array in parameters.values():
        array.flags.writeable = False  # as those that are mapped: a pickle tells of no change
    place, pins = pinned(source, folder, where)
    kept = None if config is None else dict(config)  # as it is now, whatever becomes of it
    how: dict[str, Any] = {
        "dtype": kind.__name__, "engine": engine, "config": kept, "strict": strict,
    }  # fmt: skip
    model.remake = partial(load, place, name, **how, **pins)
    return model


def init(
    config: Config, architecture: str, *, seed: int = 0, dtype: DTypeLike = "float32"
) -> Model:
    """Make an untrained model.

    Matrices are normal(0, initializer_scale), biases 0, norms 1 and 0; a seed gives the same
    model in either dtype, but for rounding.  Raises ConfigError, InputError.
    """
    if not isinstance(config, Config):
        raise InputError(f"config is {shown(config)}, expected an npbert.Config")
    kind, name = dtype_of(dtype), architecture_of(architecture, config)
    wanted = shapes(config, name)
    tied = config.tie_word_embeddings and wanted.pop(PROJECTOR, None) is not None
    parameters = fresh(wanted, config, kind, seed)
    if tied:
        parameters[PROJECTOR] = parameters[WORDS]
    return Model(config, name, parameters)


def dtype_of(dtype: DTypeLike) -> type[np.floating]:
    """Return the type to compute in.  Raises InputError for any but float32 and float64."""
    try:
        return DTYPES[np.dtype(dtype if dtype is not None else "none").name]
    except (KeyError, TypeError):
        raise InputError(f"dtype is {dtype!r}, expected 'float32' or 'float64'") from None


def architecture_of(asked: str | None, config: Config) -> str:
    """Return the architecture asked for, or else the one that config.json names."""
    if asked is None:
        named = config.other.get("architectures")
        if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
            raise ConfigError(
                f"architectures is {shown(named)}, expected a list of one name; pass "
                f"architecture=, one of {', '.join(ARCHITECTURES)}"
            )
        asked = named[0]
    for ours, theirs in ARCHITECTURES.items():
        if asked in (ours, theirs):
            return ours
    known = [*ARCHITECTURES, *ARCHITECTURES.values()]
    hint = nearest(str(asked), known) or f"; npbert knows {', '.join(known)}"
    raise ConfigError(f"unknown architecture {shown(asked)}{hint}")
