"""BERT-like encoders in plain NumPy; start with npbert.load or npbert.pipeline.

Names and sub-packages are resolved on first use, so that `import npbert` costs nothing and the
command line can set up the process before NumPy loads.  A fork waits until that is done: its child
would find a module that a thread, which it has not, goes on importing for ever.
"""

import os
from importlib import import_module
from importlib.util import find_spec
from threading import RLock, local
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from npbert import bench as bench
    from npbert import distributed as distributed
    from npbert import explaining as explaining
    from npbert import hub as hub
    from npbert import jobs as jobs
    from npbert import oracle as oracle
    from npbert import tasks as tasks
    from npbert import text as text
    from npbert.checkpoint.config import Config
    from npbert.errors import (
        CheckpointError,
        ConfigError,
        HubError,
        InputError,
        NpbertError,
        NpbertWarning,
    )
    from npbert.explaining import Explanation, explain
    from npbert.loading import init, load
    from npbert.model import Model, Output
    from npbert.oracle import Trace, compare, diagnose, trace
    from npbert.tasks import pipeline
    from npbert.tasks.search import semantic_search
    from npbert.text.tokenizer import Tokenizer

__version__: Final = "0.1.0"
__all__ = [
    "CheckpointError",
    "Config",
    "ConfigError",
    "Explanation",
    "HubError",
    "InputError",
    "Model",
    "NpbertError",
    "NpbertWarning",
    "Output",
    "Tokenizer",
    "Trace",
    "compare",
    "diagnose",
    "explain",
    "init",
    "load",
    "pipeline",
    "semantic_search",
    "trace",
]

_HOMES: Final = {
    "Config": "checkpoint.config", "Model": "model", "Output": "model",
    "Tokenizer": "text.tokenizer", "init": "loading", "load": "loading", "pipeline": "tasks",
    "Trace": "oracle", "compare": "oracle", "diagnose": "oracle", "trace": "oracle",
    "Explanation": "explaining", "explain": "explaining", "semantic_search": "tasks.search",
}  # fmt: skip

_import_lock: Final = RLock()  # whoever imports on first use has it, and so has whoever forks
_forking: Final = local()
_FORK_SECONDS: Final = 60  # for an import to end; one that waits for who forks would never


def _hold_imports() -> None:
    _forking.holds = _import_lock.acquire(timeout=_FORK_SECONDS)


def _release_imports() -> None:
    if _forking.holds:
        _import_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_hold_imports, after_in_parent=_release_imports, after_in_child=_release_imports
    )


if not TYPE_CHECKING:  # to which every name would be one of ours

    def __getattr__(name: str) -> Any:
        with _import_lock:
            if name in __all__:
                value = getattr(import_module(f"npbert.{_HOMES.get(name, 'errors')}"), name)
            elif name.isidentifier() and not name.startswith("_") and find_spec(f"npbert.{name}"):
                value = import_module(f"npbert.{name}")
            else:
                raise AttributeError(f"module 'npbert' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
