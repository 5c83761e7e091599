"""From the body of a request to what a task is asked, and from its answers to the body of a reply.

What a body may hold is a table for each endpoint, by which it is checked and documented.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import Any, Final, NamedTuple, get_type_hints

import numpy as np

from npbert.errors import InputError, listing, quote, suggest
from npbert.jobs.lines import parse_object, to_line
from npbert.serving.batching import Batcher
from npbert.tasks.options import Options, option_types
from npbert.tasks.rows import TASKS, TaskRow
from npbert.tasks.task import Task


class ServedTask(NamedTuple):
    """A model that is served."""

    name: str  # as it was given
    task: Task[Any, Any]
    batcher: Batcher


class FieldKind(NamedTuple):
    """What a value of a body may be."""

    words: str
    allows: Callable[[Any], bool]
    schema: Mapping[str, Any]


def choice_of(*words: str) -> FieldKind:
    """Return the kind of a value that is one of some words."""
    return FieldKind(
        f"one of {', '.join(words)}", lambda x: x in words, {"type": "string", "enum": [*words]}
    )


STRING: Final = FieldKind("a string", lambda x: isinstance(x, str), {"type": "string"})
FLAG: Final = FieldKind("true or false", lambda x: isinstance(x, bool), {"type": "boolean"})
COUNT: Final = FieldKind(
    "a whole number from 1", lambda x: isinstance(x, int) and not isinstance(x, bool) and x > 0,
    {"type": "integer", "minimum": 1},
)  # fmt: skip
OBJECT: Final = FieldKind("an object", lambda x: isinstance(x, dict), {"type": "object"})
STRINGS: Final = FieldKind(
    "a list of strings",
    lambda x: isinstance(x, list) and all(isinstance(each, str) for each in x),
    {"type": "array", "items": {"type": "string"}},
)
ONE_OR_MANY: Final = FieldKind(
    "one input, or a list", lambda x: True, {}
)  # the task says what is wrong


class BodyField(NamedTuple):
    """A value of a body, and what it means."""

    kind: FieldKind
    meaning: str
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskQuestion:
    """What a task is asked, and how its answers are told."""

    task: Task[Any, Any]
    options: Any
    inputs: Sequence[Any]
    convert: Callable[[Any], Any]  # an answer, as JSON has it
    join: Callable[[list[str], int], str]  # those in JSON, and the tokens that were read
    # What is told of answers that are arrays, where it needs all of them.
    collect: Callable[[Iterator[Any]], Iterable[Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A path that answers with a task."""

    path: str
    row: TaskRow
    summary: str
    fields: Mapping[str, BodyField]
    ask: Callable[[Mapping[str, Any], ServedTask], TaskQuestion]
    failure: int = 500  # the status where the model fails
    native: bool = False  # options and answers are the library's
    nests_errors: bool = False  # {"error": {"message", "type"}} in place of {"error", "error_type"}


def parse_body(body: bytes, known: Mapping[str, BodyField]) -> dict[str, Any]:
    """Return the values of a body that are not null.  Raises InputError."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the body is not UTF-8: {error.reason}") from None
    try:
        given = parse_object(text)
    except InputError as error:
        raise InputError(f"the body {error}") from None
    return check_fields("the body", given, known)


def check_fields(
    what: str, given: Mapping[str, Any], known: Mapping[str, BodyField]
) -> dict[str, Any]:
    """Return the values of an object that are not null.  Raises InputError."""
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in known:
            raise InputError(
                f"{what} has {quote(name)}, expected {listing(known)}{suggest(name, known)}"
            )
    if missing := [name for name, each in known.items() if each.required and name not in given]:
        raise InputError(f"{what} has no {' and no '.join(missing)}")
    for name, value in given.items():
        if not known[name].kind.allows(value):
            raise InputError(f"{name} is {quote(value)}, expected {known[name].kind.words}")
    return given


MODEL: Final = BodyField(STRING, "which of several models, as GET /info names them")


def list_parts(parts: Sequence[str], tokens: int) -> str:
    """Return answers as an array."""
    return f"[{','.join(parts)}]"


def first_part(parts: Sequence[str], tokens: int) -> str:
    """Return the answer to the only input."""
    return parts[0]


def values_of(answer: Any) -> Any:
    """Return an answer as JSON has it; the numbers of an array are exactly its own."""
    return answer.tolist() if isinstance(answer, np.ndarray) else answer


@cache
def list_file_options(task: str) -> list[str]:
    """Return the options of a task whose text would be the path of a file."""
    hints = get_type_hints(TASKS[task].options)
    return [name for name, hint in hints.items() if Any in option_types(hint)]


def change_task_options(task: Task[Any, Any], changes: Mapping[str, Any]) -> Options:
    """Return a task's options with some changed by a caller.  Raises InputError."""
    for name, value in changes.items():
        if isinstance(value, str) and name in list_file_options(task.row.name):
            raise InputError(
                f"parameters: {name} is {quote(value)}, expected numbers: a server reads no files "
                "for its callers"
            )
    try:
        made: Options = task.with_changes(changes)
    except InputError as error:
        raise InputError(f"parameters: {error}") from None
    return made


def ask_task(body: Mapping[str, Any], served: ServedTask) -> TaskQuestion:
    """Return what POST /v1/TASK asks: one input, or a list of them.  Raises InputError."""
    options = change_task_options(served.task, body.get("parameters", {}))
    given = body["inputs"]
    many = isinstance(given, list)
    if not many:
        served.task.require_streamable(options)
    return TaskQuestion(
        task=served.task, options=options, inputs=given if many else [given],
        convert=values_of, join=list_parts if many else first_part,
        collect=partial(served.task.collect, options=options) if many else None,
    )  # fmt: skip


def task_endpoint(row: TaskRow) -> Endpoint:
    """Return the endpoint that every task has."""
    names = listing((each.name for each in fields(row.options)), 20)
    return Endpoint(
        path=f"/v1/{row.name}", row=row, summary=row.summary, ask=ask_task, native=True,
        fields={
            "inputs": BodyField(ONE_OR_MANY, "one input, or a list of them", required=True),
            "parameters": BodyField(OBJECT, f"options of this request: {names}"),
            "model": MODEL,
        },
    )  # fmt: skip


class AnswerText:
    """The answers to one request, each written as JSON as soon as it is there.

    Arrays are kept until the last one is there, where a list of them was asked for.
    """

    def __init__(self, question: TaskQuestion) -> None:
        self.question = question
        self.answers: dict[int, Any] = {}
        self.size = 0  # bytes, or about as many

    def add(self, i: int, answer: Any) -> None:
        """Take the answer to input i."""
        if self.question.collect and isinstance(answer, np.ndarray):
            self.answers[i] = answer
            self.size += answer.nbytes
        else:
            self.answers[i] = to_line(self.question.convert(answer))
            self.size += len(self.answers[i])

    def finish(self, tokens: int) -> bytes:
        """Return the body of the reply, when all answers are there."""
        made = [self.answers.pop(i) for i in range(len(self.question.inputs))]
        if (collect := self.question.collect) and not all(isinstance(each, str) for each in made):
            made = [to_line(self.question.convert(each)) for each in collect(iter(made))]
        return self.question.join(made, tokens).encode()
