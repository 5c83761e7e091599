"""The whole model as one drawing with its sizes; every part opens the step that it stands for."""

from collections.abc import Sequence
from typing import Final

from npbert.explaining.markup import digits, escape, escape_controls, shorten
from npbert.explaining.passes import NamedNumbers, Pass

HEIGHT_DRAWN: Final = 300
WIDTH_DRAWN: Final = 1240
SIDE: Final = 150  # width of what stands before the blocks, and behind them
TOKENS_DRAWN: Final = 9
TOKEN_LENGTH: Final = 14  # characters
NARROW: Final = 100  # width of a block that is too narrow for words


def text_svg(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    """Return a text in the drawing."""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def draw_part(
    box: tuple[float, float, float, float], lines: Sequence[str], place: str, kind: str = ""
) -> str:
    """Return a box with lines of text; `place` is the step that it opens, "" for none."""
    x, y, width, height = box
    first = y + height / 2 - 8 * (len(lines) - 1) + 4
    told = "".join(
        text_svg(x + width / 2, first + 16 * i, line, "small-text" if i else "")
        for i, line in enumerate(lines)
    )
    made = (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'rx="5"></rect>{told}'
    )
    said = escape(", ".join(lines) or place.replace("-", " "))
    return f'<a href="#{place}" aria-label="{said}">{made}</a>' if place else made


def draw_arrow(x: float, y: float, length: float) -> str:
    """Return an arrow to the right."""
    return f'<path class="flow" d="M{x:.1f} {y:.1f}h{length - 5:.1f}m-5 -4l5 4l-5 4"/>'


def model_view(run: Pass, answer: NamedNumbers, shown: Sequence[int]) -> str:
    """Return the drawing of the model; of blocks only those shown are links."""
    config, middle = run.model.config, HEIGHT_DRAWN / 2
    n, d = len(run.encoding), config.hidden_size
    total = sum(x.size for x in {id(x): x for x in run.model.parameters.values()}.values())
    parts = [draw_tokens(run), draw_arrow(102, middle, 22)]
    parts.append(
        draw_part((126, 60, SIDE - 20, 180), [
            "embeddings", f"{n} tokens", f"\u00d7 {d} features", f"{config.vocab_size:,} words",
            f"{config.max_positions:,} positions"], "embeddings", "wide-part",
        )
    )  # fmt: skip
    left, right = 126 + SIDE, WIDTH_DRAWN - 2 * SIDE + 16
    step = (right - left) / config.num_blocks
    for i in range(config.num_blocks):
        x, width, here = left + i * step, step - min(14, step / 3), i in shown
        parts.append(draw_arrow(x - 18, middle, 18) if step > NARROW or not i else "")
        heads, inner = len(config.heads(i)), f"block-{i}" if here else ""
        title, below = f"block {i}", f"{n} \u00d7 {d}"
        first = ["attention", f"{heads} heads"]
        second = ["feed forward", f"{d} → {config.intermediate_size} → {d}"]
        if step < NARROW:  # no room for words
            title, below, first, second = str(i), "", [], []
        parts.append(
            draw_part((x, 36, width, 228), [], inner, "outer")
            + text_svg(x + width / 2, 54, title, "small-text" * (step < NARROW))
            + draw_part((x + 4, 66, width - 8, 70), first, f"{inner}-attention" * here)
            + draw_part((x + 4, 150, width - 8, 70), second, f"{inner}-ffn" * here)
            + text_svg(x + width / 2, 250, below, "small-text")
        )
    parts.append(draw_arrow(right - 18, middle, 18))
    parts.append(
        draw_part((right, 60, SIDE - 30, 180), ["output layer", *sizes_of_output(run)], "end")
    )
    parts.append(draw_arrow(right + SIDE - 28, middle, 18))
    best = shorten(escape_controls(answer.best), 17) or "vectors"
    sure = [] if answer.chance is None else [digits(answer.chance)]
    parts.append(
        draw_part((right + SIDE - 8, 100, SIDE - 12, 100), [best, *sure], "answer", "result-part")
        if answer.best
        else draw_part((right + SIDE - 8, 100, SIDE - 12, 100), [best], "end", "result-part")
    )
    return (
        '<section class="view" id="picture"><h2>The whole model</h2><p>The text comes in at the '
        f"left, the answer leaves at the right. In between {n} tokens are {n} vectors of {d} "
        f"features, and each block changes them a little: above by attention in heads, below by "
        f"feed forward through {config.intermediate_size} features. {total:,} learned numbers take "
        "part. "
        "Every part is a link: it opens the step that it stands for.</p>"
        '<div class="drawing" tabindex="0" role="group" aria-label="drawing of the model">'
        f'<svg viewBox="0 0 {WIDTH_DRAWN} {HEIGHT_DRAWN}">{"".join(parts)}</svg></div></section>'
    )


def draw_tokens(run: Pass) -> str:
    """Return the tokens of the text, one below the other, as far as there is room."""
    tokens = [shorten(escape_controls(each), TOKEN_LENGTH) for each in run.encoding.tokens]
    shown = tokens if len(tokens) <= TOKENS_DRAWN + 1 else tokens[:TOKENS_DRAWN]
    if len(shown) < len(tokens):
        shown = [*shown, f"+ {len(tokens) - len(shown)} more"]
    step = min(22, 240 / len(shown))
    top = HEIGHT_DRAWN / 2 - step * (len(shown) - 1) / 2 + 4
    told = "".join(
        text_svg(96, top + step * i, each, "token-text", "end") for i, each in enumerate(shown)
    )
    plate = f'<rect class="plate" x="0" y="20" width="102" height="{HEIGHT_DRAWN - 40}"></rect>'
    return f'<a href="#tokens" aria-label="{len(tokens)} tokens">{plate}{told}</a>'


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
