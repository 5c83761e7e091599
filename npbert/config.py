"""config.json, read once and checked once.

A field has one name here and one in config.json; both are accepted wherever a configuration is
read, and what npbert does not know is carried along, so that saving loses nothing.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

from npbert.errors import ConfigError, listed, nearest, shown
from npbert.textbook import ACTIVATIONS

ARCHITECTURES: Final = {
    "base": "DistilBertModel",
    "for_masked_language_modeling": "DistilBertForMaskedLM",
    "for_sequence_classification": "DistilBertForSequenceClassification",
    "for_token_classification": "DistilBertForTokenClassification",
    "for_question_answering": "DistilBertForQuestionAnswering",
    "for_multiple_choice": "DistilBertForMultipleChoice",
}

# Our name: the names in config.json, the one that is written first.
FILE_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "vocab_size": ("vocab_size",),
    "max_positions": ("max_position_embeddings",),
    "hidden_size": ("dim", "hidden_size"),
    "num_blocks": ("n_layers", "num_hidden_layers"),
    "num_attention_heads": ("n_heads", "num_attention_heads"),
    "intermediate_size": ("hidden_dim", "intermediate_size"),
    "activation": ("activation", "hidden_act"),
    "dropout_rate": ("dropout",),
    "attention_dropout_rate": ("attention_dropout",),
    "classifier_dropout_rate": ("seq_classif_dropout",),
    "initializer_scale": ("initializer_range",),
    "num_labels": ("num_labels",),
    "id_to_label": ("id2label",),
    "use_cross_attention": ("use_cross_attention",),
    "sinusoidal_pos_embds": ("sinusoidal_pos_embds",),
    "pad_token_id": ("pad_token_id",),
    "qa_dropout": ("qa_dropout",),
    "problem_type": ("problem_type",),
    "tie_word_embeddings": ("tie_word_embeddings",),
    "pruned_heads": ("pruned_heads",),
}
OUR_NAMES: Final = {name: ours for ours, names in FILE_NAMES.items() for name in (ours, *names)}

DERIVED: Final = ("model_type", "label2id")  # in config.json, but follow from the rest

PROBLEM_TYPES: Final = ("regression", "single_label_classification", "multi_label_classification")
LEARNED_ACTIVATIONS: Final = ("prelu", "xielu")


@dataclass(frozen=True, kw_only=True, init=False)
class Config:
    """What shape a DistilBERT has; fields, defaults and checks as in Bumblebee and transformers.

    ``Config(num_blocks=2, ...)`` refuses unknown fields; ``Config.from_dict`` takes the contents
    of a config.json and keeps what it does not know in ``other``.  Raises ConfigError, which
    lists all faults at once.
    """

    vocab_size: int = 30522
    max_positions: int = 512
    hidden_size: int = 768
    num_blocks: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    activation: str = "gelu"
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    classifier_dropout_rate: float | None = None  # None: dropout_rate
    initializer_scale: float = 0.02
    num_labels: int = 2
    id_to_label: Mapping[int, str] = field(default_factory=dict)
    use_cross_attention: bool = False  # carried; this family has no cross-attention
    sinusoidal_pos_embds: bool = False
    pad_token_id: int | None = 0
    qa_dropout: float = 0.1
    problem_type: str | None = None
    tie_word_embeddings: bool = True
    pruned_heads: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)  # what else config.json says

    def __init__(self, **given: Any) -> None:
        faults = []
        for name in given:
            if name in OUR_NAMES and name not in FILE_NAMES:
                faults.append(f"unknown field {name!r}; it is called {OUR_NAMES[name]} here")
            elif name not in FILE_NAMES and name != "other":
                hint = nearest(name, FILE_NAMES) or f"; the fields are {', '.join(FILE_NAMES)}"
                faults.append(f"unknown field {name!r}{hint}")
        for f in fields(self):
            default = f.default_factory() if callable(f.default_factory) else f.default
            object.__setattr__(self, f.name, given.get(f.name, default))
        if not faults and "num_labels" not in given and isinstance(self.id_to_label, Mapping):
            object.__setattr__(self, "num_labels", len(self.id_to_label) or self.num_labels)
        faults += checked(self)
        if faults:
            raise ConfigError("; ".join(faults))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields of a config.json, by its names, their aliases, or ours."""
        family = data.get("model_type", "distilbert")
        if family != "distilbert":
            raise ConfigError(
                f"model_type is {shown(family)}, expected 'distilbert': npbert runs this one family"
            )
        known = {*OUR_NAMES, *DERIVED}
        other = {name: value for name, value in data.items() if name not in known}
        return cls(**in_our_names(data), other=other)

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of a config.json, under the names that transformers reads."""
        data = {**self.other, "model_type": "distilbert"}
        for ours, (theirs, *_) in FILE_NAMES.items():
            data[theirs] = getattr(self, ours)
        data["seq_classif_dropout"] = self.classifier_dropout
        data["pruned_heads"] = {str(i): list(gone) for i, gone in self.pruned_heads.items()}
        # transformers counts labels by their names, and takes two without names to be meant.
        del data["num_labels"], data["id2label"]
        if self.id_to_label or self.num_labels != 2:
            data["id2label"] = {str(i): self.label(i) for i in range(self.num_labels)}
            data["label2id"] = {self.label(i): i for i in range(self.num_labels)}
        return data

    def override(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with some fields changed, by any of their names; no others."""
        for name in changes:
            if name not in OUR_NAMES:
                raise ConfigError(f"unknown field {name!r}{nearest(name, OUR_NAMES)}")
        given = in_our_names(changes)
        kept = {name: getattr(self, name) for name in (*FILE_NAMES, "other")}
        if "id_to_label" in given or given.get("num_labels", self.num_labels) != self.num_labels:
            del kept["num_labels"], kept["id_to_label"]  # one implies the other
        return type(self)(**{**kept, **given})

    def label(self, i: int) -> str:
        """Return the name of class i; where the config has none, LABEL_i."""
        return self.id_to_label.get(i, f"LABEL_{i}")

    @property
    def classifier_dropout(self) -> float:
        """The rate in front of the classifier."""
        rate = self.classifier_dropout_rate
        return self.dropout_rate if rate is None else rate

    @property
    def head_size(self) -> int:
        """Features of one head, K."""
        return self.hidden_size // self.num_attention_heads

    def heads(self, block: int) -> list[int]:
        """Return the original numbers of the heads that a block still has."""
        gone = self.pruned_heads.get(block, ())
        return [h for h in range(self.num_attention_heads) if h not in gone]

    def sizes(self, block: int = 0) -> dict[str, int]:
        """Return the number behind each letter of textbook.py, as a block has it."""
        heads = self.num_attention_heads - len(set(self.pruned_heads.get(block, ())))
        return {
            "D": self.hidden_size, "F": self.intermediate_size, "V": self.vocab_size,
            "P": self.max_positions, "C": self.num_labels, "A": heads * self.head_size,
        }  # fmt: skip


