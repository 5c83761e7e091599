"""Why this answer: which words decided, which heads matter, and what came of it block by block."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from npbert.explaining.figures import digits_with_sign, scale_to_greatest
from npbert.explaining.markup import (
    digits,
    escape,
    escape_controls,
    shorten,
    text_pieces,
    token_html,
)
from npbert.explaining.passes import NamedNumbers, Pass, Question
from npbert.explaining.variants import Effect, Word

HEADLINE_LIMIT: Final = 600  # characters of a text in the head of the page; the tokens show all
STRONGEST: Final = 8  # bars of a chart that are shown before the others
ANSWER_LENGTH_SHOWN: Final = 60  # characters of an answer in a table


def effects_chart(
    found: Sequence[Effect], first: int, names: Sequence[str], best: str, what: str
) -> str:
    """Return effects in the order of their size, each a switch.

    first : the number of the first of them in the page;  what : they are, "head" or "word"
    """
    order = sorted(range(len(found)), key=lambda i: -abs(found[i].change))
    shares, rows = scale_to_greatest([each.change for each in found]), []
    for i in order:
        each, share = found[i], shares[i]
        sign = "less" if each.change < 0 else "more"
        other = "" if each.answer.best in ("", best) else f"→ “{token_html(each.answer.best)}”"
        rows.append(
            f'<li><button type="button" class="effect" data-effect="{first + i}" '
            f'aria-pressed="false"><span class=name>{token_html(names[i])}</span>'
            f'<span class="track {sign}"><span class=bar style="--share:{share:.4f}"></span></span>'
            f"<span class=value>{digits_with_sign(each.change)}</span>"
            f"<span class=other>{other}</span></button></li>"
        )
    others = len(rows) - STRONGEST
    named = f"{others} {what}s" if others > 1 else what
    rest = (
        f"<details><summary>the other {named}</summary>"
        f'<ol class="effects">{"".join(rows[STRONGEST:])}</ol></details>'
        if len(rows) > STRONGEST
        else ""
    )
    return f'<ol class="effects">{"".join(rows[:STRONGEST])}</ol>{rest}'


def name_of_measure(asked: Question) -> str:
    """Return what the bars of effects are about."""
    if asked.mean:
        return f"the mean of these numbers ({escape(asked.about)})"
    return f"“{token_html(asked.names[0])}”, the answer ({escape(asked.about)})"


def importance_view(found: Sequence[Effect], asked: Question, before: NamedNumbers) -> str:
    """Return which heads matter."""
    names = [f"block {each.block}, head {each.head}" for each in found]
    named = " Where the answer becomes another, it is named." if before.best else ""
    return (
        '<section class="view" id="importance"><h2>Which heads matter</h2><p>The pass was run '
        f"{len(found)} times more, each time with one head silenced. The bars show what that does "
        f"to {name_of_measure(asked)}: blue, it becomes less, so the head spoke for it; orange, "
        f"more.{named} Press a head to see the answer without it, here and at the top.</p>"
        f"{effects_chart(found, 0, names, before.best, 'head')}"
        f'<p class="best" data-best></p></section>'
    )


def word_view(
    run: Pass, words: Sequence[Word], total: int, found: Mapping[str, Sequence[Effect]],
    asked: Question, before: NamedNumbers, first: int,
) -> str:  # fmt: skip
    """Return which words decided: the sentence shaded, and a chart for each way to leave one out.

    first : the number of the first effect in the page
    """
    charts, names = [], [escape_controls(each.text + each.which) for each in words]
    for way, effects in found.items():
        title = "hidden: no token may listen to it" if way == "hidden" else f"replaced by {way}"
        chart = effects_chart(effects, first, names, before.best, "word")
        charts.append(f"<div><h3>{escape(title)}</h3>{chart}</div>")
        first += len(effects)
    told = ""
    if len(words) < total:
        told = (
            f" Of {total} words, {len(words)} were left out: those that get the most attention in "
            "all heads."
        )
    shaded = next(iter(found.values()), ())
    return (
        '<section class="view" id="words"><h2>Which words decided</h2><p>Each word was left out in '
        f"turn.{told} The bars show what that does to {name_of_measure(asked)}: blue, it becomes "
        "less, so the word spoke for it; orange, more. The stronger the shade in the sentence, the "
        f"greater the effect.</p>{text_in_shades(run, words, shaded)}"
        f'<div class="ways">{"".join(charts)}</div><p class="best" data-best></p></section>'
    )


def text_in_shades(run: Pass, words: Sequence[Word], effects: Sequence[Effect]) -> str:
    """Return the texts, every word shaded by its effect."""
    shares, made = scale_to_greatest([each.change for each in effects]), []
    for source, text in enumerate([run.text, *([] if run.pair is None else [run.pair])]):
        at, parts = 0, []
        for word, effect, share in zip(words, effects, shares, strict=True):
            if word.source == source and word.start >= at:
                sign = "less" if effect.change < 0 else "more"
                said = f"{digits_with_sign(effect.change)} {effect.without}"
                parts.append(escape(text[at : word.start]))
                parts.append(
                    f'<span class="shade {sign}" style="--share:{share:.3f}" '
                    f'title="{escape(said)}">{escape(text[word.start : word.end])}</span>'
                )
                at = word.end
        made.append(f'<p class="shaded" dir="auto">{"".join(parts)}{escape(text[at:])}</p>')
    return "".join(made)


def blocks_view(answers: Sequence[NamedNumbers], asked: Question, before: NamedNumbers) -> str:
    """Return what the head would answer after each block."""
    rows = []
    for i, each in enumerate(answers):
        value = asked.measure(each)
        share = value if 0 <= value <= 1.0001 else 0
        best = shorten(each.best, ANSWER_LENGTH_SHOWN)
        sure = "" if each.chance is None else f" {digits(each.chance)}"
        cells = f"<td>{token_html(best)}{sure}</td>" if before.best else ""
        name = f"block {i - 1}" if i else "embeddings"
        rows.append(
            f'<tr><th scope="row">{name}</th>{cells}<td><span class=track><span class=bar '
            f'style="--share:{share:.4f}"></span></span></td><td class=value>{digits(value)}</td>'
            "</tr>"
        )
    of = "the mean" if asked.mean else f"“{token_html(asked.names[0])}”"
    first = '<th scope="col">it would answer</th>' if before.best else ""
    what = (
        "how near each token's vector is by then to what it becomes at last"
        if asked.compares
        else "what it would answer by then"
    )
    return (
        '<section class="view" id="thinking"><h2>What the model thinks, block by block</h2>'
        f"<p>After each block the output layer was asked at once: {what}. This is a reading aid, "
        "called a logit lens: the output layer was trained to read the last block only, and may "
        f"misread the earlier ones. The bars show {of}: {escape(asked.about)}.</p>"
        '<div class="numbers lens" tabindex="0" role="group" aria-label="the answer after each '
        f'block"><table><thead><tr><th scope="col">after</th>{first}<th scope="col">{of}</th>'
        f'<td></td></tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>'
    )  # fmt: skip


def pieces_of_answer(run: Pass, answer: NamedNumbers, *, pair: bool) -> list[tuple[str, str]]:
    """Return a text in pieces, those marked that are the answer: of a pair the second."""
    answered = run.pair is not None and any(name == "answer" for *_, name in answer.marks)
    text = (run.pair or "") if pair else run.text
    return text_pieces(text, answer.marks if pair == answered else (), HEADLINE_LIMIT)


def answer_data(
    run: Pass, asked: Question, before: NamedNumbers, effects: Sequence[Effect],
    words: Sequence[Effect],
) -> dict[str, Any]:  # fmt: skip
    """Return what page.js needs to show answers without a head, or without a word."""

    def describe(answer: NamedNumbers) -> dict[str, Any]:
        made: dict[str, Any] = {
            "values": [digits(value) for value in answer.values],
            "shares": np.round(np.asarray(answer.values, np.float64), 4).tolist(),
            "best": escape_controls(answer.best),
        }
        if answer.best not in asked.names and answer.chance is not None:
            made["winner"] = [digits(answer.chance), round(answer.chance, 4)]
        if answer is before or list(answer.marks) != list(before.marks):
            made["marked"] = [pieces_of_answer(run, answer, pair=each) for each in (False, True)]
        return made

    return {
        **describe(before),
        "effects": [
            {"block": each.block, "head": each.head, "without": each.without}
            | describe(each.answer)
            for each in effects
        ],
        "words": [
            {"without": escape_controls(each.without)} | describe(each.answer) for each in words
        ],
    }
