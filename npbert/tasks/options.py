"""What each task can be asked: options, their defaults, and what they mean.

Said once: npbert.pipeline takes them as keywords, the command line as flags.  There is no NumPy
here, so that the command line can tell of them, and set up the process, before NumPy loads.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from types import NoneType
from typing import Any, Final, Literal, TypeVar, get_args, get_type_hints

from npbert.errors import InputError, nearest, shown

Names = tuple[str, ...]
Function = Literal["softmax", "sigmoid", "none"]
Unit = Literal["char", "byte", "utf16"]
Aggregation = Literal["none", "simple", "first", "average", "max"]

# What options are called elsewhere: in transformers, sentence-transformers, and of old.
OTHER_NAMES: Final = {
    "topk": "top_k", "return_all_scores": "top_k", "max_seq_len": "max_length",
    "doc_stride": "stride", "max_question_len": "max_question_length",
    "max_answer_len": "max_answer_length", "grouped_entities": "aggregation_strategy",
    "multi_class": "multi_label", "normalize_embeddings": "normalize", "truncation": "long",
    "activation_fn": "function_to_apply", "apply_softmax": "function_to_apply",
}  # fmt: skip
# Bumblebee's names of strategies, without their colons.
ALIASES: Final = {
    "same": "simple", "word_first": "first", "word_average": "average", "word_max": "max",
}  # fmt: skip


def option(default: Any, meaning: str, *, lowest: int = 1) -> Any:
    """Declare an option; `lowest` bounds whole numbers."""
    return field(default=default, metadata={"meaning": meaning, "lowest": lowest})


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a task can be asked; a value that makes no sense raises InputError."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for each in fields(self):
            value = getattr(self, each.name)
            if hasattr(value, "__index__") and not isinstance(value, bool):  # NumPy's integers
                value = value.__index__() if getattr(value, "shape", ()) == () else value
                object.__setattr__(self, each.name, value)
            if hints[each.name] in (Names, Names | None):
                value = names(each.name, value)
                object.__setattr__(self, each.name, value)
            check(each.name, value, hints[each.name], each.metadata["lowest"])


@dataclass(frozen=True, kw_only=True)
class CuttingOptions(Options):
    """Of tasks that read as much of a text as the model holds."""

    long: Literal["truncate", "error"] = option(
        "truncate", "a text that the model cannot hold is cut, and that is told, or refused"
    )


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions(CuttingOptions):
    """What text-classification can be asked, with the defaults of transformers' pipeline."""

    top_k: int | Literal["best"] | None = option(
        "best", "a list of so many classes, best first; default: the best, no list"
    )
    function_to_apply: Function | None = option(
        None, "what makes scores of logits; default: what the model's config implies"
    )


@dataclass(frozen=True, kw_only=True)
class FillMaskOptions(CuttingOptions):
    """What fill-mask can be asked."""

    top_k: int | None = option(
        None, "so many words for each mask, best first; default: 5, or all targets in their order"
    )
    targets: Names | None = option(None, "score these words only")
    multi_piece: Literal["error", "joint"] = option(
        "error",
        "a target of several pieces is refused, or gets as many masks, and the chance that they "
        "are filled with its pieces one after the other",
    )


@dataclass(frozen=True, kw_only=True)
class TokenClassificationOptions(Options):
    """What token-classification can be asked."""

    aggregation_strategy: Aggregation = option(
        "first",
        "none: every piece by itself; simple: pieces in a row with one label; first, average, max: "
        "words in a row with one label, which is that of a word's first piece, of the mean of its "
        "pieces, or of its surest piece",
    )
    ignore_labels: Names = option(("O",), "labels, or their types, that are not told")
    offset_unit: Unit = option("char", "what start and end count")
    max_length: int | None = option(
        None, "tokens in a window over a longer text; default: what the model holds"
    )
    stride: int | None = option(
        None, "tokens that neighbouring windows share; default: a quarter of a window", lowest=0
    )

    def __post_init__(self) -> None:
        name = (
            str(self.aggregation_strategy).removeprefix("AggregationStrategy.").lstrip(":").lower()
        )
        object.__setattr__(self, "aggregation_strategy", ALIASES.get(name, name))
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class QuestionAnsweringOptions(Options):
    """What question-answering can be asked, with the defaults of transformers' pipeline."""

    top_k: int | Literal["best"] = option(
        "best", "a list of so many answers, best first; default: the best, no list"
    )
    max_length: int | None = option(
        None, "tokens in a window, question and all; default: 384, or what the model holds"
    )
    stride: int | None = option(
        None, "tokens that neighbouring windows share; default: 128, or half a window", lowest=0
    )
    max_question_length: int = option(64, "a longer question is cut to so many tokens, told of")
    max_answer_length: int = option(15, "tokens in an answer")
    handle_impossible_answer: bool = option(False, "the empty answer is among those possible")
    align_to_words: bool = option(True, "an answer begins and ends where words do")
    offset_unit: Unit = option("char", "what start and end count")


