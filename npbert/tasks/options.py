"""What each task can be asked: options, their defaults, and what they mean.

Said once: npbert.pipeline takes them as keywords, the command line as flags.  There is no NumPy
here, so that the command line can tell of them, and set up the process, before NumPy loads.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from types import NoneType
from typing import Any, Final, Literal, TypeVar, get_args, get_type_hints

from npbert.engine.spellings import explain_name
from npbert.errors import InputError, listing, quote

Names = tuple[str, ...]
ScoreFunction = Literal["softmax", "sigmoid", "none"]
Unit = Literal["char", "byte", "utf16"]
Aggregation = Literal["none", "simple", "first", "average", "max"]

# Of npbert.pipeline beside the options.
PIPELINE_ARGUMENTS: Final = (
    "source_or_model", "architecture", "strict", "threads", "batch_invariant", "revision",
    "subfolder", "cache_dir", "token", "offline", "copy",
)  # fmt: skip
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

    max_length: int | None = option(
        None, "tokens that are read of a text, or of a pair of texts; default: the model's limit"
    )

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for each in fields(self):
            value = getattr(self, each.name)
            if hasattr(value, "__index__") and not isinstance(
                value, bool | type
            ):  # NumPy's integers
                value = value.__index__() if getattr(value, "shape", ()) == () else value
                object.__setattr__(self, each.name, value)
            if hints[each.name] in (Names, Names | None):
                value = unique_names(each.name, value)
                object.__setattr__(self, each.name, value)
            check_option(each.name, value, hints[each.name], each.metadata["lowest"])


@dataclass(frozen=True, kw_only=True)
class TruncatingOptions(Options):
    """Of tasks that read no more of a text than the model's limit."""

    long: Literal["truncate", "error"] = option(
        "truncate", "texts longer than the model's limit: truncate with a warning, or fail"
    )


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions(TruncatingOptions):
    """What text-classification can be asked, with the defaults of transformers' pipeline."""

    top_k: int | Literal["best"] | None = option(
        "best", "return a list of this many classes, best first; default: the best one, no list"
    )
    function_to_apply: ScoreFunction | None = option(
        None, "how logits become scores; default: as the model's config implies"
    )


@dataclass(frozen=True, kw_only=True)
class FillMaskOptions(TruncatingOptions):
    """What fill-mask can be asked."""

    top_k: int | None = option(
        None,
        "return this many words for each mask, best first; default: 5, or all targets in the order "
        "given",
    )
    targets: Names | None = option(None, "score these words only")
    multi_piece: Literal["error", "joint"] = option(
        "error",
        "a target of several pieces: fail, or score the pieces one after the other, each given "
        "those before it",
    )


@dataclass(frozen=True, kw_only=True)
class TokenClassificationOptions(Options):
    """What token-classification can be asked."""

    aggregation_strategy: Aggregation = option(
        "first",
        "none: every piece by itself; simple: runs of pieces with one label; first, average, max: "
        "runs of words with one label, taken from a word's first piece, the mean of its pieces, or "
        "the piece with the highest score",
    )
    ignore_labels: Names = option(("O",), "labels, or their types, to leave out")
    offset_unit: Unit = option("char", "the unit of start and end")
    max_length: int | None = option(
        None, "tokens in a chunk of a longer text; default: the model's limit"
    )
    stride: int | None = option(
        None, "tokens that neighbouring chunks share; default: a quarter of a chunk", lowest=0
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
        "best", "return a list of this many answers, best first; default: the best one, no list"
    )
    max_length: int | None = option(
        None, "tokens in a chunk, question included; default: 384, or the model's limit"
    )
    stride: int | None = option(
        None, "tokens that neighbouring chunks share; default: 128, or half a chunk", lowest=0
    )
    max_question_length: int = option(64, "truncate questions to this many tokens, with a warning")
    max_answer_length: int = option(15, "most tokens of an answer")
    handle_impossible_answer: bool = option(False, "allow the empty answer")
    align_to_words: bool = option(True, "answers start and end at word boundaries")
    offset_unit: Unit = option("char", "the unit of start and end")


@dataclass(frozen=True, kw_only=True)
class ZeroShotOptions(TruncatingOptions):
    """What zero-shot-classification can be asked, with the defaults of transformers' pipeline."""

    candidate_labels: Names = option((), "the labels to choose from")
    hypothesis_template: str = option(
        "This example is {}.", "a sentence with {} where the label goes"
    )
    multi_label: bool = option(False, "score every label by itself; scores need not sum to 1")
    entailment: str | None = option(
        None, "the model's class that means entailment; default: the one that is called so"
    )
    contradiction: str | None = option(
        None, "the class that means the opposite; default: the one that is called so, or "
        "where entailment is said of two classes, the other one"
    )  # fmt: skip

    def __post_init__(self) -> None:
        if isinstance(self.candidate_labels, str):
            object.__setattr__(self, "candidate_labels", split_names(self.candidate_labels))
        super().__post_init__()
        if "{}" not in self.hypothesis_template:
            raise InputError(
                f"hypothesis_template is {quote(self.hypothesis_template)}, expected a sentence "
                "with {} in it, where the label goes"
            )


