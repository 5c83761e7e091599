"""BERT: what its files are called, what transformers wrote in seven years, and token types."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_cases import GOLDEN
from safetensors.numpy import load_file, save_file

import npbert
from npbert import CheckpointError, Config, ConfigError, InputError
from npbert.cli import main
from npbert.families import class_name, list_architectures

BERT = list_architectures("bert")
SMALL: dict[str, Any] = {
    "family": "bert", "vocab_size": 29, "max_positions": 13, "hidden_size": 12, "num_blocks": 2,
    "num_attention_heads": 3, "intermediate_size": 20, "type_vocab_size": 3,
    "layer_norm_epsilon": 1e-5,
}  # fmt: skip
IDS = [[2, 7, 11, 3], [5, 3, 0, 1]]
TYPES = [[0, 1, 2, 2], [1, 1, 0, 0]]


def ids_for(model: npbert.Model, given: list[list[int]] = IDS) -> Any:
    """Return ids, or types, in the shape that an architecture takes."""
    array = np.array(given)
    return np.stack([array, array[::-1]], 1) if model.row.has_choices else array


def outputs(model: npbert.Model, **more: Any) -> dict[str, Any]:
    out = model(ids_for(model), token_type_ids=ids_for(model, TYPES), **more)
    return {name: x for name, x in vars(out).items() if isinstance(x, np.ndarray)}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


def copied(name: str, into: Path, rename: Any = None, **changes: Any) -> Path:
    """Copy a recorded model, with other names of tensors and other settings; None drops one."""
    shutil.copytree(GOLDEN / name, into, ignore=lambda _, names: [
        n for n in names if n.endswith(".safetensors") and n != "model.safetensors"])  # fmt: skip
    if rename is not None:
        tensors = load_file(into / "model.safetensors")
        save_file({rename(n): x for n, x in tensors.items()}, into / "model.safetensors")
    said = json.loads((into / "config.json").read_bytes()) | changes
    said = {name: value for name, value in said.items() if value is not None}
    (into / "config.json").write_text(json.dumps(said))
    return into


@pytest.mark.parametrize("architecture", BERT)
def test_a_saved_model_has_transformers_names_and_gives_the_same_bits(
    architecture: str, tmp_path: Path
) -> None:
    folder = GOLDEN / class_name("bert", architecture)
    model = npbert.load(folder)
    model.save(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == (
        load_file(folder / "model.safetensors").keys()
    )
    assert same(outputs(npbert.load(tmp_path)), outputs(model))
    said = json.loads((tmp_path / "config.json").read_bytes())
    was = json.loads((folder / "config.json").read_bytes())
    assert said["architectures"] == was["architectures"]
    for name in ("model_type", "layer_norm_eps", "type_vocab_size", "hidden_size", "hidden_act"):
        assert said[name] == was[name]


@pytest.mark.parametrize("architecture", BERT)
def test_a_fresh_model_of_every_architecture_computes_and_survives_a_folder(
    architecture: str, tmp_path: Path
) -> None:
    model = npbert.init(Config(**SMALL, num_labels=4), architecture, seed=3)
    model.save(tmp_path)
    again = npbert.load(tmp_path)
    assert (again.family, again.architecture) == ("bert", architecture)
    assert again.config == npbert.load(tmp_path).config
    assert same(outputs(model), outputs(again))


RENAMES: dict[str, Any] = {
    "in a wrapper": lambda n: f"module.{n}",
    "as it is": lambda n: n,
    "gamma and beta": lambda n: n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    ),
    "the decoder's own bias": lambda n: n.replace(
        "cls.predictions.bias", "cls.predictions.decoder.bias"
    ),
}


@pytest.mark.parametrize("how", RENAMES)
def test_names_of_other_years_are_the_same_tensors(how: str, tmp_path: Path) -> None:
    plain = outputs(npbert.load(GOLDEN / "BertForMaskedLM"))
    assert same(
        outputs(npbert.load(copied("BertForMaskedLM", tmp_path / "m", RENAMES[how]))), plain
    )


def with_tensors(folder: Path, **more: Any) -> Path:
    path = folder / "model.safetensors"
    save_file(load_file(path) | more, path)
    return folder


def test_a_file_may_have_both_names_of_one_bias_and_a_buffer_of_positions(tmp_path: Path) -> None:
    folder = copied("BertForMaskedLM", tmp_path / "m")
    bias = load_file(folder / "model.safetensors")["cls.predictions.bias"]
    more = {
        "cls.predictions.decoder.bias": bias.copy(),
        "bert.embeddings.position_ids": np.arange(31)[None],
    }
    model = npbert.load(with_tensors(folder, **more))
    assert same(outputs(model), outputs(npbert.load(GOLDEN / "BertForMaskedLM")))
    assert model.load_report is not None
    assert model.load_report.ignored == ("bert.embeddings.position_ids",)
    with_tensors(folder, **{"cls.predictions.decoder.bias": bias + 1})
    with pytest.raises(CheckpointError, match="are two names of one tensor"):
        npbert.load(folder)


def test_a_config_of_2019_is_known_by_its_architecture_or_by_its_fields(tmp_path: Path) -> None:
    """It has no model_type, no type of position embeddings, and perhaps no architectures."""
    plain = outputs(npbert.load(GOLDEN / "BertForMaskedLM"))
    old = {"model_type": None, "position_embedding_type": None, "transformers_version": None}
    named = copied("BertForMaskedLM", tmp_path / "a", **old)
    assert same(outputs(npbert.load(named)), plain)
    unnamed = copied("BertForMaskedLM", tmp_path / "b", **old, architectures=None)
    assert same(outputs(npbert.load(unnamed, "BertForMaskedLM")), plain)


def test_default_labels_of_another_number_than_num_labels_are_none(tmp_path: Path) -> None:
    """Until 2020 transformers wrote two, however many classes there were; names of people count."""
    five = {"num_labels": 5, "label2id": None}
    two = {"0": "LABEL_0", "1": "LABEL_1"}
    folder = copied("BertForSequenceClassification", tmp_path / "a", **five, id2label=two)
    model = npbert.load(folder)
    assert (model.config.num_labels, model.config.label(4)) == (5, "LABEL_4")
    plain = npbert.load(GOLDEN / "BertForSequenceClassification")
    assert plain.config.num_labels == 5
    assert same(outputs(model), outputs(plain))
    for i, names in enumerate(({"0": "bad", "1": "good"}, {"0": "LABEL_1", "1": "LABEL_0"})):
        spoilt = copied("BertForSequenceClassification", tmp_path / f"{i}", **five, id2label=names)
        with pytest.raises(ConfigError, match="id_to_label has 2 names, but num_labels is 5"):
            npbert.load(spoilt)


def test_reports_and_faults_say_the_names_that_the_file_has(tmp_path: Path) -> None:
    model = npbert.load(GOLDEN / "BertForPreTraining", "for_next_sentence_prediction")
    assert model.load_report is not None
    assert model.load_report.renamed == {}
    assert "cls.predictions.transform.dense.weight" in model.load_report.unused
    old = copied("BertForMaskedLM", tmp_path / "old", RENAMES["gamma and beta"])
    report = npbert.load(old).load_report
    assert report is not None
    gamma = "bert.encoder.layer.1.attention.output.LayerNorm.gamma"
    assert report.renamed[gamma] == "encoder.layer.1.attention.output.LayerNorm.weight"
    with pytest.raises(CheckpointError, match=r"missing: pooler\.dense\.weight, "):
        npbert.load(old, "for_next_sentence_prediction")


def test_a_folder_that_does_not_say_its_architecture_is_shown_and_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {"model_type": None, "architectures": None}
    folder = copied("BertForMaskedLM", tmp_path / "m", **old)
    assert main(["info", str(folder)]) == 3
    assert "pass --architecture, one of base, " in capsys.readouterr().err
    assert main(["info", str(folder), "--architecture", "BertForMaskedLM", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["family"], said["architecture"]) == ("bert", "for_masked_language_modeling")
    assert main(["convert", str(folder), "--architecture", "base"]) == 2
    assert "there is nothing to convert" in capsys.readouterr().err


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"is_decoder": True}, "is_decoder is True, expected False"),
    ({"add_cross_attention": True}, "add_cross_attention is True, expected False"),
    ({"position_embedding_type": "relative_key"},
     "position_embedding_type is 'relative_key', expected 'absolute'"),
    ({"model_type": "roberta"},
     "model_type is 'roberta', expected 'distilbert' or 'bert': npbert runs no other family"),
    ({"model_type": None, "architectures": ["RobertaModel"]},
     "architectures is ['RobertaModel'], and there is no model_type, expected 'distilbert' or "),
    ({"layer_norm_eps": 0}, "layer_norm_epsilon (layer_norm_eps in config.json) is 0, expected a "),
    ({"layer_norm_eps": "1e-12"}, "layer_norm_epsilon (layer_norm_eps in config.json) is '1e-12'"),
    ({"type_vocab_size": 0}, "type_vocab_size is 0, expected a whole number from 1 to 2**31 - 1"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=[str(c) for c, _ in REFUSED])
def test_what_is_not_run_is_refused_by_name(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        npbert.load(copied("BertModel", tmp_path / "m", **changes))
    assert str(error.value).startswith(f"{tmp_path / 'm' / 'config.json'}: {said}")


def test_the_weights_of_another_family_are_told_by_its_name(tmp_path: Path) -> None:
    roberta = copied("BertForMaskedLM", tmp_path / "r", lambda n: n.replace("bert.", "roberta."))
    with pytest.raises(CheckpointError) as error:
        npbert.load(roberta)
    assert str(error.value).endswith(
        "this is a RoBERTa (roberta.embeddings.LayerNorm.bias); npbert runs distilbert, bert"
    )
    distilbert = copied("BertForMaskedLM", tmp_path / "d")
    shutil.copy(GOLDEN / "DistilBertForMaskedLM" / "model.safetensors", distilbert)
    with pytest.raises(CheckpointError) as error:
        npbert.load(distilbert)
    assert str(error.value).endswith("but config.json says bert; model_type should be distilbert")


def test_no_distilbert_has_an_architecture_of_bert() -> None:
    with pytest.raises(ConfigError, match="unknown architecture 'for_next_sentence_prediction'"):
        npbert.init(Config(), "for_next_sentence_prediction")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([[0, 1, 2, 3], [0, 0, 0, 0]],
         r"^token_type_ids has 3 at \(0, 3\), expected 0 to 2 \(type_vocab_size is 3\)$"),
        ([[0, -1, 0, 0], [0, 0, 0, 0]], r"^token_type_ids has -1 at \(0, 1\), expected 0 to 2"),
        ([0, 0, 0, 0], r"^token_type_ids has shape \(4,\), but input_ids has \(2, 4\)$"),
        ([[0.5] * 4] * 2, "^token_type_ids has dtype float64, expected whole numbers$"),
    ],
)  # fmt: skip
def test_token_types_are_checked(given: Any, said: str) -> None:
    model = npbert.init(Config(**SMALL), "base")
    with pytest.raises(InputError, match=said):
        model(IDS, token_type_ids=given)
    with pytest.raises(InputError, match=r"^token types of sequence 0 has "):
        model.packed(IDS, token_type_ids=[given[0]] * 2)


def test_a_family_without_token_types_takes_none() -> None:
    model = npbert.init(Config(num_blocks=1), "base")
    said = "^token_type_ids was given, but the model has no token types; leave it out$"
    with pytest.raises(InputError, match=said):
        model([[1]], token_type_ids=[[0]])


@pytest.mark.parametrize("architecture", BERT)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_packed_lists_take_their_token_types_along(architecture: str, dtype: str) -> None:
    model = npbert.load(GOLDEN / class_name("bert", architecture), dtype=dtype)
    ids, types = ids_for(model), ids_for(model, TYPES)
    dense = model(ids, token_type_ids=types)
    packed = model.packed(ids.tolist(), token_type_ids=types.tolist())
    if dense.start_logits is not None:
        expected = np.stack([dense.start_logits, dense.end_logits], -1)
    else:
        expected = dense.hidden_state if dense.logits is None else dense.logits
    np.testing.assert_allclose(
        np.array(packed), expected, atol=1e-12 if dtype == "float64" else 1e-4
    )
    untyped = model.packed(ids.tolist())
    assert np.abs(np.array(untyped) - np.array(packed)).max() > 1e-3
    with pytest.raises(InputError, match=r"^token_type_ids has \d lists for \d sequences$"):
        model.packed(ids.tolist(), token_type_ids=types[:1].tolist())


def test_a_base_model_without_a_pooler_has_no_pooled_state(tmp_path: Path) -> None:
    folder = copied("BertModel", tmp_path / "m")
    path = folder / "model.safetensors"
    save_file({n: x for n, x in load_file(path).items() if not n.startswith("pooler")}, path)
    out = npbert.load(folder)(IDS)
    assert out.pooled_state is None
    assert out.hidden_state is not None


def test_dropout_draws_behind_attention_too() -> None:
    """Four places in a block: weights, what attention adds, what the ffn adds; and the ends."""
    drawn: list[tuple[int, ...]] = []

    class Counting:
        def random(self, shape: tuple[int, ...]) -> Any:
            drawn.append(tuple(shape))
            return np.ones(shape)

    model = npbert.init(Config(**SMALL, num_labels=4), "for_sequence_classification")
    model([[1, 2, 3]], dropout=Counting())  # type: ignore[arg-type]
    block = [(3, 3, 3), (12, 3), (12, 3)]
    assert drawn == [(12, 3), *block, *block, (12, 1)]


def test_a_config_keeps_what_it_does_not_know_and_says_its_own_fields() -> None:
    said = json.loads((GOLDEN / "BertModel" / "config.json").read_bytes()) | {"mine": [1]}
    config = Config.from_dict(said)
    assert (config.family, config.layer_norm_epsilon, config.type_vocab_size) == ("bert", 4e-3, 3)
    assert {name: config.to_dict()[name] for name in ("mine", "layer_norm_eps", "hidden_act")} == {
        "mine": [1], "layer_norm_eps": 4e-3, "hidden_act": "gelu",
    }  # fmt: skip
    assert Config.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="unknown field 'sinusoidal_pos_embds'"):
        Config(family="bert", sinusoidal_pos_embds=True)
