"""The porter's kit: small models that hide no mistake, inputs, traces, and a page to port from."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import npbert
from npbert.cli import main
from npbert.families import FAMILIES, class_name, list_architectures
from npbert.oracle.kit import README
from npbert.oracle.maps import read_map

SETS = ("plain", "padded", "everything")
PAGE = README.read_text("utf-8")


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    assert main(["kit", str(folder)]) == 0
    return folder


def inputs_of(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path) for path in (folder / "inputs").glob("*.npy")}


def test_there_is_a_folder_for_every_class(kit, capsys):
    classes = sorted(class_name(f, name) for f in FAMILIES for name in list_architectures(f))
    assert sorted(path.name for path in kit.iterdir()) == sorted([*classes, "README.md"])
    before = {p: p.read_bytes() for p in (kit / "BertForMaskedLM").rglob("*") if p.is_file()}
    assert main(["kit", str(kit)]) == 0  # once more: the same bytes
    assert all(path.read_bytes() == content for path, content in before.items())
    assert [Path(line).name for line in capsys.readouterr().out.splitlines()] == classes
    assert (kit / "README.md").read_text("utf-8") == PAGE
    for name in classes:
        assert {path.name for path in (kit / name).iterdir()} == {"model", "names.toml", *SETS}


def test_every_trace_is_that_of_a_right_port(kit):
    for i, own in enumerate(sorted(path for path in kit.iterdir() if path.is_dir())):
        for name in SETS:
            given, told = inputs_of(own / name), npbert.Trace.load(own / name / "trace")
            assert all(np.array_equal(told[key], x) for key, x in given.items())
        name = SETS[i % 2 * 2]
        table = read_map(str(own / "names.toml"))
        model = npbert.load(own / "model", dtype="float64")
        found = npbert.compare(model, own / name / "trace", names=table)
        assert (found.same, found.notes) == (True, [])
        assert len(found.steps) == len(told.activations)
    model = npbert.load(kit / "BertModel" / "model", dtype="float64")
    assert npbert.compare(model, kit / "BertModel" / "padded" / "trace").same


def test_every_size_is_another_number(kit):
    for own in sorted(path for path in kit.iterdir() if path.is_dir()):
        config = json.loads((own / "model" / "config.json").read_text())
        model = npbert.load(own / "model")
        c = model.config
        heads = c.num_attention_heads
        sizes = [c.vocab_size, c.max_positions, c.hidden_size, c.num_blocks, heads,
                 c.hidden_size // heads, c.intermediate_size, c.num_labels]  # fmt: skip
        sizes += [c.type_vocab_size] if c.type_vocab_size else []
        sizes += [inputs_of(own / name)["input_ids"].shape[-1] for name in SETS]
        sizes.append(4)  # texts
        assert len(set(sizes)) == len(sizes)
        assert config["architectures"] == [own.name]
        for name, x in load_file(own / "model" / "model.safetensors").items():
            assert len(np.unique(x)) > 0.99 * x.size, name  # none is 0, or 1, or another's


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_are_plain_then_padded_then_everything(kit, family):
    own = kit / f"{FAMILIES[family].class_prefix}Model"
    plain, padded, every = (inputs_of(own / name) for name in SETS)
    types = {"token_type_ids"} if family == "bert" else set()
    assert plain.keys() == padded.keys() == {"input_ids", "attention_mask"} | types
    assert every.keys() == plain.keys() | {"position_ids", "attention_head_mask"}
    assert plain["attention_mask"].all()
    assert padded["input_ids"].shape == (2, 40)
    left, right = padded["attention_mask"]
    assert (left[0], left[-1], right[0], right[-1]) == (0, 1, 1, 0)
    for row in (left, right):
        assert (np.diff(row) == -1).any()
        assert (np.diff(row) == 1).any()
    assert set(np.unique(every["attention_head_mask"])) == {0, 0.5, 1}
    assert all(len(set(row)) == 13 for row in every["position_ids"])
    assert not types or every["token_type_ids"].max() > 1


def test_a_bert_has_its_pooler(kit):
    told = npbert.Trace.load(kit / "BertModel" / "plain" / "trace")
    assert told["pooler.activation"].shape == (4, 30)
    assert "pooled" not in npbert.Trace.load(kit / "DistilBertModel" / "plain" / "trace")


def test_token_types_that_are_not_told_are_missed(kit, tmp_path, capsys):
    own = kit / "BertModel"
    shutil.copytree(own / "plain" / "trace", tmp_path / "dump")
    (tmp_path / "dump" / "token_type_ids.npy").unlink()
    assert main(["diagnose", str(own / "model"), str(tmp_path / "dump")]) == 1
    assert capsys.readouterr().out.startswith("embeddings.token_type_embeddings: ")
    again = tmp_path / "again.npz"
    given = ["--inputs", str(own / "everything" / "inputs"), "-o", str(again)]
    assert main(["trace", str(own / "model"), *given]) == 0
    assert npbert.compare(own / "everything" / "trace", again).same


# ---- the page -----------------------------------------------------------------------------------


def code_of(language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return code


def test_the_page_names_every_step_and_every_tensor(kit):
    for own in sorted(path for path in kit.iterdir() if path.is_dir()):
        steps = set(npbert.Trace.load(own / "plain" / "trace").activations)
        tensors = load_file(own / "model" / "model.safetensors")
        steps |= {name.rpartition(".")[0] for name in tensors} - {"cls.predictions"}
        assert "cls.predictions.bias" not in tensors or "`cls.predictions.bias`" in PAGE
        for step in steps:
            last = re.sub(r"^(distil)?bert\.", "", step).rpartition(".")[2]
            assert f"`{last}`" in PAGE or f".{last}`" in PAGE or f"`{last}." in PAGE, step


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_c_of_the_page_writes_a_dump(tmp_path):
    program = f"""#include <stdio.h>
