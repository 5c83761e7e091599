"""What a model refuses, and in which words."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wild

import npbert

NAN, INF = float("nan"), float("inf")

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # case: the arguments, and the message
    "a flat list": (
        {"input_ids": [1, 2]},
        "input_ids has shape (2,), expected (batch, length)",
    ),
    "one number": (
        {"input_ids": 7},
        "input_ids has shape (), expected (batch, length)",
    ),
    "choices for a model of texts": (
        {"input_ids": [[[1, 2]]]},
        "input_ids has shape (1, 1, 2), expected (batch, length)",
    ),
    "float ids": (
        {"input_ids": [[1.0, 2.0]]},
        "input_ids has dtype float64, expected whole numbers",
    ),
    "bool ids": (
        {"input_ids": [[True, False]]},
        "input_ids has dtype bool, expected whole numbers",
    ),
    "words": (
        {"input_ids": [["a"]]},
        "input_ids has dtype <U1, expected numbers",
    ),
    "None": (
        {"input_ids": None},
        "input_ids has dtype object, expected numbers",
    ),
    "an id beyond 64 bits": (
        {"input_ids": [[2**80]]},
        "input_ids has an integer of over 64 bits",
    ),
    "no tokens": (
        {"input_ids": np.empty((2, 0), int)},
        "input_ids has shape (2, 0): there is no token in it",
    ),
    "no tokens, in a list": (
        {"input_ids": [[], []]},
        "input_ids has shape (2, 0): there is no token in it",
    ),
    "an empty list": (
        {"input_ids": []},
        "input_ids has shape (0,), expected (batch, length)",
    ),
    "a negative id": (
        {"input_ids": [[5, 6], [7, -1]]},
        "input_ids has -1 at (1, 1), expected 0 to 96 (vocab_size is 97)",
    ),
    "an id beyond the vocabulary": (
        {"input_ids": [[5, 97]]},
        "input_ids has 97 at (0, 1), expected 0 to 96 (vocab_size is 97)",
    ),
    "too long": (
        {"input_ids": [[5] * 32]},
        "input_ids has length 32, but the model has 31 positions; shorten the texts, or split them",
    ),
    "a position beyond the table": (
        {"input_ids": [[5, 6]], "position_ids": [[0, 31]]},
        "position_ids has 31 at (0, 1), expected 0 to 30 (max_positions is 31)",
    ),
    "a negative position": (
        {"input_ids": [[5, 6]], "position_ids": [[-1, 0]]},
        "position_ids has -1 at (0, 0), expected 0 to 30 (max_positions is 31)",
    ),
    "positions of another shape": (
        {"input_ids": [[5, 6], [7, 8]], "position_ids": [[0, 1]]},
        "position_ids has shape (1, 2), but input_ids has (2, 2)",
    ),
    "float positions": (
        {"input_ids": [[5, 6]], "position_ids": [[0.0, 1.0]]},
        "position_ids has dtype float64, expected whole numbers",
    ),
    "a mask of another shape": (
        {"input_ids": [[5, 6]], "attention_mask": [1, 1]},
        "attention_mask has shape (2,), but input_ids has (1, 2)",
    ),
    "a mask with NaN": (
        {"input_ids": [[5, 6]], "attention_mask": [[1, NAN]]},
        "attention_mask has values that are not finite",
    ),
    "a mask of minus infinity": (
        {"input_ids": [[5, 6]], "attention_mask": [[0, -INF]]},
        "attention_mask has values that are not finite",
    ),
    "a complex mask": (
        {"input_ids": [[5, 6]], "attention_mask": [[1, 1j]]},
        "attention_mask has dtype complex128, expected numbers",
    ),
    "a head mask for one block": (
        {"input_ids": [[5, 6]], "attention_head_mask": [1, 1, 1]},
        "attention_head_mask has shape (3,), expected (num_blocks, num_attention_heads) = (2, 3)",
    ),
    "a head mask of more blocks": (
        {"input_ids": [[5, 6]], "attention_head_mask": np.ones((3, 3))},
        "attention_head_mask has shape (3, 3), expected (num_blocks, num_attention_heads) = (2, 3)",
    ),
    "a head mask with NaN": (
        {"input_ids": [[5, 6]], "attention_head_mask": [[1, 1, NAN], [1, 1, 1]]},
        "attention_head_mask has values that are not finite",
    ),
}

REFUSED_CHOICES: dict[str, tuple[dict[str, Any], str]] = {
    "no choices": (
        {"input_ids": [[1, 2]]},
        "input_ids has shape (1, 2), expected (batch, choices, length)",
    ),
    "questions without choices": (
        {"input_ids": np.empty((2, 0, 3), int)},
        "input_ids has shape (2, 0, 3): there is no token in it",
    ),
    "a mask for texts": (
        {"input_ids": [[[1, 2]]], "attention_mask": [[1, 1]]},
        "attention_mask has shape (1, 2), but input_ids has (1, 1, 2)",
    ),
    "an id beyond the vocabulary": (
        {"input_ids": [[[1, 2], [3, 100]]]},
        "input_ids has 100 at (0, 1, 1), expected 0 to 96 (vocab_size is 97)",
    ),
}

PACKED: dict[str, tuple[str, Any, Any, str]] = {
    # case: architecture, sequences, rows, and the message
    "an empty sequence": (
        "base", [[1], []], None,
        "sequence 1 has shape (0,), expected a list of at least one id",
    ),
    "an empty array": (
        "base", [[1], np.empty(0, int)], None,
        "sequence 1 has shape (0,), expected a list of at least one id",
    ),
    "one flat list": (
        "base", [1, 2], None,
        "sequence 0 has shape (), expected a list of at least one id; packed takes a list of lists",
    ),
    "a nested sequence": (
        "base", [[1], [[2, 3]]], None,
        "sequence 1 has shape (1, 2), expected a list of at least one id",
    ),
    "too long": (
        "base", [[1], [2] * 32], None,
        "sequence 1 has length 32, but the model has 31 positions",
    ),
    "a negative id": (
        "base", [[1], [2, -3]], None,
        "sequence 1 has -3 at (1,), expected 0 to 96 (vocab_size is 97)",
    ),
    "float ids": (
        "base", [[1.5]], None,
        "sequence 0 has dtype float64, expected whole numbers",
    ),
    "a row beyond the end": (
        "for_masked_language_modeling", [[1, 2], [3]], [[1], [1]],
        "rows of sequence 1 has 1 at (0,), expected 0 to 0 (its length is 1)",
    ),
    "a row counted from the end": (
        "for_token_classification", [[1, 2]], [[0, -1]],
        "rows of sequence 0 has -1 at (1,), expected 0 to 1 (its length is 2)",
    ),
    "rows for fewer sequences": (
        "for_masked_language_modeling", [[1, 2], [3]], [[0]],
        "rows has 1 lists for 2 sequences",
    ),
    "flat rows": (
        "for_masked_language_modeling", [[1, 2]], [1],
        "rows of sequence 0 has shape (), expected a list",
    ),
    "float rows": (
        "for_masked_language_modeling", [[1, 2]], [[1.0]],
        "rows of sequence 0 has dtype float64, expected whole numbers",
    ),
    "a mask for rows": (
        "for_masked_language_modeling", [[1, 2]], [[True, False]],
        "rows of sequence 0 has dtype bool, expected whole numbers",
    ),
    "rows where only the first token is read": (
        "for_sequence_classification", [[1, 2]], [[0]],
        "rows was given, but for_sequence_classification reads first tokens only",
    ),
    "groups of different sizes": (
        "for_multiple_choice", [[[1], [2]], [[3]], [[4], [5]]], None,
        "the groups have 1, 2 choices; expected equally many, at least one",
    ),
    "a group without choices": (
        "for_multiple_choice", [[], []], None,
        "the groups have 0 choices; expected equally many, at least one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_dense_call_says_what_it_refuses(case: str) -> None:
    arguments, message = REFUSED[case]
    with pytest.raises(npbert.InputError, match=f"^{re.escape(message)}$"):
        wild.model(num_blocks=2)(**arguments)


@pytest.mark.parametrize("case", REFUSED_CHOICES)
def test_a_dense_call_with_choices_says_what_it_refuses(case: str) -> None:
    arguments, message = REFUSED_CHOICES[case]
    with pytest.raises(npbert.InputError, match=f"^{re.escape(message)}$"):
        wild.model("for_multiple_choice")(**arguments)


@pytest.mark.parametrize("case", PACKED)
def test_a_packed_call_says_what_it_refuses(case: str) -> None:
    architecture, sequences, rows, message = PACKED[case]
    with pytest.raises(npbert.InputError, match=f"^{re.escape(message)}$"):
        wild.model(architecture).packed(sequences, rows=rows)


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "attention_head_mask"])
def test_ragged_lists_are_refused_with_a_guess_why(name: str) -> None:
    message = rf"^{name} is no array: .*inhomogeneous.*; are its rows of one length\?$"
    with pytest.raises(npbert.InputError, match=message):
        wild.model()(**{"input_ids": [[1, 2], [3, 4]], name: [[1], [1, 1]]})


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(npbert.InputError, match=r"^rows of sequence 0 is no array: "):
        wild.model("for_token_classification").packed([[1, 2, 3]], rows=[[[0], [1, 2]]])


def test_an_odd_mask_is_followed_with_a_warning_where_the_call_stands() -> None:
    model, ids = wild.model(), [[5, 6, 7]]
    message = "^attention_mask has values besides 0 and 1; whatever is not 0 counts as 1$"
    with pytest.warns(npbert.NpbertWarning, match=message) as warned:
        odd = model(ids, [[2, 0.5, 0]])
    assert (odd.hidden_state == model(ids, [[1, 1, 0]]).hidden_state).all()
    assert Path(warned[0].filename).name == Path(__file__).name


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float16, np.float64, list])
def test_a_mask_may_be_of_any_kind_of_number(kind: Any) -> None:
    model, ids, mask = wild.model(), [[5, 6, 7]], [[1, 0, 1]]
    given = mask if kind is list else np.array(mask, kind)
    assert (model(ids, given).hidden_state == model(ids, mask).hidden_state).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint32, np.int64, np.uint64])
def test_ids_may_be_of_any_kind_of_whole_number(kind: type) -> None:
    model, ids = wild.model(), wild.ids(2, 9)
    expected = model(ids.tolist(), position_ids=np.full((2, 9), 3)).hidden_state
    actual = model(ids.astype(kind), position_ids=np.full((2, 9), 3, kind)).hidden_state
    assert (actual == expected).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint32, np.int64, np.uint64])
def test_packed_ids_and_rows_may_be_of_any_kind_of_whole_number(kind: type) -> None:
    model, ids = wild.model(), [wild.ids(31, seed=i) for i in range(12)]  # columns beyond 255
    rows = [[30, 0]] * 12
    expected = model.packed(ids, rows=rows)
    actual = model.packed([x.astype(kind) for x in ids], rows=[np.array(r, kind) for r in rows])
    assert np.array_equal(actual, expected)


def test_sequences_and_rows_of_different_kinds_of_whole_numbers_may_stand_together() -> None:
    model, ids = wild.model(), wild.ids(2, 9)
    expected = model.packed(list(ids), rows=[[1], [2]])
    kinds = np.int64, np.uint64
    given = [x.astype(kind) for x, kind in zip(ids, kinds, strict=True)]
    rows = [np.array([1], np.uint64), np.array([2], np.int64)]
    assert np.array_equal(model.packed(given, rows=rows), expected)


def test_inputs_may_be_read_only() -> None:
    arrays = [np.ones((2, 5), int), np.ones((2, 5)), np.zeros((2, 5), int), np.ones((3, 3))]
    for array in arrays:
        array.flags.writeable = False
    assert wild.model()(*arrays).hidden_state.shape == (2, 5, 24)