def in_our_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known fields of a config.json under our names; two names may not contradict."""
    given: dict[str, Any] = {}
    for name in [n for n in data if n in OUR_NAMES]:
        ours, value = OUR_NAMES[name], data[name]
        if ours in ("id_to_label", "pruned_heads"):
            value = with_int_keys(name, value)
        if ours in given and given[ours] != value:
            raise ConfigError(
                f"{ours} is given twice, under two of its names, as {shown(given[ours])} "
                f"and as {shown(value)}"
            )
        given[ours] = value
    return given


def with_int_keys(name: str, value: Any) -> Any:
    """Turn the keys of a JSON object into the numbers that they spell."""
    if not isinstance(value, Mapping):
        return {} if value is None else value
    try:
        made = {int(k): tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    except (TypeError, ValueError):
        raise ConfigError(
            f"{name} has the keys {listed(map(repr, value))}, expected whole numbers"
        ) from None
    if len(made) < len(value):
        raise ConfigError(f"{name} has the keys {listed(map(repr, value))}: one number twice")
    return made


def is_int(value: Any) -> bool:
    """Tell whether a JSON value is a whole number; to Python, true and false are."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_scale(value: Any) -> bool:
    """Tell whether a JSON value is a finite number from 0."""
    return (is_int(value) or isinstance(value, float)) and 0 <= value < math.inf


