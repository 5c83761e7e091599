"""What all tasks share: one in, one out; a list in, a list out; a generator in, results lazily."""

import codecs
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, Self, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import NDArray

from npbert import textbook
from npbert.engine.activations import sigmoid
from npbert.engine.packs import Tokens
from npbert.engine.spellings import explain_arguments
from npbert.errors import InputError, listing, quote, warn
from npbert.hub import Rebuildable
from npbert.loading import load
from npbert.model import Model
from npbert.tasks.containers import (
    convert_inputs,
    count_characters,
    has_empty_text,
    input_parts,
)
from npbert.tasks.options import Asked, Unit, change_options
from npbert.tasks.rows import TaskRow
from npbert.text.encodings import Encoding
from npbert.textbook import Array

codecs.lookup("utf-32-le")  # for unit_offsets; a first call imports nothing, since threads may fork

# Of inputs that are read ahead; a line may have four times as many, and 64 lines are read ahead.
CHARACTERS_AHEAD: Final = 1 << 20

Answer = dict[str, Any]
Given = TypeVar("Given")


class TokenList(NamedTuple):
    """What a model reads at once."""

    ids: Sequence[int]
    wanted: Sequence[int] | None = None  # positions
    types: Sequence[int] | None = None


@dataclass(frozen=True)
class Reading(Generic[Given]):
    """One input as the model reads it: token lists, and what the answer needs."""

    lists: Iterable[TokenList]
    given: Given
    cut: Sequence[int] = ()  # how many tokens did not fit, of each text that was cut
    tokens: Sequence[Tokens] = ()  # the lists, as soon as the model has checked them
    characters: int = 0  # of the input, as far as they are known
    empty: bool = False  # whether one of its texts is


class Refusal(NamedTuple):
    """Why there is no result for an input, in the place of one."""

    why: str
    characters: int = 0  # of the input


