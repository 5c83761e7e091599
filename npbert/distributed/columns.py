"""Answers as columns of a table, of types that do not depend on what is answered."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from npbert.tasks.rows import ERROR, NUMBER, RESULTS, TEXT, WHOLE, Column, Vector
from npbert.tasks.task import Refusal, Task

SCALARS: Final = {TEXT: pa.string(), NUMBER: pa.float64(), WHOLE: pa.int64()}

Types = dict[str, pa.DataType]


def column_types(task: Task[Any, Any], *, record: bool) -> Types:
    """Return the columns that a task's answers fill, and that of errors."""
    types = {name: arrow_type(column) for name, column in task.row.columns(task).items()}
    return {**types, ERROR: pa.string()} if record else types


def arrow_type(column: Column) -> pa.DataType:
    """Return the type of a column as Arrow has it."""
    if isinstance(column, Vector):
        return pa.list_(arrow_type(column.of), column.size)
    if isinstance(column, list):
        return pa.list_(arrow_type(column[0]))
    if isinstance(column, dict):
        return pa.struct({name: arrow_type(each) for name, each in column.items()})
    return SCALARS.get(column) or pa.from_numpy_dtype(np.dtype(column))


def fill_columns(columns: Types, results: Sequence[Any]) -> dict[str, pa.Array]:
    """Return the columns of some results, a Refusal's empty but for its reason."""
    refused = [isinstance(result, Refusal) for result in results]
    answers = [None if none else x for none, x in zip(refused, results, strict=True)]
    made: dict[str, pa.Array] = {}
    for name, kind in columns.items():
        if name == ERROR:
            why = [x.why if none else None for none, x in zip(refused, results, strict=True)]
            made[name] = pa.array(why, kind)
        elif name == RESULTS:
            made[name] = pa.array([x and make_uniform(x, kind) for x in answers], kind)
        elif pa.types.is_fixed_size_list(kind):
            made[name] = vector_array(answers, kind)
        else:
            made[name] = pa.array([x and x[name] for x in answers], kind)
    return made


def vector_array(answers: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return arrays (dim,) as lists of fixed size."""
    rows = np.zeros((len(answers), kind.list_size), kind.value_type.to_pandas_dtype())
    for row, answer in zip(rows, answers, strict=True):
        if answer is not None:
            row[:] = answer
    empty = pa.array([answer is None for answer in answers], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), type=kind, mask=empty)


def make_uniform(answer: Any, kind: pa.DataType) -> Any:
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
        return [[{**w, "token": list_pieces(w["token"])} for w in words] for words in masks]
    return masks


def list_pieces(token: int | list[int]) -> list[int]:
    """Return the pieces of a word."""
    return token if isinstance(token, list) else [token]
