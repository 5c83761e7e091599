"""What compare and diagnose say in words: masks, fully masked rows, arrays of right ports."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from port.faults import Plan, scores_and
from port.judging import dump, model, right
from port.planted import CLASSES
from port.reports import Report
from port.variations import RETELLINGS

import npbert
from npbert.oracle.diagnosis import Diagnosis, report_lines
from npbert.oracle.tables import comparison_table

Array = np.ndarray[Any, Any]
MODEL = model(CLASSES, "distilbert")
MASKED = "attention.masked_scores"


def port_with(mask: Callable[[Array, Array], Array], kind: str = "right") -> Report:
    """A port whose masked scores are something else: of the scores and the mask."""
    plan = Plan(steps={MASKED: scores_and(mask)})
    return dataclasses.replace(right(CLASSES, kind, "distilbert", ""), plan=plan)


def diagnosed(report: Report, level: str = "full", **arrays: Array) -> Diagnosis:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return npbert.diagnose(MODEL, {**dump(report, level), **arrays})


def odd_keys(scores: Array, mask: Array) -> Array:
    """Of text 2 keys 7 to 9 are heard too, of text 4 key 1 is not."""
    heard = np.broadcast_to(mask != 0, scores.shape).copy()
    heard[2, ..., 7:10] = True
    heard[4, ..., 1] = False
    return np.where(heard, scores, np.finfo(np.float32).min)


def test_a_mask_of_no_catalogue_is_told_by_rows_and_keys() -> None:
    (finding,) = diagnosed(port_with(odd_keys)).findings
    assert not finding.causes
    assert finding.blocks == (0, 1, 2)
    assert finding.evidence == (
        "row 2: keys 7 to 9 are heard, and must not be; row 4: key 1 is not heard, and must be"
    )


def test_a_mask_that_no_dump_holds_is_told_from_the_weights() -> None:
    told = dump(port_with(odd_keys), "full")
    told = {n: x for n, x in told.items() if not n.endswith("masked_scores")}
    (finding,) = npbert.diagnose(MODEL, told).findings
    assert finding.step == "transformer.layer.0.attention.weights"
    assert finding.evidence.startswith("row 2: keys 7 to 9 are heard, and must not be; row 4: ")


def test_a_mask_of_some_heads_is_told_of_these_heads() -> None:
    def second_head(scores: Array, mask: Array) -> Array:
        heard = np.broadcast_to(mask != 0, scores.shape).copy()
        heard[1, 1] = True
        return np.where(heard, scores, np.finfo(np.float32).min)

    (finding,) = diagnosed(port_with(second_head)).findings
    assert finding.evidence == "row 1: keys 8 to 10 are heard, and must not be, in head 1"


@pytest.mark.parametrize("level", ["full", "hidden", "logits"])
def test_a_row_that_is_fully_masked_and_no_number_is_named(level: str) -> None:
    report = port_with(lambda s, m: np.where(m, s, -np.inf), "full")
    (finding,) = diagnosed(report, level).findings
    assert finding.causes[0].startswith("rows that are fully masked become NaN: a mask of minus")
    assert finding.evidence == "NaN in row 3 of the batch, and nowhere else"


def test_a_number_that_is_added_shows_in_fully_masked_rows_alone_and_is_harmless() -> None:
    found = diagnosed(port_with(lambda s, m: s - 1e4 * (m == 0), "full"), "hidden")
    assert found.findings == []
    (finding,) = found.harmless
    assert "hidden keys get -10000 added, not the smallest number" in finding.causes
    assert finding.harmless == "row 3 is fully masked, and only there"
    assert next(iter(report_lines(found))).startswith("nothing is wrong")


def test_nan_in_a_fully_masked_row_hides_no_other_bug() -> None:
    report = port_with(lambda s, m: np.where(m, s, -np.inf), "full")
    plan = dataclasses.replace(report.plan, activation=np.tanh)
    found = diagnosed(dataclasses.replace(report, plan=plan)).findings
    assert found[0].causes[0] == "computed with tanh"
    assert found[1].evidence == "NaN in row 3 of the batch, and nowhere else"


CONVENTIONS = {
    "lin1 fused": "transformer.layer.0.ffn.lin1 is dumped behind its activation function",
    "pre_classifier fused": "pre_classifier is dumped behind its activation function",
    "scores before the scale": "transformer.layer.0.attention.scores is dumped before the scale",
    "q behind the scale": "transformer.layer.0.attention.q_lin is dumped behind the scale",
    "scores masked": "transformer.layer.0.attention.scores: the scores are masked already",
}


@pytest.mark.parametrize("text", CONVENTIONS)
def test_an_array_of_a_right_port_that_is_something_else_is_a_note(text: str) -> None:
    told = RETELLINGS[text](dump(right(CLASSES, "mixed", "distilbert", ""), "full"))
    found = npbert.diagnose(MODEL, told)
    assert found.findings == []
    assert found.comparison.same
    assert found.notes == [f"{CONVENTIONS[text]}; that is no mistake"]


def test_scores_that_are_not_scaled_and_used_so_are_a_mistake() -> None:
    report = right(CLASSES, "right", "distilbert", "")
    plan = Plan(steps={"attention.scores": lambda p, name, x: x * 8**0.5})
    (finding,) = diagnosed(dataclasses.replace(report, plan=plan)).findings
    assert finding.causes == ("the scores are not divided by the root of the head's width",)


def test_one_bug_that_nothing_explains_is_one_line_and_hides_no_other() -> None:
    plan = Plan(
        steps={
            "attention.out_lin": lambda p, name, x: x * 1.25,
            "ffn.lin2": lambda p, name, x: x - p.weights_of("ffn.lin2")[1],
        }
    )
    report = dataclasses.replace(right(CLASSES, "right", "distilbert", ""), plan=plan)
    unknown, bias = diagnosed(report).findings
    assert (unknown.step, unknown.blocks) == ("transformer.layer.0.attention.out_lin", (0, 1, 2))
    assert unknown.evidence == "every value is 1.25 times what it should be"
    assert bias.causes == ("ffn.lin2: bias missing",)


def test_two_traces_differ_first_where_the_pass_comes_first() -> None:
    given = dump(right(CLASSES, "right", "distilbert", ""), "full")
    name = "transformer.layer.1.attention.v_lin"
    other = {**given, name: given[name] + 1, "logits": given["logits"] + 1}
    for turned in (given, dict(sorted(given.items())), dict(reversed(given.items()))):
        found = npbert.compare(turned, other)
        assert found.first is not None
        assert found.first.name == name
        assert [step.name for step in found.steps][-1] == "logits"


def test_an_input_that_one_of_two_traces_lacks_is_named() -> None:
    given = dump(right(CLASSES, "right", "distilbert", ""), "full")
    heads = {"attention_head_mask": np.zeros((3, 4))}
    assert npbert.compare({**given, **heads}, given).notes == [
        "attention_head_mask: the candidate tells of none; the other's may be why they differ"
    ]
    assert npbert.compare(given, {**given, **heads}).notes == [
        "attention_head_mask: the reference tells of none; the other's may be why they differ"
    ]
    as_usual = {"position_ids": np.broadcast_to(np.arange(11), (5, 11))}
    assert npbert.compare(given, {**given, **as_usual}).notes == []


@pytest.mark.long
def test_logits_of_few_numbers_do_not_excuse_their_own_error() -> None:
    given = dump(right(CLASSES, "right", "distilbert", ""), "logits")
    rng = np.random.default_rng(1)
    noise = rng.normal(size=given["logits"].shape) * np.abs(given["logits"]).max()
    wrong = {**given, "logits": (given["logits"] + 4e-4 * noise).astype(np.float32)}
    (finding,) = npbert.diagnose(MODEL, wrong).findings
    assert not finding.causes
    assert not npbert.compare(MODEL, wrong).same
    assert "\n".join(comparison_table(npbert.compare(MODEL, wrong))).count("wrong") >= 1


@pytest.mark.long
def test_numbers_of_another_model_are_never_within_the_rounding_of_halves() -> None:
    given = dump(right(CLASSES, "right", "distilbert", ""), "logits", "bfloat16")
    wrong = {**given, "logits": given["logits"][::-1].copy()}
    assert npbert.diagnose(MODEL, wrong).findings
