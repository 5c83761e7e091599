"""What people hold many texts in: a Series, an array, a set become the list that they stand for."""

import os
from collections import deque
from collections.abc import Mapping, Set, ValuesView
from typing import Any, Final

from npbert.errors import InputError, listing

# How containers of pandas, NumPy, polars and pyarrow say what they hold, in order.
TO_LIST: Final = ("tolist", "to_list", "to_pylist")


def convert_inputs(inputs: Any, names: tuple[str, ...]) -> Any:
    """Return a finite container of inputs as a list, and all else as it is.

    `names` are the fields of an input.  Raises InputError for a table, of which nobody said which
    column is meant, and for a path, which is not what stands in its file.
    """
    if isinstance(inputs, str | tuple | list | Mapping | bytes | bytearray):
        return inputs
    if isinstance(inputs, os.PathLike):
        raise InputError(
            f"{os.fspath(inputs)!r} is a path, and no text; pass path.read_text(), or on the "
            "command line -i FILE"
        )
    columns = getattr(inputs, "columns", None)
    if columns is not None and not callable(columns):
        there = [str(name) for name in getattr(inputs, "column_names", columns)]
        column = next((name for name in (*names, *there) if name in there), "text")
        raise InputError(
            f"a {type(inputs).__name__} has the columns {listing(there)}, and one is read; pass "
            f"df[{column!r}]"
        )
    for name in TO_LIST:
        if callable(convert := getattr(inputs, name, None)):
            return convert()
    return list(inputs) if isinstance(inputs, Set | ValuesView | deque) else inputs
