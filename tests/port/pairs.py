"""Two bugs in one block at once: every pair of some reports that do not make the same step."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

from port.faults import Plan
from port.reports import Report, reports

CHOSEN = (
    "mask is inverted", "taken (as|for) a length", "tanh approximation", "epsilon 1e-05",
    "over tokens", "not divided by the root of the head", "transposed|k q|q and k",
    "joined without a transpose", "(out_lin|attention.output.dense): bias missing",
    "first text only", "int8", "denominator", "bias added twice",
)  # fmt: skip


def merged(one: Plan, other: Plan) -> Plan:
    """A port that does otherwise what either does."""
    return Plan(
        weights=lambda w, blocks: other.weights(one.weights(w, blocks), blocks),
        steps={**one.steps, **other.steps},
        norms={**one.norms, **other.norms},
        activation=one.activation or other.activation,
    )


def pairs() -> Iterator[tuple[Report, Report, Report]]:
    """Two reports, and the port of both."""
    first: dict[str, Report] = {}
    for report in reports():
        plan = report.plan
        if report.named in CHOSEN and report.family == "distilbert" and not plan.blocks:
            first.setdefault(report.named, report)
    for one, other in combinations(first.values(), 2):
        if set(one.plan.steps) & set(other.plan.steps):
            continue
        made = replace(
            one, plan=merged(one.plan, other.plan), inputs="mixed", architecture=other.architecture
        )
        yield one, other, made