@dataclass(frozen=True, kw_only=True)
class MultipleChoiceOptions(TruncatingOptions):
    """What multiple-choice can be asked."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions(TruncatingOptions):
    """What sentence-embedding can be asked, as in sentence-transformers."""

    prompt: str | None = option(None, "put this before every text")
    prompt_name: str | None = option(None, "use the model's own prompt of that name")
    normalize: bool = option(False, "scale every embedding to length 1")
    truncate_dim: int | None = option(None, "keep only this many dimensions")
    precision: Literal["float32", "int8", "uint8", "binary", "ubinary"] = option(
        "float32", "store a dimension as a float, a byte, or a bit"
    )
    ranges: Any = option(
        None, "for int8 and uint8: smallest and largest values, (2, dim), an array or a .npy file"
    )


@dataclass(frozen=True, kw_only=True)
class SparseOptions(TruncatingOptions):
    """What sparse-embedding can be asked, as of sentence-transformers' SparseEncoder."""

    prompt: str | None = option(None, "put this before every text")
    prompt_name: str | None = option(None, "use the model's own prompt of that name")
    top_k: int | None = option(None, "return this many words, the largest; default: all")


@dataclass(frozen=True, kw_only=True)
class RankingOptions(TruncatingOptions):
    """What text-ranking can be asked, as of sentence-transformers' CrossEncoder."""

    prompt: str | None = option(None, "put this before every query")
    prompt_name: str | None = option(None, "use the model's own prompt of that name")
    top_k: int | None = option(None, "return this many documents, best first; default: all")
    function_to_apply: ScoreFunction | None = option(
        None, "how logits become scores; default: as the model's config says, or sigmoid"
    )
    return_documents: bool = option(False, "include the text of each document")


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(TruncatingOptions):
    """What feature-extraction can be asked."""

    layer: int = option(
        -1, "which hidden state: 0 embeddings, 1 after the first block, -1 the last",
        lowest=-(2**31),
    )  # fmt: skip
    offsets: bool = option(False, "also return tokens and their positions in the text")
    offset_unit: Unit = option("char", "the unit of offsets")


Asked = TypeVar("Asked", bound=Options)


def change_options(
    task: str, options: Asked, changes: Mapping[str, Any], also: Collection[str] = ()
) -> Asked:
    """Return options with some changed.  Raises InputError for names that a task does not have.

    `also` are arguments that whoever passes the changes has besides.
    """
    known = [each.name for each in fields(options)]
    for name in changes:
        if name in PIPELINE_ARGUMENTS and name not in known:
            raise InputError(f"{task} has no option {name!r}: npbert.pipeline takes it, once")
        if name not in known:
            hint = explain_name(name, [*known, *also])
            raise InputError(
                f"{task} has no option {name!r}{hint or f'; it has {listing(known, 20)}'}"
            )
    return replace(options, **changes)


def check_option(name: str, value: object, hint: Any, lowest: int) -> None:
    """Refuse a value that is none of those which its declaration allows."""
    kinds = option_types(hint)
    if Any in kinds or (value is None and NoneType in kinds):
        return
    if Names in kinds and value is not None:  # unique_names() has seen to it
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
        raise InputError(f"{name} is {quote(value)}, expected a whole number{above}")
    expected = "True or False" if bool in kinds else "a str" if str in kinds else "a list of str"
    if words:
        allowed = [None, *words] if NoneType in kinds else words
        expected = f"one of {', '.join(map(repr, allowed))}"
    raise InputError(f"{name} is {quote(value)}, expected {expected}")


def option_types(hint: Any) -> list[Any]:
    """Return what a declared type is made of: types, and the words of a Literal."""
    if hint == Names or not (parts := get_args(hint)):
        return [hint]
    return [
        kind for part in parts for kind in ([part] if isinstance(part, str) else option_types(part))
    ]


def unique_names(name: str, value: Any) -> Names | None:
    """Return one name, or several, as a tuple without repetitions.  Raises InputError."""
    given = (value,) if isinstance(value, str) else value
    if given is None:
        return None
    if not isinstance(given, Collection) or not all(isinstance(each, str) for each in given):
        raise InputError(f"{name} is {quote(value)}, expected a list of str")
    return tuple(dict.fromkeys(given))


def split_names(text: str) -> Names:
    """Return what stands between commas, without the blanks around it."""
    return tuple(part for each in text.split(",") if (part := each.strip()))
