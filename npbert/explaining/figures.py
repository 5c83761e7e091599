"""Heat maps, bars and curves as HTML that reads without a script; the attention of all heads."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from npbert.explaining.markup import (
    PALETTES,
    activation_points,
    digits,
    escape,
    pack_array,
    png_uri,
    token_html,
)
from npbert.explaining.passes import Pass
from npbert.textbook import Array

CLEAR: Final = 0.995  # of all values differ in colour, where a few that are far off would hide them
FAR: Final = 1.5
LEAST_CHANGE: Final = 5e-6  # of an answer; rounding alone makes less
LEGENDS: Final = {
    kind: png_uri(np.linspace(-1 if kind == "signed" else 0, 1, 128)[None], kind, 1)
    for kind in PALETTES
}
WIDTH, HEIGHT = 360, 220  # of a curve's drawing


class Limits(NamedTuple):
    """How much of an array is shown: so many tokens, features, and features of one head."""

    tokens: int | None
    features: int | None
    width: int | None


class Sheet:
    """The arrays of a page, cut to what is shown of them."""

    def __init__(self, tokens: Sequence[str], limits: Limits) -> None:
        self.limits = limits
        self.tokens = list(tokens[: limits.tokens])
        self.arrays: dict[str, dict[str, Any]] = {}

    def add(self, name: str, x: Array) -> Array:
        """Keep an array for the page under a name, and return what is shown of it.

        x : (length, features), (heads, length, K), or (heads, query, key)
        """
        n, d, k = self.limits
        if x.ndim == 3:
            x = x[:, :n, : n if name.endswith(("scores", "weights")) else k]
        else:
            x = x[:n, :d]
        self.arrays[name] = pack_array(x)
        return x

    @property
    def size(self) -> int:
        """The number of characters that the arrays take."""
        return sum(len(each["data"]) for each in self.arrays.values())


class Map(NamedTuple):
    """A matrix to be drawn, and what page.js must know to draw another part of its array."""

    name: str  # in the trace, and of the array in the page
    title: str
    formula: str
    values: Array  # (rows, columns)
    rows: Sequence[str]
    columns: Sequence[str] = ()  # what they are called; empty: features by their numbers
    kind: str = "signed"
    most: float = 0.0  # the value with the last colour; 0: as the values need it
    least: float = 0.0  # the value with the first colour, of a map without signs
    view: str = "whole"  # "head": of the array's first axis one is drawn; "joined": all, in a row
    block: int | None = None
    total: int = 0  # how many features there are, where not all are drawn
    among: str = "tokens"  # what the columns are, if they have names
    which: str = ""  # of several heads


def colour_limit(x: Array) -> float:
    """Return the value that gets the last colour: the greatest, if it is not far off."""
    sizes = np.abs(x[np.isfinite(x)])
    most, clear = float(sizes.max(initial=0)), float(np.quantile(sizes, CLEAR)) if sizes.size else 0
    return clear if most > FAR * clear > 0 else most


def heat_map(given: Map) -> str:
    """Return a figure of a matrix with its title, the names of its rows, and what colours mean."""
    x, most = given.values, given.most or colour_limit(given.values)
    height, width = x.shape
    what = f"{width} {given.among}" if given.columns else f"{width} features"
    if given.total > width:
        what = f"the first {width} of {given.total} features"
    block = "" if given.block is None else f' data-block="{given.block}"'
    square = " square" if given.columns and height == width else " named" * bool(given.columns)
    which = f'<span class="which">{escape(given.which)}</span> · ' if given.which else ""
    image = png_uri(x, given.kind, most, given.least)
    across = "".join(f"<span>{token_html(each)}</span>" for each in given.columns)
    if across:
        across = f'<div class="across" aria-hidden="true">{across}</div>'
    down = "".join(f"<span>{token_html(each)}</span>" for each in given.rows)
    return (
        f'<figure class="map{square}" data-array="{escape(given.name)}" data-kind="{given.kind}" '
        f'data-view="{given.view}" data-most="{most:.9g}" data-least="{given.least:.9g}"{block} '
        f'style="--rows:{height};--columns:{width}">'
        f'<figcaption><b>{given.title}</b> <span class="formula">{given.formula}</span>'
        f"<small>{which}{len(given.rows) or height} \u00d7 {what}</small></figcaption>"
        f'<div class="plot">{across}'
        f'<div class="down" aria-hidden="true">{down}</div>'
        f'<img src="{image}" alt="{escape(describe_map(given))}"></div>'
        f"{map_legend(given.kind, most, given.least, x)}</figure>"
    )  # fmt: skip


def describe_map(given: Map) -> str:
    """Return in words what a map shows."""
    x = given.values
    finite = np.where(np.isfinite(x), x, 0)
    row, column = divmod(int(np.abs(finite).argmax()), x.shape[1])
    where = given.columns[column] if given.columns else f"feature {column}"
    who = f"{given.rows[row]}, " if given.rows else ""
    return (
        f"heat map of {given.title}, {x.shape[0]} by {x.shape[1]}, from {digits(finite.min())} to "
        f"{digits(finite.max())}; the strongest is {digits(finite[row, column])}, at {who}{where}"
    )


def map_legend(kind: str, most: float, least: float, x: Array) -> str:
    """Return what the colours of a map mean."""
    told = f"<span>colours begin at {digits(least)}, not at 0</span>" * bool(least)
    clipped = bool(np.abs(x[np.isfinite(x)]).max(initial=0) > most * 1.0001)
    low = f"{'≤ ' * clipped}{digits(-most)}" if kind == "signed" else digits(least)
    hidden = '<span class="none"></span>hidden' if np.isnan(x).any() else ""
    return (
        f'<div class="legend"><span>{low}</span><img src="{LEGENDS[kind]}" alt="">'
        f"<span>{'≥ ' * clipped}{digits(most)}</span>{hidden}{told}</div>"
    )


def answer_html(best: str) -> str:
    """Return the answer, which page.js exchanges for that of another run."""
    return f"<strong data-winner>{token_html(best)}</strong>"


def bars(names: Sequence[str], values: Sequence[float], *, answer: bool = False) -> str:
    """Return named numbers as bars, where they are shares of one."""
    mark = ' data-answer=""' if answer else ""
    share = all(0 <= value <= 1.0001 for value in values)
    rows = "".join(
        f"<li><span class=name>{token_html(name)}</span><span class=track>"
        f'<span class=bar style="--share:{value if share else 0:.4f}"></span></span>'
        f"<span class=value>{digits(value)}</span></li>"
        for name, value in zip(names, values, strict=True)
    )
    return f'<ol class="bars"{mark}>{rows}</ol>'


def activation_curve(name: str, x: Array, title: str) -> str:
    """Return a drawing of an activation function, and of where this run's values lie on it."""
    drawn = activation_points(name, x)
    line, points = drawn["curve"], drawn["points"]
    low, high = line.min(0), line.max(0)
    spread = np.where(high > low, high - low, 1)

    def place(xy: Array) -> Array:
        shares = (xy - low) / spread
        margin = 12
        return np.stack(
            [
                margin + shares[:, 0] * (WIDTH - 2 * margin),
                HEIGHT - margin - shares[:, 1] * (HEIGHT - 2 * margin),
            ],
            -1,
        )

    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in place(line))
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in place(points))
    ((zero, ground),) = place(np.zeros((1, 2)))
    below = float((x < 0).mean())
    return (
        f'<figure class="curve"><figcaption><b>{title}</b> <span class="formula">h = '
        f"{escape(name)}(h)</span><small>{x.size:,} values from {digits(float(x.min()))} to "
        f"{digits(float(x.max()))}; {below:.0%} are below 0; the dots are {len(points)} quantiles "
        f'of them</small></figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="the curve of {escape(name)}, and quantiles of this run on it">'
        f'<path class="axis" d="M0 {ground:.1f}H{WIDTH}M{zero:.1f} 0V{HEIGHT}"/>'
        f'<polyline points="{path}"/>{dots}'
        f'<text x="{WIDTH - 4}" y="{ground - 5:.1f}" text-anchor="end">{digits(float(high[0]))}'
        f'</text><text x="4" y="{ground - 5:.1f}">{digits(float(low[0]))}</text></svg></figure>'
    )  # fmt: skip


