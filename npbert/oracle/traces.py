"""npbert.trace: every intermediate number of a dense call, by PyTorch's names; and the ruler.

Of what is here, a Trace alone has the names of its model's own family; all else has canonical ones.
"""

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npbert import __version__
from npbert.checkpoint.parameters import Parameters, assemble
from npbert.engine import inputs
from npbert.engine.packs import pack_rows
from npbert.engine.spellings import explain_arguments
from npbert.engine.taps import Keeper
from npbert.errors import InputError, quote
from npbert.families import own_module
from npbert.model import Model
from npbert.oracle.dialects import translate_result
from npbert.oracle.dumps import (
    Arrays,
    flatten_nest,
    read_dump,
    write_dump,
)
from npbert.oracle.measures import distance
from npbert.tasks.sentence_transformers import read_embedder
from npbert.text.encodings import Encoding
from npbert.textbook import Array

TOKEN_INPUTS: Final = ("input_ids", "attention_mask", "position_ids", "token_type_ids")
INPUTS: Final = (*TOKEN_INPUTS, "attention_head_mask")
NOT_STEPS: Final = "dropout"  # names that end so are places, not steps: nothing happens there


@dataclass(frozen=True)
class Trace(Mapping[str, NDArray[Any]]):
    """Every activation of a dense call by name, rows outside, in the order of the pass."""

    arrays: Arrays  # inputs first
    about: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        return f"<npbert.Trace: {len(self.given)} inputs, {len(self.activations)} activations>"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a trace, or what a port wrote: .safetensors, .npz, or a folder of .npy files.

        Raises InputError naming the file.
        """
        return cls(*read_dump(check_path(path)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace to a file in .safetensors or .npz, or a folder.  Raises InputError."""
        write_dump(check_path(path), self.arrays, self.about)

    @property
    def activations(self) -> Arrays:
        """What was computed, without what was given."""
        return {name: x for name, x in self.arrays.items() if name not in INPUTS}

    @property
    def given(self) -> Arrays:
        """The inputs of the call."""
        return {name: x for name, x in self.arrays.items() if name in INPUTS}


def check_path(given: object) -> Path:
    """Return the path of a trace.  Raises InputError for what is none."""
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise InputError(
            f"the path of a trace is {quote(given)}, expected that of a .safetensors or .npz file, "
            "or of a folder of .npy files"
        )
    return Path(text)


TraceLike = Trace | Mapping[str, Any] | Sequence[Any] | str | os.PathLike[str]


def as_trace(given: TraceLike) -> Trace:
    """Return a trace as it is, of the arrays of a mapping or a list, or as a file or folder has it.

    Mappings, tuples and lists inside one add their keys, or numbers, to the names, between dots.
    Raises InputError for anything else.
    """
    if isinstance(given, Trace):
        return given
    if isinstance(given, str | os.PathLike):
        return Trace.load(given)
    arrays = flatten_nest(given)
    return Trace({name: inputs.number_array(name, x, finite=False) for name, x in arrays.items()})


class Call:
    """A dense call of a model: its checked inputs, and how its columns and rows change places."""

    def __init__(self, model: Model, given: Mapping[str, NDArray[Any]]) -> None:
        arrays: dict[str, Any] = {name: given.get(name) for name in TOKEN_INPUTS}
        self.model = model
        self.arrays = given
        self.inputs = inputs.check_batch(model.config, model.row, **arrays)
        self.masks = inputs.head_masks(model.config, given.get("attention_head_mask"), model.dtype)
        self.batch, self.length = self.inputs.ids.shape
        self.pack = pack_rows(self.inputs)
        self.candidate: Mapping[str, NDArray[Any]] = {}  # whose numbers are looked into
        self.layout = self.inputs.layout(model.row)

    def counted_values(self, name: str, shape: tuple[int, ...]) -> NDArray[np.bool]:
        """Return which live values may be wrong: before the mask no score of a hidden key."""
        live = self.live_values(name, shape)
        hears = self.inputs.key_mask[:, None, None]
        return live & hears if name.endswith("attention.scores") else live

    def live_values(self, name: str, shape: tuple[int, ...]) -> NDArray[np.bool]:
        """Return which values of an activation stand for real tokens, broadcast to its shape.

        In attention a query counts, and all of its keys; of a batch row without any real token,
        nothing does.
        """
        key_mask = self.inputs.key_mask
        if ".attention." in name and len(shape) == 4:
            return np.broadcast_to(key_mask[:, None, :, None], shape)
        if shape[:2] == key_mask.shape:
            return np.broadcast_to(
                key_mask.reshape(*key_mask.shape, *[1] * (len(shape) - 2)), shape
            )
        real = key_mask.any(axis=1)  # of a sequence as a whole, or of a choice
        leading = shape[: 1 + (real.size != shape[0])]
        real = real.reshape(leading) if real.size == np.prod(leading) else np.ones(1, bool)
        return np.broadcast_to(real.reshape(*real.shape, *[1] * (len(shape) - real.ndim)), shape)


