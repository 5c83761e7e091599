"""A comparison as people read it, a line for every activation, and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from npbert.oracle.comparison import Comparison


def comparison_table(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of a table: every activation, and where the first wrong step is."""
    stepwise = any(step.this_step is not None for step in comparison.steps)
    width = max(len(step.name) for step in comparison.steps)
    middle = "   this step   tolerance" if stepwise else "   tolerance"
    yield f"  end to end{middle}   {'activation':{width}}   shape"
    for step in comparison.steps:
        this = "" if step.this_step is None else f"   {step.this_step:9.1e}"
        mark = "\N{BLACK RIGHT-POINTING TRIANGLE}" if step is comparison.first else " "
        verdict = comparison.verdict(step)
        also = f"   {verdict}" if verdict != "same" else ""
        shape = "\N{MULTIPLICATION SIGN}".join(map(str, step.shape))
        numbers = f"{step.end_to_end:11.1e}{this}   {step.tolerance:9.1e}"
        yield f"{mark}{numbers}   {step.name:{width}}   {shape}{also}"
    yield from comparison.notes
    first = comparison.first
    if first is None:
        yield f"the same, within the rounding of {comparison.precision}"
        return
    what = "first wrong step" if stepwise else "first difference"
    yield f"{what}: {first.name}"
    if first.place is not None:
        yield f"  at {first.place.where}: {first.place.theirs!r}, expected {first.place.ours!r}"
    yield (
        f"  greatest absolute error {first.absolute:.3e}, relative {first.relative:.3e}, "
        f"{first.ulps:.3g} ULP; root mean square {first.rms_ratio:.6g} times ours, cosine "
        f"{first.cosine:.6f}; {first.not_finite} values not finite"
    )


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON; infinite and undefined numbers as null."""
    steps = [
        {**asdict(step), "off": step.off, "verdict": comparison.verdict(step)}
        for step in comparison.steps
    ]
    first = comparison.first
    return finite_json(
        {
            "same": comparison.same,
            "first": first.name if first else None,
            "precision": comparison.precision,
            "notes": comparison.notes,
            "steps": steps,
        }
    )


def finite_json(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite_json(each) for name, each in value.items()}
    return [finite_json(each) for each in value] if isinstance(value, list | tuple) else value
