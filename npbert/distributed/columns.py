"""Answers as columns of a table, of types that do not depend on what is answered."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from npbert.tasks import Task
from npbert.tasks.shared import Refusal

RESULTS: Final = "results"  # the column of answers that are more than a value or two
ERROR: Final = "error"
TEXT: Final = pa.string()
NUMBER: Final = pa.float64()
WHOLE: Final = pa.int64()

Types = dict[str, pa.DataType]


def types(task: Task[Any, Any], *, record: bool) -> Types:
    """Return the columns that a task's answers fill, and that of errors."""
    found = TYPES[task.name](task)
    named = found if isinstance(found, dict) else {RESULTS: found}
    return {**named, ERROR: TEXT} if record else named


def classes(task: Task[Any, Any]) -> Types | pa.DataType:
    """Return the columns of text-classification."""
    one = {"label": TEXT, "score": NUMBER}
    return one if task.options.top_k == "best" else pa.list_(pa.struct(one))


def entities(task: Task[Any, Any]) -> pa.DataType:
    """Return the type of token-classification's answers."""
    span = {"word": TEXT, "start": WHOLE, "end": WHOLE}
    if task.options.aggregation_strategy == "none":
        return pa.list_(pa.struct({"entity": TEXT, "score": NUMBER, "index": WHOLE, **span}))
    return pa.list_(pa.struct({"entity_group": TEXT, "score": NUMBER, **span}))


def fillings(task: Task[Any, Any]) -> pa.DataType:
    """Return the type of fill-mask's answers: words for each mask, even if there is but one."""
    token = pa.list_(WHOLE) if task.options.multi_piece == "joint" else WHOLE
    word = {"score": NUMBER, "token": token, "token_str": TEXT, "sequence": TEXT}
    return pa.list_(pa.list_(pa.struct(word)))


def spans(task: Task[Any, Any]) -> pa.DataType:
    """Return the type of question-answering's answers."""
    one = pa.struct({"score": NUMBER, "start": WHOLE, "end": WHOLE, "answer": TEXT})
    return one if task.options.top_k == "best" else pa.list_(one)


def choices(task: Task[Any, Any]) -> pa.DataType:
    """Return the type of multiple-choice's answers."""
    one = {"index": WHOLE, "choice": TEXT, "score": NUMBER, "scores": pa.list_(NUMBER)}
    return pa.struct(one)


def candidates(task: Task[Any, Any]) -> pa.DataType:
    """Return the type of zero-shot-classification's answers."""
    return pa.struct({"sequence": TEXT, "labels": pa.list_(TEXT), "scores": pa.list_(NUMBER)})


def embedding(task: Task[Any, Any]) -> Types:
    """Return the column of sentence-embedding: lists of fixed size."""
    none = task.collected(iter(()), task.options)  # (0, dim)
    dtype = task.model.dtype if task.options.precision == "float32" else none.dtype
    return {"embedding": pa.list_(pa.from_numpy_dtype(dtype), none.shape[1])}


def rankings(task: Task[Any, Any]) -> pa.DataType:
    """Return the type of text-ranking's answers; a pair is a ranking of one document."""
    if task.model.config.num_labels > 1:
        return pa.struct({"scores": pa.list_(NUMBER)})
    text = {"text": TEXT} if task.options.return_documents else {}
    return pa.list_(pa.struct({"corpus_id": WHOLE, "score": NUMBER, **text}))


def features(task: Task[Any, Any]) -> pa.DataType:
    """Return the type of feature-extraction's answers."""
    number = pa.from_numpy_dtype(task.model.dtype)
    vectors = pa.list_(pa.list_(number, task.model.config.hidden_size))
    if not task.options.offsets:
        return vectors
    offsets = pa.list_(pa.list_(WHOLE, 2))
    return pa.struct({"features": vectors, "tokens": pa.list_(TEXT), "offsets": offsets})


TYPES: Final[Mapping[str, Callable[[Task[Any, Any]], Types | pa.DataType]]] = {
    "text-classification": classes,
    "token-classification": entities,
    "fill-mask": fillings,
    "question-answering": spans,
    "multiple-choice": choices,
    "zero-shot-classification": candidates,
    "sentence-embedding": embedding,
    "text-ranking": rankings,
    "feature-extraction": features,
}


def filled(columns: Types, results: Sequence[Any]) -> dict[str, pa.Array]:
    """Return the columns of some results, a Refusal's empty but for its reason."""
    refused = [isinstance(result, Refusal) for result in results]
    answers = [None if none else x for none, x in zip(refused, results, strict=True)]
    made: dict[str, pa.Array] = {}
    for name, kind in columns.items():
        if name == ERROR:
            why = [x.why if none else None for none, x in zip(refused, results, strict=True)]
            made[name] = pa.array(why, kind)
        elif name == RESULTS:
            made[name] = pa.array([x and uniform(x, kind) for x in answers], kind)
        elif pa.types.is_fixed_size_list(kind):
            made[name] = vectors(answers, kind)
        else:
            made[name] = pa.array([x and x[name] for x in answers], kind)
    return made


def vectors(answers: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return arrays (dim,) as lists of fixed size."""
    rows = np.zeros((len(answers), kind.list_size), kind.value_type.to_pandas_dtype())
    for row, answer in zip(rows, answers, strict=True):
        if answer is not None:
            row[:] = answer
    empty = pa.array([answer is None for answer in answers], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), type=kind, mask=empty)


def uniform(answer: Any, kind: pa.DataType) -> Any:
    """Return an answer in the one shape that all have in a column.

    A mask that is alone becomes the one of several, a word of one piece one of several, and the
    score of a pair a ranking of one document.
    """
    if not pa.types.is_list(kind):
        return answer
    if isinstance(answer, dict):
        return [{"corpus_id": 0, **answer}]
    if not pa.types.is_list(kind.value_type):
        return answer
    masks = [answer] if answer and isinstance(answer[0], dict) else answer
    word = kind.value_type.value_type
    if pa.types.is_struct(word) and pa.types.is_list(word.field("token").type):
        return [[{**w, "token": pieces(w["token"])} for w in words] for words in masks]
    return masks


def pieces(token: int | list[int]) -> list[int]:
    """Return the pieces of a word."""
    return token if isinstance(token, list) else [token]
