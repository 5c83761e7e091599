"""What a worker does: one file through a task, into another file that appears when it is whole."""

import argparse
import gzip
import io
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from npbert.cli.places import File, appearing, opened
from npbert.cli.reading import Source, keyed, rows
from npbert.cli.results import answered
from npbert.distributed.columns import filled, types
from npbert.distributed.shared import made
from npbert.errors import InputError, listed
from npbert.jobs import BLOCK, Counts, Item, Job, Unsaved
from npbert.lines import Lines, Record, written
from npbert.tasks import Task
from npbert.tasks.shared import Refusal

LASTING: Final = (FileNotFoundError, IsADirectoryError, PermissionError)  # and no moment's trouble
ROWS: Final = 16 * BLOCK  # of a table that are held at a time


@dataclass
class Report:
    """What became of a file."""

    file: str
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    first: str = ""  # of the inputs that failed
    error: str = ""  # why there is no answer at all

    def add(self, item: Item, result: Any) -> None:
        """Remember the first that failed."""
        if isinstance(result, Refusal) and not self.first:
            self.first = f"{item.unit} {item.number}: {result.why}"


def answer_file(file: File, raw: bytes, args: argparse.Namespace) -> Report:
    """Answer for every input of a file.

    An InputError is reported, not raised: it would be the same on any worker, and Dask tries again
    what is raised, as it should where a network or a disk has failed.  Raises OSError.
    """
    began, report = time.monotonic(), Report(file.source)
    task = made(raw)
    args = argparse.Namespace(**vars(args), input=file.source, form=file.form)
    try:
        (answer_table if file.form == "parquet" else answer_lines)(task, file, args, report)
    except InputError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, LASTING):
            raise error.__cause__ from None
        why = str(error)
        report.error = why if why.startswith(file.source) else f"{file.source}: {why}"
    report.seconds = round(time.monotonic() - began, 3)
    return report


def answer_lines(
    task: Task[Any, Any], file: File, args: argparse.Namespace, report: Report
) -> None:
    """Write JSON lines, the same bytes as of a job that is no cluster's."""

    def stream() -> BinaryIO:
        raw = opened(file.source)
        return raw if isinstance(raw, io.BufferedReader) else buffered(raw)

    job = Job(task, report.counts, record=args.on_error == "record")
    with (
        closing(Source(args, Lines(file.source, stream))) as source,
        appearing(file.target) as path,
        path.open("wb") as whole,
        packed(whole, file.target) as out,
    ):
        for item, result in job.answers(source.items(), Unsaved(), source.digest):
            report.add(item, result)
            out.write(written(answered(item, result)).encode() + b"\n")


def buffered(raw: Any) -> BinaryIO:
    """Return a file of fsspec as one that can be peeked into."""
    return cast(BinaryIO, io.BufferedReader(raw))


def packed(whole: IO[bytes], target: str) -> IO[bytes]:
    """Return where to write so that a file is packed, if its name says so."""
    if not target.endswith(".gz"):
        return whole
    return cast(IO[bytes], gzip.GzipFile("", "wb", fileobj=whole, mtime=0))


def answer_table(
    task: Task[Any, Any], file: File, args: argparse.Namespace, report: Report
) -> None:
    """Write a parquet file: the columns that the task does not read, and its answers."""
    record = args.on_error == "record"
    columns = types(task, record=record)
    try:
        with opened(file.source) as raw, pq.ParquetFile(raw) as table:
            rest, read = parted(table.schema_arrow, args, columns)
            schema = pa.schema([*rest, *columns.items()])
            with appearing(file.target) as path, pq.ParquetWriter(path, schema) as out:
                for batch in table.iter_batches(ROWS):
                    job = Job(task, report.counts, record=record)
                    found = records(batch.select(read), report.counts.inputs)
                    results = []
                    for item, result in job.answers(rows(found, args, "row"), Unsaved(), str):
                        report.add(item, result)
                        results.append(result)
                    answers = filled(columns, results).values()
                    beside = batch.select([each.name for each in rest]).columns
                    out.write_batch(pa.record_batch([*beside, *answers], schema))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's or the network's, and not pyarrow's own
        raise InputError(f"cannot be read as parquet: {' '.join(str(error).split())}") from None


def parted(
    schema: pa.Schema, args: argparse.Namespace, columns: Iterable[str]
) -> tuple[list[pa.Field], list[str]]:
    """Return a table's columns that are passed through, and those that are read."""
    keys, named = keyed(args)
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise InputError(f"has two columns {listed(map(repr, twice))}")
    there = f"; it has {listed(map(repr, schema.names))}"
    if absent := [key for key in named if key not in schema.names]:
        raise InputError(f"has no column {listed(map(repr, absent))}{there}")
    read = [key for key in keys.values() if key in schema.names]
    if not read:
        fields = " or ".join(keys)
        raise InputError(f"has no column {fields}{there}; --field says where a field stands")
    rest = [each for each in schema if each.name not in read]
    if clash := [each.name for each in rest if each.name in columns]:
        raise InputError(f"has a column {clash[0]!r}, where the answers would go")
    return rest, read


def records(batch: pa.RecordBatch, before: int) -> Iterator[Record]:
    """Yield the rows of a batch, counted on."""
    cells = map(each_cell, batch.columns)
    for i, row in enumerate(zip(*cells, strict=True), start=before):
        fault = next((cell for cell in row if isinstance(cell, InputError)), None)
        yield Record(i, fault or dict(zip(batch.schema.names, row, strict=True)))


def each_cell(column: pa.Array) -> Iterator[Any]:
    """Yield the values of a column, or what is wrong with each."""
    for cell in column:
        try:
            yield cell.as_py()
        except UnicodeDecodeError as error:
            yield InputError(f"is not UTF-8: {error.reason} at byte {error.start}")
