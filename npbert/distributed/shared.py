"""How a task travels: as what made it, a few hundred bytes, of which each process makes it once."""

import hashlib
import pickle
import threading
from functools import partial
from importlib import import_module
from typing import Any, Final, NamedTuple

from npbert import __version__
from npbert.errors import CheckpointError, InputError
from npbert.jobs import fingerprint
from npbert.tasks import Task

PACKAGES: Final = ("dask.dataframe", "distributed", "pandas", "pyarrow")
LARGE: Final = 1 << 20  # bytes; what stands in every task of a graph is far smaller

_made: dict[bytes, Task[Any, Any]] = {}
_lock = threading.Lock()


def require() -> None:
    """Raise InputError where the extra is not installed."""
    try:
        for name in PACKAGES:
            import_module(name)
    except ImportError as error:
        raise InputError(
            "npbert.distributed needs Dask, pandas and pyarrow, which are not installed: "
            "pip install 'npbert[dask]'"
        ) from error


class Recipe(NamedTuple):
    """A task as it travels, and what must be the same where it arrives."""

    raw: bytes
    version: str  # of npbert
    model: str  # its fingerprint

    @property
    def name(self) -> str:
        """Return what it is known by on a cluster."""
        return f"npbert-{hashlib.sha256(self.raw).hexdigest()[:16]}"


def recipe(task: Task[Any, Any], model: str | None = None) -> Recipe:
    """Return how to make a task elsewhere; `model` is its fingerprint, where that is known.

    Raises InputError for a task that no source makes.
    """
    task.streamable(task.options)
    # A file of ranges is read here; the worker may have none of that name.
    if task.remake and (ranges := getattr(task.options, "ranges", None)) is not None:
        task.remake = partial(task.remake, ranges=ranges)
    raw = pickle.dumps(task)
    if task.folder is None or len(raw) > LARGE:
        raise InputError(
            "source is a Model that was not loaded, and its weights would travel with every "
            "partition; save it in a folder that the workers see, and pass that"
        )
    return Recipe(raw, __version__, model or fingerprint(task.folder))


def made(raw: bytes) -> Task[Any, Any]:
    """Return the task of a recipe, the same again in this process.  Raises NpbertError."""
    with _lock:
        if raw not in _made:
            _made[raw] = pickle.loads(raw)
        return _made[raw]


def forget(raw: bytes) -> None:
    """Let go of a task, and of its weights."""
    with _lock:
        _made.pop(raw, None)


def check(expected: Recipe) -> None:
    """Make a task, and refuse one that would answer differently here.  Raises NpbertError."""
    if __version__ != expected.version:
        raise InputError(f"has npbert {__version__}, and the client {expected.version}")
    folder = made(expected.raw).folder
    assert folder is not None  # recipe() has seen to it
    if fingerprint(folder) != expected.model:
        raise CheckpointError(f"{folder}: has not the files that the client has there")