#include <string.h>
{code_of("c")}
int main(void) {{
    float x[6] = {{0, 1, 2, 3, 4, 5.5f}};
    int shape[3] = {{1, 2, 3}}, one[1] = {{6}};
    write_npy("a.npy", x, 3, shape);
    write_npy("b.npy", x, 1, one);
    return 0;
}}
"""
    (tmp_path / "p.c").write_text(program)
    for command in (["cc", "-Wall", "-Werror", "p.c", "-o", "p"], ["./p"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    made = npbert.Trace.load(tmp_path)
    assert made["a"].tolist() == [[[0, 1, 2], [3, 4, 5.5]]]
    assert made["b"].tolist() == [0, 1, 2, 3, 4, 5.5]


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_the_javascript_of_the_page_reads_and_writes_a_dump(kit, tmp_path):
    program = f"""const fs = require('fs');
{code_of("js")}
const given = readNpy(process.argv[2]);
writeNpy('ids.npy', Float32Array.from(given.data), given.shape);
const state = readNpy(process.argv[3]);
writeNpy('state.npy', Float32Array.from(state.data), state.shape);
writeNpy('row.npy', new Float32Array([1, 2]), [2]);
writeNpy('row2.npy', readNpy('row.npy').data, [2]);
"""
    (tmp_path / "p.js").write_text(program)
    folder = kit / "DistilBertModel" / "padded"
    step = "transformer.layer.2.output_layer_norm.npy"
    files = [folder / "inputs" / "input_ids.npy", folder / "trace" / step]
    subprocess.run(["node", "p.js", *files], cwd=tmp_path, check=True)
    made = npbert.Trace.load(tmp_path)
    assert np.array_equal(made["ids"], np.load(files[0]))
    assert np.array_equal(made["state"], np.load(files[1]).astype(np.float32))
    assert made["row"].tolist() == made["row2"].tolist() == [1, 2]
