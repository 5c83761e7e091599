"""config.json, read once and checked once.

A field has one name here and one in config.json; both are accepted wherever a configuration is
read, and what npbert does not know is carried along, so that saving loses nothing.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import NoneType
from typing import Any, Final, Self

from npbert.engine.activations import ACTIVATIONS
from npbert.errors import ConfigError, listing, quote, suggest
from npbert.families import (
    DEFAULT_FAMILY,
    FAMILIES,
    OTHER_FAMILIES,
    class_name,
    list_architectures,
)

DERIVED_NAMES: Final = ("model_type", "label2id")  # in config.json, but follow from the rest

PROBLEM_TYPES: Final = ("regression", "single_label_classification", "multi_label_classification")
MOST_FAULTS: Final = 20  # that a message lists; blocks and their heads could make a million
JSON_TYPES: Final = (str, int, float, bool, NoneType, list, tuple, dict)
LEARNED_ACTIVATIONS: Final = ("prelu", "xielu")


@dataclass(frozen=True, kw_only=True, init=False)
class Config:
    """What shape a model has; fields and defaults are those of its family's row (families.py).

    ``Config(num_blocks=2, ...)`` refuses unknown fields; ``Config.from_dict`` takes the contents
    of a config.json and keeps what it does not know in ``other``.  Raises ConfigError, which
    lists all faults at once.
    """

    family: str
    vocab_size: int
    max_positions: int
    hidden_size: int
    num_blocks: int
    num_attention_heads: int
    intermediate_size: int
    activation: str
    dropout_rate: float
    attention_dropout_rate: float
    classifier_dropout_rate: float | None  # None: dropout_rate
    initializer_scale: float
    layer_norm_epsilon: float
    type_vocab_size: int  # 0: no token types
    num_labels: int
    id_to_label: Mapping[int, Any]  # text, or another value of JSON
    use_cross_attention: bool  # carried; no family here has cross-attention
    sinusoidal_pos_embds: bool
    pad_token_id: int | None
    qa_dropout: float
    problem_type: str | None
    tie_word_embeddings: bool
    pruned_heads: Mapping[int, tuple[int, ...]]
    other: Mapping[str, Any]  # what else config.json says

    def __init__(self, *, family: str = DEFAULT_FAMILY, **given: Any) -> None:
        if not isinstance(family, str) or family not in FAMILIES:
            raise ConfigError(f"family is {quote(family)}, expected {list_families()}")
        row, known = FAMILIES[family], field_names(family)
        faults = []
        for name in given:
            if name in known and name not in row.config_names:
                faults.append(f"unknown field {name!r}; it is called {known[name]} here")
            elif name not in row.config_names and name != "other":
                fields = row.config_names
                hint = suggest(name, fields) or f"; the fields are {', '.join(fields)}"
                faults.append(f"unknown field {name!r}{hint}")
        rest = {**row.fixed, "other": {}, "family": family}
        for name, default in {**row.defaults, **rest}.items():
            kept = dict(default) if isinstance(default, Mapping) else default
            object.__setattr__(self, name, given.get(name, kept))
        if not faults and "num_labels" not in given and isinstance(self.id_to_label, Mapping):
            object.__setattr__(self, "num_labels", len(self.id_to_label) or self.num_labels)
        faults += config_faults(self)
        if faults:
            raise ConfigError("; ".join(faults))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields of a config.json, by its names, their aliases, or ours."""
        family = data.get("model_type") or find_family(data)
        if not isinstance(family, str) or family not in FAMILIES:
            raise ConfigError(
                f"model_type is {quote(family)}, expected {list_families()}: npbert runs no "
                "other family"
            )
        for name, value in FAMILIES[family].refused.items():
            if data.get(name, value) != value:
                raise ConfigError(
                    f"{name} is {quote(data[name])}, expected {quote(value)}: npbert runs "
                    f"{FAMILIES[family].title} as an encoder with learned positions, and no other"
                )
        known = {*field_names(family), *DERIVED_NAMES}
        other = {name: value for name, value in data.items() if name not in known}
        given = rename_fields(family, data)
        if has_placeholder_labels(given):
            del given["id_to_label"]
        return cls(family=family, **given, other=other)

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of a config.json, under the names that transformers reads."""
        row = FAMILIES[self.family]
        names = row.config_names
        data = {**self.other, "model_type": self.family}
        for ours, (theirs, *_) in names.items():
            data[theirs] = getattr(self, ours)
        if not row.null_classifier_dropout:
            data[names["classifier_dropout_rate"][0]] = self.classifier_dropout
        data["pruned_heads"] = {str(i): list(gone) for i, gone in self.pruned_heads.items()}
        # transformers counts labels by their names, and takes two without names to be meant.
        del data["num_labels"], data["id2label"]
        if self.id_to_label or self.num_labels != 2:
            said = self.id_to_label
            data["id2label"] = {str(i): said.get(i, self.label(i)) for i in range(self.num_labels)}
            data["label2id"] = {self.label(i): i for i in range(self.num_labels)}
        return data

    def override(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with some fields changed, by any of their names; no others."""
        known = field_names(self.family)
        for name in changes:
            if name not in known:
                raise ConfigError(f"unknown field {name!r}{suggest(name, known)}")
        given = rename_fields(self.family, changes)
        kept = {name: getattr(self, name) for name in (*known.values(), "other", "family")}
        if "id_to_label" in given or given.get("num_labels", self.num_labels) != self.num_labels:
            del kept["num_labels"], kept["id_to_label"]  # one implies the other
        return type(self)(**{**kept, **given})

    def label(self, i: int) -> str:
        """Return the name of class i, as JSON if it is no text; where there is none, LABEL_i."""
        name = self.id_to_label.get(i, f"LABEL_{i}")
        return name if isinstance(name, str) else json.dumps(name, ensure_ascii=False)

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
            "Y": self.type_vocab_size,
        }  # fmt: skip


