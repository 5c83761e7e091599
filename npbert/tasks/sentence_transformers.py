"""From the vectors of tokens to the vector of a sentence, as sentence-transformers folders say it.

modules.json lists what happens after the encoder: Pooling, Dense, LayerNorm, Normalize.  Every
module is run or refused by name; none is passed over.  Source: Reimers and Gurevych 2019,
"Sentence-BERT", and the modules of sentence-transformers 5, whose files these are.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from npbert.checkpoint import MODULES
from npbert.checkpoint.files import FLOATS, MappedFiles
from npbert.checkpoint.folders import read_modules, read_tensors
from npbert.checkpoint.reading import read_json_object
from npbert.engine.activations import ACTIVATIONS
from npbert.errors import CheckpointError, InputError, listing, quote
from npbert.hub.cache import ENCODER_SETTINGS
from npbert.tasks.rows import SENTENCE_EMBEDDING, SPARSE_EMBEDDING
from npbert.textbook import Affine, Array, Norm, Tap, activation, layer_norm, linear, no_tap

FORMER_KINDS: Final = {"MLMTransformer": "Transformer"}  # module: what took its place
KIND_HINTS: Final = {
    "Pooling": f"this is a model of {SENTENCE_EMBEDDING.name}",
    "SpladePooling": f"this is a model of {SPARSE_EMBEDDING.name}",
}

ModuleFunction = Callable[[Array], Array]  # (features,) -> (features,)

SENTENCE_SETTINGS: Final = "config_sentence_transformers.json"
SIMILARITIES: Final = ("cosine", "dot", "euclidean", "manhattan")
TORCH_ACTIVATIONS: Final = {
    "Identity": "linear", "Tanh": "tanh", "GELU": "gelu", "ReLU": "relu", "SiLU": "silu",
    "Sigmoid": "sigmoid", "Mish": "mish", "ReLU6": "relu6", "LeakyReLU": "leaky_relu",
}  # fmt: skip
TORCH_EPSILON: Final = 1e-5  # of PyTorch's LayerNorm; the encoder's own norms use another
SHORTEST_LENGTH: Final = 1e-12  # of a smaller one squares are not exact


def weighted_mean(x: Array, first: int) -> Array:
    """The mean of tokens, each weighted by its place in the text, counted from 1."""
    places = np.arange(first + 1, first + len(x) + 1, dtype=x.dtype)[:, None]
    return (x * places).sum(axis=-2) / places.sum()


# In the order in which they are joined, and under the names that old files have for them.
POOLINGS: Final[Mapping[str, tuple[str, Callable[[Array, int], Array]]]] = {
    "cls": ("pooling_mode_cls_token", lambda x, _: x[0]),
    "max": ("pooling_mode_max_tokens", lambda x, _: x.max(axis=-2)),
    "mean": ("pooling_mode_mean_tokens", lambda x, _: x.mean(axis=-2)),
    "mean_sqrt_len_tokens": (
        "pooling_mode_mean_sqrt_len_tokens",
        lambda x, _: x.sum(axis=-2) / np.sqrt(x.dtype.type(len(x))),
    ),
    "weightedmean": ("pooling_mode_weightedmean_tokens", weighted_mean),
    "lasttoken": ("pooling_mode_lasttoken", lambda x, _: x[-1]),
}


def pool(x: Array, modes: Sequence[str], skipped: int = 0) -> Array:
    """Return one vector for the vectors of tokens, (tokens, D), the modes side by side.

    The first `skipped` tokens, a prompt, take no part.  Of no tokens every mode makes zeros, where
    a mean would be 0 / 0.
    """
    heard = x[skipped:]
    if not len(heard):
        return np.zeros(len(modes) * x.shape[-1], x.dtype)
    return np.concatenate([POOLINGS[mode][1](heard, skipped) for mode in modes])


def normalize(x: Array) -> Array:
    """Return vectors with length 1, of any that are not zero."""
    with np.errstate(over="ignore", under="ignore"):
        lengths = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    if not (np.isfinite(lengths) & (lengths > SHORTEST_LENGTH)).all():  # squares that do not fit
        most = np.abs(x).max(axis=-1, keepdims=True, initial=0)
        x = x / np.where(most == 0, 1, most)
        lengths = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / np.where(lengths == 0, 1, lengths)


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
    steps: Sequence[tuple[str, ModuleFunction]] = ()  # after pooling, by the names of their folders

    def dimensions(self, hidden_size: int) -> int:
        """Return how many dimensions an embedding has."""
        return len(self.embed(np.zeros((1, hidden_size), np.float32)))

    def embed(self, x: Array, skipped: int = 0, tap: Tap = no_tap) -> Array:
        """Return the vector of a text whose tokens have these, (tokens, D).

        A tap hears "pooling", and what follows under its module's folder, e.g. "2_Dense".  Raises
        CheckpointError naming the first of them that makes what is not finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            made = pool(x, self.modes, 0 if self.include_prompt else skipped)
            made = tap("pooling", require_finite("pooling", made))
            for name, step in self.steps:
                made = tap(name, require_finite(name, step(made)))
        return tap("sentence_embedding", made)


