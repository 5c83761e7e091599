"""Harmless differences of layout: repaired, and told.

A port may leave out the batch axis, split heads or join them, flatten batch and length, or keep a
token as a column.  Of all arrangements that give the expected shape the nearest one is taken.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


class Fitted(NamedTuple):
    """An array in the expected shape, and what was done to it."""

    array: NDArray[Any]
    how: str = ""


def fit(x: NDArray[Any], like: NDArray[Any], heads: int) -> Fitted | None:
    """Return an array arranged like another, or None where its numbers cannot be."""
    found = [each for each in arrangements(x, like.shape, heads) if each.array.shape == like.shape]
    if not found:
        return None
    if len(found) == 1 or not found[0].how:
        return found[0]
    return min(found, key=lambda each: apart(each.array, like))


def apart(x: NDArray[Any], like: NDArray[Any]) -> float:
    """Return how far two arrays are apart, in the mean."""
    with np.errstate(over="ignore", invalid="ignore"):
        difference = np.abs(x.astype(np.float64) - like)
    return float(np.nan_to_num(difference, nan=1e300, posinf=1e300).clip(max=1e300).mean())


def arrangements(x: NDArray[Any], shape: Shape, heads: int) -> Iterator[Fitted]:
    """Yield an array as it is, and in every arrangement that a port may have for it."""
    yield Fitted(x)
    if (
        shape[0] > 1
        and x.size * shape[0] == int(np.prod(shape))
        and x.shape in (shape[1:], (1, *shape[1:]))
    ):
        yield Fitted(np.broadcast_to(x, shape).copy(), "one row stood for the whole batch")
    if x.size != int(np.prod(shape)):
        return
    squeezed = x.reshape(tuple(n for n in x.shape if n != 1))
    wanted = tuple(n for n in shape if n != 1)
    if squeezed.shape == wanted:
        yield Fitted(x.reshape(shape), axes(x.shape, shape))
    if len(shape) == 3:
        batch, length, features = shape
        if heads and features % heads == 0:
            width = features // heads
            splits: tuple[tuple[Shape, Shape], ...] = (
                ((batch, heads, length, width), (0, 2, 1, 3)),
                ((batch, length, heads, width), (0, 1, 2, 3)),
                ((batch, heads, width, length), (0, 3, 1, 2)),
                ((heads, batch, length, width), (1, 2, 0, 3)),
            )
            for split, order in splits:
                if tuple(n for n in split if n != 1) == squeezed.shape:
                    joined = x.reshape(split).transpose(order).reshape(shape)
                    yield Fitted(joined, f"its heads were split, {x.shape}, and are joined")
        if x.shape == (batch * length, features):
            yield Fitted(x.reshape(shape), "batch and length were one axis")
        if x.ndim == 2:
            flat = (features, batch * length)
            if squeezed.shape == flat:
                yield Fitted(squeezed.T.reshape(shape), "a token was a column")
        turns: tuple[tuple[Shape, str], ...] = (
            ((0, 2, 1), "length and features"), ((1, 0, 2), "batch and length"),
        )  # fmt: skip
        for order, what in turns:
            if x.ndim == 3 and tuple(x.shape[i] for i in order) == shape:
                yield Fitted(x.transpose(order), f"{what} had changed places")
    elif len(shape) == 4 and x.ndim in (3, 4):
        full = x.reshape(shape) if x.ndim == 3 else x
        if x.ndim == 3 and x.shape == (shape[0] * shape[1], *shape[2:]):
            yield Fitted(full, "batch and heads were one axis")
        for order, what in (((0, 1, 3, 2), "query and key"), ((1, 0, 2, 3), "batch and heads")):
            if full.ndim == 4 and tuple(full.shape[i] for i in order) == shape:
                yield Fitted(full.transpose(order), f"{what} had changed places")
    elif len(shape) == 2 and x.ndim == 2 and x.shape[::-1] == shape:
        yield Fitted(x.T, "rows and columns had changed places")


def axes(found: Shape, wanted: Shape) -> str:
    """Say which axes of length 1 were left out, or were too many."""
    if found == wanted:
        return ""
    less = len(found) < len(wanted)
    return f"an axis of length 1 was {'left out' if less else 'too many'}: {found}"
