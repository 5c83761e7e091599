"""The one ruler that activations are held to."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def differences(
    expected: Mapping[str, Array], actual: Mapping[str, Array], within: float
) -> list[str]:
    """One message for each activation of `expected` that `actual` lacks or has otherwise."""
    messages = (_difference(name, x, actual.get(name), within) for name, x in expected.items())
    return [message for message in messages if message]


def distance(expected: Array, actual: Array) -> float:
    """The greatest error, as a share of the greatest expected absolute value."""
    return float(_errors(expected, actual).max(initial=0))


def _difference(name: str, expected: Array, actual: Array | None, within: float) -> str:
    if actual is None:
        return f"{name}: missing"
    if actual.shape != expected.shape:
        return f"{name}: shape {actual.shape}, expected {expected.shape}"
    errors = _errors(expected, actual)
    if name.endswith(".weights"):  # a key that takes no part has no weight, not a small one
        errors = np.where((expected == 0) & (actual != 0), np.inf, errors)
    if errors.max(initial=0) <= within:  # false for NaN
        return ""
    at = tuple(int(i) for i in np.unravel_index(errors.argmax(), errors.shape))
    return (
        f"{name}: error {errors[at]:.2e} exceeds {within:.0e} "
        f"at {at}: {actual[at]!s}, expected {expected[at]!s}"
    )


def _errors(expected: Array, actual: Array) -> Array:
    """|actual - expected| / max |expected|, element by element; a masked score is only masked."""
    masked, masked_too = _masked(expected), _masked(actual)
    x, y = np.where(masked, 0.0, expected), np.where(masked_too, 0.0, actual)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(y - x)
        scale = np.fmax.reduce(np.abs(x), axis=None, initial=0.0)  # a NaN spoils only its place
        error = error / scale if scale else np.where(error == 0, 0.0, np.inf)
    return np.where(masked == masked_too, error, np.inf)


def _masked(x: Array) -> NDArray[np.bool_]:
    return x == np.finfo(x.dtype).min
