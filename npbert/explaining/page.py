"""The pages as a whole: of one pass, and of several texts compared; files that ask for nothing."""

import base64
import hashlib
import operator
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

from npbert import __version__
from npbert.errors import InputError, quote
from npbert.explaining import ends, figures, passes, reasons, steps, variants
from npbert.explaining.figures import Limits, Sheet, answer_html, bars
from npbert.explaining.glossary import page_glossary
from npbert.explaining.markup import (
    PALETTES,
    escape,
    escape_controls,
    script_json,
    text_html,
)
from npbert.explaining.passes import Pass
from npbert.explaining.picture import model_view
from npbert.explaining.steps import part_of_page
from npbert.families import own_module

PAGE_BUDGET: Final = 2_600_000  # characters of the page that numbers and their pictures may take
NUMBER_COST: Final = 3.9  # characters a number: 8/3 in base64, and its pixel
LIMITS: Final = (
    Limits(None, None, None), Limits(64, 768, 64), Limits(64, 256, 32), Limits(48, 192, 32),
    Limits(32, 128, 32), Limits(32, 96, 16), Limits(24, 64, 16), Limits(16, 48, 8),
    Limits(12, 32, 4),
)  # fmt: skip
LONG_TEXT: Final = 160  # characters of a text that is no headline any more
ARRAY_NAME: Final = re.compile(r'(?<= data-array=")[^"]*')
ASSETS: Final = Path(__file__).parent
SCRIPTS: Final = ("maps", "choosing", "answers", "byhand", "opening")  # in the order of the page
LEAST_LABEL, LEAST_MAP = 9, 180  # pixels: of a name's height, and of a map's width


def pass_page(run: Pass, blocks: Sequence[int] | None, live: str = "") -> str:
    """Return the page of a pass, with the steps of these blocks or of all.  Raises InputError.

    live : the form in which another text is typed, of a page that is served
    """
    config = run.model.config
    chosen = select_blocks(config.num_blocks, blocks)
    limits = choose_limits(run, chosen)
    sheet = Sheet([escape_controls(each) for each in run.tokens], limits)
    asked = passes.question_of(run)
    before, found = asked.read(passes.head_rows(run)), variants.head_effects(run, asked)
    words, total = variants.choose_words(run)
    ways = variants.word_effects(run, asked, words)
    strongest = max(found, key=lambda each: abs(each.change))
    place, most = (strongest.block, strongest.head), figures.greatest_weight(run)
    main = live + model_view(run, before, chosen)
    main += figures.attention_view(run, sheet, place, most)
    main += reasons.word_view(run, words, total, ways, asked, before, len(found))
    main += reasons.importance_view(found, asked, before)
    main += reasons.blocks_view(variants.block_answers(run, asked), asked, before)
    main += HAND
    start = steps.tokens_step(run) + steps.embeddings_step(run, sheet)
    main += part_of_page("start", "Before the blocks", "text, tokens, vectors", start)
    for i in chosen:
        numbers = config.heads(i)
        head = numbers.index(place[1]) if place[1] in numbers else 0
        main += steps.block_section(run, sheet, i, head, most)
    end = ends.end_steps(run, sheet, asked)
    main += part_of_page("end", "Behind the blocks", "the output layer, and the answer", end)
    main += page_glossary()

    def own_name(name: str) -> str:
        return own_module(run.model.family, name)

    # Until here names are canonical; the page has those of the model's family.
    main = ARRAY_NAME.sub(lambda match: own_name(match[0]), main)
    data = {
        "tokens": sheet.tokens,
        "heads": [config.heads(i) for i in range(config.num_blocks)],
        "chosen": place,
        "most": most,
        "answer": reasons.answer_data(
            run, asked, before, found, [*chain.from_iterable(ways.values())]
        ),
        "palettes": palette_data(),
        "weights": [own_name(figures.block_weights_name(i)) for i in range(config.num_blocks)],
        "hand": {i: hand_names(run, i) for i in chosen},
        "length": len(run.tokens),
        "listens": token_to_follow(run, len(sheet.tokens)),
        "arrays": {own_name(name): array for name, array in sheet.arrays.items()},
    }
    return html_document(
        escape_controls(run.text),
        page_header(run, asked, before, omission_notes(run, sheet, chosen)),
        page_links(chosen, asked),
        main,
        data,
        live=bool(live),
    )


