"""A checkpoint's tensors become an architecture's parameters, and a report says how.

All faults are collected and raised at once.  No weight is ever invented, unless that was asked
for, and then the report and a warning say so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from npbert.config import Config
from npbert.errors import CheckpointError, listed, warn
from npbert.files import FLOATS, Tensor
from npbert.weights import FAMILY, PLACES, PROJECTOR, WORDS, Parameters, Shape, fresh, shapes

BLOCK_NUMBER: Final = re.compile(r"transformer\.layer\.(\d{1,9})\.")
WRAPPERS: Final = re.compile(r"^(?:module\.|model\.)*(?:distilbert\.)?")  # of DDP, Lightning, HF
OLD_NORMS: Final = {"gamma": "weight", "beta": "bias"}
BUFFERS: Final = {"embeddings.position_ids"}
TWINS: Final = {PROJECTOR: WORDS, WORDS: PROJECTOR}
MOST_PLACES: Final = 1 << 20  # rows of a sinusoidal table that npbert will compute


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of the tensors of a checkpoint, by name; empty where nothing is to be told."""

    stored: Mapping[str, int]  # how many tensors of each dtype the file holds
    renamed: Mapping[str, str]  # file's name -> ours, beyond the usual prefix
    tied: tuple[str, ...] = ()  # absent from the file, shared with another tensor
    initialised: tuple[str, ...] = ()  # absent from the file, and drawn at random
    generated: tuple[str, ...] = ()  # absent from the file, and computed
    unused: tuple[str, ...] = ()  # of another architecture of the family
    ignored: tuple[str, ...] = ()  # buffers, and with strict=False unknown tensors


def our_name(name: str) -> str:
    """Return a tensor's name without the prefixes of wrappers, and a norm's in today's words."""
    stem, dot, last = WRAPPERS.sub("", name).rpartition(".")
    return stem + dot + OLD_NORMS.get(last, last)


def load_parameters(
    tensors: Mapping[str, Tensor], config: Config, architecture: str, dtype: type[np.floating],
    *, strict: bool = True,
) -> tuple[Parameters, LoadReport]:  # fmt: skip
    """Turn a checkpoint's tensors into an architecture's parameters, and report on every one.

    Raises CheckpointError with all faults: missing, misshapen, unknown.  With ``strict=False`` a
    missing head is drawn at random, and unknown tensors are ignored; both are reported.
    """
    ours, theirs = renamed(tensors)
    found = sorted({int(m[1]) for name in ours if (m := BLOCK_NUMBER.match(name))})
    if not found:
        raise CheckpointError(
            f"has no transformer.layer.N, but {listed(tensors, 3) or 'nothing'}: no DistilBERT"
        )
    if len(found) != config.num_blocks:  # then every other fault would be one of counting
        raise CheckpointError(
            f"the file has {len(found)} blocks ({listed(found)}), but num_blocks (n_layers in "
            f"config.json) is {config.num_blocks}; blocks are neither dropped nor invented"
        )
    wanted = shapes(config, architecture, pooled=pooled(ours, architecture))
    tied = {n: TWINS[n] for n in TWINS if n in wanted and may_tie(n, ours, config)}
    chosen = {n: ours[tied.get(n, n)] for n in wanted if tied.get(n, n) in ours}
    absent = {n: how(n, config) for n in wanted if n not in chosen}
    used = set(wanted) | set(tied.values())
    unused = {n for n in ours if n not in used and n.rpartition(".")[0] in FAMILY}
    unknown = set(ours) - used - unused - BUFFERS

    faults = []
    if missing := [n for n, kind in absent.items() if not kind or (kind == "drawn" and strict)]:
        faults.append(f"missing: {listed(missing, 20)}{head_hint(missing, absent, architecture)}")
    if unknown and strict:
        names = listed(sorted(theirs[n] for n in unknown), 20)
        faults.append(
            f"unknown: {names}; a tensor that npbert does not know may change what the model "
            "computes (strict=False ignores it)"
        )
    for name, tensor in chosen.items():
        if fault := misfit(tensor, wanted[name]):
            faults.append(f"{theirs[tied.get(name, name)]} {fault}")
    if faults:
        raise CheckpointError("\n  ".join(faults))

    parameters = fresh({n: wanted[n] for n in absent}, config, dtype, seed=0)
    for name in chosen:
        twin = tied.get(name)
        parameters[name] = parameters[twin] if twin in parameters else chosen[name].array(dtype)
    share_words(parameters, ours, config)
    stored = [tensor.dtype for tensor in tensors.values()]
    return parameters, LoadReport(
        stored={dtype: stored.count(dtype) for dtype in sorted(set(stored))},
        renamed={
            theirs[n]: n for n in chosen if n in ours and theirs[n] not in (n, f"distilbert.{n}")
        },
        tied=tuple(tied),
        initialised=tuple(n for n, kind in absent.items() if kind == "drawn"),
        generated=tuple(n for n, kind in absent.items() if kind == "computed"),
        unused=tuple(sorted(unused)),
        ignored=tuple(sorted(theirs[n] for n in unknown | (BUFFERS & set(ours)))),
    )


def renamed(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors by our names, and their own name for each of ours."""
    theirs: dict[str, str] = {}
    for name in tensors:
        ours = our_name(name)
        if ours in theirs:
            raise CheckpointError(f"{theirs[ours]} and {name} are two names of one tensor")
        theirs[ours] = name
    return {ours: tensors[name] for ours, name in theirs.items()}, theirs


def pooled(ours: Mapping[str, Tensor], architecture: str) -> bool:
    """Tell whether a base model comes with the weights that make its pooled_state."""
    return architecture == "base" and "pre_classifier.weight" in ours


def may_tie(name: str, ours: Mapping[str, Tensor], config: Config) -> bool:
    """Tell whether a parameter is absent because its twin serves for both."""
    return config.tie_word_embeddings and name not in ours and TWINS[name] in ours


def how(name: str, config: Config) -> str | None:
    """Tell how an absent parameter can be had: computed, drawn at random, or not at all."""
    if name == PLACES and config.sinusoidal_pos_embds and config.max_positions <= MOST_PLACES:
        return "computed"
    return "drawn" if name.rpartition(".")[0] in FAMILY else None


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


def head_hint(missing: list[str], absent: Mapping[str, str | None], architecture: str) -> str:
    """Say what it probably means when only a head is missing."""
    if not all(absent[name] == "drawn" for name in missing):
        return ""
    if missing == [PROJECTOR]:
        return f"; tie_word_embeddings is false, so {WORDS} cannot serve as it"
    return (
        f"; the checkpoint was made for another task than {architecture} "
        "(strict=False draws these at random, for training)"
    )


def misfit(tensor: Tensor, shape: Shape) -> str | None:
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
