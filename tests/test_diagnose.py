"""Does diagnose name what is wrong with a port, and nothing where nothing is?

Every fault of the catalogue is planted in a port that shares no line with npbert, and its dump is
diagnosed: all activations or hidden states and logits only, clean or with noise of 1e-6.
"""

import functools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from port import ends, plans
from port.faults import FaultyPort, Plan
from port.planted import ANSWERS, CHOICES, CLASSES, MLM, Planted
from port.reports import reports

import npbert
from npbert.oracle.diagnosis import Diagnosis, diagnose
from npbert.oracle.mistakes import catalogue
from npbert.oracle.traces import Trace

Arrays = dict[str, NDArray[Any]]

BLOCKS, HEADS, LENGTH = 3, 4, 9
PORT = {"n_layers": BLOCKS, "n_heads": HEADS, "activation": "gelu"}
RIGHT = Planted("no fault", Plan(), "right")
ARCHITECTURES = {
    MLM: ("for_masked_language_modeling", 2),
    CLASSES: ("for_sequence_classification", 3),
    ANSWERS: ("for_question_answering", 2),
    CHOICES: ("for_multiple_choice", 1),
}
# No other texts of the catalogue can be planted: the matrices are square, or are not.
IMPOSSIBLE = {
    *(f"{layer}: weights transposed" for layer in plans.LINEARS[4:]),
    *(
        f"{layer}: weights read in the other order (rows for columns)"
        for layer in plans.LINEARS[:4]
    ),
}
# Two dumps that are no further apart, in units of an activation's greatest value, are one dump:
# noise of 1e-6 comes to 4e-6 in one of some thousand values, and a step adds up many.
RESOLUTION = 3e-5
HIDDEN = (".output_layer_norm", "embeddings.LayerNorm", "logits")


class Kind(NamedTuple):
    """What a port tells of itself, and how exactly."""

    full: bool
    noise: float

    def __str__(self) -> str:
        return f"{'full' if self.full else 'hidden'}{' and noise' if self.noise else ''}"


KINDS = [Kind(full, noise) for full in (True, False) for noise in (0, 1e-6)]
FULL, FULL_NOISE, FEW, FEW_NOISE = KINDS


# ---- a model, what it is asked, and what the port says -------------------------------------------


@functools.cache
def model(architecture: str, loud: bool = False, seed: int = 5) -> npbert.Model:
    """Every parameter drawn: word vectors as small as real ones, so that an epsilon is seen."""
    name, labels = ARCHITECTURES[architecture]
    config = npbert.Config(
        vocab_size=61, max_positions=40, hidden_size=32, num_blocks=BLOCKS, intermediate_size=48,
        num_attention_heads=HEADS, num_labels=labels,
    )  # fmt: skip
    parameters = dict(npbert.init(config, name).parameters)
    rng = np.random.default_rng(seed)
    for tensor, old in parameters.items():
        if old.ndim == 2:
            scale = 0.02 if tensor.startswith("embeddings.") else 0.25
            scale *= 40 if loud and "q_lin" in tensor else 1
            new = rng.normal(0, scale, old.shape)
        else:
            new = rng.normal(1.0 if tensor.endswith(".weight") else 0.0, 0.3, old.shape)
        parameters[tensor] = new.astype(np.float32).astype(np.float64)
    return npbert.Model(config, name, parameters)


@functools.cache
def inputs(architecture: str, kind: str) -> Arrays:
    """Three texts: a long one, one padded on the right, one on the left.  Choices are two of three.

    `everything` has position ids and a head mask too, `whole` no padding.
    """
    rng = np.random.default_rng(3)
    batch = (2, 3) if architecture == CHOICES else (3,)
    mask = np.ones((3, LENGTH), np.int64)
    mask[1, 6:] = mask[2, :2] = 0
    mask = np.broadcast_to(mask, (*batch, LENGTH)).copy()
    if architecture == CHOICES:
        mask[1] = mask[1, ::-1]
    mask |= kind == "whole"
    made = {"input_ids": rng.integers(1, 61, mask.shape), "attention_mask": mask}
    if kind == "everything":
        starts = rng.integers(0, 20, (*batch, 1))
        made["position_ids"] = starts + np.arange(LENGTH)
        made["attention_head_mask"] = rng.choice([0, 0.5, 1], (BLOCKS, HEADS))
    return made


@functools.cache
def ported(planted: Planted) -> Arrays:
    """Every activation in float64."""
    m = model(planted.architecture, planted.loud)
    given = inputs(planted.architecture, planted.inputs)
    with np.errstate(all="ignore"):  # some overflow
        return FaultyPort(m.parameters, PORT, planted.plan)(planted.architecture, given)


def told(arrays: Arrays, full: bool) -> Arrays:
    """The activations that a dump has."""
    return {n: x for n, x in arrays.items() if full or n.endswith(HIDDEN)}


def dump(planted: Planted, kind: Kind) -> Trace:
    """What a port would write down."""
    rng = np.random.default_rng(1)
    with np.errstate(over="ignore"):  # of hidden keys' scores, which float32 has as -inf
        arrays = {
            name: (x * (1 + kind.noise * rng.normal(size=x.shape))).astype(np.float32)
            for name, x in told(ported(planted), kind.full).items()
        }
    return Trace({**inputs(planted.architecture, planted.inputs), **arrays})


