"""The oracle speaks BERT's own names to who ports a BERT, and understands what a port writes."""

import json
from typing import Any

import numpy as np
import pytest
from golden_cases import CASES, GOLDEN, name_of, read
from safetensors import safe_open

import npbert
from npbert import CheckpointError, InputError
from npbert.cli import main
from npbert.families import class_name, list_architectures, own_module
from npbert.oracle.dialects import canonical_names, detect_family, translate_text
from npbert.oracle.port_names import MAPS

IDS, TYPES = [[5, 17, 3, 30], [7, 6, 3, 0]], [[0, 0, 1, 2], [0, 1, 1, 0]]
MASK = [[1] * 4, [1] * 3 + [0]]
BERT = [path for path in CASES if path.parent.name.startswith("Bert")]


@pytest.fixture(scope="module")
def model() -> npbert.Model:
    return npbert.load(GOLDEN / "BertForSequenceClassification", dtype="float64")


@pytest.fixture(scope="module")
def traced(model: npbert.Model) -> npbert.Trace:
    return npbert.trace(model, IDS, MASK, token_type_ids=TYPES, noise=True)


@pytest.mark.parametrize("path", BERT, ids=name_of)
def test_a_trace_has_the_names_under_which_transformers_was_recorded(path: Any) -> None:
    case = read(path)
    with safe_open(path, "numpy") as file:
        recorded = set(file.keys())
    model = npbert.load(case.folder, config=case.config, dtype="float64")
    made = npbert.trace(model, **case.given)
    assert recorded - set(made) == set()
    # All else stands for no module of its own: classifiers are recorded as logits.
    more = set(made.activations) - recorded
    assert more <= {"logits", "classifier", "qa_outputs", "start_logits", "end_logits",
                    "cls.predictions.decoder", "cls.seq_relationship"}  # fmt: skip


def test_a_trace_and_all_that_it_says_of_itself_is_told_in_berts_names(
    traced: npbert.Trace,
) -> None:
    names = list(traced.activations)
    block = [n.removeprefix("encoder.layer.0.") for n in names if ".layer.0." in n]
    assert block == [
        "attention.self.query", "attention.self.key", "attention.self.value",
        "attention.self.scores", "attention.self.masked_scores", "attention.self.weights",
        "attention.self.context", "attention.output.dense", "attention.output.residual",
        "attention.output.LayerNorm", "intermediate.dense", "intermediate.intermediate_act_fn",
        "output.dense", "output.residual", "output.LayerNorm",
    ]  # fmt: skip
    assert names[:5] == [
        f"embeddings.{n}"
        for n in ("word_embeddings", "position_embeddings", "token_type_embeddings", "sum",
                  "LayerNorm")
    ]  # fmt: skip
    assert names[-4:] == ["pooler.dense", "pooler.activation", "classifier", "logits"]
    assert traced.about["order"] == names
    assert set(traced.about["noise"]) == set(names)
    assert not any(name.startswith("transformer.") for name in names)


def test_a_pattern_of_names_is_one_of_berts_names(model: npbert.Model) -> None:
    some = npbert.trace(model, IDS, only="encoder.*.output.dense")
    assert list(some.activations) == [
        f"encoder.layer.{i}.{part}output.dense" for i in range(3) for part in ("attention.", "")
    ]
    split = npbert.trace(model, IDS, only="*.query", split_heads=True)
    assert split["encoder.layer.0.attention.self.query"].ndim == 4


def in_canonical_names(traced: npbert.Trace) -> dict[str, Any]:
    return {canonical_names([n], {}, "bert")[n]: x for n, x in traced.items()}


PREFIXES = ("", "bert.", "model.bert.", "module.")
HOOKS = {
    "encoder.layer.1": "encoder.layer.1.output.LayerNorm",
    "encoder.layer.1.output": "encoder.layer.1.output.LayerNorm",
    "encoder.layer.1.attention": "encoder.layer.1.attention.output.LayerNorm",
    "encoder.layer.1.attention.output": "encoder.layer.1.attention.output.LayerNorm",
    "encoder.layer.1.attention.self": "encoder.layer.1.attention.self.context",
    "encoder.layer.1.intermediate": "encoder.layer.1.intermediate.intermediate_act_fn",
    "pooler": "pooler.activation",
    "pooler_output": "pooler.activation",
    "pooled_state": "pooler.activation",
    "embeddings": "embeddings.LayerNorm",
    "encoder": "encoder.layer.2.output.LayerNorm",
    "last_hidden_state": "encoder.layer.2.output.LayerNorm",
    "hidden_states.0": "embeddings.LayerNorm",
    "hidden_states.2": "encoder.layer.1.output.LayerNorm",
    "attentions.2": "encoder.layer.2.attention.self.weights",
    # of canonical names too
    "transformer.layer.1": "encoder.layer.1.output.LayerNorm",
    "transformer.layer.1.ffn.lin2": "encoder.layer.1.output.dense",
}


