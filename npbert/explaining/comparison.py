"""The page of several texts: their embeddings, how alike these are, and how that came about."""

import copy
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Final

from npbert.errors import InputError
from npbert.explaining.figures import Limits, Map, Sheet, heat_map
from npbert.explaining.glossary import page_glossary
from npbert.explaining.markup import digits, escape_controls, shorten, token_html
from npbert.explaining.page import html_document, palette_data
from npbert.explaining.steps import Functions, step_section
from npbert.tasks.modules import pool
from npbert.tasks.sentence_embedding import SentenceEmbedding
from npbert.tasks.sentence_transformers import Recipe
from npbert.textbook import Array

PAIRS_SHOWN: Final = 12  # pairs of texts that are followed from block to block
TEXTS_LIMIT: Final = 64  # texts: a map of more has rows too low to read
NAME_LENGTH: Final = 28  # characters of a text that name a row
TABLE_LIMIT: Final = 12  # texts whose similarities also stand in a table


def comparison_page(task: SentenceEmbedding, texts: Sequence[str], live: str = "") -> str:
    """Return the page of several texts.  Raises InputError for fewer than two.

    live : the form in which other texts are typed, of a page that is served
    """
    if not 2 <= len(texts) <= TEXTS_LIMIT:
        raise InputError(f"there are {len(texts)} texts to compare, expected 2 to {TEXTS_LIMIT}")
    vectors = task(list(texts))
    alike = task.similarity(vectors, vectors)
    function = task.recipe.similarity
    names = [shorten(escape_controls(text), NAME_LENGTH) for text in texts]
    sheet = Sheet(names, Limits(None, 768, None))
    made = sheet.add("sentence_embedding", vectors)
    sheet.add("similarity", alike)
    functions: Functions = [(Recipe.embed, ("pooling", "sentence_embedding")), (pool, ())]
    dim = vectors.shape[-1]
    embedding = heat_map(Map("sentence_embedding", "embeddings", "", made, names, total=dim))
    matrix = heat_map(
        Map("similarity", f"{function} similarity", "", alike, names, names, "positive",
            float(alike.max()), float(alike.min()), among="texts")
    )  # fmt: skip
    main = step_section(
        "vectors", "Every text becomes one vector",
        f"The model reads each text by itself, and of the vectors of its tokens one of {dim} "
        "numbers is made. Texts that mean the same should have vectors that point the same way.",
        functions, embedding,
    ) + step_section(
        "similarity", "How alike are they?", similarity_summary(texts, alike),
        [(SentenceEmbedding.similarity, ())], matrix + similarity_table(names, alike),
    )  # fmt: skip
    main += step_section(
        "thinking",
        "How near they are after each block",
        NEARNESS,
        [],
        block_similarities(task, texts),
    )
    main = f'{live}<section class="block"><h2>From texts to one number a pair</h2>{main}</section>'
    main += page_glossary()
    data: dict[str, Any] = {"tokens": names, "palettes": palette_data(), "arrays": sheet.arrays}
    items = "".join(f"<li>{token_html(text)}</li>" for text in texts)
    header = (
        '<header><div><p class="kicker">sentence embeddings, compared</p>'
        f'<h1>How alike are {len(texts)} texts?</h1><ol class="texts">{items}</ol></div></header>'
    )
    links = '<a href="#vectors">embeddings</a><a href="#similarity">similarity</a>'
    links += '<a href="#thinking">block by block</a><a href="#glossary">glossary</a>'
    title = f"How alike are {len(texts)} texts?"
    nav = f'<nav aria-label="steps">{links}</nav>'
    return html_document(title, header, nav, main, data, live=bool(live))


NEARNESS: Final = (
    "After each block the same recipe made an embedding of the vectors found there. It was trained "
    "on the last block's, and reads the earlier ones as well as it can."
)


def compare_by_block(task: SentenceEmbedding, texts: Sequence[str]) -> list[Array]:
    """Return how alike the texts are by what each block hands on, (texts, texts) each."""
    made = []
    for count in range(1, task.model.config.num_blocks + 1):
        part = copy.copy(task)
        part.model = task.model.encoder_only(count)
        vectors = part(list(texts))
        made.append(task.similarity(vectors, vectors))
    return made


def block_similarities(task: SentenceEmbedding, texts: Sequence[str]) -> str:
    """Return a table of pairs of texts, those first that are the most alike at last."""
    found = compare_by_block(task, texts)
    pairs = sorted(combinations(range(len(texts)), 2), key=lambda pair: -found[-1][pair])
    head = "".join(f'<th scope="col">block {i}</th>' for i in range(len(found)))
    rows = "".join(
        f'<tr><th scope="row">{i + 1} and {j + 1}</th>'
        + "".join(f"<td>{digits(float(each[i, j]))}</td>" for each in found)
        + "</tr>"
        for i, j in pairs[:PAIRS_SHOWN]
    )
    others = len(pairs) - PAIRS_SHOWN
    told = f"<p>{others} pairs that are less alike are not shown.</p>" if others > 0 else ""
    return (
        '<div class="numbers" tabindex="0" role="group" aria-label="similarities after each block">'
        f"<table><thead><tr><th scope=col>texts</th>{head}</tr></thead><tbody>{rows}</tbody>"
        f"</table></div>{told}"
    )


def similarity_summary(texts: Sequence[str], alike: Array) -> str:
    """Return in words which texts are the most alike, and which the least."""
    pairs = sorted(combinations(range(len(texts)), 2), key=lambda pair: -alike[pair])
    told = [
        f"The {word} alike are “{token_html(texts[i])}” and “{token_html(texts[j])}”, at "
        f"{digits(float(alike[i, j]))}."
        for word, (i, j) in (("most", pairs[0]), ("least", pairs[-1]))
    ]
    return " ".join(told[: len(pairs)])


def similarity_table(names: Sequence[str], alike: Array) -> str:
    """Return the numbers of the map, where they can be read."""
    if len(names) > TABLE_LIMIT:
        return ""
    head = "".join(f'<th scope="col">{i + 1}</th>' for i in range(len(names)))
    rows = "".join(
        f'<tr><th scope="row">{i + 1} {token_html(name)}</th>'
        + "".join(f"<td>{digits(float(value))}</td>" for value in row)
        + "</tr>"
        for i, (name, row) in enumerate(zip(names, alike, strict=True))
    )
    return (
        '<div class="numbers" tabindex="0" role="group" aria-label="similarities in numbers">'
        f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
