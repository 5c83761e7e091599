"""The call that a port's dump answers: its inputs by their names, or known by their values."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npbert.errors import InputError, listing, quote
from npbert.model import Model
from npbert.oracle.candidates import possible_steps, rename_arrays
from npbert.oracle.dumps import Arrays
from npbert.oracle.layouts import KeyMask
from npbert.oracle.maps import NameMap
from npbert.oracle.port_names import GIVEN
from npbert.oracle.traces import INPUTS, Call, Trace


def read_inputs(
    model: Model, candidate: Mapping[str, NDArray[Any]], names: NameMap, notes: list[str]
) -> Call:
    """Return the call that a candidate answers.  Raises InputError without input_ids."""
    blocks = model.config.num_blocks
    arrays = rename_arrays(candidate, names, model.family, blocks, possible_steps(blocks), [])
    arrays = pad_inputs(model, guess_inputs(model, arrays, notes), notes)
    if "input_ids" not in arrays:
        types = model.config.type_vocab_size
        raise InputError(
            "the candidate has no input_ids, and without them nothing can be computed again; "
            f"it has {listing(sorted(arrays))}. Write the inputs into the dump too: "
            f"{', '.join(name for name in INPUTS if name != 'token_type_ids' or types)}"
        )
    given: Arrays = {}
    rank = 3 if model.row.has_choices else 2
    for name in INPUTS:
        if name in arrays:
            x = arrays[name]
            wide = x if name == "attention_head_mask" or x.ndim >= rank else x[None]
            if wide is not x:
                notes.append(f"{name}: its batch axis was left out")
            whole = (
                name in ("input_ids", "position_ids", "token_type_ids") and wide.dtype.kind == "f"
            )
            given[name] = wide.astype(np.int64) if whole else wide
    return Call(model, given)


def guess_inputs(model: Model, arrays: Arrays, notes: list[str]) -> Arrays:
    """Return arrays with the ids and the mask known by their values, where ids have no name.

    Ids are the only whole numbers that are more than 0 and 1, and a mask those that are 0 and 1,
    and 0 where the padding is.
    """
    if "input_ids" in arrays:
        return arrays
    whole = {
        name: x for name, x in arrays.items()
        if name not in GIVEN and x.ndim in (2, 3) and x.dtype.kind in "iub" and x.size
        and x.min() >= 0
    }  # fmt: skip
    ids = [n for n, x in whole.items() if 1 < x.max() < model.config.vocab_size]
    if len(ids) != 1:
        return arrays
    found = arrays[ids[0]]
    pad = model.config.pad_token_id or 0
    masks = [
        n for n, x in whole.items()
        if x.max() <= 1 and x.shape == found.shape and np.array_equal(x == 0, found == pad)
    ]  # fmt: skip
    made = {"input_ids": ids[0]}
    if len(masks) == 1 and "attention_mask" not in arrays:
        made["attention_mask"] = masks[0]
    for name, theirs in made.items():
        notes.append(f"{name}: is {quote(theirs)}, guessed by its value")
    return {name: x for name, x in arrays.items() if name not in made.values()} | {
        name: arrays[theirs] for name, theirs in made.items()
    }


def pad_inputs(model: Model, arrays: Arrays, notes: list[str]) -> Arrays:
    """Return inputs as a padded batch, where the tokens of all sequences are one row.

    How long each sequence is, the cumulative lengths say, or the lengths, or an attention mask.
    Raises InputError where these are of another number of tokens.
    """
    ids, mask = arrays.get("input_ids"), arrays.get("attention_mask")
    if ids is None or ids.size != max(ids.shape, default=0):
        return arrays
    if "cumulative_lengths" in arrays:
        lengths = np.diff(arrays["cumulative_lengths"].ravel().astype(np.int64))
    elif "lengths" in arrays:
        lengths = arrays["lengths"].ravel().astype(np.int64)
    elif mask is not None and mask.ndim == 2 and (mask != 0).sum() == ids.size < mask.size:
        return arrays | pad_tokens(model, arrays, mask != 0, notes)
    else:
        return arrays
    if (lengths < 0).any() or lengths.sum() != ids.size or not ids.size:
        raise InputError(
            f"input_ids are {ids.size} tokens, and the lengths of the sequences {lengths.tolist()}"
        )
    places = np.arange(lengths.max()) < lengths[:, None]
    return arrays | pad_tokens(model, arrays, places, notes)


def pad_tokens(model: Model, arrays: Arrays, places: KeyMask, notes: list[str]) -> Arrays:
    """Return inputs of tokens alone at their places in a batch, and what mask that is."""
    notes.append(f"padding was left out of the inputs; the batch is {places.shape}")
    made: Arrays = {"attention_mask": places.astype(np.int64)}
    for name in ("input_ids", "position_ids", "token_type_ids"):
        if name in arrays and arrays[name].size == places.sum():
            pad = model.config.pad_token_id or 0 if name == "input_ids" else 0
            made[name] = np.full(places.shape, pad, np.int64)
            made[name][places] = arrays[name].ravel()
    return made


def missing_inputs(given: Arrays, theirs: Arrays) -> Iterator[str]:
    """Yield which inputs one side tells of, no default ones, and the other does not."""
    for name in ("position_ids", "token_type_ids", "attention_head_mask"):
        sides = [name in side for side in (given, theirs)]
        if any(sides) and not all(sides):
            x = (given if sides[0] else theirs)[name]
            if not is_default_input(name, x):
                who = "the candidate" if sides[0] else "the reference"
                yield f"{name}: {who} tells of none; the other's may be why they differ"


def is_default_input(name: str, x: NDArray[Any]) -> bool:
    """Tell whether an input is what a model takes where none is given."""
    if name == "position_ids":
        return bool((x == np.arange(x.shape[-1])).all())
    return bool((x == (0 if name == "token_type_ids" else 1)).all())


def require_same_inputs(reference: Trace, arrays: Arrays) -> None:
    """Refuse to compare answers to different questions.  Raises InputError."""
    for name, x in reference.given.items():
        theirs = arrays.get(name)
        if theirs is not None and not (
            theirs.size == x.size and np.array_equal(theirs.ravel(), x.ravel())
        ):
            raise InputError(f"{name} of the two differ: {theirs.shape} and {x.shape}")
