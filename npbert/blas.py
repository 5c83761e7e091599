"""Matrix products as NumPy's BLAS does them best: how many threads, and in what pieces.

Packs run side by side, each with one BLAS thread; with several they would fight for the cores.
The technique is threadpoolctl's (find the library, call its setter), for the OpenBLAS that ships
inside NumPy's wheels.  Where there is another BLAS, set its variable (MKL_NUM_THREADS, ...) to 1
before NumPy is imported, as the command line does; otherwise results stay right, and come slower.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from npbert.textbook import Array

# OpenBLAS's kernels for small matrices: which processors have them, up to how many multiplications
# they are used, and the shapes that suit them: 64 columns of the usual 768 features are a fifth of
# an L2 cache, and with so many columns 4 rows fill the registers, with fewer columns 6 do.
SMALL_KERNELS: Final = (b"SkylakeX", b"Cooperlake", b"SapphireRapids")
SMALL: Final = 1_000_000
COLUMNS: Final = 64
ROWS: Final = (128, 64, 32, 16, 8, 4), (192, 96, 48, 24, 12, 6)  # whole columns; fewer

_lock = threading.Lock()
_inside = 0
_outside = 0


@cache
def library() -> tuple[ctypes.CDLL, str] | None:
    """Return the OpenBLAS of NumPy's wheel, and its names with {} for their middle, or None."""
    for path in (Path(np.__file__).parent.parent / "numpy.libs").glob("*openblas*"):
        found = ctypes.CDLL(str(path))
        for name in ("scipy_openblas_{}64_", "openblas_{}64_", "scipy_openblas_{}", "openblas_{}"):
            if hasattr(found, name.format("set_num_threads")):
                return found, name
    return None


@cache
def controls() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """Return the functions that get and set the number of threads, or None."""
    if (known := library()) is None:
        return None
    found, name = known
    get, put = (getattr(found, name.format(f"{verb}_num_threads")) for verb in ("get", "set"))
    return get, put


@contextmanager
def one_thread() -> Iterator[None]:
    """Give matrix products one thread each until the last of those who asked has left."""
    global _inside, _outside
    found = controls()
    if found is None:
        yield
        return
    get, put = found
    with _lock:
        if _inside == 0:
            _outside = get()
            put(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside = max(0, _inside - 1)  # a fork may have come between
            if _inside == 0:
                put(_outside)


def alone() -> None:
    """Forget, in a forked child, who computed in its parent: none of them will ever leave."""
    global _lock, _inside
    _lock = threading.Lock()  # somebody may have held it
    if _inside and (found := controls()):
        found[1](_outside)
    _inside = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=alone)


@cache
def multiplies_small() -> bool:
    """Tell whether this BLAS multiplies small matrices where they lie, without copying them first.

    OpenBLAS does on processors with AVX-512.  There a large product is 5 % faster in small pieces,
    and one with few columns up to twice as fast.  Elsewhere small products are slow.
    """
    if (known := library()) is None:
        return False
    found, name = known
    corename = getattr(found, name.format("get_corename"))
    corename.restype = ctypes.c_char_p
    return corename() in SMALL_KERNELS


def columns(x: Array) -> Iterator[slice]:
    """Yield the columns of x, as many at a time as the BLAS at hand is best at."""
    width = COLUMNS if multiplies_small() else max(1, x.shape[-1])
    return (slice(i, i + width) for i in range(0, x.shape[-1], width))


def product(a: Array, b: Array, out: Array) -> Array:
    """Set out = a @ b, in pieces if the BLAS at hand is best at these; return it."""
    rows, (inside, width) = 0, b.shape[-2:]
    if width and multiplies_small():
        sizes = ROWS[width % COLUMNS > 0]
        rows = next((n for n in sizes if n * inside * width <= SMALL), 0)
    return stacked(a, b, out, rows or a.shape[-2])


def stacked(a: Array, b: Array, out: Array, rows: int) -> Array:
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
    for some in columns(x):
        given = np.ascontiguousarray(x[:, some])
        for weight, out in pairs:
            product(weight, given, out[:, some])
