"""Tasks over HTTP: one model, many callers, whose requests are computed together.

`app` returns an ASGI app that any server runs and any app mounts; `npbert serve` is that app behind
uvicorn.  It needs the extra `serve`, which is imported when an app is made, as NumPy is.
"""

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from npbert.errors import InputError, quote, require_count
from npbert.serving.limits import ServerLimits
from npbert.tasks import find_row, pipeline

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["ServerLimits", "app"]

SERVER_PACKAGES: Final = ("starlette", "uvicorn", "prometheus_client")


def require_server_packages() -> None:
    """Refuse to go on without the packages of the extra.  Raises InputError."""
    if missing := [name for name in SERVER_PACKAGES if find_spec(name) is None]:
        raise InputError(
            f"serving needs {', '.join(missing)}, which is not installed: "
            "pip install 'npbert[serve]'"
        )


def app(
    tasks: Mapping[str, Any],
    *,
    max_wait: float = 2,
    max_batch_tokens: int | None = None,
    batch_invariant: bool = False,
    threads: int | None = None,
    origins: Sequence[str] = (),
    limits: ServerLimits | None = None,
    **loading: Any,
) -> "Starlette":
    """Return an ASGI app that answers with tasks over HTTP.

    Parameters
    ----------
    tasks : mapping
        What each task is asked of: a folder, a name on the hub, a Model, a task that
        npbert.pipeline made, or None for the built-in model.  A dict in that place holds several
        by the names that a request's `model` has; the first is the default.
    max_wait : float
        Milliseconds that a request waits for others, where the model is busy when it comes.
    max_batch_tokens : int, optional
        Tokens that are computed together; default: 1024 for each thread, at most 4096.
    batch_invariant, threads, **loading
        As npbert.pipeline has them, for what is not loaded yet.
    origins : list of str
        Origins whose pages may ask from a browser; "*" is all of them.
    limits : ServerLimits, optional

    Raises
    ------
    InputError, ConfigError, CheckpointError, HubError
        The environment's NPBERT_API_KEY, if it is set, is the key that requests must have.
    """
    require_server_packages()
    from npbert.serving.application import Application, make_app
    from npbert.serving.batching import Batcher, default_batch_tokens
    from npbert.serving.gate import Gate, read_key
    from npbert.serving.metrics import ServerMetrics
    from npbert.serving.questions import ServedTask
    from npbert.serving.service import Service
    from npbert.tasks.task import Task

    if not isinstance(tasks, Mapping) or not tasks:
        raise InputError(f"tasks is {quote(tasks)}, expected a dict of tasks and their models")
    if isinstance(max_wait, bool) or not isinstance(max_wait, int | float) or not max_wait >= 0:
        raise InputError(f"max_wait is {quote(max_wait)}, expected milliseconds from 0")
    most = max_batch_tokens if max_batch_tokens is not None else default_batch_tokens(threads)
    most = require_count("max_batch_tokens", most)
    how = {"threads": threads, "batch_invariant": batch_invariant, **loading}
    metrics = ServerMetrics()
    served: dict[str, dict[str, ServedTask]] = {}
    for name, given in tasks.items():
        row = find_row(name)
        models = given if isinstance(given, Mapping) else {name_model(given, row.built_in): given}
        if not models:
            raise InputError(f"{name} has no model, expected at least one")
        for model, source in models.items():
            made = source if isinstance(source, Task) else pipeline(name, source, **how)
            if made.row is not row:
                raise InputError(f"{name} is given a task {made.row.name}")

            def count(lists: int, tokens: int, seconds: float, task: str = name) -> None:
                metrics.count_batch(task, lists, tokens, seconds)

            batcher = Batcher(max_wait=max_wait / 1000, max_tokens=most, observe=count)
            served.setdefault(name, {})[model] = ServedTask(model, made, batcher)
    batching = {
        "max_wait": max_wait, "max_batch_tokens": most, "batch_invariant": batch_invariant
    }  # fmt: skip
    service = Service(served, limits or ServerLimits())
    return make_app(Application(service, Gate(read_key(), origins), metrics, batching))


def name_model(source: Any, built_in: str | None) -> str:
    """Return what a request calls a model that was given without a name."""
    from npbert.hub import BUILT_IN_PREFIX
    from npbert.model import Model
    from npbert.tasks.task import Task

    if source is None:
        return f"{BUILT_IN_PREFIX}{built_in}"
    if isinstance(source, Task):
        source = source.model
    if isinstance(source, Model):
        return str(source.folder.name if source.folder else source.architecture)
    return os.fspath(source) if isinstance(source, str | os.PathLike) else str(source)
