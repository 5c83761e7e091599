"""Records what right ports compute, in which npbert compare and diagnose must find nothing wrong.

    python golden/record/right_ports.py torch    PyTorch, torch.compile, ONNX Runtime, OpenVINO
    python golden/record/right_ports.py keras    keras-hub
    python golden/record/right_ports.py flax     Flax

Each is run in an environment of its own, which has

    torch: torch==2.13.0 transformers==4.57.6 onnx onnxscript onnxruntime openvino
    keras: keras-hub tensorflow safetensors
    flax:  flax jax transformers==4.57.6 safetensors

Writes golden/ports/right: two small models, made by the first run, one dump a port, versions.json,
and what golden/MANIFEST.json says of them; make.py keeps them.  Every size of the models is another
number.  The inputs are padded on the right, on the left, and have a hole.
"""

import hashlib
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

GOLDEN = Path(__file__).parent.parent
RIGHT = "ports/right"
OUT = GOLDEN / RIGHT
SIZES = {"vocab_size": 89, "max_position_embeddings": 31}
NUMBERS = {"hidden": 30, "blocks": 2, "heads": 5, "intermediate": 44, "labels": 7}
LENGTH = 11
Arrays = dict[str, np.ndarray]


def make_inputs(types: bool) -> Arrays:
    rng = np.random.default_rng(5)
    ids = rng.integers(3, SIZES["vocab_size"], (3, LENGTH))
    mask = np.ones_like(ids)
    mask[0, 8:] = mask[1, :4] = mask[2, 5] = 0
    ids[mask == 0] = 0
    more = {"token_type_ids": rng.integers(0, 4, ids.shape)} if types else {}
    return {"input_ids": ids, "attention_mask": mask, **more}


def write(name: str, arrays: Arrays) -> None:
    path = OUT / f"{name}.safetensors"
    save_file({n: np.ascontiguousarray(x) for n, x in arrays.items()}, path)
    path.chmod(0o644)  # safetensors hides what it writes
    print(f"{name}: {len(arrays)} arrays, {path.stat().st_size:,} bytes")


# ---- PyTorch and what reads its exports ---------------------------------------------------------


def make_models() -> dict[str, Any]:
    """Draw both models anew: every parameter, gains around 1."""
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        DistilBertConfig,
        DistilBertForSequenceClassification,
    )

    names = {f"L{i}": i for i in range(NUMBERS["labels"])}
    more = {**SIZES, "id2label": {i: name for name, i in names.items()}, "label2id": names}
    configs = {
        "distilbert": (DistilBertForSequenceClassification, DistilBertConfig(
            dim=NUMBERS["hidden"], n_layers=NUMBERS["blocks"], n_heads=NUMBERS["heads"],
            hidden_dim=NUMBERS["intermediate"], **more,
        )),
        "bert": (BertForSequenceClassification, BertConfig(
            hidden_size=NUMBERS["hidden"], num_hidden_layers=NUMBERS["blocks"],
            num_attention_heads=NUMBERS["heads"], intermediate_size=NUMBERS["intermediate"],
            type_vocab_size=4, **more,
        )),
    }  # fmt: skip
    made = {}
    for family, (kind, config) in configs.items():
        draw = torch.Generator().manual_seed(20)
        model = kind(config).eval()
        with torch.no_grad():
            for name, x in model.named_parameters():
                scale = 0.25 if x.ndim > 1 else 0.2
                x.copy_(
                    torch.randn(x.shape, generator=draw) * (0.8 if "embeddings" in name else scale)
                )
                x.add_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0)
        model.save_pretrained(OUT / family)
        (OUT / family / "model.safetensors").chmod(0o644)
        made[family] = kind
    return made


def record_torch() -> None:
    import torch

    torch.set_num_threads(1)  # sums in one order
    kinds = make_models()
    for family, kind in kinds.items():
        given = {n: torch.tensor(x) for n, x in make_inputs(family == "bert").items()}
        for attention in ("eager", "sdpa"):
            for dtype in ("float32", "float16", "bfloat16"):
                model = kind.from_pretrained(
                    OUT / family, dtype=getattr(torch, dtype), attn_implementation=attention
                ).eval()
                if family == "distilbert" or dtype == "float32":
                    write_torch(f"{family}_pytorch_{attention}_{dtype}", hear(model, given))
                if dtype == "float32":
                    for dynamo in (False, True):
                        name = f"{family}_onnx_{'dynamo' if dynamo else 'legacy'}_{attention}"
                        write(name, run_onnx(model, given, dynamo))
        model = kind.from_pretrained(OUT / family, attn_implementation="eager").eval()
        write_torch(f"{family}_pytorch_compiled", run_compiled(model, given))
        write(f"{family}_openvino", run_openvino(model, given))


