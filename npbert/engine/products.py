"""Matrix products in the pieces that NumPy's BLAS is best at, and memory that is used again."""

import ctypes
import math
import os
import threading
from collections.abc import Iterator
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npbert.engine.threads import find_openblas
from npbert.textbook import Array

# OpenBLAS's kernels for small matrices: which processors have them, and for how many columns they
# are better than those for large ones (measured on a Cascade Lake, and on a Zen 4, which is a
# Cooperlake to OpenBLAS); up to how many multiplications they are used; and the shapes that suit
# them: 64 columns of the usual 768 features are a fifth of an L2 cache, and with so many columns 4
# rows fill the registers, with fewer columns 6 do.
SMALL_KERNELS: Final = {b"SkylakeX": 160, b"Cooperlake": math.inf, b"SapphireRapids": math.inf}
SMALL_PRODUCT: Final = 1_000_000
BLOCK_COLUMNS: Final = 64
STACK_ROWS: Final = (128, 64, 32, 16, 8, 4), (192, 96, 48, 24, 12, 6)  # whole blocks; fewer columns

_own = threading.local()


@cache
def columns_of_small_products() -> float:
    """Return up to how many columns this BLAS is best at small products; 0 where it never is.

    On processors with AVX-512, OpenBLAS multiplies small matrices where they lie, without copying
    them first.  There a product with few columns is up to twice as fast in small pieces, and a
    large one 5 % faster on some, 10 to 20 % slower on others.  Elsewhere small products are slow.
    """
    if (known := find_openblas()) is None:
        return 0
    found, name = known
    corename = getattr(found, name.format("get_corename"))
    corename.restype = ctypes.c_char_p
    return SMALL_KERNELS.get(corename(), 0)


def column_blocks(x: Array) -> Iterator[slice]:
    """Yield the columns of x, as many at a time as the BLAS at hand is best at."""
    columns = x.shape[-1]
    width = BLOCK_COLUMNS if columns <= columns_of_small_products() else max(1, columns)
    return (slice(i, i + width) for i in range(0, columns, width))


def product(a: Array, b: Array, out: Array) -> Array:
    """Set out = a @ b, in pieces if the BLAS at hand is best at these; return it."""
    rows, (inside, width) = 0, b.shape[-2:]
    if 0 < width <= columns_of_small_products():
        sizes = STACK_ROWS[width % BLOCK_COLUMNS > 0]
        rows = next((n for n in sizes if n * inside * width <= SMALL_PRODUCT), 0)
    return product_in_stacks(a, b, out, rows or a.shape[-2])


def product_in_stacks(a: Array, b: Array, out: Array, rows: int) -> Array:
    """Set out = a @ b, some rows at a time, in one call for as many stacks of rows as there are."""
    length = a.shape[-2]
    whole = length - length % rows if rows < length else 0
    if whole:
        stacks, results = (
            x[..., :whole, :].reshape(*x.shape[:-2], -1, rows, x.shape[-1]) for x in (a, out)
        )
        np.matmul(stacks, b[..., None, :, :], out=results)
    if whole < length:
        np.matmul(a[..., whole:, :], b, out=out[..., whole:, :])
    return out


def multiply(x: Array, *pairs: tuple[Array, Array]) -> None:
    """Set out = weight @ x for every pair of weight and out, a few columns at a time."""
    for some in column_blocks(x):
        given = np.ascontiguousarray(x[:, some])
        for weight, out in pairs:
            product(weight, given, out[:, some])


def scratch(name: str, *shape: int) -> NDArray[np.floating]:
    """Return this thread's memory of that name, the same again in the next block."""
    size = math.prod(shape)
    held = getattr(_own, name, None)
    if held is None or held.size < size:
        held = np.empty(size, np.float32)
        setattr(_own, name, held)
    return held[:size].reshape(shape)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _own.__dict__.clear())
