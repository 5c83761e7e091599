"""Folders that are no model for npbert are told for what they are, and with what to do."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_raw
from safetensors.numpy import load_file, save_file

import npbert
from npbert.checkpoint.other_folders import OTHER_FORMATS, explain_names
from npbert.cli import main

GOLDEN = Path(__file__).parent.parent / "golden" / "tasks"
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0f" * 32 + b"\nsize 268435456\n"
)
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
TEXT = "Anna walked to the old house."


def copy_model(target: Path, name: str = "classes5") -> Path:
    shutil.copytree(GOLDEN / name, target)
    return target


def rewrite_tensors(folder: Path, names: Mapping[str, str], **changes: Any) -> Path:
    """Give tensors other names, by what theirs begin with."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    renamed = {}
    for name, array in tensors.items():
        start = next((start for start in names if name.startswith(start)), "")
        renamed[names.get(start, "") + name.removeprefix(start)] = array
    save_file(renamed | changes, path, {"format": "pt"})
    return folder


def told(folder: Path | str, **how: Any) -> str:
    with pytest.raises(npbert.NpbertError) as caught:
        npbert.pipeline("text-classification", folder, **how)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder}: ")


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_pointer_of_git_lfs_is_told_whatever_file_it_stands_for(
    tmp_path: Path, name: str
) -> None:
    folder = copy_model(tmp_path / "m")
    (folder / name).write_bytes(POINTER)
    assert told(folder) == (
        f"{folder / name}: is a Git LFS pointer, which stands for a file of 268,435,456 bytes that "
        "was not downloaded; run git lfs pull in its folder, or load the model by its name on the "
        "hub"
    )


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "vocab.txt", "model.safetensors.index.json", "added_tokens.json"]
)
def test_so_is_one_of_a_file_that_other_folders_have(tmp_path: Path, name: str) -> None:
    folder = copy_model(tmp_path / "m")
    for other in ("tokenizer.json", *(["model.safetensors"] if "model" in name else [])):
        (folder / other).unlink()
    (folder / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n")
    (folder / name).write_bytes(POINTER)
    assert told(folder).startswith(f"{folder / name}: is a Git LFS pointer, ")


def test_so_is_one_of_a_module(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "m", "st_dense")
    (folder / "2_Dense" / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(npbert.CheckpointError, match=r"2_Dense/model.safetensors: is a Git LFS"):
        npbert.pipeline("sentence-embedding", folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_web_page_in_place_of_a_file_is_told(tmp_path: Path, name: str) -> None:
    folder = copy_model(tmp_path / "m")
    (folder / name).write_bytes(PAGE)
    assert told(folder).startswith(f"{folder / name}: is a web page, which a server sent ")


def test_an_adapter_is_told_with_the_model_that_it_changes(tmp_path: Path) -> None:
    said = {"peft_type": "LORA", "base_model_name_or_path": "distilbert/distilbert-base-uncased"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    (tmp_path / "adapter_model.safetensors").touch()
    assert told(tmp_path) == (
        "is an adapter (LORA) for distilbert/distilbert-base-uncased, and no whole model "
        "(adapter_config.json); merge it into its model (merge_and_unload of peft, then "
        "save_pretrained) and pass that folder"
    )


def test_a_training_run_is_told_with_its_last_checkpoint(tmp_path: Path) -> None:
    for number in (500, 1000, 50):
        copy_model(tmp_path / f"checkpoint-{number}")
    (tmp_path / "runs").mkdir()
    (tmp_path / "training_args.bin").touch()
    assert told(tmp_path) == (
        "is the folder of a training run, and has no config.json; its last checkpoint is "
        f"checkpoint-1000: pass {tmp_path / 'checkpoint-1000'}"
    )


def test_a_training_run_of_an_adapter_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "adapter_config.json").write_text("{}")
    assert told(tmp_path).endswith(
        f"its last checkpoint is checkpoint-7: pass {tmp_path}/checkpoint-7"
    )


def test_a_folder_with_a_model_below_it_is_told_so(tmp_path: Path) -> None:
    copy_model(tmp_path / "final")
    assert told(tmp_path) == (
        f"has no config.json, but final below it may: pass {tmp_path / 'final'}"
    )


# What lies in a folder, config.json beside it or not, and what it is.
KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "ONNX": (("model.onnx",), "an export to ONNX (model.onnx)"),
    "ONNX below": (("onnx/model_quantized.onnx",), "an export to ONNX (onnx/model_quantized.onnx)"),
    "OpenVINO": (("openvino_model.xml", "openvino_model.bin"), "an export to OpenVINO"),
    "GGUF": (("model-q8_0.gguf",), "a model in GGUF (model-q8_0.gguf)"),
    "TensorFlow": (("tf_model.h5",), "a model of TensorFlow (tf_model.h5)"),
    "a SavedModel": (("saved_model.pb", "variables/variables.index"), "a model of TensorFlow"),
    "TensorFlow 1": (
        ("bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001", "bert_config.json"),
        "a checkpoint of TensorFlow (bert_model.ckpt.index)",
    ),
    "Flax": (("flax_model.msgpack",), "a model of Flax (flax_model.msgpack)"),
    "Core ML": (("model.mlpackage/Manifest.json",), "an export to Core ML (model.mlpackage)"),
    "TensorFlow Lite": (("model.tflite",), "an export to TensorFlow Lite (model.tflite)"),
    "rust-bert": (("rust_model.ot",), "a model of rust-bert (rust_model.ot)"),
    "DeepSpeed": (("zero_to_fp32.py", "global_step10/x.pt"), "a checkpoint of DeepSpeed"),
    "FSDP": (("pytorch_model_fsdp_0/__0_0.distcp",), "a sharded checkpoint of FSDP"),
    "Lightning": (("epoch=3.ckpt",), "a checkpoint of Lightning (epoch=3.ckpt)"),
    "torch.save": (("model.pt",), "weights that torch.save wrote by hand (model.pt)"),
    "adapters": (("pytorch_adapter.bin", "head_config.json"), "an adapter, and no whole model"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_config", [True, False])
def test_another_format_is_told_by_its_name_with_what_to_do(
    tmp_path: Path, kind: str, with_config: bool
) -> None:
    files, title = KINDS[kind]
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    if with_config:
        shutil.copy(GOLDEN / "classes5" / "config.json", tmp_path)
    message = told(tmp_path)
    assert message.startswith(f"is {title}")
    assert ";" in message


def test_a_format_beside_the_weights_is_not_in_their_way(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "m")
    for name in ("model.onnx", "tf_model.h5", "flax_model.msgpack", "training_args.bin"):
        (folder / name).touch()
    assert "label" in npbert.pipeline("text-classification", folder)(TEXT)


def test_the_files_of_pytorch_are_no_other_format() -> None:
    assert explain_names({"config.json", "model.safetensors", "vocab.txt", "merges.txt"}) is None
    assert len({row.title for row in OTHER_FORMATS}) == len(OTHER_FORMATS)


def test_a_tokenizer_alone_is_told(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "classes5" / "tokenizer.json", tmp_path)
    assert told(tmp_path) == (
        "has a tokenizer, but neither config.json nor weights; it holds tokenizer.json"
    )


def write_cache(folder: Path, *commits: str, main: str | None = None) -> Path:
    for commit in commits:
        copy_model(folder / "snapshots" / commit)
    if main is not None:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(main)
    return folder


ONE, OTHER = "1" * 40, "2" * 40


@pytest.mark.parametrize(
    ("commits", "main"), [((ONE,), ONE), ((ONE, OTHER), OTHER), ((ONE,), None)]
)
def test_a_repository_of_the_hubs_cache_stands_for_its_snapshot(
    tmp_path: Path, commits: tuple[str, ...], main: str | None
) -> None:
    folder = write_cache(tmp_path / "models--me--mine", *commits, main=main)
    task = npbert.pipeline("text-classification", folder)
    assert task.folder == folder / "snapshots" / (main or ONE)
    assert "label" in task(TEXT)


def test_one_of_several_snapshots_is_asked_for(tmp_path: Path) -> None:
    folder = write_cache(tmp_path / "models--me--mine", ONE, OTHER)
    assert told(folder) == (
        f"is a repository in the hub's cache with the snapshots {ONE}, {OTHER}, and refs/main "
        "names none of them; pass one of them"
    )


def test_a_whole_cache_is_told_with_a_name_in_it(tmp_path: Path) -> None:
    write_cache(tmp_path / "models--me--mine", ONE, main=ONE)
    assert told(tmp_path) == ("is a cache of models from the hub; pass the name of one, as me/mine")


ADDRESSES = {
    "https://huggingface.co/owner/name": "pass owner/name",
    "https://huggingface.co/owner/name/": "pass owner/name",
    "https://hf.co/owner/name/tree/v2": "pass owner/name, with revision='v2'",
    "https://huggingface.co/owner/name/blob/main/config.json": "pass owner/name",
    "huggingface.co/owner/name": "pass owner/name",
    "git@hf.co:owner/name.git": "pass owner/name",
    "hf://owner/name": "pass owner/name",
    "https://huggingface.co/datasets/owner/name": "as in owner/name",
    "s3://bucket/name": "as in owner/name",
    "file:///models/name": "as in owner/name",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_told_with_the_name_of_its_repository(address: str) -> None:
    message = told(address, offline=True)
    assert message.startswith("is an address")
    assert message.endswith(ADDRESSES[address])


NAMES = {
    "owner/name@v2": "of a repository on the hub pass owner/name, with revision='v2'",
    "owner/name/sub": "of a repository on the hub pass owner/name, with subfolder='sub'",
    "models--owner--name": "of the repository on the hub pass 'owner/name'",
    "owner/name/": "of the repository on the hub pass the str 'owner/name'",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_with_something_behind_it_is_told_how_to_say_that(name: str) -> None:
    assert told(name).endswith(f"model.safetensors; {NAMES[name]}")


FILES = {
    "model.safetensors": "is a file of a model; pass its folder, ",
    "config.json": "is a file of a model; pass its folder, ",
    "model.tar.gz": "is an archive; unpack it and pass the folder",
    "model.onnx": "is an export to ONNX (model.onnx); ",
    "model.gguf": "is a model in GGUF (model.gguf); ",
    "letter.txt": "is a file, expected a folder with config.json and model.safetensors",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_in_place_of_a_folder_is_told_with_what_to_pass(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert told(tmp_path / name).startswith(FILES[name])


WRAPPERS: dict[str, dict[str, str]] = {
    "torch.compile": {"": "_orig_mod."},
    "DDP": {"": "module."},
    "both": {"": "_orig_mod.module."},
    "the other way round": {"": "module._orig_mod."},
    "peft": {"": "base_model.model."},
    "Lightning": {"": "model."},
    "FSDP": {"": "_fsdp_wrapped_module."},
    "Fabric": {"": "_forward_module."},
    "a part that is compiled": {"distilbert.": "distilbert._orig_mod."},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("model", ["classes5", "bert_classes"])
def test_prefixes_of_wrappers_are_left_out(tmp_path: Path, wrapper: str, model: str) -> None:
    names = {
        key.replace("distilbert", "bert") if "bert_" in model else key: value.replace(
            "distilbert", "bert"
        )
        if "bert_" in model
        else value
        for key, value in WRAPPERS[wrapper].items()
    }
    folder = rewrite_tensors(copy_model(tmp_path / "m", model), names)
    ours = npbert.pipeline("text-classification", folder)(TEXT)
    assert ours == npbert.pipeline("text-classification", GOLDEN / model)(TEXT)


def test_a_prefix_of_ones_own_is_named(tmp_path: Path) -> None:
    folder = rewrite_tensors(
        copy_model(tmp_path / "m"),
        {"distilbert.": "backbone.", "pre_classifier": "a", "class": "b"},
    )
    message = told(folder)
    assert "its tensors begin with 'backbone.' (backbone." in message
    assert message.endswith(
        "write the model inside with save_pretrained, or the tensors without that"
    )


LAYER = "distilbert.transformer.layer.0.attention.q_lin"
QUANTIZED: dict[str, tuple[dict[str, str], str | None, str]] = {
    "bitsandbytes 8": ({"weight": "int8", "SCB": "float32"}, "bitsandbytes", "bitsandbytes"),
    "bitsandbytes 4": ({"weight": "uint8", "weight.absmax": "float32"}, None, "bitsandbytes"),
    "GPTQ": ({"qweight": "int32", "qzeros": "int32", "scales": "float16"}, "gptq", "gptq"),
    "AWQ": ({"qweight": "int32", "qzeros": "int32"}, "awq", "awq"),
    "compressed-tensors": ({"weight_packed": "int32"}, "compressed-tensors", "compressed-tensors"),
    "quanto": ({"weight._data": "int8", "weight._scale": "float32"}, None, "quanto"),
    "HQQ": ({"W_q": "uint8"}, "hqq", "hqq"),
}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_weights_in_fewer_bits_are_told_by_how_they_were_made(tmp_path: Path, kind: str) -> None:
    parts, method, title = QUANTIZED[kind]
    folder = copy_model(tmp_path / "m")
    if method:
        said = json.loads((folder / "config.json").read_text())
        said["quantization_config"] = {"quant_method": method}
        (folder / "config.json").write_text(json.dumps(said))
    added = {f"{LAYER}.{name}": np.ones(4, dtype) for name, dtype in parts.items()}
    message = told(rewrite_tensors(folder, {f"{LAYER}.weight": "gone"}, **added))
    assert message.startswith(f"is quantised by {title} ({LAYER}.")
    assert message.endswith("write it with dequantize and save_pretrained of transformers")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4"])
def test_so_are_floats_of_eight_bits(tmp_path: Path, dtype: str) -> None:
    folder = copy_model(tmp_path / "m")
    entries = {f"{LAYER}.weight": (dtype, (4,), b"\0" * 4)}
    path = write_raw(folder / "model.safetensors", entries)
    assert told(folder) == (
        f"{path}: {LAYER}.weight: is quantised, '{dtype}'; take the model that it was made from"
    )


def test_plain_weights_of_a_model_that_was_once_quantised_are_loaded(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "m")
    said = json.loads((folder / "config.json").read_text())
    said["quantization_config"] = {"quant_method": "bitsandbytes"}
    (folder / "config.json").write_text(json.dumps(said))
    assert "label" in npbert.pipeline("text-classification", folder)(TEXT)


def test_an_adapter_that_is_not_merged_is_told(tmp_path: Path) -> None:
    added = {f"base_model.model.{LAYER}.lora_A.default.weight": np.ones((2, 2), np.float32)}
    folder = rewrite_tensors(copy_model(tmp_path / "m"), {"": "base_model.model."}, **added)
    assert told(folder) == (
        f"has the matrices of an adapter (base_model.model.{LAYER}.lora_A.default.weight) beside "
        "the weights, lora_A, which are not merged; do that with merge_and_unload of peft, and "
        "save_pretrained"
    )


def test_an_adapter_beside_a_model_is_told(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "m")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.warns(npbert.NpbertWarning, match="has an adapter beside its weights"):
        npbert.pipeline("text-classification", folder)


def test_info_tells_of_a_folder_of_sentence_transformers(tmp_path: Path, capsys: Any) -> None:
    folder = copy_model(tmp_path / "m", "st_prompts")
    said = json.loads((folder / "config.json").read_text())
    said["architectures"] = ["DistilBertForMaskedLM"]  # whose head is not there
    (folder / "config.json").write_text(json.dumps(said))
    (folder / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                 "sentence_bert_config.json"):  # fmt: skip
        (folder / name).rename(folder / "0_Transformer" / name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    assert main(["info", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["architecture"] == "base"
    assert facts["sentence-transformers"] == {
        "modules": ["Transformer", "Pooling"], "dimensions": 72,
        "pooling": ["cls", "mean", "weightedmean"], "max_length": 20,
        "prompts": {"document": "", "passage": "the story of ", "query": "find: "},
        "default_prompt_name": "query", "similarity": "dot", "truncate_dim": None,
    }  # fmt: skip
    assert told(folder).startswith("is a folder of sentence-transformers (modules.json), whose ")
