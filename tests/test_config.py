"""Configurations: one name here, several in the file, every fault named, and nothing lost."""

import json
from dataclasses import fields
from typing import Any

import pytest

from npbert import Config, ConfigError
from npbert.engine.activations import ACTIVATIONS
from npbert.families import FAMILIES

DEFAULTS = {
    "vocab_size": 30522,
    "family": "distilbert",
    "max_positions": 512,
    "hidden_size": 768,
    "num_blocks": 6,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "activation": "gelu",
    "dropout_rate": 0.1,
    "attention_dropout_rate": 0.1,
    "classifier_dropout_rate": None,
    "initializer_scale": 0.02,
    "num_labels": 2,
    "id_to_label": {},
    "use_cross_attention": False,
    "sinusoidal_pos_embds": False,
    "pad_token_id": 0,
    "qa_dropout": 0.1,
    "problem_type": None,
    "tie_word_embeddings": True,
    "pruned_heads": {},
    "other": {},
}

SIZE = "a whole number from 1 to 2**31 - 1"
RATE = "a rate from 0 to 1"
SWITCH = "true or false"
LABELS = "an object from class numbers to names"
PRUNED = "an object from blocks to lists of heads"
PROBLEM = "null or one of regression, single_label_classification, multi_label_classification"
WRONG: list[tuple[str, str, list[Any], str]] = [
    ("vocab_size", "vocab_size", [True, "60", None, 60.0, 0, -1, [60], 2**31], SIZE),
    ("max_positions", "max_positions (max_position_embeddings in config.json)", [-512], SIZE),
    ("hidden_size", "hidden_size (dim in config.json)", [float("nan")], SIZE),
    ("num_blocks", "num_blocks (n_layers in config.json)", [False, 0], SIZE),
    ("num_attention_heads", "num_attention_heads (n_heads in config.json)", [10**12], SIZE),
    ("intermediate_size", "intermediate_size (hidden_dim in config.json)", [{}], SIZE),
    ("num_labels", "num_labels", [0, "2", 2**17 + 1], "a whole number from 1 to 2**17"),
    ("dropout_rate", "dropout_rate (dropout in config.json)", [float("nan"), 1.5, -0.1], RATE),
    (
        "attention_dropout_rate",
        "attention_dropout_rate (attention_dropout in config.json)",
        [True, "0.1", None, float("inf")],
        RATE,
    ),
    ("qa_dropout", "qa_dropout", [2, None], RATE),
    (
        "classifier_dropout_rate",
        "classifier_dropout_rate (seq_classif_dropout in config.json)",
        [float("nan"), False, "none"],
        f"{RATE}, or null",
    ),
    (
        "initializer_scale",
        "initializer_scale (initializer_range in config.json)",
        [-0.02, float("nan"), float("inf"), None, "0.02"],
        "a finite number from 0",
    ),
    ("use_cross_attention", "use_cross_attention", [1, "true", None], SWITCH),
    ("sinusoidal_pos_embds", "sinusoidal_pos_embds", [0, []], SWITCH),
    ("tie_word_embeddings", "tie_word_embeddings", ["no"], SWITCH),
    ("pad_token_id", "pad_token_id", [True, 0.0, "[PAD]"], "a token id or null"),
    ("problem_type", "problem_type", ["ranking", 1, ["regression"]], PROBLEM),
    ("activation", "activation", [7, None, ["gelu"]], "a name"),
    ("id_to_label", "id_to_label (id2label in config.json)", [["a", "b"], {0: b"a"}], LABELS),
    ("id_to_label", "id_to_label (id2label in config.json)", [{0: "a", "1": "b"}], LABELS),
    ("id_to_label", "id_to_label (id2label in config.json)", [{"0": "a", "1": "b"}], LABELS),
    ("pruned_heads", "pruned_heads", [[0], {0: 1}, {0: (0.5,)}, {0: (True,)}, {"0": (1,)}], PRUNED),
]  # fmt: skip


