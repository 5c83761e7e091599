"""What may be passed to a model, checked before anything is computed, and how results leave.

Arrays come and go as rows, (batch, length, features); in between, a token is a column.  This is the
one place where the two meet.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npbert.errors import InputError, quote, warn
from npbert.families import CHOICES, SPANS, TOKENS, Architecture
from npbert.textbook import Array

AXES: Final = {2: "(batch, length)", 3: "(batch, choices, length)"}


class Sizes(Protocol):
    """What inputs are checked against: a model's config."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def max_positions(self) -> int: ...
    @property
    def type_vocab_size(self) -> int: ...
    @property
    def num_blocks(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    def heads(self, block: int) -> list[int]: ...


class Layout(NamedTuple):
    """How the columns of a dense call and its rows change places."""

    architecture: Architecture
    batch: int
    length: int
    choices: int | None  # how many neighbouring rows are choices of one question

    def rows(self, name: str, x: Array) -> Array:
        """Return an activation's columns, (features, tokens or sequences), as rows."""
        rows: Array = x.mT.copy()
        axes = self.architecture.axes(name)
        if axes == TOKENS:
            return rows.reshape(self.batch, self.length, len(x))
        if axes == SPANS:
            return rows.reshape(self.batch, self.length)
        return rows.reshape(-1, self.choices or 1) if axes == CHOICES else rows

    def columns(self, name: str, rows: NDArray[Any]) -> Array:
        """Return an activation's rows as the columns that the forward pass holds."""
        if self.architecture.axes(name) in (SPANS, CHOICES):
            return rows.reshape(1, -1)
        return rows.reshape(-1, rows.shape[-1]).T


@dataclass(frozen=True)
class Inputs:
    """Checked inputs of a dense call; choices, if any, stand one below the other."""

    ids: NDArray[np.integer]  # (batch, length)
    positions: NDArray[np.integer]  # (batch, length)
    types: NDArray[np.integer]  # (batch, length)
    key_mask: NDArray[np.bool]  # (batch, length): which tokens are heard
    choices: int | None  # how many neighbouring rows are choices of one question

    def rows(self, some: slice) -> "Inputs":
        """Return some of the rows."""
        return Inputs(
            self.ids[some], self.positions[some], self.types[some], self.key_mask[some],
            self.choices,
        )  # fmt: skip

    def layout(self, architecture: Architecture) -> Layout:
        """Return how results of these inputs leave."""
        batch, length = self.ids.shape
        return Layout(architecture, batch, length, self.choices)


def check_batch(
    config: Sizes, architecture: Architecture, input_ids: ArrayLike,
    attention_mask: ArrayLike | None = None, position_ids: ArrayLike | None = None,
    token_type_ids: ArrayLike | None = None,
) -> Inputs:  # fmt: skip
    """Check the arrays of a dense call.  Raises InputError naming the argument."""
    rank = 3 if architecture.has_choices else 2
    ids = integer_array("input_ids", input_ids)
    if ids.ndim != rank:
        raise InputError(f"input_ids has shape {ids.shape}, expected {AXES[rank]}")
    shape, length = ids.shape, ids.shape[-1]
    if length == 0 or (rank == 3 and shape[1] == 0):
        raise InputError(f"input_ids has shape {shape}: there is no token in it")
    if position_ids is None:
        if length > config.max_positions:
            raise InputError(
                f"input_ids has length {length}, but the model has {config.max_positions} "
                "positions; shorten the texts, or split them"
            )
        positions: NDArray[np.integer] = np.broadcast_to(np.arange(length), shape)
    else:
        positions = integer_array("position_ids", position_ids)
        require_shape("position_ids", positions, shape)
        require_range("position_ids", positions, config.max_positions, "max_positions")
    require_range("input_ids", ids, config.vocab_size, "vocab_size")
    types: NDArray[np.integer] = np.zeros(shape, np.intp)
    if token_type_ids is not None:
        types = check_types("token_type_ids", token_type_ids, shape, config)
    key_mask = np.ones(shape, bool)
    if attention_mask is not None:
        mask = number_array("attention_mask", attention_mask)
        require_shape("attention_mask", mask, shape)
        if not ((mask == 0) | (mask == 1)).all():
            warn("attention_mask has values besides 0 and 1; whatever is not 0 counts as 1")
        key_mask = mask != 0
    flat = (-1, length)
    choices = shape[1] if rank == 3 else None
    return Inputs(
        ids.reshape(flat), positions.reshape(flat), types.reshape(flat), key_mask.reshape(flat),
        choices,
    )  # fmt: skip


def check_types(
    name: str, value: ArrayLike, shape: tuple[int, ...], config: Sizes
) -> NDArray[np.integer]:
    """Return token types, one for each id.  Raises InputError naming the argument."""
    if not config.type_vocab_size:
        raise InputError(f"{name} was given, but the model has no token types; leave it out")
    types = integer_array(name, value)
    require_shape(name, types, shape)
    require_range(name, types, config.type_vocab_size, "type_vocab_size")
    return types


def head_masks(
    config: Sizes, attention_head_mask: ArrayLike | None, dtype: np.dtype[np.floating]
) -> list[Array]:
    """Return for each block (H, 1, 1), for the heads it still has; all ones where none is given."""
    shape = (config.num_blocks, config.num_attention_heads)
    ones = np.ones(shape)
    mask = (
        ones
        if attention_head_mask is None
        else number_array("attention_head_mask", attention_head_mask)
    )
    if mask.shape != shape:
        raise InputError(
            f"attention_head_mask has shape {mask.shape}, "
            f"expected (num_blocks, num_attention_heads) = {shape}"
        )
    with np.errstate(over="ignore"):
        mask = mask.astype(dtype)
    if not np.isfinite(mask).all():
        raise InputError(f"attention_head_mask has values that {dtype} cannot hold")
    return [mask[i, config.heads(i)].reshape(-1, 1, 1) for i in range(config.num_blocks)]


def list_of(name: str, value: Any) -> list[Any]:
    """Return what must be a list, or an iterable, of lists."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InputError(f"{name} takes a list of lists of ids, not {quote(value)}")
    return list(value)


def count_choices(groups: Sequence[Sequence[Any]]) -> int:
    """Return how many choices every group has.  Raises InputError if they differ."""
    sizes = {len(group) for group in groups}
    if len(sizes) > 1 or 0 in sizes:
        raise InputError(
            f"the groups have {', '.join(map(str, sorted(sizes)))} choices; expected equally many, "
            "at least one"
        )
    return sizes.pop() if sizes else 1


def check_list(config: Sizes, i: int, sequence: ArrayLike) -> NDArray[np.intp]:
    """Check token list number i of a packed call.  Raises InputError naming it."""
    name = f"sequence {i}"
    ids = integer_array(name, sequence)
    if ids.ndim != 1 or not ids.size:
        several = "; packed takes a list of lists" if ids.ndim == 0 else ""
        raise InputError(
            f"{name} has shape {ids.shape}, expected a list of at least one id{several}"
        )
    if len(ids) > config.max_positions:
        raise InputError(
            f"{name} has length {len(ids)}, but the model has {config.max_positions} positions"
        )
    require_range(name, ids, config.vocab_size, "vocab_size")
    return ids.astype(np.intp)  # so that no sum of columns can wrap


def check_rows(i: int, rows: ArrayLike, length: int) -> NDArray[np.intp]:
    """Check which positions are wanted of sequence number i.  Raises InputError naming it."""
    wanted = integer_array(f"rows of sequence {i}", rows)
    if wanted.ndim != 1:
        raise InputError(f"rows of sequence {i} has shape {wanted.shape}, expected a list")
    require_range(f"rows of sequence {i}", wanted, length, "its length")
    return wanted.astype(np.intp)


def integer_array(name: str, value: Any) -> NDArray[np.integer]:
    """Return a value as an array of whole numbers, or say what it is instead."""
    array = number_array(name, value)
    if not array.size and not isinstance(value, np.ndarray):  # to NumPy an empty list is of floats
        array = array.astype(np.intp)
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} has dtype {array.dtype}, expected whole numbers")
    return array


def number_array(name: str, value: Any, *, finite: bool = True) -> NDArray[Any]:
    """Return a value as an array of real numbers, all finite unless otherwise said."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{name} is no array: {error}; are its rows of one length?") from None
    if array.dtype.kind == "O" and all(isinstance(n, int) for n in array.flat):
        raise InputError(f"{name} has an integer of over 64 bits")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} has dtype {array.dtype}, expected numbers")
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{name} has values that are not finite")
    return array


def require_shape(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse an array that is not shaped as input_ids are."""
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}, but input_ids has {shape}")


def require_range(name: str, array: NDArray[np.integer], size: int, limit: str) -> None:
    """Refuse indices below 0, which NumPy would count from the end, and beyond a size."""
    if array.size and (array.min() < 0 or array.max() >= size):
        wrong = np.argwhere((array < 0) | (array >= size))
        where = tuple(int(i) for i in wrong[0])
        raise InputError(
            f"{name} has {array[where]} at {where}, expected 0 to {size - 1} ({limit} is {size})"
        )
