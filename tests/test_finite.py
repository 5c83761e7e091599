"""Every answer that leaves is finite, or an error that names the module which made it so."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import npbert
from npbert.cli import main
from npbert.errors import CheckpointError, InputError
from npbert.tasks.modules import normalize

GOLDEN = Path(__file__).parent.parent / "golden" / "tasks"


def altered(tmp_path: Path, model: str, module: str, **tensors: object) -> Path:
    """Copy a model, with other values in some tensors of a module, as float32."""
    folder = tmp_path / model
    shutil.copytree(GOLDEN / model, folder)
    path = folder / module / "model.safetensors"
    found = {name: x.astype(np.float32) for name, x in load_file(path).items()}
    for name, value in tensors.items():
        array = found[f"{'linear' if 'Dense' in module else 'norm'}.{name}"]
        array[...] = value
    save_file(found, path)
    return folder


@pytest.mark.parametrize(
    ("model", "module"), [("st_dense", "2_Dense"), ("st_layernorm", "2_LayerNorm")]
)
@pytest.mark.parametrize("tensor", ["weight", "bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_of_a_module_that_are_not_finite_are_an_error(
    tmp_path, capsys, model, module, tensor, value
):
    folder = altered(tmp_path, model, module, **{tensor: value})
    name = f"{'linear' if 'Dense' in module else 'norm'}.{tensor}"
    with pytest.raises(CheckpointError, match=rf"{module}.*: {name} has \d+ of \d+ values that"):
        npbert.pipeline("sentence-embedding", folder)
    assert main(["info", str(folder), "--check", "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)["not finite"]
    assert list(checked) == [f"{module}.{name}"]


@pytest.mark.parametrize(
    ("model", "module", "tensors"),
    [
        ("st_dense_identity", "2_Dense", {"weight": 3.4e38}),
        ("st_dense_identity", "2_Dense", {"weight": -3.4e38}),
        ("st_layernorm", "2_LayerNorm", {"weight": 3e38, "bias": 0}),
    ],
)
def test_a_module_that_overflows_is_named_and_writes_nothing(
    tmp_path, capsys, model, module, tensors
):
    folder = altered(tmp_path, model, module, **tensors)
    with pytest.raises(CheckpointError, match=rf"^{module} made \d+ of \d+ values"):
        npbert.pipeline("sentence-embedding", folder)(["a", "the ship sank"])
    for more in ([], ["--normalize"], ["--precision", "binary"], ["-o", str(tmp_path / "x.npy")]):
        assert main(["sentence-embedding", "-m", str(folder), *more, "a ship"]) == 3
        printed = capsys.readouterr()
        assert printed.out == ""
        assert re.search(f"npbert: {module} made .*overflows float32", printed.err)
    assert not (tmp_path / "x.npy").exists()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-320, 1e-44, 1e-30, 1e-13, 1, 1e25, 3e37, 1e300])
def test_a_vector_of_any_size_gets_length_1(kind, size):
    if not float(np.finfo(kind).smallest_subnormal) <= size < float(np.finfo(kind).max):
        pytest.skip("no number of this dtype")
    x = np.array([[1, -1, 1, 1], [1, 1, 1, -1]], np.float64) * size
    np.testing.assert_allclose(normalize(x.astype(kind)), np.sign(x) / 2, rtol=1e-6)
    assert np.array_equal(normalize(np.zeros((2, 3), kind)), np.zeros((2, 3)))


@pytest.mark.parametrize("function", ["dot", "euclidean", "manhattan"])
def test_a_similarity_that_overflows_is_an_error(function):
    task = npbert.pipeline("sentence-embedding", GOLDEN / "st_mean")
    message = f"similarity '{function}' of embeddings with values up to 1e.308 overflows float64; "
    with pytest.raises(InputError, match=message):
        task.similarity([[1e308, 1e308]], [[-1e308, -1e308]], function)
    assert task.similarity([[1e308, 0]], [[-1e308, 0]], "cosine").tolist() == [[-1]]


@pytest.mark.parametrize(
    ("least", "greatest", "said"),
    [
        (np.nan, 1, "ranges has values that are not finite"),
        (0, np.inf, "ranges has values that are not finite"),
        (-np.inf, 0, "ranges has values that are not finite"),
        (1, -1, "ranges has 1.0 to -1.0 for dimension 0, expected the least value, then the"),
        (-1e308, 1e308, "ranges has -1e.308 to 1e.308 for dimension 0, which is wider than float6"),
    ],
)
def test_ranges_that_tell_nothing_are_refused(least, greatest, said):
    task = npbert.pipeline("sentence-embedding", GOLDEN / "st_mean")
    dim = len(task("a"))
    with pytest.raises(InputError, match=said):
        task("a", precision="int8", ranges=np.array([[least] * dim, [greatest] * dim], float))


def test_ranges_of_no_width_give_a_byte_still():
    task = npbert.pipeline("sentence-embedding", GOLDEN / "st_mean")
    for edge in (0.0, 1e-320, 1e300):
        made = task("a", precision="int8", ranges=np.full((2, len(task("a"))), edge))
        assert made.dtype == np.int8
