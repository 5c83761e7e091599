"""What all tasks share: one in, one out; a list in, a list out; a generator in, results lazily."""

import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np

from npbert import textbook
from npbert.errors import InputError, NpbertWarning, nearest
from npbert.model import Model
from npbert.textbook import Array
from npbert.tokenizer import Encoding

Answer = dict[str, Any]
Result = Answer | list[Answer] | list[list[Answer]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every task can be asked; values that make no sense raise InputError."""

    long: Literal["truncate", "error"] = "truncate"  # what to do with texts the model cannot hold

    def __post_init__(self) -> None:
        one_of("long", self.long, ("truncate", "error"))


Asked = TypeVar("Asked", bound=Options)


class Task(ABC, Generic[Asked]):
    """A model that answers questions about texts; made by npbert.pipeline."""

    name: ClassVar[str]
    architecture: ClassVar[str]
    options: Asked

    def __init__(
        self,
        model: Model,
        options: Asked,
        *,
        threads: int | None = None,
        batch_invariant: bool = False,
    ) -> None:
        if model.architecture != self.architecture:
            raise InputError(
                f"{self.name} needs a model {self.architecture}, "
                f"but this one is {model.architecture}"
            )
        if model.tokenizer is None:
            raise InputError(
                f"{self.name} reads text, but the model came without a tokenizer: its folder has "
                "neither tokenizer.json nor vocab.txt"
            )
        self.model = model
        self.tokenizer = model.tokenizer
        self.options = options
        self.threads = threads
        self.batch_invariant = batch_invariant

    def __call__(self, inputs: Any, **changes: Any) -> Any:
        """Answer for a text, a pair (a, b) or {"text": a, "text_pair": b}, or for many of them.

        Parameters
        ----------
        inputs : str, tuple, dict; list of these; or any other iterable of these
            One input gives one result, a list a list.  Any other iterable gives an iterator that
            reads a little ahead of what it yields, in constant memory.
        **changes
            Options that hold for this call only.

        Raises
        ------
        InputError
            Says which input, what is wrong with it, and what was expected.
        """
        options = changed(self.name, self.options, changes)
        if isinstance(inputs, str | tuple | Mapping):
            (result,) = self.stream([inputs], options)  # to its end, which tells what was cut
            return result
        if isinstance(inputs, list):
            return list(self.stream(inputs, options))
        if isinstance(inputs, Iterable) and not isinstance(inputs, bytes | bytearray):
            return self.stream(inputs, options)
        raise InputError(
            f"{self.name} reads a str, a pair of them, or many, not {type(inputs).__name__}"
        )

    def stream(self, inputs: Iterable[Any], options: Asked) -> Iterator[Result]:
        """Yield a result for each input, in order; tell at the end how much was cut."""
        read: deque[Encoding] = deque()
        texts = tokens = 0

        def lists() -> Iterator[tuple[list[int], list[int] | None]]:
            nonlocal texts, tokens
            for i, item in enumerate(inputs):
                encoding = self.read(i, item, options)
                texts += encoding.cut > 0
                tokens += encoding.cut
                read.append(encoding)
                yield encoding.ids, self.rows(encoding)

        for values in self.model.stream(
            lists(), threads=self.threads, batch_invariant=self.batch_invariant
        ):
            yield self.answer(read.popleft(), values, options)
        if texts:
            warnings.warn(
                f"{texts} of the texts {'was' if texts == 1 else 'were'} cut to "
                f"{self.tokenizer.max_length} tokens, {tokens} tokens were not read "
                "(long='error' refuses such texts)",
                NpbertWarning,
                stacklevel=3,
            )

    def read(self, i: int, item: Any, options: Asked) -> Encoding:
        """Turn input number i into tokens.  Raises InputError saying which input it was."""
        try:
            encoding = self.encode(item)
            if encoding.cut and options.long == "error":
                length = len(encoding.ids) + encoding.cut
                raise InputError(
                    f"has {length} tokens, but the model reads {self.tokenizer.max_length}; "
                    "shorten it, or say long='truncate'"
                )
            return encoding
        except InputError as error:
            raise InputError(f"text {i}: {error}") from None

    def encode(self, item: Any) -> Encoding:
        """Turn one input into tokens."""
        return self.tokenizer.encode(*pair_of(item))

    def rows(self, encoding: Encoding) -> list[int] | None:
        """Return the positions of the tokens that the answer needs; None: the head decides."""
        return None

    @abstractmethod
    def answer(self, encoding: Encoding, values: Array, options: Asked) -> Result:
        """Turn what the model computed for one input into a result."""


def pair_of(item: Any) -> tuple[Any, Any]:
    """Return the text and its pair, or None, that an input stands for."""
    if isinstance(item, Mapping):
        if unknown := set(item) - {"text", "text_pair"}:
            raise InputError(
                f"has {sorted(map(str, unknown))}, expected text and perhaps text_pair"
            )
        if "text" not in item:
            raise InputError("has no text")
        return item["text"], item.get("text_pair")
    if isinstance(item, tuple):
        if len(item) != 2:
            raise InputError(f"is a tuple of {len(item)}, expected two texts")
        return item[0], item[1]
    return item, None


def changed(task: str, options: Asked, changes: Mapping[str, Any]) -> Asked:
    """Return options with some changed.  Raises InputError for names that a task does not have."""
    known = [field.name for field in fields(options)]
    for name in changes:
        if name not in known:
            hint = nearest(name, known) or f"; it has {', '.join(known)}"
            raise InputError(f"{task} has no option {name!r}{hint}")
    return replace(options, **changes)


def one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuse a value that is not among those allowed."""
    if value not in allowed:
        texts = ", ".join(repr(each) for each in allowed)
        raise InputError(f"{name} is {value!r}, expected one of {texts}")


def counting(name: str, value: object) -> None:
    """Refuse what is no whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r}, expected a whole number from 1")


def softmax(x: Array) -> Array:
    """Return logits as probabilities, along the last axis, in float64."""
    return textbook.softmax(x.astype(np.float64)[..., None])[..., 0]


def best(scores: Array, k: int) -> list[int]:
    """Return the indices of the k greatest scores, greatest first; equals in order."""
    return [int(i) for i in np.argsort(-scores, kind="stable")[:k]]
