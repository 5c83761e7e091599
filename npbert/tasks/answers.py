"""What tasks answer, for type checkers: the shape of each answer, and how a task is called.

npbert.pipeline is overloaded by the name of the task; nothing here is used while a program runs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict, TypeVar, overload

from numpy.typing import ArrayLike, NDArray

from npbert.model import Model
from npbert.text.tokenizer import Tokenizer

One = TypeVar("One", covariant=True)  # the answer to one input
Many = TypeVar("Many", covariant=True)  # and to a list of them

SingleInput = str | tuple[Any, ...] | Mapping[str, Any]
ManyInputs = list[Any] | set[Any] | frozenset[Any] | NDArray[Any]


class ClassAnswer(TypedDict):
    """A class of a text."""

    label: str
    score: float


class EntityAnswer(TypedDict):
    """What a text names."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


class TokenAnswer(TypedDict):
    """The label of a token."""

    entity: str
    score: float
    index: int
    word: str
    start: int
    end: int


class WordAnswer(TypedDict):
    """A word in the place of a mask."""

    score: float
    token: int | list[int]
    token_str: str
    sequence: str


class SpanAnswer(TypedDict):
    """An answer to a question, and where it stands."""

    score: float
    start: int
    end: int
    answer: str


class ChoiceAnswer(TypedDict):
    """The best of some endings."""

    index: int
    choice: str
    score: float
    scores: list[float]


class LabelsAnswer(TypedDict):
    """Labels, best first."""

    sequence: str
    labels: list[str]
    scores: list[float]


class RankAnswer(TypedDict):
    """A document of a ranking."""

    corpus_id: int
    score: float
    text: NotRequired[str]


class SparseAnswer(TypedDict):
    """The words of the vocabulary that a text is about, and how much."""

    indices: list[int]
    values: list[float]
    tokens: list[str]


class FeatureAnswer(TypedDict):
    """The vector of every token, and where it stands."""

    features: list[list[float]]
    tokens: list[str]
    offsets: list[list[int]]


class TaskFacts(Protocol):
    """What is known of every task."""

    model: Model
    tokenizer: Tokenizer
    options: Any
    folder: Path | None


class Answering(TaskFacts, Protocol[One, Many]):
    """A task as type checkers see it."""

    @overload
    def __call__(self, inputs: SingleInput, **changes: Any) -> One: ...
    @overload
    def __call__(self, inputs: ManyInputs, **changes: Any) -> Many: ...
    @overload
    def __call__(self, inputs: Iterable[Any], **changes: Any) -> Iterator[One]: ...


class ClassifyingTask(TaskFacts, Protocol):
    """text-classification, which answers a list where it is asked for several classes."""

    @overload
    def __call__(
        self, inputs: SingleInput, *, top_k: int | None, **changes: Any
    ) -> list[ClassAnswer]: ...
    @overload
    def __call__(
        self, inputs: ManyInputs, *, top_k: int | None, **changes: Any
    ) -> list[list[ClassAnswer]]: ...
    @overload
    def __call__(self, inputs: SingleInput, **changes: Any) -> ClassAnswer: ...
    @overload
    def __call__(self, inputs: ManyInputs, **changes: Any) -> list[ClassAnswer]: ...
    @overload
    def __call__(self, inputs: Iterable[Any], **changes: Any) -> Iterator[ClassAnswer]: ...


class AskingTask(TaskFacts, Protocol[One, Many]):
    """question-answering, which also takes the two texts by their names."""

    @overload
    def __call__(self, inputs: SingleInput, **changes: Any) -> One: ...
    @overload
    def __call__(self, inputs: ManyInputs, **changes: Any) -> Many: ...
    @overload
    def __call__(self, inputs: Iterable[Any], **changes: Any) -> Iterator[One]: ...
    @overload
    def __call__(self, *, question: str, context: str, **changes: Any) -> One: ...
    @overload
    def __call__(self, *, question: Any, context: Any, **changes: Any) -> Many: ...


class EmbeddingTask(Answering[NDArray[Any], NDArray[Any]], Protocol):
    """sentence-embedding."""

    def similarity(
        self, a: ArrayLike, b: ArrayLike, function: str | None = None
    ) -> NDArray[Any]: ...


class RankingTask(Answering[Any, list[Any]], Protocol):
    """text-ranking."""

    def predict(self, pairs: Any, **changes: Any) -> Any: ...
    def rank(self, query: str, documents: Sequence[str], **changes: Any) -> list[RankAnswer]: ...