@dataclass(frozen=True, kw_only=True)
class ZeroShotOptions(CuttingOptions):
    """What zero-shot-classification can be asked, with the defaults of transformers' pipeline."""

    candidate_labels: Names = option((), "the labels to choose from")
    hypothesis_template: str = option(
        "This example is {}.", "a sentence with {} where the label goes"
    )
    multi_label: bool = option(False, "every label is judged by itself; scores need not sum to 1")

    def __post_init__(self) -> None:
        if isinstance(self.candidate_labels, str):
            object.__setattr__(self, "candidate_labels", split(self.candidate_labels))
        super().__post_init__()
        if "{}" not in self.hypothesis_template:
            raise InputError(
                f"hypothesis_template is {shown(self.hypothesis_template)}, expected a sentence "
                "with {} in it, where the label goes"
            )


@dataclass(frozen=True, kw_only=True)
class MultipleChoiceOptions(CuttingOptions):
    """What multiple-choice can be asked."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions(CuttingOptions):
    """What sentence-embedding can be asked, as in sentence-transformers."""

    prompt: str | None = option(None, "stands before every text")
    prompt_name: str | None = option(None, "the model's own prompt of that name")
    normalize: bool = option(False, "divide every embedding by its length")
    truncate_dim: int | None = option(None, "keep so many of the first dimensions")
    precision: Literal["float32", "int8", "uint8", "binary", "ubinary"] = option(
        "float32", "one number, one byte, or one bit a dimension"
    )
    ranges: Any = option(
        None, "for int8 and uint8: least and greatest values, (2, dim), an array or a .npy file"
    )


@dataclass(frozen=True, kw_only=True)
class RankingOptions(CuttingOptions):
    """What text-ranking can be asked, as of sentence-transformers' CrossEncoder."""

    prompt: str | None = option(None, "stands before every query")
    prompt_name: str | None = option(None, "the model's own prompt of that name")
    top_k: int | None = option(None, "so many documents, best first; default: all")
    function_to_apply: Function | None = option(
        None, "what makes scores of logits; default: what the model's config says, or sigmoid"
    )
    return_documents: bool = option(False, "repeat the text of each document")


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(CuttingOptions):
    """What feature-extraction can be asked."""

    layer: int = option(
        -1, "which hidden state: 0 the embeddings, 1 after the first block, -1 the last",
        lowest=-(2**31),
    )  # fmt: skip
    offsets: bool = option(False, "tell tokens, and where they stand in the text")
    offset_unit: Unit = option("char", "what offsets count")


Asked = TypeVar("Asked", bound=Options)


def change_options(task: str, options: Asked, changes: Mapping[str, Any]) -> Asked:
    """Return options with some changed.  Raises InputError for names that a task does not have."""
    known = [each.name for each in fields(options)]
    for name in changes:
        if name not in known:
            hint = nearest(name, known) or f"; it has {', '.join(known)}"
            if OTHER_NAMES.get(name) in known:
                hint = f"; it is called {OTHER_NAMES[name]!r} here"
            raise InputError(f"{task} has no option {name!r}{hint}")
    return replace(options, **changes)


def check(name: str, value: object, hint: Any, lowest: int) -> None:
    """Refuse a value that is none of those which its declaration allows."""
    kinds = alternatives(hint)
    if Any in kinds or (value is None and NoneType in kinds):
        return
    if Names in kinds and value is not None:  # names() has seen to it
        return
    words = [kind for kind in kinds if isinstance(kind, str)]
    if isinstance(value, str) and (value in words or str in kinds):
        return
    if bool in kinds and isinstance(value, bool):
        return
    if int in kinds:
        if isinstance(value, int) and not isinstance(value, bool) and value >= lowest:
            return
        above = f" from {lowest}" if lowest >= 0 else ""
        raise InputError(f"{name} is {shown(value)}, expected a whole number{above}")
    expected = "True or False" if bool in kinds else "a str" if str in kinds else "a list of str"
    if words:
        allowed = [None, *words] if NoneType in kinds else words
        expected = f"one of {', '.join(map(repr, allowed))}"
    raise InputError(f"{name} is {shown(value)}, expected {expected}")


def alternatives(hint: Any) -> list[Any]:
    """Return what a declared type is made of: types, and the words of a Literal."""
    if hint == Names or not (parts := get_args(hint)):
        return [hint]
    return [
        kind for part in parts for kind in ([part] if isinstance(part, str) else alternatives(part))
    ]


def names(name: str, value: Any) -> Names | None:
    """Return one name, or several, as a tuple without repetitions.  Raises InputError."""
    given = (value,) if isinstance(value, str) else value
    if given is None:
        return None
    if not isinstance(given, Collection) or not all(isinstance(each, str) for each in given):
        raise InputError(f"{name} is {shown(value)}, expected a list of str")
    return tuple(dict.fromkeys(given))


def split(text: str) -> Names:
    """Return what stands between commas, without the blanks around it."""
    return tuple(part for each in text.split(",") if (part := each.strip()))
