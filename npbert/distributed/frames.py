"""A Dask DataFrame, and beside its columns the answers of a task."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from time import monotonic
from typing import Any, Final

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
from distributed import get_worker

from npbert.distributed.columns import Types, column_types, fill_columns
from npbert.distributed.workers import find_client, load_on_workers, load_task, task_recipe
from npbert.errors import InputError, listing, quote, suggest
from npbert.jobs.blocks import Counts, Job
from npbert.jobs.lines import Record
from npbert.jobs.records import InputFormat
from npbert.tasks.rows import TaskRow
from npbert.tasks.task import Task

TOPIC: Final = "npbert"  # of the events that tell what was done; Client.get_events gives them


def add_answers(
    ddf: Any, task: Task[Any, Any], column: str | Mapping[str, str], *, record: bool
) -> dd.DataFrame:
    """Return a lazy DataFrame with a task's answers.  Raises InputError, CheckpointError, HubError.

    With a client, every worker has loaded the task when this returns.
    """
    if not isinstance(ddf, dd.DataFrame):
        raise InputError(
            f"ddf is a {type(ddf).__module__.partition('.')[0]} {type(ddf).__name__}, expected a "
            "dask.dataframe.DataFrame; dask.dataframe.from_pandas makes one"
        )
    columns = column_types(task, record=record)
    keys = field_columns(task.row, column, list(ddf.columns))
    if clash := [name for name in columns if name in ddf.columns]:
        raise InputError(
            f"ddf has a column {listing(map(repr, clash))} already, where answers would go; rename "
            "or drop it"
        )
    given = InputFormat(task=task.row.name, on_error="record" if record else "fail")
    recipe = task_recipe(task)
    if client := find_client():
        load_on_workers(client, recipe)
    meta = assign_columns(ddf._meta, columns, [])
    return ddf.map_partitions(
        answer_partition, recipe.raw, given, keys, meta=meta,
        enforce_metadata=False, align_dataframes=False,
    )  # fmt: skip


def field_columns(
    row: TaskRow, column: str | Mapping[str, str], there: list[Any]
) -> dict[str, Any]:
    """Return of each field that is read its column.  Raises InputError."""
    if not isinstance(column, str | Mapping):
        raise InputError(
            f"column is {quote(column)}, expected the name of one, or a mapping of fields to names"
        )
    keys = {row.fields[0]: column} if isinstance(column, str) else dict(column)
    for name in keys:
        if name not in (*row.fields, *row.alternatives):
            raise InputError(
                f"column has {quote(name)}, and {row.name} reads {' and '.join(row.fields)}"
                f"{suggest(str(name), row.fields)}"
            )
    given = {row.alternatives.get(name, name) for name in keys}
    if lacking := [name for name in row.fields[: row.required] if name not in given]:
        raise InputError(
            f"column says nothing of {listing(lacking)}; {row.name} reads "
            f"{' and '.join(row.fields)}, expected a mapping of these to columns"
        )
    for key in keys.values():
        if key not in there:
            raise InputError(
                f"ddf has no column {quote(key)}, it has {listing(map(repr, there))}"
                f"{suggest(str(key), map(str, there))}"
            )
        if there.count(key) > 1:
            raise InputError(f"ddf has two columns {quote(key)}, and only one can be read")
    return keys


def answer_partition(
    frame: pd.DataFrame,
    raw: bytes,
    given: InputFormat,
    keys: Mapping[str, Any],
    partition_info: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Return a partition with its answers.  Raises InputError naming partition and row."""
    began, task, counts = monotonic(), load_task(raw), Counts()
    job = Job(task, counts, record=given.records_errors)
    where = f"partition {partition_info['number']}, row" if partition_info else "row"
    items = given.items(frame_records(frame, keys), where)
    results = [result for _, result in job.answer_block(items)]
    task.warn_of_losses(counts, task.options)
    log_event(len(frame), counts, monotonic() - began)
    return assign_columns(frame, column_types(task, record=given.records_errors), results)


def frame_records(frame: pd.DataFrame, keys: Mapping[str, Any]) -> Iterator[Record]:
    """Yield the fields of each row, counted from 0, by their names, whatever their columns' are."""
    cells = [frame[key] for key in keys.values()]
    for i, row in enumerate(zip(*cells, strict=True)):
        yield Record(i, dict(zip(keys, map(cell_value, row), strict=True)))


def cell_value(cell: Any) -> Any:
    """Return a cell as a task reads it: None where nothing stands, lists as lists."""
    if isinstance(cell, np.ndarray):
        return cell.tolist()
    missing = cell is pd.NA or (isinstance(cell, float) and math.isnan(cell))
    return None if missing else cell


def assign_columns(frame: pd.DataFrame, columns: Types, results: list[Any]) -> pd.DataFrame:
    """Return a frame with the columns of some results, of the same dtypes whatever they are."""
    filled = fill_columns(columns, results)
    return frame.assign(**{name: pandas_series(array) for name, array in filled.items()})


def pandas_series(column: pa.Array) -> Any:
    """Return a column as pandas has it."""
    if pa.types.is_float64(column.type):
        return column.to_numpy(zero_copy_only=False)  # NaN where nothing stands
    dtype = pd.StringDtype("pyarrow") if column.type == pa.string() else pd.ArrowDtype(column.type)
    return dtype.__from_arrow__(column)


def log_event(rows: int, counts: Counts, seconds: float) -> None:
    """Let the scheduler know what a partition came to, where there is one."""
    try:
        worker = get_worker()
    except ValueError:
        return
    done = {**asdict(counts), "inputs": rows, "seconds": round(seconds, 3)}
    worker.log_event(TOPIC, done)
