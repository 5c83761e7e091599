"""The text tasks: npbert.pipeline makes one from its name and a model."""

import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from npbert.errors import InputError, nearest, shown
from npbert.loading import load
from npbert.model import Model
from npbert.tasks.fill_mask import FillMask, FillMaskOptions
from npbert.tasks.shared import Options, Task, changed
from npbert.tasks.text_classification import ClassificationOptions, TextClassification

__all__ = ["TASKS", "Kind", "Task", "demo", "pipeline"]


class Kind(NamedTuple):
    """A task, what it can be asked, and the built-in model that shows it."""

    task: type[Task[Any]]
    options: type[Options]
    demo: str


TASKS: Final = {
    "fill-mask": Kind(FillMask, FillMaskOptions, "fill-mask"),
    "text-classification": Kind(TextClassification, ClassificationOptions, "sentiment"),
}


def demo(name: str) -> Path:
    """Return the folder of a built-in model."""
    return Path(__file__).parent.parent / "demo" / name


def pipeline(
    task: str,
    source_or_model: str | os.PathLike[str] | Model | None = None,
    *,
    threads: int | None = None,
    batch_invariant: bool = False,
    **options: Any,
) -> Task[Any]:
    """Make a task that can be called with texts.

    Parameters
    ----------
    task : str
        One of TASKS, e.g. "text-classification".
    source_or_model : path or Model, optional
        Default: the small built-in model of that task.
    threads : int, optional
        How many packs of texts are computed side by side; default: all cores.  Changes no bit.
    batch_invariant : bool
        Compute every text alone, so that its last bits do not depend on its neighbours.
    **options
        The task's options; each can be changed again in a call.

    Raises
    ------
    InputError, ConfigError, CheckpointError

    Examples
    --------
    >>> classify = npbert.pipeline("text-classification")
    >>> classify("A gorgeous, witty, seductive movie.")["label"]
    'POSITIVE'
    """
    if not isinstance(task, str) or task not in TASKS:
        hint = nearest(str(task), TASKS) or f"; there are {', '.join(TASKS)}"
        raise InputError(f"unknown task {shown(task)}{hint}")
    kind = TASKS[task]
    chosen = changed(task, kind.options(), options)
    model = source_or_model
    if not isinstance(model, Model):
        model = load(demo(kind.demo) if model is None else model)
    return kind.task(model, chosen, threads=threads, batch_invariant=batch_invariant)
