"""What the oracle's rooms share: a trace, the ruler, and how columns and rows change places."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npbert import inputs
from npbert.model import Model
from npbert.packing import padded
from npbert.taps import Border
from npbert.textbook import Array

Arrays = dict[str, NDArray[Any]]
INPUTS: Final = ("input_ids", "attention_mask", "position_ids", "attention_head_mask")
LOWEST: Final = -9e3  # a masked score: ports use the smallest number, -inf, or -10000
QUIET: Final = "dropout"  # names that end so are places, not steps: nothing happens there


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

    @property
    def activations(self) -> Arrays:
        """What was computed, without what was given."""
        return {name: x for name, x in self.arrays.items() if name not in INPUTS}

    @property
    def given(self) -> Arrays:
        """The inputs of the call."""
        return {name: x for name, x in self.arrays.items() if name in INPUTS}


class Call:
    """A dense call of a model: its checked inputs, and the border between columns and rows."""

    def __init__(self, model: Model, given: Mapping[str, NDArray[Any]]) -> None:
        arrays = [given.get(name) for name in INPUTS]
        self.model = model
        self.arrays = given
        self.inputs = inputs.dense(model.config, model.architecture, *arrays[:3])  # type: ignore[arg-type]
        self.masks = inputs.head_masks(model.config, arrays[3], model.dtype)
        self.batch, self.length = self.inputs.ids.shape
        self.pack = padded(self.inputs)
        self.candidate: Mapping[str, NDArray[Any]] = {}  # whose numbers are looked into
        self.border = Border(model.architecture, self.batch, self.length, self.inputs.choices)

    def columns(self, name: str, rows: NDArray[Any]) -> Array:
        """Return an activation's rows as the columns that the forward pass holds."""
        if name in ("start_logits", "end_logits") or (name == "logits" and self.inputs.choices):
            return rows.reshape(1, -1)
        return rows.reshape(-1, rows.shape[-1]).T

    def live(self, name: str, shape: tuple[int, ...]) -> NDArray[np.bool]:
        """Return which values of an activation stand for real tokens, broadcast to its shape.

        In attention a query counts, and all of its keys; of a batch row without any real token,
        nothing does.
        """
        keep = self.inputs.keep
        if ".attention." in name and len(shape) == 4:
            return np.broadcast_to(keep[:, None, :, None], shape)
        if shape[:2] == keep.shape:
            return np.broadcast_to(keep.reshape(*keep.shape, *[1] * (len(shape) - 2)), shape)
        return np.ones(shape, bool)


def is_masked(name: str, x: NDArray[Any]) -> NDArray[np.bool]:
    """Return which scores stand for keys that are not heard, and so for no number."""
    if not name.endswith("masked_scores"):
        return np.zeros(x.shape, bool)
    return ~(x > LOWEST)


def errors(name: str, ours: NDArray[Any], theirs: NDArray[Any]) -> Array:
    """Return how far every value is off, in units of the greatest of ours.

    A key that only one side hears is off by 1; one that neither hears is not off at all, whatever
    number stands for it.  NaN and infinity, where ours are finite, are infinitely far.
    """
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    hidden, missed = is_masked(name, ours), is_masked(name, theirs)
    alike = (hidden & missed) | (np.isnan(a) & np.isnan(b)) | (a == b)
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.where(alike | hidden | missed, 0, np.abs(a - b))
        greatest = np.abs(np.where(hidden | ~np.isfinite(a), 0, a)).max(initial=1e-300)
        scaled: Array = np.where(hidden != missed, 1, off / greatest)
    scaled[~(scaled >= 0)] = np.inf
    return scaled


def distance(
    name: str, ours: NDArray[Any], theirs: NDArray[Any], counts: NDArray[np.bool]
) -> float:
    """The greatest error of the values that count."""
    return float(errors(name, ours, theirs)[counts].max(initial=0))
