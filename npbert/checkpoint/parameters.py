"""A checkpoint's tensors become an architecture's parameters, and a report says how.

Names and shapes follow from the rows of families.py.  All faults are collected and raised at once.
No weight is ever invented, unless that was asked for, and then the report and a warning say so.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from npbert.checkpoint.config import Config, class_names_of
from npbert.checkpoint.files import FLOATS, Tensor
from npbert.encoder import Block, Encoder
from npbert.errors import CheckpointError, listing, warn
from npbert.families import (
    ARCHITECTURES,
    BLOCK_LAYERS,
    BLOCK_PREFIX,
    EMBEDDING_NORM,
    FAMILIES,
    OTHER_FAMILIES,
    POOLER_LAYERS,
    TYPES,
    canonical_module,
    class_name,
    head_layers,
    own_module,
)
from npbert.textbook import Affine, Array, Attention, FeedForward, Norm

WORDS: Final = "embeddings.word_embeddings.weight"
PROJECTOR: Final = "vocab_projector.weight"  # the words again, as PyTorch ties them
PLACES: Final = "embeddings.position_embeddings.weight"
TOKEN_TYPES: Final = f"{TYPES}.weight"

BLOCK_NUMBER: Final = re.compile(re.escape(BLOCK_PREFIX).replace(r"\{n\}", r"(\d{1,9})"))
OLD_NORMS: Final = {"gamma": "weight", "beta": "bias"}
# What torch.compile, FSDP, checkpointing and Fabric put around a module, wherever it stands.
WRAPPED: Final = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
BUFFERS: Final = {"embeddings.position_ids"}
TWINS: Final = {PROJECTOR: WORDS, WORDS: PROJECTOR}
MADE_LIMIT: Final = 1 << 22  # numbers of an array that a file lacks and npbert makes, in any case

Parameters = dict[str, Array]


class Shape(NamedTuple):
    """A shape in letters and numbers."""

    letters: tuple[str, ...]
    numbers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of the tensors of a checkpoint, by name; empty where nothing is to be told."""

    stored: Mapping[str, int]  # how many tensors of each dtype the file holds
    renamed: Mapping[str, str]  # file's name -> the family's own, beyond the usual prefix
    tied: tuple[str, ...] = ()  # absent from the file, shared with another tensor
    initialised: tuple[str, ...] = ()  # absent from the file, and drawn at random
    generated: tuple[str, ...] = ()  # absent from the file, and computed
    unused: tuple[str, ...] = ()  # of another architecture of the family
    ignored: tuple[str, ...] = ()  # buffers, and with strict=False unknown tensors


def parameter_shapes(
    config: Config, architecture: str, *, pooled: bool = False
) -> dict[str, Shape]:
    """Return every parameter's name and shape, in the order of the forward pass."""
    made: dict[str, Shape] = {}
    tables = FAMILIES[config.family].tables

    def add(name: str, letters: str, block: int = 0) -> None:
        sizes = config.sizes(block)
        split = tuple(letters.split())
        numbers = tuple(sizes.get(letter) or int(letter) for letter in split)
        made[f"{name}.weight"] = Shape(split, numbers)
        if name not in tables:
            made[f"{name}.bias"] = Shape(split[:1], numbers[:1])

    for name, letters in {**tables, EMBEDDING_NORM: "D"}.items():
        add(name, letters)
    for i in range(config.num_blocks):
        for name, letters in BLOCK_LAYERS.items():
            add(BLOCK_PREFIX.replace("{n}", str(i)) + name, letters, i)
    head = ARCHITECTURES[architecture].layers
    for name, letters in {**(POOLER_LAYERS if pooled else {}), **head}.items():
        add(name, letters)
    return made


def canonical_name(name: str, family: str) -> str:
    """Return a tensor's canonical name: no prefixes of wrappers, a norm's in today's words.

    module is DDP's, model Lightning's and many people's, base_model peft's.
    """
    prefix = re.escape(FAMILIES[family].prefix)
    whole = WRAPPED.sub("", name)
    bare = re.sub(rf"^(?:module\.|model\.|base_model\.)*(?:{prefix})?", "", whole)
    for ours, own in FAMILIES[family].tensors.items():
        if bare in own:
            return ours
    stem, dot, last = bare.rpartition(".")
    return canonical_module(family, stem) + dot + OLD_NORMS.get(last, last)


