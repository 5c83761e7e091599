"""npbert compare: two traces side by side, end to end and step by step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.engine.spellings import explain_arguments
from npbert.errors import InputError, listing
from npbert.families import canonical_module
from npbert.model import Model
from npbert.oracle.candidates import (
    Reference,
    check_names,
    join_notes,
    read_steps,
    rename_arrays,
)
from npbert.oracle.conventions import read_conventions
from npbert.oracle.dialects import detect_family, translate_errors, translate_result
from npbert.oracle.dumps import Arrays
from npbert.oracle.maps import NameMap
from npbert.oracle.measures import Error, distance, measure_error, measure_values, safe_ratio
from npbert.oracle.port_inputs import missing_inputs, read_inputs, require_same_inputs
from npbert.oracle.port_names import PYTORCH
from npbert.oracle.replay import detect_precision, rounding_noise
from npbert.oracle.steps import sort_steps
from npbert.oracle.traces import INPUTS, Call, Trace, TraceLike, all_activations, as_trace

NOISE_FACTOR: Final = 8  # times the noise of a step; correct ports in other orders stay below 3
RMS_FACTOR: Final = 5  # the same of root mean squares, which chance moves less
FEW_STEPS: Final = 12  # steps
LOUDEST_FACTOR: Final = 32  # times the noise of rounding, of a port that is noisier throughout
LOOSEST: Final = Error(0.5, 0.2)  # a step is off by then, whatever noise says


class Place(NamedTuple):
    """Where the greatest error is, and the two values there."""

    where: tuple[int, ...]
    ours: float
    theirs: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """One activation of two traces."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    end_to_end: float  # greatest error of live values, in units of the greatest value
    this_step: float | None  # the same, from the candidate's own numbers; None without a model
    tolerance: float = math.nan  # until with_tolerance
    rms: float  # the root of the mean of the squares of those errors
    rms_tolerance: float = math.nan
    place: Place | None  # of the greatest error in this step, or end to end
    absolute: float
    relative: float
    rms_ratio: float
    cosine: float
    ulps: float  # of float32
    not_finite: int
    padding: float  # the greatest error of values that stand for padding
    layout: str = ""

    def with_tolerance(self, noise: Error, rms_factor: float) -> "Step":
        """Return the step with what rounding may do to it, some times its noise."""
        tolerance = Error(NOISE_FACTOR * noise.most, rms_factor * noise.rms)
        return replace(self, tolerance=tolerance.most, rms_tolerance=tolerance.rms)

    @property
    def off(self) -> bool:
        """Whether this step is wrong, or without a model the numbers are, beyond rounding."""
        value = self.end_to_end if self.this_step is None else self.this_step
        return not Error(value, self.rms).is_within(self.bound)

    @property
    def bound(self) -> Error:
        """What rounding may do, and never more than what no rounding does."""
        return Error(self.tolerance, self.rms_tolerance).limit_to(LOOSEST)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was compared, and what was found."""

    steps: list[Step]
    precision: str
    notes: list[str] = field(default_factory=list)

    @property
    def first(self) -> Step | None:
        """The first step that is off."""
        return next((step for step in self.steps if step.off), None)

    @property
    def same(self) -> bool:
        """Whether nothing is off."""
        return self.first is None

    def verdict(self, step: Step) -> str:
        """Tell in a word how it stands with a step; an error may come in from a wrong one."""
        if step.off:
            return "wrong" if step.this_step is not None else "differs"
        first = self.first
        after = first is not None and self.steps.index(step) > self.steps.index(first)
        return "inherited" if after and not step.end_to_end <= step.tolerance else "same"


class Beside(NamedTuple):
    """A candidate beside a model, on the candidate's inputs."""

    call: Call
    order: list[str]  # of the model's activations
    theirs: Arrays
    again: Arrays  # each step, computed from the candidate's earlier ones
    comparison: Comparison


@explain_arguments
def compare(
    reference: Model | TraceLike,
    candidate: TraceLike,
    *,
    names: NameMap | None = None,
    partial: bool = False,
) -> Comparison:
    """Compare a candidate's activations with a reference's.

    Parameters
    ----------
    reference : Model, Trace, mapping of arrays, or path
        A model is traced on the candidate's own inputs, and every step of the candidate is
        computed once more from what it had computed before.
    candidate : Trace, mapping of names to arrays, or path
        Of any port; a path is that of a .safetensors or .npz file, or of a folder of .npy files.
    names : mapping, optional
        Templates of names, theirs to ours; see oracle.port_names.  What fits none is read as the
        names of the system that most of them are of.
    partial : bool
        Judge a candidate by the arrays that were understood, though most were not.

    Raises
    ------
    InputError
        Where the two have nothing in common, or the candidate lacks the inputs.
    """
    candidate, names = as_trace(candidate), check_names(names)
    if isinstance(reference, Model):
        family = reference.family
        with translate_errors(family):
            comparison = compare_steps(reference, candidate, names, partial).comparison
    else:
        reference = as_trace(reference)
        family = detect_family(reference)
        with translate_errors(family):
            comparison = compare_traces(reference, candidate, names, family, partial)
    return translate_result(family, comparison)


