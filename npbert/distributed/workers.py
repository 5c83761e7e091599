"""What a worker runs: a task that is made once in each process, and one file after another.

A task travels as what made it, a few hundred bytes, and is loaded before any work, so that a
missing file is missed at once.  A file goes through it into another, which the client then names.
"""

import asyncio
import gzip
import hashlib
import io
import pickle
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Final, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, WorkerPlugin, get_client

from npbert import __version__
from npbert.distributed.columns import column_types, fill_columns
from npbert.distributed.remote_files import InputFile, open_remote, part_address, write_part
from npbert.errors import CheckpointError, InputError, NpbertError, listing
from npbert.jobs.blocks import BLOCK_INPUTS, Counts, Job, UnsavedOutput
from npbert.jobs.identity import hash_model, task_bytes
from npbert.jobs.lines import Record, to_line
from npbert.jobs.outputs import answer_record
from npbert.jobs.raw_lines import Lines
from npbert.jobs.records import InputFormat, Item, Source
from npbert.tasks.task import Refusal, Task

RECIPE_LIMIT: Final = 1 << 20  # bytes; what stands in every task of a graph is far smaller
LOAD_ATTEMPTS: Final = 5  # while workers die
REPLACE_SECONDS: Final = 10  # to wait for the worker that Dask starts in place of a dead one

_tasks: dict[bytes, Task[Any, Any]] = {}
_lock = threading.Lock()


class TaskRecipe(NamedTuple):
    """A task as it travels, and what must be the same where it arrives."""

    raw: bytes
    version: str  # of npbert
    model: str  # its fingerprint

    @property
    def name(self) -> str:
        """Return what it is known by on a cluster."""
        return f"npbert-{hashlib.sha256(self.raw).hexdigest()[:16]}"


def task_recipe(task: Task[Any, Any], model: str | None = None) -> TaskRecipe:
    """Return how to make a task elsewhere; `model` is its fingerprint, where that is known.

    Raises InputError for a task that no source makes.
    """
    task.require_streamable(task.options)
    model = model or (hash_model(task.folder) if task.folder else "")
    raw = task_bytes(task, model)
    if task.folder is None or len(raw) > RECIPE_LIMIT:
        raise InputError(
            "source is a Model that was not loaded, and its weights would travel with every "
            "partition; save it in a folder that the workers see, and pass that"
        )
    return TaskRecipe(raw, __version__, model)


def load_task(raw: bytes) -> Task[Any, Any]:
    """Return the task of a recipe, the same again in this process.  Raises NpbertError."""
    with _lock:
        if raw not in _tasks:
            _, _tasks[raw] = pickle.loads(raw)
        return _tasks[raw]


def forget_task(raw: bytes) -> None:
    """Let go of a task, and of its weights."""
    with _lock:
        _tasks.pop(raw, None)


def check_task(expected: TaskRecipe) -> None:
    """Make a task, and refuse one that would answer differently here.  Raises NpbertError."""
    if __version__ != expected.version:
        raise InputError(f"has npbert {__version__}, and the client {expected.version}")
    folder = load_task(expected.raw).folder
    assert folder is not None  # task_recipe() has seen to it
    if hash_model(folder) != expected.model:
        raise CheckpointError(f"{folder}: has not the files that the client has there")


class TaskLoader(WorkerPlugin):
    """Loads a task on every worker, and on those that come later."""

    idempotent = True  # by its name: a worker that is warm is left alone

    def __init__(self, recipe: TaskRecipe) -> None:
        self.recipe = recipe
        self.name = recipe.name

    async def setup(self, worker: Any) -> None:
        """Load the task.  Raises NpbertError, naming the worker."""
        try:
            await asyncio.to_thread(check_task, self.recipe)  # the worker's pulse goes on
        except NpbertError as error:
            raise type(error)(f"worker {worker.address}: {error}") from None

    def teardown(self, worker: Any) -> None:
        """Let go of the task."""
        forget_task(self.recipe.raw)


class InterruptIgnorer(WorkerPlugin):
    """Leaves Ctrl-C to the client, for workers of the same terminal, which sends it to all."""

    name = "npbert-ignore-interrupt"

    def setup(self, worker: Any) -> None:
        """Hear no more of it."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def find_client() -> Client | None:
    """Return the cluster's client that this program has, if any."""
    try:
        return get_client()
    except ValueError:
        return None


def load_on_workers(client: Client, recipe: TaskRecipe) -> None:
    """Load a task on every worker.  Raises NpbertError where one cannot."""
    if client.asynchronous:  # nothing can be waited for here: workers load with their first task
        return
    for left in reversed(range(LOAD_ATTEMPTS)):
        try:
            client.register_plugin(TaskLoader(recipe), name=recipe.name)
            return
        except NpbertError:
            forget_on_workers(client, recipe)  # or it would pass for warm the next time
            raise
        except OSError as error:  # a worker died meanwhile, and what the others say is lost with it
            forget_on_workers(client, recipe)
            if not left:
                raise InputError(
                    "workers died again and again while they loaded the model; probably the "
                    f"memory was not enough for it, or the cluster is gone: {error}"
                ) from None
            with suppress(TimeoutError):  # or none is asked, and those to come die unseen
                client.wait_for_workers(1, timeout=REPLACE_SECONDS)


def forget_on_workers(client: Client, recipe: TaskRecipe) -> None:
    """Let go of a task on every worker."""
    with suppress(OSError):  # a worker has gone in this moment, and its memory with it
        client.unregister_worker_plugin(recipe.name)