def require_finite(module: str, x: Array) -> Array:
    """Return what a module made.  Raises CheckpointError where that is not finite."""
    wrong = np.flatnonzero(~np.isfinite(x))
    if len(wrong):
        raise CheckpointError(
            f"{module} made {len(wrong)} of {x.size} values that are not finite, {x[wrong[0]]} in "
            f"place {wrong[0]}: either its weights are not finite (npbert info --check tells), or "
            f"the computation overflows {x.dtype} (npbert.load(MODEL, dtype='float64') does not)"
        )
    return x


def read_recipe(folder: Path, dtype: type[np.floating] = np.float32) -> tuple[Path, Recipe] | None:
    """Return the encoder's folder, and what happens after it; None where no modules.json is.

    Raises CheckpointError naming the file at fault, or the module that npbert cannot run.
    """
    path = folder / MODULES
    if not os.path.lexists(path):
        return None
    names, places = name_modules(folder, ("Transformer", "Pooling"), tuple(MODULE_READERS))
    encoder, pooling = places[0], read_json_object(places[1] / "config.json")
    steps = [
        (under.name, MODULE_READERS[name](under, dtype))
        for name, under in zip(names[2:], places[2:], strict=True)
    ]
    return encoder, Recipe(
        modes=pooling_modes(pooling, places[1] / "config.json"),
        include_prompt=pooling.get("include_prompt", True) is not False,
        steps=steps,
        **read_text_settings(folder, encoder, "cosine"),
    )


