"""Spoilt settings: config.json."""

from pathlib import Path
from typing import Any

from corruption.checkpoint import CONFIG, SIZES, WEIGHTS, Corruption
from corruption.files import (
    DIGITS,
    REMOVED,
    edited,
    fields,
    huge,
    json_faults,
    replaced,
    rewritten,
)
from corruption.weights import tensors

ABSURD = 10**12
POSITIONS = "distilbert.embeddings.position_embeddings.weight"


def config(name: str, *, structural: bool = True, **changes: Any) -> Corruption:
    """A fault of the configuration alone."""
    return fields(f"config: {name}", CONFIG, structural=structural, **changes)


def misfit(name: str, *, structural: bool = True, **changes: Any) -> Corruption:
    """A configuration that could be right, if the weights were others: either file is named."""
    return fields(f"config: {name}", CONFIG, WEIGHTS, structural=structural, **changes)


def sizes() -> list[Corruption]:
    """Everything that is not a sensible positive integer, in the place of each size."""
    wrong = {
        "true": True,
        "null": None,
        "negative": lambda size: -size,
        "zero": 0,
        "a fraction": lambda size: size + 0.5,
        "a string": str,
        "a list": lambda size: [size],
        "10**12": ABSURD,
    }
    return [
        misfit(f"{field} {name}", **{field: value(size) if callable(value) else value})
        for field, size in SIZES.items()
        for name, value in wrong.items()
    ]


def labels(name: str, value: object, *, structural: bool = True) -> Corruption:
    return misfit(f"id2label {name}", structural=structural, id2label=value, label2id=REMOVED)


def pruned(name: str, value: object) -> Corruption:
    return misfit(f"pruned_heads {name}", pruned_heads=value)


def _giant_sinusoids(folder: Path) -> None:
    """No position table is stored, and the one to compute would fill a warehouse of disks."""
    tensors("", lambda content: content.pop(POSITIONS)).apply(folder)
    config("", sinusoidal_pos_embds=True, max_position_embeddings=ABSURD).apply(folder)


