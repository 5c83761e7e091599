"""Records golden files: what transformers 4.57 computes, in float64, at every named step.

    python golden/record/make.py           records everything anew
    python golden/record/make.py --check   records elsewhere and compares; 1 where files differ

Needs torch, transformers 4.57 and sentence-transformers 5.7, no network.

A folder is a model: config.json and model.safetensors (float32, as transformers saves them, every
parameter redrawn) and one file per case. A case file holds the arguments of the call and every
activation, rows outside: (batch, length, features), attention (batch, heads, query, key). Its
metadata has one key, "case": JSON with what the case is ("description") and the fields of
config.json that it changes ("config"). Activations of multiple choice have batch * choices rows.

Four folders are of another kind. demo holds what the built-in models answer; tasks holds small
models of every kind, and in a JSON file for each task what is answered on them (see its note).
ports holds what ports of the classes' models compute, a right and a wrong one of each family. bins
holds what torch.save writes, in both formats, and the same tensors as safetensors.

explain.png is the README's picture, taken by picture.py; real is what trained checkpoints compute
that are too large to be here, recorded by real.py; ports/right is what right ports of many systems
compute, recorded by right_ports.py.  All three are kept as they are.

MANIFEST.json says with which versions the files were recorded. The last digits may differ on
another processor; --check then says by how much.
"""

import argparse
import hashlib
import json
import logging
import platform
import shutil
import sys
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import sentence_transformers
import tokenizers
import torch
import transformers
from bins import record_bins
from cases import ACTIVATIONS, BLOCKS, FILL_MASK, SEED, SENTIMENT, Case, cases_of
from hook import record_pytorch
from ports import record_port
from real import REAL
from recording import FOLDERS, Arrays, names_of, record, save_model
from right_ports import RIGHT
from safetensors.numpy import load_file, save_file
from tasks_record import record_tasks
from transformers import DistilBertTokenizerFast, Pipeline, pipeline

GOLDEN = Path(__file__).parent.parent
PICTURE = "explain.png"
DEMO = GOLDEN.parent / "npbert" / "demo"

# ---- are the cases worth their bytes? -----------------------------------------------------------


def check_masks(folder: Path, case: Case, arrays: Arrays) -> None:
    """Masked scores are the smallest number, their weights 0, and blind rows uniform."""
    lowest = np.finfo(np.float64).min
    ids = case.inputs["input_ids"]
    mask = case.inputs.get("attention_mask", np.ones_like(ids)).reshape(-1, ids.shape[-1])
    hidden, blind = (mask == 0)[:, None, None, :], (mask == 0).all(-1)
    for i in range(BLOCKS):
        name = names_of(folder).attention.format(i=i)
        scores, masked = arrays[f"{name}.scores"], arrays[f"{name}.masked_scores"]
        weights = arrays[f"{name}.weights"]
        assert np.array_equal(masked, np.where(hidden, lowest, scores))
        assert not weights[~blind][np.broadcast_to(hidden, weights.shape)[~blind]].any()
        assert np.allclose(weights[blind], 1 / ids.shape[-1], rtol=1e-15, atol=0)


def check_activations(recorded: dict[str, Arrays]) -> None:
    """Relatives agree, all others are told apart, and arguments reach far enough to do so."""
    step = "transformer.layer.0.ffn."
    group = {name: i for i, names in enumerate(ACTIVATIONS) for name in names}
    x = recorded["activation_gelu"][step + "lin1"]
    assert x.min() < -10
    assert x.max() > 10
    for one, other in combinations(group, 2):
        a, b = (recorded[f"activation_{name}"][step + "activation"] for name in (one, other))
        assert (np.abs(a - b).max() < 1e-9) == (group[one] == group[other]), (one, other)


def check_inputs_matter(folder: Path, case: Case, arrays: Arrays) -> None:
    """Without any one of its optional arguments the case would end elsewhere."""
    last = names_of(folder).last_norm.format(i=BLOCKS - 1)
    for name in case.inputs.keys() - {"input_ids"}:
        fewer = {other: x for other, x in case.inputs.items() if other != name}
        ended = record(folder, replace(case, inputs=fewer))[last]
        assert np.abs(ended - arrays[last]).max() > 1e-3, (case.name, name)


# ---- demo models --------------------------------------------------------------------------------


def logits_of(task: Pipeline, encoding: dict[str, list[int]]) -> torch.Tensor:
    with torch.no_grad():
        return task.model(torch.tensor([encoding["input_ids"]])).logits[0]


def sentiment_rows(task: Pipeline) -> list[dict[str, object]]:
    rows = []
    for given in SENTIMENT:
        texts = given if isinstance(given, dict) else {"text": given}
        encoding = task.tokenizer(**texts)
        logits = logits_of(task, encoding).tolist()
        answer = task(given, top_k=None)
        known = {"input_ids": encoding["input_ids"], "logits": logits}
        rows.append({**texts, **known, "answer": answer})
    return rows