def own_names(name: str, family: str) -> tuple[str, ...]:
    """Return what a family's files call a parameter, without the prefix; the first is written."""
    module, dot, last = name.rpartition(".")
    return FAMILIES[family].tensors.get(name, (own_module(family, module) + dot + last,))


def load_parameters(
    tensors: Mapping[str, Tensor], config: Config, architecture: str, dtype: type[np.floating],
    *, strict: bool = True,
) -> tuple[Parameters, LoadReport]:  # fmt: skip
    """Turn a checkpoint's tensors into an architecture's parameters, and report on every one.

    Raises CheckpointError with all faults: missing, misshapen, unknown.  With ``strict=False`` a
    missing head is drawn at random, and unknown tensors are ignored; both are reported.
    """
    family, layers = FAMILIES[config.family], head_layers()
    ours, theirs = rename_tensors(tensors, config.family)
    found = sorted({int(m[1]) for name in ours if (m := BLOCK_NUMBER.match(name))})
    if not found:
        raise CheckpointError(no_blocks_fault(tensors, config.family))
    if len(found) != config.num_blocks:  # then every other fault would be one of counting
        raise CheckpointError(
            f"the file has {len(found)} blocks ({listing(found)}), but num_blocks "
            f"({family.config_names['num_blocks'][0]} in config.json) is {config.num_blocks}; "
            "blocks are neither dropped nor invented"
        )
    wanted = parameter_shapes(config, architecture, pooled=has_pooler(ours, architecture))
    tied = {n: TWINS[n] for n in TWINS if n in wanted and is_tied(n, ours, config)}
    chosen = {n: ours[tied.get(n, n)] for n in wanted if tied.get(n, n) in ours}
    absent = {n: source_of_absent(n, config) for n in wanted if n not in chosen}
    used = set(wanted) | set(tied.values())
    unused = {n for n in ours if n not in used and n.rpartition(".")[0] in layers}
    unknown = set(ours) - used - unused - BUFFERS

    def own_name(name: str) -> str:
        return own_names(name, config.family)[0]

    faults = size_faults({own_name(n): wanted[n] for n, kind in absent.items() if kind}, tensors)
    if missing := [n for n, kind in absent.items() if not kind or (kind == "drawn" and strict)]:
        names = listing([own_name(n) for n in missing], 20)
        faults.append(f"missing: {names}{head_hint(missing, absent, architecture, config)}")
    if unknown and strict:
        names = listing(sorted(theirs[n] for n in unknown), 20)
        faults.append(
            f"unknown: {names}; a tensor that npbert does not know may change what the model "
            "computes (strict=False ignores it)"
        )
    for name, tensor in chosen.items():
        if fault := shape_fault(tensor, wanted[name]):
            faults.append(f"{theirs[tied.get(name, name)]} {fault}")
    if faults:
        raise CheckpointError("\n  ".join(faults))

    parameters = draw_parameters({n: wanted[n] for n in absent}, config, dtype, seed=0)
    for name in chosen:
        twin = tied.get(name)
        parameters[name] = parameters[twin] if twin in parameters else chosen[name].array(dtype)
    share_words(parameters, ours, config)
    stored = [tensor.dtype for tensor in tensors.values()]
    own = {n: own_names(n, config.family) for n in chosen if n in ours}
    drawn = [n for n, kind in absent.items() if kind == "drawn"]
    return parameters, LoadReport(
        stored={dtype: stored.count(dtype) for dtype in sorted(set(stored))},
        renamed={
            theirs[n]: names[0] for n, names in own.items()
            if theirs[n].removeprefix(family.prefix) not in names
        },
        tied=tuple(map(own_name, tied)),
        initialised=tuple(map(own_name, drawn)),
        generated=tuple(own_name(n) for n, kind in absent.items() if kind == "computed"),
        unused=tuple(sorted(map(own_name, unused))),
        ignored=tuple(sorted(theirs[n] for n in unknown | (BUFFERS & set(ours)))),
    )  # fmt: skip


