"""Batch work that loses nothing: any number of inputs through a task, in order, in little memory.

Inputs are cut into blocks, and no pack of the model holds inputs of two blocks, so that a job that
goes on at a block's beginning gives the same bytes as one that was never stopped.
"""

import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Protocol, Self

from npbert import __version__
from npbert.checkpoint.reading import open_file, read_bytes
from npbert.errors import ExitStatus, InputError, tell
from npbert.hub.cache import model_files
from npbert.jobs.atomic import Places, is_whole
from npbert.jobs.line_files import LinesOutput
from npbert.jobs.outputs import (
    ARRAY_OUTPUTS,
    OUTPUTS,
    StreamOutput,
    answer_record,
    count_recorded,
    open_output,
    show_progress,
)
from npbert.jobs.records import InputFormat, Item, Source
from npbert.tasks.containers import count_characters
from npbert.tasks.rows import TASKS
from npbert.tasks.task import Reading, Refusal, Tally, Task
from npbert.text.added_tokens import VOCABULARY_LIMIT

TABLE_SUFFIXES: Final = (".csv", ".tsv", ".parquet")  # that can be read, or not even that
LINE_SUFFIXES: Final = (".jsonl", ".ndjson", ".jsonlines", ".ldjson", ".jl", ".txt", ".log", ".out")
FORMAT_SUFFIX: Final = re.compile(r"\.[a-z][a-z0-9]*")  # what says a format; .2026 says none
BLOCK_INPUTS: Final = 256  # inputs; a multiple of those that are read ahead, so that packs are full


@dataclass
class Counts(Tally):
    """What a job has done so far."""

    inputs: int = 0
    failed: int = 0


class BlockOutput(Protocol):
    """What makes safe, block by block, what became of the answers."""

    def commit(self, state: Mapping[str, Any]) -> None: ...
    def finish(self, state: Mapping[str, Any]) -> None: ...