def block_weights_name(block: int) -> str:
    """Return the canonical name of a block's attention weights."""
    return f"transformer.layer.{block}.attention.weights"


def attention_view(run: Pass, sheet: Sheet, chosen: tuple[int, int], most: float) -> str:
    """Return a small map for every head, and a place for the one that is chosen."""
    config, rows = run.model.config, []
    for i in range(config.num_blocks):
        name = block_weights_name(i)
        weights = sheet.add(name, run.rows(name))
        maps = [
            small_map(sheet, x, (i, number), most, pressed=chosen == (i, number), mean=False)
            for number, x in zip(config.heads(i), weights, strict=True)
        ]
        maps.append(small_map(sheet, weights.mean(0), (i, -1), most, pressed=False, mean=True))
        rows.append(f'<div class="row"><span class="name">block {i}</span>{"".join(maps)}</div>')
    counts = max(len(config.heads(i)) for i in range(config.num_blocks)) + 1
    return (
        '<section class="view" id="attention"><h2>What every head listens to</h2>'
        f"<p>The model has {config.num_blocks} blocks, and in each of them heads that listen to "
        "different things. Below is a map of attention weights for each: from left to right what "
        "one token listens to, from top to bottom the tokens that listen; the stronger the colour, "
        "the more. Choose one: the steps further down show its numbers.</p>"
        '<div class="glance"><div class="grid" '
        f'role="group" aria-label="attention of every head" style="--heads:{counts}">'
        f"{''.join(rows)}</div>"
        '<div class="chosen"><div class="lines" id="lines"><noscript>With JavaScript, the '
        "attention of the chosen head is drawn here as lines between tokens, too.</noscript></div>"
        f"{large_map(run, sheet, chosen, most)}</div></div></section>"
    )


