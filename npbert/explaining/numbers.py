"""Arrays as the page carries them: three digits, in two bytes a number."""

import base64
from typing import Any, Final

import numpy as np

from npbert.textbook import Array

DIGITS: Final = 3
LARGEST: Final = 3  # the power of ten of an array's largest value, as it is stored: float16 ...
SMALLEST: Final = 6.2e-5  # ... ends at 65504, and keeps three digits down to here


def rounded(x: Array) -> Array:
    """Return numbers with three digits, in float64.

    A float16 is within 2^-12 to 2^-11 of a number, and half of a third digit is 2^-10.96 of it or
    more: the float16 nearest to a number of three digits is that number again, when it is rounded.
    """
    wide = x.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = 10.0 ** (DIGITS - 1 - np.floor(np.log10(np.abs(wide))))
        return np.where(np.isfinite(step), np.round(wide * step) / step, wide)


def packed(x: Array) -> dict[str, Any]:
    """Return an array as JSON: its shape, its power of ten, and float16 in base64.

    NaN stands for what has no number.
    """
    wide = rounded(x)
    most = float(np.nanmax(np.abs(wide), initial=0))
    power = LARGEST - int(np.floor(np.log10(most))) if most else 0
    stored = wide * 10.0**power
    stored[np.abs(stored) < SMALLEST] = 0
    return {
        "shape": list(x.shape),
        "power": power,
        "data": base64.b64encode(stored.astype("<f2").tobytes()).decode(),
    }


def shown(x: float) -> str:
    """Return a number as the page shows it, as page.js does: three digits, a true minus sign."""
    if x != x:
        return "hidden"
    if x == 0:
        return "0"
    digits, _, power = f"{x:#.{DIGITS}g}".partition("e")
    text = digits.rstrip(".") + (f"e{int(power)}" if power else "")
    return text.replace("-", "\u2212")
