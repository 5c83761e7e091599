"""What the page is written with: text that stays text, code, numbers, and pictures of numbers.

Pictures are made with the standard library alone: colour tables, PNG files, a curve.  Lightness
falls evenly along a table, so that a picture reads in grey too; the signed one is blue below zero
and orange above, which every kind of colour vision tells apart.
"""

import base64
import html
import inspect
import io
import json
import keyword
import math
import re
import struct
import tokenize
import zlib
from collections.abc import Collection, Sequence
from textwrap import dedent
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npbert.engine.activations import ACTIVATIONS
from npbert.textbook import Array

TAP_CALLS: Final = re.compile(r'tap\(\s*"([\w.]+)"|tap, "(\w+)"')
TOKEN_CLASSES: Final = {tokenize.COMMENT: "c", tokenize.STRING: "s", tokenize.NUMBER: "n"}


def escape_controls(text: str) -> str:
    """Return a text with every character that a page would obey or hide written as its escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def escape(text: object) -> str:
    """Return text for any place in the page, inside quotes too."""
    return html.escape(escape_controls(str(text)))


def shorten(text: str, most: int) -> str:
    """Return a text, or its beginning where it is too long."""
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def text_pieces(
    text: str, marks: Sequence[tuple[int, int, str]], most: int
) -> list[tuple[str, str]]:
    """Return a text, or its beginning, in pieces, each with what it is called: "" for nothing.

    marks : (start, end, name) of characters; those that begin in an earlier one are left out
    """
    shown, at, made = shorten(text, most), 0, []
    last = len(shown) - (shown != text)
    for start, end, name in sorted(marks):
        if at <= start < end <= last:
            made += [(shown[at:start], ""), (shown[start:end], name)]
            at = end
    return [(escape_controls(each), name) for each, name in [*made, (shown[at:], "")] if each]


def text_html(pieces: Sequence[tuple[str, str]]) -> str:
    """Return a text, its named pieces marked."""
    return "".join(
        f'<mark class="entity"><bdi>{escape(text)}</bdi><small>{escape(name)}</small></mark>'
        if name
        else escape(text)
        for text, name in pieces
    )


def token_html(text: str) -> str:
    """Return a token or a word, whose direction of writing ends where it ends."""
    return f"<bdi>{escape(text)}</bdi>"


def script_json(value: Any) -> str:
    """Return JSON that can stand in a script element, whatever its strings hold."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII only
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def source_html(function: Any, steps: Collection[str] = ()) -> str:
    """Return the source of a function as it runs, the lines that compute these steps marked."""
    text = dedent(inspect.getsource(function))
    where = f"{function.__module__}.{function.__qualname__}"
    lines = [
        f"<mark>{line}</mark>" if is_step_line(plain, steps) else line
        for plain, line in zip(text.splitlines(), highlight_code(text).split("\n"), strict=False)
    ]
    return (
        f'<pre class="code" data-function="{escape(where)}" tabindex="0" role="group" '
        f'aria-label="source of {escape(where)}"><code>' + "\n".join(lines) + "\n</code></pre>"
    )


def is_step_line(line: str, steps: Collection[str]) -> bool:
    """Tell whether a line of the source offers one of these steps to the tap, or returns."""
    if "return" in steps and line.lstrip().startswith("return "):
        return True
    return any(name in steps for found in TAP_CALLS.findall(line) for name in found if name)


def highlight_code(text: str) -> str:
    """Return Python's source as HTML, its kinds of tokens told apart; the text is unchanged."""
    made: list[str] = []
    lines = text.splitlines(keepends=True)
    at = (1, 0)
    for kind, string, start, end, _ in tokenize.generate_tokens(io.StringIO(text).readline):
        if kind in (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE, tokenize.NL):
            continue
        made.append(escape_code(text_range(lines, at, start)))
        named = (
            "k" if kind == tokenize.NAME and keyword.iskeyword(string) else TOKEN_CLASSES.get(kind)
        )
        made.append(span_lines(named, string) if named else escape_code(string))
        at = end
    return "".join(made) + escape_code(text_range(lines, at, (len(lines) + 1, 0)))


def span_lines(kind: str, string: str) -> str:
    """Return a token of a kind, each of its lines by itself."""
    return "\n".join(f'<i class="{kind}">{escape_code(each)}</i>' for each in string.split("\n"))


def escape_code(code: str) -> str:
    """Return code as HTML, its line ends kept."""
    return html.escape(code, quote=False)


