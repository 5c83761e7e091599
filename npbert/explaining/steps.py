"""The steps of a pass up to the last block, each with its source, its formula and its numbers."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from npbert import encoder, textbook
from npbert.engine.activations import ACTIVATIONS
from npbert.explaining.figures import Map, Sheet, activation_curve, colour_limit, heat_map
from npbert.explaining.glossary import explain_step
from npbert.explaining.markup import escape, source_html, token_html
from npbert.explaining.passes import Pass
from npbert.oracle.measures import is_masked
from npbert.text.tokenizer import Tokenizer
from npbert.textbook import Array

POSITIONS: Final = "P[0], P[1], …"
NORMED: Final = "g · (x \u2212 mean) / √variance + b"
CAPITAL: Final = "\u21e7"  # a piece of the built-in model for names
TOKENS_SHOWN: Final = 64  # that are shown before the others
Functions = Sequence[tuple[Any, Sequence[str]]]  # each with the steps whose lines are marked


def step_section(name: str, title: str, says: str, functions: Functions, figures: str) -> str:
    """Return a step: what happens in words and in code, and beside it the numbers."""
    code = "".join(source_html(function, marked) for function, marked in functions)
    folded = (
        "<details class=source><summary>the code that runs; in it a token is a column</summary>"
        f"{code}</details>"
    )
    return (
        f'<section class="step" id="{name}"><div class="told"><h3>{title}</h3><p>{says}</p>'
        f"{explain_step(name)}"
        f'{folded * bool(code)}</div><div class="maps">{figures}</div></section>'
    )


def part_of_page(name: str, title: str, says: str, inside: str) -> str:
    """Return a part of the page that shows its title until it is wanted."""
    return (
        f'<details class="fold block" id="{name}"><summary><h2>{title}</h2><span>{says}</span>'
        f"</summary>{inside}</details>"
    )


def tokens_step(run: Pass) -> str:
    """Return the step from text to tokens."""
    encoding, rows, types = run.encoding, [], run.types
    for i, piece in enumerate(encoding.tokens):
        of = encoding.sequence_ids[i]
        start, end = encoding.offsets[i]
        text = "" if of is None else (run.text, run.pair or "")[of][start:end]
        place = "added by the tokenizer" if of is None else f"{start}\u2013{end}"
        place += "" if types is None else f", type {types[i]}"
        rows.append(
            f'<li class="{"added" if of is None else "piece"}"><b>{token_html(piece)}</b>'
            f"<span>{encoding.ids[i]}</span><small>{place} {token_html(text)}</small></li>"
        )
    says = (
        f"The tokenizer cuts the text into {len(encoding)} pieces that are in its vocabulary of "
        f"{run.model.config.vocab_size:,}; ## goes on with a word. From here on the model sees "
        "only their numbers. Below each number stands where the piece lies in the text, in "
        "characters."
    )
    if CAPITAL in encoding.tokens and CAPITAL not in f"{run.text}{run.pair or ''}":
        says += (
            f" {CAPITAL} is a piece of its own: the word behind it began with a capital, and "
            "is written small."
        )
    if types is not None:
        says += " Its type says which of two texts it is of: 0 is the first, 1 the second."
    figures = f'<ol class="tokens">{"".join(rows[:TOKENS_SHOWN])}</ol>'
    if (others := len(rows) - TOKENS_SHOWN) > 0:
        rest = f'<ol class="tokens" start="{TOKENS_SHOWN + 1}">{"".join(rows[TOKENS_SHOWN:])}</ol>'
        figures += f"<details><summary>the other {others}</summary>{rest}</details>"
    return step_section("tokens", "Text becomes tokens", says, [(Tokenizer.encode, ())], figures)


def embeddings_step(run: Pass, sheet: Sheet) -> str:
    """Return the step from tokens to vectors."""
    parts = [("word_embeddings", "word", "W[id]"), ("position_embeddings", "position", POSITIONS)]
    says = (
        "Every id picks an entry of a table, the word's vector; its place in the text one of "
        "another. Their sum"
    )
    if run.types is not None:
        parts.append(("token_type_embeddings", "type", "T[type]"))
        says = (
            "Every id picks an entry of a table, the word's vector; its place in the text one "
            "of another, and the text that it is of, the first or the second, one of a third. "
            "The sum of the three"
        )
    total = ("sum", "sum", " + ".join(title for _, title, _ in parts))
    shown = [*parts, total, ("LayerNorm", "normed", NORMED)]
    figures = "".join(
        token_map(run, sheet, f"embeddings.{name}", title, formula)
        for name, title, formula in shown
    )
    says += (
        " is normed, so that every token starts out equally loud. In all pictures a token is a "
        "line from left to right, its features side by side. The formulas and the code speak as "
        "the books do: there the same numbers of a token stand one below the other, a column."
    )
    functions: Functions = [
        (encoder.embed, tuple(name for name, _, _ in shown)),
        (textbook.layer_norm, ()),
    ]
    return step_section("embeddings", "Tokens become vectors", says, functions, figures)


def block_section(run: Pass, sheet: Sheet, i: int, head: int, most: float) -> str:
    """Return the steps of a block, with one head's maps."""
    made = [
        query_step(run, sheet, i, head),
        score_step(run, sheet, i, head, most),
        context_step(run, sheet, i, head),
        norm_step(run, sheet, i, "attention_residual", "sa_layer_norm"),
        ffn_step(run, sheet, i),
        norm_step(run, sheet, i, "ffn_residual", "output_layer_norm"),
    ]
    names = ("qkv", "attention", "heads", "norm", "ffn", "output")
    sections = "".join(
        step_section(f"block-{i}-{name}", *parts) for name, parts in zip(names, made, strict=True)
    )
    heads = "".join(
        f'<button type="button" data-block="{i}" data-head="{h}">{number}</button>'
        for h, number in enumerate(run.model.config.heads(i))
    )
    count = len(run.model.config.heads(i))
    return part_of_page(
        f"block-{i}", f"Block {i}", f"attention in {count} heads, then feed forward",
        f'<div class="heads" role="group" aria-label="head of block {i}">head {heads}</div>'
        f"{sections}",
    )  # fmt: skip


