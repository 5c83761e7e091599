"""Right ports of many systems: nothing is found in what they compute, and all of it is understood.

golden/record/right_ports.py recorded it.
"""

from pathlib import Path

import numpy as np
import pytest
from golden_cases import GOLDEN

import npbert
from npbert.families import FAMILIES

FOLDER = GOLDEN / "ports" / "right"
TANH = FOLDER / "bert_keras.safetensors"  # keras-hub computes BERT with the tanh GELU
PORTS = [path for path in sorted(FOLDER.glob("*.safetensors")) if path != TANH]
STEPS = {"keras": 4, "pytorch_compiled": 4}  # systems that tell hidden states alone


@pytest.fixture(scope="module")
def models() -> dict[str, npbert.Model]:
    return {family: npbert.load(FOLDER / family, dtype="float64") for family in FAMILIES}


@pytest.mark.parametrize("path", PORTS, ids=lambda path: path.stem)
def test_nothing_is_found_in_a_right_port(path: Path, models: dict[str, npbert.Model]) -> None:
    family, _, system = path.stem.partition("_")
    found = npbert.diagnose(models[family], path)
    assert found.findings == []
    assert found.comparison.same
    assert len(found.comparison.steps) >= STEPS.get(system, 22)
    assert not any("not understood" in note or "guessed" in note for note in found.notes)


def test_every_system_and_every_precision_is_there() -> None:
    names = " ".join(path.stem for path in PORTS)
    for each in ("eager_float32", "eager_float16", "eager_bfloat16", "sdpa_float32", "sdpa_float16",
                 "sdpa_bfloat16", "compiled", "onnx_legacy", "onnx_dynamo", "openvino", "keras",
                 "flax"):  # fmt: skip
        assert f"distilbert_pytorch_{each}" in names or f"distilbert_{each}" in names
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 6_000_000


def test_a_system_that_computes_another_gelu_is_told_so(models: dict[str, npbert.Model]) -> None:
    (finding,) = npbert.diagnose(models["bert"], TANH).findings
    assert finding.causes == ("computed with the tanh approximation of GELU",)
    assert finding.blocks == (0, 1)
    told = npbert.load(FOLDER / "bert", dtype="float64", config={"hidden_act": "gelu_new"})
    assert npbert.diagnose(told, TANH).findings == []


@pytest.mark.parametrize("path", [PORTS[0], PORTS[-1]], ids=lambda path: path.stem)
def test_a_wrong_port_under_the_same_names_is_not_right(
    path: Path, models: dict[str, npbert.Model]
) -> None:
    family = path.stem.partition("_")[0]
    arrays = dict(npbert.Trace.load(path))
    wrong = {n: x * np.float32(1.5) if n.endswith("logits") else x for n, x in arrays.items()}
    found = npbert.diagnose(models[family], wrong)
    assert [finding.step for finding in found.findings] == ["logits"]
