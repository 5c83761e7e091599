"""What a planted fault is: the text that names it, the port that makes it, and where it shows."""

from collections.abc import Callable
from typing import NamedTuple

from port.faults import Array, Plan, Step

MLM, CLASSES, ANSWERS, CHOICES = (
    "DistilBertForMaskedLM",
    "DistilBertForSequenceClassification",
    "DistilBertForQuestionAnswering",
    "DistilBertForMultipleChoice",
)


class Planted(NamedTuple):
    """A fault of one text, and in which port and on what it is planted."""

    text: str
    plan: Plan
    kind: str  # of regular groups, what is wrong; else the text
    architecture: str = MLM
    inputs: str = "padded"  # "everything" has a head mask and position ids, "whole" no padding
    loud: bool = False  # a model whose scores overflow


def one(text: str, plan: Plan, architecture: str = MLM, **where: object) -> Planted:
    return Planted(text, plan, text, architecture, **where)  # type: ignore[arg-type]


def at(**steps: Step) -> Plan:
    """A plan of steps, named with _ for the dots."""
    return Plan(steps={n.replace("__", "."): s for n, s in steps.items()})


def value(f: Callable[[Array], Array]) -> Step:
    """A step whose own value something becomes of."""
    return lambda p, name, x: f(x)