CONFIGS = [
    *json_faults("config", CONFIG),
    huge("config: 300 MB", CONFIG, b'{"dim": 24, "'),
    replaced("config: empty object", CONFIG, "{}"),
    rewritten(
        "config: dim of 10,000 digits",
        CONFIG,
        lambda data: data.replace(b'"dim": 24', b'"dim": ' + DIGITS.encode()),
    ),
    rewritten(
        "config: dim of 1e999",
        CONFIG,
        lambda data: data.replace(b'"dim": 24', b'"dim": 1e999'),
    ),
    rewritten(
        "config: a byte order mark",
        CONFIG,
        lambda data: b"\xef\xbb\xbf" + data,
        structural=False,
    ),
    rewritten(
        "config: UTF-16", CONFIG, lambda data: data.decode().encode("utf-16"), structural=False
    ),
    rewritten(
        "config: one key twice",
        CONFIG,
        lambda data: data.replace(b'"dim": 24', b'"dim": 48, "dim": 24'),
        structural=False,
    ),
    *sizes(),
    misfit("sizes of another model", **{field: size * 2 for field, size in SIZES.items()}),
    misfit("heads that do not divide dim", n_heads=5),
    misfit("hidden_dim one more", hidden_dim=41),
    misfit("vocabulary smaller than the table", vocab_size=59),
    Corruption("config: 10**12 computed positions", _giant_sinusoids, (CONFIG, WEIGHTS)),
    misfit("three blocks", n_layers=3),
    misfit("one block", n_layers=1, structural=False),
    misfit("four heads", n_heads=4, structural=False),
    misfit("dim 24.0", dim=24.0, structural=False),
    misfit("dim and hidden_size disagree", hidden_size=48),
    misfit("n_layers and num_hidden_layers disagree", num_hidden_layers=1),
    misfit("n_heads and num_attention_heads disagree", num_attention_heads=4),
    misfit("dim and hidden_size agree", hidden_size=24, structural=False),
    config("activation unknown", activation="gelou"),
    config("activation with learned parameters", activation="prelu"),
    config("activation a number", activation=7),
    config("activation a list", activation=["gelu"]),
    config("activation an object", activation={"gelu": 1}),
    config("activation a dunder", activation="__class__"),
    config("activation in capitals", activation="GELU", structural=False),
    config("dropout 2.0", dropout=2.0),
    config("dropout negative", dropout=-0.1),
    config("dropout NaN", dropout=float("nan")),
    config("dropout true", dropout=True),
    config("dropout a string", dropout="0.1"),
    config("attention_dropout Infinity", attention_dropout=float("inf")),
    config("attention_dropout a list", attention_dropout=[0.1]),
    config("seq_classif_dropout a string", seq_classif_dropout="none"),
    config("qa_dropout 1.5", qa_dropout=1.5),
    config("initializer_range a string", initializer_range="0.02"),
    config("initializer_range negative", initializer_range=-1.0),
    config("pad_token_id a string", pad_token_id="zero"),
    config("pad_token_id null", pad_token_id=None, structural=False),
    config("pad_token_id 10**12", pad_token_id=ABSURD, structural=False),
    config("sinusoidal_pos_embds a string", sinusoidal_pos_embds="no"),
    config("model_type of another family", model_type="bert"),
    config("model_type a number", model_type=7),
    config("model_type missing", model_type=REMOVED, structural=False),
    config("architectures unknown", architectures=["BertForMaskedLM"]),
    config("architectures a string", architectures="DistilBertForSequenceClassification"),
    config("architectures an object", architectures={"0": "DistilBertModel"}),
    config("architectures of numbers", architectures=[7]),
    config("architectures empty", architectures=[], structural=False),
    config("architectures missing", architectures=REMOVED, structural=False),
    misfit("architecture whose head is missing", architectures=["DistilBertForQuestionAnswering"]),
    misfit("architecture for the masks", architectures=["DistilBertForMaskedLM"]),
    misfit(
        "architecture of the same head",
        architectures=["DistilBertForTokenClassification"],
        structural=False,
    ),
    misfit("num_labels 10**12", num_labels=ABSURD, id2label=REMOVED, label2id=REMOVED),
    misfit("num_labels negative", num_labels=-3, id2label=REMOVED, label2id=REMOVED),
    misfit("num_labels against id2label", num_labels=5, structural=False),
    labels("one too few", {"0": "a", "1": "b"}),
    labels("one too many", {"0": "a", "1": "b", "2": "c", "3": "d"}),
    labels("with a gap", {"0": "a", "1": "b", "3": "c"}),
    labels("negative", {"-1": "a", "0": "b", "1": "c"}),
    labels("up to 10**12", {"0": "a", "1": "b", str(ABSURD): "c"}),
    labels("of words", {"a": "0", "b": "1", "c": "2"}),
    labels("of 10,000 digits", {"0": "a", "1": "b", DIGITS: "c"}),
    labels("one number written twice", {"0": "a", "1": "b", "01": "c"}),
    labels("a list", ["a", "b", "c"]),
    labels("a string", "abc"),
    labels("to numbers", {"0": 5, "1": 6, "2": 7}, structural=False),
    labels("empty", {}, structural=False),
    pruned("a string", "0"),
    pruned("a list", [0]),
    pruned("not lists", {"0": 1}),
    pruned("of words", {"first": [0]}),
    pruned("of a head out of range", {"0": [3]}),
    pruned("of a negative head", {"0": [-1]}),
    pruned("of half a head", {"0": [0.5]}),
    pruned("of head 10**12", {"1": [ABSURD]}),
    pruned("of a block out of range", {"2": [0]}),
    pruned("of a block of 10,000 digits", {DIGITS: [0]}),
    pruned("of all heads", {"0": [0, 1, 2]}),
    pruned("against the weights", {"0": [0]}),
    config("unknown fields", unknown={"deep": [1, {"a": None}]}, torch_dtype=3, structural=False),
    edited(
        "config: a lone surrogate",
        CONFIG,
        lambda c: c.update({"\ud800": "\udfff"}),
        structural=False,
    ),
]
