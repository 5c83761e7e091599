"""How many threads compute, and how a pack that is alone shares its work with a second one."""

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

WORTH_SHARING: Final = 8_000_000  # multiplications, 0.2 ms; a thread costs a quarter of that
FEW: Final = 8  # tokens; for fewer the time goes to reading the weights

R = TypeVar("R")

_mine = threading.local()


def cores() -> int:
    """Return how many cores this process may use: by affinity, and by its cgroup's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return max(1, min(allowed or 1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or "max"
        return allowed or 1


@contextmanager
def crew() -> Iterator[None]:
    """Let the one pack that this thread computes share its work with a helper.

    Every thread that asks has a helper of its own, which stays: to start a thread for every text
    would cost 0.2 ms.
    """
    if not hasattr(_mine, "own"):
        _mine.own = ThreadPoolExecutor(1, thread_name_prefix="npbert")
    _mine.helper = _mine.own
    try:
        yield
    finally:
        _mine.helper = None


if hasattr(os, "register_at_fork"):  # a child has no threads but the one that forked
    os.register_at_fork(after_in_child=lambda: _mine.__dict__.clear())


def halves(size: int, weights: int, tokens: int) -> list[slice]:
    """Return range(size) in two halves, or whole where so little is not worth a second thread.

    `weights` times `tokens` are multiplied.  The cut depends on nothing else, and is made whether
    there is a second thread or not, so that no bit of a result depends on who computed it.
    """
    if size < 2 or weights * max(tokens, FEW) < WORTH_SHARING:
        return [slice(0, size)]
    return [slice(0, size // 2), slice(size // 2, size)]


def share(function: Callable[[slice], R], parts: Sequence[slice]) -> list[R]:
    """Call a function for every part: the first here, and the second by the helper, if any."""
    first, *rest = parts
    pool = getattr(_mine, "helper", None)
    # NumPy keeps what it does about overflow in the context, which a thread does not inherit.
    waited_for = [pool.submit(copy_context().run, function, part) for part in rest] if pool else []
    results = [function(first)]
    return results + ([w.result() for w in waited_for] or [function(part) for part in rest])


def memory(name: str, *shape: int) -> NDArray[np.floating]:
    """Return this thread's memory of that name, the same again in the next block."""
    size = math.prod(shape)
    held = getattr(_mine, name, None)
    if held is None or held.size < size:
        held = np.empty(size, np.float32)
        setattr(_mine, name, held)
    return held[:size].reshape(shape)