def is_rate(value: Any) -> bool:
    """Tell whether a JSON value can be a probability."""
    return is_scale(value) and value <= 1


KINDS: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Any], bool]]]] = {
    "a whole number from 1 to 2**31 - 1": (
        ("vocab_size", "max_positions", "hidden_size", "num_blocks", "num_attention_heads",
         "intermediate_size", "num_labels"),
        lambda v: is_int(v) and 0 < v < 2**31,
    ),
    "a rate from 0 to 1": (("dropout_rate", "attention_dropout_rate", "qa_dropout"), is_rate),
    "a rate from 0 to 1, or null": (
        ("classifier_dropout_rate",), lambda v: v is None or is_rate(v),
    ),
    "a finite number from 0": (("initializer_scale",), is_scale),
    "true or false": (
        ("use_cross_attention", "sinusoidal_pos_embds", "tie_word_embeddings"),
        lambda v: isinstance(v, bool),
    ),
    "a token id or null": (("pad_token_id",), lambda v: v is None or is_int(v)),
    f"null or one of {', '.join(PROBLEM_TYPES)}": (
        ("problem_type",), lambda v: v is None or v in PROBLEM_TYPES,
    ),
    "a name": (("activation",), lambda v: isinstance(v, str)),
    "an object from class numbers to names": (
        ("id_to_label",),
        lambda v: isinstance(v, Mapping)
        and all(is_int(i) and isinstance(name, str) for i, name in v.items()),
    ),
    "an object from blocks to lists of heads": (
        ("pruned_heads",),
        lambda v: isinstance(v, Mapping)
        and all(
            is_int(i) and isinstance(heads, tuple) and all(map(is_int, heads))
            for i, heads in v.items()
        ),
    ),
}  # fmt: skip


def checked(config: Config) -> list[str]:
    """Return everything that is wrong with a config, a sentence each."""
    faults = []
    for expected, (names, fits) in KINDS.items():
        for name in names:
            value = getattr(config, name)
            if not fits(value):
                theirs = FILE_NAMES[name][0]
                alias = f" ({theirs} in config.json)" if theirs != name else ""
                faults.append(f"{name}{alias} is {shown(value)}, expected {expected}")
    return faults or list(contradictions(config))


def contradictions(config: Config) -> Iterator[str]:
    """Yield what is wrong between fields that are each of the right kind."""
    width, heads, name = config.hidden_size, config.num_attention_heads, config.activation
    if width % heads:
        yield f"num_attention_heads is {heads}, which does not divide hidden_size, {width}, evenly"
    if name in LEARNED_ACTIVATIONS:
        yield f"activation {name!r} has learned parameters, which no DistilBERT checkpoint carries"
    elif name not in ACTIVATIONS:
        known = f"; npbert knows {', '.join(sorted(ACTIVATIONS))}"
        yield f"unknown activation {shown(name)}{nearest(name, ACTIVATIONS) or known}"
    labels = config.id_to_label
    if labels and len(labels) != config.num_labels:
        yield f"id_to_label has {len(labels)} names, but num_labels is {config.num_labels}"
    elif labels and sorted(labels) != list(range(len(labels))):
        yield f"id_to_label has the classes {listed(labels)}, expected 0 to {len(labels) - 1}"
    for block, gone in config.pruned_heads.items():
        if not 0 <= block < config.num_blocks:
            yield f"pruned_heads names block {block}; the blocks are 0 to {config.num_blocks - 1}"
        elif gone and not 0 <= min(gone) <= max(gone) < heads:
            yield f"pruned_heads of block {block}: {listed(gone)}; the heads are 0 to {heads - 1}"
        elif len(set(gone)) == heads:
            yield f"pruned_heads leaves block {block} with no head"
