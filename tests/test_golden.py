"""Every activation of every architecture is PyTorch's, in every recorded case."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
from golden_cases import CASES, GOLDEN, activations, name_of, read
from ruler import differences
from safetensors.numpy import load_file

import npbert
from npbert.engine.activations import ACTIVATIONS
from npbert.families import FAMILIES, class_name, list_architectures


class Engine(NamedTuple):
    name: str
    dtype: str
    within: float  # of each activation's greatest value


ENGINES = {
    "textbook-float64": Engine("textbook", "float64", 1e-12),
    "textbook-float32": Engine("textbook", "float32", 5e-5),
    # tanh and laplace of inputs near 40 have the inputs' rounding and a scale of 1.
    "kernels-float32": Engine("kernels", "float32", 2e-4),
}


@pytest.fixture(autouse=True)
def _odd_masks_may_warn():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "attention_mask has values besides 0 and 1")
        yield


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("path", CASES, ids=name_of)
def test_every_activation_is_pytorchs(path, engine):
    case = read(path)
    model = npbert.load(case.folder, dtype=engine.dtype, engine=engine.name, config=case.config)

    actual = activations(model, case.given)

    assert differences(case.activations, actual, engine.within) == []
    assert set(actual) == set(case.activations)


@pytest.mark.parametrize("path", CASES, ids=name_of)
def test_what_a_call_returns_is_what_was_recorded(path):
    case = read(path)
    model = npbert.load(case.folder, dtype="float64", config=case.config)

    out = model(
        **case.given,
        output_hidden_states=True,
        output_attentions=True,
    )

    block = "transformer.layer.{}.{}".format
    n = model.config.num_blocks
    expected = {
        name: case.activations[name]
        for name in ("logits", "start_logits", "end_logits")
        if name in case.activations
    }
    if model.architecture == "base":
        expected["hidden_state"] = case.activations[block(n - 1, "output_layer_norm")]
        if "pooled" in case.activations:
            expected["pooled_state"] = case.activations["pooled"]
    expected["hidden_states.0"] = case.activations["embeddings.LayerNorm"]
    for i in range(n):
        expected[f"hidden_states.{i + 1}"] = case.activations[block(i, "output_layer_norm")]
        expected[f"attentions.{i}.weights"] = case.activations[block(i, "attention.weights")]

    assert differences(expected, returned(out), 1e-12) == []
    assert set(returned(out)) == set(expected)


def returned(out: npbert.Output) -> dict[str, Any]:
    fields = {
        name: value
        for name in ("logits", "start_logits", "end_logits", "hidden_state", "pooled_state")
        if (value := getattr(out, name)) is not None
    }
    fields |= {f"hidden_states.{i}": x for i, x in enumerate(out.hidden_states)}
    return fields | {f"attentions.{i}.weights": x for i, x in enumerate(out.attentions)}


def test_all_architectures_are_recorded_and_one_of_them_with_every_activation_function():
    folders = {path.parent.name for path in CASES}
    functions = {read(path).config.get("activation") for path in CASES}

    for family in FAMILIES:
        assert folders >= {class_name(family, name) for name in list_architectures(family)}
    later_than_the_reference = {"hardswish", "sqrtsoftplus"}
    assert functions >= set(ACTIVATIONS) - later_than_the_reference


def bfloat16(x: np.ndarray) -> np.ndarray:
    """Cut float32 to bfloat16, as its upper half."""
    return (x.view(np.uint32) >> 16).astype(np.uint16)


NARROW = {
    "F16": (lambda x: x.astype(np.float16), lambda x: x.astype(np.float16).astype(np.float32)),
    "BF16": (bfloat16, lambda x: (x.view(np.uint32) >> 16 << 16).view(np.float32)),
}


@pytest.mark.parametrize("stored", NARROW)
def test_a_half_precision_file_gives_the_results_of_its_widened_weights(stored, tmp_path):
    from checkpoint_files import write_safetensors

    narrow, widened = NARROW[stored]
    source = GOLDEN / "DistilBertForMaskedLM"
    weights = load_file(source / "model.safetensors")
    for name, tensors, dtype in (
        ("half", {k: narrow(v) for k, v in weights.items()}, stored),
        ("wide", {k: widened(v) for k, v in weights.items()}, "F32"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes((source / "config.json").read_bytes())
        write_safetensors(tmp_path / name / "model.safetensors", tensors, dtype)

    given = read(source / "everything_at_once.safetensors").given
    for dtype in ("float32", "float64"):
        half, wide = (
            npbert.load(tmp_path / name, dtype=dtype)(**given).logits for name in ("half", "wide")
        )
        assert np.array_equal(half, wide)


@pytest.mark.parametrize(
    ("architecture", "logits"),
    [
        ("for_masked_language_modeling", "prediction_logits"),
        ("for_next_sentence_prediction", "seq_relationship_logits"),
    ],
)
def test_a_file_of_two_heads_is_read_as_either(architecture, logits):
    case = read(GOLDEN / "BertForPreTraining" / "types.safetensors")
    model = npbert.load(case.folder, architecture, dtype="float64")
    expected = {"logits": case.activations[logits]}
    assert differences(expected, {"logits": model(**case.given).logits}, 1e-12) == []
    assert model.load_report.ignored == ()
    assert npbert.load(case.folder).architecture == "for_masked_language_modeling"
