"""How many threads NumPy's matrix products use: one inside the pool, as before outside of it.

Packs run side by side, each with one BLAS thread; with several they would fight for the cores.
A pack that is alone shares its matrix products and activations with a second thread, cut in two
in the same place whether there is one or not.
The technique is threadpoolctl's (find the library, call its setter), for the OpenBLAS that ships
inside NumPy's wheels.  Where there is another BLAS, set its variable (OPENBLAS_NUM_THREADS,
MKL_NUM_THREADS, ...) to 1 before Python starts; otherwise results stay right, and come slower.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

WORTH_SHARING: Final = 4_000_000  # multiplications, 0.1 ms: ten times what a thread costs

_mine = threading.local()
_lock = threading.Lock()
_inside = 0
_outside = 0


def cores() -> int:
    """Return how many cores this process may use: by affinity, and by its cgroup's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return max(1, min(allowed or 1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or "max"
        return allowed or 1


@cache
def controls() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """Return the functions that get and set the number of threads, or None."""
    for path in (Path(np.__file__).parent.parent / "numpy.libs").glob("*openblas*"):
        library = ctypes.CDLL(str(path))
        for prefix, suffix in (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", "")):
            get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
            put = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
            if get and put:
                return get, put
    return None


@contextmanager
def crew() -> Iterator[None]:
    """Let the one pack that this thread computes share its work with another thread."""
    with ThreadPoolExecutor(1) as pool:
        _mine.crew = pool
        try:
            yield
        finally:
            _mine.crew = None


def share(function: Callable[[slice], None], size: int, work: int) -> None:
    """Call a function for both halves of range(size), by this thread or with its crew.

    `work` counts multiplications, or what takes as long; a little of it is not worth a thread.
    The halves are the same whoever computes them, so that no bit depends on who did.
    """
    if work < WORTH_SHARING:
        function(slice(0, size))
        return
    upper, lower = slice(0, size // 2), slice(size // 2, size)
    pool = getattr(_mine, "crew", None)
    # NumPy keeps what it does about overflow in the context, which a thread does not inherit.
    other = pool.submit(copy_context().run, function, lower) if pool else None
    function(upper)
    if other:
        other.result()
    else:
        function(lower)


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
            _inside -= 1
            if _inside == 0:
                put(_outside)
