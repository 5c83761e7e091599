"""The text tasks: npbert.pipeline makes one from its name and a model."""

import os
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from npbert.errors import InputError, nearest, shown
from npbert.hub import locate, pinned
from npbert.model import Model
from npbert.options import OPTIONS, Options, changed
from npbert.tasks.feature_extraction import FeatureExtraction
from npbert.tasks.fill_mask import FillMask
from npbert.tasks.multiple_choice import MultipleChoice
from npbert.tasks.question_answering import QuestionAnswering
from npbert.tasks.sentence_embedding import SentenceEmbedding
from npbert.tasks.shared import Task
from npbert.tasks.text_classification import TextClassification
from npbert.tasks.text_ranking import TextRanking
from npbert.tasks.token_classification import TokenClassification
from npbert.tasks.zero_shot import ZeroShotClassification

__all__ = ["TASKS", "Kind", "Task", "demo", "pipeline"]


class Kind(NamedTuple):
    """A task, what it can be asked, and the built-in model that shows it, if there is one."""

    task: type[Task[Any, Any]]
    options: type[Options]
    demo: str | None


DEMOS: Final = {
    "text-classification": "sentiment",
    "token-classification": "ner",
    "fill-mask": "fill-mask",
    "sentence-embedding": "fill-mask",
    "feature-extraction": "fill-mask",
}
# What the tasks are called elsewhere.
ELSEWHERE: Final = {
    "sentiment-analysis": "text-classification", "ner": "token-classification",
    "zero-shot": "zero-shot-classification", "sentence-similarity": "sentence-embedding",
    "text-embedding": "sentence-embedding", "embedding": "sentence-embedding",
    "cross-encoder": "text-ranking", "cross-encoding": "text-ranking", "qa": "question-answering",
}  # fmt: skip
TASKS: Final = {
    task.name: Kind(task, OPTIONS[task.name], DEMOS.get(task.name))
    for task in (
        TextClassification, TokenClassification, FillMask, QuestionAnswering, MultipleChoice,
        ZeroShotClassification, SentenceEmbedding, TextRanking, FeatureExtraction,
    )
}  # fmt: skip


def demo(name: str) -> Path:
    """Return the folder of a built-in model."""
    return Path(__file__).parent.parent / "demo" / name


def pipeline(
    task: str,
    source_or_model: str | os.PathLike[str] | Model | None = None,
    *,
    threads: int | None = None,
    batch_invariant: bool = False,
    revision: str | None = None,
    subfolder: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    offline: bool | None = None,
    **options: Any,
) -> Task[Any, Any]:
    """Make a task that can be called with texts.

    Parameters
    ----------
    task : str
        One of TASKS, e.g. "text-classification".
    source_or_model : path, name or Model, optional
        A folder, or a name on the hub.  Default: the small built-in model of that task.
    threads : int, optional
        How many packs of texts are computed side by side; default: all cores.  Changes no bit.
    batch_invariant : bool
        Compute every text alone, so that its last bits do not depend on its neighbours.
    revision, subfolder, cache_dir, token, offline
        Of a name on the hub, as npbert.load has them.
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
    if not isinstance(task, str) or task not in TASKS:
        hint = nearest(str(task), TASKS) or f"; there are {', '.join(TASKS)}"
        if isinstance(task, str) and task in ELSEWHERE:
            hint = f"; it is called {ELSEWHERE[task]!r} here"
        raise InputError(f"unknown task {shown(task)}{hint}")
    kind = TASKS[task]
    chosen = changed(task, kind.options(), options)
    how: dict[str, Any] = {"threads": threads, "batch_invariant": batch_invariant}
    where: dict[str, Any] = {
        "revision": revision, "subfolder": subfolder, "cache_dir": cache_dir, "token": token,
        "offline": offline,
    }  # fmt: skip
    asked = {each.name: getattr(chosen, each.name) for each in fields(chosen)}
    again = partial(pipeline, task, **asked)
    if isinstance(source_or_model, Model):
        if needless := [name for name, value in where.items() if value is not None]:
            raise InputError(
                f"{', '.join(needless)}: given with a Model, which is loaded already; pass "
                "them to npbert.load"
            )
        made = kind.task(source_or_model, chosen, **how)
        made.folder, made.remake = source_or_model.folder, partial(again, source_or_model)
        return made
    source = source_or_model
    if source is None:
        if kind.demo is None:
            raise InputError(
                f"{task} has no built-in model; pass a folder, a name on the hub (-m), or a Model"
            )
        source = demo(kind.demo)
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"source is {shown(source)}, expected a folder, a name on the hub, or a Model"
        )
    folder = locate(source, **where)
    made = kind.task.from_folder(folder, chosen, **how)
    place, pins = pinned(source, folder, where)
    made.folder = folder
    made.remake = again if source_or_model is None else partial(again, place, **pins)
    return made
