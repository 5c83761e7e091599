"""A port's names and layouts, as ours: translated, repaired, and told in its family's own names.

Inside the oracle every family's steps have the canonical names.  On the way in canonical_names
takes what a port calls them, on the way out translate_result tells everything as the family does.

A map is a table of templates of names, theirs to ours; {n} is the number of a block, and the first
template that fits decides.  Of all arrangements that give the expected shape, the nearest is taken:
a port may leave out the batch axis, split heads or join them, flatten batch and length, or keep a
token as a column.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from npbert.checkpoint.reading import parse_json, read_bytes
from npbert.errors import CheckpointError, InputError, listing, quote
from npbert.families import BLOCK_PREFIX, DEFAULT_FAMILY, FAMILIES, canonical_module, own_module
from npbert.oracle.dumps import split_into_pieces

MAP_LIMIT: Final = 1 << 20  # bytes of a map; ours have 3,000

PYTORCH: Final = {
    # what forward hooks and outputs of the model are called
    "transformer.layer.{n}.attention": BLOCK_PREFIX + "attention.out_lin",
    "transformer.layer.{n}.ffn": BLOCK_PREFIX + "ffn.lin2",
    "transformer.layer.{n}": BLOCK_PREFIX + "output_layer_norm",
    "embeddings": "embeddings.LayerNorm",
    "hidden_states.0": "embeddings.LayerNorm",
    "hidden_states.{n+1}": BLOCK_PREFIX + "output_layer_norm",
    "attentions.{n}": BLOCK_PREFIX + "attention.weights",
    "hidden_state": "last_hidden_state",
    "pooled_state": "pooled",
    "pooler_output": "pooled",
    "vocab_activation": "vocab_activation",
}
BUMBLEBEE: Final = {
    "embedder.token_embedding": "embeddings.word_embeddings",
    "embedder.position_embedding": "embeddings.position_embeddings",
    "embedder.token_type_embedding": "embeddings.token_type_embeddings",
    "embedder.norm": "embeddings.LayerNorm",
    "encoder.blocks.{n}.self_attention.query": BLOCK_PREFIX + "attention.q_lin",
    "encoder.blocks.{n}.self_attention.key": BLOCK_PREFIX + "attention.k_lin",
    "encoder.blocks.{n}.self_attention.value": BLOCK_PREFIX + "attention.v_lin",
    "encoder.blocks.{n}.self_attention.output": BLOCK_PREFIX + "attention.out_lin",
    "encoder.blocks.{n}.self_attention_norm": BLOCK_PREFIX + "sa_layer_norm",
    "encoder.blocks.{n}.ffn.intermediate": BLOCK_PREFIX + "ffn.lin1",
    "encoder.blocks.{n}.ffn.activation": BLOCK_PREFIX + "ffn.activation",
    "encoder.blocks.{n}.ffn.output": BLOCK_PREFIX + "ffn.lin2",
    "encoder.blocks.{n}.output_norm": BLOCK_PREFIX + "output_layer_norm",
    "pooler.output": "pre_classifier",
    "language_modeling_head.dense": "vocab_transform",
    "language_modeling_head.activation": "vocab_activation",
    "language_modeling_head.norm": "vocab_layer_norm",
    "language_modeling_head.bias": "vocab_projector",
    "sequence_classification_head.output": "classifier",
    "token_classification_head.output": "classifier",
    "multiple_choice_head.output": "classifier",
    "question_answering_head.output": "qa_outputs",
    "next_sentence_prediction_head.output": "seq_relationship",
}
# torch.onnx names a value after the module and the operation that made it; of a module's values
# the last one is its own.
ONNX_LAYER: Final = "/transformer/layer.{n}/"
ONNX: Final = {
    "/embeddings/word_embeddings/Gather_output_0": "embeddings.word_embeddings",
    "/embeddings/position_embeddings/Gather_output_0": "embeddings.position_embeddings",
    "/embeddings/Add_output_0": "embeddings.sum",
    "/embeddings/LayerNorm/*": "embeddings.LayerNorm",
    ONNX_LAYER + "attention/q_lin/Add_output_0": BLOCK_PREFIX + "attention.q_lin",
    ONNX_LAYER + "attention/k_lin/Add_output_0": BLOCK_PREFIX + "attention.k_lin",
    ONNX_LAYER + "attention/v_lin/Add_output_0": BLOCK_PREFIX + "attention.v_lin",
    ONNX_LAYER + "attention/MatMul_output_0": BLOCK_PREFIX + "attention.scores",
    ONNX_LAYER + "attention/Where_output_0": BLOCK_PREFIX + "attention.masked_scores",
    ONNX_LAYER + "attention/Softmax_output_0": BLOCK_PREFIX + "attention.weights",
    ONNX_LAYER + "attention/out_lin/Add_output_0": BLOCK_PREFIX + "attention.out_lin",
    ONNX_LAYER + "Add_output_0": BLOCK_PREFIX + "attention_residual",
    ONNX_LAYER + "sa_layer_norm/*": BLOCK_PREFIX + "sa_layer_norm",
    ONNX_LAYER + "ffn/lin1/Add_output_0": BLOCK_PREFIX + "ffn.lin1",
    ONNX_LAYER + "ffn/activation/Mul_1_output_0": BLOCK_PREFIX + "ffn.activation",
    ONNX_LAYER + "ffn/lin2/Add_output_0": BLOCK_PREFIX + "ffn.lin2",
    ONNX_LAYER + "Add_1_output_0": BLOCK_PREFIX + "ffn_residual",
    ONNX_LAYER + "output_layer_norm/*": BLOCK_PREFIX + "output_layer_norm",
    "/pre_classifier/*": "pre_classifier",
    "/classifier/*": "classifier",
    "/qa_outputs/Add_output_0": "qa_outputs",
    "/vocab_transform/Add_output_0": "vocab_transform",
    "/vocab_layer_norm/*": "vocab_layer_norm",
    "/vocab_projector/Add_output_0": "vocab_projector",
}
NORM_ENDS: Final = (
    "LayerNormalization_output_0",
    "Add_1_output_0",
    "Gemm_output_0",
    "Add_output_0",
)
MAPS: Final[Mapping[str, Mapping[str, str]]] = {
    "pytorch": PYTORCH, "bumblebee": BUMBLEBEE, "onnx": ONNX, "candle": PYTORCH,
}  # fmt: skip


# Around the names of a model's steps: wrappers of training, and the encoder in a larger model.
ENCODERS: Final = "|".join(re.escape(row.prefix.rstrip(".")) for row in FAMILIES.values())
WRAPPERS: Final = re.compile(rf"^(?:model\.|module\.)*(?:(?:{ENCODERS})\.|/(?:{ENCODERS})(?=/))?")


def read_map(named: str) -> Mapping[str, str]:
    """Return a map by its name, or from a JSON or TOML file.  Raises InputError."""
    if named in MAPS:
        return MAPS[named]
    path = Path(named)
    if not path.is_file():
        raise InputError(
            f"--map {named}: expected one of {', '.join(MAPS)}, or a .json or .toml file"
        )
    try:
        raw = read_bytes(path, MAP_LIMIT)
        if path.suffix == ".toml":
            table = tomllib.loads(raw.decode())
        else:
            table = parse_json(raw, str(path))
    except CheckpointError as error:
        raise InputError(str(error)) from None
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply to be read") from None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise InputError(f"{path}: expected an object of names, theirs to npbert's")
    return table


def canonical_names(
    theirs: Iterable[str], table: Mapping[str, str], family: str = DEFAULT_FAMILY
) -> dict[str, str]:
    """Return our name for each of theirs; a name that no template fits is taken for a step's own.

    A hook hears a step under its own name, and once more as the result of the modules around it:
    its own name counts, then one that the table has, then the innermost module.  Raises InputError
    where two names have equal rights to one of ours.
    """
    around = FAMILIES[family].results
    patterns = [(name_pattern(t), target) for each in (table, around) for t, target in each.items()]
    found: dict[str, str] = {}
    rank: dict[str, int] = {}
    for name in theirs:
        renamed = rename_step(name, patterns)
        if renamed is None:
            continue
        mine = found[name] = canonical_module(family, renamed.step)
        own = name.endswith((mine, own_module(family, mine)))
        rank[name] = -1 if own else max(renamed.place - len(table) + 1, 0)
    made: dict[str, str] = {}
    for name in sorted(found, key=rank.__getitem__):
        rival = next((other for other in made if made[other] == found[name]), None)
        if rival is None:
            made[name] = found[name]
        elif rank[name] == rank[rival]:
            raise InputError(f"{quote(rival)} and {quote(name)} are both {found[name]}")
    return made


class Renamed(NamedTuple):
    """A step by the name that a template gives it, and which template of all that was."""

    step: str
    place: int


def rename_step(name: str, patterns: list[tuple[re.Pattern[str], str]]) -> Renamed | None:
    """Return our name for one of theirs; None for one that is a step on the way to another."""
    bare = WRAPPERS.sub("", name)
    for place, (pattern, target) in enumerate(patterns):
        if match := pattern.fullmatch(bare):
            if "end" in pattern.groupindex and match["end"] not in NORM_ENDS:
                return None
            groups = match.groupdict()
            n = int(groups["n"]) - int("m" in groups) if "n" in groups else 0
            return Renamed(target.replace("{n}", str(n)), place)
    return None if bare.startswith("/") or bare.endswith("dropout") else Renamed(bare, 0)


def name_pattern(template: str) -> re.Pattern[str]:
    """Turn a template into a pattern: {n} a number, {n+1} the one after it, * an operation."""
    escaped = re.escape(template)
    escaped = escaped.replace(r"\{n\+1\}", r"(?P<n>[1-9]\d{0,8})(?P<m>)")
    escaped = escaped.replace(r"\{n\}", r"(?P<n>\d{1,9})").replace(r"\*", r"(?P<end>[^/]+)")
    try:
        return re.compile(escaped)
    except re.error:
        raise InputError(
            f"the map has the template {quote(template)}, expected {{n}} or {{n+1}} at most once, "
            "and * at most once"
        ) from None


def detect_family(names: Iterable[str]) -> str:
    """Return the family whose own names most of these are; of none, the first."""
    given = list(names)
    counts = {f: sum(canonical_module(f, name) != name for name in given) for f in FAMILIES}
    return max(counts, key=counts.__getitem__)


STEP_IN_TEXT: Final = re.compile(r"^\w+(?=: | has )|[A-Za-z]\w*(?:\.\w+)+|[A-Za-z]+_\w+")
Told = TypeVar("Told")


def translate_text(family: str, text: str) -> str:
    """Return a step's name, or a text that mentions steps, in the names of a family.

    Mistakes name a step of a block without the block, and queries, keys and values as q_lin alone.
    """
    if not FAMILIES[family].modules:
        return text
    if (own := own_module(family, text)) != text:
        return own

    def own_name(match: re.Match[str]) -> str:
        name, number = match[0], "0"
        block = BLOCK_PREFIX.replace("{n}", number)
        for prefix in ("", block, f"{block}attention."):
            own = own_module(family, prefix + name)
            if own != prefix + name:
                return own.partition(f".{number}.")[2] if prefix else own
        return name

    return STEP_IN_TEXT.sub(own_name, text)


def translate_result(family: str, result: Told) -> Told:
    """Return a result of the oracle with every text in it, and every key, as translate_text says.

    result : texts, lists, tuples, mappings and dataclasses of such; anything else stays as it is
    """
    value: Any = result
    if isinstance(value, str):
        value = translate_text(family, value)
    elif isinstance(value, dict):
        value = {translate_text(family, k): translate_result(family, x) for k, x in value.items()}
    elif isinstance(value, list) or type(value) is tuple:
        value = type(value)(translate_result(family, each) for each in value)
    elif is_dataclass(value) and not isinstance(value, type):
        made = {f.name: translate_result(family, getattr(value, f.name)) for f in fields(value)}
        value = replace(value, **made)
    translated: Told = value
    return translated


@contextmanager
def translate_errors(family: str) -> Iterator[None]:
    """Tell what is wrong with an input in the names of a family."""
    try:
        yield
    except InputError as error:
        raise InputError(translate_text(family, str(error))) from None


def unknown_names(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return which names are nothing that npbert computes."""
    return sorted(set(names) - set(known))


