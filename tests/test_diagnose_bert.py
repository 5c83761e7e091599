"""Does diagnose name the mistakes that only a port of BERT can have?

Each is planted in a port of BERT's that shares no line with npbert, and its dump is diagnosed, in
float32 and under the names of hooks: all activations, or hidden states and the result alone.
"""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from port.bert import ALL, BASE, FAULTS, MLM, Array, BertPort
from safetensors.numpy import load_file

import npbert
from npbert.families import class_name, list_architectures

ARCHITECTURES = {class_name("bert", name): name for name in list_architectures("bert")}
# Every fault in every class, in both kinds of dump; of these a quarter in a short run.
PLANTED = [
    pytest.param(fault, each, full, marks=[pytest.mark.long] * bool((i + j + full) % len(classes)))
    for i, (fault, (_, classes)) in enumerate(FAULTS.items())
    for j, each in enumerate(classes)
    for full in (True, False)
]
HIDDEN = ("output.LayerNorm", "embeddings.LayerNorm", "logits", "pooler_output")
RESULTS = ("attention.output.LayerNorm",)  # are no hidden states, though their names end alike


@functools.cache
def model(architecture: str) -> npbert.Model:
    """Every parameter drawn; word vectors as small as real ones, so that an epsilon is seen."""
    config = npbert.Config(
        family="bert", vocab_size=61, max_positions=40, hidden_size=32, num_blocks=3,
        intermediate_size=48, num_attention_heads=4, num_labels=3, type_vocab_size=3,
        layer_norm_epsilon=1e-4,
    )  # fmt: skip
    made = npbert.init(config, ARCHITECTURES[architecture], dtype="float64")
    parameters = dict(made.parameters)
    if architecture == BASE:  # fresh ones have no pooler
        parameters |= {
            "pre_classifier.weight": np.ones((32, 32)),
            "pre_classifier.bias": np.ones(32),
        }
    rng = np.random.default_rng(5)
    for tensor, old in parameters.items():
        if old.ndim == 2:
            new = rng.normal(0, 0.02 if tensor.startswith("embeddings.") else 0.25, old.shape)
        else:
            new = rng.normal(1.0 if tensor.endswith(".weight") else 0.0, 0.3, old.shape)
        parameters[tensor] = new.astype(np.float32).astype(np.float64)
    if architecture == MLM:  # tied, as nearly all are
        parameters["vocab_projector.weight"] = parameters["embeddings.word_embeddings.weight"]
    return npbert.Model(made.config, made.architecture, parameters)


@functools.cache
def files(architecture: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """What a port reads: the tensors of model.safetensors and the settings of config.json."""
    with tempfile.TemporaryDirectory() as folder:
        model(architecture).save(folder)
        said = json.loads((Path(folder) / "config.json").read_bytes())
        return load_file(Path(folder) / "model.safetensors"), said


def inputs() -> dict[str, Array]:
    """Three pairs: a long one, one padded on the right, one on the left."""
    rng = np.random.default_rng(3)
    mask = np.ones((3, 9), np.int64)
    mask[1, 6:] = mask[2, :2] = 0
    types = np.zeros((3, 9), np.int64)
    types[0, 4:] = types[1, 3:6] = types[2, 5:] = 1
    return {
        "input_ids": rng.integers(1, 61, (3, 9)), "attention_mask": mask, "token_type_ids": types,
    }  # fmt: skip


def dump(architecture: str, fault: str, *, full: bool) -> dict[str, Array]:
    """What a port would write down, in float32."""
    made = BertPort(*files(architecture), fault)(architecture, inputs())
    told = {
        name: x.astype(np.float32)
        for name, x in made.items()
        if full or (name.endswith(HIDDEN) and not name.endswith(RESULTS))
    }
    return {**inputs(), **told}


@pytest.mark.parametrize("architecture", ALL)
def test_the_port_without_a_fault_is_right_to_the_last_digits(architecture: str) -> None:
    port = BertPort(*files(architecture), "")(architecture, inputs())
    exact = npbert.trace(model(architecture), **inputs())
    keep = inputs()["attention_mask"] != 0
    ours = {f"bert.{name}": x for name, x in exact.items()} | dict(exact)
    ours["pooler_output"] = exact.get("pooler.activation")
    for name, x in port.items():
        expected = ours[name]
        live = keep if x.shape[:2] == keep.shape else slice(None)
        assert np.abs(x[live] - expected[live]).max() <= 1e-12 * np.abs(expected).max(), name
    for full in (True, False):
        found = npbert.diagnose(model(architecture), dump(architecture, "", full=full))
        assert found.findings == []
        assert found.notes == []


@pytest.mark.parametrize(("fault", "architecture", "full"), PLANTED)
def test_a_fault_of_a_bert_is_named_and_nothing_else_is(
    fault: str, architecture: str, full: bool
) -> None:
    wanted, _ = FAULTS[fault]
    found = npbert.diagnose(model(architecture), dump(architecture, fault, full=full))
    assert [finding.causes[:1] for finding in found.findings] == [(wanted,)]
    # One epsilon below what float32 can see is as good as another.
    others = found.findings[0].causes[1:]
    assert not others or "epsilon" in wanted
    assert all("epsilon" in cause for cause in others)
    steps = {finding.step for finding in found.findings}
    assert steps <= {step.name for step in found.comparison.steps}


def test_a_port_that_pools_nothing_can_still_be_wrong_in_its_types() -> None:
    """Two mistakes at once, at both ends."""

    class Twice(BertPort):
        def pool(self, x: Array, prefix: str) -> Array:
            self.fault = "pooler of relu"
            return super().pool(x, prefix)

    made = Twice(*files(BASE), "types are 0")(BASE, inputs())
    found = npbert.diagnose(model(BASE), {**inputs(), **made})
    assert [finding.causes[0] for finding in found.findings] == [
        "the token types are ignored: all are 0", "the pooler's function is relu, not tanh",
    ]  # fmt: skip


def test_a_catalogue_has_only_the_mistakes_that_its_family_can_have() -> None:
    from npbert.oracle.mistakes import catalogue

    bert, other = catalogue(model(BASE).config), catalogue(npbert.Config())
    assert not [text for text in other if "token type" in text and "BERT" not in text]
    assert not [text for text in bert if "as BERT adds" in text]
    assert "the pooler's function is tanh, not relu" in other
    assert "the pooler's function is tanh, not relu" not in bert