@pytest.mark.parametrize(
    ("prefix", "hook", "step"),
    [(PREFIXES[i % 4], hook, step) for i, (hook, step) in enumerate(HOOKS.items())],
)
def test_a_dump_may_have_the_names_of_hooks_and_of_outputs(
    prefix: str, hook: str, step: str, model: npbert.Model, traced: npbert.Trace
) -> None:
    found = npbert.compare(model, {**traced.given, prefix + hook: traced[step] + 1})
    assert [each.name for each in found.steps] == [step]
    assert found.notes == []
    assert found.first is found.steps[0]
    assert npbert.compare(traced, {prefix + hook: traced[step]}).same


def test_a_dump_may_have_npberts_canonical_names_too(
    model: npbert.Model, traced: npbert.Trace
) -> None:
    found = npbert.compare(model, in_canonical_names(traced))
    assert found.same
    assert [each.name for each in found.steps] == list(traced.activations)
    assert npbert.diagnose(model, in_canonical_names(traced)).findings == []


def test_what_hooks_of_all_modules_hear_is_one_value_a_step(
    model: npbert.Model, traced: npbert.Trace
) -> None:
    """A norm is heard as itself, and as the result of one or two modules around it."""
    heard = {f"bert.{n}": x for n, x in traced.activations.items() if n.startswith("encoder")}
    for hook, step in HOOKS.items():
        if "transformer" not in hook and "_" not in hook:
            heard[f"bert.{hook}"] = traced[step] + 1  # the step's own name counts
    heard["bert.embeddings.LayerNorm"] = traced["embeddings.LayerNorm"]
    heard["bert.pooler.activation"] = traced["pooler.activation"]
    heard["bert.encoder"] = traced["encoder.layer.2.output.LayerNorm"]
    assert npbert.compare(model, {**traced.given, **heard}).same
    names = ["encoder.layer.0", "encoder.layer.0.output"]  # none has the step's own
    assert canonical_names(names, MAPS["pytorch"], "bert") == {
        "encoder.layer.0.output": "transformer.layer.0.output_layer_norm"
    }
    with pytest.raises(InputError, match="are both"):
        canonical_names(["encoder.layer.0", "bert.encoder.layer.0"], {}, "bert")


def test_a_float32_port_by_pytorch_is_the_same_under_all_names_that_hooks_hear(
    model: npbert.Model,
) -> None:
    path = GOLDEN / "ports" / "bert_pytorch.safetensors"
    found = npbert.compare(model, path)
    assert found.same
    assert len(found.steps) > 30
    assert found.notes == ["embeddings.position_embeddings: one row stood for the whole batch"]
    assert npbert.diagnose(model, path).findings == []
    wrong = npbert.diagnose(model, GOLDEN / "ports" / "bert_types_ignored.npz").findings
    assert [each.causes for each in wrong] == [("the token types are ignored: all are 0",)]


def test_a_map_may_lead_to_berts_names_and_to_canonical_ones() -> None:
    table = {"a.{n}": "encoder.layer.{n}.output.dense", "b.{n}": "transformer.layer.{n}.ffn.lin1"}
    assert canonical_names(["a.1", "b.2"], table, "bert") == {
        "a.1": "transformer.layer.1.ffn.lin2", "b.2": "transformer.layer.2.ffn.lin1",
    }  # fmt: skip
    bumblebee = canonical_names(
        ["embedder.token_type_embedding", "encoder.blocks.0.output_norm"], MAPS["bumblebee"], "bert"
    )
    assert set(bumblebee.values()) == {
        "embeddings.token_type_embeddings", "transformer.layer.0.output_layer_norm",
    }  # fmt: skip


@pytest.mark.parametrize("architecture", list_architectures("bert"))
def test_the_family_of_a_trace_is_told_from_its_names(architecture: str) -> None:
    model = npbert.load(GOLDEN / class_name("bert", architecture), dtype="float64")
    ids = np.array(IDS)[None] if model.row.has_choices else np.array(IDS)
    assert detect_family(npbert.trace(model, ids)) == "bert"
    assert detect_family(["transformer.layer.0.ffn.lin1", "logits"]) == "distilbert"


