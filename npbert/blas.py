"""How many threads NumPy's matrix products use: one inside the pool, as before outside of it.

Packs run side by side, each with one BLAS thread; with several they would fight for the cores.
The technique is threadpoolctl's (find the library, call its setter), for the OpenBLAS that ships
inside NumPy's wheels.  Where there is another BLAS, set its variable (OPENBLAS_NUM_THREADS,
MKL_NUM_THREADS, ...) to 1 before Python starts; otherwise results stay right, and come slower.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

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
