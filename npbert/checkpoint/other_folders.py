"""Folders that are not what npbert runs: what each is, in a sentence, and what to do about it.

They are known by the names of their files; the hub's listings are looked at in the same way, before
anything is fetched.  There is no NumPy here.
"""

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple

from npbert.checkpoint import CONFIG, MODULES, WEIGHTS
from npbert.checkpoint.reading import is_listed, read_json_object
from npbert.errors import CheckpointError, listing

SAVE: Final = "save_pretrained of transformers"
ORIGINAL: Final = f"take the model that it was made from, as {SAVE} writes it"


class OtherFormat(NamedTuple):
    """Something else than a model of transformers in PyTorch's weights."""

    patterns: tuple[str, ...]  # of its files' names, the telling one first
    title: str
    remedy: str


ADAPTER: Final = "adapter_config.json"
# The first that fits is told, so that what tells more stands before what tells less.
OTHER_FORMATS: Final = (
    OtherFormat(
        (ADAPTER, "adapter_model.safetensors", "adapter_model.bin"),
        "an adapter of peft, and no whole model",
        "merge it into its model (merge_and_unload of peft, then save_pretrained) and pass that "
        "folder",
    ),
    OtherFormat(
        ("pytorch_adapter.bin", "pytorch_model_head.bin"), "an adapter, and no whole model",
        "merge it into its model (merge_adapter of adapters, then save_pretrained) and pass that "
        "folder",
    ),
    OtherFormat(("model_index.json",), "a pipeline of diffusers", "npbert runs encoders of text"),
    OtherFormat(("gliner_config.json",), "a GLiNER model", "npbert runs its encoder's family only"),
    OtherFormat(
        ("zero_to_fp32.py", "global_step*", "mp_rank_*"), "a checkpoint of DeepSpeed",
        "run its zero_to_fp32.py, which writes pytorch_model.bin",
    ),
    OtherFormat(
        ("pytorch_model_fsdp*", "*.distcp", "__0_*.distcp"), "a sharded checkpoint of FSDP",
        f"merge it (accelerate merge-weights) and write it with {SAVE}",
    ),
    OtherFormat(("*.gguf", "*.ggml"), "a model in GGUF", ORIGINAL),
    OtherFormat(("*.onnx", "onnx/*.onnx", "*.ort"), "an export to ONNX", ORIGINAL),
    OtherFormat(
        ("openvino_*.xml", "openvino/*.xml", "openvino_*.bin"), "an export to OpenVINO", ORIGINAL
    ),
    OtherFormat(("*.tflite",), "an export to TensorFlow Lite", ORIGINAL),
    OtherFormat(
        ("*.mlpackage", "*.mlmodel", "*.mlmodelc", "coreml"), "an export to Core ML", ORIGINAL
    ),
    OtherFormat(("*.engine", "*.plan", "*.trt"), "an engine of TensorRT", ORIGINAL),
    OtherFormat(("*.ot",), "a model of rust-bert", ORIGINAL),
    OtherFormat(
        ("tf_model*.h5", "*.h5", "*.keras", "saved_model.pb"), "a model of TensorFlow",
        "load it with transformers (from_tf=True) and write it with save_pretrained",
    ),
    OtherFormat(
        ("*.ckpt.index", "*.ckpt.data-*", "*.ckpt.meta", "checkpoint"),
        "a checkpoint of TensorFlow",
        "convert it with transformers (convert_bert_original_tf_checkpoint_to_pytorch.py)",
    ),
    OtherFormat(
        ("flax_model*.msgpack", "*.msgpack"), "a model of Flax",
        "load it with transformers (from_flax=True) and write it with save_pretrained",
    ),
    OtherFormat(
        ("weights.npz", "weights.*.safetensors"), "a model of MLX", ORIGINAL
    ),
    OtherFormat(
        ("*.ckpt",), "a checkpoint of Lightning",
        f"load it with the class it was trained by, and write its model with {SAVE}",
    ),
    OtherFormat(
        ("*.pt", "*.pth", "traced_*", "*.torchscript"), "weights that torch.save wrote by hand",
        f"load them into their model and write it with {SAVE}, or name them pytorch_model.bin if "
        "they are a state_dict",
    ),
    OtherFormat(("config.cfg", "meta.json"), "a pipeline of spaCy", "npbert runs none of its"),
)  # fmt: skip
# What tensors are called that stand for others, packed into fewer bits, or for changes of them.
QUANTIZED: Final = {
    ".qweight": "GPTQ or AWQ", ".qzeros": "GPTQ or AWQ", ".SCB": "bitsandbytes",
    ".absmax": "bitsandbytes", ".quant_map": "bitsandbytes", ".weight_packed": "compressed-tensors",
    ".weight_scale": "compressed-tensors", ".weight_scale_inv": "FP8", ".weight._data": "quanto",
    ".weight._scale": "quanto", ".W_q": "HQQ", ".codebooks": "AQLM",
    "._packed_params": "PyTorch", "._packed_params.dtype": "PyTorch",
    "._packed_params._packed_params": "PyTorch",
}  # fmt: skip
UNMERGED: Final = (".lora_A.", ".lora_B.", ".base_layer.", ".modules_to_save.", ".ia3_l.")
ARCHIVES: Final = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
CHECKPOINT: Final = re.compile(r"checkpoint-(\d{1,12})")
HUB_CACHE: Final = re.compile(r"models--.+")


def explain_names(names: Collection[str]) -> str | None:
    """Say what files of these names are, if they are a model of another kind, and what to do."""
    for row in OTHER_FORMATS:
        found = fitting_names(names, row.patterns)
        if found:
            return f"is {row.title} ({listing(found, 2)}); {row.remedy}"
    return None


