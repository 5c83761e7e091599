"""Records what ports with mistakes compute, for the READMEs and for tests.

Called by golden/record/make.py, for ports/tanh_gelu.npz and ports/bert_types_ignored.npz.  The
ports are those of tests/port, which share no line with npbert: one of DistilBERT takes the tanh
approximation for GELU, and forgets the bias of attention's output; one of BERT takes all token
types for 0.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "tests"))

import port
from port.bert import BertPort


class Forgetful(port.Port):
    """One mistake more than its fault."""

    def weight(self, name: str) -> np.ndarray:
        w = super().weight(name)
        return np.zeros_like(w) if name.endswith("out_lin.bias") else w


def record_port(out: Path) -> None:
    """Write what the ports make of the classes' golden models."""
    folder = out / "DistilBertForSequenceClassification"
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    ids = np.array([[5, 17, 3, 80, 2, 9], [7, 96, 3, 0, 0, 0]])
    given = {"input_ids": ids, "attention_mask": (ids != 0).astype(int)}
    kept = Forgetful(weights, config, "gelu by tanh")(folder.name, given)
    with np.errstate(over="ignore"):  # the smallest number of float64 is beyond float32
        arrays = {name: x.astype(np.float32) for name, x in kept.items()}
    np.savez(out / "ports" / "tanh_gelu.npz", **given, **arrays)
    folder = out / "BertForSequenceClassification"
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    given = {"input_ids": ids, "attention_mask": (ids != 0).astype(int), "token_type_ids": ids % 3}
    heard = BertPort(weights, config, "types are 0")(folder.name, given)
    arrays = {name: x.astype(np.float32) for name, x in heard.items()}
    np.savez(out / "ports" / "bert_types_ignored.npz", **given, **arrays)
