"""Does diagnose name the bugs that ports were reported to have, and is none of them called right?

They are planted in a float32 port of either family with padding, and told of by all activations,
by hidden states and logits, or by logits alone.  golden/measure/reports.py prints the whole table.
"""

import os
import re

import pytest
from port.judging import LEVELS, Verdict, causes, dump, judge, model
from port.pairs import pairs
from port.reports import reports
from port.variations import variations

import npbert

# What is to be named, in a hundred of those that can be seen at all.
WANTED = {"full": 95, "hidden": 85, "logits": 75}
# Of how many one is looked at in a long run: all of them take most of an hour, NPBERT_REPORTS=1.
LONG = int(os.environ.get("NPBERT_REPORTS", "12"))
# And in a short one; of logits alone a diagnosis takes some seconds.
PART = {"full": 40, "hidden": 60, "logits": 150}
ALL = reports()


def verdicts(level: str, part: int) -> dict[str, Verdict]:
    """Of every so many reports that such a dump can show."""
    chosen = [r for r in ALL if not r.only or level in r.only][::part]
    return {
        f"{i} {r.kind}: {r.named} ({r.family}, {r.inputs})": judge(r, level)
        for i, r in enumerate(chosen)
    }


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("some", [pytest.param(False, marks=pytest.mark.long), True])
def test_reported_bugs_are_named_and_none_is_called_right(level: str, some: bool) -> None:
    found = verdicts(level, PART[level] if some else LONG)
    table = "\n".join(f"{name}: {v.word}: {v.said}" for name, v in found.items())
    assert not [name for name, v in found.items() if v.word == "called right"], table
    seen = [v for v in found.values() if v.word != "hidden"]
    named = [v for v in seen if v.word == "named"]
    assert len(named) * 100 >= WANTED[level] * len(seen) - 100 * (some or LONG > 1), table


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("level", ["full", "hidden"])
@pytest.mark.long
def test_bugs_that_halves_can_show_are_not_called_right(level: str, dtype: str) -> None:
    found = {f"{r.named} {r.family}": judge(r, level, dtype) for r in ALL[:: 2 * LONG]}
    assert not [name for name, v in found.items() if v.word == "called right"]


@pytest.mark.parametrize("part", [pytest.param(LONG, marks=pytest.mark.long), 40])
def test_two_bugs_of_one_block_are_both_named(part: int) -> None:
    named, said = 0, []
    chosen = list(pairs())[::part]
    for one, other, both in chosen:
        found = causes(npbert.diagnose(model(both.architecture, both.family), dump(both, "full")))
        are = [any(re.search(r.named, text) for text in found) for r in (one, other)]
        named += all(are)
        said.append(f"{one.named}, {other.named}: {are} {found}")
    assert named >= 0.8 * len(chosen), "\n".join(said)


@pytest.mark.parametrize("part", [pytest.param(1, marks=pytest.mark.long), 15])
def test_right_ports_that_tell_their_numbers_otherwise_have_no_findings(part: int) -> None:
    chosen = list(variations())[::part]
    alarms = {}
    for text, report, told in chosen:
        found = npbert.diagnose(model(report.architecture, report.family), told)
        if found.findings:
            alarms[text] = [(f.step, f.causes, f.evidence) for f in found.findings]
    assert alarms == {}
