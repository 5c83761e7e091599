"""What people get wrong around a model: files that do not match, arguments of another kind."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import IDS, drawn, settings, write

import npbert
from npbert import CheckpointError
from npbert.tasks.rows import TASKS

BASE, CLASSES = "base", "for_sequence_classification"


def test_a_saved_tokenizer_says_aloud_what_it_does_with_capitals(tmp_path: Path) -> None:
    tensors = drawn(CLASSES)
    folder = write(tmp_path / "cased", tensors, settings(CLASSES))
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nA\nb\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    npbert.load(folder).save(tmp_path / "saved")
    said = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert said == {
        "clean_up_tokenization_spaces": True, "do_lower_case": False, "strip_accents": None,
        "tokenize_chinese_chars": True,
    }  # fmt: skip
    again = npbert.load(tmp_path / "saved").tokenizer  # and no warning
    assert again.encode("A b B").tokens == ["[CLS]", "A", "b", "[UNK]", "[SEP]"]


def test_a_tokenizer_with_more_tokens_than_the_model_has_is_told_of(tmp_path: Path) -> None:
    folder = write(tmp_path, drawn(CLASSES), settings(CLASSES))
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(200))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    with pytest.warns(npbert.NpbertWarning, match="the tokenizer has 205 tokens, but vocab_size"):
        npbert.load(folder)


def test_a_model_can_be_pickled_and_answers_the_same() -> None:
    model = npbert.init(npbert.Config(hidden_size=24, num_attention_heads=3, num_blocks=1), BASE)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(model(IDS).hidden_state, again(IDS).hidden_state)


NOT_EVEN = {
    "no path": (
        lambda: npbert.load(None),
        "source is None, expected the path of a folder, or a name on the hub",
    ),
    "no name": (
        lambda: npbert.load(""),
        "source is '', expected the path of a folder, or a name on the hub",
    ),
    "no mapping": (
        lambda: npbert.load(".", config=3),
        "config is 3, expected a mapping of fields to override",
    ),
    "no config": (lambda: npbert.init({}, BASE), "config is {}, expected an npbert.Config"),
    "no task": (
        lambda: npbert.pipeline(None),
        f"unknown task None; there are {', '.join(TASKS)}",
    ),
}


@pytest.mark.parametrize(("call", "expected"), NOT_EVEN.values(), ids=NOT_EVEN)
def test_an_argument_of_another_kind_is_an_input_error(call: Any, expected: str) -> None:
    with pytest.raises(npbert.InputError) as caught:
        call()
    assert str(caught.value) == expected


def test_a_folder_with_an_endless_name_is_not_there() -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        npbert.load("x" * 5000)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = npbert.init(npbert.Config(hidden_size=24, num_attention_heads=3, num_blocks=1), BASE)
    with pytest.raises(CheckpointError) as caught:
        model.save(tmp_path / "file")
    assert str(caught.value) == f"{tmp_path / 'file'}: cannot be written: File exists"
