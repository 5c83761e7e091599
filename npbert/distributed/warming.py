"""Every worker loads the model before it is given work: a missing file is missed at once."""

import asyncio
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
    client.unregister_worker_plugin(recipe.name)
