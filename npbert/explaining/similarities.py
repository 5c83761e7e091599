"""Several texts beside each other: how alike are their embeddings?"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Final

from npbert.errors import InputError
from npbert.explaining.figures import Limits, Map, Sheet, heat_map
from npbert.explaining.markup import cut, token, visible
from npbert.explaining.numbers import shown
from npbert.explaining.page import document, palettes
from npbert.explaining.steps import Functions, step
from npbert.sentences import Recipe, pool
from npbert.tasks.sentence_embedding import SentenceEmbedding
from npbert.textbook import Array

MOST: Final = 64  # texts: a map of more has rows too low to read
NAME: Final = 28  # characters of a text that name a row
READABLE: Final = 12  # texts whose similarities also stand in a table


def comparison(task: SentenceEmbedding, texts: Sequence[str]) -> str:
    """Return the page of several texts.  Raises InputError for fewer than two."""
    if not 2 <= len(texts) <= MOST:
        raise InputError(f"there are {len(texts)} texts to compare, expected 2 to {MOST}")
    vectors = task(list(texts))
    alike = task.similarity(vectors, vectors)
    function = task.recipe.similarity
    names = [cut(visible(text), NAME) for text in texts]
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
    main = step(
        "embeddings", "Every text becomes one vector",
        f"The model reads each text by itself, and of the vectors of its tokens one of {dim} "
        "numbers is made. Texts that mean the same should have vectors that point the same way.",
        functions, embedding,
    ) + step(
        "similarity", "How alike are they?", ranked(texts, alike),
        [(SentenceEmbedding.similarity, ())], matrix + table(names, alike), unfolded=False,
    )  # fmt: skip
    main = f'<section class="block"><h2>From texts to one number a pair</h2>{main}</section>'
    data: dict[str, Any] = {"tokens": names, "palettes": palettes(), "arrays": sheet.arrays}
    items = "".join(f"<li>{token(text)}</li>" for text in texts)
    header = (
        '<header><div><p class="kicker">sentence embeddings, compared</p>'
        f'<h1>How alike are {len(texts)} texts?</h1><ol class="texts">{items}</ol></div></header>'
    )
    links = '<a href="#embeddings">embeddings</a><a href="#similarity">similarity</a>'
    title = f"How alike are {len(texts)} texts?"
    return document(title, header, f'<nav aria-label="steps">{links}</nav>', main, data)


def ranked(texts: Sequence[str], alike: Array) -> str:
    """Return in words which texts are the most alike, and which the least."""
    pairs = sorted(combinations(range(len(texts)), 2), key=lambda pair: -alike[pair])
    told = [
        f"The {word} alike are “{token(texts[i])}” and “{token(texts[j])}”, at "
        f"{shown(float(alike[i, j]))}."
        for word, (i, j) in (("most", pairs[0]), ("least", pairs[-1]))
    ]
    return " ".join(told[: len(pairs)])


def table(names: Sequence[str], alike: Array) -> str:
    """Return the numbers of the map, where they can be read."""
    if len(names) > READABLE:
        return ""
    head = "".join(f'<th scope="col">{i + 1}</th>' for i in range(len(names)))
    rows = "".join(
        f'<tr><th scope="row">{i + 1} {token(name)}</th>'
        + "".join(f"<td>{shown(float(value))}</td>" for value in row)
        + "</tr>"
        for i, (name, row) in enumerate(zip(names, alike, strict=True))
    )
    return (
        '<div class="numbers" tabindex="0" role="group" aria-label="similarities in numbers">'
        f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