@dataclass
class Tally:
    """What was read so far."""

    tokens: int = 0
    cut: int = 0  # texts of which some tokens did not fit
    unread: int = 0  # those tokens
    empty: int = 0  # inputs with an empty text

    def add(self, reading: Reading[Any]) -> None:
        """Count one more input."""
        self.tokens += sum(len(each.ids) for each in reading.tokens)
        self.cut += len(reading.cut)
        self.unread += sum(reading.cut)
        self.empty += reading.empty

    def add_tally(self, other: "Tally") -> None:
        """Count what was read elsewhere."""
        for each in fields(Tally):
            name = each.name
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Task(Rebuildable, ABC, Generic[Asked, Given]):
    """A model that answers questions about texts; made by npbert.pipeline."""

    options: Asked
    folder: Path | None = None  # that all was read from
    folder_limit: int | None = None  # tokens of an input that are read, as the folder says it

    def __init__(
        self,
        model: Model,
        options: Asked,
        row: TaskRow,
        *,
        threads: int | None = None,
        batch_invariant: bool = False,
    ) -> None:
        if model.architecture != row.architecture:
            raise InputError(
                f"{row.name} needs a model {row.architecture}, but this one is {model.architecture}"
            )
        if model.tokenizer is None:
            raise InputError(
                f"{row.name} reads text, but the model came without a tokenizer: its folder has "
                "neither tokenizer.json nor vocab.txt"
            )
        self.row = row
        self.model = model
        self.tokenizer = model.tokenizer
        self.options = self.check_options(options)
        self.threads = threads
        self.batch_invariant = batch_invariant

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        made, arguments, *more = super().__reduce_ex__(protocol)
        how = {"threads": self.threads, "batch_invariant": self.batch_invariant}
        return (partial(made, **how), arguments) if self.rebuild else (made, arguments, *more)

    def __repr__(self) -> str:
        usual = type(self.options)()
        changed = {
            each.name: f"array{value.shape}" if hasattr(value, "shape") else quote(value)
            for each in fields(usual)
            if (value := getattr(self.options, each.name)) is not getattr(usual, each.name)
            and not (isinstance(value, str | int | tuple) and value == getattr(usual, each.name))
        }
        options = "".join(f", {name}={value}" for name, value in changed.items())
        return f"<npbert {self.row.name}{options}, by {self.model!r}>"

    @classmethod
    def from_folder(
        cls, folder: Path, loading: Mapping[str, Any], options: Asked, row: TaskRow, **how: Any
    ) -> Self:
        """Load the model of a folder for this task; `loading` is what npbert.load is told."""
        return cls(load(folder, **loading), options, row, **how)

    @explain_arguments
    def __call__(self, inputs: Any = None, *more: Any, **changes: Any) -> Any:
        """Answer for one input, or for many of them.

        Parameters
        ----------
        inputs : one input; a list of them; or any other iterable of them
            An input is a str, or a tuple or dict of the task's fields.  One input gives one
            result; a list, a Series, an array or a set gives a list.  Any other iterable gives an
            iterator that reads a little ahead of what it yields, in constant memory.
        **changes
            Options that hold for this call only.

        Raises
        ------
        InputError
            Says which input, what is wrong with it, and what was expected.
        """
        options = self.with_changes(changes)
        if more:
            raise InputError(
                f"{self.row.name} takes one input, or many in a list, but {1 + len(more)} came; "
                f"what belongs together is a tuple or dict of {' and '.join(self.row.fields)}, and "
                f"options have names: {listing((each.name for each in fields(options)), 20)}"
            )
        if (other := self.task_for(options)) is not self:
            return other(inputs, **changes)
        inputs = convert_inputs(inputs, self.row.names)
        if isinstance(inputs, list):
            return self.collect(self.stream(inputs, options), options)
        self.require_streamable(options)
        if isinstance(inputs, str | tuple | Mapping):
            (result,) = self.stream([inputs], options)  # to its end, which tells what was cut
            return result
        if isinstance(inputs, Iterable) and not isinstance(inputs, bytes | bytearray):
            return self.stream(inputs, options)
        together = " and ".join(self.row.fields)
        one = "a str" if self.row.required == 1 else f"a dict of {together}"
        raise InputError(f"{self.row.name} reads {one}, or many, not {type(inputs).__name__}")

    def with_changes(self, changes: Mapping[str, Any]) -> Asked:
        """Return the task's options with some changed.  Raises InputError."""
        return (
            self.check_options(change_options(self.row.name, self.options, changes))
            if changes
            else self.options
        )

    def check_options(self, options: Asked) -> Asked:
        """Return options ready for this model.  Raises InputError for what it cannot do."""
        most = self.tokenizer.max_length
        if options.max_length is not None and options.max_length > most:
            raise InputError(f"max_length is {options.max_length}, but the model reads {most}")
        return self.prepare_options(options)

    def prepare_options(self, options: Asked) -> Asked:
        """Return options as a task of this kind uses them.  Raises InputError."""
        return options

    def task_for(self, options: Asked) -> "Task[Asked, Given]":
        """Return the task whose model computes what these options ask for: mostly this one."""
        return self

    def collect(self, results: Iterator[Any], options: Asked) -> Any:
        """Return the results for a list of inputs."""
        return list(results)

    def require_streamable(self, options: Asked) -> None:
        """Refuse options for which all inputs must be seen together.  Raises InputError."""

    def stream(self, inputs: Iterable[Any], options: Asked) -> Iterator[Any]:
        """Yield a result for each input, in order; tell at the end what was lost."""
        tally = Tally()
        readings = (self.read_numbered(i, item, options) for i, item in enumerate(inputs))
        yield from self.answers(readings, options, tally)
        self.warn_of_losses(tally, options)

    def warn_of_losses(self, tally: Tally, options: Asked) -> None:
        """Tell how much was cut, and how many texts were empty, whose answers say nothing."""
        for note in self.omission_notes(tally, options):
            warn(note)

    def omission_notes(self, tally: Tally, options: Asked) -> Iterator[str]:
        """Yield what there is to tell of texts that were cut, or empty."""
        if tally.cut:
            yield self.truncation_notice(tally.cut, tally.unread, options)
        if tally.empty:
            have = "input has" if tally.empty == 1 else "inputs have"
            yield f"{tally.empty} {have} an empty text, and what is answered for it means little"

    def answers(
        self, readings: Iterable[Reading[Given] | Refusal], options: Asked, tally: Tally
    ) -> Iterator[Any]:
        """Yield a result for each reading, in order, or the refusal that stands in its place."""
        read: deque[Reading[Given] | Refusal] = deque()

        def lists() -> Iterator[Tokens | None]:
            held = 0  # characters of the inputs whose answers are awaited
            for reading in readings:
                read.append(reading)
                held += reading.characters
                if isinstance(reading, Reading):
                    tally.add(reading)
                    yield from reading.tokens
                if held > CHARACTERS_AHEAD:
                    yield None  # so that no more are read before these are answered
                    held = 0

        ready: list[Array] = []
        for values in self.compute(lists()):
            for value in values:
                yield from self.take_unread(read, options)
                reading = read[0]
                assert isinstance(reading, Reading)  # a Refusal is taken
                ready.append(value)
                if len(ready) == len(reading.tokens):
                    read.popleft()
                    yield self.answer(reading, ready, options)
                    ready = []
            yield from self.take_unread(read, options)

    def take_unread(self, read: deque[Reading[Given] | Refusal], options: Asked) -> Iterator[Any]:
        """Take and yield the first of what was read, as long as the model has no part in it."""
        while read and (isinstance(first := read[0], Refusal) or not first.tokens):
            read.popleft()
            yield first if isinstance(first, Refusal) else self.answer(first, [], options)

    def compute(self, lists: Iterable[Tokens | None]) -> Iterator[Iterator[Array]]:
        """Yield what the model computes of token lists; see Model.stream_groups."""
        return self.model.stream_groups(
            lists, threads=self.threads, batch_invariant=self.batch_invariant
        )

    def array_row(self, result: Any) -> Any:
        """Return a result as the row of an array; see TaskRow.array_suffix."""
        return result

    def truncation_notice(self, texts: int, tokens: int, options: Asked) -> str:
        """Say how much was cut."""
        return (
            f"{texts} of the texts {'was' if texts == 1 else 'were'} truncated to "
            f"{self.token_limit(options)} tokens, {tokens} tokens were not read (long='error' "
            "refuses such texts)"
        )

    def token_limit(self, options: Asked) -> int:
        """Return how many tokens of a text, or of a pair, are read at most."""
        return self.tokenizer.limit(options.max_length or self.folder_limit)

    def read_numbered(self, i: int, item: Any, options: Asked) -> Reading[Given]:
        """Read input number i.  Raises InputError saying which input it was."""
        try:
            return self.read_input(item, options)
        except InputError as error:
            raise InputError(f"text {i}: {error}") from None

    def read_input(self, item: Any, options: Asked) -> Reading[Given]:
        """Turn one input into token lists that the model takes.  Raises InputError."""
        made = self.read(item, options)
        tokens = list(self.model.check_lists(made.lists))
        empty = has_empty_text(item, self.row.fields)
        return Reading((), made.given, made.cut, tokens, count_characters(item), empty)

    @abstractmethod
    def read(self, item: Any, options: Asked) -> Reading[Given]:
        """Turn one input into token lists.  Raises InputError."""

    @abstractmethod
    def answer(self, reading: Reading[Given], values: list[Array], options: Asked) -> Any:
        """Turn what the model computed for the token lists of one input into a result."""

    def list_of(self, encoding: Encoding, wanted: Sequence[int] | None = None) -> TokenList:
        """Return an encoding as the model reads it, with token types if its family has them."""
        return TokenList(encoding.ids, wanted, self.model.token_types(encoding))

    def parts(self, item: Any) -> list[Any]:
        """Return what an input holds for each of the task's fields, None where it has none."""
        return input_parts(item, self.row.fields, self.row.required)

    def check_truncation(self, encodings: Iterable[Encoding], options: Any) -> list[int]:
        """Return how much was cut of each encoding that was; refuse it if that was asked."""
        cut = [each for each in encodings if each.cut]
        if cut and options.long == "error":
            raise InputError(
                f"has {len(cut[0]) + cut[0].cut} tokens, but the model reads "
                f"{len(cut[0])}; shorten it, or say long='truncate'"
            )
        return [each.cut for each in cut]


