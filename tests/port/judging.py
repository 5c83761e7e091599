"""Reported bugs planted, dumped and judged: what is found, and was it what was done?"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import npbert
from npbert.oracle.diagnosis import Diagnosis, diagnose
from port.faults import Array, Plan, bfloat16
from port.planted import ANSWERS, CLASSES, MLM
from port.reported import EPSILON, ReportedPort
from port.reports import Report

BLOCKS, HEADS, LENGTH, TEXTS = 3, 4, 11, 5
ARCHITECTURES = {
    MLM: ("for_masked_language_modeling", 2),
    CLASSES: ("for_sequence_classification", 3),
    ANSWERS: ("for_question_answering", 2),
}
RESULTS = ("logits", "start_logits", "end_logits")
LEVELS = ("full", "hidden", "logits")
UNITS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


@functools.cache
def model(architecture: str, family: str, kind: str = "") -> npbert.Model:
    """Every parameter drawn, in sizes that all differ."""
    name, labels = ARCHITECTURES[architecture]
    own = {"type_vocab_size": 2, "layer_norm_epsilon": EPSILON["bert"]} if family == "bert" else {}
    config = npbert.Config(
        family=family, vocab_size=61, max_positions=40, hidden_size=32,
        num_blocks=12 if kind == "deep" else BLOCKS, intermediate_size=64,
        num_attention_heads=HEADS, num_labels=labels, **own,
    )  # fmt: skip
    parameters = dict(npbert.init(config, name).parameters)
    rng = np.random.default_rng(7)
    for tensor, old in parameters.items():
        if old.ndim == 2:
            new = rng.normal(0, 0.03 if tensor.startswith("embeddings.") else 0.2, old.shape)
        else:
            new = rng.normal(1.0 if tensor.endswith(".weight") else 0.0, 0.2, old.shape)
            if tensor.endswith("lin2.bias") and kind in ("outlier", "mean"):
                new[slice(3, 4) if kind == "outlier" else slice(None)] += 300
        parameters[tensor] = new.astype(np.float32).astype(np.float64)
    return npbert.Model(config, name, parameters)


@functools.cache
def inputs(kind: str, family: str) -> Mapping[str, Array]:
    """Five texts: padding on the right; on the left or with holes too; one row fully masked."""
    rng = np.random.default_rng(3)
    mask = np.ones((TEXTS, LENGTH), np.int64)
    mask[1, 8:] = mask[2, 5:] = mask[3, 9:] = 0
    if kind == "mixed":
        mask[2] = np.arange(LENGTH) >= 4
        mask[3, [3, 6]] = 0
    if kind == "full":
        mask[3] = 0
    given = {"input_ids": rng.integers(1, 61, mask.shape), "attention_mask": mask}
    if family == "bert":
        given["token_type_ids"] = (np.arange(LENGTH) >= rng.integers(3, 8, (TEXTS, 1))) * mask
    return given


def port(report: Report) -> ReportedPort:
    m = model(report.architecture, report.family, report.model)
    config = {"n_layers": m.config.num_blocks, "n_heads": HEADS, "activation": "gelu"}
    return ReportedPort(m.parameters, config, report.plan, report.family)


@functools.cache
def computed(report: Report) -> Mapping[str, Array]:
    """Every activation, in float32."""
    return port(report)(report.architecture, dict(inputs(report.inputs, report.family)))


def told(arrays: Mapping[str, Array], level: str) -> dict[str, Array]:
    """The activations that a dump has."""
    hidden = ("output_layer_norm", "embeddings.LayerNorm", *RESULTS)
    ends = {"full": "", "hidden": hidden, "logits": RESULTS}[level]
    return {n: x for n, x in arrays.items() if n.endswith(ends)}


def dump(report: Report, level: str, dtype: str = "float32") -> dict[str, Array]:
    """What a port writes down."""
    with np.errstate(over="ignore"):
        narrow = bfloat16 if dtype == "bfloat16" else (lambda x: x.astype(dtype))
        arrays = {n: narrow(x) for n, x in told(computed(report), level).items()}
    return {**inputs(report.inputs, report.family), **arrays}


def right_of(report: Report) -> Report:
    """The same port without the bug."""
    return right(report.architecture, report.inputs, report.family, report.model)


@functools.cache
def right(architecture: str, given: str, family: str, kind: str) -> Report:
    return Report("right", "", Plan(), architecture, given, family, kind)


def visible(report: Report, level: str, dtype: str) -> float:
    """How far, at the most, a dump is from the right port's, in units of rounding."""
    ours, theirs = (told(computed(r), level) for r in (right_of(report), report))
    live = inputs(report.inputs, report.family)["attention_mask"] != 0
    most = 0.0
    for name, x in ours.items():
        y = theirs.get(name)
        if y is None:
            return np.inf
        if name.endswith("masked_scores"):
            x, y = (np.where(a > -9e3, a, 0) for a in (x, y))
        if x.ndim == 4:
            x, y = (a.swapaxes(1, 2) for a in (x, y))
        if x.shape[:2] == live.shape:
            x, y = x[live], y[live]
        if not np.array_equal(np.isfinite(x), np.isfinite(y)):
            return np.inf
        off = np.sqrt(np.mean((x - y).astype(float) ** 2) / np.mean(x.astype(float) ** 2))
        most = max(most, off / UNITS[dtype])
    return most


@dataclass(frozen=True)
class Verdict:
    word: str  # named, share, misnamed, unexplained, called right, hidden
    said: str


def causes(diagnosis: Diagnosis) -> list[str]:
    """Every text that names something."""
    return [cause for f in (*diagnosis.findings, *diagnosis.harmless) for cause in f.causes]


def judge(report: Report, level: str, dtype: str = "float32") -> Verdict:
    m = model(report.architecture, report.family, report.model)
    found = diagnose(m, dump(report, level, dtype))
    said = "; ".join(
        f"{f.step} {list(f.blocks)}: {' | '.join(f.causes[:3]) or 'unexplained: ' + f.evidence}"
        f" [{f.error:.1e} > {f.residual:.1e}]{' harmless' * bool(f.harmless)}"
        for f in (*found.findings, *found.harmless)
    ) + "".join(f"; NOTE {note}" for note in found.notes if note)
    names = [*causes(found), *found.notes]
    if any(re.search(report.named, text) for text in names):
        return Verdict("named", said)
    if not found.findings:
        seen = visible(report, level, dtype)
        return Verdict("hidden" if seen < 8 else "called right", f"{said} ({seen:.1f} units)")
    texts = [f.evidence for f in found.findings if not f.causes]
    if any(re.search(report.named, text) for text in texts):
        return Verdict("told", said)
    return Verdict("misnamed" if causes(found) else "unexplained", said)