HAND: Final = (
    '<section class="view" id="byhand"><h2>One number followed by hand</h2><p>How much one token '
    "listens to another, in one head, digit by digit: their query and key are multiplied element "
    "by element and summed; the sum is divided by the root of the number of elements, so that it "
    "does not grow with it; softmax over all the scores of the token makes the weight. Choose the "
    'tokens and the head.</p><div id="hand"><noscript>With JavaScript, the numbers are followed '
    "here.</noscript></div></section>"
)


def hand_names(run: Pass, block: int) -> dict[str, Any]:
    """Return the arrays in which an attention weight of a block is followed by hand."""
    own = {
        name: own_module(run.model.family, f"transformer.layer.{block}.attention.{name}")
        for name in ("q_lin", "k_lin", "scores", "masked_scores", "weights")
    }
    width = run.split_heads(f"transformer.layer.{block}.attention.q_lin", block).shape[-1]
    return {**own, "width": width}


def token_to_follow(run: Pass, shown: int) -> int:
    """Return the token that is followed by hand at first: the mask, or the first of the text."""
    mask, ids = run.tokenizer.id_of("mask_token"), run.encoding.ids
    place = ids.index(mask) if mask in ids else passes.text_positions(run)[0]
    return place if place < shown else 0


def select_blocks(count: int, blocks: Sequence[int] | None) -> list[int]:
    """Return the blocks whose steps are shown, in order.  Raises InputError."""
    if not isinstance(blocks, Iterable | None) or isinstance(blocks, str):
        raise InputError(f"blocks is {quote(blocks)}, expected a list of numbers")
    given = [*range(count)] if blocks is None else [*blocks]
    for i in given:
        if isinstance(i, bool) or not hasattr(i, "__index__") or not 0 <= i < count:
            raise InputError(
                f"blocks has {quote(i)}, expected numbers from 0 to {count - 1}: the model has "
                f"{count} blocks"
            )
    if not given:
        raise InputError("blocks is empty, expected the number of at least one block")
    return sorted({operator.index(i) for i in given})


def choose_limits(run: Pass, blocks: Sequence[int]) -> Limits:
    """Return how much of every array the page can hold."""
    return next(
        (each for each in LIMITS if page_cost(run, blocks, each) <= PAGE_BUDGET), LIMITS[-1]
    )


def page_cost(run: Pass, blocks: Sequence[int], limits: Limits) -> float:
    """Return about how many characters the numbers of a page take."""
    config, length = run.model.config, len(run.tokens)
    t, d = min(limits.tokens or length, length), limits.features or config.intermediate_size
    k = min(limits.width or config.head_size, config.head_size)
    heads, features = config.num_attention_heads, min(d, config.hidden_size)
    block = 4 * heads * t * k + 6 * t * features + 2 * t * min(d, config.intermediate_size)
    attention = heads * t * t
    whole = len(blocks) * (block + attention) + config.num_blocks * attention + 8 * t * features
    return NUMBER_COST * whole


def omission_notes(run: Pass, sheet: Sheet, blocks: Sequence[int]) -> list[str]:
    """Return what the page leaves out, in sentences."""
    config, told = run.model.config, []
    n, d, k = sheet.limits
    if run.encoding.cut:
        told.append(f"{run.encoding.cut} tokens did not fit into the model, and were not read.")
    if n is not None and n < len(run.tokens):
        told.append(
            f"To keep this file small, maps show the first {n} of {len(run.tokens)} tokens."
        )
    if (d is not None and d < config.intermediate_size) or (k is not None and k < config.head_size):
        told.append(
            f"To keep this file small, maps show the first {d} features and, of every head, {k}; "
            "all numbers were computed from all features."
        )
    if len(blocks) < config.num_blocks:
        told.append(f"Of {config.num_blocks} blocks, the steps of {block_names(blocks)} are shown.")
    if len(run.encodings) > 1:
        told.append(
            f"{len(run.encodings)} choices were read side by side; the steps are those of the one "
            "that wins."
        )
    return told


def block_names(blocks: Sequence[int]) -> str:
    """Return numbers of blocks in words."""
    *most, last = map(str, blocks)
    return f"block {last}" if not most else f"blocks {', '.join(most)} and {last}"


