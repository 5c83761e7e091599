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

from npbert.distributed.columns import Types, filled, types
from npbert.distributed.shared import made, recipe
from npbert.distributed.warming import current, warm_up
from npbert.errors import InputError, listed, nearest, shown, warn
from npbert.jobs import Counts, Item, Job
from npbert.tasks import Task

TOPIC: Final = "npbert"  # of the events that tell what was done; Client.get_events gives them
INSTEAD: Final = {"token-classification": ("words",)}  # fields that stand for the first one


def mapped(
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
    columns = types(task, record=record)
    keys = keyed(task, column, list(ddf.columns))
    if clash := [name for name in columns if name in ddf.columns]:
        raise InputError(
            f"ddf has a column {listed(map(repr, clash))} already, where answers would go; rename "
            "or drop it"
        )
    how = recipe(task)
    if client := current():
        warm_up(client, how)
    meta = added(ddf._meta, columns, [])
    return ddf.map_partitions(
        answered, how.raw, keys, record, meta=meta, enforce_metadata=False, align_dataframes=False
    )


def keyed(
    task: Task[Any, Any], column: str | Mapping[str, str], there: list[Any]
) -> dict[str, str]:
    """Return of each field that is read its column.  Raises InputError."""
    if not isinstance(column, str | Mapping):
        raise InputError(
            f"column is {shown(column)}, expected the name of one, or a mapping of fields to names"
        )
    keys = {task.fields[0]: column} if isinstance(column, str) else dict(column)
    instead = INSTEAD.get(task.name, ())
    for name in keys:
        if name not in (*task.fields, *instead):
            raise InputError(
                f"column has {shown(name)}, and {task.name} reads {' and '.join(task.fields)}"
                f"{nearest(str(name), task.fields)}"
            )
    lacking = [name for name in task.fields[: task.required] if name not in keys]
    if lacking and not set(instead) & set(keys):
        raise InputError(
            f"column says nothing of {listed(lacking)}; {task.name} reads "
            f"{' and '.join(task.fields)}, expected a mapping of these to columns"
        )
    for key in keys.values():
        if key not in there:
            raise InputError(
                f"ddf has no column {shown(key)}, it has {listed(map(repr, there))}"
                f"{nearest(str(key), map(str, there))}"
            )
        if there.count(key) > 1:
            raise InputError(f"ddf has two columns {shown(key)}, and only one can be read")
    return keys


def answered(
    frame: pd.DataFrame,
    raw: bytes,
    keys: Mapping[str, str],
    record: bool,
    partition_info: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Return a partition with its answers.  Raises InputError naming partition and row."""
    began, task, counts = monotonic(), made(raw), Counts()
    job = Job(task, counts, record=record)
    where = f"partition {partition_info['number']}, row" if partition_info else "row"
    results = [result for _, result in job.block_of(items(frame, keys, where))]
    if counts.cut:
        warn(task.told(counts.cut, counts.unread, task.options))
    tell(len(frame), counts, monotonic() - began)
    return added(frame, types(task, record=record), results)


def items(frame: pd.DataFrame, keys: Mapping[str, str], where: str) -> Iterator[Item]:
    """Yield an input for each row, counted from 0."""
    cells = [frame[key] for key in keys.values()]
    for i, row in enumerate(zip(*cells, strict=True)):
        yield Item(i, dict(zip(keys, map(plain, row), strict=True)), unit=where)


def plain(cell: Any) -> Any:
    """Return a cell as a task reads it: None where nothing stands, lists as lists."""
    if isinstance(cell, np.ndarray):
        return cell.tolist()
    missing = cell is pd.NA or (isinstance(cell, float) and math.isnan(cell))
    return None if missing else cell


def added(frame: pd.DataFrame, columns: Types, results: list[Any]) -> pd.DataFrame:
    """Return a frame with the columns of some results, of the same dtypes whatever they are."""
    return frame.assign(**{name: series(a) for name, a in filled(columns, results).items()})


def series(column: pa.Array) -> Any:
    """Return a column as pandas has it."""
    if pa.types.is_float64(column.type):
        return column.to_numpy(zero_copy_only=False)  # NaN where nothing stands
    dtype = pd.StringDtype("pyarrow") if column.type == pa.string() else pd.ArrowDtype(column.type)
    return dtype.__from_arrow__(column)


def tell(rows: int, counts: Counts, seconds: float) -> None:
    """Let the scheduler know what a partition came to, where there is one."""
    try:
        worker = get_worker()
    except ValueError:
        return
    done = {**asdict(counts), "inputs": rows, "seconds": round(seconds, 3)}
    worker.log_event(TOPIC, done)
