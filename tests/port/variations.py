"""Right ports that tell their numbers otherwise: sixty variations in which nothing is wrong."""

import math
from collections.abc import Callable, Iterator

import numpy as np

from port.ends import correct
from port.faults import Array, Plan, scores_and
from port.judging import dump, right
from port.planted import CLASSES, MLM
from port.reported import tensors
from port.reports import Report

Arrays = dict[str, Array]
Retell = Callable[[Arrays], Arrays]
BLOCK = "transformer.layer."


def each(end: str, change: Callable[[Array], Array]) -> Retell:
    """Something becomes of the arrays of a step."""
    return lambda d: {n: change(x) if n.endswith(end) else x for n, x in d.items()}


def fused(step: str, behind: str, *, is_left_out: bool) -> Retell:
    """A layer that holds the function behind it."""

    def retell(d: Arrays) -> Arrays:
        made = {n: d.get(n.replace(step, behind), x) for n, x in d.items() if n.endswith(step)}
        return {n: x for n, x in d.items() if not (is_left_out and n.endswith(behind))} | made

    return retell


def zero_padding(d: Arrays) -> Arrays:
    live = d["attention_mask"][..., None] != 0
    ends = ("LayerNorm", "layer_norm", "lin1", "lin2", "_lin", "activation", "context")
    return {
        n: np.where(live, x, 0).astype(x.dtype) if n.endswith(ends) and x.ndim == 3 else x
        for n, x in d.items()
    }


def without(*ends: str) -> Retell:
    return lambda d: {n: x for n, x in d.items() if not n.endswith(ends)}


def masked_scores(d: Arrays) -> Arrays:
    """Scores that are masked already, and no others."""
    made = {n.replace("masked_", ""): x for n, x in d.items() if n.endswith("masked_scores")}
    return {n: x for n, x in d.items() if not n.endswith("scores")} | made


def joined(d: Arrays) -> Arrays:
    """Batch and heads are one axis."""
    return {n: x.reshape(-1, *x.shape[2:]) if x.ndim == 4 else x for n, x in d.items()}


def noisy_padding(d: Arrays) -> Arrays:
    rng = np.random.default_rng(5)
    live = d["attention_mask"][..., None] != 0
    live[:, 0] = True  # the first token is pooled, whatever it is
    return {
        n: np.where(live, x, rng.normal(size=x.shape)).astype(x.dtype)
        if n.endswith("output_layer_norm") and n.startswith(f"{BLOCK}2")
        else x
        for n, x in d.items()
    }


ROOT = math.sqrt(8)
RETELLINGS: dict[str, Retell] = {
    "as it is": lambda d: d,
    "lin1 fused": fused("ffn.lin1", "ffn.activation", is_left_out=False),
    "lin1 fused, alone": fused("ffn.lin1", "ffn.activation", is_left_out=True),
    "pre_classifier fused": fused("pre_classifier", "pooled", is_left_out=True),
    "vocab_transform fused": fused("vocab_transform", "vocab_activation", is_left_out=True),
    "scores before the scale": each("attention.scores", lambda x: x * np.float32(ROOT)),
    "q behind the scale": each("q_lin", lambda x: x / np.float32(ROOT)),
    "scores masked": masked_scores,
    "padding is zero": zero_padding,
    "padding is noise": noisy_padding,
    "no scores": without("scores"),
    "no attention at all": without("scores", "weights", "context", "_lin"),
    "batch and heads joined": joined,
    "masks of -inf": each("masked_scores", lambda x: np.where(x < -9e3, -np.inf, x)),
    "masks of -10000": each("masked_scores", lambda x: np.where(x < -9e3, -1e4, x)),
}


def variations() -> Iterator[tuple[str, Report, Arrays]]:
    """Every retelling of a full dump of both families, of every padding by turns, and more."""
    given = ("right", "mixed")
    for i, (text, retell) in enumerate(RETELLINGS.items()):
        for family in ("distilbert", "bert"):
            for architecture in (MLM, CLASSES):
                report = right(architecture, given[i % 2], family, "")
                yield f"{text}, {family}, {architecture}", report, retell(dump(report, "full"))
    plans = {
        "no bias of the keys": tensors("bias", lambda b: 0 * b, "k_lin"),
        "-10000 is added": Plan(
            steps={"attention.masked_scores": scores_and(lambda s, m: s - 1e4 * (m == 0))}
        ),
    }
    rng = np.random.default_rng(2)
    plans |= {f"sums in another order, {i}": correct(i, rng) for i in (1, 2, 3)}
    for i, (text, plan) in enumerate(plans.items()):
        for level in ("full", "hidden", "logits"):
            kind = given[i % 2] if text != "-10000 is added" else "full"
            report = Report("right", "", plan, CLASSES, kind, "distilbert")
            yield f"{text}, {level}", report, dump(report, level)
