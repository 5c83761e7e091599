"""What right ports write down otherwise: a value before or behind the place where we hear it.

A Keras layer holds its activation function, a kernel scales queries before it multiplies them, and
what is called scores may be masked or not yet divided.  None of it is wrong.  Such an array is
recognised by its values, and given back as what its name says; where the port's next step agrees
with that, and not with the array as it was, it is taken so, and told.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np

from npbert.oracle.dumps import Arrays
from npbert.oracle.measures import LOWEST_SCORE, measure_error
from npbert.oracle.replay import replay_steps
from npbert.oracle.steps import step_stage
from npbert.oracle.traces import Call
from npbert.textbook import Array

INSIGNIFICANT: Final = 1e-3  # an error that is no convention's
ALIKE: Final = 0.05  # of the error of an array as it is: what a convention leaves, at the most


class Convention(NamedTuple):
    """How an array may stand for a step: what the array then is, and the step's value again."""

    step: str  # its name, without the block
    text: str
    array: Callable[[Call, Array], Array]  # of what should be there
    value: Callable[[Call, Array], Array | None]  # of the array; None where nothing is left of it


def head_scale(call: Call) -> float:
    """The root of the width of a head."""
    return math.sqrt(call.model.config.hidden_size / call.model.config.num_attention_heads)


def activation_of(call: Call, x: Array) -> Array:
    """Return what the model's activation function makes of values."""
    return call.model.make_run(lambda name, y: y).activation(x)


def pooler_of(call: Call, x: Array) -> Array:
    """Return what the pooler's function makes of values."""
    return call.model.make_run(lambda name, y: y).pooler(x)


def scale_convention(step: str, text: str, factor: Callable[[Call], float]) -> Convention:
    """Return the convention of an array that was multiplied."""
    return Convention(
        step, text, lambda call, x: x * factor(call), lambda call, y: y / factor(call)
    )


FUSED: Final = "is dumped behind its activation function"
BEHIND: Final = {  # steps that frameworks join with the function behind them: where that belongs
    "ffn.lin1": "ffn.activation",
    "vocab_transform": "vocab_activation",
    "pre_classifier": "pooled",
}
CONVENTIONS: Final = (
    *(
        Convention(
            step, FUSED, pooler_of if step == "pre_classifier" else activation_of,
            lambda call, y: None,
        )
        for step in BEHIND
    ),
    *(
        scale_convention(step, "is dumped behind the scale", lambda call: 1 / head_scale(call))
        for step in ("attention.q_lin", "attention.k_lin")
    ),
    scale_convention("attention.scores", "is dumped before the scale", head_scale),
)  # fmt: skip


def read_conventions(call: Call, theirs: Arrays, notes: list[str]) -> tuple[Arrays, Arrays]:
    """Return a candidate's arrays as what their names say, and each step again from those.

    Which were something else is told.
    Of every stage the first such array counts, for the others may follow from it; then the next.
    """
    theirs = rename_masked_scores(theirs, notes)
    told: list[tuple[str, Convention]] = []
    refused: set[tuple[str, str]] = set()
    while True:
        again = replay_steps(call, theirs)
        found = find_conventions(call, theirs, again, refused)
        if not found:
            break
        made = swap_values(call, theirs, found, again)
        better = replay_steps(call, made)
        kept = {
            name: convention for name, convention in found.items()
            if is_confirmed(call, name, (theirs, again), (made, better))
        }  # fmt: skip
        refused |= {(n, c.text) for n, c in found.items() if n not in kept}
        theirs = swap_values(call, theirs, kept, again)
        told += kept.items()
    for text, steps in group_by_text(told).items():
        notes.append(f"{', '.join(steps)} {text}; that is no mistake")
    return theirs, again


def find_conventions(
    call: Call, theirs: Arrays, again: Arrays, refused: set[tuple[str, str]]
) -> dict[str, Convention]:
    """Return the first array of every stage that is something else than its name says."""
    found: dict[int, tuple[str, Convention]] = {}
    order = list(again)
    for name, convention in possible_conventions(theirs):
        stage = step_stage(name, call.model.config.num_blocks)
        is_first = stage not in found or order.index(name) < order.index(found[stage][0])
        if name not in again or not is_first or (name, convention.text) in refused:
            continue
        live = call.counted_values(name, again[name].shape)
        now = measure_error(name, again[name], theirs[name], live)
        if not INSIGNIFICANT < now.rms < np.inf:
            continue
        with np.errstate(all="ignore"):
            left = measure_error(name, convention.array(call, again[name]), theirs[name], live)
        if left.rms <= ALIKE * now.rms:
            found[stage] = name, convention
    return dict(found.values())


def possible_conventions(theirs: Arrays) -> Iterator[tuple[str, Convention]]:
    """Yield the arrays that may be something else, and what."""
    for name in theirs:
        for convention in CONVENTIONS:
            if name == convention.step or name.endswith(f".{convention.step}"):
                yield name, convention


def swap_values(
    call: Call, theirs: Arrays, changed: Mapping[str, Convention], again: Arrays
) -> Arrays:
    """Return the arrays with some as their names say; a fused one is the step behind."""
    made = dict(theirs)
    for name, convention in changed.items():
        value = convention.value(call, theirs[name])
        if value is not None:
            made[name] = value.astype(theirs[name].dtype)
            continue
        del made[name]
        behind = name.removesuffix(convention.step) + BEHIND[convention.step]
        if behind in again:
            made.setdefault(behind, theirs[name])
    return made


def is_confirmed(
    call: Call, name: str, before: tuple[Arrays, Arrays], after: tuple[Arrays, Arrays]
) -> bool:
    """Tell whether the steps behind speak for a convention: none fits worse then.

    before, after : the candidate's arrays, and each step again from those, without and with it
    """
    order = list(before[1])
    stage = step_stage(name, call.model.config.num_blocks)
    behind = [
        n for n in order[order.index(name) + 1 :]
        if n in before[0] and n in after[0]
        and step_stage(n, call.model.config.num_blocks) == stage
    ]  # fmt: skip

    def measure_misfit(n: str, arrays: tuple[Arrays, Arrays]) -> float:
        live = call.counted_values(n, arrays[0][n].shape)
        return measure_error(n, arrays[1][n], arrays[0][n], live).rms

    return bool(behind) and all(
        measure_misfit(n, after) <= max(1.05 * measure_misfit(n, before), INSIGNIFICANT)
        for n in behind
    )


def group_by_text(told: Iterable[tuple[str, Convention]]) -> dict[str, list[str]]:
    """Return steps by what is to be said of them; of one step in all blocks, the first."""
    made: dict[str, list[str]] = {}
    met = set()
    for name, convention in told:
        if (convention.step, convention.text) not in met:
            made.setdefault(convention.text, []).append(name)
        met.add((convention.step, convention.text))
    return made


def rename_masked_scores(theirs: Arrays, notes: list[str]) -> Arrays:
    """Return scores that are masked already as masked scores."""
    made = dict(theirs)
    for name, x in theirs.items():
        if not name.endswith("attention.scores"):
            continue
        masked = name.replace("attention.scores", "attention.masked_scores")
        if (x <= LOWEST_SCORE).any():
            del made[name]
            made.setdefault(masked, x)
            if not any("scores are masked" in note for note in notes):
                notes.append(f"{name}: the scores are masked already; that is no mistake")
    return made