def fill_mask_rows(task: Pipeline) -> list[dict[str, object]]:
    rows = []
    for text in FILL_MASK:
        ids = task.tokenizer(text)["input_ids"]
        logits = logits_of(task, {"input_ids": ids})
        masks = []
        for position in (i for i, t in enumerate(ids) if t == task.tokenizer.mask_token_id):
            top, row = logits[position].topk(5), {"position": position}
            row |= {"top_ids": top.indices.tolist(), "top_logits": top.values.tolist()}
            masks.append(row | {"logsumexp": logits[position].logsumexp(0).item()})
        rows.append({"text": text, "input_ids": ids, "masks": masks, "answer": task(text, top_k=5)})
    return rows


def record_demo(demo_folder: Path, out: Path) -> None:
    """Record token ids, float64 logits and pipeline answers of the demo checkpoints there are."""
    notes = {
        "sentiment": "logits are float64; the scores went through float32, as the pipeline does",
        "fill-mask": "logits and scores are float64; of each row the five greatest logits",
    }
    for name, rows_of in (("sentiment", sentiment_rows), ("fill-mask", fill_mask_rows)):
        folder = demo_folder / name
        if not (folder / "model.safetensors").exists():
            print(f"no demo model {name}: not recorded")
            continue
        task = pipeline(
            "text-classification" if name == "sentiment" else name,
            model=str(folder),
            tokenizer=DistilBertTokenizerFast.from_pretrained(folder),
            dtype=torch.float64,
            device="cpu",
            model_kwargs={"attn_implementation": "eager"},
        )
        out.mkdir(parents=True, exist_ok=True)
        data = {"note": notes[name], "rows": rows_of(task)}
        text = json.dumps(data, ensure_ascii=False, indent=1, sort_keys=True)
        (out / f"{name}.json").write_text(text + "\n", "utf-8")


# ---- everything ---------------------------------------------------------------------------------


def record_folder(folder: Path) -> None:
    """Record a model and its cases, and refuse cases that show nothing."""
    save_model(folder)
    recorded = {}
    for case in cases_of(folder.name):
        arrays = recorded[case.name] = record(folder, case)
        check_masks(folder, case, arrays)
        check_inputs_matter(folder, case, arrays)
        about = json.dumps({"config": case.config, "description": case.description}, sort_keys=True)
        # One key, because safetensors writes several in changing order.
        save_file(case.inputs | arrays, folder / f"{case.name}.safetensors", {"case": about})
    if folder.name == "DistilBertForMaskedLM":
        check_activations(recorded)


def manifest(out: Path) -> dict[str, Any]:
    """What was recorded, from which seed, with which versions."""
    files = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        files[path.relative_to(out).as_posix()] = {"bytes": len(data), "sha256": digest}
    used = (np, safetensors, sentence_transformers, tokenizers, torch, transformers)
    versions = {m.__name__: m.__version__ for m in used}
    versions["python"] = ".".join(platform.python_version_tuple()[:2])
    return {"files": files, "seed": SEED, "versions": versions}


def differences(out: Path, golden: Path, names: list[str]) -> list[str]:
    """Say which files differ, and tensors by how much, in units of their greatest value."""
    said = []
    for name in names:
        old, new = golden / name, out / name
        if not (old.exists() and new.exists()):
            said.append(f"{name}: only {'committed' if old.exists() else 'recorded now'}")
        elif old.read_bytes() != new.read_bytes():
            said.append(f"{name}: differs{distance(old, new)}")
    return said


def distance(old: Path, new: Path) -> str:
    if old.suffix != ".safetensors":
        return ""
    a, b = load_file(old), load_file(new)
    if {k: x.shape for k, x in a.items()} != {k: x.shape for k, x in b.items()}:
        return " in names or shapes"
    worst = max(np.abs(a[k] - b[k]).max() / max(np.abs(a[k]).max(), 1e-300) for k in a)
    return f" by {worst:.1e}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    torch.set_num_threads(1)  # sums in one order
    transformers.logging.set_verbosity_error()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        for name in FOLDERS:
            record_folder(out / name)
        record_pytorch(out)
        record_port(out)
        record_bins(out)
        record_demo(DEMO, out / "demo")
        record_tasks(DEMO, out / "tasks")
        shutil.copy(GOLDEN / PICTURE, out)  # it is taken, by picture.py
        for kept in (REAL, RIGHT):  # of checkpoints that are not here, by systems that are not here
            shutil.copytree(GOLDEN / kept, out / kept)
        made = manifest(out)
        (out / "MANIFEST.json").write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
        old = GOLDEN / "MANIFEST.json"
        before = json.loads(old.read_text())["files"] if old.exists() else {}
        if check:
            said = differences(out, GOLDEN, sorted({*before, *made["files"], "MANIFEST.json"}))
            print("\n".join(said) or f"{len(made['files'])} files, all as committed")
            return int(bool(said))
        for name in before:
            (GOLDEN / name).unlink(missing_ok=True)
        shutil.copytree(out, GOLDEN, dirs_exist_ok=True)
    print(f"{len(made['files'])} files, {sum(f['bytes'] for f in made['files'].values()):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
