"""The attention of all heads at a glance, and how much each of them matters for the answer."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from npbert.explaining.answers import Answer, Effect, Question
from npbert.explaining.figures import Map, Sheet, bars, heat_map
from npbert.explaining.markup import escape, token
from npbert.explaining.numbers import shown
from npbert.explaining.passes import Pass
from npbert.explaining.pictures import png

STRONGEST: Final = 12  # heads of the chart that are shown before the others


def attention(run: Pass, sheet: Sheet, chosen: tuple[int, int], most: float) -> str:
    """Return a small map for every head, and a place for the one that is chosen."""
    config, rows = run.model.config, []
    for i in range(config.num_blocks):
        name = f"transformer.layer.{i}.attention.weights"
        weights = sheet.add(name, run.rows(name))
        maps = [
            small(sheet, x, (i, number), most, pressed=chosen == (i, number), mean=False)
            for number, x in zip(config.heads(i), weights, strict=True)
        ]
        maps.append(small(sheet, weights.mean(0), (i, -1), most, pressed=False, mean=True))
        rows.append(f'<div class="row"><span class="name">block {i}</span>{"".join(maps)}</div>')
    counts = max(len(config.heads(i)) for i in range(config.num_blocks)) + 1
    return (
        '<section class="view" id="attention"><h2>What every head listens to</h2>'
        f"<p>The model has {config.num_blocks} blocks, and in each of them heads that listen to "
        "different things. Below is a map of attention weights for each: a row is a token that "
        "listens, a column one that it listens to; the stronger the colour, the more. Choose one: "
        'the steps further down show its numbers.</p><div class="glance"><div class="grid" '
        f'role="group" aria-label="attention of every head" style="--heads:{counts}">'
        f"{''.join(rows)}</div>"
        '<div class="chosen"><div class="lines" id="lines"><noscript>With JavaScript, the '
        "attention of the chosen head is drawn here as lines between tokens, too.</noscript></div>"
        f"{large(run, sheet, chosen, most)}</div></div></section>"
    )


def large(run: Pass, sheet: Sheet, chosen: tuple[int, int], most: float) -> str:
    """Return the map of the chosen head."""
    i, number = chosen
    name = f"transformer.layer.{i}.attention.weights"
    head, n = run.model.config.heads(i).index(number), len(sheet.tokens)
    return heat_map(
        Map(name, "attention weights", "", run.rows(name)[head, :n, :n], sheet.tokens,
            sheet.tokens, "positive", most, view="head", block=i, which=f"block {i}, head {number}")
    )  # fmt: skip


def small(
    sheet: Sheet, x: Any, place: tuple[int, int], most: float, *, pressed: bool, mean: bool
) -> str:
    """Return a button with the map of a head, or of the mean over heads."""
    i, number = place
    row, column = divmod(int(x.argmax()), x.shape[1])
    name = f"block {i}, mean of all heads" if mean else f"block {i}, head {number}"
    strongest = (
        f"{name}: most of all {sheet.tokens[row]} listens to {sheet.tokens[column]}, "
        f"{shown(float(x.max()))}"
    )
    return (
        f'<button type="button" class="small" data-block="{i}" data-number="{number}" '
        f'aria-pressed="{str(pressed).lower()}" aria-label="{escape(strongest)}" '
        f'title="{escape(strongest)}"><img src="{png(x, "positive", most)}" alt="">'
        f"<span>{'mean' if mean else number}</span></button>"
    )


def importance(found: Sequence[Effect], asked: Question, before: Answer) -> str:
    """Return the heads in the order of their effect on the answer, each a switch."""
    order = sorted(range(len(found)), key=lambda i: -abs(found[i].change))
    scale = max((abs(each.change) for each in found), default=0) or 1
    rows = []
    for i in order:
        each = found[i]
        share, sign = abs(each.change) / scale, "less" if each.change < 0 else "more"
        other = "" if each.answer.best in ("", before.best) else f"→ “{token(each.answer.best)}”"
        rows.append(
            f'<li><button type="button" class="effect" data-effect="{i}" aria-pressed="false">'
            f"<span class=name>block {each.block}, head {each.head}</span>"
            f'<span class="track {sign}"><span class=bar style="--share:{share:.4f}"></span></span>'
            f"<span class=value>{signed(each.change)}</span><span class=other>{other}</span>"
            "</button></li>"
        )
    rest = (
        f"<details><summary>the other {len(rows) - STRONGEST} heads</summary>"
        f'<ol class="effects">{"".join(rows[STRONGEST:])}</ol></details>'
        if len(rows) > STRONGEST
        else ""
    )
    named = "; where the answer becomes another, it is named" if before.best else ""
    what = "the mean of these numbers" if asked.mean else f"“{token(asked.names[0])}”, the answer"
    return (
        '<section class="view" id="importance"><h2>Which heads matter</h2><p>The pass was run '
        f"{len(found)} times more, each time with one head silenced. The bars show what that does "
        f"to {what} ({escape(asked.about)}){named}. Press a head to see all numbers "
        "without it; nothing else on this page changes.</p>"
        f'<div class="without"><div><ol class="effects">{"".join(rows[:STRONGEST])}</ol>'
        f"{rest}</div>"
        f'<div class="result"><p class="about">{escape(asked.about)}</p>'
        f'{bars(asked.names, before.values, answer=True)}<p class="best" data-best></p></div>'
        "</div></section>"
    )


def signed(x: float) -> str:
    """Return a change with its sign; one that rounding alone makes is 0."""
    if abs(x) < 5e-6:
        return "0"
    return f"{'+' if x > 0 else ''}{shown(x)}"


def greatest(run: Pass) -> float:
    """Return the greatest attention weight of all heads, which gets the last colour."""
    names = [f"transformer.layer.{i}.attention.weights" for i in range(run.model.config.num_blocks)]
    return max(float(run.rows(name).max()) for name in names) or 1.0


def as_data(found: Sequence[Effect], before: Answer) -> dict[str, Any]:
    """Return what page.js needs to show answers without a head."""
    return {
        "values": [shown(value) for value in before.values],
        "shares": [round(float(value), 4) for value in before.values],
        "best": before.best,
        "effects": [
            {
                "block": each.block,
                "head": each.head,
                "values": [shown(value) for value in each.answer.values],
                "shares": np.round(each.answer.values, 4).tolist(),
                "best": each.answer.best,
            }
            for each in found
        ],
    }