@functools.cache
def diagnosed(planted: Planted, kind: Kind) -> Diagnosis:
    return diagnose(model(planted.architecture, planted.loud), dump(planted, kind))


# ---- what a diagnosis should say -----------------------------------------------------------------


def distances(one: Planted, other: Planted, full: bool) -> dict[str, float]:
    """How far the dumps of two ports are apart, where tokens are real."""
    ours, theirs = told(ported(one), full), told(ported(other), full)
    keep = inputs(one.architecture, one.inputs)["attention_mask"].reshape(-1, LENGTH) != 0
    return {
        name: distance(name, theirs[name], ours[name], keep) if name in theirs else np.inf
        for name in ours
    }


def distance(name: str, x: NDArray[Any], y: NDArray[Any], keep: NDArray[Any]) -> float:
    """The greatest difference of live values, in units of the greatest."""
    if name.endswith("masked_scores"):  # whatever is written for what is not heard
        x, y = np.where(x > -9e3, x, -9e3), np.where(y > -9e3, y, -9e3)
    if x.ndim == 4:
        if name.endswith(".scores"):
            x, y = (np.where(keep[:, None, None], z, 0) for z in (x, y))
        x, y = x.swapaxes(1, 2), y.swapaxes(1, 2)
    if x.shape[:2] == keep.shape:
        x, y = x[keep], y[keep]
    if np.isfinite(x).all() != np.isfinite(y).all():
        return np.inf
    return float(np.nan_to_num(abs(x - y) / max(abs(y[np.isfinite(y)]).max(initial=0), 1e-9)).max())


@functools.cache
def alike(one: Planted, other: Planted, full: bool) -> bool:
    """Whether two ports tell the same numbers: then no diagnosis can tell them apart."""
    return max(distances(one, other, full).values()) < RESOLUTION


@functools.cache
def by_place() -> tuple[Planted, ...]:
    """Every fault, some of them in several places."""
    return tuple(plans.catalogue(BLOCKS))


@functools.cache
def by_text() -> dict[str, Planted]:
    return {planted.text: planted for planted in by_place()}


def names(cause: str, planted: Planted, full: bool) -> bool:
    """Whether a cause is what was planted, or nobody could tell: planted there it gives the same.

    Equivalent are, for instance, an ignored mask and one of queries, where tokens are real; every
    norm's epsilon and the one norm's whose variance is small enough to show it.
    """
    if cause == planted.text:
        return True
    there = replace(by_text()[cause].plan, blocks=planted.plan.blocks)
    return cause not in IMPOSSIBLE and alike(planted._replace(plan=there), planted, full)


def said(diagnosis: Diagnosis) -> str:
    return (
        "; ".join(
            f"{f.step} {list(f.blocks)}: {' | '.join(f.causes[:3]) or 'unexplained'}"
            for f in diagnosis.findings
        )
        or "nothing"
    )


def judge(planted: Planted, kind: Kind) -> str:
    """In a word; hidden is what no number shows, and of which nothing was said."""
    found = diagnosed(planted, kind)
    findings = [*found.findings, *found.harmless]
    right = RIGHT._replace(
        architecture=planted.architecture, inputs=planted.inputs, loud=planted.loud
    )
    if not findings:
        return "hidden" if alike(planted, right, kind.full) else "missed"
    first = findings[0].causes
    if not first:
        return "unexplained"
    if not names(first[0], planted, kind.full):
        return "misnamed"
    rest = (f.causes and names(f.causes[0], planted, kind.full) for f in findings[1:])
    return "named" if all(rest) else "named, and more"


# ---- the tables ----------------------------------------------------------------------------------