# And no moment's trouble.
LASTING_ERRORS: Final = (FileNotFoundError, IsADirectoryError, PermissionError)
TABLE_ROWS: Final = 16 * BLOCK_INPUTS  # of a table that are held at a time


@dataclass
class FileReport:
    """What became of a file."""

    file: str
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    first: str = ""  # of the inputs that failed
    error: str = ""  # why there is no answer at all
    part: str = ""  # where the answers are; only the client of the job gives them their name

    def add(self, item: Item, result: Any) -> None:
        """Remember the first that failed."""
        if isinstance(result, Refusal) and not self.first:
            self.first = f"{item.unit} {item.number}: {result.why}"


def answer_file(file: InputFile, raw: bytes, given: InputFormat, job: str) -> FileReport:
    """Answer for every input of a file, in a part of a job.

    An InputError is reported, not raised: it would be the same on any worker, and Dask tries again
    what is raised, as it should where a network or a disk has failed.  Raises OSError.
    """
    began, report = time.monotonic(), FileReport(file.source)
    task, given = load_task(raw), replace(given, form=file.form)
    part = part_address(file.target, job)
    try:
        with write_part(part) as out:
            answer = answer_table if file.form == "parquet" else answer_lines
            answer(task, file, given, report, out)
        report.part = part
    except InputError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, LASTING_ERRORS):
            raise error.__cause__ from None
        why = str(error)
        report.error = why if why.startswith(file.source) else f"{file.source}: {why}"
    report.seconds = round(time.monotonic() - began, 3)
    return report


def answer_lines(
    task: Task[Any, Any], file: InputFile, given: InputFormat, report: FileReport, whole: BinaryIO
) -> None:
    """Write JSON lines, the same bytes as of a job that is no cluster's."""

    def stream() -> BinaryIO:
        raw = open_remote(file.source)
        return raw if isinstance(raw, io.BufferedReader) else buffer_reads(raw)

    job = Job(task, report.counts, record=given.records_errors)
    with (
        closing(Source(given, (), file.source, Lines(file.source, stream))) as source,
        open_packed(whole, file.target) as out,
    ):
        for item, result in job.answers(source.items(), UnsavedOutput(), source.digest):
            report.add(item, result)
            out.write(to_line(answer_record(item, result)).encode() + b"\n")


def buffer_reads(raw: Any) -> BinaryIO:
    """Return a file of fsspec as one that can be peeked into."""
    return cast(BinaryIO, io.BufferedReader(raw))


def open_packed(whole: BinaryIO, target: str) -> AbstractContextManager[BinaryIO]:
    """Return where to write so that a file is packed, if its name says so; it stays open."""
    if not target.endswith(".gz"):
        return nullcontext(whole)
    return cast(BinaryIO, gzip.GzipFile("", "wb", fileobj=whole, mtime=0))


def answer_table(
    task: Task[Any, Any], file: InputFile, given: InputFormat, report: FileReport, whole: BinaryIO
) -> None:
    """Write a parquet file: the columns that the task does not read, and its answers."""
    record = given.records_errors
    columns = column_types(task, record=record)
    try:
        with open_remote(file.source) as raw, pq.ParquetFile(raw) as table:
            rest, read = split_columns(table.schema_arrow, given, columns)
            schema = pa.schema([*rest, *columns.items()])
            with pq.ParquetWriter(whole, schema) as out:
                for batch in table.iter_batches(TABLE_ROWS):
                    job = Job(task, report.counts, record=record)
                    found = table_records(batch.select(read), report.counts.inputs)
                    results = []
                    for item, result in job.answers(
                        given.items(found, "row"), UnsavedOutput(), str
                    ):
                        report.add(item, result)
                        results.append(result)
                    answers = fill_columns(columns, results).values()
                    beside = batch.select([each.name for each in rest]).columns
                    out.write_batch(pa.record_batch([*beside, *answers], schema))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's or the network's, and not pyarrow's own
        raise InputError(f"cannot be read as parquet: {' '.join(str(error).split())}") from None


def split_columns(
    schema: pa.Schema, given: InputFormat, columns: Iterable[str]
) -> tuple[list[pa.Field], list[str]]:
    """Return a table's columns that are passed through, and those that are read."""
    keys, named = given.keys()
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise InputError(f"has two columns {listing(map(repr, twice))}")
    there = f"; it has {listing(map(repr, schema.names))}"
    if absent := [key for key in named if key not in schema.names]:
        raise InputError(f"has no column {listing(map(repr, absent))}{there}")
    read = [key for key in keys.values() if key in schema.names]
    if not read:
        fields = " or ".join(keys)
        raise InputError(f"has no column {fields}{there}; --field says where a field stands")
    rest = [each for each in schema if each.name not in read]
    if clash := [each.name for each in rest if each.name in columns]:
        raise InputError(f"has a column {clash[0]!r}, where the answers would go")
    return rest, read


def table_records(batch: pa.RecordBatch, before: int) -> Iterator[Record]:
    """Yield the rows of a batch, counted on."""
    cells = map(cell_values, batch.columns)
    for i, row in enumerate(zip(*cells, strict=True), start=before):
        fault = next((cell for cell in row if isinstance(cell, InputError)), None)
        yield Record(i, fault or dict(zip(batch.schema.names, row, strict=True)))


def cell_values(column: pa.Array) -> Iterator[Any]:
    """Yield the values of a column, or what is wrong with each."""
    for cell in column:
        try:
            yield cell.as_py()
        except UnicodeDecodeError as error:
            yield InputError(f"is not UTF-8: {error.reason} at byte {error.start}")
