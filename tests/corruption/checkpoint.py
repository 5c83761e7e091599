"""Small healthy checkpoints to spoil, and what a corruption is."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
VOCABULARY = "vocab.txt"
PICKLE = "pytorch_model.bin"

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a healthy folder: what to do, who is at fault, and whether it may load."""

    name: str  # "kind: what was done"
    apply: Callable[[Path], None]
    files: tuple[str, ...]  # the error names one of these
    structural: bool = True  # must be refused; the others may load
    sharded: bool = False  # wants the checkpoint in two shards

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]


# Every size differs from every other and from the defaults of DistilBERT, so that no mix-up fits.
SIZES = {
    "vocab_size": 60,
    "max_position_embeddings": 16,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 40,
}


def healthy_config() -> dict[str, Any]:
    """What transformers writes beside a sequence classifier of three labels."""
    labels = ("bad", "good", "the")
    return {
        "activation": "gelu",
        "architectures": ["DistilBertForSequenceClassification"],
        "attention_dropout": 0.1,
        "dropout": 0.1,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "initializer_range": 0.02,
        "label2id": {label: i for i, label in enumerate(labels)},
        "model_type": "distilbert",
        "pad_token_id": 0,
        "qa_dropout": 0.1,
        "seq_classif_dropout": 0.2,
        "sinusoidal_pos_embds": False,
        "tie_weights_": True,
        **SIZES,
    }


def healthy_tensors(rng: np.random.Generator) -> Tensors:
    """Random weights under the names and in the shapes of the configuration above."""
    dim, hidden = SIZES["dim"], SIZES["hidden_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "distilbert.embeddings.word_embeddings.weight": (SIZES["vocab_size"], dim),
        "distilbert.embeddings.position_embeddings.weight": (SIZES["max_position_embeddings"], dim),
        "distilbert.embeddings.LayerNorm.weight": (dim,),
        "distilbert.embeddings.LayerNorm.bias": (dim,),
        "pre_classifier.weight": (dim, dim),
        "pre_classifier.bias": (dim,),
        "classifier.weight": (3, dim),
        "classifier.bias": (3,),
    }
    for i in range(SIZES["n_layers"]):
        block = f"distilbert.transformer.layer.{i}"
        for norm in ("sa_layer_norm", "output_layer_norm"):
            shapes[f"{block}.{norm}.weight"] = shapes[f"{block}.{norm}.bias"] = (dim,)
        for linear in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes[f"{block}.attention.{linear}.weight"] = (dim, dim)
            shapes[f"{block}.attention.{linear}.bias"] = (dim,)
        shapes[f"{block}.ffn.lin1.weight"], shapes[f"{block}.ffn.lin1.bias"] = (
            (hidden, dim),
            (hidden,),
        )
        shapes[f"{block}.ffn.lin2.weight"], shapes[f"{block}.ffn.lin2.bias"] = (dim, hidden), (dim,)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def healthy_vocabulary() -> list[str]:
    """Sixty pieces: the special tokens, the alphabet twice, and three words."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *alphabet, *(f"##{letter}" for letter in alphabet), "bad", "good", "the"]


def healthy_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer as DistilBERT has it."""
    vocabulary = {piece: i for i, piece in enumerate(healthy_vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(piece, vocabulary[piece]) for piece in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizer


def write_json(path: Path, content: object) -> None:
    """Write what JSON can say, and the NaN and Infinity that Python adds to it."""
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def write_checkpoint(folder: Path, rng: np.random.Generator, *, sharded: bool = False) -> None:
    """Write a healthy sequence classifier, its weights in one file or in two shards."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, healthy_config())
    healthy_tokenizer().save(str(folder / TOKENIZER))
    write_json(
        folder / TOKENIZER_CONFIG,
        {
            "do_lower_case": True,
            "mask_token": "[MASK]",
            "model_max_length": SIZES["max_position_embeddings"],
            "strip_accents": None,
            "tokenize_chinese_chars": True,
            "tokenizer_class": "DistilBertTokenizer",
        },
    )
    tensors = healthy_tensors(rng)
    if not sharded:
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        return
    names = sorted(tensors)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    for shard, half in zip(SHARDS, halves, strict=True):
        save_file({name: tensors[name] for name in half}, folder / shard, metadata={"format": "pt"})
    places = {name: shard for shard, half in zip(SHARDS, halves, strict=True) for name in half}
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})
