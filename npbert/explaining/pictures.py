"""Numbers to pictures, with the standard library alone: colour tables, PNG files, a curve.

Lightness falls evenly along a table, so that a picture reads in grey too; the signed one is blue
below zero and orange above, which every kind of colour vision tells apart.
"""

import base64
import math
import struct
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npbert.textbook import ACTIVATIONS, Array

Bytes = NDArray[np.uint8]

SHADES: Final = 255  # the colour of number 255 is for what has no number
HIDDEN: Final = (128, 128, 128)
# Of Björn Ottosson's Oklab: to cone responses, and from their cubes to linear sRGB.
CONES: Final = np.array([[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728],
                         [1, -0.0894841775, -1.2914855480]])  # fmt: skip
SRGB: Final = np.array([[4.0767416621, -3.3077115913, 0.2309699292],
                        [-1.2684380046, 2.6097574011, -0.3413193965],
                        [-0.0041960863, -0.7034186147, 1.7076147010]])  # fmt: skip
POINTS: Final = 160  # of a run, that are drawn on a curve


def colours(lightness: Array, chroma: Array, hue: float) -> Bytes:
    """Return sRGB colours, (n, 3), of which Oklab's coordinates are given, the hue in degrees."""
    angle = math.radians(hue)
    lab = np.stack([lightness, chroma * math.cos(angle), chroma * math.sin(angle)], -1)
    linear = np.clip((lab @ CONES.T) ** 3 @ SRGB.T, 0, 1)
    encoded = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * encoded).round().astype(np.uint8)


def ramp(n: int, hue: float, darkest: float) -> Bytes:
    """Return n colours from nearly white to a dark one of that hue."""
    t = np.linspace(0, 1, n)
    return colours(0.985 - (0.985 - darkest) * t, 0.155 * np.sin(t * 2.2) / np.sin(1.571), hue)


def palettes() -> dict[str, Bytes]:
    """Return the tables, (256, 3): for numbers from 0, and for numbers with a sign."""
    half = SHADES // 2 + 1
    signed = [ramp(half, 255, 0.45)[:0:-1], ramp(half, 50, 0.45)]
    made = {"positive": ramp(SHADES, 270, 0.3), "signed": np.concatenate(signed)}
    return {
        name: np.concatenate([table, [HIDDEN]]).astype(np.uint8) for name, table in made.items()
    }


PALETTES: Final = palettes()


def shades(x: Array, kind: str, most: float, least: float = 0.0) -> Bytes:
    """Return the colour number of every value; those beyond `most` get the last colour.

    least : the value with the first colour; of numbers with a sign it is -most
    """
    low = -most if kind == "signed" else least
    made = np.clip((x.astype(np.float64) - low) / ((most - low) or 1), 0, 1) * (SHADES - 1)
    return np.where(np.isnan(x), SHADES, np.nan_to_num(made).round()).astype(np.uint8)


def png(x: Array, kind: str, most: float, least: float = 0.0) -> str:
    """Return a matrix as the data URI of a PNG file, a pixel for every value."""
    height, width = x.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each begins with the filter's number, 0
    rows[:, 1:] = shades(x, kind, most, least)
    return uri(
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", PALETTES[kind].tobytes())
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + chunk(b"IEND", b"")
    )


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a part of a PNG file: its length, name, data and check sum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def uri(chunks: bytes) -> str:
    """Return the chunks of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def curve(name: str, x: Array) -> dict[str, Any]:
    """Return an activation function's curve over what a run put in, and points of that run on it.

    Both are lists of (x, y): the curve, and the quantiles of all values.
    """
    function = ACTIVATIONS[name]
    points = np.quantile(x.astype(np.float64), np.linspace(0, 1, POINTS))
    low, high = min(float(points[0]), -3.0), max(float(points[-1]), 3.0)
    line = np.linspace(low, high, 200)
    return {
        "curve": np.stack([line, function(line)], -1),
        "points": np.stack([points, function(points)], -1),
    }
