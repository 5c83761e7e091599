"""A task loads the model that it needs, whatever config.json says, and tells what it doubts."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import npbert
from npbert.cli import main
from npbert.tasks.rows import TASKS

GOLDEN = Path(__file__).parent.parent / "golden" / "tasks"
TEXT = "Anna walked to the old house."
# task: a folder of golden/tasks, and an input
MODELS: dict[str, tuple[str, Any]] = {
    "text-classification": ("classes5", TEXT),
    "token-classification": ("bert_bio", TEXT),
    "fill-mask": ("bert_mlm", "Anna walked to the [MASK]."),
    "question-answering": ("qa", ("Who walked?", TEXT)),
    "multiple-choice": ("bert_choice", ("Anna", ["walked", "sold paper"])),
    "zero-shot-classification": ("nli", {"text": TEXT, "candidate_labels": ["a", "b"]}),
    "text-ranking": ("bert_cross", ("Who walked?", [TEXT, "It was cold."])),
    "sentence-embedding": ("st_mean", TEXT),
    "feature-extraction": ("bert_classes", TEXT),
}
ABSENT = object()
HINTS = {
    "absent": ABSENT, "null": None, "empty": [], "a subclass": ["MyBertForEverything"],
    "two": ["DistilBertModel", "BertModel"], "a string": "BertModel", "nonsense": [{"a": 1}],
    "stale": ["RobertaForCausalLM"], "an encoder": ["DistilBertModel"],
}  # fmt: skip


def copy_model(name: str, folder: Path, **changes: Any) -> Path:
    """Copy a folder of golden/tasks, and change its config.json."""
    shutil.copytree(GOLDEN / name, folder)
    path = folder / "config.json"
    said = {**json.loads(path.read_text("utf-8")), **changes}
    kept = {key: value for key, value in said.items() if value is not ABSENT}
    path.write_text(json.dumps(kept), "utf-8")
    return folder


def add_tensors(folder: Path, *names: str) -> Path:
    """Add tensors that nobody knows to a folder's model.safetensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path) | {name: np.ones(3, np.float32) for name in names}
    path.unlink()
    save_file(tensors, path, {"format": "pt"})
    return folder


def equal(ours: Any, theirs: Any) -> bool:
    return json.dumps(ours, default=np.ndarray.tolist) == json.dumps(
        theirs, default=np.ndarray.tolist
    )


def warnings_of(warned: Any) -> list[str]:
    return [str(each.message) for each in warned]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("hint", HINTS)
def test_a_task_loads_its_own_architecture_whatever_config_json_names(
    tmp_path: Path, name: str, hint: str
) -> None:
    model, given = MODELS[name]
    folder = copy_model(model, tmp_path / "model", architectures=HINTS[hint])
    task, usual = npbert.pipeline(name, folder), npbert.pipeline(name, GOLDEN / model)
    assert task.model.architecture == TASKS[name].architecture
    assert equal(task(given), usual(given))


def test_the_command_line_does_the_same(tmp_path: Path, capsys: Any) -> None:
    folder = copy_model("classes5", tmp_path / "model", architectures=None)
    assert main(["text-classification", "-m", str(folder), TEXT]) == 0
    out, err = capsys.readouterr()
    assert "label" in out
    assert err == ""


def test_a_file_of_two_heads_fills_masks() -> None:
    folder = GOLDEN.parent / "BertForPreTraining"
    assert npbert.load(folder).architecture == TASKS["fill-mask"].architecture


def test_a_head_that_is_not_there_is_an_error_that_says_for_what_the_model_was_made() -> None:
    with pytest.raises(npbert.CheckpointError) as caught:
        npbert.pipeline("question-answering", GOLDEN / "bert_mlm")
    assert str(caught.value) == (
        f"{GOLDEN / 'bert_mlm' / 'model.safetensors'}: missing: qa_outputs.weight, "
        "qa_outputs.bias; the checkpoint was made for another task than for_question_answering, as "
        "config.json says, BertForMaskedLM (strict=False draws these at random, for training)"
    )