def message(make: Any, *arguments: Any, **fields: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make(*arguments, **fields)
    return str(caught.value)


def test_the_defaults_are_those_of_the_design() -> None:
    config = Config()
    fixed = {"layer_norm_epsilon": 1e-12, "type_vocab_size": 0}
    assert {f.name: getattr(config, f.name) for f in fields(config)} == DEFAULTS | fixed
    assert Config.from_dict({}) == config


def test_an_unknown_field_is_refused_with_the_nearest_name() -> None:
    assert message(Config, num_block=2) == "unknown field 'num_block'; did you mean 'num_blocks'?"
    assert (
        message(Config, zzz=1)
        == f"unknown field 'zzz'; the fields are {', '.join(FAMILIES['distilbert'].config_names)}"
    )
    assert message(Config, n_layers=1) == ("unknown field 'n_layers'; it is called num_blocks here")
    assert message(Config().override, {"num_label": 2}) == (
        "unknown field 'num_label'; did you mean 'num_labels'?"
    )


@pytest.mark.parametrize(
    ("field", "label", "value", "expected"),
    [(field, label, value, kind) for field, label, values, kind in WRONG for value in values],
)
def test_a_value_of_the_wrong_kind_is_named(
    field: str, label: str, value: object, expected: str
) -> None:
    assert message(Config, **{field: value}) == f"{label} is {value!r}, expected {expected}"


LEARNED = "has learned parameters, which no DistilBERT checkpoint carries"
CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"num_attention_heads": 5},
     "num_attention_heads is 5, which does not divide hidden_size, 768, evenly"),
    ({"activation": "gelou"}, "unknown activation 'gelou'; did you mean 'gelu'?"),
    ({"activation": "xyz"},
     f"unknown activation 'xyz'; npbert knows {', '.join(sorted(ACTIVATIONS))}"),
    ({"activation": "prelu"}, f"activation 'prelu' {LEARNED}"),
    ({"activation": "xielu"}, f"activation 'xielu' {LEARNED}"),
    ({"id_to_label": {0: "a", 1: "b"}, "num_labels": 3},
     "id_to_label has 2 names, but num_labels is 3"),
    ({"id_to_label": {0: "a", 2: "c"}}, "id_to_label has the classes 0, 2, expected 0 to 1"),
    ({"pruned_heads": {6: (0,)}}, "pruned_heads names block 6; the blocks are 0 to 5"),
    ({"pruned_heads": {-1: (0,)}}, "pruned_heads names block -1; the blocks are 0 to 5"),
    ({"pruned_heads": {2: (3, 12)}}, "pruned_heads of block 2: 3, 12; the heads are 0 to 11"),
    ({"pruned_heads": {0: (-1,)}}, "pruned_heads of block 0: -1; the heads are 0 to 11"),
    ({"pruned_heads": {1: tuple(range(12))}}, "pruned_heads leaves block 1 with no head"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), CONTRADICTIONS, ids=lambda x: str(x)[:40])
def test_what_does_not_go_together_is_named(given: dict[str, Any], expected: str) -> None:
    assert message(Config, **given) == expected


def test_all_faults_are_listed_at_once() -> None:
    assert message(Config, vocab=1, vocab_size=0, dropout_rate=2, activation=7) == (
        "unknown field 'vocab'; did you mean 'vocab_size'?; "
        f"vocab_size is 0, expected {SIZE}; "
        f"dropout_rate (dropout in config.json) is 2, expected {RATE}; "
        "activation is 7, expected a name"
    )
    assert message(Config, num_attention_heads=7, activation="prelu", pruned_heads={9: (0,)}) == (
        "num_attention_heads is 7, which does not divide hidden_size, 768, evenly; "
        f"activation 'prelu' {LEARNED}; "
        "pruned_heads names block 9; the blocks are 0 to 5"
    )


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_of_the_textbook_is_accepted(activation: str) -> None:
    assert Config(activation=activation).activation == activation


NAMES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "max_positions": (16, ("max_position_embeddings", "max_positions")),
    "hidden_size": (24, ("dim", "hidden_size")),
    "num_blocks": (2, ("n_layers", "num_hidden_layers", "num_blocks")),
    "num_attention_heads": (3, ("n_heads", "num_attention_heads")),
    "intermediate_size": (40, ("hidden_dim", "intermediate_size")),
    "activation": ("relu", ("activation", "hidden_act")),
    "dropout_rate": (0.3, ("dropout", "dropout_rate")),
    "attention_dropout_rate": (0.3, ("attention_dropout", "attention_dropout_rate")),
    "classifier_dropout_rate": (0.3, ("seq_classif_dropout", "classifier_dropout_rate")),
    "initializer_scale": (0.3, ("initializer_range", "initializer_scale")),
    "id_to_label": ({0: "no", 1: "yes"}, ("id2label", "id_to_label")),
}


@pytest.mark.parametrize(
    ("ours", "theirs"), [(ours, name) for ours, (_, names) in NAMES.items() for name in names]
)
def test_a_field_is_read_by_each_of_its_names(ours: str, theirs: str) -> None:
    value, names = NAMES[ours]
    changes = {theirs: value} | ({"dim": 24} if theirs == "n_heads" else {})
    assert getattr(Config.from_dict(changes), ours) == value
    assert getattr(Config().override(changes), ours) == value
    assert getattr(Config.from_dict(dict.fromkeys(names, value)), ours) == value


def test_two_names_of_a_field_may_not_contradict() -> None:
    assert message(Config.from_dict, {"dim": 24, "hidden_size": 48}) == (
        "hidden_size is given twice, under two of its names, as 24 and as 48"
    )