class UnsavedOutput:
    """An output of which nothing is safe before all is, or nothing ever."""

    def commit(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finish(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class StopSignal:
    """The first Ctrl-C ends the reading of inputs, so that those read are answered; a second all.

    While an input is waited for, nothing is in hand, and the first ends the waiting.
    """

    def __init__(self) -> None:
        self.asked = False  # for an end, by the signal
        self.ended = False  # the inputs, by themselves
        self.waiting = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other hears signals
            self.before = signal.signal(signal.SIGINT, self.note_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.before)

    def note_signal(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        again, self.asked = self.asked, True
        if again or self.waiting:
            raise KeyboardInterrupt

    def take_until_asked(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield items until the signal comes."""
        while True:
            try:
                self.waiting = True  # before it is asked: the signal may come between the two
                if self.asked:
                    return
                item = next(items)
            except StopIteration:
                self.ended = True
                return
            except KeyboardInterrupt:
                return
            finally:
                self.waiting = False
            yield item


class Job:
    """A task over many inputs.

    Parameters
    ----------
    task : Task
    counts : Counts
        What was done before, where a job goes on; what is done is added.
    record : bool
        Let a Refusal stand in the place of an answer; otherwise it is raised, as an InputError.
    block : int
        How many inputs make a block.
    """

    def __init__(
        self,
        task: Task[Any, Any],
        counts: Counts,
        *,
        record: bool,
        block: int = BLOCK_INPUTS,
    ) -> None:
        task.require_streamable(task.options)
        self.task = task
        self.counts = counts
        self.record = record
        self.block = block
        self.stop = StopSignal()

    def answers(
        self, items: Iterator[Item], output: BlockOutput, digest: Callable[[], str]
    ) -> Iterator[tuple[Item, Any]]:
        """Yield items with their results; what becomes of them block by block is made safe.

        `digest` tells of all that was read of the input.  Raises InputError in an item's turn.
        """
        items = self.stop.take_until_asked(items)
        while True:
            before = self.counts.inputs
            for pair in self.answer_block(islice(items, self.block)):
                yield pair
                self.counts.inputs += 1
                self.counts.failed += isinstance(pair[1], Refusal)
            whole = self.counts.inputs - before == self.block
            if whole or self.stop.ended:
                state = {**asdict(self.counts), "sha256": digest()}
                (output.finish if self.stop.ended else output.commit)(state)
            if not whole or self.stop.ended:
                return

    def answer_block(self, items: Iterator[Item]) -> Iterator[tuple[Item, Any]]:
        """Yield some items with their results."""
        read: deque[Item] = deque()

        def readings() -> Iterator[Reading[Any] | Refusal]:
            for item in items:
                read.append(item)
                yield self.read_input(item)

        for result in self.task.answers(readings(), self.task.options, self.counts):
            yield read.popleft(), result

    def read_input(self, item: Item) -> Reading[Any] | Refusal:
        """Return an item as the model reads it, or why it cannot be read."""
        size = count_characters(item.given) + count_characters(item.beside)
        if isinstance(item.given, InputError):  # which is not raised: it would hold its own item
            return self.refuse(item, item.given, size)
        try:
            reading = self.task.read_input(item.given, self.task.options)
        except InputError as error:
            return self.refuse(item, error, size)
        return replace(reading, characters=size)

    def refuse(self, item: Item, error: InputError, size: int) -> Refusal:
        """Return why an item cannot be read, if that is recorded; or else raise it."""
        if self.record:
            return Refusal(str(error), size)
        raise InputError(f"{item.unit} {item.number}: {error}") from None


def run_batch(
    task: Task[Any, Any],
    given: InputFormat,
    texts: Sequence[str],
    input_path: str | None,
    output: str | None,
    *,
    resume: bool = False,
) -> ExitStatus:
    """Answer for every input, in order, and say how it went.

    Parameters
    ----------
    task : Task
    given : InputFormat
        How the inputs stand in what is read.
    texts : list of str
        The inputs themselves; or none, and they stand in a file.
    input_path, output : str or None
        "-" and None are stdin and stdout.
    resume : bool
        Go on with an output that an interrupted job has left.

    Raises
    ------
    InputError, OSError
    """
    path = check_output(task, given, output, resume=resume)
    if path and resume and is_whole(path):
        failed = count_recorded(path) if given.records_errors else 0
        also = f"; {failed:,} of its inputs failed" if failed else ""
        tell(f"{path} is there and whole, so that nothing is left to do{also}")
        return ExitStatus.SOME_FAILED if failed else ExitStatus.FINE
    if not texts and input_path in (None, "-") and sys.stdin is None:
        raise InputError("there is no TEXT, and stdin is closed")
    if not texts and not given.says_all and input_path in (None, "-") and sys.stdin.isatty():
        end = "Ctrl-Z and Enter end" if os.name == "nt" else "Ctrl-D ends"
        tell(f"reads what is typed here, a text a line; {end} it")
    with closing(Source(given, texts, input_path)) as source:
        if path:
            refuse_input_as_output(path, source)
        job = job_identity(task, given, source.form) if path else {}
        out = open_output(path, job, resume=resume)
        status, told = ExitStatus.FINE, (input_path, output) != (None, None)
        try:
            with out:
                status = answer_source(task, given, source, out, summary=told)
        finally:
            safe = out.saved.get("inputs", 0)
            unfinished = isinstance(out, LinesOutput) and not out.whole
            if unfinished and (safe or status == ExitStatus.INTERRUPTED):
                tell(f"{path}: not finished; {describe_rest(safe)}")
        return status


def answer_source(
    task: Task[Any, Any],
    given: InputFormat,
    source: Source,
    output: LinesOutput | StreamOutput,
    *,
    summary: bool,
) -> ExitStatus:
    """Take every input from the source to the output; return how that ended."""
    # Someone who types wants an answer after every line; a pipe is read a little ahead.
    typed = source.lines is not None and source.lines.own is None and sys.stdin.isatty()
    counts = Counts(**{each.name: output.saved.get(each.name, 0) for each in fields(Counts)})
    before, began = counts.tokens, time.monotonic()
    job = Job(task, counts, record=given.records_errors, block=1 if typed else BLOCK_INPUTS)
    items = source.items(counts.inputs, output.saved["sha256"] if counts.inputs else None)
    answers = job.answers(items, output, source.digest)
    quiet = source.texts or typed
    arrays = type(output) in ARRAY_OUTPUTS.values()
    if not quiet:
        size = source.lines.size if source.lines else None
        position = source.lines.position if source.lines and size is not None else None
        answers = show_progress(answers, counts.inputs, total=size, position=position)
    with job.stop:
        for item, result in answers:
            output.write(task.array_row(result) if arrays else answer_record(item, result))
    task.warn_of_losses(counts, task.options)
    if summary:
        tell(summarize(counts, before, time.monotonic() - began))
    if job.stop.asked and not job.stop.ended:
        return ExitStatus.INTERRUPTED
    return ExitStatus.SOME_FAILED if counts.failed else ExitStatus.FINE


def check_output(
    task: Task[Any, Any], given: InputFormat, output: str | None, *, resume: bool
) -> Path | None:
    """Return the file that answers go to; None is stdout.  Raises InputError."""
    path = None if output in (None, "-") else Path(str(output))
    if path is None:
        if resume:
            raise InputError("--resume goes on with a file; it needs --output FILE")
        return None
    ends = [end.lower() for end in path.suffixes]
    if resume and path.exists() and not path.is_file():
        raise InputError(f"--output {path}: is no file, and --resume goes on with one")
    inner = next((end for end in reversed(ends) if end != ".gz"), "")
    if inner in TABLE_SUFFIXES:
        raise InputError(f"--output {path}: answers are written as JSON lines, not as a table")
    if inner == ".json" != ends[-1]:
        raise InputError(
            f"--output {path}: an array of JSON is not packed; expected .json, or .jsonl.gz"
        )
    written = not FORMAT_SUFFIX.fullmatch(inner) or inner in (*LINE_SUFFIXES, *OUTPUTS)
    if not written and (path.is_file() or not path.exists()):
        also = f", or {task.row.array_suffix}" if task.row.array_suffix else ""
        raise InputError(
            f"--output {path}: no {inner} file is written, but JSON lines (.jsonl, .jsonl.gz) or "
            f"an array of JSON (.json){also}"
        )
    last, before = [*ends[::-1], "", ""][:2]
    if before in ARRAY_OUTPUTS:
        raise InputError(f"--output {path}: an array is not packed; expected a name in {before}")
    if last in ARRAY_OUTPUTS and task.row.array_suffix != last:
        able = " and ".join(name for name, row in TASKS.items() if row.array_suffix == last)
        raise InputError(f"--output {path}: only {able} makes an array in {last}")
    if last in ARRAY_OUTPUTS and given.records_errors:
        raise InputError(f"--output {path}: an array has no place to record an error")
    return path


def refuse_input_as_output(path: Path, source: Source) -> None:
    """Refuse to write where the input is read from.  Raises InputError."""
    raw = None if source.lines is None else source.lines.raw
    with suppress(OSError):  # what has no descriptor is no file
        read = os.fstat(raw.fileno()) if raw else None
        for place in Places.from_path(path):
            if read and place.is_file() and os.path.samestat(read, place.stat()):
                raise InputError(f"--output {path}: writes {place}, which is the --input")


def describe_rest(inputs: int) -> str:
    """Say what an unfinished job has left."""
    if not inputs:
        return f"nothing is safe before {BLOCK_INPUTS} inputs are answered"
    return f"{inputs:,} answers are safe, and --resume goes on behind them"


def job_identity(task: Task[Any, Any], given: InputFormat, form: str | None) -> dict[str, Any]:
    """Return all that a job's bytes depend on but its inputs, as JSON has it."""
    said = {
        "npbert": __version__,
        "model": hash_model(task.folder) if task.folder else None,
        "options": {
            each.name: hash_array(getattr(task.options, each.name)) for each in fields(task.options)
        },
        **asdict(given),
        "form": form,
        "block": BLOCK_INPUTS,
    }
    return json.loads(json.dumps(said))


def hash_array(value: Any) -> Any:
    """Return an option as JSON has it; of an array, which came from a file, its sha256."""
    return hashlib.sha256(value.tobytes()).hexdigest() if hasattr(value, "tobytes") else value


def summarize(counts: Counts, before: int, seconds: float) -> str:
    """Say what was done, all in all, and how fast it went this time."""
    parts = [f"{counts.inputs:,} input{'s' * (counts.inputs != 1)}", f"{counts.tokens:,} tokens"]
    parts += [f"{counts.cut:,} truncated"] if counts.cut else []
    parts += [f"{counts.empty:,} with an empty text"] if counts.empty else []
    parts += [f"{counts.failed:,} failed"] if counts.failed else []
    rate = (counts.tokens - before) / max(seconds, 1e-9)
    return f"{', '.join(parts)}; {seconds:.1f} s, {rate:,.0f} tokens/s"


def hash_model(folder: Path) -> str:
    """Return the sha256 of the files of a model that its answers depend on."""
    digest = hashlib.sha256()
    for name in model_files(folder):
        path = folder / name
        if path.suffix in (".json", ".txt"):
            whole = hashlib.sha256(read_bytes(path, VOCABULARY_LIMIT))
        else:
            with open_file(path) as file:
                whole = hashlib.file_digest(file, "sha256")
        digest.update(name.encode() + whole.digest())
    return digest.hexdigest()
