"""How far the values of an activation are from another's, looked through a piece at a time."""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.oracle.dumps import split_into_pieces
from npbert.textbook import Array

LOWEST_SCORE: Final = -9e3  # a masked score: ports use the smallest number, -inf, or -10000


def is_masked(name: str, x: NDArray[Any]) -> NDArray[np.bool]:
    """Return which scores stand for keys that are not heard, and so for no number."""
    if not name.endswith("masked_scores"):
        return np.zeros(x.shape, bool)
    return ~(x > LOWEST_SCORE)


def greatest_value(name: str, ours: NDArray[Any]) -> float:
    """Return the greatest finite number of an activation, but for scores that are masked."""
    most = 1e-300
    for (x,) in split_into_pieces(ours):
        if x.dtype.kind == "f" and not name.endswith("masked_scores"):
            highest = float(np.abs(x).max())
            if np.isfinite(highest):
                most = max(most, highest)
                continue
        a = x.astype(np.float64)
        most = max(most, float(np.abs(np.where(is_masked(name, x) | ~np.isfinite(a), 0, a)).max()))
    return most


def errors(name: str, ours: NDArray[Any], theirs: NDArray[Any], greatest: float) -> Array:
    """Return how far every value is off, in units of the greatest of ours.

    A key that only one side hears is off by 1; one that neither hears is not off at all, whatever
    number stands for it.  NaN and infinity, where ours are finite, are infinitely far.
    """
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    if not name.endswith("masked_scores"):
        with np.errstate(invalid="ignore", over="ignore"):
            plain: Array = np.abs(a - b) / greatest
        if np.isfinite(plain.max(initial=0)):  # as nearly always: no case below is met
            return plain
    hidden, missed = is_masked(name, ours), is_masked(name, theirs)
    alike = (hidden & missed) | (np.isnan(a) & np.isnan(b)) | (a == b)
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.where(alike | hidden | missed, 0, np.abs(a - b))
        scaled: Array = np.where(hidden != missed, 1, off / greatest)
    scaled[~(scaled >= 0)] = np.inf
    return scaled


def distance(
    name: str, ours: NDArray[Any], theirs: NDArray[Any], counts: NDArray[np.bool]
) -> float:
    """The greatest error of the values that count."""
    greatest = greatest_value(name, ours)
    return max(
        (
            float(errors(name, a, b, greatest)[count].max(initial=0))
            for a, b, count in split_into_pieces(ours, theirs, counts)
        ),
        default=0.0,
    )


class Error(NamedTuple):
    """How far an activation is from another, in units of the other's greatest value."""

    most: float  # the greatest error of the values that count
    rms: float  # the root of the mean of their squares

    def is_within(self, bound: "Error") -> bool:
        """Tell whether neither is above a bound's; NaN never is is_within."""
        return self.most <= bound.most and self.rms <= bound.rms

    def multiply(self, factor: float) -> "Error":
        """Return both, so many multiply as great."""
        return Error(self.most * factor, self.rms * factor)

    def limit_to(self, bound: "Error") -> "Error":
        """Return the lesser of each."""
        return Error(min(self.most, bound.most), min(self.rms, bound.rms))

    def greatest_with(self, bound: "Error") -> "Error":
        """Return the greater of each."""
        return Error(max(self.most, bound.most), max(self.rms, bound.rms))


RIGHT = Error(0.0, 0.0)


def measure_error(
    name: str, ours: NDArray[Any], theirs: NDArray[Any], counts: NDArray[np.bool]
) -> Error:
    """Return how far the values that count are off, at the most and in the mean."""
    greatest, most, total, number = greatest_value(name, ours), 0.0, 0.0, 0
    for a, b, count in split_into_pieces(ours, theirs, counts):
        off = errors(name, a, b, greatest)
        off = off if count.all() else off[count]
        worst = float(off.max(initial=0))
        most = max(most, worst)
        bounded = off if worst <= 1e150 else off.clip(max=1e150)
        total += float(bounded @ bounded)
        number += len(off)
    return Error(most, (total / number) ** 0.5 if most < np.inf and number else most)


@dataclass
class Sums:
    """What is added up, or is the greatest, over the values of an activation."""

    at: int = 0  # where the greatest error of live values is, counted along rows
    worst: float = -2.0  # that error; padding's is -1
    absolute: float = 0.0
    relative: float = 0.0
    ulps: float = 0.0
    ours: float = 0.0  # sums of squares
    theirs: float = 0.0
    product: float = 0.0
    not_finite: int = 0


def measure_values(
    name: str, exact: NDArray[Any], theirs: NDArray[Any], base: NDArray[Any], live: NDArray[np.bool]
) -> Sums:
    """Look through an activation, some values at a time, so that little is held in float64."""
    sums, greatest, start = Sums(), greatest_value(name, base), 0
    for ours, x, expected, keep in split_into_pieces(exact, theirs, base, live):
        off = np.where(keep, errors(name, expected, x, greatest), -1)
        if (worst := float(off.max())) > sums.worst:
            sums.worst, sums.at = worst, start + int(off.argmax())
        start += len(x)
        a, b = ours.astype(np.float64), x.astype(np.float64)
        counts = keep & np.isfinite(b) & np.isfinite(a) & (np.abs(a) < 1e30)
        a, b = a[counts], b[counts]
        difference = np.abs(a - b)
        spacing = np.spacing(np.abs(a).astype(np.float32)).astype(np.float64)
        relative = difference / np.maximum(np.abs(a), 1e-300)
        sums.absolute = max(sums.absolute, float(difference.max(initial=0)))
        sums.relative = max(sums.relative, float(relative.max(initial=0)))
        sums.ulps = max(sums.ulps, float((difference / spacing).max(initial=0)))
        sums.ours += float((a * a).sum())
        sums.theirs += float((b * b).sum())
        sums.product += float((a * b).sum())
        sums.not_finite += int((~np.isfinite(x)).sum())
    return sums


def safe_ratio(a: float, b: float) -> float:
    """Return a / b; 1 of nothing and nothing."""
    return a / b if b else 1.0