def test_parameters_that_two_heads_have_are_loaded_with_a_warning(tmp_path: Path) -> None:
    """Of 2019 there are taggers with a pooler, which look like classifiers of texts."""
    folder = copy_model(
        "bert_classes", tmp_path / "model", architectures=["BertForTokenClassification"]
    )
    with pytest.warns(npbert.NpbertWarning) as warned:
        npbert.pipeline("text-classification", folder)(TEXT)
    assert warnings_of(warned) == [
        f"{folder}: config.json names BertForTokenClassification, and parameters with the same "
        "names are loaded as for_sequence_classification; if its answers make no sense, that is why"
    ]


STRAY = {
    "the weights of a loss": "loss_fct.weight",
    "a layer beside the head": "bert.extra.dense.weight",
    "states between words": "crf.transitions",
    "a block's adapter": "distilbert.transformer.layer.0.adapter.down.weight",
}


@pytest.mark.parametrize("case", STRAY)
def test_an_unknown_tensor_is_an_error_and_a_warning_where_that_was_asked_for(
    tmp_path: Path, case: str
) -> None:
    folder = add_tensors(copy_model("classes5", tmp_path / "model"), STRAY[case])
    with pytest.raises(npbert.CheckpointError, match=r"\(strict=False ignores it\)$"):
        npbert.pipeline("text-classification", folder)
    with pytest.warns(npbert.NpbertWarning) as warned:
        task = npbert.pipeline("text-classification", folder, strict=False)
    assert warnings_of(warned) == [
        f"{folder}: ignored, because npbert does not know them: {STRAY[case]}; if they are part of "
        "what the model computes, its answers are wrong"
    ]
    usual = npbert.pipeline("text-classification", GOLDEN / "classes5")
    assert equal(task(TEXT), usual(TEXT))


def test_buffers_are_ignored_in_silence(tmp_path: Path) -> None:
    folder = add_tensors(
        copy_model("bert_classes", tmp_path / "model"), "bert.embeddings.position_ids"
    )
    npbert.pipeline("text-classification", folder, strict=False)


COMMANDS = {
    "text-classification": lambda folder: ["text-classification", "-m", folder, "x"],
    "info": lambda folder: ["info", folder],
    "trace": lambda folder: ["trace", folder, "--text", "x", "-o", f"{folder}.npz"],
    "explain": lambda folder: ["explain", "-m", folder, "x", "-o", f"{folder}.html"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_advises_works(tmp_path: Path, capsys: Any, command: str) -> None:
    folder = add_tensors(copy_model("classes5", tmp_path / "model"), "loss_fct.weight")
    words = COMMANDS[command](str(folder))
    assert main(words) == 3
    assert capsys.readouterr().err.endswith("(--no-strict ignores it)\n")
    with warnings.catch_warnings(action="default"):
        assert main([*words, "--no-strict"]) == 0
    assert "ignored, because npbert does not know them: loss_fct.weight" in capsys.readouterr().err


def test_another_architecture_than_the_tasks_is_refused() -> None:
    with pytest.raises(npbert.InputError) as caught:
        npbert.pipeline("text-classification", GOLDEN / "bio", architecture="base")
    assert str(caught.value) == (
        "text-classification needs a model for_sequence_classification, but this one is base"
    )
    name = "DistilBertForSequenceClassification"
    npbert.pipeline("text-classification", GOLDEN / "classes5", architecture=name)


def test_vectors_are_had_of_any_architecture() -> None:
    how = {"architecture": "for_sequence_classification"}
    one = npbert.pipeline("feature-extraction", GOLDEN / "classes5", **how)(TEXT)
    assert equal(one, npbert.pipeline("feature-extraction", GOLDEN / "classes5")(TEXT))


def test_what_is_said_of_loading_has_no_use_beside_a_model() -> None:
    model = npbert.load(GOLDEN / "classes5")
    with pytest.raises(npbert.InputError, match=r"^strict: given with a Model, which is loaded "):
        npbert.pipeline("text-classification", model, strict=False)
    with pytest.raises(npbert.InputError, match=r"^architecture, strict: given with a Model"):
        npbert.explain(model, "x", strict=False)


def test_a_task_is_made_once_more_as_it_was_made(tmp_path: Path) -> None:
    folder = add_tensors(copy_model("classes5", tmp_path / "model"), "loss_fct.weight")
    with pytest.warns(npbert.NpbertWarning, match="ignored"):
        task = npbert.pipeline("text-classification", folder, strict=False)
    assert task.rebuild is not None
    assert task.rebuild.keywords["strict"] is False
