"""From a folder, a name on the hub, or nothing, to a model: npbert.load and npbert.init."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

from npbert.checkpoint.config import Config, find_architecture
from npbert.checkpoint.folders import read_checkpoint
from npbert.checkpoint.other_folders import explain_file
from npbert.checkpoint.parameters import PROJECTOR, WORDS, draw_parameters, parameter_shapes
from npbert.engine.spellings import explain_arguments
from npbert.errors import CheckpointError, InputError, quote, warn
from npbert.hub import locate, pin_source, suggest_name
from npbert.model import Model
from npbert.text.tokenizer import Tokenizer

DTYPES: Final[Mapping[str, type[np.floating]]] = {"float32": np.float32, "float64": np.float64}


@explain_arguments
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
    copy: bool = False,
) -> Model:
    """Load a model from a folder as transformers writes it, or from the hub.

    Parameters
    ----------
    source : path or name
        A folder with config.json, model.safetensors or pytorch_model.bin, whole or in shards, and
        the tokenizer's files; or the name of a repository on the hub, such as
        "distilbert/distilbert-base-uncased", which is downloaded once and then read from the cache.
    architecture : str, optional
        One of families.ARCHITECTURES or its transformers class; default: what config.json says.
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
    copy : bool
        Hold the weights in memory of its own, so that their files may be overwritten in place.
        Otherwise they are mapped, and a model's files are replaced by renaming others over them: a
        call whose files were overwritten raises CheckpointError, and the system may end a process
        that reads while they are cut short (SIGBUS).

    Raises
    ------
    ConfigError, CheckpointError
        With everything that is wrong with the files.
    HubError
        Where the repository cannot be read, and what to do about it.
    """
    kind = parse_dtype(dtype)
    if not isinstance(config, Mapping | None):
        raise InputError(f"config is {quote(config)}, expected a mapping of fields to override")
    where: dict[str, Any] = {
        "revision": revision, "subfolder": subfolder, "cache_dir": cache_dir, "token": token,
        "offline": offline,
    }  # fmt: skip
    folder = locate(source, **where)
    if not os.path.isdir(folder):  # noqa: PTH112  (pathlib raises for a name that is too long)
        if os.path.exists(folder):  # noqa: PTH110
            raise CheckpointError(f"{folder}: {explain_file(folder)}")
        raise CheckpointError(
            f"{folder}: no such folder, expected a folder with config.json and model.safetensors"
            f"{suggest_name(source)}"
        )
    found = read_checkpoint(folder, architecture, kind, changes=config, strict=strict, copy=copy)
    tokenizer = Tokenizer.from_folder(folder, found.config.max_positions)
    if tokenizer and tokenizer.pieces.get_vocab_size() > found.config.vocab_size:
        warn(
            f"{folder}: the tokenizer has {tokenizer.pieces.get_vocab_size()} tokens, but "
            f"vocab_size is {found.config.vocab_size}; is it another model's?"
        )
    for array in found.parameters.values():
        array.flags.writeable = False  # as those that are mapped: a pickle tells of no change
    model = Model(
        found.config, found.architecture, found.parameters, engine=engine, tokenizer=tokenizer,
        load_report=found.report, folder=folder,
    )  # fmt: skip
    place, pins = pin_source(source, folder, where)
    kept = None if config is None else dict(config)  # as it is now, whatever becomes of it
    how: dict[str, Any] = {
        "dtype": kind.__name__, "engine": engine, "config": kept, "strict": strict,
        "copy": copy,
    }  # fmt: skip
    model.rebuild = partial(load, place, found.architecture, **how, **pins)
    return model


@explain_arguments
def init(
    config: Config, architecture: str, *, seed: int = 0, dtype: DTypeLike = "float32"
) -> Model:
    """Make an untrained model.

    Matrices are normal(0, initializer_scale), biases 0, norms 1 and 0; a seed gives the same
    model in either dtype, but for rounding.  Raises ConfigError, InputError.
    """
    if not isinstance(config, Config):
        raise InputError(f"config is {quote(config)}, expected an npbert.Config")
    kind, name = parse_dtype(dtype), find_architecture(architecture, config)
    wanted = parameter_shapes(config, name)
    tied = config.tie_word_embeddings and wanted.pop(PROJECTOR, None) is not None
    parameters = draw_parameters(wanted, config, kind, seed)
    if tied:
        parameters[PROJECTOR] = parameters[WORDS]
    return Model(config, name, parameters)


def parse_dtype(dtype: DTypeLike) -> type[np.floating]:
    """Return the type to compute in.  Raises InputError for any but float32 and float64."""
    try:
        return DTYPES[np.dtype(dtype if dtype is not None else "none").name]
    except (KeyError, TypeError):
        raise InputError(f"dtype is {dtype!r}, expected 'float32' or 'float64'") from None
