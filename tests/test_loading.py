"""From a folder or from nothing to a model, and back to a folder that transformers reads."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import IDS, LABELS, drawn, prefixed, same, settings, write
from corruption.checkpoint import CONFIG, SIZES, WEIGHTS, healthy_tokenizer
from safetensors import safe_open

import npbert
from npbert import CheckpointError, Config, ConfigError, InputError, Model, NpbertWarning
from npbert.families import class_name, list_architectures

ARCHITECTURES = list_architectures("distilbert")

BASE, MASKED, CLASSES = "base", "for_masked_language_modeling", "for_sequence_classification"
DTYPES = ("float32", "float64")
WORDS, PROJECTOR = "embeddings.word_embeddings.weight", "vocab_projector.weight"


def config(**changes: Any) -> Config:
    return Config.from_dict({**SIZES, "num_labels": LABELS, **changes})


def outputs(model: Model) -> dict[str, Any]:
    """Everything that a dense call returns, by name."""
    ids = [IDS] if model.architecture == "for_multiple_choice" else IDS
    out = vars(model(ids, output_hidden_states=True, output_attentions=True))
    arrays = {name: x for name, x in out.items() if isinstance(x, np.ndarray)}
    for name in ("hidden_states", "attentions"):
        arrays |= {f"{name}.{i}": x for i, x in enumerate(out[name])}
    return arrays


def message(error: type[Exception], *arguments: Any, **options: Any) -> str:
    with pytest.raises(error) as caught:
        npbert.load(*arguments, **options)
    return str(caught.value)


def test_the_architecture_may_be_asked_for_by_either_of_its_names(tmp_path: Path) -> None:
    folder = write(tmp_path, drawn(CLASSES), settings(CLASSES, architectures=None))
    for name in (CLASSES, "DistilBertForSequenceClassification"):
        assert npbert.load(folder, name).architecture == CLASSES
        assert npbert.init(config(), name).architecture == CLASSES
    assert npbert.load(str(folder), BASE).architecture == BASE


@pytest.mark.parametrize("said", [None, [], "DistilBertModel", ["DistilBertModel"] * 2, [7]])
def test_an_architecture_that_config_json_does_not_say_must_be_given(
    tmp_path: Path, said: object
) -> None:
    write(tmp_path, drawn(BASE), settings(BASE, architectures=said))
    assert message(ConfigError, tmp_path) == (
        f"{tmp_path / CONFIG}: architectures is {said!r}, expected a list of one name; pass "
        f"architecture=, one of {', '.join(ARCHITECTURES)}"
    )


def test_an_unknown_architecture_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, drawn(BASE), settings(BASE, architectures=["DistilBertForMasked"]))
    assert message(ConfigError, tmp_path) == (
        f"{tmp_path / CONFIG}: architectures is ['DistilBertForMasked'], which npbert does not "
        f"know; pass architecture=, one of {', '.join(ARCHITECTURES)}"
    )
    with pytest.raises(ConfigError) as caught:
        npbert.init(config(), "zzz")
    known = ", ".join([*ARCHITECTURES, *(class_name("distilbert", name) for name in ARCHITECTURES)])
    assert str(caught.value) == f"unknown architecture 'zzz'; npbert knows {known}"


def test_what_the_caller_got_wrong_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    write(tmp_path, drawn(BASE), settings(BASE))
    expected = "unknown architecture 'for_question'; did you mean 'for_question_answering'?"
    assert message(ConfigError, tmp_path, "for_question") == expected
    expected = "unknown field 'num_label'; did you mean 'num_labels'?"
    assert message(ConfigError, tmp_path, config={"num_label": 3}) == expected


def test_a_folder_that_is_none_or_holds_no_config_json_is_named(tmp_path: Path) -> None:
    expected = "expected a folder with config.json and model.safetensors"
    nowhere, file = tmp_path / "nowhere", tmp_path / "file"
    file.touch()
    assert message(CheckpointError, nowhere) == f"{nowhere}: no such folder, {expected}"
    assert message(CheckpointError, file) == f"{file}: is a file, {expected}"
    assert message(CheckpointError, tmp_path) == (
        f"{tmp_path}: has no config.json, which says what the weights are; it holds file; a "
        "model's folder is what save_pretrained of transformers writes"
    )


def test_faults_of_config_json_are_named_with_its_path(tmp_path: Path) -> None:
    write(tmp_path, drawn(BASE), settings(BASE, n_heads=5, activation="prelu"))
    assert message(ConfigError, tmp_path) == (
        f"{tmp_path / CONFIG}: num_attention_heads is 5, which does not divide hidden_size, 24, "
        "evenly; activation 'prelu' has learned parameters, which no DistilBERT checkpoint carries"
    )


@pytest.mark.parametrize("dtype", ["float16", "int32", "nonsense", 7, None])
def test_only_two_dtypes_are_computed_in(tmp_path: Path, dtype: Any) -> None:
    expected = f"dtype is {dtype!r}, expected 'float32' or 'float64'"
    assert message(InputError, tmp_path, dtype=dtype) == expected


@pytest.mark.parametrize("dtype", ["float64", "f8", np.float64, np.dtype("float64")])
def test_a_dtype_may_be_said_in_every_way_that_numpy_knows(dtype: Any) -> None:
    assert npbert.init(config(), BASE, dtype=dtype).dtype == np.float64


def test_fields_are_overridden_by_the_caller(tmp_path: Path) -> None:
    write(tmp_path, drawn(BASE), settings(BASE))
    plain = outputs(npbert.load(tmp_path))
    model = npbert.load(tmp_path, config={"activation": "relu", "dim": 24, "id2label": {"0": "x"}})
    assert (model.config.activation, model.config.num_labels) == ("relu", 1)
    assert not np.array_equal(outputs(model)["hidden_state"], plain["hidden_state"])
    assert message(CheckpointError, tmp_path, config={"hidden_dim": 41}).startswith(
        f"{tmp_path / WEIGHTS}: transformer.layer.0.ffn.lin1.weight has shape (40, 24), "
        "expected (F, D) = (41, 24)"
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_seed_gives_one_model_in_either_dtype(architecture: str) -> None:
    single, again, double, other = (
        npbert.init(config(), architecture, seed=seed, dtype=dtype).parameters
        for seed, dtype in ((3, "float32"), (3, "float32"), (3, "float64"), (4, "float32"))
    )
    assert same(single, again)
    assert same(single, {name: x.astype(np.float32) for name, x in double.items()})
    assert not np.array_equal(single[WORDS], other[WORDS])


def test_fresh_weights_are_normal_with_norms_of_1_and_biases_of_0() -> None:
    parameters = npbert.init(config(initializer_range=0.5, vocab_size=9_000), MASKED).parameters
    for name, x in parameters.items():
        if x.ndim == 2:
            error = 0.5 / math.sqrt(x.size)
            assert abs(x.mean()) < 4 * error, name
            assert abs(x.std() - 0.5) < 4 * error, name
        else:
            assert (x == name.endswith("weight")).all(), name
    words = parameters[WORDS].ravel()
    assert abs((words**4).mean() / 0.5**4 - 3) < 0.1  # the kurtosis of a normal variable


def test_a_fresh_projector_is_the_words_unless_they_are_untied() -> None:
    tied = npbert.init(config(), MASKED).parameters
    assert tied[PROJECTOR] is tied[WORDS]
    apart = npbert.init(config(tie_word_embeddings=False), MASKED).parameters
    assert not np.array_equal(apart[PROJECTOR], apart[WORDS])


def test_cross_attention_is_warned_of_once_and_changes_no_number(tmp_path: Path) -> None:
    tensors = drawn(CLASSES)
    plain = npbert.load(write(tmp_path / "plain", tensors, settings(CLASSES)))
    folder = write(tmp_path / "crossed", tensors, settings(CLASSES, use_cross_attention=True))
    expected = "use_cross_attention is true; DistilBERT has no cross-attention, and ignores it"
    crossed = config(use_cross_attention=True)
    for make in (lambda: npbert.init(crossed, BASE), lambda: npbert.load(folder)):
        with pytest.warns(NpbertWarning) as caught:
            model = make()
        assert [(str(w.message), w.filename) for w in caught] == [(expected, __file__)]
    assert same(outputs(model), outputs(plain))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_model_gives_the_same_bits_when_loaded(
    tmp_path: Path, architecture: str, dtype: str
) -> None:
    write(tmp_path / "drawn", prefixed(drawn(architecture)), settings(architecture))
    fresh = npbert.init(config(sinusoidal_pos_embds=True), architecture, dtype=dtype)
    for model in (npbert.load(tmp_path / "drawn", dtype=dtype), fresh):
        model.save(tmp_path / "saved")
        again = npbert.load(tmp_path / "saved", dtype=dtype)
        assert again.architecture == architecture
        assert same(again.parameters, model.parameters)
        assert same(outputs(again), outputs(model))
        assert again.config.sizes() | {"C": 0} == model.config.sizes() | {"C": 0}


@pytest.mark.parametrize(
    ("made", "asked", "changes"),
    [
        (CLASSES, BASE, {}),  # a base model with a pooler
        (MASKED, MASKED, {"tie_word_embeddings": False}),
        (MASKED, MASKED, {"pruned_heads": {"1": [0, 2]}}),
    ],
)
def test_pooling_untied_and_pruned_models_come_back_the_same(
    tmp_path: Path, made: str, asked: str, changes: dict[str, Any]
) -> None:
    model = npbert.load(write(tmp_path, drawn(made, **changes), settings(made, **changes)), asked)
    model.save(tmp_path / "saved")
    again = npbert.load(tmp_path / "saved")
    assert same(again.parameters, model.parameters)
    assert same(outputs(again), outputs(model))


@pytest.mark.parametrize("architecture", [BASE, MASKED])
def test_a_model_may_be_saved_where_it_is_mapped(tmp_path: Path, architecture: str) -> None:
    write(tmp_path, prefixed(drawn(architecture)), settings(architecture))
    model = npbert.load(tmp_path)
    before = outputs(model)
    model.save(tmp_path)
    npbert.init(config(), architecture, seed=9).save(tmp_path)
    assert same(outputs(model), before)
    assert sorted(p.name for p in tmp_path.iterdir()) == [CONFIG, WEIGHTS]


TRUNK = [f"embeddings.{name}" for name in (
    "word_embeddings.weight", "position_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias",
)] + [
    f"transformer.layer.{i}.{name}.{kind}"
    for i in range(2)
    for name in (
        "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
        "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm",
    )
    for kind in ("weight", "bias")
]  # fmt: skip
HEADS = {
    BASE: "",
    MASKED: "vocab_transform vocab_layer_norm vocab_projector",
    CLASSES: "pre_classifier classifier",
    "for_token_classification": "classifier",
    "for_question_answering": "qa_outputs",
    "for_multiple_choice": "pre_classifier classifier",
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_folder_is_as_transformers_writes_it(tmp_path: Path, architecture: str) -> None:
    npbert.init(config(), architecture).save(tmp_path)
    prefix = "" if architecture == BASE else "distilbert."
    heads = [
        f"{name}.{kind}" for name in HEADS[architecture].split() for kind in ("weight", "bias")
    ]
    with safe_open(tmp_path / WEIGHTS, "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert sorted(file.keys()) == sorted({prefix + n for n in TRUNK} | {*heads} - {PROJECTOR})
    said = json.loads((tmp_path / CONFIG).read_text())
    assert said["architectures"] == [class_name("distilbert", architecture)]
    assert {**SIZES, "model_type": "distilbert"}.items() <= said.items()


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_the_dtype_that_config_json_says_is_that_of_the_weights(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, drawn(BASE), settings(BASE, **{name: "float16"}))
    npbert.load(folder).save(tmp_path / "saved")
    said = json.loads((tmp_path / "saved" / CONFIG).read_text())
    assert {said.get("dtype", "float32"), said.get("torch_dtype", "float32")} == {"float32"}


def test_a_saved_question_answerer_has_the_labels_that_transformers_wants(tmp_path: Path) -> None:
    npbert.init(config(), "for_question_answering").save(tmp_path)
    said = json.loads((tmp_path / CONFIG).read_text())
    assert len(said.get("id2label", "01")) == said.get("num_labels", 2) == 2


def test_who_may_read_config_json_may_read_all_that_was_saved(tmp_path: Path) -> None:
    healthy_tokenizer().save(str(write(tmp_path, drawn(BASE), settings(BASE)) / "tokenizer.json"))
    npbert.load(tmp_path).save(tmp_path / "saved")
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in (tmp_path / "saved").iterdir()}
    assert modes == dict.fromkeys(modes, modes[CONFIG])


def test_a_tokenizer_is_saved_and_read_again(tmp_path: Path) -> None:
    write(tmp_path, drawn(BASE), settings(BASE))
    assert npbert.load(tmp_path).tokenizer is None
    healthy_tokenizer().save(str(tmp_path / "tokenizer.json"))
    model = npbert.load(tmp_path)
    model.save(tmp_path / "saved")
    before, after = model.tokenizer, npbert.load(tmp_path / "saved").tokenizer
    assert after.encode("a bad cab") == before.encode("a bad cab")


@pytest.mark.parametrize(
    ("architecture", "tensor", "expected"),
    [
        (BASE, "embeddings.LayerNorm.bias", "embeddings.LayerNorm"),
        (BASE, "transformer.layer.1.ffn.lin2.weight", "transformer.layer.1.ffn.lin2"),
        (CLASSES, "classifier.bias", "classifier"),
        ("for_question_answering", "qa_outputs.bias", "qa_outputs"),
    ],
)
def test_a_weight_that_is_nan_is_an_error_of_the_call_that_names_the_place(
    tmp_path: Path, architecture: str, tensor: str, expected: str
) -> None:
    tensors = drawn(architecture)
    tensors[tensor][1] = np.nan
    model = npbert.load(write(tmp_path, tensors, settings(architecture)))
    for call in (lambda: model(IDS), lambda: model.packed(list(IDS))):
        with pytest.raises(CheckpointError) as caught:
            call()
        words = str(caught.value).split(", ")
        assert words[0] == f"{expected} is the first activation that is not finite"
        assert words[2] == (
            "nan in column 0: either weights are not finite (npbert info --check tells)"
        )
