"""Every worker loads the model before it is given work: a missing file is missed at once."""

import asyncio
import signal
from contextlib import suppress
from typing import Any

from distributed import Client, WorkerPlugin, get_client

from npbert.distributed.shared import Recipe, check, forget
from npbert.errors import NpbertError


class Warming(WorkerPlugin):
    """Loads a task on every worker, and on those that come later."""

    idempotent = True  # by its name: a worker that is warm is left alone

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.name = recipe.name

    async def setup(self, worker: Any) -> None:
        """Load the task.  Raises NpbertError, naming the worker."""
        try:
            await asyncio.to_thread(check, self.recipe)  # the worker's pulse goes on
        except NpbertError as error:
            raise type(error)(f"worker {worker.address}: {error}") from None

    def teardown(self, worker: Any) -> None:
        """Let go of the task."""
        forget(self.recipe.raw)


class Deaf(WorkerPlugin):
    """Leaves Ctrl-C to the client, for workers of the same terminal, which sends it to all."""

    name = "npbert-deaf"

    def setup(self, worker: Any) -> None:
        """Hear no more of it."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def current() -> Client | None:
    """Return the cluster's client that this program has, if any."""
    try:
        return get_client()
    except ValueError:
        return None


def warm_up(client: Client, recipe: Recipe) -> None:
    """Load a task on every worker.  Raises NpbertError where one cannot."""
    if client.asynchronous:  # nothing can be waited for here: workers load with their first task
        return
    try:
        client.register_plugin(Warming(recipe), name=recipe.name)
    except NpbertError:
        cool_down(client, recipe)  # or it would pass for warm the next time
        raise


def cool_down(client: Client, recipe: Recipe) -> None:
    """Let go of a task on every worker."""
    with suppress(OSError):  # a worker has gone in this moment, and its memory with it
        client.unregister_worker_plugin(recipe.name)