def page_header(
    run: Pass, asked: passes.Question, before: passes.NamedNumbers, told: Sequence[str]
) -> str:
    """Return the head of the page: the text, the model, and the answer."""
    model, config = run.model, run.model.config
    first, second = (
        text_html(reasons.pieces_of_answer(run, before, pair=each)) for each in (False, True)
    )
    pair = "" if run.pair is None else f'<p class="pair" dir="auto" data-marked="1">{second}</p>'
    facts = (
        f"{model.architecture}, {config.num_blocks} blocks of {config.num_attention_heads} heads, "
        f"{config.hidden_size} features, {model.dtype.name}, {len(run.encoding)} tokens"
    )
    long = ' class="long"' * (len(run.text) > LONG_TEXT)
    notes = "".join(f"<li>{escape(each)}</li>" for each in told)
    text = (
        '<div><p class="kicker">one forward pass of a transformer, step by step</p>'
        f'<h1 dir="auto"{long} data-marked="0">{first}</h1>{pair}'
        f'<p class="facts">{escape(facts)}</p>'
        f"<ul class=notes>{notes}</ul></div>"
    )
    headline = f'<p class="headline">The answer: {answer_html(before.best)}</p>' * bool(before.best)
    result = (
        f'<div class="result">{headline}<p class="about">{escape(asked.about)}</p>'
        f"{bars(asked.names, before.values, answer=True)}"
        '<p class="best" data-best aria-live="polite"></p></div>'
    )
    return f"<header>{text}{'' if asked.compares else result}</header>"


def page_links(blocks: Sequence[int], asked: passes.Question) -> str:
    """Return links to the parts of the page."""
    parts = [
        ("picture", "the model"), ("attention", "attention"), ("words", "words"),
        ("importance", "heads"), ("thinking", "block by block"), ("byhand", "by hand"),
        ("tokens", "tokens"), ("embeddings", "embeddings"),
        *((f"block-{i}", f"block {i}") for i in blocks),
        ("head", "output layer"), ("answer", "answer"), ("glossary", "glossary"),
    ]  # fmt: skip
    if asked.compares:
        parts.remove(("answer", "answer"))
    links = "".join(f'<a href="#{place}">{name}</a>' for place, name in parts)
    return f'<nav aria-label="steps">{links}</nav>'


def palette_data() -> dict[str, str]:
    """Return the colour tables as page.js reads them: two hexadecimal digits a byte."""
    return {name: table.tobytes().hex() for name, table in PALETTES.items()}


def page_script() -> str:
    """Return the script of a page, its files as one function."""
    files = "\n".join((ASSETS / f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    return f"'use strict';\n(() => {{\n{files}}})();\n"


def label_rules(count: int) -> str:
    """Return the style of so many names along a square map: every n-th, where it is too small.

    Names have the height of a cell, which is about 62 hundredths of the map's share of the figure.
    """
    rules = []
    for step in range(2, count + 1):
        most = LEAST_LABEL * count / (step - 1) / 0.62
        if most < LEAST_MAP:
            break
        rules.append(
            f"@container (max-width:{most:.0f}px){{.square .down,.square .across{{--step:{step}}}"
            f".square :is(.down,.across) span:not(:nth-child({step}n+1)){{visibility:hidden}}"
            f".square :is(.down,.across) span:nth-child({step}n+1){{visibility:visible}}"
            ".square .down span{overflow:clip visible;padding-block:0}"
            ".square .across span{overflow:visible clip;padding-block:0}}"
        )
    return "".join(rules)


def html_document(
    title: str, header: str, nav: str, main: str, data: dict[str, Any], *, live: bool = False
) -> str:
    """Return a whole HTML document, which may load nothing and run one script.

    live : it is served, and may ask its own server for another page
    """
    style = (ASSETS / "page.css").read_text("utf-8") + label_rules(len(data["tokens"]))
    script = page_script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'" + "; form-action 'self'" * live
    )
    another = (
        " To type another text in the page: <code>npbert explain --open</code>, which serves it to "
        "this machine alone."
    ) * (not live)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f'<style>{style}</style></head><body><a class="skip" href="#main">to the steps</a>'
        f'{header}{nav}<main id="main" tabindex="-1">{main}</main>'
        f"<footer>Made by npbert {__version__}. Numbers have three digits. Everything on this page "
        f'is in this file.{another}</footer><div id="tip" role="status"></div>'
        f'<script type="application/json" id="data">{script_json(data)}</script>'
        f"<script>{script}</script></body></html>\n"
    )
