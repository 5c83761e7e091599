"""The text tasks: one row (rows.py) and one file each; npbert.pipeline makes one.

Nothing here loads NumPy before a task is made, so that the command line can tell of tasks first.
"""

import os
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from npbert import _import_lock
from npbert.engine.spellings import explain_arguments, explain_task
from npbert.errors import InputError, quote
from npbert.tasks.options import PIPELINE_ARGUMENTS, change_options
from npbert.tasks.rows import TASKS, TaskRow

if TYPE_CHECKING:
    from npbert.model import Model
    from npbert.tasks.answers import (
        Answering,
        AskingTask,
        ChoiceAnswer,
        ClassAnswer,
        ClassifyingTask,
        EmbeddingTask,
        EntityAnswer,
        FeatureAnswer,
        LabelsAnswer,
        RankingTask,
        SpanAnswer,
        SparseAnswer,
        TokenAnswer,
        WordAnswer,
    )
    from npbert.tasks.task import Task

    Source = str | os.PathLike[str] | Model | None

__all__ = ["TASKS", "built_in_folder", "pipeline", "task_class"]


# What is passed on to npbert.load, as it is where nobody says anything.
USUAL: Final[Mapping[str, Any]] = {
    "revision": None, "subfolder": None, "cache_dir": None, "token": None, "offline": None,
    "architecture": None, "strict": True, "copy": False,
}  # fmt: skip


def built_in_folder(name: str) -> Path:
    """Return the folder of a built-in model."""
    from npbert.hub import BUILT_IN  # which loads NumPy

    return BUILT_IN / name


def task_class(row: TaskRow) -> "type[Task[Any, Any]]":
    """Return the class that does what a row describes."""
    module, _, name = row.implementation.partition(".")
    with _import_lock:
        found: type[Task[Any, Any]] = getattr(import_module(f"npbert.tasks.{module}"), name)
    return found