Parts = tuple[str, str, Functions, str]


def query_step(run: Pass, sheet: Sheet, i: int, head: int) -> Parts:
    """Return query, key and value of a head."""
    figures = "".join(
        head_map(run, sheet, i, f"{name}_lin", title, f"{name} = W<sub>{name}</sub> x + b", head)
        for name, title in (("q", "query"), ("k", "key"), ("v", "value"))
    )
    says = (
        "Three linear layers make three vectors of every token: what it looks for, what it offers "
        "to be found by, and what it has to say. Each head reads its own part of them."
    )
    functions: Functions = [
        (textbook.self_attention, ("q_lin", "k_lin", "v_lin")),
        (textbook.linear, ()),
    ]
    return "Query, key, value", says, functions, figures


def score_step(run: Pass, sheet: Sheet, i: int, head: int, most: float) -> Parts:
    """Return scores, mask and weights of a head."""
    prefix, n = f"transformer.layer.{i}.attention.", sheet.limits.tokens
    width = run.split_heads(f"{prefix}q_lin", i).shape[-1]
    which = head_label(run, i, head)
    scores = sheet.add(f"{prefix}scores", run.rows(f"{prefix}scores"))
    figures = [
        score_map(sheet, i, "scores", "scores", f"k<sup>T</sup> q / √{width}", scores, head, which)
    ]
    if run.key_mask.all():
        told = "Nothing is hidden: a text by itself has no padding, and the mask changes no score."
    else:
        masked = run.rows(f"{prefix}masked_scores")
        hidden = np.where(is_masked("masked_scores", masked), np.nan, masked)
        shown = sheet.add(f"{prefix}masked_scores", hidden)
        figures.append(
            score_map(
                sheet, i, "masked_scores", "masked", "hidden keys: \u2212∞", shown, head, which
            )
        )
        told = (
            "Padding is hidden: its scores become the smallest number there is, and get no weight."
        )
    weights = run.rows(f"{prefix}weights")[:, :n, :n]
    figures.append(
        score_map(
            sheet,
            i,
            "weights",
            "weights",
            "softmax(scores)",
            weights,
            head,
            which,
            "positive",
            most,
        )
    )
    says = (
        "Every token scores every token: the product of its query with their keys, summed, and "
        f"divided by the root of {width}, the number of products. {told} Softmax makes the scores "
        "of each token that listens positive with sum 1: how it divides its attention. In the "
        "picture these are a line from left to right, in the code a column."
    )
    functions: Functions = [
        (textbook.attention, ("scores", "masked_scores", "weights")),
        (textbook.softmax, ()),
    ]
    return "Who listens to whom", says, functions, "".join(figures)


