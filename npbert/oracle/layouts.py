"""A port's layouts as ours: of all arrangements that give the expected shape, the nearest is taken.

A port may leave out the batch axis, split heads or join them, flatten batch and length, leave out
padding, keep a token as a column, or keep several steps in one array.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.oracle.dumps import split_into_pieces

ArrayShape = tuple[int, ...]
KeyMask = NDArray[np.bool]
PADDED: Final = "padding was left out"


class Fitted(NamedTuple):
    """An array in the expected shape, and what was done to it."""

    array: NDArray[Any]
    how: str = ""


def fit_layout(
    x: NDArray[Any], like: NDArray[Any], heads: int, key_mask: KeyMask | None = None
) -> Fitted | None:
    """Return an array arranged like another, or None where its numbers cannot be.

    key_mask : (batch, length), where tokens are, for arrays that leave out padding
    """
    if x.shape == like.shape:
        return Fitted(x)
    found = [
        each
        for each in possible_layouts(x, like.shape, heads, key_mask)
        if each.array.shape == like.shape
    ]
    if not found:
        return None
    return min(found, key=lambda each: mean_distance(each.array, like)) if found[1:] else found[0]


def fit_parts(
    x: NDArray[Any], likes: Sequence[NDArray[Any]], heads: int, key_mask: KeyMask | None = None
) -> list[Fitted] | None:
    """Return the parts of an array that holds several steps, each arranged like its own.

    They may be stacked along an axis, or stand side by side in one, whole or head by head.
    """
    best, least = None, np.inf
    for parts in possible_parts(x, len(likes), heads):
        fitted = [
            fit_layout(part, like, heads, key_mask) for part, like in zip(parts, likes, strict=True)
        ]
        made = [each for each in fitted if each is not None]
        if len(made) < len(likes):
            continue
        far = sum(mean_distance(f.array, like) for f, like in zip(made, likes, strict=True))
        if far < least:
            best, least = made, far
    return best


def possible_parts(x: NDArray[Any], count: int, heads: int) -> Iterator[list[NDArray[Any]]]:
    """Yield an array cut into equal parts, in every way that a port may have joined them."""
    for axis, size in enumerate(x.shape):
        if size == count:
            yield list(np.moveaxis(x, axis, 0))
        elif size % count == 0:
            width = size // count
            before, after = x.shape[:axis], x.shape[axis + 1 :]
            cuts: list[tuple[int, ArrayShape]] = [(0, (count, width)), (1, (width, count))]
            if heads and width % heads == 0:
                cuts.append((1, (heads, count, width // heads)))
            for place, cut in cuts:
                parts = np.moveaxis(x.reshape(*before, *cut, *after), axis + place, 0)
                yield [part.reshape(*before, width, *after) for part in parts]


def mean_distance(x: NDArray[Any], like: NDArray[Any]) -> float:
    """Return how far two arrays are apart, in the mean."""
    total = 0.0
    for a, b in split_into_pieces(x, like):
        with np.errstate(over="ignore", invalid="ignore"):
            difference = np.abs(a.astype(np.float64) - b)
        bounded = np.nan_to_num(difference, nan=1e300, posinf=1e300).clip(max=1e300)
        total += float(bounded.mean()) * (a.size / x.size)
    return total


def possible_layouts(
    x: NDArray[Any], shape: ArrayShape, heads: int, key_mask: KeyMask | None = None
) -> Iterator[Fitted]:
    """Yield an array as it is, and in every arrangement that a port may have for it."""
    yield Fitted(x)
    if (
        shape[0] > 1
        and x.size * shape[0] == int(np.prod(shape))
        and x.shape in (shape[1:], (1, *shape[1:]))
    ):
        yield Fitted(np.broadcast_to(x, shape).copy(), "one row stood for the whole batch")
    if key_mask is not None and shape[:2] == key_mask.shape and not key_mask.all():
        yield from pad_layouts(x, shape, heads, key_mask)
    if x.size != int(np.prod(shape)):
        return
    squeezed = x.reshape(tuple(n for n in x.shape if n != 1))
    wanted = tuple(n for n in shape if n != 1)
    if squeezed.shape == wanted:
        yield Fitted(x.reshape(shape), axes_notice(x.shape, shape))
    if len(shape) == 3:
        yield from token_layouts(x, squeezed, shape, heads)
    elif len(shape) == 4:
        yield from attention_layouts(x, shape)
    elif len(shape) == 2 and x.ndim == 2 and x.shape[::-1] == shape:
        yield Fitted(x.T, "rows and columns had changed places")


def pad_layouts(
    x: NDArray[Any], shape: ArrayShape, heads: int, key_mask: KeyMask
) -> Iterator[Fitted]:
    """Yield arrays of tokens alone, in rows or in columns, with zeros in place of padding."""
    tokens = int(key_mask.sum())
    if not tokens or x.size * key_mask.size != tokens * int(np.prod(shape)):
        return
    squeezed = x.reshape(tuple(n for n in x.shape if n != 1) or (1,))
    for rows in (squeezed, squeezed.T) if squeezed.ndim == 2 else (squeezed,):
        if rows.shape[0] != tokens:
            continue
        padded = np.zeros((*key_mask.shape, *rows.shape[1:]), x.dtype)
        padded[key_mask] = rows
        for each in possible_layouts(padded, shape, heads):
            how = f"{PADDED}, {x.shape}, and is 0 here"
            yield Fitted(each.array, f"{how}; {each.how}" if each.how else how)


def token_layouts(
    x: NDArray[Any], squeezed: NDArray[Any], shape: ArrayShape, heads: int
) -> Iterator[Fitted]:
    """Yield arrangements of (batch, length, features)."""
    batch, length, features = shape
    if heads and features % heads == 0:
        width = features // heads
        splits: tuple[tuple[ArrayShape, ArrayShape], ...] = (
            ((batch, heads, length, width), (0, 2, 1, 3)),
            ((batch, length, heads, width), (0, 1, 2, 3)),
            ((batch, heads, width, length), (0, 3, 1, 2)),
            ((heads, batch, length, width), (1, 2, 0, 3)),
            ((heads, batch, width, length), (1, 3, 0, 2)),
            ((length, batch, heads, width), (1, 0, 2, 3)),
        )
        for split, order in splits:
            joined = (split[0] * split[1], *split[2:])  # [batch x heads] as one axis
            between = (split[0], split[1] * split[2], split[3])
            forms = (split, joined, between) if split[0] == length else (split, joined)
            if squeezed.shape in [tuple(n for n in form if n != 1) for form in forms]:
                whole = x.reshape(split).transpose(order).reshape(shape)
                yield Fitted(whole, f"its heads were split, {x.shape}, and are joined")
    if x.shape == (batch * length, features):
        yield Fitted(x.reshape(shape), "batch and length were one axis")
    if x.ndim == 2 and squeezed.shape == (features, batch * length):
        yield Fitted(squeezed.T.reshape(shape), "a token was a column")
    turns: tuple[tuple[ArrayShape, str], ...] = (
        ((0, 2, 1), "length and features"), ((1, 0, 2), "batch and length"),
    )  # fmt: skip
    cube = x if x.ndim == 3 or squeezed.ndim != 3 else squeezed
    for order, what in turns:
        if cube.ndim == 3 and tuple(cube.shape[i] for i in order) == shape:
            yield Fitted(cube.transpose(order), f"{what} had changed places")


def attention_layouts(x: NDArray[Any], shape: ArrayShape) -> Iterator[Fitted]:
    """Yield arrangements of (batch, heads, query, key)."""
    batch, heads = shape[:2]
    full = x
    if x.shape == (batch * heads, *shape[2:]):
        full = x.reshape(shape)
        yield Fitted(full, "batch and heads were one axis")
        turned = x.reshape(heads, batch, *shape[2:]).transpose(1, 0, 2, 3)
        yield Fitted(turned, "heads and batch were one axis")
    for order, what in (((0, 1, 3, 2), "query and key"), ((1, 0, 2, 3), "batch and heads"),
                        ((0, 3, 1, 2), "heads and keys")):  # fmt: skip
        if full.ndim == 4 and tuple(full.shape[i] for i in order) == shape:
            yield Fitted(full.transpose(order), f"{what} had changed places")


def axes_notice(found: ArrayShape, wanted: ArrayShape) -> str:
    """Say which axes of length 1 were left out, or were too many."""
    if found == wanted:
        return ""
    less = len(found) < len(wanted)
    return f"an axis of length 1 was {'left out' if less else 'too many'}: {found}"
