"""Sixty settings in the shapes of people's own models are read, and run with fresh weights."""

import importlib.util
import json
import shutil
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import npbert
from npbert.checkpoint.config import Config
from npbert.tasks.rows import TASKS
from npbert.text.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent.parent / "golden"
# Where the files of a tokenizer come from, and which they are.
TOKENIZERS = {
    "wordpiece": ("classes5", "tokenizer.json"),
    "vocab": ("choice", "vocab.txt"),
    "unigram": ("tokens_unigram", "tokenizer.json"),
    "bpe": ("tokens_bpe", "tokenizer.json"),
}
LONG = "Anna walked to the old house, and the rain was cold. " * 6


def load_table() -> Any:
    spec = importlib.util.spec_from_file_location("settings_table", GOLDEN / "settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["settings_table"] = module
    spec.loader.exec_module(module)
    return module


TABLE = load_table()
SETTINGS: Mapping[str, Any] = TABLE.SETTINGS


def write_json(path: Path, said: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said), "utf-8")


def write_setting(root: Path, row: Any) -> Path:
    """Write a folder of this kind, its weights drawn."""
    encoder = root / row.encoder
    encoder.mkdir(parents=True, exist_ok=True)
    name, file = TOKENIZERS[row.tokenizer]
    shutil.copy(GOLDEN / "tasks" / name / file, encoder)
    with warnings.catch_warnings(action="ignore"):
        pieces = Tokenizer.from_folder(encoder, 40)
    assert pieces is not None
    config = {**row.config, "vocab_size": pieces.pieces.get_vocab_size()}
    if row.refused is None:
        made = Config.from_dict(config)
        model = npbert.init(made, TASKS[row.task].architecture, seed=3)
        for array in model.parameters.values():  # or all answers would be even
            array *= 20 if array.ndim == 2 else 1
        model.save(encoder)
    else:
        (encoder / "model.safetensors").write_bytes(b"")
    write_json(encoder / "config.json", config)
    for said, into in (
        (row.settings, "tokenizer_config.json"),
        (row.special, "special_tokens_map.json"),
    ):
        if said is not None:
            write_json(encoder / into, said)
    for into, said in row.files.items():
        write_json(root / into, said)
        if "in_features" in said:
            shape = (said["out_features"], said["in_features"])
            rng = np.random.default_rng(5)
            weights = {
                "linear.weight": rng.normal(0, 1, shape),
                "linear.bias": rng.normal(0, 1, shape[0]),
            }
            narrow = {key: value.astype(np.float32) for key, value in weights.items()}
            save_file(narrow, (root / into).parent / "model.safetensors")
    return root


def check_labels(task: Any, row: Any) -> None:
    answers = task(LONG[:50], top_k=None)
    assert {each["label"] for each in answers} == set(row.labels)


def check_entities(task: Any, row: Any) -> None:
    kinds = {label.partition("-")[2] for label in row.config["id2label"].values()} - {""}
    assert {each["entity_group"] for each in task(LONG)} <= kinds


def check_words(task: Any, row: Any) -> None:
    mask = task.tokenizer.token_text("mask_token")
    (first, *_) = answers = task(f"Anna walked to the {mask} house.", top_k=3)
    assert len(answers) == 3
    assert 0 < first["score"] < 1
    assert first["token_str"]


def check_vectors(task: Any, row: Any) -> None:
    made = task(["Anna sat.", "The rain."])
    assert made.shape == (2, row.dimensions)
    assert np.isfinite(made).all()
    assert not np.allclose(made[0], made[1])
    if any("Normalize" in each["type"] for each in row.files["modules.json"]):
        assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)


def check_ranking(task: Any, row: Any) -> None:
    ranking = task({"query": "Who walked?", "documents": ["Anna.", "The rain was cold."]})
    assert sorted(each["corpus_id"] for each in ranking) == [0, 1]


def check_span(task: Any, row: Any) -> None:
    answer = task(question="Who walked?", context=LONG)
    assert LONG[answer["start"] : answer["end"]] == answer["answer"]


def check_candidates(task: Any, row: Any) -> None:
    answer = task("The rain was cold.", candidate_labels=["weather", "music"])
    assert sum(answer["scores"]) == pytest.approx(1)


def check_choice(task: Any, row: Any) -> None:
    assert task(("Anna", ["walked.", "was cold."]))["index"] in (0, 1)


def check_features(task: Any, row: Any) -> None:
    assert {len(each) for each in task("The rain.")} == {24}


CHECKS = {
    "text-classification": check_labels, "token-classification": check_entities,
    "fill-mask": check_words, "sentence-embedding": check_vectors, "text-ranking": check_ranking,
    "question-answering": check_span, "zero-shot-classification": check_candidates,
    "multiple-choice": check_choice, "feature-extraction": check_features,
}  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind, row in SETTINGS.items() if not row.refused])
def test_a_model_of_this_kind_answers(tmp_path: Path, kind: str) -> None:
    row = SETTINGS[kind]
    folder = write_setting(tmp_path, row)
    if row.told:
        with pytest.warns(npbert.NpbertWarning, match=row.told):
            task = npbert.pipeline(row.task, folder)
    else:
        task = npbert.pipeline(row.task, folder)  # a warning would be an error
    assert task.model.architecture == TASKS[row.task].architecture
    assert task.token_limit(task.options) == row.tokens
    CHECKS[row.task](task, row)


@pytest.mark.parametrize("kind", [kind for kind, row in SETTINGS.items() if row.refused])
def test_one_that_npbert_does_not_run_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    row = SETTINGS[kind]
    folder = write_setting(tmp_path, row)
    japanese = row.refused == TABLE.JAPANESE
    with warnings.catch_warnings(action="ignore"), pytest.raises(npbert.NpbertError) as caught:
        Tokenizer.from_folder(folder, 40) if japanese else npbert.load(folder, "base")
    assert row.refused in str(caught.value)


def test_the_table_has_sixty_kinds_and_every_task() -> None:
    assert len(SETTINGS) >= 60
    assert {row.task for row in SETTINGS.values()} == set(TASKS) & set(CHECKS)
    assert set(TOKENIZERS) == {row.tokenizer for row in SETTINGS.values()}
    keys = {key for row in SETTINGS.values() for key in row.config}
    assert len(keys) > 60
