"""The whole model as one drawing with its sizes; every part opens the step that it stands for.

Its parts stand in a line, which breaks where the window ends: words keep a size that can be read.
"""

from collections.abc import Sequence
from typing import Final

from npbert.explaining.markup import digits, escape, escape_controls, shorten, token_html
from npbert.explaining.passes import NamedNumbers, Pass

TOKENS_DRAWN: Final = 9
TOKEN_LENGTH: Final = 14  # characters
ANSWER_DRAWN: Final = 24  # characters
BLOCKS_WITH_SIZES: Final = 6  # of more, each is drawn without its sizes


def draw_part(lines: Sequence[str], place: str, kind: str = "", said: str = "") -> str:
    """Return a box with lines of text; `place` is the step that it opens, "" for none.

    said : what the box is called where it is not seen
    """
    name, *sizes = map(token_html, lines)
    told = f"<b>{name}</b>" + "".join(f"<small>{each}</small>" for each in sizes)
    label = f' aria-label="{escape(said)}"' * bool(said)
    link = f'a href="#{place}"{label}' if place else "span"
    return f'<{link} class="part {kind}">{told}</{link.split()[0]}>'


def model_view(run: Pass, answer: NamedNumbers, shown: Sequence[int]) -> str:
    """Return the drawing of the model; of blocks only those shown are links."""
    config = run.model.config
    n, d = len(run.encoding), config.hidden_size
    total = sum(x.size for x in {id(x): x for x in run.model.parameters.values()}.values())
    embeddings = [
        "embeddings", f"{n} tokens", f"\u00d7 {d} features", f"{config.vocab_size:,} words",
        f"{config.max_positions:,} positions",
    ]  # fmt: skip
    best = shorten(escape_controls(answer.best), ANSWER_DRAWN) or "vectors"
    sure = [] if answer.chance is None else [digits(answer.chance)]
    parts = [
        draw_tokens(run),
        draw_part(embeddings, "embeddings"),
        *(draw_block(run, i, shown) for i in range(config.num_blocks)),
        draw_part(["output layer", *sizes_of_output(run)], "end"),
        draw_part([best, *sure], "answer" if answer.best else "end", "result-part"),
    ]
    return (
        '<section class="view" id="picture"><h2>The whole model</h2><p>The text comes in at the '
        f"left, the answer leaves at the right. In between {n} tokens are {n} vectors of {d} "
        f"features, and each block changes them a little: above by attention in heads, below by "
        f"feed forward through {config.intermediate_size} features. {total:,} learned numbers take "
        "part. "
        "Every part is a link: it opens the step that it stands for.</p>"
        '<div class="drawing" role="group" aria-label="drawing of the model">'
        f"{''.join(parts)}</div></section>"
    )


def draw_block(run: Pass, i: int, shown: Sequence[int]) -> str:
    """Return a block: attention above, feed forward below."""
    config, here = run.model.config, i in shown
    n, d, heads = len(run.encoding), config.hidden_size, len(config.heads(i))
    first = ["attention", f"{heads} heads" if heads > 1 else "1 head"]
    second = ["feed forward", f"{d} → {config.intermediate_size} → {d}"]
    below, kind = f"<small>{n} \u00d7 {d}</small>", "block-part"
    if config.num_blocks > BLOCKS_WITH_SIZES:
        first, second, below, kind = first[:1], second[:1], "", "block-part low"
    name = f'<a href="#block-{i}">block {i}</a>' if here else f"<span>block {i}</span>"
    inner = "".join(
        draw_part(lines, f"block-{i}-{step}" * here, "", f"block {i}, {', '.join(lines)}")
        for lines, step in ((first, "attention"), (second, "ffn"))
    )
    return f'<div class="{kind}">{name}{inner}{below}</div>'


def draw_tokens(run: Pass) -> str:
    """Return the tokens of the text, one below the other, as far as there is room."""
    tokens = [shorten(escape_controls(each), TOKEN_LENGTH) for each in run.encoding.tokens]
    shown = tokens if len(tokens) <= TOKENS_DRAWN + 1 else tokens[:TOKENS_DRAWN]
    told = "".join(f"<span>{token_html(each)}</span>" for each in shown)
    if len(shown) < len(tokens):
        told += f"<small>+ {len(tokens) - len(shown)} more</small>"
    return f'<a href="#tokens" class="tokens-part" aria-label="{len(tokens)} tokens">{told}</a>'


def sizes_of_output(run: Pass) -> list[str]:
    """Return what the output layer makes, in a few words."""
    config, row = run.model.config, run.model.row
    if "start_logits" in row.outputs:
        return ["start and end", "of each token"]
    if row.has_choices:
        return [f"{len(run.encodings)} choices"]
    if row.is_encoder:
        return [f"{config.hidden_size} features"]
    classes = run.rows("logits").shape[-1]
    return [f"{classes:,} scores", "per token" if not row.reads_first else "for the text"]
