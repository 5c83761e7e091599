"""What texts come in: a Series, an array, a set of many inputs; a text, a tuple, a dict of one."""

import os
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Set, ValuesView
from typing import Any, Final

from npbert.errors import InputError, listing, quote

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
    if isinstance(columns, Iterable):
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


def input_parts(item: Any, names: tuple[str, ...], required: int) -> list[Any]:
    """Return what an input, in any of its forms, holds under each name, None for what it lacks."""
    fields_named = " and ".join(names[:required]) + "".join(
        f" and perhaps {n}" for n in names[required:]
    )
    if isinstance(item, Mapping):
        if unknown := set(item) - set(names):
            raise InputError(f"has {listing(sorted(map(repr, unknown)))}, expected {fields_named}")
        if missing := [name for name in names[:required] if item.get(name) is None]:
            raise InputError(f"has no {' and no '.join(missing)}")
        return [item.get(name) for name in names]
    if isinstance(item, tuple) and required <= len(item) <= len(names):
        return [*item, *[None] * (len(names) - len(item))]
    if isinstance(item, tuple):
        raise InputError(
            f"is a tuple of {len(item)}, expected {fields_named}; many inputs are a list"
        )
    if required > 1:
        raise InputError(f"is {quote(item)}, expected a dict or tuple of {fields_named}")
    return [item, *[None] * (len(names) - 1)]


def count_characters(item: Any) -> int:
    """Return how many characters the texts of an input have."""
    if isinstance(item, str):
        return len(item)
    if isinstance(item, Mapping):
        item = item.values()
    elif not isinstance(item, list | tuple):
        return 0
    return sum(map(count_characters, item))


def has_empty_text(item: Any, names: Collection[str]) -> bool:
    """Tell whether an input is, or has under some names, a text without anything to read."""
    if isinstance(item, str):
        return not item.strip()
    if isinstance(item, Mapping):
        item = [value for name, value in item.items() if name in names]
    return isinstance(item, list | tuple) and any(has_empty_text(each, ()) for each in item)


def list_of_texts(name: str, value: Any, of: str, *, lowest: int = 1) -> list[Any]:
    """Return a list of so many str, or more.  Raises InputError."""
    value = convert_inputs(value, (name,))
    if not isinstance(value, list | tuple):
        raise InputError(f"{name} is {quote(value)}, expected a list of {of}")
    if len(value) < lowest:
        raise InputError(f"{name} is empty, expected at least one of {of}")
    return list(value)