def context_step(run: Pass, sheet: Sheet, i: int, head: int) -> Parts:
    """Return what a head hears, what all do, and what is made of it."""
    name = f"transformer.layer.{i}.attention.context"
    figures = head_map(run, sheet, i, "context", "context", "v · weights", head)
    heads = run.split_heads(name, i)[:, : sheet.limits.tokens, : sheet.limits.width]
    joined = np.concatenate(list(heads), axis=-1)
    of = run.rows(name).shape[-1]
    figures += heat_map(
        Map(name, "joined heads", "side by side", joined, sheet.tokens, view="joined", total=of)
    )
    figures += token_map(
        run, sheet, name.replace("context", "out_lin"), "projected", "W<sub>o</sub> x + b"
    )
    says = (
        "Each token takes the mean of all values, weighted by its attention. The heads' results "
        "stand side by side, and a linear layer mixes them into one vector per token."
    )
    functions: Functions = [
        (textbook.attention, ("return",)),
        (textbook.self_attention, ("context", "out_lin")),
    ]
    return "What is heard", says, functions, figures


def norm_step(run: Pass, sheet: Sheet, i: int, added: str, normed: str) -> Parts:
    """Return the residual connection and its norm."""
    prefix = f"transformer.layer.{i}."
    figures = token_map(run, sheet, prefix + added, "sum", "x + y")
    figures += token_map(run, sheet, prefix + normed, "normed", NORMED)
    last = normed == "output_layer_norm"
    says = (
        "The same once more: what the feed-forward layers found is added, and the sum normed. This "
        "is what the block hands on."
        if last
        else "What was heard is added to what the token was before, so that nothing is lost; then "
        "every token is brought to mean 0 and variance 1, scaled and shifted as learned."
    )
    functions: Functions = [(textbook.add_norm, ()), (textbook.layer_norm, ())]
    return "Add and norm", says, functions, figures


def ffn_step(run: Pass, sheet: Sheet, i: int) -> Parts:
    """Return the feed-forward layers."""
    prefix, name = f"transformer.layer.{i}.ffn.", run.model.config.activation
    figures = token_map(run, sheet, f"{prefix}lin1", "hidden layer", "h = W<sub>1</sub> x + b")
    figures += activation_curve(name, run.rows(f"{prefix}lin1"), "activation function")
    figures += token_map(run, sheet, f"{prefix}activation", "activated", f"h = {escape(name)}(h)")
    figures += token_map(run, sheet, f"{prefix}lin2", "back again", "W<sub>2</sub> h + b")
    says = (
        "Now every token by itself: to more features, through a function that lets some pass and "
        "holds others back, and to as many features as before. Each hidden feature is a pattern "
        "that the model looks for."
    )
    functions: Functions = [(textbook.feed_forward, ("lin1", "activation", "lin2"))]
    return "Feed forward", says, [*functions, *activation_source(name)], figures


def head_label(run: Pass, i: int, head: int) -> str:
    """Return what a block's head is called: by its number in the original model."""
    return f"head {run.model.config.heads(i)[head]}"


def activation_source(name: str) -> Functions:
    """Return the source of an activation function, where it is Python's."""
    function: Callable[[Array], Array] = ACTIVATIONS[name]
    return [(function, ())] if inspect.isfunction(function) else [(textbook.activation, ())]


def token_map(
    run: Pass, sheet: Sheet, name: str, title: str, formula: str, *, after: bool = False
) -> str:
    """Return the map of an activation with a row for every token, or for the text after them."""
    x = run.rows(name)
    shown = sheet.add(name, x)
    rows = sheet.tokens if len(shown) == len(sheet.tokens) > 1 else [run.tokens[0]] * len(shown)
    if after and not name.startswith("p"):
        rows = []
    return heat_map(Map(name, title, formula, shown, rows, total=x.shape[-1]))


def head_map(
    run: Pass, sheet: Sheet, i: int, name: str, title: str, formula: str, head: int
) -> str:
    """Return the map of one head's part of an activation."""
    full = f"transformer.layer.{i}.attention.{name}"
    x = run.split_heads(full, i)
    shown = sheet.add(full, x)
    return heat_map(
        Map(full, title, formula, shown[head], sheet.tokens, most=colour_limit(shown), view="head",
            block=i, total=x.shape[-1], which=head_label(run, i, head))
    )  # fmt: skip


def score_map(
    sheet: Sheet, i: int, name: str, title: str, formula: str, x: Array, head: int, which: str,
    kind: str = "signed", most: float = 0.0,
) -> str:  # fmt: skip
    """Return the map of one head's scores or weights."""
    full = f"transformer.layer.{i}.attention.{name}"
    return heat_map(
        Map(full, title, formula, x[head], sheet.tokens, sheet.tokens, kind,
            most or colour_limit(x), view="head", block=i, which=which)
    )  # fmt: skip