def read_embedder(folder: Path) -> tuple[Path, Recipe] | None:
    """Return the same as read_recipe; None too where none is dense, as of a cross-encoder."""
    kinds = [kind.rpartition(".")[2] for kind, _ in read_modules(folder)]
    return read_recipe(folder) if kinds[1:] and not is_sparse(folder) else None


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
    folder: Path, first: Sequence[str], others: Sequence[str] = ()
) -> tuple[list[str], list[Path]]:
    """Return what the modules of a folder are called, and where they are.

    `first` are those it must begin with, `others` may follow.  Raises CheckpointError.
    """
    path, found = folder / MODULES, read_modules(folder)
    names = module_kinds([kind for kind, _ in found], path, (*first, *others))
    begins = names[: len(first)] == [*first]
    if not begins or set(first) & set(names[len(first) :]):
        raise CheckpointError(
            f"{path}: lists {listing(names) or 'nothing'}; expected {', then '.join(first)}"
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


def read_dense(folder: Path, dtype: type[np.floating]) -> ModuleFunction:
    """Return activation(W x + b)."""
    path = folder / "config.json"
    config = read_json_object(path)
    where = config.get("module_input_name", "sentence_embedding")
    if where != "sentence_embedding" or config.get("module_output_name", where) != where:
        raise CheckpointError(f"{path}: works on {quote(where)}, expected sentence_embedding")
    if config.get("use_residual"):
        raise CheckpointError(f"{path}: use_residual is true, which npbert cannot run")
    named = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    package, _, name = named.rpartition(".")
    if not package.startswith("torch.nn") or name not in TORCH_ACTIVATIONS:
        raise CheckpointError(
            f"{path}: activation_function is {quote(named)}; npbert knows torch.nn's "
            f"{', '.join(TORCH_ACTIVATIONS)}"
        )
    sizes = config.get("out_features"), config.get("in_features")
    biased = config.get("bias", True) is not False
    layer = read_affine(folder, "linear", dtype, sizes, sizes[:1] if biased else None)
    function = ACTIVATIONS[TORCH_ACTIVATIONS[name]]
    return require_features(
        path, sizes[1], lambda x: activation(function, linear(layer, x[:, None]))[:, 0]
    )


def read_layer_norm(folder: Path, dtype: type[np.floating]) -> ModuleFunction:
    """Return a norm with PyTorch's epsilon."""
    size = (read_json_object(folder / "config.json").get("dimension"),)
    norm = Norm(*read_affine(folder, "norm", dtype, size, size), TORCH_EPSILON)

    def apply_norm(x: Array) -> Array:
        made: Array = layer_norm(norm, x[:, None])[:, 0]
        # Of a variance that overflows a norm makes zeros, which look like an answer.
        apart = x - x.mean()
        return made if np.isfinite((apart * apart).mean()) else np.full_like(made, np.inf)

    return require_features(folder / "config.json", size[0], apply_norm)


def require_features(path: Path, size: Any, function: ModuleFunction) -> ModuleFunction:
    """Return the function, which then raises CheckpointError for a vector of another size."""

    def apply(x: Array) -> Array:
        if len(x) != size:
            raise CheckpointError(
                f"{path}: works on vectors of {size} features, but the module before it makes "
                f"{len(x)}"
            )
        return function(x)

    return apply


def read_affine(
    folder: Path, name: str, dtype: type[np.floating], shape: tuple[Any, ...],
    bias: tuple[Any, ...] | None,
) -> Affine:  # fmt: skip
    """Read a weight and its bias, which is 0 where there is none.  Raises CheckpointError."""
    tensors = read_tensors(folder)
    wanted = {f"{name}.weight": shape} | ({f"{name}.bias": bias} if bias else {})
    if set(tensors) != set(wanted):
        raise CheckpointError(
            f"{folder}: holds {listing(sorted(tensors))}, expected {listing(sorted(wanted))}"
        )
    for tensor, expected in wanted.items():
        found = tensors[tensor]
        if found.shape != expected or found.dtype not in FLOATS:
            raise CheckpointError(
                f"{found.path}: {tensor} is {found.dtype} {found.shape}, but config.json says "
                f"{quote(expected)}"
            )
    mapped = {tensor: tensors[tensor].array(dtype) for tensor in wanted}
    arrays = {tensor: array.copy() for tensor, array in mapped.items()}  # they are small
    MappedFiles(mapped.values()).require_unchanged()
    for tensor, array in arrays.items():
        if count := np.count_nonzero(~np.isfinite(array)):
            raise CheckpointError(
                f"{tensors[tensor].path}: {tensor} has {count} of {array.size} values that are not "
                f"finite in {array.dtype}; training diverged, or the file is damaged: take "
                "another copy of the model (npbert info --check tells of every tensor)"
            )
    weight = arrays[f"{name}.weight"]
    column = weight if weight.ndim == 2 else weight[:, None]
    zeros = np.zeros((len(column), 1), dtype)
    return Affine(column, arrays[f"{name}.bias"][:, None] if bias else zeros)


MODULE_READERS: Final[Mapping[str, Callable[[Path, type[np.floating]], ModuleFunction]]] = {
    "Dense": read_dense,
    "LayerNorm": read_layer_norm,
    "Normalize": lambda *_: normalize,
    "Dropout": lambda *_: lambda x: x,  # as always when nobody trains
}