@explain_arguments
def trace(
    model: Model,
    input_ids: ArrayLike | None = None,
    attention_mask: ArrayLike | None = None,
    position_ids: ArrayLike | None = None,
    attention_head_mask: ArrayLike | None = None,
    *,
    token_type_ids: ArrayLike | None = None,
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
    input_ids, attention_mask, position_ids, attention_head_mask, token_type_ids : array_like
        As in a call of the model.
    text, pair : str or list of str, optional
        In place of input_ids: texts are cut into tokens and padded on the right; the tokens of
        pairs have type 1, where the model has types.
    only : str
        Keep activations whose names fit this pattern, e.g. "*.output_layer_norm", or of a BERT
        "*.output.LayerNorm".
    split_heads : bool
        Keep queries, keys, values and context as (batch, heads, length, K).
    noise : bool
        Of a float64 model, compute once more in float32, and tell how far that is from it.

    Returns
    -------
    Trace
        Rows outside: (batch, length, features); attention (batch, heads, query, key).  Names are
        the module paths of the model's own family.

    Raises
    ------
    InputError
    """
    arguments = (input_ids, attention_mask, position_ids, token_type_ids, attention_head_mask)
    given = dict(zip(INPUTS, arguments, strict=True))
    if text is not None:
        if input_ids is not None:
            raise InputError("trace takes input_ids or text, not both")
        given |= encode_texts(model, text, pair)
    if given["input_ids"] is None:
        raise InputError("trace needs input_ids, or text")
    arrays = {name: np.asarray(value) for name, value in given.items() if value is not None}
    call = Call(model, arrays)
    kept = all_activations(call, only)
    said = describe_trace(call, translate_result(model.family, list(kept)))
    if model.dtype == np.float64 and noise:
        said["noise"] = translate_result(model.family, float32_noise(call, kept, arrays))
    if split_heads:
        kept = {name: split_into_heads(call, name, x) for name, x in kept.items()}
    kept = translate_result(model.family, kept)
    return Trace(complete_inputs(call, arrays) | kept, said)


def all_activations(call: Call, only: str = "*") -> Arrays:
    """Return every activation of a call whose name, of its family's own, fits a pattern."""

    def is_wanted(name: str) -> bool:
        own = own_module(call.model.family, name)
        return not name.endswith(NOT_STEPS) and fnmatchcase(own, only)

    kept = record_activations(call, is_wanted)
    return kept | (embed_sentences(call, kept) if fnmatchcase("sentence_embedding", only) else {})


def record_activations(call: Call, wanted: Callable[[str], bool]) -> Arrays:
    """Return what the forward pass tells of a call, as far as it is wanted."""
    keeper = Keeper(call.layout, wanted)
    call.model.run(call.pack, call.arrays.get("attention_head_mask"), keeper)
    return keeper.rows()


def float32_noise(call: Call, kept: Arrays, arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Return what float32 does to every activation, end to end, in units of its greatest value."""
    narrow = Call(float32_model(call.model), arrays)
    return {
        name: max(distance(name, kept[name], x, call.live_values(name, x.shape)), 2.0**-24)
        for name, x in record_activations(narrow, kept.__contains__).items()
    }


def encode_texts(model: Model, text: Any, pair: Any) -> dict[str, Any]:
    """Return the ids, the mask and the token types of texts, padded on the right."""
    if model.tokenizer is None:
        raise InputError("the model came without a tokenizer; pass input_ids")
    texts = [text] if isinstance(text, str) else list(text)
    pairs = [pair] * len(texts) if pair is None or isinstance(pair, str) else list(pair)
    if len(pairs) != len(texts):
        raise InputError(f"there are {len(texts)} texts and {len(pairs)} of their pairs")
    encodings = [model.tokenizer.encode(a, b) for a, b in zip(texts, pairs, strict=True)]
    return pad_encodings(model, encodings)


def pad_encodings(model: Model, encodings: Sequence[Encoding]) -> dict[str, Any]:
    """Return what a model reads of encoded texts, padded on the right: ids, mask, and types."""
    width = max(map(len, encodings))
    pad = (model.tokenizer.id_of("pad_token") if model.tokenizer else None) or 0

    def pad_row(row: Sequence[int], value: int) -> list[int]:
        return [*row, *[value] * (width - len(row))]

    given = {
        "input_ids": [pad_row(each.ids, pad) for each in encodings],
        "attention_mask": [pad_row([1] * len(each), 0) for each in encodings],
    }
    if model.config.type_vocab_size:
        given["token_type_ids"] = [pad_row(each.type_ids, 0) for each in encodings]
    return given


def embed_sentences(call: Call, kept: Arrays) -> Arrays:
    """Return what the modules of a sentence-transformers folder make of the hidden state."""
    model = call.model
    last = f"transformer.layer.{model.config.num_blocks - 1}.output_layer_norm"
    recipe = read_embedder(model.folder, model.dtype.type) if model.folder else None
    if recipe is None or not model.row.is_encoder or last not in kept:
        return {}
    made: dict[str, list[Array]] = {}
    for x, key_mask in zip(kept[last], call.inputs.key_mask, strict=True):

        def keep_it(name: str, y: Array) -> Array:
            made.setdefault(name, []).append(y)
            return y

        recipe.embed(x[key_mask], tap=keep_it)
    return {name: np.stack(rows) for name, rows in made.items()}


def split_into_heads(call: Call, name: str, x: NDArray[Any]) -> NDArray[Any]:
    """Return (batch, length, A) as (batch, heads, length, K), where attention has heads."""
    if not name.endswith((".q_lin", ".k_lin", ".v_lin", ".context")):
        return x
    block = int(name.split(".")[2])
    heads = len(call.model.config.heads(block))
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3).copy()


def complete_inputs(call: Call, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return all inputs of a call, what was left out too."""
    shape = arrays["input_ids"].shape
    config = call.model.config
    heads = (config.num_blocks, config.num_attention_heads)
    types = {"token_type_ids": call.inputs.types.reshape(shape).astype(np.int64)}
    types = types if config.type_vocab_size else {}
    return {
        "input_ids": arrays["input_ids"].astype(np.int64),
        "attention_mask": call.inputs.key_mask.reshape(shape).astype(np.int64),
        "position_ids": call.inputs.positions.reshape(shape).astype(np.int64),
        **types,
        "attention_head_mask": np.asarray(
            arrays.get("attention_head_mask", np.ones(heads)), np.float64
        ),
    }


def describe_trace(call: Call, order: list[str]) -> dict[str, Any]:
    """Return what there is to know about a trace, as JSON."""
    model = call.model
    return {
        "npbert": __version__,
        "architecture": model.architecture,
        "dtype": model.dtype.name,
        "engine": model.engine,
        "config": model.config.to_dict(),
        "weights_sha256": hash_parameters(model.parameters),
        "order": order,
        "padding": [np.flatnonzero(~row).tolist() for row in call.inputs.key_mask],
    }


def hash_parameters(parameters: Parameters) -> str:
    """Return the sha256 of all weights as float32, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(parameters):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(parameters[name], "<f4").tobytes())
    return digest.hexdigest()


def float32_model(model: Model) -> Model:
    """Return the same model in float32, computed by the textbook."""
    if model.dtype == np.float32:
        return model
    narrow = copy.copy(model)
    narrow.parameters = {n: x.astype(np.float32) for n, x in model.parameters.items()}
    narrow.dtype, narrow.engine = np.dtype(np.float32), "textbook"
    narrow.encoder, narrow.head = assemble(narrow.parameters, model.config)
    return narrow