def large_map(run: Pass, sheet: Sheet, chosen: tuple[int, int], most: float) -> str:
    """Return the map of the chosen head."""
    i, number = chosen
    name = block_weights_name(i)
    head, n = run.model.config.heads(i).index(number), len(sheet.tokens)
    return heat_map(
        Map(name, "attention weights", "", run.rows(name)[head, :n, :n], sheet.tokens,
            sheet.tokens, "positive", most, view="head", block=i, which=f"block {i}, head {number}")
    )  # fmt: skip


def small_map(
    sheet: Sheet, x: Any, place: tuple[int, int], most: float, *, pressed: bool, mean: bool
) -> str:
    """Return a button with the map of a head, or of the mean over heads."""
    i, number = place
    row, column = divmod(int(x.argmax()), x.shape[1])
    name = f"block {i}, mean of all heads" if mean else f"block {i}, head {number}"
    strongest = (
        f"{name}: most of all {sheet.tokens[row]} listens to {sheet.tokens[column]}, "
        f"{digits(float(x.max()))}"
    )
    return (
        f'<button type="button" class="small" data-block="{i}" data-number="{number}" '
        f'aria-pressed="{str(pressed).lower()}" aria-label="{escape(strongest)}" '
        f'title="{escape(strongest)}"><img src="{png_uri(x, "positive", most)}" alt="">'
        f"<span>{'mean' if mean else number}</span></button>"
    )


def scale_to_greatest(changes: Sequence[float]) -> list[float]:
    """Return the sizes of changes as shares of the greatest; one that rounding alone makes is 0."""
    sizes = [abs(each) if abs(each) >= LEAST_CHANGE else 0.0 for each in changes]
    scale = max(sizes, default=0) or 1
    return [each / scale for each in sizes]


def digits_with_sign(x: float) -> str:
    """Return a change with its sign; one that rounding alone makes is 0."""
    if abs(x) < LEAST_CHANGE:
        return "0"
    return f"{'+' if x > 0 else ''}{digits(x)}"


def greatest_weight(run: Pass) -> float:
    """Return the greatest attention weight of all heads, which gets the last colour."""
    names = [block_weights_name(i) for i in range(run.model.config.num_blocks)]
    return max(float(run.rows(name).max()) for name in names) or 1.0
