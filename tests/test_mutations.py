"""Are the golden files sharp enough? A port without faults passes them, every faulty one fails."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import port
import pytest
import ruler
from numpy.typing import NDArray
from port import bert
from safetensors import safe_open

GOLDEN = Path(__file__).parent.parent / "golden"
INPUTS = (
    "input_ids", "attention_mask", "token_type_ids", "position_ids", "attention_head_mask",
)  # fmt: skip
OF_BERT_PORT = set(INPUTS[:3])

Arrays = dict[str, NDArray[Any]]


class Case(NamedTuple):
    name: str
    weights: Arrays
    config: dict[str, Any]
    architecture: str
    inputs: Arrays
    activations: Arrays

    def differences(self, within: float, fault: str | None = None) -> list[str]:
        actual = port.run(self.weights, self.config, self.architecture, self.inputs, fault)
        return ruler.differences(self.activations, actual, within)


@functools.cache
def cases() -> list[Case]:
    """Every golden case of the six plain architectures whose activation the port knows."""
    every = [case for name in port.ARCHITECTURES for case in read_folder(GOLDEN / name)]
    return [case for case in every if case.config["activation"] == "gelu"]


def read_folder(folder: Path) -> Iterator[Case]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights, _ = read(folder / "model.safetensors")
    for path in sorted(folder.glob("*.safetensors")):
        if path.name != "model.safetensors":
            arrays, metadata = read(path)
            overrides = json.loads(metadata["case"])["config"]
            inputs = {name: arrays.pop(name) for name in INPUTS if name in arrays}
            name = f"{folder.name}/{path.stem}"
            yield Case(name, weights, {**config, **overrides}, folder.name, inputs, arrays)


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    with safe_open(path, framework="numpy") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def test_the_port_without_faults_agrees_with_every_golden_case_it_can_run() -> None:
    assert {case.architecture for case in cases()} == set(port.ARCHITECTURES)
    differences = {case.name: case.differences(within=1e-12) for case in cases()}
    assert {name: found for name, found in differences.items() if found} == {}


# A thousand times the bound above: rounding, here or on another machine, must not be what is seen.
@pytest.mark.parametrize("fault", port.FAULTS)
def test_the_golden_files_see(fault: str) -> None:
    assert any(case.differences(within=1e-9, fault=fault) for case in cases())


# Adding one number to all scores of a query changes no softmax: what no result can show, only the
# activations can.
def test_results_alone_show_every_fault_but_a_missing_bias_of_the_keys() -> None:
    def shows(case: Case, fault: str) -> bool:
        last = f"transformer.layer.{case.config['n_layers'] - 1}.output_layer_norm"
        results = {n: x for n, x in case.activations.items() if n == last or n.endswith("logits")}
        return bool(case._replace(activations=results).differences(within=1e-9, fault=fault))

    unseen = [f for f in port.FAULTS if not any(shows(case, f) for case in cases())]
    assert unseen == ["k_lin bias dropped"]


class BertCase(Case):
    """The same of BERT; its port tells nothing of scores and residuals, which are not compared."""

    def differences(self, within: float, fault: str | None = None) -> list[str]:
        made = bert.BertPort(self.weights, self.config, fault or "")(self.architecture, self.inputs)
        actual = {name.removeprefix("bert."): value for name, value in made.items()}
        expected = {name: x for name, x in self.activations.items() if name in actual}
        assert {"embeddings.sum", LAST_NORM_OF_BERT} < set(expected)
        return ruler.differences(expected, {name: actual[name] for name in expected}, within)


LAST_NORM_OF_BERT = "encoder.layer.2.output.LayerNorm"


@functools.cache
def bert_cases() -> list[BertCase]:
    """Every golden case that BERT's port can run: gelu, positions 0, 1, 2 and all heads."""
    every = [BertCase(*case) for name in bert.ALL for case in read_folder(GOLDEN / name)]
    return [
        case
        for case in every
        if case.config["hidden_act"] == "gelu" and set(case.inputs) <= OF_BERT_PORT
    ]


def test_the_port_of_bert_without_faults_agrees_with_every_golden_case_it_can_run() -> None:
    assert {case.architecture for case in bert_cases()} == set(bert.ALL)
    differences = {case.name: case.differences(within=1e-12) for case in bert_cases()}
    assert {name: found for name, found in differences.items() if found} == {}


@pytest.mark.parametrize("fault", bert.FAULTS)
@pytest.mark.parametrize("architecture", bert.ALL)
def test_the_golden_files_of_each_class_of_bert_see(architecture: str, fault: str) -> None:
    if architecture in bert.FAULTS[fault][1]:
        cases = [case for case in bert_cases() if case.architecture == architecture]
        assert any(case.differences(within=1e-9, fault=fault) for case in cases)


def test_the_ruler_measures_by_the_greatest_expected_value() -> None:
    expected = {"x": np.array([1.0, -100.0])}
    assert ruler.distance(expected["x"], np.array([2.0, -100.0])) == 0.01
    assert ruler.differences(expected, {"x": np.array([2.0, -100.0])}, within=0.01) == []
    assert ruler.differences(expected, {"x": np.array([2.0, -100.0])}, within=0.009) == [
        "x: error 1.00e-02 exceeds 9e-03 at (0,): 2.0, expected 1.0"
    ]


@pytest.mark.parametrize(
    "actual",
    [{}, {"x": np.zeros((1, 2))}, {"x": np.array([0.0, np.nan])}, {"x": np.array([0.0, 1e-300])}],
    ids=["missing", "misshapen", "not a number", "not zero"],
)
def test_the_ruler_lets_no_bound_excuse_what_is(actual: Arrays) -> None:
    assert len(ruler.differences({"x": np.zeros(2)}, actual, within=1e9)) == 1


def test_the_ruler_compares_masked_scores_by_their_places_alone() -> None:
    least, least32 = float(np.finfo(np.float64).min), float(np.finfo(np.float32).min)
    expected = {"masked_scores": np.array([3.0, least])}

    def passes(*scores: float, dtype: type = np.float64) -> bool:
        actual: Arrays = {"masked_scores": np.array(scores, dtype)}
        return ruler.differences(expected, actual, within=1e-7) == []

    assert passes(3.0, least)
    assert passes(3.0, least32, dtype=np.float32)
    assert not passes(3.0, least32)
    assert not passes(3.0, -np.inf)
    assert not passes(least, least)
    assert not passes(3.1, least)


def test_the_ruler_wants_no_weight_where_none_is_expected() -> None:
    expected = {"a.weights": np.array([1.0, 0.0])}
    assert ruler.differences(expected, {"a.weights": np.array([1.0, 0.0])}, within=1e-6) == []
    assert len(ruler.differences(expected, {"a.weights": np.array([1.0, 1e-30])}, within=1e-6)) == 1
