"""npbert compare: two traces side by side, end to end and step by step."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
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
from npbert.oracle.dialects import detect_family, translate_errors, translate_result
from npbert.oracle.dumps import Arrays
from npbert.oracle.maps import NameMap
from npbert.oracle.measures import measure_values, safe_ratio
from npbert.oracle.port_inputs import read_inputs, require_same_inputs
from npbert.oracle.port_names import PYTORCH
from npbert.oracle.replay import Precision, detect_precision, replay_steps, rounding_noise
from npbert.oracle.traces import (
    INPUTS,
    Call,
    Trace,
    TraceLike,
    all_activations,
    as_trace,
    distance,
)

NOISE_FACTOR: Final = 8  # times the noise of a step; correct ports in other orders stay below 3
FEW_STEPS: Final = 12  # steps
LOUDEST_FACTOR: Final = 32  # times the noise of rounding, of a port that is noisier throughout
LOOSEST_TOLERANCE: Final = 0.5  # a step is off by then, whatever noise says


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
    tolerance: float
    place: Place | None  # of the greatest error in this step, or end to end
    absolute: float
    relative: float
    rms_ratio: float
    cosine: float
    ulps: float  # of float32
    not_finite: int
    padding: float  # the greatest error of values that stand for padding
    layout: str = ""

    @property
    def off(self) -> bool:
        """Whether this step is wrong, or without a model the numbers are, beyond rounding."""
        value = self.end_to_end if self.this_step is None else self.this_step
        return not value <= min(self.tolerance, LOOSEST_TOLERANCE)


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
    exact = {name: x for name, x in ours.items() if name not in INPUTS and ", " not in name}
    mask = reference.given.get("attention_mask")
    key_mask = None if mask is None else mask.reshape(-1, mask.shape[-1]) != 0
    told = Reference(exact, family, mask=key_mask)
    theirs = read_steps(told, candidate, names, notes, partial)
    require_same_inputs(reference, rename_arrays(candidate, names, family, None, (), []))
    said = reference.about.get("noise")
    noise = said if isinstance(said, dict) else {}
    noise = {canonical_module(family, name): x for name, x in noise.items()}
    given = {name: noise.get(name) for name in exact}
    allowed = {name: x if isinstance(x, float) else 1e-6 for name, x in given.items()}
    return measure_all(None, exact, theirs, {}, allowed, detect_precision(theirs), notes)


def compare_steps(model: Model, candidate: Trace, names: NameMap, partial: bool = False) -> Beside:
    """Compute a model on a candidate's inputs, and each step again from the candidate's numbers."""
    notes: list[str] = []
    call = read_inputs(model, candidate, names, notes)
    exact = all_activations(call)
    theirs = read_steps(Reference(exact, model.family, call), candidate, names, notes, partial)
    again, precision = replay_steps(call, theirs), detect_precision(theirs)
    allowed = rounding_noise(call, theirs, again, precision)
    comparison = measure_all(call, exact, theirs, again, allowed, precision, notes)
    return Beside(call, list(exact), theirs, again, comparison)


def measure_all(
    call: Call | None, exact: Arrays, theirs: Arrays, again: Arrays, allowed: Mapping[str, float],
    precision: Precision, notes: list[str],
) -> Comparison:  # fmt: skip
    """Measure every activation that both have.  Raises InputError where there is none."""
    if not theirs:
        raise InputError(
            f"the candidate has no activation of the reference's, {listing(exact)}"
            f"{'; ' * bool(notes[-1:])}{notes[-1] if notes else ''}"
        )
    scale = port_loudness(call, theirs, again, allowed)
    steps = [
        measure_step(
            call, name, exact[name], theirs[name], again.get(name), scale * allowed[name], notes
        )
        for name in exact
        if name in theirs
    ]
    return Comparison(steps=steps, precision=precision.name, notes=join_notes(notes))


def port_loudness(
    call: Call | None, theirs: Arrays, again: Arrays, allowed: Mapping[str, float]
) -> float:
    """Return how many times the noise of rounding a candidate's own noise is, at least 1.

    A port that adds in another order, or keeps fewer digits, is louder in all of its steps, while a
    mistake is seen in few: a quarter of the steps, the quietest, tell.  Of few steps, as hidden
    states alone, most may be mistaken, and the quietest one tells.
    """
    if call is None:
        return 1.0
    live = {name: call.live_values(name, x.shape) for name, x in theirs.items()}
    ratios = [distance(n, again[n], x, live[n]) / allowed[n] for n, x in theirs.items()]
    quiet = sorted(ratios)[len(ratios) // 4] if len(ratios) >= FEW_STEPS else 2 * min(ratios)
    return float(np.clip(quiet, 1, LOUDEST_FACTOR))


def measure_step(
    call: Call | None, name: str, exact: NDArray[Any], theirs: NDArray[Any],
    again: NDArray[Any] | None, allowed: float, notes: list[str],
) -> Step:  # fmt: skip
    """Measure one activation."""
    live = np.broadcast_to(True, exact.shape)
    if call is not None:
        live = call.live_values(name, exact.shape)
    base = exact if again is None else again
    found = measure_values(name, exact, theirs, base, live)
    where = tuple(map(int, np.unravel_index(found.at, exact.shape))) if exact.size else ()
    place = Place(where, float(base[where]), float(theirs[where])) if exact.size else None
    return Step(
        name=name,
        shape=exact.shape,
        dtype=theirs.dtype.name,
        end_to_end=distance(name, exact, theirs, live),
        this_step=None if again is None else distance(name, again, theirs, live),
        tolerance=NOISE_FACTOR * allowed,
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


def comparison_table(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of a table: every activation, and where the first wrong step is."""
    stepwise = any(step.this_step is not None for step in comparison.steps)
    width = max(len(step.name) for step in comparison.steps)
    middle = "   this step   tolerance" if stepwise else "   tolerance"
    yield f"  end to end{middle}   {'activation':{width}}   shape"
    for step in comparison.steps:
        this = "" if step.this_step is None else f"   {step.this_step:9.1e}"
        mark = "\N{BLACK RIGHT-POINTING TRIANGLE}" if step is comparison.first else " "
        verdict = comparison.verdict(step)
        also = f"   {verdict}" if verdict != "same" else ""
        shape = "\N{MULTIPLICATION SIGN}".join(map(str, step.shape))
        numbers = f"{step.end_to_end:11.1e}{this}   {step.tolerance:9.1e}"
        yield f"{mark}{numbers}   {step.name:{width}}   {shape}{also}"
    yield from comparison.notes
    first = comparison.first
    if first is None:
        yield f"the same, within the rounding of {comparison.precision}"
        return
    what = "first wrong step" if stepwise else "first difference"
    yield f"{what}: {first.name}"
    if first.place is not None:
        yield f"  at {first.place.where}: {first.place.theirs!r}, expected {first.place.ours!r}"
    yield (
        f"  greatest absolute error {first.absolute:.3e}, relative {first.relative:.3e}, "
        f"{first.ulps:.3g} ULP; root mean square {first.rms_ratio:.6g} times ours, cosine "
        f"{first.cosine:.6f}; {first.not_finite} values not finite"
    )


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON; infinite and undefined numbers as null."""
    steps = [
        {**asdict(step), "off": step.off, "verdict": comparison.verdict(step)}
        for step in comparison.steps
    ]
    first = comparison.first
    return finite_json(
        {
            "same": comparison.same,
            "first": first.name if first else None,
            "precision": comparison.precision,
            "notes": comparison.notes,
            "steps": steps,
        }
    )


def finite_json(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite_json(each) for name, each in value.items()}
    return [finite_json(each) for each in value] if isinstance(value, list | tuple) else value