def text_range(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the text from one (line, column), counted from (1, 0), to another."""
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]] if start[0] <= len(lines) else ""
    middle = lines[start[0] : end[0] - 1]
    last = lines[end[0] - 1][: end[1]] if end[0] <= len(lines) else ""
    return "".join([lines[start[0] - 1][start[1] :], *middle, last])


DIGITS: Final = 3
LARGEST_POWER: Final = (
    3  # the power of ten of an array's largest value, as it is stored: float16 ...
)
SMALLEST_STORED: Final = 6.2e-5  # ... ends at 65504, and keeps three digits down to here


def round_to_digits(x: Array) -> Array:
    """Return numbers with three digits, in float64.

    A float16 is within 2^-12 to 2^-11 of a number, and half of a third digit is 2^-10.96 of it or
    more: the float16 nearest to a number of three digits is that number again, when it is rounded.
    """
    wide = x.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = 10.0 ** (DIGITS - 1 - np.floor(np.log10(np.abs(wide))))
        return np.where(np.isfinite(step), np.round(wide * step) / step, wide)


def pack_array(x: Array) -> dict[str, Any]:
    """Return an array as JSON: its shape, its power of ten, and float16 in base64.

    NaN stands for what has no number.
    """
    wide = round_to_digits(x)
    most = float(np.nanmax(np.abs(wide), initial=0))
    power = LARGEST_POWER - int(np.floor(np.log10(most))) if most else 0
    stored = wide * 10.0**power
    stored[np.abs(stored) < SMALLEST_STORED] = 0
    return {
        "shape": list(x.shape),
        "power": power,
        "data": base64.b64encode(stored.astype("<f2").tobytes()).decode(),
    }


def digits(x: float) -> str:
    """Return a number as the page shows it, as page.js does: three digits, a true minus sign."""
    if x != x:
        return "hidden"
    if x == 0:
        return "0"
    text, _, power = f"{x:#.{DIGITS}g}".partition("e")
    text = text.rstrip(".") + (f"e{int(power)}" if power else "")
    return text.replace("-", "\u2212")


ByteArray = NDArray[np.uint8]

SHADES: Final = 255  # the colour of number 255 is for what has no number
HIDDEN_COLOUR: Final = (128, 128, 128)
# Of Björn Ottosson's Oklab: to cone responses, and from their cubes to linear sRGB.
CONES: Final = np.array([[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728],
                         [1, -0.0894841775, -1.2914855480]])  # fmt: skip
SRGB: Final = np.array([[4.0767416621, -3.3077115913, 0.2309699292],
                        [-1.2684380046, 2.6097574011, -0.3413193965],
                        [-0.0041960863, -0.7034186147, 1.7076147010]])  # fmt: skip
CURVE_POINTS: Final = 160  # of a run, that are drawn on a curve


def oklab_colours(lightness: Array, chroma: Array, hue: float) -> ByteArray:
    """Return sRGB colours, (n, 3), of which Oklab's coordinates are given, the hue in degrees."""
    angle = math.radians(hue)
    lab = np.stack([lightness, chroma * math.cos(angle), chroma * math.sin(angle)], -1)
    linear = np.clip((lab @ CONES.T) ** 3 @ SRGB.T, 0, 1)
    encoded = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * encoded).round().astype(np.uint8)


def colour_ramp(n: int, hue: float, darkest: float) -> ByteArray:
    """Return n colours from nearly white to a dark one of that hue."""
    t = np.linspace(0, 1, n)
    return oklab_colours(
        0.985 - (0.985 - darkest) * t, 0.155 * np.sin(t * 2.2) / np.sin(1.571), hue
    )


def colour_tables() -> dict[str, ByteArray]:
    """Return the tables, (256, 3): for numbers from 0, and for numbers with a sign."""
    half = SHADES // 2 + 1
    signed = [colour_ramp(half, 255, 0.45)[:0:-1], colour_ramp(half, 50, 0.45)]
    made = {"positive": colour_ramp(SHADES, 270, 0.3), "signed": np.concatenate(signed)}
    return {
        name: np.concatenate([table, [HIDDEN_COLOUR]]).astype(np.uint8)
        for name, table in made.items()
    }


PALETTES: Final = colour_tables()


def colour_numbers(x: Array, kind: str, most: float, least: float = 0.0) -> ByteArray:
    """Return the colour number of every value; those beyond `most` get the last colour.

    least : the value with the first colour; of numbers with a sign it is -most
    """
    low = -most if kind == "signed" else least
    made = np.clip((x.astype(np.float64) - low) / ((most - low) or 1), 0, 1) * (SHADES - 1)
    return np.where(np.isnan(x), SHADES, np.nan_to_num(made).round()).astype(np.uint8)


def png_uri(x: Array, kind: str, most: float, least: float = 0.0) -> str:
    """Return a matrix as the data URI of a PNG file, a pixel for every value."""
    height, width = x.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each begins with the filter's number, 0
    rows[:, 1:] = colour_numbers(x, kind, most, least)
    return data_uri(
        png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + png_chunk(b"PLTE", PALETTES[kind].tobytes())
        + png_chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + png_chunk(b"IEND", b"")
    )


def png_chunk(name: bytes, data: bytes) -> bytes:
    """Return a part of a PNG file: its length, name, data and check sum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def data_uri(chunks: bytes) -> str:
    """Return the chunks of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def activation_points(name: str, x: Array) -> dict[str, Any]:
    """Return an activation function's curve over what a run put in, and points of that run on it.

    Both are lists of (x, y): the curve, and the quantiles of all values.
    """
    function = ACTIVATIONS[name]
    points = np.quantile(x.astype(np.float64), np.linspace(0, 1, CURVE_POINTS))
    low, high = min(float(points[0]), -3.0), max(float(points[-1]), 3.0)
    line = np.linspace(low, high, 200)
    return {
        "curve": np.stack([line, function(line)], -1),
        "points": np.stack([points, function(points)], -1),
    }