def compare_traces(
    reference: Trace, candidate: Trace, names: NameMap, family: str, partial: bool
) -> Comparison:
    """Compare the numbers of two traces, end to end."""
    notes: list[str] = []
    ours = rename_arrays(reference.arrays, PYTORCH, family, None, (), [])
    exact = {n: ours[n] for n in sort_steps(ours) if n not in INPUTS and ", " not in n}
    mask = reference.given.get("attention_mask")
    key_mask = None if mask is None else mask.reshape(-1, mask.shape[-1]) != 0
    told = Reference(exact, family, mask=key_mask)
    theirs = read_steps(told, candidate, names, notes, partial)
    given = rename_arrays(candidate, names, family, None, (), [])
    require_same_inputs(reference, given)
    notes.extend(missing_inputs(reference.given, given))
    said = reference.about.get("noise")
    noise = said if isinstance(said, dict) else {}
    noise = {canonical_module(family, name): x for name, x in noise.items()}
    said_of = {name: noise.get(name) for name in exact}
    allowed = {n: Error(*2 * [x if isinstance(x, float) else 1e-6]) for n, x in said_of.items()}
    steps = [
        step.with_tolerance(allowed[step.name], NOISE_FACTOR)
        for step in measure_all(None, exact, theirs, {}, notes)
    ]
    precision = detect_precision(theirs).name
    return Comparison(steps=steps, precision=precision, notes=join_notes(notes))


def compare_steps(model: Model, candidate: Trace, names: NameMap, partial: bool = False) -> Beside:
    """Compute a model on a candidate's inputs, and each step again from the candidate's numbers."""
    notes: list[str] = []
    call = read_inputs(model, candidate, names, notes)
    exact = all_activations(call)
    theirs = read_steps(Reference(exact, model.family, call), candidate, names, notes, partial)
    theirs, again = read_conventions(call, theirs, notes)
    precision = detect_precision(theirs)
    if precision.name != "float32" and any(x.itemsize > 2 for x in theirs.values()):
        notes.append(
            f"every value is one of {precision.name}: the port computes or writes so, and is held "
            "to that"
        )
    steps, order = measure_all(call, exact, theirs, again, notes), list(exact)
    del exact  # as large as all the rest together
    allowed = rounding_noise(call, theirs, again, precision)
    factor = port_loudness(steps, allowed)
    steps = [step.with_tolerance(allowed[step.name].multiply(factor), RMS_FACTOR) for step in steps]
    comparison = Comparison(steps=steps, precision=precision.name, notes=join_notes(notes))
    return Beside(call, order, theirs, again, comparison)


def measure_all(
    call: Call | None, exact: Arrays, theirs: Arrays, again: Arrays, notes: list[str]
) -> list[Step]:
    """Measure every activation that both have.  Raises InputError where there is none."""
    if not theirs:
        raise InputError(
            f"the candidate has no activation of the reference's, {listing(exact)}"
            f"{'; ' * bool(notes[-1:])}{notes[-1] if notes else ''}"
        )
    return [
        measure_step(call, name, exact[name], theirs[name], again.get(name), notes)
        for name in exact
        if name in theirs
    ]


def port_loudness(steps: Sequence[Step], allowed: Mapping[str, Error]) -> float:
    """Return how many times the noise of rounding a candidate's own noise is, at least 1.

    A port that adds in another order, or keeps fewer digits, is louder in all of its steps, while a
    mistake is seen in few: a quarter of the steps, the quietest, tell.  Few steps, as hidden
    states alone, may all be mistaken, and tell nothing.
    """
    if len(steps) < FEW_STEPS:
        return 1.0
    ratios = sorted(step.rms / allowed[step.name].rms for step in steps)
    return float(np.clip(ratios[len(ratios) // 4], 1, LOUDEST_FACTOR))


def measure_step(
    call: Call | None, name: str, exact: NDArray[Any], theirs: NDArray[Any],
    again: NDArray[Any] | None, notes: list[str],
) -> Step:  # fmt: skip
    """Measure one activation."""
    live = np.broadcast_to(True, exact.shape)
    if call is not None:
        live = call.counted_values(name, exact.shape)
    base = exact if again is None else again
    found = measure_values(name, exact, theirs, base, live)
    where = tuple(map(int, np.unravel_index(found.at, exact.shape))) if exact.size else ()
    place = Place(where, float(base[where]), float(theirs[where])) if exact.size else None
    whole = measure_error(name, exact, theirs, live)
    own = whole if again is None else measure_error(name, again, theirs, live)
    return Step(
        name=name,
        shape=exact.shape,
        dtype=theirs.dtype.name,
        end_to_end=whole.most,
        this_step=None if again is None else own.most,
        rms=own.rms,
        place=place,
        absolute=found.absolute,
        relative=found.relative,
        rms_ratio=safe_ratio(found.theirs, found.ours) ** 0.5,
        cosine=safe_ratio(found.product, math.sqrt(found.ours * found.theirs)),
        ulps=found.ulps,
        not_finite=found.not_finite,
        padding=distance(name, exact, theirs, ~live),
        layout="; ".join(n.partition(": ")[2] for n in notes if n.startswith(f"{name}: ")),
    )