def no_blocks_fault(tensors: Mapping[str, Tensor], family: str) -> str:
    """Say that a file has no block of its family, and of which family it is instead."""
    runs = ", ".join(FAMILIES)
    for name in tensors:
        for title in (title for prefix, title in OTHER_FAMILIES.items() if name.startswith(prefix)):
            return f"this is a {title} ({name}); npbert runs {runs}"
        for other, row in FAMILIES.items():
            if other != family and BLOCK_NUMBER.match(canonical_name(name, other)):
                return (
                    f"this is a {row.title} ({name}), but config.json says {family}; model_type "
                    f"should be {other}"
                )
    for name in tensors:
        starts = [found.end() for found in re.finditer(r"\.", name)]
        for start in (s for s in starts if BLOCK_NUMBER.match(canonical_name(name[s:], family))):
            return (
                f"its tensors begin with {name[:start]!r} ({name}), as in a class of one's own; "
                "write the model inside with save_pretrained, or the tensors without that"
            )
    block, _, _ = own_module(family, BLOCK_PREFIX + next(iter(BLOCK_LAYERS))).partition("{n}")
    return f"has no {block}N, but {listing(tensors, 3) or 'nothing'}: no {FAMILIES[family].title}"


def rename_tensors(
    tensors: Mapping[str, Tensor], family: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors by our names, and their own name for each of ours."""
    theirs: dict[str, str] = {}
    for name in tensors:
        ours = canonical_name(name, family)
        if ours in theirs:
            # An old file has both names of a tied bias.
            if ours in FAMILIES[family].tensors and has_same_content(
                tensors[name], tensors[theirs[ours]]
            ):
                continue
            raise CheckpointError(f"{theirs[ours]} and {name} are two names of one tensor")
        theirs[ours] = name
    return {ours: tensors[name] for ours, name in theirs.items()}, theirs


def has_same_content(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors hold the very same numbers."""
    return (one.dtype, one.shape) == (other.dtype, other.shape) and bytes(one.content) == bytes(
        other.content
    )


def has_pooler(ours: Mapping[str, Tensor], architecture: str) -> bool:
    """Tell whether an encoder comes with the weights that make its pooled_state."""
    return ARCHITECTURES[architecture].is_encoder and all(
        f"{n}.weight" in ours for n in POOLER_LAYERS
    )


def is_tied(name: str, ours: Mapping[str, Tensor], config: Config) -> bool:
    """Tell whether a parameter is absent because its twin serves for both."""
    return config.tie_word_embeddings and name not in ours and TWINS[name] in ours


def source_of_absent(name: str, config: Config) -> str | None:
    """Return how an absent parameter can be had: computed, drawn at random, or not at all."""
    if name == PLACES and config.sinusoidal_pos_embds:
        return "computed"
    return "drawn" if name.rpartition(".")[0] in head_layers() else None


def share_words(parameters: Parameters, ours: Mapping[str, Tensor], config: Config) -> None:
    """Where a file holds both tied tensors, take the input's, as transformers 4.57 does."""
    if not config.tie_word_embeddings or PROJECTOR not in parameters:
        return
    if set(TWINS) <= set(ours) and not np.array_equal(parameters[WORDS], parameters[PROJECTOR]):
        warn(
            f"{WORDS} and {PROJECTOR} differ although tie_word_embeddings is true; "
            f"{WORDS} serves as both (tie_word_embeddings=False keeps them apart)"
        )
    parameters[PROJECTOR] = parameters[WORDS]


def head_hint(
    missing: list[str], absent: Mapping[str, str | None], architecture: str, config: Config
) -> str:
    """Say what it probably means when only a head is missing."""
    if not all(absent[name] == "drawn" for name in missing):
        return ""
    if missing == [PROJECTOR]:
        return f"; tie_word_embeddings is false, so {WORDS} cannot serve as it"
    named = [n for n in class_names_of(config) if n != class_name(config.family, architecture)]
    made = f", as config.json says, {listing(named)}" if named else ""
    return (
        f"; the checkpoint was made for another task than {architecture}{made} "
        "(strict=False draws these at random, for training)"
    )


def size_faults(absent: Mapping[str, Shape], tensors: Mapping[str, Tensor]) -> list[str]:
    """Return which absent parameters have more numbers than all that a checkpoint holds.

    Their shapes are a few digits in config.json, which no tensor confirms.
    """
    most = max(MADE_LIMIT, sum(math.prod(tensor.shape) for tensor in tensors.values()))
    return [
        f"{name} is not in the file, and config.json gives it the shape "
        f"({', '.join(letters)}) = {shape}: npbert makes at most {most} numbers for this file"
        for name, (letters, shape) in absent.items()
        if math.prod(shape) > most
    ]


def shape_fault(tensor: Tensor, shape: Shape) -> str | None:
    """Return what is wrong with a tensor's dtype or shape, or None."""
    if tensor.dtype not in FLOATS:
        return f"has dtype {tensor.dtype}, expected one of {', '.join(FLOATS)}"
    if tensor.shape == shape.numbers:
        return None
    letters = f"({', '.join(shape.letters)})" if len(shape.letters) > 1 else shape.letters[0]
    expected = f"{letters} = {shape.numbers if len(shape.numbers) > 1 else shape.numbers[0]}"
    hint = ""
    if len(shape.numbers) == 2 and tensor.shape == shape.numbers[::-1]:
        hint = "; it looks transposed (PyTorch keeps linear weights as (out, in))"
    elif "C" in shape.letters:
        hint = "; id2label or num_labels in config.json does not fit this head"
    elif "A" in shape.letters:
        hint = "; heads were pruned, and pruned_heads in config.json must say which"
    return f"has shape {tensor.shape}, expected {expected}{hint}"


def draw_parameters(
    wanted: Mapping[str, Shape], config: Config, dtype: type[np.floating], seed: int
) -> Parameters:
    """Draw parameters as an untrained model has them.

    Matrices are normal(0, initializer_scale), norms 1 and 0, biases 0; positions are waves where
    the config says sinusoidal_pos_embds.  Draws are float64, so that a seed gives the same
    numbers in any dtype.
    """
    if not wanted:  # the usual case, and numpy.random takes 30 ms to import
        return {}
    rng = np.random.default_rng(seed)
    drawn: Parameters = {}
    for name, (_, shape) in wanted.items():
        if name == PLACES and config.sinusoidal_pos_embds:
            drawn[name] = sinusoids(*shape).astype(dtype)
        elif len(shape) == 2:
            drawn[name] = rng.normal(0, config.initializer_scale, shape).astype(dtype)
        else:
            drawn[name] = np.full(shape, name.endswith(".weight"), dtype)
    return drawn


def sinusoids(positions: int, width: int) -> Array:
    """sin and cos of p / 10000^(2i/D), side by side, in float32 as PyTorch keeps them.

    Source: Vaswani et al. 2017, section 3.5.  (positions, width)
    """
    waves = np.empty((positions, width), np.float32)
    angles = np.arange(positions)[:, None] / 10000 ** (np.arange(0, width, 2) / width)
    np.sin(angles, out=waves[:, ::2], casting="same_kind")  # each computed in float64
    np.cos(angles[:, : width // 2], out=waves[:, 1::2], casting="same_kind")
    return waves


def assemble(parameters: Parameters, config: Config) -> tuple[Encoder, dict[str, Any]]:
    """Hang the parameters where the forward pass looks for them; vectors become columns."""

    def affine(name: str) -> Affine:
        return Affine(parameters[f"{name}.weight"], parameters[f"{name}.bias"].reshape(-1, 1))

    def norm(name: str) -> Norm:
        weight, bias = (parameters[f"{name}.{last}"].reshape(-1, 1) for last in ("weight", "bias"))
        return Norm(weight, bias, config.layer_norm_epsilon)

    def block(under: str) -> Block:
        return Block(
            Attention(*(affine(f"{under}attention.{name}") for name in Attention._fields)),
            norm(f"{under}sa_layer_norm"),
            FeedForward(*(affine(f"{under}ffn.{name}") for name in FeedForward._fields)),
            norm(f"{under}output_layer_norm"),
        )

    blocks = [block(BLOCK_PREFIX.replace("{n}", str(i))) for i in range(config.num_blocks)]
    encoder = Encoder(
        parameters[WORDS], parameters[PLACES], norm(EMBEDDING_NORM), tuple(blocks),
        parameters.get(TOKEN_TYPES),
    )  # fmt: skip
    heads = {name.rpartition(".")[0] for name in parameters} & head_layers()
    vectors = {name for name in heads if parameters[f"{name}.weight"].ndim == 1}
    return encoder, {n: norm(n) if n in vectors else affine(n) for n in sorted(heads)}
