"""What the modules of sentence-transformers compute: pooling, and what works on vectors.

Source: Reimers and Gurevych 2019, "Sentence-BERT", and the modules of sentence-transformers 5.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from npbert.checkpoint.files import FLOATS, MappedFiles
from npbert.checkpoint.folders import read_tensors
from npbert.checkpoint.known_keys import DENSE_KEYS, LAYER_NORM_KEYS, warn_of_unknown
from npbert.checkpoint.reading import read_json_object
from npbert.engine.activations import ACTIVATIONS
from npbert.errors import CheckpointError, listing, quote
from npbert.textbook import Affine, Array, Norm, activation, layer_norm, linear

ModuleFunction = Callable[[Array], Array]  # (..., features) -> (..., features)

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
    odd = ~(np.isfinite(lengths) & (lengths > SHORTEST_LENGTH))  # of squares that do not fit
    if odd.any():
        most = np.abs(x).max(axis=-1, keepdims=True, initial=0)
        x = x / np.where(odd & (most != 0), most, 1)
        lengths = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / np.where(lengths == 0, 1, lengths)


def require_finite(module: str, x: Array) -> Array:
    """Return what a module made.  Raises CheckpointError where that is not finite."""
    wrong = np.flatnonzero(~np.isfinite(x))
    if len(wrong):
        raise CheckpointError(
            f"{module} made {len(wrong)} of {x.size} values that are not finite, "
            f"{x.flat[wrong[0]]} in "
            f"place {wrong[0]}: either its weights are not finite (npbert info --check tells), or "
            f"the computation overflows {x.dtype} (npbert.load(MODEL, dtype='float64') does not)"
        )
    return x


def read_dense(
    folder: Path, dtype: type[np.floating], where: str = "sentence_embedding"
) -> ModuleFunction:
    """Return activation(W x + b) of vectors that sentence-transformers calls `where`."""
    path = folder / "config.json"
    config = read_json_object(path)
    warn_of_unknown(path, config, DENSE_KEYS, {})
    source = config.get("module_input_name", "sentence_embedding")
    for verb, name in (("works on", source), ("makes", config.get("module_output_name") or where)):
        if name != where:
            raise CheckpointError(f"{path}: {verb} {quote(name)}, expected {where}")
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
        path, sizes[1], lambda x: activation(function, linear(layer, as_columns(x)))
    )


def read_layer_norm(folder: Path, dtype: type[np.floating]) -> ModuleFunction:
    """Return a norm with PyTorch's epsilon."""
    config = read_json_object(folder / "config.json")
    warn_of_unknown(folder / "config.json", config, LAYER_NORM_KEYS, {})
    size = (config.get("dimension"),)
    norm = Norm(*read_affine(folder, "norm", dtype, size, size), TORCH_EPSILON)

    def apply_norm(x: Array) -> Array:
        # Of a variance that overflows a norm makes zeros, which look like an answer.
        apart = x - x.mean()
        finite = np.isfinite((apart * apart).mean())
        made: Array = layer_norm(norm, as_columns(x))
        return made if finite else np.full_like(made, np.inf)

    return require_features(folder / "config.json", size[0], apply_norm)


def as_columns(x: Array) -> Array:
    """Return a vector, or the rows of (tokens, features), as columns."""
    return np.atleast_2d(x).T


def require_features(path: Path, size: Any, function: ModuleFunction) -> ModuleFunction:
    """Return a function that makes columns, which then makes rows again, or a vector of a vector.

    It raises CheckpointError for vectors of another size.
    """

    def apply(x: Array) -> Array:
        if x.shape[-1] != size:
            raise CheckpointError(
                f"{path}: works on vectors of {size} features, but the module before it makes "
                f"{x.shape[-1]}"
            )
        return function(x).T.reshape(*x.shape[:-1], -1)

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