def fitting_names(names: Iterable[str], patterns: tuple[str, ...]) -> list[str]:
    """Return the names that fit the first pattern which any fits."""
    in_order = sorted(names)
    for pattern in patterns:
        if found := [name for name in in_order if fnmatchcase(name, pattern)]:
            return found
    return []


def explain_file(path: Path) -> str:
    """Say what a file is that was passed for a folder, and what to pass."""
    if path.name in (CONFIG, MODULES, *WEIGHTS) or path.suffix == ".safetensors":
        return f"is a file of a model; pass its folder, {path.parent}"
    if path.suffix in ARCHIVES:
        return "is an archive; unpack it and pass the folder"
    other = explain_names([path.name])
    return other or f"is a file, expected a folder with {CONFIG} and {WEIGHTS[0]}"


def explain_tensors(names: Iterable[str], quantization: Any) -> str | None:
    """Say what tensors of these names are, if they are no plain weights, and what to do.

    `quantization` is what config.json says of it.
    """
    for name in names:
        if parts := [part for part in UNMERGED if part in name]:
            return (
                f"has the matrices of an adapter ({name}) beside the weights, {parts[0][1:-1]}, "
                "which are not merged; do that with merge_and_unload of peft, and save_pretrained"
            )
        for end, title in QUANTIZED.items():
            if name.endswith(end) or f"{end}." in name:
                said = quantization.get("quant_method") if isinstance(quantization, dict) else None
                return (
                    f"is quantised by {said if isinstance(said, str) else title} ({name}), and "
                    "npbert computes with floats; take the model that it was made from, or write "
                    "it with dequantize and save_pretrained of transformers"
                )
    return None


def explain_folder(folder: Path) -> str:
    """Say what a folder is that has no model for npbert, and what to do about it."""
    names = sorted(path.name for path in folder.iterdir())
    inside = [f"{name}/{each.name}" for name in names for each in list_folder(folder / name)]
    known = [*names, *inside]
    holds = f"it holds {listing(names) or 'nothing'}"
    if ADAPTER in names:
        said = read_json_object(folder / ADAPTER)
        base, kind = said.get("base_model_name_or_path"), said.get("peft_type")
        remedy = OTHER_FORMATS[0].remedy
        title = f"an adapter{describe_adapter(kind, base)}, and no whole model"
        return f"is {title} ({ADAPTER}); {remedy}"
    if MODULES in names and CONFIG not in names:
        return (
            f"is a folder of sentence-transformers ({MODULES}), whose encoder lies below; ask it "
            "for the task sentence-embedding, or pass the folder of its encoder as subfolder="
        )
    below = [n for n in names if {f"{n}/{CONFIG}", f"{n}/{ADAPTER}"} & set(known)]
    runs = sorted((int(m[1]), name) for name in below if (m := CHECKPOINT.fullmatch(name)))
    if CONFIG not in names and runs:
        return (
            f"is the folder of a training run, and has no {CONFIG}; its last checkpoint is "
            f"{runs[-1][1]}: pass {folder / runs[-1][1]}"
        )
    if CONFIG not in names and below:
        return f"has no {CONFIG}, but {listing(below)} below it may: pass {folder / below[0]}"
    if caches := [name for name in names if HUB_CACHE.fullmatch(name)]:
        owner = caches[0].removeprefix("models--").replace("--", "/")
        return f"is a cache of models from the hub; pass the name of one, as {owner}"
    if other := explain_names(known):
        return other
    if CONFIG in names:
        return f"has no {' nor '.join(WEIGHTS)}; {holds}"
    if {"tokenizer.json", "vocab.txt"} & set(names) and not set(WEIGHTS) & set(names):
        return f"has a tokenizer, but neither {CONFIG} nor weights; {holds}"
    return (
        f"has no {CONFIG}, which says what the weights are; {holds}; a model's folder is what "
        f"{SAVE} writes"
    )


def describe_adapter(kind: Any, base: Any) -> str:
    """Return of which kind an adapter is, and of which model, as far as they are said."""
    kinds = f" ({kind})" if isinstance(kind, str) else ""
    return f"{kinds} for {base}" if isinstance(base, str) and base else kinds


def list_folder(path: Path) -> list[Path]:
    """Return what a folder holds; nothing of what is none, or cannot be read."""
    try:
        return sorted(path.iterdir()) if path.is_dir() else []
    except OSError:
        return []


def find_in_cache(folder: Path) -> Path:
    """Return the snapshot that a repository's folder in the hub's cache stands for.

    Any other folder is returned as it is.  Raises CheckpointError where it has not one snapshot.
    """
    if not HUB_CACHE.fullmatch(folder.name) or not (folder / "snapshots").is_dir():
        return folder
    ref = folder / "refs" / "main"
    commits = [path.name for path in list_folder(folder / "snapshots")]
    commit = ref.read_text("utf-8", "replace").strip() if ref.is_file() else ""
    if commit not in commits and len(commits) != 1:
        raise CheckpointError(
            f"{folder}: is a repository in the hub's cache with the snapshots "
            f"{listing(commits) or 'none'}, and refs/main names none of them; pass one of them"
        )
    return folder / "snapshots" / (commit if commit in commits else commits[0])


def require_model_files(folder: Path) -> None:
    """Refuse a folder that has no config.json, or no weights.  Raises CheckpointError."""
    if not is_listed(folder / CONFIG) or not any(is_listed(folder / name) for name in WEIGHTS):
        raise CheckpointError(f"{folder}: {explain_folder(folder)}")
