"""The tasks on a Dask cluster: npbert.distributed.map_dataframe.

It needs the extra npbert[dask], which is imported when it is used and not before.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from npbert.engine.spellings import explain_arguments
from npbert.errors import InputError, quote
from npbert.model import Model
from npbert.tasks import pipeline

__all__ = ["map_dataframe", "require_packages"]

PACKAGES: Final = ("dask.dataframe", "distributed", "pandas", "pyarrow")


@explain_arguments
def map_dataframe(
    ddf: Any,
    task: str,
    source: str | os.PathLike[str] | Model | None = None,
    *,
    column: str | Mapping[str, str],
    on_error: str = "fail",
    batch_invariant: bool = False,
    threads: int = 1,
    revision: str | None = None,
    subfolder: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    offline: bool | None = None,
    copy: bool = False,
    **options: Any,
) -> Any:
    """Add the answers of a task to a Dask DataFrame, lazily.

    The model is loaded here first, and on every worker, so that what is wrong with it is said now;
    a worker process loads it once, and maps its weights.

    Parameters
    ----------
    ddf : dask.dataframe.DataFrame
        All of its columns stay, and its index and divisions.
    task : str
    source : path, name or Model, optional
        As npbert.pipeline has it.  A path must lead to the same files on every worker.
    column : str or mapping
        Which column holds the text; or, for a task of several fields, of each field its column,
        e.g. {"question": "q", "context": "c"}.
    on_error : "fail" or "record"
        Raise an InputError with the partition and the row; or leave the results of such a row
        empty, and write the reason in a column `error`, which is empty elsewhere.
    batch_invariant : bool
        Compute every text alone, so that its last bits do not depend on its partition.
    threads : int
        Of each task on a worker; a worker with several threads has several tasks at a time.
    revision, subfolder, cache_dir, token, offline
        Of a name on the hub, as npbert.load has them.  Workers take HF_TOKEN, never `token`.
    copy : bool
        Hold the weights in each worker's own memory; see npbert.load.
    **options
        The task's options.

    Returns
    -------
    dask.dataframe.DataFrame
        With `label` (string) and `score` (float64) of text-classification without top_k; with
        `embedding` of sentence-embedding, lists of fixed size; of all else with `results`, one
        type for all partitions.  A partition's results depend on nothing but its rows.

    Raises
    ------
    InputError, ConfigError, CheckpointError, HubError
    """
    require_packages()
    from npbert.distributed.frames import add_answers

    if on_error not in ("fail", "record"):
        raise InputError(f"on_error is {quote(on_error)}, expected 'fail' or 'record'")
    made = pipeline(
        task, source, threads=threads, batch_invariant=batch_invariant, revision=revision,
        subfolder=subfolder, cache_dir=cache_dir, token=token, offline=offline, copy=copy,
        **options,
    )  # fmt: skip
    return add_answers(ddf, made, column, record=on_error == "record")


def require_packages() -> None:
    """Raise InputError where the extra is not installed."""
    try:
        for name in PACKAGES:
            import_module(name)
    except ImportError as error:
        raise InputError(
            "npbert.distributed needs Dask, pandas and pyarrow, which are not installed: "
            "pip install 'npbert[dask]'"
        ) from error