def hear(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return every module's output, and the inputs."""
    import torch
    from hook import record
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        record(model, path := Path(folder) / "heard.safetensors", **given)
        kept = load_file(path)
    with torch.no_grad():
        kept["logits"] = model(**given).logits.clone()
    return kept


def write_torch(name: str, arrays: dict[str, Any]) -> None:
    from safetensors.torch import save_file as save_tensors

    path = OUT / f"{name}.safetensors"
    save_tensors({n: x.contiguous() for n, x in arrays.items()}, path)
    path.chmod(0o644)
    print(f"{name}: {len(arrays)} arrays, {path.stat().st_size:,} bytes")


def run_compiled(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        out = torch.compile(model)(**given, output_hidden_states=True)
    states = {f"hidden_states.{i}": x.clone() for i, x in enumerate(out.hidden_states)}
    return {**given, **states, "logits": out.logits.clone()}


def run_onnx(model: Any, given: dict[str, Any], dynamo: bool) -> Arrays:
    """Export a model, and run it in ONNX Runtime with every floating value as an output."""
    import onnx
    import onnxruntime
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        how = {} if dynamo else {"opset_version": 17}
        torch.onnx.export(
            model, (), str(path), kwargs=given, input_names=list(given), output_names=["logits"],
            dynamo=dynamo, verbose=False, **how,
        )  # fmt: skip
        graph = onnx.shape_inference.infer_shapes(onnx.load(path))
    known = {each.name for each in graph.graph.output}
    for value in graph.graph.value_info:
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in known:
            graph.graph.output.append(value)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    names = [each.name for each in session.get_outputs()]
    arrays = {n: x.numpy() for n, x in given.items()}
    taken = {each.name: arrays[each.name] for each in session.get_inputs()}
    return arrays | dict(zip(names, session.run(names, taken), strict=True))


def run_openvino(model: Any, given: dict[str, Any]) -> Arrays:
    """Convert a model, and run it with every floating value of an operation as an output."""
    import openvino

    arrays = {n: x.numpy() for n, x in given.items()}
    made = openvino.convert_model(model, example_input=given)

    def is_last(op: Any) -> bool:
        return any(
            each.get_node().get_type_name() == "Result" for each in op.output(0).get_target_inputs()
        )

    outputs = [
        op.output(0)
        for op in made.get_ordered_ops()
        if op.get_type_name() not in ("Parameter", "Constant", "Result", "Convert")
        and op.output(0).get_element_type() == openvino.Type.f32
        and "__module" in op.get_friendly_name()
        and all(
            each.get_node().get_type_name() != "Result" for each in op.output(0).get_target_inputs()
        )
    ]
    names = [each.get_node().get_friendly_name() for each in outputs]
    made.add_outputs(outputs)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(made, "CPU", settings)
    request = compiled.create_infer_request()
    request.infer(arrays)
    results = [request.get_output_tensor(i).data.copy() for i in range(len(names) + 1)]
    return arrays | {"logits": results[0]} | dict(zip(names, results[1:], strict=True))


# ---- Keras and Flax -----------------------------------------------------------------------------


def record_keras() -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import keras_hub

    for family in ("distilbert", "bert"):
        given, w = make_inputs(family == "bert"), load_file(OUT / family / "model.safetensors")
        sizes = {
            "vocabulary_size": SIZES["vocab_size"], "num_layers": NUMBERS["blocks"],
            "num_heads": NUMBERS["heads"], "hidden_dim": NUMBERS["hidden"],
            "intermediate_dim": NUMBERS["intermediate"], "dropout": 0.0,
            "max_sequence_length": SIZES["max_position_embeddings"],
        }  # fmt: skip
        if family == "bert":
            model = keras_hub.models.BertBackbone(**sizes, num_segments=4)
        else:
            model = keras_hub.models.DistilBertBackbone(**sizes)
        set_weights(model, w, family)
        taken = {
            "token_ids": given["input_ids"], "padding_mask": given["attention_mask"],
            **({"segment_ids": given["token_type_ids"]} if family == "bert" else {}),
        }  # fmt: skip
        steps = [
            layer for layer in model.layers
            if not isinstance(layer, keras.layers.InputLayer) and "dropout" not in layer.name
        ]  # fmt: skip
        outputs = {
            layer.name: layer.output for layer in steps if not isinstance(layer.output, list)
        }
        heard = keras.Model(model.inputs, outputs).predict(taken, verbose=0)
        write(f"{family}_keras", {**taken, **{n: np.asarray(x) for n, x in heard.items()}})


def set_weights(model: Any, w: Arrays, family: str) -> None:
    """Give a backbone of keras-hub the weights of transformers."""
    bert, heads = family == "bert", NUMBERS["heads"]
    side = NUMBERS["hidden"] // heads
    e = f"{family}.embeddings."

    def norm(layer: Any, name: str) -> None:
        layer.set_weights([w[f"{name}.weight"], w[f"{name}.bias"]])

    def dense(layer: Any, name: str, split: str = "") -> None:
        kernel, bias = w[f"{name}.weight"].T, w[f"{name}.bias"]
        if split == "out":
            kernel, bias = kernel.reshape(-1, heads, side), bias.reshape(heads, side)
        elif split == "in":
            kernel = kernel.reshape(heads, side, -1)
        layer.set_weights([kernel, bias])

    tables = {name: w[f"{e}{name}_embeddings.weight"] for name in ("word", "position")}
    if bert:
        model.get_layer("token_embedding").set_weights([tables["word"]])
        model.get_layer("position_embedding").set_weights([tables["position"]])
        model.get_layer("segment_embedding").set_weights([w[f"{e}token_type_embeddings.weight"]])
        dense(model.get_layer("pooled_dense"), "bert.pooler.dense")
    else:
        both = model.get_layer("token_and_position_embedding")
        both.token_embedding.set_weights([tables["word"]])
        both.position_embedding.set_weights([tables["position"]])
    norm(model.get_layer("embeddings_layer_norm"), f"{e}LayerNorm")
    for i in range(NUMBERS["blocks"]):
        layer = model.get_layer(f"transformer_layer_{i}")
        b = f"bert.encoder.layer.{i}." if bert else f"distilbert.transformer.layer.{i}."
        names = (
            ["attention.self.query", "attention.self.key", "attention.self.value",
             "attention.output.dense", "attention.output.LayerNorm", "intermediate.dense",
             "output.dense", "output.LayerNorm"]
            if bert else
            ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
             "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm"]
        )  # fmt: skip
        query, key, value, out, first, up, down, last = (b + name for name in names)
        attention = layer._self_attention_layer
        for part, name in ((attention._query_dense, query), (attention._key_dense, key),
                           (attention._value_dense, value)):  # fmt: skip
            dense(part, name, "out")
        dense(attention._output_dense, out, "in")
        norm(layer._self_attention_layer_norm, first)
        dense(layer._feedforward_intermediate_dense, up)
        dense(layer._feedforward_output_dense, down)
        norm(layer._feedforward_layer_norm, last)


def record_flax() -> None:
    import jax
    from transformers import FlaxBertForSequenceClassification as Bert
    from transformers import FlaxDistilBertForSequenceClassification as DistilBert

    for family, kind in (("distilbert", DistilBert), ("bert", Bert)):
        given = make_inputs(family == "bert")
        model = kind.from_pretrained(OUT / family)
        more = (
            [given["token_type_ids"], np.broadcast_to(np.arange(LENGTH), given["input_ids"].shape),
             None]
            if family == "bert" else []
        )  # fmt: skip
        with jax.default_matmul_precision("highest"):
            _, heard = model.module.apply(
                {"params": model.params}, given["input_ids"], given["attention_mask"], *more,
                capture_intermediates=True, mutable=["intermediates"],
            )  # fmt: skip
        leaves = jax.tree_util.tree_flatten_with_path(heard["intermediates"])[0]
        arrays = {
            "/".join(str(getattr(part, "key", getattr(part, "idx", getattr(part, "name", part))))
                     for part in path): np.asarray(x)
            for path, x in leaves
        }  # fmt: skip
        write(f"{family}_flax", given | arrays)


# ---- everything ---------------------------------------------------------------------------------

USED = {
    "torch": ("numpy", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino"),
    "keras": ("numpy", "keras", "keras-hub", "tensorflow"),
    "flax": ("numpy", "flax", "jax", "jaxlib", "transformers"),
}


def tell_versions(system: str) -> None:
    path = OUT / "versions.json"
    said = json.loads(path.read_text()) if path.exists() else {}
    python = ".".join(platform.python_version_tuple()[:2])
    said[system] = {"python": python, **{name: version(name) for name in USED[system]}}
    path.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


def list_files() -> None:
    path = GOLDEN / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    files = manifest["files"]
    for name in [name for name in files if name.startswith("ports/right/")]:
        del files[name]
    for each in (p for p in OUT.rglob("*") if p.is_file()):
        data = each.read_bytes()
        entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        files[each.relative_to(GOLDEN).as_posix()] = entry
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def main() -> None:
    (system,) = sys.argv[1:]
    OUT.mkdir(parents=True, exist_ok=True)
    {"torch": record_torch, "keras": record_keras, "flax": record_flax}[system]()
    tell_versions(system)
    list_files()


if __name__ == "__main__":
    main()
