"""Every step from the candidate's own numbers: how much of an error is new, and how much came in.

One forward pass with a tap.  At every activation it compares what the textbook makes of the
candidate's own earlier activations with the candidate's, and goes on from the candidate's: errors
do not travel.  What rounding alone would do to each step is measured the same way, with arithmetic
in the candidate's precision on inputs that are shaken in their last bit.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.engine.taps import Keeper, chain_taps
from npbert.oracle.dumps import Arrays
from npbert.oracle.measures import RIGHT, Error, is_masked, measure_error
from npbert.oracle.traces import NOT_STEPS, Call, float32_model
from npbert.textbook import Array, Tap

DRAWS: Final = 3  # of the noise; the greatest counts
BITS: Final = {"float32": 24, "float16": 11, "bfloat16": 8}


class Precision(NamedTuple):
    """In what a candidate computed: its name, and the weight of its last bit."""

    name: str
    unit: float


PRECISIONS: Final = {name: Precision(name, 2.0**-bits) for name, bits in BITS.items()}


class Replay(Keeper):
    """A tap that hears what follows from the candidate's numbers, and returns the candidate's."""

    def __init__(
        self, call: Call, candidate: Mapping[str, NDArray[Any]], kept: Collection[str] | None = None
    ) -> None:
        wanted = (lambda n: not n.endswith(NOT_STEPS)) if kept is None else kept.__contains__
        super().__init__(call.layout, wanted)
        self.call = call
        self.candidate = candidate
        self.sequence: Counter[str] = Counter()

    def __call__(self, name: str, x: Array) -> Array:
        super().__call__(name, x)
        theirs = self.candidate.get(name)
        if theirs is None:
            return x
        if x.ndim == 3:
            self.sequence[name] += 1
            return merge_values(name, x, theirs[self.sequence[name] - 1].mT)
        return merge_values(name, x, self.call.layout.columns(name, theirs))


def merge_values(name: str, ours: Array, theirs: NDArray[Any]) -> Array:
    """Return the candidate's values in our precision; ours where theirs are no numbers."""
    fits = np.isfinite(theirs)
    if not name.endswith("masked_scores") and fits.all():
        return theirs.astype(ours.dtype, order="C")
    fits |= is_masked(name, theirs)
    kept: Array = np.where(fits, theirs, ours).astype(ours.dtype)
    if name.endswith("masked_scores"):  # whatever a port writes for a key that is not heard
        kept[is_masked(name, theirs)] = np.finfo(ours.dtype).min
    return kept


def replay_steps(call: Call, candidate: Arrays, tap: Tap | None = None) -> Arrays:
    """Return every activation as the textbook computes it from the candidate's earlier ones."""
    replay = Replay(call, candidate)
    run_call(call, replay if tap is None else chain_taps([tap, replay]))
    return replay.rows()


def run_call(call: Call, tap: Tap) -> None:
    """Run a call's forward pass, whatever numbers come of it."""
    with np.errstate(all="ignore"):
        call.model.run_unchecked(call.pack, call.masks, tap)


def detect_precision(candidate: Arrays) -> Precision:
    """Return the precision that a candidate's numbers show: few bits used are few bits there."""
    values = [x.ravel()[:20000] for x in candidate.values() if x.dtype.kind == "f"]
    return PRECISIONS[narrowest_type(np.concatenate(values)) if values else "float32"]


def narrowest_type(values: NDArray[Any]) -> str:
    """Return the narrowest type that holds all of these values."""
    finite = values[np.isfinite(values) & (np.abs(values) > 1e-4) & (np.abs(values) < 6e4)]
    wide = finite.astype(np.float32)
    if not len(wide) or not np.array_equal(wide, finite):
        return "float32"
    if np.array_equal(round_to_type(wide, "bfloat16"), wide):
        return "bfloat16"
    return "float16" if np.array_equal(round_to_type(wide, "float16"), wide) else "float32"


def round_to_type(x: NDArray[Any], name: str) -> Array:
    """Return values as a type of fewer bits would keep them, to nearest."""
    if name == "float16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(x.dtype)
    if name == "bfloat16":
        bits = x.astype(np.float32).view(np.uint32)
        nearest = bits + 0x7FFF + (bits >> 16 & 1)
        return (nearest & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(x.dtype)
    return x.astype(np.float32).astype(x.dtype)


def rounding_noise(
    call: Call, candidate: Arrays, exact: Arrays, precision: Precision
) -> dict[str, Error]:
    """Return what rounding alone does to every step, in units of its greatest value.

    The steps are computed in float32 from the candidate's activations, each shaken by half a unit
    of its last bit, and their results rounded to the candidate's precision.
    """
    narrow = Call(float32_model(call.model), call.arrays)
    rng = np.random.default_rng(20)
    most = dict.fromkeys(exact, RIGHT)
    for _ in range(DRAWS):
        shaken = {name: shake_last_bit(x, precision, rng) for name, x in candidate.items()}

        def round_off(name: str, x: Array) -> Array:
            return x if precision.name == "float32" else round_to_type(x, precision.name)

        heard = replay_steps(narrow, shaken, round_off)
        for name, x in heard.items():
            live = call.counted_values(name, x.shape)
            most[name] = most[name].greatest_with(measure_error(name, exact[name], x, live))
    least = Error(precision.unit, precision.unit / 8)  # a rounded value's mean error, or so
    return {name: error.greatest_with(least) for name, error in most.items()}


def shake_last_bit(x: NDArray[Any], precision: Precision, rng: np.random.Generator) -> Array:
    """Return values moved by up to half a unit of their last bit, as if rounded otherwise."""
    wide = x.astype(np.float64)
    if x.dtype.kind != "f":
        return wide
    with np.errstate(invalid="ignore", over="ignore"):
        wide *= 1 + precision.unit * rng.uniform(-1, 1, x.shape)
        # What is computed from them is float32, and there are as many as in the candidate.
        return wide.astype(np.float32) if x.itemsize <= 4 else wide
