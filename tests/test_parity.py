"""All ten tasks answer as the originals do, where those are right.

golden/tasks holds what transformers' pipelines and sentence-transformers answered, on small models
and on the built-in ones.  golden/record/tasks_pipelines.py says what they get wrong, which is
left out.
"""

import json
import warnings
from collections import Counter
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npbert
from npbert.tasks.rows import TASKS

ROOT = Path(__file__).parent.parent
RECORDED = sorted((ROOT / "golden" / "tasks").glob("*.json"))
CASES = [
    pytest.param(path.stem, case, id=f"{path.stem} {case['name']}")
    for path in RECORDED
    for case in json.loads(path.read_text("utf-8"))["cases"]
]
WITHIN = 1e-5

# What the originals cannot be asked, or do otherwise on purpose; other tests hold these.
OURS_ALONE = {
    "long": "the originals cut some texts silently, and fail on others",
    "offset_unit": "the originals count characters only",
    "multi_piece": "transformers takes the first piece of a target for all of it",
    "max_question_length": "transformers ignores it with fast tokenizers",
    "token-classification max_length": "transformers has no such option",
    "token-classification stride": "transformers keeps the longer entity where windows disagree",
}


@cache
def task_of(name: str, model: str, **needed: str) -> Any:
    return npbert.pipeline(name, ROOT / model, **needed)


def answer(name: str, case: dict) -> Any:
    """Ask npbert what the original was asked; a form says how the call looked."""
    given, options = case["input"], dict(case["options"])
    needed = {"entailment": options["entailment"]} if "entailment" in options else {}
    task = task_of(name, case["model"], **needed)
    form = given.get("form") if isinstance(given, dict) else None
    if form == "keywords":
        return task(question=given["question"], context=given["context"], **options)
    if form == "predict":
        return task.predict([tuple(pair) for pair in given["pairs"]], **options)
    if form == "similarity":
        function = [options["function"]] if "function" in options else []
        return task.similarity(task(given["a"]), task(given["b"]), *function)
    if options.get("ranges"):
        options["ranges"] = np.array(options["ranges"])
    return task(input_of(given), **options)


def input_of(given: Any) -> Any:
    if isinstance(given, list):
        return [input_of(each) for each in given]
    if isinstance(given, dict) and given.get("form") == "pair":
        return tuple(given["texts"])
    return given


def plain(value: Any) -> Any:
    """Arrays and tuples as JSON has them."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def differences(ours: Any, theirs: Any, within: float, where: str = "answer") -> list[str]:
    """Say where two answers are not the same, floats within a distance."""
    if isinstance(theirs, float) and isinstance(ours, float):
        return [] if abs(ours - theirs) <= within else [f"{where}: {ours!r}, not {theirs!r}"]
    if isinstance(theirs, dict) and isinstance(ours, dict):
        # A group's word is left out: transformers joins its pieces, npbert quotes the text.
        extra = {"word"} if "entity_group" in theirs else set()
        if ours.keys() - extra != theirs.keys():
            return [f"{where}: has {sorted(ours)}, not {sorted(theirs)}"]
        pairs = [(key, ours[key], theirs[key]) for key in theirs]
    elif isinstance(theirs, list) and isinstance(ours, list):
        if len(ours) != len(theirs):
            return [f"{where}: {len(ours)} long, not {len(theirs)}"]
        pairs = list(zip(range(len(ours)), ours, theirs, strict=True))
    else:
        same = type(ours) is type(theirs) and ours == theirs
        return [] if same else [f"{where}: {ours!r}, not {theirs!r}"]
    return [d for key, a, b in pairs for d in differences(a, b, within, f"{where}.{key}")]


def greatest(value: Any) -> float:
    if isinstance(value, list | dict):
        return max(map(greatest, value.values() if isinstance(value, dict) else value), default=0.0)
    return abs(value) if isinstance(value, float) else 0.0


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_answer_is_the_originals(name, case):
    with warnings.catch_warnings():
        # The originals cut texts at max_length, or max_seq_length, and never tell.
        told = rf".* truncated to {case['options'].get('max_length', 20)} tokens"
        warnings.filterwarnings("ignore", told, npbert.NpbertWarning)
        warnings.filterwarnings("ignore", r".* an empty text", npbert.NpbertWarning)  # nor of these
        ours = plain(answer(name, case))

    theirs = case["answer"]
    vectors = name in ("sentence-embedding", "feature-extraction")
    sized = vectors or name == "sparse-embedding"  # of any size, where others are at most 1
    within = WITHIN * (greatest(theirs) if sized else 1.0)
    assert differences(ours, theirs, within) == []
    if not vectors:
        assert json.loads(json.dumps(ours)) == ours


def test_every_task_is_held_to_many_recorded_answers():
    count = Counter(case.values[0] for case in CASES)

    assert set(count) == set(TASKS)
    assert min(count.values()) >= 15
    assert len(CASES) >= 200


@pytest.mark.parametrize("name", TASKS)
def test_every_option_that_the_original_has_occurs_in_a_recorded_call(name):
    asked = {
        option for case in CASES if case.values[0] == name for option in case.values[1]["options"]
    }
    has = {field.name for field in fields(TASKS[name].options)}
    alone = {option for option in has if {option, f"{name} {option}"} & OURS_ALONE.keys()}

    assert has - alone <= asked
    assert not alone & asked
    assert asked <= has | {"function"}  # what similarity takes