@functools.cache
def chosen(kind: Kind) -> tuple[Planted, ...]:
    """The faults that are looked for in one kind of dump, for no longer than a test may take.

    Of a regular group, as a missing bias of six layers, one, in each kind of dump another; of the
    rest each in one full dump and in one of hidden states, one of them with noise.  What a
    port's code does is done in all blocks by turns, or in one.
    """
    sizes = Counter(planted.kind for planted in by_place())
    met: Counter[str] = Counter()
    turn, made = KINDS.index(kind), []
    for i, planted in enumerate(by_place()):
        size, met[planted.kind] = sizes[planted.kind], met[planted.kind] + 1
        its_turn = (
            (met[planted.kind] + turn) % size == 0 if size > 1 else (i + turn + turn // 2) % 2
        )
        if not its_turn:
            continue
        plan = planted.plan
        if (i // 2 + turn) % 2 and not (plan.base or plan.blocks or "every" in planted.text):
            planted = planted._replace(plan=replace(plan, blocks=(i % BLOCKS,)))
        made.append(planted)
    return tuple(made)


def confusion(verdicts: Mapping[Planted, str], kind: Kind) -> str:
    """What was not named, and what was said of it."""
    missed = {p: v for p, v in verdicts.items() if v not in ("named", "hidden")}
    lines = [f"{kind}: {dict(Counter(verdicts.values()))}"]
    for planted, verdict in missed.items():
        where = "" if planted.plan.blocks is None else f" in blocks {list(planted.plan.blocks)}"
        lines += [f"  {planted.text}{where}: {verdict}", f"    {said(diagnosed(planted, kind))}"]
    return "\n".join(lines)


def test_every_text_of_the_catalogue_is_planted_in_some_port() -> None:
    texts = catalogue(model(MLM).config)
    assert set(by_text()) <= set(texts)
    patterns = [re.compile(report.named) for report in reports()]
    patterns.append(re.compile(r"of row \d is taken|, in the norms of the blocks"))
    rest = [t for t in texts if not any(p.search(t) for p in patterns)]
    assert set(rest) <= set(by_text())
    assert not set(by_text()) & IMPOSSIBLE
    for one, other in (KINDS[:2], KINDS[2:]):
        looked_for = {planted.kind for planted in (*chosen(one), *chosen(other))}
        assert looked_for == {planted.kind for planted in by_place()}


# What is planted is seen against this: an error of the port's own would be found in every dump.
@pytest.mark.parametrize("kind", ["padded", "everything", "whole"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_port_without_a_fault_computes_what_npbert_computes(
    architecture: str, kind: str
) -> None:
    ours = npbert.trace(model(architecture), **inputs(architecture, kind)).activations
    theirs = ported(RIGHT._replace(architecture=architecture, inputs=kind))
    assert ours.keys() == theirs.keys()
    keep = inputs(architecture, kind)["attention_mask"].reshape(-1, LENGTH) != 0
    assert {n: d for n in ours if (d := distance(n, ours[n], theirs[n], keep)) > 1e-12} == {}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.long] * (k != FULL)) for k in KINDS], ids=str
)
def test_planted_faults_are_named_and_nothing_else_is(kind: Kind) -> None:
    verdicts = {planted: judge(planted, kind) for planted in chosen(kind)}
    table = confusion(verdicts, kind)
    print(table)
    count = Counter(verdicts.values())
    rate = count["named"] / (len(verdicts) - count["hidden"])
    assert rate >= (0.95 if kind.full else 0.85), table
    assert not count["misnamed"], table
    assert count["hidden"] <= len(verdicts) // 8, table  # or the model shows too little


@pytest.mark.parametrize("kind", [FULL, FEW_NOISE], ids=str)
@pytest.mark.parametrize("number", range(10))
def test_a_fault_of_no_catalogue_is_located_and_not_named(number: int, kind: Kind) -> None:
    planted = list(ends.strangers())[number]
    if planted.plan.blocks is None:
        planted = planted._replace(plan=replace(planted.plan, blocks=(number % BLOCKS,)))
    first = next(n for n, d in distances(planted, RIGHT, kind.full).items() if d > RESOLUTION)
    findings = diagnosed(planted, kind).findings
    assert findings[0].step == first, planted.text
    assert not any(f.causes for f in findings), planted.text
    assert {f.blocks for f in findings} == {findings[0].blocks}, planted.text
    assert findings[0].evidence


# A missing bias of the keys moves all scores of a query alike, and a hidden key's weight is 0 with
# 100 less too: the activations show it, and no result does.
@pytest.mark.parametrize(
    "text",
    ["attention.k_lin: bias missing", "hidden keys get -100 added, not the smallest number"],
)
def test_a_fault_that_no_result_shows_is_called_harmless_or_is_not_seen(text: str) -> None:
    planted = by_text()[text]
    found = diagnosed(planted, FULL)
    (finding,) = found.harmless
    assert finding.causes == (text,)
    assert finding.harmless
    assert not found.findings
    assert not diagnosed(planted, FEW).findings


def test_nothing_is_found_in_fifty_correct_ports() -> None:
    alarms = [
        f"port {seed}: {said(diagnosis)}"
        for seed in range(50)
        if (diagnosis := of_correct_port(seed)).findings
    ]
    assert alarms == []


def of_correct_port(seed: int) -> Diagnosis:
    """One in float32, of some architecture, style, batch size, length and padding."""
    rng = np.random.default_rng(seed)
    architecture = list(ARCHITECTURES)[seed % 4]
    batch, length = 1 + seed // 4 % 4, int(rng.integers(2, 12))
    shape = (batch, 2, length) if architecture == CHOICES else (batch, length)
    mask = np.ones(shape, np.int64)
    for row in mask.reshape(-1, length):
        padding = rng.integers(0, length)
        if seed % 3:
            row[slice(padding) if seed % 3 == 1 else slice(length - padding, None)] = 0
    given = {"input_ids": rng.integers(0, 61, shape), "attention_mask": mask}
    if seed % 5 == 4:
        given["position_ids"] = rng.integers(0, 40, shape)
        given["attention_head_mask"] = rng.choice([0, 0.5, 1], (BLOCKS, HEADS))
    m = model(architecture, seed=seed % 3)
    port = FaultyPort(m.parameters, PORT, ends.correct(seed, rng), np.float32)
    dump = port(architecture, given)
    return diagnose(m, Trace({**given, **told(dump, full=seed % 8 < 4)}))