def split_into_chunks(length: int, room: int, shared: int) -> list[slice]:
    """Return slices of at most `room`, each of which shares so much with the one before it."""
    if not 0 <= shared < room:
        raise InputError(
            f"stride is {shared}, but a window has {room} tokens of text, "
            "and neighbours cannot share all of them"
        )
    last = max(0, length - shared - 1) // (room - shared)
    return [
        slice(i * (room - shared), min(length, i * (room - shared) + room)) for i in range(last + 1)
    ]


def unit_offsets(text: str, unit: Unit) -> NDArray[np.intp]:
    """Return for every position in a text, its end too, how many units stand before it."""
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    wide = {
        "char": np.ones(len(points), np.intp),
        "byte": 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000),
        "utf16": 1 + (points >= 0x10000),
    }
    return np.concatenate([[0], np.cumsum(wide[unit])]).astype(np.intp)


def probabilities(x: Array) -> Array:
    """Return logits as probabilities, along the last axis, in float64."""
    return textbook.softmax(x.astype(np.float64)[..., None])[..., 0]


def scores_of(function: str, logits: Array) -> Array:
    """Return logits as scores, along the last axis, in float64."""
    if function == "softmax":
        return probabilities(logits)
    wide = logits.astype(np.float64)
    return sigmoid(wide) if function == "sigmoid" else wide


def best_indices(scores: Array, k: int | None) -> list[int]:
    """Return where the k greatest scores are (None: all), greatest first; equals in order."""
    return [int(i) for i in np.argsort(-scores, kind="stable")[:k]]