def unknown_notice(names: list[str]) -> str:
    """Say which names were not understood."""
    return f"not understood, and left out: {listing(names)}" if names else ""


ArrayShape = tuple[int, ...]


class Fitted(NamedTuple):
    """An array in the expected shape, and what was done to it."""

    array: NDArray[Any]
    how: str = ""


def fit_layout(x: NDArray[Any], like: NDArray[Any], heads: int) -> Fitted | None:
    """Return an array arranged like another, or None where its numbers cannot be."""
    found = [
        each for each in possible_layouts(x, like.shape, heads) if each.array.shape == like.shape
    ]
    if not found:
        return None
    if len(found) == 1 or not found[0].how:
        return found[0]
    return min(found, key=lambda each: mean_distance(each.array, like))


def mean_distance(x: NDArray[Any], like: NDArray[Any]) -> float:
    """Return how far two arrays are apart, in the mean."""
    total = 0.0
    for a, b in split_into_pieces(x, like):
        with np.errstate(over="ignore", invalid="ignore"):
            difference = np.abs(a.astype(np.float64) - b)
        bounded = np.nan_to_num(difference, nan=1e300, posinf=1e300).clip(max=1e300)
        total += float(bounded.mean()) * (a.size / x.size)
    return total


def possible_layouts(x: NDArray[Any], shape: ArrayShape, heads: int) -> Iterator[Fitted]:
    """Yield an array as it is, and in every arrangement that a port may have for it."""
    yield Fitted(x)
    if (
        shape[0] > 1
        and x.size * shape[0] == int(np.prod(shape))
        and x.shape in (shape[1:], (1, *shape[1:]))
    ):
        yield Fitted(np.broadcast_to(x, shape).copy(), "one row stood for the whole batch")
    if x.size != int(np.prod(shape)):
        return
    squeezed = x.reshape(tuple(n for n in x.shape if n != 1))
    wanted = tuple(n for n in shape if n != 1)
    if squeezed.shape == wanted:
        yield Fitted(x.reshape(shape), axes_notice(x.shape, shape))
    if len(shape) == 3:
        batch, length, features = shape
        if heads and features % heads == 0:
            width = features // heads
            splits: tuple[tuple[ArrayShape, ArrayShape], ...] = (
                ((batch, heads, length, width), (0, 2, 1, 3)),
                ((batch, length, heads, width), (0, 1, 2, 3)),
                ((batch, heads, width, length), (0, 3, 1, 2)),
                ((heads, batch, length, width), (1, 2, 0, 3)),
            )
            for split, order in splits:
                if tuple(n for n in split if n != 1) == squeezed.shape:
                    joined = x.reshape(split).transpose(order).reshape(shape)
                    yield Fitted(joined, f"its heads were split, {x.shape}, and are joined")
        if x.shape == (batch * length, features):
            yield Fitted(x.reshape(shape), "batch and length were one axis")
        if x.ndim == 2:
            flat = (features, batch * length)
            if squeezed.shape == flat:
                yield Fitted(squeezed.T.reshape(shape), "a token was a column")
        turns: tuple[tuple[ArrayShape, str], ...] = (
            ((0, 2, 1), "length and features"), ((1, 0, 2), "batch and length"),
        )  # fmt: skip
        for order, what in turns:
            if x.ndim == 3 and tuple(x.shape[i] for i in order) == shape:
                yield Fitted(x.transpose(order), f"{what} had changed places")
    elif len(shape) == 4 and x.ndim in (3, 4):
        full = x.reshape(shape) if x.ndim == 3 else x
        if x.ndim == 3 and x.shape == (shape[0] * shape[1], *shape[2:]):
            yield Fitted(full, "batch and heads were one axis")
        for order, what in (((0, 1, 3, 2), "query and key"), ((1, 0, 2, 3), "batch and heads")):
            if full.ndim == 4 and tuple(full.shape[i] for i in order) == shape:
                yield Fitted(full.transpose(order), f"{what} had changed places")
    elif len(shape) == 2 and x.ndim == 2 and x.shape[::-1] == shape:
        yield Fitted(x.T, "rows and columns had changed places")


def axes_notice(found: ArrayShape, wanted: ArrayShape) -> str:
    """Say which axes of length 1 were left out, or were too many."""
    if found == wanted:
        return ""
    less = len(found) < len(wanted)
    return f"an axis of length 1 was {'left out' if less else 'too many'}: {found}"
