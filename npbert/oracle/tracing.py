"""npbert.trace: every intermediate number of a dense call, by PyTorch's names."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npbert import __version__
from npbert.errors import InputError
from npbert.model import Model
from npbert.oracle.replay import narrowed
from npbert.oracle.shared import INPUTS, QUIET, Arrays, Call, Trace, distance
from npbert.sentences import read_recipe
from npbert.taps import Keeper
from npbert.textbook import Array
from npbert.weights import Parameters


def trace(
    model: Model,
    input_ids: ArrayLike | None = None,
    attention_mask: ArrayLike | None = None,
    position_ids: ArrayLike | None = None,
    attention_head_mask: ArrayLike | None = None,
    *,
    text: str | Sequence[str] | None = None,
    pair: str | Sequence[str] | None = None,
    only: str = "*",
    split_heads: bool = False,
    noise: bool = False,
) -> Trace:
    """Compute a batch and keep every intermediate value.

    Parameters
    ----------
    model : Model
        Load it with dtype="float64" for the oracle's own numbers.
    input_ids, attention_mask, position_ids, attention_head_mask : array_like
        As in a call of the model.
    text, pair : str or list of str, optional
        In place of input_ids: texts are cut into tokens and padded on the right.
    only : str
        Keep activations whose names fit this pattern, e.g. "*.output_layer_norm".
    split_heads : bool
        Keep q_lin, k_lin, v_lin and context as (batch, heads, length, K).
    noise : bool
        Of a float64 model, compute once more in float32, and tell how far that is from it.

    Returns
    -------
    Trace
        Rows outside: (batch, length, features); attention (batch, heads, query, key).

    Raises
    ------
    InputError
    """
    given = dict(
        zip(INPUTS, (input_ids, attention_mask, position_ids, attention_head_mask), strict=True)
    )
    if text is not None:
        if input_ids is not None:
            raise InputError("trace takes input_ids or text, not both")
        given |= tokens(model, text, pair)
    if given["input_ids"] is None:
        raise InputError("trace needs input_ids, or text")
    arrays = {name: np.asarray(value) for name, value in given.items() if value is not None}
    call = Call(model, arrays)
    kept = activations(call, only)
    said = about(call, list(kept))
    if model.dtype == np.float64 and noise:
        said["noise"] = rounding(call, kept, arrays)
    if split_heads:
        kept = {name: by_heads(call, name, x) for name, x in kept.items()}
    return Trace(whole(call, arrays) | kept, said)


def activations(call: Call, only: str = "*") -> Arrays:
    """Return every activation of a call whose name fits a pattern."""
    kept = computed(call, lambda name: not name.endswith(QUIET) and fnmatchcase(name, only))
    return kept | (
        sentence_embedding(call, kept) if fnmatchcase("sentence_embedding", only) else {}
    )


def computed(call: Call, wanted: Callable[[str], bool]) -> Arrays:
    """Return what the forward pass tells of a call, as far as it is wanted."""
    keeper = Keeper(call.border, wanted)
    call.model.run(call.pack, call.arrays.get("attention_head_mask"), keeper)
    return keeper.rows()


def rounding(call: Call, kept: Arrays, arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Return what float32 does to every activation, end to end, in units of its greatest value."""
    narrow = Call(narrowed(call.model), arrays)
    return {
        name: max(distance(name, kept[name], x, call.live(name, x.shape)), 2.0**-24)
        for name, x in computed(narrow, kept.__contains__).items()
    }


def tokens(model: Model, text: Any, pair: Any) -> dict[str, Any]:
    """Return the ids and the mask of texts, padded on the right."""
    if model.tokenizer is None:
        raise InputError("the model came without a tokenizer; pass input_ids")
    texts = [text] if isinstance(text, str) else list(text)
    pairs = [pair] * len(texts) if pair is None or isinstance(pair, str) else list(pair)
    if len(pairs) != len(texts):
        raise InputError(f"there are {len(texts)} texts and {len(pairs)} of their pairs")
    lists = [model.tokenizer.encode(a, b).ids for a, b in zip(texts, pairs, strict=True)]
    width, pad = max(map(len, lists)), model.tokenizer.id_of("pad_token") or 0
    ids = [[*ids, *[pad] * (width - len(ids))] for ids in lists]
    mask = [[1] * len(ids) + [0] * (width - len(ids)) for ids in lists]
    return {"input_ids": ids, "attention_mask": mask}


def sentence_embedding(call: Call, kept: Arrays) -> Arrays:
    """Return what the modules of a sentence-transformers folder make of the hidden state."""
    model = call.model
    last = f"transformer.layer.{model.config.num_blocks - 1}.output_layer_norm"
    found = read_recipe(model.folder, model.dtype.type) if model.folder else None
    if found is None or model.architecture != "base" or last not in kept:
        return {}
    made: dict[str, list[Array]] = {}
    for x, keep in zip(kept[last], call.inputs.keep, strict=True):

        def keep_it(name: str, y: Array) -> Array:
            made.setdefault(name, []).append(y)
            return y

        found[1].embed(x[keep], tap=keep_it)
    return {name: np.stack(rows) for name, rows in made.items()}


def by_heads(call: Call, name: str, x: NDArray[Any]) -> NDArray[Any]:
    """Return (batch, length, A) as (batch, heads, length, K), where attention has heads."""
    if not name.endswith((".q_lin", ".k_lin", ".v_lin", ".context")):
        return x
    block = int(name.split(".")[2])
    heads = len(call.model.config.heads(block))
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3).copy()


def whole(call: Call, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return all inputs of a call, what was left out too."""
    shape = arrays["input_ids"].shape
    heads = (call.model.config.num_blocks, call.model.config.num_attention_heads)
    return {
        "input_ids": arrays["input_ids"].astype(np.int64),
        "attention_mask": call.inputs.keep.reshape(shape).astype(np.int64),
        "position_ids": call.inputs.positions.reshape(shape).astype(np.int64),
        "attention_head_mask": np.asarray(
            arrays.get("attention_head_mask", np.ones(heads)), np.float64
        ),
    }


def about(call: Call, order: list[str]) -> dict[str, Any]:
    """Return what there is to know about a trace, as JSON."""
    model = call.model
    return {
        "npbert": __version__,
        "architecture": model.architecture,
        "dtype": model.dtype.name,
        "engine": model.engine,
        "config": model.config.to_dict(),
        "weights_sha256": fingerprint(model.parameters),
        "order": order,
        "padding": [np.flatnonzero(~row).tolist() for row in call.inputs.keep],
    }


def fingerprint(parameters: Parameters) -> str:
    """Return the sha256 of all weights as float32, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(parameters):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(parameters[name], "<f4").tobytes())
    return digest.hexdigest()