def test_the_keys_of_labels_and_pruned_heads_may_be_strings_as_json_has_them() -> None:
    said = {"id2label": {"0": "no", "1": "so", "2": "yes"}, "pruned_heads": {"1": [0, 4]}}
    config = Config.from_dict(said)
    assert (config.id_to_label, config.num_labels) == ({0: "no", 1: "so", 2: "yes"}, 3)
    assert config.pruned_heads == {1: (0, 4)}
    assert [config.heads(block) for block in (0, 1)] == [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        [1, 2, 3, 5, 6, 7, 8, 9, 10, 11],
    ]
    assert config.sizes(1)["A"] == 10 * config.head_size == 640


@pytest.mark.parametrize("field", ["id2label", "pruned_heads"])
def test_keys_that_are_no_numbers_are_named(field: str) -> None:
    value = {"a": "no", "1": "yes"}
    expected = f"{field} has the keys 'a', '1', expected whole numbers"
    assert message(Config.from_dict, {field: value}) == expected


def test_one_class_may_not_be_named_twice() -> None:
    with pytest.raises(ConfigError, match="id2label"):
        Config.from_dict({"id2label": {"0": "no", "1": "yes", "01": "maybe"}})


def test_null_stands_for_no_labels_and_no_pruned_heads() -> None:
    config = Config.from_dict({"id2label": None, "pruned_heads": None, "num_labels": 4})
    assert (config.id_to_label, config.pruned_heads, config.num_labels) == ({}, {}, 4)


def test_another_family_is_refused() -> None:
    assert message(Config.from_dict, {"model_type": "roberta"}) == (
        "model_type is 'roberta', expected 'distilbert' or 'bert': npbert runs no other family"
    )


COMPLETE: list[dict[str, Any]] = [
    {},
    {"num_blocks": 2, "hidden_size": 24, "num_attention_heads": 3, "pad_token_id": None},
    {"id_to_label": {0: "no", 1: "so", 2: "yes"}, "problem_type": "regression"},
    {"id_to_label": {0: "only"}},
    {"pruned_heads": {0: (1,), 5: (0, 11)}, "activation": "silu"},
    {"tie_word_embeddings": False, "sinusoidal_pos_embds": True, "use_cross_attention": True},
    {"other": {"tie_weights_": True, "task_specific_params": {"a": [1, None]}}},
]
INCOMPLETE: list[dict[str, Any]] = [
    {},
    {"dropout_rate": 0.3},
    {"num_labels": 3},
    {"num_labels": 1, "classifier_dropout_rate": 0.2},
]


@pytest.mark.parametrize("given", COMPLETE, ids=lambda x: ",".join(x))
def test_a_config_comes_back_from_the_file_equal(given: dict[str, Any]) -> None:
    config = Config(**given, classifier_dropout_rate=0.25)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("given", [*COMPLETE, *INCOMPLETE], ids=lambda x: ",".join(x))
def test_a_second_trip_to_the_file_changes_nothing(given: dict[str, Any]) -> None:
    once = json.loads(json.dumps(Config(**given).to_dict()))
    assert Config.from_dict(once).to_dict() == once


def test_what_the_file_cannot_leave_open_is_written_out() -> None:
    said = Config(dropout_rate=0.3, num_labels=3).to_dict()
    assert said["seq_classif_dropout"] == 0.3
    assert said["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    assert said["label2id"] == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert not {"id2label", "label2id", "num_labels"} & set(Config().to_dict())


def test_unknown_keys_survive() -> None:
    said = {"tie_weights_": True, "architectures": ["X"], "custom": {"deep": [1, {"a": None}]}}
    assert said.items() <= Config.from_dict(said).to_dict().items()


def test_an_override_of_labels_or_their_number_implies_the_other() -> None:
    three = Config(id_to_label={0: "no", 1: "so", 2: "yes"})
    for changes, number, names in (
        ({"num_labels": 4}, 4, {}),
        ({"id2label": {"0": "a", "1": "b"}}, 2, {0: "a", 1: "b"}),
        ({"num_labels": 1, "id_to_label": {0: "a"}}, 1, {0: "a"}),
        ({"dropout": 0.5}, 3, three.id_to_label),
    ):
        config = three.override(changes)
        assert (config.num_labels, config.id_to_label) == (number, names)
    assert message(three.override, {"num_labels": 2, "id_to_label": {0: "a"}}) == (
        "id_to_label has 1 names, but num_labels is 2"
    )


def test_an_override_leaves_no_names_of_old_labels_behind() -> None:
    said = {"id2label": {"0": "x", "1": "y", "2": "z"}, "label2id": {"x": 0, "y": 1, "z": 2}}
    assert "label2id" not in Config.from_dict(said).override({"num_labels": 2}).to_dict()


def test_an_override_keeps_the_rest() -> None:
    config = Config.from_dict({"dim": 24, "n_heads": 3, "custom": 1, "pruned_heads": {"0": [2]}})
    changed = config.override({"dropout": 0.5})
    assert changed.to_dict() == config.to_dict() | {"dropout": 0.5, "seq_classif_dropout": 0.5}