# What a type checker knows of an answer; a row's name stands here too, since Literal wants it.
@overload
def pipeline(
    task: Literal["text-classification"],
    source_or_model: "Source" = None,
    *,
    top_k: int | None,
    **how: Any,
) -> "Answering[list[ClassAnswer], list[list[ClassAnswer]]]": ...
@overload
def pipeline(
    task: Literal["text-classification"],
    source_or_model: "Source" = None,
    **how: Any,
) -> "ClassifyingTask": ...
@overload
def pipeline(
    task: Literal["token-classification"],
    source_or_model: "Source" = None,
    *,
    aggregation_strategy: Literal["none"],
    **how: Any,
) -> "Answering[list[TokenAnswer], list[list[TokenAnswer]]]": ...
@overload
def pipeline(
    task: Literal["token-classification"],
    source_or_model: "Source" = None,
    **how: Any,
) -> "Answering[list[EntityAnswer], list[list[EntityAnswer]]]": ...
@overload
def pipeline(
    task: Literal["fill-mask"],
    source_or_model: "Source" = None,
    **how: Any,
) -> "Answering[list[WordAnswer], list[list[WordAnswer]]]": ...
@overload
def pipeline(
    task: Literal["question-answering"],
    source_or_model: "Source" = None,
    *,
    top_k: int,
    **how: Any,
) -> "AskingTask[list[SpanAnswer], list[list[SpanAnswer]]]": ...
@overload
def pipeline(
    task: Literal["question-answering"],
    source_or_model: "Source" = None,
    **how: Any,
) -> "AskingTask[SpanAnswer, list[SpanAnswer]]": ...
@overload
def pipeline(
    task: Literal["multiple-choice"],
    source_or_model: "Source" = None,
    **how: Any,
) -> "Answering[ChoiceAnswer, list[ChoiceAnswer]]": ...
@overload
def pipeline(
    task: Literal["zero-shot-classification"],
    source_or_model: "Source" = None,
    **how: Any,
) -> "Answering[LabelsAnswer, list[LabelsAnswer]]": ...
@overload
def pipeline(
    task: Literal["sentence-embedding"],
    source_or_model: "Source" = None,
    **how: Any,
) -> "EmbeddingTask": ...
@overload
def pipeline(
    task: Literal["text-ranking"],
    source_or_model: "Source" = None,
    **how: Any,
) -> "RankingTask": ...
@overload
def pipeline(
    task: Literal["sparse-embedding"],
    source_or_model: "Source" = None,
    **how: Any,
) -> "Answering[SparseAnswer, list[SparseAnswer]]": ...
@overload
def pipeline(
    task: Literal["feature-extraction"],
    source_or_model: "Source" = None,
    *,
    offsets: Literal[True],
    **how: Any,
) -> "Answering[FeatureAnswer, list[FeatureAnswer]]": ...
@overload
def pipeline(
    task: Literal["feature-extraction"],
    source_or_model: "Source" = None,
    **how: Any,
) -> "Answering[list[list[float]], list[list[list[float]]]]": ...
@overload
def pipeline(task: str, source_or_model: "Source" = None, **how: Any) -> "Task[Any, Any]": ...
@explain_arguments
def pipeline(
    task: str,
    source_or_model: "str | os.PathLike[str] | Model | None" = None,
    *,
    architecture: str | None = None,
    strict: bool = True,
    threads: int | None = None,
    batch_invariant: bool = False,
    revision: str | None = None,
    subfolder: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    offline: bool | None = None,
    copy: bool = False,
    **options: Any,
) -> Any:
    """Make a task that can be called with texts.

    Parameters
    ----------
    task : str
        One of TASKS, e.g. "text-classification".
    source_or_model : path, name or Model, optional
        A folder, or a name on the hub.  Default: the small built-in model of that task.
    architecture : str, optional
        What to load of the folder; default: the one that the task needs, if its parameters are
        there, whatever config.json says.  Vectors can be had of any.
    strict : bool
        False ignores unknown tensors and draws a missing head at random, with warnings.
    threads : int, optional
        How many packs of texts are computed side by side; default: all cores.  Results are
        bit-identical for any number.
    batch_invariant : bool
        Compute every text alone, so that its last bits do not depend on its neighbours.
    revision, subfolder, cache_dir, token, offline
        Of a name on the hub, as npbert.load has them.
    copy : bool
        Hold the weights in memory of its own and do not map their files; see npbert.load.
    **options
        The task's options; each can be changed again in a call.

    Raises
    ------
    InputError, ConfigError, CheckpointError, HubError

    Examples
    --------
    >>> classify = npbert.pipeline("text-classification")
    >>> classify("A gorgeous, witty, seductive movie.")["label"]
    'POSITIVE'
    """
    row = find_row(task)
    chosen = change_options(task, row.options(), options, PIPELINE_ARGUMENTS)
    with _import_lock:
        from npbert.hub import locate, pin_source
        from npbert.model import Model

    kind = task_class(row)
    how: dict[str, Any] = {"threads": threads, "batch_invariant": batch_invariant}
    where: dict[str, Any] = {
        "revision": revision, "subfolder": subfolder, "cache_dir": cache_dir, "token": token,
        "offline": offline,
    }  # fmt: skip
    loading: dict[str, Any] = {"architecture": architecture, "strict": strict, "copy": copy}
    asked = {each.name: getattr(chosen, each.name) for each in fields(chosen)}
    again = partial(pipeline, task, **asked)
    if isinstance(source_or_model, Model):
        needless = [name for name, value in {**where, **loading}.items() if value != USUAL[name]]
        if needless:
            raise InputError(
                f"{', '.join(needless)}: given with a Model, which is loaded already; pass "
                "them to npbert.load"
            )
        made = kind(source_or_model, chosen, row, **how)
        made.folder, made.rebuild = source_or_model.folder, partial(again, source_or_model)
        return made
    source = source_or_model
    if source is None:
        if row.built_in is None:
            raise InputError(
                f"{task} has no built-in model; pass a folder, a name on the hub (-m), or a Model"
            )
        source = built_in_folder(row.built_in)
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"source is {quote(source)}, expected a folder, a name on the hub, or a Model"
        )
    folder = locate(source, **where)
    needed = {**loading, "architecture": architecture or row.architecture}
    made = kind.from_folder(folder, needed, chosen, row, **how)
    place, pins = pin_source(source, folder, where)
    again = partial(again, **loading)
    made.folder = folder
    made.rebuild = again if source_or_model is None else partial(again, place, **pins)
    return made


def find_row(task: str) -> TaskRow:
    """Return the row of a task.  Raises InputError for a name that none has."""
    if isinstance(task, str) and task in TASKS:
        return TASKS[task]
    known = {name: row.aliases for name, row in TASKS.items()}
    hint = explain_task(task, known) or f"; there are {', '.join(TASKS)}"
    raise InputError(f"unknown task {quote(task)}{hint}")