def test_two_traces_are_compared_in_berts_names(traced: npbert.Trace) -> None:
    name = "encoder.layer.1.intermediate.dense"
    found = npbert.compare(traced, {**traced, name: traced[name] * 1.5})
    assert [each.name for each in found.steps if each.off] == [name]


def test_tables_notes_findings_and_errors_speak_berts_names(
    model: npbert.Model, traced: npbert.Trace, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "encoder.layer.1.attention.output.dense"
    wrong = traced[name] - model.parameters["transformer.layer.1.attention.out_lin.bias"]
    folder = str(GOLDEN / "BertForSequenceClassification")
    names = list(traced)
    told = {n: traced[n] for n in names[: names.index(name)]}  # a port gets no further
    npbert.Trace({**told, name: wrong}).save(tmp_path / "dump")
    assert main(["compare", folder, str(tmp_path / "dump")]) == 1
    assert f"first wrong step: {name}" in capsys.readouterr().out
    assert main(["diagnose", folder, str(tmp_path / "dump")]) == 1
    assert f"{name}: attention.output.dense: bias missing; explains" in capsys.readouterr().out
    assert main(["diagnose", folder, str(tmp_path / "dump"), "--json"]) == 1
    said = capsys.readouterr().out
    assert json.loads(said)["findings"][0]["step"] == name
    assert not any(word in said for word in ("transformer.layer", "out_lin", "pre_classifier"))
    key = "encoder.layer.0.attention.self.key"
    turned = npbert.compare(model, {**traced.given, key: traced[key].transpose(0, 2, 1)})
    assert turned.notes == [f"{key}: length and features had changed places"]
    with pytest.raises(InputError, match=rf"^{key} has shape \(2, 3\), expected \(2, 4, "):
        npbert.diagnose(model, {**traced.given, key: np.zeros((2, 3))})
    with pytest.raises(InputError, match=r"^pooler\.activation has shape \(7,\), expected \(2, "):
        npbert.diagnose(model, {**traced.given, "pooler": np.zeros(7)})


def test_where_numbers_are_first_not_finite_is_told_in_berts_names() -> None:
    model = npbert.init(npbert.load(GOLDEN / "BertModel").config, "base")
    model.parameters["transformer.layer.1.ffn.lin2.weight"][0, 0] = np.nan
    said = r"^encoder\.layer\.1\.output\.dense is the first activation that is not finite"
    with pytest.raises(CheckpointError, match=said):
        model(IDS)


TEXTS = {
    "pooled": "pooler.activation",
    "pooled: rows and columns had changed places":
        "pooler.activation: rows and columns had changed places",
    "the second token is pooled, not the first": "the second token is pooled, not the first",
    "the weights of q_lin and k_lin have changed places":
        "the weights of attention.self.query and attention.self.key have changed places",
    "sa_layer_norm: epsilon 1e-05": "attention.output.LayerNorm: epsilon 1e-05",
    "ffn.lin1 has the weights of block 2": "intermediate.dense has the weights of block 2",
    "vocab_projector: bias missing": "cls.predictions.decoder: bias missing",
    "the classifier reads the first token without pre_classifier":
        "the classifier reads the first token without pooler.dense",
    "transformer.layer.11.ffn.lin2 is off by 0.5.": "encoder.layer.11.output.dense is off by 0.5.",
    "input_ids has shape (2, 3)": "input_ids has shape (2, 3)",
}  # fmt: skip


@pytest.mark.parametrize(("text", "told"), TEXTS.items(), ids=lambda text: text[:30])
def test_a_text_names_steps_as_its_family_does(text: str, told: str) -> None:
    assert translate_text("bert", text) == told
    assert translate_text("distilbert", text) == text


def test_every_step_has_one_name_in_a_family() -> None:
    for architecture in list_architectures("bert"):
        model = npbert.load(GOLDEN / class_name("bert", architecture), dtype="float64")
        ids = np.array(IDS)[None] if model.row.has_choices else np.array(IDS)
        names = list(npbert.trace(model, ids))
        assert list(canonical_names(names, MAPS["pytorch"], "bert")) == names
        for name, mine in canonical_names(names, {}, "bert").items():
            assert own_module("bert", mine) == name