def field_names(family: str) -> dict[str, str]:
    """Return our name for every name that a field of a family may have, our own too."""
    names = FAMILIES[family].config_names
    return {name: ours for ours, theirs in names.items() for name in (ours, *theirs)}


def find_family(data: Mapping[str, Any]) -> str:
    """Return the family of a config.json without model_type, of 2019 or 2020.

    Its architectures tell, or else whose names its fields have.  Raises ConfigError.
    """
    named = data.get("architectures")
    for name in named if isinstance(named, list) else ():
        for family, row in FAMILIES.items():
            if str(name).startswith(row.class_prefix):
                return family
        if str(name).casefold().startswith(tuple(t.casefold() for t in OTHER_FAMILIES.values())):
            raise ConfigError(
                f"architectures is {quote(named)}, and there is no model_type, expected "
                f"{list_families()}: npbert runs no other family"
            )

    def count_own_names(family: str) -> int:
        return len({names[0] for names in FAMILIES[family].config_names.values()} & set(data))

    return max(FAMILIES, key=count_own_names)


def list_families() -> str:
    """Return the families that npbert runs, as messages list them."""
    return " or ".join(map(repr, FAMILIES))


def rename_fields(family: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known fields of a config.json under our names; two names may not contradict."""
    given: dict[str, Any] = {}
    known = field_names(family)
    for name in [n for n in data if n in known]:
        ours, value = known[name], data[name]
        if ours in ("id_to_label", "pruned_heads"):
            value = convert_keys(name, value)
        if ours in given and given[ours] != value:
            raise ConfigError(
                f"{ours} is given twice, under two of its names, as {quote(given[ours])} "
                f"and as {quote(value)}"
            )
        given[ours] = value
    return given


def has_placeholder_labels(given: Mapping[str, Any]) -> bool:
    """Tell whether all classes are called LABEL_i, and num_labels says that there are others.

    Until 2020 transformers wrote LABEL_0 and LABEL_1 however many classes a model had, so that
    their number is right, and the names say nothing.
    """
    names, number = given.get("id_to_label"), given.get("num_labels")
    return (
        isinstance(names, Mapping)
        and is_int(number)
        and len(names) != number
        and all(name == f"LABEL_{i}" for i, name in names.items())
    )


def convert_keys(name: str, value: Any) -> Any:
    """Turn the keys of a JSON object into the numbers that they spell."""
    if not isinstance(value, Mapping):
        return {} if value is None else value
    try:
        made = {int(k): tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    except (TypeError, ValueError):
        raise ConfigError(
            f"{name} has the keys {listing(map(quote, value))}, expected whole numbers"
        ) from None
    if len(made) < len(value):
        raise ConfigError(f"{name} has the keys {listing(map(quote, value))}: one number twice")
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


FIELD_CHECKS: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Any], bool]]]] = {
    "a whole number from 1 to 2**31 - 1": (
        ("vocab_size", "max_positions", "hidden_size", "num_blocks", "num_attention_heads",
         "intermediate_size", "type_vocab_size"),
        lambda v: is_int(v) and 0 < v < 2**31,
    ),
    "a whole number from 1 to 2**17": (  # config.json names every one of them when it is written
        ("num_labels",), lambda v: is_int(v) and 0 < v <= 2**17,
    ),
    "a rate from 0 to 1": (("dropout_rate", "attention_dropout_rate", "qa_dropout"), is_rate),
    "a rate from 0 to 1, or null": (
        ("classifier_dropout_rate",), lambda v: v is None or is_rate(v),
    ),
    "a finite number from 0": (("initializer_scale",), is_scale),
    "a number above 0, at most 1": (
        ("layer_norm_epsilon",), lambda v: is_rate(v) and v > 0,
    ),
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
        and all(is_int(i) and isinstance(name, JSON_TYPES) for i, name in v.items()),
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


def config_faults(config: Config) -> list[str]:
    """Return everything that is wrong with a config, a sentence each."""
    faults = []
    for expected, (names, fits) in FIELD_CHECKS.items():
        known = FAMILIES[config.family].config_names
        for name in names:
            value = getattr(config, name)
            if name in known and not fits(value):
                theirs = known[name][0]
                alias = f" ({theirs} in config.json)" if theirs != name else ""
                faults.append(f"{name}{alias} is {quote(value)}, expected {expected}")
    return faults or list(islice(field_contradictions(config), MOST_FAULTS))


def field_contradictions(config: Config) -> Iterator[str]:
    """Yield what is wrong between fields that are each of the right kind."""
    title = FAMILIES[config.family].title
    width, heads, name = config.hidden_size, config.num_attention_heads, config.activation
    if width % heads:
        yield f"num_attention_heads is {heads}, which does not divide hidden_size, {width}, evenly"
    if name in LEARNED_ACTIVATIONS:
        yield f"activation {name!r} has learned parameters, which no {title} checkpoint carries"
    elif name not in ACTIVATIONS:
        known = f"; npbert knows {', '.join(sorted(ACTIVATIONS))}"
        yield f"unknown activation {quote(name)}{suggest(name, ACTIVATIONS) or known}"
    labels = config.id_to_label
    if labels and len(labels) != config.num_labels:
        yield f"id_to_label has {len(labels)} names, but num_labels is {config.num_labels}"
    elif labels and sorted(labels) != list(range(len(labels))):
        yield f"id_to_label has the classes {listing(labels)}, expected 0 to {len(labels) - 1}"
    for block, gone in config.pruned_heads.items():
        if not 0 <= block < config.num_blocks:
            yield f"pruned_heads names block {block}; the blocks are 0 to {config.num_blocks - 1}"
        elif gone and not 0 <= min(gone) <= max(gone) < heads:
            yield f"pruned_heads of block {block}: {listing(gone)}; the heads are 0 to {heads - 1}"
        elif len(set(gone)) == heads:
            yield f"pruned_heads leaves block {block} with no head"


def find_architecture(asked: str | None, config: Config) -> str:
    """Return the architecture asked for, or else the one that config.json names.

    Either by its name or by its class in transformers.  Raises ConfigError.
    """
    classes = class_architectures(config.family)
    ours = list_architectures(config.family)
    if asked is None:
        named, said = class_names_of(config), config.other.get("architectures")
        if len(named) == 1 and named[0] in classes:
            return classes[named[0]]
        fault = "which npbert does not know" if len(named) == 1 else "expected a list of one name"
        raise ConfigError(
            f"architectures is {quote(said)}, {fault}; pass architecture=, one of {', '.join(ours)}"
        )
    if isinstance(asked, str) and (asked in ours or asked in classes):
        return classes.get(asked, asked)
    known = [*ours, *(class_name(config.family, name) for name in ours)]
    hint = suggest(str(asked), known) or f"; npbert knows {', '.join(known)}"
    raise ConfigError(f"unknown architecture {quote(asked)}{hint}")


def class_architectures(family: str) -> dict[str, str]:
    """Return a family's architectures by their classes in transformers."""
    single = {class_name(family, name): name for name in list_architectures(family)}
    return {**single, **FAMILIES[family].double_classes}


def class_names_of(config: Config) -> list[str]:
    """Return the classes that config.json names; none where it says nothing, or nonsense."""
    said = config.other.get("architectures")
    if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
        return []
    return said
