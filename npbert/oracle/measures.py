"""How far the values of an activation are from another's, looked through a piece at a time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npbert.oracle.dumps import split_into_pieces
from npbert.oracle.traces import errors, greatest_value


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
