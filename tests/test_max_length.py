"""max_length: every task reads fewer tokens than the model could, and tells of those it did not."""

import json
import warnings
from dataclasses import fields
from pathlib import Path

import pytest

import npbert
from npbert.cli import main
from npbert.tasks.rows import TASKS

MODELS = Path(__file__).parent.parent / "golden" / "tasks"
LONG = "the river is long and the summer is hot"  # nine tokens
SECOND = "she sings"
# A model, an input of more than 12 tokens, and options that it needs.
ASKED = {
    "text-classification": ("classes5", (LONG, SECOND), {}),
    "fill-mask": ("bert_mlm", f"the [MASK] . {LONG}", {"top_k": 1}),
    "multiple-choice": ("choice", {"prompt": LONG, "choices": [SECOND, "he is old"]}, {}),
    "zero-shot-classification": (
        "nli", LONG, {"candidate_labels": ["sea"], "hypothesis_template": "it is {}"},
    ),
    "sentence-embedding": ("st_mean", f"{LONG} . {SECOND}", {}),
    "sparse-embedding": ("splade_max", f"{LONG} . {SECOND}", {}),
    "text-ranking": ("cross1", {"query": SECOND, "documents": [LONG, "he is old"]}, {}),
    "feature-extraction": ("bio", (LONG, SECOND), {}),
}  # fmt: skip
WINDOWS = {"token-classification", "question-answering"}  # which read all of a text, in windows


def asked(name):
    model, given, options = ASKED[name]
    return npbert.pipeline(name, MODELS / model, **options), given


def lengths(task, given, options):
    """Return how many tokens the model would read of an input, in each of its token lists."""
    return [len(tokens.ids) for tokens in task.read_input(given, options).tokens]


def test_every_task_has_the_option_and_all_that_truncate_are_tried_here():
    assert all("max_length" in {f.name for f in fields(row.options)} for row in TASKS.values())
    assert ASKED.keys() | WINDOWS == TASKS.keys()


@pytest.mark.parametrize("name", ASKED)
def test_no_more_tokens_are_read_and_those_that_are_not_are_told(name):
    task, given = asked(name)
    whole = lengths(task, given, task.options)
    assert max(whole) > 12
    for limit in (9, 12):
        options = task.with_changes({"max_length": limit})
        assert lengths(task, given, options) == [min(n, limit) for n in whole]
        with pytest.warns(npbert.NpbertWarning, match=rf" truncated to {limit} tokens, \d+ tok"):
            task(given, max_length=limit)
        with pytest.raises(npbert.InputError, match=rf"^text 0: has {whole[0]} tokens, but"):
            task(given, max_length=limit, long="error")
    task(given)  # with no warning, which would be an error
    task(given, max_length=max(whole))


@pytest.mark.parametrize("name", TASKS)
def test_more_than_the_model_holds_is_refused(name):
    model = {"token-classification": "bio", "question-answering": "qa"}.get(name)
    model = model or ASKED[name][0]
    npbert.pipeline(name, MODELS / model, max_length=64)
    with pytest.raises(npbert.InputError, match=r"^max_length is 65, but the model reads 64$"):
        npbert.pipeline(name, MODELS / model, max_length=65)
    with pytest.raises(
        npbert.InputError, match=r"^max_length is 0, expected a whole number from 1"
    ):
        npbert.pipeline(name, MODELS / model, max_length=0)


@pytest.mark.parametrize("name", ASKED)
def test_a_length_without_room_for_text_is_refused(name):
    task, given = asked(name)
    with pytest.raises(npbert.InputError, match=r"leaves no room for|would be cut off"):
        task(given, max_length=3 if isinstance(given, tuple | dict) else 2)


def test_the_folders_own_length_holds_until_another_is_asked():
    embed = npbert.pipeline("sentence-embedding", MODELS / "st_prompts", prompt="")
    text = f"{LONG} {LONG} {LONG}"
    assert lengths(embed, text, embed.options) == [20]
    for limit in (7, 25):
        assert lengths(embed, text, embed.with_changes({"max_length": limit})) == [limit]


def test_a_job_truncates_as_it_was_told_and_says_so(tmp_path, capsys):
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text(f"{LONG}\n{SECOND}\n")
    model = str(MODELS / "classes5")
    command = ["text-classification", "-m", model, "-i", str(source), "-o", str(target)]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([*command, "--max-length", "6"]) == 0
    assert "1 of the texts was truncated to 6 tokens, 7 tokens were not" in capsys.readouterr().err
    task = npbert.pipeline("text-classification", model)
    answers = [json.loads(line) for line in target.read_text().splitlines()]
    assert answers == task(["the river is long", SECOND])
    assert main([*command, "--max-length", "600"]) == 2
    told = "npbert: --max-length is 600, but the model reads 64\n"
    assert capsys.readouterr().err == told
